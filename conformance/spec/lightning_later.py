"""What pytorch-lightning 1.9 and 2 both do instead of what the documentation says, and 1.5 does not."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ..hooks import TRANSFERS
from .calls import Calls
from .lightning import Lightning
from .logged import defaults
from .oracle import UserError
from .state import OWN_WORDS, Events, Expected

__all__ = ["WITHOUT_LOADER", "Later"]

WITHOUT_LOADER = dict.fromkeys(("on_train_batch_start", "on_train_batch_end"), ("dataloader_idx",))


class Later(Lightning):
    """The pseudocode of 1.9 and 2, as far as both have it."""

    absent = frozenset(
        {
            *("on_post_move_to_device", "on_pretrain_routine_start", "on_pretrain_routine_end", "on_epoch_start"),
            *("on_epoch_end", "on_predict_model_train"),
        }
    )
    asks_in = "train_on_device"  # for the validation loaders, before the training starts
    windows_done = 0
    gone: Mapping[str, tuple[str, ...]] = {}  # arguments that hooks do not have any more

    def event(self, ph: str, receiver: str, hook: str, args: dict[str, Any]) -> Expected:
        gone = self.gone.get(hook, ())
        return super().event(ph, receiver, hook, {name: value for name, value in args.items() if name not in gone})

    def receivers(self, hook: str) -> list[str]:
        """A data module has no part in checkpoints, and none in a batch of loaders that the call is given."""
        if hook in TRANSFERS and self.s.data.given_to(self.called) == "argument":
            return ["module"]
        if hook == "on_load_checkpoint":
            return ["module"]
        if hook == "on_save_checkpoint":
            return [*self.told_of_saving, "module"]
        return super().receivers(hook)

    # ---- steps ------------------------------------------------------------------------------------

    def optimizer_done(self) -> None:
        """global_step counts the optimizer's steps, each when it is over."""
        self.step, self.uncounted = self.step + 1, 0

    @property
    def logger_step(self) -> int:
        """Loggers are told how many batches, or windows of them, are over."""
        return self.windows_done

    def optimizer_update(self, optimizer_idx: int, closure: Callable[[], Events]) -> Events:
        yield from super().optimizer_update(optimizer_idx, closure)
        if self.s.model.manual and not self.s.model.plain:
            self.optimizer_done()

    def may_stop(self, running: int = 0) -> bool:
        return super().may_stop()

    # ---- checkpoints ------------------------------------------------------------------------------

    def everything(self) -> dict[str, Any]:
        return {**super().everything(), "windows_done": self.windows_done}

    def new_trainer(self) -> None:
        super().new_trainer()
        self.windows_done = 0

    def restore(self) -> None:
        super().restore()
        self.windows_done = self.resuming.get("windows_done", self.windows_done)

    def load(self) -> Events:
        """Callbacks are told when the weights are there."""
        yield from super().load()
        for callback in self.callbacks if self.resuming else ():
            if callback in self.saving:
                continue
            yield from self.span(callback, "on_load_checkpoint", None, {})

    def ends_epochs(self) -> bool:
        """Whether it is a training epoch's end that a checkpoint is saved at: where there is no validation, or one."""
        if self.options["check_val_every_n_epoch"] != 1:
            return False
        return not self.validates() or bool(self.options["val_check_interval"] == 1.0)

    def validates_epoch(self) -> bool:
        """Whether this epoch has validations."""
        return self.validates() and (self.epoch + 1) % self.options["check_val_every_n_epoch"] == 0

    def last_batch(self) -> None:
        """In a sanity check over several loaders nobody computes what the last one's values come to."""
        if self.in_sanity_check and len(self.s.loaders("val")) > 1:
            self.batch = None
        else:
            super().last_batch()

    def log(self, hook: str) -> None:
        """For the mean of an epoch it has to be said what size a batch of the user's own type has."""
        if self.batch and self.s.data.batch == "custom":
            logs = [log for log in self.s.model.logs if log.hook == hook and not (log.batch_size or log.metric)]
            if any(log.averages and defaults(log)[1] for log in logs):
                raise UserError(OWN_WORDS)
        super().log(hook)

    # ---- another process --------------------------------------------------------------------------

    def bring_back(self, first: Calls, function: str) -> Events:
        """What was logged joins what was; where the trainer is is not brought back, and weights by a fit only."""
        self.logged.kept |= first.logged.known()
        if function == "fit":
            self.take_weights(first)
        yield from ()

    # ---- data -------------------------------------------------------------------------------------

    def dataloaders_of_fit(self) -> Events:
        """The validation loaders, too, if they are needed in the first epoch."""
        yield from super().dataloaders_of_fit()
        if self.another_epoch() and self.validates_epoch():
            yield from self.within(self.asks_in, self.dataloader("val"))

    def dataloader(self, stage: str) -> Events:
        """A part of a loader's batches that is none of them is an error."""
        yield from super().dataloader(stage)
        if self.is_too_little(stage):
            raise UserError(OWN_WORDS)

    def is_too_little(self, stage: str) -> bool:
        """Whether overfit_batches, which limits validations in any call, leaves no batch of a loader."""
        overfits = self.options["overfit_batches"]
        limited = stage in ("train", "val") and isinstance(overfits, float) and overfits > 0
        return limited and 0 in self.loaders(stage)
