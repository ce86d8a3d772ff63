"""The clauses: well formed, each reached by a scenario, and a malformed file says what is wrong with it."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import pytest

from conformance import clauses as module
from conformance.checks import build
from conformance.clauses import ClauseError, load_clauses
from conformance.features import features
from conformance.runner import run_trainer
from conformance.scenario import load_scenarios
from conformance.verdicts import Status, TrainerRun

GOOD = """
[[clause]]
id = "fit.one"
level = "MUST"
sentence = "One."
source = "somewhere"
check = { kind = "count", hooks = ["setup"] }
"""


@pytest.fixture(scope="module")
def refimpl(tmp_path_factory: pytest.TempPathFactory) -> TrainerRun:
    return run_trainer("refimpl", load_scenarios(), load_clauses(), tmp_path_factory.mktemp("traces"))


def test_the_registry() -> None:
    clauses = load_clauses()
    assert len(clauses) >= 350
    for clause_id, clause in clauses.items():
        assert clause.id == clause_id
        assert re.fullmatch(r"[a-z]+(\.[A-Za-z0-9_-]+)+", clause_id), clause_id
        assert clause.family == clause_id.split(".")[0]
        assert clause.sentence.endswith(".") and clause.source
        assert clause.level in module.LEVELS
        assert bool(clause.kind) != bool(clause.excluded)
    assert list(clauses) == sorted(clauses, key=lambda clause_id: clause_id.split(".")[0])


def test_ids_are_names_and_not_numbers() -> None:
    assert not [clause_id for clause_id in load_clauses() if re.search(r"\.\d+(\.|$)|line-?\d|section-?\d", clause_id)]


def test_every_sentence_is_said_once() -> None:
    said = Counter((clause.sentence, clause.level) for clause in load_clauses().values())
    assert [sentence for (sentence, _), times in said.items() if times > 1] == []


def test_every_check_builds_anew() -> None:
    for clause in load_clauses().values():
        if clause.check:
            assert build(clause.check) is not build(clause.check)


def test_every_word_of_given_is_some_scenarios() -> None:
    known = {word for scenario in load_scenarios() for word in features(scenario)}
    for clause in load_clauses().values():
        for word in clause.check.get("given", ()):
            assert word.removeprefix("!") in known, f"{clause.id}: no scenario has {word!r}"


@pytest.mark.slow
def test_every_clause_is_exercised_and_kept_by_refimpl(refimpl: TrainerRun) -> None:
    grouped = refimpl.by_clause()
    failing = {v.clause: v.reason for v in refimpl.verdicts if v.status in (Status.FAIL, Status.ERROR)}
    assert failing == {}
    for clause in load_clauses().values():
        statuses = {verdict.status for verdict in grouped.get(clause.id, ())}
        assert (Status.PASS in statuses) != bool(clause.excluded), f"{clause.id}: {statuses or 'never judged'}"


@pytest.mark.slow
def test_every_scenario_is_judged_by_some_clause(refimpl: TrainerRun) -> None:
    judged = {verdict.scenario for verdict in refimpl.verdicts if verdict.status is Status.PASS}
    assert judged == {scenario.name for scenario in load_scenarios()}


# ---- malformed files -------------------------------------------------------------------------------------


def load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, name: str = "fit.toml") -> object:
    (tmp_path / "clauses").mkdir()
    (tmp_path / "clauses" / name).write_bytes(text.encode("latin-1"))
    monkeypatch.setattr(module, "SPEC", tmp_path)
    return load_clauses.__wrapped__()


def test_a_good_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert list(load(tmp_path, monkeypatch, GOOD)) == ["fit.one"]  # type: ignore[call-overload]


@pytest.mark.parametrize(
    "text, message",
    [
        (GOOD.replace('level = "MUST"\n', ""), "fit.toml: clause 'fit.one' lacks level"),
        (GOOD.replace('id = "fit.one"\n', ""), "fit.toml: clause '?' lacks id"),
        (GOOD.replace("level", "colour"), "fit.toml: clause 'fit.one' lacks level"),
        (GOOD + 'colour = "red"', "fit.toml: clause 'fit.one' has unknown keys colour"),
        (GOOD.replace("MUST", "MUSS"), "fit.toml: clause 'fit.one': level 'MUSS' is none of MUST, SHOULD, MAY"),
        (GOOD + 'excluded = "no"', "fit.toml: clause 'fit.one' needs either a check or the reason why"),
        (
            GOOD.replace('{ kind = "count", hooks = ["setup"] }', "{}"),
            "fit.toml: clause 'fit.one' needs either a check",
        ),
        (GOOD.replace("fit.one", "val.one"), "fit.toml: clause 'val.one' belongs into val.toml: one file per family"),
        (GOOD.replace("fit.one", "fit.one two"), "fit.toml: clause 'fit.one two': an id is fit.some-slug"),
        (GOOD.replace('"fit.one"', "5"), "fit.toml: clause 5: an id is fit.some-slug"),
        (GOOD + GOOD, "fit.toml: clause 'fit.one' is defined twice"),
        (GOOD.replace("count", "cuont"), "fit.toml: clause 'fit.one': check: kind 'cuont' is none of count, never"),
        (
            GOOD.replace("setup", "stup"),
            "fit.toml: clause 'fit.one': check: 'stup' is no hook; did you mean 'setup'?",
        ),
        (
            GOOD.replace("hooks =", "hoks ="),
            "fit.toml: clause 'fit.one': check: count: got an unexpected keyword argument 'hoks'",
        ),
        (
            GOOD.replace(" }", ", given = 5 }"),
            "fit.toml: clause 'fit.one': check: given=5; a list of words is accepted",
        ),
        ("[[clause]", "fit.toml: "),
        ("\xff", "fit.toml: "),
        ("", "fit.toml has no [[clause]] tables"),
        ("clause = 5", "fit.toml has no [[clause]] tables"),
        ("clause = [5]", "fit.toml has no [[clause]] tables"),
    ],
)
def test_a_malformed_file_names_itself_the_clause_and_the_fix(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, message: str
) -> None:
    with pytest.raises(ClauseError) as caught:
        load(tmp_path, monkeypatch, text)
    assert str(caught.value).startswith(message)
