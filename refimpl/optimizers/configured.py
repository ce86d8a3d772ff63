"""What configure_optimizers returned: optimizers in any accepted form, whose turn it is, how rates are scheduled."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from ..errors import ConfigurationError, did_you_mean, not_logged, shown, warn
from ..saving.optimizers import state_of

__all__ = ["Schedule", "Turns", "configured_optimizers", "foreign_parameters"]

_FORMS = (
    "an optimizer; a list or tuple of optimizers; two lists (optimizers, schedulers); a dict with 'optimizer' "
    "and optionally 'lr_scheduler'; a list or tuple of such dicts, each optionally with 'frequency'; or None"
)
_KEYS = ("optimizer", "lr_scheduler", "frequency")
# What an lr_dict accepts under its keys but "scheduler", and in words.
_ACCEPTED: Mapping[str, tuple[Callable[[Any], bool], str]] = {
    "interval": (lambda value: value in ("step", "epoch"), "'step' or 'epoch'"),
    "frequency": (lambda value: type(value) is int and value >= 1, "an int from 1"),
    "monitor": (lambda value: value is None or isinstance(value, str), "the name of a logged value or None"),
    "strict": (lambda value: isinstance(value, bool), "True or False"),
    "name": (lambda value: value is None or isinstance(value, str), "a string or None"),
    "reduce_on_plateau": (lambda value: isinstance(value, bool), "True or False"),
}


@dataclass
class Schedule:
    """An `lr_dict`, checked: a scheduler and when it steps. ("configure_optimizers")

    It steps after every `frequency`-th update of its optimizer ("step") or at the end of every
    `frequency`-th epoch ("epoch"). With `reduce_on_plateau`, as for every ReduceLROnPlateau, its `step` is given the
    logged value that `monitor` names; `strict` makes the absence of that an error rather than a warning. It steps
    when the batch is over, and the validation that follows it, so that whatever they log can be monitored.
    """

    scheduler: Any
    interval: str = "epoch"
    frequency: int = 1
    monitor: str | None = None
    strict: bool = True
    name: str | None = None
    reduce_on_plateau: bool = False
    optimizer_idx: int = field(default=0, kw_only=True)
    passed: int = field(default=0, init=False)  # updates or epochs so far
    is_due: bool = field(default=False, init=False)  # at the end of this batch

    def __post_init__(self) -> None:
        if isinstance(self.scheduler, torch.optim.lr_scheduler.ReduceLROnPlateau):
            self.reduce_on_plateau = True

    def comes_due(self) -> bool:
        """One more update of its optimizer, or epoch, has passed: does it step now? One per step that reacts to a value
        steps at the end of the batch."""
        self.passed += 1
        now = self.passed % self.frequency == 0
        self.is_due = self.is_due or (now and self.reduce_on_plateau and self.interval == "step")
        return now and not self.is_due

    def step(self, metrics: Mapping[Any, Any]) -> None:
        """`scheduler.step`, with the monitored one of the logged values if it takes one. Raises
        ConfigurationError, or warns, where that was not logged."""
        self.is_due = False
        if not self.reduce_on_plateau:
            self.scheduler.step()
        elif self.monitor in metrics:
            self.scheduler.step(metrics[self.monitor])
        elif self.strict:
            raise ConfigurationError(not_logged(type(self.scheduler).__name__, self.monitor, metrics))
        else:
            warn(not_logged(type(self.scheduler).__name__, self.monitor, metrics))

    def state_dict(self) -> dict[str, Any]:
        """Where it is; under "state" the scheduler's own, None for one of the user's that has none to tell."""
        return {"passed": self.passed, "is_due": self.is_due, "state": state_of(self.scheduler)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from there."""
        self.passed, self.is_due = state["passed"], state["is_due"]
        if state["state"] is not None:
            self.scheduler.load_state_dict(state["state"])


def configured_optimizers(
    configured: Any, automatic: bool = True
) -> tuple[list[Optimizer], Turns | None, list[Schedule]]:
    """The optimizers, their turns and the schedules that `configure_optimizers` returned; unless `automatic`, the
    user steps the schedulers, and nobody has to know when.

    Raises ConfigurationError for anything but the documented forms, showing what was given.
    """
    check_lists(configured)
    optimizers, schedulers, frequencies = _split(configured)
    for index, optimizer in enumerate(optimizers):
        if not isinstance(optimizer, Optimizer):
            raise ConfigurationError(f"configure_optimizers returned {shown(configured)}; accepted are {_FORMS}")
        if any(optimizer is other for other in optimizers[:index]):
            raise ConfigurationError(f"configure_optimizers returned one {type(optimizer).__name__} twice")
    if not optimizers:
        warn(f"configure_optimizers returned {configured!r}: nothing is trained")
    schedules = [_schedule(scheduler, index, optimizers, automatic) for scheduler, index in schedulers]
    return optimizers, _turns(frequencies), schedules


def check_lists(configured: Any) -> None:
    """Raises ConfigurationError for two lists with an optimizer in the second, where it would step as a scheduler."""
    match configured:
        case [list() | tuple() as first, list() | tuple() as second] if any(isinstance(x, Optimizer) for x in second):
            swapped = "" if any(isinstance(x, Optimizer) for x in first) else ": the two are swapped"
            raise ConfigurationError(
                f"configure_optimizers returned {shown(first)} and {shown(second)}, with an optimizer in the list of "
                f"schedulers{swapped}; accepted are {_FORMS}"
            )


def foreign_parameters(module: nn.Module, optimizers: Iterable[Optimizer]) -> Iterator[str]:
    """What is to be said of each optimizer that has other parameters than the module's. [R89]"""
    own = set(module.parameters())
    for optimizer in optimizers:
        given = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        if foreign := len(set(given) - own):
            yield (
                f"{foreign} of the {len(given)} parameters of {type(optimizer).__name__} are not among the module's, "
                "which does not move or save them: was a layer replaced, or not assigned to it?"
            )


def _split(configured: Any) -> tuple[list[Any], list[tuple[Any, int | None]], list[Any]]:
    """Out of any accepted form: optimizers; schedulers, each with the index of the optimizer it was given
    beside, None in a list of its own; the optimizers' frequencies, None where there is none."""
    if configured is None:
        return [], [], []
    if isinstance(configured, Mapping):
        configured = [configured]
    if not isinstance(configured, (list, tuple)):
        return [configured], [], [None]
    if len(configured) == 2 and all(isinstance(part, (list, tuple)) for part in configured):
        return list(configured[0]), [(scheduler, None) for scheduler in configured[1]], [None] * len(configured[0])
    if not configured or not all(isinstance(item, Mapping) for item in configured):
        return list(configured), [], [None] * len(configured)
    for item in configured:
        _check_keys("configure_optimizers returned a dict with", item, _KEYS, "optimizer")
    schedulers = [(item.get("lr_scheduler"), index) for index, item in enumerate(configured)]
    return (
        [item["optimizer"] for item in configured],
        [(scheduler, index) for scheduler, index in schedulers if scheduler is not None],
        [item.get("frequency") for item in configured],
    )


def _check_keys(what: str, given: Mapping[Any, Any], known: Sequence[str], required: str) -> None:
    for key in given:
        if key not in known:
            raise ConfigurationError(f"{what} the key {key!r}; accepted are {sorted(known)}{did_you_mean(key, known)}")
    if required not in given:
        raise ConfigurationError(f"{what} the keys {sorted(given)}; {required!r} is required")


class Turns:
    """Whose batch it is where optimizers have a `frequency`: so many batches each, round and round, from
    one epoch into the next. ("configure_optimizers"; clause `optimization.frequencies`)"""

    def __init__(self, frequencies: Sequence[int]) -> None:
        self._ends, self._batches = list(accumulate(frequencies)), 0
        self._used: set[int] = set()
        self.owner: int | None = None  # the optimizer whose window is open

    def next(self) -> int:
        """The index of the optimizer that trains on the next batch, and owns the window that it opens."""
        self.owner = bisect_right(self._ends, self._batches % self._ends[-1])
        self._batches += 1
        self._used.add(self.owner)
        return self.owner

    def end(self) -> None:
        """The owner's window is closed, or dropped."""
        self.owner = None

    def state_dict(self) -> dict[str, Any]:
        """Where in the cycle the run is."""
        return {"batches": self._batches, "used": sorted(self._used), "owner": self.owner}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from there."""
        self._batches, self._used, self.owner = state["batches"], set(state["used"]), state["owner"]

    def of_epoch(self) -> set[int]:
        """The optimizers that had a turn since this was last asked."""
        used, self._used = self._used, set()
        return used


def _turns(frequencies: list[Any]) -> Turns | None:
    """None where no optimizer has a frequency, or there is one only: then each trains on every batch."""
    if all(frequency is None for frequency in frequencies):
        return None
    for frequency in frequencies:
        if frequency is not None and (type(frequency) is not int or frequency < 1):
            raise ConfigurationError(f"configure_optimizers: frequency {frequency!r}; an int from 1 is accepted")
    return Turns([1 if frequency is None else frequency for frequency in frequencies]) if len(frequencies) > 1 else None


def _schedule(given: Any, beside: int | None, optimizers: list[Any], automatic: bool) -> Schedule:
    """A scheduler or `lr_dict`, checked."""
    lr_dict = given if isinstance(given, Mapping) else {"scheduler": given}
    _check_keys("lr_dict has", lr_dict, ["scheduler", *_ACCEPTED], "scheduler")
    for key, (is_accepted, words) in _ACCEPTED.items():
        if key in lr_dict and not is_accepted(lr_dict[key]):
            raise ConfigurationError(f"lr_dict {key} {lr_dict[key]!r}; {words} is accepted")
    schedule = Schedule(**lr_dict)
    kind = type(schedule.scheduler).__name__
    if not hasattr(schedule.scheduler, "step"):
        raise ConfigurationError(f"{shown(schedule.scheduler)} is no scheduler: it has no step()")
    if schedule.reduce_on_plateau and schedule.monitor is None and automatic:
        raise ConfigurationError(f"{kind} needs 'monitor' in its lr_dict: the metric it reacts to")
    schedule.optimizer_idx = _owner(schedule.scheduler, beside, optimizers)
    return schedule


def _owner(scheduler: Any, beside: int | None, optimizers: list[Any]) -> int:
    """The index of the optimizer that the scheduler schedules: by its attribute `optimizer`, which one of the
    user's own may lack, or else the one it was given beside."""
    kind, own = type(scheduler).__name__, getattr(scheduler, "optimizer", None)
    owners = [index for index, optimizer in enumerate(optimizers) if optimizer is own]
    if owners:
        return owners[0]
    if own is not None:
        raise ConfigurationError(f"{kind} schedules an optimizer that configure_optimizers did not return")
    if beside is None and len(optimizers) > 1:
        raise ConfigurationError(
            f"{kind} does not say which of {len(optimizers)} optimizers it schedules; return dicts, "
            "{'optimizer': ..., 'lr_scheduler': ...}, or give it an attribute 'optimizer'"
        )
    return beside or 0
