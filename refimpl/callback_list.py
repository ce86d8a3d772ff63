"""Who takes part in a run: the callbacks given, those that the options ask for, those of the module."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from .callback import Callback
from .callbacks import ModelCheckpoint, ModelSummary, ProgressBar
from .callbacks.model_checkpoint import checkpoints_last
from .dispatch import Hooks, resolve
from .errors import ConfigurationError
from .period.retired_hooks import SPELLINGS, with_retired
from .precision import in_precision
from .trainer.options import callbacks_of
from .types import Trainer

__all__ = ["add_callbacks", "forget_module_callbacks", "resolved_hooks", "with_defaults"]


def with_defaults(
    given: Callback | Iterable[Callback] | None, progress_bar: bool, summary: bool, checkpointing: bool
) -> list[Callback]:
    """Those given, and one of each kind that is enabled and not among them.

    Raises ConfigurationError for checkpoints switched off beside a callback that saves them.
    """
    callbacks = callbacks_of(given)
    if not checkpointing and any(isinstance(callback, ModelCheckpoint) for callback in callbacks):
        raise ConfigurationError("enable_checkpointing=False, but there is a ModelCheckpoint among the callbacks")
    enabled = {ModelSummary: summary, ProgressBar: progress_bar, ModelCheckpoint: checkpointing}
    for kind, is_enabled in enabled.items():
        if is_enabled and not any(isinstance(callback, kind) for callback in callbacks):
            callbacks.append(kind())
    return checkpoints_last(callbacks)


def resolved_hooks(trainer: Trainer) -> Hooks:
    """The hooks of everybody who takes part, the steps in the trainer's precision."""
    callbacks = with_retired(trainer.callbacks)
    hooks = resolve(trainer, trainer.module, trainer.datamodule, callbacks, SPELLINGS)
    for step in ("training_step", "validation_step", "test_step", "predict_step"):
        method = getattr(hooks, step)
        setattr(hooks, step, method and in_precision(method, trainer.precision, trainer.device))
    return hooks


def add_callbacks(trainer: Trainer, configured: Sequence[Callback] | Callback | None) -> None:
    """Take in what `configure_callbacks` returned: each replaces those of its type."""
    new = callbacks_of(configured)
    types = {type(callback) for callback in new}
    if any(isinstance(callback, ProgressBar) for callback in new):
        types.add(ProgressBar)  # two bars would overwrite each other
    trainer.replaced_callbacks = [(i, cb) for i, cb in enumerate(trainer.callbacks) if type(cb) in types]
    trainer.module_callbacks = new
    trainer.callbacks = checkpoints_last([cb for cb in trainer.callbacks if type(cb) not in types] + new)
    vars(trainer.hooks).update(vars(resolved_hooks(trainer)))  # the loops hold on to this object


def forget_module_callbacks(trainer: Trainer) -> None:
    """The last run's module takes its callbacks with it, and those that they replaced come back."""
    trainer.callbacks = [cb for cb in trainer.callbacks if all(cb is not own for own in trainer.module_callbacks)]
    for place, callback in trainer.replaced_callbacks:
        trainer.callbacks.insert(place, callback)
    trainer.module_callbacks, trainer.replaced_callbacks = [], []
