"""Numbers: which precision the steps compute in."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

__all__ = ["PRECISIONS", "in_precision"]

PRECISIONS = (32, "bf16")


def in_precision(step: Callable[..., Any], precision: int | str, device: torch.device) -> Callable[..., Any]:
    """`step`, run under autocast where the precision asks for it; at 32, `step` itself."""
    if precision == 32:
        return step

    def in_autocast(*args: Any) -> Any:
        with torch.autocast(device.type, dtype=torch.bfloat16):
            return step(*args)

    return in_autocast
