"""Callback: the hooks that an object beside the model receives. The ready-made ones have files of their own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar
from weakref import WeakValueDictionary

import torch

from .errors import warn
from .types import LightningModule, Trainer

__all__ = ["Callback", "attach", "module_of"]


class Callback:
    """Override any of these; callbacks receive a hook in their order, before the module does.

    The meaning of each hook is that of the module's hook of the same name (`hooks.py`), preceded by
    the trainer and the module. Only the sanity check's hooks and `on_exception` are a callback's own.
    """

    _saves: ClassVar[bool] = False  # those that save the run come after the others, whose work they save
    _kind: ClassVar[type | None] = None  # whose subclasses are of one kind, when `configure_callbacks` replaces

    def on_init_start(self, trainer: Trainer) -> None:
        """The trainer is being made; `configure_callbacks`' callbacks come too late for it."""

    def on_init_end(self, trainer: Trainer) -> None:
        """The trainer is made."""

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str | None = None) -> None: ...

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None: ...

    def on_pretrain_routine_start(self, trainer: Trainer, pl_module: LightningModule) -> None: ...

    def on_pretrain_routine_end(self, trainer: Trainer, pl_module: LightningModule) -> None: ...

    def on_sanity_check_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """The sanity check begins: a `val_loop` over a few batches, before `on_train_start`."""

    def on_sanity_check_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """The sanity check is over; what it logged is forgotten."""

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None: ...

    def on_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None: ...

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None: ...

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any,
                             batch_idx: int, dataloader_idx: int) -> None: ...  # fmt: skip

    def on_before_zero_grad(self, trainer: Trainer, pl_module: LightningModule,
                            optimizer: torch.optim.Optimizer) -> None: ...  # fmt: skip

    def on_before_backward(self, trainer: Trainer, pl_module: LightningModule, loss: torch.Tensor) -> None: ...

    def on_after_backward(self, trainer: Trainer, pl_module: LightningModule) -> None: ...

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule,
                                 optimizer: torch.optim.Optimizer, optimizer_idx: int) -> None: ...  # fmt: skip

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any,
                           batch_idx: int, dataloader_idx: int) -> None: ...  # fmt: skip

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None: ...

    def on_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None: ...

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None: ...

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None: ...

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None: ...

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None: ...

    def on_validation_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any,
                                  batch_idx: int, dataloader_idx: int) -> None: ...  # fmt: skip

    def on_validation_batch_end(self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any,
                                batch_idx: int, dataloader_idx: int) -> None: ...  # fmt: skip

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None: ...

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None: ...

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None: ...

    def on_test_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None: ...

    def on_test_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any,
                            batch_idx: int, dataloader_idx: int) -> None: ...  # fmt: skip

    def on_test_batch_end(self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any,
                          batch_idx: int, dataloader_idx: int) -> None: ...  # fmt: skip

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None: ...

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None: ...

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None: ...

    def on_predict_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None: ...

    def on_predict_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any,
                               batch_idx: int, dataloader_idx: int) -> None: ...  # fmt: skip

    def on_predict_batch_end(self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any,
                             batch_idx: int, dataloader_idx: int) -> None: ...  # fmt: skip

    def on_predict_epoch_end(self, trainer: Trainer, pl_module: LightningModule, results: list[Any]) -> None: ...

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None: ...

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint has to keep of this callback, as plain data."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what `state_dict` returned."""

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> Any:
        """A checkpoint is about to be written. What is returned is kept in it, for `on_load_checkpoint`."""

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, callback_state: Any) -> None:
        """A fit goes on from a checkpoint; `callback_state` is what `on_save_checkpoint` returned."""

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """A run failed or was interrupted; modes are restored, `teardown` follows."""

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str | None = None) -> None: ...

    # ---- no hooks: what a callback can say in them -------------------------------------------------

    def log(self, name: str, value: Any, *settings: Any, **named: Any) -> None:
        """`pl_module.log`, in whichever hooks the module may log, with the rules of that hook. ("log") [R82]

        Where no trainer runs the callback, nothing is recorded, with a warning.
        """
        if (module := _module_that_logs(self, name)) is not None:
            module.log(name, value, *settings, **named)

    def log_dict(self, dictionary: Mapping[str, Any], *settings: Any, **named: Any) -> None:
        """`pl_module.log_dict`; as `log`. ("log_dict")"""
        if (module := _module_that_logs(self, dictionary)) is not None:
            module.log_dict(dictionary, *settings, **named)


# The module in whose runs a callback takes part, by the callback's id. It is no attribute of the callback, so that no
# copy, pickle or `vars` of one drags a trainer along.
_modules: WeakValueDictionary[int, LightningModule] = WeakValueDictionary()


def attach(callback: Callback, module: LightningModule) -> None:
    """From now on the callback receives the hooks of this module's runs."""
    _modules[id(callback)] = module


def module_of(callback: Callback) -> LightningModule | None:
    """The module whose hooks the callback receives, or has received last; None before its first run."""
    module = _modules.get(id(callback))
    if module is None or module.trainer is None or all(other is not callback for other in module.trainer.callbacks):
        return None  # an id may have been another callback's, which is no more
    return module


def _module_that_logs(callback: Callback, what: Any) -> LightningModule | None:
    module = module_of(callback)
    if module is None:
        warn(f"{type(callback).__name__} logs {what!r}, which is ignored: no trainer is running this callback")
    return module
