"""EarlyStopping: training ends when a value that was logged no longer improves."""

from __future__ import annotations

import math
from typing import Any

from ..errors import ConfigurationError, count, not_logged, warn
from ..saving.shape import COUNT, NUMBER, check, maybe
from ..types import Trainer
from .monitor import MonitorCallback

__all__ = ["EarlyStopping"]

_STATE = {"best_score": NUMBER, "wait_count": COUNT, "stopped_epoch": maybe(COUNT)}


class EarlyStopping(MonitorCallback):
    """Sets `trainer.should_stop` once a logged value has not improved for a while. ("configure_callbacks")

    Args:
        monitor: the name that the value is logged under; to leave it out, for "early_stop_on", is deprecated.
        min_delta: a change of at most this much is no improvement; below 0, a small one for the worse is one.
        patience: stop after so many checks in a row without an improvement.
        verbose: print each improvement, and why training stops.
        mode: "min" if the value should fall, "max" if it should rise.
        strict: whether a value that was not logged is an error, rather than a warning.
        check_finite: stop as soon as the value is NaN or infinite.
        stopping_threshold: stop as soon as the value is better than this.
        divergence_threshold: stop as soon as the value is worse than this.
        check_on_train_epoch_end: check as a training epoch ends, rather than as a validation does; by default, if
            there is one validation in each epoch, at its end, or none at all.

    `best_score` is the best value so far, `wait_count` the number of checks since, `stopped_epoch` the epoch
    in which it stopped training, from 0, or None.

    Raises ConfigurationError for an argument that makes no sense, and, if `strict`, at the first check for a
    value that was not logged.
    """

    _when = "check_on_train_epoch_end"

    def __init__(
        self, monitor: str | None = None, min_delta: float = 0.0, patience: int = 3, verbose: bool = False,
        mode: str = "min", strict: bool = True, check_finite: bool = True, stopping_threshold: float | None = None,
        divergence_threshold: float | None = None, check_on_train_epoch_end: bool | None = None
    ) -> None:  # fmt: skip
        if monitor is None:
            monitor = "early_stop_on"
            warn(f"EarlyStopping() monitors {monitor!r}, which is deprecated; name what you log", DeprecationWarning)
        if not isinstance(monitor, str):
            raise ConfigurationError(f"EarlyStopping: monitor={monitor!r}; the name of a logged value is accepted")
        if math.isnan(min_delta):
            raise ConfigurationError(f"EarlyStopping: min_delta={min_delta!r}; a number is accepted")
        super().__init__(mode)
        self.patience = count("EarlyStopping: patience", patience)
        self.monitor, self.min_delta, self.verbose = monitor, min_delta, verbose
        self.strict, self.check_finite = strict, check_finite
        self.stopping_threshold, self.divergence_threshold = stopping_threshold, divergence_threshold
        self.check_on_train_epoch_end = check_on_train_epoch_end
        self.forget()

    def forget(self) -> None:
        """It has seen nothing yet."""
        self.best_score, self.wait_count = math.inf if self.mode == "min" else -math.inf, 0
        self.stopped_epoch: int | None = None

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint has to keep of it."""
        return {name: getattr(self, name) for name in _STATE}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what `state_dict` returned. Raises CheckpointError for anything else."""
        check(state, _STATE)
        vars(self).update(state)

    def _look(self, trainer: Trainer, epoch: int) -> None:
        metrics = trainer.run.known()
        if self.monitor not in metrics:
            problem = not_logged("EarlyStopping", self.monitor, metrics)
            if self.strict:
                raise ConfigurationError(problem)
            return warn(problem)
        before, current = self.best_score, float(metrics[self.monitor])
        if reason := self._why_to_stop(current):
            trainer.should_stop, self.stopped_epoch = True, epoch
        if self.verbose and (reason or self.best_score != before):
            trainer.print(f"{self.monitor} = {current:.6g}: {reason or f'better than {before:.6g}'}")

    def _why_to_stop(self, current: float) -> str:
        """Why to stop at this value, empty for going on."""
        if self.check_finite and not math.isfinite(current):
            return "it is not finite; training stops"
        rank = self._rank
        if self.stopping_threshold is not None and rank(current) < rank(self.stopping_threshold):
            return f"the threshold of {self.stopping_threshold} is reached; training stops"
        if self.divergence_threshold is not None and rank(self.divergence_threshold) < rank(current):
            return f"it is worse than {self.divergence_threshold}; training stops"
        if rank(current) + self.min_delta < rank(self.best_score):
            self.best_score, self.wait_count = current, 0
            return ""
        self.wait_count += 1
        reason = f"no better than {self.best_score:.6g} in {self.wait_count} checks; training stops"
        return reason if self.wait_count >= self.patience else ""
