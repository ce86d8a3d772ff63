"""Scenarios: what is trained, for how long, with which options. Data, read from TOML.

A scenario is defined exactly, so that a program in any language can rebuild it: the model is
`Linear(4, 1)` with the weights and the data of `docs/adapters.md`. This module is loaded into the
trainer's own world, so it needs only the standard library of Python 3.8; TOML is read by the caller's.
"""

from __future__ import annotations

import difflib
import json
import re
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Dict, List, Mapping, Optional, Tuple

from .hooks import HOOKS
from .optimizers import FORMS, OVERRIDES, discord

__all__ = ["Data", "Log", "Model", "Scenario", "ScenarioError", "When", "load_scenario", "load_scenarios", "to_toml"]

CALLS = ("fit", "validate", "test", "predict", "save", "resume")
STEPS = {"train": "training_step", "val": "validation_step", "test": "test_step", "predict": "predict_step"}
OPTIONAL_HOOKS = (
    "training_step_end",
    "training_epoch_end",
    "validation_step_end",
    "validation_epoch_end",
    "test_step_end",
    "test_epoch_end",
)
# What trainers can lack altogether, so that a scenario cannot be run on them.
NEEDS = ("bf16", "checkpoints", "several-optimizers", "truncated-bptt", "multiple-trainloader-mode")
# What a hook of the scenario can be told to do, once, at its nth call.
ACTIONS = ("raise", "interrupt", "stop", "return-none", "return-minus-1", "skip-closure", "save")
# The actions that mean something in a few hooks only.
ACTS_IN = {
    "return-none": tuple(STEPS.values()),
    "return-minus-1": ("on_train_batch_start",),
    "skip-closure": ("optimizer_step",),
    "save": ("on_train_batch_end",),
}


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


class ScenarioError(ValueError):
    """A scenario is malformed; the message names the scenario, the value and what is accepted."""


@dataclass(frozen=True)
class Data:
    """The loaders: numbers of batches per loader.

    `train` is the training loader's, 0 for no loader; `sized` says whether loaders have a length. `source`
    says who provides the loaders: the "module", a "datamodule", or the "argument" of the call. `batch`
    is a batch's form: "tuple", "dict", "nested" (a dict of a list and a tuple) or "custom" (an object
    with `.to()`). `last` is the size of each loader's last batch. With `time` above 0, x and y have a second
    dimension of that length, in which a row's x differs and its y does not.

    `train_loaders` takes the place of `train` where there are several training loaders; `structure` says in what
    they lie: a "list", a "dict" with the keys a, b, ..., or "nested", a dict of two lists, a with the first of them
    and b with the others. `shuffle` has the training loaders give their rows in a random order, which only
    `overfit_batches` undoes.
    """

    train: int = 3
    train_loaders: Tuple[int, ...] = ()
    structure: str = "list"
    shuffle: bool = False
    val: Tuple[int, ...] = ()
    test: Tuple[int, ...] = ()
    predict: Tuple[int, ...] = ()
    sized: bool = True
    source: str = "module"
    batch: str = "tuple"
    batch_size: int = 2
    last: int = 2
    time: int = 0

    @property
    def nesting(self) -> int:
        """In how many lists or dicts the batches of the training loaders lie."""
        return 0 if not self.train_loaders else 2 if self.structure == "nested" else 1


@dataclass(frozen=True)
class Log:
    """A call of `self.log` at the beginning of `hook`: a step logs its loss, any other hook how often it has
    done so before. What is not given has the hook's default; `batch_size` 0 leaves it to the batch."""

    hook: str
    name: str
    on_step: Optional[bool] = None
    on_epoch: Optional[bool] = None
    reduce_fx: str = "mean"
    batch_size: int = 0
    add_dataloader_idx: bool = True


# What `logs = true` is short for.
LOSSES = (
    Log("training_step", "train_loss"),
    Log("validation_step", "eval_loss"),
    Log("test_step", "eval_loss"),
)


@dataclass(frozen=True)
class Model:
    """What the module defines beyond the hooks that every recording module has.

    `defines` lists optional hooks, `lacks` steps it does without; `returns` is the form of a step's
    output, "tensor" or "dict", `eval_returns` that of validation and test steps where it is another, "none"
    included; `callbacks` are those of `configure_callbacks`: "new" for one of a type of its own, "same" for
    one of the type of the trainer's. `logs` are calls of `self.log`; true is short for the steps' losses, as
    "train_loss" and "eval_loss".

    `optimizers` is 1, or 2: then the module has two layers, whose outputs are added, and each optimizer, of
    the kind `optimizer`, trains one of them; each has its `scheduler`. `frequencies` are theirs. With `manual`
    the training step does the optimization itself: for each optimizer zero_grad, manual_backward and step,
    then the steps of the schedulers. `truncated_bptt_steps` is the module's property of that name; its
    hidden states count the pieces of a batch.

    `form` is that of what `configure_optimizers` returns, one of FORMS; if empty, the plainest that says it all. A
    scheduler is given in an lr_dict with its interval, and with what else is there: its `scheduler_frequency`, and
    `monitor` with `strict`, for one that halves the rate where that value is on a plateau; without `lr_dict` as it
    is. `overrides`, of OVERRIDES, are hooks that the module has its own way.
    """

    defines: Tuple[str, ...] = ()
    lacks: Tuple[str, ...] = ()
    returns: str = "tensor"
    eval_returns: str = ""
    optimizer: str = "sgd"
    scheduler: str = "none"
    dtype: str = "float64"
    callbacks: Tuple[str, ...] = ()
    starts_in_eval: bool = False
    logs: Tuple[Log, ...] = ()
    optimizers: int = 1
    frequencies: Tuple[int, ...] = ()
    manual: bool = False
    truncated_bptt_steps: int = 0
    form: str = ""
    lr_dict: bool = True
    scheduler_frequency: int = 1
    monitor: str = ""
    strict: bool = True
    overrides: Tuple[str, ...] = ()

    @property
    def returns_form(self) -> str:
        """The form of what `configure_optimizers` returns; "none" where there is no optimizer."""
        if self.form or self.optimizer == "none":
            return self.form or "none"
        one, many = ("dict", "dicts") if self.frequencies or self.scheduler != "none" else ("optimizer", "list")
        return one if self.optimizers == 1 else many

    @property
    def monitors_nothing(self) -> bool:
        """Whether the value that a strict scheduler is to be given is logged nowhere: then the fit ends."""
        names = {log.name + fork for log in self.logs for fork in ("", "_step", "_epoch")}
        return self.monitor not in ("", *names) and self.strict


@dataclass(frozen=True)
class When:
    """At the `nth` call (from 0) of `hook` on `receiver`, `do` one of ACTIONS."""

    hook: str
    do: str
    nth: int = 0
    receiver: str = "module"


@dataclass(frozen=True)
class Scenario:
    """One experiment: `calls` in order on one trainer, with `callbacks` recording callbacks.

    "save" saves a checkpoint, as does a `when` that does "save" in the module's on_train_batch_end; "resume" makes a
    new module and a new trainer, which fits it from that checkpoint on, for one epoch more than max_epochs.

    `needs` names what a trainer must be able to do for it, out of NEEDS: one that lacks it is not run.
    """

    name: str
    title: str = ""
    calls: Tuple[str, ...] = ("fit",)
    needs: Tuple[str, ...] = ()
    callbacks: int = 1
    data: Data = field(default_factory=Data)
    model: Model = field(default_factory=Model)
    trainer: Mapping[str, Any] = field(default_factory=dict)
    when: Tuple[When, ...] = ()

    @classmethod
    def from_dict(cls, given: Mapping[str, Any]) -> Scenario:
        """Check and build. Raises ScenarioError naming the scenario, the key or value, and the fix."""
        name = given.get("name") if isinstance(given, Mapping) else None
        if not isinstance(name, str) or not name:
            raise ScenarioError("a scenario is a table with a 'name', not %.80r" % (given,))
        row = dict(given)
        row["data"] = _build(Data, row.get("data", {}), "%s: data" % name)
        row["model"] = _build(Model, _with_logs(row.get("model", {}), name), "%s: model" % name)
        if isinstance(row.get("when", ()), (list, tuple)):
            row["when"] = tuple(_build(When, item, "%s: when" % name) for item in row.get("when", ()))
        scenario: Scenario = _build(cls, row, name)
        _check(scenario)
        return scenario

    def to_dict(self) -> Dict[str, Any]:
        """Plain data, as `from_dict` takes it and as a trace's header carries it."""
        plain: Dict[str, Any] = _plain(asdict(self))
        return plain

    def option(self, name: str, default: Any = None) -> Any:
        """A trainer option, or what the documentation's trainer takes for it."""
        return self.trainer.get(name, TRAINER_DEFAULTS.get(name, default))

    def loaders(self, stage: str) -> Tuple[int, ...]:
        """Numbers of batches of the stage's loaders: "train", "val", "test" or "predict"."""
        if stage == "train":
            return self.data.train_loaders or ((self.data.train,) if self.data.train else ())
        batches: Tuple[int, ...] = getattr(self.data, stage)
        return batches

    def train_batches(self) -> int:
        """How many batches a training epoch has but for limits: as many as the only loader, the longest, or the
        shortest."""
        batches = self.loaders("train") or (0,)
        return min(batches) if self.option("multiple_trainloader_mode") == "min_size" else max(batches)

    def defines(self, hook: str) -> bool:
        """Whether the module defines `hook`, one of the steps or of the optional hooks."""
        if hook in self.model.lacks:
            return False
        if hook in OPTIONAL_HOOKS:
            return hook in self.model.defines
        return any(hook == step and (self.loaders(stage) or stage == "predict") for stage, step in STEPS.items())


# The trainer options a scenario may set, with the values that hold where it does not.
TRAINER_DEFAULTS: Dict[str, Any] = {
    "max_epochs": 1,
    "min_epochs": 0,
    "max_steps": -1,
    "min_steps": 0,
    "limit_train_batches": 1.0,
    "limit_val_batches": 1.0,
    "limit_test_batches": 1.0,
    "limit_predict_batches": 1.0,
    "val_check_interval": 1.0,
    "check_val_every_n_epoch": 1,
    "num_sanity_val_steps": 0,
    "multiple_trainloader_mode": "max_size_cycle",
    "reload_dataloaders_every_n_epochs": 0,
    "overfit_batches": 0,
    "fast_dev_run": False,
    "accumulate_grad_batches": 1,
    "precision": 32,
}


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value


def _with_logs(model: Any, name: str) -> Any:
    """The table of a model, the tables of its `logs` built; true is short for LOSSES."""
    logs = model.get("logs") if isinstance(model, Mapping) else None
    if isinstance(logs, bool):
        return dict(model, logs=LOSSES if logs else ())
    if not isinstance(logs, (list, tuple)):
        return model
    return dict(model, logs=tuple(_build(Log, item, "%s: model.logs" % name) for item in logs))


def _build(kind: Any, given: Any, where: str) -> Any:
    """A dataclass from a mapping, its lists as tuples; unknown keys are errors with the near miss."""
    if isinstance(given, kind):
        return given
    if not isinstance(given, Mapping):
        raise ScenarioError("%s: a table is expected, not %.80r" % (where, given))
    known = {item.name: item for item in fields(kind)}
    for key in given:
        if key not in known:
            near = difflib.get_close_matches(str(key), known, n=1)
            hint = "; did you mean %r?" % near[0] if near else ""
            raise ScenarioError("%s: unknown key %r%s" % (where, key, hint))
        accepted, item_type, words = _TYPES.get(known[key].type, (object, object, ""))
        items = given[key] if accepted is tuple and isinstance(given[key], (list, tuple)) else ()
        if not _is(given[key], accepted) or not all(_is(item, item_type) for item in items):
            raise ScenarioError("%s: %s is %.80r; %s is accepted" % (where, key, given[key], words))
    try:
        return kind(**{key: tuple(v) if isinstance(v, list) else v for key, v in given.items()})
    except TypeError as error:
        raise ScenarioError("%s: %s" % (where, str(error).split("__init__() ")[-1])) from None


# What the fields' types accept: the type, that of the items of a list, and both in words.
_TYPES: Dict[Any, Tuple[Any, Any, str]] = {
    "str": (str, object, "a string"),
    "int": (int, object, "an int"),
    "bool": (bool, object, "true or false"),
    "Tuple[str, ...]": (tuple, str, "a list of strings"),
    "Tuple[int, ...]": (tuple, int, "a list of ints"),
    "Optional[bool]": ((bool, type(None)), object, "true or false"),
    "Tuple[Log, ...]": (tuple, Log, "true, false or a list of tables"),
    "Tuple[When, ...]": (tuple, When, "a list of tables"),
    "Mapping[str, Any]": (Mapping, object, "a table"),
}


def _is(value: Any, accepted: Any) -> bool:
    """`isinstance`, but a list is a tuple here, and a bool is no int."""
    if accepted is tuple:
        return isinstance(value, (list, tuple))
    return isinstance(value, accepted) and not (accepted is int and isinstance(value, bool))


def _one_of(where: str, value: Any, accepted: Any) -> None:
    if value not in accepted:
        near = difflib.get_close_matches(str(value), [str(item) for item in accepted], n=1)
        hint = "; did you mean %r?" % near[0] if near else ""
        known = ", ".join(map(repr, accepted)) if len(accepted) <= 16 else "the %d known" % len(accepted)
        raise ScenarioError("%s: %.80r is none of %s%s" % (where, value, known, hint))


def _natural(where: str, value: Any, least: int = 0) -> None:
    if not _is(value, int) or value < least:
        raise ScenarioError("%s: %.80r; an int from %d is accepted" % (where, value, least))


def _share(where: str, value: Any, least: int) -> None:
    """A count of batches from `least`, or a fraction of them, 0.0 included if `least` is 0."""
    count = _is(value, int) and value >= least
    if not count and not (_is(value, float) and 0 <= value <= 1 and (value > 0 or least == 0)):
        fractions = "in (0, 1]" if least else "in [0, 1]"
        raise ScenarioError("%s: %.80r; an int from %d or a float %s is accepted" % (where, value, least, fractions))


def _check(scenario: Scenario) -> None:
    name, data, model = scenario.name, scenario.data, scenario.model
    if not re.fullmatch(r"[^/\\\0]+", name) or name in (".", ".."):
        raise ScenarioError("%.80r: a scenario's name becomes a file's, and cannot hold a path" % name)
    if not scenario.calls:
        raise ScenarioError("%s: calls is empty; name one of %s" % (name, ", ".join(CALLS)))
    saves = "save" in scenario.calls or any(event.do == "save" for event in scenario.when)
    for call in scenario.calls:
        _one_of(name + ": calls", call, CALLS)
        if call == "resume" and not (saves and scenario.calls[0] == "fit"):
            raise ScenarioError('%s: resume needs a fit before it, and a "save"' % name)
        if call == "resume" and scenario.option("fast_dev_run"):
            raise ScenarioError("%s: resume: fast_dev_run leaves nothing to go on with" % name)
        stage = {"fit": "train", "resume": "train", "save": "train", "validate": "val"}.get(call, call)
        if not scenario.loaders(stage):
            raise ScenarioError("%s: %s needs batches: set data.%s" % (name, call, stage))
        if call == "validate" and "validation_step" in model.lacks:
            raise ScenarioError("%s: validate needs the validation_step that model.lacks takes away" % name)
    if not 0 <= scenario.callbacks <= MOST_CALLBACKS:
        raise ScenarioError("%s: callbacks: %r; 0 to %d are accepted" % (name, scenario.callbacks, MOST_CALLBACKS))
    _natural(name + ": data.train", data.train)
    for stage in ("val", "test", "predict"):
        for batches in scenario.loaders(stage):
            _natural("%s: data.%s" % (name, stage), batches, 1)
    _natural(name + ": data.batch_size", data.batch_size, 1)
    _natural(name + ": data.last", data.last, 1)
    if data.last > data.batch_size:
        raise ScenarioError("%s: data.last=%d is more than batch_size=%d" % (name, data.last, data.batch_size))
    _one_of(name + ": data.source", data.source, ("module", "datamodule", "argument"))
    _one_of(name + ": data.batch", data.batch, ("tuple", "dict", "nested", "custom"))
    _check_train_loaders(scenario)
    for hook in model.defines:
        _one_of(name + ": model.defines", hook, OPTIONAL_HOOKS)
    for hook in model.lacks:
        _one_of(name + ": model.lacks", hook, ("validation_step", "predict_step"))
    _one_of(name + ": model.returns", model.returns, ("tensor", "dict"))
    _one_of(name + ": model.eval_returns", model.eval_returns, ("", "tensor", "dict", "none"))
    _one_of(name + ": model.optimizer", model.optimizer, ("sgd", "momentum", "adam", "lbfgs", "none"))
    _one_of(name + ": model.scheduler", model.scheduler, ("none", "step", "epoch"))
    if model.scheduler != "none" and model.optimizer == "none":
        raise ScenarioError("%s: model.scheduler=%r needs an optimizer, not \"none\"" % (name, model.scheduler))
    _one_of(name + ": model.dtype", model.dtype, ("float32", "float64"))
    _one_of(name + ": model.optimizers", model.optimizers, (1, 2))
    if model.optimizers > 1 and model.optimizer == "none":
        raise ScenarioError('%s: model.optimizers=%d, and model.optimizer="none"' % (name, model.optimizers))
    if model.frequencies and len(model.frequencies) != model.optimizers:
        count = len(model.frequencies)
        raise ScenarioError("%s: %d model.frequencies for %d model.optimizers" % (name, count, model.optimizers))
    for frequency in model.frequencies:
        _natural(name + ": model.frequencies", frequency, 1)
    _one_of(name + ": model.form", model.form, ("", *FORMS))
    _natural(name + ": model.scheduler_frequency", model.scheduler_frequency, 1)
    for override in model.overrides:
        _one_of(name + ": model.overrides", override, OVERRIDES)
    for need in scenario.needs:
        _one_of(name + ": needs", need, NEEDS)
    _check_model(name, data, model)
    if model.optimizers > 1 and not model.manual and "several-optimizers" not in scenario.needs:
        raise ScenarioError('%s: model.optimizers=%d: add needs = ["several-optimizers"]' % (name, model.optimizers))
    if (saves or "resume" in scenario.calls) and "checkpoints" not in scenario.needs:
        raise ScenarioError('%s: it saves a checkpoint: add needs = ["checkpoints"]' % name)
    if "multiple_trainloader_mode" in scenario.trainer and "multiple-trainloader-mode" not in scenario.needs:
        raise ScenarioError('%s: multiple_trainloader_mode: add needs = ["multiple-trainloader-mode"]' % name)
    if model.truncated_bptt_steps and "truncated-bptt" not in scenario.needs:
        raise ScenarioError('%s: model.truncated_bptt_steps: add needs = ["truncated-bptt"]' % name)
    for log in model.logs:
        _check_log("%s: model.logs %s" % (name, log.name), log, model)
    for kind in model.callbacks:
        _one_of(name + ": model.callbacks", kind, ("new", "same"))
    for option, value in scenario.trainer.items():
        _check_option("%s: trainer.%s" % (name, option), option, value)
    if discord(scenario):
        raise ScenarioError("%s: %s" % (name, discord(scenario)))
    _check_plan(scenario)
    for event in scenario.when:
        _one_of(name + ": when.do", event.do, ACTIONS)
        _one_of("%s: when %s: hook" % (name, event.do), event.hook, ACTS_IN.get(event.do, HOOKS))
        if not re.fullmatch(r"module|datamodule|scheduler(:\d)?|callback:\d{1,4}", event.receiver):
            accepted = "module, datamodule, scheduler, scheduler:N or callback:N is accepted"
            raise ScenarioError("%s: when.receiver: %.80r; %s" % (name, event.receiver, accepted))
        _natural(name + ": when.nth", event.nth)


def _check_train_loaders(scenario: Scenario) -> None:
    """What goes together with several training loaders, and with shuffling."""
    name, data = scenario.name, scenario.data
    _one_of(name + ": data.structure", data.structure, ("list", "dict", "nested"))
    for batches in data.train_loaders:
        _natural(name + ": data.train_loaders", batches, 1)
    if len(data.train_loaders) > MOST_LOADERS or (data.structure == "nested" and len(data.train_loaders) == 1):
        accepted = "%d to %d are accepted" % (2 if data.structure == "nested" else 1, MOST_LOADERS)
        raise ScenarioError("%s: %d data.train_loaders; %s" % (name, len(data.train_loaders), accepted))
    if data.train_loaders and (data.batch != "tuple" or scenario.model.truncated_bptt_steps):
        raise ScenarioError('%s: data.train_loaders needs data.batch "tuple", and no truncated_bptt_steps' % name)
    if data.shuffle and (not scenario.option("overfit_batches") or not data.sized):
        raise ScenarioError("%s: data.shuffle needs overfit_batches and loaders with a length" % name)


def _check_model(name: str, data: Data, model: Model) -> None:
    """What goes together with manual optimization, and with truncated backpropagation."""
    _natural(name + ": data.time", data.time)
    _natural(name + ": model.truncated_bptt_steps", model.truncated_bptt_steps)
    if model.manual and (model.optimizer == "none" or model.scheduler == "epoch" or model.frequencies):
        raise ScenarioError("%s: model.manual needs an optimizer, and no frequencies or scheduler per epoch" % name)
    if not model.truncated_bptt_steps:
        return
    accepted = {"tuple", "dict"}
    if not data.time or data.batch not in accepted or model.returns != "dict" or model.manual:
        raise ScenarioError(
            '%s: model.truncated_bptt_steps needs data.time, data.batch "tuple" or "dict", model.returns="dict", '
            "and automatic optimization" % name
        )
    if "training_step_end" in model.defines:
        raise ScenarioError("%s: model.truncated_bptt_steps: training_step_end would lose the hiddens" % name)


def _check_log(where: str, log: Log, model: Model) -> None:
    _one_of(where + ": hook", log.hook, LOGGING_HOOKS)
    if log.hook in OPTIONAL_HOOKS and log.hook not in model.defines:
        raise ScenarioError("%s: add %r to model.defines" % (where, log.hook))
    _one_of(where + ": reduce_fx", log.reduce_fx, ("mean", "min", "max", "sum"))
    _natural(where + ": batch_size", log.batch_size)
    if log.on_step and log.hook in EPOCH_HOOKS:
        raise ScenarioError("%s: on_step=true, and %s belongs to no step" % (where, log.hook))
    if log.on_step is log.on_epoch is False:
        raise ScenarioError("%s: on_step=false and on_epoch=false would log nothing" % where)
    if any(other != log and (other.hook, other.name) == (log.hook, log.name) for other in model.logs):
        raise ScenarioError("%s: %s logs that name twice" % (where, log.hook))


MOST_CALLBACKS, MOST_LOADERS = 1000, 8
_LEAST = {
    "accumulate_grad_batches": 1,
    "max_epochs": -1,
    "min_epochs": 0,
    "max_steps": -1,
    "min_steps": 0,
    "check_val_every_n_epoch": 1,
    "num_sanity_val_steps": -1,
    "reload_dataloaders_every_n_epochs": 0,
}


def _check_option(where: str, option: str, value: Any) -> None:
    _one_of(where.partition(": ")[0] + ": trainer", option, tuple(TRAINER_DEFAULTS))
    if option in _LEAST:
        _natural(where, value, _LEAST[option])
    elif option.startswith("limit_") or option in ("val_check_interval", "overfit_batches"):
        _share(where, value, least=int(option == "val_check_interval"))
    elif option == "fast_dev_run" and not isinstance(value, bool):
        _natural(where, value)
    elif option == "precision":
        _one_of(where, value, (32, "bf16"))
    elif option == "multiple_trainloader_mode":
        _one_of(where, value, ("max_size_cycle", "min_size"))


def _check_plan(scenario: Scenario) -> None:
    """That the options leave something to do, and an end: what a trainer refuses is no scenario."""
    name, sized = scenario.name + ": trainer.", scenario.data.sized
    loaders = {stage: scenario.loaders(stage) for stage in STEPS}
    loaders["train"] = (scenario.train_batches(),) if loaders["train"] else ()
    limits = [("limit_%s_batches" % stage, stage) for stage in STEPS]
    for option, stage in [*limits, ("overfit_batches", "train")]:
        limit = scenario.option(option)
        for batches in loaders[stage] if isinstance(limit, float) and 0 < limit < 1 else ():
            where = "%s%s=%r" % (name, option, limit)
            if not sized:
                raise ScenarioError("%s needs loaders with a length: give an int, or set data.sized" % where)
            if int(batches * limit) == 0:
                raise ScenarioError("%s leaves nothing of a loader of %d" % (where, batches))
    interval, limit = scenario.option("val_check_interval"), scenario.option("limit_train_batches")
    if isinstance(interval, float) and interval < 1 and not sized:
        where = "%sval_check_interval=%r" % (name, interval)
        raise ScenarioError("%s needs a loader with a length: give an int, or set data.sized" % where)
    if isinstance(interval, int):
        batches = scenario.train_batches() if sized else interval  # of unknown length: perhaps that many
        limit = scenario.option("overfit_batches") or limit
        most = min(batches, limit) if isinstance(limit, int) else int(batches * limit)
        if 0 < most < interval:
            raise ScenarioError("%sval_check_interval=%d: an epoch has %d batches" % (name, interval, most))
    stops = any(event.do == "stop" for event in scenario.when)
    if scenario.option("max_epochs") == scenario.option("max_steps") == -1 and not stops:
        raise ScenarioError(name + "max_epochs=-1 trains without end: set max_steps, or a `when` that stops")


# ---- TOML out ---------------------------------------------------------------------------------------------


def to_toml(scenario: Scenario) -> str:
    """The scenario as a file that `load_scenario` reads; what has its default is left out."""
    plain = scenario.to_dict()
    head = _pairs(plain, Scenario(scenario.name).to_dict(), ("data", "model", "trainer", "when"))
    lines = ["name = %s" % _toml(scenario.name), *head]
    for table, default in (("data", asdict(Data())), ("model", asdict(Model())), ("trainer", {})):
        pairs = _pairs(plain[table], _plain(default))
        lines += ["[%s]" % table, *pairs] if pairs else []
    for event in plain["when"]:
        lines += ["[[when]]", *_pairs(event, {"nth": 0, "receiver": "module"})]
    return "\n".join(lines) + "\n"


def _pairs(row: Mapping[str, Any], default: Mapping[str, Any], but: Tuple[str, ...] = ()) -> List[str]:
    nothing = object()
    return ["%s = %s" % (k, _toml(v)) for k, v in row.items() if k not in but and v != default.get(k, nothing)]


def _toml(value: Any) -> str:
    """A scalar or a list. TOML's strings, numbers and lists are JSON's, but for one control character; tables
    in a list have `=` for `:`, and nothing that has its default."""
    if isinstance(value, list) and value and isinstance(value[0], dict):
        default = asdict(Log("", ""))
        return "[%s]" % ", ".join("{ %s }" % ", ".join(_pairs(item, default)) for item in value)
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


# ---- the built-in scenarios, read on the caller's side --------------------------------------------------

DIRECTORY = Path(__file__).parent / "scenarios"


def load_scenario(path: Path) -> Scenario:
    """A scenario from a TOML file; its name is the file's unless it gives one."""
    import tomllib  # Python 3.11: only the caller's side reads TOML

    try:
        given = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ScenarioError("%s: %s" % (path, error)) from None
    return Scenario.from_dict({"name": path.stem, **given})


def load_scenarios() -> List[Scenario]:
    """The built-in scenarios, by name."""
    return [load_scenario(path) for path in sorted(DIRECTORY.glob("*.toml"))]
