"""The optimization of the scenarios' module: what it returns in every form, and the hooks it has its own way."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from conformance.adapters.model import model_class
from conformance.adapters.optimization import configured
from conformance.optimizers import FORMS, OVERRIDES, discord
from conformance.scenario import Data, Model, Scenario
from refimpl import LightningModule


def module_of(**model: Any) -> Any:
    """The module of a scenario that goes together, and the scenario."""
    data = Data(time=4 if "truncated_bptt_steps" in model else 0)
    scenario = Scenario("mine", data=data, model=Model(**model))
    assert not discord(scenario)
    return model_class(LightningModule, scenario)(), scenario


def shape(value: Any) -> Any:
    """The form of a value: its containers, and the kinds of what they hold."""
    if isinstance(value, dict):
        return {key: shape(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(shape(item) for item in value)
    return value if isinstance(value, (int, str)) else type(value).__name__


DICT = {"optimizer": "SGD", "lr_scheduler": {"scheduler": "LambdaLR", "interval": "step"}}
PLATEAU = {"scheduler": "ReduceLROnPlateau", "monitor": "v", "strict": False, "interval": "epoch", "frequency": 2}


@pytest.mark.parametrize("model, form", [
    ({}, "SGD"),
    ({"form": "list"}, ["SGD"]),
    ({"optimizers": 2}, ["SGD", "SGD"]),
    ({"optimizers": 2, "form": "tuple", "optimizer": "adam"}, ("Adam", "Adam")),
    ({"optimizer": "lbfgs"}, "LBFGS"),
    ({"form": "two-lists"}, (["SGD"], [])),
    ({"form": "two-lists", "scheduler": "epoch", "lr_dict": False}, (["SGD"], ["LambdaLR"])),
    ({"form": "two-lists", "optimizers": 2, "scheduler": "step"}, (["SGD"] * 2, [DICT["lr_scheduler"]] * 2)),
    ({"form": "two-lists-crossed", "optimizers": 2, "scheduler": "step"}, (["SGD"] * 2, [DICT["lr_scheduler"]] * 2)),
    ({"form": "dict"}, {"optimizer": "SGD"}),
    ({"scheduler": "epoch", "lr_dict": False}, {"optimizer": "SGD", "lr_scheduler": "LambdaLR"}),
    ({"scheduler": "step"}, DICT),
    ({"scheduler": "step", "optimizers": 2}, [DICT, DICT]),
    ({"form": "tuple-of-dicts", "optimizers": 2, "frequencies": (2, 1)},
     ({"optimizer": "SGD", "frequency": 2}, {"optimizer": "SGD", "frequency": 1})),
    ({"scheduler": "epoch", "scheduler_frequency": 2, "monitor": "v", "strict": False},
     {"optimizer": "SGD", "lr_scheduler": PLATEAU}),
    ({"optimizer": "none"}, "NoneType"),
])  # fmt: skip
def test_every_form(model: dict[str, Any], form: Any) -> None:
    assert shape(configured(*module_of(**model))) == form
    assert Model(**model).returns_form in (*FORMS, "none")


def test_the_rate_is_that_of_the_formulas_and_halved() -> None:
    row = configured(*module_of(scheduler="step"))
    [group] = row["optimizer"].param_groups
    assert group["lr"] == 0.0625
    row["optimizer"].step()
    row["lr_scheduler"]["scheduler"].step()
    assert group["lr"] == 0.03125


# ---- overrides ------------------------------------------------------------------------------------------


def test_alternating_leaves_the_second_out_of_every_second_batch() -> None:
    module, _ = module_of(optimizers=2, overrides=("alternate",))
    called: list[tuple[int, int]] = []
    for batch_idx in range(4):
        for index in (0, 1):
            note = lambda closure, at=(batch_idx, index): called.append(at)  # noqa: E731
            module.optimizer_step(0, batch_idx, SimpleNamespace(step=note), index, None, False, False, False)
    assert called == [(0, 0), (1, 0), (1, 1), (2, 0), (3, 0), (3, 1)]


def test_a_warm_up_takes_four_steps() -> None:
    module, scenario = module_of(overrides=("warm-up",))
    optimizer, rates = configured(module, scenario), []
    for step in range(6):
        module.trainer = SimpleNamespace(global_step=step)
        module.optimizer_step(0, step, optimizer, 0, lambda: None, False, False, False)
        rates.append(optimizer.param_groups[0]["lr"])
    assert rates == [0.0625 * share for share in (0.25, 0.5, 0.75, 1, 1, 1)]


def test_gradients_are_doubled_and_become_zeros() -> None:
    module, scenario = module_of(overrides=("zero-grads", "twice-backward"))
    weight, optimizer = module.layers[0].weight, configured(module, scenario)
    module.backward(weight.sum(), optimizer, 0)
    assert torch.equal(weight.grad, torch.full_like(weight, 2))
    module.optimizer_zero_grad(0, 0, optimizer, 0)
    assert torch.equal(weight.grad, torch.zeros_like(weight))


@pytest.mark.parametrize("time, sizes", [(5, [1, 4]), (1, [1])])
def test_a_split_of_ones_own_has_the_first_step_alone(time: int, sizes: list[int]) -> None:
    module, _ = module_of(truncated_bptt_steps=2, returns="dict", overrides=("own-split",))
    x = torch.arange(2.0 * time).reshape(2, time, 1)
    for batch in ((x, -x), {"x": x, "y": -x}):
        pieces = module.tbptt_split_batch(batch, 2)
        found = [piece["x"] if isinstance(piece, dict) else piece[0] for piece in pieces]
        assert [piece.shape[1] for piece in found] == sizes
        assert torch.equal(torch.cat(found, 1), x)


def test_a_hook_that_the_trainer_does_not_know_is_not_added() -> None:
    class Without:
        pass

    scenario = Scenario("mine", model=Model(overrides=("zero-grads",)))
    assert "optimizer_zero_grad" not in vars(model_class(Without, scenario))
    assert set(OVERRIDES) == {"alternate", "warm-up", "zero-grads", "twice-backward", "twice-end", "own-split"}
