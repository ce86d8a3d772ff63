"""The documentation's pseudocode as executable Python: what a trainer must do, for any scenario.

Its calls yield, one by one, the events of a trace that keeps the contract. The functions
`fit`, `train_on_device`, `train_loop` and `val_loop` are the documentation's, in its words and order;
each `yield from self.hook(...)` is one of its lines. Nothing here was recorded from a trainer, and
nothing is shared with `refimpl`: two independent readings that agree are worth something.

Where the text is silent, the rule applied is a row of `docs/interpretations.md`, named as [R<n>].
"""

from __future__ import annotations

from typing import Any

from ..hooks import TRANSFERS
from .batch import Batch
from .calls import Calls
from .state import OWN_WORDS, Events

__all__ = ["Pseudocode"]


class Pseudocode(Batch, Calls):
    """The documented functions, which `Calls` runs. `fit`, `train_on_device`, `train_loop` and `val_loop` come first,
    then validate, test and predict in their manner, then the lines that the pseudocode only names."""

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
        self.logged.end(step=self.last_step)

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
        self.logged.end(step=self.last_step)
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
        self.logged.end(self.in_sanity_check, self.logger_step if self.called == "fit" else OWN_WORDS)

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
