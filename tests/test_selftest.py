"""Every clause is proven by a mutant; and the tool that says so can say otherwise."""

from __future__ import annotations

import dataclasses
import re
from collections import Counter
from pathlib import Path

import pytest
from extent import WHOLE, share

from conformance.adapters.lightning_api import EFFECTS
from conformance.clauses import Clause, load_clauses
from conformance.mutants import selftest as tool
from conformance.mutants.engine import Healthy, Mutant, mutated
from conformance.mutants.facts import OPEN, Recorded, survey
from conformance.mutants.generated import hook_calls, mutants_for, systematic
from conformance.mutants.patches import Patch, module_of, sources
from conformance.scenario import load_scenarios

pytestmark = pytest.mark.slow

CLAUSE = "modes.val.training"
JUDGED = [clause for clause in load_clauses().values() if not clause.excluded]
ALONE = [scenario for scenario in load_scenarios() if scenario.processes == 1]
SYSTEMATIC = list(systematic())


@pytest.fixture(scope="session")
def bench(tmp_path_factory: pytest.TempPathFactory, healthy: Healthy) -> tool.Bench:
    return tool.Bench(load_clauses(), load_scenarios(), tmp_path_factory.mktemp("selftest"), healthy)


def run_with(monkeypatch: pytest.MonkeyPatch, **changes: object) -> tool.SelftestReport:
    """The selftest of one clause, its mutant changed."""
    [mutant] = [m for m in tool.authored() if CLAUSE in m.clauses]
    changed = dataclasses.replace(mutant, **changes)  # type: ignore[arg-type]
    monkeypatch.setattr(tool, "mutants_of", lambda clause: [changed])
    return tool.selftest(load_clauses(), load_scenarios(), only=[CLAUSE])


# Each of the first takes processes of its own; of the second the mutants are made by rule, and much alike.
SPAWNED = [clause for clause in JUDGED if clause.id.startswith("ddp.spawned-")]
BY_RULE = [clause for clause in JUDGED if all(clause.id not in mutant.clauses for mutant in tool.authored())]
OTHERS = [clause for clause in JUDGED if clause not in SPAWNED + BY_RULE]
PROVEN = [*share(OTHERS, 3), *share(SPAWNED, 3), *share(BY_RULE, 4)]


@pytest.mark.slow
@pytest.mark.parametrize("clause", PROVEN, ids=lambda clause: clause.id)
def test_a_mutant_proves(bench: tool.Bench, clause: Clause) -> None:
    assert bench.prove(clause) == []
    assert bench.problems == []


@pytest.mark.slow
@pytest.mark.parametrize("mutant", [pytest.param(m, id=m.name.replace(" ", "-")) for _, m in share(SYSTEMATIC, 5)])
def test_some_clause_notices(bench: tool.Bench, mutant: Mutant) -> None:
    assert bench.notices(mutant)


@pytest.mark.slow
def test_whatever_is_recorded_is_judged(healthy: Healthy) -> None:
    recorded = [Recorded.of(scenario, healthy(scenario)) for scenario in share(ALONE, 3)]
    facts = survey(recorded, load_clauses(), draws=tool.DRAWN, few=0 if WHOLE else 4)
    assert tool.unnoticed(facts) == []
    effects = {fact for fact in facts.changed if fact.startswith("fx.")}
    elsewhere = {"fx.random", "fx.global_rank", "fx.local_rank"}  # any number; and of several processes
    assert effects == {f"fx.{effect}" for effect in EFFECTS} - elsewhere
    assert facts.changed.total() > 200
    events = [(trace.scenario, due) for trace in recorded for due in trace.due]
    for name, holds, why in OPEN:  # what nobody judges has a reason, and is somewhere
        assert why and any(holds(scenario, due) for scenario, due in events), name


def test_a_fact_that_nobody_judges_is_told(healthy: Healthy) -> None:
    [scenario] = [scenario for scenario in load_scenarios() if scenario.name == "fit-val"]
    trace = Recorded.of(scenario, healthy(scenario))
    blind = {name: clause for name, clause in load_clauses().items() if not name.endswith(".state.lr")}
    facts = survey([trace], blind, draws=8, only=lambda fact: fact in ("fx.lr", "fx.global_step"))
    assert (facts.changed["fx.global_step"], facts.noticed["fx.global_step"]) == (8, 8)
    [told] = tool.unnoticed(facts)
    assert re.fullmatch(r"fx.lr=.* in the place of \[0.0625\], at the (begin|end) of .*, event \d+ of fit-val", told)


def test_the_report_of_some_clauses() -> None:
    report = tool.selftest(load_clauses(), load_scenarios(), only=["modes.val.*"])
    assert report.ok and report.problems == [] and report.unproven == []
    assert report.proven == {clause.id for clause in JUDGED if clause.id.startswith("modes.val.")}


def test_the_report_of_the_systematic_mutants(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that changes nothing survives."""
    nothing = Mutant("none", "nothing is broken", (), scenario="test")
    [dropped] = [mutant for _, mutant in SYSTEMATIC if mutant.name == "drop test_loop.on_test_start"]
    monkeypatch.setattr(tool, "TRIED", ())
    monkeypatch.setattr(tool, "DRAWN", 0)
    monkeypatch.setattr(tool, "systematic", lambda: iter([("drop", nothing), ("drop", dropped)]))
    [scenario] = [scenario for scenario in load_scenarios() if scenario.name == "test"]
    report = tool.selftest({"test.on_test_start": load_clauses()["test.on_test_start"]}, [scenario])
    assert (report.tried["drop"], report.caught["drop"]) == (2, 1)
    assert report.problems == ["survived: none: nothing is broken"]
    assert not report.ok


def test_a_mutant_that_breaks_nothing_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    report = run_with(monkeypatch, patches=(Patch("val_loop", "set_grad_enabled(True)", "set_grad_enabled(1 == 1)"),))
    assert report.unproven == [CLAUSE]
    assert "is not caught" in report.problems[0]
    assert not report.ok


def test_a_mutant_caught_for_another_reason_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    report = run_with(monkeypatch, reason="the moon is full")
    assert "is caught for another reason" in report.problems[0]
    assert not report.ok


def test_a_mutant_that_breaks_more_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    extra = Patch("train_on_device", "if hooks.on_fit_start: hooks.on_fit_start()", "")
    [mutant] = [m for m in tool.authored() if CLAUSE in m.clauses]
    report = run_with(monkeypatch, patches=(*mutant.patches, extra), scenario="fit-val")
    assert any("also fails, on fit-val" in problem and "fit.on_fit_start" in problem for problem in report.problems)
    assert not report.ok


def test_a_stale_patch_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    report = run_with(monkeypatch, patches=(Patch("val_loop", "no such line", "x"),))
    assert "a mutant is stale: val_loop holds 'no such line' 0 times" in report.problems[0]
    assert not report.ok


def test_the_healthy_engine_is_back_after_a_mutant() -> None:
    import refimpl

    before = refimpl.loops
    with mutated([Patch("version:", "__version__ =", "__version__ = 'mutant' or")]) as engine:
        assert engine.__version__ == "mutant"
        assert engine.loops is not before
    import refimpl as after

    assert after.loops is before


def test_a_module_in_a_folder_is_changed_too() -> None:
    patch = Patch("early_stopping:EarlyStopping", "class EarlyStopping", "MUTANT = 1\nclass EarlyStopping")
    with mutated([patch]) as engine:
        assert engine.callbacks.early_stopping.MUTANT == 1


def test_hook_calls_are_those_of_the_file() -> None:
    """As many statements as the text has calls: none escapes the systematic mutants."""
    calls = re.findall(r"hooks\.\w\w+\(", sources()[module_of("loops")])
    assert len(calls) == len(hook_calls()) == Counter(operation for operation, _ in SYSTEMATIC)["drop"]


def test_systematic_mutants_differ_from_the_engine() -> None:
    for operation, mutant in SYSTEMATIC:
        [patch] = mutant.patches
        assert patch.find != patch.replace, (operation, mutant)


def test_a_runaway_mutant_is_stopped(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from conformance.mutants import engine

    monkeypatch.setattr(engine, "SECONDS", 1)
    patch = Patch("Run.epochs", "self.data.restore_random_state()", "while True: pass")
    [scenario] = [s for s in load_scenarios() if s.name == "fit-basic"]
    with mutated([patch]) as module:
        verdicts, error = engine.judge_mutant(module, scenario, load_clauses(), tmp_path / "t.jsonl")
    assert verdicts == []
    assert error == "still running after 1 seconds"


def test_clauses_without_a_mutant_are_unproven(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tool, "mutants_of", lambda clause: [])
    report = tool.selftest(load_clauses(), load_scenarios(), only=[CLAUSE])
    assert report.unproven == [CLAUSE]
    assert not report.ok


def test_mutants_written_by_hand_are_of_judged_clauses() -> None:
    named = {clause for mutant in tool.authored() for clause in mutant.clauses}
    assert named <= {clause.id for clause in JUDGED}


def test_generated_mutants_name_their_hooks() -> None:
    for clause in load_clauses().values():
        if not clause.excluded:
            for mutant in mutants_for(clause):
                assert isinstance(mutant, Mutant)
                assert mutant.hooks or mutant.events
