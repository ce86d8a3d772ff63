"""What pytorch-lightning 1.5 does instead of what the documentation says."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..experiment import STEPS, Scenario
from ..numerics import Numbers
from .callbacks import Callbacks, File
from .lightning import OF_CALL, Lightning
from .lightning_logged import Logged15
from .oracle import KEYS, OWN_WORDS, Events, Expected, UserError
from .pseudocode import Pseudocode

__all__ = ["Lightning15"]

ONCE = ("prepare_data", "setup", "teardown")  # on a data module, the last two for each stage


class Lightning15(Lightning):
    """The pseudocode of 1.5."""

    absent = frozenset({"on_predict_model_train"})

    log_type = Logged15
    remembers_stop = True
    logged: Logged15

    @classmethod
    def leaves_open(cls, scenario: Scenario) -> str:
        if scenario.spawns and "fit" in scenario.calls:
            return "what is trained by processes that all change the same memory"
        overfits = scenario.option("overfit_batches") and scenario.data.train_loaders and "predict" in scenario.calls
        return "what predict is given of several training loaders" if overfits else super().leaves_open(scenario)

    def __init__(self, scenario: Scenario, rank: int = 0) -> None:
        super().__init__(scenario, rank)
        self.batches_of_all = -1  # the number of the batch that runs, over all epochs and fits
        self.pieces_made: list[set[int]] = []  # for each piece of a batch, the optimizers whose step has made a loss
        self.made_before: list[list[set[int]]] = []  # in the epoch's batches
        self.lost: set[int] = set()  # optimizers whose parameters do not require gradients any more
        self.surfaces = False  # an exception that was raised in on_exception
        self.called_once: set[tuple[str, str]] = set()  # hooks of the data module, and their stages

    def train_on_device(self) -> Events:
        yield from self.hook("setup", stage="fit")
        yield from self.load()
        yield from self.hook("configure_optimizers")
        self.configured()
        yield from self.hook("on_fit_start")
        self.restore()

        yield from self.hook("on_pretrain_routine_start")
        yield from self.hook("on_pretrain_routine_end")
        yield from self.sanity_check()

        self.put_into_mode(True)
        self.logged.begin(of_training=True)
        if self.another_epoch():
            yield from self.dataloaders_of_fit()  # not where nothing starts
            yield from self.hook("on_train_start")
            while self.another_epoch():
                yield from self.within("train_loop", self.train_loop())
                self.epoch += 1
            self.epoch = max(self.epoch - 1, 0)  # the last one's number stays
            yield from self.hook("on_train_end")
        self.logged.abandon()

        yield from self.hook("on_fit_end")
        self.opened = False
        yield from self.hook("teardown", stage="fit")

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
        self.last_batch()
        if self.s.defines("training_epoch_end") and self.made_before:
            yield from self.hook("training_epoch_end", outputs=self.form_of_epoch())

        yield from self.hook("on_train_epoch_end")
        yield from self.hook("on_epoch_end")
        if seen == batches:
            yield from self.step_schedulers("epoch", of_plateaus=True)
        self.logged.end_epoch()
        self.batches_done, self.in_epoch = 0, False

    def configured(self) -> None:
        """There are new optimizers, and only now is forgotten what the run before has logged."""
        self.forget_logged()
        self.logged.trained = None
        self.numbers.rates = Numbers(self.s, self.rank).rates
        if not self.resuming:
            self.numbers.configure()
        if self.optimizer_idx is not None:  # as Ctrl-C in a block has left it
            self.lost |= {*self.everybody} - {self.optimizer_idx}
        self.attached, self.optimizer_idx = True, None

    # ---- a batch -----------------------------------------------------------------------------------

    def optimizer_blocks(self, where: dict[str, Any]) -> Events:
        """Frequencies count batches, and their cycle begins anew in each epoch."""
        self.pieces_made = []
        self.owners = self.whose_turn(where["batch_idx"])
        if self.s.model.manual:
            output = yield from self.manual_step(where)
            self.pieces_made = [{0}] if output != "none" else []
        elif self.s.model.truncated_bptt_steps:
            yield from self.piece_by_piece(where)
        else:
            yield from self.each_in_turn(where)
        return self.form_of_batch()

    def piece_by_piece(self, where: dict[str, Any]) -> Events:
        """In the batch that closes a window, each piece is an update. All optimizers share the hidden states."""
        size, pieces = self.s.model.truncated_bptt_steps, self.pieces()
        yield from self.hook("tbptt_split_batch", batch=where["batch"], split_size=size)
        self.hiddens = {0: "none"}
        for self.piece in pieces:
            self.logged.is_first = self.logged.is_first and self.piece == pieces[0]
            yield from self.each_in_turn(where)
        self.piece = None

    def each_in_turn(self, where: dict[str, Any]) -> Events:
        """The block of each owner, while only its parameters require gradients."""
        made, several = set(), self.s.model.optimizers > 1
        for optimizer_idx in self.owners:
            self.optimizer_idx = optimizer_idx if several else None
            of = {"optimizer_idx": optimizer_idx} if several else {}
            output = yield from self.optimizer_block({**where, **of}, optimizer_idx)
            made |= {optimizer_idx} if output != "none" else set()
        self.optimizer_idx = None
        self.pieces_made += [made] if made else []

    def training_step(self, where: dict[str, Any]) -> Events:
        """With truncated_bptt_steps, None is an error: hidden states are missed."""
        if not self.s.model.truncated_bptt_steps:
            return (yield from super().training_step(where))
        before = self.hiddens[0]
        told = yield from super().training_step({**where, "hiddens": before})
        if self.output == "none":
            raise UserError(OWN_WORDS)
        self.hiddens[0] = f"detached:{1 if before == 'none' else int(before.split(':')[1]) + 1}"
        return told

    @property
    def splits_keys(self) -> bool:
        """Whether the module's own tbptt_split_batch is missed: the default one makes no pieces of a dict's values."""
        is_split = self.s.model.truncated_bptt_steps > 0 and "own-split" not in self.s.model.overrides
        return is_split and self.s.data.batch == "dict"

    def leave_toggled(self) -> None:
        """What is toggled stays so."""

    @property
    def refuses_none(self) -> bool:
        """With several processes all may return it."""
        return False

    def whose_turn(self, batch: int) -> list[int]:
        """The optimizers that frequencies give the batch to."""
        cycle = [index for index, times in enumerate(self.frequencies) for _ in range(times)]
        return [cycle[batch % len(cycle)]] if cycle else self.everybody

    # ---- outputs -----------------------------------------------------------------------------------

    @property
    def sides(self) -> int:
        """Of how many optimizers there are lists: of all, whoever's turn it is."""
        return 1 if self.s.model.manual else self.s.model.optimizers

    def form_of_batch(self) -> str:
        """A list for each optimizer of what its pieces have made, where either are several; nothing is an empty
        list."""
        counts = [sum(idx in made for made in self.pieces_made) for idx in range(self.sides)]
        if not self.pieces_made:
            return "list:0"
        if self.sides == len(self.pieces_made) == 1:
            return "dict"
        return f"list:{sum(counts)}" if 1 in (self.sides, len(self.pieces_made)) else self.counted(counts)

    def form_of_epoch(self) -> str:
        """A list for each optimizer of a list for each batch of what its pieces have made, but for lists that would be
        of one only."""
        batches, sides = self.made_before, range(self.sides)
        pieces = max(map(len, batches))
        by_batch = [[sum(idx in made for made in batch) for batch in batches] for idx in sides]
        if self.sides > 1 and len(batches) > 1:
            return self.counted([len(each) if pieces > 1 else sum(each) for each in by_batch])
        if pieces > 1 and len(batches) > 1:
            return self.counted(by_batch[0])
        if pieces > 1 and self.sides > 1:
            return self.counted([sum(each) for each in by_batch])
        return f"list:{sum(sum(each) for each in by_batch)}"

    @staticmethod
    def counted(lists: list[int]) -> str:
        """The form of lists so long."""
        return "lists:" + ",".join(map(str, lists))

    def held(self, hook: str, outputs: str) -> dict[str, Any]:
        """In training dicts, with the loss for a tensor; nothing keeps its graph."""
        if hook not in ("on_train_batch_end", "training_epoch_end"):
            return super().held(hook, outputs)
        is_dict = (self.s.model.returns == "dict") != self.s.defines("training_step_end")
        there = any(self.pieces_made if hook == "on_train_batch_end" else self.made_before)
        return {"outputs_keys": (KEYS[1] if is_dict else ["loss"]) if there else [], "outputs_graph": False}

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

    def should_check_val(self, batch_idx: int, batches: int) -> bool:
        """Before a stop in any case."""
        validates = self.validates() and (self.epoch + 1) % self.options["check_val_every_n_epoch"] == 0
        return (validates and self.should_stop) or super().should_check_val(batch_idx, batches)

    # ---- schedulers --------------------------------------------------------------------------------

    def pass_scheduler(self, optimizer_idx: int) -> Events:
        """Not after an optimizer's update, but when all are done."""
        yield from ()

    def step_schedulers(self, interval: str, of_plateaus: bool) -> Events:
        """Those with the interval, on a plateau or not, of the optimizers whose turn it is by the number of the batch
        over all epochs, in the order in which they are given; their frequency counts epochs, or the batches of each
        epoch anew."""
        model = self.s.model
        if model.scheduler != interval or model.manual or bool(model.monitor) != of_plateaus:
            return
        if interval == "step" and not self.updating:
            return
        done = self.epoch + 1 if interval == "epoch" else self.batches_done
        if done % model.scheduler_frequency == 0:
            owners = self.whose_turn(self.batches_of_all)
            for optimizer_idx in owners[::-1] if model.form == "two-lists-crossed" else owners:
                yield from self.step_scheduler(optimizer_idx)

    def written(self) -> File:
        """Of the next epoch and the next step; while max_steps are reached, of this epoch."""
        return super().written()._replace(epoch=self.epoch + (not self.steps_are_done()), step=self.step + 1)

    def load_tested(self) -> Events:
        """A test is where the checkpoint is of."""
        yield from super().load_tested()
        if self.tested:
            self.epoch, self.step = self.tested.epoch, self.tested.step

    # ---- checkpoints -------------------------------------------------------------------------------

    def keep(self) -> Events:
        """The next epoch and the next step; while max_steps are reached, this epoch."""
        yield from super().keep()
        self.saved.update(epoch=self.epoch + (not self.steps_are_done()), step=self.step + 1)

    def new_trainer(self) -> None:
        super().new_trainer()
        self.batches_of_all, self.optimizer_idx, self.called_once, self.left = -1, None, set(), None
        self.lost, self.logged = set(), self.log_type()

    def begin_call(self) -> None:
        super().begin_call()
        self.epoch, self.step = (0, 0) if self.resuming else (self.epoch, self.step)
        if self.called == "fit" and self.logged.trained:
            self.logged.passes = [self.logged.trained]

    def load(self) -> Events:
        """A data module is told when the weights are there, and so are callbacks that have a state."""
        yield from Callbacks.load(self)
        for datamodule in self.datamodule() if self.resuming else ():
            yield from self.span(datamodule, "on_load_checkpoint", None, {})
        for callback in self.callbacks if self.resuming else ():
            if callback in self.stopping:  # whose state there is
                yield from self.span(callback, "on_load_checkpoint", None, {})

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
                raise UserError(OWN_WORDS)
            yield from self.hook("train_dataloader")

    def is_training(self, stage: str) -> bool:
        return stage == "train" or self.trains_on

    def loaders(self, stage: str) -> list[int]:
        if stage == "train" or not self.trains_on:
            return super().loaders(stage)
        return [self.limited(stage, self.s.train_batches()) for _ in self.s.loaders(stage)]

    def limited(self, stage: str, batches: int) -> int:
        """overfit_batches limits tests, too, and in any call."""
        overfits = self.options["overfit_batches"]
        if not overfits or stage == "predict":
            return super().limited(stage, batches)
        return min(batches, overfits) if isinstance(overfits, int) else int(batches * overfits)

    def validates(self) -> bool:
        there = bool(self.s.loaders("val")) and self.s.defines("validation_step")
        return (there and self.trains_on) or super().validates()

    def evaluation_batches(self, name: str, stage: str, at_most: int | None = None) -> Events:
        """Of several training loaders none can be taken in place of another."""
        if self.trains_on and self.s.data.train_loaders:
            raise UserError(OWN_WORDS)
        yield from super().evaluation_batches(name, stage, at_most)

    def receivers(self, hook: str) -> list[str]:
        """A data module prepares data once, and is set up and torn down once for each stage. It has the last word on
        checkpoints."""
        if hook == "on_load_checkpoint":
            return ["module"]
        if hook == "on_save_checkpoint":
            return [*self.callbacks, "module", *self.datamodule()]
        found = super().receivers(hook)
        once = (hook, "" if hook == "prepare_data" else self.called)
        return [who for who in found if who != "datamodule" or hook not in ONCE or once not in self.called_once]

    def span(self, receiver: str, hook: str, inside: Callable[[], Events] | None, args: dict[str, Any]) -> Events:
        if receiver == "datamodule":
            self.called_once.add((hook, args.get("stage", "")))
        return (yield from super().span(receiver, hook, inside, args))

    def bring_back(self, first: Pseudocode, function: str) -> Events:
        """The trainer that made the call has begun it, and predicts nothing."""
        self.called, self.callbacks, self.runs = function, self.callbacks_of("trainer"), OF_CALL[function]
        yield from self.configure_callbacks()
        yield from self.hook("prepare_data")
        yield from self.hook("setup", stage=function)
        yield from super().bring_back(first, function)

    def made(self, function: str) -> dict[str, Any]:
        """A call that Ctrl-C has ended returns None."""
        made = super().made(function)
        return {name: value for name, value in made.items() if not (self.stays and name.startswith("returned"))}

    # ---- evaluations -------------------------------------------------------------------------------

    def without_batches(self, stage: str) -> Events:
        """Only the loaders are asked for."""
        yield from self.dataloader(stage)

    def begin_evaluation(self, stage: str) -> Events:
        yield from self.dataloader(stage)
        self.grad_enabled = False

    def into_eval(self, name: str) -> Events:
        """Then gradients are cleared, in the midst of a window, too."""
        yield from super().into_eval(name)
        self.clear_gradients()

    def effects_of(self, hook: str) -> None:
        """There is no hook on_predict_model_train."""
        if hook != "on_predict_model_train":
            super().effects_of(hook)

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
                value = log.nth(self.times_logged[hook])
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
        if hook == "on_train_batch_end" and receiver in self.saving:  # which does not take it
            args = {name: value for name, value in args.items() if name != "dataloader_idx"}
        if hook == "training_step" and self.splits_keys:
            args = {name: value for name, value in args.items() if name != "batch"}
        event = super().event(ph, receiver, hook, args)
        if self.optimizer_idx is not None and self.lost and "trainable" in event.fx:
            event.fx["trainable"] = sorted({self.optimizer_idx} | self.lost)
        return event

    def take_note_of(self, another: UserError, raised: UserError) -> None:
        """What is raised in on_exception takes the place of what was, and surfaces whatever it is."""
        raised.text, self.surfaces = another.text, True

    def is_swallowed(self, raised: UserError) -> bool:
        self.stays, surfaces, self.surfaces = True, self.surfaces, False
        return not surfaces and super().is_swallowed(raised)

    def stage_after(self, raised: UserError) -> str | None:
        """None; after Ctrl-C it stays."""
        stage, self.runs = self.stage, None
        return stage if raised.text.startswith("KeyboardInterrupt") else None
