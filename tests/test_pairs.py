"""The covering scenarios: in which of them two features meet, and how they are chosen."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest
from extent import WHOLE

from conformance.features import features
from conformance.scenario import DRAWN_NAMES, Data, Model, Scenario, load_scenarios
from tests.pairs import LONGEST, MOST, chosen, draw, idle, length, pairs, words

DRAWN = [scenario for scenario in load_scenarios() if scenario.name.startswith(DRAWN_NAMES)]
PLAIN = Scenario("plain")
UNSIZED = Scenario("unsized", data=Data(sized=False))
MANUAL = Scenario("manual", model=Model(manual=True))
BOTH = Scenario("both", data=Data(sized=False), model=Model(manual=True))


def test_what_counts_as_a_pair() -> None:
    assert ("manual", "unsized") in pairs(BOTH)
    assert "manual" in words(MANUAL) and "unsized" not in words(MANUAL)
    assert {"everywhere", "optimizers:1"} <= features(PLAIN) - {*words(PLAIN)}


def test_the_one_with_the_most_pairs_is_chosen_and_no_more_than_needed() -> None:
    assert next(chosen([UNSIZED, MANUAL, BOTH], times=1, most=9)) is BOTH
    assert list(chosen([BOTH, BOTH], times=1, most=9)) == [BOTH]
    assert list(chosen([UNSIZED, MANUAL, BOTH], times=3, most=0)) == []
    assert list(chosen([UNSIZED, MANUAL], times=1, most=9, kept=[BOTH])) == []
    common = list(chosen([UNSIZED, MANUAL, BOTH], times=3, most=9))
    assert len(common) == 1, "what all three have is there after one"


def test_they_are_small() -> None:
    assert len(DRAWN) == MOST
    assert all(length(scenario) <= LONGEST for scenario in DRAWN)


def test_what_nothing_shows_is_not_there() -> None:
    """A number of sanity steps is at work where there is a validation, and not where there is none."""
    option = "option:num_sanity_val_steps"
    checked = replace(PLAIN, data=Data(val=(1,)), trainer={"num_sanity_val_steps": 1})
    unchecked = replace(checked, trainer={"num_sanity_val_steps": 1, "limit_val_batches": 0})
    assert idle(checked) == frozenset() and option in words(checked)
    assert idle(unchecked) == {option} and option in features(unchecked)
    assert all(option not in pair for pair in pairs(unchecked))


@pytest.mark.skipif(not WHOLE, reason="WHOLE=1: of the suite's scenarios, and what is drawn")
def test_nearly_every_two_features_that_are_drawn_together_meet() -> None:
    met = {pair for scenario in load_scenarios() if scenario.processes == 1 for pair in pairs(scenario)}
    drawn = Counter(pair for scenario in draw(120, 7) for pair in pairs(scenario))
    together = {pair for pair, times in drawn.items() if times >= 3}
    assert len(together) > 1000
    assert len(together & met) / len(together) > 0.97
