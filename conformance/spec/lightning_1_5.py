"""What pytorch-lightning 1.5 does instead of what the documentation says."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..experiment import STEPS, Saving, Scenario
from ..hooks import TRANSFERS
from .callbacks import Callbacks, File
from .calls import Calls
from .lightning import OF_CALL
from .lightning_1 import Lightning1
from .lightning_logged import Logged15
from .oracle import UserError
from .state import OWN_WORDS, Events, Expected

__all__ = ["Lightning15"]

ONCE = ("prepare_data", "setup", "teardown")  # on a data module, the last two for each stage


class Lightning15(Lightning1):
    """The pseudocode of 1.5."""

    absent = frozenset({"on_predict_model_train"})

    log_type = Logged15
    axes = (2, 0, 1)
    asks_anyway = False  # for loaders, where nothing starts
    misses_loaders = True  # it is an error if there are none to evaluate on
    ends_without_outputs = False  # an epoch does so with training_epoch_end
    before_all = 0  # the number of an epoch where there was none
    leaves_unbegun = False  # an epoch without a batch, as where it is asked to stop before, is not closed
    remembers_stop = copies_settings = begins_apart = True
    gives_by_name = True  # dataloader_idx, to a hook of a training batch: not where that has *args
    logged: Logged15

    @classmethod
    def leaves_open(cls, scenario: Scenario) -> str:
        overfits = scenario.option("overfit_batches") and scenario.data.train_loaders and "predict" in scenario.calls
        return "what predict is given of several training loaders" if overfits else super().leaves_open(scenario)

    def __init__(self, scenario: Scenario, rank: int = 0) -> None:
        super().__init__(scenario, rank)
        self.lost: set[int] = set()  # optimizers whose parameters do not require gradients any more
        self.called_once: set[tuple[str, str]] = set()  # hooks of the data module, and their stages
        self.is_of_another = False  # that data module: it came with another module

    def train_on_device(self) -> Events:
        yield from self.hook("setup", stage="fit")
        yield from self.load()
        yield from self.hook("configure_optimizers")
        self.check_frequencies()
        self.configured()
        yield from self.hook("on_fit_start")
        self.restore()

        yield from self.hook("on_pretrain_routine_start")
        yield from self.hook("on_pretrain_routine_end")
        yield from self.sanity_check()

        self.put_into_mode(True)
        self.grad_enabled = True
        self.logged.begin(of_training=True)
        if self.asks_anyway or self.another_epoch():
            yield from self.dataloaders_of_fit()
        yield from self.train()
        self.logged.abandon()

        yield from self.hook("on_fit_end")
        self.opened = False
        yield from self.hook("teardown", stage="fit")

    def train(self) -> Events:
        if self.another_epoch():
            yield from self.hook("on_train_start")
            while self.another_epoch():
                yield from self.within("train_loop", self.train_loop())
                self.epoch += 1
            self.epoch = max(self.epoch - 1, self.before_all)  # the last one's number stays
            yield from self.hook("on_train_end")

    def train_loop(self) -> Events:
        yield from self.dataloader("train")
        self.made_before, self.is_empty = [], set(self.everybody)
        self.resuming, self.in_epoch, seen = {}, True, 0  # nothing of an epoch is resumed
        yield from self.hook("on_epoch_start")
        yield from self.hook("on_train_epoch_start")

        (batches,) = self.loaders("train")
        while seen < batches and not self.should_stop and not self.steps_are_done():  # whatever the minima
            where: dict[str, Any] = {"batch": self.train_batch(seen), "batch_idx": seen}
            seen, self.batches_of_all = seen + 1, self.batches_of_all + 1
            yield from self.transfer(where["batch"], 0)
            self.logged.batches_of(None, where["batch_idx"])
            skip = yield from self.hook("on_train_batch_start", **where, dataloader_idx=0)
            if skip == "return-minus-1":
                break

            self.updating, self.has_met = self.closes_window(where["batch_idx"], batches), False
            output = yield from self.optimizer_blocks(where)
            self.batches_done, self.uncounted = seen, int(self.updating)
            yield from self.step_schedulers("step", of_plateaus=False)  # when all optimizers have been stepped
            if seen == batches:
                yield from self.step_schedulers("epoch", of_plateaus=False)

            yield from self.hook("on_train_batch_end", outputs=output, **where, dataloader_idx=0)
            self.hand_to_loggers()
            self.made_before.append(self.pieces_made)

            if self.should_check_val(where["batch_idx"], batches):
                yield from self.within("val_loop", self.val_loop())
            yield from self.step_schedulers("step", of_plateaus=True)
            self.step, self.uncounted = self.step + self.uncounted, 0  # after the validation
        if not seen and self.leaves_unbegun:
            self.in_epoch = False
            return
        self.last_batch()
        if self.s.defines("training_epoch_end") and (self.made_before or self.ends_without_outputs):
            yield from self.hook("training_epoch_end", outputs=self.outputs_of_epoch())
            self.refuse_what_ends_return()

        yield from self.hook("on_train_epoch_end")
        yield from self.hook("on_epoch_end")
        if seen == batches:
            yield from self.step_schedulers("epoch", of_plateaus=True)
        self.logged.end_epoch(self.last_step)
        self.batches_done, self.in_epoch = 0, False

    def configured(self) -> None:
        """There are new optimizers, and only now is forgotten what the run before has logged."""
        self.forget_logged()
        self.logged.trained = None
        self.numbers.rates = self.untrained().rates
        if not self.resuming:
            self.numbers.configure()
        if self.optimizer_idx is not None:  # as Ctrl-C in a block has left it
            self.lost |= {*self.everybody} - {self.optimizer_idx}
        self.attached, self.optimizer_idx = True, None

    # ---- a batch -----------------------------------------------------------------------------------

    def piece_begins(self) -> None:
        """None but the first is the first."""
        self.logged.is_first = self.logged.is_first and self.piece is not None and self.piece[0] == 0

    @property
    def skips_sanity_check(self) -> bool:
        """A fit that goes on is checked as any."""
        return False

    # ---- when it stops, and saves ------------------------------------------------------------------

    def look_to_save(self, receiver: str, hook: str) -> Events:
        """In the hook, not twice at a step; those at the ends of epochs and of the training see the step before. The
        last is saved once more as the training ends."""
        saving, files = self.saving[receiver], self.files[receiver]
        every, waits = saving.every_n_train_steps, self.waits_for_the_epoch(receiver)
        ends = hook in ("on_train_epoch_end", "on_train_end")
        if not self.saves_in(hook) or (hook == "on_train_end" and files.saved_at == self.step):
            return
        self.step -= ends
        if hook == "on_train_end":
            yield from self.save_last(receiver)
        elif files.saved_at != self.step:
            is_due = not every and waits == (hook == "on_train_epoch_end")
            if hook == "on_train_batch_end":
                is_due = every > 0 and (self.step + 1) % every == 0
            if is_due:
                files.saved_at = self.step
                yield from self.save_best(receiver)
                yield from self.save_last(receiver)
        self.step += ends

    def waits_for_the_epoch(self, receiver: str) -> bool:
        """One of the module's never: only the trainer's are told of it."""
        return self.owners_of[receiver] == "trainer" and super().waits_for_the_epoch(receiver)

    def another_epoch(self) -> bool:
        """A request to stop that comes before the minima are met is forgotten."""
        self.should_stop = self.may_stop()
        return super().another_epoch()

    def closes_window(self, batch_idx: int, batches: int) -> bool:
        """A batch that is the last for another reason than the length's is known to updates alone."""
        return super().closes_window(batch_idx, batches) or batch_idx + 1 == batches

    def should_check_val(self, batch_idx: int, batches: int) -> bool:
        """Before a stop in any case."""
        validates = self.validates() and (self.epoch + 1) % self.options["check_val_every_n_epoch"] == 0
        return (validates and self.should_stop) or super().should_check_val(batch_idx, batches)

    # ---- schedulers --------------------------------------------------------------------------------

    def written(self, saving: Saving) -> File:
        """Of the next epoch and the next step; while max_steps are reached, of this epoch."""
        return super().written(saving)._replace(epoch=self.epoch + (not self.steps_are_done()), step=self.step + 1)

    def load_tested(self) -> Events:
        """A test is where the checkpoint is of."""
        yield from super().load_tested()
        if self.tested:
            self.epoch, self.step = self.tested.epoch, self.tested.step

    # ---- checkpoints -------------------------------------------------------------------------------

    def everything(self) -> dict[str, Any]:
        """The next epoch and the next step; while max_steps are reached, this epoch."""
        return {**super().everything(), "epoch": self.epoch + (not self.steps_are_done()), "step": self.step + 1}

    def new_trainer(self) -> None:
        super().new_trainer()
        self.batches_of_all, self.optimizer_idx, self.left = -1, None, None
        self.lost, self.logged, self.keeps_datamodule = set(), self.log_type(), False

    def begin_call(self) -> None:
        if self.is_of_another and self.s.data.given_to(self.called) == "datamodule":
            self.called_once, self.is_of_another = set(), False
        super().begin_call()
        self.epoch, self.step = (0, 0) if self.resuming else (self.epoch, self.step)
        if self.called == "fit" and self.logged.trained:
            self.logged.passes = [self.logged.trained]

    def load(self) -> Events:
        """A data module is told when the weights are there, and so are callbacks that have a state."""
        yield from Callbacks.load(self)
        yield from self.load_datamodule()
        for callback in self.callbacks if self.resuming else ():
            if callback in self.stopping:  # whose state there is
                yield from self.span(callback, "on_load_checkpoint", None, {})

    def load_datamodule(self) -> Events:
        """It is told where a fit goes on."""
        for datamodule in self.datamodule() if self.resuming else ():
            yield from self.span(datamodule, "on_load_checkpoint", None, {})

    def restore(self) -> None:
        """The training's state, after on_fit_start."""
        if self.resuming:
            self.epoch, self.step = self.resuming["epoch"], self.resuming["step"]
            self.numbers.rates = self.resuming["numbers"].rates

    # ---- data --------------------------------------------------------------------------------------

    def dataloaders_of_fit(self) -> Events:
        """Those of the validation, too, even where none is due."""
        yield from super().dataloaders_of_fit()
        if self.s.loaders("val") and self.s.defines("validation_step"):
            yield from self.dataloader("val")

    @property
    def trains_on(self) -> bool:
        """Whether evaluations are on the training batches: with overfit_batches, all."""
        return bool(self.options["overfit_batches"] > 0)

    def dataloader(self, stage: str) -> Events:
        """With overfit_batches the training loader is asked for, too, to evaluate on it in place of each other one."""
        is_due = self.is_due(stage)
        yield from super().dataloader(stage)
        if is_due and stage != "train" and self.trains_on and (self.called, self.s.data.source) != ("fit", "argument"):
            if not self.s.loaders("train"):
                if self.misses_loaders:
                    raise UserError(OWN_WORDS)
                return
            yield from self.hook("train_dataloader")

    def is_training(self, stage: str) -> bool:
        return stage == "train" or self.trains_on

    def loaders(self, stage: str) -> list[int]:
        if stage == "train" or not self.trains_on:
            return super().loaders(stage)
        return [self.limited(stage, self.train_batches()) for _ in self.s.loaders(stage)]

    def limited(self, stage: str, batches: int) -> int:
        """overfit_batches limits tests, too, and in any call."""
        overfits = self.options["overfit_batches"]
        if not overfits or stage == "predict":
            return super().limited(stage, batches)
        return min(batches, overfits) if isinstance(overfits, int) else int(batches * overfits)

    def evaluation_batches(self, name: str, stage: str, at_most: int | None = None) -> Events:
        """Of several training loaders none can be taken in place of another."""
        if self.trains_on and self.s.data.train_loaders:
            raise UserError(OWN_WORDS)
        yield from super().evaluation_batches(name, stage, at_most)

    def begin_anew(self) -> None:
        super().begin_anew()
        self.is_of_another = True

    def receivers(self, hook: str) -> list[str]:
        """A data module prepares data once, and is set up and torn down once for each stage; the batches of a module
        that it did not come with do not pass through it. It has the last word on checkpoints."""
        if self.is_of_another and hook in TRANSFERS:
            return ["module"]
        if hook == "on_load_checkpoint":
            return ["module"]
        if hook == "on_save_checkpoint":
            return [*self.told_of_saving, "module", *self.datamodule()]
        found = super().receivers(hook)
        once = (hook, "" if hook == "prepare_data" else self.called)
        return [who for who in found if who != "datamodule" or hook not in ONCE or once not in self.called_once]

    def span(self, receiver: str, hook: str, inside: Callable[[], Events] | None, args: dict[str, Any]) -> Events:
        if receiver == "datamodule":
            self.called_once.add((hook, args.get("stage", "")))
        return (yield from super().span(receiver, hook, inside, args))

    def bring_back(self, first: Calls, function: str) -> Events:
        """The trainer that made the call has begun it, and predicts nothing."""
        self.called, self.callbacks, self.runs = function, self.callbacks_of("trainer"), OF_CALL[function]
        yield from self.before_setup()
        yield from self.hook("setup", stage=function)
        yield from super().bring_back(first, function)

    # ---- evaluations -------------------------------------------------------------------------------

    def without_batches(self, stage: str) -> Events:
        """Only the loaders are asked for."""
        yield from self.dataloader(stage)

    # ---- what is logged ----------------------------------------------------------------------------

    def nothing_logged(self) -> None:
        """Whether batches come is not forgotten, and what the last fit has logged not before the next one."""
        before = self.logged
        super().nothing_logged()
        self.logged.in_batches, self.logged.trained = before.in_batches, before.trained

    def loader_begins(self, dataloader_idx: int) -> None:
        """Metrics are not known before the last loader's batches have come."""

    def loader_to_name(self) -> int | None:
        stage = {"val_loop": "val", "test_loop": "test"}.get(self.scope)
        several = stage is not None and self.batch is not None and len(self.s.loaders(stage)) > 1
        return self.logged.innermost.loader if several else None

    def log(self, hook: str) -> None:
        """A training_step finds nothing in pieces of keys."""
        if hook == "training_step" and self.splits_keys:
            raise UserError(OWN_WORDS)
        logs, loader, batch = [log for log in self.s.model.logs if log.hook == hook], self.loader_to_name(), self.batch
        super().log(hook)
        for log in logs:
            for rank in {*range(self.s.processes)} - {self.rank} if not log.sync_dist else ():
                share = self.numbers.share_of(batch, rank) if batch else range(1)
                value = self.told(log, self.times_logged[hook], rank)
                if hook in STEPS.values():
                    value = self.numbers.loss(str(batch), self.piece, share)
                self.logged.log_elsewhere(log, value, len(share), loader if log.add_dataloader_idx else None)

    # ---- an exception ------------------------------------------------------------------------------

    def hook(self, name: str, inside: Callable[[], Events] | None = None, **args: Any) -> Events:
        """In each epoch batches come from on_epoch_start on. backward fails if nothing requires gradients."""
        if name == "on_epoch_start":
            self.logged.in_batches = True
        if name == "backward" and self.optimizer_idx in self.lost:
            inside = self.fail
        return (yield from super().hook(name, inside, **args))

    def fail(self) -> Events:
        """What is to happen cannot."""
        yield from ()
        raise UserError(OWN_WORDS)

    def event(self, ph: str, receiver: str, hook: str, args: dict[str, Any]) -> Expected:
        """Pieces of keys are no batch. A parameter that is lost is as it was when the optimizers were made."""
        names_none = self.gives_by_name and self.s.model.star_args and hook.startswith("on_train_batch_")
        if names_none or (hook == "on_train_batch_end" and receiver in self.saving):
            args = {name: value for name, value in args.items() if name != "dataloader_idx"}
        if hook == "training_step" and self.splits_keys:
            args = {name: value for name, value in args.items() if name != "batch"}
        event = super().event(ph, receiver, hook, args)
        if self.optimizer_idx is not None and self.lost and "trainable" in event.fx:
            event.fx["trainable"] = sorted({self.optimizer_idx} | self.lost)
        return event

    def is_swallowed(self, raised: UserError) -> bool:
        self.stays = True
        return super().is_swallowed(raised)

    def stage_after(self, raised: UserError) -> str | None:
        """None; after Ctrl-C it stays."""
        stage, self.runs = self.stage, None
        return stage if raised.text.startswith("KeyboardInterrupt") else None
