"""What calls carry and do: their arguments, the effects seen at them, what is logged, changes of the parameters."""

from __future__ import annotations

from collections import Counter
from fnmatch import fnmatchcase
from itertools import zip_longest
from typing import Any

from ..edits import FUNCTIONS
from ..numerics import agrees
from ..spec.state import OWN_WORDS, Expected
from ..trace import Event
from .base import AtHooks, Check, Line, shown

__all__ = ["Argument", "Changes", "Effect", "Handed", "Logged", "Parts", "Updates", "Waits"]

# What a program may know nothing of, beside what only formulas tell: it is judged where it was recorded.
TOLD = (
    *("outputs_keys", "outputs_graph", "outputs_values", "results_values", "returned_names", "returned_values"),
    *("kept", "found", "complete", "status", "files", "hparams", "logger_hparams"),
)


def fits(got: Any, wanted: Any) -> bool:
    """Whether an effect is what is due; gradients are clear if there are none, or only zeros."""
    return agrees(got, wanted) or (wanted == "clear" and got in ("none", "zero"))


class Argument(AtHooks):
    """The argument `field` of `hooks` is what the contract says, at the `at` of each call ("B", "E");
    with `absent`, it is not there where the contract has none. A number that only the scenario's formulas
    tell is judged where it was recorded."""

    def __init__(self, hooks: list[str], field: str, at: str = "B", absent: bool = False) -> None:
        super().__init__(hooks, at)
        self.field, self.absent = field, absent

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
        if self.field not in event.args and (isinstance(wanted, float) or self.field in TOLD):
            return
        self.exercised = True
        if not (got if wanted == OWN_WORDS else agrees(got, wanted)):
            given = f"{self.field}={got}" if self.field in event.args else f"no {self.field}"
            wants = "none" if wanted is None else wanted
            self.fail(event.seq, f"{event.receiver}.{event.hook} has {given} where {self.field}={wants} is due",
                      shown(expected), shown(event))


class Effect(AtHooks):
    """At the begin or end of `hooks`, the effect `field` is `value`, the documentation's word, or what another contract
    has instead ("oracle": what each of them says)."""

    def __init__(self, hooks: list[str], field: str, value: Any = "oracle", at: str = "BE") -> None:
        super().__init__(hooks, at)
        self.field, self.value = field, value

    def see(self, event: Event, expected: Expected | None) -> None:
        assert expected is not None
        if self.field not in event.fx or "raised" in event.args:
            return
        due = expected.fx.get(self.field)
        wanted = due if self.value == "oracle" or (due is not None and not fits(due, self.value)) else self.value
        if wanted is None:
            return
        self.exercised = True
        got = event.fx[self.field]
        if fits(got, wanted):
            return
        verb = "begin" if event.ph == "B" else "end"
        self.fail(event.seq, f"{self.field} is {got}, not {wanted}, at the {verb} of {event.receiver}.{event.hook}",
                  f"{self.field}={wanted}", f"{shown(event)} with {self.field}={got}")


class Logged(AtHooks):
    """At the begin or end of `hooks`, the logged values whose names match one of `names` are what the contract
    says; one that is due is there."""

    def __init__(self, hooks: list[str], names: list[str], at: str = "B") -> None:
        super().__init__(hooks, at)
        self.names = names

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
            if not agrees(got, wanted):
                moment = "begin" if event.ph == "B" else "end"
                what = "not there" if got is None else got
                self.fail(event.seq, f"{name} is {what}, not {wanted:.6g}, at the {moment} of "
                          f"{event.receiver}.{event.hook}", f"{name}={wanted:.6g}", f"{shown(event)} with {name}={got}")


class Handed(AtHooks):
    """By the end of `hooks`, calls of the trainer, a logger has been given just the values that the contract says, in
    their order, under each name that matches one of `names`; with `absent`, nothing under those. Which name came before
    which is not judged. With `steps`, it is of which steps they are, where they are as many."""

    def __init__(self, hooks: list[str], names: list[str], absent: bool = False, steps: bool = False) -> None:
        super().__init__(hooks, "E")
        self.names, self.absent, self.steps = names, absent, steps

    def see(self, event: Event, expected: Expected | None) -> None:
        assert expected is not None
        if any(field not in each.args for each in (event, expected) for field in ("logger_names", self.field)):
            return
        got, due, names = self.by_name(event), self.by_name(expected), event.args["logger_names"]
        self.exercised = self.exercised or self.absent or bool(due)
        for name in sorted(got.keys() | due.keys()):
            given, wanted = got.get(name, []), due.get(name, [])
            others = self.steps and isinstance(names, list) and names.count(name) != len(wanted)
            if others or agrees(given, wanted):
                continue
            wants = [value if value == OWN_WORDS else round(value, 6) for value in wanted] or "nothing"
            what = f"{name} in the steps {given}" if self.steps else f"{given or 'nothing'} as {name}"
            self.fail(event.seq, f"in {event.hook}, loggers are given {what}, not {wants}",
                      f"{name}={wants}", f"{event.receiver}.{event.hook} ends, {name}={given or 'nothing'}")

    def by_name(self, event: Event | Expected) -> dict[str, list[Any]]:
        """The values, or their steps, under each of the names that this is about."""
        found: dict[str, list[Any]] = {}
        names, facts = (event.args.get(field) for field in ("logger_names", self.field))
        both = (names, facts) if isinstance(names, list) and isinstance(facts, list) else ()
        for name, fact in zip_longest(*both, fillvalue="nothing"):
            if any(fnmatchcase(str(name), pattern) for pattern in self.names):
                found.setdefault(str(name), []).append(fact)
        return found

    @property
    def field(self) -> str:
        return "logger_steps" if self.steps else "logger_values"


class Parts(AtHooks):
    """The `rows` that the calls of `hooks` get are, one after the other, those of the batch that `whole` got: none
    is missing and none comes twice, or with `again` all of them come again. In how many parts, is not judged."""

    def __init__(self, hooks: list[str], whole: list[str], again: bool = False) -> None:
        super().__init__([*hooks, *whole], "B")
        self.whole, self.needed, self.again = frozenset(whole), frozenset(hooks), again
        self.rows: list[Any] = []  # of the batch
        self.place = 0  # of the one that is due among them

    def sees(self, line: Line) -> bool:
        return super().sees(line) and line.primary

    def see(self, event: Event, expected: Expected | None) -> None:
        got = event.args.get("rows")
        if not isinstance(got, list):
            return
        if event.hook in self.whole:
            self.is_whole(event.seq, "the next batch")
            self.rows, self.place = got, 0
            return
        self.exercised = True
        for row in got:
            self.place = 0 if self.again and self.place == len(self.rows) else self.place
            due = f"row {self.rows[self.place]}" if self.place < len(self.rows) else "no row"
            if f"row {row}" != due:
                self.fail(event.seq, f"row {row} comes where {due} is due", due, shown(event))
                return
            self.place += 1

    def is_whole(self, seq: int | None, then: str) -> None:
        """Whether the rows have come to an end, before what comes then."""
        if 0 < self.place < len(self.rows):
            row = self.rows[self.place]
            self.fail(seq, f"row {row} is in no part", f"a part with row {row}", then)

    def finish(self, whole: bool) -> None:
        self.is_whole(None, "the end of the trace")


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


class Waits(AtHooks):
    """No process begins one of `hooks` in a call of the trainer before process 0 has come to the end of `first`."""

    of_all = True

    def __init__(self, first: str, hooks: list[str]) -> None:
        super().__init__([first, *hooks, *FUNCTIONS], "BE")
        self.first, self.needed = first, frozenset({first})
        self.calls: Counter[int] = Counter()  # of the trainer, by each process
        self.ready = 0  # the last of them that process 0 has prepared

    def see(self, event: Event, expected: Expected | None) -> None:
        if event.receiver == "trainer":
            self.calls[event.rank] += event.ph == "B"
        elif event.hook == self.first:
            self.ready = self.calls[0] if (event.rank, event.ph) == (0, "E") else self.ready
        elif event.ph == "B":
            self.exercised = True
            if self.ready < self.calls[event.rank]:
                self.fail(event.seq, f"process {event.rank} does not wait for {self.first}", f"{self.first} at its end",
                          shown(event))
