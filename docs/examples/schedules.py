"""Learning rates on schedules: cyclic, step by step, and on a plateau, epoch by epoch.

    python docs/examples/schedules.py

The classifier of digits.py is trained twice.

- `CyclicLR` with the interval "step" moves the rate up for an epoch's 38 steps and down for 38. The rates
  that were used must be those of a formula, at every step.
- `ReduceLROnPlateau` divides the rate by 4 after 2 epochs without a better val_loss, and `EarlyStopping`
  ends the training after 5. The rates must be those that follow by this rule from the losses that were
  logged; two or more must have been used, and training must have ended before its 100 epochs.

Both must be right about more than 93 % of the test images.
"""

from __future__ import annotations

import csv
import math
from itertools import groupby
from typing import Any

import torch
from common import run
from digits import DigitsData, LitDigits
from torch.optim.lr_scheduler import CyclicLR, ReduceLROnPlateau

import refimpl as pl

STEPS = 38  # in an epoch: 1197 images in batches of 32
LOW, HIGH = 0.02, 0.5


class Cyclic(LitDigits):
    """Low rates find a minimum, high ones leave it for a wider one."""

    def configure_optimizers(self) -> dict[str, Any]:
        optimizer = torch.optim.SGD(self.parameters(), lr=LOW)
        scheduler = CyclicLR(optimizer, base_lr=LOW, max_lr=HIGH, step_size_up=STEPS, cycle_momentum=False)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step", "name": "rate"}}


class Plateau(LitDigits):
    """The interval is "epoch" where nothing is said; `monitor` is a name that was given to `self.log`."""

    def configure_optimizers(self) -> dict[str, Any]:
        optimizer = torch.optim.SGD(self.parameters(), lr=HIGH)
        scheduler = ReduceLROnPlateau(optimizer, factor=0.25, patience=1, threshold=0)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "monitor": "val_loss", "name": "rate"}}


def on_cycle(step: int) -> float:
    """The rate of a step, from 0: a triangle wave from LOW to HIGH."""
    return LOW + (HIGH - LOW) * (1 - abs(step % (2 * STEPS) - STEPS) / STEPS)


def on_plateau(losses: list[float]) -> list[float]:
    """The rate of each epoch, given the losses at their ends."""
    rates, best, waited = [HIGH], math.inf, 0
    for loss in losses[:-1]:
        best, waited = (loss, 0) if loss < best else (best, waited + 1)
        rates.append(rates[-1] * 0.25 if waited == 2 else rates[-1])
        waited %= 2
    return rates


def train(kind: type[LitDigits], epochs: int, callbacks: list[pl.Callback], **options: Any) -> pl.Trainer:
    """The trainer that has trained and tested a model; its logger has the values of every step."""
    pl.seed_everything(1)
    logger = pl.CSVLogger(options["default_root_dir"], name=kind.__name__)
    options |= {"logger": logger, "log_every_n_steps": 1, "callbacks": callbacks}
    trainer = pl.Trainer(max_epochs=epochs, **options)
    model, data = kind(), DigitsData()
    trainer.fit(model, datamodule=data)
    [tested] = trainer.test(model, datamodule=data)
    print(f"{kind.__name__}: test accuracy {tested['test_acc']:.3f}")
    assert tested["test_acc"] > 0.93
    return trainer


def logged(trainer: pl.Trainer, name: str) -> list[float]:
    """The values under this name in the table that the logger has written."""
    with trainer.logger.path.open(newline="") as table:
        return [float(row[name]) for row in csv.DictReader(table) if row.get(name)]


def curve(values: list[float]) -> str:
    """A character for each value, higher for a higher one."""
    bars, top = "▁▂▃▄▅▆▇█", max(values)
    return "".join(bars[round(value / top * (len(bars) - 1))] for value in values)


def main(**options: Any) -> None:
    rates = logged(train(Cyclic, 8, [pl.LearningRateMonitor()], **options), "rate")
    print(f"  rates, every 4th step  {curve(rates[::4])}")
    assert len(rates) == 8 * STEPS
    assert all(math.isclose(rate, on_cycle(step)) for step, rate in enumerate(rates))

    stopping = pl.EarlyStopping("val_loss", patience=5)
    trainer = train(Plateau, 100, [pl.LearningRateMonitor(), stopping], **options)
    rates, losses = logged(trainer, "rate"), logged(trainer, "val_loss")
    print(f"  losses by epoch  {curve(losses)}")
    print("  rates, times epochs  " + ", ".join(f"{rate:g} x {len(list(epochs))}" for rate, epochs in groupby(rates)))
    assert rates == on_plateau(losses)
    assert len(set(rates)) > 1
    assert len(losses) < 100
    assert losses.index(min(losses)) == stopping.stopped_epoch - 5


if __name__ == "__main__":
    run(main)
