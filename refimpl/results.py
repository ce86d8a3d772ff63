"""self.log: what a run records, per step and per epoch.

Each pass (a training epoch, a validation, ...) opens a page in the logbook and closes it at its end.
A step's value is there at once; an epoch's, once the pass has seen its last batch. Nothing is
synchronised with the device before somebody reads a value.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from operator import index
from typing import Any

import torch
from torch import Tensor

__all__ = ["LogError", "Logbook", "ignore"]


class LogError(ValueError):
    """A value cannot be logged as asked; the message names it and what is accepted."""


_BOTH_STEP = (True, False, True)  # on_step, on_epoch by default; may on_step be True?
_BOTH_EPOCH = (False, True, True)
_EPOCH_ONLY = (False, True, False)

# The documentation's table of defaults by hook. A hook that is not listed may not log.
RULES: dict[str, tuple[bool, bool, bool]] = {
    **dict.fromkeys(
        "training_step training_step_end on_before_zero_grad on_before_backward backward on_after_backward "
        "on_before_optimizer_step on_train_batch_start on_train_batch_end".split(),
        _BOTH_STEP,
    ),
    "track_grad_norm": _BOTH_STEP,  # no hook: the engine's own function that logs for the option of this name
    **dict.fromkeys(
        "validation_step validation_step_end test_step test_step_end on_validation_batch_start "
        "on_validation_batch_end on_test_batch_start on_test_batch_end".split(),
        _BOTH_EPOCH,
    ),
    **dict.fromkeys(
        "on_train_start on_validation_start on_test_start on_epoch_start on_epoch_end on_train_epoch_start "
        "on_train_epoch_end on_validation_epoch_start on_validation_epoch_end on_test_epoch_start "
        "on_test_epoch_end training_epoch_end validation_epoch_end test_epoch_end".split(),
        _EPOCH_ONLY,
    ),
}

# Types too narrow to be summed up in, and those that are used instead.
_WIDENED = {
    **dict.fromkeys((torch.float16, torch.bfloat16), torch.float32),
    **dict.fromkeys((torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32), torch.int64),
}

# Hooks that may not log, named so that the error can name them.
REFUSED = frozenset(
    "prepare_data setup teardown train_dataloader val_dataloader test_dataloader predict_dataloader "
    "configure_callbacks configure_optimizers on_before_batch_transfer transfer_batch_to_device "
    "on_after_batch_transfer tbptt_split_batch optimizer_step optimizer_zero_grad on_fit_start on_fit_end "
    "on_pretrain_routine_start on_pretrain_routine_end on_sanity_check_start on_sanity_check_end "
    "on_train_end on_validation_end on_test_end on_validation_model_eval on_validation_model_train "
    "on_test_model_eval on_test_model_train on_predict_model_eval on_predict_model_train on_predict_start "
    "on_predict_epoch_start on_predict_batch_start predict_step on_predict_batch_end on_predict_epoch_end "
    "on_predict_end on_exception".split()
)


@dataclass(slots=True)
class _Entry:
    """One name on a page: its settings, its latest value, and the weighted sum of the epoch."""

    asked: tuple[Any, ...]
    prog_bar: bool
    logger: bool
    on_step: bool
    on_epoch: bool
    name: str
    loader: int | None
    latest: Any = None
    total: Any = 0.0
    weight: float = 0.0

    def values(self, epoch_ended: bool) -> dict[str, tuple[Any, str]]:
        """Names and values to show, each with "step" or "epoch"; both suffixed where there are both."""
        forked = self.on_step and self.on_epoch
        shown: dict[str, tuple[Any, str]] = {}
        if self.on_step and self.weight:
            shown[f"{self.name}_step" if forked else self.name] = (self.latest, "step")
        if self.on_epoch and epoch_ended and self.weight:
            shown[f"{self.name}_epoch" if forked else self.name] = (self.total / self.weight, "epoch")
        if forked and self.weight:  # the bare name serves `monitor`: the epoch's value once there is one
            shown[self.name] = (self.total / self.weight if epoch_ended else self.latest, "alias")
        return shown


@dataclass(slots=True)
class _Page:
    """What one pass has logged so far: an entry for each name in each hook and loader; where two
    hooks log the same name, the later one is read."""

    entries: dict[tuple[str, str, int | None], _Entry] = field(default_factory=dict)
    loaders: int = 0
    ended: bool = False


class Logbook:
    """The metrics of a trainer's runs, fed by `LightningModule.log`, read by callbacks and schedulers."""

    def __init__(self) -> None:
        self.batch: Any = None
        self.dataloader_idx: int | None = None
        self._pages: list[_Page] = []
        self._kept: dict[str, dict[str, Any]] = {"callback": {}, "logged": {}, "progress_bar": {}}
        self._sized: Any = None
        self._batch_size = 1

    # ---- written by the loops --------------------------------------------------------------------

    def open(self) -> None:
        """A pass begins."""
        self._pages.append(_Page())
        self.batch = self.dataloader_idx = None

    def next_epoch(self) -> None:
        """A training epoch is over, and the next one may follow in the same pass."""
        self.close()
        self._pages.append(_Page())

    def enter_loader(self, dataloader_idx: int, several: bool) -> None:
        """The pass comes to its next loader; only where there are several do names tell them apart."""
        self._pages[-1].loaders = dataloader_idx + 1
        self.dataloader_idx = dataloader_idx if several else None

    def end_epoch(self) -> None:
        """The pass has seen its last batch: its epoch values can be read."""
        self._pages[-1].ended = True
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
        return self._by_loader(page)

    def abandon(self) -> None:
        """A run failed: drop the pages it left open."""
        self._pages.clear()
        self.batch = self._sized = self.dataloader_idx = None
        self._batch_size = 1

    # ---- written by the user ---------------------------------------------------------------------

    def log(
        self,
        name: str,
        value: Any,
        prog_bar: bool,
        logger: bool,
        on_step: bool | None,
        on_epoch: bool | None,
        add_dataloader_idx: bool,
        batch_size: int | None,
    ) -> None:
        """See `LightningModule.log`."""
        hook = _running_hook()
        loader = self.dataloader_idx
        asked = (prog_bar, logger, on_step, on_epoch, add_dataloader_idx)
        entry = self._pages[-1].entries.get((hook, name, loader)) if hook and self._pages else None
        if entry is None or entry.asked != asked:
            if hook is None and not self._pages:
                return ignore(name, stacklevel=4)
            entry = self._entry(entry, hook, name, loader, asked)
        if isinstance(value, Tensor):
            if value.numel() != 1:
                raise LogError(f"log({name!r}): a tensor of shape {tuple(value.shape)}; a scalar is accepted")
            value = value.detach()
            if value.dtype in _WIDENED:
                value = value.to(_WIDENED[value.dtype])
            if value.ndim:
                value = value.reshape(())
        else:
            value = _number(name, value)
        if batch_size is None:
            if self.batch is not self._sized:
                self._sized, self._batch_size = self.batch, _batch_size(self.batch)
            batch_size = self._batch_size
        elif type(batch_size) is not int or batch_size < 0:
            batch_size = _given_size(name, batch_size)
        entry.latest = value
        if entry.total.__class__ is float or value.__class__ is float:
            entry.total = entry.total + value * batch_size
        else:
            entry.total = torch.add(entry.total, value, alpha=batch_size)  # the same in one operation
        entry.weight += batch_size

    def _entry(
        self, entry: _Entry | None, hook: str | None, name: str, loader: int | None, asked: tuple[Any, ...]
    ) -> _Entry:
        """A new entry for `name`, its settings checked against the running hook."""
        prog_bar, logger, on_step, on_epoch, add_dataloader_idx = asked
        if not isinstance(name, str):
            raise LogError(f"log: the name must be a str, not {name!r}")
        if hook is not None and hook not in RULES:
            raise LogError(f"log({name!r}): {hook} may not log; training_step and the hooks around it may")
        if hook is None or not self._pages:
            raise LogError(f"log({name!r}): called outside of a hook; log from the hooks of a running trainer")
        step_default, epoch_default, step_allowed = RULES[hook]
        on_step = step_default if on_step is None else on_step
        on_epoch = epoch_default if on_epoch is None else on_epoch
        if on_step and not step_allowed:
            raise LogError(f"log({name!r}, on_step=True): {hook} belongs to no step; log on_epoch there")
        if not on_step and not on_epoch:
            raise LogError(f"log({name!r}): on_step=False and on_epoch=False would keep nothing")
        settings = (prog_bar, logger, on_step, on_epoch)
        shown = f"{name}/dataloader_idx_{loader}" if loader is not None and add_dataloader_idx else name
        if entry is not None:
            before = (entry.prog_bar, entry.logger, entry.on_step, entry.on_epoch)
            if before != settings or entry.name != shown:
                raise LogError(
                    f"log({name!r}) in {hook}: (prog_bar, logger, on_step, on_epoch) = {settings}, "
                    f"add_dataloader_idx={add_dataloader_idx}, but before in this hook it was {before}, "
                    f"shown as {entry.name!r}; use another name"
                )
            entry.asked = asked
            return entry
        entry = _Entry(asked, prog_bar, logger, on_step, on_epoch, shown, loader)
        self._pages[-1].entries[hook, name, loader] = entry
        return entry

    # ---- read by everybody -----------------------------------------------------------------------

    def metrics(self, kind: str) -> dict[str, Any]:
        """The values known now: kind is "callback", "logged" or "progress_bar"."""
        values = dict(self._kept[kind])
        for page in self._pages:
            values.update(self._read(page, kind))
        return values

    @staticmethod
    def _read(page: _Page, kind: str) -> dict[str, Any]:
        values: dict[str, Any] = {}
        for entry in page.entries.values():
            wanted = {"callback": True, "logged": entry.logger, "progress_bar": entry.prog_bar}[kind]
            for shown, (value, what) in entry.values(page.ended).items() if wanted else ():
                if kind == "callback":
                    values[shown] = value if isinstance(value, Tensor) else torch.tensor(value)
                elif what != "alias":
                    values[shown] = float(value)
        return values

    @staticmethod
    def _by_loader(page: _Page) -> list[dict[str, float]]:
        """One dict per loader; what was logged in none of several, such as in an epoch's end, is in each."""
        loaders: list[dict[str, float]] = [{} for _ in range(page.loaders)]
        for entry in page.entries.values():
            shown = {name: float(value) for name, (value, what) in entry.values(True).items() if what == "epoch"}
            for values in loaders if entry.loader is None else [loaders[entry.loader]]:
                values.update(shown)
        return loaders


def ignore(name: str, stacklevel: int = 3) -> None:
    """No run is going on: a module can be used by hand, and what it logs then goes nowhere."""
    warnings.warn(f"self.log({name!r}) is ignored: no trainer is running this module", stacklevel=stacklevel)


def _running_hook() -> str | None:
    """The hook that called `log`: on the stack, the one nearest to the loop that called it.

    Looking only when somebody logs keeps the loops free of bookkeeping.
    """
    frame = sys._getframe(3)  # skip this function, Logbook.log and LightningModule.log
    hook = None
    while frame is not None and frame.f_globals.get("__name__") != "refimpl.loops":
        name = frame.f_code.co_name
        if name in RULES or name in REFUSED:
            hook = name
        frame = frame.f_back  # type: ignore[assignment]
    return hook if frame is not None else None


def _number(name: str, value: Any) -> float:
    try:
        if not isinstance(value, (str, bytes)):
            return float(value)
    except (TypeError, ValueError, OverflowError):
        pass
    raise LogError(f"log({name!r}): {type(value).__name__} {value!r}; a number or a scalar tensor is accepted")


def _given_size(name: str, size: Any) -> int:
    try:
        if index(size) >= 0:
            return index(size)
    except TypeError:
        pass
    raise LogError(f"log({name!r}, batch_size={size!r}): an int from 0 is accepted")


def _batch_size(batch: Any) -> int:
    """The first dimension of the first tensor in the batch; 1 where there is none."""
    tensor = next(_tensors(batch), None)
    return tensor.size(0) if tensor is not None and tensor.ndim else 1


def _tensors(batch: Any) -> Iterator[Tensor]:
    """The tensors in a batch of any nesting, in order."""
    if isinstance(batch, Tensor):
        yield batch
    elif isinstance(batch, Mapping):
        for value in batch.values():
            yield from _tensors(value)
    elif isinstance(batch, Sequence) and not isinstance(batch, (str, bytes)):
        for item in batch:
            yield from _tensors(item)
