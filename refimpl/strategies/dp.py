"""DP: each batch is split over the devices of one process; `*_step_end` is given the outputs of its parts.

    batches = split_batch(batch); outs = [step(sub_batch) for sub_batch in batches]; out = step_end(outs)

The parts run one after the other, in one thread, so that `self.log` knows its hook and random numbers come in one
order; on GPUs the work of one is still under way when the next begins. ("Training with DataParallel", [R12])
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from numbers import Number
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from ..devices import STEPS, Devices
from ..dispatch import fitted, named
from ..errors import ConfigurationError, shown
from ..loaders.batches import fields_of, move, rebuilt, with_fields
from ..loggers.rules import is_metric
from ..module import LightningModule
from ..progress import Progress
from ..trainer.options import Options

__all__ = ["TRANSFER", "DataParallel", "Parts", "merged", "split"]

TRANSFER = ("on_before_batch_transfer", "transfer_batch_to_device", "on_after_batch_transfer")


class Parts(list[Any]):
    """What a step returned for each part of a batch, in their order: a list, which can also be asked as the
    documentation's examples ask: `parts[i]["pred"]`, `parts["pred"][i]`; `parts.pred`, and `parts.out` of bare
    tensors, for the values of the whole batch. Tensors of parts are computed with as that of the whole batch is."""

    def __init__(self, outputs: Iterable[Any], sizes: Sequence[int] | None = None) -> None:
        super().__init__(outputs)
        self._sizes = [1] * len(self) if sizes is None else sizes  # samples in each part

    def __getitem__(self, key: Any) -> Any:
        if isinstance(key, slice) or hasattr(key, "__index__"):
            try:
                return super().__getitem__(key)
            except IndexError:
                raise IndexError(
                    f"part {key} of a batch that has {len(self)}: a small one makes fewer parts than there are "
                    "devices; take them as they come, or drop_last=True in the DataLoader"
                ) from None
        if isinstance(key, tuple) and self._are_tensors():
            return self._whole()[key]
        if key not in self:
            raise KeyError(f"{key!r} is not in each part of the batch; they are {shown(list(self))}")
        return Parts((output[key] for output in self), self._sizes)

    def __contains__(self, key: Any) -> bool:
        """Whether it is a key in each part."""
        return all(isinstance(output, Mapping) and key in output for output in self)

    def __getattr__(self, name: str) -> Any:
        if name[0] == "_":  # nothing of an output: Python looks for its protocols
            raise AttributeError(name)
        if self._are_tensors():
            return self._whole() if name == "out" else getattr(self._whole(), name)
        if name in self:
            found = self[name]
        elif name in ("keys", "items", "values", "get") and all(isinstance(output, Mapping) for output in self):
            return getattr({key: self[key] for key in self[0]}, name)
        elif all(hasattr(output, name) for output in self):
            found = Parts((getattr(output, name) for output in self), self._sizes)
        else:
            raise AttributeError(f"{name!r} is not in each part of the batch; they are {shown(list(self))}")
        return found._whole() if found._are_tensors() else found

    def _are_tensors(self) -> bool:
        return all(isinstance(output, Tensor) for output in self)

    def _whole(self) -> Tensor:
        """The tensor of the whole batch: the parts' one after the other, or the scalars of each in shape (parts,)."""
        return torch.cat(list(self)) if self[0].ndim else torch.stack(list(self))

    @classmethod
    def __torch_function__(cls, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return function(*map(_as_whole, args), **{name: _as_whole(value) for name, value in (kwargs or {}).items()})


def _as_whole(value: Any) -> Any:
    """An argument of a function of torch, with tensors of the whole batch in it."""
    if isinstance(value, Parts):
        return value._whole()
    return type(value)(map(_as_whole, value)) if type(value) in (list, tuple) else value


def _computing(operator: str) -> Callable[..., Any]:
    def compute(self: Parts, *others: Any) -> Any:
        if self and self._are_tensors():
            return getattr(self._whole(), operator)(*map(_as_whole, others))
        of_lists = getattr(list, operator, None)
        return of_lists(self, *others) if of_lists else NotImplemented

    return compute


for _operator in (
    "add radd sub rsub mul rmul matmul rmatmul truediv rtruediv floordiv mod pow rpow neg abs invert and or "
    "lt le gt ge eq ne"
).split():
    setattr(Parts, f"__{_operator}__", _computing(f"__{_operator}__"))


def split(batch: Any, parts: int) -> list[tuple[Any, int]]:
    """The batch cut along dimension 0 into at most so many parts, as `torch.chunk` cuts, each with its samples.

    Tensors are cut at any depth of mappings, lists, tuples and dataclasses. So are objects of the user's that can be
    sliced, and lists without tensors that have an item for each sample. Anything else, such as tensors of shape () and
    tuples of numbers, is in each part. Raises ConfigurationError for tensors of different sizes, for what cannot be
    cut, and where nothing tells what a sample is.
    """
    samples = _samples(batch)
    size = -(-samples // parts) or 1
    starts = range(0, samples or 1, size)
    return [(_cut(batch, slice(start, start + size), samples), min(size, samples - start)) for start in starts]


def _samples(batch: Any) -> int:
    """The rows of the first tensor that has any; without a tensor, the items of the first list."""
    found = list(_walk(batch))
    rows = [len(each) for each in found if _moves(each) and hasattr(type(each), "__len__") and _ndim(each)]
    if not rows and isinstance(batch, (list, tuple)) and any(_items(item) is not None for item in batch):
        raise ConfigurationError("strategy='dp' cannot tell whether the items of this batch are its samples or their "
                                 "fields, for it has no tensor; return a dict of lists, or tensors")  # fmt: skip
    return (rows or [len(each) for each in found if isinstance(each, (list, tuple))] or [1])[0]


def _ndim(value: Any) -> int:
    return value.ndim if isinstance(value, Tensor) else 1


def _walk(value: Any) -> Iterator[Any]:
    """The value, and everything in it, in order."""
    yield value
    for item in (_items(value) or {}).values():
        yield from _walk(item)


def _cut(value: Any, rows: slice, samples: int) -> Any:
    if isinstance(value, PackedSequence) or getattr(value, "layout", torch.strided) is not torch.strided:
        raise ConfigurationError(f"strategy='dp' cannot split a {type(value).__name__} that is packed or sparse; make "
                                 "it in the step, of a dense tensor")  # fmt: skip
    if isinstance(value, Tensor):
        if value.ndim and len(value) != samples:
            raise ConfigurationError(f"strategy='dp' splits the batch's {samples} samples along dimension 0, but it "
                                     f"holds a tensor of shape {tuple(value.shape)}, too; give it that many rows, or "
                                     "keep it in the module")  # fmt: skip
        return value[rows] if value.ndim else value
    if isinstance(value, (list, tuple)) and not hasattr(value, "_fields") and not any(map(_moves, _walk(value))):
        is_size = isinstance(value, tuple) and all(isinstance(item, Number) for item in value)
        return value if is_size or len(value) != samples else value[rows]
    if (items := _items(value)) is not None:
        cut = {name: _cut(item, rows, samples) for name, item in items.items()}
        if isinstance(value, Mapping):
            return rebuilt(value, cut)
        if isinstance(value, (list, tuple)):
            return type(value)(*cut.values()) if hasattr(value, "_fields") else type(value)(cut.values())
        return with_fields(value, cut)
    if _moves(value):
        try:
            return value[rows]
        except Exception as problem:
            raise ConfigurationError(f"strategy='dp' cannot split {type(value).__name__}: {problem!r}; give it "
                                     "__len__, for the samples in it, and a __getitem__ that takes slices of them, or "
                                     "make it a dataclass") from None  # fmt: skip
    return value


def _items(value: Any) -> Mapping[Any, Any] | None:
    """What a container holds; None for anything else."""
    if isinstance(value, Mapping):
        return value
    if isinstance(value, (list, tuple)):
        return dict(enumerate(value))
    return {name: getattr(value, name) for name in fields_of(value)} or None


def _moves(value: Any) -> bool:
    """Whether it is a tensor, or an object of the user's that holds some: it can be moved."""
    return callable(getattr(type(value), "to", None))


def merged(output: Any) -> Any:
    """An output with what is the whole batch's in the place of each `Parts`: rows and lists one after the other; of
    numbers of floating point the mean, weighted by samples; None if all are; and anything else a list with one of each
    part. Hidden states stay as they are: each part goes on with its own."""
    if isinstance(output, Parts):
        return _joined(output, output[0], output._sizes)
    if isinstance(output, Mapping):
        return rebuilt(output, {key: item if key == "hiddens" else merged(item) for key, item in output.items()})
    return type(output)(map(merged, output)) if type(output) in (list, tuple) else output


def _joined(parts: Parts, first: Any, sizes: Sequence[int]) -> Any:
    if len({(type(part), getattr(part, "shape", (0,))[1:]) for part in parts}) > 1:
        return list(parts)
    if isinstance(first, Mapping) and all(part.keys() == first.keys() for part in parts):
        return merged(rebuilt(first, {key: parts[key] for key in first}))
    if type(first) is list and not any(map(_moves, _walk(first))):
        return [item for part in parts for item in part]
    if isinstance(first, (list, tuple)) and all(len(part) == len(first) for part in parts):
        items = [merged(Parts(column, sizes)) for column in zip(*parts)]
        return type(first)(*items) if hasattr(first, "_fields") else type(first)(items)
    if isinstance(first, np.ndarray) and first.ndim:
        return np.concatenate(parts)
    if isinstance(first, float) or (isinstance(first, Tensor) and not first.ndim and first.is_floating_point()):
        return sum(value * size for value, size in zip(parts, sizes)) / max(1, sum(sizes))
    if isinstance(first, Tensor):
        return parts._whole()
    return None if first is None else list(parts)


class DataParallel(Devices):
    """Several devices of this process, which share each batch: GPUs, or parts of the CPU that stand for devices."""

    def __init__(self, devices: Sequence[torch.device], options: Options) -> None:
        super().__init__(devices[0], options)
        self.devices, self.num_devices = list(devices), len(devices)

    def adapt(self, hooks: dict[str, Any], module: LightningModule, progress: Progress) -> None:
        """Each step runs on the parts of its batch, and where nobody defines its `*_step_end`, they are merged.

        One device runs the step as ever; what it returns is then the only part. Raises ConfigurationError for what the
        documentation says does not go with DP.
        """
        super().adapt(hooks, module, progress)
        if self.num_devices > 1:
            self._check(hooks, module)
        for step in filter(hooks.get, STEPS):
            if self.num_devices > 1:
                hooks[step] = named(partial(self._over_parts, step, module, progress), step)
            else:  # hidden states come as the only part has left them
                hooks[step] = lambda *a, run=hooks[step]: Parts([run(*[x[0] if type(x) is Parts else x for x in a])])
            if step == "predict_step":  # which has no hook that would merge its parts
                hooks[step] = _then(hooks[step], merged)
            else:
                end = hooks[f"{step}_end"]
                hooks[f"{step}_end"] = _then(end, merged) if end else merged

    def _check(self, hooks: dict[str, Any], module: LightningModule) -> None:
        for hook in TRANSFER:
            if hooks[hook] not in (None, move):
                raise ConfigurationError(
                    f"{hook} runs on a single device and with DDP only, not with strategy='dp' or 'ddp2', which move "
                    "the parts of a batch themselves; change them in the steps"
                )
        if not module.automatic_optimization:
            raise ConfigurationError(
                f"{type(module).__name__} has automatic_optimization = False, which strategy='dp' and 'ddp2' cannot "
                "have: its training_step runs on each part of a batch"
            )

    def _over_parts(self, step: str, module: LightningModule, progress: Progress, batch: Any, *args: Any) -> Parts:
        parts, outputs = split(batch, len(self.devices)), []
        samples = sum(rows for _, rows in parts) or 1
        for index, replica in enumerate(replicas(module, self.devices[: len(parts)])):
            part, device = parts[index][0], self.devices[index]
            run = self.in_precision(fitted(getattr(replica, step), step, LightningModule))
            given = [arg[index] if isinstance(arg, Parts) else arg for arg in args]
            progress.take_part((index, parts[index][1] / samples))
            with torch.cuda.device(device if device.type == "cuda" else -1):  # kernels may go by the current one
                outputs.append(run(move(part, device), *given))
        progress.take_part(None)
        if step == "training_step" and any(output is None for output in outputs):
            raise ConfigurationError("training_step returned None, which several devices do not support")
        return Parts((self._here(output) for output in outputs), [rows for _, rows in parts])

    def _here(self, output: Any) -> Any:
        """What a part returned, on the first device, but for hidden states, with which it goes on where it is."""
        if isinstance(output, Mapping) and "hiddens" in output:
            return rebuilt(output, {k: v if k == "hiddens" else move(v, self.device) for k, v in output.items()})
        return move(output, self.device)


def _then(call: Callable[..., Any], change: Callable[[Any], Any]) -> Callable[..., Any]:
    return lambda *args: change(call(*args))


def replicas(module: LightningModule, devices: Sequence[torch.device]) -> list[LightningModule]:
    """The module once for each device: copies that share its parameters, and on the first its buffers, so that what a
    step sets on `self` is gone after it. Metrics are the module's own: they keep account of all parts.

    torch's own `replicate` does the same for GPUs only, and its copies have no `parameters()`.
    """
    return [_replica(module, device, is_first=not index) for index, device in enumerate(devices)]


def _replica(module: nn.Module, device: torch.device, is_first: bool) -> Any:
    own = [part for part in module.modules() if not _is_shared(part)]
    copies: dict[int, Any] = {id(part): part._replicate_for_data_parallel() for part in own}  # type: ignore[no-untyped-call]
    there = {} if is_first else {id(p): p.to(device) for p in module.parameters()}  # gradients come back from there
    for part in own:
        made = copies[id(part)]
        made._parameters = dict(part._parameters)
        made._modules = {name: copies.get(id(child), child) for name, child in part._modules.items()}
        if not is_first:
            made._parameters.update((name, p if p is None else there[id(p)]) for name, p in part._parameters.items())
            made._buffers.update((n, b if b is None else b.to(device, copy=True)) for n, b in part._buffers.items())
        if isinstance(part, nn.RNNBase):  # which keeps a list of them
            made._flat_weights = [made._parameters.get(name) for name in part._flat_weights_names]
    return copies[id(module)]


def _is_shared(part: nn.Module) -> bool:
    """Whether it cannot be copied, being compiled, or must not be, since it counts."""
    compiled = isinstance(part, torch.jit.ScriptModule) or "_orig_mod" in part._modules
    return compiled or is_metric(part, or_several=True)
