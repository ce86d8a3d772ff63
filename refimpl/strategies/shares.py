"""A process's share of what a loader gives: every so manieth of the samples, in an order that all processes draw."""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterator, Mapping
from copy import copy
from functools import partial
from typing import Any

import numpy as np
import torch
from torch.utils.data import BatchSampler, DataLoader, DistributedSampler, IterableDataset

from ..errors import DataError, warn
from ..loaders.combined import CombinedLoader, leaves, structured
from ..loaders.loaders import generators_of, length
from ..seed import kept_random_state

__all__ = ["Share", "shares"]


class Share(DistributedSampler[Any]):
    """Of what a sampler draws, every `num_replicas`-th item, from the `rank`-th on. It draws from `seed` and the epoch,
    beside what others draw, so that it draws the same in every process, and anew in each epoch. Where the shares are to
    be `even`, the first items come once more at the end."""

    def __init__(self, sampler: Any, rank: int, num_replicas: int, seed: int, even: bool) -> None:
        self.sampler, self.rank, self.num_replicas, self.seed, self.even = sampler, rank, num_replicas, seed, even
        self.epoch = 0

    def __iter__(self) -> Iterator[Any]:
        generators = generators_of(self)
        states = [generator.get_state() for generator in generators]
        with kept_random_state():
            for generator in (torch.default_generator, *generators):
                generator.manual_seed(self.seed + self.epoch)
            random.seed(self.seed + self.epoch)
            np.random.seed((self.seed + self.epoch) % 2**32)
            drawn = list(self.sampler)
        for generator, state in zip(generators, states):
            generator.set_state(state)
        while self.even and drawn and len(drawn) % self.num_replicas:
            drawn += drawn[: self.num_replicas - len(drawn) % self.num_replicas]
        return iter(drawn[self.rank :: self.num_replicas])

    def __len__(self) -> int:
        return len(range(0 if self.even else self.rank, len(self.sampler), self.num_replicas))


def shares(loaders: Any, stage: str, rank: int, world_size: int, of_zero: Callable[[Any], Any]) -> Any:
    """The loaders of a stage, each with this process's share of its samples; those of a training have as many in every
    process. A DataLoader whose sampler shares by itself, and so has `num_replicas` as torch's DistributedSampler, is
    left as it is, and so is, with a warning, what has no indices that could be shared.

    Raises DataError for a loader with fewer samples than processes, of which some would have nothing to evaluate.
    """
    if loaders is None or (isinstance(loaders, (list, tuple, Mapping)) and not loaders):
        return loaders  # which is told elsewhere
    if isinstance(loaders, CombinedLoader):
        return CombinedLoader(shares(loaders.loaders, stage, rank, world_size, of_zero), loaders.mode, loaders.begin)
    each = [
        _shared(loader, name, partial(Share, rank=rank, num_replicas=world_size, even=stage == "train"), of_zero)
        for name, loader in leaves(loaders, f"{stage}_dataloader")
    ]
    return structured(loaders, iter(each))


def _shared(loader: Any, name: str, share: Callable[..., Share], of_zero: Callable[[Any], Any]) -> Any:
    if not isinstance(loader, DataLoader) or isinstance(loader.dataset, IterableDataset):
        kind = type(loader.dataset if isinstance(loader, DataLoader) else loader).__name__
        warn(f"{name}: {kind} has no sampler, so that every process is given all of it; give a DataLoader over data "
             "with indices, or let each process take its own part, by trainer.global_rank")  # fmt: skip
        return loader
    batches = loader.batch_sampler
    if any(hasattr(one, "num_replicas") for one in (loader.sampler, batches, getattr(batches, "sampler", None))):
        return loader
    own = next(iter(generators_of(loader)), None)
    default = int(os.environ.get("PL_GLOBAL_SEED", torch.initial_seed()))
    share = partial(share, seed=of_zero(own.initial_seed() if own else default) % 2**62)
    if batches is None or type(batches) is BatchSampler:
        changed: dict[str, Any] = {"sampler": share(loader.sampler)}
        if batches is not None:
            changed["batch_sampler"] = BatchSampler(changed["sampler"], batches.batch_size, batches.drop_last)
    else:  # one of the user's own: whole batches are shared
        changed = {"batch_sampler": share(batches)}
    one = next(iter(changed.values()))
    items = length(one.sampler)
    if not one.even and items is not None and 0 < items < one.num_replicas:
        raise DataError(
            f"{name} has {items} {'samples' if 'sampler' in changed else 'batches'} for {one.num_replicas} processes, "
            "of which some would have none; give more of them, or use fewer processes"
        )
    replaced = copy(loader)
    replaced._iterator = None  # of persistent workers, which would go on with the old sampler
    vars(replaced).update(changed)  # a DataLoader refuses to have these set, for workers that run; here none do
    return replaced
