"""How much is tried of what is many: a share, the same each time; or all, before a release, and once what is judged has
changed: `WHOLE=1 python -m pytest`, which takes nearly twice as long."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TypeVar

__all__ = ["WHOLE", "share"]

WHOLE = bool(os.environ.get("WHOLE"))

T = TypeVar("T")


def share(many: Sequence[T], one_in: int, first: int = 0) -> Sequence[T]:
    """One in so many of them, from the place `first` on."""
    return many if WHOLE else many[first::one_in]
