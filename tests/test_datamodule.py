"""LightningDataModule: the data hooks beside the module's."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from models import Line, pairs, quiet, tapped
from torch.utils.data import IterableDataset, RandomSampler, SequentialSampler, TensorDataset

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


# ---- from data sets ------------------------------------------------------------------------------------

X, Y = torch.ones(5, 2, dtype=torch.float64), torch.zeros(5, 1, dtype=torch.float64)
SAMPLES = TensorDataset(X, Y)


class Stream(IterableDataset[Any]):
    def __iter__(self) -> Any:
        return iter(zip(X, Y))


def test_from_data_sets() -> None:
    data = LightningDataModule.from_datasets(SAMPLES, SAMPLES, SAMPLES, 2, predict_dataset=SAMPLES)
    trainer = quiet()
    trainer.fit(Line(), datamodule=data)
    assert trainer.global_step == 3
    assert trainer.test(Line(), datamodule=data) == [{}]
    predictions = trainer.predict(Line(), datamodule=data)
    assert predictions is not None and [len(prediction) for prediction in predictions] == [2, 2, 1]


def test_only_the_training_loader_shuffles() -> None:
    data = LightningDataModule.from_datasets(SAMPLES, [SAMPLES, SAMPLES], batch_size=2, num_workers=1)
    train, val = data.train_dataloader(), data.val_dataloader()
    assert type(train.sampler) is RandomSampler and (train.batch_size, train.num_workers) == (2, 1)
    assert [type(loader.sampler) for loader in val] == [SequentialSampler] * 2
    assert data.test_dataloader() is data.predict_dataloader() is None


def test_data_sets_in_a_structure_and_without_a_length() -> None:
    data = LightningDataModule.from_datasets({"mnist": SAMPLES, "cifar": [Stream()]}, Stream(), batch_size=2)
    train = data.train_dataloader()
    assert (len(train["mnist"]), len(list(train["cifar"][0])), len(list(data.val_dataloader()))) == (3, 3, 3)


def test_what_no_data_set_was_given_for_is_the_modules() -> None:
    class Own(Line):
        def train_dataloader(self) -> Any:
            return pairs(4)

    trainer = quiet()
    trainer.fit(Own(), datamodule=LightningDataModule.from_datasets(val_dataset=SAMPLES))
    assert trainer.global_step == 4


def test_a_subclass_stays_one_and_can_be_pickled() -> None:
    data = pickle.loads(pickle.dumps(Data.from_datasets(test_dataset=SAMPLES)))
    assert type(data) is Data and len(data.test_dataloader()) == 5


# ---- prepare_data_per_node -----------------------------------------------------------------------------


def test_prepare_data_per_node_is_an_attribute_of_both() -> None:
    """On one process it changes nothing: prepare_data runs once."""
    calls: list[str] = []

    class OnceInAll(Data):
        prepare_data_per_node = False

        def prepare_data(self) -> None:
            calls.append("data")

    class Module(Line):
        def __init__(self) -> None:
            super().__init__()
            self.prepare_data_per_node = False

        def prepare_data(self) -> None:
            calls.append("module")

    assert Line().prepare_data_per_node and LightningDataModule().prepare_data_per_node
    assert not Module().prepare_data_per_node
    quiet().fit(Module(), datamodule=OnceInAll())
    assert calls == ["data", "module"]


def test_the_trainers_argument_of_that_name_is_retired() -> None:
    with pytest.warns(DeprecationWarning, match=r"Trainer\(prepare_data_per_node=False\) is deprecated"):
        quiet(prepare_data_per_node=False)
