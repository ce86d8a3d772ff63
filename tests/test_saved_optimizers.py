"""Whatever torch's optimizers and schedulers keep goes into a checkpoint and comes back."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn, optim
from torch.optim import lr_scheduler as schedulers

from refimpl import CheckpointError
from refimpl.saving.optimizers import load_optimizer, state_of
from refimpl.saving.shape import check, like


def model() -> nn.Module:
    """Parameters of two, one and no dimensions, some of which are never trained."""
    torch.manual_seed(3)
    module = nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 1), nn.Linear(1, 1))
    module.register_parameter("scale", nn.Parameter(torch.ones(())))
    return module


def trained(module: nn.Module, optimizer: Any, steps: int, scheduler: Any = None) -> list[Any]:
    def closure() -> Any:
        optimizer.zero_grad()
        loss = (module[1](module[0](torch.ones(2, 3))).square().mean() * module.scale) ** 2
        loss.backward()
        return loss

    for _ in range(steps):
        optimizer.step(closure)
        if scheduler is not None:
            scheduler.step()
    return [parameter.tolist() for parameter in module.parameters()]


def through_a_file(state: Any) -> Any:
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


OPTIMIZERS: list[Callable[[Any], Any]] = [
    lambda p: optim.SGD(p, 0.1), lambda p: optim.SGD(p, 0.1, momentum=0.9, nesterov=True),
    lambda p: optim.SGD(p, torch.tensor(0.1), maximize=True), lambda p: optim.Adam(p, torch.tensor(0.1), foreach=False),
    lambda p: optim.Adam(p, 0.1, amsgrad=True), lambda p: optim.Adam([{"params": [q], "lr": 1} for q in p]),
    lambda p: optim.AdamW(p, fused=True), optim.Adamax, optim.NAdam, optim.RAdam, optim.Adadelta, optim.Adagrad,
    optim.Rprop, optim.ASGD, optim.Adafactor, lambda p: optim.RMSprop(p, centered=True, momentum=0.5), optim.LBFGS,
]  # fmt: skip


@pytest.mark.parametrize("make", OPTIMIZERS, ids=lambda make: type(make(model().parameters())).__name__)
def test_an_optimizer_goes_on_with_its_state(make: Callable[[Any], Any]) -> None:
    one, other = model(), model()
    optimizer, another = make(one.parameters()), make(other.parameters())
    trained(one, optimizer, 3)
    other.load_state_dict(one.state_dict())
    load_optimizer(another, through_a_file(optimizer.state_dict()))
    assert trained(other, another, 2) == trained(one, optimizer, 2)


def test_an_optimizer_of_ones_own_is_given_what_it_kept() -> None:
    class Own(optim.SGD):
        seen: Any = None

        def state_dict(self) -> dict[str, Any]:
            return {"mine": [1]}

        def load_state_dict(self, state_dict: Any) -> None:
            self.seen = state_dict

    own = Own(model().parameters())
    load_optimizer(own, {"mine": [1, 2]})
    assert own.seen == {"mine": [1, 2]}


def test_a_state_in_groups_of_ones_own_kind() -> None:
    class Own(optim.Optimizer):
        def __init__(self, params: Any) -> None:
            super().__init__(params, {"lr": 0.1})
            self.state["of all"] = {"anything": object}

    with pytest.raises(CheckpointError, match=r"param_groups\[0\]\.lr is NoneType None; accepted is a number"):
        state = Own(model().parameters()).state_dict()
        load_optimizer(Own(model().parameters()), state | {"param_groups": [state["param_groups"][0] | {"lr": None}]})


SCHEDULERS: list[Callable[[Any], Any]] = [
    lambda o: schedulers.StepLR(o, 2), lambda o: schedulers.MultiStepLR(o, [1, 4]), lambda o: schedulers.ConstantLR(o),
    lambda o: schedulers.LinearLR(o), lambda o: schedulers.ExponentialLR(o, 0.9), lambda o: schedulers.PolynomialLR(o),
    lambda o: schedulers.CosineAnnealingLR(o, 5), lambda o: schedulers.CosineAnnealingWarmRestarts(o, 2),
    lambda o: schedulers.CyclicLR(o, 0.1, 0.2), lambda o: schedulers.OneCycleLR(o, 0.1, total_steps=9),
    lambda o: schedulers.LambdaLR(o, lambda step: 1 / (1 + step)),
    lambda o: schedulers.MultiplicativeLR(o, lambda step: 0.9),
    lambda o: schedulers.SequentialLR(o, [schedulers.ConstantLR(o), schedulers.StepLR(o, 2)], [2]),
    lambda o: schedulers.ChainedScheduler([schedulers.ConstantLR(o), schedulers.ExponentialLR(o, 0.9)], o),
    lambda o: optim.swa_utils.SWALR(o, 0.05),
]  # fmt: skip


@pytest.mark.parametrize("rate", [0.1, 1])
@pytest.mark.parametrize("make", SCHEDULERS, ids=lambda make: type(make(optim.SGD(model().parameters(), 0.1))).__name__)
def test_a_schedulers_state_is_like_that_of_a_new_one(make: Callable[[Any], Any], rate: float) -> None:
    module, fresh = model(), optim.SGD(model().parameters(), rate, momentum=0.9)
    optimizer = optim.SGD(module.parameters(), rate, momentum=0.9)
    scheduler = make(optimizer)
    for _ in range(6):
        check(through_a_file(scheduler.state_dict()), like(make(fresh).state_dict(), fixed=True))
        trained(module, optimizer, 1, scheduler)


def test_a_plateau() -> None:
    scheduler, fresh = (schedulers.ReduceLROnPlateau(optim.SGD(model().parameters(), 0.1), patience=0) for _ in "12")
    for value in (0.5, -2, 3, 4):
        scheduler.step(value)
        check(through_a_file(scheduler.state_dict()), like(fresh.state_dict(), fixed=True))


def test_a_scheduler_without_a_state() -> None:
    assert state_of(object()) is None
