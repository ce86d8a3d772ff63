"""Trace a program of your own: any trainer, module and data module with Lightning's interface.

    with observing("run.jsonl", scenario, trainer, model, data):
        trainer.fit(model, datamodule=data)

then `python -m conformance check run.jsonl`. The scenario says what the run consists of (calls,
numbers of batches, options), so that the oracle knows what to expect; its formulas for weights and
data do not matter here. Batches are known by the loaders that hand them out. Runs in the trainer's
own world: the standard library and torch, Python 3.8 and up.
"""

from __future__ import annotations

import platform
from contextlib import contextmanager
from typing import Any, Iterator, Mapping, Optional, Sequence, Union

import torch

from . import __version__
from .adapters.lightning_api import EFFECTS
from .described import Tags, said
from .hooks import CHECKPOINTS, DATA_HOOKS, LOADERS, MODULE_HOOKS, OWN_STEPS
from .recorder import Recorder
from .scenario import Scenario, scenario_of
from .trace import Header, TraceWriter

__all__ = ["observing"]


# Of a program's own module no scenario says what these are.
OWN = ("lr", "values", "submodules", "autocast", "random")


@contextmanager
def observing(
    path: str,
    scenario: Union[Scenario, Mapping[str, Any]],
    trainer: Any,
    module: Any,
    datamodule: Optional[Any] = None,
    name: str = "",
) -> Iterator[Recorder]:
    """Record every hook of `module` and `datamodule`, and the calls of `trainer`, while it is open.

    `name` is the trainer's in the trace; by default that of the package its class comes from. An
    exception passes through and is the trace's outcome. Raises ScenarioError for a malformed scenario.
    """
    if not isinstance(scenario, Scenario):
        scenario = scenario_of(scenario)
    # When the program's own callbacks save checkpoints, no scenario says.
    hooks = [hook for hook in MODULE_HOOKS if hasattr(module, hook) and hook not in CHECKPOINTS]
    header = Header(
        suite=__version__,
        scenario=scenario.to_dict(),
        trainer={"name": name or type(trainer).__module__.split(".")[0], "version": "own program"},
        declares={"hooks": hooks, "effects": [effect for effect in EFFECTS if effect not in OWN]},
        environment={"python": platform.python_version(), "torch": str(torch.__version__)},
    )
    with TraceWriter(path, header) as writer:
        recorder = Recorder(writer, scenario.when, scenario.data.nesting)
        recorder.module, recorder.trainer, recorder.tags = module, trainer, Tags()
        observed = [(module, tuple(hooks), "module")]
        if datamodule is not None:
            observed.append((datamodule, tuple(hook for hook in DATA_HOOKS if hook not in CHECKPOINTS), "datamodule"))
        classes = [_observe(recorder, *each) for each in observed]
        for call in ("fit", "validate", "test", "predict"):
            _observe_call(recorder, trainer, call)
        try:
            yield recorder
        except BaseException as error:
            writer.close("raised", said(error))
            raise
        else:
            writer.close("returned")
        finally:
            for (receiver, _, _), original in zip(observed, classes):
                receiver.__class__ = original
            for call in ("fit", "validate", "test", "predict"):
                vars(trainer).pop(call, None)


def _observe(recorder: Recorder, receiver: Any, hooks: Sequence[str], name: str) -> type:
    """Give one object a class whose hooks are recorded; returns the class it had."""
    original = type(receiver)
    library = next(owner for owner in original.__mro__ if owner.__name__.startswith("Lightning"))
    optional = {*OWN_STEPS, *LOADERS} - {"predict_step"}
    recorded = [
        hook
        for hook in hooks
        if hasattr(original, hook)
        and (hook not in optional or getattr(original, hook) is not getattr(library, hook, None))
    ]
    receiver.__class__ = recorder.recording(original, recorded, name)
    return original


def _observe_call(recorder: Recorder, trainer: Any, call: str) -> None:
    original, tags = getattr(trainer, call), recorder.tags
    stages = ["train", "val"] if call == "fit" else ["val" if call == "validate" else call]

    def tagged(given: Any, stage: str) -> Any:
        """Loaders whose batches are known; a data module has hooks that give them."""
        is_loader = given is not None and not hasattr(given, "prepare_data")
        return tags.loaders(given, stage) if tags is not None and is_loader else given

    def observed(*args: Any, **kwargs: Any) -> Any:
        args = (*args[:1], *map(tagged, args[1:], stages), *args[1 + len(stages) :])
        for name in [name for name in kwargs if "dataloader" in name]:
            stage = name.split("_")[0]
            kwargs[name] = tagged(kwargs[name], stage if stage in stages else stages[0])
        return recorder.span("trainer", call, lambda: original(*args, **kwargs), {})

    setattr(trainer, call, observed)
