"""A run of one scenario on any trainer with Lightning's interface: refimpl and the real releases.

Runs in the trainer's own world: torch and the standard library, Python 3.8 and up.
"""

from __future__ import annotations

import dataclasses
import functools
import os
import platform
import tempfile
from contextlib import nullcontext
from importlib.util import find_spec
from typing import Any, Callable, Dict, Iterable, List, Mapping, Optional, Tuple

import torch

from .. import __version__
from ..described import said
from ..experiment import Scenario
from ..hooks import CALLBACK_HOOKS, CALLS, DATA_HOOKS, INIT_HOOKS, MODULE_HOOKS, OWN_STEPS, TRANSFERS, WRITES
from ..recorder import Recorder
from ..scenario import scenario_of
from ..trace import Header, TraceWriter
from . import data as scenario_data
from . import model as scenario_model

__all__ = ["LightningLikeAdapter", "given_options"]

EFFECTS = (
    "training",
    "submodules",
    "grad_enabled",
    "global_step",
    "current_epoch",
    "grads",
    "params",
    "lr",
    "device",
    "stage",
    "metrics",
    "values",
    "metrics_graph",
    "trainable",
    "gradients",
    "autocast",
    "random",
    "experiment",
    "bar",
    "precision",
    "use_amp",
    "datamodule",
    "global_rank",
    "local_rank",
)


class LightningLikeAdapter:
    """Scenario to trace, for a trainer that has `LightningModule`, `LightningDataModule`, `Callback`
    and `Trainer` in one namespace. A subclass says what is particular about its own."""

    name = ""
    version = ""
    lacks: Tuple[str, ...] = ()  # of what a scenario can need
    blind = False  # see Recorder
    checkpointing = "enable_checkpointing"  # the trainer's option
    data_hooks: Tuple[str, ...] = DATA_HOOKS  # that a data module may override

    def __init__(self, namespace: Any) -> None:
        self.api = namespace
        self.again: Callable[[], Any] = type(self)  # makes one like this in another process
        if find_spec("torchmetrics") is None:
            self.lacks += ("torchmetrics",)

    def options(self, scenario: Scenario) -> Dict[str, Any]:
        """Keyword arguments for the trainer."""
        raise NotImplementedError

    def has(self, hook: str) -> bool:
        """Whether the trainer knows the hook at all."""
        owners = [self.api.LightningModule, self.api.Callback, self.api.LightningDataModule]
        owners += [self.api.callbacks.BasePredictionWriter] if hook in WRITES else []
        return any(hasattr(owner, hook) for owner in owners)

    def declares(self) -> List[str]:
        """The hooks the trainer has; the contract's others are judged `unsupported`."""
        known = dict.fromkeys((*MODULE_HOOKS, *CALLBACK_HOOKS, *INIT_HOOKS, *WRITES))
        return [hook for hook in known if self.has(hook)]

    def header(self, scenario: Scenario) -> Header:
        """What a trace of this trainer begins with."""
        return Header(
            suite=__version__,
            scenario=scenario.to_dict(),
            trainer={"name": self.name, "version": self.version},
            declares={"hooks": self.declares(), "effects": list(EFFECTS), "lacks": list(self.lacks)},
            environment={
                "python": platform.python_version(),
                "torch": str(torch.__version__),
                "platform": platform.system(),
            },
        )

    def run(self, scenario: Scenario, writer: TraceWriter) -> None:
        """Do what the scenario says, recording; the writer is closed with the outcome. A scenario that
        needs what the trainer lacks, or has something happen in a hook that it does not know, is not run: its trace
        holds no event."""
        unknown = [event for event in scenario.when if event.hook not in CALLS and not self.has(event.hook)]
        if set(scenario.needs) & set(self.lacks) or unknown:
            writer.close("returned")
            return
        defines = tuple(hook for hook in scenario.model.defines if self.has(hook))
        scenario = dataclasses.replace(scenario, model=dataclasses.replace(scenario.model, defines=defines))
        with tempfile.TemporaryDirectory() as folder:
            record = functools.partial(self._record, scenario, folder)
            if scenario.recorded == 1:
                record(writer)
                return
            from .ranks import run_in_ranks, run_launched  # need a torch that was built with processes

            if scenario.launched:
                again = functools.partial(_again, self.again, self.blind, scenario.to_dict(), folder)
                run_launched(scenario.option("devices"), record, again, writer)
            else:
                run_in_ranks(scenario.option("devices"), scenario.option("num_nodes"), record, writer)

    def _record(self, scenario: Scenario, folder: str, writer: Any) -> None:
        """What one process does."""
        shares = scenario.recorded > 1
        rank = writer.rank if shares else 0
        when = [event for event in scenario.when if event.rank in (-1, rank)]
        recorder = Recorder(writer, when, scenario.data.nesting, scenario.data_parallel, shares)
        recorder.blind, recorder.tells_samples = self.blind, shares or scenario.shuffles
        recorder.tells_random = scenario.model.draws
        recorder.keeps_arguments = bool(scenario.model.hyperparameters)
        recorder.tells_bar = any(log.prog_bar for log in scenario.model.logs)
        recorder.checkpoint = os.path.join(folder, "%d.ckpt" % rank)
        recorder.folders = [os.path.join(folder, each.given) for each in scenario.model_checkpoint if rank == 0]
        torch.manual_seed(rank)  # no script has to give all the same
        try:
            self.do(scenario, recorder)
        except BaseException as error:  # a trace tells how a run ended, a SystemExit too
            writer.close("raised", said(error))
            return
        writer.close("returned")

    def do(self, scenario: Scenario, recorder: Recorder) -> None:
        """The scenario's calls."""
        trainer, module, datamodule = self.begin(scenario, recorder)
        for function in scenario.calls:
            given: Dict[str, Any] = {}
            if function == "save":
                recorder.save()
                continue
            if function == "append":
                trainer.callbacks.append(self.appended(recorder, trainer))
                continue
            if function == "another":
                module, datamodule, _ = self.build(scenario, recorder)
                recorder.begin_anew(module, trainer)
                continue
            if function in ("freeze", "unfreeze"):
                recorder.span("module", function, getattr(module, function), {})
                continue
            if function == "load":
                load = functools.partial(type(module).load_from_checkpoint, recorder.checkpoint)
                module = recorder.span("module", "load_from_checkpoint", load, {})
                recorder.begin_anew(module, trainer)
                continue
            if function.startswith("resume"):
                path: Optional[str] = os.path.join(os.path.dirname(recorder.checkpoint), "0.ckpt")
                if function == "resume-last":
                    saver = trainer.checkpoint_callback
                    path = (saver and (saver.last_model_path or saver.best_model_path)) or None
                given["ckpt_path"] = path
                trainer, module, datamodule = self.begin(scenario, recorder, path)
                function = "fit"
            if function == "predict-unreturned":
                function, given = "predict", {"return_predictions": False}
            if function.startswith("test-"):
                files = {"best": "best", "last": trainer.checkpoint_callback.last_model_path, "none": None}
                function, given = "test", {"ckpt_path": files[function[len("test-") :]]}
            call = self.call(trainer, function, module, datamodule, scenario, given)
            recorder.span("trainer", function, call, {})

    def begin(
        self, scenario: Scenario, recorder: Recorder, resumed: Optional[str] = "", **options: Any
    ) -> Tuple[Any, Any, Any]:
        """A trainer with callbacks, for an epoch more than the scenario has where it goes on from the file `resumed`;
        None is to begin anew, as there is none. A module, a data module. The `options` are beside the scenario's."""
        module, datamodule, callbacks = self.build(scenario, recorder)
        options = {**self.options(scenario), **options}
        if any(saving.given == "trainer" for saving in scenario.model_checkpoint):
            options[self.checkpointing] = True
        if options["max_epochs"] not in (-1, None):
            options["max_epochs"] += resumed != ""
        if scenario.has_logger:
            loggers = self.api.loggers
            base = getattr(loggers, "Logger", None)
            if base is None:  # as it was called until 1.6
                logger = recorder.logger(loggers.LightningLoggerBase, gathers=True)
            else:
                logger = recorder.logger(base)
            options.update(logger=logger, log_every_n_steps=1)
        if scenario.lr_monitor:
            callbacks.append(self.api.callbacks.LearningRateMonitor())
        trainer = self.api.Trainer(callbacks=callbacks, **options)
        recorder.begin_anew(module, trainer)
        return trainer, module, datamodule

    def build(self, scenario: Scenario, recorder: Recorder) -> Tuple[Any, Any, List[Any]]:
        """The recording module, data module (or None) and callbacks of the scenario."""
        hooks = [h for h in CALLBACK_HOOKS if hasattr(self.api.Callback, h)]
        plain: Any = self.api.Callback
        if scenario.model.star_args:
            plain = type("StarArgs", (plain,), scenario_model.with_star_args(plain, of_callback=True))
        base_class = self.kind(recorder, plain, hooks)
        callback_class: Any = recorder.kinds.setdefault(base_class, type("DerivedCallback", (base_class,), {}))
        callbacks = [callback_class() for _ in range(scenario.callbacks)]
        inits = [h for h in INIT_HOOKS if hasattr(self.api.Callback, h)]
        kinds = {"same": callback_class, "base": base_class}
        own = [
            (kinds.get(kind) or recorder.recording(base_class, inits, "callback"))()
            for kind in scenario.model.callbacks
        ]
        stopping, saving = self.stopping(scenario, recorder, hooks), self.saving(scenario, recorder, hooks)
        writing = [self.writer(recorder, hooks)] if scenario.prediction_writer else []
        for index, callback in enumerate(callbacks + own + [callback for _, callback in stopping + saving] + writing):
            callback.receiver = "callback:%d" % index
        for owner, others in (("trainer", callbacks), ("module", own)):
            others[:0] = [callback for given, callback in saving if given == owner]
            others += [callback for given, callback in stopping if given == owner]
        callbacks += writing

        base = self.base("module", scenario)
        if own:
            base.configure_callbacks = lambda self: own
        again = self.again, "module", scenario.to_dict()
        module = recorder.recording(base, self._module_hooks(base, scenario), "module", (_unrecorded, again))
        module = scenario_model.made(module, scenario, self.api.LightningModule)
        datamodule = None
        if scenario.data.has_datamodule:
            base = self.base("datamodule", scenario)
            hooks = [h for h in self.data_hooks if h in vars(base) or (h not in OWN_STEPS and hasattr(base, h))]
            again = self.again, "datamodule", scenario.to_dict()
            hooks = [h for h in _overridable(hooks, scenario) if h not in TRANSFERS or h in scenario.data.transfers]
            datamodule = recorder.recording(base, hooks, "datamodule", (_unrecorded, again))
            datamodule = datamodule(**{"arg4": 4} if scenario.data.hyperparameter else {})
        return module, datamodule, callbacks

    def appended(self, recorder: Recorder, trainer: Any) -> Any:
        """One more recording callback, numbered after all that there are."""
        numbers = [int(each.receiver.partition(":")[2]) for each in trainer.callbacks if hasattr(each, "receiver")]
        hooks = [hook for hook in CALLBACK_HOOKS if hasattr(self.api.Callback, hook)]
        callback = type("AppendedCallback", (self.kind(recorder, self.api.Callback, hooks),), {})()
        callback.receiver = "callback:%d" % (max(numbers, default=-1) + 1)
        return callback

    def base(self, receiver: str, scenario: Scenario) -> Any:
        """The class of the scenario's module or data module, which records nothing."""
        if receiver == "datamodule":
            return scenario_model.datamodule_class(self.api.LightningDataModule, scenario)
        return scenario_model.model_class(self.api.LightningModule, scenario)

    @staticmethod
    def kind(recorder: Recorder, base: Any, hooks: List[str]) -> Any:
        """The recording class of callbacks, one for all modules of a run: trainers go by it."""
        if base not in recorder.kinds:
            recorder.kinds[base] = recorder.recording(base, hooks, "callback", (object.__new__, (base,)))
        return recorder.kinds[base]

    def stopping(self, scenario: Scenario, recorder: Recorder, hooks: List[str]) -> List[Tuple[str, Any]]:
        """The recording callbacks, of one class, that stop the training; each with whom it is given to."""
        if not scenario.early_stopping:
            return []
        base = self.api.callbacks.EarlyStopping
        kind = _named_as(base, self.kind(recorder, base, hooks))
        given = [dataclasses.asdict(each) for each in scenario.early_stopping]
        return [(each.pop("given"), kind(**each)) for each in given]

    def saving(self, scenario: Scenario, recorder: Recorder, hooks: List[str]) -> List[Tuple[str, Any]]:
        """Likewise, that save checkpoints; what they find in one of their own is their own affair."""
        if not scenario.model_checkpoint:
            return []
        hooks = [hook for hook in hooks if hook != "on_load_checkpoint"]
        base = self.api.callbacks.ModelCheckpoint
        kind = _named_as(base, self.kind(recorder, base, hooks))
        made = []
        for each in map(dataclasses.asdict, scenario.model_checkpoint):
            given, every = each.pop("given"), each.pop("every_n_train_steps")
            folder = os.path.join(os.path.dirname(recorder.checkpoint), given)
            each.update({"every_n_train_steps": every} if every else {}, monitor=each["monitor"] or None)
            made.append((given, kind(dirpath=folder, **each)))
        return made

    def writer(self, recorder: Recorder, hooks: List[str]) -> Any:
        """The recording callback that writes predictions."""
        base = self.api.callbacks.BasePredictionWriter
        body = {name: _writing(getattr(base, name)) for name in WRITES}
        kind = recorder.recording(type("Writer", (base,), body), [*hooks, *WRITES], "callback")
        return kind("batch_and_epoch")

    @staticmethod
    def _module_hooks(base: type, scenario: Scenario) -> Iterable[str]:
        """Every hook the trainer has; of the steps and loaders those that the scenario defines, and
        predict_step, which has a default."""
        own = set(OWN_STEPS) - {"predict_step"}
        hooks = [h for h in MODULE_HOOKS if (h in vars(base) if h in own else hasattr(base, h))]
        return _overridable(hooks, scenario)

    def call(
        self, trainer: Any, function: str, module: Any, datamodule: Any, scenario: Scenario, given: Dict[str, Any]
    ) -> Any:
        """The user's call, with the loaders from where the scenario has them beside what is `given`."""
        given = {**given, **({"verbose": False} if function in ("validate", "test") else {})}
        source = scenario.data.given_to(function)
        if source == "datamodule":
            given["datamodule"] = datamodule
        elif source == "argument" and function == "fit":
            given["train_dataloaders"] = scenario_data.loaders(scenario, "train")
            given["val_dataloaders"] = scenario_data.loaders(scenario, "val")
        elif source == "argument":
            stage = {"validate": "val"}.get(function, function)
            given["dataloaders"] = scenario_data.loaders(scenario, stage)

        def call() -> Any:
            with torch.no_grad() if scenario.no_grad else nullcontext():
                return getattr(trainer, function)(*[module] * (module is not None), **given)

        return call


def _again(adapter: Callable[[], Any], blind: bool, scenario: Mapping[str, Any], folder: str, writer: Any) -> None:
    """What one process does whose trainer has started it."""
    made = adapter()
    made.blind = blind
    made._record(scenario_of(scenario), folder, writer)


def _unrecorded(adapter: Callable[[], Any], receiver: str, scenario: Mapping[str, Any]) -> Any:
    """The module or data module in a process that a trainer has spawned."""
    return adapter().base(receiver, scenario_of(scenario))()


def _writing(original: Any) -> Any:
    """A method of a BasePredictionWriter, with its signature, that writes to nowhere."""

    @functools.wraps(original)
    def write(*_: Any, **__: Any) -> None:
        pass

    return write


def _named_as(base: type, kind: Any) -> Any:
    """A class of the same name, by which trainers know in a checkpoint, or in another process, whose state is whose;
    1.4 writes the class itself there, to be found here."""
    kind.__qualname__, kind.__module__ = base.__qualname__, __name__
    globals()[base.__qualname__] = kind
    return kind


def _overridable(hooks: List[str], scenario: Scenario) -> List[str]:
    """Those that can be overridden: with DP, the transfer hooks cannot."""
    return [hook for hook in hooks if not (scenario.data_parallel and hook in TRANSFERS)]


def given_options(scenario: Scenario, renamed: Mapping[str, Any]) -> Dict[str, Any]:
    """The scenario's trainer options; one epoch and no sanity check unless it says otherwise."""
    options = {"max_epochs": 1, "num_sanity_val_steps": 0, **scenario.trainer, **renamed}
    if scenario.changes_windows:  # whose epochs are no strings
        options["accumulate_grad_batches"] = scenario.windows
    if "max_steps" in scenario.trainer and "max_epochs" not in scenario.trainer:
        options["max_epochs"] = 1
    return options
