"""A step and its `*_step_end`: on the batch, or with DP on each part of it.

[R<n>] are rows of `docs/interpretations.md`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from statistics import fmean
from typing import Any

from .oracle import Oracle, UserError
from .outputs import Output, form_of
from .state import OWN_WORDS, Events

__all__ = ["Parts"]


class Parts(Oracle):
    """batches = split_batch(batch); outs = [step(sub_batch) for sub_batch in batches]; out = step_end(outs)"""

    def run_step(
        self, name: str, where: dict[str, Any], form: str, inside: Callable[[], Events] | None = None
    ) -> Events:
        """The step on its batch, or once for each part. What it makes, in that form, waits for `step_end`; returns what
        it was told to return last."""
        parts = self.numbers.parts_of(where["batch"]) if self.s.data_parallel else [None]
        self.outs = []
        self.logged.take_batch()
        for self.part in parts:
            own = {"hiddens_row": self.part[0]} if self.part and where.get("hiddens", "none") != "none" else {}
            self.batch = where["batch"]
            self.value = None if form == "none" else self.mean(name)
            body = partial(self.begin_step, inside) if name == "training_step" else inside
            told = yield from self.hook(name, body, **where, **own)
            self.outs.append(None if told == "return-none" or form == "none" else Output(form, self.value))
        self.part = None
        if name == "training_step" and None in self.outs and self.refuses_none:
            raise UserError(OWN_WORDS)
        return told

    def begin_step(self, inside: Callable[[], Events] | None) -> Events:
        """A training step, which the module counts in a buffer: those of DP's other devices are copies."""
        self.numbers.begun += self.part is None or self.part.start == 0
        self.numbers.apart = True
        yield from inside() if inside else ()

    def mean(self, name: str) -> float | None:
        """Of the loss or of the predictions that a step makes of its batch or of the part that it runs on."""
        of = self.numbers.prediction if name == "predict_step" else self.numbers.loss
        return of(str(self.batch), self.piece, self.part) if self.is_computed else None

    @property
    def refuses_none(self) -> bool:
        """Whether a training_step has to return a loss: that of a part or of a process, which others wait for, or one
        to be scaled [R9]."""
        refuses = self.s.option("devices") > 1 or self.s.processes > 1 or self.options["precision"] == 16
        return refuses and not self.s.model.manual

    def step_end(self, name: str) -> Events:
        """What `*_step_end` returns is the output from there on: in the scenarios, the other form. Without it, the
        parts are merged into one of their form, which counts their samples alike [R12]."""
        outs, first = self.outs, self.outs[0]
        if not self.s.defines(f"{name}_step_end"):
            if len(outs) == 1 or not any(outs):
                return first
            return outs if first is None or None in outs else Output(first.form, self.mean(f"{name}_step"))
        times = self.numbers.times_ended if name == "training" else 1
        self.value = times * fmean(self.losses) if self.is_computed and all(outs) else None
        yield from self.hook(f"{name}_step_end", **(self.parts() if self.s.data_parallel else {"outputs": first}))
        if first is None or None in outs:
            return None
        return Output({"tensor": "dict", "dict": "tensor"}[first.form], self.value)

    def parts(self) -> dict[str, Any]:
        """What `*_step_end` gets: the outputs of the parts, in order, that answer in every way that is documented."""
        forms = [form_of(out) for out in self.outs]
        given = {"outputs": self.outs, "parts": forms}
        if not self.is_computed or "none" in forms:
            return given
        ways = ("losses", "by_index", "by_attribute", *(["by_key"] if forms[0] == "dict" else []))
        return {**given, **dict.fromkeys(ways, self.losses)}

    @property
    def losses(self) -> list[float]:
        """Of each part."""
        return [out.value for out in self.outs if out is not None and out.value is not None]
