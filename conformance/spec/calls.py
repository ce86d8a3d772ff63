"""The calls of the user: which function each runs, what opens and closes it, and what it comes to.

[R<n>] is a row of `docs/interpretations.md`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from copy import deepcopy
from dataclasses import replace
from functools import cached_property
from typing import Any

from .callbacks import Callbacks
from .logged import Handed
from .oracle import UserError
from .state import Events, Expected

__all__ = ["Calls"]


class Calls(Callbacks):
    """`trainer.fit()` and its siblings, and what users do between them."""

    # ---- what they run: see pseudocode.py ---------------------------------------------------------

    def fit(self) -> Events:
        raise NotImplementedError

    def evaluate(self, function: str) -> Events:
        raise NotImplementedError

    # ---- one after the other ----------------------------------------------------------------------

    def all_calls(self) -> Events:
        """One after the other, until one raises."""
        with suppress(UserError):
            for call in self.s.calls:
                yield from self.call(call)

    def call(self, call: str) -> Events:
        """One, by its name in scenarios."""
        if call == "another":
            self.begin_anew()
        elif call == "append":
            self.append_callback()
        elif call == "save":
            yield from self.save()
        elif call == "load":
            yield from self.load_from_checkpoint()
        elif call in ("freeze", "unfreeze"):
            yield from self.freeze(call)
        elif self.s.spawns:
            yield from self.call_elsewhere(call)
        else:
            yield from self.run(call)

    def run(self, function: str) -> Events:
        """`trainer.fit()` and its siblings: what was opened is closed, whatever happens."""
        resuming: dict[str, Any] = {}
        if function.startswith("resume"):
            self.new_trainer()
            resuming, function = self.saved_last if function == "resume-last" else self.saved, "fit"
        self.returns_predictions = function != "predict-unreturned"
        function, self.tested = function.partition("-")[0], self.file_to_test(function)
        body = self.fit if function == "fit" else lambda: self.evaluate(function)
        self.should_stop, self.opened, self.scope = self.should_stop and self.remembers_stop, True, function
        self.due_looks.clear()
        self.missed.clear()
        self.rated = -1
        self.loaded, self.asked_before = {}, {}
        self.overfits = function == "fit" and self.options["overfit_batches"] > 0
        self.called, self.callbacks = function, self.callbacks_of("trainer")
        yield self.event("B", "trainer", function, {})
        self.resuming, self.batches_done, self.in_epoch = resuming, 0, False
        self.predictions, self.status = None, "finished"
        self.grad_enabled = None if self.s.no_grad else True
        self.begin_call()
        try:
            yield from body()
        except UserError as raised:
            yield from self.end_early(function, raised)
            self.status = self.status_after(raised)
            if not self.is_swallowed(raised):
                yield self.event("E", "trainer", function, {"raised": raised.text, "status": self.status})
                raise
        yield self.event("E", "trainer", function, {**self.made(function), "status": self.status})

    def begin_call(self) -> None:
        """Nothing is logged yet; a fit that resumes is where the checkpoint's was. Processes begin with what the first
        one has [R104]."""
        self.nothing_logged()
        self.numbers.apart = False
        self.epoch, self.step = self.resuming.get("epoch", self.epoch), self.resuming.get("step", self.step)

    def end_early(self, function: str, raised: UserError) -> Events:
        """An exception ends the call: what was opened is closed."""
        self.predictions = None
        self.put_into_mode(True)
        self.grad_enabled, self.scope = True, function
        self.in_sanity_check, self.optimizer_idx, self.piece, self.part = False, None, None, None
        self.logged.abandon()
        yield from self.closing("on_exception")
        if self.opened:
            yield from self.closing("teardown", stage=function)

    def closing(self, hook: str, **args: Any) -> Events:
        """After an exception: what a closing hook raises itself does not hide the first one."""
        with suppress(UserError):
            yield from self.hook(hook, **args)

    def status_after(self, raised: UserError) -> str:
        """What the trainer says of a call that an exception has ended [R67]."""
        return "interrupted" if raised.text.startswith("KeyboardInterrupt") else "failed"

    def is_swallowed(self, raised: UserError) -> bool:
        """Whether the caller does not get to see the exception."""
        return raised.text.startswith("KeyboardInterrupt")

    # ---- what it comes to -------------------------------------------------------------------------

    def made(self, function: str) -> dict[str, Any]:
        """What the call has come to: predictions, or what it returns and a logger was given."""
        made = self.kept(function)
        if function == "predict":
            return {**made, "results": self.predictions if self.returns_predictions else None}
        if function == "fit" and self.saving and self.knows_files and self.is_computed and not self.rank:
            made["files"] = self.files_left()
        if not self.s.has_logger or not self.is_computed:
            return made
        handed = sorted(self.handed().items())
        made["logger_names"] = [name for name, given in handed for _ in given]
        made["logger_values"] = [each.value for _, given in handed for each in given]
        made["logger_steps"] = [each.step for _, given in handed for each in given]
        return {**made, **self.returned(function)}

    def kept(self, function: str) -> dict[str, Any]:
        """The module's hyperparameters; a fit tells loggers of them, and of those of the data module [R51]."""
        model = self.s.model
        if not model.hyperparameters:
            return {}
        kept: dict[str, Any] = {"hparams": self.hparams()}
        if function == "fit" and self.status == "finished":  # else it may have been too early
            told = self.hparams_told() if model.hyperparameters_logged else []
            told += ["arg4=4"] if self.datamodule() and self.s.data.hyperparameter else []
            kept["logger_hparams"] = told if self.has_loggers else []
        return kept

    def returned(self, function: str) -> dict[str, Any]:
        """What the call returns, of what was logged; another's predictions not."""
        if function not in ("validate", "test"):
            return {"results": None} if function == "predict" else {}
        over, stage = self.logged.over, {"validate": "val"}.get(function, function)
        told = over.returned(len(self.s.loaders(stage))) if over else []
        return {"returned_names": [name for name, _ in told], "returned_values": [value for _, value in told]}

    def handed(self) -> dict[str, list[Handed]]:
        """What loggers were given."""
        return self.logged.handed if self.has_loggers else {}

    @property
    def has_loggers(self) -> bool:
        """Whether there are any: they are of process 0 alone [R106]; and none with fast_dev_run."""
        return not (self.rank or self.options["fast_dev_run"])

    # ---- in other processes -----------------------------------------------------------------------

    def call_elsewhere(self, call: str) -> Events:
        """The processes that a call spawns run the function; this one has what process 0 has come to, but for
        predictions. [R107]"""
        function, first = call.partition("-")[0], self.process_zero
        yield self.event("B", "trainer", function, {})
        deque(first.run(call), maxlen=0)
        yield from self.bring_back(first, function)
        yield self.event("E", "trainer", function, {**first.returned(function), "status": "finished"})

    @cached_property
    def process_zero(self) -> Calls:
        """The first of the processes, over all calls."""
        return type(self)(replace(self.s, trainer={**self.s.trainer, "strategy": "ddp"}))

    def bring_back(self, first: Calls, function: str) -> Events:
        """The weights, where the trainer is, and by the queue what was logged. In which order, nobody says."""
        for ph in ("B", "E"):
            yield Expected(ph, "module", "get_from_queue", {}, {}, self.scope)
        self.epoch, self.step = first.epoch, first.step
        self.logged.kept = first.logged.known()
        self.take_weights(first)

    def take_weights(self, first: Calls) -> None:
        """Those of another process, which may be new."""
        self.updates += self.numbers.layers != first.numbers.layers
        self.numbers.layers, self.numbers.begun = deepcopy(first.numbers.layers), first.numbers.begun

    def decisive(self) -> dict[str, float]:
        """That of process 0 [R102], who looks at the same moments."""
        if self.rank:
            return next(self.looks_of_zero)
        return self.look()

    def look(self) -> dict[str, float]:
        """What this process has logged, remembered where others may go by it."""
        known = self.logged.read()
        if self.s.processes > 1:
            self.looks.append(known)
        return known

    @cached_property
    def looks_of_zero(self) -> Iterator[dict[str, float]]:
        """What that process looks at, over all calls."""
        zero = type(self)(self.s)
        for _ in zero.all_calls():
            yield from zero.looks
            zero.looks.clear()
