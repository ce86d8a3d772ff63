"""Recorded facts, changed: in a trace that conforms, an argument or effect of an event becomes another plausible value.

Some clause has to notice: what the contract determines is judged wherever it was recorded. What it leaves open is in
`OPEN`, with the reason.
"""

from __future__ import annotations

import json
import random
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ..checker import judge
from ..clauses import Clause
from ..features import features
from ..numerics import agrees
from ..scenario import Scenario
from ..spec.contracts import expected
from ..spec.state import OWN_WORDS, Expected
from ..trace import Event, Footer, Header, open_trace
from ..verdicts import Status

__all__ = ["OPEN", "Facts", "Recorded", "another", "change_fact", "survey"]

LOOPS = ("train_loop", "val_loop", "test_loop", "predict_loop")


def _withheld(scenario: Scenario, due: Expected, effect: str) -> bool:
    """Whether an update is withheld at this event, after steps that returned None."""
    return effect not in due.fx and "training_step:return-none" in features(scenario)


# Facts that the contract does not determine: the argument or effect, where, and why. That the oracle is silent is not
# enough: it has to be one of these places.
OPEN: Sequence[tuple[str, Callable[[Scenario, Expected], bool], str]] = (
    ("stage", lambda scenario, due: due.scope not in LOOPS and "stage" not in due.fx, "the text has it in loops only"),
    ("grad_enabled", lambda scenario, due: scenario.no_grad and due.scope not in LOOPS, "the caller's own, or not"),
    ("device", lambda scenario, due: due.scope not in LOOPS, "the text does not say where it is around the loops"),
    ("metrics", lambda scenario, due: not scenario.model.logs, "a module of the user's own may log what it likes"),
    ("loss", lambda scenario, due: scenario.option("precision") != 32, "in 16 bits a number need only be nearly right"),
    ("values", lambda scenario, due: scenario.option("precision") != 32, "likewise"),
    ("outputs_values", lambda scenario, due: scenario.option("precision") != 32, "likewise"),
    ("results_values", lambda scenario, due: scenario.option("precision") != 32, "likewise"),
    ("logger_names", lambda scenario, due: scenario.option("precision") != 32, "as their values"),
    ("logger_values", lambda scenario, due: scenario.option("precision") != 32, "likewise"),
    ("logger_steps", lambda scenario, due: scenario.option("precision") != 32, "likewise"),
    ("logger_steps", lambda scenario, due: OWN_WORDS in due.args.get("logger_steps", ()),
     "how an evaluation counts is the trainer's affair"),
    ("returned_names", lambda scenario, due: not scenario.model.logs, "as metrics"),
    ("returned_values", lambda scenario, due: not scenario.model.logs, "likewise"),
    ("returned_names", lambda scenario, due: scenario.option("precision") != 32, "as their values"),
    ("returned_values", lambda scenario, due: scenario.option("precision") != 32, "likewise"),
    ("files", lambda scenario, due: scenario.shuffles, "which weights come of them, nobody can tell"),
    ("files", lambda scenario, due: scenario.resumes and "files" not in due.args, "a run may have saved some later"),
    ("logger_hparams", lambda scenario, due: due.args.get("status") != "finished", "a fit may have ended before"),
    ("samples", lambda scenario, due: scenario.shuffles, "which are in a shuffled batch, nobody can tell"),
    ("batch", lambda scenario, due: scenario.shuffles, "likewise"),
    ("loss", lambda scenario, due: scenario.shuffles, "likewise"),
    ("logger_names", lambda scenario, due: scenario.shuffles, "likewise"),
    ("logger_values", lambda scenario, due: scenario.shuffles, "likewise"),
    ("logger_steps", lambda scenario, due: scenario.shuffles, "likewise"),
    ("returned_names", lambda scenario, due: scenario.shuffles, "likewise"),
    ("returned_values", lambda scenario, due: scenario.shuffles, "likewise"),
    ("random", lambda scenario, due: True, "any number, that comes again where a fit goes on"),
    ("optimizer", lambda scenario, due: scenario.model.manual, "manual_backward may hand on what it likes"),
    ("optimizer_idx", lambda scenario, due: scenario.model.manual, "manual_backward may hand on what it likes"),
    ("grads", lambda scenario, due: _withheld(scenario, due, "grads"), "withholding is the trainer's affair"),
    ("gradients", lambda scenario, due: _withheld(scenario, due, "gradients"), "likewise"),
    ("gradients", lambda scenario, due: scenario.option("precision") != 32, "as the loss"),
)

GRADS = ("none", "zero", "set")
STAGES = ("sanity_checking", "training", "validating", "testing", "predicting")
FORMS = ("none", "tensor", "dict")
PLAUSIBLE = {
    ("fx", "grads"): GRADS,
    ("fx", "submodules"): ("alike", "mixed"),
    ("fx", "stage"): STAGES,
    ("fx", "device"): ("cpu", "cuda:0", "meta"),
    ("args", "stage"): ("fit", "validate", "test", "predict"),
    ("args", "batch"): ("train/0/0", "train/0/1", "val/0/0", "val/0/1", "test/0/0", "predict/0/0"),
    ("args", "optimizer"): ("optimizer", "optimizer:0", "optimizer:1"),
}


@dataclass
class Facts:
    """Of each argument ("args.batch") and effect ("fx.lr"), how often it was changed, and how often some clause saw it.
    `unseen` says where it did not."""

    changed: Counter[str] = field(default_factory=Counter)
    noticed: Counter[str] = field(default_factory=Counter)
    unseen: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Recorded:
    """A trace that conforms, each event beside what the oracle says of it."""

    scenario: Scenario
    header: Header
    footer: Footer
    events: Sequence[Event]
    due: Sequence[Expected]

    @classmethod
    def of(cls, scenario: Scenario, path: Path) -> Recorded:
        """The trace at that path."""
        with open_trace(path) as reader:
            events = list(reader)
            oracles = [expected(scenario, rank) for rank in range(scenario.processes)]
            return cls(scenario, reader.header, reader.footer, events, [next(oracles[event.rank]) for event in events])

    def places(self) -> Iterator[tuple[str, str, int]]:
        """Where a fact is recorded that is not open: "args" or "fx", its name, and the event's place."""
        for place, (event, due) in enumerate(zip(self.events, self.due)):
            for of in ("args", "fx"):
                for name in getattr(event, of):
                    if not any(name == open_ and holds(self.scenario, due) for open_, holds, _ in OPEN):
                        yield of, name, place

    def __iter__(self) -> Iterator[Event]:
        return iter(self.events)

    path = "changed.jsonl"

    def changed(self, of: str, name: str, place: int, draw: random.Random, both: bool = False) -> Recorded | None:
        """With another value there, or of an argument at `both` ends of its call, as a trainer would have it that
        gave another; None where the contract has room for it."""
        event, due = self.events[place], getattr(self.due[place], of)
        facts = another(of, name, getattr(event, of), draw)
        if name in due and name in facts and name != "metrics":
            free = due[name] == OWN_WORDS and name == "raised"
            if free or agrees(facts[name], due[name]) or (due[name] == "clear" and facts[name] in ("none", "zero")):
                return None
        events = [*self.events]
        events[place] = event._replace(args=facts) if of == "args" else event._replace(fx=facts)
        end = self._other_end(place) if both and of == "args" else None
        if end is not None and name in facts and events[end].args.get(name) == event.args[name]:
            events[end] = events[end]._replace(args={**events[end].args, name: facts[name]})
        return replace(self, events=events)

    def _other_end(self, place: int) -> int | None:
        """Where the call begins whose end is at this place, or ends that begins there."""
        event = self.events[place]
        way = range(place + 1, len(self.events)) if event.ph == "B" else range(place - 1, -1, -1)
        return next((at for at in way if self.events[at].depth == event.depth), None)


def another(of: str, name: str, facts: Mapping[str, Any], draw: random.Random) -> dict[str, Any]:
    """An event's arguments or effects, in which `name` has another plausible value."""
    value, changed = facts[name], dict(facts)
    if name == "metrics":
        names, values = list(value), list(facts.get("values", ()))
        if names and draw.random() < 0.5:
            gone = draw.randrange(len(names))
            del names[gone], values[gone : gone + 1]
        else:
            names, values = [*names, "z"], [*values, 0.5]
        changed.update(metrics=names, values=values)
    elif name in ("returned_names", "returned_values"):
        names, values = list(facts["returned_names"]), list(facts["returned_values"])
        if names and draw.random() < 0.5:
            names, values = names[1:], values[1:]
        elif names:
            values[-1] = _number(values[-1], draw)
        else:
            names, values = ["0/z"], [0.5]
        changed.update(returned_names=names, returned_values=values)
    elif name == "raised" and draw.random() < 0.5:
        del changed[name]
    elif name in ("outputs", "results"):
        changed[name] = _form(str(value), draw)
    elif name == "hiddens" and ":" in str(value):
        way, _, count = str(value).partition(":")
        changed[name] = draw.choice((f"attached:{count}", f"{way}:{int(count) + 1}", "none"))
    elif isinstance(value, bool):
        changed[name] = not value
    elif isinstance(value, (int, float)):
        changed[name] = _number(value, draw)
    elif isinstance(value, list):
        changed[name] = _list(value, draw)
    else:
        choices = PLAUSIBLE.get((of, name), ("other",))
        changed[name] = draw.choice([choice for choice in choices if choice != value])
    return changed


def _number(value: float, draw: random.Random) -> float:
    if type(value) is int:
        return value + (1 if value <= 0 else draw.choice((-1, 1)))
    return draw.choice((value / 2, value * 2, value + 1)) if value else 1.0


def _form(value: str, draw: random.Random) -> str:
    """Of a list one more or less; or another form."""
    kind, _, counts = value.partition(":")
    if not counts or draw.random() < 0.3:
        return draw.choice([form for form in FORMS if form != value])
    each = [int(count) for count in counts.split(",")]
    at = draw.randrange(len(each))
    each[at] += draw.choice((-1, 1)) if each[at] else 1
    return f"{kind}:{','.join(map(str, each))}"


def _list(value: list[Any], draw: random.Random) -> list[Any]:
    """One item less, or another one."""
    if not value:
        return [0]
    at = draw.randrange(len(value))
    if draw.random() < 0.5:
        return [*value[:at], *value[at + 1 :]]
    item = value[at]
    other = draw.choice([form for form in FORMS if form != item]) if isinstance(item, str) else _number(item, draw)
    return [*value[:at], other, *value[at + 1 :]]


def survey(
    traces: Iterable[Recorded], clauses: Mapping[str, Clause], draws: int, few: int = 0, seed: int = 0,
    only: Callable[[str], bool] = lambda fact: True,
) -> Facts:  # fmt: skip
    """Change each fact `draws` times over all traces, at places of as many hooks as there are; or only a `few` times,
    where all of those are noticed."""
    draw, found = random.Random(seed), Facts()
    places: dict[str, dict[tuple[str, str, str], list[tuple[Recorded, int]]]] = defaultdict(lambda: defaultdict(list))
    for trace in traces:
        for of, name, place in trace.places():
            if only(f"{of}.{name}"):
                event, due = trace.events[place], trace.due[place]
                places[f"{of}.{name}"][event.hook, event.ph, due.scope].append((trace, place))
    for fact, by_hook in sorted(places.items()):
        of, name = fact.split(".")
        hooks = sorted(by_hook)
        draw.shuffle(hooks)
        for number in range(draws):
            if few and number >= few and found.noticed[fact] == found.changed[fact]:
                break
            hook, ph, scope = hooks[number % len(hooks)]
            trace, place = draw.choice(by_hook[hook, ph, scope])
            changed = trace.changed(of, name, place, draw, both=True)
            if changed is None:
                continue
            found.changed[fact] += 1
            if any(verdict.status is Status.FAIL for verdict in judge(changed, clauses)):  # type: ignore[arg-type]
                found.noticed[fact] += 1
            else:
                was, now = (getattr(each.events[place], of).get(name) for each in (trace, changed))
                end = {"B": "begin", "E": "end", "I": "instant"}[ph]
                found.unseen.append(
                    f"{fact}={now} in the place of {was}, at the {end} of {hook} ({scope}), event {place} of "
                    f"{trace.scenario.name}"
                )
    return found


def change_fact(clause: Clause, scenario: Scenario, path: Path) -> None:
    """In a trace of the healthy engine, another value for the first fact that such a clause is about."""
    check, draw = clause.check, random.Random(0)
    trace = Recorded.of(scenario, path)
    of, at = ("args", "E") if clause.kind == "repeats" else (check.get("of", "fx"), check.get("at", "BE"))
    for place, (event, due) in enumerate(zip(trace.events, trace.due)):
        told, determined = getattr(event, of), getattr(due, of)
        names = [name for name in check.get("fields", told) if name in told and name in determined]
        if names and event.ph in at and due.scope in check.get("scopes", [due.scope]):
            changed = trace.changed(of, names[0], place, draw)
            if changed is not None:
                lines = path.read_text(encoding="utf-8").splitlines()
                row = json.loads(lines[place + 1])
                row[of] = getattr(changed.events[place], of)
                lines[place + 1] = json.dumps(row)
                path.write_text("\n".join(lines) + "\n", encoding="utf-8")
                return
