"""Trace files as text: rows that make a whole trace, and rows drawn at random."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import strategies as st

from conformance.trace import Event, Footer, Header, TraceError, open_trace

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


# ---- drawn at random -------------------------------------------------------------------------

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
    "submodules": st.text(max_size=5),
    "grad_enabled": st.booleans(),
    "autocast": st.booleans(),
    "global_step": st.integers(),
    "current_epoch": st.integers(),
    "grads": st.sampled_from(["none", "zero", "set"]),
    "params": st.integers(0),
    "lr": st.lists(st.floats(allow_nan=False, allow_infinity=False) | st.integers(0, 9), max_size=3),
    "trainable": st.lists(st.integers(0, 9), max_size=3),
    "gradients": st.lists(scalars, max_size=3),
    "metrics": st.lists(st.text(max_size=5), max_size=3),
    "values": st.lists(scalars, max_size=3),
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


def measured(imports: str, expression: str, *given: Path) -> tuple[int, int]:
    """The whole number that the expression gives for the files `given`, and the bytes that it held at most.

    In a process of its own: a test worker has other threads, whose memory would count.
    """
    code = f"""if True:
        import sys, tracemalloc
        {imports}
        given = sys.argv[1:]
        tracemalloc.start()
        number = {expression}
        print(number, tracemalloc.get_traced_memory()[1])
    """
    done = subprocess.run([sys.executable, "-c", code, *given], stdout=subprocess.PIPE, text=True, check=True)
    number, held = map(int, done.stdout.split())
    return number, held
