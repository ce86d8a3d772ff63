"""ModelCheckpoint: when it saves, under which names, and what it keeps; which of its files a test loads. [R15, R44]"""

from __future__ import annotations

import os
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from models import Line, pairs, quiet

from refimpl import Callback, ConfigurationError, EarlyStopping, LightningModule, ModelCheckpoint, Trainer
from refimpl.errors import CheckpointError
from refimpl.saving.file import read

NAN, INF = float("nan"), float("inf")


class Scored(Line):
    """Logs a given score for each epoch, as "val" in its validation and as "train/score" at its end."""

    def __init__(self, scores: list[float]) -> None:
        super().__init__()
        self.scores = scores

    def score(self) -> float:
        return self.scores[min(self.current_epoch, len(self.scores) - 1)]

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        self.log("train/score", self.score(), on_step=False, on_epoch=True)
        return self.loss(batch)

    def validation_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> Any:
        self.log("val", self.score())


def saves(saver: ModelCheckpoint | list[Any], **options: Any) -> Trainer:
    return quiet(callbacks=saver, enable_checkpointing=True, **options)


def fit(
    saver: ModelCheckpoint | list[Any],
    scores: list[float] | None = None,
    batches: int = 2,
    val: bool = True,
    **options: Any,
) -> Trainer:
    """A fit over as many epochs as there are scores, by default 1."""
    scores = scores or [1.0]
    model = Scored(scores)
    if not val:
        model.validation_step = None  # type: ignore[assignment, method-assign]
    trainer = saves(saver, **{"max_epochs": len(scores), **options})
    trainer.fit(model, pairs(batches), pairs(1) if val else None)
    return trainer


def names(folder: str | os.PathLike[str]) -> list[str]:
    return sorted(path.name.removesuffix(".ckpt") for path in Path(folder).glob("*"))


# ---- which are kept ----------------------------------------------------------------------------------------


@given(
    st.lists(st.sampled_from([1.0, 2.0, 2.5, -1.0, NAN, INF, -INF]), min_size=1, max_size=7),
    st.sampled_from([-1, 0, 1, 2, 3]), st.booleans(),
)  # fmt: skip
def test_the_best_of_the_scores_are_on_the_disk(
    tmp_path_factory: pytest.TempPathFactory, scores: list[float], top: int, rise: bool
) -> None:
    """Against a sorted list: NaN counts as the worst value, of equals the older is kept. [R80]"""
    folder = tmp_path_factory.mktemp("top")
    saver = ModelCheckpoint(folder, "{epoch}", monitor="val", save_top_k=top, mode="max" if rise else "min")
    fit(saver, scores, batches=1)
    counted = [score if score == score else -INF if rise else INF for score in scores]
    ranked = sorted(range(len(scores)), key=lambda epoch: -counted[epoch] if rise else counted[epoch])
    kept = ranked if top == -1 else ranked[:top]
    assert names(folder) == sorted(f"epoch={epoch}" for epoch in kept)
    assert {Path(path).stem for path in saver.best_k_models} == {f"epoch={epoch}" for epoch in kept}
    if kept:
        assert Path(saver.best_model_path) == folder / f"epoch={kept[0]}.ckpt"
        assert Path(saver.kth_best_model_path) == folder / f"epoch={kept[-1]}.ckpt"
        assert float(saver.best_model_score) == counted[kept[0]]  # type: ignore[arg-type]
        assert float(saver.kth_value) == counted[kept[-1]]  # type: ignore[arg-type]
        assert float(saver.current_score) == counted[-1]  # type: ignore[arg-type]
        assert all(float(saver.best_k_models[path]) == counted[int(path[-6])] for path in saver.best_k_models)


def test_without_a_monitor_the_newest_is_kept_all_or_none(tmp_path: Path) -> None:
    for top, kept in ((1, ["epoch=2-step=6"]), (-1, [f"epoch={i}-step={2 * i + 2}" for i in range(3)]), (0, [])):
        folder = tmp_path / str(top)
        saver = ModelCheckpoint(folder, save_top_k=top)
        fit(saver, [1.0, 2.0, 3.0])
        assert names(folder) == kept
        assert Path(saver.best_model_path).stem == (kept[-1] if kept else "")
        assert (saver.best_model_score, saver.current_score, saver.best_k_models) == (None, None, {})


def test_the_last_one_is_saved_too(tmp_path: Path) -> None:
    saver = ModelCheckpoint(tmp_path, "{epoch}", monitor="val", save_last=True)
    fit(saver, [1.0, 2.0, 3.0])
    assert names(tmp_path) == ["epoch=0", "last"]
    assert Path(saver.last_model_path) == tmp_path / "last.ckpt"
    assert read(saver.last_model_path)["epoch"] == 3
    assert read(saver.best_model_path)["epoch"] == 1


def test_a_last_one_that_is_named_by_the_epoch_takes_the_place_of_the_one_before(tmp_path: Path) -> None:
    saver = ModelCheckpoint(tmp_path, save_top_k=0, save_last=True)
    saver.CHECKPOINT_NAME_LAST = "{epoch}-last"
    fit(saver, [1.0, 2.0])
    assert names(tmp_path) == ["epoch=1-last"]


def test_the_old_file_is_removed_when_the_new_one_is_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    saver = ModelCheckpoint(tmp_path, "{epoch}", monitor="val", save_last=True)
    replace, seen = os.replace, []

    def replaces(part: Any, path: Any) -> None:
        seen.append([name for name in names(tmp_path) if not name.startswith(".")])
        if len(seen) == 5:
            raise OSError("no space left")
        replace(part, path)

    monkeypatch.setattr(os, "replace", replaces)
    with pytest.raises(OSError, match="no space left"):
        fit(saver, [3.0, 2.0, 1.0])
    assert seen[2:] == [["epoch=0", "last"], ["epoch=0", "epoch=1", "last"], ["epoch=1", "last"]]
    assert names(tmp_path) == ["epoch=1", "last"]
    assert Path(saver.best_model_path) == tmp_path / "epoch=1.ckpt"
    assert list(saver.best_k_models) == [saver.best_model_path]
    assert float(saver.best_model_score) == float(saver.kth_value) == 2.0  # type: ignore[arg-type]


def test_weights_only(tmp_path: Path) -> None:
    fit(ModelCheckpoint(tmp_path, "x", save_weights_only=True))
    assert "optimizer_states" not in read(tmp_path / "x.ckpt")


# ---- names -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("filename, options, name", [
    (None, {}, "epoch=0-step=2"), ("{epoch}", {}, "epoch=0"), ("{step:04d}", {}, "step=0002"),
    ("{epoch:02d}-{val:.2f}", {}, "epoch=00-val=1.50"), ("{val}", {}, "val=1.5"), ("fixed", {}, "fixed"),
    ("{epoch:02d}-{val:.2f}", {"auto_insert_metric_name": False}, "00-1.50"),
    ("{train/score:.1f}", {}, "train_score=1.5"), ("a{{b}}{epoch}", {}, "a{b}epoch=0"),
    ("score={train/score:.1f}", {"auto_insert_metric_name": False}, "score=1.5"),
])  # fmt: skip
def test_names(tmp_path: Path, filename: str | None, options: dict[str, Any], name: str) -> None:
    saver = ModelCheckpoint(tmp_path, filename, **options)
    fit(saver, [1.5])
    assert names(tmp_path) == [name]
    assert saver.format_checkpoint_name({"epoch": 0, "step": 2, "val": 1.5, "train/score": torch.tensor(1.5)}) == name


def test_a_name_may_have_a_folder(tmp_path: Path) -> None:
    saver = ModelCheckpoint(tmp_path, "sub/{epoch}")
    fit(saver, [1.0, 2.0])
    assert Path(saver.best_model_path) == tmp_path / "sub" / "epoch=1.ckpt"
    assert names(tmp_path / "sub") == ["epoch=1"]


def test_no_file_is_written_over(tmp_path: Path) -> None:
    (tmp_path / "x.ckpt").write_text("of somebody else")
    (tmp_path / "last.ckpt").write_text("of somebody else")
    saver = ModelCheckpoint(tmp_path, "x", save_top_k=-1, save_last=True)
    fit(saver, [1.0, 2.0])
    assert names(tmp_path) == ["last", "last-v1", "x", "x-v1", "x-v2"]
    assert (tmp_path / "x.ckpt").read_text() == (tmp_path / "last.ckpt").read_text() == "of somebody else"
    assert Path(saver.last_model_path).stem == "last-v1"


def test_the_folder_is_the_logger_s_unless_it_is_given(tmp_path: Path) -> None:
    saver = ModelCheckpoint()
    trainer = fit(saver, default_root_dir=tmp_path)
    assert Path(str(saver.dirpath)) == tmp_path / "checkpoints"
    assert trainer.checkpoint_callback is saver
    trainer = fit(saver, default_root_dir=tmp_path, logger=True)
    assert Path(str(saver.dirpath)) == Path(trainer.log_dir) / "checkpoints"
    assert names(str(saver.dirpath)) == ["epoch=0-step=2"]


@pytest.mark.parametrize("filename, told", [
    ("{epoch", r"filename='\{epoch': "), ("{val:d}", r"\{val:d\}: .*'d'"),
])  # fmt: skip
def test_names_that_cannot_be(tmp_path: Path, filename: str, told: str) -> None:
    with pytest.raises(ConfigurationError, match=told):
        fit(ModelCheckpoint(tmp_path, filename))
    assert not names(tmp_path)


def test_a_name_that_was_not_logged_is_0(tmp_path: Path) -> None:
    told = r"the filename has 'none', which was not logged, and gets 0 for it; there are \['epoch', 'step', 'train/sc"
    with pytest.warns(UserWarning, match=told):
        fit(ModelCheckpoint(tmp_path, "{epoch}-{none:.2f}"))
    assert names(tmp_path) == ["epoch=0-none=0.00"]


# ---- when --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("when, options, expected", [
    ({"every_n_train_steps": 2}, {}, ["0-2", "1-4", "1-6"]),
    ({"every_n_train_steps": 1}, {"accumulate_grad_batches": 2}, ["0-1", "0-2", "1-3", "1-4"]),
    ({"every_n_epochs": 2}, {"max_epochs": 5}, ["1-6", "3-12"]), ({"every_n_epochs": 0}, {}, []),
    ({}, {"val": False}, ["0-3", "1-6"]), ({}, {"val_check_interval": 1}, ["0-1", "0-2", "0-3", "1-4", "1-5", "1-6"]),
    ({"save_on_train_epoch_end": True}, {"val_check_interval": 1}, ["0-3", "1-6"]),
    ({"save_on_train_epoch_end": False}, {}, ["0-3", "1-6"]),
    ({}, {"check_val_every_n_epoch": 2, "max_epochs": 4}, ["1-6", "3-12"]),
    ({}, {"limit_val_batches": 0}, ["0-3", "1-6"]), ({}, {"max_steps": 4}, ["0-3", "1-4"]),
    ({}, {"fast_dev_run": True}, []), ({"save_last": True, "every_n_train_steps": 1}, {"fast_dev_run": 3}, []),
    ({}, {"num_sanity_val_steps": 1}, ["0-3", "1-6"]),
    ({"save_on_train_epoch_end": False}, {"num_sanity_val_steps": 1}, ["0-3", "1-6"]),
])  # fmt: skip
def test_when(tmp_path: Path, when: dict[str, Any], options: dict[str, Any], expected: list[str]) -> None:
    saver = ModelCheckpoint(tmp_path, "{epoch}-{step}", save_top_k=-1, auto_insert_metric_name=False, **when)
    fit(saver, [1.0, 2.0], batches=3, **options)
    assert names(tmp_path) == sorted(expected)
    for name in expected:
        saved = read(tmp_path / f"{name}.ckpt")
        assert saved["global_step"] == int(name.partition("-")[2])
        in_epoch = saved["loops"]["data"]["in_epoch"]
        assert saved["epoch"] == int(name[0]) + (not in_epoch)


def test_where_there_is_no_moment_to_save_at_a_warning_says_so(tmp_path: Path) -> None:
    saver = ModelCheckpoint(tmp_path, save_on_train_epoch_end=False)
    with pytest.warns(UserWarning, match="saves after validations, and this fit has none"):
        fit(saver, [1.0], val=False)
    assert not names(tmp_path)


def test_a_validation_alone_saves_nothing(tmp_path: Path) -> None:
    trainer = saves(ModelCheckpoint(tmp_path, monitor="train/score", save_on_train_epoch_end=False))
    trainer.validate(Scored([1.0]), pairs(1), verbose=False)
    assert not names(tmp_path)


def test_a_time_interval(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each batch takes a minute."""
    minutes = [100.0]

    class Clock(Line):
        def training_step(self, batch: Any, batch_idx: int) -> Any:
            minutes[0] += 1
            return self.loss(batch)

        validation_step = None  # type: ignore[assignment]

    monkeypatch.setattr(time, "monotonic", lambda: 60 * minutes[0])
    interval = timedelta(minutes=2.5)
    saver = ModelCheckpoint(tmp_path, "{step}", save_top_k=-1, train_time_interval=interval)
    saves(saver, max_epochs=2).fit(Clock(), pairs(4))
    assert names(tmp_path) == ["step=3", "step=6"]
    assert (saver.train_time_interval, saver.every_n_epochs) == (interval, 0)


class Stops(Callback):
    def __init__(self, error: BaseException) -> None:
        self.error = error

    def on_train_batch_start(self, trainer: Trainer, pl_module: Any, batch: Any, batch_idx: int, idx: int) -> None:
        if trainer.global_step == 3:
            raise self.error


def test_what_was_saved_before_a_run_broke_off_stays(tmp_path: Path) -> None:
    for folder, error in (("a", KeyboardInterrupt()), ("b", RuntimeError("mine"))):
        saver = ModelCheckpoint(tmp_path / folder)
        trainer = saves([Stops(error), saver], max_epochs=2)
        if folder == "a":
            with pytest.warns(UserWarning, match="interrupted"):
                trainer.fit(Scored([1.0]), pairs(2), pairs(1))
        else:
            with pytest.raises(RuntimeError, match="mine"):
                trainer.fit(Scored([1.0]), pairs(2), pairs(1))
        assert names(tmp_path / folder) == ["epoch=0-step=2"]
        resumed = saves(ModelCheckpoint(tmp_path / "c"), max_epochs=2)
        resumed.fit(Scored([1.0]), pairs(2), pairs(1), ckpt_path=saver.best_model_path)
        assert resumed.global_step == 4


# ---- arguments ---------------------------------------------------------------------------------------------


def test_attributes(tmp_path: Path) -> None:
    saver = ModelCheckpoint(os.path.relpath(tmp_path), "x", "val", True, True, 3, True, "max", False)
    told = {name: getattr(saver, name) for name in (
        "dirpath", "filename", "monitor", "verbose", "save_last", "save_top_k", "save_weights_only", "mode",
        "auto_insert_metric_name", "every_n_epochs", "every_n_train_steps",
    )}  # fmt: skip
    assert list(told.values()) == [str(tmp_path), "x", "val", True, True, 3, True, "max", False, 1, 0]
    assert (saver.best_model_path, saver.last_model_path, saver.best_model_score) == ("", "", None)


@pytest.mark.parametrize("given, told", [
    ({"save_top_k": 2}, "save_top_k=2, monitor=None"), ({"save_top_k": -2}, "save_top_k=-2"),
    ({"save_top_k": True}, "save_top_k=True"), ({"save_top_k": 1.0}, r"save_top_k=1\.0"),
    ({"mode": "auto"}, "mode='auto'; 'min' or 'max' is accepted"), ({"every_n_epochs": -1}, "every_n_epochs=-1"),
    ({"every_n_train_steps": 1.5}, r"every_n_train_steps=1\.5; an int from 0"),
    ({"train_time_interval": 5}, "train_time_interval=5; a positive datetime.timedelta"),
    ({"train_time_interval": timedelta(0)}, "a positive datetime.timedelta is accepted"),
    ({"every_n_train_steps": 2, "every_n_epochs": 1}, "{'every_n_train_steps': 2, 'every_n_epochs': 1}; one of them"),
    ({"every_n_train_steps": 2, "train_time_interval": timedelta(1)}, "one of them is accepted"),
])  # fmt: skip
def test_arguments_that_make_no_sense(given: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigurationError, match=told):
        ModelCheckpoint(**given)


@pytest.mark.parametrize("name", ["period", "every_n_val_epochs"])
def test_deprecated_arguments(name: str) -> None:
    with pytest.warns(DeprecationWarning, match=rf"ModelCheckpoint\({name}=3\) is deprecated; use every_n_epochs"):
        assert ModelCheckpoint(**{name: 3}).every_n_epochs == 3  # type: ignore[arg-type]


def test_a_monitored_value_that_was_never_logged(tmp_path: Path) -> None:
    """It may come yet, until training is over. [R80]"""
    told = r"ModelCheckpoint monitors 'loss', which was not logged; logged were \['train/score', 'val'\]"
    trainer, model = saves(ModelCheckpoint(tmp_path, monitor="loss"), max_epochs=2), Scored([1.0])
    with pytest.warns(UserWarning, match=told) as warned, pytest.raises(ConfigurationError, match=f"{told}$"):
        trainer.fit(model, pairs(2), pairs(1))
    assert trainer.global_step == 4
    assert len(warned) == 1
    assert not names(tmp_path)


@pytest.mark.parametrize("monitor, saved", [("late", ["step=2", "step=3", "step=4"]), ("train", ["step=4"])])
def test_a_monitored_value_that_comes_later(tmp_path: Path, monitor: str, saved: list[str]) -> None:
    class Late(Line):
        def training_step(self, batch: Any, batch_idx: int) -> Any:
            if batch_idx % 2:
                self.log("late", 1.0)
            return self.loss(batch)

        def on_train_epoch_end(self) -> None:
            self.log("train", 1.0)

    saver = ModelCheckpoint(tmp_path, "{step}", monitor=monitor, every_n_train_steps=1, save_top_k=-1, save_last=True)
    with pytest.warns(UserWarning, match=f"monitors '{monitor}', which was not logged.*until it is, nothing is saved"):
        saves(saver, max_epochs=2, limit_val_batches=0).fit(Late(), pairs(3 if monitor == "train" else 2))
    assert names(tmp_path) == ["last", *(saved if monitor == "late" else ["step=4", "step=5", "step=6"])]


def test_a_value_that_came_after_the_last_look_is_no_error(tmp_path: Path) -> None:
    class Late(Line):
        def on_epoch_end(self) -> None:
            self.log("late", 1.0)

    with pytest.warns(UserWarning, match="until it is, nothing is saved"):
        saver = ModelCheckpoint(tmp_path, monitor="late", every_n_train_steps=1)
        saves(saver, limit_val_batches=0).fit(Late(), pairs(1))
    assert not names(tmp_path)


@pytest.mark.parametrize("hook", ["on_train_epoch_end", "on_epoch_end"])
def test_what_the_module_logs_in_the_last_hooks_belongs_to_its_own_epoch(tmp_path: Path, hook: str) -> None:
    def late(module: LightningModule) -> None:
        module.log("late", [3.0, 1.0, 2.0][module.current_epoch])

    saver, stopping = ModelCheckpoint(tmp_path, "{epoch}", "late"), EarlyStopping("late", patience=1)
    model = type("Late", (Line,), {hook: late})()
    saves([saver, stopping], max_epochs=5, limit_val_batches=0).fit(model, pairs(2))
    assert (names(tmp_path), stopping.stopped_epoch) == (["epoch=1"], 2)


def test_another_module_is_no_rival(tmp_path: Path) -> None:
    saver = ModelCheckpoint(tmp_path, "{epoch}", "val")
    trainer, other = saves(saver, max_epochs=1), Tells([2.0])
    trainer.fit(Tells([1.0]), pairs(1), pairs(1))
    trainer.max_epochs = 2
    trainer.fit(other, pairs(1), pairs(1))
    assert (names(tmp_path), saver.best_model_score) == (["epoch=0", "epoch=1"], 2.0)
    trainer.max_epochs = 3
    trainer.fit(other, pairs(1), pairs(1))
    assert names(tmp_path) == ["epoch=0", "epoch=1"]


@pytest.mark.parametrize("monitor, mode, kept", [("step", "max", ["4", "6"]), ("epoch", "min", ["2", "4"])])
def test_the_epoch_and_the_step_can_be_monitored(tmp_path: Path, monitor: str, mode: str, kept: list[str]) -> None:
    saver = ModelCheckpoint(tmp_path, "{step}", monitor, save_top_k=2, mode=mode, auto_insert_metric_name=False)
    fit(saver, [1.0] * 3)
    assert names(tmp_path) == kept


def test_what_it_says(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fit(ModelCheckpoint(tmp_path, "{epoch}", monitor="val", verbose=True, save_last=True), [1.0, 2.0])
    first, last = tmp_path / "epoch=0.ckpt", tmp_path / "last.ckpt"
    assert capsys.readouterr().out.splitlines() == [f"saved {first} and {last} (val = 1)", f"saved {last} (val = 2)"]
    fit(ModelCheckpoint(tmp_path, "{epoch}-new", verbose=True))
    assert capsys.readouterr().out == f"saved {tmp_path / 'epoch=0-new.ckpt'}\n"
    fit(ModelCheckpoint(tmp_path))
    assert capsys.readouterr().out == ""


def test_checkpoints_switched_off_beside_one() -> None:
    with pytest.raises(ConfigurationError, match="enable_checkpointing=False, but there is a ModelCheckpoint"):
        quiet(callbacks=ModelCheckpoint())
    assert quiet().checkpoint_callback is None
    assert isinstance(quiet(enable_checkpointing=True).checkpoint_callback, ModelCheckpoint)


# ---- among the callbacks -----------------------------------------------------------------------------------


def test_it_is_the_last_of_the_callbacks(tmp_path: Path) -> None:
    one, other, own = ModelCheckpoint(tmp_path / "a"), ModelCheckpoint(tmp_path / "b"), ModelCheckpoint(tmp_path / "c")
    first, second = Callback(), Stops(KeyboardInterrupt())
    trainer = saves([one, first, other, second], max_epochs=1)
    assert trainer.callbacks == [first, second, one, other]
    assert trainer.checkpoint_callbacks == [one, other]
    during: list[list[Callback]] = []

    class Configures(Scored):
        def configure_callbacks(self) -> Any:
            return [own, Trailing()]

        def on_train_start(self) -> None:
            during.append(list(self.trainer.callbacks))

    class Trailing(Callback):
        pass

    trainer.fit(Configures([1.0]), pairs(1), pairs(1))
    assert during[0][:2] == [first, second]
    assert type(during[0][2]) is Trailing
    assert during[0][3:] == [own]
    assert names(tmp_path) == ["c"]


def test_several_save_each_for_itself(tmp_path: Path) -> None:
    best = ModelCheckpoint(tmp_path, "best", monitor="val")
    fit([best, ModelCheckpoint(tmp_path, "newest-{epoch}")], [1.0, 2.0])
    assert names(tmp_path) == ["best", "newest-epoch=1"]
    assert list(read(tmp_path / "newest-epoch=1.ckpt")["callbacks"]) == ["ModelCheckpoint", "ModelCheckpoint#1"]


# ---- going on ----------------------------------------------------------------------------------------------


def test_a_second_fit_goes_on_counting(tmp_path: Path) -> None:
    saver = ModelCheckpoint(tmp_path, "{epoch}", monitor="val", save_top_k=2)
    trainer, model = saves(saver, max_epochs=2), Scored([3.0, 2.0, 1.0])
    trainer.fit(model, pairs(1), pairs(1))
    assert names(tmp_path) == ["epoch=0", "epoch=1"]
    trainer.max_epochs = 3
    trainer.fit(model, pairs(1), pairs(1))
    assert names(tmp_path) == ["epoch=1", "epoch=2"]


def test_in_the_same_folder_it_goes_on_with_its_files(tmp_path: Path) -> None:
    options: dict[str, Any] = {"filename": "{epoch}", "monitor": "val", "save_last": True}
    fit(ModelCheckpoint(tmp_path, **options), [3.0, 2.0])
    saver = ModelCheckpoint(tmp_path, **options)
    resumed = saves(saver, max_epochs=4)
    resumed.fit(Scored([3.0, 2.0, 5.0, 1.0]), pairs(2), pairs(1), ckpt_path=tmp_path / "last.ckpt")
    assert names(tmp_path) == ["epoch=3", "last"]
    assert read(saver.last_model_path)["epoch"] == 4


def test_in_another_folder_it_leaves_the_old_ones_and_remembers_the_best(tmp_path: Path) -> None:
    fit(ModelCheckpoint(tmp_path / "a", "{epoch}", monitor="val"), [2.0])
    old = tmp_path / "a" / "epoch=0.ckpt"
    for scores, best in (([2.0, 3.0], old), ([2.0, 3.0, 1.0], tmp_path / "b3" / "epoch=2.ckpt")):
        saver = ModelCheckpoint(tmp_path / f"b{len(scores)}", "{epoch}", monitor="val")
        saves(saver, max_epochs=len(scores)).fit(Scored(scores), pairs(2), pairs(1), ckpt_path=old)
        assert names(tmp_path / "a") == ["epoch=0"]
        assert names(str(saver.dirpath)) == [f"epoch={len(scores) - 1}"]
        assert Path(saver.best_model_path) == best
        assert float(saver.best_model_score) == min(scores)  # type: ignore[arg-type]


def test_without_a_monitor_the_old_folder_stays_as_it_is(tmp_path: Path) -> None:
    fit(ModelCheckpoint(tmp_path / "a", "{epoch}"))
    for folder, kept in (("b", ["epoch=0"]), ("a", [])):
        saver = ModelCheckpoint(tmp_path / folder, "{epoch}")
        saves(saver, max_epochs=2).fit(Scored([1.0]), pairs(2), pairs(1), ckpt_path=tmp_path / "a" / "epoch=0.ckpt")
        assert names(tmp_path / folder) == ["epoch=1"]
        assert names(tmp_path / "a")[: len(kept)] == kept


# ---- which weights a test uses. [R15] ----------------------------------------------------------------------


class Tells(Scored):
    """Notes with which weights it is run."""

    def __init__(self, scores: list[float]) -> None:
        super().__init__(scores)
        self.used: list[float] = []

    def note(self) -> None:
        self.used.append(self.layer.bias.item())

    def on_test_start(self) -> None:
        self.note()

    def on_predict_start(self) -> None:
        self.note()

    def on_validation_start(self) -> None:
        if self.trainer.state.fn == "validate":
            self.note()


@pytest.fixture
def trained(tmp_path: Path) -> tuple[Trainer, Tells, dict[str, float]]:
    """A trainer whose best epoch was the first of two, its model, and the biases of both and of the last weights."""
    saver = ModelCheckpoint(tmp_path, "{epoch}", monitor="val", save_last=True)
    model, trainer = Tells([1.0, 2.0]), saves(saver, max_epochs=2)
    trainer.fit(model, pairs(2), pairs(1))
    with torch.no_grad():
        last = model.layer.bias.item()
        model.layer.bias.fill_(9.0)
    return trainer, model, {"best": bias(saver.best_model_path), "last": last, "current": 9.0, "other": 0.125}


def bias(path: str) -> float:
    return float(read(path)["state_dict"]["layer.bias"])


@pytest.mark.parametrize("function", ["test", "validate", "predict"])
@pytest.mark.parametrize("given, options, used", [
    (None, {}, "best"), ("fitted", {}, "best or current"), ("other", {}, "other"),
    (None, {"ckpt_path": None}, "current"), ("fitted", {"ckpt_path": None}, "current"),
    ("other", {"ckpt_path": None}, "other"),
    (None, {"ckpt_path": "best"}, "best"), (None, {"ckpt_path": "last"}, "last"),
    ("fitted", {"ckpt_path": "last"}, "last"), ("other", {"ckpt_path": "best"}, "best"),
    ("other", {"ckpt_path": "last.ckpt"}, "last"), (None, {"ckpt_path": "epoch=0.ckpt"}, "best"),
])  # fmt: skip
def test_which_weights(
    trained: Any, function: str, given: str | None, options: dict[str, Any], used: str
) -> None:
    trainer, fitted, biases = trained
    model = {"fitted": fitted, "other": Tells([1.0]), None: None}[given]
    getattr(trainer, function)(model, pairs(1), **options)
    if used == "best or current":
        used = "best" if function == "test" else "current"
    assert (model or fitted).used == [biases[used]]
    assert len(set(biases.values())) == 4


def test_what_is_not_there(trained: Any) -> None:
    trainer, model, biases = trained
    best = trainer.checkpoint_callback.best_model_path
    os.remove(best)
    for tested in (None, model):
        with pytest.raises(CheckpointError, match=r"the file .*epoch=0\.ckpt has gone missing; .*ckpt_path=None"):
            trainer.test(tested, pairs(1))
    with pytest.raises(FileNotFoundError, match=r"none\.ckpt"):
        trainer.test(dataloaders=pairs(1), ckpt_path="none.ckpt")
    trainer.test(dataloaders=pairs(1), ckpt_path=None)
    assert model.used == [biases["current"]]


def test_where_nothing_was_saved(tmp_path: Path) -> None:
    for options in ({"fast_dev_run": True}, {"callbacks": ModelCheckpoint(tmp_path, every_n_epochs=5)}):
        model, trainer = Tells([1.0]), quiet(enable_checkpointing=True, **options)
        trainer.fit(model, pairs(2), pairs(1))
        trainer.test(model, pairs(1))
        assert model.used == [model.layer.bias.item()]
        for which in ("best", "last"):
            with pytest.raises(CheckpointError, match=f"test: ckpt_path='{which}', and this trainer has saved none"):
                trainer.test(dataloaders=pairs(1), ckpt_path=which)


def test_a_fit_that_failed_is_no_fit(tmp_path: Path) -> None:
    model = Tells([1.0])
    trainer = saves([Stops(RuntimeError("mine")), ModelCheckpoint(tmp_path)], max_epochs=2)
    with pytest.raises(RuntimeError, match="mine"):
        trainer.fit(model, pairs(2), pairs(1))
    with torch.no_grad():
        model.layer.bias.fill_(9.0)
    trainer.test(dataloaders=pairs(1))
    assert model.used == [9.0]


def test_a_fit_may_begin_with_the_best_one(trained: Any) -> None:
    trainer, _, _ = trained
    other: LightningModule = Tells([1.0])
    trainer.fit(other, pairs(2), pairs(1), ckpt_path="best")
    assert trainer.global_step == 4


def test_a_fit_knows_no_auto(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="there is no checkpoint 'auto'"):
        quiet().fit(Line(), pairs(1), ckpt_path="auto")


@pytest.mark.parametrize("function", ["validate", "test"])
def test_after_a_fast_run_there_is_no_best_checkpoint(function: str) -> None:
    trainer, module = Trainer(fast_dev_run=True, logger=False, enable_progress_bar=False), Line()
    trainer.fit(module, pairs(1), pairs(1))
    with pytest.raises(CheckpointError, match=f"{function} without a model takes the best .* fast_dev_run saves none"):
        getattr(trainer, function)(dataloaders=pairs(1))
    getattr(trainer, function)(module, pairs(1))
    getattr(trainer, function)(dataloaders=pairs(1), ckpt_path=None)
