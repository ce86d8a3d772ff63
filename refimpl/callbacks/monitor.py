"""What EarlyStopping and ModelCheckpoint share: when they look at a logged value, and which of two is better."""

from __future__ import annotations

import math
from functools import partial
from typing import Any, ClassVar

from ..callback import Callback
from ..errors import one_of
from ..types import LightningModule, Trainer

__all__ = ["MonitorCallback"]


class MonitorCallback(Callback):
    """Looks at a logged value as a training epoch ends, or as each validation does: at the latter if there is not
    just one validation in an epoch, at its end, unless the option whose name is `_when` says which. It does so when the
    epoch, or the batch with its validation, is over: until then the module may log the value. [R44]

    `mode` is "min" if the value should fall, "max" if it should rise. Raises ConfigurationError for another.
    """

    _when: ClassVar[str]

    def __init__(self, mode: str) -> None:
        one_of(f"{type(self).__name__}: mode", mode, ("min", "max"))
        self.mode = mode

    def forget(self) -> None:
        """What it has seen was of another module. [R45]"""
        raise NotImplementedError

    def _look_soon(self, trainer: Trainer) -> None:
        if not trainer.fast_dev_run:
            trainer.run.progress.do_soon(partial(self._look, trainer, trainer.current_epoch))

    def _look(self, trainer: Trainer, epoch: int) -> None:
        raise NotImplementedError

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Look, if this is when."""
        if self._waits_for_the_epoch(trainer):
            self._look_soon(trainer)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Look, if this is when; not after the sanity check, and not in `validate`."""
        if trainer.state.fn == "fit" and not trainer.sanity_checking and not self._waits_for_the_epoch(trainer):
            self._look_soon(trainer)

    def _waits_for_the_epoch(self, trainer: Trainer) -> bool:
        asked: bool | None = getattr(self, self._when)
        if asked is not None:
            return asked
        once = type(trainer.val_check_interval) is float and trainer.val_check_interval == 1.0  # 1 counts batches
        return not trainer.enable_validation or (once and trainer.check_val_every_n_epoch == 1)

    def _rank(self, score: Any) -> float:
        """Smaller is better; NaN is the worst. [R80]"""
        value = float(score) if self.mode == "min" else -float(score)
        return math.inf if math.isnan(value) else value
