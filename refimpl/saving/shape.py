"""What a value out of a file has to look like: shapes as data, one checker, and an error that names the place.

A shape is
- a `Value`: a test, and what it accepts in words;
- `{"epoch": COUNT, optional("gradients"): ...}`: a mapping of just these keys; with `...: ANY`, of others, too;
- `{TEXT: COUNT}`: a mapping of any such keys;
- `[COUNT]`: a list of any length, `[COUNT, ...]`: of at least one;
- `(TEXT, COUNT)`: a tuple or list of just these;
- `Either(NOTHING, COUNT)`: one of several shapes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

from torch import Tensor

from ..errors import CheckpointError, did_you_mean

__all__ = [
    "ANY", "COUNT", "FLAG", "NOTHING", "NUMBER", "SCALAR", "SIZE", "TENSOR", "TEXT", "Either", "Value", "check",
    "fitting", "like", "maybe", "one_of", "optional",
]  # fmt: skip

Shape = Any
Path = tuple[Any, ...]


class Value(NamedTuple):
    """One value."""

    accepted: str
    accepts: Callable[[Any], bool]


class Either:
    """One of several shapes."""

    def __init__(self, *shapes: Shape) -> None:
        self.shapes = shapes


class optional(str):
    """A key that may be missing."""


def maybe(shape: Shape) -> Either:
    """None, or of that shape."""
    return Either(NOTHING, shape)


def one_of(*values: Any) -> Value:
    """Just one of these."""
    accepted = " or ".join(map(repr, values)) if len(values) < 9 else f"one of {list(values)}"
    return Value(accepted, lambda value: any(type(value) is type(each) and value == each for each in values))


ANY = Value("anything", lambda value: True)
NOTHING = one_of(None)
FLAG = one_of(True, False)
COUNT = Value("an int from 0", lambda value: type(value) is int and value >= 0)
NUMBER = Value("a number", lambda value: type(value) in (int, float))
SIZE = Value("a number from 0", lambda value: type(value) in (int, float) and value >= 0)
ABOVE = Value("a number above 0", lambda value: type(value) in (int, float) and value > 0)
TEXT = Value("a str", lambda value: isinstance(value, str))
TENSOR = Value("a tensor", lambda value: isinstance(value, Tensor))
SCALAR = Value("a tensor of one element", lambda value: isinstance(value, Tensor) and value.numel() == 1)


def like(known: Any, fixed: bool = False) -> Shape:
    """The shape of what may take the place of a value that is known: of the same type throughout, with int and float
    taken for one, but not below 0 in the place of a count. None may become anything; a list that is not empty does not
    become so; a mapping may get more keys, and lack those that begin with "_". What is `fixed` has lists of the same
    length, and a count that is not 0 does not become so."""
    if known is None:
        return ANY
    if isinstance(known, Mapping):
        if not all(isinstance(key, str) for key in known):
            return {ANY: ANY}
        counts = {key for key, value in known.items() if fixed and type(value) is int and value > 0}
        shapes = {key: ABOVE if key in counts else like(value, fixed) for key, value in known.items()}
        return {**{optional(key) if key[:1] == "_" else key: shape for key, shape in shapes.items()}, ...: ANY}
    if isinstance(known, list) and not fixed:
        return [like(known[0]), ...] if known else [ANY]
    if isinstance(known, (list, tuple)):
        return tuple(like(value, fixed) for value in known)
    if isinstance(known, Tensor):
        size = known.shape
        return Value(f"a tensor of shape {tuple(size)}", lambda value: TENSOR.accepts(value) and value.shape == size)
    if type(known) in (int, float):
        return SIZE if type(known) is int and known >= 0 else NUMBER
    return Value(f"a {type(known).__name__}", lambda value: type(value) is type(known))


# ---- the checker -----------------------------------------------------------------------------------------


class Fault(NamedTuple):
    """Where something is wrong, what, and what is accepted there."""

    path: Path
    problem: str
    accepted: Any


def check(value: Any, shape: Shape, where: str = "") -> None:
    """Raises CheckpointError for the first place in `value` that is not as `shape` says: `where`, the keys and indices
    that lead there, what is there, and what is accepted."""
    for path, problem, accepted in _faults(value, shape, ()):
        steps = (f".{key}" if isinstance(key, str) and key.isidentifier() else f"[{key!r}]" for key in path)
        place = "".join(steps).removeprefix(".") or "it"
        raise CheckpointError(f"{where and where + ': '}{place} {problem}; accepted is {accepted}")


def _faults(value: Any, shape: Shape, path: Path) -> list[Fault]:
    if isinstance(shape, Value):
        return [] if shape.accepts(value) else [_other(value, path, shape.accepted)]
    if isinstance(shape, Either):
        return _of_either(value, shape, path)
    if isinstance(shape, dict):
        return [*_of_mapping(value, shape, path)] if isinstance(value, Mapping) else [_other(value, path, "a mapping")]
    fits = isinstance(value, (list, type(shape)))
    return [*_of_list(value, shape, path)] if fits else [_other(value, path, f"a {type(shape).__name__}")]


def _other(value: Any, path: Path, accepted: str) -> Fault:
    return Fault(path, f"is {_shown(value)}", accepted)


def _of_either(value: Any, shape: Either, path: Path) -> list[Fault]:
    """The faults of the alternative that has the least of them; where `value` is none of them at all, one fault."""
    tried = [_faults(value, each, path) for each in shape.shapes]
    if not all(tried):
        return []
    closer = [faults for faults in tried if faults[0].path != path or not faults[0].problem.startswith("is ")]
    accepted = dict.fromkeys(str(faults[0].accepted) for faults in tried)
    return min(closer, key=len) if closer else [_other(value, path, " or ".join(accepted))]


def _of_list(value: Any, shape: Any, path: Path) -> Iterator[Fault]:
    if isinstance(shape, tuple) and len(value) != len(shape):
        yield Fault(path, f"has {len(value)} items", len(shape))
    if isinstance(shape, list) and ... in shape and not value:
        yield Fault(path, "has no item", "one, or more")
    for index, (item, inner) in enumerate(zip(value, shape if isinstance(shape, tuple) else shape[:1] * len(value))):
        yield from _faults(item, inner, (*path, index))


def _of_mapping(value: Mapping[Any, Any], shape: dict[Any, Any], path: Path) -> Iterator[Fault]:
    of_any = next((key for key in shape if isinstance(key, Value)), None)
    known = [name for name in shape if name is not ...]
    for name, item in value.items():
        if of_any is not None:
            yield from () if of_any.accepts(name) else [Fault(path, f"has the key {_shown(name)}", of_any.accepted)]
            yield from _faults(item, shape[of_any], (*path, name))
        elif name in shape:
            yield from _faults(item, shape[name], (*path, name))
        elif ... not in shape:
            yield Fault(path, f"has {name!r}{did_you_mean(name, known)}", known)
    for name in known if of_any is None else ():
        if name not in value and not isinstance(name, optional):
            yield Fault(path, f"lacks {name!r}", f"a mapping with {known}")


def _shown(value: Any) -> str:
    return f"{type(value).__name__} {' '.join(repr(value).split()):.60}"


@contextmanager
def fitting(what: str, owner: str) -> Iterator[None]:
    """Whatever is raised as `owner` is given `what` is a CheckpointError that says so."""
    try:
        yield
    except Exception as error:
        said = error if isinstance(error, CheckpointError) else f"{type(error).__name__}: {error}"
        raise CheckpointError(f"{what} does not fit {owner}: {said}") from error
