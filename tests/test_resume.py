"""A run that goes on from a checkpoint is, bit by bit, the one that never stopped."""

from __future__ import annotations

import random
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchmetrics
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from models import Line, pairs
from torch import Tensor, nn
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

from refimpl import Callback, CheckpointError, EarlyStopping, LightningModule, ModelCheckpoint, Trainer, seed_everything
from refimpl.seed import kept_random_state, random_state, set_random_state
from tests.models import quiet


class Noisy(LightningModule):
    """Draws from every source of randomness, and keeps account in every way there is."""

    def __init__(self, plan: dict[str, Any]) -> None:
        super().__init__()
        self.plan = plan
        self.first = nn.Sequential(nn.Linear(6, 8), nn.Dropout(0.3), nn.BatchNorm1d(8), nn.Linear(8, 1))
        self.second = nn.Linear(6, 1)
        self.mae = torchmetrics.MeanAbsoluteError()
        self.automatic_optimization = not plan.get("manual")
        self.epochs: list[tuple[int, int, float]] = []

    def loss(self, x: Tensor, y: Tensor) -> Tensor:
        output = self.first(x) + self.second(x)
        self.mae(output.detach(), y)
        return ((output - y) ** 2).mean() * (1 + 0.1 * random.random() + 0.1 * float(np.random.rand()))

    def training_step(self, batch: Any, batch_idx: int, optimizer_idx: int = 0) -> Any:
        loss = self.loss(*batch)
        self.log("loss", loss, on_step=True, on_epoch=True)
        self.log("worst", loss, on_step=False, on_epoch=True, reduce_fx="max")
        self.log("spread", loss, on_step=False, on_epoch=True, reduce_fx=lambda values: values.max() - values.min())
        self.log("mae", self.mae, on_step=False, on_epoch=True)
        if not self.automatic_optimization:
            optimizer = self.optimizers()
            self.manual_backward(loss)
            if batch_idx % 3 == 2:  # accumulates by itself
                optimizer.step()
                optimizer.zero_grad()
        return {"loss": loss, "kept": loss.detach()}

    def training_epoch_end(self, outputs: list[Any]) -> None:
        flat = [out for outs in outputs for out in (outs if isinstance(outs, list) else [outs]) if out]
        self.epochs.append((self.current_epoch, len(flat), float(sum(out["kept"] for out in flat))))

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        with torch.no_grad():
            self.log("val_loss", ((self.first(batch[0]) + self.second(batch[0]) - batch[1]) ** 2).mean())

    def configure_optimizers(self) -> Any:
        kind = {"adam": torch.optim.Adam, "sgd": torch.optim.SGD}[self.plan.get("optimizer", "adam")]
        schedulers = torch.optim.lr_scheduler
        made = []
        for part in [self.first, self.second][: self.plan.get("optimizers", 1)]:
            optimizer = kind(part.parameters(), lr=0.01)
            by_step = {"scheduler": schedulers.ExponentialLR(optimizer, 0.97), "interval": "step", "frequency": 2}
            plateau = schedulers.ReduceLROnPlateau(optimizer, patience=0, factor=0.5)
            scheduled = {"step": by_step, "plateau": {"scheduler": plateau, "monitor": "loss"}}
            row: dict[str, Any] = {"optimizer": optimizer}
            if self.plan.get("scheduler"):
                row["lr_scheduler"] = scheduled[self.plan["scheduler"]]
            if self.plan.get("frequencies"):
                row["frequency"] = self.plan["frequencies"][len(made)]
            made.append(row)
        return made[0] if len(made) == 1 and "frequency" not in made[0] else made


class Stream(IterableDataset[Any]):
    """Samples without a number."""

    def __init__(self, samples: TensorDataset) -> None:
        self.samples = samples

    def __iter__(self) -> Any:
        return (self.samples[i] for i in torch.randperm(len(self.samples)).tolist())


def loader(kind: str) -> DataLoader[Any]:
    draws = torch.Generator().manual_seed(7)
    x = torch.randn(26, 6, generator=draws)
    samples = TensorDataset(x, x.sum(1, keepdim=True))
    options: dict[str, Any] = {"shuffled": {"shuffle": True}, "own": {"shuffle": True, "generator": draws}}
    data = Stream(samples) if kind == "stream" else samples
    return DataLoader(data, batch_size=4, **options.get(kind, {}))


def run(plan: dict[str, Any], saver: ModelCheckpoint, ckpt_path: Any = None) -> tuple[dict[str, Any], list[Any]]:
    """One fit of the plan; one that goes on begins with other random numbers. Returns what it came to."""
    seed_everything(11)
    module = Noisy(plan)
    names = ("accumulate_grad_batches", "val_check_interval", "precision")
    options = {name: plan[name] for name in names if name in plan}
    trainer = quiet(max_epochs=3, callbacks=[saver, EarlyStopping("val_loss", patience=9)], enable_checkpointing=True,
                    **options)  # fmt: skip
    if ckpt_path is not None:
        seed_everything(5)
    trainer.fit(module, loader(plan.get("data", "shuffled")), loader("plain"), ckpt_path=ckpt_path)
    return everything(trainer, module), module.epochs


def everything(trainer: Trainer, module: Noisy) -> dict[str, Any]:
    """What must be the same in the end."""
    told = {name: value.tolist() for name, value in module.state_dict().items()}
    told["optimizers"] = [str(optimizer.state_dict()) for optimizer in trainer.optimizers]
    told["metrics"] = {name: float(value) for name, value in trainer.callback_metrics.items()}
    told["counts"] = (trainer.current_epoch, trainer.global_step)
    told["stopping"] = trainer.early_stopping_callback and trainer.early_stopping_callback.state_dict()
    told["random"] = (random.random(), float(np.random.rand()), float(torch.rand(())))
    return told


PLANS = st.fixed_dictionaries(
    {},
    optional={
        "optimizer": st.sampled_from(["adam", "sgd"]),
        "scheduler": st.sampled_from(["step", "plateau"]),
        "data": st.sampled_from(["shuffled", "own", "stream", "plain"]),
        "accumulate_grad_batches": st.integers(1, 3),
        "val_check_interval": st.sampled_from([2, 3]),
        "precision": st.sampled_from([32, "bf16", 64]),
        "optimizers": st.just(2),
        "frequencies": st.just((2, 3)),
    },
)


@pytest.mark.slow
@settings(max_examples=25, phases=[Phase.explicit, Phase.generate])
@given(plan=PLANS, every=st.sampled_from(["epoch", "step", "validation"]), which=st.integers(0, 30))
def test_it_is_the_same_whatever_the_plan_and_wherever_it_was_saved(
    tmp_path_factory: pytest.TempPathFactory, plan: dict[str, Any], every: str, which: int
) -> None:
    if plan.get("optimizers") is None:
        plan.pop("frequencies", None)
    when: dict[str, Any] = {
        "epoch": {"every_n_epochs": 1},
        "step": {"every_n_train_steps": 1},
        "validation": {"save_on_train_epoch_end": False},
    }[every]
    same(tmp_path_factory.mktemp("run"), plan, when, which)


@pytest.mark.parametrize("which", [0, 3, 7])
def test_manual_optimization_that_accumulates_goes_on_too(tmp_path: Path, which: int) -> None:
    same(tmp_path, {"manual": True}, {"every_n_train_steps": 1}, which)


def same(folder: Path, plan: dict[str, Any], when: dict[str, Any], which: int) -> None:
    whole = run(plan, ModelCheckpoint(folder / "a", save_top_k=-1, filename="{epoch}-{step}-{loss_step}", **when))
    files = sorted((folder / "a").iterdir(), key=lambda path: path.stat().st_mtime_ns)
    saved = files[which % len(files)]
    other = ModelCheckpoint(folder / "b", save_top_k=-1, filename="{epoch}-{step}-{loss_step}", **when)
    if torch.load(saved, weights_only=True)["epoch"] == 3:
        return  # the last of all: nothing is left to do
    resumed = run(plan, other, saved)
    assert resumed[0] == whole[0]
    assert resumed[1] == whole[1][-len(resumed[1]) :]
    later = files[files.index(saved) + 1 :]
    assert {path.name for path in (folder / "b").glob("*")} == {path.name for path in later}


class SaveIn(Callback):
    """Saves once, from a hook in the middle of things."""

    def __init__(self, hook: str, step: int, path: Path) -> None:
        def save(trainer: Trainer, *args: Any) -> None:
            if trainer.global_step == step and not path.exists():
                trainer.save_checkpoint(path)

        vars(self)[hook] = save


@pytest.mark.parametrize(("hook", "step", "done"), [
    ("on_train_batch_start", 2, 2), ("on_train_batch_end", 1, 2), ("on_validation_end", 2, 3),
])  # fmt: skip
def test_a_hook_may_save_by_itself(tmp_path: Path, hook: str, step: int, done: int) -> None:
    """In mid-batch, too: the batch is then done again, from its start."""
    path = tmp_path / "saved.ckpt"

    def fit(*callbacks: Callback, ckpt_path: Any = None) -> dict[str, Any]:
        seed_everything(2)
        module = Noisy({})
        trainer = quiet(max_epochs=2, val_check_interval=3, callbacks=list(callbacks))
        trainer.fit(module, loader("shuffled"), loader("plain"), ckpt_path=ckpt_path)
        return everything(trainer, module)

    assert fit(SaveIn(hook, step, path)) == fit(ckpt_path=path)
    assert torch.load(path, weights_only=True)["loops"]["progress"]["batches_done"] == done


@pytest.mark.parametrize("window, at", [(1, 1), (2, 0), (2, 1), (2, 2), (3, 2), (3, 3)])
def test_the_gradients_of_an_interrupted_batch_are_not_counted_twice(window: int, at: int, tmp_path: Path) -> None:
    """Those of its window's first batch are made anew; within a window nothing can tell them apart, and it is said."""

    class Interrupted(Line):
        backwards = 0

        def on_after_backward(self) -> None:
            self.backwards += 1
            if self.backwards == at + 1:
                raise KeyboardInterrupt

    options: dict[str, Any] = {"accumulate_grad_batches": window, "limit_val_batches": 0}
    whole, broken, resumed = Line(), Interrupted(), Line()
    quiet(**options).fit(whole, pairs(5))
    trainer = quiet(**options)
    with pytest.warns(UserWarning, match="was interrupted"):
        trainer.fit(broken, pairs(5))
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        trainer.save_checkpoint(tmp_path / "broken.ckpt")
    assert ["in the midst of a batch" in str(each.message) for each in told] == [True] * bool(at % window)
    quiet(**options).fit(resumed, pairs(5), ckpt_path=tmp_path / "broken.ckpt")
    assert torch.equal(whole.layer.weight, resumed.layer.weight) or at % window


def test_what_was_interrupted_can_be_saved_and_goes_on(tmp_path: Path) -> None:
    class Interrupts(Callback):
        def on_train_batch_start(self, trainer: Trainer, pl_module: Any, batch: Any, batch_idx: int, idx: int) -> None:
            if trainer.current_epoch == 1 and batch_idx == 3:
                raise KeyboardInterrupt

    def fit(*callbacks: Callback, ckpt_path: Any = None) -> Trainer:
        seed_everything(2)
        trainer = quiet(max_epochs=2, callbacks=list(callbacks))
        trainer.fit(Noisy({}), loader("shuffled"), loader("plain"), ckpt_path=ckpt_path)
        return trainer

    whole = fit()
    with pytest.warns(UserWarning, match="interrupted"):
        stopped = fit(Interrupts())
    stopped.save_checkpoint(tmp_path / "rest.ckpt")
    resumed = fit(ckpt_path=tmp_path / "rest.ckpt")
    assert resumed.callback_metrics == whole.callback_metrics  # of the interrupted epoch, too
    assert resumed.global_step == whole.global_step == 14
    for one, other in zip(whole.module.parameters(), resumed.module.parameters()):
        assert torch.equal(one, other)


def test_loaders_that_draw_as_they_are_made_do_not_disturb_the_sequence(tmp_path: Path) -> None:
    class Drawing(Noisy):
        def train_dataloader(self) -> Any:
            torch.rand(3)
            return loader("shuffled")

        def val_dataloader(self) -> Any:
            torch.rand(5)
            return loader("plain")

    def fit(ckpt_path: Any = None) -> Trainer:
        seed_everything(2)
        trainer = quiet(max_epochs=3, num_sanity_val_steps=1, callbacks=ModelCheckpoint(tmp_path, save_top_k=-1),
                        enable_checkpointing=True)  # fmt: skip
        trainer.fit(Drawing({}), ckpt_path=ckpt_path)
        return trainer

    whole, resumed = fit(), fit(tmp_path / "epoch=0-step=7.ckpt")
    for one, other in zip(whole.module.parameters(), resumed.module.parameters()):
        assert torch.equal(one, other)


def test_a_validation_loader_with_a_generator_of_its_own_goes_on_too(tmp_path: Path) -> None:
    def fit(ckpt_path: Any = None) -> dict[str, Any]:
        seed_everything(2)
        trainer = quiet(max_epochs=3, limit_val_batches=2, callbacks=ModelCheckpoint(tmp_path, save_top_k=-1),
                        enable_checkpointing=True)  # fmt: skip
        trainer.fit(Noisy({}), loader("plain"), loader("own"), ckpt_path=ckpt_path)
        return {name: float(value) for name, value in trainer.callback_metrics.items()}

    assert fit() == fit(tmp_path / "epoch=0-step=7.ckpt")


def test_there_is_no_second_sanity_check(tmp_path: Path) -> None:
    seen: list[str] = []

    class Sees(Callback):
        def on_sanity_check_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
            seen.append("sanity check")

        def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
            seen.append(f"epoch {trainer.current_epoch}, step {trainer.global_step}")

    def fit(epochs: int, ckpt_path: Any = None) -> None:
        trainer = quiet(max_epochs=epochs, num_sanity_val_steps=2, callbacks=[Sees(), ModelCheckpoint(tmp_path)],
                        enable_checkpointing=True)  # fmt: skip
        trainer.fit(Noisy({}), loader("plain"), loader("plain"), ckpt_path=ckpt_path)

    fit(1)
    fit(2, tmp_path / "epoch=0-step=7.ckpt")
    assert seen == ["sanity check", "epoch 0, step 0", "epoch 1, step 7"]


def test_outputs_that_are_more_than_data_are_not_kept(tmp_path: Path) -> None:
    class Objects(Noisy):
        def training_step(self, batch: Any, batch_idx: int, optimizer_idx: int = 0) -> Any:
            return {**super().training_step(batch, batch_idx), "object": object()}

    saver = ModelCheckpoint(tmp_path, every_n_train_steps=5)
    trainer = quiet(callbacks=[saver], enable_checkpointing=True)
    with pytest.warns(UserWarning, match="training_epoch_end is given the later outputs only"):
        trainer.fit(Objects({}), loader("plain"), loader("plain"))


# ---- the random state --------------------------------------------------------------------------------------

DRAWS: dict[str, Callable[[], float]] = {
    "random": random.random, "numpy": lambda: float(np.random.randn()), "torch": lambda: float(torch.rand(()))
}  # fmt: skip


@pytest.mark.parametrize("draw", DRAWS.values(), ids=DRAWS)
def test_every_source_comes_back(draw: Callable[[], float]) -> None:
    draw()
    state = random_state()
    drawn = [draw() for _ in range(3)]
    set_random_state(state)
    assert [draw() for _ in range(3)] == drawn
    set_random_state(state)
    with kept_random_state():
        draw()
    assert draw() == drawn[0]


def test_generators_come_back_and_others_stay_as_they_are() -> None:
    one = torch.Generator().manual_seed(1)
    state = random_state([one])
    drawn = torch.rand(2, generator=one)
    before = torch.get_rng_state()
    set_random_state({"generators": state["generators"]}, [one])
    assert torch.equal(torch.rand(2, generator=one), drawn)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_dropped_windows_owner_has_no_next_epoch_after_resuming_either(tmp_path: Path) -> None:
    """Frequencies, accumulation and -1 in mid-window."""

    class Turning(Line):
        def __init__(self) -> None:
            super().__init__()
            self.turns: list[int] = []

        def on_train_batch_start(self, batch: Any, batch_idx: int, dataloader_idx: int) -> int | None:
            return -1 if self.current_epoch == 0 and batch_idx == 3 else None

        def training_step(self, batch: Any, batch_idx: int, optimizer_idx: int) -> Any:  # type: ignore[override]
            self.turns.append(optimizer_idx)
            return self.loss(batch)

        def configure_optimizers(self) -> Any:
            optimizers = [torch.optim.SGD([p], lr=0.1) for p in self.parameters()]
            return [{"optimizer": optimizer, "frequency": 1} for optimizer in optimizers]

    whole, half, rest = Turning(), Turning(), Turning()
    quiet(max_epochs=2, accumulate_grad_batches=2, limit_val_batches=0).fit(whole, pairs(6))
    trainer = quiet(max_epochs=1, accumulate_grad_batches=2, limit_val_batches=0)
    trainer.fit(half, pairs(6))
    trainer.save_checkpoint(tmp_path / "half.ckpt")
    again = quiet(max_epochs=2, accumulate_grad_batches=2, limit_val_batches=0)
    again.fit(rest, pairs(6), ckpt_path=tmp_path / "half.ckpt")
    assert half.turns + rest.turns == whole.turns


def test_a_checkpoint_that_does_not_fit_leaves_the_trainer_where_it_was(tmp_path: Path) -> None:
    class Two(Line):
        def training_step(self, batch: Any, batch_idx: int, optimizer_idx: int) -> Any:  # type: ignore[override]
            return self.loss(batch)

        def configure_optimizers(self) -> Any:
            return [torch.optim.SGD([p], lr=0.1) for p in self.parameters()]

    trainer = quiet(max_epochs=2)
    trainer.fit(Line(), pairs(2), pairs(1))
    trainer.save_checkpoint(tmp_path / "one.ckpt")
    other = quiet(max_epochs=3)
    with pytest.raises(CheckpointError, match="holds 1 optimizer_states, but configure_optimizers returned 2"):
        other.fit(Two(), pairs(2), pairs(1), ckpt_path=tmp_path / "one.ckpt")
    assert (other.current_epoch, other.global_step) == (0, 0)
    other.fit(Two(), pairs(2), pairs(1))
    assert other.current_epoch == 3


def test_what_another_model_left_is_not_saved_beside_this_ones_weights(tmp_path: Path) -> None:
    trainer = quiet()
    trainer.fit(Line(), pairs(2), pairs(1))
    trainer.validate(Line(), pairs(1))
    trainer.save_checkpoint(tmp_path / "other.ckpt")
    assert "optimizer_states" not in torch.load(tmp_path / "other.ckpt", weights_only=True)
