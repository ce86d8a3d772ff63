"""The page says what the releases do now; `python -m tests.upgrading` rewrites it. Skipped where they are not there."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from extent import WHOLE
from upgrading import PAGE, SCENARIOS, page

from conformance.mutants.engine import Healthy
from conformance.worlds import RELEASES


@pytest.mark.slow
@pytest.mark.skipif(not WHOLE, reason="WHOLE=1: the page is of all scenarios")
def test_the_page_is_up_to_date(healthy: Healthy, recorded: Callable[[str], Path]) -> None:
    traces = {release: recorded(release) for release in RELEASES}
    for scenario in SCENARIOS:
        healthy(scenario)
    traces["refimpl"] = healthy.folder
    assert PAGE.read_text(encoding="utf-8") == page(traces), f"{PAGE.name} is out of date: python -m tests.upgrading"
