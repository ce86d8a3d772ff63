"""Several loaders as one, where a script makes it itself."""

from __future__ import annotations

from typing import Any

from ..errors import one_of
from ..loaders import combined

__all__ = ["CombinedLoader"]


class CombinedLoader(combined.CombinedLoader):
    """`loaders.combined.CombinedLoader`, for a loader hook to return: the batches of its loaders make one batch, in a
    validation too. Raises ConfigurationError for another `mode` than "min_size" and "max_size_cycle"."""

    def __init__(self, loaders: Any, mode: str = "min_size") -> None:
        super().__init__(loaders, one_of("mode", mode, combined.MODES))
