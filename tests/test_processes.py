"""Scenarios in several processes: how their traces are made and judged, and what is refused."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from conformance.adapters import ranks
from conformance.adapters.ranks import run_in_ranks, run_launched
from conformance.adapters.refimpl import RefimplAdapter
from conformance.checker import judge_file
from conformance.clauses import load_clauses
from conformance.experiment import Data, Scenario, When
from conformance.produce import produce
from conformance.scenario import ScenarioError, scenario_of
from conformance.scenario_module import Model
from conformance.trace import TraceError, TraceWriter, open_trace
from conformance.verdicts import Status

SHARED = Scenario(
    "shared", needs=("distributed",), callbacks=0, data=Data(train=2, batch_size=4, last=4),
    trainer={"strategy": "ddp", "devices": 2},
)  # fmt: skip


@pytest.fixture(scope="module")
def trace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("processes") / "trace.jsonl"
    assert produce(RefimplAdapter(), SHARED, path) is None
    return path


def failing(path: Path, changed: dict[str, str], also: Any = None) -> dict[str, str]:
    """The clauses of DDP that a changed trace fails, and why."""
    lines = path.read_text().splitlines()
    for old, new in changed.items():
        assert any(old in line for line in lines), old
        lines = [line.replace(old, new, 1) for line in lines]
    other = path.with_name("changed.jsonl")
    other.write_text("\n".join(also(lines) if also else lines) + "\n")
    return {v.clause: v.reason for v in judge_file(other, load_clauses()) if v.status is Status.FAIL}


def test_one_file_holds_what_each_process_did_in_its_order(trace: Path) -> None:
    with open_trace(trace) as reader:
        events = list(reader)
        assert (reader.footer.outcome, reader.footer.events) == ("returned", len(events))
    for rank in (0, 1):
        steps = [e.args for e in events if (e.rank, e.hook, e.ph) == (rank, "training_step", "B")]
        assert [(step["batch"], step["samples"]) for step in steps] == [
            ("train/0/0", [f"0/{rank}", f"0/{rank + 2}"]), ("train/0/1", [f"1/{rank}", f"1/{rank + 2}"]),
        ]  # fmt: skip
    prepared = next(e.seq for e in events if (e.hook, e.ph) == ("prepare_data", "E"))
    assert prepared < next(e.seq for e in events if (e.rank, e.hook) == (1, "on_fit_start"))
    assert not failing(trace, {})


def test_a_verdict_says_in_which_process(trace: Path) -> None:
    def without_setup(lines: list[str]) -> list[str]:
        kept = [line for line in lines if not ('"rank":1' in line and '"hook":"setup"' in line)]
        header, *events, footer = kept
        events = [line.replace(line.split(",")[0], f'{{"seq":{seq}', 1) for seq, line in enumerate(events)]
        return [header, *events, footer.replace(footer.split(",")[0], f'{{"events":{len(events)}', 1)]

    assert failing(trace, {}, without_setup)["ddp.setup"] == "rank 1: module.setup is never called"


def test_samples_that_come_twice_and_those_that_nobody_has(trace: Path) -> None:
    found = failing(trace, {'["0/1","0/3"]': '["0/1","0/2"]'})
    assert found["ddp.shares"] == "no process has sample train/0/0/3"
    assert found["ddp.samples"].startswith("rank 1: module.on_train_batch_start has samples=['0/1', '0/2'] where")
    assert failing(trace, {'["0/1","0/3"]': '["0/1","0/3","0/2"]'})["ddp.shares"] == "sample train/0/0/2 comes 2 times"


def test_a_rank_that_the_scenario_does_not_have(trace: Path) -> None:
    with pytest.raises(TraceError, match=r"changed.jsonl:\d+: rank 2: the scenario has 2 processes"):
        failing(trace, {'"rank":1': '"rank":2'})


def test_what_breaks_or_hangs_in_a_process_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def breaks(writer: Any) -> None:
        if os.environ["RANK"] == "1":
            raise LookupError("of the harness")

    def is_killed(writer: Any) -> None:
        if os.environ["RANK"] == "1":
            os.kill(os.getpid(), signal.SIGKILL)
        writer.close("returned")

    header = RefimplAdapter().header(SHARED)
    with TraceWriter(tmp_path / "t.jsonl", header) as writer, pytest.raises(RuntimeError, match="of the harness"):
        run_in_ranks(2, 1, breaks, writer)
    assert "RANK" not in os.environ
    with TraceWriter(tmp_path / "t.jsonl", header) as writer, pytest.raises(RuntimeError, match="1 of 2 processes end"):
        run_in_ranks(2, 1, is_killed, writer)
    monkeypatch.setattr(ranks, "SECONDS", 0.3)
    begun = time.monotonic()
    with TraceWriter(tmp_path / "t.jsonl", header) as writer, pytest.raises(RuntimeError, match=r"ran after 0\.3 sec"):
        run_in_ranks(2, 1, lambda writer: time.sleep(30 * int(os.environ["RANK"])), writer)
    assert time.monotonic() - begun < 10


def test_of_a_program_that_starts_others_nobody_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def breaks(writer: Any) -> None:
        raise LookupError("of the harness")

    def leaves_one_behind(writer: Any) -> None:
        left = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
        (tmp_path / "left").write_text(str(left.pid))
        writer.close("returned")

    header = RefimplAdapter().header(SHARED)
    with TraceWriter(tmp_path / "t.jsonl", header) as writer, pytest.raises(RuntimeError, match="of the harness"):
        run_launched(2, breaks, print, writer)
    monkeypatch.setattr(ranks, "GRACE", 0.3)
    with TraceWriter(tmp_path / "t.jsonl", header) as writer, pytest.raises(RuntimeError, match="ended without a word"):
        run_launched(2, lambda writer: os._exit(1), print, writer)
    with TraceWriter(tmp_path / "t.jsonl", header) as writer:
        run_launched(2, leaves_one_behind, print, writer)
    stat = Path("/proc", (tmp_path / "left").read_text(), "stat")
    begun = time.monotonic()
    while stat.exists() and ") Z " not in stat.read_text():  # a zombie is nobody's child to wait for
        assert time.monotonic() - begun < 10
    monkeypatch.setattr(ranks, "SECONDS", 0.3)
    with TraceWriter(tmp_path / "t.jsonl", header) as writer, pytest.raises(RuntimeError, match=r"ran after 0\.3 sec"):
        run_launched(2, lambda writer: time.sleep(30), print, writer)


@pytest.mark.parametrize("changes, told", [
    ({"needs": ()}, r'trainer.strategy="ddp": add needs = \["distributed"\]'),
    ({"trainer": {"strategy": "ddp"}}, 'has 1 processes; 2 to 8 are accepted'),
    ({"data": Data(batch_size=3, last=3)}, "a multiple of its 2 processes"),
    ({"data": Data(batch_size=4, last=1)}, "a data.last of at least as many"),
    ({"data": Data(batch_size=8, last=8)}, "at most 7"),
    ({"data": Data(batch_size=4, last=4, sized=False)}, "one sized training loader"),
    ({"trainer": {"num_nodes": 2}, "needs": ()}, 'trainer.num_nodes=2 needs strategy="ddp"'),
    ({"trainer": {"devices": 2}, "needs": ()}, "trainer.devices=2 needs a strategy"),
    ({"trainer": {}, "data": Data(distributed_sampler=True)}, 'data.distributed_sampler needs trainer.strategy="ddp"'),
    ({"data": Data(batch_size=4, last=4, shuffle=True, distributed_sampler=True)}, "no sampler"),
    ({"when": (When("training_step", "raise", rank=2),)}, "when.rank: 2; at most 1 is accepted"),
    ({"when": (When("setup", "raise", rank=1),)}, "when.rank: raise: hook: 'setup' is none of 'on_train_batch_start'"),
    ({"when": (When("training_step", "interrupt", rank=1),)}, "when.rank: do: 'interrupt' is none of 'raise', 'stop'"),
    ({"when": (When("training_step", "raise", rank=1), When("setup", "stop"))}, "the module's only `when`"),
    ({"when": (When("training_step", "raise", rank=1),), "model": Model(optimizer="none")}, "needs an optimizer"),
])  # fmt: skip
def test_what_is_no_scenario_of_several_processes(changes: dict[str, Any], told: str) -> None:
    with pytest.raises(ScenarioError, match=told):
        scenario_of(replace(SHARED, **changes).to_dict())
