"""Hooks that the period was retiring: called with a warning, or refused with what to write instead."""

from __future__ import annotations

from typing import Any

import pytest
from models import Line, pairs, quiet

from refimpl import Callback, HookError, LightningDataModule
from refimpl.period.retired_hooks import CALLED, REFUSED


def test_batch_hooks_are_called_around_todays() -> None:
    class Retired(Callback):
        def on_batch_start(self, trainer: Any, pl_module: Any) -> None:
            calls.append("on_batch_start")

        def on_batch_end(self, trainer: Any, pl_module: Any) -> None:
            calls.append("on_batch_end")

    class Today(Callback):
        def on_train_batch_start(self, *_: Any) -> None:
            calls.append("on_train_batch_start")

        def on_train_batch_end(self, *_: Any) -> None:
            calls.append("on_train_batch_end")

    class Noting(Line):
        def training_step(self, batch: Any, batch_idx: int) -> Any:
            calls.append("training_step")
            return self.loss(batch)

    calls: list[str] = []
    with (
        pytest.warns(DeprecationWarning, match="Retired.on_batch_start is deprecated; use on_train_batch_start"),
        pytest.warns(DeprecationWarning, match="Retired.on_batch_end is deprecated; use on_train_batch_end"),
    ):
        quiet(limit_val_batches=1, callbacks=[Today(), Retired()]).fit(Noting(), pairs(2), pairs(1))
    one = ["on_batch_start", "on_train_batch_start", "training_step", "on_train_batch_end", "on_batch_end"]
    assert calls == one * 2


@pytest.mark.parametrize("error, expected", [
    (KeyboardInterrupt(), ["on_keyboard_interrupt", "on_exception"]), (ValueError(), ["on_exception"]),
])  # fmt: skip
def test_on_keyboard_interrupt_is_called_for_that_only(error: BaseException, expected: list[str]) -> None:
    class Retired(Callback):
        def on_keyboard_interrupt(self, trainer: Any, pl_module: Any) -> None:
            assert pl_module is module and trainer.interrupted
            calls.append("on_keyboard_interrupt")

        def on_exception(self, *_: Any) -> None:
            calls.append("on_exception")

    class Interrupted(Line):
        def training_step(self, batch: Any, batch_idx: int) -> Any:
            raise error

    calls: list[str] = []
    module, trainer = Interrupted(), quiet(limit_val_batches=0, callbacks=Retired())
    ends = pytest.raises(ValueError) if isinstance(error, ValueError) else pytest.warns(UserWarning, match="interrupt")
    with ends, pytest.warns(DeprecationWarning, match="on_keyboard_interrupt is deprecated; use on_exception"):
        trainer.fit(module, pairs(1))
    assert calls == expected


@pytest.mark.parametrize("hook", sorted(CALLED))
def test_those_of_a_module_are_told_not_to_be_called(hook: str) -> None:
    module = type("Old", (Line,), {hook: lambda self: calls.append(hook)})()
    calls: list[str] = []
    with pytest.warns(UserWarning, match=rf"{hook} is a callback's hook: Old\.{hook} is not called"):
        quiet(limit_val_batches=0).fit(module, pairs(1))
    assert not calls


def test_one_that_was_set_to_none_is_none() -> None:
    callback = Callback()
    callback.on_batch_start = None  # type: ignore[attr-defined]
    quiet(limit_val_batches=0, callbacks=callback).fit(Line(), pairs(1))


@pytest.mark.parametrize("hook", sorted(REFUSED))
@pytest.mark.parametrize("owner", [Line, Callback, LightningDataModule])
def test_what_nothing_calls_is_refused(owner: Any, hook: str) -> None:
    receiver = type("Old", (owner,), {hook: lambda self, *args: None})()
    module = receiver if owner is Line else Line()
    trainer = quiet(limit_val_batches=0, callbacks=receiver if owner is Callback else None)
    data: Any = {"datamodule": receiver} if owner is LightningDataModule else {"train_dataloaders": pairs(1)}
    told = rf"^Old\.{hook} is a retired hook, which is not called; use {REFUSED[hook]}$"
    with pytest.raises(HookError, match=told):
        trainer.fit(module, **data)
