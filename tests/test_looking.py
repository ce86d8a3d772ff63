"""What only looks changes no run: the same weights, to the last bit, with it and without it."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
import torch
import torchmetrics
from models import Line, quiet
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from refimpl import ModelSummary, ProgressBar, seed_everything, summarize


class Random(Line):
    """Draws from every source, in training and in validation; its loaders shuffle, one with a generator of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.dropout = nn.Dropout(0.5)
        self.own = torch.Generator().manual_seed(3)

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        noise = random.random() + np.random.rand()
        return self.loss((self.dropout(batch[0]), batch[1])) + noise * self.layer.weight.sum()

    def validation_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        random.random(), np.random.rand(), torch.rand(1), torch.rand(1, generator=self.own)

    def loader(self, **settings: Any) -> Any:
        order = torch.randperm(6)  # what asking draws
        data = TensorDataset(torch.arange(12.0).view(6, 2)[order], torch.ones(6, 1))
        return DataLoader(data, batch_size=2, shuffle=True, **settings)

    def train_dataloader(self) -> Any:
        return self.loader()

    def val_dataloader(self) -> Any:
        return [self.loader(generator=self.own), self.loader()]


def weights(**options: Any) -> list[torch.Tensor]:
    seed_everything(1)
    module = Random().float()
    quiet(max_epochs=3, **options).fit(module)
    return list(module.state_dict().values())


@pytest.mark.parametrize("options", [
    {}, {"check_val_every_n_epoch": 2}, {"val_check_interval": 1}, {"reload_dataloaders_every_n_epochs": 1},
    {"limit_val_batches": 1}, {"overfit_batches": 2},
])  # fmt: skip
@pytest.mark.parametrize("steps", [1, 2, -1])
@pytest.mark.filterwarnings("ignore:.*shuffling is off")
def test_the_sanity_check_only_looks(options: dict[str, Any], steps: int) -> None:
    for one, other in zip(weights(num_sanity_val_steps=steps, **options), weights(num_sanity_val_steps=0, **options)):
        assert torch.equal(one, other)


class Stateful(Random):
    """Whose forward draws from every source, and counts in old and new buffers and in metrics, in eval mode too."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(2)
        self.register_buffer("calls", torch.zeros(()))
        self.register_buffer("latest", torch.zeros(()))
        self.mean, self.kept = torchmetrics.MeanMetric(), torchmetrics.CatMetric()
        self.example_input_array = torch.ones(3, 2)

    def forward(self, x: Tensor) -> Tensor:
        self.norm.train()
        self.calls += 1
        self.latest = x.mean() + self.latest
        self.register_buffer("cache", x.sum())
        noise = random.random() + float(np.random.rand()) + torch.rand(())
        self.mean(noise)
        self.kept.update(noise)
        return super().forward(self.norm(x)) * (1 + 0.01 * noise)

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        loss = super().training_step(batch, batch_idx)
        self.log("loss", loss, prog_bar=True, on_epoch=True)
        self.log("mean", self.mean, prog_bar=True, on_epoch=True)
        return loss


def state(module: Stateful) -> dict[str, Any]:
    """All that a forward changes."""
    return {
        "tensors": {name: tensor.tolist() for name, tensor in module.state_dict().items()},
        "metrics": [(str(metric.metric_state), metric.update_count) for metric in (module.mean, module.kept)],
        "modes": [layer.training for layer in module.modules()], "gradients": [p.grad for p in module.parameters()],
        "random": [random.random(), float(np.random.rand()), float(torch.rand(()))],
    }  # fmt: skip


def test_a_summary_only_looks() -> None:
    module = Stateful().float()
    module.norm.eval()
    buffer = module.latest
    seed_everything(2)
    expected = state(module)
    seed_everything(2)
    assert "[3, 2]" in summarize(module)
    assert state(module) == expected
    assert module.latest is buffer and not hasattr(module, "cache")


def trained(**options: Any) -> dict[str, Any]:
    seed_everything(1)
    module = Stateful().float()
    trainer = quiet(max_epochs=2, **options)
    trainer.fit(module)
    trainer.test(module, module.val_dataloader(), verbose=False)
    assert not any(parameter.grad is None for parameter in module.parameters())
    module.zero_grad()
    return {**state(module), "logged": {name: value.item() for name, value in trainer.callback_metrics.items()}}


@pytest.mark.parametrize("options", [
    {"callbacks": ModelSummary(max_depth=-1)}, {"callbacks": ProgressBar()}, {"enable_progress_bar": True},
    {"enable_progress_bar": True, "enable_model_summary": True, "callbacks": [ProgressBar(refresh_rate=2)]},
])  # fmt: skip
def test_who_shows_a_run_does_not_change_it(
    options: dict[str, Any], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    without = trained()
    monkeypatch.setattr("tqdm.std.time", iter(range(10**6)).__next__)  # every batch takes a second, and is drawn
    assert trained(**options) == without
    assert capsys.readouterr() != ("", "")
