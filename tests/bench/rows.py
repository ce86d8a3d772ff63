"""The table: what a trainer runs, the same by hand, and the limits that `refimpl` keeps."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import refimpl

from . import by_hand
from .engines import Engine
from .measure import Run
from .modules import Evaluated, LogsOne, LogsTen, Pieces, Plain, TwelveHooks, TwoOptimizers

__all__ = ["REFIMPL", "ROWS", "Row"]

REFIMPL = Engine(refimpl)


class Row(NamedTuple):
    """`ratio` is time per batch to that of the loop by hand, `calls` the function calls per batch, both at most.
    Lightning 2 has neither several optimizers in automatic optimization nor truncated BPTT."""

    name: str
    run: Callable[[Engine], Run]
    bare: Run
    ratio: float
    calls: int
    lightning: bool = True


ROWS = [
    Row("training step, nothing overridden", lambda engine: engine.fit(Plain), by_hand.train, 1.10, 172),
    Row("all twelve hooks of a batch overridden", lambda engine: engine.fit(TwelveHooks), by_hand.train, 1.12, 190,
        lightning=False),
    Row("accumulation, windows of 4", lambda engine: engine.fit(Plain, accumulate_grad_batches=4), by_hand.accumulate,
        1.12, 90),
    Row("two optimizers", lambda engine: engine.fit(TwoOptimizers), by_hand.two_optimizers, 1.12, 465,
        lightning=False),
    Row("truncated BPTT, a batch in four pieces", lambda engine: engine.fit(Pieces), by_hand.pieces, 1.12, 740,
        lightning=False),
    Row("one self.log(on_step, on_epoch)", lambda engine: engine.fit(LogsOne), by_hand.train, 1.15, 188),
    Row("ten self.log(on_step, on_epoch)", lambda engine: engine.fit(LogsTen), by_hand.log_ten, 1.10, 280),
    Row("five callbacks", lambda engine: engine.fit(Plain, callbacks=5), by_hand.call(5), 1.12, 200),
    Row("twenty callbacks", lambda engine: engine.fit(Plain, callbacks=20), by_hand.call(20), 1.12, 230),
    Row("the progress bar", lambda engine: engine.fit(Plain, enable_progress_bar=True), by_hand.progress_bar,
        1.15, 190),
    Row("validation batch", lambda engine: engine.validate(Evaluated), by_hand.evaluate, 1.30, 24),
    Row("prediction batch", lambda engine: engine.predict(Evaluated), by_hand.evaluate, 1.30, 24),
]  # fmt: skip
