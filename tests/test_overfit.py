"""overfit_batches: the same few batches in every epoch, and validation on them."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from models import Line, Stream, pairs, quiet
from torch import Tensor
from torch.utils.data import BatchSampler, DataLoader, RandomSampler, SubsetRandomSampler, TensorDataset

from refimpl import ConfigurationError, DataError


class Seeing(Line):
    """Notes the numbers in the batches it trains and validates on."""

    def __init__(self, loader: Any = None) -> None:
        super().__init__()
        self.seen: dict[str, list[Any]] = {"train": [], "val": [], "test": []}
        self.loader, self.asked = loader, 0

    def note(self, stage: str, batch: Any) -> Tensor:
        self.seen[stage].append([[int(x) for x in one[0]] for one in batch] if len(batch) == 2 else batch[0].tolist())
        return self.layer.bias.sum()

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return self.note("train", batch)

    def validation_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        self.note("val", batch)

    def test_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        self.note("test", batch)

    def train_dataloader(self) -> Any:
        self.asked += 1
        return self.loader


def numbers(count: int, start: int = 0, shuffle: bool = False) -> DataLoader[Any]:
    """Batches of one number each."""
    return DataLoader(TensorDataset(torch.arange(start, start + count)), shuffle=shuffle)


def plain(first: int, last: int) -> list[list[int]]:
    return [[number] for number in range(first, last)]


@settings(max_examples=20)
@given(st.integers(1, 6), st.one_of(st.integers(1, 8), st.floats(0.5, 1)))
def test_the_same_batches_in_each_epoch_and_in_validation(batches: int, overfit: int | float) -> None:
    used = min(batches, overfit) if isinstance(overfit, int) else int(batches * overfit)
    module, trainer = Seeing(), quiet(max_epochs=2, overfit_batches=overfit, num_sanity_val_steps=2)
    if used == 0:
        with pytest.raises(DataError, match=r"^overfit_batches=0\.\d+ leaves 0 of"):
            trainer.fit(module, numbers(batches), numbers(4, start=50))
        return
    trainer.fit(module, numbers(batches), numbers(4, start=50))
    assert module.seen["train"] == plain(0, used) * 2
    assert module.seen["val"] == plain(0, min(used, 2)) + plain(0, used) * 2
    assert trainer.num_training_batches == used


def test_shuffling_is_switched_off_with_a_warning() -> None:
    module = Seeing()
    with pytest.warns(UserWarning, match="train_dataloader: overfit_batches takes the same batches in every epoch"):
        quiet(max_epochs=2, overfit_batches=3).fit(module, numbers(20, shuffle=True), numbers(1))
    assert module.seen["train"] == module.seen["val"] == plain(0, 3) * 2


def test_combined_loaders_are_validated_on_as_they_are_trained_on() -> None:
    module = Seeing()
    with pytest.warns(UserWarning, match=r"train_dataloader\[1\]: overfit_batches"):
        quiet(overfit_batches=2).fit(module, [numbers(3), numbers(9, start=50, shuffle=True)], numbers(1))
    assert module.seen["train"] == module.seen["val"] == [[[0], [50]], [[1], [51]]]


def test_without_a_length_too() -> None:
    module = Seeing()
    quiet(max_epochs=2, overfit_batches=2).fit(module, Stream(numbers(5)), numbers(1))
    assert module.seen["train"] == module.seen["val"] == plain(0, 2) * 2


def test_the_training_loader_is_asked_for_once_and_the_other_never() -> None:
    class Module(Seeing):
        def val_dataloader(self) -> Any:
            raise AssertionError("asked for")

    module = Module(numbers(3))
    quiet(max_epochs=2, overfit_batches=1, num_sanity_val_steps=1).fit(module)
    assert (module.asked, module.seen["val"]) == (1, [[0]] * 3)


def test_reloaded_batches_are_validated_on() -> None:
    class Module(Seeing):
        def train_dataloader(self) -> Any:
            self.asked += 1
            return numbers(3, start=10 * self.asked)

        val_dataloader = train_dataloader

    module = Module()
    trainer = quiet(
        max_epochs=5, overfit_batches=1, reload_dataloaders_every_n_epochs=2, check_val_every_n_epoch=2,
        num_sanity_val_steps=1,
    )  # fmt: skip
    trainer.fit(module)
    assert module.seen["train"] == [[10], [10], [20], [20], [30]]
    assert module.seen["val"] == [[10], [10], [20]]


def test_it_takes_the_place_of_the_limits_of_a_fit() -> None:
    module = Seeing()
    trainer = quiet(overfit_batches=2, limit_train_batches=5, limit_val_batches=1, limit_test_batches=3)
    trainer.fit(module, numbers(9), numbers(9, start=50))
    assert module.seen["train"] == module.seen["val"] == plain(0, 2)


@pytest.mark.parametrize("call, stage", [("validate", "val"), ("test", "test")])
def test_another_call_says_itself_what_it_runs_on(call: str, stage: str) -> None:
    module, trainer = Seeing(), quiet(overfit_batches=0.1)
    getattr(trainer, call)(module, numbers(3, start=50))
    assert module.seen[stage] == plain(50, 53)


@pytest.mark.parametrize("options, validated", [({"limit_val_batches": 0}, 0), ({"fast_dev_run": 1}, 1)])
def test_no_validation_is_none_and_a_fast_run_is_a_fast_run(options: dict[str, Any], validated: int) -> None:
    module = Seeing()
    quiet(overfit_batches=2, **options).fit(module, numbers(9), numbers(9, start=50))
    assert module.seen["val"] == plain(0, validated)
    assert module.seen["train"] == plain(0, 1 if "fast_dev_run" in options else 2)


def test_nought_is_a_training_as_usual() -> None:
    module = Seeing()
    quiet(overfit_batches=0.0).fit(module, numbers(3), numbers(2, start=50))
    assert (module.seen["train"], module.seen["val"]) == (plain(0, 3), plain(50, 52))


@pytest.mark.parametrize("given", [-1, 1.5, "all", True])
def test_what_is_not_accepted(given: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"overfit_batches=.*is accepted"):
        quiet(overfit_batches=given)


def test_a_model_is_fitted_to_its_few_batches() -> None:
    """What the option is for: a loss that comes down to nothing."""
    trainer = quiet(max_epochs=200, overfit_batches=1)

    class Logging(Line):
        def validation_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
            self.log("val_loss", self.loss(batch))

    trainer.fit(Logging(), pairs(9), pairs(1, seed=1))
    assert float(trainer.callback_metrics["val_loss"]) < 1e-6


@pytest.mark.parametrize("sampler", [
    lambda data: BatchSampler(RandomSampler(data), 2, False),
    lambda data: BatchSampler(SubsetRandomSampler([5, 3, 1, 0]), 2, False),
])  # fmt: skip
def test_the_batches_of_a_batch_sampler_that_is_given_as_sampler_are_the_same_too(sampler: Any) -> None:
    data = TensorDataset(torch.arange(6))
    given = DataLoader(data, sampler=sampler(data), batch_size=None)
    module = Seeing()
    with pytest.warns(UserWarning, match="overfit_batches takes the same batches in every epoch"):
        quiet(max_epochs=3, overfit_batches=2).fit(module, given, numbers(1))
    assert module.seen["train"] == module.seen["train"][:2] * 3
    assert isinstance(given.sampler.sampler, (RandomSampler, SubsetRandomSampler))  # the user's own is as it was
