"""What each operator does, and what becomes of a mutant of the engine."""

from __future__ import annotations

import ast
import io
import os
import time
from collections import Counter
from fnmatch import fnmatchcase
from pathlib import Path

import pytest
from extent import share
from rich.console import Console

from conformance.clauses import load_clauses
from conformance.mutants import everywhere
from conformance.mutants.everywhere import KINDS, Excuse, Outcome, excuses, print_report, survey, try_mutant
from conformance.mutants.operators import OPERATORS
from conformance.mutants.patches import sources
from conformance.mutants.reach import Reach
from conformance.mutants.syntax import LEFT_OUT, SyntaxMutant, mutants_of_text, syntax_mutants
from conformance.scenario import DRAWN_NAMES, load_scenarios

ALL = syntax_mutants()


def changes(operator: str, *lines: str) -> list[str]:
    """What an operator makes of a function's lines: each as "old -> new"."""
    text = "def f(a, b):\n" + "".join(f"    {line}\n" for line in lines)
    mutants = [mutant for mutant in mutants_of_text(text, "refimpl.loops") if mutant.operator == operator]
    return [mutant.change.removeprefix(f"{operator}: ") for mutant in mutants]


EXAMPLES = {
    "drop": [
        (["a.close()"], ["a.close() -> pass"]),
        (["a.b = 1"], ["a.b = 1 -> pass"]),
        (["c = 1", "c = 2"], ["c = 2 -> pass"]),  # without the first, the name would be missing
        (["a = a + b"], ["a = a + b -> pass"]),
        (["return a.b"], ["a.b -> None"]),
        (["yield a"], []),
    ],
    "negate": [
        (["if a: b()"], ["a -> not (a)"]),
        (["c = a if b else 0"], ["b -> not (b)"]),
        (["c = [d for d in a if d]"], ["d -> not (d)"]),
        (["if not a: b()"], []),
    ],
    "never": [
        (["if a: b()"], ["a -> False"]),
        (["while a: b()"], ["a -> False"]),
        (["if a: b()", "else: c()"], []),
    ],
    "forget not": [(["c = not a"], ["not a -> a"])],
    "and for or": [(["c = a and b"], ["a and b -> (a or b)"]), (["c = a or b"], ["a or b -> (a and b)"])],
    "compare": [
        (["c = a < b"], ["a < b -> a <= b"]),
        (["if a >= b: c()"], ["a >= b -> a > b"]),
        (["c = a == b"], ["a == b -> a != b"]),
        (["if a == b: c()"], []),  # as `negate`
        (["c = 0 <= a < b"], ["0 <= a < b -> 0 < a < b", "0 <= a < b -> 0 <= a <= b"]),
    ],
    "calculate": [
        (["c = (a + b) * 2"], ["(a + b) * 2 -> ((a + b) / 2)", "a + b -> (a - b)"]),
        (["a += 1"], ["a += 1 -> a -= 1"]),
    ],
    "constant": [
        (["c = True"], ["True -> False"]),
        (["c = 2"], ["2 -> 3"]),
        (["c = a['x'], b['y']"], ["'x' -> 'y'", "'y' -> 'x'"]),
        (["c = a['x']"], []),
    ],
    "swap": [(["a.f(a, b, 1)"], ["a, b -> b, a", "b, 1 -> 1, b"]), (["a.f(a, a)"], []), (["isinstance(a, b)"], [])],
    "forget argument": [(["a.f(a, c=1, **b)"], ["a.f(a, c=1, **b) -> a.f(a, **b)"])],
    "first for last": [
        (["c = a[0]"], ["a[0] -> a[-1]"]),
        (["c = a[-1]"], ["a[-1] -> a[0]"]),
        (["c = min(a)"], ["min -> max"]),
        (["c = any(a)"], ["any -> all"]),
        (["c = sorted(a, key=b)"], ["sorted(a, key=b) -> list(a)"]),
        (["a.append(b)"], ["a.append(b) -> a.insert(0, b)"]),
        (["a.pop(0)"], ["a.pop(0) -> a.pop()"]),
        (["a[0] = b"], []),
    ],
    "no loop": [(["for c in a: b()"], ["a -> ()"])],
    "no context": [
        (["with a.b(): b()"], ["a.b() -> __import__('contextlib').nullcontext()"]),
        (["with a as c: b()"], []),
    ],
    "other exit": [(["for c in a: break"], ["break -> continue"])],
}  # fmt: skip


@pytest.mark.parametrize("operator", OPERATORS)
def test_an_operator(operator: str) -> None:
    for lines, expected in EXAMPLES[operator]:
        assert changes(operator, *lines) == expected, lines


@pytest.mark.parametrize(
    "line",
    [
        '"""It does nothing."""',
        "raise ValueError(a + 1)",
        "if a < 1: raise ValueError(b[0])",
        "if a: warn('it is 1')",
        "from a import b",
        "c = f'{a + 1}'",
        "c: dict[str, 1]",
    ],
)
def test_what_is_left_out(line: str) -> None:
    found = mutants_of_text(f"def f(a: 1 = None) -> 2:\n    {line}\n", "refimpl.loops")
    assert [mutant.change for mutant in found if mutant.operator != "negate"] == []


def test_methods_that_are_not_about_a_run_are_left_out() -> None:
    assert mutants_of_text("class A:\n    def __repr__(self):\n        return self.a[0]\n", "refimpl.loops") == []


def test_every_mutant_is_python_and_another() -> None:
    for mutant in ALL[::15]:
        assert ast.dump(ast.parse(mutant.text())) != ast.dump(ast.parse(sources()[mutant.module])), str(mutant)
    assert set(Counter(mutant.operator for mutant in ALL)) == set(OPERATORS)


def test_a_mutant_is_printed_as_a_line() -> None:
    [mutant] = [m for m in ALL if m.where == "loops:by_loader" and m.operator == "negate"]
    assert str(mutant) == f"loops.py:{mutant.line} (by_loader) negate: len(outputs) == 1 -> not (len(outputs) == 1)"


def test_files_that_are_left_out_are_there() -> None:
    engine = Path(__file__).parent.parent / "refimpl"
    files = {path.relative_to(engine).as_posix() for path in engine.rglob("*.py")}
    for glob, why in LEFT_OUT.items():
        assert why and any(fnmatchcase(file, glob) for file in files), glob


def test_an_excuse_has_a_reason_and_covers_something() -> None:
    for excuse in excuses():
        assert excuse.kind in KINDS and len(excuse.reason) > 10
        for text in excuse.texts or [""]:
            one = Excuse(excuse.within, (text,) if text else (), excuse.kind, excuse.reason)
            assert any(one.covers(mutant) for mutant in ALL), str(one)


# ---- tried ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def reach(tmp_path_factory: pytest.TempPathFactory) -> Reach:
    wanted = ("fit-basic", "test", "ddp-none")
    scenarios = [scenario for scenario in load_scenarios() if scenario.name in wanted]
    return Reach.recorded(scenarios, tmp_path_factory.mktemp("reach"))


def mutant(where: str, change: str) -> SyntaxMutant:
    [found] = [mutant for mutant in ALL if mutant.where == where and change in mutant.change]
    return found


def test_scenarios_that_execute_a_statement_are_tried(reach: Reach) -> None:
    assert reach.executes(mutant("loops:test_loop", "drop: run.open")) == {"test"}
    assert reach.executes(mutant("loops:train_loop", "drop: progress.batch_is_trained")) == {"fit-basic", "ddp-none"}
    assert reach.executes(mutant("strategies.ddp:Distributed.wait", "drop: self.processes.wait")) == {"ddp-none"}
    assert reach.executes(mutant("progress:Progress.broke_off", "and for or")) == set()
    assert len(reach.tried(mutant("loops:train_loop", "drop: progress.batch_is_trained"), 1)) == 1


def test_what_notices_a_mutant_is_told(reach: Reach) -> None:
    dropped = mutant("loops:test_loop", "drop: run.open")
    survivor = mutant("loops:by_loader", "outputs[0] -> outputs[-1]")
    assert try_mutant(dropped, ["test"], reach, load_clauses()).scenario == "test"
    assert try_mutant(survivor, ["test"], reach, load_clauses()) == Outcome()


def test_a_mutant_that_cannot_be_imported_is_noticed(reach: Reach) -> None:
    broken = SyntaxMutant("refimpl.types", "", 1, range(1, 2), "drop", 0, "", "1 / 0\n")
    outcome = try_mutant(broken, ["test"], reach, load_clauses())
    assert outcome.scenario == "import" and "Error: " in outcome.by


@pytest.mark.slow
def test_of_a_drawn_sample_none_survives_without_a_reason() -> None:
    late = {s.name for s in load_scenarios() if s.starts_programs or s.name.startswith(DRAWN_NAMES)}  # which take long
    scenarios = share([scenario for scenario in load_scenarios() if scenario.name not in late], 3)
    report = survey(load_clauses(), scenarios, sample=8, seed=1, processes=1)
    assert [str(mutant) for mutant in report.survivors] == []
    assert report.noticed.total() + report.excused.total() == report.tried.total() == 8
    assert report.noticed.total() > report.excused.total()  # of all mutants, four times as many are


def test_the_report_says_what_survives_and_what_is_stale(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of two mutants one survives; one row excuses nothing that does."""
    dropped = mutant("loops:test_loop", "drop: run.open")
    survivor = mutant("loops:by_loader", "outputs[0] -> outputs[-1]")
    monkeypatch.setattr(everywhere, "syntax_mutants", lambda globs: [dropped, survivor])
    monkeypatch.setattr(everywhere, "excuses", lambda: (Excuse(("loops:test_loop",), (), "equivalent", "none"),))
    scenarios = [scenario for scenario in load_scenarios() if scenario.name in ("test", "predict")]
    report = survey(load_clauses(), scenarios, processes=1)
    assert (report.tried["loops.py"], report.noticed["loops.py"], report.survivors) == (2, 1, [survivor])
    assert [str(excuse) for excuse in report.stale] == ["loops:test_loop"]
    assert not report.ok and report.share("loops.py") == 0.5
    console = Console(width=200, record=True, file=io.StringIO())
    print_report(report, console)
    told = console.export_text()
    assert f"survived: {survivor}" in told and "stale, for nothing survives there: loops:test_loop" in told


def test_a_mutant_that_hangs_or_dies_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    jobs = [
        (ALL[0], lambda: time.sleep(60), 0.2),
        (ALL[1], lambda: os._exit(3), 60.0),
        (ALL[2], lambda: Outcome("here", "a clause"), 60.0),
    ]
    outcomes = dict(everywhere._in_processes(jobs, 2))  # type: ignore[arg-type]
    assert [outcomes[job[0]].by for job in jobs] == ["does not end", "ended without a word", "a clause"]
