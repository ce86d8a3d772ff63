"""Every hook: its signature and meaning, in the order in which the loops call it.

A hook defined here does nothing (or the documented default). `dispatch.py` calls a hook only if
somebody overrides it, so an unused hook costs nothing. Names, order and arguments are the
documentation's ("Hooks" and "LightningModule API").
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import torch

from .loaders.batches import move

__all__ = ["CheckpointHooks", "DataHooks", "Hooks", "ModelHooks"]


class Hooks(SimpleNamespace):
    """One attribute per hook: None where nobody overrides it, or what to call with the documented arguments.

    Every run resolves them anew: a copy or a pickle is empty.
    """

    if TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any: ...

    def __reduce__(self) -> Any:
        return Hooks, ()


class CheckpointHooks:
    """The hooks around a checkpoint, for a `LightningModule` and a `LightningDataModule` alike."""

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add to `checkpoint` what it should hold besides: it is complete, and about to be written. Whatever is
        more than tensors, numbers, strings and their containers makes it load with `weights_only=False` only."""

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take back what `on_save_checkpoint` added; the weights are loaded afterwards."""


class DataHooks(CheckpointHooks):
    """The hooks about data, for a `LightningModule` and a `LightningDataModule` alike.

    `prepare_data_per_node` says whether `prepare_data` runs in one process of each node, or in one of all; in a run
    of one process these are the same.
    """

    prepare_data_per_node: bool = True

    def prepare_data(self) -> None:
        """Download or write data: once, in the process of global rank 0, before devices start.

        Assign no state here: other processes do not run it. (`fit.prepare_data`)
        """

    def setup(self, stage: str | None = None) -> None:
        """Build what depends on data; called on every device, after `on_fit_start`.

        `stage` is "fit", "validate", "test" or "predict". (`fit.setup`)
        """

    def train_dataloader(self) -> Any:
        """The training batches: any iterable, or a list, tuple or dict of them, nested as one likes, whose batches
        have that structure. Asked for when the first epoch of a fit begins, and then kept, unless
        `Trainer(reload_dataloaders_every_n_epochs)` says otherwise."""

    def val_dataloader(self) -> Any:
        """The validation batches: an iterable of batches, or a list or tuple of loaders."""

    def test_dataloader(self) -> Any:
        """The test batches: an iterable of batches, or a list or tuple of loaders."""

    def predict_dataloader(self) -> Any:
        """The batches to predict: an iterable of batches, or a list or tuple of loaders."""

    def on_before_batch_transfer(self, batch: Any, dataloader_idx: int = 0) -> Any:
        """Change or augment `batch` before it is moved to the device; returns the batch."""
        return batch

    def transfer_batch_to_device(self, batch: Any, device: torch.device, dataloader_idx: int = 0) -> Any:
        """Move `batch` to `device`; returns the moved batch, its values unchanged.

        The default handles tensors, anything with `.to(device)`, torchtext's batches, and any nesting of
        lists, tuples, named tuples and mappings; other values are returned as they are.
        """
        return move(batch, device)

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int = 0) -> Any:
        """Change or augment `batch` on the device; returns the batch."""
        return batch

    def teardown(self, stage: str | None = None) -> None:
        """Undo `setup`; the last call of a run, after an exception too. `stage` as in `setup`."""


class ModelHooks(DataHooks):
    """The hooks of a `LightningModule`, in the order of `loops.py`."""

    def on_fit_start(self) -> None:
        """First on each device. (`fit.on_fit_start`)"""

    def on_post_move_to_device(self) -> None:
        """The module is on its device, after `setup` and before `configure_optimizers`; in a validation, test or
        prediction before its loop. Tie weights here: `self.decoder.weight = self.encoder.weight`.
        """

    def on_pretrain_routine_start(self) -> None:
        """After `configure_optimizers`, before the sanity check."""

    def on_pretrain_routine_end(self) -> None:
        """Directly after `on_pretrain_routine_start`, before the sanity check."""

    def on_train_start(self) -> None:
        """Training begins, after the sanity check; the module is in train mode from here on."""

    def on_epoch_start(self) -> None:
        """Any epoch begins: training, validation or test."""

    def on_train_epoch_start(self) -> None:
        """A training epoch begins."""

    def on_train_batch_start(self, batch: Any, batch_idx: int, dataloader_idx: int) -> int | None:
        """Before anything happens to `batch`, which is still where the loader left it.

        Return -1 to skip the rest of this epoch's batches.
        """

    def on_before_zero_grad(self, optimizer: torch.optim.Optimizer) -> None:
        """After `training_step`, before the gradients are cleared."""

    def on_before_backward(self, loss: torch.Tensor) -> None:
        """Before `loss.backward()`; `loss` is a scalar with its graph."""

    def on_after_backward(self) -> None:
        """Gradients are there; the optimizer has not stepped."""

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer, optimizer_idx: int) -> None:
        """The last look at the gradients before the parameters change."""

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int, dataloader_idx: int) -> None:
        """The batch is done; `outputs` is what `training_step` (or `training_step_end`) returned,
        its tensors detached."""

    def on_train_epoch_end(self) -> None:
        """A training epoch ends, after `training_epoch_end`."""

    def on_epoch_end(self) -> None:
        """Any epoch ends: training, validation or test."""

    def on_train_end(self) -> None:
        """Training is over."""

    def on_fit_end(self) -> None:
        """Last on each device, before `teardown`."""

    def on_validation_model_eval(self) -> None:
        """Puts the module into eval mode: `self.eval()`."""
        self.eval()  # type: ignore[attr-defined]

    def on_validation_start(self) -> None:
        """Validation begins, in eval mode and without gradients."""

    def on_validation_epoch_start(self) -> None:
        """A pass over the validation loaders begins."""

    def on_validation_batch_start(self, batch: Any, batch_idx: int, dataloader_idx: int) -> None:
        """Before anything happens to `batch`."""

    def on_validation_batch_end(self, outputs: Any, batch: Any, batch_idx: int, dataloader_idx: int) -> None:
        """The batch is done; `outputs` is what `validation_step` (or `validation_step_end`) returned."""

    def on_validation_epoch_end(self) -> None:
        """A pass over the validation loaders ends, after `validation_epoch_end`."""

    def on_validation_end(self) -> None:
        """Validation is over; still in eval mode."""

    def on_validation_model_train(self) -> None:
        """Puts the module back into train mode: `self.train()`."""
        self.train()  # type: ignore[attr-defined]

    def on_test_model_eval(self) -> None:
        """Puts the module into eval mode: `self.eval()`."""
        self.eval()  # type: ignore[attr-defined]

    def on_test_start(self) -> None:
        """Testing begins, in eval mode and without gradients."""

    def on_test_epoch_start(self) -> None:
        """A pass over the test loaders begins."""

    def on_test_batch_start(self, batch: Any, batch_idx: int, dataloader_idx: int) -> None:
        """Before anything happens to `batch`."""

    def on_test_batch_end(self, outputs: Any, batch: Any, batch_idx: int, dataloader_idx: int) -> None:
        """The batch is done; `outputs` is what `test_step` (or `test_step_end`) returned."""

    def on_test_epoch_end(self) -> None:
        """A pass over the test loaders ends, after `test_epoch_end`."""

    def on_test_end(self) -> None:
        """Testing is over; still in eval mode."""

    def on_test_model_train(self) -> None:
        """Puts the module back into train mode: `self.train()`."""
        self.train()  # type: ignore[attr-defined]

    def on_predict_model_eval(self) -> None:
        """Puts the module into eval mode: `self.eval()`."""
        self.eval()  # type: ignore[attr-defined]

    def on_predict_start(self) -> None:
        """Prediction begins, in eval mode and without gradients."""

    def on_predict_epoch_start(self) -> None:
        """A pass over the loaders to predict begins."""

    def on_predict_batch_start(self, batch: Any, batch_idx: int, dataloader_idx: int) -> None:
        """Before anything happens to `batch`."""

    def on_predict_batch_end(self, outputs: Any, batch: Any, batch_idx: int, dataloader_idx: int) -> None:
        """The batch is done; `outputs` is what `predict_step` returned."""

    def on_predict_epoch_end(self, results: list[Any]) -> None:
        """A pass ends; `results` holds, for each loader, the list of its predictions."""

    def on_predict_end(self) -> None:
        """Prediction is over; still in eval mode."""

    def on_predict_model_train(self) -> None:
        """Puts the module back into train mode: `self.train()`."""
        self.train()  # type: ignore[attr-defined]
