"""Scenarios drawn at random: every one is legal, so that a trainer must run it and the oracle knows how."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

from hypothesis import strategies as st

from conformance import experiment
from conformance.experiment import OPTIONAL_HOOKS, STEPS, Data, Scenario, When
from conformance.hooks import TRANSFERS
from conformance.optimizers import FORMS, OVERRIDES, discord
from conformance.scenario import ScenarioError, scenario_of
from conformance.scenario_devices import ALONE_IN
from conformance.scenario_keys import ACTS_IN, EPOCH_HOOKS, FORMS_OF_HYPERPARAMETERS, LOGGING_HOOKS
from conformance.scenario_module import LOSSES, Log, Model
from conformance.spec.contracts import expected

__all__ = ["distributed_scenarios", "scenarios"]

LOADER_COUNTS = st.lists(st.integers(1, 4), max_size=3).map(tuple)
CALLS = st.one_of(
    st.just(("fit",)),
    st.sampled_from(
        [
            ("validate",),
            ("test",),
            ("predict",),
            ("fit", "fit"),
            ("fit", "save", "resume"),
            ("fit", "resume"),
            ("fit", "validate"),
            ("fit", "test"),
            ("validate", "fit"),
            ("fit", "test", "predict"),
            ("fit", "another", "fit", "test"),
            ("predict-unreturned", "predict"),
            ("predict", "fit", "validate", "test"),
        ]
    ),
)
CLOSING = ("on_exception", "teardown")


@st.composite
def scenarios(draw: st.DrawFn) -> Scenario:
    """A legal scenario of any kind: data, model, trainer options, and what is made to happen."""
    calls = draw(CALLS)
    data = draw(_data(calls))
    model = draw(_model(calls, data))
    callbacks = draw(st.integers(0, 3))
    trainer = draw(_trainer(data, model))
    splits = not (model.manual or data.train_loaders or data.batch == "custom")
    if splits and draw(st.integers(0, 2)) == 0:
        trainer |= {"strategy": "dp", "devices": draw(st.sampled_from([2, 3, 4, 1]))}
    several, truncated = model.optimizers > 1 and not model.manual, model.truncated_bptt_steps > 0
    combined = "multiple_trainloader_mode" in trainer
    needs = ("several-optimizers",) * several + ("truncated-bptt",) * truncated
    needs += ("another-module",) * ("another" in calls)
    if "resume" in calls:
        trainer.pop("fast_dev_run", None)
    at = draw(st.sampled_from(["on_train_batch_end", "on_train_batch_end", "on_validation_end"]))
    saves = (When(at, "save", draw(st.integers(0, 5 if "batch" in at else 2))),) if calls == ("fit", "resume") else ()
    needs += ("multiple-trainloader-mode",) * combined + ("data-parallel",) * ("strategy" in trainer)
    needs += ("bf16",) * (trainer.get("precision") == "bf16")
    needs += ("accumulation-by-epoch",) * isinstance(trainer.get("accumulate_grad_batches"), dict)
    needs += ("callable-reductions",) * any(log.reduce_fx == "spread" for log in model.logs)
    needs += ("logged-mappings",) * any(log.mapping for log in model.logs)
    needs += ("log-dict-batch-size",) * any(log.in_dict and log.batch_size > 0 for log in model.logs)
    scenario = Scenario("drawn", "", calls, needs, callbacks, data, model, trainer, saves)
    rates = model.schedulers == model.optimizers and not (model.manual or model.groups)
    if rates and draw(st.integers(0, 2)) == 0:
        scenario = replace(scenario, lr_monitor=True, needs=(*needs, "lr-monitor"))
    scenario = draw(_with_metric(draw(_with_callbacks(scenario))))
    if {"predict", "predict-unreturned"} & {*calls} and draw(st.booleans()):
        scenario = replace(scenario, prediction_writer=True, needs=(*scenario.needs, "prediction-writer"))
    if draw(st.integers(0, 5)) == 0:
        scenario = draw(_shuffled(scenario))
    elif draw(st.integers(0, 5)) == 0:
        scenario = draw(_of_another_order_or_length(scenario))
    if draw(st.integers(0, 4)) == 0:
        scenario = replace(scenario, no_grad=True, needs=(*scenario.needs, "no-grad"))
    needs = scenario.needs
    for _ in range(draw(st.sampled_from([1, 2, 0, 3]))):
        event = draw(_event(scenario))
        if all((event.receiver, event.hook, event.nth) != (w.receiver, w.hook, w.nth) for w in scenario.when):
            scenario = replace(scenario, when=(*scenario.when, event))
    if {"save", "resume"} & {*calls, *(event.do for event in scenario.when)}:
        scenario = replace(scenario, needs=(*needs, "checkpoints"))
    before = replace(scenario, calls=calls[:-1])
    # There may be no checkpoint to go on from, or one without optimizers, which is refused; or one of torch's L-BFGS in
    # mid-step, from which it cannot go on itself.
    broken = model.optimizer == "lbfgs" and any(event.do in ("raise", "interrupt") for event in scenario.when)
    hooks = [event.hook for event in expected(before)]
    if "resume" in calls and (broken or not {"save_checkpoint", "on_pretrain_routine_start"} <= {*hooks}):
        scenario = replace(scenario, calls=("fit",))
    newest = [saving for saving in scenario.model_checkpoint if not (saving.monitor or saving.save_weights_only)]
    goes_on = newest and (newest[0].save_last or newest[0].save_top_k) and not broken and calls == ("fit",)
    goes_on = goes_on and not (scenario.option("fast_dev_run") or scenario.data.promised or scenario.data.reloaded)
    if goes_on and draw(st.booleans()):
        scenario = replace(scenario, calls=("fit", "resume-last"), needs=(*scenario.needs, "checkpoints"))
    if draw(st.integers(0, 3)) == 0:
        scenario = draw(_with_own_methods(scenario))
    return scenario_of(scenario.to_dict())


@st.composite
def _with_own_methods(draw: st.DrawFn, scenario: Scenario) -> Scenario:
    """With hyperparameters, and calls of the module's own methods where they go with the rest."""
    form = draw(st.sampled_from([form for form in FORMS_OF_HYPERPARAMETERS if form != "within"]))  # which is particular
    if form and not scenario.spawns:
        logged, too = draw(st.booleans()), scenario.data.has_datamodule and draw(st.booleans())
        model = replace(scenario.model, hyperparameters=form, hyperparameters_logged=logged,
                        hyperparameters_changed=draw(st.booleans()))  # fmt: skip
        data = replace(scenario.data, hyperparameter=too)
        scenario = replace(scenario, model=model, data=data, needs=(*scenario.needs, "hyperparameters"))
    first, *others = scenario.calls
    ways = [
        ((first, "freeze", *others), ("freezing",)), (("freeze", "unfreeze", *scenario.calls), ("freezing",)),
        ((first, "unfreeze", *others), ("freezing",)), ((first, "freeze", "unfreeze", *others), ("freezing",)),
        ((first, "save", "load", *others), ("checkpoints", "loading")),
    ]  # fmt: skip
    calls, needs = draw(st.sampled_from(ways))
    given = replace(scenario, calls=calls, needs=tuple(dict.fromkeys((*scenario.needs, *needs))))
    try:
        return scenario_of(given.to_dict())
    except ScenarioError:
        return scenario


@st.composite
def _shuffled(draw: st.DrawFn, scenario: Scenario) -> Scenario:
    """With training loaders that shuffle, and perhaps those of validations, and without what needs known numbers."""
    data, model = scenario.data, scenario.model
    if not data.sized or model.truncated_bptt_steps or model.optimizer == "lbfgs":
        return scenario
    without, overfits = ("strategy", "devices"), bool(scenario.option("overfit_batches"))
    return replace(
        scenario,
        data=replace(data, time=0, shuffle=True, generator=draw(st.booleans()),
                     shuffle_val=not overfits and draw(st.booleans())),
        model=replace(model, monitor="", second_plain=False, strict=True),
        trainer={name: value for name, value in scenario.trainer.items() if name not in without},
        early_stopping=(),
        model_checkpoint=tuple(saving for saving in scenario.model_checkpoint if not saving.monitor),
        needs=tuple(need for need in scenario.needs if need not in ("data-parallel", "early-stopping")),
    )


@st.composite
def _of_another_order_or_length(draw: st.DrawFn, scenario: Scenario) -> Scenario:
    """With training loaders that go by the epoch, that do not keep their length, or that become others; as it is, where
    that does not go with the rest."""
    train = scenario.data.train
    ways: dict[str, st.SearchStrategy[Any]] = {
        "told_epochs": st.just(True), "promised": st.integers(max(1, train - 1), train + 3),
        "reloaded": st.integers(1, 6),
    }  # fmt: skip
    way = draw(st.sampled_from(list(ways)))
    data = replace(scenario.data, sized=True, last=scenario.data.batch_size, **{way: draw(ways[way])})
    trainer = {name: value for name, value in scenario.trainer.items() if name != "overfit_batches"}
    if way == "reloaded" and draw(st.booleans()):
        trainer["reload_dataloaders_every_n_epochs"] = draw(st.integers(1, 2))
    try:
        return scenario_of(replace(scenario, data=data, trainer=trainer).to_dict())
    except ScenarioError:
        return scenario


@st.composite
def _with_callbacks(draw: st.DrawFn, scenario: Scenario) -> Scenario:
    """Perhaps with those that stop and those that save."""
    names = sorted({log.known_as for log in scenario.model.logs})
    exact = scenario.option("precision") == 32
    stopping, saving = [], []
    for _ in range(draw(st.sampled_from([0, 0, 1, 2])) if names and exact else 0):
        monitor, mode = draw(st.sampled_from(names)), draw(st.sampled_from(["min", "max"]))
        rest = draw(st.integers(1, 3)), draw(st.sampled_from([0.0, 0.25])), draw(st.booleans())
        when, given = draw(st.sampled_from([None, None, True, False])), draw(st.sampled_from(["trainer", "module"]))
        stopping.append(experiment.Stopping(monitor, mode, *rest, when, given))
    saves = "save" in scenario.calls or scenario.when or scenario.model.manual
    for given in draw(st.sampled_from([(), (), ("trainer",), ("module",)])) if exact and not saves else ():
        monitor, mode = draw(st.sampled_from(["", *names])), draw(st.sampled_from(["min", "max"]))
        best = draw(st.integers(-1, 2)) if monitor else draw(st.integers(-1, 1))
        every, weights_only = draw(st.integers(0, 3)), draw(st.integers(0, 3)) == 0
        saving.append(experiment.Saving(monitor, mode, best, draw(st.booleans()), every, weights_only, given))
    kinds = {(each.monitor, each.mode): each for each in stopping}
    needs = ("early-stopping",) * bool(kinds) + ("model-checkpoint",) * bool(saving)
    return replace(scenario, early_stopping=tuple(kinds.values()), model_checkpoint=tuple(saving),
                   needs=(*scenario.needs, *needs))  # fmt: skip


@st.composite
def _with_metric(draw: st.DrawFn, scenario: Scenario) -> Scenario:
    """Perhaps with a metric in the place of a step's loss."""
    apart = "strategy" in scenario.trainer or scenario.model.truncated_bptt_steps > 0
    plain = [log for log in scenario.model.logs if not (log.batch_size or log.enable_graph or log.mapping)]
    logs = [log for log in plain if log.hook in STEPS.values()]
    means = [log for log in logs if log.reduce_fx == "mean" and not log.sync_dist]
    if apart or not means or draw(st.booleans()):
        return scenario
    chosen = draw(st.sampled_from(means))
    with_it = tuple(replace(log, metric=log == chosen) for log in scenario.model.logs)
    model = replace(scenario.model, logs=with_it)
    return replace(scenario, model=model, needs=(*scenario.needs, "torchmetrics"))


@st.composite
def distributed_scenarios(draw: st.DrawFn) -> Scenario:
    """A scenario of any kind that several processes can run, with what they cannot have left out."""
    one = draw(scenarios())
    processes, nodes = draw(st.sampled_from([(2, 1), (3, 1), (1, 2)]))
    count = processes * nodes
    size = count * draw(st.integers(1, 7 // count))
    batch = "tuple" if one.data.batch == "custom" else one.data.batch
    last = draw(st.integers(count, size))
    data = replace(one.data, train_loaders=(), sized=True, time=0, batch=batch, batch_size=size, last=last,
                   distributed_sampler=not one.data.shuffle and draw(st.booleans()),
                   shuffle_val=False, told_epochs=False, promised=0, reloaded=0)  # fmt: skip
    leaves_out = not (data.shuffle or one.option("overfit_batches")) and draw(st.booleans())
    data = replace(data, leaves_out=leaves_out)
    logs = tuple(replace(log, sync_dist=draw(st.booleans()), rank_zero_only=draw(st.integers(0, 3)) == 0, metric=False)
                 for log in one.model.logs)  # fmt: skip
    optimizer, once = one.model.optimizer, draw(st.booleans())
    model = replace(one.model, logs=logs, truncated_bptt_steps=0, prepare_data_per_node=once)
    without = ("multiple_trainloader_mode", "strategy", "devices")
    trainer = {name: value for name, value in one.trainer.items() if name not in without}
    trainer |= {"strategy": "ddp", "devices": processes, "num_nodes": nodes}
    left = ("multiple-trainloader-mode", "data-parallel", "another-module", "truncated-bptt", "torchmetrics")
    needs = (*(need for need in one.needs if need not in (*left, "prediction-writer")), "distributed")
    needs += ("other-samplers",) * leaves_out
    together = [event for event in one.when if event.hook != "prepare_data"]  # which one process may do alone
    when = tuple(event for event in together if event.do in ("stop", "return-minus-1", "skip-closure", "save"))
    calls = tuple(call for call in one.calls if call != "another")
    one = replace(one, prediction_writer=False)
    scenario = replace(one, calls=calls, data=data, model=model, trainer=trainer, needs=needs, when=when)
    if not any(log.sync_dist for log in logs) and optimizer != "none" and not when and draw(st.booleans()):
        do, rank = draw(st.sampled_from(list(ALONE_IN))), draw(st.integers(0, count - 1))
        alone = When(draw(st.sampled_from(ALONE_IN[do])), do, draw(st.integers(0, 4)), rank=rank)
        scenario = replace(scenario, when=(alone,))
    if trainer.get("max_epochs") == -1 and trainer.get("max_steps", -1) == -1:
        scenario = replace(scenario, trainer={**trainer, "max_epochs": 2})
    if discord(scenario):  # as with a tbptt_split_batch that has nothing to split now
        scenario = replace(scenario, model=replace(model, overrides=()))
    try:
        return scenario_of(scenario.to_dict())
    except ScenarioError:  # limits that do not go with the loaders that there are now
        kept = {name: value for name, value in scenario.trainer.items()
                if not name.startswith("limit_") and name not in ("val_check_interval", "overfit_batches")}  # fmt: skip
        return scenario_of(replace(scenario, trainer=kept).to_dict())


@st.composite
def _data(draw: st.DrawFn, calls: tuple[str, ...]) -> Data:
    several = {stage: draw(LOADER_COUNTS) for stage in ("val", "test", "predict")}
    for call in calls:
        stage = "val" if call == "validate" else call
        if several.get(stage) == ():
            several[stage] = (draw(st.integers(1, 4)),)
    size = draw(st.integers(1, 5))
    structure = draw(st.sampled_from(["list", "dict", "nested", "dicts"]))
    loaders = st.lists(st.integers(1, 6), min_size=1 + (structure in ("nested", "dicts")), max_size=3).map(tuple)
    train_loaders = draw(st.one_of(st.just(()), st.just(()), loaders))
    source = draw(st.sampled_from(["module", "datamodule", "argument", "train-datamodule", "fit-datamodule"]))
    some = st.lists(st.sampled_from(TRANSFERS), unique=True, max_size=2).map(tuple)
    return Data(
        train=draw(st.integers(1 if "fit" in calls else 0, 6)),
        train_loaders=train_loaders,
        structure=structure,
        sized=draw(st.booleans()),
        source=source,
        transfers=draw(st.one_of(st.just(TRANSFERS), some)) if source.endswith("datamodule") else TRANSFERS,
        batch="tuple" if train_loaders else draw(st.sampled_from(["tuple", "named", "dict", "nested", "custom"])),
        batch_size=size,
        last=draw(st.integers(1, size)),
        time=draw(st.sampled_from([0, 1, 5])),
        listed=draw(st.booleans()),
        **several,
    )


@st.composite
def _model(draw: st.DrawFn, calls: tuple[str, ...], data: Data) -> Model:
    lacks = ["predict_step"] if "validate" in calls else ["predict_step", "validation_step"]
    optimizer = draw(st.sampled_from(["sgd", "momentum", "adam", "lbfgs", "none"]))
    optimizers = draw(st.integers(1, 1 if optimizer in ("none", "lbfgs") else 2))
    frequencies = st.lists(st.integers(1, 3), min_size=optimizers, max_size=optimizers)
    manual = optimizer not in ("none", "lbfgs") and draw(st.integers(0, 4)) == 0
    splits = data.time and data.batch in ("tuple", "dict") and not data.train_loaders and not manual
    steps = draw(st.integers(0, 3)) if splits else 0
    turns = () if manual else tuple(draw(st.one_of(st.just([]), frequencies)))
    automatic = ["none", "step", "epoch", *["mixed"] * (optimizers == 2 or not turns)]
    schedulers = ["none", "step", "epoch"] if manual else ["none"] if optimizer == "none" else automatic
    hooks = [hook for hook in OPTIONAL_HOOKS if not (steps and hook == "training_step_end")]
    defines = tuple(draw(st.lists(st.sampled_from(hooks), unique=True)))
    model = Model(
        defines=defines,
        lacks=tuple(draw(st.lists(st.sampled_from(lacks), unique=True, max_size=1))),
        returns="dict" if steps else draw(st.sampled_from(["tensor", "dict"])),
        ends_return=any(hook.endswith("_epoch_end") for hook in defines) and draw(st.integers(0, 3)) == 0,
        eval_returns=draw(st.sampled_from(["", "tensor", "dict", "none"])),
        optimizer=optimizer,
        scheduler=draw(st.sampled_from(schedulers)),
        # In float32 a line through one point is soon exact, and then there is no gradient.
        dtype=draw(st.sampled_from(["float64", "float32"])) if data.last > 1 and optimizer != "lbfgs" else "float64",
        callbacks=tuple(draw(st.lists(st.sampled_from(["new", "same", "base"]), max_size=2))),
        starts_in_eval=draw(st.booleans()),
        frozen=draw(st.booleans()),
        layer_in_eval=draw(st.booleans()),
        logs=draw(_logs()),
        optimizers=optimizers,
        frequencies=turns,
        manual=manual,
        closure=manual and draw(st.booleans()),
        plain=manual and optimizers == 1 and draw(st.booleans()),
        truncated_bptt_steps=steps,
    )
    if "resume" in calls:
        model = replace(model, halves=draw(st.booleans()))
    if model.frozen and optimizer in ("sgd", "momentum"):
        model = replace(model, thaws=draw(st.booleans()))
    if not model.starts_in_eval and not model.layer_in_eval:
        model = replace(model, layers_in_setup=draw(st.booleans()))
    return draw(_more_of_optimization(model))


@st.composite
def _more_of_optimization(draw: st.DrawFn, model: Model) -> Model:
    """What configure_optimizers returns, what its schedulers react to, and what is overridden: one of what there
    is at a time, or all of it."""
    if model.optimizer == "none":
        return model
    overrides = draw(st.lists(st.sampled_from(sorted(OVERRIDES)), max_size=2))
    drawn: list[tuple[str, Any]] = [("overrides", tuple(overrides)), ("groups", draw(st.integers(0, 3)) == 0)]
    if model.scheduler != "none":
        # A rate that was halved for each of very many updates changes nothing any more.
        many = model.scheduler in ("step", "mixed") and (model.truncated_bptt_steps > 0 or model.dtype == "float32")
        monitors = [log.known_as for log in model.logs] + ["nothing"] * (draw(st.integers(0, 5)) == 0)
        drawn += [
            ("scheduler_frequency", draw(st.integers(3 if many else 1, 3))),
            ("second_frequency", draw(st.sampled_from([0, 3, 4]))),
            ("monitor", draw(st.sampled_from(["", *monitors]))),
            ("second_plain", draw(st.booleans())),
            ("strict", draw(st.sampled_from([True, False, False]))),
            ("unheeded", draw(st.sampled_from(["", "", *monitors]))),
            ("lr_dict", draw(st.booleans())),
            ("scheduler_name", draw(st.sampled_from(["", "rate"]))),
        ]
    for field, value in [*drawn, ("form", draw(st.sampled_from(FORMS)))]:
        changed = replace(model, **{field: value})
        if not discord(Scenario("drawn", model=changed)):
            model = changed
    return model


@st.composite
def _logs(draw: st.DrawFn) -> tuple[Log, ...]:
    """None, the losses, or some in hooks that the module has anyway."""
    if draw(st.booleans()):
        return draw(st.sampled_from([(), LOSSES]))
    logs: list[Log] = []
    for hook in draw(st.lists(st.sampled_from([h for h in LOGGING_HOOKS if h not in OPTIONAL_HOOKS]), max_size=4)):
        on_step = None if hook in EPOCH_HOOKS else draw(st.sampled_from([None, True, False]))
        on_epoch = draw(st.sampled_from([None, True, False] if on_step else [None, True]))
        if on_step is False:  # one of the two
            on_epoch = True
        reduce_fx = draw(st.sampled_from(["mean"] * 4 + ["torch.mean", "min", "max", "sum", "spread"]))
        rest = draw(st.sampled_from([0, 3])), draw(st.booleans())
        in_dict = draw(st.booleans())
        buffer = hook not in STEPS.values() and draw(st.integers(0, 3)) == 0
        graph = hook == "training_step" and draw(st.booleans())
        logs.append(Log(hook, f"{hook}-{len(logs)}", on_step, on_epoch, reduce_fx, *rest, logger=draw(st.booleans()),
                        in_dict=in_dict, enable_graph=graph, buffer=buffer, prog_bar=draw(st.booleans())))  # fmt: skip
    if logs and draw(st.integers(0, 5)) == 0:
        logs[0] = replace(logs[0], mapping=True, prog_bar=False)
    return tuple(logs)


@st.composite
def _trainer(draw: st.DrawFn, data: Data, model: Model) -> dict[str, Any]:
    """Some of the options, each with a value that is legal beside the others."""
    mode = draw(st.sampled_from(["max_size_cycle", "min_size"])) if data.train_loaders and draw(st.booleans()) else ""
    epoch = (min if mode == "min_size" else max)(data.train_loaders or (data.train,))
    loaders = {"train": (epoch,), "val": data.val, "test": data.test, "predict": data.predict}
    limits = {f"limit_{stage}_batches": _limit(counts, data.sized) for stage, counts in loaders.items()}
    rules: dict[str, st.SearchStrategy[Any]] = {
        "min_epochs": st.integers(0, 3),
        "max_steps": st.integers(-1, 8),
        "min_steps": st.integers(0, 8),
        "check_val_every_n_epoch": st.integers(1, 3),
        "num_sanity_val_steps": st.sampled_from([2, -1, 1, 3, 4, 0]),
        "reload_dataloaders_every_n_epochs": st.integers(0, 3),
        "overfit_batches": _limit((epoch,), data.sized),
        **limits,
    }
    if not model.manual and model.optimizer != "lbfgs":
        by_epoch = st.dictionaries(st.sampled_from("0123"), st.integers(1, 4), min_size=1)
        rules["accumulate_grad_batches"] = st.one_of(st.integers(1, 4), by_epoch)
    if not model.manual:
        rules["gradient_clip_val"] = st.sampled_from([0, 0.25, 0.5])
    names = draw(st.lists(st.sampled_from(list(rules)), unique=True))
    options = {name: draw(rules[name]) for name in names}
    options |= {"multiple_trainloader_mode": mode} if mode else {}
    options["max_epochs"] = draw(st.sampled_from([2, 1, 3, 0]))
    if options.get("max_steps", -1) > 0 and draw(st.booleans()):
        options["max_epochs"] = -1
    if draw(st.integers(0, 2)) == 0:
        limit = options.get("overfit_batches") or options.get("limit_train_batches", 1.0)
        options["val_check_interval"] = draw(_interval(epoch, data.sized, limit))
    if model.dtype == "float32" and not model.monitor and draw(st.booleans()):
        options["precision"] = "bf16"
    if draw(st.integers(0, 7)) == 0:
        options["fast_dev_run"] = draw(st.one_of(st.booleans(), st.integers(1, 4)))
    return options


def _limit(counts: tuple[int, ...], sized: bool) -> st.SearchStrategy[int | float]:
    """A count, or a fraction that leaves at least one batch of each loader; 0 for none at all."""
    fractions: st.SearchStrategy[int | float] = st.sampled_from([1.0, 0.0])
    if sized:
        least = 1 / min((count for count in counts if count), default=1)
        fractions = st.one_of(st.sampled_from([1.0, least, 0.0]), st.floats(least, 1.0))
    return st.one_of(st.sampled_from([2, 1, 3, 5, 7, 0]), fractions)


def _interval(epoch: int, sized: bool, limit: int | float) -> st.SearchStrategy[int | float]:
    """A number of batches that an epoch has, or, where its length is known, a fraction of it."""
    if not sized:
        most = limit if isinstance(limit, int) and limit > 0 else 9
        return st.one_of(st.integers(1, most), st.just(1.0))
    batches = min(epoch, limit) if isinstance(limit, int) else int(epoch * limit)
    return st.one_of(st.integers(1, max(1, batches)), st.floats(0.0, 1.0, exclude_min=True))


@st.composite
def _event(draw: st.DrawFn, scenario: Scenario) -> When:
    """Something unusual, at a call that the scenario comes to."""
    calls = Counter((e.receiver, e.hook) for e in expected(scenario) if e.ph == "B" and _can_act(e.receiver))
    hooks = {hook for hooks in ACTS_IN.values() for hook in hooks} | {*(CLOSING if scenario.when else ())}
    particular = [call for call in sorted(calls) if call[1] in hooks]
    receiver, hook = draw(st.sampled_from(draw(st.sampled_from([particular or sorted(calls), sorted(calls)]))))
    rare = [do for do, hooks in ACTS_IN.items() if hook in hooks]  # since few hooks can
    does = [*rare, *rare, "raise", "interrupt", "stop"]
    if receiver != "module":
        does = [do for do in does if do not in ("return-none", "skip-closure", "save")]
    if scenario.model_checkpoint:  # it saves already
        does = [do for do in does if do != "save"]
    if hook in CLOSING:  # a second Ctrl-C, while the first or an exception is being closed, is undocumented
        does.remove("interrupt")
    nth = draw(st.integers(0, min(calls[receiver, hook], 12) - 1))
    return When(hook, draw(st.sampled_from(does)), nth, receiver)


def _can_act(receiver: str) -> bool:
    return receiver != "trainer" and not receiver.startswith("optimizer")
