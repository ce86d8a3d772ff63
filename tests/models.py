"""Small modules, loaders and trainers that the engine's tests share."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from refimpl import Callback, LightningModule, Trainer
from refimpl.dispatch import CALLBACK_HOOKS, MODULE_HOOKS

T = TypeVar("T")

__all__ = ["Batches", "Line", "Stream", "pairs", "quiet", "tapped"]

# What a test taps to see a whole run; without what returns loaders or callbacks, and without the
# hooks that would make the engine keep outputs.
TAPPED = [
    hook
    for hook in dict.fromkeys([*MODULE_HOOKS, *CALLBACK_HOOKS])
    if not hook.endswith(("_dataloader", "_step_end")) and hook != "configure_callbacks"
]


class Batches:
    """A loader with a length: the batches it was given, again in each epoch."""

    def __init__(self, batches: Iterable[Any]) -> None:
        self.batches = list(batches)
        self.passes = 0

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[Any]:
        self.passes += 1
        return iter(self.batches)


class Stream:
    """A loader without a length; `handed_out` counts what was taken from it."""

    def __init__(self, batches: Iterable[Any]) -> None:
        self.batches = list(batches)
        self.handed_out = 0

    def __iter__(self) -> Iterator[Any]:
        for batch in self.batches:
            self.handed_out += 1
            yield batch


def pairs(count: int, size: int = 2, seed: int = 0) -> Batches:
    """`count` batches (x, y) of `size` samples in float64, the same in every call."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(count, size, 2, generator=generator, dtype=torch.float64)
    y = torch.randn(count, size, 1, generator=generator, dtype=torch.float64)
    return Batches(zip(x, y))


class Line(LightningModule):
    """Least squares in float64, so that a hand-written loop must give the very same weights."""

    def __init__(self, optimizer: Callable[[Iterable[Tensor]], Any] | None = None) -> None:
        super().__init__()
        self.layer = nn.Linear(2, 1, dtype=torch.float64)
        with torch.no_grad():
            self.layer.weight.copy_(torch.tensor([[0.5, -0.25]]))
            self.layer.bias.fill_(0.125)
        self.optimizer = optimizer or (lambda parameters: torch.optim.SGD(parameters, lr=0.1))

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x)  # type: ignore[no-any-return]

    def loss(self, batch: Any) -> Tensor:
        x, y = batch
        return torch.mean((self(x) - y) ** 2)

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        return self.loss(batch)

    def validation_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> Any:
        return self.loss(batch)

    def test_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> Any:
        return self.loss(batch)

    def predict_step(self, batch: Any, batch_idx: int, dataloader_idx: int | None = None) -> Any:
        return self(batch[0])

    def configure_optimizers(self) -> Any:
        return self.optimizer(self.parameters())


def quiet(**options: Any) -> Trainer:
    """A trainer for one epoch that prints and writes nothing and makes no sanity check, unless asked to."""
    defaults: dict[str, Any] = {
        "max_epochs": 1,
        "num_sanity_val_steps": 0,
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
    }
    return Trainer(**{**defaults, **options})


def tapped(cls: type[T], note: Callable[..., Any], hooks: Sequence[str] = TAPPED) -> type[T]:
    """A subclass of a module, data module or callback that calls `note(receiver, hook, args)` first in
    each of `hooks` it has."""

    def tap(hook: str) -> Callable[..., Any]:
        inner = getattr(cls, hook)

        def call(self: Any, *args: Any) -> Any:
            note(self, hook, args)
            return inner(self, *args)

        return call

    own = [hook for hook in hooks if hasattr(cls, hook)]
    if issubclass(cls, LightningModule):
        own = [hook for hook in own if hook in MODULE_HOOKS]
    elif issubclass(cls, Callback):
        own = [hook for hook in own if hook in CALLBACK_HOOKS]
    return type(cls.__name__, (cls,), {hook: tap(hook) for hook in own})
