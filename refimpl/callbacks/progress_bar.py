"""The progress bar: tqdm, in a terminal and in a notebook."""

from __future__ import annotations

import math
import sys
from collections import deque
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor
from tqdm.auto import tqdm

from ..callback import Callback
from ..types import LightningModule, Trainer

__all__ = ["ProgressBar"]


_SMOOTHED = 20  # losses whose mean is shown


class ProgressBar(Callback):
    """One bar per training epoch; below it one for a running validation, test or prediction.

    Behind the training bar stand the items of the module's `get_progress_bar_dict`, and what was logged with
    `prog_bar=True`; they are computed only when the bar is drawn, ten times a second at most, for that may have
    to wait for the device. `refresh_rate` is how many batches at least lie between two drawings. A subclass
    given to the trainer as a callback takes the place of this one.
    """

    def __init__(self, refresh_rate: int = 1) -> None:
        if type(refresh_rate) is not int or refresh_rate < 1:
            raise ValueError(f"refresh_rate={refresh_rate!r}; an int from 1 is accepted")
        self.refresh_rate = refresh_rate
        self._train: tqdm[Any] | None = None
        self._evaluation: tqdm[Any] | None = None
        self._losses: deque[Tensor] = deque(maxlen=_SMOOTHED)

    @property
    def running_loss(self) -> float | None:
        """The mean of the last 20 training losses; None before the first."""
        return torch.stack([loss.float().cpu() for loss in self._losses]).mean().item() if self._losses else None

    def _bar(self, name: str, leave: bool) -> tqdm[Any]:
        return tqdm(desc=name, leave=leave, dynamic_ncols=True, miniters=self.refresh_rate, maxinterval=math.inf)

    def get_metrics(self, trainer: Trainer, pl_module: LightningModule) -> dict[str, Any]:
        """What stands behind the training bar."""
        return {**pl_module.get_progress_bar_dict(), **trainer.progress_bar_metrics}

    def print(
        self, *args: Any, sep: str | None = None, end: str | None = None, file: Any = None, flush: bool = False
    ) -> None:
        """Print above the running bars; the arguments are those of Python's `print`."""
        tqdm.write((" " if sep is None else sep).join(map(str, args)), file, "\n" if end is None else end)
        if flush:
            (file or sys.stdout).flush()

    # ---- training --------------------------------------------------------------------------------

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """The losses of another fit are forgotten."""
        self._losses.clear()

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """A bar for the epoch; its length is known with the first batch."""
        self._train = self._bar(f"Epoch {trainer.current_epoch}", leave=True)

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int,
    ) -> None:
        """One batch further."""
        self._losses.extend(_losses(outputs))
        if self._train is None:
            return
        if batch_idx == 0 and math.isfinite(trainer.num_training_batches):
            self._train.reset(total=int(trainer.num_training_batches))
        if self._train.update():  # it was drawn
            self._train.set_postfix(self.get_metrics(trainer, pl_module))

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """The epoch's values stay on the screen."""
        if self._train is not None:
            self._train.set_postfix(self.get_metrics(trainer, pl_module))
            self._train.close()
            self._train = None

    # ---- evaluation ------------------------------------------------------------------------------

    def _open(self, name: str) -> None:
        self._evaluation = self._bar(name, leave=False)

    def _advance(self, trainer: Trainer, *_: Any) -> None:
        bar = self._evaluation
        if bar is None:
            return
        if bar.n == 0:  # the length is known with the first batch
            stage = "val" if trainer.validating or trainer.sanity_checking else str(trainer.stage)
            bar.reset(total=trainer.run.data.evaluated[stage].total)
        bar.update()

    def _close(self, *_: Any) -> None:
        if self._evaluation is not None:
            self._evaluation.close()
            self._evaluation = None

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """A bar for the validation."""
        self._open("Sanity check" if trainer.sanity_checking else "Validating")

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """A bar for the test."""
        self._open("Testing")

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """A bar for the prediction."""
        self._open("Predicting")

    on_validation_batch_end = on_test_batch_end = on_predict_batch_end = _advance  # type: ignore[assignment]
    on_validation_end = on_test_end = on_predict_end = _close  # type: ignore[assignment]

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Leave the terminal as it was."""
        self._close()
        if self._train is not None:
            self._train.close()
            self._train = None


def _losses(outputs: Any) -> Iterator[Tensor]:
    """The losses in what `on_train_batch_end` is given, also of several optimizers."""
    if isinstance(outputs, list):
        for output in outputs:
            yield from _losses(output)
    loss = outputs.get("loss") if isinstance(outputs, Mapping) else outputs
    if isinstance(loss, Tensor) and loss.numel() == 1:
        yield loss.reshape(())


ProgressBar._kind = ProgressBar  # two bars would overwrite each other
