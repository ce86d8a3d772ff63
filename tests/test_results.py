"""self.log: which values are kept, under which names, for whom, and what is refused."""

from __future__ import annotations

import functools
import gc
import inspect
import json
import os
import subprocess
import sys
import threading
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from models import Batches, Line, pairs, quiet

from refimpl import Callback, LightningModule, LogError
from refimpl.loggers.rules import REFUSED, RULES, size_of

Metrics = dict[str, Any]


def batch_of(size: int) -> Any:
    return torch.ones(size, 2, dtype=torch.float64), torch.ones(size, 1, dtype=torch.float64)


class Logging(Line):
    """Logs what the test says, in the hook that the test says; notes the metrics in later ones."""

    def __init__(self, **logs: Callable[[LightningModule, int], None]) -> None:
        super().__init__()
        self.logs = logs
        self.seen: dict[str, Metrics] = {}

    def tell(self, hook: str, batch_idx: int = 0) -> None:
        assert self.trainer is not None
        if hook in self.logs:
            self.logs[hook](self, batch_idx)
        self.seen[hook] = self.trainer.callback_metrics

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        self.tell("training_step", batch_idx)
        return self.loss(batch)

    def validation_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> Any:
        self.tell("validation_step", batch_idx)

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int, dataloader_idx: int) -> None:
        self.tell("on_train_batch_end", batch_idx)

    def training_epoch_end(self, outputs: list[Any]) -> None:
        self.tell("training_epoch_end")

    def validation_epoch_end(self, outputs: list[Any]) -> None:
        self.tell("validation_epoch_end")

    def on_train_epoch_end(self) -> None:
        self.tell("on_train_epoch_end")

    def on_train_start(self) -> None:
        self.tell("on_train_start")


def fit(module: Logging, data: Batches | None = None, val: Batches | None = None, **options: Any) -> Any:
    trainer = quiet(**({} if val else {"limit_val_batches": 0}), **options)
    trainer.fit(module, data or pairs(3), val)
    return trainer


VALUES = st.lists(
    st.tuples(st.floats(-1e6, 1e6), st.integers(1, 9)), min_size=1, max_size=6
)  # values and batch sizes


# ---- values --------------------------------------------------------------------------------------------


@given(VALUES, st.booleans())
def test_an_epochs_value_is_the_mean_weighted_by_batch_size(
    logged: list[tuple[float, int]], as_tensor: bool
) -> None:
    values, sizes = zip(*logged)

    def log(module: LightningModule, batch_idx: int) -> None:
        value = values[batch_idx]
        module.log("v", torch.tensor(value, dtype=torch.float64) if as_tensor else value, on_epoch=True)

    loader = Batches(batch_of(size) for size in sizes)
    module = Logging(training_step=log, validation_step=log)
    trainer = fit(module, loader)
    mean = np.average(values, weights=sizes)
    assert trainer.logged_metrics["v_epoch"] == pytest.approx(mean, rel=1e-9, abs=1e-6)
    assert trainer.logged_metrics["v_step"] == values[-1]
    assert float(trainer.callback_metrics["v_epoch"]) == pytest.approx(mean, rel=1e-6, abs=1e-6)  # float32
    [evaluated] = quiet().validate(module, loader)
    assert evaluated == {"v": pytest.approx(mean, rel=1e-9, abs=1e-6)}


SCALARS = [3, True, 0.5, np.float32(0.25)] + [
    torch.tensor(value, dtype=dtype)
    for value, dtype in [
        (1, torch.bool), (7, torch.int64), (255, torch.uint8), (-128, torch.int8),
        (0.5, torch.float16), (0.25, torch.bfloat16), (0.75, torch.float32), (0.125, torch.float64),
    ]
]  # fmt: skip


@given(st.lists(st.tuples(st.sampled_from(SCALARS), st.integers(1, 9)), min_size=1, max_size=6))
def test_scalars_of_all_kinds_are_averaged_together(logged: list[tuple[Any, int]]) -> None:
    values, sizes = zip(*logged)
    module = Logging(validation_step=lambda m, i: m.log("v", values[i], batch_size=sizes[i]))
    [evaluated] = quiet().validate(module, pairs(len(values)))
    assert evaluated["v"] == pytest.approx(np.average([float(value) for value in values], weights=sizes), rel=1e-6)


def test_log_dict_takes_the_settings_of_log_in_its_order() -> None:
    module = Logging(training_step=lambda m, i: m.log_dict({"a": 1.0, "b": 2.0}, True, False, False, True))
    trainer = fit(module)
    assert (trainer.progress_bar_metrics, trainer.logged_metrics) == ({"a": 1.0, "b": 2.0}, {})


@pytest.mark.parametrize("method", ["log", "log_dict"])
def test_the_documented_arguments_are_taken_by_position(method: str) -> None:
    documented = (
        "prog_bar logger on_step on_epoch reduce_fx tbptt_reduce_fx tbptt_pad_token enable_graph sync_dist "
        "sync_dist_op sync_dist_group add_dataloader_idx batch_size metric_attribute rank_zero_only"
    ).split()
    if method == "log_dict":
        documented.remove("metric_attribute")
    given = list(inspect.signature(getattr(LightningModule, method)).parameters)
    assert given[-len(documented) :] == documented


@pytest.mark.parametrize("name", ["tbptt_reduce_fx", "tbptt_pad_token", "sync_dist_op"])
def test_deprecated_arguments_warn_and_do_nothing(name: str) -> None:
    module = Logging(validation_step=lambda m, i: m.log("v", float(i), **{name: 0}))
    with pytest.warns(DeprecationWarning, match=rf"self\.log\({name}=0\) is deprecated") as caught:
        assert quiet().validate(module, pairs(3)) == [{"v": 1.0}]
    assert caught[0].filename == __file__


REDUCED: list[tuple[Any, Callable[[list[float]], float]]] = [
    ("mean", np.mean), ("min", min), ("max", max), ("sum", sum), ("default", np.mean),
    (torch.mean, np.mean), (torch.min, min), (torch.max, max), (torch.sum, sum), (min, min), (max, max), (sum, sum),
    (torch.prod, np.prod), (lambda values: values[0] - values[-1], lambda values: values[0] - values[-1]),
    (lambda values: float(values.std(correction=0)), np.std),
]  # fmt: skip


@pytest.mark.parametrize("as_tensor", [True, False])
@pytest.mark.parametrize("reduce_fx, wanted", REDUCED)
def test_an_epochs_values_are_reduced_as_asked(
    reduce_fx: Any, wanted: Callable[[list[float]], float], as_tensor: bool
) -> None:
    values = [3.0, -1.0, 2.0, 0.5]

    def log(module: LightningModule, batch_idx: int) -> None:
        value = torch.tensor(values[batch_idx], dtype=torch.float64) if as_tensor else values[batch_idx]
        module.log("v", value, on_step=True, on_epoch=True, reduce_fx=reduce_fx)

    trainer = fit(Logging(training_step=log), pairs(4), max_epochs=2)
    assert trainer.logged_metrics == {"v_step": 0.5, "v_epoch": pytest.approx(wanted(values))}


@pytest.mark.parametrize("reduce_fx, wanted", [("min", 0.0), ("max", 2.0), ("sum", 3.0), (torch.prod, 0.0)])
def test_only_the_mean_is_weighted(reduce_fx: Any, wanted: float) -> None:
    module = Logging(validation_step=lambda m, i: m.log("v", float(i), reduce_fx=reduce_fx, batch_size=i + 1))
    assert quiet().validate(module, pairs(3)) == [{"v": wanted}]


def test_a_lambda_made_anew_in_each_step_is_the_same_one() -> None:
    module = Logging(validation_step=lambda m, i: m.log("v", float(i), reduce_fx=lambda values: values.max()))
    assert quiet().validate(module, pairs(3)) == [{"v": 2.0}]


def test_values_of_different_types_are_reduced_together() -> None:
    values = [1, torch.tensor(2, dtype=torch.uint8), torch.tensor(0.5), np.float64(4.0), torch.tensor(True)]
    for reduce_fx in ("max", torch.amax):
        module = Logging(validation_step=lambda m, i, fx=reduce_fx: m.log("v", values[i], reduce_fx=fx))  # type: ignore[misc]
        assert quiet().validate(module, pairs(len(values))) == [{"v": 4.0}]


@pytest.mark.parametrize("reduce_fx, told", [
    ("product", r"reduce_fx='product'\): mean, min, max, sum or a callable is accepted$"),
    ("maxx", "did you mean 'max'"), (None, "reduce_fx=None"), (3, "reduce_fx=3"), ([], r"reduce_fx=\[\]"),
    (lambda values: values, r"log\('v'\): Tensor"), (lambda values: None, "NoneType"),
])  # fmt: skip
def test_a_reduction_that_makes_no_scalar(reduce_fx: Any, told: str) -> None:
    with pytest.raises(LogError, match=told):
        quiet().validate(Logging(validation_step=lambda m, i: m.log("v", 1.0, reduce_fx=reduce_fx)), pairs(2))


def test_an_error_of_the_reduction_surfaces() -> None:
    def broken(values: torch.Tensor) -> float:
        raise ZeroDivisionError("mine")

    with pytest.raises(ZeroDivisionError, match="mine"):
        quiet().validate(Logging(validation_step=lambda m, i: m.log("v", 1.0, reduce_fx=broken)), pairs(2))


def test_a_mapping_is_logged_item_by_item() -> None:
    values = {"a": 1.0, "b": {"c": torch.tensor(2.0), "d": 3}}
    module = Logging(validation_step=lambda m, i: m.log("v", values))
    assert quiet().validate(module, pairs(2)) == [{"v/a": 1.0, "v/b/c": 2.0, "v/b/d": 3.0}]
    module = Logging(validation_step=lambda m, i: m.log_dict(values, reduce_fx="sum"))
    assert quiet().validate(module, pairs(2)) == [{"a": 2.0, "b/c": 4.0, "b/d": 6.0}]


@pytest.mark.parametrize("value", [[("a", 1.0)], 1.0, None, "a"])
def test_log_dict_takes_mappings(value: Any) -> None:
    with pytest.raises(LogError, match=f"log_dict: {type(value).__name__}.*; a mapping of names is accepted"):
        quiet().validate(Logging(validation_step=lambda m, i: m.log_dict(value)), pairs(1))


@given(VALUES, st.integers(1, 9))
def test_a_given_batch_size_comes_before_the_batchs_own(logged: list[tuple[float, int]], first: int) -> None:
    values, sizes = zip(*logged)
    given_sizes = [first, *sizes][: len(values)]
    module = Logging(validation_step=lambda m, i: m.log("v", values[i], batch_size=given_sizes[i]))
    [evaluated] = quiet().validate(module, Batches(batch_of(size) for size in sizes))
    assert evaluated["v"] == pytest.approx(np.average(values, weights=given_sizes), rel=1e-9, abs=1e-6)


@pytest.mark.parametrize("size", [3, np.int64(3), torch.tensor(3)])
def test_a_batch_size_is_an_int_of_any_kind(size: Any) -> None:
    def log(module: LightningModule, batch_idx: int) -> None:
        module.log("v", float(batch_idx), batch_size=size if batch_idx else 1)

    assert quiet().validate(Logging(validation_step=log), pairs(2)) == [{"v": 0.75}]


@pytest.mark.parametrize("batch, size", [
    (torch.ones(3, 2), 3), (torch.ones(()), 1), ([torch.ones(4), torch.ones(5)], 4),
    ({"id": ["a", "b"], "x": torch.ones(6)}, 6), ([[], ["a"], (torch.ones(7),)], 7),
    ("text", 1), (None, 1), ([], 1),
])  # fmt: skip
def test_a_batchs_size_is_the_first_dimension_of_its_first_tensor(batch: Any, size: int) -> None:
    assert size_of(batch) == size


@pytest.mark.parametrize("value, shown", [
    (2, 2.0), (True, 1.0), (np.float32(0.5), 0.5), (np.array(3), 3.0), (torch.tensor([[2.0]]), 2.0),
    (torch.tensor(0.5, dtype=torch.bfloat16), 0.5), (torch.tensor(3), 3.0), (torch.tensor(True), 1.0),
])  # fmt: skip
def test_scalars_of_any_kind(value: Any, shown: float) -> None:
    module = Logging(validation_step=lambda m, i: m.log("v", value))
    assert quiet().validate(module, pairs(2)) == [{"v": shown}]


def test_a_scalar_of_any_shape_is_read_as_one_number() -> None:
    metrics = fit(Logging(training_step=lambda m, i: m.log("v", torch.tensor([[2.0]])))).callback_metrics
    assert metrics["v"].shape == ()


def test_short_floats_are_summed_as_longer_ones() -> None:
    one = torch.tensor(1.0, dtype=torch.bfloat16)  # which cannot count beyond 256
    module = Logging(validation_step=lambda m, i: m.log("v", one))
    assert quiet().validate(module, pairs(400, size=1)) == [{"v": 1.0}]


def test_the_same_settings_may_be_said_in_different_ways() -> None:
    def log(module: LightningModule, batch_idx: int) -> None:
        spelt_out = {} if batch_idx else {"on_step": False, "on_epoch": True}
        module.log("v", float(batch_idx), **spelt_out)

    assert quiet().validate(Logging(validation_step=log), pairs(3)) == [{"v": 1.0}]


def test_the_graph_is_not_kept() -> None:
    module = Logging(training_step=lambda m, i: m.log("w", next(m.parameters()).sum(), on_epoch=True))
    metrics = fit(module).callback_metrics
    assert not any(value.requires_grad for value in metrics.values())


def test_the_graph_is_kept_where_asked_for() -> None:
    def log(module: LightningModule, batch_idx: int) -> None:
        value = next(module.parameters()).sum()
        module.log("w", value, on_epoch=True, enable_graph=True)
        assert module.trainer is not None and module.trainer.callback_metrics["w_step"].requires_grad

    trainer = fit(Logging(training_step=log))
    assert trainer.callback_metrics["w_epoch"].requires_grad
    assert set(trainer.logged_metrics) == {"w_step", "w_epoch"}


def test_logged_twice_in_a_hook_counts_twice() -> None:
    def log(module: LightningModule, batch_idx: int) -> None:
        for value in (1.0, 4.0):
            module.log("v", value, on_epoch=True)

    metrics = fit(Logging(training_step=log)).callback_metrics
    assert (float(metrics["v_step"]), float(metrics["v_epoch"])) == (4.0, 2.5)


# ---- names, and when they can be read ------------------------------------------------------------------


def one(module: LightningModule, batch_idx: int) -> None:
    module.log("v", float(batch_idx + 1))


def forked(module: LightningModule, batch_idx: int) -> None:
    module.log("v", float(batch_idx + 1), on_step=True, on_epoch=True, prog_bar=True)


def test_a_step_value_is_there_at_once() -> None:
    module = Logging(training_step=one)
    trainer = fit(module)
    assert module.seen["on_train_batch_end"] == {"v": 3.0}
    assert trainer.callback_metrics == trainer.logged_metrics == {"v": 3.0}
    assert trainer.progress_bar_metrics == {}


def test_step_and_epoch_values_are_told_apart() -> None:
    module = Logging(training_step=forked)
    trainer = fit(module)
    assert module.seen["on_train_batch_end"] == {"v": 3.0, "v_step": 3.0}
    ended = {"v": 2.0, "v_step": 3.0, "v_epoch": 2.0}
    assert module.seen["training_epoch_end"] == module.seen["on_train_epoch_end"] == ended
    assert trainer.callback_metrics == ended
    assert trainer.logged_metrics == trainer.progress_bar_metrics == {"v_step": 3.0, "v_epoch": 2.0}


def test_an_epoch_starts_anew() -> None:
    def log(module: LightningModule, batch_idx: int) -> None:
        module.log("v", float(module.current_epoch), on_step=False, on_epoch=True)

    assert fit(Logging(training_step=log), max_epochs=3).callback_metrics == {"v": 2.0}


def test_a_validations_values_can_be_read_at_its_end_and_later() -> None:
    module = Logging(validation_step=one)
    fit(module, pairs(1), pairs(3))
    assert module.seen["validation_step"] == {}
    assert module.seen["validation_epoch_end"] == module.seen["on_train_epoch_end"] == {"v": 2.0}


def test_the_sanity_check_is_forgotten() -> None:
    module = Logging(validation_step=one)
    trainer = fit(module, pairs(1), pairs(3), num_sanity_val_steps=2, check_val_every_n_epoch=2)
    assert module.seen["validation_epoch_end"] == {"v": 1.5}
    assert module.seen["on_train_start"] == trainer.callback_metrics == {}


def test_where_two_hooks_log_a_name_the_later_one_is_read() -> None:
    module = Logging(
        training_step=one,
        training_epoch_end=lambda m, i: m.log("v", 7.0),
        validation_step=one,
        validation_epoch_end=lambda m, i: m.log("v", 9.0),
    )
    assert quiet().validate(module, pairs(3)) == [{"v": 9.0}]
    assert fit(module).callback_metrics == {"v": 7.0}


def test_a_run_begins_without_the_values_of_the_last() -> None:
    module = Logging(training_step=one, validation_step=lambda m, i: m.log("w", 1.0))
    trainer = fit(module, pairs(1), pairs(1))
    assert trainer.callback_metrics == {"v": 1.0, "w": 1.0}
    trainer.validate(module, pairs(1))
    assert trainer.callback_metrics == {"w": 1.0}


def test_log_dict_logs_each_item() -> None:
    values = {"a": 1.0, "b": torch.tensor(2.0)}
    module = Logging(validation_step=lambda m, i: m.log_dict(values, prog_bar=True))
    trainer = quiet()
    assert trainer.validate(module, pairs(2)) == [{"a": 1.0, "b": 2.0}]
    assert trainer.progress_bar_metrics == {"a": 1.0, "b": 2.0}


def test_logger_false_keeps_a_value_from_the_loggers_only() -> None:
    trainer = fit(Logging(training_step=lambda m, i: m.log("v", 1.0, logger=False)))
    assert (trainer.callback_metrics, trainer.logged_metrics) == ({"v": 1.0}, {})


# ---- several loaders -----------------------------------------------------------------------------------


class PerLoader(Line):
    def __init__(self, add: bool) -> None:
        super().__init__()
        self.add = add

    def validation_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> Any:
        name = "v" if self.add else f"v{dataloader_idx}"
        self.log(name, float(10 * dataloader_idx + batch_idx), add_dataloader_idx=self.add)

    def validation_epoch_end(self, outputs: list[Any]) -> None:
        self.log("all", 5.0)


@pytest.mark.parametrize("add, names", [
    (True, ["v/dataloader_idx_0", "v/dataloader_idx_1"]), (False, ["v0", "v1"])
])  # fmt: skip
def test_each_loader_has_its_dict(add: bool, names: list[str]) -> None:
    trainer = quiet()
    results = trainer.validate(PerLoader(add), [pairs(2), pairs(3)])
    assert results == [{names[0]: 0.5, "all": 5.0}, {names[1]: 11.0, "all": 5.0}]
    assert trainer.callback_metrics == {names[0]: 0.5, names[1]: 11.0, "all": 5.0}


def test_a_name_that_several_loaders_share_is_a_value_of_them_all() -> None:
    class Mixed(Line):
        def validation_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> Any:
            self.log("v", float(10 * dataloader_idx + batch_idx), add_dataloader_idx=False)

    mean = {"v": pytest.approx((0 + 1 + 10 + 11 + 12) / 5)}
    assert quiet().validate(Mixed(), [pairs(2), pairs(3)]) == [mean, mean]


def test_loaders_that_log_nothing_have_an_empty_dict() -> None:
    assert quiet().test(Line(), [pairs(1), pairs(1), pairs(1)]) == [{}, {}, {}]
    assert quiet().test(Line(), pairs(1)) == [{}]


def test_one_loader_needs_no_suffix() -> None:
    assert quiet().validate(PerLoader(True), [pairs(2)]) == [{"v": 0.5, "all": 5.0}]


# ---- which hook runs -----------------------------------------------------------------------------------

CALLBACKS_OWN = {"on_exception", "on_sanity_check_start", "on_sanity_check_end"}


def logs_in(hook: str, **settings: Any) -> Any:
    """The trainer's `callback_metrics` after a run in which `hook` logged "v" once."""
    base: type = Callback if hook in CALLBACKS_OWN else Line
    inner = getattr(base, hook)
    done: list[str] = []

    def call(self: Any, *args: Any) -> Any:
        module = args[1] if base is Callback else self
        if not done:
            done.append(hook)
            module.log("v", 1.0, **settings)
        return inner(self, *args)

    if "checkpoint" in hook:  # which no loop calls: it is known by its name
        call.__code__ = call.__code__.replace(co_name=hook)
    owner = type("Mine", (base,), {hook: call})()
    module, callbacks = (Line(), [owner]) if base is Callback else (owner, [])
    if hook == "on_exception":
        vars(module)["on_train_epoch_end"] = lambda: 1 / 0  # with the epoch still open
    for loader in ("train", "val", "test", "predict"):
        if hook != f"{loader}_dataloader":
            setattr(module, f"{loader}_dataloader", lambda: pairs(1))
    checkpoints: dict[str, Any] = {"enable_checkpointing": True, "max_epochs": 2} if "checkpoint" in hook else {}
    trainer = quiet(callbacks=callbacks, num_sanity_val_steps=int("sanity" in hook), **checkpoints)
    stage = "test" if "test" in hook else "predict" if "predict" in hook else "fit"
    if hook == "on_load_checkpoint":
        quiet(enable_checkpointing=True).fit(Line(), pairs(1), pairs(1))
        trainer.fit(module, ckpt_path="checkpoints/epoch=0-step=1.ckpt")
    getattr(trainer, stage)(module)
    assert done, hook
    return trainer.callback_metrics


@pytest.mark.parametrize("hook", sorted({*RULES} - {"track_grad_norm"}))  # no hook: see test_gradients.py
def test_the_hook_decides_what_is_kept_by_default(hook: str) -> None:
    on_step, on_epoch, step_allowed = RULES[hook]
    assert on_step != on_epoch
    assert set(logs_in(hook)) == {"v"}
    assert set(logs_in(hook, on_epoch=True)) == ({"v", "v_step", "v_epoch"} if on_step else {"v"})
    if step_allowed:
        assert set(logs_in(hook, on_step=True, on_epoch=True)) == {"v", "v_step", "v_epoch"}
    else:
        with pytest.raises(LogError, match=rf"on_step=True\): {hook} belongs to no step"):
            logs_in(hook, on_step=True)


@pytest.mark.parametrize("hook", sorted(REFUSED - {"on_exception", "tbptt_split_batch"}))
def test_other_hooks_may_not_log_and_are_named(hook: str) -> None:
    with pytest.raises(LogError, match=rf"log\('v'\): {hook} may not log"):
        logs_in(hook)


def test_what_is_logged_while_a_failed_run_is_closed_is_ignored() -> None:
    with pytest.raises(ZeroDivisionError), pytest.warns(UserWarning, match=r"self\.log\('v'\) is ignored"):
        logs_in("on_exception")


def test_a_step_under_another_name_is_known_by_the_hook_it_serves() -> None:
    """In training a step logs per step, in validation per epoch, whatever the method is called."""

    class Shared(Line):
        def shared(self, batch: Any, batch_idx: int) -> Any:
            loss = self.loss(batch)
            self.log("v", 1.0)
            return loss

        training_step = shared
        validation_step: Any = shared
        test_step = validation_step

    module = Shared()
    trainer = quiet()
    trainer.fit(module, pairs(2), pairs(1))
    assert trainer.callback_metrics == {"v": 1.0}
    assert trainer.test(module, pairs(2)) == [{"v": 1.0}]
    module.validation_step = lambda batch, batch_idx: module.log("w", 2.0)
    assert trainer.validate(module, pairs(2)) == [{"w": 2.0}]


def test_a_callback_logs_through_the_module() -> None:
    class Telling(Callback):
        def on_validation_batch_end(self, trainer: Any, pl_module: LightningModule, *rest: Any) -> None:
            pl_module.log("v", 3.0)

    assert quiet(callbacks=Telling()).validate(Line(), pairs(2)) == [{"v": 3.0}]


# ---- what is refused -----------------------------------------------------------------------------------


@pytest.mark.parametrize("arguments, told", [
    (("v", "3"), "str '3'; a number or a scalar tensor is accepted"),
    (("v", [1.0]), "list"), (("v", None), "NoneType"), (("v", {"a": "b"}), r"log\('v/a'\): str"),
    (("v", 10**999), "int"),
    (("v", torch.ones(2)), r"a tensor of shape \(2,\); a scalar is accepted"),
    (("v", torch.ones(0)), r"a tensor of shape \(0,\)"),
    ((3, 1.0), "the name must be a str, not 3"),
])  # fmt: skip
def test_what_cannot_be_logged(arguments: Any, told: str) -> None:
    with pytest.raises(LogError, match=told):
        quiet().validate(Logging(validation_step=lambda m, i: m.log(*arguments)), pairs(1))


@pytest.mark.parametrize("settings, told", [
    ({"on_step": False, "on_epoch": False}, "on_step=False and on_epoch=False would keep nothing"),
    ({"batch_size": -1}, "batch_size=-1"), ({"batch_size": "3"}, "batch_size='3'"),
    ({"batch_size": 2.5}, r"batch_size=2\.5"),
])  # fmt: skip
def test_settings_that_make_no_sense(settings: dict[str, Any], told: str) -> None:
    with pytest.raises(LogError, match=told):
        quiet().validate(Logging(validation_step=lambda m, i: m.log("v", 1.0, **settings)), pairs(1))


def test_a_name_has_one_kind_of_settings_in_a_hook() -> None:
    def log(module: LightningModule, batch_idx: int) -> None:
        module.log("v", 1.0, prog_bar=batch_idx == 1)

    with pytest.raises(LogError, match=r"log\('v'\) in validation_step.*before in this hook it was"):
        quiet().validate(Logging(validation_step=log), pairs(2))


def test_a_loader_belongs_to_no_hook() -> None:
    class Talking(Batches):
        def __iter__(self) -> Any:
            yield self.batches[0]
            module.log("v", 1.0)

    module = Line()
    with pytest.raises(LogError, match=r"log\('v'\): called outside of a hook"):
        quiet(limit_val_batches=0).fit(module, Talking(pairs(2)))


def test_without_a_run_logging_is_ignored_with_a_warning() -> None:
    """A module is an nn.Module, whose methods can be called by hand."""
    module = Logging(training_step=one)
    with pytest.warns(UserWarning, match=r"self\.log\('v'\) is ignored: no trainer is running") as caught:
        one(module, 0)
    assert caught[0].filename == __file__
    trainer = fit(module)
    with pytest.warns(UserWarning, match=r"self\.log\('v'\) is ignored") as caught:
        one(module, 0)
    assert caught[0].filename == __file__
    assert trainer.callback_metrics == {"v": 3.0}


# ---- what is not kept ----------------------------------------------------------------------------------


def test_a_run_leaves_no_batch_behind() -> None:
    class Big:
        pass

    class Holding(tuple[Any, ...]):
        """A batch that can be watched."""

    batches = [Holding(batch_of(2)) for _ in range(2)]
    for batch in batches:
        batch.big = Big()  # type: ignore[attr-defined]
    watched = weakref.ref(batches[-1].big)  # type: ignore[attr-defined]
    trainer = quiet()
    trainer.validate(Logging(validation_step=one), iter(batches))
    trainer.run.data.evaluated.clear()
    batches.clear()
    del batch
    gc.collect()
    assert watched() is None


def test_a_fit_without_an_epoch_keeps_what_its_start_has_logged() -> None:
    class Starts(Line):
        def on_train_start(self) -> None:
            self.log("start", 3.0)

    trainer = quiet(max_steps=0, limit_val_batches=0)
    with pytest.warns(UserWarning, match="fit will train nothing"):
        trainer.fit(Starts(), pairs(1))
    assert trainer.callback_metrics == {"start": 3.0}


# ---- several processes ---------------------------------------------------------------------------------

TWO_PROCESSES = """
import json, sys
import torch
from torch import distributed
from models import Line, pairs, quiet

rank, store = int(sys.argv[1]), sys.argv[2]
distributed.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)

alone = [distributed.new_group([0]), distributed.new_group([1])][rank]

class Two(Line):
    def validation_step(self, batch, batch_idx, dataloader_idx=0):
        value = float(10 * rank + batch_idx)
        for fx in ("mean", "min", "max", "sum"):
            self.log(fx, value, reduce_fx=fx, sync_dist=True, batch_size=1 + 2 * rank)
        self.log("least", torch.tensor(value), reduce_fx=lambda values: values.sort().values[0], sync_dist=True)
        self.log("step", value, on_step=True, on_epoch=False, sync_dist=True)
        self.log("own", value)
        self.log("alone", value, sync_dist=True, sync_dist_group=alone)
        if rank == 0:
            self.log("first", value, sync_dist=True, rank_zero_only=True)

    def validation_epoch_end(self, outputs):
        self.log("ended", float(rank), sync_dist=True)

trainer = quiet()
trainer.validate(Two(), pairs(3), verbose=False)
print(json.dumps({name: float(value) for name, value in trainer.callback_metrics.items()}))
"""


@pytest.mark.slow
def test_sync_dist_reduces_over_processes(tmp_path: Path) -> None:
    """Two processes log 0, 1, 2 and 10, 11, 12, the second with three times the weight."""
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", TWO_PROCESSES, str(rank), str(tmp_path / "store")],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}, stdout=subprocess.PIPE, text=True,
        )
        for rank in range(2)
    ]  # fmt: skip
    seen = [json.loads(process.communicate(timeout=120)[0]) for process in processes]
    together = {"mean": (3 + 3 * 33) / 12, "min": 0, "max": 12, "sum": 36, "least": 0, "step": 7, "ended": 0.5}
    for rank, metrics in enumerate(seen):
        assert {name: metrics[name] for name in together} == pytest.approx(together), rank
    assert [metrics["own"] for metrics in seen] == [metrics["alone"] for metrics in seen] == [1.0, 11.0]
    assert (seen[0]["first"], "first" in seen[1]) == (1.0, False)


def test_a_batch_that_is_reused_by_its_loader_is_measured_each_time() -> None:
    class Reusing:
        def __iter__(self) -> Any:
            batch: list[Any] = []
            for size in (1, 9):
                batch[:] = [torch.full((size, 2), float(size > 1)), torch.zeros(size, 1)]
                yield batch

    class Ones(Line):
        def validation_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
            self.log("ones", batch[0].mean())

    assert quiet().validate(Ones(), Reusing()) == [{"ones": pytest.approx(0.9)}]


# ---- who logs: the hook that runs, whoever stands between it and `log` ------------------------------------


def step_of(module: Line, batch: Any, batch_idx: int, extra: str = "") -> Any:
    module.log("value", 1.0)
    return module.loss(batch)


class Bare(Line):
    def training_step(self, batch: Any, batch_idx: int) -> Any:
        return step_of(self, batch, batch_idx)


class Decorated(Line):
    @functools.wraps(step_of)
    def training_step(self, *args: Any) -> Any:
        return step_of(self, *args)


class Nested(Line):
    """A helper that is called like another hook, and has one of a hook's helpers log for it."""

    def validation_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> Any:
        return step_of(self, batch, batch_idx)

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        return next(self.validation_step(batch, batch_idx) for _ in (1,))


def partly() -> Line:
    module = Line()
    module.training_step = functools.partial(step_of, module, extra="more")  # type: ignore[method-assign]
    return module


def compiled() -> Line:
    module = Bare()
    module.training_step = torch.compile(module.training_step, backend="eager")  # type: ignore[method-assign]
    return module


@pytest.mark.filterwarnings("ignore:Dynamo does not know")  # torch breaks its graph where the stack is looked at
@pytest.mark.parametrize("made", [Bare, Decorated, Nested, partly, compiled])
def test_a_value_is_logged_by_the_hook_that_the_loop_called(made: Callable[[], Line]) -> None:
    """Which a training step does per step."""
    trainer = quiet(limit_val_batches=0)
    trainer.fit(made(), pairs(1))
    assert list(trainer.callback_metrics) == ["value"]
    assert [place[0] for place in seen_places(made)] == ["training_step"]


def seen_places(made: Callable[[], Line]) -> list[Any]:
    """The places of the entries that a step makes."""
    places: list[Any] = []

    class Looking(Callback):
        def on_train_batch_end(self, trainer: Any, *args: Any) -> None:
            places.extend(trainer.run.logbook._pages[-1].entries)

    quiet(limit_val_batches=0, callbacks=[Looking()]).fit(made(), pairs(1))
    return places


def test_a_thread_has_no_hook() -> None:
    """The hook that starts it can log what it has found."""
    raised: list[BaseException] = []

    class Threaded(Line):
        def training_step(self, batch: Any, batch_idx: int) -> Any:
            def work() -> None:
                try:
                    self.log("value", 1.0)
                except LogError as error:
                    raised.append(error)

            thread = threading.Thread(target=work)
            thread.start()
            thread.join()
            return self.loss(batch)

    quiet(limit_val_batches=0).fit(Threaded(), pairs(1))
    assert [str(error) for error in raised] == [
        "log('value'): called outside of a hook; log from the hooks of a running trainer"
    ]
