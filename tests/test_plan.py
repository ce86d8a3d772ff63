"""When: epochs, limits, validations, stops; against a brute-force model that counts them out."""

from __future__ import annotations

import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from models import Batches, Line, Stream, pairs, quiet

from refimpl import ConfigurationError, DataError

Event = tuple[str, int, int]


class Diary(Line):
    """Learns nothing; writes down which batches it is trained and validated on."""

    def __init__(self, stop_at: tuple[int, int] | None = None) -> None:
        super().__init__()
        self.events: list[Event] = []
        self.stop_at = stop_at
        self.batch_idx = -1

    def training_step(self, batch: Any, batch_idx: int) -> None:
        self.batch_idx = batch_idx
        self.events.append(("train", self.current_epoch, batch_idx))
        if (self.current_epoch, batch_idx) == self.stop_at:
            assert self.trainer is not None
            self.trainer.should_stop = True

    def on_validation_start(self) -> None:
        self.events.append(("val", self.current_epoch, self.batch_idx))

    def validation_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None: ...

    def on_train_epoch_end(self) -> None:
        self.batch_idx = -1

    def of(self, kind: str) -> list[tuple[int, int]]:
        return [(epoch, batch_idx) for what, epoch, batch_idx in self.events if what == kind]


def run(loader: Any = None, stop_at: tuple[int, int] | None = None, **options: Any) -> Diary:
    module = Diary(stop_at)
    quiet(**options).fit(module, loader if loader is not None else Batches(range(5)), Batches([0]))
    return module


def model(
    batches: int,
    limit: int | float,
    interval: int | float,
    every: int,
    epochs: int,
    max_steps: int,
) -> list[Event]:
    """All events of a fit, counted out batch by batch. An int counts, a float is a fraction."""
    used = [b for b in range(batches) if (b < limit if type(limit) is int else b + 1 <= batches * limit)]
    events: list[Event] = []
    steps_left = max_steps
    for epoch in range(epochs):
        since_validation = 0
        for batch_idx in used:
            if steps_left == 0:
                return events
            events.append(("train", epoch, batch_idx))
            since_validation += 1
            steps_left -= 1
            if interval == 1.0 and type(interval) is float:
                due = batch_idx == used[-1]
            elif type(interval) is float:
                due = since_validation >= max(1, int(len(used) * interval))
            else:
                due = since_validation == interval
            if due:
                since_validation = 0
                if (epoch + 1) % every == 0:
                    events.append(("val", epoch, batch_idx))
    return events


@given(st.data())
def test_a_fit_does_what_its_options_say(data: st.DataObject) -> None:
    sized = data.draw(st.booleans(), "sized")
    batches = data.draw(st.integers(1, 7), "batches")
    limit: int | float = data.draw(st.integers(1, 9), "limit")
    if sized and data.draw(st.booleans(), "as a fraction"):
        limit = data.draw(st.integers(-(-100 // batches), 100), "percent") / 100
        if int(batches * limit) == 0:  # 0.2 of 5 may come to less than 1 in floats
            limit = 1.0
    used = min(batches, limit) if type(limit) is int else int(batches * limit)
    interval: int | float = data.draw(st.sampled_from([1.0, *range(1, int(used) + 1)]), "interval")
    if sized and data.draw(st.booleans(), "interval as a fraction"):
        interval = data.draw(st.sampled_from([0.1, 0.25, 0.3, 0.5, 0.75, 1.0]), "fraction")
    every = data.draw(st.integers(1, 3), "every n epochs")
    epochs = data.draw(st.integers(1, 4), "epochs")
    max_steps = data.draw(st.sampled_from([-1, *range(1, 12)]), "max_steps")

    module = Diary()
    trainer = quiet(
        limit_train_batches=limit,
        val_check_interval=interval,
        check_val_every_n_epoch=every,
        max_epochs=epochs,
        max_steps=max_steps,
    )
    loader = Batches(range(batches)) if sized else Stream(range(batches))
    trainer.fit(module, loader, Batches([0]))
    expected = model(batches, limit, interval, every, epochs, max_steps)
    assert module.events == expected
    steps = sum(kind == "train" for kind, *_ in expected)
    assert trainer.global_step == steps
    assert trainer.current_epoch == len({epoch for kind, epoch, _ in expected})


def test_fractions_of_an_epoch() -> None:
    """What was measured of the period's release with 5 batches."""
    every = [0, 1, 2, 3, 4]
    for interval, expected in [
        (0.5, [1, 3]), (0.25, every), (0.7, [2]), (1.0, [4]), (1, every), (2, [1, 3]), (5, [4])
    ]:  # fmt: skip
        assert [b for _, b in run(val_check_interval=interval).of("val")] == expected


def test_an_interval_that_never_comes_is_refused() -> None:
    with pytest.raises(DataError, match="val_check_interval=6 is more than the 5 batches"):
        run(val_check_interval=6)
    with pytest.raises(DataError, match=r"val_check_interval=0\.5 needs a loader with a length"):
        run(Stream(range(5)), val_check_interval=0.5)
    assert run(Stream(range(5)), val_check_interval=9).of("val") == []
    module = Line()
    quiet(val_check_interval=9, limit_val_batches=0).fit(module, pairs(2))  # nothing is validated anyway


@pytest.mark.parametrize("asked, loaders, expected", [
    (0, [3], 0), (2, [3], 2), (2, [3, 1, 5], 5), (-1, [3, 4], 7), (99, [2], 2),
])  # fmt: skip
def test_sanity_check_takes_so_many_batches_of_each_loader(
    asked: int, loaders: list[int], expected: int
) -> None:
    seen: list[bool] = []

    class Counting(Diary):
        def validation_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
            assert self.trainer is not None
            seen.append(self.trainer.sanity_checking)
            assert self.trainer.validating is not self.trainer.sanity_checking

    quiet(num_sanity_val_steps=asked).fit(
        Counting(), Batches([0]), [Batches(range(count)) for count in loaders]
    )
    assert seen == [True] * expected + [False] * sum(loaders)


def test_the_sanity_check_respects_the_limit() -> None:
    module = run(num_sanity_val_steps=5, limit_val_batches=1)
    assert module.of("val") == [(0, -1), (0, 4)]
    assert run(num_sanity_val_steps=5, limit_val_batches=0).of("val") == []


def test_epochs_and_steps() -> None:
    assert len(run(max_epochs=3).of("train")) == 15
    assert run(max_epochs=3, max_steps=7).of("train")[-1] == (1, 1)
    assert run(max_epochs=-1, max_steps=7).of("train")[-1] == (1, 1)
    assert len(run(max_epochs=None, max_steps=12).of("train")) == 12


@pytest.mark.parametrize("options", [{"max_epochs": 0}, {"max_steps": 0}, {"limit_train_batches": 0}])
def test_nothing_to_train_is_said(options: dict[str, Any]) -> None:
    with pytest.warns(UserWarning, match="fit will train nothing"):
        module = run(**options)
    assert module.events == []


def test_should_stop_ends_the_epoch_with_a_validation() -> None:
    module = run(stop_at=(0, 1), max_epochs=3)
    assert module.events == [("train", 0, 0), ("train", 0, 1), ("val", 0, 1)]
    module = run(stop_at=(0, 1), max_epochs=3, check_val_every_n_epoch=2)
    assert module.events == [("train", 0, 0), ("train", 0, 1)]


@pytest.mark.parametrize("minimum, last", [
    ({"min_epochs": 1}, (0, 4)), ({"min_epochs": 2}, (1, 4)), ({"min_steps": 2}, (0, 1)),
    ({"min_steps": 4}, (0, 3)), ({"min_steps": 7}, (1, 1)), ({"min_epochs": 1, "min_steps": 7}, (1, 1)),
])  # fmt: skip
def test_a_stop_waits_for_the_minima(minimum: dict[str, int], last: tuple[int, int]) -> None:
    module = run(stop_at=(0, 1), max_epochs=3, **minimum)
    assert module.of("train")[-1] == last
    assert module.of("val")[-1] == last


def test_should_stop_does_not_outlive_the_run() -> None:
    module = Diary(stop_at=(0, 0))
    trainer = quiet(max_epochs=2, limit_val_batches=0)
    trainer.fit(module, Batches(range(3)))
    assert module.of("train") == [(0, 0)]
    trainer.fit(module, Batches(range(3)))
    assert module.of("train")[1:] == [(1, 0), (1, 1), (1, 2)]


def test_max_time_is_looked_at_after_each_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr(time, "monotonic", lambda: now)

    class Slow(Diary):
        def training_step(self, batch: Any, batch_idx: int) -> None:
            nonlocal now
            super().training_step(batch, batch_idx)
            now += 7

    for max_time in ("00:00:00:20", {"seconds": 20}):
        module = Slow()
        quiet(max_epochs=None, max_time=max_time, limit_val_batches=0).fit(module, Batches(range(5)))
        assert module.of("train") == [(0, 0), (0, 1), (0, 2)]
    module = Slow()
    quiet(max_epochs=None, max_time={"seconds": 50}, limit_val_batches=0).fit(module, Batches(range(5)))
    assert module.of("train")[-1] == (1, 2)


@pytest.mark.parametrize("batches", [1, 2, 3])
def test_fast_dev_run_tries_everything_once(batches: int) -> None:
    flag: bool | int = True if batches == 1 else batches
    module = run(fast_dev_run=flag, max_epochs=9, limit_train_batches=5, check_val_every_n_epoch=7)
    assert module.of("train") == [(0, b) for b in range(batches)]
    assert module.of("val") == [(0, batches - 1)]


def test_a_second_fit_goes_on_where_the_first_ended() -> None:
    module = Diary()
    trainer = quiet(max_epochs=1, limit_val_batches=0)
    trainer.fit(module, Batches(range(2)))
    trainer.max_epochs = 2
    trainer.fit(module, Batches(range(2)))
    assert module.of("train") == [(0, 0), (0, 1), (1, 0), (1, 1)]
    assert (trainer.current_epoch, trainer.global_step) == (2, 4)


def test_what_is_not_fully_there_is_not_validated_and_said() -> None:
    class NoStep(Diary):
        validation_step = None  # type: ignore[assignment]

    cases: list[tuple[Diary, Any, str]] = [
        (NoStep(), Batches([0]), "no validation_step"),
        (Diary(), None, "no loader"),
        (Diary(), [], "no loader"),
    ]
    for module, loaders, missing in cases:
        with pytest.warns(UserWarning, match=f"fit will not validate: .*{missing}"):
            quiet().fit(module, Batches([0]), loaders)
        assert module.of("val") == []


def test_fractions_that_leave_nothing_are_refused() -> None:
    with pytest.raises(DataError, match=r"limit_train_batches=0\.1 leaves 0 of 5 batches; at least 0\.2"):
        run(limit_train_batches=0.1)
    with pytest.raises(DataError, match=r"limit_val_batches=0\.1 leaves 0 of 1 batches"):
        run(limit_val_batches=0.1)
    with pytest.raises(DataError, match=r"limit_train_batches=0\.5 needs a loader with a length"):
        run(Stream(range(5)), limit_train_batches=0.5)
    with pytest.raises(ConfigurationError, match=r"limit_train_batches=1\.5"):
        run(limit_train_batches=1.5)
