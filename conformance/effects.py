"""Effects: what a user could observe at any moment of a run, read without changing anything.

Runs in the trainer's own world: the standard library and torch, Python 3.8 and up.
"""

from __future__ import annotations

import inspect
import os
from operator import attrgetter
from typing import Any, Callable, Dict, Iterable, List, Mapping, Optional

import torch

from .described import Tags, finite

__all__ = ["Observer", "autocasts", "next_random", "rounded", "weights_in", "weights_of"]

# Before torch 1.13 there was no such choice.
_CAN_CHOOSE = "weights_only" in inspect.signature(torch.load).parameters
EVERYTHING: Dict[str, Any] = {"weights_only": False} if _CAN_CHOOSE else {}


class Observer:
    """Of whom the effects are: a module and its trainer, and the optimizers once there are any. `running` is the module
    whose hook runs, where that is a copy of it; `tags` name the batches of data that no formulas know."""

    def __init__(self) -> None:
        self.module: Any = None
        self.running: Any = None
        self.trainer: Any = None
        self.tags: Optional[Tags] = None
        self.optimizers: List[Any] = []
        self._requires: List[List[bool]] = []  # of each, which parameters required gradients when it was made
        self._params: List[torch.Tensor] = []
        self._version = 0
        self.metrics_of: Callable[[Any], Mapping[str, Any]] = attrgetter("callback_metrics")  # of a trainer

    def begin_anew(self, module: Any, trainer: Any) -> None:
        """From here on it is another module and trainer; the module's parameters are nobody's change."""
        self.module, self.trainer = module, trainer
        self.optimizers, self._params = [], []

    def follow(self, optimizers: List[Any]) -> None:
        """From here on these are the optimizers."""
        self.optimizers, self._requires = optimizers, [_required(optimizer) for optimizer in optimizers]

    def effects(self) -> Dict[str, Any]:
        """What a user could observe now."""
        module, trainer = self.module, self.trainer
        fx: Dict[str, Any] = {"grad_enabled": torch.is_grad_enabled()}
        if module is not None:
            parts = list(module.modules())  # walked through once, not for each effect
            # A shared parameter is there once.
            parameters = list({id(p): p for part in parts for p in part._parameters.values() if p is not None}.values())
            if self.running is not None:
                parts = list(self.running.modules())
            fx["training"] = mode = parts[0].training
            fx["submodules"] = "alike" if all(part.training == mode for part in parts) else "mixed"
            fx["grads"] = _gradients(parameters)
            fx["params"] = self._changes(parameters)
            if parameters:
                fx["device"] = str(parameters[0].device)
        if trainer is not None:
            fx["global_step"] = int(trainer.global_step)
            fx["current_epoch"] = int(trainer.current_epoch)
            fx["stage"] = _stage(trainer)
            fx.update(_logged(self.metrics_of(trainer)))
        if self.optimizers:
            fx["trainable"] = [i for i, opt in enumerate(self.optimizers) if _required(opt) == self._requires[i]]
            if self.tags is None:  # of data that formulas know
                fx["gradients"] = [_sum_of_gradients(opt) for opt in self.optimizers]
            fx["lr"] = [finite(float(group["lr"])) for opt in self.optimizers for group in opt.param_groups]
        return fx

    def _changes(self, parameters: List[torch.Tensor]) -> int:
        """How often the parameters changed so far."""
        now = [p.detach() for p in parameters]
        if len(now) != len(self._params):
            self._params = [p.clone() for p in now]
        elif not all(_same(a, b) for a, b in zip(now, self._params)):
            self._params = [p.clone() for p in now]
            self._version += 1
        return self._version


def _same(a: torch.Tensor, b: torch.Tensor) -> bool:
    """Whether the values are those they were; what has become NaN stays NaN."""
    return torch.equal(a, b) or (a.shape == b.shape and bool(((a == b) | ((a != a) & (b != b))).all()))


def _logged(metrics: Mapping[str, Any]) -> Dict[str, Any]:
    """The names of the values logged so far, sorted, the values in that order, as far as 32-bit floats have them, and
    whether one of them can be differentiated."""
    names = sorted(metrics)
    if not names:
        return {"metrics": names}
    graph = any(getattr(metrics[name], "requires_grad", False) for name in names)
    return {"metrics": names, "values": [rounded(metrics[name]) for name in names], "metrics_graph": graph}


def rounded(value: Any) -> Any:
    """The number, as far as 32-bit floats have it."""
    return finite(float("%.6g" % float(value)))


def _gradients(parameters: List[torch.Tensor]) -> str:
    present = [p.grad for p in parameters if p.grad is not None]
    if not present:
        return "none"
    return "set" if any(bool(gradient.any()) for gradient in present) else "zero"


def _sum_of_gradients(optimizer: Any) -> Any:
    """Over all entries of its parameters', as far as 32-bit floats have it."""
    found = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
    return rounded(sum(float(gradient.detach().double().sum()) for gradient in found))


def _required(optimizer: Any) -> List[bool]:
    """For which of the optimizer's parameters gradients would be computed."""
    return [p.requires_grad for group in optimizer.param_groups for p in group["params"]]


def weights_in(folders: Iterable[str]) -> List[float]:
    """Of each checkpoint in the folders, the sum of the squares of its layers' parameters; sorted."""
    files = [os.path.join(folder, name) for folder in folders if os.path.isdir(folder) for name in os.listdir(folder)]
    return sorted(weights_of(torch.load(file, **EVERYTHING)["state_dict"]) for file in files)


def weights_of(state: Mapping[str, Any]) -> Any:
    """The sum of the squares of the layers' parameters."""
    return rounded(sum(float((state[name].double() ** 2).sum()) for name in state if "layers" in name))


def next_random() -> float:
    """The number that torch will draw next; it is left to be drawn."""
    generator = torch.Generator()
    generator.set_state(torch.get_rng_state())
    return float(torch.rand((), generator=generator))


def autocasts(module: Any) -> bool:
    """Whether operations on the module's device run in a lower precision."""
    device = next((p.device.type for p in module.parameters()), "cpu")
    try:
        return torch.is_autocast_enabled(device)
    except TypeError:  # before torch 2.4
        return torch.is_autocast_cpu_enabled() if device == "cpu" else torch.is_autocast_enabled()


def _stage(trainer: Any) -> Optional[str]:
    """What the trainer's flags say, as a hook would ask them."""
    for flag in ("sanity_checking", "training", "validating", "testing", "predicting"):
        if getattr(trainer, flag, False):
            return flag
    return None
