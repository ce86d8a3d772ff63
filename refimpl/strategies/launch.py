"""How the processes of a run come to be: the script is started again for the others, or a function is spawned."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from torch._C._distributed_c10d import TCPStore

import __main__

from ..devices import OURS
from ..errors import ConfigurationError, ProcessError, warn
from ..loaders.batches import transformed
from ..progress import TrainerStatus
from ..saving.resume import keyed
from ..saving.shape import fitting

__all__ = ["Launcher", "has_lost_its_launcher", "refuse_import", "spawned", "started_by_us", "told"]

_STARTED_IN = os.getcwd()  # what the command line is relative to
_PARENT = "REFIMPL_STARTED_BY"  # the number of the process that has started this one
_IS_STARTED = os.environ.get(_PARENT) == str(os.getppid())


def started_by_us() -> bool:
    """Whether another process of this engine has started this one."""
    return _IS_STARTED


def has_lost_its_launcher() -> None:
    """End this process, which nobody else would, as soon as the one that started it has gone."""
    parent = os.getppid()
    while os.getppid() == parent:
        time.sleep(0.2)
    os.write(2, f"process {os.environ.get('RANK')}: the process that started it has gone\n".encode())
    os._exit(1)


def _environment(rank: int, local_rank: int, here: int, world_size: int, address: str, port: int) -> dict[str, str]:
    numbers = {"RANK": rank, "LOCAL_RANK": local_rank, "LOCAL_WORLD_SIZE": here, "WORLD_SIZE": world_size}
    numbers |= {"MASTER_PORT": port, _PARENT: os.getpid(), "NODE_RANK": rank // here, OURS: 1}
    return {"MASTER_ADDR": address, **{name: str(number) for name, number in numbers.items()}}


class Launcher:
    """The processes that this one has started, watched: when one fails, or leaves a run, `cause` says so, the others
    are ended, and this one is woken, unless it only waits for them, who tell what they have done in `folder`."""

    def __init__(self, children: dict[int, Any], store: Any, folder: str = "") -> None:
        self.children, self.store, self.folder, self.wakes = children, store, folder, not folder
        self.cause, self.runs, self._over = "", True, False
        threading.Thread(target=self._watch, daemon=True).start()

    @classmethod
    def of_script(cls, devices: Any) -> Launcher:
        """The script, started again for each of the other processes of this machine.

        Raises ConfigurationError where there is no script.
        """
        if not hasattr(__main__, "__file__") and sys.argv[:1] != ["-c"]:
            raise ConfigurationError(
                "strategy='ddp' starts the script again, and here is none; use strategy='ddp_spawn', or write one"
            )
        first, here, world_size = devices.global_rank, len(devices.devices), devices.world_size
        address, port = os.environ.get("MASTER_ADDR", "127.0.0.1"), int(os.environ.get("MASTER_PORT", 0))
        store = TCPStore(address, port, None, first == 0, wait_for_workers=False)
        command, children = [sys.executable, *sys.orig_argv[1:]], {}
        for local_rank in range(1, here):
            told = _environment(first + local_rank, local_rank, here, world_size, address, store.port)
            children[first + local_rank] = subprocess.Popen(command, env={**os.environ, **told}, cwd=_STARTED_IN)
        own = _environment(first, 0, here, world_size, address, store.port)
        os.environ.update({name: value for name, value in own.items() if name != _PARENT})
        return cls(children, store)

    def _codes(self) -> dict[int, int]:
        """The exit codes of those that have ended, by rank."""
        codes = {
            rank: child.poll() if isinstance(child, subprocess.Popen) else child.exitcode
            for rank, child in self.children.items()
        }
        return {rank: code for rank, code in codes.items() if code is not None}

    def _watch(self) -> None:
        while not self._over and not self.cause:
            time.sleep(0.1)
            failed = {rank: code for rank, code in self._codes().items() if code or not self._has_finished(rank)}
            cause = told(self.store, "failed") or (self._is_left() and "process 0, which keeps the store, has gone")
            if failed and not cause:
                time.sleep(0.3)
                killed = {rank: code for rank, code in self._codes().items() if code < 0}
                cause = "; ".join(_ended(rank, code) for rank, code in (killed or failed).items())
                cause = told(self.store, "failed") or (not killed and told(self.store, "lost")) or cause
            self.cause = cause or ""
        if self.cause and not self._over:
            self._wake()

    def _has_finished(self, rank: int) -> bool:
        """Whether one that has ended well had come to the end of what it was to do."""
        if self.folder:
            return Path(self.folder, f"done-{rank}").exists()
        if self.runs:
            time.sleep(0.5)  # that run may be over by now
        return not self.runs

    def _is_left(self) -> bool:
        """Whether the store has gone, as it does with the script of process 0, and a run still goes on here."""
        with suppress(Exception):
            self.store.check(["failed"])
            return False
        time.sleep(1.0)  # that run may be over by now
        return self.runs and not self._over

    def _wake(self) -> None:
        """What the main thread waits for will not come: it is woken. If it hears nothing, it is in foreign code."""
        time.sleep(1.0)  # for the failed one to say so itself, and for the others to come to their end
        if self.wakes and self.runs:
            with suppress(Exception):
                signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
        self._end_children(2.0)
        deadline = time.monotonic() + 5
        while self.wakes and self.runs and time.monotonic() < deadline:
            time.sleep(0.1)
        if self.wakes and self.runs:
            os.write(2, f"{self.cause}\n".encode())
            os._exit(1)

    def _end_children(self, grace: float) -> None:
        """Those that have not ended after `grace` seconds are, if need be by force."""
        for give in (None, signal.SIGTERM, signal.SIGKILL):
            for rank in self.children.keys() - self._codes().keys() if give else ():
                with suppress(OSError):
                    os.kill(self.children[rank].pid, give)  # type: ignore[arg-type]
            deadline = time.monotonic() + grace
            while len(self._codes()) < len(self.children) and time.monotonic() < deadline:
                time.sleep(0.02)

    def end(self, grace: float) -> None:
        """A run has failed: nobody goes on, and the port is free."""
        self._over = True
        self._end_children(grace)
        self.store = None
        for name in _environment(0, 0, 1, 1, "", 0):
            os.environ.pop(name, None)

    def let_end(self) -> str:
        """The script of process 0 has come to its end; so do those of the others, or they are ended in 10 seconds.
        Which of them have failed meanwhile, if any."""
        self._over = True
        self._end_children(10.0)
        forced = -signal.SIGTERM, -signal.SIGKILL
        return "; ".join(_ended(rank, code) for rank, code in self._codes().items() if code and code not in forced)


def told(store: Any, key: str) -> str:
    """What a process has said under that name; nothing where the store has gone."""
    with suppress(Exception):
        return str(store.get(key).decode()) if store.check([key]) else ""
    return ""


def _ended(rank: int, code: int) -> str:
    if code < 0:
        return f"process {rank} was ended by {signal.Signals(-code).name}"
    why = "left before the run was over" if code == 0 else "ended; what it printed says why"
    return f"process {rank} {why} (exit code {code})"


# ---- spawn -----------------------------------------------------------------------------------------------------


class _Queue(list[Any]):
    """What `add_to_queue` and `get_from_queue` are given."""

    put = list.append

    def get(self) -> Any:
        """The oldest item."""
        return self.pop(0)


def refuse_import() -> None:
    """Raises ProcessError in a process that is being spawned, and has not yet come to what it is for."""
    if getattr(multiprocessing.current_process(), "_inheriting", False):
        raise ProcessError("strategy='ddp_spawn' imports the script in each process: what it is to do once has to "
                           "stand under if __name__ == '__main__'")  # fmt: skip


def spawned(
    devices: Any, trainer: Any, function: str, loop: Any, model: Any, loaders: Mapping[str, Any], datamodule: Any,
    ckpt_path: Any, weights_only: bool, returns: bool
) -> Any:  # fmt: skip
    """The function runs in processes of its own, and what process 0 has come to is brought back: the module's weights,
    what was logged, the callbacks' states, where the trainer is. Predictions are not.

    Raises ProcessError naming the first process that failed, ConfigurationError for what cannot be pickled.
    """
    if returns and function == "predict":
        warn("strategy='ddp_spawn' returns no predictions, which are in other processes; let a BasePredictionWriter "
             "write them, and give return_predictions=False")  # fmt: skip
    for logger in trainer.loggers:
        logger.log_dir  # noqa: B018  # decides on a version, which the processes share
    model = trainer.run.module if model is None else model
    trainer.run.attach(trainer, function, model, dict(loaders), datamodule)
    given = loop, model, loaders, datamodule, ckpt_path, weights_only, False
    try:
        blob = pickle.dumps((trainer, function, given))  # by value: what is shared would be trained on in all at once
    except Exception as error:
        raise ConfigurationError(
            f"strategy='ddp_spawn' pickles the trainer, the module and its loaders, and cannot: {error}; define what "
            "they are made of at the top of a module, or use strategy='ddp'"
        ) from error
    folder = tempfile.mkdtemp()
    try:
        _spawn(devices, blob, folder)
        result = pickle.loads(Path(folder, "result").read_bytes())
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    results = _brought_back(trainer, function, result)
    return None if function == "predict" else results


def _spawn(devices: Any, blob: bytes, folder: str) -> None:
    Path(folder, "given").write_bytes(blob)
    store = TCPStore("127.0.0.1", 0, None, True, wait_for_workers=False)
    here, context, before = len(devices.devices), multiprocessing.get_context("spawn"), dict(os.environ)
    children = {rank: context.Process(target=_in_process, args=(folder,)) for rank in range(here)}
    interrupts, launcher = [], None

    def forward(number: int, frame: Any) -> None:
        interrupts.append(number)
        for pid in [child.pid for child in children.values() if child.pid]:
            with suppress(OSError):
                os.kill(pid, signal.SIGINT)

    is_main = threading.current_thread() is threading.main_thread()
    usual = signal.signal(signal.SIGINT, forward) if is_main else None
    try:
        try:
            for rank, child in children.items():
                os.environ.update(_environment(rank, rank, here, here, "127.0.0.1", store.port))
                child.start()
        finally:
            os.environ.clear()
            os.environ.update(before)
        launcher = Launcher(children, store, folder)
        while len(launcher._codes()) < here:
            time.sleep(0.05)
        time.sleep(0.5)  # in which the launcher sees how they have ended
        if any(launcher._codes().values()) or launcher.cause:
            if interrupts and not told(store, "failed"):  # in processes that were still being started
                raise KeyboardInterrupt
            while not launcher.cause:
                time.sleep(0.05)
            raise ProcessError(launcher.cause)
    finally:
        if launcher:
            launcher.end(3.0)
        if is_main:
            signal.signal(signal.SIGINT, usual)


def _in_process(folder: str) -> None:
    """One of the processes."""
    trainer, function, given = pickle.loads(Path(folder, "given").read_bytes())
    devices = trainer.run.devices
    devices.take_place()
    try:
        results = devices.execute(trainer.run.enter, trainer, function, *given)
    except BaseException:  # it is told by whoever was the first to fail
        sys.stderr.flush()
        os._exit(1)
    if devices.global_rank == 0:
        queue, run = _Queue(), trainer.run
        run.module.add_to_queue(queue)
        states = {key: callback.state_dict() for key, callback in keyed(trainer.callbacks)}
        weights = transformed(run.module.state_dict(), lambda weight: weight.detach().cpu())
        progress = run.progress.state_dict(), str(trainer.state.status)
        Path(folder, "result").write_bytes(pickle.dumps((results, weights, list(queue), states, progress)))
    Path(folder, f"done-{devices.global_rank}").touch()


def _brought_back(trainer: Any, function: str, result: Sequence[Any]) -> Any:
    results, weights, queue, states, (progress, status) = result
    run = trainer.run
    with fitting("what setup made in ddp_spawn's processes alone (strategy='ddp' would do)", type(run.module).__name__):
        run.module.load_state_dict(weights)
    run.progress.start(function)
    run.progress.load_state_dict(progress)
    run.progress.end(TrainerStatus(status))
    for key, callback in keyed(trainer.callbacks):
        if state := states.get(key):
            if "dirpath" in state:
                vars(callback)["dirpath"] = state["dirpath"]  # the folder that the fit has decided on
            callback.load_state_dict(state)
    run.module.get_from_queue(_Queue(queue))
    return results
