"""The model summary as an object that is printed."""

from __future__ import annotations

from ..callbacks.summary import summarize
from ..errors import ConfigurationError
from ..module import LightningModule

__all__ = ["ModelSummary", "summarize"]


class ModelSummary:
    """The table of `summarize(model, max_depth)`, as `print` and `str` show it, and its numbers of parameters.

    `mode` is the older way to say 1 ("top") or -1 ("full"). Raises ConfigurationError for another value.
    """

    def __init__(self, model: LightningModule, mode: str | None = None, max_depth: int = 1) -> None:
        if mode not in (None, "top", "full"):
            raise ConfigurationError(f"mode={mode!r}; 'top' or 'full' is accepted, or max_depth instead of it")
        self._table = summarize(model, {None: max_depth, "top": 1, "full": -1}[mode])
        self.total_parameters = sum(p.numel() for p in model.parameters())
        self.trainable_parameters = sum(p.numel() for p in model.parameters() if p.requires_grad)

    def __str__(self) -> str:
        return self._table

    __repr__ = __str__
