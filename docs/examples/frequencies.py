"""A Wasserstein GAN that draws digits: five batches for the critic, then one for the generator.

    python docs/examples/frequencies.py

Where optimizers have a `frequency`, each batch belongs to one of them. The plan is the documentation's last
example of `configure_optimizers`: algorithm 1 of "Improved Training of Wasserstein GANs" (arXiv:1704.00028),
whose penalty on the critic's gradient is here, too. Of 500 generated images it must be true that

- on average the nearest training image is less than 1.6 away (see gan.py), and
- these nearest images show all ten digits, each 5 times or more.
"""

from __future__ import annotations

from typing import Any

import torch
from common import drawn, run
from digits import DigitsData
from gan import NOISE, Batch, discriminator, generator, images, judged, train

import refimpl as pl


class WassersteinGAN(pl.LightningModule):
    """Optimizer 0 trains the critic, optimizer 1 the generator."""

    def __init__(self) -> None:
        super().__init__()
        self.generator, self.critic = generator(), discriminator()

    def forward(self, noise: torch.Tensor) -> torch.Tensor:
        return self.generator(noise)

    def training_step(self, batch: Batch, batch_idx: int, optimizer_idx: int) -> torch.Tensor:
        real = batch[0].flatten(1)
        made = self(torch.randn(len(real), NOISE, device=self.device))
        if optimizer_idx == 1:
            return -self.critic(made).mean()
        distance = self.critic(real).mean() - self.critic(made).mean()
        self.log("distance", distance, prog_bar=True)  # Wasserstein's, as far as the critic knows
        return self.penalty(real, made) - distance

    def penalty(self, real: torch.Tensor, made: torch.Tensor) -> torch.Tensor:
        """How far the critic's slope is from 1 on the way from real images to generated ones."""
        way = torch.rand(len(real), 1, device=self.device)
        between = (way * real + (1 - way) * made).requires_grad_()
        [slope] = torch.autograd.grad(self.critic(between).sum(), between, create_graph=True)
        return (slope.norm(dim=1) - 1).square().mean()

    def configure_optimizers(self) -> tuple[dict[str, Any], ...]:
        critic = torch.optim.Adam(self.critic.parameters(), lr=0.002, betas=(0.5, 0.9))
        generator = torch.optim.Adam(self.generator.parameters(), lr=0.004, betas=(0.5, 0.9))
        return {"optimizer": critic, "frequency": 5}, {"optimizer": generator, "frequency": 1}


def main(**options: Any) -> None:
    data = DigitsData()
    made = images(train(WassersteinGAN, data, epochs=60, **options), 500)
    distance, digits = judged(made, data)
    print(drawn(made[:6]))
    print(f"500 images: {distance:.2f} away from a real one, {digits} digits")
    assert distance < 1.6
    assert digits == 10


if __name__ == "__main__":
    run(main)
