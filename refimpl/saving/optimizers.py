"""The state of optimizers and schedulers; given back, what they could not step with later is an error now."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import torch
from torch.optim import LBFGS, Optimizer, SparseAdam

from .shape import ANY, SCALAR, Value, check, like, one_of

__all__ = ["load_optimizer", "state_of"]


def state_of(scheduler: Any) -> Any:
    """A scheduler's state; None for one of the user's own that has none to tell."""
    return scheduler.state_dict() if hasattr(scheduler, "state_dict") else None


def load_optimizer(optimizer: Optimizer, state: Mapping[str, Any]) -> None:
    """`optimizer.load_state_dict(state)`. Raises CheckpointError for settings of another kind than it was made with,
    and for what one of torch's would not keep; and whatever it raises itself."""
    made = optimizer.state_dict()
    optimizer.load_state_dict(dict(state))
    if {"state", "param_groups"} <= made.keys():
        numbers = [{"params": one_of(group["params"]), ...: ANY} for group in made["param_groups"]]
        check(state, {"param_groups": tuple(numbers), ...: ANY})
        check(optimizer.state_dict(), {"param_groups": tuple(map(like, made["param_groups"])), ...: ANY})
        check(optimizer.state_dict(), {"state": _kept(optimizer), ...: ANY})


_STEP = Value("a tensor of one element from 0", lambda value: SCALAR.accepts(value) and bool(value >= 0))


def _kept(optimizer: Optimizer) -> Any:
    """The shape of what one of torch's optimizers keeps of its parameters: of what a twin, with the same
    settings, keeps of their like after a step. Raises whatever such settings lead to."""
    kind = type(optimizer)
    if not kind.__module__.startswith("torch.optim.") or kind in (LBFGS, SparseAdam):  # which take no usual step
        return ANY
    names, shape = inspect.signature(kind).parameters.keys() - {"params"}, {}
    pairs = [(group, parameter) for group in optimizer.param_groups for parameter in group["params"]]
    for index, (group, parameter) in enumerate(pairs):
        if parameter in optimizer.state:
            other = torch.zeros_like(parameter, requires_grad=True)
            other.grad = torch.zeros_like(parameter)
            twin: Any = kind([other], **{name: group[name] for name in names & group.keys()})
            twin.step()
            shape[index] = {name: _STEP if name == "step" else like(kept) for name, kept in twin.state[other].items()}
    return shape
