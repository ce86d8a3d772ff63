"""Import a Lightning release in the world it finds itself in, however much younger than it.

This file runs beside the release, so it keeps to Python 3.8's syntax and the standard library.
In the period world of 1.5.10 (Python 3.9, torch 1.10), and for 2.x anywhere, every repair of an
import finds nothing to do. Each one states what went missing; none touches what a training loop does.
"""

from __future__ import annotations

import atexit
import collections
import collections.abc
import contextlib
import importlib
import importlib.metadata
import importlib.util
import os
import sys
import time
import types
import warnings
from typing import Any

__all__ = ["import_lightning"]

STANDINS = os.path.join(os.path.dirname(os.path.abspath(__file__)), "standins")


def import_lightning(version: str) -> Any:
    """The module `pytorch_lightning` in exactly `version`, repaired where the world has moved on.

    Raises ImportError when the release is absent, or when another version is found in its place.
    Warnings of the release's own import are dropped; filters for what follows stay as they were.
    """
    _check(version, _distribution_version(), "this environment")
    importlib.import_module("torch")  # so that what torch warns of is not mistaken for the release's
    undo = _before_import() if version.startswith("1.") else []
    try:
        with warnings.catch_warnings(record=True):  # recorded, for torch forces some past any filter
            warnings.simplefilter("ignore")
            if version.startswith("1."):
                _import_early()
            module = importlib.import_module("pytorch_lightning")
    finally:
        for name in undo:
            sys.modules.pop(name, None)
    _check(version, module.__version__, os.path.dirname(module.__file__ or "?"))
    if version.startswith("1."):
        _after_import()
    atexit.register(_end_group)
    return module


def _check(wanted: str, found: str | None, where: str) -> None:
    """Refuse another version, before its import fails for reasons that are beside the point."""
    if found is not None and found != wanted:
        raise ImportError(f"asked for pytorch-lightning {wanted}, found {found} in {where}")


def _distribution_version() -> str | None:
    """What is installed, as its metadata say; None for a bare source tree."""
    try:
        return importlib.metadata.version("pytorch-lightning")
    except importlib.metadata.PackageNotFoundError:
        return None


def _before_import() -> list[str]:
    """Put back what 1.x imports and the world has dropped; the modules to forget once it is in."""
    # setuptools stopped bringing pkg_resources. Appended, so that a real one would win.
    if importlib.util.find_spec("pkg_resources") is None and STANDINS not in sys.path:
        sys.path.append(STANDINS)
    # The aliases of collections.abc left collections in Python 3.10 (used by tbptt_split_batch).
    if not hasattr(collections, "Sequence"):
        setattr(collections, "Sequence", collections.abc.Sequence)  # noqa: B010
    # numpy 2 has no Inf (used by EarlyStopping and ModelCheckpoint).
    numpy: Any = importlib.import_module("numpy")
    if not hasattr(numpy, "Inf"):
        numpy.Inf = numpy.inf
    # In torch 2 the name is a subclass of the public base class, so schedulers are no instances of it.
    schedulers: Any = importlib.import_module("torch.optim.lr_scheduler")
    base = getattr(schedulers, "LRScheduler", None)
    if base is not None and not issubclass(schedulers.StepLR, getattr(schedulers, "_LRScheduler", ())):
        schedulers._LRScheduler = base
    # torch.load refuses by default, since 2.6, the plain objects that 1.x keeps in its checkpoints.
    if base is not None:
        os.environ.setdefault("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    # Its logger package imports tensorboard, which nothing here logs to.
    if importlib.util.find_spec("tensorboard") is None:
        return _pretend_tensorboard()
    return []


def _import_early() -> None:
    """What 1.x imports when the first module is made, whose warning belongs to the import."""
    with contextlib.suppress(ImportError):  # older and newer versions of torch do without it
        importlib.import_module("torch.distributed._sharded_tensor")


def _pretend_tensorboard() -> list[str]:
    """Modules that satisfy the import of the tensorboard logger; using it says what is missing."""

    class SummaryWriter:
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            raise ModuleNotFoundError("tensorboard is not installed here: pass logger=False")

    made = []
    for name, content in (
        ("torch.utils.tensorboard", {"SummaryWriter": SummaryWriter}),
        ("torch.utils.tensorboard.summary", {"hparams": SummaryWriter}),
    ):
        if name not in sys.modules:
            module = types.ModuleType(name)
            module.__dict__.update(content)
            sys.modules[name] = module
            made.append(name)
    return made


def _after_import() -> None:
    # Enums of strings format as their value, as they did until Python 3.12 (3.11 in part).
    enums: Any = importlib.import_module("pytorch_lightning.utilities.enums")
    kinds = [enums.LightningEnum]
    while kinds:
        kind = kinds.pop()
        kinds.extend(kind.__subclasses__())
        members = list(kind)
        if members and format(members[0]) != members[0].value:
            kind.__format__ = _format_value


def _end_group() -> None:
    """A process that a release has spawned ends with its gloo group still there. A thread of that drops the last
    work's tensors, for which it takes the interpreter's lock: where the interpreter has begun to end, that aborts the
    process. So it is given the lock before."""
    distributed: Any = importlib.import_module("torch.distributed")
    if distributed.is_available() and distributed.is_initialized():
        distributed.destroy_process_group()
        time.sleep(0.1)


def _format_value(self: Any, spec: str) -> str:
    """How Python formatted a member of an enum of strings when the release was written."""
    return format(str(self.value), spec)
