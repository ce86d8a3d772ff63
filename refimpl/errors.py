"""The errors: each message says what was given, what is accepted, and the fix."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from numbers import Integral
from typing import Any

__all__ = [
    "CheckpointError",
    "ConfigurationError",
    "DataError",
    "HookError",
    "LogError",
    "did_you_mean",
    "int_from",
    "not_logged",
    "one_of",
]


class ConfigurationError(ValueError):
    """What the user returned or asked for is none of the accepted forms; the message shows both."""


class HookError(TypeError):
    """A hook is misspelt, cannot take its documented arguments, or returns no batch where it has to."""


class DataError(ValueError):
    """A loader is missing, empty, or of a kind that cannot be iterated; the message names which."""


class LogError(ValueError):
    """A value cannot be logged as asked; the message names it and what is accepted."""


class CheckpointError(ValueError):
    """A file is no checkpoint, is damaged, holds more than data, or does not fit; the message says which."""


def did_you_mean(name: Any, known: Iterable[Any]) -> str:
    """The end of an error about an unknown name: the nearest of those that are known, if one is near."""
    near = difflib.get_close_matches(str(name), map(str, known), n=1)
    return f"; did you mean {near[0]!r}?" if near else ""


def not_logged(who: str, name: str | None, logged: Mapping[str, Any]) -> str:
    """What is wrong where `who` waits for a value that nobody has logged."""
    return f"{who} monitors {name!r}, which was not logged; logged were {sorted(logged)}"


def int_from(least: int, what: str, value: Any) -> int:
    """An argument that counts, also where it is another library's int. Raises ConfigurationError for anything else."""
    if isinstance(value, bool) or not isinstance(value, Integral) or value < least:
        raise ConfigurationError(f"{what}={value!r}; an int from {least} is accepted")
    return int(value)


def one_of(accepted: Sequence[Any], what: str, value: Any) -> None:
    """Raises ConfigurationError for an argument that is none of those that are accepted, which it lists."""
    if not any(type(value) is type(known) and value == known for known in accepted):
        shown = ", ".join(map(repr, accepted[:-1]))
        raise ConfigurationError(f"{what}={value!r}; {shown} or {accepted[-1]!r} is accepted")
