"""Gradients between backward and the update: withheld, measured, clipped, scaled."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.optim import Optimizer

from .types import LightningModule, Trainer

__all__ = ["WithheldGradients", "check_finite", "finish_gradients", "parameters_of"]


def parameters_of(optimizer: Optimizer) -> list[Tensor]:
    """The parameters that the optimizer updates."""
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]


class WithheldGradients:
    """For a batch whose step returned None: the optimizer finds no gradients, so that it changes
    nothing, with momentum or weight decay neither; afterwards they are as they were."""

    def __init__(self, optimizer: Optimizer) -> None:
        self._kept = [(parameter, parameter.grad) for parameter in parameters_of(optimizer)]
        for parameter, _ in self._kept:
            parameter.grad = None

    def restore(self) -> None:
        """Put the gradients back."""
        for parameter, gradient in self._kept:
            parameter.grad = gradient


def finish_gradients(trainer: Trainer, optimizer: Optimizer) -> None:
    """What comes between `on_before_optimizer_step` and the update: norms, then clipping."""
    if trainer.track_grad_norm:
        track_grad_norm(trainer.module, trainer.track_grad_norm)
    if trainer.gradient_clip_val:
        clip(optimizer, trainer.gradient_clip_val, trainer.gradient_clip_algorithm)


def track_grad_norm(module: LightningModule, order: float) -> None:
    """Log the norm of each parameter's gradient, as `grad_{order}_norm_{name}`, and that of all of them
    together, as `grad_{order}_norm_total`, per step and per epoch. The log's table of hooks knows this
    function by its name."""
    norms = {
        f"grad_{order}_norm_{name}": torch.linalg.vector_norm(parameter.grad, order)
        for name, parameter in module.named_parameters()
        if parameter.grad is not None
    }
    if norms:
        total = torch.linalg.vector_norm(torch.stack(list(norms.values())), order)
        module.log_dict({**norms, f"grad_{order}_norm_total": total}, on_step=True, on_epoch=True)


def clip(optimizer: Optimizer, value: float, algorithm: str) -> None:
    """Clip the gradients of the optimizer's parameters: their common norm ("norm"), or each of their
    elements ("value"), is at most `value` afterwards."""
    if algorithm == "norm":
        torch.nn.utils.clip_grad_norm_(parameters_of(optimizer), value)
    else:
        torch.nn.utils.clip_grad_value_(parameters_of(optimizer), value)


def check_finite(module: LightningModule, loss: Tensor | None = None) -> None:
    """For `terminate_on_nan`. Raises ValueError if the loss, or else a parameter, is NaN or infinite."""
    if loss is not None and not torch.isfinite(loss).all():
        raise ValueError(f"terminate_on_nan: the loss of training_step is {loss.detach()}")
    for name, parameter in module.named_parameters() if loss is None else ():
        if not torch.isfinite(parameter).all():
            raise ValueError(f"terminate_on_nan: the parameter {name} holds NaN or infinite values")
