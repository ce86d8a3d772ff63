"""Modules by the names that they had: one table, and modules that are made of it when a script imports them.

A file of re-exports for each would say the same thirty times over. What a table costs is that type checkers and
editors see nothing in it; whoever uses them finds everything in the places of today.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from functools import partial
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

from ..errors import did_you_mean

__all__ = ["GONE", "MODULES", "install"]

ROOT = __name__.partition(".")[0]
# Modules of today, and those of the period that have their names. The last are files of their own.
_PLACES = {
    "callback": "callbacks.base",
    "callbacks": "callbacks.progress callbacks.progress.progress callbacks.progress.tqdm_progress",
    "callbacks.summary": "callbacks.model_summary",
    "period.datamodule": "core core.datamodule",
    "hooks": "core.hooks",
    "loggers.loggers": "loggers.base loggers.csv_logs loggers.logger loggers.tensorboard",
    "optimizers.manual": "core.optimizer",
    "module": "core core.lightning",
    "period.callbacks": "callbacks callbacks.lambda_function callbacks.progress callbacks.progress.progress "
    "callbacks.progress.tqdm_progress",
    "period.loggers": "loggers loggers.base loggers.logger",
    "period.trainer": "trainer",
    "saving.config": "utilities.parsing",
    "saving.hparams": "core.mixins",
    "seed": "utilities.seed",
    "utilities": "core.decorators utilities.apply_func utilities.distributed utilities.exceptions utilities.rank_zero "
    "utilities.signature_utils utilities.warnings",
    "utilities.model_summary": "core.memory",
    "": "trainer.supporters utilities.model_summary utilities.types",
}
#: By the name of a module of the period: the modules of today.
MODULES: dict[str, list[str]] = {}
for _today, _paths in _PLACES.items():
    for _path in _paths.split():
        MODULES.setdefault(_path, []).extend([_today] if _today else [])
# What is not here under any name, by the last part of its name, and what to do instead.
GONE = {
    name: instead
    for instead, names in {
        "torchmetrics has it now: from torchmetrics import functional, Accuracy, ...": "metrics",
        "there is no LightningCLI; Trainer.add_argparse_args takes options from the command line": "cli",
        "options say it, such as Trainer(devices=2, strategy='ddp'), see docs/distributed.md": """
            accelerators overrides plugins strategies DDPPlugin DDPSpawnPlugin DDPStrategy DDPSpawnStrategy""",
        "this engine has nothing of the kind, so leave it out": "lite profiler profilers tuner",
        "a class of your own derived from refimpl.Logger can write to it, see docs/logging.md": """
            comet CometLogger mlflow MLFlowLogger neptune NeptuneLogger test_tube TestTubeLogger wandb WandbLogger""",
    }.items()
    for name in names.split()
}


def fill(module: ModuleType, path: str) -> None:
    """Give the module the names that the table has for it."""
    sources = [import_module(f"{ROOT}.{today}") for today in MODULES.get(path, ())]
    names = {name: getattr(source, name) for source in sources for name in source.__all__}
    known = {*names, *vars(module).get("__all__", ())}
    vars(module).update(names, __all__=sorted(known), __getattr__=partial(inner, path))


def inner(path: str, name: str) -> Any:
    """A module within that of `path`. Raises AttributeError for another name, which says what there is."""
    full = f"{path}.{name}".strip(".")
    if full in MODULES:
        return import_module(f"{ROOT}.{full}")
    raise AttributeError(missing(path, name))


def missing(path: str, name: str) -> str:
    """What is said of a name that the module does not have."""
    module = f"{ROOT}.{path}".strip(".")
    if name in GONE:
        return f"{module} has no {name!r}: {GONE[name]}"
    there = getattr(sys.modules[module], "__all__", [])
    return f"{module} has no {name!r}; there is {', '.join(there) or 'nothing'}{did_you_mean(name, there)}"


class Finder(MetaPathFinder, Loader):
    """Whom Python asks for a module for which there is no file, and, as it does after `from package import name`, for a
    name that a package lacks."""

    def find_spec(self, fullname: str, path: Sequence[str] | None = None, target: Any = None) -> ModuleSpec | None:
        """Raises ModuleNotFoundError, which says what there is."""
        root, _, name = fullname.partition(".")
        package, _, last = name.rpartition(".")
        if root != ROOT or last.startswith("_"):
            return None
        if name not in MODULES:
            raise ModuleNotFoundError(missing(package, last))
        return ModuleSpec(fullname, self, is_package=True)

    def exec_module(self, module: ModuleType) -> None:
        """Python has made the module."""
        fill(module, module.__name__.partition(".")[2])


def install() -> None:
    """From now on scripts find the period's modules, and in the packages of today the names that they had then."""
    if not any(type(finder).__qualname__ == "Finder" for finder in sys.meta_path):  # nor that of another copy of this
        sys.meta_path.append(Finder())
    for path in ("", "callbacks", "loggers", "trainer", "utilities"):
        fill(sys.modules[f"{ROOT}.{path}".strip(".")], path)
