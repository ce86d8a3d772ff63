"""What the guides and the examples of the documentation do, in small, where no other test does it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from models import Batches, Line, pairs, quiet
from torch import Tensor, nn
from torch.optim import SGD
from torch.optim.lr_scheduler import LambdaLR, ReduceLROnPlateau

from refimpl import LightningDataModule, LightningModule, Logger


def images(count: int) -> Batches:
    torch.manual_seed(count)
    return Batches((torch.rand(4, 1, 3, 3), torch.arange(4) % 2) for _ in range(count))


# ---- inference ------------------------------------------------------------------------------------------


class Task(LightningModule):
    """Classifies with the model that it is given."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        x, y = batch
        return nn.functional.cross_entropy(self.model(x), y)

    def _measured(self, batch: Any, stage: str) -> dict[str, Tensor]:
        scores = self.model(batch[0])
        loss, hits = nn.functional.cross_entropy(scores, batch[1]), scores.argmax(1) == batch[1]
        return {f"{stage}_acc": hits.float().mean(), f"{stage}_loss": loss}

    def validation_step(self, batch: Any, batch_idx: int) -> Any:  # type: ignore[override]
        metrics = self._measured(batch, "val")
        self.log_dict(metrics)
        return metrics

    def test_step(self, batch: Any, batch_idx: int) -> Any:  # type: ignore[override]
        metrics = self._measured(batch, "test")
        self.log_dict(metrics)
        return metrics

    def predict_step(self, batch: Any, batch_idx: int, dataloader_idx: int) -> Any:  # type: ignore[override]
        self.model(batch[0])

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.model.parameters(), lr=0.02)


@pytest.mark.parametrize("model", [
    lambda: nn.Sequential(nn.Flatten(), nn.Linear(9, 2)),
    lambda: nn.Sequential(nn.Conv2d(1, 2, 3), nn.Dropout(), nn.Flatten()),
])  # fmt: skip
def test_a_task_trains_any_model_and_does_without_forward(model: Callable[[], nn.Module]) -> None:
    trained = model()
    before = [parameter.clone() for parameter in trained.parameters()]
    trainer, task = quiet(), Task(trained)
    trainer.fit(task, images(3), images(2))
    assert {"val_acc", "val_loss"} == set(trainer.callback_metrics)
    [tested] = trainer.test(dataloaders=images(2))
    assert set(tested) == {"test_acc", "test_loss"}
    assert trainer.predict(task, images(2)) == [None, None]
    assert not any(map(torch.equal, before, trained.parameters()))
    trained.eval()
    x, y = images(2).batches[-1]
    assert torch.equal(nn.functional.cross_entropy(trained(x), y), task._measured((x, y), "test")["test_loss"])


class Autoencoder(LightningModule):
    """Its loops share a step, and a prediction is an embedding."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder, self.decoder = nn.Linear(9, 2), nn.Linear(2, 9)

    def shared_step(self, batch: Any) -> Tensor:
        x = batch[0].flatten(1)
        return nn.functional.mse_loss(self.decoder(self.encoder(x)), x)

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        return self.shared_step(batch)

    def validation_step(self, batch: Any, batch_idx: int) -> Any:  # type: ignore[override]
        self.log("val_loss", self.shared_step(batch))

    def predict_step(self, batch: Any, batch_idx: int, dataloader_idx: int) -> Any:  # type: ignore[override]
        return self.encoder(batch[0].flatten(1))

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.parameters(), lr=0.05)


def test_an_autoencoder_predicts_its_embeddings() -> None:
    trainer, module = quiet(max_epochs=30), Autoencoder()
    trainer.fit(module, images(4), images(4))
    assert trainer.callback_metrics["val_loss"] < 0.1
    embeddings = trainer.predict(module, images(3))
    assert embeddings is not None and [tuple(each.shape) for each in embeddings] == [(4, 2)] * 3


# ---- optimizers ------------------------------------------------------------------------------------------


class Two(Line):
    """Two optimizers; `used` tells whose step ran on which batch."""

    def __init__(self, **beside: Any) -> None:
        super().__init__()
        self.beside = beside
        self.used: list[tuple[int, int]] = []

    def training_step(self, batch: Any, batch_idx: int, optimizer_idx: int) -> Any:  # type: ignore[override]
        self.used.append((batch_idx, optimizer_idx))
        loss = self.loss(batch)
        self.log("metric_to_track", 1.0, on_step=False, on_epoch=True)
        return loss

    def configure_optimizers(self) -> Any:
        first, second = SGD([self.layer.weight], lr=1.0), SGD([self.layer.bias], lr=1.0)
        return {"optimizer": first}, {"optimizer": second, **self.beside}


def test_a_frequency_may_be_given_to_one_optimizer() -> None:
    module = Two(frequency=2)
    quiet(limit_val_batches=0).fit(module, pairs(6))
    assert [optimizer for _, optimizer in module.used] == [0, 1, 1, 0, 1, 1]


def test_one_of_two_schedulers_monitors() -> None:
    class Scheduled(Two):
        def configure_optimizers(self) -> Any:
            first, second = super().configure_optimizers()
            plateau = ReduceLROnPlateau(first["optimizer"], factor=0.5, patience=0)
            return (
                {**first, "lr_scheduler": {"scheduler": plateau, "monitor": "metric_to_track"}},
                {**second, "lr_scheduler": LambdaLR(second["optimizer"], lambda epoch: 0.1**epoch)},
            )

    trainer = quiet(max_epochs=2, limit_val_batches=0)
    trainer.fit(Scheduled(), pairs(1))
    assert [optimizer.param_groups[0]["lr"] for optimizer in trainer.optimizers] == pytest.approx([0.5, 0.01])


def test_optimizers_alternate_as_optimizer_step_says() -> None:
    class Alternating(Two):
        def optimizer_step(  # type: ignore[override]
            self, epoch: Any, batch_idx: Any, optimizer: Any, optimizer_idx: Any, optimizer_closure: Any,
            on_tpu: Any, using_native_amp: Any, using_lbfgs: Any,
        ) -> None:  # fmt: skip
            if optimizer_idx == 0 or (batch_idx + 1) % 2 == 0:
                optimizer.step(closure=optimizer_closure)

    module = Alternating()
    quiet(limit_val_batches=0).fit(module, pairs(4))
    assert module.used == [(0, 0), (1, 0), (1, 1), (2, 0), (3, 0), (3, 1)]


def test_the_learning_rate_is_warmed_up() -> None:
    class Warming(Line):
        learning_rate = 0.5

        def optimizer_step(  # type: ignore[override]
            self, epoch: Any, batch_idx: Any, optimizer: Any, optimizer_idx: Any, optimizer_closure: Any,
            on_tpu: Any, using_native_amp: Any, using_lbfgs: Any,
        ) -> None:  # fmt: skip
            assert self.trainer is not None
            for group in optimizer.param_groups:
                group["lr"] = min(1.0, (self.trainer.global_step + 1) / 3) * self.learning_rate
            rates.append(optimizer.param_groups[0]["lr"])
            optimizer.step(closure=optimizer_closure)

    rates: list[float] = []
    quiet(max_epochs=2, limit_val_batches=0).fit(Warming(), pairs(2))
    assert rates == pytest.approx([0.5 / 3, 1 / 3, 0.5, 0.5])


@pytest.mark.parametrize("to_none", [True, False])
def test_gradients_are_cleared_as_optimizer_zero_grad_says(to_none: bool) -> None:
    class Clearing(Line):
        def optimizer_zero_grad(self, epoch: int, batch_idx: int, optimizer: Any, optimizer_idx: int) -> None:
            optimizer.zero_grad(set_to_none=to_none)

        def on_before_backward(self, loss: Tensor) -> None:
            seen.append(None if self.layer.weight.grad is None else float(self.layer.weight.grad.abs().sum()))

    seen: list[Any] = []
    quiet(limit_val_batches=0).fit(Clearing(), pairs(2))
    assert seen == [None, None if to_none else 0.0]


# ---- hooks -----------------------------------------------------------------------------------------------


def test_what_an_epoch_end_returns_means_nothing() -> None:
    class Returning(Line):
        def training_epoch_end(self, outputs: Any) -> Any:
            return {"loss": outputs}

        def validation_epoch_end(self, outputs: Any) -> Any:
            return outputs

    trainer = quiet()
    trainer.fit(Returning(), pairs(2), pairs(1))
    assert trainer.validate(Returning(), pairs(1)) == [{}]


def test_what_steps_kept_is_read_at_the_epochs_end() -> None:
    class Keeping(Line):
        def on_train_epoch_start(self) -> None:
            self.kept: list[int] = []

        def training_step(self, batch: Any, batch_idx: int) -> Any:
            self.kept.append(batch_idx)
            return self.loss(batch)

        def on_train_epoch_end(self) -> None:
            read.append(self.kept)

    read: list[list[int]] = []
    quiet(max_epochs=2, limit_val_batches=0).fit(Keeping(), pairs(2))
    assert read == [[0, 1], [0, 1]]


def test_loggers_are_closed_after_on_train_end() -> None:
    events: list[str] = []

    class Watching(Logger):
        def log_metrics(self, metrics: Any, step: int) -> None:
            events.append("logged")

        def finalize(self, status: str) -> None:
            events.append("closed")

    class Late(Line):
        def on_train_end(self) -> None:
            assert self.logger is not None
            self.logger.experiment.log_metrics({"last": 1.0}, self.global_step)
            events.append("on_train_end")

    quiet(logger=Watching(), limit_val_batches=0).fit(Late(), pairs(1))
    assert events == ["logged", "on_train_end", "closed"]


@pytest.mark.parametrize("stage", ["validation", "test"])
def test_the_mode_of_an_evaluation_is_what_its_hook_makes_it(stage: str) -> None:
    modes: list[bool] = []

    class Own(Line):
        def validation_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> Any:
            modes.append(self.layer.training)

        test_step = validation_step

    module = Own()
    vars(module)[f"on_{stage}_model_eval"] = lambda: module.layer.train()
    vars(module)[f"on_{stage}_model_train"] = lambda: module.layer.eval()
    module.layer.eval()
    run = quiet().validate if stage == "validation" else quiet().test
    run(module, pairs(1))
    assert (modes, module.layer.training) == ([True], False)


# ---- data ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sanity, asked", [(0, ["train", "val"]), (1, ["val", "train"])])
def test_loaders_are_asked_for_in_the_listed_order(sanity: int, asked: list[str]) -> None:
    """The sanity check alone comes before."""
    seen: list[str] = []

    class Telling(Line):
        def prepare_data(self) -> None:
            seen.append("prepare_data")

        def setup(self, stage: str | None = None) -> None:
            seen.append(f"setup {stage}")

        def train_dataloader(self) -> Any:
            return seen.append("train") or pairs(1)  # type: ignore[func-returns-value]

        def val_dataloader(self) -> Any:
            return seen.append("val") or pairs(1)  # type: ignore[func-returns-value]

        def test_dataloader(self) -> Any:
            return seen.append("test") or pairs(1)  # type: ignore[func-returns-value]

    trainer, module = quiet(num_sanity_val_steps=sanity), Telling()
    trainer.fit(module)
    trainer.test(module)
    assert seen == ["prepare_data", "setup fit", *asked, "prepare_data", "setup test", "test"]


def test_the_data_module_can_be_asked_for_its_loaders() -> None:
    class Data(LightningDataModule):
        def train_dataloader(self) -> Any:
            return pairs(3)

    class Asking(Line):
        def configure_optimizers(self) -> Any:
            assert self.trainer is not None and self.trainer.datamodule is not None
            steps.append(len(self.trainer.datamodule.train_dataloader()))
            return super().configure_optimizers()

    steps: list[int] = []
    quiet(limit_val_batches=0).fit(Asking(), datamodule=Data())
    assert steps == [3]


class Custom:
    """A batch that PyTorch does not know how to move."""

    def __init__(self, samples: Tensor, targets: Tensor) -> None:
        self.samples, self.targets = samples, targets


def test_a_batch_of_ones_own_class_is_moved_as_the_module_says() -> None:
    class Moving(Line):
        def transfer_batch_to_device(self, batch: Any, device: Any) -> Any:  # type: ignore[override]
            moved.append(type(batch).__name__)
            if not isinstance(batch, Custom):
                return super().transfer_batch_to_device(batch, device)
            batch.samples, batch.targets = batch.samples.to(device), batch.targets.to(device)
            return batch

        def training_step(self, batch: Any, batch_idx: int) -> Any:
            return self.loss((batch.samples, batch.targets))

    moved: list[str] = []
    quiet().fit(Moving(), Batches(Custom(*batch) for batch in pairs(1)), pairs(1))
    assert moved == ["Custom", "tuple"]
