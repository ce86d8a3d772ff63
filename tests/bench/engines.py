"""Trainers with Lightning's interface, quiet: everything is switched off that they do beside the loop."""

from __future__ import annotations

import io
from contextlib import redirect_stderr, redirect_stdout
from typing import Any

from .measure import Batches, Run
from .modules import Watching, made

__all__ = ["Engine"]

OFF = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}


class Engine:
    """`package` is such a trainer; `off` is what else of it has to be switched off, `silent` what `validate` takes
    in order to print nothing."""

    def __init__(self, package: Any, off: dict[str, Any] | None = None, silent: dict[str, Any] | None = None) -> None:
        self.package, self.off, self.silent = package, {**OFF, **(off or {})}, silent or {}

    def _made(self, kind: type) -> Any:
        return made(kind, self.package.LightningModule)

    def fit(self, kind: type, callbacks: int = 0, **options: Any) -> Run:
        """Training for one epoch, with so many callbacks."""

        def run(data: Batches) -> None:
            watching = [made(Watching, self.package.Callback) for _ in range(callbacks)]
            trainer = self.package.Trainer(max_epochs=1, callbacks=watching, **{**self.off, **options})
            with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):  # where progress bars go
                trainer.fit(self._made(kind), data)

        return run

    def validate(self, kind: type) -> Run:
        """A pass over the validation batches."""
        return lambda data: self.package.Trainer(**self.off).validate(self._made(kind), data, **self.silent)

    def predict(self, kind: type) -> Run:
        """Predictions, of which none is kept."""
        return lambda data: self.package.Trainer(**self.off).predict(self._made(kind), data, return_predictions=False)
