"""Hyperparameters: what `__init__` was given, kept, logged, and given to it again when a checkpoint is loaded."""

from __future__ import annotations

import copy
import inspect
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from inspect import Parameter
from traceback import walk_stack
from types import FrameType
from typing import Any

from torch import nn

from ..errors import ConfigurationError, did_you_mean, warn
from .config import AttributeDict, Kinds, build, container, is_config, kind_of, plain, rebuilt, settings

__all__ = ["HyperparametersMixin", "init_arguments", "logged_hparams", "plain_hparams"]

#: Arguments of `__init__` that held hyperparameters: None for one under its own name; for an object that held several,
#: its kind and their names.
Arguments = Mapping[str, tuple[str, list[str]] | None]


class HyperparametersMixin:
    """`save_hyperparameters` and `hparams`, for modules, data modules, and any class of your own."""

    _hparams: AttributeDict | None = None
    _hparams_initial: AttributeDict | None = None
    #: `Arguments` of the outermost `__init__`.
    _hparams_arguments: Mapping[str, Any] = {}
    _hparams_unlogged: frozenset[str] = frozenset()
    #: What the keys in a checkpoint begin with.
    _hparams_prefix = ""

    @property
    def hparams(self) -> AttributeDict:
        """What `save_hyperparameters` kept, to be read as attributes or as items, and changed. An OmegaConf config
        to which nothing was added is there as it is. ("hparams")"""
        if self._hparams is None:
            self._hparams = AttributeDict()
        return self._hparams

    @hparams.setter
    def hparams(self, value: Any) -> None:
        raise AttributeError("hparams cannot be set; call save_hyperparameters, or set an entry: self.hparams.lr = 1")

    @property
    def hparams_initial(self) -> AttributeDict:
        """The values as they were when they were kept, whatever has become of `hparams`: deep copies, but for
        modules and what cannot be copied."""
        return AttributeDict() if self._hparams_initial is None else self._hparams_initial

    def save_hyperparameters(
        self, *args: Any, ignore: Sequence[str] | str | None = None, frame: FrameType | None = None,
        logger: bool = True
    ) -> None:  # fmt: skip
        """Keep arguments of `__init__`, with the values that they have now, in `hparams`.

        Called in `__init__`, or in what it calls. Where a subclass's `__init__` has called its parent's, the
        arguments of both are known; of two with the same name, the subclass's counts. What `**kwargs` holds is
        known by its names, what `*args` holds is not. Each call adds to what is kept.

        Args:
            args: names of arguments; none for all of them; or one object, whose entries are kept: a dict, a
                Namespace, an OmegaConf config, the instance of a dataclass.
            ignore: a name, or names, to leave out.
            frame: where to begin the search for `__init__`, if not with the caller.
            logger: whether loggers are given them, too.

        Raises ConfigurationError for an unknown name, for an object of another kind, and outside of `__init__`,
        unless an object is given. ("save_hyperparameters")
        """
        chain = list(_running_inits(self, frame or sys._getframe(1)))
        named = all(isinstance(arg, str) for arg in args)
        if named and not chain:
            call, init = f"save_hyperparameters({', '.join(map(repr, args))})", f"{type(self).__name__}.__init__"
            raise ConfigurationError(f"{call} outside of {init}: call it there, or give it a dict")
        inits = {name: value for given in chain for name, value in given.items()}  # of two, the subclass's is last
        known = inits if named else settings(args[0] if len(args) == 1 else args)
        ignored = [ignore] if isinstance(ignore, str) else list(ignore or ())
        names = args if named and args else known
        for name in [*names, *ignored]:
            if name not in [*known]:  # a config says of a value that is missing that it is not in it
                hint = did_you_mean(name, known)
                raise ConfigurationError(f"save_hyperparameters: there is no {name!r} among {sorted(known)}{hint}")
        saved = known if names is known and not ignored else {n: known[n] for n in names if n not in ignored}
        self._hparams = _added(self._hparams, saved)
        self._hparams_initial = _added(self._hparams_initial, _copied(saved))
        held = _arguments(saved, chain[-1] if chain else {}, None if named else args[0])
        self._hparams_arguments = {**self._hparams_arguments, **held}
        self._hparams_unlogged = self._hparams_unlogged - {*saved} if logger else self._hparams_unlogged | {*saved}


def _running_inits(owner: Any, frame: FrameType) -> Iterator[dict[str, Any]]:
    """The arguments by name of each `__init__` of `owner` that is running, those of the outermost last."""
    inner: dict[str, Any] = {}  # what the one within has got by position
    for running, _ in walk_stack(frame):
        info = inspect.getargvalues(running)
        if running.f_code.co_name == "__init__" and info.args and info.locals.get(info.args[0]) is owner:
            named = {name: info.locals[name] for name in info.args[1:] if name in info.locals}
            handed_on = _handed_on(info.locals.get(info.varargs or "", ()), inner)
            inner = {n: v for n, v in named.items() if n in info.args[: running.f_code.co_argcount]} | handed_on
            yield named | handed_on | info.locals.get(info.keywords or "", {})


def _handed_on(objects: Sequence[Any], inner: Mapping[str, Any]) -> dict[str, Any]:
    """What `*args` holds, by the names under which the `__init__` within has got it: where most of the objects are the
    same in the same order, for one that it has given another value is not."""
    names = list(inner)
    rows = [names[start : start + len(objects)] for start in range(len(names) - len(objects) + 1)]
    same = [sum(inner[name] is value for name, value in zip(row, objects)) for row in rows]
    return {name: inner[name] for name in rows[same.index(max(same))]} if any(same) else {}


def _added(before: AttributeDict | None, saved: Mapping[str, Any]) -> Any:
    """What was kept before and `saved`; an OmegaConf config stays one as long as it is alone."""
    if not before and is_config(saved):
        return saved
    together = AttributeDict(before or {}) if before is None or is_config(before) else before
    together.update(saved)
    return together


def _copied(saved: Mapping[str, Any]) -> Any:
    """Deep copies, but for modules, which may be large, and for what cannot be copied."""
    if is_config(saved):
        return copy.deepcopy(saved)
    copies, memo = dict(saved), {}  # type: dict[str, Any], dict[int, Any]
    for name, value in saved.items():
        with suppress(Exception):  # whatever the value's own methods raise
            copies[name] = value if isinstance(value, nn.Module) else copy.deepcopy(value, memo)
    return copies


def _arguments(saved: Mapping[str, Any], given: Mapping[str, Any], one: Any) -> Arguments:
    """Which of the arguments `given` hold what is saved: the one that is the object `one`, or those of the names."""
    holder = next((name for name, value in given.items() if one is not None and value is one), None)
    if holder is not None:
        return {holder: (str(kind_of(one)), list(saved))}
    return {name: None for name in given if name in saved}


# ---- to the loggers --------------------------------------------------------------------------------------


def logged_hparams(*owners: HyperparametersMixin | None) -> dict[str, Any]:
    """The hyperparameters of all owners that loggers are to have, with the values that they have now.

    Raises ConfigurationError where two owners have different values under one name.
    """
    together: dict[str, Any] = {}
    for owner in [owner for owner in owners if owner is not None]:
        for name, value in container(owner.hparams).items():
            if name in owner._hparams_unlogged:
                continue
            if name in together and not _same(together[name], value):
                raise ConfigurationError(f"the loggers would be given two values of the hyperparameter {name!r}: "
                                         f"{together[name]!r}, and {value!r} of {type(owner).__name__}; rename one, or "
                                         "save one with logger=False")  # fmt: skip
            together[name] = value
    return together


def _same(one: Any, other: Any) -> bool:
    try:
        return one is other or bool(one == other)
    except (RuntimeError, ValueError):  # tensors or arrays of several elements
        return False


# ---- to a checkpoint, and back ---------------------------------------------------------------------------


def plain_hparams(owner: HyperparametersMixin) -> tuple[dict[str, Any], list[str]]:
    """What a checkpoint keeps of the hyperparameters, and the names of those that have no form as plain data.

    All of it is plain data (`config.py`), under these keys, each with "datamodule_" before it for a data module, and
    nothing at all without hyperparameters:
    - "hyper_parameters": the values by name;
    - "hparams_kinds": what was no plain data, by the keys and indices that lead to it: ("net", "sizes", 0) -> "Path";
    - "hparams_arguments": the arguments of `__init__` that held them: None for one under its own name, or the kind of
      an object and the names of what it held.
    """
    if not owner.hparams and not owner._hparams_arguments:
        return {}, []
    values, kinds, left_out = {}, {}, []  # type: dict[str, Any], Kinds, list[str]
    for name, value in container(owner.hparams).items():
        found: Kinds = {}
        try:
            values[name] = plain(value, (name,), found)
        except (ConfigurationError, RecursionError):  # of a kind that has none; holds itself
            left_out.append(name)
        else:
            kinds |= found
    state = {"hyper_parameters": values, "hparams_kinds": kinds, "hparams_arguments": dict(owner._hparams_arguments)}
    return {owner._hparams_prefix + key: value for key, value in state.items()}, left_out


def init_arguments(
    cls: type[HyperparametersMixin], saved: Mapping[str, Any], overrides: Mapping[str, Any]
) -> tuple[list[Any], dict[str, Any]]:
    """The arguments for `cls`, by position and by name, out of a checkpoint that holds what `plain_hparams` returned.

    An argument gets what was saved under its name, and `*args` and `**kwargs` what they were given. One that was given
    an object of several hyperparameters gets an object of that kind again, for a dataclass an AttributeDict, and in it
    what was added to `hparams` later. An override takes the place of an argument, or else of a value in such an object.
    Of Lightning's checkpoints, "hyper_parameters" and "hparams_name" are read.

    Raises ConfigurationError for a required argument that is neither saved nor overridden. Warns of what nothing takes.
    """
    hparams, arguments = _read(saved, cls._hparams_prefix)
    parameters = inspect.signature(cls).parameters.values()
    kinds = {p.kind for p in parameters}
    takes_any, takes_more = Parameter.VAR_KEYWORD in kinds, Parameter.VAR_POSITIONAL in kinds
    named = {p.name: p for p in parameters if p.kind not in (Parameter.VAR_KEYWORD, Parameter.VAR_POSITIONAL)}

    given: dict[str, Any] = {}
    objects: dict[str, dict[str, Any]] = {name: {} for name, held in arguments.items() if held}
    holders = {key: objects[name] for name, held in arguments.items() if held for key in held[1]}
    only = next(iter(objects.values())) if len(objects) == 1 else None  # the place of what has no other
    for name, value in hparams.items():
        place = holders.get(name, given if name in named or name in arguments else only)
        if place is not None:  # else it is for the subclass to hand it to its parent
            place[name] = value
    for name, value in overrides.items():
        place = given if name in named or name in arguments else holders.get(name, None if takes_any else only)
        (given if place is None else place)[name] = value
    given |= {name: build(held[0], objects[name]) for name, held in arguments.items() if held and name not in given}

    missing = [name for name, p in named.items() if p.default is p.empty and name not in given]
    if missing:
        raise ConfigurationError(f"{cls.__name__} requires {', '.join(missing)}, which is not among the saved "
                                 f"hyperparameters {sorted(hparams)}; give it: load_from_checkpoint(..., "
                                 f"{missing[0]}=...)")  # fmt: skip
    in_order = takes_more and not takes_any  # then names would not do
    first = [name for name, p in named.items() if p.kind < (p.KEYWORD_ONLY if in_order else p.POSITIONAL_OR_KEYWORD)]
    more = [name for name in arguments if name in given and name not in named] if in_order else []
    positional = [given.pop(name, named[name].default) for name in first] + [given.pop(name) for name in more]
    for name in () if takes_any else sorted(given.keys() - named.keys()):
        given.pop(name)
        hint = did_you_mean(name, [*named, *holders])
        warn(f"{cls.__name__} takes no {name!r}, which is left out{hint}")
    return positional, given


def _read(saved: Mapping[str, Any], prefix: str) -> tuple[dict[str, Any], Arguments]:
    """The hyperparameters in a checkpoint, and the arguments that held them."""
    kinds, values = saved.get(prefix + "hparams_kinds", {}), saved.get(prefix + "hyper_parameters", {})
    hparams = {name: rebuilt(value, (name,), kinds) for name, value in values.items()}
    holder = saved.get(prefix + "hparams_name", "kwargs")  # Lightning's: the object, if there was one
    held = dict.fromkeys(hparams) if holder == "kwargs" else {holder: ("AttributeDict", list(hparams))}
    return hparams, saved.get(prefix + "hparams_arguments", held)
