"""What users read on a trainer while it runs and afterwards."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from .callbacks import Callback
from .data import TrainLoader
from .loggers import Logger
from .options import Options
from .progress import ProgressBar
from .results import Logbook

__all__ = ["TrainerState", "TrainerView"]


@dataclass
class TrainerState:
    """What the trainer is doing: `fn` is fit, validate, test or predict; `status` is "initializing",
    "running", "finished", "interrupted" or "failed"."""

    fn: str | None = None
    status: str = "initializing"


class TrainerView(Options):
    """What can be read off a trainer, derived from what its runs keep up to date."""

    state: TrainerState
    logbook: Logbook
    callbacks: list[Callback]
    loggers: list[Logger]
    train_loader: TrainLoader | None
    _stages: list[str]  # a validation runs inside of the training

    @property
    def stage(self) -> str | None:
        """The pass that runs, as `open` names it; None between passes."""
        return self._stages[-1] if self._stages else None

    training = property(lambda self: self.stage == "train", doc="Whether a training batch or epoch runs.")
    sanity_checking = property(lambda self: self.stage == "sanity_check", doc="Whether the sanity check runs.")
    validating = property(lambda self: self.stage == "validate", doc="Whether a validation runs.")
    testing = property(lambda self: self.stage == "test", doc="Whether a test runs.")
    predicting = property(lambda self: self.stage == "predict", doc="Whether a prediction runs.")

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
    def progress_bar_callback(self) -> ProgressBar | None:
        """The progress bar; None if it is switched off."""
        return next((callback for callback in self.callbacks if isinstance(callback, ProgressBar)), None)

    @property
    def logger(self) -> Logger | None:
        """The first of `loggers`; None without any."""
        return self.loggers[0] if self.loggers else None

    @property
    def log_dir(self) -> str:
        """The folder of the first logger, which need not exist yet; without one, `default_root_dir`."""
        folder = self.logger and (self.logger.log_dir or self.logger.save_dir)
        return folder or self.default_root_dir

    @property
    def num_training_batches(self) -> int | float:
        """Batches in a training epoch; inf if unknown, 0 before the loader was asked for."""
        if self.train_loader is None:
            return 0
        return math.inf if self.train_loader.num_batches is None else self.train_loader.num_batches

    @property
    def use_amp(self) -> bool:
        """Whether the steps run under autocast."""
        return self.precision in (16, "bf16")
