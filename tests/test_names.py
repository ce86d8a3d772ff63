"""Names that are nearly a hook's, or another's: refused or warned of, unless nobody can mean a hook by them."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator
from itertools import product
from typing import Any

import pytest

from refimpl import Callback, EarlyStopping, HookError, LightningDataModule, LightningModule
from refimpl.dispatch import CALLBACK_HOOKS, DATA_HOOKS, MODULE_HOOKS
from refimpl.names import Spellings, check_names

HOOKS = {LightningModule: MODULE_HOOKS, LightningDataModule: DATA_HOOKS, Callback: CALLBACK_HOOKS}
BASES = pytest.mark.parametrize("base", HOOKS)
# Words between which people, libraries and releases choose.
CHOICES = [
    group.split()
    for group in (
        "start begin", "end finish", "step batch", "train training", "val validation validate eval",
        "predict prediction", "optimizer optimizers", "dataloader dataloaders data_loader data_loaders",
    )
]  # fmt: skip


def nothing(self: Any, *args: Any) -> None: ...


def check(base: type, *names: str, spellings: Spellings = Spellings()) -> None:  # noqa: B008
    check_names(type("Mine", (base,), dict.fromkeys(names, nothing))(), HOOKS, spellings)


def respellings(hook: str) -> Iterator[str]:
    """The hook's name in every combination of the words."""
    words = ([*next((group for group in CHOICES if word in group), [word])] for word in hook.split("_"))
    return ("_".join(chosen) for chosen in product(*words) if "_".join(chosen) != hook)


@BASES
def test_every_respelling_of_every_hook_is_refused_with_that_hook_named(base: type) -> None:
    told, expected = {}, {name: hook for hook in HOOKS[base] for name in respellings(hook)}
    assert len(expected) > 30
    for name in expected:
        with pytest.raises(HookError) as refused:
            check(base, name)
        told[name] = re.findall(rf"^Mine\.{name} is no hook .* did you mean (\w+)\?", str(refused.value))
    assert told == {name: [hook] for name, hook in expected.items()}


@pytest.mark.parametrize("name, meant", [
    ("training_setp", "training_step"), ("trainning_step", "training_step"),
    ("predicts_step", "predict_step"),
    ("configure_optimizer", "configure_optimizers"), ("train_dataloaders", "train_dataloader"),
    ("on_train_epoch_ends", "on_train_epoch_end"), ("on_training_start", "on_train_start"),
    ("val_step", "validation_step"), ("on_val_epoch_end", "on_validation_epoch_end"),
    ("val_epoch_end", "validation_epoch_end"), ("train_epoch_end", "training_epoch_end"), ("set_up", "setup"),
    ("save_hyperparameter", "save_hyperparameters"), ("add_to_que", "add_to_queue"),
    ("on_val_bacth_end", "on_validation_batch_end"), ("on_validation_bacth_begin", "on_validation_batch_start"),
    ("on_train_begn", "on_train_start"), ("on_trainepoch_end", "on_train_epoch_end"),
    ("on_sanity_check_begin", "on_sanity_check_start"), ("train_epoch_start", "on_train_epoch_start"),
])  # fmt: skip
def test_a_misspelt_hook_is_an_error_with_the_nearest_name(name: str, meant: str) -> None:
    with pytest.raises(HookError, match=rf"Mine\.{name} is no hook .* did you mean {meant}\?"):
        check(LightningModule, name)


@BASES
@pytest.mark.parametrize("name", [
    "_training_step", "_val_step", "compute_metrics", "configure_losses", "configure_model_parts",
    "configure_schedulers", "evaluate", "forward_features", "freeze_layers", "get_train_dataloader", "log_images",
    "logs", "loss", "make_optimizer", "on_gpu", "on_my_own", "on_save", "predict", "predict_one", "predict_proba",
    "prepare_batch", "setup_model", "shared_step", "step", "test_accuracy", "test_data", "test_set",
    "train_data_size", "train_dataset", "train_loader", "train_one", "train_set", "train_transforms", "training_loss",
    "val_loader", "validate", "validate_inputs", "validation_metrics",
])  # fmt: skip
def test_a_helper_may_have_any_other_name(base: type, name: str) -> None:
    check(base, name)


@pytest.mark.parametrize("helper, hook", [
    ("train_step", "training_step"), ("val_step", "validation_step"), ("eval_step", "validation_step"),
    ("predict_batch", "predict_step"), ("on_epoch_begin", "on_epoch_start"),
])  # fmt: skip
def test_a_helper_may_be_called_as_a_hook_is_elsewhere_beside_that_hook(helper: str, hook: str) -> None:
    check(LightningModule, helper, hook)
    on_instance = type("Mine", (LightningModule,), {helper: nothing})()
    setattr(on_instance, hook, nothing)
    check_names(on_instance, HOOKS)
    module: Any = type("Mine", (LightningModule,), {helper: nothing, hook: None})()
    with pytest.raises(HookError, match=rf"Mine\.{helper} .* did you mean {hook}\?"):
        check_names(module, HOOKS)


def test_a_hook_of_a_ready_made_callback_is_not_the_users() -> None:
    own: Any = type("Mine", (EarlyStopping,), {"on_validation_finish": nothing})
    with pytest.raises(HookError, match=r"Mine\.on_validation_finish .* did you mean on_validation_end\?"):
        check_names(own("loss"), HOOKS)


@BASES
def test_hooks_of_others_are_warned_of(base: type) -> None:
    others = {hook for hooks in HOOKS.values() for hook in hooks if not hasattr(base, hook)}
    assert others
    for hook in others:
        with pytest.warns(UserWarning, match=rf"^{hook} is a hook of \w+: Mine\.{hook} is not called$"):
            check(base, hook)
    with pytest.warns(UserWarning, match="on_exception is a hook of Callback"):
        check(LightningModule, "on_exception")


def test_one_object_may_be_a_module_and_a_callback() -> None:
    class Both(LightningModule, Callback):
        def on_exception(self, *args: Any) -> None: ...

        def training_step(self, batch: Any, batch_idx: int) -> Any: ...

    check_names(Both(), HOOKS)


# ---- spellings of other releases --------------------------------------------------------------------------------

OLD = Spellings(
    called={"on_batch_start": "on_train_batch_start"},
    refused={"tng_dataloader": "train_dataloader"},
    arguments={("on_train_epoch_end", "outputs"): "ask for it", ("on_load_checkpoint", "checkpoint"): "use the state"},
)


@BASES
def test_a_refused_name_is_told_what_to_use(base: type) -> None:
    told = r"^Mine\.tng_dataloader is a hook of other releases, which is not called; use train_dataloader$"
    with pytest.raises(HookError, match=told):
        check(base, "tng_dataloader", spellings=OLD)


def test_a_name_that_is_called_is_a_callbacks() -> None:
    check(Callback, "on_batch_start", spellings=OLD)
    with pytest.warns(UserWarning, match=r"on_batch_start is a hook of Callback: Mine\.on_batch_start is not called"):
        check(LightningModule, "on_batch_start", spellings=OLD)
    for base in (Callback, LightningModule):
        with pytest.raises(HookError, match=r"Mine\.on_batch_begin .* did you mean on_train_batch_start\?"):
            check(base, "on_batch_begin", spellings=OLD)


def test_an_argument_that_is_not_given_is_warned_of_where_the_hook_has_none_of_the_name() -> None:
    class Outputs(LightningModule):
        def on_train_epoch_end(self, outputs: Any = None) -> None: ...

        def on_load_checkpoint(self, checkpoint: Any) -> None: ...

    class Loading(Callback):
        def on_load_checkpoint(self, trainer: Any, pl_module: Any, checkpoint: Any) -> None: ...

    with pytest.warns(UserWarning) as told:
        check_names(Outputs(), HOOKS, OLD)
        check_names(Loading(), HOOKS, OLD)
    assert [str(each.message) for each in told] == [
        "Outputs.on_train_epoch_end takes 'outputs', which it is not given; ask for it",
        "Loading.on_load_checkpoint takes 'checkpoint', which it is not given; use the state",
    ]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_names(Outputs(), HOOKS)
