"""Profiles: departures on record, what they excuse, and those that no longer occur."""

from __future__ import annotations

from pathlib import Path

import pytest

from conformance import profiles as module
from conformance.clauses import ClauseError, load_clauses
from conformance.profiles import DOCUMENTATION, PROFILES, departures, hold_against, profile_of, stale
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
        "lightning@1.5.10": "lightning-1.5",
        "lightning@2.6.6": "lightning-2",
    }
    assert profile_of("refimpl") == profile_of("anything@2.0") == DOCUMENTATION


def test_under_a_profile_its_departures_are_passes_and_nothing_else_is() -> None:
    other = "train.backward"
    given = [verdict(Status.FAIL), verdict(Status.FAIL, other), verdict(Status.PASS), verdict(Status.ERROR)]
    held = hold_against("lightning-2", given)
    assert [v.status for v in held] == [Status.PASS, Status.FAIL, Status.PASS, Status.ERROR]
    assert held[0].reason == "as lightning-2 describes: the reason"
    assert hold_against(DOCUMENTATION, given) == given


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
    (tmp_path / "profiles").mkdir()
    (tmp_path / "profiles" / "lightning-2.toml").write_text(text, encoding="utf-8")
    monkeypatch.setattr(module, "SPEC", tmp_path)
    return departures.__wrapped__("lightning-2")


def test_a_good_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = DEPARTURE + 'torch = "1."'
    assert load(tmp_path, monkeypatch, text) == {CLAUSE: Note(CLAUSE, "It is so.", "Measured.", "1.")}


@pytest.mark.parametrize(
    "text, message",
    [
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
