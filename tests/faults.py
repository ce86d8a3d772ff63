"""`python -m tests.faults`: faults that are drawn, in runs of two processes on the CPU, and what has to come of each.

One process raises, is killed, hangs or leaves early, in a hook and a call of it that are drawn as well. Then the run
has to end in time, the caller to see the cause, no process to be left, the port to be free, the checkpoints to be
whole; and a run that goes on from the last of them has to end with the weights of one that nothing disturbed, to the
bit.

`--agents` instead: two agents of torchrun on this machine, and a killed process that they start again.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import wraps
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from refimpl import Callback, LightningModule, ModelCheckpoint, Trainer
from refimpl.saving.file import read

ROOT = Path(__file__).resolve().parent.parent
MARK = "REFIMPL_FAULT"  # in the environment of all processes of a run: whoever is left over has it
GRACE = 15.0  # seconds in which a run has to be over, also on a loaded machine; after `process_timeout` if one hangs
TORCHRUN = ["-m", "torch.distributed.run"]
C10D = ["--rdzv_backend", "c10d", "--rdzv_endpoint"]
WAYS = ("ddp", "ddp_spawn", "torchrun")
KINDS: dict[str, Callable[[], Any]] = {
    "raise": lambda: boom(), "SIGKILL": lambda: os.kill(os.getpid(), signal.SIGKILL),
    "SIGTERM": lambda: os.kill(os.getpid(), signal.SIGTERM), "hang": lambda: time.sleep(1000),
    "os._exit": lambda: os._exit(0), "sys.exit": lambda: sys.exit(0),
}  # fmt: skip
HOOKS = (
    "prepare_data setup configure_optimizers on_fit_start on_train_start on_train_epoch_start on_train_batch_start "
    "training_step on_before_backward backward on_after_backward on_before_optimizer_step optimizer_step "
    "on_train_batch_end on_validation_start on_validation_batch_start validation_step on_validation_batch_end "
    "on_validation_epoch_end on_validation_end training_epoch_end on_train_epoch_end on_save_checkpoint on_train_end "
    "on_fit_end teardown"
).split()


def boom() -> None:
    raise ValueError("boom")


@dataclass(frozen=True)
class Fault:
    """What happens in one process, when it comes to a hook for the `call`-th time."""

    kind: str
    rank: int
    hook: str
    call: int
    way: str
    timeout: float

    def __str__(self) -> str:
        return f"{self.way:9} {self.kind:8} rank {self.rank} {self.hook}[{self.call}] timeout {self.timeout:g}"


# ---- what the processes run --------------------------------------------------------------------------------------


class Net(LightningModule):
    """What it comes to depends on what each process draws, and on the order of the samples. It counts its hooks."""

    def __init__(self, fault: Fault | None, folder: str, seed: int) -> None:
        super().__init__()
        self.seed = seed
        self.layers = nn.Sequential(nn.Linear(2, 3), nn.Tanh(), nn.Linear(3, 1)).double()
        self.fault, self.folder, self.calls = fault, folder, dict.fromkeys(HOOKS, 0)

    def come_to(self, hook: str) -> None:
        self.calls[hook] += 1
        rank, fault = int(os.environ.get("RANK", 0)), self.fault
        happened = Path(self.folder, "happened")
        if fault and (hook, self.calls[hook], rank) == (fault.hook, fault.call, fault.rank) and not happened.exists():
            happened.write_text(json.dumps({"time": time.time(), "port": os.environ.get("MASTER_PORT")}))
            KINDS[fault.kind]()

    def setup(self, stage: str | None = None) -> None:
        torch.manual_seed(self.seed + self.global_rank)  # here, since spawned processes begin with seeds of their own

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        x, y = batch
        return (self.layers(x * (1 + torch.rand(()))) - y).square().mean()  # type: ignore[no-any-return]

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.log("val", (self.layers(batch[0]) - batch[1]).square().mean(), sync_dist=True)

    def training_epoch_end(self, outputs: Any) -> None:
        pass

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.parameters(), lr=0.05)


def _counted(hook: str) -> Any:
    usual = getattr(Net, hook)

    @wraps(usual)
    def call(self: Net, *args: Any, **kwargs: Any) -> Any:
        self.come_to(hook)
        return usual(self, *args, **kwargs)

    return call


for _hook in HOOKS:
    setattr(Net, _hook, _counted(_hook))


class Tells(Callback):
    """The weights and the calls of each process, at the end."""

    def on_fit_end(self, trainer: Any, pl_module: Any) -> None:
        self.tell(trainer, pl_module)

    def teardown(self, trainer: Any, pl_module: Any, stage: str | None = None) -> None:
        if not trainer.interrupted and Path(pl_module.folder, f"{trainer.global_rank}.json").exists():
            self.tell(trainer, pl_module)

    def tell(self, trainer: Any, module: Net) -> None:
        weights = [float(value).hex() for weight in module.parameters() for value in weight.detach().flatten()]
        found = {"weights": weights, "calls": {**module.calls, "on_fit_end": 1, "teardown": 1}}
        Path(module.folder, f"{trainer.global_rank}.json").write_text(json.dumps(found))


def work(way: str, timeout: float, folder: str, ckpt_path: str, told: str) -> None:
    """A fit, in which the fault happens, or which goes on from a checkpoint."""
    torch.set_num_threads(1)
    fault = Fault(**json.loads(told)) if told else None
    x = torch.randn(24, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    data = TensorDataset(x, x.sum(-1, keepdim=True).sin())
    shuffled = DataLoader(data, batch_size=2, shuffle=True, generator=torch.Generator().manual_seed(3))
    kept = Path(folder).parent / "checkpoints"
    if way not in WAYS and (kept / "last.ckpt").exists():  # started again; agents do not count that alike
        ckpt_path = str(kept / "last.ckpt")
    saving = ModelCheckpoint(kept, every_n_train_steps=2, save_top_k=2, monitor="step",
                             mode="max", save_last=True)  # fmt: skip
    strategy, devices = (way, 2) if way in ("ddp", "ddp_spawn") else ("ddp", None)
    trainer = Trainer(
        strategy=strategy, devices=devices, process_timeout=timeout, max_epochs=3, logger=False,
        enable_progress_bar=False, enable_model_summary=False, num_sanity_val_steps=0, callbacks=[Tells(), saving],
    )  # fmt: skip
    torch.manual_seed(1)
    module = Net(fault, folder, seed=9 if ckpt_path else 1)
    try:
        trainer.fit(module, shuffled, DataLoader(data, batch_size=4), ckpt_path=ckpt_path or None)
    except BaseException as error:
        Path(folder, f"caught-{os.environ.get('RANK', 0)}").write_text(f"{type(error).__name__}: {error}")
        raise


# ---- what has to come of it --------------------------------------------------------------------------------------


def left(mark: str) -> dict[int, str]:
    """The processes that have the mark, and what they run."""
    found, own = {}, f"{MARK}={mark}".encode()
    for path in Path("/proc").glob("[0-9]*"):
        try:
            if own in (path / "environ").read_bytes().split(b"\0"):
                found[int(path.name)] = (path / "cmdline").read_bytes().replace(b"\0", b" ").decode()
        except OSError:
            pass  # it has ended, or is not ours
    return found


@dataclass
class Ended:
    """A run that is over: its exit code, what it printed, what its processes found, and whom it has left."""

    code: int | None
    said: str
    found: list[Any]
    caught: dict[int, str]
    happened: dict[str, Any]
    over: float
    left: dict[int, str]


def commands(way: str) -> list[list[str]]:
    """What Python is given before the script: for each agent of torchrun, of which there may be two."""
    if way in WAYS:
        return [[*TORCHRUN, "--nproc_per_node", "2", *C10D, "localhost:0"] if way == "torchrun" else []]
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    each = [*TORCHRUN, "--nnodes", "2", "--nproc_per_node", "1", "--max_restarts", "1"]
    if way == "static":
        each += ["--master_addr", "127.0.0.1", "--master_port", port, "--node_rank"]
        return [[*each, "0"], [*each, "1"]]
    return [[*each, *C10D, f"127.0.0.1:{port}", "--rdzv_id", "faults"] for _ in range(2)]


def launched(way: str, timeout: float, folder: Path, ckpt_path: str = "", fault: Fault | None = None) -> Ended:
    folder.mkdir(parents=True)
    mark = f"{os.getpid()}-{folder}"
    told = {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore", MARK: mark}
    command = [__file__, "work", way, str(timeout), str(folder), ckpt_path, json.dumps(asdict(fault)) if fault else ""]
    with open(folder / "said", "wb") as said:
        children = [
            subprocess.Popen([sys.executable, *by, *command], env={**os.environ, **told}, stdout=said, stderr=said)
            for by in commands(way)
        ]
        try:
            codes = [child.wait(120) for child in children]
            code = next(filter(None, codes), 0)
        except subprocess.TimeoutExpired:
            code = None
    deadline = time.time() + GRACE
    while (others := left(mark)) and code is not None and time.time() < deadline:
        time.sleep(0.05)
    over = time.time()
    for number in others:
        os.kill(number, signal.SIGKILL)
    for child in children:
        child.wait()
    happened = folder / "happened"
    return Ended(
        code, (folder / "said").read_text(errors="replace"),
        [json.loads(path.read_text()) for path in sorted(folder.glob("[0-9].json"))],
        {int(path.name[-1]): path.read_text() for path in folder.glob("caught-*")},
        json.loads(happened.read_text()) if happened.exists() else {}, over, others,
    )  # fmt: skip


def causes(fault: Fault, ended: Ended) -> Iterator[str]:
    """What is wrong with what the caller sees."""
    rank, other = fault.rank, 1 - fault.rank
    failed, said = f"process {rank} failed:\nTraceback", ended.said
    hung = f"process {rank} has not come, for which process {other} has waited (process_timeout={fault.timeout:g}"
    ended_by = f"process {rank} was ended by {fault.kind}"
    error = {"raise": "ValueError: boom", "sys.exit": "SystemExit: 0"}.get(fault.kind, "")
    of_caller = ended.caught.get(0, "")
    if fault.way == "ddp" and rank == 0 and fault.kind in ("SIGKILL", "SIGTERM", "os._exit"):
        if ended.code != {"os._exit": 0}.get(fault.kind, -getattr(signal, fault.kind, 0)):
            yield f"exit code {ended.code}"
        if "process 1: the process that started it has gone" not in said:
            yield "process 1 has not said why it ended"
        return
    if not ended.code and not (fault.kind == "sys.exit" and rank == 0 and fault.way == "ddp"):
        yield f"exit code {ended.code}"
    if fault.way == "torchrun":
        yield from _causes_by_torchrun(fault, ended, failed, hung)
        return
    if fault.kind in ("raise", "sys.exit"):
        own = fault.way == "ddp" and rank == 0
        is_told = of_caller == error if own else of_caller.startswith(f"ProcessError: {failed}") and error in of_caller
    elif fault.kind == "hang":
        is_told = of_caller.startswith(f"ProcessError: {hung}")
    elif fault.kind == "os._exit":
        is_told = of_caller.startswith(f"ProcessError: process {rank} left before the run was over (exit code 0)")
    else:
        is_told = of_caller.startswith(f"ProcessError: {ended_by}")
    if not is_told:
        yield f"the caller saw {of_caller[:300]!r}"


def _causes_by_torchrun(fault: Fault, ended: Ended, failed: str, hung: str) -> Iterator[str]:
    """torchrun ends the others as soon as it sees that one has failed, and tells whose exit it saw first: so whoever
    comes to see an error names the cause, or nobody does and torchrun does."""
    rank, said = fault.rank, ended.said
    of_other = ended.caught.get(1 - rank, "")
    first = re.search(r"Root Cause[\s\S]*?rank +: (\d)[\s\S]*?exitcode +: (-?\d+)", said)
    observed = (int(first[1]), int(first[2])) if first else None
    if fault.kind in ("raise", "sys.exit"):
        error = "ValueError: boom" if fault.kind == "raise" else "SystemExit: 0"
        is_told = (of_other.startswith(f"ProcessError: {failed}") and error in of_other) or observed == (rank, 1)
    elif fault.kind == "hang":
        is_told = of_other.startswith(f"ProcessError: {hung}")
    elif fault.kind == "os._exit":
        is_told = of_other.startswith(f"ProcessError: process {rank} ")
    else:
        code = -getattr(signal, fault.kind)
        named = of_other.startswith(f"ProcessError: process {rank} ")
        is_told = named or (not of_other and observed == (rank, code))
    if not is_told:
        yield f"process {1 - rank} saw {of_other[:300]!r}, torchrun {observed}"


def wrong(fault: Fault, folder: Path, undisturbed: list[str]) -> tuple[list[str], float, str]:
    """What is wrong with what has come of a fault; how many seconds after it all was over; what was printed."""
    for again in range(3):  # on a loaded machine, one may come later than in `timeout` seconds before anything happens
        ended = launched(fault.way, fault.timeout, folder / f"first-{again}", fault=fault)
        if ended.happened:
            break
        shutil.rmtree(folder)
    else:
        return ["it has not happened"], 0.0, ended.said
    found, took = [*causes(fault, ended)], ended.over - ended.happened["time"]
    if ended.code is None or took > (limit := GRACE + fault.timeout * (fault.kind == "hang")):
        found.append(f"over after {took:.1f} seconds, not {limit if ended.code is not None else 120:g}")
    found += [f"left over: {number} {command}" for number, command in ended.left.items()]
    with socket.socket() as port:
        port.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as whoever listens next does
        try:
            port.bind(("127.0.0.1", int(ended.happened["port"] or 0)))
            port.listen()
        except OSError as error:
            found.append(f"port {ended.happened['port']}: {error}")
    found += files(checkpoints := folder / "checkpoints")
    last = checkpoints / "last.ckpt"
    on = launched(fault.way, 60, folder / "on", str(last) if last.exists() else "")
    if on.code or [each["weights"] for each in on.found] != [undisturbed] * 2:
        found.append(f"went on from {last.exists() and last.name} to other weights; exit code {on.code}")
        ended.said += f"\n---- went on ----\n{on.said}"
    found += files(checkpoints)
    return found, took, ended.said + f"\n---- caught ----\n{ended.caught}"


def files(folder: Path) -> Iterator[str]:
    """What is wrong with the files in a folder of checkpoints."""
    for path in folder.glob("*") if folder.exists() else ():
        try:
            if path.suffix != ".ckpt":
                yield f"left over: {path.name}"
            else:
                read(path)
        except Exception as error:
            yield f"{path.name}: {error}"


def baselines(folder: Path, ways: Sequence[str]) -> tuple[list[str], list[dict[str, int]]]:
    """The weights of a run that nothing disturbs, which are the same however it is launched; the calls of its hooks."""
    runs = [launched(way, 60, folder / way / "first") for way in ways]
    each = [found for ended in runs for found in ended.found]
    if len(each) != 2 * len(ways) or any(one["weights"] != each[0]["weights"] for one in each):
        raise SystemExit(f"undisturbed runs differ: {each}\n" + "\n".join(ended.said for ended in runs))
    return each[0]["weights"], [found["calls"] for found in runs[0].found]


def draws(count: int, seed: int, calls: list[dict[str, int]], ways: Sequence[str]) -> Iterator[Fault]:
    """Kinds and ways come in turn, so that each pair comes; the rest is drawn."""
    drawn, pairs = random.Random(seed), [(kind, way) for kind in KINDS for way in ways]
    for number in range(count):
        if number % len(pairs) == 0:
            drawn.shuffle(pairs)
        kind, way = pairs[number % len(pairs)]
        hook, rank = drawn.choice(HOOKS), drawn.randrange(2)
        while not calls[rank][hook]:
            rank = 1 - rank
        yield Fault(kind, rank, hook, drawn.randint(1, calls[rank][hook]), way, drawn.choice((3, 4, 5)))


def show(fault: Any, found: list[str], took: float, said: str) -> None:
    print(f"{'FAILED' if found else 'ok':6} {took:5.1f}s  {fault}", *found, sep="\n       ")
    if found:
        print("\n".join(f"       | {line}" for line in said[-6000:].splitlines()))
    sys.stdout.flush()


def drawn(count: int, seed: int, jobs: int = 1, ways: Sequence[str] = WAYS) -> int:
    """How many of the faults have failed."""
    begun = time.monotonic()
    with TemporaryDirectory() as name, ThreadPoolExecutor(jobs) as pool:
        weights, calls = baselines(Path(name, "undisturbed"), ways)
        faults = [*draws(count, seed, calls, ways)]
        failed = 0
        checks = pool.map(lambda at: wrong(faults[at], Path(name, str(at)), weights), range(count))
        for fault, checked in zip(faults, checks):
            show(fault, *checked)
            failed += bool(checked[0])
    print(f"{count} faults (seed {seed}), {failed} failed, {time.monotonic() - begun:.0f} seconds")
    return failed


def agents() -> int:
    """Two agents, which find each other in two ways; of one run a process is killed, and started again."""
    failed = 0
    with TemporaryDirectory() as name:
        weights, _ = baselines(Path(name, "undisturbed"), ["ddp"])
        for way in ("static", "c10d"):
            for fault in (None, Fault("SIGKILL", 1, "on_train_batch_end", 9, way, 5)):
                begun, folder = time.monotonic(), Path(name, way, str(fault is not None))
                ended = launched(way, 5, folder / "first", fault=fault)
                found = [] if ended.code == 0 else [f"exit code {ended.code}"]
                found += [] if [each["weights"] for each in ended.found] == [weights] * 2 else ["other weights"]
                found += [f"left over: {number} {command}" for number, command in ended.left.items()]
                found += ["it has not happened"] if fault and not ended.happened else []
                found += files(folder / "checkpoints")
                show(fault or f"{way:9} undisturbed", found, time.monotonic() - begun, ended.said)
                failed += bool(found)
    return failed


if __name__ == "__main__":
    if sys.argv[1:2] == ["work"]:
        work(sys.argv[2], float(sys.argv[3]), *sys.argv[4:])
    else:
        parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
        parser.add_argument("--count", type=int, default=50)
        parser.add_argument("--seed", type=int, default=0)
        parser.add_argument("--jobs", type=int, default=1, help="how many at once")
        parser.add_argument("--agents", action="store_true", help="two agents of torchrun instead")
        given = parser.parse_args()
        raise SystemExit((agents() if given.agents else drawn(given.count, given.seed, given.jobs)) > 0)
