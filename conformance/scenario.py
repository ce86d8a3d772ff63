"""Scenarios: what is trained, for how long, with which options. Data, read from TOML.

A scenario is defined exactly, so that a program in any language can rebuild it: the model is
`Linear(4, 1)` with the weights and the data of `docs/adapters.md`. This module is loaded into the
trainer's own world, so it needs only the standard library of Python 3.8; TOML is read by the caller's.
"""

from __future__ import annotations

import json
from dataclasses import asdict, fields
from functools import lru_cache
from pathlib import Path
from typing import Any, Dict, List, Mapping, Tuple

from .experiment import Data, Saving, Scenario, Stopping, When
from .near import did_you_mean
from .scenario_module import LOSSES, Log, Model
from .scenario_rules import check
from .scenario_values import ScenarioError, check_name

__all__ = [
    "DIRECTORY",
    "DRAWN_NAMES",
    "PAIRS",
    "Data",
    "Log",
    "Model",
    "Saving",
    "Scenario",
    "ScenarioError",
    "Stopping",
    "When",
    "load_scenario",
    "load_scenarios",
    "scenario_of",
    "to_toml",
]

DIRECTORY = Path(__file__).parent / "scenarios"
PAIRS = DIRECTORY / "pairs.jsonl"  # drawn ones, in which every two features meet (see docs/testing.md)
DRAWN_NAMES = "pairs-"  # what their names begin with


def load_scenario(path: Path) -> Scenario:
    """A scenario from a TOML file; its name is the file's unless it gives one."""
    import tomllib  # Python 3.11: only the caller's side reads TOML

    try:
        return scenario_of({"name": path.stem, **tomllib.loads(path.read_text(encoding="utf-8"))})
    except (OSError, ValueError, RecursionError) as error:  # ValueError: of TOML, of UTF-8, or a ScenarioError
        raise ScenarioError("%s: %s" % (path, error)) from None


def load_scenarios() -> List[Scenario]:
    """The built-in scenarios: those with a file of their own by name, then those of PAIRS."""
    return list(_built_in())


@lru_cache(maxsize=None)
def _built_in() -> Tuple[Scenario, ...]:
    drawn = [scenario_of(json.loads(line)) for line in PAIRS.read_text(encoding="utf-8").splitlines()]
    return (*(load_scenario(path) for path in sorted(DIRECTORY.glob("*.toml"))), *drawn)


# What is a list of tables, and of what.
LISTS = {"when": When, "early_stopping": Stopping, "model_checkpoint": Saving}

# ---- tables in ------------------------------------------------------------------------------------------


def scenario_of(given: Mapping[str, Any]) -> Scenario:
    """The scenario that these tables are. Raises ScenarioError naming the scenario, the key or value, and the fix."""
    name = given.get("name") if isinstance(given, Mapping) else None
    if not isinstance(name, str) or not name:
        raise ScenarioError("a scenario is a table with a 'name', not %.80r" % (given,))
    check_name(name)
    row = dict(given)
    row["data"] = _build(Data, row.get("data", {}), "%s: data" % name)
    row["model"] = _build(Model, _with_logs(row.get("model", {}), name), "%s: model" % name)
    for key, kind in LISTS.items():
        if isinstance(row.get(key, ()), (list, tuple)):
            row[key] = tuple(_build(kind, item, "%s: %s" % (name, key)) for item in row.get(key, ()))
    scenario: Scenario = _build(Scenario, row, name)
    check(scenario)
    return scenario


def _with_logs(model: Any, name: str) -> Any:
    """The table of a model, the tables of its `logs` built; true is short for LOSSES."""
    logs = model.get("logs") if isinstance(model, Mapping) else None
    if isinstance(logs, bool):
        return dict(model, logs=LOSSES if logs else ())
    if not isinstance(logs, (list, tuple)):
        return model
    return dict(model, logs=tuple(_build(Log, item, "%s: model.logs" % name) for item in logs))


def _build(kind: Any, given: Any, where: str) -> Any:
    """A dataclass from a mapping, its lists as tuples; unknown keys are errors with the near miss."""
    if isinstance(given, kind):
        return given
    if not isinstance(given, Mapping):
        raise ScenarioError("%s: a table is expected, not %.80r" % (where, given))
    known = {item.name: item for item in fields(kind)}
    for key in given:
        if key not in known:
            raise ScenarioError("%s: unknown key %.80r%s" % (where, key, did_you_mean(key, known)))
        accepted, item_type, words = _TYPES.get(known[key].type, (object, object, ""))
        items = given[key] if accepted is tuple and isinstance(given[key], (list, tuple)) else ()
        if not _is(given[key], accepted) or not all(_is(item, item_type) for item in items):
            raise ScenarioError("%s: %s is %.80r; %s is accepted" % (where, key, given[key], words))
    try:
        return kind(**{key: tuple(v) if isinstance(v, list) else v for key, v in given.items()})
    except TypeError as error:
        raise ScenarioError("%s: %s" % (where, str(error).split("__init__() ")[-1])) from None


NUMBER = (int, float)
# What the fields' types accept: the type, that of the items of a list, and both in words.
_TYPES: Dict[Any, Tuple[Any, Any, str]] = {
    "str": (str, object, "a string"),
    "int": (int, object, "an int"),
    "float": (NUMBER, object, "a number"),
    "bool": (bool, object, "true or false"),
    "Tuple[str, ...]": (tuple, str, "a list of strings"),
    "Tuple[int, ...]": (tuple, int, "a list of ints"),
    "Tuple[float, ...]": (tuple, NUMBER, "a list of numbers"),
    "Optional[bool]": ((bool, type(None)), object, "true or false"),
    "Tuple[Log, ...]": (tuple, Log, "true, false or a list of tables"),
    "Tuple[When, ...]": (tuple, When, "a list of tables"),
    "Tuple[Stopping, ...]": (tuple, Stopping, "a list of tables"),
    "Tuple[Saving, ...]": (tuple, Saving, "a list of tables"),
    "Mapping[str, Any]": (Mapping, object, "a table"),
}


def _is(value: Any, accepted: Any) -> bool:
    """`isinstance`, but a list is a tuple here, and a bool is no number."""
    if accepted is tuple:
        return isinstance(value, (list, tuple))
    return isinstance(value, accepted) and not (accepted in (int, NUMBER) and isinstance(value, bool))


# ---- TOML out ---------------------------------------------------------------------------------------------


def to_toml(scenario: Scenario) -> str:
    """The scenario as a file that `load_scenario` reads; what has its default is left out."""
    row, default = scenario.to_dict(), Scenario(scenario.name).to_dict()
    lines = ["name = %s" % _toml(scenario.name), *_pairs(row, default, ("data", "model", "trainer", *LISTS))]
    for table in ("data", "model", "trainer"):
        pairs = _pairs(row[table], default[table])
        lines += ["[%s]" % table, *pairs] if pairs else []
    for key, kind in LISTS.items():
        plain = {item.name: item.default for item in fields(kind)}
        for each in row[key]:
            lines += ["[[%s]]" % key, *_pairs(each, plain)]
    return "\n".join(lines) + "\n"


def _pairs(row: Mapping[str, Any], default: Mapping[str, Any], but: Tuple[str, ...] = ()) -> List[str]:
    nothing = object()
    return ["%s = %s" % (k, _toml(v)) for k, v in row.items() if k not in but and v != default.get(k, nothing)]


def _toml(value: Any) -> str:
    """A scalar, a list or a table. TOML's strings, numbers and lists are JSON's, but for one control character; tables
    have `=` for `:`, and in a list nothing that has its default."""
    if isinstance(value, dict):
        return "{ %s }" % ", ".join(_pairs(value, {}))
    if isinstance(value, list) and value and isinstance(value[0], dict):
        default = dict(asdict(Log("", "")), values=[])
        return "[%s]" % ", ".join("{ %s }" % ", ".join(_pairs(item, default)) for item in value)
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
