"""Runs for the reports: of a trainer with every status, a faultless one, one that makes up strings."""

from __future__ import annotations

import io
import re
import unicodedata
from typing import Any

from rich.console import Console

from conformance.causes import Cause
from conformance.clauses import Clause
from conformance.report import print_summary
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


def joined(text: str) -> str:
    """The words, wherever the lines break."""
    return " ".join(text.split())


def summary(
    *runs: TrainerRun,
    clauses: dict[str, Clause] = CLAUSES,
    width: int = 80,
    verbose: bool = False,
    causes: dict[str, list[Cause]] | None = None,
) -> str:
    out = io.StringIO()
    console = Console(file=out, width=width, force_terminal=False, _environ={})
    print_summary(runs, clauses, PROFILE, console, verbose, causes)
    return out.getvalue()
