"""Trace files: what is written is read back, what is refused, and in which words."""

from __future__ import annotations

import errno
import json
import os
import pickle
import re
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tracefiles import (
    EVENT_ROW,
    FOOTER_ROW,
    HEADER,
    HEADER_ROW,
    event_rows,
    footer_rows,
    header_rows,
    measured,
    read,
    refusal,
    text,
    with_event,
)

import conformance.trace
from conformance.lines import MAX_LINE, MAX_NESTING
from conformance.trace import (
    Event,
    Footer,
    Header,
    TraceError,
    TraceWriter,
    open_trace,
)

ROOT = Path(__file__).parent.parent
# ---- what is written can be read -------------------------------------------------------------

@settings(max_examples=60)
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
    "trainable": (with_event(fx={"trainable": ["0"]}), 2, 'an item of fx "trainable" is "0"; accepted: a number'),
    "metrics": (with_event(fx={"metrics": 5}), 2, 'fx "metrics" is 5; accepted: a list of strings'),
    "metrics of numbers": (with_event(fx={"metrics": [5]}), 2, 'an item of fx "metrics" is 5; accepted: a string'),
    "values": (with_event(fx={"values": "nan"}), 2, 'fx "values" is "nan"; accepted: a list of values'),
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
        assert tracemalloc.get_traced_memory()[1] < 8 * MAX_LINE  # far above what other threads may hold
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


@pytest.mark.slow
def test_a_long_trace_is_read_in_constant_memory(file: Path) -> None:
    events = 100_000
    row = '{"seq":%d,"ph":"I","rank":0,"receiver":"module","hook":"forward","depth":0}\n'
    with file.open("w", encoding="utf-8") as out:
        out.write(json.dumps(HEADER_ROW) + "\n")
        out.writelines(row % seq for seq in range(events))
        out.write(json.dumps({**FOOTER_ROW, "events": events}) + "\n")
    read_events, held = measured("from conformance.trace import open_trace", "sum(1 for _ in open_trace(*given))", file)
    assert read_events == events
    assert held < events  # in bytes: less than one for each
    file.unlink()


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
