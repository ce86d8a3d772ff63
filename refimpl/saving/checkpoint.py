"""Checkpoints: a run in one file, written whole or not at all, and read without running code of the file.

Its keys are those of the period where they mean the same: "epoch" and "global_step" (how many are done),
"state_dict", "optimizer_states", "lr_schedulers", "callbacks", "hyper_parameters". What the loops need to go on
in mid-epoch is under "loops" (`resume.py`).
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

import torch

from ..errors import CheckpointError
from .hparams import init_arguments

__all__ = ["load_from_checkpoint", "read", "write"]

# ---- the file --------------------------------------------------------------------------------------------


def write(checkpoint: Mapping[str, Any], path: str | os.PathLike[str]) -> None:
    """Save to `path`; until the new file is whole and on the disk, the old one stays in its place."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")  # created here: with the user's permissions
    try:
        with open(part, "wb") as file:
            torch.save(dict(checkpoint), file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def read(source: str | os.PathLike[str] | IO[bytes], map_location: Any = "cpu", weights_only: bool = True) -> Any:
    """The checkpoint in a file or a file object, its tensors on `map_location`.

    With `weights_only`, the file can hold tensors, numbers, strings and containers of these, and nothing of it is
    executed. Raises FileNotFoundError, and CheckpointError for anything that is no checkpoint.
    """
    try:
        checkpoint = torch.load(source, map_location=map_location, weights_only=weights_only)
    except FileNotFoundError:
        raise FileNotFoundError(f"there is no checkpoint {os.fspath(source)!r}") from None  # type: ignore[arg-type]
    except OSError:
        raise
    except Exception as error:  # whatever unpickling a damaged or hostile file comes to
        raise CheckpointError(f"{source!r} {_why_unreadable(error)}") from error
    is_mapping = isinstance(checkpoint, Mapping)
    if not is_mapping or not isinstance(checkpoint.get("state_dict"), Mapping):
        hint = "; weights alone are loaded by model.load_state_dict(torch.load(path))" if is_mapping else ""
        raise CheckpointError(f"{source!r} is no checkpoint: it has no 'state_dict'{hint}")
    return checkpoint


def _why_unreadable(error: Exception) -> str:
    foreign = re.search(r"(?:GLOBAL|class|function) ([\w.]+\.\w+)", str(error))
    if foreign and "Weights only load failed" in str(error):
        return (
            f"holds {foreign[1]}, and only tensors, numbers, strings and their containers are loaded: a pickled "
            "object can run any code. If you trust the file, pass weights_only=False, or name the class to "
            "torch.serialization.add_safe_globals"
        )
    said = str(error).rpartition("WeightsUnpickler error:")[2].strip() or type(error).__name__
    return f"is no checkpoint, or a damaged one: {said.splitlines()[0]:.200}"


def load_from_checkpoint(cls: type[Any], source: Any, map_location: Any, strict: bool, weights_only: bool,
                         overrides: Mapping[str, Any]) -> Any:  # fmt: skip
    """For `LightningModule.load_from_checkpoint`."""
    checkpoint = read(source, map_location, weights_only)
    module = cls(**init_arguments(cls, checkpoint, overrides))
    module.on_load_checkpoint(checkpoint)
    try:
        module.load_state_dict(checkpoint["state_dict"], strict)
    except RuntimeError as error:
        raise CheckpointError(f"{source!r} does not fit {cls.__name__}: {error}") from None
    return module
