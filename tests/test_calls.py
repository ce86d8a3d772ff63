"""Function calls per step, Python's and C's: what the engine adds to a bare loop, which no noise touches.

The limits are the documented ones (`docs/benchmarks.md`); times are measured by `tests/bench.py` only.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.bench import ROWS, Batches, Module, TwelveHooks, bare_eval, bare_train, calls, fit


@pytest.mark.parametrize(("name", "ours", "limit"), [(row[0], row[1], row[4]) for row in ROWS])
def test_calls_stay_under_the_limit(name: str, ours: Callable[[Batches], None], limit: int) -> None:
    assert calls(ours) <= limit, name


def test_the_bare_loops_are_what_the_limits_are_about() -> None:
    """A bare step that costs more would make the limits easy."""
    assert calls(bare_train) <= 160
    assert calls(bare_eval) <= 22


def test_each_overridden_hook_is_counted() -> None:
    """The count can tell: twelve hooks cost at least the eight calls of those without a default."""
    assert calls(fit(TwelveHooks)) >= calls(fit(Module)) + 8
