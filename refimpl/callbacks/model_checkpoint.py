"""ModelCheckpoint: saves a checkpoint every so often, and keeps the best ones."""

from __future__ import annotations

import math
import os
import time
import warnings
from collections.abc import Iterable, Mapping
from datetime import timedelta
from functools import partial
from itertools import chain, count
from pathlib import Path
from string import Formatter
from typing import Any

import torch
from torch import Tensor

from ..callback import Callback
from ..errors import CheckpointError, ConfigurationError
from ..saving.checkpoint import collected, write
from ..saving.shape import SCALAR, TEXT, check, maybe
from ..types import LightningModule, Trainer

__all__ = ["ModelCheckpoint", "checkpoints_last", "chosen"]

_STATE = {
    **dict.fromkeys(("best_model_path", "kth_best_model_path", "last_model_path", "_newest"), TEXT),
    **dict.fromkeys(("best_model_score", "current_score", "kth_value"), maybe(SCALAR)),
    "best_k_models": {TEXT: SCALAR}, "dirpath": maybe(TEXT),
}  # fmt: skip


class ModelCheckpoint(Callback):
    """Saves the run as it goes, and keeps the best `save_top_k` by a logged value. ("configure_callbacks")

    When: every `every_n_train_steps` steps, every `train_time_interval`, or every `every_n_epochs` epochs, which is
    the default, with 1; of an epoch at its end, or with `save_on_train_epoch_end=False` at that of its
    validations; by default at the latter if there is not just one, at the epoch's end. The file is written as soon
    as the batch or the epoch is over, so that a run which is resumed from it does what this one does.

    Args:
        dirpath: the folder; by default `checkpoints` in the logger's folder of this version.
        filename: without the extension, with `{epoch}`, `{step}` and names of logged values to fill in, such as
            "{epoch}-{val_loss:.2f}", which makes "epoch=0-val_loss=0.32.ckpt". A file that is there already is
            not written over: "-v1" is added.
        monitor: the name of a logged value; None keeps the newest.
        verbose: print what is saved.
        save_last: save `last.ckpt`, too, each time.
        save_top_k: how many to keep; -1 for all, 0 for none.
        save_weights_only: the module only; a fit cannot go on from it.
        mode: "min" if the value should fall, "max" if it should rise.
        auto_insert_metric_name: write "epoch=0" for "{epoch}", and not just "0".

    `best_model_path`, `best_model_score` and `last_model_path` tell of its files, `best_k_models` of all that it keeps.

    Raises ConfigurationError for arguments that make no sense, and at the first save for a name that was not logged.
    """

    CHECKPOINT_NAME_LAST = "last"
    FILE_EXTENSION = ".ckpt"

    def __init__(
        self,
        dirpath: str | os.PathLike[str] | None = None,
        filename: str | None = None,
        monitor: str | None = None,
        verbose: bool = False,
        save_last: bool | None = None,
        save_top_k: int = 1,
        save_weights_only: bool = False,
        mode: str = "min",
        auto_insert_metric_name: bool = True,
        every_n_train_steps: int | None = None,
        train_time_interval: timedelta | None = None,
        every_n_epochs: int | None = None,
        save_on_train_epoch_end: bool | None = None,
        period: int | None = None,
        every_n_val_epochs: int | None = None,
    ) -> None:
        for name, retired in (("period", period), ("every_n_val_epochs", every_n_val_epochs)):
            if retired is not None:
                warnings.warn(f"ModelCheckpoint({name}={retired!r}) is deprecated; use every_n_epochs",
                              DeprecationWarning, stacklevel=2)  # fmt: skip
                every_n_epochs = retired
        if type(save_top_k) is not int or save_top_k < -1 or (monitor is None and save_top_k > 1):
            raise ConfigurationError(
                f"ModelCheckpoint: save_top_k={save_top_k!r}, monitor={monitor!r}; an int from -1 is accepted, and "
                "more than 1 with a monitor only, by which to tell the best"
            )
        if mode not in ("min", "max"):
            raise ConfigurationError(f"ModelCheckpoint: mode={mode!r}; 'min' or 'max' is accepted")
        whens = {"every_n_train_steps": every_n_train_steps, "every_n_epochs": every_n_epochs}
        for name, number in whens.items():
            if number is not None and (type(number) is not int or number < 0):
                raise ConfigurationError(f"ModelCheckpoint: {name}={number!r}; an int from 0 is accepted")
        interval = train_time_interval
        if interval is not None and not (isinstance(interval, timedelta) and interval > timedelta(0)):
            raise ConfigurationError(f"ModelCheckpoint: train_time_interval={interval!r}; "
                                     "a positive datetime.timedelta is accepted")  # fmt: skip
        _check_template(filename)
        whens["train_time_interval"] = train_time_interval  # type: ignore[assignment]
        given = {name: value for name, value in whens.items() if value}
        if len(given) > 1:
            raise ConfigurationError(f"ModelCheckpoint: {given}; one of them is accepted")
        self._folder, self.filename = dirpath, filename
        self.dirpath = None if dirpath is None else os.path.abspath(dirpath)
        self.monitor, self.mode, self.verbose, self.save_last = monitor, mode, verbose, save_last
        self.save_top_k, self.save_weights_only = save_top_k, save_weights_only
        self.auto_insert_metric_name, self.save_on_train_epoch_end = auto_insert_metric_name, save_on_train_epoch_end
        self.every_n_train_steps, self.train_time_interval = every_n_train_steps or 0, train_time_interval
        never = every_n_epochs == 0 or every_n_train_steps or train_time_interval
        self.every_n_epochs = 0 if never else every_n_epochs or 1
        self.best_model_path = self.kth_best_model_path = self.last_model_path = ""
        self.best_model_score: Tensor | None = None
        self.current_score: Tensor | None = None
        self.kth_value: Tensor | None = None
        self.best_k_models: dict[str, Tensor] = {}
        self._newest = ""  # without a monitor, the file to remove for the next

    # ---- its own place in a checkpoint -------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """What it keeps, and where."""
        return {name: getattr(self, name) for name in _STATE}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from there; in another folder, that one's files are left alone, and only the best is known. Raises
        CheckpointError for what `state_dict` does not return."""
        check(state, _STATE)
        same = state["dirpath"] == self.dirpath
        for name in _STATE if same else ("best_model_path", "best_model_score"):
            setattr(self, name, state[name])

    # ---- when --------------------------------------------------------------------------------------

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Decide on the folder. Warns if this fit comes to no moment to save at."""
        if self.every_n_epochs and self.save_on_train_epoch_end is False and not trainer.checks_val:
            warnings.warn(
                "ModelCheckpoint(save_on_train_epoch_end=False) saves after validations, and this fit has none: "
                "nothing will be saved",
                stacklevel=2,
            )
        folder = os.path.join(trainer.log_dir, "checkpoints") if self._folder is None else self._folder
        self.dirpath = os.path.abspath(folder)
        self._saved_at = time.monotonic()

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int,
    ) -> None:
        """Save, if it is time, after a step."""
        if not trainer.uncounted:
            return
        interval = self.train_time_interval
        time_is_up = interval is not None and time.monotonic() - self._saved_at >= interval.total_seconds()
        if time_is_up or (self.every_n_train_steps and (trainer.global_step + 1) % self.every_n_train_steps == 0):
            self._saved_at = time.monotonic()
            self._save_soon(trainer)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save, if this is when."""
        if self._at_train_epoch_end(trainer):
            self._save_of_epoch(trainer)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save, if this is when; not after the sanity check, and not in `validate`."""
        if trainer.state.fn == "fit" and not trainer.sanity_checking and not self._at_train_epoch_end(trainer):
            self._save_of_epoch(trainer)

    def _at_train_epoch_end(self, trainer: Trainer) -> bool:
        if self.save_on_train_epoch_end is not None:
            return self.save_on_train_epoch_end
        once = type(trainer.val_check_interval) is float and trainer.val_check_interval == 1.0  # 1 counts batches
        return not trainer.checks_val or (once and trainer.check_val_every_n_epoch == 1)

    def _save_of_epoch(self, trainer: Trainer) -> None:
        if self.every_n_epochs and (trainer.current_epoch + 1) % self.every_n_epochs == 0:
            self._save_soon(trainer)

    def _save_soon(self, trainer: Trainer) -> None:
        """What was logged is looked at now; the file is written when the batch or the epoch is over."""
        if trainer.fast_dev_run:
            return
        known = trainer.callback_metrics
        if self.monitor is not None and self.monitor not in known:
            raise ConfigurationError(
                f"ModelCheckpoint monitors {self.monitor!r}, which was not logged; logged were {sorted(known)}"
            )
        values = {**known, "epoch": trainer.current_epoch, "step": trainer.global_step + trainer.uncounted}
        trainer.saves_due.append(partial(self._save, trainer, values))

    # ---- what --------------------------------------------------------------------------------------

    def _save(self, trainer: Trainer, values: Mapping[str, Any]) -> None:
        """Write the file, if it is among the best, and `last`; then remove those that are no longer."""
        paths, outdated, before = [], [], {**vars(self), "best_k_models": dict(self.best_k_models)}
        if self._is_among_the_best(values):
            paths.append(self._path(values, self.filename or "{epoch}-{step}"))
            outdated += self._take_in(paths[0], values)
        if self.save_last:
            last = self._path(values, self.CHECKPOINT_NAME_LAST, ours=self.last_model_path)
            outdated += [self.last_model_path] if self.last_model_path not in ("", last) else []
            self.last_model_path = last
            paths.append(last)
        if not paths:
            return
        try:
            checkpoint = collected(trainer, self.save_weights_only)
            for path in paths:
                if trainer.global_rank == 0:
                    write(checkpoint, path)
        except BaseException:
            vars(self).update(before)  # nothing was removed yet
            raise
        for path in outdated:
            Path(path).unlink(missing_ok=True)
        if self.verbose:
            shown = "" if self.monitor is None else f" ({self.monitor} = {float(values[self.monitor]):.6g})"
            trainer.print(f"saved {' and '.join(paths)}{shown}")

    def _is_among_the_best(self, values: Mapping[str, Any]) -> bool:
        if self.save_top_k == 0:
            return False
        if self.monitor is None:
            return True
        self.current_score = torch.as_tensor(values[self.monitor]).detach().cpu()
        if self.save_top_k == -1 or len(self.best_k_models) < self.save_top_k:
            return True
        return self._rank(self.current_score) < self._rank(self.kth_value)

    def _take_in(self, path: str, values: Mapping[str, Any]) -> list[str]:
        """Count `path` among the kept; returns those that it takes the place of."""
        if self.monitor is None:
            outdated = [self._newest] if self._newest and self.save_top_k == 1 else []
            self._newest = self.best_model_path = path
            return outdated
        assert self.current_score is not None
        self.best_k_models[path] = self.current_score
        by_rank = sorted(self.best_k_models, key=lambda kept: self._rank(self.best_k_models[kept]))
        outdated = by_rank[self.save_top_k :] if self.save_top_k > 0 else []
        for worst in outdated:
            del self.best_k_models[worst]
        kept = by_rank[: len(self.best_k_models)]
        self.kth_best_model_path, self.kth_value = kept[-1], self.best_k_models[kept[-1]]
        best = self.best_k_models[kept[0]]
        if self.best_model_score is None or self._rank(best) < self._rank(self.best_model_score):
            self.best_model_path, self.best_model_score = kept[0], best  # else it may be in another folder
        return outdated

    def _rank(self, score: Tensor | None) -> float:
        """Smaller is better; NaN is the worst."""
        value = math.nan if score is None else float(score)
        return math.inf if math.isnan(value) else value if self.mode == "min" else -value

    def _path(self, values: Mapping[str, Any], template: str, ours: str = "") -> str:
        """The file of that name, which is new, or `ours`."""
        name = self.format_checkpoint_name(values, template)
        names = chain([name], (f"{name}-v{version}" for version in count(1)))
        paths = (os.path.join(str(self.dirpath), name + self.FILE_EXTENSION) for name in names)
        return next(path for path in paths if path == ours or not os.path.exists(path))

    def format_checkpoint_name(self, metrics: Mapping[str, Any], filename: str | None = None) -> str:
        """`filename`, by default that of this callback, with the values filled in, without folder and extension.

        Raises ConfigurationError for a name that is none of `metrics`, or a format that does not fit its value.
        """
        filled = ""
        for literal, name, spec, _ in Formatter().parse(filename or self.filename or "{epoch}-{step}"):
            filled += literal
            if name is None:
                continue
            if name not in metrics:
                raise ConfigurationError(
                    f"ModelCheckpoint: the filename has {name!r}, which was not logged; there are {sorted(metrics)}"
                )
            value = metrics[name]
            number = value.item() if isinstance(value, Tensor) else value
            try:
                shown = format(number, spec or "")
            except ValueError as error:
                raise ConfigurationError(f"ModelCheckpoint: filename: {{{name}:{spec}}}: {error}") from None
            filled += f"{name.replace('/', '_')}={shown}" if self.auto_insert_metric_name else shown
        return filled


def _check_template(filename: str | None) -> None:
    """Raises ConfigurationError if the braces of the file's name cannot be read."""
    try:
        list(Formatter().parse(filename or ""))
    except ValueError as error:
        raise ConfigurationError(f"ModelCheckpoint: filename={filename!r}: {error}") from None


def checkpoints_last(callbacks: Iterable[Callback]) -> list[Callback]:
    """The callbacks in their order, those that save checkpoints at the end: they save what the others have done."""
    return sorted(callbacks, key=lambda callback: isinstance(callback, ModelCheckpoint))


def chosen(trainer: Trainer, function: str, model: LightningModule | None, ckpt_path: Any) -> Any:
    """The file that `ckpt_path` means in a run of `function` on `model`; None for the weights as they are.

    "auto" is the best one, if this trainer has just fitted the module; where a model is given, only `test` looks for
    it. Raises CheckpointError where there is none, or it has gone missing. ("Test loop")
    """
    saver = trainer.checkpoint_callback
    if ckpt_path == "auto" and function != "fit":
        just_fitted = trainer.fitted is not None and (model is None or (model is trainer.fitted and function == "test"))
        ckpt_path = "best" if just_fitted and saver and saver.best_model_path else None
    if ckpt_path not in ("best", "last"):
        return ckpt_path
    path = saver and (saver.best_model_path if ckpt_path == "best" else saver.last_model_path)
    if path and os.path.exists(path):
        return path
    problem = f"the file {path} has gone missing" if path else "this trainer has saved none"
    raise CheckpointError(
        f"{function}: ckpt_path={ckpt_path!r}, and {problem}; pass a path, or ckpt_path=None for the current weights"
    )
