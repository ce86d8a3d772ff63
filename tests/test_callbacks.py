"""Callbacks: which they are, what they receive, and how the model's own join them."""

from __future__ import annotations

import copy
import gc
import inspect
import pickle
import weakref
from pathlib import Path
from typing import Any

import pytest
import torch
from models import Batches, Line, pairs, quiet, tapped

from refimpl import (
    BasePredictionWriter,
    Callback,
    ConfigurationError,
    CSVLogger,
    EarlyStopping,
    LearningRateMonitor,
    LightningModule,
    LogError,
    ModelCheckpoint,
    ModelSummary,
    ProgressBar,
    Trainer,
)
from refimpl.callback import attach, module_of
from refimpl.callbacks import LambdaCallback, ProgressBarBase
from refimpl.dispatch import CALLBACK_HOOKS, MODULE_HOOKS
from refimpl.loggers.rules import REFUSED, RULES

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


# ---- self.log. [R82] --------------------------------------------------------------------------------------------


class Logs(Callback):
    """Logs in one hook, what and how it is told to."""

    def __init__(self, hook: str, **settings: Any) -> None:
        def log(trainer: Trainer, pl_module: LightningModule, *args: Any) -> None:
            self.log("mine", 2.0, **settings)
            self.log_dict({"a": torch.tensor(1.0)}, **settings)

        setattr(self, hook, log)


def everything(*callbacks: Callback) -> Trainer:
    """A fit with a sanity check, a test and a prediction."""
    trainer, module = quiet(callbacks=callbacks, num_sanity_val_steps=1), Line()
    trainer.fit(module, pairs(2), pairs(1))
    trainer.test(module, pairs(1), verbose=False)
    trainer.predict(module, pairs(1))
    return trainer


@pytest.mark.parametrize("hook", [hook for hook in CALLBACK_HOOKS if hook in RULES])
def test_a_callback_logs_where_the_module_could(hook: str) -> None:
    metrics: dict[str, Any] = {}
    seen = LambdaCallback(on_fit_end=lambda trainer, module: metrics.update(trainer.callback_metrics))
    trainer = everything(Logs(hook), seen)
    metrics.update(trainer.callback_metrics)
    if hook.startswith("on_test"):
        assert trainer.test(Line(), pairs(1), verbose=False) == [{"mine": 2.0, "a": 1.0}]
    else:
        assert (float(metrics["mine"]), float(metrics["a"])) == (2.0, 1.0)


@pytest.mark.parametrize("hook", [hook for hook in CALLBACK_HOOKS if hook in REFUSED - {"on_exception"}])
def test_and_nowhere_else(hook: str) -> None:
    with pytest.raises(LogError, match=rf"log\('mine'\): {hook} may not log"):
        everything(Logs(hook))


def test_it_logs_by_the_rules_of_the_hook() -> None:
    with pytest.raises(LogError, match="on_train_epoch_end belongs to no step; log on_epoch there"):
        everything(Logs("on_train_epoch_end", on_step=True))
    trainer = quiet(callbacks=Logs("on_train_batch_end", on_epoch=True, prog_bar=True), limit_val_batches=0)
    trainer.fit(Line(), pairs(2))
    assert trainer.progress_bar_metrics == {"mine_step": 2.0, "mine_epoch": 2.0, "a_step": 1.0, "a_epoch": 1.0}


def test_where_no_trainer_runs_it_nothing_is_logged() -> None:
    class Begins(Callback):
        def on_init_end(self, trainer: Trainer) -> None:
            self.log("mine", 1.0)

    with pytest.warns(UserWarning, match="Begins logs 'mine', which is ignored: no trainer is running this callback"):
        quiet(callbacks=Begins())
    ran = Callback()
    everything(ran)
    with pytest.warns(UserWarning, match=r"log\('mine'\) is ignored: no trainer is running this module"):
        ran.log("mine", 1.0)


# ---- copies ----------------------------------------------------------------------------------------------------


class Writes(BasePredictionWriter):
    def write_on_batch_end(self, *args: Any) -> None: ...


class Copies(Callback):
    """Copies the callbacks in each hook, and reads them back."""

    def copied(self, trainer: Trainer, *_: Any) -> None:
        for callback in trainer.callbacks:
            if not isinstance(callback, Copies):
                for other in (copy.deepcopy(callback), pickle.loads(pickle.dumps(callback))):
                    assert vars(other).keys() == vars(callback).keys()

    on_init_end = on_fit_start = on_train_batch_end = on_validation_batch_end = on_train_epoch_end = copied
    on_test_batch_end = on_predict_batch_end = on_fit_end = on_exception = copied


def ready_made(folder: Path) -> list[Callback]:
    return [
        ProgressBar(), ProgressBarBase(), ModelSummary(), LearningRateMonitor("step"), EarlyStopping("loss"), Writes(),
        ModelCheckpoint(folder, monitor="loss", every_n_train_steps=1, save_last=True),
    ]  # fmt: skip


class Losing(Line):
    def training_step(self, batch: Any, batch_idx: int) -> Any:
        loss = self.loss(batch)
        self.log("loss", loss, prog_bar=True)
        return {"loss": loss, "graph": loss * 2}


def test_ready_made_ones_can_be_copied_and_pickled_at_any_time(tmp_path: Path, capsys: Any) -> None:
    callbacks = ready_made(tmp_path)
    trainer = quiet(callbacks=[Copies(), *callbacks], logger=CSVLogger(tmp_path), enable_checkpointing=True)
    trainer.fit(Losing(), pairs(2), pairs(1))
    trainer.test(Losing(), pairs(1))
    trainer.predict(Losing(), pairs(1))
    module = Losing()
    module.validation_step = None  # type: ignore[assignment, method-assign]
    again = quiet(callbacks=copy.deepcopy(callbacks), logger=CSVLogger(tmp_path), enable_checkpointing=True)
    again.fit(module, pairs(1))


def test_a_callback_does_not_keep_the_module_alive(tmp_path: Path, capsys: Any) -> None:
    """Nor the graph of a loss; a copy holds nothing of the trainer, and is small."""
    callbacks = ready_made(tmp_path)
    module = Losing()
    trainer = quiet(callbacks=callbacks, logger=CSVLogger(tmp_path), enable_checkpointing=True)
    trainer.fit(module, pairs(3), pairs(1))
    reference = weakref.ref(module)
    del trainer, module
    gc.collect()
    assert reference() is None
    assert len(pickle.dumps(callbacks)) < 20_000
    bar = callbacks[0]
    assert isinstance(bar, ProgressBar) and bar.running_loss is not None
    assert not any(loss.requires_grad for loss in bar._losses)


def test_a_copy_belongs_to_no_run_nor_does_one_that_came_to_the_place_of_another() -> None:
    callback, other, module = LambdaCallback(), Callback(), Line()
    quiet(callbacks=callback, limit_val_batches=0).fit(module, pairs(1))
    attach(other, module)  # as if it had the id of one that took part
    assert module_of(callback) is module
    assert module_of(copy.copy(callback)) is module_of(copy.deepcopy(callback)) is module_of(other) is None


# ---- LambdaCallback --------------------------------------------------------------------------------------------


def test_a_callback_is_made_of_functions() -> None:
    seen: list[Any] = []
    callback = LambdaCallback(
        on_init_end=lambda trainer: seen.append("made"),
        setup=lambda trainer, module, stage: seen.append(stage),
        on_train_batch_end=lambda trainer, module, outputs, batch, batch_idx: seen.append(batch_idx),
        on_save_checkpoint=lambda trainer, module, checkpoint: checkpoint["epoch"],
        on_train_end=None,
    )
    trainer = quiet(callbacks=callback, limit_val_batches=0)
    trainer.fit(Line(), pairs(2))
    trainer.save_checkpoint("x.ckpt")
    assert torch.load("x.ckpt")["callbacks"]["LambdaCallback"]["on_save_checkpoint"] == 1
    assert seen == ["made", "fit", 0, 1]


def test_a_function_of_a_hook_of_the_time_is_called_too() -> None:
    seen: list[str] = []
    callback = LambdaCallback(on_batch_end=lambda trainer, module: seen.append("end"))
    with pytest.warns(DeprecationWarning, match="on_batch_end is deprecated; use on_train_batch_end"):
        quiet(callbacks=callback, limit_val_batches=0).fit(Line(), pairs(1))
    assert seen == ["end"]


@pytest.mark.parametrize("name, told", [
    ("on_train_batch_ends", "on_train_batch_ends is no hook; did you mean 'on_train_batch_end'"),
    ("state_dict", "state_dict is no hook"), ("log", "log is no hook"), ("anything", "anything is no hook$"),
])  # fmt: skip
def test_what_is_no_hook_is_refused(name: str, told: str) -> None:
    with pytest.raises(ConfigurationError, match=f"LambdaCallback: {told}"):
        LambdaCallback(**{name: print})


@pytest.mark.filterwarnings("ignore:fit will train nothing")
def test_a_list_that_is_set_holds_from_the_next_run_on() -> None:
    """Also where a module's callbacks had taken the place of some; what was appended to the list stays in it."""

    class Watching(Callback):
        def __init__(self) -> None:
            self.fits = 0

        def on_fit_start(self, trainer: Any, pl_module: Any) -> None:
            self.fits += 1

    class Bringing(Line):
        def configure_callbacks(self) -> Any:
            return [own]

    given, own, later = Watching(), Watching(), Callback()
    trainer = quiet(callbacks=[given])
    trainer.fit(Bringing(), pairs(1), pairs(1))
    assert (trainer.callbacks == [own] and (given.fits, own.fits) == (1, 1)) or (given.fits, own.fits) == (0, 1)
    trainer.callbacks.append(later)
    trainer.fit(Line(), pairs(1), pairs(1))
    assert trainer.callbacks == [given, later]
    trainer.fit(Bringing(), pairs(1), pairs(1))
    trainer.callbacks = []
    fits = given.fits
    trainer.fit(Line(), pairs(1), pairs(1))
    assert trainer.callbacks == [] and given.fits == fits
