"""Recording changes nothing: a run whose effects nobody reads but where it ends calls the same hooks with the same
arguments, and ends with the same gradients, and so weights, and metrics."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from conformance.features import features
from conformance.runner import produce_traces
from conformance.scenario import Scenario, load_scenarios
from conformance.trace import open_trace
from conformance.worlds import RELEASES, ReleaseMissing, locate

pytestmark = pytest.mark.slow

# 2.6.6 keeps what was logged before a pass's first batch only if somebody reads it: its profile says so.
READING_MATTERS = {"lightning@2.6.6": {"pairs-029", "pairs-035"}}


@pytest.mark.parametrize("trainer", ["refimpl", *RELEASES])
def test_reading_effects_changes_nothing(trainer: str, tmp_path: Path) -> None:
    if trainer in RELEASES:
        try:
            locate(trainer)
        except ReleaseMissing as missing:
            pytest.skip(str(missing))
    # When a process hears that another has left it alone is a matter of time.
    scenarios = [scenario for scenario in load_scenarios() if "alone" not in features(scenario)]
    for blind in (False, True):
        for scenario, error in produce_traces(trainer, scenarios, tmp_path / str(blind), blind=blind):
            assert error is None, f"{scenario.name}: {error}"
    changed = {
        scenario.name
        for scenario in scenarios
        if told(scenario, tmp_path / "False") != told(scenario, tmp_path / "True")
    }
    assert changed == READING_MATTERS.get(trainer, set())


def told(scenario: Scenario, folder: Path) -> list[list[Any]]:
    """What each process tells; but for how often parameters changed, which only who looks all the time can count."""
    with open_trace(folder / f"{scenario.name}.jsonl") as reader:
        events = list(reader)

    def of(rank: int) -> Iterator[Any]:
        for event in (event for event in events if event.rank == rank):
            ends = event.ph == "E" and event.receiver == "trainer"
            yield event.ph, event.receiver, event.hook, event.args, {**event.fx, "params": None} if ends else None

    return [list(of(rank)) for rank in range(scenario.processes)]
