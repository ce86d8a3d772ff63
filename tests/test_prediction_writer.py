"""BasePredictionWriter: what is written, when, and which samples it is said to be of."""

from __future__ import annotations

import gc
import warnings
import weakref
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from models import Batches, quiet
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, IterableDataset, WeightedRandomSampler

from refimpl import BasePredictionWriter, ConfigurationError, LightningModule, callbacks
from refimpl.callbacks.prediction_writer import NotedIndices, noting

pytestmark = pytest.mark.slow


class Writer(BasePredictionWriter):
    """Remembers what it was given."""

    def __init__(self, write_interval: str = "batch_and_epoch") -> None:
        super().__init__(write_interval)
        self.batches: list[tuple[Any, ...]] = []
        self.epochs: list[tuple[Any, ...]] = []

    def write_on_batch_end(
        self,
        trainer: Any,
        pl_module: LightningModule,
        prediction: Any,
        batch_indices: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int,
    ) -> None:
        assert pl_module.trainer is trainer
        self.batches.append((prediction, batch_indices, batch, batch_idx, dataloader_idx))

    def write_on_epoch_end(
        self, trainer: Any, pl_module: LightningModule, predictions: Any, batch_indices: Any
    ) -> None:
        self.epochs.append((predictions, batch_indices))


class Same(LightningModule):
    """Predicts its input: the value of a sample, which is where it is in the data set."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Identity()

    def forward(self, batch: Tensor) -> Tensor:
        return batch.clone()


def values(count: int) -> Dataset[Any]:
    return torch.utils.data.TensorDataset(torch.arange(count))


def loader(count: int, **options: Any) -> DataLoader[Any]:
    return DataLoader(values(count), collate_fn=lambda rows: torch.stack([row[0] for row in rows]), **options)


def written(loaders: Any, write_interval: str = "batch_and_epoch", **options: Any) -> Writer:
    writer = Writer(write_interval)
    quiet(callbacks=writer, **options).predict(Same(), loaders)
    return writer


# ---- indices --------------------------------------------------------------------------------------------

LOADERS = st.builds(
    loader, st.integers(3, 7), batch_size=st.integers(1, 3), shuffle=st.booleans(), drop_last=st.booleans()
)


@given(st.lists(LOADERS, min_size=1, max_size=3), st.sampled_from([1.0, 1, 2]))
def test_the_indices_are_those_of_the_samples(loaders: list[DataLoader[Any]], limit: int | float) -> None:
    writer = written(loaders, limit_predict_batches=limit)
    for prediction, indices, batch, _, _ in writer.batches:
        assert prediction.tolist() == batch.tolist() == indices
    [(predictions, batch_indices)] = writer.epochs
    assert [[each.tolist() for each in own] for own in predictions] == batch_indices
    counts = [min(len(own), limit) if isinstance(limit, int) else len(own) for own in loaders]
    assert [len(own) for own in batch_indices] == counts
    assert [(batch_idx, index) for *_, batch_idx, index in writer.batches] == [
        (batch_idx, index) for index, count in enumerate(counts) for batch_idx in range(count)
    ]


@pytest.mark.slow
@pytest.mark.parametrize("options", [
    {"batch_size": 2, "num_workers": 2}, {"batch_size": 2, "num_workers": 1, "persistent_workers": True},
    {"batch_size": 3, "sampler": WeightedRandomSampler([1.0] * 7, 7)}, {"batch_sampler": [[6, 1], [2], [0, 0, 5]]},
], ids=["workers", "persistent", "sampler", "batch sampler"])  # fmt: skip
def test_whatever_the_sampler_and_however_far_workers_fetch_ahead(options: Any) -> None:
    given = loader(7, **options)
    assert len(list(given)) == len(given)  # persistent workers are there from now on
    for _ in range(2):
        writer = written(given)
        assert [prediction.tolist() for prediction, *_ in writer.batches] == [row[1] for row in writer.batches]
        assert len(writer.batches) == len(given)


def test_the_order_of_a_shuffled_loader_is_what_it_is_without_a_writer() -> None:
    given = loader(7, batch_size=2, shuffle=True)
    torch.manual_seed(3)
    without = quiet().predict(Same(), given)
    torch.manual_seed(3)
    with_one = quiet(callbacks=Writer()).predict(Same(), given)
    assert without is not None and with_one is not None
    assert [each.tolist() for each in without] == [each.tolist() for each in with_one]


def test_the_users_loader_is_left_alone() -> None:
    given = loader(4, batch_size=2)
    before = dict(vars(given))
    written(given)
    assert vars(given) == before


class Stream(IterableDataset[Any]):
    def __iter__(self) -> Any:
        return iter(torch.arange(4))


class Own(DataLoader[Any]):
    """Goes its own way about its batches."""

    def __iter__(self) -> Any:
        return reversed(list(super().__iter__()))


@pytest.mark.parametrize("given", [
    DataLoader(Stream(), batch_size=2), DataLoader(torch.zeros(2, 3), batch_size=None),  # type: ignore[arg-type]
    Batches([torch.zeros(3)] * 2), Own(torch.arange(4), batch_size=2),  # type: ignore[arg-type]
    DataLoader(torch.arange(4), batch_size=2, in_order=False),  # type: ignore[arg-type]
], ids=["iterable", "no batches", "no DataLoader", "its own order", "any order"])  # fmt: skip
def test_where_nobody_knows_the_indices_they_are_none(given: Any) -> None:
    writer = written(given)
    assert [indices for _, indices, *_ in writer.batches] == [None, None]
    assert [indices for _, indices in writer.epochs] == [[[None, None]]]
    assert noting(given) is given


def test_one_loader_that_knows_them_beside_one_that_does_not() -> None:
    writer = written([Batches([torch.zeros(3)]), loader(3, batch_size=2)])
    assert [indices for _, indices in writer.epochs] == [[[None], [[0, 1], [2]]]]


def test_indices_are_forgotten_when_their_batch_is_done() -> None:
    noted = NotedIndices([[0], [1], [2], [3]])
    assert len(noted) == 4
    for _ in range(2):
        ahead = iter(noted)
        assert [next(ahead), next(ahead), next(ahead)] == [[0], [1], [2]]
        assert [noted.of(0), noted.of(0), noted.of(2)] == [[0], [0], [2]]
        assert list(noted._waiting) == [[2]]


# ---- intervals ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("write_interval, batches, epochs", [
    ("batch", 2, 0), ("epoch", 0, 1), ("batch_and_epoch", 2, 1)
])  # fmt: skip
@pytest.mark.parametrize("kept", [True, False, None])
def test_what_is_written_when(write_interval: str, batches: int, epochs: int, kept: bool | None) -> None:
    writer = Writer(write_interval)
    predictions = quiet(callbacks=writer).predict(Same(), loader(4, batch_size=2), return_predictions=kept)
    assert (len(writer.batches), len(writer.epochs)) == (batches, epochs)
    assert (predictions is None) == (kept is False)
    assert all(indices == [[[0, 1], [2, 3]]] for _, indices in writer.epochs)


def test_several_writers_and_runs() -> None:
    writers = [Writer("batch"), Writer("epoch"), Writer()]
    trainer = quiet(callbacks=writers)
    for times in (1, 2):
        trainer.predict(Same(), loader(4, batch_size=2))
        assert [len(writer.batches) for writer in writers] == [2 * times, 0, 2 * times]
        assert [indices for _, indices in writers[2].epochs] == [[[[0, 1], [2, 3]]]] * times


def test_a_batch_that_was_written_is_not_kept() -> None:
    """Nor is its prediction: so that predictions of any number fit into memory."""
    alive: list[int] = []
    made: list[weakref.ref[Tensor]] = []

    class Counting(Writer):
        def write_on_batch_end(self, trainer: Any, pl_module: LightningModule, prediction: Any, *rest: Any) -> None:
            made.append(weakref.ref(prediction))
            gc.collect()
            alive.append(sum(reference() is not None for reference in made))

    quiet(callbacks=Counting("batch")).predict(Same(), loader(8, batch_size=1), return_predictions=False)
    assert max(alive) <= 2  # this one, and the last one in the loop's variable


def test_a_prediction_without_a_writer_notes_nothing() -> None:
    trainer = quiet()
    given = loader(4, batch_size=2)
    trainer.predict(Same(), given)
    assert trainer.predict_dataloaders == [given]


# ---- what is refused ------------------------------------------------------------------------------------


@pytest.mark.parametrize("write_interval", ["step", None, True, "batch "])
def test_another_interval_is_refused(write_interval: Any) -> None:
    message = rf"write_interval={write_interval!r}; 'batch', 'epoch' or 'batch_and_epoch' is accepted"
    with pytest.raises(ConfigurationError, match=message):
        Writer(write_interval)


@pytest.mark.parametrize("write_interval, missing", [
    ("batch", "batch"), ("batch_and_epoch", "batch"), ("epoch", None)
])  # fmt: skip
def test_what_the_interval_needs_has_to_be_defined(write_interval: str, missing: str | None) -> None:
    class Half(BasePredictionWriter):
        def write_on_epoch_end(self, *args: Any) -> None: ...

    if missing is None:
        Half(write_interval)
        return
    with pytest.raises(
        ConfigurationError, match=f"write_interval='{write_interval}' needs Half.write_on_{missing}_end: define it"
    ):
        Half(write_interval)


def test_it_is_where_users_look_for_it() -> None:
    assert callbacks.BasePredictionWriter is BasePredictionWriter
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(written(loader(2, batch_size=1)).batches) == 2
