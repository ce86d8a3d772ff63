"""What is particular about a scenario: the words a clause's `given` selects scenarios by."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .experiment import Scenario
from .hooks import TRANSFERS

__all__ = ["applies", "features"]

# Scenarios in which a batch runs through other lines: clauses about the plain ones do not see them.
PARTICULAR = frozenset(
    "accumulation truncated-bptt manual overfit checkpoints lbfgs overrides:alternate".split()
    + "data-parallel distributed spawned shuffled alone no-grad".split()
    + "told-epochs promises-more promises-less reloaded".split()
    + "stopping:each-batch stopping:late source:train-datamodule source:fit-datamodule".split()
    + "another-callbacks training-end-returns hyperparameters-within".split()
)


def features(scenario: Scenario) -> frozenset[str]:
    """Words such as "call:test", "option:max_steps", "training_step:return-none", "source:datamodule".

    The word "when" says that the scenario makes something unusual happen, "particular" that, or that a batch runs
    through other lines; "everywhere" says nothing, nor does "closures", which a trainer can lack.
    """
    data, model = scenario.data, scenario.model
    words = {f"call:{call}" for call in scenario.calls}
    words |= {f"option:{name}" for name in scenario.trainer}
    words |= {"some-transfers"} if data.transfers != TRANSFERS else set()
    words |= {f"source:{data.source}", f"batch:{data.batch}", f"returns:{model.returns}"}
    words |= {f"optimizer:{model.optimizer}", f"scheduler:{model.scheduler}"}
    words |= {f"precision:{scenario.option('precision')}"}
    words |= {f"defines:{hook}" for hook in model.defines} | {f"lacks:{hook}" for hook in model.lacks}
    words |= {f"model-callback:{kind}" for kind in model.callbacks}
    words |= {f"optimizers:{model.optimizers}", f"form:{model.returns_form}", "everywhere", "closures"}
    words |= {f"overrides:{override}" for override in model.overrides}
    for log in model.logs:
        words |= {f"logs:{log.hook}", f"reduces:{log.reduce_fx}"}
        told = {
            "forked": log.on_step and log.on_epoch,
            "logs-by-default": log.on_step is log.on_epoch is None,
            "logs-batch-size": log.batch_size > 0,
            "logs-without-loader": not log.add_dataloader_idx,
            "syncs": log.sync_dist,
            "logs-to-no-logger": not log.logger,
            "logs-to-bar": log.prog_bar,
            "logs-metric": log.metric,
            "logs-in-dict": log.in_dict,
            "logs-mapping": log.mapping,
            "logs-graph": log.enable_graph,
            "logs-buffer": log.buffer,
            "logs-on-rank-zero": log.rank_zero_only,
            "logs-in-group": bool(log.ranks),
            "logs-in-dtype": bool(log.dtype),
            "logs-by-helper": log.helper,
            "logs-at-times": bool(log.at),
        }
        words |= {word for word, holds in told.items() if holds}
    for stopping in scenario.early_stopping:
        words |= {"early-stopping", f"stopping:{stopping.mode}"}
        words |= {"stopping:module"} if stopping.given == "module" else set()
        words |= {"stopping:min-delta"} if stopping.min_delta else set()
        words |= {"stopping:lenient"} if not stopping.strict else set()
        words |= {"stopping:by-validations"} if stopping.check_on_train_epoch_end is False else set()
    for saving in scenario.model_checkpoint:
        words |= {"keeps", "keeps:by-steps" if saving.every_n_train_steps else "keeps:by-epochs"}
        words |= {"keeps:last"} if saving.save_last else set()
        words |= {f"keeps:{saving.mode}", f"keeps:{saving.save_top_k}"} if saving.monitor else {"keeps:newest"}
        words |= {"keeps:module"} if saving.given == "module" else set()
        words |= {"keeps:weights-only"} if saving.save_weights_only else set()
    for event in scenario.when:
        who = "callback:" if event.receiver.startswith("callback") else ""
        words |= {f"does:{event.do}", f"{who}{event.hook}:{event.do}"}
        words |= {"saves-in-epoch"} if event.do == "save" else {"when"}
        words |= {"alone"} if event.rank != -1 else set()
    for stage in ("val", "test", "predict"):
        if len(scenario.loaders(stage)) > 1:
            words |= {"several-loaders", f"several:{stage}"}
    if not data.sized:
        words.add("unsized")
    if scenario.data_parallel:
        devices = scenario.option("devices")
        sizes = {data.batch_size, data.last}
        words |= {"data-parallel", "parts:%s" % ("uneven" if any(size % devices for size in sizes) else "even")}
        words |= {"parts:fewer"} if min(sizes) < devices else set()
        words |= {"parts:one"} if devices == 1 else set()
    interval = scenario.option("val_check_interval")
    late = {log.known_as for log in model.logs if log.hook == "on_train_epoch_end"}
    flags = {
        "stopping:each-batch": bool(scenario.early_stopping) and type(interval) is int and interval == 1,
        "stopping:late": "val_check_interval" not in scenario.trainer and not late.isdisjoint(
            each.monitor for each in scenario.early_stopping
        ),
        "another-callbacks": "another" in scenario.calls and "new" in model.callbacks,
        "distributed": scenario.recorded > 1,
        "spawned": scenario.spawns,
        "launched": scenario.launched,
        "several-nodes": scenario.option("num_nodes") > 1,
        "prepares-once": not model.prepare_data_per_node,
        "own-sampler": data.distributed_sampler,
        "leaves-out": data.leaves_out,
        "listed": data.listed,
        "shuffled": scenario.shuffles,
        "own-generator": data.generator,
        "shuffled-val": data.shuffle_val,
        "pads": bool(data.last % scenario.processes),
        "hyperparameters": bool(model.hyperparameters),
        "hyperparameters-unlogged": not model.hyperparameters_logged,
        "hyperparameters-changed": model.hyperparameters_changed,
        "hyperparameters-within": model.hyperparameters == "within",
        "hyperparameters-too": data.hyperparameter,
        "starts-in-eval": model.starts_in_eval,
        "frozen": model.frozen,
        "thaws": model.thaws,
        "shared": model.shared,
        "layer-in-eval": model.layer_in_eval,
        "layers-in-setup": model.layers_in_setup,
        "draws": model.draws,
        "halves": model.halves,
        "logs": bool(model.logs),
        "several-callbacks": scenario.callbacks > 1,
        "frequencies": bool(model.frequencies),
        "parameter-groups": model.groups,
        "frequency-of-one": 0 in model.frequencies,
        "manual": model.manual,
        "manual-closure": model.closure,
        "manual-plain": model.plain,
        "checkpoints": scenario.saves or scenario.resumes,
        "resumes": scenario.resumes,
        "truncated-bptt": bool(model.truncated_bptt_steps),
        "accumulation": scenario.accumulates,
        "star-args": model.star_args,
        "workers": data.workers > 0,
        "told-epochs": data.told_epochs,
        "promises-more": data.promised > data.train,
        "promises-less": 0 < data.promised < data.train,
        "reloaded": data.reloaded > 0,
        "accumulation-by-epoch": scenario.changes_windows,
        "overfit": bool(scenario.option("overfit_batches")),
        "several:train": bool(data.train_loaders),
        "lbfgs": model.optimizer == "lbfgs",
        "bare-scheduler": not model.lr_dict,
        "scheduler-frequency": any(model.frequency_of(index) > 1 for index in range(model.schedulers)),
        "ends-return": model.ends_return,
        "training-end-returns": model.ends_return and scenario.defines("training_epoch_end"),
        "second-plain": model.second_plain,
        "second-frequency": model.second_frequency > 0,
        "monitor": bool(model.monitor),
        "lenient": not model.strict,
        "unheeded": bool(model.unheeded),
        "own-plateau": model.own_plateau,
        "monitors-nothing": model.monitors_nothing,
        "stops-by-nothing": scenario.stops_by_nothing,
        "lr-monitor": scenario.lr_monitor,
        "prediction-writer": scenario.prediction_writer,
        "no-grad": scenario.no_grad,
        "scheduler-name": bool(model.scheduler_name),
        "tests-saved": bool(scenario.model_checkpoint) and any(call.startswith("test") for call in scenario.calls),
        "when": model.monitors_nothing or scenario.stops_by_nothing or "when" in words,
    }
    words |= {word for word, holds in flags.items() if holds}
    words |= {"particular"} if words & {*PARTICULAR, "when"} else set()
    return frozenset(words)


def applies(check: Mapping[str, Any], known: frozenset[str]) -> bool:
    """Whether a check's `given` (all words must hold; "!word": must not) selects the scenario.

    Without a `given` that says so, a clause is not judged where something unusual is made to happen, or where
    the loop of a batch is a particular one: the clauses about that are, and the exact sequence is. An empty
    `given` is for what holds everywhere, and the word "everywhere" for what does so but for the words beside it.
    """
    given = check.get("given", ["!when"])
    named = {word.lstrip("!") for word in given}
    if given and check.get("kind") != "sequence" and "everywhere" not in named and known & PARTICULAR - named:
        return False
    return all((word[1:] not in known) if word.startswith("!") else word in known for word in given)
