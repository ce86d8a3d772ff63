"""What an export needs: eval mode, arguments of `forward`, quiet; and how large a module's file is."""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from ..errors import ConfigurationError
from ..loaders.batches import move
from ..optimizers.precision import doubled

__all__ = ["check_forward", "evaluating", "forward_arguments", "megabytes", "sample_arguments", "without_deprecations"]


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """`module` in eval mode and without gradients; afterwards each of its layers is in the mode it was in."""
    modes = [(layer, layer.training) for layer in module.modules()]
    module.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for layer, training in modes:
            layer.training = training


def forward_arguments(module: Any, sample: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """`sample` as arguments of `forward`, on the module's device, and in float64 where the trainer's precision is 64:
    a tuple or list holds several, a mapping those by name, anything else is the only one."""
    sample = move(sample, module.device)
    if module.precision == 64:
        sample = doubled(sample)
    if isinstance(sample, Mapping):
        return (), dict(sample)
    return (tuple(sample) if isinstance(sample, (tuple, list)) else (sample,)), {}


def sample_arguments(module: Any, given: Any, what: str, name: str) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The sample's arguments, or those of the module's own example."""
    sample = module.example_input_array if given is None else given
    if sample is None:
        owner = type(module).__name__
        raise ConfigurationError(f"{what} needs an input: pass {name}, or set {owner}.example_input_array")
    return forward_arguments(module, sample)


def check_forward(module: nn.Module, what: str) -> None:
    """Raises ConfigurationError for a module without one."""
    if getattr(module.forward, "__func__", None) is nn.Module.forward:
        raise ConfigurationError(f"{what} needs {type(module).__name__}.forward, which is not defined")


@contextmanager
def without_deprecations() -> Iterator[list[str]]:
    """Keeps back what is said of functions that retire, for the caller named none of them, and lists it. Other
    warnings, such as a tracer's of what it cannot see, are handed on as they are."""
    said: list[str] = []
    caught: list[warnings.WarningMessage] = []
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            yield said
    finally:
        for warning in caught:
            if issubclass(warning.category, (DeprecationWarning, FutureWarning)):
                said.append(str(warning.message))
            else:
                warnings.warn_explicit(warning.message, warning.category, warning.filename, warning.lineno)


def megabytes(module: nn.Module) -> float:
    """The size of the file that `torch.save` makes of the module's state, in megabytes (10**6 bytes)."""
    with tempfile.TemporaryFile() as file:
        torch.save(module.state_dict(), file)
        return file.tell() / 1e6
