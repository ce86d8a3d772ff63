"""Function calls per batch, Python's and C's: what the engine adds to a bare loop, which no noise touches.

The limits are the documented ones (`docs/benchmarks.md`); times are measured by `python -m tests.bench` only.
"""

from __future__ import annotations

import json
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

from tests.bench.measure import calls
from tests.bench.modules import LogsOne, LogsTen, Plain, TwelveHooks
from tests.bench.rows import REFIMPL, ROWS, Row

pytestmark = pytest.mark.slow

COUNT = """
import json
from tests.bench import by_hand
from tests.bench.measure import calls
from tests.bench.rows import REFIMPL, ROWS

counts = {row.name: calls(row.run(REFIMPL)) for row in ROWS}
print(json.dumps({**counts, "train": calls(by_hand.train), "evaluate": calls(by_hand.evaluate)}))
"""


@cache
def counted() -> dict[str, float]:
    """Calls by row, in a process of its own: once torch has compiled anything, its optimizers make more of them."""
    root = Path(__file__).parent.parent
    run = subprocess.run([sys.executable, "-c", COUNT], cwd=root, capture_output=True, text=True, check=True)
    return json.loads(run.stdout)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_calls_stay_under_the_limit(row: Row) -> None:
    assert counted()[row.name] <= row.calls


def test_the_bare_loops_are_what_the_limits_are_about() -> None:
    """A bare step that costs more would make the limits easy."""
    assert counted()["train"] <= 160
    assert counted()["evaluate"] <= 22


def test_what_is_asked_for_is_counted() -> None:
    """The count can tell: of twelve hooks eight have no default, a callback has two, a value has to be taken in."""
    nothing = calls(REFIMPL.fit(Plain))
    assert calls(REFIMPL.fit(TwelveHooks)) >= nothing + 8
    assert calls(REFIMPL.fit(Plain, callbacks=20)) >= nothing + 40
    assert calls(REFIMPL.fit(LogsTen)) >= calls(REFIMPL.fit(LogsOne)) + 9
