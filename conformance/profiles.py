"""Profiles: which reading of the contract a trainer is held against.

`doc-2021-08` is the documentation. `lightning-1.5` and `lightning-2` describe what those releases do
instead, as data: `spec/profiles/<name>.toml` lists each departure with its evidence. Under the
documentation's profile a departure is a finding, and its note explains it; under the release's own
profile it is what is expected, and its absence is a regression.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path

from .clauses import SPEC, ClauseError, load_clauses, read_tables
from .near import did_you_mean
from .verdicts import Note, Status, TrainerRun, Verdict

__all__ = ["DOCUMENTATION", "PROFILES", "departures", "hold_against", "profile_of", "read_departures", "stale"]

DOCUMENTATION = "doc-2021-08"
PROFILES = (DOCUMENTATION, "lightning-1.5", "lightning-2")


def profile_of(trainer: str) -> str:
    """The profile that describes a trainer; the documentation's for one that has none of its own."""
    if trainer.startswith("lightning@1.5."):
        return "lightning-1.5"
    return "lightning-2" if trainer.startswith("lightning@2.") else DOCUMENTATION


@cache
def departures(profile: str) -> Mapping[str, Note]:
    """The known departures of a profile, by clause. Raises ClauseError for an unknown profile or clause."""
    if profile == DOCUMENTATION:
        return {}
    if profile not in PROFILES:
        known = ", ".join(PROFILES)
        raise ClauseError(f"no profile {profile!r}; there are {known}{did_you_mean(profile, PROFILES)}")
    return read_departures(SPEC / "profiles" / f"{profile}.toml")


def read_departures(path: Path) -> Mapping[str, Note]:
    """Known departures out of a file, by clause: tables `[[departure]]` with `clauses`, `note` and `evidence`. Raises
    ClauseError naming the file and the departure for a malformed one, an unknown clause, and one that comes twice."""
    notes: dict[str, Note] = {}
    for number, row in enumerate(read_tables(path, "departure"), 1):
        if missing := {"clauses", "note", "evidence"} - row.keys():
            raise ClauseError(f"{path.name}: departure {number} lacks {', '.join(sorted(missing))}")
        for clause in row["clauses"]:
            if clause not in load_clauses():
                raise ClauseError(f"{path.name}: no clause {clause!r}{did_you_mean(clause, load_clauses())}")
            if clause in notes:
                raise ClauseError(f"{path.name}: clause {clause!r} is explained twice")
            notes[clause] = Note(clause, row["note"], row["evidence"], row.get("torch", ""))
    return notes


def hold_against(profile: str, verdicts: Sequence[Verdict]) -> list[Verdict]:
    """The verdicts under a profile: a departure that it describes is a pass there."""
    known = departures(profile)
    return [
        replace(v, status=Status.PASS, reason=f"as {profile} describes: {v.reason}")
        if v.status is Status.FAIL and v.clause in known
        else v
        for v in verdicts
    ]


def stale(run: TrainerRun) -> list[str]:
    """Departures on record that no longer occur, though their clauses were judged."""
    failing = {v.clause for v in run.verdicts if v.status is Status.FAIL}
    judged = {v.clause for v in run.verdicts if v.status is Status.PASS}
    torch = run.environment.get("torch", "")
    return [
        clause
        for clause, note in run.notes.items()
        if clause in judged and clause not in failing and torch.startswith(note.torch)
    ]
