"""Scripts of the period, run with their import lines changed; and the page that says what they can rely on."""

from __future__ import annotations

import inspect
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from refimpl import Trainer
from refimpl.period.retired import ABSENT, DEPRECATED, HARMLESS, IDLE, RENAMED
from refimpl.period.retired_hooks import CALLED, REFUSED
from refimpl.trainer import states as state

ROOT = Path(__file__).resolve().parent.parent
PAGE = (ROOT / "docs" / "drop-in.md").read_text(encoding="utf-8")


def swapped(name: str) -> str:
    """A script with nothing but its import lines changed."""
    script = (ROOT / "tests" / "scripts" / f"{name}.py").read_text(encoding="utf-8")
    code, imports = re.subn(r"^(from|import) pytorch_lightning", r"\1 refimpl", script, flags=re.MULTILINE)
    assert imports and "pytorch_lightning" not in code
    return code


def run(name: str, directory: Path, *arguments: str) -> tuple[list[str], list[str]]:
    """The lines that a script printed, and its deprecation warnings, which Python shows as they are the script's."""
    path = directory / f"{name}.py"
    path.write_text(swapped(name), encoding="utf-8")
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, path.name, *arguments], cwd=directory, env=environment, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines(), re.findall(r"^\S+: (DeprecationWarning: .*)$", done.stderr, re.MULTILINE)


@pytest.mark.slow
def test_a_classifier_with_a_data_module_and_the_command_line(tmp_path: Path) -> None:
    line = "--max_epochs 3 --batch_size 16 --gpus 0 --progress_bar_refresh_rate 0 --log_every_n_steps 5"
    printed, _ = run("classifier", tmp_path, *line.split())
    assert "1 | backbone.0 | Flatten    | 0     " in printed  # weights_summary="full"
    assert re.fullmatch(r"test +value", printed[-6]) and re.fullmatch(r"test_acc +\S+", printed[-3])
    assert printed[-2] == "hyperparameters: {'num_classes': 4, 'learning_rate': 0.001}"
    assert [path.name[:8] for path in tmp_path.glob("lightning_logs/version_0/checkpoints/*")] == ["epoch=2-"]
    assert printed[-1] == f"accuracy above 0.9: True epochs: True {tmp_path}/lightning_logs/version_0"


@pytest.mark.slow
def test_a_gan_with_tensorboard_and_retired_hooks(tmp_path: Path) -> None:
    printed, warned = run("gan", tmp_path)
    assert printed[:2] == [
        "batches: 16 16 finished: True interrupted: False", "logged: d_loss g_loss in tb_logs/gan/version_0",
    ]  # fmt: skip
    assert printed[-2:] == ["interrupted after 3 batches", "batches: 4 3 finished: False interrupted: True"]
    assert [re.findall(r"\((\w+)", warning)[0] for warning in warned] == [
        "accelerator", "progress_bar_refresh_rate", "weights_summary", "flush_logs_every_n_steps", "train_dataloader",
    ]  # fmt: skip
    assert list((tmp_path / "tb_logs" / "gan" / "version_0").glob("events.*"))


@pytest.mark.slow
def test_a_forecast_with_manual_optimization_and_predictions(tmp_path: Path) -> None:
    printed, warned = run("forecast", tmp_path)
    assert "updates: 12 batches: 7 [2, 4]" in printed
    assert "names: [['mse/dataloader_idx_0'], ['mse/dataloader_idx_1']]" in printed
    table = printed.index("test  loader 0  loader 1")
    # 1.5.10 comes to the very same numbers with this script, unchanged.
    assert printed[table + 2] == "mse   0.468396  0.422401"
    assert printed[table + 3 :] == [
        f"predictions: {[[(16, 1)] * 2, [(16, 1)] * 4]}", "stage: True False False",
    ]  # fmt: skip
    assert [re.findall(r"(\w+)\(", warning)[0] for warning in warned] == ["Trainer", "validate", "test"]
    assert not list(tmp_path.glob("**/*.ckpt"))
    assert (tmp_path / "logs" / "forecast" / "version_0" / "metrics.csv").exists()


# ---- docs/drop-in.md ------------------------------------------------------------------------------------


def table(heading: str) -> list[list[str]]:
    """The rows of the first table under a heading, a list of cells each."""
    section = PAGE[PAGE.index(f"# {heading}\n") :]
    [rows, *_] = re.findall(r"^\|-.*\n((?:\|.*\n)+)", section, re.MULTILINE)
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in rows.splitlines()]


def quoted(text: str) -> list[str]:
    return re.findall(r"`([^`]+)`", text)


def test_the_table_of_options_is_the_signature() -> None:
    parameters = inspect.signature(Trainer).parameters.values()
    expected = [[f"`{parameter.name}`", f"`{parameter.default!r}`"] for parameter in parameters]
    assert [row[:2] for row in table("Options of the trainer")] == expected


def test_the_table_of_retired_options_is_complete() -> None:
    assert {quoted(row[0])[0] for row in table("Spellings of the time")} == {*RENAMED, *IDLE, "distributed_backend"}
    assert set(DEPRECATED) <= set(inspect.signature(Trainer).parameters)


def test_the_table_of_what_is_absent_shows_every_value_that_is_taken() -> None:
    rows = {quoted(row[0])[0]: row[1:] for row in table("What this engine does not have")}
    absent = {**HARMLESS, **ABSENT}
    assert set(rows) | {"distributed_backend"} == set(absent)
    for name, (taken, otherwise) in rows.items():
        assert quoted(taken) == [repr(value) for value in absent[name]]
        assert otherwise.startswith("refused" if name in ABSENT else "a warning")


@pytest.mark.parametrize("function", ["fit", "validate", "test", "predict"])
def test_the_arguments_of_the_methods(function: str) -> None:
    [arguments] = [row[1] for row in table("fit, validate, test, predict") if row[0] == f"`{function}`"]
    assert quoted(arguments) == [", ".join([*inspect.signature(getattr(Trainer, function)).parameters][1:])]


def test_everything_that_can_be_read_is_there_and_listed() -> None:
    listed = {name for row in table("What can be read") for name in quoted(row[1])}
    trainer = Trainer(logger=False)
    assert all(hasattr(trainer, name) for name in listed)
    properties = {name for name, value in vars(state.TrainerView).items() if isinstance(value, property)}
    assert properties - {"stage"} <= listed


def test_every_retired_hook_is_named() -> None:
    section = PAGE[PAGE.index("## Hooks of the time") :]
    assert {*CALLED, *CALLED.values(), *REFUSED} <= set(quoted(section))
