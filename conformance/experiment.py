"""What an experiment consists of: the loaders, the module, the options, and what is made to happen in it.

`scenario.py` makes one of a file's or a header's tables. Both are loaded into the trainer's own world, so they
need only the standard library of Python 3.8.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, Dict, Mapping, Optional, Tuple

from .hooks import OWN_STEPS, TRANSFERS

__all__ = [
    "LOSSES", "OPTIONAL_HOOKS", "STEPS", "TRAINER_DEFAULTS", "Data", "Log", "Model", "Saving", "Scenario",
    "Stopping", "When",
]  # fmt: skip

STEPS = {"train": "training_step", "val": "validation_step", "test": "test_step", "predict": "predict_step"}
OPTIONAL_HOOKS = tuple(hook for hook in OWN_STEPS if hook.endswith("_end"))
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
    "gradient_clip_val": 0,
    "gradient_clip_algorithm": "norm",
    "precision": 32,
    "devices": 1,
    "strategy": None,
    "num_nodes": 1,
}


@dataclass(frozen=True)
class Data:
    """The loaders: numbers of batches per loader.

    `train` is the training loader's, 0 for no loader; `sized` says whether loaders have a length. `source` says who
    provides the loaders: the "module", a "datamodule", or the "argument" of the call; or a "train-datamodule",
    which has those of the training alone, and the module the others; or a "fit-datamodule", which only fits are
    given, and the other calls their loaders; of the hooks that move batches it has those named in `transfers`.
    `batch` is a batch's form: "tuple", "named" (a named tuple), "dict", "nested" (a dict of a list and a tuple),
    "sequences" (a tuple of x and, in place of y, a list of one list of numbers per row) or "custom" (an object with
    `.to()`). `last` is the size of each loader's last batch. With `time` above 0, x and y have a second dimension
    of that length, in which a row's x differs and its y does not.

    `train_loaders` takes the place of `train` where there are several training loaders; `structure` says in what
    they lie: a "list", a "tuple", a "dict" with the keys a, b, ..., "nested", a dict of two lists, a with the first of
    them and b with the others, or "dicts", a list of two dicts, with the first of them and with the others. `shuffle`
    has the training loaders give their rows in a random order, which nobody undoes but `overfit_batches`; with
    `generator` each draws it from a generator of its own. With
    `distributed_sampler` they come with torch's DistributedSampler, which deals without shuffling, in place of the one
    that the trainer would put in. With `listed` a loader of an evaluation is in a list also where it is the only one.
    With `workers` each loader has so many processes, which fetch batches ahead.
    """

    train: int = 3
    train_loaders: Tuple[int, ...] = ()
    structure: str = "list"
    shuffle: bool = False
    generator: bool = False
    val: Tuple[int, ...] = ()
    test: Tuple[int, ...] = ()
    predict: Tuple[int, ...] = ()
    sized: bool = True
    source: str = "module"
    batch: str = "tuple"
    batch_size: int = 2
    last: int = 2
    time: int = 0
    distributed_sampler: bool = False
    listed: bool = False
    workers: int = 0
    transfers: Tuple[str, ...] = TRANSFERS

    @property
    def has_datamodule(self) -> bool:
        """Whether there is a data module, if not for each call."""
        return self.source.endswith("datamodule")

    def given_to(self, function: str) -> str:
        """What a call is given beside the module: a "datamodule", loaders ("argument"), or nothing ("module")."""
        if self.source == "fit-datamodule":
            return "datamodule" if function == "fit" else "argument"
        return "datamodule" if self.has_datamodule else self.source

    @property
    def nesting(self) -> int:
        """In how many lists or dicts the batches of the training loaders lie."""
        return 0 if not self.train_loaders else 2 if self.structure in ("nested", "dicts") else 1


@dataclass(frozen=True)
class Log:
    """A call of `self.log` at the beginning of `hook`: a step logs its loss, any other hook how often it has done
    so before, or of `values` the next one, and the last of them from there on. What is not given has the hook's
    default; `reduce_fx` "torch.mean" is that function, which says the same as the word; "spread" is a function of
    the user's own, of all values of the epoch: the greatest less the last; `batch_size` 0 leaves it to the batch;
    with `logger` False no logger is given it; with `prog_bar` the progress bar shows it. With `metric` a step logs
    an object in place of its loss: one of torchmetrics' MeanSquaredError, an attribute of the module, which it is
    given the outputs and the targets of the batch before. With `in_dict` it is `self.log_dict`, of a dict with this
    name. With `enable_graph` a training step's loss is logged with its graph; with `buffer` another hook logs how
    many training steps the module has begun, which it counts in a buffer. With `rank_zero_only` the process of rank
    0 alone logs it, and says so; with `ranks` those processes alone, as a group. What is no step's is a number, or
    with `dtype` a tensor of that type. With `helper` it is another method that calls `self.log`, one that is named
    as a hook is. With `at` it logs in these calls of the hook only, from 0. With `sync_dist` what is no step's is
    greater in each process by its rank."""

    hook: str
    name: str
    on_step: Optional[bool] = None
    on_epoch: Optional[bool] = None
    reduce_fx: str = "mean"
    batch_size: int = 0
    add_dataloader_idx: bool = True
    sync_dist: bool = False
    logger: bool = True
    prog_bar: bool = False
    metric: bool = False
    in_dict: bool = False
    enable_graph: bool = False
    buffer: bool = False
    rank_zero_only: bool = False
    ranks: Tuple[int, ...] = ()
    dtype: str = ""
    helper: bool = False
    at: Tuple[int, ...] = ()
    values: Tuple[float, ...] = ()

    @property
    def averages(self) -> bool:
        """Whether an epoch's value is the mean."""
        return self.reduce_fx in ("mean", "torch.mean")

    def nth(self, count: int) -> float:
        """What a hook that is no step logs after so many calls."""
        return float(self.values[min(count, len(self.values) - 1)]) if self.values else float(count)


# What `logs = true` is short for.
LOSSES = (
    Log("training_step", "train_loss"),
    Log("validation_step", "eval_loss"),
    Log("test_step", "eval_loss"),
)


@dataclass(frozen=True)
class Model:
    """What the module defines beyond the hooks that every recording module has.

    `defines` lists optional hooks, `lacks` steps it does without; `returns` is the form of a step's output, "tensor"
    or "dict", `eval_returns` that of validation and test steps where it is another, "none" included; `callbacks` are
    those of `configure_callbacks`: "new" for one of a type of its own, "same" for one of the type of the trainer's,
    "base" for one of the type that theirs is derived from. With `frozen` the layers' biases do not require gradients,
    ever, or with `thaws` until the second epoch's on_train_epoch_start; with `shared` two of them are one, which both
    optimizers train; with `layers_in_setup` it is `setup` that makes the layers, unless they are there; with
    `layer_in_eval` the first layer is put into eval mode, when it is made and in each on_train_epoch_start; with
    `draws` each step draws a random number, as dropout does, that nothing depends on; with `halves` its
    on_load_checkpoint puts weights of half the size in the place of those that a checkpoint holds.
    `logs` are calls of `self.log`; true is short for the steps' losses, as "train_loss" and "eval_loss".

    `optimizers` is 1, or 2: then the module has two layers, whose outputs are added, and each optimizer, of
    the kind `optimizer`, trains one of them; each has its `scheduler`, "step" or "epoch", or "mixed": the first one's
    steps by steps, the second's by epochs; one optimizer has both of them then. `frequencies` are theirs, 0 for one
    that has none. With `manual`
    the training step does the optimization itself: for each optimizer zero_grad, manual_backward and step,
    then the steps of the schedulers; with `closure` the first two and the loss are in a closure that step is given;
    with `plain` the one optimizer is that of `optimizers(use_pl_optimizer=False)`.
    `truncated_bptt_steps` is the module's property of that name; its
    hidden states count the pieces of a batch.

    `form` is that of what `configure_optimizers` returns, one of FORMS; if empty, the plainest that says it all. A
    scheduler is given in an lr_dict with its interval, and with what else is there: its `scheduler_frequency`, and
    `monitor` with `strict`, for one that halves the rate where that value is on a plateau, torch's, or with
    `own_plateau` one of a class of the user's own, which the lr_dict says reacts to a value; without `lr_dict` as it
    is; `unheeded` is a monitor in the lr_dict of one that needs no value. Its `scheduler_name`, and of several
    optimizers the index after that, is the name in the lr_dict.
    `overrides`, of OVERRIDES, are hooks that the module has its own way; with `star_args` it takes the arguments of its
    batch hooks as `*args`, and so do the recording callbacks. `prepare_data_per_node` is the module's
    property of that name.
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
    frozen: bool = False
    thaws: bool = False
    shared: bool = False
    layer_in_eval: bool = False
    layers_in_setup: bool = False
    halves: bool = False
    draws: bool = False
    logs: Tuple[Log, ...] = ()
    optimizers: int = 1
    frequencies: Tuple[int, ...] = ()
    manual: bool = False
    closure: bool = False
    plain: bool = False
    truncated_bptt_steps: int = 0
    form: str = ""
    lr_dict: bool = True
    scheduler_frequency: int = 1
    scheduler_name: str = ""
    monitor: str = ""
    strict: bool = True
    own_plateau: bool = False
    unheeded: str = ""
    overrides: Tuple[str, ...] = ()
    star_args: bool = False
    prepare_data_per_node: bool = True

    @property
    def returns_form(self) -> str:
        """The form of what `configure_optimizers` returns; "none" where there is no optimizer."""
        if self.form or self.optimizer == "none":
            return self.form or "none"
        if self.schedulers > self.optimizers:
            return "two-lists"
        one, many = ("dict", "dicts") if self.frequencies or self.scheduler != "none" else ("optimizer", "list")
        return one if self.optimizers == 1 else many

    @property
    def schedulers(self) -> int:
        """How many there are."""
        return {"none": 0, "mixed": 2}.get(self.scheduler, self.optimizers)

    def interval(self, scheduler_idx: int) -> str:
        """What a scheduler steps by: "step" or "epoch"."""
        return self.scheduler if self.scheduler != "mixed" else ("step", "epoch")[scheduler_idx]

    def schedulers_of(self, optimizer_idx: int, interval: str) -> Tuple[int, ...]:
        """The numbers of those of an optimizer that step by the interval."""
        own = range(self.schedulers) if self.optimizers == 1 else (optimizer_idx,) * (self.schedulers > 0)
        return tuple(index for index in own if self.interval(index) == interval)

    @property
    def monitors_nothing(self) -> bool:
        """Whether the value that a strict scheduler is to be given is logged nowhere: then the fit ends."""
        return self.monitor not in ("", *self.names_logged) and self.strict

    @property
    def names_logged(self) -> Tuple[str, ...]:
        """Under which names something may be known."""
        return tuple(log.name + fork for log in self.logs for fork in ("", "_step", "_epoch"))


@dataclass(frozen=True)
class When:
    """At the `nth` call (from 0) of `hook` on `receiver`, `do` one of ACTIONS; in the process `rank`, or with -1 in
    each."""

    hook: str
    do: str
    nth: int = 0
    receiver: str = "module"
    rank: int = -1


@dataclass(frozen=True)
class Stopping:
    """An `EarlyStopping` with these arguments, given to the trainer, or by the module's configure_callbacks."""

    monitor: str
    mode: str = "min"
    patience: int = 3
    min_delta: float = 0.0
    strict: bool = True
    check_on_train_epoch_end: Optional[bool] = None
    given: str = "trainer"


@dataclass(frozen=True)
class Saving:
    """A `ModelCheckpoint` with these arguments, in a folder of its own; `monitor` may be empty, and every_n_train_steps
    is 0 where it saves by epochs. It is given as a Stopping is."""

    monitor: str = ""
    mode: str = "min"
    save_top_k: int = 1
    save_last: bool = False
    every_n_train_steps: int = 0
    save_weights_only: bool = False
    given: str = "trainer"


@dataclass(frozen=True)
class Scenario:
    """One experiment: `calls` in order on one trainer, with `callbacks` recording callbacks.

    "save" saves a checkpoint, as does a `when` that does "save" in the module's on_train_batch_end; "resume" makes a
    new module and a new trainer, which fits it from that checkpoint on, for one epoch more than max_epochs.

    "resume-last" goes on from the last checkpoint that a ModelCheckpoint has saved, the newest one; where it has saved
    none, the fit begins anew.

    "another" makes another module and data module, which the calls that follow give to the same trainer. "append"
    appends one more recording callback, numbered after all others, to `trainer.callbacks`.

    "test-best" and "test-last" test the best or the last checkpoint, "test-none" the module as it is, "test" what the
    trainer takes where it is given the module. "predict-unreturned" predicts with return_predictions=False.

    With the options strategy "dp" and `devices` each batch is split over so many devices of the CPU. What the steps
    make of the parts, a `*_step_end` takes together: the mean of their losses, as in the documentation's example.
    With "ddp" there are `devices` processes on each of `num_nodes` nodes. A batch of the scenario is what they take
    together: the loaders' batch_size is their share of it. Where it is `launched`, one is started, whose trainer starts
    the others. With "ddp_spawn" each call starts them anew, and a trace is of the process that made the call.

    `early_stopping` are callbacks that stop the training, `model_checkpoint` those that save it, one at most of the
    trainer's and of the module's. They are recorded as the others, and numbered after them. In the lists of either
    those that save come first, and those that stop last. With `lr_monitor` the trainer has a LearningRateMonitor, too,
    which is not recorded: it shows in what its logger is given. With `prediction_writer` it has, last in its list and
    by number, a BasePredictionWriter that writes by batch and by epoch. With `no_grad` the calls are made under
    torch.no_grad().

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
    early_stopping: Tuple[Stopping, ...] = ()
    model_checkpoint: Tuple[Saving, ...] = ()
    lr_monitor: bool = False
    prediction_writer: bool = False
    no_grad: bool = False
    launched: bool = False

    def to_dict(self) -> Dict[str, Any]:
        """Plain data, as `scenario_of` takes it and as a trace's header carries it."""
        row: Dict[str, Any] = _plain(asdict(self))
        return row

    def option(self, name: str, default: Any = None) -> Any:
        """A trainer option, or what the documentation's trainer takes for it."""
        return self.trainer.get(name, TRAINER_DEFAULTS.get(name, default))

    def window(self, epoch: int) -> int:
        """How many batches `accumulate_grad_batches` has accumulated for an update: a number, or of a dict that of the
        greatest epoch that is not after this one, 1 before the first."""
        windows = self.windows
        return windows[max(first for first in windows if first <= epoch)]

    @property
    def windows(self) -> Dict[int, int]:
        """From which epoch on there are how many batches in a window."""
        given = self.option("accumulate_grad_batches")
        return {0: 1, **{int(epoch): n for epoch, n in given.items()}} if self.changes_windows else {0: given}

    @property
    def changes_windows(self) -> bool:
        """Whether accumulate_grad_batches says from which epoch on."""
        return not isinstance(self.option("accumulate_grad_batches"), int)

    @property
    def accumulates(self) -> bool:
        """Whether there ever is a window of several batches."""
        return max(self.windows.values()) > 1

    def loaders(self, stage: str) -> Tuple[int, ...]:
        """Numbers of batches of the stage's loaders: "train", "val", "test" or "predict"."""
        if stage == "train":
            return self.data.train_loaders or ((self.data.train,) if self.data.train else ())
        batches: Tuple[int, ...] = getattr(self.data, stage)
        return batches

    @property
    def data_parallel(self) -> bool:
        """Whether each batch is split over the devices."""
        return bool(self.option("strategy") == "dp")

    @property
    def shuffles(self) -> bool:
        """Whether nobody knows which samples come when."""
        return self.data.shuffle and not self.option("overfit_batches")

    @property
    def processes(self) -> int:
        """How many train; more than one with DDP."""
        is_ddp = self.option("strategy") in ("ddp", "ddp_spawn")
        return int(self.option("devices")) * int(self.option("num_nodes")) if is_ddp else 1

    @property
    def spawns(self) -> bool:
        """Whether none of them is the one that made the call."""
        return bool(self.option("strategy") == "ddp_spawn")

    @property
    def starts_programs(self) -> bool:
        """Whether the trainer does, which takes some seconds for each."""
        return self.spawns or self.launched

    @property
    def saves(self) -> bool:
        """Whether it is told to save a checkpoint."""
        return "save" in self.calls or any(event.do == "save" for event in self.when)

    @property
    def resumes(self) -> bool:
        """Whether a fit goes on from a checkpoint."""
        return not {"resume", "resume-last"}.isdisjoint(self.calls)

    @property
    def recorded(self) -> int:
        """Of how many processes a trace has the events."""
        return 1 if self.spawns else self.processes

    @property
    def stops_by_nothing(self) -> bool:
        """Whether a callback that stops, and is strict, monitors what is logged nowhere: then the fit ends."""
        return any(each.strict and each.monitor not in self.model.names_logged for each in self.early_stopping)

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


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value
