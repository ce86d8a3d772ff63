"""An autoencoder of handwritten digits: the documentation's, from training to inference.

    python docs/examples/autoencoder.py

The encoder squeezes an image of 64 pixels into 8 numbers, its embedding, from which the decoder restores
the image. Nobody tells it which digit is which. On the test images it must reach

- a mean squared error of the restored pixels below 0.02 (the mean image has 0.07), and
- an accuracy above 80 % where each image counts as the digit whose mean embedding is the nearest.
"""

from __future__ import annotations

from typing import Any

import torch
from common import drawn, run
from digits import DigitsData
from torch import nn
from torch.utils.data import DataLoader

import refimpl as pl

Batch = tuple[torch.Tensor, torch.Tensor]


class Autoencoder(pl.LightningModule):
    """("Inference in research") An embedding is a row of `latent_dim` numbers."""

    def __init__(self, latent_dim: int = 8) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(8 * 8, 128), nn.ReLU(), nn.Linear(128, latent_dim))
        self.decoder = nn.Sequential(nn.Linear(latent_dim, 128), nn.ReLU(), nn.Linear(128, 8 * 8))

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        """What the model is for, apart from its training: images out of embeddings."""
        return self.decoder(z)

    def training_step(self, batch: Batch, batch_idx: int) -> torch.Tensor:
        return self.shared_step(batch)

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        self.log("val_loss", self.shared_step(batch), prog_bar=True)

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        self.log("test_loss", self.shared_step(batch))

    def predict_step(self, batch: Batch, batch_idx: int, dataloader_idx: int | None = None) -> torch.Tensor:
        """The embeddings, of shape (batch, latent_dim); without this method it would be `self(batch)`."""
        x, _ = batch
        return self.encoder(x.flatten(1))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), lr=0.002)

    def shared_step(self, batch: Batch) -> torch.Tensor:
        """The reconstruction error; a name of our own, used by all loops."""
        x, _ = batch
        x = x.flatten(1)
        return nn.functional.mse_loss(self(self.encoder(x)), x)


def labels(loader: DataLoader) -> torch.Tensor:
    """The labels y of all of a loader's batches."""
    return torch.cat([y for _, y in loader])


def main(**options: Any) -> None:
    pl.seed_everything(1)
    model, data = Autoencoder(), DigitsData()
    trainer = pl.Trainer(max_epochs=40, **options)
    trainer.fit(model, datamodule=data)
    [tested] = trainer.test(model, datamodule=data)

    # Embeddings of the training images, whose means stand for the ten digits, and of the test images,
    # which are what the data module has to predict.
    known = DataLoader(data.train, batch_size=100)
    embedded, digits = torch.cat(trainer.predict(model, known)), labels(known)
    centres = torch.stack([embedded[digits == digit].mean(dim=0) for digit in range(10)])
    nearest = torch.cdist(torch.cat(trainer.predict(model, data)), centres).argmin(dim=1)
    accuracy = (nearest == labels(data.predict_dataloader())).float().mean().item()

    model.freeze()
    images = model(centres)
    assert not images.requires_grad  # a frozen model builds no graph
    print(drawn(images[:5]), drawn(images[5:]), sep="\n")

    print(f"reconstruction error {tested['test_loss']:.4f}, accuracy of the nearest mean {accuracy:.3f}")
    assert tested["test_loss"] < 0.02
    assert accuracy > 0.8


if __name__ == "__main__":
    run(main)
