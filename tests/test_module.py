"""LightningModule: what a user's module can do, with a trainer and without."""

from __future__ import annotations

import copy
import os
import pickle
import queue
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from models import Batches, Line, pairs, quiet
from torch import nn

from refimpl import Callback, CSVLogger, LightningDataModule, LightningModule


def test_it_is_an_nn_module_that_can_be_used_without_a_trainer() -> None:
    module = Line()
    assert isinstance(module, nn.Module)
    x, y = next(iter(pairs(1)))
    assert torch.equal(module.training_step((x, y), 0), torch.mean((module(x) - y) ** 2))


@pytest.mark.parametrize("step", ["training_step", "validation_step", "test_step"])
def test_what_the_user_must_define_raises_until_then(step: str) -> None:
    with pytest.raises(NotImplementedError):
        getattr(LightningModule(), step)(None, 0)
    with pytest.raises(NotImplementedError):
        LightningModule().configure_optimizers()


@pytest.mark.parametrize("hook", ["training_step_end", "validation_step_end", "test_step_end"])
def test_calling_the_bases_step_end_changes_nothing(hook: str) -> None:
    module = type("Polite", (Line,), {hook: lambda self, output: getattr(Line, hook)(self, output)})()
    output = object()
    assert getattr(module, hook)(output) is output


# ---- properties -----------------------------------------------------------------------------------------

WITHOUT_A_TRAINER: dict[str, Any] = {
    "current_epoch": 0, "global_step": 0, "global_rank": 0, "local_rank": 0, "precision": 32, "use_amp": False,
    "logger": None, "trainer": None, "datamodule": None, "example_input_array": None,
    "automatic_optimization": True, "device": torch.device("cpu"),
}  # fmt: skip


class Asking(Line):
    """Asks for every property in every step, and before and after."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[dict[str, Any]] = []
        self.ask()

    def ask(self) -> None:
        self.seen.append({name: getattr(self, name) for name in WITHOUT_A_TRAINER})

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        self.ask()
        return self.loss([each.to(self.layer.weight.dtype) for each in batch])

    def validation_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> Any:
        self.ask()

    def configure_optimizers(self) -> Any:
        assert self.trainer is not None and self.trainer.datamodule is not None
        self.num_training_samples = len(self.trainer.datamodule.train_dataloader())
        return super().configure_optimizers()


class Data(LightningDataModule):
    def train_dataloader(self) -> Any:
        return pairs(2)

    val_dataloader = train_dataloader


def test_without_a_trainer_every_property_has_a_value() -> None:
    assert Asking().seen == [WITHOUT_A_TRAINER]


@pytest.mark.parametrize("precision, use_amp", [(32, False), (64, False), ("bf16", True)])
def test_the_properties_in_a_step(precision: Any, use_amp: bool, tmp_path: Path) -> None:
    module, data, logger = Asking(), Data(), CSVLogger(str(tmp_path))
    if precision == "bf16":
        module.float()
    trainer = quiet(precision=precision, logger=logger, max_epochs=2, max_steps=7)
    trainer.fit(module, datamodule=data)
    run = dict(WITHOUT_A_TRAINER, precision=precision, use_amp=use_amp, logger=logger, trainer=trainer, datamodule=data)
    steps = [(0, 0), (0, 1), (0, 1), (0, 1), (1, 2), (1, 3), (1, 3), (1, 3)]  # each epoch: train, train, val, val
    assert module.seen[1:] == [dict(run, current_epoch=epoch, global_step=step) for epoch, step in steps]
    assert module.trainer is trainer and trainer.max_steps == 7
    assert module.num_training_samples == 2


def test_device_is_where_the_parameters_are() -> None:
    assert Line().device == torch.device("cpu")
    assert Line().to("meta").device == torch.device("meta")
    assert LightningModule().device == torch.device("cpu")
    module = LightningModule()
    module.trainer = quiet()
    module.trainer.run.devices.device = torch.device("meta")
    assert module.device == torch.device("meta")
    module.register_buffer("buffer", torch.zeros(1))
    assert module.device == torch.device("cpu")


def test_the_modules_own_data_module() -> None:
    """It is used by a run that is given nothing else."""
    module, own, given = Asking(), Data(), Data()
    module.datamodule = own
    assert module.datamodule is own
    quiet().fit(module)
    assert module.trainer is not None and module.trainer.datamodule is own and own.trainer is module.trainer
    quiet().fit(module, datamodule=given)
    assert module.datamodule is given
    quiet().validate(module, pairs(1))
    assert module.datamodule is own and module.trainer.datamodule is None
    module.datamodule = None
    assert module.datamodule is None
    module.datamodule = 5  # type: ignore[assignment]
    with pytest.raises(TypeError, match="datamodule=int; an instance of LightningDataModule is accepted"):
        quiet().fit(module)
    del module.trainer
    assert module.datamodule == 5  # type: ignore[comparison-overlap]


def test_the_example_is_where_the_module_is() -> None:
    module, x = Line(), torch.zeros(3, 2)
    module.example_input_array = x
    assert module.example_input_array is x
    assert module.to("meta").example_input_array.device == torch.device("meta")
    module.example_input_array = {"x": x, "more": (x, 1)}
    assert module.example_input_array["x"].device == module.example_input_array["more"][0].device == module.device
    assert [name for name, _ in module.named_buffers()] == []  # and not in the checkpoint


def test_an_example_used_in_a_hook_as_documented() -> None:
    class Generating(Line):
        example_input_array = torch.zeros(3, 2, dtype=torch.float64)  # type: ignore[assignment]

        def on_train_epoch_end(self) -> None:
            self.images = self.layer(self.example_input_array)

    module = Generating()
    quiet(limit_val_batches=0).fit(module, pairs(1))
    assert torch.equal(module.images, module.layer.bias.expand(3, 1))


@pytest.mark.parametrize("module", [Line(), nn.Linear(300, 500), LightningModule(), nn.LazyLinear(3)])
def test_model_size_is_that_of_the_file(module: nn.Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    whole = LightningModule()
    whole.layer = module
    size = whole.model_size
    assert not list(tmp_path.iterdir())
    torch.save(whole.state_dict(), "archive.pt")  # in another file the name of the file is in it
    assert size == os.path.getsize("archive.pt") / 1e6


def test_weights_tied_after_the_move_are_what_is_trained() -> None:
    """The documentation's example: in a fit the optimizer sees them tied, and so do the other runs."""

    class Tied(LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.encoder, self.decoder = nn.Linear(2, 2, bias=False), nn.Linear(2, 2, bias=False)

        def on_post_move_to_device(self) -> None:
            self.decoder.weight = self.encoder.weight

        def training_step(self, batch: Any, batch_idx: int) -> Any:
            return self.decoder(self.encoder(batch)).square().mean()

        def validation_step(self, batch: Any, batch_idx: int) -> None:
            assert self.decoder.weight is self.encoder.weight

        test_step = predict_step = validation_step  # type: ignore[assignment]

        def configure_optimizers(self) -> Any:
            self.trained = list(self.parameters())
            return torch.optim.SGD(self.trained, lr=0.1)

    batches = Batches([torch.ones(3, 2)])
    module = Tied()
    before = module.encoder.weight.clone()
    quiet(precision=64, limit_val_batches=0).fit(module, batches)
    assert module.trained == [module.encoder.weight] and module.decoder.weight is module.encoder.weight
    assert module.encoder.weight.dtype == torch.float64 and not torch.equal(before, module.encoder.weight.float())
    for run in ("validate", "test", "predict"):
        getattr(quiet(), run)(Tied(), batches)


# ---- methods --------------------------------------------------------------------------------------------


def test_freeze_and_unfreeze() -> None:
    module = Line()
    module.freeze()
    assert not module.training and not any(p.requires_grad for p in module.parameters())
    module.unfreeze()
    assert module.training and all(p.requires_grad for p in module.parameters())


def test_counters_are_those_of_the_running_batch() -> None:
    class Counting(Line):
        def __init__(self) -> None:
            super().__init__()
            self.seen: list[tuple[int, int, int]] = []

        def training_step(self, batch: Any, batch_idx: int) -> Any:
            self.seen.append((self.current_epoch, self.global_step, batch_idx))
            return self.loss(batch)

    module = Counting()
    quiet(max_epochs=2, limit_val_batches=0).fit(module, pairs(2))
    assert module.seen == [(0, 0, 0), (0, 1, 1), (1, 2, 0), (1, 3, 1)]


def test_print_is_pythons_print(capsys: pytest.CaptureFixture[str]) -> None:
    module = Line()
    module.print("a", 1, sep="-")
    quiet(limit_val_batches=0).fit(module, pairs(1))
    module.print("b", end="")
    assert capsys.readouterr().out == "a-1\nb"


def test_only_rank_zero_prints(capsys: pytest.CaptureFixture[str]) -> None:
    module = Line()
    module.trainer = quiet()
    module.trainer.run.devices.global_rank = 1
    module.print("a")
    assert capsys.readouterr().out == ""


def test_metrics_go_through_a_queue() -> None:
    class Telling(Line):
        def training_step(self, batch: Any, batch_idx: int) -> Any:
            self.log("kept", self.layer.bias, enable_graph=True)
            self.log("count", 2)
            self.log("half", 1.5, on_epoch=True, on_step=False, reduce_fx=lambda values: values.sum().bfloat16())
            return self.loss(batch)

    sender, receiver = Telling(), Line()
    for module in (sender, receiver):
        with pytest.raises(RuntimeError, match=r"add_to_queue\(\) needs a trainer"):
            module.add_to_queue(queue.SimpleQueue())
        with pytest.raises(RuntimeError, match=r"get_from_queue\(\) needs a trainer"):
            module.get_from_queue(queue.SimpleQueue())
        quiet(limit_val_batches=0).fit(module, pairs(1))
    assert sender.trainer is not None and receiver.trainer is not None
    sent, between = sender.trainer.callback_metrics, queue.SimpleQueue[Any]()
    sender.add_to_queue(between)
    arrays = between.get()
    assert {name: (type(array), array.shape) for name, array in arrays.items()} == dict.fromkeys(sent, (np.ndarray, ()))
    with torch.no_grad():
        sender.layer.bias.add_(1)  # the value that was logged, and not the one that was sent
    assert arrays["kept"] == pytest.approx(sent["kept"].item() - 1)
    for sent_by_another in ({"own": np.array(7.0)}, pickle.loads(pickle.dumps(arrays))):
        between.put(sent_by_another)
        receiver.get_from_queue(between)
    received = receiver.trainer.callback_metrics
    assert {name: (value.dtype, float(value)) for name, value in received.items()} == {
        "own": (torch.float64, 7), "kept": (torch.float64, float(arrays["kept"])),
        "count": (torch.float32, 2), "half": (torch.float32, 1.5)
    }  # fmt: skip


def test_a_copy_leaves_the_trainer_behind() -> None:
    copies: list[LightningModule] = []

    class Copying(Callback):
        def on_train_batch_end(self, trainer: Any, pl_module: LightningModule, *rest: Any) -> None:
            copies.append(copy.deepcopy(pl_module))
            copies.append(pickle.loads(pickle.dumps(pl_module)))
            assert pl_module.trainer is trainer

    module = Plain()
    quiet(callbacks=[Copying()], limit_val_batches=0).fit(module, pairs(2))
    assert [each.trainer for each in copies] == [None] * 4
    assert torch.equal(copies[-1].layer.weight, module.layer.weight)  # type: ignore[union-attr, arg-type]
    quiet(limit_val_batches=0).fit(copies[0], pairs(1))  # and can be trained


class Plain(LightningModule):
    """As `Line`, without the function that cannot be pickled."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(2, 1, dtype=torch.float64)

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        return torch.mean((self.layer(batch[0]) - batch[1]) ** 2)

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.1)


def test_the_documentations_smallest_example() -> None:
    class LitModel(LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.l1 = nn.Linear(28 * 28, 10)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.relu(self.l1(x.view(x.size(0), -1)))

        def training_step(self, batch: Any, batch_idx: int) -> Any:
            x, y = batch
            loss = nn.functional.cross_entropy(self(x), y)
            self.log("train_loss", loss, on_step=True, on_epoch=True, prog_bar=True, logger=True)
            return loss

        def configure_optimizers(self) -> Any:
            return torch.optim.Adam(self.parameters(), lr=0.02)

    batches = [(torch.randn(8, 28, 28), torch.arange(8)) for _ in range(3)]
    trainer = quiet(max_epochs=20, limit_val_batches=0)
    trainer.fit(LitModel(), Batches(batches))
    losses = trainer.logged_metrics
    assert set(losses) == {"train_loss_step", "train_loss_epoch"}
    assert losses["train_loss_epoch"] < 1.0  # 2.3 without training
