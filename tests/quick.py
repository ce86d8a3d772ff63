"""`python -m tests.quick` writes `conformance/spec/quick.toml`: the scenarios of `run --quick`.

Of those of one process that are not drawn, few that reach every clause which all of them reach. A test holds that.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from conformance.clauses import SPEC, load_clauses
from conformance.mutants.engine import Healthy
from conformance.scenario import DRAWN_NAMES, load_scenarios
from conformance.spec.contracts import expected
from conformance.verdicts import Status

__all__ = ["CHOSEN_FROM", "PAGE"]

PAGE = SPEC / "quick.toml"
CHOSEN_FROM = [scenario for scenario in load_scenarios() if scenario.processes == 1 and
               not scenario.name.startswith(DRAWN_NAMES)]  # fmt: skip
STARTS = 60  # events that a scenario takes as long as before its first


def main() -> None:
    """Always the scenario that reaches most of what is missing, for its length."""
    clauses = load_clauses()
    with tempfile.TemporaryDirectory() as folder:
        healthy = Healthy(Path(folder))
        judged = {scenario.name: healthy.judged(scenario, clauses) for scenario in CHOSEN_FROM}
    reached = {name: {v.clause for v in told if v.status is Status.PASS} for name, told in judged.items()}
    lengths = {scenario.name: STARTS + sum(1 for _ in expected(scenario)) for scenario in CHOSEN_FROM}
    missing, chosen = set().union(*reached.values()), []
    while missing:
        chosen.append(max(reached, key=lambda name: len(reached[name] & missing) / lengths[name]))
        missing -= reached[chosen[-1]]
    rows = "".join(f'    "{name}",\n' for name in sorted(chosen))
    head = "# The scenarios of `run --quick`; `python -m tests.quick` writes them.\n"
    PAGE.write_text(f"{head}scenarios = [\n{rows}]\n", encoding="utf-8")


if __name__ == "__main__":
    main()
