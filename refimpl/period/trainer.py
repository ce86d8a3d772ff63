"""The trainer as scripts of the period use it: retired spellings, options from the command line, a few attributes."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable
from typing import Any

from ..datamodule import LightningDataModule
from ..module import LightningModule
from ..trainer import trainer as engine
from .arguments import TakesArguments
from .retired import RETIRED_OPTIONS, retired_keywords, retired_options

__all__ = ["Trainer"]


def with_the_engines(init: Callable[..., None]) -> Callable[..., None]:
    """A constructor whose signature shows the options of the engine's trainer, too, in the place of `**options`."""
    (_, *own, _), options = (inspect.signature(f).parameters.values() for f in (init, engine.Trainer.__init__))
    init.__signature__ = inspect.Signature([*options, *own])  # type: ignore[attr-defined]
    return init


class Trainer(TakesArguments, engine.Trainer):
    __doc__ = f"""{engine.Trainer.__doc__}
    Options of the period:
        resume_from_checkpoint: what `fit` goes on from where it is given no `ckpt_path`; deprecated.

    The retired spellings (`checkpoint_callback`, `weights_summary`, `progress_bar_refresh_rate`, ...) are taken with a
    warning.
    """

    _unlisted = RETIRED_OPTIONS

    @retired_options
    @with_the_engines
    def __init__(self, *, resume_from_checkpoint: str | os.PathLike[str] | None = None, **options: Any) -> None:
        self.resume_from_checkpoint = resume_from_checkpoint
        super().__init__(**options)

    @retired_keywords(train_dataloader="train_dataloaders")
    def fit(
        self,
        model: LightningModule,
        train_dataloaders: Any = None,
        val_dataloaders: Any = None,
        datamodule: LightningDataModule | None = None,
        ckpt_path: str | os.PathLike[str] | None = None,
        weights_only: bool = True,
    ) -> None:
        path = self.resume_from_checkpoint if ckpt_path is None else ckpt_path
        super().fit(model, train_dataloaders, val_dataloaders, datamodule, path, weights_only)

    validate = retired_keywords(val_dataloaders="dataloaders")(engine.Trainer.validate)
    test = retired_keywords(test_dataloaders="dataloaders")(engine.Trainer.test)
    predict = retired_keywords()(engine.Trainer.predict)
