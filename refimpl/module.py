"""LightningModule: what the user writes. Steps, optimizers, logging, and the defaults of the hooks."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import IO, Any, Self

import torch
from torch import Tensor, nn

from .callback import Callback
from .errors import ConfigurationError, LogError
from .hooks import ModelHooks
from .loggers.rules import deprecated, ignore, items_of
from .manual import LightningOptimizer, manual_backward, one_or_all
from .optimization import check_loss
from .properties import Properties
from .saving.checkpoint import load_from_checkpoint
from .saving.export import File, to_onnx, to_torchscript
from .saving.hparams import HyperparametersMixin
from .tbptt import split_batch
from .types import Trainer

__all__ = ["LightningModule"]


class LightningModule(ModelHooks, HyperparametersMixin, Properties):
    """An `nn.Module` that says how it is trained. Required for `fit`: `training_step` and
    `configure_optimizers`; for `validate`, `test`: the step of that name.

    A step or hook that is not overridden, or set to None on the instance, counts as not defined.
    """

    #: False: `training_step` does the optimization itself, with `optimizers()` and `manual_backward`.
    automatic_optimization = True
    #: How many steps of time a piece of a batch has; 0 for whole batches. ("truncated_bptt_steps")
    truncated_bptt_steps = 0
    _toggled: Mapping[Tensor, bool] = {}

    def __getstate__(self) -> dict[str, Any]:
        """A copy or a pickle of the module leaves the trainer, and all that hangs on it, behind."""
        return {name: value for name, value in self.__dict__.items() if name != "trainer"}

    # ---- what the user defines -------------------------------------------------------------------

    def training_step(self, *args: Any, **kwargs: Any) -> Tensor | Mapping[str, Any] | None:
        """The loss of one batch: a scalar tensor, or a mapping with the key "loss", or None to go on
        with the next batch without a zero_grad, a backward or a change of the parameters.

        Called as `training_step(batch, batch_idx)`; with several optimizers once for each of them, as
        `training_step(batch, batch_idx, optimizer_idx)`. With `truncated_bptt_steps`, once for each piece
        of the batch, with a last argument `hiddens`: None for the first piece, then what the step before
        (of this optimizer) returned under "hiddens", detached.
        With manual optimization it may return anything.
        """
        raise NotImplementedError

    def tbptt_split_batch(self, batch: Any, split_size: int) -> list[Any]:
        """The pieces of a batch for `truncated_bptt_steps`: cut along dimension 1. ("tbptt_split_batch")"""
        return split_batch(batch, split_size)

    def training_step_end(self, output: Any) -> Any:
        """Receives what `training_step` returned; its own return value takes the place of that."""
        return output

    def training_epoch_end(self, outputs: list[Any]) -> None:
        """Receives what the epoch's steps returned, detached, in order, without the Nones. Runs only if
        overridden, and only then are the outputs kept."""

    def validation_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> Any:
        """One validation batch, in eval mode and without gradients. `dataloader_idx` is given with
        several loaders only. Returns anything; None goes on with the next batch."""
        raise NotImplementedError

    def validation_step_end(self, output: Any) -> Any:
        """Receives what `validation_step` returned; its return value takes the place of that."""
        return output

    def validation_epoch_end(self, outputs: list[Any]) -> None:
        """Receives what the steps returned: a list, or a list of one list per loader where there are
        several. Runs only if overridden."""

    def test_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> Any:
        """One test batch; as `validation_step`."""
        raise NotImplementedError

    def test_step_end(self, output: Any) -> Any:
        """As `validation_step_end`."""
        return output

    def test_epoch_end(self, outputs: list[Any]) -> None:
        """As `validation_epoch_end`."""

    def predict_step(self, batch: Any, batch_idx: int, dataloader_idx: int | None = None) -> Any:
        """The prediction for one batch; by default `self(batch)`."""
        return self(batch)

    def configure_optimizers(self) -> Any:
        """The optimizer, and how its learning rate is scheduled.

        Returns an optimizer; a list or tuple of optimizers; two lists (optimizers, schedulers); a dict with
        "optimizer" and, optionally, "lr_scheduler" (a scheduler or an `lr_dict`); a list or tuple of such
        dicts, each optionally with "frequency"; or None.

        Several optimizers each train on every batch, in their order. Where one has a frequency, each trains
        on so many consecutive batches (1 for those without), while the others rest.
        """
        raise NotImplementedError

    def configure_callbacks(self) -> list[Callback]:
        """Callbacks that belong to this model; each replaces those of its type given to the trainer."""
        return []

    # ---- defaults of the optimization hooks ------------------------------------------------------

    def optimizer_zero_grad(
        self, epoch: int, batch_idx: int, optimizer: torch.optim.Optimizer, optimizer_idx: int
    ) -> None:
        """Clears the gradients: `optimizer.zero_grad()`."""
        optimizer.zero_grad()

    def backward(
        self,
        loss: Tensor,
        optimizer: torch.optim.Optimizer | None = None,
        optimizer_idx: int | None = None,
        *args: Any,
        **kwargs: Any,
    ) -> None:
        """Computes the gradients: `loss.backward(*args, **kwargs)`, of which the loops give none.

        Raises ConfigurationError for a loss that has no gradient.
        """
        try:
            loss.backward(*args, **kwargs)  # type: ignore[no-untyped-call]
        except RuntimeError:
            check_loss(loss)  # says more of the two usual mistakes than torch does
            raise

    def optimizer_step(
        self,
        epoch: int | None = None,
        batch_idx: int | None = None,
        optimizer: torch.optim.Optimizer | None = None,
        optimizer_idx: int | None = None,
        optimizer_closure: Callable[[], Tensor | None] | None = None,
        on_tpu: bool | None = None,
        using_native_amp: bool | None = None,
        using_lbfgs: bool | None = None,
    ) -> None:
        """Updates the parameters: `optimizer.step(closure=optimizer_closure)`.

        The closure runs `training_step`, `optimizer_zero_grad` and `backward`; without calling it, this
        batch is not trained on. The loops give every argument; an override that calls this default has to
        give `optimizer` and `optimizer_closure`.
        """
        assert optimizer is not None
        optimizer.step(closure=optimizer_closure)  # type: ignore[arg-type]

    # ---- manual optimization ---------------------------------------------------------------------

    def optimizers(self, use_pl_optimizer: bool = True) -> Any:
        """The optimizer, or the list of several, or None. ("automatic_optimization")

        Their `step` calls `on_before_optimizer_step` and respects the precision; with
        `use_pl_optimizer=False` they are those of `configure_optimizers` as they are.
        """
        trainer = self._running_trainer("optimizers()")
        plain = trainer.optimizers
        return one_or_all([LightningOptimizer(trainer, i) for i in range(len(plain))] if use_pl_optimizer else plain)

    def lr_schedulers(self) -> Any:
        """The scheduler, or the list of several, or None; with manual optimization their `step` is yours
        to call."""
        return one_or_all([schedule.scheduler for schedule in self._running_trainer("lr_schedulers()").schedules])

    def manual_backward(self, loss: Tensor, *args: Any, **kwargs: Any) -> None:
        """In `training_step` with manual optimization: the gradients of `loss`, a scalar, with everything
        that the loops do around `backward`, which gets the other arguments. ("manual_backward")

        Raises ConfigurationError with automatic optimization, which does this by itself.
        """
        if self.automatic_optimization:
            raise ConfigurationError("manual_backward needs automatic_optimization = False in the module's __init__")
        manual_backward(self._running_trainer("manual_backward()"), loss, *args, **kwargs)

    def _running_trainer(self, what: str) -> Trainer:
        if self.trainer is None:
            raise RuntimeError(f"{what} needs a trainer that runs this module")
        return self.trainer

    def toggle_optimizer(self, optimizer: torch.optim.Optimizer, optimizer_idx: int) -> None:
        """Until `untoggle_optimizer`, only the parameters of `optimizer` require gradients. With several
        optimizers, the loops do this around each one's block. ("configure_optimizers", things to know)"""
        optimizers = self.trainer.optimizers if self.trainer else [optimizer]
        self._toggled = {
            parameter: parameter.requires_grad
            for other in optimizers
            for group in other.param_groups
            for parameter in group["params"]
        }
        own = {parameter for group in optimizer.param_groups for parameter in group["params"]}
        for parameter in self._toggled.keys() - own:
            parameter.requires_grad = False

    def untoggle_optimizer(self, optimizer_idx: int) -> None:
        """Every parameter requires a gradient or not as before `toggle_optimizer`."""
        for parameter, required in self._toggled.items():
            parameter.requires_grad = required
        self._toggled = {}

    # ---- what the module says while a trainer runs it --------------------------------------------------

    def log(
        self,
        name: str,
        value: Any,
        prog_bar: bool = False,
        logger: bool = True,
        on_step: bool | None = None,
        on_epoch: bool | None = None,
        reduce_fx: str | Callable[[Tensor], Any] = "default",
        tbptt_reduce_fx: Any = None,
        tbptt_pad_token: Any = None,
        enable_graph: bool = False,
        sync_dist: bool = False,
        sync_dist_op: Any = None,
        sync_dist_group: Any = None,
        add_dataloader_idx: bool = True,
        batch_size: int | None = None,
        metric_attribute: str | None = None,
        rank_zero_only: bool | None = None,
    ) -> None:
        """Record `value` under `name`: a number, a tensor of one element, a `torchmetrics.Metric`, or a
        mapping of those, whose items are recorded as `name/key`.

        `on_step` keeps the latest value, `on_epoch` what `reduce_fx` makes of the epoch's; with both, the
        two appear as `name_step` and `name_epoch`. Left None, the running hook decides: training steps log
        per step, everything else per epoch. A metric's step value is what its `forward` returned, its epoch's
        what it computes when the pass ends; then it is reset.

        Args:
            prog_bar, logger: whether the progress bar and the loggers show it.
            reduce_fx: "mean" (the default), "min", "max", "sum", torch's functions of these names, or a
                callable, which is given the epoch's values, stacked to a tensor of shape (values,). The mean
                is weighted by batch size.
            enable_graph: keep the value's graph, rather than detach it.
            sync_dist, sync_dist_group: reduce the value over the processes (of the group).
            add_dataloader_idx: with several loaders, append `/dataloader_idx_N` to the name.
            batch_size: of the current batch; by default the first dimension of its first tensor.
            metric_attribute: where a metric is in the module, "a.b"; by default it is searched for.
            rank_zero_only: only the process of rank 0 calls this: nothing is synchronised.
            tbptt_reduce_fx, tbptt_pad_token, sync_dist_op: deprecated, without effect.

        Raises LogError in a hook that may not log, for a value that is no scalar, and for a name
        logged twice in one hook with different settings. Where no trainer runs the module (its methods
        called by hand), nothing is recorded, with a warning. ("log")
        """
        if self.trainer is None:
            return ignore(name)
        if tbptt_reduce_fx is not None or tbptt_pad_token is not None or sync_dist_op is not None:
            deprecated(
                tbptt_reduce_fx=tbptt_reduce_fx, tbptt_pad_token=tbptt_pad_token, sync_dist_op=sync_dist_op
            )
        settings = (
            prog_bar, logger, on_step, on_epoch, reduce_fx, enable_graph, sync_dist, sync_dist_group,
            add_dataloader_idx, metric_attribute, rank_zero_only,
        )  # fmt: skip
        self.trainer.logbook.log(self, name, value, batch_size, settings)
        return None

    def log_dict(
        self,
        dictionary: Mapping[str, Any],
        prog_bar: bool = False,
        logger: bool = True,
        on_step: bool | None = None,
        on_epoch: bool | None = None,
        reduce_fx: str | Callable[[Tensor], Any] = "default",
        tbptt_reduce_fx: Any = None,
        tbptt_pad_token: Any = None,
        enable_graph: bool = False,
        sync_dist: bool = False,
        sync_dist_op: Any = None,
        sync_dist_group: Any = None,
        add_dataloader_idx: bool = True,
        batch_size: int | None = None,
        rank_zero_only: bool | None = None,
    ) -> None:
        """`log` each item of a mapping of names to values, or of a `torchmetrics.MetricCollection`, with the
        same settings. ("log_dict")

        Raises LogError as `log` does, and for anything else than a mapping.
        """
        items = items_of(dictionary)
        if items is None:
            raise LogError(f"log_dict: {type(dictionary).__name__} {dictionary!r}; a mapping of names is accepted")
        for name, value in items.items():
            self.log(
                name, value, prog_bar, logger, on_step, on_epoch, reduce_fx, tbptt_reduce_fx, tbptt_pad_token,
                enable_graph, sync_dist, sync_dist_op, sync_dist_group, add_dataloader_idx, batch_size, None,
                rank_zero_only,
            )  # fmt: skip

    def get_progress_bar_dict(self) -> dict[str, int | str]:
        """What the progress bar shows beside the values logged with `prog_bar`; override it to change that.

        By default "loss", the mean of the last 20 training losses; with `truncated_bptt_steps` "split_idx", the
        number of the batch's piece; and "v_num", the version of the logger's experiment, if there is one.
        ("get_progress_bar_dict")
        """
        items: dict[str, int | str] = {}
        bar = self.trainer.progress_bar_callback if self.trainer else None
        if bar is not None and bar.running_loss is not None:
            items["loss"] = f"{bar.running_loss:.3g}"
        if self.truncated_bptt_steps and self.trainer is not None:
            items["split_idx"] = self.trainer.split_idx
        if self.logger is not None and self.logger.version is not None:
            items["v_num"] = self.logger.version
        return items

    def print(self, *args: Any, **kwargs: Any) -> None:
        """Python's `print`, in the process of global rank 0 only and above a running progress bar."""
        if self.trainer is None:
            print(*args, **kwargs)
        elif self.trainer.global_rank == 0:
            self.trainer.print(*args, **kwargs)

    # ---- inference and export ----------------------------------------------------------------------

    def to_torchscript(
        self,
        file_path: File | None = None,
        method: str | None = "script",
        example_inputs: Any = None,
        **kwargs: Any,
    ) -> torch.jit.ScriptModule | dict[str, torch.jit.ScriptModule]:
        """`forward` as TorchScript, in eval mode; saved to `file_path` (a path or a binary file), if there is one.

        Args:
            method: "script" compiles the source of `forward`, "trace" what it does with `example_inputs`.
            example_inputs: see `example_input_array`, which is the default.
            kwargs: passed on to `torch.jit.script` or `torch.jit.trace`.

        The script shares the module's parameters. Override it to export something else; several modules are best
        returned as a dict. Warns, once, where torch deprecates TorchScript. Raises ConfigurationError for another
        method and without an input to trace; RuntimeError where torch cannot compile `forward`, or has no
        TorchScript any more. ("to_torchscript")
        """
        return to_torchscript(self, file_path, method, example_inputs, **kwargs)

    def to_onnx(self, file_path: str | os.PathLike[str], input_sample: Any = None, **kwargs: Any) -> None:
        """`forward`, in eval mode, as a file of ONNX, for inputs of the sample's shapes.

        Args:
            input_sample: what `forward` is given; see `example_input_array`, which is the default.
            kwargs: passed on to `torch.onnx.export`, such as `dynamic_shapes`.

        Raises ConfigurationError without a sample; TypeError for an argument that this torch does not have, with
        those it has; ModuleNotFoundError without onnxscript. ("to_onnx")
        """
        to_onnx(self, file_path, input_sample, **kwargs)
    def add_to_queue(self, queue: Any) -> None:
        """Put `trainer.callback_metrics` into a queue of any kind, as NumPy arrays, which share no memory with the
        tensors. ("add_to_queue")"""
        queue.put(self._running_trainer("add_to_queue()").logbook.as_arrays())

    def get_from_queue(self, queue: Any) -> None:
        """Take what `add_to_queue` put into a queue, as tensors, into `trainer.callback_metrics`.
        ("get_from_queue")"""
        self._running_trainer("get_from_queue()").logbook.take_arrays(queue.get())

    @classmethod
    def load_from_checkpoint(
        cls,
        checkpoint_path: str | os.PathLike[str] | IO[bytes],
        map_location: Any = None,
        hparams_file: str | os.PathLike[str] | None = None,
        strict: bool = True,
        weights_only: bool = True,
        **overrides: Any,
    ) -> Self:
        """The module that a checkpoint holds: made anew with its hyperparameters, then given its weights.

        Args:
            checkpoint_path: a file, or an open binary one.
            map_location: where the weights go: a device, or what `torch.load` takes; by default the CPU.
            hparams_file: a file of YAML, such as a logger's `hparams.yaml`, whose values take the place of those saved.
            strict: whether weights that are missing, or more than the module has, are an error, and not a warning.
            weights_only: load data only; False runs whatever code is pickled in the file: for files you trust.
            overrides: arguments of `__init__` that take the place of those that were saved, or were not; what it does
                not take is left out, with a warning.

        Checkpoints of pytorch-lightning load, too. Raises CheckpointError for a file that is none, or does not fit;
        ConfigurationError for arguments that are missing. ("Test loop"; "save_hyperparameters")
        """
        given = map_location or "cpu", hparams_file, strict, weights_only, overrides
        return load_from_checkpoint(cls, checkpoint_path, *given)

    def freeze(self) -> None:
        """Eval mode, and no parameter requires a gradient."""
        self.requires_grad_(False)
        self.eval()

    def unfreeze(self) -> None:
        """Train mode, and every parameter requires a gradient."""
        self.requires_grad_(True)
        self.train()


# TorchScript compiles `forward` and what it calls: no property, and nothing of what the engine keeps in the module.
_CLASSES = [owner for owner in LightningModule.__mro__ if owner not in nn.Module.__mro__]
LightningModule.__jit_unused_properties__ = [  # type: ignore[attr-defined]
    name for owner in _CLASSES for name, value in vars(owner).items() if isinstance(value, property)
]
LightningModule.__jit_ignored_attributes__ = [  # type: ignore[attr-defined]
    name for owner in _CLASSES for name in vars(owner).get("__annotations__", ())
]
