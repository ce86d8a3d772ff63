"""BasePredictionWriter: predictions that are written away as they come, with the samples that they belong to."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Iterable, Iterator, Sequence
from copy import copy
from typing import Any

from torch.utils.data import DataLoader, IterableDataset

from ..callback import Callback
from ..errors import ConfigurationError, one_of
from ..types import LightningModule, Trainer

__all__ = ["BasePredictionWriter", "NotedIndices", "noting"]


class BasePredictionWriter(Callback):
    """Override `write_on_batch_end`, `write_on_epoch_end` or both, to write predictions to a disk or a database; with
    `trainer.predict(..., return_predictions=False)` none is kept but those that `write_on_epoch_end` gets.
    ("predict_step")

    Args:
        write_interval: "batch", "epoch" or "batch_and_epoch": which of the two are called.

    Raises ConfigurationError for another interval, and for a method that the interval needs and nobody defined.
    """

    def __init__(self, write_interval: str = "batch") -> None:
        one_of("write_interval", write_interval, ("batch", "epoch", "batch_and_epoch"))
        for interval in write_interval.split("_and_"):
            method = f"write_on_{interval}_end"
            if getattr(type(self), method) is getattr(BasePredictionWriter, method):
                owner = type(self).__name__
                raise ConfigurationError(f"write_interval={write_interval!r} needs {owner}.{method}: define it")
        self.write_interval = write_interval
        self._on_batch, self._on_epoch = "batch" in write_interval, "epoch" in write_interval
        if not self._on_epoch:
            self.on_predict_epoch_end = None  # type: ignore[assignment]  # for which every prediction would be kept

    def write_on_batch_end(self, trainer: Trainer, pl_module: LightningModule, prediction: Any,
                           batch_indices: Sequence[Any] | None, batch: Any, batch_idx: int,
                           dataloader_idx: int) -> None:  # fmt: skip
        """Write what `predict_step` returned for a batch.

        `batch_indices` are the places of the batch's samples in the data set, as the `DataLoader`'s sampler said;
        None where no sampler says them: for a data set without indices, and for another kind of loader.
        """
        raise NotImplementedError

    def write_on_epoch_end(self, trainer: Trainer, pl_module: LightningModule, predictions: Sequence[Sequence[Any]],
                           batch_indices: Sequence[Sequence[Sequence[Any] | None]]) -> None:  # fmt: skip
        """Write all predictions: for each loader a list with that of each batch; and in `batch_indices` likewise the
        indices of each batch, or None."""
        raise NotImplementedError

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Nothing has been predicted."""
        trainer.run.data.wrap(noting)
        self._indices: defaultdict[int, list[Sequence[Any] | None]] = defaultdict(list)

    def on_predict_batch_end(self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any,
                             batch_idx: int, dataloader_idx: int) -> None:  # fmt: skip
        """Writes the batch's prediction, or remembers which samples it is of."""
        noted = getattr(trainer.predict_dataloaders[dataloader_idx], "batch_sampler", None)
        indices = noted.of(batch_idx) if isinstance(noted, NotedIndices) else None
        if self._on_epoch:
            self._indices[dataloader_idx].append(indices)
        if self._on_batch:
            self.write_on_batch_end(trainer, pl_module, outputs, indices, batch, batch_idx, dataloader_idx)

    def on_predict_epoch_end(self, trainer: Trainer, pl_module: LightningModule, results: list[Any]) -> None:
        """Writes all predictions."""
        self.write_on_epoch_end(trainer, pl_module, results, [self._indices[index] for index in range(len(results))])


class NotedIndices:
    """A batch sampler that remembers the indices it handed out until their batch has come: workers fetch ahead."""

    def __init__(self, batch_sampler: Iterable[Sequence[Any]]) -> None:
        self.batch_sampler = batch_sampler

    def __len__(self) -> int:
        return len(self.batch_sampler)  # type: ignore[arg-type]

    def __iter__(self) -> Iterator[Sequence[Any]]:
        self._waiting: deque[Sequence[Any]] = deque()
        self._first = 0  # the number of the batch that has waited longest
        for indices in self.batch_sampler:
            self._waiting.append(indices)
            yield indices

    def of(self, batch_idx: int) -> Sequence[Any]:
        """The indices of a batch, which is the last one asked for or a later one."""
        while self._first < batch_idx:
            self._waiting.popleft()
            self._first += 1
        return self._waiting[0]


def noting(loader: Any) -> Any:
    """A loader like this one whose batch sampler notes its indices; the loader itself where nobody knows them."""
    is_torchs = getattr(type(loader), "__iter__", None) is DataLoader.__iter__
    if not is_torchs or isinstance(loader.dataset, IterableDataset):
        return loader
    if loader.batch_sampler is None or not getattr(loader, "in_order", True):
        return loader
    alike = copy(loader)
    # A DataLoader refuses these as assignments. Workers that stayed from before would not ask the new sampler.
    vars(alike).update(batch_sampler=NotedIndices(loader.batch_sampler), persistent_workers=False)
    return alike
