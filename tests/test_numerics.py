"""The numbers of a run, computed from the scenario: beside torch's, and those of docs/adapters.md."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from conformance.adapters import model as adapters
from conformance.adapters.optimization import optimizer_with_scheduler
from conformance.numerics import Numbers, agrees, close, sample
from conformance.scenario import Data, Model, Scenario
from refimpl import LightningModule

OPTIMIZERS = ("sgd", "momentum", "adam")


def scenario_of(optimizer: str = "sgd", optimizers: int = 1, **data: Any) -> Scenario:
    needs = ("several-optimizers",) if optimizers > 1 else ()
    model = Model(optimizer=optimizer, optimizers=optimizers, scheduler="epoch")
    return Scenario("numbers", needs=needs, data=Data(**data), model=model)


def test_the_figures_of_the_documentation() -> None:
    numbers = Numbers(scenario_of(train=3))
    losses = []
    for _ in range(2):
        for batch in ("train/0/0", "train/0/1", "train/0/2"):
            losses.append(numbers.loss(batch))
            numbers.zero_grad()
            numbers.backward(batch)
            numbers.update()
    assert [round(loss, 6) for loss in losses] == [1.945801, 1.012363, 1.693332, 1.030433, 0.445139, 0.872004]
    assert [round(weight, 6) for weight in numbers.weights] == [0.395577, -0.281716, 0.5037, 0.125, 0.706933]
    assert sample(1, 0, 2, 1) == ((0.125, 0.5, -0.5, (2**19 + 2) / 2**24, 1.0), 1.25)


EVENTS = st.lists(
    st.tuples(
        st.sampled_from(["zero_grad", "backward", "backward", "update", "update", "schedule"]),
        st.integers(0, 1),
        st.integers(0, 3),
        st.sampled_from([1, 2, 4]),
    ),
    max_size=30,
)


@settings(max_examples=60)
@given(EVENTS, st.sampled_from(OPTIMIZERS), st.sampled_from([1, 2]), st.integers(1, 3), st.integers(1, 3))
def test_whatever_happens_torch_says_the_same(
    events: list[tuple[str, int, int, int]], optimizer: str, optimizers: int, size: int, last: int
) -> None:
    scenario = scenario_of(optimizer, optimizers, train=4, batch_size=size, last=min(size, last))
    numbers = Numbers(scenario)
    module = adapters.model_class(LightningModule, scenario)()
    batches = list(adapters.loaders(scenario, "train"))
    made = [optimizer_with_scheduler(layer.parameters(), scenario) for layer in module.layers]
    for what, index, batch, divided_by in events:
        index %= optimizers
        tag = f"train/0/{batch}"
        if what == "backward":
            loss = module.training_step(batches[batch], batch, *([index] if optimizers > 1 else []))
            assert numbers.loss(tag) == pytest.approx(loss.item(), rel=1e-9)
            numbers.backward(tag, index, divided_by)
            parameters = list(module.layers[index].parameters())
            for parameter, more in zip(parameters, torch.autograd.grad(loss / divided_by, parameters)):
                parameter.grad = more if parameter.grad is None else parameter.grad + more
        elif what == "schedule":
            numbers.schedule(index)
            made[index]["lr_scheduler"]["scheduler"].optimizer.param_groups[0]["lr"] *= 0.5
        else:
            getattr(numbers, what)(index)
            getattr(made[index]["optimizer"], {"update": "step"}.get(what, what))()
        theirs = [float(value) for p in module.parameters() for value in p.detach().flatten()]
        assert numbers.weights == pytest.approx(theirs, rel=1e-9, abs=1e-12)
        assert numbers.rates == [row["optimizer"].param_groups[0]["lr"] for row in made]


@settings(max_examples=40)
@given(st.lists(st.integers(0, 3), min_size=1, max_size=60), st.integers(1, 3))
def test_lbfgs_moves_as_torchs_does_and_evaluates_again_where_it_does(batches: list[int], size: int) -> None:
    scenario = Scenario("numbers", data=Data(train=4, batch_size=size, last=size), model=Model(optimizer="lbfgs"))
    numbers = Numbers(scenario)
    module = adapters.model_class(LightningModule, scenario)()
    loaded = list(adapters.loaders(scenario, "train"))
    optimizer = optimizer_with_scheduler(module.parameters(), scenario)["optimizer"]
    for batch in batches:
        evaluated: list[float] = []

        def closure(batch: int = batch, evaluated: list[float] = evaluated) -> Any:
            optimizer.zero_grad()
            loss = module.training_step(loaded[batch], batch)
            loss.backward()
            evaluated.append(loss.item())
            return loss

        optimizer.step(closure)
        before = numbers.loss(f"train/0/{batch}")
        numbers.zero_grad()
        numbers.backward(f"train/0/{batch}")
        moved = numbers.update()
        assert evaluated == pytest.approx([before, numbers.loss(f"train/0/{batch}")][: 1 + moved], rel=1e-6, abs=1e-9)
        theirs = [float(value) for p in module.parameters() for value in p.detach().flatten()]
        assert numbers.weights == pytest.approx(theirs, rel=1e-6, abs=1e-9)


def test_lbfgs_does_not_go_down_a_slope_that_is_none() -> None:
    numbers = Numbers(Scenario("numbers", model=Model(optimizer="lbfgs")))
    parameter = torch.nn.Parameter(torch.zeros(5, dtype=torch.float64))
    optimizer = optimizer_with_scheduler([parameter], numbers.scenario)["optimizer"]
    evaluated = 0
    for slope in (1e-5, 1e-3):
        gradient = [slope, 0.0, 0.0, 0.0, 0.0]

        def closure(gradient: list[float] = gradient) -> float:
            nonlocal evaluated
            evaluated += 1
            parameter.grad = torch.tensor(gradient, dtype=torch.float64)
            return evaluated

        before, numbers.gradients[0] = numbers.weights, [*gradient]
        optimizer.step(closure)
        assert numbers.update() is (slope > 1e-4)
        moved = [after - weight for after, weight in zip(numbers.weights, before)]
        assert moved == pytest.approx(parameter.tolist(), rel=1e-9, abs=1e-15)
    assert evaluated == 3


@given(st.lists(st.sampled_from([0.0, 1.0, 2.0, 1.99995, -1.0, 1e-9]), max_size=40))
def test_a_plateau_is_torchs(values: list[float]) -> None:
    model = Model(scheduler="epoch", monitor="v")
    numbers = Numbers(Scenario("numbers", model=model))
    row = optimizer_with_scheduler([torch.nn.Parameter(torch.ones(1))], numbers.scenario)
    for value in values:
        row["lr_scheduler"]["scheduler"].step(value)
        numbers.schedule(0, value)
        assert numbers.rates == [row["optimizer"].param_groups[0]["lr"]]
    numbers.configure()
    assert numbers.rates == [0.0625]


@given(st.integers(1, 5), st.integers(0, 4), st.integers(1, 5), st.integers(1, 3))
def test_a_piece_of_a_batch_has_its_steps_of_time(time: int, start: int, length: int, size: int) -> None:
    scenario = scenario_of(train=2, time=time, batch_size=size, last=1)
    window = (min(start, time - 1), min(start + length, time))
    numbers, module = Numbers(scenario), adapters.model_class(LightningModule, scenario)()
    for number, (x, y) in enumerate(adapters.loaders(scenario, "train")):
        for part in (None, window):
            begin, end = part or (0, time)
            loss = module.training_step((x[:, begin:end], y[:, begin:end]), number)
            assert numbers.loss(f"train/0/{number}", part) == pytest.approx(loss.item(), rel=1e-12)
            numbers.zero_grad()
            numbers.backward(f"train/0/{number}", window=part)
            theirs = torch.autograd.grad(loss, list(module.parameters()))
            flat = [float(value) for gradient in theirs for value in gradient.flatten()]
            assert numbers.gradients[0] == pytest.approx(flat, rel=1e-9, abs=1e-12)


@given(st.integers(1, 7), st.integers(1, 8), st.booleans(), st.sampled_from([0, 3]))
def test_the_parts_of_a_batch_are_torchs_and_train_alike(size: int, devices: int, ends: bool, time: int) -> None:
    model = Model(defines=("training_step_end",) if ends else ())
    data = Data(train=1, batch_size=size, last=size, time=time)
    trainer = {"strategy": "dp", "devices": devices}
    scenario = Scenario("parts", needs=("data-parallel",), data=data, model=model, trainer=trainer)
    numbers, module = Numbers(scenario), adapters.model_class(LightningModule, scenario)()
    (batch,) = adapters.loaders(scenario, "train")
    chunks = list(zip(*(tensor.chunk(devices) for tensor in batch)))
    parts = numbers.parts_of("train/0/0")
    assert [len(part) for part in parts] == [len(x) for x, _ in chunks]
    assert [row for part in parts for row in part] == list(range(size))
    losses = [module.training_step(chunk, 0) for chunk in chunks]
    for part, loss in zip(parts, losses):
        assert numbers.loss("train/0/0", part=part) == pytest.approx(loss.item(), rel=1e-12)
    loss = torch.stack(losses).mean() if ends else module.training_step(batch, 0)
    assert numbers.trained_loss("train/0/0") == pytest.approx(loss.item(), rel=1e-12)
    numbers.backward("train/0/0")
    flat = [float(v) for gradient in torch.autograd.grad(loss, list(module.parameters())) for v in gradient.flatten()]
    assert numbers.gradients[0] == pytest.approx(flat, rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("stage", ["val", "test", "predict"])
def test_every_loader_has_its_data(stage: str) -> None:
    scenario = scenario_of(batch_size=3, last=2, **{stage: (2, 3)})
    numbers = Numbers(scenario)
    module = adapters.model_class(LightningModule, scenario)()
    for index, loader in enumerate(adapters.loaders(scenario, stage)):
        for number, (x, y) in enumerate(loader):
            tag = f"{stage}/{index}/{number}"
            assert numbers.size(tag) == len(x) == (3 if number < (1, 2)[index] else 2)
            assert numbers.loss(tag) == pytest.approx(torch.mean((module(x) - y) ** 2).item(), rel=1e-12)


@pytest.mark.parametrize("structure", ["list", "dict", "nested"])
def test_the_batches_of_several_loaders_are_one(structure: str) -> None:
    scenario = scenario_of(batch_size=3, last=1, train_loaders=(2, 3), structure=structure)
    numbers = Numbers(scenario)
    module = adapters.model_class(LightningModule, scenario)()
    tag, loaders = "{a:train/0/1,b:train/1/1}", adapters.loaders(scenario, "train")
    found = loaders if structure == "list" else loaders.values()
    batch = [list(loader[0] if structure == "nested" else loader)[1] for loader in found]
    assert [numbers.size(part) for part in (tag, "train/1/1")] == [1, 3]  # of the first that it is made of
    assert numbers.loss(tag) == pytest.approx(module.training_step(batch, 1).item(), rel=1e-12)
    numbers.backward(tag)
    numbers.update()
    optimizer = optimizer_with_scheduler(module.parameters(), scenario)["optimizer"]
    module.training_step(batch, 1).backward()
    optimizer.step()
    theirs = [float(value) for p in module.parameters() for value in p.detach().flatten()]
    assert numbers.weights == pytest.approx(theirs, rel=1e-9)


def test_what_agrees() -> None:
    assert agrees(1.0000001, 1.0) and agrees(1, 1.0) and agrees([0.1, 2], [0.1, 2.0]) and agrees("a", "a")
    assert agrees(True, 1) and agrees(None, None) and agrees([], [])
    for got, due in [(1.1, 1.0), ("1", 1.0), (None, 1.0), ([1.0], [1.0, 2.0]), (1.0, [1.0]), ("b", "a"), (2, 1)]:
        assert not agrees(got, due)


def test_how_close_is_close() -> None:
    assert close(1.0, float(torch.tensor(0.1) * 10))
    assert close(0.0, 1e-7) and close(1e6, 1e6 + 1)
    assert not close(1.0, 1.0001) and not close(0.0, 1e-5) and not close(1.0, float("nan"))
