"""Truncated backpropagation through time: against a loop written by hand, and how batches are cut."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from models import Batches, quiet
from torch import Tensor, nn
from torch.optim import SGD

from refimpl import ConfigurationError, LightningModule, LogError
from refimpl.optimizers.tbptt import split_batch

FEATURES = 2


def sequences(count: int, time: int, seed: int = 0) -> list[Any]:
    """Batches (x, y) of 3 sequences of `time` in float64."""
    generator = torch.Generator().manual_seed(seed)

    def draw(features: int) -> Tensor:
        return torch.randn(count, 3, time, features, generator=generator, dtype=torch.float64)

    return list(zip(draw(FEATURES), draw(1)))


class Recurrent(LightningModule):
    """A recurrent layer and a line, with one optimizer or one each."""

    def __init__(self, steps: int = 0, optimizers: int = 1) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.rnn = nn.RNN(FEATURES, 4, batch_first=True, dtype=torch.float64)
        self.line = nn.Linear(4, 1, dtype=torch.float64)
        self.truncated_bptt_steps, self.count = steps, optimizers
        self.seen: list[tuple[Any, ...]] = []

    def loss(self, piece: Any, hiddens: Any) -> tuple[Tensor, Any]:
        x, y = piece
        out, hiddens = self.rnn(x, hiddens)
        return ((self.line(out) - y) ** 2).mean(), hiddens

    def training_step(self, batch: Any, batch_idx: int, *more: Any) -> Any:
        hiddens = more[-1]
        self.seen.append((batch_idx, *more[:-1], batch[0].shape[1], hiddens is not None and hiddens.requires_grad))
        loss, hiddens = self.loss(batch, hiddens)
        return {"loss": loss, "hiddens": hiddens}

    def made(self) -> list[Any]:
        if self.count == 1:
            return [SGD(self.parameters(), lr=0.1, momentum=0.5)]
        return [SGD(layer.parameters(), lr=0.1, momentum=0.5) for layer in (self.rnn, self.line)]

    def configure_optimizers(self) -> Any:
        return self.made()


def by_hand(steps: int, optimizers: int, window: int, batches: list[Any]) -> Recurrent:
    module = Recurrent()
    module.count = optimizers
    made = module.made()
    added: list[Any] = [None] * optimizers
    for index, batch in enumerate(batches):
        time, carried = batch[0].shape[1], [None] * optimizers
        closes = (index + 1) % window == 0 or index + 1 == len(batches)
        for start in range(0, time, steps):
            piece = [part[:, start : start + steps] for part in batch]
            for turn, optimizer in enumerate(made):
                own = [parameter for group in optimizer.param_groups for parameter in group["params"]]
                loss, hiddens = module.loss(piece, carried[turn])
                gradients = torch.autograd.grad(loss / window, own, allow_unused=True)
                carried[turn] = hiddens.detach()
                sums = added[turn] or [torch.zeros_like(parameter) for parameter in own]
                added[turn] = [total + (0 if new is None else new) for total, new in zip(sums, gradients)]
                if window == 1 or (closes and start + steps >= time):
                    for parameter, gradient in zip(own, added[turn]):
                        parameter.grad = gradient
                    optimizer.step()
                    added[turn] = None
    return module


@given(st.integers(1, 3), st.integers(1, 5), st.integers(1, 4), st.integers(1, 2), st.integers(1, 3))
def test_it_trains_as_a_loop_written_by_hand(count: int, time: int, steps: int, optimizers: int, window: int) -> None:
    batches, module = sequences(count, time), Recurrent(steps, optimizers)
    trainer = quiet(limit_val_batches=0, accumulate_grad_batches=window)
    trainer.fit(module, Batches(batches))
    expected = by_hand(steps, optimizers, window, batches)
    for mine, theirs in zip(module.parameters(), expected.parameters()):
        torch.testing.assert_close(mine, theirs, rtol=1e-12, atol=1e-14)
    assert trainer.global_step == -(-count // window)


def test_what_the_step_and_the_hooks_get() -> None:
    outputs: list[Any] = []

    class Ending(Recurrent):
        def on_train_batch_end(self, output: Any, batch: Any, batch_idx: int, dataloader_idx: int) -> None:
            outputs.append([item["loss"].requires_grad for item in output])
            assert batch[0].shape[1] == 5

    module = Ending(2)
    quiet(limit_val_batches=0).fit(module, Batches(sequences(2, 5)))
    assert module.seen == [(i, time, False) for i in (0, 1) for time in (2, 2, 1)]
    assert outputs == [[False] * 3] * 2
    two = Recurrent(3, optimizers=2)
    quiet(limit_val_batches=0).fit(two, Batches(sequences(1, 5)))
    assert [row[:3] for row in two.seen] == [(0, 0, 3), (0, 1, 3), (0, 0, 2), (0, 1, 2)]


def test_the_progress_bar_is_told_the_piece() -> None:
    shown: list[Any] = []

    class Telling(Recurrent):
        def training_step(self, batch: Any, batch_idx: int, *more: Any) -> Any:
            shown.append(self.get_progress_bar_dict())
            return super().training_step(batch, batch_idx, *more)

    quiet(limit_val_batches=0).fit(Telling(2), Batches(sequences(2, 5)))
    assert shown == [{"split_idx": index} for _ in range(2) for index in range(3)]
    assert Recurrent(2).get_progress_bar_dict() == {}


def test_each_optimizer_has_its_own_hidden_states_and_each_batch_begins_without() -> None:
    handed: list[Any] = []

    class Telling(Recurrent):
        def training_step(self, batch: Any, batch_idx: int, *more: Any) -> Any:
            optimizer_idx, hiddens = more
            handed.append(hiddens)
            if batch_idx == 1 and batch[0].shape[1] == 2 and optimizer_idx == 0:
                return None  # goes on with the next piece, which gets the last hidden states there were
            loss, _ = self.loss(batch, None)
            return {"loss": loss, "hiddens": {"of": (optimizer_idx, batch_idx, batch[0].shape[1])}}

    quiet(limit_val_batches=0).fit(Telling(2, optimizers=2), Batches(sequences(2, 3)))
    assert handed == [None, None, {"of": (0, 0, 2)}, {"of": (1, 0, 2)}, None, None, None, {"of": (1, 1, 2)}]


def test_frequencies_give_whole_batches() -> None:
    class Turning(Recurrent):
        def configure_optimizers(self) -> Any:
            return [{"optimizer": optimizer, "frequency": 1} for optimizer in self.made()]

    module = Turning(2, optimizers=2)
    quiet(limit_val_batches=0).fit(module, Batches(sequences(3, 4)))
    assert [row[1] for row in module.seen] == [0, 0, 1, 1, 0, 0]


def test_an_overridden_split_is_used_after_the_transfer() -> None:
    order: list[str] = []

    class Splitting(Recurrent):
        def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
            order.append("transfer")
            return batch

        def tbptt_split_batch(self, batch: Any, split_size: int) -> Any:
            order.append(f"split by {split_size}")
            return [batch]

    module = Splitting(2)
    quiet(limit_val_batches=0).fit(module, Batches(sequences(1, 5)))
    assert order == ["transfer", "split by 2"]
    assert module.seen == [(0, 5, False)]


@pytest.mark.parametrize("change, told", [
    ({"truncated_bptt_steps": -1}, "truncated_bptt_steps is -1; an int from 1"),
    ({"truncated_bptt_steps": 1.5}, "truncated_bptt_steps is 1.5; an int from 1"),
    ({"tbptt_split_batch": lambda batch, size: []}, r"tbptt_split_batch returned \[\]; a list of at least one piece"),
    ({"tbptt_split_batch": lambda batch, size: None}, "tbptt_split_batch returned None"),
    ({"training_step_end": lambda output: output["loss"]}, "returned Tensor; .* with 'loss' and 'hiddens'"),
    ({"training_step_end": lambda output: {"loss": output["loss"]}}, r"a dict with the keys \['loss'\]"),
    ({"training_step": lambda batch, batch_idx: None}, r"called as training_step\(batch, batch_idx, hiddens\)"),
])  # fmt: skip
def test_what_cannot_be_is_told(change: dict[str, Any], told: str) -> None:
    module = Recurrent(2)
    for name, value in change.items():
        setattr(module, name, value)
    with pytest.raises(ConfigurationError, match=told):
        quiet(limit_val_batches=0).fit(module, Batches(sequences(1, 4)))


# ---- tbptt_split_batch ------------------------------------------------------------------------------------

X = torch.arange(20).reshape(2, 5, 2)


def test_tensors_and_sequences_are_cut_along_time() -> None:
    rows = [[1, 2, 3, 4, 5], [6, 7, 8, 9, 10]]
    pieces = split_batch((X, rows, 7, torch.ones(2), "name"), 2)
    assert [piece[0].shape[1] for piece in pieces] == [2, 2, 1]
    assert torch.equal(torch.cat([piece[0] for piece in pieces], 1), X)
    assert [piece[1] for piece in pieces] == [[[1, 2], [6, 7]], [[3, 4], [8, 9]], [[5], [10]]]
    assert all(piece[2] == 7 and piece[3].shape == (2,) and piece[4] == "name" for piece in pieces)


def test_a_tensor_and_a_dict_are_batches_too() -> None:
    assert [piece.shape for piece in split_batch(X, 3)] == [(2, 3, 2), (2, 2, 2)]
    pieces = split_batch({"x": X, "rows": [torch.arange(5), torch.arange(5)], "n": 1}, 4)
    assert [(p["x"].shape[1], [len(row) for row in p["rows"]], p["n"]) for p in pieces] == [
        (4, [4, 4], 1),
        (1, [1, 1], 1),
    ]


@pytest.mark.parametrize("batch, told", [
    ((X, X[:, :3]), r"different lengths of time: \{0: 5, 1: 3\}"),
    ((X, [[1, 2], [3]]), r"sequences of different lengths: \[1, 2\]"),
    ((torch.ones(2), 3), "no dimension of time"), (5, "no dimension of time: int"), ([], "no dimension of time"),
])  # fmt: skip
def test_a_batch_that_cannot_be_cut(batch: Any, told: str) -> None:
    with pytest.raises(ConfigurationError, match=told):
        split_batch(batch, 2)


def test_tbptt_split_batch_may_not_log() -> None:
    class Logging(Recurrent):
        def tbptt_split_batch(self, batch: Any, split_size: int) -> Any:
            self.log("v", 1.0)

    with pytest.raises(LogError, match="tbptt_split_batch may not log"):
        quiet(limit_val_batches=0).fit(Logging(2), Batches(sequences(1, 4)))
