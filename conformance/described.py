"""What a trace says of what a hook is given: which batch it is, and which rows of it; the form of outputs.

Runs in the trainer's own world, as the recorder does: the standard library and torch, Python 3.8 and up.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import torch

__all__ = [
    "IDENTITY_COLUMN", "IDENTITY_SCALE", "STAGES", "Tags", "combined", "describe", "described_arguments",
    "described_hiddens", "described_indices", "described_outputs", "described_parts", "described_values", "finite",
    "handled", "identify", "identify_part", "identify_samples", "row_of", "said", "tensors",
]  # fmt: skip

IDENTITY_COLUMN, IDENTITY_SCALE = 3, 2**24
STAGES = ("train", "val", "test", "predict")


def identify(batch: Any) -> str | None:
    """Which batch this is, "train/0/3": read from the column of x that says so. None for data that no
    scenario made, and where y, the last of a batch's tensors, is not the y that belongs to this x."""
    found = list(tensors(batch))
    name, index = _marked(found)
    return None if len(found) > 1 and row_of(float(found[-1].flatten()[0]), index) != 0 else name


def identify_part(batch: Any) -> tuple[str | None, list[int]]:
    """Which batch this is or is a part of, and which of its rows it holds, told by y; None and no rows likewise."""
    found = list(tensors(batch))
    name, index = _marked(found)
    if name is None or not found[-1].ndim or len(found[-1]) != len(found[0]):
        return None, []
    targets = found[-1].reshape(len(found[-1]), -1)[:, 0].tolist()
    rows = [row for row in (row_of(target, index) for target in targets) if row is not None]
    return (name, rows) if len(rows) == len(targets) else (None, [])


def identify_samples(batch: Any, nesting: int = 0) -> tuple[str | None, list[str]]:
    """Which batch the first row is of, and of each row which it is: "2/0", the number of its batch and its own; None
    and no rows likewise. Where training loaders lie in so many lists or dicts, those of each, one after the other, with
    the loader's number in front: "1/2/0"."""
    found = list(tensors(batch))
    pairs = list(zip(found[::2], found[1::2])) if nesting else [(found[0], found[-1])] if found else []
    if not pairs or any(x.ndim != 2 or len(x) != len(y) for x, y in pairs):
        return None, []
    rows = [identify_part((x[None], y[None])) for xs, ys in pairs for x, y in zip(xs, ys)]
    if any(name is None for name, _ in rows):
        return None, []
    of_which = 1 if nesting else 2  # of "train/1/2"
    return rows[0][0], ["/".join([*str(name).split("/")[of_which:], str(row)]) for name, (row,) in rows]


def _marked(found: list[torch.Tensor]) -> tuple[str | None, int]:
    """The name and the number of the batch that has these tensors, by the mark in its first row."""
    x = found[0] if found else None
    if x is None or x.ndim < 2 or x.shape[-1] <= IDENTITY_COLUMN or not x.numel():
        return None, 0
    mark = float(x.flatten(0, -2)[0, IDENTITY_COLUMN]) * IDENTITY_SCALE
    if not 0 <= mark < len(STAGES) << 19:
        return None, 0
    code = round(mark)
    return "%s/%d/%d" % (STAGES[code >> 19], (code >> 16) & 7, code & 0xFFFF), code & 0xFFFF


def row_of(target: float, index: int) -> int | None:
    """Which of the first seven rows of the batch of that number has this y; None if no row has it."""
    return next((row for row in range(7) if ((3 * index + 5 * row) % 7 - 3) / 4 + 1 == target), None)


def combined(batch: Any, one: Callable[[Any], str | None], nesting: int) -> str | None:
    """Which batch this is, as `one` says it; or, where it holds training batches of several loaders, which those are
    and in what they lie: "[train/0/3,train/1/0]", with a nesting of 2 "{a:[train/0/3],b:[train/1/0,train/2/1]}"."""
    if nesting == 0 or not isinstance(batch, (list, tuple, Mapping)):
        return one(batch)
    parts = [combined(item, one, nesting - 1) or "" for item in _items(batch)]
    if not parts or not all("train/" in part for part in parts):
        return one(batch)
    if isinstance(batch, Mapping):
        return "{%s}" % ",".join("%s:%s" % pair for pair in zip(batch, parts))
    return "[%s]" % ",".join(parts)


def _items(batch: Any) -> Iterable[Any]:
    """What a batch of any form is made of: its values, items or attributes."""
    if isinstance(batch, Mapping):
        return list(batch.values())
    if isinstance(batch, (list, tuple)):
        return batch
    return list(vars(batch).values()) if hasattr(batch, "__dict__") else []


def tensors(batch: Any) -> Iterator[torch.Tensor]:
    """The tensors in a batch of any form."""
    if isinstance(batch, torch.Tensor):
        yield batch
    else:
        for item in _items(batch):
            yield from tensors(item)


def handled(batch: Any) -> dict[str, bool]:
    """What the scenario's own types in a batch say was done to it; {} where it holds none."""
    if isinstance(batch, torch.Tensor):
        return {}
    marks = getattr(batch, "handled", None)
    if isinstance(marks, dict):
        return marks
    found: dict[str, bool] = {}
    for item in _items(batch):
        found.update((mark, done and found.get(mark, True)) for mark, done in handled(item).items())
    return found


def describe(value: Any) -> str:
    """The form of an `outputs` argument: "none", "tensor", "dict", "list:3", "lists:2,3"."""
    if value is None:
        return "none"
    if isinstance(value, torch.Tensor):
        return "tensor"
    if isinstance(value, Mapping):
        return "dict"
    if isinstance(value, (list, tuple)):
        if value and all(isinstance(item, (list, tuple)) for item in value):
            return "lists:" + ",".join(str(len(item)) for item in value)
        return "list:%d" % len(value)
    return type(value).__name__


def described_outputs(value: Any) -> dict[str, Any]:
    """What the dicts in outputs hold, in all of them alike, and whether a graph hangs on to any of their tensors."""
    dicts = list(_dicts(value))
    keys = set.intersection(*(set(map(str, each)) for each in dicts)) if dicts else set()
    return {"outputs_keys": sorted(keys), "outputs_graph": any(tensor.requires_grad for tensor in tensors(value))}


def described_values(value: Any) -> list[Any]:
    """Which outputs they are, in order: of each tensor the mean, of each dict that of its "loss", and numbers."""
    if isinstance(value, Mapping):
        return described_values(value.get("loss"))
    if isinstance(value, (int, float)):
        return [finite(float(value))]
    if isinstance(value, torch.Tensor):
        is_plain = value.layout is torch.strided and not value.is_complex() and not value.is_quantized
        return [finite(float(value.detach().float().mean()))] if is_plain else []
    return [one for item in value for one in described_values(item)] if isinstance(value, (list, tuple)) else []


def _dicts(value: Any) -> Iterator[Mapping[Any, Any]]:
    if isinstance(value, Mapping):
        yield value
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _dicts(item)


def described_arguments(given: Any) -> list[str]:
    """Names and values, "arg1=1", of a dict or what is like one, sorted."""
    return sorted("%s=%s" % item for item in (given if isinstance(given, Mapping) else vars(given)).items())


def described_indices(value: Any) -> Any:
    """The places in the data set of a batch's samples, and of all batches the loader's number with those of each,
    "0/4,5"; None where nobody knows them."""
    if value is None or not any(isinstance(each, (list, tuple)) for each in value):
        return value if value is None else [int(index) for index in value]
    return ["%d/%s" % (loader, batch if batch is None else ",".join(map(str, batch)))
            for loader, batches in enumerate(value) for batch in batches]  # fmt: skip


def described_hiddens(value: Any) -> Any:
    """Which piece of a batch hidden states come from, by the count that the scenario's model keeps in them:
    none yet, or "detached:1", or "attached:1" if gradients would flow through them."""
    if not isinstance(value, torch.Tensor):
        return describe(value)
    count = value.detach().flatten()[0]
    return "%s:%d" % ("attached" if value.requires_grad else "detached", round(float(count)))


def described_parts(parts: Any) -> dict[str, Any]:
    """What a `*_step_end` is given of the parts of a batch: their forms, and their losses, asked for in each of the
    documentation's ways; a way that fails says how. {} for what is not in parts."""
    if not isinstance(parts, (list, tuple)):
        return {}
    asked: Any = parts
    forms = [describe(part) for part in parts]
    if not parts or set(forms) not in ({"dict"}, {"tensor"}):
        return {"parts": forms}
    places, named = range(len(parts)), forms[0] == "dict"
    ways: dict[str, Callable[[], Iterable[Any]]] = {
        "losses": lambda: [part["loss"] if named else part for part in asked],
        "by_index": lambda: [asked[i]["loss"] if named else asked[i] for i in places],
        "by_attribute": lambda: getattr(asked, "loss" if named else "out"),
    }
    if named:
        ways["by_key"] = lambda: [asked["loss"][i] for i in places]
    return {"parts": forms, **{way: _losses(ask) for way, ask in ways.items()}}


def _losses(ask: Callable[[], Iterable[Any]]) -> Any:
    try:
        return [finite(float(loss.detach())) for loss in ask()]
    except Exception as error:
        return said(error)


class Tags:
    """Identities for batches of a program's own data: remembered as the loaders hand them out.

    A batch is known by its first tensor, which stays the same object while it stays on its device.
    """

    def __init__(self) -> None:
        self._recent: dict[int, tuple[torch.Tensor, str]] = {}

    def loaders(self, provided: Any, stage: str) -> Any:
        """The loader, or the loaders in their structure, of a stage, tagging what they yield."""
        numbers = itertools.count()

        def tagged(provided: Any) -> Any:
            if isinstance(provided, Mapping):
                return {key: tagged(inner) for key, inner in provided.items()}
            if isinstance(provided, (list, tuple)):
                return [tagged(inner) for inner in provided]
            return _TaggedLoader(self, provided, "%s/%d" % (stage, next(numbers)))

        return tagged(provided)

    def remember(self, batch: Any, tag: str) -> None:
        """`batch` is known as `tag` while it is among the last few."""
        tensor = next(tensors(batch), None)
        if tensor is not None:
            self._recent[id(tensor)] = (tensor, tag)
            while len(self._recent) > 16:
                del self._recent[next(iter(self._recent))]

    def identify(self, batch: Any) -> str | None:
        """The batch's tag; None for one that no loader handed out lately."""
        known = self._recent.get(id(next(tensors(batch), None)))
        return None if known is None else known[1]


class _TaggedLoader:
    """A loader whose batches are remembered."""

    def __init__(self, tags: Tags, loader: Any, name: str) -> None:
        self._tags, self._loader, self._name = tags, loader, name

    def __len__(self) -> int:
        return len(self._loader)

    def __iter__(self) -> Any:
        for index, batch in enumerate(self._loader):
            self._tags.remember(batch, "%s/%d" % (self._name, index))
            yield batch


def said(error: BaseException) -> str:
    """An exception as a trace writes it: its type and its message, at most a screen of it."""
    text = "%s: %s" % (type(error).__name__, error)
    return text[:2000].encode("utf-8", "replace").decode("utf-8")


def finite(value: float) -> Any:
    """The number; or "nan", "inf", "-inf", which JSON has no numbers for."""
    return value if abs(value) < float("inf") else str(value)
