"""Names in annotations of the period's hooks; those of loaders are wide, for an annotation checks nothing here."""

from typing import Any

from torch import Tensor
from torch.utils.data import DataLoader

__all__ = ["EPOCH_OUTPUT", "EVAL_DATALOADERS", "STEP_OUTPUT", "TRAIN_DATALOADERS"]

STEP_OUTPUT = Tensor | dict[str, Any]
EPOCH_OUTPUT = list[STEP_OUTPUT]
EVAL_DATALOADERS = DataLoader[Any] | list[DataLoader[Any]]
TRAIN_DATALOADERS = EVAL_DATALOADERS | list[Any] | dict[str, Any]
