"""configure_optimizers' return forms, lr_dict, and the loss in a step's output."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import cycle
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from models import Line, pairs, quiet
from torch import nn
from torch.optim import SGD
from torch.optim.lr_scheduler import ChainedScheduler, ConstantLR, ExponentialLR, ReduceLROnPlateau, SequentialLR

from refimpl import ConfigurationError
from refimpl.hooks import Hooks
from refimpl.optimization import Optimization
from refimpl.optimizers.configured import Schedule
from refimpl.optimizers.gradients import loss_of

PARAMETER = nn.Parameter(torch.ones(2))
OPTIMIZER = SGD([PARAMETER], lr=1.0)
SCHEDULER = ExponentialLR(OPTIMIZER, 0.5)
PLATEAU = ReduceLROnPlateau(OPTIMIZER)
OTHER = SGD([nn.Parameter(torch.ones(2))], lr=1.0)
OTHERS = ExponentialLR(OTHER, 0.5)
STRANGER = ExponentialLR(SGD([PARAMETER], lr=1.0), 0.5)


class Counting:
    """A scheduler of one's own: it counts its steps, and keeps what it is given. It does not tell its optimizer."""

    def __init__(self) -> None:
        self.steps = 0
        self.given: list[Any] = []

    def step(self, *values: Any) -> None:
        self.steps += 1
        self.given += values


COUNTING = Counting()


def attached(configured: Any, metrics: Any = None) -> Optimization:
    module: Any = SimpleNamespace(
        training_step=lambda *arguments: None, automatic_optimization=True, truncated_bptt_steps=0,
        parameters=lambda: [PARAMETER, *OTHER.param_groups[0]["params"]],
    )  # fmt: skip
    optimization = Optimization(module, Hooks(), None, None, lambda: metrics)  # type: ignore[arg-type]
    optimization.configure(configured)
    return optimization


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
    ([OPTIMIZER, OPTIMIZER], "returned one SGD twice"),
    ([OPTIMIZER, {"optimizer": OTHER}], r"a list of \['SGD', 'dict'\]; accepted are"),
    ([OPTIMIZER, [OTHER]], r"a list of \['SGD', 'list'\]; accepted are"),
    ({"optim": OPTIMIZER}, r"a dict with the key 'optim'; accepted are .*; did you mean 'optimizer'?"),
    ({"optimizer": OPTIMIZER, "scheduler": SCHEDULER}, "the key 'scheduler'.*; did you mean 'lr_scheduler'?"),
    ({"lr_scheduler": SCHEDULER}, r"the keys \['lr_scheduler'\]; 'optimizer' is required"),
    ([{"optimizer": OPTIMIZER, "frequency": 0}], "frequency 0; an int from 1 is accepted"),
    ([{"optimizer": OPTIMIZER, "frequency": 1.5}], "frequency 1.5; an int from 1"),
    ({"optimizer": OPTIMIZER, "lr_scheduler": [SCHEDULER]}, "is no scheduler"),
    (([OPTIMIZER], ["cosine"]), "str 'cosine' is no scheduler: it has no step"),
    (([OPTIMIZER], [PLATEAU]), "ReduceLROnPlateau needs 'monitor'"),
    (([OPTIMIZER], [STRANGER]), "schedules an optimizer that configure_optimizers did not return"),
    (([OPTIMIZER], [{"interval": "step"}]), r"lr_dict has the keys \['interval'\]; 'scheduler' is required"),
    (([OPTIMIZER], [{"scheduler": SCHEDULER, "intervall": "step"}]), "'intervall'.*did you mean 'interval'?"),
    (([OPTIMIZER], [{"scheduler": SCHEDULER, "interval": "batch"}]), "interval 'batch'; 'step' or 'epoch'"),
    (([OPTIMIZER], [{"scheduler": SCHEDULER, "frequency": 0}]), "frequency 0; an int from 1"),
    (([OPTIMIZER], [{"scheduler": SCHEDULER, "frequency": True}]), "frequency True"),
    (([OPTIMIZER], [{"scheduler": PLATEAU, "monitor": 3}]), "monitor 3; the name of a logged value or None is"),
    (([OPTIMIZER], [{"scheduler": PLATEAU, "monitor": "v", "strict": "no"}]), "strict 'no'; True or False"),
    (([OPTIMIZER], [{"scheduler": SCHEDULER, "name": 3}]), "name 3; a string or None"),
    (([OPTIMIZER], [{"scheduler": SCHEDULER, "reduce_on_plateau": 1}]), "reduce_on_plateau 1; True or False"),
    (([OPTIMIZER], [{"scheduler": SCHEDULER, "reduce_on_plateau": True}]), "ExponentialLR needs 'monitor'"),
    (([OPTIMIZER, OTHER], [COUNTING]), "Counting does not say which of 2 optimizers it schedules; return dicts"),
    ({"optimizer": OPTIMIZER, "frequency": 0}, "frequency 0; an int from 1"),
    ({"optimizer": None}, "returned dict .* accepted are an optimizer"),
    ({}, r"a dict with the keys \[\]; 'optimizer' is required"),
])  # fmt: skip
def test_other_forms_are_shown_beside_the_accepted_ones(configured: Any, told: str) -> None:
    with pytest.raises(ConfigurationError, match=told):
        attached(configured)


@pytest.mark.parametrize("configured, owners", [
    ([OPTIMIZER, OTHER], []),
    ((OPTIMIZER, OTHER), []),
    (([OPTIMIZER, OTHER], [OTHERS, SCHEDULER]), [1, 0]),
    (([OPTIMIZER, OTHER], [{"scheduler": OTHERS}]), [1]),
    ([{"optimizer": OPTIMIZER}, {"optimizer": OTHER, "lr_scheduler": OTHERS}], [1]),
    (({"optimizer": OPTIMIZER, "lr_scheduler": SCHEDULER}, {"optimizer": OTHER, "lr_scheduler": OTHERS}), [0, 1]),
])  # fmt: skip
def test_several_optimizers(configured: Any, owners: list[int]) -> None:
    trainer = attached(configured)
    assert trainer.optimizers == [OPTIMIZER, OTHER]
    assert [schedule.optimizer_idx for schedule in trainer.schedules] == owners
    assert trainer.turns is None


def test_a_scheduler_that_does_not_tell_its_optimizer_follows_the_one_it_stands_beside() -> None:
    beside = {"optimizer": OTHER, "lr_scheduler": Counting()}
    assert attached([{"optimizer": OPTIMIZER}, beside]).schedules[0].optimizer_idx == 1
    assert attached(([OPTIMIZER], [Counting()])).schedules[0].optimizer_idx == 0


def test_chained_schedulers_are_schedulers() -> None:
    chained = ChainedScheduler([OTHERS, ExponentialLR(OTHER, 0.9)])
    in_turn = SequentialLR(OTHER, [ConstantLR(OTHER), ExponentialLR(OTHER, 0.9)], milestones=[2])
    schedules = attached(([OPTIMIZER, OTHER], [chained, in_turn])).schedules
    assert [schedule.optimizer_idx for schedule in schedules] == [1, 1]


@given(st.lists(st.integers(1, 6), min_size=2, max_size=4), st.integers(1, 60))
def test_turns_go_round(frequencies: list[int], batches: int) -> None:
    optimizers = [{"optimizer": SGD([PARAMETER], lr=1.0), "frequency": frequency} for frequency in frequencies]
    turns = attached(optimizers).turns
    due = cycle(index for index, frequency in enumerate(frequencies) for _ in range(frequency))
    expected = [index for index, _ in zip(due, range(batches))]
    assert [turns.next() for _ in range(batches)] == expected
    assert turns.of_epoch() == set(expected)
    assert turns.of_epoch() == set()


# ---- several optimizers, against a loop written by hand ---------------------------------------------------


class Two(Line):
    """The sum of two layers, each with an optimizer of its own; `frequencies` are theirs."""

    def __init__(self, *frequencies: int) -> None:
        super().__init__()
        self.second = nn.Linear(2, 1, dtype=torch.float64)
        with torch.no_grad():
            self.second.weight.copy_(torch.tensor([[0.25, 0.5]]))
            self.second.bias.fill_(-0.5)
        self.frequencies = frequencies

    def forward(self, x: Any) -> Any:
        return self.layer(x) + self.second(x)

    def training_step(self, batch: Any, batch_idx: int, optimizer_idx: int) -> Any:  # type: ignore[override]
        return (optimizer_idx + 1) * self.loss(batch)

    def made(self) -> list[Any]:
        layers: Iterable[Any] = (self.layer, self.second)
        return [SGD(layer.parameters(), lr=0.1, momentum=0.5) for layer in layers]

    def configure_optimizers(self) -> Any:
        made = self.made()
        schedules = [{"scheduler": ExponentialLR(optimizer, 0.5), "interval": "step"} for optimizer in made]
        rows: list[Any] = [{"optimizer": o, "lr_scheduler": s} for o, s in zip(made, schedules)]
        for row, frequency in zip(rows, self.frequencies):
            row["frequency"] = frequency
        return rows


@pytest.mark.parametrize("frequencies", [(), (2, 3), (1, 1), (4, 1)])
def test_several_optimizers_train_as_a_loop_written_by_hand(frequencies: tuple[int, ...]) -> None:
    module, by_hand, batches = Two(*frequencies), Two(), pairs(4)
    quiet(max_epochs=3, limit_val_batches=0).fit(module, batches)

    optimizers = by_hand.made()
    rates = [ExponentialLR(optimizer, 0.5) for optimizer in optimizers]
    turn = cycle(index for index, frequency in enumerate(frequencies) for _ in range(frequency))
    for _ in range(3):
        for batch in batches:
            for index in [next(turn)] if frequencies else [0, 1]:
                loss = by_hand.training_step(batch, 0, index)
                by_hand.zero_grad()  # of the other's gradients nothing may be left
                loss.backward()
                optimizers[index].step()
                rates[index].step()
    for mine, theirs in zip(module.parameters(), by_hand.parameters()):
        assert torch.equal(mine, theirs)


def test_only_the_current_optimizers_parameters_require_gradients() -> None:
    seen: list[tuple[int, list[bool]]] = []

    class Looking(Two):
        def training_step(self, batch: Any, batch_idx: int, optimizer_idx: int) -> Any:  # type: ignore[override]
            seen.append((optimizer_idx, [parameter.requires_grad for parameter in self.parameters()]))
            if len(seen) == 4:
                raise RuntimeError("in the second optimizer's block")
            return self.loss(batch)

    module = Looking()
    module.layer.bias.requires_grad = False  # frozen by the user, and so it stays
    with pytest.raises(RuntimeError, match="second optimizer"):
        quiet(limit_val_batches=0).fit(module, pairs(2))
    assert seen == [(0, [True, False, False, False]), (1, [False, False, True, True])] * 2
    assert [parameter.requires_grad for parameter in module.parameters()] == [True, False, True, True]


def test_a_step_whose_parameters_do_not_suit_the_number_of_optimizers_is_refused() -> None:
    class One(Two):
        def training_step(self, batch: Any, batch_idx: int) -> Any:  # type: ignore[override]
            return self.loss(batch)

    told = r"is called as training_step\(batch, batch_idx, optimizer_idx\).*several optimizers"
    with pytest.raises(ConfigurationError, match=told):
        quiet(limit_val_batches=0).fit(One(), pairs(1))

    class None_(Two):
        def configure_optimizers(self) -> Any:
            return self.made()[0]

    with pytest.raises(ConfigurationError, match=r"training_step\(batch, batch_idx\).*at most one optimizer"):
        quiet(limit_val_batches=0).fit(None_(), pairs(1))


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


@given(st.integers(1, 5), st.integers(0, 20), st.sampled_from(["step", "epoch"]))
def test_a_schedule_steps_at_every_so_manieth_of_its_interval(
    frequency: int, count: int, interval: str
) -> None:
    counting = Counting()
    lr_dict = {"scheduler": counting, "interval": interval, "frequency": frequency}
    optimization = attached({"optimizer": OPTIMIZER, "lr_scheduler": lr_dict})
    for _ in range(count):
        optimization.step_schedules("step", optimizer_idx=0)
        optimization.step_schedules("step", optimizer_idx=1)
        optimization.step_schedules("epoch")
    assert counting.steps == count // frequency


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
    lr_dict = {"scheduler": scheduler, "monitor": "v", "strict": strict}
    optimization = attached({"optimizer": optimizer, "lr_scheduler": lr_dict}, metrics)
    for _ in (1, 2):
        optimization.step_schedules("epoch")
    return float(optimizer.param_groups[0]["lr"])


def test_plateau_is_given_the_monitored_value() -> None:
    assert plateau(True, {"v": torch.tensor(1.0)}) == 0.5  # no improvement in the second epoch


def test_a_metric_that_is_missing_is_an_error_or_a_warning() -> None:
    with pytest.raises(ConfigurationError, match=r"monitors 'v', which was not logged; logged were \['w'\]"):
        plateau(True, {"w": torch.tensor(1.0)})
    with pytest.warns(UserWarning, match="monitors 'v'"):
        assert plateau(False, {}) == 1.0


def test_a_scheduler_of_ones_own_is_given_the_value_if_it_says_so() -> None:
    told, plain = Counting(), Counting()

    class Own(Line):
        def training_step(self, batch: Any, batch_idx: int) -> Any:
            self.log("v", float(batch_idx))
            return self.loss(batch)

        def configure_optimizers(self) -> Any:
            lr_dict = {"monitor": "v", "interval": "step", "frequency": 2}
            schedulers = [{"scheduler": told, "reduce_on_plateau": True, **lr_dict}, {"scheduler": plain, **lr_dict}]
            return [SGD(self.parameters(), lr=1.0)], schedulers

    quiet(limit_val_batches=0).fit(Own(), pairs(5))
    assert told.given == [1.0, 3.0]
    assert plain.steps == 2 and plain.given == []


def test_per_step_it_is_given_what_the_validation_after_the_step_has_logged() -> None:
    told = Counting()

    class Own(Line):
        def validation_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> Any:
            self.log("v", float(self.global_step))

        def configure_optimizers(self) -> Any:
            lr_dict = {"scheduler": told, "reduce_on_plateau": True, "interval": "step", "frequency": 2, "monitor": "v"}
            return {"optimizer": SGD(self.parameters(), lr=1.0), "lr_scheduler": lr_dict}

    quiet(val_check_interval=2).fit(Own(), pairs(5), pairs(1))
    assert told.given == [1.0, 3.0]


def test_a_plateau_that_was_due_when_the_run_was_saved_steps_before_it_goes_on(tmp_path: Path) -> None:
    class Own(Line):
        def __init__(self, saves: bool) -> None:
            super().__init__()
            self.saves, self.rates = saves, list[float]()

        def training_step(self, batch: Any, batch_idx: int) -> Any:
            self.rates.append(self.trainer.optimizers[0].param_groups[0]["lr"])  # type: ignore[union-attr]
            self.log("v", 1.0)
            return self.loss(batch)

        def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int, dataloader_idx: int) -> None:
            if self.saves and batch_idx == 1:
                self.trainer.save_checkpoint(tmp_path / "saved.ckpt")  # type: ignore[union-attr]

        def configure_optimizers(self) -> Any:
            optimizer = SGD(self.parameters(), lr=1.0)
            lr_dict = {"scheduler": ReduceLROnPlateau(optimizer, factor=0.5, patience=0), "interval": "step"}
            return {"optimizer": optimizer, "lr_scheduler": {**lr_dict, "monitor": "v"}}

    whole, rest = Own(saves=True), Own(saves=False)
    quiet(limit_val_batches=0).fit(whole, pairs(4))
    quiet(limit_val_batches=0).fit(rest, pairs(4), ckpt_path=tmp_path / "saved.ckpt")
    assert whole.rates == [1.0, 1.0, 0.5, 0.25]
    assert rest.rates == whole.rates[2:]
    assert torch.equal(whole.layer.weight, rest.layer.weight)


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
    ({"los": LOSS, 1: 2}, r"a dict with the keys \['los', 1\], but no 'loss'"),
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
    (lambda loss: loss.reshape(1, 1).expand(2, 3), r"has the shape \(2, 3\); a scalar is accepted"),
    (lambda loss: loss.detach(), "depends on no trainable parameter"),
])  # fmt: skip
def test_a_loss_without_a_gradient(spoiled: Any, told: str) -> None:
    class Wrong(Line):
        def training_step(self, batch: Any, batch_idx: int) -> Any:
            return spoiled(self.loss(batch))

    with pytest.raises(ConfigurationError, match="the loss of training_step " + told):
        quiet(limit_val_batches=0).fit(Wrong(), pairs(1))


def test_an_error_within_backward_is_the_users_own() -> None:
    class Wrong(Line):
        def training_step(self, batch: Any, batch_idx: int) -> Any:
            loss = self.loss(batch)
            loss.register_hook(lambda gradient: 1 / 0)
            return loss

    with pytest.raises(ZeroDivisionError):
        quiet(limit_val_batches=0).fit(Wrong(), pairs(1))
