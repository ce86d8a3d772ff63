"""The summary on the terminal."""

from __future__ import annotations

import io
import re
from dataclasses import replace

import pytest
from rich.console import Console
from runs import (
    CLAUSES,
    CONTEXT,
    NOTE,
    PROFILE,
    clause,
    every_status,
    fail,
    faultless,
    hostile,
    is_clean,
    joined,
    summary,
    trainer,
)

from conformance.causes import Cause
from conformance.report import print_summary
from conformance.verdicts import Status, Verdict


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


def test_what_no_note_explains_is_a_failure_though_its_clause_has_one() -> None:
    run = every_status()
    run = replace(run, verdicts=(*run.verdicts, fail("gan", "train.known", beyond="own-1")))
    text = joined(summary(run))
    assert "beyond own-1 does not have it either" in text and "3 failures, 1 clause not reached" in text


def test_what_follows_from_a_failure_is_named_beside_it() -> None:
    run = every_status()
    first, *_, last = [v for v in run.verdicts if v.status is Status.FAIL and v.clause == "train.order"]
    told = {"broken@1.0": [Cause(last, ["train.order", *(f"val.also{n}" for n in range(12))])]}
    text = joined(summary(run, causes=told))
    assert "Failures (2) in 1 finding" in text and "2 failures in 1 finding, 1 known departure" in text
    assert "reason it was never called" in text and "1 other reason" in text
    assert f"reason {first.reason} expected" not in text.split("Known")[0]
    assert "with it val.also0, val.also1" in text and "val.also7 and 4 more clauses" in text
    assert "error in 1 scenario: plain reason the trace was cut off" in text
    assert f"reason {first.reason} expected" in joined(summary(run, causes=told, verbose=True))


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
