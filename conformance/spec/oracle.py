"""The oracle's mechanics: receivers, and spans, whose events show the state (state.py).

`pseudocode.py` writes the documentation's functions with these words. Nothing is recorded from a
trainer, and nothing is shared with one. Where the text is silent, the rule applied is a row of
`docs/interpretations.md`, named as [R<n>].
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..experiment import STEPS, Scenario
from ..hooks import CALLBACK_HOOKS, DATA_HOOKS, LOADERS, MODULE_HOOKS, TRANSFERS
from ..numerics import parts
from ..scenario_module import Log
from .state import OWN_WORDS, Events, State

__all__ = ["CALLBACK_ONLY", "LOOKS_AT_RATES", "Oracle", "UserError"]

# Receivers: a hook goes to the callbacks in their order, then to the module [R14], but for these, and the data's.
MODULE_ONLY = frozenset(MODULE_HOOKS) - {*CALLBACK_HOOKS, *DATA_HOOKS}
CALLBACK_ONLY = frozenset(CALLBACK_HOOKS) - {*MODULE_HOOKS}

LOOKS_AT_RATES = {"on_train_epoch_start": "epoch", "on_train_batch_start": "step"}  # LearningRateMonitor, a callback


class UserError(Exception):
    """An exception of the user's code on its way out; `text` is what the trace says of it."""

    def __init__(self, text: str) -> None:
        self.text = text


class Oracle(State):
    """What a line of the pseudocode does to the state, whose hooks it calls, and what becomes known by that."""

    closing_hooks = frozenset({"on_exception", "teardown"})  # everybody receives these, even if another's raises
    remembers_stop = False  # whether a request to stop outlasts the call in which it came
    absent: frozenset[str] = frozenset()  # hooks that the contract does not have

    @classmethod
    def leaves_open(cls, scenario: Scenario) -> str:
        """What of a scenario the contract does not determine; empty for the documentation's."""
        return ""

    # ---- what every line of the pseudocode is made of ---------------------------------------------

    def within(self, scope: str, lines: Events) -> Events:
        """`lines`, as lines of the function named `scope`."""
        outer, self.scope = self.scope, scope
        yield from lines
        self.scope = outer

    def receivers(self, hook: str) -> list[str]:
        """Who receives the hook, in order."""
        if hook in CALLBACK_ONLY:
            return self.callbacks
        if hook in LOADERS and self.s.data.source == "train-datamodule" and hook != "train_dataloader":
            return ["module"]
        if hook in TRANSFERS and hook not in self.s.data.transfers:
            return ["module"]
        if hook in LOADERS or hook in TRANSFERS:
            return self.datamodule() or ["module"]
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

    def nothing_logged(self) -> None:
        """A run begins anew."""
        self.logged, self.batch = self.log_type(), None

    def hand_to_loggers(self) -> None:
        """A batch is done: with accumulation, the last of its window; and none of the sanity check [R106]."""
        in_training = self.scope == "train_loop"
        if not self.in_sanity_check:
            self.logged.batch_done(self.updating or not in_training, self.logger_step if in_training else OWN_WORDS)

    @property
    def logger_step(self) -> int:
        """What loggers are told of the step that runs [R112]."""
        return self.step

    @property
    def last_step(self) -> int:
        """And of the one that ran last; of none 0."""
        return max(0, self.logger_step - 1)

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
        self.logged.hand_on(rates, self.logger_step)

    def comes_last(self, batch_idx: int, batches: int) -> bool:
        """Whether it is known of a batch that no other comes in this epoch [R74]."""
        return batch_idx + 1 == batches

    def last_batch(self) -> None:
        """A pass has seen its last batch."""
        self.batch = None
        self.logged.last_batch()

    def properties(self) -> dict[str, Any]:
        return {**super().properties(), "datamodule": bool(self.datamodule())}

    def datamodule(self) -> list[str]:
        """The one that takes part in the call, if any."""
        return ["datamodule"] if self.s.data.given_to(self.called) == "datamodule" else []

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
        elif name == "on_save_checkpoint":
            self.put = sorted(self.told_of_saving)
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

    def decisive(self) -> dict[str, float]:
        """What was logged, for a callback or a scheduler that looks at it now."""
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
            among = log.ranks or ((0,) if log.rank_zero_only else range(self.s.processes))
            if log.at and count not in log.at:
                continue
            if self.rank not in among:
                continue
            # What all processes log is together the batch's [R103]
            together = self.s.comes_together(log)
            for rank in among if together else (self.rank,):
                part = self.numbers.share_of(self.batch, rank) if together and self.batch else self.part
                is_step = hook in STEPS.values()
                value = self.numbers.loss(str(self.batch), self.piece, part) if is_step else self.told(log, count, rank)
                value += rank if log.sync_dist and not is_step else 0  # as the module does
                weight = len(self.numbers.rows(str(self.batch))) if log.metric else size
                self.logged.log(log, value, weight if part is None else len(part), loader, rank == self.rank)

    def told(self, log: Log, count: int, rank: int) -> float:
        """What a hook that is no step logs in a process after so many calls."""
        begun = self.numbers.begun + (rank if self.numbers.apart else 0)
        return float(begun) if log.buffer else log.nth(count)

    def loader_to_name(self) -> int | None:
        """The loader whose number becomes part of a name that is logged: where an evaluation has several."""
        stage, loader, _ = parts(self.batch)[0] if self.batch else ("train", 0, 0)
        return loader if stage != "train" and len(self.s.loaders(stage)) > 1 else None

    def freeze(self, function: str) -> Events:
        """`freeze`, for inference, or `unfreeze`, for training: all parameters, and the mode."""
        yield self.event("B", "module", function, {})
        self.is_frozen = function == "freeze"
        self.released = self.s.model.frozen and not self.is_frozen
        self.thawed, self.numbers.frozen = self.released, self.numbers.frozen and not self.released
        self.put_into_mode(not self.is_frozen)
        parameters = 2 * self.s.model.optimizers - self.s.model.shared
        yield self.event("E", "module", function, {"requires_grad": 0 if self.is_frozen else parameters})

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
