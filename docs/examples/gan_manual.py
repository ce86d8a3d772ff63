"""The GAN of gan.py with manual optimization: every update written out.

    python docs/examples/gan_manual.py

With `automatic_optimization = False` a `training_step` runs once per batch and steps the optimizers itself.
This one makes the updates that gan.py leaves to the loops, in the same order and from the same random
numbers. Both are trained here, and all their weights must be equal, to the last bit.
"""

from __future__ import annotations

from typing import Any

import torch
from common import drawn, run
from digits import DigitsData
from gan import GAN, Batch, images, train


class ManualGAN(GAN):
    """Networks, losses and optimizers are those of GAN; its `optimizer_step` is not called."""

    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = False

    def training_step(self, batch: Batch, batch_idx: int) -> None:
        x, _ = batch
        generator, discriminator = self.optimizers()
        self.update(generator, 0, x.flatten(1))
        if (batch_idx + 1) % 2 == 0:
            self.update(discriminator, 1, x.flatten(1))

    def update(self, optimizer: torch.optim.Optimizer, optimizer_idx: int, real: torch.Tensor) -> None:
        """What the loops do for one optimizer of several."""
        self.toggle_optimizer(optimizer, optimizer_idx)  # only its parameters require gradients
        loss = self.loss(real, optimizer_idx)
        optimizer.zero_grad()
        self.manual_backward(loss)  # rather than loss.backward(): it takes care of the precision
        optimizer.step()
        self.untoggle_optimizer(optimizer_idx)


def main(**options: Any) -> None:
    data = DigitsData()
    automatic = train(GAN, data, epochs=20, **options)
    manual = train(ManualGAN, data, epochs=20, **options)
    weights = zip(automatic.state_dict().values(), manual.state_dict().values(), strict=True)
    equal = [torch.equal(one, other) for one, other in weights]
    print(drawn(images(manual, 6)))
    print(f"{sum(equal)} of {len(equal)} tensors of weights are equal")
    assert all(equal)


if __name__ == "__main__":
    run(main)
