"""The callbacks of a run: whose they are, and what those that come with a trainer do in their hooks. [R<n>] are rows of
`docs/interpretations.md`."""

from __future__ import annotations

from math import inf

from ..experiment import Scenario, Stopping
from .checkpoints import Checkpoints
from .oracle import OWN_WORDS, Events, UserError
from .plan import Plan

__all__ = ["Callbacks"]


class Callbacks(Checkpoints, Plan):
    """The trainer's and the module's: first the recording ones of either, then those that stop."""

    def __init__(self, scenario: Scenario, rank: int = 0) -> None:
        super().__init__(scenario, rank)
        own, stopping = scenario.model.callbacks, scenario.early_stopping
        owners = ["trainer"] * scenario.callbacks + ["module"] * len(own) + [each.given for each in stopping]
        kinds = ["same"] * scenario.callbacks + [*own] + ["EarlyStopping"] * len(stopping)
        names = [f"callback:{index}" for index in range(len(kinds))]
        self.owners_of, self.kinds = dict(zip(names, owners)), dict(zip(names, kinds))
        self.stopping = dict(zip(names[len(names) - len(stopping) :], stopping))
        self.forget_checks()

    def callbacks_of(self, owner: str) -> list[str]:
        """Those that the "trainer" is given, or the "module" configures."""
        return [name for name in self.owners_of if self.owners_of[name] == owner]

    def take_in_own(self) -> None:
        """Those of the module extend the trainer's list, and replace those of the same type [R14]."""
        own = self.callbacks_of("module")
        kinds = {self.kinds[name] for name in own}
        self.callbacks = [name for name in self.callbacks if self.kinds[name] not in kinds] + own

    def forget_checks(self) -> None:
        """None of those that stop has seen a value: the best, and how many checks ago it was."""
        self.checked = {name: (inf, 0) for name in self.stopping}

    def react(self, receiver: str, hook: str) -> Events:
        if receiver in self.stopping and self.is_time_to_look(receiver, hook):
            self.check(receiver, self.stopping[receiver])
        yield from ()

    def is_time_to_look(self, receiver: str, hook: str) -> bool:
        """Whether a callback looks at its value: in a fit, as the epoch or the validation ends."""
        if self.called != "fit" or self.in_sanity_check or self.options["fast_dev_run"]:
            return False
        return hook == ("on_train_epoch_end" if self.waits_for_the_epoch(receiver) else "on_validation_end")

    def waits_for_the_epoch(self, receiver: str) -> bool:
        """Where there is one validation in each epoch, at its end, or none [R44]."""
        interval = self.options["val_check_interval"]
        once = interval == 1.0 and isinstance(interval, float)
        return not self.validates() or (once and self.options["check_val_every_n_epoch"] == 1)

    def check(self, receiver: str, stopping: Stopping) -> None:
        """Training is to end where the value has not improved by more than min_delta so many checks in a row."""
        known, (best, waited) = self.logged.known(), self.checked[receiver]
        if stopping.monitor not in known:
            if stopping.strict:
                raise UserError(OWN_WORDS)
            return
        value = known[stopping.monitor] * (1 if stopping.mode == "min" else -1)
        improves = value + stopping.min_delta < best
        self.checked[receiver] = (value, 0) if improves else (best, waited + 1)
        self.should_stop = self.should_stop or (not improves and waited + 1 >= stopping.patience)

    # ---- in a checkpoint ---------------------------------------------------------------------------

    def keep(self) -> Events:
        yield from super().keep()
        self.saved["checked"] = dict(self.checked)

    def new_trainer(self) -> None:
        super().new_trainer()
        self.forget_checks()

    def load(self) -> Events:
        """What a callback has seen comes back to it."""
        yield from super().load()
        if self.resuming:
            self.checked = dict(self.resuming["checked"])
