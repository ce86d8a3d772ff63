"""What every kind of check has: the hooks it is about, the events it is told of, and its first failure."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

from ..hooks import HOOKS
from ..near import did_you_mean
from ..spec.oracle import CALLBACK_ONLY
from ..spec.state import Expected
from ..trace import Event

__all__ = ["MOST_PENDING", "AtHooks", "Check", "CheckError", "Failure", "Line", "Pending", "Spec", "hooks_of", "shown"]

LONGEST, MOST = 100, 500  # characters of a value in a message, and of a message
MOST_PENDING = 1000  # what a check remembers of calls that have not come: beyond this they count as missing


class CheckError(ValueError):
    """A clause's check is malformed; the message names the key and what is accepted."""


@dataclass(frozen=True)
class Failure:
    """The first time a check failed: where in the trace (None: it ended), why, what was expected."""

    seq: int | None
    reason: str
    expected: str = ""
    seen: str = ""


def shortened(text: str, most: int) -> str:
    """As much of a text as there is room for."""
    return text if len(text) <= most else text[:most] + "..."


def shown(event: Event | Expected) -> str:
    """An event in words: "module.on_train_batch_start begins (batch_idx=1)"."""
    verb = {"B": "begins", "E": "ends", "I": "happens"}[event.ph]
    args = ", ".join(f"{name}={shortened(str(value), LONGEST)}" for name, value in event.args.items())
    return f"{event.receiver}.{event.hook} {verb}" + (f" ({args})" if args else "")


class Line(NamedTuple):
    """What events have in common that are alike for every check: begin or end, whose, which hook, and
    the function of the pseudocode it is a line of; None for an event that no line corresponds to."""

    ph: str
    receiver: str
    hook: str
    scope: str | None

    @property
    def primary(self) -> bool:
        """Whether this is the one receiver that stands for the hook: the module where it gets it."""
        if self.hook in CALLBACK_ONLY:
            return self.receiver == "callback:0"
        return not self.receiver.startswith("callback:")


class Spec:
    """Hooks a check is about: "on_epoch_start", "on_epoch_start@val_loop" for one function's line, or
    "scheduler.step" for one receiver's."""

    def __init__(self, hooks: Iterable[str]) -> None:
        self.hooks: dict[str, set[tuple[str, str]]] = {}
        for text in hooks:
            receiver_and_hook, _, scope = text.partition("@")
            receiver, _, hook = receiver_and_hook.rpartition(".")
            if hook not in HOOKS:
                raise CheckError(f"{hook!r} is no hook{did_you_mean(hook, HOOKS)}")
            self.hooks.setdefault(hook, set()).add((receiver, scope))
        self.held: dict[tuple[str, str, str | None], bool] = {}

    def names(self, receiver: str, hook: str) -> bool:
        """Whether the hook of this receiver is meant, in whichever function."""
        return any(named in ("", receiver) for named, _ in self.hooks.get(hook, ()))

    def holds(self, line: Line | Expected) -> bool:
        """Whether this line of the pseudocode, at this receiver, is meant."""
        key = line.receiver, line.hook, line.scope
        known = self.held.get(key)
        if known is None:
            known = self.held[key] = line.scope is not None and any(
                receiver in ("", line.receiver) and scope in ("", line.scope)
                for receiver, scope in self.hooks.get(line.hook, ())
            )
        return known


def hooks_of(*specs: Spec) -> frozenset[str]:
    """The names of the hooks that they are about."""
    return frozenset(hook for spec in specs for hook in spec.hooks)


class Check:
    """Base of all kinds. `hooks` are those it is about, None for all; `needed` are those of them without
    which it cannot be judged, while of the others it takes any. `of_all`: it sees the events of all processes;
    `in_place`: only those that come right after the one that they are to come after; `goes_on`: even after it has
    failed."""

    hooks: frozenset[str] | None = None
    needed: frozenset[str] = frozenset()
    of_all = in_place = goes_on = False

    def __init__(self) -> None:
        self.failure: Failure | None = None
        self.suspect: int | None = None  # at which event something is that may prove to be a failure
        self.exercised = False

    def fail(self, seq: int | None, reason: str, expected: str = "", seen: str = "") -> None:
        """Remember the first failure."""
        if self.failure is None:
            self.failure = Failure(seq, *(shortened(text, MOST) for text in (reason, expected, seen)))

    def expects(self, line: Line) -> bool:
        """Whether `expect` is to be told of such events."""
        return False

    def sees(self, line: Line) -> bool:
        """Whether `see` is to be told of such events."""
        return False

    def expect(self, expected: Expected) -> None:
        """The oracle says that this event is to come."""

    def see(self, event: Event, expected: Expected | None) -> None:
        """The trace holds this event; `expected` is its counterpart, None if there is none."""

    def finish(self, whole: bool) -> None:
        """The trace has ended; `whole` says whether the oracle has, too, or had much more to come."""


class AtHooks(Check):
    """Base of what is judged at the `at` ("B", "E" or "BE") of each call of `hooks`."""

    def __init__(self, hooks: list[str], at: str) -> None:
        super().__init__()
        self.spec, self.at = Spec(hooks), at
        self.hooks = hooks_of(self.spec)

    def sees(self, line: Line) -> bool:
        return line.ph in self.at and self.spec.holds(line)


class Pending:
    """What the oracle said of calls that have not come: an int each."""

    def __init__(self) -> None:
        self.queue: deque[tuple[Expected, int]] = deque(maxlen=MOST_PENDING)

    def put(self, expected: Expected, said: int) -> None:
        """This call is to come."""
        self.queue.append((expected, said))

    def take(self, expected: Expected) -> int | None:
        """What was said of this call, which has come; those before it will not. None if it was forgotten."""
        while self.queue:
            waiting, said = self.queue.popleft()
            if waiting is expected:
                return said
        return None
