"""What `self.log` has made known at any moment of a run, by the documentation's words.

Every value is kept with its weight and reduced when it is asked for: this is no engine. [R21], [R39], [R42]
and [R77] are rows of `docs/interpretations.md`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import takewhile
from typing import NamedTuple

from ..numerics import OWN_WORDS
from ..scenario_module import Log

__all__ = ["Handed", "Logged", "on_bar"]

EVALUATES = ("validation_", "test_", "on_validation_", "on_test_")
REDUCED: dict[str, Callable[[list[float]], float]] = {
    "min": min, "max": max, "sum": sum, "spread": lambda values: max(values) - values[-1],
}  # fmt: skip


class Value(NamedTuple):
    """A value that was logged, the size of the batch or part that it is of, which batch that is, counted, and whether
    this process has logged it."""

    value: float
    weight: int
    batch: int
    own: bool = True


def _is_of(batch: int, value: Value) -> bool:
    return value.batch == batch


class Handed(NamedTuple):
    """What a logger is given: a value, and of which step it is [R112]."""

    value: float
    step: int | str


class Pass:
    """A training epoch, a validation or a test: what was logged in it, by call of `log` and loader."""

    forks_returned: tuple[str, ...] = ("_epoch", "")  # the names of a value that is logged per step, too
    steps_apart: tuple[str, ...] = EVALUATES  # of whose steps each process has its own values

    def __init__(self) -> None:
        self.values: dict[tuple[Log, int | None], list[Value]] = {}
        self.of_batch: set[tuple[Log, int | None]] = set()  # those that were logged since the last batch was done
        self.last_batch_done = False

    def known(self) -> dict[str, float]:
        """Names and values; an epoch's are known when its last batch is done."""
        found: dict[str, float] = {}
        for log, loader in self.values:
            on_step, on_epoch = defaults(log)
            forked = on_step and on_epoch
            latest = self.latest(log, loader)
            if on_step:
                found[shown(log, "_step" if forked else "", loader)] = latest
            if on_epoch and self.last_batch_done:
                found[shown(log, "_epoch" if forked else "", loader)] = self.of_epoch(log, loader)
            if forked:  # what schedulers and callbacks can monitor under the bare name
                found[shown(log, "", loader)] = self.of_epoch(log, loader) if self.last_batch_done else latest
        return found

    def there(self) -> Iterator[tuple[tuple[Log, int | None], list[Value]]]:
        """The values that there are."""
        return ((key, values) for key, values in self.values.items() if values)

    def latest(self, log: Log, loader: int | None) -> float:
        """A step's value: that of all parts of its batch; in an evaluation of this process's alone [R103]."""
        values = [each for each in self.values[log, loader] if each.own or not log.hook.startswith(self.steps_apart)]
        of_batch = list(takewhile(partial(_is_of, values[-1].batch), reversed(values)))
        return mean(of_batch) if log.reduce_fx == "spread" else reduced(log, of_batch)

    def for_loggers(self, what: str) -> dict[str, float]:
        """What a logger is given: of the "step" that is done, or of the "epoch" [R106]."""
        found: dict[str, float] = {}
        for log, loader in self.of_batch if what == "step" else dict(self.there()):
            on_step, on_epoch = defaults(log)
            name = shown(log, f"_{what}" if on_step and on_epoch else "", loader)
            if log.logger and what == "step" and on_step:
                found[name] = self.latest(log, loader)
            elif log.logger and what == "epoch" and on_epoch:
                found[name] = self.of_epoch(log, loader)
        return found

    def returned(self, loaders: int) -> list[tuple[str, float]]:
        """What `validate` and `test` return: the names, after the loader's number, and values of the epoch, a dict for
        each loader; those of no loader are in each [R77]."""
        found: dict[str, float] = {}
        for (log, of), _ in self.there():
            for loader in range(loaders) if of is None else (of,):
                found.update({f"{loader}/{name}": value for name, value in self.returns(log, of, loaders).items()})
        return sorted(found.items())

    def returns(self, log: Log, loader: int | None, loaders: int) -> dict[str, float]:
        """Names and values of the epoch, of one call of `log`, among so many loaders."""
        on_step, on_epoch = defaults(log)
        forks = self.forks_returned if on_step else ("",)
        return {shown(log, fork, loader): self.of_epoch(log, loader) for fork in forks if on_epoch}

    def of_epoch(self, log: Log, loader: int | None) -> float:
        """An epoch's value, so far: a metric's, too, is that of its loader's batches [R76]."""
        return reduced(log, self.values[log, loader])


class Logged:
    """The passes that run, one within another, and what is known of those that are over."""

    def __init__(self) -> None:
        self.kept: dict[str, float] = {}
        self.passes: list[Pass] = []
        self.left: list[Pass] = []  # by an exception: the training epoch's, for a checkpoint
        self.batches = 0
        self.handed: dict[str, list[Handed]] = {}  # to loggers
        self.over: Pass | None = None  # the last one that is

    def begin(self) -> None:
        """A pass begins."""
        self.passes.append(Pass())

    def take_batch(self) -> None:
        """What is logged from here on is of one batch, or of the parts of one: together a step's value [R12]."""
        self.batches += 1

    def last_batch(self) -> None:
        """The pass has seen its last batch."""
        self.passes[-1].last_batch_done = True

    def batch_done(self, is_step: bool = True, step: int | str = OWN_WORDS) -> None:
        """The loggers are given what was logged in it, if it is the last of its step."""
        if is_step:
            self.hand_on(self.passes[-1].for_loggers("step"), step)
        self.passes[-1].of_batch.clear()

    def hand_on(self, values: dict[str, float], step: int | str = OWN_WORDS) -> None:
        """Give them to a logger."""
        for name, value in values.items():
            self.handed.setdefault(name, []).append(Handed(value, step))

    def end(self, forget: bool = False, step: int | str = OWN_WORDS) -> None:
        """The pass is over, in that step; what the sanity check logged is forgotten."""
        over = self.over = self.passes.pop()
        over.last_batch_done = True
        if not forget:
            self.kept.update(over.known())
            self.hand_on(over.for_loggers("epoch"), step)

    def abandon(self) -> None:
        """An exception: what ran is not finished."""
        self.left = self.passes[:1]
        self.passes.clear()

    def log(self, log: Log, value: float, weight: int, loader: int | None, own: bool = True) -> None:
        """A call of `self.log`; `loader` is None unless there are several. Without add_dataloader_idx their
        values are mixed."""
        loader = loader if log.add_dataloader_idx else None
        values = self.passes[-1].values.setdefault((log, loader), [])
        values.append(Value(value, log.batch_size or weight, self.batches, own))
        self.passes[-1].of_batch.add((log, loader))

    def known(self) -> dict[str, float]:
        """What `callback_metrics` hold now."""
        found = dict(self.kept)
        for each in self.passes:
            found.update(each.known())
        return found

    def read(self) -> dict[str, float]:
        """The same, for a callback or a scheduler: a trainer may keep what was read."""
        return self.known()


def defaults(log: Log) -> tuple[bool, bool]:
    """on_step and on_epoch: as given, or as the hook has them [R39]."""
    per_step = not log.hook.startswith(EVALUATES)
    per_step = per_step and "epoch" not in log.hook and log.hook != "on_train_start"
    on_step = per_step if log.on_step is None else log.on_step
    return on_step, not per_step if log.on_epoch is None else log.on_epoch


def on_bar(logs: Iterable[Log], known: Iterable[str]) -> list[str]:
    """Which of the names that are known the progress bar shows [R106]."""
    to_bar = {log.name + fork for log in logs if log.prog_bar for fork in forks(log)}
    return [name for name in known if name.partition("/")[0] in to_bar]


def forks(log: Log) -> tuple[str, ...]:
    """What is added to the name of a value that is logged per step and per epoch both."""
    return ("_step", "_epoch") if all(defaults(log)) else ("",)


def shown(log: Log, fork: str, loader: int | None) -> str:
    """The name that a value is known under."""
    return log.name + fork + ("" if loader is None else f"/dataloader_idx_{loader}")


def reduced(log: Log, values: list[Value]) -> float:
    """The epoch's value: the mean, weighted by batch size [R21], or what else was asked for [R42]."""
    return mean(values) if log.averages else REDUCED[log.reduce_fx]([each.value for each in values])


def mean(values: list[Value]) -> float:
    return sum(each.value * each.weight for each in values) / sum(each.weight for each in values)
