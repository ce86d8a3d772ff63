"""Ratios of times, and counts of calls, per batch; and what must not grow with the run."""

from __future__ import annotations

import gc
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor

__all__ = ["Batches", "Run", "calls", "import_ratio", "memory_growth", "peak_growth", "ratio", "time_growth"]

WARM = 50
STEPS = 450


class Batches:
    """`count` batches of a shape, the same few tensors again and again."""

    def __init__(self, count: int = STEPS, shape: tuple[int, ...] = (4, 32)) -> None:
        torch.manual_seed(0)
        few = [torch.randn(shape) for _ in range(16)]
        self.batches = [few[i % 16] for i in range(count)]

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[Tensor]:
        return iter(self.batches)


class Timed(Batches):
    """Measures the seconds from batch WARM to the last one: the steps alone, whoever runs them."""

    seconds = 0.0

    def __iter__(self) -> Iterator[Tensor]:
        started, last = 0.0, len(self.batches) - 1
        for index, batch in enumerate(self.batches):
            if index == WARM:
                started = time.perf_counter()
            elif index == last:  # a limit may stop the iteration here
                self.seconds = time.perf_counter() - started
            yield batch


Run = Callable[[Batches], Any]  # a loop over the batches it is given


def _seconds(run: Run, data: Timed) -> float:
    gc.collect()
    run(data)
    return data.seconds


def ratio(run: Run, bare: Run, pairs: int, data: Timed | None = None) -> float:
    """The median over pairs of the run's seconds to the bare loop's, the two taking turns at being first."""
    data, ratios = data or Timed(), []
    for number in range(pairs):
        if number % 2:
            ours, theirs = _seconds(run, data), _seconds(bare, data)
        else:
            theirs, ours = _seconds(bare, data), _seconds(run, data)
        ratios.append(ours / theirs)
    return statistics.median(ratios)


def calls(run: Run, steps: int = 100) -> float:
    """Function calls per batch, Python's and C's: what `steps` more batches add to a run. The clock of progress
    bars stands still, so that none is drawn: how often they are depends on the machine."""

    def count(batches: int) -> int:
        data, seen = Batches(batches), 0

        def profiler(frame: Any, event: str, arg: Any) -> None:
            nonlocal seen
            seen += event in ("call", "c_call")

        gc.collect()
        gc.disable()  # which would finalise what others have left, and be counted
        sys.setprofile(profiler)
        try:
            run(data)
        finally:
            sys.setprofile(None)
            gc.enable()
        return seen

    with patch("tqdm.std.time", lambda: 0.0):
        run(Batches(20))
        few = count(20)
        return (count(20 + steps) - few) / steps


def _printed(code: str) -> float:
    """The number that a fresh process prints."""
    return float(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout)


def import_ratio(pairs: int) -> float:
    """The time of `import refimpl` to that of `import torch`: medians of fresh processes that take turns."""

    def seconds(name: str) -> float:
        return _printed(f"import time; t = time.perf_counter(); import {name}; print(time.perf_counter() - t)")

    seconds("refimpl"), seconds("torch")  # the files are read from the disk, and compiled, once
    times: dict[str, list[float]] = {"refimpl": [], "torch": []}
    for number in range(pairs):
        for name in ("refimpl", "torch") if number % 2 else ("torch", "refimpl"):
            times[name].append(seconds(name))
    return statistics.median(times["refimpl"]) / statistics.median(times["torch"])


def memory_growth(steps: int) -> float:
    """Megabytes by which a fresh process's peak grows over `steps` training steps after the first thousand."""
    return _printed(
        "from tests.bench.measure import peak_growth; from tests.bench.rows import ROWS, REFIMPL; "
        f"print(peak_growth(ROWS[0].run(REFIMPL), {steps}))"
    )


def peak_growth(run: Run, steps: int) -> float:
    """What `memory_growth` measures, in this process."""
    run(Batches(1000))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    run(Batches(steps))
    return (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024


def time_growth(run: Run, bare: Run, steps: int) -> float:
    """Time per step in a run of `steps` to that in runs of a thousand, both beside a bare loop."""

    def per_step(count: int) -> float:
        data = Timed(count)
        return _seconds(run, data) / _seconds(bare, data)

    return per_step(steps) / statistics.median(per_step(1000) for _ in range(5))
