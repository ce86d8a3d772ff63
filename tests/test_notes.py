"""Notes for exceptions whose cause is a reading: each where it belongs, and nowhere else."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from models import Batches, Line, Stream, pairs, quiet
from torch.utils.data import DataLoader

from refimpl import Callback
from refimpl.period.notes import NOTES, explain


def stacked(self: Any, outputs: Any) -> None:
    torch.stack([x["loss"] for x in outputs])


def keyed(self: Any, outputs: Any, *others: Any) -> None:
    self.seen = outputs["loss"]


def first(self: Any, outputs: Any, *others: Any) -> None:
    self.seen = outputs[0][0]["minimize"]


def averaged(self: Any, outputs: Any) -> None:
    sum(outputs) / len(outputs)  # type: ignore[call-overload]


def used(self: Any, batch: Any, *others: Any) -> None:
    self(batch[0])


def none(self: Any, *arguments: Any) -> None:
    return None


def two(self: Any) -> Any:
    return [torch.optim.SGD(self.parameters(), lr=0.1) for _ in range(2)]


def sized(self: Any) -> None:
    self.steps = len(self.trainer.train_dataloader)


def sampled(self: Any) -> None:
    self.sampler = self.trainer.val_dataloaders[0].sampler


def wrapped(self: Any) -> None:
    self.seen = self.trainer.train_dataloader.loaders


def step_for_two(self: Any, batch: Any, batch_idx: int, optimizer_idx: int) -> Any:
    return self.loss(batch)


TWO: dict[str, Any] = {"configure_optimizers": two, "training_step": step_for_two}
LOADERS = [pairs(1), pairs(1)]
ELSEWHERE = Batches([(torch.ones(1, 2, device="meta", dtype=torch.float64), torch.ones(1, 1))])


@pytest.mark.parametrize("function, loaders, members, note", [
    ("fit", pairs(2), {"training_epoch_end": stacked}, "training_epoch_end: outputs is, or holds, what .* R34"),
    ("validate", pairs(2), {"validation_epoch_end": stacked}, "validation_epoch_end: .* a tensor and no dict; see R34"),
    ("test", pairs(2), {"test_epoch_end": stacked}, "test_epoch_end: .* a tensor and no dict; see R34"),
    ("validate", LOADERS, {"validation_epoch_end": stacked}, "outputs is, or holds, a list, .* R32, R40"),
    ("fit", pairs(2), {**TWO, "training_epoch_end": stacked}, "outputs is, or holds, a list, .* R32, R40"),
    ("fit", pairs(2), {"training_step": none, "training_epoch_end": stacked}, "outputs is empty: .* R20, R32"),
    ("fit", pairs(2), {"training_step": none, "training_epoch_end": averaged}, "outputs is empty: .* R20, R32"),
    ("fit", pairs(2), {"on_train_batch_end": keyed}, "on_train_batch_end: .* a tensor and no dict; see R34"),
    ("fit", pairs(2), {"on_train_batch_end": first}, "on_train_batch_end: .* a tensor and no dict; see R34"),
    ("test", pairs(2), {"on_test_batch_end": keyed}, "on_test_batch_end: .* a tensor and no dict; see R34"),
    ("fit", pairs(2), {**TWO, "on_train_batch_end": keyed}, "outputs is, or holds, a list, .* R32, R40"),
    ("fit", pairs(2), {"training_step": none, "on_train_batch_end": keyed}, "outputs is None: .* R34"),
    ("fit", ELSEWHERE, {"on_train_batch_start": used}, "on_train_batch_start: the batch is still where .* R2 "),
    ("predict", ELSEWHERE, {"on_predict_batch_start": used}, "on_predict_batch_start: the batch is still where .* R2 "),
    ("fit", pairs(2), {"on_train_start": sized}, r"^\(a loader is asked for when its first epoch begins; .* R24 "),
    ("fit", pairs(2), {"on_fit_start": sampled}, r"^\(a loader is asked for when its first epoch begins; .* R24 "),
    ("fit", DataLoader([1.0]), {"training_step": none, "on_train_end": wrapped}, "in no wrapper; see R67"),
])  # fmt: skip
def test_an_exception_says_which_reading_is_its_cause(
    function: str, loaders: Any, members: dict[str, Any], note: str
) -> None:
    module = type("Script", (Line,), members)()
    trainer = quiet(limit_val_batches=0 if function == "fit" else 1.0)
    with pytest.raises(Exception) as raised:
        getattr(trainer, function)(module, loaders)
    [said] = raised.value.__notes__
    assert re.search(note, said), said


def test_a_callbacks_hook_is_one_too() -> None:
    class Watching(Callback):
        def on_train_batch_end(self, trainer: Any, pl_module: Any, outs: Any, *others: Any) -> None:
            trainer.seen = outs["loss"]

    with pytest.raises(IndexError) as raised:
        quiet(callbacks=Watching(), limit_val_batches=0).fit(Line(), pairs(1))
    assert raised.value.__notes__[0].startswith("(on_train_batch_end: outputs is, or holds, what the step returned")


def raising(error: Exception) -> Callable[..., None]:
    def hook(self: Any, *arguments: Any) -> None:
        raise error

    return hook


def of_another_tensor(self: Any, outputs: Any) -> None:
    torch.stack(outputs)[:, 0]


def of_a_dict(self: Any, outputs: Any) -> None:
    [x["loss"][0] for x in outputs]


def of_other_names(self: Any, outputs: Any, *others: Any) -> None:
    [][0]


@pytest.mark.parametrize("members", [
    {"training_epoch_end": of_another_tensor}, {"training_epoch_end": of_other_names},
    {"training_step": lambda self, batch, batch_idx: {"loss": self.loss(batch)}, "training_epoch_end": of_a_dict},
    {"on_train_batch_end": of_other_names},
    {"on_train_batch_end": raising(TypeError("'NoneType' object is not subscriptable"))},
    {"on_train_batch_start": raising(RuntimeError("no memory"))}, {"on_train_start": raising(TypeError("NoneType"))},
    {"on_train_end": raising(AttributeError("'loaders'"))}, {"training_step": raising(IndexError("too many indices"))},
])  # fmt: skip
def test_other_exceptions_are_left_alone(members: dict[str, Any]) -> None:
    module = type("Script", (Line,), members)()
    with pytest.raises(Exception) as raised:
        quiet(limit_val_batches=0).fit(module, Stream(pairs(2)))
    assert not hasattr(raised.value, "__notes__")


def test_where_runs_are_nested_it_is_said_once() -> None:
    class Inner(Line):
        training_epoch_end = stacked

    class Outer(Line):
        def on_train_start(self) -> None:
            quiet(limit_val_batches=0).fit(Inner(), pairs(1))

    with pytest.raises(IndexError) as raised:
        quiet(limit_val_batches=0).fit(Outer(), pairs(1))
    assert len(raised.value.__notes__) == 1


def test_an_exception_that_was_never_raised_is_left_alone() -> None:
    error = IndexError("too many indices")
    explain(error)
    assert not hasattr(error, "__notes__")


def test_every_note_is_tested() -> None:
    marks = test_an_exception_says_which_reading_is_its_cause.pytestmark  # type: ignore[attr-defined]
    shown = " ".join(case[3] for case in marks[0].args[1])
    assert all(any(words in shown for words in (note.says[:15], note.says[-15:], note.rows)) for note in NOTES)
