"""What the calls of a pass over batches have to do with each other, or with those of the pass before it in the trace:
whatever the numbers are."""

from __future__ import annotations

from collections import Counter
from typing import Any

from ..edits import FUNCTIONS
from ..numerics import agrees
from ..spec.state import Expected
from ..trace import Event
from .base import MOST_PENDING, Check, Line, shown

__all__ = ["Again", "Anew", "Outputs", "Shares", "Still"]

ENOUGH = 8  # samples that come in the same order once more in one of 40,000 cases


class Shares(Check):
    """Over one pass of all processes, from one `start` to the next, the `samples` that the calls of `hooks` get are
    those of the data, in whatever order and whoever has which: none is missing, and as many come twice as have to."""

    of_all = True

    def __init__(self, hooks: list[str], start: str) -> None:
        super().__init__()
        self.start, self.needed, self.hooks = start, frozenset(hooks), frozenset({*hooks, start})
        self.begun: Counter[int] = Counter()  # passes of each process, and of each oracle
        self.foretold: Counter[int] = Counter()
        self.came: dict[int, Counter[str]] = {}  # samples of each pass that is not judged yet
        self.due: dict[int, Counter[str]] = {}

    def sees(self, line: Line) -> bool:
        return line.ph == "B" and line.primary and line.hook in (self.hooks or ())

    expects = sees

    def expect(self, expected: Expected) -> None:
        self.take(expected, expected.rank, self.foretold, self.due)

    def see(self, event: Event, expected: Expected | None) -> None:
        self.take(event, event.rank, self.begun, self.came)
        if event.hook == self.start:
            self.judge(event.seq, self.begun[event.rank] - 2)  # no process is two passes behind another
        self.exercised = self.exercised or event.hook in self.needed

    def take(self, call: Event | Expected, rank: int, begun: Counter[int], samples: dict[int, Counter[str]]) -> None:
        """A process's next pass, or what a step of the one that runs gets."""
        if call.hook == self.start:
            begun[rank] += 1
        else:
            loader = str(call.args.get("batch")).rpartition("/")[0]
            found = [f"{loader}/{sample}" for sample in call.args.get("samples", ())]
            samples.setdefault(begun[rank], Counter()).update(call.args.get("shuffled", found))

    def judge(self, seq: int | None, number: int) -> None:
        """What came in the pass of that number is what was due."""
        came, due = self.came.pop(number, Counter[str]()), self.due.pop(number, Counter[str]())
        for sample in sorted(due.keys() - came.keys()):
            self.fail(seq, f"no process has sample {sample}", f"sample {sample} in one of them")
        if came.total() - len(came) > due.total() - len(due):
            sample = next(sample for sample, times in came.items() if times > max(due[sample], 1))
            self.fail(seq, f"sample {sample} comes {came[sample]} times", f"sample {sample} in one process")

    def finish(self, whole: bool) -> None:
        for number in sorted({*self.came, *self.due}):
            self.judge(None, number)


class Anew(Check):
    """In each pass of a process, from one `start` to the next, the calls of `hooks` get their `samples` in another
    order than in the pass before. With `within` it is one of several loaders that passes anew: those of its samples
    come in another order that come a second time between two starts, if they are enough for that to be no chance."""

    def __init__(self, hooks: list[str], start: str, within: bool = False) -> None:
        super().__init__()
        self.within = within
        self.passes: dict[str, tuple[list[str], dict[str, None]]] = {}  # of each loader, the one before and this
        self.start, self.needed, self.hooks = start, frozenset(hooks), frozenset({*hooks, start})
        self.before: list[Any] = []
        self.now: list[Any] = []

    def sees(self, line: Line) -> bool:
        return line.ph == "B" and line.primary and line.hook in (self.hooks or ())

    def see(self, event: Event, expected: Expected | None) -> None:
        if self.within:
            self.pass_within(event)
        elif event.hook == self.start:
            self.judge(event.seq)
            self.before, self.now = self.now, []
        else:
            self.now += event.args.get("samples", ())

    def pass_within(self, event: Event) -> None:
        """A sample that has come already begins another pass of its loader."""
        if event.hook == self.start:
            self.passes = {}
        for sample in event.args.get("samples", ()):
            loader = sample.partition("/")[0]
            before, now = self.passes.setdefault(loader, ([], {}))
            if sample in now:
                self.before, self.now = before, list(now) if len(now) >= ENOUGH else []
                self.judge(event.seq)
                before, now = list(now), {}
                self.passes[loader] = before, now
            now[sample] = None

    def judge(self, seq: int | None) -> None:
        """The pass that is over is another than that before."""
        if self.before and self.now:
            self.exercised = True
            if self.now == self.before:
                of = "pass" if self.within else "epoch"
                self.fail(seq, f"{min(self.needed)} gets its samples in the order of the {of} before", "another order")

    def finish(self, whole: bool) -> None:
        self.judge(None)


class Again(Check):
    """What the first call of a `hook` for a batch of an epoch gets as `field`, or sees, it got there in the call of fit
    before, if there was one: of the first 1,000 batches. With a `start` in the pass before, which begins with that, of
    the same call of the trainer."""

    def __init__(self, hook: str, field: str, start: str = "fit") -> None:
        super().__init__()
        self.field, self.start = field, start
        self.needed, self.hooks = frozenset({hook}), frozenset({hook, start})
        if start != "fit":
            self.hooks |= {*FUNCTIONS}
        self.before: dict[tuple[int, int, int], Any] = {}
        self.now: dict[tuple[int, int, int], Any] = {}

    def sees(self, line: Line) -> bool:
        return line.ph == "B" and line.primary and line.hook in (self.hooks or ())

    def see(self, event: Event, expected: Expected | None) -> None:
        if event.hook not in self.needed:
            self.before, self.now = self.now if event.hook == self.start else {}, {}
            return
        place = event.fx.get("current_epoch", 0), event.args.get("batch_idx", 0), event.args.get("dataloader_idx", 0)
        got = event.args.get(self.field, event.fx.get(self.field))
        if got is None or place in self.now or len(self.now) == 1000:
            return
        self.now[place] = got
        if place in self.before:
            self.exercised = True
            if got != self.before[place]:
                self.fail(event.seq, f"batch {place[1]} of epoch {place[0]} has {self.field}={got}, where it had "
                          f"{self.before[place]} before", f"{self.field}={self.before[place]}", shown(event))


class Still(Check):
    """The effect `field` is, when the next of `hooks` begins, what it was at the begin of `first`."""

    def __init__(self, first: str, hooks: list[str], field: str) -> None:
        super().__init__()
        self.first, self.field = first, field
        self.needed, self.hooks = frozenset({first}), frozenset({first, *hooks, "fit"})
        self.was: Any = None

    def sees(self, line: Line) -> bool:
        return line.ph == "B" and line.primary and line.hook in (self.hooks or ())

    def see(self, event: Event, expected: Expected | None) -> None:
        now, was = event.fx.get(self.field), self.was
        self.was = now if event.hook == self.first else None
        if event.hook in ("fit", self.first) or now is None or was is None:
            return
        self.exercised = True
        if now != was:
            self.fail(event.seq, f"{self.field} is {now} at {event.hook}, where it was {was} at {self.first}",
                      f"{self.field}={was}", shown(event))


class Outputs(Check):
    """What `hooks` get, or return, is what the calls of `step` have returned, and after them those of its `*_step_end`:
    at `batch_end` those for the batch, elsewhere those of the pass, from a `start` on, in their order. More may come
    before them, as where an epoch is gone on with; a call that returns None tells nothing."""

    def __init__(self, step: str, hooks: list[str], batch_end: str, start: str) -> None:
        super().__init__()
        self.step, self.step_end, self.batch_end, self.start = step, f"{step}_end", batch_end, start
        self.needed = frozenset({step})
        self.hooks = frozenset({step, self.step_end, batch_end, start, *hooks, *FUNCTIONS})
        self.judged = frozenset(hooks)
        self.batch: dict[tuple[Any, Any], list[Any]] = {}  # of each optimizer and piece, when last evaluated
        self.made: list[Any] = []  # in the pass, at least the last
        self.is_told, self.is_as_foretold = False, True  # what steps have returned

    def sees(self, line: Line) -> bool:
        return line.primary and line.hook in (self.hooks or ())

    def see(self, event: Event, expected: Expected | None) -> None:
        hook, args = event.hook, event.args
        returned = args.get("returned")
        if event.ph == "E" and hook in (self.step, self.step_end) and isinstance(returned, list):
            foretold = returned if expected is None else expected.args.get("returned", returned)
            self.is_told, self.is_as_foretold = True, self.is_as_foretold and agrees(returned, foretold)
            last = next(reversed(self.batch), (None, None))
            key = (args.get("optimizer_idx"), args.get("hiddens")) if hook == self.step else last
            self.batch[key] = returned
        elif event.ph == ("E" if hook in FUNCTIONS else "B") and hook in self.judged:
            self.judge(event, expected)
        elif event.ph == "B" and hook in (self.start, *FUNCTIONS):
            self.batch, self.made = {}, []
        if event.ph == "B" and hook == self.batch_end:
            self.made = [*self.made, *self.of_batch()][-MOST_PENDING:]
            self.batch = {}

    def of_batch(self) -> list[Any]:
        return [value for values in self.batch.values() for value in values]

    def judge(self, event: Event, expected: Expected | None) -> None:
        got = event.args.get("outputs_values", event.args.get("results_values"))
        if not isinstance(got, list) or not self.is_told or "raised" in event.args:
            return
        if event.args.get("results") == "none":
            return
        due = self.of_batch() if event.hook == self.batch_end else self.made
        self.exercised = self.exercised or bool(due)
        seen = got if event.hook == self.batch_end else got[len(got) - min(len(due), len(got)) :]
        told = {} if expected is None else expected.args
        said = told.get("outputs_values", told.get("results_values"))
        departs = self.is_as_foretold and said is not None and agrees(got, said)  # as another contract has it
        if not departs and not agrees(seen, due):
            self.fail(event.seq, f"{event.receiver}.{event.hook} gets {got}, where {due or 'nothing'} was returned",
                      f"outputs_values={due}", shown(event))
