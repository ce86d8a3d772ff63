"""Shapes as data: what they accept, and how they name the place that is wrong."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from refimpl import CheckpointError
from refimpl.saving.shape import ANY, COUNT, FLAG, NUMBER, TEXT, Either, check, like, maybe, one_of, optional

KNOWN = {"name": TEXT, "sizes": [COUNT], optional("pair"): (TEXT, maybe(NUMBER))}


@pytest.mark.parametrize("shape, value", [
    (COUNT, 0), (FLAG, False), (NUMBER, -1.5), (maybe(COUNT), None), (maybe(COUNT), 1), (one_of("a", 1), 1),
    (ANY, object()), ([COUNT], []), ([COUNT], [1, 2]), ([COUNT, ...], [1]), ((COUNT, TEXT), (1, "a")),
    ((COUNT, TEXT), [1, "a"]), ((), ()),
    (KNOWN, {"name": "a", "sizes": []}), (KNOWN, {"name": "a", "sizes": [1], "pair": ("b", None)}),
    ({"a": COUNT, ...: ANY}, {"a": 1, "b": object()}), ({TEXT: COUNT}, {"any": 1, "key": 2}), ({COUNT: TEXT}, {}),
    (Either([COUNT], {"a": COUNT}), {"a": 1}),
])  # fmt: skip
def test_what_fits(shape: Any, value: Any) -> None:
    check(value, shape)


@pytest.mark.parametrize("shape, value, told", [
    (COUNT, True, "it is bool True; accepted is an int from 0"),
    (NUMBER, "1", "it is str '1'; accepted is a number"),
    (one_of("a", 1, None), 1.0, "it is float 1.0; accepted is 'a' or 1 or None"),
    (one_of(*range(20)), 20, r"it is int 20; accepted is one of \[0, 1, .*19\]"),
    (maybe(COUNT), -1, "it is int -1; accepted is None or an int from 0"),
    ([COUNT], (1,), r"it is tuple \(1,\); accepted is a list"),
    ([COUNT, ...], [], "it has no item; accepted is one, or more"),
    ([COUNT], [1, None], r"\[1\] is NoneType None"),
    ((COUNT, TEXT), (1,), "it has 1 items; accepted is 2"),
    ((COUNT,), {1}, r"it is set \{1\}; accepted is a tuple"),
    (KNOWN, [], r"it is list \[\]; accepted is a mapping"),
    (KNOWN, {"name": "a"}, r"it lacks 'sizes'; accepted is a mapping with \['name', 'sizes', 'pair'\]"),
    (KNOWN, {"name": "a", "sizs": []}, "it has 'sizs'; did you mean 'sizes'"),
    (KNOWN, {"name": "a", "sizes": [1, "b"]}, r"sizes\[1\] is str 'b'; accepted is an int from 0"),
    ({"a b": {"c": [KNOWN]}}, {"a b": {"c": [{"name": 1}]}}, r"\['a b'\]\.c\[0\]\.name is int 1; accepted is a str"),
    ({TEXT: COUNT}, {1: 1}, "it has the key int 1; accepted is a str"),
    ({TEXT: COUNT}, {"a": None}, "a is NoneType None"),
    (Either([COUNT], {"a": COUNT}), {"a": "b"}, "a is str 'b'; accepted is an int from 0"),
    (Either({"is": one_of(1), "a": TEXT}, {"is": one_of(2), "b": TEXT}), {"is": 2, "b": 3}, "b is int 3; .* a str"),
    (TEXT, torch.zeros(100), r"it is Tensor tensor\(\[0\., .{40,60}; accepted is a str"),
])  # fmt: skip
def test_what_does_not_fit_is_named(shape: Any, value: Any, told: str) -> None:
    with pytest.raises(CheckpointError, match=f"^here: {told}"):
        check(value, shape, "here")


SCALARS = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text())
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.lists(inner), st.tuples(inner, inner), st.dictionaries(st.one_of(st.text(), st.integers()), inner)
    ),
)


@given(VALUES, st.booleans())
def test_a_value_is_like_itself(value: Any, fixed: bool) -> None:
    if fixed or not isinstance(value, list):
        check(value, like(value, fixed=True))


@pytest.mark.parametrize("known, value, fits", [
    (1, 2.5, True), (1, -1, False), (-1, -2, True), (1.5, -3, True), (1, True, False), (True, 1, False),
    ("a", "b", True), ("a", None, False), (None, "a", True), ([1], [2, 3], True), ([1], [], False), ([], ["a"], True),
    ((1, "a"), (2,), False), ({"a": 1}, {"a": 2, "b": 3}, True), ({"a": 1}, {"b": 3}, False), ({"_a": 1}, {}, True),
    ({"_a": 1}, {"_a": "b"}, False), ({3: 1}, {4: 2}, True), (torch.ones(2), torch.zeros(2), True),
    (torch.ones(2), torch.zeros(1), False), (torch.ones(2), 1, False),
])  # fmt: skip
def test_what_is_like_a_value(known: Any, value: Any, fits: bool) -> None:
    if fits:
        check(value, like(known))
        return
    with pytest.raises(CheckpointError):
        check(value, like(known))


@pytest.mark.parametrize("known, value, told", [
    ({"history": [1]}, {"history": [1, 2]}, "history has 2 items; accepted is 1"),
    ({"period": 3}, {"period": 0}, "period is int 0; accepted is a number above 0"),
])  # fmt: skip
def test_what_is_fixed(known: Any, value: Any, told: str) -> None:
    check(value, like(known))
    with pytest.raises(CheckpointError, match=told):
        check(value, like(known, fixed=True))
