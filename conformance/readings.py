"""The rows of `docs/interpretations.md`: how the text was read where it is silent or contradicts itself, and which
clauses rest on that."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import NamedTuple

__all__ = ["PAGE", "Reading", "readings", "resting_on"]

PAGE = Path(__file__).resolve().parent.parent / "docs" / "interpretations.md"

_ROW = re.compile(r"^## (?P<id>R\d+)\. (?P<title>.+?)\n(?P<text>.*?)(?=^## |\Z)", re.MULTILINE | re.DOTALL)
_LINE = re.compile(r"^- \*\*(?P<label>.+?)\*\*: (?P<text>.*?)(?=^- \*\*|\Z)", re.MULTILINE | re.DOTALL)
_CLAUSES = re.compile(r"^- \*\*Clauses\*\*:(?P<text>.*?)(?=^- |\Z)", re.MULTILINE | re.DOTALL)


class Reading(NamedTuple):
    """A row: its number, as "R9", what it is about, its lines, and the ids or globs of the clauses that rest on it."""

    id: str
    title: str
    text: str
    clauses: tuple[str, ...]

    @property
    def lines(self) -> list[tuple[str, str]]:
        """Each line's label and words, "Why" and so on, without links, and but for the clauses."""
        plain = re.sub(r"\[([^\]]+)\]\([^)]*\)", r"\1", self.text)
        found = [(line["label"].replace("**", ""), line["text"]) for line in _LINE.finditer(plain)]
        return [(label, " ".join(text.split())) for label, text in found if label != "Clauses"]


@cache
def readings() -> Mapping[str, Reading]:
    """All rows, by number; none where the package was installed without the page."""
    if not PAGE.is_file():
        return {}
    rows = {}
    for row in _ROW.finditer(PAGE.read_text(encoding="utf-8")):
        cited = " ".join(found["text"] for found in _CLAUSES.finditer(row["text"]))
        ids = tuple(re.findall(r"`([a-z_]+\.[^`]+)`", cited))
        rows[row["id"]] = Reading(row["id"], row["title"], row["text"].strip(), ids)
    return rows


def resting_on(clause: str) -> list[Reading]:
    """The rows that a clause rests on."""
    return [row for row in readings().values() if any(fnmatch.fnmatchcase(clause, glob) for glob in row.clauses)]
