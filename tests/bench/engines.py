"""Trainers with Lightning's interface, quiet: everything is switched off that they do beside the loop."""

from __future__ import annotations

import io
from contextlib import redirect_stderr, redirect_stdout
from typing import Any

from .measure import Batches, Run
from .modules import Watching, made

__all__ = ["Engine"]

OFF = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False)


class Engine:
    """`package` is such a trainer; `options` are those that it needs beside."""

    def __init__(self, package: Any, **options: Any) -> None:
        self.package, self.options = package, {**OFF, **options}

    def _trainer(self, **options: Any) -> Any:
        return self.package.Trainer(max_epochs=1, **{**self.options, **options})

    def _made(self, kind: type) -> Any:
        return made(kind, self.package.LightningModule)

    def fit(self, kind: type, callbacks: int = 0, **options: Any) -> Run:
        """Training for one epoch, with so many callbacks."""

        def run(data: Batches) -> None:
            watching = [made(Watching, self.package.Callback) for _ in range(callbacks)]
            trainer = self._trainer(callbacks=watching, **options)
            with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):  # where progress bars go
                trainer.fit(self._made(kind), data)

        return run

    def validate(self, kind: type) -> Run:
        """A pass over the validation batches."""
        return lambda data: self._trainer().validate(self._made(kind), data, verbose=False)

    def predict(self, kind: type) -> Run:
        """Predictions, of which none is kept."""
        return lambda data: self._trainer().predict(self._made(kind), data, return_predictions=False)
