"""Every clause is proven by a mutant; and the tool that says so can say otherwise."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest

from conformance.clauses import load_clauses
from conformance.mutants import selftest as tool
from conformance.mutants.engine import Mutant, mutated
from conformance.mutants.generated import hook_calls, mutants_for, systematic
from conformance.mutants.patches import Patch, module_of, sources
from conformance.scenario import load_scenarios

CLAUSE = "modes.val.training"


def run_with(monkeypatch: pytest.MonkeyPatch, **changes: object) -> tool.SelftestReport:
    """The selftest of one clause, its mutant changed."""
    [mutant] = [m for m in tool.authored() if CLAUSE in m.clauses]
    changed = dataclasses.replace(mutant, **changes)  # type: ignore[arg-type]
    monkeypatch.setattr(tool, "mutants_of", lambda clause: [changed])
    return tool.selftest(load_clauses(), load_scenarios(), only=[CLAUSE])


def test_every_clause_is_proven_and_every_systematic_mutant_caught() -> None:
    report = tool.selftest(load_clauses(), load_scenarios())
    assert report.problems == []
    assert report.unproven == []
    assert report.tried == report.caught
    assert report.tried["drop"] == len(hook_calls()) >= 75
    assert report.ok


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
    assert len(hook_calls()) == len(re.findall(r"hooks\.\w\w+\(", sources()[module_of("loops")]))


def test_systematic_mutants_differ_from_the_engine() -> None:
    for operation, mutant in systematic():
        [patch] = mutant.patches
        assert patch.find != patch.replace, (operation, mutant)


def test_a_runaway_mutant_is_stopped(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from conformance.mutants import engine

    monkeypatch.setattr(engine, "SECONDS", 1)
    patch = Patch("epochs", "if trainer.resuming:", "while True: pass\nif trainer.resuming:")
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


def test_generated_mutants_name_their_hooks() -> None:
    for clause in load_clauses().values():
        if not clause.excluded:
            for mutant in mutants_for(clause):
                assert isinstance(mutant, Mutant)
                assert mutant.hooks
