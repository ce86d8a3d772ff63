"""What scripts of the period import from `utilities`: what one process only says or does, and work on collections."""

from __future__ import annotations

import functools
import inspect
import logging
import os
from collections.abc import Callable, Mapping
from typing import Any, ParamSpec, TypeVar
from warnings import warn  # not the module: `utilities.warnings` is one of the period's

import torch

from ..errors import ConfigurationError, is_first_process
from ..loaders.batches import fields_of, move, rebuilt, with_fields

__all__ = [
    "LightningDeprecationWarning", "MisconfigurationException", "PossibleUserWarning", "apply_to_collection",
    "auto_move_data", "is_param_in_hook_signature", "move_data_to_device", "rank_zero_debug", "rank_zero_deprecation",
    "rank_zero_info", "rank_zero_only", "rank_zero_warn",
]  # fmt: skip

P = ParamSpec("P")
R = TypeVar("R")

MisconfigurationException = ConfigurationError
LightningDeprecationWarning, PossibleUserWarning = DeprecationWarning, UserWarning  # what warnings are filtered by


# ---- one process only ----------------------------------------------------------------------------------------


def rank_zero_only(function: Callable[P, R]) -> Callable[P, R | None]:
    """`function`, called in the process of rank 0 only (of the variable RANK, which torchrun sets); in the others
    it returns None."""

    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R | None:
        return function(*args, **kwargs) if is_first_process() else None

    return call


rank_zero_only.rank = int(os.environ.get("RANK", 0))  # type: ignore[attr-defined]  # which scripts compare with 0


@rank_zero_only
def rank_zero_info(message: Any, *args: Any) -> None:
    """Print the message, its `%s` and the like filled with `args`."""
    print(message % args if args else message)


@rank_zero_only
def rank_zero_debug(message: Any, *args: Any) -> None:
    """Python's `logging.debug`."""
    logging.getLogger(__name__).debug(message, *args)


@rank_zero_only
def rank_zero_warn(message: Any, category: type[Warning] = UserWarning, stacklevel: int = 2) -> None:
    """Python's `warnings.warn`."""
    warn(message, category, stacklevel=stacklevel + 1)


rank_zero_deprecation = functools.partial(rank_zero_warn, category=DeprecationWarning)


# ---- collections ---------------------------------------------------------------------------------------------


def apply_to_collection(
    data: Any, dtype: type | tuple[type, ...], function: Callable[..., Any], *args: Any,
    wrong_dtype: type | tuple[type, ...] | None = None, include_none: bool = True, **kwargs: Any
) -> Any:  # fmt: skip
    """`data` with `function(item, *args, **kwargs)` in the place of every item that is of `dtype` and not of
    `wrong_dtype`, in mappings, sequences and dataclass instances; without items for which it returns None, unless
    `include_none`."""

    def changed(item: Any) -> Any:
        if isinstance(item, dtype) and not isinstance(item, wrong_dtype or ()):
            return function(item, *args, **kwargs)
        if isinstance(item, Mapping):
            entries = {key: changed(value) for key, value in item.items()}
            return rebuilt(item, {key: value for key, value in entries.items() if include_none or value is not None})
        if isinstance(item, (list, tuple)):
            items = [value for value in map(changed, item) if include_none or value is not None]
            return type(item)(*items) if hasattr(item, "_fields") else type(item)(items)
        if names := fields_of(item):
            return with_fields(item, {name: changed(getattr(item, name)) for name in names})
        return item

    return changed(data)


def move_data_to_device(batch: Any, device: torch.device | str) -> Any:
    """What `transfer_batch_to_device` does by default."""
    return move(batch, torch.device(device))


def auto_move_data(method: Callable[..., Any]) -> Callable[..., Any]:
    """Of a module's method, such as `forward`: its arguments are moved to where the module is."""

    @functools.wraps(method)
    def moved(self: Any, *args: Any, **kwargs: Any) -> Any:
        return method(self, *move(args, self.device), **move(kwargs, self.device))

    return moved


# ---- functions -----------------------------------------------------------------------------------------------


def is_param_in_hook_signature(
    hook_fx: Callable[..., Any], param: str, explicit: bool = False, min_args: int | None = None
) -> bool:
    """Whether `hook_fx` has a parameter of this name; or, unless `explicit`, takes `*args`; or has `min_args`."""
    parameters = inspect.signature(hook_fx).parameters
    enough = min_args is not None and len(parameters) >= min_args
    return param in parameters or (not explicit and "args" in parameters) or enough
