"""The progress bar: tqdm, in a terminal and in a notebook; and what a bar of one's own can be built on."""

from __future__ import annotations

import math
import sys
from collections import deque
from collections.abc import Iterator, Mapping
from functools import partialmethod
from typing import Any

import torch
from torch import Tensor
from tqdm.auto import tqdm

from ..callback import Callback, module_of
from ..errors import count
from ..types import LightningModule, Trainer

__all__ = ["ProgressBar", "ProgressBarBase"]

_SMOOTHED = 20  # losses whose mean is shown
# What the names of a bar and of its total have for each pass without gradients.
_EVALUATIONS: dict[Any, tuple[str, str]] = {
    "sanity_check": ("sanity", "val"), "validate": ("validation", "val"), "test": ("test", "test"),
    "predict": ("predict", "predict"),
}  # fmt: skip


class ProgressBarBase(Callback):
    """A bar that draws nothing: it counts, for one of your own, which takes the place of the trainer's `ProgressBar`.

    `train_batch_idx` is how many batches of the training epoch are done, `val_batch_idx`, `test_batch_idx` and
    `predict_batch_idx` how many of the evaluation that runs or ran last; `total_train_batches` and so on, how many
    there are, inf if nobody knows. A hook that is overridden has to call that of `super()`. `enable` and `disable` set
    `is_enabled`, which `ProgressBar` follows where a bar begins.
    """

    def __init__(self) -> None:
        self.is_enabled = True
        self.train_batch_idx = self._evaluated = 0
        self._losses: deque[Tensor] = deque(maxlen=_SMOOTHED)

    def enable(self) -> None:
        """Bars are drawn from now on."""
        self.is_enabled = True

    def disable(self) -> None:
        """No more bars are drawn."""
        self.is_enabled = False

    val_batch_idx = test_batch_idx = predict_batch_idx = property(lambda self: self._evaluated)
    total_train_batches = property(lambda self: self.trainer.num_training_batches)
    total_val_batches = property(lambda self: self._total("sanity_val" if self.trainer.sanity_checking else "val"))
    total_test_batches = property(lambda self: self._total("test"))
    total_predict_batches = property(lambda self: self._total("predict"))

    def _total(self, which: str) -> Any:
        return sum(getattr(self.trainer, f"num_{which}_batches"))

    @property
    def trainer(self) -> Trainer:
        """The trainer that runs, or ran last. Raises TypeError before the first run."""
        module = module_of(self)
        if module is None or module.trainer is None:
            raise TypeError(f"this {type(self).__name__} belongs to no trainer that runs; give it to one as a callback")
        return module.trainer

    @property
    def running_loss(self) -> float | None:
        """The mean of the last 20 training losses; None before the first."""
        return torch.stack([loss.float().cpu() for loss in self._losses]).mean().item() if self._losses else None

    def get_metrics(self, trainer: Trainer, pl_module: LightningModule) -> dict[str, Any]:
        """What stands behind the training bar."""
        return {**pl_module.get_progress_bar_dict(), **trainer.progress_bar_metrics}

    def print(self, *args: Any, **kwargs: Any) -> None:
        """Python's `print`, by which the trainer and the module print during a run."""
        print(*args, **kwargs)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """The losses of another fit are forgotten."""
        self._losses.clear()

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """No batch is done."""
        self.train_batch_idx = 0

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any,
                           batch_idx: int, dataloader_idx: int = 0) -> None:  # fmt: skip
        """One batch further."""
        self.train_batch_idx = batch_idx + 1
        if outputs.__class__ is Tensor and not outputs.ndim:
            self._losses.append(outputs)
        else:
            self._losses.extend(_losses(outputs))

    def _begin(self, *_: Any) -> None:
        self._evaluated = 0

    def _advance(self, *_: Any) -> None:
        self._evaluated += 1

    on_validation_start = on_test_start = on_predict_start = _begin  # type: ignore[assignment]
    on_validation_batch_end = on_test_batch_end = on_predict_batch_end = _advance  # type: ignore[assignment]


class ProgressBar(ProgressBarBase):
    """One bar per training epoch; below it one for a running validation, test or prediction.

    Behind the training bar stand the items of the module's `get_progress_bar_dict`, and what was logged with
    `prog_bar=True`; they are computed only when the bar is drawn, ten times a second at most, for that may have
    to wait for the device. `refresh_rate` is how many batches at least lie between two drawings. A subclass
    given to the trainer as a callback takes the place of this one; `init_train_tqdm`, `init_validation_tqdm` and so on
    make its bars.
    """

    def __init__(self, refresh_rate: int = 1) -> None:
        super().__init__()
        self.refresh_rate = count("ProgressBar: refresh_rate", refresh_rate, 1)
        self.main_progress_bar: tqdm[Any] | None = None
        self._evaluation: tqdm[Any] | None = None

    def __getstate__(self) -> dict[str, Any]:
        """A copy or a pickle leaves the open bars behind."""
        return {**vars(self), "main_progress_bar": None, "_evaluation": None}

    def print(self, *args: Any, file: Any = None, **kwargs: Any) -> None:
        """Print above the running bars; the arguments are those of Python's `print`."""
        with tqdm.external_write_mode(file or sys.stdout):
            print(*args, file=file, **kwargs)

    # ---- the bars --------------------------------------------------------------------------------

    def _bar(self, name: str, leave: bool = False) -> tqdm[Any]:
        return tqdm(desc=name, leave=leave, dynamic_ncols=True, miniters=self.refresh_rate, maxinterval=math.inf)

    def init_train_tqdm(self) -> tqdm[Any]:
        """The bar of an epoch; its length is set with the first batch, when it is known."""
        return self._bar(f"Epoch {self.trainer.current_epoch}", leave=True)

    init_sanity_tqdm = partialmethod(_bar, "Sanity check")
    init_validation_tqdm = partialmethod(_bar, "Validating")
    init_test_tqdm = partialmethod(_bar, "Testing")
    init_predict_tqdm = partialmethod(_bar, "Predicting")

    def _is_due(self, bar: tqdm[Any], done: int) -> bool:
        """Whether to draw, which is asked for each batch: tqdm itself takes longer to say no."""
        return bar._time() - bar.last_print_t >= bar.mininterval and done - bar.n >= self.refresh_rate  # type: ignore[no-any-return]

    def _draw(self, bar: tqdm[Any], done: int, total: float, metrics: Mapping[str, Any] | None = None) -> None:
        if bar.total is None and done and math.isfinite(total):
            start = bar.start_t
            bar.reset(total=int(total))
            bar.start_t = bar.last_print_t = start
        if metrics is not None:
            bar.set_postfix(metrics, refresh=False)
        bar.update(done - bar.n)

    # ---- training --------------------------------------------------------------------------------

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """A bar for the epoch."""
        super().on_train_epoch_start(trainer, pl_module)
        if self.is_enabled:
            self.main_progress_bar = self.init_train_tqdm()

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any,
                           batch_idx: int, dataloader_idx: int = 0) -> None:  # fmt: skip
        """One batch further."""
        super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)
        bar = self.main_progress_bar
        if bar is not None and self._is_due(bar, batch_idx + 1):
            self._draw(bar, batch_idx + 1, self.total_train_batches, self.get_metrics(trainer, pl_module))

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """The epoch's values stay on the screen."""
        if (bar := self.main_progress_bar) is not None:
            self._draw(bar, self.train_batch_idx, self.total_train_batches, self.get_metrics(trainer, pl_module))
            self._close("main_progress_bar")

    # ---- evaluation ------------------------------------------------------------------------------

    def _begin(self, trainer: Trainer, *_: Any) -> None:
        super()._begin()
        if self.is_enabled:
            self._evaluation = getattr(self, f"init_{_EVALUATIONS[trainer.stage][0]}_tqdm")()

    def _advance(self, trainer: Trainer, *_: Any) -> None:
        super()._advance()
        bar = self._evaluation
        if bar is not None and self._is_due(bar, self._evaluated):
            self._draw(bar, self._evaluated, getattr(self, f"total_{_EVALUATIONS[trainer.stage][1]}_batches"))

    def _close(self, which: str) -> None:
        if (bar := getattr(self, which)) is not None:
            bar.close()
            setattr(self, which, None)

    def _end(self, *_: Any) -> None:
        self._close("_evaluation")

    on_validation_start = on_test_start = on_predict_start = _begin
    on_validation_batch_end = on_test_batch_end = on_predict_batch_end = _advance
    on_validation_end = on_test_end = on_predict_end = _end  # type: ignore[assignment]

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Leave the terminal as it was."""
        self._close("_evaluation")
        self._close("main_progress_bar")


def _losses(outputs: Any) -> Iterator[Tensor]:
    """The losses in what `on_train_batch_end` is given, also of several optimizers."""
    if isinstance(outputs, list):
        for output in outputs:
            yield from _losses(output)
    loss = outputs.get("loss") if isinstance(outputs, Mapping) else outputs
    if isinstance(loss, Tensor) and loss.numel() == 1:
        yield loss.reshape(())


ProgressBarBase._kind = ProgressBarBase  # two bars would overwrite each other
