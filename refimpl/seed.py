"""Randomness: one number for every source of it, and what state they are all in."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

from .errors import CheckpointError

__all__ = ["kept_random_state", "random_state", "seed_everything", "set_random_state"]


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


def random_state(generators: Sequence[torch.Generator] = ()) -> dict[str, Any]:
    """The state of every source, as plain data: `random`, NumPy, torch on the CPU and on the GPUs that are in
    use, and that of `generators`."""
    drawn: Any = np.random.get_state()
    return {
        "python": random.getstate(),
        "numpy": (drawn[0], drawn[1].tolist(), *drawn[2:]),
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else [],  # type: ignore[no-untyped-call]
        "generators": [generator.get_state() for generator in generators],
    }


def set_random_state(state: Mapping[str, Any], generators: Sequence[torch.Generator] = ()) -> None:
    """Back to what `random_state` returned; sources that it does not tell of stay as they are.

    Raises CheckpointError for another number of generators.
    """
    if len(state["generators"]) != len(generators):
        raise CheckpointError(f"the states of {len(state['generators'])} generators were saved of a loader that has "
                              f"{len(generators)} now; a run goes on with the loaders that it began with")  # fmt: skip
    if "torch" in state:
        random.setstate(state["python"])
        np.random.set_state(state["numpy"])
        torch.set_rng_state(state["torch"])
        if state["cuda"] and torch.cuda.is_available():
            torch.cuda.set_rng_state_all(state["cuda"][: torch.cuda.device_count()])
    for generator, before in zip(generators, state["generators"]):
        generator.set_state(before)


@contextmanager
def kept_random_state() -> Iterator[None]:
    """What is drawn within is drawn beside the sequence, which goes on afterwards as if nothing had been."""
    state = random_state()
    try:
        yield
    finally:
        set_random_state(state)
