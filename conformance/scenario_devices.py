"""What goes together with several devices and processes in a scenario.

Part of reading scenarios, so it needs only the standard library of Python 3.8.
"""

from __future__ import annotations

from .experiment import Scenario
from .scenario_values import ScenarioError, natural, one_of

__all__ = ["ALONE_IN", "MOST_DEVICES", "check_alone", "check_parts"]

# What one process alone can be told to do, and where: there the contract says what becomes of the others.
ALONE_IN = {
    "raise": ("on_train_batch_start", "training_step", "on_before_backward"),
    "stop": ("on_train_batch_end", "on_validation_end"),
}
MOST_DEVICES = 8
MOST_TOLD = 7  # rows of a batch that their targets tell apart


def check_parts(scenario: Scenario) -> None:
    """What goes together with batches that are split over devices."""
    name, data = scenario.name, scenario.data
    if scenario.model.shared and (scenario.option("strategy") or scenario.accumulates):
        raise ScenarioError("%s: model.shared needs an update after each batch, and no strategy" % name)
    if data.distributed_sampler and scenario.option("strategy") not in ("ddp", "ddp_spawn"):
        raise ScenarioError('%s: data.distributed_sampler needs trainer.strategy="ddp"' % name)
    if scenario.launched and not _can_launch(scenario):
        words = 'trainer.strategy="ddp", one node, no data.distributed_sampler, and no `when`'
        raise ScenarioError("%s: launched needs %s" % (name, words))
    if scenario.spawns:
        _check_spawned(scenario)
    if scenario.option("strategy") in ("ddp", "ddp_spawn"):
        return _check_shares(scenario)
    if scenario.option("num_nodes") > 1:
        raise ScenarioError('%s: trainer.num_nodes=%d needs strategy="ddp"' % (name, scenario.option("num_nodes")))
    if not scenario.data_parallel:
        if scenario.option("devices") > 1:
            raise ScenarioError('%s: trainer.devices=%d needs a strategy' % (name, scenario.option("devices")))
        return
    if data.batch in ("custom", "sequences") or data.train_loaders or scenario.model.manual:
        words = "no data.train_loaders, no transfer hooks (data.batch not \"custom\"), and automatic optimization"
        words = 'tensors, not data.batch "sequences"' if data.batch == "sequences" else words
        raise ScenarioError('%s: trainer.strategy="dp" needs %s' % (name, words))
    if data.batch_size > MOST_TOLD:
        raise ScenarioError('%s: trainer.strategy="dp" needs a data.batch_size of at most %d' % (name, MOST_TOLD))


def _can_launch(scenario: Scenario) -> bool:
    """Whether nothing is told to one process alone, before they have met."""
    is_plain = scenario.option("strategy") == "ddp" and scenario.option("num_nodes") == 1
    return is_plain and not scenario.data.distributed_sampler and not scenario.when


def _check_shares(scenario: Scenario) -> None:
    """What goes together with several processes: samples that tell which they are, as many batches for each process,
    and nothing that the oracle follows in one process only."""
    name, data, processes = scenario.name, scenario.data, scenario.processes
    if not 2 <= processes <= MOST_DEVICES:
        words = "has %d processes; 2 to %d are accepted, devices times num_nodes" % (processes, MOST_DEVICES)
    elif data.batch_size % processes or data.last < processes or data.batch_size > MOST_TOLD:
        words = "needs a data.batch_size that is a multiple of its %d processes and at most %d" % (processes, MOST_TOLD)
        words += ", and a data.last of at least as many"
    elif data.batch == "custom" or data.train_loaders or data.time or not data.sized:
        words = 'needs data.batch "tuple", "dict" or "nested", one sized training loader, and no time'
    else:
        return
    raise ScenarioError('%s: trainer.strategy="ddp" %s' % (name, words))


def _check_spawned(scenario: Scenario) -> None:
    """What goes together with processes that nobody records: what they have come to has to be known."""
    given = {each.given for each in scenario.early_stopping} | {each.given for each in scenario.model_checkpoint}
    if scenario.option("num_nodes") > 1 or scenario.when or scenario.saves:
        words = "one node, no `when`, and no calls that save or resume; model_checkpoint saves"
    elif scenario.data.source == "argument" or scenario.model.callbacks or "module" in given:
        words = "data that are no argument, and callbacks that are the trainer's"
    elif scenario.model.layers_in_setup:
        words = "layers that the module has from the beginning: it is to take what they have come to"
    else:
        return
    raise ScenarioError('%s: trainer.strategy="ddp_spawn" needs %s' % (scenario.name, words))


def check_alone(scenario: Scenario) -> None:
    """What one process does when the others do not."""
    name, alone = scenario.name + ": when.rank", [event for event in scenario.when if event.rank != -1]
    for event in alone:
        natural(name, event.rank, 0, scenario.processes - 1)
        one_of(name + ": do", event.do, tuple(ALONE_IN))
        one_of("%s: %s: hook" % (name, event.do), event.hook, ALONE_IN[event.do])
    if alone and (len(scenario.when) > 1 or scenario.processes == 1 or alone[0].receiver != "module"):
        raise ScenarioError("%s=%d needs several processes, and is the module's only `when`" % (name, alone[0].rank))
    if alone and (scenario.model.optimizer == "none" or any(log.sync_dist for log in scenario.model.logs)):
        raise ScenarioError("%s=%d needs an optimizer, and no sync_dist: it is in backward that the others hear of it"
                            % (name, alone[0].rank))
