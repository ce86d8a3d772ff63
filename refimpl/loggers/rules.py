"""What may be logged, and where: the documentation's table of hooks, and the values that are taken."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from inspect import getmembers
from operator import attrgetter, index
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import LogError, warn
from ..hooks import ModelHooks
from ..loaders.batches import fields_of

__all__ = [
    "REFUSED", "RULES", "WIDENED", "check_metric", "deprecated", "given_size", "ignore", "is_metric",
    "items_of", "number", "running_hook", "size_of",
]  # fmt: skip


# ---- hooks ---------------------------------------------------------------------------------------------------

_BOTH_STEP = (True, False, True)  # on_step, on_epoch by default; may on_step be True?
_BOTH_EPOCH = (False, True, True)
_EPOCH_ONLY = (False, True, False)

# The documentation's table of defaults by hook. A hook that is not listed may not log.
RULES: dict[str, tuple[bool, bool, bool]] = {
    **dict.fromkeys((
        "training_step training_step_end on_before_zero_grad on_before_backward backward on_after_backward "
        "on_before_optimizer_step on_train_batch_start on_train_batch_end").split(), _BOTH_STEP),
    "track_grad_norm": _BOTH_STEP,  # no hook: the engine's own function that logs for the option of this name
    **dict.fromkeys((
        "validation_step validation_step_end test_step test_step_end on_validation_batch_start "
        "on_validation_batch_end on_test_batch_start on_test_batch_end").split(), _BOTH_EPOCH),
    **dict.fromkeys((
        "on_train_start on_validation_start on_test_start on_epoch_start on_epoch_end on_train_epoch_start "
        "on_train_epoch_end on_validation_epoch_start on_validation_epoch_end on_test_epoch_start "
        "on_test_epoch_end training_epoch_end validation_epoch_end test_epoch_end").split(), _EPOCH_ONLY),
}  # fmt: skip

# Hooks that may not log, named so that the error can name them.
_KNOWN = {name for name, hook in getmembers(ModelHooks, callable) if name[0] != "_"}.union(
    RULES,
    "configure_callbacks configure_optimizers tbptt_split_batch optimizer_step optimizer_zero_grad on_exception "
    "configure_gradient_clipping predict_step on_sanity_check_start on_sanity_check_end".split(),
)
REFUSED = _KNOWN.difference(RULES)
_LOOPS = f"{__name__.partition('.')[0]}.loops"


def running_hook() -> str | None:
    """The hook that called `log`: on the stack, the one nearest to the loop that called it; None outside of a loop.

    The loops could say which hook runs, but a loop calls a hook directly, and saying so would cost a call or a line for
    each of the dozen hooks of a batch, in every run; looking costs the two or three frames between a hook that logs
    and its loop. `dispatch.named` gives a frame of the hook's name to what has another. A thread has a stack of its
    own: log from the hook that starts it.
    """
    frame = sys._getframe(3)  # skip this function, Logbook.log and LightningModule.log
    hook, loops = None, vars(sys.modules[_LOOPS])
    while frame is not None and frame.f_globals is not loops:
        if frame.f_code.co_name in _KNOWN:
            hook = frame.f_code.co_name
        frame = frame.f_back  # type: ignore[assignment]
    return hook if frame is not None else None


def ignore(name: str) -> None:
    """No run is going on: a module can be used by hand, and what it logs then goes nowhere."""
    warn(f"self.log({name!r}) is ignored: no trainer is running this module")


def deprecated(**given: Any) -> None:
    """Arguments that the documentation lists without a meaning: nothing is done with them."""
    names = ", ".join(f"{name}={value!r}" for name, value in given.items() if value is not None)
    warn(f"self.log({names}) is deprecated and does nothing; see reduce_fx", DeprecationWarning)


# ---- values --------------------------------------------------------------------------------------------------

# Types too narrow to be summed up in, and those that are used instead.
WIDENED = {
    **dict.fromkeys((torch.float16, torch.bfloat16), torch.float32),
    **dict.fromkeys((torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32), torch.int64),
}


def items_of(value: Any) -> Mapping[str, Any] | None:
    """The items of a mapping, or of a torchmetrics.MetricCollection; None for anything else."""
    if isinstance(value, Mapping):
        return value
    torchmetrics = sys.modules.get("torchmetrics")
    if torchmetrics is None or not isinstance(value, torchmetrics.MetricCollection):
        return None
    # Members that share a state have it with the first of them: hand out references, rather than copies.
    return dict(value.items(keep_base=False, copy_state=False))


def is_metric(value: Any, or_several: bool = False) -> bool:
    """Whether it is a torchmetrics.Metric, or else a collection of them; that package is there if somebody made one."""
    torchmetrics = sys.modules.get("torchmetrics")
    if torchmetrics is None:
        return False
    return isinstance(value, (torchmetrics.Metric, torchmetrics.MetricCollection)[: 1 + or_several])


def check_metric(name: str, metric: Any, module: nn.Module, attribute: str | None) -> None:
    """A metric has to be an attribute of the module: that moves it to the device and keeps its state."""
    problem = f"log({name!r}, {type(metric).__name__}, metric_attribute={attribute!r})"
    if attribute is None:
        if not any(metric is part for part in module.modules()):
            raise LogError(f"{problem}: no attribute of {type(module).__name__} is this metric; assign it in __init__")
        return
    try:
        found = attrgetter(attribute)(module)
    except AttributeError as error:
        raise LogError(f"{problem}: {error}") from None
    if found is not metric:
        raise LogError(f"{problem}: that attribute is another object; the name of this metric's is accepted")


def number(name: str, value: Any) -> float:
    try:
        if not isinstance(value, (str, bytes)):
            return float(value)
    except (TypeError, ValueError, OverflowError):
        pass
    raise LogError(f"log({name!r}): {type(value).__name__} {value!r}; a number or a scalar tensor is accepted")


def given_size(name: str, size: Any) -> int:
    try:
        if index(size) >= 0:
            return index(size)
    except TypeError:
        pass
    raise LogError(f"log({name!r}, batch_size={size!r}): an int from 0 is accepted")


def size_of(batch: Any) -> int:
    """The first dimension of the first tensor in the batch; 1 where there is none."""
    tensor = batch if batch.__class__ is Tensor else next(_tensors(batch), None)
    return tensor.shape[0] if tensor is not None and tensor.ndim else 1


def _tensors(batch: Any) -> Iterator[Tensor]:
    """The tensors in a batch of any nesting, in order."""
    if isinstance(batch, Tensor):
        yield batch
    elif isinstance(batch, Mapping):
        for value in batch.values():
            yield from _tensors(value)
    elif isinstance(batch, Sequence) and not isinstance(batch, (str, bytes)):
        for item in batch:
            yield from _tensors(item)
    else:
        for name in fields_of(batch):
            yield from _tensors(getattr(batch, name))
