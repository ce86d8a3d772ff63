"""A scenario in several processes, forked, or started by the trainer: what each does becomes one trace.

They append to one file, each event with one write as it happens, before the process goes on: the order of the trace is
the order of that file, which no two processes can see differently. Runs in the trainer's own world: torch and the
standard library, Python 3.8 and up; on a system that forks.

    python -m conformance.adapters.ranks JOB

is the program that a trainer starts again: JOB is a file that says what it is to do (see `run_launched`).
"""

from __future__ import annotations

import atexit
import json
import os
import pickle
import signal
import sys
import tempfile
import time
import traceback
import warnings
from contextlib import suppress
from importlib import import_module
from importlib.util import find_spec
from typing import Any, Callable, List, Mapping

import torch
from torch._C._distributed_c10d import TCPStore

from ..trace import TraceWriter

__all__ = ["run_in_ranks", "run_launched"]

SECONDS = 60.0  # that they are given
GRACE = 10.0  # seconds, after it has ended itself, for those that the first has started


class _Appended:
    """The trace, as the process of that rank writes it."""

    def __init__(self, file: int, rank: int) -> None:
        self._file, self.rank = file, rank

    def event(
        self, ph: str, receiver: str, hook: str, depth: int, args: Mapping[str, Any], fx: Mapping[str, Any]
    ) -> None:
        self._append([ph, receiver, hook, depth, dict(args), dict(fx), self.rank])

    def close(self, outcome: str, error: str = "") -> None:
        self._append({"outcome": outcome, "error": error})

    def broke(self, harness: str) -> None:
        """What is no fault of the trainer."""
        self._append({"harness": harness})

    def _append(self, row: Any) -> None:
        os.write(self._file, (json.dumps(row) + "\n").encode("ascii"))


def run_in_ranks(devices: int, nodes: int, run: Callable[[Any], None], writer: TraceWriter) -> None:
    """Call `run(writer)` in each of `nodes` times `devices` processes, which find in their environment what torchrun
    would have told them; then write the trace, whose outcome is that of the first to raise.

    Raises RuntimeError where the harness broke in one of them, or one is still running after SECONDS, or has ended
    without a word, as one that is killed does.
    """
    with suppress(ImportError):  # which torch imports at the first optimizer: once, rather than in each process
        import_module("torch._dynamo")
    store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    children: List[int] = []
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "events.jsonl")
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        try:
            for rank in range(devices * nodes):
                child = os.fork()
                if not child:
                    _become(rank, devices, nodes, store.port, run, _Appended(file, rank))
                children.append(child)
            hung = _awaited(children)
        finally:
            os.close(file)
            for child in children:  # where something has stopped this process
                os.kill(child, signal.SIGKILL)
                os.waitpid(child, 0)
        ended = _written(path, hung, writer)
    if ended < devices * nodes:
        raise RuntimeError("%d of %d processes ended without a word" % (devices * nodes - ended, devices * nodes))


def run_launched(devices: int, run: Callable[[Any], None], again: Callable[[Any], None], writer: TraceWriter) -> None:
    """Call `run(writer)` in one process, which is told nothing of others, and whose program is this module: whoever
    starts it again has `again(writer)` called, which has to be picklable. Then write the trace likewise, of as many
    processes as the trainer has started: one for each of the `devices`, if it does as it should.

    Raises RuntimeError where the harness broke, or the first process is still running after SECONDS, or has ended
    without a word.
    """
    with tempfile.TemporaryDirectory() as folder:
        path, job = os.path.join(folder, "events.jsonl"), os.path.join(folder, "job")
        with open(job, "wb") as opened:
            pickle.dump((path, again), opened)
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        child = os.fork()
        if not child:
            _launch(job, run, _Appended(file, 0))
        os.close(file)
        hung = True
        try:
            hung = _awaited([child])
            _wait_for_others(child, path, devices)
        finally:
            with suppress(ProcessLookupError):
                os.killpg(child, signal.SIGKILL)
            if hung:
                os.waitpid(child, 0)
        if not _written(path, hung, writer):
            raise RuntimeError("the program ended without a word")


def _written(path: str, hung: bool, writer: TraceWriter) -> int:
    """Write the trace that the processes have appended to the file; returns how many came to their end."""
    with open(path, encoding="ascii") as lines:
        rows = [json.loads(line) for line in lines]
    broken = [row["harness"] for row in rows if "harness" in row]
    ends = [row for row in rows if isinstance(row, dict)]
    if broken or hung:
        raise RuntimeError(broken[0] if broken else "processes still ran after %g seconds" % SECONDS)
    for row in rows:
        if isinstance(row, list):
            writer.event(*row)
    if ends:
        writer.close(**next((end for end in ends if end["outcome"] == "raised"), ends[0]))
    return len(ends)


def _become(rank: int, devices: int, nodes: int, port: int, run: Callable[[Any], None], writer: _Appended) -> None:
    """Be one of the processes, and end with it."""
    node, local_rank = divmod(rank, devices)
    told = {
        "RANK": rank,
        "LOCAL_RANK": local_rank,
        "WORLD_SIZE": devices * nodes,
        "LOCAL_WORLD_SIZE": devices,
        "GROUP_RANK": node,
        "NODE_RANK": node,
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": port,
        "TORCHELASTIC_USE_AGENT_STORE": True,
        "TORCHELASTIC_RESTART_COUNT": 0,
        "TORCHELASTIC_RUN_ID": "none",
    }
    os.environ.update({name: str(value) for name, value in told.items()})
    torch.set_num_threads(1)  # a pool of threads does not survive a fork
    try:
        run(writer)
    except BaseException:
        writer.broke(traceback.format_exc())
    finally:
        os._exit(0)


def _awaited(children: List[int]) -> bool:
    """Until they have ended, who are then none of the `children` any more; returns whether one has not in time."""
    deadline = time.monotonic() + SECONDS
    while children and time.monotonic() < deadline:
        for child in list(children):
            if os.waitpid(child, os.WNOHANG)[0]:
                children.remove(child)
        time.sleep(0.005)
    return bool(children)


def _launch(job: str, run: Callable[[Any], None], writer: _Appended) -> None:
    """Be the program that a user has started, and end with it."""
    os.setsid()  # so that whoever it leaves behind can be found
    os.dup2(2, 1)  # what the others print is no answer of this one
    name = __spec__.name
    sys.argv, sys.orig_argv = [__file__, job], [sys.executable, "-m", name, job]
    program = sys.modules["__main__"]
    program.__spec__, program.__file__ = find_spec(name), __file__
    atexit._clear()  # what is due at the end of the process that was forked
    torch.set_num_threads(1)
    try:
        run(writer)
    except BaseException:
        writer.broke(traceback.format_exc())
    finally:
        atexit._run_exitfuncs()
        os._exit(0)


def _wait_for_others(leader: int, path: str, devices: int) -> None:
    """Until all have come to their end, or nobody is left of those that the leader has started, or GRACE is over."""
    deadline = time.monotonic() + GRACE
    with suppress(ProcessLookupError):
        while _ended(path) < devices and time.monotonic() < deadline:
            os.killpg(leader, 0)
            time.sleep(0.05)


def _ended(path: str) -> int:
    """How many processes have written their last line, which is no event's."""
    with open(path, "rb") as lines:
        return sum(line.startswith(b"{") for line in lines)


def _started_again() -> None:
    """What the program does in a process that a trainer has started."""
    with open(sys.argv[1], "rb") as opened:
        path, again = pickle.load(opened)
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    again(_Appended(os.open(path, os.O_WRONLY | os.O_APPEND), int(os.environ["LOCAL_RANK"])))


if __name__ == "__main__":
    _started_again()
