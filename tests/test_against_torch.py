"""Whole trainings against loops written by hand in PyTorch, in float64: drawn plans of optimizers, frequencies,
accumulation, clipping, truncated backpropagation, steps without a loss, and schedulers of every kind.

Weights, each step's learning rates and each logged loss are the very same numbers, bit by bit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import cycle
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from models import Batches, quiet
from torch import Tensor, nn
from torch.optim import LBFGS, SGD, Adam, Optimizer
from torch.optim.lr_scheduler import ExponentialLR, ReduceLROnPlateau

from refimpl import LightningModule

TIME = 4
KINDS: dict[str, Callable[[Any], Optimizer]] = {
    "sgd": lambda parameters: SGD(parameters, lr=0.1, momentum=0.5, weight_decay=0.25),
    "adam": lambda parameters: Adam(parameters, lr=0.1),
}


@dataclass(frozen=True)
class Schedule:
    """A scheduler: its interval, the frequency in its lr_dict, and whether it reacts to the logged loss."""

    interval: str
    frequency: int
    reacts: bool

    def made(self, optimizer: Optimizer) -> Any:
        return ReduceLROnPlateau(optimizer, factor=0.5, patience=0) if self.reacts else ExponentialLR(optimizer, 0.5)


@dataclass(frozen=True)
class Plan:
    """One training. `sizes` are those of an epoch's batches; the steps of batches in `without` return None."""

    epochs: int
    sizes: tuple[int, ...]
    without: frozenset[int]
    kinds: tuple[str, ...]
    frequencies: tuple[int, ...]
    schedules: tuple[Schedule | None, ...]
    window: int
    clip: tuple[str, float] | None
    tbptt: int

    def batches(self) -> list[tuple[Tensor, Tensor]]:
        generator = torch.Generator().manual_seed(len(self.sizes))
        draw = lambda size, width: torch.randn(size, TIME, width, generator=generator, dtype=torch.float64)  # noqa: E731
        return [(draw(size, 2), draw(size, 1)) for size in self.sizes]

    def pieces(self, batch: tuple[Tensor, Tensor]) -> list[tuple[Tensor, Tensor]]:
        steps = self.tbptt or TIME
        return [(batch[0][:, t : t + steps], batch[1][:, t : t + steps]) for t in range(0, TIME, steps)]


SCHEDULES = st.one_of(
    st.none(), st.builds(Schedule, st.sampled_from(["step", "epoch"]), st.integers(1, 3), st.booleans())
)


@st.composite
def plans(draw: st.DrawFn) -> Plan:
    count = draw(st.integers(1, 2))
    times = {"min_size": count, "max_size": count}
    return Plan(
        epochs=draw(st.integers(1, 3)),
        sizes=tuple(draw(st.lists(st.integers(1, 3), min_size=1, max_size=5))),
        without=draw(st.frozensets(st.integers(0, 4), max_size=2)),
        kinds=tuple(draw(st.lists(st.sampled_from(list(KINDS)), **times))),
        frequencies=tuple(draw(st.one_of(st.just([]), st.lists(st.integers(1, 3), **times)))) if count > 1 else (),
        schedules=tuple(draw(st.lists(SCHEDULES, **times))),
        window=draw(st.integers(1, 3)),
        clip=draw(st.one_of(st.none(), st.tuples(st.sampled_from(["norm", "value"]), st.sampled_from([0.1, 0.5])))),
        tbptt=draw(st.sampled_from([0, 0, 1, 2, 3])),
    )


class Net(nn.Module):
    """Two layers, whose outputs are added to what is left of the last time of the piece before."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(2, 1, dtype=torch.float64) for _ in range(2))
        with torch.no_grad():
            for number, parameter in enumerate(self.parameters()):
                parameter.copy_(torch.linspace(-0.5, 0.5 + number, parameter.numel()).reshape(parameter.shape))

    def loss(self, piece: tuple[Tensor, Tensor], hidden: Tensor | None) -> tuple[Tensor, Tensor]:
        x, y = piece
        out: Tensor = self.layers[0](x) + self.layers[1](x)
        out = out if hidden is None else out + 0.5 * hidden
        return ((out - y) ** 2).mean(), out[:, -1:]

    def owned(self, count: int) -> list[list[nn.Parameter]]:
        """The parameters of one optimizer, or of two."""
        return [list(self.parameters())] if count == 1 else [list(layer.parameters()) for layer in self.layers]


class Planned(LightningModule, Net):
    """The plan in the engine."""

    def __init__(self, plan: Plan) -> None:
        super().__init__()
        self.plan, self.truncated_bptt_steps = plan, plan.tbptt
        self.rates: list[list[float]] = []
        self.losses: list[float] = []
        self.means: list[float] = []

    def training_step(self, batch: Any, batch_idx: int, *more: Any) -> Any:
        assert self.trainer is not None
        self.rates.append([group["lr"] for optimizer in self.trainer.optimizers for group in optimizer.param_groups])
        if batch_idx in self.plan.without:
            return None
        loss, hidden = self.loss(batch, more[-1] if self.plan.tbptt else None)
        self.losses.append(float(loss.detach()))
        self.log("loss", loss, on_step=True, on_epoch=True)
        return {"loss": loss, "hiddens": hidden} if self.plan.tbptt else loss

    def on_train_epoch_end(self) -> None:
        assert self.trainer is not None
        if "loss_epoch" in self.trainer.callback_metrics:
            self.means.append(float(self.trainer.callback_metrics["loss_epoch"]))

    def configure_optimizers(self) -> Any:
        rows: list[dict[str, Any]] = []
        for kind, own, schedule in zip(self.plan.kinds, self.owned(len(self.plan.kinds)), self.plan.schedules):
            rows.append({"optimizer": KINDS[kind](own)})
            if schedule is not None:
                rows[-1]["lr_scheduler"] = {
                    "scheduler": schedule.made(rows[-1]["optimizer"]),
                    "interval": schedule.interval,
                    "frequency": schedule.frequency,
                    **({"monitor": "loss", "strict": False} if schedule.reacts else {}),
                }
        for row, frequency in zip(rows, self.plan.frequencies):
            row["frequency"] = frequency
        return rows


class ByHand:
    """The same plan as somebody would write it without a trainer."""

    def __init__(self, plan: Plan) -> None:
        self.plan, self.net = plan, Net()
        self.owned = self.net.owned(len(plan.kinds))
        self.optimizers = [KINDS[kind](own) for kind, own in zip(plan.kinds, self.owned)]
        self.schedulers = [s and s.made(optimizer) for s, optimizer in zip(plan.schedules, self.optimizers)]
        self.turns: Iterator[int] = cycle(i for i, times in enumerate(plan.frequencies) for _ in range(times))
        self.passed = [0] * len(plan.kinds)
        self.rates: list[list[float]] = []
        self.losses: list[float] = []
        self.means: list[float] = []
        self.logged: float | None = None  # what can be monitored

    def fit(self) -> None:
        batches = self.plan.batches()
        for _ in range(self.plan.epochs):
            self.weighted: list[tuple[float, int]] = []
            self.fresh, used = [True] * len(self.plan.kinds), set()
            for start in range(0, len(batches), self.plan.window):
                owners = [next(self.turns)] if self.plan.frequencies else list(range(len(self.plan.kinds)))
                used.update(owners)
                window = list(enumerate(batches))[start : start + self.plan.window]
                for index, batch in window:
                    self.train_on(index, batch, owners, closes=index == window[-1][0])
            total = sum(weight for _, weight in self.weighted)
            if total:
                self.logged = sum(value * weight for value, weight in self.weighted) / total
                self.means.append(self.logged)
            for index in sorted(used):
                self.pass_scheduler(index, "epoch")

    def train_on(self, index: int, batch: Any, owners: list[int], closes: bool) -> None:
        hiddens: dict[int, Tensor] = {}
        self.due: set[int] = set()
        pieces = self.plan.pieces(batch)
        for number, piece in enumerate(pieces):
            last = closes and (self.plan.window == 1 or number == len(pieces) - 1)
            for owner in owners:
                self.rates.append([group["lr"] for o in self.optimizers for group in o.param_groups])
                if index not in self.plan.without:
                    loss, hidden = self.net.loss(piece, hiddens.get(owner))
                    hiddens[owner] = hidden.detach()
                    self.add_gradient(loss, owner)
                    self.logged = float(loss.detach())
                    self.losses.append(self.logged)
                    self.weighted.append((self.logged, len(piece[0])))
                if last:
                    self.update(owner)
        for owner in sorted(self.due):
            self.step_scheduler(owner)

    def add_gradient(self, loss: Tensor, owner: int) -> None:
        if self.fresh[owner] or self.plan.window == 1:
            self.optimizers[owner].zero_grad()
        self.fresh[owner] = False
        gradients = torch.autograd.grad(loss / self.plan.window if self.plan.window > 1 else loss, self.owned[owner])
        for parameter, gradient in zip(self.owned[owner], gradients):
            parameter.grad = gradient if parameter.grad is None else parameter.grad + gradient

    def update(self, owner: int) -> None:
        if self.fresh[owner]:
            return  # no step of the window had a loss
        self.clip([parameter.grad for parameter in self.owned[owner] if parameter.grad is not None])
        self.optimizers[owner].step()
        self.fresh[owner] = True
        self.pass_scheduler(owner, "step")

    def clip(self, gradients: list[Tensor]) -> None:
        if self.plan.clip is None:
            return
        algorithm, most = self.plan.clip
        norm = torch.stack([gradient.square().sum().sqrt() for gradient in gradients]).square().sum().sqrt()
        for gradient in gradients:
            if algorithm == "norm":
                gradient.mul_((most / (norm + 1e-6)).clamp(max=1.0))
            else:
                gradient.clamp_(-most, most)

    def pass_scheduler(self, index: int, interval: str) -> None:
        schedule = self.plan.schedules[index]
        if schedule is None or schedule.interval != interval:
            return
        self.passed[index] += 1
        if self.passed[index] % schedule.frequency == 0:
            if schedule.reacts and interval == "step":
                self.due.add(index)
            else:
                self.step_scheduler(index)

    def step_scheduler(self, index: int) -> None:
        schedule, scheduler = self.plan.schedules[index], self.schedulers[index]
        assert schedule is not None
        if not schedule.reacts:
            scheduler.step()
        elif self.logged is not None:
            scheduler.step(self.logged)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:ReduceLROnPlateau monitors 'loss'")  # a plan may have no loss at all
@pytest.mark.filterwarnings("ignore:Detected call of `lr_scheduler.step")
@settings(max_examples=300)
@given(plans())
def test_the_engine_trains_as_the_loop_written_by_hand(plan: Plan) -> None:
    module, by_hand = Planned(plan), ByHand(plan)
    clip = {} if plan.clip is None else {"gradient_clip_algorithm": plan.clip[0], "gradient_clip_val": plan.clip[1]}
    trainer = quiet(max_epochs=plan.epochs, limit_val_batches=0, accumulate_grad_batches=plan.window, **clip)
    trainer.fit(module, Batches(plan.batches()))
    by_hand.fit()
    assert module.rates == by_hand.rates
    if plan.clip is None or plan.clip[0] == "value":
        assert module.losses == by_hand.losses
        assert all(torch.equal(mine, theirs) for mine, theirs in zip(module.parameters(), by_hand.net.parameters()))
    else:  # a norm can be summed up in more than one order
        torch.testing.assert_close(module.losses, by_hand.losses, rtol=1e-10, atol=1e-14)
        for mine, theirs in zip(module.parameters(), by_hand.net.parameters()):
            torch.testing.assert_close(mine, theirs, rtol=1e-10, atol=1e-14)
    torch.testing.assert_close(module.means, by_hand.means, rtol=1e-12, atol=1e-14)
    assert trainer.global_step == plan.epochs * -(-len(plan.sizes) // plan.window)


@settings(max_examples=40)
@given(st.lists(st.integers(1, 3), min_size=1, max_size=4), st.integers(1, 4), st.integers(1, 2), st.integers(1, 2))
def test_lbfgs_trains_as_by_hand(sizes: list[int], evaluations: int, count: int, epochs: int) -> None:
    """Each of one or two optimizers evaluates its closure as often as it wants to."""

    def made(own: list[nn.Parameter]) -> LBFGS:
        return LBFGS(own, lr=0.5, max_iter=evaluations)

    losses: list[float] = []

    class Second(LightningModule, Net):
        def training_step(self, batch: Any, batch_idx: int, *more: Any) -> Any:
            loss, _ = self.loss(batch, None)
            losses.append(float(loss.detach()))
            return loss

        def configure_optimizers(self) -> Any:
            return [made(own) for own in self.owned(count)]

    plan = Plan(epochs, tuple(sizes), frozenset(), (), (), (), 1, None, 0)
    module, net, by_hand = Second(), Net(), []
    quiet(max_epochs=epochs, limit_val_batches=0).fit(module, Batches(plan.batches()))
    optimizers = [made(own) for own in net.owned(count)]
    for _ in range(epochs):
        for batch in plan.batches():
            for optimizer in optimizers:

                def closure(batch: Any = batch, optimizer: Any = optimizer) -> Tensor:
                    optimizer.zero_grad()
                    loss, _ = net.loss(batch, None)
                    loss.backward()
                    by_hand.append(float(loss.detach()))
                    return loss

                optimizer.step(closure)
    assert losses == by_hand
    assert all(torch.equal(mine, theirs) for mine, theirs in zip(module.parameters(), net.parameters()))
