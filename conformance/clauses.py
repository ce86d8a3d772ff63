"""The clause registry: the contract's numbered sentences, read from `spec/clauses/*.toml`.

A clause has a stable id (`train.batch.transfer-after-start`), a level, a sentence in our words, the section of the
documentation it comes from, and a check (data: a kind and its parameters) or the reason why it cannot be checked.
A file holds a family, or several that are alike; how it is written says `clause_tables.py`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from .checks import CheckError, build
from .clause_tables import ClauseError, clause_rows, read_tables

__all__ = ["Clause", "ClauseError", "load_clauses", "read_tables"]

SPEC = Path(__file__).parent / "spec"
LEVELS = ("MUST", "SHOULD", "MAY")
SLUG = re.compile(r"[a-z]+(\.[A-Za-z0-9_-]+)+").fullmatch


@dataclass(frozen=True, eq=False)
class Clause:
    """One sentence of the contract. `line` is the line of the pseudocode it is about, if it is one."""

    id: str
    level: str
    sentence: str
    source: str
    check: Mapping[str, Any] = field(default_factory=dict)
    excluded: str = ""
    line: str = ""

    @property
    def family(self) -> str:
        """The first part of the id: `train`, `val`, `modes`, ..."""
        return self.id.split(".", 1)[0]

    @property
    def kind(self) -> str:
        """Which check judges it; empty for an excluded clause."""
        return str(self.check.get("kind", ""))


def _clause(row: Mapping[str, Any], family: str, path: Path) -> Clause:
    where = f"{path.name}: clause {row.get('id', '?')!r}"
    missing = {"id", "level", "sentence", "source"} - row.keys()
    if missing:
        raise ClauseError(f"{where} lacks {', '.join(sorted(missing))}")
    unknown = row.keys() - {"id", "level", "sentence", "source", "check", "excluded", "line"}
    if unknown:
        raise ClauseError(f"{where} has unknown keys {', '.join(sorted(unknown))}")
    if not SLUG(str(row["id"])):
        raise ClauseError(f"{where}: an id is {family}.some-slug: letters, digits, - and _ between dots")
    if row["level"] not in LEVELS:
        raise ClauseError(f"{where}: level {row['level']!r} is none of {', '.join(LEVELS)}")
    if bool(row.get("check")) == bool(row.get("excluded")):
        raise ClauseError(f"{where} needs either a check or the reason why it is excluded")
    if row["id"].split(".", 1)[0] != family:
        raise ClauseError(f"{where} is none of the family {family}")
    if row.get("check"):
        try:
            build(row["check"])
        except CheckError as error:
            raise ClauseError(f"{where}: check: {error}") from None
    return Clause(**row)


@cache
def load_clauses() -> Mapping[str, Clause]:
    """Every clause by id, family by family in the order of the files' contents."""
    clauses: dict[str, Clause] = {}
    for path in (SPEC / "clauses").glob("*.toml"):
        for family, row in clause_rows(path):
            clause = _clause(row, family, path)
            if clause.id in clauses:
                raise ClauseError(f"{path.name}: clause {clause.id!r} is defined twice")
            clauses[clause.id] = clause
    return dict(sorted(clauses.items(), key=lambda item: item[1].family))
