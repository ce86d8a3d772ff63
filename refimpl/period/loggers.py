"""What loggers of the period are derived from."""

from __future__ import annotations

import functools
from abc import ABC
from argparse import Namespace
from collections.abc import Callable
from typing import Any

from ..loggers.loggers import Logger, SilentLogger, _flat
from ..utilities import rank_zero_only

__all__ = ["LightningLoggerBase", "rank_zero_experiment"]


class LightningLoggerBase(Logger, ABC):
    """A logger that `save`s when a run is over; every `Logger` counts as an instance.

    One of your own has `name`, `version`, `experiment`, `log_metrics(metrics, step)` and `log_hyperparams(params)`.
    """

    @classmethod
    def __subclasshook__(cls, other: type) -> Any:
        return issubclass(other, Logger) if cls is LightningLoggerBase else NotImplemented

    def finalize(self, status: str) -> None:
        """A run is over: "success", "interrupted" or "failed"."""
        self.save()

    def close(self) -> None:
        """Nothing is logged any more, as the script says that calls it."""
        self.save()

    @staticmethod
    def _convert_params(params: Any) -> dict[str, Any]:
        return dict(vars(params) if isinstance(params, Namespace) else params or {})

    _flatten_dict = _sanitize_params = staticmethod(_flat)


def rank_zero_experiment(experiment: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Of a logger's `experiment`: where it is None, or this process not that of rank 0, one that does nothing."""

    @functools.wraps(experiment)
    def on_rank_zero(self: Any) -> Any:
        return rank_zero_only(experiment)(self) or SilentLogger().experiment

    return on_rank_zero
