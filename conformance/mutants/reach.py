"""Which scenarios execute which lines of the engine, recorded once: a mutant is tried where its statement runs."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import combinations
from pathlib import Path
from types import FrameType
from typing import Any

from ..adapters.refimpl import RefimplAdapter
from ..features import features
from ..produce import produce
from ..scenario import Scenario
from .engine import loaded
from .patches import file_of, sources
from .syntax import SyntaxMutant, apart

__all__ = ["Reach"]


@dataclass
class Reach:
    """Which scenarios execute which lines of the engine, what each costs, and the traces of the healthy engine."""

    scenarios: Mapping[str, Scenario]
    lines: dict[str, dict[int, set[str]]] = field(default_factory=lambda: defaultdict(lambda: defaultdict(set)))
    seconds: dict[str, float] = field(default_factory=dict)
    traces: dict[str, bytes] = field(default_factory=dict)
    _choices: dict[frozenset[str], list[str]] = field(default_factory=dict)

    @classmethod
    def recorded(cls, scenarios: Sequence[Scenario], scratch: Path) -> Reach:
        """Each scenario run once for its lines; what its processes execute, counts as well."""
        reach = cls({scenario.name: scenario for scenario in scenarios})
        modules = {file_of(module): module for module in sources()}
        codes = {module: compile(apart(text), file_of(module), "exec") for module, text in sources().items()}
        told, trace = scratch / "lines", scratch / "trace.jsonl"
        with loaded(codes) as healthy:
            for scenario in scenarios:
                reach._record(RefimplAdapter(healthy), scenario, modules, told, trace)
        return reach

    def _record(self, adapter: Any, scenario: Scenario, modules: Mapping[str, str], told: Path, trace: Path) -> None:
        """One scenario's."""
        seen: set[tuple[str, int]] = set()
        file = os.open(told, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_TRUNC)

        def of_line(frame: FrameType, event: str, _: Any) -> Any:
            at = frame.f_code.co_filename, frame.f_lineno
            if at not in seen:
                seen.add(at)
                os.write(file, f"{at[1]} {at[0]}\n".encode())  # whichever process this is
            return of_line

        def of_call(frame: FrameType, event: str, _: Any) -> Any:
            return of_line if frame.f_code.co_filename in modules else None

        began, traced = time.monotonic(), sys.gettrace()
        threading.settrace(of_call)
        sys.settrace(of_call)
        try:
            error = produce(adapter, scenario, trace)
        finally:
            sys.settrace(traced)
            threading.settrace(traced)
            os.close(file)
        if error:
            raise RuntimeError(f"the healthy engine on {scenario.name}: {error}")
        self.seconds[scenario.name] = time.monotonic() - began
        self.traces[scenario.name] = trace.read_bytes()
        for row in told.read_text().splitlines():
            line, _, path = row.partition(" ")
            self.lines[modules[path]][int(line)].add(scenario.name)

    def executes(self, mutant: SyntaxMutant) -> frozenset[str]:
        """The scenarios that execute a mutant's statement; all of them, what runs when the engine is imported."""
        if mutant.is_imported:
            return frozenset(self.scenarios)
        lines = self.lines[mutant.module]
        return frozenset().union(*(lines[line] for line in mutant.lines if line in lines))

    def tried(self, mutant: SyntaxMutant, tries: int) -> list[str]:
        """Scenarios for a mutant, the quickest first: all, or so many that are as different as there are."""
        if not tries:
            return sorted(self.executes(mutant), key=lambda name: self.seconds[name])
        return self._chosen(self.executes(mutant), tries)

    @cached_property
    def _features(self) -> Mapping[str, int]:
        """What is particular about each scenario, and each two things of that: a bit for each."""
        bits: dict[Any, int] = {}
        masks = {}
        for name, scenario in self.scenarios.items():
            words = sorted(features(scenario) - {"everywhere", "when", "particular"})
            masks[name] = sum(1 << bits.setdefault(pair, len(bits)) for pair in (*words, *combinations(words, 2)))
        return masks

    def _chosen(self, names: frozenset[str], tries: int) -> list[str]:
        """Those with the most that is new; the quickest of them come first."""
        if names not in self._choices:
            left, covered, chosen = sorted(names, key=lambda name: self.seconds[name]), 0, list[str]()
            while left and len(chosen) < tries:
                best = max(left, key=lambda name: (self._features[name] & ~covered).bit_count())
                left.remove(best)
                covered |= self._features[best]
                chosen.append(best)
            self._choices[names] = sorted(chosen, key=lambda name: self.seconds[name])
        return self._choices[names]
