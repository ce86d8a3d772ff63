"""What one name has logged: its settings, its latest value, and what the epoch's values come to."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import reduce
from typing import Any, NamedTuple

import torch
from torch import Tensor, distributed, nn

from ..devices import OURS
from ..errors import LogError, did_you_mean
from ..loaders.batches import detach
from ..strategies.together import gathered, summed
from .rules import RULES, number

__all__ = ["ADDS_LOADER", "Entry", "Page", "Place", "Settings", "settled"]

# What an epoch's values are reduced by without keeping them, and what else that is called.
_RUNNING: dict[str, Callable[[Tensor, Tensor], Tensor]] = {"min": torch.minimum, "max": torch.maximum, "sum": torch.add}
_REDUCTIONS: dict[Any, str] = {
    **{name: name for name in ("mean", *_RUNNING)}, "default": "mean", "avg": "mean",
    torch.mean: "mean", torch.min: "min", torch.max: "max", torch.sum: "sum", min: "min", max: "max", sum: "sum",
}  # fmt: skip


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


ADDS_LOADER = Settings._fields.index("add_dataloader_idx")


def settled(name: str, hook: str | None, asked: tuple[Any, ...]) -> Settings:
    """The settings with what the hook makes of those that were left open.

    Raises LogError for what may not be logged in this hook, or in no hook.
    """
    if not isinstance(name, str):
        raise LogError(f"log: the name must be a str, not {name!r}")
    if hook is not None and hook not in RULES:
        raise LogError(f"log({name!r}): {hook} may not log; training_step and the hooks around it may")
    if hook is None:
        raise LogError(f"log({name!r}): called outside of a hook; log from the hooks of a running trainer")
    given = Settings(*asked)
    step_default, epoch_default, step_allowed = RULES[hook]
    on_step = step_default if given.on_step is None else given.on_step
    on_epoch = epoch_default if given.on_epoch is None else given.on_epoch
    if on_step and not step_allowed:
        raise LogError(f"log({name!r}, on_step=True): {hook} belongs to no step; log on_epoch there")
    if not on_step and not on_epoch:
        raise LogError(f"log({name!r}): on_step=False and on_epoch=False would keep nothing")
    return given._replace(on_step=on_step, on_epoch=on_epoch, reduce_fx=_reduction(name, given.reduce_fx))


def _reduction(name: str, given: Any) -> Any:
    """ "mean", "min", "max", "sum", or a callable."""
    try:
        known = _REDUCTIONS.get(given.lower() if isinstance(given, str) else given)
    except TypeError:  # a callable that cannot be hashed
        known = None
    if known is not None or callable(given):
        return known or given
    hint = did_you_mean(given, ["mean", *_RUNNING])
    raise LogError(f"log({name!r}, reduce_fx={given!r}): mean, min, max, sum or a callable is accepted{hint}")


def _same_code(one: Any, other: Any) -> bool:
    """Whether two callables are one lambda or local function, made anew in each step."""
    code = getattr(one, "__code__", None)
    return code is not None and code is getattr(other, "__code__", None)


@dataclass(slots=True)
class Entry:
    """One name on a page: its settings, its latest value, and what the epoch's values come to so far.

    `total` is their sum weighted by batch size and `weight` that of the weights. With another reduction than
    the mean, `total` is what they have been reduced to, and `weight` counts them; those that a callable is to
    reduce are kept in `steps`. A metric keeps account of its values itself.
    """

    asked: tuple[Any, ...]
    settings: Settings
    name: str
    loader: int | None
    latest: Any = None
    total: Any = 0.0
    weight: float = 0.0
    steps: list[Tensor] = field(default_factory=list)
    metric: Any = None
    so_far: Any = None  # of a run before, by a callable that nobody has brought again
    batch: int = -1  # in which it was logged last: so many were done then
    is_alone: bool = False  # a metric that is not to come together with those of other processes
    _parts: tuple[int, Any, float] = (-1, 0, 0)  # a batch that is split over devices, and what its parts come to so far

    def ask_again(self, hook: str | None, asked: tuple[Any, ...], settings: Settings) -> None:
        """The hook logs this name once more. Raises LogError where its settings are others than before."""
        for setting, before, now in zip(Settings._fields, self.settings if self.asked else (), settings):
            if now != before and not _same_code(now, before):
                raise LogError(f"log({self.name!r}) in {hook}: {setting}={now!r}, but before in this hook it was "
                               f"{before!r}; use another name")  # fmt: skip
        self.asked, self.settings, self.so_far = asked, settings, None

    def state_dict(self, module: nn.Module) -> dict[str, Any]:
        """The entry as plain data; a metric as the name of its place in the module."""
        fx = self.settings.reduce_fx  # a callable is none: the hook that logs will bring it again
        settings = self.settings._replace(reduce_fx=fx if isinstance(fx, str) else None, sync_dist_group=None)
        metric = next((name for name, part in module.named_modules() if part is self.metric), None)
        state = {name: detach(getattr(self, name)) for name in _SAVED}
        state["so_far"] = self.reduced() if callable(fx) and self.steps else self.so_far
        return {**state, "settings": tuple(settings), "metric": metric}

    @classmethod
    def of(cls, state: Mapping[str, Any], module: nn.Module) -> Entry:
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
        bare = self.latest if epochs is None else epochs
        if forked and bare is not None:  # the bare name serves `monitor`: the epoch's value once there is one
            shown[self.shown()] = (bare, "alias")
        return shown

    def shown(self, fork: str = "") -> str:
        """The name that the value is shown under."""
        suffixed = self.loader is not None and self.settings.add_dataloader_idx
        return self.name + fork + (f"/dataloader_idx_{self.loader}" if suffixed else "")

    def reduced(self) -> Any:
        """The epoch's value."""
        if self.metric is not None:
            syncs, self.metric._to_sync = self.metric._to_sync, self.metric._to_sync and not self.is_alone
            value = self.metric.compute()
            self.metric._to_sync = syncs
        elif self.so_far is not None:
            value = self.so_far
        elif callable(self.settings.reduce_fx):
            dtype = reduce(torch.promote_types, [step.dtype for step in self.steps])
            value = self.settings.reduce_fx(torch.stack([step.to(self.steps[0].device, dtype) for step in self.steps]))
        else:
            return self.total / self.weight if self.settings.reduce_fx == "mean" else self.total
        is_scalar = isinstance(value, Tensor) and value.numel() == 1
        return value.reshape(()) if is_scalar else number(self.name, value)

    def of_parts(self, value: Any, size: float, batch: int) -> Any:
        """The batch's value, of which this is one part's: what the epoch's would be, were that the batch."""
        before, total, weight = self._parts if self._parts[0] == batch else (batch, None, 0)
        if self.settings.reduce_fx in ("min", "max", "sum"):
            combine, value = _RUNNING[self.settings.reduce_fx], torch.as_tensor(value)
            self._parts = (before, value if total is None else combine(total, value), 1)
        else:
            self._parts = (before, (0.0 if total is None else total) + value * size, weight + size)
        _, total, weight = self._parts
        return total / (weight or 1)

    def add(self, value: Any, batch_size: float, epoch_ended: bool, apart: bool, group: Any) -> None:
        """One more value, where it is reduced otherwise than to the mean, or over processes; not that of a step which
        each of them makes `apart`, since one may have a batch more than another. [R103]"""
        fx, together = self.settings.reduce_fx, self.comes_together(group)
        value = value if isinstance(value, Tensor) else torch.tensor(value, dtype=torch.float64)
        if together and ((self.settings.on_step and not apart) or epoch_ended):
            self.latest = self._over_processes(value, self.group(group))
            value = self.latest if epoch_ended else value  # no later moment brings the processes together
        if fx == "mean":
            self.total, self.weight = self.total + value * batch_size, self.weight + batch_size
            return
        if not callable(fx):
            self.total = _RUNNING[fx](self.total, value) if self.weight else value
        elif self.settings.on_epoch:
            self.steps.append(value)
        self.weight += 1

    def group(self, group: Any) -> Any:
        """The processes that it is reduced over: those that were named, or else those of the run's `group`."""
        return self.settings.sync_dist_group or group

    def comes_together(self, group: Any) -> bool:
        """Whether its values do with those of other processes: asked for, or those of a metric, which does it by
        itself; and not where one process alone logs, or there are no others. Without a group a script's own are."""
        asked, group = self.metric is not None or self.settings.sync_dist, self.group(group)
        if not asked or self.settings.rank_zero_only or (group is None and OURS in os.environ):
            return False
        return distributed.is_available() and distributed.is_initialized() and distributed.get_world_size(group) > 1

    def synchronize(self, group: Any) -> None:
        """The epoch's values do; every process takes part."""
        fx, what = self.settings.reduce_fx, f"the epoch's values of {self.shown()!r}"
        if self.metric is not None:
            self.reduced()  # and keeps it, so that one process alone can read it
        elif callable(fx):
            each = gathered(what, [step.detach().cpu() for step in self.steps], self.group(group))
            self.steps = [step for steps in each for step in steps]
        elif fx == "mean":
            total = summed(what, float(self.total.detach()), self.group(group))
            self.total, self.weight = self.total.new_tensor(total), summed(what, self.weight, self.group(group))
        else:
            self.total = self._over_processes(self.total, self.group(group))

    def _over_processes(self, value: Tensor, group: Any) -> Any:
        """The values of all processes reduced; to their mean, where a callable reduces those of the epoch."""
        fx = self.settings.reduce_fx
        what = f"log({self.name!r}, reduce_fx={fx if isinstance(fx, str) else 'a function'!r})"
        if fx in ("min", "max"):
            each = torch.tensor(gathered(what, float(value.detach()), group), dtype=torch.float64)
            return reduce(_RUNNING[fx], each).to(value.device, value.dtype)
        total, dtype = summed(what, float(value.detach()), group), value.dtype
        if fx != "sum":
            total, dtype = total / distributed.get_world_size(group), torch.result_type(value, 1.0)
        return torch.tensor(total, dtype=dtype, device=value.device)


_SAVED = ("name", "loader", "latest", "total", "weight", "steps", "so_far")


# Hook, name, and loader, None if loaders are not to be told apart: each has an entry of its own.
Place = tuple[str | None, str, int | None]


@dataclass(slots=True)
class Page:
    """What one pass has logged so far; where two hooks log the same name, the later one is read."""

    entries: dict[Place, Entry] = field(default_factory=dict)
    loaders: int = 0
    ended: bool = False

    def leave_loader(self) -> None:
        """A metric keeps one account, of the loader that it is logged over: it is computed, and starts anew."""
        left = [each for each in self.entries.values() if each.metric is not None and each.settings.add_dataloader_idx]
        for entry in left:
            entry.so_far = entry.reduced()
        for entry in left:
            entry.metric.reset()
            entry.metric = None

    def reset(self) -> None:
        """The metrics that were logged start anew with the next pass."""
        for entry in self.entries.values():
            if entry.metric is not None:
                entry.metric.reset()
