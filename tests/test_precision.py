"""Precision: what the steps compute in."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from models import Batches, quiet
from torch import nn

from refimpl import ConfigurationError, LightningModule
from refimpl.optimizers.precision import in_precision

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


def test_float64_casts_the_module_the_batch_and_what_a_step_makes() -> None:
    class Doubled(Layer):
        def on_train_batch_start(self, batch: Any, batch_idx: int, dataloader_idx: int) -> None:
            assert batch["x"].dtype == torch.float32

        def training_step(self, batch: Any, batch_idx: int) -> Any:
            assert batch["x"].dtype == torch.float64 and batch["n"].dtype == torch.int64
            assert torch.ones(1).dtype == torch.float64
            return self.note("training_step", batch["x"])

    module, trainer = Doubled(), quiet(precision="64", limit_val_batches=0)
    trainer.fit(module, Batches([{"x": torch.ones(3, 2), "n": torch.ones(1, dtype=torch.int64)}]))
    assert not trainer.use_amp
    assert module.types["training_step"] == torch.float64
    assert {parameter.dtype for parameter in module.parameters()} == {torch.float64}
    assert torch.get_default_dtype() == torch.float32


class Scaled(Layer):
    """Its gradient overflows in the steps of `overflows`."""

    def __init__(self, overflows: tuple[int, ...] = ()) -> None:
        super().__init__()
        self.overflows = overflows
        self.seen: list[tuple[float, float]] = []
        self.before: list[float] = []  # gradients that are still scaled
        self.raw = self.rate_steps = 0.0

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        loss = self.layer(batch).float().mean() / 2  # times the first scale just within float16
        self.raw = float(loss.detach())
        return loss * (float("inf") if batch_idx in self.overflows else 1.0)

    def on_before_backward(self, loss: Any) -> None:
        self.scaled = float(loss.detach())

    def on_after_backward(self) -> None:
        assert self.layer.weight.grad is not None
        self.before.append(float(self.layer.weight.grad.abs().max()))

    def on_before_optimizer_step(self, optimizer: Any, optimizer_idx: int) -> None:
        assert self.layer.weight.grad is not None
        self.seen.append((self.scaled / self.raw, float(self.layer.weight.grad.abs().max())))

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.SGD(self.parameters(), lr=0.1, momentum=0.9, weight_decay=0.1)
        return [optimizer], [{"scheduler": torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.5), "interval": "step"}]


def test_float16_scales_the_loss_and_unscales_the_gradients() -> None:
    module = Scaled()
    trainer = quiet(precision=16, limit_val_batches=0)
    trainer.fit(module, Batches([torch.ones(3, 2)] * 2))
    assert trainer.use_amp
    assert module.before == [0.5 * 65536] * 2
    assert module.seen == [(65536.0, 0.5)] * 2
    assert trainer.optimizers[0].param_groups[0]["lr"] == 0.1 * 0.25


def test_a_step_that_overflows_is_skipped_and_the_scale_halved() -> None:
    module, clean = Scaled((0, 2)), Scaled()
    clean.load_state_dict(module.state_dict())
    trainer = quiet(precision=16, limit_val_batches=0)
    trainer.fit(module, Batches([torch.ones(3, 2)] * 4))
    quiet(precision=16, limit_val_batches=0).fit(clean, Batches([torch.ones(3, 2)] * 2))
    assert torch.equal(module.layer.weight, clean.layer.weight)  # momentum, decay and rate as if it was not there
    assert trainer.optimizers[0].param_groups[0]["lr"] == 0.1 * 0.25
    assert [scale for scale, _ in module.seen[1::2]] == [32768.0, 16384.0]
    assert trainer.global_step == 4


def test_float16_and_none_or_lbfgs_do_not_go_together() -> None:
    class Nothing(Scaled):
        def training_step(self, batch: Any, batch_idx: int) -> Any:
            return None

    with pytest.raises(ConfigurationError, match="returned None, which precision=16 does not support"):
        quiet(precision=16, limit_val_batches=0).fit(Nothing(), Batches([torch.ones(3, 2)]))

    class Second(Scaled):
        def configure_optimizers(self) -> Any:
            return torch.optim.LBFGS(self.parameters())

    with pytest.raises(ConfigurationError, match=r"LBFGS evaluates its closure more than once .* precision=16"):
        quiet(precision=16, limit_val_batches=0).fit(Second(), Batches([torch.ones(3, 2)]))


def test_float16_in_manual_optimization() -> None:
    class Manual(Scaled):
        automatic_optimization = False

        def training_step(self, batch: Any, batch_idx: int) -> Any:
            loss = super().training_step(batch, batch_idx)
            optimizer = self.optimizers()
            optimizer.zero_grad()
            self.manual_backward(loss)
            optimizer.step()
            self.lr_schedulers().step()

    module, automatic = Manual((1,)), Scaled((1,))
    automatic.load_state_dict(module.state_dict())
    for each in (module, automatic):
        quiet(precision=16, limit_val_batches=0).fit(each, Batches([torch.ones(3, 2)] * 2))
    assert torch.equal(module.layer.weight, automatic.layer.weight)
    assert module.seen[0] == (65536.0, 0.5)
