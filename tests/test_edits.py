"""Runs are aligned by their structure: one call more or less shifts nothing, and each difference is told once."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from traces import conforming, drop, judge_rows, spans

from conformance.edits import Edit, calls, edits, in_words
from conformance.scenario import load_scenarios
from conformance.spec.contracts import expected
from conformance.spec.state import Expected

SCENARIOS = {scenario.name: scenario for scenario in load_scenarios()}


def run(name: str = "fit-val") -> list[Expected]:
    return list(expected(SCENARIOS[name]))


def found(a: list[Expected], b: list[Expected], *effects: str) -> list[tuple[str, str, str, str]]:
    return [edit[:4] for edit in edits(calls(a), calls(b), effects)]


def span(events: list[Expected], hook: str, nth: int = 0) -> tuple[int, int]:
    """Where the nth call of a hook on the module begins and is over."""
    begins = [i for i, e in enumerate(events) if (e.ph, e.receiver, e.hook) == ("B", "module", hook)]
    begin = begins[nth]
    return begin, next(i for i in range(begin, len(events)) if events[i][:3] == ("E", "module", hook))


def test_a_run_does_not_differ_from_itself() -> None:
    for name in ("fit-val", "fit-tbptt-optimizers", "fit-then-test", "fit-raise-step", "predict", "fit-resume-window"):
        assert found(run(name), run(name), "global_step", "grads", "lr") == []


def test_what_follows_on_another_receiver_is_the_same_call() -> None:
    told = [(call.hook, call.inside, call.receivers) for call in calls(run("fit-optimizers"))]
    assert ("on_train_start", "fit", ("callback:0", "module")) in told
    assert ("optimizer.step", "optimizer_step", ("optimizer:0",)) in told
    assert ("training_step", "optimizer.step", ("module",)) in told


def test_a_call_too_many_is_one_edit() -> None:
    events = run()
    begin, end = span(events, "on_validation_model_eval", 1)
    doubled = [*events[: end + 1], *events[begin : end + 1], *events[end + 1 :]]
    where = "after on_validation_model_eval"
    assert found(events, doubled) == [("val_loop", "on_validation_model_eval", "added", where)]
    assert found(doubled, events) == [("val_loop", "on_validation_model_eval", "missing", where)]


def test_a_call_within_another_is_told_by_that() -> None:
    events = run()
    begin, end = span(events, "optimizer_zero_grad", 2)
    assert found(events, events[:begin] + events[end + 1 :]) == [
        ("train_loop", "optimizer_zero_grad", "missing", "in optimizer.step")
    ]


@pytest.mark.parametrize(
    "hook, before, told",
    [
        ("on_fit_end", "on_train_start", "before on_train_start, not after on_train_end"),
        ("setup", "on_train_start", "after on_pretrain_routine_end, not before on_post_move_to_device"),
    ],
)
def test_a_call_that_moved(hook: str, before: str, told: str) -> None:
    events = run("fit-no-callbacks")
    begin, end = span(events, hook)
    taken = events[begin : end + 1]
    rest = events[:begin] + events[end + 1 :]
    at = span(rest, before)[0]
    ours = [row for row in found(events, rest[:at] + taken + rest[at:]) if row[2] == "moved"]
    assert [(row[1], row[3]) for row in ours] == [(hook, told)]


def changed(events: list[Expected], hook: str, **values: object) -> list[Expected]:
    """The run with other arguments or effects at the begin of the hook's first call on the module."""
    at, _ = span(events, hook)
    args = {**events[at].args, **{name: value for name, value in values.items() if name in events[at].args}}
    fx = {**events[at].fx, **{name: value for name, value in values.items() if name in events[at].fx}}
    return [*events[:at], events[at]._replace(args=args, fx=fx), *events[at + 1 :]]


def test_arguments_and_effects() -> None:
    events = run("fit-no-callbacks")
    assert found(events, changed(events, "training_step", batch="train/0/9"))[0][2] == "missing"  # another batch
    zero_grad = events[span(events, "optimizer_zero_grad")[0]]
    without = [
        e._replace(args={k: v for k, v in e.args.items() if k != "optimizer_idx"}) if e[1:3] == zero_grad[1:3] else e
        for e in events
    ]
    assert {*found(events, without)} == {("train_loop", "optimizer_zero_grad", "argument", "no optimizer_idx")}
    assert {*found(without, events)} == {("train_loop", "optimizer_zero_grad", "argument", "optimizer_idx as well")}
    other = changed(events, "on_train_start", training=False, global_step=7)
    assert found(events, other, "training", "global_step") == [
        ("train_on_device", "on_train_start", "effect", "training is False, not True when it begins"),
        ("train_on_device", "on_train_start", "effect", "global_step is another when it begins"),
    ]
    assert found(events, other, "grads") == []


def test_gradients_that_are_none_or_zero_are_alike() -> None:
    events = run("fit-no-callbacks")
    zero = [e._replace(fx={**e.fx, "grads": "zero"}) if e.fx.get("grads") in ("none", "clear") else e for e in events]
    assert found(events, zero, "grads") == []


def test_an_effect_is_told_where_it_begins_to_differ() -> None:
    events = run("fit-no-callbacks")
    at = span(events, "on_train_end")[0]
    later = [e._replace(fx={**e.fx, "training": False}) if i >= at else e for i, e in enumerate(events)]
    assert found(events, later, "training") == [
        ("train_on_device", "on_train_end", "effect", "training is False, not True when it begins")
    ]


def test_another_receiver() -> None:
    events = run("fit-callbacks")
    without = [e for e in events if (e.receiver, e.hook) != ("callback:1", "on_train_start")]
    assert found(events, without) == [
        ("train_on_device", "on_train_start", "receivers", "callback:0, callback:2, module, "
         "not callback:0, callback:1, callback:2, module")
    ]


@given(st.data())
def test_what_is_dropped_is_missing_and_nothing_else(data: st.DataObject) -> None:
    """Whichever calls without others in them are dropped. A hook that is called in several places may, if what tells
    these apart is gone as well, be said to have moved."""
    events = run("fit-no-callbacks")
    leaves = [i for i in range(len(events) - 1) if events[i].ph == "B" and events[i + 1][:3] == ("E", *events[i][1:3])]
    gone = data.draw(st.sets(st.sampled_from(leaves), max_size=5))
    rest = [e for i, e in enumerate(events) if i not in gone and i - 1 not in gone]
    told = found(events, rest)
    if len(gone) < 2:
        assert [row[1:3] for row in told] == [(events[i].hook, "missing") for i in gone]
    assert sum(row[2] == "missing" for row in told) == len(gone)
    assert {row[2] for row in told} <= {"missing", "moved"} and len(told) <= 2 * len(gone)


def test_the_sequence_clause_tells_all_edits(tmp_path: Path) -> None:
    scenario = SCENARIOS["fit-no-callbacks"]
    rows = drop(conforming(scenario), "module.on_fit_start")
    [(begin, end)] = spans(rows, "module.on_train_end")
    verdict = judge_rows(tmp_path / "t.jsonl", scenario, [*rows[: end + 1], *rows[begin:]], {"kind": "sequence"})
    assert verdict.seq == 5 and verdict.context  # where the first difference is
    assert verdict.reason == (
        "module.setup begins (stage=fit) where module.on_fit_start begins is due; "
        "in all: on_fit_start missing; on_train_end added after on_train_end"
    )


def test_a_sequence_without_an_edit_tells_its_difference_alone(tmp_path: Path) -> None:
    """The end of a call is told of another receiver: every call is there, in the same order."""
    scenario = SCENARIOS["fit-no-callbacks"]
    rows = conforming(scenario)
    [(_, end)] = spans(rows, "module.on_train_end")
    other = [*rows[:end], rows[end]._replace(receiver="datamodule"), *rows[end + 1 :]]
    verdict = judge_rows(tmp_path / "t.jsonl", scenario, other, {"kind": "sequence"})
    assert verdict.seq == end
    assert verdict.reason == "datamodule.on_train_end ends where module.on_train_end ends is due"


def test_instants_are_no_calls() -> None:
    events = run("fit-no-callbacks")
    instant = events[4]._replace(ph="I", hook="note")
    assert calls([*events[:4], instant, *events[4:]])[3].inside == calls(events)[3].inside
    assert found(events, [*events[:4], instant, *events[4:]]) == []


def test_a_name_that_begins_with_another_is_told_whole() -> None:
    names = ["validation_step", "validation_step_end", "setup"]

    def made(order: list[str]) -> list[Expected]:
        return [Expected(ph, "module", hook, {}, {}, "val_loop") for hook in order for ph in "BE"]

    assert found(made(names), made([names[2], *names[:2]])) == [
        ("val_loop", "setup", "moved", "before validation_step, not after validation_step_end")
    ]


def test_in_words() -> None:
    given = [
        Edit("fit", "a", "missing", "after x"), Edit("fit", "b", "missing", "after x"),
        Edit("fit", "c", "argument", "no y"), Edit("fit", "d", "moved", "before x, not after it", ("x",)),
    ]
    assert in_words(given) == "a, b missing after x; d moved before x, not after it"
