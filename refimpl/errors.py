"""The errors: each message says what was given, what is accepted, and the fix."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from typing import Any

__all__ = [
    "CheckpointError",
    "ConfigurationError",
    "DataError",
    "HookError",
    "LogError",
    "did_you_mean",
    "not_logged",
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
    """A file is no checkpoint, is damaged, holds more than data, does not fit, or has no place; the message says it."""


def did_you_mean(name: Any, known: Iterable[Any]) -> str:
    """The end of an error about an unknown name: the nearest of those that are known, if one is near."""
    near = difflib.get_close_matches(str(name), map(str, known), n=1)
    return f"; did you mean {near[0]!r}?" if near else ""


def not_logged(who: str, name: str | None, logged: Mapping[str, Any]) -> str:
    """What is wrong where `who` waits for a value that nobody has logged."""
    return f"{who} monitors {name!r}, which was not logged; logged were {sorted(logged)}"
