"""Which of the clauses that fail explain the others: one mistake is one cause, with the clauses that fail for it.

A mistake shows in many clauses and scenarios. Scenarios are gone through from the simplest on. What fails in one, and
did in none before, has a new cause: an exception that nobody asked for, or else the clause that says most narrowly what
is wrong. But a call that is missing, moved or doubled, and an exception too, shift what comes after: what fails only
where such a cause does is explained by it; and so is what sums up a run, and what says the same of other scenarios.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from math import inf
from sys import maxsize
from typing import NamedTuple

from .checks import build
from .clauses import Clause
from .features import features
from .hooks import HOOKS
from .scenario import DRAWN_NAMES, Scenario
from .spec.contracts import expected
from .verdicts import Status, Verdict

__all__ = ["Cause", "causes"]

# From what says just what is wrong to what sums a run up. A call that is missing or one too many comes before what that
# does to the order, to arguments and to the state.
NARROWEST = (
    "balance never count encloses order argument waits parts shares anew again updates changes effect logged handed "
    "outputs repeats receivers state sequence"
)
KINDS = {kind: rank for rank, kind in enumerate(NARROWEST.split())}

SHIFTING = frozenset({"balance", "never", "count", "encloses", "order", "sequence"})
# The clauses about what the user's call raises: they come first.
RAISED = ("run.returns", "run.exception.surfaces", "run.interrupt.returns", "given.raised")
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
            shifts = clauses[cause.verdict.clause].kind in SHIFTING or cause.verdict.clause in RAISED
            shown = set().union(*(where[clause] for clause in cause.clauses))
            alike = {v.clause for v in new if _alike(clauses[v.clause], clauses[cause.verdict.clause])}
            shows = not here.isdisjoint([*cause.clauses, *alike])
            for verdict in [*new]:
                follows = clauses[verdict.clause].kind in SUMMING or (shifts and where[verdict.clause] <= shown)
                if verdict.clause in alike or (shows and follows):
                    cause.clauses.append(verdict.clause)
                    new.remove(verdict)
        if new:
            head = min(new, key=lambda verdict: _distance(verdict, clauses[verdict.clause]))
            found.append(Cause(head, [head.clause, *(v.clause for v in new if v is not head)]))
    return found


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
    hooks = [build(clause.check).hooks for clause in (one, other)]
    same = (one.kind, one.check.get("field")) == (other.kind, other.check.get("field"))
    return same and None not in hooks and bool(hooks[0] & hooks[1])  # type: ignore[operator]


def _distance(verdict: Verdict, clause: Clause) -> tuple[int, float, int, bool, str]:
    """How far a clause is from saying just what is wrong: by its kind, by where in the trace it fails, and by the hooks
    that it is about, one of which it may be named after."""
    hooks = build(clause.check).hooks or HOOKS
    kind = RAISED.index(clause.id) - len(RAISED) if clause.id in RAISED else KINDS[clause.kind]
    place = inf if verdict.seq is None else verdict.seq
    return kind, place, len(hooks), not any(hook in clause.id for hook in hooks), clause.id
