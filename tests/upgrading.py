"""The page of what changes from one contract to another; `python -m tests.upgrading` writes `docs/upgrading.md`.

The releases have to be prepared. The tables are what `python -m conformance compare` says of them.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from conformance.compare import SHOWN, Comparison, compare
from conformance.report.order import table
from conformance.runner import produce_traces
from conformance.scenario import DRAWN_NAMES, load_scenarios

__all__ = ["PAGE", "SCENARIOS", "page"]

PAGE = Path(__file__).resolve().parent.parent / "docs" / "upgrading.md"

OLDEST, OLD, BETWEEN, NEW = "lightning@1.4.9", "lightning@1.5.10", "lightning@1.9.5", "lightning@2.6.6"
COMPARED = {
    "From 1.4.9 to 1.5.10": (OLDEST, OLD),
    "From 1.5.10 to 1.9.5": (OLD, BETWEEN),
    "From 1.9.5 to 2.6.6": (BETWEEN, NEW),
    "From 1.5.10 to 2.6.6": (OLD, NEW),
    "From the documentation to 1.5.10": ("refimpl", OLD),
    "From the documentation to 1.9.5": ("refimpl", BETWEEN),
    "From the documentation to 2.6.6": ("refimpl", NEW),
}
HEAD = f"""<!-- Written by `python -m tests.upgrading`; a test compares it. -->
# Upgrading: what changes

There are five contracts, and a trainer for each: `doc-2021-08`, the documentation, which `refimpl` keeps;
`lightning-1.4`, which {OLDEST} keeps; `lightning-1.5`, which {OLD} keeps; `lightning-1.9`, which
{BETWEEN} keeps; `lightning-2`, which {NEW} keeps, each event by event on every scenario that it can run.
They are pseudocode alike: [the documentation's](../conformance/spec/pseudocode.py), what
[all releases](../conformance/spec/lightning.py) do instead, what [1.x](../conformance/spec/lightning_1.py) and
[1.9 and 2](../conformance/spec/lightning_later.py) do, what [1.5](../conformance/spec/lightning_1_5.py),
[1.9](../conformance/spec/lightning_1_9.py) and [2](../conformance/spec/lightning_2.py) do alone, and what
[1.4](../conformance/spec/lightning_1_4.py) does where it is not as 1.5. Any trainer can be held against any of them:

```sh
python -m conformance --profile lightning-2 run lightning@2.6.6     # no failures
python -m conformance --profile lightning-2 check mine/*.jsonl      # a trainer that means to do what 2.x does
```

Each clause is judged by what that contract has in its place, though its sentence stays the documentation's; one about
which it has nothing to say is not reached.

What changes for a module that goes from one trainer to another, the computer can say:

```sh
python -m conformance compare {OLD} {NEW}
python -m conformance compare {OLD} {NEW} --module my_model.py:MyModel   # only what it can notice
```

The second reads the file, and leaves out hooks that the class does not define, arguments that its hooks do not take,
and moves that no two of its hooks can tell. A hook that is gone is not called any more. 1.9.5 refuses a module or
callback that defines `on_epoch_start`, `on_epoch_end`, `on_pretrain_routine_start` or `on_pretrain_routine_end`, and a
data module that defines `on_save_checkpoint` or `on_load_checkpoint`, before it trains; 2.6.6 one of
`training_epoch_end`, `validation_epoch_end` or `test_epoch_end`. The tables below are the first, for all scenarios but
the drawn ones and those of DDP, where the releases shuffle; and the same for the documentation. *Moved* is a call that
comes in another order, *added* one that only the second makes; an effect is told where it begins to differ. After an
exception, or where training ends at another time, all that does not come any more is *missing*.
"""


SCENARIOS = [s for s in load_scenarios() if s.processes == 1 and not s.name.startswith(DRAWN_NAMES)]


def page(traces: Mapping[str, Path]) -> str:
    """The page, of the folders in which the traces of each trainer are."""
    parts = [HEAD]
    for title, (a, b) in COMPARED.items():
        files = [f"{scenario.name}.jsonl" for scenario in SCENARIOS]
        found = compare(a, b, [(traces[a] / file, traces[b] / file) for file in files])
        parts += [f"## {title}\n", *_section(found)]
    return "\n".join(parts)


def _section(found: Comparison) -> Iterator[str]:
    yield f"{found.compared} scenarios; {found.left_out} more need what one of the two does not have.\n"
    for word, hooks in (("Gone", found.gone), ("New", found.new)):
        if hooks:
            yield f"{word}: {', '.join(f'`{hook}`' for hook in hooks)}.\n"
    for function in dict.fromkeys(row.function for row in found.rows):
        rows = [row for row in found.rows if row.function == function]
        yield f"### `{function}`\n"
        yield from table(
            ("", "hooks", "how", "in"),
            (
                (row.kind, ", ".join(f"`{hook}`" for hook in row.hooks), row.detail, _where(row.scenarios))
                for row in rows
            ),
        )


def _where(scenarios: tuple[str, ...]) -> str:
    more = len(scenarios) - SHOWN
    return ", ".join(scenarios[:SHOWN]) + (f" and {more} more" if more > 0 else "")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as scratch:
        folders = {trainer: Path(scratch, trainer) for trainer in ("refimpl", OLDEST, OLD, BETWEEN, NEW)}
        for trainer, folder in folders.items():
            for scenario, error in produce_traces(trainer, SCENARIOS, folder):
                assert error is None, (trainer, scenario.name, error)
        PAGE.write_text(page(folders), encoding="utf-8")
