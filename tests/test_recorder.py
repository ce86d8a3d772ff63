"""The recorder: what happens is written as it happens, and nothing happens that would not have."""

from __future__ import annotations

import contextlib
import inspect
import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import refimpl as pl
from conformance.recorder import IDENTITY_COLUMN, IDENTITY_SCALE, Recorder, Tags, describe, first_tensor, identify, said
from conformance.scenario import When
from conformance.trace import Event, Header, TraceWriter, open_trace

HEADER = Header("0", {"name": "own"}, {"name": "own", "version": "0"}, {"hooks": [], "effects": []}, {})


class Module(pl.LightningModule):
    """Has a layer, two hooks that return something, and one that raises if told to."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 1)
        self.error: BaseException | None = None

    def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        """Its own documentation."""
        if self.error is not None:
            raise self.error
        return self.layer(batch).pow(2).mean()

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.SGD(self.parameters(), lr=0.1)
        return [optimizer], [torch.optim.lr_scheduler.StepLR(optimizer, 1, 0.5)]


class State:
    """As much of a trainer as a recorder looks at."""

    global_step, current_epoch, callback_metrics = 3, 1, {"b": 0, "a": 0}
    training, should_stop = True, False


class Recording:
    """A recorder, and the events it has written once closed."""

    def __init__(self, path: Path, *when: When) -> None:
        self.path, self.writer = path, TraceWriter(path, HEADER)
        self.recorder = Recorder(self.writer, when)

    def module(self, *hooks: str) -> Any:
        self.recorder.module = self.recorder.recording(Module, hooks, "module")()
        return self.recorder.module

    def events(self) -> list[Event]:
        self.writer.close("returned")
        with open_trace(self.path) as reader:
            return list(reader)


@pytest.fixture
def record(tmp_path: Path) -> Iterator[Callable[..., Recording]]:
    """Makes recordings, of scenarios that let something happen, and closes them."""
    with contextlib.ExitStack() as stack:

        def make(*when: When) -> Recording:
            recording = Recording(tmp_path / f"{next(numbers)}.jsonl", *when)
            stack.enter_context(recording.writer)
            return recording

        numbers = itertools.count()
        yield make


@pytest.fixture
def recording(record: Callable[..., Recording]) -> Recording:
    return record()


def told(events: list[Event]) -> list[tuple[str, str, str, int]]:
    return [(e.ph, e.receiver, e.hook, e.depth) for e in events]


# ---- spans -------------------------------------------------------------------------------------------------


def test_spans_nest(recording: Recording) -> None:
    inner = lambda: recording.recorder.span("module", "training_step", lambda: 5, {})  # noqa: E731
    assert recording.recorder.span("trainer", "fit", inner, {"stage": "fit"}) == 5
    events = recording.events()
    assert told(events) == [
        ("B", "trainer", "fit", 0),
        ("B", "module", "training_step", 1),
        ("E", "module", "training_step", 1),
        ("E", "trainer", "fit", 0),
    ]
    assert [e.args for e in events] == [{"stage": "fit"}, {}, {}, {"stage": "fit"}]


@pytest.mark.parametrize("error", [RuntimeError("boom"), KeyboardInterrupt(), SystemExit(3)])
def test_an_exception_ends_its_spans_and_passes_on_unchanged(recording: Recording, error: BaseException) -> None:
    module = recording.module("training_step")
    module.error = error
    step = lambda: module.training_step(torch.ones(1, 4), 7)  # noqa: E731
    with pytest.raises(type(error)) as caught:
        recording.recorder.span("trainer", "fit", step, {})
    assert caught.value is error
    recording.recorder.span("trainer", "test", lambda: None, {})
    *_, step_end, fit_end, again, _ = recording.events()
    assert (step_end.hook, step_end.args["raised"], step_end.args["batch_idx"]) == ("training_step", said(error), 7)
    assert (fit_end.hook, fit_end.args["raised"]) == ("fit", said(error))
    assert again.depth == 0


def test_what_an_exception_says_is_cut_and_can_be_written() -> None:
    assert said(ValueError("x")) == "ValueError: x"
    assert len(said(ValueError("x" * 9999))) == 2000
    said(ValueError("half a pair: \ud800")).encode("utf-8")


# ---- hooks -------------------------------------------------------------------------------------------------


def test_a_recorded_hook_is_the_hook(recording: Recording) -> None:
    module, plain = recording.module("training_step"), Module()
    module.load_state_dict(plain.state_dict())
    batch = torch.ones(2, 4)
    assert torch.equal(module.training_step(batch, 0), plain.training_step(batch, 0))
    assert torch.equal(module.training_step(batch=batch, batch_idx=0), plain.training_step(batch, 0))
    recorded = type(module).training_step
    assert recorded.__name__ == recorded.__code__.co_name == "training_step"
    assert recorded.__doc__ == "Its own documentation."
    assert inspect.signature(recorded) == inspect.signature(Module.training_step)


def test_arguments_by_position_and_by_name_are_written_alike(recording: Recording) -> None:
    module = recording.module("training_step")
    module.training_step(torch.ones(1, 4), 7)
    module.training_step(batch_idx=7, batch=torch.ones(1, 4))
    one, _, other, _ = recording.events()
    assert one.args == other.args
    assert one.args["batch_idx"] == 7


def test_callbacks_say_who_they_are(recording: Recording) -> None:
    kind = recording.recorder.recording(pl.Callback, ["on_train_batch_start", "setup"], "callback:0")
    first, second = kind(), kind()
    second.receiver = "callback:1"
    for callback in (first, second):
        callback.on_train_batch_start(None, None, torch.ones(1, 4), 2, 0)
        callback.setup(None, None, stage="fit")
    events = [e for e in recording.events() if e.ph == "B"]
    assert [(e.receiver, e.hook) for e in events] == [
        ("callback:0", "on_train_batch_start"),
        ("callback:0", "setup"),
        ("callback:1", "on_train_batch_start"),
        ("callback:1", "setup"),
    ]
    assert (events[0].args["batch_idx"], events[1].args) == (2, {"stage": "fit"})


@pytest.mark.parametrize(
    "value, words",
    [
        (None, "none"),
        (torch.ones(2), "tensor"),
        ({"loss": 1}, "dict"),
        ([], "list:0"),
        ([1, 2, 3], "list:3"),
        ((1,), "list:1"),
        ([[1, 2], [1, 2, 3]], "lists:2,3"),
        ([[], [1]], "lists:0,1"),
        ([[1], 2], "list:2"),
        (5, "int"),
    ],
)
def test_outputs_are_told_by_their_form(value: object, words: str) -> None:
    assert describe(value) == words
    assert Recorder.identities(Recorder(None), {"outputs": value}) == {"outputs": words}  # type: ignore[arg-type]


def test_a_loss_that_is_no_number_can_be_written(recording: Recording) -> None:
    for value in (0.5, float("nan"), float("inf"), float("-inf")):
        args = recording.recorder.identities({"loss": torch.tensor(value, requires_grad=True)})
        recording.recorder.event("I", "module", "backward", args)
    assert [e.args["loss"] for e in recording.events()] == [0.5, "nan", "inf", "-inf"]


# ---- what the scenario makes happen ------------------------------------------------------------------------


@pytest.mark.parametrize(
    "do, second",
    [
        ("raise", RuntimeError),
        ("interrupt", KeyboardInterrupt),
        ("return-none", None),
        ("return-minus-1", -1),
        ("skip-closure", None),
        ("stop", 1),
    ],
)
def test_a_scenario_acts_at_the_nth_call_and_no_other(
    record: Callable[..., Recording], do: str, second: object
) -> None:
    recorder = record(When("training_step", do, 1)).recorder
    recorder.trainer = State()
    results: list[Any] = []
    for number in range(3):
        try:
            results.append(recorder.span("module", "training_step", lambda n=number: n, {}))
        except (RuntimeError, KeyboardInterrupt) as error:
            results.append(type(error))
    assert results == [0, second, 2]
    assert recorder.trainer.should_stop is (do == "stop")


def test_a_scenario_acts_on_the_receiver_it_names(record: Callable[..., Recording]) -> None:
    recorder = record(When("setup", "return-none", 0, "callback:1")).recorder
    results = [recorder.span(who, "setup", lambda: 1, {}) for who in ("module", "callback:0", "callback:1")]
    assert results == [1, 1, None]


def test_a_skipped_closure_is_not_called_and_a_none_is_what_is_returned(record: Callable[..., Recording]) -> None:
    for do, called in (("skip-closure", 0), ("return-none", 1)):
        calls: list[int] = []
        recorder = record(When("optimizer_step", do)).recorder
        assert recorder.span("module", "optimizer_step", lambda c=calls: c.append(1), {}) is None
        assert len(calls) == called


# ---- effects -----------------------------------------------------------------------------------------------


def test_effects_are_what_a_hook_could_see(recording: Recording) -> None:
    recorder, module = recording.recorder, recording.module()
    recorder.trainer = State()
    assert recorder.effects() == {
        "grad_enabled": True,
        "training": True,
        "grads": "none",
        "params": 0,
        "device": "cpu",
        "global_step": 3,
        "current_epoch": 1,
        "stage": "training",
        "metrics": ["a", "b"],
    }
    module.eval()
    with torch.no_grad():
        assert (recorder.effects()["training"], recorder.effects()["grad_enabled"]) == (False, False)
    module.layer(torch.ones(1, 4)).sum().backward()
    assert recorder.effects()["grads"] == "set"
    module.zero_grad(set_to_none=False)
    assert recorder.effects()["grads"] == "zero"


def test_before_there_is_a_module_only_the_grad_mode_is_known(recording: Recording) -> None:
    assert recording.recorder.effects() == {"grad_enabled": True}
    recording.recorder.module = nn.Module()
    assert recording.recorder.effects()["device"] == "none"


@pytest.mark.parametrize("stage", ["sanity_checking", "training", "validating", "testing", "predicting", None])
def test_the_stage_is_what_the_flags_say(recording: Recording, stage: str | None) -> None:
    state = State()
    state.training = False
    if stage:
        setattr(state, stage, True)
    recording.recorder.trainer, recording.recorder.module = state, Module()
    assert recording.recorder.effects()["stage"] == stage


def test_changes_of_parameters_are_counted_even_of_those_that_are_nan(recording: Recording) -> None:
    recorder, module = recording.recorder, recording.module()
    assert [recorder.effects()["params"], recorder.effects()["params"]] == [0, 0]
    with torch.no_grad():
        module.layer.bias.add_(1)
        assert recorder.effects()["params"] == 1
        module.layer.weight[0, 0] = float("nan")
        assert [recorder.effects()["params"], recorder.effects()["params"]] == [2, 2]
        module.layer.weight[0, 1] = 5.0
        assert recorder.effects()["params"] == 3


# ---- optimizers and schedulers -----------------------------------------------------------------------------


def test_steps_of_optimizer_and_scheduler_are_recorded(recording: Recording) -> None:
    module = recording.module("configure_optimizers")
    (optimizer,), (scheduler,) = module.configure_optimizers()
    optimizer.step()
    scheduler.step()
    events = recording.events()
    assert told(events[2:]) == [
        ("B", "optimizer", "step", 0),
        ("E", "optimizer", "step", 0),
        ("B", "scheduler", "step", 0),
        ("E", "scheduler", "step", 0),
    ]
    assert [e.fx.get("lr") for e in events] == [None, None, [0.1], [0.1], [0.1], [0.05]]


def test_several_are_told_apart_wherever_they_are(recording: Recording) -> None:
    one, two = (torch.optim.SGD(nn.Linear(1, 1).parameters(), lr=lr) for lr in (0.1, 0.2))
    schedulers = [torch.optim.lr_scheduler.StepLR(optimizer, 1) for optimizer in (one, two)]
    pairs = zip((one, two), schedulers, strict=True)
    configured = [{"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler}} for optimizer, scheduler in pairs]
    assert recording.recorder.instrumented(configured) is configured
    two.step()
    one.step()
    schedulers[1].step()
    assert [e.receiver for e in recording.events() if e.ph == "B"] == ["optimizer:1", "optimizer:0", "scheduler:1"]


# ---- batches -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stage", [0, 1, 2, 3])
def test_a_scenarios_batch_says_which_it_is_in_any_form(stage: int) -> None:
    tensor = torch.zeros(2, 5, dtype=torch.float64)
    tensor[:, IDENTITY_COLUMN] = ((stage << 19) + (2 << 16) + 7) / IDENTITY_SCALE
    name = f"{('train', 'val', 'test', 'predict')[stage]}/2/7"

    class Custom:
        def __init__(self) -> None:
            self.label, self.inner = "x", [tensor]

    for batch in (tensor, (tensor, 1), {"x": tensor}, {"a": [1, (tensor,)]}, Custom(), tensor.float()):
        assert identify(batch) == name


@pytest.mark.parametrize(
    "batch",
    [None, 5, "text", [], {}, object(), torch.ones(3), torch.ones(2, 2), torch.ones(2, 4), torch.full((1, 4), -1.0),
     torch.full((1, 4), float("nan"))],
)  # fmt: skip
def test_what_is_no_batch_of_a_scenario_has_no_name(batch: object) -> None:
    assert identify(batch) is None


def test_batches_of_ones_own_are_known_by_their_loader() -> None:
    tags, data = Tags(), Data()
    loader = tags.loaders(data, "train")
    assert len(loader) == 3
    for index, batch in enumerate(loader):
        assert tags.identify(batch) == tags.identify({"other form": batch}) == f"train/0/{index}"
    first, second = tags.loaders((data, data), "val")
    names = [tags.identify(batch) for loader in (first, second) for batch in loader]
    assert names == [f"val/{loader}/{index}" for loader in (0, 1) for index in range(3)]
    assert tags.identify([torch.ones(1)]) is None


def test_only_the_last_few_batches_are_kept() -> None:
    tags, batches = Tags(), [torch.ones(1) for _ in range(20)]
    for index, batch in enumerate(batches):
        tags.remember(batch, str(index))
    assert [tags.identify(batch) for batch in batches] == [None] * 4 + [str(i) for i in range(4, 20)]


def test_the_first_tensor_of_anything() -> None:
    wanted = torch.ones(1)
    assert first_tensor([{"a": None, "b": (1, wanted)}, torch.zeros(1)]) is wanted
    assert first_tensor([1, "x", {}]) is None


# ---- what is recorded trains as what is not ----------------------------------------------------------------


class Data:
    """Three batches."""

    def __iter__(self) -> Iterator[Tensor]:
        return iter(torch.ones(3, 2, 4).cumsum(0).unbind())

    def __len__(self) -> int:
        return 3


def test_recording_changes_nothing_that_is_learned(recording: Recording) -> None:
    weights = []
    for make in (Module, lambda: recording.module("training_step", "configure_optimizers", "backward")):
        torch.manual_seed(1)
        module = make()
        pl.Trainer(max_epochs=2, enable_progress_bar=False, enable_model_summary=False).fit(module, Data())
        weights.append(module.layer.weight.detach().clone())
    assert torch.equal(*weights)
    assert [e.hook for e in recording.events() if e.ph == "B"].count("backward") == 6
