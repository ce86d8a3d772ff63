"""The progress bar: what can be read in the terminal, and that nothing of it stays behind."""

from __future__ import annotations

import io
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import tqdm.auto
from models import Batches, Line, Stream, pairs, quiet

from refimpl import Callback, CSVLogger, LightningModule, ModelCheckpoint, ProgressBar
from refimpl.callbacks import ProgressBarBase, TQDMProgressBar
from refimpl.callbacks import progress_bar as progress


@pytest.fixture(autouse=True)
def every_update_is_drawn(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Bars as they are after each batch, however fast; none may be open afterwards."""

    class Eager(tqdm.tqdm):  # type: ignore[misc]
        def __init__(self, **kwargs: Any) -> None:
            super().__init__(mininterval=0, ascii=True, **{**kwargs, "dynamic_ncols": False})

    monkeypatch.setattr(progress, "tqdm", Eager)
    yield
    assert not Eager._instances


class Telling(Line):
    def training_step(self, batch: Any, batch_idx: int) -> Any:
        self.log("seen", float(batch_idx), prog_bar=True)
        self.log("hidden", 7.0)
        return self.loss(batch)

    def validation_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> Any:
        self.log("checked", 0.25, prog_bar=True)


def drawn(capsys: pytest.CaptureFixture[str]) -> list[str]:
    """Everything that the bars have written, one entry for each state of a line."""
    return [part.strip() for part in re.split(r"[\r\n]|\x1b\[A", capsys.readouterr().err) if part.strip()]


def fit(module: LightningModule, loader: Any, val: Any = None, **options: Any) -> None:
    options = {"callbacks": ProgressBar(), **({} if val else {"limit_val_batches": 0}), **options}
    quiet(**options).fit(module, loader, val)


def test_a_training_epoch_is_drawn_to_its_end(capsys: pytest.CaptureFixture[str]) -> None:
    fit(Telling(), pairs(4), max_epochs=2)
    lines = drawn(capsys)
    for epoch in (0, 1):
        mine = [line for line in lines if line.startswith(f"Epoch {epoch}:")]
        assert next(line for line in mine if "/4" in line).count("0/4") == 1
        assert "100%" in mine[-1] and "4/4" in mine[-1] and "seen=3" in mine[-1] and "hidden" not in mine[-1]
    assert any("2/4" in line and "seen=1" in line for line in lines)


def test_a_loader_without_a_length_has_a_bar_without_an_end(capsys: pytest.CaptureFixture[str]) -> None:
    fit(Telling(), Stream(pairs(3)))
    last = drawn(capsys)[-1]
    assert "3it" in last and "%" not in last


def test_validations_have_a_bar_of_their_own(capsys: pytest.CaptureFixture[str]) -> None:
    fit(Telling(), pairs(2), [pairs(2), pairs(3)], num_sanity_val_steps=1)  # one step of each loader
    lines = drawn(capsys)
    assert any(line.startswith("Sanity check: 100%") and "2/2" in line for line in lines)
    assert any(line.startswith("Validating: 100%") and "5/5" in line for line in lines)
    assert lines[-1].startswith("Epoch 0: 100%") and "checked/dataloader_idx_1=0.25" in lines[-1]


@pytest.mark.parametrize("stage, name", [
    ("test", "Testing"), ("predict", "Predicting"), ("validate", "Validating")
])  # fmt: skip
def test_every_stage_has_a_bar(stage: str, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    getattr(quiet(callbacks=ProgressBar()), stage)(Line(), pairs(3))
    assert any(line.startswith(f"{name}: 100%") and "3/3" in line for line in drawn(capsys))


def test_numbers_are_refreshed_at_the_rate_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    fit(Telling(), pairs(5), callbacks=ProgressBar(refresh_rate=2))
    seen = {match for line in drawn(capsys) for match in re.findall(r"seen=(\d)", line)}
    assert seen == {"1", "3", "4"}  # every second batch, and the end
    for rate in (0, -1, 1.5, True):
        with pytest.raises(ValueError, match="an int from 1 is accepted"):
            ProgressBar(refresh_rate=rate)  # type: ignore[arg-type]


def test_a_bar_is_drawn_once_for_a_batch_and_counts_from_where_the_epoch_goes_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    saver = ModelCheckpoint(tmp_path, "{step}", every_n_train_steps=1, save_top_k=-1)
    options: dict[str, Any] = {"enable_checkpointing": True, "limit_val_batches": 0}
    quiet(callbacks=[ProgressBar(), saver], **options).fit(Telling(), pairs(4))
    shown = [re.findall(r"\d/4|\dit", line)[0] for line in drawn(capsys)]
    assert shown == ["0it", "0/4", "1/4", "2/4", "3/4", "4/4", "4/4"]  # the last with the epoch's values
    quiet(callbacks=ProgressBar(), **options).fit(Telling(), pairs(4), ckpt_path=tmp_path / "step=2.ckpt")
    assert [re.findall(r"\d/4|\dit", line)[0] for line in drawn(capsys)][:4] == ["0it", "0/4", "3/4", "4/4"]


def test_the_time_counts_from_the_beginning_of_the_epoch(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [0.0]

    class Slow(Line):
        def training_step(self, batch: Any, batch_idx: int) -> Any:
            now[0] += 60
            return self.loss(batch)

    monkeypatch.setattr("tqdm.std.time", lambda: now[0])
    fit(Slow(), pairs(4))
    assert any("1/4 [01:00<03:00, 60.00s/it" in line for line in drawn(capsys))


def test_numbers_are_computed_only_where_they_are_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """For that may have to wait for the device."""

    class Asked(Telling):
        asked = 0

        def get_progress_bar_dict(self) -> dict[str, Any]:
            self.asked += 1
            return super().get_progress_bar_dict()

    class Rarely(progress.tqdm):  # type: ignore[misc]
        def __init__(self, **kwargs: Any) -> None:
            super().__init__(**kwargs)
            self.mininterval = 60.0

    eager, rare = Asked(), Asked()
    fit(eager, pairs(5))
    monkeypatch.setattr(progress, "tqdm", Rarely)
    fit(rare, pairs(5))
    assert (eager.asked, rare.asked) == (6, 1)  # with each batch, and as the epoch ends


class Printing(Line):
    def training_step(self, batch: Any, batch_idx: int) -> Any:
        self.print("batch", batch_idx, sep="=", flush=True)
        return self.loss(batch)


def test_print_goes_above_the_bar(capsys: pytest.CaptureFixture[str]) -> None:
    fit(Printing(), pairs(3))
    assert capsys.readouterr().out == "batch=0\nbatch=1\nbatch=2\n"


@pytest.mark.parametrize("settings", [
    {}, {"sep": ""}, {"end": "!\n"}, {"flush": True}, {"sep": None, "end": None}, {"sep": "-", "end": "\n\n"}
])  # fmt: skip
def test_print_takes_what_pythons_print_takes(
    settings: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    ProgressBar().print("one", 2, None, **settings)
    mine = capsys.readouterr().out
    print("one", 2, None, **settings)
    assert mine == capsys.readouterr().out
    into = io.StringIO()
    ProgressBar().print("one", file=into, **settings)
    assert into.getvalue().startswith("one")


@pytest.mark.parametrize("error", [ValueError("v"), KeyboardInterrupt()])
@pytest.mark.parametrize("step", ["training_step", "validation_step"])
def test_bars_are_closed_after_an_exception(error: BaseException, step: str) -> None:
    """The fixture looks for open bars."""

    def boom(self: Any, *args: Any) -> None:
        raise error

    module = type("Broken", (Telling,), {step: boom})()
    if isinstance(error, KeyboardInterrupt):
        with pytest.warns(UserWarning, match="interrupted"):
            fit(module, pairs(2), pairs(1))
    else:
        with pytest.raises(ValueError):
            fit(module, pairs(2), pairs(1))


def test_an_epoch_without_a_batch(capsys: pytest.CaptureFixture[str]) -> None:
    class Skipping(Line):
        def on_train_batch_start(self, batch: Any, batch_idx: int, dataloader_idx: int) -> int:
            return -1

    fit(Skipping(), Batches(pairs(2)))
    assert drawn(capsys)[-1].startswith("Epoch 0: 0it")


# ---- what stands behind the bar ------------------------------------------------------------------------


class Losing(Line):
    """Its losses are 1, 2, 3, ..., in the form that `form` gives them."""

    form = staticmethod(lambda loss: loss)

    def __init__(self) -> None:
        super().__init__()
        self.shown: list[dict[str, Any]] = []

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        self.shown.append(self.get_progress_bar_dict())
        return self.form(self.loss(batch) * 0 + self.global_step + 1)


@pytest.mark.parametrize("form", [lambda loss: loss, lambda loss: {"loss": loss}, lambda loss: loss.reshape(1)])
def test_the_loss_is_the_mean_of_the_last_20(form: Any) -> None:
    module = Losing()
    module.form = form
    fit(module, pairs(15), max_epochs=2)
    assert module.shown[0] == {}
    assert [items["loss"] for items in module.shown[1:4]] == ["1", "1.5", "2"]
    assert module.shown[29] == {"loss": f"{sum(range(10, 30)) / 20:.3g}"}
    fit(module, pairs(1))  # another fit begins anew
    assert module.shown[30] == {}


def test_steps_without_a_loss_and_several_optimizers() -> None:
    bar = ProgressBar()
    for outputs in (None, {"loss": None}, [torch.tensor(1.0), None, {"loss": torch.tensor(2.0)}], {"extra": 1}):
        bar.on_train_batch_end(None, None, outputs, None, 0, 0)  # type: ignore[arg-type]
    assert bar.running_loss == 1.5
    assert ProgressBar().running_loss is None


def test_the_loggers_version_is_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fit(Telling(), pairs(2), logger=CSVLogger(tmp_path, version=7), log_every_n_steps=1)
    assert "v_num=7" in drawn(capsys)[-1]
    module = Losing()
    fit(module, pairs(1), callbacks=[], logger=CSVLogger(tmp_path))
    assert module.shown == [{"v_num": 8}]
    assert Losing().get_progress_bar_dict() == {}


def test_what_is_shown_can_be_overridden(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The documentation's example."""

    class Own(Telling):
        def get_progress_bar_dict(self) -> dict[str, Any]:
            items = super().get_progress_bar_dict()
            items.pop("v_num", None)
            return {**items, "own": 3}

    fit(Own(), pairs(2), logger=CSVLogger(tmp_path, version=7))
    last = drawn(capsys)[-1]
    assert "loss=" in last and "own=3" in last and "seen=1" in last and "v_num" not in last


def test_a_bar_of_ones_own_takes_the_place(capsys: pytest.CaptureFixture[str]) -> None:
    class Plain(ProgressBar):
        def on_train_batch_end(self, trainer: Any, pl_module: Any, *args: Any) -> None:
            super().on_train_batch_end(trainer, pl_module, *args)
            self.print(pl_module.get_progress_bar_dict())

        def get_metrics(self, trainer: Any, pl_module: Any) -> dict[str, Any]:
            return {**super().get_metrics(trainer, pl_module), "mine": 4}

    trainer = quiet(callbacks=Plain(), enable_progress_bar=True, limit_val_batches=0)
    assert isinstance(trainer.progress_bar_callback, Plain)
    trainer.fit(Losing(), pairs(2))
    out, err = capsys.readouterr()
    assert out == "{'loss': '1'}\n{'loss': '1.5'}\n" and "loss=1.5, mine=4" in err
    assert TQDMProgressBar is ProgressBar
    assert quiet().progress_bar_callback is None


# ---- bars of one's own, as scripts of 1.5 have them --------------------------------------------------------


class Percent(ProgressBarBase):
    """The example of 1.5."""

    def __init__(self) -> None:
        super().__init__()
        self.enable = True  # type: ignore[assignment, method-assign]
        self.seen: list[Any] = []

    def disable(self) -> None:
        self.enable = False  # type: ignore[assignment, method-assign]

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: Any) -> None:  # type: ignore[override]
        super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)
        self.seen.append(f"{self.train_batch_idx / self.total_train_batches * 100:.0f}%")

    def on_validation_batch_end(self, *args: Any) -> None:
        super().on_validation_batch_end(*args)
        self.seen.append((self.val_batch_idx, self.total_val_batches))

    def on_test_batch_end(self, *args: Any) -> None:
        super().on_test_batch_end(*args)
        self.seen.append((self.test_batch_idx, self.total_test_batches, self.trainer.testing))

    def on_predict_batch_end(self, *args: Any) -> None:
        super().on_predict_batch_end(*args)
        self.seen.append((self.predict_batch_idx, self.total_predict_batches))


def test_a_bar_of_ones_own_counts(capsys: pytest.CaptureFixture[str]) -> None:
    bar, module = Percent(), Losing()
    with pytest.raises(TypeError, match="this Percent belongs to no trainer that runs"):
        bar.trainer  # noqa: B018
    trainer = quiet(callbacks=bar, enable_progress_bar=True, max_epochs=2, num_sanity_val_steps=1)
    assert trainer.callbacks == [bar] and trainer.progress_bar_callback is bar
    trainer.fit(module, pairs(2), [pairs(1), pairs(2)])
    checks = [(1, 3), (2, 3), (3, 3)]
    assert bar.seen == [(1, 2), (2, 2), "50%", "100%", *checks, "50%", "100%", *checks]
    assert module.get_progress_bar_dict() == {"loss": f"{bar.running_loss:.3g}"}
    bar.seen.clear()
    trainer.test(module, pairs(1), verbose=False)
    trainer.predict(module, Stream(pairs(1)))
    assert bar.seen == [(1, 1, True), (1, float("inf"))]
    trainer.print("one", 2, sep="-")
    assert capsys.readouterr() == ("one-2\n", "")


class Renamed(ProgressBar):
    def init_validation_tqdm(self) -> Any:
        bar = super().init_validation_tqdm()
        bar.set_description("mine")
        return bar

    def init_train_tqdm(self) -> Any:
        bar = super().init_train_tqdm()
        bar.set_description(f"{bar.desc} of mine")
        return bar


def test_bars_can_be_made_otherwise(capsys: pytest.CaptureFixture[str]) -> None:
    fit(Telling(), pairs(2), pairs(1), callbacks=Renamed())
    lines = drawn(capsys)
    assert lines[-1].startswith("Epoch 0 of mine: 100%")
    assert any(line.startswith("mine: 100%") for line in lines)


def test_a_bar_can_be_switched_off_and_on(capsys: pytest.CaptureFixture[str]) -> None:
    bar = ProgressBar()

    class Switches(Callback):
        def on_epoch_end(self, trainer: Any, pl_module: Any) -> None:
            if trainer.training:
                bar.enable() if trainer.current_epoch == 1 else bar.disable()

    bar.disable()
    fit(Losing(), pairs(1), pairs(1), callbacks=[bar, Switches()], max_epochs=4)
    assert bar.is_enabled is False and bar.running_loss == 2.5
    assert {line.split(":")[0] for line in drawn(capsys)} == {"Epoch 2", "Validating"}


NOTEBOOK = """
import sys, types

class Widget:  # as much of ipywidgets as tqdm uses
    def __init__(self, children=(), **kwargs):
        self.children, self.layout, self.style = children, types.SimpleNamespace(), types.SimpleNamespace()
        self.__dict__.update(kwargs)

    def close(self):
        pass

def module(name, **contents):
    sys.modules[name] = types.ModuleType(name)
    sys.modules[name].__dict__.update(contents)

module("ipykernel.zmqshell")
module("IPython", get_ipython=lambda: None)
module("IPython.display", display=lambda *widgets: None)
module("ipywidgets", HBox=Widget, HTML=Widget, FloatProgress=Widget)

from models import Line, pairs, quiet
from refimpl import ProgressBar
from refimpl.callbacks import progress_bar as progress
from tqdm.notebook import tqdm_notebook

assert issubclass(progress.tqdm, tqdm_notebook)
quiet(callbacks=ProgressBar()).fit(Line(), pairs(3), pairs(2))
assert not progress.tqdm._instances
print("drawn")
"""


@pytest.mark.slow
def test_in_a_notebook_the_bars_are_widgets() -> None:
    """tqdm decides at import, so this is a process of its own, which takes itself for a kernel."""
    command, environment = [sys.executable, "-c", NOTEBOOK], {"PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, env={**os.environ, **environment}
    )
    assert done.stdout == "drawn\n", done.stderr
    assert done.stderr == ""
