"""The oracle's mechanics: receivers, spans, effects, and the state they are made of.

`pseudocode.py` writes the documentation's functions with these words. Nothing is recorded from a
trainer, and nothing is shared with one. Where the text is silent, the rule applied is a row of
`docs/interpretations.md`, named as [R<n>].
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from typing import Any, NamedTuple

from ..experiment import STEPS, TRAINER_DEFAULTS, Scenario
from ..hooks import CALLBACK_HOOKS, CHECKPOINTS, DATA_HOOKS, LOADERS, MODULE_HOOKS, TRANSFERS
from ..numerics import Numbers, about, parts
from .logged import Logged
from .outputs import Output, form_of, leaves

__all__ = ["CALLBACK_ONLY", "LOOKS_AT_RATES", "OWN_WORDS", "Events", "Expected", "Oracle", "UserError"]


class Expected(NamedTuple):
    """One event: the begin or end of a span, with the arguments and effects the contract fixes."""

    ph: str
    receiver: str
    hook: str
    args: dict[str, Any]
    fx: dict[str, Any]
    scope: str  # the function of the pseudocode it is a line of
    rank: int = 0  # of the process


Events = Generator[Expected, None, Any]

# Receivers: a hook goes to the callbacks in their order, then to the module [R14], but for these, and the data's.
MODULE_ONLY = frozenset(MODULE_HOOKS) - {*CALLBACK_HOOKS, *DATA_HOOKS}
CALLBACK_ONLY = frozenset(CALLBACK_HOOKS) - {*MODULE_HOOKS}

KEYS: tuple[list[str], list[str]] = [], ["extra", "loss"]  # of outputs that are no dict, and of a dict

STAGE_OF = {
    "train_loop": "training",
    "val_loop": "validating",
    "test_loop": "testing",
    "predict_loop": "predicting",
}

LOOKS_AT_RATES = {"on_train_epoch_start": "epoch", "on_train_batch_start": "step"}  # LearningRateMonitor, a callback

OWN_WORDS = "*"  # what is raised where the trainer refuses to go on: it chooses the words


class UserError(Exception):
    """An exception of the user's code on its way out; `text` is what the trace says of it."""

    def __init__(self, text: str) -> None:
        self.text = text


class Oracle:
    """The state that the contract lets a user observe, and what a line of the pseudocode does to it."""

    closing_hooks = frozenset({"on_exception", "teardown"})  # everybody receives these, even if another's raises
    log_type = Logged
    remembers_stop = False  # whether a request to stop outlasts the call in which it came
    absent: frozenset[str] = frozenset()  # hooks that the contract does not have

    @classmethod
    def leaves_open(cls, scenario: Scenario) -> str:
        """What of a scenario the contract does not determine; empty for the documentation's."""
        return ""

    def __init__(self, scenario: Scenario, rank: int = 0) -> None:
        self.s, self.rank = scenario, rank
        self.options = _options(scenario)
        self.callbacks: list[str] = []  # of the run
        self.calls_seen: dict[tuple[str, str], int] = {}
        self.actions = {(w.receiver, w.hook, w.nth): w.do for w in scenario.when if w.rank in (-1, rank)}
        # What one process alone does: of the others it is known, too, when.
        self.done_alone = {(w.receiver, w.hook, w.nth): w.do for w in scenario.when if w.rank != -1}
        self.has_failed = False  # another process
        self.asked_alone = False  # one process, to stop, in an earlier batch than this
        self.has_met = False  # the others, in a backward of this batch
        self.epoch = self.step = self.updates = 0
        self.put_into_mode(not scenario.model.starts_in_eval)
        self.layer_into_eval()
        self.saves_weights_only = False  # in the checkpoint that is being saved
        self.thawed = False  # whether parameters require gradients that did not
        self.made_thawed = False  # whether they did as the optimizers were made
        self.grad_enabled = True
        self.grads, self.withheld = ["none"] * scenario.model.optimizers, False
        self.attached = False  # whether there are optimizers yet
        self.everybody = list(range(scenario.model.optimizers))
        self.optimizer_idx: int | None = None  # of the block that runs
        self.frequencies = scenario.model.frequencies if scenario.model.optimizers > 1 else ()
        self.turn = 0  # windows of the cycle of frequencies so far
        self.updating = True  # whether the batch that runs is followed by an update
        self.owners: list[int] = []  # the optimizers that train in this window
        self.is_empty: set[int] = set()  # those whose window has no gradients yet
        self.hiddens: dict[int, str] = {}  # what each optimizer's step is handed, by truncated_bptt_steps
        self.piece: tuple[int, int] | None = None  # of the batch, from time to time
        self.part: range | None = None  # of the batch, the rows that a device has
        self.passed: dict[int, int] = {}  # updates or epochs that each optimizer's scheduler has seen
        self.due: set[int] = set()  # the optimizers whose schedulers wait for the end of the batch
        self.used: set[int] = set()  # the optimizers that had one in this epoch
        self.monitored: Iterator[float] | None = None  # by the schedulers of process 0, where this is another
        self.should_stop = False
        self.predictions: Any = None  # what predict returns
        self.returns_predictions = True
        self.status = "finished"  # what the trainer says of a call that is over
        self.loaded: dict[str, int] = {}  # in which epoch the loaders of a stage were asked for
        self.overfits = False  # whether a fit runs that validates on its training batches
        self.scope, self.called, self.in_sanity_check = "fit", "", False
        self.numbers, self.logged = self.untrained(), self.log_type()
        self.batch: str | None = None  # the one that runs
        self.outs: list[Output | None] = []  # what the step made of each part
        self.value: float | None = None  # of what it makes now
        self.output: Any = None  # of the optimizer's block that runs
        self.times_logged: dict[str, int] = {}  # by hooks that are no step
        self.in_epoch = False  # whether training batches are taken
        self.batches_done, self.uncounted = 0, 0  # in this epoch; the step of the last, if it is not counted yet
        self.epoch_outputs: list[Any] = []
        self.asked_before: dict[str, int] = {}  # as `loaded`, by the run that a checkpoint is of
        self.saved: dict[str, Any] = {}  # by the last checkpoint
        self.rated = -1  # the step whose rates were given last
        self.recalls_another = False  # process, than this, what was logged before
        self.resuming: dict[str, Any] = {}  # what a checkpoint brings, until the first epoch has begun

    def untrained(self) -> Numbers:
        """The model of a new module."""
        return Numbers(self.s, self.rank)

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
        if "batch" in args:
            args = {**args, **self.handled(hook), **self.rows_of(args["batch"])}
        if hook == "save_checkpoint" and ph == "E" and self.s.processes > 1:
            args = {**args, "writes": self.rank == 0}  # a file [R102]
        if hook in CHECKPOINTS and receiver in ("module", "datamodule"):
            # It is whole before it is written, and there comes back what they have put there, their names.
            args = {**args, **({"complete": True} if hook == "on_save_checkpoint" else {"kept": receiver})}
        if "outputs" in args:
            args = {**args, **self.held(hook, args["outputs"])}
        for name in {"outputs", "results"} & args.keys():
            args = {**args, name: form_of(args[name]), **self.numbers_in(name, args[name])}
        fx: dict[str, Any] = {
            "training": self.training,
            "submodules": "mixed" if self.has_mixed_modes else "alike",
            "grad_enabled": self.grad_enabled,
            "current_epoch": self.epoch,
            "global_step": self.step,
            "params": self.updates,
        }
        if hook in STEPS.values():
            fx["autocast"] = self.options["precision"] != 32  # [R72]
        if (ph, hook) == ("B", "on_train_end") and (self.s.model.logs or self.s.lr_monitor) and self.s.processes == 1:
            fx["experiment"] = "open"
        if not self.withheld:
            fx["grads"] = next((state for state in ("set", "clear", "zero") if state in self.grads), "none")
        if self.attached and self.s.model.optimizer != "none":
            fx["lr"] = self.numbers.rates
            if self.is_computed and not (self.withheld or self.averages_at_will or self.numbers.overflowed):
                fx["gradients"] = self.numbers.gradient_sums
        if self.attached and self.s.model.optimizer != "none":
            fx["trainable"] = self.everybody if self.optimizer_idx is None else [self.optimizer_idx]
            fx["trainable"] = [] if self.thawed and not self.made_thawed else fx["trainable"]
        if self.stage is not None:
            fx["stage"], fx["device"] = self.stage, OWN_WORDS  # whichever device, it stays there
        elif receiver == "trainer" and ph == "E" and hook != "save_checkpoint":
            fx["stage"] = None  # it does nothing any more
        if self.s.model.logs:  # nobody else knows what a module of the user's own logs
            known = sorted(self.logged.known().items())
            fx["metrics"] = [name for name, _ in known]
            fx |= {"metrics_graph": False} if known else {}
            if known and self.is_computed and not self.recalls_another:
                fx["values"] = [value for _, value in known]
        if self.options["precision"] != 32:
            rates, args = fx.pop("lr", None), {name: about(value) for name, value in args.items()}
            fx = {name: about(value) for name, value in fx.items()} | ({} if rates is None else {"lr": rates})
        return Expected(ph, receiver, hook, args, fx, self.scope, self.rank)

    @property
    def is_computed(self) -> bool:
        """Whether there is arithmetic for the losses: nobody knows what is in a shuffled batch."""
        return not self.shuffles

    @property
    def shuffles(self) -> bool:
        """Whether nobody knows which samples come when."""
        return self.s.shuffles

    @property
    def averages_at_will(self) -> bool:
        """Whether the gradients that wait for another optimizer's turn may be averaged in this one's, since it makes no
        difference in the end [R104]."""
        several = self.s.processes > 1 and self.s.model.optimizers > 1
        return several and self.window > 1

    @property
    def window(self) -> int:
        """How many batches are accumulated for an update in this epoch."""
        return self.s.window(self.epoch)

    def handled(self, hook: str) -> dict[str, bool]:
        """What was done to a batch before the hook got it, where its type tells."""
        done = TRANSFERS.index(hook) if hook in TRANSFERS else 0 if hook.endswith("_batch_start") else len(TRANSFERS)
        marks = {"before_transfer": done > 0, "moved": done > 1, "after_transfer": done > 2}
        told = {"custom": tuple(marks), "nested": ("moved",)}.get(self.s.data.batch, ())
        return {mark: marks[mark] for mark in told}

    def numbers_in(self, name: str, outputs: Any) -> dict[str, Any]:
        """Which outputs they are, by their numbers, in order."""
        numbers = [each.value for each in leaves(outputs) if each.value is not None]
        return {f"{name}_values": numbers} if self.is_computed else {}

    def held(self, hook: str, outputs: Any) -> dict[str, Any]:
        """What is in outputs that are there: everything that the step or its end has returned, detached [R34]."""
        stage = next(word for word in ("train", "validation", "test", "predict") if word in hook)
        name = "training" if stage == "train" else stage
        is_empty = not any(leaves(outputs))
        # Nothing says whether the hidden states of pieces are among them.
        if hook.endswith("_step_end") or is_empty or (stage == "train" and self.s.model.truncated_bptt_steps):
            return {}
        form = "tensor" if stage == "predict" else self.s.model.returns
        if stage in ("validation", "test"):
            form = self.s.model.eval_returns or form
        is_dict = (form == "dict") != self.s.defines(f"{name}_step_end")
        return {"outputs_keys": KEYS[is_dict], "outputs_graph": False}

    def rows_of(self, batch: str) -> dict[str, Any]:
        """With DP, the rows of the batch that a hook is given: those of a part, or all. With DDP, the samples that
        this process has of it."""
        if self.s.processes > 1 or self.s.shuffles:
            return {"samples": self.numbers.samples_of(batch)}
        rows = range(self.numbers.size(batch)) if self.part is None else self.part
        return {"rows": list(rows)} if self.s.data_parallel else {}

    def receivers(self, hook: str) -> list[str]:
        """Who receives the hook, in order."""
        if hook in CALLBACK_ONLY:
            return self.callbacks
        if hook in LOADERS or hook in TRANSFERS:
            return ["datamodule" if self.s.data.source == "datamodule" else "module"]
        if hook == "on_save_checkpoint":
            return [*self.told_of_saving, *self.datamodule(), "module"]
        if hook == "prepare_data":
            return self.preparing()
        if hook == "on_load_checkpoint":
            return [*self.datamodule(), "module"]
        if hook in {"setup", "teardown"}:
            return [*self.datamodule(), *self.callbacks, "module"]
        return ["module"] if hook in MODULE_ONLY else [*self.callbacks, "module"]

    @property
    def told_of_saving(self) -> list[str]:
        """The callbacks that a checkpoint holds: one of the weights only holds none."""
        return [] if self.saves_weights_only else self.callbacks

    @property
    def prepares(self) -> bool:
        """Whether this process prepares data: the first, and of each other node the first unless once is enough."""
        return self.rank == 0 or (self.is_local_zero and self.s.model.prepare_data_per_node)

    @property
    def is_local_zero(self) -> bool:
        """Whether this process is the first of its node."""
        return bool(self.rank % self.s.option("devices") == 0)

    def preparing(self) -> list[str]:
        """Those whose prepare_data this process calls: all, if none wants it once in all."""
        return [*self.datamodule(), "module"] if self.prepares else []

    def put_into_mode(self, training: bool) -> None:
        """`model.train()` or `model.eval()`, which every submodule follows."""
        self.training, self.has_mixed_modes = training, False

    def layer_into_eval(self) -> None:
        """What the scenario's module does with its first layer."""
        self.has_mixed_modes = self.s.model.layer_in_eval and self.training

    def thaw(self) -> None:
        """The module releases the biases, from the second epoch on."""
        self.thawed = self.s.model.thaws and self.epoch > 0
        self.numbers.frozen = self.s.model.frozen and not self.thawed

    def nothing_logged(self) -> None:
        """A run begins anew."""
        self.logged, self.batch = self.log_type(), None

    def hand_to_loggers(self) -> None:
        """A batch is done: with accumulation, the last of its window; and none of the sanity check [R106]."""
        if not self.in_sanity_check:
            self.logged.batch_done(self.scope != "train_loop" or self.updating)

    def looks_at_rates(self, hook: str) -> bool:
        """LearningRateMonitor does as an epoch begins, and as a step does: once, also where its batch was skipped."""
        before, at_step = self.rated, hook == "on_train_batch_start"
        self.rated = self.step if at_step else before
        return hook in LOOKS_AT_RATES and not (at_step and before == self.step)

    def follows_rates(self, receiver: str) -> bool:
        """Whether LearningRateMonitor, the last of the callbacks that the trainer is given, comes before it."""
        return receiver == "module"

    def rates(self, interval: str) -> dict[str, float]:
        """The rates of the optimizers whose schedulers step in it, by the lr_dict's name or the class's [R109]."""
        kind = {"adam": "Adam", "lbfgs": "LBFGS"}.get(self.s.model.optimizer, "SGD")
        rates = [each for each in enumerate(self.numbers.rates) if self.s.model.interval(each[0]) == interval]
        if own := self.s.model.scheduler_name:
            return {own + (str(index) if self.s.model.optimizers > 1 else ""): rate for index, rate in rates}
        return {f"lr-{kind}" + (f"-{index}" if index else ""): rate for index, rate in rates}

    def hand_rates(self, rates: dict[str, float]) -> None:
        """LearningRateMonitor gives them to the loggers, as an epoch or a step begins."""
        self.logged.hand_on(rates)

    def last_batch(self) -> None:
        """A pass has seen its last batch."""
        self.batch = None
        self.logged.last_batch()

    def datamodule(self) -> list[str]:
        return ["datamodule"] if self.s.data.source == "datamodule" else []

    def hook(self, name: str, inside: Callable[[], Events] | None = None, **args: Any) -> Events:
        """Call a hook on everybody; `inside` happens between its begin and its end. Returns what the
        module was told to return, if anything."""
        told = first = None
        rates_are_due = self.s.lr_monitor and self.looks_at_rates(name)
        for receiver in self.receivers(name):
            if rates_are_due and self.follows_rates(receiver):
                rates_are_due = False
                self.hand_rates(self.rates(LOOKS_AT_RATES[name]))
            try:
                told = yield from self.span(receiver, name, inside, args)
            except UserError as raised:
                if name not in self.closing_hooks:
                    raise
                first = first or raised
        if first is not None:
            raise first
        if name == "configure_optimizers":
            self.made_thawed = self.thawed
        return told

    def span(self, receiver: str, hook: str, inside: Callable[[], Events] | None, args: dict[str, Any]) -> Events:
        """One receiver's begin and end; the end says how it was left."""
        self.batch = args.get("batch", self.batch)
        if hook == "on_before_optimizer_step":
            self.numbers.unscale(self.optimizer_idx or 0)
        yield self.event("B", receiver, hook, args)
        count = self.calls_seen[receiver, hook] = self.calls_seen.get((receiver, hook), -1) + 1
        told = self.actions.get((receiver, hook, count))
        alone = self.done_alone.get((receiver, hook, count))
        self.has_failed = self.has_failed or (alone == "raise" and told is None)
        try:
            if self.has_failed and hook == "backward" and self.updating:  # where gradients would be averaged
                self.withheld = True  # nobody says what gradients there are then
                raise UserError(OWN_WORDS)
            if told == "raise":
                raise UserError("RuntimeError: told to by the scenario")
            if told == "interrupt":
                raise UserError("KeyboardInterrupt: ")
            if (told == "stop" and alone is None) or (alone == "stop" and hook != "on_train_batch_end"):
                self.should_stop = True  # one alone that asks elsewhere is heard there [R102]
            if receiver == "module":
                self.log(hook)
            if (receiver, hook) == ("module", "on_train_epoch_start"):
                self.layer_into_eval()
                self.thaw()
            if inside is not None and told != "skip-closure":
                yield from inside()
            yield from self.react(receiver, hook, args)
            if told == "save":
                yield from self.save()
        except UserError as raised:
            yield self.event("E", receiver, hook, {**args, "raised": raised.text})
            raise
        self.effects_of(hook)
        if receiver.startswith("scheduler"):
            self.numbers.schedule(int(receiver.partition(":")[2] or 0), args.get("value"))
        if self.is_computed and (hook in STEPS.values() or hook.endswith("_step_end")):
            args = {**args, "returned": [] if self.value is None or told == "return-none" else [self.value]}
        yield self.event("E", receiver, hook, args)
        return told

    def react(self, receiver: str, hook: str, args: dict[str, Any]) -> Events:
        """What a ready-made callback does in this hook."""
        yield from ()

    def save(self) -> Events:
        """`trainer.save_checkpoint()`, which the pseudocode knows."""
        raise NotImplementedError

    def decides(self, own: float) -> float:
        """The value that schedulers react to, of which a process has its own."""
        raise NotImplementedError

    def log(self, hook: str) -> None:
        """What the module logs first in this hook [R39]: a step its loss, another hook how often it has logged."""
        logs = [log for log in self.s.model.logs if log.hook == hook]
        if not logs:
            return
        count = self.times_logged[hook] = self.times_logged.get(hook, -1) + 1
        loader = self.loader_to_name()
        # A batch of the user's own type has no size that could be read off it.
        size = self.numbers.size(self.batch) if self.batch and self.s.data.batch != "custom" else 1
        if self.part is None:
            self.logged.take_batch()
        else:
            size = len(self.part)
        for log in logs:
            together = log.sync_dist and self.s.processes > 1  # what all processes log is together the batch's [R103]
            for rank in range(self.s.processes) if together else (self.rank,):
                part = self.numbers.share_of(self.batch, rank) if together and self.batch else self.part
                is_step = hook in STEPS.values()
                value = self.numbers.loss(str(self.batch), self.piece, part) if is_step else log.nth(count)
                weight = len(self.numbers.rows(str(self.batch))) if log.metric else size
                self.logged.log(log, value, weight if part is None else len(part), loader, rank == self.rank)

    def loader_to_name(self) -> int | None:
        """The loader whose number becomes part of a name that is logged: where an evaluation has several."""
        stage, loader, _ = parts(self.batch)[0] if self.batch else ("train", 0, 0)
        return loader if stage != "train" and len(self.s.loaders(stage)) > 1 else None

    def effects_of(self, hook: str) -> None:
        """What the documented default of a hook changes by its end."""
        if hook.endswith("_model_eval"):
            self.put_into_mode(False)
        elif hook.endswith("_model_train"):
            self.put_into_mode(True)
        elif hook == "optimizer_zero_grad":
            idx, kept = self.optimizer_idx or 0, "zero-grads" in self.s.model.overrides
            self.grads[idx] = ("none" if self.grads[idx] == "none" else "zero") if kept else "clear"
            self.numbers.zero_grad(idx)
        elif hook == "backward":
            idx = self.optimizer_idx or 0
            self.has_met = self.has_met or self.updating
            times = 2 if "twice-backward" in self.s.model.overrides else 1
            divided_by = self.window / times
            self.numbers.backward(str(self.batch), idx, divided_by, self.piece, self.updating)
            self.grads[idx] = "set" if any(self.numbers.own[idx] or ()) or not self.is_computed else "zero"


def _options(scenario: Scenario) -> dict[str, Any]:
    """The trainer's options; overfit_batches limits the training [R62], and fast_dev_run=n sets all that say how long
    and how often."""
    options = {name: scenario.option(name) for name in TRAINER_DEFAULTS}
    options["limit_train_batches"] = options["overfit_batches"] or options["limit_train_batches"]
    batches = int(options["fast_dev_run"])
    if batches:
        limits = {f"limit_{stage}_batches": batches for stage in ("train", "val", "test", "predict")}
        often = {"val_check_interval": 1.0, "check_val_every_n_epoch": 1, "num_sanity_val_steps": 0}
        options.update(**limits, **often, max_epochs=1, max_steps=batches)
    return options
