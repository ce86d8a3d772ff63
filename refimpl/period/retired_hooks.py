"""Hooks that the period was retiring: some are still called, with a warning, the others refused."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from ..callback import Callback
from ..types import LightningModule, Trainer

__all__ = ["CALLED", "REFUSED", "retired_calls"]

# A callback's hooks that are still called, as `hook(trainer, pl_module)`, each with one of today's.
CALLED = {
    "on_batch_start": "on_train_batch_start",
    "on_batch_end": "on_train_batch_end",
    "on_keyboard_interrupt": "on_exception",
}
# Hooks that nothing calls any more, and what to write instead.
REFUSED = {
    "configure_sharded_model": "setup",
    "on_before_accelerator_backend_setup": "setup",
    "on_configure_sharded_model": "setup",
    "on_train_dataloader": "train_dataloader",
    "on_val_dataloader": "val_dataloader",
    "on_test_dataloader": "test_dataloader",
    "on_predict_dataloader": "predict_dataloader",
}


def retired_calls(
    hook: str, callbacks: Sequence[Callback], trainer: Trainer, module: LightningModule
) -> Iterator[Callable[..., None]]:
    """What is called with `hook` because a callback defines it under a retired name. [R65]"""
    for name in [name for name, today in CALLED.items() if today == hook]:
        for callback in callbacks:
            method = getattr(callback, name, None)
            if method is not None:
                warnings.warn(
                    f"{type(callback).__name__}.{name} is deprecated; use {hook}", DeprecationWarning, stacklevel=2
                )
                yield _without_arguments(method, hook, trainer, module)


def _without_arguments(
    method: Callable[..., Any], hook: str, trainer: Trainer, module: LightningModule
) -> Callable[..., None]:
    def call(*args: Any) -> None:
        if hook != "on_exception" or isinstance(args[0], KeyboardInterrupt):
            method(trainer, module)

    return call
