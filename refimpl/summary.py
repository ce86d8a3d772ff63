"""The model summary: a table of the module's children with their parameters."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import nn
from torch.nn.parameter import is_lazy

from .callbacks import Callback
from .optimization import ConfigurationError

if TYPE_CHECKING:
    from .module import LightningModule
    from .trainer import Trainer

__all__ = ["ModelSummary", "summarize"]


def summarize(module: nn.Module, max_depth: int = 1) -> str:
    """The table: name, type and parameters of each child, down to `max_depth` (-1: all of them); trainable,
    non-trainable and total numbers of parameters; the size of parameters in megabytes (10**6 bytes).
    ("最小示例": its printed output)
    """
    rows = [(str(i), name, type(child).__name__, human(_parameters(child)))
            for i, (name, child) in enumerate(_descendants(module, max_depth))]
    head = (" ", "Name", "Type", "Params")
    widths = [max(len(row[column]) for row in [head, *rows]) for column in range(4)]
    lines = [" | ".join(cell.ljust(width) for cell, width in zip(row, widths)) for row in [head, *rows]]
    rule = "-" * max(map(len, lines))

    trainable = _parameters(module, trainable=True)
    total = _parameters(module)
    size = sum(p.numel() * p.element_size() for p in _initialized(module)) / 1e6
    totals = [
        (human(trainable), "Trainable params"),
        (human(total - trainable), "Non-trainable params"),
        (human(total), "Total params"),
        (f"{size:.3f}", "Total estimated model params size (MB)"),
    ]
    return "\n".join([lines[0], rule, *lines[1:], rule, *(f"{number:<9} {what}" for number, what in totals)])


def _descendants(module: nn.Module, max_depth: int) -> list[tuple[str, nn.Module]]:
    """The modules inside, by their full names, each before those inside of it."""
    if max_depth == 1:
        return list(module.named_children())
    return [(name, child) for name, child in module.named_modules() if name and not 0 <= max_depth <= name.count(".")]


def human(count: int) -> str:
    """A count with at most three digits and a unit, halves rounded up: 7850 is "7.9 K"."""
    if count < 1000:
        return str(count)
    one = next((1000**power for power in (1, 2, 3) if 2 * count < 1999 * 1000**power), 1000**4)
    unit = {1000: "K", 1000**2: "M", 1000**3: "B", 1000**4: "T"}[one]
    tenths, ones = (20 * count + one) // (2 * one), (2 * count + one) // (2 * one)
    return f"{tenths / 10:.1f} {unit}" if tenths < 1000 else f"{ones} {unit}"


def _initialized(module: nn.Module) -> list[Any]:
    """The parameters that have a size; those of lazy layers get theirs with the first batch."""
    return [p for p in module.parameters() if not is_lazy(p)]


def _parameters(module: nn.Module, trainable: bool = False) -> int:
    return sum(p.numel() for p in _initialized(module) if p.requires_grad or not trainable)


class ModelSummary(Callback):
    """Prints the summary when `fit` has configured everything: the module's children and, with a `max_depth`
    above 1, theirs; with -1 all modules. Raises ConfigurationError for a depth below -1."""

    def __init__(self, max_depth: int = 1) -> None:
        if type(max_depth) is not int or max_depth < -1:
            raise ConfigurationError(f"ModelSummary: max_depth={max_depth!r}; an int from -1 is accepted")
        self.max_depth = max_depth

    def on_pretrain_routine_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Prints the table, in the process of global rank 0 only."""
        if trainer.global_rank == 0:
            print(summarize(pl_module, self.max_depth))
