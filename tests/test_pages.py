"""The generated pages say what the sources say now; `python -m conformance.report.pages` rewrites them."""

from __future__ import annotations

import re

import pytest

from conformance.clauses import load_clauses
from conformance.report import order, pages
from conformance.report.coverage import load_headings
from conformance.runner import HarnessError
from conformance.verdicts import Status, Verdict

FIX = "is out of date: python -m conformance.report.pages"


def written(name: str) -> str:
    return (pages.DOCS / name).read_text(encoding="utf-8")


def test_the_clause_list_is_up_to_date() -> None:
    assert written("clauses.md") == pages.clause_list(load_clauses()), f"docs/clauses.md {FIX}"


def test_the_clause_list_has_every_clause_once_and_a_title_for_every_family() -> None:
    clauses = load_clauses()
    listed = re.findall(r'^\| <a id="([^"]+)"></a>`\1` \|', pages.clause_list(clauses), re.MULTILINE)
    assert sorted(listed) == sorted(clauses)
    assert {clause.family for clause in clauses.values()} == set(pages.FAMILIES)


def test_the_coverage_page_is_up_to_date() -> None:
    page = pages.coverage_page(load_headings(), load_clauses())
    assert written("coverage.md") == page, f"docs/coverage.md {FIX}"


def test_the_order_page_is_up_to_date() -> None:
    assert written("order.md") == pages.order_page(), f"docs/order.md {FIX}"


def test_the_order_page_tells_the_functions_in_order() -> None:
    outline = written("order.md").split("```")[1]
    functions = re.findall(r"(\w+)\(\)(?!.*the same)", outline)
    assert functions == ["fit", "train_on_device", "val_loop", "train_loop", "val_loop"]
    assert re.search(r"^ +on_train_batch_end +callback:0, module", outline, re.MULTILINE)
    assert re.search(r"^ +optimizer_zero_grad +module +gradients cleared +\[\d+\]$", outline, re.MULTILINE)


def test_every_mark_of_the_order_page_has_its_row() -> None:
    text = written("order.md")
    marks = set(re.findall(r"\[\d+\]", text.split("```")[1]))
    rows = re.findall(r"^\| (\[\d+\]) \|", text, re.MULTILINE)
    assert set(rows) == marks
    assert rows == [f"[{number}]" for number in range(1, len(rows) + 1)]


def test_no_order_is_shown_of_a_trace_that_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    failing = [Verdict("fit-val", "fit.sequence", Status.FAIL, "broken")]
    monkeypatch.setattr(order, "judge_file", lambda path, clauses: failing)
    with pytest.raises(HarnessError, match=r"refimpl fails fit\.sequence in fit-val"):
        order.order_page()
