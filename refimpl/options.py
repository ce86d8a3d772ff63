"""The trainer's options: each value checked where it comes in, and the spellings that the period retired."""

from __future__ import annotations

import difflib
import functools
import os
import warnings
from collections.abc import Callable, Iterable, Mapping
from datetime import timedelta
from numbers import Integral, Real
from typing import Any

import torch

from .callbacks import Callback
from .optimization import ConfigurationError
from .progress import ProgressBar

__all__ = [
    "at_least_0",
    "callbacks_of",
    "count",
    "device_of",
    "duration",
    "folder",
    "interval",
    "limit",
    "norm_order",
    "one_of",
    "retired_spellings",
    "windows",
]


def plain(value: Any) -> Any:
    """A number of NumPy or another library as Python's own; bool, which counts nothing, stays as it is."""
    if isinstance(value, bool):
        return value
    return int(value) if isinstance(value, Integral) else float(value) if isinstance(value, Real) else value


def count(name: str, value: Any, least: int) -> int:
    number = plain(value)
    if type(number) is not int or number < least:
        raise ConfigurationError(f"{name}={value!r}; an int from {least} is accepted")
    return number


def limit(name: str, value: Any) -> int | float:
    number = plain(value)
    if (type(number) is int and number >= 0) or (type(number) is float and 0.0 <= number <= 1.0):
        return number
    raise ConfigurationError(f"{name}={value!r}; an int from 0 or a float from 0.0 to 1.0 is accepted")


def folder(value: Any) -> str:
    try:
        return os.fspath(os.getcwd() if value is None else value)
    except TypeError:
        raise ConfigurationError(f"default_root_dir={value!r}; a path is accepted") from None


def interval(value: Any) -> int | float:
    number = plain(value)
    if (type(number) is int and number >= 1) or (type(number) is float and 0.0 < number <= 1.0):
        return number
    raise ConfigurationError(
        f"val_check_interval={value!r}; an int from 1 (batches) or a float in (0, 1] (of an epoch) is accepted"
    )


def one_of(name: str, value: Any, accepted: tuple[Any, ...]) -> Any:
    if not any(type(value) is type(known) and value == known for known in accepted):
        shown = ", ".join(map(repr, accepted[:-1]))
        raise ConfigurationError(f"{name}={value!r}; {shown} or {accepted[-1]!r} is accepted")
    return value


def windows(value: Any) -> dict[int, int]:
    """Batches per window by the epoch from which on they hold; 1 before the first."""
    if not isinstance(value, dict):
        return {0: count("accumulate_grad_batches", value, 1)}
    windows = {
        count("accumulate_grad_batches: epoch", epoch, 0): count("accumulate_grad_batches", batches, 1)
        for epoch, batches in value.items()
    }
    return {0: 1, **windows}


def at_least_0(name: str, value: Any) -> float:
    number = plain(0.0 if value is None else value)
    if type(number) in (int, float) and number >= 0:
        return float(number)
    raise ConfigurationError(f"{name}={value!r}; None or a number from 0 is accepted")


def norm_order(value: Any) -> float | None:
    """The order of the norm; None for no norm."""
    order = float("inf") if value == "inf" else plain(value)
    if type(order) in (int, float) and (order > 0 or order == -1):
        return None if order == -1 else float(order)
    raise ConfigurationError(f"track_grad_norm={value!r}; a number above 0, 'inf', or -1 for none is accepted")


def duration(value: str | timedelta | dict[str, float] | None) -> float | None:
    """Seconds."""
    if value is None:
        return None
    try:
        if isinstance(value, str):
            days, hours, minutes, seconds = map(int, value.split(":"))
            value = timedelta(days=days, hours=hours, minutes=minutes, seconds=seconds)
        elif isinstance(value, dict):
            value = timedelta(**value)
        return value.total_seconds()
    except (TypeError, ValueError, AttributeError, OverflowError):
        raise ConfigurationError(
            f"max_time={value!r}; 'DD:HH:MM:SS', a timedelta or a dict such as {{'minutes': 5}} is accepted"
        ) from None


def callbacks_of(given: Callback | Iterable[Callback] | None) -> list[Callback]:
    several = isinstance(given, Iterable) and not isinstance(given, Callback)
    callbacks: list[Any] = [] if given is None else list(given) if several else [given]  # type: ignore[arg-type]
    for callback in callbacks:
        if not isinstance(callback, Callback):
            hint = " (not the class)" if isinstance(callback, type) else ""
            raise ConfigurationError(f"callbacks holds {callback!r}; an instance of Callback{hint} is accepted")
    return callbacks


def device_of(accelerator: Any, devices: Any, gpus: Any, num_processes: Any) -> torch.device:
    """The one device that this engine runs on, by any of the ways to name it.

    Raises ConfigurationError for more than one, and for one that is not there.
    """
    asked = {"accelerator": accelerator, "devices": devices, "gpus": gpus, "num_processes": num_processes}
    shown = ", ".join(f"{name}={value!r}" for name, value in asked.items() if value is not None)
    named_gpu = gpus not in (None, 0, [])
    if accelerator not in (None, "auto", "cpu", "gpu", "cuda") or (accelerator == "cpu" and named_gpu):
        raise ConfigurationError(f"{shown}: accelerator 'cpu', 'gpu' or 'auto' is accepted, and gpus not on the CPU")
    which = gpus if named_gpu else devices
    several = which not in (None, 1, "auto") and not (isinstance(which, (list, tuple)) and len(which) == 1)
    if several or num_processes not in (None, 1):
        raise ConfigurationError(f"{shown}: this engine runs in one process on one device; 1 or [index] is accepted")
    if not named_gpu and (accelerator in (None, "cpu") or (accelerator == "auto" and not torch.cuda.is_available())):
        return torch.device("cpu")
    index = which[0] if isinstance(which, (list, tuple)) else 0
    if type(index) is not int or not 0 <= index < torch.cuda.device_count():
        raise ConfigurationError(f"{shown}: torch finds {torch.cuda.device_count()} GPUs here")
    return torch.device("cuda", index)


# ---- spellings that the period was retiring -----------------------------------------------------------------

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
