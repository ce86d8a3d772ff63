"""configure_optimizers' return value, the schedulers' turns, and the loss in a step's output."""

from __future__ import annotations

import difflib
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.optim import Optimizer

if TYPE_CHECKING:
    from .trainer import Trainer

__all__ = [
    "ConfigurationError",
    "Schedule",
    "WithheldGradients",
    "attach_optimizers",
    "check_loss",
    "loss_of",
    "step_schedules",
]

_FORMS = (
    "an optimizer; a list or tuple of one; two lists (optimizers, schedulers); a dict with 'optimizer' "
    "and optionally 'lr_scheduler'; or None"
)


class ConfigurationError(ValueError):
    """What the user returned or asked for is none of the accepted forms; the message shows both."""


@dataclass(frozen=True)
class Schedule:
    """An `lr_dict`, checked: a scheduler and when it steps. ("configure_optimizers")

    It steps after every `frequency`-th optimizer update ("step") or at the end of every
    `frequency`-th epoch ("epoch"). `monitor` names the metric that a ReduceLROnPlateau is given;
    `strict` makes its absence an error rather than a warning.
    """

    scheduler: Any
    interval: str = "epoch"
    frequency: int = 1
    monitor: str | None = None
    strict: bool = True
    name: str | None = None

    @property
    def reduce_on_plateau(self) -> bool:
        """Whether `scheduler.step` takes the monitored value."""
        return isinstance(self.scheduler, torch.optim.lr_scheduler.ReduceLROnPlateau)


def attach_optimizers(trainer: Trainer, configured: Any) -> None:
    """Give the trainer the optimizer and the schedules that `configure_optimizers` returned.

    Raises ConfigurationError for anything but the documented forms, showing what was given.
    """
    optimizers, schedulers = _split(configured)
    for optimizer in optimizers:
        if not isinstance(optimizer, Optimizer):
            raise ConfigurationError(
                f"configure_optimizers returned {_shown(configured)}; accepted are {_FORMS}"
            )
    if len(optimizers) > 1:
        raise ConfigurationError(
            f"configure_optimizers returned {len(optimizers)} optimizers; this engine trains with one"
        )
    if not optimizers:
        warnings.warn(f"configure_optimizers returned {configured!r}: nothing is trained", stacklevel=2)
    trainer.optimizers, trainer.updates = optimizers, 0
    trainer.schedules = [_schedule(scheduler, optimizers) for scheduler in schedulers]


def _split(configured: Any) -> tuple[list[Any], list[Any]]:
    """Optimizers and schedulers out of any accepted form."""
    if configured is None:
        return [], []
    if isinstance(configured, Mapping):
        unknown = configured.keys() - {"optimizer", "lr_scheduler"}
        if unknown or "optimizer" not in configured:
            raise ConfigurationError(
                f"configure_optimizers returned a dict with the keys {sorted(configured)}; "
                "'optimizer' and optionally 'lr_scheduler' are accepted"
            )
        scheduler = configured.get("lr_scheduler")
        return [configured["optimizer"]], [] if scheduler is None else [scheduler]
    if isinstance(configured, (list, tuple)):
        two_lists = len(configured) == 2 and all(isinstance(part, (list, tuple)) for part in configured)
        if two_lists:
            return list(configured[0]), list(configured[1])
        if len(configured) == 1 and isinstance(configured[0], Mapping):
            return _split(configured[0])
        return list(configured), []
    return [configured], []


def _schedule(given: Any, optimizers: list[Any]) -> Schedule:
    """A scheduler or `lr_dict` as a `Schedule`."""
    if isinstance(given, Mapping):
        known = set(Schedule.__dataclass_fields__)
        for key in given.keys() - known - {"reduce_on_plateau"}:
            near = difflib.get_close_matches(str(key), known, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise ConfigurationError(f"lr_dict has the key {key!r}; accepted are {sorted(known)}{hint}")
        if "scheduler" not in given:
            raise ConfigurationError(f"lr_dict has the keys {sorted(given)}; 'scheduler' is required")
        schedule = Schedule(**{key: value for key, value in given.items() if key in known})
    else:
        schedule = Schedule(given)
    if not hasattr(schedule.scheduler, "step"):
        raise ConfigurationError(f"{_shown(schedule.scheduler)} is no scheduler: it has no step()")
    if schedule.interval not in ("step", "epoch"):
        raise ConfigurationError(f"lr_dict interval {schedule.interval!r}; 'step' or 'epoch' is accepted")
    if type(schedule.frequency) is not int or schedule.frequency < 1:
        raise ConfigurationError(f"lr_dict frequency {schedule.frequency!r}; an int from 1 is accepted")
    if schedule.reduce_on_plateau and schedule.monitor is None:
        raise ConfigurationError("ReduceLROnPlateau needs 'monitor' in its lr_dict: the metric it reacts to")
    owner = getattr(schedule.scheduler, "optimizer", None)
    if owner is not None and all(owner is not optimizer for optimizer in optimizers):
        raise ConfigurationError(
            f"{type(schedule.scheduler).__name__} schedules an optimizer that configure_optimizers did not return"
        )
    return schedule


def step_schedules(trainer: Trainer, interval: str, count: int) -> None:
    """Step every schedule of `interval` whose turn it is after `count` updates or epochs."""
    for schedule in trainer.schedules:
        if schedule.interval != interval or count % schedule.frequency:
            continue
        if not schedule.reduce_on_plateau:
            schedule.scheduler.step()
            continue
        metrics = trainer.callback_metrics
        if schedule.monitor in metrics:
            schedule.scheduler.step(metrics[schedule.monitor])
            continue
        problem = (
            f"ReduceLROnPlateau monitors {schedule.monitor!r}, which was not logged; "
            f"logged were {sorted(metrics)}"
        )
        if schedule.strict:
            raise ConfigurationError(problem)
        warnings.warn(problem, stacklevel=2)


def loss_of(output: Any) -> Tensor | None:
    """The loss in what `training_step` returned: a tensor, a mapping with "loss", or None.

    Raises ConfigurationError for anything else.
    """
    if output is None or isinstance(output, Tensor):
        return output
    if isinstance(output, Mapping):
        if "loss" in output:
            return _tensor_or_none(output["loss"])
        raise ConfigurationError(f"training_step returned a dict with the keys {sorted(output)}, but no 'loss'")
    return _tensor_or_none(output)


def _tensor_or_none(loss: Any) -> Tensor | None:
    if loss is None or isinstance(loss, Tensor):
        return loss
    raise ConfigurationError(
        f"training_step returned {_shown(loss)}; a loss tensor, a dict with 'loss', or None is accepted"
    )


def check_loss(loss: Tensor) -> None:
    """Raises ConfigurationError for a loss from which no gradient can be computed."""
    if loss.numel() != 1:
        raise ConfigurationError(
            f"training_step returned a loss of shape {tuple(loss.shape)}; a scalar is accepted, such as its mean()"
        )
    if not loss.requires_grad:
        raise ConfigurationError(
            "training_step returned a loss that depends on no trainable parameter: was it detached, or made anew "
            "as a tensor, or is everything frozen?"
        )


class WithheldGradients:
    """For a batch whose step returned None: the optimizer finds no gradients, so that it changes
    nothing, with momentum or weight decay neither; afterwards they are as they were."""

    def __init__(self, optimizer: Optimizer) -> None:
        self._kept = [
            (parameter, parameter.grad) for group in optimizer.param_groups for parameter in group["params"]
        ]
        for parameter, _ in self._kept:
            parameter.grad = None

    def restore(self) -> None:
        """Put the gradients back."""
        for parameter, gradient in self._kept:
            parameter.grad = gradient


def _shown(value: Any) -> str:
    """A short description of a wrong value: its type, and its items' types."""
    if isinstance(value, (list, tuple)):
        return f"a {type(value).__name__} of {[type(item).__name__ for item in value]}"
    return f"{type(value).__name__} {value!r}"[:120]
