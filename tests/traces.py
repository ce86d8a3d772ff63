"""Traces without a trainer: what the oracle says of a scenario, changed as a test needs it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any, NamedTuple

from conformance.checker import judge_file
from conformance.clauses import Clause
from conformance.hooks import HOOKS
from conformance.scenario import Scenario
from conformance.spec.contracts import DOCUMENTATION, expected
from conformance.spec.state import Expected
from conformance.trace import Header, TraceWriter
from conformance.verdicts import Status, Verdict

__all__ = ["EFFECTS", "Row", "conforming", "drop", "judge_rows", "spans", "write"]

EFFECTS = (
    *("training", "grad_enabled", "global_step", "current_epoch", "grads", "params", "lr", "stage", "submodules"),
    *("trainable", "gradients", "device", "metrics", "values", "autocast"),
)


class Row(NamedTuple):
    """An event before it is written: numbers and depths are given by the writer."""

    ph: str
    receiver: str
    hook: str
    args: dict[str, Any]
    fx: dict[str, Any]
    depth: int | None = None
    rank: int = 0


def _waiting(scenario: Scenario, rank: int, contract: str) -> Iterator[Expected | None]:
    """What one process does, with a pause while process 0 prepares data in a call of the trainer."""
    for event in expected(scenario, rank, contract):
        yield event
        if rank and (event.ph, event.receiver) == ("B", "trainer"):
            yield from (None,) * 4


def conforming(scenario: Scenario, contract: str = DOCUMENTATION) -> list[Row]:
    """The events of a trainer that keeps the contract, its processes in step; cleared gradients are zero in it."""
    return [
        Row(e.ph, e.receiver, e.hook, e.args, {k: "zero" if v == "clear" else v for k, v in e.fx.items()}, rank=rank)
        for events in zip_longest(*(_waiting(scenario, rank, contract) for rank in range(scenario.recorded)))
        for rank, e in enumerate(events)
        if e is not None
    ]


def spans(rows: Sequence[Row], receiver_and_hook: str) -> list[tuple[int, int]]:
    """Where each call of "module.backward" begins and ends."""
    receiver, _, hook = receiver_and_hook.rpartition(".")
    places = [i for i, row in enumerate(rows) if (row.receiver, row.hook) == (receiver, hook)]
    return list(zip(places[::2], places[1::2]))


def drop(rows: Sequence[Row], receiver_and_hook: str, nth: int | None = None) -> list[Row]:
    """Without the begins and ends of all its calls, or of the nth."""
    calls = spans(rows, receiver_and_hook)
    gone = {place for call in (calls if nth is None else calls[nth : nth + 1]) for place in call}
    assert gone, receiver_and_hook
    return [row for index, row in enumerate(rows) if index not in gone]


def write(
    path: Path,
    scenario: Scenario | Mapping[str, Any],
    rows: Iterable[Row],
    hooks: Sequence[str] = HOOKS,
    effects: Sequence[str] = EFFECTS,
    lacks: Sequence[str] = (),
) -> Path:
    """Write the rows as a trace of a run that returned, with the depths that follow from them."""
    plain = scenario.to_dict() if isinstance(scenario, Scenario) else dict(scenario)
    declares = {"hooks": list(hooks), "effects": list(effects), "lacks": list(lacks)}
    header = Header("0", plain, {"name": "hand", "version": "1"}, declares, {})
    depths: Counter[int] = Counter()  # of each process
    with TraceWriter(path, header) as writer:
        for row in rows:
            depths[row.rank] -= row.ph == "E"
            at = max(depths[row.rank], 0) if row.depth is None else row.depth
            writer.event(row.ph, row.receiver, row.hook, at, row.args, row.fx, row.rank)
            depths[row.rank] += row.ph == "B"
    return path


def judge_rows(
    path: Path, scenario: Scenario, rows: Iterable[Row], check: Mapping[str, Any], **declares: Sequence[str]
) -> Verdict:
    """The verdict of one check, whatever the scenario does."""
    clause = Clause("a.clause", "MUST", "A sentence.", "a source", {"given": [], **check})
    [verdict] = judge_file(write(path, scenario, rows, **declares), {clause.id: clause})
    assert verdict.status is not Status.FAIL or verdict.reason
    return verdict
