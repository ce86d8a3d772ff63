"""One run of a trainer: attach what it was given, enter the loop, close what that opened, whatever happens."""

from __future__ import annotations

import os
import time
import warnings
from collections.abc import Callable
from typing import Any

import torch

from .callback_list import forget_module_callbacks, resolved_hooks
from .callbacks.model_checkpoint import chosen
from .data import has_loader
from .datamodule import LightningDataModule
from .devices import parallel
from .errors import ConfigurationError
from .loggers.logbook import Logbook
from .loggers.loggers import Publisher
from .module import LightningModule
from .plan import epochs, validates
from .precision import LossScaler
from .saving.checkpoint import check_resumable, read
from .trainer.states import TrainerFn, TrainerState, TrainerStatus
from .types import Trainer

__all__ = ["run"]

# What each function runs on, and the step that it needs.
_NEEDS = {
    "fit": ("train", "training_step"),
    "validate": ("val", "validation_step"),
    "test": ("test", "test_step"),
    "predict": ("predict", "predict_step"),
}


def run(
    trainer: Trainer,
    function: str,
    entry: Callable[[Trainer], Any],
    model: LightningModule | None,
    loaders: dict[str, Any],
    datamodule: LightningDataModule | None,
    ckpt_path: str | os.PathLike[str] | None,
    weights_only: bool,
) -> Any:
    """Attach everything, run the loop, and close what it opened, whatever happens."""
    if trainer.state.status == "running":
        raise RuntimeError(f"{function} was called while this trainer runs {trainer.state.fn}; use another Trainer")
    trainer.ckpt_path = chosen(trainer, function, model, ckpt_path)
    model = _module_of(trainer, function, model)
    outer = model.trainer
    try:
        _attach(trainer, function, model, loaders, datamodule)
        _read_checkpoint(trainer, function, weights_only)
        if function == "fit":
            _warn_of_nothing_to_do(trainer)
            if trainer.logbook.publisher:
                trainer.logbook.publisher.hyperparams()
        return _enter(trainer, function, entry)
    finally:
        if outer is not None and outer.state.status == "running":
            model.trainer = outer  # which called this run from one of its hooks


def _enter(trainer: Trainer, function: str, entry: Callable[[Trainer], Any]) -> Any:
    """Run the loop; an exception or Ctrl-C closes what it opened."""
    publisher = trainer.logbook.publisher
    try:
        trainer.state = TrainerState(TrainerFn(function), TrainerStatus.RUNNING)
        with torch.autograd.set_detect_anomaly(trainer.detect_anomaly):
            return entry(trainer)
    except KeyboardInterrupt as interrupt:
        trainer.interrupted = True
        _close_after(trainer, interrupt, TrainerStatus.INTERRUPTED)
        warnings.warn(f"{function} was interrupted; it ends here", stacklevel=5)
        return None
    except BaseException as exception:
        _close_after(trainer, exception, TrainerStatus.FAILED)
        raise
    finally:
        if publisher:
            publisher.finalize(trainer.state.status)


def _close_after(trainer: Trainer, exception: BaseException, status: TrainerStatus) -> None:
    """Modes as after a run, then `on_exception` and `teardown`. What they raise themselves is
    shown as a warning, so that the first exception is the one that surfaces."""
    running, trainer.state.status = trainer.state.status == "running", status
    trainer.abandon()
    hooks = trainer.hooks
    closing = [(trainer.module.train, True), (hooks.on_exception, exception)]
    if running:
        closing.append((hooks.teardown, str(trainer.state.fn)))
    with parallel(trainer):
        for hook, argument in closing:
            try:
                if hook:
                    hook(argument)
            except Exception as another:
                warnings.warn(f"while closing after {exception!r}: {another!r}", stacklevel=6)


# ---- what a run is given, checked before anything happens ----------------------------------------------


def _module_of(trainer: Trainer, function: str, model: LightningModule | None) -> LightningModule:
    """The module to run: the one given, or that of the last run."""
    model = model if model is not None else trainer.module
    if isinstance(model, LightningModule):
        return model
    given = f"the class {model.__name__}; pass an instance" if isinstance(model, type) else type(model).__name__
    raise TypeError(f"{function} needs a LightningModule, not {given}")


def _datamodule_of(
    function: str, model: LightningModule, loaders: dict[str, Any], datamodule: LightningDataModule | None
) -> LightningDataModule | None:
    """The data module, also where it was given in the place of loaders, from which it is taken out; where neither
    was given, the one that was set on the module."""
    if datamodule is None and all(given is None for given in loaders.values()):
        datamodule = model._datamodule
    for stage, given in loaders.items():
        if isinstance(given, LightningDataModule):  # trainer.predict(model, data_module)
            loaders[stage], datamodule = None, given
    if datamodule is not None and not isinstance(datamodule, LightningDataModule):
        given = f"the class {datamodule.__name__}" if isinstance(datamodule, type) else type(datamodule).__name__
        raise TypeError(f"datamodule={given}; an instance of LightningDataModule is accepted")
    if datamodule is not None and any(given is not None for given in loaders.values()):
        raise ConfigurationError(f"{function} was given loaders and a datamodule; give one of them")
    return datamodule


def _attach(
    trainer: Trainer,
    function: str,
    model: LightningModule,
    loaders: dict[str, Any],
    datamodule: LightningDataModule | None,
) -> None:
    """Give the trainer what this run is about, and forget what the last one was."""
    trainer.datamodule = _datamodule_of(function, model, loaders, datamodule)
    trainer.module, trainer.given_loaders = model, loaders
    trainer.logbook = Logbook()
    if trainer.loggers and trainer.global_rank == 0:
        trainer.logbook.publisher = Publisher(trainer)
    trainer.train_loader, trainer.eval_loaders = None, {}
    trainer.should_stop = trainer.interrupted = trainer.uncounted = False
    trainer.batches_done, trainer.resuming, trainer.asked_before = 0, None, {}
    trainer.saves_due.clear()
    trainer.deadline = None if trainer.max_time is None else time.monotonic() + trainer.max_time
    forget_module_callbacks(trainer)
    model.trainer = trainer
    if trainer.datamodule is not None:
        trainer.datamodule.trainer = trainer
    trainer.hooks = resolved_hooks(trainer)
    _check_defined(trainer, function)
    trainer.scaler = LossScaler(trainer.device) if function == "fit" and trainer.precision == 16 else None
    trainer.checks_val = function == "fit" and validates(trainer)


def _read_checkpoint(trainer: Trainer, function: str, weights_only: bool) -> None:
    """What the run is to begin with, if it was given a checkpoint."""
    trainer.checkpoint = None if trainer.ckpt_path is None else read(trainer.ckpt_path, weights_only=weights_only)
    if trainer.checkpoint and function == "fit":
        check_resumable(trainer)


def _check_defined(trainer: Trainer, function: str) -> None:
    stage, step = _NEEDS[function]
    required = [step, "configure_optimizers"] if function == "fit" else [step]
    name = type(trainer.module).__name__
    for hook in required:
        if getattr(trainer.hooks, hook) is None:
            raise ConfigurationError(f"{function} needs {name}.{hook}, which is not defined")
    if trainer.given_loaders.get(stage) is None and getattr(trainer.hooks, f"{stage}_dataloader") is None:
        raise ConfigurationError(
            f"{function} needs batches: pass a loader or a datamodule, or define {name}.{stage}_dataloader"
        )


def _warn_of_nothing_to_do(trainer: Trainer) -> None:
    """A fit that will not train, or not validate although half of what that takes is there."""
    if next(epochs(trainer), None) is None:
        warnings.warn(
            f"fit will train nothing: current_epoch={trainer.current_epoch} of max_epochs={trainer.max_epochs}, "
            f"global_step={trainer.global_step} of max_steps={trainer.max_steps}, "
            f"limit_train_batches={trainer.limit_train_batches}",
            stacklevel=5,
        )
    name, step = type(trainer.module).__name__, trainer.hooks.validation_step is not None
    if trainer.limit_val_batches != 0 and step != has_loader(trainer, "val"):
        there, missing = ("validation_step", "loader") if step else ("loader", "validation_step")
        warnings.warn(f"fit will not validate: {name} has a {there}, but no {missing}", stacklevel=5)
