"""LightningModule: what the user writes. Steps, optimizers, logging, and the defaults of the hooks."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from .callback import Callback
from .errors import ConfigurationError
from .hooks import ModelHooks
from .loggers.mixin import LoggingMixin
from .optimizers.gradients import check_loss, clip_gradients
from .optimizers.manual import LightningOptimizer, manual_backward, one_or_all
from .optimizers.tbptt import split_batch
from .saving.hparams import HyperparametersMixin
from .saving.mixin import ExportMixin
from .trainer.properties import Properties

__all__ = ["LightningModule"]


class LightningModule(ModelHooks, LoggingMixin, ExportMixin, HyperparametersMixin, Properties):
    """An `nn.Module` that says how it is trained. Required for `fit`: `training_step` and
    `configure_optimizers`; for `validate`, `test`: the step of that name.

    A step or hook that is not overridden, or set to None on the instance, counts as not defined.
    """

    #: False: `training_step` does the optimization itself, with `optimizers()` and `manual_backward`.
    automatic_optimization = True
    #: How many steps of time a piece of a batch has; 0 for whole batches. ("truncated_bptt_steps")
    truncated_bptt_steps = 0
    _toggled: Mapping[Tensor, bool] = {}

    def __getstate__(self) -> dict[str, Any]:
        """A copy or a pickle of the module leaves the trainer, and all that hangs on it, behind."""
        return {name: value for name, value in self.__dict__.items() if name != "trainer"}

    # ---- what the user defines -------------------------------------------------------------------

    def training_step(self, *args: Any, **kwargs: Any) -> Tensor | Mapping[str, Any] | None:
        """The loss of one batch: a scalar tensor, or a mapping with the key "loss", or None to go on
        with the next batch without a zero_grad, a backward or a change of the parameters.

        Called as `training_step(batch, batch_idx)`; with several optimizers once for each of them, as
        `training_step(batch, batch_idx, optimizer_idx)`. With `truncated_bptt_steps`, once for each piece
        of the batch, with a last argument `hiddens`: None for the first piece, then what the step before
        (of this optimizer) returned under "hiddens", detached.
        With manual optimization it may return anything.
        """
        raise NotImplementedError

    def tbptt_split_batch(self, batch: Any, split_size: int) -> list[Any]:
        """The pieces of a batch for `truncated_bptt_steps`: cut along dimension 1. ("tbptt_split_batch")"""
        return split_batch(batch, split_size)

    def training_step_end(self, output: Any) -> Any:
        """Receives what `training_step` returned; its own return value takes the place of that."""
        return output

    def training_epoch_end(self, outputs: list[Any]) -> None:
        """Receives what the epoch's steps returned, detached, in order, without the Nones. Runs only if
        overridden, and only then are the outputs kept."""

    def validation_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> Any:
        """One validation batch, in eval mode and without gradients. `dataloader_idx` is given with
        several loaders only. Returns anything; None goes on with the next batch."""
        raise NotImplementedError

    def validation_step_end(self, output: Any) -> Any:
        """Receives what `validation_step` returned; its return value takes the place of that."""
        return output

    def validation_epoch_end(self, outputs: list[Any]) -> None:
        """Receives what the steps returned: a list, or a list of one list per loader where there are
        several. Runs only if overridden."""

    def test_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> Any:
        """One test batch; as `validation_step`."""
        raise NotImplementedError

    def test_step_end(self, output: Any) -> Any:
        """As `validation_step_end`."""
        return output

    def test_epoch_end(self, outputs: list[Any]) -> None:
        """As `validation_epoch_end`."""

    def predict_step(self, batch: Any, batch_idx: int, dataloader_idx: int | None = None) -> Any:
        """The prediction for one batch; by default `self(batch)`."""
        return self(batch)

    def configure_optimizers(self) -> Any:
        """The optimizer, and how its learning rate is scheduled.

        Returns an optimizer; a list or tuple of optimizers; two lists (optimizers, schedulers); a dict with
        "optimizer" and, optionally, "lr_scheduler" (a scheduler or an `lr_dict`); a list or tuple of such
        dicts, each optionally with "frequency"; or None.

        Several optimizers each train on every batch, in their order. Where one has a frequency, each trains
        on so many consecutive batches (1 for those without), while the others rest.
        """
        raise NotImplementedError

    def configure_callbacks(self) -> list[Callback]:
        """Callbacks that belong to this model; each replaces those of its type given to the trainer."""
        return []

    # ---- defaults of the optimization hooks ------------------------------------------------------

    def optimizer_zero_grad(
        self, epoch: int, batch_idx: int, optimizer: torch.optim.Optimizer, optimizer_idx: int
    ) -> None:
        """Clears the gradients: `optimizer.zero_grad()`."""
        optimizer.zero_grad()

    def backward(
        self, loss: Tensor, optimizer: torch.optim.Optimizer | None = None, optimizer_idx: int | None = None,
        *args: Any, **kwargs: Any
    ) -> None:  # fmt: skip
        """Computes the gradients: `loss.backward(*args, **kwargs)`, of which the loops give none.

        Raises ConfigurationError for a loss that has no gradient.
        """
        try:
            loss.backward(*args, **kwargs)  # type: ignore[no-untyped-call]
        except RuntimeError:
            check_loss(loss)  # says more of the two usual mistakes than torch does
            raise

    def optimizer_step(
        self, epoch: int | None = None, batch_idx: int | None = None, optimizer: torch.optim.Optimizer | None = None,
        optimizer_idx: int | None = None, optimizer_closure: Callable[[], Tensor | None] | None = None,
        on_tpu: bool | None = None, using_native_amp: bool | None = None, using_lbfgs: bool | None = None
    ) -> None:  # fmt: skip
        """Updates the parameters: `optimizer.step(closure=optimizer_closure)`.

        The closure runs `training_step`, `optimizer_zero_grad` and `backward`; without calling it, this
        batch is not trained on. The loops give every argument; an override that calls this default has to
        give `optimizer` and `optimizer_closure`.
        """
        assert optimizer is not None
        optimizer.step(closure=optimizer_closure)  # type: ignore[arg-type]

    def configure_gradient_clipping(
        self, optimizer: torch.optim.Optimizer, optimizer_idx: int, gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None
    ) -> None:  # fmt: skip
        """Clips the gradients before an update, after `on_before_optimizer_step`, as the trainer's options of these
        names say; an override is called whatever they say. It may call `clip_gradients`."""
        self.clip_gradients(optimizer, gradient_clip_val, gradient_clip_algorithm)

    def clip_gradients(
        self, optimizer: torch.optim.Optimizer, gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None
    ) -> None:  # fmt: skip
        """Clip the gradients of the optimizer's parameters: their common norm ("norm", the default), or each of their
        elements ("value"), is at most `gradient_clip_val` afterwards; None or 0 leaves them alone.

        Raises ConfigurationError for another algorithm.
        """
        clip_gradients(optimizer, gradient_clip_val, gradient_clip_algorithm or "norm")

    # ---- manual optimization ---------------------------------------------------------------------

    def optimizers(self, use_pl_optimizer: bool = True) -> Any:
        """The optimizer, or the list of several, or None. ("automatic_optimization")

        Their `step` calls `on_before_optimizer_step` and respects the precision; with
        `use_pl_optimizer=False` they are those of `configure_optimizers` as they are.
        """
        optimization = self._running_trainer("optimizers()").run.optimization
        plain = optimization.optimizers
        wrapped = use_pl_optimizer and [LightningOptimizer(optimization, i) for i in range(len(plain))]
        return one_or_all(wrapped or plain)

    def lr_schedulers(self) -> Any:
        """The scheduler, or the list of several, or None; with manual optimization their `step` is yours
        to call."""
        optimization = self._running_trainer("lr_schedulers()").run.optimization
        return one_or_all([schedule.scheduler for schedule in optimization.schedules])

    def manual_backward(self, loss: Tensor, *args: Any, **kwargs: Any) -> None:
        """In `training_step` with manual optimization: the gradients of `loss`, a scalar, with everything
        that the loops do around `backward`, which gets the other arguments. ("manual_backward")

        Raises ConfigurationError with automatic optimization, which does this by itself.
        """
        if self.automatic_optimization:
            raise ConfigurationError("manual_backward needs automatic_optimization = False in the module's __init__")
        manual_backward(self._running_trainer("manual_backward()").run.optimization, loss, *args, **kwargs)

    def toggle_optimizer(self, optimizer: torch.optim.Optimizer, optimizer_idx: int) -> None:
        """Until `untoggle_optimizer`, only the parameters of `optimizer` require gradients. With several
        optimizers, the loops do this around each one's block. ("configure_optimizers", things to know)"""
        optimizers = self.trainer.optimizers if self.trainer else [optimizer]
        self._toggled = {
            parameter: parameter.requires_grad
            for other in optimizers
            for group in other.param_groups
            for parameter in group["params"]
        }
        own = {parameter for group in optimizer.param_groups for parameter in group["params"]}
        for parameter in self._toggled.keys() - own:
            parameter.requires_grad = False

    def untoggle_optimizer(self, optimizer_idx: int) -> None:
        """Every parameter requires a gradient or not as before `toggle_optimizer`."""
        for parameter, required in self._toggled.items():
            parameter.requires_grad = required
        self._toggled = {}

    # ---- frozen ----------------------------------------------------------------------------------

    def freeze(self) -> None:
        """Eval mode, and no parameter requires a gradient."""
        self.requires_grad_(False)
        self.eval()

    def unfreeze(self) -> None:
        """Train mode, and every parameter requires a gradient."""
        self.requires_grad_(True)
        self.train()


# TorchScript compiles `forward` and what it calls: no property, and nothing of what the engine keeps in the module.
_CLASSES = [owner for owner in LightningModule.__mro__ if owner not in nn.Module.__mro__]
LightningModule.__jit_unused_properties__ = [  # type: ignore[attr-defined]
    name for owner in _CLASSES for name, value in vars(owner).items() if isinstance(value, property)
]
LightningModule.__jit_ignored_attributes__ = [  # type: ignore[attr-defined]
    name for owner in _CLASSES for name in vars(owner).get("__annotations__", ())
]
