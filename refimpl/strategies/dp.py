"""DP: each batch is split over the devices of one process; `*_step_end` is given the outputs of its parts.

    batches = split_batch(batch); outs = [step(sub_batch) for sub_batch in batches]; out = step_end(outs)

The parts run one after the other, in one thread, so that `self.log` knows its hook and random numbers come in one
order; on GPUs the work of one is still under way when the next begins. ("Training with DataParallel", [R12])
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from copy import copy
from dataclasses import fields, is_dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from ..devices import STEPS, Devices
from ..dispatch import fitted, named
from ..errors import ConfigurationError, shown
from ..loaders.batches import move, rebuilt
from ..loggers.rules import is_metric
from ..module import LightningModule
from ..progress import Progress
from ..trainer.options import Options

__all__ = ["DataParallel", "Parts", "merged", "split"]

_TRANSFER = ("on_before_batch_transfer", "transfer_batch_to_device", "on_after_batch_transfer")


class Parts(list[Any]):
    """What a step returned for each part of a batch, in their order: a list, which can also be asked as the
    documentation's examples ask: `parts[i]["pred"]`, `parts["pred"][i]`; `parts.pred`, and `parts.out` of bare
    tensors, for the values of the whole batch; and where torch expects a tensor it is that of the whole batch."""

    def __init__(self, outputs: Iterable[Any], sizes: Sequence[int] | None = None) -> None:
        super().__init__(outputs)
        self._sizes = [1] * len(self) if sizes is None else sizes  # samples in each part

    def __getitem__(self, key: Any) -> Any:
        if isinstance(key, slice) or hasattr(key, "__index__"):
            return super().__getitem__(key)
        if not all(isinstance(output, Mapping) and key in output for output in self):
            raise KeyError(f"{key!r} is not in each part of the batch; they are {shown(list(self))}")
        return Parts((output[key] for output in self), self._sizes)

    def __getattr__(self, name: str) -> Any:
        if name[0] == "_":  # nothing of an output: Python looks for its protocols
            raise AttributeError(name)
        if self and all(isinstance(output, Tensor) for output in self):
            return self._whole() if name == "out" else getattr(self._whole(), name)
        found = [o[name] if isinstance(o, Mapping) and name in o else getattr(o, name, self) for o in self]
        if not found or any(value is self for value in found):
            raise AttributeError(f"{name!r} is not in each part of the batch; they are {shown(list(self))}")
        values = Parts(found, self._sizes)
        return values._whole() if all(isinstance(value, Tensor) for value in values) else values

    def _whole(self) -> Tensor:
        """The tensor of the whole batch: the parts' one after the other, or the scalars of each in shape (parts,)."""
        tensors = [tensor.to(self[0].device) for tensor in self]
        return torch.cat(tensors) if tensors[0].ndim else torch.stack(tensors)

    @classmethod
    def __torch_function__(cls, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        def whole(value: Any) -> Any:
            return value._whole() if isinstance(value, Parts) else value

        return function(*map(whole, args), **{name: whole(value) for name, value in (kwargs or {}).items()})


def split(batch: Any, parts: int) -> list[tuple[Any, int]]:
    """The batch cut along dimension 0 into at most so many parts, as `torch.chunk` cuts, each with its samples.

    Tensors are cut at any depth of mappings, lists, tuples and dataclasses, and so are lists of other values, one for
    each sample, and objects of the user's that can be sliced; tensors of shape () and any other value are in each part.
    Raises ConfigurationError for tensors of different sizes, and for objects that cannot be cut.
    """
    # The tensors say how many samples there are; where there is none, the first list.
    samples = min(_rows(batch), key=lambda found: found[0], default=(False, 1))[1]
    size = -(-samples // parts) or 1
    starts = range(0, samples or 1, size)
    return [(_cut(batch, slice(start, start + size), samples), min(size, samples - start)) for start in starts]


def _rows(value: Any) -> Iterator[tuple[bool, int]]:
    """The rows of everything that can be cut: whether it is a list of plain values, and how many."""
    if isinstance(value, Tensor):
        if value.ndim:
            yield False, len(value)
    elif _is_plain_list(value):
        yield True, len(value)
    elif (items := _items(value)) is not None:
        for item in items.values():
            yield from _rows(item)
    elif _moves(value) and hasattr(type(value), "__len__"):
        yield False, len(value)


def _cut(value: Any, rows: slice, samples: int) -> Any:
    if isinstance(value, Tensor):
        if value.ndim and len(value) != samples:
            raise ConfigurationError(
                f"strategy='dp' splits the batch's {samples} samples along dimension 0, but it holds a tensor of shape "
                f"{tuple(value.shape)}, too; give it that many rows, or keep it in the module"
            )
        return value[rows] if value.ndim else value
    if _is_plain_list(value):
        return value[rows] if len(value) == samples else value
    if (items := _items(value)) is not None:
        cut = {name: _cut(item, rows, samples) for name, item in items.items()}
        if isinstance(value, Mapping):
            return rebuilt(value, cut)
        if isinstance(value, (list, tuple)):
            return type(value)(*cut.values()) if hasattr(value, "_fields") else type(value)(cut.values())
        made = copy(value)
        vars(made).update(cut)
        return made
    if _moves(value):
        try:
            return value[rows]
        except Exception as problem:
            raise ConfigurationError(
                f"strategy='dp' cannot split {type(value).__name__}: {problem!r}; give it __len__, for the samples in "
                "it, and a __getitem__ that takes slices of them, or make it a dataclass"
            ) from None
    return value


def _items(value: Any) -> Mapping[Any, Any] | None:
    """What a container holds; None for anything else."""
    if isinstance(value, Mapping):
        return value
    if isinstance(value, (list, tuple)):
        return dict(enumerate(value))
    if is_dataclass(value) or type(value).__module__.startswith("torchtext."):
        names = [field.name for field in fields(value)] if is_dataclass(value) else value.fields
        return {name: getattr(value, name) for name in names}
    return None


def _is_plain_list(value: Any) -> bool:
    """Whether it is a list of values that hold nothing themselves, such as names or numbers."""
    return isinstance(value, (list, tuple)) and not hasattr(value, "_fields") and not any(
        isinstance(item, Tensor) or _items(item) is not None or _moves(item) for item in value
    )


def _moves(value: Any) -> bool:
    """Whether an object of the user's holds tensors: it can be moved."""
    return callable(getattr(type(value), "to", None))


def merged(output: Any) -> Any:
    """An output with what is the whole batch's in the place of each `Parts`: tensors one after the other; of scalars of
    floating point the mean, weighted by samples; None if all are; and anything else a list with one of each part.
    Hidden states stay as they are: each part goes on with its own."""
    if not isinstance(output, Parts):
        is_dict = type(output) is dict
        return {key: item if key == "hiddens" else merged(item) for key, item in output.items()} if is_dict else output
    first, sizes = output[0], output._sizes
    kinds = {type(part) for part in output}
    if len(kinds) > 1:
        return list(output)
    if isinstance(first, Mapping) and all(part.keys() == first.keys() for part in output):
        return merged(rebuilt(first, {key: output[key] for key in first}))
    if isinstance(first, tuple) and all(len(part) == len(first) for part in output):
        items = [merged(Parts(column, sizes)) for column in zip(*output)]
        return type(first)(*items) if hasattr(first, "_fields") else tuple(items)
    if isinstance(first, Tensor):
        whole = output._whole()
        if first.ndim or not first.is_floating_point():
            return whole
        return (whole * whole.new_tensor(sizes)).sum() / max(1, sum(sizes))
    return None if first is None else list(output)


class DataParallel(Devices):
    """Several devices of this process, which share each batch: GPUs, or parts of the CPU that stand for devices."""

    def __init__(self, devices: Sequence[torch.device], options: Options) -> None:
        super().__init__(devices[0], options)
        self.devices, self.num_devices = list(devices), len(devices)

    def adapt(self, hooks: dict[str, Any], module: LightningModule, progress: Progress) -> None:
        """Each step runs on the parts of its batch, and where nobody defines its `*_step_end`, they are merged.

        Raises ConfigurationError for what the documentation says does not go with DP.
        """
        for hook in _TRANSFER:
            if hooks[hook] not in (None, move):
                raise ConfigurationError(
                    f"{hook} runs on a single device and with DDP only, not with strategy='dp', which moves the parts "
                    "of a batch itself; change them in the steps"
                )
        if not module.automatic_optimization:
            raise ConfigurationError(
                f"{type(module).__name__} has automatic_optimization = False, which strategy='dp' cannot have: "
                "its training_step runs on each part of a batch"
            )
        for step in STEPS:
            if not hooks[step]:
                continue
            hooks[step] = named(partial(self._over_parts, step, module, progress), step)
            if step == "predict_step":  # which has no hook that would merge its parts
                hooks[step] = _then(hooks[step], merged)
            else:
                end = hooks[f"{step}_end"]
                hooks[f"{step}_end"] = _then(end, merged) if end else merged

    def _over_parts(self, step: str, module: LightningModule, progress: Progress, batch: Any, *args: Any) -> Parts:
        whole, parts, outputs = progress.batch, split(batch, len(self.devices)), []
        for index, replica in enumerate(replicas(module, self.devices[: len(parts)])):
            part, device = parts[index][0], self.devices[index]
            run = self.in_precision(fitted(getattr(replica, step), step, LightningModule))
            given = [arg[index] if isinstance(arg, Parts) else arg for arg in args]
            progress.take_part(part, index)
            outputs.append(run(move(part, device), *given))
        progress.take_part(whole, None)
        if step == "training_step" and any(output is None for output in outputs):
            raise ConfigurationError("training_step returned None, which several devices do not support")
        return Parts(outputs, [rows for _, rows in parts])


def _then(call: Callable[..., Any], change: Callable[[Any], Any]) -> Callable[..., Any]:
    return lambda *args: change(call(*args))


def replicas(module: LightningModule, devices: Sequence[torch.device]) -> list[LightningModule]:
    """The module once for each device: copies that share its parameters, and on the first its buffers, so that what a
    step sets on `self` is gone after it. Metrics are the module's own: they keep account of all parts."""
    if len(set(devices)) == 1:
        return [_replica(module, keeps_buffers=not index) for index in range(len(devices))]
    copies = nn.parallel.replicate(module, devices, detach=not torch.is_grad_enabled())
    for name in [name for name, part in module.named_modules() if is_metric(part, or_several=True)]:
        owner, _, attribute = name.rpartition(".")
        for replica in copies:
            replica.get_submodule(owner)._modules[attribute] = module.get_submodule(name)
    return copies


def _replica(module: nn.Module, keeps_buffers: bool) -> Any:
    own = [part for part in module.modules() if not _is_shared(part)]
    copies: dict[int, Any] = {id(part): part._replicate_for_data_parallel() for part in own}  # type: ignore[no-untyped-call]
    for part in own:
        made = copies[id(part)]
        made._parameters = dict(part._parameters)
        made._modules = {name: copies.get(id(child), child) for name, child in part._modules.items()}
        if not keeps_buffers:
            made._buffers = {name: None if buffer is None else buffer.clone() for name, buffer in part._buffers.items()}
    return copies[id(module)]


def _is_shared(part: nn.Module) -> bool:
    """Whether it cannot be copied, being compiled, or must not be, since it counts."""
    compiled = isinstance(part, torch.jit.ScriptModule) or "_orig_mod" in part._modules
    return compiled or is_metric(part, or_several=True)
