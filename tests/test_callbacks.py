"""Callbacks: which they are, what they receive, and how the model's own join them."""

from __future__ import annotations

import inspect
from typing import Any

import pytest
from models import Batches, Line, pairs, quiet, tapped

from refimpl import Callback, ConfigurationError, LightningModule, ModelCheckpoint, ModelSummary, ProgressBar, Trainer
from refimpl.dispatch import CALLBACK_HOOKS, MODULE_HOOKS

OWN = {"on_sanity_check_start", "on_sanity_check_end", "on_exception"}


class A(Callback): ...


class B(Callback): ...


class Special(A): ...


def test_every_hook_of_the_loops_is_a_callbacks_too() -> None:
    """Except for those that return something, and those that change the model's mode, its weights or its batches."""
    modules_alone = {
        hook
        for hook in MODULE_HOOKS
        if hook not in CALLBACK_HOOKS and hook.startswith("on_") and not hook.endswith("_transfer")
    }
    stages = ("validation", "test", "predict")
    modes = {f"on_{stage}_model_{mode}" for stage in stages for mode in ("eval", "train")}
    assert modules_alone == {*modes, "on_post_move_to_device"}
    assert set(CALLBACK_HOOKS) - set(MODULE_HOOKS) == OWN


@pytest.mark.parametrize("hook", CALLBACK_HOOKS)
def test_a_callback_takes_the_trainer_and_the_module_before_the_hooks_own_arguments(hook: str) -> None:
    mine = list(inspect.signature(getattr(Callback, hook)).parameters)
    assert mine[:3] == ["self", "trainer", "pl_module"]
    if hook not in OWN:
        assert mine[3:] == list(inspect.signature(getattr(LightningModule, hook)).parameters)[1:]


def test_all_of_them_are_called_with_the_same_things() -> None:
    seen: dict[str, tuple[Any, ...]] = {}
    callback = tapped(Callback, lambda _, hook, args: seen.update({hook: args}), CALLBACK_HOOKS)()
    trainer, module = quiet(callbacks=callback, num_sanity_val_steps=1), Line()
    trainer.fit(module, pairs(1), pairs(1))
    trainer.test(module, pairs(1))
    trainer.predict(module, pairs(1))
    assert set(seen) == set(CALLBACK_HOOKS) - {"on_exception"}
    assert all(args[:2] == (trainer, module) for args in seen.values())
    assert seen["on_predict_batch_end"][4:] == (0, 0)
    assert len(seen["on_predict_epoch_end"][2]) == 1


@pytest.mark.parametrize("given, kinds", [
    (None, []), (A(), [A]), ([A(), B()], [A, B]), ((B(), A()), [B, A]), (iter([A()]), [A]), ([], []),
])  # fmt: skip
def test_callbacks_are_given_as_one_or_several(given: Any, kinds: list[type]) -> None:
    assert [type(callback) for callback in quiet(callbacks=given).callbacks] == kinds


@pytest.mark.parametrize("given, told", [
    (A, r"<class '.*A'>; an instance of Callback \(not the class\)"), ([A(), B], r"not the class"),
    (3, "callbacks holds 3; an instance of Callback is accepted"), ("A", "holds 'A'"), ([None], "holds None"),
])  # fmt: skip
def test_what_is_no_callback(given: Any, told: str) -> None:
    with pytest.raises(ConfigurationError, match=told):
        quiet(callbacks=given)


def test_a_bar_a_summary_and_checkpoints_are_added_unless_there_are() -> None:
    added = [type(callback) for callback in Trainer(max_epochs=1).callbacks]
    assert added == [ModelSummary, ProgressBar, ModelCheckpoint]
    bar, summary, saver = ProgressBar(refresh_rate=7), ModelSummary(), ModelCheckpoint()
    assert Trainer(max_epochs=1, callbacks=[bar, A(), summary]).callbacks[:3:2] == [bar, summary]
    assert Trainer(max_epochs=1, callbacks=[saver, bar, summary]).callbacks == [bar, summary, saver]


class Bringing(Line):
    """Has callbacks of its own."""

    def __init__(self, *mine: Callback) -> None:
        super().__init__()
        self.mine = mine

    def configure_callbacks(self) -> list[Callback]:
        return list(self.mine)


def after_validate(module: LightningModule, *given: Callback) -> list[Callback]:
    trainer = quiet(callbacks=given)
    trainer.validate(module, pairs(1))
    return trainer.callbacks


def test_the_models_callbacks_replace_those_of_their_type() -> None:
    a, b, special, mine, another = A(), B(), Special(), A(), A()
    assert after_validate(Bringing(mine), a, b, special, A()) == [b, special, mine]
    assert after_validate(Bringing(mine, another), a, b) == [b, mine, another]
    assert after_validate(Bringing(), a, b) == [a, b]
    assert after_validate(Bringing(mine)) == [mine]


def test_the_models_callbacks_receive_the_hooks_that_follow() -> None:
    seen: list[str] = []
    mine = tapped(Callback, lambda _, hook, __: seen.append(hook), ["setup", "on_test_start"])()
    trainer = quiet()
    module = Bringing(mine)
    trainer.test(module, pairs(1))
    trainer.test(module, pairs(1))  # replaced by itself, not doubled
    assert seen == ["setup", "on_test_start"] * 2


def test_the_models_callbacks_leave_with_it_and_those_they_replaced_come_back() -> None:
    a, b, mine, later = A(), B(), A(), Special()
    trainer = quiet(callbacks=[a, b])
    trainer.test(Bringing(mine), pairs(1))
    assert trainer.callbacks == [b, mine]
    trainer.callbacks.append(later)
    trainer.test(Line(), pairs(1))
    assert trainer.callbacks == [a, b, later]


def test_the_trainers_callbacks_see_it_being_made() -> None:
    seen: list[str] = []

    class Watching(Callback):
        def on_init_start(self, trainer: Trainer) -> None:
            seen.append(f"start {hasattr(trainer, 'logbook')}")

        def on_init_end(self, trainer: Trainer) -> None:
            seen.append(f"end {trainer.global_step}")

    trainer = quiet(callbacks=Watching())
    assert seen == ["start False", "end 0"]
    trainer.test(Bringing(Watching()), pairs(1))
    assert len(seen) == 2


def test_a_bar_of_the_models_replaces_the_trainers() -> None:
    class MyBar(ProgressBar): ...

    mine = MyBar()
    trainer = quiet(callbacks=ProgressBar(), fast_dev_run=True)
    trainer.fit(Bringing(mine), pairs(1), pairs(1))
    assert trainer.callbacks == [mine]


@pytest.mark.parametrize("configured", [None, A()])
def test_one_callback_or_none_is_understood(configured: Any) -> None:
    module = Line()
    module.configure_callbacks = lambda: configured  # type: ignore[method-assign]
    trainer = quiet()
    trainer.validate(module, Batches(pairs(1)))
    assert trainer.callbacks == ([] if configured is None else [configured])


def test_what_configure_callbacks_may_not_return() -> None:
    with pytest.raises(ConfigurationError, match="callbacks holds 3"):
        after_validate(Bringing(3))  # type: ignore[arg-type]
