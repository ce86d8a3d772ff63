"""The trainer as scripts of the period use it: retired spellings, options from the command line, a few attributes."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Sequence
from typing import Any

from ..errors import ConfigurationError, count
from ..loaders.datamodule import LightningDataModule
from ..module import LightningModule
from ..trainer import trainer as engine
from .arguments import TakesArguments
from .notes import explained
from .retired import RETIRED_OPTIONS, retired_keywords, retired_options
from .retired_hooks import PeriodReceivers

__all__ = ["Trainer"]


def with_the_engines(init: Callable[..., None]) -> Callable[..., None]:
    """A constructor whose signature shows the options of the engine's trainer, too, in the place of `**options`."""
    (_, *own, _), options = (inspect.signature(f).parameters.values() for f in (init, engine.Trainer.__init__))
    init.__signature__ = inspect.Signature([*options, *own])  # type: ignore[attr-defined]
    return init


def on_gpus(gpus: Any, accelerator: str | None = None, devices: Any = None, **others: Any) -> dict[str, Any]:
    """The options of today that `gpus` stands for; none where it asks for no GPU."""
    if gpus in (None, 0, "0", []):
        return {}
    if accelerator not in (None, "auto", "gpu", "cuda") or devices not in (None, "auto", gpus):
        given = f"accelerator={accelerator!r}, devices={devices!r}"
        raise ConfigurationError(f"gpus={gpus!r} contradicts {given}; leave gpus out")
    return {"accelerator": "gpu", "devices": gpus}


def loaded_by(function: str) -> property:
    doc = f"The checkpoint that the {function} loads, if one runs or ran last; None otherwise. [R96]"
    return property(lambda self: self.ckpt_path if self.state.fn == function else None, doc=doc)


class Trainer(TakesArguments, engine.Trainer):
    __doc__ = f"""{engine.Trainer.__doc__}
    Options of the period:
        gpus: how many GPUs, [index, ...], "index," or -1 for all, as `accelerator="gpu"` and `devices` say it; 0 for
            none.
        num_processes: how many processes on the CPU, as `devices` says it; with `gpus`, without an effect.
        truncated_bptt_steps: of modules that have none of their own; deprecated.
        resume_from_checkpoint: what `fit` goes on from where it is given no `ckpt_path`; deprecated.

    The retired spellings (`checkpoint_callback`, `weights_summary`, `progress_bar_refresh_rate`, ...) are taken with a
    warning.
    """

    _unlisted = RETIRED_OPTIONS
    _receivers = PeriodReceivers

    @retired_options
    @with_the_engines
    def __init__(
        self, *, gpus: int | str | Sequence[int] | None = None, num_processes: int | None = None,
        truncated_bptt_steps: int | None = None, resume_from_checkpoint: str | os.PathLike[str] | None = None,
        **options: Any
    ) -> None:  # fmt: skip
        if num_processes not in (None, 1, "1"):
            if gpus in (None, 0, "0", []) and options["devices"] not in (None, "auto", num_processes):
                raise ConfigurationError(f"num_processes={num_processes!r} contradicts devices={options['devices']!r}")
            options["devices"] = options["devices"] if on_gpus(gpus) else num_processes
        self.gpus, self.resume_from_checkpoint = gpus, resume_from_checkpoint
        self.truncated_bptt_steps = count("truncated_bptt_steps", truncated_bptt_steps or 0, least=0)
        super().__init__(**{**options, **on_gpus(gpus, **options)})

    @retired_keywords(train_dataloader="train_dataloaders")
    @explained
    def fit(
        self, model: LightningModule, train_dataloaders: Any = None, val_dataloaders: Any = None,
        datamodule: LightningDataModule | None = None, ckpt_path: str | os.PathLike[str] | None = None,
        weights_only: bool = True
    ) -> None:  # fmt: skip
        path = self.resume_from_checkpoint if ckpt_path is None else ckpt_path
        steps = 0 if getattr(model, "truncated_bptt_steps", True) else self.truncated_bptt_steps
        try:
            if steps:
                model.truncated_bptt_steps = steps
            super().fit(model, train_dataloaders, val_dataloaders, datamodule, path, weights_only)
        finally:
            if steps:
                model.truncated_bptt_steps = 0

    validate = retired_keywords(val_dataloaders="dataloaders")(explained(engine.Trainer.validate))
    test = retired_keywords(test_dataloaders="dataloaders")(explained(engine.Trainer.test))
    predict = retired_keywords()(explained(engine.Trainer.predict))

    def tune(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Nothing is searched for: the options that ask for it are refused."""
        return {}

    # ---- what scripts read -----------------------------------------------------------------------

    validated_ckpt_path, tested_ckpt_path, predicted_ckpt_path = map(loaded_by, ("validate", "test", "predict"))
    evaluating = property(lambda self: self.validating or self.testing, doc="Whether a validation or a test runs.")
    fit_loop = property(lambda self: self, doc="The trainer, which has the loop's `max_epochs`, `global_step`, ...")
    root_gpu = property(lambda self: self.device.index, doc="The index of the GPU; None on the CPU.")
    weights_save_path = property(lambda self: self.default_root_dir, doc="Where checkpoints lie that have no folder.")

    @property
    def progress_bar_dict(self) -> dict[str, Any]:
        """What stands behind the progress bar."""
        bar = self.progress_bar_callback
        return bar.get_metrics(self, self.module) if bar and self.module else self.progress_bar_metrics
