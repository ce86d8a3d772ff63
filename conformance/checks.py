"""The kinds of check a clause can have. Each watches a trace go by, beside what the oracle expects.

A check is told of the expected events as the oracle produces them (`expect`), of the events of the
trace together with the expected event each corresponds to (`see`: the nth begin of a hook on a receiver
with the oracle's nth), and of the end (`finish`). Which of them it is told of, `expects` and `sees` say
once for all events alike. It keeps a bounded amount of memory and its first failure. Nothing here knows
torch, or any trainer.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, NamedTuple

from .hooks import HOOKS
from .near import did_you_mean
from .numerics import agrees, close
from .spec.oracle import CALLBACK_ONLY, OWN_WORDS, Expected
from .trace import Event

__all__ = ["KINDS", "Check", "CheckError", "Failure", "build", "shown"]

# What a check remembers of calls that have not come: beyond this they count as missing.
MOST_PENDING = 1000
MOST_RECEIVERS = 20_000  # ... of their receivers: as many as the oracle can be ahead of a trace


class CheckError(ValueError):
    """A clause's check is malformed; the message names the key and what is accepted."""


@dataclass(frozen=True)
class Failure:
    """The first time a check failed: where in the trace (None: it ended), why, what was expected."""

    seq: int | None
    reason: str
    expected: str = ""
    seen: str = ""


def shown(event: Event | Expected) -> str:
    """An event in words: "module.on_train_batch_start begins (batch_idx=1)"."""
    verb = {"B": "begins", "E": "ends", "I": "happens"}[event.ph]
    args = ", ".join(f"{name}={value}" for name, value in event.args.items())
    return f"{event.receiver}.{event.hook} {verb}" + (f" ({args})" if args else "")


class Line(NamedTuple):
    """What events have in common that are alike for every check: begin or end, whose, which hook, and
    the function of the pseudocode it is a line of; None for an event that no line corresponds to."""

    ph: str
    receiver: str
    hook: str
    scope: str | None

    @property
    def primary(self) -> bool:
        """Whether this is the one receiver that stands for the hook: the module where it gets it."""
        if self.hook in CALLBACK_ONLY:
            return self.receiver == "callback:0"
        return not self.receiver.startswith("callback:")


class Spec:
    """Hooks a check is about: "on_epoch_start", "on_epoch_start@val_loop" for one function's line, or
    "scheduler.step" for one receiver's."""

    def __init__(self, hooks: Iterable[str]) -> None:
        self.hooks: dict[str, set[tuple[str, str]]] = {}
        for text in hooks:
            receiver_and_hook, _, scope = text.partition("@")
            receiver, _, hook = receiver_and_hook.rpartition(".")
            if hook not in HOOKS:
                raise CheckError(f"{hook!r} is no hook{did_you_mean(hook, HOOKS)}")
            self.hooks.setdefault(hook, set()).add((receiver, scope))
        self.held: dict[tuple[str, str, str | None], bool] = {}

    def names(self, receiver: str, hook: str) -> bool:
        """Whether the hook of this receiver is meant, in whichever function."""
        return any(named in ("", receiver) for named, _ in self.hooks.get(hook, ()))

    def holds(self, line: Line | Expected) -> bool:
        """Whether this line of the pseudocode, at this receiver, is meant."""
        key = line.receiver, line.hook, line.scope
        known = self.held.get(key)
        if known is None:
            known = self.held[key] = line.scope is not None and any(
                receiver in ("", line.receiver) and scope in ("", line.scope)
                for receiver, scope in self.hooks.get(line.hook, ())
            )
        return known


def _names(*specs: Spec) -> frozenset[str]:
    return frozenset(hook for spec in specs for hook in spec.hooks)


class Check:
    """Base of all kinds. `hooks` are those it is about, None for all; `needed` are those of them without
    which it cannot be judged, while of the others it takes any."""

    hooks: frozenset[str] | None = None
    needed: frozenset[str] = frozenset()

    def __init__(self) -> None:
        self.failure: Failure | None = None
        self.exercised = False

    def fail(self, seq: int | None, reason: str, expected: str = "", seen: str = "") -> None:
        """Remember the first failure."""
        if self.failure is None:
            self.failure = Failure(seq, reason, expected, seen)

    def expects(self, line: Line) -> bool:
        """Whether `expect` is to be told of such events."""
        return False

    def sees(self, line: Line) -> bool:
        """Whether `see` is to be told of such events."""
        return False

    def expect(self, expected: Expected) -> None:
        """The oracle says that this event is to come."""

    def see(self, event: Event, expected: Expected | None) -> None:
        """The trace holds this event; `expected` is its counterpart, None if there is none."""

    def finish(self, whole: bool) -> None:
        """The trace has ended; `whole` says whether the oracle has, too, or had much more to come."""


class Count(Check):
    """`hooks` are called as often as the contract says, on each receiver."""

    def __init__(self, hooks: list[str]) -> None:
        super().__init__()
        self.spec = Spec(hooks)
        self.hooks = _names(self.spec)
        self.last: dict[tuple[str, str], Expected] = {}
        self.wanted: dict[tuple[str, str], int] = {}
        self.met: dict[tuple[str, str], int] = {}

    def expects(self, line: Line) -> bool:
        return line.ph == "B" and self.spec.holds(line)

    def sees(self, line: Line) -> bool:
        return line.ph == "B" and line.hook in self.spec.hooks

    def expect(self, expected: Expected) -> None:
        key = expected.receiver, expected.hook
        self.wanted[key] = self.wanted.get(key, 0) + 1
        self.exercised = True

    def see(self, event: Event, expected: Expected | None) -> None:
        key = event.receiver, event.hook
        if expected is None:
            if not self.spec.names(event.receiver, event.hook):
                return
            # A call too many has no line of its own: it is one more of the line before it.
            before = self.last.get(key)
            if before is None or self.spec.holds(before):
                times = self.met.get(key, 0)
                self.fail(
                    event.seq,
                    f"{event.receiver}.{event.hook} is called more often than {times} times",
                    f"{times} calls of {event.receiver}.{event.hook}",
                    shown(event),
                )
            return
        self.last[key] = expected
        if self.spec.holds(expected):
            self.met[key] = self.met.get(key, 0) + 1

    def finish(self, whole: bool) -> None:
        for key, wanted in self.wanted.items():
            met = self.met.get(key, 0)
            if met < wanted:
                name = ".".join(key)
                least = "" if whole else "at least "
                what = "is never called" if met == 0 else f"is called {met} times, not {least}{wanted} times"
                self.fail(None, f"{name} {what}", f"{least}{wanted} calls of {name}", f"{met} calls")


class Never(Check):
    """None of `hooks` is called."""

    def __init__(self, hooks: list[str]) -> None:
        super().__init__()
        self.hooks = _names(Spec(hooks))
        self.exercised = True  # by any trace

    def sees(self, line: Line) -> bool:
        return line.ph == "B" and line.hook in (self.hooks or ())

    def see(self, event: Event, expected: Expected | None) -> None:
        self.fail(event.seq, f"{event.receiver}.{event.hook} is called", f"no call of {event.hook}", shown(event))


class Order(Check):
    """`first` has ended before `then` begins (`point = "E"`: before `then` ends, where it encloses it).

    For the kth `then`, as many `first` must have ended as the contract says.
    """

    def __init__(self, first: str, then: str, point: str = "B") -> None:
        super().__init__()
        self.first, self.then, self.point = Spec([first]), Spec([then]), point
        self.first_name, self.then_name = first.partition("@")[0], then.partition("@")[0]
        self.hooks = self.needed = _names(self.first, self.then)
        self.expected_first = self.seen_first = 0
        self.queue: deque[tuple[Expected, int]] = deque(maxlen=MOST_PENDING)

    def expects(self, line: Line) -> bool:
        first, then = line.ph == "E" and self.first.holds(line), line.ph == self.point and self.then.holds(line)
        return line.primary and (first or then)

    def sees(self, line: Line) -> bool:
        return self.expects(line)

    def expect(self, expected: Expected) -> None:
        if expected.ph == "E" and self.first.holds(expected):
            self.expected_first += 1
        if expected.ph == self.point and self.then.holds(expected):
            self.queue.append((expected, self.expected_first))

    def see(self, event: Event, expected: Expected | None) -> None:
        assert expected is not None
        if event.ph == "E" and self.first.holds(expected):
            self.seen_first += 1
        if event.ph != self.point or not self.then.holds(expected):
            return
        while self.queue:
            waiting, needed = self.queue.popleft()
            if waiting is expected:
                break
        else:
            return
        self.exercised = self.exercised or needed > 0
        if self.seen_first < needed:
            verb = "begins" if self.point == "B" else "ends"
            self.fail(
                event.seq,
                f"{self.then_name} {verb} before {self.first_name} has ended",
                f"{self.first_name}, then {self.then_name}",
                shown(event),
            )


class Encloses(Check):
    """`inner` begins while `outer` is open."""

    def __init__(self, outer: str, inner: list[str]) -> None:
        super().__init__()
        self.outer_name, self.outer, self.inner = outer, Spec([outer]), Spec(inner)
        self.hooks, self.needed = _names(self.outer, self.inner), _names(self.outer)
        self.expected_open = self.seen_open = 0
        self.queue: deque[tuple[Expected, bool]] = deque(maxlen=MOST_PENDING)

    def expects(self, line: Line) -> bool:
        return line.primary and (self.outer.holds(line) or (line.ph == "B" and self.inner.holds(line)))

    def sees(self, line: Line) -> bool:
        return self.expects(line)

    def expect(self, expected: Expected) -> None:
        if self.outer.holds(expected):
            self.expected_open += 1 if expected.ph == "B" else -1
        else:
            self.queue.append((expected, self.expected_open > 0))

    def see(self, event: Event, expected: Expected | None) -> None:
        assert expected is not None
        if self.outer.holds(expected):
            self.seen_open += 1 if event.ph == "B" else -1
            return
        while self.queue:
            waiting, inside = self.queue.popleft()
            if waiting is expected:
                break
        else:
            return
        self.exercised = self.exercised or inside
        if inside and self.seen_open == 0:
            self.fail(
                event.seq,
                f"{event.hook} is called outside of {self.outer_name}",
                f"{event.hook} within {self.outer_name}",
                shown(event),
            )


class Argument(Check):
    """The argument `field` of `hooks` is what the contract says, at the `at` of each call ("B", "E");
    with `absent`, it is not there where the contract has none. A number that only the scenario's formulas
    tell is judged where it was recorded."""

    def __init__(self, hooks: list[str], field: str, at: str = "B", absent: bool = False) -> None:
        super().__init__()
        self.spec, self.field, self.at, self.absent = Spec(hooks), field, at, absent
        self.hooks = _names(self.spec)

    def sees(self, line: Line) -> bool:
        return line.ph == self.at and self.spec.holds(line)

    def see(self, event: Event, expected: Expected | None) -> None:
        assert expected is not None
        wanted, got = expected.args.get(self.field), event.args.get(self.field)
        if self.absent:
            self.exercised = self.exercised or wanted is None
            if wanted is None and got is not None:
                self.fail(event.seq, f"{event.receiver}.{event.hook} has {self.field}={got} where none is due",
                          shown(expected), shown(event))
            return
        if wanted is None and self.field != "raised":
            return
        if isinstance(wanted, float) and self.field not in event.args:
            return
        self.exercised = True
        if not (got if wanted == OWN_WORDS else agrees(got, wanted)):
            given = f"{self.field}={got}" if self.field in event.args else f"no {self.field}"
            wants = "none" if wanted is None else wanted
            self.fail(event.seq, f"{event.receiver}.{event.hook} has {given} where {self.field}={wants} is due",
                      shown(expected), shown(event))


class Effect(Check):
    """At the begin or end of `hooks`, the effect `field` is `value` ("oracle": what the contract says)."""

    def __init__(self, hooks: list[str], field: str, value: Any = "oracle", at: str = "BE") -> None:
        super().__init__()
        self.spec, self.field, self.value, self.at = Spec(hooks), field, value, at
        self.hooks = _names(self.spec)

    def sees(self, line: Line) -> bool:
        return line.ph in self.at and self.spec.holds(line)

    def see(self, event: Event, expected: Expected | None) -> None:
        assert expected is not None
        if self.field not in event.fx or "raised" in event.args:
            return
        wanted = expected.fx.get(self.field) if self.value == "oracle" else self.value
        if wanted is None:
            return
        self.exercised = True
        got = event.fx[self.field]
        if agrees(got, wanted) or (wanted == "clear" and got in ("none", "zero")):
            return
        verb = "begin" if event.ph == "B" else "end"
        self.fail(event.seq, f"{self.field} is {got}, not {wanted}, at the {verb} of {event.receiver}.{event.hook}",
                  f"{self.field}={wanted}", f"{shown(event)} with {self.field}={got}")


class Logged(Check):
    """At the begin or end of `hooks`, the logged values whose names match one of `names` are what the contract
    says; one that is due is there."""

    def __init__(self, hooks: list[str], names: list[str], at: str = "B") -> None:
        super().__init__()
        self.spec, self.names, self.at = Spec(hooks), names, at
        self.hooks = _names(self.spec)

    def sees(self, line: Line) -> bool:
        return line.ph in self.at and self.spec.holds(line)

    def see(self, event: Event, expected: Expected | None) -> None:
        assert expected is not None
        if "metrics" not in event.fx or "values" not in expected.fx or "raised" in event.args:
            return
        seen = dict(zip(event.fx["metrics"], event.fx.get("values", ())))
        for name, wanted in zip(expected.fx["metrics"], expected.fx["values"]):
            if not any(fnmatchcase(name, pattern) for pattern in self.names):
                continue
            self.exercised = True
            got = seen.get(name)
            if not isinstance(got, (int, float)) or not close(got, wanted):
                moment = "begin" if event.ph == "B" else "end"
                what = "not there" if got is None else got
                self.fail(event.seq, f"{name} is {what}, not {wanted:.6g}, at the {moment} of "
                          f"{event.receiver}.{event.hook}", f"{name}={wanted:.6g}", f"{shown(event)} with {name}={got}")


class Changes(Check):
    """The parameters change at the end of `only_at`, and nowhere else."""

    def __init__(self, only_at: list[str]) -> None:
        super().__init__()
        self.only_at = frozenset(only_at)
        self.before: int | None = None

    def sees(self, line: Line) -> bool:
        return True

    def see(self, event: Event, expected: Expected | None) -> None:
        now = event.fx.get("params")
        if now is None:
            return
        if self.before is not None and now != self.before:
            self.exercised = True
            if event.ph != "E" or event.hook not in self.only_at:
                self.fail(event.seq, "the parameters change outside of the optimizer's step",
                          "the same parameters as at the event before", shown(event))
        self.before = now


class Updates(Check):
    """Across each call of `hook`, the parameters change exactly if the contract says so."""

    def __init__(self, hook: str) -> None:
        super().__init__()
        self.hook, self.hooks = hook, frozenset({hook})
        self.seen_begin = self.expected_begin = 0

    def sees(self, line: Line) -> bool:
        return line.hook == self.hook and line.scope is not None

    def see(self, event: Event, expected: Expected | None) -> None:
        assert expected is not None
        if "params" not in event.fx:
            return
        if event.ph == "B":
            self.seen_begin, self.expected_begin = event.fx["params"], expected.fx["params"]
            return
        changed, wanted = event.fx["params"] != self.seen_begin, expected.fx["params"] != self.expected_begin
        self.exercised = True
        if changed != wanted:
            was, due = ("change", "stay") if changed else ("stay", "change")
            self.fail(event.seq, f"the parameters {was} in this {self.hook}", f"parameters that {due}", shown(event))


class Receivers(Check):
    """Each hook goes to its receivers in the contract's order."""

    def __init__(self) -> None:
        super().__init__()
        self.due: dict[str, deque[str]] = {}

    def expects(self, line: Line) -> bool:
        return line.ph == "B" and line.hook != "step"  # an optimizer's or a scheduler's own: nobody else gets it

    def sees(self, line: Line) -> bool:
        return self.expects(line) and line.scope is not None

    def expect(self, expected: Expected) -> None:
        self.due.setdefault(expected.hook, deque(maxlen=MOST_RECEIVERS)).append(expected.receiver)

    def see(self, event: Event, expected: Expected | None) -> None:
        queue = self.due.get(event.hook)
        wanted = queue.popleft() if queue else None
        if wanted is None:
            return
        self.exercised = True
        if wanted != event.receiver:
            self.fail(event.seq, f"{event.hook} reaches {event.receiver} before {wanted}",
                      f"{wanted}.{event.hook}", shown(event))


class Balance(Check):
    """Every span that begins ends, the innermost first; `depth` counts the open ones."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[tuple[str, str, int]] = []

    def sees(self, line: Line) -> bool:
        return True

    def see(self, event: Event, expected: Expected | None) -> None:
        self.exercised = True
        if event.ph == "E":
            last = self.open.pop() if self.open else None
            if last != (event.receiver, event.hook, event.depth):
                inner = f"{last[0]}.{last[1]} (depth {last[2]})" if last else "nothing"
                self.fail(event.seq, f"{event.receiver}.{event.hook} ends where {inner} is open",
                          f"the end of {inner}", shown(event))
        elif event.depth != len(self.open):
            self.fail(event.seq, f"depth {event.depth} where {len(self.open)} spans are open",
                      f"depth {len(self.open)}", shown(event))
        if event.ph == "B":
            self.open.append((event.receiver, event.hook, event.depth))
            if len(self.open) > MOST_PENDING:
                self.fail(event.seq, f"more than {MOST_PENDING} spans are open", "spans that end", shown(event))
                del self.open[0]

    def finish(self, whole: bool) -> None:
        if self.open:
            receiver, hook, _ = self.open[-1]
            self.fail(None, f"{receiver}.{hook} never ends", f"the end of {receiver}.{hook}", "the end of the trace")


class Sequence(Check):
    """The whole run is, event by event, what the contract says."""

    def __init__(self) -> None:
        super().__init__()
        self.due: deque[Expected] = deque()

    def expects(self, line: Line) -> bool:
        return True

    def sees(self, line: Line) -> bool:
        return True

    def expect(self, expected: Expected) -> None:
        self.due.append(expected)

    def see(self, event: Event, expected: Expected | None) -> None:
        self.exercised = True
        wanted = self.due.popleft() if self.due else None
        if wanted is None or (event.ph, event.receiver, event.hook) != (wanted.ph, wanted.receiver, wanted.hook):
            due = shown(wanted) if wanted else "the end of the run"
            self.fail(event.seq, f"{shown(event)} where {due} is due", due, shown(event))
            self.due.clear()

    def finish(self, whole: bool) -> None:
        if self.due:
            due = shown(self.due[0])
            self.fail(None, f"the run ends where {due} is due", due, "the end of the trace")


KINDS: Mapping[str, type[Check]] = {
    "count": Count,
    "never": Never,
    "order": Order,
    "encloses": Encloses,
    "argument": Argument,
    "effect": Effect,
    "logged": Logged,
    "changes": Changes,
    "updates": Updates,
    "receivers": Receivers,
    "balance": Balance,
    "sequence": Sequence,
}
# Keys of a clause's check that say when it applies, rather than what it checks.
CONDITIONS = frozenset({"kind", "given"})


def build(check: Mapping[str, Any]) -> Check:
    """A fresh check from a clause's data. Raises CheckError for an unknown kind or parameter."""
    kind = str(check.get("kind"))
    if kind not in KINDS:
        raise CheckError(f"kind {kind!r} is none of {', '.join(KINDS)}")
    given = check.get("given", [])
    if not isinstance(given, list) or not all(isinstance(word, str) for word in given):
        raise CheckError(f"given={given!r}; a list of words is accepted")
    try:
        return KINDS[kind](**{key: value for key, value in check.items() if key not in CONDITIONS})
    except TypeError as error:
        raise CheckError(f"{kind}: {str(error).rpartition('__init__() ')[2]}") from None
