"""The examples are run as programs, digits.py in a process of its own; each must reach the result it states."""

from __future__ import annotations

import importlib
import os
import re
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import refimpl as pl
from conformance.checker import judge_file
from conformance.clauses import load_clauses
from conformance.verdicts import Status

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parent.parent
EXAMPLES = ROOT / "docs" / "examples"
QUIET: dict[str, Any] = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}

# What each example says last, and the least and most that its numbers may be.
RESULTS = {
    "autoencoder.py": (r"reconstruction error (\S+), accuracy of the nearest mean (\S+)", [(0, 0.02), (0.8, 1)]),
    "frequencies.py": (r"500 images: (\S+) away from a real one, (\d+) digits", [(0, 1.6), (10, 10)]),
    "gan.py": (r"500 images: (\S+) away from a real one, (\d+) digits", [(0, 1.7), (10, 10)]),
    "gan_manual.py": (r"(\d+) of 22 tensors of weights are equal", [(22, 22)]),
    "lstm.py": (r"after 4 rows (\S+), after 6 rows \S+, after 8 rows (\S+)", [(0.75, 1), (0.88, 1)]),
    "mixed_precision.py": (
        r"32: .* scores in torch.float32, .* (\S+)\n(?s:.*)16: .* in torch.float32, .* torch.b?float16, .* (\S+)",
        [(0.93, 1), (0.93, 1)],
    ),
    "schedules.py": (r"(?s)Cyclic: test accuracy (\S+)\n.*Plateau: test accuracy (\S+)", [(0.93, 1), (0.93, 1)]),
}


@pytest.fixture(autouse=True)
def beside_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    """The examples can import each other."""
    monkeypatch.syspath_prepend(str(EXAMPLES))


def run(name: str, *arguments: str) -> None:
    """Run an example in the test's folder; it must end well, and a warning is an error here."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", [name, *arguments])
        runpy.run_path(str(EXAMPLES / name), run_name="__main__")


def run_as_a_user(name: str, *arguments: str) -> str:
    """What the example prints in a process of its own; it must end well and warn of nothing."""
    command = [sys.executable, "-W", "error", str(EXAMPLES / name), *arguments]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}  # this checkout, even if another one is installed
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=env)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def gan() -> Any:
    """docs/examples/gan.py, imported."""
    return importlib.import_module("gan")


def updates(model: pl.LightningModule) -> list[int]:
    """How many updates each optimizer has made, as Adam counts them."""
    assert model.trainer is not None
    counts = [{int(state["step"]) for state in optimizer.state.values()} for optimizer in model.trainer.optimizers]
    return [count for [count] in counts]


def test_every_example_has_a_row_and_a_test() -> None:
    programs = {path.name for path in EXAMPLES.glob("*.py")} - {"common.py"}
    assert programs == {"digits.py", "devices.py", *RESULTS}
    table = (EXAMPLES / "README.md").read_text(encoding="utf-8")
    assert set(re.findall(r"^\| \[(\S+)\]\(\1\) \|", table, re.MULTILINE)) == programs


@pytest.mark.parametrize("name", RESULTS)
def test_an_example_reaches_its_result_and_leaves_nothing_behind(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(name, "--no-bar")
    printed = capsys.readouterr().out
    pattern, bounds = RESULTS[name]
    found = re.search(pattern, printed)
    assert found is not None, printed
    assert all(least <= float(value) <= most for value, (least, most) in zip(found.groups(), bounds)), printed
    assert list(tmp_path.iterdir()) == []


def test_an_example_keeps_its_logs_where_it_is_told(tmp_path: Path) -> None:
    run("schedules.py", "--no-bar", "--root", "runs")
    tables = sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("metrics.csv"))
    assert tables == ["runs/Cyclic/version_0/metrics.csv", "runs/Plateau/version_0/metrics.csv"]


def test_manual_optimization_gives_the_very_weights_of_automatic(gan: Any) -> None:
    manual = importlib.import_module("gan_manual").ManualGAN

    class EveryBatch(manual):  # type: ignore[misc, valid-type]
        def training_step(self, batch: Any, batch_idx: int) -> None:
            super().training_step(batch, 1)  # the discriminator's turn, always

    models = [gan.train(kind, gan.DigitsData(), 2, **QUIET) for kind in (gan.GAN, manual, EveryBatch)]
    assert [updates(model) for model in models] == [[76, 38], [76, 38], [76, 76]]
    weights = [torch.cat([value.flatten() for value in model.state_dict().values()]) for model in models]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])
    moments = [[list(optimizer.state.values()) for optimizer in model.trainer.optimizers] for model in models[:2]]
    for one, other in zip(*moments):
        assert all(torch.equal(a[key], b[key]) for a, b in zip(one, other) for key in ("exp_avg", "exp_avg_sq"))


def test_frequencies_give_five_batches_to_the_critic_and_one_to_the_generator(gan: Any) -> None:
    model = gan.train(importlib.import_module("frequencies").WassersteinGAN, gan.DigitsData(), 2, **QUIET)
    assert updates(model) == [64, 12]  # 76 batches: twelve times 5 and 1, then 4 more


def test_noise_and_the_same_image_again_and_again_are_judged_to_be_no_digits(gan: Any) -> None:
    data = gan.DigitsData()
    data.setup()
    distance, _ = gan.judged(torch.rand(500, 64), data)
    assert distance > 3
    real = torch.stack([x.flatten() for x, _ in data.train])
    assert gan.judged(real.mean(dim=0).expand(500, 64), data)[1] == 1
    assert gan.judged(real[:500], data) == (pytest.approx(0, abs=0.01), 10)


def test_any_number_of_devices_comes_to_the_same_weights(capsys: pytest.CaptureFixture[str]) -> None:
    run("devices.py")
    run("devices.py", "--strategy", "dp", "--devices", "3")
    said = r"{} devices: weights (\S+), test accuracy (\S+)\n"
    found = re.fullmatch(said.format(1) + said.format(3), capsys.readouterr().out)
    assert found is not None
    several = [sys.executable, str(EXAMPLES / "devices.py"), "--strategy", "ddp", "--devices", "2"]
    assert re.fullmatch(said.format(2), subprocess.run(several, capture_output=True, text=True, check=True).stdout)
    assert float(found[3]) == pytest.approx(float(found[1]), rel=1e-5) and float(found[2]) > 0.93 < float(found[4])


def test_digits_reaches_its_accuracy_and_its_trace_conforms(tmp_path: Path) -> None:
    trace = tmp_path / "digits.jsonl"
    printed = run_as_a_user("digits.py", "--no-bar", "--trace", str(trace))
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
    run("digits.py", "--no-bar", "--epochs", "1", "--trace", str(trace))
    text = trace.read_text()
    trace.write_text(text.replace('"max_epochs":1', '"max_epochs":2', 1))
    failed = {v.clause for v in judge_file(trace, load_clauses()) if v.status is Status.FAIL}
    assert {"epoch.max_epochs", "fit.sequence"} <= failed
