"""Objects that hold settings, as plain data that `torch.load(weights_only=True)` reads, and back."""

from __future__ import annotations

import enum
import io
import sys
from argparse import Namespace
from collections import Counter, OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from refimpl import CheckpointError, ConfigurationError, HyperparametersMixin
from refimpl.saving.config import AttributeDict, Kinds, build, is_config, kind_of, plain, rebuilt, settings
from refimpl.saving.hparams import init_arguments, logged_hparams, plain_hparams


@dataclass(frozen=True)
class Frozen:
    a: Any
    b: Any = 2
    unset: Any = field(init=False, repr=False, compare=False)


class Color(enum.IntEnum):
    RED = 1


class Pair(NamedTuple):
    x: int


def read(form: Any) -> Any:
    file = io.BytesIO()
    torch.save(form, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), st.text(), st.binary(max_size=3),
    st.sampled_from([torch.float16, torch.device("cpu"), torch.Size([1, 2])]),
)  # fmt: skip
KEYS = st.one_of(st.text(), st.integers(), st.none(), st.tuples(st.text(), st.booleans()))
NAMED = st.dictionaries(st.from_regex(r"[a-z_]{1,8}", fullmatch=True), st.deferred(lambda: VALUES), max_size=3)
VALUES: st.SearchStrategy[Any] = st.one_of(
    SCALARS,
    st.builds(Path, st.sampled_from(["a", "a/b", "/tmp"])),
    st.lists(st.deferred(lambda: VALUES), max_size=3),
    st.lists(st.deferred(lambda: VALUES), max_size=3).map(tuple),
    st.dictionaries(KEYS, st.deferred(lambda: VALUES), max_size=3),
    st.dictionaries(KEYS, st.deferred(lambda: VALUES), max_size=3).map(OrderedDict),
    st.sets(st.one_of(st.integers(), st.text()), max_size=3),
    NAMED.map(AttributeDict),
    NAMED.map(lambda entries: Namespace(**entries)),
)


def same(one: Any, other: Any) -> bool:
    """Equal, and of the same types throughout."""
    if type(one) is not type(other):
        return False
    if isinstance(one, Namespace):
        one, other = vars(one), vars(other)
    if isinstance(one, Mapping):
        return list(one) == list(other) and all(same(one[key], other[key]) for key in one)
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(same, one, other))
    return bool(one == other)


@given(VALUES)
def test_a_value_survives_a_checkpoint(value: Any) -> None:
    kinds: Kinds = {}
    form = read(plain(value, ("name",), kinds))
    assert same(rebuilt(form, ("name",), read(kinds)), value)


@pytest.mark.parametrize("value, form, kinds", [
    (np.float64(0.5), 0.5, {}),
    (np.int64(3), 3, {}),
    ({np.int64(3): {np.str_("a")}}, {3: {"a"}}, {}),
    (b"\xff", "\xff", {(): "bytes"}),
    ([Path("a"), {"n": (Namespace(p=Path("b")),)}], ["a", {"n": ({"p": "b"},)}], {
        (0,): "Path", (1, "n", 0): "Namespace", (1, "n", 0, "p"): "Path"
    }),
    (Frozen({"k": Frozen(1)}), {"a": {"k": {"a": 1, "b": 2}}, "b": 2}, {(): "dataclass", ("a", "k"): "dataclass"}),
    (Counter("aa"), {"a": 2}, {(): "AttributeDict"}),
])  # fmt: skip
def test_forms(value: Any, form: Any, kinds: Kinds) -> None:
    noted: Kinds = {}
    assert same(plain(value, (), noted), form) and noted == kinds


def test_dataclasses_come_back_with_attributes() -> None:
    kinds: Kinds = {}
    config = rebuilt(plain(Frozen([Frozen(1)]), (), kinds), (), kinds)
    assert (config.a[0].a, config.a[0].b, config.b) == (1, 2, 2)


def test_tensors_are_kept() -> None:
    for tensor in (torch.ones(2, 3), nn.Parameter(torch.zeros(2)), torch.ones(2, requires_grad=True) * 2):
        form = read(plain([tensor], (), {}))[0]
        assert type(form) is type(tensor) and torch.equal(form, tensor)


@pytest.mark.parametrize("value", [
    Color.RED, Pair(1), nn.Linear(1, 1), object(), lambda: None, int, frozenset([1]), np.ones(2), PurePosixPath("a"),
    1j, Frozen, {"deep": [(object(),)]}, {Path("a"): 1}, {Path("a")}, {Frozen(1): 1}, {(b"a",): 1}, Counter([1]),
    type("Text", (str,), {})("a"),
], ids=lambda value: type(value).__name__)  # fmt: skip
def test_what_is_no_plain_data_is_refused(value: Any) -> None:
    with pytest.raises(ConfigurationError):
        plain(value, (), {})


def test_a_config_without_names_holds_no_settings() -> None:
    assert kind_of(3) is None and not is_config({})
    assert settings(Frozen(1)) == {"a": 1, "b": 2}


@pytest.mark.parametrize("kind, form", [
    ("Path", 3), ("bytes", None), ("bytes", "\u20ac"), ("Namespace", [1]), ("AttributeDict", 1), ("OmegaConf", 3),
])  # fmt: skip
def test_a_form_that_is_none_of_its_kind(kind: str, form: Any) -> None:
    pytest.importorskip("omegaconf")
    with pytest.raises(CheckpointError, match=rf"hyperparameters hold a {kind} made of "):
        build(kind, form)


# ---- OmegaConf -----------------------------------------------------------------------------------------


class Net(HyperparametersMixin):
    def __init__(self, cfg: Any, lr: float = 0.1) -> None:
        self.cfg = cfg
        self.save_hyperparameters(cfg)


@pytest.fixture
def create() -> Any:
    return pytest.importorskip("omegaconf").OmegaConf.create  # the extra "omegaconf"


def again(model: Net, **overrides: Any) -> Net:
    return Net(**init_arguments(Net, read(plain_hparams(model)[0]), overrides)[1])


def test_an_omegaconf_config_is_kept_as_such_and_comes_back(create: Any) -> None:
    config = create({"net": {"depth": 2, "width": "${net.depth}"}, "path": "???"})
    model = Net(config)
    assert model.hparams is config and model.hparams_initial is not config
    config.net.depth = 3
    assert model.hparams_initial.net.depth == 2
    assert logged_hparams(model) == {"net": {"depth": 3, "width": 3}, "path": "???"}
    assert plain_hparams(model)[0]["hparams_arguments"] == {"cfg": ("OmegaConf", ["net", "path"])}
    loaded = again(model, path="there")
    assert is_config(loaded.hparams) and loaded.hparams == {"net": {"depth": 3, "width": 3}, "path": "there"}
    assert loaded.hparams.net.depth == 3


def test_a_config_with_more_is_an_attribute_dict(create: Any) -> None:
    class More(Net):
        def __init__(self, cfg: Any, lr: float = 0.1) -> None:
            super().__init__(cfg)
            self.save_hyperparameters("lr")

    model = More(create({"net": {"depth": 2}, "lr": 0.2}))
    assert type(model.hparams) is AttributeDict
    assert (model.hparams.net.depth, model.hparams.lr, model.hparams_initial.lr) == (2, 0.1, 0.1)
    assert is_config(again(model).cfg)

    class Less(HyperparametersMixin):
        def __init__(self, cfg: Any) -> None:
            self.save_hyperparameters({"first": 1})
            self.save_hyperparameters(cfg, ignore="secret")
            self.save_hyperparameters(create({"last": 3}))

    assert Less(create({"net": {"depth": 2}, "secret": "x"})).hparams == {"first": 1, "net": {"depth": 2}, "last": 3}


def test_an_interpolation_that_leads_nowhere_stays(create: Any) -> None:
    model = Net(create({"a": "${nowhere}", "b": [1]}))
    assert plain_hparams(model)[0]["hyper_parameters"] == {"a": "${nowhere}", "b": [1]}
    assert again(model).cfg.b == [1]


def test_a_list_of_omegaconf_has_no_names(create: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"ListConfig \[1\]; accepted are"):
        Net(create([1]))
    kinds: Kinds = {}
    form = plain({"sizes": create([1, {"a": 2}])}, (), kinds)
    assert form == {"sizes": [1, {"a": 2}]} and kinds == {("sizes",): "OmegaConf"}
    assert rebuilt(form, (), kinds)["sizes"][1].a == 2


def test_a_config_without_omegaconf_is_an_error_that_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "omegaconf", None)
    assert not is_config({})
    with pytest.raises(ModuleNotFoundError, match=r"'refimpl-conformance\[omegaconf\]'"):
        build("OmegaConf", {"a": 1})
    saved = {"hyper_parameters": {"a": 1}, "hparams_arguments": {"cfg": ("OmegaConf", ["a"])}}
    assert init_arguments(Net, saved, {"cfg": {"a": 2}}) == ([], {"cfg": {"a": 2}})  # nor is one needed
