"""Trainer: options checked once, then fit, validate, test, predict."""

from __future__ import annotations

import builtins
import math
import os
import time
import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch

from . import loops, options
from .callbacks import Callback
from .combined import MODES
from .data import EvalLoaders, TrainLoader, has_loader
from .datamodule import LightningDataModule
from .devices import parallel
from .dispatch import Hooks, resolve
from .loggers import Logger, Publisher, loggers_of
from .module import LightningModule
from .optimization import ConfigurationError, Schedule, Turns
from .plan import epochs, validates
from .precision import PRECISIONS, LossScaler, in_precision
from .progress import ProgressBar
from .results import Logbook
from .summary import ModelSummary

__all__ = ["Trainer", "TrainerState"]

_STEPS = ("training_step", "validation_step", "test_step", "predict_step")


@dataclass
class TrainerState:
    """What the trainer is doing: `fn` is fit, validate, test or predict; `status` is "initializing",
    "running", "finished", "interrupted" or "failed"."""

    fn: str | None = None
    status: str = "initializing"


class Trainer:
    """Runs a `LightningModule` as the documentation's pseudocode says.

    Args:
        max_epochs: stop after so many epochs; -1 for no limit. Without any limit, 1000.
        min_epochs, min_steps: train at least so long, even when asked to stop.
        max_steps: stop after so many steps (training batches), -1 for no limit.
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
        deterministic: torch uses deterministic algorithms only, and raises where there is none.
        benchmark: cuDNN tries out which algorithm is fastest.

    The period's retired spellings (`checkpoint_callback`, `weights_summary`, `progress_bar_refresh_rate`, ...) are
    taken with a warning.

    Raises:
        ConfigurationError: an option's value is not accepted; TypeError: an option is unknown. Both
            name what was given and what is accepted.
    """

    @options.retired_spellings
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
        precision: int | str = 32,
        accelerator: str | None = None,
        devices: int | str | Sequence[int] | None = None,
        gpus: int | Sequence[int] | None = None,
        num_processes: int | None = None,
        deterministic: bool = False,
        benchmark: bool = False,
    ) -> None:
        self.overfit_batches = options.limit("overfit_batches", overfit_batches)
        limit_train_batches = overfit_batches or limit_train_batches
        fast = int(fast_dev_run) if isinstance(fast_dev_run, bool) else fast_dev_run
        batches = options.count("fast_dev_run", fast, 0)
        if batches:
            limit_train_batches = limit_val_batches = limit_test_batches = limit_predict_batches = batches
            max_epochs, max_steps, num_sanity_val_steps, val_check_interval = 1, batches, 0, 1.0
            check_val_every_n_epoch = 1

        self.fast_dev_run = batches
        self.limit_train_batches = options.limit("limit_train_batches", limit_train_batches)
        self.limit_val_batches = options.limit("limit_val_batches", limit_val_batches)
        self.limit_test_batches = options.limit("limit_test_batches", limit_test_batches)
        self.limit_predict_batches = options.limit("limit_predict_batches", limit_predict_batches)
        self.max_steps = options.count("max_steps", -1 if max_steps is None else max_steps, -1)
        unlimited = max_steps in (None, -1) and max_time is None
        most = 1000 if unlimited else -1
        self.max_epochs = options.count("max_epochs", most if max_epochs is None else max_epochs, -1)
        self.min_epochs = options.count("min_epochs", min_epochs or 0, 0)
        self.min_steps = options.count("min_steps", min_steps or 0, 0)
        self.max_time = options.duration(max_time)
        self.val_check_interval = options.interval(val_check_interval)
        self.check_val_every_n_epoch = options.count("check_val_every_n_epoch", check_val_every_n_epoch, 1)
        self.num_sanity_val_steps = options.count("num_sanity_val_steps", num_sanity_val_steps, -1)
        self.multiple_trainloader_mode = options.one_of("multiple_trainloader_mode", multiple_trainloader_mode, MODES)
        self.reload_dataloaders_every_n_epochs = options.count(
            "reload_dataloaders_every_n_epochs", reload_dataloaders_every_n_epochs, 0
        )
        self.accumulate_grad_batches = options.windows(accumulate_grad_batches)
        self.gradient_clip_val = options.at_least_0("gradient_clip_val", gradient_clip_val)
        self.gradient_clip_algorithm = options.one_of(
            "gradient_clip_algorithm", gradient_clip_algorithm, ("norm", "value")
        )
        self.track_grad_norm = options.norm_order(track_grad_norm)
        self.detect_anomaly, self.terminate_on_nan = detect_anomaly, terminate_on_nan
        self.precision = int(precision) if precision in ("16", "32", "64") else precision
        if self.precision not in PRECISIONS:
            raise ConfigurationError(f"precision={precision!r}; accepted are {', '.join(map(repr, PRECISIONS))}")
        self.scaler: LossScaler | None = None
        self.default_root_dir = options.folder(default_root_dir)
        self.loggers = loggers_of(logger, self.default_root_dir, silent=batches > 0)
        self.log_every_n_steps = options.count("log_every_n_steps", log_every_n_steps, 1)
        self.callbacks = options.callbacks_of(callbacks)
        if enable_model_summary and not any(isinstance(cb, ModelSummary) for cb in self.callbacks):
            self.callbacks.append(ModelSummary())
        if enable_progress_bar and not any(isinstance(cb, ProgressBar) for cb in self.callbacks):
            self.callbacks.append(ProgressBar())
        self._model_callbacks: list[Callback] = []
        self._replaced: list[tuple[int, Callback]] = []
        for callback in self.callbacks:
            callback.on_init_start(self)

        self.state = TrainerState()
        self._stages: list[str] = []  # a validation runs inside of the training
        self.current_epoch = self.global_step = 0
        self.should_stop = self.interrupted = False
        self.global_rank = 0
        self.device = options.device_of(accelerator, devices, gpus, num_processes)
        self.deterministic, self.benchmark = deterministic, benchmark
        self.logbook = Logbook()
        self.module: LightningModule = None  # type: ignore[assignment]  # given by the first run
        self.datamodule: LightningDataModule | None = None
        self.train_loader: TrainLoader | None = None
        self.optimizers: list[torch.optim.Optimizer] = []
        self.schedules: list[Schedule] = []
        self.turns: Turns | None = None  # where optimizers have frequencies
        self.updates = True  # whether the batch that runs is followed by an update of the parameters
        for callback in self.callbacks:
            callback.on_init_end(self)

    # ---- the four things it does -----------------------------------------------------------------

    def fit(
        self,
        model: LightningModule,
        train_dataloaders: Any = None,
        val_dataloaders: Any = None,
        datamodule: LightningDataModule | None = None,
    ) -> None:
        """Train `model`, validating as it goes.

        Loaders given here take the place of the model's and the data module's. Raises HookError or
        ConfigurationError before anything starts if the model cannot be trained, and DataError where a
        loader is asked for and cannot be used; an exception in a hook passes through unchanged, after
        `on_exception` and `teardown`.
        """
        self._run("fit", loops.fit, model, {"train": train_dataloaders, "val": val_dataloaders}, datamodule)

    def validate(
        self,
        model: LightningModule | None = None,
        dataloaders: Any = None,
        datamodule: LightningDataModule | None = None,
    ) -> list[dict[str, float]]:
        """One pass over the validation loaders; returns the logged epoch values, a dict per loader."""
        return self._run("validate", loops.evaluate, model, {"val": dataloaders}, datamodule) or []

    def test(
        self,
        model: LightningModule | None = None,
        dataloaders: Any = None,
        datamodule: LightningDataModule | None = None,
    ) -> list[dict[str, float]]:
        """One pass over the test loaders; returns the logged epoch values, a dict per loader."""
        return self._run("test", loops.evaluate, model, {"test": dataloaders}, datamodule) or []

    def predict(
        self,
        model: LightningModule | None = None,
        dataloaders: Any = None,
        datamodule: LightningDataModule | None = None,
        return_predictions: bool = True,
    ) -> list[Any] | None:
        """What `predict_step` returns for each batch: a list, or with several loaders a list of lists.

        With `return_predictions=False` nothing is kept, and None is returned.
        """
        self.return_predictions = return_predictions
        results = self._run("predict", loops.evaluate, model, {"predict": dataloaders}, datamodule)
        if not return_predictions or results is None:
            return None
        return results[0] if len(results) == 1 else results  # type: ignore[no-any-return]

    # ---- one run ---------------------------------------------------------------------------------

    def _run(
        self,
        function: str,
        entry: Callable[[Trainer], Any],
        model: LightningModule | None,
        loaders: dict[str, Any],
        datamodule: LightningDataModule | None,
    ) -> Any:
        """Attach everything, run the loop, and close what it opened, whatever happens."""
        if self.state.status == "running":
            raise RuntimeError(f"{function} was called while this trainer runs {self.state.fn}; use another Trainer")
        model = self._module_of(function, model)
        outer = model.trainer
        try:
            self._attach(function, model, loaders, datamodule)
            return self._enter(function, entry)
        finally:
            if outer is not None and outer.state.status == "running":
                model.trainer = outer  # which called this run from one of its hooks

    def _enter(self, function: str, entry: Callable[[Trainer], Any]) -> Any:
        """Run the loop; an exception or Ctrl-C closes what it opened."""
        try:
            self.state = TrainerState(function, "running")
            if self.logbook.publisher and function == "fit":
                self.logbook.publisher.hyperparams()
            with torch.autograd.set_detect_anomaly(self.detect_anomaly):
                return entry(self)
        except KeyboardInterrupt as interrupt:
            self.interrupted = True
            self._close_after(interrupt, "interrupted")
            warnings.warn(f"{function} was interrupted; it ends here", stacklevel=4)
            return None
        except BaseException as exception:
            self._close_after(exception, "failed")
            raise
        finally:
            if self.logbook.publisher:
                self.logbook.publisher.finalize(self.state.status)

    def _close_after(self, exception: BaseException, status: str) -> None:
        """Modes as after a run, then `on_exception` and `teardown`. What they raise themselves is
        shown as a warning, so that the first exception is the one that surfaces."""
        running, self.state.status = self.state.status == "running", status
        self._stages.clear()
        self.logbook.abandon()
        hooks = self.hooks
        closing = [(self.module.train, True), (hooks.on_exception, exception)]
        if running:
            closing.append((hooks.teardown, self.state.fn))
        with parallel(self):
            for hook, argument in closing:
                try:
                    if hook:
                        hook(argument)
                except Exception as another:
                    warnings.warn(f"while closing after {exception!r}: {another!r}", stacklevel=5)

    def _module_of(self, function: str, model: LightningModule | None) -> LightningModule:
        """The module to run: the one given, or that of the last run."""
        model = model if model is not None else self.module
        if isinstance(model, LightningModule):
            return model
        given = f"the class {model.__name__}; pass an instance" if isinstance(model, type) else type(model).__name__
        raise TypeError(f"{function} needs a LightningModule, not {given}")

    def _attach(
        self,
        function: str,
        model: LightningModule,
        loaders: dict[str, Any],
        datamodule: LightningDataModule | None,
    ) -> None:
        """Check what a run was given, before anything happens."""
        for stage, given in loaders.items():
            if isinstance(given, LightningDataModule):  # trainer.predict(model, data_module)
                loaders[stage], datamodule = None, given
        if datamodule is not None and not isinstance(datamodule, LightningDataModule):
            given = f"the class {datamodule.__name__}" if isinstance(datamodule, type) else type(datamodule).__name__
            raise TypeError(f"datamodule={given}; an instance of LightningDataModule is accepted")
        if datamodule is not None and any(given is not None for given in loaders.values()):
            raise ConfigurationError(f"{function} was given loaders and a datamodule; give one of them")
        self.module, self.datamodule = model, datamodule
        self.given_loaders = loaders
        self.logbook = Logbook()
        if self.loggers and self.global_rank == 0:
            self.logbook.publisher = Publisher(self)
        self.train_loader = None
        self.eval_loaders: dict[str, EvalLoaders] = {}
        self.should_stop = self.interrupted = False
        self.deadline = None if self.max_time is None else time.monotonic() + self.max_time
        self._forget_model_callbacks()
        model.trainer = self
        if datamodule is not None:
            datamodule.trainer = self
        self.hooks = self._resolve()
        self._check_defined(function)
        self.scaler = LossScaler(self.device) if function == "fit" and self.precision == 16 else None
        self.checks_val = function == "fit" and validates(self)
        if function == "fit":
            self._warn_of_nothing_to_do()

    def _resolve(self) -> Hooks:
        hooks = resolve(self, self.module, self.datamodule, self.callbacks)
        for step in _STEPS:
            method = getattr(hooks, step)
            setattr(hooks, step, method and in_precision(method, self.precision, self.device))
        return hooks

    def _check_defined(self, function: str) -> None:
        stage, step = {
            "fit": ("train", "training_step"),
            "validate": ("val", "validation_step"),
            "test": ("test", "test_step"),
            "predict": ("predict", "predict_step"),
        }[function]
        required = [step, "configure_optimizers"] if function == "fit" else [step]
        name = type(self.module).__name__
        for hook in required:
            if getattr(self.hooks, hook) is None:
                raise ConfigurationError(f"{function} needs {name}.{hook}, which is not defined")
        if self.given_loaders.get(stage) is None and getattr(self.hooks, f"{stage}_dataloader") is None:
            raise ConfigurationError(
                f"{function} needs batches: pass a loader or a datamodule, or define {name}.{stage}_dataloader"
            )

    def _warn_of_nothing_to_do(self) -> None:
        """A fit that will not train, or not validate although half of what that takes is there."""
        if next(epochs(self), None) is None:
            warnings.warn(
                f"fit will train nothing: current_epoch={self.current_epoch} of max_epochs={self.max_epochs}, "
                f"global_step={self.global_step} of max_steps={self.max_steps}, "
                f"limit_train_batches={self.limit_train_batches}",
                stacklevel=5,
            )
        name, step = type(self.module).__name__, self.hooks.validation_step is not None
        if self.limit_val_batches != 0 and step != has_loader(self, "val"):
            there, missing = ("validation_step", "loader") if step else ("loader", "validation_step")
            warnings.warn(f"fit will not validate: {name} has a {there}, but no {missing}", stacklevel=5)

    # ---- what the loops ask for ------------------------------------------------------------------

    def add_callbacks(self, configured: Sequence[Callback] | Callback | None) -> None:
        """Take in what `configure_callbacks` returned: each replaces those of its type."""
        new = options.callbacks_of(configured)
        types = {type(callback) for callback in new}
        if any(isinstance(callback, ProgressBar) for callback in new):
            types.add(ProgressBar)  # two bars would overwrite each other
        self._replaced = [(i, cb) for i, cb in enumerate(self.callbacks) if type(cb) in types]
        self._model_callbacks = new
        self.callbacks = [cb for cb in self.callbacks if type(cb) not in types] + new
        vars(self.hooks).update(vars(self._resolve()))  # the loops hold on to this object

    def _forget_model_callbacks(self) -> None:
        """The last run's model takes its callbacks with it, and those that they replaced come back."""
        self.callbacks = [cb for cb in self.callbacks if all(cb is not own for own in self._model_callbacks)]
        for place, callback in self._replaced:
            self.callbacks.insert(place, callback)
        self._model_callbacks, self._replaced = [], []

    def move_module(self) -> None:
        """The module goes to the device, once `setup` has built it, at precision 64 as float64."""
        self.module.to(self.device)
        if self.precision == 64:
            self.module.double()

    def open(self, stage: str) -> None:
        """A pass begins: "train", "sanity_check", "validate", "test" or "predict"."""
        self._stages.append(stage)
        self.logbook.open()

    def close(self) -> list[dict[str, float]]:
        """The pass is over; returns its epoch values, one dict per loader."""
        return self.logbook.close(forget=self._stages.pop() == "sanity_check")

    def finish(self) -> None:
        """All loops have run; only teardown follows."""
        self.state.status = "finished"

    # ---- what users read -------------------------------------------------------------------------

    @property
    def stage(self) -> str | None:
        """The pass that runs, as `open` names it; None between passes."""
        return self._stages[-1] if self._stages else None

    training = property(lambda self: self.stage == "train", doc="Whether a training batch or epoch runs.")
    sanity_checking = property(lambda self: self.stage == "sanity_check", doc="Whether the sanity check runs.")
    validating = property(lambda self: self.stage == "validate", doc="Whether a validation runs.")
    testing = property(lambda self: self.stage == "test", doc="Whether a test runs.")
    predicting = property(lambda self: self.stage == "predict", doc="Whether a prediction runs.")

    @property
    def callback_metrics(self) -> dict[str, torch.Tensor]:
        """Every logged value by name, as scalar tensors."""
        return self.logbook.metrics("callback")

    @property
    def logged_metrics(self) -> dict[str, float]:
        """The values logged with `logger=True`."""
        return self.logbook.metrics("logged")

    @property
    def progress_bar_metrics(self) -> dict[str, float]:
        """The values logged with `prog_bar=True`."""
        return self.logbook.metrics("progress_bar")

    @property
    def progress_bar_callback(self) -> ProgressBar | None:
        """The progress bar; None if it is switched off."""
        return next((callback for callback in self.callbacks if isinstance(callback, ProgressBar)), None)

    @property
    def logger(self) -> Logger | None:
        """The first of `loggers`; None without any."""
        return self.loggers[0] if self.loggers else None

    @property
    def log_dir(self) -> str:
        """The folder of the first logger, which need not exist yet; without one, `default_root_dir`."""
        folder = self.logger and (self.logger.log_dir or self.logger.save_dir)
        return folder or self.default_root_dir

    @property
    def num_training_batches(self) -> int | float:
        """Batches in a training epoch; inf if unknown, 0 before the loader was asked for."""
        if self.train_loader is None:
            return 0
        return math.inf if self.train_loader.num_batches is None else self.train_loader.num_batches

    @property
    def use_amp(self) -> bool:
        """Whether the steps run under autocast."""
        return self.precision in (16, "bf16")

    def print(self, *args: Any, **kwargs: Any) -> None:
        """Python's `print`, above a progress bar if there is one."""
        (self.progress_bar_callback or builtins).print(*args, **kwargs)
