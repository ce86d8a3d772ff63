"""The state that the contract lets a user observe, and the events that show it.

What changes it is in `oracle.py`. Where the text is silent, the rule applied is a row of `docs/interpretations.md`,
named as [R<n>].
"""

from __future__ import annotations

from collections.abc import Generator
from typing import Any, NamedTuple

from ..experiment import STEPS, TRAINER_DEFAULTS, Scenario
from ..hooks import CHECKPOINTS, EPOCH_ENDS, TRANSFERS
from ..numerics import OWN_WORDS, Numbers, about
from .logged import Logged, on_bar
from .outputs import Output, form_of, leaves

__all__ = ["KEYS", "OWN_WORDS", "Events", "Expected", "State"]


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

KEYS: tuple[list[str], list[str]] = [], ["extra", "loss"]  # of outputs that are no dict, and of a dict

STAGE_OF = {
    "train_loop": "training",
    "val_loop": "validating",
    "test_loop": "testing",
    "predict_loop": "predicting",
}


class State:
    """Of one process, as it stands at an event."""

    log_type = Logged
    has_closures = True  # or the trainer gives its optimizers none

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
        self.put: list[str] = []  # the callbacks that have put something into the checkpoint that was saved last
        self.found: list[str] = []  # likewise, into the one that is loaded
        self.is_frozen = self.released = False  # by `freeze`; by `unfreeze`, what the module had frozen itself
        self.thawed = False  # whether parameters require gradients that did not
        self.made_thawed = False  # whether they did as the optimizers were made
        self.grad_enabled: bool | None = True  # None: as the caller of fit has it
        self.grads, self.withheld = ["none"] * scenario.model.optimizers, False
        self.attached = False  # whether there are optimizers yet
        self.everybody = list(range(scenario.model.optimizers))
        self.optimizer_idx: int | None = None  # of the block that runs
        self.frequencies = [times or 1 for times in scenario.model.frequencies if scenario.model.optimizers > 1]
        self.turn = 0  # windows of the cycle of frequencies so far
        self.updating = True  # whether the batch that runs is followed by an update
        self.owners: list[int] = []  # the optimizers that train in this window
        self.is_empty: set[int] = set()  # those whose window has no gradients yet
        self.hiddens: dict[int, str] = {}  # what each optimizer's step is handed, by truncated_bptt_steps
        self.piece: tuple[int, int] | None = None  # of the batch, from time to time
        self.part: range | None = None  # of the batch, the rows that a device has
        self.passed: dict[int, int] = {}  # updates or epochs that each scheduler has seen
        self.due: set[int] = set()  # the schedulers that wait for the end of the batch
        self.used: set[int] = set()  # the optimizers that had one in this epoch
        self.looks: list[dict[str, float]] = []  # what was looked at, and nobody has been told
        self.should_stop = False
        self.predictions: Any = None  # what predict returns
        self.returns_predictions = True
        self.status = "finished"  # what the trainer says of a call that is over
        self.loaded: dict[str, int] = {}  # in which epoch the loaders of a stage were asked for
        self.asked = 0  # how often a module, or its data module, was for its training loader
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

    def put_into_mode(self, training: bool) -> None:
        """`model.train()` or `model.eval()`, which every submodule follows."""
        self.training, self.has_mixed_modes = training, False

    def layer_into_eval(self) -> None:
        """What the scenario's module does with its first layer."""
        self.has_mixed_modes = self.s.model.layer_in_eval and self.training

    def thaw(self) -> None:
        """The module releases the biases, from the second epoch on."""
        self.thawed = self.released or (self.s.model.thaws and self.epoch > 0)
        self.numbers.frozen = self.s.model.frozen and not self.thawed

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
            found = {"complete": True} if hook == "on_save_checkpoint" else {"kept": receiver, "found": self.found}
            args = {**args, **found}
        if "outputs" in args:
            args = {**args, **self.held(hook, args["outputs"])}
        for name in {"outputs", "results"} & args.keys():
            args = {**args, name: form_of(args[name]), **self.numbers_in(name, args[name])}
        fx: dict[str, Any] = {
            "training": self.training,
            "submodules": "mixed" if self.has_mixed_modes else "alike",
            "current_epoch": self.epoch,
            "global_step": self.step,
            "params": self.updates,
        }
        if self.grad_enabled is not None and (self.scope in STAGE_OF or not self.s.no_grad):
            fx["grad_enabled"] = self.grad_enabled
        if hook in STEPS.values():
            fx["autocast"] = self.options["precision"] != 32  # [R72]
        if (ph, hook) == ("B", "on_train_end") and self.s.has_logger and self.s.processes == 1:
            fx["experiment"] = "open"
        if (ph, receiver, hook) == ("B", "module", "setup"):
            fx |= self.properties()
        if not self.withheld:
            fx["grads"] = next((state for state in ("set", "clear", "zero") if state in self.grads), "none")
        if self.attached and self.s.model.optimizer != "none":
            rates = self.numbers.rates
            fx["lr"] = [rate for rate in rates for _ in range(2)] if self.s.model.groups else rates  # of each group
            if self.is_computed and not (self.withheld or self.averages_at_will or self.numbers.overflowed):
                fx["gradients"] = self.numbers.gradient_sums
        if self.attached and self.s.model.optimizer != "none":
            fx["trainable"] = self.everybody if self.optimizer_idx is None else [self.optimizer_idx]
            fx["trainable"] = [] if self.is_frozen or (self.thawed and not self.made_thawed) else fx["trainable"]
        if self.stage is not None:
            fx["stage"], fx["device"] = self.stage, OWN_WORDS  # whichever device, it stays there
        elif receiver == "trainer" and ph == "E" and hook != "save_checkpoint":
            fx["stage"] = None  # it does nothing any more
        if self.s.model.logs:  # nobody else knows what a module of the user's own logs
            known = sorted(self.logged.known().items())
            fx["metrics"] = [name for name, _ in known]
            if ph == "B" and hook in EPOCH_ENDS and any(log.prog_bar for log in self.s.model.logs):
                fx["bar"] = on_bar(self.s.model.logs, fx["metrics"])
            if known and not (self.s.resumes and any(log.enable_graph for log in self.s.model.logs)):
                fx["metrics_graph"] = self.keep_graph([name for name, _ in known])
            if known and self.is_computed and not self.recalls_another:
                fx["values"] = [value for _, value in known]
        if self.options["precision"] != 32:
            rates, args = fx.pop("lr", None), {name: about(value) for name, value in args.items()}
            fx = {name: about(value) for name, value in fx.items()} | ({} if rates is None else {"lr": rates})
        return Expected(ph, receiver, hook, args, fx, self.scope, self.rank)

    def properties(self) -> dict[str, Any]:
        """What the module says of its run."""
        told = {"precision": self.options["precision"], "use_amp": self.options["precision"] != 32}
        ranks = {"global_rank": self.rank, "local_rank": self.rank % self.options["devices"]}
        return told | (ranks if self.s.recorded > 1 else {})

    def keep_graph(self, names: list[str]) -> bool:
        """Whether some of the metrics can be differentiated; which can that a checkpoint brings back, nothing says.
        What processes bring together cannot [R103]."""
        graphs = [log.name for log in self.s.model.logs if log.enable_graph and not self.s.comes_together(log)]
        return any(name in (log, f"{log}_step", f"{log}_epoch") for log in graphs for name in names)

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
        """What is in outputs: everything that the step or its end has returned, detached [R34]; in what a step hands to
        its own end, as it is."""
        stage = next(word for word in ("train", "validation", "test", "predict") if word in hook)
        name = "training" if stage == "train" else stage
        if not any(leaves(outputs)):
            return {"outputs_keys": [], "outputs_graph": False}
        form = "tensor" if stage == "predict" else self.s.model.returns
        if stage in ("validation", "test"):
            form = self.s.model.eval_returns or form
        of_step = hook.endswith("_step_end")
        is_dict = (form == "dict") != (self.s.defines(f"{name}_step_end") and not of_step)
        hiddens = ["hiddens"] * (stage == "train" and self.s.model.truncated_bptt_steps > 0)
        keys = sorted([*KEYS[is_dict], *hiddens]) if is_dict else []
        return {"outputs_keys": keys, "outputs_graph": of_step and stage == "train"}

    def rows_of(self, batch: str) -> dict[str, Any]:
        """With DP, the rows of the batch that a hook is given: those of a part, or all. With DDP, the samples that
        this process has of it."""
        if self.s.processes > 1 or self.s.shuffles:
            return {"samples": self.numbers.samples_of(batch)}
        rows = range(self.numbers.size(batch)) if self.part is None else self.part
        return {"rows": list(rows)} if self.s.data_parallel else {}


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
