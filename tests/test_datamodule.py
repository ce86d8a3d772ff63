"""LightningDataModule: the data hooks beside the module's."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from models import Line, pairs, quiet, tapped

from refimpl import Callback, LightningDataModule
from refimpl.dispatch import DATA_HOOKS


class Data(LightningDataModule):
    def setup(self, stage: str | None = None) -> None:
        self.count = 2

    def train_dataloader(self) -> Any:
        return pairs(self.count)

    val_dataloader = test_dataloader = predict_dataloader = train_dataloader


def run(stage: str, note: Callable[..., Any]) -> None:
    data = tapped(Data, note, DATA_HOOKS)()
    module = tapped(Line, note, [*DATA_HOOKS, "on_fit_start", "configure_optimizers", f"on_{stage}_start"])()
    callback = tapped(Callback, note, ["setup", "teardown"])()
    getattr(quiet(callbacks=callback), stage)(module, datamodule=data)


def calls(stage: str) -> list[str]:
    """Who received what, in order; the batches' hooks once only."""
    seen: list[str] = []
    run(stage, lambda receiver, hook, args: seen.append(f"{type(receiver).__name__}.{hook}"))
    return list(dict.fromkeys(seen))


TRANSFER = ["Data.on_before_batch_transfer", "Data.transfer_batch_to_device", "Data.on_after_batch_transfer"]


def test_in_a_fit_it_comes_first_and_its_data_hooks_replace_the_modules() -> None:
    assert calls("fit") == [
        "Data.prepare_data", "Line.prepare_data", "Line.on_fit_start",
        "Data.setup", "Callback.setup", "Line.setup", "Line.configure_optimizers",
        "Data.train_dataloader", *TRANSFER, "Data.val_dataloader",
        "Data.teardown", "Callback.teardown", "Line.teardown",
    ]  # fmt: skip


@pytest.mark.parametrize("stage, name", [("validate", "val"), ("test", "test"), ("predict", "predict")])
def test_in_other_runs(stage: str, name: str) -> None:
    seen = [call for call in calls(stage) if not call.endswith("_start")]
    assert seen == [
        "Data.prepare_data", "Line.prepare_data", "Data.setup", "Callback.setup", "Line.setup",
        f"Data.{name}_dataloader", *TRANSFER, "Data.teardown", "Callback.teardown", "Line.teardown",
    ]  # fmt: skip


def test_stages_and_dataloader_idx_are_passed() -> None:
    given: dict[str, Any] = {}
    run("predict", lambda receiver, hook, args: given.update({hook: args}))
    assert given["setup"][-1] == given["teardown"][-1] == "predict"
    assert given["transfer_batch_to_device"][1:] == (torch.device("cpu"), 0)


def test_it_knows_its_trainer_and_the_trainer_it() -> None:
    data, trainer = Data(), quiet()
    assert data.trainer is None
    trainer.fit(Line(), datamodule=data)
    assert data.trainer is trainer and trainer.datamodule is data
    assert copy.deepcopy(data).trainer is None
    trainer.test(Line(), pairs(1))
    assert trainer.datamodule is None


@pytest.mark.parametrize("given, told", [
    (Data, "the class Data; an instance"), (pairs(1), "Batches; an instance of LightningDataModule"),
])  # fmt: skip
def test_what_is_no_data_module(given: Any, told: str) -> None:
    with pytest.raises(TypeError, match=told):
        quiet().fit(Line(), datamodule=given)


def test_loaders_and_a_data_module_are_one_too_many() -> None:
    for arguments in ({"train_dataloaders": pairs(1)}, {"val_dataloaders": pairs(1)}):
        with pytest.raises(ValueError, match="loaders and a datamodule; give one of them"):
            quiet().fit(Line(), datamodule=Data(), **arguments)
