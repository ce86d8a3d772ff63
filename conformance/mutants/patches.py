"""A patch: what is replaced in the engine's source, found wherever it has been moved to.

The engine is found, not imported, as source text. A patch names a function, method or class, not a file,
and its text is compared token by token, so that code can be moved, indented and wrapped anew.
"""

from __future__ import annotations

import ast
import difflib
import importlib.util
import io
import textwrap
import tokenize
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import CodeType
from typing import NamedTuple

__all__ = ["PACKAGE", "Patch", "StaleMutant", "definitions", "file_of", "module_of", "patched", "sources"]

PACKAGE = "refimpl"
LAYOUT = {tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.COMMENT, tokenize.ENDMARKER}


class StaleMutant(ValueError):
    """A patch does not fit the engine's source any more; the message says which and why."""


@dataclass(frozen=True)
class Patch:
    """Replace `find` by `replace` in one function, method or class of the engine.

    `within` is its qualified name, "train_batch.closure"; where several modules have it, with the module's
    in front, "loops:fit". "loops:" alone is the whole module. `find` is a run of whole tokens (statements, a
    header, an expression), and is there once; layout and comments do not count. The lines of `replace`
    are indented from the place where `find` begins. All patches of a mutant refer to the healthy engine.
    """

    within: str
    find: str
    replace: str


class Token(NamedTuple):
    """A token, its row (from 1), and where in the text it begins and ends."""

    text: str
    row: int
    start: int
    end: int


@cache
def _folder() -> Path:
    spec = importlib.util.find_spec(PACKAGE)
    assert spec is not None and spec.submodule_search_locations
    return Path(next(iter(spec.submodule_search_locations)))


@cache
def _files() -> Mapping[str, Path]:
    """The engine's modules by their dotted names."""
    files = {}
    for path in sorted(_folder().rglob("*.py")):
        parts = path.relative_to(_folder()).with_suffix("").parts
        files[".".join((PACKAGE, *(part for part in parts if part != "__init__")))] = path
    return files


def file_of(module: str) -> str:
    """The path of a module, by its dotted name."""
    return str(_files()[module])


@cache
def sources() -> Mapping[str, str]:
    """The text of each module of the engine, by its dotted name."""
    return {name: path.read_text(encoding="utf-8") for name, path in _files().items()}


def module_of(ending: str) -> str:
    """The dotted name of the module whose name ends so. Raises StaleMutant unless there is one."""
    return _only(f"{ending}:", [name for name in sources() if _is(name, ending)])


def _is(name: str, ending: str) -> bool:
    return f".{name}".endswith(f".{ending}")


def _only(what: str, modules: Sequence[str]) -> str:
    """The one module that has something, or a StaleMutant that says how to name it."""
    if not modules:
        near = difflib.get_close_matches(what, {name for text in sources().values() for name in definitions(text)}, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise StaleMutant(f"the engine has no function, method, class or module {what!r}{hint}")
    if len(modules) > 1:
        full = f"{modules[-1].removeprefix(PACKAGE + '.')}:{what.rpartition(':')[2]}"
        raise StaleMutant(f"{what!r} is in {' and '.join(modules)}; put the module in front, such as {full!r}")
    return modules[0]


@cache
def definitions(text: str) -> Mapping[str, Sequence[range]]:
    """The qualified names of a module's functions, methods and classes, and their rows; "" is the whole."""
    found: dict[str, list[range]] = {"": [range(1, text.count("\n") + 2)]}

    def visit(node: ast.AST, outer: str) -> None:
        for child in ast.iter_child_nodes(node):
            name = outer
            if isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
                name = f"{outer}.{child.name}".lstrip(".")
                first = min(part.lineno for part in (child, *child.decorator_list))
                found.setdefault(name, []).append(range(first, (child.end_lineno or first) + 1))
            visit(child, name)

    visit(ast.parse(text), "")
    return found


@cache
def _tokens(text: str) -> Sequence[Token]:
    """The tokens of a text or of a part of one, without layout, comments, and the comma before a closing bracket."""
    begins = [0]
    for line in text.split("\n"):
        begins.append(begins[-1] + len(line) + 1)
    found: list[Token] = []
    try:  # behind an open bracket, indentation means nothing to the tokenizer
        for kind, string, (row, start), (last, end), _ in tokenize.generate_tokens(io.StringIO("(\n" + text).readline):
            if row == 1 or kind in LAYOUT:
                continue
            if found and found[-1].text == "," and string in (")", "]", "}"):
                found.pop()
            found.append(Token(" ".join(string.split()), row - 1, begins[row - 2] + start, begins[last - 2] + end))
    except tokenize.TokenError:
        pass  # ... which nothing closes
    return found


def _place(patch: Patch) -> tuple[str, int, int]:
    """The module of a patch, and from where to where it replaces the text. Raises StaleMutant."""
    prefix, _, name = patch.within.rpartition(":")
    inside = {module: text for module, text in sources().items() if not prefix or _is(module, prefix)}
    module = _only(patch.within, [module for module, text in inside.items() if name in definitions(text)])
    rows = definitions(inside[module])[name]
    tokens = [token for token in _tokens(inside[module]) if any(token.row in span for span in rows)]
    texts, wanted = [token.text for token in tokens], [token.text for token in _tokens(patch.find)]
    starts = [i for i in range(len(texts) - len(wanted) + 1) if texts[i : i + len(wanted)] == wanted]
    if len(starts) != 1:
        raise StaleMutant(f"{patch.within} holds {patch.find[:200]!r} {len(starts)} times; a patch needs it once")
    return module, tokens[starts[0]].start, tokens[starts[0] + len(wanted) - 1].end


def patched(patches: Sequence[Patch]) -> dict[str, CodeType]:
    """The changed modules by their names, compiled. Raises StaleMutant where a patch does not fit."""
    places: dict[str, list[tuple[int, int, str]]] = {}
    for patch in patches:
        module, start, end = _place(patch)
        column = start - (sources()[module].rfind("\n", 0, start) + 1)
        lines = textwrap.dedent(patch.replace).strip("\n").replace("\n", "\n" + " " * column)
        places.setdefault(module, []).append((start, end, lines))
    codes = {}
    for module, changes in places.items():
        text, until = sources()[module], len(sources()[module])
        for start, end, lines in sorted(changes, reverse=True):
            if end > until:
                raise StaleMutant(f"two patches of {module} overlap, the second with {lines[:200]!r}")
            text, until = text[:start] + lines + text[end:], start
        try:
            codes[module] = compile(text, f"<mutant of {module}>", "exec")
        except SyntaxError as error:
            raise StaleMutant(f"{module} is no Python with {[lines[:200] for *_, lines in changes]}: {error}") from None
    return codes
