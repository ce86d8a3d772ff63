"""What every report shares: the matrix of clauses by trainers, read off the verdicts.

A `Cell` is one clause for one trainer, over all scenarios; a `Row` is a clause with a cell for each
trainer. Nothing is stored that the verdicts do not say: the cell's status is the worst of its verdicts,
and verdicts that say the same thing in several scenarios are told once, as a `Finding`.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from conformance.clauses import Clause
from conformance.verdicts import Note, Status, TrainerRun, Verdict, worst

__all__ = ["Cell", "Finding", "Row", "count", "families", "plural", "printable"]

# What no report may pass on as it stands: control characters (a trace may come from anywhere, and ESC
# steers terminals), lone surrogates and non-characters (not allowed in XML), and the marks that reverse
# the direction of the text around them.
_UNPRINTABLE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff\ufffe\uffff]")

# The families in the order in which a run comes to them; others follow.
IN_ORDER = (
    "structure run fit sanity train transfer accumulation optimization skip manual tbptt val epoch test predict "
    "modes log callbacks checkpoint module data dp ddp given"
).split()


def printable(text: str) -> str:
    """`text` with everything that is not printable, tab or newline written as an escape: `\\x1b`."""
    return _UNPRINTABLE.sub(lambda match: repr(match[0])[1:-1], text)


def plural(number: int, noun: str) -> str:
    """`1 clause`, `1,204 clauses`."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


@dataclass(frozen=True)
class Finding:
    """One thing said of a clause, and the scenarios that say it; `first` is the verdict shown for all."""

    first: Verdict
    scenarios: tuple[str, ...]


@dataclass(frozen=True)
class Cell:
    """One clause for one trainer: the verdicts of all scenarios, and the note if a departure is known."""

    run: TrainerRun
    verdicts: tuple[Verdict, ...]
    note: Note | None

    @property
    def status(self) -> Status:
        """The status that matters most among the verdicts."""
        return worst(self.verdicts)

    @property
    def departs(self) -> bool:
        """Whether the clause failed, or could not be judged because something broke."""
        return self.status in (Status.FAIL, Status.ERROR)

    @property
    def known(self) -> bool:
        """Whether the cell fails and a note says why, in each scenario. A note never explains a broken harness."""
        return self.status is Status.FAIL and all(map(self.run.note_on, self.failures))

    @property
    def failures(self) -> tuple[Verdict, ...]:
        """The failing verdicts."""
        return tuple(verdict for verdict in self.verdicts if verdict.status is Status.FAIL)

    @property
    def reached(self) -> int:
        """How many verdicts say something: all but the not-applicable ones."""
        return sum(v.status is not Status.NOT_APPLICABLE for v in self.verdicts)

    def scenarios(self, *statuses: Status) -> tuple[str, ...]:
        """The scenarios judged so, each once, in the order in which they were judged."""
        return tuple(dict.fromkeys(v.scenario for v in self.verdicts if v.status in statuses))

    def findings(self, *statuses: Status) -> list[Finding]:
        """The verdicts of these statuses, those that say the same told once."""
        groups: dict[tuple[str, ...], list[Verdict]] = {}
        for verdict in self.verdicts:
            if verdict.status in statuses:
                key = (verdict.status, verdict.reason, verdict.expected, verdict.seen, verdict.beyond)
                groups.setdefault(key, []).append(verdict)
        return [
            Finding(group[0], tuple(dict.fromkeys(v.scenario for v in group))) for group in groups.values()
        ]


@dataclass(frozen=True)
class Row:
    """A clause and its cells, one for each trainer, in the order of the runs."""

    clause: Clause
    cells: tuple[Cell, ...]

    @property
    def departs(self) -> bool:
        """Whether any trainer departs from the clause here; that one is on record as doing so is no departure yet."""
        return any(cell.departs for cell in self.cells)

    @property
    def differs(self) -> bool:
        """Whether trainers that came to the clause have different outcomes."""
        return len({cell.status for cell in self.cells if cell.reached}) > 1


def families(runs: Sequence[TrainerRun], clauses: Mapping[str, Clause]) -> dict[str, list[Row]]:
    """The matrix by family, in the order of IN_ORDER: every clause that has a check, in the registry's order.

    A clause that was judged though the registry lacks it, or excludes it, still gets its row: a verdict
    must never get lost between the checker and the reader.
    """
    judged = [run.by_clause() for run in runs]
    matrix: dict[str, list[Row]] = {}
    for clause in _rows(judged, clauses):
        cells = tuple(
            Cell(run, tuple(verdicts.get(clause.id, ())), run.notes.get(clause.id))
            for run, verdicts in zip(runs, judged, strict=True)
        )
        matrix.setdefault(clause.family, []).append(Row(clause, cells))
    places = {family: place for place, family in enumerate(IN_ORDER)}
    return dict(sorted(matrix.items(), key=lambda item: places.get(item[0], len(places))))


def _rows(judged: Sequence[Mapping[str, object]], clauses: Mapping[str, Clause]) -> Iterator[Clause]:
    seen = dict.fromkeys(clause_id for verdicts in judged for clause_id in verdicts)
    for clause in clauses.values():
        if not clause.excluded or clause.id in seen:
            yield clause
    for clause_id in [c for c in seen if c not in clauses]:
        yield Clause(clause_id, "?", "This clause is not in the registry.", "unknown")


def count(cells: Iterable[Cell]) -> Counter[Status]:
    """How many cells have each status."""
    return Counter(cell.status for cell in cells)
