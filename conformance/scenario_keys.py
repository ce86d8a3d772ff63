"""What each key of a scenario may be, by itself.

Part of reading scenarios, so it needs only the standard library of Python 3.8.
"""

from __future__ import annotations

import re
from typing import Any

from .experiment import OPTIONAL_HOOKS, STEPS, TRAINER_DEFAULTS, Data, Saving, Scenario, Stopping, When
from .hooks import HOOKS, TRANSFERS
from .optimizers import FORMS, OVERRIDES
from .scenario_devices import MOST_DEVICES
from .scenario_module import Log, Model
from .scenario_values import ScenarioError, each_of, natural, number, one_of, share

__all__ = [
    "ACTIONS",
    "ACTS_IN",
    "DTYPES",
    "EPOCH_HOOKS",
    "FORMS_OF_HYPERPARAMETERS",
    "LOGGING_HOOKS",
    "MOST_CALLBACKS",
    "MOST_LOADERS",
    "NEEDS",
    "check_keys",
]

CALLS = (
    *("fit", "validate", "test", "predict", "predict-unreturned"),
    *("save", "resume", "resume-last", "test-best", "test-last", "test-none", "another", "append"),
    *("freeze", "unfreeze", "load"),
)
SOURCES = ("module", "datamodule", "argument", "train-datamodule", "fit-datamodule")
# What trainers can lack altogether, so that a scenario cannot be run on them. "loaders-together", to log one name of
# several loaders, is needed where that is what the scenario is for.
NEEDS = (
    *("bf16", "checkpoints", "several-optimizers", "truncated-bptt", "multiple-trainloader-mode"),
    *("data-parallel", "distributed", "launched", "spawned", "torchmetrics", "loaders-together"),
    *("fp16", "early-stopping", "model-checkpoint", "callable-reductions", "lr-monitor", "prediction-writer"),
    *("accumulation-by-epoch", "another-module", "no-grad", "log-dict-batch-size", "own-plateau"),
    *("hyperparameters", "freezing", "loading", "logged-mappings", "other-samplers"),
)
FORMS_OF_HYPERPARAMETERS = ("", "all", "names", "twice", "ignore", "object", "inherited", "within")
# What a hook of the scenario can be told to do, once, at its nth call.
ACTIONS = ("raise", "interrupt", "stop", "return-none", "return-minus-1", "skip-closure", "save")
# The actions that mean something in a few hooks only.
ACTS_IN = {
    "return-none": tuple(STEPS.values()),
    "return-minus-1": ("on_train_batch_start",),
    "skip-closure": ("optimizer_step",),
    "save": ("on_train_batch_end", "on_validation_end"),
}
# Of tensors that are logged, and up to which number each takes whole ones.
DTYPES = {"uint8": 255, "int32": 2**31 - 1, "int64": 2**53, "bfloat16": 2**8, "float16": 2**11, "float32": 2**24}
# The hooks that may log: those of a batch, and those of a whole pass, which log per epoch only.
BATCH_HOOKS = (
    *("on_train_batch_start", "training_step", "training_step_end", "on_before_zero_grad", "on_before_backward"),
    *("on_after_backward", "on_before_optimizer_step", "on_train_batch_end"),
    *("on_validation_batch_start", "validation_step", "validation_step_end", "on_validation_batch_end"),
    *("on_test_batch_start", "test_step", "test_step_end", "on_test_batch_end"),
)
EPOCH_HOOKS = (
    *("on_train_start", "on_validation_start", "on_test_start", "on_epoch_start", "on_epoch_end"),
    *("on_train_epoch_start", "training_epoch_end", "on_train_epoch_end"),
    *("on_validation_epoch_start", "validation_epoch_end", "on_validation_epoch_end"),
    *("on_test_epoch_start", "test_epoch_end", "on_test_epoch_end"),
)
LOGGING_HOOKS = (*BATCH_HOOKS, *EPOCH_HOOKS)
# Limits, so that whoever reads a scenario of somebody else's can say what it is in bounded time and memory.
MOST_CALLBACKS, MOST_LOADERS, MOST_ROWS, MOST_TURNS = 1000, 8, 1000, 1000
_LEAST = {
    "max_epochs": -1,
    "min_epochs": 0,
    "max_steps": -1,
    "min_steps": 0,
    "check_val_every_n_epoch": 1,
    "num_sanity_val_steps": -1,
    "reload_dataloaders_every_n_epochs": 0,
}


def check_keys(scenario: Scenario) -> None:
    """Raises ScenarioError for the first value that is none of those that its key may have."""
    name = scenario.name
    if not scenario.calls:
        raise ScenarioError("%s: calls is empty; name one of %s" % (name, ", ".join(CALLS)))
    each_of(name + ": calls", scenario.calls, CALLS)
    each_of(name + ": needs", scenario.needs, NEEDS)
    if not 0 <= scenario.callbacks <= MOST_CALLBACKS:
        raise ScenarioError("%s: callbacks: %r; 0 to %d are accepted" % (name, scenario.callbacks, MOST_CALLBACKS))
    _check_data(name + ": data.", scenario.data)
    _check_model(name + ": model.", scenario.model)
    for log in scenario.model.logs:
        _check_log("%s: model.logs %.80s: " % (name, log.name), log)
    for stopping in scenario.early_stopping:
        _check_stopping(name + ": early_stopping: ", stopping)
    for saving in scenario.model_checkpoint:
        _check_saving(name + ": model_checkpoint: ", saving)
    for option, value in scenario.trainer.items():
        _check_option(name, option, value)
    for event in scenario.when:
        _check_when(name, event)


def _check_data(where: str, data: Data) -> None:
    for key in ("train", "promised", "reloaded"):
        natural(where + key, getattr(data, key))
    for stage in ("val", "test", "predict"):
        for batches in getattr(data, stage):
            natural(where + stage, batches, 1)
    for batches in data.train_loaders:
        natural(where + "train_loaders", batches, 1)
    natural(where + "batch_size", data.batch_size, 1, MOST_ROWS)
    natural(where + "last", data.last, 1)
    natural(where + "time", data.time, 0, MOST_ROWS)
    natural(where + "workers", data.workers, 0, 2)
    one_of(where + "source", data.source, SOURCES)
    each_of(where + "transfers", data.transfers, TRANSFERS)
    one_of(where + "batch", data.batch, ("tuple", "named", "dict", "nested", "sequences", "custom"))
    one_of(where + "structure", data.structure, ("list", "tuple", "dict", "nested", "dicts"))


def _check_model(where: str, model: Model) -> None:
    each_of(where + "defines", model.defines, OPTIONAL_HOOKS)
    each_of(where + "lacks", model.lacks, ("validation_step", "predict_step"))
    one_of(where + "returns", model.returns, ("tensor", "dict"))
    one_of(where + "eval_returns", model.eval_returns, ("", "tensor", "dict", "none"))
    one_of(where + "optimizer", model.optimizer, ("sgd", "momentum", "adam", "lbfgs", "none"))
    one_of(where + "optimizers", model.optimizers, (1, 2))
    one_of(where + "scheduler", model.scheduler, ("none", "step", "epoch", "mixed"))
    natural(where + "scheduler_frequency", model.scheduler_frequency, 1)
    natural(where + "second_frequency", model.second_frequency)
    for frequency in model.frequencies:
        natural(where + "frequencies", frequency, int(not any(model.frequencies)), MOST_TURNS)
    one_of(where + "form", model.form, ("", *FORMS))
    each_of(where + "overrides", model.overrides, OVERRIDES)
    one_of(where + "dtype", model.dtype, ("float32", "float64"))
    each_of(where + "callbacks", model.callbacks, ("new", "same", "base"))
    one_of(where + "hyperparameters", model.hyperparameters, FORMS_OF_HYPERPARAMETERS)
    natural(where + "truncated_bptt_steps", model.truncated_bptt_steps)


def _check_log(where: str, log: Log) -> None:
    one_of(where + "hook", log.hook, LOGGING_HOOKS)
    one_of(where + "reduce_fx", log.reduce_fx, ("mean", "torch.mean", "min", "max", "sum", "spread"))
    natural(where + "batch_size", log.batch_size)
    one_of(where + "dtype", log.dtype, ("", *DTYPES))
    for value in log.values:
        number(where + "values", value)
    for call in log.at:
        natural(where + "at", call)


def _check_stopping(where: str, stopping: Stopping) -> None:
    one_of(where + "mode", stopping.mode, ("min", "max"))
    natural(where + "patience", stopping.patience)
    number(where + "min_delta", stopping.min_delta)
    one_of(where + "given", stopping.given, ("trainer", "module"))


def _check_saving(where: str, saving: Saving) -> None:
    one_of(where + "mode", saving.mode, ("min", "max"))
    natural(where + "save_top_k", saving.save_top_k, -1)
    natural(where + "every_n_train_steps", saving.every_n_train_steps)
    one_of(where + "given", saving.given, ("trainer", "module"))


def _check_option(name: str, option: str, value: Any) -> None:
    one_of(name + ": trainer", option, tuple(TRAINER_DEFAULTS))
    where = "%s: trainer.%s" % (name, option)
    if option == "accumulate_grad_batches" and isinstance(value, dict):
        for epoch, batches in value.items():
            if not epoch.isdecimal():
                raise ScenarioError("%s: epoch %r; a number of digits is accepted" % (where, epoch))
            natural("%s.%s" % (where, epoch), batches, 1)
    elif option == "accumulate_grad_batches":
        natural(where, value, 1)
    elif option in _LEAST:
        natural(where, value, _LEAST[option])
    elif option.startswith("limit_") or option in ("val_check_interval", "overfit_batches"):
        share(where, value, least=int(option == "val_check_interval"))
    elif option == "fast_dev_run" and not isinstance(value, bool):
        natural(where, value)
    elif option == "gradient_clip_val":
        number(where, value)
        if value < 0:
            raise ScenarioError("%s: %r; 0, for none, or more is accepted" % (where, value))
    elif option == "gradient_clip_algorithm":
        one_of(where, value, ("norm", "value"))
    elif option == "precision":
        one_of(where, value, (32, "bf16", 16))
    elif option == "multiple_trainloader_mode":
        one_of(where, value, ("max_size_cycle", "min_size"))
    elif option in ("devices", "num_nodes"):
        natural(where, value, 1, MOST_DEVICES)
    elif option == "strategy":
        one_of(where, value, ("dp", "ddp", "ddp_spawn"))


def _check_when(name: str, event: When) -> None:
    one_of(name + ": when.do", event.do, ACTIONS)
    one_of("%s: when %s: hook" % (name, event.do), event.hook, ACTS_IN.get(event.do, HOOKS))
    if not re.fullmatch(r"module|datamodule|scheduler(:\d)?|callback:\d{1,4}", event.receiver):
        accepted = "module, datamodule, scheduler, scheduler:N or callback:N is accepted"
        raise ScenarioError("%s: when.receiver: %.80r; %s" % (name, event.receiver, accepted))
    natural(name + ": when.nth", event.nth)
