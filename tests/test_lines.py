"""One line of a trace, and what becomes of a damaged file: against an oracle, and against the schema."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema  # type: ignore[import-untyped]
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tracefiles import (
    EVENT_ROW,
    FOOTER_ROW,
    HEADER_ROW,
    event_rows,
    footer_rows,
    header_rows,
    known_effects,
    read,
    refusal,
    text,
    values,
    with_event,
)

from conformance.trace import TraceError

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parent.parent
SCHEMA = json.loads((ROOT / "conformance/spec/trace.schema.json").read_text(encoding="utf-8"))


def validator(kind: str) -> jsonschema.Draft202012Validator:
    return jsonschema.Draft202012Validator({"$ref": f"#/$defs/{kind}", "$defs": SCHEMA["$defs"]})


VALIDATORS = {kind: validator(kind) for kind in ("header", "event", "footer")}
INTEGERS = ("version", "events", "seq", "rank", "depth")
INTEGER_EFFECTS = ("global_step", "current_epoch", "params")


def strict_object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    assert len({name for name, _ in pairs}) == len(pairs)
    return dict(pairs)


def integers_have_no_fraction(row: dict[str, Any]) -> bool:
    """The one thing about a value that JSON Schema cannot say: 1.0 is an integer to it."""
    fx = row.get("fx", {})
    given = [row.get(name) for name in INTEGERS] + [fx.get(name) for name in INTEGER_EFFECTS]
    return not any(isinstance(value, float) for value in given)


def schema_accepts(kind: str, row: Any) -> bool:
    return VALIDATORS[kind].is_valid(row) and integers_have_no_fraction(row)


def oracle(data: bytes) -> bool:
    """Whether this is a trace, worked out a second time: by the schema, on the whole file in memory."""
    lines = data.split(b"\n")
    if lines[-1] == b"":
        lines.pop()
    try:
        rows = [json.loads(line.decode("utf-8"), object_pairs_hook=strict_object) for line in lines]
        json.dumps(rows, ensure_ascii=False, allow_nan=False).encode("utf-8")
    except (ValueError, AssertionError, RecursionError):
        return False
    if len(rows) < 2:
        return False
    kinds = ["header"] + ["event"] * (len(rows) - 2) + ["footer"]
    return (
        all(schema_accepts(kind, row) for kind, row in zip(kinds, rows, strict=True))
        and [row["seq"] for row in rows[1:-1]] == list(range(len(rows) - 2))
        and rows[-1]["events"] == len(rows) - 2
    )


def accepts(path: Path, data: bytes) -> bool:
    path.write_bytes(data)
    try:
        read(path)
    except TraceError:
        return False
    return True


VALID = text(
    HEADER_ROW,
    EVENT_ROW,
    {**EVENT_ROW, "seq": 1, "ph": "E", "receiver": "module", "fx": {}},
    {"seq": 2, "ph": "I", "rank": 1, "receiver": "optimizer:0", "hook": "step", "depth": 0},
    {"events": 3, "outcome": "raised", "error": "RuntimeError: bööm \U0001f600"},
)
OTHER = text(HEADER_ROW, {**EVENT_ROW, "hook": "setup", "args": {}}, FOOTER_ROW)
GLUE = [
    b"",
    b" ",
    b"\n",
    b"\r\n",
    b"\0",
    b"\xff",
    b'"',
    b"\\",
    b"\\ud800",
    b"{",
    b"}",
    b"[",
    b"0",
    b"-",
    b".",
    b"e9",
]
GLUE += [b"true", b"null", b"NaN", b"1e999", b'"seq":0,', b'"x":1,', b",", b":", b"\xef\xbb\xbf", b"9" * 400]


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """A valid trace with one to three pieces replaced, lost, repeated, moved, or taken from another trace."""
    data = VALID
    for _ in range(draw(st.integers(1, 3))):
        start = draw(st.integers(0, len(data)))
        end = min(len(data), start + draw(st.sampled_from([0, 0, 1, 1, 2, 5, 40, 10_000])))
        piece = draw(
            st.sampled_from(GLUE) | st.binary(max_size=2) | st.just(data[start:end] * 2) | pieces(OTHER)
        )
        data = data[:start] + piece + data[end:]
    return data


@st.composite
def pieces(draw: st.DrawFn, source: bytes) -> bytes:
    start, end = sorted(draw(st.tuples(st.integers(0, len(source)), st.integers(0, len(source)))))
    return source[start:end]


@st.composite
def shuffled(draw: st.DrawFn) -> bytes:
    """The lines of two valid traces: some lost, some repeated, in some order."""
    lines = VALID.splitlines(keepends=True) + OTHER.splitlines(keepends=True)
    return b"".join(draw(st.lists(st.sampled_from(lines), max_size=7)))


def test_the_oracle_accepts_what_is_valid(file: Path) -> None:
    for data in (VALID, OTHER, with_event(), VALID[:-1]):
        assert oracle(data)
        assert accepts(file, data)


@settings(max_examples=600)
@given(damaged() | shuffled() | st.binary(max_size=50))
def test_a_damaged_trace_is_refused_or_still_valid(file: Path, data: bytes) -> None:
    assert accepts(file, data) == oracle(data)


def test_every_truncation_is_refused(file: Path) -> None:
    for length in range(len(VALID) - 1):
        refusal(file, VALID[:length])
    assert accepts(file, VALID[:-1])  # all but the last newline


junk = values | st.sampled_from(
    [
        {},
        [],
        [[]],
        {"a": 1},
        [{}],
        -1,
        1.5,
        True,
        False,
        0,
        1,
        2,
        2**53,
        10**309,
        "",
        "module\n",
        "callback:",
        "optimizer:10000",
        "returned",
        "raised",
        "B",
        "none",
        None,
        [1, None],
        ["a"],
        [""],
    ]
)


@st.composite
def mutated(draw: st.DrawFn, rows: st.SearchStrategy[dict[str, Any]]) -> dict[str, Any]:
    """A valid row, as it is or with one thing changed, at any depth: a value, a key dropped or added."""
    row: dict[str, Any] = json.loads(json.dumps(draw(rows)))
    if draw(st.integers(0, 4)) == 0:
        return row
    target = row
    while True:
        inner = [value for value in target.values() if isinstance(value, dict)]
        if not inner or draw(st.booleans()):
            break
        target = draw(st.sampled_from(inner))
    key = draw(st.sampled_from([*target, "extra", *known_effects]))
    if key in target and draw(st.integers(0, 3)) == 0:
        del target[key]
    else:
        target[key] = draw(junk)
    return row


@pytest.mark.parametrize(
    ("kind", "rows"), [("header", header_rows), ("event", event_rows), ("footer", footer_rows)]
)
def test_reader_and_schema_agree_on_every_line(
    file: Path, kind: str, rows: st.SearchStrategy[dict[str, Any]]
) -> None:
    number = {"header": 1, "event": 2, "footer": 3}[kind]

    @settings(max_examples=400)
    @given(mutated(rows))
    def agree(row: dict[str, Any]) -> None:
        if row.get("seq") not in (0, None) or row.get("events") not in (1, None):
            return  # which number is right is for the file to say, not for the line
        lines = [HEADER_ROW, EVENT_ROW, FOOTER_ROW]
        lines[number - 1] = row
        file.write_bytes(text(*lines))
        accepted, why = True, ""
        try:
            read(file)
        except TraceError as error:
            accepted, why = error.line != number, str(error)
        assert accepted == schema_accepts(kind, row), why

    agree()


def test_a_line_is_of_one_kind(file: Path) -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    whole = jsonschema.Draft202012Validator(SCHEMA)
    for row in (HEADER_ROW, EVENT_ROW, FOOTER_ROW):
        whole.validate(row)
    assert not whole.is_valid({})


def test_an_integer_with_a_fraction_is_where_schema_and_reader_differ(file: Path) -> None:
    row = {**EVENT_ROW, "rank": 1.0}
    assert VALIDATORS["event"].is_valid(row)
    assert "rank is 1.0" in refusal(file, with_event(rank=1.0)).message
