"""A classifier of handwritten digits, written as the documentation's minimal example.

    python docs/examples/digits.py                      # trains, validates, tests, predicts
    python docs/examples/digits.py --trace digits.jsonl # ... and records what happens
    python -m conformance check digits.jsonl            # judges that trace

The data is scikit-learn's bundled set: 1797 grey images of 8 x 8 pixels (install the extra
`examples`). It reaches over 95 % of the test images in well under a minute on two cores.
"""

from __future__ import annotations

import argparse
from contextlib import nullcontext

import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset, random_split

import refimpl as pl


class DigitsData(pl.LightningDataModule):
    """Images x of shape (batch, 1, 8, 8), float32 in [0, 1]; labels y of shape (batch,), int64."""

    def __init__(self, batch_size: int = 32) -> None:
        self.batch_size = batch_size

    def setup(self, stage: str | None = None) -> None:
        digits = load_digits()
        x = torch.tensor(digits.images, dtype=torch.float32).unsqueeze(1) / 16
        y = torch.tensor(digits.target)
        parts = torch.Generator().manual_seed(0)
        self.train, self.val, self.test = random_split(TensorDataset(x, y), [1197, 300, 300], parts)

    def train_dataloader(self) -> DataLoader:
        return DataLoader(self.train, batch_size=self.batch_size, shuffle=True)

    def val_dataloader(self) -> DataLoader:
        return DataLoader(self.val, batch_size=100)

    def test_dataloader(self) -> DataLoader:
        return DataLoader(self.test, batch_size=100)

    def predict_dataloader(self) -> DataLoader:
        return DataLoader(self.test, batch_size=100)


class LitDigits(pl.LightningModule):
    """One hidden layer, cross entropy, Adam."""

    def __init__(self) -> None:
        super().__init__()
        self.l1 = nn.Linear(8 * 8, 64)
        self.l2 = nn.Linear(64, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.l2(torch.relu(self.l1(x.view(x.size(0), -1))))

    def training_step(self, batch: tuple[torch.Tensor, torch.Tensor], batch_idx: int) -> torch.Tensor:
        x, y = batch
        loss = F.cross_entropy(self(x), y)
        self.log("train_loss", loss, on_step=True, on_epoch=True, prog_bar=True)
        return loss

    def validation_step(self, batch: tuple[torch.Tensor, torch.Tensor], batch_idx: int) -> None:
        self._log_metrics(batch, "val")

    def test_step(self, batch: tuple[torch.Tensor, torch.Tensor], batch_idx: int) -> None:
        self._log_metrics(batch, "test")

    def predict_step(self, batch: tuple[torch.Tensor, torch.Tensor], batch_idx: int) -> torch.Tensor:
        x, _ = batch
        return self(x).argmax(dim=1)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), lr=0.005)

    def _log_metrics(self, batch: tuple[torch.Tensor, torch.Tensor], name: str) -> None:
        x, y = batch
        scores = self(x)
        accuracy = (scores.argmax(dim=1) == y).float().mean()
        self.log_dict({f"{name}_loss": F.cross_entropy(scores, y), f"{name}_acc": accuracy}, prog_bar=True)


def scenario(epochs: int) -> dict:
    """What a run consists of, for a trace of it: numbers of batches, calls and options."""
    return {
        "name": "digits",
        "calls": ["fit", "test", "predict"],
        "callbacks": 0,
        "data": {"train": 38, "val": [3], "test": [3], "predict": [3], "source": "datamodule"},
        "model": {"eval_returns": "none"},
        "trainer": {"max_epochs": epochs, "num_sanity_val_steps": 2},
    }


def main() -> float:
    """Train and report; returns the accuracy on the test images, from 0 to 1."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--epochs", type=int, default=15)
    parser.add_argument("--no-bar", action="store_true", help="no progress bar and no summary")
    parser.add_argument("--trace", metavar="FILE", help="record every hook in FILE")
    arguments = parser.parse_args()

    pl.seed_everything(2)
    model, data = LitDigits(), DigitsData()
    quiet = {"enable_progress_bar": False, "enable_model_summary": False} if arguments.no_bar else {}
    trainer = pl.Trainer(max_epochs=arguments.epochs, **quiet)
    recording = nullcontext()
    if arguments.trace:
        from conformance.observe import observing

        recording = observing(arguments.trace, scenario(arguments.epochs), trainer, model, data)
    with recording:
        trainer.fit(model, datamodule=data)
        [tested] = trainer.test(model, datamodule=data)
        predicted = torch.cat(trainer.predict(model, data))
    print(
        f"test accuracy {tested['test_acc']:.3f}, loss {tested['test_loss']:.3f}; "
        f"predicted {predicted[:10].tolist()} ..."
    )
    return tested["test_acc"]


if __name__ == "__main__":
    main()
