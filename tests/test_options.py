"""The trainer's options: the device, and what torch is told."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from models import Line, pairs, quiet

from refimpl import ConfigurationError, Trainer
from refimpl.trainer.options import device_of

# ---- the device -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("given, device", [
    ({}, "cpu"), ({"accelerator": "cpu"}, "cpu"), ({"accelerator": "cpu", "devices": 1}, "cpu"),
    ({"accelerator": "auto", "devices": "auto"}, "cuda:0"), ({"gpus": 0}, "cpu"), ({"gpus": []}, "cpu"),
    ({"gpus": 1}, "cuda:0"), ({"gpus": [1]}, "cuda:1"), ({"accelerator": "gpu"}, "cuda:0"),
    ({"accelerator": "gpu", "devices": [1]}, "cuda:1"), ({"accelerator": "cuda", "devices": 1}, "cuda:0"),
    ({"num_processes": 1}, "cpu"), ({"gpus": "1"}, "cuda:0"), ({"gpus": "0"}, "cpu"), ({"gpus": "1,"}, "cuda:1"),
    ({"devices": "1", "accelerator": "gpu"}, "cuda:0"),
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
    ({"gpus": "0,1"}, "gpus='0,1': .* one device"), ({"gpus": "all"}, "gpus='all': .* one device"),
])  # fmt: skip
def test_a_device_that_cannot_be_had_is_told(given: Any, told: str) -> None:
    with pytest.raises(ConfigurationError, match=told):
        Trainer(**given)


@pytest.mark.parametrize("there, told", [(0, "torch finds 0 GPUs"), (1, None), (3, "gpus=-1: .* one device")])
def test_all_the_gpus_may_be_one(there: int, told: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: there)
    if told is None:
        assert device_of(None, None, -1, None) == torch.device("cuda:0")
        return
    with pytest.raises(ConfigurationError, match=told):
        device_of(None, None, -1, None)


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
