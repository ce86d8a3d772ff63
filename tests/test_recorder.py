"""The recorder: what happens is written as it happens, and nothing happens that would not have."""

from __future__ import annotations

import contextlib
import gc
import inspect
import itertools
import weakref
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from types import MappingProxyType, SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import refimpl as pl
from conformance.adapters.data import loaders
from conformance.described import (
    IDENTITY_COLUMN,
    IDENTITY_SCALE,
    Tags,
    describe,
    described_parts,
    described_values,
    handled,
    identify,
    identify_part,
    said,
    tensors,
)
from conformance.recorder import Recorder, documented
from conformance.scenario import Data as ScenarioData
from conformance.scenario import Scenario, When
from conformance.trace import Event, Header, TraceError, TraceWriter, open_trace

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
        loss: Tensor = self.layer(batch).pow(2).mean()
        return loss

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.SGD(self.parameters(), lr=0.1)
        return [optimizer], [torch.optim.lr_scheduler.StepLR(optimizer, 1, 0.5)]


class State:
    """As much of a trainer as a recorder looks at."""

    global_step, current_epoch, callback_metrics = 3, 1, {"b": torch.tensor(0.25), "a": 0}
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


def paired(events: list[Event]) -> list[tuple[Event, Event]]:
    """The begins with their ends, in the order of the ends; fails where they do not nest."""
    pairs, begun = [], list[Event]()
    for seq, event in enumerate(events):
        assert event.seq == seq
        if event.ph == "B":
            assert event.depth == len(begun)
            begun.append(event)
        else:
            begin = begun.pop()
            assert (event.receiver, event.hook, event.depth) == (begin.receiver, begin.hook, begin.depth)
            pairs.append((begin, event))
    assert not begun
    return pairs


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
    assert [e.args for e in events] == [{"stage": "fit"}, {}, {"returned": [5.0]}, {"stage": "fit"}]


def test_what_predict_returned_is_told_at_its_end(recording: Recording) -> None:
    for returned in (None, [], [torch.ones(2)] * 3, [[1, {"loss": 2.5}], [None]]):
        recording.recorder.span("trainer", "predict", lambda returned=returned: returned, {})
        recording.recorder.span("module", "predict_step", lambda returned=returned: returned, {})
    events = recording.events()
    ends = [{"results": "none", "results_values": []}, {"results": "list:0", "results_values": []},
            {"results": "list:3", "results_values": [1.0, 1.0, 1.0]},
            {"results": "lists:2,1", "results_values": [1.0, 2.5]}]  # fmt: skip
    assert [e.args for e in events if e.hook == "predict"] == [args for end in ends for args in ({}, end)]
    returned = [{"returned": end["results_values"]} for end in ends]
    assert [e.args for e in events if e.hook != "predict"] == [args for end in returned for args in ({}, end)]


def test_a_tensor_that_has_no_mean_tells_no_value() -> None:
    odd = [torch.ones(2, dtype=torch.complex64), torch.ones(2).to_sparse()]
    assert described_values([*odd, torch.tensor([1, 2]), torch.tensor([])]) == [1.5, "nan"]


def test_what_an_evaluation_returned_is_told_at_its_end(recording: Recording) -> None:
    returned = ([], [{}], [{"b": 2.0, "a": torch.tensor(0.5)}, {"a": 1}], [[1]], None)
    for each in returned:
        recording.recorder.span("trainer", "validate", lambda each=each: each, {})
    told = [(e.args.get("returned_names"), e.args.get("returned_values")) for e in recording.events() if e.ph == "E"]
    assert told == [([], []), ([], []), (["0/a", "0/b", "1/a"], [0.5, 2.0, 1.0]), (None, None), ("none", None)]


def test_what_freeze_and_a_checkpoint_come_to_is_told_at_their_ends(recording: Recording, tmp_path: Path) -> None:
    class Loaded(nn.Module):
        """With layers, whose weights add up to 1 and 4 squared, and arguments that are hyperparameters."""

        hparams, given = {"b": "x", "a": 1}, {"b": "x", "a": 1, "c": None}

        def __init__(self) -> None:
            super().__init__()
            self.layers, self.others = nn.Linear(1, 1), nn.Linear(1, 1)
            self.layers.weight.data.fill_(2.0)
            self.layers.bias.data.fill_(1.0)

    recorder = recording.recorder
    recorder.module = module = Loaded()
    recorder.folders, recorder.keeps_arguments = [str(tmp_path / "folder"), str(tmp_path / "none")], True
    (tmp_path / "folder").mkdir()
    for name in ("a.ckpt", "b.ckpt"):
        torch.save({"state_dict": module.state_dict()}, tmp_path / "folder" / name)
        module.layers.bias.data.fill_(0.0)
    logger = recorder.logger(object)
    recorder.span("module", "freeze", lambda: module.requires_grad_(False), {})
    recorder.span("module", "load_from_checkpoint", Loaded, {})
    recorder.span("trainer", "fit", lambda: logger.log_hyperparams({"b": "x"}), {})
    recorder.span("trainer", "fit", lambda: None, {})
    freeze, load, *fits = (e.args for e in recording.events() if e.ph == "E")
    assert freeze == {"requires_grad": 0}
    assert load == {"weights": 5.0, "hparams": ["a=1", "b=x"], "arguments": ["a=1", "b=x", "c=None"]}
    assert [(fit["hparams"], fit["logger_hparams"], fit["files"]) for fit in fits] == [
        (["a=1", "b=x"], ["b=x"], [4.0, 5.0]), (["a=1", "b=x"], [], [4.0, 5.0])
    ]  # fmt: skip


@pytest.mark.parametrize("gathers", [True, False])
def test_a_logger_has_the_way_to_gather_only_where_the_trainers_gathers(recording: Recording, gathers: bool) -> None:
    """pytorch-lightning 1.5 hands values to it, and 1.9 refuses a logger that has its own."""
    def refused(self: object, metrics: object, step: int) -> None:
        raise AssertionError

    logger = recording.recorder.logger(type("Base", (), {"agg_and_log_metrics": refused}), gathers)
    with contextlib.nullcontext() if gathers else pytest.raises(AssertionError):
        logger.agg_and_log_metrics({"a": 1.0, "epoch": 0}, 0)
    assert recording.recorder._handed == ({"a": [(1.0, 0)]} if gathers else {})


@pytest.mark.parametrize("error", [RuntimeError("boom"), KeyboardInterrupt(), SystemExit(3)])
def test_an_exception_ends_its_spans_and_passes_on_unchanged(recording: Recording, error: BaseException) -> None:
    module = recording.module("training_step")
    module.error = error
    step = lambda: module.training_step(torch.ones(1, 4), 7)  # noqa: E731
    with pytest.raises(type(error)) as caught:
        recording.recorder.span("trainer", "fit", step, {})
    assert caught.value is error
    recording.recorder.span("trainer", "test", lambda: None, {})
    events = recording.events()
    assert len(paired(events)) == 3
    *_, step_end, fit_end, again, _ = events
    assert (step_end.hook, step_end.args["raised"], step_end.args["batch_idx"]) == ("training_step", said(error), 7)
    assert (fit_end.hook, fit_end.args["raised"]) == ("fit", said(error))
    assert again.depth == 0


def test_what_an_exception_says_is_cut_and_can_be_written() -> None:
    assert said(ValueError("x")) == "ValueError: x"
    assert len(said(ValueError("x" * 9999))) == 2000
    said(ValueError("half a pair: \ud800")).encode("utf-8")


# ---- bad use -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "receiver, hook, args, words",
    [
        ("nobody", "setup", {}, "receiver"),
        ("module", "set up", {}, "hook"),
        ("module", "setup", {"stage": {"of": "fit"}}, "stage"),
    ],
)
def test_what_a_trace_cannot_hold_is_refused_before_it_happens(
    recording: Recording, receiver: str, hook: str, args: dict[str, Any], words: str
) -> None:
    calls: list[int] = []
    with pytest.raises(TraceError, match=words):
        recording.recorder.span(receiver, hook, partial(calls.append, 1), args)
    recording.recorder.span("module", "setup", partial(calls.append, 2), {})
    assert calls == [2]
    assert told(recording.events()) == [("B", "module", "setup", 0), ("E", "module", "setup", 0)]


def test_nothing_happens_after_the_end(recording: Recording) -> None:
    recording.writer.close("returned")
    calls: list[int] = []
    with pytest.raises(TraceError, match="nothing can follow its footer"):
        recording.recorder.span("module", "setup", partial(calls.append, 1), {})
    assert calls == []


def test_a_hook_that_the_class_does_not_have_is_an_error(recording: Recording) -> None:
    with pytest.raises(AttributeError, match="on_train_bath_start"):
        recording.module("training_step", "on_train_bath_start")


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
    assert type(module).__name__ == "RecordedModule"
    assert Module.training_step is not recorded


def test_arguments_by_position_and_by_name_are_written_alike(recording: Recording) -> None:
    module = recording.module("training_step")
    module.training_step(torch.ones(1, 4), 7)
    module.training_step(batch_idx=7, batch=torch.ones(1, 4))
    one, _, other, _ = recording.events()
    assert one.args == other.args
    assert one.args["batch_idx"] == 7


@pytest.mark.parametrize(
    ("hook", "given", "told"),
    [
        ("training_step", ["batch", "batch_nb"], ["batch", "batch_idx", "optimizer_idx", "hiddens"]),
        ("training_step", ["batch", "batch_idx", "hiddens"], ["batch", "batch_idx", "hiddens"]),
        ("on_train_batch_start", ["batch", "batch_idx", "unused"], ["batch", "batch_idx", "dataloader_idx"]),
        ("on_before_optimizer_step", ["optimizer", "opt_idx"], ["optimizer", "optimizer_idx"]),
        ("optimizer_step", ["epoch", "batch_idx", "optimizer", "optimizer_closure"],
         ["epoch", "batch_idx", "optimizer", "optimizer_closure", "on_tpu", "using_native_amp", "using_lbfgs"]),
        ("predict_step", [], ["batch", "batch_idx", "dataloader_idx"]),
        ("on_fit_start", ["whatever"], ["whatever"]),
    ],
)  # fmt: skip
def test_parameters_have_the_documented_names(hook: str, given: list[str], told: list[str]) -> None:
    """Those that are called something else by their positions, and then what a `*args` takes."""
    assert documented(hook, given) == told


class ModelHooks:
    """A library's hooks, which calls what it does not use something else."""

    def on_train_batch_start(self, batch: object, batch_idx: int, unused: int = 9) -> int:
        return unused


class OwnNames(ModelHooks):
    def training_step(self, sample: object, *rest: int) -> object:
        return rest

    def validation_step(self, sample: object, number: int) -> int:
        return number


def test_a_hook_that_names_its_parameters_otherwise_gets_what_it_is_given(recording: Recording) -> None:
    hooks = ("training_step", "validation_step", "on_train_batch_start")
    module = recording.recorder.recording(OwnNames, hooks, "module")()
    assert module.training_step(None, 7, 1) == (7, 1)
    assert module.validation_step(sample=None, number=3) == 3
    assert module.on_train_batch_start(None, 7, dataloader_idx=2) == 2
    ends = [event.args for event in recording.events() if event.ph == "E"]
    assert ends == [
        {"batch": None, "batch_idx": 7, "optimizer_idx": 1, "returned": [7.0, 1.0]},
        {"batch": None, "batch_idx": 3, "returned": [3.0]},
        {"batch": None, "batch_idx": 7, "dataloader_idx": 2},
    ]


def test_what_a_trainer_asks_a_hook_for_it_finds_in_its_signature(recording: Recording) -> None:
    """In a library's own, the documented name; in the user's, the user's."""
    recorded = recording.recorder.recording(OwnNames, ("validation_step", "on_train_batch_start"), "module")
    assert list(inspect.signature(recorded.on_train_batch_start).parameters)[3] == "dataloader_idx"
    assert list(inspect.signature(recorded.validation_step).parameters)[2] == "number"


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


class Hooks:
    """Hooks as modules write them: with parameters of other names, of none, and with an attribute of their own."""

    receiver = "a module's own"

    def predict_step(self, *args: Any, **kwargs: Any) -> Any:
        return args, kwargs

    def training_step(self, batch: Tensor, *outputs: Any, **batch_idx: Any) -> Any:
        return outputs, batch_idx

    def on_predict_epoch_end(self, outputs: Any) -> None: ...

    def on_test_batch_end(self, outputs: Any, batch_idx: int, dataloader_idx: int) -> None: ...

    def training_step_end(self, output: Any) -> None: ...

    def optimizer_step(self, epoch: int, batch_idx: int, optimizer: Any, optimizer_idx: int) -> None: ...


class Later(Hooks):
    def on_predict_epoch_end(self, results: Any) -> None: ...


HOOKS = [hook for hook in vars(Hooks) if "_step" in hook or hook.startswith("on_")]


@pytest.mark.parametrize(
    "base, hook, given, args",
    [
        (Hooks, "predict_step", (torch.ones(1), 3, 1), {"batch": None, "batch_idx": 3, "dataloader_idx": 1}),
        (Hooks, "training_step", (torch.ones(1), 3), {"batch": None, "batch_idx": 3}),
        (Hooks, "on_predict_epoch_end", ([[1], [2, 3]],), {"results": "lists:1,2", "results_values": [1.0, 2.0, 3.0]}),
        (Later, "on_predict_epoch_end", ([[1], [2, 3]],), {"results": "lists:1,2", "results_values": [1.0, 2.0, 3.0]}),
        (Hooks, "on_test_batch_end", (None, 3, 1), {
            "outputs": "none", "outputs_keys": [], "outputs_graph": False, "outputs_values": [], "batch_idx": 3,
            "dataloader_idx": 1}),
        (Hooks, "training_step_end", ({"loss": 1},), {
            "outputs": "dict", "outputs_keys": ["loss"], "outputs_graph": False, "outputs_values": [1.0]}),
        (Hooks, "optimizer_step", (2, 3, object(), 1),
         {"epoch": 2, "batch_idx": 3, "optimizer": None, "optimizer_idx": 1}),
    ],
)
def test_arguments_are_written_by_their_names(
    recording: Recording, base: type, hook: str, given: tuple[Any, ...], args: dict[str, Any]
) -> None:
    instance = recording.recorder.recording(base, HOOKS, "module")()
    result = getattr(base(), hook)(*given)
    assert getattr(instance, hook)(*given) == result
    told = {"returned": described_values(result)} if hook.endswith(("ng_step", "ct_step", "_step_end")) else {}
    events = [(e.receiver, e.hook, e.args) for e in recording.events()]
    assert events == [("module", hook, args), ("module", hook, {**args, **told})]


@pytest.mark.parametrize("of_the_users_own", [False, True])
def test_a_scenarios_module_puts_something_into_a_checkpoint_and_one_of_the_users_own_nothing_more(
    recording: Recording, of_the_users_own: bool
) -> None:
    recording.recorder.tags = Tags() if of_the_users_own else None
    module = recording.module("on_save_checkpoint", "on_load_checkpoint")
    whole = {"state_dict": {}, "epoch": 0, "global_step": 0}
    checkpoint, other, empty = dict(whole), {**whole, "scenario-callback:3": "callback:3"}, dict[str, Any]()
    for hook, given in [("save", checkpoint), ("load", checkpoint), ("load", other), ("save", empty)]:
        getattr(module, f"on_{hook}_checkpoint")(given)
    told = [event.args for event in recording.events() if event.ph == "B"]
    if of_the_users_own:
        assert (checkpoint, empty, told) == (whole, {}, [{}] * 4)
    else:
        assert told == [
            {"complete": True}, {"kept": "module", "found": []}, {"kept": "nothing", "found": ["callback:3"]},
            {"complete": False},
        ]  # fmt: skip


def test_which_batch_it_is_and_what_was_done_to_it_is_written(recording: Recording) -> None:
    class Batch:
        def __init__(self) -> None:
            self.x, self.handled = torch.full((2, 4), ((1 << 19) + 5) / IDENTITY_SCALE), {"moved": True}

    assert recording.recorder.identities({"batch": Batch()}) == {"batch": "val/0/5", "moved": True}
    recording.recorder.tags = Tags()  # then the data say nothing
    assert recording.recorder.identities({"batch": Batch()}) == {"batch": None}


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
    assert Recorder.identities(Recorder(None), {"outputs": value})["outputs"] == words


@pytest.mark.parametrize(
    "value, keys, graph",
    [
        (None, [], False),
        (torch.ones(2), [], False),
        ({"loss": torch.ones(2, requires_grad=True), "b": 1}, ["b", "loss"], True),
        ([{"loss": 1, "b": 2}, {"loss": 1}], ["loss"], False),
        ([[{"loss": 1}], [{"loss": torch.ones(2, requires_grad=True)}]], ["loss"], True),
        ([torch.ones(2, requires_grad=True).sum()], [], True),
    ],
)
def test_what_outputs_hold(value: object, keys: list[str], graph: bool) -> None:
    given = Recorder.identities(Recorder(None), {"outputs": value})
    assert (given["outputs_keys"], given["outputs_graph"]) == (keys, graph)


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
            results.append(recorder.span("module", "training_step", partial(int, number), {}))
        except (RuntimeError, KeyboardInterrupt) as error:
            results.append(type(error))
    assert results == [0, second, 2]
    assert recorder.trainer.should_stop is (do == "stop")


def test_a_trainer_is_told_to_stop_once_the_hook_is_done(record: Callable[..., Recording]) -> None:
    recorder = record(When("training_step", "stop")).recorder
    trainer = recorder.trainer = State()
    assert recorder.span("module", "training_step", lambda: trainer.should_stop, {}) is False
    assert trainer.should_stop is True


def test_an_error_that_a_scenario_wants_says_so_in_the_trace(record: Callable[..., Recording]) -> None:
    recording = record(When("training_step", "raise"))
    with pytest.raises(RuntimeError, match=r"^told to by the scenario$"):
        recording.recorder.span("module", "training_step", lambda: 1, {"batch_idx": 0})
    assert [e.args for e in recording.events()] == [
        {"batch_idx": 0},
        {"batch_idx": 0, "raised": "RuntimeError: told to by the scenario"},
    ]


def test_a_scenario_acts_on_the_receiver_it_names(record: Callable[..., Recording]) -> None:
    recorder = record(When("setup", "return-none", 0, "callback:1")).recorder
    results = [recorder.span(who, "setup", lambda: 1, {}) for who in ("module", "callback:0", "callback:1")]
    assert results == [1, 1, None]


def test_a_skipped_closure_is_not_called_and_a_none_is_what_is_returned(record: Callable[..., Recording]) -> None:
    for do, called in (("skip-closure", 0), ("return-none", 1)):
        calls: list[int] = []
        recorder = record(When("optimizer_step", do)).recorder
        assert recorder.span("module", "optimizer_step", partial(calls.append, 1), {}) is None
        assert len(calls) == called


# ---- effects -----------------------------------------------------------------------------------------------


def test_effects_are_what_a_hook_could_see(recording: Recording) -> None:
    recorder, module = recording.recorder, recording.module()
    recorder.trainer = State()
    assert recorder.effects() == {
        "grad_enabled": True,
        "training": True,
        "submodules": "alike",
        "grads": "none",
        "params": 0,
        "device": "cpu",
        "global_step": 3,
        "current_epoch": 1,
        "stage": "training",
        "metrics": ["a", "b"],
        "metrics_graph": False,
        "values": [0.0, 0.25],
    }
    module.eval()
    with torch.no_grad():
        assert (recorder.effects()["training"], recorder.effects()["grad_enabled"]) == (False, False)
    module.layer(torch.ones(1, 4)).sum().backward()
    assert recorder.effects()["grads"] == "set"
    module.zero_grad(set_to_none=False)
    assert recorder.effects()["grads"] == "zero"


def test_gradients_are_those_of_all_parameters(recording: Recording) -> None:
    recorder, module = recording.recorder, recording.module()
    for of, gradient, words in (
        (module.layer.bias, torch.zeros(1), "zero"),
        (module.layer.weight, torch.zeros(1, 4), "zero"),
        (module.layer.bias, torch.ones(1), "set"),
        (module.layer.weight, torch.ones(1, 4), "set"),
        (module.layer.bias, None, "set"),
        (module.layer.weight, None, "none"),
    ):
        of.grad = gradient
        assert recorder.effects()["grads"] == words


def test_before_there_is_a_module_only_the_grad_mode_is_known(recording: Recording) -> None:
    assert recording.recorder.effects() == {"grad_enabled": True}
    recording.recorder.module = nn.Module()
    assert "device" not in recording.recorder.effects()


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


def test_parameters_that_are_new_or_of_a_new_form_are_watched_too(recording: Recording) -> None:
    recorder, module = recording.recorder, recording.module()
    assert recorder.effects()["params"] == 0
    module.layer.weight.data = module.layer.weight.data.repeat(2, 1)
    assert recorder.effects()["params"] == 1
    module.head = nn.Linear(1, 1)
    assert recorder.effects()["params"] == 1
    with torch.no_grad():
        module.head.bias.add_(1)
    assert recorder.effects()["params"] == 2


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


def test_a_step_does_and_returns_what_it_did(recording: Recording) -> None:
    layers = [nn.Linear(1, 1) for _ in range(2)]
    layers[1].load_state_dict(layers[0].state_dict())
    optimizers = [torch.optim.SGD(layer.parameters(), lr=0.5) for layer in layers]
    recording.recorder.instrumented(optimizers[0])

    def closure(layer: nn.Module) -> float:
        loss: Tensor = layer(torch.ones(1, 1)).sum()
        torch.autograd.backward(loss)
        return loss.item()

    one, other = (optimizers[i].step(closure=partial(closure, layers[i])) for i in (0, 1))
    assert one == other != 0
    assert torch.equal(layers[0].weight, layers[1].weight)
    assert told(recording.events()) == [("B", "optimizer", "step", 0), ("E", "optimizer", "step", 0)]


def test_rates_are_those_of_all_groups_and_optimizers(recording: Recording) -> None:
    first, second, third = (nn.Parameter(torch.ones(1)) for _ in range(3))
    one = torch.optim.SGD([{"params": [first], "lr": 0.1}, {"params": [second], "lr": 0.2}], lr=1.0)
    other = torch.optim.SGD([third], lr=0.3)
    plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(other)
    scheduled = {"optimizer": other, "lr_scheduler": {"scheduler": plateau, "monitor": "loss"}, "frequency": 1}
    recording.recorder.instrumented(({"optimizer": one}, scheduled))
    assert recording.recorder.effects()["lr"] == [0.1, 0.2, 0.3]
    plateau.step(torch.tensor(1.5))
    assert [(e.receiver, e.args) for e in recording.events()] == [("scheduler", {"value": 1.5})] * 2


def test_an_optimizer_is_named_as_its_steps_are_wrapped_or_not(recording: Recording) -> None:
    one, other, strange = (torch.optim.SGD([nn.Parameter(torch.ones(1))], lr=0.1) for _ in range(3))
    recording.recorder.instrumented(one)
    wrapped = SimpleNamespace(optimizer=one)
    assert [recording.recorder.identities({"optimizer": x}) for x in (one, wrapped, strange, None)] == [
        {"optimizer": "optimizer"}, {"optimizer": "optimizer"}, {"optimizer": None}, {"optimizer": None},
    ]  # fmt: skip
    recording.recorder.instrumented([one, other])
    assert recording.recorder.identities({"optimizer": other}) == {"optimizer": "optimizer:1"}


def test_numbers_of_data_that_no_formula_knows_are_not_written(recording: Recording) -> None:
    optimizer = torch.optim.SGD([nn.Parameter(torch.ones(1))], lr=0.1)
    plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer)
    recording.recorder.tags = Tags()
    recording.recorder.instrumented([[optimizer], [plateau]])
    assert recording.recorder.identities({"loss": torch.ones(())}) == {}
    plateau.step(1.0)
    assert [e.args for e in recording.events()] == [{}, {}]


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


def part(loader: int, index: int, stage: int = 0) -> tuple[Tensor, Tensor]:
    x = torch.full((2, 4), ((stage << 19) + (loader << 16) + index) / IDENTITY_SCALE, dtype=torch.float64)
    return x, torch.full((2, 1), (index * 3 % 7 - 3) / 4 + 1)


@pytest.mark.parametrize("nesting, batch, name", [
    (1, [part(0, 3), part(1, 0)], "[train/0/3,train/1/0]"),
    (1, {"a": part(0, 3), "b": part(1, 0)}, "{a:train/0/3,b:train/1/0}"),
    (2, {"a": [part(0, 3)], "b": (part(1, 4), part(2, 0))}, "{a:[train/0/3],b:[train/1/4,train/2/0]}"),
    (1, part(0, 3), "train/0/3"),  # of a trainer that does not combine them
    (2, part(1, 2, stage=1), "val/1/2"),
    (0, [part(0, 3), part(1, 3)], "train/0/3"),
    (1, [], None),
])  # fmt: skip
def test_a_batch_of_several_loaders_says_which_it_is_made_of(
    record: Callable[..., Recording], nesting: int, batch: Any, name: str | None
) -> None:
    recorder = record().recorder
    recorder.nesting = nesting
    assert recorder.identities({"batch": batch}) == {"batch": name}


def test_so_does_one_of_ones_own_loaders(record: Callable[..., Recording]) -> None:
    recorder = record().recorder
    recorder.tags, recorder.nesting = Tags(), 2
    loaders = recorder.tags.loaders({"a": [Data()], "b": (Data(), Data())}, "train")
    batch = {key: [list(loader)[1] for loader in inner] for key, inner in loaders.items()}
    assert recorder.identities({"batch": batch}) == {"batch": "{a:[train/0/1],b:[train/1/1,train/2/1]}"}
    (val,) = list(recorder.tags.loaders(Data(), "val"))[:1]
    assert recorder.identities({"batch": [val]}) == {"batch": "val/0/0"}


@pytest.mark.parametrize("loader, index", [(0, 0), (5, 1), (7, 0xFFFF), (0, 40_000)])
def test_the_name_of_a_batch_is_read_to_the_last_bit(loader: int, index: int) -> None:
    for blur in (-0.25, 0, 0.25):  # as a computation may have left it
        tensor = torch.zeros(1, IDENTITY_COLUMN + 1, dtype=torch.float64)
        tensor[:, IDENTITY_COLUMN] = ((2 << 19) + (loader << 16) + index + blur) / IDENTITY_SCALE
        assert identify(MappingProxyType({"x": tensor})) == f"test/{loader}/{index}"
    assert identify(tensor[:, :IDENTITY_COLUMN]) is None


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


def test_the_tag_of_a_batch_that_is_gone_is_nobody_elses() -> None:
    tags, tensor = Tags(), torch.ones(1)
    tags.remember([tensor], "train/0/0")
    alive = weakref.ref(tensor)
    del tensor
    gc.collect()
    assert alive() is not None  # or a new tensor could have its id
    for index in range(16):
        tags.remember(torch.ones(1), str(index))
    assert alive() is None


def test_a_batch_keeps_its_tag_until_it_is_another_tensor() -> None:
    tags, batch = Tags(), {"x": torch.ones(1)}
    tags.remember(batch, "train/0/0")
    assert tags.identify({"x": batch["x"].to("cpu"), "y": 1}) == "train/0/0"
    assert tags.identify({"x": batch["x"].to("meta")}) is None
    assert tags.identify({"x": batch["x"] + 1}) is None


@pytest.mark.parametrize("index, y", [(0, 0.25), (1, 1.0), (2, 1.75), (7, 0.25)])
def test_a_batch_whose_y_is_not_its_own_has_no_name(index: int, y: float) -> None:
    x = torch.full((2, 4), index / IDENTITY_SCALE, dtype=torch.float64)
    for targets in (torch.tensor([[y], [9]]), torch.tensor([[y]], dtype=torch.bfloat16)):
        assert identify((x, {"weights": torch.zeros(1), "y": targets})) == f"train/0/{index}"
    for other in (0.0, y + 0.25, float("nan")):
        assert identify((x, torch.tensor([[other], [y]]))) is None


def test_a_part_of_a_batch_says_which_rows_it_has(record: Callable[..., Recording]) -> None:
    scenario = Scenario("parts", data=ScenarioData(train=3, batch_size=7, last=5))
    for index, (x, y) in enumerate(loaders(scenario, "train")):
        name, rows = f"train/0/{index}", list(range(len(x)))
        for some in (slice(0, None), slice(2, 4), slice(-1, None), slice(1, None, 2)):
            assert identify_part((x[some], {"target": y[some]})) == (name, rows[some])
        assert identify_part((x[:3], y)) == identify_part((x[:0], y[:0])) == identify_part((x, y + 1 / 8)) == (None, [])
    recorder = record().recorder
    recorder.in_parts = True
    assert recorder.identities({"batch": (x[3:], y[3:])}) == {"batch": "train/0/2", "rows": [3, 4]}
    hiddens = {"hiddens": torch.stack([torch.tensor(1.0), y[3, 0]])}
    told = {"batch": "train/0/2", "rows": [3, 4], "hiddens": "detached:1", "hiddens_row": 3}
    assert recorder.identities({"batch": (x[3:], y[3:]), **hiddens}) == told


class AsDocumented(list):  # type: ignore[type-arg]
    """Parts that answer in every way, out of which one may be taken."""

    loss = property(lambda self: [part["loss"] for part in self])
    out = property(lambda self: list(self))

    def __getitem__(self, key: Any) -> Any:
        return [part[key] for part in self] if isinstance(key, str) else super().__getitem__(key)


def test_parts_are_asked_in_every_way() -> None:
    one, two = torch.tensor(0.5), torch.tensor(float("nan"))
    ways = {way: [0.5, "nan"] for way in ("losses", "by_index", "by_attribute")}
    named = [{"loss": one}, {"loss": two}]
    assert described_parts(AsDocumented([one, two])) == {"parts": ["tensor", "tensor"], **ways}
    assert described_parts(AsDocumented(named)) == {"parts": ["dict", "dict"], **ways, "by_key": [0.5, "nan"]}
    plain = described_parts(named)
    assert plain.pop("by_attribute").startswith("AttributeError: ") and plain.pop("by_key").startswith("TypeError: ")
    assert plain == {"parts": ["dict", "dict"], "losses": [0.5, "nan"], "by_index": [0.5, "nan"]}
    assert described_parts([None, one]) == {"parts": ["none", "tensor"]}
    assert described_parts([]) == {"parts": []}
    assert described_parts(one) == described_parts({"loss": one}) == {}


def test_what_was_done_to_a_batch_is_found_at_any_depth() -> None:
    assert handled([1, {"a": (None, SimpleNamespace(handled={"moved": False}))}, torch.ones(1)]) == {"moved": False}
    assert handled(SimpleNamespace(inner=[SimpleNamespace(handled={"b": True})], handled={"a": True})) == {"a": True}
    assert handled((torch.ones(1), "x", SimpleNamespace(handled=3))) == {}


def test_the_tensors_of_anything() -> None:
    one, other = torch.ones(1), torch.zeros(1)
    assert [id(found) for found in tensors([{"a": None, "b": (1, one)}, other])] == [id(one), id(other)]
    assert list(tensors([1, "x", {}])) == []


# ---- in a run ----------------------------------------------------------------------------------------------


class Data:
    """Three batches."""

    def __iter__(self) -> Iterator[Tensor]:
        return iter(torch.ones(3, 2, 4).cumsum(0).unbind())

    def __len__(self) -> int:
        return 3


class Full(Module):
    """Has loaders, validates, draws random numbers, and keeps momentum."""

    def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        return super().training_step(nn.functional.dropout(batch, 0.5, self.training), batch_idx)

    def validation_step(self, batch: Tensor, batch_idx: int, dataloader_idx: int = 0) -> None: ...

    def train_dataloader(self) -> Any:
        return Data()

    def val_dataloader(self) -> Any:
        return [Data(), Data()]

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.Adam(self.parameters(), lr=0.1)
        return [optimizer], [torch.optim.lr_scheduler.StepLR(optimizer, 1, 0.5)]


TRANSFERS = ("on_before_batch_transfer", "transfer_batch_to_device", "on_after_batch_transfer")
MODULE = (
    *("training_step", "validation_step", "configure_optimizers", "backward", "optimizer_step", "train_dataloader"),
    *("val_dataloader", *TRANSFERS),
)
CALLBACK = ("on_train_start", "on_train_batch_start", "on_train_batch_end", "on_validation_start", "on_train_end")


def trainer(**options: Any) -> pl.Trainer:
    quiet: dict[str, Any] = {"num_sanity_val_steps": 0, "enable_progress_bar": False, "enable_model_summary": False}
    return pl.Trainer(**{"max_epochs": 1, **quiet, **options})


def fit(recording: Recording, *callbacks: pl.Callback) -> Any:
    """Record a fit of a full module, as an adapter would."""
    recorder = recording.recorder
    module = recorder.module = recorder.recording(Full, MODULE, "module")()
    run = recorder.trainer = trainer(callbacks=list(callbacks))
    recorder.span("trainer", "fit", lambda: run.fit(module), {})
    return module


def callbacks(recording: Recording, base: type = pl.Callback, count: int = 2) -> list[Any]:
    made = [recording.recorder.recording(base, CALLBACK, "callback")() for _ in range(count)]
    for index, callback in enumerate(made):
        callback.receiver = f"callback:{index}"
    return made


def test_a_recorded_run_nests_and_has_its_callbacks_in_order(recording: Recording) -> None:
    fit(recording, *callbacks(recording))
    events = recording.events()
    pairs = paired(events)
    assert (pairs[-1][0].receiver, pairs[-1][0].hook) == ("trainer", "fit")
    for hook in CALLBACK:
        who = [e.receiver for e in events if e.hook == hook and e.ph == "B" and e.receiver != "module"]
        assert who == ["callback:0", "callback:1"] * (len(who) // 2) != []
    starts = [e.args["batch_idx"] for e, _ in pairs if (e.receiver, e.hook) == ("callback:1", "on_train_batch_start")]
    assert starts == [0, 1, 2]


def test_a_recorded_run_shows_what_changes_where(recording: Recording) -> None:
    fit(recording)
    pairs = paired(recording.events())

    def of(hook: str, receiver: str = "module") -> list[tuple[Event, Event]]:
        return [pair for pair in pairs if (pair[0].receiver, pair[0].hook) == (receiver, hook)]

    assert [(b.fx["params"], e.fx["params"]) for b, e in of("step", "optimizer")] == [(0, 1), (1, 2), (2, 3)]
    assert [(b.fx["global_step"], e.fx["grads"]) for b, e in of("backward")] == [(i, "set") for i in range(3)]
    assert {b.fx["grads"] for b, _ in of("backward")} <= {"none", "zero"}
    assert [(b.fx["lr"], e.fx["lr"]) for b, e in of("step", "scheduler")] == [([0.1], [0.05])]
    for hook, training, count in (("training_step", True, 3), ("validation_step", False, 6)):
        seen = [(b.fx["training"], b.fx["grad_enabled"], b.fx["stage"]) for b, _ in of(hook)]
        assert seen == [(training, training, "training" if training else "validating")] * count


def test_batches_are_known_after_their_transfer_too(recording: Recording) -> None:
    recording.recorder.tags = Tags()
    fit(recording)
    events = [e for e in recording.events() if e.ph == "B"]
    names = [f"train/0/{i}" for i in range(3)] + [f"val/{loader}/{i}" for loader in range(2) for i in range(3)]
    for hook in TRANSFERS:
        assert [e.args["batch"] for e in events if e.hook == hook] == names
    steps = [e.args["batch"] for e in events if e.hook in ("training_step", "validation_step")]
    assert steps == names


def test_without_tags_a_loader_is_handed_on_as_it_is(recording: Recording) -> None:
    loader = Data()

    class Own(Full):
        def train_dataloader(self) -> Any:
            return loader

    assert recording.recorder.recording(Own, ["train_dataloader"], "module")().train_dataloader() is loader


def test_an_error_in_a_callback_ends_the_run_as_it_would_have(recording: Recording) -> None:
    error = ValueError("enough")

    class Fails(pl.Callback):
        def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int, *_: Any) -> None:
            if batch_idx == 1:
                raise error

    with pytest.raises(ValueError) as caught:
        fit(recording, *callbacks(recording, Fails))
    assert caught.value is error
    raised = [(e.receiver, e.hook) for _, e in paired(recording.events()) if "raised" in e.args]
    assert raised == [("callback:0", "on_train_batch_start"), ("trainer", "fit")]


def test_recording_changes_nothing_that_is_learned(recording: Recording) -> None:
    weights = []
    for make in (Module, lambda: recording.module("training_step", "configure_optimizers", "backward")):
        torch.manual_seed(1)
        module = make()
        pl.Trainer(max_epochs=2, enable_progress_bar=False, enable_model_summary=False).fit(module, Data())
        weights.append(module.layer.weight.detach().clone())
    assert torch.equal(*weights)
    assert [e.hook for e in recording.events() if e.ph == "B"].count("backward") == 6


def test_nor_does_it_with_callbacks_validation_and_tags(record: Callable[..., Recording]) -> None:
    weights: list[Tensor] = []
    for tags in (None, Tags()):
        torch.manual_seed(1)
        recording = record()
        recording.recorder.tags = tags
        module = fit(recording, *callbacks(recording))
        weights.append(torch.cat([module.layer.weight.flatten(), torch.rand(3)]))
    torch.manual_seed(1)
    plain = Full()
    untrained = plain.layer.weight.detach().clone()
    trainer().fit(plain)
    assert not torch.equal(plain.layer.weight, untrained)
    weights.append(torch.cat([plain.layer.weight.flatten(), torch.rand(3)]))
    assert torch.equal(weights[0], weights[2])
    assert torch.equal(weights[1], weights[2])
