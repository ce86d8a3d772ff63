"""Gradients, and the loss that they come from: withheld, measured, clipped, checked."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from ..errors import ConfigurationError, shown
from ..types import LightningModule

__all__ = [
    "WithheldGradients", "check_finite", "check_loss", "clip_gradients", "loss_of", "parameters_of", "track_grad_norm",
]  # fmt: skip


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


_CLIP: dict[str, Callable[[list[Tensor], float], Any]] = {
    "norm": torch.nn.utils.clip_grad_norm_,
    "value": torch.nn.utils.clip_grad_value_,
}


def clip_gradients(optimizer: Optimizer, value: float | None, algorithm: str) -> None:
    """For `LightningModule.clip_gradients`."""
    if algorithm not in _CLIP:
        raise ConfigurationError(f"gradient_clip_algorithm={algorithm!r}; 'norm' or 'value' is accepted")
    if value:
        _CLIP[algorithm](parameters_of(optimizer), value)


def check_finite(module: LightningModule, loss: Tensor | None = None) -> None:
    """For `terminate_on_nan`. Raises ValueError if the loss, or else a parameter, is NaN or infinite."""
    if loss is not None and not torch.isfinite(loss).all():
        raise ValueError(f"terminate_on_nan: the loss of training_step is {loss.detach()}")
    for name, parameter in module.named_parameters() if loss is None else ():
        if not torch.isfinite(parameter).all():
            raise ValueError(f"terminate_on_nan: the parameter {name} holds NaN or infinite values")


# ---- the loss that they come from ------------------------------------------------------------------------------


def loss_of(output: Any) -> Tensor | None:
    """The loss in what `training_step` returned: a tensor, a mapping with "loss", or None.

    Raises ConfigurationError for anything else.
    """
    loss = output
    if output.__class__ is dict or isinstance(output, Mapping):
        if "loss" not in output:
            raise ConfigurationError(f"training_step returned a dict with the keys {list(output)}, but no 'loss'")
        loss = output["loss"]
    if loss is None or loss.__class__ is Tensor or isinstance(loss, Tensor):
        return loss
    raise ConfigurationError(
        f"training_step returned {shown(loss)}; a loss tensor, a dict with 'loss', or None is accepted"
    )


def check_loss(loss: Tensor) -> None:
    """Raises ConfigurationError for a loss from which no gradient can be computed."""
    if loss.numel() != 1:
        raise ConfigurationError(
            f"the loss of training_step has the shape {tuple(loss.shape)}; a scalar is accepted, such as its mean()"
        )
    if not loss.requires_grad:
        raise ConfigurationError("the loss of training_step depends on no trainable parameter: was it detached, or "
                                 "made anew as a tensor, or is everything frozen?")  # fmt: skip
