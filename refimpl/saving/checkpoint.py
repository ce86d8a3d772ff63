"""Checkpoints: what of a run goes into its file (`file.py`), and how a run and a module get it back.

Its keys are those of the period where they mean the same: "epoch" and "global_step" (how many are done),
"state_dict", "optimizer_states", "lr_schedulers", "callbacks", "hyper_parameters". What the loops need to go on
in mid-epoch is under "loops" (`resume.py`).
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar

from ..callback import Callback
from ..datamodule import LightningDataModule
from ..errors import CheckpointError
from ..types import LightningModule, Trainer
from ..version import __version__
from .config import settings_in
from .file import read, write
from .hparams import init_arguments, plain_hparams
from .layout import TRAINING, of_run
from .optimizers import load_optimizer, state_of
from .resume import loop_state, restore_loops
from .shape import check

Module = TypeVar("Module", bound="LightningModule")

__all__ = [
    "check_resumable", "collected", "load_from_checkpoint", "read", "restore_module", "restore_training", "write",
]  # fmt: skip

_OURS, _LIGHTNING = "refimpl_version", "pytorch-lightning_version"


# ---- a run, out and in -------------------------------------------------------------------------------------


def collected(trainer: Trainer, weights_only: bool = False) -> dict[str, Any]:
    """Everything that the trainer's run needs to go on, or with `weights_only` the module alone; then the data
    module's and the module's `on_save_checkpoint` add to it. ("on_save_checkpoint")"""
    module = trainer.module
    checkpoint: dict[str, Any] = {
        _OURS: __version__,
        "epoch": trainer.current_epoch,
        "global_step": trainer.global_step + trainer.uncounted,
        "state_dict": module.state_dict(),
        **_hyperparameters(module),
        **(_hyperparameters(trainer.datamodule) if trainer.datamodule else {}),
    }
    if not weights_only:
        checkpoint["optimizer_states"] = [optimizer.state_dict() for optimizer in trainer.optimizers]
        checkpoint["lr_schedulers"] = [
            {"passed": each.passed, "is_due": each.is_due, "state": state_of(each.scheduler)}
            for each in trainer.schedules
        ]
        checkpoint["scaler"] = trainer.scaler and trainer.scaler.scaler.state_dict()
        checkpoint["loops"] = loop_state(trainer)
        checkpoint["callbacks"] = _callback_states(trainer, checkpoint)
    for owner in (trainer.datamodule, module):
        if hook := getattr(owner, "on_save_checkpoint", None):
            hook(checkpoint)
    return checkpoint


def restore_module(trainer: Trainer) -> None:
    """Give the data module and the module what the checkpoint holds of them, and in a fit the callbacks; `setup`
    has built the module. ("on_load_checkpoint")

    Raises CheckpointError for weights that do not fit the module.
    """
    checkpoint, module = trainer.checkpoint, trainer.module
    if checkpoint is None:
        return
    for owner in (trainer.datamodule, module):
        if hook := getattr(owner, "on_load_checkpoint", None):
            hook(checkpoint)
    with _fitting(trainer.ckpt_path, "state_dict", type(module).__name__):
        module.load_state_dict(checkpoint["state_dict"])
    if trainer.state.fn != "fit":
        trainer.checkpoint = None
    elif _OURS in checkpoint:
        _restore_callbacks(trainer, checkpoint["callbacks"])


def restore_training(trainer: Trainer) -> None:
    """Give the optimizers, the schedulers, the loss scaler and the loops what the checkpoint holds of them.

    Raises CheckpointError where `configure_optimizers` returned another number of them, or of their parameters.
    """
    checkpoint, trainer.checkpoint = trainer.checkpoint, None
    if checkpoint is None or _OURS not in checkpoint:
        return
    for what, ours in (("optimizer_states", trainer.optimizers), ("lr_schedulers", trainer.schedules)):
        if len(checkpoint[what]) != len(ours):
            raise CheckpointError(
                f"{trainer.ckpt_path!r} holds {len(checkpoint[what])} {what}, but configure_optimizers returned "
                f"{len(ours)}"
            )
    check(checkpoint, of_run(trainer, checkpoint["loops"]), f"{trainer.ckpt_path!r} does not fit this run")
    for index, (optimizer, state) in enumerate(zip(trainer.optimizers, checkpoint["optimizer_states"])):
        with _fitting(trainer.ckpt_path, f"optimizer_states[{index}]", f"the optimizer {type(optimizer).__name__}"):
            load_optimizer(optimizer, state)
    for index, (schedule, state) in enumerate(zip(trainer.schedules, checkpoint["lr_schedulers"])):
        schedule.passed, schedule.is_due = state["passed"], state["is_due"]
        if state["state"] is not None:
            with _fitting(trainer.ckpt_path, f"lr_schedulers[{index}].state", type(schedule.scheduler).__name__):
                schedule.scheduler.load_state_dict(state["state"])
    if trainer.scaler and checkpoint["scaler"]:
        trainer.scaler.scaler.load_state_dict(checkpoint["scaler"])
    restore_loops(trainer, checkpoint["loops"])


@contextmanager
def _fitting(source: Any, key: str, owner: str) -> Iterator[None]:
    """What is raised as `owner` is given what the checkpoint holds under `key` is a CheckpointError that says so."""
    try:
        yield
    except Exception as error:
        said = error if isinstance(error, CheckpointError) else f"{type(error).__name__}: {error}"
        raise CheckpointError(f"{source!r}: {key} does not fit {owner}: {said}") from error


def check_resumable(trainer: Trainer) -> None:
    """Before a fit starts: is this a checkpoint to go on from?

    Raises CheckpointError for one without the state of the training. That of a Lightning release gives its
    weights, with a warning that says what is skipped.
    """
    checkpoint = trainer.checkpoint
    assert checkpoint is not None
    if _LIGHTNING in checkpoint and _OURS not in checkpoint:
        skipped = sorted(checkpoint.keys() - {"state_dict", _LIGHTNING, "hyper_parameters", "hparams_name"})
        warnings.warn(
            f"{trainer.ckpt_path!r} was written by pytorch-lightning {checkpoint[_LIGHTNING]}: its weights are loaded, "
            f"and training begins at epoch 0; skipped are {', '.join(skipped)}",
            stacklevel=6,
        )
    elif "optimizer_states" not in checkpoint:
        raise CheckpointError(
            f"{trainer.ckpt_path!r} holds weights only, and no state of a training to go on with; to begin a "
            f"training with these weights, use {type(trainer.module).__name__}.load_from_checkpoint"
        )
    else:
        check(checkpoint, TRAINING, f"{trainer.ckpt_path!r} is damaged, or of another version")
        trainer.current_epoch, trainer.global_step = checkpoint["epoch"], checkpoint["global_step"]


def load_from_checkpoint(cls: type[Module], source: Any, map_location: Any, hparams_file: Any, strict: bool,
                         weights_only: bool, overrides: Mapping[str, Any]) -> Module:  # fmt: skip
    """For `LightningModule.load_from_checkpoint`."""
    checkpoint = read(source, map_location, weights_only)
    if hparams_file is not None:
        checkpoint |= {"hyper_parameters": settings_in(hparams_file), "hparams_kinds": {}}
    positional, named = init_arguments(cls, checkpoint, overrides)
    module = cls(*positional, **named)
    module.on_load_checkpoint(checkpoint)
    with _fitting(source, "state_dict", type(module).__name__):
        missing, unexpected = module.load_state_dict(checkpoint["state_dict"], strict) or ((), ())
    if missing or unexpected:
        warnings.warn(
            f"{source!r} does not fit {cls.__name__} in all: it lacks {missing}, which stay as they were made, and "
            f"has {unexpected} besides, which are left out",
            stacklevel=3,
        )
    return module


def _hyperparameters(owner: LightningModule | LightningDataModule) -> dict[str, Any]:
    """What a checkpoint keeps of them; what is no plain data is left out, with a warning."""
    kept, left_out = plain_hparams(owner)
    if left_out:
        warnings.warn(
            f"the hyperparameters {', '.join(left_out)} of {type(owner).__name__} are no plain data, and not in the "
            "checkpoint: give them to load_from_checkpoint, or save_hyperparameters(ignore=...)",
            stacklevel=2,
        )
    return kept


# ---- callbacks -----------------------------------------------------------------------------------------------


def _keyed(callbacks: Iterable[Callback]) -> Iterator[tuple[str, Callback]]:
    """Each callback with the name of its class; the second of a class is "EarlyStopping#1"."""
    seen: dict[str, int] = {}
    for callback in callbacks:
        kind = type(callback).__qualname__
        count = seen[kind] = seen.get(kind, -1) + 1
        yield f"{kind}#{count}" if count else kind, callback


def _callback_states(trainer: Trainer, checkpoint: dict[str, Any]) -> dict[str, Any]:
    """What each callback's `state_dict` returned, and its `on_save_checkpoint`, if that is anything."""
    states: dict[str, Any] = {}
    for key, callback in _keyed(trainer.callbacks):
        save = getattr(callback, "on_save_checkpoint", None)  # which may be set to None, as any hook
        returned = save and save(trainer, trainer.module, checkpoint)
        kept = {"state_dict": callback.state_dict(), "on_save_checkpoint": returned}
        if kept["state_dict"] or returned is not None:
            states[key] = kept
    return states


def _restore_callbacks(trainer: Trainer, states: Mapping[str, Any]) -> None:
    callbacks = dict(_keyed(trainer.callbacks))
    for key, state in states.items():
        if key not in callbacks:
            warnings.warn(f"{trainer.ckpt_path!r} holds the state of {key}, a callback that is not there", stacklevel=2)
            continue
        if state["state_dict"]:
            with _fitting(trainer.ckpt_path, f"callbacks[{key!r}].state_dict", type(callbacks[key]).__name__):
                callbacks[key].load_state_dict(state["state_dict"])
        load = getattr(callbacks[key], "on_load_checkpoint", None)
        if load and state["on_save_checkpoint"] is not None:
            load(trainer, trainer.module, state["on_save_checkpoint"])
