"""What users read on a trainer: before the first run, in its hooks, and when runs are over."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from models import Batches, Line, Stream, pairs, quiet, tapped

from refimpl import Callback, CSVLogger, EarlyStopping, LightningModule, Logger, ProgressBar, Trainer
from refimpl.trainer.states import RunningStage, TrainerFn, TrainerStatus

# ---- everything that can be read, at nine moments -------------------------------------------------------

TRAIN, VAL, TEST, PREDICT = pairs(3), [pairs(4), pairs(2)], pairs(5), pairs(6)
STOPPING = EarlyStopping("loss", patience=9)
MOMENTS = ("new", "sanity", "train", "val", "fit", "test", "tested", "predict", "predicted")


class Read(LightningModule):
    """Notes everything in its steps: at the second batch of the second epoch, and of evaluations."""

    def __init__(self, note: Any) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(2, 1, dtype=torch.float64)
        self.note = note

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        loss = self.layer(batch[0]).square().mean()
        self.log("loss", loss)
        if (self.current_epoch, batch_idx) == (1, 1):
            self.note("train")
        return loss

    def validation_step(self, batch: Any, batch_idx: int, dataloader_idx: int) -> Any:  # type: ignore[override]
        if (batch_idx, dataloader_idx) == (1, 0):
            self.note("sanity" if self.trainer.sanity_checking else "val")  # type: ignore[union-attr]

    def test_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> Any:
        self.log("tested", 2.0, prog_bar=True, logger=False)
        if batch_idx == 1:
            self.note("test")

    def predict_step(self, batch: Any, batch_idx: int, dataloader_idx: int | None = None) -> Any:
        if batch_idx == 1:
            self.note("predict")

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.SGD(self.parameters(), lr=0.5)
        return [optimizer], [torch.optim.lr_scheduler.StepLR(optimizer, 1)]


@pytest.fixture(scope="module")
def seen() -> dict[str, dict[str, Any]]:
    """At each moment, everything that has a row below."""
    trainer = quiet(
        max_epochs=2, num_sanity_val_steps=3, limit_predict_batches=2, check_val_every_n_epoch=2,
        accumulate_grad_batches={1: 2}, callbacks=STOPPING,
    )  # fmt: skip
    moments: dict[str, dict[str, Any]] = {}

    def note(moment: str) -> None:
        moments[moment] = {name: getattr(trainer, name) for name in ROWS}

    note("new")
    module = Read(note)
    trainer.fit(module, TRAIN, VAL)
    note("fit")
    trainer.test(module, TEST, verbose=False)
    note("tested")
    trainer.predict(module, PREDICT)
    note("predicted")
    for read in moments.values():
        assert read["model"] in (None, module)
        read["model"] = read["lightning_module"] = read["model"] is module
    assert tuple(sorted(moments, key=MOMENTS.index)) == MOMENTS
    return moments


def at(before: Any, **after: Any) -> list[Any]:
    """A value at each moment: as before it, unless named."""
    values = []
    for moment in MOMENTS:
        before = after.get(moment, before)
        values.append(before)
    return values


def only(value: Any, other: Any, *moments: str) -> list[Any]:
    """One value at these moments, another at the rest."""
    return [value if moment in moments else other for moment in MOMENTS]


ROWS: dict[str, list[Any]] = {
    "stage": [None, "sanity_check", "train", "validate", None, "test", None, "predict", None],
    "training": only(True, False, "train"),
    "sanity_checking": only(True, False, "sanity"),
    "validating": only(True, False, "val"),
    "testing": only(True, False, "test"),
    "predicting": only(True, False, "predict"),
    "current_epoch": at(0, train=1, fit=2),
    "global_step": at(0, train=3, val=4, fit=5),  # of three batches each; two make a window in the second
    "should_stop": at(False),
    "interrupted": at(False),
    "enable_validation": at(False, sanity=True, test=False),
    "is_last_batch": at(False, val=True, test=False),
    "accumulate_grad_batches": at(1, train=2),
    "num_training_batches": at(0, train=3, test=0),
    "num_val_batches": at([], sanity=[4, 2], test=[]),
    "num_sanity_val_batches": at([], sanity=[3, 2], test=[]),
    "num_test_batches": at([], test=[5], predict=[]),
    "num_predict_batches": at([], predict=[2]),
    "train_dataloader": at(None, train=TRAIN, test=None),
    "val_dataloaders": at(None, sanity=VAL, test=None),
    "test_dataloaders": at(None, test=[TEST], predict=None),
    "predict_dataloaders": at(None, predict=[PREDICT]),
    "model": at(False, sanity=True),
    "lightning_module": at(False, sanity=True),
    "datamodule": at(None),
    "global_rank": at(0), "local_rank": at(0), "node_rank": at(0), "is_global_zero": at(True),
    "world_size": at(1), "num_nodes": at(1), "num_processes": at(1), "num_devices": at(1),
    "num_gpus": at(0), "gpus": at(None),
    "precision": at(32), "use_amp": at(False),
    "max_epochs": at(2), "min_epochs": at(0), "max_steps": at(-1), "min_steps": at(0),
    "fast_dev_run": at(False), "check_val_every_n_epoch": at(2), "limit_predict_batches": at(2),
    "default_root_dir": at(str(Path.cwd())), "log_dir": at(str(Path.cwd())),
    "logger": at(None), "loggers": at([]),
    "callbacks": at([STOPPING]), "early_stopping_callback": at(STOPPING), "early_stopping_callbacks": at([STOPPING]),
    "progress_bar_callback": at(None),
    "progress_bar_metrics": at({}, tested={"tested": 2.0}, predict={}),
}  # fmt: skip


@pytest.mark.parametrize("name", ROWS)
def test_each_is_there_at_every_moment(name: str, seen: dict[str, dict[str, Any]]) -> None:
    assert dict(zip(MOMENTS, (seen[moment][name] for moment in MOMENTS))) == dict(zip(MOMENTS, ROWS[name]))


def test_what_was_logged_and_the_optimization() -> None:
    trainer, module = quiet(max_epochs=2, limit_val_batches=0), Read(lambda moment: None)
    assert trainer.optimizers == trainer.lr_schedulers == []
    trainer.fit(module, TRAIN)
    [optimizer], [schedule] = trainer.optimizers, trainer.lr_schedulers
    assert list(trainer.callback_metrics) == ["loss"] and isinstance(trainer.callback_metrics["loss"], torch.Tensor)
    assert trainer.logged_metrics == {"loss": float(trainer.callback_metrics["loss"])}
    assert schedule.pop("scheduler").optimizer is optimizer
    assert schedule == {
        "name": None, "interval": "epoch", "frequency": 1, "reduce_on_plateau": False, "monitor": None,
        "strict": True, "opt_idx": 0,
    }  # fmt: skip
    trainer.test(module, TEST, verbose=False)
    assert list(trainer.callback_metrics) == ["tested"] and trainer.logged_metrics == {}


# ---- the state ------------------------------------------------------------------------------------------

def test_state() -> None:
    seen: list[tuple[Any, ...]] = []

    def note(module: LightningModule, *_: Any) -> None:
        state = module.trainer.state  # type: ignore[union-attr]
        seen.append((state.function, state.stage, state.status, state.finished))

    trainer = quiet()
    assert (trainer.state.fn, trainer.state.stage, trainer.state.status) == (None, None, "initializing")
    trainer.validate(tapped(Line, note, ["prepare_data", "validation_step", "teardown"])(), pairs(1))
    assert seen == [
        ("validate", None, "running", False),
        ("validate", "validate", "running", False),
        ("validate", None, "finished", True),
    ]
    assert "'finished'" in str(trainer.state) and "'validate'" in str(trainer.state)


def test_a_state_equals_its_name_and_its_text() -> None:
    trainer = quiet()
    trainer.predict(Line(), pairs(1))
    assert trainer.state.fn == TrainerFn.PREDICTING == "predict"
    assert trainer.state.status == TrainerStatus.FINISHED == "finished"
    assert f"{RunningStage.SANITY_CHECKING}" == "sanity_check"


@pytest.mark.parametrize("error, status", [(ValueError(), "failed"), (KeyboardInterrupt(), "interrupted")])
def test_a_run_that_did_not_finish(error: BaseException, status: str) -> None:
    def fail(*_: Any) -> None:
        raise error

    trainer = quiet()
    with pytest.warns(UserWarning, match="interrupted") if status == "interrupted" else pytest.raises(ValueError):
        trainer.test(tapped(Line, fail, ["test_step"])(), pairs(1))
    assert (trainer.state.fn, trainer.state.stage, trainer.state.status) == ("test", None, status)
    assert trainer.interrupted == (status == "interrupted") and not trainer.state.finished


FLAGS = ("training", "sanity_checking", "validating", "testing", "predicting")


@pytest.mark.parametrize("stage, hook, flag", [
    ("fit", "training_step", "training"), ("fit", "on_train_epoch_end", "training"),
    ("fit", "validation_step", "validating"), ("fit", "on_fit_start", None), ("fit", "teardown", None),
    ("validate", "validation_step", "validating"), ("test", "test_step", "testing"),
    ("predict", "predict_step", "predicting"), ("predict", "setup", None), ("fit", "on_fit_end", None),
    ("fit", "on_before_batch_transfer", ("training", "validating")),
])  # fmt: skip
def test_flags_say_what_runs(stage: str, hook: str, flag: Any) -> None:
    """The documentation has the transfer hooks ask `self.trainer.training` and the like."""
    seen: list[Any] = []

    def note(module: LightningModule, *_: Any) -> None:
        set_ones = [name for name in FLAGS if getattr(module.trainer, name)]
        seen.append(set_ones[0] if set_ones else None)
        assert len(set_ones) < 2

    module = tapped(Line, note, [hook])()
    loaders = [pairs(1), pairs(1)] if stage == "fit" else [pairs(1)]
    getattr(quiet(), stage)(module, *loaders)
    assert seen == (list(flag) if isinstance(flag, tuple) else [flag])


@pytest.mark.parametrize("loader, limit, batches", [
    (pairs(5), 1.0, 5), (pairs(5), 2, 2), (pairs(5), 0.5, 2),
    (Stream(pairs(5)), 3, 3), (Stream(pairs(5)), 1.0, math.inf),
])  # fmt: skip
def test_num_training_batches(loader: Any, limit: int | float, batches: float) -> None:
    seen: list[float] = []

    class Asking(Callback):
        def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
            seen.append(trainer.num_training_batches)

    trainer = quiet(callbacks=Asking(), limit_train_batches=limit, limit_val_batches=0)
    assert trainer.num_training_batches == 0
    trainer.fit(Line(), loader)
    assert set(seen) == {batches}


@pytest.mark.parametrize("loader, limit", [
    (pairs(5), 1.0), (pairs(5), 3), (Stream(pairs(5)), 1.0), (Stream(pairs(5)), 3),
])  # fmt: skip
def test_the_last_batch_knows_that_it_is(loader: Any, limit: int | float) -> None:
    class Asking(Callback):
        def on_train_batch_start(self, trainer: Any, *_: Any) -> None:
            seen.append(trainer.is_last_batch)

    seen: list[bool] = []
    quiet(max_epochs=2, callbacks=Asking(), limit_train_batches=limit, limit_val_batches=0).fit(Line(), loader)
    batches = 5 if limit == 1.0 else 3
    assert seen == [*[False] * (batches - 1), True] * 2


def test_evaluation_loaders_of_unknown_length() -> None:
    class Asking(Callback):
        def on_test_batch_start(self, trainer: Any, *_: Any) -> None:
            seen.append(trainer.num_test_batches)

    seen: list[Any] = []
    quiet(callbacks=Asking()).test(Line(), [Stream(pairs(1)), Batches(pairs(2))])
    assert seen == [[math.inf, 2]] * 3


# ---- what users set -------------------------------------------------------------------------------------


def test_a_hook_may_set_the_size_of_windows() -> None:
    """Callbacks of the period do so to accumulate more gradients in later epochs."""

    class Scheduling(Callback):
        def on_train_epoch_start(self, trainer: Any, pl_module: LightningModule) -> None:
            trainer.accumulate_grad_batches = {0: 4, 1: 2, 2: 1}[trainer.current_epoch]

    trainer = quiet(max_epochs=3, limit_val_batches=0, callbacks=Scheduling())
    trainer.fit(Line(), pairs(4))
    assert trainer.global_step == 1 + 2 + 4
    with pytest.raises(ValueError, match="accumulate_grad_batches=0; an int from 1"):
        trainer.accumulate_grad_batches = 0


def test_the_logger_may_be_set(tmp_path: Path) -> None:
    class Noting(Logger):
        def log_metrics(self, metrics: Any, step: int) -> None:
            noted.append(metrics)

    noted: list[Any] = []
    trainer, logger = quiet(log_every_n_steps=1, limit_val_batches=0), Noting()
    trainer.logger = logger  # type: ignore[assignment]
    assert trainer.logger is logger and trainer.loggers == [logger]
    trainer.fit(Read(lambda moment: None), pairs(2))
    assert len(noted) == 2 and "loss" in noted[0]
    trainer.logger = [CSVLogger(tmp_path), logger]  # type: ignore[assignment]
    assert trainer.log_dir == str(tmp_path / "lightning_logs" / "version_0")
    trainer.logger = False  # type: ignore[assignment]
    assert trainer.logger is None
    with pytest.raises(ValueError, match="logger='csv'"):
        trainer.logger = "csv"  # type: ignore[assignment]


def test_the_progress_bar_can_be_found() -> None:
    bar = ProgressBar()
    assert Trainer(callbacks=bar, logger=False).progress_bar_callback is bar
