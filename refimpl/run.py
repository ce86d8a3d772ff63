"""One run of a trainer: its parts are made, the loop is entered, what it opened is closed, whatever happens."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import torch

from .data import Data
from .devices import Devices, parallel
from .dispatch import takes_dataloader_idx
from .errors import CheckpointError, ConfigurationError, DataError, warn
from .loaders.datamodule import LightningDataModule
from .loggers.logbook import Logbook
from .loggers.loggers import Logger
from .loggers.publisher import Publisher
from .module import LightningModule
from .optimization import Optimization
from .optimizers.precision import LossScaler
from .progress import Progress, TrainerStatus
from .receivers import Receivers
from .saving import resume
from .saving.file import read
from .saving.hparams import logged_hparams
from .trainer.options import Options
from .types import Trainer

__all__ = ["Run"]

# What each function runs on, and the step that it needs.
_NEEDS = {
    "fit": ("train", "training_step"),
    "validate": ("val", "validation_step"),
    "test": ("test", "test_step"),
    "predict": ("predict", "predict_step"),
}

EvalBatches = Iterator[tuple[int, Iterator[tuple[int, Any]], tuple[int, ...]]]


class Run:
    """The parts of a run, each of which owns its state; `attach` makes them anew for the next one.

    - `receivers`: who takes part; `hooks`: what the loops call
    - `progress`: epoch, batch, step; what is due; when to stop (it goes on from run to run)
    - `optimization`: optimizers, their turns, schedules, gradients (of the last fit)
    - `data`: loaders by stage, where they are, what they drew
    - `logbook`: what `self.log` has recorded
    - `devices`: the device, and which process this is
    """

    module: LightningModule

    def __init__(self, options: Options, devices: Devices, receivers: Receivers) -> None:
        self.options, self.devices, self.receivers = options, devices, receivers
        self.progress, self.hooks = Progress(options), self.receivers.hooks
        self.module = None  # type: ignore[assignment]  # given by the first run
        self.datamodule: LightningDataModule | None = None
        self.trainer: Any = None  # handed on to callbacks
        self.return_predictions = True
        self._make_parts("", {}, [])

    def _make_parts(self, function: str, loaders: dict[str, Any], loggers: Sequence[Logger]) -> None:
        self.resuming = False  # until the batch at hand is one that the run before has not done
        self.checkpoint: Any = None  # what is to be restored
        self.ckpt_path: Any = None
        publisher = Publisher(loggers, self.progress) if loggers and self.devices.global_rank == 0 else None
        several = self.devices if self.devices.world_size > 1 else None
        self.logbook = Logbook(self.module, self.progress, publisher, several)
        self.data = Data(function, loaders, self.hooks, self.options, self.progress, self.devices.share)
        if function in ("fit", ""):
            scaler = LossScaler(self.devices.device) if self.options.precision == 16 else None
            self.optimization = Optimization(self.module, self.hooks, self.options, scaler, self.known)

    # ---- what the loops ask for ------------------------------------------------------------------------------

    @property
    def sanity_check_batches(self) -> int | None:
        """How many batches of each loader the sanity check takes: 0 for no check, None for all. A run that goes on
        from a checkpoint has been checked."""
        steps = self.options.num_sanity_val_steps
        if self.resuming or not self.data.validates:
            return 0
        return None if steps == -1 else steps

    def known(self) -> dict[str, Any]:
        """Every logged value: what decides for all processes is what process 0 has logged."""
        return self.devices.of_zero(self.logbook.metrics("callback"))  # type: ignore[no-any-return]

    def open(self, stage: str) -> None:
        """A pass begins: "train", "sanity_check", "validate", "test" or "predict"."""
        self.progress.open(stage)
        self.logbook.open()

    def close(self) -> list[dict[str, float]]:
        """The pass is over; returns its epoch values, one dict per loader."""
        return self.logbook.close(forget=self.progress.close() == "sanity_check")

    def finish(self) -> None:
        """All loops have run; only teardown follows."""
        self.progress.end(TrainerStatus.FINISHED)

    def epochs(self) -> Iterator[int]:
        """The numbers of the epochs to train. When one is over, to the last hook, nothing of it is kept."""
        self.data.restore_random_state()
        for epoch in self.progress.epochs():
            yield epoch
            self.optimization.end_epoch()
            self.data.end_epoch()
            self.progress.end_epoch()
            self.progress.do_due()

    def train_dataloader(self) -> Iterator[tuple[int, Any]]:
        """One epoch's numbered training batches; where a run goes on in mid-epoch, those that are not done."""
        batches = self.data.train_batches()
        if self.resuming and self.data.rejoins:
            self.logbook.rejoin()
            self.optimization.rejoin(self.progress.batches_done)
        self.resuming = False
        loader = self.data.train_loader()
        self.devices.same("batches in a training epoch", loader.num_batches)
        return self.progress.batches(batches, self.optimization.window, loader.promised, loader.check_every)

    def val_dataloader(self, at_most: int | None = None) -> EvalBatches:
        """The validation batches, `at_most` so many of each loader."""
        return self._eval_batches("val", "validation_step", at_most)

    def test_dataloader(self) -> EvalBatches:
        """The test batches."""
        return self._eval_batches("test", "test_step")

    def predict_dataloader(self) -> EvalBatches:
        """The batches to predict."""
        return self._eval_batches("predict", "predict_step")

    def _eval_batches(self, stage: str, step: str, at_most: int | None = None) -> EvalBatches:
        """For each loader: its index, its numbered batches, and what the step is given after batch_idx."""
        loaders = self.data.eval_loaders(stage)
        takes, requires = takes_dataloader_idx(self.module, step)
        if loaders.several and not takes:
            raise DataError(f"{step} has no argument dataloader_idx, but there are {len(loaders.loaders)} loaders")
        for index, batches in loaders.batches(at_most):
            self.logbook.enter_loader(index, loaders.several)
            yield index, self.progress.numbered(batches), (index,) if loaders.several or requires else ()

    # ---- checkpoints -----------------------------------------------------------------------------------------

    def parts(self) -> dict[str, resume.Part]:
        """Those with a state that a checkpoint keeps."""
        return {name: getattr(self, name) for name in ("progress", "optimization", "data", "logbook")}

    def collected(self, weights_only: bool = False) -> dict[str, Any]:
        """Everything that the run needs to go on, or with `weights_only` the module alone; then the data module's and
        the module's `on_save_checkpoint` add to it. ("on_save_checkpoint")"""
        if self.optimization.module not in (None, self.module):  # of another one's fit
            weights_only = True
        if not weights_only and self.progress.broke_off and self.progress.batches_done % self.optimization.window:
            warn("this checkpoint is of a run that ended in the midst of a batch, of which the gradients that were "
                 "accumulated may hold a part: a run that goes on from it counts that part twice")  # fmt: skip
        checkpoint = resume.collected(self.module, self.datamodule, self.parts(), weights_only)
        if not weights_only:
            checkpoint = self.devices.gathered(checkpoint)
            checkpoint["callbacks"] = resume.callback_states(self.receivers.callbacks, self.trainer, checkpoint)
        for owner in (self.datamodule, self.module):
            if hook := getattr(owner, "on_save_checkpoint", None):
                hook(checkpoint)
        return checkpoint

    def _read_checkpoint(self, function: str, path: Any, weights_only: bool) -> None:
        """What the run is to begin with, if it was given a checkpoint."""
        if path is None:
            return
        self.ckpt_path, self.checkpoint = path, read(path, weights_only=weights_only)
        if function == "fit":
            of = self.devices.global_rank, self.devices.world_size
            self.checkpoint = resume.of_process(path, self.checkpoint, *of)
            self.resuming = resume.is_resumable(path, self.checkpoint, self.module)
        if self.resuming:
            self._before = self.progress.state_dict()
            resume.restore_parts(path, self.checkpoint, {"progress": self.progress})

    def restore_module(self) -> None:
        """The data module and the module take what the checkpoint holds of them, and in a fit the callbacks."""
        if self.checkpoint is not None:
            resume.restore_module(self.ckpt_path, self.checkpoint, self.module, self.datamodule)
        if self.resuming:
            resume.restore_callbacks(self.ckpt_path, self.checkpoint, self.receivers.callbacks, self.trainer)

    def restore_training(self) -> None:
        """The other parts take what it holds of them."""
        if self.resuming:
            resume.check_fits(self.ckpt_path, self.checkpoint, self.module, self.optimization)
            parts = {name: part for name, part in self.parts().items() if name != "progress"}
            resume.restore_parts(self.ckpt_path, self.checkpoint, parts)
        self.checkpoint = None
        self.devices.wrap(self.module, self.optimization)

    # ---- begin and end ---------------------------------------------------------------------------------------

    def enter(
        self, trainer: Trainer, function: str, loop: Callable[[Run], Any], model: LightningModule | None,
        loaders: dict[str, Any], datamodule: LightningDataModule | None, ckpt_path: Any, weights_only: bool,
        return_predictions: bool
    ) -> Any:  # fmt: skip
        """Attach everything, run the loop, and close what it opened, whatever happens."""
        model = _module_of(function, model if model is not None else self.module)
        outer, self.return_predictions = model.trainer, return_predictions
        try:
            self.attach(trainer, function, model, loaders, datamodule)
            self._read_checkpoint(function, ckpt_path, weights_only)
            if function == "fit":
                self._warn_of_nothing_to_do()
                if self.logbook.publisher:
                    self.logbook.publisher.hyperparams(logged_hparams(self.datamodule, model))
            return self._enter(function, loop)
        finally:
            self.checkpoint = None
            if outer is not None and outer.state.status == "running":
                model.trainer = outer  # which called this run from one of its hooks

    def _enter(self, function: str, loop: Callable[[Run], Any]) -> Any:
        """Run the loop; an exception or Ctrl-C closes what it opened."""
        try:
            self.progress.start(function)
            with torch.autograd.set_detect_anomaly(self.options.detect_anomaly):
                return loop(self)
        except KeyboardInterrupt as interrupt:
            self._close_after(interrupt, TrainerStatus.INTERRUPTED)
            warn(f"{function} was interrupted; it ends here")
            return None
        except BaseException as exception:
            self._close_after(exception, TrainerStatus.FAILED)
            raise
        finally:
            if self.logbook.publisher:
                self.logbook.publisher.finalize(self.progress.state.status)

    def _close_after(self, exception: BaseException, status: TrainerStatus) -> None:
        """Modes as after a run, then `on_exception` and `teardown`. What they raise themselves is
        shown as a warning, so that the first exception is the one that surfaces."""
        state, hooks = self.progress.state, self.hooks
        closing = [(self.module.train, True), (hooks.on_exception, exception)]
        if state.status == "running":
            closing.append((hooks.teardown, str(state.fn)))
        self.progress.end(status)
        if self.resuming and isinstance(exception, CheckpointError):  # it is refused
            self.progress.load_state_dict(self._before)
        self.optimization.abandon()
        self.logbook.abandon()
        with parallel(self.devices):
            for hook, argument in closing:
                try:
                    if hook:
                        hook(argument)
                except Exception as another:
                    warn(f"while closing after {exception!r}: {another!r}")

    # ---- what a run is given, checked before anything happens ------------------------------------------------

    def attach(
        self, trainer: Trainer, function: str, model: LightningModule, loaders: dict[str, Any],
        datamodule: LightningDataModule | None
    ) -> None:  # fmt: skip
        """Make the parts for what this run is about, and forget what the last one was."""
        datamodule = _datamodule_of(function, model, loaders, datamodule)
        self.trainer, self.module, self.datamodule = trainer, model, datamodule
        self.progress.begin()
        model.trainer = trainer
        if datamodule is not None:
            datamodule.trainer = trainer
        adapt = partial(self.devices.adapt, module=model, progress=self.progress)
        self.hooks = self.receivers.resolve(trainer, model, datamodule, adapt)
        self._make_parts(function, loaders, trainer.loggers)
        self._check_defined(function)

    def _check_defined(self, function: str) -> None:
        stage, step = _NEEDS[function]
        required = [step, "configure_optimizers"] if function == "fit" else [step]
        name = type(self.module).__name__
        for hook in required:
            if getattr(self.hooks, hook) is None:
                raise ConfigurationError(f"{function} needs {name}.{hook}, which is not defined")
        if self.data.given.get(stage) is None and getattr(self.hooks, f"{stage}_dataloader") is None:
            raise ConfigurationError(
                f"{function} needs batches: pass a loader or a datamodule, or define {name}.{stage}_dataloader"
            )

    def _warn_of_nothing_to_do(self) -> None:
        """A fit that will not train, or not validate although half of what that takes is there."""
        options, progress = self.options, self.progress
        if progress.is_over():
            warn(
                f"fit will train nothing: current_epoch={progress.current_epoch} of max_epochs={options.max_epochs}, "
                f"global_step={progress.global_step} of max_steps={options.max_steps}, "
                f"limit_train_batches={options.limit_train_batches}"
            )
        name, step = type(self.module).__name__, self.hooks.validation_step is not None
        if options.limit_val_batches != 0 and step != self.data.has("val"):
            there, missing = ("validation_step", "loader") if step else ("loader", "validation_step")
            given = self.data.given.get("val")
            is_empty = f": val_dataloaders={given!r} is empty" if given is not None and step else ""
            warn(f"fit will not validate: {name} has a {there}, but no {missing}{is_empty}")


def _module_of(function: str, model: Any) -> LightningModule:
    """The module to run: the one given, or that of the last run."""
    if isinstance(model, LightningModule):
        return model
    given = f"the class {model.__name__}; pass an instance" if isinstance(model, type) else type(model).__name__
    raise TypeError(f"{function} needs a LightningModule, not {given}")


def _datamodule_of(
    function: str, model: LightningModule, loaders: dict[str, Any], datamodule: LightningDataModule | None
) -> LightningDataModule | None:
    """The data module, also where it was given in the place of loaders, from which it is taken out; where neither
    was given, the one that was set on the module."""
    if datamodule is None and all(given is None for given in loaders.values()):
        datamodule = model._datamodule
    for stage, given in loaders.items():
        if isinstance(given, LightningDataModule):  # trainer.predict(model, data_module)
            loaders[stage], datamodule = None, given
    if datamodule is not None and not isinstance(datamodule, LightningDataModule):
        given = f"the class {datamodule.__name__}" if isinstance(datamodule, type) else type(datamodule).__name__
        raise TypeError(f"datamodule={given}; an instance of LightningDataModule is accepted")
    if datamodule is not None and any(given is not None for given in loaders.values()):
        raise ConfigurationError(f"{function} was given loaders and a datamodule; give one of them")
    return datamodule
