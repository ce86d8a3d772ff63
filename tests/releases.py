"""What releases of Lightning call their hooks, options and arguments: `tests/assets/lightning-names.txt`, read."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

__all__ = ["named"]

_LINES = (Path(__file__).with_name("assets") / "lightning-names.txt").read_text(encoding="utf-8").splitlines()


def _number(release: str) -> list[int]:
    return [int(part) for part in release.split(".")]


def named(owner: str, since: str = "0", until: str = "9") -> Iterator[tuple[str, list[str]]]:
    """What a class, or a method of the trainer, has in one or more releases of a span: names with arguments."""
    for name, first, last, *arguments in map(str.split, _LINES):
        before, _, end = name.rpartition(".")
        if before == owner and _number(since) <= _number(last) and _number(first) <= _number(until):
            yield end, arguments
