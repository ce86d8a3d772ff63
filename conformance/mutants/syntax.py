"""Mutants made from the syntax tree of the engine: in each place, each small mistake that an operator knows.

A mutant is a piece of one file's text with another piece in its place, so that it prints as one line.
"""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from types import CodeType

from .operators import OPERATORS, SKIPS, Place, children
from .patches import PACKAGE, file_of, sources

__all__ = ["LEFT_OUT", "SyntaxMutant", "apart", "mutants_of_text", "syntax_mutants"]

# Files that say nothing about a run: globs of their names in the engine, and why.
LEFT_OUT: Mapping[str, str] = {
    "__init__.py": "names only",
    "*/__init__.py": "names only",
    "version.py": "a name",
    "types.py": "types only",
    "names.py": "finds misspelt hooks, and no scenario has one",
    "errors.py": "what errors and warnings say",
    "period/*": "the spellings of old scripts: no part of the contract",
    "utilities/*": "names that old scripts import",
    "callbacks/model_checkpoint.py": "files' names, and what a killed run left: its own tests; the rest has clauses",
    "callbacks/checkpoint_files.py": "what files are called: the engine's own tests",
    "callbacks/progress_bar.py": "uses hooks as a user's class does; no scenario has it",
    "callbacks/summary.py": "prints what a module has",
    "saving/mixin.py": "exporting, and loading in other ways than a scenario's: the engine's own tests",
    "saving/export.py": "ONNX and TorchScript: no run",
    "saving/config.py": "hyperparameters of other types than in the examples: the engine's own tests",
    "saving/hparams.py": "what the documented examples do has clauses and mutants; the rest, the engine's own tests",
    "saving/optimizers.py": "refuses states that do not fit an optimizer: the engine's own tests",
    "saving/file.py": "how a checkpoint lies on the disk: the engine's own tests",
    "saving/layout.py": "refuses files that are damaged: the engine's own tests",
    "saving/shape.py": "refuses files that are damaged: the engine's own tests",
    "loggers/loggers.py": "where values are written; adapters have a logger of their own",
    "loggers/tables.py": "prints results",
    "strategies/launch.py": "how processes are started: in one scenario, and a mutant of its clause tries that",
    "strategies/processes.py": "how processes talk, and what ends them: the engine's own tests",
    "trainer/options.py": "which options are accepted: scenarios have legal ones, the engine's own tests the others",
    "trainer/properties.py": "what a user may ask; recorders ask the trainer's view for little",
    "trainer/view.py": "what a user may ask; recorders ask for little, and of the parts themselves",
    "strategies/choice.py": "which devices a machine has: scenarios run on the CPU",
    "trainer/states.py": "names only",
    "trainer/supporters.py": "names only",
}

@dataclass(frozen=True)
class SyntaxMutant:
    """The engine with `new` in the place of `old` at a byte of one module's text. `within` is the function's qualified
    name, `lines` those of the statement where each statement has one (see `apart`)."""

    module: str
    within: str
    line: int
    lines: range
    operator: str
    start: int
    old: str
    new: str
    is_imported: bool = False  # not in a function: executed when the engine is imported

    @property
    def file(self) -> str:
        """The file's name in the engine."""
        return _file(self.module)

    @property
    def where(self) -> str:
        """Its module and function: "optimization:OptimizerBlock.prepared"."""
        return f"{self.module.removeprefix(PACKAGE + '.')}:{self.within}"

    @property
    def change(self) -> str:
        """What is done: the operator, and both texts."""
        return f"{self.operator}: {' '.join(self.old.split())} -> {' '.join(self.new.split())}"

    def __str__(self) -> str:
        return f"{self.file}:{self.line} ({self.within}) {self.change}"

    def text(self) -> str:
        """The whole module's."""
        healthy = sources()[self.module].encode()
        return (healthy[: self.start] + self.new.encode() + healthy[self.start + len(self.old.encode()) :]).decode()

    def code(self) -> CodeType:
        """The module, compiled."""
        return compile(self.text(), f"<mutant of {self.module}>", "exec")


# ---- a file's places -----------------------------------------------------------------------------------------


class _Source:
    """A file's text and tree. `places` are the nodes that are mutated, each with its function's name and the lines of
    its statement."""

    def __init__(self, text: str) -> None:
        self.bytes, tree = text.encode(), ast.parse(text)
        # Each node as it is in the text of one statement a line.
        self.apart = {id(node): other for node, other in zip(ast.walk(tree), ast.walk(ast.parse(apart(text))))}
        self.begins = [0]
        for line in self.bytes.split(b"\n"):
            self.begins.append(self.begins[-1] + len(line) + 1)
        self.places = list(self._visit(tree, tree, "", range(0), False))
        strings: dict[ast.AST, dict[str, None]] = defaultdict(dict)
        for place, _, _ in self.places:
            if isinstance(place.node, ast.Constant) and isinstance(place.node.value, str):
                strings[place.function][place.node.value] = None
        for place, _, _ in self.places:
            place.strings = list(strings[place.function])

    def span(self, first: ast.AST, last: ast.AST) -> tuple[int, int]:
        """From which byte to which nodes are; the brackets around them are not part of it."""
        start = self.begins[first.lineno - 1] + first.col_offset  # type: ignore[attr-defined]
        return start, self.begins[last.end_lineno - 1] + last.end_col_offset  # type: ignore[attr-defined]

    def text(self, node: ast.AST) -> str:
        """The text of a node."""
        start, end = self.span(node, node)
        return self.bytes[start:end].decode()

    def _visit(
        self, node: ast.AST, function: ast.AST, within: str, lines: range, is_test: bool
    ) -> Iterator[tuple[Place, str, range]]:
        """A node and those in it."""
        if isinstance(node, ast.stmt):
            lines = range(self.apart[id(node)].lineno, self.apart[id(node)].lineno + 1)  # type: ignore[attr-defined]
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            within, function = f"{within}.{node.name}".lstrip("."), node
        elif hasattr(node, "lineno") or isinstance(node, ast.comprehension):
            yield Place(node, self.text, function, is_test), within, lines
        for child in children(node):
            test = child is getattr(node, "test", None) or child in getattr(node, "ifs", ())
            yield from self._visit(child, function, within, lines, test)


def apart(text: str) -> str:
    """The same with one statement a line."""
    return ast.unparse(ast.parse(text))


def mutants_of_text(text: str, module: str) -> list[SyntaxMutant]:
    """All mutants of a file, in the order of its text, each once."""
    source = _Source(text)
    found: dict[tuple[int, str, str], SyntaxMutant] = {}
    for place, within, lines in source.places:
        for operator, changes in OPERATORS.items():
            for what, new in changes(place):
                start, end = source.span(what, what) if isinstance(what, ast.AST) else source.span(*what)
                old = source.bytes[start:end].decode()
                line = source.bytes[:start].count(b"\n") + 1
                imported = not isinstance(place.function, ast.FunctionDef)
                body = source.apart[id(place.node)].body if operator in SKIPS else []  # type: ignore[attr-defined]
                at = range(body[0].lineno, body[-1].end_lineno + 1) if body else lines
                mutant = SyntaxMutant(module, within, line, at, operator, start, old, new, imported)
                if old != new:
                    found.setdefault((start, old, new), mutant)
    return sorted(found.values(), key=lambda mutant: mutant.start)


def syntax_mutants(globs: Iterable[str] = ("*",)) -> list[SyntaxMutant]:
    """The mutants of the files that match one of the globs."""
    found: list[SyntaxMutant] = []
    for module, text in sources().items():
        file = _file(module)
        if any(fnmatchcase(file, glob) for glob in globs) and not any(fnmatchcase(file, glob) for glob in LEFT_OUT):
            found += mutants_of_text(text, module)
    return found


def _file(module: str) -> str:
    """The name in the engine."""
    return file_of(module).rpartition(f"/{PACKAGE}/")[2]
