"""Manual optimization: the documented examples, against loops written by hand."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from models import Line, pairs, quiet
from torch.optim import SGD
from torch.optim.lr_scheduler import ExponentialLR, ReduceLROnPlateau

from refimpl import ConfigurationError


class Manual(Line):
    """The documentation's first example, with a scheduler."""

    def __init__(self, wrapped: bool = True) -> None:
        super().__init__()
        self.automatic_optimization, self.wrapped = False, wrapped
        self.called: list[str] = []

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        optimizer = self.optimizers(use_pl_optimizer=self.wrapped)
        assert isinstance(optimizer, SGD)
        loss = self.loss(batch)
        optimizer.zero_grad()
        self.manual_backward(loss)
        optimizer.step()
        self.lr_schedulers().step()
        self.called.append(f"step {self.global_step}")

    def on_before_zero_grad(self, optimizer: Any) -> None:
        raise AssertionError("nobody but the user clears gradients")

    def on_before_backward(self, loss: Any) -> None:
        self.called.append("on_before_backward")

    def backward(self, loss: Any, optimizer: Any, optimizer_idx: Any, *args: Any, **kwargs: Any) -> None:
        self.called.append(f"backward {optimizer} {optimizer_idx}")
        loss.backward(*args, **kwargs)

    def on_after_backward(self) -> None:
        self.called.append("on_after_backward")

    def on_before_optimizer_step(self, optimizer: Any, optimizer_idx: int) -> None:
        assert optimizer is self.optimizers(use_pl_optimizer=False)
        self.called.append(f"on_before_optimizer_step {optimizer_idx}")

    def configure_optimizers(self) -> Any:
        optimizer = self.optimizer(self.parameters())
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": ExponentialLR(optimizer, 0.5), "interval": "step"},
        }


@pytest.mark.parametrize("wrapped", [True, False])
def test_the_documented_example(wrapped: bool) -> None:
    module, by_hand, batches = Manual(wrapped), Line(), pairs(3)
    trainer = quiet(limit_val_batches=0)
    trainer.fit(module, batches)
    optimizer = SGD(by_hand.parameters(), lr=0.1)
    rate = ExponentialLR(optimizer, 0.5)
    for batch in batches:
        optimizer.zero_grad()
        by_hand.loss(batch).backward()
        optimizer.step()
        rate.step()
    assert torch.equal(module.layer.weight, by_hand.layer.weight)
    assert trainer.optimizers[0].param_groups[0]["lr"] == 0.1 * 0.5**3  # by the user's steps alone
    before = ["on_before_optimizer_step 0"] if wrapped else []
    assert module.called[: 4 + wrapped] == [
        "on_before_backward", "backward None None", "on_after_backward", *before, "step 0",
    ]  # fmt: skip
    assert trainer.global_step == 3


def test_two_optimizers_as_in_the_documentation() -> None:
    class Two(Line):
        automatic_optimization = False

        def training_step(self, batch: Any, batch_idx: int) -> Any:
            a, b = self.optimizers()
            for optimizer in (a, b):
                with optimizer.toggle_model():
                    required = [parameter.requires_grad for parameter in self.parameters()]
                    assert required == [optimizer is a, optimizer is b]
                    optimizer.zero_grad()
                    self.manual_backward(self.loss(batch))
                    optimizer.step()
            return {"anything": True}

        def configure_optimizers(self) -> Any:
            return SGD([self.layer.weight], lr=0.1), SGD([self.layer.bias], lr=0.2)

        def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int, dataloader_idx: int) -> None:
            assert outputs == {"anything": True}

    module, by_hand, batches = Two(), Line(), pairs(3)
    quiet(limit_val_batches=0).fit(module, batches)
    optimizers = [SGD([by_hand.layer.weight], lr=0.1), SGD([by_hand.layer.bias], lr=0.2)]
    for batch in batches:
        for optimizer in optimizers:
            optimizer.zero_grad()
            by_hand.loss(batch).backward()
            optimizer.step()
    assert torch.equal(module.layer.weight, by_hand.layer.weight)
    assert torch.equal(module.layer.bias, by_hand.layer.bias)


def test_a_closure_is_evaluated_as_often_as_the_optimizer_wants() -> None:
    class Second(Line):
        automatic_optimization = False

        def training_step(self, batch: Any, batch_idx: int) -> Any:
            optimizer = self.optimizers()

            def closure() -> Any:
                optimizer.zero_grad()
                loss = self.loss(batch)
                self.manual_backward(loss)
                return loss

            assert float(optimizer.step(closure).detach()) > 0

    made = lambda parameters: torch.optim.LBFGS(parameters, lr=0.5, max_iter=4)  # noqa: E731
    module, automatic, batches = Second(made), Line(made), pairs(2)
    quiet(limit_val_batches=0).fit(module, batches)
    quiet(limit_val_batches=0).fit(automatic, batches)
    assert torch.equal(module.layer.weight, automatic.layer.weight)


def test_a_wrapped_optimizer_is_the_optimizer_in_everything_else() -> None:
    class Asking(Manual):
        def training_step(self, batch: Any, batch_idx: int) -> Any:
            optimizer, plain = self.optimizers(), self.optimizers(use_pl_optimizer=False)
            assert optimizer.param_groups is plain.param_groups
            assert optimizer.optimizer is plain
            ExponentialLR(optimizer, 0.5)  # takes optimizers only
            with pytest.raises(AttributeError, match="nothing_such"):
                _ = optimizer.nothing_such

    quiet(limit_val_batches=0).fit(Asking(), pairs(1))


@pytest.mark.parametrize("backward", [
    None,
    lambda loss, optimizer, optimizer_idx, *args, **kwargs: loss.backward(*args, **kwargs),
    lambda loss, **kwargs: loss.backward(**kwargs),
])  # fmt: skip
def test_more_arguments_are_handed_on_to_backward(backward: Any) -> None:
    class Twice(Line):
        automatic_optimization = False

        def training_step(self, batch: Any, batch_idx: int) -> Any:
            optimizer, loss = self.optimizers(), self.loss(batch)
            optimizer.zero_grad()
            self.manual_backward(loss, retain_graph=True)
            self.manual_backward(loss)
            optimizer.step()

    twice, once = Twice(), Line(lambda parameters: SGD(parameters, lr=0.2))
    twice.backward = backward
    for module in (twice, once):
        quiet(limit_val_batches=0).fit(module, pairs(1))
    assert torch.equal(twice.layer.weight, once.layer.weight)


def test_what_does_not_go_together_is_told() -> None:
    for option in ({"accumulate_grad_batches": 2}, {"gradient_clip_val": 1.0}, {"track_grad_norm": 2}):
        with pytest.raises(ConfigurationError, match=f"{next(iter(option))} acts on automatic optimization only"):
            quiet(limit_val_batches=0, **option).fit(Manual(), pairs(1))
    module = Manual()
    module.automatic_optimization = None  # type: ignore[assignment]
    with pytest.raises(ConfigurationError, match="automatic_optimization is None; True or False"):
        quiet(limit_val_batches=0).fit(module, pairs(1))

    class Automatic(Line):
        def training_step(self, batch: Any, batch_idx: int) -> Any:
            self.manual_backward(self.loss(batch))

    with pytest.raises(ConfigurationError, match="manual_backward needs automatic_optimization = False"):
        quiet(limit_val_batches=0).fit(Automatic(), pairs(1))
    with pytest.raises(RuntimeError, match=r"optimizers\(\) needs a trainer"):
        Manual().optimizers()

    class Detached(Line):
        automatic_optimization = False

        def training_step(self, batch: Any, batch_idx: int) -> Any:
            self.manual_backward(self.loss(batch).detach())

    with pytest.raises(ConfigurationError, match="the loss of training_step depends on no trainable parameter"):
        quiet(limit_val_batches=0).fit(Detached(), pairs(1))


def test_there_may_be_none() -> None:
    class Nothing(Line):
        automatic_optimization = False

        def training_step(self, batch: Any, batch_idx: int) -> Any:
            assert self.optimizers() is None and self.lr_schedulers() is None

        def configure_optimizers(self) -> Any:
            return None

    with pytest.warns(UserWarning, match="nothing is trained"):
        quiet(limit_val_batches=0).fit(Nothing(), pairs(1))


def test_a_plateau_needs_no_monitor_where_the_user_steps_it() -> None:
    class Stepping(Line):
        automatic_optimization = False

        def training_step(self, batch: Any, batch_idx: int) -> None:
            self.lr_schedulers().step(1.0)

        def configure_optimizers(self) -> Any:
            optimizer = SGD(self.parameters(), lr=1.0)
            return [optimizer], [ReduceLROnPlateau(optimizer, factor=0.5, patience=0)]

    trainer = quiet(limit_val_batches=0)
    trainer.fit(Stepping(), pairs(3))
    assert trainer.optimizers[0].param_groups[0]["lr"] == 0.25


def test_further_arguments_of_step_are_the_optimizers() -> None:
    class Mine(SGD):
        def step(self, closure: Any = None, scale: float = 1.0, *, times: int = 1) -> Any:
            seen.append((closure(), scale, times))

    class Handing(Manual):
        def training_step(self, batch: Any, batch_idx: int) -> None:
            self.optimizers().step(lambda: "loss", 0.5, times=3)

        def configure_optimizers(self) -> Any:
            return Mine(self.parameters(), lr=1.0)

    seen: list[Any] = []
    quiet(limit_val_batches=0).fit(Handing(), pairs(1))
    assert seen == [("loss", 0.5, 3)]
