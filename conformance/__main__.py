"""The command line: `python -m conformance`. Each command's `--help` has an example."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from .adapters import ADAPTERS, UnknownTrainer
from .clauses import ClauseError
from .commands import (
    UsageError,
    check,
    compare,
    diff,
    outline,
    prepare_release,
    record,
    run,
    scenarios,
    selftest,
    smoke,
    spec,
)
from .compare import CompareError
from .profiles import DOCUMENTATION, PROFILES
from .runner import HarnessError
from .scenario import ScenarioError
from .trace import TraceError
from .worlds import RELEASES, WorldError

NAMES = f"{', '.join(ADAPTERS)}, or FILE.py:CLASS"
USER_ERRORS = (ClauseError, CompareError, HarnessError, ScenarioError, TraceError, UnknownTrainer, WorldError)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status: 0, 1 for a finding, 2 for a wrong question."""
    parser = _parser()
    arguments, unknown = parser.parse_known_args(argv)
    if unknown or (unheard := _unheard(parser, arguments)):
        asked = vars(arguments).get("parser", parser)  # whose usage says what it takes
        options = [word for word in unknown if word.startswith("-")]
        asked.error(f"this command takes no {', '.join(options or unknown or unheard)}")
    try:
        status: int = arguments.command(arguments)
        return status
    except (UsageError, *USER_ERRORS) as error:
        print(f"conformance: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("conformance: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:  # `| head` has seen enough
        sys.stderr.close()
        return 0
    except OSError as error:
        print(f"conformance: {error.filename}: {error.strerror}", file=sys.stderr)
        return 2


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m conformance",
        description="Judge trainers against the documented training loop, clause by clause.",
        epilog="Without a command: run refimpl on everything. Exit status: 0; 1 when a MUST fails that no note "
        "explains; 2 for a wrong question.",
    )
    commands = parser.add_subparsers(title="commands")

    def command(name: str, function: object, example: str) -> argparse.ArgumentParser:
        doc = (function.__doc__ or "").strip()
        added = commands.add_parser(
            name,
            help=doc,
            description=doc,
            epilog=f"example:\n  python -m conformance {example}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
            argument_default=argparse.SUPPRESS,  # an option may stand before the command as well
        )
        added.set_defaults(command=function, parser=added)
        return added

    running = command("run", run, "run refimpl lightning@2.6.6 lightning@1.5.10 --report report")
    running.add_argument(
        "trainers", nargs="*", metavar="TRAINER", help=f"of {NAMES}; default refimpl"
    )
    checking = command("check", check, "check my-trainer/*.jsonl --clause 'val.*' -v")
    checking.add_argument("traces", nargs="+", metavar="TRACE.jsonl")
    for added in (parser, running):
        added.add_argument(
            "--scenario",
            action="append",
            metavar="GLOB",
            help="a scenario's name, or a .toml file; repeatable",
        )
        added.add_argument("--python", metavar="PATH", help="run the trainer in this interpreter")
        added.add_argument("--quick", action="store_true", help="few scenarios, which reach every clause but DDP's")
    for added in (parser, running, checking):
        _add_output_options(added)
    parser.set_defaults(command=run, trainers=[], profile=DOCUMENTATION, baseline=None, no_effects=False, quick=False)

    recording = command("record", record, "record refimpl fit-val -o trace.jsonl")
    recording.add_argument("adapter", metavar="ADAPTER", help=f"of {NAMES}")
    recording.add_argument("scenario", metavar="SCENARIO", help="a scenario's name, or a .toml file")
    recording.add_argument("-o", "--output", required=True, metavar="TRACE.jsonl")
    recording.add_argument("--python", metavar="PATH", help="run the trainer in this interpreter")
    differing = command("diff", diff, "diff refimpl.jsonl lightning.jsonl")
    differing.add_argument("a", metavar="A.jsonl")
    differing.add_argument("b", metavar="B.jsonl")
    differing.add_argument("--no-effects", action="store_true", help="compare hooks and arguments only")
    comparing = command("compare", compare, "compare lightning@1.5.10 lightning@2.6.6 --module my_model.py:MyModel")
    comparing.add_argument("a", metavar="A", help=f"of {NAMES}")
    comparing.add_argument("b", metavar="B", help="another of them")
    comparing.add_argument(
        "--module", default=None, metavar="FILE.py:CLASS", help="only what this module can notice; the file is not run"
    )
    comparing.add_argument("--scenario", action="append", metavar="GLOB", help="only these; default: all but the drawn")
    comparing.add_argument("--json", default=None, metavar="FILE", help="write it as JSON; - for the standard output")
    outlining = command("outline", outline, "outline trace.jsonl")
    outlining.add_argument("trace", metavar="TRACE.jsonl")
    specifying = command("spec", spec, "spec train.backward")
    specifying.add_argument(
        "pattern", nargs="?", default=None, metavar="CLAUSE", help="a clause's id, or a glob; or a reading's, R9"
    )
    listing = command("scenarios", scenarios, "scenarios --scenario 'fit-tbptt*'")
    listing.add_argument("--scenario", action="append", metavar="GLOB", help="only these; repeatable")
    smoking = command("smoke", smoke, "smoke lightning@1.5.10")
    smoking.add_argument("adapter", metavar="ADAPTER", help=f"of {NAMES}")
    smoking.add_argument("--scenario", action="append", metavar="GLOB", help="default: fit-basic, fit-val, predict")
    smoking.add_argument("--python", metavar="PATH", help="run the trainer in this interpreter")
    proving = command("selftest", selftest, "selftest --clause 'modes.*'")
    proving.add_argument("--clause", action="append", metavar="GLOB", help="only these clauses; repeatable")
    proving.add_argument("--engine", action="store_true", help="mutants of the whole engine: twenty minutes for all")
    proving.add_argument("--file", action="append", metavar="GLOB", help="of these files of the engine; repeatable")
    proving.add_argument("--sample", type=int, metavar="N", help="so many of them, drawn")
    proving.add_argument("--seed", type=int, metavar="N", help="another draw")
    proving.add_argument("--tries", type=int, metavar="N", help="scenarios for each; default: all that execute it")
    proving.set_defaults(engine=False, file=None, sample=0, seed=0, tries=0)
    preparing = command("prepare", prepare_release, "prepare lightning@1.5.10")
    preparing.add_argument(
        "releases", nargs="+", metavar="RELEASE", choices=list(RELEASES), help=", ".join(RELEASES)
    )
    return parser


def _unheard(parser: argparse.ArgumentParser, arguments: argparse.Namespace) -> list[str]:
    """Options given before the command that it does not have."""
    own = {action.dest for action in vars(arguments).get("parser", parser)._actions}
    given = (action for action in parser._actions if action.option_strings and hasattr(arguments, action.dest))
    return [
        action.option_strings[-1]
        for action in given
        if action.dest not in own and getattr(arguments, action.dest) != parser.get_default(action.dest)
    ]


def _add_output_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--clause", action="append", metavar="GLOB", help="only these clauses; repeatable")
    parser.add_argument(
        "--baseline", metavar="FILE", help="known departures, with reasons: a .toml as conformance/spec/profiles has"
    )
    parser.add_argument("--profile", choices=PROFILES, help=f"default: {DOCUMENTATION}")
    parser.add_argument(
        "--json", metavar="FILE", help="write the verdicts as JSON; - for the standard output"
    )
    parser.add_argument("--junit", metavar="FILE", help="write the verdicts as JUnit XML")
    parser.add_argument("--report", metavar="DIR", help="write report.html and the traces there")
    parser.add_argument("-v", "--verbose", action="store_true", help="show the diverging events")


if __name__ == "__main__":
    sys.exit(main())
