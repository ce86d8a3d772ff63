"""The commands of `python -m conformance`: functions of the parsed arguments, which return the exit status."""

from __future__ import annotations

import argparse
import fnmatch
import json
import re
import shutil
import sys
import tempfile
import textwrap
import tomllib
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from .adapters import check_name
from .causes import Cause, causes
from .checker import UNDECLARED, judge_file, unsupported
from .clauses import LEVELS, SPEC, Clause, load_clauses
from .experiment import STEPS
from .near import did_you_mean
from .profiles import PROFILES, departures, in_words_of, notes_of, read_departures, stale
from .readings import PAGE, readings, resting_on
from .report import print_summary, to_json, to_junit, write_html
from .runner import HarnessError, produce_traces, run_trainer
from .scenario import DRAWN_NAMES, Scenario, load_scenario, load_scenarios
from .trace import open_trace
from .verdicts import Note, Status, TrainerRun, Verdict
from .worlds import prepare

__all__ = [
    "UsageError", "check", "compare", "diff", "outline", "prepare_release", "record", "run", "scenarios", "selftest",
    "smoke", "spec",
]  # fmt: skip


class UsageError(Exception):
    """The command line asks for something that is not there."""


def run(arguments: argparse.Namespace) -> int:
    """Run trainers on scenarios, side by side."""
    trainers = arguments.trainers or ["refimpl"]
    for trainer in trainers:
        check_name(trainer)
        if [Path(each).name for each in trainers].count(Path(trainer).name) > 1:
            raise UsageError(f"{trainer} is named twice")
    if arguments.python and len(trainers) != 1:
        raise UsageError("--python says where one trainer runs; name exactly one")
    if arguments.baseline and len(trainers) != 1:
        raise UsageError("--baseline says what one trainer departs in; name exactly one")
    scenarios, clauses = _scenarios(arguments), _clauses(arguments)
    _expect_folders(arguments.json, arguments.junit)
    with tempfile.TemporaryDirectory(prefix="conformance-") as scratch:
        traces = Path(arguments.report) / "traces" if arguments.report else Path(scratch)
        runs = _run_all(trainers, scenarios, clauses, traces, arguments.python, arguments.profile)
        some = arguments.scenario or arguments.clause or arguments.quick
        return _conclude(runs, clauses, arguments, everything=not some)


def check(arguments: argparse.Namespace) -> int:
    """Judge traces that were made elsewhere."""
    clauses = _clauses(arguments)
    _expect_folders(arguments.json, arguments.junit)
    grouped: dict[str, list[tuple[Path, list[Verdict]]]] = {}
    headers = {}
    for name in arguments.traces:
        path = Path(name)
        verdicts = judge_file(path, clauses, arguments.profile)
        with open_trace(path) as reader:
            trainer = reader.header.trainer
            title = trainer["name"] if trainer["name"] != "lightning" else f"lightning@{trainer['version']}"
            headers[title] = reader.header
        grouped.setdefault(title, []).append((path, verdicts))
    runs = [
        TrainerRun(
            title,
            headers[title].trainer["version"],
            dict(headers[title].environment),
            tuple(v for _, verdicts in files for v in verdicts),
            0.0,
            notes_of(title, arguments.profile),
        )
        for title, files in grouped.items()
    ]
    return _conclude(runs, clauses, arguments, everything=False)


def record(arguments: argparse.Namespace) -> int:
    """Write the trace of one scenario."""
    scenario = _scenario(arguments.scenario)
    output = Path(arguments.output)
    _expect_folders(arguments.output)
    with tempfile.TemporaryDirectory(prefix="conformance-") as scratch:
        for done, error in produce_traces(arguments.adapter, [scenario], Path(scratch), arguments.python):
            if error is not None:
                raise HarnessError(f"{arguments.adapter} broke on {done.name}:\n{error}")
        output.write_bytes((Path(scratch) / f"{scenario.name}.jsonl").read_bytes())
    with open_trace(output) as reader:
        events = sum(1 for _ in reader)
        raised = f"; the run raised {reader.footer.error}" if reader.footer.outcome == "raised" else ""
    print(f"{output}: {events} events of {scenario.name} on {arguments.adapter}{raised}")
    return 0


def diff(arguments: argparse.Namespace) -> int:
    """Show where two traces first differ, and count what differs in all."""
    from .diff import diff as first_divergence
    from .diff import differences, render

    a, b, effects = Path(arguments.a), Path(arguments.b), not arguments.no_effects
    divergence = first_divergence(a, b, effects)
    if divergence is None:
        print(f"{arguments.a} and {arguments.b} tell the same")
        return 0
    print(render(divergence))
    print(differences(a, b, effects), end="")
    return 1


def compare(arguments: argparse.Namespace) -> int:
    """Say what changes from one trainer to another: hooks, their order, what they are given."""
    from .compare import compare as compare_traces
    from .compare import overridden, render
    from .compare import to_json as plain

    hooks, unread = overridden(arguments.module) if arguments.module else (None, [])
    check_name(arguments.a)
    check_name(arguments.b)
    scenarios = [s for s in _scenarios(arguments) if arguments.scenario or not s.name.startswith(DRAWN_NAMES)]
    _expect_folders(arguments.json)
    with tempfile.TemporaryDirectory(prefix="conformance-") as scratch:
        folders = [Path(scratch) / side for side in "ab"]
        for trainer, folder in zip((arguments.a, arguments.b), folders, strict=True):
            for done, error in produce_traces(trainer, scenarios, folder):
                if error is not None:
                    raise HarnessError(f"{trainer} broke on {done.name}:\n{error}")
        files = [f"{scenario.name}.jsonl" for scenario in scenarios]
        pairs = [(folders[0] / file, folders[1] / file) for file in files]
        found = compare_traces(arguments.a, arguments.b, pairs, hooks)
    if arguments.json == "-":
        print(json.dumps(plain(found), indent=1))
        return 0
    if arguments.json:
        Path(arguments.json).write_text(json.dumps(plain(found), indent=1) + "\n", encoding="utf-8")
    if hooks is not None:
        elsewhere = f"; not read: {', '.join(unread)}" if unread else ""
        print(f"{arguments.module} defines {', '.join(hooks)}{elsewhere}")
    print(render(found), end="")
    return 0


def outline(arguments: argparse.Namespace) -> int:
    """Print the calls of a trace, folded."""
    from .report.order import outline as outlined

    print(outlined(arguments.trace))
    return 0


def spec(arguments: argparse.Namespace) -> int:
    """List the clauses, or explain one; or an interpretation, R9."""
    clauses = load_clauses()
    if arguments.pattern is None:
        for clause in clauses.values():
            excluded = "excluded: " if clause.excluded else ""
            _say(f"{clause.id:<58} {clause.level:<6} ", excluded + clause.sentence)
        return 0
    if re.fullmatch(r"R\d+", arguments.pattern):
        rows = readings()
        if arguments.pattern not in rows:
            hint = did_you_mean(arguments.pattern, rows) if rows else f"; {PAGE} is not there"
            raise UsageError(f"no interpretation {arguments.pattern}{hint}")
        row = rows[arguments.pattern]
        print(f"{row.id}. {row.title}\n")
        for line in re.sub(r"\n +", " ", row.text).split("\n"):
            _say("", line)
        return 0
    from .mutants.selftest import mutants_of

    for clause in _matching(arguments.pattern, clauses).values():
        print(f"{clause.id}  ({clause.level})")
        _say("  ", clause.sentence)
        _say("  source:  ", clause.source)
        if clause.line:
            _say("  line:    ", clause.line)
        for row in resting_on(clause.id):
            _say("  read as: ", f"{row.id}. {row.title}")
        if clause.excluded:
            _say("  not checked: ", clause.excluded)
            print()
            continue
        _say("  check:   ", json.dumps(dict(clause.check)))
        for mutant in mutants_of(clause):
            _say("  mutant:  ", str(mutant))
        for profile in PROFILES[1:]:
            note = departures(profile).get(clause.id)
            if note is not None:
                _say(f"  {profile} departs: ", note.text)
        print()
    return 0


def scenarios(arguments: argparse.Namespace) -> int:
    """List the scenarios."""
    for scenario in _scenarios(arguments):
        _say(f"{scenario.name:<32} ", scenario.title)
    return 0


def smoke(arguments: argparse.Namespace) -> int:
    """Is the adapter itself sound? Three scenarios, or those that are named; no judgement of order."""
    scenarios = _scenarios(argparse.Namespace(scenario=arguments.scenario or ["fit-basic", "fit-val", "predict"]))
    problems = 0
    with tempfile.TemporaryDirectory(prefix="conformance-") as scratch:
        for scenario, error in produce_traces(arguments.adapter, scenarios, Path(scratch), arguments.python):
            said = error or _unsound(Path(scratch) / f"{scenario.name}.jsonl", scenario)
            problems += bool(said)
            print(f"{scenario.name}: {said or 'sound'}")
    return 1 if problems else 0


def selftest(arguments: argparse.Namespace) -> int:
    """The suite against its mutants; with --engine, against those of the whole engine instead."""
    if arguments.engine:
        return _selftest_of_engine(arguments)
    from .mutants.selftest import print_selftest
    from .mutants.selftest import selftest as prove

    console = Console()
    with _progress(console) as progress:
        task = progress.add_task("mutants", total=None)

        def on_progress(done: int, total: int) -> None:
            progress.update(task, completed=done, total=total)

        only = list(_clauses(arguments)) if arguments.clause else None
        report = prove(load_clauses(), load_scenarios(), on_progress, only=only)
    print_selftest(report, console)
    return 0 if report.ok else 1


def _selftest_of_engine(arguments: argparse.Namespace) -> int:
    from .mutants.everywhere import print_report, survey

    console = Console()
    with _progress(console) as progress:
        task = progress.add_task("mutants", total=None)

        def on_progress(done: int, total: int) -> None:
            progress.update(task, completed=done, total=total)

        report = survey(
            load_clauses(), load_scenarios(), on_progress, arguments.file or ["*"], arguments.sample, arguments.seed,
            arguments.tries,
        )  # fmt: skip
    print_report(report, console)
    return 0 if report.ok else 1


def prepare_release(arguments: argparse.Namespace) -> int:
    """Install a release into a folder of its own."""
    for name in arguments.releases:
        print(f"{name}: {prepare(name)}")
    return 0


# ---- what they share --------------------------------------------------------------------------------------


def _say(label: str, text: str) -> None:
    """Print a labelled text: in a terminal wrapped beside its label, or below it where that leaves little room; to a
    file or a pipe in one line, as other programs want it."""
    if not sys.stdout.isatty():
        print(label + text)
        return
    width = shutil.get_terminal_size().columns
    indent = " " * len(label)
    if width < len(label) + 30:
        print(re.sub(r"(\S) +", r"\1 ", label).rstrip())
        label = indent = " " * 4
    print(textwrap.fill(text, width, initial_indent=label, subsequent_indent=indent, break_on_hyphens=False))


def _run_all(
    trainers: Sequence[str],
    scenarios: Sequence[Scenario],
    clauses: Mapping[str, Clause],
    directory: Path,
    python: str | None,
    contract: str,
) -> list[TrainerRun]:
    """The trainers, two at a time: each release runs in a process of its own."""
    with _progress(Console(stderr=True)) as progress, ThreadPoolExecutor(2) as pool:
        futures = []
        for trainer in trainers:
            task = progress.add_task(trainer, total=len(scenarios))

            def advance(_: Scenario, task: int = task) -> None:
                progress.advance(task)  # type: ignore[arg-type]

            into = directory / Path(trainer).name
            futures.append(
                pool.submit(run_trainer, trainer, scenarios, clauses, into, python, advance, contract)
            )
        return [future.result() for future in futures]


def _conclude(
    runs: list[TrainerRun], clauses: Mapping[str, Clause], arguments: argparse.Namespace, everything: bool
) -> int:
    """Write the reports asked for, and say how it ended."""
    profile = arguments.profile
    if arguments.baseline:
        known = read_departures(Path(arguments.baseline))
        runs = [_with_baseline(run, known) for run in runs]
    gone = {run.trainer: stale(run) if everything else [] for run in runs}
    found = _causes(runs, clauses)
    if arguments.report:
        directory = Path(arguments.report)
        directory.mkdir(parents=True, exist_ok=True)
        write_html(directory / "report.html", runs, clauses, profile, found)
    if arguments.junit:
        Path(arguments.junit).write_text(to_junit(runs, clauses, profile), encoding="utf-8")
    if arguments.json == "-":
        print(json.dumps(to_json(runs, clauses, profile, found), indent=1))
    else:
        if arguments.json:
            text = json.dumps(to_json(runs, clauses, profile, found), indent=1)
            Path(arguments.json).write_text(text + "\n", encoding="utf-8")
        print_summary(runs, clauses, profile, Console(), arguments.verbose, found)
        if arguments.report:
            print(f"\nreport: {Path(arguments.report) / 'report.html'}")
    for trainer, rows in gone.items():
        for clause in rows:
            print(f"{trainer}: {clause} is on record as a departure, but holds now", file=sys.stderr)
    levels = ("MUST", "SHOULD", "MAY") if arguments.baseline else ("MUST",)
    return 1 if any(gone.values()) or any(_unexplained(run, clauses, levels) for run in runs) else 0


def _with_baseline(run: TrainerRun, known: Mapping[str, Note]) -> TrainerRun:
    """A run of which a file of the user's explains what it names, whatever is on record."""
    verdicts = (replace(verdict, beyond="") if verdict.clause in known else verdict for verdict in run.verdicts)
    return replace(run, verdicts=tuple(verdicts), notes={**run.notes, **known})


def _unexplained(run: TrainerRun, clauses: Mapping[str, Clause], levels: Sequence[str]) -> bool:
    """Whether a clause of these levels fails that no note explains, or the harness broke."""
    return any(
        v.status is Status.ERROR
        or (v.status is Status.FAIL and clauses[v.clause].level in levels and not run.note_on(v))
        for v in run.verdicts
    )


def _causes(runs: Sequence[TrainerRun], clauses: Mapping[str, Clause]) -> dict[str, list[Cause]]:
    """What the failures of each trainer come down to, but for those that are on record; a MUST comes first."""
    known = load_scenarios()

    def weight(cause: Cause) -> int:
        return LEVELS.index(clauses[cause.verdict.clause].level)

    new = {run.trainer: [v for v in run.verdicts if not run.note_on(v)] for run in runs}
    return {trainer: sorted(causes(each, clauses, known), key=weight) for trainer, each in new.items()}


def _unsound(path: Path, scenario: Scenario) -> str:
    """What is wrong with an adapter's trace, apart from order: empty if nothing."""
    with open_trace(path) as reader:
        seen = {event.hook for event in reader}
        declared = set(reader.header.declares["hooks"])
        told = any(event.do == "raise" for event in scenario.when)
        if reader.footer is not None and reader.footer.outcome == "raised" and not told:
            return f"the run raised {reader.footer.error}"
    if cannot := unsupported(scenario, reader.header):
        return f"not run: the trainer has no {', '.join(cannot)}"
    call = scenario.calls[0].partition("-")[0]
    for hook in (call, STEPS[{"fit": "train", "validate": "val"}.get(call, call)]):
        if hook not in seen:
            return f"no span of {hook} was recorded"
    undeclared = seen - declared - UNDECLARED
    return f"records hooks that it does not declare: {', '.join(sorted(undeclared))}" if undeclared else ""


def _matching(pattern: str, clauses: Mapping[str, Clause]) -> dict[str, Clause]:
    found = {name: clause for name, clause in clauses.items() if fnmatch.fnmatchcase(name, pattern)}
    if not found:
        raise UsageError(f"no clause matches {pattern!r}{did_you_mean(pattern, clauses, cutoff=0.3)}")
    return found


def _clauses(arguments: argparse.Namespace) -> dict[str, Clause]:
    clauses = in_words_of(arguments.profile, load_clauses())
    if not arguments.clause:
        return clauses
    wanted: dict[str, Clause] = {}
    for pattern in arguments.clause:
        wanted.update(_matching(pattern, clauses))
    return wanted


def _scenarios(arguments: argparse.Namespace) -> list[Scenario]:
    scenarios = load_scenarios()
    if not arguments.scenario:
        quick = tomllib.loads((SPEC / "quick.toml").read_text(encoding="utf-8"))["scenarios"]
        return [scenario for scenario in scenarios if not arguments.quick or scenario.name in quick]
    wanted: dict[str, Scenario] = {}
    for pattern in arguments.scenario:
        if pattern.endswith(".toml"):
            own = load_scenario(Path(pattern))
            wanted[own.name] = own
            continue
        found = [s for s in scenarios if fnmatch.fnmatchcase(s.name, pattern)]
        if not found:
            names = [s.name for s in scenarios]
            hint = did_you_mean(pattern, names, cutoff=0.3)
            raise UsageError(f"no scenario matches {pattern!r}{hint} (`conformance scenarios` lists all)")
        wanted.update({s.name: s for s in found})
    return list(wanted.values())


def _scenario(name: str) -> Scenario:
    found = _scenarios(argparse.Namespace(scenario=[name]))
    if len(found) != 1:
        raise UsageError(f"{name!r} matches {len(found)} scenarios; name one")
    return found[0]


def _expect_folders(*files: str | None) -> None:
    """That there is a folder for each file, before it takes minutes to have something to write there."""
    for file in files:
        if file not in (None, "-") and not Path(str(file)).parent.is_dir():
            raise UsageError(f"{file}: there is no folder {Path(str(file)).parent}")


def _progress(console: Console) -> Progress:
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
    return Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
