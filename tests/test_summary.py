"""The model summary: its table, and its numbers."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from models import Batches, Line, pairs, quiet
from torch import nn

from refimpl import ConfigurationError, LightningModule, ModelSummary, Trainer
from refimpl.summary import human, summarize


class Net(LightningModule):
    """A module with the children given."""

    def __init__(self, **children: nn.Module) -> None:
        super().__init__()
        for name, child in children.items():
            self.add_module(name, child)


def test_the_table_of_the_documentations_example() -> None:
    assert summarize(Net(l1=nn.Linear(28 * 28, 10))).splitlines() == [
        "  | Name | Type   | Params",
        "--------------------------",
        "0 | l1   | Linear | 7.9 K ",
        "--------------------------",
        "7.9 K     Trainable params",
        "0         Non-trainable params",
        "7.9 K     Total params",
        "0.031     Total estimated model params size (MB)",
    ]


def numbers(module: nn.Module) -> dict[str, str]:
    """The numbers under the table, by what they count."""
    totals = summarize(module).splitlines()[-4:]
    return {what: number for number, what in (line.split(maxsplit=1) for line in totals)}


def rows(module: nn.Module) -> list[list[str]]:
    return [[cell.strip() for cell in line.split("|")] for line in summarize(module).splitlines()[2:-5]]


SIZE = "Total estimated model params size (MB)"


def test_children_are_numbered_and_nested_ones_counted() -> None:
    module = Net(body=nn.Sequential(nn.Linear(10, 20), nn.ReLU(), nn.Linear(20, 5)), act=nn.ReLU())
    assert rows(module) == [["0", "body", "Sequential", "325"], ["1", "act", "ReLU", "0"]]


@pytest.mark.parametrize("depth, names", [
    (0, []), (1, ["a", "b"]), (2, ["a", "a.0", "a.1", "b"]), (3, ["a", "a.0", "a.0.0", "a.1", "b"]),
    (-1, ["a", "a.0", "a.0.0", "a.1", "b"]),
])  # fmt: skip
def test_as_deep_as_asked_for(depth: int, names: list[str]) -> None:
    module = Net(a=nn.Sequential(nn.Sequential(nn.Linear(1, 1)), nn.ReLU()), b=nn.ReLU())
    lines = [line.split(" | ") for line in summarize(module, depth).splitlines()]
    assert [line[1].strip() for line in lines[1:] if len(line) == 4] == names
    assert summarize(module, depth).splitlines()[-4:] == summarize(module).splitlines()[-4:]


@pytest.mark.parametrize("depth", [-2, 1.0, None])
def test_a_depth_that_is_none(depth: Any) -> None:
    with pytest.raises(ConfigurationError, match=rf"max_depth={depth!r}; an int from -1"):
        ModelSummary(depth)


def test_frozen_parameters_are_not_trainable() -> None:
    frozen = nn.Linear(3, 3)
    frozen.requires_grad_(False)
    assert numbers(Net(a=frozen, b=nn.Linear(2, 1))) == {
        "Trainable params": "3", "Non-trainable params": "12", "Total params": "15", SIZE: "0.000",
    }  # fmt: skip


def test_shared_parameters_count_once_in_the_total() -> None:
    one, other = nn.Linear(3, 3), nn.Linear(3, 3)
    other.weight = one.weight
    module = Net(a=one, b=other)
    assert [row[-1] for row in rows(module)] == ["12", "12"]
    assert numbers(module)["Total params"] == "15"


def test_parameters_of_the_module_itself_count() -> None:
    module = Net()
    module.scale = nn.Parameter(torch.ones(7))
    assert rows(module) == []
    assert numbers(module)["Total params"] == "7"


@pytest.mark.parametrize("dtype, megabytes", [
    (torch.float16, "2.000"), (torch.float32, "4.000"), (torch.float64, "8.000")
])  # fmt: skip
def test_size_is_that_of_the_parameters_type(dtype: torch.dtype, megabytes: str) -> None:
    assert numbers(Net(a=nn.Linear(1000, 1000, bias=False, dtype=dtype)))[SIZE] == megabytes


def test_layers_that_are_not_built_yet_have_no_parameters() -> None:
    module = Net(lazy=nn.LazyLinear(3), built=nn.Linear(1, 1))
    assert [row[-1] for row in rows(module)] == ["0", "2"]
    assert numbers(module)["Total params"] == "2"


def test_a_module_without_parameters() -> None:
    assert set(numbers(Net(act=nn.ReLU())).values()) == {"0", "0.000"}


# ---- counts ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count, text", [
    (0, "0"), (999, "999"), (1000, "1.0 K"), (7850, "7.9 K"), (99_949, "99.9 K"), (99_950, "100 K"),
    (999_499, "999 K"), (999_500, "1.0 M"), (1_234_567, "1.2 M"), (110_000_000, "110 M"),
    (175_000_000_000, "175 B"), (2 * 10**12, "2.0 T"), (3 * 10**15, "3000 T"),
])  # fmt: skip
def test_counts_have_at_most_three_digits_and_a_unit(count: int, text: str) -> None:
    assert human(count) == text


@given(st.integers(0, 10**14))
def test_a_count_is_rounded_to_what_is_shown(count: int) -> None:
    number, _, unit = human(count).partition(" ")
    scale = {"": 1, "K": 10**3, "M": 10**6, "B": 10**9, "T": 10**12}[unit]
    digits = len(number.partition(".")[2])
    assert abs(float(number) * scale - count) <= scale / 10**digits / 2 * (1 + 1e-9)
    assert len(number.replace(".", "")) <= 3


# ---- when it is printed ---------------------------------------------------------------------------------


def test_fit_prints_it_once_when_everything_is_configured(capsys: pytest.CaptureFixture[str]) -> None:
    class Built(Line):
        def setup(self, stage: str | None = None) -> None:
            self.late = nn.Linear(4, 4)

    options: dict[str, Any] = {"enable_progress_bar": False, "limit_val_batches": 0, "max_epochs": 1}
    Trainer(**options).fit(Built(), pairs(1))
    late = Built()
    late.setup()
    assert capsys.readouterr().out == summarize(late) + "\n"
    Trainer(callbacks=ModelSummary(max_depth=0), **options).fit(late, pairs(1))
    assert capsys.readouterr().out == summarize(late, 0) + "\n"
    Trainer(enable_model_summary=False, **options).fit(Line(), pairs(1))
    assert capsys.readouterr().out == ""
    Trainer(callbacks=ModelSummary(), **options).fit(Line(), pairs(1))
    assert capsys.readouterr().out.count("Total params") == 1


def test_only_rank_zero_prints_it(capsys: pytest.CaptureFixture[str]) -> None:
    trainer = quiet(callbacks=ModelSummary(), limit_val_batches=0)
    trainer.global_rank = 1
    trainer.fit(Line(), pairs(1))
    assert capsys.readouterr().out == ""


def test_other_runs_do_not_print_it(capsys: pytest.CaptureFixture[str]) -> None:
    quiet(callbacks=ModelSummary()).validate(Line(), Batches(pairs(1)))
    assert capsys.readouterr().out == ""
