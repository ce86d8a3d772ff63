"""Data: the loaders of a run, who provides them, how many of their batches are used, and where they are."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from itertools import chain, islice, pairwise, repeat
from typing import Any

import torch

from .errors import DataError, warn
from .hooks import Hooks
from .loaders.combined import CombinedLoader, leaves, structured
from .loaders.loaders import check, generators_of, keeps_its_length, length, limited, no_batch, set_epoch, unshuffled
from .progress import END, Progress
from .seed import kept_random_state, random_state, set_random_state
from .trainer.options import Options

__all__ = ["Data", "EvalLoaders", "TrainLoader"]


class TrainLoader:
    """The training batches of one fit, or, where they are reloaded, of some epochs from `epoch` on.

    `num_batches` is None for a loader of unknown length without a limit, and `promised`, which is the same otherwise,
    for any of unknown length; `check_every` so many batches a validation is due, None: after an epoch's last one.
    """

    def __init__(self, loaders: Any, options: Options, epoch: int, validates: bool = False) -> None:
        self.mode = options.multiple_trainloader_mode
        if isinstance(loaders, CombinedLoader):
            loaders, self.mode = loaders.loaders, loaders.mode
        each = dict(leaves(loaders, "train_dataloader"))
        for name, loader in each.items():
            check(loader, name)
        if options.overfit_batches:
            loaders = structured(loaders, iter([unshuffled(loader, name) for name, loader in each.items()]))
        self.loaders, self.loader = loaders, as_one(loaders, self.mode, self.begin)
        self.epoch = epoch  # in which they were asked for
        self.each = [loader for _, loader in leaves(loaders, "train_dataloader")]
        self.starts: list[dict[str, Any]] = []  # the random states in which they were iterated in this epoch
        self.replay: list[dict[str, Any]] = []  # those in which they have to be, after resuming
        option = "overfit_batches" if options.overfit_batches else "limit_train_batches"
        self.num_batches = limited(promised := length(self.loader), options.limit_train_batches, option)
        self.promised = promised and self.num_batches
        self.check_every = self._check_every(options.val_check_interval) if validates else None

    def _check_every(self, interval: int | float) -> int | None:
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

    def batches(self) -> Iterator[tuple[Any, Any]]:
        """One epoch's batches, up to the limit; with the last one comes `END`.

        Where a length can be relied on, the last batch is known by it. Any other loader is read one batch ahead, so
        that its last batch is known as such. Raises DataError for one from which no batch comes.
        """
        whole = iter(self.loader) if isinstance(self.loader, CombinedLoader) else self.begin(self.loader)
        batches = islice(whole, self.num_batches)
        if self.num_batches and all(map(keeps_its_length, self.each)):
            return zip(batches, chain(repeat(None, self.num_batches - 1), (END,)))
        return pairwise(chain(self._some(batches), (END,)))

    def _some(self, batches: Iterator[Any]) -> Iterable[Any]:
        first = next(batches, END)
        if first is END:
            raise no_batch(self.loader, "train_dataloader")
        return chain((first,), batches)

    def begin(self, loader: Any) -> Iterator[Any]:
        """A pass over one of the user's loaders begins: an epoch's, or another one of a loader that is shorter than
        those beside it. That may draw the order of its samples: from a random state that is noted, so that a
        resumed run can draw the same."""
        generators = generators_of(loader)
        if self.replay:
            set_random_state(self.replay.pop(0), generators)
        self.starts.append(random_state(generators))
        return iter(loader)


def as_one(loaders: Any, mode: str, begin: Callable[[Any], Iterator[Any]] = iter) -> Any:
    """One loader: the only one, or those in a list, tuple or dict combined."""
    return CombinedLoader(loaders, mode, begin) if isinstance(loaders, (list, tuple, Mapping)) else loaders


class EvalLoaders:
    """The loaders of a validation, test or prediction, each with its limit."""

    def __init__(self, loaders: Any, limit: int | float, stage: str, epoch: int = 0) -> None:
        self.name = name = f"{stage}_dataloader"
        self.epoch = epoch  # in which they were asked for
        if loaders is None or (isinstance(loaders, (list, tuple)) and not loaders):
            warn(f"{name} is {loaders!r}: no loader to iterate over")
            loaders = []
        self.several = isinstance(loaders, (list, tuple)) and len(loaders) > 1
        self.loaders: Sequence[Any] = loaders if isinstance(loaders, (list, tuple)) else [loaders]
        for index, loader in enumerate(self.loaders):
            one = f"{name}[{index}]" if self.several else name
            if isinstance(loader, (list, tuple, Mapping)):
                raise DataError(f"{one} is a {type(loader).__name__}; a loader, or a flat list of loaders, is accepted")
            check(loader, one)
        self.num_batches = [limited(length(ld), limit, f"limit_{stage}_batches") for ld in self.loaders]
        self.asked_with = [_states(loader) for loader in self.loaders]  # of their generators

    def batches(self, at_most: int | None = None) -> Iterator[tuple[int, Iterator[Any]]]:
        """For each loader its index and its batches, `at_most` so many of each."""
        limits = [
            min((count for count in (limit, at_most) if count is not None), default=None) for limit in self.num_batches
        ]
        for index, (loader, limit) in enumerate(zip(self.loaders, limits)):
            batches: Iterator[Any] = islice(iter(loader), limit)
            if length(loader) is None and limit != 0:
                batches = self._some(batches, loader)
            yield index, batches

    def _some(self, batches: Iterator[Any], loader: Any) -> Iterator[Any]:
        """The batches of a loader of unknown length; that there are none is known only here."""
        first = next(batches, END)
        if first is END:
            raise no_batch(loader, self.name)
        return chain((first,), batches)


class Data:
    """The loaders of a run, by stage: "train", "val", "test", "predict". Asked for when a loop first needs them, and
    kept until they are due again.

    `given` are those that the call was given, which take the place of the hooks'; `share` returns this process's share
    of what some give.
    """

    def __init__(
        self, function: str, given: Mapping[str, Any], hooks: Hooks, options: Options, progress: Progress,
        share: Callable[[Any, str], Any]
    ) -> None:  # fmt: skip
        self.given, self.hooks, self.options, self.progress, self.share = given, hooks, options, progress, share
        # Is this a fit that validates: with a validation_step, a loader, and a limit that leaves batches?
        self.validates = (
            function == "fit" and bool(hooks.validation_step) and self.has("val") and options.limit_val_batches != 0
        )
        self.train: TrainLoader | None = None
        self.evaluated: dict[str, EvalLoaders] = {}
        self._wrap: Callable[[Any], Any] | None = None
        self._asked: dict[str, int] = {}  # the epochs in which a stage's loaders were, by the run before
        self._generators: list[list[torch.Tensor]] = []  # the states of those in its validation loaders
        self._resumed: Mapping[str, Any] | None = None
        self.rejoins = False  # do the batches that have begun go on in the epoch in which a checkpoint was saved?

    def has(self, stage: str) -> bool:
        """Whether somebody provides batches for the stage."""
        given = self.given.get(stage)
        if given is None:
            return getattr(self.hooks, f"{stage}_dataloader") is not None
        return not (isinstance(given, (list, tuple)) and not given)

    # ---- training ------------------------------------------------------------------------------------------

    def train_loader(self) -> TrainLoader:
        """The training loader, asked for if it has to be."""
        if self.train is None or self._is_due("train", self.train.epoch):
            loaders, epoch, _ = self._provided("train")
            self.train = TrainLoader(loaders, self.options, epoch, self.validates)
        return self.train

    def train_batches(self) -> Iterator[tuple[Any, Any]]:
        """One epoch's batches, the last one with `END`; in the epoch in which a checkpoint was saved, from
        the first that was not done on."""
        loader = self.train_loader()
        for each in loader.each:
            set_epoch(each, self.progress.current_epoch)
        state, self._resumed = self._resumed, None
        self.rejoins = state is not None and state["in_epoch"]
        if state is None:
            return loader.batches()
        loader.replay = list(state["loader_starts"])
        batches = loader.batches()
        if self.rejoins:
            for _ in islice(batches, self.progress.batches_done):
                pass
            set_random_state(state["random_state"])
        return batches

    def end_epoch(self) -> None:
        """A training epoch is over."""
        if self.train:
            self.train.starts.clear()

    # ---- evaluation ----------------------------------------------------------------------------------------

    def eval_loaders(self, stage: str) -> EvalLoaders:
        """The stage's loaders, asked for if they have to be; with `overfit_batches`, a fit validates on the training
        batches."""
        loaders = self.evaluated.get(stage)
        if self.options.overfit_batches and self.progress.state.fn == "fit":
            train = self.train_loader()
            one = as_one(train.loaders, train.mode)
            loaders = EvalLoaders([one], self.options.limit_train_batches, stage)
        elif loaders is None or self._is_due(stage, loaders.epoch):
            provided, epoch, goes_on = self._provided(stage)
            loaders = EvalLoaders(provided, getattr(self.options, f"limit_{stage}_batches"), stage, epoch)
            for loader, states in zip(loaders.loaders, self._generators if goes_on else ()):
                set_random_state({"generators": states}, generators_of(loader))
            if self._wrap:
                loaders.loaders = list(map(self._wrap, loaders.loaders))
        self.evaluated[stage] = loaders
        return loaders

    @contextmanager
    def looking(self) -> Iterator[None]:
        """What a validation draws within, it draws beside the sequence, from its loaders' own generators, too: it only
        looks."""
        with kept_random_state():
            yield
        loaders = self.evaluated["val"]
        for loader, states in zip(loaders.loaders, loaders.asked_with):
            set_random_state({"generators": states}, generators_of(loader))

    def wrap(self, wrap: Callable[[Any], Any]) -> None:
        """Evaluate `wrap(loader)` in the place of each loader of this run."""
        self._wrap = wrap

    # ---- who provides them ---------------------------------------------------------------------------------

    def _provided(self, stage: str) -> tuple[Any, int, bool]:
        """The stage's loaders; the epoch in which they were asked for: in a resumed run, that in which the run before
        asked for them; and whether they are those that it had.

        What the first asking draws, it draws beside the sequence of random numbers: whether the sanity check or the
        training comes first changes nothing. So does asking for what the run before had.
        """
        before = self._asked.pop(stage, None)
        goes_on = before is not None and not self._is_due(stage, before)
        given = self.given.get(stage)
        beside = goes_on or (self.train is None if stage == "train" else stage not in self.evaluated)
        with kept_random_state() if beside else nullcontext():
            loaders = getattr(self.hooks, f"{stage}_dataloader")() if given is None else given
        epoch = before if goes_on and before is not None else self.progress.current_epoch
        return self.share(loaders, stage), epoch, goes_on

    def _is_due(self, stage: str, epoch: int) -> bool:
        """Whether loaders that were asked for in that epoch are asked for again; those given to the call are not."""
        every = self.options.reload_dataloaders_every_n_epochs
        return every > 0 and self.given.get(stage) is None and self.progress.current_epoch - epoch >= every

    # ---- checkpoints ---------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """Where the loaders are, and every source of random numbers."""
        starts = self.train.starts if self.train else []
        validation = self.evaluated["val"].loaders if "val" in self.evaluated else []
        waiting = [{"generators": _states(one)} for one in self.train.each] if self.train else []
        asked: dict[str, Any] = {**self.evaluated, **({"train": self.train} if self.train else {})}
        return {
            "in_epoch": bool(starts),
            "asked": {stage: loaders.epoch for stage, loaders in asked.items()},  # in which epoch
            "val_generators": [_states(one) for one in validation],
            "loader_starts": starts or waiting,
            "random_state": random_state(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from there: with the random numbers when the first epoch begins, and again in its midst."""
        self._resumed, self._asked, self._generators = state, dict(state["asked"]), state["val_generators"]

    def restore_random_state(self) -> None:
        """The first epoch of a resumed run begins."""
        if self._resumed is not None:
            set_random_state(self._resumed["random_state"])


def _states(loader: Any) -> list[torch.Tensor]:
    return [generator.get_state() for generator in generators_of(loader)]
