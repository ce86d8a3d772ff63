"""Prove that every clause can fail, for its reason.

A clause is proven when the healthy engine passes it and a mutant fails it with the reason that the
mutant states, without failing a clause that has nothing to do with what was broken. Beside that, each
hook call of the engine's loops is dropped, doubled, and swapped with its neighbour; some clause must
notice every time.
"""

from __future__ import annotations

import fnmatch
import json
import re
import tempfile
import tomllib
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from rich.console import Console

from ..adapters.refimpl import RefimplAdapter
from ..checker import judge_file
from ..checks import build
from ..clauses import Clause
from ..produce import produce
from ..scenario import Scenario
from ..verdicts import Status, Verdict
from .engine import Mutant, judge_mutant, mutated
from .generated import mutants_for, systematic
from .patches import Patch, StaleMutant

__all__ = ["SelftestReport", "authored", "mutants_of", "print_selftest", "selftest"]

# Kinds of clauses about a whole run, and an argument that sums it up: whatever is broken may show there.
WHOLE_RUN = ("sequence", "receivers", "balance")
SUMMED_UP = "loss"
# Where the systematic mutants are tried, until a clause notices.
TRIED = ("fit-tbptt", "fit-val", "fit-val-loaders", "test", "predict", "validate", "fit-outputs", "fit-raise-step")


@dataclass
class SelftestReport:
    """What came of it. `problems` is empty when every clause is proven and nothing else was found."""

    proven: set[str] = field(default_factory=set)
    unproven: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    tried: Counter[str] = field(default_factory=Counter)
    caught: Counter[str] = field(default_factory=Counter)
    mutants: int = 0

    @property
    def ok(self) -> bool:
        """Whether every clause is proven, and every systematic mutant caught."""
        return not self.problems and not self.unproven and self.tried == self.caught


@cache
def authored() -> tuple[Mutant, ...]:
    """The mutants written by hand. Raises ValueError naming the file for a malformed row."""
    mutants: list[Mutant] = []
    for path in sorted(Path(__file__).parent.glob("*.toml")):
        for number, row in enumerate(tomllib.loads(path.read_text(encoding="utf-8"))["mutant"], 1):
            unknown = row.keys() - {"clauses", "why", "reason", "scenario", "also", "patch", "events"}
            if unknown or not {"clauses", "why", "reason"} <= row.keys():
                raise ValueError(f"{path.name}: mutant {number} needs clauses, why, reason; not {sorted(unknown)}")
            if any(patch.keys() != {"in", "find", "replace"} for patch in row.get("patch", ())):
                raise ValueError(f"{path.name}: a patch of mutant {number} has not just in, find and replace")
            patches = tuple(Patch(patch["in"], patch["find"], patch["replace"]) for patch in row.get("patch", ()))
            mutants.append(
                Mutant(
                    name=f"{path.stem} {number}",
                    why=row["why"],
                    patches=patches,
                    clauses=tuple(row["clauses"]),
                    reason=row["reason"],
                    also=tuple(row.get("also", ())),
                    scenario=row.get("scenario", ""),
                    events=row.get("events", ""),
                )
            )
    return tuple(mutants)


def mutants_of(clause: Clause) -> list[Mutant]:
    """The mutants that must fail a clause: those written for it, or else the generated ones."""
    by_hand = [mutant for mutant in authored() if clause.id in mutant.clauses]
    return by_hand or mutants_for(clause)


class _Bench:
    """The healthy engine's verdicts, and the mutants' beside them."""

    def __init__(self, clauses: Mapping[str, Clause], scenarios: Sequence[Scenario], scratch: Path) -> None:
        self.clauses = clauses
        self.scenarios = {scenario.name: scenario for scenario in scenarios}
        self.scratch = scratch / "trace.jsonl"
        self.hooks = {c.id: build(c.check).hooks or frozenset() for c in clauses.values() if not c.excluded}
        self.passing: dict[str, set[str]] = {}
        self.size: dict[str, int] = {}

    def run_healthy(self, report: SelftestReport) -> None:
        """Every scenario on the engine as it is: nothing may fail."""
        adapter = RefimplAdapter()
        for name, scenario in self.scenarios.items():
            error = produce(adapter, scenario, self.scratch)
            if error is not None:
                report.problems.append(f"the healthy engine broke on {name}: {error.strip().splitlines()[-1]}")
                continue
            verdicts = judge_file(self.scratch, self.clauses)
            self.size[name] = self.scratch.stat().st_size
            self.passing[name] = {v.clause for v in verdicts if v.status is Status.PASS}
            failing = [v.clause for v in verdicts if v.status is Status.FAIL]
            if failing:
                report.problems.append(f"the healthy engine fails {', '.join(failing)} on {name}")

    def where(self, clause: str, mutant: Mutant) -> list[str]:
        """The scenarios that can show it: the mutant's own, or the two smallest that pass the clause."""
        if mutant.scenario:
            return [mutant.scenario]
        passing = [name for name, clauses in self.passing.items() if clause in clauses]
        return sorted(passing, key=self.size.__getitem__)[:2]

    def verdicts(self, mutant: Mutant, scenario: str) -> tuple[list[Verdict], str]:
        """What the clauses say of a mutant on a scenario."""
        if mutant.events:
            produce(RefimplAdapter(), self.scenarios[scenario], self.scratch)
            TRACES[mutant.events](self.scratch)
            return judge_file(self.scratch, self.clauses), ""
        with mutated(mutant.patches) as engine:
            return judge_mutant(engine, self.scenarios[scenario], self.clauses, self.scratch)

    def prove(self, clause: str, mutant: Mutant, report: SelftestReport) -> bool:
        """Whether the mutant fails the clause, for its reason, on one of the scenarios."""
        seen = ""
        for scenario in self.where(clause, mutant):
            verdicts, error = self.verdicts(mutant, scenario)
            if error:
                report.problems.append(f"{clause}: {mutant} breaks the harness on {scenario}: {error[-200:]}")
                return False
            verdict = next((v for v in verdicts if v.clause == clause), None)
            if verdict is None or verdict.status is not Status.FAIL:
                continue
            if not re.search(mutant.reason, verdict.reason):
                seen = f"{clause}: {mutant} is caught for another reason: {verdict.reason}"
                continue
            strangers = self.strangers(clause, mutant, verdicts)
            if strangers:
                report.problems.append(f"{clause}: {mutant} also fails, on {scenario}, {', '.join(strangers)}")
            return True
        report.problems.append(seen or f"{clause}: {mutant} is not caught")
        return False

    def strangers(self, clause: str, mutant: Mutant, verdicts: Iterable[Verdict]) -> list[str]:
        """Failing clauses that share no hook with what was broken."""
        touched = set(mutant.hooks or self.hooks[clause])
        return [
            v.clause
            for v in verdicts
            if v.status is Status.FAIL
            and v.clause not in mutant.clauses
            and self.clauses[v.clause].kind not in WHOLE_RUN
            and self.clauses[v.clause].check.get("field") != SUMMED_UP
            and not touched & self.hooks[v.clause]
            and not any(fnmatch.fnmatchcase(v.clause, pattern) for pattern in mutant.also)
        ]


def selftest(
    clauses: Mapping[str, Clause],
    scenarios: Sequence[Scenario],
    on_progress: Callable[[int, int], None] = lambda done, total: None,
    only: Sequence[str] | None = None,
    generate: bool = True,
) -> SelftestReport:
    """Prove the clauses (those that match a glob of `only`), then try the systematic mutants."""
    report = SelftestReport()
    wanted = [
        clause
        for clause in clauses.values()
        if not clause.excluded and (not only or any(fnmatch.fnmatchcase(clause.id, glob) for glob in only))
    ]
    everything = list(systematic()) if generate and not only else []
    with tempfile.TemporaryDirectory(prefix="selftest-") as scratch:
        bench = _Bench(clauses, scenarios, Path(scratch))
        bench.run_healthy(report)
        for number, clause in enumerate(wanted):
            on_progress(number, len(wanted) + len(everything))
            try:
                mutants = mutants_of(clause)
                report.mutants += len(mutants)
                if mutants and all(bench.prove(clause.id, mutant, report) for mutant in mutants):
                    report.proven.add(clause.id)
                else:
                    report.unproven.append(clause.id)
            except StaleMutant as stale:
                report.unproven.append(clause.id)
                report.problems.append(f"{clause.id}: a mutant is stale: {stale}")
        for number, (operation, mutant) in enumerate(everything, len(wanted)):
            on_progress(number, len(wanted) + len(everything))
            report.tried[operation] += 1
            if _noticed(bench, mutant):
                report.caught[operation] += 1
            else:
                report.problems.append(f"survived: {mutant}")
    return report


def _noticed(bench: _Bench, mutant: Mutant) -> bool:
    """Whether some clause fails, on one of the scenarios that are tried."""
    for name in TRIED:
        if name in bench.scenarios:
            verdicts, _ = bench.verdicts(mutant, name)
            if any(v.status is Status.FAIL for v in verdicts):
                return True
    return False


# ---- mutants of a trace: what no trainer can be made to do through its recorder ----------------------------


def _drop_end(path: Path) -> None:
    """Leave out the end of the first span of on_train_start."""
    header, *events, footer = path.read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in events]
    index = next(i for i, row in enumerate(rows) if row["ph"] == "E" and row["hook"] == "on_train_start")
    del rows[index]
    for number, row in enumerate(rows):
        row["seq"] = number
    last = {**json.loads(footer), "events": len(rows)}
    lines = [header, *(json.dumps(row) for row in rows), json.dumps(last)]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


TRACES: Mapping[str, Callable[[Path], None]] = {"drop-end": _drop_end}


def print_selftest(report: SelftestReport, console: Console) -> None:
    """The figures, and every problem in a line."""
    total = len(report.proven) + len(report.unproven)
    console.print(f"clauses proven by a mutant: {len(report.proven)} of {total}, with {report.mutants} mutants")
    for operation, tried in report.tried.items():
        console.print(f"hook calls of the loops, {operation}: {report.caught[operation]} of {tried} caught")
    for clause in report.unproven:
        console.print(f"unproven: {clause}", markup=False, highlight=False)
    for problem in report.problems:
        console.print(f"- {problem}", markup=False, highlight=False)
    console.print("Every clause can fail, for its reason." if report.ok else "The suite is not proven.")
