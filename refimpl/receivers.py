"""Who receives the hooks of a run: the module, its data module, and the callbacks, of the trainer and of the module."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from .callback import Callback
from .dispatch import resolve
from .errors import ConfigurationError
from .hooks import Hooks
from .loaders.datamodule import LightningDataModule
from .types import LightningModule, Trainer

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
        self.take(callbacks)

    def take(self, callbacks: Iterable[Callback]) -> None:
        """These take part from the next run on; those that save the run at the end: they save what the others did."""
        self._own = self.callbacks = sorted(callbacks, key=lambda callback: callback._saves)

    def resolve(
        self, trainer: Trainer, module: LightningModule, datamodule: LightningDataModule | None,
        adapt: Callable[[dict[str, Any]], None]
    ) -> Hooks:  # fmt: skip
        """A run begins: what its loops call, as its devices `adapt` it. The last run's module has taken its callbacks
        with it, and those that they replaced come back."""
        known = {id(callback) for callback in (*self._own, *self._of_module)}
        self.take([*self._own, *(callback for callback in self.callbacks if id(callback) not in known)])
        self._of_module, self.hooks = [], Hooks()

        def fill() -> None:
            made = vars(self.resolved(trainer, module, datamodule))
            adapt(made)
            vars(self.hooks).update(made)  # the loops hold on to this object

        self.hooks._fill = fill
        fill()
        return self.hooks

    def resolved(self, trainer: Trainer, module: LightningModule, datamodule: LightningDataModule | None) -> Hooks:
        """Everything that the loops will call."""
        return resolve(trainer, module, datamodule, self.callbacks)

    def add(self, configured: Iterable[Callback] | Callback | None) -> None:
        """Take in what `configure_callbacks` returned, for this run: each replaces those of its kind."""
        self._of_module = new = callbacks_of(configured)
        kinds = {type(callback) for callback in new} | {cb._kind for cb in new if cb._kind}
        kept = [callback for callback in self._own if not {type(callback), callback._kind} & kinds]
        if new:
            self.callbacks = sorted([*kept, *new], key=lambda callback: callback._saves)
            self.hooks._fill()
