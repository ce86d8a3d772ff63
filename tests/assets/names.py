"""Writes `lightning-names.txt`: what releases of Lightning call their hooks, options and arguments.

    python -m pip download --no-deps -d wheels pytorch-lightning==1.5.10
    python tests/assets/names.py wheels/*-0.9.0-*.whl wheels/*-1.0.8-*.whl ...  # from the oldest to the newest

A line is a method, the first and the last release that has it so, and its arguments without `self`. Of the classes it
has the public methods, also the inherited ones, but no properties; of the trainer each argument of the constructor and
of the methods that run it, as a name of its own.
"""

from __future__ import annotations

import ast
import re
import sys
import zipfile
from pathlib import Path

TABLE = Path(__file__).with_name("lightning-names.txt")
CLASSES = ("LightningModule", "Callback", "LightningDataModule")
RUNNING = ("__init__", "fit", "validate", "test", "predict")


def names_of(sources: dict[str, str]) -> dict[str, list[str]]:
    """The arguments of each method, in the sources of a release by their paths."""
    classes = {
        node.name: node
        for path, source in sources.items()
        for node in ast.parse(source).body
        if isinstance(node, ast.ClassDef) and (node.name != "Callback" or "/callbacks/" in path)
    }

    def methods(name: str) -> dict[str, list[str]]:
        if name not in classes:
            return {}
        found = {}
        for base in reversed(classes[name].bases):
            found |= methods(ast.unparse(base).rpartition(".")[2])
        for node in classes[name].body:
            decorators = " ".join(map(ast.unparse, getattr(node, "decorator_list", [])))
            if isinstance(node, ast.FunctionDef) and not re.search("property|setter", decorators):
                arguments = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
                found[node.name] = [a.arg for a in arguments if a.arg not in ("self", "cls")]
        return found

    trainer = methods("Trainer")
    names = {f"Trainer.{run}.{name}": [] for run in RUNNING for name in trainer.get(run, [])}
    return names | {f"{name}.{m}": found for name in CLASSES for m, found in methods(name).items() if m[0] != "_"}


def sources_of(wheel: str) -> dict[str, str]:
    """The files of the package in a wheel."""
    with zipfile.ZipFile(wheel) as files:
        paths = [path for path in files.namelist() if path.startswith("pytorch_lightning/") and path.endswith(".py")]
        return {path: files.read(path).decode() for path in paths}


if __name__ == "__main__":
    spans: dict[str, list[tuple[str, str, list[str]]]] = {}
    for wheel in sys.argv[1:]:
        release = Path(wheel).name.split("-")[1]
        for name, arguments in names_of(sources_of(wheel)).items():
            had = spans.setdefault(name, [])
            first = had.pop()[0] if had and had[-1][2] == arguments else release
            had.append((first, release, arguments))
    lines = [f"{name} {first} {last} {' '.join(arguments)}" for name in spans for first, last, arguments in spans[name]]
    TABLE.write_text("".join(f"{line.strip()}\n" for line in sorted(lines)), encoding="utf-8")
