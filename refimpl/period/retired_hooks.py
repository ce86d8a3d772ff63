"""Hooks of other releases: those that the period was retiring are called, with a warning, the others refused."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any

from ..callback import Callback
from ..dispatch import resolve
from ..hooks import Hooks
from ..loaders.datamodule import LightningDataModule
from ..names import Spellings
from ..receivers import Receivers
from ..types import LightningModule, Trainer

__all__ = ["SPELLINGS", "PeriodReceivers", "with_retired"]

# A callback's hooks that are still called, as `hook(trainer, pl_module)`, each with one of today's.
_CALLED = {
    "on_batch_start": "on_train_batch_start",
    "on_batch_end": "on_train_batch_end",
    "on_keyboard_interrupt": "on_exception",
}
# Hooks of all releases that nothing calls here, by what to use instead.
_REFUSED = {
    "setup": "configure_model configure_sharded_model on_configure_sharded_model on_before_accelerator_backend_setup",
    "train_dataloader": "on_train_dataloader tng_dataloader",
    "val_dataloader": "on_val_dataloader",
    "test_dataloader": "on_test_dataloader",
    "predict_dataloader": "on_predict_dataloader",
    "training_step_end or training_epoch_end": "training_end",
    "validation_epoch_end": "validation_end",
    "test_epoch_end": "test_end",
    "on_validation_start": "on_validation_model_zero_grad on_pre_performance_check",
    "on_validation_end": "on_post_performance_check",
    "on_save_checkpoint": "on_hpc_save state_dict",  # the latter of a data module: others have one
    "on_load_checkpoint": "on_hpc_load load_state_dict",
    "a scheduler with a step of its own, or automatic_optimization = False": "lr_scheduler_step",
    "Trainer(track_grad_norm=...), or self.log in on_before_optimizer_step": "log_grad_norm",
    "Trainer(precision=16)": "amp_scale_loss configure_apex",
    "nothing in its place": "configure_ddp configure_sync_batchnorm init_ddp_connection",
    "get_progress_bar_dict": "get_tqdm_dict",
}
_ARGUMENTS = {
    ("on_train_epoch_end", "outputs"): "the module's training_epoch_end is",
    ("on_validation_epoch_end", "outputs"): "the module's validation_epoch_end is",
    ("on_test_epoch_end", "outputs"): "the module's test_epoch_end is",
    ("on_load_checkpoint", "checkpoint"): "what on_save_checkpoint returned is; or use state_dict and load_state_dict",
}
SPELLINGS = Spellings(_CALLED, {old: new for new, names in _REFUSED.items() for old in names.split()}, _ARGUMENTS)


class PeriodReceivers(Receivers):
    """Receivers whose classes may have been written for another release."""

    def resolved(self, trainer: Trainer, module: LightningModule, datamodule: LightningDataModule | None) -> Hooks:
        """Everything that the loops will call, that of hooks under retired names included; and a module has the
        `data_pipeline` of its data module."""
        if datamodule is not None and hasattr(datamodule, "data_pipeline"):
            module.data_pipeline = datamodule.data_pipeline
        return resolve(trainer, module, datamodule, with_retired(self.callbacks), SPELLINGS)


def with_retired(callbacks: Sequence[Callback]) -> list[Callback]:
    """The callbacks, and around them one for each hook that they have under a retired name, to call it with today's:
    on_batch_end after their on_train_batch_end, the others before. [R65]"""
    before: list[Callback] = []
    after: list[Callback] = []
    for callback in callbacks:
        for name, today in _CALLED.items():
            if method := getattr(callback, name, None):
                warnings.warn(f"{type(callback).__name__}.{name} is deprecated; use {today}", DeprecationWarning, 2)
                caller = Callback()
                setattr(caller, today, _without_arguments(method, today))
                (after if name == "on_batch_end" else before).append(caller)
    return [*before, *callbacks, *after]


def _without_arguments(method: Callable[..., Any], today: str) -> Callable[..., None]:
    def call(trainer: Trainer, pl_module: LightningModule, *args: Any) -> None:
        if today != "on_exception" or isinstance(args[0], KeyboardInterrupt):
            method(trainer, pl_module)

    return call
