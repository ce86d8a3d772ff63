"""fit, train_on_device, train_loop, val_loop: the documentation's pseudocode, line for line.

`if hooks.x: hooks.x()` reads "x()": `hooks.x` is None where nobody overrides x, and then nothing is
called; what stands without an `if` has a documented default. The lines from training_step to
on_before_optimizer_step are `OptimizerBlock.closure`: `optimizer_step` is handed them to run inside.
A test holds the hook calls of this file against the documentation's, line by line.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from .data import predict_dataloader, test_dataloader, train_dataloader, val_dataloader
from .devices import detach, parallel
from .optimization import WithheldGradients, attach_optimizers, loss_of, step_schedules, toggled
from .plan import epochs, sanity_check_batches, should_check_val, should_leave_epoch

if TYPE_CHECKING:
    from .trainer import Trainer

# ---- fit ---------------------------------------------------------------------------------------------


def fit(trainer: Trainer) -> None:
    hooks = trainer.hooks
    if trainer.global_rank == 0:
        # prepare data is called on GLOBAL_ZERO only
        if hooks.prepare_data: hooks.prepare_data()

    if hooks.configure_callbacks: trainer.add_callbacks(hooks.configure_callbacks())

    with parallel(trainer):
        train_on_device(trainer)


def train_on_device(trainer: Trainer) -> None:
    # called PER DEVICE
    hooks = trainer.hooks
    if hooks.on_fit_start: hooks.on_fit_start()
    if hooks.setup: hooks.setup("fit")
    trainer.move_module()
    attach_optimizers(trainer, hooks.configure_optimizers())

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

    outputs: list[Any] = []
    optimize = optimizer_blocks(trainer)
    for batch_idx, batch in train_dataloader(trainer):
        logbook.batch = batch
        if hooks.on_train_batch_start and hooks.on_train_batch_start(batch, batch_idx, 0) == -1:
            break  # skips the rest of the epoch

        if hooks.on_before_batch_transfer: batch = hooks.on_before_batch_transfer(batch, 0)
        batch = hooks.transfer_batch_to_device(batch, trainer.device, 0)
        if hooks.on_after_batch_transfer: batch = hooks.on_after_batch_transfer(batch, 0)

        output = optimize(batch, batch_idx)

        if hooks.on_train_batch_end: hooks.on_train_batch_end(output, batch, batch_idx, 0)
        if hooks.training_epoch_end and output is not None: outputs.append(output)

        if should_check_val(trainer, batch_idx):
            val_loop(trainer)
        trainer.global_step += 1
        if should_leave_epoch(trainer): break
    # end training epoch
    logbook.end_epoch()
    if hooks.training_epoch_end: hooks.training_epoch_end(outputs)

    if hooks.on_train_epoch_end: hooks.on_train_epoch_end()
    if hooks.on_epoch_end: hooks.on_epoch_end()
    if trainer.schedules: step_schedules(trainer, "epoch")
    logbook.next_epoch()


def optimizer_blocks(trainer: Trainer) -> Callable[[Any, int], Any]:
    """What trains on one batch and returns the output: one optimizer's block; with several, each one's in
    turn and a list of the outputs; with frequencies, that of the one whose batch it is."""
    if len(trainer.optimizers) < 2:
        return OptimizerBlock(trainer).run
    blocks = [OptimizerBlock(trainer, optimizer_idx) for optimizer_idx in range(len(trainer.optimizers))]

    def whose_turn_it_is(batch: Any, batch_idx: int) -> Any:
        assert trainer.turns is not None
        return blocks[trainer.turns.next()].run_toggled(batch, batch_idx)

    def each_in_turn(batch: Any, batch_idx: int) -> Any:
        outputs = [block.run_toggled(batch, batch_idx) for block in blocks]
        return outputs if any(output is not None for output in outputs) else None

    return whose_turn_it_is if trainer.turns else each_in_turn


class OptimizerBlock:
    """The lines of one batch and optimizer from training_step to optimizer_step; one object serves an epoch."""

    def __init__(self, trainer: Trainer, optimizer_idx: int = 0) -> None:
        self.trainer, self.hooks, self.optimizer_idx = trainer, trainer.hooks, optimizer_idx
        self.optimizer = trainer.optimizers[optimizer_idx] if trainer.optimizers else None
        self.arguments = (optimizer_idx,) if len(trainer.optimizers) > 1 else ()
        self.keep_output = bool(self.hooks.on_train_batch_end or self.hooks.training_epoch_end)
        self.withheld: WithheldGradients | None = None
        lbfgs = isinstance(self.optimizer, torch.optim.LBFGS)
        self.flags = (False, trainer.use_amp, lbfgs)  # on_tpu, using_native_amp, using_lbfgs

    def run_toggled(self, batch: Any, batch_idx: int) -> Any:
        """`run`, in which only this optimizer's parameters require gradients."""
        with toggled(self.trainer, self.optimizer_idx):
            return self.run(batch, batch_idx)

    def run(self, batch: Any, batch_idx: int) -> Any:
        """Train on one batch; returns the step's output, detached, or None if it made none."""
        trainer = self.trainer
        self.batch, self.batch_idx = batch, batch_idx
        self.output, self.withheld, self.updates = None, None, False
        if self.optimizer is None:
            self.training_step()
        else:
            self.hooks.optimizer_step(
                trainer.current_epoch, batch_idx, self.optimizer, self.optimizer_idx, self.closure, *self.flags
            )
        if self.withheld: self.withheld.restore()
        if self.updates and trainer.schedules: step_schedules(trainer, "step", self.optimizer_idx)
        return detach(self.output) if self.keep_output else None

    def closure(self) -> Tensor:
        """What optimizer_step is given as `optimizer_closure`."""
        hooks, optimizer, optimizer_idx = self.hooks, self.optimizer, self.optimizer_idx
        assert optimizer is not None
        loss = self.training_step()
        if loss is None:
            self.withheld = WithheldGradients(optimizer)
            return torch.zeros(())

        if hooks.on_before_zero_grad: hooks.on_before_zero_grad(optimizer)
        hooks.optimizer_zero_grad(self.trainer.current_epoch, self.batch_idx, optimizer, optimizer_idx)

        if hooks.on_before_backward: hooks.on_before_backward(loss)
        hooks.backward(loss, optimizer, optimizer_idx)
        if hooks.on_after_backward: hooks.on_after_backward()

        if hooks.on_before_optimizer_step: hooks.on_before_optimizer_step(optimizer, optimizer_idx)
        self.updates = True
        return loss

    def training_step(self) -> Tensor | None:
        """The loss of the batch; its output is kept for the hooks."""
        output = self.hooks.training_step(self.batch, self.batch_idx, *self.arguments)
        if self.hooks.training_step_end: output = self.hooks.training_step_end(output)
        self.output = output
        return loss_of(output)


# ---- validate, test, predict: setup, the loop in the manner of val_loop, teardown ---------------------


def evaluate(trainer: Trainer) -> Any:
    hooks = trainer.hooks
    if trainer.global_rank == 0:
        if hooks.prepare_data: hooks.prepare_data()

    if hooks.configure_callbacks: trainer.add_callbacks(hooks.configure_callbacks())

    with parallel(trainer):
        return evaluate_on_device(trainer, str(trainer.state.fn))


def evaluate_on_device(trainer: Trainer, stage: str) -> Any:
    hooks = trainer.hooks
    if hooks.setup: hooks.setup(stage)
    trainer.move_module()
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
