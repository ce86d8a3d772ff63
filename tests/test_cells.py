"""What the reports share: each clause a row, each trainer a cell, and no string that does harm."""

from __future__ import annotations

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
    summary,
    trainer,
)

from conformance.report import render_html, to_junit
from conformance.report.cells import families, printable
from conformance.verdicts import Status, Verdict


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
