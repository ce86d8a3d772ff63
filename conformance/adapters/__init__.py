"""Adapters: one per trainer, from a scenario to a trace. They run in the trainer's own world.

A trainer is named by one of ADAPTERS, or by a class in a file of the user's own: `my_trainer.py:MyAdapter`.
"""

from __future__ import annotations

import functools
import importlib.util
import os
import sys
from typing import Any, Callable, Dict

from ..near import did_you_mean

__all__ = ["ADAPTERS", "UnknownTrainer", "check_name", "load_adapter"]


class UnknownTrainer(ValueError):
    """There is no adapter of that name; the message lists the known ones and the nearest."""


def _refimpl() -> Any:
    from .refimpl import RefimplAdapter

    return RefimplAdapter()


def _lightning(version: str) -> Callable[[], Any]:
    def load() -> Any:
        from .lightning import LightningAdapter

        return LightningAdapter(version)

    return load


ADAPTERS: Dict[str, Callable[[], Any]] = {
    "refimpl": _refimpl,
    "lightning@2.6.6": _lightning("2.6.6"),
    "lightning@1.9.5": _lightning("1.9.5"),
    "lightning@1.5.10": _lightning("1.5.10"),
    "lightning@1.4.9": _lightning("1.4.9"),
}


def check_name(name: str) -> None:
    """Raises UnknownTrainer if there is no adapter of that name, or no file."""
    path, _, own = name.rpartition(":")
    if path.endswith(".py") and own:
        if not os.path.isfile(path):
            raise UnknownTrainer("no file %s for the adapter %s" % (path, own))
    elif name not in ADAPTERS:
        hint = did_you_mean(name, ADAPTERS, cutoff=0.3)
        known = ", ".join((*ADAPTERS, "or FILE.py:CLASS of your own"))
        raise UnknownTrainer("no trainer %r%s (all: %s)" % (name, hint, known))


def load_adapter(name: str) -> Any:
    """The adapter of that name, or one of the class in that file, which may import what lies beside it. Raises
    UnknownTrainer."""
    check_name(name)
    return ADAPTERS[name]() if name in ADAPTERS else _own(*name.rsplit(":", 1))


def _own(path: str, name: str) -> Any:
    spec = importlib.util.spec_from_file_location("own_" + os.path.basename(path)[: -len(".py")], path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.path.insert(0, os.path.dirname(os.path.abspath(path)))
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    kind = getattr(module, name, None)
    if not isinstance(kind, type) or not hasattr(kind, "run") or not hasattr(kind, "header"):
        own = [each for each, value in vars(module).items() if isinstance(value, type) and hasattr(value, "run")]
        raise UnknownTrainer(
            "%s has no adapter %s%s; accepted: a class with `header` and `run`, such as one of LightningLikeAdapter"
            % (path, name, did_you_mean(name, own, cutoff=0.3))
        )
    adapter = kind()
    adapter.again = functools.partial(_own, path, name)
    return adapter
