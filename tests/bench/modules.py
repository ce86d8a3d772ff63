"""What is trained: `Linear(32, 2)` on batches of shape (4, 32), with SGD, so that what is seen is the loop around it.

The classes here are mixins: `made` puts them on any base with Lightning's interface, or on `nn.Module`.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import mse_loss

__all__ = ["Evaluated", "LogsOne", "LogsTen", "Pieces", "Plain", "TwelveHooks", "TwoOptimizers", "Watching", "made"]

TARGET = torch.zeros(4, 2)
NAMES = [f"value_{number}" for number in range(10)]


@cache
def _class(kind: type, base: type) -> type:
    return type(kind.__name__, (kind, base), {})


def made(kind: type, base: type = nn.Module) -> Any:
    """An instance of one of the classes here, on that base."""
    return _class(kind, base)()


class Plain:
    """Nothing overridden but what every module defines."""

    features = 32

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(self.features, 2)

    def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        return mse_loss(self.layer(batch), TARGET)

    def configure_optimizers(self: Any) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.001)


class Evaluated(Plain):
    """The same step without gradients."""

    validation_step = predict_step = Plain.training_step


class TwelveHooks(Plain):
    """All twelve hooks of a batch overridden, each as short as can be."""

    def on_train_batch_start(self, batch: Any, batch_idx: int, dataloader_idx: int) -> None:
        return None

    def on_before_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        return batch

    def transfer_batch_to_device(self, batch: Any, device: Any, dataloader_idx: int) -> Any:
        return batch

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        return batch

    def on_before_zero_grad(self, optimizer: Any) -> None:
        return None

    def optimizer_zero_grad(self, epoch: int, batch_idx: int, optimizer: Any, optimizer_idx: int) -> None:
        optimizer.zero_grad()

    def on_before_backward(self, loss: Any) -> None:
        return None

    def backward(self, loss: Any, optimizer: Any, optimizer_idx: Any) -> None:
        loss.backward()

    def on_after_backward(self) -> None:
        return None

    def on_before_optimizer_step(self, optimizer: Any, optimizer_idx: int) -> None:
        return None

    def optimizer_step(self, *args: Any) -> None:
        args[2].step(closure=args[4])

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int, dataloader_idx: int) -> None:
        return None


class LogsOne(Plain):
    """One value logged per step, for the step and for the epoch."""

    def training_step(self: Any, batch: Tensor, batch_idx: int) -> Tensor:
        loss = mse_loss(self.layer(batch), TARGET)
        self.log("loss", loss, on_step=True, on_epoch=True)
        return loss


class LogsTen(Plain):
    """Ten values logged per step, each for the step and for the epoch."""

    def training_step(self: Any, batch: Tensor, batch_idx: int) -> Tensor:
        loss = mse_loss(self.layer(batch), TARGET)
        for name in NAMES:
            self.log(name, loss, on_step=True, on_epoch=True)
        return loss


class TwoOptimizers(Plain):
    """Two layers, each with an optimizer of its own, both in one loss, as generator and discriminator are."""

    def __init__(self) -> None:
        super().__init__()
        self.second = nn.Linear(2, 2)

    def training_step(self, batch: Tensor, batch_idx: int, optimizer_idx: int) -> Tensor:
        return mse_loss(self.second(self.layer(batch)), TARGET)

    def configure_optimizers(self) -> Any:
        return [torch.optim.SGD(part.parameters(), lr=0.001) for part in (self.layer, self.second)]


class Pieces(Plain):
    """The batch is a sequence of 32 steps of time, trained on in four pieces of shape (4, 8)."""

    features = truncated_bptt_steps = 8

    def training_step(self, batch: Tensor, batch_idx: int, hiddens: Tensor | None) -> dict[str, Tensor]:
        hidden = self.layer(batch) if hiddens is None else self.layer(batch) + hiddens
        return {"loss": mse_loss(hidden, TARGET), "hiddens": hidden}


class Watching:
    """A callback with two hooks of a batch, each as short as can be."""

    def on_train_batch_start(self, *args: Any) -> None:
        return None

    def on_train_batch_end(self, *args: Any) -> None:
        return None
