"""What users read on a trainer, in a hook and after a run."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, TypeVar

import torch

from ..callback import Callback
from ..callbacks.early_stopping import EarlyStopping
from ..callbacks.model_checkpoint import ModelCheckpoint
from ..callbacks.progress_bar import ProgressBar
from ..data import EvalLoaders, TrainLoader
from ..datamodule import LightningDataModule
from ..loggers.logbook import Logbook
from ..loggers.loggers import Logger, loggers_of
from ..optimization import Schedule
from ..types import LightningModule
from .options import Options, windows

__all__ = ["RunningStage", "TrainerFn", "TrainerState", "TrainerStatus", "TrainerView"]

SomeCallback = TypeVar("SomeCallback", bound=Callback)


class TrainerFn(StrEnum):
    """The trainer's method that was called last."""

    FITTING = "fit"
    VALIDATING = "validate"
    TESTING = "test"
    PREDICTING = "predict"


class TrainerStatus(StrEnum):
    """How far it is."""

    INITIALIZING = "initializing"
    RUNNING = "running"
    FINISHED = "finished"
    INTERRUPTED = "interrupted"  # by Ctrl-C
    FAILED = "failed"  # by an exception


class RunningStage(StrEnum):
    """The pass that runs."""

    TRAINING = "train"
    SANITY_CHECKING = "sanity_check"
    VALIDATING = "validate"
    TESTING = "test"
    PREDICTING = "predict"


@dataclass
class TrainerState:
    """What the trainer is doing. Each of these equals its text, as in `trainer.state.status == "finished"`."""

    fn: TrainerFn | None = None
    status: TrainerStatus = TrainerStatus.INITIALIZING
    passes: list[RunningStage] = field(default_factory=list, repr=False)  # a validation runs inside of the training

    @property
    def function(self) -> TrainerFn | None:
        """Another name of `fn`."""
        return self.fn

    @property
    def stage(self) -> RunningStage | None:
        """The pass that runs; None between passes."""
        return self.passes[-1] if self.passes else None

    @property
    def finished(self) -> bool:
        """Whether the last run came to its end."""
        return self.status == TrainerStatus.FINISHED


class TrainerView(Options):
    """What can be read off a trainer. Everything here follows from what its runs keep up to date."""

    state: TrainerState
    current_epoch: int
    logbook: Logbook
    module: LightningModule
    datamodule: LightningDataModule | None
    callbacks: list[Callback]
    loggers: list[Logger]
    schedules: list[Schedule]
    train_loader: TrainLoader | None
    eval_loaders: dict[str, EvalLoaders]
    checks_val: bool
    device: torch.device
    windows: dict[int, int]

    # ---- one process, on one device --------------------------------------------------------------

    global_rank = local_rank = node_rank = 0
    world_size = num_nodes = num_processes = num_devices = 1
    is_global_zero = property(lambda self: self.global_rank == 0, doc="Whether this is the process that writes.")
    num_gpus = property(lambda self: int(self.device.type == "cuda"), doc="1 on a GPU, 0 on the CPU.")

    # ---- what runs -------------------------------------------------------------------------------

    stage = property(lambda self: self.state.stage, doc="The pass that runs; None between passes.")
    training = property(lambda self: self.state.stage == "train", doc="Whether a training batch or epoch runs.")
    sanity_checking = property(lambda self: self.state.stage == "sanity_check", doc="Whether the sanity check runs.")
    validating = property(lambda self: self.state.stage == "validate", doc="Whether a validation runs.")
    testing = property(lambda self: self.state.stage == "test", doc="Whether a test runs.")
    predicting = property(lambda self: self.state.stage == "predict", doc="Whether a prediction runs.")

    model = property(lambda self: self.module, doc="The module of this run, or the last one; None before the first.")
    lightning_module = model
    enable_validation = property(lambda self: self.checks_val, doc="Whether this is a fit that validates.")

    @property
    def use_amp(self) -> bool:
        """Whether the steps run under autocast."""
        return self.precision in (16, "bf16")

    @property
    def accumulate_grad_batches(self) -> int:
        """How many batches make a window in the epoch that runs; a hook may set it, for the epochs that follow."""
        return self.windows[max(epoch for epoch in self.windows if epoch <= self.current_epoch)]

    @accumulate_grad_batches.setter
    def accumulate_grad_batches(self, batches: int | dict[int, int]) -> None:
        self.windows = windows("accumulate_grad_batches", batches)

    @property
    def lr_schedulers(self) -> list[dict[str, Any]]:
        """The `lr_dict` of each scheduler, complete, with the index of its optimizer as "opt_idx"."""
        keys = ("scheduler", "name", "interval", "frequency", "reduce_on_plateau", "monitor", "strict")
        return [
            {**{key: getattr(schedule, key) for key in keys}, "opt_idx": schedule.optimizer_idx}
            for schedule in self.schedules
        ]

    # ---- loaders and their batches ---------------------------------------------------------------

    @property
    def train_dataloader(self) -> Any:
        """The training loader; None before it was asked for, which is when the first epoch begins."""
        return self.train_loader and self.train_loader.loaders

    val_dataloaders = property(lambda self: self._loaders("val"), doc="The loaders; None before they were asked for.")
    test_dataloaders = property(lambda self: self._loaders("test"), doc="As `val_dataloaders`.")
    predict_dataloaders = property(lambda self: self._loaders("predict"), doc="As `val_dataloaders`.")

    def _loaders(self, stage: str) -> list[Any] | None:
        return list(self.eval_loaders[stage].loaders) if stage in self.eval_loaders else None

    @property
    def num_training_batches(self) -> int | float:
        """Batches in a training epoch; inf if unknown, 0 before the loader was asked for."""
        if self.train_loader is None:
            return 0
        return math.inf if self.train_loader.num_batches is None else self.train_loader.num_batches

    num_val_batches = property(lambda self: self._batches("val"), doc="Batches of each loader; inf if unknown.")
    num_test_batches = property(lambda self: self._batches("test"), doc="As `num_val_batches`.")
    num_predict_batches = property(lambda self: self._batches("predict"), doc="As `num_val_batches`.")

    def _batches(self, stage: str) -> list[int | float]:
        counts = self.eval_loaders[stage].num_batches if stage in self.eval_loaders else []
        return [math.inf if count is None else count for count in counts]

    @property
    def num_sanity_val_batches(self) -> list[int | float]:
        """Batches of each validation loader in the sanity check."""
        most = math.inf if self.num_sanity_val_steps == -1 else self.num_sanity_val_steps
        return [min(most, batches) for batches in self._batches("val")]

    @property
    def is_last_batch(self) -> bool:
        """Whether the training batch that runs, or ran last, is its epoch's last."""
        return self.train_loader is not None and self.train_loader.at_last

    # ---- what was logged, and who shows it -------------------------------------------------------

    @property
    def callback_metrics(self) -> dict[str, torch.Tensor]:
        """Every logged value by name, as scalar tensors."""
        return self.logbook.metrics("callback")

    @property
    def logged_metrics(self) -> dict[str, float]:
        """The values logged with `logger=True`."""
        return self.logbook.metrics("logged")

    @property
    def progress_bar_metrics(self) -> dict[str, float]:
        """The values logged with `prog_bar=True`."""
        return self.logbook.metrics("progress_bar")

    @property
    def logger(self) -> Logger | None:
        """The first of `loggers`; None without any. It can be set, for the runs that follow, to what
        `Trainer(logger=...)` takes."""
        return self.loggers[0] if self.loggers else None

    @logger.setter
    def logger(self, given: Any) -> None:
        self.loggers = loggers_of(given, self.default_root_dir, silent=self.fast_dev_run > 0)

    @property
    def log_dir(self) -> str:
        """The folder of the first logger, which need not exist yet; without one, `default_root_dir`."""
        folder = self.logger and (self.logger.log_dir or self.logger.save_dir)
        return folder or self.default_root_dir

    # ---- callbacks by their kind -----------------------------------------------------------------

    def _of_kind(self, kind: type[SomeCallback]) -> list[SomeCallback]:
        return [callback for callback in self.callbacks if isinstance(callback, kind)]

    @property
    def progress_bar_callback(self) -> ProgressBar | None:
        """The progress bar; None if it is switched off."""
        return next(iter(self._of_kind(ProgressBar)), None)

    @property
    def checkpoint_callbacks(self) -> list[ModelCheckpoint]:
        """Those among the callbacks that save checkpoints."""
        return self._of_kind(ModelCheckpoint)

    @property
    def checkpoint_callback(self) -> ModelCheckpoint | None:
        """The first of them; None without one."""
        return next(iter(self.checkpoint_callbacks), None)

    @property
    def early_stopping_callbacks(self) -> list[EarlyStopping]:
        """Every `EarlyStopping` among the callbacks."""
        return self._of_kind(EarlyStopping)

    @property
    def early_stopping_callback(self) -> EarlyStopping | None:
        """The first of them; None without one."""
        return next(iter(self.early_stopping_callbacks), None)
