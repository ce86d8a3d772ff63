"""The examples are run as a user runs them; each must reach the result it states."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from conformance.checker import judge_file
from conformance.clauses import load_clauses
from conformance.verdicts import Status

EXAMPLES = Path(__file__).parent.parent / "docs" / "examples"


def run(name: str, folder: Path, *arguments: str) -> str:
    """What the example prints, run in `folder`; it must end well and warn of nothing."""
    command = [sys.executable, "-W", "error", str(EXAMPLES / name), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=folder)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_digits_reaches_its_accuracy_and_its_trace_conforms(tmp_path: Path) -> None:
    trace = tmp_path / "digits.jsonl"
    printed = run("digits.py", tmp_path, "--no-bar", "--trace", str(trace))
    accuracy = re.search(r"test accuracy (\d\.\d+)", printed)
    assert accuracy is not None, printed
    assert float(accuracy[1]) > 0.95

    verdicts = judge_file(trace, load_clauses())
    assert [v for v in verdicts if v.status in (Status.FAIL, Status.ERROR)] == []
    passed = {v.clause for v in verdicts if v.status is Status.PASS}
    assert {"fit.sequence", "sanity.steps", "test.test_step", "predict.batch", "modes.val.training"} <= passed


def test_a_digits_trace_is_not_excused(tmp_path: Path) -> None:
    """The oracle knows the run's length: a trace of fewer epochs than its scenario says does not pass."""
    trace = tmp_path / "digits.jsonl"
    run("digits.py", tmp_path, "--no-bar", "--epochs", "1", "--trace", str(trace))
    text = trace.read_text()
    trace.write_text(text.replace('"max_epochs":1', '"max_epochs":2', 1))
    failed = {v.clause for v in judge_file(trace, load_clauses()) if v.status is Status.FAIL}
    assert {"epoch.max_epochs", "fit.sequence"} <= failed
