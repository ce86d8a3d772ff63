"""What pytorch-lightning 1 and 2 both do instead of what the documentation says, as their pseudocode.

The functions are those of `pseudocode.py`, with the releases' lines in the releases' order; a comment marks each
edit. What one of the releases does alone is in a file of its own: `lightning_1_4.py`, `lightning_1_5.py` and so on.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

from ..experiment import Scenario
from ..numerics import Numbers
from .lightning_callbacks import LightningCallbacks
from .lightning_logged import LoggedThere
from .oracle import UserError
from .outputs import form_of, value_of
from .state import KEYS, OWN_WORDS, Events, Expected

__all__ = ["Lightning"]

OF_CALL = {"fit": "training", "validate": "validating", "test": "testing", "predict": "predicting"}


class Lightning(LightningCallbacks):
    """The pseudocode of both releases."""

    closing_hooks: frozenset[str] = frozenset()  # one that raises is the last
    log_type = LoggedThere
    logged: LoggedThere
    runs: str | None = None  # the stage of the call that does
    left: str | None = None  # the one that an exception has left
    surfaces = False  # an exception that was raised in on_exception
    needs_closure = True  # a closure that is not called is an error
    divides_outputs = True  # for accumulation
    stays = False  # whether the trainer stays in it when the call is over
    divides_loaders = False  # between a data module that has some and the module, which has others
    copies_settings = False  # of what is logged, which a group of processes does not survive
    tells_each_sampler = False  # of several loaders, which epoch begins
    keeps_datamodule = False  # one that it was given once, also in calls that are given loaders

    @classmethod
    def leaves_open(cls, scenario: Scenario) -> str:
        evaluates = any(call.startswith(("validate", "test", "predict")) for call in scenario.calls)
        if evaluates and scenario.data.source == "train-datamodule" and not cls.divides_loaders:
            return "what is evaluated where a data module has no loader for it"
        if (scenario.shuffles or scenario.model.draws) and scenario.resumes:
            return "which random numbers a fit goes on with, and in which order a loader that shuffles"
        if scenario.data.shuffle_val and scenario.option("num_sanity_val_steps"):
            return "which random numbers there are after a sanity check, and in which order a loader shuffles then"
        if scenario.model.truncated_bptt_steps and scenario.data.batch == "dict":
            return "what a step makes of a piece that is a list, where the batch is a dict"
        if scenario.model.thaws and scenario.processes > 1:
            return "what each process makes of gradients that are its own"
        if cls.copies_settings and any(log.ranks for log in scenario.model.logs):
            return "in which batch a group of processes is found that cannot be copied"
        alone = any(event.do == "stop" and event.rank != -1 for event in scenario.when)
        if not alone and scenario.monitors and scenario.processes > 1:
            looks = [cls(scenario, rank).all_looks() for rank in range(scenario.processes)]
            if not scenario.data.distributed_sampler or any(each != looks[0] for each in looks):
                return "what is trained where batches are shuffled, or values differ, and somebody goes by them"
        return "what happens where one process alone is asked to stop" if alone else ""

    def __init__(self, scenario: Scenario, rank: int = 0) -> None:
        if scenario.data.source == "train-datamodule" and not self.divides_loaders:
            scenario = replace(scenario, data=replace(scenario.data, val=()))  # nobody asks the module for its own
        super().__init__(scenario, rank)

    def untrained(self) -> Numbers:
        numbers = super().untrained()
        numbers.evenly_dealt = ("train", "val", "test")
        return numbers

    def all_looks(self) -> list[list[float | None]]:
        """What is monitored, whenever somebody looks at it."""
        deque(self.all_calls(), maxlen=0)
        return [[known.get(name) for name in sorted(self.s.monitors)] for known in self.looks]

    def decisive(self) -> dict[str, float]:
        """Each process goes by what it has logged itself."""
        return self.look()

    def fit(self) -> Events:
        yield from self.before_setup()
        yield from self.within("train_on_device", self.train_on_device())

    def val_loop(self, at_most: int | None = None) -> Events:
        yield from self.begin_evaluation("val")
        self.logged.begin()
        yield from self.into_eval("validation")

        yield from self.hook("on_validation_start")
        yield from self.hook("on_epoch_start")
        yield from self.hook("on_validation_epoch_start")
        yield from self.evaluation_batches("validation", "val", at_most)
        yield from self.hook("on_validation_epoch_end")
        yield from self.hook("on_epoch_end")
        yield from self.hook("on_validation_end")

        yield from self.hook("on_validation_model_train")
        self.grad_enabled = True
        self.logged.end(self.in_sanity_check, self.logger_step if self.called == "fit" else OWN_WORDS)

    def test_loop(self) -> Events:
        yield from self.begin_evaluation("test")
        self.logged.begin()
        yield from self.into_eval("test")

        yield from self.hook("on_test_start")
        yield from self.hook("on_epoch_start")
        yield from self.hook("on_test_epoch_start")
        yield from self.evaluation_batches("test", "test")
        yield from self.hook("on_test_epoch_end")
        yield from self.hook("on_epoch_end")
        yield from self.hook("on_test_end")

        yield from self.hook("on_test_model_train")
        self.grad_enabled = True
        self.logged.end()

    def evaluation_batches(self, name: str, stage: str, at_most: int | None = None) -> Events:
        """The batches of a validation or a test, and what ends them."""
        outputs = self.outputs(stage)
        for dataloader_idx, batch in self.batches(stage, at_most):
            if batch["batch_idx"] == 0:
                self.loader_begins(dataloader_idx)
            yield from self.transfer(batch["batch"], dataloader_idx)  # before on_*_batch_start
            self.logged.batches_of(dataloader_idx, batch["batch_idx"])
            yield from self.hook(f"on_{name}_batch_start", **batch, dataloader_idx=dataloader_idx)
            self.numbers.apart = self.numbers.apart and self.called != "fit"  # as what wraps the module is called
            output = yield from self.step_of(name, batch, dataloader_idx)
            yield from self.hook(f"on_{name}_batch_end", outputs=output, **batch, dataloader_idx=dataloader_idx)
            outputs[dataloader_idx] += [output] * (output is not None)
            self.hand_to_loggers()
        self.last_batch()
        yield from self.epoch_end(name, outputs)

    def loader_begins(self, dataloader_idx: int) -> None:
        """What the loader before has come to is known."""
        if dataloader_idx > 0:
            self.logged.last_batch()
            self.logged.innermost.between = True
            if not self.in_sanity_check:
                self.logged.read()

    @property
    def last_step(self) -> int:
        """-1 before any."""
        return self.logger_step - 1

    def hand_to_loggers(self) -> None:
        """The trainer itself keeps what was logged by the end of the batch."""
        self.logged.read()
        super().hand_to_loggers()

    def predict_loop(self) -> Events:
        yield from self.begin_evaluation("predict")
        yield from self.into_eval("predict")

        yield from self.hook("on_predict_start")
        yield from self.hook("on_predict_epoch_start")
        outputs = self.outputs("predict")
        for dataloader_idx, batch in self.batches("predict"):
            yield from self.transfer(batch["batch"], dataloader_idx)
            yield from self.hook("on_predict_batch_start", **batch, dataloader_idx=dataloader_idx)
            output = yield from self.step_of("predict", batch, dataloader_idx)
            yield from self.hook("on_predict_batch_end", outputs=output, **batch, dataloader_idx=dataloader_idx)
            outputs[dataloader_idx] += [output] * (self.returns_predictions or self.s.prediction_writer)
        yield from self.hook("on_predict_epoch_end", results=outputs)
        yield from self.hook("on_predict_end")

        yield from self.hook("on_predict_model_train")
        self.grad_enabled = True
        self.predictions = self.by_loader(outputs)

    def evaluate(self, function: str) -> Events:
        yield from self.before_setup()
        yield from self.hook("setup", stage=function)
        yield from self.load_tested()
        self.forget_logged()
        loop = {"validate": self.val_loop, "test": self.test_loop, "predict": self.predict_loop}[function]
        stage = {"validate": "val"}.get(function, function)
        takes_batches = any(self.loaders(stage)) or self.is_too_little(stage)  # else the loop does not begin
        yield from self.within(loop.__name__, loop() if takes_batches else self.without_batches(stage))
        self.opened = False
        yield from self.hook("teardown", stage=function)

    def is_too_little(self, stage: str) -> bool:
        """Whether what a limit leaves of a loader's batches is an error."""
        return False

    def without_batches(self, stage: str) -> Events:
        """What an evaluation does whose limit is 0: gradients are cleared."""
        self.clear_gradients()
        yield from ()

    # ---- an optimizer's block ---------------------------------------------------------------------

    def optimizer_block(self, where: dict[str, Any], optimizer_idx: int) -> Events:
        """Whatever happens in a step, it counts as one. Without an optimizer a stand-in is stepped."""
        self.output = None
        if not self.updating:
            yield from self.accumulate(where, optimizer_idx)
            return self.output
        closure = partial(self.closure, where, optimizer_idx)
        stands_in = self.s.model.optimizer == "none"
        self.stepped = False
        step = self.call_alone if stands_in else partial(self.optimizer_update, optimizer_idx)
        yield from self.step_hook(closure, step, where, optimizer_idx)
        self.optimizer_done()
        if not self.stepped and self.needs_closure:
            raise UserError(OWN_WORDS)
        yield from self.pass_schedulers(optimizer_idx, "step")
        return self.output

    def call_alone(self, closure: Callable[[], Events]) -> Events:
        """What the stand-in does with its closure."""
        yield from closure()

    def training_step(self, where: dict[str, Any]) -> Events:
        """The output is what is trained on, divided for the window."""
        told = yield from super().training_step(where)
        if self.divides_outputs and value_of(self.output) is not None:
            self.output = self.output._replace(value=self.output.value / self.window)
        return told

    def closure(self, where: dict[str, Any], optimizer_idx: int) -> Events:
        yield from self.accumulate(where, optimizer_idx)
        yield from self.hook("on_before_optimizer_step", **self.of(optimizer_idx))  # after None, too
        self.stepped = True

    def accumulate(self, where: dict[str, Any], optimizer_idx: int) -> Events:
        told = yield from self.training_step(where)
        if where["batch_idx"] % self.window == 0:  # after None, too
            yield from self.hook("on_before_zero_grad", optimizer=self.numbered("optimizer", optimizer_idx))
            now = {"batch_idx": where["batch_idx"], "epoch": self.epoch, **self.of(optimizer_idx)}
            yield from self.hook("optimizer_zero_grad", **now)
        if told == "return-none":
            return

        yield from self.hook("on_before_backward", **self.loss())
        yield from self.hook("backward", **self.loss(), **self.of(optimizer_idx))
        yield from self.hook("on_after_backward")

    def update(self, closure: Callable[[], Events], optimizer_idx: int) -> Events:
        """torch's L-BFGS wants a number of its closure, and gets None."""

        def wanted() -> Events:
            yield from closure()
            if self.output is None and self.s.model.optimizer == "lbfgs":
                raise UserError(OWN_WORDS)

        yield from super().update(wanted, optimizer_idx)

    def optimizer_done(self) -> None:
        """An optimizer's step is over."""

    def numbered(self, receiver: str, optimizer_idx: int) -> Any:
        """None for the stand-in."""
        return None if self.s.model.optimizer == "none" else super().numbered(receiver, optimizer_idx)

    def effects_of(self, hook: str) -> None:
        """The stand-in clears nothing."""
        if hook != "optimizer_zero_grad" or self.s.model.optimizer != "none":
            super().effects_of(hook)

    # ---- the lines that the functions name ---------------------------------------------------------

    def before_setup(self) -> Events:
        yield from self.configure_callbacks()  # before prepare_data
        yield from self.hook("prepare_data")

    def dataloaders_of_fit(self) -> Events:
        """Before on_train_start."""
        yield from self.dataloader("train")

    def begin_evaluation(self, stage: str) -> Events:
        """Before any hook of its loop gradients are cleared and switched off, and the loaders are asked for."""
        if self.scope != "val_loop" or not self.in_epoch or self.updating:  # not in the midst of a window
            self.clear_gradients()
        yield from self.dataloader(stage)
        self.grad_enabled = False

    def clear_gradients(self) -> None:
        """module.zero_grad()"""
        for optimizer_idx in range(self.s.model.optimizers):
            self.grads[optimizer_idx] = "none"
            self.numbers.zero_grad(optimizer_idx)

    def into_eval(self, name: str) -> Events:
        """model.eval()"""
        yield from self.hook(f"on_{name}_model_eval")

    def held(self, hook: str, outputs: Any) -> dict[str, Any]:
        """on_train_batch_end gets a dict: with the loss for a tensor, with nothing for None. What lies deeper than the
        loss keeps its graph."""
        if hook != "on_train_batch_end":
            return super().held(hook, outputs)
        if self.output is None:
            return {"outputs_keys": [], "outputs_graph": False}
        is_dict = form_of(self.output) == "dict"
        return {"outputs_keys": KEYS[1] if is_dict else ["loss"], "outputs_graph": is_dict}

    begins_apart = False  # an evaluation: each process with the buffers that it has come to

    def begin_call(self) -> None:
        self.numbers.apart = self.numbers.apart and self.begins_apart and self.called != "fit"
        self.logged.handed, self.runs = {}, OF_CALL[self.called]
        self.left, self.stays = None, False
        self.keeps_datamodule = bool(self.datamodule())
        self.overfits = False  # it validates on the validation batches

    # ---- an exception ------------------------------------------------------------------------------

    @property
    def stage(self) -> str | None:
        """A call is of its stage from its beginning; after an exception it stays in what ran."""
        return self.left or super().stage or self.runs

    def event(self, ph: str, receiver: str, hook: str, args: dict[str, Any]) -> Expected:
        if ph == "E" and receiver == "trainer" and hook in OF_CALL:
            self.runs, self.left = None, self.left if self.stays else None
            if self.left is None:
                self.logged.lingers = {}
        event = super().event(ph, receiver, hook, args)
        if self.shuffles and str(args.get("batch")).startswith("train/"):
            loader, samples = event.args.pop("batch").rpartition("/")[0], event.args.pop("samples", [])  # it is any
            event.args["shuffled"] = [f"{loader}/{sample}" for sample in samples]
        return event

    def end_early(self, function: str, raised: UserError) -> Events:
        """Only on_exception is called, and modes stay as they are."""
        self.left = self.stage_after(raised)
        self.predictions = None
        self.grad_enabled, self.scope = True, function
        self.in_sanity_check, self.piece, self.part = False, None, None  # what is toggled stays so
        self.logged.abandon()
        if self.left is None:
            self.logged.lingers = {}
        self.stays = True  # if one raises in on_exception, too
        try:
            yield from self.hook("on_exception")
            self.stays = False
        except UserError as another:
            raised.text, self.surfaces = another.text, True

    def is_swallowed(self, raised: UserError) -> bool:
        """What is raised in on_exception takes the place of what was, and surfaces whatever it is."""
        surfaces, self.surfaces = self.surfaces, False
        return not surfaces and self.swallows(raised)

    def swallows(self, raised: UserError) -> bool:
        """Whether the caller does not get to see what was raised elsewhere."""
        return super().is_swallowed(raised)

    def stage_after(self, raised: UserError) -> str | None:
        """That in which it was raised."""
        return self.stage

    def status_after(self, raised: UserError) -> str:
        """The same by whatever it was ended."""
        return "interrupted"

    # ---- what is logged ----------------------------------------------------------------------------

    def forget_logged(self) -> None:
        """What the run before has logged is known until setup is over."""
        self.nothing_logged()

    @property
    def skips_sanity_check(self) -> bool:
        """Where a fit goes on in mid-epoch."""
        return bool(self.resuming.get("in_epoch"))

    def sanity_check(self) -> Events:
        """What it logs is known until it is over, and given to no logger."""
        steps = self.options["num_sanity_val_steps"]
        if steps == 0 or not self.validates() or self.skips_sanity_check:
            return
        self.in_sanity_check = True
        yield from self.hook("on_sanity_check_start")
        yield from self.within("val_loop", self.val_loop(None if steps == -1 else steps))
        yield from self.hook("on_sanity_check_end")
        self.in_sanity_check = False
        self.logged.kept.clear()

    def check_frequencies(self) -> None:
        """One that only some of the optimizers have is refused."""
        if 0 in self.s.model.frequencies:
            raise UserError(OWN_WORDS)

    def log(self, hook: str) -> None:
        """Without add_dataloader_idx a name cannot be logged of two loaders."""
        if self.loader_to_name() and not all(log.add_dataloader_idx for log in self.s.model.logs if log.hook == hook):
            raise UserError(OWN_WORDS)
        super().log(hook)

    def keep_graph(self, names: list[str]) -> bool:
        """Nothing does, whatever enable_graph says."""
        return False

    # ---- data --------------------------------------------------------------------------------------

    def datamodule(self) -> list[str]:
        return super().datamodule() or ["datamodule"] * self.keeps_datamodule

    def preparing(self) -> list[str]:
        """Each by what it says itself: a data module, on each node."""
        return [*(self.datamodule() if self.is_local_zero else ()), *["module"] * self.prepares]

    @property
    def shuffles(self) -> bool:
        """With DDP training samples are shuffled, though the loader does not."""
        trains = "fit" in self.s.calls or self.s.resumes
        return super().shuffles or (trains and self.s.processes > 1 and not self.s.data.distributed_sampler)

    def handled(self, hook: str) -> dict[str, bool]:
        """on_*_batch_start gets a batch that has been moved."""
        return super().handled("training_step" if hook.endswith("_batch_start") else hook)

    def validates(self) -> bool:
        """overfit_batches takes the place of limit_val_batches, where that is 0, too."""
        there = bool(self.s.loaders("val")) and self.s.defines("validation_step")
        return (there and self.options["overfit_batches"] > 0) or super().validates()

    def comes_last(self, batch_idx: int, batches: int) -> bool:
        """The one that a length has promised."""
        return batch_idx + 1 == (self.limited("train", self.s.data.promised) if self.s.data.promised else batches)

    def told_epoch(self) -> int:
        """The samplers of several loaders are told nothing."""
        return super().told_epoch() if self.tells_each_sampler or not self.s.data.train_loaders else 0

    def limited(self, stage: str, batches: int) -> int:
        """overfit_batches limits the validation, too, and rules over fast_dev_run."""
        overfits = self.options["overfit_batches"]
        if not overfits or stage not in ("train", "val"):
            return super().limited(stage, batches)
        return min(batches, overfits) if isinstance(overfits, int) else int(batches * overfits)
