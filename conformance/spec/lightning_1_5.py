"""What pytorch-lightning 1.5 does instead of what the documentation says."""

from __future__ import annotations

from .lightning import Lightning

__all__ = ["Lightning15"]


class Lightning15(Lightning):
    """The pseudocode of 1.5."""
