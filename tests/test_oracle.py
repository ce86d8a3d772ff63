"""The engine against the oracle, on drawn scenarios: two readings of one text that must tell the same.

    HYPOTHESIS=explore CONFORMANCE_DRAWS=2000 python -m pytest tests/test_oracle.py

draws anew, and that many. A counterexample is printed as a scenario file that can be recorded.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from itertools import zip_longest
from pathlib import Path

import pytest
from extent import WHOLE
from hypothesis import given, note, settings
from hypothesis.strategies import SearchStrategy
from strategies import distributed_scenarios, scenarios

from conformance.adapters.refimpl import RefimplAdapter
from conformance.checker import judge_file
from conformance.clauses import load_clauses
from conformance.features import features
from conformance.mutants.engine import Healthy
from conformance.numerics import agrees
from conformance.produce import produce
from conformance.scenario import Scenario, load_scenarios, to_toml
from conformance.spec.contracts import expected
from conformance.spec.state import OWN_WORDS, Expected
from conformance.trace import Event, open_trace
from conformance.verdicts import Status

ADAPTER = RefimplAdapter()
DRAWS = int(os.environ.get("CONFORMANCE_DRAWS", "100" if WHOLE else "50"))  # 2,000 before a release


def differs(event: Event | None, due: Expected | None) -> str:
    """How an event departs from what is due; empty if it does not."""
    if event is None or due is None:
        return "one of the two has ended"
    for field in ("ph", "receiver", "hook"):
        if getattr(event, field) != getattr(due, field):
            return field
    for name, wanted in {"raised": None, **due.args}.items():
        if not (event.args.get(name) if wanted == OWN_WORDS else agrees(event.args.get(name), wanted)):
            return f"argument {name}: {event.args.get(name)}, not {wanted}"
    for name, wanted in due.fx.items():
        if name == "values":
            values = dict(zip(event.fx["metrics"], event.fx.get("values", ())))
            for metric, value in zip(due.fx["metrics"], wanted):
                if metric not in values or not agrees(values[metric], value):
                    return f"{metric}: {values.get(metric)}, not {value}"
            continue
        cleared = wanted == "clear" and event.fx.get(name) in ("none", "zero")
        if wanted != OWN_WORDS and not cleared and not agrees(event.fx.get(name), wanted):
            return f"effect {name}: {event.fx.get(name)}, not {wanted}"
    return ""


def compare(scenario: Scenario, path: Path) -> None:
    """Fail where a trace first departs from the oracle in one of its processes, in its outcome too."""
    raised = []
    with open_trace(path) as reader:
        events = list(reader)
        for rank in range(scenario.recorded):
            of_rank = [event for event in events if event.rank == rank]
            for event, due in zip_longest(of_rank, expected(scenario, rank)):
                problem = differs(event, due)
                assert not problem, f"rank {rank}, {problem}:\n  trace:  {event}\n  oracle: {due}"
            assert due is not None
            raised.append(due.args.get("raised", ""))
        raised += [reader.footer.error] * (OWN_WORDS in raised)
        due_outcome = "raised" if any(raised) else "returned"
        assert (reader.footer.outcome, reader.footer.error in raised) == (due_outcome, True), reader.footer.error


@pytest.mark.slow
@pytest.mark.parametrize("drawn, draws", [(scenarios, DRAWS), (distributed_scenarios, DRAWS // 10)])
def test_the_engine_does_what_the_oracle_says(drawn: Callable[[], SearchStrategy[Scenario]], draws: int) -> None:
    @settings(max_examples=draws)
    @given(drawn())
    def agree(scenario: Scenario) -> None:
        note("# save as drawn.toml, then: python -m conformance record refimpl drawn.toml -o t.jsonl")
        note(to_toml(scenario))
        with tempfile.TemporaryDirectory() as scratch:
            path = Path(scratch) / "trace.jsonl"
            error = produce(ADAPTER, scenario, path)
            assert error is None, error
            if "shuffled" not in features(scenario):
                compare(scenario, path)
            judged = judge_file(path, load_clauses())
        bad = [v for v in judged if v.status in (Status.FAIL, Status.ERROR)]
        assert not bad, "\n".join(f"{v.clause}: {v.reason}" for v in bad)

    agree()


def told(due: Expected) -> set[str]:
    """In words, what an event shows that the draws are to come to."""
    words = {due.hook} & {"on_sanity_check_end", "on_test_epoch_end", "on_predict_end", "training_epoch_end"}
    words |= {f"{due.hook} raises"} if due.args.get("raised", "").startswith("Runtime") else set()
    words |= {"interrupt"} if due.args.get("raised", "").startswith("Keyboard") else set()
    words |= {"None"} if due.args.get("outputs") == "none" and due.hook == "on_train_batch_end" else set()
    words |= {"third loader"} if due.args.get("dataloader_idx") == 2 else set()
    words |= {"third epoch"} if due.args.get("epoch") == 2 else set()
    words |= {"scheduler"} if due.receiver == "scheduler" else set()
    words |= {"parts"} if due.hook == "training_step" and due.args.get("rows", [0])[0] else set()
    words |= {"parts, taken together"} if len(due.args.get("parts", ())) > 1 else set()
    return words


WANTED = {
    *("on_sanity_check_end", "on_test_epoch_end", "on_predict_end", "training_epoch_end"),
    *("fit raises", "interrupt", "None", "third loader", "third epoch", "scheduler"),
    *("stop", "return-minus-1", "skip-closure", "three events", "unsized", "fit twice", "bf16"),
    *("parts", "parts, taken together"),
}


@pytest.mark.skipif(not WHOLE, reason="WHOLE=1: of what is drawn, not of what is tested")
def test_the_draws_come_to_what_they_are_for() -> None:
    seen: set[str] = set()

    @settings(max_examples=600)
    @given(scenarios())
    def look(scenario: Scenario) -> None:
        if seen >= WANTED:
            return
        for due in expected(scenario):
            seen.update(told(due))
        seen.update(event.do for event in scenario.when)
        seen.update({"three events"} if len(scenario.when) == 3 else ())
        seen.update({"unsized"} if not scenario.data.sized else ())
        seen.update({"fit twice"} if scenario.calls == ("fit", "fit") else ())
        seen.add(str(scenario.option("precision")))

    look()
    assert sorted(WANTED - seen) == []


# Of a shuffled one nobody can tell what is in a batch; the judge knows what can be told.
EXACT = [scenario for scenario in load_scenarios() if "shuffled" not in features(scenario)]


@pytest.mark.parametrize("scenario", EXACT, ids=lambda scenario: scenario.name)
def test_the_built_in_scenarios_too(scenario: Scenario, healthy: Healthy) -> None:
    compare(scenario, healthy(scenario))


def test_a_departure_of_the_trace_is_seen(tmp_path: Path) -> None:
    scenario = Scenario("plain", callbacks=0)
    path = tmp_path / "trace.jsonl"
    produce(ADAPTER, scenario, path)
    text = path.read_text()
    for good, bad, problem in [
        ('"batch":"train/0/1"', '"batch":"train/0/0"', "argument batch: train/0/0, not train/0/1"),
        ('"params":2', '"params":1', "effect params: 1, not 2"),
        ('"outcome":"returned","error":""', '"outcome":"raised","error":"boom"', "boom"),
        ('"hook":"on_train_end"', '"hook":"on_fit_end"', "hook"),
        ('"hook":"backward","depth":3,"args":{', '"hook":"backward","depth":3,"args":{"raised":"x",', "raised: x"),
    ]:
        assert good in text
        path.write_text(text.replace(good, bad))
        with pytest.raises(AssertionError, match=problem):
            compare(scenario, path)
