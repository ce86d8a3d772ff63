"""What a checkpoint holds, key by key: the tables that it is checked against before anything of it is used.

How to read them is said in `shape.py`. `MODULE` is what every checkpoint holds, Lightning's as well, `TRAINING` what a
fit goes on from, and `of_run` what only the run that is to go on can tell.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch

from ..loggers.entries import Settings
from ..loggers.rules import RULES, is_metric
from ..types import LightningModule
from .config import KINDS
from .optimizers import state_of
from .shape import ANY, COUNT, FLAG, NOTHING, NUMBER, SCALAR, TENSOR, TEXT, Either, Value, like, maybe, one_of, optional

__all__ = ["MODULE", "TRAINING", "of_run"]

# ---- what is random ----------------------------------------------------------------------------------------


def _taken(by: Callable[[Any], Any], state: Any) -> bool:
    try:
        by(state)
    except Exception:
        return False
    return True


GENERATOR = Value("the state of a torch.Generator", lambda state: _taken(torch.Generator().set_state, state) or (
    TENSOR.accepts(state) and state.dtype is torch.uint8 and state.numel() == 16))  # fmt: skip  # of one on a GPU
RANDOM = {
    "python": Value("what random.getstate() returns", lambda state: (
        _taken(random.Random().setstate, state) and type(state[2]) in (float, type(None)))),
    "numpy": Value("what numpy.random.get_state() returns", lambda state: (
        _taken(np.random.RandomState().set_state, state) and 0 <= state[2] <= 624)),
    "torch": Value("what torch.get_rng_state() returns", lambda state: _taken(torch.Generator().set_state, state)),
    "cuda": [GENERATOR], "generators": [GENERATOR],
}  # fmt: skip

# ---- what was logged ---------------------------------------------------------------------------------------


def _settings(**fields: Any) -> tuple[Any, ...]:
    known = {"reduce_fx": NOTHING, "sync_dist_group": NOTHING, "metric_attribute": maybe(TEXT), **fields}
    return tuple(known.get(field, one_of(True, False, 1, 0, None)) for field in Settings._fields)


VALUE = Either(NUMBER, SCALAR)
OF_MEAN = {
    "name": TEXT, "loader": NOTHING, "latest": maybe(VALUE), "total": VALUE, "weight": NUMBER, "steps": [SCALAR],
    "so_far": NOTHING, "metric": NOTHING, "settings": _settings(reduce_fx=one_of("mean")),
}  # fmt: skip
OF_NAMED = {**OF_MEAN, "settings": _settings(reduce_fx=one_of("min", "max", "sum")), "total": SCALAR}
OF_METRIC = {**OF_MEAN, "settings": _settings(reduce_fx=ANY), "metric": TEXT, "latest": maybe(Either(NUMBER, TENSOR))}
OF_CALLABLE = {**OF_MEAN, "settings": _settings(on_epoch=one_of(True)), "so_far": VALUE}
ENTRY = Either(OF_MEAN, OF_NAMED, OF_METRIC, OF_CALLABLE, {**OF_MEAN, "settings": _settings(on_epoch=one_of(False))})
LOGBOOK = {
    "kept": {"callback": {TEXT: SCALAR}, "logged": {TEXT: NUMBER}, "progress_bar": {TEXT: NUMBER}},
    "page": [((one_of(*RULES), TEXT, NOTHING), ENTRY)],
    "metrics": {TEXT: {"updates": COUNT, "values": {TEXT: Either(TENSOR, [TENSOR])}}},
}

# ---- where the loops are: between two epochs, or within one --------------------------------------------------

DATA = {
    "in_epoch": one_of(False), "asked": {one_of("train", "val", "test", "predict"): COUNT},
    "val_generators": [[GENERATOR]], "loader_starts": [{"generators": [GENERATOR]}], "random_state": RANDOM,
}  # fmt: skip
TURNS = maybe({"batches": COUNT, "used": [COUNT], "owner": maybe(COUNT)})
EPOCH = {"outputs": [ANY], "empty_windows": [FLAG], "gradients": {TEXT: TENSOR}}
BETWEEN = {
    "progress": {"batches_done": COUNT}, "optimization": {"turns": TURNS, optional("epoch"): ANY},
    "data": DATA, "logbook": {**LOGBOOK, "page": [ANY]},
}  # fmt: skip
WITHIN = {
    **BETWEEN, "optimization": {"turns": TURNS, "epoch": EPOCH},
    "data": {**DATA, "in_epoch": one_of(True), "loader_starts": [RANDOM, ...]},
    "logbook": LOGBOOK,
}

# ---- the whole -----------------------------------------------------------------------------------------------

HYPERPARAMETERS = {
    optional("hyper_parameters"): {TEXT: ANY},
    optional("hparams_kinds"): {Value("a tuple", lambda value: isinstance(value, tuple)): one_of(*KINDS)},
    optional("hparams_arguments"): {TEXT: maybe((one_of(*KINDS), [TEXT]))},
}
MODULE: Any = {
    "state_dict": {TEXT: ANY},
    **HYPERPARAMETERS,
    **{optional(f"datamodule_{key}"): shape for key, shape in HYPERPARAMETERS.items()},
    ...: ANY,  # a hook of the user's may add more
}
SCALER = {
    **dict.fromkeys(("scale", "growth_factor", "backoff_factor"), NUMBER),
    **dict.fromkeys(("growth_interval", "_growth_tracker"), COUNT),
}
TRAINING: Any = {
    "refimpl_version": TEXT,
    "epoch": COUNT,
    "global_step": COUNT,
    "optimizer_states": [{TEXT: ANY}],
    "lr_schedulers": [{"passed": COUNT, "is_due": FLAG, "state": ANY}],
    "scaler": maybe(SCALER),
    "loops": Either(WITHIN, BETWEEN),
    "callbacks": {TEXT: {"state_dict": {ANY: ANY}, "on_save_checkpoint": ANY}},
    optional("processes"): [ANY],  # of several, the "loops" of each
    ...: ANY,
}


LOSS = Either(TENSOR, {"loss": maybe(TENSOR), ...: ANY})
PIECES = Either(LOSS, [maybe(LOSS), ...])  # of several optimizers, or of the pieces of truncated_bptt_steps
OUTPUT = Either(PIECES, [maybe(PIECES), ...])


def of_run(module: LightningModule, optimization: Any, loops: Mapping[str, Any]) -> Any:
    """The shape that what a `TRAINING` holds has to have, besides, to go on in this run."""
    count = len(optimization.optimizers)
    index = one_of(*range(count))
    turns = {"used": [index], "owner": maybe(index), ...: ANY} if optimization.turns else NOTHING
    epoch, logbook = ANY, ANY  # type: Any, Any
    if loops["data"]["in_epoch"]:
        automatic, names = module.automatic_optimization, [name for (_, name, _), _ in loops["logbook"]["page"]]
        metrics = {name: part for name, part in module.named_modules() if is_metric(part)}
        entries = [{"name": one_of(name), "metric": one_of(None, *metrics), ...: ANY} for name in names]
        epoch = {
            "outputs": [OUTPUT if automatic else ANY],
            "empty_windows": (FLAG,) * (count if count > 1 and automatic else 1),
            "gradients": {optional(name): like(weight) for name, weight in module.named_parameters()},
        }
        logbook = {
            "page": tuple((ANY, entry) for entry in entries),
            "metrics": {name: {"values": _kept_by_metric(metric), ...: ANY} for name, metric in metrics.items()},
            ...: ANY,
        }
    shape = {"optimization": {"turns": turns, optional("epoch"): epoch}, "logbook": logbook, ...: ANY}
    return {"lr_schedulers": tuple(map(_of_schedule, optimization.schedules)), "loops": shape, ...: ANY}


def _of_schedule(schedule: Any) -> Any:
    """The lists of a scheduler of the user's own may grow."""
    state, by_step = state_of(schedule.scheduler), schedule.reduce_on_plateau and schedule.interval == "step"
    shape = like(state, fixed=type(schedule.scheduler).__module__.startswith("torch."))
    return {"state": NOTHING if state is None else shape, "is_due": FLAG if by_step else one_of(False), ...: ANY}


def _kept_by_metric(metric: Any) -> dict[str, Any]:
    made = metric._defaults.items()
    return {name: [TENSOR] if isinstance(value, list) else _summed(value.shape) for name, value in made}


def _summed(size: torch.Size) -> Value:
    """A metric may begin with a scalar, and go on with as many values as there are outputs."""
    return Value(f"a tensor of shape {tuple(size)}", lambda value: TENSOR.accepts(value) and (
        value.shape == size or (size == () and value.ndim == 1 and len(value) > 0)))  # fmt: skip
