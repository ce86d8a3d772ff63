"""Digits read row by row: an LSTM with truncated backpropagation through time.

    python docs/examples/lstm.py

An image is a sequence of 8 rows of 8 pixels. Training cuts it into pieces of 2 rows, makes an update after
each, and hands the hidden states on from one piece to the next. ("truncated_bptt_steps") So the model
learns to name the digit after 2, 4, 6 and 8 rows. Having read all of them it must be right about more than
88 % of the test images, and having read half of them about more than 75 %.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from common import run
from digits import DigitsData
from torch import nn

import refimpl as pl

Batch = tuple[torch.Tensor, torch.Tensor]
Hiddens = tuple[torch.Tensor, torch.Tensor]


class Reader(pl.LightningModule):
    """Rows x of shape (batch, time, 8); labels y of shape (batch,)."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(input_size=8, hidden_size=64, batch_first=True)  # time is dimension 1
        self.head = nn.Linear(64, 10)
        self.truncated_bptt_steps = 2

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        """Images become sequences: (batch, 1, 8, 8) to (batch, 8, 8). The cut into pieces comes after this."""
        x, y = batch
        return x.squeeze(1), y

    def forward(self, x: torch.Tensor, hiddens: Hiddens | None = None) -> tuple[torch.Tensor, Hiddens]:
        """The scores after each row, of shape (batch, time, 10), and the hidden states after the last."""
        out, hiddens = self.lstm(x, hiddens)
        return self.head(out), hiddens

    def training_step(self, batch: Batch, batch_idx: int, hiddens: Hiddens | None) -> dict[str, Any]:
        """One piece: x of shape (batch, 2, 8), and all of y, which has no time. `hiddens` is None for the
        first piece of a batch, and then what the piece before returned, detached."""
        x, y = batch
        scores, hiddens = self(x, hiddens)
        return {"loss": F.cross_entropy(scores[:, -1], y), "hiddens": hiddens}

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Evaluation reads whole sequences; nothing is cut where nothing is learnt."""
        x, y = batch
        scores, _ = self(x)
        self.log("val_loss", F.cross_entropy(scores[:, -1], y), prog_bar=True)

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        x, y = batch
        scores, _ = self(x)
        for rows in (2, 4, 6, 8):
            self.log(f"after_{rows}_rows", (scores[:, rows - 1].argmax(dim=1) == y).float().mean())

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), lr=0.005)


def main(**options: Any) -> None:
    pl.seed_everything(1)
    model, data = Reader(), DigitsData()
    trainer = pl.Trainer(max_epochs=20, **options)
    trainer.fit(model, datamodule=data)
    [tested] = trainer.test(model, datamodule=data)
    print(", ".join(f"{name.replace('_', ' ')} {accuracy:.3f}" for name, accuracy in tested.items()))
    assert tested["after_8_rows"] > 0.88
    assert tested["after_4_rows"] > 0.75


if __name__ == "__main__":
    run(main)
