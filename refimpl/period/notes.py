"""Notes for exceptions in hooks whose cause is how the documentation was read, and not as scripts knew it. [R97]"""

from __future__ import annotations

import functools
import re
import traceback
from collections.abc import Callable
from contextlib import suppress
from types import FrameType, NoneType
from typing import Any, NamedTuple, ParamSpec, TypeVar

from torch import Tensor

from ..callback import Callback
from ..errors import of_the_engine

__all__ = ["NOTES", "Note", "explain", "explained"]

P = ParamSpec("P")
R = TypeVar("R")


class Note(NamedTuple):
    """What is said of an exception, and by what it is recognised: patterns of the hook's name, of the exception's text
    and of the line that raised it, its type, and what kind of output the hook was given."""

    says: str
    rows: str  # of docs/interpretations.md
    hook: str
    error: type[Exception] | tuple[type[Exception], ...]
    text: str
    line: str = ""
    output: type = object


_EPOCH_END, _BATCH_END = "^(training|validation|test)_epoch_end", "^on_(train|validation|test)_batch_end"
_KEY = r"\[\s*['\"]"  # of outputs["loss"]
NOTES = (
    Note("outputs is, or holds, what the step returned, which was a tensor and no dict", "R34",
         f"{_EPOCH_END}|{_BATCH_END}", (IndexError, TypeError),
         "too many indices|invalid data type 'str'|0-dim tensor", rf"{_KEY}|\[0\]", Tensor),
    Note("outputs is, or holds, a list, since there are several loaders, optimizers, or pieces of a batch", "R32, R40",
         f"{_EPOCH_END}|{_BATCH_END}", TypeError, "list indices", _KEY, list),
    Note("outputs is empty: what steps returned as None is left out, and so are batches that were skipped", "R20, R32",
         _EPOCH_END, (RuntimeError, ValueError, ArithmeticError, IndexError), "non-empty|by zero|out of range", "",
         NoneType),
    Note("outputs is None: the step returned None, or optimizer_step did not call its closure", "R34",
         _BATCH_END, TypeError, "NoneType' object is not", "", NoneType),
    Note("the batch is still where the loader left it; it is moved to the device after this hook", "R2",
         "^on_(train|validation|test|predict)_batch_start", RuntimeError, "(same|expected) device"),
    Note("a loader is asked for when its first epoch begins; until then the trainer has None in its place", "R24",
         "", (AttributeError, TypeError), "NoneType", r"trainer\.(train_dataloader|(val|test|predict)_dataloaders)\b"),
    Note("trainer.train_dataloader is the loader as the script gave it, in no wrapper", "R67",
         "", AttributeError, "'loaders'", r"\btrain_dataloader\.loaders\b"),
)  # fmt: skip


def explain(exception: BaseException) -> None:
    """Add a note to an exception that was raised in a hook, if its cause is one that can be recognised."""
    trace = exception.__traceback__
    hook, user, line = "", None, ""
    for (frame, _), shown in zip(traceback.walk_tb(trace), traceback.extract_tb(trace)):
        line, own = shown.line or "", of_the_engine(frame)
        # The loops call a hook as `hooks.name(...)`; a script may have defined it under any name.
        if own and (called := re.findall(r"\bhooks\.(\w+)\(", line)):
            hook, user = called[-1], None
        elif user is None and not own:
            user = frame
    if user is None:
        return
    output = _output(hook, user)
    for note in NOTES:
        recognised = isinstance(exception, note.error) and isinstance(output, note.output)
        patterns = ((note.hook, hook), (note.text, str(exception)), (note.line, line))
        if recognised and all(re.search(*each) for each in patterns):
            where = f"{hook}: " if note.hook else ""
            said = f"({where}{note.says}; see {note.rows} in docs/interpretations.md)"
            if said not in getattr(exception, "__notes__", ()):  # as it is where runs are nested
                exception.add_note(said)


def _output(hook: str, frame: FrameType) -> Any:
    """What a hook is given after the module, or, if it is a callback's, after trainer and module; of a list at the end
    of an epoch the first item, None for an empty one."""
    names = frame.f_code.co_varnames[: frame.f_code.co_argcount]
    place = 3 if names and isinstance(frame.f_locals.get(names[0]), Callback) else 1
    given = frame.f_locals.get(names[place]) if len(names) > place else ...
    if re.search(_EPOCH_END, hook):
        return next(iter(given), None) if isinstance(given, list) else ...
    return given


def explained(method: Callable[P, R]) -> Callable[P, R]:
    """A method of the trainer, whose exceptions are explained as they surface."""

    @functools.wraps(method)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return method(*args, **kwargs)
        except Exception as exception:
            with suppress(Exception):  # whatever is wrong with a note, the user's exception is what surfaces
                explain(exception)
            raise

    return call
