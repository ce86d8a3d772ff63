"""Ready-made callbacks: each uses the hooks of `callback.py`, as one of the user's own does."""

from ..callback import Callback
from .early_stopping import EarlyStopping
from .lambda_callback import LambdaCallback
from .lr_monitor import LearningRateMonitor
from .model_checkpoint import ModelCheckpoint
from .prediction_writer import BasePredictionWriter
from .progress_bar import ProgressBar, ProgressBarBase
from .summary import ModelSummary

TQDMProgressBar = ProgressBar  # as 1.5 names it

__all__ = [
    "BasePredictionWriter", "Callback", "EarlyStopping", "LambdaCallback", "LearningRateMonitor", "ModelCheckpoint",
    "ModelSummary", "ProgressBar", "ProgressBarBase", "TQDMProgressBar",
]  # fmt: skip
