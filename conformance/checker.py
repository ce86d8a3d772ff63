"""Trace and clauses to verdicts: one pass, memory that does not grow with the trace.

Beside the trace runs the oracle of its scenario, only as far ahead as needed to find each event's
counterpart: the nth begin (or end) of a hook on a receiver corresponds to the oracle's nth. So a
verdict about one hook stays meaningful when a trainer calls others elsewhere. Neither torch nor any
trainer is imported here.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from .checks import Check, Failure, build, shown
from .clauses import Clause
from .features import applies, features
from .scenario import Scenario, ScenarioError
from .spec.oracle import Expected
from .spec.pseudocode import expected
from .trace import Event, TraceError, TraceReader, open_trace
from .verdicts import Status, Verdict

__all__ = ["judge", "judge_file"]

# How many expected events may wait for their counterparts. A trainer that reorders, reorders within a
# batch or an epoch's edge; what is further away counts as missing.
LOOKAHEAD = 20_000
CONTEXT = 4

# Phase, receiver, hook, and the stage of the batch where there is one: the transfer hooks are the same
# in training and validation, and a trainer that skips one must not shift the other's counterparts.
Key = tuple[str, str, str, str]


def _key(event: Event | Expected) -> Key:
    batch = event.args.get("batch")
    return event.ph, event.receiver, event.hook, batch.partition("/")[0] if isinstance(batch, str) else ""



def judge_file(path: Path, clauses: Mapping[str, Clause]) -> list[Verdict]:
    """The verdicts on a trace file. Raises TraceError if it is no trace, or none of a scenario."""
    with open_trace(path) as reader:
        return judge(reader, clauses)


def judge(reader: TraceReader, clauses: Mapping[str, Clause]) -> list[Verdict]:
    """One verdict per clause, in the registry's order. Excluded clauses get none."""
    try:
        scenario = Scenario.from_dict(reader.header.scenario)
    except ScenarioError as error:
        raise TraceError(reader.path, 1, f"the header's scenario: {error}") from None
    declared = frozenset(reader.header.declares["hooks"])
    effects = frozenset(reader.header.declares["effects"])
    known = features(scenario)

    verdicts: dict[str, Verdict] = {}
    checks: dict[str, Check] = {}
    for clause in clauses.values():
        if clause.excluded:
            continue
        check = build(clause.check)
        lacking = _lacking(clause, check, declared, effects)
        if not applies(clause.check, known):
            verdicts[clause.id] = Verdict(scenario.name, clause.id, Status.NOT_APPLICABLE)
        elif lacking:
            verdicts[clause.id] = Verdict(
                scenario.name, clause.id, Status.UNSUPPORTED, f"the trainer has no {lacking}"
            )
        else:
            checks[clause.id] = check

    context = _Lockstep(scenario, declared, checks.values()).run(reader)
    for clause_id, check in checks.items():
        verdicts[clause_id] = _verdict(scenario.name, clause_id, check, context)
    return [verdicts[clause.id] for clause in clauses.values() if clause.id in verdicts]


def _lacking(clause: Clause, check: Check, declared: frozenset[str], effects: frozenset[str]) -> str:
    """What the clause needs and the trainer's adapter does not declare; empty if nothing."""
    own = {"fit", "validate", "test", "predict", "step"}
    hooks = sorted((check.hooks or frozenset()) - declared - own)
    if hooks and clause.kind in ("order", "encloses"):
        return ", ".join(hooks)
    if hooks and len(hooks) == len((check.hooks or frozenset()) - own):
        return ", ".join(hooks)
    field = {"changes": "params", "updates": "params"}.get(clause.kind, clause.check.get("field"))
    needs_effect = clause.kind in ("effect", "changes", "updates")
    return f"effect {field}" if needs_effect and field not in effects else ""


def _verdict(scenario: str, clause: str, check: Check, context: Mapping[int | None, tuple[str, ...]]) -> Verdict:
    failure = check.failure
    if failure is None:
        return Verdict(scenario, clause, Status.PASS if check.exercised else Status.NOT_APPLICABLE)
    return Verdict(
        scenario, clause, Status.FAIL, failure.reason, failure.seq, failure.expected, failure.seen,
        context.get(failure.seq, ()),
    )


class _Lockstep:
    """The trace and the oracle side by side, each event handed to the checks that ask for it."""

    def __init__(self, scenario: Scenario, declared: frozenset[str], checks: Iterable[Check]) -> None:
        self.checks = list(checks)
        own = {"fit", "validate", "test", "predict", "step"}
        self.oracle: Iterator[Expected] = (
            event for event in expected(scenario) if event.hook in declared or event.hook in own
        )
        self.exhausted = False
        self.waiting: dict[Key, deque[Expected]] = {}
        self.lost: set[Key] = set()
        self.count = 0
        self._of: dict[str, list[Check]] = {}

    def run(self, reader: TraceReader) -> dict[int | None, tuple[str, ...]]:
        """Feed everything; returns, for each failure's place in the trace, the lines around it."""
        context: dict[int | None, tuple[str, ...]] = {}
        recent: deque[str] = deque(maxlen=CONTEXT)
        failed: set[int] = set()
        for event in reader:
            counterpart = self.counterpart(event)
            interested = self.interested(event.hook)
            for check in interested:
                if check.failure is None:
                    check.see(event, counterpart)
            recent.append((event, counterpart))  # type: ignore[arg-type]
            for index, check in enumerate(interested):
                if check.failure is not None and id(check) not in failed:
                    failed.add(id(check))
                    context.setdefault(event.seq, self.lines(recent, check.failure))
        while self.advance():
            pass
        for check in self.checks:
            check.finish()
        context[None] = self.lines(recent, None)
        return context

    def interested(self, hook: str) -> list[Check]:
        """The checks that are told of this hook."""
        found = self._of.get(hook)
        if found is None:
            found = [check for check in self.checks if check.hooks is None or hook in check.hooks]
            self._of[hook] = found
        return found

    def counterpart(self, event: Event) -> Expected | None:
        """The expected event that corresponds to this one; None if none is due soon."""
        key = _key(event)
        queue = self.waiting.get(key)
        while not queue and self.count < LOOKAHEAD and self.advance():
            queue = self.waiting.get(key)
        if not queue:
            return None
        self.count -= 1
        return queue.popleft()

    def advance(self) -> bool:
        """Produce one more expected event; False at the oracle's end."""
        event = next(self.oracle, None)
        if event is None:
            self.exhausted = True
            return False
        for check in self.interested(event.hook):
            check.expect(event)
        key = _key(event)
        queue = self.waiting.setdefault(key, deque())
        queue.append(event)
        self.count += 1
        if len(queue) > 1000:  # a hook that does not come: forget the oldest, the counts have it
            queue.popleft()
            self.count -= 1
        return True

    def lines(self, recent: Iterable[tuple[Event, Expected | None]], failure: Failure | None) -> tuple[str, ...]:
        """The last events, each beside the line of the pseudocode it belongs to."""
        rows = []
        for event, counterpart in recent:
            line = f"{counterpart.scope}: {event.hook}()" if counterpart else "(no line)"
            rows.append(f"{event.seq:>6}  {'  ' * event.depth}{shown(event):<60}  {line}")
        if failure is not None and failure.expected:
            rows.append(f"   due  {failure.expected}")
        return tuple(rows)
