"""What changes for somebody who goes from one trainer to another: hooks that are gone or new, what has moved, what
arguments and effects are others, over all scenarios that both can run.

With a module of the user's, only what it can notice: the hooks that it defines, the arguments that they take, and of
what moved that which changes the order of two of them.
"""

from __future__ import annotations

import ast
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from .checker import unsupported
from .diff import EFFECTS
from .edits import FUNCTIONS, KINDS, Edit, calls, edits
from .hooks import ARGUMENTS, HOOKS, MODULE_HOOKS
from .near import did_you_mean
from .report.cells import plural, printable
from .scenario import scenario_of
from .trace import TraceReader, open_trace

__all__ = ["CompareError", "Comparison", "compare", "overridden", "render", "to_json"]

# What the words of an exception are, what a trace says twice, and numbers that follow from others, are no difference.
UNTOLD = frozenset("raised outputs_keys outputs_graph outputs_values results_values returned".split())
SHOWN = 3  # scenarios named per row

# What a module defines: its hooks, each with the arguments that it takes, None where it takes any.
Hooks = Mapping[str, frozenset[str] | None]


class CompareError(ValueError):
    """There is no such file or class; the message says what there is."""


class Row(NamedTuple):
    """The same difference of one or several hooks, and the scenarios that show it."""

    function: str
    kind: str
    hooks: tuple[str, ...]
    detail: str
    scenarios: tuple[str, ...]


@dataclass
class Comparison:
    """What differs in trainer `b` from trainer `a`."""

    a: str
    b: str
    gone: list[str] = field(default_factory=list)
    new: list[str] = field(default_factory=list)
    rows: list[Row] = field(default_factory=list)
    compared: int = 0  # scenarios
    left_out: int = 0  # those that one of the two cannot run


def compare(
    a: str, b: str, traces: Sequence[tuple[Path, Path]], hooks: Hooks | None = None
) -> Comparison:
    """The differences in the pairs of traces, each of one scenario; `hooks` are those of the user's module, None for
    all. Of several processes the first one is looked at. Raises TraceError."""
    found = Comparison(a, b)
    seen: dict[Edit, list[str]] = {}
    for path_a, path_b in traces:
        with open_trace(path_a) as one, open_trace(path_b) as other:
            has_a, has_b = (frozenset(reader.header.declares["hooks"]) for reader in (one, other))
            scenario = scenario_of(one.header.scenario)
            found.gone = sorted(hook for hook in has_a - has_b if hooks is None or hook in hooks)
            found.new = sorted(hook for hook in has_b - has_a if hooks is None or hook in hooks)
            if unsupported(scenario, one.header) or unsupported(scenario, other.header):
                found.left_out += 1
                continue
            only_one = (has_a ^ has_b) & set(HOOKS)
            calls_a, calls_b = (calls(_events(reader, only_one)) for reader in (one, other))
            found.compared += 1
            for edit in dict.fromkeys(edits(calls_a, calls_b, EFFECTS, hooks)):
                if _is_told(edit) and (hooks is None or _is_noticed(edit, hooks)):
                    seen.setdefault(edit._replace(crossed=()), []).append(scenario.name)
    found.rows = list(_folded(seen))
    return found


def _events(reader: TraceReader, without: Collection[str]) -> Iterator[Any]:
    return (event for event in reader if event.rank == 0 and event.hook not in without)


def _is_told(edit: Edit) -> bool:
    return edit.kind != "argument" or UNTOLD.isdisjoint(edit.detail.split())


def _is_noticed(edit: Edit, hooks: Hooks) -> bool:
    """Whether a module with these hooks can: a move only if another of them is moved across, an argument of the
    documentation's only if the hook takes it."""
    if edit.hook not in hooks:
        return False
    taken = hooks[edit.hook]
    if edit.kind == "argument" and taken is not None:
        others = {*ARGUMENTS.get(edit.hook, ())} - taken
        return others.isdisjoint(edit.detail.split())
    return edit.kind != "moved" or not {*hooks}.isdisjoint(edit.crossed)


def _folded(seen: Mapping[Edit, list[str]]) -> Iterator[Row]:
    """Hooks that differ alike in the same scenarios are one row, and so is all that is alike of one hook; what most
    scenarios show comes first."""
    alike: dict[tuple[str, str, str, tuple[str, ...]], dict[str, None]] = {}
    for edit, names in seen.items():
        key = edit.function, edit.kind, edit.detail, tuple(dict.fromkeys(names))
        alike.setdefault(key, {})[edit.hook] = None
    rows: dict[tuple[str, str, tuple[str, ...], tuple[str, ...]], list[str]] = {}
    for (function, kind, detail, where), hooks in alike.items():
        rows.setdefault((function, kind, tuple(hooks), where), []).append(detail)
    places = {function: place for place, function in enumerate(FUNCTIONS)}  # what is in none of them comes last
    for row in sorted(rows, key=lambda row: (places.get(row[0], 9), -len(row[3]), KINDS.index(row[1]))):
        function, kind, of, where = row
        yield Row(function, kind, of, "; ".join(filter(None, rows[row])), where)


# ---- a module of the user's ----------------------------------------------------------------------


def overridden(path_and_class: str) -> tuple[Hooks, list[str]]:
    """The hooks that `FILE.py:CLASS` defines, itself or in a class of that file which it is derived from, and the bases
    that are elsewhere. The file is read, not run. Raises CompareError."""
    hooks: dict[str, frozenset[str] | None] = {}
    path, _, name = path_and_class.rpartition(":")
    if not path.endswith(".py") or not name:
        raise CompareError(f"{path_and_class!r} is no module; accepted: FILE.py:CLASS")
    try:
        tree = ast.parse(Path(path).read_text(encoding="utf-8"), path)
    except (OSError, SyntaxError, UnicodeDecodeError) as error:
        raise CompareError(f"{path} cannot be read: {error}") from None
    classes = {node.name: node for node in tree.body if isinstance(node, ast.ClassDef)}
    if name not in classes:
        raise CompareError(f"{path} has no class {name!r}{did_you_mean(name, classes)}")
    waiting, unread = [name], []
    while waiting:
        node = classes.pop(waiting.pop(), None)
        if node is not None:
            for hook, taken in _defined(node):
                if hook in MODULE_HOOKS:
                    hooks.setdefault(hook, taken)
            bases = [ast.unparse(base) for base in node.bases]
            waiting += [base for base in bases if base in classes]
            unread += [base for base in bases if base not in classes and base.rpartition(".")[2] != "LightningModule"]
    if not hooks:
        raise CompareError(f"{path}: {name} defines no hook")
    return hooks, unread


def _defined(node: ast.ClassDef) -> Iterator[tuple[str, frozenset[str] | None]]:
    """The names that a class body defines, by def or by assignment, also within an if; with what they take."""
    for each in ast.walk(node):
        if isinstance(each, (ast.FunctionDef, ast.AsyncFunctionDef)):
            yield each.name, _taken(each)
        elif isinstance(each, ast.Assign):
            yield from ((target.id, None) for target in each.targets if isinstance(target, ast.Name))


def _taken(hook: ast.FunctionDef | ast.AsyncFunctionDef) -> frozenset[str] | None:
    """The arguments by the documentation's names, which those in the same places have; None where it takes any."""
    given = hook.args
    if given.vararg or given.kwarg:
        return None
    placed = [each.arg for each in (*given.posonlyargs, *given.args)][1:]
    documented = ARGUMENTS.get(hook.name, ())[: len(placed)]
    return frozenset((*documented, *placed, *(each.arg for each in given.kwonlyargs)))


# ---- telling it ----------------------------------------------------------------------------------


def render(found: Comparison) -> str:
    """The comparison as text."""
    lines = [f"{found.a} -> {found.b}: {plural(found.compared, 'scenario')}"]
    if found.left_out:
        lines[0] += f", and {found.left_out} that one of the two cannot run"
    for word, hooks in (("gone", found.gone), ("new", found.new)):
        if hooks:
            lines.append(f"\n{word:<10}{', '.join(hooks)}")
    function = ""
    for row in found.rows:
        if row.function != function:
            function = row.function
            lines.append(f"\n{function}")
        more = len(row.scenarios) - SHOWN
        where = ", ".join(row.scenarios[:SHOWN]) + (f" and {more} more" if more > 0 else "")
        detail = f": {row.detail}" if row.detail else ""
        lines.append(f"  {row.kind:<10}{', '.join(row.hooks)}{detail}\n            {where}")
    if not (found.rows or found.gone or found.new):
        lines.append("\nNothing changes.")
    return "".join(printable(line) + "\n" for text in lines for line in text.split("\n"))


def to_json(found: Comparison) -> dict[str, Any]:
    """The comparison as plain data."""
    rows = [row._asdict() for row in found.rows]
    about = {"a": found.a, "b": found.b, "scenarios": found.compared, "left_out": found.left_out}
    return {"format": "refimpl-comparison", "version": 1, **about, "gone": found.gone, "new": found.new, "rows": rows}
