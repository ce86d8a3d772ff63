"""LightningDataModule: the data hooks, apart from the model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .arguments import TakesArguments
from .hooks import DataHooks

if TYPE_CHECKING:
    from .trainer import Trainer

__all__ = ["LightningDataModule"]


class LightningDataModule(TakesArguments, DataHooks):
    """Data hooks that can be shared by models: `trainer.fit(model, datamodule=data)`.

    Where it overrides a loader or transfer hook, that one is used and the module's is not;
    `prepare_data`, `setup` and `teardown` are called on both, the data module first.
    """

    trainer: Trainer | None = None

    def __getstate__(self) -> dict[str, Any]:
        """A copy or a pickle of the data module leaves the trainer behind."""
        return {name: value for name, value in self.__dict__.items() if name != "trainer"}
