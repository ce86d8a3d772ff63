"""What the documentation says of optimization beside its pseudocode: arguments, schedulers, pieces, overrides."""

from __future__ import annotations

from typing import Any

from ..numerics import RATE
from .oracle import UserError
from .parts import Parts
from .state import OWN_WORDS, Events

__all__ = ["Optimization"]

WARM_UP = 4  # steps in which the override of that name raises the rate


class Optimization(Parts):
    """The words about optimizers that the lines of `pseudocode.py` use."""

    def numbered(self, receiver: str, optimizer_idx: int) -> str:
        """"optimizer", or with several "optimizer:1"."""
        return receiver if self.s.model.optimizers == 1 else f"{receiver}:{optimizer_idx}"

    def scheduler(self, scheduler_idx: int) -> str:
        """"scheduler", or with several "scheduler:1"."""
        return "scheduler" if self.s.model.schedulers == 1 else f"scheduler:{scheduler_idx}"

    def of(self, optimizer_idx: int) -> dict[str, Any]:
        """The arguments that say which optimizer is used."""
        return {"optimizer": self.numbered("optimizer", optimizer_idx), "optimizer_idx": optimizer_idx}

    def loss(self) -> dict[str, Any]:
        """What `backward` is given: the batch's loss, divided by the window [R8]; {} where nobody can tell."""
        if not self.is_computed:
            return {}
        loss = self.numbers.trained_loss(str(self.batch), self.piece)
        return {"loss": loss / self.window * self.numbers.scale}

    def flags(self) -> dict[str, bool]:
        """The last arguments of `optimizer_step`, on the CPU."""
        amp, lbfgs = self.options["precision"] != 32, self.s.model.optimizer == "lbfgs"
        return {"on_tpu": False, "using_native_amp": amp, "using_lbfgs": lbfgs}

    def warm_up(self, optimizer_idx: int) -> None:
        """What the documentation's `optimizer_step` does to the rate in the first steps."""
        if "warm-up" in self.s.model.overrides and self.step < WARM_UP:
            self.numbers.set_rate(RATE * (self.step + 1) / WARM_UP, optimizer_idx)

    def rests(self, optimizer_idx: int, batch_idx: int) -> bool:
        """Whether the documentation's alternating `optimizer_step` leaves the second optimizer out."""
        return "alternate" in self.s.model.overrides and optimizer_idx == 1 and batch_idx % 2 == 0

    def pieces(self) -> list[tuple[int, int]]:
        """From when to when each piece of a batch goes: of the size asked for, or as the module's own
        `tbptt_split_batch` has it, the first step and the rest."""
        time, size = self.s.data.time, self.s.model.truncated_bptt_steps
        starts = [0, *range(1, time)[:1]] if "own-split" in self.s.model.overrides else range(0, time, size)
        return list(zip(starts, [*starts[1:], time]))

    def pass_schedulers(self, optimizer_idx: int, interval: str) -> Events:
        """An optimizer's update or an epoch has passed for those of its schedulers that step by it."""
        for scheduler_idx in self.s.model.schedulers_of(optimizer_idx, interval):
            yield from self.pass_scheduler(scheduler_idx)

    def pass_scheduler(self, scheduler_idx: int) -> Events:
        """It steps at every so manieth; after an update, one that monitors a value waits for the end of the
        batch [R71]."""
        self.passed[scheduler_idx] = self.passed.get(scheduler_idx, 0) + 1
        if self.passed[scheduler_idx] % self.s.model.frequency_of(scheduler_idx):
            return
        if self.s.model.monitor_of(scheduler_idx) and self.s.model.interval(scheduler_idx) == "step":
            self.due.add(scheduler_idx)
        else:
            yield from self.step_scheduler(scheduler_idx)

    def end_of_batch(self) -> Events:
        """The schedulers that have waited for it."""
        due, self.due = self.due, set()
        for scheduler_idx in sorted(due):
            yield from self.step_scheduler(scheduler_idx)

    def step_scheduler(self, scheduler_idx: int) -> Events:
        """It does; one that monitors a value is given it, and without it the run ends, or goes
        on if the scheduler is not strict [R13]."""
        model = self.s.model
        given: dict[str, float] = {}
        if model.monitor_of(scheduler_idx):
            known = self.decisive()
            if model.monitor not in known and model.strict:
                raise UserError(OWN_WORDS)
            if model.monitor not in known:
                return
            given = {"value": known[model.monitor]}
        yield from self.span(self.scheduler(scheduler_idx), "step", None, given)
