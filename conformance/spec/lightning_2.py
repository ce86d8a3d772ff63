"""What pytorch-lightning 2 does instead of what the documentation says."""

from __future__ import annotations

from typing import Any

from ..experiment import Scenario
from .lightning_later import WITHOUT_LOADER, Later
from .lightning_logged import Logged2
from .oracle import UserError
from .outputs import Output, as_dict
from .state import Events, Expected

__all__ = ["Lightning2"]

# Arguments that hooks do not have any more: automatic optimization knows one optimizer.
GONE = {
    **WITHOUT_LOADER,
    "optimizer_step": ("optimizer_idx", "on_tpu", "using_native_amp", "using_lbfgs"),
    **dict.fromkeys(("optimizer_zero_grad", "on_before_optimizer_step"), ("optimizer_idx",)),
    "backward": ("optimizer", "optimizer_idx"),
    "on_predict_epoch_end": ("results",),
}


class Lightning2(Later):
    """The pseudocode of 2.x."""

    log_type = Logged2
    gone = GONE
    asks_in = "val_loop"
    before_predict = True, False  # whether the module was in train mode, and whether a layer was in another
    tells_each_sampler = True
    counted = 0  # of the batches before the loader's, in the number of each

    absent = frozenset(
        {
            *Later.absent,
            "tbptt_split_batch",
            *(f"{step}_{end}" for step in ("training", "validation", "test") for end in ("step_end", "epoch_end")),
        }
    )

    @classmethod
    def leaves_open(cls, scenario: Scenario) -> str:
        saved = [call for call in scenario.calls if call.startswith("test-")]
        return "what a second file is, once callbacks have the state of a first" if "test-best" in saved[:-1] else (
            super().leaves_open(scenario))

    def effects_of(self, hook: str) -> None:
        """After a prediction the modes are those of before."""
        if hook == "on_predict_model_eval":
            self.before_predict = self.training, self.has_mixed_modes
        super().effects_of(hook)
        if hook == "on_predict_model_train":
            self.training, self.has_mixed_modes = self.before_predict

    def train_on_device(self) -> Events:
        yield from self.hook("setup", stage="fit")  # before on_fit_start, and so is what follows
        self.forget_logged()
        yield from self.load()
        yield from self.hook("configure_optimizers")
        self.attached = True
        yield from self.hook("on_fit_start")
        self.restore()

        yield from self.sanity_check()

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
        goes_on = self.resuming.get("in_epoch")
        first, self.in_epoch = self.rejoin(), True
        if not goes_on:  # as after a checkpoint of mid-epoch
            yield from self.hook("on_train_epoch_start")

        (batches,) = self.loaders("train")
        for batch_idx in range(first, batches):
            if self.may_stop():  # as the epoch has started
                break
            # after resuming from the loader's beginning
            number = batch_idx + self.counted
            where: dict[str, Any] = {"batch": self.train_batch(batch_idx - first), "batch_idx": number}
            yield from self.transfer(where["batch"], 0)  # before on_train_batch_start
            self.logged.batches_of(None, number)
            skip = yield from self.hook("on_train_batch_start", **where, dataloader_idx=0)
            if skip == "return-minus-1":
                yield from self.step_epochs_schedulers(of_plateaus=False)  # all the same
                break

            self.updating, self.has_met = self.closes_window(batch_idx, batches), False
            self.output = output = yield from self.optimizer_blocks(where)
            self.batches_done, self.uncounted = batch_idx + 1, 0  # the step is counted already
            if batch_idx + 1 == batches:
                yield from self.step_epochs_schedulers(of_plateaus=False)  # before on_train_batch_end

            yield from self.hook("on_train_batch_end", outputs=self.wrapped(output), **where, dataloader_idx=0)
            self.hand_to_loggers()

            if self.should_check_val(batch_idx, batches):
                yield from self.within("val_loop", self.val_loop())
            yield from self.end_of_batch()
            self.windows_done += self.updating
            if self.may_stop() or self.steps_are_done():
                break
        self.last_batch()
        self.in_epoch = False  # for a checkpoint that is saved in the hook
        yield from self.hook("on_train_epoch_end")
        if self.batches_done == batches and not goes_on:
            yield from self.step_epochs_schedulers(of_plateaus=True)
        self.logged.end(step=self.last_step)
        self.logged.begin()
        self.batches_done = self.counted = 0

    def step_epochs_schedulers(self, of_plateaus: bool) -> Events:
        """Those with interval epoch, on a plateau or not."""
        for scheduler_idx in () if self.s.model.manual else self.s.model.schedulers_of(0, "epoch"):
            if bool(self.s.model.monitor_of(scheduler_idx)) == of_plateaus:
                yield from self.pass_scheduler(scheduler_idx)

    def pass_scheduler(self, scheduler_idx: int) -> Events:
        """The frequency counts epochs, or the batches of each epoch anew."""
        by_step = self.s.model.interval(scheduler_idx) == "step"
        done = self.batches_done + 1 if by_step else self.epoch + 1
        if done % self.s.model.frequency_of(scheduler_idx):
            return
        if self.s.model.monitor_of(scheduler_idx) and by_step:
            self.due.add(scheduler_idx)
        else:
            yield from self.step_scheduler(scheduler_idx)

    def wrapped(self, output: Any) -> Any:
        """What on_train_batch_end gets: a dict, of a tensor or of nothing, too."""
        return Output("dict") if output is None else as_dict(output)

    def event(self, ph: str, receiver: str, hook: str, args: dict[str, Any]) -> Expected:
        stage = next((s for s in ("validation", "test", "predict") if hook.startswith(f"on_{s}_batch_")), None)
        if stage and len(self.loaders({"validation": "val"}.get(stage, stage))) == 1:
            args = {name: value for name, value in args.items() if name != "dataloader_idx"}
        return super().event(ph, receiver, hook, args)

    def receivers(self, hook: str) -> list[str]:
        found = super().receivers(hook)
        if hook == "on_train_epoch_end":  # where those that monitor come last
            return sorted(found, key=lambda who: who in self.stopping or who in self.saving)
        return found

    def swallows(self, raised: UserError) -> bool:
        """Ctrl-C ends the process."""
        if raised.text.startswith("KeyboardInterrupt"):
            raised.text, self.stays = "SystemExit: 1", True
        return False

    def everything(self) -> dict[str, Any]:
        """The window that is about to be over counts."""
        now = super().everything()
        windows = now["windows_done"] + (self.in_epoch and self.updating)
        return {**now, "windows_done": windows, "in_validation": self.scope == "val_loop"}

    def look_to_save(self, receiver: str, hook: str) -> Events:
        """In the hook: not twice at a step, nor at step 0. The last is saved with one of the best only, but for every
        so many steps; there a value that is not there, or that a validation is about to replace, is waited for. Where
        none was saved, the last is as the training ends, with fast_dev_run, too."""
        saving, files = self.saving[receiver], self.files[receiver]
        every, is_new = saving.every_n_train_steps, max(files.saved_at, 0) != self.step
        if hook == "on_train_end" and files.saved_at == -1:
            yield from self.save_last(receiver)
        if not self.saves_in(hook):
            return
        if hook == "on_train_batch_end" and every and self.step % every == 0:
            waits = not self.ends_epochs() and self.batches_done == self.loaders("train")[0] and self.validates_epoch()
            if saving.monitor and (saving.monitor not in self.logged.read() or waits):
                self.missed.add(receiver)
            elif is_new:
                yield from self.save_best(receiver)
                yield from self.save_last(receiver)
        elif hook == ("on_train_epoch_end" if self.ends_epochs() else "on_validation_end") and is_new:
            waited = receiver in self.missed and hook == "on_validation_end"
            if waited or not every:
                yield from self.save_best(receiver)
            if waited or files.saved_at == self.step:
                yield from self.save_last(receiver)
            self.missed -= {receiver} if waited else set()

    def handed_over(self, results: list[Any]) -> list[Any]:
        """Of one loader no list of lists."""
        return self.by_loader(results)

    def hand_rates(self, rates: dict[str, float]) -> None:
        """They are logged values, too."""
        super().hand_rates(rates)
        self.logged.kept.update(rates)

    def load_tested(self) -> Events:
        """Callbacks are told, too, and those that stop have seen what they had then."""
        yield from super().load_tested()
        if self.tested and self.tested.has_callbacks:
            for callback in self.callbacks:
                if callback not in self.saving:
                    yield from self.span(callback, "on_load_checkpoint", None, {})
            self.checked.update(self.tested.checked)

    def dataloader(self, stage: str) -> Events:
        """Where a checkpoint is of an epoch's last batch, but not of the validation after it, it is the next epoch from
        then on; where the loader has no length, and no limit, its batches are counted on."""
        yield from super().dataloader(stage)
        saved = self.resuming
        if stage == "train" and saved.get("batches_done") == self.loaders(stage)[0] and not saved["in_validation"]:
            is_known = self.s.data.sized or type(self.options["limit_train_batches"]) is int
            self.counted = 0 if is_known else self.loaders(stage)[0]
            self.epoch, self.resuming["batches_done"] = self.epoch + 1, 0

    def begin_evaluation(self, stage: str) -> Events:
        self.grad_enabled = False  # before the loaders are asked for
        yield from super().begin_evaluation(stage)
