"""seed_everything: the same numbers from every source, and the seed handed on."""

from __future__ import annotations

import os
import random
from typing import Any

import numpy as np
import pytest
import torch
from models import Line, pairs, quiet

from refimpl import seed_everything


def numbers() -> tuple[float, float, float]:
    return random.random(), float(np.random.rand()), float(torch.rand(()))


@pytest.mark.parametrize("seed", [0, 7, 2**32 - 1])
def test_the_same_seed_gives_the_same_numbers_everywhere(seed: int) -> None:
    assert seed_everything(seed) == seed
    first = numbers()
    assert numbers() != first
    seed_everything(seed)
    assert numbers() == first
    seed_everything((seed + 1) % 2**32)
    assert all(a != b for a, b in zip(numbers(), first))


def test_the_seed_is_left_for_other_processes_and_taken_from_there() -> None:
    seed_everything(11)
    assert os.environ["PL_GLOBAL_SEED"] == "11"
    os.environ["PL_GLOBAL_SEED"] = "12"
    assert seed_everything() == 12


def test_without_a_seed_one_is_drawn() -> None:
    seed = seed_everything()
    assert 0 <= seed < 2**32 and os.environ["PL_GLOBAL_SEED"] == str(seed)
    first = numbers()
    seed_everything(seed)
    assert numbers() == first


@pytest.mark.parametrize("seed", [-1, 2**32, 1.5, True, "7"])
def test_what_is_no_seed(seed: Any) -> None:
    with pytest.raises(ValueError, match=r"seed=.*; an int from 0 to 4294967295 is accepted"):
        seed_everything(seed)


def test_two_seeded_trainings_are_equal() -> None:
    weights = []
    for _ in range(2):
        seed_everything(3)
        module = Line()
        torch.nn.init.normal_(module.layer.weight)
        quiet(max_epochs=2, limit_val_batches=0).fit(module, pairs(3))
        weights.append(module.layer.weight.detach())
    assert torch.equal(*weights)


class Draw(torch.utils.data.Dataset[float]):
    """A number of NumPy's for each index."""

    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> float:
        return float(np.random.rand())


def test_workers_of_a_loader_draw_numbers_of_their_own_and_the_same_again() -> None:
    def drawn() -> list[float]:
        seed_everything(5, workers=True)
        return [float(number) for number in torch.utils.data.DataLoader(Draw(), num_workers=2)]

    first = drawn()
    assert len(set(first)) == 4 and drawn() == first
