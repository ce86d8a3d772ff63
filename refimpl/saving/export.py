"""A module for production: as TorchScript and as ONNX; how large its file is."""

from __future__ import annotations

import importlib.util
import inspect
import os
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import IO, Any

import torch
from torch import nn

from ..errors import ConfigurationError, did_you_mean
from ..loaders.batches import move
from ..optimizers.precision import doubled
from ..types import LightningModule

__all__ = ["evaluating", "forward_arguments", "megabytes", "to_onnx", "to_torchscript"]

File = str | os.PathLike[str] | IO[bytes]


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


def forward_arguments(module: LightningModule, sample: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """`sample` as arguments of `forward`, on the module's device, and in float64 where the trainer's precision is 64:
    a tuple or list holds several, a mapping those by name, anything else is the only one."""
    sample = move(sample, module.device)
    if module.precision == 64:
        sample = doubled(sample)
    if isinstance(sample, Mapping):
        return (), dict(sample)
    return (tuple(sample) if isinstance(sample, (tuple, list)) else (sample,)), {}


def to_torchscript(
    module: LightningModule, file_path: File | None, method: str | None, example_inputs: Any, **options: Any
) -> torch.jit.ScriptModule:
    """What `LightningModule.to_torchscript` says."""
    if method not in ("script", "trace"):
        raise ConfigurationError(f"to_torchscript: method={method!r}; 'script' or 'trace' is accepted")
    _check_forward(module, "to_torchscript")
    compiler = getattr(torch.jit, method, None)
    if compiler is None:
        raise RuntimeError(f"torch {torch.__version__} has no torch.jit.{method} any more; {_INSTEAD} works instead")
    if method == "trace":
        args, kwargs = _arguments(module, example_inputs, "to_torchscript(method='trace')", "example_inputs")
        options |= {"example_kwarg_inputs": kwargs} if kwargs else {"example_inputs": args}
    with _without_deprecations() as said, evaluating(module):
        script: torch.jit.ScriptModule = compiler(module, **options)
        if file_path is not None:
            torch.jit.save(script, file_path)
    if any("torch.jit" in message for message in said):
        notice = f"torch {torch.__version__} deprecates TorchScript; {_INSTEAD} works instead"
        warnings.warn(notice, DeprecationWarning, stacklevel=3)
    return script


def to_onnx(module: LightningModule, file_path: str | os.PathLike[str], input_sample: Any, **options: Any) -> None:
    """What `LightningModule.to_onnx` says."""
    _check_forward(module, "to_onnx")
    args, kwargs = _arguments(module, input_sample, "to_onnx", "input_sample")
    accepted = inspect.signature(torch.onnx.export).parameters
    for name in options:
        if name not in accepted:
            hint = did_you_mean(name, accepted) or f"; accepted are {', '.join(accepted)}"
            raise TypeError(f"to_onnx: torch.onnx.export of torch {torch.__version__} has no argument {name!r}{hint}")
    # As in the period: it says nothing, and there is one file, up to the 2 GB that a file can hold.
    options = {name: value for name, value in _ONNX_DEFAULTS.items() if name in accepted} | options
    by_dynamo = "dynamo" in accepted and options.get("dynamo", accepted["dynamo"].default)
    if by_dynamo and importlib.util.find_spec("onnxscript") is None:
        raise ModuleNotFoundError("to_onnx needs onnxscript: pip install 'refimpl-conformance[export]'")
    with _without_deprecations(), evaluating(module):
        torch.onnx.export(module, (*args, kwargs), os.fspath(file_path), **options)


_INSTEAD = "to_onnx, or torch.export.export(module.eval(), inputs),"
_ONNX_DEFAULTS = {"verbose": False, "external_data": None}


def _check_forward(module: LightningModule, what: str) -> None:
    if getattr(module.forward, "__func__", None) is nn.Module.forward:
        raise ConfigurationError(f"{what} needs {type(module).__name__}.forward, which is not defined")


def _arguments(module: LightningModule, given: Any, what: str, name: str) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The sample's arguments, or those of the module's own example."""
    sample = module.example_input_array if given is None else given
    if sample is None:
        owner = type(module).__name__
        raise ConfigurationError(f"{what} needs an input: pass {name}, or set {owner}.example_input_array")
    return forward_arguments(module, sample)


@contextmanager
def _without_deprecations() -> Iterator[list[str]]:
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


class _Counted:
    """A file that keeps nothing but how many bytes were written."""

    bytes = 0

    def write(self, data: Any) -> int:
        written = memoryview(data).nbytes
        self.bytes += written
        return written

    def flush(self) -> None: ...


def megabytes(module: nn.Module) -> float:
    """The size of the file that `torch.save` would make of the module's state, in megabytes (10**6 bytes)."""
    file = _Counted()
    torch.save(module.state_dict(), file)  # type: ignore[arg-type]
    return file.bytes / 1e6
