"""Truncated backpropagation through time: a batch in pieces, and what one piece hands to the next."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ..errors import ConfigurationError
from ..loaders.batches import detach

__all__ = ["checked_splits", "hiddens_of", "split_batch"]


def split_batch(batch: Any, split_size: int) -> list[Any]:
    """The batch cut along time into pieces of `split_size`, the last one perhaps shorter.

    Time is dimension 1 of the tensors at the batch's root, of shape (batch, time, ...), and of the
    sequences there: lists of one list per sample. What has no time (a number, a tensor of one dimension)
    is in every piece. Raises ConfigurationError for different lengths, and where nothing has time.
    ("tbptt_split_batch")
    """
    if batch.__class__ is Tensor and batch.ndim > 1:
        return list(torch.split(batch, split_size, dim=1))
    alone = not isinstance(batch, (list, tuple, Mapping))
    parts = {0: batch} if alone else dict(batch) if isinstance(batch, Mapping) else dict(enumerate(batch))
    times = {key: length for key, part in parts.items() if (length := _time(part)) is not None}
    if len(set(times.values())) != 1:
        problem = f"different lengths of time: {times}" if times else f"no dimension of time: {type(batch).__name__}"
        raise ConfigurationError(f"tbptt_split_batch got a batch with {problem}; override it to split your batches")
    pieces = []
    for start in range(0, next(iter(times.values())), split_size):
        window = slice(start, start + split_size)
        piece = {key: _cut(part, window) if key in times else part for key, part in parts.items()}
        pieces.append(piece[0] if alone else piece if isinstance(batch, Mapping) else [*piece.values()])
    return pieces


def _time(part: Any) -> int | None:
    """How long a part of a batch is; None if it has no time."""
    if isinstance(part, Tensor):
        return part.shape[1] if part.ndim > 1 else None
    if not _is_sequence(part) or not part or not all(_is_sequence(row) for row in part):
        return None
    lengths = {len(row) for row in part}
    if len(lengths) > 1:
        raise ConfigurationError(f"tbptt_split_batch got sequences of different lengths: {sorted(lengths)}")
    return lengths.pop()


def _is_sequence(part: Any) -> bool:
    return isinstance(part, (Sequence, Tensor)) and not isinstance(part, (str, bytes))


def _cut(part: Any, window: slice) -> Any:
    return part[:, window] if isinstance(part, Tensor) else [row[window] for row in part]


def checked_splits(splits: Any) -> Any:
    """What `tbptt_split_batch` returned. Raises ConfigurationError for anything but some pieces in a list."""
    if isinstance(splits, (list, tuple)) and splits:
        return splits
    raise ConfigurationError(f"tbptt_split_batch returned {splits!r:.80}; a list of at least one piece is accepted")


def hiddens_of(output: Any) -> Any:
    """The hidden states in a step's output, detached, for the next piece of the batch.

    Raises ConfigurationError where there are none.
    """
    if (output.__class__ is dict or isinstance(output, Mapping)) and "hiddens" in output:
        hiddens = output["hiddens"]
        return hiddens.detach() if hiddens.__class__ is Tensor else detach(hiddens)
    given = f"a dict with the keys {list(output)}" if isinstance(output, Mapping) else type(output).__name__
    raise ConfigurationError(
        f"training_step returned {given}; with truncated_bptt_steps, a dict with 'loss' and 'hiddens' is accepted"
    )
