"""self.log: what a run records, per step and per epoch.

Each pass (a training epoch, a validation, ...) opens a page in the logbook and closes it at its end.
A step's value is there at once; an epoch's, once the pass has seen its last batch. Nothing is
synchronised with the device before somebody reads a value.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ..errors import LogError
from ..types import LightningModule
from . import rules
from .entries import ADDS_LOADER, Entry, Page, Place, settled, syncs
from .loggers import Publisher

__all__ = ["Logbook"]


class Logbook:
    """The metrics of a trainer's runs, fed by `LightningModule.log`, read by callbacks and schedulers."""

    def __init__(self) -> None:
        self.batch: Any = None
        self.dataloader_idx: int | None = None
        self.publisher: Publisher | None = None  # where there are loggers
        self._pages: list[Page] = []
        self._kept: dict[str, dict[str, Any]] = {"callback": {}, "logged": {}, "progress_bar": {}}
        self._sized: Any = None
        self._batch_size = 1

    # ---- written by the loops --------------------------------------------------------------------

    def open(self) -> None:
        """A pass begins."""
        self._pages.append(Page())
        self.batch = self.dataloader_idx = None

    def next_epoch(self) -> None:
        """A training epoch is over, and the next one may follow in the same pass."""
        self.close()
        self._pages.append(Page())

    def enter_loader(self, dataloader_idx: int, several: bool) -> None:
        """The pass comes to its next loader; only where there are several do names tell them apart."""
        self._pages[-1].loaders = dataloader_idx + 1
        self.dataloader_idx = dataloader_idx if several else None

    def end_epoch(self) -> None:
        """The pass has seen its last batch: its epoch values can be read."""
        page = self._pages[-1]
        for entry in page.entries.values() if not page.ended else ():
            if entry.metric is None and entry.settings.on_epoch and syncs(entry.settings):
                entry.synchronize()
        page.ended = True
        self.batch = self._sized = self.dataloader_idx = None
        self._batch_size = 1

    def close(self, forget: bool = False) -> list[dict[str, float]]:
        """The pass is over; returns its epoch values, one dict per loader.

        With `forget` (the sanity check) nothing of it is kept.
        """
        self.end_epoch()
        page = self._pages.pop()
        if not forget:
            for kind, kept in self._kept.items():
                kept.update(self._read(page, kind))
            if self.publisher is not None:
                self.publisher.epoch(self._read(page, "logged", ("epoch",)), within_batch=bool(self._pages))
        results = self._by_loader(page)
        page.reset()
        return results

    def abandon(self) -> None:
        """A run failed: drop the pages it left open."""
        for page in self._pages:
            page.reset()
        self._pages.clear()
        self.batch = self._sized = self.dataloader_idx = None
        self._batch_size = 1

    # ---- saved in a checkpoint ---------------------------------------------------------------------

    def state_dict(self, module: LightningModule) -> dict[str, Any]:
        """What is known, and what the training epoch that runs has logged so far, as plain data."""
        page = self._pages[0] if self._pages else Page()
        entries = [(place, entry.state_dict(module)) for place, entry in page.entries.items()]
        return {"kept": {kind: dict(kept) for kind, kept in self._kept.items()}, "page": entries}

    def keep(self, kept: Mapping[str, Mapping[str, Any]]) -> None:
        """Know again what was known when the checkpoint was saved."""
        for kind, values in kept.items():
            self._kept[kind].update(values)

    def reopen(self, entries: Sequence[tuple[Any, Mapping[str, Any]]], module: LightningModule) -> None:
        """Go on with the page of the epoch that the checkpoint was saved in."""
        self._pages[-1].entries = {tuple(place): Entry.of(state, module) for place, state in entries}

    # ---- written by the user ---------------------------------------------------------------------

    def log(
        self, module: LightningModule, name: str, value: Any, batch_size: int | None, asked: tuple[Any, ...]
    ) -> None:
        """See `LightningModule.log`; `asked` holds the fields of `Settings`."""
        hook, loader = rules.running_hook(), self.dataloader_idx
        place = (hook, name, loader if asked[ADDS_LOADER] else None)
        entry = self._pages[-1].entries.get(place) if hook and self._pages else None
        if entry is None or entry.asked != asked:
            if hook is None and not self._pages:
                return rules.ignore(name, stacklevel=4)
            items = rules.items_of(value)
            if items is not None:
                for key, item in items.items():
                    self.log(module, f"{name}/{key}", item, batch_size, asked)
                return None
            entry = self._entry(place, asked)
        if entry.loader != loader:
            entry.loader = None  # it is a value of several
        if isinstance(value, Tensor):
            if value.numel() != 1:
                raise LogError(f"log({name!r}): a tensor of shape {tuple(value.shape)}; a scalar is accepted")
            if not entry.settings.enable_graph:
                value = value.detach()
            if value.dtype in rules.WIDENED:
                value = value.to(rules.WIDENED[value.dtype])
            if value.ndim:
                value = value.reshape(())
        elif rules.is_metric(value):
            if entry.metric is not value:
                rules.check_metric(name, value, module, entry.settings.metric_attribute)
            entry.metric, entry.latest, entry.weight = value, value._forward_cache, 1.0
            return None
        else:
            value = rules.number(name, value)
        if batch_size is None:
            if self.batch is not self._sized:
                self._sized, self._batch_size = self.batch, rules.size_of(self.batch)
            batch_size = self._batch_size
        elif type(batch_size) is not int or batch_size < 0:
            batch_size = rules.given_size(name, batch_size)
        entry.latest = value
        if entry.settings.sync_dist or entry.settings.reduce_fx != "mean":
            entry.add(value, batch_size, self._pages[-1].ended)
            return None
        if entry.total.__class__ is float or value.__class__ is float:
            entry.total = entry.total + value * batch_size
        else:
            entry.total = torch.add(entry.total, value, alpha=batch_size)  # the same in one operation
        entry.weight += batch_size
        return None

    def _entry(self, place: Place, asked: tuple[Any, ...]) -> Entry:
        """The entry at `place`, its settings checked against the running hook, and what was asked before."""
        hook, name, _ = place
        settings = settled(name, hook, asked)
        entry = self._pages[-1].entries.get(place)
        if entry is None:
            entry = self._pages[-1].entries[place] = Entry(asked, settings, name, self.dataloader_idx)
        else:
            entry.ask_again(hook, asked, settings)
        return entry

    # ---- read by everybody -----------------------------------------------------------------------

    def metrics(self, kind: str) -> dict[str, Any]:
        """The values known now: kind is "callback", "logged" or "progress_bar"."""
        values = dict(self._kept[kind])
        for page in self._pages:
            values.update(self._read(page, kind))
        return values

    def as_arrays(self) -> dict[str, Any]:
        """The callback metrics as NumPy arrays of shape (), which share no memory with the tensors."""
        values = {name: value.detach().cpu() for name, value in self.metrics("callback").items()}
        # NumPy has no bfloat16.
        wide = {name: value.float() if value.dtype is torch.bfloat16 else value for name, value in values.items()}
        return {name: value.numpy().copy() for name, value in wide.items()}

    def take_arrays(self, arrays: Mapping[str, Any]) -> None:
        """Keep another process's callback metrics beside one's own, as tensors."""
        self._kept["callback"].update((name, torch.tensor(array)) for name, array in arrays.items())

    def step_values(self) -> dict[str, float]:
        """What loggers are given after a batch: the latest values of the running pass, and of its loader."""
        return self._read(self._pages[-1], "logged", ("step",), self.dataloader_idx)

    @staticmethod
    def _read(
        page: Page, kind: str, whats: Sequence[str] = ("step", "epoch"), loader: int | None = None
    ) -> dict[str, Any]:
        values: dict[str, Any] = {}
        for entry in page.entries.values():
            if loader is not None and entry.loader not in (None, loader):
                continue
            wanted = {"callback": True, "logged": entry.settings.logger, "progress_bar": entry.settings.prog_bar}[kind]
            for name, (value, what) in entry.values(page.ended).items() if wanted else ():
                if kind == "callback":
                    values[name] = value if isinstance(value, Tensor) else torch.tensor(value)
                elif what in whats:
                    values[name] = _plain(value)
        return values

    @staticmethod
    def _by_loader(page: Page) -> list[dict[str, float]]:
        """One dict per loader; what was logged in none of several, such as in an epoch's end, is in each."""
        loaders: list[dict[str, float]] = [{} for _ in range(page.loaders)]
        for entry in page.entries.values():
            shown = {name: _plain(value) for name, (value, what) in entry.values(True).items() if what == "epoch"}
            for values in loaders if entry.loader is None else [loaders[entry.loader]]:
                values.update(shown)
        return loaders


def _plain(value: Any) -> float:
    return float(value.detach() if isinstance(value, Tensor) else value)
