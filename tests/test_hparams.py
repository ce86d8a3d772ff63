"""Hyperparameters: which arguments are kept, with which values; what loggers and checkpoints get of them."""

from __future__ import annotations

import copy
import functools
import io
import pickle
import sys
import threading
from argparse import Namespace
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from models import pairs, quiet
from torch import nn

from refimpl import ConfigurationError, HyperparametersMixin, LightningDataModule, LightningModule
from refimpl.saving.config import AttributeDict
from refimpl.saving.hparams import init_arguments, logged_hparams, plain_hparams


@dataclass
class Settings:
    p1: int = 1
    p2: str = "abc"
    p3: float = 3.14


class All(HyperparametersMixin):
    def __init__(self, arg1: Any, arg2: Any = "abc", *, arg3: Any = 3.14) -> None:
        super().__init__()
        self.save_hyperparameters()


class Single(HyperparametersMixin):
    def __init__(self, params: Any, other: Any = None) -> None:
        super().__init__()
        self.given = params
        self.save_hyperparameters(params)


def saving(*args: Any, **options: Any) -> Callable[..., HyperparametersMixin]:
    """The documentation's class of three arguments, which calls `save_hyperparameters(*args, **options)`."""

    class Model(HyperparametersMixin):
        def __init__(self, arg1: Any, arg2: Any, arg3: Any) -> None:
            super().__init__()
            self.save_hyperparameters(*args, **options)

    return Model


# ---- what is kept --------------------------------------------------------------------------------------


@pytest.mark.parametrize("args, options, kept", [
    (["arg1", "arg3"], {}, '"arg1": 1\n"arg3": 3.14'),
    ([], {}, '"arg1": 1\n"arg2": abc\n"arg3": 3.14'),
    ([], {"ignore": "arg2"}, '"arg1": 1\n"arg3": 3.14'),
    ([], {"ignore": ["arg3", "arg2"]}, '"arg1": 1'),
    (["arg3", "arg1"], {"ignore": ("arg1",)}, '"arg3": 3.14'),
])  # fmt: skip
def test_the_documentations_forms(args: list[str], options: dict[str, Any], kept: str) -> None:
    assert str(saving(*args, **options)(1, "abc", 3.14).hparams) == kept


@pytest.mark.parametrize("params", [
    Namespace(p1=1, p2="abc", p3=3.14),
    {"p1": 1, "p2": "abc", "p3": 3.14},
    AttributeDict(p1=1, p2="abc", p3=3.14),
    Settings(),
])  # fmt: skip
def test_one_object(params: Any) -> None:
    hparams = Single(params).hparams
    assert repr(hparams) == '"p1": 1\n"p2": abc\n"p3": 3.14'
    hparams.p1 = 2
    assert Single(params).hparams == {"p1": 1, "p2": "abc", "p3": 3.14}  # the object is left alone

    class Ignoring(HyperparametersMixin):
        def __init__(self, params: Any) -> None:
            self.save_hyperparameters(params, ignore=["p1"])

    assert Ignoring(params).hparams == {"p2": "abc", "p3": 3.14}


def test_keyword_only_arguments_defaults_and_those_of_kwargs_are_kept_by_name() -> None:
    class Star(HyperparametersMixin):
        def __init__(self, a: int, b: int = 2, *args: int, c: int = 3, **kwargs: int) -> None:
            local = a + b  # noqa: F841
            self.save_hyperparameters()

    assert Star(1).hparams == {"a": 1, "b": 2, "c": 3}
    assert Star(1, 5, 6, 7, d=8).hparams == {"a": 1, "b": 5, "c": 3, "d": 8}


def test_values_are_those_of_the_call() -> None:
    class Late(HyperparametersMixin):
        def __init__(self, lr: float | None = None, gone: int = 0) -> None:
            lr = 0.1 if lr is None else lr
            del gone
            self.save_hyperparameters()
            lr = -1.0

    assert Late().hparams == {"lr": 0.1}


def test_an_argument_that_a_local_function_uses_is_kept() -> None:
    class Closing(HyperparametersMixin):
        def __init__(self, a: int) -> None:
            self.call = lambda: (self, a)
            self.save_hyperparameters()

    assert Closing(1).hparams == {"a": 1}


class Parent(HyperparametersMixin):
    def __init__(self, a: int, b: int = 2) -> None:
        super().__init__()
        self.save_hyperparameters()


class Child(Parent):
    def __init__(self, a: int, c: int = 3) -> None:
        super().__init__(a + 10, b=5)


def test_arguments_are_collected_along_the_chain() -> None:
    assert Child(1).hparams == {"a": 1, "b": 5, "c": 3}

    class Naming(Child):
        def __init__(self, d: int) -> None:
            self.save_hyperparameters("d")
            super().__init__(7)

    assert Naming(4).hparams == {"d": 4, "a": 7, "b": 5, "c": 3}


def test_calls_add_up_from_wherever_they_come() -> None:
    class Helped(HyperparametersMixin):
        def __init__(self, a: int, b: int, c: int) -> None:
            self.save_hyperparameters("a")
            self.keep()
            self.save_hyperparameters({"d": 4})

        def keep(self) -> None:
            (lambda: self.save_hyperparameters("b"))()

    model = Helped(1, 2, 3)
    assert model.hparams == {"a": 1, "b": 2, "d": 4}
    model.save_hyperparameters({"a": 9, "e": 5})
    assert model.hparams == {"a": 9, "b": 2, "d": 4, "e": 5}
    assert model.hparams_initial == model.hparams


def test_a_model_within_a_model_has_its_own() -> None:
    class Outer(HyperparametersMixin):
        def __init__(self, a: int, y: int) -> None:
            self.inner = Parent(7)
            self.save_hyperparameters()

    outer = Outer(1, 2)
    assert outer.hparams == {"a": 1, "y": 2}
    assert outer.inner.hparams == {"a": 7, "b": 2}


def test_an_init_in_a_decorator_or_of_a_dataclass() -> None:
    def decorated(init: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(init)
        def call(self: Any, *args: Any, **kwargs: Any) -> None:
            init(self, *args, **kwargs)

        return call

    class Decorated(HyperparametersMixin):
        @decorated
        def __init__(self, a: int, b: int = 2) -> None:
            self.save_hyperparameters()

    @dataclass
    class Data(HyperparametersMixin):
        a: int
        b: int = 2

        def __post_init__(self) -> None:
            self.save_hyperparameters()

    assert Decorated(1).hparams == {"a": 1, "b": 2}
    assert Data(1).hparams == {"a": 1, "b": 2}


def test_a_frame_says_where_to_look() -> None:
    class Later(HyperparametersMixin):
        def __init__(self, a: int) -> None:
            self.frame: FrameType | None = sys._getframe()

    model = Later(1)
    model.save_hyperparameters(frame=model.frame)
    assert model.hparams == {"a": 1}


# ---- what is refused -----------------------------------------------------------------------------------


@pytest.mark.parametrize("args, options, message", [
    (["arg2", "agr1"], {}, r"no 'agr1' among \['arg1', 'arg2', 'arg3'\]; did you mean 'arg1'\?"),
    ([], {"ignore": "args3"}, r"no 'args3' among .* did you mean 'arg3'\?"),
    ([{"lr": 1}], {"ignore": ["rl"]}, r"no 'rl' among \['lr'\]"),
    ([3], {}, r"int 3; accepted are .* Namespace"),
    ([None], {}, r"NoneType None; accepted are"),
    ([["arg1", "arg2"]], {}, r"list \['arg1', 'arg2'\]; accepted are the names"),
    ([Settings], {}, r"type <class .*Settings'>; accepted are"),
    ([{1: 2}], {}, r"dict \{1: 2\}; accepted are .* names as keys"),
    ([{"a": 1}, "arg1"], {}, r"tuple \(\{'a': 1\}, 'arg1'\); accepted are"),
])  # fmt: skip
def test_unknown_names_and_wrong_objects(args: list[Any], options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        saving(*args, **options)(1, 2, 3)


@pytest.mark.parametrize("args, call", [([], r"\(\)"), (["a"], r"\('a'\)")])
def test_arguments_are_known_in_init_only(args: list[str], call: str) -> None:
    with pytest.raises(ConfigurationError, match=rf"save_hyperparameters{call} outside of All.__init__"):
        All(1).save_hyperparameters(*args)


def test_hparams_are_not_set() -> None:
    with pytest.raises(AttributeError, match="call save_hyperparameters"):
        LightningModule().hparams = {"a": 1}  # type: ignore[assignment]


# ---- hparams -------------------------------------------------------------------------------------------


def test_hparams_are_attributes_and_items() -> None:
    hparams = All(1).hparams
    assert (hparams.arg1, hparams["arg1"]) == (1, 1)
    hparams.arg1 = 2
    hparams["new"] = 3
    assert (hparams["arg1"], hparams.new) == (2, 3)
    del hparams.new, hparams["arg2"]
    assert hparams == {"arg1": 2, "arg3": 3.14}
    assert not hasattr(hparams, "arg2") and hparams.get("arg2") is None
    with pytest.raises(AttributeError, match=r"no 'arg2'; did you mean 'arg\d'\?"):
        hparams.arg2  # noqa: B018
    with pytest.raises(KeyError, match=r"no 'agr3'; did you mean 'arg3'\?"):
        hparams["agr3"]
    with pytest.raises(AttributeError, match=r"no 'learning_rate'$"):
        hparams.learning_rate  # noqa: B018


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, lambda hparams: pickle.loads(pickle.dumps(hparams))])
def test_hparams_can_be_copied(copied: Callable[[AttributeDict], AttributeDict]) -> None:
    hparams = All([1]).hparams
    another = copied(hparams)
    assert another == hparams and type(another) is AttributeDict
    another.arg2 = 5
    assert hparams.arg2 == "abc"


def test_there_are_none_before_something_is_kept() -> None:
    for owner in (HyperparametersMixin(), LightningModule(), LightningDataModule()):
        assert owner.hparams == owner.hparams_initial == {}
        owner.hparams.a = 1
        assert owner.hparams == {"a": 1}
    assert LightningModule().hparams == {}


def test_initial_values_are_copies_of_what_can_be_copied() -> None:
    layers, lock, net = [1, [2]], threading.Lock(), nn.Linear(1, 1)
    model = All(layers, lock, arg3=net)
    layers[1].append(3)  # type: ignore[attr-defined]
    model.hparams.arg1.append(4)
    assert model.hparams.arg1 is layers and model.hparams_initial.arg1 == [1, [2]]
    assert model.hparams_initial.arg2 is lock and model.hparams_initial.arg3 is net


class Learning(LightningModule):
    def __init__(self, learning_rate: float, sizes: tuple[int, ...] = (2, 1)) -> None:
        self.save_hyperparameters()  # as in the documentation, before anything else
        super().__init__()
        self.layer = nn.Linear(*sizes, dtype=torch.float64)

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        return self.layer(batch[0]).sum()

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.parameters(), lr=self.hparams.learning_rate)


def test_a_module_uses_them_and_takes_them_along() -> None:
    module = Learning(0.25)
    trainer = quiet(limit_val_batches=0)
    trainer.fit(module, pairs(1))
    assert trainer.optimizers[0].param_groups[0]["lr"] == 0.25
    for another in (copy.deepcopy(module), pickle.loads(pickle.dumps(module))):
        assert another.hparams == {"learning_rate": 0.25, "sizes": (2, 1)}
        another.hparams.learning_rate = 1.0
        assert another.hparams_initial.learning_rate == module.hparams.learning_rate == 0.25
        assert plain_hparams(another)[0]["hparams_arguments"] == {"learning_rate": None, "sizes": None}


# ---- loggers -------------------------------------------------------------------------------------------


def test_what_is_not_for_the_loggers() -> None:
    class Secret(HyperparametersMixin):
        def __init__(self, lr: float, password: str, key: str) -> None:
            self.save_hyperparameters("password", "key", logger=False)
            self.save_hyperparameters("lr")

    model = Secret(0.1, "x", "y")
    model.hparams.lr = 0.2  # the run's value
    assert logged_hparams(None, model) == {"lr": 0.2}
    model.save_hyperparameters({"key": "z"})
    assert logged_hparams(model) == {"lr": 0.2, "key": "z"}
    model.save_hyperparameters({"lr": 0.3}, logger=False)
    assert logged_hparams(model) == {"key": "z"}
    assert model.hparams == {"lr": 0.3, "password": "x", "key": "z"}


def test_two_owners_share_a_name_if_the_value_is_the_same() -> None:
    weights = torch.ones(2)
    assert logged_hparams(Parent(1), All(0), Parent(1)) == {"a": 1, "b": 2, "arg1": 0, "arg2": "abc", "arg3": 3.14}
    assert logged_hparams(Single({"w": weights}), Single({"w": weights})) == {"w": weights}
    for one, other in ((1, 2), (weights, torch.zeros(2)), ("1", 1)):
        with pytest.raises(ConfigurationError, match=r"two values of the hyperparameter 'w': .* of Single; rename"):
            logged_hparams(Single({"w": one}), Single({"w": other}))


# ---- checkpoints ---------------------------------------------------------------------------------------


def through_a_file(owner: HyperparametersMixin) -> dict[str, Any]:
    """What a checkpoint of `owner` holds when it is loaded, with everything else refused."""
    file = io.BytesIO()
    torch.save(plain_hparams(owner)[0], file)
    file.seek(0)
    return torch.load(file, weights_only=True)  # type: ignore[no-any-return]


def arguments(cls: Any, saved: dict[str, Any], overrides: dict[str, Any]) -> dict[str, Any]:
    """Those by name; there are no others."""
    positional, named = init_arguments(cls, saved, overrides)
    assert not positional
    return named


def again(owner: Any, **overrides: Any) -> Any:
    """What `load_from_checkpoint` makes of a checkpoint of `owner`, but for the weights."""
    positional, named = init_arguments(type(owner), through_a_file(owner), overrides)
    return type(owner)(*positional, **named)


def test_what_a_checkpoint_holds() -> None:
    net = nn.Linear(1, 1)
    state, left_out = plain_hparams(All({"root": Path("a"), "sizes": [1, Namespace(x=1)]}, net))
    assert left_out == ["arg2"]
    assert state == {
        "hyper_parameters": {"arg1": {"root": "a", "sizes": [1, {"x": 1}]}, "arg3": 3.14},
        "hparams_kinds": {("arg1", "root"): "Path", ("arg1", "sizes", 1): "Namespace"},
        "hparams_arguments": {"arg1": None, "arg2": None, "arg3": None},
    }
    assert plain_hparams(LightningModule()) == ({}, [])
    [argument] = plain_hparams(Single(Namespace(a=1)))[0]["hparams_arguments"].items()
    assert argument == ("params", ("Namespace", ["a"]))


def test_the_data_modules_have_keys_of_their_own() -> None:
    class Data(LightningDataModule):
        def __init__(self, size: int) -> None:
            self.save_hyperparameters()

    state = through_a_file(Learning(0.1)) | through_a_file(Data(3))
    assert state["hyper_parameters"] == {"learning_rate": 0.1, "sizes": (2, 1)}
    assert state["datamodule_hyper_parameters"] == {"size": 3}
    assert arguments(Data, state, {}) == {"size": 3}


def test_a_value_that_holds_itself_is_left_out() -> None:
    circle: list[Any] = []
    circle.append(circle)
    assert plain_hparams(All(1, circle))[1] == ["arg2"]


def test_arguments_come_back() -> None:
    assert again(All(Path("a"), arg3=Namespace(x=1))).hparams == {
        "arg1": Path("a"), "arg2": "abc", "arg3": Namespace(x=1)
    }  # fmt: skip
    assert again(All(1), arg2=5).hparams == {"arg1": 1, "arg2": 5, "arg3": 3.14}
    assert again(Child(1)).hparams == {"a": 1, "b": 5, "c": 3}
    changed = All(1)
    changed.hparams.arg1, changed.hparams.new = 2, 3
    assert again(changed).hparams == {"arg1": 2, "arg2": "abc", "arg3": 3.14}


class Three(HyperparametersMixin):
    def __init__(self, a: Any = None, b: int = 2, c: int = 3, **more: Any) -> None:
        a = 0.5 if a is None else a
        self.save_hyperparameters()
        self.got = (a, b, c, more)


class HandsOn(Three):
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)


class Further(HandsOn):
    def __init__(self, x: Any, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.x = x


class GivesSome(Three):
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__("first", *args, c=9, **kwargs)


class ByPosition(Three):
    def __init__(self, *args: Any) -> None:
        super().__init__(*args)


class OnlyByPosition(HyperparametersMixin):
    def __init__(self, a: Any, b: int = 2, /, c: int = 3) -> None:
        self.save_hyperparameters(ignore="b")
        self.got = (a, b, c)


@pytest.mark.parametrize("model", [
    HandsOn(1, 2, 3), HandsOn(2, c=1, d=4), HandsOn(None, 5), HandsOn(), HandsOn(a=1), Further(2, 1, 2), Further(0),
    GivesSome(5), GivesSome(b=5), GivesSome(), ByPosition(3, 2, 1), ByPosition(None, 4), ByPosition(),
    OnlyByPosition(1), OnlyByPosition(1, c=4),
])  # fmt: skip
def test_what_init_hands_on_comes_back(model: Any) -> None:
    another = again(model)
    assert another.got == model.got and another.hparams == model.hparams


def test_what_init_keeps_of_its_args_is_not_known() -> None:
    class Keeps(Three):
        def __init__(self, *sizes: int) -> None:
            super().__init__(7)
            self.sizes = sizes

    assert again(Keeps(64, 32)).sizes == ()


def test_a_parent_is_loaded_with_what_was_handed_on() -> None:
    named = arguments(Three, through_a_file(Further(0, 1, 5, d=4)), {})
    assert Three(**named).got == (1, 5, 3, {"x": 0, "d": 4})
    with pytest.warns(UserWarning, match="Parent takes no 'c'"):
        assert arguments(Parent, through_a_file(Child(1)), {}) == {"a": 1, "b": 5}


class Wide(Parent):
    def __init__(self, c: int = 3, **kwargs: Any) -> None:
        super().__init__(b=5, **kwargs)


def test_kwargs_get_what_they_were_given() -> None:
    model = Wide(a=1)
    model.hparams.new = 3
    assert model.hparams == {"a": 1, "b": 5, "c": 3, "new": 3}
    assert arguments(Wide, through_a_file(model), {}) == {"a": 1, "c": 3}
    assert arguments(Wide, through_a_file(model), {"d": 4}) == {"a": 1, "c": 3, "d": 4}


@pytest.mark.parametrize("params, kind", [
    ({"p1": 1, "other": [2]}, dict),
    (Namespace(p1=1, other=[2]), Namespace),
    (AttributeDict(p1=1, other=[2]), AttributeDict),
    (Settings(p1=1), AttributeDict),
    ({}, dict),
])  # fmt: skip
def test_an_object_comes_back_as_one(params: Any, kind: type) -> None:
    model = Single(params, other=7)  # which was not saved, while a value of this name was
    [(name, argument)] = arguments(Single, through_a_file(model), {}).items()
    assert name == "params" and type(argument) is kind
    loaded = again(model)
    assert loaded.hparams == model.hparams
    assert type(loaded.given) is kind


def test_the_argument_is_the_one_that_held_the_very_object() -> None:
    class Other(HyperparametersMixin):
        def __init__(self, tensor: Any, equal: Any, params: Any) -> None:
            self.save_hyperparameters(params)

    [held] = plain_hparams(Other(torch.ones(2), {"a": 1}, {"a": 1}))[0]["hparams_arguments"]
    assert held == "params"


def test_values_of_an_object_are_overridden_or_all_of_it() -> None:
    model = Single(Namespace(p1=1, p2=2))
    model.hparams.p3 = 3  # a value more for the object, which is the only one
    assert again(model, p1=5, p4=4).given == Namespace(p1=5, p2=2, p3=3, p4=4)
    assert again(model, params={"x": 1}).hparams == {"x": 1}


class Two(HyperparametersMixin):
    def __init__(self, net: Any, data: Any, lr: float, tag: str = "") -> None:
        self.save_hyperparameters(net)
        self.save_hyperparameters(data)
        self.save_hyperparameters("lr")


def test_several_objects_and_names() -> None:
    model = Two(Namespace(depth=1), {"size": 2}, 0.1, "unsaved")
    assert arguments(Two, through_a_file(model), {"size": 3}) == {
        "net": Namespace(depth=1), "data": {"size": 3}, "lr": 0.1
    }  # fmt: skip
    with pytest.warns(UserWarning, match=r"Two takes no 'depht', which is left out; did you mean 'depth'\?"):
        again(model, depht=2)


def test_what_is_required_and_was_not_saved_is_asked_for() -> None:
    model = All(nn.Linear(1, 1))
    with pytest.raises(ConfigurationError, match=r"All requires arg1, .*\['arg2', 'arg3'\]; .*\(\.\.\., arg1=\.\.\.\)"):
        again(model)
    assert again(model, arg1=1).hparams == {"arg1": 1, "arg2": "abc", "arg3": 3.14}


def test_an_override_that_nothing_takes_is_left_out_and_told() -> None:
    with pytest.warns(UserWarning, match=r"All takes no 'arg4', which is left out; did you mean 'arg\d'\?"):
        assert again(All(1), arg4=1).hparams == All(1).hparams


def test_what_is_no_longer_taken_is_told() -> None:
    class Today(HyperparametersMixin):
        def __init__(self, argument1: int = 0) -> None:
            pass

    with pytest.warns(UserWarning) as told:
        assert arguments(Today, through_a_file(Parent(1)), {}) == {}
    assert ["Today takes no 'a'" in str(told[0].message), "'b'" in str(told[1].message)] == [True, True]
    with pytest.warns(UserWarning, match=r"takes no 'params'"):
        assert arguments(Today, through_a_file(Single({"x": 1})), {"argument1": 3}) == {"argument1": 3}


@pytest.mark.parametrize("name, cls, expected", [
    ("kwargs", Child, {"a": 1, "c": 3}),
    ("params", Single, {"params": {"a": 1, "b": 5, "c": 3}}),
])  # fmt: skip
@pytest.mark.filterwarnings("ignore:Child takes no 'b'")
def test_lightnings_checkpoints_are_understood(name: str, cls: Any, expected: dict[str, Any]) -> None:
    saved = {"hyper_parameters": {"a": 1, "b": 5, "c": 3}, "hparams_name": name, "epoch": 3, "state_dict": {}}
    assert arguments(cls, saved, {}) == expected
    assert arguments(All, {"epoch": 3}, {"arg1": 1}) == {"arg1": 1}


NAMES = ["a", "b", "c", "d", "e"]


@given(st.data())
def test_whatever_is_saved_of_whatever_init_comes_back(data: st.DataObject) -> None:
    """Classes with drawn arguments, some of them with a default, keyword-only or in `**kwargs`."""
    names = data.draw(st.lists(st.sampled_from(NAMES), unique=True, min_size=1))
    with_default = data.draw(st.integers(0, len(names)))
    keyword_only = data.draw(st.integers(0, len(names)))
    parts = [f"{name}=-1" if i >= len(names) - with_default else name for i, name in enumerate(names)]
    parts.insert(keyword_only, "*") if keyword_only < len(names) else None
    extra = data.draw(st.lists(st.sampled_from(sorted({*NAMES, "f"} - {*names})), unique=True))
    ignored = data.draw(st.lists(st.sampled_from([*names, *extra]), unique=True))
    space: dict[str, Any] = {"Base": HyperparametersMixin, "ignored": ignored}
    exec(
        f"class Drawn(Base):\n  def __init__(self, {', '.join(parts)}, **kwargs):\n"
        "    self.save_hyperparameters(ignore=ignored)", space
    )  # fmt: skip
    values = {name: index for index, name in enumerate([*names, *extra])}
    model = space["Drawn"](**values)
    kept = {name: value for name, value in values.items() if name not in ignored}
    assert model.hparams == model.hparams_initial == kept

    missing = [part for part in parts if part in ignored]
    if missing:
        with pytest.raises(ConfigurationError, match=f"Drawn requires {', '.join(missing)},"):
            again(model)
    overrides = dict.fromkeys(missing, 9)
    assert arguments(type(model), through_a_file(model), overrides) == kept | overrides
