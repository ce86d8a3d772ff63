"""The other trainers that are installed (the extra "bench"), each doing what a row is about."""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn
from torch.nn.functional import mse_loss

from . import by_hand
from .engines import Engine
from .measure import Batches, Run
from .modules import TARGET, Plain, made
from .rows import ROWS

__all__ = ["peers"]


def peers() -> Iterator[tuple[str, Run, Run]]:
    """Name, what it runs, and the same by hand."""
    if _installed("pytorch_lightning"):
        import pytorch_lightning as pl

        logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
        engine = Engine(pl, accelerator="cpu", devices=1)
        for row in ROWS:
            if row.lightning:
                yield f"pytorch-lightning {pl.__version__}: {row.name}", row.run(engine), row.bare
    for name, train in (("ignite", ignite), ("skorch", skorch), ("accelerate", accelerate)):
        if _installed(name):
            version = importlib.import_module(name).__version__
            yield f"{name} {version}: training step", train, by_hand.train


def _installed(name: str) -> bool:
    return importlib.util.find_spec(name) is not None


def ignite(data: Batches) -> None:
    from ignite.engine import Engine

    module = made(Plain)
    optimizer = module.configure_optimizers()

    def step(engine: Any, batch: torch.Tensor) -> torch.Tensor:
        loss = module.training_step(batch, 0)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss.detach()

    Engine(step).run(data, max_epochs=1)


def skorch(data: Batches) -> None:
    from skorch import NeuralNet

    class Net(NeuralNet):  # type: ignore[misc]
        def get_iterator(self, dataset: Any, training: bool = False) -> Any:
            return ((batch, TARGET) for batch in dataset)

        def get_dataset(self, X: Any, y: Any = None) -> Any:
            return X

    sizes = {"module__in_features": 32, "module__out_features": 2}
    net = Net(nn.Linear, nn.MSELoss, train_split=None, lr=0.001, max_epochs=1, verbose=0, **sizes)
    net.initialize()
    net.fit(data, None)


def accelerate(data: Batches) -> None:
    from accelerate import Accelerator

    accelerator, module = Accelerator(cpu=True), made(Plain)
    layer, optimizer = accelerator.prepare(module.layer, module.configure_optimizers())
    for batch in data:
        loss = mse_loss(layer(batch), TARGET)
        optimizer.zero_grad()
        accelerator.backward(loss)
        optimizer.step()
