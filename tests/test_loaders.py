"""Loaders: their limits, their samples in order, and what is said of those that cannot be iterated."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from models import Batches, Line, Stream, pairs, quiet
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    RandomSampler,
    Sampler,
    SubsetRandomSampler,
    TensorDataset,
    WeightedRandomSampler,
)

from refimpl import DataError
from refimpl.loaders.loaders import length, limited, unshuffled

# ---- limits --------------------------------------------------------------------------------------------


@given(st.integers(1, 200), st.integers(0, 300))
def test_a_count_is_at_most_so_many(batches: int, limit: int) -> None:
    assert limited(batches, limit, "limit") == len(range(batches)[:limit])
    assert limited(None, limit, "limit") == limit


@given(st.integers(1, 200), st.floats(0, 1))
def test_a_fraction_is_rounded_down_but_never_to_nothing(batches: int, limit: float) -> None:
    fit_in = sum(batch + 1 <= batches * limit for batch in range(batches))
    if fit_in == 0 and limit > 0:
        with pytest.raises(DataError, match=f"leaves 0 of {batches} batches"):
            limited(batches, limit, "limit")
    else:
        assert limited(batches, limit, "limit") == fit_in


def test_an_unknown_length_takes_no_fraction() -> None:
    assert limited(None, 1.0, "limit") is None
    assert limited(None, 0.0, "limit") == 0
    with pytest.raises(DataError, match=r"limit=0\.5 needs a loader with a length"):
        limited(None, 0.5, "limit")


def test_a_length_is_that_of_len_where_there_is_one() -> None:
    assert (length(pairs(3)), length(Stream([])), length(iter([1]))) == (3, None, None)


# ---- what is no loader ---------------------------------------------------------------------------------

DATASET = TensorDataset(torch.zeros(2, 2))
BATCH = (torch.zeros(2, 2), torch.zeros(2, 1))


@pytest.mark.parametrize("loader, told", [
    (torch.zeros(2, 2), "a loader is an iterable of batches, not Tensor$"),
    ("batches", "not str"),
    (3, "not int"),
    (DataLoader, "not type"),
    (DATASET, "TensorDataset is a data set of single samples; wrap it in a DataLoader"),
    (DataLoader(TensorDataset(torch.zeros(0, 2))), r"no batch \(its length is 0\)"),
    ([], "an empty list where a loader is due"),
    ({}, "an empty dict where"),
    ([pairs(1), [pairs(1), ()]], r"\[1\]\[1\]: an empty tuple where"),
    ({"mnist": pairs(1), "cifar": 3}, r"\['cifar'\]: a loader is an iterable of batches, not int"),
    ([BATCH, BATCH], r"\[0\]\[0\]: .*, not Tensor; lists and dicts hold loaders, not batches"),
    ([pairs(1), None], r"\[1\] is None; return a loader"),
    ({"mnist": Batches([])}, r"\['mnist'\]: the loader has no batch \(its length is 0\)"),
])  # fmt: skip
def test_what_is_no_training_loader(loader: Any, told: str) -> None:
    with pytest.raises(DataError, match=rf"train_dataloader.*{told}"):
        quiet(limit_val_batches=0).fit(Line(), loader)


def test_train_dataloader_that_returns_nothing() -> None:
    class Forgetful(Line):
        def train_dataloader(self) -> Any:
            pairs(1)

    with pytest.raises(DataError, match="train_dataloader is None; return a loader"):
        quiet(limit_val_batches=0).fit(Forgetful())


# ---- samples in order ----------------------------------------------------------------------------------

NUMBERS = TensorDataset(torch.arange(6))


def batches_of(loader: Iterable[Any]) -> list[list[int]]:
    return [batch[0].tolist() for batch in loader]


def whole_batches(sampler: Any) -> DataLoader[Any]:
    return DataLoader(NUMBERS, batch_sampler=BatchSampler(sampler, batch_size=2, drop_last=False))


@pytest.mark.parametrize("loader", [
    DataLoader(NUMBERS, batch_size=2, shuffle=True),
    DataLoader(NUMBERS, batch_size=2, sampler=RandomSampler(NUMBERS, replacement=True)),
    DataLoader(NUMBERS, batch_size=2, sampler=WeightedRandomSampler([1.0] * 6, 6)),
    whole_batches(RandomSampler(NUMBERS)),
])  # fmt: skip
def test_a_data_loader_that_shuffles_gets_a_copy_that_does_not(loader: DataLoader[Any]) -> None:
    made = loader.sampler, loader.batch_sampler, vars(loader.batch_sampler)["sampler"]
    with pytest.warns(UserWarning, match=r"train_dataloader\[0\]: .* shuffling is off"):
        ordered = unshuffled(loader, "train_dataloader[0]")
    assert batches_of(ordered) == batches_of(ordered) == [[0, 1], [2, 3], [4, 5]]
    assert len(ordered) == 3
    assert (loader.sampler, loader.batch_sampler, vars(loader.batch_sampler)["sampler"]) == made  # the user's own


def test_a_random_subset_keeps_its_order() -> None:
    loader = DataLoader(NUMBERS, batch_size=2, sampler=SubsetRandomSampler([4, 0, 2]))
    with pytest.warns(UserWarning, match="shuffling is off"):
        assert batches_of(unshuffled(loader, "train_dataloader")) == [[4, 0], [2]]


def test_single_samples_are_put_in_order_too() -> None:
    with pytest.warns(UserWarning, match="shuffling is off"):
        ordered = unshuffled(DataLoader(NUMBERS, batch_size=None, shuffle=True), "train_dataloader")
    assert [int(sample[0]) for sample in ordered] == [0, 1, 2, 3, 4, 5]


def test_workers_that_live_on_are_not_those_that_shuffled() -> None:
    loader = DataLoader(NUMBERS, batch_size=2, shuffle=True, num_workers=1, persistent_workers=True)
    batches_of(loader)
    with pytest.warns(UserWarning, match="shuffling is off"):
        ordered = unshuffled(loader, "train_dataloader")
    assert batches_of(ordered) == [[0, 1], [2, 3], [4, 5]]


class Backwards(Sampler[int]):
    def __iter__(self) -> Iterator[int]:
        return iter(range(5, -1, -1))


@pytest.mark.parametrize("loader", [
    DataLoader(NUMBERS, batch_size=2), DataLoader(NUMBERS, sampler=Backwards()), pairs(2), Stream([1]),
])  # fmt: skip
def test_a_loader_that_does_not_shuffle_is_left_alone(loader: Any) -> None:
    assert unshuffled(loader, "train_dataloader") is loader
