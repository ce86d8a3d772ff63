"""LightningDataModule: the data hooks, apart from the model."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any, Self

from torch.utils.data import DataLoader, IterableDataset

from ..hooks import DataHooks
from ..saving.hparams import HyperparametersMixin
from ..types import Trainer

__all__ = ["LightningDataModule"]


class LightningDataModule(DataHooks, HyperparametersMixin):
    """Data hooks that can be shared by models: `trainer.fit(model, datamodule=data)`.

    Where it overrides a loader or transfer hook, that one is used and the module's is not;
    `prepare_data`, `setup` and `teardown` are called on both, the data module first.
    """

    trainer: Trainer | None = None
    _hparams_prefix = "datamodule_"

    @classmethod
    def from_datasets(
        cls, train_dataset: Any = None, val_dataset: Any = None, test_dataset: Any = None, batch_size: int = 1,
        num_workers: int = 0, predict_dataset: Any = None
    ) -> Self:  # fmt: skip
        """A data module with a DataLoader of these settings for each data set; only the training's shuffles.

        Each is a data set, or a list of them for several loaders, the training's also a dict, nested as one likes.
        Of the arguments that are None it has no loader.
        """
        made = cls()
        for stage, dataset in (
            ("train", train_dataset),
            ("val", val_dataset),
            ("test", test_dataset),
            ("predict", predict_dataset),
        ):
            if dataset is not None:
                settings = {"batch_size": batch_size, "num_workers": num_workers, "shuffle": stage == "train"}
                setattr(made, f"{stage}_dataloader", partial(_loaders, dataset, settings))
        return made

    def __getstate__(self) -> dict[str, Any]:
        """A copy or a pickle of the data module leaves the trainer behind."""
        return {name: value for name, value in self.__dict__.items() if name != "trainer"}


def _loaders(dataset: Any, settings: Mapping[str, Any]) -> Any:
    """The loader of a data set; of data sets in lists and dicts the loaders, in the same."""
    if isinstance(dataset, Mapping):
        return {key: _loaders(inner, settings) for key, inner in dataset.items()}
    if isinstance(dataset, (list, tuple)):
        return [_loaders(inner, settings) for inner in dataset]
    if isinstance(dataset, IterableDataset):  # in whose order the batches come
        settings = {**settings, "shuffle": False}
    return DataLoader(dataset, **settings)
