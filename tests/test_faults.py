"""A few faults under DDP, of those that `python -m tests.faults` draws, which has many more and takes minutes."""

from __future__ import annotations

import pytest
from faults import drawn


@pytest.mark.slow
def test_a_run_that_a_fault_ends_says_why_and_goes_on_as_if_there_had_been_none(
    capsys: pytest.CaptureFixture[str],
) -> None:
    failed = drawn(2, seed=50, jobs=2, ways=["ddp"])
    assert not failed, capsys.readouterr().out
