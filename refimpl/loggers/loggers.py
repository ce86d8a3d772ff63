"""Loggers: where logged values go. TensorBoard, CSV files, or a class of your own.

Nothing is written before there is something to write: a run that logs nothing leaves no folder behind.
"""

from __future__ import annotations

import csv
import importlib.util
import json
import os
from argparse import Namespace
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from ..errors import ConfigurationError

__all__ = ["CSVLogger", "Logger", "TensorBoardLogger", "loggers_of"]


class Logger:
    """Where logged values go. A logger of your own overrides `log_metrics`, and what else it can do."""

    name: str | None = None
    version: int | str | None = None
    #: Where it writes; None if not to a folder. `log_dir` is that of this version.
    save_dir: str | None = None
    log_dir: str | None = None

    @property
    def experiment(self) -> Any:
        """The object that does the work, with whatever it can do beyond this interface. ("logger")"""
        return self

    def log_metrics(self, metrics: Mapping[str, float], step: int) -> None:
        """Take in the values of a step, from 0; among them is "epoch"."""
        raise NotImplementedError

    def log_hyperparams(self, params: Any) -> None:
        """Take in the module's hyperparameters, a mapping or a Namespace, as a fit starts."""

    def save(self) -> None:
        """Write what has been taken in and is not on the disk yet; for who wants it now. A run calls `finalize`."""

    def finalize(self, status: str) -> None:
        """A run is over: "success", "interrupted" or "failed"."""


class _FolderLogger(Logger):
    """A logger that writes to `save_dir/name/version_N`; N is the first number above those that exist."""

    def __init__(
        self, save_dir: str | os.PathLike[str], name: str | None = "lightning_logs", version: int | str | None = None
    ) -> None:
        self.save_dir, self.name, self._version = os.fspath(save_dir), name or "", version

    @property
    def version(self) -> int | str:  # type: ignore[override]
        """The number of this experiment, decided when it is first asked for, or the version given."""
        if self._version is None:
            folders = Path(self.save_dir or "", self.name or "").glob("version_*")
            numbers = [folder.name.removeprefix("version_") for folder in folders if folder.is_dir()]
            self._version = max((int(number) for number in numbers if number.isdecimal()), default=-1) + 1
        return self._version

    @property
    def log_dir(self) -> str:  # type: ignore[override]
        """The folder of this version; it exists once something has been written."""
        version = f"version_{self.version}" if isinstance(self.version, int) else self.version
        return os.path.join(self.save_dir or "", self.name or "", version)

    def log_hyperparams(self, params: Any) -> None:
        """Write `hparams.yaml`: a line for each parameter, its value as JSON, which is YAML, too."""
        os.makedirs(self.log_dir, exist_ok=True)
        lines = [f"{json.dumps(str(key))}: {json.dumps(value, default=str)}\n" for key, value in _dict(params).items()]
        Path(self.log_dir, "hparams.yaml").write_text("".join(lines), encoding="utf-8")


class TensorBoardLogger(_FolderLogger):
    """Writes for TensorBoard; needs the extra "tensorboard". ("logger")

    Args:
        save_dir, name, version: it writes to `save_dir/name/version_N`.
        writer: keyword arguments of `torch.utils.tensorboard.SummaryWriter`, such as `flush_secs`.

    Raises ModuleNotFoundError, naming the extra, where tensorboard is not installed.
    """

    def __init__(
        self, save_dir: str | os.PathLike[str], name: str | None = "lightning_logs", version: int | str | None = None,
        **writer: Any
    ) -> None:  # fmt: skip
        super().__init__(save_dir, name, version)
        if not _has_tensorboard():
            raise ModuleNotFoundError(f"TensorBoardLogger needs tensorboard: {_INSTALL}")
        self._options, self._writer = writer, None  # type: dict[str, Any], Any

    @property
    def experiment(self) -> Any:
        """The `SummaryWriter`, made when it is first asked for: `add_image`, `add_histogram`, ..."""
        if self._writer is None:
            from torch.utils.tensorboard import SummaryWriter

            self._writer = SummaryWriter(self.log_dir, **self._options)
        return self._writer

    def log_metrics(self, metrics: Mapping[str, float], step: int) -> None:
        """A scalar each."""
        for name, value in metrics.items():
            self.experiment.add_scalar(name, value, step)

    def log_hyperparams(self, params: Any, metrics: Mapping[str, float] | None = None) -> None:
        """Shown in the tab "HPARAMS", beside `metrics`, if given; and written to `hparams.yaml`."""
        from torch.utils.tensorboard.summary import hparams

        super().log_hyperparams(params)
        for summary in hparams(_flat(_dict(params)), dict(metrics or {})):  # type: ignore[no-untyped-call]
            self.experiment.file_writer.add_summary(summary)
        self.log_metrics(metrics or {}, 0)

    def save(self) -> None:
        """Flush the writer."""
        if self._writer is not None:
            self._writer.flush()

    def finalize(self, status: str) -> None:
        """Close the file; the writer opens another if it is used again."""
        if self._writer is not None:
            self._writer.close()


class CSVLogger(_FolderLogger):
    """Writes `metrics.csv`: a row for each call, with the columns "step", "epoch" and those of the values.

    A row is on the disk as soon as it is logged. Given the version of a run before, it goes on with its file.
    """

    _columns: list[str] | None = None

    def __getattr__(self, name: str) -> Any:
        hint = f": that is TensorBoard's; {_INSTALL}" if name.startswith("add_") else ""
        raise AttributeError(f"{type(self).__name__} has no attribute {name!r}{hint}")

    @property
    def path(self) -> Path:
        """The file."""
        return Path(self.log_dir, "metrics.csv")

    def log_metrics(self, metrics: Mapping[str, float], step: int) -> None:
        """Add a row; a name that is new becomes a column."""
        row = {"step": step, **metrics}
        if self._columns is None:
            self._columns, _ = self._read()
        if new := [name for name in row if name not in self._columns]:
            self._widen(new)
        with self.path.open("a", newline="", encoding="utf-8") as file:
            csv.DictWriter(file, self._columns).writerow(row)

    def _read(self) -> tuple[list[str], list[dict[str, str]]]:
        """The columns and rows of the file; none if it does not exist."""
        if not self.path.exists():
            return [], []
        with self.path.open(newline="", encoding="utf-8") as file:
            reader = csv.DictReader(file)
            return list(reader.fieldnames or ()), list(reader)

    def _widen(self, new: list[str]) -> None:
        """The same rows with more columns, in a file that takes the old one's place when it is whole."""
        columns, rows = self._read()
        self.path.parent.mkdir(parents=True, exist_ok=True)
        wider = self.path.with_suffix(".part")
        with wider.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, [*columns, *new])
            writer.writeheader()
            writer.writerows(rows)
        os.replace(wider, self.path)
        self._columns = [*columns, *new]


class SilentLogger(Logger):
    """In place of the loggers in a fast_dev_run: takes everything, and writes nothing."""

    def log_metrics(self, metrics: Mapping[str, float], step: int) -> None:
        """Nothing."""

    @property
    def experiment(self) -> Any:
        """Whatever is called on it, does nothing."""
        return _Nothing()


class _Nothing:
    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self

    __getattr__ = __call__


_INSTALL = "pip install 'refimpl-conformance[tensorboard]'"


def _has_tensorboard() -> bool:
    return importlib.util.find_spec("tensorboard") is not None


def loggers_of(given: Any, folder: str, silent: bool) -> list[Logger]:
    """The loggers of `Trainer(logger=...)`: True for TensorBoard's where it is installed, or else CSV files, in
    `folder`; False or None; a Logger; or several.

    Raises ConfigurationError for anything else.
    """
    if given is True:
        given = SilentLogger() if silent else (TensorBoardLogger if _has_tensorboard() else CSVLogger)(folder)
    loggers = [] if given is None or given is False else list(given) if isinstance(given, Iterable) else [given]
    if not all(isinstance(logger, Logger) for logger in loggers):
        raise ConfigurationError(f"logger={given!r}; True, False, a Logger or a list of Loggers is accepted")
    return [SilentLogger() for _ in loggers] if silent else loggers


def _dict(params: Any) -> dict[str, Any]:
    return dict(vars(params) if isinstance(params, Namespace) else params)


def _flat(params: Mapping[Any, Any], prefix: str = "") -> dict[str, Any]:
    """Nested mappings as "outer/inner"; what TensorBoard does not know, as text."""
    flat: dict[str, Any] = {}
    for key, value in params.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{prefix}{key}/")
        else:
            value = value.item() if isinstance(value, Tensor) and value.numel() == 1 else value
            flat[f"{prefix}{key}"] = value if isinstance(value, (bool, int, float, str)) else str(value)
    return flat
