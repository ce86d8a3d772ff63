"""What scripts of the period import from `utilities`: what is written or said by one process only, and an error."""

from __future__ import annotations

import functools
import os
import warnings
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

from ..errors import ConfigurationError

__all__ = ["MisconfigurationException", "rank_zero_info", "rank_zero_only", "rank_zero_warn"]

P = ParamSpec("P")
R = TypeVar("R")

MisconfigurationException = ConfigurationError


def rank_zero_only(function: Callable[P, R]) -> Callable[P, R | None]:
    """`function`, called in the process of rank 0 only (of the variable RANK, which torchrun sets); in the others
    it returns None."""

    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R | None:
        return function(*args, **kwargs) if int(os.environ.get("RANK", 0)) == 0 else None

    return call


@rank_zero_only
def rank_zero_info(message: Any, *args: Any) -> None:
    """Print the message, its `%s` and the like filled with `args`."""
    print(message % args if args else message)


@rank_zero_only
def rank_zero_warn(message: Any, category: type[Warning] = UserWarning, stacklevel: int = 2) -> None:
    """Python's `warnings.warn`."""
    warnings.warn(message, category, stacklevel=stacklevel + 1)
