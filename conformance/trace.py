"""The trace format: read it, write it, validate it. `docs/traces.md` explains it.

A trace is what a trainer did, as JSON Lines: a header, one event a line, a footer with the count.
It is the hinge between the half that records, in the trainer's own world, and the half that judges,
so this file and `lines`, which knows what one line may be, need only the standard library and run on
Python 3.8.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from typing import IO, Any, Callable

from .lines import (
    FORMAT,
    MAX_LINE,
    VERSION,
    Event,
    Footer,
    Header,
    Malformed,
    encode,
    event_of,
    footer_of,
    header_of,
    parse,
)

__all__ = ["Event", "Footer", "Header", "TraceError", "TraceReader", "TraceWriter", "open_trace"]


class TraceError(ValueError):
    """A file is no valid trace. `line` counts from 1; 0 is the file as a whole."""

    def __init__(self, path: str, line: int, message: str) -> None:
        super().__init__(path, line, message)
        self.path, self.line, self.message = path, line, message

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.message}"


class TraceReader:
    """A trace being read: `header` at once, events by iterating (once, in constant memory), then `footer`.

    Everything malformed raises a TraceError, the header's faults on opening, the rest while iterating. Only
    an iteration that came to its end has seen a whole, valid trace.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = os.fspath(path)
        self._line = 0
        self._iterated = False
        self._footer: Footer | None = None
        try:
            self._file: IO[bytes] = open(self.path, "rb")  # noqa: SIM115 - lives as long as the reader
        except (OSError, ValueError) as error:
            raise self._error(f"cannot be opened: {getattr(error, 'strerror', None) or error}") from None
        try:
            self.header = header_of(self._row())
        except Malformed as error:
            self._file.close()
            raise self._error(error) from None

    @property
    def footer(self) -> Footer:
        """The footer. Raises TraceError until the last event was read: before that, no end is known."""
        if self._footer is None:
            raise self._error("the footer is known once all events were read")
        return self._footer

    def __iter__(self) -> Iterator[Event]:
        """The events in order. Raises TraceError at the first malformed line, and on a second iteration."""
        if self._iterated:
            raise self._error("the trace is read once per open_trace; open it again")
        self._iterated = True
        return self._events()

    def _events(self) -> Iterator[Event]:
        seq = 0
        try:
            while True:
                row = self._row()
                if "events" in row and "seq" not in row:
                    break
                yield event_of(row, seq)
                seq += 1
            footer = footer_of(row, seq)
            self._expect_end()
            self._footer = footer
        except Malformed as error:
            raise self._error(error) from None
        finally:
            self._file.close()

    def _row(self) -> dict[str, Any]:
        line = self._read()
        if not line:
            if not self._line:
                raise Malformed("the file is empty; accepted: a trace, its header first")
            raise Malformed(f"the trace is cut off after line {self._line}: its footer is missing")
        self._line += 1
        if len(line) > MAX_LINE:
            raise Malformed(f"is longer than {MAX_LINE} bytes; accepted: lines up to that length")
        return parse(line)

    def _read(self) -> bytes:
        """The next line, or one byte more than is accepted of it, whatever its length; empty at the end."""
        try:
            return self._file.readline(MAX_LINE + 1)
        except (OSError, ValueError) as error:  # ValueError: the reader was closed
            raise Malformed(f"cannot be read: {getattr(error, 'strerror', None) or error}") from None

    def _expect_end(self) -> None:
        rest = self._read()
        if rest:
            self._line += 1
            joined = "; traces were joined, accepted: one trace per file" if b'"format"' in rest else ""
            raise Malformed(f"follows the footer, which must be the last line{joined}")

    def _error(self, message: object) -> TraceError:
        return TraceError(self.path, self._line, str(message))

    def close(self) -> None:
        """Close the file early; reading to the end closes it too."""
        self._file.close()

    def __enter__(self) -> TraceReader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def open_trace(path: str | os.PathLike[str]) -> TraceReader:
    """Open the trace at `path` and read its header. Raises TraceError, with the file and the line."""
    return TraceReader(path)


class TraceWriter:
    """Writes a trace, and only lines that the reader accepts: what is wrong is refused where it arises.

    `target` is a path, created or overwritten, or an open text file, which stays open. Leaving a `with`
    block normally writes the footer of a run that returned, unless `close` said otherwise; leaving it by an
    exception writes none, so that a recorder that broke leaves a trace that reads as cut off. What the
    trainer raised is therefore stated: `close("raised", "RuntimeError: boom")`.
    """

    def __init__(self, target: str | os.PathLike[str] | IO[str], header: Header) -> None:
        """Write the header. Raises TraceError if it is malformed (before the file is touched), OSError."""
        self._file: IO[str] | None = None
        self._events = self._lines = 0
        given = None if isinstance(target, (str, os.PathLike)) else target
        self._owns = given is None
        self.path = str(getattr(target, "name", target)) if given else os.fspath(target)  # type: ignore[arg-type]
        line = self._line({"format": FORMAT, "version": VERSION, **header._asdict()}, header_of)
        self._file = given or open(self.path, "w", encoding="utf-8", newline="\n")  # noqa: SIM115
        self._put(line)

    def event(
        self,
        ph: str,
        receiver: str,
        hook: str,
        depth: int,
        args: Mapping[str, Any] | None = None,
        fx: Mapping[str, Any] | None = None,
        rank: int = 0,
    ) -> None:
        """Write the next event; it is numbered here. Raises TraceError, and then nothing was written."""
        seq = self._events
        row = {"seq": seq, "ph": ph, "rank": rank, "receiver": receiver, "hook": hook, "depth": depth}
        if args:
            row["args"] = dict(args)
        if fx:
            row["fx"] = dict(fx)
        self._put(self._line(row, lambda read: event_of(read, seq)))
        self._events += 1

    def close(self, outcome: str, error: str = "") -> None:
        """Write the footer; close the file if opened here. Raises TraceError, also when called again."""
        row = {"events": self._events, "outcome": outcome, "error": error}
        self._put(self._line(row, lambda read: footer_of(read, self._events)))
        self._release()

    def _line(self, row: dict[str, Any], check: Callable[[dict[str, Any]], object]) -> str:
        """The line of this object, once it was read back and accepted."""
        try:
            text = encode(row) + "\n"
            check(parse(text.encode("ascii")))
            if len(text) > MAX_LINE:
                raise Malformed(f"is {len(text)} bytes long; accepted: lines up to {MAX_LINE} bytes")
        except (TypeError, ValueError, RecursionError) as error:
            raise TraceError(self.path, self._lines + 1, str(error)) from None
        return text

    def _put(self, line: str) -> None:
        if self._file is None:
            raise TraceError(self.path, self._lines, "the trace was closed; nothing can follow its footer")
        self._file.write(line)
        self._lines += 1

    def _release(self) -> None:
        file, self._file = self._file, None
        if file is not None:
            file.close() if self._owns else file.flush()

    def __enter__(self) -> TraceWriter:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        try:
            if self._file is not None and kind is None:
                self.close("returned")
        finally:
            self._release()
