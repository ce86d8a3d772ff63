"""Adapters: one per trainer, from a scenario to a trace. They run in the trainer's own world."""

from __future__ import annotations

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
    "lightning@1.5.10": _lightning("1.5.10"),
}


def check_name(name: str) -> None:
    """Raises UnknownTrainer if there is no adapter of that name."""
    if name not in ADAPTERS:
        hint = did_you_mean(name, ADAPTERS, cutoff=0.3)
        raise UnknownTrainer("no trainer %r%s (all: %s)" % (name, hint, ", ".join(ADAPTERS)))


def load_adapter(name: str) -> Any:
    """The adapter of that name. Raises UnknownTrainer."""
    check_name(name)
    return ADAPTERS[name]()
