"""LearningRateMonitor: the learning rates, beside what is logged."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch.optim import Optimizer

from ..callback import Callback
from ..errors import ConfigurationError, one_of
from ..types import LightningModule, Trainer

__all__ = ["LearningRateMonitor"]


class LearningRateMonitor(Callback):
    """Gives the loggers the learning rate of each optimizer, as `lr-SGD`. ("configure_optimizers", lr_dict)

    The name is that of the optimizer's class, or the `name` in the `lr_dict` of its scheduler. A second one of
    that name is `lr-SGD-1`; of several parameter groups each has its own, `lr-SGD/pg1`, `lr-SGD/pg2`, or
    what its key "name" says.

    Args:
        logging_interval: "step" for every `log_every_n_steps` steps, "epoch" for the beginning of each epoch;
            None for that which the scheduler steps in, and the epoch where there is no scheduler.
        log_momentum: the momentum, too, or Adam's first beta, as `lr-SGD-momentum`.

    `lrs` holds the rates that it has given so far, a list by name, `last_momentum_values` the latest momentum by name,
    `lr_sch_names` the name of each optimizer.

    Raises ConfigurationError for another interval, and, as training starts, where there is no logger.
    """

    def __init__(self, logging_interval: str | None = None, log_momentum: bool = False) -> None:
        one_of("LearningRateMonitor: logging_interval", logging_interval, ("step", "epoch", None))
        self.logging_interval, self.log_momentum = logging_interval, log_momentum
        self.lrs: dict[str, list[float]] = {}
        self.last_momentum_values: dict[str, float] = {}
        self.lr_sch_names: list[str] = []

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Look at the optimizers and their schedules."""
        if not trainer.loggers:
            raise ConfigurationError("LearningRateMonitor needs a logger, and this Trainer has logger=False")
        self.lrs, self.last_momentum_values, self._step = {}, {}, 0
        own = [[each for each in trainer.lr_schedulers if each["opt_idx"] == i] for i in range(len(trainer.optimizers))]
        by_step = [any(schedule["interval"] == "step" for schedule in schedules) for schedules in own]
        self._intervals = [self.logging_interval or ("step" if steps else "epoch") for steps in by_step]
        self.lr_sch_names = _names(trainer.optimizers, own)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """The rates of the epoch that begins."""
        self._give(trainer, "epoch")

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any,
                             batch_idx: int, dataloader_idx: int) -> None:  # fmt: skip
        """The rates of the step that begins, if it is one that is logged."""
        step = trainer.global_step + 1
        if step % trainer.log_every_n_steps == 0 and step != self._step:  # which may be of several batches
            self._step = step
            self._give(trainer, "step")

    def _give(self, trainer: Trainer, interval: str) -> None:
        rates: dict[str, float] = {}
        momenta: dict[str, float] = {}
        for optimizer, name, own in zip(trainer.optimizers, self.lr_sch_names, self._intervals):
            groups = optimizer.param_groups if own == interval else []
            for number, group in enumerate(groups, 1):
                shown = name if len(groups) == 1 else f"{name}/{group.get('name', f'pg{number}')}"
                rates[shown] = float(group["lr"])
                if self.log_momentum:
                    momenta[f"{shown}-momentum"] = float(group.get("momentum", group.get("betas", (0.0,))[0]))
        for name, rate in rates.items():
            self.lrs.setdefault(name, []).append(rate)
        self.last_momentum_values.update(momenta)
        for logger in trainer.loggers if rates else ():
            logger.log_metrics({"epoch": trainer.current_epoch, **rates, **momenta}, trainer.global_step)


def _names(optimizers: Sequence[Optimizer], schedules: Sequence[Sequence[Mapping[str, Any]]]) -> list[str]:
    """A name for each optimizer, no two alike."""
    names: list[str] = []
    for optimizer, own in zip(optimizers, schedules):
        name = next((each["name"] for each in own if each["name"]), f"lr-{type(optimizer).__name__}")
        again = sum(other == name or other.startswith(f"{name}-") for other in names)
        names.append(f"{name}-{again}" if again else name)
    return names
