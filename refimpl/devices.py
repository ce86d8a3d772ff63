"""Devices: where the module and its batches live, and which process this is; opening them for a run."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from .errors import ConfigurationError, one_of
from .optimizers.precision import in_precision
from .progress import Progress
from .trainer.options import Options
from .types import LightningModule

__all__ = ["STEPS", "STRATEGIES", "Devices", "devices_of", "parallel"]

# On one device they all come to the same, but for DP, which hands on a list of one part.
STRATEGIES: tuple[str | None, ...] = (
    None, "auto", "dp", "ddp", "ddp2", "ddp_cpu", "ddp_spawn", "ddp_find_unused_parameters_false"
)  # fmt: skip

STEPS = ("training_step", "validation_step", "test_step", "predict_step")


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

    def adapt(self, hooks: dict[str, Any], module: LightningModule, progress: Progress) -> None:
        """What the loops call, as it runs here: the steps in their precision."""
        for step in STEPS:
            hooks[step] = hooks[step] and self.in_precision(hooks[step])

    def in_precision(self, step: Callable[..., Any]) -> Callable[..., Any]:
        """The step as the option `precision` says."""
        return in_precision(step, self.options.precision, self.device)


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


def devices_of(accelerator: Any, devices: Any, strategy: Any = None) -> list[torch.device]:
    """The devices that are asked for. On the CPU, more than one are parts of it that stand for devices.

    Raises ConfigurationError for one that is not there, and for several without a strategy.
    """
    asked = {"accelerator": accelerator, "devices": devices, "strategy": strategy}
    one_of("strategy", strategy, STRATEGIES)
    shown = ", ".join(f"{name}={value!r}" for name, value in asked.items() if value is not None)
    if accelerator not in (None, "auto", "cpu", "gpu", "cuda"):
        raise ConfigurationError(f"{shown}: accelerator 'cpu', 'gpu' or 'auto' is accepted")
    on_cpu = accelerator in (None, "cpu") or (accelerator == "auto" and not torch.cuda.is_available())
    there = 1 if on_cpu else torch.cuda.device_count()
    which = _counted(devices)
    if which in (None, "auto"):
        which = 1
    if which == -1:
        which = max(there, 1)  # all that there are
    if type(which) is int and which > 0:
        which = list(range(which))
    if not isinstance(which, (list, tuple)) or not which:
        raise ConfigurationError(f"{shown}: a number of devices, a list of their indices, or -1 for all is accepted")
    if len(which) > 1 and strategy != "dp":
        raise ConfigurationError(f"{shown}: this engine runs on one device, or on several with strategy='dp'")
    if on_cpu:
        return [torch.device("cpu")] * len(which)
    for index in which:
        if type(index) is not int or not 0 <= index < there:
            raise ConfigurationError(f"{shown}: torch finds {there} GPUs here")
    return [torch.device("cuda", index) for index in which]


def _counted(devices: Any) -> Any:
    """The number of devices, or the list of their indices, also where a command line gave it as text: "1", "0,"."""
    if not isinstance(devices, str) or devices == "auto":
        return devices
    try:
        return [int(part) for part in devices.split(",") if part.strip()] if "," in devices else int(devices)
    except ValueError:
        return devices
