"""Going on in the middle of a run: what a checkpoint says of the loops, and how a run comes back to that point.

A run that was resumed does, from there on, what one that never stopped does, bit by bit. Between two epochs it
takes the random state. In mid-epoch the loaders are iterated from the random state in which they were before, past
the batches that are done; what those left behind (outputs, logged values, gradients of an open window) is put back.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn

from ..optimization import step_plateaus
from ..seed import random_state, set_random_state
from ..types import Trainer

__all__ = ["generators_of", "loop_state", "rejoin", "restore_loops"]


def loop_state(trainer: Trainer) -> dict[str, Any]:
    """Where the run is, as plain data."""
    loader, module = trainer.train_loader, trainer.module
    starts = loader.starts if loader else []
    in_epoch = bool(starts)
    asked: dict[str, Any] = {**trainer.eval_loaders, **({"train": loader} if loader else {})}
    validation = trainer.eval_loaders["val"].loaders if "val" in trainer.eval_loaders else []
    each = [generators_of(one) for one in loader.each] if loader else []
    state: dict[str, Any] = {
        "in_epoch": in_epoch,
        "batches_done": trainer.batches_done,
        "asked": {stage: loaders.epoch for stage, loaders in asked.items()},  # in which epoch
        "val_generators": [[g.get_state() for g in generators_of(one)] for one in validation],
        "loader_starts": starts or [{"generators": [g.get_state() for g in generators]} for generators in each],
        "random_state": random_state(),
        "turns": trainer.turns and trainer.turns.state_dict(),
        "logged": trainer.logbook.state_dict(module),
    }
    if in_epoch:
        state["outputs"] = _plain_outputs(trainer.outputs)
        state["metrics"] = {name: _metric_state(metric) for name, metric in _metrics(module)}
        state["empty_windows"] = [block.is_empty for block in trainer.blocks]
        if not module.automatic_optimization or not all(state["empty_windows"]):
            state["gradients"] = {n: p.grad for n, p in module.named_parameters() if p.grad is not None}
    return state


def restore_loops(trainer: Trainer, state: Mapping[str, Any]) -> None:
    """The parts that are there before the first epoch; the rest waits in `trainer.resuming` for `rejoin`."""
    trainer.resuming, trainer.asked_before = state, dict(state["asked"])
    trainer.val_generators = state["val_generators"]
    trainer.logbook.keep(state["logged"]["kept"])
    if trainer.turns and state["turns"]:
        trainer.turns.load_state_dict(state["turns"])


def rejoin(trainer: Trainer) -> Iterator[tuple[int, Any]]:
    """The numbered batches of the epoch in which the checkpoint was saved, from the first that was not done on."""
    state, module, loader = trainer.resuming, trainer.module, trainer.train_loader
    assert state is not None and loader is not None
    trainer.resuming = None
    loader.replay = list(state["loader_starts"])
    numbered = enumerate(loader.batches())
    if not state["in_epoch"]:
        return numbered
    trainer.batches_done = done = state["batches_done"]
    for _ in islice(numbered, done):
        pass
    trainer.logbook.reopen(state["logged"]["page"], module)
    trainer.outputs.extend(state["outputs"])
    metrics = dict(_metrics(module))
    for name, saved in state["metrics"].items():
        _set_metric_state(metrics[name], saved)
    for block, is_empty in zip(trainer.blocks, state["empty_windows"]):
        block.is_empty = is_empty
    parameters = dict(module.named_parameters())
    for name, gradient in state.get("gradients", {}).items():
        parameters[name].grad = gradient.to(parameters[name].device)
    step_plateaus(trainer)  # of the last batch done, if it was saved before they had
    set_random_state(state["random_state"])
    return numbered


def generators_of(loader: Any) -> list[torch.Generator]:
    """The loader's own sources of randomness, each once."""
    owners = (loader, getattr(loader, "sampler", None), getattr(loader, "batch_sampler", None))
    found = {id(g): g for owner in owners if isinstance(g := getattr(owner, "generator", None), torch.Generator)}
    return list(found.values())


def _plain_outputs(outputs: list[Any]) -> list[Any]:
    """The outputs that `training_epoch_end` waits for; none, with a warning, if they are more than data."""
    if all(_is_plain(output) for output in outputs):
        return outputs
    warnings.warn(
        "a checkpoint in mid-epoch cannot keep what training_step returned, since it is more than tensors, numbers, "
        "strings and containers of these: after resuming, training_epoch_end is given the later outputs only",
        stacklevel=2,
    )
    return []


def _is_plain(value: Any) -> bool:
    if type(value) is dict:
        return all(_is_plain(key) and _is_plain(item) for key, item in value.items())
    if type(value) in (list, tuple):
        return all(map(_is_plain, value))
    return value is None or type(value) in (bool, int, float, str, Tensor, nn.Parameter)


# ---- torchmetrics, which keep account of an epoch themselves ------------------------------------------------


def _metrics(module: nn.Module) -> Iterator[tuple[str, Any]]:
    """The metrics in the module, by name."""
    torchmetrics = sys.modules.get("torchmetrics")
    if torchmetrics is not None:
        yield from ((n, part) for n, part in module.named_modules() if isinstance(part, torchmetrics.Metric))


def _metric_state(metric: Any) -> dict[str, Any]:
    return {"updates": metric._update_count, "values": {name: getattr(metric, name) for name in metric._defaults}}


def _set_metric_state(metric: Any, saved: Mapping[str, Any]) -> None:
    metric._update_count, metric._computed = saved["updates"], None
    for name, value in saved["values"].items():
        is_list = isinstance(value, list)
        moved = [item.to(metric.device) for item in value] if is_list else value.to(metric.device)
        setattr(metric, name, moved)
