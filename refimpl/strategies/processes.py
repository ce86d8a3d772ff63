"""The processes of a run: how they find each other, agree, wait, and hear that one has failed.

They meet at a store, which process 0 keeps, or who started it. Collectives go through process groups. To agree by them
after every batch would take as long as a small batch: on one machine it goes through memory that all share, and nobody
waits for another unless there is something to agree on.
"""

from __future__ import annotations

import atexit
import mmap
import os
import re
import signal
import socket
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import Any
from uuid import uuid4

from torch import distributed, tensor
from torch._C._distributed_c10d import PrefixStore, TCPStore
from torch.distributed.rendezvous import rendezvous

from ..errors import ConfigurationError, ProcessError
from .launch import Launcher, has_lost_its_launcher, started_by_us, told
from .together import gathered

__all__ = ["Lost", "Processes", "joined"]

_START = 60.0  # seconds that a process has to start in, if others wait no less for it later
_GRACE = 2.0  # seconds in which the others come to their end after one has failed
_GONE = -1  # in the place of how often a process has come
# What a process has in the memory: how often it has come, and what it brought the last two times; after batches, how
# many are done, the one in which it asked for something, for what, and the one that was its epoch's last.
_CELLS = _COUNT, _, _, _DONE, _ASKED, _FOR, _LAST = range(7)
# What torch says in a RuntimeError of another process that has gone, or does not come.
_TOLD = r"gloo/|Gloo|NCCL|TCPStore|Connection (closed|reset) by peer|pair closure|Timed out waiting|wait timeout after"
_CLOSED = r"Connection (closed|reset) by peer|Broken pipe"  # and of these, of one that has not just been late


class Lost(RuntimeError):
    """Another process is no longer there, or does not come."""


class Processes:
    """All of them, as this one sees them: it is number `rank` of `size`, and waits at most `timeout` seconds."""

    def __init__(self, devices: Any) -> None:
        self.rank, self.size, self.timeout = devices.global_rank, devices.world_size, devices.options.process_timeout
        self.launcher = Launcher.of_script(devices) if devices.starts else None
        self.interrupted_at: float | None = None
        self.is_parted = self.ends = False
        self._count = self._done = self._settled = 0  # agreements, batches, and those whose requests are settled
        self.store: Any = None
        self.cells: Any = None  # the memory that all share, if they are on one machine
        if started_by_us():
            threading.Thread(target=has_lost_its_launcher, daemon=True).start()

    def meet(self, devices: Any) -> None:
        """Wait for the others, and know them."""
        import torch._dynamo  # noqa: F401  # as the first optimizer does, which takes as long as a process to start

        limit = timedelta(seconds=self.timeout)
        self.store = self._met(limit)
        if not distributed.is_initialized():  # as a script may have done it
            store = PrefixStore("groups", self.store)
            alone = devices.device.type == "cuda" and devices.devices.count(devices.device) == 1  # as NCCL wants it
            device = devices.device if alone else None
            backend = "cpu:gloo,cuda:nccl" if alone else "gloo"  # both, since a number may be logged
            distributed.init_process_group(
                backend, timeout=limit, store=store, rank=self.rank, world_size=self.size, device_id=device
            )
        self.group = distributed.new_group(backend="gloo", timeout=limit)
        self._share_memory()

    def _met(self, limit: timedelta) -> Any:
        """The store, when all have come to it."""
        if self.launcher is None and not started_by_us():
            store, _, _ = next(iter(rendezvous("env://", timeout=max(limit, timedelta(seconds=_START)))))
            return self._of_this_start(store) if "TORCHELASTIC_USE_AGENT_STORE" in os.environ else store
        store = self.launcher and self.launcher.store
        if store is None:
            address, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
            store = TCPStore(address, port, None, False, limit, False)
        store.add("here", 1)
        begun = time.monotonic()
        while store.add("here", 0) < self.size:
            self._check(begun, max(self.timeout, _START), "for all processes to come to this call")
            time.sleep(0.02)
        return store

    def _of_this_start(self, store: Any) -> Any:
        """The part of torchrun's store that is of these processes: those that it has ended before, to start these in
        their place, have left things there, and the agents of several machines may count such starts differently.

        Each says which one it is; process 0, of whom it knows; when each has found itself among them, they go.
        """
        store = store.underlying_store if isinstance(store, PrefixStore) else store  # of a start, as an agent counts
        store, own, begun, goes = PrefixStore("refimpl", store), uuid4().hex, time.monotonic(), False

        def said(key: str) -> str:
            return str(store.get(key).decode()) if store.check([key]) else ""

        store.set(f"own/{self.rank}", own)
        while not goes:
            self._check(begun, max(self.timeout, _START), "for all processes to come to this call")
            time.sleep(0.02)
            if self.rank == 0:
                each = [said(f"own/{rank}") for rank in range(self.size)]
                store.set("known", known := " ".join(each))
                if goes := all(each) and all(said(f"seen/{rank}") == known for rank in range(1, self.size)):
                    store.set("go", known)
            elif own in (known := said("known")):
                store.set(f"seen/{self.rank}", known)
                goes = said("go") == known
        return PrefixStore(known.partition(" ")[0], store)

    def _check(self, begun: float, limit: float, what: str) -> None:
        if self.launcher and self.launcher.cause:
            raise Lost(self.launcher.cause)
        if time.monotonic() - begun > limit:
            raise Lost(f"it has waited {limit:g} seconds {what}")

    def _share_memory(self) -> None:
        folder = "/dev/shm" if os.path.isdir("/dev/shm") else tempfile.gettempdir()
        if self.rank == 0:
            number, path = tempfile.mkstemp(dir=folder)
            os.truncate(number, 8 * len(_CELLS) * self.size)
            os.close(number)
        own = (path, socket.gethostname()) if self.rank == 0 else None
        path, host = gathered("its memory", own, self.group)[0]
        is_here = host == socket.gethostname() and os.path.exists(path)
        if all(gathered("its place", is_here, self.group)):  # or there are several machines
            with open(path, "r+b") as file:
                self.cells = memoryview(mmap.mmap(file.fileno(), 8 * len(_CELLS) * self.size)).cast("q")
        self.wait()
        if self.rank == 0:
            os.unlink(path)

    # ---- together: every process has to call these, in the same order --------------------------------------------

    def wait(self) -> None:
        """Until all have come here."""
        if not self.is_parted:
            gathered("a barrier", None, self.group)

    def exchange(self, place: str, flags: tuple[bool, ...], batches: int) -> list[list[bool]]:
        """The flags of every process, by rank. Raises ConfigurationError where the processes are at different places,
        Lost where one has not come in time."""
        mark = sum(map(ord, place)) % 256
        code = sum(flag << bit for bit, flag in enumerate(flags)) | mark << 8 | batches << 16
        codes = self._codes(code, place)
        for rank, other in enumerate(codes):
            if other >> 8 & 255 != mark:
                raise ConfigurationError(f"process {self.rank} has come to {place} after {batches} batches of the "
                                         f"epoch, process {rank} to another hook after {other >> 16}: all have to go "
                                         "through the same batches")  # fmt: skip
        return [[bool(other >> bit & 1) for bit in range(len(flags))] for other in codes]

    def _codes(self, code: int, place: str) -> list[int]:
        cells = self.cells
        if cells is None:
            each = [tensor([0]) for _ in range(self.size)]
            distributed.all_gather(each, tensor([code]), group=self.group)
            return [int(other) for other in each]
        self._count, self._settled = self._count + 1, self._done
        slot = 1 + self._count % 2  # nobody is two ahead of another
        self._set(slot, code)
        self._set(_COUNT, self._count)
        self._await(_COUNT, self._count, place)
        return self._all(slot)

    def _set(self, cell: int, value: int) -> None:
        self.cells[len(_CELLS) * self.rank + cell] = value

    def _all(self, cell: int) -> list[int]:
        return [self.cells[place] for place in range(cell, len(self.cells), len(_CELLS))]

    def _await(self, cell: int, value: int, place: str) -> None:
        looks, begun = 0, time.monotonic()
        while min(came := self._all(cell)) < value:
            late = came.index(min(came))
            if self._all(_COUNT)[late] == _GONE:
                raise Lost(f"process {late} has gone before {place}")
            looks += 1
            time.sleep(0 if looks < 100 else 1e-4)
            if looks % 100 == 0:
                self._check(begun, self.timeout, f"at {place} for process {late}")

    def after_batch(self, flags: tuple[bool, ...], is_last: bool, met: bool) -> tuple[list[bool], list[bool]]:
        """What is asked for by all that have done as many batches: in this one by all of them, or in an earlier one by
        any, which is known to all if they have `met` in this one, or come to the end of the epoch; and in that case,
        whose last batch it was."""
        self._done += 1
        done, asked = self._done, self._all(_ASKED)[self.rank]
        if any(flags) and asked <= self._settled:
            asked = done
            self._set(_FOR, sum(flag << bit for bit, flag in enumerate(flags)))
            self._set(_ASKED, done)
        if is_last:
            self._set(_LAST, done)
        self._set(_DONE, done)
        if is_last or asked == done:
            self._await(_DONE, done, "on_train_batch_end")
        now = self._all(_ASKED)
        if is_last:
            counts = [self._settled < at <= done for at in now]
        elif met and any(self._settled < at < done for at in now):
            counts = [self._settled < at < done for at in now]
        else:
            counts = [True] * self.size if all(at == done for at in now) else []
        code = 0
        for mine, other in zip(counts, self._all(_FOR)):
            code |= other * mine
        if code:
            self._settled = done
        return [bool(code >> bit & 1) for bit in range(len(flags))], [at == done for at in self._all(_LAST)] * is_last

    # ---- when one fails ------------------------------------------------------------------------------------------

    def part(self) -> None:
        """Have no more to do with the others: what they wait for does not come, and they get to know."""
        global _together, _ended
        self.is_parted, _together, _ended = True, None, True
        if self.cells:
            self._set(_COUNT, _GONE)
        with suppress(Exception):
            distributed.destroy_process_group()
        if self.launcher:
            self.launcher.end(_GRACE)

    def failed(self, error: BaseException) -> BaseException:
        """What the caller is to see of an error here: itself, or that of the process which was the first to fail."""
        self.ends = True
        store = self.store
        lost = isinstance(error, (Lost, distributed.DistError)) or (
            isinstance(error, RuntimeError) and bool(re.search(_TOLD, str(error)))
        )
        if not lost:
            told = f"process {self.rank} failed:\n{''.join(traceback.format_exception(error))}"
            with suppress(Exception):
                store.compare_set("failed", "", told)
            self.part()
            return error
        cause = self._cause(store, str(error))
        self.part()
        if self.interrupted_at is not None:
            return KeyboardInterrupt()
        return SystemExit(1) if started_by_us() else ProcessError(cause)

    def _cause(self, store: Any, seen: str) -> str:
        """What is known of the process that failed first."""
        with suppress(Exception):
            store.set(f"waited/{self.rank}", seen)
        for _ in range(15 if self.launcher else 5):
            if cause := told(store, "failed") or (self.launcher and self.launcher.cause):
                return str(cause)
            time.sleep(0.1)
        waits = {rank: told(store, f"waited/{rank}") for rank in range(self.size)}
        missing = [rank for rank, where in waits.items() if not where]
        if len(missing) == self.size:  # whoever kept the store has gone
            missing, waits = [1 - self.rank] if self.size == 2 else [], {self.rank: seen}
        who = f"process {', '.join(map(str, missing))}" if missing else "another process"
        named = f"{who} has gone" if re.search(_CLOSED, seen) else f"{who} has not come"
        each = "; ".join(f"process {rank} {where}" for rank, where in waits.items() if where)
        cause = f"{named}, for which process {self.rank} has waited (process_timeout={self.timeout:g} seconds): {each}"
        with suppress(Exception):  # who comes later sees the first ones leave, and not for whom they have waited
            return str(store.compare_set("lost", "", cause).decode())
        return cause


_together: Processes | None = None
_ended = False  # with a run that failed


@contextmanager
def joined(devices: Any, defers: Callable[[], bool]) -> Iterator[Processes]:
    """The processes, which come together in the first run and stay together for those that follow. Within, Ctrl-C
    waits while `defers`, for the processes to agree on it; a second one does not.

    Raises what `Processes.failed` says.
    """
    global _together
    if _ended:
        raise ProcessError("the processes have parted with a run that failed; start the script again, or use "
                           "strategy='ddp_spawn', which starts processes for each run")  # fmt: skip
    processes = _together or Processes(devices)
    if (processes.size, processes.rank) != (devices.world_size, devices.global_rank):
        raise ConfigurationError(f"{devices.world_size} processes are asked for, but this script runs in "
                                 f"{processes.size}; use as many in all of its trainers")  # fmt: skip

    def handle(number: int, frame: Any) -> None:
        if processes.ends:
            return  # which takes seconds, at most
        if processes.launcher and processes.launcher.cause:
            raise Lost(processes.launcher.cause)
        now, before = time.monotonic(), processes.interrupted_at
        processes.interrupted_at = before or now
        if (before is None and not defers()) or (before is not None and now - before > 1):
            raise KeyboardInterrupt  # one may come twice, from the terminal and from the process that started this one

    is_main = threading.current_thread() is threading.main_thread()
    usual = signal.signal(signal.SIGINT, handle) if is_main else None
    try:
        if _together is None:
            processes.meet(devices)
            _together = processes
            atexit.register(_part_at_exit)
        processes.interrupted_at = None
        if processes.launcher:
            processes.launcher.runs = True
        yield processes
    except BaseException as error:
        seen = processes.failed(error)
        if seen is error:
            raise
        raise seen from None  # what torch says of it here is no cause
    finally:
        if processes.launcher:
            processes.launcher.runs = False
        if is_main:
            signal.signal(signal.SIGINT, usual)


def _part_at_exit() -> None:
    """The script ends as those of the others do: where one has failed by itself, so has all of it."""
    if _together is not None:
        failed = _together.launcher.let_end() if _together.launcher else ""
        with suppress(Exception):
            distributed.destroy_process_group()
        if failed:
            sys.stdout.flush()
            os.write(2, f"{failed}\n".encode())
            os._exit(1)
