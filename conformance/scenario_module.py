"""The module of an experiment: what it defines, returns, optimizes and logs.

Loaded into the trainer's own world, as `experiment.py`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Optional, Tuple

__all__ = ["ARGUMENTS", "CHANGED", "LOSSES", "Log", "Model"]


@dataclass(frozen=True)
class Log:
    """A call of `self.log` at the beginning of `hook`: a step logs its loss, any other hook how often it has done so
    before, or of `values` the next one, and the last of them from there on. What is not given has the hook's default;
    `reduce_fx` "torch.mean" is that function, which says the same as the word; "spread" is a function of the user's
    own, of all values of the epoch: the greatest less the last; `batch_size` 0 leaves it to the batch; with `logger`
    False no logger is given it; with `prog_bar` the progress bar shows it. With `metric` a step logs an object in
    place of its loss: one of torchmetrics' MeanSquaredError, an attribute of the module, which it is given the outputs
    and the targets of the batch before. With `in_dict` it is `self.log_dict`, of a dict with this name; with `mapping`
    the value is one itself, of one "item", and is known as "name/item". With `enable_graph` a training step's loss is
    logged with its graph; with `buffer` another hook logs how many training steps the module has begun, which it
    counts in a buffer. With `rank_zero_only` the process of rank 0 alone logs it, and says so; with `ranks` those
    processes alone, as a group. What is no step's is a number, or with `dtype` a tensor of that type. With `helper` it
    is another method that calls `self.log`, one that is named as a hook is. With `at` it logs in these calls of the
    hook only, from 0. With `sync_dist` what is no step's is greater in each process by its rank."""

    hook: str
    name: str
    on_step: Optional[bool] = None
    on_epoch: Optional[bool] = None
    reduce_fx: str = "mean"
    batch_size: int = 0
    add_dataloader_idx: bool = True
    sync_dist: bool = False
    logger: bool = True
    prog_bar: bool = False
    metric: bool = False
    in_dict: bool = False
    mapping: bool = False
    enable_graph: bool = False
    buffer: bool = False
    rank_zero_only: bool = False
    ranks: Tuple[int, ...] = ()
    dtype: str = ""
    helper: bool = False
    at: Tuple[int, ...] = ()
    values: Tuple[float, ...] = ()

    @property
    def averages(self) -> bool:
        """Whether an epoch's value is the mean."""
        return self.reduce_fx in ("mean", "torch.mean")

    @property
    def known_as(self) -> str:
        """Under which name."""
        return self.name + "/item" * self.mapping

    def nth(self, count: int) -> float:
        """What a hook that is no step logs after so many calls."""
        return float(self.values[min(count, len(self.values) - 1)]) if self.values else float(count)


# What `logs = true` is short for.
LOSSES = (
    Log("training_step", "train_loss"),
    Log("validation_step", "eval_loss"),
    Log("test_step", "eval_loss"),
)


# What a module with hyperparameters is given. By default each of them is None.
ARGUMENTS = {"arg1": 1, "arg2": "abc", "arg3": 3.14}
CHANGED = 2  # what becomes of the first


@dataclass(frozen=True)
class Model:
    """What the module defines beyond the hooks that every recording module has.

    `defines` lists optional hooks, `lacks` steps it does without; `returns` is the form of a step's output, "tensor"
    or "dict", `eval_returns` that of validation and test steps where it is another, "none" included; with
    `ends_return` each `*_epoch_end` that it defines returns a dict, of which nobody is to take notice; `callbacks` are
    those of `configure_callbacks`: "new" for one of a type of its own, "same" for one of the type of the trainer's,
    "base" for one of the type that theirs is derived from. With `frozen` the layers' biases do not require gradients,
    ever, or with `thaws` until the second epoch's on_train_epoch_start; with `shared` two of them are one, which both
    optimizers train; with `layers_in_setup` it is `setup` that makes the layers, unless they are there; with
    `layer_in_eval` the first layer is put into eval mode, when it is made and in each on_train_epoch_start; with
    `draws` each step draws a random number, as dropout does, that nothing depends on; with `halves` its
    on_load_checkpoint puts weights of half the size in the place of those that a checkpoint holds. `logs` are calls of
    `self.log`; true is short for the steps' losses, as "train_loss" and "eval_loss".

    `optimizers` is 1, or 2: then the module has two layers, whose outputs are added, and each optimizer, of the
    kind `optimizer`, trains one of them; each has its `scheduler`, "step" or "epoch", or "mixed": the first one's
    steps by steps, the second's by epochs; one optimizer has both of them then. `frequencies` are theirs, 0 for one
    that has none. With `groups` each has two groups of parameters, weights and biases. With `manual` the training step
    does the optimization itself: for each optimizer zero_grad, manual_backward and step, then the steps of the
    schedulers; with `closure` the first two and the loss are in a closure that step is given; with `plain` the one
    optimizer is that of `optimizers(use_pl_optimizer=False)`.
    `truncated_bptt_steps` is the module's property of that name; its hidden states count the pieces of a batch.

    `form` is that of what `configure_optimizers` returns, one of FORMS; if empty, the plainest that says it all. A
    scheduler is given in an lr_dict with its interval, and with what else is there: its `scheduler_frequency`, of the
    second one `second_frequency` if that is not 0, and `monitor` with `strict`, for one that halves the rate where
    that value is on a plateau, torch's, or with `own_plateau` one of a class of the user's own, which the lr_dict says
    reacts to a value, but with `second_plain` the second one monitors nothing; without `lr_dict` as it is; `unheeded`
    is a monitor in the lr_dict of one that needs no value. Its `scheduler_name`, and of several optimizers the index
    after that, is the name in the lr_dict.
    With `hyperparameters` its __init__ takes those of ARGUMENTS, and saves "all" of them, those whose "names" it gives,
    "twice" one of those, or all but one that it is to "ignore"; "object" has it take one dict of them, and save that;
    "inherited" is "all", of a class that is derived from one that saves them, and gives it another value of the first;
    "within" is "all", of one that is made in another module's __init__, which has arguments of its own.
    Loggers are told of them unless `hyperparameters_logged` is false. With `hyperparameters_changed` the first is
    another one by the end of __init__.
    `overrides`, of OVERRIDES, are hooks that the module has its own way; with `star_args` it takes the arguments of its
    batch hooks as `*args`, and so do the recording callbacks. `prepare_data_per_node` is the module's
    property of that name.
    """

    defines: Tuple[str, ...] = ()
    lacks: Tuple[str, ...] = ()
    returns: str = "tensor"
    eval_returns: str = ""
    ends_return: bool = False
    optimizer: str = "sgd"
    scheduler: str = "none"
    dtype: str = "float64"
    callbacks: Tuple[str, ...] = ()
    starts_in_eval: bool = False
    frozen: bool = False
    thaws: bool = False
    shared: bool = False
    layer_in_eval: bool = False
    layers_in_setup: bool = False
    halves: bool = False
    draws: bool = False
    logs: Tuple[Log, ...] = ()
    optimizers: int = 1
    frequencies: Tuple[int, ...] = ()
    groups: bool = False
    manual: bool = False
    closure: bool = False
    plain: bool = False
    truncated_bptt_steps: int = 0
    form: str = ""
    lr_dict: bool = True
    scheduler_frequency: int = 1
    second_frequency: int = 0
    scheduler_name: str = ""
    monitor: str = ""
    strict: bool = True
    own_plateau: bool = False
    second_plain: bool = False
    unheeded: str = ""
    overrides: Tuple[str, ...] = ()
    star_args: bool = False
    prepare_data_per_node: bool = True
    hyperparameters: str = ""
    hyperparameters_logged: bool = True
    hyperparameters_changed: bool = False

    @property
    def hparams(self) -> Tuple[str, ...]:
        """What it keeps of its arguments, "arg1=1"."""
        left_out = ("arg2",) if self.hyperparameters in ("names", "twice", "ignore") else ()
        kept = dict(ARGUMENTS, arg1=CHANGED) if self.hyperparameters_changed else ARGUMENTS
        return tuple("%s=%s" % (name, kept[name]) for name in sorted(kept) if name not in left_out)

    @property
    def returns_form(self) -> str:
        """The form of what `configure_optimizers` returns; "none" where there is no optimizer."""
        if self.form or self.optimizer == "none":
            return self.form or "none"
        if self.schedulers > self.optimizers:
            return "two-lists"
        one, many = ("dict", "dicts") if self.frequencies or self.scheduler != "none" else ("optimizer", "list")
        return one if self.optimizers == 1 else many

    @property
    def schedulers(self) -> int:
        """How many there are."""
        return {"none": 0, "mixed": 2}.get(self.scheduler, self.optimizers)

    def frequency_of(self, scheduler_idx: int) -> int:
        """At every so manieth update or epoch a scheduler steps."""
        return (self.second_frequency if scheduler_idx else 0) or self.scheduler_frequency

    def monitor_of(self, scheduler_idx: int) -> str:
        """What a scheduler monitors, if anything."""
        return "" if self.second_plain and scheduler_idx else self.monitor

    def interval(self, scheduler_idx: int) -> str:
        """What a scheduler steps by: "step" or "epoch"."""
        return self.scheduler if self.scheduler != "mixed" else ("step", "epoch")[scheduler_idx]

    def schedulers_of(self, optimizer_idx: int, interval: str) -> Tuple[int, ...]:
        """The numbers of those of an optimizer that step by the interval."""
        own = range(self.schedulers) if self.optimizers == 1 else (optimizer_idx,) * (self.schedulers > 0)
        return tuple(index for index in own if self.interval(index) == interval)

    @property
    def monitors_nothing(self) -> bool:
        """Whether the value that a strict scheduler is to be given is logged nowhere: then the fit ends."""
        return self.monitor not in ("", *self.names_logged) and self.strict

    @property
    def names_logged(self) -> Tuple[str, ...]:
        """Under which names something may be known."""
        return tuple(log.known_as + fork for log in self.logs for fork in ("", "_step", "_epoch"))
