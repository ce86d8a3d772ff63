"""Checkpoints: what of a run goes into its file (`file.py`), and how a run and a module get it back.

Its keys are those of the period where they mean the same: "epoch" and "global_step" (how many are done),
"state_dict", "optimizer_states", "lr_schedulers", "callbacks", "hyper_parameters". What the loops need to go on
in mid-epoch is under "loops" (`resume.py`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..errors import warn
from .config import settings_in
from .file import read
from .hparams import init_arguments
from .shape import fitting

__all__ = ["load_from_checkpoint"]


def load_from_checkpoint(cls: type[Any], source: Any, map_location: Any, hparams_file: Any, strict: bool,
                         weights_only: bool, overrides: Mapping[str, Any]) -> Any:  # fmt: skip
    """For `LightningModule.load_from_checkpoint`."""
    checkpoint = read(source, map_location, weights_only)
    if hparams_file is not None:
        checkpoint |= {"hyper_parameters": settings_in(hparams_file), "hparams_kinds": {}}
    positional, named = init_arguments(cls, checkpoint, overrides)
    module = cls(*positional, **named)
    module.on_load_checkpoint(checkpoint)
    with fitting(f"{source!r}: state_dict", type(module).__name__):
        missing, unexpected = module.load_state_dict(checkpoint["state_dict"], strict) or ((), ())
    if missing or unexpected:
        warn(
            f"{source!r} does not fit {cls.__name__} in all: it lacks {missing}, which stay as they were made, and "
            f"has {unexpected} besides, which are left out"
        )
    return module
