"""What a loader is: an iterable of batches that may have a length; how many of them a limit leaves."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from copy import copy
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    Dataset,
    IterableDataset,
    RandomSampler,
    SequentialSampler,
    SubsetRandomSampler,
    WeightedRandomSampler,
)

from ..errors import DataError, warn

__all__ = ["check", "generators_of", "keeps_its_length", "length", "limited", "no_batch", "set_epoch", "unshuffled"]


def length(loader: Any) -> int | None:
    """`len(loader)`, or None where it has none (an iterable data set)."""
    try:
        return len(loader)
    except (TypeError, NotImplementedError):
        return None


def keeps_its_length(loader: Any) -> bool:
    """Whether as many batches will come as `len(loader)` says: of a list, and of a DataLoader with torch's samplers,
    over data with indices. The length of any other loader is what somebody wrote."""
    if type(loader) in (list, tuple):
        return True
    if type(loader) is not DataLoader or isinstance(loader.dataset, IterableDataset):
        return False
    return type(loader.sampler) in _SAMPLERS and type(loader.batch_sampler) in (BatchSampler, type(None))


def generators_of(loader: Any) -> list[torch.Generator]:
    """The loader's own sources of randomness, each once."""
    owners = (loader, getattr(loader, "sampler", None), getattr(loader, "batch_sampler", None))
    found = {id(g): g for owner in owners if isinstance(g := getattr(owner, "generator", None), torch.Generator)}
    return list(found.values())


def set_epoch(loader: Any, epoch: int) -> None:
    """An epoch begins: samplers that shuffle anew in each, as torch's DistributedSampler, are told which."""
    batches = getattr(loader, "batch_sampler", None)
    for sampler in (getattr(loader, "sampler", None), batches, getattr(batches, "sampler", None)):
        if callable(tell := getattr(sampler, "set_epoch", None)):
            tell(epoch)


def limited(batches: int | None, limit: int | float, what: str) -> int | None:
    """How many of `batches` a limit leaves; None for a loader of unknown length without a limit.

    An int limit is a count of batches, a float in [0, 1] a fraction, rounded down. Raises DataError for
    a fraction of an unknown length, and for a fraction that leaves none of a loader's batches.
    """
    if isinstance(limit, int):
        return limit if batches is None else min(batches, limit)
    if batches is None:
        if limit in (0.0, 1.0):
            return None if limit else 0
        raise DataError(f"{what}={limit} needs a loader with a length; give a number of batches instead")
    left = int(batches * limit)
    if left == 0 and limit > 0 and batches > 0:
        raise DataError(f"{what}={limit} leaves 0 of {batches} batches; at least {1 / batches:.3g} is needed")
    return left


def check(loader: Any, name: str) -> None:
    """Raises DataError, which calls the loader `name`, for one that has no batch or cannot be iterated."""
    if loader is None:
        raise DataError(f"{name} is None; return a loader")
    if isinstance(loader, (list, tuple, Mapping)):
        raise DataError(f"{name}: an empty {type(loader).__name__} where a loader is due")
    if isinstance(loader, Dataset) and not hasattr(type(loader), "__iter__"):
        raise DataError(f"{name}: {type(loader).__name__} is a data set of single samples; wrap it in a DataLoader "
                        "(with batch_size=None if its items are batches)")  # fmt: skip
    if isinstance(loader, (Tensor, str, bytes)) or not isinstance(loader, Iterable):
        if hasattr(loader, "__getitem__") and not isinstance(loader, (Tensor, str, bytes)):
            return  # the old sequence protocol is iterable, too
        among = "; lists and dicts hold loaders, not batches" if name.endswith("]") else ""
        raise DataError(f"{name}: a loader is an iterable of batches, not {type(loader).__name__}{among}")
    if length(loader) == 0:
        raise no_batch(loader, name)


def no_batch(loader: Any, name: str) -> DataError:
    """The error of a loader from which no batch came."""
    why = " (its length is 0)" if length(loader) == 0 else ""
    if isinstance(loader, Iterator):
        why = "; an iterator gives its batches only once: pass something that can be iterated anew, as a DataLoader can"
    return DataError(f"{name}: the loader has no batch{why}")


_SHUFFLING = (RandomSampler, SubsetRandomSampler, WeightedRandomSampler)
_SAMPLERS = (SequentialSampler, *_SHUFFLING)


def unshuffled(loader: Any, name: str) -> Any:
    """The loader with its samples in order, the same in every pass; a warning says so.

    That is a copy of a DataLoader whose sampler is one of torch's random ones, or a batch sampler around one; any other
    loader is returned as it is. A SubsetRandomSampler leaves its subset, in the order in which it was given.
    """
    if not isinstance(loader, DataLoader):
        return loader
    samplers = {key: _in_order(getattr(loader, key), loader.dataset) for key in ("sampler", "batch_sampler")}
    if all(sampler is getattr(loader, key) for key, sampler in samplers.items()):
        return loader
    warn(f"{name}: overfit_batches takes the same batches in every epoch; shuffling is off")
    replaced = copy(loader)
    replaced._iterator = None  # of persistent workers, which would go on with the old sampler
    # A DataLoader refuses to have these set, since workers that run would not learn of it; here none do.
    vars(replaced).update(samplers)
    return replaced


def _in_order(sampler: Any, data: Any) -> Any:
    """The sampler, or one in its place that draws nothing."""
    if isinstance(sampler, _SHUFFLING):
        return sampler.indices if isinstance(sampler, SubsetRandomSampler) else SequentialSampler(data)
    inner = getattr(sampler, "sampler", None)  # a batch sampler's
    if inner is None or _in_order(inner, data) is inner:
        return sampler
    ordered = copy(sampler)
    ordered.sampler = _in_order(inner, data)
    return ordered
