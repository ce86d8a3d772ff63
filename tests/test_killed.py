"""A run that is killed, at whatever moment, and resumed has in the end the files of one that never stopped. [R81]"""

from __future__ import annotations

import multiprocessing
import os
import random
import shutil
import signal
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from models import pairs, quiet
from torch.utils.data import DataLoader, TensorDataset

from refimpl import Callback, LightningModule, ModelCheckpoint, Trainer, seed_everything
from refimpl.saving.file import read

pytestmark = pytest.mark.filterwarnings("ignore:fit will train nothing", "ignore:.*fork")


class Drawn(LightningModule):
    """Logs scores that look random, and depend on the step only; now and then NaN."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(2, 1)

    def score(self, what: str) -> float:
        return random.Random(f"{what} {self.current_epoch} {self.global_step}").choice([*range(9), float("nan")])

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        self.log("score", self.score("train"))
        return self.layer(batch[0]).square().mean() * (1 + torch.rand(()))

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.log("val", self.score("val"))

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.parameters(), lr=0.1)


Plan = list[dict[str, Any]]
PLANS: dict[str, Plan] = {
    "the best, and the last": [{"monitor": "val", "save_top_k": 2, "save_last": True}],
    "one name for all": [{"monitor": "score", "every_n_train_steps": 1, "filename": "best", "save_top_k": 2}],
    "all": [{"monitor": "score", "save_top_k": -1, "every_n_train_steps": 2, "filename": "{epoch}"}],
    "the newest, and the best": [{"every_n_train_steps": 1}, {"monitor": "val", "filename": "best", "save_last": True}],
    "three": [
        {"filename": "{epoch}", "every_n_train_steps": 3}, {"save_last": True, "save_top_k": 0},
        {"monitor": "step", "mode": "max", "filename": "sub/{score:.1f}", "save_top_k": 3, "every_n_train_steps": 2},
    ],
}  # fmt: skip


def fit(plan: Plan, folder: Path, ckpt_path: Path | None = None, *callbacks: Callback, epochs: int = 4) -> Trainer:
    seed_everything(1)
    trainer = quiet(max_epochs=epochs, callbacks=[*(ModelCheckpoint(folder, **each) for each in plan), *callbacks],
                    enable_checkpointing=True)  # fmt: skip
    trainer.fit(Drawn(), loader(), pairs(1), ckpt_path=ckpt_path)
    return trainer


def loader() -> Any:
    return DataLoader(TensorDataset(torch.arange(12.0).view(6, 2)), batch_size=2, shuffle=True)


def files(folder: Path) -> dict[str, Any]:
    """What is in the folder, and of each file what tells it from the others of its run."""
    found = {str(path.relative_to(folder)): read(path) for path in folder.rglob("*.ckpt")}
    return {
        name: (file["epoch"], file["global_step"], file["loops"]["data"]["in_epoch"], str(file["state_dict"]))
        for name, file in found.items()
    }


def known(trainer: Trainer, folder: Path) -> list[Any]:
    """What its ModelCheckpoints say of the files."""

    def name(path: str) -> str:
        return os.path.relpath(path, folder) if path else ""

    return [
        (
            name(each.best_model_path), str(each.best_model_score), name(each.kth_best_model_path), str(each.kth_value),
            name(each.last_model_path), {name(path): str(score) for path, score in each.best_k_models.items()},
        )
        for each in trainer.checkpoint_callbacks
    ]  # fmt: skip


def killed(plan: Plan, folder: Path, at: int, ckpt_path: Path | None) -> None:
    """A fit in a process of its own, which is killed before the `at`-th time that it opens, moves or removes a file."""

    def run() -> None:
        torch.set_num_threads(1)
        left = at

        def watch(event: str, arguments: Any) -> None:
            nonlocal left
            if event in ("open", "os.rename", "os.remove") and str(arguments[0]).startswith(str(folder)):
                left -= event != "open" or "w" in str(arguments[1])
                if left == 0:
                    os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(watch)
        fit(plan, folder, ckpt_path)

    process = multiprocessing.get_context("fork").Process(target=run)
    process.start()
    process.join()
    assert process.exitcode in (0, -signal.SIGKILL)


@pytest.mark.parametrize("plan", PLANS.values(), ids=PLANS)
@pytest.mark.parametrize("at, again, which", [(5, 0, -1), (16, 9, -1), (23, 0, 0), (29, 0, -1)])
def test_a_killed_run_that_goes_on(tmp_path: Path, plan: Plan, at: int, again: int, which: int) -> None:
    """From the newest file, or another one; killed once or twice."""
    whole = fit(plan, tmp_path / "whole")
    folder = tmp_path / "parts"

    def last_saved() -> Path:
        return sorted(folder.rglob("*.ckpt"), key=lambda path: path.stat().st_mtime_ns)[which]

    killed(plan, folder, at, None)
    if again:
        killed(plan, folder, again, last_saved())
    saved = last_saved()
    resumed = fit(plan, folder, saved)
    assert files(folder) == files(tmp_path / "whole")
    assert known(resumed, folder) == known(whole, tmp_path / "whole")


# ---- whose files they are --------------------------------------------------------------------------------------


class Stops(Callback):
    def __init__(self, step: int) -> None:
        self.step = step

    def on_train_batch_start(self, trainer: Trainer, pl_module: Any, batch: Any, batch_idx: int, idx: int) -> None:
        if trainer.global_step == self.step:
            raise RuntimeError("stopped")


def stopped(plan: Plan, folder: Path, step: int, ckpt_path: Path | None = None) -> None:
    with pytest.raises(RuntimeError, match="stopped"):
        fit(plan, folder, ckpt_path, Stops(step))


ALL: Plan = [{"every_n_train_steps": 1, "save_top_k": -1, "filename": "{step}"}]


def test_nobody_elses_file_is_removed(tmp_path: Path) -> None:
    """Neither another run's, nor a copy, nor what is no checkpoint, whatever they are called."""
    fit(ALL, tmp_path, epochs=2)
    theirs = {path: path.read_bytes() for path in tmp_path.iterdir()}
    stopped(ALL, tmp_path, 8)
    shutil.copy(tmp_path / "step=8.ckpt", tmp_path / "step=8-mine.ckpt")
    (tmp_path / "step=8-notes.ckpt").write_text("none")
    (tmp_path / "step=7-folder.ckpt").mkdir()
    fit(ALL, tmp_path, tmp_path / "step=4-v1.ckpt", epochs=3)
    assert {path: path.read_bytes() for path in theirs} == theirs
    kept = {"step=8-mine", "step=8-notes", "step=7-folder"}
    assert {path.stem for path in tmp_path.iterdir()} == {path.stem for path in theirs} | kept | {
        *(f"step={step}-v1" for step in range(1, 7)), *(f"step={step}" for step in range(7, 10))
    }  # fmt: skip


def test_a_file_that_came_to_the_place_of_ones_own_is_not_removed(tmp_path: Path) -> None:
    """Nor written over; nor is one that a checkpoint says it kept, which may say what it likes."""
    plan: Plan = [
        {"filename": "{epoch}", "monitor": "epoch", "mode": "max"}, {"filename": "x-{epoch}"},
        {"filename": "y-{epoch}", "save_top_k": -1, "save_last": True},
    ]  # fmt: skip
    folder, precious = tmp_path / "folder", tmp_path / "precious"
    fit(plan, folder, epochs=3)
    checkpoint = read(folder / "y-epoch=0.ckpt")
    for path in (precious, folder / "epoch=0.ckpt", folder / "last.ckpt"):
        path.write_text("precious")
    liar = checkpoint["callbacks"]["ModelCheckpoint#1"]
    liar["state_dict"]["_newest"], liar["state_dict"]["last_model_path"] = str(precious), str(tmp_path / "new")
    liar["on_save_checkpoint"] = [str(precious), str(tmp_path / "new")]
    torch.save(checkpoint, tmp_path / "resumed.ckpt")
    fit(plan, folder, tmp_path / "resumed.ckpt", epochs=3)
    for path in (precious, folder / "epoch=0.ckpt", folder / "last.ckpt"):
        assert path.read_text() == "precious"
    assert sorted(os.listdir(tmp_path)) == ["folder", "precious", "resumed.ckpt"]
    assert sorted(path.stem for path in folder.iterdir()) == [
        "epoch=0", "epoch=2", "last", "last-v1", "x-epoch=2", "y-epoch=0", "y-epoch=1", "y-epoch=2"
    ]  # fmt: skip


def test_what_an_earlier_fit_of_the_callback_has_saved_is_its_own(tmp_path: Path) -> None:
    """It is removed for a better one, also where the second fit has been killed."""

    def made(*callbacks: Callback) -> Trainer:
        saver = ModelCheckpoint(tmp_path, "{epoch}", monitor="epoch", mode="max", save_top_k=2)
        return quiet(max_epochs=4, callbacks=[saver, *callbacks], enable_checkpointing=True)

    trainer, module = made(Stops(9)), Drawn()
    trainer.max_epochs = 2
    trainer.fit(module, loader(), pairs(1))
    trainer.max_epochs = 4
    with pytest.raises(RuntimeError, match="stopped"):
        trainer.fit(module, loader(), pairs(1))
    assert sorted(os.listdir(tmp_path)) == ["epoch=1.ckpt", "epoch=2.ckpt"]
    made().fit(Drawn(), loader(), pairs(1), ckpt_path=tmp_path / "epoch=2.ckpt")
    assert sorted(os.listdir(tmp_path)) == ["epoch=2.ckpt", "epoch=3.ckpt"]


def test_what_the_run_has_not_come_to_again_stays(tmp_path: Path) -> None:
    """So nothing is lost where it fails, or is not trained that far."""
    last: Plan = [{**ALL[0], "save_last": True}]
    other = tmp_path / "other"
    stopped(last, other, 9)
    stopped(last, other, 2, other / "step=2.ckpt")
    assert read(other / "last.ckpt")["global_step"] == 9
    shutil.rmtree(other)
    stopped(ALL, tmp_path, 9)
    stopped(ALL, tmp_path, 4, tmp_path / "step=2.ckpt")
    assert len(list(tmp_path.iterdir())) == 9
    rarely: Plan = [{**ALL[0], "every_n_train_steps": 4}]
    fit(rarely, tmp_path, tmp_path / "step=2.ckpt", epochs=2)
    assert sorted(path.stem for path in tmp_path.iterdir()) == [f"step={step}" for step in (1, 2, 4, 7, 8, 9)]


class Scored(Drawn):
    """Whose scores are given, by the step."""

    scores: tuple[float, ...] = ()

    def score(self, what: str) -> float:
        return self.scores[self.global_step]


def test_a_best_file_that_is_gone_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The run was resumed from the file of another one, and on other hardware comes to other scores."""
    plan: Plan = [{"every_n_train_steps": 1, "monitor": "score"}, {**ALL[0], "every_n_train_steps": 2}]
    monkeypatch.setattr(f"{__name__}.Drawn", Scored)
    Scored.scores = (5, 4, 3, 2, 1, 0)
    stopped(plan, tmp_path, 5)
    Scored.scores = (5, 4, 8, 8, 8, 7)
    resumed = fit(plan, tmp_path, tmp_path / "step=2.ckpt", epochs=2)
    best = resumed.checkpoint_callback
    assert best is not None and float(best.best_model_score) == 7  # type: ignore[arg-type]
    assert list(best.best_k_models) == [best.best_model_path]
    assert os.path.exists(best.best_model_path)


@pytest.mark.parametrize("plan, scores, saved", [
    ([{}, ALL[0]], (5, 7, 6, 4, 9, 9), "step=1"), ([{"save_top_k": 2}, ALL[0]], (5, 9, 4, 3, 2, 8), "step=2"),
    ([{"every_n_train_steps": 3, "monitor": None}, {"save_top_k": -1}], (0, 0, 0, 0, 0, 0), "best-v3"),
], ids=["one", "two", "names of two savers"])  # fmt: skip
def test_one_name_for_all_where_files_that_were_there_are_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, plan: Plan, scores: tuple[float, ...], saved: str
) -> None:
    """What the run kept, when the file of another one was saved, it has removed or written over before it was killed:
    the names are still taken, and the scores are not to be beaten by less."""
    plan = [{"every_n_train_steps": 1, "monitor": "score", "filename": "best", **each} for each in plan]
    monkeypatch.setattr(f"{__name__}.Drawn", Scored)
    Scored.scores = (*scores, 9, 9, 9)
    whole = fit(plan, tmp_path / "whole", epochs=2)
    stopped(plan, tmp_path / "parts", 6)
    resumed = fit(plan, tmp_path / "parts", tmp_path / "parts" / f"{saved}.ckpt", epochs=2)
    assert files(tmp_path / "parts") == files(tmp_path / "whole")
    assert known(resumed, tmp_path / "parts") == known(whole, tmp_path / "whole")


@pytest.mark.parametrize("first, gone", [("first", ["second", "last"]), ("second", ["last"])])
def test_a_file_that_was_to_be_saved_at_the_same_moment_is_saved(tmp_path: Path, first: str, gone: list[str]) -> None:
    """The run goes on from the file before it, of which it is a copy but for its name."""
    plan: Plan = [{"filename": "first"}, {"filename": "second", "monitor": "val", "save_last": True}]
    whole = fit(plan, tmp_path / "whole", epochs=1)
    fit(plan, tmp_path, epochs=1)
    for name in gone:
        (tmp_path / f"{name}.ckpt").unlink()
    again = fit(plan, tmp_path, tmp_path / f"{first}.ckpt", epochs=1)
    assert known(again, tmp_path) == known(whole, tmp_path / "whole")
    assert files(tmp_path).items() >= files(tmp_path / "whole").items()
    for name in gone:
        file = read(tmp_path / f"{name}.ckpt")
        assert str(file["loops"]) == str(read(tmp_path / "whole" / f"{name}.ckpt")["loops"])
        assert len(file["callbacks"]["ModelCheckpoint#1"]["on_save_checkpoint"]) == (name == "second")


def test_in_another_folder_nothing_of_the_old_one_is_saved_or_removed(tmp_path: Path) -> None:
    plan: Plan = [{"filename": "{epoch}", "monitor": "val", "save_top_k": 2, "save_last": True}]
    fit(plan, tmp_path / "old", epochs=3)
    (tmp_path / "old" / "last.ckpt").unlink()
    before = files(tmp_path / "old")
    fit(plan, tmp_path / "new", tmp_path / "old" / "epoch=1.ckpt", epochs=3)
    assert files(tmp_path / "old") == before
    assert (tmp_path / "new" / "last.ckpt").exists()
