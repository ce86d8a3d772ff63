"""The verdicts as JUnit XML."""

from __future__ import annotations

from xml.etree import ElementTree as ET

from hypothesis import given
from hypothesis import strategies as st
from runs import (
    CLAUSES,
    CONTEXT,
    NOTE,
    PROFILE,
    every_status,
    fail,
    faultless,
    is_clean,
    trainer,
)

from conformance.report import to_junit
from conformance.report.cells import printable


def cases(suite: ET.Element) -> dict[str, ET.Element]:
    return {case.attrib["name"]: case for case in suite.iter("testcase")}


def test_junit_has_a_suite_per_trainer_and_a_case_per_clause_and_scenario() -> None:
    root = ET.fromstring(to_junit([every_status(), faultless()], CLAUSES, PROFILE))
    broken, fine = root
    assert (broken.get("name"), fine.get("name")) == ("broken@1.0", "refimpl")
    assert broken.attrib.items() >= {"tests": "9", "failures": "4", "errors": "1", "skipped": "1"}.items()
    assert fine.attrib.items() >= {"tests": "6", "failures": "0", "errors": "0", "skipped": "0"}.items()
    assert root.attrib.items() >= {"tests": "15", "failures": "4", "errors": "1", "skipped": "1"}.items()
    assert broken.get("time") == "12.340"
    properties = {p.get("name"): p.get("value") for p in broken.iter("property")}
    assert properties == {"profile": PROFILE, "version": "9.8.7", "python": "3.11.7", "torch": "2.1.0"}
    found = cases(broken)
    assert len(found) == 9 and not any("val.silent" in name or "unreached" in name for name in found)
    assert found["val.absent [plain]"].get("classname") == "broken@1.0.val"
    assert [child.tag for child in found["train.fine [gan]"]] == []


def test_junit_says_why() -> None:
    found = cases(ET.fromstring(to_junit([every_status()], CLAUSES, PROFILE))[0])
    (failure,) = found["train.order [gan]"]
    assert failure.tag == "failure"
    assert failure.attrib == {"message": "train.order went wrong", "type": "MUST"}
    for part in ("The sentence of train.order.", "section of train.order", "expected: backward", *CONTEXT):
        assert part in (failure.text or "")
    assert "seen: step" in (failure.text or "") and "event: 42" in (failure.text or "")
    (known,) = found["train.known [plain]"]
    assert known.get("message") == "known departure: train.known went wrong"
    assert NOTE.text in (known.text or "") and NOTE.evidence in (known.text or "")
    (error,) = found["val.broken [plain]"]
    assert (error.tag, error.get("message")) == ("error", "the trace was cut off")
    (skipped,) = found["val.absent [plain]"]
    assert (skipped.tag, skipped.get("message")) == ("skipped", "no capability `tbptt`")


@given(st.text(st.characters(exclude_categories=())))
def test_junit_takes_any_string(text: str) -> None:
    run = trainer(text, fail(text, "train.order", reason=text, expected=text, context=(text,)))
    xml = to_junit([run], CLAUSES, PROFILE)
    (suite,) = ET.fromstring(xml.encode())
    assert suite.get("name") == printable(text)
    assert is_clean(xml)
    (failure,) = cases(suite)[printable(f"train.order [{text}]")]
    assert failure.get("message") == (printable(text) or "no reason given")
