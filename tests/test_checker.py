"""Judging whole traces: every event finds its counterpart, memory stays bounded, and no trace hangs it."""

from __future__ import annotations

import gc
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from extent import share
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from tracefiles import values
from traces import EFFECTS, Row, conforming, drop, judge_rows, spans, write

from conformance import alignment, checker
from conformance.checker import judge, judge_file
from conformance.checks.calls import Never
from conformance.clauses import load_clauses
from conformance.features import features
from conformance.hooks import HOOKS
from conformance.scenario import Data, Model, Scenario, When, load_scenarios
from conformance.spec.contracts import expected
from conformance.spec.state import Expected
from conformance.trace import Event, Footer, Header, TraceError
from conformance.verdicts import Status, Verdict

PLAIN = Scenario("plain", data=Data(train=3, val=(2,)), trainer={"max_epochs": 2})
EVERY = load_clauses()


def judge_all(path: Path, scenario: Any, rows: Any, **declares: Any) -> dict[str, Verdict]:
    return {verdict.clause: verdict for verdict in judge_file(write(path, scenario, rows, **declares), EVERY)}


def failing(verdicts: dict[str, Verdict]) -> set[str]:
    return {clause for clause, verdict in verdicts.items() if verdict.status is Status.FAIL}


# ---- whole traces ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("scenario", share(load_scenarios(), 4), ids=lambda scenario: scenario.name)
def test_what_the_oracle_says_passes_every_clause(scenario: Scenario, tmp_path: Path) -> None:
    # The oracle does not shuffle.
    anew = {"ddp.shuffled-anew"} if {"shuffled", "distributed"} <= features(scenario) else set()
    assert failing(judge_all(tmp_path / "t.jsonl", scenario, conforming(scenario))) == anew


def test_one_verdict_per_clause_in_the_registrys_order(tmp_path: Path) -> None:
    verdicts = judge_all(tmp_path / "t.jsonl", PLAIN, conforming(PLAIN))
    assert list(verdicts) == [clause.id for clause in EVERY.values() if not clause.excluded]
    assert {verdict.scenario for verdict in verdicts.values()} == {"plain"}


def test_a_hook_that_is_missing_fails_its_clauses_and_no_others(tmp_path: Path) -> None:
    verdicts = judge_all(tmp_path / "t.jsonl", PLAIN, drop(conforming(PLAIN), "module.on_train_epoch_end"))
    about = {clause for clause in failing(verdicts) if "on_train_epoch_end" in clause}
    assert "train.on_train_epoch_end" in about
    others = failing(verdicts) - about
    assert others <= {"fit.sequence", "epoch.should_stop", "structure.receivers"}


def test_a_batch_of_another_stage_is_held_against_the_one_that_is_due(tmp_path: Path) -> None:
    """A trainer that validates on other batches than it should: the hook has its counterpart all the same."""
    scenario = replace(PLAIN, trainer={"overfit_batches": 1})
    rows = [
        row._replace(args={**row.args, "batch": "val/0/0"}) if row.hook == "validation_step" else row
        for row in conforming(scenario)
    ]
    verdict = judge_all(tmp_path / "t.jsonl", scenario, rows)["data.overfit.val"]
    assert verdict.reason == "module.validation_step has batch=val/0/0 where batch=train/0/0 is due"


def test_every_failure_brings_the_lines_around_it(tmp_path: Path) -> None:
    verdicts = judge_all(tmp_path / "t.jsonl", PLAIN, drop(conforming(PLAIN), "module.backward", 1))
    for clause in failing(verdicts):
        assert 1 <= len(verdicts[clause].context) <= checker.CONTEXT + 1, clause
    first = verdicts["fit.sequence"]
    assert f"{first.seq:>6}" in first.context[-2] and first.context[-1] == f"   due  {first.expected}"


def test_a_hook_that_comes_late_keeps_its_own_counterpart(tmp_path: Path) -> None:
    given = conforming(PLAIN)
    begin, end = spans(given, "module.on_train_start")[0]
    late = [*given[:begin], *given[end + 1 : -1], *given[begin : end + 1], given[-1]]
    verdicts = judge_all(tmp_path / "t.jsonl", PLAIN, late)
    assert verdicts["fit.on_train_start"].status is Status.PASS
    assert verdicts["fit.on_train_start-then-on_epoch_start"].status is Status.FAIL
    assert verdicts["train.batch_idx"].status is Status.PASS


# ---- what an adapter declares ----------------------------------------------------------------------------


def test_an_undeclared_hook_is_unsupported_and_not_expected(tmp_path: Path) -> None:
    hooks = [hook for hook in HOOKS if hook != "on_fit_start"]
    rows = [row for row in conforming(PLAIN) if row.hook != "on_fit_start"]
    verdicts = judge_all(tmp_path / "t.jsonl", PLAIN, rows, hooks=hooks)
    assert verdicts["fit.on_fit_start"].status is Status.UNSUPPORTED
    assert verdicts["fit.on_fit_start"].reason == "the trainer has no on_fit_start"
    assert verdicts["fit.on_fit_start-then-setup"].status is Status.UNSUPPORTED
    assert failing(verdicts) == set()


def test_a_scenario_that_makes_something_happen_in_an_undeclared_hook_is_not_run(tmp_path: Path) -> None:
    scenario = replace(PLAIN, when=(When("on_pretrain_routine_end", "stop"),))
    hooks = [hook for hook in HOOKS if hook != "on_pretrain_routine_end"]
    verdicts = judge_all(tmp_path / "t.jsonl", scenario, [], hooks=hooks)
    assert failing(verdicts) == set()
    assert verdicts["fit.sequence"].reason == "the trainer has no on_pretrain_routine_end"
    assert "fit.sequence" in failing(judge_all(tmp_path / "t.jsonl", scenario, []))


def test_what_an_undeclared_hook_would_have_returned_is_not_expected(tmp_path: Path) -> None:
    without = Scenario("ends", data=Data(train=2))
    scenario = replace(without, model=Model(defines=("training_step_end",)))
    rows = conforming(without)  # of a trainer that hands on what training_step returned
    hooks = [hook for hook in HOOKS if hook != "training_step_end"]
    verdicts = judge_all(tmp_path / "t.jsonl", scenario, rows, hooks=hooks)
    assert verdicts["train.outputs.of-step-end"].reason == "the trainer has no training_step_end"
    assert failing(verdicts) == set()
    assert "train.outputs.of-step-end" in failing(judge_all(tmp_path / "t.jsonl", scenario, rows))


def test_an_undeclared_effect_is_unsupported(tmp_path: Path) -> None:
    rows = [row._replace(fx={}) for row in conforming(PLAIN)]
    verdicts = judge_all(tmp_path / "t.jsonl", PLAIN, rows, effects=())
    assert verdicts["modes.train.training"].reason == "the trainer has no effect training"
    assert verdicts["train.parameters.updated"].reason == "the trainer has no effect params"
    assert failing(verdicts) == set()


def declaring_all_but(path: Path, *absent: str) -> Verdict:
    """The verdict on the closure of optimizer_step, of a trainer without these hooks."""
    rows = [row for row in conforming(PLAIN) if row.hook not in absent]
    hooks = [hook for hook in HOOKS if hook not in absent]
    return judge_all(path, PLAIN, rows, hooks=hooks)[CLOSURE]


CLOSURE = "train.closure.encloses"


def test_enclosing_is_judged_by_those_of_the_inner_hooks_that_there_are(tmp_path: Path) -> None:
    inner = EVERY[CLOSURE].check["inner"]
    assert len(inner) > 2
    assert declaring_all_but(tmp_path / "t.jsonl", inner[1]).status is Status.PASS
    assert declaring_all_but(tmp_path / "t.jsonl", *inner[1:]).status is Status.PASS
    without = declaring_all_but(tmp_path / "t.jsonl", *inner)
    assert (without.status, without.reason) == (Status.UNSUPPORTED, f"the trainer has no {', '.join(sorted(inner))}")


def test_enclosing_needs_what_encloses(tmp_path: Path) -> None:
    without = declaring_all_but(tmp_path / "t.jsonl", "optimizer_step")
    assert (without.status, without.reason) == (Status.UNSUPPORTED, "the trainer has no optimizer_step")


def test_what_is_declared_and_never_called_fails(tmp_path: Path) -> None:
    rows = [row for row in conforming(PLAIN) if row.hook != "on_fit_start"]
    assert "fit.on_fit_start" in failing(judge_all(tmp_path / "t.jsonl", PLAIN, rows))


def test_declaring_nothing_at_all(tmp_path: Path) -> None:
    verdicts = judge_all(tmp_path / "t.jsonl", PLAIN, [], hooks=(), effects=())
    assert verdicts["fit.setup"].status is Status.UNSUPPORTED
    assert failing(verdicts) == {"fit.sequence"}  # there was no call of fit either


def test_hooks_nobody_knows_are_the_sequences_affair(tmp_path: Path) -> None:
    given = conforming(PLAIN)
    odd = [Row("B", "module", "on_tuesday", {}, {}), Row("E", "module", "on_tuesday", {}, {})]
    rows = [row for place in given for row in (*odd, place)]
    verdicts = judge_all(tmp_path / "t.jsonl", PLAIN, rows)
    assert failing(verdicts) == {"fit.sequence"}
    assert verdicts["fit.sequence"].reason == "module.on_tuesday begins where trainer.fit begins is due"


# ---- hostile headers and traces --------------------------------------------------------------------------


@pytest.mark.parametrize(
    "scenario, message",
    [
        ({"name": "x", "callbacks": -1}, r"t\.jsonl:1: the header's scenario: x: callbacks: -1; 0 to 1000"),
        ({"name": "x", "trainer": {"val_check_interval": 0}}, r"t\.jsonl:1: the header's scenario: x: trainer"),
        (
            {"name": "x", "when": [{"hook": "on_mars", "do": "stop"}]},
            r"t\.jsonl:1: the header's scenario: x: when stop",
        ),
        ({"name": "x", "colour": "red"}, r"t\.jsonl:1: the header's scenario: x: unknown key 'colour'"),
    ],
)
def test_a_malformed_scenario_is_the_traces_fault(tmp_path: Path, scenario: dict[str, Any], message: str) -> None:
    path = write(tmp_path / "t.jsonl", scenario, [])
    with pytest.raises(TraceError, match=message):
        judge_file(path, EVERY)


LOGGING = next(scenario for scenario in load_scenarios() if scenario.name == "fit-logs")
LOGGED = conforming(LOGGING)
FIELDS = sorted({(kind, name) for row in LOGGED for kind in ("args", "fx") for name in getattr(row, kind)})
SOMETHING = values | st.sampled_from(["val/7/7", "[train/0/0,", "lists:x", ["train_loss"]])


@pytest.mark.slow
@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sampled_from(FIELDS), SOMETHING, st.sampled_from([None, 2**53 - 1]))
@example(("args", "batch"), f"train/0/{'9' * 5000}", None)
@example(("fx", "metrics"), 5, None)
def test_whatever_the_values_a_trace_is_refused_or_judged(
    tmp_path: Path, field: tuple[str, str], value: Any, depth: int | None
) -> None:
    kind, name = field
    rows = [
        row._replace(depth=depth, **{kind: {**getattr(row, kind), name: value}}) if name in getattr(row, kind) else row
        for row in LOGGED[:100]
    ]
    try:
        path = write(tmp_path / "t.jsonl", LOGGING, rows)
    except TraceError:
        return
    assert judge_file(path, EVERY)


def test_a_cut_trace_is_no_trace(tmp_path: Path) -> None:
    path = write(tmp_path / "t.jsonl", PLAIN, conforming(PLAIN))
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:-1]))
    with pytest.raises(TraceError, match="footer is missing"):
        judge_file(path, EVERY)


ABSURD = Scenario(
    "absurd",
    callbacks=1000,
    data=Data(train=10**9, val=(10**9,)),
    trainer={"max_epochs": 10**12, "num_sanity_val_steps": -1},
)


@pytest.mark.parametrize("scenario", [
    ABSURD,
    Scenario("endless", callbacks=0, trainer={"max_epochs": -1, "max_steps": 10**15}),
    Scenario("late", callbacks=0, data=Data(train=10**9)),
])  # fmt: skip
def test_an_endless_oracle_is_not_heard_out(
    tmp_path: Path, scenario: Scenario, monkeypatch: pytest.MonkeyPatch
) -> None:
    heard = 0

    def counted(*given: Any) -> Iterator[Any]:
        nonlocal heard
        for event in expected(*given):
            heard += 1
            yield event

    monkeypatch.setattr(checker, "expected", counted)
    rows = [Row("B", "trainer", "fit", {}, {}), Row("E", "trainer", "fit", {}, {})]
    verdicts = judge_all(tmp_path / "t.jsonl", scenario, rows)
    assert heard <= 2 * alignment.LOOKAHEAD + 2
    assert verdicts["fit.sequence"].status is Status.FAIL
    assert verdicts["fit.prepare_data"].reason == "module.prepare_data is never called"


def test_what_is_missing_of_an_endless_run_is_counted_from_below(tmp_path: Path) -> None:
    scenario = Scenario("late", callbacks=0, data=Data(train=10**9))
    rows = [row for row, _ in zip(conforming(Scenario("late", callbacks=0, data=Data(train=9))), range(60))]
    check = {"kind": "count", "hooks": ["training_step"]}
    verdict = judge_rows(tmp_path / "t.jsonl", scenario, rows, check)
    assert verdict.reason.startswith("module.training_step is called 1 times, not at least ")


# ---- long traces: memory stays bounded, and counterparts are still found -----------------------------------

LONG = Scenario("long", callbacks=0, data=Data(train=100), trainer={"max_epochs": 36})
LOOKAHEAD = 500  # instead of 20,000: a hundred thousand events are many then
BOUND = 12_000  # objects; a hook that never comes in LONG would leave 22,000, were they kept
FEW = {
    clause: EVERY[clause]
    for clause in (
        "fit.sequence", "fit.on_train_end", "train.training_step", "train.backward", "train.batch_idx",
        "train.on_train_batch_start", "train.on_train_batch_end", "structure.receivers", "structure.balanced",
        "train.on_train_batch_start-then-on_before_batch_transfer", "train.backward-then-on_after_backward",
        "epoch.global_step", "train.on_after_backward",
    )
}  # fmt: skip


@pytest.fixture(scope="module")
def long_rows() -> list[Row]:
    rows = conforming(LONG)
    assert len(rows) >= 100_000
    return rows


class Reader:
    """A trace that was read already: no file of a hundred thousand lines for each test."""

    path = "rows"
    header = Header("0", LONG.to_dict(), {}, {"hooks": list(HOOKS), "effects": list(EFFECTS)}, {})
    footer = Footer(0, "returned", "")

    def __init__(self, rows: list[Row]) -> None:
        self.rows = rows
        self.objects: list[int] = []  # how many there are in this process, every so often

    def __iter__(self) -> Iterator[Event]:
        depth = 0
        for seq, row in enumerate(self.rows):
            if seq % 5_000 == 0:
                self.objects.append(len(gc.get_objects()))
            depth -= row.ph == "E"
            yield Event(seq, row.ph, 0, row.receiver, row.hook, depth, row.args, row.fx)
            depth += row.ph == "B"


def peak(rows: list[Row], monkeypatch: pytest.MonkeyPatch) -> tuple[dict[str, Verdict], int]:
    """The verdicts on these rows, and how many objects judging them held at most."""
    monkeypatch.setattr(alignment, "LOOKAHEAD", LOOKAHEAD)
    reader, seldom = Reader(rows), gc.get_threshold()
    gc.collect()
    gc.set_threshold(700, 10, 10)  # what nobody holds any more is gone soon
    try:
        verdicts = {verdict.clause: verdict for verdict in judge(reader, FEW)}  # type: ignore[arg-type]
    finally:
        gc.set_threshold(*seldom)
    return verdicts, max(reader.objects) - reader.objects[0]


def without(hook: str, rows: list[Row]) -> list[Row]:
    return [row for row in rows if row.hook != hook]


def doubled(hook: str, rows: list[Row]) -> list[Row]:
    """Each begin and end of a hook that encloses no other, twice."""
    out: list[Row] = []
    for row in rows:
        out.append(row)
        if row.hook == hook and row.ph == "E":
            out += [row._replace(ph="B"), row]
    return out


def swapped(first: str, then: str, rows: list[Row]) -> list[Row]:
    """Two neighbouring hooks in the other order, at each place."""
    out: list[Row] = []
    held: list[Row] = []
    for row in rows:
        if row.hook == first:
            held.append(row)
            continue
        out.append(row)
        if row.hook == then and row.ph == "E":
            out += held
            held = []
    return out + held


@pytest.mark.slow
def test_a_long_trace(long_rows: list[Row], monkeypatch: pytest.MonkeyPatch) -> None:
    verdicts, held = peak(long_rows, monkeypatch)
    assert failing(verdicts) == set()
    assert verdicts["fit.on_train_end"].status is Status.PASS
    assert held < BOUND


@pytest.mark.slow
def test_a_hook_that_never_comes(long_rows: list[Row], monkeypatch: pytest.MonkeyPatch) -> None:
    verdicts, held = peak(without("on_after_backward", long_rows), monkeypatch)
    assert failing(verdicts) == {"fit.sequence", "train.on_after_backward"}
    assert verdicts["train.on_after_backward"].reason == "module.on_after_backward is never called"
    assert held < BOUND


@pytest.mark.slow
def test_half_of_all_hooks_never_come(long_rows: list[Row], monkeypatch: pytest.MonkeyPatch) -> None:
    kept = {"on_train_batch_start", "training_step", "backward", "on_train_batch_end", "on_train_end", "fit"}
    verdicts, held = peak([row for row in long_rows if row.hook in kept], monkeypatch)
    for clause in ("train.training_step", "train.batch_idx", "epoch.global_step", "fit.on_train_end"):
        assert verdicts[clause].status is Status.PASS, verdicts[clause].reason
    assert held < BOUND


@pytest.mark.slow
def test_a_hook_that_comes_twice(long_rows: list[Row], monkeypatch: pytest.MonkeyPatch) -> None:
    verdicts, held = peak(doubled("on_after_backward", long_rows), monkeypatch)
    assert failing(verdicts) >= {"fit.sequence", "train.on_after_backward"}
    assert "train.on_after_backward" in failing(verdicts)
    assert "is called more often than is due: here, after 1 call" in verdicts["train.on_after_backward"].reason
    for clause in ("train.batch_idx", "train.backward", "epoch.global_step", "fit.on_train_end"):
        assert verdicts[clause].status is Status.PASS, verdicts[clause].reason
    assert held < BOUND


@pytest.mark.slow
def test_hooks_in_another_order(long_rows: list[Row], monkeypatch: pytest.MonkeyPatch) -> None:
    rows = swapped("on_train_batch_start", "on_before_batch_transfer", long_rows)
    verdicts, held = peak(rows, monkeypatch)
    assert failing(verdicts) == {"fit.sequence", "train.on_train_batch_start-then-on_before_batch_transfer"}
    assert held < BOUND


def test_a_flood_of_hooks_that_nobody_knows(monkeypatch: pytest.MonkeyPatch) -> None:
    flood = [Row(ph, "module", f"on_{index % 50}_mars", {}, {}) for index in range(20_000) for ph in "BE"]
    verdicts, held = peak(flood, monkeypatch)
    assert verdicts["fit.sequence"].seq == 0
    assert held < BOUND


def test_a_check_that_failed_is_told_of_nothing_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    original = Never.see

    def see(self: Never, event: Event, due: Expected | None) -> None:
        seen.append(event.seq)
        original(self, event, due)

    monkeypatch.setattr(Never, "see", see)
    rows = [Row(ph, "module", "setup", {}, {}) for _ in range(50) for ph in "BE"]
    verdict = judge_rows(tmp_path / "t.jsonl", PLAIN, rows, {"kind": "never", "hooks": ["setup"]})
    assert verdict.status is Status.FAIL and seen == [0]


def test_the_header_may_be_written_by_hand(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    header = {"format": "refimpl-trace", "version": 1, "suite": "0", "scenario": {"name": "x"},
              "trainer": {"name": "hand", "version": "0"}, "declares": {"hooks": ["setup"], "effects": []},
              "environment": {}}  # fmt: skip
    path.write_text(json.dumps(header) + '\n{"events":0,"outcome":"returned","error":""}\n')
    verdicts = {verdict.clause: verdict for verdict in judge_file(path, EVERY)}
    assert verdicts["fit.setup"].reason == "callback:0.setup is never called"


# ---- a run that raises though nothing was told to ---------------------------------------------------------


def test_what_a_run_that_raised_did_not_come_to_is_not_reached(tmp_path: Path) -> None:
    scenario = Scenario("plain", callbacks=0, data=Data(train=2))
    rows = conforming(scenario)
    at = spans(rows, "module.backward")[0][0]
    open_spans: list[Row] = []
    for row in rows[: at + 1]:
        open_spans = [*open_spans, row] if row.ph == "B" else open_spans[:-1]
    error = {"raised": "ValueError: boom"}
    ends = [row._replace(ph="E", args={**row.args, **error}) for row in reversed(open_spans)]
    verdicts = judge_all(tmp_path / "t.jsonl", scenario, [*rows[: at + 1], *ends])
    assert verdicts["run.returns"].status is Status.FAIL
    assert "ValueError: boom" in verdicts["run.returns"].reason
    for clause in ("fit.on_train_end", "train.on_after_backward", "fit.teardown"):
        assert verdicts[clause].status is Status.NOT_APPLICABLE
        assert verdicts[clause].reason == "not reached: the run raised ValueError: boom"
    assert all(verdicts[clause].seq is not None for clause in failing(verdicts))
    # A trace that only ends is another thing: what did not come is missing.
    verdicts = judge_all(tmp_path / "t.jsonl", scenario, rows[: at + 1])
    assert verdicts["fit.on_train_end"].status is Status.FAIL


@pytest.mark.parametrize("count", [9, None], ids=["cut", "whole"])
def test_a_run_that_raised_outside_of_the_users_calls_has_not_returned(count: int | None, tmp_path: Path) -> None:
    """The last line says so, and no event."""
    scenario = Scenario("plain", callbacks=0, data=Data(train=2))
    path = write(tmp_path / "t.jsonl", scenario, conforming(scenario)[:count])
    lines = path.read_text().splitlines()
    last = {**json.loads(lines[-1]), "outcome": "raised", "error": "MemoryError: boom"}
    path.write_text("\n".join([*lines[:-1], json.dumps(last)]) + "\n")
    verdicts = {verdict.clause: verdict for verdict in judge_file(path, EVERY)}
    assert failing(verdicts) == {"run.returns"}
    assert verdicts["run.returns"].reason == "the run raised, in no call of the user's: MemoryError: boom"
