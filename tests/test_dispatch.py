"""Who receives a hook, with which arguments, and what is said of a hook that would never be called."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any

import pytest
import torch
from models import Line, pairs, quiet

from refimpl import Callback, HookError, LightningDataModule, LightningModule
from refimpl.dispatch import CALLBACK_HOOKS, DATA_HOOKS, MODULE_HOOKS, Hooks, fitted, named, resolve
from refimpl.loggers.rules import REFUSED, RULES

NO_TRAINER: Any = object()


def hooks_of(
    module: LightningModule, *callbacks: Callback, datamodule: LightningDataModule | None = None
) -> Hooks:
    return resolve(NO_TRAINER, module, datamodule, callbacks)


def module_with(**hooks: Any) -> LightningModule:
    return type("Mine", (Line,), hooks)()  # type: ignore[no-any-return]


# ---- what is called ------------------------------------------------------------------------------------

STEPS = {"training_step", "validation_step", "test_step", "predict_step", "configure_optimizers"}
WITH_DEFAULT = {
    *("optimizer_step", "optimizer_zero_grad", "backward", "transfer_batch_to_device", "tbptt_split_batch"),
    *(f"on_{stage}_model_eval" for stage in ("validation", "test", "predict")),
    *(f"on_{stage}_model_train" for stage in ("validation", "test", "predict")),
}


def test_what_nobody_overrides_is_not_called() -> None:
    hooks = vars(hooks_of(Line()))
    assert {hook for hook, call in hooks.items() if call is not None} == STEPS | WITH_DEFAULT
    assert set(hooks) == {*MODULE_HOOKS, *CALLBACK_HOOKS}


@pytest.mark.parametrize("hook", sorted({*MODULE_HOOKS} - STEPS))
def test_overriding_is_seen_wherever_it_is_done(hook: str) -> None:
    """In the class, on the instance, as a static method or a partial; None switches it off."""
    arguments = [None] * (len(inspect.signature(getattr(LightningModule, hook)).parameters) - 1)
    in_class = module_with(**{hook: lambda self, *args: "class"})
    static = module_with(**{hook: staticmethod(lambda *args: "static")})
    on_instance, partial, off = Line(), Line(), Line()
    setattr(on_instance, hook, lambda *args: "instance")
    setattr(partial, hook, functools.partial(lambda told, *args: told, "partial"))
    setattr(off, hook, None)
    modules = [in_class, static, on_instance, partial]
    told = [getattr(hooks_of(module), hook)(*arguments) for module in modules]
    assert told == ["class", "static", "instance", "partial"]
    assert (getattr(hooks_of(off), hook) is None) == (hook not in WITH_DEFAULT)


@pytest.mark.parametrize("step", ["validation_step", "test_step", "training_step"])
def test_a_step_set_to_none_is_not_defined(step: str) -> None:
    module = Line()
    setattr(module, step, None)
    assert getattr(hooks_of(module), step) is None
    assert getattr(hooks_of(module_with(**{step: None})), step) is None


def test_a_default_set_to_none_is_the_default() -> None:
    module = Line()
    module.backward = module.on_validation_model_eval = None  # type: ignore[method-assign, assignment]
    quiet().fit(module, pairs(2), pairs(1))
    assert not torch.equal(module.layer.weight, Line().layer.weight)


# ---- receivers, and their order ------------------------------------------------------------------------


def test_data_module_then_callbacks_in_order_then_module() -> None:
    order: list[str] = []

    class Told(Callback):
        def __init__(self, name: str) -> None:
            self.name = name

        def setup(self, trainer: Any, pl_module: LightningModule, stage: str | None = None) -> None:
            assert trainer is NO_TRAINER and stage == "fit"
            order.append(self.name)

    class Data(LightningDataModule):
        def setup(self, stage: str | None = None) -> None:
            order.append(f"data {stage}")

    module = module_with(setup=lambda self, stage: order.append(f"module {stage}"))
    hooks_of(module, Told("one"), Told("two"), datamodule=Data()).setup("fit")
    assert order == ["data fit", "one", "two", "module fit"]


def test_the_modules_return_value_counts() -> None:
    class Skipping(Callback):
        def on_train_batch_start(self, *args: Any) -> int:  # type: ignore[override]
            return -1

    assert hooks_of(Line(), Skipping()).on_train_batch_start(None, 0, 0) is None
    module = module_with(on_train_batch_start=lambda self, *args: 7)
    assert hooks_of(module, Skipping()).on_train_batch_start(None, 0, 0) == 7


@pytest.mark.parametrize("hook", sorted(DATA_HOOKS))
def test_a_data_modules_hook_replaces_the_modules_except_for_the_shared_ones(hook: str) -> None:
    order: list[str] = []
    data = type("Data", (LightningDataModule,), {hook: lambda self, *args: order.append("data") or args})()
    hooks = hooks_of(module_with(**{hook: lambda self, *args: order.append("module") or args}), datamodule=data)
    getattr(hooks, hook)("batch")
    assert order == (["data", "module"] if hook in ("prepare_data", "setup", "teardown") else ["data"])


@pytest.mark.parametrize("hook", ["teardown", "on_exception"])
def test_closing_hooks_reach_everybody(hook: str) -> None:
    closed: list[str] = []

    def boom(self: Callback, *args: Any) -> None:
        closed.append("first")
        raise ValueError("first")

    first = type("First", (Callback,), {hook: boom})()
    second = type("Second", (Callback,), {hook: lambda self, *args: closed.append("second")})()
    with pytest.raises(ValueError, match="first"):
        getattr(hooks_of(Line(), first, second), hook)("fit")
    assert closed == ["first", "second"]


def test_a_module_with_an_open_getattr_receives_its_own_hooks_only() -> None:
    class Delegating(Line):
        def __getattr__(self, name: str) -> Any:
            try:
                return super().__getattr__(name)
            except AttributeError:
                return lambda *args: pytest.fail(f"{name} was called")

    quiet(num_sanity_val_steps=1).fit(Delegating(), pairs(1), pairs(1))


# ---- arguments -----------------------------------------------------------------------------------------


def takes_none() -> str:
    return ""


def takes_two(batch: Any, device: Any) -> str:
    return f"{batch}{device}"


def takes_three(batch: Any, device: Any, idx: Any) -> str:
    return f"{batch}{device}{idx}"


def takes_more(batch: Any, device: Any, idx: Any, more: Any = "-") -> str:
    return f"{batch}{device}{idx}{more}"


def takes_any(*args: Any) -> str:
    return "".join(map(str, args))


@pytest.mark.parametrize("method, told", [
    (takes_none, ""), (takes_two, "bd"), (takes_three, "bd0"), (takes_more, "bd0-"), (takes_any, "bd0"),
    (functools.partial(takes_more, more="+"), "bd0+"), (max, "d"),
])  # fmt: skip
def test_arguments_that_a_method_does_not_take_are_left_out(method: Callable[..., str], told: str) -> None:
    """The documentation itself writes `transfer_batch_to_device(batch, device)`."""
    assert fitted(method, "transfer_batch_to_device", LightningModule)("b", "d", "0") == told


@pytest.mark.parametrize("method, told", [
    (lambda batch, batch_idx, i, n: 0, r"validation_step\(batch, batch_idx, i, n\): missing .* argument: 'n'"),
    (lambda batch, *, batch_idx: 0, r"\(batch, \*, batch_idx\): missing .* argument: 'batch_idx'"),
    (lambda batch_idx, batch: 0, r"\(batch_idx, batch\) has 'batch_idx' in the place of 'batch'"),
    (lambda b, dataloader_idx: 0, r"\(b, dataloader_idx\) has 'dataloader_idx' in the place of 'batch_idx'"),
    (3, "validation_step is 3, which cannot be called"),
])  # fmt: skip
def test_a_method_that_cannot_be_called_as_documented(method: Any, told: str) -> None:
    with pytest.raises(HookError, match=told + r".* called as validation_step\(self, batch"):
        fitted(method, "validation_step", LightningModule)


@pytest.mark.parametrize("hook", ["on_before_batch_transfer", "transfer_batch_to_device", "on_after_batch_transfer"])
def test_a_batch_that_is_not_handed_on_is_missed_where_it_is_lost(hook: str) -> None:
    module = module_with(**{hook: lambda self, batch: None})
    for call in (quiet(limit_val_batches=0).fit, quiet().validate):
        with pytest.raises(HookError, match=f"^{hook} returned None; it must return the batch$"):
            call(module, pairs(1))
    own = {hook: lambda self, batch: None, "test_dataloader": lambda self: pairs(1)}
    data = type("Data", (LightningDataModule,), own)
    with pytest.raises(HookError, match=hook):
        quiet().test(Line(), datamodule=data())


def test_a_batch_that_is_none_is_handed_on_as_it_is() -> None:
    assert fitted(lambda batch: batch, "on_before_batch_transfer", LightningModule)(None, 0) is None


@pytest.mark.parametrize("hook", ["on_train_end", "on_save_checkpoint", "on_load_checkpoint"])
def test_a_wrong_hook_is_refused_before_anything_runs(hook: str) -> None:
    """Those around a checkpoint, too, although they are called late."""
    calls: list[str] = []
    wrong = {hook: lambda self, *args, more: 0}
    module = module_with(prepare_data=lambda self: calls.append("prepare_data"))
    callback, data = type("Told", (Callback,), wrong)(), type("Data", (LightningDataModule,), wrong)()
    data.train_dataloader = lambda: pairs(1)
    for call in (
        lambda: quiet(limit_val_batches=0).fit(module_with(**wrong), pairs(1)),
        lambda: quiet(limit_val_batches=0, callbacks=callback).fit(module, pairs(1)),
        *([lambda: quiet(limit_val_batches=0).fit(module, datamodule=data)] if "checkpoint" in hook else []),
    ):
        with pytest.raises(HookError, match=rf"^{hook}\(.*missing a required argument: 'more'"):
            call()
    assert calls == []


# ---- names ---------------------------------------------------------------------------------------------


def test_every_hook_is_known_to_the_rules_of_logging() -> None:
    known = {*RULES, *REFUSED} - {"track_grad_norm"}
    assert {*MODULE_HOOKS, *CALLBACK_HOOKS, "on_save_checkpoint", "on_load_checkpoint"} == known


@pytest.mark.parametrize("method", [
    lambda: inspect.currentframe(),
    functools.partial(lambda told: inspect.currentframe(), 1),
    Line.configure_optimizers,
    max,
])  # fmt: skip
def test_named_runs_in_a_frame_of_the_hooks_name(method: Any) -> None:
    call: Any = named(method, "training_step")
    assert call.__code__.co_name == "training_step"


def test_a_method_of_the_hooks_own_name_needs_no_frame_more() -> None:
    module = Line()
    assert named(module.training_step, "training_step") == module.training_step
