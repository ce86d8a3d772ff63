"""Scripts of the period, run with their import lines changed; and the page that says what they can rely on."""

from __future__ import annotations

import importlib
import inspect
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from models import Line, pairs, quiet

import refimpl
from refimpl import ConfigurationError, LightningDataModule, ProgressBar, Trainer
from refimpl.period.imports import MODULES
from refimpl.period.retired import ABSENT, DEPRECATED, HARMLESS, IDLE, RENAMED
from refimpl.period.retired_hooks import SPELLINGS
from refimpl.trainer import trainer as engine
from refimpl.trainer import view
from refimpl.trainer.options import Options
from refimpl.trainer.supporters import CombinedLoader

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


@pytest.mark.parametrize("given, device", [
    ({"gpus": 0}, "cpu"), ({"gpus": []}, "cpu"), ({"gpus": "0"}, "cpu"), ({"gpus": None, "num_processes": 1}, "cpu"),
    ({"gpus": 1}, "cuda:0"), ({"gpus": "1"}, "cuda:0"), ({"gpus": [1]}, "cuda:1"), ({"gpus": "1,"}, "cuda:1"),
    ({"gpus": 1, "accelerator": "auto", "devices": 1}, "cuda:0"), ({"gpus": 1, "accelerator": "ddp"}, "cuda:0"),
])  # fmt: skip
@pytest.mark.filterwarnings("ignore:.*use strategy:DeprecationWarning")
def test_gpus_are_an_accelerator_and_its_devices(given: Any, device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    trainer = Trainer(**given)
    assert (trainer.device, trainer.gpus) == (torch.device(device), given["gpus"])


@pytest.mark.parametrize("given, told", [
    ({"gpus": 3}, "devices=3: torch finds 2 GPUs"), ({"gpus": "all"}, "devices='all': a number"),
    ({"gpus": 1, "accelerator": "cpu"}, "gpus=1 contradicts accelerator='cpu', devices=None; leave gpus out"),
    ({"gpus": 1, "devices": [1]}, r"gpus=1 contradicts accelerator=None, devices=\[1\]"),
    ({"gpus": [9]}, r"devices=\[9\]: torch finds 2 GPUs"),
    ({"num_processes": 2, "devices": 3}, "num_processes=2 contradicts"),
    ({"truncated_bptt_steps": -1}, "truncated_bptt_steps=-1; an int from 0"),
])  # fmt: skip
@pytest.mark.filterwarnings("ignore:.*use the module:DeprecationWarning")
def test_options_of_the_period_that_cannot_be(given: Any, told: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(ConfigurationError, match=told):
        Trainer(**given)


def test_the_engines_trainer_knows_nothing_of_the_period() -> None:
    assert not [path for path in (ROOT / "refimpl" / "trainer").glob("*.py") if ".period" in path.read_text("utf-8")]
    assert issubclass(Trainer, engine.Trainer)
    with pytest.raises(TypeError, match="resume_from_checkpoint"):
        engine.Trainer(resume_from_checkpoint="last.ckpt")  # type: ignore[call-arg]


def test_what_is_read_of_a_trainer_of_the_period(tmp_path: Path) -> None:
    class Logs(Line):
        def training_step(self, batch: Any, batch_idx: int) -> Any:
            self.log("seen", 1.0, prog_bar=True)
            return super().training_step(batch, batch_idx)

        def on_test_start(self) -> None:
            seen.append((trainer.tested_ckpt_path, trainer.evaluating))

    seen: list[Any] = []
    trainer, path = quiet(default_root_dir=tmp_path), tmp_path / "x.ckpt"
    assert (trainer.tested_ckpt_path, trainer.progress_bar_dict, trainer.root_gpu) == (None, {}, None)
    trainer.fit(Logs(), pairs(1), pairs(1))
    trainer.save_checkpoint(path)
    assert trainer.progress_bar_dict == {"seen": 1.0} and trainer.weights_save_path == str(tmp_path)
    assert not trainer.evaluating and trainer.tune(Logs()) == {}
    for function, attribute in (("validate", "validated"), ("test", "tested"), ("predict", "predicted")):
        getattr(trainer, function)(dataloaders=pairs(1), ckpt_path=path)
        loaded = {name: getattr(trainer, f"{name}_ckpt_path") for name in ("validated", "tested", "predicted")}
        assert loaded == {**dict.fromkeys(loaded), attribute: path}
    assert seen == [(path, True)]
    trainer.test(dataloaders=pairs(1), ckpt_path=None)
    assert trainer.tested_ckpt_path is None
    trainer.fit_loop.max_epochs = 2
    trainer.fit(Logs(), pairs(1), pairs(1))
    assert trainer.global_step == trainer.fit_loop.global_step == 2
    bar = ProgressBar()
    shown = quiet(callbacks=bar, enable_progress_bar=True)
    shown.fit(Logs(), pairs(1), pairs(1))
    assert shown.progress_bar_dict == bar.get_metrics(shown, shown.module)


def test_the_trainers_truncated_bptt_steps_leaves_the_module_as_it_was() -> None:
    module = Line()
    with pytest.warns(DeprecationWarning, match="use the module's attribute"):
        trainer = quiet(truncated_bptt_steps=3)
    with pytest.raises(ConfigurationError, match="truncated_bptt_steps is 3"):
        trainer.fit(module, pairs(1), pairs(1))
    assert module.truncated_bptt_steps == 0


@pytest.mark.parametrize("reduce_fx, value", [("avg", 1.0), ("MEAN", 1.0), ("Avg", 1.0), ("Max", 2.0), ("SUM", 3.0)])
def test_reductions_as_the_period_spelled_them(reduce_fx: str, value: float) -> None:
    class Logs(Line):
        def validation_step(self, batch: Any, batch_idx: int) -> None:  # type: ignore[override]
            self.log("v", float(batch_idx), reduce_fx=reduce_fx)

    assert quiet().validate(Logs(), pairs(3)) == [{"v": value}]


def test_a_module_is_handed_the_pipeline_of_its_data_module() -> None:
    class Data(LightningDataModule):
        data_pipeline = "of the data module"
        val_dataloader = lambda self: pairs(1)  # noqa: E731

    module = Line()
    quiet().validate(module, datamodule=Data())
    assert module.data_pipeline == "of the data module"


# ---- imports --------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_import_lines_of_the_period_and_a_logger_of_its_own(tmp_path: Path) -> None:
    printed, _ = run("imports", tmp_path)
    # But for what 1.5.10 shows of the logger before its end, it prints the very same with this script, unchanged.
    assert printed == [
        "mean torch.Size([2])", "finalize success", "hyperparameters {'optimizer/lr': 0.1, 'optimizer/name': 'sgd'}",
        "0 ['epoch', 'loss']", "1 ['epoch', 'loss']", "validated on [3] batches, as well as 1 epoch", "3 3",
        "True True None", "True True True",
    ]  # fmt: skip


@pytest.mark.parametrize("path", MODULES)
def test_a_module_of_the_period_has_the_names_of_todays(path: str) -> None:
    module = importlib.import_module(f"refimpl.{path}")
    assert eval(f"refimpl.{path}") is module and module.__name__ == f"refimpl.{path}"
    for today in MODULES[path]:
        source = importlib.import_module(f"refimpl.{today}")
        assert source.__all__ and set(source.__all__) <= set(module.__all__)
        assert all(getattr(module, name) is getattr(source, name) for name in source.__all__)


def test_every_name_of_a_module_of_the_period_can_be_imported_at_once() -> None:
    names: dict[str, Any] = {}
    exec("from refimpl.core import *", names)
    assert names.keys() - {"__builtins__"} == {"LightningDataModule", "LightningModule"}


@pytest.mark.parametrize("line, told", [
    ("from refimpl import Trainr", r"refimpl has no 'Trainr'; there is .*; did you mean 'Trainer'\?"),
    ("import refimpl.cor", "refimpl has no 'cor'; there is"),
    ("from refimpl.core import Module", "refimpl.core has no 'Module'; there is LightningDataModule, LightningModule"),
    ("from refimpl.core.saving import ModelIO", "refimpl.core has no 'saving'; there is LightningDataModule"),
    ("from refimpl.loggers import FileLogger", "refimpl.loggers has no 'FileLogger'; there is CSVLogger, "),
    ("from refimpl.utilities.distributed import rank_zero", r"did you mean 'rank_zero_only'|there is .*rank_zero_only"),
    ("from refimpl.metrics import functional as FM", "refimpl has no 'metrics': torchmetrics has it now"),
    ("from refimpl.utilities.cli import LightningCLI", "refimpl.utilities has no 'cli': there is no LightningCLI"),
    ("from refimpl.plugins import DDPPlugin", "refimpl has no 'plugins': options say it, such as Trainer"),
    ("from refimpl.strategies import DDPStrategy", "refimpl.strategies has no 'DDPStrategy': options say it"),
    ("from refimpl.loggers import WandbLogger", "refimpl.loggers has no 'WandbLogger': a class of your own"),
    ("from refimpl.loggers.wandb import WandbLogger", "refimpl.loggers has no 'wandb': a class of your own"),
])  # fmt: skip
def test_a_name_that_is_not_there_is_told_with_those_that_are(line: str, told: str) -> None:
    with pytest.raises(ImportError, match=told):
        exec(line)


def test_an_attribute_that_is_not_there_is_told_with_those_that_are() -> None:
    for module, name in ((refimpl, "Trainr"), (refimpl.core, "Module"), (refimpl.loggers, "logs")):  # type: ignore
        with pytest.raises(AttributeError, match=f"{module.__name__} has no '{name}'; there is"):
            getattr(module, name)
    assert not hasattr(refimpl.core, "__wrapped__")  # type: ignore[attr-defined]


def test_importing_the_engine_imports_nothing_of_what_the_period_might_ask_for() -> None:
    code = "import torch, sys; there = set(sys.modules); import refimpl; print(*sorted(set(sys.modules) - there))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    added = set(done.stdout.split())
    assert not added & {"refimpl.core", "refimpl.trainer.supporters", "refimpl.utilities.types"}
    assert not {name.partition(".")[0] for name in added} & {"tensorboard", "torchmetrics", "omegaconf", "onnx"}


@pytest.mark.parametrize("mode, lengths", [("min_size", [2, 2]), ("max_size_cycle", [3, 3])])
def test_a_combined_loader_of_a_script(mode: str, lengths: list[int]) -> None:
    loader = CombinedLoader([range(3), {"a": "xy"}], mode)
    assert [len(loader), len(list(loader))] == lengths
    assert next(iter(loader)) == [0, {"a": "x"}] and loader.loaders[0] == range(3)
    with pytest.raises(ConfigurationError, match="mode='longest'; 'max_size_cycle' or 'min_size' is accepted"):
        CombinedLoader([], "longest")
    assert CombinedLoader([range(3)]).mode == "min_size"


# ---- docs/drop-in.md ------------------------------------------------------------------------------------


def table(heading: str) -> list[list[str]]:
    """The rows of the first table under a heading, a list of cells each."""
    section = PAGE[PAGE.index(f"# {heading}\n") :]
    [rows, *_] = re.findall(r"^\|-.*\n((?:\|.*\n)+)", section, re.MULTILINE)
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in rows.splitlines()]


def quoted(text: str) -> list[str]:
    return re.findall(r"`([^`]+)`", text)


def test_the_table_of_modules_is_complete() -> None:
    rows = {path: set(quoted(row[1])) for row in table("Modules of the time") for path in quoted(row[0])}
    assert set(rows) == set(MODULES) | {"callbacks.early_stopping", "callbacks.model_checkpoint", "trainer.states"}
    for path, names in rows.items():
        assert names and names <= set(importlib.import_module(f"refimpl.{path}").__all__), path


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
    shown = {name for name, value in vars(view.TrainerView).items() if isinstance(value, property)}
    properties = shown - set(Options.__annotations__)
    assert properties - {"stage"} <= listed


def test_every_hook_of_other_releases_is_named() -> None:
    heading = "Hooks of the time, and of others"
    called = quoted(PAGE[PAGE.index(f"## {heading}") :].partition("DeprecationWarning")[0])
    assert {*SPELLINGS.called, *SPELLINGS.called.values()} <= set(called)
    rows = table(heading)
    assert {hook: instead.strip("`") for hooks, instead in rows for hook in quoted(hooks)} == SPELLINGS.refused
