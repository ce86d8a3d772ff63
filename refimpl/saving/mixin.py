"""A module beyond its training: loaded from a checkpoint, exported as TorchScript and as ONNX."""

from __future__ import annotations

import importlib.util
import inspect
import os
from typing import IO, Any, Self

import torch

from ..errors import did_you_mean, one_of, warn
from ..trainer.properties import Properties
from .config import settings_in
from .export import check_forward, evaluating, sample_arguments, without_deprecations
from .file import read
from .hparams import init_arguments
from .shape import fitting

__all__ = ["ExportMixin"]

_INSTEAD = "to_onnx, or torch.export.export(module.eval(), inputs), works instead"
# As in the period: it says nothing, and there is one file, up to the 2 GB that a file can hold.
_ONNX_DEFAULTS = {"verbose": False, "external_data": None}


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
        checkpoint = read(checkpoint_path, map_location or "cpu", weights_only)
        if hparams_file is not None:
            checkpoint |= {"hyper_parameters": settings_in(hparams_file), "hparams_kinds": {}}
        positional, named = init_arguments(cls, checkpoint, overrides)  # type: ignore[arg-type]
        module: Any = cls(*positional, **named)
        module.on_load_checkpoint(checkpoint)
        with fitting(f"{checkpoint_path!r}: state_dict", cls.__name__):
            missing, unexpected = module.load_state_dict(checkpoint["state_dict"], strict) or ((), ())
        if missing or unexpected:
            warn(
                f"{checkpoint_path!r} does not fit {cls.__name__} in all: it lacks {missing}, which stay as they were "
                f"made, and has {unexpected} besides, which are left out"
            )
        return module  # type: ignore[no-any-return]

    def to_torchscript(
        self, file_path: str | os.PathLike[str] | IO[bytes] | None = None, method: str | None = "script",
        example_inputs: Any = None, **kwargs: Any
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
        compiler = getattr(torch.jit, one_of("to_torchscript: method", method, ("script", "trace")), None)
        check_forward(self, "to_torchscript")
        if compiler is None:
            raise RuntimeError(f"torch {torch.__version__} has no torch.jit.{method} any more; {_INSTEAD}")
        if method == "trace":
            args, named = sample_arguments(self, example_inputs, "to_torchscript(method='trace')", "example_inputs")
            kwargs |= {"example_kwarg_inputs": named} if named else {"example_inputs": args}
        with without_deprecations() as said, evaluating(self):
            script: torch.jit.ScriptModule = compiler(self, **kwargs)
            if file_path is not None:
                torch.jit.save(script, file_path)
        if any("torch.jit" in message for message in said):
            warn(f"torch {torch.__version__} deprecates TorchScript; {_INSTEAD}", DeprecationWarning)
        return script

    def to_onnx(self, file_path: str | os.PathLike[str], input_sample: Any = None, **kwargs: Any) -> None:
        """`forward`, in eval mode, as a file of ONNX, for inputs of the sample's shapes.

        Args:
            input_sample: what `forward` is given; see `example_input_array`, which is the default.
            kwargs: passed on to `torch.onnx.export`, such as `dynamic_shapes`.

        Raises ConfigurationError without a sample; TypeError for an argument that this torch does not have, with
        those it has; ModuleNotFoundError without onnxscript. ("to_onnx")
        """
        check_forward(self, "to_onnx")
        args, named = sample_arguments(self, input_sample, "to_onnx", "input_sample")
        accepted = inspect.signature(torch.onnx.export).parameters
        for name in sorted(kwargs.keys() - accepted):
            hint = did_you_mean(name, accepted) or f"; accepted are {', '.join(accepted)}"
            raise TypeError(f"to_onnx: torch.onnx.export of torch {torch.__version__} has no argument {name!r}{hint}")
        options = {name: value for name, value in _ONNX_DEFAULTS.items() if name in accepted} | kwargs
        by_dynamo = "dynamo" in accepted and options.get("dynamo", accepted["dynamo"].default)
        if by_dynamo and importlib.util.find_spec("onnxscript") is None:
            raise ModuleNotFoundError("to_onnx needs onnxscript: pip install 'refimpl-conformance[export]'")
        with without_deprecations(), evaluating(self):
            torch.onnx.export(self, (*args, named), os.fspath(file_path), **options)
