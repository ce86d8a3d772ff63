"""The table of what a validation or a test has found, as `Trainer.validate` and `Trainer.test` print it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

__all__ = ["results_table"]


def results_table(function: str, results: Sequence[Mapping[str, float]]) -> str:
    """A row for each name and a column for each loader, under the name of the function; "" if nothing was logged.

    The suffix by which names of several loaders are told apart is left out: the column says it.
    """
    columns = [
        {name.removesuffix(f"/dataloader_idx_{index}"): f"{value:.6g}" for name, value in values.items()}
        for index, values in enumerate(results)
    ]
    names = list(dict.fromkeys(name for column in columns for name in column))
    if not names:
        return ""
    heads = ["value"] if len(columns) == 1 else [f"loader {index}" for index in range(len(columns))]
    rows = [[function, *heads], *([name, *(column.get(name, "") for column in columns)] for name in names)]
    widths = [max(map(len, cells)) for cells in zip(*rows)]
    head, *lines = [
        "  ".join([row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:]))])
        for row in rows
    ]
    return "\n".join([head, "-" * len(head), *lines])
