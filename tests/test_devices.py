"""Moving and detaching batches of any nesting. The device "meta" stands for another one: it needs none."""

from __future__ import annotations

from collections import ChainMap, Counter, OrderedDict, UserDict, defaultdict, namedtuple
from collections.abc import Callable
from dataclasses import dataclass
from types import MappingProxyType, SimpleNamespace
from typing import Any, NamedTuple

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from refimpl.devices import parallel
from refimpl.loaders.batches import detach, move

META = torch.device("meta")


class Pair(NamedTuple):
    first: Any
    second: Any


class Attributes(dict[str, Any]):
    """The usual recipe: keys as attributes, and a KeyError for every other name."""

    __getattr__ = dict.__getitem__


class Row(list[Any]):
    pass


LEAVES = st.one_of(
    st.integers(0, 4).map(lambda size: torch.ones(size, requires_grad=True)),
    st.integers(),
    st.text(max_size=2),
    st.none(),
    st.frozensets(st.integers(), max_size=2),
)


def nested(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    dicts = st.dictionaries(st.text(max_size=2), inner, max_size=3)
    return st.one_of(
        st.lists(inner, max_size=3),
        st.lists(inner, max_size=3).map(tuple),
        st.lists(inner, max_size=3).map(Row),
        st.builds(Pair, inner, inner),
        dicts,
        dicts.map(OrderedDict),
        dicts.map(Attributes),
        dicts.map(UserDict),
        dicts.map(MappingProxyType),
        dicts.map(lambda items: defaultdict(list, items)),
    )


BATCHES = st.recursive(LEAVES, nested, max_leaves=8)


def same(one: Any, other: Any, leaf: Callable[[Tensor, Tensor], bool]) -> bool:
    """Whether two batches are built alike, their tensors related by `leaf`, all else equal."""
    if type(one) is not type(other):
        return False
    if isinstance(one, Tensor):
        return leaf(one, other)
    if isinstance(one, (dict, UserDict, MappingProxyType)):
        return list(one) == list(other) and all(same(one[key], other[key], leaf) for key in one)
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(same(a, b, leaf) for a, b in zip(one, other))
    return bool(one == other)


@given(BATCHES)
def test_move_moves_every_tensor_and_changes_nothing_else(batch: Any) -> None:
    moved = move(batch, META)
    assert same(batch, moved, lambda a, b: a.device.type == "cpu" and b.device == META and a.shape == b.shape)


@given(BATCHES)
def test_to_the_same_device_nothing_is_copied(batch: Any) -> None:
    assert same(batch, move(batch, torch.device("cpu")), lambda a, b: a is b)


@given(BATCHES)
def test_detach_detaches_every_tensor_and_changes_nothing_else(output: Any) -> None:
    detached = detach(output)
    assert same(output, detached, lambda a, b: a.requires_grad > b.requires_grad and torch.equal(a, b))


@dataclass(frozen=True)
class Output:
    loss: torch.Tensor
    name: str = "kept"


def test_detach_reaches_what_is_in_a_dataclass() -> None:
    [detached] = detach([output := Output(torch.ones((), requires_grad=True))])
    assert isinstance(detached, Output) and not detached.loss.requires_grad and detached.name == "kept"
    assert output.loss.requires_grad


def test_settings_of_a_mapping_are_kept() -> None:
    batch: Any = defaultdict(list, a=torch.ones(1))
    assert move(batch, META).default_factory is list
    counter = Counter(a=2)
    assert move(counter, META) == counter  # its update() would add
    attributes: Any = Attributes(x=torch.ones(1))
    attributes.__dict__["note"] = "kept"
    assert move(attributes, META).__dict__ == {"note": "kept"}
    assert attributes.x.device.type == "cpu"  # the original is not changed


def test_keys_that_are_attributes_stay_so() -> None:
    class Bag(dict[str, Any]):
        def __init__(self, name: str, **items: Any) -> None:
            super().__init__(**items)
            self.__dict__ = self

    moved = move(Bag("b", x=torch.ones(1)), META)
    assert type(moved) is Bag
    assert vars(moved) is moved and moved["x"].device == META


def test_a_field_called_to_is_a_field() -> None:
    edge = namedtuple("edge", "src to")
    moved = move(edge(torch.ones(1), torch.ones(1)), META)
    assert moved.to.device == META


class Movable:
    def __init__(self) -> None:
        self.place = torch.device("cpu")

    def to(self, device: torch.device) -> Movable:
        self.place = device
        return self


class InPlace(Movable):
    def to(self, device: torch.device) -> None:  # type: ignore[override]
        super().to(device)


@pytest.mark.parametrize("kind", [Movable, InPlace])
def test_anything_with_to_is_moved(kind: type[Movable]) -> None:
    batch = [kind()]
    assert move(batch, META)[0].place == META
    assert move(batch, META)[0] is batch[0]


def test_a_packed_sequence_is_moved() -> None:
    packed = torch.nn.utils.rnn.pack_sequence([torch.ones(2), torch.ones(1)])
    assert move(packed, META).data.device == META


def test_what_is_none_of_these_is_left_for_the_user_to_move() -> None:
    class Sample:
        def __init__(self) -> None:
            self.x = torch.ones(1)

    for batch in (Sample(), {torch.ones(1)}, range(3), Movable):
        assert move(batch, META) is batch


def test_a_mapping_without_a_copy_is_built_anew() -> None:
    moved = move(ChainMap({"a": torch.ones(1)}), META)
    assert type(moved) is ChainMap and moved["a"].device == META


@pytest.mark.parametrize("outside", [True, False])
def test_parallel_turns_gradients_on_and_gives_the_callers_mode_back(outside: bool) -> None:
    devices: Any = SimpleNamespace(options=SimpleNamespace(deterministic=False, benchmark=False))
    with torch.set_grad_enabled(outside):
        with parallel(devices):
            assert torch.is_grad_enabled()
            torch.set_grad_enabled(False)
        assert torch.is_grad_enabled() is outside
        with pytest.raises(ValueError), parallel(devices):
            torch.set_grad_enabled(not outside)
            raise ValueError
        assert torch.is_grad_enabled() is outside


def test_parallel_leaves_inference_mode() -> None:
    devices: Any = SimpleNamespace(options=SimpleNamespace(deterministic=False, benchmark=False))
    with torch.inference_mode():
        with parallel(devices):
            assert torch.ones(1, requires_grad=True).mul(2).requires_grad
        assert torch.is_inference_mode_enabled()


@pytest.mark.parametrize("device, waits", [("cuda:0", False), ("cpu", True), ("meta", True)])
def test_only_on_its_way_to_a_gpu_nobody_waits_for_a_batch(
    device: str, waits: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[Any, ...]] = []
    monkeypatch.setattr(Tensor, "to", lambda self, *args, **kwargs: asked.append((*args, kwargs)))
    there = torch.ones(1, device="meta" if device == "cpu" else "cpu")
    move({"x": there}, torch.device(device))
    assert asked == [(torch.device(device), {"non_blocking": not waits})]
