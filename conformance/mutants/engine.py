"""A mutant: a copy of the engine with some lines changed, loaded beside the healthy one.

A patch replaces source text (see `patches.py`); the copy is executed under the engine's own name, in a
`sys.modules` that is put back afterwards.
"""

from __future__ import annotations

import importlib
import importlib.abc
import os
import pickle
import signal
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import cache
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import CodeType, FrameType, ModuleType
from typing import Any
from zlib import crc32

import torch

from ..adapters.refimpl import RefimplAdapter
from ..checker import judge_file
from ..clauses import Clause
from ..produce import produce
from ..scenario import Scenario
from ..verdicts import Verdict
from .patches import PACKAGE, Patch, file_of, patched, sources

__all__ = ["Healthy", "Mutant", "judge_mutant", "loaded", "mutated"]

SURVIVORS = "survivors.toml"  # no mutants, but which ones of `syntax.py` may survive
SECONDS = 20  # after which a mutant that loops for ever is stopped


class Healthy:
    """The traces of the engine as it is, each recorded and judged once: in a folder, which several processes may
    share."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def __call__(self, scenario: Scenario) -> Path:
        """The trace of a scenario. Raises RuntimeError with the traceback if the harness broke."""
        path = self.folder / f"{scenario.name}.jsonl"
        if not path.exists():
            begun = path.with_suffix(f".{os.getpid()}")
            if error := produce(RefimplAdapter(), scenario, begun):
                raise RuntimeError(f"the healthy engine on {scenario.name}: {error}")
            begun.replace(path)
        return path

    def judged(self, scenario: Scenario, clauses: Mapping[str, Clause]) -> list[Verdict]:
        """The verdicts on that trace, likewise. Raises RuntimeError as well."""
        path = self(scenario).with_suffix(f".{crc32(' '.join(clauses).encode()):x}")
        if not path.exists():
            begun = path.with_suffix(f"{path.suffix}-{os.getpid()}")
            begun.write_bytes(pickle.dumps(judge_file(self(scenario), clauses)))
            begun.replace(path)
        verdicts: list[Verdict] = pickle.loads(path.read_bytes())
        return verdicts


class Runaway(BaseException):
    """A mutant ran too long."""


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
def _healthy() -> Mapping[str, CodeType]:
    """The engine's modules, compiled once."""
    return {name: compile(text, file_of(name), "exec") for name, text in sources().items()}


class _Codes(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Serves the engine's modules from compiled code."""

    def __init__(self, codes: Mapping[str, CodeType]) -> None:
        self.codes = codes

    def find_spec(self, fullname: str, path: Any, target: Any = None) -> ModuleSpec | None:
        spec = PathFinder.find_spec(fullname, path) if fullname in self.codes else None
        if spec is not None:
            spec.loader = self
        return spec

    def exec_module(self, module: ModuleType) -> None:
        exec(self.codes[module.__name__], module.__dict__)


def _modules() -> dict[str, ModuleType]:
    return {n: m for n, m in sys.modules.items() if n == PACKAGE or n.startswith(PACKAGE + ".")}


def mutated(patches: Sequence[Patch]) -> AbstractContextManager[ModuleType]:
    """The engine with the patches applied, as a module; the healthy one is back afterwards."""
    return loaded(patched(patches))


@contextmanager
def loaded(codes: Mapping[str, CodeType]) -> Iterator[ModuleType]:
    """The engine with these modules of another code."""
    finder = _Codes({**_healthy(), **codes})
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
    module: ModuleType, scenario: Scenario, clauses: Mapping[str, Clause], path: Path, seen: bytes = b"",
    allowed: int = 0,
) -> tuple[list[Verdict], str]:  # fmt: skip
    """The verdicts on one scenario, and what broke outside of the trainer, if anything did. Of a trace that is `seen`
    already there are none. `allowed` are the seconds for it, by default SECONDS, and thrice as many
    where it starts programs."""
    try:
        seconds = (allowed or SECONDS) * (3 if scenario.starts_programs else 1)
        with torch.enable_grad(), _time_limit(seconds) as stopped:  # a mutant may leave gradients disabled
            error = produce(RefimplAdapter(module), scenario, path)
    except Runaway:
        error = None
    if stopped or error is not None:
        return [], error or stopped[0]
    if seen and path.read_bytes() == seen:
        return [], ""
    return judge_file(path, clauses), ""
