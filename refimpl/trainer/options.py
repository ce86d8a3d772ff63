"""The trainer's options: each value checked where it comes in, and kept as what the engine works with."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from datetime import timedelta
from numbers import Integral, Real
from typing import Any

from ..errors import ConfigurationError, count, one_of
from ..loaders.combined import MODES
from ..optimizers.precision import PRECISIONS

__all__ = ["Options"]


# ---- what is accepted, and what becomes of it -----------------------------------------------------------


def plain(value: Any) -> Any:
    """A number of NumPy or another library as Python's own; bool, which counts nothing, stays as it is."""
    if isinstance(value, bool):
        return value
    return int(value) if isinstance(value, Integral) else float(value) if isinstance(value, Real) else value


def _accepting(
    accepted: str, fits: Callable[[Any], bool], kept: Callable[[Any], Any] = lambda number: number
) -> Callable[[str, Any], Any]:  # fmt: skip
    """A check: in words and as a test what is accepted, with numbers as Python's own, and what is kept of it."""

    def check(name: str, value: Any) -> Any:
        number = plain(value)
        if not fits(number):
            raise ConfigurationError(f"{name}={value!r}; {accepted} is accepted")
        return kept(number)

    return check


limit = _accepting("an int from 0 or a float from 0.0 to 1.0", lambda number: (
    number >= 0 if type(number) is int else type(number) is float and 0.0 <= number <= 1.0))  # fmt: skip
interval = _accepting("an int from 1 (batches) or a float in (0, 1] (of an epoch)", lambda number: (
    number >= 1 if type(number) is int else type(number) is float and 0.0 < number <= 1.0))  # fmt: skip
at_least_0 = _accepting("None or a number from 0", lambda number: (
    number is None or (type(number) in (int, float) and number >= 0)), lambda number: float(number or 0))  # fmt: skip
seconds = _accepting("a number above 0 (seconds)", lambda number: type(number) in (int, float) and number > 0)
flag = _accepting("True or False", lambda value: value in (True, False), bool)
# The order of the norm; None for no norm.
norm_order = _accepting("a number above 0, 'inf', or -1 for none", lambda number: (
    number == "inf" or (type(number) in (int, float) and (number > 0 or number == -1))
), lambda number: None if number == -1 else float(number))  # fmt: skip


def number_of_bits(name: str, value: Any) -> int | str:
    """A number of bits, also where it is text, or "bf16"."""
    return one_of(name, int(value) if value in ("16", "32", "64") else plain(value), PRECISIONS)  # type: ignore[no-any-return]


def windows(name: str, value: Any) -> dict[int, int]:
    """Batches per window by the epoch from which on they hold; 1 before the first."""
    if not isinstance(value, dict):
        return {0: count(name, value, 1)}
    windows = {count(f"{name}: epoch", epoch, 0): count(name, batches, 1) for epoch, batches in value.items()}
    return {0: 1, **windows}


def duration(name: str, value: Any) -> float | None:
    """Seconds."""
    if value is None:
        return None
    try:
        if isinstance(value, str):
            value = dict(zip(("days", "hours", "minutes", "seconds"), map(int, value.split(":")), strict=True))
        if isinstance(value, dict):
            value = timedelta(**value)
        return value.total_seconds()  # type: ignore[no-any-return]
    except (TypeError, ValueError, AttributeError, OverflowError):
        accepted = "'DD:HH:MM:SS', a timedelta or a dict such as {'minutes': 5}"
        raise ConfigurationError(f"{name}={value!r}; {accepted} is accepted") from None


def folder(name: str, value: Any) -> str:
    try:
        return os.fspath(os.getcwd() if value is None else value)
    except TypeError:
        raise ConfigurationError(f"{name}={value!r}; a path is accepted") from None


# ---- the options --------------------------------------------------------------------------------------------


class _Checked:
    """An option: what is set passes its check. Read it is as any attribute, since there is no `__get__`."""

    def __init__(self, check: Callable[..., Any], **settings: Any) -> None:
        self.check, self.settings = check, settings

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    def __set__(self, options: Any, value: Any) -> None:
        vars(options)[self.name] = self.check(self.name, value, **self.settings)


def _checked(check: Callable[..., Any], **settings: Any) -> Any:
    return _Checked(check, **settings)


class Options:
    """The options of a trainer, each checked as it is set, here and by users later on: `trainer.max_epochs += 1`.

    Made of the arguments of the trainer's constructor. Raises ConfigurationError for a value that is not accepted,
    naming it and what is.
    """

    fast_dev_run: int = _checked(count)  # batches; 0 for a whole run
    max_epochs: int = _checked(count, least=-1)  # -1 for no limit, here and in max_steps
    min_epochs: int = _checked(count)
    max_steps: int = _checked(count, least=-1)
    min_steps: int = _checked(count)
    max_time: float | None = _checked(duration)  # seconds
    limit_train_batches: int | float = _checked(limit)
    limit_val_batches: int | float = _checked(limit)
    limit_test_batches: int | float = _checked(limit)
    limit_predict_batches: int | float = _checked(limit)
    overfit_batches: int | float = _checked(limit)  # 0 for none
    multiple_trainloader_mode: str = _checked(one_of, accepted=MODES)
    reload_dataloaders_every_n_epochs: int = _checked(count)  # 0 for never
    val_check_interval: int | float = _checked(interval)
    check_val_every_n_epoch: int = _checked(count, least=1)
    num_sanity_val_steps: int = _checked(count, least=-1)
    accumulate_grad_batches: Any = _checked(windows)  # batches per window by the epoch from which on they hold
    gradient_clip_val: float = _checked(at_least_0)  # 0 for no clipping
    gradient_clip_algorithm: str = _checked(one_of, accepted=("norm", "value"))
    track_grad_norm: float | None = _checked(norm_order)
    enable_progress_bar: bool = _checked(flag)
    enable_model_summary: bool = _checked(flag)
    detect_anomaly: bool = _checked(flag)
    terminate_on_nan: bool = _checked(flag)
    log_every_n_steps: int = _checked(count, least=1)
    default_root_dir: str = _checked(folder)
    precision: int | str = _checked(number_of_bits)
    sync_batchnorm: bool = _checked(flag)
    replace_sampler_ddp: bool = _checked(flag)
    process_timeout: float = _checked(seconds)
    deterministic: bool = _checked(flag)
    benchmark: bool = _checked(flag)

    def __init__(self, given: Mapping[str, Any]) -> None:
        meant = _as_meant(given)
        for name in Options.__annotations__:
            setattr(self, name, meant[name])


def _as_meant(given: Mapping[str, Any]) -> dict[str, Any]:
    """The options with what one of them says about others: `fast_dev_run` cuts everything short, and
    training without any limit ends after 1000 epochs."""
    fast = given["fast_dev_run"]
    batches = count("fast_dev_run", int(fast) if isinstance(fast, bool) else fast)
    train = limit("overfit_batches", given["overfit_batches"]) or given["limit_train_batches"]
    meant = {**given, "fast_dev_run": batches, "limit_train_batches": train}
    if batches:
        meant |= {f"limit_{stage}_batches": batches for stage in ("train", "val", "test", "predict")}
        meant |= {"max_epochs": 1, "max_steps": batches, "num_sanity_val_steps": 0}
        meant |= {"val_check_interval": 1.0, "check_val_every_n_epoch": 1}
    endless = meant["max_steps"] in (None, -1) and meant["max_time"] is None
    unset = {"min_epochs": 0, "min_steps": 0, "max_steps": -1, "max_epochs": 1000 if endless else -1}
    return {**meant, **{name: value for name, value in unset.items() if meant[name] is None}}
