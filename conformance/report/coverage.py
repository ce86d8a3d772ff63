"""The coverage page: every heading of the documentation, and where each of its statements is shown to hold.

`conformance/spec/headings.toml` has the headings in the documentation's order, with their statements in our words.
A clause comes under a heading where a statement names it, and where its `source` names the heading.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from conformance.clauses import SPEC, Clause, read_tables
from conformance.report.cells import plural
from conformance.report.order import GENERATED, table

__all__ = ["Heading", "Statement", "coverage_page", "load_headings", "matching", "named_by_source"]

HEAD = """# Coverage of the documentation

Every heading of the documentation of August 2021, in its order, and what it says, a statement each, in our words.
Beside it stands where the statement is shown to hold: [clauses](clauses.md), by which every trainer is judged; tests of
this repository, for what no trace can show; or the reason why it is neither. Clauses whose source is the heading and
that no statement names are listed below its table.

{headings}, {statements}: {judged} judged by clauses, {tested} by tests alone, {neither} by neither.
"""


@dataclass(frozen=True)
class Statement:
    """What the documentation says, and where it is shown: `clauses`, ids or globs of them; `tests`, each
    `tests/test_x.py::test_name` or a file of them; or, where it is not, the `reason`."""

    says: str
    clauses: Sequence[str] = ()
    tests: Sequence[str] = ()
    reason: str = ""


@dataclass(frozen=True)
class Heading:
    """A heading of the documentation: its `level` there, its `original` name where ours is another, and what the
    sources of clauses call it beside its name (`known_as`)."""

    name: str
    level: int
    statements: Sequence[Statement]
    original: str = ""
    known_as: Sequence[str] = ()


Rows = Sequence[tuple[Statement, Sequence[str]]]  # with the ids of the clauses that a statement names


def load_headings() -> list[Heading]:
    """The headings, in the documentation's order."""

    def heading(statements: Iterable[Mapping[str, Any]], **fields: Any) -> Heading:
        return Heading(statements=[Statement(**statement) for statement in statements], **fields)

    return [heading(**row) for row in read_tables(SPEC / "headings.toml", "heading")]


def matching(statement: Statement, clauses: Iterable[str]) -> list[str]:
    """The ids that the statement names, in the registry's order."""
    return [name for name in clauses if any(fnmatchcase(name, pattern) for pattern in statement.clauses)]


def named_by_source(clause: Clause, headings: Sequence[Heading]) -> Iterator[str]:
    """The headings that a clause's source names: of each part between semicolons the first that is not "Hooks",
    since "Hooks: on_fit_start" is about one of them."""
    names = {name: heading.name for heading in headings for name in (heading.name, *heading.known_as)}
    longest_first = sorted(map(re.escape, names), key=len, reverse=True)
    pattern = re.compile(rf"(?<![\w.])({'|'.join(longest_first)})(?!\w)")
    for part in clause.source.split(";"):
        found = [names[name] for name in pattern.findall(part)]
        yield from sorted(found, key=lambda name: name == "Hooks")[:1]


def coverage_page(headings: Sequence[Heading], clauses: Mapping[str, Clause]) -> str:
    """`docs/coverage.md`: a table of statements per heading, and the other clauses about it."""
    named = [[(statement, matching(statement, clauses)) for statement in heading.statements] for heading in headings]
    kinds = Counter(_kind(statement, names, clauses) for rows in named for statement, names in rows)
    counts = {kind: kinds[kind] for kind in ("judged", "tested", "neither")}
    head = HEAD.format(
        headings=plural(len(headings), "heading"), statements=plural(kinds.total(), "statement"), **counts
    )
    about = {clause.id: set(named_by_source(clause, headings)) for clause in clauses.values()}
    sections: list[str] = []
    for heading, rows in zip(headings, named):
        listed = {name for _, names in rows for name in names}
        others = [name for name in clauses if heading.name in about[name] and name not in listed]
        sections += _section(heading, rows, others, clauses)
    return "\n".join([GENERATED, head, *sections])


def _section(
    heading: Heading, rows: Rows, others: Sequence[str], clauses: Mapping[str, Clause]
) -> Iterator[str]:
    yield f"#{'#' * heading.level} {heading.name}\n"
    if heading.original:
        yield f"*{heading.original}*\n"
    shown = [(statement.says, _shown(statement, names, clauses)) for statement, names in rows]
    yield from table(("what it says", "where it is shown"), shown)
    if others:
        yield f"Other clauses: {_links(others, clauses)}\n"


def _kind(statement: Statement, names: Sequence[str], clauses: Mapping[str, Clause]) -> str:
    if any(not clauses[name].excluded for name in names):
        return "judged"
    return "tested" if statement.tests else "neither"


def _shown(statement: Statement, names: Sequence[str], clauses: Mapping[str, Clause]) -> str:
    tests = ", ".join(f"[{test.removeprefix('tests/')}](../{test.partition('::')[0]})" for test in statement.tests)
    return "; ".join(filter(None, (_links(names, clauses), tests, statement.reason)))


def _links(names: Iterable[str], clauses: Mapping[str, Clause]) -> str:
    """Links into the clause list; an excluded clause with the reason why it is not checked."""
    return ", ".join(
        f"[`{name}`](clauses.md#{name})" + (f" ({clauses[name].excluded})" if clauses[name].excluded else "")
        for name in names
    )
