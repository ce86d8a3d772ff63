"""A GAN that draws digits: two optimizers, and the documentation's alternating plan of their steps.

    python docs/examples/gan.py

A generator makes images out of noise; a discriminator learns to tell them from real ones. Each has its
optimizer, and the loops train both on every batch, but here an overridden `optimizer_step` lets the
discriminator step on every second batch only. Of 500 generated images it must be true that

- on average the nearest training image is less than 1.7 away (from a new real image it is 1.1 away, from
  random pixels 3.6), and
- these nearest images show all ten digits, each 5 times or more.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from common import drawn, run
from digits import DigitsData
from torch import nn

import refimpl as pl

NOISE = 16  # how many random numbers an image is made of
Batch = tuple[torch.Tensor, torch.Tensor]


def generator() -> nn.Sequential:
    """Noise of shape (batch, NOISE) to images of shape (batch, 64) in [0, 1]."""
    layers = [nn.Linear(NOISE, 128), nn.BatchNorm1d(128), nn.ReLU()]
    layers += [nn.Linear(128, 128), nn.BatchNorm1d(128), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(128, 64), nn.Sigmoid())


def discriminator() -> nn.Sequential:
    """Images of shape (batch, 64) to scores of shape (batch, 1), high for what looks real."""
    layers = [nn.Linear(64, 128), nn.LeakyReLU(0.2), nn.Linear(128, 128), nn.LeakyReLU(0.2)]
    return nn.Sequential(*layers, nn.Linear(128, 1))


class GAN(pl.LightningModule):
    """Optimizer 0 trains the generator, optimizer 1 the discriminator."""

    def __init__(self) -> None:
        super().__init__()
        self.generator, self.discriminator = generator(), discriminator()

    def forward(self, noise: torch.Tensor) -> torch.Tensor:
        return self.generator(noise)

    def training_step(self, batch: Batch, batch_idx: int, optimizer_idx: int) -> torch.Tensor:
        x, _ = batch
        return self.loss(x.flatten(1), optimizer_idx)

    def loss(self, real: torch.Tensor, optimizer_idx: int) -> torch.Tensor:
        """Cross entropy between what the discriminator says and what the optimizer's network wants it to
        say. Nothing is detached: only the current optimizer's parameters require gradients."""
        made = self.discriminator(self(torch.randn(len(real), NOISE, device=self.device)))
        if optimizer_idx == 0:
            loss = F.softplus(-made).mean()  # "real"
        else:
            loss = F.softplus(made).mean() + F.softplus(-self.discriminator(real)).mean()
        self.log(("generator_loss", "discriminator_loss")[optimizer_idx], loss, prog_bar=True)
        return loss

    def optimizer_step(
        self,
        epoch: int,
        batch_idx: int,
        optimizer: torch.optim.Optimizer,
        optimizer_idx: int,
        optimizer_closure: Callable[[], Any],
        on_tpu: bool,
        using_native_amp: bool,
        using_lbfgs: bool,
    ) -> None:
        """The closure runs `training_step`, `zero_grad` and `backward`: where it is not called, the
        optimizer sits this batch out."""
        if optimizer_idx == 0 or (batch_idx + 1) % 2 == 0:
            optimizer.step(closure=optimizer_closure)

    def configure_optimizers(self) -> list[torch.optim.Optimizer]:
        return [
            torch.optim.Adam(self.generator.parameters(), lr=0.001, betas=(0.5, 0.999)),
            torch.optim.Adam(self.discriminator.parameters(), lr=0.004, betas=(0.5, 0.999)),
        ]


Model = TypeVar("Model", bound=pl.LightningModule)


def train(make: Callable[[], Model], data: DigitsData, epochs: int, **options: Any) -> Model:
    """A model, made and trained from the same random numbers each time."""
    pl.seed_everything(1)
    model = make()
    trainer = pl.Trainer(max_epochs=epochs, limit_val_batches=0, **options)
    trainer.fit(model, datamodule=data)
    return model


def images(model: pl.LightningModule, count: int) -> torch.Tensor:
    """Images of shape (count, 64). Who calls a model himself puts it into eval mode himself, too."""
    model.eval()
    with torch.no_grad():
        return model(torch.randn(count, NOISE, device=model.device))


def judged(made: torch.Tensor, data: DigitsData) -> tuple[float, int]:
    """How far the nearest training image is on average, and how many digits these nearest ones show."""
    real, labels = (torch.stack(part) for part in zip(*((x.flatten(), y) for x, y in data.train)))
    distances, nearest = torch.cdist(made, real).min(dim=1)
    counts = labels[nearest].bincount(minlength=10)
    return distances.mean().item(), int((counts >= 5).sum())


def main(**options: Any) -> None:
    data = DigitsData()
    made = images(train(GAN, data, epochs=40, **options), 500)
    distance, digits = judged(made, data)
    print(drawn(made[:6]))
    print(f"500 images: {distance:.2f} away from a real one, {digits} digits")
    assert distance < 1.7
    assert digits == 10


if __name__ == "__main__":
    run(main)
