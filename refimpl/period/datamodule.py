"""The data module as scripts of the period make it: also from the command line."""

from __future__ import annotations

from ..loaders import datamodule
from .arguments import TakesArguments

__all__ = ["LightningDataModule"]


class LightningDataModule(TakesArguments, datamodule.LightningDataModule):
    __doc__ = datamodule.LightningDataModule.__doc__
