"""LightningModule: what a user's module can do, with a trainer and without."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest
import torch
from models import Batches, Line, pairs, quiet
from torch import nn

from refimpl import Callback, LightningModule


def test_it_is_an_nn_module_that_can_be_used_without_a_trainer() -> None:
    module = Line()
    assert isinstance(module, nn.Module)
    assert (module.current_epoch, module.global_step, module.global_rank) == (0, 0, 0)
    assert module.trainer is None
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


def test_device_is_where_the_parameters_are() -> None:
    assert Line().device == torch.device("cpu")
    assert Line().to("meta").device == torch.device("meta")
    assert LightningModule().device == torch.device("cpu")
    module = LightningModule()
    module.trainer = quiet()
    module.trainer.device = torch.device("meta")
    assert module.device == torch.device("meta")
    module.register_buffer("buffer", torch.zeros(1))
    assert module.device == torch.device("cpu")


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
    module.trainer.global_rank = 1
    module.print("a")
    assert capsys.readouterr().out == ""


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
