"""Spellings of the period: each retired option and keyword means what it did, with a warning; unknown ones are told."""

from __future__ import annotations

import inspect
import re
from typing import Any

import pytest
import torch
from models import Batches, Line, pairs, quiet
from releases import named

from refimpl import Callback, ConfigurationError, LightningDataModule, ModelSummary, ProgressBar, Trainer
from refimpl.period.retired import ABSENT, DEPRECATED, HARMLESS, IDLE, INSTEAD, RENAMED, SPREADING

# ---- options --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("old, option, value", [
    ({"weights_summary": None}, "enable_model_summary", False),
    ({"weights_summary": "top"}, "enable_model_summary", True),
    ({"progress_bar_refresh_rate": 0}, "enable_progress_bar", False),
    ({"progress_bar_refresh_rate": 1}, "enable_progress_bar", True),
])  # fmt: skip
def test_a_retired_option_is_the_one_of_today(old: dict[str, Any], option: str, value: Any) -> None:
    with pytest.warns(DeprecationWarning, match=f"use {option}") as warned:
        was = Trainer(**old)
    assert warned[0].filename == __file__  # it is the user's line that is shown
    now = Trainer(**{option: value})
    assert [type(callback) for callback in was.callbacks] == [type(callback) for callback in now.callbacks]
    with pytest.warns(DeprecationWarning):  # with the default of today beside, as from a command line
        assert len(Trainer(**old, **{option: True}).callbacks) == len(was.callbacks)


def test_two_spellings_that_contradict_each_other() -> None:
    told = "progress_bar_refresh_rate=5 contradicts enable_progress_bar=False; give enable_progress_bar only"
    with pytest.raises(ConfigurationError, match=told):
        Trainer(progress_bar_refresh_rate=5, enable_progress_bar=False)
    with pytest.warns(DeprecationWarning):
        Trainer(progress_bar_refresh_rate=0, enable_progress_bar=False)


def test_values_that_the_option_of_today_has_no_room_for_are_a_callbacks() -> None:
    with pytest.warns(DeprecationWarning):
        trainer = Trainer(
            progress_bar_refresh_rate=7, weights_summary="full", callbacks=Callback(), enable_checkpointing=False
        )
    plain, bar, summary = trainer.callbacks
    assert type(plain) is Callback
    assert isinstance(bar, ProgressBar) and bar.refresh_rate == 7
    assert isinstance(summary, ModelSummary) and summary.max_depth == -1


def test_a_callback_that_was_given_keeps_its_own() -> None:
    own = ProgressBar(refresh_rate=2)
    with pytest.warns(DeprecationWarning):
        trainer = quiet(progress_bar_refresh_rate=7, callbacks=own, enable_progress_bar=True)
    assert [callback for callback in trainer.callbacks if isinstance(callback, ProgressBar)] == [own]


@pytest.mark.parametrize("name", ["progress_bar_refresh_rate", "checkpoint_callback", "reload_dataloaders_every_epoch"])
def test_none_says_nothing(name: str) -> None:
    assert any(isinstance(callback, ProgressBar) for callback in Trainer(**{name: None}).callbacks)


@pytest.mark.parametrize("old, told", [
    ({"weights_summary": "all"}, "weights_summary='all'; None, 'top' or 'full' is accepted"),
    ({"progress_bar_refresh_rate": -1}, "refresh_rate=-1; an int from 1"),
])  # fmt: skip
def test_a_retired_value_that_is_not_accepted(old: dict[str, Any], told: str) -> None:
    with pytest.raises(ValueError, match=told), pytest.warns(DeprecationWarning):
        Trainer(**old)


@pytest.mark.parametrize("name", IDLE)
def test_what_has_no_successor_does_nothing(name: str) -> None:
    with pytest.warns(DeprecationWarning, match=rf"Trainer\({name}=3\) is deprecated; it does nothing") as warned:
        Trainer(**{name: 3})
    assert warned[0].filename == __file__


@pytest.mark.parametrize("name", sorted(ABSENT))
def test_what_this_engine_does_not_have_may_be_switched_off(name: str) -> None:
    for nothing in ABSENT[name]:
        Trainer(**{name: nothing})
    instead = re.escape(INSTEAD.get(name, "leave it out"))
    with pytest.raises(ConfigurationError, match=f"{name}='yes'.: this engine has nothing of the kind; {instead}$"):
        Trainer(**{name: "yes"})


@pytest.mark.parametrize("name", sorted(HARMLESS))
def test_what_changes_no_result_is_gone_without(name: str) -> None:
    for nothing in HARMLESS[name]:
        Trainer(**{name: nothing})
    instead = re.escape(INSTEAD.get(name, "leave it out"))
    with pytest.warns(UserWarning, match=rf"Trainer\({name}='simple'\): .*; {instead}; it goes on without") as warned:
        Trainer(**{name: "simple"})
    assert warned[0].filename == __file__


@pytest.mark.parametrize("name", ["accelerator", "distributed_backend"])
@pytest.mark.parametrize("value", SPREADING)
def test_a_strategy_spreads_nothing_on_one_device(name: str, value: str) -> None:
    with pytest.warns(DeprecationWarning, match=rf"Trainer\({name}='{value}'\) is deprecated; use strategy"):
        assert Trainer(**{name: value}).device == Trainer(strategy=value).device
    with pytest.warns(DeprecationWarning):
        trainer = Trainer(**{name: value, "num_processes": 2})
    assert (trainer.world_size, trainer.num_devices) == ((1, 2) if value in ("dp", "ddp2") else (2, 1))


def test_truncated_bptt_steps_of_the_trainer_is_that_of_modules_without_their_own() -> None:
    class Recurrent(Line):
        def training_step(self, batch: Any, batch_idx: int, hiddens: Any) -> Any:  # type: ignore[override]
            lengths.append(batch[0].shape[1])
            return {"loss": self.loss(batch), "hiddens": None}

    class Own(Recurrent):
        truncated_bptt_steps = 2

    lengths: list[int] = []
    batch = [torch.zeros(1, 4, width, dtype=torch.float64) for width in (2, 1)]
    for module, split in ((Recurrent(), [3, 1]), (Own(), [2, 2])):
        with pytest.warns(DeprecationWarning, match="use the module's attribute"):
            trainer = quiet(truncated_bptt_steps=3, limit_val_batches=0)
        trainer.fit(module, Batches([batch]))
        assert lengths == split
        lengths.clear()


def test_every_option_of_every_release_from_1_0_on_is_known() -> None:
    today = {*inspect.signature(Trainer).parameters}
    absent = {*HARMLESS, *ABSENT}
    spans = (("1.4.9", "1.5.10"), ("1.0", "1.4"), ("1.5.11", "9"))
    of_the_period, earlier, later = ({name for name, _ in named("Trainer.__init__", *span)} for span in spans)
    known = {*today, *RENAMED, *IDLE, *absent}
    assert known == of_the_period | earlier | later | {"process_timeout"}
    told = later - earlier - of_the_period - {*RENAMED}
    assert {name for name in INSTEAD if "of later releases" in INSTEAD[name]} == told
    assert {name for name in INSTEAD if "of earlier releases" in INSTEAD[name]} == earlier - of_the_period
    assert set(INSTEAD) <= absent and set(DEPRECATED) <= today


def test_the_signature_shows_the_options_of_today() -> None:
    shown = set(inspect.signature(Trainer).parameters)
    assert {"max_epochs", "accelerator"} <= shown
    assert not shown & {*RENAMED, *IDLE, *HARMLESS, *ABSENT}


@pytest.mark.parametrize("given, near", [
    ("max_epoch", "max_epochs"), ("limit_validation_batches", "limit_val_batches"), ("callback", "callbacks"),
    ("weight_summary", "weights_summary"), ("gpu", "gpus"), ("resume_from", "resume_from_checkpoint"), ("xyz", None),
])  # fmt: skip
def test_an_unknown_option_is_told_with_the_nearest(given: str, near: str | None) -> None:
    hint = rf"; did you mean '{near}'\?" if near else ""
    with pytest.raises(TypeError, match=f"^Trainer has no option '{given}'{hint}$"):
        Trainer(**{given: 1})  # type: ignore[arg-type]


def test_options_are_given_by_name() -> None:
    with pytest.raises(TypeError, match="takes options by name, such as max_epochs=3; given by position was True"):
        Trainer(True)  # type: ignore[misc]


# ---- arguments of fit, validate, test, predict -----------------------------------------------------------


RETIRED = [
    ("fit", "train_dataloader", "train_dataloaders"), ("validate", "val_dataloaders", "dataloaders"),
    ("test", "test_dataloaders", "dataloaders"),
]  # fmt: skip


@pytest.mark.parametrize("function", ["fit", "validate", "test", "predict"])
def test_every_argument_of_every_release_is_one_of_today_or_retired(function: str) -> None:
    names = {name for name, _ in named(f"Trainer.{function}")}
    assert names == {*inspect.signature(getattr(Trainer, function)).parameters} - {"self"} | {
        old for retiring, old, _ in RETIRED if retiring == function
    }


@pytest.mark.parametrize("function, old, today", RETIRED)
def test_a_retired_keyword_is_that_of_today(function: str, old: str, today: str) -> None:
    trainer = quiet(limit_val_batches=1)
    call = getattr(trainer, function)
    told = rf"Trainer\.{function}\({old}=...\) is deprecated; use {today}"
    with pytest.warns(DeprecationWarning, match=told) as warned:
        call(Line(), **{old: pairs(3)}, **({"val_dataloaders": pairs(1)} if function == "fit" else {}))
    assert warned[0].filename == __file__
    assert trainer.state.finished
    both = f"Trainer.{function}: {old} and {today} say the same; give {today}"
    with pytest.raises(ConfigurationError, match=both):
        call(Line(), **{old: pairs(3), today: pairs(3)})
    with pytest.raises(ConfigurationError, match=both):
        call(Line(), pairs(3), **{old: pairs(3)})


def test_a_retired_keyword_of_none_says_nothing() -> None:
    class Data(LightningDataModule):
        def train_dataloader(self) -> Any:
            return pairs(3)

    trainer = quiet(limit_val_batches=0)
    trainer.fit(Line(), train_dataloader=None, datamodule=Data())  # type: ignore[call-arg]
    assert trainer.global_step == 3


@pytest.mark.parametrize("function, given, near", [
    ("fit", "train_loaders", "train_dataloaders"), ("validate", "dataloader", "dataloaders"),
    ("test", "test_dataloader", "test_dataloaders"), ("predict", "return_prediction", "return_predictions"),
    ("predict", "verbose", None),
])  # fmt: skip
def test_an_unknown_keyword_is_told_with_the_nearest(function: str, given: str, near: str | None) -> None:
    hint = rf"; did you mean '{near}'\?" if near else ""
    with pytest.raises(TypeError, match=rf"^Trainer\.{function} has no argument '{given}'{hint}$"):
        getattr(quiet(), function)(Line(), **{given: pairs(1)})


def test_by_position_the_arguments_are_those_of_the_period() -> None:
    evaluating = ["model", "dataloaders", "ckpt_path", "verbose", "datamodule"]
    for method, names in {
        Trainer.fit: ["model", "train_dataloaders", "val_dataloaders", "datamodule"],
        Trainer.validate: evaluating, Trainer.test: evaluating,
        Trainer.predict: ["model", "dataloaders", "datamodule", "return_predictions", "ckpt_path"],
    }.items():  # fmt: skip
        assert list(inspect.signature(method).parameters)[1 : 1 + len(names)] == names
