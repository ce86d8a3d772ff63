"""Each kind of check: what it lets pass, what it refuses, and the words in which it does so."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from traces import Row, conforming, drop, judge_rows, spans

from conformance import causes
from conformance.checks import KINDS, CheckError, build
from conformance.clauses import load_clauses
from conformance.hooks import HOOKS
from conformance.scenario import Data, Log, Model, Scenario, When
from conformance.spec.state import Expected
from conformance.trace import Event
from conformance.verdicts import Status, Verdict

PLAIN = Scenario("plain", callbacks=2, data=Data(train=3, val=(2,)), trainer={"max_epochs": 2})
Judge = Callable[..., Verdict]


@pytest.fixture
def judge(tmp_path: Path) -> Judge:
    """`judge(rows, kind="count", ...)`: the verdict on these rows as a trace of PLAIN."""

    def verdict(rows: list[Row], *, scenario: Scenario = PLAIN, **check: Any) -> Verdict:
        return judge_rows(tmp_path / "trace.jsonl", scenario, rows, check)

    return verdict


def rows(scenario: Scenario = PLAIN) -> list[Row]:
    return conforming(scenario)


def moved(given: list[Row], call: tuple[int, int], to: int) -> list[Row]:
    """The span of a call that holds no other moved to before the row that is now at `to`."""
    begin, end = call
    assert end == begin + 1
    rest = given[:begin] + given[end + 1 :]
    place = to if to <= begin else to - 2
    return [*rest[:place], *given[begin : end + 1], *rest[place:]]


def changed(given: list[Row], place: int, **what: Any) -> list[Row]:
    """One row with other args or fx; a value None takes the key away."""
    row = given[place]
    for field, values in what.items():
        merged = {k: v for k, v in {**getattr(row, field), **values}.items() if v is not None}
        row = row._replace(**{field: merged})
    return [*given[:place], row, *given[place + 1 :]]


def fails(verdict: Verdict, reason: str, seq: int | None = -1) -> None:
    assert (verdict.status, verdict.reason) == (Status.FAIL, reason)
    if seq != -1:
        assert verdict.seq == seq


# ---- count -----------------------------------------------------------------------------------------------


def test_count_passes_what_is_called_as_often_as_due(judge: Judge) -> None:
    verdict = judge(rows(), kind="count", hooks=["training_step", "on_fit_start", "on_epoch_end@val_loop"])
    assert verdict.status is Status.PASS and verdict.reason == "" and verdict.context == ()


def test_count_of_a_hook_that_is_not_due_and_not_called(judge: Judge) -> None:
    assert judge(rows(), kind="count", hooks=["on_test_start"]).status is Status.NOT_APPLICABLE


def test_count_of_a_hook_that_never_comes(judge: Judge) -> None:
    verdict = judge(drop(rows(), "module.on_fit_end"), kind="count", hooks=["on_fit_end"])
    fails(verdict, "module.on_fit_end is never called", seq=None)
    assert (verdict.expected, verdict.seen) == ("1 calls of module.on_fit_end", "0 calls")


def test_count_of_a_hook_that_comes_too_seldom(judge: Judge) -> None:
    verdict = judge(drop(rows(), "callback:1.on_train_batch_end", 3), kind="count", hooks=["on_train_batch_end"])
    fails(verdict, "callback:1.on_train_batch_end is called 5 times, not 6 times", seq=None)


def test_count_of_a_hook_that_comes_too_often(judge: Judge) -> None:
    given = rows()
    begin, end = spans(given, "module.on_train_end")[0]
    verdict = judge(given[: end + 1] + given[begin:], kind="count", hooks=["on_train_end"])
    fails(verdict, "module.on_train_end is called more often than is due: here, after 1 call", seq=end + 1)
    assert verdict.seen == "module.on_train_end begins"


def test_count_of_a_hook_that_is_not_due_but_called(judge: Judge) -> None:
    given = [*rows(), Row("B", "module", "on_test_start", {}, {}), Row("E", "module", "on_test_start", {}, {})]
    verdict = judge(given, kind="count", hooks=["on_test_start"])
    fails(verdict, "module.on_test_start is called more often than is due: here, after 0 calls")


def test_count_of_one_functions_line_leaves_the_others_alone(judge: Judge) -> None:
    given = rows()
    begin, end = spans(given, "module.on_epoch_end")[-1]
    twice = given[: end + 1] + given[begin:]
    assert judge(twice, kind="count", hooks=["on_epoch_end@val_loop"]).status is Status.PASS
    fails(judge(twice, kind="count", hooks=["on_epoch_end@train_loop"]),
          "module.on_epoch_end is called more often than is due: here, after 2 calls")  # fmt: skip


def test_count_of_one_receivers_hook(judge: Judge) -> None:
    scheduled = Scenario("scheduled", model=Model(scheduler="epoch"))
    given = drop(rows(scheduled), "scheduler.step")
    assert judge(given, scenario=scheduled, kind="count", hooks=["optimizer.step"]).status is Status.PASS
    fails(judge(given, scenario=scheduled, kind="count", hooks=["scheduler.step"]), "scheduler.step is never called")


def test_never(judge: Judge) -> None:
    given = rows()
    assert judge(given, kind="never", hooks=["on_test_start", "test_step"]).status is Status.PASS
    begin, _ = spans(given, "module.training_step")[0]
    verdict = judge(given, kind="never", hooks=["test_step", "training_step"])
    fails(verdict, "module.training_step is called", seq=begin)


# ---- order and encloses ----------------------------------------------------------------------------------


def test_order_passes_and_fails(judge: Judge) -> None:
    check = {"kind": "order", "first": "on_after_backward", "then": "on_before_optimizer_step"}
    given = rows()
    assert judge(given, **check).status is Status.PASS
    late = spans(given, "module.on_after_backward")[2]
    early = spans(given, "module.on_before_optimizer_step")[2]
    verdict = judge(moved(given, late, early[1] + 1), **check)
    fails(verdict, "on_before_optimizer_step begins before on_after_backward has ended", seq=early[0] - 2)
    assert verdict.expected == "on_after_backward, then on_before_optimizer_step"


def test_order_asks_the_module_not_the_callbacks(judge: Judge) -> None:
    given = rows()
    late = spans(given, "callback:0.on_after_backward")[0]
    early = spans(given, "module.on_before_optimizer_step")[0]
    check = {"kind": "order", "first": "on_after_backward", "then": "on_before_optimizer_step"}
    assert judge(moved(given, late, early[1] + 1), **check).status is Status.PASS


def test_order_of_ends_where_one_encloses_the_other(judge: Judge) -> None:
    given = rows()
    check = {"kind": "order", "first": "backward", "then": "optimizer_step"}
    assert judge(given, point="E", **check).status is Status.PASS
    step_end = spans(given, "module.optimizer_step")[0][1]
    verdict = judge(moved(given, spans(given, "module.backward")[0], step_end + 1), point="E", **check)
    fails(verdict, "optimizer_step ends before backward has ended")


def test_order_where_the_first_never_comes_is_the_affair_of_its_own_clause(judge: Judge) -> None:
    given = drop(rows(), "module.on_train_end")
    check = {"kind": "order", "first": "on_train_end", "then": "on_fit_end"}
    assert judge(given, **check).status is Status.NOT_APPLICABLE
    late = judge(moved(rows(), spans(rows(), "module.on_train_end")[0], len(given)), **check)
    fails(late, "on_fit_end begins before on_train_end has ended")


def test_order_is_not_applicable_where_nothing_precedes(judge: Judge) -> None:
    given = rows()
    check = {"kind": "order", "first": "on_sanity_check_end", "then": "on_train_start"}
    assert judge(given, **check).status is Status.NOT_APPLICABLE


def test_encloses_passes_and_fails(judge: Judge) -> None:
    check = {"kind": "encloses", "outer": "optimizer_step", "inner": ["backward"]}
    given = rows()
    assert judge(given, **check).status is Status.PASS
    out = spans(given, "module.backward")[1]
    outer = spans(given, "module.optimizer_step")[1]
    verdict = judge(moved(given, out, outer[0]), **check)
    fails(verdict, "backward is called outside of optimizer_step", seq=outer[0])
    assert verdict.expected == "backward within optimizer_step"


def test_encloses_is_not_applicable_without_an_outer(judge: Judge) -> None:
    check = {"kind": "encloses", "outer": "on_test_start", "inner": ["backward"]}
    assert judge(rows(), **check).status is Status.NOT_APPLICABLE


# ---- argument, effect ------------------------------------------------------------------------------------


def test_argument_passes_and_fails(judge: Judge) -> None:
    check = {"kind": "argument", "hooks": ["training_step"], "field": "batch_idx"}
    given = rows()
    assert judge(given, **check).status is Status.PASS
    begin, end = spans(given, "module.training_step")[1]
    verdict = judge(changed(given, begin, args={"batch_idx": 7}), **check)
    fails(verdict, "module.training_step has batch_idx=7 where batch_idx=1 is due", seq=begin)
    verdict = judge(changed(given, begin, args={"batch_idx": None}), **check)
    fails(verdict, "module.training_step has no batch_idx where batch_idx=1 is due", seq=begin)
    assert judge(changed(given, end, args={"batch_idx": 7}), **check).status is Status.PASS  # at the begin
    assert verdict.expected == "module.training_step begins (batch=train/0/1, batch_idx=1)"


def test_argument_that_the_contract_does_not_fix_is_not_judged(judge: Judge) -> None:
    check = {"kind": "argument", "hooks": ["on_train_start"], "field": "batch_idx"}
    assert judge(rows(), **check).status is Status.NOT_APPLICABLE


def test_argument_that_must_be_absent_where_the_contract_has_none(judge: Judge) -> None:
    check = {"kind": "argument", "hooks": ["validation_step"], "field": "dataloader_idx", "absent": True}
    given = rows()
    assert judge(given, **check).status is Status.PASS
    begin, _ = spans(given, "module.validation_step")[1]
    verdict = judge(changed(given, begin, args={"dataloader_idx": 0}), **check)
    fails(verdict, "module.validation_step has dataloader_idx=0 where none is due", seq=begin)
    several = Scenario("several", data=Data(train=1, val=(1, 1)))
    assert judge(rows(several), scenario=several, **check).status is Status.NOT_APPLICABLE


def test_argument_raised_is_judged_where_nothing_is_raised_too(judge: Judge) -> None:
    check = {"kind": "argument", "hooks": ["fit"], "field": "raised", "at": "E"}
    given = rows()
    assert judge(given, **check).status is Status.PASS
    verdict = judge(changed(given, len(given) - 1, args={"raised": "ValueError: x"}), **check)
    fails(verdict, "trainer.fit has raised=ValueError: x where raised=none is due")


def test_argument_raised_in_the_trainers_own_words(judge: Judge) -> None:
    check = {"kind": "argument", "hooks": ["fit"], "field": "raised", "at": "E"}
    ending = Scenario("ending", model=Model(scheduler="epoch", monitor="nothing"))
    given = rows(ending)
    assert given[-1].args == {"raised": "*", "status": "failed"}
    for words, status in [("AnyError: any words", Status.PASS), (None, Status.FAIL)]:
        verdict = judge(changed(given, len(given) - 1, args={"raised": words}), scenario=ending, **check)
        assert verdict.status is status
    assert verdict.reason == "trainer.fit has no raised where raised=* is due"


def test_argument_that_is_a_number_need_only_be_close_and_may_be_left_out(judge: Judge) -> None:
    check = {"kind": "argument", "hooks": ["backward"], "field": "loss"}
    given = rows()
    begin, _ = spans(given, "module.backward")[1]
    loss = given[begin].args["loss"]
    assert judge(changed(given, begin, args={"loss": loss * 1.000001}), **check).status is Status.PASS
    assert judge(changed(given, begin, args={"loss": loss * 1.001}), **check).status is Status.FAIL
    assert judge(changed(given, begin, args={"loss": "nan"}), **check).status is Status.FAIL
    without = [row._replace(args={k: v for k, v in row.args.items() if k != "loss"}) for row in given]
    assert judge(without, **check).status is Status.NOT_APPLICABLE


def test_effect_that_is_a_list_of_numbers(judge: Judge) -> None:
    check = {"kind": "effect", "hooks": ["training_step"], "field": "lr"}
    given = rows()
    begin, _ = spans(given, "module.training_step")[1]
    assert judge(changed(given, begin, fx={"lr": [0.06250001]}), **check).status is Status.PASS
    for rates in ([0.0626], [], [0.0625, 0.0625]):
        assert judge(changed(given, begin, fx={"lr": rates}), **check).status is Status.FAIL


def test_effect_of_a_fixed_value(judge: Judge) -> None:
    check = {"kind": "effect", "hooks": ["training_step"], "field": "training", "value": True}
    given = rows()
    assert judge(given, **check).status is Status.PASS
    begin, end = spans(given, "module.training_step")[0]
    verdict = judge(changed(given, end, fx={"training": False}), **check)
    fails(verdict, "training is False, not True, at the end of module.training_step", seq=end)
    assert verdict.expected == "training=True" and verdict.seen.endswith(" with training=False")
    fails(judge(changed(given, begin, fx={"training": False}), **check),
          "training is False, not True, at the begin of module.training_step")  # fmt: skip
    assert judge(changed(given, end, fx={"training": False}), at="B", **check).status is Status.PASS


def test_effect_that_the_oracle_knows(judge: Judge) -> None:
    check = {"kind": "effect", "hooks": ["on_train_batch_end"], "field": "global_step"}
    given = rows()
    assert judge(given, **check).status is Status.PASS
    begin, _ = spans(given, "callback:0.on_train_batch_end")[2]
    verdict = judge(changed(given, begin, fx={"global_step": 3}), **check)
    fails(verdict, "global_step is 3, not 2, at the begin of callback:0.on_train_batch_end")


@pytest.mark.parametrize("grads, status", [("none", Status.PASS), ("zero", Status.PASS), ("set", Status.FAIL)])
def test_effect_clear_is_none_or_zero(judge: Judge, grads: str, status: Status) -> None:
    given = rows()
    end = spans(given, "module.optimizer_zero_grad")[0][1]
    check = {"kind": "effect", "hooks": ["optimizer_zero_grad"], "field": "grads", "value": "clear", "at": "E"}
    assert judge(changed(given, end, fx={"grads": grads}), **check).status is status


def test_effect_that_was_not_seen_is_not_judged(judge: Judge) -> None:
    check = {"kind": "effect", "hooks": ["on_fit_start"], "field": "training", "value": True}
    given = rows()
    for place in [i for i, row in enumerate(given) if row.hook == "on_fit_start"]:
        given = changed(given, place, fx={"training": None})
    assert judge(given, **check).status is Status.NOT_APPLICABLE


def test_effect_after_an_exception_is_not_judged(judge: Judge) -> None:
    broken = Scenario("broken", when=(When("training_step", "raise"),))
    given = rows(broken)
    end = spans(given, "module.training_step")[0][1]
    check = {"kind": "effect", "hooks": ["training_step"], "field": "training", "value": True}
    assert judge(changed(given, end, fx={"training": False}), scenario=broken, **check).status is Status.PASS


# ---- logged ----------------------------------------------------------------------------------------------


LOGGING = Scenario(
    "logging",
    data=Data(train=3, batch_size=3, last=1),
    model=Model(logs=(Log("training_step", "loss", on_step=True, on_epoch=True), Log("on_train_start", "start"))),
)
LOGGED = {"kind": "logged", "hooks": ["on_train_epoch_end"], "names": ["loss_*"]}


def told(given: list[Row], place: int, **values: Any) -> list[Row]:
    """The rows with other logged values at a place; None takes one away."""
    known = {**dict(zip(given[place].fx["metrics"], given[place].fx["values"])), **values}
    kept = {name: value for name, value in sorted(known.items()) if value is not None}
    return changed(given, place, fx={"metrics": list(kept), "values": list(kept.values())})


def test_logged_values_are_those_of_the_oracle(judge: Judge) -> None:
    given = rows(LOGGING)
    place = spans(given, "module.on_train_epoch_end")[0][0]
    known = dict(zip(given[place].fx["metrics"], given[place].fx["values"]))
    assert set(known) == {"loss", "loss_step", "loss_epoch", "start"}
    mean = known["loss_epoch"]
    at = "at the begin of module.on_train_epoch_end"
    assert judge(given, scenario=LOGGING, **LOGGED).status is Status.PASS
    verdict = judge(told(given, place, loss_epoch=mean + 0.5), scenario=LOGGING, **LOGGED)
    fails(verdict, f"loss_epoch is {mean + 0.5}, not {mean:.6g}, {at}", seq=place)
    assert verdict.expected == f"loss_epoch={mean:.6g}" and verdict.seen.endswith(f"with loss_epoch={mean + 0.5}")
    for wrong in ("nan", True):
        assert judge(told(given, place, loss_epoch=wrong), scenario=LOGGING, **LOGGED).status is Status.FAIL
    gone = judge(told(given, place, loss_step=None), scenario=LOGGING, **LOGGED)
    assert gone.reason == f"loss_step is not there, not {known['loss_step']:.6g}, {at}"


HANDED = {"kind": "handed", "hooks": ["fit"], "names": ["loss_*"]}


def test_handed_are_the_values_of_each_name_in_their_order(judge: Judge) -> None:
    given = rows(LOGGING)
    names, values = given[-1].args["logger_names"], given[-1].args["logger_values"]
    assert names == ["loss_epoch", "loss_step", "loss_step", "loss_step", "start"]

    def verdict(given_names: Any, given_values: Any, **check: Any) -> Verdict:
        row = changed(given, len(given) - 1, args={"logger_names": given_names, "logger_values": given_values})
        return judge(row, scenario=LOGGING, **{**HANDED, **check})

    assert verdict(names, values).status is Status.PASS
    assert verdict(names[1:] + names[:1], values[1:] + values[:1]).status is Status.PASS
    assert verdict([*names, "more"], [*values, 1.0]).status is Status.PASS
    steps = [round(value, 6) for value in values[1:4]]
    fails(verdict(names, [values[0], 7.0, *values[2:]]),
          f"in fit, loggers are given {[7.0, *values[2:4]]} as loss_step, not {steps}", seq=len(given) - 1)
    mean = round(values[0], 6)
    fails(verdict(names[1:], values[1:]), f"in fit, loggers are given nothing as loss_epoch, not [{mean}]")
    fails(verdict(["loss_more", *names], [1.0, *values]), "in fit, loggers are given [1.0] as loss_more, not nothing")
    for odd in (7, [None], "loss_step"):
        assert verdict(odd, values).status is Status.FAIL
    assert verdict(names, values, names=["other"]).status is Status.NOT_APPLICABLE
    assert verdict(names, values, names=["other"], absent=True).status is Status.PASS
    assert verdict(None, None).status is Status.NOT_APPLICABLE  # it was not recorded


def test_handed_steps_are_those_of_the_values(judge: Judge) -> None:
    given = rows(LOGGING)
    steps = given[-1].args["logger_steps"]
    assert steps == [2, 0, 1, 2, 2]  # of loss_epoch, of three loss_step, of start

    def verdict(given_steps: Any, **args: Any) -> Verdict:
        row = changed(given, len(given) - 1, args={"logger_steps": given_steps, **args})
        return judge(row, scenario=LOGGING, **HANDED, steps=True)

    assert verdict(steps).status is Status.PASS
    fails(verdict([2, 1, 2, 3, 2]), "in fit, loggers are given loss_step in the steps [1, 2, 3], not [0, 1, 2]")
    fails(verdict([3, *steps[1:]]), "in fit, loggers are given loss_epoch in the steps [3], not [2]")
    fails(verdict([None, *steps[1:]]), "in fit, loggers are given loss_epoch in the steps [None], not [2]")
    few = [name for name in given[-1].args["logger_names"] if name != "loss_epoch"]
    assert verdict(steps[1:], logger_names=few).status is Status.PASS  # that one is missing, others say
    assert verdict([*steps[:-1], 7]).status is Status.PASS  # another name
    assert verdict(None).status is Status.NOT_APPLICABLE  # they were not recorded


@pytest.mark.parametrize("factor, status", [(1 + 9e-6, Status.PASS), (1 + 2e-5, Status.FAIL)])
def test_logged_values_are_as_exact_as_32_bit_floats(judge: Judge, factor: float, status: Status) -> None:
    given = rows(LOGGING)
    place = spans(given, "module.on_train_epoch_end")[0][0]
    mean = dict(zip(given[place].fx["metrics"], given[place].fx["values"]))["loss_epoch"]
    assert judge(told(given, place, loss_epoch=mean * factor), scenario=LOGGING, **LOGGED).status is status


def test_logged_under_other_names_is_not_judged(judge: Judge) -> None:
    given = rows(LOGGING)
    place = spans(given, "module.on_train_epoch_end")[0][0]
    other = told(told(given, place, loss=7.0, start=7.0), place, more=1.0)
    assert judge(other, scenario=LOGGING, **LOGGED).status is Status.PASS
    assert judge(given, scenario=LOGGING, **{**LOGGED, "names": ["nothing"]}).status is Status.NOT_APPLICABLE
    assert judge(rows(), **LOGGED).status is Status.NOT_APPLICABLE


def test_logged_by_a_hook_that_the_trainer_lacks_is_not_expected(judge: Judge, tmp_path: Path) -> None:
    check = {**LOGGED, "names": ["start"]}
    known = [hook for hook in HOOKS if hook != "on_train_start"]
    without = drop(drop(rows(LOGGING), "module.on_train_start"), "callback:0.on_train_start")
    given = [row._replace(fx={**row.fx, "metrics": [], "values": []}) for row in without]
    assert judge(given, scenario=LOGGING, **check).status is Status.FAIL
    assert judge_rows(tmp_path / "t.jsonl", LOGGING, given, check, hooks=known).status is Status.NOT_APPLICABLE


# ---- changes, updates ------------------------------------------------------------------------------------


def test_changes_only_where_they_may(judge: Judge) -> None:
    check = {"kind": "changes", "only_at": ["step", "optimizer_step"]}
    given = rows()
    assert judge(given, **check).status is Status.PASS
    place = spans(given, "module.backward")[0][1]
    later = [
        row._replace(fx={**row.fx, "params": row.fx["params"] + (index >= place)}) for index, row in enumerate(given)
    ]
    fails(judge(later, **check), "the parameters change outside of the optimizer's step", seq=place)
    still = [row._replace(fx={**row.fx, "params": 0}) for row in given]
    assert judge(still, **check).status is Status.NOT_APPLICABLE


def test_updates_where_they_are_due(judge: Judge) -> None:
    check = {"kind": "updates", "hook": "optimizer_step"}
    given = rows()
    assert judge(given, **check).status is Status.PASS
    begin, end = spans(given, "module.optimizer_step")[1]
    verdict = judge(changed(given, end, fx={"params": given[begin].fx["params"]}), **check)
    fails(verdict, "the parameters stay in this optimizer_step", seq=end)
    assert verdict.expected == "parameters that change"


def test_updates_where_none_is_due(judge: Judge) -> None:
    skipping = Scenario("skipping", when=(When("training_step", "return-none", 1),))
    given = rows(skipping)
    end = spans(given, "module.optimizer_step")[1][1]
    verdict = judge(changed(given, end, fx={"params": 2}), scenario=skipping, kind="updates", hook="optimizer_step")
    fails(verdict, "the parameters change in this optimizer_step", seq=end)
    assert verdict.expected == "parameters that stay"


# ---- parts -----------------------------------------------------------------------------------------------

PARTS = Scenario(
    "parts",
    needs=("data-parallel",),
    data=Data(train=2, batch_size=5, last=3),
    trainer={"strategy": "dp", "devices": 2},
)
STEPS_OF_WHOLE = {"kind": "parts", "hooks": ["training_step"], "whole": ["on_train_batch_start"]}


def with_rows(*parts: list[int] | None) -> list[Row]:
    """A trace of PARTS whose training steps get these rows; those of None are left out."""
    given, steps = rows(PARTS), spans(rows(PARTS), "module.training_step")
    for (begin, end), part in reversed(list(zip(steps, parts, strict=True))):
        if part is None:
            del given[begin : end + 1]
        else:
            given = changed(given, begin, args={"rows": part})
    return given


@pytest.mark.parametrize("parts, reason", [
    (([0, 1, 2], [3, 4], [0, 1], [2]), ""),
    (([0], [1, 2, 3, 4], [0, 1, 2], None), ""),  # how many parts is not asked
    (([3, 4], [0, 1, 2], [0, 1], [2]), "row 3 comes where row 0 is due"),
    (([0, 1, 2], [3], [0, 1], [2]), "row 4 is in no part"),
    (([0, 1, 2], [3, 4], [0, 1], None), "row 2 is in no part"),
    (([0, 1, 2], [2, 3, 4], [0, 1], [2]), "row 2 comes where row 3 is due"),
    (([0, 1, 2, 3, 4], [0, 1, 2, 3, 4], [0, 1], [2]), "row 0 comes where no row is due"),
    (([0, 1, 2], [3, 4, 5], [0, 1], [2]), "row 5 comes where no row is due"),
])  # fmt: skip
def test_parts_are_the_whole_batch_in_order(judge: Judge, parts: tuple[Any, ...], reason: str) -> None:
    verdict = judge(with_rows(*parts), scenario=PARTS, **STEPS_OF_WHOLE)
    if reason:
        fails(verdict, reason)
    else:
        assert verdict.status is Status.PASS


def test_parts_that_may_come_again(judge: Judge) -> None:
    again = {**STEPS_OF_WHOLE, "again": True}
    everything = [0, 1, 2, 3, 4]
    twice, worse = with_rows(everything, everything, [0, 1], [2]), with_rows(everything, [1], [0, 1], [2])
    assert judge(twice, scenario=PARTS, **again).status is Status.PASS
    fails(judge(worse, scenario=PARTS, **again), "row 1 comes where row 0 is due")


def test_parts_that_were_not_recorded_are_not_judged(judge: Judge) -> None:
    assert judge(rows(), **STEPS_OF_WHOLE).status is Status.NOT_APPLICABLE


# ---- receivers, balance, sequence ------------------------------------------------------------------------


def test_receivers_in_their_order(judge: Judge) -> None:
    given = rows()
    assert judge(given, kind="receivers").status is Status.PASS
    one, other = spans(given, "callback:0.on_train_start")[0], spans(given, "callback:1.on_train_start")[0]
    verdict = judge(moved(given, other, one[0]), kind="receivers")
    fails(verdict, "on_train_start reaches callback:1 before callback:0", seq=one[0])
    assert verdict.expected == "callback:0.on_train_start"


def test_balance_passes(judge: Judge) -> None:
    assert judge(rows(), kind="balance").status is Status.PASS


def test_balance_of_a_span_that_never_ends(judge: Judge) -> None:
    fails(judge(rows()[:-1], kind="balance"), "trainer.fit never ends", seq=None)


def test_balance_of_an_end_without_a_begin(judge: Judge) -> None:
    lonely = Row("E", "module", "setup", {}, {})
    fails(judge([lonely], kind="balance"), "module.setup ends where nothing is open", seq=0)


def test_balance_of_spans_that_cross(judge: Judge) -> None:
    names = [("B", "fit_a"), ("B", "fit_b"), ("E", "fit_a"), ("E", "fit_b")]
    crossed = [Row(ph, "module", hook, {}, {}) for ph, hook in names]
    fails(judge(crossed, kind="balance"), "module.fit_a ends where module.fit_b (depth 1) is open", seq=2)


def test_balance_of_a_wrong_depth(judge: Judge) -> None:
    given = rows()
    begin, end = spans(given, "module.on_train_start")[0]
    verdict = judge([*given[:begin], given[begin]._replace(depth=4), *given[begin + 1 :]], kind="balance")
    fails(verdict, "depth 4 where 1 spans are open", seq=begin)
    verdict = judge([*given[:end], given[end]._replace(depth=4), *given[end + 1 :]], kind="balance")
    fails(verdict, "module.on_train_start ends where module.on_train_start (depth 1) is open", seq=end)


def test_balance_of_spans_without_end_is_bounded(judge: Judge) -> None:
    endless = [Row("B", "module", "setup", {}, {})] * 3000
    fails(judge(endless, kind="balance"), "more than 1000 spans are open", seq=1000)


def test_an_instant_has_a_depth_and_no_end(judge: Judge) -> None:
    given = rows()
    marked = [*given[:3], Row("I", "trainer", "saved", {}, {}, depth=1), *given[3:]]
    assert given[2].ph == "E"
    assert judge(marked, kind="balance").status is Status.PASS
    marked[3] = marked[3]._replace(depth=2)
    fails(judge(marked, kind="balance"), "depth 2 where 1 spans are open", seq=3)


def test_sequence_passes_and_names_the_first_difference(judge: Judge) -> None:
    given = rows()
    assert judge(given, kind="sequence").status is Status.PASS
    verdict = judge(drop(given, "module.on_train_start"), kind="sequence")
    place = spans(given, "module.on_train_start")[0][0]
    where = "callback:0.on_epoch_start begins where module.on_train_start begins is due"
    fails(verdict, f"{where}; in all: on_train_start missing", seq=place)
    assert verdict.expected == "module.on_train_start begins"
    assert verdict.context[-1] == "   due  module.on_train_start begins"
    assert verdict.context[-2].split()[:3] == [str(place), "callback:0.on_epoch_start", "begins"]
    assert verdict.context[-2].endswith("train_loop: on_epoch_start()")


def test_sequence_of_a_run_that_ends_early_or_late(judge: Judge) -> None:
    given = rows()
    fails(judge(given[:-1], kind="sequence"), "the run ends where trainer.fit ends (status=finished) is due", seq=None)
    verdict = judge([*given, Row("B", "module", "setup", {}, {})], kind="sequence")
    fails(verdict, "module.setup begins where the end of the run is due; in all: setup added", seq=len(given))


# ---- malformed checks ------------------------------------------------------------------------------------


# ---- several processes: tests/test_processes.py has them on real traces ------------------------------------

def seen_by(check: dict[str, Any], *calls: tuple[int, str, str, dict[str, Any]]) -> str:
    """Why a check of all processes fails when these are called: rank, "B" or "E", receiver.hook, samples."""
    judging = build(check)
    for rank in (0, 1):
        for hook in ("on_train_epoch_start", "training_step"):
            given = {"batch": "train/0/0", "samples": [f"0/{rank}"]}
            judging.expect(Expected("B", "module", hook, given, {}, "train_loop", rank))
    for seq, (rank, ph, call, args) in enumerate(calls):
        receiver, hook = call.split(".")
        due = Expected(ph, receiver, hook, {}, {}, "train_loop", rank)
        judging.see(Event(seq, ph, rank, receiver, hook, 0, {"batch": "train/0/0", **args}, {}), due)
    judging.finish(True)
    return judging.failure.reason if judging.failure else ""


def test_shares() -> None:
    check = {"kind": "shares", "hooks": ["training_step"], "start": "on_train_epoch_start"}

    def epoch(*shares: list[str]) -> str:
        starts = [(rank, "B", "module.on_train_epoch_start", {}) for rank in range(len(shares))]
        steps = [(rank, "B", "module.training_step", {"samples": own}) for rank, own in enumerate(shares)]
        return seen_by(check, *starts, *steps)

    assert epoch(["0/0"], ["0/1"]) == epoch(["0/1"], ["0/0"]) == epoch(["0/0", "0/1"], []) == ""
    assert epoch(["0/0"], ["0/2"]) == "no process has sample train/0/0/1"
    assert epoch(["0/0", "0/1"], ["0/1"]) == "sample train/0/0/1 comes 2 times"
    assert epoch(["0/0"]) == "no process has sample train/0/0/1"


def test_anew() -> None:
    check = {"kind": "anew", "hooks": ["training_step"], "start": "on_train_epoch_start"}

    def epochs(*orders: list[str]) -> str:
        start = (0, "B", "module.on_train_epoch_start", {})
        return seen_by(check, *(call for order in orders for call in (
            start, *((0, "B", "module.training_step", {"samples": [sample]}) for sample in order)
        )))  # fmt: skip

    assert epochs(["0/0", "0/1"], ["0/1", "0/0"], ["0/0", "0/1"]) == ""
    told = "training_step gets its samples in the order of the epoch before"
    assert epochs(["0/0", "0/1"], ["0/1", "0/0"], ["0/1", "0/0"]) == told
    assert epochs(["0/0", "0/1"], ["0/0", "0/1"], ["0/1", "0/0"]) == told


def test_anew_within_a_pass() -> None:
    start = "on_train_epoch_start"
    check = {"kind": "anew", "hooks": ["training_step"], "start": start, "within": True}

    def epochs(*orders: list[str]) -> str:
        return seen_by(check, *(call for order in orders for call in (
            (0, "B", f"module.{start}", {}),
            *((0, "B", "module.training_step", {"samples": each.split()}) for each in order),
        )))  # fmt: skip

    one, other = " ".join(f"1/0/{row}" for row in range(8)), " ".join(f"1/0/{row}" for row in range(7, -1, -1))
    assert epochs([f"0/0/0 {one}", f"0/1/0 {other}", f"0/2/0 {one}", f"0/3/0 {one}"]) == ""
    told = "training_step gets its samples in the order of the pass before"
    assert epochs([f"0/0/0 {other}", f"0/1/0 {one}", f"0/2/0 {one}", f"0/3/0 {other}"]) == told
    assert epochs([f"0/0/0 {one}", f"0/1/0 {one}"]) == "", "it is not over yet"
    assert epochs([one], [one], [one]) == "", "in another epoch it may"
    assert epochs(["1/0/0 1/0/1"] * 4) == "", "of two that may be"


def test_again() -> None:
    check, begins = {"kind": "again", "hook": "training_step", "field": "samples"}, (0, "B", "trainer.fit", {})

    def fits(*orders: list[str]) -> str:
        return seen_by(check, *(call for order in orders for call in (begins, *(
            (0, "B", "module.training_step", {"batch_idx": 2 + place, "samples": [sample]})
            for place, sample in enumerate(order)
        ))))  # fmt: skip

    assert fits(["0/0", "0/1"], ["0/0", "0/1", "1/0"]) == ""
    told = "batch 3 of epoch 0 has samples=['1/1'], where it had ['0/1'] before"
    assert fits(["0/0", "0/1"], ["0/0", "1/1"]) == told
    assert fits(["0/0", "0/1"], ["0/0"], ["0/0", "1/1"]) == "", "only the call before is looked at"


def test_again_in_the_next_pass() -> None:
    start = "on_validation_start"
    check = {"kind": "again", "hook": "validation_step", "field": "samples", "start": start}

    def passes(*orders: list[str], between: str = "") -> str:
        return seen_by(check, *(call for order in orders for call in (
            *([(0, "B", f"trainer.{between}", {})] if between else []), (0, "B", f"module.{start}", {}),
            *((0, "B", "module.validation_step", {"batch_idx": 0, "dataloader_idx": place, "samples": [sample]})
              for place, sample in enumerate(order)),
        )))  # fmt: skip

    assert passes(["0/0", "0/1"], ["0/0", "0/1"]) == ""
    told = "batch 0 of epoch 0 has samples=['1/1'], where it had ['0/1'] before"
    assert passes(["0/0", "0/1"], ["0/0", "1/1"]) == told, "of each loader"
    for call in ("fit", "validate"):
        assert passes(["0/0"], ["1/0"], between=call) == "", "of one call of the trainer"


def test_still() -> None:
    check = {"kind": "still", "first": "on_sanity_check_start", "hooks": ["train_dataloader", "on_train_start"],
             "field": "random"}  # fmt: skip

    def sees(*events: tuple[str, float | None]) -> tuple[str, bool]:
        built = build(check)
        for seq, (hook, value) in enumerate(events):
            fx = {} if value is None else {"random": value}
            built.see(Event(seq, "B", 0, *hook.split("."), 0, {}, fx), None)
        return built.failure.reason if built.failure else "", built.exercised

    first, asked, train = "callback:0.on_sanity_check_start", "module.train_dataloader", "module.on_train_start"
    assert sees((first, 0.5), (train, 0.5)) == ("", True)
    told = "random is 0.25 at on_train_start, where it was 0.5 at on_sanity_check_start"
    assert sees((first, 0.5), (train, 0.25)) == (told, True)
    assert sees((first, 0.5), (asked, 0.5), (train, 0.25)) == ("", True), "the first of them"
    assert sees((asked, 0.25), (train, 0.5), (first, 0.25)) == ("", False)
    assert sees((first, 0.5), ("trainer.fit", None), (train, 0.25)) == ("", False)
    assert sees((first, None), (train, 0.25)) == ("", False)


def test_outputs() -> None:
    check = {"kind": "outputs", "step": "training_step", "hooks": ["on_train_batch_end", "training_epoch_end"],
             "batch_end": "on_train_batch_end", "start": "on_train_epoch_start"}  # fmt: skip
    start = (0, "B", "module.on_train_epoch_start", {})

    def step(*values: float, **args: Any) -> tuple[int, str, str, dict[str, Any]]:
        return 0, "E", "module.training_step", {"returned": list(values), **args}

    def gets(hook: str, *values: float) -> tuple[int, str, str, dict[str, Any]]:
        return 0, "B", f"module.{hook}", {"outputs_values": list(values)}

    one, other = (step(1.0), gets("on_train_batch_end", 1.0)), (step(2.0), gets("on_train_batch_end", 2.0))
    assert seen_by(check, start, *one, *other, gets("training_epoch_end", 1.0, 2.0)) == ""
    told = "module.training_epoch_end gets [2.0, 1.0], where [1.0, 2.0] was returned"
    assert seen_by(check, start, *one, *other, gets("training_epoch_end", 2.0, 1.0)) == told
    told = "module.training_epoch_end gets [1.0], where [1.0, 2.0] was returned"
    assert seen_by(check, start, *one, *other, gets("training_epoch_end", 1.0)) == told
    told = "module.on_train_batch_end gets [1.0], where [2.0] was returned"
    assert seen_by(check, start, *one, step(2.0), gets("on_train_batch_end", 1.0)) == told
    assert seen_by(check, start, *one, start, *other, gets("training_epoch_end", 2.0)) == "", "an epoch for itself"
    assert seen_by(check, start, *other, gets("training_epoch_end", 1.0, 2.0)) == "", "those of before it was resumed"
    of_two = step(1.0, optimizer_idx=0), step(2.0, optimizer_idx=1)
    assert seen_by(check, start, *of_two, gets("on_train_batch_end", 1.0, 2.0)) == ""
    again = step(3.0, optimizer_idx=0), gets("on_train_batch_end", 3.0)
    assert seen_by(check, start, of_two[0], *again) == "", "evaluated anew, as L-BFGS does"
    end = (0, "E", "module.training_step_end", {"returned": [4.0]})
    assert seen_by(check, start, *of_two, end, gets("on_train_batch_end", 1.0, 4.0)) == ""
    assert seen_by(check, start, gets("on_train_batch_end", 7.0)) == "", "nothing is told of steps"


def test_state_in_its_functions_and_in_all(judge: Judge) -> None:
    check = {"kind": "state", "fields": ["global_step"], "scopes": ["train_loop"]}
    given = rows()
    assert judge(given, **check).status is Status.PASS
    inside, outside = (spans(given, f"module.{hook}")[0][0] for hook in ("on_train_epoch_end", "on_fit_end"))
    verdict = judge(changed(given, inside, fx={"global_step": 7}), **check)
    fails(verdict, "global_step is 7, not 3, at the begin of module.on_train_epoch_end", seq=inside)
    other = changed(given, outside, fx={"global_step": 7})
    assert judge(other, **check).status is Status.PASS
    verdict = judge(other, kind="state", fields=["global_step"])
    fails(verdict, "global_step is 7, not 6, at the begin of module.on_fit_end", seq=outside)


def test_state_beside_what_is_missing_or_moved_is_not_judged(judge: Judge) -> None:
    check = {"kind": "state", "fields": ["global_step"]}
    given = rows()
    place = spans(given, "module.on_train_epoch_end")[0][0]
    other = changed(given, place, fx={"global_step": 7})
    without = drop(other, "callback:1.on_train_epoch_end")
    assert judge(without, **check).status is Status.PASS
    begin, _ = early = spans(given, "module.on_epoch_end")[0]
    wrong = changed(given, begin + 1, fx={"global_step": 7})
    assert judge(moved(wrong, early, place - 8), **check).status is Status.PASS


def test_state_of_arguments_and_of_what_has_no_value_of_its_own(judge: Judge) -> None:
    given = rows()
    place = spans(given, "module.on_train_batch_end")[1][0]
    check = {"kind": "state", "fields": ["batch", "batch_idx"], "of": "args", "at": "B"}
    wrong = changed(given, place, args={"batch_idx": 5})
    fails(judge(wrong, **check), "batch_idx is 5, not 1, at the begin of module.on_train_batch_end")
    assert judge(changed(given, place + 1, args={"batch_idx": 5}), **check).status is Status.PASS
    there = [row._replace(fx={**row.fx, "device": "cuda:0"}) for row in given]
    check = {"kind": "state", "fields": ["device"], "scopes": ["train_loop"]}
    assert judge(there, **check).status is Status.PASS
    fails(judge(changed(there, place, fx={"device": "cpu"}), **check),
          "device is cpu, not cuda:0, at the begin of module.on_train_batch_end")


def test_repeats(judge: Judge) -> None:
    given = rows()
    _, end = spans(given, "module.on_train_batch_end")[0]
    assert judge(given, kind="repeats").status is Status.PASS
    assert judge(changed(given, end, args={"batch_idx": None}), kind="repeats").status is Status.PASS
    fails(judge(changed(given, end, args={"batch_idx": 9}), kind="repeats"),
          "module.on_train_batch_end ends with batch_idx=9, and began with batch_idx=0", seq=end)


def test_waits() -> None:
    check = {"kind": "waits", "first": "prepare_data", "hooks": ["setup"]}
    fit = [(0, "B", "trainer.fit", {}), (1, "B", "trainer.fit", {})]
    ready = (0, "E", "module.prepare_data", {})
    other = (1, "E", "module.prepare_data", {})
    goes_on = (1, "B", "module.setup", {})
    assert seen_by(check, *fit, ready, goes_on) == ""
    for early in ([*fit, goes_on, ready], [*fit, other, goes_on], [*fit, ready, goes_on, *fit, goes_on]):
        assert seen_by(check, *early) == "process 1 does not wait for prepare_data"


@pytest.mark.parametrize(
    "check, message",
    [
        ({"kind": "cuont", "hooks": []}, "kind 'cuont' is none of count, never, order, encloses"),
        ({}, "kind 'None' is none of count"),
        ({"kind": "count"}, "count: missing 1 required positional argument: 'hooks'"),
        ({"kind": "count", "hooks": ["setup"], "field": "x"}, "count: got an unexpected keyword argument 'field'"),
        ({"kind": "count", "hooks": ["on_train_stat"]}, "'on_train_stat' is no hook; did you mean 'on_train_start'?"),
        ({"kind": "count", "hooks": ["setup"], "given": "when"}, "given='when'; a list of words is accepted"),
        ({"kind": "order", "first": "setup", "then": "on_nothing"}, "'on_nothing' is no hook"),
    ],
)
def test_a_malformed_check_is_refused(check: dict[str, Any], message: str) -> None:
    with pytest.raises(CheckError, match=message):
        build(check)


def test_every_kind_is_used_and_tested_here() -> None:
    assert {clause.kind for clause in load_clauses().values() if not clause.excluded} == set(KINDS)
    assert set(causes.KINDS) == set(KINDS)
    assert all(f"def test_{kind}" in Path(__file__).read_text(encoding="utf-8") for kind in KINDS)
