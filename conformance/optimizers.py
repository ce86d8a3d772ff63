"""A scenario's `configure_optimizers` and overrides: what there is, and what does not go together.

Part of reading scenarios, so it needs only the standard library of Python 3.8.
"""

from __future__ import annotations

from typing import Iterator, Tuple

from .experiment import Scenario

__all__ = ["FORMS", "OVERRIDES", "discord"]

# The forms of what `configure_optimizers` returns.
FORMS = ("optimizer", "list", "tuple", "two-lists", "two-lists-crossed", "dict", "dicts", "tuple-of-dicts")
# The ways in which a module can have hooks of optimization, and which hook each is of.
OVERRIDES = {
    "alternate": "optimizer_step", "warm-up": "optimizer_step", "zero-grads": "optimizer_zero_grad",
    "twice-backward": "backward", "twice-end": "training_step_end", "own-split": "tbptt_split_batch",
}  # fmt: skip


def discord(scenario: Scenario) -> str:
    """What in the optimization of a scenario does not go together, in words; empty if everything does."""
    for rules in (_of_form, _of_scheduler, _of_lbfgs, _of_overrides):
        for broken, words in rules(scenario):
            if broken:
                return words
    return ""


Rules = Iterator[Tuple[bool, str]]


def _of_form(scenario: Scenario) -> Rules:
    model = scenario.model
    shown = "model.form=%r" % model.form
    more = model.scheduler != "none" or bool(model.frequencies)
    yield bool(model.form) and model.optimizer == "none", shown + ' needs an optimizer, not "none"'
    yield model.form in ("optimizer", "dict") and model.optimizers > 1, shown + " holds one optimizer"
    yield model.form in ("optimizer", "list", "tuple") and more, shown + " holds neither schedulers nor frequencies"
    yield model.form.startswith("two-lists") and bool(model.frequencies), shown + " holds no frequencies"
    crosses = model.optimizers == 2 and model.scheduler == "step" and not (model.manual or model.monitor)
    words = " needs two optimizers, automatic optimization, and schedulers per step that monitor nothing"
    yield model.form == "two-lists-crossed" and not crosses, shown + words


def _of_scheduler(scenario: Scenario) -> Rules:
    model = scenario.model
    yield model.second_frequency > 0 and model.schedulers < 2, "model.second_frequency needs a second scheduler"
    more = max(model.scheduler_frequency, model.second_frequency) > 1
    more = more or bool(model.monitor or model.unheeded or model.scheduler_name)
    automatic = model.scheduler != "none" and not model.manual
    bare = model.scheduler == "epoch" and not more
    words = "what an lr_dict says, model.scheduler_frequency and its like, needs a scheduler that steps by itself"
    yield more and not automatic, words
    alone, both = model.schedulers <= model.optimizers, ' holds two schedulers for one optimizer only as "two-lists"'
    yield not alone and model.returns_form != "two-lists", "model.form=%r" % model.form + both
    yield not model.lr_dict and not bare, "model.lr_dict=false needs a scheduler per epoch, and no more about it"
    yield not (model.strict or model.monitor), "model.strict=false needs a model.monitor"
    yield bool(model.own_plateau and not model.monitor), "model.own_plateau needs a model.monitor"
    plain = model.schedulers == 2 and bool(model.monitor)
    yield model.second_plain and not plain, "model.second_plain needs a model.monitor, and a second scheduler"
    yield bool(model.unheeded and model.monitor), "model.unheeded is of a scheduler without a model.monitor"
    yield bool(model.monitor) and scenario.option("precision") != 32, "model.monitor needs precision 32"


def _of_lbfgs(scenario: Scenario) -> Rules:
    model = scenario.model
    plain = not model.manual and model.optimizers == 1 and not scenario.accumulates
    exact = model.dtype == "float64" and scenario.option("precision") == 32
    words = 'model.optimizer="lbfgs" needs one optimizer, automatic optimization without accumulation, and float64'
    yield model.optimizer == "lbfgs" and not (plain and exact), words
    cannot = model.optimizer in ("lbfgs", "none") or model.shared or scenario.lr_monitor
    words = "model.groups needs an optimizer that can have several, no model.shared, and no lr_monitor"
    yield model.groups and cannot, words


def _of_overrides(scenario: Scenario) -> Rules:
    model, names = scenario.model, set(scenario.model.overrides)
    automatic = model.optimizer != "none" and not model.manual
    two = model.optimizers == 2 and not model.frequencies
    alone = model.scheduler == "none" and "alternate" not in names
    yield bool(names) and not automatic, "model.overrides need an optimizer, and automatic optimization"
    yield "alternate" in names and not two, 'model.overrides "alternate" needs two optimizers without frequencies'
    yield "warm-up" in names and not alone, 'model.overrides "warm-up" needs a rate that nothing else changes'
    splits = model.truncated_bptt_steps and scenario.data.batch != "sequences"
    ends = scenario.defines("training_step_end")
    yield "twice-end" in names and not ends, 'model.overrides "twice-end" needs training_step_end in model.defines'
    yield "own-split" in names and not splits, 'model.overrides "own-split" has nothing to split'
