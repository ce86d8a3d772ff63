"""The clauses: well formed, each reached by a scenario, and a malformed file says what is wrong with it."""

from __future__ import annotations

import fnmatch
import re
import tomllib
from collections import Counter, defaultdict
from collections.abc import Mapping
from pathlib import Path

import pytest
from quick import CHOSEN_FROM, PAGE

from conformance import clauses as module
from conformance.checks import build
from conformance.clauses import Clause, ClauseError, load_clauses
from conformance.features import features
from conformance.mutants.engine import Healthy
from conformance.readings import readings, resting_on
from conformance.scenario import load_scenarios
from conformance.verdicts import Status, Verdict

GOOD = """
[[clause]]
id = "fit.one"
level = "MUST"
sentence = "One."
source = "somewhere"
check = { kind = "count", hooks = ["setup"] }
"""


LINE = "line = [{ hooks = ['setup'] }]" + GOOD


@pytest.fixture(scope="session")
def verdicts(healthy: Healthy) -> list[Verdict]:
    """On `refimpl`, on every scenario."""
    return [verdict for scenario in load_scenarios() for verdict in healthy.judged(scenario, load_clauses())]


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
def test_every_clause_is_exercised_and_kept_by_refimpl(verdicts: list[Verdict]) -> None:
    assert {v.clause: v.reason for v in verdicts if v.status is Status.FAIL} == {}
    grouped = defaultdict(set)
    for verdict in verdicts:
        grouped[verdict.clause].add(verdict.status)
    for clause in load_clauses().values():
        statuses = grouped[clause.id]
        assert (Status.PASS in statuses) != bool(clause.excluded), f"{clause.id}: {statuses or 'never judged'}"


@pytest.mark.slow
def test_every_scenario_is_judged_by_some_clause(verdicts: list[Verdict]) -> None:
    judged = {verdict.scenario for verdict in verdicts if verdict.status is Status.PASS}
    assert judged == {scenario.name for scenario in load_scenarios()}


@pytest.mark.slow
def test_the_quick_scenarios_reach_what_all_of_one_process_that_are_not_drawn_reach(verdicts: list[Verdict]) -> None:
    quick = tomllib.loads(PAGE.read_text(encoding="utf-8"))["scenarios"]
    names = {scenario.name for scenario in CHOSEN_FROM}
    assert set(quick) < names
    passing = [verdict for verdict in verdicts if verdict.status is Status.PASS]
    reached = [{v.clause for v in passing if v.scenario in some} for some in (quick, names)]
    assert reached[1] - reached[0] == set(), "python -m tests.quick"


# ---- short forms -----------------------------------------------------------------------------------------

SHORT = """
words.val = { stage = "validation", per = "pass", loop = "val_loop", source = "S" }
words.test = { stage = "test", per = "test", loop = "test_loop", source = "T" }
line = [
    { hooks = ["on_{stage}_start", "on_epoch_start@fit"], given = ["!when"] },
    { of = ["test"], hooks = ["{stage}_step"], id = "test.step", per = "{per} batch", level = "MAY" },
]
order = [
    { of = ["val"], hooks = ["on_{stage}_start@{loop}", "{stage}_step", "on_{stage}_end"], point = "E" },
    { hooks = ["setup", "teardown"], sentence = "{family}.", source = { val = "V", test = "{source}" } },
]
[[clause]]
id = "{family}.one"
level = "MUST"
sentence = "One."
source = "somewhere"
check = { kind = "count", hooks = ["{stage}_step"] }
"""


def test_a_table_stands_for_several_clauses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clauses = load(tmp_path, monkeypatch, SHORT)
    assert [tuple(vars(clause).values()) for clause in clauses.values()] == [
        ("test.on_test_start", "MUST", "on_test_start is called once per test.", "T",
         {"kind": "count", "hooks": ["on_test_start@test_loop"], "given": ["!when"]}, "", "on_test_start()"),
        ("test.on_epoch_start", "MUST", "on_epoch_start is called once per test.", "T",
         {"kind": "count", "hooks": ["on_epoch_start@fit"], "given": ["!when"]}, "", "on_epoch_start()"),
        ("test.step", "MAY", "test_step is called once per test batch.", "T",
         {"kind": "count", "hooks": ["test_step@test_loop"]}, "", "test_step()"),
        ("test.setup-then-teardown", "MUST", "test.", "T",
         {"kind": "order", "first": "setup", "then": "teardown"}, "", ""),
        ("test.one", "MUST", "One.", "somewhere", {"kind": "count", "hooks": ["test_step"]}, "", ""),
        ("val.on_validation_start", "MUST", "on_validation_start is called once per pass.", "S",
         {"kind": "count", "hooks": ["on_validation_start@val_loop"], "given": ["!when"]}, "", "on_validation_start()"),
        ("val.on_epoch_start", "MUST", "on_epoch_start is called once per pass.", "S",
         {"kind": "count", "hooks": ["on_epoch_start@fit"], "given": ["!when"]}, "", "on_epoch_start()"),
        ("val.on_validation_start-then-validation_step", "MUST", "on_validation_start comes before validation_step.",
         "S", {"kind": "order", "first": "on_validation_start@val_loop", "then": "validation_step", "point": "E"},
         "", ""),
        ("val.validation_step-then-on_validation_end", "MUST", "validation_step comes before on_validation_end.", "S",
         {"kind": "order", "first": "validation_step", "then": "on_validation_end", "point": "E"}, "", ""),
        ("val.setup-then-teardown", "MUST", "val.", "V",
         {"kind": "order", "first": "setup", "then": "teardown"}, "", ""),
        ("val.one", "MUST", "One.", "somewhere", {"kind": "count", "hooks": ["validation_step"]}, "", ""),
    ]  # fmt: skip


# ---- malformed files -------------------------------------------------------------------------------------


def load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> Mapping[str, Clause]:
    (tmp_path / "clauses").mkdir()
    (tmp_path / "clauses" / "fit.toml").write_bytes(text.encode("latin-1"))
    monkeypatch.setattr(module, "SPEC", tmp_path)
    return load_clauses.__wrapped__()


def test_a_good_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert list(load(tmp_path, monkeypatch, GOOD)) == ["fit.one"]


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
        (GOOD.replace("fit.one", "val.one"), "fit.toml: clause 'val.one' is none of the family fit"),
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
        ("line = 5" + GOOD, "fit.toml has no [[line]] tables"),
        ("words = 5" + GOOD, "fit.toml: words is no table of families, of strings each"),
        ("words.fit = 5" + GOOD, "fit.toml: words is no table of families, of strings each"),
        ("words.fit.per = 5" + GOOD, "fit.toml: words is no table of families, of strings each"),
        (GOOD + 'of = ["val"]', "fit.toml: clause 'fit.one' is of ['val']; a list out of fit is accepted"),
        (GOOD + "of = 5", "fit.toml: clause 'fit.one' is of 5; a list out of fit is accepted"),
        (GOOD.replace("One.", "{one}."), "fit.toml: clause 'fit.one' needs the word 'one'; there are family"),
        (GOOD.replace('"One."', '{ val = "One." }'), "fit.toml: clause 'fit.one' needs the word 'fit'; there are val"),
        (LINE, "fit.toml: line ['setup'] needs the word 'loop'; there are family"),
        ('words.fit.loop = "fit"\n' + LINE, "fit.toml: line ['setup'] needs the word 'per'; there are "),
        (LINE.replace(" }", ", point = 5 }"), "fit.toml: line ['setup'] has unknown keys point"),
        (LINE.replace("['setup']", "'setup'"), "fit.toml: line 'setup' has hooks='setup'; a list of names is accepted"),
        (LINE.replace("'setup'", "5"), "fit.toml: line [5] has hooks=[5]; a list of names is accepted"),
    ],
)
def test_a_malformed_file_names_itself_the_clause_and_the_fix(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, message: str
) -> None:
    with pytest.raises(ClauseError) as caught:
        load(tmp_path, monkeypatch, text)
    assert str(caught.value).startswith(message)


# ---- the readings that they rest on ------------------------------------------------------------------------


def test_each_clause_that_is_an_interpretation_names_its_row_and_no_row_names_another() -> None:
    clauses = load_clauses()
    read = [clause for clause in clauses.values() if "(interpretation)" in clause.source and not clause.excluded]
    assert [clause.id for clause in read if not resting_on(clause.id)] == []
    cited = [(row.id, glob) for row in readings().values() for glob in row.clauses]
    assert [(row, glob) for row, glob in cited if not fnmatch.filter(clauses, glob)] == []
