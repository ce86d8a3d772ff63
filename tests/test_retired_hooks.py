"""Hooks that the period was retiring: called with a warning, or refused with what to write instead."""

from __future__ import annotations

import inspect
import re
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest
from models import Line, pairs, quiet
from releases import named

from conformance.worlds import RELEASES, ReleaseMissing, locate
from refimpl import Callback, HookError, LightningDataModule, LightningModule
from refimpl.dispatch import CALLBACK_HOOKS, MODULE_HOOKS, fitted, resolve
from refimpl.period.retired_hooks import SPELLINGS
from tests.assets.names import names_of


def test_batch_hooks_are_called_around_todays() -> None:
    class Retired(Callback):
        def on_batch_start(self, trainer: Any, pl_module: Any) -> None:
            calls.append("on_batch_start")

        def on_batch_end(self, trainer: Any, pl_module: Any) -> None:
            calls.append("on_batch_end")

    class Today(Callback):
        def on_train_batch_start(self, *_: Any) -> None:
            calls.append("on_train_batch_start")

        def on_train_batch_end(self, *_: Any) -> None:
            calls.append("on_train_batch_end")

    class Noting(Line):
        def training_step(self, batch: Any, batch_idx: int) -> Any:
            calls.append("training_step")
            return self.loss(batch)

    calls: list[str] = []
    with (
        pytest.warns(DeprecationWarning, match="Retired.on_batch_start is deprecated; use on_train_batch_start"),
        pytest.warns(DeprecationWarning, match="Retired.on_batch_end is deprecated; use on_train_batch_end"),
    ):
        quiet(limit_val_batches=1, callbacks=[Today(), Retired()]).fit(Noting(), pairs(2), pairs(1))
    one = ["on_batch_start", "on_train_batch_start", "training_step", "on_train_batch_end", "on_batch_end"]
    assert calls == one * 2


@pytest.mark.parametrize("error, expected", [
    (KeyboardInterrupt(), ["on_keyboard_interrupt", "on_exception"]), (ValueError(), ["on_exception"]),
])  # fmt: skip
def test_on_keyboard_interrupt_is_called_for_that_only(error: BaseException, expected: list[str]) -> None:
    class Retired(Callback):
        def on_keyboard_interrupt(self, trainer: Any, pl_module: Any) -> None:
            assert pl_module is module and trainer.interrupted
            calls.append("on_keyboard_interrupt")

        def on_exception(self, *_: Any) -> None:
            calls.append("on_exception")

    class Interrupted(Line):
        def training_step(self, batch: Any, batch_idx: int) -> Any:
            raise error

    calls: list[str] = []
    module, trainer = Interrupted(), quiet(limit_val_batches=0, callbacks=Retired())
    ends = pytest.raises(ValueError) if isinstance(error, ValueError) else pytest.warns(UserWarning, match="interrupt")
    with ends, pytest.warns(DeprecationWarning, match="on_keyboard_interrupt is deprecated; use on_exception"):
        trainer.fit(module, pairs(1))
    assert calls == expected


@pytest.mark.parametrize("hook", sorted(SPELLINGS.called))
def test_those_of_a_module_are_told_not_to_be_called(hook: str) -> None:
    module = type("Old", (Line,), {hook: lambda self: calls.append(hook)})()
    calls: list[str] = []
    with pytest.warns(UserWarning, match=rf"{hook} is a hook of Callback: Old\.{hook} is not called"):
        quiet(limit_val_batches=0).fit(module, pairs(1))
    assert not calls


def test_one_that_was_set_to_none_is_none() -> None:
    callback = Callback()
    callback.on_batch_start = None  # type: ignore[attr-defined]
    quiet(limit_val_batches=0, callbacks=callback).fit(Line(), pairs(1))


@pytest.mark.parametrize("hook", sorted(SPELLINGS.refused))
@pytest.mark.parametrize("owner", [Line, Callback, LightningDataModule])
def test_what_nothing_calls_is_refused(owner: Any, hook: str) -> None:
    receiver = type("Old", (owner,), {hook: lambda self, *args: None})()
    if hasattr(owner, hook):
        return  # as state_dict of a module
    module = receiver if owner is Line else Line()
    trainer = quiet(limit_val_batches=0, callbacks=receiver if owner is Callback else None)
    data: Any = {"datamodule": receiver} if owner is LightningDataModule else {"train_dataloaders": pairs(1)}
    use = re.escape(SPELLINGS.refused[hook])
    with pytest.raises(HookError, match=rf"^Old\.{hook} is a hook of other releases, which is not called; use {use}$"):
        trainer.fit(module, **data)


# ---- the hooks of the releases --------------------------------------------------------------------------------------

BASES: dict[str, Any] = {
    "LightningModule": LightningModule, "Callback": Callback, "LightningDataModule": LightningDataModule
}  # fmt: skip
OWNERS = pytest.mark.parametrize("owner", BASES)
# No hooks: whoever defines one calls it.
METHODS = set(
    "all_gather clip_gradients from_compiled get_init_arguments_and_types grad_norm load_from_checkpoint "
    "load_from_metrics manual_optimizer_step parse_argparser predict remove_ignored_hparams size summarize to_tensorrt "
    "to_uncompiled toggled_optimizer write_prediction write_prediction_dict".split()
)


def resolved(owner: str, hook: str) -> list[str]:
    """What is said of a method of that name."""
    receiver = type("Users", (BASES[owner],), {hook: lambda self: None})()
    module = receiver if owner == "LightningModule" else Line()
    data = receiver if owner == "LightningDataModule" else None
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        try:
            resolve(None, module, data, [receiver] if owner == "Callback" else [], SPELLINGS)
        except HookError as error:
            return [str(error)]
    return [str(each.message) for each in warned]


@OWNERS
def test_every_hook_of_every_release_is_called_or_told_not_to_be(owner: str) -> None:
    called = {hook for hook, _ in named(owner) if hasattr(BASES[owner], hook)}
    called |= set(SPELLINGS.called) if owner == "Callback" else set()
    others = {hook for hook, _ in named(owner)} - called - METHODS
    assert len(called) > 15
    told = {hook: resolved(owner, hook) for hook in others}
    silent = {hook for hook, said in told.items() if not any(f"Users.{hook} is" in each for each in said)}
    assert silent == set() and not any("no hook" in each for said in told.values() for each in said)


def test_the_table_is_of_names_that_a_release_had() -> None:
    hooks = [(hook, argument) for owner in BASES for hook, arguments in named(owner) for argument in ("", *arguments)]
    assert {(hook, "") for hook in (*SPELLINGS.called, *SPELLINGS.refused)} <= set(hooks)
    assert {hook for hook, argument in SPELLINGS.arguments if (hook, argument) not in hooks} == {
        "on_test_epoch_end", "on_validation_epoch_end"
    }


# Other names for what a hook is given in the same place.
SAME = {
    ("dataloader_idx", "unused"), ("optimizer_idx", "opt_idx"), ("optimizer_closure", "second_order_closure"),
    ("output", "step_output"), ("results", "outputs"), ("callback_state", "checkpoint"),
}  # fmt: skip


@OWNERS
def test_with_the_arguments_of_any_release_a_hook_is_given_what_they_say_or_refused(owner: str) -> None:
    base, refused = BASES[owner], set()
    for hook, names in named(owner):
        if hook not in {*MODULE_HOOKS, *CALLBACK_HOOKS, "on_save_checkpoint", "on_load_checkpoint"} & {*dir(base)}:
            continue

        def method(*given: Any) -> tuple[Any, ...]:
            return given

        parameters = [inspect.Parameter(name, inspect.Parameter.POSITIONAL_OR_KEYWORD) for name in names]
        method.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        offered = [name for name in inspect.signature(getattr(base, hook)).parameters if name not in ("args", "kwargs")]
        try:
            given = fitted(method, hook, base)(*offered[1:])
        except HookError:
            refused.add(f"{hook}({', '.join(names)})".replace("trainer, pl_module", "..."))
            continue
        assert len(given) == len(names) and {pair for pair in zip(given, names) if pair[0] != pair[1]} <= SAME
    stages = ("train", "validation", "test")
    batch_ends = {f"on_{stage}_batch_end(..., batch, batch_idx, dataloader_idx)" for stage in stages}
    assert refused == {
        "LightningModule": {
            *(each.replace("..., ", "") for each in batch_ends),
            "on_train_epoch_end(outputs)", "on_train_epoch_end(unused)",  # which there had a default
            "backward(trainer, loss, optimizer, optimizer_idx)",
            "configure_gradient_clipping(optimizer, gradient_clip_val, gradient_clip_algorithm)",
            "optimizer_step(epoch, batch_idx, optimizer, optimizer_closure)",
            "optimizer_step(epoch, batch_idx, optimizer, optimizer_idx, optimizer_closure, on_tpu, using_lbfgs)",
        },
        "Callback": {
            *batch_ends, "on_train_epoch_end(..., outputs)", "on_train_epoch_end(..., unused)",
            "on_save_checkpoint(...)", "on_load_checkpoint(callback_state)", "on_load_checkpoint(checkpointed_state)",
        },
        "LightningDataModule": set(),
    }[owner]  # fmt: skip


@pytest.mark.parametrize("name", list(RELEASES))
def test_the_list_of_names_is_what_the_release_has(name: str) -> None:
    try:
        folders = [*locate(name).paths, *map(Path, sys.path)]
    except ReleaseMissing as missing:
        pytest.skip(str(missing))
    package = next(folder for folder in folders if (folder / "pytorch_lightning").is_dir()) / "pytorch_lightning"
    found = names_of({path.as_posix(): path.read_text(encoding="utf-8") for path in package.rglob("*.py")})
    owners = {name.rpartition(".")[0] for name in found}
    release = name.partition("@")[2]
    listed = {owner: dict(named(owner, release, release)) for owner in owners}
    assert found == {f"{owner}.{end}": arguments for owner in owners for end, arguments in listed[owner].items()}
