"""fit, train_on_device, train_loop, val_loop: the documentation's pseudocode, line for line.

`if hooks.x: hooks.x()` reads "x()": `hooks.x` is None where nobody overrides x, and then nothing is
called; what stands without an `if` has a documented default. The lines from training_step to
on_before_optimizer_step are `OptimizerBlock.closure`: `optimizer_step` is handed them to run inside.
A test holds the hook calls of this file against the documentation's, line by line.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from .callback_list import add_callbacks
from .data import predict_dataloader, test_dataloader, train_dataloader, val_dataloader
from .devices import detach, parallel
from .errors import ConfigurationError
from .gradients import WithheldGradients, check_finite, finish_gradients
from .optimization import attach_optimizers, loss_of, step_plateaus, step_schedules
from .plan import closes_window, epochs, sanity_check_batches, should_check_val, should_leave_epoch
from .saving.checkpoint import restore_module, restore_training
from .tbptt import checked_splits, hiddens_of, steps_of
from .types import Trainer

# ---- fit ---------------------------------------------------------------------------------------------


def fit(trainer: Trainer) -> None:
    hooks = trainer.hooks
    if trainer.global_rank == 0:
        # prepare data is called on GLOBAL_ZERO only
        if hooks.prepare_data: hooks.prepare_data()

    if hooks.configure_callbacks: add_callbacks(trainer, hooks.configure_callbacks())

    with parallel(trainer):
        train_on_device(trainer)


def train_on_device(trainer: Trainer) -> None:
    # called PER DEVICE
    hooks = trainer.hooks
    if hooks.on_fit_start: hooks.on_fit_start()
    if hooks.setup: hooks.setup("fit")
    trainer.move_module()
    if hooks.on_post_move_to_device: hooks.on_post_move_to_device()
    restore_module(trainer)
    attach_optimizers(trainer, hooks.configure_optimizers())
    restore_training(trainer)

    if hooks.on_pretrain_routine_start: hooks.on_pretrain_routine_start()
    if hooks.on_pretrain_routine_end: hooks.on_pretrain_routine_end()

    # the sanity check runs here
    if sanity_check_batches(trainer) != 0:
        sanity_check(trainer)

    trainer.module.train()
    trainer.open("train")
    if hooks.on_train_start: hooks.on_train_start()
    for trainer.current_epoch in epochs(trainer):
        train_loop(trainer)
    if hooks.on_train_end: hooks.on_train_end()
    trainer.close()

    if hooks.on_fit_end: hooks.on_fit_end()
    trainer.finish()
    if hooks.teardown: hooks.teardown("fit")


def sanity_check(trainer: Trainer) -> None:
    hooks = trainer.hooks
    if hooks.on_sanity_check_start: hooks.on_sanity_check_start()
    val_loop(trainer, at_most=sanity_check_batches(trainer), stage="sanity_check")
    if hooks.on_sanity_check_end: hooks.on_sanity_check_end()


def train_loop(trainer: Trainer) -> None:
    hooks, logbook = trainer.hooks, trainer.logbook
    if hooks.on_epoch_start: hooks.on_epoch_start()
    if hooks.on_train_epoch_start: hooks.on_train_epoch_start()

    trainer.outputs = outputs = []  # which a checkpoint keeps, too
    window = trainer.accumulate_grad_batches
    optimize = optimizer_blocks(trainer, window)
    for batch_idx, batch in train_dataloader(trainer):
        logbook.batch = batch
        if hooks.on_train_batch_start and hooks.on_train_batch_start(batch, batch_idx, 0) == -1:
            break  # skips the rest of the epoch

        if hooks.on_before_batch_transfer: batch = hooks.on_before_batch_transfer(batch, 0)
        batch = hooks.transfer_batch_to_device(batch, trainer.device, 0)
        if hooks.on_after_batch_transfer: batch = hooks.on_after_batch_transfer(batch, 0)

        trainer.updates = window == 1 or closes_window(trainer, batch_idx, window)
        output = optimize(batch, batch_idx)
        if hooks.training_epoch_end and output is not None: outputs.append(output)
        trainer.batches_done, trainer.uncounted = batch_idx + 1, trainer.updates

        if hooks.on_train_batch_end: hooks.on_train_batch_end(output, batch, batch_idx, 0)
        if logbook.publisher: logbook.publisher.step()

        if should_check_val(trainer, batch_idx):
            val_loop(trainer)
        if trainer.has_plateaus: step_plateaus(trainer)
        trainer.global_step += trainer.updates
        trainer.uncounted = False
        if trainer.saves_due: trainer.save_due()
        if should_leave_epoch(trainer): break
    # end training epoch
    logbook.end_epoch()
    if hooks.training_epoch_end: hooks.training_epoch_end(outputs)

    if hooks.on_train_epoch_end: hooks.on_train_epoch_end()
    if hooks.on_epoch_end: hooks.on_epoch_end()
    if trainer.schedules: step_schedules(trainer, "epoch")
    logbook.next_epoch()


def optimizer_blocks(trainer: Trainer, window: int) -> Callable[[Any, int], Any]:
    """What trains on one batch and returns the output: one optimizer's block, or those of several."""
    module, optimizers = trainer.module, trainer.optimizers
    split_size = steps_of(trainer)
    several = len(optimizers) > 1 and module.automatic_optimization
    trainer.blocks = blocks = [OptimizerBlock(trainer, window, i) for i in range(len(optimizers) if several else 1)]
    if trainer.turns and not trainer.resuming: trainer.turns.owner = None
    return OptimizerBlocks(trainer, blocks, split_size).run if several or split_size else blocks[0].run_block


class OptimizerBlocks:
    """Several blocks for each batch: each optimizer's in turn, or, with frequencies, that of the one whose
    window it is; with truncated_bptt_steps, on one piece of the batch after the other."""

    def __init__(self, trainer: Trainer, blocks: list[OptimizerBlock], split_size: int) -> None:
        self.trainer, self.blocks, self.split_size, self.turns = trainer, blocks, split_size, trainer.turns

    def run(self, batch: Any, batch_idx: int) -> Any:
        """Train on one batch; returns the output, or a list with one of each block or piece."""
        if self.turns and self.turns.owner is None: self.turns.next()
        output = (self.piece_by_piece if self.split_size else self.each_in_turn)(batch, batch_idx)
        if self.turns and self.trainer.updates: self.turns.owner = None
        return output

    def each_in_turn(self, batch: Any, batch_idx: int) -> Any:
        if self.turns and self.turns.owner is not None: return self.blocks[self.turns.owner].run_toggled(batch, batch_idx)
        if len(self.blocks) == 1: return self.blocks[0].run_block(batch, batch_idx)
        return listed([block.run_toggled(batch, batch_idx) for block in self.blocks])

    def piece_by_piece(self, batch: Any, batch_idx: int) -> Any:
        """A window of several batches is updated with its last piece; without accumulation every piece is."""
        trainer, outputs = self.trainer, []
        for block in self.blocks: block.begin_sequence()
        splits = checked_splits(trainer.hooks.tbptt_split_batch(batch, self.split_size))
        closes = trainer.updates
        for number, split in enumerate(splits, 1):
            trainer.split_idx = number - 1
            trainer.updates = closes and (self.blocks[0].window == 1 or number == len(splits))
            outputs.append(self.each_in_turn(split, batch_idx))
        return listed(outputs)


def listed(outputs: list[Any]) -> list[Any] | None:
    """Outputs of several blocks or pieces, None in the place of one that made none; if none did, None."""
    return outputs if any(output is not None for output in outputs) else None


class OptimizerBlock:
    """The lines of one batch and optimizer from training_step to optimizer_step; one object serves an epoch.

    `window` batches are accumulated: all of them run through the lines up to on_after_backward, but for
    zero_grad, which only the first needs that makes gradients; the last one through the others, too.
    """

    def __init__(self, trainer: Trainer, window: int, optimizer_idx: int = 0) -> None:
        self.trainer, self.hooks, self.optimizer_idx = trainer, trainer.hooks, optimizer_idx
        self.automatic = automatic = trainer.module.automatic_optimization
        self.finishes = bool(trainer.track_grad_norm or trainer.gradient_clip_val)
        self.optimizer = trainer.optimizers[optimizer_idx] if trainer.optimizers and automatic else None
        self.arguments: tuple[Any, ...] = (optimizer_idx,) if automatic and len(trainer.optimizers) > 1 else ()
        self.keep_output = bool(self.hooks.on_train_batch_end or self.hooks.training_epoch_end)
        self.withheld: WithheldGradients | None = None
        self.window, self.is_empty = window, True  # no batch of it has made gradients yet
        self.sequence: tuple[Any, ...] | None = None  # with truncated_bptt_steps, the arguments but hiddens
        lbfgs = isinstance(self.optimizer, torch.optim.LBFGS)
        self.flags = (False, trainer.use_amp, lbfgs)  # on_tpu, using_native_amp, using_lbfgs

    def begin_sequence(self) -> None:
        """The next pieces are those of another batch, which begins without hidden states."""
        if self.sequence is None: self.sequence = self.arguments
        self.arguments = (*self.sequence, None)

    def run_toggled(self, batch: Any, batch_idx: int) -> Any:
        """`run_block`, in which only this optimizer's parameters require gradients."""
        module = self.trainer.module
        assert self.optimizer is not None  # it is one of several
        module.toggle_optimizer(self.optimizer, self.optimizer_idx)
        try: return self.run_block(batch, batch_idx)
        finally: module.untoggle_optimizer(self.optimizer_idx)

    def run_block(self, batch: Any, batch_idx: int) -> Any:
        """Train on one batch; returns the step's output, detached, or None if it made none."""
        trainer = self.trainer
        self.batch, self.batch_idx = batch, batch_idx
        self.output, self.withheld, self.updates = None, None, False
        if self.optimizer is None or not trainer.updates:
            self.accumulate()
        else:
            self.hooks.optimizer_step(
                trainer.current_epoch, batch_idx, self.optimizer, self.optimizer_idx, self.closure, *self.flags
            )
            self.is_empty = True
            if trainer.scaler: trainer.scaler.after_step()
            if trainer.terminate_on_nan: check_finite(trainer.module)
        if self.withheld: self.withheld.restore()
        if self.updates and trainer.schedules: step_schedules(trainer, "step", self.optimizer_idx)
        if self.sequence is not None and self.output is not None:
            self.arguments = (*self.sequence, hiddens_of(self.output))
        return detach(self.output) if self.keep_output else None

    def closure(self) -> Tensor:
        """What optimizer_step is given as `optimizer_closure`."""
        hooks, optimizer, optimizer_idx, trainer = self.hooks, self.optimizer, self.optimizer_idx, self.trainer
        assert optimizer is not None
        if self.updates: self.check_evaluated_again()
        loss = self.accumulate()
        if self.is_empty:
            self.withheld = WithheldGradients(optimizer)
            return torch.zeros(())

        if trainer.scaler: trainer.scaler.unscale(optimizer)
        if hooks.on_before_optimizer_step: hooks.on_before_optimizer_step(optimizer, optimizer_idx)
        if self.finishes: finish_gradients(trainer, optimizer)
        self.updates = True
        if trainer.scaler and trainer.scaler.found_inf:
            self.updates, self.withheld = False, WithheldGradients(optimizer)  # this step is skipped
        return torch.zeros(()) if loss is None else loss

    def accumulate(self) -> Tensor | None:
        """The lines up to on_after_backward: the batch's gradients are added to those of its window."""
        hooks, optimizer, optimizer_idx, trainer = self.hooks, self.optimizer, self.optimizer_idx, self.trainer
        output = hooks.training_step(self.batch, self.batch_idx, *self.arguments)
        if hooks.training_step_end: output = hooks.training_step_end(output)
        self.output = output
        loss = loss_of(output) if self.automatic else None
        if trainer.terminate_on_nan and loss is not None: check_finite(trainer.module, loss)
        if optimizer is None: return None
        if loss is None:
            if trainer.scaler: trainer.scaler.refuse_none()
            return None

        if self.is_empty or self.window == 1:
            if hooks.on_before_zero_grad: hooks.on_before_zero_grad(optimizer)
            hooks.optimizer_zero_grad(trainer.current_epoch, self.batch_idx, optimizer, optimizer_idx)
            self.is_empty = False

        if self.window > 1: loss = loss / self.window
        if trainer.scaler: loss = trainer.scaler.scale(loss)
        if hooks.on_before_backward: hooks.on_before_backward(loss)
        hooks.backward(loss, optimizer, optimizer_idx)
        if hooks.on_after_backward: hooks.on_after_backward()
        return loss

    def check_evaluated_again(self) -> None:
        """LBFGS and its like evaluate their closure anew: of a window they would see the last batch only."""
        if self.window > 1 or self.trainer.scaler:
            option = f"accumulate_grad_batches={self.window}" if self.window > 1 else "precision=16"
            raise ConfigurationError(
                f"{type(self.optimizer).__name__} evaluates its closure more than once per step, which does not go "
                f"together with {option}"
            )


# ---- validate, test, predict: setup, the loop in the manner of val_loop, teardown ---------------------


def evaluate(trainer: Trainer) -> Any:
    hooks = trainer.hooks
    if trainer.global_rank == 0:
        if hooks.prepare_data: hooks.prepare_data()

    if hooks.configure_callbacks: add_callbacks(trainer, hooks.configure_callbacks())

    with parallel(trainer):
        return evaluate_on_device(trainer, str(trainer.state.fn))


def evaluate_on_device(trainer: Trainer, stage: str) -> Any:
    hooks = trainer.hooks
    if hooks.setup: hooks.setup(stage)
    trainer.move_module()
    if hooks.on_post_move_to_device: hooks.on_post_move_to_device()
    restore_module(trainer)
    loop = {"validate": val_loop, "test": test_loop, "predict": predict_loop}[stage]
    results = loop(trainer)
    trainer.finish()
    if hooks.teardown: hooks.teardown(stage)
    return results


def val_loop(trainer: Trainer, at_most: int | None = None, stage: str = "validate") -> list[dict[str, float]]:
    hooks, logbook = trainer.hooks, trainer.logbook
    trainer.open(stage)
    hooks.on_validation_model_eval()  # calls `model.eval()`
    torch.set_grad_enabled(False)

    if hooks.on_validation_start: hooks.on_validation_start()
    if hooks.on_epoch_start: hooks.on_epoch_start()
    if hooks.on_validation_epoch_start: hooks.on_validation_epoch_start()

    outputs: list[Any] = []
    for dataloader_idx, batches, arguments in val_dataloader(trainer, at_most):
        outputs.append([])
        for batch_idx, batch in batches:
            logbook.batch = batch
            if hooks.on_validation_batch_start: hooks.on_validation_batch_start(batch, batch_idx, dataloader_idx)

            if hooks.on_before_batch_transfer: batch = hooks.on_before_batch_transfer(batch, dataloader_idx)
            batch = hooks.transfer_batch_to_device(batch, trainer.device, dataloader_idx)
            if hooks.on_after_batch_transfer: batch = hooks.on_after_batch_transfer(batch, dataloader_idx)

            output = hooks.validation_step(batch, batch_idx, *arguments)
            if hooks.validation_step_end: output = hooks.validation_step_end(output)

            if hooks.on_validation_batch_end: hooks.on_validation_batch_end(output, batch, batch_idx, dataloader_idx)
            if hooks.validation_epoch_end and output is not None: outputs[dataloader_idx].append(output)
            if logbook.publisher: logbook.publisher.step()
    logbook.end_epoch()
    if hooks.validation_epoch_end: hooks.validation_epoch_end(by_loader(outputs))

    if hooks.on_validation_epoch_end: hooks.on_validation_epoch_end()
    if hooks.on_epoch_end: hooks.on_epoch_end()
    if hooks.on_validation_end: hooks.on_validation_end()

    # set up for train
    hooks.on_validation_model_train()  # calls `model.train()`
    torch.set_grad_enabled(True)
    return trainer.close()


def test_loop(trainer: Trainer) -> list[dict[str, float]]:
    hooks, logbook = trainer.hooks, trainer.logbook
    trainer.open("test")
    hooks.on_test_model_eval()  # calls `model.eval()`
    torch.set_grad_enabled(False)

    if hooks.on_test_start: hooks.on_test_start()
    if hooks.on_epoch_start: hooks.on_epoch_start()
    if hooks.on_test_epoch_start: hooks.on_test_epoch_start()

    outputs: list[Any] = []
    for dataloader_idx, batches, arguments in test_dataloader(trainer):
        outputs.append([])
        for batch_idx, batch in batches:
            logbook.batch = batch
            if hooks.on_test_batch_start: hooks.on_test_batch_start(batch, batch_idx, dataloader_idx)

            if hooks.on_before_batch_transfer: batch = hooks.on_before_batch_transfer(batch, dataloader_idx)
            batch = hooks.transfer_batch_to_device(batch, trainer.device, dataloader_idx)
            if hooks.on_after_batch_transfer: batch = hooks.on_after_batch_transfer(batch, dataloader_idx)

            output = hooks.test_step(batch, batch_idx, *arguments)
            if hooks.test_step_end: output = hooks.test_step_end(output)

            if hooks.on_test_batch_end: hooks.on_test_batch_end(output, batch, batch_idx, dataloader_idx)
            if hooks.test_epoch_end and output is not None: outputs[dataloader_idx].append(output)
            if logbook.publisher: logbook.publisher.step()
    logbook.end_epoch()
    if hooks.test_epoch_end: hooks.test_epoch_end(by_loader(outputs))

    if hooks.on_test_epoch_end: hooks.on_test_epoch_end()
    if hooks.on_epoch_end: hooks.on_epoch_end()
    if hooks.on_test_end: hooks.on_test_end()

    hooks.on_test_model_train()  # calls `model.train()`
    torch.set_grad_enabled(True)
    return trainer.close()


def by_loader(outputs: list[list[Any]]) -> list[Any]:
    """What `*_epoch_end` receives: one list, or with several loaders a list of one list for each."""
    return outputs[0] if len(outputs) == 1 else outputs


def predict_loop(trainer: Trainer) -> list[list[Any]]:
    hooks = trainer.hooks
    trainer.open("predict")
    hooks.on_predict_model_eval()  # calls `model.eval()`
    torch.set_grad_enabled(False)

    if hooks.on_predict_start: hooks.on_predict_start()
    if hooks.on_predict_epoch_start: hooks.on_predict_epoch_start()

    keep = trainer.return_predictions or hooks.on_predict_epoch_end
    results: list[list[Any]] = []
    for dataloader_idx, batches, arguments in predict_dataloader(trainer):
        results.append([])
        for batch_idx, batch in batches:
            if hooks.on_predict_batch_start: hooks.on_predict_batch_start(batch, batch_idx, dataloader_idx)

            if hooks.on_before_batch_transfer: batch = hooks.on_before_batch_transfer(batch, dataloader_idx)
            batch = hooks.transfer_batch_to_device(batch, trainer.device, dataloader_idx)
            if hooks.on_after_batch_transfer: batch = hooks.on_after_batch_transfer(batch, dataloader_idx)

            output = hooks.predict_step(batch, batch_idx, *arguments)

            if hooks.on_predict_batch_end: hooks.on_predict_batch_end(output, batch, batch_idx, dataloader_idx)
            if keep: results[dataloader_idx].append(output)
    if hooks.on_predict_epoch_end: hooks.on_predict_epoch_end(results)
    if hooks.on_predict_end: hooks.on_predict_end()

    hooks.on_predict_model_train()  # calls `model.train()`
    torch.set_grad_enabled(True)
    trainer.close()
    return results
