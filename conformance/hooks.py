"""The names of the hooks, by who can have them: what a recorder wraps and a trace may hold.

Plain data for both halves; order as in the documentation.
"""

from __future__ import annotations

__all__ = [
    "ARGUMENTS",
    "CALLBACK_HOOKS",
    "CALLS",
    "CHECKPOINTS",
    "DATA_HOOKS",
    "EPOCH_ENDS",
    "HOOKS",
    "INIT_HOOKS",
    "LOADERS",
    "MODULE_HOOKS",
    "OWN_STEPS",
    "TRANSFERS",
    "WRITES",
]

LOADERS = ("train_dataloader", "val_dataloader", "test_dataloader", "predict_dataloader")
TRANSFERS = ("on_before_batch_transfer", "transfer_batch_to_device", "on_after_batch_transfer")
CHECKPOINTS = ("on_save_checkpoint", "on_load_checkpoint")
DATA_HOOKS = ("prepare_data", "setup", *LOADERS, *TRANSFERS, *CHECKPOINTS, "teardown")

# Recorded only where the scenario's module defines them: their presence changes what a trainer does.
OWN_STEPS = (
    "training_step",
    "training_step_end",
    "training_epoch_end",
    "validation_step",
    "validation_step_end",
    "validation_epoch_end",
    "test_step",
    "test_step_end",
    "test_epoch_end",
    "predict_step",
    *LOADERS,
)

CALLBACK_HOOKS = (
    "setup",
    "on_fit_start",
    "on_pretrain_routine_start",
    "on_pretrain_routine_end",
    "on_sanity_check_start",
    "on_sanity_check_end",
    "on_train_start",
    "on_epoch_start",
    "on_train_epoch_start",
    "on_train_batch_start",
    "on_before_zero_grad",
    "on_before_backward",
    "on_after_backward",
    "on_before_optimizer_step",
    "on_train_batch_end",
    "on_train_epoch_end",
    "on_epoch_end",
    "on_train_end",
    "on_fit_end",
    *(
        f"on_{stage}_{moment}"
        for stage in ("validation", "test", "predict")
        for moment in ("start", "epoch_start", "batch_start", "batch_end", "epoch_end", "end")
    ),
    "on_exception",
    *CHECKPOINTS,
    "teardown",
)

MODULE_HOOKS = (
    "configure_callbacks",
    "on_post_move_to_device",
    "configure_optimizers",
    *DATA_HOOKS,
    *(
        hook
        for hook in CALLBACK_HOOKS
        if hook not in DATA_HOOKS and "sanity" not in hook and hook != "on_exception"
    ),
    *OWN_STEPS[:10],
    "tbptt_split_batch",
    "optimizer_zero_grad",
    "backward",
    "optimizer_step",
    "add_to_queue",
    "get_from_queue",
    *(f"on_{stage}_model_{mode}" for stage in ("validation", "test", "predict") for mode in ("eval", "train")),
)

# Where it is recorded what the progress bar is to show.
EPOCH_ENDS = ("on_train_epoch_end", "on_validation_epoch_end", "on_test_epoch_end")

# Recorded of a module's own callback alone: the trainer's are initialized before there is anything to record.
INIT_HOOKS = ("on_init_start", "on_init_end")

# What a BasePredictionWriter has beside a callback's hooks.
WRITES = ("write_on_batch_end", "write_on_epoch_end")

# What the documentation calls the arguments of a hook, but for the trainer and module that callbacks get first.
ARGUMENTS = {
    **{hook: ("batch", "batch_idx", "dataloader_idx") for hook in ("validation_step", "test_step", "predict_step")},
    **{
        f"on_{stage}_batch_{moment}": ("outputs",) * (moment == "end") + ("batch", "batch_idx", "dataloader_idx")
        for stage in ("train", "validation", "test", "predict")
        for moment in ("start", "end")
    },
    "training_step": ("batch", "batch_idx", "optimizer_idx", "hiddens"),
    "tbptt_split_batch": ("batch", "split_size"),
    "on_before_batch_transfer": ("batch", "dataloader_idx"),
    "transfer_batch_to_device": ("batch", "device", "dataloader_idx"),
    "on_after_batch_transfer": ("batch", "dataloader_idx"),
    "on_before_zero_grad": ("optimizer",),
    "optimizer_zero_grad": ("epoch", "batch_idx", "optimizer", "optimizer_idx"),
    "on_before_backward": ("loss",),
    "backward": ("loss", "optimizer", "optimizer_idx"),
    "on_before_optimizer_step": ("optimizer", "optimizer_idx"),
    "optimizer_step": (
        *("epoch", "batch_idx", "optimizer", "optimizer_idx", "optimizer_closure"),
        *("on_tpu", "using_native_amp", "using_lbfgs"),
    ),
    "on_predict_epoch_end": ("results",),
    "write_on_batch_end": ("prediction", "batch_indices", "batch", "batch_idx", "dataloader_idx"),
    "write_on_epoch_end": ("predictions", "batch_indices"),
    "setup": ("stage",),
    "teardown": ("stage",),
}

# Spans of receivers that have no hooks: the calls of the user, and what optimizers and schedulers do.
CALLS = (
    *("fit", "validate", "test", "predict", "save_checkpoint", "step"),
    *("freeze", "unfreeze", "load_from_checkpoint"),
)

HOOKS = tuple(dict.fromkeys((*MODULE_HOOKS, *CALLBACK_HOOKS, *INIT_HOOKS, *WRITES, *CALLS)))
