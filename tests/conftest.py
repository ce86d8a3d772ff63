"""What every test needs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from hypothesis import settings

settings.register_profile("untimed", deadline=None)  # how long an example takes is not what is tested
settings.load_profile("untimed")


@pytest.fixture(autouse=True)
def same_numbers_and_modes() -> Iterator[None]:
    """Each test starts from the same random numbers, and leaves gradients on."""
    torch.manual_seed(0)
    yield
    assert torch.is_grad_enabled()


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A path for one trace after another; of module scope, for hypothesis runs a test many times."""
    return tmp_path_factory.mktemp("trace") / "t.jsonl"
