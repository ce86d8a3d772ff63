"""When: how many epochs, which batches are followed by a validation, when training stops."""

from __future__ import annotations

import time
from collections.abc import Iterator

from .data import has_loader
from .seed import set_random_state
from .types import Trainer

__all__ = [
    "closes_window",
    "epochs",
    "sanity_check_batches",
    "should_check_val",
    "should_leave_epoch",
    "validates",
]


def validates(trainer: Trainer) -> bool:
    """Whether fit validates at all: a validation_step, a loader, and a limit that leaves batches."""
    return bool(
        trainer.hooks.validation_step and has_loader(trainer, "val") and trainer.limit_val_batches != 0
    )


def sanity_check_batches(trainer: Trainer) -> int | None:
    """How many batches of each loader the sanity check takes: 0 for no check, None for all. A run that goes on
    from a checkpoint has been checked."""
    if trainer.num_sanity_val_steps == 0 or trainer.resuming or not validates(trainer):
        return 0
    return None if trainer.num_sanity_val_steps == -1 else trainer.num_sanity_val_steps


def epochs(trainer: Trainer) -> Iterator[int]:
    """The numbers of the epochs to train, from `current_epoch` on, until training is to stop."""
    if trainer.resuming:
        set_random_state(trainer.resuming["random_state"])
    while trainer.limit_train_batches != 0 and not _training_is_over(trainer, trainer.current_epoch):
        yield trainer.current_epoch
        trainer.epoch_is_done()


def _training_is_over(trainer: Trainer, epochs_done: int) -> bool:
    if trainer.max_epochs != -1 and epochs_done >= trainer.max_epochs:
        return True
    return (
        _steps_are_done(trainer)
        or _time_is_up(trainer)
        or _may_stop(trainer, epochs_done, trainer.global_step)
    )


def _may_stop(trainer: Trainer, epochs_done: int, steps_done: int) -> bool:
    """Whether somebody asked training to stop, and the minima are met; until then it goes on."""
    return trainer.should_stop and epochs_done >= trainer.min_epochs and steps_done >= trainer.min_steps


def should_leave_epoch(trainer: Trainer) -> bool:
    """Whether the epoch ends after this batch, before its loader does."""
    # Each question is asked only where somebody set what it is about: this runs after every batch.
    if trainer.max_steps != -1 and _steps_are_done(trainer):
        return True
    if trainer.deadline is not None and _time_is_up(trainer):
        return True
    return trainer.should_stop and _may_stop(trainer, trainer.current_epoch, trainer.global_step)


def _steps_are_done(trainer: Trainer) -> bool:
    return trainer.max_steps != -1 and trainer.global_step >= trainer.max_steps


def _time_is_up(trainer: Trainer) -> bool:
    return trainer.deadline is not None and time.monotonic() >= trainer.deadline


def closes_window(trainer: Trainer, batch_idx: int, window: int) -> bool:
    """Whether an update follows this batch: it is its window's last, or the epoch's."""
    assert trainer.train_loader is not None  # it made this batch
    return (batch_idx + 1) % window == 0 or trainer.train_loader.is_last(batch_idx)


def should_check_val(trainer: Trainer, batch_idx: int) -> bool:
    """Whether a validation follows this training batch: one that is due, or the last before a stop."""
    if not trainer.checks_val or (trainer.current_epoch + 1) % trainer.check_val_every_n_epoch:
        return False
    if _may_stop(trainer, trainer.current_epoch, trainer.global_step + trainer.updates):
        return True
    loader = trainer.train_loader
    assert loader is not None  # it made this batch
    if loader.check_every is None:
        return loader.is_last(batch_idx)
    return (batch_idx + 1) % loader.check_every == 0
