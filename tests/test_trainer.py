"""Trainer: options checked at the boundary, what a run is given, and one run after another."""

from __future__ import annotations

import math
from datetime import timedelta
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from models import Batches, Line, pairs, quiet, tapped
from torch import nn

from refimpl import ConfigurationError, LightningModule, Trainer

# ---- options -------------------------------------------------------------------------------------------


def test_defaults() -> None:
    trainer = Trainer()
    assert (trainer.max_epochs, trainer.max_steps, trainer.min_epochs, trainer.min_steps) == (1000, -1, 0, 0)
    assert Trainer(max_steps=5).max_epochs == -1
    assert Trainer(max_steps=-1).max_epochs == 1000
    assert Trainer(max_time={"hours": 1}).max_epochs == -1
    assert Trainer(max_steps=5, max_epochs=2).max_epochs == 2


@pytest.mark.parametrize("option, value, accepted", [
    ("max_epochs", -2, "an int from -1"), ("max_epochs", 1.0, "an int"), ("max_epochs", "3", "an int"),
    ("max_steps", -2, "an int from -1"), ("min_epochs", -1, "an int from 0"), ("min_steps", 0.5, "an int"),
    ("check_val_every_n_epoch", 0, "an int from 1"), ("check_val_every_n_epoch", None, "an int"),
    ("num_sanity_val_steps", -2, "an int from -1"), ("num_sanity_val_steps", True, "an int"),
    ("limit_train_batches", -1, "an int from 0 or a float"), ("limit_train_batches", 1.5, "a float from"),
    ("limit_val_batches", True, "an int from 0"), ("limit_test_batches", None, "an int from 0"),
    ("limit_predict_batches", "all", "an int from 0"), ("limit_train_batches", math.nan, "a float from"),
    ("val_check_interval", 0, "an int from 1"), ("val_check_interval", 0.0, r"a float in \(0, 1\]"),
    ("val_check_interval", 1.5, "an int from 1"), ("val_check_interval", -1, "an int from 1"),
    ("fast_dev_run", -1, "an int from 0"), ("fast_dev_run", 0.5, "an int"), ("fast_dev_run", None, "an int"),
    ("max_time", "1:2:3", "DD:HH:MM:SS"), ("max_time", 5, "DD:HH:MM:SS"),
    ("max_time", {"fortnights": 1}, "a dict such as"), ("max_time", "a:b:c:d", "a timedelta"),
    ("max_time", {"days": 10**10}, "a timedelta"), ("precision", 8, "16, 32, 64 or 'bf16'"),
    ("accumulate_grad_batches", 0, "an int from 1"), ("accumulate_grad_batches", {0: 1.5}, "an int from 1"),
    ("gradient_clip_val", -0.5, "None or a number from 0"), ("gradient_clip_val", "1", "None or a number"),
    ("gradient_clip_algorithm", "sum", "'norm' or 'value'"), ("track_grad_norm", 0, "above 0 such as 2|above 0, 'inf'"),
    ("track_grad_norm", "two", "a number above 0, 'inf', or -1"),
    ("deterministic", "no", "True or False"), ("enable_progress_bar", 2, "True or False"),
])  # fmt: skip
def test_a_value_that_is_not_accepted_is_told_with_what_is(option: str, value: Any, accepted: str) -> None:
    with pytest.raises(ConfigurationError, match=rf"^{option}=.*{accepted}"):
        Trainer(**{option: value})


def test_numpys_numbers_are_numbers() -> None:
    numbers: dict[str, Any] = {
        "max_epochs": np.int64(3), "limit_val_batches": np.float32(0.5), "val_check_interval": np.int8(2),
    }  # fmt: skip
    trainer = Trainer(**numbers)
    assert (trainer.max_epochs, trainer.limit_val_batches, trainer.val_check_interval) == (3, 0.5, 2)
    assert {type(getattr(trainer, name)) for name in numbers} == {int, float}


@given(st.integers(0, 99), st.integers(0, 23), st.integers(0, 59), st.integers(0, 59))
def test_every_spelling_of_a_time(days: int, hours: int, minutes: int, seconds: int) -> None:
    parts: dict[str, float] = {"days": days, "hours": hours, "minutes": minutes, "seconds": seconds}
    text = f"{days:02}:{hours:02}:{minutes:02}:{seconds:02}"
    spellings: list[Any] = [text, parts, timedelta(**parts)]
    times = {Trainer(max_time=spelling).max_time for spelling in spellings}
    assert times == {timedelta(**parts).total_seconds()}


def test_fast_dev_run_overrides_what_was_given() -> None:
    trainer = Trainer(fast_dev_run=3, max_epochs=9, max_steps=99, limit_val_batches=0.5)
    assert (trainer.max_epochs, trainer.max_steps, trainer.num_sanity_val_steps) == (1, 3, 0)
    assert trainer.limit_train_batches == trainer.limit_val_batches == trainer.limit_test_batches == 3
    assert Trainer(fast_dev_run=False, max_epochs=9).max_epochs == 9
    assert Trainer(fast_dev_run=True).limit_predict_batches == 1


@pytest.mark.parametrize("stage", ["validate", "test", "predict"])
@pytest.mark.parametrize("limit, batches", [(0, 0), (3, 3), (99, 5), (0.5, 2), (1.0, 5), (0.0, 0)])
def test_limits_of_evaluation(stage: str, limit: int | float, batches: int) -> None:
    seen: list[int] = []
    step = {"validate": "validation_step", "test": "test_step", "predict": "predict_step"}[stage]
    module = tapped(Line, lambda _, hook, args: seen.append(args[1]), [step])()
    option = {"validate": "val"}.get(stage, stage)
    getattr(quiet(**{f"limit_{option}_batches": limit}), stage)(module, pairs(5))
    assert seen == list(range(batches))


# ---- what a run is given -------------------------------------------------------------------------------


@pytest.mark.parametrize("given, told", [
    (Line, "the class Line; pass an instance"), (nn.Linear(1, 1), "not Linear"), (None, "not NoneType"),
    ("model", "not str"),
])  # fmt: skip
def test_what_is_no_module(given: Any, told: str) -> None:
    with pytest.raises(TypeError, match=f"validate needs a LightningModule, .*{told}"):
        quiet().validate(given, pairs(1))


@pytest.mark.parametrize("stage, missing", [
    ("fit", "training_step"), ("fit", "configure_optimizers"), ("validate", "validation_step"),
    ("test", "test_step"),
])  # fmt: skip
def test_a_step_that_is_missing_is_named(stage: str, missing: str) -> None:
    module = type("Partial", (Line,), {missing: None})()
    with pytest.raises(ConfigurationError, match=rf"{stage} needs Partial\.{missing}, which is not defined"):
        getattr(quiet(), stage)(module, pairs(1))


def test_other_steps_need_not_be_there() -> None:
    class Testing(LightningModule):
        def test_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
            self.log("tested", 1.0)

    assert quiet().test(Testing(), pairs(1)) == [{"tested": 1.0}]


def test_without_a_model_the_last_one_is_meant() -> None:
    class Named(Line):
        def __init__(self, name: float) -> None:
            super().__init__()
            self.name = name

        def test_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
            self.log("name", self.name)

    trainer = quiet(limit_val_batches=0)
    trainer.fit(Named(1.0), pairs(1))
    assert trainer.test(dataloaders=pairs(1)) == [{"name": 1.0}]
    assert trainer.test(Named(2.0), dataloaders=pairs(1)) == [{"name": 2.0}]
    assert trainer.test(dataloaders=pairs(1)) == [{"name": 2.0}]


# ---- one run after, and inside, another ----------------------------------------------------------------


def test_a_trainer_runs_one_thing_at_a_time() -> None:
    class Nesting(Line):
        def on_train_epoch_end(self) -> None:
            assert self.trainer is not None
            self.trainer.validate(self, pairs(1))

    with pytest.raises(RuntimeError, match="validate was called while this trainer runs fit; use another"):
        quiet(limit_val_batches=0).fit(Nesting(), pairs(1))


def test_another_trainer_may_run_inside_and_gives_the_module_back() -> None:
    class Nesting(Line):
        def training_step(self, batch: Any, batch_idx: int) -> Any:
            self.log("outer", float(self.current_epoch))
            return self.loss(batch)

        def validation_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
            self.log("inner", 5.0)

        def on_train_epoch_end(self) -> None:
            outer, inner = self.trainer, quiet()
            assert inner.validate(self, pairs(1)) == [{"inner": 5.0}]
            assert self.trainer is outer and self.training and torch.is_grad_enabled()

    trainer = quiet(max_epochs=3, limit_val_batches=0)
    trainer.fit(Nesting(), pairs(1))
    assert trainer.callback_metrics == {"outer": 2.0}


def test_a_run_inside_that_is_refused_gives_the_module_back_too() -> None:
    class Nesting(Line):
        test_step = None  # type: ignore[assignment]

        def on_train_epoch_start(self) -> None:
            outer = self.trainer
            with pytest.raises(ConfigurationError, match=r"test needs Nesting\.test_step"):
                quiet().test(self, pairs(1))
            assert self.trainer is outer
            self.log("goes on", 1.0)

    trainer = quiet(limit_val_batches=0)
    trainer.fit(Nesting(), pairs(1))
    assert trainer.callback_metrics == {"goes on": 1.0}


def test_fit_then_everything_else_then_fit_again() -> None:
    trainer, module = quiet(), Line()
    trainer.fit(module, pairs(2), pairs(1))
    assert trainer.validate(module, pairs(1)) == trainer.test(module, pairs(1)) == [{}]
    assert len(trainer.predict(module, pairs(3)) or []) == 3
    assert (trainer.current_epoch, trainer.global_step) == (1, 2)
    trainer.max_epochs = 2
    trainer.fit(module, pairs(2), pairs(1))
    assert (trainer.current_epoch, trainer.global_step) == (2, 4)


def test_a_refused_run_leaves_the_trainer_usable() -> None:
    trainer = quiet(limit_val_batches=0)
    with pytest.raises(ConfigurationError):
        trainer.fit(Line())
    trainer.fit(Line(), pairs(1))
    assert trainer.state.status == "finished"


# ---- what it hands on ----------------------------------------------------------------------------------


def test_using_lbfgs_and_use_amp_are_passed_to_optimizer_step() -> None:
    seen: list[Any] = []
    kind = tapped(Line, lambda _, hook, args: seen.append(args[5:]), ["optimizer_step"])
    quiet(limit_val_batches=0).fit(kind(torch.optim.LBFGS), pairs(1))
    quiet(limit_val_batches=0, precision="bf16").fit(kind(), pairs(1))
    assert seen == [(False, False, True), (False, True, False)]


def test_the_module_is_built_in_setup_and_then_moved() -> None:
    class Late(LightningModule):
        def setup(self, stage: str | None = None) -> None:
            self.layer = nn.Linear(2, 1, dtype=torch.float64)

        def training_step(self, batch: Any, batch_idx: int) -> Any:
            return self.layer(batch[0]).sum()

        def configure_optimizers(self) -> Any:
            return torch.optim.SGD(self.parameters(), lr=0.1)

    trainer = quiet(limit_val_batches=0)
    trainer.fit(Late(), Batches(pairs(1)))
    assert trainer.global_step == 1
