"""When loggers are given what is logged: after a step, a batch, an epoch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..progress import Progress
from .loggers import Logger

__all__ = ["Publisher"]


class Publisher:
    """Hands what is logged on to the loggers of one run: a training step's values every `log_every_n_steps` steps, an
    evaluation's with each of its batches, an epoch's at its end."""

    def __init__(self, loggers: Sequence[Logger], progress: Progress) -> None:
        self.loggers, self.progress = loggers, progress
        self._evaluated = 0  # batches in this run

    def hyperparams(self, params: Any) -> None:
        """A fit starts: the hyperparameters of the data module and of the module, if there are any."""
        for logger in self.loggers if params else ():
            logger.log_hyperparams(params)

    def step_of_batch(self) -> int | None:
        """The step that the values of the batch which is done belong to; None if they are not due."""
        progress, stage = self.progress, self.progress.state.stage
        if stage == "train":
            due = progress.updates and (progress.global_step + 1) % progress.options.log_every_n_steps == 0
            return progress.global_step if due else None
        if stage == "sanity_check":
            return None
        self._evaluated += 1
        return self._evaluated - 1

    def epoch(self, values: Mapping[str, float], within_batch: bool) -> None:
        """A pass is over; it belongs to the step that runs, or else to the last one."""
        step = self.progress.global_step
        self.publish(values, step if within_batch else max(0, step - 1))

    def publish(self, values: Mapping[str, float], step: int) -> None:
        """Give the loggers some values, if there are any."""
        for logger in self.loggers if values else ():
            logger.log_metrics({"epoch": self.progress.current_epoch, **values}, step)

    def finalize(self, status: str) -> None:
        """The run is over; `status` is the trainer's."""
        for logger in self.loggers:
            logger.finalize("success" if status == "finished" else status)
