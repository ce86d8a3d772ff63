"""Which batches there are, and when things happen: the limits, the validations, the end of the training.

[R<n>] are rows of `docs/interpretations.md`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from .oracle import Oracle

__all__ = ["Plan"]


class Plan(Oracle):
    """The questions that the loops of `pseudocode.py` ask before a line."""

    def limited(self, stage: str, batches: int) -> int:
        """How many of a loader's batches are used."""
        limit = self.options[f"limit_{stage}_batches"]
        return min(batches, limit) if isinstance(limit, int) else int(batches * limit)

    def validates(self) -> bool:
        wanted = self.options["limit_val_batches"] != 0
        return wanted and bool(self.s.loaders("val")) and self.s.defines("validation_step")

    def should_check_val(self, batch_idx: int, batches: int) -> bool:
        """Every val_check_interval batches of every check_val_every_n_epoch-th epoch, and before a
        stop that somebody asked for [R26]."""
        if not self.validates() or (self.epoch + 1) % self.options["check_val_every_n_epoch"]:
            return False
        if self.may_stop(running=int(self.updating)):
            return True
        interval = self.options["val_check_interval"]
        if interval == 1.0 and isinstance(interval, float):
            return self.comes_last(batch_idx, batches)
        promised = self.limited("train", self.length())
        every = interval if isinstance(interval, int) else max(1, int(promised * interval))
        return (batch_idx + 1) % every == 0 or (promised % every == 0 and self.comes_last(batch_idx, batches))

    def steps_are_done(self) -> bool:
        most: int = self.options["max_steps"]
        return most != -1 and self.step >= most

    def another_epoch(self) -> bool:
        most = self.options["max_epochs"]
        if most != -1 and self.epoch >= most:
            return False
        if self.steps_are_done() or self.options["limit_train_batches"] == 0:
            return False
        return not self.may_stop()

    def may_stop(self, running: int = 0) -> bool:
        """Asked to stop, and min_epochs and min_steps are met; `running` steps are not counted yet."""
        minima_met = self.epoch >= self.options["min_epochs"] and self.step + running >= self.options["min_steps"]
        return self.should_stop and bool(minima_met)

    def hear_of_one_that_stops(self, batch_idx: int, batches: int) -> None:
        """A process that asks to stop, when the others do not, is heard after the next batch in which gradients are
        averaged, or the epoch's last [R102]."""
        asked = self.asked_alone
        key = "module", "on_train_batch_end", self.calls_seen["module", "on_train_batch_end"]
        self.asked_alone = asked or self.done_alone.get(key) == "stop"
        if (asked and self.has_met) or (self.asked_alone and batch_idx + 1 == batches):
            self.should_stop, self.asked_alone = True, False

    def is_training(self, stage: str) -> bool:
        """Whether the stage's batches are those of training: with overfit_batches, a fit's validation's are [R62]."""
        return stage == "train" or (stage == "val" and self.overfits)

    def train_batches(self) -> int:
        """How many a training epoch has but for limits: as many as the loader has that was asked for last [R61]."""
        return self.s.data.reloaded if self.s.data.reloaded and self.asked > 1 else self.s.train_batches()

    def length(self) -> int:
        """What the training loader's length says."""
        return self.s.data.promised or self.train_batches()

    def loaders(self, stage: str) -> list[int]:
        """The batches of each of a stage's loaders that are used; training loaders make one of all. Fewer may come than
        a length has promised [R74]."""
        if self.is_training(stage):
            return [min(self.train_batches(), self.limited("train", self.length()))]
        return [self.limited(stage, batches) for batches in self.s.loaders(stage)]

    def batches(self, stage: str, at_most: int | None = None) -> Iterator[tuple[int, dict[str, Any]]]:
        """The batches of a stage's loaders in order: the loader's index, and what says which it is."""
        for index, batches in enumerate(self.loaders(stage)):
            for batch_idx in range(batches if at_most is None else min(batches, at_most)):
                yield index, {"batch": self.batch_of(stage, index, batch_idx), "batch_idx": batch_idx}

    def batch_of(self, stage: str, loader: int, batch_idx: int) -> str:
        """What a batch is called."""
        return self.train_batch(batch_idx) if self.is_training(stage) else f"{stage}/{loader}/{batch_idx}"

    def train_batch(self, batch_idx: int) -> str:
        """Which batch of the training loader that is; of several which of each, the shorter ones starting anew, in
        the structure of the loaders [R60]."""
        lengths = self.s.loaders("train") if self.s.data.train_loaders else [self.train_batches()]
        each = [f"train/{index}/{(self.told_epoch() + batch_idx) % n}" for index, n in enumerate(lengths)]
        if not self.s.data.train_loaders:
            return each[0]
        if self.s.data.structure in ("list", "tuple"):
            return f"[{','.join(each)}]"
        if self.s.data.structure == "dicts":
            named = list(map(":".join, zip("abcdefgh", each)))
            return f"[{{{named[0]}}},{{{','.join(named[1:])}}}]"
        if self.s.data.structure == "nested":
            each = [f"[{each[0]}]", f"[{','.join(each[1:])}]"]
        return "{" + ",".join(map(":".join, zip("abcdefgh", each))) + "}"

    def told_epoch(self) -> int:
        """The epoch that samplers have been told, which begin so many batches further on [R101]."""
        return self.epoch if self.s.data.told_epochs else 0

    def is_due(self, stage: str, asked: int | None = None) -> bool:
        """Whether a stage's loaders are asked for: the first time, and again so many epochs after `asked`, by default
        the epoch in which they were [R61]."""
        every = self.options["reload_dataloaders_every_n_epochs"]
        asked = self.loaded.get(stage) if asked is None else asked
        return asked is None or (every > 0 and self.epoch - asked >= every)
