"""The adapter for real releases of pytorch-lightning, each in a world of its own."""

from __future__ import annotations

import functools
import logging
from typing import Any, Dict, Optional, Tuple

from ..experiment import Scenario
from ..hooks import CHECKPOINTS
from ..recorder import Recorder
from .lightning_api import LightningLikeAdapter, given_options
from .lightning_compat import import_lightning

__all__ = ["LightningAdapter"]


def unread_metrics(trainer: Any) -> Dict[str, Any]:
    """What was logged, without a trace of that having been asked: the trainer keeps what was read."""
    connector = getattr(trainer, "_logger_connector", None) or trainer.logger_connector
    kept = connector._callback_metrics
    connector._callback_metrics = dict(kept)
    try:
        return dict(trainer.callback_metrics)
    finally:
        connector._callback_metrics = kept


class LightningAdapter(LightningLikeAdapter):
    """pytorch-lightning 1.4.9, 1.5.10, 1.9.5 or 2.6.6, as a black box."""

    def __init__(self, version: str) -> None:
        super().__init__(import_lightning(version))
        self.name, self.version = "lightning", self.api.__version__
        self.again = functools.partial(LightningAdapter, version)
        # 1.x splits batches over GPUs only, 2.6.6 not at all. To log one name of several loaders is an error, and so is
        # a reduce_fx that is no name. A mapping stays one value, which 2.6.6 refuses. float16 is for GPUs.
        self.lacks += ("data-parallel", "loaders-together", "callable-reductions", "logged-mappings", "fp16")
        if not self.version.startswith("1."):
            # Automatic optimization knows one optimizer, and whole batches. How loaders are combined is said
            # where they are made, not by the trainer's multiple_trainloader_mode.
            self.lacks += ("several-optimizers", "truncated-bptt", "multiple-trainloader-mode")
            self.lacks += ("accumulation-by-epoch",)  # which is a callback's affair
        if self.version.startswith("1.9."):  # which refuses a data module that overrides them
            self.data_hooks = tuple(hook for hook in self.data_hooks if hook not in CHECKPOINTS)
        if self.version.startswith(("1.4.", "1.5.")):
            # A value is given to torch's ReduceLROnPlateau only; with DDP a sampler of the user's own is an error.
            self.lacks += ("own-plateau", "other-samplers")
        if self.is_1_4:
            self.lacks += ("bf16", "log-dict-batch-size")
            self.checkpointing = "checkpoint_callback"
        for name in ("pytorch_lightning", "lightning"):
            logging.getLogger(name).setLevel(logging.ERROR)

    @property
    def is_1_4(self) -> bool:
        """Whether the options are those of 1.4."""
        return self.version.startswith("1.4.")

    def options(self, scenario: Scenario) -> Dict[str, Any]:
        """The scenario's options, nothing written to disk, on the CPU."""
        if self.is_1_4:
            return self._older_options(scenario)
        renamed: Dict[str, Any] = {
            "logger": False,
            "enable_checkpointing": False,
            "enable_progress_bar": False,
            "enable_model_summary": False,
            "min_epochs": scenario.option("min_epochs"),  # 2.6.6 makes 1 of it where min_steps is given alone
        }
        if scenario.processes > 1 or not self.version.startswith("1.5."):
            renamed.update(accelerator="cpu", devices=scenario.option("devices"))
        if not self.version.startswith("1.") and scenario.option("precision") == "bf16":
            renamed["precision"] = "bf16-mixed"
        return given_options(scenario, renamed)

    def _older_options(self, scenario: Scenario) -> Dict[str, Any]:
        """What they were called before 1.5, and None for what does not end the training."""
        output = {"logger": False, self.checkpointing: False, "weights_summary": None}
        others = {"progress_bar_refresh_rate": 0, "min_epochs": scenario.option("min_epochs")}
        options = given_options(scenario, {**output, **others})
        options.update((name, None) for name in ("max_epochs", "max_steps") if options.get(name) == -1)
        strategy, devices = options.pop("strategy", None), options.pop("devices", 1)
        if strategy is not None:
            options.update(accelerator="ddp_cpu" if strategy == "ddp_spawn" else strategy, num_processes=devices)
        return options

    def begin(
        self, scenario: Scenario, recorder: Recorder, resumed: Optional[str] = "", **options: Any
    ) -> Tuple[Any, Any, Any]:
        """1.4 is told when it is made what a fit goes on from."""
        recorder.metrics_of = unread_metrics
        if resumed and self.is_1_4:
            options["resume_from_checkpoint"] = resumed
        return super().begin(scenario, recorder, resumed, **options)

    def call(
        self, trainer: Any, function: str, module: Any, datamodule: Any, scenario: Scenario, given: Dict[str, Any]
    ) -> Any:
        """1.4 takes a file to test only where it is given no module."""
        if not self.is_1_4 or "ckpt_path" not in given:
            return super().call(trainer, function, module, datamodule, scenario, given)
        if function == "fit" or given["ckpt_path"] is None:
            return super().call(trainer, function, module, datamodule, scenario, {})
        return super().call(trainer, function, None, datamodule, scenario, given)
