"""Which of the clauses that fail explain the others: one mistake is one cause, with the clauses that fail for it.

A mistake shows in many clauses and scenarios. Scenarios are gone through from the simplest on. What fails in one, and
did in none before, has a new cause: an exception that nobody asked for, or else the clause that says most narrowly what
is wrong. What can come of that is explained by it: what says the same, or something else of the same feature, perhaps
of other scenarios, and what sums up a run; after an exception, or where a call that does something is missing, moved or
doubled, or a whole part of the loops is, whatever comes later. A call that only tells, as `on_train_start` does, moves
alone, and an argument makes wrong only what is computed. What is left has a cause of its own.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from math import inf
from sys import maxsize
from typing import NamedTuple

from .checks import build
from .clauses import Clause
from .features import features
from .hooks import CHECKPOINTS, HOOKS, LOADERS, TRANSFERS
from .scenario import DRAWN_NAMES, Scenario
from .spec.contracts import expected
from .verdicts import Status, Verdict

__all__ = ["Cause", "causes"]

# From what says just what is wrong to what sums a run up. A call that is missing or one too many comes before what that
# does to the order, to arguments and to the state.
NARROWEST = (
    "balance never count encloses order argument waits parts shares anew again still updates changes effect logged "
    "handed outputs repeats receivers state sequence"
)
KINDS = {kind: rank for rank, kind in enumerate(NARROWEST.split())}

SHIFTING = frozenset({"balance", "never", "count", "encloses", "order", "sequence"})
# The clauses about what the user's call raises: they come first.
RAISED = ("run.returns", "run.exception.surfaces", "run.interrupt.returns", "given.raised")
QUIET = frozenset(
    hook
    for hook in HOOKS
    if hook in ("prepare_data", "setup", "teardown", *LOADERS)
    or (hook.startswith("on_") and "model" not in hook and hook not in (*TRANSFERS, *CHECKPOINTS))
)
LOOPS = frozenset("fit sanity train val test predict transfer modes structure given run".split())  # not of one feature
FACTS, COMPUTED = ("argument", "effect"), ("loss", "grads", "gradients", "values")  # of these, from what came before
SUMMING = frozenset({"repeats", "receivers", "state", "sequence", "handed"})


class Cause(NamedTuple):
    """The verdict that says what is wrong, and the clauses that fail for it."""

    verdict: Verdict
    clauses: list[str]  # its own first


def causes(verdicts: Iterable[Verdict], clauses: Mapping[str, Clause], scenarios: Iterable[Scenario]) -> list[Cause]:
    """Of one trainer's verdicts, those that fail: what they come down to, from the simplest of the `scenarios` on."""
    known = {scenario.name: scenario for scenario in scenarios}
    failing: dict[str, list[Verdict]] = {}
    where: dict[str, set[str]] = {}  # each clause fails
    for verdict in verdicts:
        if verdict.status is Status.FAIL:
            failing.setdefault(verdict.scenario, []).append(verdict)
            where.setdefault(verdict.clause, set()).add(verdict.scenario)
    found: list[Cause] = []
    for name in sorted(failing, key=lambda name: _complexity(name, known)):
        explained = {clause for cause in found for clause in cause.clauses}
        new = [verdict for verdict in failing[name] if verdict.clause not in explained]
        here = {verdict.clause for verdict in failing[name]}
        for cause in found:
            head, block = clauses[cause.verdict.clause], _is_block(clauses[clause] for clause in cause.clauses)
            shifts = head.kind in SHIFTING or head.id in RAISED
            shown = set().union(*(where[clause] for clause in cause.clauses))
            alike = {v.clause for v in new if _alike(clauses[v.clause], head)}
            shows = not here.isdisjoint([*cause.clauses, *alike])
            for verdict in [*new]:
                clause = clauses[verdict.clause]
                follows = shifts and where[clause.id] <= shown and _may_follow(clause, head, block)
                follows = follows or (head.kind in ("state", "handed") and head.id in here)  # it says so more narrowly
                if clause.id in alike or (shows and (clause.kind in SUMMING or follows)):
                    cause.clauses.append(clause.id)
                    new.remove(verdict)
        while new:
            first = min(new, key=lambda verdict: _distance(verdict, clauses[verdict.clause]))
            head, block = clauses[first.clause], _is_block(clauses[verdict.clause] for verdict in new)
            follow = [v for v in new if v is not first and _may_follow(clauses[v.clause], head, block)]
            found.append(Cause(first, [head.id, *(verdict.clause for verdict in follow)]))
            new = [verdict for verdict in new if verdict is not first and verdict not in follow]
    return found


def _may_follow(clause: Clause, head: Clause, block: bool) -> bool:
    """Whether, in one scenario, a failure can come of the head's. An exception has any consequence, and so have calls
    that do something, and blocks of calls: what comes after them is another. A call that only tells has none."""
    if head.id in RAISED or clause.kind in SUMMING or _alike(clause, head) or _hooks(clause) & _hooks(head):
        return True
    if clause.family == head.family and clause.family not in LOOPS:
        return True
    if head.kind in SHIFTING:
        return block or (clause.kind not in SHIFTING and not _hooks(head) <= QUIET)
    return head.kind not in FACTS or clause.kind not in FACTS or clause.check.get("field") in COMPUTED


def _is_block(failing: Iterable[Clause]) -> bool:
    """Whether a whole part of the loops is missing or one too many, and not some calls of their own."""
    called = [_hooks(clause) for clause in failing if clause.kind == "count"]
    return len(called) > 3 or sum(not hooks <= QUIET for hooks in called) > 1


def _hooks(clause: Clause) -> frozenset[str]:
    return frozenset(build(clause.check).hooks or HOOKS)


def _complexity(name: str, scenarios: Mapping[str, Scenario]) -> tuple[bool, bool, bool, int, str]:
    """What is drawn has many features; where something unusual happens, most clauses do not look."""
    scenario = scenarios.get(name)
    if scenario is None:
        return True, True, True, maxsize, name
    words = features(scenario)
    length = sum(1 for _ in expected(scenario))
    return name.startswith(DRAWN_NAMES), "when" in words, "particular" in words, length, name


def _alike(one: Clause, other: Clause) -> bool:
    """Whether they say the same of the same calls, perhaps of other scenarios."""
    about = [clause.id.split(".")[:-1] for clause in (one, other)]
    if about[0] == about[1] and len(about[0]) > 1 and one.family not in LOOPS:
        return True
    fields = one.check.get("field"), other.check.get("field")
    hooks = [build(clause.check).hooks for clause in (one, other)]
    if one.kind != other.kind or fields[0] != fields[1] or None in hooks:
        return False
    return fields[0] is not None or bool(hooks[0] & hooks[1])  # type: ignore[operator]


def _distance(verdict: Verdict, clause: Clause) -> tuple[int, float, int, bool, str]:
    """How far a clause is from saying just what is wrong: by its kind, by where in the trace it fails, and by the hooks
    that it is about, one of which it may be named after."""
    hooks = build(clause.check).hooks or HOOKS
    kind = RAISED.index(clause.id) - len(RAISED) if clause.id in RAISED else KINDS[clause.kind]
    place = inf if verdict.seq is None else verdict.seq
    return kind, place, len(hooks), not any(hook in clause.id for hook in hooks), clause.id
