"""Data without a length: iterable data sets, in every loop, with limits, with and without workers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from models import Line, quiet
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from refimpl import DataError

STEPS = {"fit": "training_step", "validate": "validation_step", "test": "test_step", "predict": "predict_step"}


class Samples(IterableDataset[Any]):
    """Five samples, shared out among the workers."""

    def __init__(self, count: int = 5) -> None:
        self.count = count

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        info = get_worker_info()
        first, step = (0, 1) if info is None else (info.id, info.num_workers)
        for number in range(first, self.count, step):
            yield torch.full((2,), float(number), dtype=torch.float64), torch.ones(1, dtype=torch.float64)


class Seeing(Line):
    """Notes the numbers of the samples in each step."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: dict[str, list[list[int]]] = {}

    def note(self, step: str, batch: Any) -> None:
        self.seen.setdefault(step, []).append([int(x[0]) for x in batch[0]])

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        self.note("training_step", batch)
        return self.loss(batch)

    def validation_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        self.note("validation_step", batch)

    def test_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        self.note("test_step", batch)

    def predict_step(self, batch: Any, batch_idx: int, dataloader_idx: int | None = None) -> None:
        self.note("predict_step", batch)


# Two workers take turns in handing on a batch of two of their own samples.
BATCHES = {0: [[0, 1], [2, 3], [4]], 2: [[0, 2], [1, 3], [4]]}
LIMIT = {"fit": "limit_train_batches", "validate": "limit_val_batches"}


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("limit", [1.0, 2, 9])
@pytest.mark.parametrize("call", STEPS)
def test_to_its_end_or_to_the_limit(call: str, limit: int | float, workers: int) -> None:
    module = Seeing()
    loader = DataLoader(Samples(), batch_size=2, num_workers=workers)
    options: dict[str, Any] = {LIMIT.get(call, f"limit_{call}_batches"): limit}
    if call == "fit":
        options |= {"limit_val_batches": 0, "max_epochs": 2}
    getattr(quiet(**options), call)(module, loader)
    due = BATCHES[workers][:2] if limit == 2 else BATCHES[workers]
    assert module.seen[STEPS[call]] == due * (2 if call == "fit" else 1)


@pytest.mark.parametrize("call", ["validate", "test", "predict"])
def test_several_of_them(call: str) -> None:
    module = Seeing()
    getattr(quiet(), call)(module, [DataLoader(Samples(2)), DataLoader(Samples(1))])
    assert module.seen[STEPS[call]] == [[0], [1], [0]]


@pytest.mark.parametrize("call", STEPS)
def test_a_fraction_of_an_unknown_length(call: str) -> None:
    name = LIMIT.get(call, f"limit_{call}_batches")
    options: dict[str, Any] = {name: 0.5, **({"limit_val_batches": 0} if call == "fit" else {})}
    with pytest.raises(DataError, match=rf"{name}=0\.5 needs a loader with a length; give a number of batches"):
        getattr(quiet(**options), call)(Seeing(), DataLoader(Samples()))


@pytest.mark.parametrize("interval, validated", [(1.0, 1), (2, 2), (5, 1), (6, 0)])
def test_when_a_validation_is_due(interval: int | float, validated: int) -> None:
    module = Seeing()
    quiet(val_check_interval=interval).fit(module, DataLoader(Samples()), DataLoader(Samples(1)))
    assert len(module.seen.get("validation_step", [])) == validated


def test_a_fraction_of_an_unknown_epoch() -> None:
    with pytest.raises(DataError, match=r"val_check_interval=0\.5 needs a loader with a length"):
        quiet(val_check_interval=0.5).fit(Seeing(), DataLoader(Samples()), DataLoader(Samples()))


def test_a_fast_run_and_a_bar_need_no_length() -> None:
    module = Seeing()
    loader = DataLoader(Samples())
    quiet(fast_dev_run=2, enable_progress_bar=True).fit(module, loader, loader)
    assert module.seen == {"training_step": [[0], [1]], "validation_step": [[0], [1]]}


def test_the_trainers_numbers() -> None:
    trainer = quiet(max_epochs=2)
    trainer.fit(Seeing(), DataLoader(Samples()), DataLoader(Samples(1)))
    assert (trainer.num_training_batches, trainer.global_step) == (float("inf"), 10)
