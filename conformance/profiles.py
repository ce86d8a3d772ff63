"""Profiles: which contract a trainer is held against, and how those of the releases depart from the documentation's.

`doc-2021-08` is the documentation. `lightning-1.4`, `-1.5`, `-1.9` and `-2` are what those releases do: as
pseudocode of their own (`spec/lightning*.py`), against which a trainer can be judged as against the documentation,
and in words, `spec/profiles/<name>.toml`, each departure with its evidence. Under the documentation's profile a
departure is a finding, and its note explains it; under the release's own it is what is due.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path

from .clauses import SPEC, Clause, ClauseError, load_clauses, read_tables
from .near import did_you_mean
from .spec.contracts import CONTRACTS, DOCUMENTATION
from .verdicts import Note, Status, TrainerRun

__all__ = [
    "DOCUMENTATION", "PROFILES", "departures", "in_words_of", "notes_of", "profile_of", "read_departures", "stale"
]  # fmt: skip

PROFILES = tuple(CONTRACTS)


def profile_of(trainer: str) -> str:
    """The profile that describes a trainer; the documentation's for one that has none of its own."""
    name, _, version = trainer.partition("@")
    fits = (of for of in PROFILES if name == "lightning" and f"{version}.".startswith(of.partition("-")[2] + "."))
    return next(fits, DOCUMENTATION)


def notes_of(trainer: str, contract: str) -> Mapping[str, Note]:
    """What explains a trainer's failures: of the documentation's contract the departures on record, of another none."""
    return departures(profile_of(trainer)) if contract == DOCUMENTATION else {}


def in_words_of(profile: str, clauses: Mapping[str, Clause]) -> dict[str, Clause]:
    """The clauses, each with what the profile has instead, where it departs, behind the documentation's sentence."""
    notes = departures(profile)
    return {
        name: replace(clause, sentence=f"{clause.sentence} {profile} departs: {notes[name].text}")
        if name in notes else clause
        for name, clause in clauses.items()
    }  # fmt: skip


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
    """Known departures out of a file, by clause: tables `[[departure]]` with `clauses`, `note` and `evidence`, or with
    `clauses`, `as` and `measured`, of those that another profile has word for word: what was seen there was seen again,
    on what is `measured`. Raises ClauseError naming the file and the departure for a malformed one, an unknown clause,
    and one that comes twice."""
    notes: dict[str, Note] = {}
    for number, row in enumerate(read_tables(path, "departure"), 1):
        others = departures(row["as"]) if "as" in row else {}
        if missing := ({"clauses", "measured"} if "as" in row else {"clauses", "note", "evidence"}) - row.keys():
            raise ClauseError(f"{path.name}: departure {number} lacks {', '.join(sorted(missing))}")
        for clause in row["clauses"]:
            if clause not in load_clauses():
                raise ClauseError(f"{path.name}: no clause {clause!r}{did_you_mean(clause, load_clauses())}")
            if clause in notes:
                raise ClauseError(f"{path.name}: clause {clause!r} is explained twice")
            if "as" not in row:
                notes[clause] = Note(clause, row["note"], row["evidence"], row.get("torch", ""))
            elif clause in others:
                seen = others[clause].evidence.partition(": ")[2]
                notes[clause] = replace(others[clause], evidence=f"Measured on {row['measured']}: {seen}")
            else:
                raise ClauseError(f"{path.name}: {row['as']} does not explain {clause!r}")
    return notes


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
