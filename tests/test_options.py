"""The trainer's options: the device, and what torch is told."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from models import Line, pairs, quiet

from refimpl import ConfigurationError, Trainer
from refimpl.devices import devices_of

# ---- the device -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("given, device", [
    ({}, "cpu"), ({"accelerator": "cpu"}, "cpu"), ({"accelerator": "cpu", "devices": 1}, "cpu"),
    ({"accelerator": "auto", "devices": "auto"}, "cuda:0"), ({"accelerator": "gpu"}, "cuda:0"),
    ({"accelerator": "gpu", "devices": [1]}, "cuda:1"), ({"accelerator": "cuda", "devices": 1}, "cuda:0"),
    ({"accelerator": "gpu", "devices": "1"}, "cuda:0"), ({"accelerator": "gpu", "devices": "1,"}, "cuda:1"),
])  # fmt: skip
def test_every_way_to_name_one_device(given: Any, device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert devices_of(**{"accelerator": None, "devices": None, **given}) == [torch.device(device)]


@pytest.mark.parametrize("given, told", [
    ({"devices": 2}, "devices=2: this engine runs on one device, or on several with strategy='dp'"),
    ({"accelerator": "gpu", "devices": [0, 1]}, r"devices=\[0, 1\]: .* one device"),
    ({"accelerator": "tpu"}, "accelerator='tpu': accelerator 'cpu'"),
    ({"accelerator": "gpu", "devices": [9]}, r"devices=\[9\]: torch finds \d+ GPUs here"),
    ({"accelerator": "gpu", "devices": ["0"]}, "torch finds"),
    ({"devices": "0,1"}, "devices='0,1': .* one device"),
    ({"devices": "all"}, "devices='all': a number of devices, a list"),
    ({"devices": 0}, "devices=0: a number"), ({"devices": []}, r"devices=\[\]: a number"),
    ({"devices": 2, "strategy": "ddp"}, "devices=2, strategy='ddp': this engine"),
    ({"strategy": "fsdp"}, "strategy='fsdp'; None, 'auto', 'dp', .* is accepted"),
])  # fmt: skip
def test_a_device_that_cannot_be_had_is_told(given: Any, told: str) -> None:
    with pytest.raises(ConfigurationError, match=told):
        Trainer(**given)


@pytest.mark.parametrize("there, told", [(0, "torch finds 0 GPUs"), (1, None), (3, "devices=-1: .* one device")])
def test_all_the_gpus_may_be_one(there: int, told: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: there)
    if told is None:
        assert devices_of("gpu", -1) == [torch.device("cuda:0")]
        return
    with pytest.raises(ConfigurationError, match=told):
        devices_of("gpu", -1)


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
