"""The verdicts as one web page: a matrix of clauses by trainers, with the evidence behind every cell.

The page is a single file that loads nothing, and says so in its content security policy, so it can be
attached to a CI run or mailed. It works without JavaScript, whose part is filtering, opening the cell
that a link names, and making room in the table for an open cell. What the trainers said is escaped by
the template engine and stripped of control characters on its way in.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from urllib.parse import quote

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from conformance import __version__
from conformance.causes import Cause
from conformance.clauses import LEVELS, Clause
from conformance.readings import readings, resting_on
from conformance.report.cells import Cell, Row, count, families, plural, printable
from conformance.verdicts import Status, TrainerRun

__all__ = ["render_html", "write_html"]

TEMPLATES = Path(__file__).parent / "templates"

# A cell in which everything went wrong differently would drown the page: after this many distinct
# findings the rest are counted, and the JSON report has them all.
FINDINGS = 3


def write_html(
    path: str | Path,
    runs: Sequence[TrainerRun],
    clauses: Mapping[str, Clause],
    profile: str,
    causes: Mapping[str, Sequence[Cause]] | None = None,
) -> None:
    """Write the page to `path`. It leads to the traces that lie beside it, `traces/TRAINER/SCENARIO.jsonl`."""
    Path(path).write_text(render_html(runs, clauses, profile, causes, Path(path).parent), encoding="utf-8")


def render_html(
    runs: Sequence[TrainerRun],
    clauses: Mapping[str, Clause],
    profile: str,
    causes: Mapping[str, Sequence[Cause]] | None = None,
    folder: Path | None = None,
) -> str:
    """The page as text, to be written as UTF-8. It begins with the `causes` of what fails, by trainer; it leads to the
    traces in `folder`."""

    def trace_of(trainer: str, scenario: str) -> str:
        trace = Path("traces", trainer, f"{scenario}.jsonl")
        return quote(trace.as_posix()) if folder is not None and (folder / trace).is_file() else ""

    environment = _environment()
    style = Markup(environment.get_template("style.css.j2").render(columns=len(runs)))
    script = Markup(environment.get_template("script.js.j2").render())
    matrix = families(runs, clauses)
    rows = [row for family in matrix.values() for row in family]
    cited = {reading.id for row in rows for reading in resting_on(row.clause.id)}
    return environment.get_template("report.html.j2").render(
        style=style,
        script=script,
        policy=f"default-src 'none'; img-src data:; style-src {_digest(style)}; script-src {_digest(script)}",
        runs=runs,
        findings=[(trainer, cause) for trainer, found in (causes or {}).items() for cause in found],
        known=[
            [row for level in LEVELS for row in rows if row.clause.level == level and row.cells[index].known]
            for index in range(len(runs))
        ],
        totals=[count(row.cells[index] for row in rows) for index in range(len(runs))],
        reached=[sum(row.cells[index].reached for row in rows) for index in range(len(runs))],
        matrix=matrix,
        levels=sorted({row.clause.level for row in rows}),
        readings=[row for row in readings().values() if row.id in cited],
        excluded=[clause for clause in clauses.values() if clause.excluded],
        profile=profile,
        suite=__version__,
        trace_of=trace_of,
    )


@lru_cache(maxsize=1)
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_finalize,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(slug=_slug, plural=plural, link=_link, prose=_prose)
    environment.globals.update(Status=Status, FINDINGS=FINDINGS)
    environment.globals.update(resting_on=resting_on, label=_label, departing=_departing, tally=_tally)
    return environment


def _finalize(value: object) -> object:
    """Every value that the template prints passes here before it is escaped; markup has already."""
    return value if isinstance(value, Markup) else printable(str(value))


def _digest(source: str) -> str:
    """What the content security policy calls an inline style or script that it allows."""
    digest = base64.b64encode(hashlib.sha256(source.encode()).digest()).decode()
    return f"'sha256-{digest}'"


def _slug(text: str) -> str:
    """`text` as an anchor: a clause's id stays as it is, and what has no place in a link becomes `-`."""
    return re.sub(r"[^\w.:@-]+", "-", text)


def _prose(text: str) -> Markup:
    """`text` with what it has in backticks set as code."""
    return Markup(re.sub(r"`([^`\n]+)`", r"<code>\1</code>", str(escape(printable(text)))))


def _link(text: str) -> Markup:
    """Evidence that is a web address can be followed; anything else is prose."""
    if re.fullmatch(r"https?://[^\s<>\"']+", text):
        return Markup('<a href="{0}" rel="noreferrer">{0}</a>').format(text)
    return _prose(text)


def _label(cell: Cell) -> str:
    """The words in a cell: its status, and out of how many scenarios where they do not all agree."""
    if cell.status is Status.NOT_APPLICABLE:
        return "not reached"
    if not cell.departs:
        return str(cell.status.value)
    total = len(cell.scenarios(*(status for status in Status if status is not Status.NOT_APPLICABLE)))
    return f"{cell.status.value} {len(cell.scenarios(cell.status))}/{total}"


def _departing(rows: Sequence[Row]) -> int:
    """How many of the clauses some trainer departs from."""
    return sum(row.departs for row in rows)


def _tally(counts: Counter[Status]) -> list[tuple[Status, int]]:
    """The counts worth a word, most severe first."""
    return [(status, counts[status]) for status in reversed(Status) if counts[status]]
