"""What a method is called: under a name that is nearly a hook's, or another's hook, it would silently not be called."""

from __future__ import annotations

import difflib
import inspect
import warnings
from collections.abc import Collection, Mapping
from types import FunctionType
from typing import Any, NamedTuple

from .callback import Callback
from .errors import HookError

__all__ = ["Spellings", "check_names", "in_words", "public"]

# What other libraries and releases have in the place of a word of hooks.
_WORDS = {
    **{"batch": "step", "training": "train", "testing": "test", "predicting": "predict", "prediction": "predict"},
    **dict.fromkeys("starts started begin begins".split(), "start"),
    **dict.fromkeys("ends ended finish finished".split(), "end"),
    **dict.fromkeys("valid validate validating validation eval evaluate evaluating evaluation".split(), "val"),
    **{"optim": "optimizer", "optimizers": "optimizer", "dataloaders": "dataloader"},
}


class Spellings(NamedTuple):
    """Names of other releases: hooks of a callback that are called, each with one of today's; hooks that are not
    called, and arguments of one that are not given, with what to use instead."""

    called: Mapping[str, str] = {}
    refused: Mapping[str, str] = {}
    arguments: Mapping[tuple[str, str], str] = {}


TODAY = Spellings()


def public(owner: type) -> list[str]:
    """The public methods that a class itself defines."""
    kinds = (FunctionType, classmethod, staticmethod)
    return [name for name, value in vars(owner).items() if isinstance(value, kinds) and not name.startswith("_")]


def check_names(receiver: Any, hooks: Mapping[type, Collection[str]], spellings: Spellings = TODAY) -> None:
    """Whether the receiver, of one or more of the classes that have `hooks`, has a method that is not called although
    its name says so.

    Raises HookError for a name that is nearly a hook's, naming that, and for one of other releases, naming what to use
    instead. Warns of a hook of another of these classes, and of an argument that is not given.
    """
    engines = [owner for owner in type(receiver).__mro__ if owner.__module__.split(".")[0] == __package__]
    users = [owner for owner in reversed(type(receiver).__mro__) if owner not in engines]
    given = {name for owner in engines for name in dir(owner)}
    whose = dict.fromkeys(spellings.called, Callback) | {name: base for base in hooks for name in hooks[base]}
    known = {name for owner in engines for name in public(owner)} | {name for name in whose if name.startswith("on_")}
    spelt = {spelling: spellings.called.get(name, name) for name in known for spelling in (name, in_words(name))}
    for name, owner in {name: user for user in users for name in public(user)}.items():
        method = f"{owner.__name__}.{name}"
        if name in given:
            for (hook, argument), instead in spellings.arguments.items():
                if [each for each in (owner, *engines) if hook == name and _takes(each, hook, argument)] == [owner]:
                    warnings.warn(f"{method} takes {argument!r}, which it is not given; {instead}", stacklevel=4)
        elif name in spellings.refused:
            instead = spellings.refused[name]
            raise HookError(f"{method} is a hook of other releases, which is not called; use {instead}")
        elif name in whose:
            if name not in spellings.called or Callback not in engines:
                warnings.warn(f"{name} is a hook of {whose[name].__name__}: {method} is not called", stacklevel=4)
        elif meant := _meant(name, spelt):
            is_there = any(meant in vars(each) for each in (receiver, *users)) and getattr(receiver, meant) is not None
            if is_there and in_words(name) in spelt:
                continue  # a helper may be called train_step, as long as training_step is there, too
            raise HookError(f"{method} is no hook and would never be called; did you mean {meant}? (If not, rename it: "
                            "it is too close to a hook's name.)")  # fmt: skip


def in_words(name: str) -> str:
    """A name in the words of hooks, in which two that mean the same are equal: of on_training_batch_begin and
    on_train_step_start, the latter."""
    return "_".join(_WORDS.get(word, word) for word in name.replace("data_loader", "dataloader").split("_"))


def _meant(name: str, spelt: Mapping[str, str]) -> str | None:
    """The hook that somebody who wrote `name` had in mind, if there is one."""
    words = in_words(name)
    if words in spelt:
        return spelt[words]
    known = {*_WORDS, *"_".join(spelt).split("_")}
    spellings, cutoff = [words], 0.85 if name.startswith("on_") else 0.9
    if "_" in words:  # each of them may be misspelt, or what they spell together
        corrected = (next(iter(difflib.get_close_matches(word, known, 1, 0.8)), word) for word in words.split("_"))
        spellings.insert(0, in_words("_".join(corrected)))
    near = [near for spelling in spellings for near in difflib.get_close_matches(spelling, spelt, 1, cutoff)]
    return spelt[near[0]] if near else None


def _takes(owner: type, method: str, argument: str) -> bool:
    return hasattr(owner, method) and argument in inspect.signature(getattr(owner, method)).parameters
