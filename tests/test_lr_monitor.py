"""LearningRateMonitor: which rates the loggers are given, under which names, and when."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from models import Line, pairs, quiet
from test_loggers import Noting
from torch import nn
from torch.optim import SGD, Adam
from torch.optim.lr_scheduler import ExponentialLR

from refimpl import ConfigurationError, LearningRateMonitor
from refimpl.callbacks import LearningRateMonitor as AlsoThere


class Configured(Line):
    def __init__(self, configure: Callable[[Line], Any]) -> None:
        super().__init__()
        self.other = nn.Linear(2, 1)
        self.configure = configure

    def configure_optimizers(self) -> Any:
        return self.configure(self)

    def training_step(self, batch: Any, batch_idx: int, optimizer_idx: int = 0) -> Any:
        return self.loss(batch) + self.other(batch[0].float()).sum()


def monitored(configure: Callable[[Any], Any], monitor: LearningRateMonitor, **options: Any) -> Noting:
    noting = Noting()
    quiet(callbacks=monitor, logger=noting, limit_val_batches=0, **options).fit(Configured(configure), pairs(4))
    return noting


def halving(module: Any, interval: str = "epoch", **more: Any) -> Any:
    optimizer = SGD(module.parameters(), lr=1.0, momentum=0.5)
    return {
        "optimizer": optimizer,
        "lr_scheduler": {"scheduler": ExponentialLR(optimizer, 0.5), "interval": interval, **more},
    }


def test_it_follows_the_schedulers_interval() -> None:
    noting = monitored(halving, LearningRateMonitor(), max_epochs=2, log_every_n_steps=2)
    assert noting.rows == [(0, {"epoch": 0, "lr-SGD": 1.0}), (4, {"epoch": 1, "lr-SGD": 0.5})]
    noting = monitored(lambda m: halving(m, "step"), LearningRateMonitor(), max_epochs=2, log_every_n_steps=2)
    assert noting.rows == [
        (1, {"epoch": 0, "lr-SGD": 0.5}), (3, {"epoch": 0, "lr-SGD": 2.0**-3}),
        (5, {"epoch": 1, "lr-SGD": 2.0**-5}), (7, {"epoch": 1, "lr-SGD": 2.0**-7}),
    ]  # fmt: skip


def test_or_the_interval_asked_for() -> None:
    monitor = LearningRateMonitor("step")
    assert [step for step, _ in monitored(halving, monitor, log_every_n_steps=2, max_epochs=2).rows] == [1, 3, 5, 7]
    assert monitor.lrs == {"lr-SGD": [1.0, 1.0, 0.5, 0.5]}
    rows = monitored(lambda m: halving(m, "step"), LearningRateMonitor("epoch"), max_epochs=2).rows
    assert rows == [(0, {"epoch": 0, "lr-SGD": 1.0}), (4, {"epoch": 1, "lr-SGD": 2.0**-4})]


def test_a_step_of_several_batches_is_one() -> None:
    rows = monitored(halving, LearningRateMonitor("step"), accumulate_grad_batches=2, log_every_n_steps=1).rows
    assert [step for step, _ in rows] == [0, 1]


def names(configure: Callable[[Any], Any], **settings: Any) -> dict[str, float]:
    [(_, values)] = monitored(configure, LearningRateMonitor("epoch", **settings)).rows
    return {name: value for name, value in values.items() if name != "epoch"}


def test_the_name_of_the_lr_dict() -> None:
    assert names(lambda m: halving(m, name="mine")) == {"mine": 1.0}


def test_an_optimizer_without_a_scheduler() -> None:
    assert names(lambda m: Adam(m.parameters(), lr=0.25)) == {"lr-Adam": 0.25}
    assert monitored(lambda m: SGD(m.parameters(), lr=0.25), LearningRateMonitor()).rows == [
        (0, {"epoch": 0, "lr-SGD": 0.25})
    ]


def test_several_optimizers() -> None:
    def three(module: Any) -> Any:
        weight, bias = module.layer.parameters()
        return [SGD([weight], lr=0.5), Adam([bias], lr=0.25), SGD(module.other.parameters(), lr=0.125)]

    assert names(three) == {"lr-SGD": 0.5, "lr-Adam": 0.25, "lr-SGD-1": 0.125}


def test_parameter_groups() -> None:
    def groups(module: Any, **more: Any) -> Any:
        first = {"params": module.layer.parameters()}
        return SGD([first, {"params": module.other.parameters(), "lr": 0.25, **more}], lr=0.5)

    assert names(groups) == {"lr-SGD/pg1": 0.5, "lr-SGD/pg2": 0.25}
    assert names(lambda m: groups(m, name="head")) == {"lr-SGD/pg1": 0.5, "lr-SGD/head": 0.25}


def test_momentum() -> None:
    assert names(halving, log_momentum=True) == {"lr-SGD": 1.0, "lr-SGD-momentum": 0.5}
    adam = names(lambda m: Adam(m.parameters(), lr=0.25, betas=(0.5, 0.75)), log_momentum=True)
    assert adam == {"lr-Adam": 0.25, "lr-Adam-momentum": 0.5}


def test_what_it_tells_of_itself() -> None:
    monitor = LearningRateMonitor("epoch", log_momentum=True)
    assert (monitor.lrs, monitor.lr_sch_names, monitor.last_momentum_values) == ({}, [], {})
    monitored(lambda m: halving(m, name="mine"), monitor, max_epochs=2)
    assert monitor.lrs == {"mine": [1.0, 0.5]}
    assert (monitor.lr_sch_names, monitor.last_momentum_values) == (["mine"], {"mine-momentum": 0.5})


def test_what_makes_no_sense() -> None:
    with pytest.raises(ConfigurationError, match="logging_interval='batch'; 'step', 'epoch' or None is accepted"):
        LearningRateMonitor("batch")
    with pytest.raises(ConfigurationError, match="LearningRateMonitor needs a logger"):
        quiet(callbacks=LearningRateMonitor(), limit_val_batches=0).fit(Configured(halving), pairs(1))


def test_it_is_where_it_is_looked_for() -> None:
    assert AlsoThere is LearningRateMonitor
