"""Mistakes that somebody made up who knew the documentation and the engine, and not the suite: each is noticed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from extent import share

from conformance.clauses import load_clauses
from conformance.mutants.engine import judge_mutant, mutated
from conformance.mutants.patches import Patch
from conformance.scenario import load_scenarios
from conformance.verdicts import Status

MISTAKES = json.loads((Path(__file__).parent / "assets" / "mistakes.json").read_text(encoding="utf-8"))


@pytest.mark.slow
@pytest.mark.parametrize("mistake", share(MISTAKES, 6), ids=lambda mistake: mistake["scenario"])
def test_a_mistake_is_noticed(mistake: dict[str, Any], tmp_path: Path) -> None:
    [scenario] = [scenario for scenario in load_scenarios() if scenario.name == mistake["scenario"]]
    with mutated([Patch(patch["in"], patch["find"], patch["replace"]) for patch in mistake["patches"]]) as engine:
        verdicts, error = judge_mutant(engine, scenario, load_clauses(), tmp_path / "trace.jsonl")
    assert not error
    assert any(verdict.status is Status.FAIL for verdict in verdicts), mistake["why"]
