"""The errors: each message says what was given, what is accepted, and the fix."""

from __future__ import annotations

import difflib
import os
import sys
import warnings
from collections.abc import Iterable, Mapping, Sequence
from numbers import Integral
from types import FrameType
from typing import Any

__all__ = [
    "CheckpointError", "ConfigurationError", "DataError", "HookError", "LogError", "ProcessError", "count",
    "did_you_mean", "is_first_process", "not_logged", "of_the_engine", "one_of", "shown", "warn",
]  # fmt: skip


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


class ProcessError(RuntimeError):
    """Another process of the run has failed, ended or not come; the message says which, and of what."""


def did_you_mean(name: Any, known: Iterable[Any]) -> str:
    """The end of an error about an unknown name: the nearest of those that are known, if one is near."""
    near = difflib.get_close_matches(str(name), map(str, known), n=1)
    return f"; did you mean {near[0]!r}?" if near else ""


def not_logged(who: str, name: str | None, logged: Mapping[str, Any]) -> str:
    """What is wrong where `who` waits for a value that nobody has logged."""
    return f"{who} monitors {name!r}, which was not logged; logged were {sorted(logged)}"


def of_the_engine(frame: FrameType) -> bool:
    """Whether it is a function of the engine that runs there, and not one of the user's or of a library."""
    return str(frame.f_globals.get("__name__")).startswith(__name__.partition(".")[0] + ".")


def count(name: str, value: Any, least: int = 0) -> int:
    """An argument that counts, also where it is another library's int. Raises ConfigurationError for anything else."""
    if isinstance(value, bool) or not isinstance(value, Integral) or value < least:
        raise ConfigurationError(f"{name}={value!r}; an int from {least} is accepted")
    return int(value)


def one_of(name: str, value: Any, accepted: Sequence[Any]) -> Any:
    """An argument of which a few values are accepted. Raises ConfigurationError for any other, listing them."""
    if not any(type(value) is type(known) and value == known for known in accepted):
        listed = ", ".join(map(repr, accepted[:-1]))
        raise ConfigurationError(f"{name}={value!r}; {listed} or {accepted[-1]!r} is accepted")
    return value


def shown(value: Any) -> str:
    """A short description of a wrong value: its type, and its items' types."""
    if isinstance(value, (list, tuple)):
        return f"a {type(value).__name__} of {[type(item).__name__ for item in value]}"
    return f"{type(value).__name__} {value!r}"[:120]


def is_first_process() -> bool:
    """Whether this is the process of rank 0, of the variable RANK, which whoever starts several processes sets."""
    return int(os.environ.get("RANK", 0)) == 0


def warn(message: str, category: type[Warning] = UserWarning) -> None:
    """Python's `warnings.warn`, at the line of the user's that led here, however deep in the engine; of several
    processes the first one warns."""
    if not is_first_process():
        return
    frame, level = sys._getframe(1), 2
    while frame.f_back and of_the_engine(frame):
        frame, level = frame.f_back, level + 1
    warnings.warn(message, category, stacklevel=level)
