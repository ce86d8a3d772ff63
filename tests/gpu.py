"""`python -m tests.gpu`: the tests of `test_gpu.py` on this machine's GPU, and a training step beside a bare loop; what
comes of it is written into `docs/gpu.md`."""

from __future__ import annotations

import platform
import statistics
import time
import traceback
import warnings
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from refimpl import LightningModule, Trainer, __version__

from . import test_gpu

PAGE = Path(__file__).resolve().parent.parent / "docs" / "gpu.md"
STEPS, PAIRS = 300, 15


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


def main() -> None:
    warnings.simplefilter("ignore")
    lines = [
        "# On a GPU", "",
        f"Measured on {date.today()} with {torch.cuda.get_device_name()}, torch {torch.__version__}, Python "
        f"{platform.python_version()}, refimpl {__version__}: `python -m tests.gpu`, which writes this page.", "",
        "| test | |", "|---|---|",
    ]  # fmt: skip
    for name, test in vars(test_gpu).items():
        if name.startswith("test_"):
            try:
                test()
                came = "passed"
            except Exception as error:
                traceback.print_exc()
                came = f"failed: {type(error).__name__}"
            lines.append(f"| {name.removeprefix('test_').replace('_', ' ')} | {came} |")
            print(lines[-1], flush=True)
    lines += [
        "", "A training step beside the same loop by hand, batches of 64 on the GPU already: the median ratio of "
        f"{PAIRS} pairs of {STEPS} steps that take turns, and the microseconds of a step by hand.", "",
        "| three layers of | precision | ratio | by hand, µs |", "|---|---|---|---|",
    ]  # fmt: skip
    for width in (128, 4096):
        for precision in (32, "bf16", 16):
            beside, bare = ratio(width, precision)
            lines.append(f"| {width} | {precision} | {beside:.2f} | {bare:.0f} |")
            print(lines[-1], flush=True)
    PAGE.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
