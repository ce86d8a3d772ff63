"""Several training loaders as one: what its batches are, when a pass ends, which loader is blamed."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any, NamedTuple

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from models import Batches, Line, Stream, pairs, quiet
from torch import Tensor

from refimpl import ConfigurationError, DataError
from refimpl.loaders.combined import MODES, CombinedLoader, leaves, structured
from refimpl.loaders.loaders import length


@dataclass(frozen=True)
class Leaf:
    """A loader to be: the batches (number, 0), (number, 1), ..."""

    number: int
    batches: int
    sized: bool

    def loader(self) -> Any:
        return (Batches if self.sized else Stream)((self.number, k) for k in range(self.batches))


LEAVES = st.builds(Leaf, st.integers(0, 99), st.integers(1, 7), st.booleans())
NESTED: st.SearchStrategy[Any] = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.lists(inner, min_size=1, max_size=3),
        st.lists(inner, min_size=1, max_size=3).map(tuple),
        st.dictionaries(st.sampled_from(["mnist", "cifar", 3]), inner, min_size=1, max_size=3),
    ),
    max_leaves=6,
).filter(lambda drawn: not isinstance(drawn, Leaf))


def with_each(nested: Any, change: Callable[[Leaf], Any]) -> Any:
    """The structure, written down without the engine: tuples become lists."""
    if isinstance(nested, dict):
        return {key: with_each(inner, change) for key, inner in nested.items()}
    return [with_each(inner, change) for inner in nested] if isinstance(nested, (list, tuple)) else change(nested)


@given(NESTED, st.sampled_from(MODES))
def test_each_batch_is_one_of_every_loader(nested: Any, mode: str) -> None:
    drawn: list[Leaf] = []
    with_each(nested, drawn.append)
    batches = (min if mode == "min_size" else max)(leaf.batches for leaf in drawn)
    combined = CombinedLoader(with_each(nested, Leaf.loader), mode)
    for _ in range(2):  # passes
        seen = list(combined)
        assert len(seen) == batches
        for k, batch in enumerate(seen):
            assert batch == with_each(nested, lambda leaf, k=k: (leaf.number, k % leaf.batches))  # type: ignore[misc]
    assert length(combined) == (batches if all(leaf.sized for leaf in drawn) else None)


@given(st.lists(st.integers(1, 6), min_size=1, max_size=4), st.integers(0, 9))
def test_every_pass_over_a_loader_is_begun_and_none_too_many(lengths: list[int], limit: int) -> None:
    """By way of `begin`: at first all of them, then a shorter one whenever another batch of it is needed."""
    begun: list[int] = []

    def begin(loader: Batches) -> Iterator[Any]:
        begun.append(loaders.index(loader))
        return iter(loader)

    loaders = [Batches(range(length)) for length in lengths]
    taken = min(limit, max(lengths))
    assert len(list(islice(CombinedLoader(loaders, "max_size_cycle", begin), limit))) == taken
    assert begun[: len(lengths)] == (list(range(len(lengths))) if limit else [])
    for index, batches in enumerate(lengths):
        assert begun.count(index) == -(-taken // batches)


class Shuffled:
    """A loader whose order is drawn as a pass begins."""

    def __len__(self) -> int:
        return 3

    def __iter__(self) -> Iterator[int]:
        return iter(torch.randperm(3).tolist())


def test_a_shorter_loader_is_shuffled_anew() -> None:
    torch.manual_seed(0)
    batches = [short for _, short in CombinedLoader([Batches(range(30)), Shuffled()], "max_size_cycle")]
    orders = {tuple(batches[start : start + 3]) for start in range(0, 30, 3)}
    assert all(sorted(order) == [0, 1, 2] for order in orders) and len(orders) > 1


def test_what_lies_where() -> None:
    class Pair(NamedTuple):
        first: Any
        second: Any

    loaders = {"mnist": Pair(1, [2]), "cifar": OrderedDict(a=3)}
    names = ["x['mnist'][0]", "x['mnist'][1][0]", "x['cifar']['a']"]
    assert list(leaves(loaders, "x")) == list(zip(names, [1, 2, 3]))
    assert structured(loaders, iter("abc")) == {"mnist": ["a", ["b"]], "cifar": {"a": "c"}}
    assert list(leaves(7, "x")) == [("x", 7)]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("loaders, told", [
    ({"mnist": Stream([]), "cifar": pairs(2)}, r"train_dataloader\['mnist'\]: the loader has no batch$"),
    ([pairs(2), {"a": Stream([])}], r"train_dataloader\[1\]\['a'\]: the loader has no batch$"),
    ([Stream([])], r"train_dataloader\[0\]: the loader has no batch$"),
])  # fmt: skip
def test_the_empty_one_is_named(loaders: Any, told: str, mode: str) -> None:
    with pytest.raises(DataError, match=told):
        quiet(limit_val_batches=0, multiple_trainloader_mode=mode).fit(Line(), loaders)


def test_an_iterator_cannot_start_anew() -> None:
    once = iter(range(2))
    with pytest.raises(DataError, match=r"\[1\]: the loader has no batch; an iterator gives its batches only once"):
        list(CombinedLoader([Batches(range(3)), once], "max_size_cycle"))
    assert list(CombinedLoader([Batches(range(3)), iter(range(2))], "min_size")) == [[0, 0], [1, 1]]


# ---- in a fit ------------------------------------------------------------------------------------------


class Both(Line):
    """Trains on the batches of two loaders, and remembers what it was given."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[Any] = []

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        self.seen.append(batch)
        self.log("number", 1.0 + batch_idx, on_step=False, on_epoch=True)
        each = batch.values() if isinstance(batch, dict) else batch
        return torch.stack([self.loss(one) for one in each]).sum()


@pytest.mark.parametrize("mode, batches", [("max_size_cycle", 5), ("min_size", 3)])
def test_the_documented_examples(mode: str, batches: int) -> None:
    """A list of loaders makes lists of batches, a dict dicts; the limit is one of the combined batches."""
    mnist, cifar = pairs(5), pairs(3, size=4, seed=1)
    trainer = quiet(multiple_trainloader_mode=mode, limit_val_batches=0)
    module = Both()
    trainer.fit(module, [mnist, cifar])
    assert [len(batch) for batch in module.seen] == [2] * batches == [2] * int(trainer.num_training_batches)
    assert all(type(batch) is list for batch in module.seen)
    assert torch.equal(module.seen[2][1][0], list(cifar)[2][0])

    module = Both()
    trainer = quiet(multiple_trainloader_mode=mode, limit_train_batches=2, limit_val_batches=0)
    trainer.fit(module, {"mnist": mnist, "cifar": cifar})
    assert [list(batch) for batch in module.seen] == [["mnist", "cifar"]] * 2
    assert trainer.num_training_batches == trainer.global_step == 2


@pytest.mark.parametrize("mode, validations", [("max_size_cycle", [3, 6]), ("min_size", [2, 4])])
def test_fractions_are_those_of_the_combined_length(mode: str, validations: list[int]) -> None:
    steps: list[int] = []

    class Noting(Both):
        def on_validation_start(self) -> None:
            steps.append(len(self.seen))

    trainer = quiet(multiple_trainloader_mode=mode, val_check_interval=0.5)
    trainer.fit(Noting(), [pairs(6), pairs(4)], pairs(1))
    assert steps == validations


def test_of_unknown_length_where_one_loader_is() -> None:
    trainer = quiet(limit_val_batches=0)
    module = Both()
    trainer.fit(module, [pairs(2), Stream(pairs(5))])
    assert (len(module.seen), trainer.num_training_batches) == (5, float("inf"))
    with pytest.raises(DataError, match=r"limit_train_batches=0\.5 needs a loader with a length"):
        quiet(limit_val_batches=0, limit_train_batches=0.5).fit(Both(), [pairs(2), Stream(pairs(5))])


def test_an_epoch_ends_with_a_longest_loader_that_is_shorter_than_it_says() -> None:
    class Boasting(Batches):
        def __len__(self) -> int:
            return 7

    trainer = quiet(accumulate_grad_batches=2)
    trainer.fit(Both(), [pairs(2), Boasting(pairs(3))], pairs(1))
    assert trainer.global_step == 2


def test_a_logged_value_weighs_as_the_first_loaders_batch() -> None:
    trainer = quiet(limit_val_batches=0)
    trainer.fit(Both(), [Batches([*pairs(1, size=1), *pairs(1, size=3)]), pairs(2, size=5)])
    assert float(trainer.callback_metrics["number"]) == (1 * 1 + 2 * 3) / 4


def test_an_unknown_mode() -> None:
    with pytest.raises(ConfigurationError, match="mode='shortest'; 'max_size_cycle' or 'min_size' is accepted"):
        quiet(multiple_trainloader_mode="shortest")


@pytest.mark.parametrize("mode, batches", [("min_size", 2), ("max_size_cycle", 3)])
def test_loaders_in_step_can_be_evaluated_and_trained_on(mode: str, batches: int) -> None:
    """A CombinedLoader is a loader like any other; for training it is what its loaders and its mode say."""
    seen: list[Any] = []

    class Pairs(Both):
        def validation_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
            seen.append(batch)

    combined, trainer = CombinedLoader({"a": pairs(2), "b": pairs(3)}, mode), quiet()
    trainer.validate(Pairs(), combined)
    assert len(seen) == batches == trainer.num_val_batches[0] and set(seen[0]) == {"a", "b"}
    trainer.fit(Pairs(), CombinedLoader([pairs(2), pairs(3)], mode), combined)
    assert trainer.num_training_batches == batches
