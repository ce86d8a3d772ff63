"""What pytorch-lightning 1.9 does instead of what the documentation says."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..experiment import Scenario
from .lightning_1 import Lightning1
from .lightning_later import WITHOUT_LOADER, Later
from .lightning_logged import Logged19
from .oracle import UserError
from .state import Events

__all__ = ["Lightning19"]

GONE = {**WITHOUT_LOADER, "optimizer_step": ("using_native_amp",)}


class Lightning19(Lightning1, Later):
    """The pseudocode of 1.9."""

    gone = GONE
    log_type = Logged19
    logged: Logged19
    remembers_stop = keeps_graph = copies_settings = begins_apart = True
    axes = (0, 1, 2)

    @classmethod
    def leaves_open(cls, scenario: Scenario) -> str:
        ended = {event.hook for event in scenario.when if event.do == "interrupt"}
        if "save" in scenario.calls and any("validation" in hook or hook == "on_train_epoch_end" for hook in ended):
            return "where a fit goes on that Ctrl-C has ended in a validation, or as an epoch ended"
        if scenario.data.train_loaders and scenario.option("overfit_batches") > scenario.train_batches():
            return "when an epoch is over that overfit_batches takes to be longer than its shortest loader"
        if scenario.shuffles and scenario.processes > 1:
            return "which samples processes have that each shuffle by a seed of their own"
        return super().leaves_open(scenario)

    def __init__(self, scenario: Scenario, rank: int = 0) -> None:
        super().__init__(scenario, rank)
        self.took_last = False  # whether the batch taken last is the loader's last

    def train_on_device(self) -> Events:
        yield from self.hook("setup", stage="fit")
        self.forget_logged()
        yield from self.load()
        yield from self.hook("configure_optimizers")
        self.check_frequencies()
        self.attached = True
        yield from self.hook("on_fit_start")
        self.restore()

        yield from self.sanity_check()

        self.put_into_mode(True)
        self.grad_enabled = True
        self.logged.begin()
        if self.another_epoch():  # else nothing starts
            yield from self.dataloaders_of_fit()  # before on_train_start
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
        self.made_before, self.is_empty = [], set(self.everybody)
        self.in_epoch, self.logged.in_batches = True, True
        first, resumes = self.rejoin(), bool(self.resuming.get("in_epoch"))
        yield from self.hook("on_train_epoch_start")
        yield from self.check_at_once()
        self.resuming = {}

        (batches,) = self.loaders("train")
        for batch_idx in range(first, batches):
            if self.may_stop():  # as the epoch has started
                break
            where: dict[str, Any] = {"batch": self.train_batch(batch_idx - first), "batch_idx": batch_idx}
            self.batches_of_all, self.took_last = self.batches_of_all + 1, batch_idx + 1 == self.train_batches()
            yield from self.transfer(where["batch"], 0)  # before on_train_batch_start
            self.logged.batches_of(None, batch_idx)
            skip = yield from self.hook("on_train_batch_start", **where, dataloader_idx=0)
            if skip == "return-minus-1":
                break

            self.updating, self.has_met = self.closes_window(batch_idx, batches), False
            output = yield from self.optimizer_blocks(where)
            self.batches_done = batch_idx + 1
            yield from self.step_schedulers("step", of_plateaus=False)
            if batch_idx + 1 == batches:
                yield from self.step_schedulers("epoch", of_plateaus=False)

            self.batches_done = batch_idx  # in a checkpoint that is saved in the hook
            yield from self.hook("on_train_batch_end", outputs=output, **where, dataloader_idx=0)
            self.batches_done = batch_idx + 1
            self.hand_to_loggers()
            self.made_before.append(self.pieces_made)

            if self.should_check_val(batch_idx, batches):
                yield from self.within("val_loop", self.val_loop())
            yield from self.step_schedulers("step", of_plateaus=True)
            self.windows_done += self.updating
            if self.may_stop() or self.steps_are_done():
                break
        self.last_batch()
        if self.s.defines("training_epoch_end") and self.made_before:
            yield from self.hook("training_epoch_end", outputs=self.outputs_of_epoch())
            self.refuse_what_ends_return()
        self.in_epoch = False  # for a checkpoint that is saved in the hook
        yield from self.hook("on_train_epoch_end")
        if self.batches_done == batches:
            yield from self.step_schedulers("epoch", of_plateaus=not resumes)
        self.logged.end(step=self.last_step)
        self.logged.begin()
        self.batches_done = 0

    # ---- from a checkpoint -------------------------------------------------------------------------

    def rejoin(self) -> int:
        """At the batch in which it was saved, for that does not count as done; but not in an epoch whose last batch was
        taken, where nothing is left but the epoch's end."""
        saved = self.resuming
        self.batches_of_all = saved.get("batches_of_all", self.batches_of_all)
        self.batches_done = self.loaders("train")[0] if saved.get("is_over") else saved.get("batches_done", 0)
        return self.batches_done

    def check_at_once(self) -> Events:
        """A fit that goes on in mid-epoch validates first where as many batches are counted as lie between
        validations, or none; without a batch, if those of the last validation are done."""
        saved, (batches,), done = self.resuming, self.loaders("train"), self.batches_done
        if not saved.get("in_epoch") or saved["is_over"] or not self.validates_epoch():
            return
        if done == 0 or self.should_check_val(done - 1, batches):
            yield from self.within("val_loop", self.val_loop(0 if saved["has_validated"] else None))
            self.updating = self.closes_window(done - 1, batches)
            yield from self.step_schedulers("step", of_plateaus=True)
            self.windows_done += self.updating

    def everything(self) -> dict[str, Any]:
        has_validated = self.has_validated or self.scope == "val_loop"  # whose batches are done
        is_over = self.in_epoch and self.took_last and (has_validated or not self.validates_epoch())
        more = {"batches_of_all": self.batches_of_all, "is_over": is_over, "has_validated": has_validated}
        if self.scope == "train_loop" and not self.in_epoch:  # in on_train_epoch_end
            more.update(epoch=self.epoch + 1, batches_done=0)
        return {**super().everything(), **more}

    def new_trainer(self) -> None:
        super().new_trainer()
        self.left, self.logged = None, self.log_type()

    def nothing_logged(self) -> None:
        """Whether batches come is not forgotten."""
        before = self.logged
        super().nothing_logged()
        self.logged.in_batches = before.in_batches

    def hook(self, name: str, inside: Callable[[], Events] | None = None, **args: Any) -> Events:
        """From the beginning of an evaluation's epoch on, too, batches come."""
        if name in ("on_validation_epoch_start", "on_test_epoch_start"):
            self.logged.in_batches = True
        return (yield from super().hook(name, inside, **args))

    # ---- evaluations -------------------------------------------------------------------------------

    def evaluation_batches(self, name: str, stage: str, at_most: int | None = None) -> Events:
        """Where there is none, there is one empty list, whatever the number of loaders."""
        if at_most == 0:
            self.last_batch()
            yield from self.epoch_end(name, [[]])
        else:
            yield from super().evaluation_batches(name, stage, at_most)

    def is_swallowed(self, raised: UserError) -> bool:
        """The stage stays, as where another is raised in on_exception."""
        is_swallowed = super().is_swallowed(raised)
        self.stays = self.stays or is_swallowed
        return is_swallowed

    def look_to_save(self, receiver: str, hook: str) -> Events:
        """In the hook: not twice at a step, nor at step 0."""
        saving, files = self.saving[receiver], self.files[receiver]
        every, is_new = saving.every_n_train_steps, max(files.saved_at, 0) != self.step
        if not self.saves_in(hook) or not is_new:
            return
        if hook == "on_train_batch_end" and every and self.step % every == 0:
            yield from self.save_best(receiver)
            yield from self.save_last(receiver)
        elif hook == ("on_train_epoch_end" if self.ends_epochs() else "on_validation_end"):
            if not every:
                yield from self.save_best(receiver)
            yield from self.save_last(receiver)
