"""The model summary: a table of the module's layers with their parameters, and with the sizes that they see."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from copy import deepcopy
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from ..callback import Callback
from ..errors import ConfigurationError
from ..loggers.rules import is_metric
from ..optimizers.precision import in_precision
from ..saving.export import evaluating, forward_arguments
from ..seed import kept_random_state
from ..types import LightningModule, Trainer

__all__ = ["ModelSummary", "summarize"]


def summarize(module: LightningModule, max_depth: int = 1) -> str:
    """The table: name, type and parameters of each layer, nested ones as far as `max_depth` (0: none, -1: all);
    trainable, non-trainable and total numbers of parameters; the size of parameters in megabytes (10**6 bytes).
    With an `example_input_array` also the sizes of what goes into a layer and comes out: those of its first call in a
    forward, "?" for a layer that is not called. ("最小示例": its printed output; "example_input_array")

    The forward runs in eval mode, without gradients and at the trainer's precision; it leaves modes, buffers, what
    metrics have counted and every source of random numbers as they were. It does not run while layers wait for their
    first batch to be built.
    """
    _check_depth(max_depth)
    depth = math.inf if max_depth == -1 else max_depth
    layers = {name: layer for name, layer in module.named_modules() if name and name.count(".") < depth}
    has_example = module.example_input_array is not None
    sizes = _sizes(module, layers) if has_example else dict.fromkeys(layers, ())
    head = (" ", "Name", "Type", "Params", *(("In sizes", "Out sizes") if has_example else ()))
    rows = [
        (str(i), name, type(layer).__name__, human(_parameters(layer)), *sizes[name])
        for i, (name, layer) in enumerate(layers.items())
    ]
    widths = [max(map(len, column)) for column in zip(head, *rows)]
    lines = [" | ".join(cell.ljust(width) for cell, width in zip(row, widths)) for row in [head, *rows]]
    rule = "-" * max(map(len, lines))

    trainable, total = _parameters(module, trainable=True), _parameters(module)
    totals = {
        "Trainable params": human(trainable),
        "Non-trainable params": human(total - trainable),
        "Total params": human(total),
        "Total estimated model params size (MB)":
            f"{sum(p.numel() * p.element_size() for p in _initialized(module)) / 1e6:.3f}",
    }  # fmt: skip
    return "\n".join([lines[0], rule, *lines[1:], rule, *(f"{number:<9} {what}" for what, number in totals.items())])


def _check_depth(max_depth: int) -> None:
    if type(max_depth) is not int or max_depth < -1:
        raise ConfigurationError(f"max_depth={max_depth!r}; an int from 0, or -1 for all layers, is accepted")


def _sizes(module: LightningModule, layers: Mapping[str, nn.Module]) -> dict[str, tuple[str, str]]:
    """The sizes of what each layer is given and returns, in a forward with the module's example."""
    sizes = dict.fromkeys(layers, ("?", "?"))
    if any(map(is_lazy, (*module.parameters(), *module.buffers()))):
        return sizes

    def note(name: str, layer: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        if sizes[name] == ("?", "?"):
            given = [*args, *kwargs.values()]
            sizes[name] = _size(given[0] if len(given) == 1 else given), _size(output)

    def forward(args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        module(*args, **kwargs)

    arguments = forward_arguments(module, module.example_input_array)
    hooked = {name: layer for name, layer in layers.items() if not isinstance(layer, torch.jit.ScriptModule)}
    handles = [layer.register_forward_hook(partial(note, name), with_kwargs=True) for name, layer in hooked.items()]
    try:
        with kept_random_state(), evaluating(module), _kept_state(module):
            in_precision(forward, module.precision, module.device)(*arguments)
    except Exception as error:
        error.add_note("(raised by a forward with example_input_array, which the model summary runs for its sizes)")
        raise
    finally:
        for handle in handles:
            handle.remove()
    return sizes


@contextmanager
def _kept_state(module: nn.Module) -> Iterator[None]:
    """Buffers, and what torchmetrics have counted, are afterwards what they were, and the same objects. [R83]"""
    layers = [layer for layer in module.modules() if not isinstance(layer, torch.jit.ScriptModule)]
    owners: list[tuple[dict[str, Any], dict[str, Any]]] = [(each._buffers, dict(each._buffers)) for each in layers]
    for state, counted in ((vars(each), each._defaults) for each in layers if is_metric(each)):
        owners.append((state, {**state, **{name: deepcopy(state[name]) for name in counted}}))  # type: ignore[union-attr]
    values = [(buffer, buffer.clone()) for buffer in module.buffers()]
    try:
        yield
    finally:
        for now, before in owners:
            now.clear()
            now.update(before)
        for buffer, value in values:
            buffer.copy_(value)


def _size(value: Any) -> str:
    """The shape of a tensor, a list of those of several; "?" for what has none."""
    if isinstance(value, Tensor):
        return str(list(value.shape))
    if isinstance(value, Mapping):
        value = value.values()
    elif not isinstance(value, (tuple, list)):
        return "?"
    return f"[{', '.join(map(_size, value))}]"


def human(count: int) -> str:
    """A count with at most three digits and a unit, halves rounded up: 7850 is "7.9 K"."""
    if count < 1000:
        return str(count)
    unit, one = next(((unit, 1000**i) for i, unit in enumerate("KMB", 1) if 2 * count < 1999 * 1000**i), ("T", 1000**4))
    tenths, ones = (20 * count + one) // (2 * one), (2 * count + one) // (2 * one)
    return f"{tenths / 10:.1f} {unit}" if tenths < 1000 else f"{ones} {unit}"


def _initialized(module: nn.Module) -> list[Any]:
    """The parameters that have a size; those of lazy layers get theirs with the first batch."""
    return [p for p in module.parameters() if not is_lazy(p)]


def _parameters(module: nn.Module, trainable: bool = False) -> int:
    return sum(p.numel() for p in _initialized(module) if p.requires_grad or not trainable)


class ModelSummary(Callback):
    """Prints the summary when `fit` has configured everything.

    `max_depth` says how deep layers may be nested to have a row of their own: 1 for the module's children, 0 for none,
    -1 for all. Raises ConfigurationError for another value.
    """

    def __init__(self, max_depth: int = 1) -> None:
        _check_depth(max_depth)
        self.max_depth = max_depth

    def on_pretrain_routine_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Prints the table, in the process of global rank 0 only."""
        if trainer.global_rank == 0:
            print(summarize(pl_module, self.max_depth))
