"""ModelCheckpoint: saves a checkpoint every so often, and keeps the best ones."""

from __future__ import annotations

import itertools
import math
import os
import time
import uuid
from collections.abc import Callable, Mapping, Set
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..errors import CheckpointError, ConfigurationError, count, is_first_process, not_logged, warn
from ..saving.file import write
from ..saving.shape import COUNT, SCALAR, TEXT, check, maybe
from ..types import LightningModule, Trainer
from .checkpoint_files import fields, filled, mark, mark_in, named
from .monitor import MonitorCallback

__all__ = ["ModelCheckpoint", "chosen"]

_TEMPLATE = "{epoch}-{step}"
_STATE = {
    **dict.fromkeys(("best_model_path", "kth_best_model_path", "last_model_path", "_newest"), TEXT),
    **dict.fromkeys(("best_model_score", "current_score", "kth_value"), maybe(SCALAR)),
    "best_k_models": {TEXT: SCALAR}, "dirpath": maybe(TEXT), "_outdated": [TEXT], "_runs": [TEXT], "_count": COUNT,
}  # fmt: skip


class ModelCheckpoint(MonitorCallback):
    """Saves the run as it goes, and keeps the best `save_top_k` by a logged value. ("configure_callbacks")

    When: every `every_n_train_steps` steps, every `train_time_interval`, or every `every_n_epochs` epochs, which is
    the default, with 1; of an epoch at its end, or with `save_on_train_epoch_end=False` at that of its
    validations; by default at the latter if there is not just one, at the epoch's end. The file is written as soon
    as the batch or the epoch is over, so that a run which is resumed from it does what this one does. [R44]

    Args:
        dirpath: the folder; by default `checkpoints` in the logger's folder of this version.
        filename: without the extension, with `{epoch}`, `{step}` and names of logged values to fill in, such as
            "{epoch}-{val_loss:.2f}", which makes "epoch=0-val_loss=0.32.ckpt". A file that is there already is
            not written over: "-v1" is added.
        monitor: the name of a logged value, "epoch" or "step"; None keeps the newest.
        verbose: print what is saved.
        save_last: save `last.ckpt`, too, each time.
        save_top_k: how many to keep; -1 for all, 0 for none.
        save_weights_only: the module only; a fit cannot go on from it.
        mode: "min" if the value should fall, "max" if it should rise.
        auto_insert_metric_name: write "epoch=0" for "{epoch}", and not just "0".

    `best_model_path`, `best_model_score` and `last_model_path` tell of its files, `best_k_models` of all that it keeps.
    A fit that goes on in the same folder ends with the files of one that never stopped: those that the run had saved
    later, before it was killed, are written over, or removed once the fit has come as far. [R81]

    Raises ConfigurationError for arguments that make no sense, and, when training is over, for a monitor that was
    never logged.
    """

    _saves = True
    CHECKPOINT_NAME_LAST, FILE_EXTENSION = "last", ".ckpt"
    _when = "save_on_train_epoch_end"

    def __init__(
        self, dirpath: str | os.PathLike[str] | None = None, filename: str | None = None, monitor: str | None = None,
        verbose: bool = False, save_last: bool | None = None, save_top_k: int = 1, save_weights_only: bool = False,
        mode: str = "min", auto_insert_metric_name: bool = True, every_n_train_steps: int | None = None,
        train_time_interval: timedelta | None = None, every_n_epochs: int | None = None,
        save_on_train_epoch_end: bool | None = None, period: int | None = None, every_n_val_epochs: int | None = None
    ) -> None:  # fmt: skip
        for name, retired in (("period", period), ("every_n_val_epochs", every_n_val_epochs)):
            if retired is not None:
                warn(f"ModelCheckpoint({name}={retired!r}) is deprecated; use every_n_epochs", DeprecationWarning)
                every_n_epochs = retired
        super().__init__(mode)
        self.save_top_k = count("ModelCheckpoint: save_top_k", save_top_k, -1)
        if monitor is None and save_top_k > 1:
            raise ConfigurationError(f"ModelCheckpoint: save_top_k={save_top_k!r}, monitor=None; more than 1 is "
                                     "accepted with a monitor only, by which to tell the best")  # fmt: skip
        interval = train_time_interval
        if interval is not None and not (isinstance(interval, timedelta) and interval > timedelta(0)):
            raise ConfigurationError(f"ModelCheckpoint: train_time_interval={interval!r}; "
                                     "a positive datetime.timedelta is accepted")  # fmt: skip
        steps = count("ModelCheckpoint: every_n_train_steps", every_n_train_steps or 0)
        epochs = count("ModelCheckpoint: every_n_epochs", every_n_epochs or 0)
        whens = {"every_n_train_steps": steps, "train_time_interval": interval, "every_n_epochs": epochs}
        given = {name: value for name, value in whens.items() if value}
        if len(given) > 1:
            raise ConfigurationError(f"ModelCheckpoint: {given}; one of them is accepted")
        fields(filename or "")
        self._folder, self.filename, self.save_on_train_epoch_end = dirpath, filename, save_on_train_epoch_end
        self.dirpath = None if dirpath is None else os.path.abspath(dirpath)
        self.monitor, self.verbose, self.save_last = monitor, verbose, save_last
        self.save_weights_only, self.auto_insert_metric_name = save_weights_only, auto_insert_metric_name
        self.every_n_train_steps, self.train_time_interval = steps, interval
        self.every_n_epochs = epochs if given or every_n_epochs == 0 else 1
        self.best_model_path = self.kth_best_model_path = self.last_model_path = ""
        self.best_model_score: Tensor | None = None
        self.current_score: Tensor | None = None
        self.kth_value: Tensor | None = None
        self.best_k_models: dict[str, Tensor] = {}
        self._newest = ""  # without a monitor, the file to remove for the next
        self._outdated: list[str] = []  # what the last save has taken the place of
        self._runs: list[str] = []  # a name for each fit, by which to know its files
        self._count = 0  # saves that it has made
        self._later: dict[str, int] = {}  # files that the run made after the save it goes on from, and their steps
        self._missing: set[str] = set()  # those of the kept that it has removed or written over since
        # What waits for the batch or epoch to be over: the epoch of a look, or the values of a save; then the paths
        # that are yet to be written.
        self._due: int | dict[str, Any] | list[str] | None = None
        self._missed = False  # whether the monitored value was not there when it was looked for

    # ---- its own place in a checkpoint -------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """What it keeps, and where."""
        return {name: getattr(self, name) for name in _STATE}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from there; in another folder, that one's files are left alone, and only the best is known. Raises
        CheckpointError for what `state_dict` does not return."""
        check(state, _STATE)
        same = state["dirpath"] == self.dirpath
        vars(self).update({name: state[name] for name in (_STATE if same else ("best_model_path", "best_model_score"))})
        if same and is_first_process():
            self._take_stock()

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> Any:
        """What is yet to be saved of this moment: in its own file the paths, in that of another one the values."""
        return self._values(trainer, self._due) if isinstance(self._due, int) else self._due

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, callback_state: Any) -> None:
        """Save it now: the checkpoint that the fit goes on from is of that moment."""
        checkpoint: dict[str, Any] = trainer.run.checkpoint
        [own] = [kept for kept in checkpoint["callbacks"].values() if kept["on_save_checkpoint"] is callback_state]

        def collect() -> dict[str, Any]:
            own.update(state_dict=self.state_dict(), on_save_checkpoint=self._due)
            return checkpoint

        if isinstance(callback_state, dict):
            self._save(trainer, callback_state, collect)
        else:
            paths = [path for path in callback_state if path in self._kept and path not in self._later]
            self._write(trainer, paths, checkpoint["global_step"], collect)

    # ---- when --------------------------------------------------------------------------------------

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Decide on the folder. Warns if this fit comes to no moment to save at."""
        if self.every_n_epochs and self.save_on_train_epoch_end is False and not trainer.enable_validation:
            warn("ModelCheckpoint(save_on_train_epoch_end=False) saves after validations, and this fit has none: "
                 "nothing will be saved")  # fmt: skip
        folder = os.path.join(trainer.log_dir, "checkpoints") if self._folder is None else self._folder
        self.dirpath = os.path.abspath(folder)
        self._runs, self._saved_at = [*self._runs, uuid.uuid4().hex], time.monotonic()
        self._due, self._later, self._missing, self._missed = None, {}, set(), False

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any,
                           batch_idx: int, dataloader_idx: int) -> None:  # fmt: skip
        """Save, if it is time, after a step."""
        if not trainer.run.progress.uncounted:
            return
        interval, passed = self.train_time_interval, time.monotonic() - self._saved_at
        time_is_up = interval is not None and trainer.run.devices.of_zero(passed) >= interval.total_seconds()
        if time_is_up or (self.every_n_train_steps and (trainer.global_step + 1) % self.every_n_train_steps == 0):
            self._saved_at = time.monotonic()
            self._due = values = None if trainer.fast_dev_run else self._values(trainer, trainer.current_epoch)
            if values:
                collect = partial(trainer.run.collected, self.save_weights_only)
                trainer.run.progress.do_soon(partial(self._save, trainer, values, collect))

    def _look_soon(self, trainer: Trainer) -> None:
        epoch = trainer.current_epoch
        if self.every_n_epochs and (epoch + 1) % self.every_n_epochs == 0 and not trainer.fast_dev_run:
            self._due = epoch
            super()._look_soon(trainer)

    def _look(self, trainer: Trainer, epoch: int) -> None:
        self._due = None
        if values := self._values(trainer, epoch):
            self._save(trainer, values, partial(trainer.run.collected, self.save_weights_only))

    def _values(self, trainer: Trainer, epoch: int) -> dict[str, Any] | None:
        """What is known now, if the monitored value is."""
        known = trainer.run.known()
        values = {**known, "epoch": epoch, "step": trainer.global_step + trainer.run.progress.uncounted}
        if self.monitor is None or self.monitor in values:
            return values
        if not self._missed:
            warn(f"{not_logged('ModelCheckpoint', self.monitor, known)}; until it is, nothing is saved")
        self._missed = True
        return None

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """The last moment for the monitored value to be there."""
        self._overtake(trainer.global_step)
        if self._missed and self.monitor not in (known := trainer.run.known()):
            raise ConfigurationError(not_logged("ModelCheckpoint", self.monitor, known))

    # ---- what --------------------------------------------------------------------------------------

    def _save(self, trainer: Trainer, values: Mapping[str, Any], collect: Callable[[], dict[str, Any]]) -> None:
        """Write the file, if it is among the best, and `last`; then remove those that are no longer. Of several
        processes the first decides, writes and removes."""
        self._due = None
        before = {**vars(self), "best_k_models": dict(self.best_k_models)}
        try:
            paths = self._take_in(values, trainer.checkpoint_callbacks) if is_first_process() else []
            self._count += bool(paths)
            decided = {name: getattr(self, name) for name in (*_STATE, "_later", "_missing")}
            paths, decided = trainer.run.devices.of_zero((paths, decided))
            vars(self).update(decided)
            if paths:
                self._write(trainer, paths, values["step"], collect)
        except BaseException:
            vars(self).update(before)  # nothing was removed yet
            raise
        for path in {*self._outdated} - self._missing:
            _remove(path)
        if self.verbose and paths:
            shown = "" if self.monitor is None else f" ({self.monitor} = {float(values[self.monitor]):.6g})"
            trainer.print(f"saved {' and '.join(paths)}{shown}")
        self._overtake(values["step"])

    def _take_in(self, values: Mapping[str, Any], savers: list[ModelCheckpoint]) -> list[str]:
        """Count what is to be saved now among the kept; returns the paths, one, two, or none."""
        paths, self._outdated = [], []
        if self._is_among_the_best(values):
            paths.append(self._path(values, savers, self.filename or _TEMPLATE))
            if self.monitor is None:
                self._outdated += [self._newest] if self._newest and self.save_top_k == 1 else []
                self._newest = self.best_model_path = paths[0]
            elif self.current_score is not None:  # it was looked at
                self.best_k_models[paths[0]] = self.current_score
                self._settle()
        if self.save_last:
            last = self._path(values, savers, self.CHECKPOINT_NAME_LAST, ours=self.last_model_path)
            self._outdated += [self.last_model_path] if self.last_model_path not in ("", last) else []
            self.last_model_path = last
            paths.append(last)
        return paths

    def _write(self, trainer: Trainer, paths: list[str], step: int, collect: Callable[[], dict[str, Any]]) -> None:
        self._due = rest = list(paths)  # the checkpoint holds this very list
        checkpoint = collect()
        for path in paths:
            del rest[0]
            if is_first_process():
                said = mark(self._runs[-1], self._count, step, path, str(self.dirpath))
                write({**checkpoint, "saved_by": said}, path)
            for saver in trainer.checkpoint_callbacks:
                saver._later.pop(path, None)
                saver._missing.discard(path)
        trainer.run.devices.wait()

    def _is_among_the_best(self, values: Mapping[str, Any]) -> bool:
        if self.monitor is None or self.save_top_k == 0:
            return self.save_top_k != 0
        score = torch.as_tensor(values[self.monitor]).detach().cpu()
        worst = math.inf if self.mode == "min" else -math.inf
        self.current_score = torch.full_like(score, worst) if score.isnan() else score
        if self.save_top_k == -1 or len(self.best_k_models) < self.save_top_k:
            return True
        return self._rank(self.current_score) < self._rank(self.kth_value)

    def _settle(self) -> None:
        """Which of the files are kept, and which is the best of them, and the worst."""
        by_rank = sorted(self.best_k_models, key=lambda path: self._rank(self.best_k_models[path]))
        while 0 < self.save_top_k < len(by_rank):
            self._outdated.append(by_rank.pop())
            del self.best_k_models[self._outdated[-1]]
        path, self.kth_best_model_path = (by_rank[0], by_rank[-1]) if by_rank else ("", "")
        best, self.kth_value = self.best_k_models.get(path), self.best_k_models.get(self.kth_best_model_path)
        if best is not None and (self.best_model_score is None or self._rank(best) < self._rank(self.best_model_score)):
            self.best_model_path, self.best_model_score = path, best  # else it may be in another folder

    # ---- what a killed run has left. [R81] -----------------------------------------------------------

    def _take_stock(self) -> None:
        """Find the files that this run saved after the checkpoint that it goes on from, or had yet to remove then; and
        those that it kept then and are no more, also where there is another file now, which may be somebody else's."""
        folder = str(self.dirpath)
        self.forget({path for path in self._kept if not Path(os.path.abspath(path)).is_relative_to(folder)})
        found = named(folder, self.filename or _TEMPLATE) | named(folder, self.CHECKPOINT_NAME_LAST)
        marks = {path: mark_in(path, self._runs, folder) for path in found | self._kept}
        self._missing = {path for path in self._kept if not (said := marks[path]) or said[0] > self._count}
        if os.path.exists(self.last_model_path) and marks[self.last_model_path] is None:
            self.last_model_path = ""  # which would be written over
        for path, said in marks.items():
            if said and said[0] > self._count:
                self._later[path] = said[1]
            elif said and path in self._outdated:
                os.unlink(path)
        self._overtake(-1)

    def forget(self, paths: Set[str] | None = None) -> None:
        """These files count no more, and stay; by default all, which are of another module then."""
        paths = {*self._kept, self.best_model_path} if paths is None else paths
        self.best_k_models = {path: score for path, score in self.best_k_models.items() if path not in paths}
        for name in ("_newest", "last_model_path"):
            setattr(self, name, "" if getattr(self, name) in paths else getattr(self, name))
        if self.best_model_path in paths:
            self.best_model_path, self.best_model_score = "", None
        self._settle()

    def _overtake(self, step: int) -> None:
        """The run has come to `step`: later files up to there are removed, now that it has saved its own. If it has
        come as far as it was killed, what had been removed then is given up, too, instead of counting as the best."""
        lost = self._missing & self.best_k_models.keys()
        if lost and all(at <= step for at in self._later.values()):
            self.forget(lost)
        for path in [path for path, at in self._later.items() if at <= step and path not in self._kept]:
            del self._later[path]
            _remove(path)

    # ---- names -------------------------------------------------------------------------------------

    @property
    def _kept(self) -> set[str]:
        return {*self.best_k_models, self._newest, self.last_model_path} - {""}

    def _path(self, values: Mapping[str, Any], savers: list[ModelCheckpoint], template: str, ours: str = "") -> str:
        """The file of that name which is `ours`, or new. What the run saved later, before it was killed, is not there;
        what it kept at that time, and has removed since, is."""
        kept = {path for saver in savers for path in saver._kept}
        later = {path for saver in savers for path in saver._later}
        name = self.format_checkpoint_name(values, template)
        versions = itertools.chain([""], (f"-v{version}" for version in itertools.count(1)))
        paths = (os.path.abspath(f"{self.dirpath}/{name}{version}{self.FILE_EXTENSION}") for version in versions)
        return next(p for p in paths if p == ours or (p not in kept and (p in later or not os.path.exists(p))))

    def format_checkpoint_name(self, metrics: Mapping[str, Any], filename: str | None = None) -> str:
        """`filename`, by default that of this callback, with the values filled in, without folder and extension; 0,
        with a warning, for a name that is none of `metrics`.

        Raises ConfigurationError for a format that does not fit its value.
        """
        return filled(filename or self.filename or _TEMPLATE, metrics, self.auto_insert_metric_name)


def _remove(path: str) -> None:
    if is_first_process():
        Path(path).unlink(missing_ok=True)


def chosen(trainer: Trainer, function: str, model: LightningModule | None, ckpt_path: Any) -> Any:
    """The file that `ckpt_path` means in a run of `function` on `model`; None for the weights as they are.

    "auto" is the best one, if this trainer has just fitted the module; where a model is given, only `test` looks for
    it. Raises CheckpointError where there is none, or it has gone missing. ("Test loop")
    """
    saver = trainer.checkpoint_callback
    if ckpt_path == "auto" and function != "fit":
        just_fitted = trainer.fitted is not None and (model is None or (model is trainer.fitted and function == "test"))
        if just_fitted and model is None and trainer.fast_dev_run:
            raise CheckpointError(f"{function} without a model takes the best checkpoint, and fast_dev_run saves none; "
                                  "pass the model, or ckpt_path=None for the current weights")  # fmt: skip
        ckpt_path = "best" if just_fitted and saver and saver.best_model_path else None
    if ckpt_path not in ("best", "last"):
        return ckpt_path
    path = saver and (saver.best_model_path if ckpt_path == "best" else saver.last_model_path)
    if path and os.path.exists(path):
        return path
    problem = f"the file {path} has gone missing" if path else "this trainer has saved none"
    raise CheckpointError(f"{function}: ckpt_path={ckpt_path!r}, and {problem}; pass a path, or ckpt_path=None for "
                          "the current weights")  # fmt: skip
