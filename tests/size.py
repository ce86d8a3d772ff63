"""How many code lines `refimpl` has, per file; `python -m tests.size` writes them into `docs/size.md`.

A code line is one that holds code: not blank, no comment, and not of a docstring.
"""

from __future__ import annotations

import ast
import io
import re
import tokenize
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "size.md"

_NO_CODE = {
    tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER
}  # fmt: skip
_ROW = re.compile(r"^\| (?:`(?P<file>[\w/]+\.py)`|\*\*(?P<group>.+)\*\*) \|(?P<lines>[\d, ]*)\|.*\|\n", re.MULTILINE)


def code_lines(source: str) -> int:
    """How many lines of `source` hold code."""
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    lines = {n for token in tokens if token.type not in _NO_CODE for n in range(token.start[0], token.end[0] + 1)}
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)) and node.body:
            first = node.body[0]
            if ast.get_docstring(node) is not None and first.end_lineno is not None:
                lines -= set(range(first.lineno, first.end_lineno + 1))
    return len(lines)


def counts() -> dict[str, int]:
    """The code lines of each file of `refimpl`."""
    engine = ROOT / "refimpl"
    files = {p.relative_to(engine).as_posix(): p.read_text(encoding="utf-8") for p in sorted(engine.rglob("*.py"))}
    return {name: lines for name, text in files.items() if (lines := code_lines(text))}


def rows(page: str) -> list[tuple[str, int]]:
    """The table in the page: files, and groups of the files below them, each with its number."""
    found = (row.group("file", "group", "lines") for row in _ROW.finditer(page))
    return [(file or group, int(lines.replace(",", "").strip() or 0)) for file, group, lines in found]


def limits(page: str) -> dict[str, int]:
    """How many code lines the page promises: "all" at most, and those of "the core" among them."""
    everything, core = re.findall(r"at most \*\*([\d,]+)\*\*", page)
    return {"all": int(everything.replace(",", "")), "the core": int(core.replace(",", ""))}


def filled(page: str) -> str:
    """The page with today's numbers, rounded to tens, and what each file is for; files that are gone are left out."""
    now, group, sums = counts(), "", {"all": sum(counts().values())}
    for row in _ROW.finditer(page):
        group = row["group"] or group
        sums[group] = sums.get(group, 0) + now.get(row["file"] or "", 0)

    def written(row: re.Match[str]) -> str:
        if row["group"]:
            return f"| **{row['group']}** | {sums[row['group']]:,} | |\n"
        if row["file"] not in now:
            return ""
        lines, said = now[row["file"]], ast.get_docstring(ast.parse((ROOT / "refimpl" / row["file"]).read_text()))
        return f"| `{row['file']}` | {round(lines, -1) or lines} | {(said or '').splitlines()[0]} |\n"

    return _ROW.sub(written, page)


if __name__ == "__main__":
    PAGE.write_text(filled(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
