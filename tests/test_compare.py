"""What changes from one trainer to another, and what of it a module can notice."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from traces import conforming, drop, spans, write

from conformance.__main__ import main
from conformance.compare import CompareError, Comparison, compare, overridden, render, to_json
from conformance.hooks import HOOKS
from conformance.scenario import load_scenarios

SCENARIOS = {scenario.name: scenario for scenario in load_scenarios()}

MODULE = """
import a_package_that_is_not_there


class Base(a_package_that_is_not_there.LightningModule):
    def training_step(self, batch, number, *, hiddens=None): ...

    def validation_step(self, *given): ...

    def helper(self): ...


class Mine(Base, Mixin):
    if True:
        async def on_fit_start(self): ...

    test_step = None


class Empty:
    pass
"""


@pytest.fixture
def pairs(tmp_path: Path) -> list[tuple[Path, Path]]:
    """Of two scenarios a trainer that keeps the contract, and one that has moved a hook, lost one, and has no setup."""
    found = []
    for name in ("fit-no-callbacks", "fit-val", "dp-fit"):
        scenario, a, b = SCENARIOS[name], tmp_path / f"{name}-a.jsonl", tmp_path / f"{name}-b.jsonl"
        rows = conforming(scenario)
        write(a, scenario, rows)
        rows = drop(drop(rows, "module.on_train_end"), "module.setup")
        [(begin, end)] = spans(rows, "module.on_fit_start")
        start = rows[begin : end + 1]
        rest = rows[:begin] + rows[end + 1 :]
        [(_, at)] = spans(rest, "module.configure_optimizers")
        lacks = ["data-parallel"] if name == "dp-fit" else []
        without = [hook for hook in HOOKS if hook != "setup"]
        write(b, scenario, rest[: at + 1] + start + rest[at + 1 :], without, lacks=lacks)
        found.append((a, b))
    return found


def told(found: Comparison) -> list[tuple[str, tuple[str, ...], str]]:
    return [(row.kind, row.hooks, row.detail) for row in found.rows]


def test_what_differs(pairs: list[tuple[Path, Path]]) -> None:
    found = compare("x", "y", pairs[:1])
    assert (found.gone, found.new, found.compared, found.left_out) == (["setup"], [], 1, 0)
    assert told(found) == [
        ("missing", ("on_train_end",), "after on_epoch_end"),
        ("moved", ("on_fit_start",), "after configure_optimizers, not before on_post_move_to_device"),
    ]
    back = compare("y", "x", [(b, a) for a, b in pairs[:1]])
    assert (back.gone, back.new) == ([], ["setup"])
    assert told(back)[0] == ("added", ("on_train_end",), "after on_epoch_end")


def test_scenarios_that_one_of_them_cannot_run_are_left_out(pairs: list[tuple[Path, Path]]) -> None:
    found = compare("x", "y", pairs)
    assert (found.compared, found.left_out) == (2, 1)
    assert all("dp-fit" not in row.scenarios for row in found.rows)


def test_what_a_module_notices(pairs: list[tuple[Path, Path]]) -> None:
    given = pairs[:1]
    found = compare("x", "y", given, {"on_train_end": None})
    assert [row[:2] for row in told(found)] == [("missing", ("on_train_end",))]
    assert told(compare("x", "y", given, {"on_fit_start": None})) == []  # it cannot tell
    found = compare("x", "y", given, dict.fromkeys(["on_fit_start", "configure_optimizers", "setup"]))
    assert [row.hooks for row in found.rows] == [("on_fit_start",)] and found.gone == ["setup"]
    assert compare("x", "y", given, {"training_step": None}).gone == []
    assert compare("y", "x", [(b, a) for a, b in given], {"setup": None}).new == ["setup"]


@pytest.mark.parametrize("taken, noticed", [
    ({"batch", "batch_idx"}, False), ({"batch", "batch_idx", "dataloader_idx"}, True), (None, True)
])  # fmt: skip
def test_an_argument_is_noticed_by_a_hook_that_takes_it(tmp_path: Path, taken: set[str] | None, noticed: bool) -> None:
    scenario = SCENARIOS["fit-val"]
    rows = conforming(scenario)
    more = [
        row._replace(args={**row.args, "dataloader_idx": 0}) if row.hook == "validation_step" else row for row in rows
    ]
    given = [(write(tmp_path / "a.jsonl", scenario, rows), write(tmp_path / "b.jsonl", scenario, more))]
    hooks = {"validation_step": None if taken is None else frozenset(taken)}
    due = [("argument", ("validation_step",), "dataloader_idx as well")] if noticed else []
    assert told(compare("x", "y", given, hooks)) == due


def test_an_effect_is_noticed_where_the_module_first_sees_it(tmp_path: Path) -> None:
    scenario = SCENARIOS["fit-no-callbacks"]
    rows = conforming(scenario)
    at = spans(rows, "module.on_train_start")[0][0]
    later = [row._replace(fx={**row.fx, "global_step": 7}) if i >= at else row for i, row in enumerate(rows)]
    given = [(write(tmp_path / "a.jsonl", scenario, rows), write(tmp_path / "b.jsonl", scenario, later))]
    step = ("effect", ("training_step",), "global_step is another when it begins")
    assert told(compare("x", "y", given))[0][1] == ("on_train_start",)
    assert told(compare("x", "y", given, {"training_step": None})) == [step]


def test_the_hooks_of_a_module_are_read_off_its_file(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text(MODULE)
    assert overridden(f"{file}:Mine") == (
        {
            "training_step": frozenset({"batch", "number", "batch_idx", "hiddens"}),
            "validation_step": None, "on_fit_start": frozenset(), "test_step": None,
        },
        ["Mixin"],
    )
    for given, said in (
        (f"{file}:Mein", "has no class 'Mein'; did you mean 'Mine'?"),
        (f"{file}:Empty", "Empty defines no hook"),
        (str(file), "accepted: FILE.py:CLASS"),
        (f"{tmp_path / 'no.py'}:X", "cannot be read"),
    ):
        with pytest.raises(CompareError, match=re.escape(said)):
            overridden(given)
    (tmp_path / "bad.py").write_text("class :")
    with pytest.raises(CompareError, match=r"bad\.py cannot be read"):
        overridden(f"{tmp_path / 'bad.py'}:X")


def test_as_text_and_as_json(pairs: list[tuple[Path, Path]]) -> None:
    found = compare("x", "y", pairs)
    text = render(found)
    assert text.startswith("x -> y: 2 scenarios, and 1 that one of the two cannot run\n\ngone      setup\n")
    assert "\n  missing   on_train_end: after on_epoch_end\n            fit-no-callbacks" in text
    data = json.loads(json.dumps(to_json(found)))
    assert data["gone"] == ["setup"] and data["scenarios"] == 2
    assert {"kind": "missing", "hooks": ["on_train_end"]}.items() <= data["rows"][0].items()
    assert render(compare("x", "x", [(pairs[0][0], pairs[0][0])])).endswith("\n\nNothing changes.\n")


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "mine.py").write_text(MODULE)
    common = ["compare", "refimpl", "refimpl", "--scenario", "fit-basic"]
    assert main([*common, "--module", f"{tmp_path / 'mine.py'}:Mine", "--json", str(tmp_path / "c.json")]) == 0
    told = capsys.readouterr().out
    assert "Mine defines test_step, on_fit_start, training_step, validation_step; not read: Mixin\n" in told
    assert told.endswith("refimpl -> refimpl: 1 scenario\n\nNothing changes.\n")
    assert json.loads((tmp_path / "c.json").read_text())["rows"] == []
    assert main([*common, "--json", "-"]) == 0
    assert json.loads(capsys.readouterr().out)["format"] == "refimpl-comparison"
    assert main([*common, "--module", f"{tmp_path / 'mine.py'}:Mein"]) == 2
    assert "did you mean 'Mine'?" in capsys.readouterr().err
    assert main(["compare", "refimpl", "nobody"]) == 2
