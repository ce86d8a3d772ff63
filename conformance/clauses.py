"""The clause registry: the contract's numbered sentences, read from `spec/clauses/*.toml`.

One file per family. A clause has a stable id (`train.batch.transfer-after-start`), a level, a
sentence in our words, the section of the documentation it comes from, and a check (data: a kind and
its parameters) or the reason why it cannot be checked.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from .checks import CheckError, build

__all__ = ["Clause", "ClauseError", "load_clauses", "read_tables"]

SPEC = Path(__file__).parent / "spec"
LEVELS = ("MUST", "SHOULD", "MAY")
SLUG = re.compile(r"[a-z]+(\.[A-Za-z0-9_-]+)+").fullmatch


class ClauseError(ValueError):
    """A clause file is malformed; the message names the file, the clause and the fix."""


@dataclass(frozen=True)
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


def _clause(row: Mapping[str, Any], path: Path) -> Clause:
    where = f"{path.name}: clause {row.get('id', '?')!r}"
    missing = {"id", "level", "sentence", "source"} - row.keys()
    if missing:
        raise ClauseError(f"{where} lacks {', '.join(sorted(missing))}")
    unknown = row.keys() - {"id", "level", "sentence", "source", "check", "excluded", "line"}
    if unknown:
        raise ClauseError(f"{where} has unknown keys {', '.join(sorted(unknown))}")
    if not SLUG(str(row["id"])):
        raise ClauseError(f"{where}: an id is {path.stem}.some-slug: letters, digits, - and _ between dots")
    if row["level"] not in LEVELS:
        raise ClauseError(f"{where}: level {row['level']!r} is none of {', '.join(LEVELS)}")
    if bool(row.get("check")) == bool(row.get("excluded")):
        raise ClauseError(f"{where} needs either a check or the reason why it is excluded")
    if row["id"].split(".", 1)[0] != path.stem:
        raise ClauseError(f"{where} belongs into {row['id'].split('.', 1)[0]}.toml: one file per family")
    if row.get("check"):
        try:
            build(row["check"])
        except CheckError as error:
            raise ClauseError(f"{where}: check: {error}") from None
    return Clause(**row)


def read_tables(path: Path, name: str) -> list[Mapping[str, Any]]:
    """The tables `[[name]]` of a file. Raises ClauseError naming the file."""
    try:
        rows: Any = tomllib.loads(path.read_text(encoding="utf-8")).get(name)
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ClauseError(f"{path.name}: {error}") from None
    if not isinstance(rows, list) or not all(isinstance(row, Mapping) for row in rows):
        raise ClauseError(f"{path.name} has no [[{name}]] tables")
    return rows


@cache
def load_clauses() -> Mapping[str, Clause]:
    """Every clause by id, family by family in the order of the files' contents."""
    clauses: dict[str, Clause] = {}
    for path in sorted((SPEC / "clauses").glob("*.toml")):
        for row in read_tables(path, "clause"):
            clause = _clause(row, path)
            if clause.id in clauses:
                raise ClauseError(f"{path.name}: clause {clause.id!r} is defined twice")
            clauses[clause.id] = clause
    return clauses
