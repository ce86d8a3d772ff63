"""The optimization of the scenario's module: optimizers and schedulers in every form, and hooks had its own way.

Runs in the trainer's own world: torch and the standard library, Python 3.8 and up.
"""

from __future__ import annotations

import functools
import inspect
from typing import Any, Dict, List, Mapping

import torch

from ..experiment import Scenario
from ..optimizers import OVERRIDES

__all__ = ["configured", "optimizer_with_scheduler", "overrides"]

RATE = 0.0625
WARM_UP = 4


def configured(module: Any, scenario: Scenario) -> Any:
    """What the scenario's `configure_optimizers` returns."""
    model = scenario.model
    if model.optimizer == "none":
        return None
    rows = [optimizer_with_scheduler(layer.parameters(), scenario, index) for index, layer in enumerate(module.layers)]
    for row, frequency in zip(rows, model.frequencies):
        row.update({"frequency": frequency} if frequency else {})
    optimizers = [row["optimizer"] for row in rows]
    schedulers = [row["lr_scheduler"] for row in rows if "lr_scheduler" in row]
    if model.schedulers > len(rows):
        schedulers.append(_scheduler(optimizers[0], scenario, 1))
    return {
        "optimizer": optimizers[0],
        "list": optimizers,
        "tuple": tuple(optimizers),
        "two-lists": (optimizers, schedulers),
        "two-lists-crossed": (optimizers, schedulers[::-1]),
        "dict": rows[0],
        "dicts": rows,
        "tuple-of-dicts": tuple(rows),
    }[model.returns_form]


def optimizer_with_scheduler(parameters: Any, scenario: Scenario, index: int = 0) -> Dict[str, Any]:
    """An optimizer, with its scheduler if the scenario has one."""
    kinds: Dict[str, Any] = {
        "sgd": torch.optim.SGD,
        "momentum": functools.partial(torch.optim.SGD, momentum=0.5, weight_decay=0.125),
        "adam": torch.optim.Adam,
        "lbfgs": functools.partial(torch.optim.LBFGS, max_iter=2, history_size=1),
    }
    parameters = list(parameters)
    groups = [{"params": parameters[:1]}, {"params": parameters[1:]}] if scenario.model.groups else parameters
    optimizer = kinds[scenario.model.optimizer](groups, lr=RATE)
    if scenario.model.scheduler == "none":
        return {"optimizer": optimizer}
    return {"optimizer": optimizer, "lr_scheduler": _scheduler(optimizer, scenario, index)}


def _scheduler(optimizer: Any, scenario: Scenario, index: int) -> Any:
    """A scheduler that halves the rate, as it is or in an lr_dict. It computes the rate from the first one and how
    often it has stepped, so that it shows when a checkpoint has not brought its state back; but for one of two that
    an optimizer has, of which each halves what there is."""
    model, kinds = scenario.model, torch.optim.lr_scheduler
    if not model.lr_dict:
        return kinds.LambdaLR(optimizer, _halved)
    lr_dict: Dict[str, Any] = {"interval": model.interval(index)}
    if model.frequency_of(index) > 1:
        lr_dict["frequency"] = model.frequency_of(index)
    if model.scheduler_name:
        lr_dict["name"] = model.scheduler_name + (str(index) if model.schedulers > 1 else "")
    if model.monitor_of(index) or model.unheeded:
        lr_dict["monitor"] = model.monitor_of(index) or model.unheeded
    if not model.strict:  # which is the default
        lr_dict["strict"] = False
    if model.own_plateau and model.monitor_of(index):
        return {"scheduler": OwnPlateau(optimizer), "reduce_on_plateau": True, **lr_dict}
    if model.monitor_of(index):
        return {"scheduler": kinds.ReduceLROnPlateau(optimizer, factor=0.5, patience=0), **lr_dict}
    if model.schedulers > model.optimizers:
        return {"scheduler": kinds.MultiplicativeLR(optimizer, _half), **lr_dict}
    return {"scheduler": kinds.LambdaLR(optimizer, _halved), **lr_dict}


class OwnPlateau(getattr(torch.optim.lr_scheduler, "LRScheduler", torch.optim.lr_scheduler._LRScheduler)):  # type: ignore[misc]
    """A scheduler of the user's own class that reacts to a value, as torch's ReduceLROnPlateau does."""

    def __init__(self, optimizer: Any) -> None:
        self.optimizer = optimizer
        self.inner = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, factor=0.5, patience=0)

    def step(self, value: Any = None) -> None:
        if value is not None:
            self.inner.step(value)

    def state_dict(self) -> Dict[str, Any]:
        return self.inner.state_dict()

    def load_state_dict(self, state_dict: Dict[str, Any]) -> None:
        self.inner.load_state_dict(state_dict)


def _halved(steps: int) -> float:
    return 0.5**steps  # exact


def _half(steps: int) -> float:
    return 0.5


# ---- overrides ------------------------------------------------------------------------------------------


def overrides(base: type, body: Mapping[str, Any], scenario: Scenario) -> Dict[str, Any]:
    """The hooks that the scenario's module has its own way, around the one in its `body` or the base's; those that the
    trainer does not know are left out."""
    ways = {
        "alternate": _alternating,
        "warm-up": _warming_up,
        "zero-grads": _keeping_zeros,
        "twice-backward": _twice,
        "twice-end": _twice_ended,
        "own-split": _first_alone,
    }
    chosen = [(OVERRIDES[name], ways[name]) for name in scenario.model.overrides]
    known = [(hook, way) for hook, way in chosen if hasattr(base, hook)]
    return {hook: _in_place_of(body.get(hook, getattr(base, hook)), way) for hook, way in known}


def _in_place_of(original: Any, way: Any) -> Any:
    """A method that calls `way(module, given, default)`: the arguments by their names, and what calls the original."""
    signature = inspect.signature(original)

    @functools.wraps(original)  # keeps the signature
    def method(self: Any, *args: Any, **kwargs: Any) -> Any:
        given = signature.bind(self, *args, **kwargs).arguments
        return way(self, given, lambda: original(self, *args, **kwargs))

    return method


def _alternating(module: Any, given: Dict[str, Any], default: Any) -> None:
    """The documentation's example: the second optimizer is used for every second batch."""
    if given["optimizer_idx"] == 0 or (given["batch_idx"] + 1) % 2 == 0:
        default()


def _warming_up(module: Any, given: Dict[str, Any], default: Any) -> None:
    """The documentation's example: the rate rises over the first steps."""
    if module.trainer.global_step < WARM_UP:
        scale = min(1.0, float(module.trainer.global_step + 1) / WARM_UP)
        for group in given["optimizer"].param_groups:
            group["lr"] = scale * RATE
    default()


def _keeping_zeros(module: Any, given: Dict[str, Any], default: Any) -> None:
    """Gradients become zeros, which is not torch's default."""
    given["optimizer"].zero_grad(set_to_none=False)


def _twice(module: Any, given: Dict[str, Any], default: Any) -> None:
    """Twice the gradient."""
    (2 * given["loss"]).backward()


def _twice_ended(module: Any, given: Dict[str, Any], default: Any) -> Any:
    """Twice the loss, in the form that it has; of no loss nothing."""
    ended = default()
    if isinstance(ended, dict):
        return {**ended, "loss": 2 * ended["loss"]}
    return None if ended is None else 2 * ended


def _first_alone(module: Any, given: Dict[str, Any], default: Any) -> List[Any]:
    """Whatever the size asked for: the first step of time, and the rest if there is one."""
    batch = given["batch"]
    time = (batch["x"] if isinstance(batch, dict) else batch[0]).shape[1]
    windows = [slice(0, 1), *([slice(1, time)] if time > 1 else [])]
    if isinstance(batch, dict):
        return [{name: part[:, window] for name, part in batch.items()} for window in windows]
    return [tuple(part[:, window] for part in batch) for window in windows]
