"""configure_optimizers' return forms, lr_dict, and the loss in a step's output."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from models import Line, pairs, quiet
from torch import nn
from torch.optim import SGD
from torch.optim.lr_scheduler import ExponentialLR, ReduceLROnPlateau

from refimpl import ConfigurationError
from refimpl.optimization import Schedule, WithheldGradients, attach_optimizers, loss_of, step_schedules

PARAMETER = nn.Parameter(torch.ones(2))
OPTIMIZER = SGD([PARAMETER], lr=1.0)
SCHEDULER = ExponentialLR(OPTIMIZER, 0.5)
PLATEAU = ReduceLROnPlateau(OPTIMIZER)
STRANGER = ExponentialLR(SGD([PARAMETER], lr=1.0), 0.5)


def attached(configured: Any) -> Any:
    trainer = SimpleNamespace()
    attach_optimizers(trainer, configured)  # type: ignore[arg-type]
    return trainer


# ---- return forms ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("configured, schedules", [
    (OPTIMIZER, []),
    ([OPTIMIZER], []),
    ((OPTIMIZER,), []),
    (([OPTIMIZER], [SCHEDULER]), [Schedule(SCHEDULER)]),
    ([[OPTIMIZER], [SCHEDULER]], [Schedule(SCHEDULER)]),
    (([OPTIMIZER], []), []),
    (([OPTIMIZER], [{"scheduler": SCHEDULER, "interval": "step"}]), [Schedule(SCHEDULER, "step")]),
    ({"optimizer": OPTIMIZER}, []),
    ({"optimizer": OPTIMIZER, "lr_scheduler": None}, []),
    ({"optimizer": OPTIMIZER, "lr_scheduler": SCHEDULER}, [Schedule(SCHEDULER)]),
    (({"optimizer": OPTIMIZER, "lr_scheduler": SCHEDULER},), [Schedule(SCHEDULER)]),
    (
        {"optimizer": OPTIMIZER, "lr_scheduler": {"scheduler": PLATEAU, "monitor": "v", "strict": False}},
        [Schedule(PLATEAU, monitor="v", strict=False)],
    ),
    (
        {"optimizer": OPTIMIZER, "lr_scheduler": {"scheduler": SCHEDULER, "interval": "epoch", "frequency": 3,
                                                  "monitor": None, "strict": True, "name": "rate"}},
        [Schedule(SCHEDULER, frequency=3, name="rate")],
    ),
])  # fmt: skip
def test_the_documented_forms(configured: Any, schedules: list[Schedule]) -> None:
    trainer = attached(configured)
    assert trainer.optimizers == [OPTIMIZER]
    assert trainer.schedules == schedules


@pytest.mark.parametrize("configured", [None, [], ([], [])])
def test_no_optimizer_is_said(configured: Any) -> None:
    with pytest.warns(UserWarning, match="nothing is trained"):
        assert attached(configured).optimizers == []


@pytest.mark.parametrize("configured, told", [
    (3, "returned int 3; accepted are an optimizer"),
    (SGD, "returned type"),
    ((OPTIMIZER, SCHEDULER), r"a tuple of \['SGD', 'ExponentialLR'\]; accepted are"),
    ([OPTIMIZER, OPTIMIZER], "2 optimizers; this engine trains with one"),
    ({"optim": OPTIMIZER}, r"a dict with the keys \['optim'\]; 'optimizer' and optionally 'lr_scheduler'"),
    ({"optimizer": OPTIMIZER, "scheduler": SCHEDULER}, r"keys \['optimizer', 'scheduler'\]"),
    ({"optimizer": OPTIMIZER, "lr_scheduler": [SCHEDULER]}, "is no scheduler"),
    (([OPTIMIZER], ["cosine"]), "str 'cosine' is no scheduler: it has no step"),
    (([OPTIMIZER], [PLATEAU]), "ReduceLROnPlateau needs 'monitor'"),
    (([OPTIMIZER], [STRANGER]), "schedules an optimizer that configure_optimizers did not return"),
    (([OPTIMIZER], [{"interval": "step"}]), r"lr_dict has the keys \['interval'\]; 'scheduler' is required"),
    (([OPTIMIZER], [{"scheduler": SCHEDULER, "intervall": "step"}]), "'intervall'.*did you mean 'interval'?"),
    (([OPTIMIZER], [{"scheduler": SCHEDULER, "interval": "batch"}]), "interval 'batch'; 'step' or 'epoch'"),
    (([OPTIMIZER], [{"scheduler": SCHEDULER, "frequency": 0}]), "frequency 0; an int from 1"),
    (([OPTIMIZER], [{"scheduler": SCHEDULER, "frequency": True}]), "frequency True"),
])  # fmt: skip
def test_other_forms_are_shown_beside_the_accepted_ones(configured: Any, told: str) -> None:
    with pytest.raises(ConfigurationError, match=told):
        attached(configured)


# ---- the defaults, called as the documentation's examples call them ---------------------------------------


def test_the_defaults_can_be_called_with_some_of_their_arguments() -> None:
    class Calling(Line):
        def optimizer_step(  # type: ignore[override]
            self, epoch: Any, batch_idx: Any, optimizer: Any, optimizer_idx: Any, optimizer_closure: Any, **kwargs: Any
        ) -> None:
            super().optimizer_step(optimizer=optimizer, optimizer_closure=optimizer_closure)

        def backward(self, loss: Any, optimizer: Any, optimizer_idx: Any, *args: Any, **kwargs: Any) -> None:
            assert not args and not kwargs
            super().backward(loss, optimizer, optimizer_idx, retain_graph=True)
            super().backward(loss)

        def transfer_batch_to_device(self, batch: Any, device: Any) -> Any:  # type: ignore[override]
            return super().transfer_batch_to_device(batch, device)

    twice, once = Calling(), Line(lambda parameters: SGD(parameters, lr=0.2))
    for module in (twice, once):
        quiet(limit_val_batches=0).fit(module, pairs(1))
    assert torch.equal(twice.layer.weight, once.layer.weight)


# ---- schedules ------------------------------------------------------------------------------------------


class Counting:
    """A scheduler that counts."""

    def __init__(self) -> None:
        self.steps = 0

    def step(self) -> None:
        self.steps += 1


@given(st.integers(1, 5), st.integers(0, 20), st.sampled_from(["step", "epoch"]))
def test_a_schedule_steps_at_every_so_manieth_of_its_interval(
    frequency: int, count: int, interval: str
) -> None:
    trainer: Any = SimpleNamespace(schedules=[Schedule(Counting(), interval, frequency)])
    for which in ("step", "epoch"):
        for number in range(1, count + 1):
            step_schedules(trainer, which, number)
    assert trainer.schedules[0].scheduler.steps == count // frequency


def test_a_new_fit_counts_the_updates_anew() -> None:
    class Every(Line):
        def configure_optimizers(self) -> Any:
            self.counting = Counting()
            schedule = {"scheduler": self.counting, "interval": "step", "frequency": 2}
            return {"optimizer": SGD(self.parameters(), lr=0.1), "lr_scheduler": schedule}

    trainer, module = quiet(limit_val_batches=0), Every()
    for epochs in (1, 2):
        trainer.max_epochs = epochs
        trainer.fit(module, pairs(3))
        assert module.counting.steps == 1


def plateau(strict: bool, metrics: dict[str, Any]) -> float:
    optimizer = SGD([PARAMETER], lr=1.0)
    scheduler = ReduceLROnPlateau(optimizer, factor=0.5, patience=0)
    schedule = Schedule(scheduler, monitor="v", strict=strict)
    trainer: Any = SimpleNamespace(schedules=[schedule], callback_metrics=metrics)
    for epoch in (1, 2):
        step_schedules(trainer, "epoch", epoch)
    return float(optimizer.param_groups[0]["lr"])


def test_plateau_is_given_the_monitored_value() -> None:
    assert plateau(True, {"v": torch.tensor(1.0)}) == 0.5  # no improvement in the second epoch


def test_a_metric_that_is_missing_is_an_error_or_a_warning() -> None:
    with pytest.raises(ConfigurationError, match=r"monitors 'v', which was not logged; logged were \['w'\]"):
        plateau(True, {"w": torch.tensor(1.0)})
    with pytest.warns(UserWarning, match="monitors 'v'"):
        assert plateau(False, {}) == 1.0


def test_plateau_follows_what_a_fit_logs() -> None:
    class Stuck(Line):
        def validation_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> Any:
            self.log("v", 1.0)

        def configure_optimizers(self) -> Any:
            optimizer = SGD(self.parameters(), lr=1.0)
            scheduler = ReduceLROnPlateau(optimizer, factor=0.5, patience=0)
            return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "monitor": "v"}}

    trainer = quiet(max_epochs=3)
    trainer.fit(Stuck(), pairs(1), pairs(1))
    assert trainer.optimizers[0].param_groups[0]["lr"] == 0.25


# ---- losses ---------------------------------------------------------------------------------------------

LOSS = torch.tensor(2.0)


@pytest.mark.parametrize("output, loss", [
    (LOSS, LOSS), ({"loss": LOSS, "more": 1}, LOSS), (None, None), ({"loss": None}, None),
])  # fmt: skip
def test_the_loss_in_an_output(output: Any, loss: Any) -> None:
    assert loss_of(output) is loss


@pytest.mark.parametrize("output, told", [
    (2.0, r"float 2\.0; a loss tensor, a dict with 'loss', or None"),
    ((LOSS, 1), r"a tuple of \['Tensor', 'int'\]"),
    ({"los": LOSS}, r"a dict with the keys \['los'\], but no 'loss'"),
    ({"loss": 2.0}, r"float 2\.0"),
])  # fmt: skip
def test_an_output_without_a_loss(output: Any, told: str) -> None:
    with pytest.raises(ConfigurationError, match=f"training_step returned .*{told}"):
        loss_of(output)

    class Wrong(Line):
        def training_step(self, batch: Any, batch_idx: int) -> Any:
            return output

    with pytest.raises(ConfigurationError, match="training_step returned"):
        quiet(limit_val_batches=0).fit(Wrong(), pairs(1))


@pytest.mark.parametrize("spoiled, told", [
    (lambda loss: loss.reshape(1, 1).expand(2, 3), r"of shape \(2, 3\); a scalar is accepted"),
    (lambda loss: loss.detach(), "that depends on no trainable parameter"),
])  # fmt: skip
def test_a_loss_without_a_gradient(spoiled: Any, told: str) -> None:
    class Wrong(Line):
        def training_step(self, batch: Any, batch_idx: int) -> Any:
            return spoiled(self.loss(batch))

    with pytest.raises(ConfigurationError, match="training_step returned a loss " + told):
        quiet(limit_val_batches=0).fit(Wrong(), pairs(1))


def test_an_error_within_backward_is_the_users_own() -> None:
    class Wrong(Line):
        def training_step(self, batch: Any, batch_idx: int) -> Any:
            loss = self.loss(batch)
            loss.register_hook(lambda gradient: 1 / 0)
            return loss

    with pytest.raises(ZeroDivisionError):
        quiet(limit_val_batches=0).fit(Wrong(), pairs(1))


def test_withheld_gradients_come_back() -> None:
    parameters = [nn.Parameter(torch.ones(1)), nn.Parameter(torch.ones(1))]
    parameters[0].grad = torch.tensor([3.0])
    optimizer = SGD(parameters, lr=1.0, weight_decay=0.5)
    withheld = WithheldGradients(optimizer)
    optimizer.step()
    assert [parameter.item() for parameter in parameters] == [1.0, 1.0]
    withheld.restore()
    assert parameters[0].grad is not None and parameters[0].grad.item() == 3.0
    assert parameters[1].grad is None
