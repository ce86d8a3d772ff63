"""Clipping, norms, NaN: what happens to gradients before an update."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from models import Line, pairs, quiet
from torch import nn
from torch.optim import SGD

from refimpl import ConfigurationError
from refimpl.optimizers.gradients import WithheldGradients


@pytest.mark.parametrize("algorithm", ["norm", "value"])
def test_clipping_follows_the_hook_and_precedes_the_update(algorithm: str) -> None:
    seen: list[list[torch.Tensor]] = []

    class Seeing(Line):
        def on_before_optimizer_step(self, optimizer: Any, optimizer_idx: int) -> None:
            seen.append([p.grad.clone() for p in self.parameters() if p.grad is not None])

    module, start, batches = Seeing(), Line(), pairs(1)
    quiet(limit_val_batches=0, gradient_clip_val=0.25, gradient_clip_algorithm=algorithm).fit(module, batches)
    start.loss(batches.batches[0]).backward()
    raw = [p.grad for p in start.parameters() if p.grad is not None]
    assert all(torch.equal(mine, theirs) for mine, theirs in zip(seen[0], raw))
    if algorithm == "norm":
        norm = torch.cat([gradient.flatten() for gradient in raw]).norm()
        assert norm > 0.25
        clipped = [gradient * 0.25 / norm for gradient in raw]
    else:
        clipped = [gradient.clamp(-0.25, 0.25) for gradient in raw]
    for after, before, gradient in zip(module.parameters(), start.parameters(), clipped):
        torch.testing.assert_close(after, before - 0.1 * gradient, rtol=1e-5, atol=0)


def test_only_the_current_optimizers_gradients_are_clipped() -> None:
    norms: list[float] = []

    class Two(Line):
        def training_step(self, batch: Any, batch_idx: int, optimizer_idx: int) -> Any:  # type: ignore[override]
            if optimizer_idx == 1:
                assert self.layer.weight.grad is not None
                norms.append(float(self.layer.weight.grad.norm()))
            return self.loss(batch) * (1 if optimizer_idx else 1000)

        def configure_optimizers(self) -> Any:
            return [SGD([self.layer.weight], lr=0.0), SGD([self.layer.bias], lr=0.0)]

    quiet(limit_val_batches=0, gradient_clip_val=0.5).fit(Two(), pairs(1))
    assert norms == [pytest.approx(0.5)]


@pytest.mark.parametrize("order", [2, 1.0, "inf"])
def test_norms_are_logged(order: Any) -> None:
    trainer, module, batches = quiet(limit_val_batches=0, track_grad_norm=order), Line(), pairs(1)
    trainer.fit(module, batches)
    start = Line()
    start.loss(batches.batches[0]).backward()
    key = float(order)
    norms = {n: torch.linalg.vector_norm(p.grad, key) for n, p in start.named_parameters() if p.grad is not None}
    expected = {f"grad_{key}_norm_{name}": norm for name, norm in norms.items()}
    expected[f"grad_{key}_norm_total"] = torch.linalg.vector_norm(torch.stack([*norms.values()]), key)
    for name, norm in expected.items():
        assert trainer.callback_metrics[f"{name}_step"] == norm
        assert trainer.callback_metrics[f"{name}_epoch"] == norm


def test_norms_are_those_of_the_sums_before_they_are_clipped() -> None:
    module, start, batches = Line(), Line(), pairs(2)
    trainer = quiet(limit_val_batches=0, track_grad_norm=2, gradient_clip_val=0.125, accumulate_grad_batches=2)
    trainer.fit(module, batches)
    for batch in batches:
        (start.loss(batch) / 2).backward()
    norm = torch.stack([p.grad.norm() for p in start.parameters() if p.grad is not None]).norm()
    assert norm > 0.125
    torch.testing.assert_close(trainer.callback_metrics["grad_2.0_norm_total_step"].double(), norm, rtol=1e-9, atol=0)


def test_terminate_on_nan_says_what_is_not_finite() -> None:
    class Growing(Line):
        def training_step(self, batch: Any, batch_idx: int) -> Any:
            return self.loss(batch) / 0

    with pytest.raises(ValueError, match="terminate_on_nan: the loss of training_step is inf"):
        quiet(limit_val_batches=0, terminate_on_nan=True).fit(Growing(), pairs(2))
    quiet(limit_val_batches=0).fit(Growing(), pairs(2))

    module = Line(lambda parameters: SGD(parameters, lr=float("inf")))
    with pytest.raises(ValueError, match=r"terminate_on_nan: the parameter layer\.weight holds NaN"):
        quiet(limit_val_batches=0, terminate_on_nan=True).fit(module, pairs(2))


def test_detect_anomaly_is_on_while_the_trainer_runs() -> None:
    class Broken(Line):
        def training_step(self, batch: Any, batch_idx: int) -> Any:
            return (self.loss(batch) * 0).sqrt() * 0

    with pytest.warns(UserWarning, match="Error detected in"):  # noqa: SIM117
        with pytest.raises(RuntimeError, match="returned nan values"):
            quiet(limit_val_batches=0, detect_anomaly=True).fit(Broken(), pairs(1))
    assert not torch.is_anomaly_enabled()


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


# ---- configure_gradient_clipping ------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{}, {"gradient_clip_val": 0.25, "gradient_clip_algorithm": "value"}])
@pytest.mark.parametrize("window", [1, 2])
def test_a_module_may_clip_by_itself(options: dict[str, Any], window: int) -> None:
    """Whatever the options say: once for each update of each optimizer, between its last look and the update."""
    seen: list[tuple[Any, ...]] = []

    class Two(Line):
        def training_step(self, batch: Any, batch_idx: int, optimizer_idx: int) -> Any:  # type: ignore[override]
            return self.loss(batch) * 1000

        def on_before_optimizer_step(self, optimizer: Any, optimizer_idx: int) -> None:
            seen.append(("look", optimizer_idx))

        def configure_gradient_clipping(
            self, optimizer: Any, optimizer_idx: int, gradient_clip_val: Any = None, gradient_clip_algorithm: Any = None
        ) -> None:
            seen.append((optimizer_idx, gradient_clip_val, gradient_clip_algorithm))
            self.clip_gradients(optimizer, gradient_clip_val=0.5 * (optimizer_idx + 1), gradient_clip_algorithm="norm")

        def configure_optimizers(self) -> Any:
            return [SGD([self.layer.weight], lr=1.0), SGD([self.layer.bias], lr=1.0)]

    module, start = Two(), Line()
    quiet(limit_val_batches=0, accumulate_grad_batches=window, **options).fit(module, pairs(window))
    told = options.get("gradient_clip_val"), options.get("gradient_clip_algorithm", "norm")
    assert seen == [("look", 0), (0, *told), ("look", 1), (1, *told)]
    moved = [float((after - before).detach().norm()) for after, before in zip(module.parameters(), start.parameters())]
    assert moved == [pytest.approx(0.5), pytest.approx(1.0)]


def test_clip_gradients_refuses_another_algorithm() -> None:
    with pytest.raises(ConfigurationError, match="gradient_clip_algorithm='l1'; 'norm' or 'value' is accepted"):
        Line().clip_gradients(SGD([nn.Parameter(torch.ones(1))], lr=1.0), 1.0, "l1")
