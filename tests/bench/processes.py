"""DDP beside a loop written by hand with torch's own: two processes on the CPU, of one thread each.

Both loops run in the same two processes, in turns. A launch is measured from the command to the end of the first step.
"""

from __future__ import annotations

import json
import os
import socket
import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, distributed, nn
from torch.nn.functional import cross_entropy
from torch.nn.parallel import DistributedDataParallel

from .measure import Batches, Run, Timed, ratio

__all__ = ["launch_ratio", "ratios"]

#: What is trained: hidden units, and rows in a batch of each process.
SIZES = {"Linear(64, 10), batches of 4": (0, 4), "64-256-256-10, batches of 64": (256, 64)}
FINDS_UNUSED = {"ddp": True, "ddp_find_unused_parameters_false": False}


class Digits:
    """Ten digits of 64 pixels: a linear layer, or three layers with `width` hidden units in each of two."""

    def __init__(self, width: int, rows: int) -> None:
        super().__init__()
        sizes = [64, width, width, 10] if width else [64, 10]
        layers = [layer for size in pairwise(sizes) for layer in (nn.Linear(*size), nn.ReLU())]
        self.layers, self.target = nn.Sequential(*layers[:-1]), torch.arange(rows) % 10

    def forward(self, batch: Tensor) -> Tensor:
        return self.layers(batch)  # type: ignore[no-any-return]

    def training_step(self: Any, batch: Tensor, batch_idx: int) -> Tensor:
        return cross_entropy(self(batch), self.target)

    def configure_optimizers(self: Any) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.001)


class _Module(Digits, nn.Module):
    pass


def by_hand(width: int, rows: int, finds_unused: bool) -> Run:
    """As torch's documentation of DistributedDataParallel has it."""

    def train(data: Batches) -> None:
        module = _Module(width, rows)
        wrapped = DistributedDataParallel(module, find_unused_parameters=finds_unused)
        optimizer = module.configure_optimizers()
        for batch in data:
            loss = cross_entropy(wrapped(batch), module.target)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

    return train


def by_engine(width: int, rows: int, strategy: str) -> Run:
    """The engine, which has started the other process."""
    import refimpl

    from .engines import OFF

    class Module(Digits, refimpl.LightningModule):
        pass

    def train(data: Batches) -> None:
        trainer = refimpl.Trainer(max_epochs=1, strategy=strategy, devices=2, accelerator="cpu", **OFF)
        trainer.fit(Module(width, rows), data)

    return train


def _start_by_hand() -> None:
    """Two processes, of which the first starts this script again as the second."""
    if "RANK" not in os.environ:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port), WORLD_SIZE="2", RANK="0")
        subprocess.Popen([sys.executable, *sys.orig_argv[1:]], env={**os.environ, "RANK": "1"})
    distributed.init_process_group("gloo")


def _in_process(what: str, pairs: int) -> None:
    """What each process does, of which the first prints: the time when a first step is over, or ratios."""
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    for name, (width, rows) in SIZES.items():
        data = Timed(450, (rows, 64))
        for strategy, finds_unused in FINDS_UNUSED.items():
            ours, bare = by_engine(width, rows, strategy), by_hand(width, rows, finds_unused)
            if what != "ratio":
                if what == "bare":
                    _start_by_hand()
                (bare if what == "bare" else ours)(Batches(1, (rows, 64)))
                return _tell(time.time())
            ours(Batches(1, (rows, 64)))  # the processes are there from here on
            _tell([f"refimpl: {strategy}, {name}", ratio(ours, bare, pairs, data)])
        _tell([f"bare DDP loop against itself, {name}", ratio(bare, bare, pairs, data)])


def _tell(found: Any) -> None:
    if distributed.get_rank() == 0:
        print(json.dumps(found), flush=True)


def _told(what: str, pairs: int) -> Iterator[Any]:
    command = [sys.executable, "-m", __name__, what, str(pairs)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdout
        yield from map(json.loads, process.stdout)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command)


def ratios(pairs: int) -> Iterator[tuple[str, float]]:
    """Rows of time per step to that by hand: each pair of loops in the same two processes, which take turns."""
    yield from map(tuple, _told("ratio", pairs))


def launch_ratio(pairs: int) -> float:
    """Time from the command to the end of the first step, to that by hand: medians of fresh starts in turns."""
    seconds: dict[str, list[float]] = {"refimpl": [], "bare": []}
    for number in range(pairs):
        for what in ("refimpl", "bare") if number % 2 else ("bare", "refimpl"):
            begun = time.time()
            seconds[what].append(next(iter(_told(what, 0))) - begun)
    return statistics.median(seconds["refimpl"]) / statistics.median(seconds["bare"])


if __name__ == "__main__":
    _in_process(sys.argv[1], int(sys.argv[2]))
