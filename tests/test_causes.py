"""Which failures follow from which: one mistake is one finding, and it names what is wrong."""

from __future__ import annotations

from pathlib import Path

import pytest
from runs import fail

from conformance.causes import Cause, causes
from conformance.clauses import load_clauses
from conformance.mutants.engine import judge_mutant, mutated
from conformance.mutants.patches import Patch
from conformance.scenario import load_scenarios
from conformance.verdicts import Verdict

CLAUSES = load_clauses()
SCENARIOS = load_scenarios()
START, ORDER, SEQUENCE = "fit.on_fit_start", "fit.on_fit_start-then-setup", "fit.sequence"
BATCH, OUTPUTS, STEP = "train.batch", "train.outputs.batch-end", "train.optimizer_zero_grad"
STATE = "fit.state.params"


def found(*verdicts: Verdict) -> list[tuple[str, str, list[str]]]:
    """Scenario and clause of each cause, and what it explains."""
    return [(c.verdict.scenario, c.clauses[0], c.clauses[1:]) for c in causes(verdicts, CLAUSES, SCENARIOS)]


def test_one_scenario_is_one_cause_named_by_the_narrowest() -> None:
    assert found(fail("fit-basic", SEQUENCE), fail("fit-basic", ORDER), fail("fit-basic", START, seq=None)) == [
        ("fit-basic", START, [SEQUENCE, ORDER])
    ]
    assert found(fail("fit-basic", START), fail("fit-basic", "run.returns")) == [("fit-basic", "run.returns", [START])]


def test_the_simplest_scenario_is_the_example() -> None:
    names = ["pairs-000", "fit-raise-step", "fit-tbptt", "fit-val", "fit-basic"]
    for name in names:
        assert found(*(fail(each, START) for each in names[names.index(name) :]))[0][0] == "fit-basic"
    assert [found(*(fail(each, START) for each in names[:n]))[0][0] for n in (1, 2, 3, 4)] == names[:4]
    assert found(fail("own", START), fail("pairs-000", START)) == [("pairs-000", START, [])]


def test_a_call_that_is_missing_explains_what_fails_only_beside_it() -> None:
    both = fail("fit-basic", STEP), fail("fit-val", STEP), fail("fit-val", BATCH)
    assert found(*both) == [("fit-basic", STEP, [BATCH])]
    assert found(*both, fail("fit-tbptt", BATCH)) == [("fit-basic", STEP, []), ("fit-val", BATCH, [])]


def test_a_call_that_only_tells_explains_nothing_but_what_is_said_of_it() -> None:
    alone = found(fail("fit-basic", START), fail("fit-basic", ORDER), fail("fit-basic", BATCH))
    assert alone == [("fit-basic", START, [ORDER]), ("fit-basic", BATCH, [])]
    assert len(found(fail("fit-basic", START), fail("fit-val", START), fail("fit-val", BATCH))) == 2


def test_what_is_said_of_one_feature_goes_together() -> None:
    one, other = fail("fit-resume", "checkpoint.resume.epoch"), fail("fit-resume-window", "checkpoint.resume.batches")
    assert found(one, other) == [("fit-resume", "checkpoint.resume.epoch", ["checkpoint.resume.batches"])]
    two = fail("fit-accumulate", "accumulation.loss"), fail("fit-accumulate", "accumulation.gradients")
    assert len(found(*two)) == 1 and len(found(two[0], fail("fit-basic", START))) == 2


def test_a_later_scenario_says_more_narrowly_what_a_state_showed() -> None:
    shown = fail("fit-basic", STATE), fail("fit-resume", STATE), fail("fit-resume", "checkpoint.resume.weights")
    assert found(*shown) == [("fit-basic", STATE, ["checkpoint.resume.weights"])]


def test_a_part_of_the_loops_that_is_missing_is_one_cause() -> None:
    called = ["train.on_train_batch_start", "train.on_train_batch_end", "fit.on_train_end", START]
    assert [len(found(*(fail("fit-basic", clause) for clause in called[:n]))) for n in (1, 2, 3, 4)] == [1, 2, 3, 1]


def test_an_argument_explains_no_other() -> None:
    two = found(fail("fit-basic", BATCH), fail("fit-val", BATCH), fail("fit-val", OUTPUTS), fail("fit-val", SEQUENCE))
    assert two == [("fit-basic", BATCH, [SEQUENCE]), ("fit-val", OUTPUTS, [])]


def test_nothing_has_no_cause() -> None:
    assert causes([], CLAUSES, SCENARIOS) == []


PLANTED = {
    "val.on_validation_model_eval": Patch(
        "val_loop", "hooks.on_validation_model_eval()",
        "hooks.on_validation_model_eval(); hooks.on_validation_model_eval()"),
    "fit.on_train_end": Patch("train_on_device", "if hooks.on_train_end: hooks.on_train_end()", "pass"),
    "train.loss": Patch("train_batch", "hooks.on_before_backward(loss)", "hooks.on_before_backward(loss * 2)"),
    "run.returns": Patch(
        "train_batch", "output = detach(output) if optimization.keeps_outputs else None", "output = output[0]"),
    "modes.val.gradients": Patch("val_loop", "torch.set_grad_enabled(False)", "pass"),
    "train.optimizer.step": Patch(
        "LightningModule.optimizer_step", "optimizer.step(closure=optimizer_closure)",
        "optimizer.step(closure=optimizer_closure); optimizer.step()"),
}  # fmt: skip


SEEN = ("fit-basic", "fit-val", "fit-outputs-dict", "fit-accumulate", "fit-raise-step", "test")


@pytest.mark.slow
@pytest.mark.parametrize("clause", PLANTED)
def test_a_planted_mistake_is_one_finding_that_names_it(clause: str, tmp_path: Path) -> None:
    verdicts: list[Verdict] = []
    with mutated([PLANTED[clause]]) as engine:
        for scenario in SCENARIOS:
            if scenario.name in SEEN:
                verdicts += judge_mutant(engine, scenario, CLAUSES, tmp_path / "trace.jsonl")[0]
    told: list[Cause] = causes(verdicts, CLAUSES, SCENARIOS)
    assert [cause.verdict.clause for cause in told] == [clause]
