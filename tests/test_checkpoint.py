"""The file of a checkpoint: written whole or not at all, read without running code of it, and what goes in and out."""

from __future__ import annotations

import fcntl
import io
import os
import pickle
import random
import re
import signal
import stat
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from models import Batches, Line, pairs, quiet
from torch import nn

from refimpl import Callback, LightningDataModule, LightningModule, ModelCheckpoint, Trainer
from refimpl.saving.file import CheckpointError, read, write

ROOT = Path(__file__).resolve().parent.parent
ASSETS = ROOT / "tests" / "assets"
OLD = {"state_dict": {"w": torch.zeros(2)}, "which": "old"}
NEW = {"state_dict": {"w": torch.ones(2)}, "which": "new", "more": [1, 2.5, None, ("a", True)]}


class Trains(Line):
    """Without a validation."""

    validation_step = None  # type: ignore[assignment]


def as_bytes(checkpoint: Any, **options: Any) -> bytes:
    file = io.BytesIO()
    torch.save(checkpoint, file, **options)
    return file.getvalue()


# ---- writing ---------------------------------------------------------------------------------------------


def test_folders_are_made_and_nothing_else_is_there(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "x.ckpt"
    write(NEW, path)
    write(OLD, path)
    assert read(path)["which"] == "old"
    write(NEW, str(path))
    assert read(str(path))["which"] == "new"
    assert [file.name for file in path.parent.iterdir()] == ["x.ckpt"]


def test_others_may_read_it_as_far_as_the_user_lets_them(tmp_path: Path) -> None:
    mask = os.umask(0o027)
    try:
        write(NEW, tmp_path / "x.ckpt")
    finally:
        os.umask(mask)
    assert stat.S_IMODE((tmp_path / "x.ckpt").stat().st_mode) == 0o640


def broken_save(checkpoint: Any, file: Any) -> None:
    file.write(b"half of it")
    raise RuntimeError("broken")


def broken(*args: Any) -> None:
    raise RuntimeError("broken")


def interrupted(*args: Any) -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize("owner, name, fails, error", [
    (torch, "save", broken_save, RuntimeError), (os, "fsync", broken, RuntimeError),
    (os, "replace", broken, RuntimeError), (os, "fsync", interrupted, KeyboardInterrupt),
])  # fmt: skip
@pytest.mark.parametrize("before", [True, False], ids=["old", "none"])
def test_a_failure_leaves_what_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, fails: Any, error: Any, before: bool
) -> None:
    path = tmp_path / "x.ckpt"
    if before:
        write(OLD, path)
    monkeypatch.setattr(owner, name, fails)
    with pytest.raises(error):
        write(NEW, path)
    assert [file.name for file in tmp_path.iterdir()] == (["x.ckpt"] if before else [])
    assert not before or read(path)["which"] == "old"


def test_what_cannot_be_pickled_leaves_what_was_there(tmp_path: Path) -> None:
    write(OLD, tmp_path / "x.ckpt")
    with pytest.raises((AttributeError, pickle.PicklingError)):
        write({**NEW, "function": lambda: 0}, tmp_path / "x.ckpt")
    assert read(tmp_path / "x.ckpt")["which"] == "old"
    assert len(list(tmp_path.iterdir())) == 1


KILLED = """
    import os, signal, sys
    import torch
    from refimpl.saving.file import write

    def die(*args):
        os.kill(os.getpid(), signal.SIGKILL)

    class Dies:  # in the middle of its being pickled
        def __reduce__(self):
            die()

    if sys.argv[2] == "save":
        write({"state_dict": {"w": torch.ones(1000)}, "then": Dies()}, sys.argv[1])
    setattr(os, sys.argv[2], die)
    write({"state_dict": {"w": torch.ones(1000)}}, sys.argv[1])
"""


@pytest.mark.slow
@pytest.mark.parametrize("at", ["save", "fsync", "replace"])
def test_a_process_that_is_killed_leaves_the_old_file_and_the_next_one_cleans_up(tmp_path: Path, at: str) -> None:
    path = tmp_path / "x.ckpt"
    write(OLD, path)
    command = [sys.executable, "-c", textwrap.dedent(KILLED), str(path), at]
    done = subprocess.run(command, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert read(path)["which"] == "old"
    assert [file.name for file in tmp_path.glob("*.ckpt")] == ["x.ckpt"]
    [remnant] = [file for file in tmp_path.iterdir() if file != path]
    assert remnant.name.startswith(".x.ckpt.") and remnant.name.endswith(".part")
    write(NEW, tmp_path / "y.ckpt")
    assert sorted(file.name for file in tmp_path.iterdir()) == ["x.ckpt", "y.ckpt"]


def a_number_that_nobody_has() -> int:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_a_file_that_somebody_may_be_writing_stays(tmp_path: Path) -> None:
    """Of a process that lives, of this one, of one elsewhere that holds its lock, and what is none of ours."""
    numbers = (os.getppid(), os.getpid(), a_number_that_nobody_has())
    names = [*(f".x.ckpt.{number}.part" for number in numbers), "x.1.part", ".x.part", ".x.ckpt.one.part"]
    for name in names:
        (tmp_path / name).write_bytes(b"half of it")
    with (tmp_path / names[2]).open("r+b") as elsewhere:
        fcntl.flock(elsewhere, fcntl.LOCK_EX)
        write(NEW, tmp_path / "z.ckpt")
        assert {file.name for file in tmp_path.iterdir()} == {*names, "z.ckpt"}
    write(NEW, tmp_path / "z.ckpt")
    assert {file.name for file in tmp_path.iterdir()} == {*names, "z.ckpt"} - {names[2]}


def test_the_number_of_a_process_before_may_be_ours(tmp_path: Path) -> None:
    remnant = tmp_path / f".x.ckpt.{os.getpid()}.part"
    remnant.write_bytes(b"half of it")
    os.utime(remnant, (1, 1))
    write(NEW, tmp_path / "y.ckpt")
    assert [file.name for file in tmp_path.iterdir()] == ["y.ckpt"]


def test_the_file_is_locked_as_long_as_it_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def save(checkpoint: Any, file: Any) -> None:
        with pytest.raises(BlockingIOError), open(file.name, "r+b") as other:
            fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
        file.write(b"x")

    monkeypatch.setattr(torch, "save", save)
    write(NEW, tmp_path / "x.ckpt")
    assert (tmp_path / "x.ckpt").read_bytes() == b"x"


# ---- where it is written ---------------------------------------------------------------------------------


def a_folder(path: Path) -> None:
    path.mkdir()


def a_pipe(path: Path) -> None:
    os.mkfifo(path)


def a_link_to_nowhere(path: Path) -> None:
    path.symlink_to("nowhere")


def a_link_to_a_folder(path: Path) -> None:
    (path.parent / "folder").mkdir()
    path.symlink_to("folder")


def a_link_to_a_device(path: Path) -> None:
    path.symlink_to("/dev/null")


def identity(path: Path) -> tuple[int, int]:
    return path.lstat().st_ino, path.lstat().st_mode


@pytest.mark.parametrize("made, told", [
    (a_folder, "a folder"), (a_pipe, "no regular file"), (a_link_to_nowhere, "a link that leads nowhere"),
    (a_link_to_a_folder, "a folder"), (a_link_to_a_device, "no regular file"),
])  # fmt: skip
def test_what_is_no_regular_file_is_not_replaced(tmp_path: Path, made: Callable[[Path], None], told: str) -> None:
    path = tmp_path / "x.ckpt"
    made(path)
    before = identity(path), set(tmp_path.iterdir())
    trainer = fitted(tmp_path / "other" / "x.ckpt")
    for save in (lambda: write(NEW, path), lambda: trainer.save_checkpoint(path)):
        with pytest.raises(CheckpointError, match=rf"cannot save to .*x\.ckpt', which is {told}; the path of a file"):
            save()
    assert (identity(path), set(tmp_path.iterdir()) - {tmp_path / "other"}) == before


def test_a_link_stays_and_its_file_is_written(tmp_path: Path) -> None:
    target, link, indirect = tmp_path / "deep" / "x.ckpt", tmp_path / "link.ckpt", tmp_path / "indirect.ckpt"
    write(OLD, target)
    link.symlink_to(Path("deep", "x.ckpt"))
    indirect.symlink_to(link)
    for path in (link, indirect):
        write({**NEW, "via": str(path)}, path)
        assert path.is_symlink() and not target.is_symlink()
        assert read(target)["via"] == read(path)["via"] == str(path)
    assert [file.name for file in target.parent.iterdir()] == ["x.ckpt"]


# ---- reading ---------------------------------------------------------------------------------------------


def test_a_file_that_is_missing(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"there is no checkpoint .*none\.ckpt"):
        read(tmp_path / "none.ckpt")
    with pytest.raises(OSError):
        read(tmp_path)


@pytest.mark.parametrize("options", [{}, {"_use_new_zipfile_serialization": False}], ids=["zip", "legacy"])
def test_a_file_that_was_cut_off_at_any_byte(tmp_path: Path, options: dict[str, Any]) -> None:
    whole = as_bytes(OLD, **options)
    assert read(io.BytesIO(whole))["which"] == "old"
    for length in range(0, len(whole), 7):
        with pytest.raises(CheckpointError):
            read(io.BytesIO(whole[:length]))
    path = tmp_path / "cut.ckpt"
    path.write_bytes(whole[:-1])
    with pytest.raises(CheckpointError, match=r"cut\.ckpt.* is no checkpoint, or a damaged one: \w"):
        read(path)


@given(st.binary(max_size=200))
def test_garbage(garbage: bytes) -> None:
    with pytest.raises(CheckpointError):
        read(io.BytesIO(garbage))


@given(st.lists(st.tuples(st.integers(0, 10**4), st.integers(0, 255)), max_size=5), st.booleans())
def test_bytes_that_were_changed_are_an_error_or_do_not_matter(changes: list[tuple[int, int]], zipped: bool) -> None:
    damaged = bytearray(as_bytes(OLD, _use_new_zipfile_serialization=zipped))
    for place, byte in changes:
        damaged[place % len(damaged)] = byte
    try:
        assert "state_dict" in read(io.BytesIO(bytes(damaged)))
    except CheckpointError as error:
        assert "checkpoint" in str(error) or "holds" in str(error)


class Touches:
    """Its pickle makes a file as soon as it is loaded."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.path),)


class Shell(Touches):
    def __reduce__(self) -> Any:
        return os.system, (f"mkdir {self.path}",)


@pytest.mark.parametrize("kind", [Touches, Shell])
@pytest.mark.parametrize("as_file", [
    lambda made: as_bytes(made), lambda made: as_bytes(made, _use_new_zipfile_serialization=False),
    lambda made: pickle.dumps(made),
], ids=["zip", "legacy", "pickle"])  # fmt: skip
def test_nothing_of_a_hostile_file_is_executed(tmp_path: Path, kind: type[Touches], as_file: Any) -> None:
    path, sign = tmp_path / "hostile.ckpt", tmp_path / "executed"
    path.write_bytes(as_file({**OLD, "more": kind(sign)}))
    with pytest.raises(CheckpointError, match=r"hostile\.ckpt"):
        read(path)
    with pytest.raises(CheckpointError):
        quiet().fit(Trains(), pairs(1), ckpt_path=path)
    with pytest.raises(CheckpointError):
        quiet().test(Line(), pairs(1), ckpt_path=path)
    assert not sign.exists()
    pickle.loads(pickle.dumps(kind(sign)))
    assert sign.exists()  # it would have been


class Cool:
    """Something that a hook adds."""


def test_what_is_more_than_data_is_named_and_loaded_by_who_trusts_it(tmp_path: Path) -> None:
    path = tmp_path / "x.ckpt"
    write({**OLD, "cool": Cool()}, path)
    with pytest.raises(CheckpointError, match=r"holds [\w.]*test_checkpoint\.Cool, .* pass weights_only=False, or"):
        read(path)
    assert type(read(path, weights_only=False)["cool"]) is Cool


@pytest.mark.parametrize("content", [
    {"layer.weight": torch.zeros(1)}, [1, 2], torch.zeros(3), {"state_dict": 1}, None, {},
])  # fmt: skip
def test_what_is_no_checkpoint(tmp_path: Path, content: Any) -> None:
    torch.save(content, tmp_path / "x.ckpt")
    with pytest.raises(CheckpointError, match=r"x\.ckpt.* is no checkpoint: it has no 'state_dict'"):
        read(tmp_path / "x.ckpt")


def test_weights_alone_are_loaded_otherwise(tmp_path: Path) -> None:
    torch.save(Line().state_dict(), tmp_path / "x.pt")
    with pytest.raises(CheckpointError, match=r"weights alone are loaded by model\.load_state_dict"):
        quiet().test(Line(), pairs(1), ckpt_path=tmp_path / "x.pt")


def test_where_tensors_go() -> None:
    read_back = read(io.BytesIO(as_bytes(NEW)), map_location="meta")
    assert read_back["state_dict"]["w"].device.type == "meta"
    assert read(io.BytesIO(as_bytes(NEW)))["more"] == NEW["more"]


# ---- what a file holds -----------------------------------------------------------------------------------


def fitted(path: Path, model: LightningModule | None = None, weights_only: bool = False, **options: Any) -> Trainer:
    """A fit of one epoch of 3 steps, saved to `path`."""
    trainer = quiet(**options)
    trainer.fit(model or Trains(), pairs(3))
    trainer.save_checkpoint(path, weights_only)
    return trainer


def test_its_keys(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "checkpoints.md").read_text(encoding="utf-8")
    [table] = re.findall(r"\| key \| \|\n(.*?)\n\n", page, re.DOTALL)
    documented = {key for row in table.splitlines() for key in re.findall(r"`(\w+)`", row.split("|")[1])}
    model = Trains()
    model.save_hyperparameters({"width": 3})
    fitted(tmp_path / "x.ckpt", model)
    whole = read(tmp_path / "x.ckpt")
    assert whole.keys() == documented
    assert (whole["epoch"], whole["global_step"]) == (1, 3)
    fitted(tmp_path / "x.ckpt", weights_only=True)
    assert {"epoch", "global_step", "state_dict"} <= read(tmp_path / "x.ckpt").keys()
    assert not {"optimizer_states", "lr_schedulers", "callbacks", "loops"} & read(tmp_path / "x.ckpt").keys()


def test_there_is_nothing_to_save_before_the_first_run(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="save_checkpoint needs a module"):
        quiet().save_checkpoint(tmp_path / "x.ckpt")
    assert not list(tmp_path.iterdir())


class Remembers(Trains):
    """The documentation's example. ("on_save_checkpoint")"""

    something_cool_i_want_to_save: Any = None

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["something_cool_i_want_to_save"] = self.something_cool_i_want_to_save
        self.seen = dict(checkpoint)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.something_cool_i_want_to_save = checkpoint["something_cool_i_want_to_save"]


class Data(LightningDataModule):
    def __init__(self, place: int = 0) -> None:
        super().__init__()
        self.place = place

    def train_dataloader(self) -> Any:
        return pairs(3)

    def test_dataloader(self) -> Any:
        return pairs(1)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["place"] = self.place

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.place = checkpoint["place"]


def test_what_the_hooks_add_comes_back(tmp_path: Path) -> None:
    model, data, trainer = Remembers(), Data(7), quiet()
    model.something_cool_i_want_to_save = [1, "cool"]
    trainer.fit(model, datamodule=data)
    trainer.save_checkpoint(tmp_path / "x.ckpt")
    assert {"state_dict", "optimizer_states", "epoch", "place"} <= model.seen.keys()
    for run in (
        lambda model, data: quiet(max_epochs=2).fit(model, datamodule=data, ckpt_path=tmp_path / "x.ckpt"),
        lambda model, data: quiet().test(model, datamodule=data, ckpt_path=tmp_path / "x.ckpt", verbose=False),
    ):
        other, others = Remembers(), Data()
        run(other, others)
        assert (other.something_cool_i_want_to_save, others.place) == ([1, "cool"], 7)


def test_an_object_that_a_hook_adds_comes_back_to_who_trusts_the_file(tmp_path: Path) -> None:
    model = Remembers()
    model.something_cool_i_want_to_save = Cool()
    fitted(tmp_path / "x.ckpt", model)
    with pytest.raises(CheckpointError, match=r"Cool, .* pass weights_only=False"):
        quiet(max_epochs=2).fit(Remembers(), pairs(3), ckpt_path=tmp_path / "x.ckpt")
    other = Remembers()
    quiet(max_epochs=2).fit(other, pairs(3), ckpt_path=tmp_path / "x.ckpt", weights_only=False)
    assert type(other.something_cool_i_want_to_save) is Cool
    for run in (quiet().test, quiet().predict):
        other = Remembers()
        run(other, pairs(1), ckpt_path=tmp_path / "x.ckpt", weights_only=False)
        assert type(other.something_cool_i_want_to_save) is Cool


def test_hooks_that_are_set_to_none_are_not_called(tmp_path: Path) -> None:
    def without_hooks(owner: Any) -> Any:
        owner.on_save_checkpoint = owner.on_load_checkpoint = None
        return owner

    trainer = quiet(callbacks=without_hooks(Counts()))
    trainer.fit(without_hooks(Trains()), datamodule=without_hooks(Data()))
    trainer.save_checkpoint(tmp_path / "x.ckpt")
    assert read(tmp_path / "x.ckpt")["callbacks"] == {}
    fitted(tmp_path / "y.ckpt", callbacks=Returns("kept"))
    again = quiet(max_epochs=2, callbacks=without_hooks(Returns("")))
    again.fit(without_hooks(Trains()), pairs(3), ckpt_path=tmp_path / "y.ckpt")
    assert again.global_step == 6


# ---- callbacks -------------------------------------------------------------------------------------------


class Counts(Callback):
    """Keeps a state."""

    def __init__(self, count: int = 0) -> None:
        self.count = count

    def state_dict(self) -> dict[str, Any]:
        return {"count": self.count} if self.count else {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.count = state["count"]


class Returns(Callback):
    """Keeps what it is told to, as the period's callbacks do."""

    def __init__(self, kept: Any) -> None:
        self.kept = kept

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> Any:
        assert "state_dict" in checkpoint
        return self.kept

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, callback_state: Any) -> None:
        self.kept = callback_state


def test_callbacks_get_their_states_back_each_its_own(tmp_path: Path) -> None:
    fitted(tmp_path / "x.ckpt", callbacks=[Counts(1), Returns({"a": [1]}), Counts(), Counts(3), Returns(0)])
    assert read(tmp_path / "x.ckpt")["callbacks"].keys() == {"Counts", "Counts#2", "Returns", "Returns#1"}
    first, middle, last, one, other = Counts(), Counts(9), Counts(), Returns(None), Returns(None)
    quiet(max_epochs=2, callbacks=[first, middle, last, one, other]).fit(
        Trains(), pairs(3), ckpt_path=tmp_path / "x.ckpt"
    )
    assert (first.count, middle.count, last.count) == (1, 9, 3)
    assert (one.kept, other.kept) == ({"a": [1]}, 0)


def test_callbacks_stay_as_they_are_where_nothing_goes_on(tmp_path: Path) -> None:
    fitted(tmp_path / "x.ckpt", callbacks=Counts(1))
    counts = Counts(5)
    quiet(callbacks=counts).test(Trains(), pairs(1), ckpt_path=tmp_path / "x.ckpt")
    assert counts.count == 5


def test_a_callback_that_is_not_there_and_one_that_is_new(tmp_path: Path) -> None:
    fitted(tmp_path / "x.ckpt", callbacks=Counts(1))
    new = Returns("mine")
    with pytest.warns(UserWarning, match=r"x\.ckpt.* holds the state of Counts, a callback that is not there"):
        quiet(max_epochs=2, callbacks=new).fit(Trains(), pairs(3), ckpt_path=tmp_path / "x.ckpt")
    assert new.kept == "mine"


# ---- what does not fit -----------------------------------------------------------------------------------


class Several(Trains):
    """So many optimizers and schedulers."""

    def __init__(self, optimizers: int = 1, schedulers: int = 0, kind: Any = torch.optim.SGD) -> None:
        super().__init__()
        self.numbers, self.kind = (optimizers, schedulers), kind

    def training_step(self, batch: Any, batch_idx: int, optimizer_idx: int = 0) -> Any:
        return self.loss(batch)

    def configure_optimizers(self) -> Any:
        made = [self.kind(self.parameters(), lr=0.1) for _ in range(self.numbers[0])]
        return made, [torch.optim.lr_scheduler.StepLR(made[0], 1) for _ in range(self.numbers[1])]


class Wider(Trains):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 1, dtype=torch.float64)


class BiasOnly(Trains):
    def configure_optimizers(self) -> Any:
        return torch.optim.SGD([self.layer.bias], lr=0.1)


@pytest.mark.parametrize("model, told", [
    (lambda: Several(2, 1), "holds 1 optimizer_states, but configure_optimizers returned 2"),
    (lambda: Several(1, 0), "holds 1 lr_schedulers, but configure_optimizers returned 0"),
    (BiasOnly, "holds 1 lr_schedulers"), (Wider, "does not fit Wider: (?s:.*)size mismatch for layer.weight"),
    (lambda: nothing(Trains()), "needs"),
])  # fmt: skip
def test_another_model_is_an_error_that_says_so(tmp_path: Path, model: Callable[[], Any], told: str) -> None:
    fitted(tmp_path / "x.ckpt", Several(1, 1))
    with pytest.raises(Exception, match=told):
        quiet(max_epochs=2).fit(model(), pairs(3), ckpt_path=tmp_path / "x.ckpt")


def nothing(model: Trains) -> Trains:
    model.training_step = None  # type: ignore[assignment, method-assign]
    return model


def test_other_parameters_of_an_optimizer(tmp_path: Path) -> None:
    fitted(tmp_path / "x.ckpt")
    with pytest.raises(CheckpointError, match=r"x\.ckpt.* does not fit the optimizer SGD: .*parameter group"):
        quiet(max_epochs=2).fit(BiasOnly(), pairs(3), ckpt_path=tmp_path / "x.ckpt")


def test_weights_alone_are_no_training_to_go_on_with(tmp_path: Path) -> None:
    trained = fitted(tmp_path / "x.ckpt", weights_only=True)
    began: list[str] = []

    class Sees(Trains):
        def on_fit_start(self) -> None:
            began.append("on_fit_start")

    with pytest.raises(CheckpointError, match=r"holds weights only, .* use Sees\.load_from_checkpoint"):
        quiet(max_epochs=2).fit(Sees(), pairs(3), ckpt_path=tmp_path / "x.ckpt")
    assert not began
    tested = Trains()
    quiet().test(tested, pairs(1), ckpt_path=tmp_path / "x.ckpt")
    assert torch.equal(tested.layer.weight, trained.module.layer.weight)


# ---- going on --------------------------------------------------------------------------------------------


def test_one_trainer_may_go_on_more_than_once(tmp_path: Path) -> None:
    fitted(tmp_path / "x.ckpt")
    trainer, ends = quiet(max_epochs=3), []
    for _ in range(2):
        trainer.fit(Trains(), pairs(3), ckpt_path=tmp_path / "x.ckpt")
        ends.append((trainer.current_epoch, trainer.global_step, trainer.module.layer.weight.tolist()))
    assert ends[0] == ends[1]
    assert ends[0][:2] == (3, 9)


def test_where_nothing_is_left_to_do(tmp_path: Path) -> None:
    trained = fitted(tmp_path / "x.ckpt")
    trainer = quiet(max_epochs=1)
    with pytest.warns(UserWarning, match="fit will train nothing: current_epoch=1 of max_epochs=1") as told:
        trainer.fit(Trains(), pairs(3), ckpt_path=tmp_path / "x.ckpt")
    assert [Path(warning.filename) for warning in told] == [Path(__file__)]
    assert torch.equal(trainer.module.layer.weight, trained.module.layer.weight)
    assert (trainer.current_epoch, trainer.global_step) == (1, 3)


def test_resume_from_checkpoint_is_the_default_of_ckpt_path(tmp_path: Path) -> None:
    fitted(tmp_path / "x.ckpt")
    with pytest.warns(DeprecationWarning, match=r"fit\(ckpt_path=\.\.\.\)"):
        trainer = quiet(max_epochs=2, resume_from_checkpoint=tmp_path / "x.ckpt")
    trainer.fit(Trains(), pairs(3))
    assert trainer.global_step == 6


# ---- checkpoints of Lightning ----------------------------------------------------------------------------


class Single(LightningModule):
    """What `assets/make.py` trained."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(2, 1)
        self.started: list[Any] = []

    def on_train_start(self) -> None:
        self.started = [self.trainer.current_epoch, self.trainer.global_step, self.layer.weight.tolist()]

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        return self.layer(batch).square().mean()

    test_step = training_step

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.1, momentum=0.5)


@pytest.mark.parametrize("version, skipped", [
    ("1.5.10", "callbacks, epoch, global_step, lr_schedulers, optimizer_states"),
    ("2.6.6", "callbacks, epoch, global_step, loops, lr_schedulers, optimizer_states"),
])  # fmt: skip
def test_those_of_lightning_give_their_weights(version: str, skipped: str) -> None:
    path = ASSETS / f"lightning-{version}.ckpt"
    expected = torch.load(path, weights_only=True)["state_dict"]["layer.weight"]
    model, trainer = Single(), quiet(callbacks=Counts())
    with pytest.warns(UserWarning) as told:
        trainer.fit(model, Batches([torch.ones(2, 2)] * 2), ckpt_path=path)
    assert str(told[0].message).endswith(
        f"was written by pytorch-lightning {version}: its weights are loaded, and training begins at epoch 0; "
        f"skipped are {skipped}"
    )
    assert [Path(warning.filename) for warning in told] == [Path(__file__)]
    assert model.started == [0, 0, expected.tolist()]
    tested = Single()
    quiet().test(tested, Batches([torch.ones(2, 2)]), ckpt_path=path)
    assert torch.equal(tested.layer.weight, expected)


@pytest.mark.parametrize("version", ["1.5.10", "2.6.6"])
def test_those_of_lightning_are_whole_in_a_hook(version: str) -> None:
    seen: dict[str, Any] = {}

    class Sees(Single):
        def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
            seen.update(checkpoint)

    quiet().test(Sees(), Batches([torch.ones(2, 2)]), ckpt_path=ASSETS / f"lightning-{version}.ckpt")
    assert seen["hyper_parameters"] == {"lr": 0.1, "tags": ("a", "b")}
    assert any(name.startswith("ModelCheckpoint") for name in seen["callbacks"])


def test_the_random_state_is_not_drawn_from_by_saving(tmp_path: Path) -> None:
    trainer = fitted(tmp_path / "x.ckpt", callbacks=ModelCheckpoint(tmp_path), enable_checkpointing=True)
    random.seed(1)
    torch.manual_seed(1)
    expected = random.random(), torch.rand(1)
    random.seed(1)
    torch.manual_seed(1)
    trainer.save_checkpoint(tmp_path / "y.ckpt")
    assert (random.random(), torch.rand(1)) == expected
