"""The loaders of a run: who provides them, their batches, when they are asked for again."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from models import Batches, Line, Stream, pairs, quiet
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

from refimpl import DataError, LightningDataModule, LightningModule
from refimpl.data import EvalLoaders, TrainLoader
from refimpl.progress import END


def options_with(limit: int | float = 1.0) -> Any:
    return SimpleNamespace(
        limit_train_batches=limit, val_check_interval=1.0, overfit_batches=0, multiple_trainloader_mode="max_size_cycle"
    )


def given_by(loader: TrainLoader) -> list[Any]:
    """An epoch's batches."""
    return [batch for batch, _ in loader.batches()]


# ---- training loaders ----------------------------------------------------------------------------------


@given(st.integers(1, 8), st.one_of(st.integers(1, 10), st.just(1.0)), st.booleans())
def test_exactly_the_last_batch_is_the_last(batches: int, limit: int | float, sized: bool) -> None:
    data: Any = DataLoader(range(batches), batch_size=None) if sized else Stream(range(batches))  # type: ignore[arg-type]
    loader = TrainLoader(data, options_with(limit), 0)
    used = batches if limit == 1.0 and type(limit) is float else min(batches, int(limit))
    for _ in range(2):  # epochs
        seen = [(batch, following is END) for batch, following in loader.batches()]
        assert seen == [(idx, idx == used - 1) for idx in range(used)]


@pytest.mark.parametrize("sized", [True, False])
def test_every_pass_over_a_training_loader_begins_in_one_place(sized: bool) -> None:
    kind = Batches if sized else Stream
    alone, shorter, longer = kind(range(2)), kind(range(2)), kind(range(5))
    begun: list[Any] = []

    class Noting(TrainLoader):
        def begin(self, loader: Any) -> Iterator[Any]:
            begun.append(loader)
            return super().begin(loader)

    assert given_by(Noting(alone, options_with(), 0)) == [0, 1] and begun == [alone]
    begun.clear()
    assert len(given_by(Noting([shorter, longer], options_with(), 0))) == 5
    assert begun == [shorter, longer, shorter, shorter]


def test_a_stream_is_read_one_batch_ahead_and_never_beyond_its_limit() -> None:
    stream = Stream(range(9))
    batches = TrainLoader(stream, options_with(), 0).batches()
    next(batches)
    assert stream.handed_out == 2
    stream = Stream(range(9))
    assert given_by(TrainLoader(stream, options_with(3), 0)) == [0, 1, 2]
    assert stream.handed_out == 3  # an endless iterator can give each epoch its next batches


def test_an_endless_iterator_feeds_each_epoch() -> None:
    def endless() -> Iterator[Any]:
        while True:
            yield from pairs(3)

    trainer = quiet(max_epochs=3, limit_train_batches=4, limit_val_batches=2, num_sanity_val_steps=2)
    trainer.fit(Line(), endless(), endless())
    assert trainer.global_step == 12


def test_an_exhausted_iterator_is_told_from_an_empty_loader() -> None:
    with pytest.raises(DataError, match="an iterator gives its batches only once"):
        quiet(max_epochs=2, limit_val_batches=0).fit(Line(), iter(pairs(3)))
    with pytest.raises(DataError, match=r"val_dataloader: .*an iterator gives its batches only once"):
        quiet(max_epochs=2).fit(Line(), pairs(2), iter(pairs(3)))
    with pytest.raises(DataError, match=r"the loader has no batch$"):
        quiet(limit_val_batches=0).fit(Line(), Stream([]))
    with pytest.raises(DataError, match=r"test_dataloader: the loader has no batch$"):
        quiet().test(Line(), Stream([]))


class Boasting(Batches):
    """Says that it has seven batches."""

    def __len__(self) -> int:
        return 7


@pytest.mark.parametrize("options, validations", [
    ({}, [3]), ({"val_check_interval": 0.5}, [3]), ({"val_check_interval": 7}, [3]), ({"val_check_interval": 2}, [2]),
    ({"limit_train_batches": 2}, [2]), ({"limit_train_batches": 5}, [3]), ({"limit_train_batches": 0.9}, [3]),
])  # fmt: skip
def test_an_epoch_ends_where_its_batches_end(options: dict[str, Any], validations: list[int]) -> None:
    """However many its loader has promised: what is due at its end runs."""
    seen: list[int] = []

    class Watching(Line):
        def on_validation_start(self) -> None:
            seen.append(self.trainer.global_step + 1)  # type: ignore[union-attr]

    quiet(**options).fit(Watching(), Boasting(pairs(3)), pairs(1))
    assert seen == validations


def test_the_last_window_of_a_loader_that_boasts_is_closed() -> None:
    trainer = quiet(accumulate_grad_batches=2)
    trainer.fit(Line(), Boasting(pairs(3)), Boasting(pairs(1)))
    assert trainer.global_step == 2


def test_a_loader_longer_than_it_says_is_cut() -> None:
    class Modest(Batches):
        def __len__(self) -> int:
            return 2

    trainer = quiet()
    trainer.fit(Line(), Modest(pairs(3)), pairs(1))
    assert trainer.global_step == 2


class Old:
    """Iterable by the old sequence protocol only."""

    def __getitem__(self, index: int) -> Any:
        return pairs(2).batches[index]


class Numbers(IterableDataset[Any]):
    def __iter__(self) -> Iterator[Any]:
        return iter(pairs(3))


@pytest.mark.parametrize("loader, batches", [(Old(), 2), (DataLoader(Numbers(), batch_size=None), 3)])
def test_anything_iterable_is_a_loader(loader: Any, batches: int) -> None:
    trainer = quiet(limit_val_batches=0)
    trainer.fit(Line(), loader)
    assert trainer.global_step == batches


def test_a_data_loader_with_a_short_last_batch() -> None:
    x, y = torch.ones(5, 2, dtype=torch.float64), torch.ones(5, 1, dtype=torch.float64)
    loader = DataLoader(TensorDataset(x, y), batch_size=2)
    sizes = quiet().predict(Line(), loader)
    assert sizes is not None and [len(prediction) for prediction in sizes] == [2, 2, 1]


# ---- evaluation loaders --------------------------------------------------------------------------------


@given(
    st.lists(st.integers(1, 5), min_size=1, max_size=4),
    st.integers(1, 6),
    st.one_of(st.none(), st.integers(0, 6)),
    st.booleans(),
)
def test_each_loader_gives_its_batches_up_to_the_limits(
    lengths: list[int], limit: int, at_most: int | None, sized: bool
) -> None:
    kind = Batches if sized else Stream
    loaders = EvalLoaders([kind(range(length)) for length in lengths], limit, "val")
    seen = [(index, list(batches)) for index, batches in loaders.batches(at_most)]
    counts = [min(length, limit, 6 if at_most is None else at_most) for length in lengths]
    assert seen == [(index, list(range(count))) for index, count in enumerate(counts)]
    assert loaders.several == (len(lengths) > 1)


def test_the_wrong_one_of_several_loaders_is_named() -> None:
    with pytest.raises(DataError, match=r"test_dataloader\[1\]: a loader is an iterable of batches, not int"):
        quiet().test(Line(), [pairs(1), 3])


@pytest.mark.parametrize("loaders, told", [
    ([[pairs(1), pairs(1)]], "val_dataloader is a list; a loader, or a flat list of loaders, is accepted"),
    ([pairs(1), [pairs(1)]], r"val_dataloader\[1\] is a list;"),
    ({"mnist": pairs(1)}, "val_dataloader is a dict;"),
    (pairs(2).batches, r"val_dataloader\[0\] is a tuple;"),
])  # fmt: skip
def test_evaluation_takes_no_nested_loaders(loaders: Any, told: str) -> None:
    with pytest.raises(DataError, match=told):
        quiet().validate(Line(), loaders)


@pytest.mark.parametrize("nothing", [[], ()])
def test_no_loader_at_all(nothing: Any) -> None:
    with pytest.warns(UserWarning, match="no loader to iterate over"):
        assert quiet().validate(Line(), nothing) == []


class Steps(Line):
    """Writes down the arguments of its steps after the batch."""

    def __init__(self) -> None:
        super().__init__()
        self.given: list[tuple[Any, ...]] = []


def with_step(step: Any) -> Steps:
    module: Steps = type("Steps", (Steps,), {"validation_step": step})()
    return module


def optional(self: Steps, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
    self.given.append((batch_idx, dataloader_idx))


def required(self: Steps, batch: Any, batch_idx: int, dataloader_idx: int) -> None:
    self.given.append((batch_idx, dataloader_idx))


def anything(self: Steps, *args: Any) -> None:
    self.given.append(args[1:])


def two(self: Steps, batch: Any, batch_idx: int) -> None:
    self.given.append((batch_idx,))


def one(self: Steps, batch: Any) -> None:
    self.given.append(())


def by_name(self: Steps, batch: Any, batch_idx: int, **more: Any) -> None:
    self.given.append((batch_idx,))


@pytest.mark.parametrize("step, alone, among", [
    (optional, (1, 0), (1, 1)), (required, (1, 0), (1, 1)), (anything, (1,), (1, 1)),
    (two, (1,), None), (one, (), None), (by_name, (1,), None),
])  # fmt: skip
def test_dataloader_idx_is_given_with_several_loaders(step: Any, alone: Any, among: Any) -> None:
    module = with_step(step)
    quiet().validate(module, pairs(2))
    assert module.given[-1] == alone
    several = [pairs(1), pairs(2)]
    if among is None:
        with pytest.raises(DataError, match="validation_step has no argument dataloader_idx"):
            quiet().validate(module, several)
    else:
        quiet().validate(module, several)
        assert module.given[-1] == among


# ---- who provides them ---------------------------------------------------------------------------------


class Data(LightningDataModule):
    def train_dataloader(self) -> Any:
        return pairs(4)

    def predict_dataloader(self) -> Any:
        return pairs(4)


class Own(Line):
    def train_dataloader(self) -> Any:
        return pairs(2)

    def predict_dataloader(self) -> Any:
        return pairs(2)


def steps(module: LightningModule, *args: Any, **kwargs: Any) -> int:
    trainer = quiet(limit_val_batches=0)
    trainer.fit(module, *args, **kwargs)
    return trainer.global_step


def test_given_loaders_come_before_the_data_module_and_that_before_the_module() -> None:
    assert steps(Own()) == 2
    assert steps(Own(), datamodule=Data()) == 4
    assert steps(Own(), Data()) == 4  # the documentation passes it in the loaders' place
    assert steps(Own(), pairs(3)) == 3
    predictions = quiet().predict(Own(), Data())
    assert predictions is not None and len(predictions) == 4


def test_a_missing_loader_is_named() -> None:
    with pytest.raises(ValueError, match=r"test needs batches: .* or define Line\.test_dataloader"):
        quiet().test(Line())


# ---- when they are asked for again ---------------------------------------------------------------------


class Asking(Line):
    """Notes in which epoch its loaders are asked for, and gives one batch more each time."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: dict[str, list[int]] = {"train": [], "val": [], "test": []}
        self.validated: list[int] = []

    def dataloader(self, stage: str) -> Any:
        assert self.trainer is not None
        self.asked[stage].append(self.trainer.current_epoch)
        return pairs(len(self.asked[stage]))

    def train_dataloader(self) -> Any:
        return self.dataloader("train")

    def val_dataloader(self) -> Any:
        return self.dataloader("val")

    def test_dataloader(self) -> Any:
        return self.dataloader("test")

    def validation_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        self.validated.append(self.current_epoch)


def due(epochs: list[int], every: int) -> list[int]:
    """Those of `epochs` in which a loader is asked for: the first, and each that lies `every` after the last."""
    asked = epochs[:1]
    for epoch in epochs:
        if every and epoch >= asked[-1] + every:
            asked.append(epoch)
    return asked


@settings(max_examples=30)
@given(st.integers(0, 4), st.integers(1, 7), st.integers(1, 3), st.booleans())
def test_loaders_are_asked_for_again_after_so_many_epochs(
    every: int, epochs: int, check_every: int, sanity: bool
) -> None:
    module = Asking()
    trainer = quiet(
        max_epochs=epochs, check_val_every_n_epoch=check_every, num_sanity_val_steps=int(sanity),
        reload_dataloaders_every_n_epochs=every,
    )  # fmt: skip
    trainer.fit(module)
    train = due(list(range(epochs)), every)
    validated = list(range(check_every - 1, epochs, check_every))
    assert module.asked["train"] == train
    assert module.asked["val"] == due([0] * sanity + validated, every)
    assert trainer.global_step == sum(sum(asked <= epoch for asked in train) for epoch in range(epochs))
    assert trainer.num_training_batches == len(train)


def test_a_loader_given_to_the_call_is_kept() -> None:
    module, given_loader = Asking(), pairs(2)
    trainer = quiet(max_epochs=4, reload_dataloaders_every_n_epochs=2)
    trainer.fit(module, given_loader)
    assert (module.asked["train"], module.asked["val"], given_loader.passes) == ([], [0, 2], 4)


def test_each_run_asks_anew() -> None:
    module = Asking()
    trainer = quiet(max_epochs=3, reload_dataloaders_every_n_epochs=2)
    trainer.fit(module)
    trainer.test()
    trainer.test()
    trainer.max_epochs = 6
    trainer.fit(module)
    assert module.asked == {"train": [0, 2, 3, 5], "val": [0, 2, 3, 5], "test": [3, 3]}


def test_the_retired_spelling_of_reloading() -> None:
    with pytest.warns(DeprecationWarning, match="use reload_dataloaders_every_n_epochs"):
        assert quiet(reload_dataloaders_every_epoch=True).reload_dataloaders_every_n_epochs == 1
