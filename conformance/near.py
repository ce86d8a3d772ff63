"""The near miss of a name that is not known. Part of the producer half, so it is Python 3.8."""

from __future__ import annotations

import difflib
from typing import Iterable

__all__ = ["did_you_mean"]


def did_you_mean(given: object, known: Iterable[object], cutoff: float = 0.6) -> str:
    """"; did you mean 'x'?", or nothing if no name is near: how a refusal ends."""
    near = difflib.get_close_matches(str(given), map(str, known), n=1, cutoff=cutoff)
    return "; did you mean %r?" % near[0] if near else ""
