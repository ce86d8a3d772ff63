"""Scenarios: what is accepted, what is refused and how, and that a file says what its scenario is."""

from __future__ import annotations

import json
import tomllib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from strategies import scenarios

from conformance.experiment import TRAINER_DEFAULTS, Data, Scenario, Stopping, When
from conformance.features import applies, features
from conformance.hooks import HOOKS
from conformance.scenario import ScenarioError, load_scenario, load_scenarios, scenario_of, to_toml
from conformance.scenario_keys import MOST_CALLBACKS
from conformance.scenario_module import LOSSES, Log, Model
from conformance.spec.contracts import expected

FULL = Scenario(
    name="full",
    title='Quotes ", a backslash \\, a tab \t, \x7f, 漢字',
    calls=("fit", "validate", "test", "predict"),
    needs=("bf16", "early-stopping"),
    callbacks=2,
    data=Data(
        train=4,
        val=(1, 2),
        test=(3,),
        predict=(1,),
        sized=False,
        source="datamodule",
        batch="dict",
        batch_size=3,
        last=1,
    ),
    model=Model(
        defines=("training_epoch_end",),
        lacks=("predict_step",),
        returns="dict",
        eval_returns="none",
        optimizer="adam",
        scheduler="step",
        dtype="float32",
        callbacks=("new", "same"),
        starts_in_eval=True,
        logs=(Log("training_step", "a", on_step=True, on_epoch=True), Log("on_train_epoch_end", "b", batch_size=3)),
        form="tuple-of-dicts",
        scheduler_frequency=2,
        overrides=("zero-grads", "twice-backward"),
    ),
    trainer={
        "max_epochs": 2,
        "limit_val_batches": 1.0,
        "val_check_interval": 2,
        "fast_dev_run": True,
        "precision": "bf16",
    },
    when=(When("training_step", "raise", 3), When("on_fit_start", "stop", receiver="callback:1")),
    early_stopping=(Stopping("b", "max", patience=1, min_delta=0.5, strict=False, given="module"), Stopping("b")),
)


def refused(**given: Any) -> str:
    with pytest.raises(ScenarioError) as caught:
        scenario_of({"name": "mine", **given})
    message = str(caught.value)
    assert len(message) < 500
    return message


# ---- TOML and plain data -------------------------------------------------------------------------------


def test_a_scenario_survives_a_file_and_a_header(tmp_path: Path) -> None:
    path = tmp_path / "other.toml"
    path.write_text(to_toml(FULL), encoding="utf-8")
    assert load_scenario(path) == FULL
    assert scenario_of(json.loads(json.dumps(FULL.to_dict()))) == FULL


@pytest.mark.parametrize("scenario", load_scenarios(), ids=lambda scenario: scenario.name)
def test_the_built_in_ones_survive_too(scenario: Scenario) -> None:
    assert scenario_of(tomllib.loads(to_toml(scenario))) == scenario
    assert scenario.title, "a built-in scenario says what it is about"


@settings(max_examples=40)
@given(scenarios())
def test_drawn_ones_survive_too(scenario: Scenario) -> None:
    again = scenario_of(tomllib.loads(to_toml(scenario)))
    assert again == scenario
    assert {k: type(v) for k, v in again.trainer.items()} == {k: type(v) for k, v in scenario.trainer.items()}


def test_true_is_short_for_the_losses() -> None:
    for row, logs in [(True, LOSSES), (False, ()), ([{"hook": "test_step", "name": "eval_loss"}], LOSSES[2:])]:
        assert scenario_of({"name": "x", "model": {"logs": row}}).model.logs == logs


def test_defaults_are_left_out_of_the_file() -> None:
    assert to_toml(Scenario("plain")) == 'name = "plain"\n'
    assert to_toml(Scenario("one", data=Data(train=1))) == 'name = "one"\n[data]\ntrain = 1\n'


def test_a_file_names_its_scenario_unless_it_says_otherwise(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text("callbacks = 0\n")
    assert load_scenario(path) == Scenario("mine", callbacks=0)


@pytest.mark.parametrize("content", [b"callbacks = ", b"\xff\xfe", b"x = " + b"9" * 5000, b"x = " + b"[" * 3000, None])
def test_an_unreadable_file_is_named(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "mine.toml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ScenarioError, match=r"mine\.toml: "):
        load_scenario(path)


# ---- what is refused -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "given, message",
    [
        ({"callback": 2}, "mine: unknown key 'callback'; did you mean 'callbacks'?"),
        ({"data": {"trains": 2}}, "mine: data: unknown key 'trains'; did you mean 'train'?"),
        ({"model": {"define": ["x"]}}, "mine: model: unknown key 'define'; did you mean 'defines'?"),
        ({"data": 5}, "mine: data: a table is expected, not 5"),
        ({"trainer": [1]}, "mine: trainer is [1]; a table is accepted"),
        ({"callbacks": True}, "mine: callbacks is True; an int is accepted"),
        ({"x" * 9999: 1}, "mine: unknown key 'xxxx"),
        ({"data": {"train": 2**53}}, "mine: data.train: 9007199254740992; at most 9007199254740991 is accepted"),
        ({"data": {"batch_size": 1001}}, "mine: data.batch_size: 1001; at most 1000 is accepted"),
        ({"data": {"time": 10**18}}, "mine: data.time: 1000000000000000000; at most 1000 is accepted"),
        ({"model": {"frequencies": [1001]}}, "mine: model.frequencies: 1001; at most 1000 is accepted"),
        ({"trainer": {"limit_train_batches": 10**400}}, "; at most 9007199254740991 is accepted"),
        ({"callbacks": 10**9}, f"mine: callbacks: 1000000000; 0 to {MOST_CALLBACKS} are accepted"),
        ({"calls": "fit"}, "mine: calls is 'fit'; a list of strings is accepted"),
        ({"calls": []}, "mine: calls is empty; name one of fit, validate, test, predict"),
        (
            {"calls": ["fitt"]},
            "mine: calls: 'fitt' is none of 'fit', 'validate', 'test', 'predict', 'predict-unreturned', 'save', "
            "'resume', 'resume-last', 'test-best', 'test-last', 'test-none', 'another', 'append', 'freeze', "
            "'unfreeze', 'load'; did you mean 'fit'?",
        ),
        ({"calls": ["fit", "freeze"]}, "mine: freeze needs a call behind it, no layers_in_setup, and "),
        ({"calls": ["freeze", "fit"]}, "mine: a fit of what is frozen: unfreeze it before"),
        ({"calls": ["freeze", "unfreeze", "fit"]}, 'mine: it freezes the module: add needs = ["freezing"]'),
        ({"calls": ["fit", "load", "fit"]}, 'mine: load needs a "save", one process and device, no callbacks'),
        ({"model": {"hyperparameters": "some"}}, "mine: model.hyperparameters: 'some' is none of '', 'all', 'names', "),
        ({"model": {"hyperparameters_logged": False}}, "mine: model.hyperparameters_logged needs model."),
        ({"data": {"hyperparameter": True}}, "mine: data.hyperparameter needs a data module, and model."),
        ({"calls": ["test"]}, "mine: test needs batches: set data.test"),
        ({"data": {"train": 0}}, "mine: fit needs batches: set data.train"),
        ({"calls": ["validate"], "data": {"val": [1]}, "model": {"lacks": ["validation_step"]}},
         "mine: validate needs the validation_step that model.lacks takes away"),
        ({"data": {"val": [0]}}, "mine: data.val: 0; an int from 1 is accepted"),
        ({"data": {"val": 2}}, "mine: data: val is 2; a list of ints is accepted"),
        ({"data": {"val": ["a"]}}, "mine: data: val is ['a']; a list of ints is accepted"),
        ({"data": {"last": 3}}, "mine: data.last=3 is more than batch_size=2"),
        ({"data": {"source": "modul"}}, "did you mean 'module'?"),
        ({"model": {"scheduler": "step", "optimizer": "none"}},
         "mine: model.scheduler='step' needs an optimizer, not \"none\""),
        ({"trainer": {"max_epoch": 2}}, "did you mean 'max_epochs'?"),
        ({"trainer": {"max_epochs": "many"}}, "mine: trainer.max_epochs: 'many'; an int from -1 is accepted"),
        ({"trainer": {"val_check_interval": 0}},
         "mine: trainer.val_check_interval: 0; an int from 1 or a float in (0, 1] is accepted"),
        ({"trainer": {"limit_val_batches": 1.5}},
         "mine: trainer.limit_val_batches: 1.5; an int from 0 or a float in [0, 1] is accepted"),
        ({"trainer": {"check_val_every_n_epoch": 0}}, "mine: trainer.check_val_every_n_epoch: 0; an int from 1"),
        ({"trainer": {"precision": 17}}, "mine: trainer.precision: 17 is none of 32, 'bf16', 16"),
        ({"trainer": {"fast_dev_run": -1}}, "mine: trainer.fast_dev_run: -1; an int from 0 is accepted"),
        (
            {"data": {"train": 3}, "trainer": {"limit_train_batches": 0.3}},
            "mine: trainer.limit_train_batches=0.3 leaves nothing of a loader of 3",
        ),
        (
            {"data": {"val": [4, 3]}, "trainer": {"limit_val_batches": 0.25}},
            "mine: trainer.limit_val_batches=0.25 leaves nothing of a loader of 3",
        ),
        (
            {"data": {"sized": False, "test": [4]}, "trainer": {"limit_test_batches": 0.5}},
            "mine: trainer.limit_test_batches=0.5 needs loaders with a length: give an int, or set data.sized",
        ),
        (
            {"data": {"sized": False}, "trainer": {"val_check_interval": 0.5}},
            "mine: trainer.val_check_interval=0.5 needs a loader with a length: give an int, or set data.sized",
        ),
        (
            {"data": {"train": 5}, "trainer": {"val_check_interval": 4, "limit_train_batches": 3}},
            "mine: trainer.val_check_interval=4: an epoch has 3 batches",
        ),
        (
            {"trainer": {"max_epochs": -1}},
            "mine: trainer.max_epochs=-1 trains without end: set max_steps, or a `when` that stops",
        ),
        ({"model": {"optimizers": 3}}, "mine: model.optimizers: 3 is none of 1, 2"),
        ({"model": {"optimizers": 2}}, 'mine: model.optimizers=2: add needs = ["several-optimizers"]'),
        ({"model": {"optimizers": 2, "optimizer": "none"}}, "model.optimizers=2, and model.optimizer="),
        ({"model": {"frequencies": [1, 2]}}, "mine: 2 model.frequencies for 1 model.optimizers"),
        ({"model": {"shared": True}}, "mine: model.shared needs two model.optimizers"),
        ({"trainer": {"strategy": "ddp_spawn", "devices": 2}, "data": {"batch_size": 2, "source": "argument"},
          "needs": ["spawned"]}, 'mine: trainer.strategy="ddp_spawn" needs data that are no argument'),
        ({"trainer": {"strategy": "ddp_spawn", "devices": 2}, "when": [{"hook": "on_fit_start", "do": "raise"}],
          "needs": ["spawned"]}, 'mine: trainer.strategy="ddp_spawn" needs one node'),
        ({"launched": True, "trainer": {"strategy": "ddp", "devices": 2}, "data": {"batch_size": 2},
          "needs": ["distributed"]}, 'mine: launched: add needs = ["launched"]'),
        ({"launched": True, "needs": ["launched"]}, 'mine: launched needs trainer.strategy="ddp", one node'),
        ({"model": {"frequencies": [0]}}, "mine: model.frequencies: 0; an int from 1 is accepted"),
        ({"needs": ["several-optimizer"]}, "did you mean 'several-optimizers'?"),
        ({"model": {"manual": True, "frequencies": [1]}}, "mine: model.manual needs an optimizer, and no"),
        ({"model": {"truncated_bptt_steps": 2}, "data": {"time": 4}}, "truncated_bptt_steps needs data.time"),
        ({"data": {"batch": "sequences"}}, 'mine: data.batch "sequences" needs model.truncated_bptt_steps'),
        ({"model": {"truncated_bptt_steps": -2}}, "mine: model.truncated_bptt_steps: -2; an int from 0"),
        ({"model": {"truncated_bptt_steps": 2, "returns": "dict"}, "data": {"time": 4}},
         'mine: model.truncated_bptt_steps: add needs = ["truncated-bptt"]'),
        ({"model": {"truncated_bptt_steps": 2, "returns": "dict", "defines": ["training_step_end"]},
          "data": {"time": 4}}, "training_step_end would lose the hiddens"),
        ({"model": {"logs": [{"hook": "training_step", "name": "m", "metric": True}]}},
         'mine: it logs a metric: add needs = ["torchmetrics"]'),
        ({"model": {"logs": [{"hook": "on_train_start", "name": "m", "metric": True}]}, "needs": ["torchmetrics"]},
         "mine: model.logs m: metric=true needs a step, and no reduce_fx, batch_size or sync_dist"),
        ({"model": {"logs": [{"hook": "training_step", "name": "m", "metric": True}]}, "data": {"batch_size": 4},
          "needs": ["torchmetrics", "data-parallel"], "trainer": {"strategy": "dp", "devices": 2}},
         "mine: model.logs m: metric=true needs whole batches: no strategy, no truncated_bptt_steps"),
        ({"model": {"form": "two-lists-crossed", "optimizers": 2}, "needs": ["several-optimizers"]},
         "mine: model.form='two-lists-crossed' needs two optimizers, automatic optimization, and schedulers per step"),
        ({"model": {"optimizer": "lbgfs"}}, "did you mean 'lbfgs'?"),
        ({"model": {"form": "lists"}}, "mine: model.form: 'lists' is none of "),
        ({"model": {"overrides": ["warmup"]}}, "did you mean 'warm-up'?"),
        ({"model": {"scheduler": "step", "scheduler_frequency": 0}}, "model.scheduler_frequency: 0; an int from 1"),
        ({"model": {"form": "list", "optimizer": "none"}}, "mine: model.form='list' needs an optimizer, not"),
        ({"model": {"form": "dict", "optimizers": 2}, "needs": ["several-optimizers"]},
         "mine: model.form='dict' holds one optimizer"),
        ({"model": {"form": "tuple", "scheduler": "step"}}, "model.form='tuple' holds neither schedulers nor frequen"),
        ({"model": {"form": "two-lists", "frequencies": [1]}}, "mine: model.form='two-lists' holds no frequencies"),
        ({"model": {"scheduler_frequency": 2}}, "mine: what an lr_dict says, model.scheduler_frequency and its like"),
        ({"model": {"monitor": "v", "scheduler": "step", "manual": True}}, "needs a scheduler that steps by itself"),
        ({"model": {"scheduler_name": "rate"}}, "needs a scheduler that steps by itself"),
        ({"model": {"closure": True}}, "model.closure needs model.manual"),
        ({"trainer": {"gradient_clip_val": -1}}, "trainer.gradient_clip_val: -1; 0, for none, or more is accepted"),
        ({"trainer": {"gradient_clip_val": "1"}}, "trainer.gradient_clip_val: '1'; a number is accepted"),
        ({"trainer": {"gradient_clip_algorithm": "nrom"}}, "did you mean 'norm'?"),
        ({"trainer": {"gradient_clip_val": 1}, "model": {"manual": True}}, "gradient_clip_val needs automatic"),
        ({"trainer": {"precision": 16}, "needs": ["fp16"]}, 'model.dtype "float32"'),
        ({"trainer": {"precision": 16}, "model": {"dtype": "float32"}}, 'add needs = ["fp16"]'),
        ({"lr_monitor": True, "needs": ["lr-monitor"]}, "lr_monitor needs one scheduler for each optimizer"),
        ({"model": {"lr_dict": False, "scheduler": "step"}}, "mine: model.lr_dict=false needs a scheduler per epoch"),
        ({"model": {"strict": False, "scheduler": "step"}}, "mine: model.strict=false needs a model.monitor"),
        ({"model": {"monitor": "v", "scheduler": "step"}, "trainer": {"precision": "bf16"}},
         "mine: model.monitor needs precision 32"),
        ({"model": {"optimizer": "lbfgs"}, "trainer": {"accumulate_grad_batches": 2}}, 'model.optimizer="lbfgs" needs'),
        ({"model": {"optimizer": "lbfgs", "dtype": "float32"}}, 'mine: model.optimizer="lbfgs" needs one optimizer'),
        ({"model": {"overrides": ["zero-grads"], "manual": True}}, "mine: model.overrides need an optimizer, and auto"),
        ({"model": {"overrides": ["alternate"]}}, 'mine: model.overrides "alternate" needs two optimizers'),
        ({"model": {"overrides": ["warm-up"], "scheduler": "step"}}, '"warm-up" needs a rate that nothing else chang'),
        ({"model": {"overrides": ["own-split"]}}, 'mine: model.overrides "own-split" has nothing to split'),
        ({"trainer": {"accumulate_grad_batches": 0}}, "trainer.accumulate_grad_batches: 0; an int from 1"),
        ({"model": {"logs": 1}}, "mine: model: logs is 1; true, false or a list of tables is accepted"),
        ({"model": {"logs": [1]}}, "mine: model.logs: a table is expected, not 1"),
        ({"model": {"logs": [{"hook": "on_train_start", "name": "a", "dtype": "int9"}]}},
         "mine: model.logs a: dtype: 'int9' is none of '', 'uint8', 'int32'"),
        ({"model": {"logs": [{"hook": "training_step", "name": "a", "dtype": "uint8"}]}},
         "mine: model.logs a: dtype='uint8' needs a hook that is no step and logs numbers"),
        ({"model": {"logs": [{"hook": "on_train_start", "name": "a", "dtype": "uint8", "values": [256]}]}},
         "mine: model.logs a: values of dtype='uint8': 256; at most 255 is accepted"),
        ({"model": {"logs": [{"hook": "training_step", "name": "a", "helper": True, "in_dict": True}]}},
         "mine: model.logs a: helper=true needs a log that is not in_dict"),
        ({"model": {"own_plateau": True, "scheduler": "epoch"}, "needs": ["own-plateau"]},
         "mine: model.own_plateau needs a model.monitor"),
        ({"model": {"own_plateau": True, "monitor": "a", "scheduler": "epoch"}},
         'mine: model.own_plateau: add needs = ["own-plateau"]'),
        ({"model": {"logs": [{"hook": "training_step", "name": "a", "at": [0], "sync_dist": True}]}},
         "mine: model.logs a: at needs a value that is logged alone: no metric, no sync_dist"),
        ({"data": {"workers": 1, "sized": False}},
         "mine: data.workers needs loaders with a length, no data.shuffle, and one process"),
        ({"calls": ["fit", "append"]},
         "mine: append needs one process, no fit that goes on from a checkpoint, and a call behind it"),
        ({"model": {"logs": [{"hook": "setup", "name": "a"}]}}, "mine: model.logs a: hook: 'setup' is none of the "),
        ({"model": {"logs": [{"hook": "training_stp", "name": "a"}]}}, "did you mean 'training_step'?"),
        ({"model": {"logs": [{"hook": "training_step", "name": "a", "on_step": 1}]}},
         "mine: model.logs: on_step is 1; true or false is accepted"),
        ({"model": {"logs": [{"hook": "training_epoch_end", "name": "a"}]}},
         "mine: model.logs a: add 'training_epoch_end' to model.defines"),
        ({"model": {"logs": [{"hook": "on_train_start", "name": "a", "on_step": True}]}},
         "mine: model.logs a: on_step=true, and on_train_start belongs to no step"),
        ({"model": {"logs": [{"hook": "training_step", "name": "a", "on_step": False, "on_epoch": False}]}},
         "mine: model.logs a: on_step=false and on_epoch=false would log nothing"),
        ({"model": {"logs": [{"hook": "on_train_start", "name": "a", "values": [1.0], "buffer": True}]}},
         "mine: model.logs a: values, and a buffer"),
        ({"model": {"logs": [{"hook": "on_train_start", "name": "a", "enable_graph": True}]}},
         "mine: model.logs a: enable_graph=true needs the loss of training_step"),
        ({"model": {"plain": True}}, "mine: model.plain needs model.manual and one optimizer"),
        ({"data": {"generator": True}}, "mine: data.generator needs data.shuffle"),
        ({"data": {"shuffle_val": True}}, "mine: data.shuffle_val needs data.shuffle"),
        ({"data": {"shuffle": True, "shuffle_val": True}, "trainer": {"overfit_batches": 2}},
         "mine: data.shuffle_val needs one process, and no overfit_batches"),
        ({"data": {"promised": -1}}, "mine: data.promised: -1; an int from 0 is accepted"),
        ({"data": {"leaves_out": True, "shuffle": True}}, "mine: data.leaves_out needs loaders with a length that"),
        ({"data": {"leaves_out": True, "sized": False}}, "mine: data.leaves_out needs loaders with a length that"),
        ({"model": {"hyperparameters": "within", "hyperparameters_changed": True}, "needs": ["hyperparameters"]},
         'mine: model.hyperparameters of "within" needs ones that are not changed'),
        ({"data": {"told_epochs": True, "sized": False}}, "mine: data.told_epochs needs loaders with a length, whose"),
        ({"data": {"promised": 4, "reloaded": 2}}, "and nothing else that changes them"),
        ({"data": {"promised": 4, "last": 1}}, "mine: data.promised needs loaders with a length, whose batches are"),
        ({"data": {"told_epochs": True}, "trainer": {"overfit_batches": 1}}, "mine: data.told_epochs needs loaders"),
        ({"data": {"reloaded": 4, "source": "argument"}}, "mine: data.reloaded needs one training loader, which is"),
        ({"data": {"reloaded": 2}, "trainer": {"val_check_interval": 3}}, "interval=3: an epoch has 2 batches"),
        ({"model": {"logs": [{"hook": "on_train_start", "name": "a", "values": [True]}]}},
         "mine: model.logs: values is [True]; a list of numbers is accepted"),
        ({"model": {"logs": [{"hook": "on_train_start", "name": "a", "values": [1e99]}]}},
         "mine: model.logs a: values: 1e+99; a number is accepted"),
        ({"model": {"logs": [{"hook": "training_step", "name": "a", "values": [1.0]}]}},
         "mine: model.logs a: values or a buffer, and training_step logs its loss"),
        ({"model": {"groups": True, "optimizer": "lbfgs"}}, "model.groups needs an optimizer that can have several"),
        ({"early_stopping": [{"monitor": "a", "mode": "least"}]}, "mine: early_stopping: mode: 'least' is none of"),
        ({"early_stopping": [{"monitor": "a", "patience": -1}]}, "early_stopping: patience: -1; an int from 0 is"),
        ({"early_stopping": [{"monitor": "a", "min_delta": "1"}]}, "early_stopping: min_delta is '1'; a number is"),
        ({"early_stopping": [{"monitor": "a", "given": "to me"}]}, "early_stopping: given: 'to me' is none of"),
        ({"early_stopping": [{"monitor": "a"}, {"monitor": "a", "patience": 1}]}, "two of monitor 'a' and mode 'min'"),
        ({"early_stopping": [{"monitor": "eval_loss"}], "model": {"logs": True}, "trainer": {"precision": "bf16"}},
         "mine: early_stopping needs precision 32, where it monitors a loss"),
        ({"early_stopping": [{"monitor": str(i)} for i in range(9)]}, "early_stopping: 9; at most 8 are accepted"),
        ({"model_checkpoint": [{"mode": "least"}]}, "mine: model_checkpoint: mode: 'least' is none of 'min', 'max'"),
        ({"model_checkpoint": [{"save_top_k": -2}]}, "model_checkpoint: save_top_k: -2; an int from -1 is accepted"),
        ({"model_checkpoint": [{"save_top_k": 2}]}, "model_checkpoint: save_top_k=2 needs a monitor"),
        ({"model_checkpoint": [{"monitor": "a"}]}, "model_checkpoint: monitor: nothing is logged under 'a'"),
        ({"model_checkpoint": [{}], "calls": ["fit", "save"]}, "needs precision 32, and no other saves"),
        ({"model_checkpoint": [{}], "model": {"manual": True}}, "with model.manual each trainer has steps of its own"),
        ({"model_checkpoint": [{}, {"save_last": True}]}, "model_checkpoint: two are given by the trainer"),
        ({"model_checkpoint": [{}]}, 'mine: model_checkpoint: add needs = ["model-checkpoint"]'),
        ({"calls": ["fit", "test-best"], "data": {"test": [1]}}, "test-best needs a fit before it, and a model_check"),
        ({"calls": ["fit", "resume-last"]}, "mine: resume-last needs a fit before it, and a model_checkpoint"),
        ({"calls": ["fit", "resume-last"], "needs": ["model-checkpoint"], "model_checkpoint": [
            {"save_weights_only": True}]}, "mine: resume-last needs a model_checkpoint of everything, without"),
        ({"calls": ["fit", "test-last"], "data": {"test": [1]}, "model_checkpoint": [{}]}, "test-last needs a fit"),
        ({"early_stopping": [{"monitor": "a"}]}, 'mine: early_stopping: add needs = ["early-stopping"]'),
        ({"model": {"logs": [{"hook": "training_step", "name": "a", "reduce_fx": "median"}]}},
         "mine: model.logs a: reduce_fx: 'median' is none of 'mean', 'torch.mean', 'min', 'max', 'sum'"),
        ({"model": {"logs": [{"hook": "training_step", "name": "a"},
                             {"hook": "training_step", "name": "a", "on_epoch": True}]}},
         "mine: model.logs a: training_step logs that name twice"),
        ({"data": {"train_loaders": [2, 0]}}, "mine: data.train_loaders: 0; an int from 1 is accepted"),
        ({"data": {"train_loaders": [1] * 9}}, "mine: 9 data.train_loaders; 1 to 8 are accepted"),
        ({"data": {"train_loaders": [1], "structure": "nested"}}, "mine: 1 data.train_loaders; 2 to 8 are accepted"),
        ({"data": {"structure": "tree"}}, "mine: data.structure: 'tree' is none of 'list', 'tuple', 'dict', 'nested'"),
        ({"data": {"train_loaders": [1], "batch": "dict"}},
         'mine: data.train_loaders needs data.batch "tuple", and no truncated_bptt_steps'),
        ({"data": {"shuffle": True, "batch_size": 4, "last": 4}, "model": {"scheduler": "epoch", "monitor": "v"},
          "needs": ["distributed"], "trainer": {"strategy": "ddp", "devices": 2}},
         "mine: data.shuffle without overfit_batches needs nothing that monitors a value"),
        ({"data": {"shuffle": True}, "model": {"optimizer": "lbfgs"}},
         "mine: data.shuffle without overfit_batches needs nothing that monitors a value, and no \"lbfgs\""),
        ({"data": {"shuffle": True, "sized": False}}, "mine: data.shuffle needs loaders with a length"),
        ({"data": {"shuffle": True, "time": 2}}, "mine: data.shuffle without overfit_batches needs no data.time"),
        ({"trainer": {"multiple_trainloader_mode": "min_size"}},
         'mine: multiple_trainloader_mode: add needs = ["multiple-trainloader-mode"]'),
        ({"trainer": {"multiple_trainloader_mode": "shortest"}, "needs": ["multiple-trainloader-mode"]},
         "mine: trainer.multiple_trainloader_mode: 'shortest' is none of 'max_size_cycle', 'min_size'"),
        ({"data": {"train_loaders": [1, 4]}, "trainer": {"limit_train_batches": 0.2}},
         "mine: trainer.limit_train_batches=0.2 leaves nothing of a loader of 4"),
        ({"data": {"train": 4}, "trainer": {"overfit_batches": 0.2}},
         "mine: trainer.overfit_batches=0.2 leaves nothing of a loader of 4"),
        ({"data": {"train": 4}, "trainer": {"overfit_batches": 2, "val_check_interval": 3}},
         "mine: trainer.val_check_interval=3: an epoch has 2 batches"),
        ({"trainer": {"devices": 2}}, "mine: trainer.devices=2 needs a strategy"),
        ({"trainer": {"devices": 9}}, "mine: trainer.devices: 9; at most 8 is accepted"),
        ({"trainer": {"strategy": "ddp2"}}, "mine: trainer.strategy: 'ddp2' is none of 'dp', 'ddp'"),
        ({"trainer": {"strategy": "dp"}}, 'mine: trainer.strategy="dp": add needs = ["data-parallel"]'),
        ({"trainer": {"strategy": "dp"}, "needs": ["data-parallel"], "data": {"batch": "custom"}},
         'mine: trainer.strategy="dp" needs no data.train_loaders, no transfer hooks (data.batch not "custom"), and '),
        ({"trainer": {"strategy": "dp", "devices": 2}, "needs": ["data-parallel"], "data": {"batch_size": 8}},
         'mine: trainer.strategy="dp" needs a data.batch_size of at most 7'),
        ({"when": 5}, "mine: when is 5; a list of tables is accepted"),
        ({"when": [5]}, "mine: when: a table is expected, not 5"),
        ({"when": [{"do": "raise"}]}, "mine: when: missing 1 required positional argument: 'hook'"),
        ({"when": [{"hook": "trainin_step", "do": "raise"}]}, "did you mean 'training_step'?"),
        ({"when": [{"hook": "training_step", "do": "rais"}]}, "did you mean 'raise'?"),
        ({"when": [{"hook": "backward", "do": "return-none"}]},
         "mine: when return-none: hook: 'backward' is none of 'training_step', 'validation_step'"),
        ({"when": [{"hook": "setup", "do": "stop", "receiver": "callback:x"}]},
         "mine: when.receiver: 'callback:x'; module, datamodule, scheduler, scheduler:N or callback:N is accepted"),
        ({"when": [{"hook": "setup", "do": "stop", "nth": -1}]}, "mine: when.nth: -1; an int from 0 is accepted"),
    ],
)  # fmt: skip
def test_a_refusal_names_the_scenario_the_value_and_the_fix(given: dict[str, Any], message: str) -> None:
    assert message in refused(**given)


@pytest.mark.parametrize("name", ["../../etc/passwd", "a\\b", "..", "a\0b", "", None, 5, "é" * 101])
def test_a_name_becomes_a_file_name_and_nothing_else(name: Any) -> None:
    refused(name=name)


@pytest.mark.parametrize("given", [5, [], None, "fit", {}])
def test_no_table_at_all(given: Any) -> None:
    with pytest.raises(ScenarioError, match="a scenario is a table with a 'name'"):
        scenario_of(given)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5)
    | st.sampled_from([10**18, -(10**400), "x" * 10**5, "training_step", "step", "dict"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
PLACES = [
    *((key,) for key in FULL.to_dict()),
    *(("data", key) for key in FULL.to_dict()["data"]),
    *(("model", key) for key in FULL.to_dict()["model"]),
    *(("trainer", key) for key in TRAINER_DEFAULTS),
    *(("model", "logs", 0, key) for key in FULL.to_dict()["model"]["logs"][0]),
    *(("when", 0, key) for key in FULL.to_dict()["when"][0]),
]


@settings(max_examples=300, suppress_health_check=[HealthCheck.too_slow])
@given(st.sampled_from(PLACES), JSON)
def test_whatever_a_header_holds_is_refused_or_understood(place: tuple[Any, ...], value: Any) -> None:
    row: Any = FULL.to_dict()
    inner = row
    for key in place[:-1]:
        inner = inner[key]
    inner[place[-1]] = value
    try:
        scenario = scenario_of(row)
    except ScenarioError as error:
        assert len(str(error)) < 500
        return
    assert features(scenario)
    for _, _ in zip(range(200), expected(scenario)):
        pass  # the oracle understands it, too


PIECES = st.sampled_from(
    ["", "nan", "-1", "9" * 400, "9" * 5000, "[" * 3000, "a." * 3000, "]", "{", '"', "\n", "[data]\n", "[[data]]\n",
     "[[when]]\n", "[model.logs]\n", "name = 5\n", "data = []\n", "07:32:00", "\0"],
)  # fmt: skip


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.floats(0, 1), st.sampled_from([0, 1, 5, 40]), PIECES), min_size=1, max_size=3))
def test_a_damaged_file_is_refused_or_understood(tmp_path: Path, damages: list[tuple[float, int, str]]) -> None:
    text = to_toml(replace(FULL, title=""))
    for share, length, piece in damages:
        place = int(share * len(text))
        text = text[:place] + piece + text[place + length :]
    path = tmp_path / "mine.toml"
    path.write_text(text, encoding="utf-8")
    try:
        load_scenario(path)
    except ScenarioError as error:
        assert str(error).startswith(f"{path}: ")


# ---- what the module is asked --------------------------------------------------------------------------


def test_loaders_options_and_what_the_module_defines() -> None:
    assert FULL.loaders("train") == (4,) and FULL.loaders("val") == (1, 2)
    assert Scenario("x", data=Data(train=0)).loaders("train") == ()
    assert FULL.option("max_epochs") == 2 and FULL.option("max_steps") == -1
    assert FULL.defines("training_epoch_end") and not FULL.defines("test_epoch_end")
    assert FULL.defines("validation_step") and not FULL.defines("predict_step")
    combined = Scenario("x", data=Data(train_loaders=(3, 1, 2)))
    assert combined.loaders("train") == (3, 1, 2) and combined.train_batches() == 3 and FULL.train_batches() == 4
    assert replace(combined, trainer={"multiple_trainloader_mode": "min_size"}).train_batches() == 1
    assert Scenario("x").defines("predict_step") and not Scenario("x").defines("test_step")


def test_features_are_the_words_of_given() -> None:
    words = features(FULL)
    assert {
        "call:test", "option:max_epochs", "source:datamodule", "batch:dict", "returns:dict", "optimizer:adam",
        "scheduler:step", "precision:bf16", "defines:training_epoch_end", "lacks:predict_step", "model-callback:new",
        "when", "does:raise", "training_step:raise", "callback:on_fit_start:stop", "several-loaders", "several:val",
        "unsized", "starts-in-eval", "logs", "several-callbacks", "logs:training_step", "forked", "logs-by-default",
        "reduces:mean", "logs-batch-size",
    } <= words  # fmt: skip
    assert not {"several:test", "on_fit_start:stop", "option:max_steps", "logs-without-loader"} & words


@pytest.mark.parametrize("size, last, devices, words", [
    (4, 4, 2, {"parts:even"}), (4, 3, 2, {"parts:uneven"}), (6, 1, 3, {"parts:uneven", "parts:fewer"}),
    (2, 2, 3, {"parts:uneven", "parts:fewer"}),
])  # fmt: skip
def test_features_of_parts(size: int, last: int, devices: int, words: set[str]) -> None:
    scenario = Scenario("x", data=Data(batch_size=size, last=last), trainer={"strategy": "dp", "devices": devices})
    found = features(scenario)
    assert {word for word in found if word.startswith("parts:")} == words and "data-parallel" in found
    assert not features(Scenario("plain")) & {"data-parallel", "parts:even"}
    assert not applies({"given": ["call:fit"]}, found) and applies({"given": ["call:fit", "data-parallel"]}, found)


def test_features_of_optimization() -> None:
    plain = features(Scenario("plain"))
    assert {"form:optimizer", "everywhere"} <= plain
    unusual = {"when", "lbfgs", "monitor", "lenient", "scheduler-frequency", "bare-scheduler", "monitors-nothing"}
    assert not unusual & plain
    model = Model(scheduler="epoch", scheduler_frequency=2, monitor="a_step", logs=(Log("training_step", "a"),))
    assert {"form:dict", "monitor", "scheduler-frequency"} <= features(Scenario("x", model=model))
    nothing = replace(model, monitor="b")
    assert {"monitors-nothing", "when"} <= features(Scenario("x", model=nothing))
    lenient = features(Scenario("x", model=replace(nothing, strict=False)))
    assert "lenient" in lenient and "when" not in lenient
    several = Model(optimizers=2, form="two-lists", scheduler="epoch", lr_dict=False, overrides=("alternate",))
    assert {"form:two-lists", "bare-scheduler", "overrides:alternate"} <= features(Scenario("x", model=several))
    assert {"form:list"} <= features(Scenario("x", model=Model(optimizers=2)))
    assert {"form:none"} <= features(Scenario("x", model=Model(optimizer="none")))


@pytest.mark.parametrize(
    "check, selected",
    [
        ({}, False),  # something unusual happens: by default not judged
        ({"given": []}, True),
        ({"given": ["when", "unsized"]}, True),
        ({"given": ["unsized", "call:nothing"]}, False),
        ({"given": ["!call:nothing"]}, True),
        ({"given": ["!logs"]}, False),
    ],
)
def test_given_selects_scenarios(check: dict[str, Any], selected: bool) -> None:
    assert applies(check, features(FULL)) is selected
    assert applies({}, features(Scenario("plain")))


def test_where_a_batch_runs_through_other_lines_clauses_that_name_them_are_judged() -> None:
    accumulating = features(Scenario("mine", trainer={"accumulate_grad_batches": 2}))
    assert not applies({"kind": "count"}, accumulating)
    assert applies({"kind": "count", "given": ["accumulation", "!when"]}, accumulating)
    assert applies({"kind": "effect", "given": []}, accumulating)
    assert applies({"kind": "sequence", "given": ["call:fit"]}, accumulating)
    assert applies({"kind": "effect", "given": ["everywhere", "!lbfgs"]}, accumulating)
    assert not applies({"kind": "effect", "given": ["everywhere", "!accumulation"]}, accumulating)


def test_every_hook_of_an_event_is_a_hook_the_recorder_knows() -> None:
    assert {event.hook for scenario in load_scenarios() for event in scenario.when} <= set(HOOKS)
