"""Mutants of the whole engine (see `syntax.py`), each tried on scenarios that execute what it changes: does the
conformance run notice?

Noticed is a verdict that fails, a run that breaks or does not end. What survives is listed in `survivors.toml`, with
the reason why it may: it is equivalent, or outside of the contract. A row that excuses nothing any more is stale.
"""

from __future__ import annotations

import gc
import os
import random
import signal
import tempfile
import time
import tomllib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import chdir, suppress
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from functools import cache
from multiprocessing.connection import Connection, Pipe, wait
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from ..clauses import Clause
from ..scenario import Scenario
from ..verdicts import Status
from .engine import SURVIVORS, judge_mutant, loaded
from .reach import FEW, Reach
from .syntax import SyntaxMutant, syntax_mutants

__all__ = ["ENOUGH", "Excuse", "Report", "excuses", "print_report", "survey"]

ENOUGH = 0.95  # of a file's mutants that are not excused
HANGS = 5  # seconds; a scenario takes a fraction of one
KINDS = ("equivalent", "outside")


# ---- who may survive ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Excuse:
    """Why mutants survive: those in the functions that match one of `within`, "module:Class.method", globs, whose
    change has one of the `texts` in it; without any, all of them."""

    within: tuple[str, ...]
    texts: tuple[str, ...]
    kind: str
    reason: str

    def covers(self, mutant: SyntaxMutant) -> bool:
        """Whether it is about this mutant."""
        if not any(fnmatchcase(mutant.where, glob) for glob in self.within):
            return False
        return not self.texts or any(text in mutant.change for text in self.texts)

    def __str__(self) -> str:
        return " | ".join((", ".join(self.within), *self.texts))


@cache
def excuses() -> tuple[Excuse, ...]:
    """The rows of `survivors.toml`. Raises ValueError for a malformed one."""
    rows = tomllib.loads((Path(__file__).parent / SURVIVORS).read_text(encoding="utf-8"))["survivor"]
    for number, row in enumerate(rows, 1):
        if row.keys() - {"texts"} != {"in", "kind", "reason"} or row["kind"] not in KINDS or not row["reason"]:
            raise ValueError(f"{SURVIVORS}: row {number} needs in, kind ({' or '.join(KINDS)}) and reason")
    return tuple(Excuse(tuple(row["in"]), tuple(row.get("texts", ())), row["kind"], row["reason"]) for row in rows)


# ---- a mutant, in a process of its own ------------------------------------------------------------------------


@dataclass(frozen=True)
class Outcome:
    """What became of a mutant: noticed on a scenario, by what; or not."""

    scenario: str = ""
    by: str = ""


def try_mutant(mutant: SyntaxMutant, names: Iterable[str], reach: Reach, clauses: Mapping[str, Clause]) -> Outcome:
    """Run it on the scenarios until one notices."""
    first = ""
    with tempfile.TemporaryDirectory() as folder, chdir(folder):  # where it may write what it likes
        trace = Path(folder) / "trace.jsonl"
        try:
            with loaded({mutant.module: mutant.code()}) as module:
                for name in names:
                    first = name
                    if by := _noticed(module, reach, name, clauses, trace):
                        return Outcome(name, by)
        except Exception as error:  # while it was imported, or judged
            return Outcome(first or "import", f"{type(error).__name__}: {error}"[:200])
    return Outcome()


def _noticed(module: Any, reach: Reach, name: str, clauses: Mapping[str, Clause], trace: Path) -> str:
    """What notices a mutant on a scenario, if anything does: a clause, or that it breaks the harness."""
    scenario = reach.scenarios[name]
    verdicts, error = judge_mutant(module, scenario, clauses, trace, reach.traces[name], HANGS)
    return error.strip()[-200:] or next((verdict.clause for verdict in verdicts if verdict.status is Status.FAIL), "")


class _Worker:
    """A process with one mutant."""

    def __init__(self, mutant: SyntaxMutant, work: Callable[[], Outcome], allowed: float) -> None:
        self.mutant, self.deadline = mutant, time.monotonic() + allowed
        self.end, end = Pipe(duplex=False)
        self.pid = os.fork()
        if not self.pid:
            self._be(end, work)
        end.close()

    def _be(self, end: Connection, work: Callable[[], Outcome]) -> None:
        try:
            os.setsid()  # so that what it forks ends with it
            nothing = os.open(os.devnull, os.O_RDWR)
            for stream in (1, 2):
                os.dup2(nothing, stream)
            outcome = work()
            end.send(outcome)
        finally:
            os._exit(0)

    def outcome(self) -> Outcome:
        """What it has told; or how it ended without a word."""
        told = Outcome("?", "ended without a word")
        with suppress(EOFError, OSError):
            if self.end.poll():
                told = self.end.recv()
            elif time.monotonic() >= self.deadline:
                told = Outcome("?", "does not end")
        with suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        with suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)
        self.end.close()
        return told


def _in_processes(
    jobs: Iterable[tuple[SyntaxMutant, Callable[[], Outcome], float]], count: int
) -> Iterator[tuple[SyntaxMutant, Outcome]]:
    """The outcomes, as they come; `count` at a time, each in a process of its own."""
    waiting, running = iter(jobs), list[_Worker]()
    try:
        while True:
            while len(running) < count and (job := next(waiting, None)) is not None:
                running.append(_Worker(*job))
            if not running:
                return
            ready = wait([worker.end for worker in running], timeout=0.5)
            for worker in list(running):
                if worker.end in ready or time.monotonic() >= worker.deadline:
                    running.remove(worker)
                    yield worker.mutant, worker.outcome()
    finally:
        for worker in running:
            worker.outcome()


# ---- all of them ------------------------------------------------------------------------------------------


@dataclass
class Report:
    """What came of it, by file."""

    tried: Counter[str] = field(default_factory=Counter)
    noticed: Counter[str] = field(default_factory=Counter)
    excused: Counter[str] = field(default_factory=Counter)
    survivors: list[SyntaxMutant] = field(default_factory=list)
    unreached: list[SyntaxMutant] = field(default_factory=list)  # no scenario executes them: they are not tried
    stale: list[Excuse] = field(default_factory=list)
    outcomes: dict[SyntaxMutant, Outcome] = field(default_factory=dict)
    seconds: float = 0.0
    is_sample: bool = False

    def share(self, file: str) -> float:
        """Of a file's mutants that nothing excuses, how many are noticed."""
        asked = self.tried[file] - self.excused[file]
        return self.noticed[file] / asked if asked else 1.0

    @property
    def ok(self) -> bool:
        """Whether enough is noticed in every file, of a sample in all of them, and every excuse holds."""
        if self.is_sample:
            return len(self.survivors) <= (1 - ENOUGH) * sum(self.tried.values())
        return not self.stale and all(self.share(file) >= ENOUGH for file in self.tried)


def survey(
    clauses: Mapping[str, Clause], scenarios: Sequence[Scenario],
    on_progress: Callable[[int, int], None] = lambda done, total: None, globs: Sequence[str] = ("*",),
    sample: int = 0, seed: int = 0, tries: int = 0, processes: int = 2,
) -> Report:  # fmt: skip
    """Try the mutants of the files that match, or a drawn sample of those that the scenarios execute."""
    began, report = time.monotonic(), Report(is_sample=bool(sample))
    everything = mutants = syntax_mutants(globs)
    torch.set_num_threads(1)  # a pool of threads does not survive a fork
    with tempfile.TemporaryDirectory() as scratch:
        reach = Reach.recorded(scenarios, Path(scratch))
    if sample:
        reached = [mutant for mutant in everything if reach.executes(mutant)]
        mutants = random.Random(seed).sample(reached, min(sample, len(reached)))
    with loaded({}):  # compiles what all of them share
        gc.freeze()  # so that their memory stays shared, too
    # What noticed other mutants of a function, and of any: it is tried first.
    showed, shows = defaultdict[str, Counter[str]](Counter), Counter[str]()

    def jobs() -> Iterator[tuple[SyntaxMutant, Callable[[], Outcome], float]]:
        for mutant in mutants:
            known = showed[mutant.where]
            excused = any(excuse.covers(mutant) for excuse in excuses())
            names = sorted(
                reach.tried(mutant, FEW if excused else tries),
                key=lambda name: (-known[name], -shows[name] // reach.seconds[name]),
            )

            def work(mutant: SyntaxMutant = mutant, names: Sequence[str] = names) -> Outcome:
                return try_mutant(mutant, names, reach, clauses)

            if names:
                yield mutant, work, 2 * HANGS + sum(2 * reach.seconds[name] for name in names)
            else:
                report.unreached.append(mutant)

    for number, (mutant, outcome) in enumerate(_in_processes(jobs(), processes), 1):
        on_progress(number, len(mutants))
        report.outcomes[mutant] = outcome
        showed[mutant.where][outcome.scenario] += bool(outcome.scenario)
        shows[outcome.scenario] += bool(outcome.scenario)
    _count(report, mutants, everything if not sample else [])
    report.seconds = time.monotonic() - began
    return report


def _count(report: Report, mutants: Sequence[SyntaxMutant], everything: Sequence[SyntaxMutant]) -> None:
    """The figures; and the excuses that are about none of `everything`, or about none that survived."""
    used, unreached = set[Excuse](), set(report.unreached)
    for mutant in mutants:
        if mutant in unreached:
            continue
        report.tried[mutant.file] += 1
        if report.outcomes.get(mutant, Outcome()).scenario:
            report.noticed[mutant.file] += 1
            continue
        excused = [excuse for excuse in excuses() if excuse.covers(mutant)]
        used.update(excused)
        report.excused[mutant.file] += bool(excused)
        if not excused:
            report.survivors.append(mutant)
    tried = [excuse for excuse in excuses() if any(map(excuse.covers, everything))]
    report.stale = [excuse for excuse in tried if excuse not in used]


def print_report(report: Report, console: Console) -> None:
    """A row for each file, and each survivor in a line."""
    width = max(map(len, report.tried), default=0)
    unreached = Counter(mutant.file for mutant in report.unreached)
    heads = "mutants  noticed  excused  survivors      %  not executed"
    console.print(f"{'':<{width}}  {heads}", highlight=False, soft_wrap=True)
    for file, tried in report.tried.items():
        noticed, excused = report.noticed[file], report.excused[file]
        console.print(
            f"{file:<{width}}  {tried:>7}  {noticed:>7}  {excused:>7}  {tried - noticed - excused:>9}  "
            f"{100 * report.share(file):>5.1f}  {unreached[file]:>12}", highlight=False, soft_wrap=True,
        )  # fmt: skip
    for mutant in report.survivors:
        console.print(f"survived: {mutant}", markup=False, highlight=False, soft_wrap=True)
    for excuse in report.stale:
        console.print(f"stale, for nothing survives there: {excuse}", markup=False, highlight=False, soft_wrap=True)
    tried, noticed, excused = (sum(count.values()) for count in (report.tried, report.noticed, report.excused))
    console.print(
        f"{noticed} of {tried - excused} mutants are noticed, {excused} are excused by {len(excuses())} rows; "
        f"{report.seconds:.0f} seconds", highlight=False, soft_wrap=True,
    )  # fmt: skip
