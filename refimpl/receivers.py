"""Who receives the hooks of a run: the module, its data module, and the callbacks, of the trainer and of the module."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from .callback import Callback
from .dispatch import resolve
from .errors import ConfigurationError
from .hooks import Hooks
from .precision import in_precision

__all__ = ["Receivers", "callbacks_of"]


def callbacks_of(given: Callback | Iterable[Callback] | None) -> list[Callback]:
    """The callbacks in what the user gave: one, several, or None.

    Raises ConfigurationError for anything else.
    """
    several = isinstance(given, Iterable) and not isinstance(given, Callback)
    callbacks: list[Any] = [] if given is None else list(given) if several else [given]  # type: ignore[arg-type]
    for callback in callbacks:
        if not isinstance(callback, Callback):
            hint = " (not the class)" if isinstance(callback, type) else ""
            raise ConfigurationError(f"callbacks holds {callback!r}; an instance of Callback{hint} is accepted")
    return callbacks


class Receivers:
    """The callbacks of a trainer, and for each run what its loops call: `hooks`."""

    def __init__(self, callbacks: Iterable[Callback]) -> None:
        self.hooks = Hooks()
        self._of_module: list[Callback] = []  # for one run
        self._replaced: list[tuple[int, Callback]] = []  # by them, with their places
        self.take(callbacks)

    def take(self, callbacks: Iterable[Callback]) -> None:
        """These take part from the next run on; those that save the run at the end: they save what the others did."""
        self.callbacks = sorted(callbacks, key=lambda callback: callback._saves)

    def resolve(self, *owners: Any, precision: Callable[[], tuple[Any, Any]]) -> None:
        """A run begins: what its loops call, of a trainer, module and data module, its steps in the given precision. The
        last run's module has taken its callbacks with it, and those that they replaced come back."""
        self.callbacks = [cb for cb in self.callbacks if all(cb is not other for other in self._of_module)]
        for place, callback in self._replaced:
            self.callbacks.insert(place, callback)
        self._of_module, self._replaced = [], []
        self._owners, self._precision, self.hooks = owners, precision, Hooks()
        self._fill()

    def _fill(self) -> None:
        vars(self.hooks).update(vars(resolve(*self._owners, self.callbacks)))  # the loops hold on to this object
        for step in ("training_step", "validation_step", "test_step", "predict_step"):
            method = getattr(self.hooks, step)
            setattr(self.hooks, step, method and in_precision(method, *self._precision()))

    def add(self, configured: Iterable[Callback] | Callback | None) -> None:
        """Take in what `configure_callbacks` returned, for this run: each replaces those of its kind."""
        new = callbacks_of(configured)
        kinds = {type(callback) for callback in new} | {cb._kind for cb in new if cb._kind}
        replaced = [(i, cb) for i, cb in enumerate(self.callbacks) if {type(cb), cb._kind} & kinds]
        kept = [cb for cb in self.callbacks if all(cb is not other for _, other in replaced)]
        self._of_module, self._replaced = new, replaced
        self.take([*kept, *new])
        self._fill()
