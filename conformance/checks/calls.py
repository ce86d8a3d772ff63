"""Which calls there are, and in what order: how often, before what, within what, to whom, and all of them."""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import replace

from ..edits import calls, edits, in_words
from ..spec.state import Expected
from ..trace import Event
from .base import MOST_PENDING, Check, Line, Pending, Spec, hooks_of, shortened, shown

__all__ = ["Balance", "Count", "Encloses", "Never", "Order", "Receivers", "Sequence"]

MOST_EVENTS, MOST_EDITS = 1000, 5000  # of a run that is not the contract's, and characters of what is told of it
MOST_RECEIVERS = 20_000  # that are still due: as many as the oracle can be ahead of a trace


class Count(Check):
    """`hooks` are called as often as the contract says, on each receiver; by a trainer that has those `needed` of
    them."""

    goes_on = True  # for a call that seems to be one too many may be one that comes elsewhere

    def __init__(self, hooks: list[str], needed: list[str] | None = None) -> None:
        super().__init__()
        self.spec = Spec(hooks)
        self.hooks, self.needed = hooks_of(self.spec), frozenset(needed or ())
        self.last: dict[tuple[str, str], Expected] = {}
        self.wanted: Counter[tuple[str, str]] = Counter()
        self.met: Counter[tuple[str, str]] = Counter()
        self.due: Counter[tuple[str, str]] = Counter()  # in all functions
        self.calls: Counter[tuple[str, str]] = Counter()
        self.first: tuple[str, str] | None = None  # that is called too often

    def expects(self, line: Line) -> bool:
        return line.ph == "B" and line.hook in self.spec.hooks

    sees = expects

    def expect(self, expected: Expected) -> None:
        key = expected.receiver, expected.hook
        self.due[key] += 1
        if self.spec.holds(expected):
            self.wanted[key] += 1
            self.exercised = True

    def see(self, event: Event, expected: Expected | None) -> None:
        key = event.receiver, event.hook
        self.calls[key] += 1
        if expected is not None:
            self.last[key] = expected
            self.met[key] += self.spec.holds(expected)
            return
        # A call too many has no line of its own: it is one more of the line before it.
        before = self.last.get(key)
        if self.spec.names(*key) and (before is None or self.spec.holds(before)):
            self.first = self.first or key
            name, times = ".".join(key), self.met[key]
            reason = f"{name} is called more often than is due: here, after {times} call{'s' * (times != 1)}"
            self.fail(event.seq, reason, f"no other call of {name} here", shown(event))

    def finish(self, whole: bool) -> None:
        # As many calls as are due, of which one comes elsewhere: the clauses about the order tell of it.
        if self.first is not None and self.calls[self.first] == self.due[self.first]:
            self.failure = None
        for key, wanted in self.wanted.items():
            met = self.met[key]
            if met < wanted and self.calls[key] != self.due[key]:
                name = ".".join(key)
                least = "" if whole else "at least "
                what = "is never called" if met == 0 else f"is called {met} times, not {least}{wanted} times"
                self.fail(None, f"{name} {what}", f"{least}{wanted} calls of {name}", f"{met} calls")


class Never(Check):
    """None of `hooks` is called."""

    def __init__(self, hooks: list[str]) -> None:
        super().__init__()
        self.hooks = hooks_of(Spec(hooks))
        self.exercised = True  # by any trace

    def sees(self, line: Line) -> bool:
        return line.ph == "B" and line.hook in (self.hooks or ())

    def see(self, event: Event, expected: Expected | None) -> None:
        self.fail(event.seq, f"{event.receiver}.{event.hook} is called", f"no call of {event.hook}", shown(event))


class Order(Check):
    """`first` has ended before `then` begins (`point = "E"`: before `then` ends, where it encloses it).

    A `then` is judged by the `first` that the contract has right before it. One that never comes is the affair of the
    clause about that call.
    """

    goes_on = True  # for a `first` that has not come may come yet

    def __init__(self, first: str, then: str, point: str = "B") -> None:
        super().__init__()
        self.first, self.then, self.point = Spec([first]), Spec([then]), point
        self.first_name, self.then_name = first.partition("@")[0], then.partition("@")[0]
        self.hooks = self.needed = hooks_of(self.first, self.then)
        self.due = self.came = 0  # how many `first` the oracle has told of, and which of them has come
        self.firsts, self.thens = Pending(), Pending()
        self.early: tuple[int, Event] | None = None  # the `first` that a `then` came before

    def expects(self, line: Line) -> bool:
        first, then = line.ph == "E" and self.first.holds(line), line.ph == self.point and self.then.holds(line)
        return line.primary and (first or then)

    def sees(self, line: Line) -> bool:
        return self.expects(line)

    def expect(self, expected: Expected) -> None:
        if expected.ph == "E" and self.first.holds(expected):
            self.due += 1
            self.firsts.put(expected, self.due)
        if expected.ph == self.point and self.then.holds(expected):
            self.thens.put(expected, self.due)

    def see(self, event: Event, expected: Expected | None) -> None:
        assert expected is not None
        if event.ph == "E" and self.first.holds(expected):
            self.came = self.firsts.take(expected) or self.came
            if self.early is not None and self.came >= self.early[0]:
                self.fail_at_early(self.came)
        if event.ph == self.point and self.then.holds(expected):
            needed = self.thens.take(expected) or 0
            self.exercised = self.exercised or needed > 0
            if self.came < needed and self.early is None:
                self.early, self.suspect = (needed, event), event.seq

    def fail_at_early(self, came: int) -> None:
        """The `first` has come, after the `then`; if another one has, that was missing."""
        assert self.early is not None
        needed, event = self.early
        self.early = None
        if came == needed:
            verb = "begins" if self.point == "B" else "ends"
            reason = f"{self.then_name} {verb} before {self.first_name} has ended"
            self.fail(event.seq, reason, f"{self.first_name}, then {self.then_name}", shown(event))

    def finish(self, whole: bool) -> None:
        self.exercised = self.exercised and self.came > 0


class Encloses(Check):
    """`inner` begins while `outer` is open."""

    def __init__(self, outer: str, inner: list[str]) -> None:
        super().__init__()
        self.outer_name, self.outer, self.inner = outer, Spec([outer]), Spec(inner)
        self.hooks, self.needed = hooks_of(self.outer, self.inner), hooks_of(self.outer)
        self.expected_open = self.seen_open = 0
        self.pending = Pending()

    def expects(self, line: Line) -> bool:
        return line.primary and (self.outer.holds(line) or (line.ph == "B" and self.inner.holds(line)))

    def sees(self, line: Line) -> bool:
        return self.expects(line)

    def expect(self, expected: Expected) -> None:
        if self.outer.holds(expected):
            self.expected_open += 1 if expected.ph == "B" else -1
        else:
            self.pending.put(expected, self.expected_open)

    def see(self, event: Event, expected: Expected | None) -> None:
        assert expected is not None
        if self.outer.holds(expected):
            self.seen_open += 1 if event.ph == "B" else -1
            return
        inside = (self.pending.take(expected) or 0) > 0
        self.exercised = self.exercised or inside
        if inside and self.seen_open == 0:
            self.fail(
                event.seq,
                f"{event.hook} is called outside of {self.outer_name}",
                f"{event.hook} within {self.outer_name}",
                shown(event),
            )


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
    """The whole run is, event by event, what the contract says. If no more than MOST_EVENTS come from the first
    difference on, it is told what is to be done to the contract's run to make it this one."""

    goes_on = True

    def __init__(self) -> None:
        super().__init__()
        self.due: deque[Expected] = deque()
        self.contract: list[Expected] = []  # both from the first difference on
        self.trace: list[Event] = []
        self.is_short = True

    def expects(self, line: Line) -> bool:
        return True

    def sees(self, line: Line) -> bool:
        return True

    def expect(self, expected: Expected) -> None:
        if self.failure is None:
            self.due.append(expected)
        elif self.is_short:
            self.contract.append(expected)
            self.forget_if_long()

    def see(self, event: Event, expected: Expected | None) -> None:
        self.exercised = True
        if self.failure is not None:
            self.trace += [event] * self.is_short
            self.forget_if_long()
            return
        wanted = self.due[0] if self.due else None
        if wanted is not None and (event.ph, event.receiver, event.hook) == (wanted.ph, wanted.receiver, wanted.hook):
            self.due.popleft()
            return
        due = shown(wanted) if wanted else "the end of the run"
        self.fail(event.seq, f"{shown(event)} where {due} is due", due, shown(event))
        self.trace, self.contract = [event], [*self.due]
        self.due.clear()
        self.forget_if_long()

    def forget_if_long(self) -> None:
        """Memory does not grow with the trace."""
        if max(len(self.trace), len(self.contract)) > MOST_EVENTS:
            self.is_short, self.trace, self.contract = False, [], []

    def finish(self, whole: bool) -> None:
        if self.failure is None and self.due:
            due = shown(self.due[0])
            self.fail(None, f"the run ends where {due} is due", due, "the end of the trace")
        elif self.failure is not None and self.is_short:
            contract = self.contract if whole else self.contract[: len(self.trace)]
            told = in_words(edits(calls(contract), calls(self.trace)))
            told = shortened(f"{self.failure.reason}; in all: {told}", MOST_EDITS) if told else self.failure.reason
            self.failure = replace(self.failure, reason=told)
