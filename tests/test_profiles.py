"""Profiles: departures on record, what they excuse, and those that no longer occur."""

from __future__ import annotations

from pathlib import Path

import pytest
from traces import conforming, write

from conformance import profiles as module
from conformance.checker import judge_file
from conformance.clauses import ClauseError, load_clauses
from conformance.profiles import DOCUMENTATION, PROFILES, departures, in_words_of, notes_of, profile_of, stale
from conformance.runner import marked
from conformance.scenario import load_scenarios
from conformance.verdicts import Note, Status, TrainerRun, Verdict
from conformance.worlds import RELEASES

CLAUSE = "fit.on_fit_start-then-setup"
DEPARTURE = f"""
[[departure]]
clauses = ["{CLAUSE}"]
note = "It is so."
evidence = "Measured."
"""


def verdict(status: Status, clause: str = CLAUSE) -> Verdict:
    return Verdict("fit-basic", clause, status, "the reason" if status is Status.FAIL else "")


@pytest.mark.parametrize("profile", PROFILES[1:])
def test_every_departure_has_a_note_and_its_evidence(profile: str) -> None:
    notes = departures(profile)
    assert len(notes) >= 25
    for clause, note in notes.items():
        assert load_clauses()[clause].id == note.clause == clause
        assert not load_clauses()[clause].excluded, f"{clause} is never judged"
        assert note.text.endswith(".") and note.evidence.startswith("Measured on "), clause


def test_the_documentation_departs_from_nothing() -> None:
    assert departures(DOCUMENTATION) == {}


def test_each_release_has_a_profile() -> None:
    assert {name: profile_of(name) for name in RELEASES} == {
        "lightning@1.4.9": "lightning-1.4",
        "lightning@1.5.10": "lightning-1.5",
        "lightning@1.9.5": "lightning-1.9",
        "lightning@2.6.6": "lightning-2",
    }
    assert profile_of("refimpl") == profile_of("anything@2.0") == profile_of("lightning@1.50.1") == DOCUMENTATION


def test_of_the_documentations_contract_alone_departures_are_on_record() -> None:
    assert notes_of("lightning@2.6.6", DOCUMENTATION) == departures("lightning-2") != {}
    assert notes_of("lightning@2.6.6", "lightning-2") == notes_of("refimpl", "lightning-2") == {}


@pytest.mark.parametrize("contract", PROFILES)
def test_a_run_of_a_contract_keeps_it_and_no_other(contract: str, tmp_path: Path) -> None:
    """What each says, as a trace: of features that the releases have, and meet."""
    names = ("fit-basic", "fit-val", "fit-accumulate-none", "fit-raise-validation", "fit-then-test", "fit-resume-turns")
    failing = {other: 0 for other in PROFILES}
    for scenario in (scenario for scenario in load_scenarios() if scenario.name in names):
        rows = conforming(scenario, contract)
        file = write(tmp_path / "t.jsonl", scenario, rows)
        for other in PROFILES:
            failing[other] += sum(v.status is Status.FAIL for v in judge_file(file, load_clauses(), other))
    assert [other for other in PROFILES if not failing[other]] == [contract]


def test_no_note_explains_what_the_releases_own_contract_does_not_have(tmp_path: Path) -> None:
    """A trace of 1.4's order, said to be of 2.6.6: of what is on record there, some is so, and some is not."""
    [scenario] = [scenario for scenario in load_scenarios() if scenario.name == "fit-val"]
    own, other = (write(tmp_path / f"{of}.jsonl", scenario, conforming(scenario, of))
                  for of in ("lightning-2", "lightning-1.4"))  # fmt: skip
    clauses = load_clauses()
    assert {v.beyond for v in marked(own, judge_file(own, clauses), clauses, "lightning@2.6.6")} == {""}
    verdicts = marked(other, judge_file(other, clauses), clauses, "lightning@2.6.6")
    failing = {v.clause: v.beyond for v in verdicts if v.status is Status.FAIL}
    assert failing["fit.on_fit_start-then-setup"] == ""
    assert failing["fit.state.current_epoch"] == "lightning-2"
    run = TrainerRun("lightning@2.6.6", "2.6.6", {}, tuple(verdicts), 0.0, departures("lightning-2"))
    assert {v.clause for v in verdicts if run.note_on(v)} == {c for c, beyond in failing.items() if not beyond
                                                              and c in run.notes}  # fmt: skip


def test_a_scenario_that_a_contract_leaves_open_is_not_judged(tmp_path: Path) -> None:
    [scenario] = [scenario for scenario in load_scenarios() if scenario.name == "ddp-stop-alone"]
    file = write(tmp_path / "t.jsonl", scenario, conforming(scenario))
    verdicts = judge_file(file, load_clauses(), "lightning-2")
    assert {v.status for v in verdicts} == {Status.NOT_APPLICABLE}
    assert {v.reason for v in verdicts} == {
        "lightning-2 leaves open what happens where one process alone is asked to stop"
    }


@pytest.mark.parametrize(
    "statuses, torch, gone",
    [
        ([Status.PASS], "2.13", [CLAUSE]),
        ([Status.PASS, Status.FAIL], "2.13", []),  # it still occurs in another scenario
        ([Status.NOT_APPLICABLE], "2.13", []),
        ([Status.PASS], "1.10.2", []),  # on record for another torch
        ([], "2.13", []),
    ],
)
def test_stale_departures(statuses: list[Status], torch: str, gone: list[str]) -> None:
    notes = {CLAUSE: Note(CLAUSE, "It is so.", "Measured.", torch="2.")}
    run = TrainerRun("x", "1", {"torch": torch}, tuple(verdict(status) for status in statuses), 0.0, notes)
    assert stale(run) == gone


# ---- malformed files -------------------------------------------------------------------------------------


def load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> object:
    for profile in PROFILES:
        departures(profile)  # the others are known already
    (tmp_path / "profiles").mkdir()
    (tmp_path / "profiles" / "lightning-2.toml").write_text(text, encoding="utf-8")
    monkeypatch.setattr(module, "SPEC", tmp_path)
    return departures.__wrapped__("lightning-2")


def test_a_good_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = DEPARTURE + 'torch = "1."'
    assert load(tmp_path, monkeypatch, text) == {CLAUSE: Note(CLAUSE, "It is so.", "Measured.", "1.")}


def test_a_departure_that_another_profile_has_word_for_word(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = f'[[departure]]\nclauses = ["{CLAUSE}"]\nas = "lightning-1.5"\nmeasured = "9.9"\n'
    other = departures("lightning-1.5")[CLAUSE]
    assert load(tmp_path, monkeypatch, text) == {
        CLAUSE: Note(CLAUSE, other.text, "Measured on 9.9: " + other.evidence.partition(": ")[2])
    }


@pytest.mark.parametrize(
    "text, message",
    [
        (f'[[departure]]\nclauses = ["{CLAUSE}"]\nas = "lightning-1.5"',
         "lightning-2.toml: departure 1 lacks measured"),
        ('[[departure]]\nclauses = ["skip.none.no-update"]\nas = "lightning-1.9"\nmeasured = "9.9"',
         "lightning-2.toml: lightning-1.9 does not explain 'skip.none.no-update'"),
        ('[[departure]]\nclauses = []\nas = "lightning-1"', "no profile 'lightning-1'; there are doc-2021-08, "),
        (DEPARTURE.replace("fit_start", "fit_strat"),
         f"lightning-2.toml: no clause 'fit.on_fit_strat-then-setup'; did you mean '{CLAUSE}'?"),
        (DEPARTURE * 2, f"lightning-2.toml: clause '{CLAUSE}' is explained twice"),
        (DEPARTURE.replace('evidence = "Measured."', ""), "lightning-2.toml: departure 1 lacks evidence"),
        ("[[departure]]", "lightning-2.toml: departure 1 lacks clauses, evidence, note"),
        ("x = 1", "lightning-2.toml has no [[departure]] tables"),
        ("x = ", "lightning-2.toml: Invalid value"),
    ],
)  # fmt: skip
def test_a_malformed_file_names_itself_and_the_fix(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, message: str
) -> None:
    with pytest.raises(ClauseError) as caught:
        load(tmp_path, monkeypatch, text)
    assert str(caught.value).startswith(message)


def test_an_unknown_profile() -> None:
    with pytest.raises(ClauseError, match=r"no profile 'lightning-1'; there are doc-2021-08, .*did you mean"):
        departures("lightning-1")


def test_under_a_releases_profile_a_clause_says_what_is_due_instead() -> None:
    told = in_words_of("lightning-2", load_clauses())
    instead = departures("lightning-2")["ddp.samples"].text
    assert told["ddp.samples"].sentence == f"{load_clauses()['ddp.samples'].sentence} lightning-2 departs: {instead}"
    assert told["fit.setup"] is load_clauses()["fit.setup"]
    assert in_words_of(DOCUMENTATION, load_clauses()) == load_clauses()
