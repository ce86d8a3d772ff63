"""A training engine whose loops are the documented pseudocode of LightningModule (1.5-dev, 2021)."""

from .callbacks import Callback, EarlyStopping, LearningRateMonitor
from .datamodule import LightningDataModule
from .dispatch import HookError
from .loaders import DataError
from .loggers import CSVLogger, Logger, TensorBoardLogger
from .module import LightningModule
from .optimization import ConfigurationError
from .progress import ProgressBar
from .results import LogError
from .seed import seed_everything
from .summary import ModelSummary
from .trainer import Trainer
from .version import __version__

__all__ = [
    "CSVLogger",
    "Callback",
    "ConfigurationError",
    "DataError",
    "EarlyStopping",
    "HookError",
    "LearningRateMonitor",
    "LightningDataModule",
    "LightningModule",
    "LogError",
    "Logger",
    "ModelSummary",
    "ProgressBar",
    "TensorBoardLogger",
    "Trainer",
    "__version__",
    "seed_everything",
]
