"""A module beyond its training: loaded from a checkpoint, exported."""

from __future__ import annotations

import os
from typing import IO, Any, Self

import torch

from ..trainer.properties import Properties
from .checkpoint import load_from_checkpoint
from .export import File, to_onnx, to_torchscript

__all__ = ["ExportMixin"]


class ExportMixin(Properties):
    """The methods of a `LightningModule` that make files of it, and it of files."""

    @classmethod
    def load_from_checkpoint(
        cls, checkpoint_path: str | os.PathLike[str] | IO[bytes], map_location: Any = None,
        hparams_file: str | os.PathLike[str] | None = None, strict: bool = True,
        weights_only: bool = True, **overrides: Any
    ) -> Self:  # fmt: skip
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
        made = load_from_checkpoint(cls, checkpoint_path, *given)
        return made  # type: ignore[no-any-return]

    def to_torchscript(
        self, file_path: File | None = None, method: str | None = "script", example_inputs: Any = None, **kwargs: Any
    ) -> torch.jit.ScriptModule | dict[str, torch.jit.ScriptModule]:  # fmt: skip
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
        return to_torchscript(self, file_path, method, example_inputs, **kwargs)  # type: ignore[arg-type]

    def to_onnx(self, file_path: str | os.PathLike[str], input_sample: Any = None, **kwargs: Any) -> None:
        """`forward`, in eval mode, as a file of ONNX, for inputs of the sample's shapes.

        Args:
            input_sample: what `forward` is given; see `example_input_array`, which is the default.
            kwargs: passed on to `torch.onnx.export`, such as `dynamic_shapes`.

        Raises ConfigurationError without a sample; TypeError for an argument that this torch does not have, with
        those it has; ModuleNotFoundError without onnxscript. ("to_onnx")
        """
        to_onnx(self, file_path, input_sample, **kwargs)  # type: ignore[arg-type]
