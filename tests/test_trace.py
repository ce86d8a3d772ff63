"""The trace format: what the reader accepts, what it says of the rest, and that the schema agrees."""

from __future__ import annotations

import ast
import errno
import json
import os
import pickle
import re
import sys
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema  # type: ignore[import-untyped]
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import conformance.trace
from conformance.trace import (
    MAX_LINE,
    MAX_NESTING,
    Event,
    Footer,
    Header,
    TraceError,
    TraceWriter,
    open_trace,
)

ROOT = Path(__file__).parent.parent
SCHEMA = json.loads((ROOT / "conformance/spec/trace.schema.json").read_text(encoding="utf-8"))
HEADER = Header(
    suite="0.1.0",
    scenario={"name": "plain", "epochs": 1, "optimizers": [{"lr": 0.1, "params": ["w"]}]},
    trainer={"name": "refimpl", "version": "0.1.0"},
    declares={"hooks": ["training_step"], "effects": ["training", "lr"]},
    environment={"python": "3.11", "torch": "2.0"},
)
HEADER_ROW: dict[str, Any] = {"format": "refimpl-trace", "version": 1, **HEADER._asdict()}
EVENT_ROW: dict[str, Any] = {
    "seq": 0,
    "ph": "B",
    "rank": 0,
    "receiver": "callback:3",
    "hook": "on_train_batch_start",
    "depth": 2,
    "args": {"batch": "train/0/3", "batch_idx": 3, "raised": None, "pair": [1, "a", 0.5, None, True]},
    "fx": {
        "training": True,
        "grad_enabled": True,
        "global_step": 3,
        "current_epoch": 0,
        "grads": "set",
        "params": 3,
        "lr": [0.1, 1],
        "device": "cpu",
        "stage": None,
        "own_effect": "x",
    },
}
FOOTER_ROW: dict[str, Any] = {"events": 1, "outcome": "returned", "error": ""}


def text(*rows: object) -> bytes:
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)


def with_event(**changes: object) -> bytes:
    return text(HEADER_ROW, {**EVENT_ROW, **changes}, FOOTER_ROW)


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A path for one trace after another; of module scope, for hypothesis runs a test many times."""
    return tmp_path_factory.mktemp("trace") / "t.jsonl"


def read(path: Path) -> tuple[Header, list[Event], Footer]:
    reader = open_trace(path)
    events = list(reader)
    return reader.header, events, reader.footer


def refusal(path: Path, data: bytes) -> TraceError:
    path.write_bytes(data)
    with pytest.raises(TraceError) as caught:
        read(path)
    assert caught.value.path == str(path)
    assert str(caught.value) == f"{path}:{caught.value.line}: {caught.value.message}"
    return caught.value


# ---- what is written can be read -------------------------------------------------------------

identifiers = st.from_regex(r"[A-Za-z_][A-Za-z0-9_]{0,8}", fullmatch=True)
scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.text(max_size=8)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.sampled_from([2**53, 10**300, -(10**300), "nan", ""])
)
values = scalars | st.lists(scalars, max_size=3)
receivers = st.sampled_from(
    [
        "module",
        "datamodule",
        "trainer",
        "optimizer",
        "scheduler",
        "callback:0",
        "callback:9999",
        "optimizer:1",
    ]
)
counts = st.integers(0, 2**53 - 1)
known_effects: dict[str, st.SearchStrategy[Any]] = {
    "training": st.booleans(),
    "grad_enabled": st.booleans(),
    "global_step": st.integers(),
    "current_epoch": st.integers(),
    "grads": st.sampled_from(["none", "zero", "set"]),
    "params": st.integers(0),
    "lr": st.lists(st.floats(allow_nan=False, allow_infinity=False) | st.integers(0, 9), max_size=3),
    "device": st.text(max_size=5),
    "stage": st.none() | st.text(max_size=5),
}
args = st.dictionaries(identifiers | st.text(max_size=3), values, max_size=3)
effects = st.builds(
    lambda own, known: {**{k: v for k, v in own.items() if k not in known_effects}, **known},
    args,
    st.fixed_dictionaries({}, optional=known_effects),
)
event_rows = st.fixed_dictionaries(
    {
        "seq": st.just(0),
        "ph": st.sampled_from("BEI"),
        "rank": counts,
        "receiver": receivers,
        "hook": identifiers,
        "depth": counts,
    },
    optional={"args": args, "fx": effects},
)
json_values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
)
names = st.text(min_size=1, max_size=5)
header_rows = st.fixed_dictionaries(
    {
        "format": st.just("refimpl-trace"),
        "version": st.just(1),
        "suite": names,
        "scenario": st.builds(
            lambda rest, name: {**rest, "name": name},
            st.dictionaries(st.text(max_size=3), json_values, max_size=3),
            names,
        ),
        "trainer": st.fixed_dictionaries({"name": names, "version": st.text(max_size=5)}),
        "declares": st.fixed_dictionaries(
            {"hooks": st.lists(names, max_size=3), "effects": st.lists(names, max_size=3)}
        ),
        "environment": st.dictionaries(st.text(max_size=5), st.text(max_size=5), max_size=3),
    }
)
footer_rows = st.just({"events": 1, "outcome": "returned", "error": ""}) | st.fixed_dictionaries(
    {"events": st.just(1), "outcome": st.just("raised"), "error": st.text(max_size=5)}
)


@settings(deadline=None, max_examples=60)
@given(header_rows, st.lists(event_rows, max_size=4), footer_rows)
def test_what_is_written_is_read_back(
    file: Path, header: dict[str, Any], events: list[dict[str, Any]], footer: dict[str, Any]
) -> None:
    own = Header(**{key: value for key, value in header.items() if key in Header._fields})
    with TraceWriter(file, own) as writer:
        for row in events:
            writer.event(**{key: value for key, value in row.items() if key != "seq"})
        writer.close(footer["outcome"], footer["error"])
    expected = [Event(**{"args": {}, "fx": {}, **row, "seq": seq}) for seq, row in enumerate(events)]
    assert read(file) == (own, expected, Footer(len(events), footer["outcome"], footer["error"]))


def test_an_event_as_it_is_read(file: Path) -> None:
    file.write_bytes(with_event())
    header, events, footer = read(file)
    assert header == HEADER
    assert events == [Event(**EVENT_ROW)]
    assert footer == Footer(1, "returned", "")


def test_whitespace_crlf_and_a_missing_last_newline_change_nothing(file: Path) -> None:
    file.write_bytes(with_event())
    plain = read(file)
    loose = b"\n".join(b" \t" + line + b" \r" for line in with_event().splitlines())
    file.write_bytes(loose)
    assert read(file) == plain


def test_the_footer_is_known_only_at_the_end_and_a_trace_is_read_once(file: Path) -> None:
    file.write_bytes(with_event())
    with open_trace(file) as reader:
        with pytest.raises(TraceError, match="known once all events were read"):
            _ = reader.footer
        assert len(list(reader)) == 1
        assert reader.footer.events == 1
        with pytest.raises(TraceError, match="read once per open_trace"):
            iter(reader)


def test_a_reader_closed_early_says_so(file: Path) -> None:
    file.write_bytes(with_event())
    with open_trace(file) as reader:
        pass
    with pytest.raises(TraceError, match=r"cannot be read: .*closed"):
        next(iter(reader))


# ---- what is refused, and in which words -----------------------------------------------------

SECOND = {**HEADER_ROW, "version": 2}
REFUSED: dict[str, tuple[bytes, int, str]] = {
    "empty": (b"", 0, "the file is empty"),
    "blank": (b"\n", 1, "is blank"),
    "blank line": (text(HEADER_ROW) + b"\n" + text(FOOTER_ROW), 2, "is blank"),
    "byte order mark": (b"\xef\xbb\xbf" + with_event(), 1, "byte order mark"),
    "utf-16": (with_event().decode().encode("utf-16"), 1, "UTF-16"),
    "utf-16 without a mark": (with_event().decode().encode("utf-16-le"), 1, "NUL bytes"),
    "gzip": (b"\x1f\x8b\x08\x00\x00", 1, "compressed by gzip"),
    "binary": (b"\x7fELF\x02\0\0\0\n", 1, "NUL bytes"),
    "invalid UTF-8": (text(HEADER_ROW) + b'{"seq":"\xff"}\n', 2, "not UTF-8: byte 9 of the line is 0xff"),
    "half a pair": (text(HEADER_ROW) + b'{"seq":"\\uD800"}\n', 2, "half of a surrogate pair"),
    "not json": (text(HEADER_ROW) + b"{'seq': 0}\n", 2, "is not JSON: .* at column 2"),
    "two objects": (text(HEADER_ROW) + b"{} {}\n", 2, "more follows the object at column 3"),
    "cut off in a line": (with_event()[:-5], 3, "cut off in the middle of this line"),
    "not an object": (text(HEADER_ROW, [1, 2]), 2, "is a list of 2; accepted: a JSON object"),
    "a number": (b"7\n", 1, "is 7; accepted: a JSON object"),
    "nested lists": (b"[" * 200_000 + b"\n", 1, "nested too deeply"),
    "nested objects": (b'{"a":' * 100_000 + b"\n", 1, "nested too deeply"),
    "NaN": (with_event(args={"x": float("nan")}), 2, "NaN is not JSON"),
    "-Infinity": (with_event(fx={"lr": [float("-inf")]}), 2, "-Infinity is not JSON"),
    "too great a float": (
        with_event(args={"x": "?"}).replace(b'"?"', b"1e400"),
        2,
        'args "x" is Infinity; accepted: .*finite',
    ),
    "too great an int": (with_event(args={"x": [10**400]}), 2, r'item of args "x" is 10+\.\.\. \(401 char'),
    "thousands of digits": (
        with_event(args={"x": "?"}).replace(b'"?"', b"1" * 5000),
        2,
        "(thousands of digits|5000 char)",
    ),
    "key twice": (
        with_event().replace(b'"ph": "B"', b'"ph": "B", "ph": "E"'),
        2,
        'the key "ph" occurs twice',
    ),
    "key twice in args": (with_event().replace(b'"raised"', b'"batch"'), 2, 'the key "batch" occurs twice'),
    "no header": (text(EVENT_ROW, FOOTER_ROW), 1, 'is no header: "format" is missing'),
    "other format": (
        text({**HEADER_ROW, "format": "junit"}),
        1,
        '"format" is "junit"; accepted: "refimpl-trace"',
    ),
    "other version": (text(SECOND), 1, "format version is 2; accepted: version 1"),
    "version true": (text({**HEADER_ROW, "version": True}), 1, "format version is true; accepted: version 1"),
    "version with new keys": (text({**SECOND, "new": 1}), 1, "format version is 2; accepted: version 1"),
    "header lacks": (
        text({"format": "refimpl-trace", "version": 1}),
        1,
        "header lacks declares, environment",
    ),
    "header has more": (
        text({**HEADER_ROW, "extra": 1}),
        1,
        'header has unknown keys "extra"; accepted: declares',
    ),
    "suite": (text({**HEADER_ROW, "suite": ""}), 1, 'suite is ""; accepted: a string that is not empty'),
    "scenario": (text({**HEADER_ROW, "scenario": "plain"}), 1, 'scenario is "plain"; accepted: an object'),
    "scenario nameless": (text({**HEADER_ROW, "scenario": {}}), 1, "scenario.name is null"),
    "trainer": (text({**HEADER_ROW, "trainer": {"name": "x"}}), 1, "trainer lacks version"),
    "declares": (text({**HEADER_ROW, "declares": {"hooks": [1], "effects": []}}), 1, "declares.hooks is 1"),
    "environment": (
        text({**HEADER_ROW, "environment": {"gpus": 2}}),
        1,
        'environment "gpus" is 2; accepted: a str',
    ),
    "second header": (text(HEADER_ROW, HEADER_ROW), 2, r"second header \(version 1\): traces were joined"),
    "mixed versions": (text(HEADER_ROW, SECOND), 2, r"second header \(version 2\): traces were joined"),
    "no footer": (text(HEADER_ROW, EVENT_ROW), 2, "cut off after line 2: its footer is missing"),
    "header alone": (text(HEADER_ROW), 1, "cut off after line 1"),
    "event lost": (text(HEADER_ROW, FOOTER_ROW), 2, "the footer counts 1 events, but 0 precede it"),
    "after the footer": (with_event() + b"\n", 4, "follows the footer, which must be the last line$"),
    "joined": (with_event() * 2, 4, "follows the footer.*; traces were joined"),
    "footer lacks": (text(HEADER_ROW, {"events": 0}), 2, "footer lacks error, outcome"),
    "outcome": (
        text(HEADER_ROW, {**FOOTER_ROW, "events": 0, "outcome": "ok"}),
        2,
        'outcome is "ok"; accepted: "ret',
    ),
    "returned, with an error": (
        text(HEADER_ROW, {**FOOTER_ROW, "events": 0, "error": "x"}),
        2,
        'error is "x"; accepted: "" when',
    ),
    "events true": (
        text(HEADER_ROW, {**FOOTER_ROW, "events": True}),
        2,
        "events is true; accepted: an integer",
    ),
    "seq gap": (with_event(seq=1), 2, "seq is 1; accepted: 0 here"),
    "seq true": (with_event(seq=False), 2, "seq is false; accepted: 0 here"),
    "seq a float": (with_event(seq=0.0), 2, "seq is 0.0; accepted: 0 here"),
    "ph": (with_event(ph="X"), 2, r'ph is "X"; accepted: "B" \(begin\)'),
    "ph a list": (with_event(ph=["B"]), 2, "ph is a list of 1"),
    "rank": (with_event(rank=-1), 2, "rank is -1; accepted: an integer from 0"),
    "rank true": (with_event(rank=True), 2, "rank is true"),
    "depth": (with_event(depth=2**53), 2, "depth is 9007199254740992"),
    "receiver": (with_event(receiver="callback"), 2, 'receiver is "callback"; accepted: module, datamodule'),
    "receiver's number": (with_event(receiver="callback:07"), 2, 'receiver is "callback:07"'),
    "receiver's digits": (with_event(receiver="callback:\u0663"), 2, "receiver is"),
    "receiver and newline": (with_event(receiver="module\n"), 2, r'receiver is "module\\n"'),
    "receiver null": (with_event(receiver=None), 2, "receiver is null"),
    "hook": (with_event(hook="on train"), 2, 'hook is "on train"; accepted: an ASCII identifier'),
    "hook and newline": (with_event(hook="on_train\n"), 2, "hook is"),
    "hook not ASCII": (with_event(hook="é"), 2, "hook is"),
    "hook missing": (
        text(HEADER_ROW, {k: v for k, v in EVENT_ROW.items() if k != "hook"}),
        2,
        "event lacks hook",
    ),
    "event has more": (with_event(loss=1, ts=2), 2, 'event has unknown keys "loss", "ts"; accepted: args'),
    "args null": (with_event(args=None), 2, "args is null; accepted: an object"),
    "args nested": (with_event(args={"x": {}}), 2, 'args "x" is an object of 0 keys; accepted: null, true'),
    "args nested list": (with_event(args={"x": [[1]]}), 2, 'an item of args "x" is a list of 1'),
    "fx a list": (with_event(fx=[]), 2, "fx is a list of 0"),
    "training 1": (with_event(fx={"training": 1}), 2, 'fx "training" is 1; accepted: true or false'),
    "training null": (with_event(fx={"training": None}), 2, 'fx "training" is null; accepted: true or false'),
    "global_step": (
        with_event(fx={"global_step": True}),
        2,
        'fx "global_step" is true; accepted: an integer',
    ),
    "grads": (with_event(fx={"grads": "nonzero"}), 2, 'fx "grads" is "nonzero"; accepted: "none", "zero" or'),
    "lr": (with_event(fx={"lr": 0.1}), 2, 'fx "lr" is 0.1; accepted: a list of numbers'),
    "lr of strings": (with_event(fx={"lr": ["0.1"]}), 2, 'an item of fx "lr" is "0.1"; accepted: a number'),
    "stage": (with_event(fx={"stage": 3}), 2, 'fx "stage" is 3; accepted: a string or null'),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused(file: Path, name: str) -> None:
    data, line, message = REFUSED[name]
    error = refusal(file, data)
    assert (error.line, bool(re.search(message, error.message))) == (line, True), error


def test_scenarios_nest_only_so_deep(file: Path) -> None:
    def nested(levels: int) -> bytes:
        value: object = 1
        for _ in range(levels):
            value = [value]
        return text({**HEADER_ROW, "scenario": {"name": "x", "deep": value}}, {**FOOTER_ROW, "events": 0})

    file.write_bytes(nested(MAX_NESTING - 2))
    read(file)
    assert "scenario is nested too deeply" in refusal(file, nested(MAX_NESTING)).message
    infinite = nested(3).replace(b"[1]", b"[1e400]")
    assert "scenario: a number is Infinity" in refusal(file, infinite).message


def test_a_long_line_is_accepted_up_to_the_limit(file: Path) -> None:
    room = MAX_LINE - len(text({**EVENT_ROW, "args": {"x": ""}}))
    file.write_bytes(with_event(args={"x": "a" * room}))
    assert len(read(file)[1]) == 1
    error = refusal(file, with_event(args={"x": "a" * (room + 1)}))
    assert (error.line, error.message) == (
        2,
        f"is longer than {MAX_LINE} bytes; accepted: lines up to that length",
    )


def test_a_huge_line_is_refused_without_being_read(file: Path) -> None:
    file.write_bytes(text(HEADER_ROW))
    os.truncate(file, 2**30)  # sparse: a GiB that takes no room
    tracemalloc.start()
    try:
        with pytest.raises(TraceError, match="is longer than"):
            read(file)
        assert tracemalloc.get_traced_memory()[1] < 8 * MAX_LINE
    finally:
        tracemalloc.stop()
        file.unlink()


def test_files_that_cannot_be_opened_or_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for path, message in [
        (tmp_path / "none.jsonl", "cannot be opened: No such file"),
        (tmp_path, "cannot be opened: Is a directory"),
        (tmp_path / "a\0b", "cannot be opened: embedded null"),
    ]:
        with pytest.raises(TraceError, match=message) as caught:
            open_trace(path)
        assert caught.value.line == 0

    def denied(*_: object) -> object:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(conformance.trace, "open", denied, raising=False)
    with pytest.raises(TraceError, match="cannot be opened: Permission denied"):
        open_trace("t.jsonl")

    class Broken:
        def readline(self, size: int) -> bytes:
            raise OSError(errno.EIO, "Input/output error")

        def close(self) -> None: ...

    monkeypatch.setattr(conformance.trace, "open", lambda *_: Broken(), raising=False)
    with pytest.raises(TraceError, match="cannot be read: Input/output error"):
        open_trace("t.jsonl")


# ---- the reader against an oracle, and against the schema ------------------------------------


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


@settings(deadline=None, max_examples=600)
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

    @settings(deadline=None, max_examples=400)
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


# ---- the writer ------------------------------------------------------------------------------


def test_writing_to_an_open_file_leaves_it_open(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    with path.open("w", encoding="utf-8") as file:
        with TraceWriter(file, HEADER) as writer:
            writer.event("I", "trainer", "fit", 0, {"names": ("a", "b")})
        assert not file.closed
    assert read(path)[1] == [Event(0, "I", 0, "trainer", "fit", 0, {"names": ["a", "b"]}, {})]


def test_a_recorder_that_breaks_leaves_a_trace_that_reads_as_cut_off(file: Path) -> None:
    with pytest.raises(KeyError), TraceWriter(file, HEADER) as writer:
        writer.event("I", "trainer", "fit", 0)
        raise KeyError("bug")
    with pytest.raises(TraceError, match="cut off after line 2"):
        read(file)


def test_what_is_malformed_is_not_written(file: Path) -> None:
    circular: list[object] = []
    circular.append(circular)
    bad: dict[str, tuple[dict[str, Any], str]] = {
        "ph": ({"ph": "X"}, 'ph is "X"'),
        "rank": ({"rank": -1}, "rank is -1"),
        "nan": ({"args": {"loss": float("nan")}}, "not JSON compliant"),
        "object": ({"args": {"batch": object()}}, "object is not JSON serializable"),
        "nested": ({"args": {"batch": {"x": 1}}}, 'args "batch" is an object'),
        "circular": ({"args": {"batch": circular}}, "[Cc]ircular"),
        "half a pair": ({"args": {"raised": "\ud800"}}, "half of a surrogate pair"),
        "key twice": ({"args": {1: 1, "1": 2}}, 'the key "1" occurs twice'),
        "fx": ({"fx": {"training": 1}}, 'fx "training" is 1'),
        "long": ({"args": {"raised": "x" * MAX_LINE}}, f"lines up to {MAX_LINE} bytes"),
    }
    with TraceWriter(file, HEADER) as writer:
        for change, message in bad.values():
            with pytest.raises(TraceError, match=message) as caught:
                writer.event(**{"ph": "B", "receiver": "module", "hook": "forward", "depth": 0, **change})
            assert (caught.value.path, caught.value.line) == (str(file), 2)
        with pytest.raises(TraceError, match='outcome is "done"'):
            writer.close("done")
        with pytest.raises(TraceError, match='error is "x"'):
            writer.close("returned", "x")
    assert read(file)[1:] == ([], Footer(0, "returned", ""))


def test_nothing_follows_the_footer(file: Path) -> None:
    writer = TraceWriter(file, HEADER)
    writer.close("raised", "RuntimeError: boom")
    with pytest.raises(TraceError, match="nothing can follow its footer"):
        writer.event("I", "trainer", "fit", 0)
    with pytest.raises(TraceError, match="nothing can follow its footer"):
        writer.close("returned")
    assert read(file)[2] == Footer(0, "raised", "RuntimeError: boom")


def test_a_malformed_header_touches_no_file(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    with pytest.raises(TraceError, match=r"scenario\.name is null"):
        TraceWriter(path, HEADER._replace(scenario={}))
    assert not path.exists()


# ---- where it runs ---------------------------------------------------------------------------


def test_a_long_trace_is_read_in_constant_memory(file: Path) -> None:
    events = 100_000
    row = '{"seq":%d,"ph":"I","rank":0,"receiver":"module","hook":"forward","depth":0}\n'
    with file.open("w", encoding="utf-8") as out:
        out.write(json.dumps(HEADER_ROW) + "\n")
        out.writelines(row % seq for seq in range(events))
        out.write(json.dumps({**FOOTER_ROW, "events": events}) + "\n")
    reader = open_trace(file)
    tracemalloc.start()
    try:
        assert sum(1 for _ in reader) == events
        assert tracemalloc.get_traced_memory()[1] < events  # in bytes: less than one for each
    finally:
        tracemalloc.stop()
        file.unlink()


def test_the_format_needs_only_an_old_python() -> None:
    source = Path(conformance.trace.__file__).read_text(encoding="utf-8")
    tree = ast.parse(source, feature_version=(3, 8))
    imported = {
        (node.module or "") if isinstance(node, ast.ImportFrom) else alias.name
        for node in ast.walk(tree)
        if isinstance(node, (ast.Import, ast.ImportFrom))
        for alias in node.names
    }
    assert {name.split(".")[0] for name in imported} <= sys.stdlib_module_names


def documented_traces() -> Iterator[str]:
    page = (ROOT / "docs/traces.md").read_text(encoding="utf-8")
    yield from re.findall(r"^```jsonl\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)


def test_the_documented_traces_are_traces(file: Path) -> None:
    traces = list(documented_traces())
    assert traces
    for trace in traces:
        file.write_text(trace, encoding="utf-8")
        read(file)


def test_errors_survive_pickling() -> None:
    error = TraceError("t.jsonl", 3, "is blank")
    again = pickle.loads(pickle.dumps(error))
    assert (str(again), again.line, again.message) == ("t.jsonl:3: is blank", 3, "is blank")
