"""The verdicts in a terminal: who was judged, a table by family, and each clause that fails.

Statuses are words, never colour alone, so a log file reads as well as a screen does. Nothing is added up
across trainers: the report says where each one departs, not which one is best.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from conformance.causes import Cause
from conformance.clauses import Clause
from conformance.report.cells import Cell, Finding, Row, count, families, plural, printable
from conformance.verdicts import Status, TrainerRun

__all__ = ["print_summary"]

_STYLES = {
    Status.PASS: "green",
    Status.FAIL: "bold red",
    Status.ERROR: "bold magenta",
    Status.UNSUPPORTED: "yellow",
}
_WORDS = {Status.NOT_APPLICABLE: "not reached"}
_COLUMNS = (Status.PASS, Status.FAIL, Status.UNSUPPORTED, Status.ERROR)

# What is shown without `verbose`: enough to recognise the failure, little enough to read on.
_SCENARIOS = 4
_FINDINGS = 3
_EXPLAINED = 8
_QUIET_FAMILIES = 5


def print_summary(
    runs: Sequence[TrainerRun],
    clauses: Mapping[str, Clause],
    profile: str,
    console: Console,
    verbose: bool = False,
    causes: Mapping[str, Sequence[Cause]] | None = None,
) -> None:
    """Print what was judged and where the trainers depart; `verbose` adds the events around it. Of failures whose
    `causes` are told, by trainer, those that only follow from one are named beside it; `verbose` tells each in full."""
    out = _Printer(console, verbose)
    matrix = families(runs, clauses)
    rows = [row for family in matrix.values() for row in family]
    out.line(Text.assemble(("Conformance", "bold"), f" to profile {profile}: {plural(len(rows), 'clause')}"))
    for index, run in enumerate(runs):
        out.trainer(run, [row.cells[index] for row in rows])
    out.table(runs, matrix)
    failing = _only(rows, known=False)
    told = "" if causes is None else f" in {plural(sum(map(len, causes.values())), 'finding')}"
    out.departures("Failures", failing, told, None if verbose else causes)
    if verbose:
        out.departures("Known departures", _only(rows, known=True))
    else:
        out.known(_only(rows, known=True))
    out.line(Text(_conclusion(rows, told), style="bold"))


def _only(rows: Iterable[Row], known: bool) -> list[Row]:
    """The rows in which a trainer departs, each with the cells that do, either known or not."""
    kept = (
        replace(row, cells=tuple(cell for cell in row.cells if cell.departs and cell.known is known)) for row in rows
    )
    return [row for row in kept if row.cells]


def _heads(rows: Sequence[Row], causes: Mapping[str, Sequence[Cause]]) -> list[Row]:
    """The rows whose clause is a cause, each with the cells of the trainers in which it is; then what broke."""
    by_id = {row.clause.id: row for row in rows}
    heads = dict.fromkeys(cause.verdict.clause for found in causes.values() for cause in found)
    of = {(trainer, cause.verdict.clause) for trainer, found in causes.items() for cause in found}
    kept = [
        replace(
            row,
            cells=tuple(
                cell
                for cell in row.cells
                if (cell.run.trainer, row.clause.id) in of or cell.status is Status.ERROR
            ),
        )
        for row in [*(by_id[clause] for clause in heads), *(row for row in rows if row.clause.id not in heads)]
    ]
    return [row for row in kept if row.cells]


def _conclusion(rows: Sequence[Row], told: str) -> str:
    cells = [cell for row in rows for cell in row.cells]
    if not any(cell.reached for cell in cells):
        return "Nothing was judged."
    failing, known = (sum(len(row.cells) for row in _only(rows, known)) for known in (False, True))
    parts = [plural(failing, "failure") + told if failing else "No failures"]
    if known:
        parts.append(plural(known, "known departure"))
    silent = [row.clause.id for row in rows if not any(cell.reached for cell in row.cells)]
    if silent:
        names = f" ({', '.join(silent)})" if len(silent) <= 3 else ""
        parts.append(f"{plural(len(silent), 'clause')} not reached by any scenario{names}")
    return ", ".join(parts) + "."


class _Printer:
    """A console that takes foreign text literally: no markup, no highlighting, no control characters."""

    def __init__(self, console: Console, verbose: bool) -> None:
        self.console = console
        self.verbose = verbose

    def safe(self, text: str) -> str:
        """`text` as this console can show it."""
        encoding = self.console.encoding or "utf-8"
        return printable(text).encode(encoding, "backslashreplace").decode(encoding)

    def line(self, text: Text, indent: int = 0, label: str = "") -> None:
        """Print `text` wrapped within the console's width, beside its label if it has one."""
        first = " " * indent + (f"{label:<9}" if label else "")
        for number, line in enumerate(text.wrap(self.console, max(self.console.width - len(first), 20))):
            line.rstrip()
            self.console.print(Text(first if number == 0 else " " * len(first)) + line, soft_wrap=True)

    def trainer(self, run: TrainerRun, cells: Sequence[Cell]) -> None:
        """The trainer, where it ran, and what came of it."""
        where = ", ".join(f"{key} {value}" for key, value in run.environment.items())
        name = (self.safe(f"{run.trainer} {run.version}".strip()), "bold")
        head = Text.assemble(name, self.safe(f"  {where}"))
        if not self.verbose:
            head.truncate(self.console.width, overflow="crop")
        self.line(head)
        tally = Text(", ").join(self._tally(count(cells)))
        reached = sum(cell.reached for cell in cells)
        self.line(Text.assemble(tally, f"  ({plural(reached, 'verdict')}, {run.seconds:.1f} s)"), indent=2)

    def _tally(self, counts: Counter[Status]) -> Iterator[Text]:
        for status in (*_COLUMNS, Status.NOT_APPLICABLE):
            if counts[status]:
                yield Text(f"{counts[status]} {_WORDS.get(status, status.value)}", _STYLES.get(status, ""))

    def table(self, runs: Sequence[TrainerRun], matrix: Mapping[str, Sequence[Row]]) -> None:
        """Families by trainers; families without anything to say are one line when there are many."""
        tallies = {
            family: [count(row.cells[index] for row in rows) for index in range(len(runs))]
            for family, rows in matrix.items()
        }
        broken = any(counts[Status.ERROR] for row in tallies.values() for counts in row)
        shown = _COLUMNS if broken else _COLUMNS[:-1]
        lines = {
            self.safe(family): [self._counts(tally, shown) for tally in row] for family, row in _fold(tallies).items()
        }
        first = min(max(map(len, lines), default=0), 20)
        share = (self.console.width - first) // max(len(runs), 1) - 3
        table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, header_style="")
        table.add_column("", overflow="fold", width=first)
        for index, run in enumerate(runs):
            name = Text(self.safe(run.trainer))
            counts = max((line[index].cell_len for line in lines.values()), default=0)
            width = max(counts, min(name.cell_len, share))  # a name may fold, a count may not
            table.add_column(name, justify="right", overflow="fold", width=width)
        for family, line in lines.items():
            table.add_row(Text(family), *line)
        self.console.print()
        self.line(Text("Clauses by family: " + "/".join(status.value for status in shown)))
        self.console.print(table, markup=False, highlight=False)
        self.console.print()

    def _counts(self, counts: Counter[Status], shown: Sequence[Status]) -> Text:
        parts = [Text(str(counts[s]), _STYLES[s] if counts[s] else "dim") for s in shown]
        return Text("/").join(parts)

    def departures(
        self, title: str, rows: Sequence[Row], told: str = "", causes: Mapping[str, Sequence[Cause]] | None = None
    ) -> None:
        """Each clause with the trainers that depart from it; with `causes`, those that are one, in their order."""
        if not rows:
            return
        self.line(Text(f"{title} ({sum(len(row.cells) for row in rows)}){told}", "bold underline"))
        self.console.print()
        for row in rows if causes is None else _heads(rows, causes):
            clause = row.clause
            self.line(Text.assemble((self.safe(clause.id), "bold"), f"  {self.safe(clause.level)}"))
            self.fields({"": clause.sentence, "source": clause.source, "line": clause.line}, indent=2)
            for cell in row.cells:
                found = (causes or {}).get(cell.run.trainer, ())
                self._cell(cell, next((cause for cause in found if cause.verdict.clause == clause.id), None))
            self.console.print()

    def known(self, rows: Sequence[Row]) -> None:
        """The known departures by trainer: each note once, with the clauses that it explains."""
        explained: dict[str, dict[str, list[str]]] = {}
        for row in rows:
            for cell in row.cells:
                if cell.note:
                    notes = explained.setdefault(cell.run.trainer, {})
                    notes.setdefault(cell.note.text, []).append(row.clause.id)
        for trainer, notes in explained.items():
            self.line(
                Text(self.safe(f"Known departures of {trainer} ({plural(len(notes), 'note')})"), "bold underline")
            )
            for text, ids in notes.items():
                self.line(Text(self.safe(text)), indent=2)
                self.line(Text(self.safe(", ".join(ids)), style="dim"), indent=4)
            self.console.print()

    def _cell(self, cell: Cell, cause: Cause | None) -> None:
        findings = cell.findings(Status.ERROR, Status.FAIL)
        shown = findings if self.verbose else findings[:_FINDINGS]
        if cause is not None:
            shown = [finding for finding in findings if cause.verdict.scenario in finding.scenarios][:1]
        for finding in shown:
            self._finding(cell, finding)
        if len(findings) > len(shown):
            self.line(Text(f"{plural(len(findings) - len(shown), 'other reason')} in this trainer"), indent=4)
        if cause is not None and cause.clauses[1:]:
            first, rest = cause.clauses[1 : _EXPLAINED + 1], cause.clauses[_EXPLAINED + 1 :]
            more = f" and {plural(len(rest), 'more clause')}" if rest else ""
            self.fields({"with it": f"{', '.join(first)}{more}"}, indent=4)
        if cell.known and cell.note:
            self.line(Text("known departure", "bold yellow"), indent=4)
            self.fields({"": cell.note.text, "evidence": cell.note.evidence}, indent=6)

    def _finding(self, cell: Cell, finding: Finding) -> None:
        verdict = finding.first
        head = Text.assemble(
            (self.safe(cell.run.trainer), "bold"), ": ", (verdict.status.value, _STYLES[verdict.status])
        )
        self.line(head.append(self.safe(f" in {self._names(finding.scenarios)}")), indent=2)
        beyond = f"{verdict.beyond} does not have it either" if verdict.beyond else ""
        told = {"reason": verdict.reason, "expected": verdict.expected, "seen": verdict.seen, "beyond": beyond}
        self.fields(told, indent=4)
        if self.verbose and verdict.context:
            event = "" if verdict.seq is None else f", event {verdict.seq}"
            self.line(Text(self.safe(f"trace of {verdict.scenario}{event}:")), indent=4)
            for line in verdict.context:
                self.line(Text(self.safe(line)), indent=6)

    def _names(self, scenarios: Sequence[str]) -> str:
        shown = scenarios if self.verbose or len(scenarios) <= _SCENARIOS + 1 else scenarios[:_SCENARIOS]
        more = f" and {len(scenarios) - len(shown)} more" if len(scenarios) > len(shown) else ""
        return f"{plural(len(scenarios), 'scenario')}: {', '.join(shown)}{more}"

    def fields(self, values: Mapping[str, str], indent: int) -> None:
        """Labelled values, those that there are."""
        for label, value in values.items():
            if value:
                self.line(Text(self.safe(value)), indent, label)


def _fold(tallies: Mapping[str, list[Counter[Status]]]) -> dict[str, list[Counter[Status]]]:
    """The families to show: all of them when few only pass; else the others, and those in one row."""
    quiet = {
        family: row
        for family, row in tallies.items()
        if all(set(counts) <= {Status.PASS, Status.NOT_APPLICABLE} for counts in row)
    }
    if len(quiet) <= _QUIET_FAMILIES:
        return dict(tallies)
    shown = {family: row for family, row in tallies.items() if family not in quiet}
    rest: list[Counter[Status]] = [sum(column, Counter()) for column in zip(*quiet.values(), strict=True)]
    name = f"{len(quiet)} others that pass" if shown else f"all {len(quiet)} families"
    return {**shown, name: rest}
