"""Loggers: what they are given, and when; what is on the disk, and that nothing else is."""

from __future__ import annotations

import csv
import json
from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from models import Line, pairs, quiet

from refimpl import ConfigurationError, CSVLogger, LightningDataModule, Logger, TensorBoardLogger, Trainer
from refimpl.loggers import loggers


class Noting(Logger):
    """Keeps what it is given."""

    def __init__(self) -> None:
        self.rows: list[tuple[int, dict[str, float]]] = []
        self.params: list[Any] = []
        self.ended: list[str] = []

    def log_metrics(self, metrics: Mapping[str, float], step: int) -> None:
        self.rows.append((step, dict(metrics)))

    def log_hyperparams(self, params: Any) -> None:
        self.params.append(params)

    def finalize(self, status: str) -> None:
        self.ended.append(status)


class Telling(Line):
    """Logs a step's number per step and per epoch, and something of each validation."""

    val_on_step = False

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        self.log("n", float(self.global_step), on_step=True, on_epoch=True)
        self.log("hidden", 1.0, logger=False)
        return self.loss(batch)

    def validation_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> Any:
        self.log("val", float(batch_idx), on_step=self.val_on_step, on_epoch=True)

    def test_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> Any:
        self.log("tested", float(batch_idx))


class Silent(Line):
    def validation_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> Any:
        return None


def rows(logger: CSVLogger) -> list[dict[str, str]]:
    with logger.path.open(newline="") as file:
        return [{name: value for name, value in row.items() if value} for row in csv.DictReader(file)]


# ---- what is handed on, and when -----------------------------------------------------------------------


def test_steps_by_the_period_and_epochs_always() -> None:
    noting = Noting()
    trainer = quiet(logger=noting, log_every_n_steps=3, max_epochs=2)
    trainer.fit(Telling(), pairs(4), pairs(3))
    assert noting.rows == [
        (2, {"epoch": 0, "n_step": 2.0}),
        (3, {"epoch": 0, "val": 1.0}),
        (3, {"epoch": 0, "n_epoch": 1.5}),
        (5, {"epoch": 1, "n_step": 5.0}),
        (7, {"epoch": 1, "val": 1.0}),
        (7, {"epoch": 1, "n_epoch": 5.5}),
    ]
    trainer.test(Telling(), pairs(3))
    assert noting.rows[6:] == [(7, {"epoch": 2, "tested": 1.0})]
    assert noting.ended == ["success", "success"]


def test_a_step_of_several_batches_is_handed_on_once() -> None:
    noting = Noting()
    trainer = quiet(logger=noting, log_every_n_steps=2, accumulate_grad_batches=3, limit_val_batches=0)
    trainer.fit(Telling(), pairs(12))
    assert [row for row in noting.rows if "n_step" in row[1]] == [
        (1, {"epoch": 0, "n_step": 1.0}), (3, {"epoch": 0, "n_step": 3.0})
    ]  # fmt: skip


def test_what_a_step_has_not_logged_is_not_given_again() -> None:
    class Sometimes(Line):
        def training_step(self, batch: Any, batch_idx: int) -> Any:
            return None if batch_idx == 1 else self.loss(batch)

        def on_after_backward(self) -> None:
            self.log("after", 1.0)

    logger = Noting()
    quiet(logger=logger, log_every_n_steps=1, max_epochs=1, limit_val_batches=0).fit(Sometimes(), pairs(3))
    assert logger.rows == [(0, {"epoch": 0, "after": 1.0}), (2, {"epoch": 0, "after": 1.0})]


def test_the_documented_period_is_50() -> None:
    noting = Noting()
    quiet(logger=noting, limit_val_batches=0).fit(Telling(), pairs(120, size=1))
    assert [step for step, values in noting.rows if "n_step" in values] == [49, 99]


def test_a_validations_steps_are_numbered_throughout_the_run() -> None:
    noting, module = Noting(), Telling()
    module.val_on_step = True
    quiet(logger=noting, max_epochs=2, num_sanity_val_steps=2).fit(module, pairs(1), [pairs(1), pairs(2)])
    steps = [(step, values) for step, values in noting.rows if any("_step" in name for name in values)]
    assert steps == [
        (0, {"epoch": 0, "val_step/dataloader_idx_0": 0.0}),
        (1, {"epoch": 0, "val_step/dataloader_idx_1": 0.0}),
        (2, {"epoch": 0, "val_step/dataloader_idx_1": 1.0}),
        (3, {"epoch": 1, "val_step/dataloader_idx_0": 0.0}),
        (4, {"epoch": 1, "val_step/dataloader_idx_1": 0.0}),
        (5, {"epoch": 1, "val_step/dataloader_idx_1": 1.0}),
    ]


def test_what_an_epochs_last_hook_logs_is_handed_on_too() -> None:
    class Late(Line):
        def on_epoch_end(self) -> None:
            self.log("late", 7.0)

    noting = Noting()
    quiet(logger=noting, limit_val_batches=0).fit(Late(), pairs(2))
    assert noting.rows == [(1, {"epoch": 0, "late": 7.0})]


def test_an_epoch_without_a_step_has_the_number_0() -> None:
    class Skipping(Line):
        def on_train_batch_start(self, batch: Any, batch_idx: int, dataloader_idx: int) -> int:
            return -1

        def on_train_epoch_end(self) -> None:
            self.log("late", 7.0)

    noting = Noting()
    quiet(logger=noting, limit_val_batches=0).fit(Skipping(), pairs(2))
    assert noting.rows == [(0, {"epoch": 0, "late": 7.0})]


def test_every_logger_gets_everything_and_the_first_is_the_loggers() -> None:
    two = [Noting(), Noting()]
    trainer = quiet(logger=iter(two))
    module = Telling()
    trainer.fit(module, pairs(1), pairs(1))
    assert two[0].rows == two[1].rows != []
    assert trainer.loggers == two
    assert trainer.logger is module.logger is two[0]


@pytest.mark.parametrize("none", [False, None, []])
def test_without_loggers(none: Any, tmp_path: Path) -> None:
    trainer, module = quiet(logger=none, default_root_dir=tmp_path), Telling()
    trainer.fit(module, pairs(1), pairs(1))
    assert (trainer.logger, trainer.loggers, module.logger) == (None, [], None)
    assert trainer.log_dir == str(tmp_path) and not list(tmp_path.iterdir())
    assert Line().logger is None


@pytest.mark.parametrize("wrong", [3, "tensorboard", [Noting, 1], Noting, [True]])
def test_what_is_no_logger(wrong: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"logger=.*; True, False, a Logger or a list of Loggers is accepted"):
        Trainer(logger=wrong)


@pytest.mark.parametrize("option, value", [
    ("log_every_n_steps", 0), ("log_every_n_steps", 1.5), ("default_root_dir", 3)
])  # fmt: skip
def test_options_that_make_no_sense(option: str, value: Any) -> None:
    with pytest.raises(ConfigurationError, match=f"{option}={value!r}"):
        Trainer(**{option: value})


@pytest.mark.parametrize("error, status", [(RuntimeError("mine"), "failed"), (KeyboardInterrupt(), "interrupted")])
def test_a_run_that_breaks_off_is_finalized(error: BaseException, status: str) -> None:
    class Broken(Telling):
        def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int, dataloader_idx: int) -> None:
            raise error

    noting = Noting()
    with pytest.raises(RuntimeError) if status == "failed" else pytest.warns(UserWarning, match="interrupted"):
        quiet(logger=noting, limit_val_batches=0).fit(Broken(), pairs(1))
    assert noting.ended == [status]


# ---- hyperparameters -----------------------------------------------------------------------------------


def test_hyperparameters_are_handed_on_as_a_fit_starts() -> None:
    class Data(LightningDataModule):
        def __init__(self, size: int, lr: float) -> None:
            self.save_hyperparameters()

        def train_dataloader(self) -> Any:
            return pairs(1)

    module, noting = Silent(), Noting()
    trainer = quiet(logger=noting, limit_val_batches=0)
    trainer.fit(module, pairs(1))
    assert noting.params == []
    module.save_hyperparameters({"lr": 0.5})
    trainer.validate(module, pairs(1))
    assert noting.params == []
    quiet(logger=noting, limit_val_batches=0).fit(module, datamodule=Data(3, 0.5))
    assert noting.params == [{"size": 3, "lr": 0.5}]
    with pytest.raises(ConfigurationError, match=r"'lr': 1\.0, and 0\.5 of Silent; .* logger=False"):
        quiet(logger=noting, limit_val_batches=0).fit(module, datamodule=Data(3, 1.0))
    assert noting.params == [{"size": 3, "lr": 0.5}] and len(noting.ended) == 3  # that fit did not begin


@pytest.mark.parametrize("params", [{"lr": 0.5, "net": {"sizes": [1, 2]}}, Namespace(lr=0.5, net={"sizes": [1, 2]})])
def test_hyperparameters_are_a_file_of_lines(params: Any, tmp_path: Path) -> None:
    logger = CSVLogger(tmp_path)
    logger.log_hyperparams(params)
    text = Path(logger.log_dir, "hparams.yaml").read_text()
    assert text == '"lr": 0.5\n"net": {"sizes": [1, 2]}\n'
    logger.log_hyperparams({"device": torch.device("cpu")})
    assert Path(logger.log_dir, "hparams.yaml").read_text() == '"device": "cpu"\n'


# ---- folders -------------------------------------------------------------------------------------------

KINDS = [CSVLogger]
if loggers._has_tensorboard():
    KINDS.append(TensorBoardLogger)  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", KINDS)
def test_versions_are_numbered(kind: Any, tmp_path: Path) -> None:
    for number in (0, 1):
        trainer = quiet(logger=kind(tmp_path), limit_val_batches=0)
        trainer.fit(Telling(), pairs(1))
        assert trainer.logger is not None and trainer.logger.version == number
        assert trainer.log_dir == str(tmp_path / "lightning_logs" / f"version_{number}")
        assert list(Path(trainer.log_dir).iterdir())
    (tmp_path / "lightning_logs" / "version_12").mkdir()
    (tmp_path / "lightning_logs" / "version_x").mkdir()
    assert kind(str(tmp_path)).version == 13
    assert Path(kind(tmp_path, "mine", "first").log_dir) == tmp_path / "mine" / "first"
    assert Path(kind(tmp_path, None, 3).log_dir) == tmp_path / "version_3"


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_is_written_for_nothing(kind: Any, tmp_path: Path) -> None:
    trainer = quiet(logger=kind(tmp_path), num_sanity_val_steps=1)
    trainer.fit(Silent(), pairs(2), pairs(1))
    trainer.predict(Silent(), pairs(1))
    assert trainer.log_dir.endswith("version_0")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("there, kind", [(True, "TensorBoardLogger"), (False, "CSVLogger")])
def test_by_default_tensorboard_where_it_is_installed(
    there: bool, kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loggers, "_has_tensorboard", lambda: there)
    monkeypatch.chdir(tmp_path)
    [logger] = Trainer().loggers
    assert type(logger).__name__ == kind
    assert logger.log_dir == str(tmp_path / "lightning_logs" / "version_0")
    assert Trainer(default_root_dir="elsewhere").log_dir == str(Path("elsewhere", "lightning_logs", "version_0"))
    assert not list(tmp_path.iterdir())


def test_a_fast_dev_run_writes_nothing(tmp_path: Path) -> None:
    class Drawing(Telling):
        def on_train_end(self) -> None:
            assert self.logger is not None
            self.logger.experiment.add_image("any", torch.zeros(3, 2, 2), 0).whatever()

    trainer = quiet(fast_dev_run=True, logger=CSVLogger(tmp_path))
    trainer.fit(Drawing(), pairs(2), pairs(1))
    assert not list(tmp_path.iterdir())


def test_a_logger_of_ones_own_needs_log_metrics_only(tmp_path: Path) -> None:
    class Own(Logger):
        save_dir = str(tmp_path)

        def log_metrics(self, metrics: Mapping[str, float], step: int) -> None:
            pass

    trainer = quiet(logger=Own())
    module = Telling()
    module.save_hyperparameters({"a": 1})
    trainer.fit(module, pairs(1), pairs(1))
    assert trainer.log_dir == str(tmp_path)
    assert trainer.logger is not None and trainer.logger.experiment is trainer.logger
    with pytest.raises(NotImplementedError):
        quiet(logger=Logger(), limit_val_batches=0).fit(module, pairs(1))


# ---- CSV -----------------------------------------------------------------------------------------------


def test_csv_rows(tmp_path: Path) -> None:
    logger = CSVLogger(tmp_path)
    quiet(logger=logger, log_every_n_steps=1).fit(Telling(), pairs(2), pairs(3))
    assert rows(logger) == [
        {"step": "0", "epoch": "0", "n_step": "0.0"},
        {"step": "1", "epoch": "0", "n_step": "1.0"},
        {"step": "1", "epoch": "0", "val": "1.0"},
        {"step": "1", "epoch": "0", "n_epoch": "0.5"},
    ]
    assert [path.name for path in Path(logger.log_dir).iterdir()] == ["metrics.csv"]


def test_a_row_is_on_the_disk_at_once(tmp_path: Path) -> None:
    logger = CSVLogger(tmp_path)
    for step in range(3):
        logger.log_metrics({"a": 0.1 * step}, step)
        assert rows(logger)[-1] == {"step": str(step), "a": str(0.1 * step)}


def test_a_given_version_goes_on_with_its_file(tmp_path: Path) -> None:
    for step in range(2):
        CSVLogger(tmp_path, version=0).log_metrics({"a,b": 1.0, "c": float(step)} if step else {"a,b": 0.0}, step)
    assert rows(CSVLogger(tmp_path, version=0)) == [
        {"step": "0", "a,b": "0.0"}, {"step": "1", "a,b": "1.0", "c": "1.0"}
    ]  # fmt: skip


def test_a_csv_logger_says_whose_add_image_is(tmp_path: Path) -> None:
    experiment = CSVLogger(tmp_path).experiment
    with pytest.raises(AttributeError, match=r"add_image.* that is TensorBoard's; pip install .*\[tensorboard\]"):
        experiment.add_image("a", None, 0)
    with pytest.raises(AttributeError, match=r"no attribute 'other'$"):
        experiment.other()


# ---- TensorBoard ---------------------------------------------------------------------------------------


def test_without_tensorboard_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loggers, "_has_tensorboard", lambda: False)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'refimpl-conformance\[tensorboard\]'"):
        TensorBoardLogger(tmp_path)


def read(logger: Any) -> Any:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    accumulator = EventAccumulator(logger.log_dir, size_guidance={"images": 0, "histograms": 0})
    return accumulator.Reload()


class Documented(Telling):
    """The documentation's examples: an image of the test, histograms of the gradients."""

    def test_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> Any:
        assert self.logger is not None
        self.logger.experiment.add_image("example_images", torch.zeros(3, 4, 4), 0)
        super().test_step(batch, batch_idx)

    def on_before_optimizer_step(self, optimizer: Any, optimizer_idx: int) -> None:
        assert self.trainer is not None and self.logger is not None
        if self.trainer.global_step % 25 == 0:
            for k, v in self.named_parameters():
                self.logger.experiment.add_histogram(tag=k, values=v.grad, global_step=self.trainer.global_step)


@pytest.mark.skipif(TensorBoardLogger not in KINDS, reason='needs the extra "tensorboard"')
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of tensorboard's own imports
class TestTensorBoard:
    def test_scalars_images_and_histograms(self, tmp_path: Path) -> None:
        from torch.utils.tensorboard import SummaryWriter

        logger = TensorBoardLogger(tmp_path, flush_secs=60)
        trainer = quiet(logger=logger, log_every_n_steps=10, limit_val_batches=0)
        trainer.fit(Documented(), pairs(30))
        trainer.test(Documented(), pairs(2))
        assert isinstance(logger.experiment, SummaryWriter)
        logger.finalize("success")
        written = read(logger)
        assert [(event.step, event.value) for event in written.Scalars("n_step")] == [(9, 9.0), (19, 19.0), (29, 29.0)]
        assert [(event.step, event.value) for event in written.Scalars("n_epoch")] == [(29, 14.5)]
        assert [event.value for event in written.Scalars("epoch")] == [0.0, 0.0, 0.0, 0.0, 1.0]
        assert [event.step for event in written.Histograms("layer.weight")] == [0, 25]
        assert written.Tags()["images"] == ["example_images"]

    def test_hyperparameters(self, tmp_path: Path) -> None:
        logger = TensorBoardLogger(tmp_path)
        params = {"lr": 0.5, "net": {"kind": "line", "sizes": [1, 2]}, "on": True, "scale": torch.tensor(2.0)}
        logger.log_hyperparams(params, {"hp/loss": 1.5})
        logger.save()
        written = read(logger)
        assert {"_hparams_/experiment", "_hparams_/session_start_info"} <= set(written.summary_metadata)
        assert [event.value for event in written.Scalars("hp/loss")] == [1.5]
        lines = Path(logger.log_dir, "hparams.yaml").read_text().splitlines()
        assert json.loads(lines[1].partition(": ")[2]) == {"kind": "line", "sizes": [1, 2]}
        logger.finalize("success")
