"""The walls of the design, held by reading imports: who may know whom."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
ENGINE = sorted((ROOT / "refimpl").rglob("*.py"))
SUITE = sorted((ROOT / "conformance").rglob("*.py"))
READING = (
    *("experiment", "hooks", "lines", "near", "optimizers"),
    *("scenario", "scenario_devices", "scenario_keys", "scenario_rules", "scenario_values", "trace"),
)
PRODUCING = (*READING, "described", "effects", "observe", "produce", "recorder")
PRODUCER = [
    *(ROOT / "conformance" / f"{name}.py" for name in PRODUCING),
    *sorted((ROOT / "conformance" / "adapters").glob("*.py")),
]
JUDGING = (
    *("features", "clauses", "checks", "alignment", "checker", "verdicts", "numerics", "profiles", "diff", "report"),
)
CHECKER = (*READING, *JUDGING)
TRAINERS = {"torch", "refimpl", "pytorch_lightning", "lightning"}


def imported(path: Path) -> Iterator[str]:
    """Top-level packages that a file imports, wherever in it."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module.partition(".")[0]


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", ENGINE, ids=name)
def test_the_engine_does_not_know_the_suite(path: Path) -> None:
    assert "conformance" not in set(imported(path))


def test_the_suite_imports_the_engine_in_its_adapter_only() -> None:
    users = [name(path) for path in SUITE if "refimpl" in set(imported(path))]
    assert users == ["conformance/adapters/refimpl.py"]


def siblings(path: Path) -> Iterator[Path]:
    """The files of the suite that a file of it imports, wherever in it."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.level or str(node.module).startswith("conformance")):
            base = (path.parents[node.level - 1] if node.level else ROOT).joinpath(*(node.module or "").split("."))
            for alias in node.names:
                files = [each.with_suffix(".py") for each in (base / alias.name, base, base / "__init__")]
                yield next(file for file in files if file.exists())


def test_the_suites_files_import_one_another_one_way() -> None:
    TopologicalSorter({path: set(siblings(path)) for path in SUITE}).prepare()  # a CycleError names the circle


@pytest.mark.parametrize("path", PRODUCER, ids=name)
def test_the_producer_half_needs_only_the_standard_library_and_the_trainer(path: Path) -> None:
    foreign = set(imported(path)) - set(sys.stdlib_module_names) - TRAINERS
    assert foreign == set()


@pytest.mark.parametrize("path", PRODUCER, ids=name)
def test_the_producer_half_is_python_3_8(path: Path) -> None:
    ast.parse(path.read_text(encoding="utf-8"), feature_version=(3, 8))


def test_the_checker_half_runs_where_torch_and_numpy_do_not_exist() -> None:
    blocked = ["torch", "numpy", "refimpl", "pytorch_lightning"]
    modules = ", ".join(f"conformance.{module}" for module in CHECKER)
    code = f"import sys; sys.modules.update(dict.fromkeys({blocked})); import {modules}; import conformance.__main__"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stderr
