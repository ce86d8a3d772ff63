"""The contracts there are: the documentation's, and what releases do instead, each a class of the pseudocode."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import replace

from ..experiment import Scenario
from .lightning_1_4 import Lightning14
from .lightning_1_5 import Lightning15
from .lightning_1_9 import Lightning19
from .lightning_2 import Lightning2
from .pseudocode import Pseudocode
from .state import Expected

__all__ = ["CONTRACTS", "DOCUMENTATION", "expected"]

DOCUMENTATION = "doc-2021-08"
CONTRACTS: Mapping[str, type[Pseudocode]] = {
    DOCUMENTATION: Pseudocode,
    "lightning-1.4": Lightning14,
    "lightning-1.5": Lightning15,
    "lightning-1.9": Lightning19,
    "lightning-2": Lightning2,
}


def expected(
    scenario: Scenario, rank: int = 0, contract: str = DOCUMENTATION, heard: Collection[str] | None = None,
    has_closures: bool = True,
) -> Iterator[Expected]:  # fmt: skip
    """The events of a trace that keeps the contract, in order: those of one process, where there are several. `heard`
    are the hooks that a trainer has, by default all: one that it does not have cannot change what others are given.
    Without `has_closures` it gives its optimizers none."""
    kind = CONTRACTS[contract]

    def has(hook: str) -> bool:
        return hook not in kind.absent and (heard is None or hook in heard)

    model = scenario.model
    defines = filter(has, model.defines)
    logs = (replace(log, name=log.known_as, mapping=False) for log in model.logs if has(log.hook))
    oracle = kind(replace(scenario, model=replace(model, defines=tuple(defines), logs=tuple(logs))), rank)
    oracle.has_closures = has_closures
    yield from (event for event in oracle.all_calls() if has(event.hook))
