"""What users read on a trainer, in a hook and after a run: views of what the parts of its run hold."""

from __future__ import annotations

import math
from collections.abc import Callable
from operator import attrgetter
from typing import Any

import torch
from torch.optim import Optimizer

from ..callback import Callback
from ..callbacks.early_stopping import EarlyStopping
from ..callbacks.model_checkpoint import ModelCheckpoint
from ..callbacks.progress_bar import ProgressBarBase
from ..loaders.datamodule import LightningDataModule
from ..loggers.loggers import Logger, loggers_of
from ..module import LightningModule
from ..progress import TrainerState
from ..run import Run
from .options import Options

__all__ = ["TrainerView"]

def _shown(path: str, doc: str, take: Callable[[Any, Any], Any] | None = None) -> Any:
    """A view of what lies at `path` from the trainer on; `take` is given the trainer and what is set."""
    return property(attrgetter(path), take, doc=doc)


def _logged(kind: str, doc: str) -> Any:
    return property(lambda trainer: trainer.run.logbook.metrics(kind), doc=doc)


def _of_kind(kind: type[Callback], doc: str) -> Any:
    return property(lambda trainer: [each for each in trainer.callbacks if isinstance(each, kind)], doc=doc)


def _first(kind: type[Callback], doc: str) -> Any:
    return property(lambda trainer: next((each for each in trainer.callbacks if isinstance(each, kind)), None), doc=doc)


def _option(name: str) -> Any:
    return _shown(f"options.{name}", f"The option {name}.", lambda self, value: setattr(self.options, name, value))


class TrainerView(Options):
    """What can be read off a trainer, and the few things that can be set. Nothing here has a state of its own: `run`
    holds the parts, `options` what the constructor was given; an option that is set is checked as there."""

    run: Run
    options: Options
    loggers: list[Logger]

    def __init__(self) -> None:  # not that of Options, of which only the names are shared
        pass

    def __setattr__(self, name: str, value: Any) -> None:
        object.__setattr__(self, name, value)

    # ---- one process, on one device --------------------------------------------------------------

    device: torch.device = _shown("run.devices.device", "The device of the module and its batches.")
    global_rank: int = _shown("run.devices.global_rank", "The index of this process among all.")
    local_rank: int = _shown("run.devices.local_rank", "The index of this process among those of its machine.")
    node_rank: int = _shown("run.devices.node_rank", "The index of this machine.")
    world_size: int = _shown("run.devices.world_size", "The number of processes.")
    num_nodes: int = _shown("run.devices.num_nodes", "The number of machines.")
    num_processes: int = _shown("run.devices.num_processes", "The number of processes on this machine.")
    num_devices: int = _shown("run.devices.num_devices", "The number of devices of this process.")
    is_global_zero = property(lambda self: self.global_rank == 0, doc="Whether this is the process that writes.")
    num_gpus = property(lambda self: self.num_devices * (self.device.type == "cuda"), doc="GPUs of this process.")

    # ---- what runs -------------------------------------------------------------------------------

    state: TrainerState = _shown("run.progress.state", "What the trainer is doing.")
    stage = property(lambda self: self.state.stage, doc="The pass that runs; None between passes.")
    training = property(lambda self: self.state.stage == "train", doc="Whether a training batch or epoch runs.")
    sanity_checking = property(lambda self: self.state.stage == "sanity_check", doc="Whether the sanity check runs.")
    validating = property(lambda self: self.state.stage == "validate", doc="Whether a validation runs.")
    testing = property(lambda self: self.state.stage == "test", doc="Whether a test runs.")
    predicting = property(lambda self: self.state.stage == "predict", doc="Whether a prediction runs.")

    module: LightningModule = _shown("run.module", "The module of this run, or the last one; None before the first.")
    model = lightning_module = module
    datamodule: LightningDataModule | None = _shown("run.datamodule", "The data module of this run, or the last one.")
    enable_validation: bool = _shown("run.data.validates", "Whether this is a fit that validates.")
    ckpt_path: Any = _shown("run.ckpt_path", "The checkpoint that this run, or the last one, began with.")
    interrupted: bool = _shown("run.progress.interrupted", "Whether Ctrl-C ended the last run.")
    use_amp = property(lambda self: self.precision in (16, "bf16"), doc="Whether the steps run under autocast.")

    # ---- where it is -----------------------------------------------------------------------------

    global_step: int = _shown("run.progress.global_step", "The step that runs, from 0: an update of the parameters.")

    current_epoch: int = _shown(
        "run.progress.current_epoch", "The epoch that runs, from 0; after a fit how many are done. Setting it says "
        "where the next fit begins.", lambda self, epoch: self.run.progress.go_to(epoch)
    )  # fmt: skip
    should_stop: bool = _shown(
        "run.progress.should_stop", "Whether training ends after this batch, once the minima are met; set it in a "
        "hook.", lambda self, stop: self.run.progress.ask_to_stop(stop)
    )  # fmt: skip
    accumulate_grad_batches: Any = _shown(
        "run.progress.window", "How many batches make a window in the epoch that runs; a hook may set it, for the "
        "epochs that follow.", lambda self, batches: setattr(self.options, "accumulate_grad_batches", batches)
    )  # fmt: skip

    # ---- optimization ----------------------------------------------------------------------------

    optimizers: list[Optimizer] = _shown("run.optimization.optimizers", "Those of the last fit.")

    @property
    def lr_schedulers(self) -> list[dict[str, Any]]:
        """The `lr_dict` of each scheduler, complete, with the index of its optimizer as "opt_idx"."""
        keys = ("scheduler", "name", "interval", "frequency", "reduce_on_plateau", "monitor", "strict")
        return [
            {**{key: getattr(schedule, key) for key in keys}, "opt_idx": schedule.optimizer_idx}
            for schedule in self.run.optimization.schedules
        ]

    # ---- loaders and their batches ---------------------------------------------------------------

    train_dataloader = property(
        lambda self: self.run.data.train and self.run.data.train.loaders,
        doc="The training loader; None before it was asked for, which is when the first epoch begins.",
    )
    val_dataloaders = property(lambda self: self._loaders("val"), doc="The loaders; None before they were asked for.")
    test_dataloaders = property(lambda self: self._loaders("test"), doc="As `val_dataloaders`.")
    predict_dataloaders = property(lambda self: self._loaders("predict"), doc="As `val_dataloaders`.")

    def _loaders(self, stage: str) -> list[Any] | None:
        loaders = self.run.data.evaluated.get(stage)
        return None if loaders is None else list(loaders.loaders)

    @property
    def num_training_batches(self) -> int | float:
        """Batches in a training epoch; inf if unknown, 0 before the loader was asked for."""
        train = self.run.data.train
        return 0 if train is None else math.inf if train.num_batches is None else train.num_batches

    num_val_batches = property(lambda self: self._batches("val"), doc="Batches of each loader; inf if unknown.")
    num_test_batches = property(lambda self: self._batches("test"), doc="As `num_val_batches`.")
    num_predict_batches = property(lambda self: self._batches("predict"), doc="As `num_val_batches`.")

    def _batches(self, stage: str) -> list[int | float]:
        loaders, given = self.run.data.evaluated.get(stage), self.run.data.given.get(stage)
        if loaders:
            return [math.inf if count is None else count for count in loaders.num_batches]
        if given is None or getattr(self, f"limit_{stage}_batches") != 0:
            return []
        return [0] * (len(given) if isinstance(given, (list, tuple)) else 1)  # nobody is going to ask for them

    @property
    def num_sanity_val_batches(self) -> list[int | float]:
        """Batches of each validation loader in the sanity check."""
        most = math.inf if self.num_sanity_val_steps == -1 else self.num_sanity_val_steps
        return [min(most, batches) for batches in self._batches("val")]

    is_last_batch: bool = _shown("run.progress.is_last", "Whether the last training batch is its epoch's last.")

    # ---- what was logged, and who shows it -------------------------------------------------------

    callback_metrics: dict[str, torch.Tensor] = _logged("callback", "Every logged value by name, as scalar tensors.")
    logged_metrics: dict[str, float] = _logged("logged", "The values logged with `logger=True`.")
    progress_bar_metrics: dict[str, float] = _logged("progress_bar", "The values logged with `prog_bar=True`.")

    @property
    def logger(self) -> Logger | None:
        """The first of `loggers`; None without any. It can be set, for the runs that follow, to what
        `Trainer(logger=...)` takes."""
        return self.loggers[0] if self.loggers else None

    @logger.setter
    def logger(self, given: Any) -> None:
        self.loggers = loggers_of(given, self.default_root_dir, silent=self.fast_dev_run > 0)

    @property
    def log_dir(self) -> str:
        """The folder of the first logger, which need not exist yet; without one, `default_root_dir`."""
        return (self.logger and (self.logger.log_dir or self.logger.save_dir)) or self.default_root_dir

    # ---- callbacks, all and by their kind --------------------------------------------------------

    callbacks: list[Callback] = _shown(
        "run.receivers.callbacks", "Those that take part in this run, in their order; a list set here takes part from "
        "the next run on.", lambda self, callbacks: self.run.receivers.take(callbacks)
    )  # fmt: skip
    progress_bar_callback: ProgressBarBase | None = _first(ProgressBarBase, "The bar; None if it is switched off.")
    checkpoint_callbacks: list[ModelCheckpoint] = _of_kind(ModelCheckpoint, "Those that save checkpoints.")
    checkpoint_callback: ModelCheckpoint | None = _first(ModelCheckpoint, "The first of them; None without one.")
    early_stopping_callbacks: list[EarlyStopping] = _of_kind(EarlyStopping, "Every `EarlyStopping`.")
    early_stopping_callback: EarlyStopping | None = _first(EarlyStopping, "The first of them; None without one.")


for _name in Options.__annotations__:
    if _name not in vars(TrainerView):
        setattr(TrainerView, _name, _option(_name))
