"""The coverage page: no clause without a heading, no statement without a proof or a reason, and none that has gone."""

from __future__ import annotations

import re
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest

from conformance.clauses import Clause, load_clauses
from conformance.hooks import MODULE_HOOKS
from conformance.report.coverage import Heading, Statement, coverage_page, load_headings, matching, named_by_source
from refimpl import LightningModule

ROOT = Path(__file__).resolve().parent.parent
HEADINGS = load_headings()

# Hooks that the engine has beyond the documentation's headings, in their manner.
BEYOND = re.compile(r"on_predict_|predict_dataloader|on_sanity_check_")


def test_the_headings() -> None:
    names = [heading.name for heading in HEADINGS]
    assert len(names) == len(set(names)) == 106
    assert names[0] == "LightningModule" and names[-1] == "get_from_queue"
    assert {hook for hook in MODULE_HOOKS if not BEYOND.match(hook)} <= set(names)
    for above, below in pairwise(HEADINGS):
        assert 1 <= below.level <= above.level + 1, below.name


@pytest.mark.parametrize("heading", HEADINGS, ids=lambda heading: heading.name)
def test_every_statement_is_shown_or_has_a_reason(heading: Heading) -> None:
    said = [statement.says for statement in heading.statements]
    assert said
    assert len(said) == len(set(said))
    for statement in heading.statements:
        assert statement.clauses or statement.tests or statement.reason, statement.says
        for pattern in statement.clauses:
            assert matching(replace(statement, clauses=[pattern]), load_clauses()), f"no clause is {pattern}"
        for test in statement.tests:
            path, *names = test.split("::")
            assert (ROOT / path).is_file(), f"there is no {path}"
            source = (ROOT / path).read_text(encoding="utf-8")
            for name in names:
                assert re.search(rf"\b(def|class) {name}\b", source), f"{path} has no {name}"


def test_what_has_a_heading_is_there() -> None:
    """Each method, property and hook, unless its statements say that the engine lacks it."""
    for heading in HEADINGS:
        waits = any("not yet executable" in statement.reason for statement in heading.statements)
        assert heading.level < 3 or waits or hasattr(LightningModule, heading.name), heading.name


def test_every_clause_belongs_to_a_heading() -> None:
    statements = [statement for heading in HEADINGS for statement in heading.statements]
    named = {clause for statement in statements for clause in matching(statement, load_clauses())}
    homeless = [
        clause.id
        for clause in load_clauses().values()
        if clause.id not in named and not list(named_by_source(clause, HEADINGS))
    ]
    assert not homeless, "let their source name a heading of conformance/spec/headings.toml"


@pytest.mark.parametrize("source, names", [
    ("training_step: parameter batch_idx", ["training_step"]),
    ("Hooks: on_train_batch_end, parameter outputs", ["on_train_batch_end"]),
    ("Hooks: pseudocode of fit", ["Hooks"]),
    ("pseudocode of train_loop: if should_check_val", ["Hooks"]),
    ("optimizer_step: zero_grad is not called", ["optimizer_step"]),
    ("log: on_step, on_epoch; configure_optimizers: monitor", ["log", "configure_optimizers"]),
    ("Epoch-level metrics; log: batch_size", ["Epoch-level metrics of the training", "log"]),
    ("train_dataloader: fit, prepare_data, setup", ["train_dataloader"]),
    ("LightningDataModule (interpretation)", ["datamodule"]),
    ("logged by on_fit_started, or logbook.log", []),
])  # fmt: skip
def test_a_source_names_headings(source: str, names: list[str]) -> None:
    assert list(named_by_source(Clause("x.y", "MUST", "", source), HEADINGS)) == names


def test_the_page() -> None:
    clauses = {
        clause.id: clause
        for clause in (
            Clause("a.one", "MUST", "One.", "log: x", {"kind": "count"}),
            Clause("a.two", "MUST", "Two.", "print"),
            Clause("a.three", "MUST", "Three.", "log", {"kind": "count"}),
            Clause("a.four", "MUST", "Four.", "device", excluded="needs a GPU"),
        )
    }
    headings = [
        Heading("log", 1, [Statement("It | logs.", ["a.o*"], ["tests/test_a.py::test_b"])], original="foo"),
        Heading("print", 2, [Statement("A", tests=["tests/test_a.py::test_b"]), Statement("B", reason="advice")]),
        Heading("device", 2, [Statement("C", clauses=["a.four"], reason="later")]),
    ]
    page = coverage_page(headings, clauses)
    assert "3 headings, 4 statements: 1 judged by clauses, 1 by tests alone, 2 by neither." in page
    one, three = "[`a.one`](clauses.md#a.one)", "[`a.three`](clauses.md#a.three)"
    test = "[test_a.py::test_b](../tests/test_a.py)"
    assert "## log\n\n*foo*\n\n| what it says | where it is shown |\n| --- | --- |\n" in page
    assert f"| It \\| logs. | {one}; {test} |\n\nOther clauses: {three}\n\n### print\n" in page
    assert f"| A | {test} |\n| B | advice |\n\nOther clauses: [`a.two`](clauses.md#a.two)\n" in page
    assert page.endswith("| C | [`a.four`](clauses.md#a.four) (needs a GPU); later |\n")
