"""Manual optimization: what `optimizers()`, `lr_schedulers()` and `manual_backward` give to a training_step."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor
from torch.optim import Optimizer

from ..optimization import Optimization
from .gradients import WithheldGradients

__all__ = ["LightningOptimizer", "manual_backward", "one_or_all"]


class LightningOptimizer:
    """An optimizer in a `training_step` that does the optimization itself. `step` does what the loops do
    around an update; everything else is the optimizer's own, which it also counts as an instance of."""

    def __init__(self, optimization: Optimization, optimizer_idx: int) -> None:
        self._optimization, self._optimizer_idx = optimization, optimizer_idx
        self.optimizer: Optimizer = optimization.optimizers[optimizer_idx]

    @property  # type: ignore[misc]
    def __class__(self) -> type:
        return type(self.optimizer)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.optimizer, name)

    def step(self, closure: Callable[[], Any] | None = None, *args: Any, **kwargs: Any) -> Any:
        """Update the parameters. First comes the closure, if there is one, then, with the loss scale taken
        off the gradients, `on_before_optimizer_step`. In float16 an update that has overflowed is skipped.
        Further arguments are the optimizer's own."""
        hooks, scaler = self._optimization.hooks, self._optimization.scaler
        withheld = None

        def with_hooks() -> Any:
            nonlocal withheld
            loss = closure() if closure else None
            if scaler:
                scaler.unscale(self.optimizer)
            if hooks.on_before_optimizer_step:
                hooks.on_before_optimizer_step(self.optimizer, self._optimizer_idx)
            if scaler and scaler.found_inf:
                withheld = WithheldGradients(self.optimizer)
            return loss

        result = self.optimizer.step(with_hooks, *args, **kwargs)
        if scaler:
            scaler.after_step()
        if withheld:
            withheld.restore()
        return result

    @contextmanager
    def toggle_model(self) -> Iterator[None]:
        """Within, only this optimizer's parameters require gradients."""
        module = self._optimization.module
        module.toggle_optimizer(self.optimizer, self._optimizer_idx)
        try:
            yield
        finally:
            module.untoggle_optimizer(self._optimizer_idx)


def manual_backward(optimization: Optimization, loss: Tensor, *args: Any, **kwargs: Any) -> None:
    """The lines from on_before_backward to on_after_backward, for `LightningModule.manual_backward`."""
    hooks = optimization.hooks
    if optimization.scaler:
        loss = optimization.scaler.scale(loss)
    if hooks.on_before_backward:
        hooks.on_before_backward(loss)
    hooks.backward(loss, None, None, *args, **kwargs)
    if hooks.on_after_backward:
        hooks.on_after_backward()


def one_or_all(found: list[Any]) -> Any:
    """The only one, the list of several, or None."""
    return found[0] if len(found) == 1 else found or None
