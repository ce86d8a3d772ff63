"""A run in a checkpoint, and back: what each of its parts has to tell, and what it goes on from.

A run that was resumed does, from there on, what one that never stopped does, bit by bit. Between two epochs its parts
take their states as they are. In mid-epoch the loaders are iterated from the random state in which they were before,
past the batches that are done; then each part takes back what those left behind (`rejoin`): outputs, logged values,
gradients of an open window.

The keys of a checkpoint are those of the period where they mean the same: "epoch" and "global_step" (how many are
done), "state_dict", "optimizer_states", "lr_schedulers", "callbacks", "hyper_parameters". What the loops need to go on
in mid-epoch is under "loops".
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from typing import Any, Protocol

from ..callback import Callback
from ..errors import CheckpointError, warn
from ..loaders.datamodule import LightningDataModule
from ..optimization import Optimization
from ..types import LightningModule, Trainer
from ..version import __version__
from .hparams import plain_hparams
from .layout import TRAINING, of_run
from .shape import check, fitting

__all__ = ["Part", "callback_states", "collected", "is_resumable", "keyed", "of_process", "restore_callbacks",
           "restore_module", "restore_parts", "states_of"]  # fmt: skip

_OURS, _LIGHTNING = "refimpl_version", "pytorch-lightning_version"
# What the period has at the top of a checkpoint, and whose it is; the other states of the parts are under "loops".
_AT_THE_TOP = {"progress": ("epoch", "global_step"), "optimization": ("optimizer_states", "lr_schedulers", "scaler")}


class Part(Protocol):
    """A part of a run that has a state."""

    def state_dict(self) -> dict[str, Any]:
        """Its state as plain data."""

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from there."""


# ---- out -------------------------------------------------------------------------------------------------------


def collected(
    module: LightningModule, datamodule: LightningDataModule | None, parts: Mapping[str, Part], weights_only: bool
) -> dict[str, Any]:
    """Everything that a run needs to go on, but for its callbacks', or with `weights_only` the module alone."""
    loops, at_the_top = states_of(parts)
    checkpoint: dict[str, Any] = {
        _OURS: __version__,
        **{key: at_the_top[key] for key in _AT_THE_TOP["progress"]},
        "state_dict": module.state_dict(),
        **_hyperparameters(module),
        **(_hyperparameters(datamodule) if datamodule else {}),
    }
    return checkpoint if weights_only else {**checkpoint, **at_the_top, "loops": loops}


def states_of(parts: Mapping[str, Part]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Of each part what a checkpoint holds as its "loops", and of all together what it holds at its top."""
    loops = {name: part.state_dict() for name, part in parts.items()}
    return loops, {key: loops[name].pop(key) for name, keys in _AT_THE_TOP.items() for key in keys}


def _hyperparameters(owner: LightningModule | LightningDataModule) -> dict[str, Any]:
    """What a checkpoint keeps of them; what is no plain data is left out, with a warning."""
    kept, left_out = plain_hparams(owner)
    if left_out:
        warn(f"the hyperparameters {', '.join(left_out)} of {type(owner).__name__} are no plain data, and not in the "
             "checkpoint: give them to load_from_checkpoint, or save_hyperparameters(ignore=...)")  # fmt: skip
    return kept


# ---- in --------------------------------------------------------------------------------------------------------


def is_resumable(path: Any, checkpoint: Mapping[str, Any], module: LightningModule) -> bool:
    """Before a fit starts: whether this is a checkpoint to go on from. That of a Lightning release gives its weights,
    with a warning that says what is skipped.

    Raises CheckpointError for one without the state of the training.
    """
    if _LIGHTNING in checkpoint and _OURS not in checkpoint:
        skipped = sorted(checkpoint.keys() - {"state_dict", _LIGHTNING, "hyper_parameters", "hparams_name"})
        warn(
            f"{path!r} was written by pytorch-lightning {checkpoint[_LIGHTNING]}: its weights are loaded, "
            f"and training begins at epoch 0; skipped are {', '.join(skipped)}"
        )
        return False
    if "optimizer_states" not in checkpoint:
        raise CheckpointError(
            f"{path!r} holds weights only, and no state of a training to go on with; to begin a "
            f"training with these weights, use {type(module).__name__}.load_from_checkpoint"
        )
    check(checkpoint, TRAINING, f"{path!r} is damaged, or of another version")
    return True


def of_process(path: Any, checkpoint: Any, rank: int, world_size: int) -> Any:
    """The checkpoint with what the process of that rank has to go on from, of those that ran when it was saved.

    If they were not as many, a run can go on between two epochs only, with a warning. Raises CheckpointError for
    another.
    """
    states = checkpoint.get("processes", [None])
    if not isinstance(states, list) or _OURS not in checkpoint:
        return checkpoint  # which is refused, or gives its weights only
    if len(states) == world_size:
        return checkpoint if world_size == 1 else {**checkpoint, "loops": states[rank]}
    problem = f"{path!r} was saved by {len(states)} processes, and {world_size} go on"
    with suppress(KeyError, TypeError):
        if checkpoint["loops"]["data"]["in_epoch"]:
            raise CheckpointError(f"{problem}: in mid-epoch, it has to be as many; use a checkpoint of an epoch's end")
    warn(f"{problem}: from here on, it is not what it would have been")
    return checkpoint


def check_fits(path: Any, checkpoint: Mapping[str, Any], module: LightningModule, optimization: Optimization) -> None:
    """Before any part is given its state: does it fit what was configured? Raises CheckpointError naming the key."""
    for what, ours in (("optimizer_states", optimization.optimizers), ("lr_schedulers", optimization.schedules)):
        if (count := len(checkpoint[what])) != len(ours):
            raise CheckpointError(f"{path!r} holds {count} {what}, but configure_optimizers returned {len(ours)}")
    check(checkpoint, of_run(module, optimization, checkpoint["loops"]), f"{path!r} does not fit this run")


def restore_module(
    path: Any, checkpoint: dict[str, Any], module: LightningModule, datamodule: LightningDataModule | None
) -> None:
    """Give the data module and the module what the checkpoint holds of them; `setup` has built the module.
    ("on_load_checkpoint")

    Raises CheckpointError for weights that do not fit the module.
    """
    for owner in (datamodule, module):
        if hook := getattr(owner, "on_load_checkpoint", None):
            hook(checkpoint)
    with fitting(f"{path!r}: state_dict", type(module).__name__):
        module.load_state_dict(checkpoint["state_dict"])


def restore_parts(path: Any, checkpoint: Mapping[str, Any], parts: Mapping[str, Part]) -> None:
    """Give some parts their states. Raises CheckpointError for one that does not fit."""
    for name, part in parts.items():
        at_the_top = {key: checkpoint[key] for key in _AT_THE_TOP.get(name, ())}
        try:
            part.load_state_dict({**checkpoint["loops"][name], **at_the_top})
        except CheckpointError as error:
            raise CheckpointError(f"{path!r}: {error}") from None


# ---- callbacks -------------------------------------------------------------------------------------------------


def callback_states(callbacks: Iterable[Callback], trainer: Trainer, checkpoint: dict[str, Any]) -> dict[str, Any]:
    """What each callback's `state_dict` returned, and its `on_save_checkpoint`, if that is anything."""
    states: dict[str, Any] = {}
    for key, callback in keyed(callbacks):
        save = getattr(callback, "on_save_checkpoint", None)  # which may be set to None, as any hook
        returned = save and save(trainer, trainer.module, checkpoint)
        kept = {"state_dict": callback.state_dict(), "on_save_checkpoint": returned}
        if kept["state_dict"] or returned is not None:
            states[key] = kept
    return states


def restore_callbacks(
    path: Any, checkpoint: Mapping[str, Any], callbacks: Iterable[Callback], trainer: Trainer
) -> None:
    """Give the callbacks their states; warns of one that is not there."""
    ours = dict(keyed(callbacks))
    for key, state in checkpoint["callbacks"].items():
        if key not in ours:
            warn(f"{path!r} holds the state of {key}, a callback that is not there")
            continue
        if state["state_dict"]:
            with fitting(f"{path!r}: callbacks[{key!r}].state_dict", type(ours[key]).__name__):
                ours[key].load_state_dict(state["state_dict"])
        load = getattr(ours[key], "on_load_checkpoint", None)
        if load and state["on_save_checkpoint"] is not None:
            load(trainer, trainer.module, state["on_save_checkpoint"])


def keyed(callbacks: Iterable[Callback]) -> Iterator[tuple[str, Callback]]:
    """Each callback with the name of its class; the second of a class is "EarlyStopping#1"."""
    seen: dict[str, int] = {}
    for callback in callbacks:
        kind = type(callback).__qualname__
        count = seen[kind] = seen.get(kind, -1) + 1
        yield f"{kind}#{count}" if count else kind, callback
