"""On a GPU: where things are, float16 with overflow, and going on; skipped without one. `python -m tests.gpu` runs them
there, without pytest too, and writes what it measured into `docs/gpu.md`."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import torch
from torch import nn

from refimpl import LightningModule, Trainer, seed_everything

try:
    import pytest

    pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="torch finds no GPU here")
except ModuleNotFoundError:  # `python -m tests.gpu` needs none
    pass

SHAPE = (8, 16)
OFF = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False)


class Net(LightningModule):
    """Two layers with dropout between; `huge` batches overflow in float16."""

    def __init__(self, huge: frozenset[int] = frozenset()) -> None:
        super().__init__()
        seed_everything(0)  # the same weights in each
        self.net = nn.Sequential(nn.Linear(16, 32), nn.Dropout(0.5), nn.Linear(32, 1))
        self.huge, self.seen = huge, list[Any]()

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        assert batch.device == self.device == next(self.parameters()).device
        out = self.net(batch)
        self.seen.append((out.dtype, batch.device.type))
        self.log("loss", out.float().mean(), on_step=True, on_epoch=True)
        return out.float().pow(2).mean() * (1e38 if batch_idx in self.huge else 1.0)

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.log("val", self.net(batch).float().mean())

    def on_train_batch_start(self, batch: Any, batch_idx: int, dataloader_idx: int) -> None:
        assert batch.device.type == "cpu"  # [R2]

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.SGD(self.parameters(), lr=0.05, momentum=0.9)
        schedule = {"scheduler": torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.9), "interval": "step"}
        return {"optimizer": optimizer, "lr_scheduler": schedule}


class Loader:
    """Five batches, the same each time."""

    def __len__(self) -> int:
        return 5

    def __iter__(self) -> Any:
        generator = torch.Generator().manual_seed(1)
        return iter([torch.randn(SHAPE, generator=generator) for _ in range(5)])


def fitted(module: LightningModule, **options: Any) -> Trainer:
    """On the GPU, after a seed."""
    trainer = Trainer(accelerator="gpu", devices=1, **{**OFF, "max_epochs": 2, **options})
    seed_everything(0)
    trainer.fit(module, Loader(), Loader())
    return trainer


def test_the_module_and_its_batches_are_there() -> None:
    module = Net()
    trainer = fitted(module)
    assert module.seen == [(torch.float32, "cuda")] * 10 and trainer.num_gpus == 1
    assert trainer.callback_metrics["loss_epoch"].device.type == "cuda"
    assert [batch.device.type for batch in trainer.predict(Whole(), Loader())] == ["cuda"] * 5  # type: ignore[union-attr]


def test_dp_on_one_gpu_is_the_gpu() -> None:
    one, parts = Net(), Net()
    fitted(one)
    assert fitted(parts, strategy="dp").num_devices == 1
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), parts.parameters()))


class Whole(LightningModule):
    def forward(self, batch: Any) -> Any:
        return batch


def test_the_precisions_compute_in_their_types() -> None:
    for precision, dtype in ((16, torch.float16), ("bf16", torch.bfloat16), (64, torch.float64)):
        module = Net()
        fitted(module, precision=precision)
        assert {seen for seen, _ in module.seen} == {dtype}
        assert all(p.isfinite().all() for p in module.parameters())


def test_an_overflow_skips_the_update_and_halves_the_scale() -> None:
    """The skipped updates change nothing, step no schedule; the others are those of a run without them."""
    module = Net(huge=frozenset({1, 3}))
    trainer = fitted(module, precision=16, max_epochs=1)
    scaler = trainer.run.optimization.scaler
    assert scaler is not None and scaler.scaler.get_scale() == 2.0**16 / 4
    assert trainer.lr_schedulers[0]["scheduler"].last_epoch == 3
    assert all(p.isfinite().all() for p in module.parameters())


def test_accumulation_with_a_scaled_loss_is_that_of_float32() -> None:
    weights = []
    for precision in (16, 32):
        module = Net()
        module.net[1] = nn.Identity()
        fitted(module, precision=precision, accumulate_grad_batches=2, gradient_clip_val=0.5)
        weights.append(torch.cat([p.flatten() for p in module.parameters()]))
    torch.testing.assert_close(*weights, rtol=5e-3, atol=5e-3)


def test_a_resumed_run_is_that_which_never_stopped() -> None:
    """The GPU's random numbers, too: dropout goes on as it was."""
    for precision in (32, 16):
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "half.ckpt")

            class Saving(Net):
                def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int, dataloader_idx: int) -> None:
                    if (self.current_epoch, batch_idx) == (1, 2) and not path.exists():  # noqa: B023
                        self.trainer.save_checkpoint(path)  # type: ignore[union-attr]  # noqa: B023

            whole, rest = Saving(), Net()
            fitted(whole, precision=precision, deterministic=True)
            trainer = Trainer(accelerator="gpu", **OFF, max_epochs=2, precision=precision, deterministic=True)
            trainer.fit(rest, Loader(), Loader(), ckpt_path=path)
            assert len(rest.seen) == 2
            assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), rest.parameters()))


def test_the_sanity_check_leaves_the_gpus_random_numbers_alone() -> None:
    one, other = Net(), Net()
    fitted(one, num_sanity_val_steps=2)
    fitted(other, num_sanity_val_steps=0)
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters()))
