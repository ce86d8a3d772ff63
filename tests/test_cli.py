"""The command line: each command, its exit status, and what it says to a wrong question."""

from __future__ import annotations

import json
import subprocess
import sys
import xml.etree.ElementTree as ET
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from conformance.__main__ import main
from conformance.experiment import Scenario
from conformance.runner import HarnessError
from conformance.scenario import load_scenarios

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def trace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A conforming trace."""
    path = tmp_path_factory.mktemp("cli") / "fit-val.jsonl"
    assert main(["record", "refimpl", "fit-val", "-o", str(path)]) == 0
    return path


@pytest.fixture(scope="module")
def broken(trace: Path) -> Path:
    """A well-formed trace of a trainer whose module comes first in on_fit_start."""
    lines = trace.read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    places = [i for i, row in enumerate(rows) if row.get("hook") == "on_fit_start"]
    swapped = [{**rows[i], "seq": rows[j]["seq"]} for i, j in zip(places[2:] + places[:2], places)]
    for place, row in zip(places, swapped):
        rows[place] = row
    path = trace.with_name("broken.jsonl")
    path.write_text("\n".join(json.dumps(row) for row in rows) + "\n")
    return path


def test_run_writes_every_report(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["run", "refimpl", "--scenario", "fit-*basic", "--clause", "fit.*", "--report", str(tmp_path / "r")]
    arguments += ["--json", str(tmp_path / "v.json"), "--junit", str(tmp_path / "v.xml")]
    assert main(arguments) == 0
    assert "No failures" in capsys.readouterr().out
    assert (tmp_path / "r" / "report.html").stat().st_size > 10_000
    assert (tmp_path / "r" / "traces" / "refimpl" / "fit-basic.jsonl").exists()
    verdicts = json.loads((tmp_path / "v.json").read_text())
    assert verdicts["format"] == "refimpl-verdicts"
    assert ET.parse(tmp_path / "v.xml").getroot().tag == "testsuites"


def test_a_scenario_file_of_ones_own(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "mine.toml"
    path.write_text('title = "mine"\n[data]\ntrain = 2\n')
    assert main(["--scenario", str(path), "--json", "-"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert {v["scenario"] for run in said["runs"] for v in run["verdicts"]} == {"mine"}


def test_check_judges_a_trace_made_elsewhere(trace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", str(trace)]) == 0
    assert "No failures" in capsys.readouterr().out


def test_check_fails_for_a_must_only(trace: Path, broken: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", str(broken), "-v"]) == 0
    said = capsys.readouterr().out
    assert "fit.sequence" in said
    assert "train_on_device: on_fit_start()" in said
    renamed = trace.with_name("renamed.jsonl")
    renamed.write_text(trace.read_text().replace('"on_train_end"', '"on_epoch_end"'))
    assert main(["check", str(renamed)]) == 1
    assert "train.on_epoch_end  MUST" in capsys.readouterr().out


def test_check_needs_neither_torch_nor_a_trainer(trace: Path) -> None:
    blocked = ["torch", "numpy", "refimpl", "pytorch_lightning"]
    code = f"""import sys; sys.modules.update(dict.fromkeys({blocked}))
from conformance.__main__ import main
sys.exit(main(["check", {str(trace)!r}]))"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stderr
    assert "No failures" in done.stdout


def test_check_refuses_what_is_no_trace(tmp_path: Path, trace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cut = tmp_path / "cut.jsonl"
    cut.write_text("\n".join(trace.read_text().splitlines()[:-1]) + "\n")
    assert main(["check", str(cut)]) == 2
    assert f"conformance: {cut}:" in capsys.readouterr().err
    assert main(["check", str(tmp_path / "none.jsonl")]) == 2


def test_diff(trace: Path, broken: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["diff", str(trace), str(trace)]) == 0
    assert "tell the same" in capsys.readouterr().out
    assert main(["diff", str(trace), str(broken)]) == 1
    first, counted = capsys.readouterr().out.split("B, aligned with A:")
    assert "on_fit_start" in first and "1 x  fit       receivers  on_fit_start: module, callback:0, not" in counted


def test_spec_shows_the_reading_that_a_clause_rests_on(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["spec", "skip.none.no-backward"]) == 0
    assert "  read as: R9. training_step returns None" in capsys.readouterr().out
    assert main(["spec", "R9"]) == 0
    said = capsys.readouterr().out
    assert said.startswith("R9. training_step returns None\n\n- **Question**") and "skip.none.no-backward" in said


def test_outline(tmp_path: Path, trace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["outline", str(trace)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["fit", "trainer"]
    assert ["on_fit_start", "callback:0,", "module"] in [line.split() for line in lines]
    assert any(line.split() == ["step", "optimizer", "parameters", "change"] for line in lines)
    bare = trace.read_text().splitlines()
    bare[1:-1] = [json.dumps({**json.loads(line), "fx": {}}) for line in bare[1:-1]]
    (tmp_path / "bare.jsonl").write_text("\n".join(bare) + "\n")
    assert main(["outline", str(tmp_path / "bare.jsonl")]) == 0
    shown = capsys.readouterr().out
    assert "on_fit_start" in shown and "change" not in shown
    assert main(["record", "refimpl", "fit-raise-step", "-o", str(tmp_path / "raised.jsonl")]) == 0
    assert "; the run raised RuntimeError: told to by the scenario" in capsys.readouterr().out
    assert main(["outline", str(tmp_path / "raised.jsonl")]) == 0
    assert capsys.readouterr().out.endswith("raised RuntimeError: told to by the scenario\n")


OWN = """
import refimpl
from conformance.adapters.refimpl import RefimplAdapter
class Mine(RefimplAdapter):
    name = "mine"
    def call(self, trainer, function, *rest):
        trainer.limit_val_batches = 1
        return super().call(trainer, function, *rest)
class Loud(RefimplAdapter):
    def call(self, trainer, function, module, *rest):
        call = super().call(trainer, function, module, *rest)
        def twice():
            module.on_fit_start()
            return call()
        return twice
"""
KNOWN = """
[[departure]]
clauses = ["fit.on_fit_start", "fit.sequence", "fit.configure_callbacks-then-on_fit_start"{more}]
note = "It is called once more."
evidence = "fit-basic"
"""


def test_an_adapter_of_ones_own(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "own.py").write_text(OWN)
    own, here = f"{tmp_path}/own.py:", ["--scenario", "fit-basic"]
    assert main(["run", f"{own}Mine", *here, "--report", str(tmp_path / "report")]) == 0
    assert (tmp_path / "report" / "traces" / "own.py:Mine" / "fit-basic.jsonl").exists()
    assert main(["smoke", f"{own}Loud"]) == 0
    assert main(["run", f"{own}Loud", *here]) == 1
    assert "in 1 finding" in capsys.readouterr().out
    for wrong, said in (("Min", "did you mean 'Mine'?"), ("Nobody", "accepted: a class with `header` and `run`")):
        assert main(["run", f"{own}{wrong}", *here]) == 2
        assert said in capsys.readouterr().err
    assert main(["run", f"{tmp_path}/none.py:Mine"]) == 2
    assert "no file" in capsys.readouterr().err


def test_a_baseline_explains_what_is_meant(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "own.py").write_text(OWN)
    run = ["run", f"{tmp_path}/own.py:Loud", "--scenario", "fit-basic", "--baseline"]
    known, more, wrong = (tmp_path / name for name in ("known.toml", "more.toml", "wrong.toml"))
    known.write_text(KNOWN.format(more=""))
    assert main([*run, str(known)]) == 1, "structure.receivers, which is not on record, fails"
    known.write_text(KNOWN.format(more=', "structure.receivers"'))
    assert main([*run, str(known)]) == 0
    assert "It is called once more." in capsys.readouterr().out
    wrong.write_text(KNOWN.format(more=', "fit.on_fit_begin"'))
    assert main([*run, str(wrong)]) == 2
    assert "wrong.toml: no clause 'fit.on_fit_begin'; did you mean" in capsys.readouterr().err
    assert main([*run, str(more)]) == 2


def test_scenarios_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["scenarios"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == len(load_scenarios())
    assert main(["scenarios", "--scenario", "fit-logg*"]) == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == ["fit-logger-none", "fit-logger"]


def test_spec_lists_and_explains(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["spec"]) == 0
    listed = capsys.readouterr().out
    assert "train.backward " in listed
    assert "excluded: " in listed
    assert main(["spec", "fit.on_fit_start-then-setup"]) == 0
    explained = capsys.readouterr().out
    for part in ("source:", "check:", "mutant:", "lightning-2 departs:"):
        assert part in explained


def test_a_narrow_terminal_gets_lines_that_fit(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for arguments in (["spec"], ["spec", "fit.*"], ["spec", "R9"], ["scenarios"]):
        assert main(arguments) == 0
        whole = capsys.readouterr().out
        with monkeypatch.context() as patch:
            patch.setattr("sys.stdout.isatty", lambda: True)
            patch.setenv("COLUMNS", "72")
            assert main(arguments) == 0
        wrapped = capsys.readouterr().out
        assert max(map(len, whole.splitlines())) > 80
        assert max(len(line) for line in wrapped.splitlines() if " " in line.strip()) <= 72
        assert "".join(wrapped.split()) == "".join(whole.split())


def test_smoke(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["smoke", "refimpl"]) == 0
    assert capsys.readouterr().out.count("sound") == 3
    assert main(["smoke", "refimpl", "--scenario", "fit-resume-sanity", "--scenario", "validate*"]) == 0


@pytest.mark.parametrize(
    ("arguments", "usage"),
    [
        (["record", "refimpl", "fit-val", "-o", "t.jsonl", "--scenario", "x"], "usage: python -m conformance record"),
        (["smoke", "refimpl", "-v"], "usage: python -m conformance smoke"),
        (["--verbos", "check", "x.jsonl", "--bar"], "usage: python -m conformance check"),
    ],
)
def test_an_option_of_another_command_is_told_with_what_this_one_takes(
    arguments: list[str], usage: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main(arguments)
    error = capsys.readouterr().err
    assert error.startswith(usage) and "error: this command takes no -" in error


def test_selftest_of_a_clause(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["selftest", "--clause", "modes.val.training"]) == 0
    assert "clauses proven by a mutant: 1 of 1" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["run", "refimp"], "no trainer 'refimp'; did you mean 'refimpl'? (all: refimpl, lightning@2.6.6,"),
        (["run", "refimpl", "refimpl"], "refimpl is named twice"),
        (["run", "--scenario", "fit-vall"], "no scenario matches 'fit-vall'; did you mean 'fit-val'?"),
        (["run", "--json", "nowhere/x.json"], "nowhere/x.json: there is no folder nowhere"),
        (["check", "x.jsonl", "--junit", "nowhere/x.xml"], "nowhere/x.xml: there is no folder nowhere"),
        (["record", "refimpl", "fit-val", "-o", "nowhere/x.jsonl"], "nowhere/x.jsonl: there is no folder nowhere"),
        (["record", "refimpl", "fit-val", "-o", "."], ".: Is a directory"),
        (["run", "--python", "/nowhere/python"], "no Python interpreter at /nowhere/python"),
        (["selftest", "--clause", "train.bakward"], "did you mean 'train.backward'?"),
        (["run", "--clause", "train.bakward"], "did you mean 'train.backward'?"),
        (["spec", "train.bakward"], "did you mean 'train.backward'?"),
        (["spec", "R999"], "no interpretation R999"),
        (["record", "refimpl", "fit-*", "-o", "x"], "matches"),
        (["record", "nobody", "fit-basic", "-o", "x"], "no trainer 'nobody'"),
        (["run", "refimpl", "lightning@2.6.6", "--python", "python3"], "name exactly one"),
        (["run", "--scenario", "missing.toml"], "missing.toml"),
    ],
)
def test_wrong_questions(arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 2
    assert said in capsys.readouterr().err


def test_options_may_stand_before_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    chosen = ["--scenario", "fit-val", "--clause", "train.back*"]
    assert main([*chosen, "--profile", "lightning-2", "run", "refimpl"]) == 0
    said = capsys.readouterr().out
    assert "profile lightning-2: 3 clauses" in said and "(train.backward-optimizer)" in said  # not in that contract
    assert main(["--clause", "modes.val.training", "selftest"]) == 0
    assert "1 of 1" in capsys.readouterr().out


@pytest.mark.parametrize("options", [["--quick", "spec", "R9"], ["--report", "out", "scenarios"], ["-v", "selftest"]])
def test_an_option_that_the_command_does_not_have_is_refused(
    options: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        main(options)
    assert caught.value.code == 2
    option = "--verbose" if options[0] == "-v" else options[0]
    assert f"this command takes no {option}" in capsys.readouterr().err


def test_a_quick_run_leaves_out_what_is_drawn_and_what_is_of_several_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    names: list[str] = []

    def told(trainer: str, scenarios: Sequence[Scenario], *others: Any, **options: Any) -> None:
        names.extend(scenario.name for scenario in scenarios)
        raise HarnessError("not today")

    monkeypatch.setattr("conformance.commands.run_trainer", told)
    assert main(["run", "--quick"]) == 2
    assert len(names) > 100 and not [name for name in names if name.startswith(("pairs-", "ddp-"))]


def test_a_release_that_is_not_prepared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("REFIMPL_CACHE", str(tmp_path))
    assert main(["run", "lightning@1.5.10"]) == 2
    assert "python -m conformance prepare lightning@1.5.10" in capsys.readouterr().err


COMMANDS = "run check record compare diff outline spec scenarios smoke selftest prepare"


@pytest.mark.parametrize("command", COMMANDS.split())
def test_each_help_has_an_example(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main([command, "--help"])
    assert f"example:\n  python -m conformance {command} " in capsys.readouterr().out
