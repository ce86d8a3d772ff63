"""The verdicts as JUnit XML, which every CI system reads.

A test suite for each trainer, a test case for each clause and scenario. A clause that the scenario does
not reach is no test case at all; one that the trainer declares unsupported is skipped, with the reason.
A known departure stays a failure, marked as known: whether to tolerate it is for the baseline to say.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from xml.etree import ElementTree as ET

from conformance.clauses import Clause
from conformance.report.cells import printable
from conformance.verdicts import Note, Status, TrainerRun, Verdict

__all__ = ["to_junit"]

_COUNTS = {"failures": Status.FAIL, "errors": Status.ERROR, "skipped": Status.UNSUPPORTED}
_TAGS = {Status.FAIL: "failure", Status.ERROR: "error", Status.UNSUPPORTED: "skipped"}


def to_junit(runs: Sequence[TrainerRun], clauses: Mapping[str, Clause], profile: str) -> str:
    """The document as text, to be written as UTF-8."""
    root = ET.Element("testsuites", name=printable(f"conformance to {profile}"))
    for run in runs:
        root.append(_suite(run, clauses, profile))
    for key in ("tests", *_COUNTS):
        root.set(key, str(sum(int(suite.attrib[key]) for suite in root)))
    root.set("time", f"{sum(run.seconds for run in runs):.3f}")
    ET.indent(root)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ET.tostring(root, encoding="unicode") + "\n"


def _suite(run: TrainerRun, clauses: Mapping[str, Clause], profile: str) -> ET.Element:
    suite = ET.Element("testsuite", name=printable(run.trainer), time=f"{run.seconds:.3f}")
    properties = ET.SubElement(suite, "properties")
    for name, value in {"profile": profile, "version": run.version, **run.environment}.items():
        ET.SubElement(properties, "property", name=printable(name), value=printable(value))
    judged = [v for v in run.verdicts if v.status is not Status.NOT_APPLICABLE]
    suite.extend(_case(run, verdict, clauses.get(verdict.clause)) for verdict in judged)
    suite.set("tests", str(len(judged)))
    for key, status in _COUNTS.items():
        suite.set(key, str(sum(v.status is status for v in judged)))
    return suite


def _case(run: TrainerRun, verdict: Verdict, clause: Clause | None) -> ET.Element:
    family = verdict.clause.split(".", 1)[0]
    case = ET.Element(
        "testcase",
        classname=printable(f"{run.trainer}.{family}"),
        name=printable(f"{verdict.clause} [{verdict.scenario}]"),
    )
    if verdict.status is Status.PASS:
        return case
    note = run.note_on(verdict)
    message = verdict.reason or "no reason given"
    outcome = ET.SubElement(case, _TAGS[verdict.status])
    outcome.set("message", printable(f"known departure: {message}" if note else message))
    if verdict.status is not Status.UNSUPPORTED:
        outcome.set("type", clause.level if clause else "unknown clause")
        outcome.text = printable("\n".join(_lines(verdict, clause, note)))
    return case


def _lines(verdict: Verdict, clause: Clause | None, note: Note | None) -> Iterator[str]:
    """What a reader of the CI log gets to see."""
    if clause:
        yield f"{clause.id} ({clause.level}): {clause.sentence}"
        yield f"source: {clause.source}"
    yield f"reason: {verdict.reason or 'none given'}"
    if verdict.expected:
        yield f"expected: {verdict.expected}"
    if verdict.seen:
        yield f"seen: {verdict.seen}"
    if verdict.beyond:
        yield f"not on record: {verdict.beyond} does not have it either"
    if verdict.seq is not None:
        yield f"first diverging event: {verdict.seq}"
    if note:
        yield f"known departure: {note.text}"
        yield f"evidence: {note.evidence}"
    if verdict.context:
        yield ""
        yield from verdict.context
