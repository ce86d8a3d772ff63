"""The verdicts as JSON: for other programs, and for comparing two runs.

The document is described by `conformance/spec/verdicts.schema.json`. It holds what was judged, verdict by verdict, and
what the failures come down to; nothing else that is derived: the status of a clause for a trainer is the worst of its
verdicts (`conformance.verdicts.worst`). Every key is always present and the order is that of the judging, so that two
documents can be compared as text. `version` rises when a reader of the old one would stumble; keys may be added without
that.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from conformance.causes import Cause
from conformance.clauses import Clause
from conformance.verdicts import TrainerRun, Verdict

__all__ = ["FORMAT", "VERSION", "to_json"]

FORMAT = "refimpl-verdicts"
VERSION = 1


def to_json(
    runs: Sequence[TrainerRun], clauses: Mapping[str, Clause], profile: str,
    causes: Mapping[str, Sequence[Cause]] | None = None
) -> dict[str, Any]:  # fmt: skip
    """The document, ready for `json.dumps`: what was judged, by which clauses, under which profile, and of each trainer
    the `causes` of what fails, where they are told."""
    return {
        "format": FORMAT,
        "version": VERSION,
        "profile": profile,
        "clauses": [_clause(clause) for clause in clauses.values()],
        "runs": [_run(run, (causes or {}).get(run.trainer, ())) for run in runs],
    }


def _clause(clause: Clause) -> dict[str, str]:
    return {
        "id": clause.id,
        "family": clause.family,
        "level": clause.level,
        "sentence": clause.sentence,
        "source": clause.source,
        "line": clause.line,
        "kind": clause.kind,
        "excluded": clause.excluded,
    }


def _run(run: TrainerRun, causes: Sequence[Cause]) -> dict[str, Any]:
    return {
        "trainer": run.trainer,
        "version": run.version,
        "environment": dict(run.environment),
        "seconds": run.seconds,
        "notes": [
            {"clause": clause_id, "text": note.text, "evidence": note.evidence}
            for clause_id, note in sorted(run.notes.items())
        ],
        "findings": [
            {"scenario": cause.verdict.scenario, "clause": cause.clauses[0], "explains": cause.clauses[1:]}
            for cause in causes
        ],
        "verdicts": [_verdict(verdict) for verdict in run.verdicts],
    }


def _verdict(verdict: Verdict) -> dict[str, Any]:
    return {
        "scenario": verdict.scenario,
        "clause": verdict.clause,
        "status": verdict.status.value,
        "reason": verdict.reason,
        "seq": verdict.seq,
        "expected": verdict.expected,
        "seen": verdict.seen,
        "context": list(verdict.context),
        "beyond": verdict.beyond,
    }
