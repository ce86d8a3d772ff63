"""The scenario's data, for every trainer with Lightning's interface: samples by formula, batches, and loaders.

Runs in the trainer's own world: torch and the standard library, Python 3.8 and up.
"""

from __future__ import annotations

import os
from typing import Any, Dict, Iterator, List, NamedTuple, Sequence, Tuple

import torch
from torch.utils.data import DataLoader, Dataset, DistributedSampler, IterableDataset, Sampler

from ..described import IDENTITY_COLUMN, IDENTITY_SCALE, STAGES
from ..experiment import Scenario

__all__ = ["CustomBatch", "NamedBatch", "loaders", "sample", "sequence", "unpack"]


def sample(
    stage: int, loader: int, batch: int, row: int, dtype: torch.dtype, time: int = 0
) -> Tuple[torch.Tensor, torch.Tensor]:
    """Row `row` of a batch at a time: x of shape (4,), its column 3 the batch's identity, and y of shape (1,)."""
    x = torch.tensor([((batch * 5 + (row + time) * 7 + j * 3) % 11 - 5) / 8 for j in range(4)], dtype=dtype)
    x[IDENTITY_COLUMN] = ((stage << 19) + (loader << 16) + batch) / IDENTITY_SCALE
    y = torch.tensor([((batch * 3 + row * 5) % 7 - 3) / 4 + 1], dtype=dtype)
    return x, y


def sequence(
    time: int, stage: int, loader: int, batch: int, row: int, dtype: torch.dtype
) -> Tuple[torch.Tensor, torch.Tensor]:
    """Row `row` of a batch with a dimension of time: x of shape (time, 4), y of shape (time, 1)."""
    pairs = [sample(stage, loader, batch, row, dtype, t) for t in range(time)]
    return torch.stack([x for x, _ in pairs]), torch.stack([y for _, y in pairs])


class _Samples(Dataset):  # type: ignore[type-arg]
    """A loader's rows, in order; the last batch may be shorter."""

    def __init__(self, scenario: Scenario, stage: int, loader: int, batches: int) -> None:
        size, last = scenario.data.batch_size, scenario.data.last
        dtype, time = getattr(torch, scenario.model.dtype), scenario.data.time
        self.rows = [
            sequence(time, stage, loader, k, i, dtype) if time else sample(stage, loader, k, i, dtype)
            for k in range(batches)
            for i in range(last if k == batches - 1 else size)
        ]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Tuple[torch.Tensor, torch.Tensor]:
        return self.rows[index]


class _Stream(IterableDataset):  # type: ignore[type-arg]
    """The same rows without a length."""

    def __init__(self, rows: Sequence[Any]) -> None:
        self.rows = rows

    def __iter__(self) -> Iterator[Any]:  # torch 1.10 insists on this annotation
        return iter(self.rows)


class _Promising(_Stream):
    """The same rows with a length that need not be true."""

    def __init__(self, rows: Sequence[Any], length: int) -> None:
        super().__init__(rows)
        self.length = length

    def __len__(self) -> int:
        return self.length


class _ByEpoch(Sampler):  # type: ignore[type-arg]
    """All rows in order, from another batch on in each epoch."""

    def __init__(self, rows: int, size: int) -> None:
        self.rows, self.size, self.epoch = rows, size, 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __iter__(self) -> Iterator[int]:
        return iter([(self.epoch * self.size + i) % self.rows for i in range(self.rows)])

    def __len__(self) -> int:
        return self.rows


class _First(Sampler):  # type: ignore[type-arg]
    """The first rows, in order."""

    def __init__(self, rows: int) -> None:
        self.rows = rows

    def __iter__(self) -> Iterator[int]:
        return iter(range(self.rows))

    def __len__(self) -> int:
        return self.rows


class CustomBatch:
    """A batch type of the user's own: it can be moved, and says what was done to it."""

    def __init__(self, x: torch.Tensor, y: torch.Tensor, **handled: bool) -> None:
        self.x, self.y = x, y
        self.handled = {"before_transfer": False, "moved": False, "after_transfer": False, **handled}

    def to(self, device: Any, **_: Any) -> "CustomBatch":
        return CustomBatch(self.x.to(device), self.y.to(device), **{**self.handled, "moved": True})

    def after(self, hook: str) -> "CustomBatch":
        """What a transfer hook hands on: a copy that says so."""
        return CustomBatch(self.x, self.y, **{**self.handled, hook: True})


class NamedBatch(NamedTuple):
    """A batch whose parts have names, and that is a tuple."""

    x: torch.Tensor
    y: torch.Tensor


class CustomLeaf:
    """Something of the user's own, deep in a batch, that can be moved and says whether it was. It is of no sample, so
    that each part of a batch has it."""

    def __init__(self, moved: bool = False) -> None:
        self.handled = {"moved": moved}

    def to(self, device: Any, **_: Any) -> "CustomLeaf":
        return CustomLeaf(moved=True)

    def __getitem__(self, rows: slice) -> "CustomLeaf":
        return CustomLeaf(**self.handled)


def _collate(form: str) -> Any:
    def collate(rows: List[Tuple[torch.Tensor, torch.Tensor]]) -> Any:
        x = torch.stack([row[0] for row in rows])
        y = torch.stack([row[1] for row in rows])
        if form == "dict":
            return {"x": x, "y": y}
        if form == "sequences":
            return x, y.squeeze(-1).tolist()
        if form == "nested":
            inputs = [x, {"weight": torch.ones_like(y), "more": (CustomLeaf(),), "leaf": CustomLeaf()}]
            return {"inputs": inputs, "target": (y,), "name": "batch", "names": ["row"] * len(rows)}
        return CustomBatch(x, y) if form == "custom" else NamedBatch(x, y) if form == "named" else (x, y)

    return collate


def unpack(batch: Any) -> Tuple[torch.Tensor, torch.Tensor]:
    """x and y out of any form of batch."""
    if isinstance(batch, CustomBatch):
        return batch.x, batch.y
    if isinstance(batch, dict) and "x" in batch:
        return batch["x"], batch["y"]
    if isinstance(batch, dict) and "inputs" in batch:
        return batch["inputs"][0], batch["target"][0]
    items = list(batch.values()) if isinstance(batch, dict) else batch
    if isinstance(items[0], torch.Tensor):
        x, y = items[:2]
        return x, y if isinstance(y, torch.Tensor) else torch.tensor(y, dtype=x.dtype).unsqueeze(-1)
    pairs = [unpack(item) for item in items]  # of several loaders: all their rows
    return torch.cat([x for x, _ in pairs]), torch.cat([y for _, y in pairs])


def loaders(scenario: Scenario, stage: str, asked_before: bool = False) -> Any:
    """The stage's DataLoader, a list of them where there are several, None where there is none; several training
    loaders in the scenario's structure."""
    made = []
    for index, batches in enumerate(scenario.loaders(stage)):
        batches = scenario.data.reloaded or batches if asked_before and stage == "train" else batches
        rows: Any = _Samples(scenario, STAGES.index(stage), index, batches)
        if not scenario.data.sized:
            rows = _Stream(rows.rows)
        size = scenario.data.batch_size // scenario.processes  # the others' batches are the rest
        if scenario.data.promised and stage == "train":
            rows = _Promising(rows.rows, scenario.data.promised * size)
        settings: Dict[str, Any] = {"batch_size": size, "collate_fn": _collate(scenario.data.batch)}
        settings["num_workers"] = scenario.data.workers
        if scenario.data.distributed_sampler and stage == "train":
            rank = None if scenario.spawns else int(os.environ["RANK"])  # before there is a group
            settings["sampler"] = DistributedSampler(rows, scenario.processes, rank, shuffle=False)
        if scenario.data.told_epochs and stage == "train":
            settings["sampler"] = _ByEpoch(len(rows), size)
        if scenario.data.leaves_out and "sampler" not in settings:
            settings["sampler"] = _First(len(rows))
            rows.rows += _Samples(scenario, STAGES.index(stage), index, batches + 1).rows[-scenario.data.last :]
        shuffles = scenario.data.shuffle if stage == "train" else scenario.data.shuffle_val and stage == "val"
        if shuffles and (scenario.data.generator or stage == "val"):
            settings["generator"] = torch.Generator().manual_seed(index)
        made.append(DataLoader(rows, shuffle=shuffles, **settings))
    if stage == "train" and scenario.data.train_loaders:
        return _structured(made, scenario.data.structure)
    is_alone = len(made) == 1 and not (scenario.data.listed and stage != "train")
    return None if not made else made[0] if is_alone else made


def _structured(loaders: List[Any], structure: str) -> Any:
    """Loaders in a list, a tuple, a dict, a dict of two lists, or a list of two dicts."""
    if structure == "nested":
        return {"a": loaders[:1], "b": loaders[1:]}
    if structure == "dicts":
        return [{"a": loaders[0]}, dict(zip("bcdefgh", loaders[1:]))]
    if structure == "tuple":
        return tuple(loaders)
    return dict(zip("abcdefgh", loaders)) if structure == "dict" else loaders
