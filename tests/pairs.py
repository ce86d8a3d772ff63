"""Covering scenarios: drawn ones, chosen so that every two features that go together meet in one of them.

    python -m tests.pairs   # draws, chooses, adds to conformance/scenarios/pairs.jsonl; ten minutes

Those that are there stay as they are: notes about releases speak of them.

Most mistakes of a trainer lie where two features meet. A feature is a word of `conformance.features`, but for what
hook something is made to happen in. It has to be at work: with a limit of no batches nothing else about validation
is, and a number of sanity steps meets nothing there, whatever the scenario says. A pair counts if it is drawn a few
times, by chance or not.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import fields, replace
from itertools import combinations, islice, zip_longest
from typing import Any

from hypothesis import HealthCheck, Phase, given, seed, settings

from conformance.features import features
from conformance.scenario import DRAWN_NAMES, PAIRS, Data, Model, Scenario, ScenarioError, load_scenarios, scenario_of
from conformance.scenario_keys import ACTIONS
from conformance.spec.contracts import expected
from tests.strategies import scenarios

__all__ = ["chosen", "draw", "pairs"]

DRAWN, SEED, LONGEST, TIMES, MOST = 6000, 1, 600, 5, 354  # LONGEST in events, TIMES that a pair is drawn
# Words that nearly every scenario has, or that say what another one says.
SAID = "everywhere closures when particular option:max_epochs option:devices option:strategy source:module".split()
SAID += "optimizers:1 batch:tuple precision:32 scheduler:none form:none".split()

# What is at work wherever it is, though the same events are due without it; or which the oracle says little of.
UNSEEN = {"sized", "source", "batch", "listed", "form", "lr_dict", "layers_in_setup", "optimizer", "dtype"}

UNTITLED = ("logs:", "defines:", "option:", "reduces:")  # of which there are many

Pair = tuple[str, ...]


def simpler(scenario: Scenario) -> Iterator[Scenario]:
    """The scenario with one thing as it is by default."""
    for option in scenario.trainer:
        yield replace(scenario, trainer={name: value for name, value in scenario.trainer.items() if name != option})
    for event in scenario.when:
        yield replace(scenario, when=tuple(other for other in scenario.when if other is not event))
    for name, plain in (("data", Data()), ("model", Model())):
        part: Any = getattr(scenario, name)
        for field in {field.name for field in fields(part)} - UNSEEN:
            if getattr(part, field) != getattr(plain, field):
                yield replace(scenario, **{name: replace(part, **{field: getattr(plain, field)})})
    for field in "callbacks early_stopping model_checkpoint lr_monitor prediction_writer no_grad".split():
        if getattr(scenario, field) != getattr(Scenario, field, ()):
            yield replace(scenario, **{field: getattr(Scenario, field, ())})


def idle(scenario: Scenario) -> frozenset[str]:
    """The features that nothing shows: without them the scenario comes to the same events."""
    known, told = features(scenario), list(islice(expected(scenario), 4 * LONGEST))
    found: set[str] = set()
    for other in simpler(scenario):
        lost = known - features(other)
        try:
            other = scenario_of(other.to_dict())
        except ScenarioError:  # what it has otherwise needs this
            continue
        if lost - found and all(due == was for due, was in zip_longest(islice(expected(other), 4 * LONGEST), told)):
            found |= lost
    return frozenset(found)


def words(scenario: Scenario) -> list[str]:
    """What a scenario combines, sorted."""
    told = [word for word in features(scenario) - idle(scenario) if word not in SAID]
    return sorted(word for word in told if word.startswith("does:") or word.rpartition(":")[2] not in ACTIONS)


def pairs(scenario: Scenario) -> frozenset[Pair]:
    """Every two features of a scenario."""
    return frozenset(combinations(words(scenario), 2))


def length(scenario: Scenario) -> int:
    """In events; of one that is too long, one more than LONGEST."""
    return sum(1 for _ in islice(expected(scenario), LONGEST + 1))


def draw(count: int, number: int) -> list[Scenario]:
    """Different scenarios out of `count` drawn ones, none of them long."""
    found: dict[str, Scenario] = {}

    @settings(max_examples=count, database=None, deadline=None, phases=[Phase.generate],
              suppress_health_check=list(HealthCheck))  # fmt: skip
    @seed(number)
    @given(scenarios())
    def keep(scenario: Scenario) -> None:
        if length(scenario) <= LONGEST:
            found[json.dumps(scenario.to_dict())] = scenario

    keep()
    return list(found.values())


def chosen(pool: Iterable[Scenario], times: int, most: int, kept: Iterable[Scenario] = ()) -> Iterator[Scenario]:
    """First the scenario that has the most pairs, for its length, that those `kept` do not have; then the one with the
    most that are still missing."""
    have = [(scenario, pairs(scenario), length(scenario)) for scenario in pool]
    drawn = Counter(pair for _, of_it, _ in have for pair in of_it)
    missing = {pair for pair, number in drawn.items() if number >= times}
    missing -= {pair for scenario in kept for pair in pairs(scenario)}
    for _ in range(most):
        scenario, of_it, _ = max(have, key=lambda each: len(each[1] & missing) / (60 + each[2]))
        if not of_it & missing:
            return
        missing -= of_it
        yield scenario


def main() -> None:
    """Add to the file what its scenarios lack."""
    lines = PAIRS.read_text(encoding="utf-8").splitlines()
    kept = [scenario for scenario in load_scenarios() if scenario.processes == 1]
    new = chosen(draw(DRAWN, SEED), TIMES, MOST - len(lines), kept)
    last = max(int(json.loads(line)["name"].removeprefix(DRAWN_NAMES)) for line in lines)
    for number, scenario in enumerate(new, last + 1):
        title = f"Drawn: {', '.join(word for word in words(scenario) if not word.startswith(UNTITLED))}."
        named = replace(scenario, name=f"{DRAWN_NAMES}{number:03d}", title=title)
        lines.append(json.dumps(named.to_dict()))
    PAIRS.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
