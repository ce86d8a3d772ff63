"""Options from the command line, in the way of the period's scripts."""

from __future__ import annotations

import inspect
import sys
from argparse import ArgumentParser
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from refimpl import ConfigurationError, LightningDataModule, ProgressBar, Trainer
from refimpl.period.arguments import parsed


def trainer_of(*line: str, **kwargs: Any) -> Trainer:
    parser = ArgumentParser()
    parser.add_argument("--learning_rate", type=float, default=0.1)
    return Trainer.from_argparse_args(Trainer.add_argparse_args(parser).parse_args(line), **kwargs)


def test_every_option_has_an_argument_with_its_default() -> None:
    args = Trainer.add_argparse_args(ArgumentParser()).parse_args([])
    assert vars(args) == {name: p.default for name, p in inspect.signature(Trainer).parameters.items()}


def test_options_are_what_the_line_says() -> None:
    trainer = trainer_of(
        "--max_epochs", "3", "--limit_val_batches", "0.5", "--limit_train_batches", "7", "--precision", "bf16",
        "--gpus", "0", "--deterministic", "--fast_dev_run", "false", "--logger", "False", "--max_time", "00:00:01:00",
        "--learning_rate", "0.5", "--gradient_clip_val", "1e-1", "--track_grad_norm", "inf", "--benchmark", "1",
    )  # fmt: skip
    assert (trainer.max_epochs, trainer.limit_val_batches, trainer.limit_train_batches) == (3, 0.5, 7)
    assert (trainer.precision, trainer.fast_dev_run, trainer.track_grad_norm) == ("bf16", 0, float("inf"))
    assert trainer.deterministic is trainer.benchmark is True
    assert (trainer.logger, trainer.max_time, trainer.gradient_clip_val) == (None, 60.0, 0.1)
    assert trainer_of("--fast_dev_run").fast_dev_run == 1
    assert trainer_of("--fast_dev_run", "3").fast_dev_run == 3


def test_what_is_given_beside_comes_first() -> None:
    bar = ProgressBar()
    trainer = trainer_of("--max_epochs", "3", max_epochs=5, callbacks=[bar])
    assert trainer.max_epochs == 5 and bar in trainer.callbacks


def test_retired_options_are_taken_and_wrong_values_told() -> None:
    with pytest.warns(DeprecationWarning, match="use enable_progress_bar"):
        assert trainer_of("--progress_bar_refresh_rate", "0").progress_bar_callback is None
    with pytest.raises(ConfigurationError, match="max_epochs='many'; an int from -1"):
        trainer_of("--max_epochs", "many")


def test_the_arguments_of_the_parent_stay() -> None:
    parser = ArgumentParser()
    parser.add_argument("--learning_rate", type=float, default=0.1)
    args = Trainer.add_argparse_args(parser).parse_args(["--learning_rate", "0.5", "--max_steps", "4"])
    assert (args.learning_rate, args.max_steps) == (0.5, 4)


def test_a_parser_parses_the_command_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["train.py", "--max_epochs", "2"])
    assert Trainer.from_argparse_args(Trainer.add_argparse_args(ArgumentParser())).max_epochs == 2


def test_a_data_module_takes_its_own() -> None:
    class Data(LightningDataModule):
        def __init__(self, batch_size: int, root: str = "data", shuffle: bool = True, **others: Any) -> None:
            self.given = (batch_size, root, shuffle, others)

    args = Data.add_argparse_args(ArgumentParser()).parse_args(["--batch_size", "8", "--root", "12"])
    args.unrelated = 1
    assert Data.from_argparse_args(args, shuffle=False).given == (8, "12", False, {})


@given(st.one_of(st.integers(), st.booleans(), st.none(), st.floats(allow_nan=False)))
def test_a_value_comes_back_from_its_text(value: Any) -> None:
    assert parsed(str(value)) == value and type(parsed(str(value))) is type(value)
    assert parsed(f"~{value}") == f"~{value}"
