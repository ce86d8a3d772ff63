"""Saving a checkpoint, and going on from it: what the oracle keeps of a run. [R43] is a row of
`docs/interpretations.md`."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

from ..numerics import squares
from ..scenario_module import ARGUMENTS
from .oracle import Oracle
from .state import Events

__all__ = ["Checkpoints"]

KEPT = tuple(
    "loaded turn owners is_empty used in_epoch batches_done epoch_outputs grads numbers logged passed due put".split()
)


class Checkpoints(Oracle):
    """What a checkpoint holds, and what a fit that resumes is given."""

    def save(self) -> Events:
        """`trainer.save_checkpoint()`."""
        yield from self.span("trainer", "save_checkpoint", self.keep, {})

    def keep(self) -> Events:
        """Everything of the training, up to the last batch that is done [R43]."""
        yield from self.hook("on_save_checkpoint")
        self.saved = self.everything()

    def everything(self) -> dict[str, Any]:
        """What there is to go on from."""
        now = {name: deepcopy(getattr(self, name)) for name in KEPT}
        return {**now, "epoch": self.epoch, "step": self.step + self.uncounted}

    def new_trainer(self) -> None:
        """Another trainer and module, which know nothing yet; the trainer trains for one epoch more."""
        self.epoch = self.step = self.uncounted = 0
        self.should_stop = False
        self.begin_anew()
        self.nothing_logged()
        self.recalls_another = self.rank > 0  # the file is that of process 0, with what it has logged [R102]
        self.options["max_epochs"] += self.options["max_epochs"] != -1

    def new_module(self) -> None:
        """Another one, as nobody has trained it."""
        self.numbers = self.untrained()
        self.put_into_mode(not self.s.model.starts_in_eval)
        self.layer_into_eval()
        self.attached = self.thawed = self.is_frozen = self.released = False
        self.grads = ["none"] * self.s.model.optimizers

    def begin_anew(self) -> None:
        """Another module, and another data module."""
        self.new_module()
        self.times_logged, self.asked = {}, 0

    def hparams(self) -> list[str]:
        """Which arguments a module keeps [R50]."""
        return [*self.s.model.hparams]

    def hparams_told(self) -> list[str]:
        """What loggers are told of them: what they are as the fit starts [R51]."""
        return self.hparams()

    def load_from_checkpoint(self) -> Events:
        """Another module, made with the hyperparameters that were saved, then given the weights [R52]."""
        yield self.event("B", "module", "load_from_checkpoint", {})
        self.found = self.saved["put"]
        yield from self.span("module", "on_load_checkpoint", None, {})
        saved = deepcopy(self.saved["numbers"])
        saved.bring(saved.layers)
        made: dict[str, Any] = {}
        if self.is_computed:
            made["weights"] = squares(saved.layers)
        if kept := self.hparams() if self.s.model.hyperparameters else []:
            made |= {"hparams": kept, "arguments": sorted(kept + ["arg2=None"] * (len(kept) < len(ARGUMENTS)))}
        yield self.event("E", "module", "load_from_checkpoint", made)
        self.new_module()
        self.numbers.layers, self.numbers.begun = saved.layers, saved.begun

    def load(self) -> Events:
        """What a fit that goes on from a checkpoint is given: the weights, and all that belongs to them [R43]."""
        if not self.resuming:
            return
        self.found = self.resuming["put"]
        yield from self.hook("on_load_checkpoint")
        was, self.numbers = self.numbers.layers, deepcopy(self.resuming["numbers"])
        self.numbers.bring(self.numbers.layers)
        self.numbers.apart = False  # the file is that of process 0
        self.updates += self.numbers.layers != was
        self.numbers.set_gradients(None)

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
        if saved.get("in_epoch") and self.s.model.manual:  # whose gradients are the user's
            self.have_gradients_of(saved)
        for page in (saved["logged"].passes or saved["logged"].left)[:1] if saved.get("in_epoch") else ():
            self.logged.passes[0] = deepcopy(page)
            self.logged.batches += saved["logged"].batches  # those that come now are others than the page's
        if not saved.get("batches_done"):
            return 0
        self.used, self.owners = map(deepcopy, (saved["used"], saved["owners"]))
        self.epoch_outputs.extend(saved["epoch_outputs"])
        self.batches_done = int(saved["batches_done"])
        if self.batches_done % self.window:  # else a window begins
            self.is_empty = deepcopy(saved["is_empty"])
            if self.is_empty != set(range(self.s.model.optimizers)) and not self.s.model.manual:
                self.have_gradients_of(saved)
        return self.batches_done

    def have_gradients_of(self, saved: dict[str, Any]) -> None:
        """Those that were accumulated."""
        self.grads = list(saved["grads"])
        self.numbers.set_gradients(saved["numbers"])
