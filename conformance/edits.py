"""What is to be done to one run to make it the other: calls that are missing, added or moved, arguments and effects
that are others.

Runs are aligned by their structure, the call of the trainer, the epoch, the batch, the call around, so that one call
more shifts nothing: the most calls that come in the same order in both are found first, and one that is left over on
both sides has moved.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections import Counter, deque
from collections.abc import Collection, Hashable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from .numerics import agrees
from .spec.state import OWN_WORDS, Expected
from .trace import Event

__all__ = ["FUNCTIONS", "KINDS", "Call", "Edit", "calls", "edits", "in_words"]

KINDS = ("missing", "added", "moved", "receivers", "argument", "effect")
STAGED = re.compile("on_(train|validation|test|predict)_").match
MOST_PLACES = 3  # that are named of one hook
CLEAR = {"none", "zero", "clear"}
FUNCTIONS = ("fit", "validate", "test", "predict")


class Call(NamedTuple):
    """A hook, on all its receivers in a row: with what it began, and what was so when it was over."""

    hook: str
    inside: str  # which hook's call it was made in
    function: str  # of the pseudocode, where the contract tells of the call, or else of the trainer
    receivers: tuple[str, ...]
    args: dict[str, Any]
    begin: dict[str, Any]  # effects
    end: dict[str, Any]
    began: int  # at which event, and was over
    ended: int

    @property
    def key(self) -> tuple[str, str, Any]:
        """What is the same of two calls that correspond."""
        return self.hook, self.inside, self.args.get("batch")


class Edit(NamedTuple):
    """One difference, in words: "setup", "moved", "before on_fit_start, not after it"."""

    function: str
    hook: str
    kind: str  # one of KINDS
    detail: str = ""
    crossed: tuple[str, ...] = ()  # the hooks that it has moved across


def calls(events: Iterable[Event | Expected]) -> list[Call]:
    """The calls of one process's events, in the order in which they begin. What follows with the same hook on another
    receiver is the same call."""
    found: list[list[Any]] = []
    open_calls: list[int] = []
    last: dict[int, int] = {-1: -1}  # by the call around it, the one that was over last
    for at, event in enumerate(events):
        if event.ph == "I":  # an instant, in which nothing is called
            continue
        around = open_calls[-1] if open_calls else -1
        if event.ph == "E":
            if open_calls:
                found[around][4] = {**event.args, **found[around][4]}
                found[around][6], found[around][8] = event.fx, at
                open_calls.pop()
                last[open_calls[-1] if open_calls else -1] = around
            continue
        before = last.get(around, -1)
        hook = f"{event.receiver.partition(':')[0]}.step" if event.hook == "step" else event.hook
        same = before >= 0 and found[before][0] == hook and event.receiver not in found[before][3]
        if same and (before == len(found) - 1 or found[-1][1] == hook):
            found[before][3].append(event.receiver)
            open_calls.append(before)
        else:
            inside = found[around][0] if around >= 0 else ""
            function = event.scope if isinstance(event, Expected) else found[open_calls[0]][0] if open_calls else hook
            found.append([hook, inside, function, [event.receiver], dict(event.args), event.fx, event.fx, at, at])
            open_calls.append(len(found) - 1)
    return [Call(hook, inside, function, tuple(who), *rest) for hook, inside, function, who, *rest in found]


def edits(
    a: Sequence[Call], b: Sequence[Call], effects: Sequence[str] = (), seen_in: Collection[str] | None = None
) -> Iterator[Edit]:
    """What differs in run `b` from run `a`; of effects those named, each where it begins to differ among the calls of
    the hooks `seen_in`, None for all."""
    where = {place: j for j, place in enumerate(_places(b))}
    kept = _ascending([(i, where[place]) for i, place in enumerate(_places(a)) if place in where])
    pairs = sorted([*kept, *_left_over([call.key for call in a], [call.key for call in b], kept)])
    kept = _ascending(pairs)
    moved = sorted({*pairs} - {*kept})
    of_a, of_b = ({pair[side] for pair in pairs} for side in (0, 1))
    for i, call in enumerate(a):
        if i not in of_a:
            yield Edit(call.function, call.hook, "missing", _place(call, a, i, kept, 0))
    for j, call in enumerate(b):
        if j not in of_b:
            yield Edit(call.function, call.hook, "added", _place(call, b, j, kept, 1))
    for i, j in moved:
        yield _moved(a, i, j, kept)
    for i, j in pairs:
        yield from _arguments(a[i], b[j])
    seen = [(i, j) for i, j in kept if seen_in is None or a[i].hook in seen_in]
    yield from _effects(a, b, seen, effects)


def _places(run: Sequence[Call]) -> list[Hashable]:
    """Of each call what tells it from all others: the call of the trainer, the epoch, the stage and the batch that it
    belongs to, and how many such there were."""
    found: list[Hashable] = []
    times: Counter[Hashable] = Counter()
    run_of, stage = 0, ""
    batch: Any = None
    for call in run:
        run_of += call.hook in FUNCTIONS
        batch = call.args.get("batch", batch)
        named = STAGED(call.hook)
        stage = named[1] if named else stage
        place = call.key, run_of, call.begin.get("current_epoch"), stage, batch
        found.append((place, times[place]))
        times[place] += 1
    return found


def _ascending(common: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """Of pairs of places, by the first, the most whose second places ascend, too: what is in the same order in both."""
    tops: list[int] = []  # the least last place of an ascending sequence of each length
    ends: list[int] = []  # which pair that is
    before: list[int] = []
    for index, (_, j) in enumerate(common):
        length = bisect_left(tops, j)
        before.append(ends[length - 1] if length else -1)
        tops[length : length + 1] = [j]
        ends[length : length + 1] = [index]
    found, index = [], ends[-1] if ends else -1
    while index >= 0:
        found.append(common[index])
        index = before[index]
    return found[::-1]


def _left_over(
    a: Sequence[Hashable], b: Sequence[Hashable], kept: Sequence[tuple[int, int]]
) -> Iterator[tuple[int, int]]:
    """Calls that come in both, but not in the same order: the first that is left with the first."""
    of_a, of_b = ({pair[side] for pair in kept} for side in (0, 1))
    waiting: dict[Hashable, deque[int]] = {}
    for j, key in enumerate(b):
        if j not in of_b:
            waiting.setdefault(key, deque()).append(j)
    for i, key in enumerate(a):
        if i not in of_a and waiting.get(key):
            yield i, waiting[key].popleft()


def _place(call: Call, run: Sequence[Call], at: int, kept: Sequence[tuple[int, int]], side: int) -> str:
    """Where a call is that only one run has: after which one of those that both have."""
    if call.inside and call.inside not in FUNCTIONS:
        return f"in {call.inside}"
    before = [pair[side] for pair in kept if pair[side] < at]
    return f"after {run[before[-1]].hook}" if before else ""


def _moved(a: Sequence[Call], i: int, j: int, kept: Sequence[tuple[int, int]]) -> Edit:
    """What a call that moved comes before or after now, and did not."""
    crossed = [a[p].hook for p, q in kept if (p < i) != (q < j)]
    first, last = crossed[0], crossed[-1]
    if any(p < i and q > j for p, q in kept):
        told = f"before {first}, not after {'it' if last == first else last}"
    else:
        told = f"after {last}, not before {'it' if last == first else first}"
    return Edit(a[i].function, a[i].hook, "moved", told, tuple(sorted({*crossed})))


def _arguments(one: Call, other: Call) -> Iterator[Edit]:
    """What a call is given, and who receives it."""
    if one.receivers != other.receivers:
        told = f"{', '.join(other.receivers) or 'nobody'}, not {', '.join(one.receivers)}"
        yield Edit(one.function, one.hook, "receivers", told)
    for name in dict.fromkeys([*one.args, *other.args]):
        if name not in other.args:
            yield Edit(one.function, one.hook, "argument", f"no {name}")
        elif name not in one.args:
            yield Edit(one.function, one.hook, "argument", f"{name} as well")
        elif not _same(one.args[name], other.args[name]):
            yield Edit(one.function, one.hook, "argument", f"{name} is {_of(other.args[name], one.args[name])}")


def _effects(
    a: Sequence[Call], b: Sequence[Call], kept: Sequence[tuple[int, int]], fields: Sequence[str]
) -> Iterator[Edit]:
    """Where an effect is another for the first time since it was the same."""
    differs = dict.fromkeys(fields, False)
    moments = [(a[i].began, "begins", a[i], a[i].begin, b[j].begin) for i, j in kept]
    moments += [(a[i].ended, "ends", a[i], a[i].end, b[j].end) for i, j in kept]
    for _, moment, call, one, other in sorted(moments, key=lambda row: row[0]):
        for field in fields:
            if field not in one or field not in other:
                continue
            was, differs[field] = differs[field], not _same(one[field], other[field])
            if differs[field] and not was:
                told = f"{field} is {_of(other[field], one[field])} when it {moment}"
                yield Edit(call.function, call.hook, "effect", told)


def _same(one: Any, other: Any) -> bool:
    """Whether two values say the same: gradients that are none, or zero, are clear."""
    if isinstance(one, str) and isinstance(other, str):
        return one == other or OWN_WORDS in (one, other) or {one, other} <= CLEAR
    return agrees(other, one)


def _of(other: Any, one: Any) -> str:
    """A value in place of another, in words that are alike wherever the same happens."""
    if isinstance(one, (bool, str)) or one is None:
        return f"{other}, not {one}"
    return "another"


def in_words(found: Iterable[Edit]) -> str:
    """The edits in a line, what is alike once, but for arguments and effects."""
    told = [edit for edit in dict.fromkeys(found) if edit.kind not in ("argument", "effect")]
    places = Counter((edit.kind, edit.hook) for edit in told)
    alike: dict[tuple[str, str], dict[str, None]] = {}
    for edit in told:
        times = places[edit.kind, edit.hook]
        detail = f"in {times} places" if times > MOST_PLACES else edit.detail
        alike.setdefault((edit.kind, detail), {})[edit.hook] = None
    return "; ".join(f"{', '.join(hooks)} {kind} {detail}".strip() for (kind, detail), hooks in alike.items())
