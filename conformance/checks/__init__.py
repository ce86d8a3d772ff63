"""The kinds of check a clause can have. Each watches a trace go by, beside what the oracle expects.

A check is told of the expected events as the oracle produces them (`expect`), of the events of the
trace together with the expected event each corresponds to (`see`: the nth begin of a hook on a receiver
with the oracle's nth), and of the end (`finish`). Which of them it is told of, `expects` and `sees` say
once for all events alike. It keeps a bounded amount of memory and its first failure. Nothing here knows
torch, or any trainer.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .base import Check, CheckError, Failure, Line, Spec, shown
from .calls import Balance, Count, Encloses, Never, Order, Receivers, Sequence
from .effects import Argument, Changes, Effect, Handed, Logged, Parts, Updates, Waits
from .passes import Again, Anew, Outputs, Shares, Still
from .state import Repeats, State

__all__ = ["CONDITIONS", "KINDS", "Check", "CheckError", "Failure", "Line", "Spec", "build", "shown"]

KINDS: Mapping[str, type[Check]] = {
    "count": Count,
    "never": Never,
    "order": Order,
    "encloses": Encloses,
    "argument": Argument,
    "effect": Effect,
    "logged": Logged,
    "handed": Handed,
    "changes": Changes,
    "updates": Updates,
    "parts": Parts,
    "shares": Shares,
    "anew": Anew,
    "again": Again,
    "still": Still,
    "outputs": Outputs,
    "waits": Waits,
    "state": State,
    "repeats": Repeats,
    "receivers": Receivers,
    "balance": Balance,
    "sequence": Sequence,
}
# Keys of a clause's check that say when it applies, rather than what it checks.
CONDITIONS = frozenset({"kind", "given"})


def build(check: Mapping[str, Any]) -> Check:
    """A fresh check from a clause's data. Raises CheckError for an unknown kind or parameter."""
    kind = str(check.get("kind"))
    if kind not in KINDS:
        raise CheckError(f"kind {kind!r} is none of {', '.join(KINDS)}")
    given = check.get("given", [])
    if not isinstance(given, list) or not all(isinstance(word, str) for word in given):
        raise CheckError(f"given={given!r}; a list of words is accepted")
    try:
        return KINDS[kind](**{key: value for key, value in check.items() if key not in CONDITIONS})
    except TypeError as error:
        raise CheckError(f"{kind}: {str(error).rpartition('__init__() ')[2]}") from None
