"""Recording changes nothing: a run whose effects nobody reads but where it ends calls the same hooks with the same
arguments, and ends with the same gradients, and so weights, and metrics."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from extent import share

from conformance.features import features
from conformance.mutants.engine import Healthy
from conformance.runner import produce_traces
from conformance.scenario import Scenario, load_scenarios
from conformance.trace import open_trace

pytestmark = pytest.mark.slow


# When a process hears that another has left it alone is a matter of time; in spawned ones nobody looks.
SCENARIOS = [scenario for scenario in load_scenarios() if not {"alone", "spawned"} & features(scenario)]


def test_reading_effects_changes_nothing(tmp_path: Path, healthy: Healthy) -> None:
    """Of the releases `test_lightning.py` makes sure."""
    scenarios = share(SCENARIOS, 12)
    for scenario in scenarios:
        healthy(scenario)
    assert changed("refimpl", scenarios, healthy.folder, tmp_path / "blind") == set()


def changed(trainer: str, scenarios: Sequence[Scenario], seen: Path, blind: Path) -> set[str]:
    """The scenarios whose traces are not what they were in the folder `seen` if nobody looks."""
    for scenario, error in produce_traces(trainer, scenarios, blind, blind=True):
        assert error is None, f"{scenario.name}: {error}"
    return {scenario.name for scenario in scenarios if told(scenario, seen) != told(scenario, blind)}


def told(scenario: Scenario, folder: Path) -> list[list[Any]]:
    """What each process tells; but for how often parameters changed, which only who looks all the time can count."""
    with open_trace(folder / f"{scenario.name}.jsonl") as reader:
        events = list(reader)

    def of(rank: int) -> Iterator[Any]:
        for event in (event for event in events if event.rank == rank):
            ends = event.ph == "E" and event.receiver == "trainer"
            yield event.ph, event.receiver, event.hook, event.args, {**event.fx, "params": None} if ends else None

    return [list(of(rank)) for rank in range(scenario.recorded)]
