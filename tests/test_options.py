"""The trainer's options: the device, and the spellings of the period."""

from __future__ import annotations

import inspect
from typing import Any

import pytest
import torch
from models import Line, pairs, quiet

from refimpl import ConfigurationError, ProgressBar, Trainer
from refimpl.options import device_of
from refimpl.retired import _NOTHING

# ---- the device -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("given, device", [
    ({}, "cpu"), ({"accelerator": "cpu"}, "cpu"), ({"accelerator": "cpu", "devices": 1}, "cpu"),
    ({"accelerator": "auto", "devices": "auto"}, "cuda:0"), ({"gpus": 0}, "cpu"), ({"gpus": []}, "cpu"),
    ({"gpus": 1}, "cuda:0"), ({"gpus": [1]}, "cuda:1"), ({"accelerator": "gpu"}, "cuda:0"),
    ({"accelerator": "gpu", "devices": [1]}, "cuda:1"), ({"accelerator": "cuda", "devices": 1}, "cuda:0"),
    ({"num_processes": 1}, "cpu"),
])  # fmt: skip
def test_every_way_to_name_one_device(given: Any, device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    asked = dict.fromkeys(("accelerator", "devices", "gpus", "num_processes"))
    assert device_of(**{**asked, **given}) == torch.device(device)


@pytest.mark.parametrize("given, told", [
    ({"gpus": 2}, "gpus=2: this engine runs in one process on one device"),
    ({"devices": 2}, "devices=2: .* one device"), ({"num_processes": 2}, "num_processes=2: .* one process"),
    ({"gpus": [0, 1]}, r"gpus=\[0, 1\]: .* one device"),
    ({"accelerator": "tpu"}, "accelerator='tpu': accelerator 'cpu'"),
    ({"accelerator": "cpu", "gpus": 1}, "accelerator='cpu', gpus=1: .* gpus not on the CPU"),
    ({"gpus": [9]}, r"gpus=\[9\]: torch finds \d+ GPUs here"), ({"gpus": ["0"]}, "torch finds"),
])  # fmt: skip
def test_a_device_that_cannot_be_had_is_told(given: Any, told: str) -> None:
    with pytest.raises(ConfigurationError, match=told):
        Trainer(**given)


def test_deterministic_and_benchmark_hold_while_the_trainer_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", False)
    seen: list[tuple[bool, bool]] = []

    class Seeing(Line):
        def on_train_start(self) -> None:
            seen.append((torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn.benchmark))

    for options in ({"deterministic": True, "benchmark": True}, {}):
        quiet(limit_val_batches=0, **options).fit(Seeing(), pairs(1))
        assert not torch.are_deterministic_algorithms_enabled() and not torch.backends.cudnn.benchmark
    assert seen == [(True, True), (False, False)]


# ---- retired spellings ----------------------------------------------------------------------------------


@pytest.mark.parametrize("old, option, value", [
    ({"weights_summary": None}, "enable_model_summary", False),
    ({"weights_summary": "top"}, "enable_model_summary", True),
    ({"progress_bar_refresh_rate": 0}, "enable_progress_bar", False),
    ({"progress_bar_refresh_rate": 1}, "enable_progress_bar", True),
])  # fmt: skip
def test_a_retired_spelling_is_the_option_of_today(old: dict[str, Any], option: str, value: Any) -> None:
    with pytest.warns(DeprecationWarning, match=f"use {option}"):
        was = Trainer(**old)
    now = Trainer(**{option: value})
    assert [type(callback) for callback in was.callbacks] == [type(callback) for callback in now.callbacks]
    with pytest.raises(ConfigurationError, match=f"say the same; give {option}"):
        Trainer(**old, **{option: value})


def test_a_refresh_rate_is_the_bars() -> None:
    with pytest.warns(DeprecationWarning):
        bars = [cb for cb in Trainer(progress_bar_refresh_rate=7).callbacks if isinstance(cb, ProgressBar)]
    assert [bar.refresh_rate for bar in bars] == [7]


@pytest.mark.parametrize("name", ["flush_logs_every_n_steps", "process_position", "prepare_data_per_node"])
def test_what_has_no_successor_does_nothing(name: str) -> None:
    with pytest.warns(DeprecationWarning, match=rf"Trainer\({name}=3\) is deprecated and does nothing"):
        Trainer(**{name: 3})


@pytest.mark.parametrize("name", sorted(_NOTHING))
def test_what_this_engine_does_not_have_may_be_switched_off(name: str) -> None:
    for nothing in _NOTHING[name]:
        Trainer(**{name: nothing})
    with pytest.raises(ConfigurationError, match=f"{name}='yes': this engine has nothing of the kind"):
        Trainer(**{name: "yes"})


def test_the_signature_shows_the_options_of_today() -> None:
    assert {"max_epochs", "accelerator"} <= set(inspect.signature(Trainer).parameters)
    assert "weights_summary" not in inspect.signature(Trainer).parameters
    with pytest.raises(TypeError, match="did you mean 'weights_summary'"):
        Trainer(weight_summary=None)
