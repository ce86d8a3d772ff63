"""seed_everything: one number for every source of randomness."""

from __future__ import annotations

import os
import random

import numpy as np
import torch

__all__ = ["seed_everything"]


def seed_everything(seed: int | None = None, workers: bool = False) -> int:
    """Seed `random`, NumPy and torch (all devices), and the processes started later through
    `PL_GLOBAL_SEED`; returns the seed.

    The workers of a `DataLoader` derive their seeds from torch's by themselves, whatever `workers` says.

    None takes `PL_GLOBAL_SEED` if it is set, otherwise a random seed. Raises ValueError unless it is
    an int from 0 to 2**32 - 1, which is what NumPy accepts.
    """
    if seed is None:
        given = os.environ.get("PL_GLOBAL_SEED")
        seed = random.randrange(2**32) if given is None else int(given)
    if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed < 2**32:
        raise ValueError(f"seed={seed!r}; an int from 0 to 4294967295 is accepted")
    os.environ["PL_GLOBAL_SEED"] = str(seed)
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
    return seed
