"""The first divergence of two traces: found where it is, told in words."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tracefiles import measured

from conformance.diff import AFTER, BEFORE, Divergence, diff, render
from conformance.trace import Event, Header, TraceError, TraceWriter

HEADER = Header(
    "0.1.0", {"name": "plain"}, {"name": "one", "version": "1.0"}, {"hooks": [], "effects": []}, {}
)
Row = dict[str, Any]


def row(hook: str, ph: str = "B", receiver: str = "module", **more: Any) -> Row:
    return {"ph": ph, "receiver": receiver, "hook": hook, "depth": 0, **more}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("diff")


def write(
    path: Path, rows: list[Row], header: Header = HEADER, outcome: str = "returned", error: str = ""
) -> Path:
    with TraceWriter(path, header) as writer:
        for event in rows:
            writer.event(**event)
        writer.close(outcome, error)
    return path


def compare(folder: Path, a: list[Row], b: list[Row], effects: bool = True) -> Divergence | None:
    return diff(write(folder / "a.jsonl", a), write(folder / "b.jsonl", b), effects)


def sentence(folder: Path, a: list[Row], b: list[Row], effects: bool = True) -> str:
    found = compare(folder, a, b, effects)
    assert found is not None
    return found.sentence


def test_equal_traces_do_not_diverge(folder: Path) -> None:
    rows = [row("setup", args={"stage": "fit"}), row("setup", "E")]
    assert compare(folder, rows, rows) is None
    assert compare(folder, [], []) is None


def test_trainer_suite_and_environment_may_differ(folder: Path) -> None:
    other = HEADER._replace(suite="9", trainer={"name": "two", "version": ""}, environment={"x": "y"})
    assert diff(write(folder / "a.jsonl", []), write(folder / "b.jsonl", [], other)) is None


START = row("on_train_batch_start", args={"batch_idx": 1})
SENTENCES: dict[str, tuple[Row, Row, str]] = {
    "hook": (
        START,
        row("on_before_batch_transfer"),
        "A begins module.on_train_batch_start(batch_idx=1) where B begins module.on_before_batch_transfer",
    ),
    "phase": (
        row("forward"),
        row("forward", "E", args={"raised": "RuntimeError: boom"}),
        'A begins module.forward where B ends module.forward(raised="RuntimeError: boom")',
    ),
    "receiver": (
        row("step", "I", "optimizer:0"),
        row("step", "I", "optimizer:1"),
        "A marks optimizer:0.step where B marks optimizer:1.step",
    ),
    "rank": (
        row("setup"),
        row("setup", rank=1),
        "A begins module.setup on rank 0 where B begins module.setup on rank 1",
    ),
    "args": (
        START,
        row("on_train_batch_start", args={"batch_idx": 2, "new": None}),
        "A begins module.on_train_batch_start with batch_idx=1, no new where B has batch_idx=2, new=null",
    ),
    "1 is not true": (
        START,
        row("on_train_batch_start", args={"batch_idx": True}),
        "A begins module.on_train_batch_start with batch_idx=1 where B has batch_idx=true",
    ),
    "in a list": (
        row("x", args={"l": [0, 1]}),
        row("x", args={"l": [0, True]}),
        "A begins module.x with l=[0, 1] where B has l=[0, true]",
    ),
    "a long value": (
        row("x", args={"s": "a" * 99}),
        row("x", args={"s": ""}),
        f'A begins module.x with s="{"a" * 55} ... where B has s=""',
    ),
    "effects": (
        row("forward", "E", fx={"grads": "set", "params": 1}),
        row("forward", "E", fx={"grads": "none", "params": 1}),
        'at the end of module.forward A sees grads="set" where B sees grads="none"',
    ),
}


@pytest.mark.parametrize("name", SENTENCES)
def test_in_words(folder: Path, name: str) -> None:
    a, b, expected = SENTENCES[name]
    common = [row("setup"), row("setup", "E")]
    assert sentence(folder, [*common, a], [*common, b]) == f"event 2: {expected}"


def test_1_is_1_point_0(folder: Path) -> None:
    assert compare(folder, [row("x", args={"n": 1})], [row("x", args={"n": 1.0})]) is None


def test_effects_come_last_and_can_be_left_out(folder: Path) -> None:
    a, b = row("x", fx={"params": 1}), row("x", fx={"params": 2})
    assert compare(folder, [a], [b], effects=False) is None
    later = compare(folder, [a, row("y")], [b, row("z")], effects=False)
    assert later is not None and later.seq == 1
    assert sentence(folder, [row("x", args={"n": 1}, fx={"params": 1})], [b]).startswith(
        "event 0: A begins module.x with n=1"
    )


def test_an_effect_that_one_side_cannot_see_is_left_out(folder: Path) -> None:
    sees = HEADER._replace(declares={"hooks": [], "effects": ["params"]})
    a = write(folder / "a.jsonl", [row("x", fx={"params": 1}), row("y")], sees)
    assert diff(a, write(folder / "b.jsonl", [row("x"), row("y")])) is None
    found = diff(a, write(folder / "b.jsonl", [row("x"), row("z")]))
    assert found is not None and found.seq == 1
    assert found.notes == ("not compared, for only one of the two declares it: params",)


def test_one_ends_early(folder: Path) -> None:
    rows = [row("setup"), row("setup", "E")]
    found = compare(folder, rows[:1], rows)
    assert found is not None
    assert found.sentence == "event 1: A is at its end where B ends module.setup"
    assert found.notes == ("the lengths differ: A has 1 events where B has 2",)
    assert (found.a.events, found.b.events) == ((), (Event(1, "E", 0, "module", "setup", 0, {}, {}),))
    assert sentence(folder, rows, rows[:1]) == "event 1: B is at its end where A ends module.setup"


def test_outcome_and_scenario(folder: Path) -> None:
    other = HEADER._replace(scenario={"name": "plain", "epochs": 2})
    a = write(folder / "a.jsonl", [], outcome="raised", error="RuntimeError: boom")
    found = diff(a, write(folder / "b.jsonl", [], other))
    assert found is not None
    assert found.seq is None
    assert found.sentence == "the scenarios differ: A has no epochs where B has epochs=2"
    assert found.notes == ('the outcomes differ: A raised "RuntimeError: boom" where B returned',)


def test_a_scenario_is_compared_to_its_depths(folder: Path) -> None:
    one, other = (HEADER._replace(scenario={"name": "x", "opts": [{"nesterov": v}]}) for v in (1, True))
    found = diff(write(folder / "a.jsonl", [], one), write(folder / "b.jsonl", [], other))
    assert found is not None
    assert found.sentence == (
        'the scenarios differ: A has opts=[{"nesterov": 1}] where B has opts=[{"nesterov": true}]'
    )


def test_context_and_what_follows(folder: Path) -> None:
    common = [row(f"h{i}") for i in range(10)]
    rest = [row(f"r{i}") for i in range(10)]
    found = compare(folder, [*common, *rest], [*common, row("other"), *rest[:1]])
    assert found is not None
    assert [event.hook for event in found.context] == [f"h{i}" for i in range(10 - BEFORE, 10)]
    assert [event.hook for event in found.a.events] == [f"r{i}" for i in range(1 + AFTER)]
    assert [event.hook for event in found.b.events] == ["other", "r0"]


def test_rendered(folder: Path) -> None:
    common = [row("optimizer_step"), row("training_step", depth=1, args={"batch": "train/0/3"})]
    found = compare(
        folder,
        [*common, row("training_step", "E", depth=1), row("backward", depth=1, rank=1)],
        [*common, row("backward", depth=1, args={"evil": "\x1b[31m"})],
    )
    assert found is not None
    text = render(found).replace(str(folder), "DIR")
    assert text == (
        'event 2: A ends module.training_step where B begins module.backward(evil="\\u001b[31m")\n'
        "  the lengths differ: A has 4 events where B has 3\n"
        "\n"
        "A is one 1.0, DIR/a.jsonl\n"
        "B is one 1.0, DIR/b.jsonl\n"
        "\n"
        "       0  B module.optimizer_step\n"
        '       1    B module.training_step(batch="train/0/3")\n'
        "A      2    E module.training_step\n"
        "A      3  rank 1    B module.backward\n"
        "A    end  returned\n"
        'B      2    B module.backward(evil="\\u001b[31m")\n'
        "B    end  returned\n"
    )


def test_what_is_rendered_holds_no_control_characters(folder: Path) -> None:
    evil = HEADER._replace(
        trainer={"name": "\x1b[2Jevil", "version": "\ud7ff"}, scenario={"name": "x", "\r": 1}
    )
    found = diff(write(folder / "a.jsonl", [row("x")], evil), write(folder / "b.jsonl", []))
    assert found is not None
    assert all(line.isprintable() for line in render(found).split("\n"))


def test_a_malformed_trace_is_an_error_wherever_it_is(folder: Path) -> None:
    a = write(folder / "a.jsonl", [row("x")] * 50)
    b = write(folder / "b.jsonl", [row("y")] * 50)
    b.write_bytes(b.read_bytes()[:-10])
    for pair in ((a, b), (b, a)):
        with pytest.raises(TraceError, match=r"b\.jsonl:52: the file is cut off"):
            diff(*pair)


# ---- over all traces -------------------------------------------------------------------------

rows = st.lists(
    st.builds(
        row,
        st.sampled_from(["x", "y"]),
        st.sampled_from("BE"),
        st.sampled_from(["module", "callback:0"]),
        rank=st.integers(0, 1),
        args=st.dictionaries(st.just("n"), st.sampled_from([0, 1, True, None, [1], [True]])),
        fx=st.dictionaries(st.just("params"), st.integers(0, 1)),
    ),
    max_size=8,
)


def essence(event: Mapping[str, Any], effects: bool) -> str:
    return repr(
        [event[key] for key in ("ph", "rank", "receiver", "hook", "args", *(["fx"] if effects else []))]
    )


@settings(max_examples=150)
@given(rows, rows, rows, st.booleans())
def test_it_is_the_first_difference(
    folder: Path, start: list[Row], a: list[Row], b: list[Row], effects: bool
) -> None:
    a, b = start + a, start + b
    expected = next(
        (
            i
            for i, (one, two) in enumerate(zip(a, b, strict=False))
            if essence(one, effects) != essence(two, effects)
        ),
        min(len(a), len(b)) if len(a) != len(b) else None,
    )
    found, mirrored = compare(folder, a, b, effects), compare(folder, b, a, effects)
    assert (found.seq if found else None) == expected == (mirrored.seq if mirrored else None)
    if found and mirrored:
        ours, theirs = ([essence(event._asdict(), effects) for event in d.context] for d in (found, mirrored))
        assert ours == theirs
        assert (found.a.events, found.b.events) == (mirrored.b.events, mirrored.a.events)
        assert render(found).startswith(f"event {expected}: ")


@pytest.mark.slow
def test_long_traces_are_compared_in_constant_memory(folder: Path) -> None:
    events = 20_000
    a = write(folder / "a.jsonl", [row("x")] * events)
    b = write(folder / "b.jsonl", [row("x")] * (events - 1) + [row("y")])
    seq, held = measured("from conformance.diff import diff", "diff(*given).seq", a, b)
    assert seq == events - 1
    assert held < 20 * events  # bytes; one event alone has hundreds
