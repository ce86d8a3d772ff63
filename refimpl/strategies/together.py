"""What processes bring together, each time under a name: an error tells where they have come to different things."""

from __future__ import annotations

from typing import Any
from zlib import crc32

from torch import distributed, float64, tensor

from ..errors import ConfigurationError

__all__ = ["gathered", "summed"]


def summed(what: str, value: float, group: Any) -> float:
    """The sum of what the processes of the group give: every one has to come to the same.

    Raises ConfigurationError where they come to different things.
    """
    size, mark = distributed.get_world_size(group), crc32(what.encode()) >> 12
    own, device = (value, mark, mark * mark), "cuda" if distributed.get_backend(group) == "nccl" else "cpu"
    sums = tensor(own, dtype=float64, device=device)  # exact: of 20 bits is a mark
    try:
        distributed.all_reduce(sums, group=group)
    except RuntimeError as error:
        raise type(error)(f"at {what}: {error}") from error
    total, *marks = sums.tolist()
    if marks != [size * mark, size * mark * mark]:  # their mean and variance say whether all are this one
        each: list[Any] = [None] * size
        distributed.all_gather_object(each, what, group)
        says = ", ".join(f"process {rank} to {other}" for rank, other in enumerate(each))
        raise ConfigurationError(f"all processes have to come to the same, in one order; now came {says}")
    return total  # type: ignore[no-any-return]


def gathered(what: str, value: Any, group: Any) -> list[Any]:
    """What each process of the group gives, by rank: every one has to come to the same, as with `summed`."""
    summed(what, 0.0, group)
    each: list[Any] = [None] * distributed.get_world_size(group)
    distributed.all_gather_object(each, value, group)
    return each
