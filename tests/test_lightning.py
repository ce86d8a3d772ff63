"""The real releases, judged: they show their departures and nothing else. Skipped where not prepared."""

from __future__ import annotations

from pathlib import Path

import pytest

from conformance.clauses import load_clauses
from conformance.profiles import hold_against, profile_of, stale
from conformance.runner import run_trainer
from conformance.scenario import load_scenarios
from conformance.verdicts import Status, TrainerRun
from conformance.worlds import RELEASES, ReleaseMissing, locate

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module", params=list(RELEASES))
def judged(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> TrainerRun:
    try:
        locate(request.param)
    except ReleaseMissing as missing:
        pytest.skip(str(missing))
    directory: Path = tmp_path_factory.mktemp("traces")
    return run_trainer(request.param, load_scenarios(), load_clauses(), directory)


def test_no_harness_error(judged: TrainerRun) -> None:
    assert [v for v in judged.verdicts if v.status is Status.ERROR] == []


def test_every_departure_has_a_note(judged: TrainerRun) -> None:
    failing = {v.clause: v.reason for v in judged.verdicts if v.status is Status.FAIL}
    assert {clause: reason for clause, reason in failing.items() if clause not in judged.notes} == {}


def test_no_note_is_stale(judged: TrainerRun) -> None:
    assert stale(judged) == []


def test_the_releases_own_profile_holds(judged: TrainerRun) -> None:
    held = hold_against(profile_of(judged.trainer), judged.verdicts)
    assert [v for v in held if v.status is Status.FAIL] == []


def test_the_departures_that_are_known_for_sure(judged: TrainerRun) -> None:
    failing = {v.clause for v in judged.verdicts if v.status is Status.FAIL}
    assert {
        "fit.on_fit_start-then-setup",
        "fit.on_fit_start-then-configure_optimizers",
        "train.on_train_batch_start-then-on_before_batch_transfer",
        "val.on_validation_batch_start-then-on_before_batch_transfer",
    } <= failing


@pytest.mark.parametrize("clause", ["train.precision", "train.precision-backward"])
def test_on_before_optimizer_step_is_in_order_at_either_precision(judged: TrainerRun, clause: str) -> None:
    statuses = {v.status for v in judged.verdicts if v.clause == clause}
    assert Status.PASS in statuses
    assert Status.FAIL not in statuses
