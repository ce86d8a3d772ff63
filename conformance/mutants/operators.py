"""The small mistakes: each operator says of a node of the syntax tree what it would be replaced by.

What is no part of a run's behaviour is left out (see `children`): documentation, types, imports, and everything about
input that no scenario may have, which is `raise` and what leads to it only, warnings, messages.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import pairwise

__all__ = ["OPERATORS", "SKIPS", "Place", "children"]

# Methods that are not about a run.
SILENT = {"__repr__", "__str__", "__reduce__", "__getstate__", "__setstate__", "__copy__", "__deepcopy__"}
# Calls that only tell the user something, and arguments that only help to.
TELLING, TOLD = {"warn", "warning", "info", "print"}, {"repr", "doc", "stacklevel"}
# What the names of functions begin with that only refuse what is not as it should be, as no scenario has it.
REFUSING = ("check", "_check", "refuse", "fitting", "same")
# Calls whose arguments nobody exchanges.
UNLIKE = {"isinstance", "issubclass", "getattr", "hasattr", "setattr", "partial", "property"}


class Place:
    """A node, and what operators ask about where it is."""

    def __init__(self, node: ast.AST, text: Callable[[ast.AST], str], function: ast.AST, is_test: bool) -> None:
        self.node, self.text, self.function, self.is_test = node, text, function, is_test
        self.strings: Sequence[str] = ()  # different ones of the function

    def term(self, node: ast.AST) -> str:
        """Its text, in brackets where it might need them."""
        plain = isinstance(node, (ast.Name, ast.Attribute, ast.Constant, ast.Call, ast.Subscript, ast.List, ast.Dict))
        return self.text(node) if plain else f"({self.text(node)})"

    def is_bound_before(self, name: str) -> bool:
        """Whether the function gives the name a value before this, too: without this one it has that."""
        at = self.node.lineno  # type: ignore[attr-defined]
        return any(
            (isinstance(node, ast.arg) and node.arg == name)
            or (isinstance(node, ast.Name) and node.id == name and isinstance(node.ctx, ast.Store) and node.lineno < at)
            for node in ast.walk(self.function)
        )

    def other_string(self, string: str) -> str | None:
        """The next string of the same function."""
        found = self.strings
        return found[(found.index(string) + 1) % len(found)] if len(found) > 1 and string in found else None


# What is replaced, a node or from the first to the last of two, and by what.
Changes = Iterator[tuple[ast.AST | tuple[ast.AST, ast.AST], str]]

# ---- operators --------------------------------------------------------------------------------------------


def drop(place: Place) -> Changes:
    """Leave a statement out. What the first of a name's values is, and what a constructor sets, is missed at once by
    any run: these stay."""
    node = place.node
    if isinstance(node, (ast.Expr, ast.Delete, ast.Break, ast.Continue, ast.AugAssign)):
        if not (isinstance(node, ast.Expr) and isinstance(node.value, (ast.Constant, ast.Yield, ast.YieldFrom))):
            yield node, "pass"
    elif isinstance(node, ast.Assign) and getattr(place.function, "name", "__init__") != "__init__":
        names = [name for target in node.targets for name in ast.walk(target) if isinstance(name, ast.Name)]
        stored = [name.id for name in names if isinstance(name.ctx, ast.Store)]
        if all(place.is_bound_before(name) for name in stored):
            yield node, "pass"
    elif isinstance(node, ast.Return) and node.value is not None and not isinstance(node.value, ast.Constant):
        yield node.value, "None"


def negate(place: Place) -> Changes:
    """The other branch: a condition turned round."""
    node = place.node
    if isinstance(node, ast.If) and _name(node.test) == "TYPE_CHECKING":
        return
    if isinstance(node, (ast.If, ast.While, ast.IfExp)) and not isinstance(node.test, ast.UnaryOp):
        yield node.test, f"not ({place.text(node.test)})"
    elif isinstance(node, ast.comprehension):
        yield from ((test, f"not ({place.text(test)})") for test in node.ifs if not isinstance(test, ast.UnaryOp))


def never(place: Place) -> Changes:
    """What is done on a condition, left out. That it is done always, `negate` has in it."""
    node = place.node
    is_guard = isinstance(node, ast.If) and (_only_raises(node.body) or _name(node.test) == "TYPE_CHECKING")
    if isinstance(node, (ast.If, ast.While)) and not node.orelse and not is_guard:
        yield node.test, "False"


def forget_not(place: Place) -> Changes:
    """Without the `not`."""
    if isinstance(place.node, ast.UnaryOp) and isinstance(place.node.op, ast.Not):
        yield place.node, place.term(place.node.operand)


def and_for_or(place: Place) -> Changes:
    """"and" for "or", and the other way round."""
    node = place.node
    if isinstance(node, ast.BoolOp):
        other = " or " if isinstance(node.op, ast.And) else " and "
        yield node, f"({other.join(map(place.term, node.values))})"


COMPARED: Mapping[type, str] = {
    ast.Lt: "<=", ast.LtE: "<", ast.Gt: ">=", ast.GtE: ">", ast.Eq: "!=", ast.NotEq: "==",
    ast.Is: "is not", ast.IsNot: "is", ast.In: "not in", ast.NotIn: "in",
}  # fmt: skip
SYMBOLS: Mapping[type, str] = {
    ast.Lt: "<", ast.LtE: "<=", ast.Gt: ">", ast.GtE: ">=", ast.Eq: "==", ast.NotEq: "!=",
    ast.Is: "is", ast.IsNot: "is not", ast.In: "in", ast.NotIn: "not in",
}  # fmt: skip


def compare(place: Place) -> Changes:
    """A bound that is one off, or the opposite; where that is all of a condition, `negate` does the latter."""
    node = place.node
    if isinstance(node, ast.Compare):
        parts = [node.left, *node.comparators]
        for index, op in enumerate(node.ops):
            bound = isinstance(op, (ast.Lt, ast.LtE, ast.Gt, ast.GtE))
            if bound or not place.is_test or len(node.ops) > 1:
                ops = [COMPARED[type(one)] if i == index else SYMBOLS[type(one)] for i, one in enumerate(node.ops)]
                rest = [f" {one} {place.term(part)}" for one, part in zip(ops, parts[1:])]
                yield node, place.term(parts[0]) + "".join(rest)


CALCULATED: Mapping[type, str] = {
    ast.Add: "-", ast.Sub: "+", ast.Mult: "/", ast.Div: "*", ast.FloorDiv: "*", ast.Mod: "//",
    ast.BitOr: "&", ast.BitAnd: "|",
}  # fmt: skip


def calculate(place: Place) -> Changes:
    """The opposite of an operation."""
    node = place.node
    if isinstance(node, ast.BinOp) and type(node.op) in CALCULATED:
        yield node, f"({place.term(node.left)} {CALCULATED[type(node.op)]} {place.term(node.right)})"
    elif isinstance(node, ast.AugAssign) and type(node.op) in CALCULATED:
        yield node, f"{place.text(node.target)} {CALCULATED[type(node.op)]}= {place.text(node.value)}"


def constant(place: Place) -> Changes:
    """Another constant: the other truth, a number one more, a string that the function has elsewhere. Tables of names,
    and what is set before a run, are left alone."""
    node = place.node
    initial = isinstance(place.function, ast.ClassDef) or getattr(place.function, "name", "") == "__init__"
    if isinstance(node, ast.Constant) and not (initial or isinstance(place.function, ast.Module)):
        value = node.value
        if isinstance(value, (bool, int, float)):
            yield node, repr(not value if isinstance(value, bool) else value + 1)
        elif isinstance(value, str) and (other := place.other_string(value)) is not None:
            yield node, repr(other)


def swap(place: Place) -> Changes:
    """Two neighbouring arguments exchanged."""
    node = place.node
    if isinstance(node, ast.Call) and _name(node.func) not in UNLIKE:
        for one, other in pairwise(node.args):
            texts = place.text(one), place.text(other)
            if texts[0] != texts[1] and not any(isinstance(each, ast.Starred) for each in (one, other)):
                yield (one, other), f"{texts[1]}, {texts[0]}"


def forget_argument(place: Place) -> Changes:
    """An argument with a name left out."""
    node = place.node
    if isinstance(node, ast.Call):
        for word in node.keywords:
            if word.arg is not None and word.arg not in TOLD:
                given = [f"{w.arg}={place.text(w.value)}" if w.arg else f"**{place.text(w.value)}"
                         for w in node.keywords if w is not word]  # fmt: skip
                args = ", ".join([*map(place.text, node.args), *given])
                yield node, f"{place.text(node.func)}({args})"


OTHERS = {"min": "max", "max": "min", "any": "all", "all": "any"}


def first_for_last(place: Place) -> Changes:
    """The first of several in the place of the last, and the other way round; no order, the other order."""
    node = place.node
    if isinstance(node, ast.Subscript) and isinstance(node.ctx, ast.Load):
        index = place.text(node.slice)
        if index in ("0", "-1"):
            yield node, f"{place.text(node.value)}[{'-1' if index == '0' else '0'}]"
    elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
        if node.func.id in OTHERS:
            yield node.func, OTHERS[node.func.id]
        elif node.func.id in ("sorted", "reversed") and node.args:
            yield node, f"list({place.text(node.args[0])})"
    elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
        owner, args = place.text(node.func.value), [place.text(each) for each in node.args]
        if node.func.attr == "append":
            yield node, f"{owner}.insert(0, {args[0]})"
        elif node.func.attr == "pop" and args in ([], ["0"]):
            yield node, f"{owner}.pop({'' if args else '0'})"


def no_loop(place: Place) -> Changes:
    """A loop over nothing."""
    if isinstance(place.node, ast.For):
        yield place.node.iter, "()"


def no_context(place: Place) -> Changes:
    """A `with` that does nothing."""
    if isinstance(place.node, ast.With):
        for item in place.node.items:
            if item.optional_vars is None and not _says_nothing(item):
                yield item.context_expr, "__import__('contextlib').nullcontext()"


def other_exit(place: Place) -> Changes:
    """`break` for `continue`, and the other way round."""
    if isinstance(place.node, (ast.Break, ast.Continue)):
        yield place.node, "continue" if isinstance(place.node, ast.Break) else "break"


OPERATORS: Mapping[str, Callable[[Place], Changes]] = {
    "drop": drop, "negate": negate, "never": never, "forget not": forget_not,
    "and for or": and_for_or, "compare": compare, "calculate": calculate, "constant": constant, "swap": swap,
    "forget argument": forget_argument, "first for last": first_for_last, "no loop": no_loop,
    "no context": no_context, "other exit": other_exit,
}  # fmt: skip

SKIPS = {"never", "no loop"}  # what these do, shows where there is something to skip


# ---- what is left out ---------------------------------------------------------------------------------------


def _name(function: ast.AST) -> str:
    return function.id if isinstance(function, ast.Name) else getattr(function, "attr", "")


def _only_raises(body: Iterable[ast.stmt]) -> bool:
    """Whether statements lead to an error, or only tell the user something."""
    *_, last = body
    return isinstance(last, ast.Raise) or all(_tells(statement) for statement in body)


def _tells(statement: ast.stmt) -> bool:
    call = statement.value if isinstance(statement, ast.Expr) else None
    return isinstance(call, ast.Call) and (_name(call.func) in TELLING or _name(call.func).startswith(REFUSING))


def children(node: ast.AST) -> Iterator[ast.AST]:
    """Those of a node's children that have something to do with a run."""
    if isinstance(node, ast.arguments):  # their defaults: the trainer gives what it has
        return
    left_out: list[object] = []
    if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
        left_out += [*node.decorator_list, getattr(node, "returns", None)]
        left_out += [] if isinstance(node, ast.FunctionDef) else node.bases
    if isinstance(node, ast.AnnAssign):
        left_out += [node.annotation]
    if isinstance(node, ast.If) and _only_raises(node.body):
        left_out += [node.test, *node.body]
    if isinstance(node, ast.If) and _name(node.test) == "TYPE_CHECKING":
        left_out += [node.test, *node.body]
    if isinstance(node, ast.ExceptHandler):
        left_out += node.body if _only_raises(node.body) else [node.type]
    if isinstance(node, ast.Call):
        left_out += [word for word in node.keywords if word.arg in TOLD]
    for child in ast.iter_child_nodes(node):
        if child not in left_out and not _says_nothing(child):
            yield child


def _says_nothing(node: ast.AST) -> bool:
    """Whether it is documentation, an import, a name, or about an error."""
    if isinstance(node, ast.Expr):
        return isinstance(node.value, ast.Constant) or _tells(node)
    if isinstance(node, ast.Assign):
        return any(_name(target) in ("__all__", "__slots__") for target in node.targets)
    if isinstance(node, ast.FunctionDef):
        return node.name in SILENT or node.name.startswith(REFUSING)
    if isinstance(node, ast.If):
        return not node.orelse and all(map(_tells, node.body))
    if isinstance(node, ast.For):
        return all(map(_tells, node.body))
    if isinstance(node, ast.withitem):
        return isinstance(node.context_expr, ast.Call) and _name(node.context_expr.func).startswith(REFUSING)
    silent = ast.Import, ast.ImportFrom, ast.Raise, ast.Assert, ast.JoinedStr, ast.Global, ast.Nonlocal
    return isinstance(node, silent)
