"""Loaders: who provides them, how many of their batches are used, when validation is due."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import nullcontext
from itertools import islice
from typing import TYPE_CHECKING, Any

from torch import Tensor
from torch.utils.data import Dataset

from .dispatch import takes_dataloader_idx
from .prediction_writer import BasePredictionWriter, NotedIndices, noting
from .resume import generators_of, rejoin
from .seed import kept_random_state, random_state, set_random_state

EvalBatches = Iterator[tuple[int, Iterator[tuple[int, Any]], tuple[int, ...]]]

if TYPE_CHECKING:
    from .trainer import Trainer

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


class DataError(ValueError):
    """A loader is missing, empty, or of a kind that cannot be iterated; the message names which."""


def has_loader(trainer: Trainer, stage: str) -> bool:
    """Whether somebody provides batches for the stage: "train", "val", "test" or "predict"."""
    given = trainer.given_loaders.get(stage)
    if given is None:
        return getattr(trainer.hooks, f"{stage}_dataloader") is not None
    return not (isinstance(given, (list, tuple)) and not given)


def limited(batches: int | None, limit: int | float, what: str) -> int | None:
    """How many of `batches` a limit leaves; None for a loader of unknown length without a limit.

    An int limit is a count of batches, a float in [0, 1] a fraction, rounded down. Raises DataError for
    a fraction of an unknown length, and for a fraction that leaves none of a loader's batches.
    """
    if isinstance(limit, int):
        return limit if batches is None else min(batches, limit)
    if batches is None:
        if limit in (0.0, 1.0):
            return None if limit else 0
        raise DataError(f"{what}={limit} needs a loader with a length; give a number of batches instead")
    left = int(batches * limit)
    if left == 0 and limit > 0 and batches > 0:
        raise DataError(f"{what}={limit} leaves 0 of {batches} batches; at least {1 / batches:.3g} is needed")
    return left


def _length(loader: Any) -> int | None:
    """`len(loader)`, or None where it has none (an iterable data set)."""
    try:
        return len(loader)
    except (TypeError, NotImplementedError):
        return None


def _check(loader: Any, name: str) -> None:
    if loader is None:
        raise DataError(f"{name} returned None; return a loader")
    if isinstance(loader, Dataset) and not hasattr(type(loader), "__iter__"):
        raise DataError(
            f"{name}: {type(loader).__name__} is a data set of single samples; wrap it in a DataLoader "
            "(with batch_size=None if its items are batches)"
        )
    if isinstance(loader, (Tensor, str, bytes)) or not isinstance(loader, Iterable):
        if hasattr(loader, "__getitem__") and not isinstance(loader, (Tensor, str, bytes)):
            return  # the old sequence protocol is iterable, too
        raise DataError(f"{name}: a loader is an iterable of batches, not {type(loader).__name__}")
    if _length(loader) == 0:
        raise DataError(f"{name}: the loader has no batch (its length is 0)")


def _no_batch(loader: Any, name: str) -> DataError:
    once = "; an iterator gives its batches only once: pass something that can be iterated anew, as a DataLoader can"
    return DataError(f"{name}: the loader has no batch" + (once if isinstance(loader, Iterator) else ""))


class TrainLoader:
    """The training batches of one fit: asked for when the first epoch begins, and kept.

    `num_batches` is None for a loader of unknown length without a limit.
    """

    def __init__(self, loader: Any, trainer: Trainer) -> None:
        if isinstance(loader, (list, tuple, dict)):
            raise DataError(
                f"train_dataloader: one iterable of batches is accepted, not a {type(loader).__name__} "
                f"of {len(loader)}; for a fixed list of batches, wrap it in an iterable class or DataLoader"
            )
        _check(loader, "train_dataloader")
        self.loader = loader
        self.starts: list[dict[str, Any]] = []  # the random states in which it was iterated in this epoch
        self.replay: list[dict[str, Any]] = []  # those in which it has to be, after resuming
        length = _length(loader)
        self.num_batches = limited(length, trainer.limit_train_batches, "limit_train_batches")
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
        if self.num_batches is not None and _length(self.loader) is not None:
            return self._promised(islice(self.begin(self.loader), self.num_batches), self.num_batches)
        return self._ahead(islice(self.begin(self.loader), self.num_batches))

    def begin(self, loader: Any) -> Iterator[Any]:
        """`iter(loader)`, which may draw the order of its samples: from a random state that is noted, so that a
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
            raise _no_batch(self.loader, "train_dataloader")
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


class EvalLoaders:
    """The loaders of a validation, test or prediction, each with its limit."""

    def __init__(self, loaders: Any, limit: int | float, stage: str) -> None:
        self.name = name = f"{stage}_dataloader"
        if loaders is None or (isinstance(loaders, (list, tuple)) and not loaders):
            warnings.warn(f"{name} is {loaders!r}: no loader to iterate over", stacklevel=2)
            loaders = []
        self.several = isinstance(loaders, (list, tuple)) and len(loaders) > 1
        self.loaders: Sequence[Any] = loaders if isinstance(loaders, (list, tuple)) else [loaders]
        for index, loader in enumerate(self.loaders):
            _check(loader, f"{name}[{index}]" if self.several else name)
        self.num_batches = [limited(_length(ld), limit, f"limit_{stage}_batches") for ld in self.loaders]

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
            if _length(loader) is None and limit != 0:
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
            raise _no_batch(loader, self.name)


# ---- the loaders of a run, asked for when a loop first needs them, and kept -----------------------------


def train_dataloader(trainer: Trainer) -> Iterator[tuple[int, Any]]:
    """One epoch's numbered training batches."""
    if trainer.train_loader is None:
        trainer.train_loader = TrainLoader(_provided(trainer, "train"), trainer)
    return rejoin(trainer) if trainer.resuming else enumerate(trainer.train_loader.batches())


def val_dataloader(trainer: Trainer, at_most: int | None = None) -> EvalBatches:
    """The validation batches, `at_most` so many of each loader."""
    return _eval_batches(trainer, "val", "validation_step", at_most)


def test_dataloader(trainer: Trainer) -> EvalBatches:
    """The test batches."""
    return _eval_batches(trainer, "test", "test_step")


def predict_dataloader(trainer: Trainer) -> EvalBatches:
    """The batches to predict, and for a callback that writes predictions away the indices of their samples."""
    if any(isinstance(callback, BasePredictionWriter) for callback in trainer.callbacks):
        _loaders(trainer, "predict").note_indices()
    return _eval_batches(trainer, "predict", "predict_step")


def _provided(trainer: Trainer, stage: str) -> Any:
    given = trainer.given_loaders.get(stage)
    if given is not None:
        return given
    again = stage in trainer.asked_before
    trainer.asked_before.discard(stage)
    with kept_random_state() if again else nullcontext():  # what it draws was drawn before the checkpoint was saved
        return getattr(trainer.hooks, f"{stage}_dataloader")()


def _loaders(trainer: Trainer, stage: str) -> EvalLoaders:
    if stage not in trainer.eval_loaders:
        limit = getattr(trainer, f"limit_{stage}_batches")
        trainer.eval_loaders[stage] = EvalLoaders(_provided(trainer, stage), limit, stage)
    return trainer.eval_loaders[stage]


def _eval_batches(trainer: Trainer, stage: str, step: str, at_most: int | None = None) -> EvalBatches:
    """For each loader: its index, its numbered batches, and what the step is given after batch_idx."""
    loaders = _loaders(trainer, stage)
    takes, requires = takes_dataloader_idx(trainer.module, step)
    if loaders.several and not takes:
        raise DataError(f"{step} has no argument dataloader_idx, but there are {len(loaders.loaders)} loaders")
    for index, batches in loaders.batches(at_most):
        trainer.logbook.enter_loader(index, loaders.several)
        yield index, batches, (index,) if loaders.several or requires else ()
