"""The hooks through which a batch goes on its way to the device, overridden as the documentation does."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
import torch
from models import Batches, Line, Stream, pairs, quiet
from torch import Tensor

from refimpl import LightningDataModule, Trainer

TRANSFERS = ("on_before_batch_transfer", "transfer_batch_to_device", "on_after_batch_transfer")
FLAGS = ("training", "sanity_checking", "validating", "testing", "predicting")


class CustomBatch:
    """A batch of the user's own, without `.to()`: only its hook can move it."""

    def __init__(self, pair: tuple[Tensor, Tensor]) -> None:
        self.samples, self.targets = pair
        self.moved = False


class Documented(Line):
    """The documentation's example, but for its slip: the batch is called `data` in one line."""

    def loss(self, batch: Any) -> Tensor:
        if not isinstance(batch, CustomBatch):
            return super().loss(batch)
        assert batch.moved
        return super().loss((batch.samples, batch.targets))

    def transfer_batch_to_device(self, batch: Any, device: torch.device) -> Any:  # type: ignore[override]
        if isinstance(batch, CustomBatch):
            batch.samples = batch.samples.to(device)
            batch.targets = batch.targets.to(device)
            batch.moved = True
        else:
            batch = super().transfer_batch_to_device(batch, device)
        return batch


class WithIndex(Documented):
    def transfer_batch_to_device(  # type: ignore[override]
        self, batch: Any, device: torch.device, dataloader_idx: int
    ) -> Any:
        return super().transfer_batch_to_device(batch, device)


@pytest.mark.parametrize("kind", [Documented, WithIndex])
def test_the_documented_example(kind: type[Documented]) -> None:
    module = kind()
    custom = Batches(CustomBatch(pair) for pair in pairs(2))
    quiet().fit(module, custom, [pairs(1), custom])
    reference = Line()
    quiet(limit_val_batches=0).fit(reference, pairs(2))
    assert torch.equal(module.layer.weight, reference.layer.weight)


class Moved:
    """Anything that implements `.to(...)`."""

    def __init__(self, pair: tuple[Tensor, Tensor], device: torch.device | None = None) -> None:
        self.pair, self.device = pair, device

    def to(self, device: torch.device) -> Moved:
        return Moved(self.pair, device)


def test_a_type_with_to_is_moved_by_default() -> None:
    class Module(Line):
        def training_step(self, batch: Moved, batch_idx: int) -> Tensor:
            assert batch.device == torch.device("cpu")
            return self.loss(batch.pair)

    quiet(limit_val_batches=0).fit(Module(), Batches(Moved(pair) for pair in pairs(2)))


def torchtext_batch(**fields: Any) -> Any:
    """What torchtext.data.batch.Batch is like: its fields are attributes."""
    kind = type("Batch", (), {"__module__": "torchtext.data.batch"})
    batch = kind()
    vars(batch).update(fields, fields=list(fields), dataset="the data set", batch_size=2)
    return batch


def test_a_batch_of_torchtext_is_moved_field_by_field() -> None:
    module, batch = Line(), torchtext_batch(text=(torch.ones(2, 3), torch.ones(2)), label=torch.ones(2))
    moved = module.transfer_batch_to_device(batch, torch.device("meta"))
    assert moved is not batch and batch.label.device.type == "cpu"
    assert [tensor.device.type for tensor in (*moved.text, moved.label)] == ["meta"] * 3
    assert (moved.dataset, moved.batch_size, moved.fields) == ("the data set", 2, ["text", "label"])


@dataclass(frozen=True)
class Labelled:
    x: Tensor
    more: dict[str, Tensor]
    name: str = "batch"


def test_a_dataclass_is_moved_field_by_field_and_its_class_left_alone() -> None:
    batch = (Labelled(torch.ones(2), {"y": torch.ones(2)}), Labelled)
    moved, kind = Line().transfer_batch_to_device(batch, torch.device("meta"))
    assert (batch[0].x.device.type, kind) == ("cpu", Labelled)
    assert [tensor.device.type for tensor in (moved.x, moved.more["y"])] == ["meta"] * 2
    assert (type(moved), moved.name) == (Labelled, "batch")


def told(trainer: Trainer | None) -> list[str]:
    return [flag for flag in FLAGS if getattr(trainer, flag)]


def noting(base: type, seen: dict[str, set[tuple[str, ...]]]) -> Any:
    """An object whose transfer hooks write down what the trainer's flags say."""

    def hook(name: str) -> Any:
        original = getattr(base, name)

        def noted(self: Any, *args: Any) -> Any:
            seen.setdefault(name, set()).add(tuple(told(self.trainer)))
            return original(self, *args)

        return noted

    return type("Noting", (base,), {name: hook(name) for name in TRANSFERS})()


@pytest.mark.parametrize("call, flags", [
    ("fit", {("training",), ("validating",), ("sanity_checking",)}),
    ("validate", {("validating",)}), ("test", {("testing",)}), ("predict", {("predicting",)}),
])  # fmt: skip
def test_the_hooks_can_ask_what_is_running(call: str, flags: set[tuple[str, ...]]) -> None:
    """transfer_batch_to_device: "to check the current state of execution of this hook ..."."""
    seen: dict[str, set[tuple[str, ...]]] = {}
    trainer = quiet(num_sanity_val_steps=1)
    loaders = [pairs(1)] * (2 if call == "fit" else 1)
    getattr(trainer, call)(noting(Line, seen), *loaders)
    assert seen == dict.fromkeys(TRANSFERS, flags)
    assert told(trainer) == []


def test_those_of_a_data_module_can_ask_too() -> None:
    class Data(LightningDataModule):
        def test_dataloader(self) -> Any:
            return pairs(1)

    seen: dict[str, set[tuple[str, ...]]] = {}
    quiet().test(Line(), datamodule=noting(Data, seen))
    assert seen == {hook: {("testing",)} for hook in TRANSFERS}


def test_a_combined_batch_is_moved_whole() -> None:
    """It is one batch: the hooks are called once, with dataloader_idx 0."""
    given: list[Any] = []

    class Module(Line):
        def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
            given.append((dataloader_idx, sorted(batch)))
            return batch["mnist"]

    quiet(limit_val_batches=0).fit(Module(), {"mnist": pairs(2), "cifar": Stream(pairs(1))})
    assert given == [(0, ["cifar", "mnist"])] * 2
