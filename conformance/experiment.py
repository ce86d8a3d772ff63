"""What an experiment consists of: loaders, options, what is made to happen, and the module (`scenario_module.py`).

`scenario.py` makes one of a file's or a header's tables. All are loaded into the trainer's own world, so they
need only the standard library of Python 3.8.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, Dict, FrozenSet, Mapping, Optional, Tuple

from .hooks import OWN_STEPS, TRANSFERS
from .scenario_module import Log, Model

__all__ = ["OPTIONAL_HOOKS", "STEPS", "TRAINER_DEFAULTS", "Data", "Saving", "Scenario", "Stopping", "When"]

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
    `generator` each draws it from a generator of its own, and with `shuffle_val` so do the loaders of validations, each
    from one of its own. With `distributed_sampler` they come with torch's DistributedSampler, which deals without
    shuffling, in place of the one that the trainer would put in. With `listed` a loader of an evaluation is in a list
    also where it is the only one. With `workers` each loader has so many processes, which fetch batches ahead. With
    `told_epochs` the training loaders have a sampler of the user's own, which begins so many batches further on as the
    epoch is whose number `set_epoch` has told it. With `leaves_out` each loader has a sampler of the user's own, in
    order, and its data set a batch more at the end, which that does not draw. `promised` is what the training loader's
    length says, 0 for the truth; `reloaded` is how many batches the training loaders have that are asked for after the
    first one, 0 for as many. With `hyperparameter` the data module has one, which it is given: arg4=4.
    """

    train: int = 3
    train_loaders: Tuple[int, ...] = ()
    structure: str = "list"
    shuffle: bool = False
    generator: bool = False
    shuffle_val: bool = False
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
    told_epochs: bool = False
    leaves_out: bool = False
    promised: int = 0
    reloaded: int = 0
    hyperparameter: bool = False
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

    "freeze" and "unfreeze" are the module's methods, between two calls. "load" has the module's class load what was
    saved: the calls that follow give that module to the same trainer.

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
    def has_logger(self) -> bool:
        """Whether there is something for one."""
        return bool(self.model.logs or self.lr_monitor or self.model.hyperparameters) and not self.spawns

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

    @property
    def monitors(self) -> FrozenSet[str]:
        """The names of the values that somebody goes by."""
        of_callbacks = {each.monitor for each in self.early_stopping} | {each.monitor for each in self.model_checkpoint}
        return frozenset({self.model.monitor} | of_callbacks) - {""}

    def comes_together(self, log: Log) -> bool:
        """Whether what several processes log there is one value."""
        return log.sync_dist and not log.rank_zero_only and self.processes > 1

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
