"""self.log: what a run records, per step and per epoch.

Each pass (a training epoch, a validation, ...) opens a page in the logbook and closes it at its end.
A step's value is there at once; an epoch's, once the pass has seen its last batch. Nothing is
synchronised with the device before somebody reads a value.
"""

from __future__ import annotations

import difflib
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from operator import attrgetter, index
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, distributed

from .devices import detach

if TYPE_CHECKING:
    from .loggers import Publisher
    from .module import LightningModule

__all__ = ["LogError", "Logbook", "deprecated", "ignore", "items_of"]


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
    "configure_callbacks on_post_move_to_device configure_optimizers on_before_batch_transfer "
    "transfer_batch_to_device on_after_batch_transfer tbptt_split_batch optimizer_step optimizer_zero_grad "
    "on_fit_start on_fit_end on_pretrain_routine_start on_pretrain_routine_end on_sanity_check_start "
    "on_sanity_check_end on_train_end on_validation_end on_test_end on_validation_model_eval "
    "on_validation_model_train on_test_model_eval on_test_model_train on_predict_model_eval on_predict_model_train "
    "on_predict_start on_predict_epoch_start on_predict_batch_start predict_step on_predict_batch_end "
    "on_predict_epoch_end on_predict_end on_exception on_save_checkpoint on_load_checkpoint".split()
)


# What an epoch's values are reduced by without keeping them, and what else that is called.
_RUNNING: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "min": torch.minimum, "max": torch.maximum, "sum": torch.add
}  # fmt: skip
_REDUCTIONS: dict[Any, str] = {
    **{name: name for name in ("mean", *_RUNNING)}, "default": "mean",
    torch.mean: "mean", torch.min: "min", torch.max: "max", torch.sum: "sum", min: "min", max: "max", sum: "sum",
}  # fmt: skip
_OPERATIONS = {"min": distributed.ReduceOp.MIN, "max": distributed.ReduceOp.MAX}


class Settings(NamedTuple):
    """The arguments of `log` that a name keeps throughout a hook, in the order in which `log` hands them on."""

    prog_bar: bool
    logger: bool
    on_step: bool | None
    on_epoch: bool | None
    reduce_fx: Any
    enable_graph: bool
    sync_dist: bool
    sync_dist_group: Any
    add_dataloader_idx: bool
    metric_attribute: str | None
    rank_zero_only: bool | None


_ADDS_LOADER = Settings._fields.index("add_dataloader_idx")


@dataclass(slots=True)
class _Entry:
    """One name on a page: its settings, its latest value, and what the epoch's values come to so far.

    `total` is their sum weighted by batch size and `weight` that of the weights. With another reduction than
    the mean, `total` is what they have been reduced to, and `weight` counts them; those that a callable is to
    reduce are kept in `steps`. A metric keeps account of its values itself.
    """

    asked: tuple[Any, ...]
    settings: Settings
    name: str
    loader: int | None
    graph: bool
    special: bool  # reduced otherwise than to the mean, or over processes
    latest: Any = None
    total: Any = 0.0
    weight: float = 0.0
    steps: list[Tensor] = field(default_factory=list)
    metric: Any = None

    def state_dict(self, module: LightningModule) -> dict[str, Any]:
        """The entry as plain data; a metric as the name of its place in the module."""
        settings = self.settings._replace(reduce_fx=_named(self.settings.reduce_fx), sync_dist_group=None)
        metric = next((name for name, part in module.named_modules() if part is self.metric), None)
        state = {name: detach(getattr(self, name)) for name in _SAVED}
        return {**state, "settings": tuple(settings), "metric": metric}

    @classmethod
    def of(cls, state: Mapping[str, Any], module: LightningModule) -> _Entry:
        """The entry that `state_dict` told of. What was asked is not known until the same hook logs again."""
        metric = None if state["metric"] is None else module.get_submodule(state["metric"])
        saved = {name: state[name] for name in _SAVED}
        return cls(asked=(), settings=Settings(*state["settings"]), metric=metric, **saved)

    def values(self, epoch_ended: bool) -> dict[str, tuple[Any, str]]:
        """Names and values to show, each with "step" or "epoch"; both suffixed where there are both."""
        on_step, on_epoch = self.settings.on_step, self.settings.on_epoch
        forked = on_step and on_epoch
        shown: dict[str, tuple[Any, str]] = {}
        if not self.weight:
            return shown
        epochs = self.reduced() if on_epoch and epoch_ended else None
        if on_step and self.latest is not None:
            shown[self.shown("_step" if forked else "")] = (self.latest, "step")
        if epochs is not None:
            shown[self.shown("_epoch" if forked else "")] = (epochs, "epoch")
        if forked:  # the bare name serves `monitor`: the epoch's value once there is one
            bare = self.latest if epochs is None else epochs
            if bare is not None:
                shown[self.shown()] = (bare, "alias")
        return shown

    def shown(self, fork: str = "") -> str:
        """The name that the value is shown under."""
        suffixed = self.loader is not None and self.settings.add_dataloader_idx
        return self.name + fork + (f"/dataloader_idx_{self.loader}" if suffixed else "")

    def reduced(self) -> Any:
        """The epoch's value."""
        if self.metric is not None:
            value = self.metric.compute()
        elif self.settings.reduce_fx is None:  # a callable of the run before, which nobody has brought again
            return None
        elif callable(self.settings.reduce_fx):
            dtype, device = self.steps[0].dtype, self.steps[0].device
            for step in self.steps:
                dtype = torch.promote_types(dtype, step.dtype)
            value = self.settings.reduce_fx(torch.stack([step.to(device, dtype) for step in self.steps]))
        else:
            return self.total / self.weight if self.settings.reduce_fx == "mean" else self.total
        if isinstance(value, Tensor) and value.numel() == 1:
            return value.reshape(())
        return _number(self.name, value)

    def add(self, value: Any, batch_size: int, epoch_ended: bool) -> None:
        """One more value, where it takes more than adding up."""
        fx, syncs = self.settings.reduce_fx, _syncs(self.settings)
        value = value if isinstance(value, Tensor) else torch.tensor(value, dtype=torch.float64)
        if syncs and (self.settings.on_step or epoch_ended):
            self.latest = _over_processes(value, fx, self.settings.sync_dist_group)
            value = self.latest if epoch_ended else value  # no later moment brings the processes together
        if fx == "mean":
            self.total, self.weight = self.total + value * batch_size, self.weight + batch_size
            return
        if not callable(fx):
            self.total = _RUNNING[fx](self.total, value) if self.weight else value
        elif self.settings.on_epoch:
            self.steps.append(value)
        self.weight += 1

    def synchronize(self) -> None:
        """The epoch's values of all processes come together; every process takes part."""
        group, fx = self.settings.sync_dist_group, self.settings.reduce_fx
        if fx == "mean":
            both = torch.stack([self.total, torch.full_like(self.total, self.weight)])
            self.total, self.weight = _over_processes(both, "sum", group)
        elif callable(fx):
            kept: list[Any] = [None] * distributed.get_world_size(group)
            distributed.all_gather_object(kept, self.steps, group)
            self.steps = [step for steps in kept for step in steps]
        else:
            self.total = _over_processes(self.total, fx, group)


_SAVED = ("name", "loader", "graph", "special", "latest", "total", "weight", "steps")


def _named(reduce_fx: Any) -> Any:
    """A reduction as plain data: its name, or None for a callable, which the hook that logs will bring again."""
    return reduce_fx if isinstance(reduce_fx, str) else None


def _syncs(settings: Settings) -> bool:
    """Whether a value is reduced over processes: asked for, called by all of them, and there are several."""
    if not settings.sync_dist or settings.rank_zero_only or not distributed.is_available():
        return False
    return distributed.is_initialized() and distributed.get_world_size(settings.sync_dist_group) > 1


def _over_processes(value: Tensor, fx: Any, group: Any) -> Tensor:
    """The values of all processes reduced; to their mean, where a callable reduces those of the epoch."""
    value = value.detach().clone()
    distributed.all_reduce(value, _OPERATIONS.get(fx, distributed.ReduceOp.SUM), group)
    return value if fx in _RUNNING else value / distributed.get_world_size(group)


@dataclass(slots=True)
class _Page:
    """What one pass has logged so far: an entry for each name in each hook and loader (or in all loaders, if they
    are not to be told apart); where two hooks log the same name, the later one is read."""

    entries: dict[tuple[str | None, str, int | None], _Entry] = field(default_factory=dict)
    loaders: int = 0
    ended: bool = False

    def reset(self) -> None:
        """The metrics that were logged start anew with the next pass."""
        for entry in self.entries.values():
            if entry.metric is not None:
                entry.metric.reset()


class Logbook:
    """The metrics of a trainer's runs, fed by `LightningModule.log`, read by callbacks and schedulers."""

    def __init__(self) -> None:
        self.batch: Any = None
        self.dataloader_idx: int | None = None
        self.publisher: Publisher | None = None  # where there are loggers
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
        page = self._pages[-1]
        for entry in page.entries.values() if not page.ended else ():
            if entry.metric is None and entry.settings.on_epoch and _syncs(entry.settings):
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
        page = self._pages[0] if self._pages else _Page()
        entries = [(place, entry.state_dict(module)) for place, entry in page.entries.items()]
        return {"kept": {kind: dict(kept) for kind, kept in self._kept.items()}, "page": entries}

    def keep(self, kept: Mapping[str, Mapping[str, Any]]) -> None:
        """Know again what was known when the checkpoint was saved."""
        for kind, values in kept.items():
            self._kept[kind].update(values)

    def reopen(self, entries: Sequence[tuple[Any, Mapping[str, Any]]], module: LightningModule) -> None:
        """Go on with the page of the epoch that the checkpoint was saved in."""
        self._pages[-1].entries = {tuple(place): _Entry.of(state, module) for place, state in entries}

    # ---- written by the user ---------------------------------------------------------------------

    def log(
        self, module: LightningModule, name: str, value: Any, batch_size: int | None, asked: tuple[Any, ...]
    ) -> None:
        """See `LightningModule.log`; `asked` holds the fields of `Settings`."""
        hook, loader = _running_hook(), self.dataloader_idx
        place = (hook, name, loader if asked[_ADDS_LOADER] else None)
        entry = self._pages[-1].entries.get(place) if hook and self._pages else None
        if entry is None or entry.asked != asked:
            if hook is None and not self._pages:
                return ignore(name, stacklevel=4)
            items = items_of(value)
            if items is not None:
                for key, item in items.items():
                    self.log(module, f"{name}/{key}", item, batch_size, asked)
                return None
            entry = self._entry(entry, hook, name, asked)
            self._pages[-1].entries[place] = entry
        if entry.loader != loader:
            entry.loader = None  # it is a value of several
        if isinstance(value, Tensor):
            if value.numel() != 1:
                raise LogError(f"log({name!r}): a tensor of shape {tuple(value.shape)}; a scalar is accepted")
            if not entry.graph:
                value = value.detach()
            if value.dtype in _WIDENED:
                value = value.to(_WIDENED[value.dtype])
            if value.ndim:
                value = value.reshape(())
        elif _is_metric(value):
            if entry.metric is not value:
                _check_metric(name, value, module, entry.settings.metric_attribute)
            entry.metric, entry.latest, entry.weight = value, value._forward_cache, 1.0
            return None
        else:
            value = _number(name, value)
        if batch_size is None:
            if self.batch is not self._sized:
                self._sized, self._batch_size = self.batch, _batch_size(self.batch)
            batch_size = self._batch_size
        elif type(batch_size) is not int or batch_size < 0:
            batch_size = _given_size(name, batch_size)
        entry.latest = value
        if entry.special:
            entry.add(value, batch_size, self._pages[-1].ended)
            return None
        if entry.total.__class__ is float or value.__class__ is float:
            entry.total = entry.total + value * batch_size
        else:
            entry.total = torch.add(entry.total, value, alpha=batch_size)  # the same in one operation
        entry.weight += batch_size
        return None

    def _entry(self, entry: _Entry | None, hook: str | None, name: str, asked: tuple[Any, ...]) -> _Entry:
        """The entry of `name`, its settings checked against the running hook, and what was asked before."""
        if not isinstance(name, str):
            raise LogError(f"log: the name must be a str, not {name!r}")
        if hook is not None and hook not in RULES:
            raise LogError(f"log({name!r}): {hook} may not log; training_step and the hooks around it may")
        if hook is None or not self._pages:
            raise LogError(f"log({name!r}): called outside of a hook; log from the hooks of a running trainer")
        given = Settings(*asked)
        step_default, epoch_default, step_allowed = RULES[hook]
        on_step = step_default if given.on_step is None else given.on_step
        on_epoch = epoch_default if given.on_epoch is None else given.on_epoch
        if on_step and not step_allowed:
            raise LogError(f"log({name!r}, on_step=True): {hook} belongs to no step; log on_epoch there")
        if not on_step and not on_epoch:
            raise LogError(f"log({name!r}): on_step=False and on_epoch=False would keep nothing")
        reduce_fx = _reduction(name, given.reduce_fx)
        settings = given._replace(on_step=on_step, on_epoch=on_epoch, reduce_fx=reduce_fx)
        if entry is not None:
            for setting, before, now in zip(Settings._fields, entry.settings if entry.asked else (), settings):
                if now != before and not _same_code(now, before):
                    raise LogError(
                        f"log({name!r}) in {hook}: {setting}={now!r}, but before in this hook it was {before!r}; "
                        "use another name"
                    )
            entry.asked, entry.settings = asked, settings
            return entry
        special = settings.sync_dist or reduce_fx != "mean"
        return _Entry(asked, settings, name, self.dataloader_idx, settings.enable_graph, special)

    # ---- read by everybody -----------------------------------------------------------------------

    def metrics(self, kind: str) -> dict[str, Any]:
        """The values known now: kind is "callback", "logged" or "progress_bar"."""
        values = dict(self._kept[kind])
        for page in self._pages:
            values.update(self._read(page, kind))
        return values

    def step_values(self) -> dict[str, float]:
        """What loggers are given after a batch: the latest values of the running pass, and of its loader."""
        return self._read(self._pages[-1], "logged", ("step",), self.dataloader_idx)

    @staticmethod
    def _read(
        page: _Page, kind: str, whats: Sequence[str] = ("step", "epoch"), loader: int | None = None
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
    def _by_loader(page: _Page) -> list[dict[str, float]]:
        """One dict per loader; what was logged in none of several, such as in an epoch's end, is in each."""
        loaders: list[dict[str, float]] = [{} for _ in range(page.loaders)]
        for entry in page.entries.values():
            shown = {name: _plain(value) for name, (value, what) in entry.values(True).items() if what == "epoch"}
            for values in loaders if entry.loader is None else [loaders[entry.loader]]:
                values.update(shown)
        return loaders


def ignore(name: str, stacklevel: int = 3) -> None:
    """No run is going on: a module can be used by hand, and what it logs then goes nowhere."""
    warnings.warn(f"self.log({name!r}) is ignored: no trainer is running this module", stacklevel=stacklevel)


def deprecated(**given: Any) -> None:
    """Arguments that the documentation lists without a meaning: nothing is done with them."""
    names = ", ".join(f"{name}={value!r}" for name, value in given.items() if value is not None)
    warnings.warn(f"self.log({names}) is deprecated and does nothing; see reduce_fx", DeprecationWarning, stacklevel=3)


def items_of(value: Any) -> Mapping[str, Any] | None:
    """The items of a mapping, or of a torchmetrics.MetricCollection; None for anything else."""
    if isinstance(value, Mapping):
        return value
    torchmetrics = sys.modules.get("torchmetrics")
    if torchmetrics is None or not isinstance(value, torchmetrics.MetricCollection):
        return None
    # Members that share a state have it with the first of them: hand out references, rather than copies.
    return dict(value.items(keep_base=False, copy_state=False))


def _is_metric(value: Any) -> bool:
    """Whether it is a torchmetrics.Metric; that package is there if somebody made one."""
    torchmetrics = sys.modules.get("torchmetrics")
    return torchmetrics is not None and isinstance(value, torchmetrics.Metric)


def _check_metric(name: str, metric: Any, module: LightningModule, attribute: str | None) -> None:
    """A metric has to be an attribute of the module: that moves it to the device and keeps its state."""
    problem = f"log({name!r}, {type(metric).__name__}, metric_attribute={attribute!r})"
    if attribute is None:
        if not any(metric is part for part in module.modules()):
            raise LogError(f"{problem}: no attribute of {type(module).__name__} is this metric; assign it in __init__")
        return
    try:
        found = attrgetter(attribute)(module)
    except AttributeError as error:
        raise LogError(f"{problem}: {error}") from None
    if found is not metric:
        raise LogError(f"{problem}: that attribute is another object; the name of this metric's is accepted")


def _reduction(name: str, given: Any) -> Any:
    """ "mean", "min", "max", "sum", or a callable."""
    try:
        known = _REDUCTIONS.get(given)
    except TypeError:  # a callable that cannot be hashed
        known = None
    if known is not None or callable(given):
        return known or given
    near = difflib.get_close_matches(str(given), ["mean", *_RUNNING], n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    raise LogError(f"log({name!r}, reduce_fx={given!r}): mean, min, max, sum or a callable is accepted{hint}")


def _same_code(one: Any, other: Any) -> bool:
    """Whether two callables are one lambda or local function, made anew in each step."""
    code = getattr(one, "__code__", None)
    return code is not None and code is getattr(other, "__code__", None)


def _plain(value: Any) -> float:
    return float(value.detach() if isinstance(value, Tensor) else value)


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
