"""The contracts there are: the documentation's, and what releases do instead, each a class of the pseudocode."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from ..experiment import Scenario
from .lightning_1_5 import Lightning15
from .lightning_2 import Lightning2
from .oracle import Expected, UserError
from .pseudocode import Pseudocode

__all__ = ["CONTRACTS", "DOCUMENTATION", "expected"]

DOCUMENTATION = "doc-2021-08"
CONTRACTS: Mapping[str, type[Pseudocode]] = {
    DOCUMENTATION: Pseudocode,
    "lightning-1.5": Lightning15,
    "lightning-2": Lightning2,
}


def expected(scenario: Scenario, rank: int = 0, contract: str = DOCUMENTATION) -> Iterator[Expected]:
    """The events of a trace that keeps the contract, in order: those of one process, where there are several."""
    oracle = CONTRACTS[contract](scenario, rank)
    for function in scenario.calls:
        try:
            yield from oracle.call(function)
        except UserError:
            return
