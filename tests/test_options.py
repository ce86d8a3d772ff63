"""The trainer's options: the device, and what torch is told."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from models import Line, pairs, quiet

from refimpl import ConfigurationError, Trainer
from refimpl.strategies.choice import devices_of

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
    ({"accelerator": "gpu", "devices": [0, 1]}, r"devices=\[0, 1\]: torch finds \d+ GPUs here"),
    ({"num_nodes": 0}, "num_nodes=0; an int from 1"), ({"num_nodes": 2, "strategy": "dp"}, "num_nodes=2 with"),
    ({"num_nodes": 2, "strategy": "ddp_spawn"}, "num_nodes=2 with .* use 'ddp'"),
    ({"devices": 2, "strategy": "ddp", "sync_batchnorm": True}, "sync_batchnorm=True: torch has it on GPUs only"),
    ({"strategy": "ddp_cpu", "accelerator": "gpu"}, "strategy='ddp_cpu' contradicts accelerator='gpu'"),
    ({"process_timeout": 0}, "process_timeout=0; a number above 0"),
    ({"accelerator": "tpu"}, "accelerator='tpu': here is the CPU, or GPUs"),
    ({"accelerator": "gpu", "devices": [9]}, r"devices=\[9\]: torch finds \d+ GPUs here"),
    ({"accelerator": "gpu", "devices": ["0"]}, "torch finds"),
    ({"devices": "all"}, "devices='all': a number of devices, a list"),
    ({"devices": 0}, "devices=0: a number"), ({"devices": []}, r"devices=\[\]: a number"),
    ({"strategy": "fsdp"}, "strategy='fsdp'; None, 'auto', 'dp', .* is accepted"),
])  # fmt: skip
def test_a_device_that_cannot_be_had_is_told(given: Any, told: str) -> None:
    with pytest.raises(ConfigurationError, match=told):
        Trainer(**given)


@pytest.mark.parametrize("there, told", [(0, "torch finds 0 GPUs"), (1, None)])
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
