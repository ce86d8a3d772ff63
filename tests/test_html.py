"""The report as a page: its text, and what the system's browser makes of it."""

from __future__ import annotations

import base64
import hashlib
import re
import shutil
from collections import Counter
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from runs import (
    CLAUSES,
    CONTEXT,
    HOSTILE,
    NOTE,
    PROFILE,
    clause,
    every_status,
    fail,
    faultless,
    hostile,
    is_clean,
    joined,
    trainer,
)

from conformance.causes import Cause
from conformance.clauses import Clause, load_clauses
from conformance.readings import readings, resting_on
from conformance.report import render_html, write_html
from conformance.verdicts import Status, TrainerRun, Verdict


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
    broken, fine, known = (text for _, text in shown.all("li"))
    assert broken == (
        "broken@1.0 9.8.7 python 3.11.7 torch 2.1.0 9 verdicts 12.3 s "
        "! 1 error ✗ 2 fail ✓ 1 pass ○ 1 unsupported · 1 not reached"
    )
    assert fine.endswith("✓ 6 pass")
    assert known == f"train.known SHOULD {NOTE.text}"
    assert next(text for _, text in shown.all("summary")) == "1 known departure of broken@1.0"


def test_page_has_a_linkable_row_for_every_clause() -> None:
    shown = page(every_status(), faultless())
    ids = [attributes["id"] for attributes, _ in shown.all("tr") if "id" in attributes]
    assert ids == [name for name in CLAUSES if name != "val.advice"]
    targets = {attributes["href"] for attributes, _ in shown.all("a")}
    assert {f"#{name}" for name in ids} <= targets
    rows = [attributes for attributes, _ in shown.all("tr") if "id" in attributes]
    departing = {row["id"]: row["data-departs"].split() for row in rows}
    assert [name for name in departing if departing[name]] == ["train.order", "train.known", "val.broken"]
    assert departing["train.order"] == ["0"]  # the first trainer
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


def test_a_clause_leads_to_the_reading_that_it_rests_on() -> None:
    name = "skip.none.goes-on"
    run = TrainerRun("t", "1", {}, (Verdict("fit-none", name, Status.PASS),), 0.0)
    shown = page(run, clauses={name: load_clauses()[name]})
    [reading] = resting_on(name)
    assert f"#{reading.id}" in {attributes.get("href") for attributes, _ in shown.all("a")}
    terms = [text for attributes, text in shown.all("dt") if attributes.get("id") == reading.id]
    assert terms == [f"{reading.id}. {reading.title}"]
    [told] = [text for _, text in shown.all("dd") if text.startswith("Question: ")]
    assert "Reading: " in told and "Clauses: " not in told
    assert not [line for row in readings().values() for line in row.lines if "](" in line[1]]


def test_a_note_on_a_passing_cell_is_no_departure() -> None:
    """So that the page counts what the terminal does."""
    run = trainer("t", Verdict("plain", "train.known", Status.PASS), notes=(NOTE,))
    assert not [attributes for attributes, _ in page(run).all("tr") if attributes.get("data-departs")]
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


def test_the_page_begins_with_what_failures_come_down_to() -> None:
    runs, clauses = hostile()
    bad = runs[0].verdicts[0]
    told = {HOSTILE: [Cause(bad, [bad.clause, *(f"val.also{n}" for n in range(12))])]}
    source = render_html(runs, clauses, PROFILE, told)
    assert is_clean(source) and "<script>console.error" not in source
    findings = source.split("ui-findings")[2].split("</section>")[0]
    assert "1 finding" in findings and "with it 12 clauses: val.also0" in findings and "val.also7, ..." in findings
    assert "ui-findings" not in render_html(runs, clauses, PROFILE)


def test_the_page_leads_to_the_traces_beside_it(tmp_path: Path) -> None:
    run = every_status()
    scenario = next(v.scenario for v in run.verdicts if v.status is Status.FAIL and v.seq is not None)
    address = f"traces/{run.trainer}/{scenario}.jsonl"
    write_html(tmp_path / "report.html", [run], CLAUSES, PROFILE)
    assert "traces/" not in (tmp_path / "report.html").read_text(encoding="utf-8")
    (tmp_path / address).parent.mkdir(parents=True)
    (tmp_path / address).touch()
    write_html(tmp_path / "report.html", [run], CLAUSES, PROFILE)
    assert f'href="{quote(address)}"' in (tmp_path / "report.html").read_text(encoding="utf-8")


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


def open_all(tab: Any) -> None:
    """Open the families, which are closed at first."""
    assert visible_rows(tab) == []
    tab.evaluate("document.querySelectorAll('.family').forEach((family) => { family.open = true; })")


def visible_rows(tab: Any) -> list[str]:
    return [row.get_attribute("id") for row in tab.locator("tr[id]").all() if row.is_visible()]


def cell(tab: Any, name: str, column: int = 0) -> Any:
    return tab.locator(f"tr[id='{name}'] td").nth(column)


def test_browser_filters_clauses(opened: Any) -> None:
    open_all(opened)
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


def test_browser_filters_by_level_by_trainer_and_by_what_differs(opened: Any) -> None:
    opened.select_option("#ui-level", "SHOULD")
    levels = {row.get_attribute("data-level") for row in opened.locator("tr[id]").all() if row.is_visible()}
    assert levels == {"SHOULD"}
    opened.select_option("#ui-level", "")
    counts = {}
    for option in opened.locator("#ui-trainer option").all()[1:]:
        opened.select_option("#ui-trainer", option.get_attribute("value"))
        counts[option.inner_text()] = visible_rows(opened)
    assert len(counts) > 1 and len({*map(tuple, counts.values())}) > 1, counts
    assert {"train.order", "val.broken"} <= {*next(iter(counts.values()))}
    opened.select_option("#ui-trainer", "")
    opened.check("#ui-differs")
    differing = visible_rows(opened)
    assert 0 < len(differing) < 7 and "val.silent" not in differing


def test_browser_opens_a_cell_by_keyboard_and_makes_room_for_it(opened: Any) -> None:
    open_all(opened)
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
    open_all(opened)
    left, right = cell(opened, "train.known"), cell(opened, "train.known", 2)
    left.locator("summary").click()
    right.locator("summary").click()
    right.locator(".panel").wait_for(state="visible")
    left.locator(".panel").wait_for(state="hidden")


def test_browser_follows_a_link_into_a_closed_family(opened: Any) -> None:
    opened.fill("#ui-filter", "train.order")
    assert visible_rows(opened) == ["train.order"]
    opened.evaluate("location.hash = '#val.broken'")
    opened.locator("tr[id='val.broken']").wait_for(state="visible")
    assert opened.locator("#ui-shown").inner_text() == "7 of 7 clauses"


def test_browser_needs_no_script(browser: Any, tmp_path: Path) -> None:
    write_html(tmp_path / "report.html", [every_status()], CLAUSES, PROFILE)
    context = browser.new_context(java_script_enabled=False)
    tab = context.new_page()
    tab.goto((tmp_path / "report.html").as_uri())
    assert not tab.locator(".controls").is_visible()
    tab.locator(".family > summary").first.click()
    cell(tab, "train.order").locator("summary").click()
    assert cell(tab, "train.order").locator(".panel").is_visible()
    header = tab.locator("thead th").first.evaluate("element => getComputedStyle(element).position")
    assert header == "static", "a header that sticks would lie over the panel, which has no room of its own"
    context.close()
