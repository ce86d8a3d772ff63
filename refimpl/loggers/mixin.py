"""What a module says while a trainer runs it: `self.log`, what the progress bar shows, `self.print`."""

from __future__ import annotations

import builtins
from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor

from ..errors import LogError
from ..trainer.properties import Properties
from .rules import deprecated, ignore, items_of

__all__ = ["LoggingMixin"]


class LoggingMixin(Properties):
    """The methods of a `LightningModule` that record and show values."""

    def log(
        self, name: str, value: Any, prog_bar: bool = False, logger: bool = True, on_step: bool | None = None,
        on_epoch: bool | None = None, reduce_fx: str | Callable[[Tensor], Any] = "default", tbptt_reduce_fx: Any = None,
        tbptt_pad_token: Any = None, enable_graph: bool = False, sync_dist: bool = False, sync_dist_op: Any = None,
        sync_dist_group: Any = None, add_dataloader_idx: bool = True, batch_size: int | None = None,
        metric_attribute: str | None = None, rank_zero_only: bool | None = None
    ) -> None:  # fmt: skip
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
            deprecated(tbptt_reduce_fx=tbptt_reduce_fx, tbptt_pad_token=tbptt_pad_token, sync_dist_op=sync_dist_op)
        settings = (
            prog_bar, logger, on_step, on_epoch, reduce_fx, enable_graph, sync_dist, sync_dist_group,
            add_dataloader_idx, metric_attribute, rank_zero_only,
        )  # fmt: skip
        self.trainer.run.logbook.log(name, value, batch_size, settings)

    def log_dict(
        self, dictionary: Mapping[str, Any], prog_bar: bool = False, logger: bool = True, on_step: bool | None = None,
        on_epoch: bool | None = None, reduce_fx: str | Callable[[Tensor], Any] = "default", tbptt_reduce_fx: Any = None,
        tbptt_pad_token: Any = None, enable_graph: bool = False, sync_dist: bool = False, sync_dist_op: Any = None,
        sync_dist_group: Any = None, add_dataloader_idx: bool = True, batch_size: int | None = None,
        rank_zero_only: bool | None = None
    ) -> None:  # fmt: skip
        """`log` each item of a mapping of names to values, or of a `torchmetrics.MetricCollection`, with the
        same settings. ("log_dict")

        Raises LogError as `log` does, and for anything else than a mapping.
        """
        settings = {name: given for name, given in locals().items() if name not in ("self", "dictionary")}
        items = items_of(dictionary)
        if items is None:
            raise LogError(f"log_dict: {type(dictionary).__name__} {dictionary!r}; a mapping of names is accepted")
        for name, value in items.items():
            self.log(name, value, **settings)

    def get_progress_bar_dict(self) -> dict[str, int | str]:
        """What the progress bar shows beside the values logged with `prog_bar`; override it to change that.

        By default "loss", the mean of the last 20 training losses; with `truncated_bptt_steps` "split_idx", the
        number of the batch's piece; and "v_num", the version of the logger's experiment, if there is one.
        ("get_progress_bar_dict")
        """
        trainer = self.trainer
        bar = trainer and trainer.progress_bar_callback
        loss = bar and bar.running_loss
        items: dict[str, Any] = {
            "loss": None if loss is None else f"{loss:.3g}",
            "split_idx": trainer.run.optimization.split_idx if trainer and self.truncated_bptt_steps else None,
            "v_num": None if self.logger is None else self.logger.version,
        }
        return {name: value for name, value in items.items() if value is not None}

    def print(self, *args: Any, **kwargs: Any) -> None:
        """Python's `print`, in the process of global rank 0 only and above a running progress bar."""
        if self.global_rank == 0:
            (self.trainer or builtins).print(*args, **kwargs)

    def add_to_queue(self, queue: Any) -> None:
        """Put `trainer.callback_metrics` into a queue of any kind, as NumPy arrays, which share no memory with the
        tensors. ("add_to_queue")"""
        queue.put(self._running_trainer("add_to_queue()").run.logbook.as_arrays())

    def get_from_queue(self, queue: Any) -> None:
        """Take what `add_to_queue` put into a queue, as tensors, into `trainer.callback_metrics`.
        ("get_from_queue")"""
        self._running_trainer("get_from_queue()").run.logbook.take_arrays(queue.get())
