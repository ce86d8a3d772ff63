"""What goes wrong in a hook: the run is closed, the exception surfaces, and Ctrl-C ends gracefully."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from models import Batches, Line, pairs, quiet

from refimpl import Callback, LightningModule

RAISING = """
    prepare_data on_fit_start setup configure_optimizers on_pretrain_routine_start on_pretrain_routine_end
    on_validation_model_eval on_validation_start on_epoch_start on_validation_epoch_start
    on_validation_batch_start on_before_batch_transfer transfer_batch_to_device on_after_batch_transfer
    validation_step on_validation_batch_end validation_epoch_end on_validation_epoch_end on_epoch_end
    on_validation_end on_validation_model_train on_train_start on_train_epoch_start on_train_batch_start
    optimizer_step training_step on_before_zero_grad optimizer_zero_grad on_before_backward backward
    on_after_backward on_before_optimizer_step on_train_batch_end training_epoch_end on_train_epoch_end
    on_train_end on_fit_end
""".split()


def closings(error: BaseException, hook: str) -> tuple[LightningModule, Callback, list[str]]:
    """A module that raises `error` in `hook`, once; a callback; and the list of what was called then."""
    closed: list[str] = []

    def boom(self: LightningModule, *args: Any) -> Any:
        if not closed:
            closed.append("raised")
            raise error
        return getattr(Line, hook)(self, *args)

    class Closing(Callback):
        def on_exception(self, trainer: Any, pl_module: LightningModule, exception: BaseException) -> None:
            assert exception is error
            closed.append(f"on_exception {pl_module.training} {trainer.stage}")

        def teardown(self, trainer: Any, pl_module: LightningModule, stage: str | None = None) -> None:
            closed.append(f"teardown {stage}")

    return type("Broken", (Line,), {hook: boom})(), Closing(), closed


@pytest.mark.parametrize("hook", RAISING)
def test_an_exception_surfaces_unchanged_and_closes_the_run(hook: str) -> None:
    error = ValueError(hook)
    module, callback, closed = closings(error, hook)
    trainer = quiet(num_sanity_val_steps=1, callbacks=callback)
    with pytest.raises(ValueError) as caught, torch.no_grad():
        trainer.fit(module, pairs(2), pairs(1))
    assert caught.value is error
    assert closed == ["raised", "on_exception True None", "teardown fit"]
    assert module.training
    assert trainer.state.status == "failed" and trainer.stage is None and not trainer.interrupted
    trainer.max_epochs = 2
    trainer.fit(module, pairs(2), pairs(1))  # and the trainer can be used again
    assert trainer.state.status == "finished" and trainer.current_epoch == 2


@pytest.mark.parametrize("hook", RAISING)
def test_ctrl_c_ends_training_gracefully(hook: str) -> None:
    interrupt = KeyboardInterrupt()
    module, callback, closed = closings(interrupt, hook)
    trainer = quiet(num_sanity_val_steps=1, callbacks=callback)
    with pytest.warns(UserWarning, match="fit was interrupted"):
        trainer.fit(module, pairs(2), pairs(1))
    assert closed == ["raised", "on_exception True None", "teardown fit"]
    assert trainer.state.status == "interrupted" and trainer.interrupted
    assert module.training and torch.is_grad_enabled()


@pytest.mark.parametrize("stage, hook", [
    ("validate", "validation_step"), ("test", "on_test_start"), ("predict", "on_predict_batch_end")
])  # fmt: skip
def test_evaluation_closes_too(stage: str, hook: str) -> None:
    error = RuntimeError(stage)
    module, callback, closed = closings(error, hook)
    trainer = quiet(callbacks=callback)
    with pytest.raises(RuntimeError) as caught:
        getattr(trainer, stage)(module, pairs(1))
    assert caught.value is error
    assert closed == ["raised", "on_exception True None", f"teardown {stage}"]


def test_what_is_closed_is_closed_with_gradients_on_and_the_caller_finds_its_own() -> None:
    class Looking(Callback):
        def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
            seen.append(torch.is_grad_enabled())

        def teardown(self, trainer: Any, pl_module: Any, stage: str | None = None) -> None:
            seen.append(torch.is_grad_enabled())

    seen: list[bool] = []
    module, _, _ = closings(ValueError(), "training_step")
    with torch.no_grad():
        with pytest.raises(ValueError):
            quiet(callbacks=Looking(), limit_val_batches=0).fit(module, pairs(1))
        assert not torch.is_grad_enabled()
    assert seen == [True, True]


def test_a_loader_that_raises_closes_the_run() -> None:
    class Torn(Batches):
        def __iter__(self) -> Iterator[Any]:
            yield self.batches[0]
            raise OSError("disk")

    closed: list[str] = []
    with pytest.raises(OSError, match="disk"):
        quiet(callbacks=ClosingOnly(closed), limit_val_batches=0).fit(Line(), Torn(pairs(2)))
    assert closed == ["OSError", "teardown"]


class ClosingOnly(Callback):
    def __init__(self, closed: list[str]) -> None:
        self.closed = closed

    def on_exception(self, trainer: Any, pl_module: LightningModule, exception: BaseException) -> None:
        self.closed.append(type(exception).__name__)

    def teardown(self, trainer: Any, pl_module: LightningModule, stage: str | None = None) -> None:
        self.closed.append("teardown")


def test_teardown_that_raises_is_not_called_twice() -> None:
    calls: list[str] = []

    class Torn(Line):
        def teardown(self, stage: str | None = None) -> None:
            calls.append("teardown")
            raise ValueError("teardown")

    with pytest.raises(ValueError, match="teardown"):
        quiet(limit_val_batches=0).fit(Torn(), pairs(1))
    assert calls == ["teardown"]


def test_the_first_exception_wins_and_everybody_is_closed() -> None:
    closed: list[str] = []

    class Worse(Callback):
        def on_exception(self, trainer: Any, pl_module: LightningModule, exception: BaseException) -> None:
            raise OSError("in on_exception")

        def teardown(self, trainer: Any, pl_module: LightningModule, stage: str | None = None) -> None:
            raise OSError("in teardown")

    class Broken(Line):
        def training_step(self, batch: Any, batch_idx: int) -> Any:
            raise ValueError("first")

        def teardown(self, stage: str | None = None) -> None:
            closed.append("module")

    with (
        pytest.raises(ValueError, match="first"),
        pytest.warns(UserWarning, match=r"while closing.*in on_exception"),
        pytest.warns(UserWarning, match=r"while closing.*in teardown"),
    ):
        quiet(callbacks=[Worse(), ClosingOnly(closed)], limit_val_batches=0).fit(Broken(), pairs(1))
    assert closed == ["ValueError", "teardown", "module"]
