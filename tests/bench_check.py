"""What judging costs: a conforming trace of about a million events, all clauses, seconds and memory.

    python -m tests.bench_check                   # 100,000 and 1,000,000 events
    python -m tests.bench_check --events 50000    # another size, one row

Nothing is trained: the trace is what the oracle says of a big scenario. Each size is judged in a process
of its own, so that its peak of memory is its own. Seconds are CPU seconds of one core; a busy machine
does not change them much.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from conformance.checker import judge_file
from conformance.clauses import load_clauses
from conformance.hooks import HOOKS
from conformance.scenario import Data, Model, Scenario
from conformance.spec.contracts import expected
from conformance.trace import Header, TraceWriter

EFFECTS = ["training", "grad_enabled", "global_step", "current_epoch", "grads", "params", "stage"]
EVENTS_AN_EPOCH = 4170


def scenario(events: int) -> Scenario:
    """A fit of about so many events: epochs of 100 batches, each with a validation of 10."""
    epochs = max(1, round(events / EVENTS_AN_EPOCH))
    model = Model(defines=("training_epoch_end", "validation_epoch_end"))
    options = {"max_epochs": epochs, "num_sanity_val_steps": 2}
    return Scenario("big", data=Data(train=100, val=(10,)), model=model, trainer=options)


def write(events: int, path: Path) -> int:
    """Write the conforming trace; returns how many events it has."""
    fit = scenario(events)
    declares = {"hooks": list(HOOKS), "effects": EFFECTS}
    header = Header("0", fit.to_dict(), {"name": "oracle", "version": "0"}, declares, {})
    depth = count = 0
    with TraceWriter(path, header) as writer:
        for due in expected(fit):
            grads = {"grads": "zero"} if due.fx.get("grads") == "clear" else {}
            depth -= due.ph == "E"
            writer.event(due.ph, due.receiver, due.hook, depth, due.args, {**due.fx, **grads})
            depth += due.ph == "B"
            count += 1
    return count


def judge(path: Path) -> dict[str, object]:
    """Judge in this process: seconds, peak of memory in MiB before and after, and the verdicts."""
    clauses = load_clauses()
    unit = 1 if sys.platform == "darwin" else 1024  # what ru_maxrss counts in
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20
    started, wall = time.process_time(), time.perf_counter()
    verdicts = judge_file(path, clauses)
    return {
        "seconds": time.process_time() - started,
        "wall": time.perf_counter() - wall,
        "before": before,
        "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20,
        "verdicts": Counter(verdict.status.value for verdict in verdicts),
    }


def main() -> None:
    """Print a row for each size."""
    description = (__doc__ or "").split("\n")[0]
    parser = argparse.ArgumentParser(prog="python -m tests.bench_check", description=description)
    parser.add_argument("--events", type=int, nargs="*", default=[100_000, 1_000_000], metavar="N")
    parser.add_argument("--judge", metavar="TRACE", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.judge:
        print(json.dumps(judge(Path(arguments.judge))))
        return
    print(
        f"{'events':>10} {'file':>9} {'CPU s':>7} {'wall s':>7} {'us/event':>9} {'memory before, peak':>21}  verdicts"
    )
    for events in arguments.events:
        with tempfile.TemporaryDirectory() as scratch:
            path = Path(scratch) / "trace.jsonl"
            count = write(events, path)
            command = [sys.executable, "-m", "tests.bench_check", "--judge", str(path)]
            row = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
            size = path.stat().st_size / 2**20
        verdicts = ", ".join(f"{number} {status}" for status, number in row["verdicts"].items())
        print(
            f"{count:>10,} {size:>5.0f} MiB {row['seconds']:>7.1f} {row['wall']:>7.1f} "
            f"{row['seconds'] / count * 1e6:>9.1f} {row['before']:>8.0f}, {row['peak']:>4.0f} MiB  {verdicts}"
        )


if __name__ == "__main__":
    main()
