"""What scripts import from `utilities`."""

from __future__ import annotations

import logging
from collections import OrderedDict, defaultdict, namedtuple
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from models import Line
from torch import Tensor

import refimpl as pl
from refimpl.utilities import (
    MisconfigurationException,
    apply_to_collection,
    auto_move_data,
    is_param_in_hook_signature,
    move_data_to_device,
    rank_zero_debug,
    rank_zero_deprecation,
    rank_zero_info,
    rank_zero_only,
    rank_zero_warn,
)
from refimpl.utilities.model_summary import ModelSummary, summarize


@rank_zero_only
def twice(number: int, *, plus: int = 0) -> int:
    """Its own name and text."""
    return 2 * number + plus


def test_only_rank_0_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RANK", raising=False)
    assert twice(3, plus=1) == 7 and twice.__doc__ == "Its own name and text."
    monkeypatch.setenv("RANK", "0")
    assert twice(3) == 6
    monkeypatch.setenv("RANK", "1")
    assert twice(3) is None


def test_only_rank_0_speaks(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    rank_zero_info("%d of %s", 3, "four")
    rank_zero_info("100 %")
    with pytest.warns(UserWarning, match="careful") as warned:
        rank_zero_warn("careful")
    assert warned[0].filename == __file__
    with pytest.warns(DeprecationWarning, match="old") as warned:
        rank_zero_deprecation("old")
    assert warned[0].filename == __file__ and rank_zero_only.rank == 0  # type: ignore[attr-defined]
    monkeypatch.setenv("RANK", "2")
    rank_zero_info("nothing")
    rank_zero_warn("nothing")
    assert capsys.readouterr().out == "3 of four\n100 %\n"


def test_the_error_of_the_period_is_that_of_today() -> None:
    assert pl.utilities.MisconfigurationException is MisconfigurationException is pl.ConfigurationError
    with pytest.raises(MisconfigurationException):
        pl.Trainer(max_epochs=-2)


def test_debugging_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        rank_zero_debug("%d of %s", 3, "four")
    assert caplog.messages == ["3 of four"]


# ---- collections ---------------------------------------------------------------------------------------------

Pair = namedtuple("Pair", "first second")


@dataclass(frozen=True)
class Data:
    value: Any
    others: list[Any] = field(init=False, default_factory=lambda: [1])


@pytest.mark.parametrize("data, expected", [
    (1, 2), (True, True), ("a", "a"), ([1, (2, "b")], [2, (3, "b")]), (Pair(1, [2]), Pair(2, [3])),
    ({"a": 1, "b": {"c": 2}}, {"a": 2, "b": {"c": 3}}), (OrderedDict(a=1), OrderedDict(a=2)),
    (defaultdict(list, a=1), defaultdict(list, a=2)), (int, int), (None, None),
])  # fmt: skip
def test_a_function_is_applied_to_every_item_of_its_kind(data: Any, expected: Any) -> None:
    found = apply_to_collection(data, int, lambda number, more: number + more, 1, wrong_dtype=bool)
    assert found == expected and type(found) is type(data)
    assert apply_to_collection(data, int, lambda number, more: number + more, more=1, wrong_dtype=(bool,)) == expected


def test_a_function_is_applied_to_the_fields_of_a_copy_of_a_dataclass_instance() -> None:
    data = Data((1, "a"))
    changed = apply_to_collection(data, int, str)
    assert (changed.value, changed.others, data) == (("1", "a"), ["1"], Data((1, "a")))


def test_results_that_are_none_can_be_left_out() -> None:
    given = {"a": [1, "x"], "b": 2}
    assert apply_to_collection(given, int, lambda number: None) == {"a": [None, "x"], "b": None}
    assert apply_to_collection(given, int, lambda number: None, include_none=False) == {"a": ["x"]}


def test_batches_and_arguments_are_moved() -> None:
    class Module(Line):
        device = torch.device("meta")  # type: ignore[assignment]

        @auto_move_data
        def forward(self, x: Tensor, *, scale: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]
            """As it is."""
            return x, scale

    for moved in (move_data_to_device([torch.ones(1)] * 2, "meta"), Module()(torch.ones(1), scale=torch.ones(2))):
        assert [tensor.device.type for tensor in moved] == ["meta", "meta"]
    assert Module.forward.__doc__ == "As it is."


# ---- what is asked about functions and modules ----------------------------------------------------------------


def test_whether_a_hook_takes_a_parameter() -> None:
    def hook(batch: Any, batch_idx: int) -> None: ...

    def wide(*args: Any) -> None: ...

    assert is_param_in_hook_signature(hook, "batch") and not is_param_in_hook_signature(hook, "hiddens")
    assert is_param_in_hook_signature(wide, "batch") and not is_param_in_hook_signature(wide, "batch", explicit=True)
    assert is_param_in_hook_signature(hook, "x", min_args=2) and not is_param_in_hook_signature(hook, "x", min_args=3)


def test_a_summary_is_printed() -> None:
    module = Line()
    module.layer.bias.requires_grad_(False)
    summary = ModelSummary(module, max_depth=-1)
    assert str(summary) == repr(summary) == summarize(module, -1) == str(ModelSummary(module, mode="full"))
    assert str(ModelSummary(module)) == str(ModelSummary(module, "top")) == summarize(module)
    assert summary.total_parameters - summary.trainable_parameters == module.layer.bias.numel()
    with pytest.raises(MisconfigurationException, match="mode='all'; 'top' or 'full'"):
        ModelSummary(module, mode="all")
