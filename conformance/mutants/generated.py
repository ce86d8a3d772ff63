"""Mutants made from the hook calls of the engine's loops: drop one, call it twice, swap two, move one.

A hook call is a statement of `loops.py` that calls `hooks.<name>`. Its function is the function of the
pseudocode that the call is a line of; what `train_batch` and its closure do are lines of train_loop.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache
from itertools import pairwise

from ..clauses import Clause
from .engine import Mutant
from .patches import Patch, definitions, module_of, sources

__all__ = ["HookCall", "hook_calls", "mutants_for", "systematic"]

LOOPS = "loops"
# The functions of the pseudocode, and where `loops.py` has their lines.
SCOPES = {
    "fit": ("fit",),
    "train_on_device": ("train_on_device", "sanity_check"),
    "train_loop": ("train_loop", "train_batch", "train_batch.closure"),
    "val_loop": ("val_loop",),
    "test_loop": ("test_loop",),
    "predict_loop": ("predict_loop",),
    "validate": ("evaluate", "evaluate_on_device"),
    "test": ("evaluate", "evaluate_on_device"),
    "predict": ("evaluate", "evaluate_on_device"),
}
# The scenario that shows what is wrong in a function.
SHOWS = {
    "sanity_check": "fit-val",
    "evaluate": "test",
    "evaluate_on_device": "test",
    "test_loop": "test",
    "predict_loop": "predict",
}
# On the way from train_on_device to a hook: which function runs the lines of another, and in which statement.
CALLS = {
    "train_loop": ("train_on_device", "train_loop(run)"),
    "train_batch": ("train_loop", "train_batch(run"),
    "train_batch.closure": ("train_batch", "hooks.optimizer_step("),
    "sanity_check": ("train_on_device", "sanity_check(run)"),
}


def _text() -> str:
    return sources()[module_of(LOOPS)]


def _lines() -> list[str]:
    return _text().split("\n")


@dataclass(frozen=True)
class HookCall:
    """One hook-call statement: its function's qualified name, its block (the statements around it), how many loops
    it is in, its rows."""

    hook: str
    function: str
    block: int
    loops: int
    start: int
    end: int

    @property
    def text(self) -> str:
        """The statement's lines, with their indentation."""
        return "\n".join(_lines()[self.start - 1 : self.end])

    @property
    def indent(self) -> str:
        return self.text[: len(self.text) - len(self.text.lstrip())]


def _called(node: ast.AST) -> str | None:
    """The hook that a statement calls itself, rather than a statement inside of it."""
    own = [node.test] if isinstance(node, (ast.If, ast.While)) else []
    simple = ast.Expr, ast.Assign, ast.Return
    if isinstance(node, ast.If) and isinstance(node.body[0], simple) and len(node.body) == 1 and not node.orelse:
        own.append(node)  # type: ignore[arg-type]  # `if hooks.x: hooks.x()`
    if isinstance(node, simple):
        own = [node]  # type: ignore[list-item]
    for part in own:
        for inner in ast.walk(part):
            if isinstance(inner, ast.Call) and isinstance(inner.func, ast.Attribute):
                owner = inner.func.value
                name = owner.id if isinstance(owner, ast.Name) else getattr(owner, "attr", "")
                if name == "hooks":
                    return inner.func.attr
    return None


@cache
def hook_calls() -> tuple[HookCall, ...]:
    """Every hook call of the loops, in the order of the file."""
    found: list[HookCall] = []

    def visit(function: str, loops: int, body: list[ast.stmt]) -> None:
        for statement in body:
            hook = _called(statement)
            if hook is not None:
                found.append(HookCall(hook, function, id(body), loops, statement.lineno, statement.end_lineno or 0))
                continue
            inner = function
            if isinstance(statement, ast.FunctionDef):
                inner = f"{function}.{statement.name}".lstrip(".")
            for name in ("body", "orelse"):
                visit(inner, loops + isinstance(statement, ast.For), getattr(statement, name, []))

    visit("", 0, ast.parse(_text()).body)
    return tuple(sorted(found, key=lambda call: call.start))


def _patch(function: str, changed: list[str]) -> Patch:
    """A patch of a whole function, out of the file's lines with some of this function's changed."""
    [rows] = definitions(_text())[function]
    longer = len(changed) - len(_lines())
    healthy, mutant = _lines()[rows.start - 1 : rows.stop - 1], changed[rows.start - 1 : rows.stop - 1 + longer]
    return Patch(f"{LOOPS}:{function}", "\n".join(healthy), "\n".join(mutant))


def _replaced(changes: dict[HookCall, str]) -> Patch:
    """A patch that gives some calls of a function another text."""
    lines = _lines()
    for call in sorted(changes, key=lambda call: -call.start):
        lines[call.start - 1 : call.end] = changes[call].split("\n")
    return _patch(next(iter(changes)).function, lines)


def _dropped(call: HookCall) -> str:
    """What stands for a statement that is left out; what it would have assigned, is None."""
    stripped = call.text.strip()
    target, assigns, _ = stripped.partition(" = ")
    if call.hook == "configure_optimizers":
        return f"{call.indent}run.optimization.configure(None)"
    if assigns and target.isidentifier() and target != "batch":
        return f"{call.indent}{target} = None"
    return f"{call.indent}pass"


# Clauses that a missing call rightly fails, though they are about other hooks: what its default does is
# not done, what it would have returned is not there.
_CONSEQUENCES = {
    "_model_eval": ("modes.*",),
    "_model_train": ("modes.*",),
    "_step": ("train.*", "val.*", "test.*", "predict.*"),
    "_step_end": ("*.outputs.of-step-end",),
    "backward": ("train.*", "val.no-update"),
}


def drop(call: HookCall) -> Mutant:
    """The engine without this call."""
    patch = _replaced({call: _dropped(call)})
    return Mutant(
        f"drop {call.function}.{call.hook}",
        f"{call.hook} is not called in {call.function}",
        (patch,),
        reason=r"never called|is called \d+ times, not",
        hooks=frozenset({call.hook}),
        also=tuple(g for end, globs in _CONSEQUENCES.items() if call.hook.endswith(end) for g in globs),
    )


def double(call: HookCall) -> Mutant:
    """The engine with this call twice."""
    patch = _replaced({call: f"{call.text}\n{call.text}"})
    return Mutant(
        f"double {call.function}.{call.hook}",
        f"{call.hook} is called twice in {call.function}",
        (patch,),
        reason=r"more often",
        hooks=frozenset({call.hook}),
    )


def swap(one: HookCall, other: HookCall) -> Mutant:
    """The engine with two neighbouring calls exchanged."""

    def at(place: HookCall, moved: HookCall) -> str:
        return "\n".join(place.indent + line[len(moved.indent) :] for line in moved.text.split("\n"))

    patch = _replaced({one: at(one, other), other: at(other, one)})
    return Mutant(
        f"swap {one.function}.{one.hook}, {other.hook}",
        f"{other.hook} is called before {one.hook} in {one.function}",
        (patch,),
        reason=r"before",
        hooks=frozenset({one.hook, other.hook}),
    )


def systematic() -> Iterator[tuple[str, Mutant]]:
    """Each hook call dropped, doubled, and swapped with its neighbour; with the name of the operation."""
    calls = hook_calls()

    def shown(mutant: Mutant, call: HookCall) -> Mutant:
        return replace(mutant, scenario=SHOWS.get(call.function, "fit-val-loaders"))

    for call in calls:
        yield "drop", shown(drop(call), call)
        if not call.text.strip().startswith("return"):
            yield "double", shown(double(call), call)
    for one, other in pairwise(calls):
        if one.block == other.block:
            yield "swap", shown(swap(one, other), one)


# ---- the mutant of a clause about lines -------------------------------------------------------------------


def mutants_for(clause: Clause) -> list[Mutant]:
    """Generated mutants that must fail this clause: a count's hook dropped, an order's pair turned round, another value
    in the trace for a recorded fact."""
    check = clause.check
    plain = all(word.startswith("!") or word.startswith("call:") for word in check.get("given", ()))
    if check["kind"] == "count" and plain:
        specs = check.get("hooks", [])
        found = [_find(spec) for spec in specs[:1]]
        return [drop(call) for call in found if call is not None]
    if check["kind"] == "order" and plain:
        mutant = _turned_round(check["first"], check["then"])
        return [] if mutant is None else [mutant]
    if check["kind"] in ("state", "repeats"):
        why = f"a trace says something else of {', '.join(check.get('fields', ['what ends']))}"
        fields = "|".join(check.get("fields", ()))
        reason = rf"^(rank \d: )?({fields}) is .*, not " if fields else " and began with "
        return [Mutant(f"fact of {clause.id}", why, (), reason=reason, also=("*",), events="fact")]
    return []


def _find(spec: str) -> HookCall | None:
    """The call of a hook in the function that a spec names; in any, if it names none."""
    hook, _, scope = spec.partition("@")
    functions = SCOPES.get(scope)
    matching = [c for c in hook_calls() if c.hook == hook and (functions is None or c.function in functions)]
    return matching[0] if matching else None


def _turned_round(first: str, then: str) -> Mutant | None:
    """`then` moved to just before `first`, or, where they stand in different functions, the one that
    stands higher moved past the statement that leads to the other."""
    one, other = _find(first), _find(then)
    if one is None or other is None:
        return None
    hooks = frozenset({one.hook, other.hook})
    if one.function == other.function:
        if other.loops > one.loops:  # bring `first` into the loop
            return _moved(one, other.end, before=False, hooks=hooks)
        return _moved(other, one.start, before=True, hooks=hooks)
    for place, marker in ((other.function, one), (one.function, other)):
        leads = _leads_to(place, marker.function)
        if leads is None:
            continue
        [rows] = definitions(_text())[marker.function]
        row = next(row for row in rows if leads in _lines()[row - 1] and "def " not in _lines()[row - 1])
        return _moved(marker, row, before=marker is other, hooks=hooks)
    return None


def _leads_to(place: str, function: str) -> str | None:
    """The text of the statement of `function` that runs the lines of `place`."""
    while place in CALLS:
        place, statement = CALLS[place]
        if place == function:
            return statement
    return None


# What a call that is moved up needs, since the line that makes it has not run.
_NEEDS = {"(output": "output = None", "(loss": "loss = torch.zeros((), requires_grad=True)"}


def _moved(call: HookCall, line: int, before: bool, hooks: frozenset[str]) -> Mutant:
    """The engine with a call moved to before (or after) a line of the same function."""
    lines = _lines()
    indent = lines[line - 1][: len(lines[line - 1]) - len(lines[line - 1].lstrip())]
    if not before and lines[line - 1].strip().startswith("break"):  # nothing comes after that
        indent = indent[:-4]
    text = [indent + t[len(call.indent) :] for t in call.text.split("\n")]
    crossed = [t.strip() for t in lines[line - 1 : call.start - 1]]
    needs = [
        indent + made
        for used, made in _NEEDS.items()
        if used in call.text and any(t.startswith(made.partition("=")[0]) for t in crossed)
    ]
    index = line - 1 if before else line
    marked = [*lines[:index], *needs, *text, *lines[index:]]
    start = call.start - 1 + (len(needs) + len(text) if index <= call.start - 1 else 0)
    del marked[start : start + len(text)]
    where = "before" if before else "after"
    return Mutant(
        f"move {call.function}.{call.hook}",
        f"{call.hook} is called {where} {lines[line - 1].strip()!r}",
        (_patch(call.function, marked),),
        reason=r"before|outside",
        hooks=hooks,
        also=("train.*", "val.*", "test.*") if needs else (),
    )
