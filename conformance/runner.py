"""Scenarios to verdicts, for one trainer: produce the traces in its world, then judge them."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from .adapters import ADAPTERS, check_name
from .checker import judge_file
from .clauses import Clause
from .profiles import departures, notes_of, profile_of
from .scenario import Scenario
from .spec.contracts import DOCUMENTATION
from .trace import TraceError, open_trace
from .verdicts import Status, TrainerRun, Verdict
from .worlds import RELEASES, World, interpreter, locate

__all__ = ["HarnessError", "marked", "produce_traces", "run_trainer"]

MANY = 20  # scenarios, which take longer than a process takes to start


class HarnessError(RuntimeError):
    """The trainer could not be run at all; the message says what to do."""


def produce_traces(
    trainer: str, scenarios: Sequence[Scenario], directory: Path, python: str | None = None, blind: bool = False
) -> Iterator[tuple[Scenario, str | None]]:
    """Write `directory/<scenario>.jsonl` for each scenario, in the trainer's own world; `blind`, with the effects at
    the ends of the user's calls only.

    Yields each scenario when it is done, with None or the traceback if the harness broke. Raises
    UnknownTrainer, ReleaseMissing, WorldError or HarnessError if the trainer cannot be run.
    """
    check_name(trainer)
    directory.mkdir(parents=True, exist_ok=True)
    if trainer in RELEASES:
        yield from _elsewhere(trainer, scenarios, directory, locate(trainer, python), blind)
        return
    # A class of the user's own has a process of its own, too; and while many are recorded, others can be judged.
    if python is not None or trainer not in ADAPTERS or len(scenarios) >= MANY:
        here = Path(__file__).resolve().parent.parent
        world = World(trainer, interpreter(python or sys.executable), "interpreter", (here,))
        yield from _elsewhere(trainer, scenarios, directory, world, blind)
        return
    from .adapters import load_adapter
    from .produce import produce

    adapter = load_adapter(trainer)
    adapter.blind = blind
    for scenario in scenarios:
        yield scenario, produce(adapter, scenario, directory / f"{scenario.name}.jsonl")


def _elsewhere(
    trainer: str, scenarios: Sequence[Scenario], directory: Path, world: World, blind: bool
) -> Iterator[tuple[Scenario, str | None]]:
    """The same in processes of the world's interpreter, each of which is handed all of its scenarios at once: many
    are dealt out to two."""
    dealt = min(2, os.cpu_count() or 1) if len(scenarios) >= MANY else 1
    command = [str(world.python), "-m", "conformance.produce", trainer, str(directory.resolve()), *["blind"] * blind]
    with contextlib.ExitStack() as opened:
        answers = [
            opened.enter_context(_producer(trainer, command, world.env(), scenarios[first::dealt]))
            for first in range(dealt)
        ]
        for number, scenario in enumerate(scenarios):
            yield scenario, answers[number % dealt](scenario)


@contextlib.contextmanager
def _producer(
    trainer: str, command: Sequence[str], env: Mapping[str, str], scenarios: Sequence[Scenario]
) -> Iterator[Callable[[Scenario], str | None]]:
    """A process that produces the scenarios' traces; what is entered waits for the next one's."""
    with tempfile.TemporaryFile("w+", encoding="utf-8") as questions, tempfile.TemporaryFile("w+") as errors:
        questions.writelines(json.dumps(scenario.to_dict()) + "\n" for scenario in scenarios)
        questions.seek(0)
        with subprocess.Popen(
            command, stdin=questions, stdout=subprocess.PIPE, stderr=errors, text=True, env=env
        ) as process:

            def answer(scenario: Scenario) -> str | None:
                assert process.stdout is not None
                line = process.stdout.readline()
                if line:
                    error: str | None = json.loads(line).get("error")
                    return error
                status = process.wait()
                errors.seek(0)
                said = errors.read().strip().splitlines()[-12:]
                raise HarnessError(
                    f"{trainer}: its process ended (exit status {status}) at scenario {scenario.name!r}:\n  "
                    + "\n  ".join(said)
                )

            yield answer


def marked(
    path: Path, verdicts: Sequence[Verdict], clauses: Mapping[str, Clause], trainer: str
) -> Sequence[Verdict]:
    """The verdicts, each failure marked that the trainer's own profile does not have: no note is about it."""
    own = profile_of(trainer)
    failed = {v.clause: clauses[v.clause] for v in verdicts if v.status is Status.FAIL and v.clause in departures(own)}
    if not failed:
        return verdicts
    beyond = {v.clause for v in judge_file(path, failed, own) if v.status is Status.FAIL}
    return [replace(verdict, beyond=own) if verdict.clause in beyond else verdict for verdict in verdicts]


def run_trainer(
    trainer: str,
    scenarios: Sequence[Scenario],
    clauses: Mapping[str, Clause],
    directory: Path,
    python: str | None = None,
    on_progress: Callable[[Scenario], None] = lambda scenario: None,
    contract: str = DOCUMENTATION,
) -> TrainerRun:
    """Everything a trainer is judged on: produce each trace, judge it by that contract, attach the departures from
    the documentation's that are on record.

    A scenario at which the harness broke gives `error` verdicts that carry the traceback.
    """
    started = time.perf_counter()
    verdicts: list[Verdict] = []
    version, environment = "", {}
    for scenario, error in produce_traces(trainer, scenarios, directory, python):
        path = directory / f"{scenario.name}.jsonl"
        if error is None:
            try:
                judged = judge_file(path, clauses, contract)
                verdicts += marked(path, judged, clauses, trainer) if contract == DOCUMENTATION else judged
                if not version:
                    with open_trace(path) as reader:
                        version = reader.header.trainer["version"]
                        environment = dict(reader.header.environment)
            except TraceError as broken:
                error = str(broken)
        if error is not None:
            verdicts.append(
                Verdict(
                    scenario.name,
                    "harness",
                    Status.ERROR,
                    error.strip().splitlines()[-1],
                    context=tuple(error.splitlines()),
                )
            )
        on_progress(scenario)
    notes = notes_of(trainer, contract)
    return TrainerRun(trainer, version, environment, tuple(verdicts), time.perf_counter() - started, notes)
