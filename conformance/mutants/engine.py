"""A mutant: a copy of the engine with some lines changed, loaded beside the healthy one.

The engine is found, not imported, as source text; a patch replaces text in one of its files; the copy
is executed under the engine's own name, in a `sys.modules` that is put back afterwards.
"""

from __future__ import annotations

import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import signal
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import FrameType, ModuleType
from typing import Any

import torch

from ..adapters.refimpl import RefimplAdapter
from ..checker import judge_file
from ..clauses import Clause
from ..produce import produce
from ..scenario import Scenario
from ..verdicts import Verdict

__all__ = ["Mutant", "Patch", "StaleMutant", "engine_source", "judge_mutant", "mutated"]

PACKAGE = "refimpl"
SECONDS = 20  # a mutant that loops for ever is stopped


class StaleMutant(ValueError):
    """A patch does not fit the engine's source any more; the message says which and why."""


class Runaway(BaseException):
    """A mutant ran too long."""


@dataclass(frozen=True)
class Patch:
    """Replace `find`, which must occur exactly once in the engine's `file`, by `replace`."""

    file: str
    find: str
    replace: str


@dataclass(frozen=True)
class Mutant:
    """A trainer that is wrong in one way.

    `clauses` must fail for a reason that matches `reason`; `hooks` are those whose calls it touches,
    and `also` further clauses (globs) that it rightly fails. `scenario` is where it shows; by default
    the clause's own. `events` says what is done to a finished trace instead (see `selftest.TRACES`).
    """

    name: str
    why: str
    patches: tuple[Patch, ...]
    clauses: tuple[str, ...] = ()
    reason: str = ""
    hooks: frozenset[str] = frozenset()
    also: tuple[str, ...] = ()
    scenario: str = ""
    events: str = ""

    def __str__(self) -> str:
        return f"{self.name}: {self.why}"


@cache
def engine_source(file: str) -> str:
    """The text of one of the engine's files."""
    spec = importlib.util.find_spec(PACKAGE)
    assert spec is not None and spec.submodule_search_locations
    return (Path(next(iter(spec.submodule_search_locations))) / file).read_text(encoding="utf-8")


def patched(patches: Sequence[Patch]) -> dict[str, str]:
    """Module names and their new sources. Raises StaleMutant where a patch does not fit."""
    sources: dict[str, str] = {}
    for patch in patches:
        name = f"{PACKAGE}.{patch.file.removesuffix('.py')}"
        text = sources.get(name, engine_source(patch.file))
        times = text.count(patch.find)
        if times != 1:
            raise StaleMutant(f"{patch.file} holds {patch.find[:200]!r} {times} times; a patch needs it once")
        sources[name] = text.replace(patch.find, patch.replace)
        try:
            compile(sources[name], patch.file, "exec")
        except SyntaxError as error:
            raise StaleMutant(f"{patch.file} is no Python with {patch.replace[:200]!r}: {error}") from None
    return sources


class _Sources(importlib.abc.MetaPathFinder, importlib.abc.InspectLoader):
    """Serves the changed modules; the rest of the package is found as usual."""

    def __init__(self, sources: Mapping[str, str]) -> None:
        self.sources = sources

    def find_spec(self, fullname: str, path: Any, target: Any = None) -> importlib.machinery.ModuleSpec | None:
        return importlib.util.spec_from_loader(fullname, self) if fullname in self.sources else None

    def get_source(self, fullname: str) -> str:
        return self.sources[fullname]


def _modules() -> dict[str, ModuleType]:
    return {n: m for n, m in sys.modules.items() if n == PACKAGE or n.startswith(PACKAGE + ".")}


@contextmanager
def mutated(patches: Sequence[Patch]) -> Iterator[ModuleType]:
    """The engine with the patches applied, as a module; the healthy one is back afterwards."""
    finder = _Sources(patched(patches))
    healthy = _modules()
    for name in healthy:
        del sys.modules[name]
    sys.meta_path.insert(0, finder)
    try:
        yield importlib.import_module(PACKAGE)
    finally:
        sys.meta_path.remove(finder)
        for name in _modules():
            del sys.modules[name]
        sys.modules.update(healthy)


@contextmanager
def _time_limit(seconds: int) -> Iterator[list[str]]:
    """Stop what runs away, where the platform has alarms and this is the main thread; the list says if it
    did, for the adapter takes the exception for the trainer's own."""
    stopped: list[str] = []

    def stop(signum: int, frame: FrameType | None) -> None:
        stopped.append(f"still running after {seconds} seconds")
        raise Runaway

    try:
        before = signal.signal(signal.SIGALRM, stop)
    except (AttributeError, ValueError):
        yield stopped
        return
    signal.alarm(seconds)
    try:
        yield stopped
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def judge_mutant(
    module: ModuleType, scenario: Scenario, clauses: Mapping[str, Clause], path: Path
) -> tuple[list[Verdict], str]:
    """The verdicts on one scenario, and what broke outside of the trainer, if anything did."""
    try:
        with torch.enable_grad(), _time_limit(SECONDS) as stopped:  # a mutant may leave gradients disabled
            error = produce(RefimplAdapter(module), scenario, path)
    except Runaway:
        error = None
    if stopped or error is not None:
        return [], error or stopped[0]
    return judge_file(path, clauses), ""
