"""The documentation's pseudocode as executable Python: what a trainer must do, for any scenario.

`expected(scenario)` yields, one by one, the events of a trace that keeps the contract. The functions
`fit`, `train_on_device`, `train_loop` and `val_loop` are the documentation's, in its words and order;
each `yield from self.hook(...)` is one of its lines. Nothing here was recorded from a trainer, and
nothing is shared with `refimpl`: two independent readings that agree are worth something.

Where the text is silent, the rule applied is a row of `docs/interpretations.md`, named as [R<n>].
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from copy import deepcopy
from functools import partial
from typing import Any

from ..experiment import Scenario
from ..numerics import Numbers
from .optimization import Optimization
from .oracle import TRANSFER_HOOKS, Events, Expected, UserError

__all__ = ["expected"]


class Pseudocode(Optimization):
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
        self.training = True
        self.logged.begin()
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
        yield from self.hook("on_epoch_start")
        yield from self.hook("on_train_epoch_start")

        outputs = self.epoch_outputs = []
        everybody = set(range(self.s.model.optimizers))
        self.used, self.owners, self.is_empty = set() if self.frequencies else everybody, [], {*everybody}
        yield from self.dataloader("train")
        (batches,) = self.loaders("train")
        first = self.rejoin()
        yield from self.end_of_batch()  # of the one before, if it was saved just then
        for batch_idx in range(first, batches):
            where: dict[str, Any] = {"batch": self.train_batch(batch_idx), "batch_idx": batch_idx}
            skip = yield from self.hook("on_train_batch_start", **where, dataloader_idx=0)
            if skip == "return-minus-1":
                break

            yield from self.transfer(where["batch"], 0)

            self.updating = self.closes_window(batch_idx, batches)
            output = yield from self.optimizer_blocks(where)
            if output != "none":  # None went on with the next batch
                outputs.append(output)
            self.batches_done, self.uncounted = batch_idx + 1, int(self.updating)

            yield from self.hook("on_train_batch_end", outputs=output, **where, dataloader_idx=0)

            if self.should_check_val(batch_idx, batches):
                yield from self.within("val_loop", self.val_loop())
            yield from self.end_of_batch()
            self.step, self.uncounted = self.step + self.updating, 0
            if self.may_stop() or self.steps_are_done():
                break
        # end training epoch
        self.last_batch()
        if self.s.defines("training_epoch_end"):
            yield from self.hook("training_epoch_end", outputs=self.collected(outputs))

        yield from self.hook("on_train_epoch_end")
        yield from self.hook("on_epoch_end")
        if self.s.model.scheduler == "epoch" and not self.s.model.manual:
            for optimizer_idx in sorted(self.used):
                yield from self.pass_scheduler(optimizer_idx)
        self.logged.end()
        self.logged.begin()
        self.batches_done = 0

    def val_loop(self, at_most: int | None = None) -> Events:
        self.logged.begin()
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
            outputs[dataloader_idx] += output != "none"
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
        loop, scope = {
            "validate": (self.val_loop, "val_loop"),
            "test": (self.test_loop, "test_loop"),
            "predict": (self.predict_loop, "predict_loop"),
        }[function]
        yield from self.within(scope, loop())
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
            outputs[dataloader_idx] += output != "none"
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
            outputs[dataloader_idx] += 1
        yield from self.hook("on_predict_epoch_end", results="lists:" + ",".join(map(str, outputs)))
        yield from self.hook("on_predict_end")

        yield from self.hook("on_predict_model_train")
        self.grad_enabled = True
        self.predictions = self.by_loader(outputs)

    # ---- the lines between, where the pseudocode names a thing ------------------------------------

    def configure_callbacks(self) -> Events:
        """What it returns extends the trainer's list, and replaces those of the same type [R14]."""
        yield from self.hook("configure_callbacks")
        given, own = self.s.callbacks, self.s.model.callbacks
        kept = [] if "same" in own else self.callbacks
        self.callbacks = kept + [f"callback:{given + i}" for i in range(len(own))]

    def transfer(self, batch: str, dataloader_idx: int) -> Events:
        for hook in TRANSFER_HOOKS:
            yield from self.hook(hook, batch=batch, dataloader_idx=dataloader_idx)

    def dataloader(self, stage: str) -> Events:
        """`train_dataloader()` and its siblings: called where first needed [R24], and again where they are
        reloaded [R61]. Whoever validates on training batches needs no others [R62]."""
        stage = "train" if self.overfits else stage
        if self.is_due(stage):
            if self.s.data.source != "argument":
                yield from self.hook(f"{stage}_dataloader")
            before = self.asked_before.pop(stage, None)
            self.loaded[stage] = self.epoch if before is None or self.is_due(stage, before) else before

    def optimizer_blocks(self, where: dict[str, Any]) -> Events:
        """The block of each optimizer [R7]; with frequencies that of the one whose window it is, so many
        each, from one epoch into the next [R19]; with truncated_bptt_steps on each piece of the batch [R40]."""
        if self.s.model.manual:
            return (yield from self.manual_step(where))
        self.owners = self.owners or self.whose_window()
        if self.s.model.truncated_bptt_steps:
            output = yield from self.piece_by_piece(where)
        else:
            output = yield from self.each_in_turn(where)
        if self.updating:
            self.owners = []
        return output

    def each_in_turn(self, where: dict[str, Any]) -> Events:
        """The block of each owner, while only its parameters require gradients [R7]."""
        if self.s.model.optimizers == 1:
            return (yield from self.optimizer_block(where, 0))
        outputs = []
        for optimizer_idx in self.owners:
            self.optimizer_idx = optimizer_idx
            block = self.optimizer_block({**where, "optimizer_idx": optimizer_idx}, optimizer_idx)
            outputs.append((yield from block))
        self.optimizer_idx = None
        return outputs[0] if self.frequencies else self.listed(outputs)

    def piece_by_piece(self, where: dict[str, Any]) -> Events:
        """The blocks on each piece of the batch. A window of several batches is updated with its last
        piece; without accumulation each piece is [R40]."""
        size, pieces = self.s.model.truncated_bptt_steps, self.pieces()
        yield from self.hook("tbptt_split_batch", batch=where["batch"], split_size=size)
        closes, outputs = self.updating, []
        self.hiddens = dict.fromkeys(range(self.s.model.optimizers), "none")
        for self.piece in pieces:
            self.updating = closes and (self.options["accumulate_grad_batches"] == 1 or self.piece == pieces[-1])
            outputs.append((yield from self.each_in_turn(where)))
        self.piece = None
        return self.listed(outputs)

    @staticmethod
    def listed(outputs: list[str]) -> str:
        """The form of a list of outputs; if none of them is there, none."""
        if set(outputs) == {"none"}:
            return "none"
        if all(output.startswith("list:") for output in outputs):
            return "lists:" + ",".join(output[len("list:") :] for output in outputs)
        return f"list:{len(outputs)}"

    def collected(self, outputs: list[str]) -> str:
        """The form of an epoch's outputs: of each batch what on_train_batch_end got, but none of those
        that are none."""
        if not outputs or not all(output.startswith("list") for output in outputs):
            return f"list:{len(outputs)}"
        forms = [output.partition(":") for output in outputs]
        return "lists:" + ",".join(n if form == "list" else str(n.count(",") + 1) for form, _, n in forms)

    def whose_window(self) -> list[int]:
        """The optimizers that train on the batches of this window."""
        cycle = [index for index, times in enumerate(self.frequencies) for _ in range(times)]
        if not cycle:
            return list(range(self.s.model.optimizers))
        owner = cycle[self.turn % len(cycle)]
        self.turn += 1
        self.used.add(owner)
        return [owner]

    def closes_window(self, batch_idx: int, batches: int) -> bool:
        """Whether an update follows: after so many batches, and at the epoch's end [R8]."""
        return (batch_idx + 1) % int(self.options["accumulate_grad_batches"]) == 0 or batch_idx + 1 == batches

    def optimizer_block(self, where: dict[str, Any], optimizer_idx: int) -> Events:
        """training_step to optimizer_step: the step's span encloses its closure's [R1]. Without an update
        the gradients are accumulated [R8]."""
        self.output, self.stepped = "none", False
        if self.s.model.truncated_bptt_steps:
            where = {**where, "hiddens": self.hiddens[optimizer_idx]}
        if self.s.model.optimizer == "none":  # fit runs without any optimizer [R25]
            yield from self.training_step(where)
        elif not self.updating:
            yield from self.accumulate(where, optimizer_idx)
        else:
            closure = lambda: self.closure(where, optimizer_idx)  # noqa: E731
            step = lambda: self.optimizer_update(closure, optimizer_idx)  # noqa: E731
            rests = self.rests(optimizer_idx, where["batch_idx"])
            now = {"batch_idx": where["batch_idx"], "epoch": self.epoch, **self.of(optimizer_idx)}
            yield from self.hook("optimizer_step", None if rests else step, **now, **self.flags())
            self.is_empty.add(optimizer_idx)
        self.withheld = False
        if self.stepped and self.s.model.scheduler == "step":
            yield from self.pass_scheduler(optimizer_idx)  # [R16]
        if self.s.model.truncated_bptt_steps and self.output != "none":
            before = where["hiddens"]
            self.hiddens[optimizer_idx] = f"detached:{1 if before == 'none' else int(before.split(':')[1]) + 1}"
        return self.output

    def optimizer_update(self, closure: Callable[[], Events], optimizer_idx: int) -> Events:
        """`optimizer.step(closure)`: the parameters change at its end, if there were gradients. L-BFGS evaluates
        the closure again when it has changed them [R70]."""
        receiver = self.numbered("optimizer", optimizer_idx)
        self.warm_up(optimizer_idx)
        yield self.event("B", receiver, "step", {})
        try:
            yield from closure()
            moves = self.stepped and self.numbers.update(optimizer_idx)
            self.updates += moves
            if moves and self.s.model.optimizer == "lbfgs":
                yield from closure()
        except UserError as raised:
            yield self.event("E", receiver, "step", {"raised": raised.text})
            raise
        yield self.event("E", receiver, "step", {})

    def closure(self, where: dict[str, Any], optimizer_idx: int) -> Events:
        yield from self.accumulate(where, optimizer_idx)
        if optimizer_idx in self.is_empty:  # no parameter change [R9]
            self.withheld = True  # how a trainer keeps the optimizer from a change is its own affair
            return

        yield from self.hook("on_before_optimizer_step", **self.of(optimizer_idx))
        self.stepped = True

    def accumulate(self, where: dict[str, Any], optimizer_idx: int) -> Events:
        """The lines up to on_after_backward; gradients are cleared once in a window [R8]."""
        told = yield from self.training_step(where)
        if told == "return-none":  # no zero_grad, no backward for this batch [R9]
            return

        if optimizer_idx in self.is_empty or self.options["accumulate_grad_batches"] == 1:
            yield from self.hook("on_before_zero_grad", optimizer=self.numbered("optimizer", optimizer_idx))
            now = {"batch_idx": where["batch_idx"], "epoch": self.epoch, **self.of(optimizer_idx)}
            yield from self.hook("optimizer_zero_grad", **now)
            self.is_empty.discard(optimizer_idx)

        yield from self.hook("on_before_backward", **self.loss())
        yield from self.hook("backward", **self.loss(), **self.of(optimizer_idx))
        yield from self.hook("on_after_backward")

    def training_step(self, where: dict[str, Any]) -> Events:
        told = yield from self.hook("training_step", **where)
        output = "none" if told == "return-none" else self.s.model.returns
        self.output = yield from self.step_end("training", output)
        return told

    def manual_step(self, where: dict[str, Any]) -> Events:
        """Manual optimization: nothing but training_step; the scenario's does the lines itself [R41]."""
        told = yield from self.hook("training_step", self.manual_lines, **where)
        return (yield from self.step_end("training", "none" if told == "return-none" else self.s.model.returns))

    def manual_lines(self) -> Events:
        """What the scenario's training_step calls: for each optimizer zero_grad, manual_backward, step."""
        for optimizer_idx in range(self.s.model.optimizers):
            self.optimizer_idx = optimizer_idx if self.s.model.optimizers > 1 else None
            self.grads[optimizer_idx], self.stepped = "clear", True
            self.numbers.zero_grad(optimizer_idx)
            try:
                yield from self.hook("on_before_backward", **self.loss())
                yield from self.hook("backward", **self.loss())
                yield from self.hook("on_after_backward")
                hook = partial(self.hook, "on_before_optimizer_step", **self.of(optimizer_idx))
                yield from self.optimizer_update(hook, optimizer_idx)
            finally:
                self.optimizer_idx = None  # toggle_model() has ended
        for optimizer_idx in range(self.s.model.optimizers if self.s.model.scheduler == "step" else 0):
            yield from self.span(self.numbered("scheduler", optimizer_idx), "step", None, {})

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
        told = yield from self.hook(f"{name}_step", **where)
        form = "tensor" if name == "predict" else self.s.model.eval_returns or self.s.model.returns
        return (yield from self.step_end(name, "none" if told == "return-none" else form))

    def step_end(self, name: str, output: str) -> Events:
        """What `*_step_end` returns is the output from there on: in the scenarios, the other form."""
        if not self.s.defines(f"{name}_step_end"):
            return output
        yield from self.hook(f"{name}_step_end", outputs=output)
        return {"none": "none", "tensor": "dict", "dict": "tensor"}[output]

    def outputs(self, stage: str) -> list[int]:
        """How many outputs of each loader have been kept: none yet."""
        return [0] * len(self.loaders(stage))

    def epoch_end(self, name: str, outputs: list[int]) -> Events:
        """A list of outputs, or with several loaders a list of one list for each."""
        if self.s.defines(f"{name}_epoch_end"):
            yield from self.hook(f"{name}_epoch_end", outputs=self.by_loader(outputs))

    @staticmethod
    def by_loader(outputs: list[int]) -> str:
        """The form of so many outputs of each loader: a list, or with several loaders a list of lists."""
        return ("lists:" if len(outputs) > 1 else "list:") + ",".join(map(str, outputs))

    # ---- checkpoints ------------------------------------------------------------------------------

    KEPT = tuple("loaded turn owners is_empty used batches_done epoch_outputs grads numbers logged passed due".split())

    def save(self) -> Events:
        """`trainer.save_checkpoint()`: everything of the training is kept, up to the last batch that is done [R43]."""
        yield self.event("B", "trainer", "save_checkpoint", {})
        try:
            yield from self.hook("on_save_checkpoint")
        except UserError as raised:
            yield self.event("E", "trainer", "save_checkpoint", {"raised": raised.text})
            raise
        self.saved = {name: deepcopy(getattr(self, name)) for name in self.KEPT}
        self.saved.update(epoch=self.epoch, step=self.step + self.uncounted)
        yield self.event("E", "trainer", "save_checkpoint", {})

    def new_trainer(self) -> None:
        """Another trainer and module, which know nothing yet; the trainer trains for one epoch more."""
        self.epoch = self.step = self.uncounted = 0
        self.training, self.attached = not self.s.model.starts_in_eval, False
        self.grads = ["none"] * self.s.model.optimizers
        self.times_logged = {}
        self.nothing_logged()
        self.options["max_epochs"] += self.options["max_epochs"] != -1

    def load(self) -> Events:
        """What a fit that goes on from a checkpoint is given: the weights, and all that belongs to them [R43]."""
        if not self.resuming:
            return
        yield from self.hook("on_load_checkpoint")
        self.updates += self.resuming["numbers"].layers != Numbers(self.s).layers
        self.numbers = deepcopy(self.resuming["numbers"])

    def go_on(self) -> None:
        """The optimizers are there: the cycle of their turns begins, or goes on, and what was logged is known again."""
        saved = self.resuming
        self.turn, self.passed, self.due = saved.get("turn", 0), dict(saved.get("passed", {})), {*saved.get("due", ())}
        if saved:
            self.logged.kept = dict(saved["logged"].kept)
            self.asked_before = dict(saved["loaded"])
        else:
            self.numbers.configure()

    def rejoin(self) -> int:
        """The first batch of this epoch: after resuming in mid-epoch that which was not done [R43]."""
        saved, self.resuming = self.resuming, {}
        if not saved.get("batches_done"):
            return 0
        self.used, self.owners, self.is_empty = map(deepcopy, (saved["used"], saved["owners"], saved["is_empty"]))
        self.epoch_outputs.extend(saved["epoch_outputs"])
        for page in saved["logged"].passes[:1]:  # none if it was saved after an exception
            self.logged.passes[0] = deepcopy(page)
        self.batches_done = int(saved["batches_done"])
        if self.s.model.manual or self.is_empty != set(range(self.s.model.optimizers)):  # gradients of an open window
            self.grads = list(saved["grads"])
        return self.batches_done

    # ---- the calls of the user --------------------------------------------------------------------

    def call(self, function: str) -> Events:
        """`trainer.fit()` and its siblings: what was opened is closed, whatever happens."""
        if function == "save":
            yield from self.save()
            return
        if function == "resume":
            self.new_trainer()
        resuming, function = (self.saved, "fit") if function == "resume" else ({}, function)
        body = self.fit if function == "fit" else lambda: self.evaluate(function)
        self.should_stop, self.opened, self.scope = False, True, function
        self.loaded, self.asked_before = {}, {}
        self.overfits = function == "fit" and self.options["overfit_batches"] > 0
        self.callbacks = [f"callback:{i}" for i in range(self.s.callbacks)]
        yield self.event("B", "trainer", function, {})
        self.nothing_logged()
        self.resuming, self.batches_done = resuming, 0
        self.epoch, self.step = resuming.get("epoch", self.epoch), resuming.get("step", self.step)
        self.predictions = "none"
        try:
            yield from body()
        except UserError as raised:
            self.predictions = "none"
            self.training, self.grad_enabled, self.scope = True, True, function
            self.in_sanity_check, self.optimizer_idx, self.piece = False, None, None
            self.logged.abandon()
            yield from self.closing("on_exception")
            if self.opened:
                yield from self.closing("teardown", stage=function)
            if not raised.text.startswith("KeyboardInterrupt"):
                yield self.event("E", "trainer", function, {"raised": raised.text})
                raise
        yield self.event("E", "trainer", function, {"results": self.predictions} if function == "predict" else {})

    def closing(self, hook: str, **args: Any) -> Events:
        """After an exception: what a closing hook raises itself does not hide the first one."""
        with suppress(UserError):
            yield from self.hook(hook, **args)


def expected(scenario: Scenario) -> Iterator[Expected]:
    """The events of a trace that keeps the contract, in order."""
    oracle = Pseudocode(scenario)
    for function in scenario.calls:
        try:
            yield from oracle.call(function)
        except UserError:
            return
