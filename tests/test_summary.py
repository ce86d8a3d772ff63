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
from refimpl.callbacks.summary import human, summarize


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


def numbers(module: LightningModule) -> dict[str, str]:
    """The numbers under the table, by what they count."""
    totals = summarize(module).splitlines()[-4:]
    return {what: number for number, what in (line.split(maxsplit=1) for line in totals)}


def rows(module: LightningModule, max_depth: int = 1) -> list[list[str]]:
    return [[cell.strip() for cell in line.split("|")] for line in summarize(module, max_depth).splitlines()[2:-5]]


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
    with pytest.raises(ConfigurationError, match=rf"max_depth={depth!r}; an int from 0, or -1"):
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


# ---- nested layers --------------------------------------------------------------------------------------


def trees() -> st.SearchStrategy[nn.Module]:
    """Layers in layers in layers."""
    leaves = st.builds(nn.Linear, st.integers(1, 3), st.integers(1, 3))
    return st.recursive(leaves, lambda inner: st.lists(inner, max_size=3).map(lambda made: nn.Sequential(*made)))


def nested(module: nn.Module, depth: int, prefix: str = "") -> list[str]:
    """The names of the layers that are at most so deep, each before those in it."""
    return [
        name
        for child, layer in (module.named_children() if depth else ())
        for name in (prefix + child, *nested(layer, depth - 1, f"{prefix}{child}."))
    ]


@given(st.lists(trees(), max_size=3), st.integers(-1, 4))
def test_max_depth_is_how_deep_layers_are_nested(layers: list[nn.Module], max_depth: int) -> None:
    module = Net(**{f"layer{i}": layer for i, layer in enumerate(layers)})
    shown = rows(module, max_depth)
    assert [row[1] for row in shown] == nested(module, max_depth if max_depth >= 0 else 100)
    assert [row[0] for row in shown] == [str(i) for i in range(len(shown))]
    for _, name, kind, count in shown:
        layer = module.get_submodule(name)
        assert (kind, count) == (type(layer).__name__, str(sum(p.numel() for p in layer.parameters())))


@pytest.mark.parametrize("max_depth", [-2, 1.0, "top", None, True])
def test_another_max_depth_is_refused(max_depth: Any) -> None:
    message = rf"max_depth={max_depth!r}; an int from 0, or -1 for all layers, is accepted"
    with pytest.raises(ConfigurationError, match=message):
        ModelSummary(max_depth)
    with pytest.raises(ConfigurationError, match=message):
        summarize(Net(), max_depth)


# ---- sizes ----------------------------------------------------------------------------------------------


class Product(nn.Module):
    def forward(self, x: torch.Tensor, factor: torch.Tensor) -> torch.Tensor:
        return (x * factor)[:, :2]


class Sized(LightningModule):
    """A module whose forward depends on its mode and on random numbers."""

    def __init__(self, example: Any = None) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3), nn.Dropout(0.5))
        self.unused, self.last = nn.Linear(1, 1), Product()
        self.example_input_array = torch.zeros(5, 4) if example is None else example
        self.seen: list[tuple[Any, ...]] = []

    def forward(self, x: torch.Tensor, again: bool = True) -> Any:
        self.seen.append((self.training, torch.is_grad_enabled()))
        y = self.body(x + torch.rand(()))
        return self.last(y, factor=y) if again else y

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        return self(batch).sum()

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.1)


def test_with_an_example_there_are_sizes() -> None:
    assert summarize(Sized()).splitlines()[:5] == [
        "  | Name   | Type       | Params | In sizes         | Out sizes",
        "-" * 63,
        "0 | body   | Sequential | 21     | [5, 4]           | [5, 3]   ",
        "1 | unused | Linear     | 2      | ?                | ?        ",
        "2 | last   | Product    | 0      | [[5, 3], [5, 3]] | [5, 2]   ",
    ]
    assert [row[1:2] + row[4:] for row in rows(Sized(), -1)][1:4] == [
        ["body.0", "[5, 4]", "[5, 3]"], ["body.1", "[5, 3]", "[5, 3]"], ["body.2", "[5, 3]", "[5, 3]"]
    ]  # fmt: skip
    assert rows(Sized(), 0) == []


def test_the_sizes_of_nested_outputs_and_of_what_has_none() -> None:
    class Odd(nn.Module):
        def forward(self, x: torch.Tensor, word: str) -> Any:
            return {"a": x, "b": [x[0], (word,)]}

    class Recurrent(Net):
        def forward(self, x: torch.Tensor) -> Any:
            self.odd(x, "word")
            self.odd(x[:1], "word")  # of several calls the first counts
            return self.lstm(x)

    module = Recurrent(lstm=nn.LSTM(3, 2, batch_first=True), odd=Odd())
    module.example_input_array = torch.zeros(5, 7, 3)
    assert [row[4:] for row in rows(module)] == [
        ["[5, 7, 3]", "[[5, 7, 2], [[1, 5, 2], [1, 5, 2]]]"],
        ["[[5, 7, 3], ?]", "[[5, 7, 3], [[7, 3], [?]]]"],
    ]


@pytest.mark.parametrize("example, last", [
    ((torch.zeros(2, 4), False), "?"), ({"again": True, "x": torch.zeros(2, 4)}, "[2, 2]"),
], ids=["tuple", "dict"])  # fmt: skip
def test_an_example_of_several_arguments(example: Any, last: str) -> None:
    assert [row[-1] for row in rows(Sized(example))] == ["[2, 3]", "?", last]


def test_the_forward_leaves_no_trace() -> None:
    module = Sized()
    module.body[2].eval()
    modes = [layer.training for layer in module.modules()]
    state = {name: value.clone() for name, value in module.state_dict().items()}
    random = torch.get_rng_state()
    summarize(module)
    assert module.seen == [(False, False)]
    assert modes == [layer.training for layer in module.modules()] and torch.is_grad_enabled()
    assert all(torch.equal(value, state[name]) for name, value in module.state_dict().items())
    assert torch.equal(torch.get_rng_state(), random)
    assert not any(layer._forward_hooks for layer in module.modules())


def test_an_error_in_the_forward_says_who_ran_it() -> None:
    module = Sized(torch.zeros(5, 9))
    with pytest.raises(RuntimeError, match="mat1 and mat2") as caught:
        summarize(module)
    assert caught.value.__notes__ == [
        "(raised by a forward with example_input_array, which the model summary runs for its sizes)"
    ]
    assert module.training and not any(layer._forward_hooks for layer in module.modules())


def test_layers_that_are_not_built_yet_are_not_built_for_their_sizes() -> None:
    module = Sized()
    module.last = nn.LazyLinear(2)  # type: ignore[assignment]
    assert [row[-1] for row in rows(module)] == ["?", "?", "?"]
    assert module.seen == []


@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")
def test_scripted_layers_have_no_sizes() -> None:
    module = Sized()
    module.body[0] = torch.jit.trace(nn.Linear(4, 3), torch.zeros(1, 4))
    assert rows(module, 2)[1][4:] == ["?", "?"]
    assert rows(module, 2)[2][4:] == ["[5, 3]", "[5, 3]"]


@pytest.mark.parametrize("precision, dtype", [
    (32, torch.float32), ("bf16", torch.bfloat16), (64, torch.float64)
])  # fmt: skip
def test_the_forward_runs_at_the_trainers_precision(
    precision: Any, dtype: torch.dtype, capsys: pytest.CaptureFixture[str]
) -> None:
    types = []
    module = Sized()
    module.body[0].register_forward_hook(lambda layer, args, output: types.append(output.dtype))
    trainer = quiet(precision=precision, callbacks=ModelSummary(max_depth=2), limit_val_batches=0)
    trainer.fit(module, Batches([torch.zeros(5, 4)]))
    assert types == [dtype, dtype]  # the summary's forward, and the step's
    assert "4 | unused " in capsys.readouterr().out


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
    trainer.run.devices.global_rank = 1
    trainer.fit(Line(), pairs(1))
    assert capsys.readouterr().out == ""


def test_other_runs_do_not_print_it(capsys: pytest.CaptureFixture[str]) -> None:
    quiet(callbacks=ModelSummary()).validate(Line(), Batches(pairs(1)))
    assert capsys.readouterr().out == ""
