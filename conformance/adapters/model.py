"""The scenario's module and data module, for every trainer with Lightning's interface.

Everything is defined by formulas (`docs/adapters.md`), so that a program in another language can
rebuild it exactly. Runs in the trainer's own world: torch and the standard library, Python 3.8 and up.
"""

from __future__ import annotations

import functools
import inspect
import itertools
import time
from contextlib import nullcontext
from importlib import import_module
from typing import Any, Dict, Iterable, Iterator, List, Optional, Tuple

import torch
from torch import nn

from ..described import STAGES
from ..experiment import STEPS, Scenario
from ..hooks import OWN_STEPS, TRANSFERS
from ..scenario_module import ARGUMENTS, CHANGED
from .data import CustomBatch, NamedBatch, loaders, unpack
from .optimization import configured, overrides

__all__ = ["datamodule_class", "made", "model_class", "with_star_args"]

# Weights and bias of the layers: one for each optimizer.
LAYERS = (([0.25, -0.5, 0.75, 0.125], 0.0625), ([-0.25, 0.5, 0.125, 0.25], 0.5))


def model_class(base: type, scenario: Scenario) -> type:
    """The user's module: `Linear(4, 1)`, or the sum of two, a mean squared error, and the scenario's steps."""

    data = scenario.data
    # A piece of a batch is a list of pieces, as the documentation cuts it.
    is_tuple = data.batch in ("tuple", "named")
    whole = is_tuple and not data.train_loaders and not scenario.model.truncated_bptt_steps

    if scenario.model.hyperparameters not in ("", "within"):
        base = _keeping(base, scenario)

    def __init__(self: Any, *args: Any, **kwargs: Any) -> None:
        base.__init__(self, *args, **kwargs)  # type: ignore[misc]
        self.layers = nn.ModuleList()
        if not scenario.model.layers_in_setup:
            build(self)
        if any(log.metric for log in scenario.model.logs):
            kind = import_module("torchmetrics").MeanSquaredError
            self.measures = nn.ModuleList(kind() if log.metric else nn.Identity() for log in scenario.model.logs)
        if any(log.buffer for log in scenario.model.logs):
            self.register_buffer("begun", torch.zeros((), dtype=torch.float64))
        self.automatic_optimization = not scenario.model.manual
        if scenario.model.truncated_bptt_steps:
            self.truncated_bptt_steps = scenario.model.truncated_bptt_steps
        if scenario.model.starts_in_eval:
            self.eval()
        if not scenario.model.prepare_data_per_node:
            self.prepare_data_per_node = False

    # Trainers look which arguments it has.
    __init__.__signature__ = inspect.signature(base.__init__)  # type: ignore[attr-defined,misc]

    def build(self: Any) -> None:
        for weights, bias in LAYERS[: scenario.model.optimizers]:
            layer = nn.Linear(4, 1, dtype=getattr(torch, scenario.model.dtype))
            with torch.no_grad():
                layer.weight.copy_(torch.tensor([weights]))
                layer.bias.fill_(bias)
            layer.bias.requires_grad_(not scenario.model.frozen)
            self.layers.append(layer)
        if scenario.model.shared:
            self.layers[1].bias = self.layers[0].bias
        if scenario.model.layer_in_eval:
            self.layers[0].eval()

    def setup(self: Any, stage: Optional[str] = None) -> None:
        if not len(self.layers):
            build(self)

    def forward(self: Any, x: Any) -> Any:
        x = x if isinstance(x, torch.Tensor) else unpack(x)[0]
        return sum(layer(x) for layer in self.layers)

    def step(self: Any, batch: Any, batch_idx: int, form: str = scenario.model.returns) -> Any:
        if whole and not isinstance(batch, NamedBatch if data.batch == "named" else tuple):
            raise TypeError("the batch is a %s, where the loader gave a %s" % (type(batch).__name__, data.batch))
        if scenario.model.truncated_bptt_steps and data.batch == "dict" and not isinstance(batch, dict):
            raise TypeError("the piece is a %s, where the batch is a dict" % type(batch).__name__)
        if scenario.model.draws:
            torch.rand(())
        x, y = unpack(batch)
        if data.batch == "nested" and len(batch["names"]) > len(x):  # of a whole batch, in a part of it
            raise ValueError("the batch has %d rows, and the names of %d" % (len(x), len(batch["names"])))
        loss = ((sum(layer(x) for layer in self.layers) - y) ** 2).mean()
        # The loop is to detach what hangs on to the graph of a batch, wherever it is.
        extra: Any = loss.detach() if scenario.data_parallel else [loss * 1.0]
        return {"tensor": loss, "dict": {"loss": loss, "extra": extra}, "none": None}[form]

    def training_step(self: Any, batch: Any, batch_idx: int) -> Any:
        return step(self, batch, batch_idx)

    def training_step_of(self: Any, batch: Any, batch_idx: int, optimizer_idx: int) -> Any:
        return step(self, batch, batch_idx)

    def training_step_with_hiddens(self: Any, batch: Any, batch_idx: int, hiddens: Any) -> Any:
        output = step(self, batch, batch_idx)
        if not scenario.data_parallel:
            return {**output, "hiddens": (0.0 if hiddens is None else hiddens) + 1.0 + 0.0 * output["loss"]}
        count = (0.0 if hiddens is None else hiddens[0]) + 1.0 + 0.0 * output["loss"]
        return {**output, "hiddens": torch.stack([count, unpack(batch)[1].flatten()[0]])}  # of this part

    def training_step_of_with_hiddens(
        self: Any, batch: Any, batch_idx: int, optimizer_idx: int, hiddens: Any
    ) -> Any:
        return training_step_with_hiddens(self, batch, batch_idx, hiddens)

    def manual_training_step(self: Any, batch: Any, batch_idx: int) -> Any:
        # One is given as it is, several in a list: another form is an error here.
        optimizers = self.optimizers(use_pl_optimizer=False) if scenario.model.plain else self.optimizers()
        schedulers = self.lr_schedulers()
        if scenario.model.optimizers == 1:
            optimizers, schedulers = [optimizers], [schedulers]
        for optimizer in optimizers:
            with optimizer.toggle_model() if scenario.model.optimizers > 1 else nullcontext():
                outputs: List[Any] = []
                compute = functools.partial(manual_closure, self, optimizer, batch, batch_idx, outputs)
                if scenario.model.closure:
                    optimizer.step(closure=compute)
                else:
                    compute()
                    optimizer.step()
        for scheduler in schedulers if scenario.model.scheduler != "none" else ():
            scheduler.step()
        return outputs[0]

    def manual_closure(self: Any, optimizer: Any, batch: Any, batch_idx: int, outputs: List[Any]) -> Any:
        outputs.append(step(self, batch, batch_idx))
        loss = outputs[0]["loss"] if isinstance(outputs[0], dict) else outputs[0]
        optimizer.zero_grad()
        self.manual_backward(loss, retain_graph=True)  # which it is to hand on
        return loss

    def eval_step(self: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> Any:
        return step(self, batch, batch_idx, scenario.model.eval_returns or scenario.model.returns)

    def predict_step(self: Any, batch: Any, batch_idx: int, dataloader_idx: Optional[int] = None) -> Any:
        return self(batch)

    def step_end(self: Any, output: Any) -> Any:
        if scenario.data_parallel:
            output = together(output)
        if output is None:
            return None
        return output["loss"] if isinstance(output, dict) else {"loss": output, "extra": output.detach()}

    def together(parts: Any) -> Any:
        """The mean of the parts' losses, in the form that they have; None where a part has none."""
        if any(part is None for part in parts):
            return None
        named = isinstance(parts[0], dict)
        loss = sum(parts["loss"] if named else parts) / len(parts)
        return {"loss": loss, "extra": loss.detach()} if named else loss

    def on_train_epoch_start(self: Any) -> None:
        if scenario.model.layer_in_eval:
            self.layers[0].eval()
        if scenario.model.thaws and self.trainer.current_epoch > 0:
            for layer in self.layers:
                layer.bias.requires_grad_(True)

    def prepare_data(self: Any) -> None:
        time.sleep(0.05)  # in which those that do not wait go on

    def on_load_checkpoint(self: Any, checkpoint: Dict[str, Any]) -> None:
        brought = checkpoint["state_dict"].items()
        checkpoint["state_dict"] = {k: v / 2 if "layers" in k else v for k, v in brought}

    def epoch_end(self: Any, outputs: Any) -> Any:
        return {"loss": 0.0, "log": {"returned": 0.0}} if scenario.model.ends_return else None

    several, truncated = scenario.model.optimizers > 1, scenario.model.truncated_bptt_steps > 0
    steps = {
        (False, False): training_step,
        (True, False): training_step_of,
        (False, True): training_step_with_hiddens,
        (True, True): training_step_of_with_hiddens,
    }
    body: Dict[str, Any] = {
        "__init__": __init__,
        "forward": forward,
        "configure_optimizers": lambda self: configured(self, scenario),
        "training_step": manual_training_step if scenario.model.manual else steps[several, truncated],
    }
    if scenario.model.layer_in_eval or scenario.model.thaws:
        body["on_train_epoch_start"] = on_train_epoch_start
    if scenario.model.layers_in_setup:
        body["setup"] = setup
    if scenario.model.halves:
        body["on_load_checkpoint"] = on_load_checkpoint
    if scenario.recorded > 1:
        body["prepare_data"] = prepare_data
    for hook in ("validation_step", "test_step"):
        if scenario.defines(hook):
            body[hook] = eval_step
    if scenario.defines("predict_step"):
        body["predict_step"] = predict_step
    for hook in scenario.model.defines:
        body[hook] = step_end if hook.endswith("_step_end") else epoch_end
    if any(log.buffer for log in scenario.model.logs):
        body["training_step"] = _counted(body["training_step"])
    body.update(_data_hooks(base, scenario))
    body.update(with_star_args(base, of_callback=False) if scenario.model.star_args else {})
    body.update(overrides(base, body, scenario))
    for hook in dict.fromkeys(log.hook for log in scenario.model.logs):
        if hook in body or (hook not in OWN_STEPS and hasattr(base, hook)):
            body[hook] = _logging(hook, body.get(hook) or getattr(base, hook), scenario)
    return type("ScenarioModel", (base,), body)


def made(kind: Any, scenario: Scenario, base: Any) -> Any:
    """The scenario's module, made with its arguments; or so by another one of the trainer's modules."""
    form = scenario.model.hyperparameters
    if form != "within":
        return kind(**({} if not form else {"params": dict(ARGUMENTS)} if form == "object" else ARGUMENTS))
    inner = _keeping(kind, scenario)  # the last of the classes: no release looks past an __init__ without super()

    class Outer(base):  # type: ignore[misc]
        def __init__(self, arg1: int = 0, arg4: int = 4) -> None:
            super().__init__()
            self.made = [inner(**ARGUMENTS)]  # in a list, so that it is no layer of this one

    return Outer().made[0]


def _keeping(base: Any, scenario: Scenario) -> Any:
    """The base with an __init__ that saves its hyperparameters; `given` is what it was called with."""
    form, changed = scenario.model.hyperparameters, scenario.model.hyperparameters_changed
    settings = {} if scenario.model.hyperparameters_logged else {"logger": False}
    calls: Dict[str, List[Tuple[str, ...]]] = {"names": [("arg1", "arg3")], "twice": [("arg1",), ("arg3",)]}

    class Keeping(base):  # type: ignore[misc]
        def __init__(self, arg1: Any = None, arg2: Any = None, arg3: Any = None) -> None:
            super().__init__()
            self.given = {"arg1": arg1, "arg2": arg2, "arg3": arg3}
            for names in calls.get(form, [()]):
                self.save_hyperparameters(*names, **settings, **({"ignore": "arg2"} if form == "ignore" else {}))
            if changed:
                self.hparams.arg1 = CHANGED

    class Inheriting(Keeping):
        def __init__(self, arg1: Any = None, arg2: Any = None, arg3: Any = None) -> None:
            super().__init__(0, arg2, arg3)
            self.given["arg1"] = arg1

    class KeepingObject(base):  # type: ignore[misc]
        def __init__(self, params: Any = None) -> None:
            super().__init__()
            self.given = dict(params or {})
            self.save_hyperparameters(params, **settings)
            if changed:
                self.hparams.arg1 = CHANGED

    return {"object": KeepingObject, "inherited": Inheriting}.get(form, Keeping)


def with_star_args(base: type, of_callback: bool) -> Dict[str, Any]:
    """The batch hooks of a module or callback, as somebody writes them who names none of their arguments."""

    def of_module(self: Any, *args: Any) -> None:
        pass

    def of_one(self: Any, trainer: Any, pl_module: Any, *args: Any) -> None:
        pass

    stages = ("train", "validation", "test", "predict")
    hooks = ("on_%s_batch_%s" % (stage, end) for stage in stages for end in ("start", "end"))
    return {hook: of_one if of_callback else of_module for hook in hooks if hasattr(base, hook)}


def _logging(hook: str, original: Any, scenario: Scenario) -> Any:
    """A hook that first logs what the scenario says."""
    logs = [(index, log) for index, log in enumerate(scenario.model.logs) if log.hook == hook]
    calls: Iterator[int] = itertools.count()

    @functools.wraps(original)  # keeps the signature
    def logging_hook(self: Any, *args: Any, **kwargs: Any) -> Any:
        count, loss = next(calls), None
        if hook in STEPS.values():
            x, y = unpack(args[0] if args else kwargs["batch"])
            loss = ((self(x) - y) ** 2).mean()
        for index, log in logs:
            group = _group(self, index, log.ranks)
            if log.at and count not in log.at:
                continue
            if self.global_rank not in (log.ranks or ((0,) if log.rank_zero_only else (self.global_rank,))):
                continue
            value: Any = loss if loss is not None else float(self.begun) if log.buffer else log.nth(count)
            if loss is None and log.sync_dist:
                value += self.global_rank  # or else all processes have the same
            if log.dtype:
                value = torch.tensor(value, dtype=getattr(torch, log.dtype))
            settings: Dict[str, Any] = {"on_step": log.on_step, "on_epoch": log.on_epoch}
            if log.batch_size:
                settings["batch_size"] = log.batch_size
            settings["add_dataloader_idx"] = log.add_dataloader_idx
            if log.sync_dist:
                settings["sync_dist"] = True
            if group:
                settings["sync_dist_group"] = group
            if log.rank_zero_only:
                settings["rank_zero_only"] = True
            if not log.logger:
                settings["logger"] = False
            if log.prog_bar:
                settings["prog_bar"] = True
            if log.enable_graph:
                settings["enable_graph"] = True
            if log.reduce_fx != "mean":  # which every release calls by its default
                functions = {"spread": spread, "torch.mean": torch.mean}
                settings["reduce_fx"] = functions.get(log.reduce_fx, log.reduce_fx)
            if log.metric:
                self.measures[index](self(x).detach(), y)
            value = self.measures[index] if log.metric else {"item": value} if log.mapping else value
            if log.in_dict:
                self.log_dict({log.name: value}, **settings)
            else:
                (validation_epoch_end if log.helper else type(self).log)(self, log.name, value, **settings)
        return original(self, *args, **kwargs)

    return logging_hook


def validation_epoch_end(module: Any, *args: Any, **kwargs: Any) -> None:
    """A helper that logs, and is called as a hook is."""
    module.log(*args, **kwargs)


def _group(module: Any, index: int, ranks: Tuple[int, ...]) -> Any:
    """The group of these processes, which all make together when the first log of it comes; None of no ranks."""
    if not ranks:
        return None
    groups = vars(module).setdefault("groups", {})
    if index not in groups:
        groups[index] = torch.distributed.new_group(list(ranks))
    return groups[index]


def _counted(step: Any) -> Any:
    """A step that counts, in a buffer of the module, how often it begins; each process a number of its own."""

    @functools.wraps(step)  # keeps the signature
    def counted(self: Any, *args: Any, **kwargs: Any) -> Any:
        self.begun += 1 + self.global_rank
        return step(self, *args, **kwargs)

    return counted


def spread(values: torch.Tensor) -> torch.Tensor:
    """A reduction of the user's own, to which it matters in which order they come."""
    return values.max() - values[-1]


def datamodule_class(base: type, scenario: Scenario) -> type:
    """The user's data module, with the loaders the scenario has."""
    class Keeping(base):  # type: ignore[misc]
        def __init__(self, arg4: Any = None) -> None:
            super().__init__()
            self.save_hyperparameters()

    stages = ("train",) if scenario.data.source == "train-datamodule" else STAGES
    left_out = set(TRANSFERS) - set(scenario.data.transfers)
    body = {hook: method for hook, method in _data_hooks(base, scenario, stages).items() if hook not in left_out}
    return type("ScenarioData", (Keeping if scenario.data.hyperparameter else base,), body)


def _data_hooks(base: type, scenario: Scenario, stages: Iterable[str] = STAGES) -> Dict[str, Any]:
    """The loaders the scenario has, whoever's are used; for custom batches hooks that leave a mark."""
    body = {s + "_dataloader": _provider(scenario, s) for s in stages if scenario.loaders(s)}
    for mark in ("before_transfer", "after_transfer") if scenario.data.batch == "custom" else ():
        hook = "on_" + mark.replace("_", "_batch_")
        if hasattr(base, hook):
            body[hook] = _marker(mark)
    return body


def _marker(mark: str) -> Any:
    def transfer_hook(self: Any, batch: CustomBatch, dataloader_idx: int) -> CustomBatch:
        return batch.after(mark)

    return transfer_hook


def _provider(scenario: Scenario, stage: str) -> Any:
    def dataloader(self: Any) -> Any:
        asked_before = stage in vars(self).setdefault("asked", set())
        self.asked.add(stage)
        return loaders(scenario, stage, asked_before)

    return dataloader
