"""A training engine whose loops are the documented pseudocode of LightningModule (1.5-dev, 2021).

The files of this folder are the core: the documented loops, and what they cannot do without. Beside it lie what they
use (`optimizers/`, `loaders/`), what the user holds (`trainer/`), ready-made `callbacks/`, logging (`loggers/`), what
outlives a run (`saving/`), and the spellings of the period (`period/`, `utilities/`).
"""

from . import callbacks, loggers, utilities
from .callback import Callback
from .callbacks import (
    BasePredictionWriter,
    EarlyStopping,
    LearningRateMonitor,
    ModelCheckpoint,
    ModelSummary,
    ProgressBar,
)
from .callbacks.summary import summarize
from .errors import CheckpointError, ConfigurationError, DataError, HookError, LogError, ProcessError
from .loggers import CSVLogger, Logger, TensorBoardLogger
from .module import LightningModule
from .period.datamodule import LightningDataModule
from .period.imports import install
from .period.trainer import Trainer
from .saving.hparams import HyperparametersMixin
from .seed import seed_everything
from .version import __version__

__all__ = [
    "BasePredictionWriter", "CSVLogger", "Callback", "CheckpointError", "ConfigurationError", "DataError",
    "EarlyStopping", "HookError", "HyperparametersMixin", "LearningRateMonitor", "LightningDataModule",
    "LightningModule", "LogError", "Logger", "ModelCheckpoint", "ModelSummary", "ProcessError", "ProgressBar",
    "TensorBoardLogger", "Trainer", "__version__", "callbacks", "loggers", "seed_everything", "summarize",
    "utilities",
]  # fmt: skip

install()
