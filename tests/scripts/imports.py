"""Import lines as examples, templates and papers' repositories of 2020 to 2022 have them, and a logger of one's own."""
# ruff: noqa: F401, UP006, UP035, UP045

import argparse
from typing import Any, Dict, List, Optional

import pytorch_lightning
import pytorch_lightning as pl
import pytorch_lightning.core.lightning as lightning
import pytorch_lightning.utilities.distributed
import torch
from pytorch_lightning import Callback, LightningDataModule, LightningModule, Trainer, seed_everything
from pytorch_lightning.callbacks import EarlyStopping, LearningRateMonitor, ModelCheckpoint, TQDMProgressBar
from pytorch_lightning.callbacks.base import Callback as Base
from pytorch_lightning.callbacks.early_stopping import EarlyStopping as Stopping
from pytorch_lightning.callbacks.lr_monitor import LearningRateMonitor as Monitor
from pytorch_lightning.callbacks.model_checkpoint import ModelCheckpoint as Checkpoint
from pytorch_lightning.callbacks.progress import ProgressBar
from pytorch_lightning.core import LightningModule as Module
from pytorch_lightning.core.datamodule import LightningDataModule as Data
from pytorch_lightning.core.decorators import auto_move_data
from pytorch_lightning.core.hooks import ModelHooks
from pytorch_lightning.core.lightning import LightningModule as TheModule
from pytorch_lightning.core.memory import ModelSummary
from pytorch_lightning.core.mixins import HyperparametersMixin
from pytorch_lightning.core.optimizer import LightningOptimizer
from pytorch_lightning.loggers import CSVLogger, LightningLoggerBase, TensorBoardLogger
from pytorch_lightning.loggers.base import LightningLoggerBase as LoggerBase
from pytorch_lightning.loggers.base import rank_zero_experiment
from pytorch_lightning.loggers.csv_logs import CSVLogger as CSV
from pytorch_lightning.loggers.tensorboard import TensorBoardLogger as TensorBoard
from pytorch_lightning.trainer import Trainer as TheTrainer
from pytorch_lightning.trainer.states import RunningStage, TrainerFn, TrainerState
from pytorch_lightning.trainer.supporters import CombinedLoader
from pytorch_lightning.utilities import move_data_to_device, rank_zero_info, rank_zero_only, rank_zero_warn
from pytorch_lightning.utilities.apply_func import apply_to_collection
from pytorch_lightning.utilities.distributed import rank_zero_only as only
from pytorch_lightning.utilities.exceptions import MisconfigurationException
from pytorch_lightning.utilities.model_summary import ModelSummary as Summary
from pytorch_lightning.utilities.parsing import AttributeDict
from pytorch_lightning.utilities.rank_zero import rank_zero_info as info
from pytorch_lightning.utilities.seed import seed_everything as seed
from pytorch_lightning.utilities.signature_utils import is_param_in_hook_signature
from pytorch_lightning.utilities.types import EPOCH_OUTPUT, STEP_OUTPUT
from pytorch_lightning.utilities.warnings import LightningDeprecationWarning, rank_zero_deprecation
from torch.utils.data import DataLoader


class Kept:
    def __init__(self) -> None:
        self.lines: List[str] = []


class HistoryLogger(LightningLoggerBase):
    """Keeps everything, and shows it when it is saved."""

    def __init__(self) -> None:
        super().__init__()
        self._kept = Kept()

    @property
    def name(self) -> str:
        return "history"

    @property
    def version(self) -> int:
        return 0

    @property
    @rank_zero_experiment
    def experiment(self) -> Kept:
        return self._kept

    @rank_zero_only
    def log_hyperparams(self, params: argparse.Namespace) -> None:
        params = self._flatten_dict(self._convert_params(params))
        self.experiment.lines.append(f"hyperparameters {params}")

    @rank_zero_only
    def log_metrics(self, metrics: Dict[str, float], step: Optional[int] = None) -> None:
        self.experiment.lines.append(f"{step} {sorted(metrics)}")

    @rank_zero_only
    def save(self) -> None:
        super().save()
        print("\n".join(self.experiment.lines))

    @rank_zero_only
    def finalize(self, status: str) -> None:
        print("finalize", status)
        super().finalize(status)


class Model(Module):
    def __init__(self, optimizer: Any = None) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.layer = torch.nn.Linear(2, 1)

    @auto_move_data
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(x)

    def training_step(self, batch: Any, batch_idx: int) -> STEP_OUTPUT:
        loss = self(batch).mean()
        self.log("loss", loss)
        return {"loss": loss}

    def training_epoch_end(self, outputs: EPOCH_OUTPUT) -> None:
        print("mean", torch.stack([output["loss"] for output in outputs]).shape)

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        assert sorted(batch) == ["a", "b"]

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


def loader(samples: int) -> DataLoader:
    return DataLoader(torch.ones(samples, 2))


seed(1)
model = Model(optimizer={"lr": 0.1, "name": "sgd"})
logger = HistoryLogger()
trainer = Trainer(max_epochs=1, logger=logger, log_every_n_steps=1, weights_summary=None, progress_bar_refresh_rate=0)
trainer.tune(model)
trainer.fit(model, loader(2), CombinedLoader({"a": loader(3), "b": loader(2)}, mode="max_size_cycle"))
print(f"validated on {trainer.num_val_batches} batches, as well as {trainer.fit_loop.max_epochs} epoch")
print(Summary(model).total_parameters, ModelSummary(model, mode="full").trainable_parameters)
print(isinstance(logger, LoggerBase), isinstance(CSVLogger("logs"), LightningLoggerBase), trainer.root_gpu)
print(pl.utilities.seed.seed_everything is seed_everything, pl.core.lightning is lightning, TheTrainer is pl.Trainer)
