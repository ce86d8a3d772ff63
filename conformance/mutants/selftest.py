"""Prove that every clause can fail, for its reason.

A clause is proven when the healthy engine passes it and a mutant fails it with the reason that the
mutant states, without failing a clause that has nothing to do with what was broken. Beside that, each
hook call of the engine's loops is dropped, doubled, and swapped with its neighbour, and recorded facts are
changed; some clause must notice every time.
"""

from __future__ import annotations

import fnmatch
import json
import re
import shutil
import tempfile
import tomllib
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, lru_cache
from itertools import islice
from pathlib import Path

from rich.console import Console

from ..checker import judge_file
from ..checks import build
from ..clauses import Clause
from ..features import applies, features
from ..scenario import DRAWN_NAMES, Scenario
from ..spec.contracts import expected
from ..verdicts import Status, Verdict
from .engine import SURVIVORS, Healthy, Mutant, judge_mutant, mutated
from .facts import Facts, Recorded, change_fact, survey
from .generated import mutants_for, systematic
from .patches import Patch, StaleMutant

__all__ = ["Bench", "SelftestReport", "authored", "mutants_of", "print_selftest", "selftest", "unnoticed"]

# Kinds of clauses about a whole run, what ends one or counts its updates, and arguments that sum it up: whatever is
# broken may show there.
WHOLE_RUN = ("sequence", "receivers", "balance", "state", "repeats", "handed")
ENDS, SUMMED_UP = ("run.returns", "train.optimizer.step"), ("loss", "status")
# How often each recorded fact is changed, and the share of its changes that has to be noticed.
DRAWN, ENOUGH = 40, 0.95
# Where a systematic mutant is tried if its own scenario does not show it.
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
    facts: Facts = field(default_factory=Facts)

    @property
    def ok(self) -> bool:
        """Whether every clause is proven, every systematic mutant caught, and of each fact enough changes noticed."""
        return not self.problems and not self.unproven and self.tried == self.caught


@cache
def authored() -> tuple[Mutant, ...]:
    """The mutants written by hand. Raises ValueError naming the file for a malformed row."""
    mutants: list[Mutant] = []
    for path in sorted(path for path in Path(__file__).parent.glob("*.toml") if path.name != SURVIVORS):
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


class Bench:
    """Mutants on scenarios, judged; beside them the healthy engine's verdicts, where they are asked for."""

    def __init__(
        self, clauses: Mapping[str, Clause], scenarios: Sequence[Scenario], scratch: Path, healthy: Healthy
    ) -> None:
        self.clauses, self.healthy = clauses, healthy
        self.scenarios = {scenario.name: scenario for scenario in scenarios}
        self.trace = scratch / "trace.jsonl"
        self.problems: list[str] = []  # of the healthy engine
        self._hooks = {c.id: build(c.check).hooks or frozenset() for c in clauses.values() if not c.excluded}
        self._passing: dict[str, set[str]] = {}
        self._of_engine = lru_cache(50)(self._judge_engine)  # once of a mutant that proves several clauses
        lengths = {name: sum(1 for _ in expected(scenario)) for name, scenario in self.scenarios.items()}
        # Last what starts processes, which takes long, and what is drawn: it has many features at once, and a mutant
        # shows there in more than its clause.
        late = {name for name in lengths if name.startswith(DRAWN_NAMES) or self.scenarios[name].starts_programs}
        self._simplest = sorted(lengths, key=lambda name: (name in late, lengths[name]))

    def passing(self, name: str) -> set[str]:
        """The clauses that the healthy engine passes on a scenario; it may fail none."""
        if name not in self._passing:
            try:
                verdicts = self.healthy.judged(self.scenarios[name], self.clauses)
            except RuntimeError as broken:  # the harness
                verdicts = []
                self.problems.append(f"the healthy engine on {name}: {str(broken).strip().splitlines()[-1]}")
            failing = [v.clause for v in verdicts if v.status is Status.FAIL]
            if failing:
                self.problems.append(f"the healthy engine on {name}: fails {', '.join(failing)}")
            self._passing[name] = {v.clause for v in verdicts if v.status is Status.PASS}
        return self._passing[name]

    def recorded(self) -> list[Recorded]:
        """The healthy engine's traces of all scenarios in one process."""
        alone = [scenario for scenario in self.scenarios.values() if scenario.processes == 1]
        return [Recorded.of(scenario, self.healthy(scenario)) for scenario in alone]

    def prove(self, clause: Clause) -> list[str]:
        """What is wrong with the clause's mutants: nothing, if it is proven."""
        mutants = mutants_of(clause)
        problems = [] if mutants else [f"{clause.id}: there is no mutant"]
        for mutant in mutants:
            try:
                problems += self._problems(clause.id, mutant)
            except StaleMutant as stale:
                problems.append(f"{clause.id}: a mutant is stale: {stale}")
        return problems

    def notices(self, mutant: Mutant) -> bool:
        """Whether some clause fails, on the mutant's scenario or one of the others that are tried."""
        names = dict.fromkeys((mutant.scenario, *TRIED))
        return any(verdict.status is Status.FAIL for name in names for verdict in self._verdicts(mutant, name)[0])

    def _problems(self, clause: str, mutant: Mutant) -> list[str]:
        """Whether the mutant fails the clause, for its reason, on one of the scenarios, and nothing else."""
        seen = f"{clause}: {mutant} is not caught"
        for scenario in self._where(clause, mutant):
            verdicts, error = self._verdicts(mutant, scenario, clause)
            if error:
                return [f"{clause}: {mutant} breaks the harness on {scenario}: {error[-200:]}"]
            verdict = next((v for v in verdicts if v.clause == clause), None)
            if verdict is None or verdict.status is not Status.FAIL:
                continue
            if re.search(mutant.reason, verdict.reason):
                strangers = ", ".join(self._strangers(clause, mutant, verdicts))
                return [f"{clause}: {mutant} also fails, on {scenario}, {strangers}"] if strangers else []
            seen = f"{clause}: {mutant} is caught for another reason: {verdict.reason}"
        return [seen]

    def _where(self, clause: str, mutant: Mutant) -> Iterable[str]:
        """The scenarios that can show it: the mutant's own, or the two simplest that pass the clause."""
        if mutant.scenario:
            return [mutant.scenario]
        check = self.clauses[clause].check
        able = (name for name in self._simplest if applies(check, features(self.scenarios[name])))
        return islice((name for name in able if clause in self.passing(name)), 2)

    def _verdicts(self, mutant: Mutant, name: str, clause: str = "") -> tuple[list[Verdict], str]:
        """Those on a mutant on the scenario of that name, and what broke if anything did."""
        if not mutant.events:
            return self._of_engine(mutant.patches, name)
        shutil.copyfile(self.healthy(self.scenarios[name]), self.trace)
        TRACES[mutant.events](self.clauses[clause], self.scenarios[name], self.trace)
        return judge_file(self.trace, self.clauses), ""

    def _judge_engine(self, patches: tuple[Patch, ...], name: str) -> tuple[list[Verdict], str]:
        """Those on an engine with these patches."""
        with mutated(patches) as engine:
            return judge_mutant(engine, self.scenarios[name], self.clauses, self.trace)

    def _strangers(self, clause: str, mutant: Mutant, verdicts: Iterable[Verdict]) -> list[str]:
        """Failing clauses that share no hook with what was broken."""
        touched = set(mutant.hooks or self._hooks[clause])
        return [
            v.clause
            for v in verdicts
            if v.status is Status.FAIL
            and v.clause not in (*mutant.clauses, *ENDS)
            and self.clauses[v.clause].kind not in WHOLE_RUN
            and self.clauses[v.clause].check.get("field") not in SUMMED_UP
            and not touched & self._hooks[v.clause]
            and not any(fnmatch.fnmatchcase(v.clause, pattern) for pattern in mutant.also)
        ]


def selftest(
    clauses: Mapping[str, Clause],
    scenarios: Sequence[Scenario],
    on_progress: Callable[[int, int], None] = lambda done, total: None,
    only: Sequence[str] | None = None,
) -> SelftestReport:
    """Prove the clauses (those that match a glob of `only`), then try the systematic mutants."""
    report = SelftestReport()
    wanted = [
        clause
        for clause in clauses.values()
        if not clause.excluded and (not only or any(fnmatch.fnmatchcase(clause.id, glob) for glob in only))
    ]
    everything = [] if only else list(systematic())
    with tempfile.TemporaryDirectory(prefix="selftest-") as scratch:
        bench = Bench(clauses, scenarios, Path(scratch), Healthy(Path(scratch, "healthy")))
        for name in () if only else bench.scenarios:
            bench.passing(name)
        for number, clause in enumerate(wanted):
            on_progress(number, len(wanted) + len(everything))
            report.mutants += len(mutants_of(clause))
            problems = bench.prove(clause)
            report.problems += problems
            (report.unproven.append if problems else report.proven.add)(clause.id)
        for number, (operation, mutant) in enumerate(everything, len(wanted)):
            on_progress(number, len(wanted) + len(everything))
            report.tried[operation] += 1
            if bench.notices(mutant):
                report.caught[operation] += 1
            else:
                report.problems.append(f"survived: {mutant}")
        if not only:
            report.facts = survey(bench.recorded(), clauses, DRAWN)
            report.problems += unnoticed(report.facts)
    report.problems += bench.problems
    return report


def unnoticed(facts: Facts) -> list[str]:
    """The facts of which too few changes were noticed, each with one that was not."""
    few = [fact for fact, times in facts.changed.items() if facts.noticed[fact] < ENOUGH * times]
    return [next(unseen for unseen in facts.unseen if unseen.startswith(f"{fact}=")) for fact in few]


# ---- mutants of a trace: what no trainer can be made to do through its recorder ----------------------------


def _drop_end(clause: Clause, scenario: Scenario, path: Path) -> None:
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


TRACES: Mapping[str, Callable[[Clause, Scenario, Path], None]] = {"drop-end": _drop_end, "fact": change_fact}


def print_selftest(report: SelftestReport, console: Console) -> None:
    """The figures, and every problem in a line."""
    total = len(report.proven) + len(report.unproven)
    console.print(f"clauses proven by a mutant: {len(report.proven)} of {total}, with {report.mutants} mutants")
    for operation, tried in report.tried.items():
        console.print(f"hook calls of the loops, {operation}: {report.caught[operation]} of {tried} caught")
    for what, kind in (("arguments", "args"), ("effects", "fx")):
        for fact in (fact for fact in report.facts.changed if fact.startswith(f"{kind}.")):
            noticed, times = report.facts.noticed[fact], report.facts.changed[fact]
            console.print(f"recorded {what}, {fact.partition('.')[2]}: {noticed} of {times} changes noticed")
    for clause in report.unproven:
        console.print(f"unproven: {clause}", markup=False, highlight=False)
    for problem in report.problems:
        console.print(f"- {problem}", markup=False, highlight=False)
    console.print("Every clause can fail, for its reason." if report.ok else "The suite is not proven.")
