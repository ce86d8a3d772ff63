"""Which calls there are, and in what order: how often, before what, within what, to whom, and all of them."""

from __future__ import annotations

from collections import deque

from ..edits import calls, edits, in_words
from ..spec.oracle import Expected
from ..trace import Event
from .base import MOST_PENDING, Check, Line, Pending, Spec, hooks_of, shown

__all__ = ["Balance", "Count", "Encloses", "Never", "Order", "Receivers", "Sequence"]

MOST_EVENTS = 1000  # of a run that is not the contract's
MOST_RECEIVERS = 20_000  # that are still due: as many as the oracle can be ahead of a trace


class Count(Check):
    """`hooks` are called as often as the contract says, on each receiver."""

    def __init__(self, hooks: list[str]) -> None:
        super().__init__()
        self.spec = Spec(hooks)
        self.hooks = hooks_of(self.spec)
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
        self.hooks = hooks_of(Spec(hooks))
        self.exercised = True  # by any trace

    def sees(self, line: Line) -> bool:
        return line.ph == "B" and line.hook in (self.hooks or ())

    def see(self, event: Event, expected: Expected | None) -> None:
        self.fail(event.seq, f"{event.receiver}.{event.hook} is called", f"no call of {event.hook}", shown(event))


class Order(Check):
    """`first` has ended before `then` begins (`point = "E"`: before `then` ends, where it encloses it).

    For the kth `then`, as many `first` must have ended as the contract says. A `first` that never comes is the affair
    of the clause about that call.
    """

    goes_on = True

    def __init__(self, first: str, then: str, point: str = "B") -> None:
        super().__init__()
        self.first, self.then, self.point = Spec([first]), Spec([then]), point
        self.first_name, self.then_name = first.partition("@")[0], then.partition("@")[0]
        self.hooks = self.needed = hooks_of(self.first, self.then)
        self.expected_first = self.seen_first = 0
        self.pending = Pending()

    def expects(self, line: Line) -> bool:
        first, then = line.ph == "E" and self.first.holds(line), line.ph == self.point and self.then.holds(line)
        return line.primary and (first or then)

    def sees(self, line: Line) -> bool:
        return self.expects(line)

    def expect(self, expected: Expected) -> None:
        if expected.ph == "E" and self.first.holds(expected):
            self.expected_first += 1
        if expected.ph == self.point and self.then.holds(expected):
            self.pending.put(expected, self.expected_first)

    def see(self, event: Event, expected: Expected | None) -> None:
        assert expected is not None
        if event.ph == "E" and self.first.holds(expected):
            self.seen_first += 1
        if event.ph != self.point or not self.then.holds(expected):
            return
        needed = self.pending.take(expected)
        if needed is None:
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

    def finish(self, whole: bool) -> None:
        if self.failure is not None and self.seen_first == 0:
            self.failure, self.exercised = None, False


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
            failure, self.failure = self.failure, None
            reason = f"{failure.reason}; in all: {told}" if told else failure.reason
            self.fail(failure.seq, reason, failure.expected, failure.seen)
