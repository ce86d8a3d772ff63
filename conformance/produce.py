"""The producer: scenarios in, traces out, in the trainer's own world.

    python -m conformance.produce ADAPTER DIRECTORY [blind] < scenarios.jsonl

reads a scenario (JSON) from each line of the standard input, writes `DIRECTORY/<name>.jsonl`, and
prints a line of JSON for each: {"scenario": name} or {"scenario": name, "error": traceback}. With "blind", effects are
read only where a user's call ends: what a trainer does must not depend on that.
"""

from __future__ import annotations

import json
import sys
import traceback
import warnings
from pathlib import Path
from typing import Any, Optional

from .adapters import UnknownTrainer, load_adapter
from .scenario import Scenario, scenario_of
from .trace import TraceWriter

__all__ = ["main", "produce"]


def produce(adapter: Any, scenario: Scenario, path: Path) -> Optional[str]:
    """Run one scenario and write its trace; returns None, or the traceback if the harness broke."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a trainer's advice on how to train is not our subject
            with TraceWriter(path, adapter.header(scenario)) as writer:
                adapter.run(scenario, writer)
    except Exception:
        return traceback.format_exc()
    return None


def main() -> None:
    """Serve the scenarios on the standard input."""
    name, directory, *blind = sys.argv[1:]
    answers, sys.stdout = sys.stdout, sys.stderr  # a trainer may print; the answers stay readable
    try:
        adapter = load_adapter(name)
    except UnknownTrainer as unknown:
        raise SystemExit(str(unknown)) from None
    adapter.blind = bool(blind)
    for line in sys.stdin:
        scenario = scenario_of(json.loads(line))
        error = produce(adapter, scenario, Path(directory) / (scenario.name + ".jsonl"))
        answer = {"scenario": scenario.name}
        if error is not None:
            answer["error"] = error
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main()
