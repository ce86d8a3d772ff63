"""What callbacks do in pytorch-lightning 1 and 2 instead of what the documentation says, and what checkpoints restore.

Beside `callbacks.py` and `checkpoints.py`, as `lightning.py` is beside `pseudocode.py`.
"""

from __future__ import annotations

from typing import Any

from .callbacks import File, Files
from .lightning_logged import LoggedThere
from .oracle import LOOKS_AT_RATES, UserError
from .pseudocode import Pseudocode
from .state import OWN_WORDS, Events

__all__ = ["LightningCallbacks"]


class LightningCallbacks(Pseudocode):
    """Callbacks and checkpoints, as all the releases have them."""

    logged: LoggedThere

    of_others: tuple[str, ...] = ()  # of those that other modules have configured, whom the trainer has kept

    # ---- those of another module --------------------------------------------------------------------

    def begin_anew(self) -> None:
        """The trainer keeps what a module has configured, but for those of a type that the next one has, too."""
        super().begin_anew()
        self.of_others += tuple(name for name in self.callbacks_of("module") if self.kinds[name] == "new")

    def take_in_own(self) -> None:
        super().take_in_own()
        own = self.callbacks_of("module")
        others = [name for name in self.callbacks if name not in own]
        merged = [*others, *self.of_others, *(name for name in self.callbacks if name in own)]
        self.callbacks = sorted(merged, key=lambda name: name in self.saving)

    # ---- callbacks that stop, and that save --------------------------------------------------------

    def look_to_stop(self, receiver: str) -> None:
        """In its hook."""
        self.check(receiver, self.stopping[receiver])

    def file_to_test(self, call: str) -> File | None:
        """As they are, where it is given the module and nothing else."""
        return None if call == "test" else super().file_to_test(call)

    def looks_at_rates(self, hook: str) -> bool:
        """In each batch."""
        return hook in LOOKS_AT_RATES

    def saves_in(self, hook: str) -> bool:
        """Whether anything could be saved now."""
        may = self.called == "fit" and not self.in_sanity_check and not self.options["fast_dev_run"]
        return may and hook in ("on_train_batch_end", "on_train_epoch_end", "on_validation_end", "on_train_end")

    @property
    def has_validated(self) -> bool:
        """Whether a validation is over, be it of the sanity check."""
        return ("module", "on_validation_end") in self.calls_seen

    def save_best(self, receiver: str) -> Events:
        """At once, if the value is among the best; if it is not there, that is an error once a validation has run."""
        saving, files, score = self.saving[receiver], self.files[receiver], self.score(receiver)
        if score is None:
            if self.has_validated:
                raise UserError(OWN_WORDS)
        elif files.takes(saving, score):
            yield from self.tell_of_saving(saving)
            files.take(saving, score, self.written(saving))
            files.saved_at = self.step
            if not files.last:
                self.saved_last = self.everything()

    def save_last(self, receiver: str) -> Events:
        """The last, which is another file."""
        if self.saving[receiver].save_last:
            yield from self.tell_of_saving(self.saving[receiver])
            self.files[receiver].last = self.written(self.saving[receiver])
            self.files[receiver].saved_at = self.step
            self.saved_last = self.everything()

    def waits_for_the_epoch(self, receiver: str) -> bool:
        """Even if there is no validation; an int of 1 is all of the epoch, too."""
        return bool(self.options["val_check_interval"] == 1.0 and self.options["check_val_every_n_epoch"] == 1)

    # ---- loggers -----------------------------------------------------------------------------------

    @property
    def has_loggers(self) -> bool:
        """In every process: which of them writes is a logger's own affair."""
        return not self.options["fast_dev_run"]

    def hparams(self) -> list[str]:
        """Those of the module in whose __init__ it is made, too, and of two of one name that one's."""
        kept = super().hparams()
        return ["arg1=0", *kept[1:], "arg4=4"] if self.s.model.hyperparameters == "within" else kept

    def hparams_told(self) -> list[str]:
        """What they were when they were kept."""
        kept = self.hparams()
        return ["arg1=1", *kept[1:]] if self.s.model.hyperparameters_changed else kept

    # ---- from a checkpoint -------------------------------------------------------------------------

    def restore(self) -> None:
        """The training's state, after on_fit_start; what was logged or accumulated is lost."""
        if self.resuming:
            self.epoch, self.step = self.resuming["epoch"], self.resuming["step"]
            self.numbers.rates = self.resuming["numbers"].rates

    def forget_others(self) -> None:
        """The trainer's callbacks go on."""

    def new_trainer(self) -> None:
        super().new_trainer()
        self.of_others = ()
        for files in self.files.values():
            files.saved_at = -1

    def rejoin(self) -> int:
        saved, self.resuming = self.resuming, {}
        self.batches_done = int(saved.get("batches_done", 0))
        return self.batches_done

    def known_again(self, files: Files) -> Files:
        """And not when it has saved one."""
        known = super().known_again(files)
        known.saved_at = -1
        return known

    def load(self) -> Events:
        yield from super().load()
        self.numbers.rates = self.untrained().rates

    # ---- a callback that writes predictions --------------------------------------------------------

    def places(self, batch: str) -> list[int] | None:
        """Of data of unknown length an empty list."""
        return super().places(batch) if self.s.data.sized else []

    def all_places(self, results: list[list[Any]]) -> list[str] | None:
        return super().all_places(results) if self.s.data.sized else []
