"""Devices: where the module and its batches live, and which process this is; opening them for a run."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from .errors import ConfigurationError
from .trainer.options import Options

__all__ = ["Devices", "device_of", "parallel"]


class Devices:
    """Where this process runs the module, and which one it is among all: here the only one, on one device."""

    global_rank = local_rank = node_rank = 0
    world_size = num_nodes = num_processes = num_devices = 1

    def __init__(self, device: torch.device, options: Options) -> None:
        self.device, self.options = device, options

    def place(self, module: nn.Module) -> None:
        """The module goes to the device, once `setup` has built it, at precision 64 as float64."""
        module.to(self.device)
        if self.options.precision == 64:
            module.double()


@contextmanager
def parallel(devices: Devices) -> Iterator[None]:
    """Open the devices for a run: gradients on, torch's algorithms as the options ask for, and afterwards
    everything as the caller had it."""
    options = devices.options
    deterministic = torch.are_deterministic_algorithms_enabled()
    warns = torch.is_deterministic_algorithms_warn_only_enabled()
    benchmark = torch.backends.cudnn.benchmark
    if options.deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # without which cuBLAS has no deterministic ones
        torch.use_deterministic_algorithms(True)
    torch.backends.cudnn.benchmark = benchmark or options.benchmark
    try:
        with torch.inference_mode(False), torch.enable_grad():
            yield
    finally:
        torch.use_deterministic_algorithms(deterministic, warn_only=warns)
        torch.backends.cudnn.benchmark = benchmark


def device_of(accelerator: Any, devices: Any) -> torch.device:
    """The one device that this engine runs on.

    Raises ConfigurationError for more than one, and for one that is not there.
    """
    asked = {"accelerator": accelerator, "devices": devices}
    shown = ", ".join(f"{name}={value!r}" for name, value in asked.items() if value is not None)
    if accelerator not in (None, "auto", "cpu", "gpu", "cuda"):
        raise ConfigurationError(f"{shown}: accelerator 'cpu', 'gpu' or 'auto' is accepted")
    which = _counted(devices)
    if which == -1:
        which = torch.cuda.device_count() or 1  # all that there are
    if which not in (None, 1, "auto") and not (isinstance(which, (list, tuple)) and len(which) == 1):
        raise ConfigurationError(f"{shown}: this engine runs in one process on one device; 1 or [index] is accepted")
    if accelerator in (None, "cpu") or (accelerator == "auto" and not torch.cuda.is_available()):
        return torch.device("cpu")
    index = which[0] if isinstance(which, (list, tuple)) else 0
    if type(index) is not int or not 0 <= index < torch.cuda.device_count():
        raise ConfigurationError(f"{shown}: torch finds {torch.cuda.device_count()} GPUs here")
    return torch.device("cuda", index)


def _counted(devices: Any) -> Any:
    """The number of devices, or the list of their indices, also where a command line gave it as text: "1", "0,"."""
    if not isinstance(devices, str) or devices == "auto":
        return devices
    try:
        return [int(part) for part in devices.split(",") if part.strip()] if "," in devices else int(devices)
    except ValueError:
        return devices
