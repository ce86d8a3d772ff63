"""Whatever a trace records is what the contract says: at every event in place, whichever hook it is of."""

from __future__ import annotations

from typing import Any

from ..numerics import agrees
from ..spec.state import OWN_WORDS, Expected
from ..trace import Event
from .base import MOST_PENDING, Check, Line, shown

__all__ = ["Repeats", "State"]

NOTHING = object()


class State(Check):
    """At the `at` ("B", "E") of every call in the functions `scopes`, or in all, each of `fields` is what the contract
    says, where both tell of it. The fields are effects, or with `of = "args"` arguments; of what has no value of its
    own, "*", the first one holds.

    Only events that come right after the one that they are to come after are judged: where calls are missing, moved or
    doubled, the clauses about them say so, and the state beside them is another one for that reason.
    """

    in_place = True

    def __init__(self, fields: list[str], scopes: list[str] | None = None, of: str = "fx", at: str = "BE") -> None:
        super().__init__()
        self.fields, self.scopes, self.of, self.at = fields, scopes, of, at
        self.first: dict[str, Any] = {}

    def sees(self, line: Line) -> bool:
        return line.scope is not None and line.ph in self.at and (self.scopes is None or line.scope in self.scopes)

    def see(self, event: Event, expected: Expected | None) -> None:
        assert expected is not None
        seen, due = (event.fx, expected.fx) if self.of == "fx" else (event.args, expected.args)
        for field in self.fields:
            missing = None if field == "raised" else NOTHING  # which is never left out
            wanted, got = due.get(field, missing), seen.get(field, missing)
            if wanted is NOTHING or got is NOTHING:
                continue
            self.exercised = True
            if got == wanted or agrees(got, wanted) or (wanted == "clear" and got in ("none", "zero")):
                continue
            if wanted == OWN_WORDS:
                wanted = self.first.setdefault(field, got) if field != "raised" else got or wanted
            if got != wanted:
                verb = "begin" if event.ph == "B" else "end"
                self.fail(event.seq, f"{field} is {got}, not {wanted}, at the {verb} of {event.receiver}.{event.hook}",
                          f"{field}={wanted}", f"{shown(event)} with {field}={got}")


class Repeats(Check):
    """The end of a call has the arguments of its begin, as far as it repeats them."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[Event] = []

    def sees(self, line: Line) -> bool:
        return True

    def see(self, event: Event, expected: Expected | None) -> None:
        if event.ph == "B":
            self.open.append(event)
            del self.open[:-MOST_PENDING]
        elif event.ph == "E" and self.open:
            begun = self.open.pop()
            if (begun.receiver, begun.hook) != (event.receiver, event.hook):
                return  # which the clause about balanced spans tells
            for name, value in begun.args.items():
                self.exercised = True
                if event.args.get(name, value) != value:
                    got = f"{event.receiver}.{event.hook} ends with {name}={event.args[name]}"
                    self.fail(event.seq, f"{got}, and began with {name}={value}", f"{name}={value}", shown(event))
