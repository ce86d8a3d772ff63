"""Who receives a hook, and in which order; resolved once per run.

`resolve` turns the module, the data module and the callbacks into one `Hooks` object with an attribute
per hook: None where nobody overrides it, otherwise something to call. The loops then need no look-up,
and a hook that nobody uses costs no call. A data module comes first, then the callbacks in their order, the
module last (clause `structure.receivers`).
"""

from __future__ import annotations

import difflib
import inspect
import warnings
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from typing import Any

from torch import nn

from .batches import move
from .callback import Callback, attach
from .datamodule import LightningDataModule
from .errors import HookError
from .hooks import DataHooks, Hooks
from .module import LightningModule
from .period.retired_hooks import CALLED, REFUSED, retired_calls
from .types import Trainer

__all__ = ["Hooks", "check_names", "overridden", "resolve", "takes_dataloader_idx"]

Call = Callable[..., Any]


def _public(owner: type) -> list[str]:
    return [name for name, value in vars(owner).items() if callable(value) and not name.startswith("_")]


DATA_HOOKS = _public(DataHooks)
# Called by others than the loops: as the trainer is made, when there is no module yet; as a checkpoint is.
_CHECKPOINT_HOOKS = {"on_save_checkpoint", "on_load_checkpoint"}
_ELSEWHERE = {"on_init_start", "on_init_end", "state_dict", "load_state_dict", "log", "log_dict", *_CHECKPOINT_HOOKS}
CALLBACK_HOOKS = [hook for hook in _public(Callback) if hook not in _ELSEWHERE]
# Methods of the module that are not hooks: the user calls them, the loops do not.
_MODULE_METHODS = set(
    "log log_dict print get_progress_bar_dict freeze unfreeze toggle_optimizer untoggle_optimizer optimizers "
    "clip_gradients lr_schedulers manual_backward to_torchscript to_onnx save_hyperparameters add_to_queue "
    "get_from_queue load_from_checkpoint".split()
)
MODULE_HOOKS = [
    name
    for owner in (*LightningModule.__mro__[1:3], LightningModule)
    for name in _public(owner)
    if owner is not nn.Module and name not in _MODULE_METHODS
]
# These run on everybody; of the other data hooks, the data module's own replaces the module's.
_SHARED_DATA_HOOKS = {"prepare_data", "setup", "teardown"}
# These hand the batch on; forgetting to return it is an error that is hard to find later.
_BATCH_HOOKS = {"on_before_batch_transfer", "transfer_batch_to_device", "on_after_batch_transfer"}
# Everybody receives these, even if another one's raises.
_CLOSING = {"on_exception", "teardown"}
# Hooks with a documented default, which runs where nobody overrides them.
_DEFAULTS = {
    "backward",
    "optimizer_zero_grad",
    "optimizer_step",
    "predict_step",
    "tbptt_split_batch",
    *(f"on_{stage}_model_{mode}" for stage in ("validation", "test", "predict") for mode in ("eval", "train")),
}


def overridden(receiver: Any, hook: str, base: type) -> Call | None:
    """The receiver's own implementation of `hook`, or None if that is the base's, or was set to None."""
    method = getattr(receiver, hook, None)
    if method is None or getattr(method, "__func__", method) is getattr(base, hook, None):
        return None
    return method  # type: ignore[no-any-return]


def resolve(
    trainer: Trainer,
    module: LightningModule,
    datamodule: LightningDataModule | None,
    callbacks: Sequence[Callback],
) -> Hooks:
    """Everything the loops will call, for one run."""
    check_names(module, LightningModule, {*MODULE_HOOKS, *_MODULE_METHODS, *_CHECKPOINT_HOOKS})
    for hook in {*CALLBACK_HOOKS, *CALLED} - set(MODULE_HOOKS):
        if hasattr(type(module), hook):
            warnings.warn(f"{hook} is a callback's hook: {type(module).__name__}.{hook} is not called", stacklevel=2)
    for callback in callbacks:
        check_names(callback, Callback, {*CALLBACK_HOOKS, *_ELSEWHERE, *CALLED})
        attach(callback, module)
    if datamodule is not None:
        check_names(datamodule, LightningDataModule, {*DATA_HOOKS, *_CHECKPOINT_HOOKS})

    hooks = Hooks()
    for hook in dict.fromkeys([*CALLBACK_HOOKS, *MODULE_HOOKS]):
        data = overridden(datamodule, hook, LightningDataModule) if hook in DATA_HOOKS else None
        first = [] if data is None else [fitted(data, hook, LightningDataModule)]
        if first and hook not in _SHARED_DATA_HOOKS:
            setattr(hooks, hook, first[0])
            continue
        own: list[Call] = [
            partial(fitted(method, hook, Callback), trainer, module)
            for callback in callbacks
            if hook in CALLBACK_HOOKS and (method := overridden(callback, hook, Callback))
        ]
        retired = list(retired_calls(hook, callbacks, trainer, module))
        first += own + retired if hook == "on_train_batch_end" else retired + own
        setattr(hooks, hook, _fan_out(hook, first, _own(module, hook)))
    return hooks


def _own(module: LightningModule, hook: str) -> Call | None:
    """What the module does for `hook`: its own method, the documented default, or nothing."""
    if hook not in MODULE_HOOKS:
        return None
    method = overridden(module, hook, LightningModule)
    if method is not None:
        method = fitted(method, hook, LightningModule)
    elif hook in _DEFAULTS:
        method = getattr(LightningModule, hook).__get__(module)  # also where the user set it to None
    elif hook == "transfer_batch_to_device":
        method = move  # what the default does, without the method around it
    return method


def _fan_out(hook: str, first: Sequence[Call], last: Call | None) -> Call | None:
    """One callable for several receivers; it returns what the last one, the module, returns."""
    if not first:
        return last
    if hook in _CLOSING:

        def call_everybody(*args: Any) -> None:
            with ExitStack() as calls:  # calls the others when one raises, too
                for call in reversed([*first, *([last] if last else [])]):
                    calls.callback(call, *args)

        return call_everybody
    if last is None:

        def call_callbacks(*args: Any) -> None:
            for call in first:
                call(*args)

        return call_callbacks

    def call_all(*args: Any) -> Any:
        for call in first:
            call(*args)
        return last(*args)

    return call_all


def takes_dataloader_idx(module: LightningModule, step: str) -> tuple[bool, bool]:
    """Whether the user's step can take `dataloader_idx` after the batch and its index, and whether it
    must: the documentation gives it with several loaders only, yet some of its examples require it."""
    try:
        parameters = list(inspect.signature(getattr(module, step)).parameters.values())
    except (TypeError, ValueError):  # a builtin or extension function tells nothing: trust it
        return True, False
    if any(p.kind is p.VAR_POSITIONAL for p in parameters):
        return True, False
    third = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)][2:]
    return bool(third), bool(third) and third[0].default is inspect.Parameter.empty


def fitted(method: Call, hook: str, base: type) -> Call:
    """`method` as it can be called with the documented arguments: trailing ones it does not take are
    left out. (The documentation itself writes `transfer_batch_to_device(batch, device)`.)

    Raises HookError if it requires more arguments than there are, or one by keyword; and when it is called,
    if it has a batch to hand on and returns None.
    """
    documented = inspect.signature(getattr(base, hook))
    variable = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    offered = sum(p.kind not in variable for p in documented.parameters.values()) - 1  # without self
    if not callable(method):
        raise HookError(f"{hook} is {method!r}, which cannot be called; it is called as {hook}{documented}")
    if hook == "training_step":  # what it is given is known once the optimizers are, and checked then
        return named(method, hook)
    try:
        parameters = inspect.signature(method).parameters.values()
    except (TypeError, ValueError):  # a builtin or extension function tells nothing: trust it
        return method
    positional = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    required = [p.name for p in positional if p.default is p.empty]
    by_keyword = [p.name for p in parameters if p.kind is p.KEYWORD_ONLY and p.default is p.empty]
    if len(required) > offered or by_keyword:
        problem = f"takes {by_keyword} by keyword only" if by_keyword else f"requires {len(required)} arguments"
        raise HookError(
            f"{hook}{inspect.signature(method)} {problem}; it is called as {hook}{documented}, by position"
        )
    if any(p.kind is p.VAR_POSITIONAL for p in parameters) or len(positional) >= offered:
        call = named(method, hook)
    else:
        taken = len(positional)

        def call_with_fewer(*args: Any, **kwargs: Any) -> Any:
            return method(*args[:taken], **kwargs)

        call = named(call_with_fewer, hook)
    return handing_on(call, hook) if hook in _BATCH_HOOKS else call


def handing_on(method: Call, hook: str) -> Call:
    """`method`, which must return the batch it was given, or what it made of it."""

    def call(batch: Any, *args: Any) -> Any:
        made = method(batch, *args)
        if made is None and batch is not None:
            raise HookError(f"{hook} returned None; it must return the batch")
        return made

    return call


def named(method: Call, hook: str) -> Call:
    """`method`, run in a frame of the hook's name, by which `self.log` knows what is running: a lambda,
    a partial, or `test_step = validation_step` has another name."""
    code = getattr(method, "__code__", None) or getattr(getattr(method, "__func__", None), "__code__", None)
    if code is not None and code.co_name == hook:
        return method

    def call(*args: Any, **kwargs: Any) -> Any:
        return method(*args, **kwargs)

    call.__code__ = call.__code__.replace(co_name=hook)
    return call


def check_names(receiver: Any, base: type, known: set[str]) -> None:
    """Refuse a method whose name is nearly that of a hook, or was one once: it would silently never be called.

    Raises HookError naming the method and the nearest hook, or the one to write instead.
    """
    for owner in type(receiver).__mro__:
        if owner in base.__mro__:
            continue
        for name in _public(owner):
            if name in known or hasattr(base, name) or not inspect.isfunction(vars(owner)[name]):
                continue
            if name in REFUSED:
                raise HookError(f"{owner.__name__}.{name} is a retired hook, which is not called; use {REFUSED[name]}")
            meant = _meant(name, known)
            # A helper may be called train_step, as long as training_step is there, too.
            if meant is None or (meant == _in_full(name) and overridden(receiver, meant, base)):
                continue
            raise HookError(
                f"{owner.__name__}.{name} is no hook and would never be called; "
                f"did you mean {meant}? (If not, rename it: it is too close to a hook's name.)"
            )


def _meant(name: str, known: set[str]) -> str | None:
    """The hook that somebody who wrote `name` had in mind, if there is one."""
    if _in_full(name) in known:
        return _in_full(name)
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.85 if name.startswith("on_") else 0.9)
    return near[0] if near else None


def _in_full(name: str) -> str:
    """`name` as hooks are spelt: val_step is validation_step, train_epoch_end is training_epoch_end."""
    name = name.replace("val_", "validation_")
    return name.replace("train_", "training_") if name.startswith("train_") else name
