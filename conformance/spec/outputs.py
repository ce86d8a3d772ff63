"""What steps return, and the lists of it that hooks are given: their form, as a trace writes it, and their numbers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

__all__ = ["Output", "as_dict", "form_of", "leaves", "nested", "value_of"]


class Output(NamedTuple):
    """What a step has returned: "tensor" or "dict", and the mean of it, or of its loss; None where there is no number,
    or nobody can tell."""

    form: str
    value: float | None = None


def form_of(outputs: Any) -> str:
    """Of an `Output`, of None, or of a list of them or of such lists: "dict", "none", "list:3", "lists:2,3"."""
    if not isinstance(outputs, list):
        return "none" if outputs is None else str(outputs.form)
    if outputs and all(isinstance(each, list) for each in outputs):
        return "lists:" + ",".join(str(len(each)) for each in outputs)
    return f"list:{len(outputs)}"


def as_dict(output: Any) -> Any:
    """One output as a dict; those of several optimizers or parts stay as they are."""
    return output._replace(form="dict") if isinstance(output, Output) else output


def nested(outputs: Mapping[tuple[int, ...], Output], lengths: Sequence[int]) -> Any:
    """Lists in lists, so long, of outputs by their places; without the lists that would all be of one, and what is
    missing."""
    if not lengths:
        return outputs.get(())
    rows = [{place[1:]: out for place, out in outputs.items() if place[0] == index} for index in range(lengths[0])]
    each = [nested(row, lengths[1:]) for row in rows]
    return each[0] if lengths[0] == 1 else [one for one in each if one is not None]


def value_of(output: Any) -> float | None:
    """The number of one output, if it has one."""
    return output.value if isinstance(output, Output) else None


def leaves(outputs: Any) -> Iterator[Output]:
    """The outputs in a list of lists, in order, but for None."""
    for each in outputs if isinstance(outputs, list) else [outputs]:
        if isinstance(each, list):
            yield from leaves(each)
        elif each is not None:
            yield each
