"""Trainer: options checked once, then fit, validate, test, predict."""

from __future__ import annotations

import builtins
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import timedelta
from typing import Any

import torch

from .. import loops
from ..callback import Callback
from ..callback_list import with_defaults
from ..datamodule import LightningDataModule
from ..dispatch import Hooks
from ..loggers.logbook import Logbook
from ..loggers.loggers import Logger, loggers_of
from ..loggers.tables import results_table
from ..module import LightningModule
from ..optimization import Turns
from ..period.arguments import TakesArguments
from ..period.retired import RETIRED_OPTIONS, retired_keywords, retired_options
from ..precision import LossScaler
from ..run import run
from ..saving.checkpoint import collected, write
from .options import device_of, resolved
from .states import RunningStage, TrainerState, TrainerStatus, TrainerView

__all__ = ["Trainer"]


class Trainer(TakesArguments, TrainerView):
    """Runs a `LightningModule` as the documentation's pseudocode says.

    Args:
        max_epochs: stop after so many epochs; -1 for no limit. Without any limit, 1000.
        min_epochs, min_steps: train at least so long, even when asked to stop.
        max_steps: stop after so many updates of the parameters, -1 for no limit.
        max_time: stop after "DD:HH:MM:SS", a `timedelta`, or a dict of `timedelta`'s keywords.
        limit_train_batches, limit_val_batches, limit_test_batches, limit_predict_batches: how many
            batches of a loader to use: an int counts, a float in [0, 1] is a fraction.
        overfit_batches: train on so many batches (int), or such a fraction of them (float), the same in every epoch,
            whatever limit_train_batches says, and let fit validate on them, too. 0 for a training as usual.
        fast_dev_run: try everything out on 1 (True) or so many batches: one epoch, no sanity check.
        val_check_interval: validate after so many training batches (int), or every such fraction of
            an epoch (float in (0, 1]).
        check_val_every_n_epoch: validate in every n-th epoch only.
        num_sanity_val_steps: validation batches to try before training; -1 for all, 0 for none.
        multiple_trainloader_mode: when an epoch over several training loaders ends: "max_size_cycle" with the longest,
            the shorter ones starting anew; "min_size" with the shortest.
        reload_dataloaders_every_n_epochs: ask for the training and validation loaders again when so many epochs have
            begun since they were asked for; 0 to keep them.
        callbacks: a callback or a list of them.
        logger: where logged values go: a `Logger` or a list of them, False for none, True for TensorBoard's
            where that is installed and else for CSV files.
        log_every_n_steps: how often loggers are given the values of a training step.
        default_root_dir: the folder for what is written and has no place of its own; by default the current one.
        enable_progress_bar, enable_model_summary: what is printed.
        enable_checkpointing: save checkpoints as the `ModelCheckpoint` among the callbacks says, or else the newest, at
            the end of each epoch.
        accumulate_grad_batches: add up the gradients of so many batches (a window) for one update; or a
            dict of epochs and numbers: {0: 1, 4: 2} adds up two from epoch 4 on.
        gradient_clip_val, gradient_clip_algorithm: before an update, clip the gradients of the optimizer's
            parameters: their common "norm", or each "value". None or 0 for no clipping.
        track_grad_norm: log the gradients' norms of this order (2, "inf", ...) before an update; -1 for none.
        detect_anomaly: torch's anomaly detection while training, which names the operation that made a NaN.
        terminate_on_nan: raise ValueError as soon as the loss or a parameter is NaN or infinite.
        precision: 32; 64; 16 for autocast to float16 with a scaled loss, "bf16" for autocast to bfloat16.
        accelerator, devices, gpus, num_processes: the device: "cpu", which is the default, or "gpu", with devices=1
            or [index]; gpus=1 or gpus=[index]; "auto" for a GPU if there is one. One process, one device.
        truncated_bptt_steps: of modules that have none of their own; deprecated.
        resume_from_checkpoint: what `fit` goes on from where it is given no `ckpt_path`; deprecated.
        deterministic: torch uses deterministic algorithms only, and raises where there is none.
        benchmark: cuDNN tries out which algorithm is fastest.

    The period's retired spellings (`checkpoint_callback`, `weights_summary`, `progress_bar_refresh_rate`, ...) are
    taken with a warning.

    Raises:
        ConfigurationError: an option's value is not accepted; TypeError: an option is unknown. Both
            name what was given and what is accepted.
    """

    _unlisted = RETIRED_OPTIONS

    # What a run attaches: the receivers of every hook, the loaders that it was given by stage, and when its time
    # is up (of `time.monotonic`).
    hooks: Hooks
    given_loaders: dict[str, Any]
    deadline: float | None

    @retired_options
    def __init__(
        self,
        *,
        max_epochs: int | None = None,
        min_epochs: int | None = None,
        max_steps: int | None = None,
        min_steps: int | None = None,
        max_time: str | timedelta | dict[str, float] | None = None,
        limit_train_batches: int | float = 1.0,
        limit_val_batches: int | float = 1.0,
        limit_test_batches: int | float = 1.0,
        limit_predict_batches: int | float = 1.0,
        overfit_batches: int | float = 0,
        fast_dev_run: bool | int = False,
        val_check_interval: int | float = 1.0,
        check_val_every_n_epoch: int = 1,
        num_sanity_val_steps: int = 2,
        multiple_trainloader_mode: str = "max_size_cycle",
        reload_dataloaders_every_n_epochs: int = 0,
        accumulate_grad_batches: int | dict[int, int] = 1,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str = "norm",
        track_grad_norm: int | float | str = -1,
        detect_anomaly: bool = False,
        terminate_on_nan: bool = False,
        callbacks: Callback | Iterable[Callback] | None = None,
        logger: bool | Logger | Iterable[Logger] | None = True,
        log_every_n_steps: int = 50,
        default_root_dir: str | os.PathLike[str] | None = None,
        enable_progress_bar: bool = True,
        enable_model_summary: bool = True,
        enable_checkpointing: bool = True,
        precision: int | str = 32,
        accelerator: str | None = None,
        devices: int | str | Sequence[int] | None = None,
        gpus: int | str | Sequence[int] | None = None,
        num_processes: int | None = None,
        truncated_bptt_steps: int | None = None,
        resume_from_checkpoint: str | os.PathLike[str] | None = None,
        deterministic: bool = False,
        benchmark: bool = False,
    ) -> None:
        vars(self).update(resolved(locals()))
        self.accumulate_grad_batches = accumulate_grad_batches
        self.resume_from_checkpoint = resume_from_checkpoint
        self.scaler: LossScaler | None = None
        self.loggers = loggers_of(logger, self.default_root_dir, silent=self.fast_dev_run > 0)
        self.callbacks = with_defaults(callbacks, enable_progress_bar, enable_model_summary, enable_checkpointing)
        self.module_callbacks: list[Callback] = []  # those of configure_callbacks, for one run
        self.replaced_callbacks: list[tuple[int, Callback]] = []  # by them, with their places
        for callback in self.callbacks:
            callback.on_init_start(self)

        self.state = TrainerState()
        self.current_epoch = self.global_step = 0
        self.should_stop = self.interrupted = False
        self.device, self.gpus = device_of(accelerator, devices, gpus, num_processes), gpus
        self.logbook = Logbook()
        self.module = None  # type: ignore[assignment]  # given by the first run
        self.datamodule, self.train_loader, self.eval_loaders = None, None, {}
        self.checks_val = False
        self.optimizers: list[torch.optim.Optimizer] = []
        self.schedules = []
        self.has_plateaus = False  # schedules per step that react to a logged value
        self.turns: Turns | None = None  # where optimizers have frequencies
        self.split_idx = 0  # with truncated_bptt_steps, which piece of the batch it is
        self.updates = True  # whether the batch that runs is followed by an update of the parameters
        self.batches_done = 0  # in this epoch
        self.uncounted = False  # whether the last of them made a step that global_step does not count yet
        self.blocks: list[loops.OptimizerBlock] = []
        self.outputs: list[Any] = []  # of this epoch, for training_epoch_end
        self.saves_due: list[Callable[[], None]] = []  # once the batch, or the epoch, is over
        self.ckpt_path: Any = None
        self.checkpoint: Any = None  # what is to be restored, as it was read
        self.resuming: Mapping[str, Any] | None = None  # of it what the first epoch begins with
        self.asked_before: dict[str, int] = {}  # the epochs in which the loaders of a stage were, when it was saved
        self.val_generators: list[list[torch.Tensor]] = []  # the states of those in the validation loaders, then
        self.fitted: LightningModule | None = None  # whose best checkpoint there may be
        for callback in self.callbacks:
            callback.on_init_end(self)

    # ---- the four things it does -----------------------------------------------------------------

    @retired_keywords(train_dataloader="train_dataloaders")
    def fit(
        self,
        model: LightningModule,
        train_dataloaders: Any = None,
        val_dataloaders: Any = None,
        datamodule: LightningDataModule | None = None,
        ckpt_path: str | os.PathLike[str] | None = None,
        weights_only: bool = True,
    ) -> None:
        """Train `model`, validating as it goes; from the checkpoint in `ckpt_path` on, if it is given.

        Loaders given here take the place of the model's and the data module's. Raises HookError or
        ConfigurationError before anything starts if the model cannot be trained, and DataError where a
        loader is asked for and cannot be used; an exception in a hook passes through unchanged, after
        `on_exception` and `teardown`. A checkpoint that is damaged, or does not fit, is a CheckpointError; one that
        holds more than data is loaded with `weights_only=False` only, which can run any code that is in it.
        """
        loaders = {"train": train_dataloaders, "val": val_dataloaders}
        self.fitted = None
        path = self.resume_from_checkpoint if ckpt_path is None else ckpt_path
        run(self, "fit", loops.fit, model, loaders, datamodule, path, weights_only)
        self.fitted = self.module

    @retired_keywords(val_dataloaders="dataloaders")
    def validate(
        self,
        model: LightningModule | None = None,
        dataloaders: Any = None,
        ckpt_path: str | os.PathLike[str] | None = "auto",
        verbose: bool = True,
        datamodule: LightningDataModule | None = None,
        weights_only: bool = True,
    ) -> list[dict[str, float]]:
        """One pass over the validation loaders; returns the logged epoch values, a dict per loader, and prints
        them as a table, if `verbose`.

        `ckpt_path` is that of `test`; by default the best checkpoint is loaded where no model is given.
        """
        given = model, {"val": dataloaders}, datamodule, ckpt_path, weights_only
        return self._tabulated(run(self, "validate", loops.evaluate, *given), verbose)

    @retired_keywords(test_dataloaders="dataloaders")
    def test(
        self,
        model: LightningModule | None = None,
        dataloaders: Any = None,
        ckpt_path: str | os.PathLike[str] | None = "auto",
        verbose: bool = True,
        datamodule: LightningDataModule | None = None,
        weights_only: bool = True,
    ) -> list[dict[str, float]]:
        """One pass over the test loaders; returns the logged epoch values, a dict per loader, and prints them as
        a table, if `verbose`.

        The weights are those of the checkpoint in `ckpt_path`: a path, "best", "last", or None for the weights as
        they are. By default the best checkpoint, if this trainer has just fitted this very module, and else as
        they are. Raises CheckpointError for a checkpoint that cannot be used, such as one that has gone missing.
        ("Test loop")
        """
        given = model, {"test": dataloaders}, datamodule, ckpt_path, weights_only
        return self._tabulated(run(self, "test", loops.evaluate, *given), verbose)

    def _tabulated(self, results: list[dict[str, float]] | None, verbose: bool) -> list[dict[str, float]]:
        """What an evaluation has found, printed; nothing if it was interrupted."""
        table = results_table(str(self.state.fn), results or [])
        if verbose and table and self.is_global_zero:
            self.print(table)
        return results or []

    @retired_keywords()
    def predict(
        self,
        model: LightningModule | None = None,
        dataloaders: Any = None,
        datamodule: LightningDataModule | None = None,
        return_predictions: bool | None = None,
        ckpt_path: str | os.PathLike[str] | None = "auto",
        weights_only: bool = True,
    ) -> list[Any] | None:
        """What `predict_step` returns for each batch: a list, or with several loaders a list of lists.

        With `return_predictions=False` nothing is kept, and None is returned: for predictions that a callback writes
        away (`BasePredictionWriter`). `ckpt_path` is that of `validate`.
        """
        self.return_predictions = return_predictions is not False
        given = model, {"predict": dataloaders}, datamodule, ckpt_path, weights_only
        results = run(self, "predict", loops.evaluate, *given)
        if not self.return_predictions or results is None:
            return None
        return results[0] if len(results) == 1 else results  # type: ignore[no-any-return]

    def save_checkpoint(self, filepath: str | os.PathLike[str], weights_only: bool = False) -> None:
        """Write everything that the run needs to go on to `filepath`, or the module alone.

        Until the new file is whole, an old one stays in its place. In mid-epoch the run can go on after the last
        batch that is done. Raises RuntimeError before the first run.
        """
        if self.module is None:
            raise RuntimeError("save_checkpoint needs a module: call fit, validate, test or predict first")
        write(collected(self, weights_only), filepath)

    # ---- what the loops ask for ------------------------------------------------------------------

    def move_module(self) -> None:
        """The module goes to the device, once `setup` has built it, at precision 64 as float64."""
        self.module.to(self.device)
        if self.precision == 64:
            self.module.double()

    def open(self, stage: str) -> None:
        """A pass begins: "train", "sanity_check", "validate", "test" or "predict"."""
        self.state.passes.append(RunningStage(stage))
        self.logbook.open()

    def close(self) -> list[dict[str, float]]:
        """The pass is over; returns its epoch values, one dict per loader."""
        return self.logbook.close(forget=self.state.passes.pop() == "sanity_check")

    def abandon(self) -> None:
        """The run failed, in whatever passes were open."""
        self.state.passes.clear()
        self.logbook.abandon()

    def epoch_is_done(self) -> None:
        """A training epoch is over, to the last hook."""
        self.current_epoch += 1
        self.batches_done = 0
        if self.train_loader:
            self.train_loader.starts.clear()
        self.save_due()

    def save_due(self) -> None:
        """Save what is due: nothing is in progress now."""
        while self.saves_due:
            self.saves_due.pop(0)()

    def finish(self) -> None:
        """All loops have run; only teardown follows."""
        self.state.status = TrainerStatus.FINISHED

    def print(self, *args: Any, **kwargs: Any) -> None:
        """Python's `print`, above a progress bar if there is one."""
        (self.progress_bar_callback or builtins).print(*args, **kwargs)
