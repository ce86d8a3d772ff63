"""Devices: where the module and its batches live, and which process this is; opening them for a run."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from .optimizers.precision import in_precision
from .progress import Progress
from .trainer.options import Options
from .types import LightningModule

__all__ = ["OURS", "STEPS", "Devices", "parallel"]

#: The variable that is set in processes which this engine has started, for a trainer with a strategy.
OURS = "REFIMPL_PROCESSES"
STEPS = ("training_step", "validation_step", "test_step", "predict_step")


class Devices:
    """Where this process runs the module, and which one it is among all: here the only one, on one device."""

    global_rank = local_rank = node_rank = 0
    world_size = num_nodes = num_processes = num_devices = 1

    def __init__(self, device: torch.device, options: Options) -> None:
        self.device, self.options = device, options

    def execute(self, run: Callable[..., Any], *given: Any) -> Any:
        """Run it, with what it is given, in all processes."""
        return run(*given)

    def place(self, module: nn.Module) -> None:
        """The module goes to the device, once `setup` has built it, at precision 64 as float64."""
        module.to(self.device)
        if self.options.precision == 64:
            module.double()

    def adapt(self, hooks: dict[str, Any], module: LightningModule, progress: Progress) -> None:
        """What the loops call, as it runs here: the steps in their precision."""
        for step in STEPS:
            hooks[step] = hooks[step] and self.in_precision(hooks[step])

    def wrap(self, module: LightningModule, optimization: Any) -> None:
        """What trains is there, with the weights that it begins with."""

    def share(self, loaders: Any, stage: str) -> Any:
        """This process's share of what loaders of a stage give: here all of it."""
        return loaders

    def same(self, what: str, value: Any) -> None:
        """Raises ConfigurationError where the processes have different values."""

    def of_zero(self, value: Any) -> Any:
        """The value of process 0 in its place; every process has to ask."""
        return value

    def wait(self) -> None:
        """Until every process has come here."""

    def gathered(self, checkpoint: dict[str, Any]) -> dict[str, Any]:
        """A checkpoint with what it has to hold of every process."""
        return checkpoint

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
