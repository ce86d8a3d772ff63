"""What `self.log` makes known in pytorch-lightning 1.5 and 2, together and alone, instead of what the documentation
says: when a value is among the metrics, what a logger is given, what an evaluation returns."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType

from ..numerics import OWN_WORDS
from ..scenario_module import Log
from .logged import EVALUATES, REDUCED, Logged, Pass, Value, defaults, reduced, shown

__all__ = ["Logged2", "Logged14", "Logged15", "Logged19", "LoggedThere", "PassThere"]


class PassThere(Pass):
    """A step's value of an evaluation is not among the metrics. A logger is given each step's latest value again."""

    loader: int | None = None  # the one whose batches come
    between = False  # two loaders
    steps_apart = ()

    def told(self, in_batches: bool) -> dict[str, float]:
        """While batches come what its steps have logged, else what is of the epoch."""
        found: dict[str, float] = {}
        for (log, loader), _ in self.there():
            on_step, on_epoch = defaults(log)
            forked = on_step and on_epoch
            if in_batches and on_step and not log.hook.startswith(EVALUATES):
                value = self.latest(log, loader)
                found.update({shown(log, "_step" if forked else "", loader): value, shown(log, "", loader): value})
            elif on_epoch and not in_batches:
                value = self.of_epoch(log, loader)
                found.update({shown(log, "_epoch" if forked else "", loader): value, shown(log, "", loader): value})
        return found

    def of_epoch(self, log: Log, loader: int | None) -> float:
        """A metric is not reset between loaders."""
        values = self.values[log, loader]
        for another in range(loader or 0) if log.metric else ():
            values = self.values.get((log, another), []) + values
        return reduced(log, values)

    def for_loggers(self, what: str) -> dict[str, float]:
        self.of_batch = {key for key, _ in self.there() if self.is_given(key[1])}
        return super().for_loggers(what)

    def is_given(self, loader: int | None) -> bool:
        """Those of the loader that has the batch, and of no loader."""
        return loader in (None, self.loader)


class LoggedThere(Logged):
    """What `self.log` makes known: the pass that runs is asked, and what a callback or a scheduler has read, and what a
    batch or a pass has come to, stays until it is replaced. From a pass's first batch to its last, batches come, and
    until then those of the pass around it."""

    in_batches = False
    lingers: Mapping[str, float] = MappingProxyType({})  # of a pass that was left, while the trainer is in its stage

    def begin(self) -> None:
        self.passes.append(PassThere())

    def last_batch(self) -> None:
        self.in_batches = self.innermost.between = False

    def batches_of(self, loader: int | None, batch_idx: int) -> None:
        """Batches of a loader come, this one now."""
        self.in_batches = True
        self.innermost.loader = loader

    @property
    def innermost(self) -> PassThere:
        """The pass that runs."""
        innermost = self.passes[-1]
        assert isinstance(innermost, PassThere)
        return innermost

    def end(self, forget: bool = False, step: int | str = OWN_WORDS) -> None:
        """What the sanity check logged is known for a while, and given to no logger."""
        self.kept.update(self.innermost.told(in_batches=forget and self.in_batches))
        over = self.over = self.passes.pop()
        if not forget:
            self.hand_on(over.for_loggers("epoch"), step)

    def known(self) -> dict[str, float]:
        return {**self.kept, **(self.innermost.told(self.in_batches) if self.passes else self.lingers)}

    def abandon(self) -> None:
        self.lingers = self.innermost.told(self.in_batches) if self.passes else {}
        super().abandon()

    def read(self) -> dict[str, float]:
        self.kept = self.known()
        return dict(self.kept)


class Pass15(PassThere):
    """What was logged stays from epoch to epoch, until its hook logs again."""

    def __init__(self, of_training: bool) -> None:
        super().__init__()
        self.of_training = of_training
        self.elsewhere: dict[tuple[Log, int | None], list[Value]] = {}  # what other processes have logged

    def told(self, in_batches: bool) -> dict[str, float]:
        """While batches of an evaluation come, nothing."""
        return super().told(in_batches) if self.of_training or not in_batches else {}

    def of_epoch(self, log: Log, loader: int | None) -> float:
        """That of all processes, even without sync_dist; a metric's that of all loaders."""
        if log.metric:
            return reduced(log, [each for key, values in self.values.items() if key[0] == log for each in values])
        return reduced(log, self.values[log, loader] + self.elsewhere.get((log, loader), []))

    def is_given(self, loader: int | None) -> bool:
        """Those of all loaders, whichever has the batch."""
        return True

    def returns(self, log: Log, loader: int | None, loaders: int) -> dict[str, float]:
        """Of several loaders, not what is of none of them."""
        return super().returns(log, loader, loaders) if loader is not None or loaders == 1 else {}


class Pass14(Pass15):
    """A sum counts each value as often as its batch has samples; the least and the greatest are so among 0, too."""

    def of_epoch(self, log: Log, loader: int | None) -> float:
        if log.metric or log.averages:
            return super().of_epoch(log, loader)
        values = self.values[log, loader] + self.elsewhere.get((log, loader), [])
        if log.reduce_fx == "sum":
            return sum(each.value * each.weight for each in values)
        return REDUCED[log.reduce_fx]([0.0, *(each.value for each in values)])

    def latest(self, log: Log, loader: int | None) -> float:
        """Of this process, even with sync_dist, if the epoch has a value, too."""
        if not log.on_epoch:
            return super().latest(log, loader)
        return [each.value for each in self.values[log, loader] if each.own][-1]

    def returns(self, log: Log, loader: int | None, loaders: int) -> dict[str, float]:
        return PassThere.returns(self, log, loader, loaders)


class Logged15(LoggedThere):
    """The hook that first logs in an epoch's first batch, or outside of batches, forgets what it has logged before: so
    it does, too, where another hook has logged since."""

    in_batches = True
    trained: Pass15 | None = None  # the epochs of the last fit
    is_first = True  # batch, and piece of it, or none at all
    last_hook = ""  # that has logged

    pass_type = Pass15

    def begin(self, of_training: bool = False) -> None:
        self.passes.append(self.pass_type(of_training))
        self.start()

    def start(self) -> None:
        """An epoch or an evaluation does."""
        self.is_first, self.last_hook = True, ""

    def last_batch(self) -> None:
        super().last_batch()
        self.is_first = True

    def batches_of(self, loader: int | None, batch_idx: int) -> None:
        super().batches_of(loader, batch_idx)
        self.is_first = batch_idx == 0

    def log(self, log: Log, value: float, weight: int, loader: int | None, own: bool = True) -> None:
        if self.is_first and log.hook != self.last_hook:
            for (other, of), values in self.innermost.values.items():
                if (other.hook, of, other.metric) == (log.hook, loader, False):
                    values.clear()
                    self.innermost.elsewhere.pop((other, of), None)
        self.last_hook = log.hook
        super().log(log, value, weight, loader, own)

    def abandon(self) -> None:
        """A fit is over, or ends early. What it has logged is read again when the next one begins."""
        super().abandon()
        for each in self.left:
            assert isinstance(each, Pass15)
            self.trained = each if each.of_training else self.trained

    @property
    def innermost(self) -> Pass15:
        innermost = self.passes[-1]
        assert isinstance(innermost, Pass15)
        return innermost

    def log_elsewhere(self, log: Log, value: float, weight: int, loader: int | None) -> None:
        """Another process has logged that."""
        values = self.innermost.elsewhere.setdefault((log, loader), [])
        values.append(Value(value, log.batch_size or weight, self.batches))

    def end_epoch(self, step: int) -> None:
        """An epoch of training is over; what was logged in it stays, but metrics are reset."""
        self.read()
        self.hand_on(self.innermost.for_loggers("epoch"), step)
        for (log, _), values in self.innermost.values.items():
            if log.metric:
                values.clear()
        self.start()

    def end(self, forget: bool = False, step: int | str = OWN_WORDS) -> None:
        super().end(forget, step)
        self.start()


class Logged14(Logged15):
    """By default only what training_step and its end log is of the step."""

    pass_type = Pass14
    size = 1  # of the last batch
    given = 0  # the batch_size that was given last, in this batch
    next_is_first = True  # the batch that is next to be trained on

    def batches_of(self, loader: int | None, batch_idx: int) -> None:
        was_first, self.given = self.is_first, 0
        super().batches_of(loader, batch_idx)
        if self.innermost.of_training:
            self.next_is_first, self.is_first = self.is_first, was_first

    def comes(self) -> None:
        """The batch that is trained on."""
        self.is_first = self.next_is_first

    def log(self, log: Log, value: float, weight: int, loader: int | None, own: bool = True) -> None:
        """A batch_size that is given counts for what comes after it in the batch, too."""
        self.given = log.batch_size or self.given
        super().log(as_default(log), value, self.given or max(weight, self.size), loader, own)

    def log_elsewhere(self, log: Log, value: float, weight: int, loader: int | None) -> None:
        super().log_elsewhere(as_default(log), value, max(weight, self.size), loader)


def as_default(log: Log) -> Log:
    """With the defaults of 1.4."""
    of_step = log.hook in ("training_step", "training_step_end")
    on_step = of_step if log.on_step is None else log.on_step
    return replace(log, on_step=on_step, on_epoch=not of_step if log.on_epoch is None else log.on_epoch)


class Pass2(PassThere):
    """What was logged per step, too, is returned as the epoch's alone; and nothing of what no logger is given. Between
    two loaders nothing is known but what is of the one that is over."""

    forks_returned = ("_epoch",)

    def told(self, in_batches: bool) -> dict[str, float]:
        told = super().told(in_batches)
        if in_batches or not self.between:
            return told
        of_batches = [log for (log, _), _ in self.there() if "_batch_" in log.hook or "_step" in log.hook]
        unnamed = {log.name for log in of_batches if not log.add_dataloader_idx}  # whose loader is known all the same
        suffix = f"/dataloader_idx_{self.loader}"
        return {name: told[name] for name in told if name.endswith(suffix) or name.removesuffix("_epoch") in unnamed}

    def returns(self, log: Log, loader: int | None, loaders: int) -> dict[str, float]:
        return super().returns(log, loader, loaders) if log.logger else {}


class Logged2(LoggedThere):
    """When an evaluation is over, batches come if they did before."""

    def __init__(self) -> None:
        super().__init__()
        self.came_before: list[bool] = []  # whether batches did, as each pass began

    def begin(self) -> None:
        self.passes.append(Pass2())
        self.came_before.append(self.in_batches)

    def end(self, forget: bool = False, step: int | str = OWN_WORDS) -> None:
        super().end(forget, step)
        self.in_batches = self.came_before.pop()


class Logged19(LoggedThere):
    """Until the first ones are over, and from the beginning of each epoch of training, batches come."""

    in_batches = True

    def begin(self) -> None:
        self.passes.append(Pass2())
