"""The pages of `docs/` that are generated: the clause list, the coverage page and the order page.

    python -m conformance.report.pages

run in a checkout, rewrites `docs/clauses.md`, `docs/coverage.md` and `docs/order.md`. A test holds the files
against what this module says, so that they cannot go stale.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from conformance.clauses import Clause, load_clauses
from conformance.report.cells import plural
from conformance.report.coverage import coverage_page, load_headings
from conformance.report.order import GENERATED, order_page, table

__all__ = ["clause_list", "coverage_page", "main", "order_page"]

DOCS = Path(__file__).resolve().parent.parent.parent / "docs"

FAMILIES = {
    "fit": "fit and train_on_device: every line, and every neighbouring pair",
    "train": "train_loop: the training batch",
    "accumulation": "accumulate_grad_batches",
    "tbptt": "truncated backpropagation through time",
    "dp": 'strategy="dp": batches in parts, one for each device',
    "ddp": 'strategy="ddp": a process for each device, each with its share of the batches',
    "manual": "manual optimization",
    "optimization": "configure_optimizers: forms, turns, learning rates; the hooks of optimization, overridden",
    "val": "val_loop, and validate()",
    "sanity": "the sanity check",
    "test": "test()",
    "predict": "predict()",
    "modes": "train and eval mode, gradients on and off",
    "transfer": "batches on their way to the device",
    "data": "several training loaders, loaders that are asked for again, overfitting",
    "epoch": "how many epochs, steps and validations",
    "log": "self.log: values, reductions, names",
    "checkpoint": "checkpoints, and going on from one",
    "module": "the module's own methods, and its hyperparameters",
    "callbacks": "EarlyStopping and ModelCheckpoint",
    "skip": "None, -1, and a closure that is not called",
    "run": "exceptions and Ctrl-C",
    "given": "arguments, whatever else is on",
    "structure": "what holds for every trace",
}


def clause_list(clauses: Mapping[str, Clause]) -> str:
    """`docs/clauses.md`: a table per family, then the clauses that are not checked, with the reason."""
    judged = [clause for clause in clauses.values() if not clause.excluded]
    excluded = [clause for clause in clauses.values() if clause.excluded]
    lines = [
        GENERATED,
        "# The clauses\n",
        f"What a trainer must do, a sentence each: {plural(len(judged), 'clause')} that are checked, and "
        f"{len(excluded)} that are not,\n[with the reason](#not-checked). The source is the section of the "
        "documentation that says so; where it is silent, the\nreading is an "
        "[interpretation](interpretations.md). `python -m conformance spec ID` shows a clause's check, its\n"
        "mutant, and how the releases depart from it.\n\n"
        "A clause is a MUST where the documentation's prose or pseudocode says so, and a SHOULD where it is silent, "
        "hedged or\nat odds with itself, so that a trainer may be right in another way. A run that fails no MUST but "
        "known departures ends\nwith exit status 0.\n",
    ]
    listed = dict.fromkeys([*FAMILIES, *(clause.family for clause in clauses.values())])
    for family in listed:
        members = [clause for clause in judged if clause.family == family]
        title = f"{family}: {FAMILIES[family]}" if family in FAMILIES else family
        if members:
            lines += [f"## {title}\n", *table(("id", "level", "sentence", "source"), map(_row, members))]
    rows = map(_excluded_row, excluded)
    lines += ["## Not checked\n", *table(("id", "level", "sentence", "why not"), rows)]
    return "\n".join(lines)


def _row(clause: Clause) -> tuple[str, ...]:
    return _anchored(clause), clause.level, clause.sentence, clause.source


def _excluded_row(clause: Clause) -> tuple[str, ...]:
    return _anchored(clause), clause.level, clause.sentence, clause.excluded


def _anchored(clause: Clause) -> str:
    """The id, where links can lead: `clauses.md#fit.sequence`."""
    return f'<a id="{clause.id}"></a>`{clause.id}`'


def main() -> None:
    """Rewrite them all."""
    clauses = load_clauses()
    pages = {
        "clauses.md": clause_list(clauses),
        "coverage.md": coverage_page(load_headings(), clauses),
        "order.md": order_page(),
    }
    for name, text in pages.items():
        (DOCS / name).write_text(text, encoding="utf-8")
        print(DOCS / name)


if __name__ == "__main__":
    main()
