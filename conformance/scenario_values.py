"""What a single value of a scenario may be, and how one that may not be is refused.

Part of reading scenarios, so it needs only the standard library of Python 3.8.
"""

from __future__ import annotations

import math
import re
from typing import Any

from .near import did_you_mean

__all__ = ["ScenarioError", "check_name", "each_of", "natural", "number", "one_of", "share"]

MOST_BYTES = 200  # of a name
MOST = 2**53 - 1  # the greatest integer that every JSON reader keeps exactly


class ScenarioError(ValueError):
    """A scenario is malformed; the message names the scenario, the value and what is accepted."""


def check_name(name: str) -> None:
    """Raises ScenarioError if it cannot be that of a file."""
    if not re.fullmatch(r"[^/\\\0]+", name) or name in (".", ".."):
        raise ScenarioError("%.80r: a scenario's name becomes a file's, and cannot hold a path" % name)
    if len(name.encode("utf-8", "replace")) > MOST_BYTES:
        raise ScenarioError("%.80r: a scenario's name becomes a file's, and has at most %d bytes" % (name, MOST_BYTES))


def one_of(where: str, value: Any, accepted: Any) -> None:
    if value not in accepted:
        known = ", ".join(map(repr, accepted)) if len(accepted) <= 16 else "the %d known" % len(accepted)
        raise ScenarioError("%s: %.80r is none of %s%s" % (where, value, known, did_you_mean(value, accepted)))


def each_of(where: str, values: Any, accepted: Any) -> None:
    for value in values:
        one_of(where, value, accepted)


def natural(where: str, value: Any, least: int = 0, most: int = MOST) -> None:
    if type(value) is not int or value < least:
        raise ScenarioError("%s: %.80r; an int from %d is accepted" % (where, value, least))
    if value > most:
        raise ScenarioError("%s: %.80r; at most %d is accepted" % (where, value, most))


def number(where: str, value: float) -> None:
    """One that 32-bit floats have, too."""
    if isinstance(value, bool) or not (isinstance(value, (int, float)) and math.isfinite(value) and abs(value) <= MOST):
        raise ScenarioError("%s: %.80r; a number is accepted" % (where, value))


def share(where: str, value: Any, least: int) -> None:
    """A count of batches from `least`, or a fraction of them, 0.0 included if `least` is 0."""
    if type(value) is int and value >= least:
        natural(where, value, least)
    elif not (isinstance(value, float) and 0 <= value <= 1 and (value > 0 or least == 0)):
        fractions = "in (0, 1]" if least else "in [0, 1]"
        raise ScenarioError("%s: %.80r; an int from %d or a float %s is accepted" % (where, value, least, fractions))
