"""The reports: each shows what the verdicts say, to its reader, whatever strings the trainers made up."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import re
import shutil
import unicodedata
from collections import Counter
from collections.abc import Iterator
from dataclasses import fields
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import jsonschema  # type: ignore[import-untyped, unused-ignore]
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from conformance.clauses import LEVELS, SPEC, Clause
from conformance.report import print_summary, render_html, to_json, to_junit, write_html
from conformance.report.cells import families, printable
from conformance.verdicts import Note, Status, TrainerRun, Verdict

PROFILE = "doc-2021-08"
HOSTILE = (
    "<script>console.error('x')</script> \x1b[31mred\x00 ]]> \ud800 \u202e "
    '[bold]b[/bold] [/] {{ 7*7 }} "q" &amp; `<b>`'
)
CONTEXT = (
    "> 42 B module.on_before_batch_transfer | on_before_batch_transfer()",
    "  43 E module.backward | backward()",
)


def clause(name: str, level: str = "MUST", line: str = "", excluded: str = "") -> Clause:
    check = {} if excluded else {"kind": "precedence"}
    return Clause(name, level, f"The sentence of {name}.", f"section of {name}", check, excluded, line)


CLAUSES = {
    c.id: c
    for c in (
        clause("train.order", line="on_before_batch_transfer()"),
        clause("train.known", "SHOULD"),
        clause("train.fine"),
        clause("val.absent", "MAY"),
        clause("val.broken"),
        clause("val.silent"),
        clause("val.advice", excluded="It is advice; no trace can tell."),
    )
}
NOTE = Note("train.known", "The release does it the other way.", "https://example.org/loop.py#L5")


def fail(scenario: str, name: str, **more: Any) -> Verdict:
    given_ = {"reason": f"{name} went wrong", "seq": 42, "expected": "backward", "seen": "step", **more}
    return Verdict(scenario, name, Status.FAIL, **given_)


def trainer(name: str, *verdicts: Verdict, notes: tuple[Note, ...] = ()) -> TrainerRun:
    environment = {"python": "3.11.7", "torch": "2.1.0"}
    return TrainerRun(name, "9.8.7", environment, verdicts, 12.34, {note.clause: note for note in notes})


def every_status() -> TrainerRun:
    """A trainer with every status, failures that say the same and that do not, and a known departure."""
    return trainer(
        "broken@1.0",
        fail("gan", "train.order", context=CONTEXT),
        fail("plain", "train.order", seq=77),
        fail("manual", "train.order", reason="it was never called", seq=None),
        Verdict("clip", "train.order", Status.PASS),
        fail("plain", "train.known"),
        Verdict("plain", "train.fine", Status.PASS),
        Verdict("gan", "train.fine", Status.PASS),
        Verdict("unreached-scenario", "train.fine", Status.NOT_APPLICABLE),
        Verdict("plain", "val.absent", Status.UNSUPPORTED, "no capability `tbptt`"),
        Verdict("plain", "val.broken", Status.ERROR, "the trace was cut off"),
        Verdict("plain", "val.silent", Status.NOT_APPLICABLE),
        notes=(NOTE,),
    )


def faultless(name: str = "refimpl") -> TrainerRun:
    return trainer(name, *(Verdict("plain", c.id, Status.PASS) for c in CLAUSES.values() if not c.excluded))


def hostile() -> tuple[list[TrainerRun], dict[str, Clause]]:
    """Every string that a report can show, as bad as it gets."""
    name = f"train.{HOSTILE}"
    verdicts = [
        Verdict(HOSTILE, name, status, HOSTILE, 1, HOSTILE, HOSTILE, (HOSTILE, HOSTILE)) for status in Status
    ]
    note = Note(name, HOSTILE, f"javascript:alert(1) {HOSTILE}")
    run = TrainerRun(HOSTILE, HOSTILE, {HOSTILE: HOSTILE}, tuple(verdicts), 1.0, {name: note})
    rows = Clause(name, "MUST", HOSTILE, HOSTILE, {"kind": "x"}, "", HOSTILE)
    advice = Clause("train.advice", "MAY", HOSTILE, HOSTILE, {}, HOSTILE)
    return [run, faultless()], {name: rows, "train.advice": advice}


def is_clean(text: str) -> bool:
    """Nothing in it that steers a terminal, breaks XML, or turns the direction of the text around."""
    categories = {unicodedata.category(c) for c in text if c not in "\n\t"}
    return not categories & {"Cc", "Cs", "Zl", "Zp"} and not re.search(
        "[\u202a-\u202e\u2066-\u2069\uffff\ufffe]", text
    )


# What the reports share


@given(st.text(st.characters(exclude_categories=())))
def test_printable_text_is_clean_and_stays_as_it_is(text: str) -> None:
    assert is_clean(printable(text))
    assert printable(printable(text)) == printable(text)
    if is_clean(text):
        assert printable(text) == text


def test_printable_shows_what_was_there() -> None:
    assert printable("a\x1b[2Jb\tc\nd") == "a\\x1b[2Jb\tc\nd"
    for bad in "\x00\r\x7f\x9b\u2028\u202e\u2066\u2069\ud800\ufffe\uffff":
        assert printable(bad) == repr(bad)[1:-1] != bad


def test_the_matrix_has_a_row_for_every_checked_clause_and_a_cell_for_every_trainer() -> None:
    matrix = families([every_status(), faultless()], CLAUSES)
    assert {family: [row.clause.id for row in rows] for family, rows in matrix.items()} == {
        "train": ["train.order", "train.known", "train.fine"],
        "val": ["val.absent", "val.broken", "val.silent"],
    }
    cells = [row.cells for rows in matrix.values() for row in rows]
    assert [left.status.value for left, _ in cells] == [
        *("fail", "fail", "pass"),
        *("unsupported", "error", "not-applicable"),
    ]
    assert all(right.status is Status.PASS for _, right in cells)
    assert [left.known for left, _ in cells] == [False, True, False, False, False, False]
    assert [row.departs for rows in matrix.values() for row in rows] == [
        True,
        True,
        False,
        False,
        True,
        False,
    ]


def test_a_note_does_not_explain_a_broken_harness() -> None:
    run = trainer("t", Verdict("plain", "train.known", Status.ERROR, "boom"), notes=(NOTE,))
    (cell,) = families([run], CLAUSES)["train"][1].cells
    assert cell.departs and not cell.known


def test_verdicts_on_clauses_that_the_registry_lacks_or_excludes_are_not_lost() -> None:
    run = trainer("t", fail("plain", "new.rule"), fail("plain", "val.advice"))
    ids = [row.clause.id for rows in families([run], CLAUSES).values() for row in rows]
    assert "new.rule" in ids and "val.advice" in ids
    assert "new.rule went wrong" in summary(run)
    assert "new.rule went wrong" in to_junit([run], CLAUSES, PROFILE)
    assert "new.rule went wrong" in render_html([run], CLAUSES, PROFILE)


def test_findings_that_say_the_same_are_told_once() -> None:
    cell = families([every_status()], CLAUSES)["train"][0].cells[0]
    same, other = cell.findings(Status.FAIL)
    assert same.scenarios == ("gan", "plain") and same.first.context == CONTEXT
    assert other.scenarios == ("manual",)
    assert cell.scenarios(Status.FAIL) == ("gan", "plain", "manual")
    assert cell.reached == 4


# Terminal


def summary(
    *runs: TrainerRun, clauses: dict[str, Clause] = CLAUSES, width: int = 80, verbose: bool = False
) -> str:
    out = io.StringIO()
    console = Console(file=out, width=width, force_terminal=False, _environ={})
    print_summary(runs, clauses, PROFILE, console, verbose)
    return out.getvalue()


def joined(text: str) -> str:
    """The words, wherever the lines break."""
    return " ".join(text.split())


def test_summary_says_who_was_judged_and_what_came_of_it() -> None:
    text = joined(summary(every_status(), faultless()))
    assert f"profile {PROFILE}: 6 clauses" in text
    assert "broken@1.0 9.8.7 python 3.11.7, torch 2.1.0" in text
    assert "1 pass, 2 fail, 1 unsupported, 1 error, 1 not reached (9 verdicts, 12.3 s)" in text
    assert "6 pass (6 verdicts, 12.3 s)" in text
    assert "Clauses by family: pass/fail/unsupported/error" in text
    assert "train 1/2/0/0 3/0/0/0" in text
    assert "val 0/0/1/1 3/0/0/0" in text
    assert text.endswith("2 failures, 1 known departure.")


def test_summary_tells_each_failure_in_full() -> None:
    failures = joined(summary(every_status()).split("Failures (2)")[1].split("Known departures")[0])
    known = summary(every_status(), verbose=True).split("Known departures (1)")[1]
    assert (
        "train.order MUST The sentence of train.order. source section of train.order "
        "line on_before_batch_transfer() "
        "broken@1.0: fail in 2 scenarios: gan, plain "
        "reason train.order went wrong expected backward seen step "
        "broken@1.0: fail in 1 scenario: manual reason it was never called"
    ) in failures
    assert "broken@1.0: error in 1 scenario: plain reason the trace was cut off" in failures
    assert "train.known" not in failures
    assert (
        "train.known SHOULD The sentence of train.known. source section of train.known "
        "broken@1.0: fail in 1 scenario: plain reason train.known went wrong expected backward seen step "
        f"known departure {NOTE.text} evidence {NOTE.evidence}"
    ) in joined(known)
    assert "train.fine" not in known + failures


def test_a_brief_summary_tells_each_note_once_with_its_clauses() -> None:
    text = summary(every_status())
    assert f"Known departures of broken@1.0 (1 note) {NOTE.text} train.known" in joined(text)
    assert NOTE.evidence not in text


def test_only_a_verbose_summary_shows_the_events() -> None:
    assert CONTEXT[0] not in summary(every_status())
    verbose = summary(every_status(), verbose=True)
    assert "trace of gan, event 42:" in verbose
    assert all(f"      {line}\n" in verbose for line in CONTEXT)


def test_only_a_verbose_summary_shows_everything() -> None:
    many = [fail(f"s{i}", "train.order") for i in range(9)]
    many += [fail(f"t{i}", "train.order", reason=f"reason {i}") for i in range(5)]
    brief, full = summary(trainer("t", *many)), summary(trainer("t", *many), verbose=True)
    assert "fail in 9 scenarios: s0, s1, s2, s3 and 5 more" in brief
    assert "s8" in full and "s8" not in brief
    assert "3 other reasons" in brief and "reason 4" not in brief
    assert "other reason" not in full and "reason 4" in full


@pytest.mark.parametrize("verbose", [False, True])
def test_summary_fits_80_columns_without_colour_codes(verbose: bool) -> None:
    runs, clauses = hostile()
    long = fail("plain", "train.order", reason="word " * 60 + "x" * 200, context=("y" * 200,))
    runs += [trainer("lightning@1.5.10", long), trainer("a-rather-long-name@1.0"), every_status()]
    text = summary(*runs, clauses={**CLAUSES, **clauses}, verbose=verbose)
    assert is_clean(text)
    assert max(map(len, text.splitlines())) <= 80
    assert not re.search(" $", text.split("Failures")[1], re.MULTILINE)
    assert "[bold]b[/bold] [/]" in text and "\\x1b[31m" in text


def test_summary_takes_names_literally() -> None:
    assert summary(faultless("[red]x[/red]")).count("[red]x[/red]") == 2


def test_summary_keeps_counts_in_one_piece_beside_long_names() -> None:
    clauses = {c.id: c for c in (clause(f"family-with-a-name.clause{i}") for i in range(1234))}
    verdicts = [Verdict("plain", name, Status.PASS) for name in clauses]
    runs = [trainer(f"trainer-with-a-name@1.{i}", *verdicts) for i in range(5)]
    assert summary(*runs, clauses=clauses).count("1234/0/0") == 5


def test_summary_has_colours_on_a_terminal() -> None:
    out = io.StringIO()
    console = Console(file=out, width=80, force_terminal=True, color_system="standard", _environ={})
    print_summary([every_status()], CLAUSES, PROFILE, console)
    assert "\x1b[" in out.getvalue()


def test_summary_is_short_when_everything_passes() -> None:
    clauses = {c.id: c for c in (clause(f"family{i % 20}.clause{i}") for i in range(200))}
    verdicts = [Verdict(f"s{j}", name, Status.PASS) for name in clauses for j in range(5)]
    runs = [trainer(f"trainer-with-a-name@1.{i}", *verdicts) for i in range(5)]
    text = summary(*runs, clauses=clauses)
    assert len(text.splitlines()) <= 25
    assert "all 20 families" in text and "200/0/0" in text
    assert text.rstrip().endswith("No failures.")


def test_summary_folds_quiet_families_beside_a_loud_one() -> None:
    clauses = {c.id: c for c in (clause(f"family{i}.clause") for i in range(9))}
    verdicts = [Verdict("plain", name, Status.PASS) for name in clauses if name != "family3.clause"]
    text = joined(summary(trainer("t", *verdicts, fail("plain", "family3.clause")), clauses=clauses))
    assert "family3 0/1/0 8 others that pass 8/0/0" in text


def test_summary_does_not_call_it_a_success_when_nothing_was_judged() -> None:
    assert summary(trainer("t")).rstrip().endswith("Nothing was judged.")
    assert summary().rstrip().endswith("Nothing was judged.")
    one = trainer("t", Verdict("plain", "train.fine", Status.PASS))
    assert summary(one).rstrip().endswith("No failures, 5 clauses not reached by any scenario.")
    most = [Verdict("plain", name, Status.PASS) for name in CLAUSES if name != "train.fine"]
    assert joined(summary(trainer("t", *most))).endswith("1 clause not reached by any scenario (train.fine).")


def test_summary_survives_a_console_that_knows_only_ascii() -> None:
    runs, clauses = hostile()
    raw = io.BytesIO()
    console = Console(
        file=io.TextIOWrapper(raw, encoding="ascii"), width=80, force_terminal=False, _environ={}
    )
    print_summary([*runs, trainer("naïve→" * 9)], clauses, PROFILE, console, verbose=True)
    print_summary([*runs, trainer("naïve→" * 9)], clauses, PROFILE, console)
    console.file.flush()
    assert b"na\\xefve\\u2192" in raw.getvalue()


# JSON

SCHEMA = json.loads((SPEC / "verdicts.schema.json").read_text(encoding="utf-8"))


def test_json_says_what_the_schema_says() -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    for runs, clauses in (([every_status(), faultless()], CLAUSES), hostile(), ([], {})):
        document = json.loads(json.dumps(to_json(runs, clauses, PROFILE)))
        jsonschema.validate(document, SCHEMA)
        assert (document["format"], document["version"], document["profile"]) == (
            "refimpl-verdicts",
            1,
            PROFILE,
        )


def test_json_loses_nothing() -> None:
    runs, clauses = hostile()
    for run in (*runs, every_status()):
        (row,) = json.loads(json.dumps(to_json([run], clauses, PROFILE)))["runs"]
        verdicts = [
            Verdict(**{**v, "status": Status(v["status"]), "context": tuple(v["context"])})
            for v in row["verdicts"]
        ]
        notes = {note["clause"]: Note(**note) for note in row["notes"]}
        assert TrainerRun(**{**row, "verdicts": tuple(verdicts), "notes": notes}) == run


def test_the_schema_and_the_document_name_the_same_keys() -> None:
    document = to_json([every_status()], CLAUSES, PROFILE)
    run = document["runs"][0]
    examples = {
        "clause": document["clauses"][0],
        "run": run,
        "note": run["notes"][0],
        "verdict": run["verdicts"][0],
    }
    for name, example in examples.items():
        definition = SCHEMA["$defs"][name]
        assert list(example) == list(definition["properties"]) == definition["required"]
    assert list(document) == list(SCHEMA["properties"]) == SCHEMA["required"]
    assert set(examples["verdict"]) == {f.name for f in fields(Verdict)}
    assert set(examples["run"]) == {f.name for f in fields(TrainerRun)}
    assert SCHEMA["$defs"]["verdict"]["properties"]["status"]["enum"] == [s.value for s in Status]
    assert SCHEMA["$defs"]["clause"]["properties"]["level"]["enum"] == list(LEVELS)


@pytest.mark.parametrize(
    ("place", "key", "value"),
    [
        ((), "format", "other"),
        ((), "version", 2),
        ((), "runs", {}),
        (("clauses", 0), "level", "PERHAPS"),
        (("runs", 0), "seconds", -1),
        (("runs", 0, "verdicts", 0), "status", "passed"),
        (("runs", 0, "verdicts", 0), "seq", "42"),
        (("runs", 0, "verdicts", 0), "context", "one line"),
    ],
)
def test_the_schema_refuses_other_documents(place: tuple[str | int, ...], key: str, value: object) -> None:
    document = json.loads(json.dumps(to_json([every_status()], CLAUSES, PROFILE)))
    part = document
    for step in place:
        part = part[step]
    assert key in part
    part[key] = value
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(document, SCHEMA)


# JUnit


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


# HTML


class Page(HTMLParser):
    """A page taken apart: its elements, each with its attributes and all the text within it."""

    VOID = frozenset({"meta", "link", "input", "br", "hr", "img"})

    def __init__(self, source: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str], list[str]]] = []
        self.open: list[int] = []
        self.feed(source)
        self.close()
        assert not self.open, "unclosed elements"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {key: value or "" for key, value in attrs}, []))
        if tag not in self.VOID:
            self.open.append(len(self.elements) - 1)

    def handle_endtag(self, tag: str) -> None:
        assert self.elements[self.open.pop()][0] == tag, f"</{tag}> closes something else"
        if tag in ("dt", "dd", "p", "span"):
            self.handle_data(" ")

    def handle_data(self, data: str) -> None:
        for index in self.open:
            self.elements[index][2].append(data)

    def all(self, tag: str, kind: str = "") -> Iterator[tuple[dict[str, str], str]]:
        for name, attributes, text in self.elements:
            if name == tag and (not kind or kind in attributes.get("class", "").split()):
                yield attributes, joined("".join(text))

    def row(self, number: int) -> list[str]:
        """The summaries of the cells of the table row that comes `number`th."""
        rows = [
            i for i, (name, attributes, _) in enumerate(self.elements) if name == "tr" and "id" in attributes
        ]
        end = rows[number + 1] if number + 1 < len(rows) else len(self.elements)
        inside = self.elements[rows[number] : end]
        return [joined("".join(text)) for name, _, text in inside if name == "td"]


def page(*runs: TrainerRun, clauses: dict[str, Clause] = CLAUSES) -> Page:
    return Page(render_html(runs, clauses, PROFILE))


def test_page_says_what_was_run() -> None:
    shown = page(every_status(), faultless())
    ((_, title),) = shown.all("title")
    assert title == f"Conformance to {PROFILE}: broken@1.0, refimpl"
    broken, fine = (text for _, text in shown.all("li"))
    assert broken == (
        "broken@1.0 9.8.7 python 3.11.7 torch 2.1.0 9 verdicts 12.3 s "
        "! 1 error ✗ 2 fail ✓ 1 pass ○ 1 unsupported · 1 not reached"
    )
    assert fine.endswith("✓ 6 pass")


def test_page_has_a_linkable_row_for_every_clause() -> None:
    shown = page(every_status(), faultless())
    ids = [attributes["id"] for attributes, _ in shown.all("tr") if "id" in attributes]
    assert ids == [name for name in CLAUSES if name != "val.advice"]
    targets = {attributes["href"] for attributes, _ in shown.all("a")}
    assert {f"#{name}" for name in ids} <= targets
    departing = [attributes["id"] for attributes, _ in shown.all("tr", "departs")]
    assert departing == ["train.order", "train.known", "val.broken"]
    excluded = next(text for _, text in shown.all("details", "excluded"))
    assert "val.advice" in excluded and "It is advice; no trace can tell." in excluded


def test_cells_say_their_status_in_words() -> None:
    shown = page(every_status(), faultless())
    summaries = [text for _, text in shown.all("summary")]
    cells = [text for text in summaries if text.startswith("broken@1.0")]
    assert cells == [
        "broken@1.0 ✗ fail 3/4",
        "broken@1.0 ✗ fail 1/1 note",
        "broken@1.0 ✓ pass",
        "broken@1.0 ○ unsupported",
        "broken@1.0 ! error 1/1",
    ]
    assert shown.row(5)[0] == "broken@1.0 · not reached"
    assert [text for text in summaries if text.startswith("refimpl")] == ["refimpl ✓ pass"] * 6


def test_an_open_cell_shows_the_evidence() -> None:
    shown = page(every_status())
    order, known, fine, absent, broken, _ = (shown.row(number)[0] for number in range(6))
    for part in (
        "The sentence of train.order.",
        "Source section of train.order Pseudocode on_before_batch_transfer()",
        "✗ fail in 2 scenarios: gan, plain train.order went wrong Expected backward Seen step",
        "Trace of gan, first divergence at event 42: " + " ".join(joined(line) for line in CONTEXT),
        "✗ fail in 1 scenario: manual it was never called",
        "✓ passed in 1 scenario: clip",
    ):
        assert part in order
    assert f"Known departure. {NOTE.text} Evidence: {NOTE.evidence}" in known
    assert fine.endswith("✓ passed in 2 scenarios: plain, gan Not reached by 1 scenario.")
    assert "unreached-scenario" not in render_html([every_status()], CLAUSES, PROFILE)
    assert "no capability tbptt" in absent
    assert "the trace was cut off" in broken


def test_a_note_on_a_passing_cell_is_no_failure() -> None:
    run = trainer("t", Verdict("plain", "train.known", Status.PASS), notes=(NOTE,))
    assert [attributes["id"] for attributes, _ in page(run).all("tr", "departs")] == ["train.known"]
    cell = page(run).row(1)[0]
    assert cell.startswith("t ✓ pass note") and "On record as a departure." in cell


def test_hostile_strings_stay_text() -> None:
    source = render_html(*hostile(), PROFILE)
    shown = Page(source)
    assert is_clean(source)
    assert len(list(shown.all("script"))) == 1
    assert "{{ 7*7 }}" in source and "<script>console" not in source and "<b>" not in source
    for tag, attributes, _ in shown.elements:
        assert not any(name.startswith("on") for name in attributes), f"{tag} {attributes}"
        assert "style" not in attributes
        assert not re.search(r"\s", attributes.get("id", ""))
    assert not any("javascript:" in attributes.get("href", "") for attributes, _ in shown.all("a"))
    assert "javascript:alert(1)" in shown.row(0)[0]


def test_page_is_one_file_that_loads_nothing() -> None:
    source = render_html([every_status()], CLAUSES, PROFILE)
    shown = Page(source)
    for tag, attributes, _ in shown.elements:
        assert tag not in {"img", "iframe", "object", "embed", "base"}
        assert "src" not in attributes and "srcset" not in attributes
        if tag == "link":
            assert attributes["href"] == "data:,"
        elif "href" in attributes:
            assert attributes["href"].startswith("#") or attributes["href"] == NOTE.evidence
    assert "url(" not in source and "@import" not in source and "fetch(" not in source


def test_the_policy_allows_exactly_the_style_and_script_that_are_there() -> None:
    source = render_html([every_status()], CLAUSES, PROFILE)
    (policy,) = (a["content"] for a, _ in Page(source).all("meta") if a.get("http-equiv"))
    allowed = dict(part.split(" ", 1) for part in policy.split("; "))
    assert allowed.keys() == {"default-src", "img-src", "style-src", "script-src"}
    assert allowed["default-src"] == "'none'"
    for tag in ("style", "script"):
        (content,) = re.findall(rf"<{tag}>(.*?)</{tag}>", source, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
        assert allowed[f"{tag}-src"] == f"'sha256-{digest}'"


def test_page_ids_are_unique() -> None:
    ids = Counter(a["id"] for _, a, _ in page(every_status(), faultless()).elements if "id" in a)
    assert max(ids.values()) == 1


def test_a_cell_where_everything_differs_shows_some_and_counts_the_rest() -> None:
    run = trainer("t", *(fail(f"s{i}", "train.order", reason=f"reason number {i}") for i in range(10)))
    cell = page(run).row(0)[0]
    assert cell.count("reason number") == 3 and "7 further reasons: see the JSON report." in cell


def test_a_large_page_stays_small() -> None:
    clauses = {c.id: c for c in (clause(f"family{i % 10}.some-clause-{i}") for i in range(200))}
    names = [f"scenario-with-a-name-{i}" for i in range(40)]

    def verdict(i: int, name: str, j: int, k: int) -> Verdict:
        if (i * 7 + j) % 8 == 0 and k % 4 == 0:
            return fail(names[k], name, context=CONTEXT * 4)
        return Verdict(names[k], name, Status.PASS)

    runs = [
        trainer(
            f"trainer@{j}", *(verdict(i, name, j, k) for i, name in enumerate(clauses) for k in range(40))
        )
        for j in range(5)
    ]
    source = render_html(runs, clauses, PROFILE)
    assert "✗</span> fail 10/40" in source
    assert len(source.encode()) < 3_000_000


def luminance(colour: str) -> float:
    channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


def test_contrast_is_measured_as_wcag_does() -> None:
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    assert contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.01)


@pytest.mark.parametrize("scheme", [0, 1], ids=["light", "dark"])
def test_colours_have_enough_contrast(scheme: int) -> None:
    blocks = re.findall(r":root \{(.*?)\}", render_html([], {}, PROFILE), re.DOTALL)
    assert len(blocks) == 2
    colours = dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6});", blocks[scheme]))
    pairs = [(ink, ground) for ink in ("ink", "quiet", "link") for ground in ("page", "raised")]
    pairs += [(f"{name}-ink", name) for name in ("pass", "fail", "error", "unsupported", "note")]
    pairs += [("fail-ink", "page")]
    assert {name for pair in pairs for name in pair} == colours.keys() - {"rule"}
    assert {pair: contrast(colours[pair[0]], colours[pair[1]]) for pair in pairs} == {
        pair: pytest.approx(21, abs=16.5) for pair in pairs
    }


def test_write_html_writes_the_page(tmp_path: Path) -> None:
    write_html(tmp_path / "report.html", *hostile(), PROFILE)
    assert (tmp_path / "report.html").read_text(encoding="utf-8") == render_html(*hostile(), PROFILE)


# The page in a browser


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    api = pytest.importorskip("playwright.sync_api")
    found = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    with api.sync_playwright() as playwright:
        if not found and not Path(playwright.chromium.executable_path).exists():
            pytest.skip("no chromium")
        arguments = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"]
        chromium = playwright.chromium.launch(executable_path=found, args=arguments)
        yield chromium
        chromium.close()


@pytest.fixture(params=[1400, 400], ids=["wide", "narrow"])
def opened(browser: Any, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Any]:
    """The page in a tab; afterwards: nothing was complained about, nothing but the file was asked for."""
    runs, clauses = hostile()
    path = tmp_path / "report.html"
    write_html(path, [every_status(), *runs], {**CLAUSES, **clauses}, PROFILE)
    tab = browser.new_page(viewport={"width": request.param, "height": 800})
    complaints: list[str] = []
    requests: list[str] = []
    tab.on("console", lambda message: complaints.append(message.text))
    tab.on("pageerror", lambda error: complaints.append(str(error)))
    tab.on("request", lambda asked: requests.append(asked.url))
    tab.goto(path.as_uri())
    yield tab
    assert complaints == []
    assert requests == [path.as_uri()]
    tab.close()


def visible_rows(tab: Any) -> list[str]:
    return [row.get_attribute("id") for row in tab.locator("tr[id]").all() if row.is_visible()]


def cell(tab: Any, name: str, column: int = 0) -> Any:
    return tab.locator(f"tr[id='{name}'] td").nth(column)


def test_browser_filters_clauses(opened: Any) -> None:
    assert len(visible_rows(opened)) == 7
    opened.fill("#ui-filter", "SENTENCE val")
    assert visible_rows(opened) == ["val.absent", "val.broken", "val.silent"]
    assert opened.locator("#ui-shown").inner_text() == "3 of 7 clauses"
    opened.check("#ui-departures")
    assert visible_rows(opened) == ["val.broken"]
    opened.fill("#ui-filter", "no such clause")
    assert visible_rows(opened) == [] and opened.locator("#ui-none").is_visible()
    opened.fill("#ui-filter", "")
    assert visible_rows(opened)[:2] == ["train.order", "train.known"]
    assert "train.fine" not in visible_rows(opened)


def test_browser_opens_a_cell_by_keyboard_and_makes_room_for_it(opened: Any) -> None:
    summary_, panel = (cell(opened, "train.order").locator(s) for s in ("summary", ".panel"))
    assert not panel.is_visible()
    summary_.focus()
    opened.keyboard.press("Enter")
    assert panel.is_visible() and "it was never called" in panel.inner_text()
    opened.wait_for_function(
        "() => { const end = document.querySelector('.panel').getBoundingClientRect().bottom;"
        " return end <= document.getElementById('train.known').getBoundingClientRect().top; }"
    )
    assert opened.evaluate("document.documentElement.scrollWidth <= innerWidth")
    opened.keyboard.press("Escape")
    assert not panel.is_visible()


def test_browser_shows_one_cell_of_a_row_at_a_time(opened: Any) -> None:
    left, right = cell(opened, "train.known"), cell(opened, "train.known", 2)
    left.locator("summary").click()
    right.locator("summary").click()
    right.locator(".panel").wait_for(state="visible")
    left.locator(".panel").wait_for(state="hidden")


def test_browser_follows_a_link_into_a_closed_family(opened: Any) -> None:
    opened.locator(".family > summary").nth(1).click()
    opened.fill("#ui-filter", "train.order")
    assert visible_rows(opened) == ["train.order"]
    opened.evaluate("location.hash = '#val.broken'")
    opened.locator("tr[id='val.broken']").wait_for(state="visible")
    assert len(visible_rows(opened)) == 7


def test_browser_needs_no_script(browser: Any, tmp_path: Path) -> None:
    write_html(tmp_path / "report.html", [every_status()], CLAUSES, PROFILE)
    context = browser.new_context(java_script_enabled=False)
    tab = context.new_page()
    tab.goto((tmp_path / "report.html").as_uri())
    assert not tab.locator(".controls").is_visible()
    cell(tab, "train.order").locator("summary").click()
    assert cell(tab, "train.order").locator(".panel").is_visible()
    header = tab.locator("thead th").first.evaluate("element => getComputedStyle(element).position")
    assert header == "static", "a header that sticks would lie over the panel, which has no room of its own"
    context.close()
