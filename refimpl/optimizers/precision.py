"""Numbers: which precision the steps compute in, and float16's loss scale."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

import torch
from torch import Tensor
from torch.optim import Optimizer

from ..errors import ConfigurationError
from ..loaders.batches import transformed
from .gradients import parameters_of

__all__ = ["PRECISIONS", "LossScaler", "doubled", "in_precision"]

PRECISIONS = (16, 32, 64, "bf16")
_AUTOCAST = {16: torch.float16, "bf16": torch.bfloat16}


def in_precision(step: Callable[..., Any], precision: int | str, device: torch.device) -> Callable[..., Any]:
    """`step`, run under autocast to float16 (16) or bfloat16 ("bf16"), or in double precision (64): then
    tensors are made as float64, and those of the batch are cast to it. At 32, `step` itself."""
    if precision == 32:
        return step

    def in_autocast(*args: Any) -> Any:
        with torch.autocast(device.type, dtype=_AUTOCAST[precision]):
            return step(*args)

    def in_double(*args: Any) -> Any:
        with _default_dtype(torch.float64):
            return step(*map(doubled, args))

    return in_double if precision == 64 else in_autocast


def doubled(value: Any) -> Any:
    """`value` with every tensor of floating point in its mappings, lists and tuples as float64."""
    return transformed(value, lambda tensor: tensor.double() if tensor.is_floating_point() else tensor)


@contextmanager
def _default_dtype(dtype: torch.dtype) -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


class LossScaler:
    """Keeps float16's small gradients from vanishing: the loss is multiplied by a scale before backward, the
    gradients are divided by it before `on_before_optimizer_step`. A step whose gradients have overflowed
    is skipped, and the scale halved."""

    def __init__(self, device: torch.device) -> None:
        self.scaler = torch.amp.GradScaler(device.type)
        self.found_inf = self._unscaled = False

    def scale(self, loss: Tensor) -> Tensor:
        """The loss to compute gradients of."""
        return self.scaler.scale(loss)

    def unscale(self, optimizer: Optimizer) -> None:
        """Divide the gradients of the optimizer's parameters, and look for overflows."""
        self.scaler.unscale_(optimizer)
        gradients = [parameter.grad for parameter in parameters_of(optimizer) if parameter.grad is not None]
        finite = [gradient.isfinite().all() for gradient in gradients]
        # The device is waited for once.
        self.found_inf, self._unscaled = bool(finite) and not torch.stack(finite).all(), True

    def refuse_none(self) -> NoReturn:
        """A step without a loss. Raises ConfigurationError. ("training_step", note on returning None)"""
        raise ConfigurationError("training_step returned None, which precision=16 does not support; use 'bf16' or 32")

    def after_step(self) -> None:
        """Adapt the scale to what the step has found, if it had gradients."""
        if self._unscaled:
            self.scaler.update()
        self._unscaled = False
