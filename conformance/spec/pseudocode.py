"""The documentation's pseudocode as executable Python: what a trainer must do, for any scenario.

Its calls yield, one by one, the events of a trace that keeps the contract. The functions
`fit`, `train_on_device`, `train_loop` and `val_loop` are the documentation's, in its words and order;
each `yield from self.hook(...)` is one of its lines. Nothing here was recorded from a trainer, and
nothing is shared with `refimpl`: two independent readings that agree are worth something.

Where the text is silent, the rule applied is a row of `docs/interpretations.md`, named as [R<n>].
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from copy import deepcopy
from dataclasses import replace
from functools import cached_property
from typing import Any

from ..hooks import TRANSFERS
from .batch import Batch
from .callbacks import Callbacks
from .oracle import UserError
from .state import Events, Expected

__all__ = ["Pseudocode"]


class Pseudocode(Batch, Callbacks):
    """The documented functions. `fit`, `train_on_device`, `train_loop` and `val_loop` come first, then
    validate, test and predict in their manner, then the lines that the pseudocode only names."""

    # ---- the pseudocode of fit --------------------------------------------------------------------

    def fit(self) -> Events:
        # global_rank == 0: prepare data is called on GLOBAL_ZERO only
        yield from self.hook("prepare_data")

        yield from self.configure_callbacks()

        # with parallel(devices):
        yield from self.within("train_on_device", self.train_on_device())

    def train_on_device(self) -> Events:
        # called PER DEVICE
        yield from self.hook("on_fit_start")
        yield from self.hook("setup", stage="fit")
        yield from self.hook("on_post_move_to_device")  # [R55]
        yield from self.load()
        yield from self.hook("configure_optimizers")
        self.attached = True
        self.go_on()

        yield from self.hook("on_pretrain_routine_start")
        yield from self.hook("on_pretrain_routine_end")

        # the sanity check runs here
        yield from self.sanity_check()

        # put model in train mode
        self.put_into_mode(True)
        self.grad_enabled = True
        self.logged.begin()
        yield from self.hook("on_train_start")
        while self.another_epoch():
            yield from self.within("train_loop", self.train_loop())
            self.epoch += 1
            yield from self.look_and_save()
        yield from self.hook("on_train_end")
        self.logged.end()

        yield from self.hook("on_fit_end")
        self.opened = False
        yield from self.hook("teardown", stage="fit")

    def train_loop(self) -> Events:
        yield from self.hook("on_epoch_start")
        yield from self.hook("on_train_epoch_start")

        outputs = self.epoch_outputs = []
        everybody = set(range(self.s.model.optimizers))
        self.used, self.owners, self.is_empty = set() if self.frequencies else everybody, [], {*everybody}
        yield from self.dataloader("train")
        (batches,) = self.loaders("train")
        first, self.in_epoch = self.rejoin(), True
        yield from self.end_of_batch()  # of the one before, if it was saved just then
        for batch_idx in range(first, batches):
            where: dict[str, Any] = {"batch": self.train_batch(batch_idx), "batch_idx": batch_idx}
            skip = yield from self.hook("on_train_batch_start", **where, dataloader_idx=0)
            if skip == "return-minus-1":
                break

            yield from self.transfer(where["batch"], 0)

            self.updating, self.has_met = self.closes_window(batch_idx, batches), False
            output = yield from self.optimizer_blocks(where)
            if output is not None:  # None went on with the next batch
                outputs.append(output)
            self.batches_done, self.uncounted = batch_idx + 1, int(self.updating)

            yield from self.hook("on_train_batch_end", outputs=output, **where, dataloader_idx=0)
            self.hear_of_one_that_stops(batch_idx, batches)
            self.hand_to_loggers()

            if self.should_check_val(batch_idx, batches):
                yield from self.within("val_loop", self.val_loop())
            yield from self.end_of_batch()
            self.step, self.uncounted = self.step + self.updating, 0
            yield from self.look_and_save()
            if self.may_stop() or self.steps_are_done():
                break
        # end training epoch
        self.last_batch()
        if self.s.defines("training_epoch_end"):
            yield from self.hook("training_epoch_end", outputs=outputs)

        yield from self.hook("on_train_epoch_end")
        yield from self.hook("on_epoch_end")
        for optimizer_idx in sorted(self.used) if not self.s.model.manual else ():
            yield from self.pass_schedulers(optimizer_idx, "epoch")
        self.logged.end()
        self.logged.begin()
        self.batches_done, self.in_epoch = 0, False

    def val_loop(self, at_most: int | None = None) -> Events:
        self.logged.begin()
        self.numbers.apart = False  # [R104]
        yield from self.hook("on_validation_model_eval")  # calls `model.eval()`
        self.grad_enabled = False

        yield from self.hook("on_validation_start")
        yield from self.hook("on_epoch_start")
        yield from self.hook("on_validation_epoch_start")

        yield from self.dataloader("val")
        outputs = self.outputs("val")
        for dataloader_idx, batch in self.batches("val", at_most):
            yield from self.hook("on_validation_batch_start", **batch, dataloader_idx=dataloader_idx)

            yield from self.transfer(batch["batch"], dataloader_idx)

            output = yield from self.step_of("validation", batch, dataloader_idx)

            yield from self.hook("on_validation_batch_end", outputs=output, **batch, dataloader_idx=dataloader_idx)
            outputs[dataloader_idx] += [output] * (output is not None)
            self.hand_to_loggers()
        self.last_batch()
        yield from self.epoch_end("validation", outputs)

        yield from self.hook("on_validation_epoch_end")
        yield from self.hook("on_epoch_end")
        yield from self.hook("on_validation_end")

        # set up for train
        yield from self.hook("on_validation_model_train")  # calls `model.train()`
        self.grad_enabled = True
        self.logged.end(forget=self.in_sanity_check)

    # ---- validate, test, predict, in the manner of the pseudocode ---------------------------------

    def evaluate(self, function: str) -> Events:
        yield from self.hook("prepare_data")
        yield from self.configure_callbacks()
        yield from self.hook("setup", stage=function)
        yield from self.hook("on_post_move_to_device")  # [R55]
        yield from self.load_tested()
        loop = {"validate": self.val_loop, "test": self.test_loop, "predict": self.predict_loop}[function]
        yield from self.within(loop.__name__, loop())
        self.opened = False
        yield from self.hook("teardown", stage=function)

    def test_loop(self) -> Events:
        self.logged.begin()
        yield from self.hook("on_test_model_eval")
        self.grad_enabled = False

        yield from self.hook("on_test_start")
        yield from self.hook("on_epoch_start")
        yield from self.hook("on_test_epoch_start")

        yield from self.dataloader("test")
        outputs = self.outputs("test")
        for dataloader_idx, batch in self.batches("test"):
            yield from self.hook("on_test_batch_start", **batch, dataloader_idx=dataloader_idx)

            yield from self.transfer(batch["batch"], dataloader_idx)

            output = yield from self.step_of("test", batch, dataloader_idx)

            yield from self.hook("on_test_batch_end", outputs=output, **batch, dataloader_idx=dataloader_idx)
            outputs[dataloader_idx] += [output] * (output is not None)
            self.hand_to_loggers()
        self.last_batch()
        yield from self.epoch_end("test", outputs)

        yield from self.hook("on_test_epoch_end")
        yield from self.hook("on_epoch_end")
        yield from self.hook("on_test_end")

        yield from self.hook("on_test_model_train")
        self.grad_enabled = True
        self.logged.end()

    def predict_loop(self) -> Events:
        yield from self.hook("on_predict_model_eval")
        self.grad_enabled = False

        yield from self.hook("on_predict_start")
        yield from self.hook("on_predict_epoch_start")

        yield from self.dataloader("predict")
        outputs = self.outputs("predict")
        for dataloader_idx, batch in self.batches("predict"):
            yield from self.hook("on_predict_batch_start", **batch, dataloader_idx=dataloader_idx)

            yield from self.transfer(batch["batch"], dataloader_idx)

            output = yield from self.step_of("predict", batch, dataloader_idx)

            yield from self.hook("on_predict_batch_end", outputs=output, **batch, dataloader_idx=dataloader_idx)
            outputs[dataloader_idx].append(output)
        yield from self.hook("on_predict_epoch_end", results=outputs)
        yield from self.hook("on_predict_end")

        yield from self.hook("on_predict_model_train")
        self.grad_enabled = True
        self.predictions = self.by_loader(outputs)

    # ---- the lines between, where the pseudocode names a thing ------------------------------------

    def configure_callbacks(self) -> Events:
        """What it returns extends the trainer's list, and replaces those of the same type [R14]."""
        yield from self.hook("configure_callbacks")
        self.take_in_own()

    def transfer(self, batch: str, dataloader_idx: int) -> Events:
        """Hooks that nobody can override with DP."""
        for hook in () if self.s.data_parallel else TRANSFERS:
            yield from self.hook(hook, batch=batch, dataloader_idx=dataloader_idx)

    def dataloader(self, stage: str) -> Events:
        """`train_dataloader()` and its siblings: called where first needed [R24], and again where they are
        reloaded [R61]. Whoever validates on training batches needs no others [R62]."""
        stage = "train" if self.overfits else stage
        if self.is_due(stage):
            if self.s.data.given_to(self.called) != "argument":
                yield from self.hook(f"{stage}_dataloader")
                self.asked += stage == "train"
            before = self.asked_before.pop(stage, None)
            self.loaded[stage] = self.epoch if before is None or self.is_due(stage, before) else before

    def sanity_check(self) -> Events:
        """A val_loop of at most num_sanity_val_steps batches of each loader [R5]."""
        steps = self.options["num_sanity_val_steps"]
        if steps == 0 or not self.validates() or self.resuming:
            return
        yield from self.hook("on_sanity_check_start")
        self.in_sanity_check = True
        yield from self.within("val_loop", self.val_loop(None if steps == -1 else steps))
        self.in_sanity_check = False
        yield from self.hook("on_sanity_check_end")

    def step_of(self, name: str, batch: dict[str, Any], dataloader_idx: int) -> Events:
        """The step of an evaluation; several loaders bring it `dataloader_idx`. Returns its output."""
        stage = "val" if name == "validation" else name
        several = len(self.loaders(stage)) > 1
        where = {**batch, "dataloader_idx": dataloader_idx} if several else batch
        form = "tensor" if name == "predict" else self.s.model.eval_returns or self.s.model.returns
        yield from self.run_step(f"{name}_step", where, form)
        return (yield from self.step_end(name))

    def outputs(self, stage: str) -> list[list[Any]]:
        """The outputs of each loader that have been kept: none yet."""
        return [[] for _ in self.loaders(stage)]

    def epoch_end(self, name: str, outputs: list[list[Any]]) -> Events:
        """A list of outputs, or with several loaders a list of one list for each."""
        if self.s.defines(f"{name}_epoch_end"):
            yield from self.hook(f"{name}_epoch_end", outputs=self.by_loader(outputs))

    @staticmethod
    def by_loader(outputs: list[list[Any]]) -> list[Any]:
        """A list, or with several loaders a list of lists."""
        return outputs if len(outputs) > 1 else outputs[0]

    # ---- the calls of the user --------------------------------------------------------------------

    def call(self, function: str) -> Events:
        """`trainer.fit()` and its siblings: what was opened is closed, whatever happens."""
        if function == "save":
            yield from self.save()
            return
        if function == "another":
            self.begin_anew()
            return
        if function in ("freeze", "unfreeze"):
            yield from self.freeze(function)
            return
        if function == "load":
            yield from self.load_from_checkpoint()
            return
        if function == "append":
            self.append_callback()
            return
        if self.s.spawns:
            yield from self.call_elsewhere(function)
            return
        resuming: dict[str, Any] = {}
        if function.startswith("resume"):
            self.new_trainer()
            resuming, function = self.saved_last if function == "resume-last" else self.saved, "fit"
        self.returns_predictions = function != "predict-unreturned"
        function, self.tested = function.partition("-")[0], self.file_to_test(function)
        body = self.fit if function == "fit" else lambda: self.evaluate(function)
        self.should_stop, self.opened, self.scope = self.should_stop and self.remembers_stop, True, function
        self.due_looks.clear()
        self.missed.clear()
        self.rated = -1
        self.loaded, self.asked_before = {}, {}
        self.overfits = function == "fit" and self.options["overfit_batches"] > 0
        self.called, self.callbacks = function, self.callbacks_of("trainer")
        yield self.event("B", "trainer", function, {})
        self.resuming, self.batches_done, self.in_epoch = resuming, 0, False
        self.predictions, self.status = None, "finished"
        self.grad_enabled = None if self.s.no_grad else True
        self.begin_call()
        try:
            yield from body()
        except UserError as raised:
            yield from self.end_early(function, raised)
            self.status = self.status_after(raised)
            if not self.is_swallowed(raised):
                yield self.event("E", "trainer", function, {"raised": raised.text, "status": self.status})
                raise
        yield self.event("E", "trainer", function, {**self.made(function), "status": self.status})

    def all_calls(self) -> Events:
        """One after the other, until one raises."""
        with suppress(UserError):
            for function in self.s.calls:
                yield from self.call(function)

    def call_elsewhere(self, call: str) -> Events:
        """The processes that a call spawns run the function; this one has what process 0 has come to, but for
        predictions. [R107]"""
        function, first = call.partition("-")[0], self.process_zero
        yield self.event("B", "trainer", function, {})
        deque(first.call(call), maxlen=0)
        yield from self.bring_back(first, function)
        yield self.event("E", "trainer", function, {**first.returned(function), "status": "finished"})

    @cached_property
    def process_zero(self) -> Pseudocode:
        """The first of the processes, over all calls."""
        return type(self)(replace(self.s, trainer={**self.s.trainer, "strategy": "ddp"}))

    def bring_back(self, first: Pseudocode, function: str) -> Events:
        """The weights, where the trainer is, and by the queue what was logged. In which order, nobody says."""
        for ph in ("B", "E"):
            yield Expected(ph, "module", "get_from_queue", {}, {}, self.scope)
        self.epoch, self.step = first.epoch, first.step
        self.logged.kept = first.logged.known()
        self.take_weights(first)

    def take_weights(self, first: Pseudocode) -> None:
        """Those of another process, which may be new."""
        self.updates += self.numbers.layers != first.numbers.layers
        self.numbers.layers, self.numbers.begun = deepcopy(first.numbers.layers), first.numbers.begun

    def decisive(self) -> dict[str, float]:
        """That of process 0 [R102], who looks at the same moments."""
        if self.rank:
            return next(self.looks_of_zero)
        return self.look()

    def look(self) -> dict[str, float]:
        """What this process has logged, remembered where others may go by it."""
        known = self.logged.read()
        if self.s.processes > 1:
            self.looks.append(known)
        return known

    @cached_property
    def looks_of_zero(self) -> Iterator[dict[str, float]]:
        """What that process looks at, over all calls."""
        zero = type(self)(self.s)
        for _ in zero.all_calls():
            yield from zero.looks
            zero.looks.clear()

    def begin_call(self) -> None:
        """Nothing is logged yet; a fit that resumes is where the checkpoint's was. Processes begin with what the first
        one has [R104]."""
        self.nothing_logged()
        self.numbers.apart = False
        self.epoch, self.step = self.resuming.get("epoch", self.epoch), self.resuming.get("step", self.step)

    def end_early(self, function: str, raised: UserError) -> Events:
        """An exception ends the call: what was opened is closed."""
        self.predictions = None
        self.put_into_mode(True)
        self.grad_enabled, self.scope = True, function
        self.in_sanity_check, self.optimizer_idx, self.piece, self.part = False, None, None, None
        self.logged.abandon()
        yield from self.closing("on_exception")
        if self.opened:
            yield from self.closing("teardown", stage=function)

    def status_after(self, raised: UserError) -> str:
        """What the trainer says of a call that an exception has ended [R67]."""
        return "interrupted" if raised.text.startswith("KeyboardInterrupt") else "failed"

    def is_swallowed(self, raised: UserError) -> bool:
        """Whether the caller does not get to see the exception."""
        return raised.text.startswith("KeyboardInterrupt")

    def handed(self) -> dict[str, list[float]]:
        """What loggers were given."""
        return self.logged.handed if self.has_loggers else {}

    @property
    def has_loggers(self) -> bool:
        """Whether there are any: they are of process 0 alone [R106]; and none with fast_dev_run."""
        return not (self.rank or self.options["fast_dev_run"])

    def made(self, function: str) -> dict[str, Any]:
        """What the call has come to: predictions, or what it returns and a logger was given."""
        made = self.kept(function)
        if function == "predict":
            return {**made, "results": self.predictions if self.returns_predictions else None}
        if function == "fit" and self.saving and self.knows_files and self.is_computed and not self.rank:
            made["files"] = self.files_left()
        if not self.s.has_logger or not self.is_computed:
            return made
        given = [(name, value) for name, values in sorted(self.handed().items()) for value in values]
        made |= {"logger_names": [name for name, _ in given], "logger_values": [value for _, value in given]}
        return {**made, **self.returned(function)}

    def kept(self, function: str) -> dict[str, Any]:
        """The module's hyperparameters; a fit tells loggers of them, and of those of the data module [R51]."""
        model = self.s.model
        if not model.hyperparameters:
            return {}
        kept: dict[str, Any] = {"hparams": self.hparams()}
        if function == "fit" and self.status == "finished":  # else it may have been too early
            told = self.hparams_told() if model.hyperparameters_logged else []
            told += ["arg4=4"] if self.datamodule() and self.s.data.hyperparameter else []
            kept["logger_hparams"] = told if self.has_loggers else []
        return kept

    def returned(self, function: str) -> dict[str, Any]:
        """What the call returns, of what was logged; another's predictions not."""
        if function not in ("validate", "test"):
            return {"results": None} if function == "predict" else {}
        over, stage = self.logged.over, {"validate": "val"}.get(function, function)
        told = over.returned(len(self.s.loaders(stage))) if over else []
        return {"returned_names": [name for name, _ in told], "returned_values": [value for _, value in told]}

    def closing(self, hook: str, **args: Any) -> Events:
        """After an exception: what a closing hook raises itself does not hide the first one."""
        with suppress(UserError):
            yield from self.hook(hook, **args)
