"""The adapter for `refimpl`: the only file of this package that imports the engine."""

from __future__ import annotations

from typing import Any, Dict

import refimpl

from ..experiment import Scenario
from .lightning_api import LightningLikeAdapter, given_options

__all__ = ["RefimplAdapter"]


class RefimplAdapter(LightningLikeAdapter):
    """The engine of this distribution."""

    name = "refimpl"
    version = refimpl.__version__

    def __init__(self, namespace: Any = refimpl) -> None:
        super().__init__(namespace)

    def options(self, scenario: Scenario) -> Dict[str, Any]:
        """The scenario's options as they are: the engine has the documentation's names."""
        output = ("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary")
        waits = {"process_timeout": 5} if scenario.processes > 1 else {}  # seconds, for a mutant that lets others wait
        return given_options(scenario, {**dict.fromkeys(output, False), "accelerator": "cpu", **waits})
