"""A step and its `*_step_end`: on the batch, or with DP on each part of it.

[R<n>] are rows of `docs/interpretations.md`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .oracle import OWN_WORDS, Events, Oracle, UserError

__all__ = ["Parts"]


class Parts(Oracle):
    """batches = split_batch(batch); outs = [step(sub_batch) for sub_batch in batches]; out = step_end(outs)"""

    def run_step(
        self, name: str, where: dict[str, Any], form: str, inside: Callable[[], Events] | None = None
    ) -> Events:
        """The step on its batch, or once for each part. What it makes, in that form, waits for `step_end`; returns what
        it was told to return last."""
        parts = self.numbers.parts_of(where["batch"]) if self.s.data_parallel else [None]
        self.forms, self.losses = [], []
        self.logged.take_batch()
        for self.part in parts:
            own = {"hiddens_row": self.part[0]} if self.part and where.get("hiddens", "none") != "none" else {}
            told = yield from self.hook(name, inside, **where, **own)
            self.forms.append("none" if told == "return-none" else form)
            if self.part is not None:
                self.losses.append(self.numbers.loss(where["batch"], self.piece, self.part))
        self.part = None
        if name == "training_step" and "none" in self.forms and self.refuses_none:
            raise UserError(OWN_WORDS)
        return told

    @property
    def refuses_none(self) -> bool:
        """Whether a training_step has to return a loss: that of a part or of a process, which others wait for [R9]."""
        return (self.s.data_parallel or self.s.processes > 1) and not self.s.model.manual

    def step_end(self, name: str) -> Events:
        """What `*_step_end` returns is the output from there on: in the scenarios, the other form. Without it, the
        parts are merged into one of their form [R12]."""
        forms = self.forms
        if not self.s.defines(f"{name}_step_end"):
            return forms[0] if len({*forms}) == 1 else f"list:{len(forms)}"
        given = self.parts() if self.s.data_parallel else {"outputs": forms[0]}
        yield from self.hook(f"{name}_step_end", **given)
        return "none" if "none" in forms else {"tensor": "dict", "dict": "tensor"}[forms[0]]

    def parts(self) -> dict[str, Any]:
        """What `*_step_end` gets: the outputs of the parts, in order, that answer in every way that is documented."""
        given = {"outputs": f"list:{len(self.forms)}", "parts": self.forms}
        if not self.is_exact or "none" in self.forms:
            return given
        ways = ("losses", "by_index", "by_attribute", *(["by_key"] if self.forms[0] == "dict" else []))
        return {**given, **dict.fromkeys(ways, self.losses)}
