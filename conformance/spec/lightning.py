"""What pytorch-lightning 1.5 and 2 both do instead of what the documentation says, as their pseudocode.

The functions are those of `pseudocode.py`, with the releases' lines in the releases' order; a comment marks each
edit. What one of the releases does alone is in `lightning_1_5.py` and `lightning_2.py`.
"""

from __future__ import annotations

from contextlib import suppress
from functools import partial
from typing import Any

from ..experiment import Scenario
from ..numerics import Numbers
from .logged import Logged, Pass, defaults, reduced, shown
from .oracle import KEYS, OWN_WORDS, Events, Expected, UserError
from .pseudocode import Pseudocode

__all__ = ["Lightning"]

EVALUATES = ("validation_", "test_", "on_validation_", "on_test_")
OF_CALL = {"fit": "training", "validate": "validating", "test": "testing", "predict": "predicting"}


class PassThere(Pass):
    """A step's value of an evaluation is not among the metrics. A logger is given each step's latest value again."""

    loader: int | None = None  # the one whose batches come

    def told(self, in_batches: bool) -> dict[str, float]:
        """While batches come what its steps have logged, else what is of the epoch."""
        found: dict[str, float] = {}
        for (log, loader), values in self.values.items():
            on_step, on_epoch = defaults(log)
            forked = on_step and on_epoch
            if in_batches and on_step and not log.hook.startswith(EVALUATES):
                value = self.latest(log, loader)
                found.update({shown(log, "_step" if forked else "", loader): value, shown(log, "", loader): value})
            elif on_epoch and not in_batches:
                value = reduced(log, values)
                found.update({shown(log, "_epoch" if forked else "", loader): value, shown(log, "", loader): value})
        return found

    def for_loggers(self, what: str) -> dict[str, float]:
        self.of_batch = {(log, loader) for log, loader in self.values if loader in (None, self.loader)}
        return super().for_loggers(what)


class LoggedThere(Logged):
    """What `self.log` makes known: the pass that runs is read, and what was once read stays until it is replaced. From
    a pass's first batch to its last, batches come, and until then those of the pass around it."""

    in_batches = False

    def begin(self) -> None:
        self.passes.append(PassThere())

    def last_batch(self) -> None:
        self.in_batches = False

    def batches_of(self, loader: int | None) -> None:
        """Batches of a loader come."""
        self.in_batches = True
        self.innermost.loader = loader

    @property
    def innermost(self) -> PassThere:
        """The pass that runs."""
        innermost = self.passes[-1]
        assert isinstance(innermost, PassThere)
        return innermost

    def end(self, forget: bool = False) -> None:
        """What the sanity check logged is known for a while, and given to no logger."""
        self.kept.update(self.innermost.told(in_batches=False))
        over = self.passes.pop()
        if not forget:
            self.hand_on(over.for_loggers("epoch"))

    def known(self) -> dict[str, float]:
        if self.passes:
            self.kept.update(self.innermost.told(self.in_batches))
        return dict(self.kept)


class Lightning(Pseudocode):
    """The pseudocode of both releases."""

    @classmethod
    def leaves_open(cls, scenario: Scenario) -> str:
        alone = any(event.do == "stop" and event.rank != -1 for event in scenario.when)
        return "what happens where one process alone is asked to stop" if alone else ""

    closing_hooks: frozenset[str] = frozenset()  # one that raises is the last
    log_type = LoggedThere
    logged: LoggedThere
    runs: str | None = None  # the stage of the call that does
    left: str | None = None  # the one that an exception has left
    stays = False  # whether the trainer stays in it when the call is over

    def fit(self) -> Events:
        yield from self.configure_callbacks()  # before prepare_data
        yield from self.hook("prepare_data")
        yield from self.within("train_on_device", self.train_on_device())

    def train_on_device(self) -> Events:
        yield from self.hook("setup", stage="fit")  # before on_fit_start, and so is what follows
        self.forget_logged()
        yield from self.load()
        yield from self.hook("configure_optimizers")
        self.attached = True
        yield from self.hook("on_fit_start")
        self.restore()

        yield from self.hook("on_pretrain_routine_start")
        yield from self.hook("on_pretrain_routine_end")
        yield from self.sanity_check()

        self.begin_training()
        self.logged.begin()
        if self.options["limit_train_batches"] != 0:
            yield from self.dataloaders_of_fit()  # before on_train_start
        if self.another_epoch():  # else nothing starts
            yield from self.hook("on_train_start")
            while self.another_epoch():
                yield from self.within("train_loop", self.train_loop())
                self.epoch += 1
            yield from self.hook("on_train_end")
        self.logged.end()

        yield from self.hook("on_fit_end")
        self.opened = False
        yield from self.hook("teardown", stage="fit")

    def train_loop(self) -> Events:
        yield from self.dataloader("train")  # before on_train_epoch_start
        outputs = self.epoch_outputs = []
        everybody = set(range(self.s.model.optimizers))
        self.used, self.owners, self.is_empty = set() if self.frequencies else everybody, [], {*everybody}
        goes_on = self.resuming.get("in_epoch")
        first, self.in_epoch = self.rejoin(), True
        if not goes_on:  # as after a checkpoint of mid-epoch
            yield from self.hook("on_epoch_start")
            yield from self.hook("on_train_epoch_start")

        (batches,) = self.loaders("train")
        for batch_idx in range(first, batches):
            # after resuming from the loader's beginning
            where: dict[str, Any] = {"batch": self.train_batch(batch_idx - first), "batch_idx": batch_idx}
            yield from self.transfer(where["batch"], 0)  # before on_train_batch_start
            self.logged.batches_of(None)
            skip = yield from self.hook("on_train_batch_start", **where, dataloader_idx=0)
            if skip == "return-minus-1":
                yield from self.skip_epoch()
                break

            self.updating, self.has_met = self.closes_window(batch_idx, batches), False
            self.output = output = yield from self.optimizer_blocks(where)
            if output != "none":
                outputs.append(output)
            self.batches_done, self.uncounted = batch_idx + 1, self.to_count()
            if batch_idx + 1 == batches:
                yield from self.step_epochs_schedulers(of_plateaus=False)  # before on_train_batch_end

            yield from self.hook("on_train_batch_end", outputs=self.wrapped(output), **where, dataloader_idx=0)
            self.hand_to_loggers()

            self.step, self.uncounted = self.step + self.uncounted, 0
            if self.should_check_val(batch_idx, batches):
                yield from self.within("val_loop", self.val_loop())
            yield from self.end_of_batch()
            if self.may_stop() or self.steps_are_done():
                break
        self.last_batch()
        if self.s.defines("training_epoch_end"):
            yield from self.hook("training_epoch_end", outputs=self.collected(outputs))

        yield from self.hook("on_train_epoch_end")
        yield from self.hook("on_epoch_end")
        if self.batches_done == batches:
            yield from self.step_epochs_schedulers(of_plateaus=True)
        self.logged.end()
        self.logged.begin()
        self.batches_done, self.in_epoch = 0, False

    def val_loop(self, at_most: int | None = None) -> Events:
        yield from self.begin_evaluation("val")
        self.logged.begin()
        yield from self.hook("on_validation_model_eval")

        yield from self.hook("on_validation_start")
        yield from self.hook("on_epoch_start")
        yield from self.hook("on_validation_epoch_start")
        yield from self.evaluation_batches("validation", "val", at_most)
        yield from self.hook("on_validation_epoch_end")
        yield from self.hook("on_epoch_end")
        yield from self.hook("on_validation_end")

        yield from self.hook("on_validation_model_train")
        self.grad_enabled = True
        self.logged.end(forget=self.in_sanity_check)

    def test_loop(self) -> Events:
        yield from self.begin_evaluation("test")
        self.logged.begin()
        yield from self.hook("on_test_model_eval")

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
            if batch["batch_idx"] == 0 and dataloader_idx > 0:
                self.logged.last_batch()
            yield from self.transfer(batch["batch"], dataloader_idx)  # before on_*_batch_start
            self.logged.batches_of(dataloader_idx)
            yield from self.hook(f"on_{name}_batch_start", **batch, dataloader_idx=dataloader_idx)
            output = yield from self.step_of(name, batch, dataloader_idx)
            yield from self.hook(f"on_{name}_batch_end", outputs=output, **batch, dataloader_idx=dataloader_idx)
            outputs[dataloader_idx] += [output] * (output != "none")
            self.hand_to_loggers()
        self.last_batch()
        yield from self.epoch_end(name, outputs)

    def predict_loop(self) -> Events:
        yield from self.begin_evaluation("predict")
        yield from self.hook("on_predict_model_eval")

        yield from self.hook("on_predict_start")
        yield from self.hook("on_predict_epoch_start")
        outputs = self.outputs("predict")
        for dataloader_idx, batch in self.batches("predict"):
            yield from self.transfer(batch["batch"], dataloader_idx)
            yield from self.hook("on_predict_batch_start", **batch, dataloader_idx=dataloader_idx)
            output = yield from self.step_of("predict", batch, dataloader_idx)
            yield from self.hook("on_predict_batch_end", outputs=output, **batch, dataloader_idx=dataloader_idx)
            outputs[dataloader_idx].append(output)
        yield from self.hook("on_predict_epoch_end", results=self.lengths(outputs))
        yield from self.hook("on_predict_end")

        yield from self.hook("on_predict_model_train")
        self.grad_enabled = True
        self.predictions = self.by_loader(outputs)

    def evaluate(self, function: str) -> Events:
        yield from self.configure_callbacks()  # before prepare_data
        yield from self.hook("prepare_data")
        yield from self.hook("setup", stage=function)
        self.forget_logged()
        loop = {"validate": self.val_loop, "test": self.test_loop, "predict": self.predict_loop}[function]
        yield from self.within(loop.__name__, loop())
        self.opened = False
        yield from self.hook("teardown", stage=function)

    # ---- an optimizer's block ---------------------------------------------------------------------

    def optimizer_block(self, where: dict[str, Any], optimizer_idx: int) -> Events:
        """Whatever happens in a step, it counts as one. Without an optimizer a stand-in is stepped."""
        self.output = "none"
        if self.s.model.truncated_bptt_steps:
            where = {**where, "hiddens": self.hiddens[optimizer_idx]}
        if not self.updating:
            yield from self.accumulate(where, optimizer_idx)
            return self.output
        closure = partial(self.closure, where, optimizer_idx)
        step = closure
        if self.s.model.optimizer != "none":
            step = partial(self.optimizer_update, closure, optimizer_idx)
        self.stepped = False
        now = {"batch_idx": where["batch_idx"], "epoch": self.epoch, **self.of(optimizer_idx)}
        yield from self.hook(
            "optimizer_step", None if self.rests(optimizer_idx, where["batch_idx"]) else step, **now, **self.flags()
        )
        self.optimizer_done()
        if not self.stepped:  # a closure that is not called is an error
            raise UserError(OWN_WORDS)
        if self.s.model.scheduler == "step":
            yield from self.pass_scheduler(optimizer_idx)
        return self.output

    def closure(self, where: dict[str, Any], optimizer_idx: int) -> Events:
        yield from self.accumulate(where, optimizer_idx)
        yield from self.hook("on_before_optimizer_step", **self.of(optimizer_idx))  # after None, too
        self.stepped = True

    def accumulate(self, where: dict[str, Any], optimizer_idx: int) -> Events:
        told = yield from self.training_step(where)
        if where["batch_idx"] % int(self.options["accumulate_grad_batches"]) == 0:  # after None, too
            yield from self.hook("on_before_zero_grad", optimizer=self.numbered("optimizer", optimizer_idx))
            now = {"batch_idx": where["batch_idx"], "epoch": self.epoch, **self.of(optimizer_idx)}
            yield from self.hook("optimizer_zero_grad", **now)
        if told == "return-none":
            return

        yield from self.hook("on_before_backward", **self.loss())
        yield from self.hook("backward", **self.loss(), **self.of(optimizer_idx))
        yield from self.hook("on_after_backward")

    def optimizer_done(self) -> None:
        """An optimizer's step is over."""

    # ---- the lines that the functions name ---------------------------------------------------------

    def step_epochs_schedulers(self, of_plateaus: bool) -> Events:
        """Those with interval epoch, on a plateau or not."""
        if self.s.model.scheduler == "epoch" and not self.s.model.manual and bool(self.s.model.monitor) == of_plateaus:
            for optimizer_idx in sorted(self.used):
                yield from self.pass_scheduler(optimizer_idx)

    def pass_scheduler(self, optimizer_idx: int) -> Events:
        """The frequency counts epochs, or the batches of each epoch anew."""
        done = self.epoch + 1 if self.s.model.scheduler == "epoch" else self.batches_done + 1
        if done % self.s.model.scheduler_frequency == 0 and self.s.model.monitor and self.s.model.scheduler == "step":
            self.due.add(optimizer_idx)
        elif done % self.s.model.scheduler_frequency == 0:
            yield from self.step_scheduler(optimizer_idx)

    def skip_epoch(self) -> Events:
        """on_train_batch_start has ended the epoch."""
        yield from ()

    def begin_training(self) -> None:
        """model.train()"""
        self.put_into_mode(True)

    def to_count(self) -> int:
        """The step that counts when the batch is over."""
        return int(self.updating)

    def dataloaders_of_fit(self) -> Events:
        """Before on_train_start."""
        yield from self.dataloader("train")

    def begin_evaluation(self, stage: str) -> Events:
        """Before any hook of its loop gradients are cleared and switched off, and the loaders are asked for."""
        if self.scope != "val_loop" or not self.in_epoch or self.updating:  # not in the midst of a window
            for optimizer_idx in range(self.s.model.optimizers):
                self.grads[optimizer_idx] = "none"
                self.numbers.zero_grad(optimizer_idx)
        yield from self.dataloader(stage)
        self.grad_enabled = False

    def wrapped(self, output: str) -> str:
        """What on_train_batch_end gets: a dict for a tensor."""
        return "dict" if output in ("tensor", "none") else output

    def held(self, hook: str, outputs: str) -> dict[str, Any]:
        """on_train_batch_end gets a dict: with the loss for a tensor, with nothing for None. What lies deeper than the
        loss keeps its graph."""
        if hook != "on_train_batch_end":
            return super().held(hook, outputs)
        if self.output == "none":
            return {"outputs_keys": [], "outputs_graph": False}
        is_dict = self.output == "dict"
        return {"outputs_keys": KEYS[1] if is_dict else ["loss"], "outputs_graph": is_dict}

    # ---- an exception ------------------------------------------------------------------------------

    @property
    def stage(self) -> str | None:
        """A call is of its stage from its beginning; after an exception it stays in what ran."""
        return self.left or super().stage or self.runs

    def event(self, ph: str, receiver: str, hook: str, args: dict[str, Any]) -> Expected:
        if ph == "E" and receiver == "trainer" and hook in OF_CALL:
            self.runs, self.left = None, self.left if self.stays else None
        event = super().event(ph, receiver, hook, args)
        if self.shuffles and str(args.get("batch")).startswith("train/"):
            del event.args["batch"]  # it is any
        return event

    def end_early(self, function: str) -> Events:
        """Only on_exception is called, and modes stay as they are."""
        self.left = self.stage
        self.predictions = "none"
        self.grad_enabled, self.scope = True, function
        self.in_sanity_check, self.optimizer_idx, self.piece, self.part = False, None, None, None
        self.logged.abandon()
        self.stays = True  # if one raises in on_exception, too
        with suppress(UserError):
            yield from self.hook("on_exception")
            self.stays = False

    # ---- what is logged ----------------------------------------------------------------------------

    def forget_logged(self) -> None:
        """What the run before has logged is known until setup is over."""
        self.nothing_logged()

    def sanity_check(self) -> Events:
        """What it logs is known until it is over, and given to no logger."""
        steps = self.options["num_sanity_val_steps"]
        if steps == 0 or not self.validates() or self.resuming:
            return
        self.in_sanity_check = True
        yield from self.hook("on_sanity_check_start")
        yield from self.within("val_loop", self.val_loop(None if steps == -1 else steps))
        yield from self.hook("on_sanity_check_end")
        self.in_sanity_check = False
        self.logged.kept.clear()

    # ---- from a checkpoint -------------------------------------------------------------------------

    def begin_call(self) -> None:
        self.logged.handed, self.called, self.runs = {}, self.scope, OF_CALL[self.scope]
        self.left, self.stays = None, False
        self.overfits = False  # it validates on the validation batches

    def restore(self) -> None:
        """The training's state, after on_fit_start; what was logged or accumulated is lost."""
        if self.resuming:
            self.epoch, self.step = self.resuming["epoch"], self.resuming["step"]
            if self.resuming["batches_done"] == self.loaders("train")[0]:  # the epoch is over
                self.epoch, self.resuming["batches_done"] = self.epoch + 1, 0
            self.numbers.rates = self.resuming["numbers"].rates

    def rejoin(self) -> int:
        saved, self.resuming = self.resuming, {}
        self.batches_done = int(saved.get("batches_done", 0))
        return self.batches_done

    def load(self) -> Events:
        yield from super().load()
        self.numbers.rates = Numbers(self.s, self.rank).rates

    # ---- data --------------------------------------------------------------------------------------

    @property
    def shuffles(self) -> bool:
        """With DDP samples are shuffled, though the loader does not."""
        return super().shuffles or (self.s.processes > 1 and not self.s.data.distributed_sampler)

    def rows_of(self, batch: str) -> dict[str, Any]:
        return {} if self.shuffles and self.s.processes > 1 else super().rows_of(batch)

    def handled(self, hook: str) -> dict[str, bool]:
        """on_*_batch_start gets a batch that has been moved."""
        return super().handled("training_step" if hook.endswith("_batch_start") else hook)

    def limited(self, stage: str, batches: int) -> int:
        """overfit_batches limits the validation, too, and rules over fast_dev_run."""
        overfits = self.options["overfit_batches"]
        if not overfits or self.called != "fit" or stage not in ("train", "val"):
            return super().limited(stage, batches)
        return min(batches, overfits) if isinstance(overfits, int) else int(batches * overfits)
