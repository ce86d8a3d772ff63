"""The pages in `docs/` and the README: links lead somewhere, code runs, and what is named exists."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from conformance.__main__ import main
from conformance.adapters import model
from conformance.causes import causes
from conformance.checker import judge_file
from conformance.clauses import load_clauses
from conformance.scenario import DIRECTORY, load_scenario, load_scenarios
from conformance.verdicts import Status

ROOT = Path(__file__).resolve().parent.parent
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").rglob("*.md")])
SOURCES = [*(ROOT / "conformance").rglob("*.py"), *(ROOT / "refimpl").rglob("*.py")]
LABELS = ("Question", "Texts", "Reading", "Why", "1.5.10", "2.6.6", "Clauses")

# ---- links ----------------------------------------------------------------------------------------------


def markdown(page: Path) -> str:
    """A page without its blocks of code."""
    return re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)


@cache
def anchors(page: Path) -> set[str]:
    """What a link to this page can point at: its headings, as GitHub writes them, and what has an id."""
    headings = re.findall(r"^#+ (.+)$", markdown(page), re.MULTILINE)
    ids = re.findall(r'<a id="([^"]+)">', markdown(page))
    return {*ids, *(re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings)}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for link in re.findall(r"\]\(([^)\s]+)\)", markdown(page)):
        if re.match(r"https?:", link):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), f"{page.name} links to {link}, which does not exist"
        assert not anchor or anchor in anchors(target), f"{page.name} links to {link}: no such heading"


# ---- docs/interpretations.md ----------------------------------------------------------------------------


def rows() -> dict[str, str]:
    """The interpretations, by the number in their heading: "R1"."""
    text = (ROOT / "docs" / "interpretations.md").read_text(encoding="utf-8")
    parts = re.split(r"^## (R\d+)\. ", text, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def test_interpretations_are_numbered_and_complete() -> None:
    numbers = [int(name[1:]) for name in rows()]
    assert numbers == sorted(set(numbers))
    for name, row in rows().items():
        missing = [label for label in LABELS if f"**{label}**" not in row]
        assert not missing, f"{name} lacks {', '.join(missing)}"


def test_every_interpretation_that_the_sources_name_has_a_row() -> None:
    named = {name for path in SOURCES for name in re.findall(r"\[(R\d+)\]", path.read_text(encoding="utf-8"))}
    assert {"R1", "R24", "R26"} <= named
    assert named <= set(rows())


def test_clauses_that_interpretations_name_exist() -> None:
    named = set()
    for name, row in rows().items():
        [listed] = re.findall(r"\*\*Clauses\*\*: (.*?)(?:\n\n|\Z)", row, re.DOTALL)
        found = re.findall(r"`([^`]+)`", listed)
        assert found or re.match(r"none|those of", listed), f"{name} names no clause and does not say why"
        assert set(found) <= set(load_clauses()), f"{name}: {sorted(set(found) - set(load_clauses()))}"
        named |= set(found)
    assert len(named) > 100


# ---- docs/adapters.md -----------------------------------------------------------------------------------


def blocks(page: str = "adapters.md") -> dict[str, str]:
    """The programs of a page, by the file name in their first line."""
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    found = {}
    for code in re.findall(r"```python\n(.*?)```", text, re.DOTALL):
        first = re.match(r"# (\w+\.py)\n", code)
        assert first, f"a code block has no file name in its first line:\n{code[:80]}"
        found[first[1]] = code
    return found


def run(code: str) -> None:
    """Run a program in the test's directory; it must end well, and a warning is an error here."""
    exec(compile(code, "<page>", "exec", dont_inherit=True), {"__name__": "__main__"})


def check(*traces: Path) -> int:
    """The exit status of `python -m conformance check`."""
    return main(["check", *map(str, traces)])


def statuses(trace: Path, status: Status) -> set[str]:
    return {verdict.clause for verdict in judge_file(trace, load_clauses()) if verdict.status is status}


def test_the_example_of_the_readme_runs(tmp_path: Path) -> None:
    [code] = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    run(code)
    assert [path.name[:8] for path in tmp_path.glob("lightning_logs/version_0/checkpoints/*")] == ["epoch=2-"]


def test_the_example_of_logging_runs(tmp_path: Path) -> None:
    run(blocks("logging.md")["logged.py"])
    assert [path.name for path in (tmp_path / "logs" / "lightning_logs").iterdir()] == ["version_0"]


def test_the_example_of_hyperparameters_runs() -> None:
    run(blocks("hyperparameters.md")["hyperparameters.py"])


def test_the_example_of_several_loaders_runs() -> None:
    run(blocks("data.md")["loaders.py"])


def test_the_example_of_checkpoints_runs(tmp_path: Path) -> None:
    run(blocks("checkpoints.md")["resumed.py"])
    assert {path.name for path in tmp_path.iterdir()} == {"whole", "parts", "by_hand.ckpt"}
    assert len(list((tmp_path / "parts").iterdir())) == 3  # the best two, and the last


def test_the_example_of_export_runs(tmp_path: Path) -> None:
    run(blocks("export.md")["exported.py"])
    assert sorted(path.name for path in tmp_path.glob("*.onnx*")) == ["model.onnx"]


def test_a_trainer_like_lightning_is_judged(tmp_path: Path) -> None:
    run(blocks()["like_lightning.py"])
    traces = sorted((tmp_path / "traces").glob("*.jsonl"))
    assert [trace.stem for trace in traces] == ["fit-basic", "fit-val", "predict"]
    assert check(*traces) == 0


def test_a_trainer_written_by_hand_is_judged(tmp_path: Path) -> None:
    run(blocks()["by_hand.py"])
    trace = tmp_path / "fit-basic.jsonl"
    assert check(trace) == 0
    assert not statuses(trace, Status.FAIL)
    passed = statuses(trace, Status.PASS)
    assert {"fit.sequence", "train.closure.through-optimizer", "train.parameters.updated"} <= passed
    assert "train.on_train_batch_start" in statuses(trace, Status.UNSUPPORTED)


def test_a_trainer_written_by_hand_is_broken_as_the_page_says(tmp_path: Path) -> None:
    code = blocks()["by_hand.py"]
    clear = re.search(r' *span\("optimizer_zero_grad".*\n', code)
    backward = re.search(r' *span\("backward".*\n', code)
    assert clear is not None
    assert backward is not None
    changes = {
        "train.parameters.updated": (clear[0] + backward[0], backward[0] + clear[0]),
        "train.closure.through-optimizer": ("optimizer.step(closure)", "(closure(), optimizer.step())"),
    }
    for clause, (before, after) in changes.items():
        assert before in code
        run(code.replace(before, after))
        assert {clause, "fit.sequence"} <= statuses(tmp_path / "fit-basic.jsonl", Status.FAIL)


ZERO = '                    span("optimizer_zero_grad", optimizer.zero_grad, **where)\n'
BACKWARD = '                    span("backward", loss.backward, loss=loss, **which)\n'
CONFIGURE = '        optimizer = span("configure_optimizers", lambda: torch.optim.SGD(model.parameters(), lr=0.0625))\n'
LOADER = '        batches = span("train_dataloader", train_dataloader)\n'
WHILE = "        while self.current_epoch < self.max_epochs:\n"
STEP = 'span("optimizer_step", lambda: optimizer.step(closure), **where, **ON_CPU)\n                '
# What somebody may do wrong in that trainer, and the clause that the finding is named after.
PLANTED = {
    "train.optimizer_zero_grad-then-backward": (ZERO + BACKWARD, BACKWARD + ZERO),
    "train.closure.through-optimizer": ("optimizer.step(closure), **where", "(closure(), optimizer.step()), **where"),
    "epoch.global_step": ("                self.global_step += 1\n", "            self.global_step += 1\n"),
    "train.optimizer_zero_grad": (ZERO, ""),
    "modes.train.training": ("model.train()", "model.eval()"),
    "train.optimizer_step-batch_idx": ("in enumerate(batches):", "in enumerate(batches, 1):"),
    "train.optimizer_step-arguments": ('"epoch": self.current_epoch,', '"epoch": self.current_epoch + 1,'),
    "train.loss": (BACKWARD, BACKWARD.replace('span("backward"', 'loss = loss * 2; span("backward"')),
    "fit.configure_optimizers": (WHILE, WHILE + "    " + CONFIGURE),
    "fit.sequence": (CONFIGURE + LOADER, LOADER + CONFIGURE),
    "fit.state.stage": ("        self.training = False\n\n\nON_CPU", "        pass\n\n\nON_CPU"),
    "train.optimizer_step": (STEP + "self.global_step += 1\n", STEP * 2 + "self.global_step += 1\n"),
    "train.batch": ("in enumerate(batches):", "in enumerate([next(iter(batches))] * len(batches)):"),
    "train.backward": ("in enumerate(batches):", "in list(enumerate(batches))[:-1]:"),  # the last batch is left out
}


@pytest.mark.parametrize("clause", PLANTED)
def test_a_mistake_in_a_trainer_written_by_hand_is_one_finding_that_names_it(clause: str, tmp_path: Path) -> None:
    before, after = PLANTED[clause]
    code = blocks()["by_hand.py"]
    assert code.count(before) == 1
    run(code.replace(before, after))
    clauses = load_clauses()
    found = causes(judge_file(tmp_path / "fit-basic.jsonl", clauses), clauses, load_scenarios())
    assert [cause.verdict.clause for cause in found] == [clause]


def test_the_formulas_are_those_of_the_scenario_model() -> None:
    formulas: dict[str, object] = {}
    exec(blocks()["formulas.py"], formulas)  # its assertions hold
    sample = formulas["sample"]
    assert callable(sample)
    scenario = load_scenario(DIRECTORY / "fit-val-loaders.toml")
    for stage, number in (("train", 0), ("val", 1)):
        provided = model.loaders(scenario, stage)
        for loader, batches in enumerate(provided if isinstance(provided, list) else [provided]):
            for batch, (x, y) in enumerate(batches):
                rows = [sample(number, loader, batch, row) for row in range(len(x))]
                assert x.tolist() == [row[0] for row in rows]
                assert y.tolist() == [[row[1]] for row in rows]


def test_a_run_ends_where_the_formulas_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The page's arithmetic in plain Python, against the trainer written by hand."""
    formulas: dict[str, object] = {}
    exec(blocks()["formulas.py"], formulas)
    given = "trainer.fit(model,"
    code = blocks()["by_hand.py"]
    assert given in code
    by_hand: dict[str, Any] = {"__name__": "by_hand", "seen": []}
    exec(code.replace(given, f"seen.append(model) or {given}"), by_hand)
    monkeypatch.chdir(tmp_path)
    by_hand["main"]()
    [trained] = by_hand["seen"]
    assert trained.weight.tolist()[0] == pytest.approx(formulas["weights"])
    assert trained.bias.item() == pytest.approx(formulas["bias"])
