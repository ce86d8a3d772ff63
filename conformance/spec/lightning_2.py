"""What pytorch-lightning 2 does instead of what the documentation says."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .lightning import Lightning
from .oracle import Events, Expected, UserError

__all__ = ["Lightning2"]

# Arguments that hooks do not have any more: automatic optimization knows one optimizer.
GONE = {
    **dict.fromkeys(("on_train_batch_start", "on_train_batch_end"), ("dataloader_idx",)),
    "optimizer_step": ("optimizer_idx", "on_tpu", "using_native_amp", "using_lbfgs"),
    **dict.fromkeys(("optimizer_zero_grad", "on_before_optimizer_step"), ("optimizer_idx",)),
    "backward": ("optimizer", "optimizer_idx"),
    "on_predict_epoch_end": ("results",),
}


class Lightning2(Lightning):
    """The pseudocode of 2.x."""

    def event(self, ph: str, receiver: str, hook: str, args: dict[str, Any]) -> Expected:
        gone = GONE.get(hook, ())
        stage = next((s for s in ("validation", "test", "predict") if hook.startswith(f"on_{s}_batch_")), None)
        if stage and len(self.loaders({"validation": "val"}.get(stage, stage))) == 1:
            gone = ("dataloader_idx",)
        return super().event(ph, receiver, hook, {name: value for name, value in args.items() if name not in gone})

    def receivers(self, hook: str) -> list[str]:
        """A data module has no part in checkpoints."""
        if hook == "on_load_checkpoint":
            return ["module"]
        if hook == "on_save_checkpoint":
            return [*self.callbacks, "module"]
        return super().receivers(hook)

    def is_swallowed(self, raised: UserError) -> bool:
        """Ctrl-C ends the process."""
        if raised.text.startswith("KeyboardInterrupt"):
            raised.text, self.stays = "SystemExit: 1", True
        return False

    def load(self) -> Events:
        """Callbacks are told when the weights are there."""
        yield from super().load()
        for callback in self.callbacks if self.resuming else ():
            yield from self.span(callback, "on_load_checkpoint", None, {})

    def effects_of(self, hook: str) -> None:
        if hook == "optimizer_zero_grad" and self.s.model.optimizer == "none":
            return  # the stand-in clears nothing
        super().effects_of(hook)

    def optimizer_done(self) -> None:
        """global_step counts the optimizer's steps, each when it is over."""
        self.step, self.uncounted = self.step + 1, 0

    def optimizer_update(self, closure: Callable[[], Events], optimizer_idx: int) -> Events:
        yield from super().optimizer_update(closure, optimizer_idx)
        if self.s.model.manual:
            self.optimizer_done()

    def to_count(self) -> int:
        """It is counted already."""
        return 0

    def may_stop(self, running: int = 0) -> bool:
        return super().may_stop()

    def skip_epoch(self) -> Events:
        """Schedulers step all the same."""
        yield from self.step_epochs_schedulers(of_plateaus=False)

    def begin_training(self) -> None:
        """The module stays in whichever mode it is."""

    def dataloaders_of_fit(self) -> Events:
        """The validation loaders, too, if they are needed in the first epoch."""
        yield from super().dataloaders_of_fit()
        if self.validates() and self.options["check_val_every_n_epoch"] == 1:
            yield from self.within("val_loop", self.dataloader("val"))

    def begin_evaluation(self, stage: str) -> Events:
        self.grad_enabled = False  # before the loaders are asked for
        yield from super().begin_evaluation(stage)

    def numbered(self, receiver: str, optimizer_idx: int) -> Any:
        """None for the stand-in."""
        return None if self.s.model.optimizer == "none" else super().numbered(receiver, optimizer_idx)
