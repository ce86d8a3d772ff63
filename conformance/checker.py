"""Trace and clauses to verdicts: one pass, memory that does not grow with the trace.

Each event is handed to the checks that ask for it, with the one that it corresponds to (alignment.py). Neither torch
nor any trainer is imported here.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from math import inf
from pathlib import Path

from .alignment import Alignment
from .checks import Check, Failure, Line, build, shown
from .clauses import Clause
from .features import applies, features
from .hooks import CALLS
from .optimizers import OVERRIDES
from .scenario import Scenario, ScenarioError, scenario_of
from .scenario_keys import NEEDS
from .scenario_values import each_of
from .spec.contracts import CONTRACTS, DOCUMENTATION, expected
from .spec.state import Expected
from .trace import Event, Header, TraceError, TraceReader, open_trace
from .verdicts import Status, Verdict

__all__ = ["UNDECLARED", "judge", "judge_file", "unsupported"]

LINES = 4096  # that are remembered, from one trace to the next: a trace may name any number of hooks
CONTEXT, DEEPEST = 4, 20  # events around a failure, and how far they are indented
# What every adapter records, without saying so.
UNDECLARED = frozenset(CALLS)

# What a trainer can lack: what scenarios need, or use, and arguments that it would have nothing to say in.
LACKING = (*NEEDS, "closures", "sanity-check", "on_tpu", "using_native_amp", "using_lbfgs")


def judge_file(path: Path, clauses: Mapping[str, Clause], contract: str = DOCUMENTATION) -> list[Verdict]:
    """The verdicts on a trace file. Raises TraceError if it is no trace, or none of a scenario."""
    with open_trace(path) as reader:
        return judge(reader, clauses, contract)


def judge(reader: TraceReader, clauses: Mapping[str, Clause], contract: str = DOCUMENTATION) -> list[Verdict]:
    """One verdict per clause, in the registry's order, each as that contract of CONTRACTS has it. Excluded clauses get
    none, and all of a scenario that the contract leaves open are not applicable."""
    try:
        scenario = scenario_of(reader.header.scenario)
    except ScenarioError as error:
        raise TraceError(reader.path, 1, f"the header's scenario: {error}") from None
    declared = frozenset(reader.header.declares["hooks"])
    effects = frozenset(reader.header.declares["effects"])
    known = features(scenario)
    if left_open := CONTRACTS[contract].leaves_open(scenario):
        reason = f"{contract} leaves open {left_open}"
        judged = [clause.id for clause in clauses.values() if not clause.excluded]
        deque(reader, maxlen=0)  # a malformed line is an error all the same
        return [Verdict(scenario.name, clause, Status.NOT_APPLICABLE, reason) for clause in judged]
    lacks = frozenset(reader.header.declares.get("lacks", ()))
    try:
        each_of("declares.lacks", lacks, LACKING)
    except ScenarioError as error:
        raise TraceError(reader.path, 1, f"the header's {error}") from None
    cannot = unsupported(scenario, reader.header)
    audience = _audience(tuple(clauses.values()))

    verdicts: dict[str, Verdict] = {}
    checks: dict[str, Check] = {}
    for clause in clauses.values():
        if clause.excluded:
            continue
        if not applies(clause.check, known):
            verdicts[clause.id] = Verdict(scenario.name, clause.id, Status.NOT_APPLICABLE)
            continue
        told = lacks & {*clause.check.get("given", ()), clause.check.get("field")}
        missing = ", ".join([*cannot, *sorted(told)])
        lacking = missing or _lacking(clause, audience.checks[clause.id], declared, effects)
        if lacking:
            verdicts[clause.id] = Verdict(
                scenario.name, clause.id, Status.UNSUPPORTED, f"the trainer has no {lacking}"
            )
        else:
            checks[clause.id] = build(clause.check)

    ranks = []
    for rank in range(scenario.recorded):
        of_rank = {clause: _of_rank(rank, check, clauses[clause]) for clause, check in checks.items()}
        oracle = expected(scenario, rank, contract, declared | UNDECLARED, "closures" not in lacks)
        ranks.append(_Lockstep(scenario, rank, oracle, of_rank, audience))
    for event in reader:
        if event.rank >= len(ranks):
            raise TraceError(reader.path, event.seq + 2, f"rank {event.rank}: the scenario has {len(ranks)} processes")
        ranks[event.rank].feed(event)
    for lockstep in ranks:
        lockstep.alignment.hear_out()
    for lockstep in ranks:
        lockstep.finish()
    footer = reader.footer
    outside = footer.error if footer.outcome == "raised" and not any(lockstep.has_raised for lockstep in ranks) else ""
    ended_early = outside or _ended_early(ranks)
    for clause_id in checks:
        verdict = _verdict(scenario.name, clause_id, ranks)
        if ended_early and verdict.status is Status.FAIL and verdict.seq is None:
            reason = f"not reached: the run raised {ended_early}"
            verdict = Verdict(scenario.name, clause_id, Status.NOT_APPLICABLE, reason)
        verdicts[clause_id] = verdict
    if outside and "run.returns" in clauses:
        reason = f"the run raised, in no call of the user's: {outside}"
        verdicts["run.returns"] = Verdict(scenario.name, "run.returns", Status.FAIL, reason)
    return [verdicts[clause.id] for clause in clauses.values() if clause.id in verdicts]


def unsupported(scenario: Scenario, header: Header) -> list[str]:
    """What a scenario needs and the trainer of a trace does not have."""
    declared = frozenset(header.declares["hooks"])
    cannot = sorted({*scenario.needs, *_used(scenario)} & set(header.declares.get("lacks", ())))
    hooks = {event.hook for event in scenario.when} | {OVERRIDES[name] for name in scenario.model.overrides}
    return cannot + sorted(hooks - declared - UNDECLARED)  # nothing can happen there


def _used(scenario: Scenario) -> Iterator[str]:
    """What it uses without saying that it needs it."""
    model = scenario.model
    if model.optimizer == "lbfgs" or model.closure or any(event.do == "skip-closure" for event in scenario.when):
        yield "closures"
    if scenario.trainer.get("num_sanity_val_steps"):
        yield "sanity-check"


def _lacking(clause: Clause, check: Check, declared: frozenset[str], effects: frozenset[str]) -> str:
    """What the clause needs and the trainer's adapter does not declare; empty if nothing."""
    given = (word.partition("defines:") for word in clause.check.get("given", ()))
    defined = {hook for negated, is_one, hook in given if is_one and not negated}
    if defined - declared:
        return ", ".join(sorted(defined - declared))
    hooks = check.hooks or frozenset()
    absent, others = hooks - declared - UNDECLARED, hooks - check.needed
    if absent & check.needed or (others and others <= absent):
        return ", ".join(sorted(absent))
    fields = {"changes": "params", "updates": "params", "logged": "values"}
    field = fields.get(clause.kind, clause.check.get("field"))
    if clause.kind == "state" and clause.check.get("of", "fx") == "fx":
        (field,) = clause.check["fields"]
    needs_effect = clause.kind in ("effect", "state", *fields) and field is not None
    return f"effect {field}" if needs_effect and field not in effects else ""


def _ended_early(ranks: Sequence[_Lockstep]) -> str:
    """What a user's call raised that the contract has return: then what never came was not reached."""
    return next((lockstep.raised for lockstep in ranks if lockstep.raised and not lockstep.is_to_raise), "")


def _of_rank(rank: int, check: Check, clause: Clause) -> Check:
    """A check for one of the processes, unless it is of all of them together."""
    return check if rank == 0 or check.of_all else build(clause.check)


def _verdict(scenario: str, clause: str, ranks: Sequence[_Lockstep]) -> Verdict:
    """One for all processes: each has to keep the clause, and the first that does not is named."""
    failed = [(lockstep, lockstep.of_clause[clause].failure) for lockstep in ranks]
    failures = [(lockstep, failure) for lockstep, failure in failed if failure is not None]
    if not failures:
        exercised = any(lockstep.of_clause[clause].exercised for lockstep in ranks)
        return Verdict(scenario, clause, Status.PASS if exercised else Status.NOT_APPLICABLE)
    lockstep, failure = min(failures, key=lambda pair: inf if pair[1].seq is None else pair[1].seq)
    of_one = len(ranks) > 1 and not lockstep.of_clause[clause].of_all
    return Verdict(
        scenario, clause, Status.FAIL, f"rank {lockstep.rank}: " * of_one + failure.reason, failure.seq,
        failure.expected, failure.seen, lockstep.context.get(failure.seq, ()),
    )


class _Audience:
    """Which clauses' checks are told of which events: each is asked once of a line, whatever the scenario."""

    def __init__(self, clauses: Sequence[Clause]) -> None:
        self.checks = {clause.id: build(clause.check) for clause in clauses if not clause.excluded}
        self.of_hook = lru_cache(LINES)(self._of_hook)
        self.seeing, self.expecting = lru_cache(LINES)(self._seeing), lru_cache(LINES)(self._expecting)

    def _of_hook(self, hook: str) -> list[tuple[str, Check]]:
        return [(clause, check) for clause, check in self.checks.items() if check.hooks is None or hook in check.hooks]

    def _seeing(self, line: Line) -> list[str]:
        return [clause for clause, check in self.of_hook(line.hook) if check.sees(line)]

    def _expecting(self, line: Line) -> list[str]:
        return [clause for clause, check in self.of_hook(line.hook) if check.expects(line)]


_audience = lru_cache(4)(_Audience)


class _Lockstep:
    """The trace and the oracle of one process side by side, each event handed to the checks that ask for it."""

    def __init__(
        self, scenario: Scenario, rank: int, oracle: Iterator[Expected], of_clause: Mapping[str, Check],
        audience: _Audience,
    ) -> None:  # fmt: skip
        self.rank, self.of_clause, self.audience = rank, of_clause, audience
        self.context: dict[int | None, tuple[str, ...]] = {}  # of each failure's place in the trace, the lines around
        self.suspected: dict[Check, tuple[str, ...]] = {}  # the lines around what may prove to be a failure
        self.recent: deque[tuple[Event, Expected | None]] = deque(maxlen=CONTEXT)
        self.alignment = Alignment(oracle, self.expect, scenario.shuffles or scenario.processes > 1)
        self.raised, self.is_to_raise = "", False  # by the user's call
        self.has_raised = False  # any of them, a checkpoint's included
        self.expecting: dict[Line, list[Check]] = {}
        self.seeing: dict[Line, list[Check]] = {}

    def feed(self, event: Event) -> None:
        """The next event of this process."""
        counterpart = self.alignment.counterpart(event)
        if event.receiver == "trainer":
            self.has_raised = self.has_raised or "raised" in event.args
        if event.receiver == "trainer" and event.hook != "save_checkpoint":
            self.raised = self.raised or str(event.args.get("raised", ""))
        self.recent.append((event, counterpart))
        failed, in_place = None, self.alignment.in_place
        for check in self.told_of(event, counterpart):
            before = check.failure
            if in_place or not check.in_place:
                check.see(event, counterpart)
            if check.suspect == event.seq:
                self.suspected[check] = self.lines(None)
            failure = check.failure
            if failure is None or failure is before:
                continue
            if failure.seq == event.seq:
                failed = failed or failure
            else:
                self.context[failure.seq] = self.suspected.get(check, ())
        if failed is not None:
            self.drop_failed()
            self.context[event.seq] = self.lines(failed)

    def finish(self) -> None:
        """Nothing more is to come, nor due."""
        for check in self.checks_of(list(self.of_clause)):
            check.finish(self.alignment.is_whole)
        self.context[None] = self.lines(None)

    def told_of(self, event: Event, counterpart: Expected | None) -> list[Check]:
        """The checks that are told of this event."""
        line = Line(event.ph, event.receiver, event.hook, counterpart.scope if counterpart else None)
        found = self.seeing.get(line)
        if found is None:
            found = self.seeing[line] = self.checks_of(self.audience.seeing(line))
        return found

    def checks_of(self, clauses: Sequence[str]) -> list[Check]:
        """Those of the clauses' checks that are judged here, and are to be told more."""
        checks = [self.of_clause[clause] for clause in clauses if clause in self.of_clause]
        return [check for check in checks if check.failure is None or check.goes_on]

    def drop_failed(self) -> None:
        """A check that has failed is told of nothing more, unless it goes on."""
        for told in (*self.seeing.values(), *self.expecting.values()):
            told[:] = [check for check in told if check.failure is None or check.goes_on]

    def expect(self, event: Expected) -> None:
        """The oracle says that this event is to come."""
        if event.receiver == "trainer" and event.hook != "save_checkpoint":
            self.is_to_raise = self.is_to_raise or "raised" in event.args
        line = Line(event.ph, event.receiver, event.hook, event.scope)
        told = self.expecting.get(line)
        if told is None:
            told = self.expecting[line] = self.checks_of(self.audience.expecting(line))
        for check in told:
            check.expect(event)

    def lines(self, failure: Failure | None) -> tuple[str, ...]:
        """The last events, each beside the line of the pseudocode it belongs to."""
        rows = []
        for event, counterpart in self.recent:
            line = f"{counterpart.scope}: {event.hook}()" if counterpart else "(no line)"
            indent = "  " * min(event.depth, DEEPEST)
            rows.append(f"{event.seq:>6}  {indent}{shown(event):<60}  {line}")
        if failure is not None and failure.expected:
            rows.append(f"   due  {failure.expected}")
        return tuple(rows)
