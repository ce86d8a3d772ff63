"""The first divergence of two traces, and what differs in all: two trainers, or one before and after a change.

For the divergence both are read side by side in constant memory, and to their ends: a malformed trace is an error
wherever its fault lies, and the lengths and outcomes are known when it is told.
"""

from __future__ import annotations

import json
import os
from collections import Counter, deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any

from conformance.edits import calls, edits
from conformance.trace import Event, Footer, Header, TraceReader, open_trace

__all__ = ["Divergence", "diff", "differences", "render"]

BEFORE = 5  # common events shown before the divergence
AFTER = 3  # events shown of each side after it
MOST_EVENTS = 20_000  # of each trace, in which all differences are counted
EFFECTS = (
    *("training", "submodules", "grad_enabled", "autocast", "global_step", "current_epoch", "grads", "lr", "trainable"),
)
_VERBS = {"B": "begins", "E": "ends", "I": "marks"}


@dataclass(frozen=True)
class Side:
    """One of the two traces: its file, its ends, and what it says from the divergence on."""

    path: str
    header: Header
    events: tuple[Event, ...]  # the diverging event and the next three; empty where this side had ended
    footer: Footer


@dataclass(frozen=True)
class Divergence:
    """Where and how two traces part. `seq` is None where the events agree, and a header or footer differs."""

    seq: int | None
    sentence: str
    notes: tuple[str, ...]  # what else differs: scenario, length, outcome, effects left out
    context: tuple[Event, ...]  # the last events in common
    a: Side
    b: Side


def diff(
    path_a: str | os.PathLike[str], path_b: str | os.PathLike[str], effects: bool = True
) -> Divergence | None:
    """The first divergence of trace A from trace B, or None if they agree.

    Events are compared by `ph`, `rank`, `receiver`, `hook` and `args`, then, unless `effects` is False, by
    `fx`. An effect that only one of the two headers declares is left out: one recorder could not see it.
    `depth` follows from the spans, and is not compared. Of the headers only the scenario matters, of the
    footers all. Raises TraceError if either file is no trace.
    """
    with open_trace(path_a) as a, open_trace(path_b) as b:
        unseen = _only_one_declares(a.header, b.header) if effects else frozenset()
        context, rest_a, rest_b = _first_difference(a, b, unseen, effects)
        sides = Side(a.path, a.header, rest_a, a.footer), Side(b.path, b.header, rest_b, b.footer)
    scenario = _scenario_difference(a.header.scenario, b.header.scenario)
    ends = _end_differences(a.footer, b.footer)
    notes = [*scenario, *ends]
    if rest_a or rest_b:
        seq = (rest_a or rest_b)[0].seq
        sentence = _describe(seq, rest_a[:1], rest_b[:1], unseen)
    elif notes:
        seq, sentence, notes = None, notes[0], notes[1:]
    else:
        return None
    if unseen:
        notes.append(f"not compared, for only one of the two declares it: {', '.join(sorted(unseen))}")
    return Divergence(seq, sentence, tuple(notes), context, *sides)


# ---- finding it ------------------------------------------------------------------------------


def _first_difference(
    a: TraceReader, b: TraceReader, unseen: frozenset[str], effects: bool
) -> tuple[tuple[Event, ...], tuple[Event, ...], tuple[Event, ...]]:
    """The last common events, and what each side says from the divergence on; both are read to their ends."""
    context: deque[Event] = deque(maxlen=BEFORE)
    events_a, events_b = iter(a), iter(b)
    while True:
        one, other = next(events_a, None), next(events_b, None)
        if one is None or other is None or not _same(one, other, unseen, effects):
            return tuple(context), _window(one, events_a), _window(other, events_b)
        context.append(one)


def _window(first: Event | None, rest: Iterator[Event]) -> tuple[Event, ...]:
    shown = () if first is None else (first, *islice(rest, AFTER))
    deque(rest, maxlen=0)
    return shown


def _same(a: Event, b: Event, unseen: frozenset[str], effects: bool) -> bool:
    if a[1:5] != b[1:5] or not _same_values(a.args, b.args):  # ph, rank, receiver, hook
        return False
    return not effects or _same_values(_seen(a.fx, unseen), _seen(b.fx, unseen))


def _seen(fx: Mapping[str, Any], unseen: frozenset[str]) -> Mapping[str, Any]:
    return {name: value for name, value in fx.items() if name not in unseen} if unseen else fx


def _same_values(a: Mapping[str, Any], b: Mapping[str, Any]) -> bool:
    return a == b and all(_equal(value, b[name]) for name, value in a.items())


def _equal(a: Any, b: Any) -> bool:
    """Equality of JSON: 1 is 1.0, and neither is true."""
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(map(_equal, a, b))
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and _same_values(a, b)
    return bool(a == b) and isinstance(a, bool) == isinstance(b, bool)


def _only_one_declares(a: Header, b: Header) -> frozenset[str]:
    return frozenset(a.declares["effects"]) ^ frozenset(b.declares["effects"])


# ---- saying it in words ----------------------------------------------------------------------


def _describe(seq: int, a: tuple[Event, ...], b: tuple[Event, ...], unseen: frozenset[str]) -> str:
    if not a or not b:
        name, other, event = ("A", "B", b[0]) if not a else ("B", "A", a[0])
        return f"event {seq}: {name} is at its end where {other} {_does(event)}"
    one, two = a[0], b[0]
    if one[1:5] != two[1:5]:
        ranks = one.rank != two.rank
        return f"event {seq}: A {_does(one, ranks)} where B {_does(two, ranks)}"
    if not _same_values(one.args, two.args):
        mine, theirs = _unequal(one.args, two.args)
        return f"event {seq}: A {_VERBS[one.ph]} {_call(one, {})} with {mine} where B has {theirs}"
    mine, theirs = _unequal(_seen(one.fx, unseen), _seen(two.fx, unseen))
    moment = {"B": "the begin of ", "E": "the end of ", "I": ""}[one.ph] + _call(one, one.args)
    return f"event {seq}: at {moment} A sees {mine} where B sees {theirs}"


def _does(event: Event, with_rank: bool = False) -> str:
    where = f" on rank {event.rank}" if with_rank else ""
    return f"{_VERBS[event.ph]} {_call(event, event.args)}{where}"


def _call(event: Event, args: Mapping[str, Any]) -> str:
    given = ", ".join(f"{name}={_json(value)}" for name, value in args.items())
    return f"{event.receiver}.{event.hook}" + (f"({given})" if given else "")


def _unequal(a: Mapping[str, Any], b: Mapping[str, Any]) -> tuple[str, str]:
    """The unequal values of each side, `no x` for one that it lacks."""
    absent = object()
    names = [name for name in {**a, **b} if not _equal(a.get(name, absent), b.get(name, absent))]

    def listed(side: Mapping[str, Any]) -> str:
        return ", ".join(f"{name}={_json(side[name])}" if name in side else f"no {name}" for name in names)

    return listed(a), listed(b)


def _json(value: object) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:56]} ..."


def _scenario_difference(a: Mapping[str, Any], b: Mapping[str, Any]) -> list[str]:
    if _equal(dict(a), dict(b)):
        return []
    mine, theirs = _unequal(a, b)
    return [f"the scenarios differ: A has {mine} where B has {theirs}"]


def _end_differences(a: Footer, b: Footer) -> list[str]:
    found = []
    if a.events != b.events:
        found.append(f"the lengths differ: A has {a.events} events where B has {b.events}")
    if (a.outcome, a.error) != (b.outcome, b.error):
        found.append(f"the outcomes differ: A {_outcome(a)} where B {_outcome(b)}")
    return found


def _outcome(footer: Footer) -> str:
    return f"{footer.outcome} {_json(footer.error)}" if footer.error else footer.outcome


# ---- the whole of it, for a terminal ---------------------------------------------------------


def render(divergence: Divergence) -> str:
    """The divergence as lines of text: the sentence, who A and B are, the events around it."""
    lines = [divergence.sentence, *(f"  {note}" for note in divergence.notes), ""]
    for name, side in (("A", divergence.a), ("B", divergence.b)):
        trainer = side.header.trainer
        lines.append(f"{name} is {trainer['name']} {trainer['version']}".rstrip() + f", {side.path}")
    if divergence.seq is not None:
        lines.append("")
        lines += [_line(" ", event) for event in divergence.context]
        lines += _tail("A", divergence.a) + _tail("B", divergence.b)
    return "".join("".join(c if c.isprintable() else "?" for c in line) + "\n" for line in lines)


def _tail(name: str, side: Side) -> list[str]:
    last = side.events[-1].seq + 1 if side.events else side.footer.events
    end = [f"{name} {'end':>6}  {_outcome(side.footer)}"] if last == side.footer.events else []
    return [_line(name, event) for event in side.events] + end


def _line(name: str, event: Event) -> str:
    indent = "  " * min(event.depth, 20)
    rank = f"rank {event.rank}  " if event.rank else ""
    return f"{name} {event.seq:>6}  {rank}{indent}{event.ph} {_call(event, event.args)}"


def differences(path_a: str | os.PathLike[str], path_b: str | os.PathLike[str], effects: bool = True) -> str:
    """All that differs in process 0 of trace B, aligned with trace A, as lines of text with how often each comes. Of
    long traces the beginning is looked at. Raises TraceError."""
    with open_trace(path_a) as a, open_trace(path_b) as b:
        unseen = _only_one_declares(a.header, b.header)
        one, other = (calls(islice((event for event in side if event.rank == 0), MOST_EVENTS)) for side in (a, b))
    found = Counter(edits(one, other, [name for name in EFFECTS if effects and name not in unseen]))
    alike: dict[tuple[str, str, str, int], list[str]] = {}
    for edit, times in found.items():
        alike.setdefault((edit.function, edit.kind, edit.detail, times), []).append(edit.hook)
    lines = ["B, aligned with A:"] if alike else []
    for (function, kind, detail, times), hooks in alike.items():
        told = f"{', '.join(dict.fromkeys(hooks))}{': ' if detail else ''}{detail}"
        lines.append(f"  {times:>4} x  {function:<9} {kind:<10} {told}")
    return "".join("".join(c if c.isprintable() else "?" for c in line) + "\n" for line in lines)
