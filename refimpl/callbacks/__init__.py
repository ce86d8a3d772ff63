"""Ready-made callbacks: each uses the hooks of `callback.py`, as one of the user's own does."""

from ..callback import Callback
from .early_stopping import EarlyStopping
from .lr_monitor import LearningRateMonitor
from .model_checkpoint import ModelCheckpoint
from .prediction_writer import BasePredictionWriter
from .progress_bar import ProgressBar, ProgressBarBase
from .summary import ModelSummary

__all__ = [
    "BasePredictionWriter", "Callback", "EarlyStopping", "LearningRateMonitor", "ModelCheckpoint", "ModelSummary",
    "ProgressBar", "ProgressBarBase",
]  # fmt: skip
