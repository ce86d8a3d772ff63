"""Trainer: options checked once, then fit, validate, test, predict."""

from __future__ import annotations

import builtins
import os
from collections.abc import Iterable, Sequence
from datetime import timedelta
from typing import Any

from .. import loops
from ..callback import Callback
from ..callbacks.model_checkpoint import ModelCheckpoint, chosen
from ..callbacks.monitor import MonitorCallback
from ..callbacks.progress_bar import ProgressBar
from ..callbacks.summary import ModelSummary
from ..errors import ConfigurationError
from ..loaders.datamodule import LightningDataModule
from ..loggers.loggers import Logger, loggers_of
from ..loggers.tables import results_table
from ..module import LightningModule
from ..receivers import Receivers, callbacks_of
from ..run import Run
from ..saving.file import write
from ..strategies.choice import chosen_devices
from .options import Options
from .view import TrainerView

__all__ = ["Trainer"]


# Type checkers take the trainer of the hooks for what users hold, a class above this one: hence `ignore[arg-type]`.
class Trainer(TrainerView):
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
        accelerator, devices: the device: "cpu", which is the default, or "gpu", with devices=1 or [index]; "auto" for a
            GPU if there is one.
        strategy: "dp" splits each batch over several devices of this process: GPUs, as devices=2, [0, 2] or -1 says, or
            so many parts of the CPU that stand for devices. ("Training with DataParallel") "ddp" trains in one process
            for each device, which are started by running the script again, or "ddp_spawn" by `multiprocessing`; under
            torchrun they are there. "ddp_find_unused_parameters_false" is for modules of which every parameter takes
            part in every loss. Several devices without a strategy are "ddp_spawn".
        num_nodes: how many machines; each runs so many devices.
        sync_batchnorm: of DDP on GPUs, let batch norms compute over the batches of all processes.
        replace_sampler_ddp: give each process its share of the samples, whatever sampler a DataLoader has, but for
            torch's DistributedSampler.
        process_timeout: how many seconds a process waits for the others before the run fails.
        deterministic: torch uses deterministic algorithms only, and raises where there is none.
        benchmark: cuDNN tries out which algorithm is fastest.

    Raises:
        ConfigurationError: an option's value is not accepted; the message says what is.
    """

    _receivers = Receivers

    def __init__(
        self, *, max_epochs: int | None = None, min_epochs: int | None = None, max_steps: int | None = None,
        min_steps: int | None = None, max_time: str | timedelta | dict[str, float] | None = None,
        fast_dev_run: bool | int = False, limit_train_batches: int | float = 1.0, limit_val_batches: int | float = 1.0,
        limit_test_batches: int | float = 1.0, limit_predict_batches: int | float = 1.0,
        overfit_batches: int | float = 0, num_sanity_val_steps: int = 2, val_check_interval: int | float = 1.0,
        check_val_every_n_epoch: int = 1, multiple_trainloader_mode: str = "max_size_cycle",
        reload_dataloaders_every_n_epochs: int = 0, accumulate_grad_batches: int | dict[int, int] = 1,
        gradient_clip_val: float | None = None, gradient_clip_algorithm: str = "norm",
        track_grad_norm: int | float | str = -1, detect_anomaly: bool = False, terminate_on_nan: bool = False,
        callbacks: Callback | Iterable[Callback] | None = None, enable_checkpointing: bool = True,
        enable_progress_bar: bool = True, enable_model_summary: bool = True,
        logger: bool | Logger | Iterable[Logger] | None = True, log_every_n_steps: int = 50,
        default_root_dir: str | os.PathLike[str] | None = None, accelerator: str | None = None,
        devices: int | str | Sequence[int] | None = None, num_nodes: int = 1, strategy: str | None = None,
        sync_batchnorm: bool = False, replace_sampler_ddp: bool = True, process_timeout: float = 1800,
        precision: int | str = 32, deterministic: bool = False, benchmark: bool = False
    ) -> None:  # fmt: skip
        self.options = Options(locals())
        callbacks = with_defaults(callbacks, enable_progress_bar, enable_model_summary, enable_checkpointing)
        where = chosen_devices(accelerator, devices, num_nodes, strategy, self.options)
        self.run = Run(self.options, where, self._receivers(callbacks))
        self.loggers = loggers_of(logger, self.default_root_dir, silent=self.fast_dev_run > 0)
        self.fitted: LightningModule | None = None  # whose best checkpoint there may be
        for hook in ("on_init_start", "on_init_end"):
            for callback in self.callbacks:
                getattr(callback, hook)(self)

    # ---- the four things it does -----------------------------------------------------------------

    def fit(
        self, model: LightningModule, train_dataloaders: Any = None, val_dataloaders: Any = None,
        datamodule: LightningDataModule | None = None, ckpt_path: str | os.PathLike[str] | None = None,
        weights_only: bool = True
    ) -> None:  # fmt: skip
        """Train `model`, validating as it goes; from the checkpoint in `ckpt_path` on, if it is given.

        Loaders given here take the place of the model's and the data module's. Raises HookError or
        ConfigurationError before anything starts if the model cannot be trained, and DataError where a
        loader is asked for and cannot be used; an exception in a hook passes through unchanged, after
        `on_exception` and `teardown`. A checkpoint that is damaged, or does not fit, is a CheckpointError; one that
        holds more than data is loaded with `weights_only=False` only, which can run any code that is in it.
        """
        loaders = {"train": train_dataloaders, "val": val_dataloaders}
        self._run("fit", model, loaders, datamodule, ckpt_path, weights_only)
        self.fitted = self.module

    def validate(
        self, model: LightningModule | None = None, dataloaders: Any = None,
        ckpt_path: str | os.PathLike[str] | None = "auto", verbose: bool = True,
        datamodule: LightningDataModule | None = None, weights_only: bool = True
    ) -> list[dict[str, float]]:  # fmt: skip
        """One pass over the validation loaders; returns the logged epoch values, a dict per loader, and prints
        them as a table, if `verbose`.

        `ckpt_path` is that of `test`; by default the best checkpoint is loaded where no model is given.
        """
        results = self._run("validate", model, {"val": dataloaders}, datamodule, ckpt_path, weights_only)
        return self._tabulated(results, verbose)

    def test(
        self, model: LightningModule | None = None, dataloaders: Any = None,
        ckpt_path: str | os.PathLike[str] | None = "auto", verbose: bool = True,
        datamodule: LightningDataModule | None = None, weights_only: bool = True
    ) -> list[dict[str, float]]:  # fmt: skip
        """One pass over the test loaders; returns the logged epoch values, a dict per loader, and prints them as
        a table, if `verbose`.

        The weights are those of the checkpoint in `ckpt_path`: a path, "best", "last", or None for the weights as
        they are. By default the best checkpoint, if this trainer has just fitted this very module, and else as
        they are. Raises CheckpointError for a checkpoint that cannot be used, such as one that has gone missing.
        ("Test loop")
        """
        results = self._run("test", model, {"test": dataloaders}, datamodule, ckpt_path, weights_only)
        return self._tabulated(results, verbose)

    def _run(
        self, function: str, model: LightningModule | None, loaders: dict[str, Any],
        datamodule: LightningDataModule | None, ckpt_path: Any, weights_only: bool, return_predictions: bool = True
    ) -> Any:  # fmt: skip
        if self.state.status == "running":
            raise RuntimeError(f"{function} was called while this trainer runs {self.state.fn}; use another Trainer")
        path = chosen(self, function, model, ckpt_path)  # type: ignore[arg-type]
        if function == "fit":
            for callback in self.callbacks:
                if isinstance(callback, MonitorCallback) and self.fitted is not None and self.fitted is not model:
                    callback.forget()
            self.fitted = None
        loop = loops.fit if function == "fit" else loops.evaluate
        given = model, loaders, datamodule, path, weights_only, return_predictions
        return self.run.devices.execute(self.run.enter, self, function, loop, *given)

    def _tabulated(self, results: list[dict[str, float]] | None, verbose: bool) -> list[dict[str, float]]:
        """What an evaluation has found, printed; nothing if it was interrupted."""
        table = results_table(str(self.state.fn), results or [])
        if verbose and table and self.is_global_zero:
            self.print(table)
        return results or []

    def predict(
        self, model: LightningModule | None = None, dataloaders: Any = None,
        datamodule: LightningDataModule | None = None, return_predictions: bool | None = None,
        ckpt_path: str | os.PathLike[str] | None = "auto", weights_only: bool = True
    ) -> list[Any] | None:  # fmt: skip
        """What `predict_step` returns for each batch: a list, or with several loaders a list of lists.

        With `return_predictions=False` nothing is kept, and None is returned: for predictions that a callback writes
        away (`BasePredictionWriter`). `ckpt_path` is that of `validate`.
        """
        kept = return_predictions is not False
        results = self._run("predict", model, {"predict": dataloaders}, datamodule, ckpt_path, weights_only, kept)
        if not kept or results is None:
            return None
        return results[0] if len(results) == 1 else results  # type: ignore[no-any-return]

    def save_checkpoint(self, filepath: str | os.PathLike[str], weights_only: bool = False) -> None:
        """Write everything that the run needs to go on to `filepath`, or the module alone.

        Until the new file is whole, an old one stays in its place. In mid-epoch the run can go on after the last
        batch that is done. Raises RuntimeError before the first run. While several processes run, each has to call it;
        the first one writes.
        """
        if self.module is None:
            raise RuntimeError("save_checkpoint needs a module: call fit, validate, test or predict first")
        checkpoint = self.run.collected(weights_only)
        if self.is_global_zero:
            write(checkpoint, filepath)
        self.run.devices.wait()

    def print(self, *args: Any, **kwargs: Any) -> None:
        """Python's `print`, above a progress bar if there is one; in the process of global rank 0 only."""
        if self.is_global_zero:
            (self.progress_bar_callback or builtins).print(*args, **kwargs)


def with_defaults(
    given: Callback | Iterable[Callback] | None, progress_bar: bool, summary: bool, checkpointing: bool
) -> list[Callback]:
    """Those given, and one of each kind that is enabled and not among them.

    Raises ConfigurationError for checkpoints switched off beside a callback that saves them.
    """
    callbacks = callbacks_of(given)

    def has(kind: type) -> bool:
        return any(isinstance(callback, kind) for callback in callbacks)

    if not checkpointing and has(ModelCheckpoint):
        raise ConfigurationError("enable_checkpointing=False, but there is a ModelCheckpoint among the callbacks")
    enabled: dict[Any, bool] = {ModelSummary: summary, ProgressBar: progress_bar, ModelCheckpoint: checkpointing}
    missing = [kind() for kind, is_enabled in enabled.items() if is_enabled and not has(kind._kind or kind)]
    return [*callbacks, *missing]
