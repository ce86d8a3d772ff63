"""Mixed precision: the classifier of digits.py in 32 bits, and with its steps in 16.

    python docs/examples/mixed_precision.py

On a GPU the second training runs at precision 16: float16, with a scaled loss so that small gradients do
not vanish. Elsewhere it runs at "bf16": bfloat16, which needs no scale, for it has the range of float32.
Weights and optimizer stay in float32. Both trainings must be right about more than 93 % of the test images.
"""

from __future__ import annotations

from typing import Any

import torch
from common import run
from digits import DigitsData, LitDigits

import refimpl as pl


class Watched(LitDigits):
    """Notes which numbers the scores are made of."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        scores = super().forward(x)
        self.computed_in = scores.dtype
        return scores


def main(**options: Any) -> None:
    for precision in (32, 16 if torch.cuda.is_available() else "bf16"):
        pl.seed_everything(1)
        model, data = Watched(), DigitsData()
        trainer = pl.Trainer(max_epochs=15, precision=precision, accelerator="auto", **options)
        trainer.fit(model, datamodule=data)
        [tested] = trainer.test(model, datamodule=data)
        print(
            f"precision {precision}: weights in {model.l1.weight.dtype}, scores in {model.computed_in}, "
            f"test accuracy {tested['test_acc']:.3f}"
        )
        assert tested["test_acc"] > 0.93


if __name__ == "__main__":
    run(main)
