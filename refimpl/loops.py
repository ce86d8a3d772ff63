"""fit, train_on_device, train_loop, val_loop: the documentation's pseudocode, line for line.

`if hooks.x: hooks.x()` reads "x()": `hooks.x` is None where nobody overrides x, and then nothing is
called; what stands without an `if` is required, or has a documented default. The lines from training_step to
optimizer_step are `train_batch`: `optimizer_step` is handed those before it to run inside, so that what
ends first stands first. A test holds the hook calls of this file against the documentation's, line by line.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .devices import parallel
from .loaders.batches import detach
from .optimizers.gradients import loss_of
from .run import Run

# ---- fit ---------------------------------------------------------------------------------------------


def fit(run: Run) -> None:
    hooks = run.hooks
    if run.devices.global_rank == 0:
        # prepare data is called on GLOBAL_ZERO only
        if hooks.prepare_data: hooks.prepare_data()

    if hooks.configure_callbacks: run.receivers.add(hooks.configure_callbacks())

    with parallel(run.devices):
        train_on_device(run)


def train_on_device(run: Run) -> None:
    # called PER DEVICE
    hooks = run.hooks
    if hooks.on_fit_start: hooks.on_fit_start()
    if hooks.setup: hooks.setup("fit")
    run.devices.place(run.module)
    if hooks.on_post_move_to_device: hooks.on_post_move_to_device()
    run.restore_module()
    run.optimization.configure(hooks.configure_optimizers())
    run.restore_training()

    if hooks.on_pretrain_routine_start: hooks.on_pretrain_routine_start()
    if hooks.on_pretrain_routine_end: hooks.on_pretrain_routine_end()

    # the sanity check runs here
    if run.sanity_check_batches != 0:
        sanity_check(run)

    run.module.train()
    run.open("train")
    if hooks.on_train_start: hooks.on_train_start()
    for _ in run.epochs():
        train_loop(run)
    if hooks.on_train_end: hooks.on_train_end()
    run.close()

    if hooks.on_fit_end: hooks.on_fit_end()
    run.finish()
    if hooks.teardown: hooks.teardown("fit")


def sanity_check(run: Run) -> None:
    hooks = run.hooks
    if hooks.on_sanity_check_start: hooks.on_sanity_check_start()
    with run.data.looking():
        val_loop(run, at_most=run.sanity_check_batches, stage="sanity_check")
    if hooks.on_sanity_check_end: hooks.on_sanity_check_end()


def train_loop(run: Run) -> None:
    hooks, progress, optimization, logbook = run.hooks, run.progress, run.optimization, run.logbook
    device = run.devices.device
    if hooks.on_epoch_start: hooks.on_epoch_start()
    if hooks.on_train_epoch_start: hooks.on_train_epoch_start()

    optimization.begin_epoch(progress.window)
    for batch_idx, batch in run.train_dataloader():
        if hooks.on_train_batch_start and hooks.on_train_batch_start(batch, batch_idx, 0) == -1:
            break  # skips the rest of the epoch

        if hooks.on_before_batch_transfer: batch = hooks.on_before_batch_transfer(batch, 0)
        batch = hooks.transfer_batch_to_device(batch, device, 0)
        if hooks.on_after_batch_transfer: batch = hooks.on_after_batch_transfer(batch, 0)

        output = train_batch(run, batch, batch_idx)
        if hooks.training_epoch_end and output is not None: optimization.keep_output(output)
        progress.batch_is_trained()

        if hooks.on_train_batch_end: hooks.on_train_batch_end(output, batch, batch_idx, 0)
        if logbook.publisher: logbook.publish_step()

        if run.data.validates and progress.should_check_val():
            val_loop(run)
        if optimization.has_plateaus: optimization.step_plateaus()
    # end training epoch
    logbook.end_epoch()
    if hooks.training_epoch_end: hooks.training_epoch_end(optimization.outputs)

    if hooks.on_train_epoch_end: hooks.on_train_epoch_end()
    if hooks.on_epoch_end: hooks.on_epoch_end()
    if optimization.schedules: optimization.step_schedules("epoch")
    logbook.next_epoch()


def train_batch(run: Run, batch: Any, batch_idx: int) -> Any:
    """The lines from training_step to optimizer_step, for each piece of the batch and each optimizer.

    Returns the batch's output, detached: that of training_step, None if it made none, a list of several. A closure is
    for its own `optimizer_step`, and not for later.
    """
    hooks, optimization, epoch = run.hooks, run.optimization, run.progress.current_epoch
    for split in optimization.splits(batch) if optimization.split_size else (batch,):  # by truncated_bptt_steps
        updates = run.progress.updates and optimization.is_last_split
        for block in optimization.blocks_in_turn() if optimization.several else optimization.blocks:
            optimizer, optimizer_idx, output, updated = block.optimizer, block.optimizer_idx, None, False

            def closure() -> Tensor | None:
                nonlocal output, updated
                output = hooks.training_step(split, batch_idx, *block.arguments)
                if hooks.training_step_end: output = hooks.training_step_end(output)
                if optimizer is None: return None  # manual optimization does it all itself; or there is nothing to do
                loss = output if output.__class__ is Tensor else loss_of(output)
                if block.prepares: loss = block.prepared(loss)

                if loss is not None:
                    if block.is_empty:  # the first gradients of its window
                        if hooks.on_before_zero_grad: hooks.on_before_zero_grad(optimizer)
                        hooks.optimizer_zero_grad(epoch, batch_idx, optimizer, optimizer_idx)
                        if block.window > 1: block.open_window()

                    if hooks.on_before_backward: hooks.on_before_backward(loss)
                    hooks.backward(loss, optimizer, optimizer_idx)
                    if hooks.on_after_backward: hooks.on_after_backward()

                if updates and (loss is not None or not block.is_empty):
                    if block.scaler: block.scaler.unscale(optimizer)
                    if hooks.on_before_optimizer_step: hooks.on_before_optimizer_step(optimizer, optimizer_idx)
                    updated = not block.finishes or block.finish_gradients()
                elif updates:
                    block.withhold()  # nothing was trained on, and nothing changes
                return loss if loss is not None else torch.zeros(())  # a number, which LBFGS wants

            if updates and optimizer is not None:
                hooks.optimizer_step(epoch, batch_idx, optimizer, optimizer_idx, closure, *block.flags)
                if block.prepares or block.withheld: block.end_step()
            else:
                closure()  # accumulates, or trains by hand
            if updated and optimization.schedules: optimization.step_schedules("step", optimizer_idx)
            if optimization.split_size and output is not None: block.hand_on(output)
            output = detach(output) if optimization.keeps_outputs else None
            if optimization.nests and optimization.keeps_outputs: optimization.collect(output)
    return optimization.collected(run.progress.updates) if optimization.nests else output


# ---- validate, test, predict: setup, the loop in the manner of val_loop, teardown ---------------------


def evaluate(run: Run) -> Any:
    hooks = run.hooks
    if run.devices.global_rank == 0:
        if hooks.prepare_data: hooks.prepare_data()

    if hooks.configure_callbacks: run.receivers.add(hooks.configure_callbacks())

    with parallel(run.devices):
        return evaluate_on_device(run, str(run.progress.state.fn))


def evaluate_on_device(run: Run, stage: str) -> Any:
    hooks = run.hooks
    if hooks.setup: hooks.setup(stage)
    run.devices.place(run.module)
    if hooks.on_post_move_to_device: hooks.on_post_move_to_device()
    run.restore_module()
    loop = {"validate": val_loop, "test": test_loop, "predict": predict_loop}[stage]
    results = loop(run)
    run.finish()
    if hooks.teardown: hooks.teardown(stage)
    return results


def val_loop(run: Run, at_most: int | None = None, stage: str = "validate") -> list[dict[str, float]]:
    hooks, logbook, device = run.hooks, run.logbook, run.devices.device
    run.open(stage)
    hooks.on_validation_model_eval()  # calls `model.eval()`
    torch.set_grad_enabled(False)

    if hooks.on_validation_start: hooks.on_validation_start()
    if hooks.on_epoch_start: hooks.on_epoch_start()
    if hooks.on_validation_epoch_start: hooks.on_validation_epoch_start()

    outputs: list[Any] = []
    for dataloader_idx, batches, arguments in run.val_dataloader(at_most):
        outputs.append([])
        for batch_idx, batch in batches:
            if hooks.on_validation_batch_start: hooks.on_validation_batch_start(batch, batch_idx, dataloader_idx)

            if hooks.on_before_batch_transfer: batch = hooks.on_before_batch_transfer(batch, dataloader_idx)
            batch = hooks.transfer_batch_to_device(batch, device, dataloader_idx)
            if hooks.on_after_batch_transfer: batch = hooks.on_after_batch_transfer(batch, dataloader_idx)

            output = hooks.validation_step(batch, batch_idx, *arguments)
            if hooks.validation_step_end: output = hooks.validation_step_end(output)

            if hooks.on_validation_batch_end: hooks.on_validation_batch_end(output, batch, batch_idx, dataloader_idx)
            if hooks.validation_epoch_end and output is not None: outputs[dataloader_idx].append(output)
            if logbook.publisher: logbook.publish_step()
    logbook.end_epoch()
    if hooks.validation_epoch_end: hooks.validation_epoch_end(by_loader(outputs))

    if hooks.on_validation_epoch_end: hooks.on_validation_epoch_end()
    if hooks.on_epoch_end: hooks.on_epoch_end()
    if hooks.on_validation_end: hooks.on_validation_end()

    # set up for train
    hooks.on_validation_model_train()  # calls `model.train()`
    torch.set_grad_enabled(True)
    return run.close()


def test_loop(run: Run) -> list[dict[str, float]]:
    hooks, logbook, device = run.hooks, run.logbook, run.devices.device
    run.open("test")
    hooks.on_test_model_eval()  # calls `model.eval()`
    torch.set_grad_enabled(False)

    if hooks.on_test_start: hooks.on_test_start()
    if hooks.on_epoch_start: hooks.on_epoch_start()
    if hooks.on_test_epoch_start: hooks.on_test_epoch_start()

    outputs: list[Any] = []
    for dataloader_idx, batches, arguments in run.test_dataloader():
        outputs.append([])
        for batch_idx, batch in batches:
            if hooks.on_test_batch_start: hooks.on_test_batch_start(batch, batch_idx, dataloader_idx)

            if hooks.on_before_batch_transfer: batch = hooks.on_before_batch_transfer(batch, dataloader_idx)
            batch = hooks.transfer_batch_to_device(batch, device, dataloader_idx)
            if hooks.on_after_batch_transfer: batch = hooks.on_after_batch_transfer(batch, dataloader_idx)

            output = hooks.test_step(batch, batch_idx, *arguments)
            if hooks.test_step_end: output = hooks.test_step_end(output)

            if hooks.on_test_batch_end: hooks.on_test_batch_end(output, batch, batch_idx, dataloader_idx)
            if hooks.test_epoch_end and output is not None: outputs[dataloader_idx].append(output)
            if logbook.publisher: logbook.publish_step()
    logbook.end_epoch()
    if hooks.test_epoch_end: hooks.test_epoch_end(by_loader(outputs))

    if hooks.on_test_epoch_end: hooks.on_test_epoch_end()
    if hooks.on_epoch_end: hooks.on_epoch_end()
    if hooks.on_test_end: hooks.on_test_end()

    hooks.on_test_model_train()  # calls `model.train()`
    torch.set_grad_enabled(True)
    return run.close()


def by_loader(outputs: list[list[Any]]) -> list[Any]:
    """What `*_epoch_end` receives: one list, or with several loaders a list of one list for each."""
    return outputs[0] if len(outputs) == 1 else outputs


def predict_loop(run: Run) -> list[list[Any]]:
    hooks, device = run.hooks, run.devices.device
    run.open("predict")
    hooks.on_predict_model_eval()  # calls `model.eval()`
    torch.set_grad_enabled(False)

    if hooks.on_predict_start: hooks.on_predict_start()
    if hooks.on_predict_epoch_start: hooks.on_predict_epoch_start()

    keep = run.return_predictions or hooks.on_predict_epoch_end
    results: list[list[Any]] = []
    for dataloader_idx, batches, arguments in run.predict_dataloader():
        results.append([])
        for batch_idx, batch in batches:
            if hooks.on_predict_batch_start: hooks.on_predict_batch_start(batch, batch_idx, dataloader_idx)

            if hooks.on_before_batch_transfer: batch = hooks.on_before_batch_transfer(batch, dataloader_idx)
            batch = hooks.transfer_batch_to_device(batch, device, dataloader_idx)
            if hooks.on_after_batch_transfer: batch = hooks.on_after_batch_transfer(batch, dataloader_idx)

            output = hooks.predict_step(batch, batch_idx, *arguments)

            if hooks.on_predict_batch_end: hooks.on_predict_batch_end(output, batch, batch_idx, dataloader_idx)
            if keep: results[dataloader_idx].append(output)
    if hooks.on_predict_epoch_end: hooks.on_predict_epoch_end(results)
    if hooks.on_predict_end: hooks.on_predict_end()

    hooks.on_predict_model_train()  # calls `model.train()`
    torch.set_grad_enabled(True)
    run.close()
    return results
