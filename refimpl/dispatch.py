"""Who receives a hook, and in which order; resolved once per run.

`resolve` turns the module, the data module and the callbacks into one `Hooks` object with an attribute
per hook: None where nobody overrides it, otherwise something to call. The loops then need no look-up,
and a hook that nobody uses costs no call. A data module comes first, then the callbacks in their order, the
module last (clause `structure.receivers`).
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from functools import cache, partial
from typing import Any

from .callback import Callback, attach
from .errors import HookError
from .hooks import CheckpointHooks, DataHooks, Hooks, ModelHooks
from .loaders.batches import move
from .loaders.datamodule import LightningDataModule
from .module import LightningModule
from .names import TODAY, Spellings, check_names, public
from .types import Trainer

__all__ = ["Hooks", "overridden", "resolve", "takes_dataloader_idx"]

Call = Callable[..., Any]


# Called by others than the loops: as the trainer is made, when there is no module yet; as a checkpoint is.
_ELSEWHERE = {"on_init_start", "on_init_end", "state_dict", "load_state_dict", "log", "log_dict"}.union(
    public(CheckpointHooks)
)
# Methods of the module that are no hooks: the user calls them. Those of its mixins are not, either.
_CALLED_BY_USERS = set(
    "optimizers lr_schedulers manual_backward toggle_optimizer untoggle_optimizer clip_gradients "
    "freeze unfreeze".split()
)
DATA_HOOKS = public(DataHooks)
CALLBACK_HOOKS = [hook for hook in public(Callback) if hook not in _ELSEWHERE]
MODULE_HOOKS = [*public(ModelHooks), *DATA_HOOKS]
MODULE_HOOKS += [name for name in public(LightningModule) if name not in _CALLED_BY_USERS]
# Everything that a user's class may define to be called.
_HOOKS: dict[type, list[str]] = {
    LightningModule: [*MODULE_HOOKS, *public(CheckpointHooks)],
    LightningDataModule: [*DATA_HOOKS, *public(CheckpointHooks)],
    Callback: public(Callback),
}
# These run on everybody; of the other data hooks, the data module's own replaces the module's.
_SHARED_DATA_HOOKS = {"prepare_data", "setup", "teardown"}
# These hand the batch on; forgetting to return it is an error that is hard to find later.
_BATCH_HOOKS = {"on_before_batch_transfer", "transfer_batch_to_device", "on_after_batch_transfer"}
# Everybody receives these, even if another one's raises.
_CLOSING = {"on_exception", "teardown"}
# Hooks with a documented default, which runs where nobody overrides them.
_DEFAULTS = {
    *"backward optimizer_zero_grad optimizer_step predict_step tbptt_split_batch".split(),
    *(hook for hook in MODULE_HOOKS if "_model_" in hook),
}


def overridden(receiver: Any, hook: str, base: type) -> Call | None:
    """The receiver's own implementation of `hook`, or None if that is the base's, or was set to None."""
    method = getattr(receiver, hook, None)
    return None if getattr(method, "__func__", method) is getattr(base, hook, None) else method


def resolve(
    trainer: Trainer, module: LightningModule, datamodule: LightningDataModule | None, callbacks: Sequence[Callback],
    spellings: Spellings = TODAY
) -> Hooks:  # fmt: skip
    """Everything the loops will call, for one run.

    Raises HookError for what cannot be called, or would not be, although the name of a method says so.
    """
    owners = [(module, LightningModule), (datamodule, LightningDataModule), *((owner, Callback) for owner in callbacks)]
    for receiver, base in owners:
        if receiver is not None:
            check_names(receiver, _HOOKS, spellings)
        for hook in _ELSEWHERE.intersection(_HOOKS[base]):
            if method := overridden(receiver, hook, base):
                fitted(method, hook, base)
    for callback in callbacks:
        attach(callback, module)
    hooks = Hooks()
    for hook in dict.fromkeys([*CALLBACK_HOOKS, *MODULE_HOOKS]):
        data = overridden(datamodule, hook, LightningDataModule) if hook in DATA_HOOKS else None
        first = [] if data is None else [fitted(data, hook, LightningDataModule)]
        if first and hook not in _SHARED_DATA_HOOKS:
            setattr(hooks, hook, first[0])
            continue
        first += [
            partial(fitted(method, hook, Callback), trainer, module)
            for callback in callbacks
            if hook in CALLBACK_HOOKS and (method := overridden(callback, hook, Callback))
        ]
        setattr(hooks, hook, _fan_out(hook, first, _own(module, hook)))
    return hooks


def _own(module: LightningModule, hook: str) -> Call | None:
    """What the module does for `hook`: its own method, the documented default, or nothing."""
    if hook in MODULE_HOOKS and (method := overridden(module, hook, LightningModule)):
        return fitted(method, hook, LightningModule)
    if hook == "transfer_batch_to_device":
        return move  # what the default does, without the method around it
    # The default is the class's, also where the user set it to None.
    return getattr(LightningModule, hook).__get__(module) if hook in _DEFAULTS else None


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

    def call_all(*args: Any) -> Any:
        for call in first:
            call(*args)
        return last(*args) if last else None

    return call_all


def takes_dataloader_idx(module: LightningModule, step: str) -> tuple[bool, bool]:
    """Whether the user's step can take `dataloader_idx` after the batch and its index, and whether it
    must: the documentation gives it with several loaders only, yet some of its examples require it."""
    try:
        signature = inspect.signature(getattr(module, step))
    except (TypeError, ValueError):  # a builtin or extension function tells nothing: trust it
        return True, False

    def takes(count: int) -> bool:
        with suppress(TypeError):
            return bool(signature.bind(*range(count)))
        return False

    return takes(3), takes(3) and not takes(2)


def fitted(method: Call, hook: str, base: type) -> Call:
    """`method` as it can be called with the documented arguments: trailing ones it does not take are
    left out. (The documentation itself writes `transfer_batch_to_device(batch, device)`.)

    Raises HookError if it requires more arguments than there are, or one by keyword, or has one in the place of
    another; and when it is called, if it has a batch to hand on and returns None.
    """
    documented = _signature(getattr(base, hook))

    def wrong(problem: str) -> HookError:
        return HookError(f"{problem}; it is called as {hook}{documented}, by position")

    if not callable(method):
        raise wrong(f"{hook} is {method!r}, which cannot be called")
    if hook == "training_step":  # what it is given is known once the optimizers are, and checked then
        return named(method, hook)
    try:
        signature = inspect.signature(method)
    except (TypeError, ValueError):  # a builtin or extension function tells nothing: trust it
        return method
    offered, taken = _by_position(documented)[1:], _by_position(signature)  # without self
    takes_all = hook in _ELSEWHERE or any(p.kind is p.VAR_POSITIONAL for p in signature.parameters.values())
    count = len(offered) if takes_all else min(len(offered), len(taken))
    try:
        signature.bind(*offered[:count])
    except TypeError as problem:
        raise wrong(f"{hook}{signature}: {problem}") from None
    for name, place in zip(taken, offered):
        if name != place and name in offered:
            raise wrong(f"{hook}{signature} has {name!r} in the place of {place!r}")

    def call(*args: Any, **kwargs: Any) -> Any:
        made = method(*args[:count], **kwargs)
        if hands_on and made is None and args[0] is not None:
            raise HookError(f"{hook} returned None; it must return the batch")
        return made

    hands_on = hook in _BATCH_HOOKS
    return named(call if hands_on or count < len(offered) else method, hook)


_signature = cache(inspect.signature)  # of what is documented, which does not change


def _by_position(signature: inspect.Signature) -> list[str]:
    return [p.name for p in signature.parameters.values() if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]


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
