"""What a module can ask, in its steps and outside of them. ("属性")"""

from __future__ import annotations

from itertools import chain
from typing import Any

import torch
from torch import nn

from ..loaders.batches import move
from ..loaders.datamodule import LightningDataModule
from ..loggers.loggers import Logger
from ..saving.export import megabytes
from ..types import Trainer

__all__ = ["Properties"]


def _of_trainer(name: str, otherwise: Any, doc: str) -> Any:
    return property(lambda module: getattr(module.trainer, name) if module.trainer else otherwise, doc=doc)


class Properties(nn.Module):
    """The documented properties of a `LightningModule`; each has a value without a trainer, too."""

    #: The trainer that runs the module, or has run it last.
    trainer: Trainer | None = None
    _example_input_array: Any = None
    _datamodule: LightningDataModule | None = None

    current_epoch: int = _of_trainer("current_epoch", 0, "The epoch that runs, from 0; 0 without a trainer.")
    global_step: int = _of_trainer("global_step", 0, "The step that runs, not reset by an epoch; 0 without a trainer.")
    global_rank: int = _of_trainer("global_rank", 0, "The index of this process among all; 0 without a trainer.")
    local_rank: int = _of_trainer("local_rank", 0, "This process's index on its machine; 0 without a trainer.")
    precision: int | str = _of_trainer("precision", 32, 'The precision of the steps: 16, 32, 64 or "bf16".')
    use_amp: bool = _of_trainer("use_amp", False, "Whether the steps run under autocast; False without a trainer.")
    logger: Logger | None = _of_trainer(
        "logger", None, "The trainer's (first) logger; None without one. `logger.experiment` is what does the work, "
        'such as TensorBoard\'s `SummaryWriter`. ("logger")'
    )  # fmt: skip

    @property
    def device(self) -> torch.device:
        """Where the parameters and buffers are; for a module without any the trainer's device, or else the CPU."""
        tensor = next(chain(self.parameters(), self.buffers()), None)
        if tensor is not None:
            return tensor.device
        return self.trainer.device if self.trainer else torch.device("cpu")

    @property
    def datamodule(self) -> LightningDataModule | None:
        """The data module of the trainer's run, or the one that was set; None without any. A run that is given
        neither loaders nor a data module uses the one that was set. ("datamodule")"""
        return (self.trainer and self.trainer.datamodule) or self._datamodule

    @datamodule.setter
    def datamodule(self, datamodule: LightningDataModule | None) -> None:
        self._datamodule = datamodule

    @property
    def example_input_array(self) -> Any:
        """What `forward` could be given, where the module is: a tensor; a tuple or list of several arguments; a
        mapping of arguments by name. None unless it was set. ("example_input_array")"""
        return move(self._example_input_array, self.device)

    @example_input_array.setter
    def example_input_array(self, example: Any) -> None:
        self._example_input_array = example

    @property
    def model_size(self) -> float:
        """The size of the file that the weights make, in megabytes (10**6 bytes). ("model_size")"""
        return megabytes(self)

    def _running_trainer(self, what: str) -> Trainer:
        if self.trainer is None:
            raise RuntimeError(f"{what} needs a trainer that runs this module")
        return self.trainer
