"""Prints the table."""

from __future__ import annotations

import argparse
import json
import warnings
from pathlib import Path

import torch

from . import by_hand, processes
from .measure import calls, import_ratio, memory_growth, ratio, time_growth
from .peers import peers
from .rows import REFIMPL, ROWS


class Table:
    """Figures by row, printed as they come."""

    def __init__(self) -> None:
        self.figures: dict[str, dict[str, float]] = {}

    def row(self, name: str, **values: float) -> None:
        self.figures[name] = values
        shown = (f"{key} {value:.2f}" if value < 100 else f"{key} {value:.0f}" for key, value in values.items())
        print(f"{name:<62} {'  '.join(shown)}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench",
        description="What the engine costs beside a bare PyTorch loop.",
        epilog="example: python -m tests.bench --quick --json bench.json",
    )
    parser.add_argument("--quick", action="store_true", help="5 pairs a row, and 10k steps for what must not grow")
    parser.add_argument("--json", metavar="FILE", help="write the figures there")
    arguments = parser.parse_args()
    pairs, long = (5, 10_000) if arguments.quick else (25, 100_000)
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)

    table = Table()
    bare = {"training loop": by_hand.train, "pass without gradients": by_hand.evaluate}
    for name, run in bare.items():
        table.row(f"bare {name} against itself", ratio=ratio(run, run, pairs), calls=calls(run))
    for row in ROWS:
        run = row.run(REFIMPL)
        measured = {"ratio": ratio(run, row.bare, pairs), "most": row.ratio}
        counted = {"calls": calls(run), "most_calls": row.calls, "by_hand": calls(row.bare)}
        table.row(f"refimpl: {row.name}", **measured, **counted)
    for name, run, by in peers():
        table.row(name, ratio=ratio(run, by, pairs), calls=calls(run))
    for name, found in processes.ratios(pairs):
        table.row(name, ratio=found)
    table.row("DDP, from the command to the first step", ratio=processes.launch_ratio(max(5, pairs // 2)), most=1.2)
    step = ROWS[0]
    table.row("import refimpl to import torch", ratio=import_ratio(max(5, pairs // 2)), most=1.1)
    table.row(f"time per step, {long} steps to 1000", ratio=time_growth(step.run(REFIMPL), step.bare, long))
    table.row(f"memory over {long} steps", megabytes=memory_growth(long))
    if arguments.json:
        Path(arguments.json).write_text(json.dumps(table.figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
