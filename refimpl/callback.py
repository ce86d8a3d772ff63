"""Callback: the hooks that an object beside the model receives. The ready-made ones have files of their own."""

from __future__ import annotations

from typing import Any, ClassVar

import torch

from .types import LightningModule, Trainer

__all__ = ["Callback"]


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

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int, dataloader_idx: int
    ) -> None: ...

    def on_before_zero_grad(
        self, trainer: Trainer, pl_module: LightningModule, optimizer: torch.optim.Optimizer
    ) -> None: ...

    def on_before_backward(
        self, trainer: Trainer, pl_module: LightningModule, loss: torch.Tensor
    ) -> None: ...

    def on_after_backward(self, trainer: Trainer, pl_module: LightningModule) -> None: ...

    def on_before_optimizer_step(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        optimizer: torch.optim.Optimizer,
        optimizer_idx: int,
    ) -> None: ...

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int,
    ) -> None: ...

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None: ...

    def on_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None: ...

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None: ...

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None: ...

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None: ...

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None: ...

    def on_validation_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int, dataloader_idx: int
    ) -> None: ...

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int,
    ) -> None: ...

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None: ...

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None: ...

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None: ...

    def on_test_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None: ...

    def on_test_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int, dataloader_idx: int
    ) -> None: ...

    def on_test_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int,
    ) -> None: ...

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None: ...

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None: ...

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None: ...

    def on_predict_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None: ...

    def on_predict_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int, dataloader_idx: int
    ) -> None: ...

    def on_predict_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int,
    ) -> None: ...

    def on_predict_epoch_end(
        self, trainer: Trainer, pl_module: LightningModule, results: list[Any]
    ) -> None: ...

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None: ...

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint has to keep of this callback, as plain data."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what `state_dict` returned."""

    def on_save_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> Any:
        """A checkpoint is about to be written. What is returned is kept in it, for `on_load_checkpoint`."""

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, callback_state: Any) -> None:
        """A fit goes on from a checkpoint; `callback_state` is what `on_save_checkpoint` returned."""

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        """A run failed or was interrupted; modes are restored, `teardown` follows."""

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str | None = None) -> None: ...
