"""DDP: two and three processes on the CPU, started by the script, spawned, and under torchrun; and what goes wrong.

What they do is in `ranks.py`, which runs in processes of its own; here is what has to come of it.
"""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from itertools import chain
from pathlib import Path
from tempfile import gettempdir, mkdtemp
from typing import Any

import pytest
import torch
from extent import WHOLE, share
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from models import Line, pairs
from ranks import Net, loader
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    DistributedSampler,
    IterableDataset,
    RandomSampler,
    SequentialSampler,
    SubsetRandomSampler,
    TensorDataset,
    WeightedRandomSampler,
)

from refimpl import ConfigurationError, DataError, Trainer, seed_everything
from refimpl.devices import OURS
from refimpl.loaders.combined import CombinedLoader
from refimpl.loaders.loaders import set_epoch, unshuffled
from refimpl.strategies.ddp import Distributed
from refimpl.strategies.shares import Share, shares

ROOT = Path(__file__).parent.parent
SCRIPT = str(ROOT / "tests" / "ranks.py")
TORCHRUN = ["-m", "torch.distributed.run", "--nproc_per_node", "2", "--rdzv_backend", "c10d", "--rdzv_endpoint",
            "localhost:0"]  # fmt: skip

several = pytest.mark.slow


Done = subprocess.CompletedProcess[str]


def launched(*arguments: str, by: tuple[str, ...] = (), **told: str) -> tuple[Done, dict[int, Any], float]:
    """A script that has run, and was `told` more by its environment: how it ended, what each of its processes found,
    and how many seconds it took."""
    part, *options = arguments
    folder, begun = Path(mkdtemp()), time.monotonic()
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore", **told}
    done = subprocess.run(
        [sys.executable, *by, SCRIPT, part, str(folder), *options], env=environment, capture_output=True, text=True,
        check=False, timeout=100,
    )  # fmt: skip
    found = {int(path.stem): json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))}
    return done, found, time.monotonic() - begun


@cache
def ran(*arguments: str, by: tuple[str, ...] = ()) -> list[Any]:
    """What each process found; a script runs once, also where tests are spread over processes."""
    name = "-".join(("ranks", os.environ.get("PYTEST_XDIST_TESTRUNUID", str(os.getpid())), *arguments))
    kept = Path(gettempdir(), f"{name}.json")
    try:
        kept.with_suffix(".lock").mkdir()
    except FileExistsError:
        while not kept.exists():
            time.sleep(0.1)
        found, told = json.loads(kept.read_text())
    else:
        done, each, _ = launched(*arguments, by=by)
        found, told = list(each.values()), done.stderr if done.returncode else ""
        kept.with_suffix(".part").write_text(json.dumps([found, told]))
        kept.with_suffix(".part").rename(kept)
    assert not told, told
    return found  # type: ignore[no-any-return]


# ---- what comes of a training --------------------------------------------------------------------------------


@several
def test_two_processes_train_as_one_with_their_batches() -> None:
    """In float64, for every kind of training; with the same weights in both, to the bit."""
    one, other = ran("same", "2")
    for kind in one:
        assert one[kind]["off"] < 1e-12, kind
        assert one[kind]["all"] == other[kind]["all"] and one[kind]["moved"], kind
        assert one[kind]["steps"][0] == one[kind]["steps"][1] > 0, kind
        assert one[kind]["loss"][0] == pytest.approx(one[kind]["loss"][1]), kind


@several
@pytest.mark.parametrize("kind, synchronised", [
    ("plain", [True]), ("accumulated", [False, True]), ("two", [True]), ("two-accumulated", [False, False, True, True]),
    ("manual", [True]), ("tbptt", [True]), ("turns", [True]),
])  # fmt: skip
def test_gradients_are_averaged_in_the_backward_that_closes_a_window(kind: str, synchronised: list[bool]) -> None:
    one, other = (found[kind]["seen"] for found in ran("same", "2"))
    alike = [mine == its for mine, its in zip(one, other)]
    assert alike == synchronised * (len(one) // len(synchronised))


@several
def test_a_run_that_goes_on_ends_as_one_that_never_stopped_in_each_process() -> None:
    """In mid-epoch and mid-window, with what each process draws and has accumulated for itself; under torchrun."""
    one, other = ran("resumed", "2", by=tuple(TORCHRUN))
    for found in (one, other):
        assert found["once"] == found["again"] and found["steps"] == [9, 9]
        assert found["outputs"][0] == found["outputs"][1]
        assert found["interrupted"] and found["more"] == found["once"]
    assert one["once"] == other["once"] and one["outputs"] != other["outputs"]


# ---- what three processes do alike ---------------------------------------------------------------------------


def in_all(what: str) -> Any:
    first, *others = (found[what] for found in ran("alike", "3"))
    assert others == [first] * 2
    return first


@several
@pytest.mark.parametrize("who, hook, steps", [
    (2, "on_train_start", 0), (2, "on_validation_end", 5),
    (None, "on_train_batch_end", 3), (2, "on_train_batch_end", 4),  # where the processes meet again
])  # fmt: skip
def test_where_one_asks_to_stop_all_stop_after_the_same_batch(who: int | None, hook: str, steps: int) -> None:
    assert in_all(f"stopped by {who} {hook}") == [steps, steps]


@several
def test_process_0_decides_what_is_decided_by_a_logged_value() -> None:
    """It logs 0, 1: no improvement. The others log 0, -1. They log nothing together."""
    assert in_all("stopped early") == [2, 1]
    assert in_all("rates") == pytest.approx(0.01)
    assert in_all("best") == ["epoch=0-val=0.ckpt", "last.ckpt"]
    assert in_all("validated").endswith("/version_0/checkpoints/epoch=0-val=0.ckpt")
    folder = Path(in_all("log_dir"))
    assert [path.name for path in folder.parent.iterdir()] == ["version_0"]
    assert sorted(path.name for path in folder.glob("checkpoints/*")) == [
        "epoch=0-val=0.ckpt", "epoch=1-val=1.ckpt", "last.ckpt",
    ]  # fmt: skip
    assert in_all("weights") and in_all("drawn")


@several
def test_the_time_is_that_of_process_0() -> None:
    assert in_all("timed") > 1
    assert all(found["took"] < 2 for found in ran("alike", "3"))


@several
def test_data_is_prepared_by_one_while_the_others_wait() -> None:
    zero, *others = ran("alike", "3")
    assert zero["prepares"] == 2  # a fit, and a validation
    assert not any("prepares" in found for found in others)
    assert all(found["set up"] >= zero["prepared"] for found in (zero, *others))


@several
def test_an_evaluation_counts_each_sample_once() -> None:
    """Seven samples in batches of two, in three processes."""
    [results], [alone] = in_all("results"), in_all("alone")
    assert results["val_mean"] == pytest.approx(alone["val_mean"])
    zero = ran("alike", "3")[0]
    assert zero["read alone"] == pytest.approx(zero["mean"])


@several
def test_what_is_logged_comes_together_with_whom_it_is_asked_to() -> None:
    """Each process logs its number, as a float or an integer, in steps and for epochs."""
    for rank, found in enumerate(ran("alike", "3")):
        told = found["together"]
        assert {told[name] for name in ("mean", "max", "sum")} == {1.0, 2.0, 3.0}, rank
        assert (told["either"], told["pair_epoch"]) == (1.0, 1.0), rank
        assert ("own" in told) == (rank == 0)
        alone = {name: found["without others"][name] for name in ("either", "pair_epoch")}
        assert alone == {"either": rank, "pair_epoch": rank}
    assert ran("alike", "3")[0]["together"]["own"] == 0.0


@several
def test_gradients_may_be_sparse() -> None:
    assert len(set(in_all("sparse"))) > 10


@several
@pytest.mark.parametrize("whose", ["ours", "own"])
def test_the_samples_of_each_epoch_are_shared_out_and_shuffled_anew(whose: str) -> None:
    found = ran("alike", "3")
    for epoch in ("0", "1"):
        each = [samples for one in found for samples in one[whose][epoch]]
        assert sorted(each) == sorted(found[0]["samples"])
    assert found[0][whose]["0"] != found[0][whose]["1"]


@several
def test_what_cannot_be_is_told_by_all() -> None:
    assert "val_dataloader has 1 samples for 3 processes" in in_all("few")
    assert "devices=4, num_nodes=1, but 3 processes were started" in in_all("worlds")
    assert "the processes have parted with a run that failed" in ran("alike", "3")[0]["over"]


# ---- spawn ----------------------------------------------------------------------------------------------------


@several
def test_what_spawned_processes_bring_back() -> None:
    [found] = ran("spawned")
    assert found["weights"] == pytest.approx(found["alone"], abs=1e-12)
    assert {"loss_epoch", "val_mean"} <= set(found["metrics"])
    assert (found["steps"], found["got"], found["status"]) == (12, 12, "finished")
    assert (Path(found["best"]).name, Path(found["last"]).name) == ("epoch=1-step=12.ckpt", "last.ckpt")
    assert found["predictions"] is None
    assert re.search("what setup made in .* alone .* does not fit Built: .*Unexpected .*third", found["built"], re.S)


def test_predictions_of_spawned_processes_are_not_returned_and_a_lambda_is_not_spawned() -> None:
    trainer = Trainer(strategy="ddp_spawn", devices=2, logger=False, enable_checkpointing=False)
    with (
        pytest.warns(UserWarning, match=r"returns no predictions.*BasePredictionWriter"),
        pytest.raises(ConfigurationError, match=r"cannot: .*lambda.*; define what they are made of at the top"),
    ):
        trainer.predict(Line(lambda weights: None), pairs(2))


DRAWS = int(os.environ.get("CONFORMANCE_DRAWS", "60" if WHOLE else "20"))  # 400 before a release
CASES = st.fixed_dictionaries({
    "size": st.integers(1, 4), "samples": st.integers(2, 12).map(lambda half: 2 * half),
    "kind": st.sampled_from(["plain", "now", "two", "turns", "tbptt", "manual"]),
    "optimizer": st.sampled_from(["sgd", "adam"]), "interval": st.sampled_from(["", "step", "epoch"]),
    "options": st.fixed_dictionaries({"max_epochs": st.integers(1, 3)}, optional={
        "accumulate_grad_batches": st.integers(2, 3), "gradient_clip_val": st.sampled_from([0.05, 0.5]),
        "gradient_clip_algorithm": st.sampled_from(["norm", "value"]), "limit_train_batches": st.integers(1, 3),
        "val_check_interval": st.sampled_from([1, 0.5]), "precision": st.just(64),
    }),
}).filter(lambda case: case["kind"] != "manual" or len(case["options"]) == 1)  # fmt: skip


@several
def test_two_processes_train_as_one_whatever_is_drawn() -> None:
    """Weights, rates, and what was logged of the epoch, in float64, to rounding; all cases in one start."""
    cases: list[Any] = []

    @settings(max_examples=DRAWS, phases=[Phase.generate])
    @given(CASES)
    def draw(case: Any) -> None:
        cases.append(case)

    draw()
    path = Path(mkdtemp(), "cases.json")
    path.write_text(json.dumps(cases))
    done, found, _ = launched("drawn", str(path))
    assert done.returncode == 0, done.stderr[-3000:]
    for each in found.values():
        assert [case for case, off in zip(cases, each["off"]) if not off < 1e-9] == []
        assert len(each["off"]) == len(cases)


# ---- faults ---------------------------------------------------------------------------------------------------

FAULTS = [
    ("ddp", "raise", 1, (), r"caught ProcessError: process 1 failed:[\s\S]*ValueError: boom"),
    ("ddp", "raise", 0, (), "caught ValueError: boom"),
    ("ddp", "SIGKILL", 1, (), "caught ProcessError: process 1 was ended by SIGKILL"),
    ("ddp", "hang", 1, (), r"caught ProcessError: process 1 has not come, for which process 0 has waited .*=2 seconds"),
    ("ddp", "names", 1, (), r"now came process 0 to log\('loss', .*process 1 to log\('other', "),
    ("ddp", "uneven", 0, (), r"process 1 failed:[\s\S]*after 6 batches of epoch 0, process 0 goes on, process 1 ends"),
    ("ddp_spawn", "SIGTERM", 0, (), "caught ProcessError: process 0 was ended by SIGTERM"),
    ("ddp", "raise", 1, tuple(TORCHRUN), r"caught ProcessError: process 1 failed:[\s\S]*ValueError: boom"),
]  # fmt: skip


@several
@pytest.mark.parametrize("strategy, how, rank, by, told", share(FAULTS, 2))
def test_one_that_fails_ends_all(strategy: str, how: str, rank: int, by: tuple[str, ...], told: str) -> None:
    """In seconds, with its cause; no process is left, and the port is free."""
    done, found, seconds = launched("fails", strategy, how, str(rank), by=by)
    assert re.search(told, done.stdout), (done.stdout, done.stderr[-3000:])
    assert seconds < 25
    for number in re.findall(r"at \d: (\d+)", done.stdout):
        with pytest.raises(ProcessLookupError):
            os.kill(int(number), 0)
    if 0 in found and found[0]["port"] and not by:
        with socket.socket() as port:
            port.bind(("127.0.0.1", int(found[0]["port"])))


@several
def test_on_another_machine_one_that_hangs_is_ended_when_those_that_waited_for_it_have_gone() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(server.getsockname()[1])}
    with ThreadPoolExecutor(2) as machines:
        of = machines.map(lambda node: launched("fails", "ddp", "hang", "1", "2", **address, NODE_RANK=node), "01")
    (waits, _, _), (hangs, _, seconds) = of
    assert "caught ProcessError: process 1 has not come, for which process 0 has waited" in waits.stdout, waits.stderr
    assert "caught ProcessError: process 0, which keeps the store, has gone" in hangs.stdout, hangs.stderr
    assert seconds < 25


@several
@pytest.mark.parametrize("rank", [0, 1])
def test_a_script_that_fails_in_one_process_after_the_last_call_has_failed(rank: int) -> None:
    done, _, _ = launched("fails", "ddp", "after", str(rank))
    assert done.returncode == 1 and "after the last call" in done.stderr
    assert ("process 1 ended; what it printed says why (exit code 1)" in done.stderr) == (rank == 1)


@several
def test_ctrl_c_while_processes_are_being_spawned_is_one() -> None:
    trainer = Trainer(strategy="ddp_spawn", devices=2, logger=False, enable_checkpointing=False)
    threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT)).start()
    with pytest.raises(KeyboardInterrupt):
        trainer.fit(Net(), loader(2))


@several
def test_ctrl_c_in_one_interrupts_all_after_the_same_batch() -> None:
    _, found, _ = launched("fails", "ddp", "interrupt", "1")
    assert [(each["status"], each["steps"]) for each in found.values()] == [("interrupted", 3)] * 2


# ---- shares of what samplers draw -----------------------------------------------------------------------------

DATA = TensorDataset(torch.arange(10))


def drawn(loader: Any, world_size: int, stage: str = "train", epoch: int = 0) -> list[list[int]]:
    """The samples of each process, each of which has drawn other numbers before."""
    seed_everything(1)
    each = []
    for rank in range(world_size):
        torch.rand(rank)
        share = shares(loader, stage, rank, world_size, lambda value: value)
        set_epoch(share, epoch)
        each.append([int(sample) for (batch,) in share for sample in batch.flatten()])
        assert len(share) == len(list(share))
    return each


@pytest.mark.parametrize("world_size", [1, 2, 3, 4, 7, 12])
@pytest.mark.parametrize("shuffle", [True, False])
def test_shares_are_disjoint_and_complete_and_padded_in_training_only(world_size: int, shuffle: bool) -> None:
    loader = DataLoader(DATA, batch_size=2, shuffle=shuffle)
    each = drawn(loader, world_size)
    assert {len(samples) for samples in each} == {-(-10 // world_size)}
    assert {sample for samples in each for sample in samples} == set(range(10))
    if world_size <= 10:
        assert sorted(chain(*drawn(loader, world_size, "val"))) == list(range(10))
    else:
        with pytest.raises(DataError, match="val_dataloader has 10 samples for 12 processes"):
            drawn(loader, world_size, "val")


def test_a_share_is_shuffled_anew_in_each_epoch_and_by_the_loaders_generator() -> None:
    loader = DataLoader(DATA, shuffle=True)
    assert drawn(loader, 2) == drawn(loader, 2) != drawn(loader, 2, epoch=1)
    one, other = (DataLoader(DATA, shuffle=True, generator=torch.Generator().manual_seed(s)) for s in (1, 2))
    assert drawn(one, 2) == drawn(one, 2) != drawn(other, 2)
    states = torch.get_rng_state(), one.generator.get_state()
    list(Share(one.sampler, 0, 2, 1, True)), list(Share(RandomSampler(DATA), 0, 2, 1, True))
    assert all(map(torch.equal, states, (torch.get_rng_state(), one.generator.get_state())))


def test_other_samplers_are_shared_and_not_dropped() -> None:
    weighted = drawn(DataLoader(DATA, sampler=WeightedRandomSampler([0.0] * 9 + [1.0], 8)), 2)
    assert weighted == [[9] * 4] * 2
    subset = DataLoader(DATA, sampler=SubsetRandomSampler([3, 5, 7, 8]))
    assert sorted(chain(*drawn(subset, 2))) == [3, 5, 7, 8]

    class Pairs(BatchSampler):
        pass

    whole = drawn(DataLoader(DATA, batch_sampler=Pairs(range(10), 2, False)), 2, "val")
    assert whole == [[0, 1, 4, 5, 8, 9], [2, 3, 6, 7]]
    assert drawn(DataLoader(DATA, batch_size=None), 2) == [[0, 2, 4, 6, 8], [1, 3, 5, 7, 9]]
    assert drawn(DataLoader(DATA, batch_size=3, drop_last=True), 2) == [[0, 2, 4], [1, 3, 5]]


class Dealt(SequentialSampler):
    """Of some library, that deals by itself and is none of torch's."""

    num_replicas, rank = 2, 1


def test_a_distributed_sampler_of_the_users_own_stays() -> None:
    own = DataLoader(DATA, sampler=DistributedSampler(DATA, 2, 1))
    assert shares(own, "train", 0, 2, lambda value: value) is own
    batches = DataLoader(DATA, batch_sampler=BatchSampler(DistributedSampler(DATA, 2, 1), 2, False))
    dealt = DataLoader(DATA, sampler=Dealt(range(10)))
    assert shares(dealt, "train", 0, 2, lambda value: value) is dealt
    assert shares(batches, "train", 0, 2, lambda value: value) is batches


class Endless(IterableDataset[Any]):
    def __iter__(self) -> Any:
        return iter([1])


@pytest.mark.parametrize("loader, kind", [(DataLoader(Endless()), "Endless"), (pairs(2), "Batches")])
def test_what_cannot_be_shared_is_told(loader: Any, kind: str) -> None:
    with pytest.warns(UserWarning, match=f"train_dataloader: {kind} has no sampler, so that every process is"):
        assert shares(loader, "train", 0, 2, lambda value: value) is loader


def test_loaders_in_lists_dicts_and_combined_are_shared_one_by_one() -> None:
    def of_one(loaders: Any) -> Any:
        return shares(loaders, "train", 1, 2, lambda value: value)

    loader = DataLoader(DATA, batch_size=5)
    assert [len(one) for one in of_one([loader, loader])] == [1, 1]
    assert len(of_one({"a": loader, "b": [loader]})["b"][0]) == 1
    combined = of_one(CombinedLoader([loader], "min_size"))
    assert len(combined) == 1 and combined.mode == "min_size"
    assert of_one(None) is None and of_one([]) == []
    with pytest.warns(UserWarning, match="shuffling is off"):
        fixed = unshuffled(of_one(DataLoader(DATA, batch_size=5, shuffle=True)), "train_dataloader")
    assert [int(sample) for (batch,) in fixed for sample in batch] == [1, 3, 5, 7, 9]


# ---- which process this is ------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:2 devices without a strategy")
def test_a_trainer_says_which_process_it_is_in(monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = Trainer(strategy="ddp", devices=2, num_nodes=3)
    said = trainer.global_rank, trainer.world_size, trainer.num_nodes, trainer.num_processes, trainer.is_global_zero
    assert said == (0, 6, 3, 2, True)
    for options in ({"num_processes": 2}, {"devices": 2}, {"accelerator": "cpu", "devices": 2, "strategy": "ddp_cpu"}):
        assert Trainer(**options).run.devices.spawns  # type: ignore[arg-type, attr-defined]
    for name, value in {"RANK": 3, "LOCAL_RANK": 1, "WORLD_SIZE": 4, "LOCAL_WORLD_SIZE": 2}.items():
        monkeypatch.setenv(name, str(value))
    assert isinstance(Trainer().run.devices, Distributed)  # who starts several wants them together
    with monkeypatch.context() as another_trainer:
        another_trainer.setenv(OURS, "1")
        assert Trainer().world_size == 1
    trainer = Trainer(strategy="ddp")
    said = trainer.global_rank, trainer.local_rank, trainer.node_rank, trainer.num_nodes, trainer.is_global_zero
    assert said == (3, 1, 1, 2, False)
    assert isinstance(trainer.run.devices, Distributed) and not trainer.run.devices.starts
    with pytest.raises(ConfigurationError, match="devices=3, num_nodes=1, but 4 processes were started, 2 on each"):
        Trainer(strategy="ddp", devices=3)
