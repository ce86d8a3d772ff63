"""Which event of the contract's run an event of a trace corresponds to.

Beside the trace runs the oracle of its scenario, only as far ahead as needed. What comes where it is due corresponds at
once. Beside a call that is missing, doubled or moved, a call corresponds to the nearest one of its hook, by where the
trace is in the oracle, by the batch and the arguments; to none, if that has come already: it is one too many. What is
called in a doubled call is doubled with it, and an end belongs to its begin. So a verdict about one call stays
meaningful, whatever becomes of the others.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable, Iterator
from itertools import count
from statistics import median_low
from typing import Any, NamedTuple

from .edits import FUNCTIONS
from .hooks import TRANSFERS
from .numerics import parts
from .spec.state import Expected
from .trace import Event

__all__ = ["Alignment"]

# How far the oracle goes ahead of the trace, looking for an event's counterpart. A trainer that reorders,
# reorders within a batch or an epoch's edge; what is further away counts as missing.
LOOKAHEAD = 20_000
RECENT, NEAR = 65, 5  # by how many events the place in the oracle is told: roughly, and to the call
STEADY = 8  # so many events in the order of the contract tell that a trace is where that is
SOON = 5  # what comes with so many events between, hook and receivers, comes right after
# So many events ahead, a call is no longer the one that is due, if the last one was as like it: of a loop, of a batch,
# and even one that is more like that.
FAR, FURTHER, AWAY = 16, 48, 100
# What tells several calls of a hook apart.
TELLING = ("batch", "batch_idx", "epoch", "optimizer_idx", "optimizer", "dataloader_idx", "stage")

# The calls of a loop, which no batch is at work in; those of every loop, `on_epoch_start`, are of the one that is on.
OF_LOOP = re.compile("(?:on_)?(train|validation|test|predict|sanity_check|fit)(?:ing)?_(?:epoch_)?(?:start|end)$").match

# Phase, receiver, hook, and of a transfer hook the stage of its batch: these hooks are the same in training and
# validation, and a trainer that skips one must not shift the other's counterparts.
Key = tuple[str, str, str, str]


class Due(NamedTuple):
    """An event that the oracle has told of."""

    place: int  # how many came before it
    batch: tuple[int, Any]  # at work then, or the loop
    expected: Expected


class Open(NamedTuple):
    """A call of the trace that has not come to its end."""

    key: Key
    place: int | None  # of its counterpart
    is_again: bool  # one too many, or in one
    in_place: bool


NONE_YET: tuple[int, Any] = 0, None
NOWHERE = Open(("", "", "", ""), None, False, False)


class Alignment:
    """The oracle of one process, beside its trace. `tell` is given each event that the oracle says is to come; where
    loaders may shuffle, `is_shuffled`, which batch comes tells nothing, only its number."""

    def __init__(self, oracle: Iterator[Expected], tell: Callable[[Expected], None], is_shuffled: bool) -> None:
        self.oracle, self.tell = oracle, tell
        self.telling = TELLING[1:] if is_shuffled else TELLING
        self.produced = self.pending = 0
        self.limit = LOOKAHEAD
        self.waiting: dict[Key, deque[Due]] = {}
        self.ends: dict[int, Due] = {}  # of the calls that begin at these places
        self.told: list[int] = []  # where the oracle's open calls began
        self.taken: dict[Key, Due] = {}  # the counterpart of the last call
        self.over: dict[Key, int] = {}  # where that of the last one that has ended ends
        self.matched: deque[int] = deque(maxlen=RECENT)
        self.near: deque[int] = deque(maxlen=NEAR)
        self.batches = NONE_YET, NONE_YET  # that the oracle and the trace have named last
        self.last, self.hook = -1, ""  # the place and the hook of the last counterpart
        self.is_late = False
        self.following = STEADY  # how many events have come right after the one that they are to come after
        self.over_at: tuple[str, int | None] = "", None  # the call that has just ended, and its counterpart's end
        self.open: list[Open] = []
        self.in_place = self.is_whole = True

    def counterpart(self, event: Event) -> Expected | None:
        """The expected event that corresponds to this one; None if there is none. `in_place` tells, from then on,
        whether it comes where the contract has it, as the last ones did, and its begin if it is an end: a call that was
        moved has its counterpart right after its begin, too."""
        self.batches = self.batches[0], self._batch_at(event, self.batches[1])
        if event.ph == "E":
            begun = self._begin_of(event)
            due = self._end_of(begun)
            self.over_at = event.hook, due and due.place
            self._take_place(due)
            self.in_place = self.following >= STEADY and begun.in_place
            return due and due.expected
        key = _key(event)
        is_again, due = self._due(event, key, self.open[-1] if self.open else NOWHERE)
        self.over_at = "", None
        self._take_place(due)
        self.in_place = self.following >= STEADY
        if event.ph == "B":
            self.open.append(Open(key, due and due.place, is_again, self.in_place))
            del self.open[:-LOOKAHEAD]
        return due and due.expected

    def _take_place(self, due: Due | None) -> None:
        """The trace is where its last counterpart is; what comes much later than it is due tells nothing of that."""
        if due is None:
            return
        follows = due.place == self.last + 1
        self.following = self.following + 1 if follows else 0
        self.last = due.place
        if not follows:
            self.is_late = due.place <= self.here - AWAY
        if not self.is_late:
            self.matched.append(due.place)
            if due.expected.hook == self.hook and len(self.open) > 1:  # in a call, for all receivers it tells once
                self.near.pop()
            self.near.append(due.place)
            self.hook = due.expected.hook

    def hear_out(self) -> None:
        """The trace has ended, and what is still due is missing; but for an oracle that has much more to say."""
        self.is_whole = not all(self.advance() for _ in range(LOOKAHEAD))

    @property
    def here(self) -> int:
        """Where the trace is, to the call: the median of the last places, so that one that is late or early tells
        nothing."""
        return median_low(self.near) if self.near else -1

    def _due(self, event: Event, key: Key, around: Open) -> tuple[bool, Due | None]:
        """Whether a call is one too many, and what it corresponds to if it is not."""
        if event.hook in TRANSFERS and not key[3]:  # an unknown batch: whichever such call is due
            self.advance()
            key = next((k for k, waiting in self.waiting.items() if waiting and k[:3] == key[:3]), key)
        queue = self.waiting.get(key)
        while not queue and self._may_advance() and self.advance():
            queue = self.waiting.get(key)
        if not queue and event.hook in TRANSFERS and not around.is_again:  # with another one's, in its turn
            key = self._in_turn(key)
            queue = self.waiting.get(key)
        if not queue:
            return around.is_again or key in self.taken, None
        if not self._goes_on(event, queue) and queue[0].place != self.last + 1:
            self._skip_missing(event, queue)
            if self._is_again(event, key, queue, around):
                other = self._in_turn(key) if event.hook in TRANSFERS else key
                if other == key:
                    return True, None
                key, queue = other, self.waiting[other]
        self.pending -= 1
        self.taken[key] = queue.popleft()
        return False, self.taken[key]

    def _in_turn(self, key: Key) -> Key:
        """That of a call that differs in its batch alone, and is due right here; or else the one that was given."""
        turn = (k for k, waiting in self.waiting.items() if k[:3] == key[:3] and waiting)
        return next((k for k in turn if self.waiting[k][0].place == self.last + 1), key)

    def _goes_on(self, event: Event, queue: deque[Due]) -> bool:
        """Whether a hook comes on its next receiver: this call is due right after that on the one before."""
        hook, place = self.over_at
        if hook != event.hook or place is None:
            return False
        while self.produced <= place + 1 and self._may_advance() and self.advance():
            pass
        if all(due.place != place + 1 for due in queue):
            return False
        while queue[0].place != place + 1:
            queue.popleft()
            self.pending -= 1
        return True

    def _skip_missing(self, event: Event, queue: deque[Due]) -> None:
        """Leave out the calls that are further from where the trace is than the next, and not more like this one."""
        here = self.here
        while queue[0].place < here:
            while len(queue) < 2 and self.produced < 2 * here - queue[0].place and self._may_advance():
                if not self.advance():
                    break
            if len(queue) < 2:
                break
            is_nearer = abs(queue[1].place - here) < here - queue[0].place
            if not is_nearer or self._likeness(event, queue[1]) < self._likeness(event, queue[0]):
                break
            queue.popleft()
            self.pending -= 1

    def _likeness(self, event: Event, due: Due) -> tuple[bool, bool]:
        """Whether the batch at work is the same, and the arguments that tell calls apart, as far as both have them."""
        args = due.expected.args
        is_alike = all(event.args[name] == args[name] for name in self.telling if name in event.args and name in args)
        return due.batch == self.batches[1], is_alike

    def _is_again(self, event: Event, key: Key, queue: deque[Due], around: Open) -> bool:
        """Whether a call is more like the one before than like the one that is due."""
        before, due = self.taken.get(key), queue[0]
        here, alike = self._likeness(event, due)
        was_here, was_alike = self._likeness(event, before) if before else (False, False)
        if around.is_again:
            return not here or (was_alike and was_here)
        if before is None:
            return False
        over, is_soon = max(before.place, self.over.get(key, -1)), due.place - self.last <= SOON
        # Right after the last one has ended, and within the same call.
        is_beside = around.place is not None and around.place < before.place and 0 <= self.last - over <= SOON
        if is_beside and not is_soon and was_alike >= alike:
            return True
        is_nearer = self.here - over <= due.place - self.here  # to the one before
        if was_alike != alike:
            is_away = due.place - self.here > AWAY
            return is_nearer and (is_away or (was_alike and not self._comes_later(event, queue)))
        if is_soon:
            return False
        # Its arguments do not tell: where it is has to.
        if was_here != here:
            return was_here
        is_far = due.place - self.here > (FAR if OF_LOOP(event.hook) else FURTHER)
        return is_nearer and (is_far if here else due.place > self.here)

    def _comes_later(self, event: Event, queue: deque[Due]) -> bool:
        """Whether another such call is due in this batch: it is too early then, and not one too many."""
        for at in count(1):
            while len(queue) <= at and self.batches[0] == self.batches[1] and self._may_advance() and self.advance():
                pass
            if len(queue) <= at or queue[at].batch != self.batches[1]:
                break
            if self._likeness(event, queue[at]) == (True, True):
                return True
        return False

    def _batch_at(self, event: Event | Expected, before: tuple[int, Any]) -> tuple[int, Any]:
        """The batch at work from this event on, or the loop between its batches, in which call of the trainer."""
        run, batch = before
        if event.receiver == "trainer" and event.hook in FUNCTIONS:
            return run + 1, event.hook
        loop = OF_LOOP(event.hook)
        return run, event.args.get(self.telling[0], loop[1] if loop else batch)

    def _begin_of(self, event: Event) -> Open:
        """The call that ends here: the innermost of that name."""
        for at in reversed(range(len(self.open))):
            if self.open[at].key[1:3] == (event.receiver, event.hook):
                begun = self.open[at]
                del self.open[at:]
                return begun
        return NOWHERE

    def _end_of(self, begun: Open) -> Due | None:
        """The end of a call's counterpart."""
        if begun.place is None:
            if begun is NOWHERE and self._may_advance():
                self.advance()  # so that what is due instead is known
            return None
        while begun.place not in self.ends and self._may_advance() and self.advance():
            pass
        due = self.ends.pop(begun.place, None)
        if due is not None:
            self.over[begun.key] = due.place
        return due

    @property
    def place(self) -> int:
        """Where in the oracle the trace is: the median of the last counterparts' places. A hook that is
        called too often runs ahead of the others, one that is called late lags behind: neither counts."""
        return sorted(self.matched)[len(self.matched) // 2] if self.matched else 0

    def _may_advance(self) -> bool:
        if self.produced >= self.limit:
            self.limit = self.place + LOOKAHEAD
        return self.produced < self.limit

    def advance(self) -> bool:
        """Produce one more expected event; False at the oracle's end."""
        event = next(self.oracle, None)
        if event is None:
            return False
        self.tell(event)
        self.batches = self._batch_at(event, self.batches[0]), self.batches[1]
        due = Due(self.produced, self.batches[0], event)
        if event.ph == "E":
            self.ends[self.told.pop()] = due
        else:
            self.waiting.setdefault(_key(event), deque()).append(due)
            self.pending += 1
            if event.ph == "B":
                self.told.append(self.produced)
        self.produced += 1
        if 2 * self.pending > 3 * LOOKAHEAD:
            self._forget(self.place - LOOKAHEAD)
        return True

    def _forget(self, before: int) -> None:
        """Drop the expected events of hooks that have not come; the counts have them."""
        for queue in self.waiting.values():
            while queue and queue[0].place < before:
                queue.popleft()
                self.pending -= 1
        self.ends = {begin: end for begin, end in self.ends.items() if begin >= before}


def _key(event: Event | Expected) -> Key:
    batch = event.args.get("batch") if event.hook in TRANSFERS else None
    of = parts(batch) if isinstance(batch, str) else []
    return event.ph, event.receiver, event.hook, of[0][0] if of else ""
