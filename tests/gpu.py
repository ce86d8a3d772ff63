"""`python -m tests.gpu`: the tests of `test_gpu.py` on this machine's GPU, and a training step beside a bare loop; what
comes of it is written into `docs/gpu.md`, in less than 10 minutes. `GPU_TESTS_ON=cpu python -m tests.gpu` tries the
tests on the CPU, and writes nothing."""

from __future__ import annotations

import platform
import statistics
import sys
import time
import traceback
import warnings
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any
from unittest import SkipTest

import torch
from torch import Tensor, nn

from refimpl import LightningModule, Trainer, __version__

from . import test_gpu

PAGE = Path(__file__).resolve().parent.parent / "docs" / "gpu.md"
STEPS, PAIRS = 300, 15
ENOUGH = 300  # seconds, after which no other test begins: a hanging one takes a minute, the figures three
SEVERAL = "test_dp_", "test_ddp_"


class Layers(LightningModule):
    """Three layers of `width`; a loss that needs no target."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.net = nn.Sequential(*(nn.Linear(width, width) for _ in range(3)))

    def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        return self.net(batch).square().mean()  # type: ignore[no-any-return]

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=1e-3)


class Same:
    """One batch on the GPU, again and again."""

    def __init__(self, width: int) -> None:
        self.batch = torch.randn(64, width, device="cuda")

    def __len__(self) -> int:
        return STEPS

    def __iter__(self) -> Any:
        return iter([self.batch] * STEPS)


def engine(width: int, precision: Any) -> None:
    trainer = Trainer(accelerator="gpu", max_epochs=1, precision=precision, **test_gpu.OFF)
    trainer.fit(Layers(width), Same(width))


def by_hand(width: int, precision: Any) -> None:
    module = Layers(width).cuda()
    optimizer, scaler = module.configure_optimizers(), torch.amp.GradScaler("cuda", enabled=precision == 16)
    dtype = {16: torch.float16, "bf16": torch.bfloat16}.get(precision)
    for batch_idx, batch in enumerate(Same(width)):
        with torch.autocast("cuda", dtype=dtype, enabled=dtype is not None):
            loss = module.training_step(batch, batch_idx)
        optimizer.zero_grad()
        scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
        scaler.step(optimizer)
        scaler.update()


def seconds(run: Callable[[], None]) -> float:
    torch.cuda.synchronize()
    start = time.perf_counter()
    run()
    torch.cuda.synchronize()
    return time.perf_counter() - start


def ratio(width: int, precision: Any) -> tuple[float, float]:
    """The engine's time to that of the loop by hand, taking turns, and microseconds of a step by hand: medians."""
    ratios, bare = [], []
    for _ in range(PAIRS + 1):
        theirs = seconds(lambda: by_hand(width, precision))
        ratios.append(seconds(lambda: engine(width, precision)) / theirs)
        bare.append(theirs / STEPS * 1e6)
    return statistics.median(ratios[1:]), statistics.median(bare[1:])  # the first warms up


def tested(begun: float, several: bool) -> list[str]:
    """A table of what came of the tests: of those of one device, or of several."""
    lines = ["", "| test | |", "|---|---|"]
    for name, test in vars(test_gpu).items():
        if not name.startswith("test_") or name.startswith(SEVERAL) != several:
            continue
        try:
            if time.monotonic() - begun > ENOUGH:
                raise SkipTest(f"{ENOUGH} seconds had gone")
            test()
            came = "passed"
        except SkipTest as reason:
            came = f"not run: {reason}"
        except Exception as error:
            traceback.print_exc()
            came = f"failed: {type(error).__name__}"
        lines.append(f"| {name.removeprefix('test_').replace('_', ' ')} | {came} |")
        print(f"{lines[-1]} {time.monotonic() - begun:.0f} s", flush=True)
    return lines


def figures() -> list[str]:
    """A table of training steps."""
    lines = [
        "", "A training step beside the same loop by hand, batches of 64 on the GPU already: the median ratio of "
        f"{PAIRS} pairs of {STEPS} steps that take turns, and the microseconds of a step by hand.", "",
        "| three layers of | precision | ratio | by hand, µs |", "|---|---|---|---|",
    ]  # fmt: skip
    for width in (128, 4096):
        for precision in (32, "bf16", 16):
            beside, bare = ratio(width, precision)
            lines.append(f"| {width} | {precision} | {beside:.2f} | {bare:.0f} |")
            print(lines[-1], flush=True)
    return lines


def main() -> None:
    warnings.simplefilter("ignore")
    if not test_gpu.IS_THERE:
        sys.exit("torch finds no GPU here; GPU_TESTS_ON=cpu tries the tests on the CPU, and writes nothing")
    begun, is_on_gpu = time.monotonic(), test_gpu.ON == "gpu"
    name = torch.cuda.get_device_name() if is_on_gpu else "the CPU"
    many = f"{torch.cuda.device_count()} × " if torch.cuda.device_count() > 1 else ""
    lines = [
        "# On a GPU", "",
        f"Measured on {date.today()} with {many}{name}, torch {torch.__version__}, Python {platform.python_version()}, "
        f"refimpl {__version__}: `python -m tests.gpu`, which writes this page.",
    ]  # fmt: skip
    lines += tested(begun, several=False)
    several = tested(begun, several=True)
    lines += figures() if is_on_gpu else []
    lines += [
        "", "## DP and DDP", "",
        "With two parts of a batch on one GPU, and two processes on one, which speak by gloo in a group that the "
        "script has made: NCCL refuses that.", *several,
    ]  # fmt: skip
    page = "\n".join(lines) + "\n"
    if is_on_gpu:
        PAGE.write_text(page, encoding="utf-8")
    else:
        print(page)


if __name__ == "__main__":
    main()
