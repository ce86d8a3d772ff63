"""What only looks changes no run: the same weights, to the last bit, with it and without it."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
import torch
from models import Line, quiet
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from refimpl import seed_everything


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
