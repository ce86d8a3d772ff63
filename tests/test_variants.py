"""Trainers that are built otherwise and do the same: the suite finds nothing in them.

A clause is about what a user can observe. Each of these engines keeps the contract in two other ways than `refimpl`.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from extent import share

from conformance.clauses import load_clauses
from conformance.mutants.engine import Healthy, judge_mutant, mutated
from conformance.mutants.patches import Patch
from conformance.scenario import DRAWN_NAMES, load_scenarios
from conformance.verdicts import Status

pytestmark = pytest.mark.slow

# What goes through an optimizer is no function of its own, but an object that counts how often it is called; and its
# gradients are zeros where `refimpl` leaves none.
CLOSURE = (
    Patch("module:LightningModule.optimizer_zero_grad", "optimizer.zero_grad()",
          "optimizer.zero_grad(set_to_none=False)"),
    Patch("train_batch", "closure, *block.flags)", "Counted(closure), *block.flags)"),
    Patch("train_batch", "hooks, optimization, epoch = run.hooks, run.optimization, run.progress.current_epoch", """
class Counted:
    def __init__(self, evaluate):
        self.evaluate, self.calls = evaluate, 0
    def __call__(self):
        self.calls += 1
        return self.evaluate()
hooks, optimization, epoch = run.hooks, run.optimization, run.progress.current_epoch
"""),
)  # fmt: skip

# An epoch's mean is not summed up as it goes: all values are kept, weighted, and averaged when somebody asks. And what
# the module does for a hook is looked up whenever that is called.
LOG = (
    Patch("dispatch:resolve", "_fan_out(hook, first, _own(module, hook))",
          "_fan_out(hook, first, later(hook) if _own(module, hook) not in (None, move) else _own(module, hook))"),
    Patch("dispatch:resolve", "hooks = Hooks()", """
later = lambda hook: lambda *given, **named: _own(module, hook)(*given, **named)
hooks = Hooks()
"""),
    Patch("Logbook.log", "entry.total = entry.total + value * batch_size",
          "entry.steps.append(torch.as_tensor(value * batch_size))"),
    Patch("Logbook.log", "entry.total = torch.add(entry.total, value, alpha=batch_size)",
          "entry.steps.append(torch.as_tensor(value * batch_size))"),
    Patch("Entry.reduced", 'return self.total / self.weight if self.settings.reduce_fx == "mean" else self.total', """
if self.steps and self.settings.reduce_fx == "mean":
    return (self.total + sum(self.steps)) / self.weight
return self.total / self.weight if self.settings.reduce_fx == "mean" else self.total
"""),
)  # fmt: skip

# All batches of a pass are read before the first one is used; and, below, there is one loop for all evaluations.
AHEAD = (
    Patch("Progress.numbered", "enumerate(batches)", "enumerate(list(batches))"),
    Patch("Progress.batches", "enumerate(batches, self.batches_done)", "enumerate(list(batches), self.batches_done)"),
)


def one_loop(loops: ModuleType) -> None:
    """One loop evaluates, whatever for: its hooks are found by their names, and their order is data."""
    before = ["{0}_start", "on_epoch_start", "{0}_epoch_start"]
    after = ["{0}_epoch_end", "on_epoch_end", "{0}_end"]

    def call(run: Any, hook: str, *given: Any) -> Any:
        function = getattr(run.hooks, hook)
        return function(*given) if function else None

    def evaluate(run: Any, name: str, stage: str, loader: Callable[..., Any], *limit: Any) -> Any:
        run.open(stage)
        call(run, f"on_{name}_model_eval")
        torch.set_grad_enabled(False)
        for hook in before:
            call(run, hook.format(f"on_{name}"))
        kept: list[list[Any]] = []
        for dataloader_idx, batches, arguments in loader(*limit):
            kept.append([])
            for batch_idx, batch in batches:
                output = one_batch(run, name, batch, batch_idx, dataloader_idx, arguments)
                kept[-1] += [] if output is None else [output]
                run.logbook.publish_step()
        run.logbook.end_epoch()
        call(run, f"{name}_epoch_end", kept[0] if len(kept) == 1 else kept)
        for hook in after:
            call(run, hook.format(f"on_{name}"))
        call(run, f"on_{name}_model_train")
        torch.set_grad_enabled(True)
        return run.close()

    def one_batch(run: Any, name: str, batch: Any, batch_idx: int, dataloader_idx: int, arguments: Any) -> Any:
        call(run, f"on_{name}_batch_start", batch, batch_idx, dataloader_idx)
        if run.hooks.on_before_batch_transfer:
            batch = run.hooks.on_before_batch_transfer(batch, dataloader_idx)
        batch = run.hooks.transfer_batch_to_device(batch, run.devices.device, dataloader_idx)
        if run.hooks.on_after_batch_transfer:
            batch = run.hooks.on_after_batch_transfer(batch, dataloader_idx)
        output = call(run, f"{name}_step", batch, batch_idx, *arguments)
        if getattr(run.hooks, f"{name}_step_end"):
            output = call(run, f"{name}_step_end", output)
        call(run, f"on_{name}_batch_end", output, batch, batch_idx, dataloader_idx)
        return output

    vars(loops)["val_loop"] = lambda run, at_most=None, stage="validate": evaluate(
        run, "validation", stage, run.val_dataloader, at_most
    )
    vars(loops)["test_loop"] = lambda run: evaluate(run, "test", "test", run.test_dataloader)


VARIANTS: dict[str, tuple[tuple[Patch, ...], Callable[[ModuleType], None]]] = {
    "closure": (CLOSURE, lambda loops: None),
    "evaluation": (AHEAD, one_loop),
    "log": (LOG, lambda loops: None),
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_another_engine_that_keeps_the_contract_is_clean(variant: str, tmp_path: Path, healthy: Healthy) -> None:
    patches, rebuild = VARIANTS[variant]
    clauses, found = load_clauses(), set()
    # Those of several processes run the engine that is installed.
    alone = [scenario for scenario in load_scenarios() if scenario.processes == 1]
    drawn = [scenario for scenario in alone if scenario.name.startswith(DRAWN_NAMES)]
    if variant == "evaluation":  # reads ahead, so that a checkpoint comes too late for a loader that begins anew
        alone = [s for s in alone if not (s.data.train_loaders and s.data.shuffle and s.resumes)]
    place = list(VARIANTS).index(variant)  # each variant has scenarios of its own
    alone = [*share([scenario for scenario in alone if scenario not in drawn], 6, place), *share(drawn, 24, place)]
    seen = {scenario.name: healthy(scenario).read_bytes() for scenario in alone}
    with mutated(patches) as engine:
        rebuild(importlib.import_module("refimpl.loops"))
        for scenario in alone:
            verdicts, error = judge_mutant(engine, scenario, clauses, tmp_path / "trace.jsonl", seen[scenario.name])
            assert not error, f"{scenario.name}: {error}"
            found |= {(scenario.name, v.clause, v.reason) for v in verdicts if v.status is Status.FAIL}
    assert found == set()
