"""Precision: what the steps compute in."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from models import Batches, quiet
from torch import nn

from refimpl import LightningModule
from refimpl.precision import in_precision

CPU = torch.device("cpu")


class Layer(LightningModule):
    """Notes the type of what its layer computes, in the steps and around them."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(2, 1)
        self.types: dict[str, torch.dtype] = {}

    def note(self, hook: str, batch: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.layer(batch)
        self.types[hook] = out.dtype
        return out.float().sum()

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        return self.note("training_step", batch)

    def validation_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> Any:
        return self.note("validation_step", batch)

    def test_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> Any:
        return self.note("test_step", batch)

    def predict_step(self, batch: Any, batch_idx: int, dataloader_idx: int | None = None) -> Any:
        return self.note("predict_step", batch)

    def on_train_batch_start(self, batch: Any, batch_idx: int, dataloader_idx: int) -> None:
        self.note("on_train_batch_start", batch)

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.1)


STEPS = ("training_step", "validation_step", "test_step", "predict_step")


@pytest.mark.parametrize("precision, expected", [(32, torch.float32), ("bf16", torch.bfloat16)])
def test_the_steps_and_only_they_compute_in_it(precision: Any, expected: torch.dtype) -> None:
    module, loader = Layer(), Batches([torch.ones(3, 2)] * 2)
    trainer = quiet(precision=precision)
    assert trainer.use_amp is (precision != 32)
    trainer.fit(module, loader, loader)
    trainer.test(module, loader)
    trainer.predict(module, loader)
    assert {module.types[step] for step in STEPS} == {expected}
    assert module.types["on_train_batch_start"] == torch.float32
    assert {parameter.dtype for parameter in module.parameters()} == {torch.float32}
    assert all(p.grad is not None and p.grad.dtype == torch.float32 for p in module.parameters())
    assert not torch.equal(module.layer.weight, torch.zeros(1, 2))
    assert not torch.is_autocast_enabled("cpu")


def test_at_32_a_step_is_itself() -> None:
    assert in_precision(max, 32, CPU) is max
    assert in_precision(max, "bf16", CPU)(1, 2) == 2
