"""Loops without a trainer, which are correct in what they declare, are clean: one in PyTorch, one in plain JavaScript.

They give optimizers no closure, and have no sanity check: they say so in `lacks`.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable, Collection, Sequence
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from models import Line, pairs, quiet

from conformance.adapters.data import loaders
from conformance.adapters.optimization import configured
from conformance.checker import judge_file, unsupported
from conformance.clauses import load_clauses
from conformance.observe import observing
from conformance.recorder import Recorder
from conformance.scenario import Scenario, load_scenarios
from conformance.trace import Header, TraceError, TraceWriter, open_trace
from conformance.verdicts import Status

SCENARIOS = {scenario.name: scenario for scenario in load_scenarios()}
CLAUSES = load_clauses()
DATA = ["train_dataloader", "val_dataloader", "configure_optimizers"]
STEPS = ["training_step", "validation_step"]
ALL = [*DATA, *STEPS, "optimizer_zero_grad", "backward", "optimizer_step"]
FLAGS = ["on_tpu", "using_native_amp", "using_lbfgs"]


class Model(torch.nn.Module):
    """The scenarios' plain one."""

    def __init__(self) -> None:
        super().__init__()
        layer = torch.nn.Linear(4, 1, dtype=torch.float64)
        with torch.no_grad():
            layer.weight.copy_(torch.tensor([[0.25, -0.5, 0.75, 0.125]]))
            layer.bias.fill_(0.0625)
        self.layers = torch.nn.ModuleList([layer])

    def loss(self, batch: Any) -> Any:
        x, y = batch
        return ((self.layers[0](x) - y) ** 2).mean()


def fit(scenario: Scenario, model: Any, trainer: Any, span: Callable[..., Any], wrong: str) -> None:
    """A bare loop, in which the `wrong` thing may be done."""
    made = span("configure_optimizers", lambda: configured(model, scenario))
    optimizer, scheduler = made, None
    if isinstance(made, dict):
        optimizer, scheduler = made["optimizer"], made["lr_scheduler"]["scheduler"]
    every = scenario.option("accumulate_grad_batches")
    train = span("train_dataloader", lambda: loaders(scenario, "train"))
    val = None
    trainer.training = True
    model.train()
    for trainer.current_epoch in range(scenario.option("max_epochs")):
        for batch_idx, batch in enumerate(train):
            used = {"optimizer": optimizer, "optimizer_idx": 0}
            where = {"epoch": trainer.current_epoch, "batch_idx": batch_idx, **used}
            closes = (batch_idx + 1) % every == 0 or batch_idx + 1 == len(train)
            loss = span("training_step", partial(model.loss, batch), batch=batch, batch_idx=batch_idx)
            if batch_idx % every == 0 and wrong != "zero_grad":
                span("optimizer_zero_grad", optimizer.zero_grad, **where)
            loss = loss / every
            span("backward", loss.backward, loss=loss, **used)
            if closes:
                span("optimizer_step", optimizer.step, **where)
                trainer.global_step += 1
                if scheduler and scenario.model.scheduler == "step":
                    scheduler.step()
        if wrong != "eval":
            model.eval()
        trainer.training, trainer.validating = False, True
        with torch.no_grad():
            val = val or (span("val_dataloader", lambda: loaders(scenario, "val")) if scenario.data.val else ())
            for batch_idx, batch in enumerate(val):
                span("validation_step", partial(model.loss, batch), batch=batch, batch_idx=batch_idx)
        trainer.training, trainer.validating = True, False
        model.train()
        if scheduler and scenario.model.scheduler == "epoch":
            scheduler.step()
    trainer.training = False


def trained(
    name: str, folder: Path, hooks: Collection[str] = ALL, wrong: str = "", lacks: Sequence[str] = ()
) -> Path:
    """The trace of a bare loop in a scenario."""
    scenario = SCENARIOS[name]
    declares = {
        "hooks": list(hooks), "effects": ["training", "grad_enabled", "grads", "params", "lr"],
        "lacks": list(lacks or ["closures", "sanity-check", *FLAGS]),
    }  # fmt: skip
    header = Header("0.1.0", scenario.to_dict(), {"name": "bare", "version": "1"}, declares, {})
    path = folder / f"{name}.jsonl"
    with TraceWriter(path, header) as writer:
        recorder = Recorder(writer, scenario.when)
        recorder.module = model = Model()
        recorder.trainer = trainer = SimpleNamespace(
            current_epoch=0, global_step=0, training=False, validating=False, callback_metrics={}
        )

        def span(hook: str, call: Callable[[], Any], **args: Any) -> Any:
            shown = partial(recorder.span, "module", hook, call, recorder.identities(args)) if hook in hooks else call
            return recorder.instrumented(shown()) if hook == "configure_optimizers" else shown()

        recorder.span("trainer", "fit", lambda: fit(scenario, model, trainer, span, wrong), {})
    return path


def failures(path: Path) -> set[str]:
    return {verdict.clause for verdict in judge_file(path, CLAUSES) if verdict.status is Status.FAIL}


PLAIN = ["fit-basic", "fit-no-callbacks", "fit-uneven", "fit-accumulate", "fit-scheduler-step", "fit-scheduler-epoch"]


@pytest.mark.parametrize("hooks", [STEPS, [*DATA, *STEPS], ALL], ids=["steps", "data", "all"])
@pytest.mark.parametrize("name", PLAIN)
def test_a_bare_loop_is_clean(name: str, hooks: list[str], tmp_path: Path) -> None:
    assert failures(trained(name, tmp_path, hooks)) == set()


@pytest.mark.parametrize(("wrong", "clause"), [
    ("zero_grad", "train.optimizer_zero_grad"), ("eval", "modes.val.training"),
])  # fmt: skip
def test_what_is_wrong_in_it_is_found(wrong: str, clause: str, tmp_path: Path) -> None:
    assert clause in failures(trained("fit-no-callbacks", tmp_path, wrong=wrong))


def test_what_it_has_not_said_it_lacks_is_missed(tmp_path: Path) -> None:
    without_closures = failures(trained("fit-basic", tmp_path, lacks=["sanity-check", *FLAGS]))
    assert {"train.closure.encloses", "train.closure.through-optimizer"} <= without_closures
    assert failures(trained("fit-basic", tmp_path, lacks=["closures", *FLAGS[1:]])) == {"train.on_tpu"}


@pytest.mark.parametrize(("name", "what"), [
    ("fit-val", "sanity-check"), ("fit-lbfgs", "closures"), ("fit-manual-closure", "closures"),
    ("fit-skip-closure", "closures"),
])  # fmt: skip
def test_a_scenario_that_uses_what_is_lacking_is_not_run(name: str, what: str) -> None:
    declares = {"hooks": ["training_step", "optimizer_step"], "effects": [], "lacks": [what]}
    assert unsupported(SCENARIOS[name], Header("0.1.0", {}, {}, declares, {})) == [what]


def test_a_word_that_no_trainer_can_lack(tmp_path: Path) -> None:
    with pytest.raises(TraceError, match=r"declares\.lacks: 'closure' .* did you mean 'closures'"):
        judge_file(trained("fit-basic", tmp_path, lacks=["closure"]), CLAUSES)


@pytest.mark.skipif(shutil.which("node") is None, reason="JavaScript needs node")
@pytest.mark.parametrize("name", ["fit-basic", "fit-no-callbacks", "fit-uneven"])
def test_a_loop_in_javascript_is_clean(name: str, tmp_path: Path) -> None:
    program, path = Path(__file__).parent / "assets" / "bare.js", tmp_path / "trace.jsonl"
    with path.open("w") as out:
        scenario = json.dumps(SCENARIOS[name].to_dict())
        subprocess.run(["node", program], input=scenario, stdout=out, text=True, check=True)
    verdicts = judge_file(path, CLAUSES)
    assert not [verdict for verdict in verdicts if verdict.status is Status.FAIL]
    assert sum(verdict.status is Status.PASS for verdict in verdicts) >= 10


# ---- a program of one's own, observed -----------------------------------------------------------------------


@pytest.mark.parametrize("by_name", [False, True])
def test_a_program_that_gives_its_loaders_to_the_calls_is_clean(by_name: bool, tmp_path: Path) -> None:
    """Its batches are known as they are where hooks give the loaders."""
    path, module, trainer = tmp_path / "own.jsonl", Line(), quiet()
    scenario = {
        "name": "own", "calls": ["fit", "validate"], "callbacks": 0,
        "data": {"train": 3, "val": [2, 1], "source": "argument"},
        "trainer": {"max_epochs": 1, "num_sanity_val_steps": 0},
    }  # fmt: skip
    train, val = pairs(3), [pairs(2, seed=1), pairs(1, seed=2)]
    with observing(str(path), scenario, trainer, module):
        if by_name:
            trainer.fit(model=module, train_dataloaders=train, val_dataloaders=val)
            trainer.validate(module, dataloaders=val)
        else:
            trainer.fit(module, train, val)
            trainer.validate(module, val)
    assert failures(path) == set()
    with open_trace(path) as reader:
        batches = {event.args["batch"] for event in reader if event.hook in ("training_step", "validation_step")}
    assert batches == {"train/0/0", "train/0/1", "train/0/2", "val/0/0", "val/0/1", "val/1/0"}
