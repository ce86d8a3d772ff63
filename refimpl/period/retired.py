"""Spellings of the period: those that it was retiring are taken with a warning, unknown ones are refused."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterable
from typing import Any, ParamSpec, TypeVar

from ..callback import Callback
from ..callbacks.progress_bar import ProgressBar
from ..callbacks.summary import ModelSummary
from ..errors import ConfigurationError, did_you_mean, warn
from ..receivers import callbacks_of
from ..strategies.choice import STRATEGIES

__all__ = ["RETIRED_OPTIONS", "retired_keywords", "retired_options"]

P = ParamSpec("P")
R = TypeVar("R")

# What each of them means today: an option, and what becomes of the value. None says nothing, but for
# `weights_summary`.
RENAMED: dict[str, tuple[str, Callable[[Any], Any]]] = {
    "checkpoint_callback": ("enable_checkpointing", bool),
    "progress_bar_refresh_rate": ("enable_progress_bar", bool),
    "reload_dataloaders_every_epoch": ("reload_dataloaders_every_n_epochs", int),
    "use_distributed_sampler": ("replace_sampler_ddp", bool),
    "weights_summary": ("enable_model_summary", lambda depth: depth is not None),
}
# Still what they were, but deprecated for something beside the trainer.
DEPRECATED = {
    "resume_from_checkpoint": "use fit(ckpt_path=...)",
    "truncated_bptt_steps": "use the module's attribute of this name",
}
# Without an effect on what is trained, and without a successor.
IDLE = ("flush_logs_every_n_steps", "log_gpu_memory", "prepare_data_per_node", "process_position")
# What this engine does not have, and the values that do not ask for it. Where any other asks for what changes no
# result, there is a warning.
HARMLESS: dict[str, tuple[Any, ...]] = {
    **dict.fromkeys("auto_select_gpus inference_mode move_metrics_to_cpu".split(), (False,)),
    **{"enable_autolog_hparams": (True,), "enable_pl_optimizer": (None, False)},
    **{"model_registry": (None,), "profiler": (None, False)},
}
# Where any other value changes what is trained, it is refused.
SPREADING: tuple[str | None, ...] = STRATEGIES[2:]
ABSENT: dict[str, tuple[Any, ...]] = {
    **dict.fromkeys("amp_level distributed_backend ipus tpu_cores weights_save_path".split(), (None,)),
    **dict.fromkeys("auto_lr_find auto_scale_batch_size".split(), (False, None)),
    **dict.fromkeys("barebones stochastic_weight_avg".split(), (False,)),
    **{"amp_backend": ("native",), "automatic_optimization": (True,), "plugins": (None, [])},
}
# What to do instead, where it is more than to leave the option out; and why the period's release had none.
INSTEAD = {
    "automatic_optimization": "it is of earlier releases: set the module's attribute of this name",
    "enable_pl_optimizer": "it is of earlier releases: self.optimizers() wraps them",
    "barebones": "it is of later releases: give logger=False, enable_checkpointing=False and so on",
    "enable_autolog_hparams": "it is of later releases: use save_hyperparameters(logger=False)",
    "inference_mode": "it is of later releases: evaluations run under torch.no_grad()",
    "model_registry": "it is of later releases: leave it out",
    "weights_save_path": "use default_root_dir",
}
# Options that the constructor takes although its signature does not show them.
RETIRED_OPTIONS: tuple[str, ...] = (*RENAMED, *IDLE, *HARMLESS, *ABSENT)


def retired_options(init: Callable[..., None]) -> Callable[..., None]:
    """A constructor that takes the period's retired options too, with a warning.

    Raises TypeError for an option by position, and for an unknown one, naming the nearest; ConfigurationError for
    what the engine does not have, and for an option whose two spellings contradict each other.
    """
    _, *parameters = inspect.signature(init).parameters.values()
    defaults = {parameter.name: parameter.default for parameter in parameters}

    @functools.wraps(init)
    def translated(self: Any, *args: Any, **given: Any) -> None:
        if args:
            raise TypeError(f"Trainer takes options by name, such as max_epochs=3; given by position was {args[0]!r}")
        for name in ("accelerator", "distributed_backend"):
            if given.get(name) in SPREADING:
                given.setdefault("strategy", given[name])
                _deprecated(f"Trainer({name}={given.pop(name)!r})", "use strategy")
        today = {**defaults, **{name: value for name, value in given.items() if name in defaults}}
        for name, value in given.items():
            if name in RENAMED:
                today |= _renamed(name, value, today, defaults)
            elif name in IDLE or (name in DEPRECATED and value is not None):
                _deprecated(f"Trainer({name}={value!r})", DEPRECATED.get(name, "it does nothing"))
            elif name not in defaults:
                _check_absent(name, value, defaults)
        init(self, **today)

    return translated


def _renamed(name: str, value: Any, today: dict[str, Any], defaults: dict[str, Any]) -> dict[str, Any]:
    """The options of today that a renamed one stands for, beside those that were given."""
    option, meaning = RENAMED[name]
    if value is None and name != "weights_summary":
        return {}
    if today.get(option) not in (defaults.get(option), meaning(value)):
        raise ConfigurationError(f"{name}={value!r} contradicts {option}={today[option]!r}; give {option} only")
    _deprecated(f"Trainer({name}={value!r})", f"use {option}")
    own = callbacks_of(today["callbacks"])
    new = [cb for cb in _callbacks_for(name, value) if not any(isinstance(other, type(cb)) for other in own)]
    return {option: meaning(value), "callbacks": [*own, *new]}


def _callbacks_for(name: str, value: Any) -> list[Callback]:
    """The callbacks that stand for a value that the option of today has no room for."""
    if name == "progress_bar_refresh_rate" and value not in (0, 1):
        return [ProgressBar(refresh_rate=value)]
    if name == "weights_summary" and value not in (None, "top", "full"):
        raise ConfigurationError(f"weights_summary={value!r}; None, 'top' or 'full' is accepted")
    return [ModelSummary(max_depth=-1)] if value == "full" else []


def _check_absent(name: str, value: Any, known: Iterable[str]) -> None:
    """Whether it does no harm that the engine has no such option."""
    nothing = ABSENT.get(name) or HARMLESS.get(name)
    if nothing is None:
        raise TypeError(f"Trainer has no option {name!r}" + did_you_mean(name, [*known, *RETIRED_OPTIONS]))
    if any(value is one or value == one for one in nothing):
        return
    problem = f"Trainer({name}={value!r}): this engine has nothing of the kind; {INSTEAD.get(name, 'leave it out')}"
    if name in ABSENT:
        raise ConfigurationError(problem)
    warn(f"{problem}; it goes on without")


def retired_keywords(**renamed: str) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Of a method: it takes each retired keyword, with a warning, in the place of that of today.

    Raises ConfigurationError where both are given, and TypeError for an unknown keyword, naming the nearest.
    """

    def decorate(method: Callable[P, R]) -> Callable[P, R]:
        what, known = f"Trainer.{method.__name__}", list(inspect.signature(method).parameters)

        @functools.wraps(method)
        def translated(*args: Any, **given: Any) -> R:
            for name in given.keys() - known:
                if name not in renamed:
                    raise TypeError(f"{what} has no argument {name!r}" + did_you_mean(name, [*known[1:], *renamed]))
                value, option = given.pop(name), renamed[name]
                if value is None:
                    continue
                if option in (*given, *known[: len(args)]):
                    raise ConfigurationError(f"{what}: {name} and {option} say the same; give {option}")
                _deprecated(f"{what}({name}=...)", f"use {option}")
                given[option] = value
            return method(*args, **given)

        return translated

    return decorate


def _deprecated(what: str, instead: str) -> None:
    warn(f"{what} is deprecated; {instead}", DeprecationWarning)
