"""The adapter for real releases of pytorch-lightning, each in a world of its own."""

from __future__ import annotations

import functools
import logging
from typing import Any, Dict

from ..experiment import Scenario
from ..hooks import CHECKPOINTS
from .lightning_api import LightningLikeAdapter, given_options
from .lightning_compat import import_lightning

__all__ = ["LightningAdapter"]


class LightningAdapter(LightningLikeAdapter):
    """pytorch-lightning 1.5.10, 1.9.5 or 2.6.6, as a black box."""

    def __init__(self, version: str) -> None:
        super().__init__(import_lightning(version))
        self.name, self.version = "lightning", self.api.__version__
        self.again = functools.partial(LightningAdapter, version)
        # 1.x splits batches over GPUs only, 2.6.6 not at all. To log one name of several loaders is an error.
        self.lacks += ("data-parallel", "loaders-together")
        if not self.version.startswith("1."):
            # Automatic optimization knows one optimizer, and whole batches. How loaders are combined is said
            # where they are made, not by the trainer's multiple_trainloader_mode.
            self.lacks += ("several-optimizers", "truncated-bptt", "multiple-trainloader-mode")
        if self.version.startswith("1.9."):  # which refuses a data module that overrides them
            self.data_hooks = tuple(hook for hook in self.data_hooks if hook not in CHECKPOINTS)
        for name in ("pytorch_lightning", "lightning"):
            logging.getLogger(name).setLevel(logging.ERROR)

    def options(self, scenario: Scenario) -> Dict[str, Any]:
        """The scenario's options, nothing written to disk, on the CPU."""
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
