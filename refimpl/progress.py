"""Progress: how far a run is, what is due after a batch, and when training stops."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from .trainer.options import Options

__all__ = ["END", "Progress", "RunningStage", "TrainerFn", "TrainerState", "TrainerStatus"]

#: What follows an epoch's last batch.
END = object()


class TrainerFn(StrEnum):
    """The trainer's method that was called last."""

    FITTING, VALIDATING, TESTING, PREDICTING = "fit", "validate", "test", "predict"


class TrainerStatus(StrEnum):
    """How far it is; what has interrupted it is Ctrl-C, and it has failed by an exception."""

    INITIALIZING, RUNNING, FINISHED = "initializing", "running", "finished"
    INTERRUPTED, FAILED = "interrupted", "failed"


class RunningStage(StrEnum):
    """The pass that runs."""

    TRAINING, SANITY_CHECKING = "train", "sanity_check"
    VALIDATING, TESTING, PREDICTING = "validate", "test", "predict"


@dataclass
class TrainerState:
    """What the trainer is doing. Each of these equals its text, as in `trainer.state.status == "finished"`."""

    fn: TrainerFn | None = None
    status: TrainerStatus = TrainerStatus.INITIALIZING
    passes: list[RunningStage] = field(default_factory=list, repr=False)  # a validation runs inside of the training

    function = property(lambda self: self.fn, doc="Another name of `fn`.")
    stage = property(lambda self: self.passes[-1] if self.passes else None, doc="The pass that runs; None between.")
    finished = property(lambda self: self.status == TrainerStatus.FINISHED, doc="Whether the last run came to its end.")


class Progress:
    """Where a trainer is, from one run to the next: function and pass, epoch, batch and step."""

    def __init__(self, options: Options) -> None:
        self.options, self.state = options, TrainerState()
        self.current_epoch = self.global_step = 0
        self.should_stop = self.interrupted = False
        self.batch: Any = None  # at hand, as the loader left it; None between batches
        self.part: tuple[int, float] | None = None  # at hand of a batch that is split: which one, and its share of it
        self.taken = 0  # changes whenever another one is
        self.batch_idx = -1
        self.batches_done = 0  # in this epoch
        self.updates = self.is_last = False  # does an update follow this batch? is it the epoch's last?
        self.uncounted = False  # whether the batch has made a step that global_step does not count yet
        self._check_every: int | None = None  # batches; None: after an epoch's last one
        self._is_due_at_end = True
        self._due: list[Callable[[], None]] = []
        self._deadline: float | None = None
        self._time_is_up = self.has_come_to_its_deadline

    # ---- a run, its passes ---------------------------------------------------------------------------------

    def begin(self) -> None:
        """A run is prepared: nobody has asked it to stop."""
        self.should_stop = self.interrupted = self.uncounted = self.updates = self.is_last = False
        self.batches_done, self.batch_idx, self.batch, self.part = 0, -1, None, None
        self._due.clear()
        limit = self.options.max_time
        self._deadline = None if limit is None else time.monotonic() + limit

    def start(self, function: str) -> None:
        """It has begun."""
        self.state = TrainerState(TrainerFn(function), TrainerStatus.RUNNING)

    def open(self, stage: str) -> None:
        """A pass begins: "train", "sanity_check", "validate", "test" or "predict"."""
        self.state.passes.append(RunningStage(stage))
        self.batch, self.taken = None, self.taken + 1

    def close(self) -> RunningStage:
        """The pass is over; returns which it was."""
        return self.state.passes.pop()

    def end(self, status: TrainerStatus) -> None:
        """The run is over, in whatever passes were open."""
        self.state.status, self.batch = status, None
        self.interrupted = status == TrainerStatus.INTERRUPTED
        self.state.passes.clear()

    @property
    def broke_off(self) -> bool:
        """Whether the run ended in the midst of a training batch."""
        ended = self.state.status in (TrainerStatus.INTERRUPTED, TrainerStatus.FAILED)
        return ended and self.batch_idx >= self.batches_done

    def go_to(self, epoch: int) -> None:
        """The next fit begins with this epoch."""
        self.current_epoch = epoch

    def ask_to_stop(self, stop: bool = True) -> None:
        """Training is to end, once the minima are met."""
        self.should_stop = stop

    # ---- a training ------------------------------------------------------------------------------------------

    @property
    def window(self) -> int:
        """How many batches are accumulated for an update, in the epoch that runs."""
        windows = self.options.accumulate_grad_batches
        return windows[max(epoch for epoch in windows if epoch <= self.current_epoch)]  # type: ignore[no-any-return]

    def epochs(self) -> Iterator[int]:
        """The numbers of the epochs to train, from `current_epoch` on, until training is to stop."""
        while not self.is_over():
            yield self.current_epoch

    def end_epoch(self) -> None:
        """A training epoch is over, to the last hook."""
        self.current_epoch += 1
        self.batches_done = 0

    def batches(
        self, batches: Iterable[tuple[Any, Any]], window: int, promised: int | None, check_every: int | None
    ) -> Iterator[tuple[int, Any]]:
        """Number a training epoch's batches, those that are not done; with the last one comes `END`. Every `window` of
        them make an update.

        A batch is over, and its step counted, when the loop comes back for the next one. A validation is due after
        `check_every` of them, None: after the last one; fewer may come than were `promised`.
        """
        self._check_every, self._is_due_at_end = check_every, check_every is None or (promised or 1) % check_every == 0
        options = self.options
        try:
            for batch_idx, (batch, following) in enumerate(batches, self.batches_done):
                self.batch_idx, self.batch, self.is_last = batch_idx, batch, following is END
                self.taken += 1
                self.updates = window == 1 or self.is_last or (batch_idx + 1) % window == 0
                yield batch_idx, batch
                self.global_step += self.updates
                self.uncounted = False
                if self._due:
                    self.do_due()
                # Asked only where somebody set what it is about: this runs after every batch.
                asked = self.should_stop or options.max_steps != -1 or self._deadline is not None
                if asked and self._leaves_epoch():
                    break
        finally:
            self.batch, self.taken = None, self.taken + 1

    def batch_is_trained(self) -> None:
        """The batch at hand has been trained on; its step is counted once its validation has run."""
        self.batches_done, self.uncounted = self.batch_idx + 1, self.updates

    def take_part(self, part: tuple[int, float] | None) -> None:
        """Of a batch that is split over devices one part runs, or None, the whole batch is at hand again."""
        self.part, self.taken = part, self.taken + 1

    def numbered(self, batches: Iterable[Any]) -> Iterator[tuple[int, Any]]:
        """Number the batches that an evaluation takes from one of its loaders."""
        for numbered in enumerate(batches):
            self.batch, self.taken = numbered[1], self.taken + 1
            yield numbered
        self.batch, self.taken = None, self.taken + 1

    def should_check_val(self) -> bool:
        """Whether a validation follows this training batch: one that is due, or the last before a stop."""
        if (self.current_epoch + 1) % self.options.check_val_every_n_epoch:
            return False
        if self._may_stop(self.global_step + self.updates):
            return True
        if self.is_last and self._is_due_at_end:
            return True
        return self._check_every is not None and (self.batch_idx + 1) % self._check_every == 0

    # ---- when it stops ---------------------------------------------------------------------------------------

    def is_over(self) -> bool:
        """Whether no epoch follows."""
        options = self.options
        if options.limit_train_batches == 0 or (options.max_epochs != -1 and self.current_epoch >= options.max_epochs):
            return True
        return self._leaves_epoch()

    def _leaves_epoch(self) -> bool:
        """Whether training ends after this batch, wherever in its epoch."""
        if self.options.max_steps != -1 and self.global_step >= self.options.max_steps:
            return True
        return self._time_is_up() or self._may_stop(self.global_step)

    def has_come_to_its_deadline(self) -> bool:
        """Whether `max_time` is over."""
        return self._deadline is not None and time.monotonic() >= self._deadline

    def ask_for_the_time(self, time_is_up: Callable[[], bool]) -> None:
        """Have another tell whether `max_time` is over, so that all processes stop together."""
        self._time_is_up = time_is_up

    def _may_stop(self, steps_done: int) -> bool:
        """Whether somebody asked training to stop, and the minima are met; until then it goes on."""
        options = self.options
        return self.should_stop and self.current_epoch >= options.min_epochs and steps_done >= options.min_steps

    # ---- checkpoints -----------------------------------------------------------------------------------------

    def do_soon(self, what: Callable[[], None]) -> None:
        """Call it once the batch, or the epoch, is over: then nothing is in progress."""
        self._due.append(what)

    def do_due(self) -> None:
        """Do what is due."""
        while self._due:
            self._due.pop(0)()

    def state_dict(self) -> dict[str, Any]:
        """How many epochs and steps are done, and batches of the epoch that runs."""
        steps = self.global_step + self.uncounted
        return {"epoch": self.current_epoch, "global_step": steps, "batches_done": self.batches_done}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from there."""
        self.current_epoch, self.global_step = state["epoch"], state["global_step"]
        self.batches_done = state["batches_done"]
