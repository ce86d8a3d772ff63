"""The classifier of digits.py on any number of devices: the program is the same, what differs is how it is called.

    python docs/examples/devices.py                            # one device
    python docs/examples/devices.py --strategy dp --devices 3  # DP, on three parts of the CPU
    python docs/examples/devices.py --strategy ddp --devices 2 # DDP, in two processes
    torchrun --nproc_per_node 2 docs/examples/devices.py       # the same, started by torchrun
    python docs/examples/devices.py --accelerator gpu          # a GPU

Of each part of a batch, `training_step` returns the scores; the loss is computed in `training_step_end`, of the whole
batch. So every number of DP devices comes to the same weights, but for rounding. With DDP each process takes its share
of 32 samples at a time, so that all together make as many updates; they draw the samples in an order of their own. It
must be right about more than 93 % of the test images.
"""

from __future__ import annotations

import argparse
from typing import Any

import torch
import torch.nn.functional as F
from digits import DigitsData, LitDigits

import refimpl as pl


class ByParts(LitDigits):
    """The loss over the whole batch, of which a step may see a part."""

    def training_step(self, batch: tuple[torch.Tensor, torch.Tensor], batch_idx: int) -> dict[str, torch.Tensor]:
        x, y = batch
        return {"scores": self(x), "y": y}

    def training_step_end(self, outputs: Any) -> torch.Tensor:
        loss = F.cross_entropy(outputs["scores"], outputs["y"])
        self.log("train_loss", loss, prog_bar=True)
        return loss

    def test_step(self, batch: tuple[torch.Tensor, torch.Tensor], batch_idx: int) -> None:
        x, y = batch
        self.log("test_acc", (self(x).argmax(dim=1) == y).double().mean(), sync_dist=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--strategy", help="such as dp")
    parser.add_argument("--accelerator", default="cpu", help="cpu or gpu")
    parser.add_argument("--devices", type=int, help="how many; 1, or as many processes as torchrun has started")
    where = vars(parser.parse_args())

    torch.set_num_threads(1)
    pl.seed_everything(3)
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    trainer = pl.Trainer(max_epochs=8, enable_model_summary=False, **quiet, **where)
    model, data = ByParts(), DigitsData(batch_size=32 // trainer.world_size)
    trainer.fit(model, datamodule=data)
    [tested] = trainer.test(model, datamodule=data, verbose=False)
    weights = sum(parameter.double().abs().sum().item() for parameter in model.parameters())
    if trainer.is_global_zero:
        count = trainer.num_devices * trainer.world_size
        print(f"{count} devices: weights {weights:.4f}, test accuracy {tested['test_acc']:.3f}")
    assert tested["test_acc"] > 0.93


if __name__ == "__main__":
    main()
