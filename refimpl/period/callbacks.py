"""Callbacks by the names that scripts of the period know them by, and one that is made of functions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..callback import Callback
from ..callbacks.progress_bar import ProgressBar
from ..errors import ConfigurationError, did_you_mean
from .retired_hooks import SPELLINGS

__all__ = ["LambdaCallback", "TQDMProgressBar"]

TQDMProgressBar = ProgressBar

_HOOKS = [name for name in vars(Callback) if name.startswith("on_") or name in ("setup", "teardown")]


class LambdaCallback(Callback):
    """Calls each function as the hook by whose name it is given: `LambdaCallback(on_train_end=lambda trainer,
    pl_module: ...)`; None is none. Raises ConfigurationError for a name that is no hook, with the nearest.
    """

    def __init__(self, **hooks: Callable[..., Any] | None) -> None:
        for name, function in hooks.items():
            if name not in _HOOKS and name not in SPELLINGS.called:
                raise ConfigurationError(f"LambdaCallback: {name} is no hook{did_you_mean(name, _HOOKS)}")
            if function is not None:
                setattr(self, name, function)
