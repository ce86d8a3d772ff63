"""Spellings of the period: those it was retiring, which are taken with a warning, and unknown ones, which are not."""

from __future__ import annotations

import difflib
import functools
import warnings
from collections.abc import Callable, Mapping
from typing import Any

from .optimization import ConfigurationError
from .options import callbacks_of
from .progress import ProgressBar

__all__ = ["retired_spellings"]

# What each of them means today: a name and what becomes of the value.
_RENAMED: dict[str, tuple[str, Callable[[Any], Any]]] = {
    "checkpoint_callback": ("enable_checkpointing", bool),
    "weights_summary": ("enable_model_summary", lambda value: value is not None),
    "progress_bar_refresh_rate": ("enable_progress_bar", bool),
    "reload_dataloaders_every_epoch": ("reload_dataloaders_every_n_epochs", int),
}
# Options of the period for what this engine does not have, with the values that ask for nothing.
_NOTHING: dict[str, tuple[Any, ...]] = {
    "amp_backend": ("native",),
    "amp_level": (None,),
    "auto_lr_find": (False, None),
    "auto_scale_batch_size": (False, None),
    "auto_select_gpus": (False,),
    "ipus": (None,),
    "log_gpu_memory": (None,),
    "move_metrics_to_cpu": (False,),
    "num_nodes": (1,),
    "plugins": (None, []),
    "profiler": (None, False),
    "replace_sampler_ddp": (True, False),  # one process has nothing to distribute
    "stochastic_weight_avg": (False,),
    "strategy": (None, "auto"),
    "sync_batchnorm": (False, True),
    "tpu_cores": (None,),
    "weights_save_path": (None,),
}
# Retired without a successor: accepted, with a warning, and without an effect.
_IDLE = {"flush_logs_every_n_steps", "prepare_data_per_node", "process_position"}


def retired_spellings(init: Callable[..., None]) -> Callable[..., None]:
    """A constructor that takes the period's retired spellings too, with a warning, and refuses an unknown
    option with a TypeError that names the nearest one."""

    @functools.wraps(init)
    def translated(self: Any, **options: Any) -> None:
        known: Mapping[str, Any] = init.__kwdefaults__ or {}
        modern = {name: value for name, value in options.items() if name in known}
        for name, value in options.items():
            if name not in known:
                modern.update(_modern(name, value, options, [*known, *_RENAMED, *_NOTHING]))
        init(self, **modern)

    return translated


def _modern(name: str, value: Any, options: Mapping[str, Any], known: list[str]) -> dict[str, Any]:
    """The option, or options, that an unknown one stands for."""
    if name in _RENAMED:
        today, meaning = _RENAMED[name]
        if today in options:
            raise ConfigurationError(f"{name}={value!r} and {today}={options[today]!r} say the same; give {today}")
        found = {today: meaning(value)}
        if name == "progress_bar_refresh_rate" and value and value > 1:
            given = callbacks_of(options.get("callbacks"))
            found["callbacks"] = [*given, ProgressBar(refresh_rate=value)]
        warnings.warn(f"Trainer({name}={value!r}) is deprecated; use {today}", DeprecationWarning, stacklevel=4)
        return found
    if name in _IDLE:
        warnings.warn(f"Trainer({name}={value!r}) is deprecated and does nothing", DeprecationWarning, stacklevel=4)
        return {}
    if name in _NOTHING:
        if not any(value is nothing or value == nothing for nothing in _NOTHING[name]):
            raise ConfigurationError(f"{name}={value!r}: this engine has nothing of the kind; leave it out")
        return {}
    near = difflib.get_close_matches(name, known, n=1)
    raise TypeError(f"Trainer has no option {name!r}" + (f"; did you mean {near[0]!r}?" if near else ""))
