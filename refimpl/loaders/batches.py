"""A batch or an output of any nesting: moved to a device, detached, changed tensor by tensor."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping
from copy import copy
from dataclasses import fields, is_dataclass
from typing import Any

import torch
from torch import Tensor

__all__ = ["detach", "fields_of", "move", "rebuilt", "transformed", "with_fields"]


def move(batch: Any, device: torch.device, dataloader_idx: int = 0) -> Any:
    """`batch` on `device`, its structure and values unchanged.

    Moves tensors, anything with `.to(device)`, and what lists, tuples, named tuples, mappings, dataclasses and
    torchtext's batches hold; returns other values as they are. The unused last argument lets this function stand for
    the hook `transfer_batch_to_device` where nobody overrides it. ("transfer_batch_to_device")
    """
    kind = type(batch)
    if kind is Tensor:
        # What lies in pinned memory comes while the CPU goes on; on its way back it would be read too early.
        return batch if batch.device == device else batch.to(device, non_blocking=device.type == "cuda")
    if callable(getattr(kind, "to", None)):  # of the class: a field may be called "to"
        moved = batch.to(device)
        return batch if moved is None else moved  # an in-place `.to` that returns nothing
    if kind is tuple or kind is list:
        return kind([move(item, device) for item in batch])
    if isinstance(batch, tuple) and hasattr(batch, "_fields"):
        return kind(*(move(item, device) for item in batch))
    if isinstance(batch, (list, tuple)):
        return kind(move(item, device) for item in batch)
    if isinstance(batch, Mapping):
        return rebuilt(batch, {key: move(value, device) for key, value in batch.items()})
    if names := fields_of(batch):
        return with_fields(batch, {name: move(getattr(batch, name), device) for name in names})
    return batch


def fields_of(value: Any) -> list[str]:
    """The attributes that hold what is in a dataclass, or in a batch of torchtext's; of anything else none."""
    if is_dataclass(value) and not isinstance(value, type):
        return [field.name for field in fields(value)]
    return list(value.fields) if type(value).__module__.startswith("torchtext.") else []


def with_fields(value: Any, items: dict[str, Any]) -> Any:
    """A copy of it with others in their place."""
    made = copy(value)
    for name, item in items.items():
        object.__setattr__(made, name, item)  # one may be frozen
    return made


def detach(output: Any) -> Any:
    """`output` with every tensor detached from its graph, so that keeping it keeps no activations."""
    return transformed(output, Tensor.detach)


def transformed(value: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """`value` with every tensor in its mappings, lists, tuples and dataclasses changed; its structure stays."""
    if isinstance(value, Tensor):
        return change(value)
    if isinstance(value, Mapping):
        return rebuilt(value, {key: transformed(item, change) for key, item in value.items()})
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*(transformed(item, change) for item in value))
    if isinstance(value, (list, tuple)):
        return type(value)(transformed(item, change) for item in value)
    if names := fields_of(value):
        return with_fields(value, {name: transformed(getattr(value, name), change) for name in names})
    return value


def rebuilt(original: Mapping[Any, Any], items: dict[Any, Any]) -> Any:
    """`items` in a mapping of the original's kind, with its attributes."""
    kind: Any = type(original)
    if kind is dict:
        return items
    if not isinstance(original, dict):
        return kind(items)
    rebuilt = kind.__new__(kind)  # not the constructor, which may want other arguments
    if isinstance(original, defaultdict):
        rebuilt.default_factory = original.default_factory
    attributes = getattr(original, "__dict__", None)
    if attributes is original:  # keys are attributes: `self.__dict__ = self`
        rebuilt.__dict__ = rebuilt
    elif attributes:
        rebuilt.__dict__.update(attributes)
    for key, value in items.items():
        rebuilt[key] = value
    return rebuilt
