"""What goes together in a scenario.

Part of reading scenarios, so it needs only the standard library of Python 3.8.
"""

from __future__ import annotations

from .experiment import OPTIONAL_HOOKS, STEPS, Data, Saving, Scenario, Stopping
from .hooks import TRANSFERS
from .optimizers import discord
from .scenario_devices import check_alone, check_parts
from .scenario_keys import DTYPES, EPOCH_HOOKS, MOST_LOADERS, check_keys
from .scenario_module import Log, Model
from .scenario_values import ScenarioError, natural

__all__ = ["check"]


def check(scenario: Scenario) -> None:
    """Raises ScenarioError for the first thing in it that means nothing, or does not go together with the rest."""
    name, model = scenario.name, scenario.model
    check_keys(scenario)
    _check_calls(scenario)
    _check_between(scenario)
    _check_data(scenario)
    _check_model(name, scenario.model)
    _check_truncation(name, scenario.data, scenario.model)
    for stopping in scenario.early_stopping:
        _check_stopping(name + ": early_stopping", stopping, scenario)
    for saving in scenario.model_checkpoint:
        _check_saving(name + ": model_checkpoint", saving, scenario)
    _check_needs(scenario)
    for log in scenario.model.logs:
        _check_log("%s: model.logs %.80s" % (name, log.name), log, scenario.model)
        _check_metric("%s: model.logs %.80s" % (name, log.name), log, scenario)
    if discord(scenario):
        raise ScenarioError("%s: %s" % (name, discord(scenario)))
    if scenario.option("gradient_clip_val") and scenario.model.manual:
        raise ScenarioError("%s: trainer.gradient_clip_val needs automatic optimization" % name)
    one_each = model.schedulers == model.optimizers
    if scenario.lr_monitor and (not one_each or model.manual or scenario.spawns):
        words = "one scheduler for each optimizer, which steps by itself, and processes that are not spawned"
        raise ScenarioError("%s: lr_monitor needs %s" % (name, words))
    if scenario.prediction_writer and scenario.processes > 1:
        raise ScenarioError("%s: prediction_writer needs one process" % name)
    plain = model.optimizers == 1 and model.optimizer in ("sgd", "momentum") and model.scheduler in ("none", "step")
    if scenario.option("precision") == 16 and not (plain and model.dtype == "float32" and scenario.processes == 1):
        words = 'one process and optimizer, "sgd" or "momentum", no scheduler per epoch, and model.dtype "float32"'
        raise ScenarioError("%s: trainer.precision=16 needs %s" % (name, words))
    check_parts(scenario)
    _check_plan(scenario)
    check_alone(scenario)


def _check_calls(scenario: Scenario) -> None:
    name, calls = scenario.name, scenario.calls
    for call in calls:
        if call == "resume" and not (scenario.saves and calls[0] == "fit"):
            raise ScenarioError('%s: resume needs a fit before it, and a "save"' % name)
        if call.startswith(("resume", "test-")) and scenario.option("fast_dev_run"):
            raise ScenarioError("%s: %s: fast_dev_run leaves nothing to go on with" % (name, call))
        if call in ("another", "append"):
            if scenario.processes > 1 or scenario.resumes or calls[-1] == call:
                words = "one process, no fit that goes on from a checkpoint, and a call behind it"
                raise ScenarioError("%s: %s needs %s" % (name, call, words))
            continue
        if call in ("freeze", "unfreeze", "load"):
            continue
        stage = call.split("-")[0]
        stage = {"fit": "train", "resume": "train", "save": "train", "validate": "val"}.get(stage, stage)
        if not scenario.loaders(stage):
            raise ScenarioError("%s: %s needs batches: set data.%s" % (name, call, stage))
        last, best = call.endswith("-last"), call != "test-last"
        saves = [(last and each.save_last) or (best and each.save_top_k) for each in scenario.model_checkpoint]
        if call.startswith(("test-", "resume-")) and not (saves and all(saves) and calls[0] == "fit"):
            raise ScenarioError("%s: %s needs a fit before it, and a model_checkpoint that saves it" % (name, call))
        if call == "resume-last" and [
            saving
            for saving in scenario.model_checkpoint
            if saving.save_weights_only or (saving.monitor and not saving.save_last)
        ]:
            words = "a model_checkpoint of everything, without a monitor or with save_last"
            raise ScenarioError("%s: resume-last needs %s" % (name, words))
        if call == "validate" and "validation_step" in scenario.model.lacks:
            raise ScenarioError("%s: validate needs the validation_step that model.lacks takes away" % name)


def _check_between(scenario: Scenario) -> None:
    """What goes together with calls of the module's own methods."""
    name, calls, model = scenario.name, scenario.calls, scenario.model
    own = [call for call in calls if call in ("freeze", "unfreeze", "load")]
    if own and (calls[-1] in own or scenario.spawns or model.layers_in_setup):
        words = "a call behind it, no layers_in_setup, and processes that are not spawned"
        raise ScenarioError("%s: %s needs %s" % (name, own[-1], words))
    frozen = False
    for call in calls:
        frozen = call == "freeze" or (frozen and call not in ("unfreeze", "resume", "resume-last", "another", "load"))
        if frozen and call == "fit":
            raise ScenarioError("%s: a fit of what is frozen: unfreeze it before" % name)
    if "load" not in calls:
        return
    givers = [each.given for each in scenario.early_stopping] + [each.given for each in scenario.model_checkpoint]
    own_callbacks = model.callbacks or "module" in givers
    if not scenario.saves or scenario.processes > 1 or scenario.data_parallel or own_callbacks or scenario.resumes:
        words = 'a "save", one process and device, no callbacks of the module, and no fit that goes on'
        raise ScenarioError("%s: load needs %s" % (name, words))


def _check_data(scenario: Scenario) -> None:
    name, data = scenario.name, scenario.data
    if data.last > data.batch_size:
        raise ScenarioError("%s: data.last=%d is more than batch_size=%d" % (name, data.last, data.batch_size))
    if data.workers and (not data.sized or data.shuffle or scenario.processes > 1):
        raise ScenarioError("%s: data.workers needs loaders with a length, no data.shuffle, and one process" % name)
    if data.transfers != TRANSFERS and not data.has_datamodule:
        raise ScenarioError("%s: data.transfers are a data module's: set data.source" % name)
    if data.hyperparameter and not (data.has_datamodule and scenario.model.hyperparameters):
        raise ScenarioError("%s: data.hyperparameter needs a data module, and model.hyperparameters" % name)
    changed = scenario.model.hyperparameters_changed
    if scenario.model.hyperparameters == "within" and (changed or "load" in scenario.calls):
        raise ScenarioError('%s: model.hyperparameters of "within" needs ones that are not changed, nor loaded' % name)
    if scenario.model.hyperparameters and scenario.spawns:
        raise ScenarioError("%s: model.hyperparameters needs processes that are not spawned" % name)
    _check_train_loaders(scenario)
    _check_lengths(scenario)


def _check_train_loaders(scenario: Scenario) -> None:
    """What goes together with several training loaders, and with shuffling."""
    name, data = scenario.name, scenario.data
    if len(data.train_loaders) > MOST_LOADERS or (data.nesting == 2 and len(data.train_loaders) == 1):
        accepted = "%d to %d are accepted" % (data.nesting, MOST_LOADERS)
        raise ScenarioError("%s: %d data.train_loaders; %s" % (name, len(data.train_loaders), accepted))
    if data.train_loaders and (data.batch != "tuple" or scenario.model.truncated_bptt_steps):
        raise ScenarioError('%s: data.train_loaders needs data.batch "tuple", and no truncated_bptt_steps' % name)
    if data.shuffle and (not data.sized or data.distributed_sampler):
        raise ScenarioError("%s: data.shuffle needs loaders with a length, and no sampler" % name)
    others = data.shuffle or data.told_epochs or data.promised or scenario.option("overfit_batches")
    if data.leaves_out and (others or not data.sized):
        raise ScenarioError("%s: data.leaves_out needs loaders with a length that nothing else changes" % name)
    for way in ("generator", "shuffle_val"):
        if getattr(data, way) and not data.shuffle:
            raise ScenarioError("%s: data.%s needs data.shuffle" % (name, way))
    if data.shuffle_val and (scenario.option("overfit_batches") or scenario.processes > 1):
        raise ScenarioError("%s: data.shuffle_val needs one process, and no overfit_batches" % name)
    if scenario.shuffles and (scenario.monitors or scenario.model.optimizer == "lbfgs"):
        words = 'nothing that monitors a value, and no "lbfgs": nobody knows the numbers'
        raise ScenarioError("%s: data.shuffle without overfit_batches needs %s" % (name, words))
    if scenario.shuffles and (scenario.data_parallel or scenario.data.time):
        words = "no data.time, and no trainer.strategy \"dp\""
        raise ScenarioError("%s: data.shuffle without overfit_batches needs %s" % (name, words))


def _check_lengths(scenario: Scenario) -> None:
    """What goes together with training loaders that are not the same in each epoch, or not so long as they say."""
    name, data = scenario.name, scenario.data
    ways = [way for way in ("told_epochs", "promised", "reloaded") if getattr(data, way)]
    if not ways:
        return
    others = data.shuffle or data.distributed_sampler or data.workers or scenario.option("overfit_batches")
    if len(ways) > 1 or others or not data.sized or data.last != data.batch_size or scenario.processes > 1:
        words = "loaders with a length, whose batches are of one size, one process, and nothing else that changes them"
        raise ScenarioError("%s: data.%s needs %s" % (name, ways[0], words))
    if not data.told_epochs and (data.train_loaders or scenario.resumes or data.source == "argument"):
        words = "one training loader, which is asked for, and no fit that goes on from a checkpoint"
        raise ScenarioError("%s: data.%s needs %s" % (name, ways[0], words))


def _check_model(name: str, model: Model) -> None:
    """What goes together in the model, beside the `discord` of its optimization."""
    if model.scheduler != "none" and model.optimizer == "none":
        raise ScenarioError("%s: model.scheduler=%r needs an optimizer, not \"none\"" % (name, model.scheduler))
    if model.optimizers > 1 and model.optimizer == "none":
        raise ScenarioError('%s: model.optimizers=%d, and model.optimizer="none"' % (name, model.optimizers))
    if model.shared and (model.optimizers == 1 or model.optimizer != "sgd" or model.frozen or model.overrides):
        words = 'two model.optimizers, "sgd", biases that are not frozen, and no model.overrides'
        raise ScenarioError("%s: model.shared needs %s" % (name, words))
    if model.layers_in_setup and (model.starts_in_eval or model.layer_in_eval):
        raise ScenarioError("%s: model.layers_in_setup, and a module that is in eval mode before that" % name)
    if model.thaws and not (model.frozen and model.optimizer in ("sgd", "momentum")):
        raise ScenarioError('%s: model.thaws needs model.frozen, and "sgd" or "momentum"' % name)
    if model.frequencies and len(model.frequencies) != model.optimizers:
        count = len(model.frequencies)
        raise ScenarioError("%s: %d model.frequencies for %d model.optimizers" % (name, count, model.optimizers))
    for way, is_set in (("logged", not model.hyperparameters_logged), ("changed", model.hyperparameters_changed)):
        if is_set and not model.hyperparameters:
            raise ScenarioError("%s: model.hyperparameters_%s needs model.hyperparameters" % (name, way))
    if model.ends_return and not any(hook.endswith("_epoch_end") for hook in model.defines):
        raise ScenarioError("%s: model.ends_return needs a *_epoch_end in model.defines" % name)
    if model.closure and not model.manual:
        raise ScenarioError("%s: model.closure needs model.manual" % name)
    if model.plain and (not model.manual or model.optimizers > 1):
        raise ScenarioError("%s: model.plain needs model.manual and one optimizer" % name)
    if model.manual and (model.optimizer == "none" or model.scheduler == "mixed" or model.frequencies):
        raise ScenarioError('%s: model.manual needs an optimizer, and no frequencies or scheduler "mixed"' % name)


def _check_truncation(name: str, data: Data, model: Model) -> None:
    """What goes together with truncated backpropagation."""
    if not model.truncated_bptt_steps:
        if data.batch == "sequences":
            raise ScenarioError('%s: data.batch "sequences" needs model.truncated_bptt_steps' % name)
        return
    if not data.time or data.batch not in ("tuple", "dict", "sequences") or model.returns != "dict" or model.manual:
        raise ScenarioError(
            '%s: model.truncated_bptt_steps needs data.time, data.batch "tuple", "dict" or "sequences", '
            'model.returns="dict", and automatic optimization' % name
        )
    if "training_step_end" in model.defines:
        raise ScenarioError("%s: model.truncated_bptt_steps: training_step_end would lose the hiddens" % name)


def _check_needs(scenario: Scenario) -> None:
    """That it says what a trainer must be able to do."""
    model = scenario.model
    several = model.optimizers > 1 and not model.manual
    for uses, what, need in (
        (several, "model.optimizers=%d" % model.optimizers, "several-optimizers"),
        (scenario.saves or scenario.resumes, "it saves a checkpoint", "checkpoints"),
        ("multiple_trainloader_mode" in scenario.trainer, "multiple_trainloader_mode", "multiple-trainloader-mode"),
        (bool(model.truncated_bptt_steps), "model.truncated_bptt_steps", "truncated-bptt"),
        (scenario.data_parallel, 'trainer.strategy="dp"', "data-parallel"),
        (scenario.option("strategy") == "ddp", 'trainer.strategy="ddp"', "distributed"),
        (scenario.launched, "launched", "launched"),
        ("another" in scenario.calls, "another", "another-module"),
        ("load" in scenario.calls, "load", "loading"),
        ("freeze" in scenario.calls or "unfreeze" in scenario.calls, "it freezes the module", "freezing"),
        (bool(model.hyperparameters), "model.hyperparameters", "hyperparameters"),
        (model.own_plateau, "model.own_plateau", "own-plateau"),
        (scenario.data.leaves_out and scenario.processes > 1, "data.leaves_out in several processes", "other-samplers"),
        (any(log.mapping for log in model.logs), "it logs a mapping", "logged-mappings"),
        (scenario.changes_windows, "trainer.accumulate_grad_batches of epochs", "accumulation-by-epoch"),
        (scenario.spawns, 'trainer.strategy="ddp_spawn"', "spawned"),
        (any(log.metric for log in model.logs), "it logs a metric", "torchmetrics"),
        (scenario.option("precision") == 16, "trainer.precision=16", "fp16"),
        (any(log.reduce_fx == "spread" for log in model.logs), 'reduce_fx="spread"', "callable-reductions"),
        (any(log.in_dict and log.batch_size for log in model.logs), "in_dict with batch_size", "log-dict-batch-size"),
        (scenario.lr_monitor, "lr_monitor", "lr-monitor"),
        (scenario.prediction_writer, "prediction_writer", "prediction-writer"),
        (scenario.no_grad, "no_grad", "no-grad"),
        (bool(scenario.early_stopping), "early_stopping", "early-stopping"),
        (bool(scenario.model_checkpoint), "model_checkpoint", "model-checkpoint"),
    ):
        if uses and need not in scenario.needs:
            raise ScenarioError('%s: %s: add needs = ["%s"]' % (scenario.name, what, need))


def _check_log(where: str, log: Log, model: Model) -> None:
    if log.hook in OPTIONAL_HOOKS and log.hook not in model.defines:
        raise ScenarioError("%s: add %r to model.defines" % (where, log.hook))
    if log.on_step and log.hook in EPOCH_HOOKS:
        raise ScenarioError("%s: on_step=true, and %s belongs to no step" % (where, log.hook))
    if log.on_step is log.on_epoch is False:
        raise ScenarioError("%s: on_step=false and on_epoch=false would log nothing" % where)
    if log.enable_graph and (log.hook != "training_step" or log.metric):
        raise ScenarioError("%s: enable_graph=true needs the loss of training_step" % where)
    if (log.values or log.buffer) and log.hook in STEPS.values():
        raise ScenarioError("%s: values or a buffer, and %s logs its loss" % (where, log.hook))
    if log.dtype and (log.buffer or log.metric or log.hook in STEPS.values()):
        raise ScenarioError("%s: dtype=%r needs a hook that is no step and logs numbers" % (where, log.dtype))
    for value in log.values if log.dtype else ():
        natural(where + ": values of dtype=%r" % log.dtype, value, 0, DTYPES[log.dtype])
    if log.at and (log.metric or log.sync_dist):
        raise ScenarioError("%s: at needs a value that is logged alone: no metric, no sync_dist" % where)
    if log.helper and log.in_dict:
        raise ScenarioError("%s: helper=true needs a log that is not in_dict" % where)
    if log.mapping and (log.metric or log.prog_bar):
        raise ScenarioError("%s: mapping=true needs a number, and no prog_bar" % where)
    if log.values and log.buffer:
        raise ScenarioError("%s: values, and a buffer" % where)
    if any(other != log and (other.hook, other.name) == (log.hook, log.name) for other in model.logs):
        raise ScenarioError("%s: %s logs that name twice" % (where, log.hook))


def _check_metric(where: str, log: Log, scenario: Scenario) -> None:
    """What goes together with an object of torchmetrics."""
    if not log.metric:
        return
    if log.hook not in STEPS.values() or log.reduce_fx != "mean" or log.batch_size or log.sync_dist:
        raise ScenarioError("%s: metric=true needs a step, and no reduce_fx, batch_size or sync_dist"
                            % where)
    if scenario.option("strategy") is not None or scenario.model.truncated_bptt_steps:
        raise ScenarioError("%s: metric=true needs whole batches: no strategy, no truncated_bptt_steps" % where)


def _check_stopping(where: str, stopping: Stopping, scenario: Scenario) -> None:
    of_steps = {log.known_as + fork for log in scenario.model.logs if log.hook in STEPS.values()
                for fork in ("", "_step", "_epoch")}
    if scenario.option("precision") != 32 and stopping.monitor in of_steps:
        raise ScenarioError("%s needs precision 32, where it monitors a loss" % where)
    if any(each != stopping and (each.monitor, each.mode) == (stopping.monitor, stopping.mode)
           for each in scenario.early_stopping):
        raise ScenarioError("%s: two of monitor %.80r and mode %r" % (where, stopping.monitor, stopping.mode))
    if len(scenario.early_stopping) > MOST_LOADERS:
        raise ScenarioError("%s: %d; at most %d are accepted" % (where, len(scenario.early_stopping), MOST_LOADERS))


def _check_saving(where: str, saving: Saving, scenario: Scenario) -> None:
    if saving.save_top_k > 1 and not saving.monitor:
        raise ScenarioError("%s: save_top_k=%d needs a monitor" % (where, saving.save_top_k))
    if saving.monitor and (saving.monitor not in scenario.model.names_logged or saving.monitor in ("epoch", "step")):
        raise ScenarioError("%s: monitor: nothing is logged under %.80r" % (where, saving.monitor))
    if scenario.option("precision") != 32 or scenario.saves:
        raise ScenarioError("%s needs precision 32, and no other saves" % where)
    if scenario.model.manual:
        raise ScenarioError("%s: with model.manual each trainer has steps of its own" % where)
    if [each.given for each in scenario.model_checkpoint].count(saving.given) > 1:
        raise ScenarioError("%s: two are given by the %s" % (where, saving.given))


def _check_plan(scenario: Scenario) -> None:
    """That the options leave something to do, and an end: what a trainer refuses is no scenario."""
    name, sized = scenario.name + ": trainer.", scenario.data.sized
    loaders = {stage: scenario.loaders(stage) for stage in STEPS}
    lengths = (scenario.data.promised or scenario.train_batches(), scenario.data.reloaded)
    loaders["train"] = tuple(batches for batches in lengths if batches)
    limits = [("limit_%s_batches" % stage, stage) for stage in STEPS]
    for option, stage in [*limits, ("overfit_batches", "train")]:
        limit = scenario.option(option)
        for batches in loaders[stage] if isinstance(limit, float) and 0 < limit < 1 else ():
            where = "%s%s=%r" % (name, option, limit)
            if not sized:
                raise ScenarioError("%s needs loaders with a length: give an int, or set data.sized" % where)
            if int(batches * limit) == 0:
                raise ScenarioError("%s leaves nothing of a loader of %d" % (where, batches))
    interval, limit = scenario.option("val_check_interval"), scenario.option("limit_train_batches")
    if isinstance(interval, float) and interval < 1 and not sized:
        where = "%sval_check_interval=%r" % (name, interval)
        raise ScenarioError("%s needs a loader with a length: give an int, or set data.sized" % where)
    if isinstance(interval, int):
        batches = min(loaders["train"] or (0,)) if sized else interval  # of unknown length: perhaps that many
        limit = scenario.option("overfit_batches") or limit
        most = min(batches, limit) if isinstance(limit, int) else int(batches * limit)
        if 0 < most < interval:
            raise ScenarioError("%sval_check_interval=%d: an epoch has %d batches" % (name, interval, most))
    stops = any(event.do == "stop" for event in scenario.when)
    if scenario.option("max_epochs") == scenario.option("max_steps") == -1 and not stops:
        raise ScenarioError(name + "max_epochs=-1 trains without end: set max_steps, or a `when` that stops")
