"""self.log of a torchmetrics.Metric: when it is computed, when it starts anew, and where it has to be."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
from models import Line, pairs, quiet

from refimpl import LogError

torchmetrics = pytest.importorskip("torchmetrics")  # the extra "metrics"


class Measuring(Line):
    """Feeds numbers to metrics and logs them: in training by `forward`, in validation by `update`."""

    def __init__(self, **settings: Any) -> None:
        super().__init__()
        self.largest = torchmetrics.MaxMetric()
        self.both = torchmetrics.MetricCollection(
            {"mean": torchmetrics.MeanMetric(), "sum": torchmetrics.SumMetric()}, prefix="all_"
        )
        self.settings = settings
        self.steps: list[dict[str, float]] = []

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        self.largest(float(-10 * self.current_epoch - batch_idx))
        self.log("largest", self.largest, on_step=True, on_epoch=True)
        assert self.trainer is not None
        self.steps.append({name: float(value) for name, value in self.trainer.callback_metrics.items()})
        return self.loss(batch)

    def validation_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> Any:
        self.both.update(float(batch_idx))
        self.log_dict(self.both, **self.settings)


def test_the_epochs_value_is_computed_at_its_end_and_the_next_epoch_starts_anew() -> None:
    module = Measuring()
    trainer = quiet(max_epochs=2, limit_val_batches=0)
    trainer.fit(module, pairs(3))
    assert [step["largest_step"] for step in module.steps] == [0.0, -1.0, -2.0, -10.0, -11.0, -12.0]
    assert ["largest_epoch" in step for step in module.steps] == [False] * 3 + [True] * 3
    assert trainer.logged_metrics == {"largest_step": -12.0, "largest_epoch": -10.0}
    assert trainer.callback_metrics["largest"] == -10.0
    assert not module.largest.update_called


def test_a_collections_members_are_logged_under_their_names() -> None:
    module = Measuring()
    for _ in range(2):  # the same in a second run
        assert quiet().validate(module, pairs(4)) == [{"all_mean": 1.5, "all_sum": 6.0}]


def test_a_collection_may_be_the_value_itself() -> None:
    class Whole(Measuring):
        def validation_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> Any:
            self.both.update(float(batch_idx))
            self.log("v", self.both)

    assert quiet().validate(Whole(), pairs(4)) == [{"v/all_mean": 1.5, "v/all_sum": 6.0}]


def test_members_of_a_compute_group_share_their_state() -> None:
    class Grouped(Line):
        def __init__(self) -> None:
            super().__init__()
            classes = [torchmetrics.classification.BinaryPrecision, torchmetrics.classification.BinaryRecall]
            self.both = torchmetrics.MetricCollection([kind() for kind in classes])

        def validation_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> Any:
            x, y = batch
            self.both.update((x.sum(1) > 0).float(), (y[:, 0] > 0).int())
            self.log_dict(self.both)

    module, loader = Grouped(), pairs(5, size=8)
    alone = Grouped().both
    for x, y in loader.batches:
        alone.update((x.sum(1) > 0).float(), (y[:, 0] > 0).int())
    wanted = {name: pytest.approx(float(value)) for name, value in alone.compute().items()}
    for _ in range(2):
        assert quiet().validate(module, loader) == [wanted]
    assert any(len(group) == 2 for group in module.both.compute_groups.values())


def test_a_step_value_needs_forward() -> None:
    """`update` returns none; the epoch's value is there all the same."""
    trainer = quiet()
    assert trainer.validate(Measuring(on_step=True, on_epoch=True), pairs(4)) == [
        {"all_mean": 1.5, "all_mean_epoch": 1.5, "all_sum": 6.0, "all_sum_epoch": 6.0}
    ]
    assert set(trainer.callback_metrics) == {"all_mean", "all_sum", "all_mean_epoch", "all_sum_epoch"}


def test_the_sanity_check_and_a_failure_leave_nothing_in_a_metric() -> None:
    class Failing(Measuring):
        def training_step(self, batch: Any, batch_idx: int) -> Any:
            if batch_idx == 1:
                raise RuntimeError("mine")
            return super().training_step(batch, batch_idx)

        def on_train_start(self) -> None:
            assert not self.both["mean"].update_called

    module = Failing()
    with pytest.raises(RuntimeError, match="mine"):
        quiet(num_sanity_val_steps=2).fit(module, pairs(2), pairs(2))
    assert not module.largest.update_called


class Elsewhere(Line):
    def __init__(self, **settings: Any) -> None:
        super().__init__()
        self.inner = Measuring()
        self.settings = settings

    def validation_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> Any:
        self.inner.largest.update(1.0)
        self.log("v", self.inner.largest, **self.settings)


def test_a_metric_is_found_wherever_it_is_in_the_module() -> None:
    for settings in ({}, {"metric_attribute": "inner.largest"}):
        assert quiet().validate(Elsewhere(**settings), pairs(1)) == [{"v": 1.0}]


@pytest.mark.parametrize("attribute, told", [
    ("inner.smallest", "has no attribute 'smallest'"), ("nothing", "'nothing'"), ("layer", "is another object"),
])  # fmt: skip
def test_an_attribute_that_is_not_the_metric(attribute: str, told: str) -> None:
    with pytest.raises(LogError, match=rf"log\('v', MaxMetric, metric_attribute='{attribute}'\).*{told}"):
        quiet().validate(Elsewhere(metric_attribute=attribute), pairs(1))


def test_a_metric_that_is_no_attribute() -> None:
    class Local(Line):
        def validation_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> Any:
            self.log("v", torchmetrics.MaxMetric())

    with pytest.raises(LogError, match=r"no attribute of Local is this metric; assign it in __init__"):
        quiet().validate(Local(), pairs(1))


def test_a_metric_that_computes_no_scalar() -> None:
    class Several(Line):
        def __init__(self) -> None:
            super().__init__()
            self.kept = torchmetrics.CatMetric()

        def validation_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> Any:
            self.kept.update([1.0, 2.0])
            self.log("v", self.kept)

    with pytest.raises(LogError, match=r"log\('v'\): Tensor .*; a number or a scalar tensor is accepted"):
        quiet().validate(Several(), pairs(1))


def test_the_engine_does_not_import_torchmetrics() -> None:
    program = "import sys, refimpl; assert 'torchmetrics' not in sys.modules"
    subprocess.run([sys.executable, "-c", program], check=True)


# ---- several loaders ------------------------------------------------------------------------------------


@pytest.mark.parametrize("add_dataloader_idx", [True, False])
def test_one_metric_over_two_loaders_keeps_an_account_of_each(add_dataloader_idx: bool) -> None:
    """Computed when the pass leaves the loader; logged under one name for both, it is the value of both together."""
    module, trainer = Measuring(add_dataloader_idx=add_dataloader_idx), quiet()
    first, second = trainer.validate(module, [pairs(4), pairs(2)])
    if add_dataloader_idx:
        assert first == {"all_mean/dataloader_idx_0": 1.5, "all_sum/dataloader_idx_0": 6.0}
        assert second == {"all_mean/dataloader_idx_1": 0.5, "all_sum/dataloader_idx_1": 1.0}
        assert float(trainer.callback_metrics["all_sum/dataloader_idx_0"]) == 6.0
    else:
        assert first == second == {"all_mean": pytest.approx(7 / 6), "all_sum": 7.0}
    assert trainer.validate(module, [pairs(4), pairs(2)]) == [first, second]  # it has started anew
