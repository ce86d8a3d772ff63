"""Several training loaders as one, whose batches have the structure in which the loaders were given."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from .loaders import length, no_batch

__all__ = ["MODES", "CombinedLoader", "leaves", "structured"]

MODES = ("max_size_cycle", "min_size")
_ENDED = object()


class CombinedLoader:
    """The loaders in a list, tuple or dict, nested as one likes: each batch is a list or dict of their batches.

    `mode` says when a pass ends: with "max_size_cycle" when the longest loader does, the shorter ones starting
    anew as often as it takes; with "min_size" when the shortest does. `begin` begins a pass over one of them.
    A pass raises DataError naming a loader from which no batch came. ("train_dataloader")
    """

    def __init__(self, loaders: Any, mode: str, begin: Callable[[Any], Iterator[Any]] = iter) -> None:
        self.loaders, self.mode, self.begin = loaders, mode, begin
        self._leaves = dict(leaves(loaders, "train_dataloader"))

    def __len__(self) -> int:
        """The batches of a pass. Raises TypeError where the length of a loader is not known."""
        lengths = [length(loader) for loader in self._leaves.values()]
        known = [count for count in lengths if count is not None]
        if len(known) < len(lengths):
            raise TypeError("one of the combined loaders has no length")
        return min(known) if self.mode == "min_size" else max(known)

    def __iter__(self) -> Iterator[Any]:
        loaders = list(self._leaves.values())
        passes = [self.begin(loader) for loader in loaders]
        batches = [self._first(index, batches) for index, batches in enumerate(passes)]
        unfinished = set(range(len(loaders)))  # those that have not come to their end yet
        while True:
            yield structured(self.loaders, iter(batches))
            batches = [next(batches, _ENDED) for batches in passes]
            ended = [index for index, batch in enumerate(batches) if batch is _ENDED]
            unfinished.difference_update(ended)
            if not unfinished or (ended and self.mode == "min_size"):
                return
            for index in ended:
                passes[index] = self.begin(loaders[index])
                batches[index] = self._first(index, passes[index])

    def _first(self, index: int, batches: Iterator[Any]) -> Any:
        """The first batch of a loader's pass."""
        batch = next(batches, _ENDED)
        if batch is _ENDED:
            name, loader = list(self._leaves.items())[index]
            raise no_batch(loader, name)
        return batch


def leaves(loaders: Any, name: str) -> Iterator[tuple[str, Any]]:
    """What lies in lists, tuples and dicts, in order, each with its name: `name[0]['mnist']`."""
    if not isinstance(loaders, (list, tuple, Mapping)) or not loaders:
        yield name, loaders
        return
    for key, inner in loaders.items() if isinstance(loaders, Mapping) else enumerate(loaders):
        yield from leaves(inner, f"{name}[{key!r}]")


def structured(loaders: Any, items: Iterator[Any]) -> Any:
    """The next of `items` in the place of each loader, in lists and dicts as the loaders are."""
    if isinstance(loaders, Mapping):
        return {key: structured(inner, items) for key, inner in loaders.items()}
    return [structured(inner, items) for inner in loaders] if isinstance(loaders, (list, tuple)) else next(items)
