"""EarlyStopping: after which epoch training ends, and what is said about it."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from models import Line, pairs, quiet

from refimpl import ConfigurationError, EarlyStopping
from refimpl.callbacks import EarlyStopping as AlsoThere

NAN, INF = float("nan"), float("inf")


class Scored(Line):
    """Logs a given score for each epoch, as "val" in its validation and as "train" at its end."""

    def __init__(self, scores: list[float]) -> None:
        super().__init__()
        self.scores = scores

    def score(self) -> float:
        return self.scores[min(self.current_epoch, len(self.scores) - 1)]

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        self.log("train", self.score(), on_step=False, on_epoch=True)
        return self.loss(batch)

    def validation_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> Any:
        self.log("val", self.score())


def epochs(scores: list[float], monitor: str = "val", options: dict[str, Any] | None = None, **settings: Any) -> int:
    """How many epochs are trained of at most len(scores) + 3."""
    trainer = quiet(max_epochs=len(scores) + 3, callbacks=EarlyStopping(monitor, **settings), **(options or {}))
    trainer.fit(Scored(scores), pairs(2), pairs(1))
    return trainer.current_epoch


@pytest.mark.parametrize("monitor", ["val", "train"])
@pytest.mark.parametrize("scores, settings, trained", [
    ([3.0, 2.0, 1.0], {}, 6),  # the last score holds for 3 more epochs
    ([1.0, 1.0, 1.0, 1.0, 0.0], {}, 4),
    ([1.0, 2.0, 0.5, 2.0, 2.0, 2.0, 2.0], {}, 6),
    ([1.0, 1.0, 0.0], {"patience": 1}, 2),
    ([1.0, 1.0, 0.0], {"patience": 0}, 2),
    ([1.0, 2.0, 3.0, 3.0], {"mode": "max", "patience": 2}, 5),
    ([1.0, 0.95, 0.9, 0.85, 0.8], {"min_delta": 0.06, "patience": 1}, 2),
    ([1.0, 0.95, 0.9, 0.85, 0.8], {"min_delta": 0.06, "patience": 2}, 7),
    ([1.0, 1.05, 1.1, 1.15], {"min_delta": 0.06, "patience": 1, "mode": "max"}, 2),
    ([1.0, 1.05, 1.1, 1.15], {"min_delta": -0.06, "patience": 1}, 7),
    ([1.0, 0.97, 0.9, 0.85], {"min_delta": -0.06, "patience": 1, "mode": "max"}, 3),
    ([1.0, NAN, 0.5], {}, 2), ([1.0, INF, 0.5], {}, 2), ([-INF, 1.0, 0.5], {}, 1),
    ([1.0, NAN, 0.5, 0.4], {"check_finite": False}, 7),
    ([1.0, 0.3, 0.1], {"stopping_threshold": 0.3}, 3), ([1.0, 0.29, 0.1], {"stopping_threshold": 0.3}, 2),
    ([1.0, 3.0, 0.1], {"stopping_threshold": 2.0, "mode": "max"}, 2),
    ([1.0, 5.0, 0.5], {"divergence_threshold": 5.0}, 6), ([1.0, 5.1, 0.5], {"divergence_threshold": 5.0}, 2),
    ([1.0, -1.0, 0.5], {"divergence_threshold": 0.0, "mode": "max"}, 2),
    ([1.0, NAN, 0.5], {"divergence_threshold": 5.0, "check_finite": False}, 2),
])  # fmt: skip
def test_when_training_stops(scores: list[float], settings: dict[str, Any], trained: int, monitor: str) -> None:
    assert epochs(scores, monitor, **settings) == trained


@given(st.lists(st.floats(-5, 5, width=32), min_size=1, max_size=8), st.integers(1, 3), st.booleans())
def test_it_stops_after_so_many_checks_without_an_improvement(scores: list[float], patience: int, rise: bool) -> None:
    """By the definition: the first epoch whose last `patience` scores are no better than the best before."""
    signed = [-score if rise else score for score in scores]
    held = signed + [signed[-1]] * 3
    ends = range(patience + 1, len(held) + 1)
    due = [end for end in ends if min(held[end - patience : end]) >= min(held[: end - patience])]
    callback = EarlyStopping("val", patience=patience, mode="max" if rise else "min")
    trainer = quiet(max_epochs=len(held), callbacks=callback)
    trainer.fit(Scored(scores), pairs(1), pairs(1))
    assert trainer.current_epoch == (due[0] if due else len(held))
    assert callback.stopped_epoch == (due[0] - 1 if due else None)


def test_a_check_belongs_to_each_validation_where_there_are_several_in_an_epoch() -> None:
    scores = [1.0] * 4
    assert epochs(scores, options={"val_check_interval": 1}, patience=3) == 2
    assert epochs(scores, options={"val_check_interval": 1}, patience=3, check_on_train_epoch_end=True) == 4
    assert epochs(scores, options={"check_val_every_n_epoch": 2}, patience=1) == 4
    assert epochs(scores, patience=1, check_on_train_epoch_end=False) == 2


def test_without_a_validation_there_is_a_check_at_the_end_of_each_epoch() -> None:
    for options in ({"val_check_interval": 1}, {"check_val_every_n_epoch": 2}):
        assert epochs([1.0] * 3, "train", {**options, "limit_val_batches": 0}, patience=2) == 3


def test_without_a_name_it_monitors_what_it_did_then() -> None:
    with pytest.warns(DeprecationWarning, match="EarlyStopping.. monitors 'early_stop_on', which is deprecated"):
        callback = EarlyStopping(patience=2)

    class Stopping(Scored):
        def training_step(self, batch: Any, batch_idx: int) -> Any:
            self.log("early_stop_on", 1.0, on_step=False, on_epoch=True)
            return self.loss(batch)

    trainer = quiet(max_epochs=9, callbacks=callback)
    trainer.fit(Stopping([1.0]), pairs(1), pairs(1))
    assert (callback.monitor, trainer.current_epoch) == ("early_stop_on", 3)


def test_the_sanity_check_a_validation_by_itself_and_a_fast_dev_run_do_not_count() -> None:
    callback = EarlyStopping("val", check_on_train_epoch_end=False)
    trainer = quiet(callbacks=callback, num_sanity_val_steps=1)
    trainer.validate(Scored([1.0]), pairs(1))
    assert (callback.best_score, callback.wait_count) == (INF, 0)
    trainer.fit(Scored([1.0]), pairs(1), pairs(1))
    assert (callback.best_score, callback.wait_count) == (1.0, 0)
    tried = EarlyStopping("val", stopping_threshold=2.0)
    quiet(callbacks=tried, fast_dev_run=True).fit(Scored([1.0]), pairs(1), pairs(1))
    assert tried.stopped_epoch is None


def test_min_epochs_come_first() -> None:
    assert epochs([1.0] * 4, options={"min_epochs": 6}, patience=1) == 6


def test_a_value_that_is_not_logged() -> None:
    told = r"EarlyStopping monitors 'loss', which was not logged; logged were \['train', 'val'\]"
    with pytest.raises(ConfigurationError, match=told):
        epochs([1.0], "loss")
    with pytest.warns(UserWarning, match=told):
        assert epochs([1.0], "loss", strict=False) == 4


@pytest.mark.parametrize("arguments, told", [
    ({"monitor": 3}, "monitor=3"), ({"mode": "auto"}, "mode='auto'; 'min' or 'max' is accepted"),
    ({"patience": -1}, "patience=-1; an int from 0"), ({"patience": 1.5}, r"patience=1\.5"),
    ({"min_delta": NAN}, "min_delta=nan"),
])  # fmt: skip
def test_arguments_that_make_no_sense(arguments: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigurationError, match=told):
        EarlyStopping(**{"monitor": "val", **arguments})


def test_what_it_says(capsys: pytest.CaptureFixture[str]) -> None:
    epochs([1.0, 0.5, 0.75, 0.75], verbose=True, patience=2)
    assert capsys.readouterr().out.splitlines() == [
        "val = 1: better than inf",
        "val = 0.5: better than 1",
        "val = 0.75: no better than 0.5 in 2 checks; training stops",
    ]
    epochs([NAN], verbose=True)
    assert "val = nan: it is not finite; training stops" in capsys.readouterr().out
    epochs([1.0] * 5, patience=1)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("patience, epochs", [(3, 1), (5, 3)])
def test_its_state_goes_on_with_the_patience_of_today(patience: int, epochs: int) -> None:
    first = EarlyStopping("val", patience=3)
    quiet(max_epochs=3, callbacks=first).fit(Scored([1.0, 2.0, 2.0]), pairs(1), pairs(1))
    second = EarlyStopping("val", patience=patience)
    second.load_state_dict(first.state_dict())
    trainer = quiet(max_epochs=9, callbacks=second)
    trainer.fit(Scored([2.0]), pairs(1), pairs(1))
    assert (trainer.current_epoch, second.wait_count, second.best_score) == (epochs, patience, 1.0)


def test_it_is_where_it_is_looked_for() -> None:
    assert AlsoThere is EarlyStopping
