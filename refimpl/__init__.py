"""A training engine whose loops are the documented pseudocode of LightningModule (1.5-dev, 2021)."""

from . import utilities
from .callbacks import BasePredictionWriter, Callback, EarlyStopping, LearningRateMonitor
from .checkpoint import CheckpointError
from .datamodule import LightningDataModule
from .dispatch import HookError
from .hparams import HyperparametersMixin
from .loaders import DataError
from .log_rules import LogError
from .loggers import CSVLogger, Logger, TensorBoardLogger
from .model_checkpoint import ModelCheckpoint
from .module import LightningModule
from .optimization import ConfigurationError
from .progress import ProgressBar
from .seed import seed_everything
from .summary import ModelSummary, summarize
from .trainer import Trainer
from .version import __version__

__all__ = [
    "BasePredictionWriter",
    "CSVLogger",
    "Callback",
    "CheckpointError",
    "ConfigurationError",
    "DataError",
    "EarlyStopping",
    "HookError",
    "HyperparametersMixin",
    "LearningRateMonitor",
    "LightningDataModule",
    "LightningModule",
    "LogError",
    "Logger",
    "ModelCheckpoint",
    "ModelSummary",
    "ProgressBar",
    "TensorBoardLogger",
    "Trainer",
    "__version__",
    "seed_everything",
    "summarize",
    "utilities",
]
