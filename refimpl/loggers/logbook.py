"""self.log: what a run records, per step and per epoch.

Each pass (a training epoch, a validation, ...) opens a page in the logbook and closes it at its end.
A step's value is there at once; an epoch's, once the pass has seen its last batch. Nothing is
synchronised with the device before somebody reads a value.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, distributed, nn

from ..errors import LogError
from ..loaders.batches import move
from ..progress import Progress
from . import rules
from .entries import ADDS_LOADER, Entry, Page, Place, settled
from .publisher import Publisher

__all__ = ["Logbook"]


class Logbook:
    """The metrics of one run, fed by `LightningModule.log`, read by callbacks, schedulers and loggers."""

    def __init__(
        self, module: nn.Module, progress: Progress, publisher: Publisher | None = None,
        devices: Any = None
    ) -> None:  # fmt: skip
        self.module, self.progress, self.publisher, self.devices = module, progress, publisher, devices
        self.dataloader_idx: int | None = None
        self._pages: list[Page] = []
        self._kept: dict[str, dict[str, Any]] = {"callback": {}, "logged": {}, "progress_bar": {}}
        self._sized, self._batch_size = -1, 1.0  # the number of the batch, or part of one, that has this size
        self._batches = 0  # that are done, of whatever pass
        self._resumed: Mapping[str, Any] = {}
        self._left: dict[str, Any] | None = None  # what there was to save when the run failed

    @property
    def group(self) -> Any:
        """The processes of the run; None where it is of one."""
        return self.devices and self.devices.group

    # ---- written by the loops --------------------------------------------------------------------

    def open(self) -> None:
        """A pass begins."""
        self._pages.append(Page())
        self.dataloader_idx = None

    def enter_loader(self, dataloader_idx: int, several: bool) -> None:
        """The pass comes to its next loader; only where there are several do names tell them apart. A metric that was
        logged over the loader before is computed, and starts anew."""
        page = self._pages[-1]
        page.leave_loader()
        page.loaders = dataloader_idx + 1
        self.dataloader_idx = dataloader_idx if several else None

    def end_epoch(self) -> None:
        """The pass has seen its last batch: its epoch values can be read."""
        page = self._pages[-1]
        entries = [each for each in page.entries.values() if each.settings.on_epoch] if not page.ended else []
        together = [each for each in entries if each.comes_together(self.group)]
        groups = dict.fromkeys([self.group] * bool(self.devices) + [each.group(self.group) for each in together])
        for group in sorted(groups, key=distributed.get_process_group_ranks) if self.devices else ():
            names = [each.shown() for each in together if each.group(self.group) is group]
            self.devices.same("names logged with sync_dist=True", names, group)
        for entry in together:
            entry.synchronize(self.group)
        page.ended = True
        self._sized, self.dataloader_idx = -1, None

    def next_epoch(self) -> None:
        """A training epoch is over, and the next one may follow in the same pass."""
        page = self._pages.pop()
        self._keep(page)
        page.reset()
        self._pages.append(Page())

    def close(self, forget: bool = False) -> list[dict[str, float]]:
        """The pass is over; returns its epoch values, one dict per loader.

        With `forget` (the sanity check) nothing of it is kept.
        """
        if not self._pages[-1].ended:  # a fit that has trained nothing
            self.end_epoch()
        page = self._pages.pop()
        if not forget:
            self._keep(page)
        results = self._by_loader(page)
        page.reset()
        return results

    def _keep(self, page: Page) -> None:
        for kind, kept in self._kept.items():
            kept.update(self._read(page, kind))
        if self.publisher is not None:
            self.publisher.epoch(self._read(page, "logged", ("epoch",)), within_batch=bool(self._pages))

    def abandon(self) -> None:
        """A run failed: drop the pages it left open; what the training epoch has logged can be saved."""
        self._left = self.state_dict() if self._pages else None
        for page in self._pages:
            page.reset()
        self._pages.clear()
        self._sized, self.dataloader_idx = -1, None

    # ---- saved in a checkpoint ---------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """What is known, what the training epoch that runs has logged so far, and what the metrics in the module, which
        keep account of an epoch themselves, have seen; as plain data."""
        if self._left is not None:
            return self._left
        page = self._pages[0] if self._pages else Page()
        return {
            "kept": {kind: dict(kept) for kind, kept in self._kept.items()},
            "page": [(place, entry.state_dict(self.module)) for place, entry in page.entries.items()],
            "metrics": {name: _metric_state(metric) for name, metric in _metrics(self.module).items()},
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Know again what was known; what the epoch has logged waits for `rejoin`."""
        for kind, values in state["kept"].items():
            self._kept[kind].update(values)
        self._resumed = state

    def rejoin(self) -> None:
        """Go on with the page of the epoch in which the checkpoint was saved."""
        entries = self._resumed["page"]
        self._pages[-1].entries = {tuple(place): Entry.of(state, self.module) for place, state in entries}
        metrics = _metrics(self.module)
        for name, saved in self._resumed["metrics"].items():
            _set_metric_state(metrics[name], saved)

    # ---- written by the user ---------------------------------------------------------------------

    def log(self, name: str, value: Any, batch_size: float | None, asked: tuple[Any, ...]) -> None:
        """See `LightningModule.log`; `asked` holds the fields of `Settings`."""
        hook, loader, pages = rules.running_hook(), self.dataloader_idx, self._pages
        place = (hook, name, loader if asked[ADDS_LOADER] else None)
        entry = pages[-1].entries.get(place) if hook and pages else None
        if entry is None or entry.asked != asked:
            if hook is None and not pages:
                return rules.ignore(name)
            if (items := rules.items_of(value)) is not None:
                for key, item in items.items():
                    self.log(f"{name}/{key}", item, batch_size, asked)
                return None
            entry = self._entry(place, asked)
        entry.batch = self._batches
        if entry.loader != loader:
            entry.loader = None  # it is a value of several
        if value.__class__ is Tensor or isinstance(value, Tensor):
            if value.ndim:
                if value.numel() != 1:
                    raise LogError(f"log({name!r}): a tensor of shape {tuple(value.shape)}; a scalar is accepted")
                value = value.reshape(())
            if not entry.settings.enable_graph:
                value = value.detach()
            if value.dtype in rules.WIDENED:
                value = value.to(rules.WIDENED[value.dtype])
        elif rules.is_metric(value):
            if entry.metric is not value:
                rules.check_metric(name, value, self.module, entry.settings.metric_attribute)
            entry.metric, entry.latest, entry.weight = value, value._forward_cache, 1.0
            entry.is_alone = not entry.comes_together(self.group)
            return None
        else:
            value = rules.number(name, value)
        part, share = self.progress.part or (None, 1)
        if batch_size is None:
            if self._sized != self.progress.taken:
                self._sized, self._batch_size = self.progress.taken, rules.size_of(self.progress.batch) * share
            batch_size = self._batch_size
        elif type(batch_size) is not int or batch_size < 0:
            batch_size = rules.given_size(name, batch_size)
        if part is not None:  # of a batch that is split over devices, each of which has its own
            value = move(value, self.module.device)  # type: ignore[arg-type]  # of a LightningModule
        entry.latest = value if part is None else entry.of_parts(value, batch_size, self.progress.taken - part)
        if entry.settings.sync_dist or entry.settings.reduce_fx != "mean":
            # Of an evaluation of the trainer's own, and of the parts of a batch, another process may have fewer.
            apart = part is not None or (self.devices is not None and self.progress.state.stage != "train")
            return entry.add(value, batch_size, pages[-1].ended, apart, self.group)
        if entry.total.__class__ is float or value.__class__ is float:
            entry.total = entry.total + value * batch_size
        elif entry.settings.on_epoch:
            entry.total = torch.add(entry.total, value, alpha=batch_size)  # the same in one operation
        entry.weight += batch_size

    def _entry(self, place: Place, asked: tuple[Any, ...]) -> Entry:
        """The entry at `place`, its settings checked against the running hook, and what was asked before."""
        hook, name, _ = place
        settings = settled(name, hook, asked)
        entry = self._pages[-1].entries.setdefault(place, Entry((), settings, name, self.dataloader_idx))
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
        narrow = torch.bfloat16  # which NumPy does not have
        return {n: (value.float() if value.dtype is narrow else value).numpy().copy() for n, value in values.items()}

    def take_arrays(self, arrays: Mapping[str, Any]) -> None:
        """Keep another process's callback metrics beside one's own, as tensors."""
        self._kept["callback"].update((name, torch.tensor(array)) for name, array in arrays.items())

    def publish_step(self) -> None:
        """A batch is done: the loggers are given what was logged in it."""
        if self.publisher is not None and (step := self.publisher.step_of_batch()) is not None:
            self.publisher.publish(self._read(self._pages[-1], "logged", ("step",), self._batches), step)
        self._batches += 1

    @staticmethod
    def _read(page: Page, kind: str, whats: Any = ("step", "epoch"), batch: int | None = None) -> dict[str, Any]:
        values: dict[str, Any] = {}
        for entry in page.entries.values():
            if batch is not None and entry.batch != batch:
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
            shown = {name: _plain(value) for name, (value, what) in entry.values(True).items() if what != "step"}
            for values in loaders if entry.loader is None else [loaders[entry.loader]]:
                values.update(shown)
        return loaders


def _plain(value: Any) -> float:
    return float(value.detach() if isinstance(value, Tensor) else value)


# ---- torchmetrics, which keep account of an epoch themselves ------------------------------------------------


def _metrics(module: nn.Module) -> dict[str, Any]:
    """The metrics in the module, by name."""
    return {name: part for name, part in module.named_modules() if rules.is_metric(part)}


def _metric_state(metric: Any) -> dict[str, Any]:
    return {"updates": metric._update_count, "values": {name: getattr(metric, name) for name in metric._defaults}}


def _set_metric_state(metric: Any, saved: Mapping[str, Any]) -> None:
    vars(metric).update(_update_count=saved["updates"], _computed=None, **move(saved["values"], metric.device))
