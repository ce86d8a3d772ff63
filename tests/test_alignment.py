"""Which event of the contract corresponds to which of a trace: whatever is missing, doubled or moved, the others do."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import pytest

from conformance.alignment import Alignment
from conformance.scenario import load_scenarios
from conformance.spec.contracts import expected
from conformance.spec.state import Expected

SCENARIOS = {scenario.name: scenario for scenario in load_scenarios()}
NAMES = ("fit-val", "fit-val-interval", "fit-accumulate", "fit-optimizers", "fit-frequencies", "fit-tbptt", "test")


def run_of(name: str) -> list[Expected]:
    return list(expected(SCENARIOS[name]))


def spans(run: Sequence[Expected]) -> list[tuple[int, int]]:
    """Where each hook's call begins and ends."""
    found, begun = [], []
    for place, event in enumerate(run):
        if event.ph == "B":
            begun.append(place)
        elif event.ph == "E":
            found.append((begun.pop(), place))
    return sorted(span for span in found if run[span[0]].receiver != "trainer")


def counterparts(run: Sequence[Expected], trace: Sequence[Expected]) -> list[Expected | None]:
    alignment = Alignment(iter(run), lambda event: None, is_shuffled=False)
    return [alignment.counterpart(event) for event in trace]  # type: ignore[arg-type]


def misplaced(run: Sequence[Expected], trace: Sequence[Expected], due: Sequence[Expected | None]) -> int:
    return sum(one is not other for one, other in zip(counterparts(run, trace), due, strict=True))


def assert_few(off: Sequence[str], run: Sequence[Expected]) -> None:
    """Of several calls in a batch that nothing tells apart, as of two pieces, which is which may be mistaken."""
    assert {*off} <= {"optimizer_step", "step"} and len(off) < 0.07 * len(spans(run)), off


@pytest.mark.parametrize("name", NAMES)
def test_in_a_run_that_is_the_contracts_each_event_corresponds_to_itself(name: str) -> None:
    run = run_of(name)
    assert misplaced(run, run, run) == 0


@pytest.mark.parametrize("name", NAMES)
def test_where_a_call_is_missing_with_all_that_it_makes_the_others_correspond(name: str) -> None:
    run, off = run_of(name), []
    for begin, end in spans(run):
        trace = run[:begin] + run[end + 1 :]
        if misplaced(run, trace, trace):
            off.append(run[begin].hook)
    assert_few(off, run)


@pytest.mark.parametrize("name", NAMES)
def test_where_a_call_is_doubled_what_it_makes_is_doubled_with_it_and_the_others_correspond(name: str) -> None:
    run, off = run_of(name), []
    for begin, end in spans(run):
        again = [event._replace() for event in run[begin : end + 1]]
        due = [*run[: end + 1], *[None] * len(again), *run[end + 1 :]]
        if misplaced(run, run[: end + 1] + again + run[end + 1 :], due):
            off.append(run[begin].hook)
    assert_few(off, run)


@pytest.mark.parametrize("name", NAMES)
def test_where_two_calls_have_changed_places_each_corresponds_to_itself(name: str) -> None:
    run, off = run_of(name), []
    calls = spans(run)
    for (begin, end), (then, over) in pairwise(calls):
        if then != end + 1 or run[begin][1:4] == run[then][1:4]:
            continue
        trace = [*run[:begin], *run[then : over + 1], *run[begin : end + 1], *run[over + 1 :]]
        if misplaced(run, trace, trace):
            off.append(run[begin].hook)
    assert_few(off, run)


@pytest.mark.parametrize("name", ["fit-val", "fit-accumulate", "fit-callbacks", "fit-optimizers", "fit-tbptt-even"])
def test_where_a_hook_has_moved_on_all_its_receivers_in_every_batch_each_event_corresponds_to_itself(name: str) -> None:
    """As on_before_optimizer_step has in a release: from the end of the closure to before it."""
    run, trace, at = run_of(name), [], 0
    for event in run:
        if event.hook == "on_before_optimizer_step":
            trace.insert(at, event)
            at += 1
            continue
        trace.append(event)
        if (event.ph, event.hook) == ("B", "optimizer_step"):
            at = len(trace)
    assert misplaced(run, trace, trace) == 0


def test_an_end_belongs_to_its_begin_and_without_one_to_nothing() -> None:
    run = run_of("fit-val")
    place = next(place for place, event in enumerate(run) if (event.ph, event.hook) == ("E", "on_fit_start"))
    trace = [*run[: place + 1], run[place], *run[place + 1 :]]
    assert misplaced(run, trace, [*run[: place + 1], None, *run[place + 1 :]]) == 0
