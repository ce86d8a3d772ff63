"""accumulate_grad_batches: windows of batches, against loops written by hand."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from models import Line, Stream, pairs, quiet
from torch.optim import SGD
from torch.optim.lr_scheduler import ExponentialLR

from refimpl import ConfigurationError


class Noting(Line):
    """Keeps what the hooks of an update see; steps at `without` return None. The rate halves per update."""

    def __init__(self, without: tuple[int, ...] = ()) -> None:
        super().__init__(lambda parameters: SGD(parameters, lr=0.5, momentum=0.5))
        self.without = without
        self.noted: list[tuple[str, int]] = []
        self.losses: list[float] = []

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        self.noted.append(("step", self.global_step))
        return None if batch_idx in self.without else self.loss(batch)

    def on_before_zero_grad(self, optimizer: Any) -> None:
        self.noted.append(("zero", self.global_step))

    def on_before_backward(self, loss: Any) -> None:
        self.losses.append(float(loss.detach()))

    def on_before_optimizer_step(self, optimizer: Any, optimizer_idx: int) -> None:
        self.noted.append(("update", self.global_step))

    def configure_optimizers(self) -> Any:
        optimizer = self.optimizer(self.parameters())
        return [optimizer], [{"scheduler": ExponentialLR(optimizer, 0.5), "interval": "step"}]


def by_hand(epochs: int, window: int, batches: list[Any], without: tuple[int, ...] = ()) -> Line:
    module = Line()
    optimizer = SGD(module.parameters(), lr=0.5, momentum=0.5)
    rate = ExponentialLR(optimizer, 0.5)
    for _ in range(epochs):
        for start in range(0, len(batches), window):
            optimizer.zero_grad()
            kept = [i for i in range(start, min(start + window, len(batches))) if i not in without]
            for index in kept:
                (module.loss(batches[index]) / window).backward()
            if kept:
                optimizer.step()
                rate.step()
    return module


@given(st.integers(1, 7), st.integers(1, 4), st.sets(st.integers(0, 6)).map(tuple), st.booleans(), st.integers(1, 2))
def test_a_window_is_one_update(count: int, window: int, without: tuple[int, ...], sized: bool, epochs: int) -> None:
    batches, module = pairs(count), Noting(without)
    loader = batches if sized else Stream(batches.batches)
    trainer = quiet(max_epochs=epochs, limit_val_batches=0, accumulate_grad_batches=window)
    trainer.fit(module, loader)
    expected = by_hand(epochs, window, batches.batches, without)
    assert torch.equal(module.layer.weight, expected.layer.weight)
    assert torch.equal(module.layer.bias, expected.layer.bias)
    assert trainer.global_step == epochs * -(-count // window)  # the windows, the last one cut short


def test_what_the_hooks_see() -> None:
    module = Noting()
    quiet(limit_val_batches=0, accumulate_grad_batches=2).fit(module, pairs(3))
    assert module.noted == [
        ("step", 0), ("zero", 0), ("step", 0), ("update", 0), ("step", 1), ("zero", 1), ("update", 1),
    ]  # fmt: skip
    whole = Noting()
    quiet(limit_val_batches=0, limit_train_batches=1).fit(whole, pairs(3))
    assert module.losses[0] == whole.losses[0] / 2


def test_a_schedule_by_epoch() -> None:
    module = Noting()
    trainer = quiet(max_epochs=4, limit_val_batches=0, accumulate_grad_batches={1: 2, 3: 4})
    trainer.fit(module, pairs(4))
    updates = [step for what, step in module.noted if what == "update"]
    assert updates == list(range(4 + 2 + 2 + 1))


def test_max_steps_counts_updates_and_val_check_interval_batches() -> None:
    validated: list[int] = []

    class Validating(Noting):
        def on_validation_start(self) -> None:
            validated.append(self.global_step)

    module = Validating()
    quiet(max_steps=3, max_epochs=-1, accumulate_grad_batches=2, val_check_interval=3).fit(module, pairs(6), pairs(1))
    assert [what for what, _ in module.noted].count("step") == 6
    assert validated == [1, 2]


def test_a_validation_in_mid_window_leaves_the_gradients_alone() -> None:
    validated, plain = Noting(), Noting()
    quiet(val_check_interval=1, accumulate_grad_batches=3).fit(validated, pairs(6), pairs(2, seed=1))
    quiet(limit_val_batches=0, accumulate_grad_batches=3).fit(plain, pairs(6))
    assert torch.equal(validated.layer.weight, plain.layer.weight)


def test_an_epoch_left_in_mid_window_leaves_nothing_to_the_next() -> None:
    class Leaving(Noting):
        def on_train_batch_start(self, batch: Any, batch_idx: int, dataloader_idx: int) -> Any:
            return -1 if self.current_epoch == 0 and batch_idx == 1 else None

    module = Leaving()
    quiet(max_epochs=2, limit_val_batches=0, accumulate_grad_batches=2).fit(module, pairs(2))
    expected = by_hand(1, 2, pairs(2).batches)
    assert torch.equal(module.layer.weight, expected.layer.weight)


def test_several_optimizers_with_frequencies_own_whole_windows() -> None:
    owners: list[tuple[int, int]] = []

    class Two(Line):
        def training_step(self, batch: Any, batch_idx: int, optimizer_idx: int) -> Any:  # type: ignore[override]
            owners.append((batch_idx, optimizer_idx))
            return self.loss(batch)

        def configure_optimizers(self) -> Any:
            layers = [[self.layer.weight], [self.layer.bias]]
            return [{"optimizer": SGD(own, lr=0.1), "frequency": 1} for own in layers]

    quiet(limit_val_batches=0, accumulate_grad_batches=2, max_epochs=2).fit(Two(), pairs(3))
    assert owners == [(0, 0), (1, 0), (2, 1), (0, 0), (1, 0), (2, 1)]


def test_an_optimizer_that_evaluates_its_closure_again_is_refused() -> None:
    module = Line(lambda parameters: torch.optim.LBFGS(parameters, lr=0.1))
    told = r"LBFGS evaluates its closure more than once.*accumulate_grad_batches=2"
    with pytest.raises(ConfigurationError, match=told):
        quiet(limit_val_batches=0, accumulate_grad_batches=2).fit(module, pairs(2))
