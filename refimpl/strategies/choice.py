"""Which devices a trainer was asked for, and by which strategy its runs are spread over them."""

from __future__ import annotations

import os
from typing import Any

import torch

from ..devices import OURS, Devices
from ..errors import ConfigurationError, count, one_of, warn
from ..trainer.options import Options
from .dp import DataParallel

__all__ = ["STRATEGIES", "chosen_devices", "devices_of"]

_UNUSED = tuple(f"{way}_find_unused_parameters_false" for way in ("ddp", "ddp_spawn"))
# "ddp_cpu" is the period's: "ddp_spawn" on the CPU.
STRATEGIES: tuple[str | None, ...] = (None, "auto", "dp", "ddp", "ddp2", "ddp_cpu", "ddp_spawn", *_UNUSED)


def chosen_devices(accelerator: Any, devices: Any, num_nodes: Any, strategy: Any, options: Options) -> Devices:
    """The devices of a trainer: of one process that has one, or splits each batch over several; or of one process for
    each, or of each machine ("ddp2"), which are to be started, or which torchrun has started.

    Raises ConfigurationError for what cannot be had.
    """
    one_of("strategy", strategy, STRATEGIES)
    nodes, started = count("num_nodes", num_nodes, 1), "RANK" in os.environ and "WORLD_SIZE" in os.environ
    if strategy == "ddp_cpu" and accelerator not in (None, "cpu"):
        raise ConfigurationError(f"strategy='ddp_cpu' contradicts accelerator={accelerator!r}; leave one out")
    if strategy in (None, "auto") and started and OURS not in os.environ and int(os.environ["WORLD_SIZE"]) > 1:
        strategy = "ddp"  # who starts several processes wants them to train together
    distributes = str(strategy).startswith("ddp")
    if distributes and strategy != "ddp2" and started and devices in (None, "auto"):
        devices = int(os.environ.get("LOCAL_WORLD_SIZE", os.environ["WORLD_SIZE"]))
    found = devices_of(accelerator, devices, strategy)
    if nodes == 1 and (strategy == "dp" or (strategy == "ddp2" and not started)):
        return DataParallel(found, options)
    if strategy in (None, "auto") and len(found) * nodes > 1:
        strategy, distributes = "ddp_spawn" if nodes == 1 else "ddp", True
        warn(f"{len(found)} devices without a strategy: strategy={strategy!r} is taken; name the one you want")
    if not distributes or (len(found) * nodes == 1 and not started):
        if nodes > 1:
            raise ConfigurationError(f"num_nodes={nodes} with strategy={strategy!r}; 'ddp' and 'ddp2' are accepted")
        return Devices(found[0], options)
    from .ddp import SPAWNING, Distributed  # an import that takes a while, and that one process does not need

    if strategy in SPAWNING and not started and nodes > 1:
        raise ConfigurationError(f"num_nodes={nodes} with strategy={strategy!r}: processes on several machines are "
                                 "started by the script itself, or by torchrun; use 'ddp'")  # fmt: skip
    return Distributed(found, nodes, options, str(strategy))


def devices_of(accelerator: Any, devices: Any, strategy: Any = None) -> list[torch.device]:
    """The devices that are asked for. On the CPU, more than one are parts of it that stand for devices, or
    processes.

    Raises ConfigurationError for one that is not there.
    """
    asked = {"accelerator": accelerator, "devices": devices, "strategy": strategy}
    shown = ", ".join(f"{name}={value!r}" for name, value in asked.items() if value is not None)
    if accelerator not in (None, "auto", "cpu", "gpu", "cuda"):
        raise ConfigurationError(f"{shown}: here is the CPU, or GPUs; accelerator 'cpu', 'gpu' or 'auto' is accepted")
    on_cpu = accelerator in (None, "cpu") or (accelerator == "auto" and not torch.cuda.is_available())
    there = 1 if on_cpu else torch.cuda.device_count()
    which = 1 if devices in (None, "auto") else _counted(devices)
    if which == -1:
        which = max(there, 1)  # all that there are
    if type(which) is int and which > 0:
        which = list(range(which))
    if not isinstance(which, (list, tuple)) or not which:
        raise ConfigurationError(f"{shown}: a number of devices, a list of their indices, or -1 for all is accepted")
    if on_cpu:
        return [torch.device("cpu")] * len(which)
    for index in which:
        if type(index) is not int or not 0 <= index < there:
            raise ConfigurationError(f"{shown}: torch finds {there} GPUs here")
    return [torch.device("cuda", index) for index in which]


def _counted(devices: Any) -> Any:
    """The number of devices, or the list of their indices, also where a command line gave it as text: "1", "0,"."""
    if not isinstance(devices, str):
        return devices
    try:
        return [int(part) for part in devices.split(",") if part.strip()] if "," in devices else int(devices)
    except ValueError:
        return devices
