"""What the checker says: a verdict for each clause of each scenario of each trainer.

The statuses are those of the design: `fail` carries the reason and the first diverging event;
`not-applicable` means that the scenario does not reach the clause; `unsupported`, that the adapter
declared the trainer to lack what the clause is about; `error`, that the harness itself broke.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

__all__ = ["Note", "Status", "TrainerRun", "Verdict", "worst"]


class Status(StrEnum):
    """The five outcomes, from the one that matters least to the one that matters most."""

    NOT_APPLICABLE = "not-applicable"
    UNSUPPORTED = "unsupported"
    PASS = "pass"
    FAIL = "fail"
    ERROR = "error"


@dataclass(frozen=True)
class Verdict:
    """One clause, judged on one trace.

    `seq` is the sequence number of the first diverging event in the trace (None when the run ended
    before it, or when nothing diverged), `expected` and `seen` name it in words, and `context` holds
    printable lines around it, each with the line of the pseudocode it belongs to. `beyond` names the
    trainer's own profile where that does not have the failure either.
    """

    scenario: str
    clause: str
    status: Status
    reason: str = ""
    seq: int | None = None
    expected: str = ""
    seen: str = ""
    context: tuple[str, ...] = ()
    beyond: str = ""


@dataclass(frozen=True)
class Note:
    """Why a trainer departs from a clause, and the evidence: a row of a profile.

    `torch` is the prefix of the versions of torch with which it does; empty for all.
    """

    clause: str
    text: str
    evidence: str
    torch: str = ""


@dataclass(frozen=True)
class TrainerRun:
    """Everything one trainer was judged on in one invocation.

    `trainer` is the name typed on the command line (`refimpl`, `lightning@1.5.10`), `version` what
    the trainer said of itself, `environment` the header's (python, torch, platform), `seconds` the
    wall time of producing and judging, `notes` the known departures by clause id.
    """

    trainer: str
    version: str
    environment: Mapping[str, str]
    verdicts: tuple[Verdict, ...]
    seconds: float
    notes: Mapping[str, Note] = field(default_factory=dict)

    def note_on(self, verdict: Verdict) -> Note | None:
        """What is on record of a failure, if this is what is."""
        return self.notes.get(verdict.clause) if verdict.status is Status.FAIL and not verdict.beyond else None

    def by_clause(self) -> dict[str, list[Verdict]]:
        """Verdicts grouped by clause id, in the order judged."""
        grouped: dict[str, list[Verdict]] = {}
        for verdict in self.verdicts:
            grouped.setdefault(verdict.clause, []).append(verdict)
        return grouped


def worst(verdicts: Iterable[Verdict]) -> Status:
    """The cell of a matrix: the status that matters most among a clause's verdicts."""
    order = list(Status)
    return max((v.status for v in verdicts), key=order.index, default=Status.NOT_APPLICABLE)
