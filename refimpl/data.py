"""Loaders: who provides them, how many of their batches are used, when validation is due."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from itertools import islice
from typing import Any

from .callbacks.prediction_writer import BasePredictionWriter, NotedIndices, noting
from .combined import CombinedLoader, leaves, structured
from .dispatch import takes_dataloader_idx
from .errors import DataError
from .loaders import check, length, limited, no_batch, unshuffled
from .saving.resume import generators_of, rejoin
from .seed import kept_random_state, random_state, set_random_state
from .types import Trainer

EvalBatches = Iterator[tuple[int, Iterator[tuple[int, Any]], tuple[int, ...]]]


__all__ = [
    "DataError",
    "EvalLoaders",
    "TrainLoader",
    "has_loader",
    "predict_dataloader",
    "test_dataloader",
    "train_dataloader",
    "val_dataloader",
]


def has_loader(trainer: Trainer, stage: str) -> bool:
    """Whether somebody provides batches for the stage: "train", "val", "test" or "predict"."""
    given = trainer.given_loaders.get(stage)
    if given is None:
        return getattr(trainer.hooks, f"{stage}_dataloader") is not None
    return not (isinstance(given, (list, tuple)) and not given)


class TrainLoader:
    """The training batches of one fit, or, where they are reloaded, of some epochs from `epoch` on.

    `num_batches` is None for a loader of unknown length without a limit.
    """

    def __init__(self, loaders: Any, trainer: Trainer, epoch: int) -> None:
        each = dict(leaves(loaders, "train_dataloader"))
        for name, loader in each.items():
            check(loader, name)
        if trainer.overfit_batches:
            loaders = structured(loaders, iter([unshuffled(loader, name) for name, loader in each.items()]))
        self.loaders, self.mode = loaders, trainer.multiple_trainloader_mode
        self.loader = as_one(loaders, self.mode, self.begin)
        self.epoch = epoch  # in which they were asked for
        self.each = [loader for _, loader in leaves(loaders, "train_dataloader")]
        self.starts: list[dict[str, Any]] = []  # the random states in which they were iterated in this epoch
        self.replay: list[dict[str, Any]] = []  # those in which they have to be, after resuming
        batches = length(self.loader)
        option = "overfit_batches" if trainer.overfit_batches else "limit_train_batches"
        self.num_batches = limited(batches, trainer.limit_train_batches, option)
        self.check_every = self._check_every(trainer.val_check_interval) if trainer.checks_val else None

    def _check_every(self, interval: int | float) -> int | None:
        """Validate after every so many batches; None: after an epoch's last batch."""
        if isinstance(interval, int):
            if self.num_batches is not None and interval > self.num_batches > 0:
                raise DataError(
                    f"val_check_interval={interval} is more than the {self.num_batches} batches of an epoch: "
                    "validation would never run; use at most that many, or check_val_every_n_epoch"
                )
            return interval
        if interval == 1.0:
            return None
        if self.num_batches is None:
            raise DataError(f"val_check_interval={interval} needs a loader with a length; give a number of batches")
        return max(1, int(self.num_batches * interval))

    def batches(self) -> Iterator[Any]:
        """One epoch's batches, up to the limit. A loader of unknown length reads one batch ahead, so
        that its last batch is known as such."""
        whole = iter(self.loader) if isinstance(self.loader, CombinedLoader) else self.begin(self.loader)
        batches = islice(whole, self.num_batches)
        if self.num_batches is not None and length(self.loader) is not None:
            return self._promised(batches, self.num_batches)
        return self._ahead(batches)

    def begin(self, loader: Any) -> Iterator[Any]:
        """A pass over one of the user's loaders begins: an epoch's, or another one of a loader that is shorter than
        those beside it. That may draw the order of its samples: from a random state that is noted, so that a
        resumed run can draw the same."""
        generators = generators_of(loader)
        if self.replay:
            set_random_state(self.replay.pop(0), generators)
        self.starts.append(random_state(generators))
        return iter(loader)

    def _promised(self, batches: Iterator[Any], promised: int) -> Iterator[Any]:
        self.given = 0
        for batch in batches:
            self.given += 1
            yield batch
        if self.given < promised:
            warnings.warn(
                f"train_dataloader: {promised} batches were expected of the loader's length, {self.given} came: "
                "a validation due after the last of them has not run",
                stacklevel=2,
            )

    def _ahead(self, batches: Iterator[Any]) -> Iterator[Any]:
        nothing = object()
        self.exhausted = False
        current = next(batches, nothing)
        if current is nothing:
            raise no_batch(self.loader, "train_dataloader")
        while current is not nothing:
            following = next(batches, nothing)
            self.exhausted = following is nothing
            yield current
            current = following

    exhausted, given = False, 0

    @property
    def at_last(self) -> bool:
        """Whether the batch that was handed out last is its epoch's last."""
        return self.exhausted or self.given == self.num_batches

    def is_last(self, batch_idx: int) -> bool:
        """Whether the batch that was just trained on is the epoch's last."""
        return self.exhausted or batch_idx + 1 == self.num_batches


def as_one(loaders: Any, mode: str, begin: Callable[[Any], Iterator[Any]] = iter) -> Any:
    """One loader: the only one, or those in a list, tuple or dict combined."""
    return CombinedLoader(loaders, mode, begin) if isinstance(loaders, (list, tuple, Mapping)) else loaders


class EvalLoaders:
    """The loaders of a validation, test or prediction, each with its limit."""

    def __init__(self, loaders: Any, limit: int | float, stage: str, epoch: int = 0) -> None:
        self.name = name = f"{stage}_dataloader"
        self.epoch = epoch  # in which they were asked for
        if loaders is None or (isinstance(loaders, (list, tuple)) and not loaders):
            warnings.warn(f"{name} is {loaders!r}: no loader to iterate over", stacklevel=2)
            loaders = []
        self.several = isinstance(loaders, (list, tuple)) and len(loaders) > 1
        self.loaders: Sequence[Any] = loaders if isinstance(loaders, (list, tuple)) else [loaders]
        for index, loader in enumerate(self.loaders):
            one = f"{name}[{index}]" if self.several else name
            if isinstance(loader, (list, tuple, Mapping)):
                raise DataError(f"{one} is a {type(loader).__name__}; a loader, or a flat list of loaders, is accepted")
            check(loader, one)
        self.num_batches = [limited(length(ld), limit, f"limit_{stage}_batches") for ld in self.loaders]

    def note_indices(self) -> None:
        """From now on, `indices` holds for each loader what knows which samples a batch is made of, or None."""
        pairs = [noting(loader) for loader in self.loaders]
        self.loaders, self.indices = [loader for loader, _ in pairs], [noted for _, noted in pairs]

    indices: Sequence[NotedIndices | None] = ()

    def batches(self, at_most: int | None = None) -> Iterator[tuple[int, Iterator[tuple[int, Any]]]]:
        """For each loader its index and its numbered batches, `at_most` so many of each."""
        limits = [
            min((count for count in (limit, at_most) if count is not None), default=None) for limit in self.num_batches
        ]
        self.total = None if None in limits else sum(limit for limit in limits if limit)
        for index, (loader, limit) in enumerate(zip(self.loaders, limits)):
            batches: Iterator[Any] = islice(iter(loader), limit)
            if length(loader) is None and limit != 0:
                batches = self._some(batches, loader)
            yield index, enumerate(batches)

    total: int | None = None  # the batches of the pass that is running, if that is known

    def _some(self, batches: Iterator[Any], loader: Any) -> Iterator[Any]:
        """The batches of a loader of unknown length; that there are none is known only here."""
        empty = True
        for batch in batches:
            empty = False
            yield batch
        if empty:
            raise no_batch(loader, self.name)


# ---- the loaders of a run, asked for when a loop first needs them, and kept until they are due again -----


def train_dataloader(trainer: Trainer) -> Iterator[tuple[int, Any]]:
    """One epoch's numbered training batches."""
    loader = _train_loader(trainer)
    return rejoin(trainer) if trainer.resuming else enumerate(loader.batches())


def val_dataloader(trainer: Trainer, at_most: int | None = None) -> EvalBatches:
    """The validation batches, `at_most` so many of each loader."""
    return _eval_batches(trainer, "val", "validation_step", at_most)


def test_dataloader(trainer: Trainer) -> EvalBatches:
    """The test batches."""
    return _eval_batches(trainer, "test", "test_step")


def predict_dataloader(trainer: Trainer) -> EvalBatches:
    """The batches to predict, and for a callback that writes predictions away the indices of their samples."""
    if any(isinstance(callback, BasePredictionWriter) for callback in trainer.callbacks):
        _eval_loaders(trainer, "predict").note_indices()
    return _eval_batches(trainer, "predict", "predict_step")


def _provided(trainer: Trainer, stage: str) -> tuple[Any, int]:
    """The stage's loaders, and the epoch in which they were asked for: in a resumed run, that in which the run
    before asked for them. What asking for them draws was drawn then, too."""
    before = trainer.asked_before.pop(stage, None)
    is_new = before is None or _is_due(trainer, stage, before)
    given = trainer.given_loaders.get(stage)
    with nullcontext() if is_new else kept_random_state():
        loaders = getattr(trainer.hooks, f"{stage}_dataloader")() if given is None else given
    return loaders, trainer.current_epoch if before is None or is_new else before


def _is_due(trainer: Trainer, stage: str, epoch: int) -> bool:
    """Whether loaders that were asked for in that epoch are asked for again; those given to the call are not."""
    every = trainer.reload_dataloaders_every_n_epochs
    return every > 0 and trainer.given_loaders.get(stage) is None and trainer.current_epoch - epoch >= every


def _train_loader(trainer: Trainer) -> TrainLoader:
    loader = trainer.train_loader
    if loader is None or _is_due(trainer, "train", loader.epoch):
        loaders, epoch = _provided(trainer, "train")
        loader = trainer.train_loader = TrainLoader(loaders, trainer, epoch)
    return loader


def _eval_loaders(trainer: Trainer, stage: str) -> EvalLoaders:
    """The stage's loaders; with `overfit_batches`, a fit validates on the training batches."""
    limit = getattr(trainer, f"limit_{stage}_batches")
    loaders = trainer.eval_loaders.get(stage)
    if trainer.overfit_batches and trainer.state.fn == "fit":
        train = _train_loader(trainer)
        loaders = EvalLoaders([as_one(train.loaders, train.mode)], trainer.limit_train_batches, stage)
    elif loaders is None or _is_due(trainer, stage, loaders.epoch):
        goes_on = stage in trainer.asked_before and not _is_due(trainer, stage, trainer.asked_before[stage])
        provided, epoch = _provided(trainer, stage)
        loaders = EvalLoaders(provided, limit, stage, epoch)
        for loader, states in zip(loaders.loaders, trainer.val_generators if goes_on else ()):
            set_random_state({"generators": states}, generators_of(loader))
    trainer.eval_loaders[stage] = loaders
    return loaders


def _eval_batches(trainer: Trainer, stage: str, step: str, at_most: int | None = None) -> EvalBatches:
    """For each loader: its index, its numbered batches, and what the step is given after batch_idx."""
    loaders = _eval_loaders(trainer, stage)
    takes, requires = takes_dataloader_idx(trainer.module, step)
    if loaders.several and not takes:
        raise DataError(f"{step} has no argument dataloader_idx, but there are {len(loaders.loaders)} loaders")
    for index, batches in loaders.batches(at_most):
        trainer.logbook.enter_loader(index, loaders.several)
        yield index, batches, (index,) if loaders.several or requires else ()
