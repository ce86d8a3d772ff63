"""The tables of the files of `spec/`, and how a clause file is written.

A clause is a table `[[clause]]`. Where many are alike, one table stands for several:

    line = [   # each is called as often as the contract says, as a line of the function `loop`
        { hooks = ["backward", ...] },   # FAMILY.backward: "backward is called once per PER."
    ]
    order = [  # each has ended before the next begins
        { hooks = ["on_train_end", "on_fit_end", ...] },   # FAMILY.on_train_end-then-on_fit_end: "... comes before ..."
    ]

What is to be otherwise, a table says: `id`, `level` (MUST, or the family's word), `sentence`, `source`; a line's `per`;
and `given` and an order's `point`, which are keys of the check.

A file is the family's that it is named after, unless it has tables `words.FAMILY`, one for each of its families. Then
`{word}` in a string is the family's word, `{family}` its name, and a table of families in place of a string, `{ val =
"...", test = "..." }`, holds the family's own. A table of the file is for all of them, or for those that it is `of`.
What a line or an order does not say is the family's word: `loop`, `per` and `source`.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

__all__ = ["ClauseError", "clause_rows", "read_tables"]

Row = Mapping[str, Any]
WORD = re.compile(r"\{(\w+)\}")
SAID = ("id", "level", "sentence", "source")


class ClauseError(ValueError):
    """A clause file is malformed; the message names the file, the clause and the fix."""


class _Malformed(ValueError):
    """What is wrong with a table. Whoever knows which file it is in raises a ClauseError of it."""


def read_tables(path: Path, name: str) -> list[Row]:
    """The tables `[[name]]` of a file. Raises ClauseError naming the file."""
    return _tables(path, _read(path), name)


def clause_rows(path: Path) -> Iterator[tuple[str, Row]]:
    """The clauses of a file, each with its family, spelled out as a `[[clause]]`. Raises ClauseError."""
    found = {"line": [], "order": [], **_read(path)}
    families = _families(path, found)
    for family, words in families.items():
        for kind, spelled in (("line", _lines), ("order", _orders), ("clause", _alone)):
            for row in _tables(path, found, kind):
                try:
                    for clause in spelled(_told(row, words), words) if family in _of(row, families) else ():
                        yield family, clause
                except _Malformed as error:
                    shown = row.get("id", row.get("hooks", "?"))
                    raise ClauseError(f"{path.name}: {kind} {shown!r} {error}") from None


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ClauseError(f"{path.name}: {error}") from None


def _tables(path: Path, found: Row, name: str) -> list[Row]:
    rows = found.get(name)
    if not isinstance(rows, list) or not all(isinstance(row, Mapping) for row in rows):
        raise ClauseError(f"{path.name} has no [[{name}]] tables")
    return rows


# ---- the families of a file ---------------------------------------------------------------------------------


def _families(path: Path, found: Row) -> dict[str, dict[str, str]]:
    """The families of a file, each with its words."""
    words = found.get("words", {path.stem: {}})
    tables = list(words.values()) if isinstance(words, Mapping) else [words]
    if not all(isinstance(table, Mapping) and all(isinstance(w, str) for w in table.values()) for table in tables):
        raise ClauseError(f"{path.name}: words is no table of families, of strings each")
    return {family: {"family": family, **table} for family, table in words.items()}


def _of(row: Row, families: Row) -> list[str]:
    """The families that a table is for."""
    of = row.get("of", list(families))
    if not isinstance(of, list) or not set(map(str, of)) <= families.keys():
        raise _Malformed(f"is of {of!r}; a list out of {', '.join(families)} is accepted")
    return of


def _told(row: Row, words: Mapping[str, str]) -> dict[str, Any]:
    """The table as a family has it."""
    own = {key: value for key, value in row.items() if key != "of"}
    own.update((key, _word(row[key], words["family"])) for key in SAID if isinstance(row.get(key), Mapping))
    return {key: _in_words(value, words) for key, value in own.items()}


def _in_words(value: Any, words: Mapping[str, str]) -> Any:
    if isinstance(value, str):
        return WORD.sub(lambda found: _word(words, found[1]), value)
    if isinstance(value, list):
        return [_in_words(item, words) for item in value]
    return {key: _in_words(item, words) for key, item in value.items()} if isinstance(value, Mapping) else value


def _word(words: Row, name: str) -> str:
    if name not in words:
        raise _Malformed(f"needs the word {name!r}; there are {', '.join(words)}")
    return str(words[name])


# ---- the clauses that a table stands for --------------------------------------------------------------------


def _alone(row: Row, words: Row) -> Iterator[Row]:
    yield row


def _lines(row: Row, words: Row) -> Iterator[Row]:
    for text in _hooks(row, "per"):
        hook, _, scope = text.partition("@")
        check = {"kind": "count", "hooks": [f"{hook}@{scope or _word(words, 'loop')}"]}
        per = _word({**words, **row}, "per")
        yield {**_spelled(row, words, hook, f"{hook} is called once per {per}.", check), "line": f"{hook}()"}


def _orders(row: Row, words: Row) -> Iterator[Row]:
    for pair in pairwise(_hooks(row, "point")):
        first, then = (text.partition("@")[0] for text in pair)
        check = {"kind": "order", "first": pair[0], "then": pair[1]}
        yield _spelled(row, words, f"{first}-then-{then}", f"{first} comes before {then}.", check)


def _hooks(row: Row, own_key: str) -> list[str]:
    """The hooks of a line or an order, which has no other keys than those of both and its own."""
    hooks = row.get("hooks")
    if not isinstance(hooks, list) or not all(isinstance(hook, str) for hook in hooks):
        raise _Malformed(f"has hooks={hooks!r}; a list of names is accepted")
    if unknown := row.keys() - {"hooks", "given", own_key, *SAID}:
        raise _Malformed(f"has unknown keys {', '.join(sorted(unknown))}")
    return hooks


def _spelled(row: Row, words: Row, slug: str, sentence: str, check: Row) -> dict[str, Any]:
    """The `[[clause]]`: what the table says, and the rest as it is where nothing is said."""
    source = _word({**words, **row}, "source")
    level = words.get("level", "MUST")
    plain = {"id": f"{words['family']}.{slug}", "level": level, "sentence": sentence, "source": source}
    said = {key: row[key] for key in SAID if key in row}
    return {**plain, **said, "check": {**check, **{key: row[key] for key in ("point", "given") if key in row}}}
