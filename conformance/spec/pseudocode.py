"""The documentation's pseudocode as executable Python: what a trainer must do, for any scenario.

`expected(scenario)` yields, one by one, the events of a trace that keeps the contract. The functions
`fit`, `train_on_device`, `train_loop` and `val_loop` are the documentation's, in its words and order;
each `yield from self.hook(...)` is one of its lines. Nothing here was recorded from a trainer, and
nothing is shared with `refimpl`: two independent readings that agree are worth something.

Where the text is silent, the rule applied is a row of `docs/interpretations.md`, named as [R<n>].
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from typing import Any, NamedTuple

from ..scenario import Scenario

__all__ = ["CALLBACK_ONLY", "MODULE_ONLY", "Expected", "expected"]


class Expected(NamedTuple):
    """One event: the begin or end of a span, with the arguments and effects the contract fixes."""

    ph: str
    receiver: str
    hook: str
    args: dict[str, Any]
    fx: dict[str, Any]
    scope: str  # the function of the pseudocode it is a line of


Events = Generator[Expected, None, Any]

# Receivers: a hook goes to the callbacks in their order, then to the module [R14], but for these.
MODULE_ONLY = frozenset(
    "configure_callbacks configure_optimizers training_step training_step_end training_epoch_end "
    "validation_step validation_step_end validation_epoch_end test_step test_step_end test_epoch_end "
    "predict_step optimizer_zero_grad backward optimizer_step on_validation_model_eval "
    "on_validation_model_train on_test_model_eval on_test_model_train on_predict_model_eval "
    "on_predict_model_train".split()
)
CALLBACK_ONLY = frozenset({"on_sanity_check_start", "on_sanity_check_end", "on_exception"})
LOADER_HOOKS = frozenset({"train_dataloader", "val_dataloader", "test_dataloader", "predict_dataloader"})
TRANSFER_HOOKS = frozenset(
    {"on_before_batch_transfer", "transfer_batch_to_device", "on_after_batch_transfer"}
)

BEFORE_TRANSFER = frozenset({"on_before_batch_transfer", "transfer_batch_to_device"})


class _Raised(Exception):
    """An exception of the user's code on its way out; `text` is what the trace says of it."""

    def __init__(self, text: str) -> None:
        self.text = text


class _Oracle:
    """The state that the contract lets a user observe, and the documented functions over it."""

    def __init__(self, scenario: Scenario) -> None:
        self.s = scenario
        self.callbacks = [f"callback:{i}" for i in range(scenario.callbacks)]
        self.calls_seen: dict[tuple[str, str], int] = {}
        self.actions = {(w.receiver, w.hook, w.nth): w.do for w in scenario.when}
        self.epoch = self.step = self.updates = self.updates_seen = 0
        self.training = not scenario.model.starts_in_eval
        self.grad_enabled = True
        self.grads, self.withheld = "none", False
        self.should_stop = False
        self.loaded: set[str] = set()
        self.scope, self.in_sanity_check = "fit", False

    # ---- what every line of the pseudocode is made of ---------------------------------------------

    def within(self, scope: str, lines: Events) -> Events:
        """`lines`, as lines of the function named `scope`."""
        outer, self.scope = self.scope, scope
        yield from lines
        self.scope = outer

    @property
    def stage(self) -> str | None:
        """What the trainer's flags say of the function that runs."""
        return "sanity_checking" if self.in_sanity_check else STAGE_OF.get(self.scope)

    def event(self, ph: str, receiver: str, hook: str, args: dict[str, Any]) -> Expected:
        """An event now, with the effects as they stand."""
        if "batch" in args and self.s.data.batch == "custom":
            untouched = hook.endswith("_batch_start") or hook in BEFORE_TRANSFER
            args = {**args, "moved": not untouched}
        fx: dict[str, Any] = {
            "training": self.training,
            "grad_enabled": self.grad_enabled,
            "current_epoch": self.epoch,
            "global_step": self.step,
            "params": self.updates,
        }
        if not self.withheld:
            fx["grads"] = self.grads
        if self.stage is not None:
            fx["stage"] = self.stage
        return Expected(ph, receiver, hook, args, fx, self.scope)

    def receivers(self, hook: str) -> list[str]:
        """Who receives the hook, in order."""
        if hook in CALLBACK_ONLY:
            return self.callbacks
        if hook in LOADER_HOOKS or hook in TRANSFER_HOOKS:
            return ["datamodule" if self.s.data.source == "datamodule" else "module"]
        if hook == "prepare_data":
            return [*self.datamodule(), "module"]
        if hook in {"setup", "teardown"}:
            return [*self.datamodule(), *self.callbacks, "module"]
        return ["module"] if hook in MODULE_ONLY else [*self.callbacks, "module"]

    def datamodule(self) -> list[str]:
        return ["datamodule"] if self.s.data.source == "datamodule" else []

    def hook(self, name: str, inside: Callable[[], Events] | None = None, **args: Any) -> Events:
        """Call a hook on everybody; `inside` happens between its begin and its end. Returns what the
        module was told to return, if anything."""
        told = None
        for receiver in self.receivers(name):
            told = yield from self.span(receiver, name, inside, args)
        return told

    def span(
        self, receiver: str, hook: str, inside: Callable[[], Events] | None, args: dict[str, Any]
    ) -> Events:
        """One receiver's begin and end; the end says how it was left."""
        yield self.event("B", receiver, hook, args)
        count = self.calls_seen[receiver, hook] = self.calls_seen.get((receiver, hook), -1) + 1
        told = self.actions.get((receiver, hook, count))
        try:
            if told == "raise":
                raise _Raised("RuntimeError: told to by the scenario")
            if told == "interrupt":
                raise _Raised("KeyboardInterrupt: ")
            if told == "stop":
                self.should_stop = True
            if inside is not None and told != "skip-closure":
                yield from inside()
        except _Raised as raised:
            yield self.event("E", receiver, hook, {**args, "raised": raised.text})
            raise
        self.effects_of(hook)
        yield self.event("E", receiver, hook, args)
        return told

    def effects_of(self, hook: str) -> None:
        """What the documented default of a hook changes by its end."""
        if hook.endswith("_model_eval"):
            self.training = False
        elif hook.endswith("_model_train"):
            self.training = True
        elif hook == "optimizer_zero_grad":
            self.grads = "clear"
        elif hook == "backward":
            self.grads = "set"

    # ---- the calls of the user --------------------------------------------------------------------

    def call(self, function: str) -> Events:
        """`trainer.fit()` and its siblings: what was opened is closed, whatever happens."""
        body = self.fit if function == "fit" else lambda: self.evaluate(function)
        self.should_stop, self.opened, self.scope = False, False, function
        self.loaded = set()
        yield self.event("B", "trainer", function, {})
        try:
            yield from body()
        except _Raised as raised:
            self.training, self.grad_enabled, self.scope = True, True, function
            self.in_sanity_check = False
            yield from self.hook("on_exception")
            if self.opened:
                yield from self.hook("teardown", stage=function)
            if not raised.text.startswith("KeyboardInterrupt"):
                yield self.event("E", "trainer", function, {"raised": raised.text})
                raise
        yield self.event("E", "trainer", function, {})

    # ---- the pseudocode of fit --------------------------------------------------------------------

    def fit(self) -> Events:
        # global_rank == 0: prepare data is called on GLOBAL_ZERO only
        yield from self.hook("prepare_data")

        yield from self.configure_callbacks()

        # with parallel(devices):
        yield from self.within("train_on_device", self.train_on_device())

    def train_on_device(self) -> Events:
        # called PER DEVICE
        self.opened = True
        yield from self.hook("on_fit_start")
        yield from self.hook("setup", stage="fit")
        yield from self.hook("configure_optimizers")

        yield from self.hook("on_pretrain_routine_start")
        yield from self.hook("on_pretrain_routine_end")

        # the sanity check runs here
        yield from self.sanity_check()

        # put model in train mode
        self.training = True
        yield from self.hook("on_train_start")
        while self.another_epoch():
            yield from self.within("train_loop", self.train_loop())
            self.epoch += 1
        yield from self.hook("on_train_end")

        yield from self.hook("on_fit_end")
        self.opened = False
        yield from self.hook("teardown", stage="fit")

    def train_loop(self) -> Events:
        yield from self.hook("on_epoch_start")
        yield from self.hook("on_train_epoch_start")

        outputs = 0
        yield from self.dataloader("train")
        batches = self.limited("train", self.s.data.train or 0)
        for batch_idx in range(batches):
            where: dict[str, Any] = {"batch": f"train/0/{batch_idx}", "batch_idx": batch_idx}
            skip = yield from self.hook("on_train_batch_start", **where, dataloader_idx=0)
            if skip == "return-minus-1":
                break

            yield from self.transfer(where["batch"], 0)

            output = yield from self.optimizer_block(where)

            yield from self.hook("on_train_batch_end", outputs=output, **where, dataloader_idx=0)
            outputs += output != "none"  # None went on with the next batch

            if self.should_check_val(batch_idx, batches):
                yield from self.within("val_loop", self.val_loop())
            self.step += 1
            if self.may_stop() or self.steps_are_done():
                break
        # end training epoch
        if self.s.defines("training_epoch_end"):
            yield from self.hook("training_epoch_end", outputs=f"list:{outputs}")

        yield from self.hook("on_train_epoch_end")
        yield from self.hook("on_epoch_end")
        if self.s.model.scheduler == "epoch":
            yield from self.span("scheduler", "step", None, {})

    def val_loop(self, at_most: int | None = None) -> Events:
        yield from self.hook("on_validation_model_eval")  # calls `model.eval()`
        self.grad_enabled = False

        yield from self.hook("on_validation_start")
        yield from self.hook("on_epoch_start")
        yield from self.hook("on_validation_epoch_start")

        yield from self.evaluation("validation", "val", at_most)

        yield from self.hook("on_validation_epoch_end")
        yield from self.hook("on_epoch_end")
        yield from self.hook("on_validation_end")

        # set up for train
        yield from self.hook("on_validation_model_train")  # calls `model.train()`
        self.grad_enabled = True

    # ---- the lines between, where the pseudocode names a thing ------------------------------------

    def configure_callbacks(self) -> Events:
        """What it returns extends the trainer's list, and replaces those of the same type [R14]."""
        yield from self.hook("configure_callbacks")
        given, own = self.s.callbacks, self.s.model.callbacks
        kept = [] if "same" in own else self.callbacks[:given]
        self.callbacks = kept + [f"callback:{given + i}" for i in range(len(own))]

    def transfer(self, batch: str, dataloader_idx: int) -> Events:
        for hook in ("on_before_batch_transfer", "transfer_batch_to_device", "on_after_batch_transfer"):
            yield from self.hook(hook, batch=batch, dataloader_idx=dataloader_idx)

    def dataloader(self, stage: str) -> Events:
        """`train_dataloader()` and its siblings: not reloaded, so called where first needed [R24]."""
        if self.s.data.source != "argument" and stage not in self.loaded:
            yield from self.hook(f"{stage}_dataloader")
        self.loaded.add(stage)

    def optimizer_block(self, where: dict[str, Any]) -> Events:
        """training_step to optimizer_step: the step's span encloses its closure's [R1]."""
        self.output, self.stepped = "none", False
        if self.s.model.optimizer == "none":  # fit runs without any optimizer [R25]
            yield from self.training_step(where)
            return self.output
        closure = lambda: self.closure(where)  # noqa: E731
        step = lambda: self.optimizer_update(closure)  # noqa: E731
        yield from self.hook(
            "optimizer_step", step, batch_idx=where["batch_idx"], epoch=self.epoch, optimizer_idx=0
        )
        self.withheld = False
        if self.stepped and self.s.model.scheduler == "step":
            yield from self.span("scheduler", "step", None, {})  # after an optimizer update [R16]
        return self.output

    def optimizer_update(self, closure: Callable[[], Events]) -> Events:
        """`optimizer.step(closure)`: the parameters change at its end, if there were gradients."""
        yield self.event("B", "optimizer", "step", {})
        try:
            yield from closure()
        except _Raised as raised:
            yield self.event("E", "optimizer", "step", {"raised": raised.text})
            raise
        self.updates += self.stepped
        yield self.event("E", "optimizer", "step", {})

    def closure(self, where: dict[str, Any]) -> Events:
        told = yield from self.training_step(where)
        if told == "return-none":  # no zero_grad, backward or parameter change for this batch [R9]
            self.withheld = True  # how a trainer keeps the optimizer from a change is its own affair
            return

        yield from self.hook("on_before_zero_grad")
        yield from self.hook(
            "optimizer_zero_grad", batch_idx=where["batch_idx"], epoch=self.epoch, optimizer_idx=0
        )

        yield from self.hook("on_before_backward")
        yield from self.hook("backward", optimizer_idx=0)
        yield from self.hook("on_after_backward")

        yield from self.hook("on_before_optimizer_step", optimizer_idx=0)
        self.stepped = True

    def training_step(self, where: dict[str, Any]) -> Events:
        told = yield from self.hook("training_step", **where)
        self.output = "none" if told == "return-none" else self.s.model.returns
        if self.s.defines("training_step_end"):
            yield from self.hook("training_step_end", outputs=self.output)
        return told

    def sanity_check(self) -> Events:
        """A val_loop of at most num_sanity_val_steps batches of each loader [R5]."""
        steps = self.s.option("num_sanity_val_steps")
        if steps == 0 or self.s.option("fast_dev_run") or not self.validates():
            return
        yield from self.hook("on_sanity_check_start")
        self.in_sanity_check = True
        yield from self.within("val_loop", self.val_loop(None if steps == -1 else steps))
        self.in_sanity_check = False
        yield from self.hook("on_sanity_check_end")

    def evaluation(self, name: str, stage: str, at_most: int | None = None) -> Events:
        """The batches of a val_loop or its siblings, and its epoch_end."""
        yield from self.dataloader(stage)
        several = len(self.s.loaders(stage)) > 1
        form = "tensor" if name == "predict" else self.s.model.eval_returns or self.s.model.returns
        kept = []
        for index, batches in enumerate(self.s.loaders(stage)):
            batches = self.limited(stage, batches)
            kept.append(0)
            for batch_idx in range(batches if at_most is None else min(batches, at_most)):
                where: dict[str, Any] = {"batch": f"{stage}/{index}/{batch_idx}", "batch_idx": batch_idx}
                yield from self.hook(f"on_{name}_batch_start", **where, dataloader_idx=index)

                yield from self.transfer(where["batch"], index)

                step = {**where, "dataloader_idx": index} if several else where
                told = yield from self.hook(STEP_OF[name], **step)
                output = "none" if told == "return-none" else form
                if self.s.defines(f"{name}_step_end"):
                    yield from self.hook(f"{name}_step_end", outputs=output)

                yield from self.hook(f"on_{name}_batch_end", outputs=output, **where, dataloader_idx=index)
                kept[-1] += output != "none" or name == "predict"
        lists = f"lists:{','.join(map(str, kept))}" if several or name == "predict" else f"list:{kept[0]}"
        if name == "predict":
            yield from self.hook("on_predict_epoch_end", results=lists)
        elif self.s.defines(f"{name}_epoch_end"):
            yield from self.hook(f"{name}_epoch_end", outputs=lists)

    # ---- validate, test, predict, in the manner of the pseudocode ---------------------------------

    def evaluate(self, function: str) -> Events:
        yield from self.hook("prepare_data")
        yield from self.configure_callbacks()
        self.opened = True
        yield from self.hook("setup", stage=function)
        loop, scope = {
            "validate": (self.val_loop, "val_loop"),
            "test": (self.test_loop, "test_loop"),
            "predict": (self.predict_loop, "predict_loop"),
        }[function]
        yield from self.within(scope, loop())
        self.opened = False
        yield from self.hook("teardown", stage=function)

    def test_loop(self) -> Events:
        yield from self.hook("on_test_model_eval")
        self.grad_enabled = False

        yield from self.hook("on_test_start")
        yield from self.hook("on_epoch_start")
        yield from self.hook("on_test_epoch_start")

        yield from self.evaluation("test", "test")

        yield from self.hook("on_test_epoch_end")
        yield from self.hook("on_epoch_end")
        yield from self.hook("on_test_end")

        yield from self.hook("on_test_model_train")
        self.grad_enabled = True

    def predict_loop(self) -> Events:
        yield from self.hook("on_predict_model_eval")
        self.grad_enabled = False

        yield from self.hook("on_predict_start")
        yield from self.hook("on_predict_epoch_start")

        yield from self.evaluation("predict", "predict")

        yield from self.hook("on_predict_end")

        yield from self.hook("on_predict_model_train")
        self.grad_enabled = True

    # ---- when -------------------------------------------------------------------------------------

    def limited(self, stage: str, batches: int) -> int:
        """How many of a loader's batches are used."""
        limit = self.s.option(f"limit_{stage}_batches")
        if self.s.option("fast_dev_run"):
            limit = int(self.s.option("fast_dev_run"))
        return min(batches, limit) if isinstance(limit, int) else int(batches * limit)

    def validates(self) -> bool:
        wanted = self.s.option("limit_val_batches") != 0
        return wanted and bool(self.s.loaders("val")) and self.s.defines("validation_step")

    def should_check_val(self, batch_idx: int, batches: int) -> bool:
        """Every val_check_interval batches of every check_val_every_n_epoch-th epoch, and before a
        stop that somebody asked for [R26]."""
        if not self.validates() or (self.epoch + 1) % self.s.option("check_val_every_n_epoch"):
            return False
        if self.may_stop(running=1):
            return True
        interval = self.s.option("val_check_interval")
        if interval == 1.0 and isinstance(interval, float):
            return batch_idx + 1 == batches
        every = interval if isinstance(interval, int) else max(1, int(batches * interval))
        return (batch_idx + 1) % every == 0

    def steps_are_done(self) -> bool:
        most = int(self.s.option("fast_dev_run")) or self.s.option("max_steps")
        return most != -1 and self.step >= most

    def another_epoch(self) -> bool:
        most = 1 if self.s.option("fast_dev_run") else self.s.option("max_epochs")
        if most != -1 and self.epoch >= most:
            return False
        if self.steps_are_done() or self.s.option("limit_train_batches") == 0:
            return False
        return not self.may_stop()

    def may_stop(self, running: int = 0) -> bool:
        """Asked to stop, and min_epochs and min_steps are met; `running` steps are not counted yet."""
        minima_met = self.epoch >= self.s.option("min_epochs") and self.step + running >= self.s.option(
            "min_steps"
        )
        return self.should_stop and bool(minima_met)


STAGE_OF = {
    "train_loop": "training",
    "val_loop": "validating",
    "test_loop": "testing",
    "predict_loop": "predicting",
}
STEP_OF = {"validation": "validation_step", "test": "test_step", "predict": "predict_step"}


def expected(scenario: Scenario) -> Iterator[Expected]:
    """The events of a trace that keeps the contract, in order."""
    oracle = _Oracle(scenario)
    for function in scenario.calls:
        try:
            yield from oracle.call(function)
        except _Raised:
            return
