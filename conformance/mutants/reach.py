"""Which scenarios execute which lines of the engine, recorded once: a mutant is tried where its statement runs."""

from __future__ import annotations

import ast
import builtins
import mmap
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import combinations
from pathlib import Path
from types import CodeType
from typing import Any

from ..adapters.refimpl import RefimplAdapter
from ..features import features
from ..produce import produce
from ..scenario import Scenario
from .engine import loaded
from .patches import file_of, sources
from .syntax import SyntaxMutant, apart

__all__ = ["FEW", "Reach"]

FEW = 12  # scenarios for a mutant that is excused; any other is tried on all that execute its statement
PROBES = "__executed__"  # a byte for each statement of the engine's functions, which forked processes share


@dataclass
class Reach:
    """Which scenarios execute which lines of the engine, what each costs, and the traces of the healthy engine."""

    scenarios: Mapping[str, Scenario]
    lines: dict[str, dict[int, set[str]]] = field(default_factory=lambda: defaultdict(lambda: defaultdict(set)))
    seconds: dict[str, float] = field(default_factory=dict)
    traces: dict[str, bytes] = field(default_factory=dict)
    _choices: dict[tuple[frozenset[str], int], list[str]] = field(default_factory=dict)

    @classmethod
    def recorded(cls, scenarios: Sequence[Scenario], scratch: Path) -> Reach:
        """Each scenario run once for its lines; what the processes that it forks execute, counts as well."""
        reach = cls({scenario.name: scenario for scenario in scenarios})
        places: list[tuple[str, int]] = []  # of each probe, the module and the line of its statement
        codes = {module: _probed(module, text, places) for module, text in sources().items()}
        executed = mmap.mmap(-1, len(places))
        setattr(builtins, PROBES, executed)
        try:
            with loaded(codes) as engine:
                for scenario in scenarios:
                    executed[:] = bytes(len(places))
                    began = time.monotonic()
                    if error := produce(RefimplAdapter(engine), scenario, scratch / "trace.jsonl"):
                        raise RuntimeError(f"the healthy engine on {scenario.name}: {error}")
                    reach.seconds[scenario.name] = time.monotonic() - began
                    reach.traces[scenario.name] = (scratch / "trace.jsonl").read_bytes()
                    for (module, line), is_executed in zip(places, executed[:]):
                        if is_executed:
                            reach.lines[module][line].add(scenario.name)
        finally:
            delattr(builtins, PROBES)
        return reach

    def executes(self, mutant: SyntaxMutant) -> frozenset[str]:
        """The scenarios that execute a mutant's statement; all of them, what runs when the engine is imported."""
        if mutant.is_imported:
            return frozenset(self.scenarios)
        lines = self.lines[mutant.module]
        return frozenset().union(*(lines[line] for line in mutant.lines if line in lines))

    def tried(self, mutant: SyntaxMutant, tries: int) -> list[str]:
        """Scenarios for a mutant: so many that are as different as there are, or first a few of those and then all, the
        quickest first. In programs that a scenario starts the engine is the healthy one: such a scenario only where
        there is no other."""
        names = self.executes(mutant)
        names = frozenset(name for name in names if not self.scenarios[name].starts_programs) or names
        first = self._chosen(names, tries or FEW)
        return first if tries else [*first, *sorted(names - {*first}, key=lambda name: self.seconds[name])]

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
        """Those with the most that is new for what they cost; the quickest of them come first."""
        if (names, tries) not in self._choices:
            left, covered, chosen = sorted(names, key=lambda name: self.seconds[name]), 0, list[str]()
            while left and len(chosen) < tries:
                best = max(left, key=lambda name: (self._features[name] & ~covered).bit_count() / self.seconds[name])
                left.remove(best)
                covered |= self._features[best]
                chosen.append(best)
            self._choices[names, tries] = sorted(chosen, key=lambda name: self.seconds[name])
        return self._choices[names, tries]


def _probed(module: str, text: str, places: list[tuple[str, int]]) -> CodeType:
    """A module that notes each statement of its functions when it is executed; `places` gets what each probe is of."""
    tree = ast.parse(apart(text))
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
    parts = [node for function in functions for node in ast.walk(function)]
    bodies = [getattr(part, name, None) for part in parts for name in ("body", "orelse", "finalbody")]
    for body in {id(body): body for body in bodies if isinstance(body, list)}.values():  # not that of a lambda
        for at, statement in reversed(list(enumerate(body))):
            if not (isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)):  # a docstring
                body[at:at] = ast.parse(f"{PROBES}[{len(places)}] = 1").body
                places.append((module, statement.lineno))
    return compile(tree, file_of(module), "exec")
