"""Optimization: the optimizers of a fit, whose turn it is, what a batch's gradients go through, and the schedules."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from .errors import ConfigurationError, warn
from .hooks import Hooks
from .optimizers.configured import Schedule, Turns, configured_optimizers, foreign_parameters
from .optimizers.gradients import WithheldGradients, check_finite, track_grad_norm
from .optimizers.precision import LossScaler
from .optimizers.tbptt import checked_splits, hiddens_of
from .saving.optimizers import load_optimizer
from .saving.shape import fitting
from .trainer.options import Options
from .types import LightningModule

__all__ = ["Optimization", "OptimizerBlock"]


class Optimization:
    """The optimizers of one fit, and where they are.

    `blocks` are those of the epoch that runs, one for each optimizer that trains on it, and empty between epochs.
    `metrics` returns the logged values, which schedulers may react to.
    """

    def __init__(
        self, module: LightningModule, hooks: Hooks, options: Options, scaler: LossScaler | None,
        metrics: Callable[[], Mapping[str, Any]]
    ) -> None:  # fmt: skip
        self.module, self.hooks, self.options, self.scaler, self.metrics = module, hooks, options, scaler, metrics
        self.optimizers: list[Optimizer] = []
        self.schedules: list[Schedule] = []
        self.has_plateaus = False  # schedules per step that react to a logged value
        self.turns: Turns | None = None  # where optimizers have frequencies
        self.blocks: list[OptimizerBlock] = []
        self.outputs: list[Any] = []  # of this epoch, for training_epoch_end
        self.several = False  # several optimizers, which the loops step
        self.keeps_outputs = self.nests = False
        self.window, self.split_size = 1, 0  # batches, in the epoch that runs; the length of a truncated piece
        self.split_idx, self.is_last_split = 0, True  # which piece it is; whether an update may follow it
        self._pieces: list[list[Any]] = []  # the outputs of this batch: of each piece, of each block
        self._toggled: OptimizerBlock | None = None
        self._resumed: Mapping[str, Any] | None = None

    def configure(self, configured: Any) -> None:
        """Take what `configure_optimizers` returned.

        Raises ConfigurationError for anything but the documented forms, for options that manual optimization cannot
        have, and for a `training_step` that has no parameter for what it is going to be given.
        """
        automatic = self.module.automatic_optimization
        if automatic not in (True, False):
            raise ConfigurationError(f"automatic_optimization is {automatic!r}; True or False is accepted")
        self.optimizers, self.turns, self.schedules = configured_optimizers(configured, automatic)
        for problem in foreign_parameters(self.module, self.optimizers):
            warn(problem)
        self.has_plateaus = any(each.reduce_on_plateau and each.interval == "step" for each in self.schedules)
        self.several = automatic and len(self.optimizers) > 1
        steps = self.module.truncated_bptt_steps
        if type(steps) is not int or steps < 0:
            raise ConfigurationError(f"truncated_bptt_steps is {steps!r}; an int from 1 is accepted, or 0 for none")
        self.split_size = steps
        if not automatic:
            self._check_manual()
        self._check_training_step()

    def _check_manual(self) -> None:
        options = {
            "accumulate_grad_batches": set(self.options.accumulate_grad_batches.values()) != {1},
            "gradient_clip_val": self.options.gradient_clip_val,
            "track_grad_norm": self.options.track_grad_norm,
        }
        for option, given in options.items():
            if given:
                raise ConfigurationError(f"{option} acts on automatic optimization only, but "
                                         f"{type(self.module).__name__} has automatic_optimization = False: do it in "
                                         "its training_step")  # fmt: skip

    def _check_training_step(self) -> None:
        given = ["batch", "batch_idx"]
        given += ["optimizer_idx"] if self.several else []
        given += ["hiddens"] if self.split_size else []
        try:
            signature = inspect.signature(self.module.training_step)
        except (TypeError, ValueError):  # a builtin or extension function tells nothing: trust it
            return
        try:
            signature.bind(*given)
        except TypeError:
            optimizers = "several optimizers" if self.several else "at most one optimizer"
            automatic = self.module.automatic_optimization
            why = f"configure_optimizers returned {optimizers}" if automatic else "it is manual"
            raise ConfigurationError(
                f"training_step{signature} is called as training_step({', '.join(given)}), by position, since {why}"
                + (f" and truncated_bptt_steps is {self.split_size}" if self.split_size else "")
            ) from None

    # ---- an epoch, a batch ---------------------------------------------------------------------------------

    def begin_epoch(self, window: int) -> None:
        """A training epoch begins, in which `window` batches make an update."""
        self.outputs, self.window = [], window
        self.blocks = [OptimizerBlock(self, i, window) for i in range(len(self.optimizers) if self.several else 1)]
        self.keeps_outputs = bool(self.hooks.on_train_batch_end or self.hooks.training_epoch_end)
        self.nests = self.several or self.split_size > 0  # pieces, or blocks

    def end_epoch(self) -> None:
        """It is over: nothing of its batches is kept."""
        self.blocks, self.outputs, self._pieces, self._resumed = [], [], [], None
        if self.turns:
            self.turns.end()

    def abandon(self) -> None:
        """The run is over, wherever it was: every parameter requires gradients as the user had it, and has them. What
        the epoch came to can be saved."""
        self._untoggle()
        self._pieces = []
        for block in self.blocks:
            block.restore()

    def splits(self, batch: Any) -> Iterator[Any]:
        """The pieces of a batch, with truncated_bptt_steps. A window of several batches is updated with its last
        piece; without accumulation every piece is."""
        splits = checked_splits(self.hooks.tbptt_split_batch(batch, self.split_size))
        for block in self.blocks:
            block.begin_sequence()
        for self.split_idx, split in enumerate(splits):
            self.is_last_split = self.blocks[0].window == 1 or self.split_idx == len(splits) - 1
            if self.keeps_outputs:
                self._pieces.append([])
            yield split

    def blocks_in_turn(self) -> Iterator[OptimizerBlock]:
        """Of several optimizers, each one's block, or, with frequencies, that of the one whose window it is; within it
        only its parameters require gradients."""
        if self.keeps_outputs and not self.split_size:
            self._pieces.append([])
        if self.turns and self.turns.owner is None:
            self.turns.next()
        for block in self.blocks if self.turns is None else [self.blocks[self.turns.owner or 0]]:
            self._toggled = block
            self.module.toggle_optimizer(block.optimizer, block.optimizer_idx)
            yield block
            self._untoggle()

    def _untoggle(self) -> None:
        block, self._toggled = self._toggled, None
        if block is not None:
            self.module.untoggle_optimizer(block.optimizer_idx)

    def keep_output(self, output: Any) -> None:
        """A batch is done, for training_epoch_end."""
        self.outputs.append(output)

    def collect(self, output: Any) -> None:
        """One of several blocks or pieces of a batch made this output."""
        self._pieces[-1].append(output)

    def collected(self, updates: bool) -> Any:
        """The batch's output: a list with one of each optimizer, of each piece, None in the place of one that made
        none; if none did, None. A window that the batch closes is its owner's last."""
        pieces, self._pieces = self._pieces, []
        if self.turns and updates:
            self.turns.end()
        each = [outputs[0] if self.turns or not self.several else _listed(outputs) for outputs in pieces]
        return _listed(each) if self.split_size else each[0] if each else None

    # ---- schedules -----------------------------------------------------------------------------------------

    def step_schedules(self, interval: str, optimizer_idx: int | None = None) -> None:
        """After an update of an optimizer ("step"), or at the end of an epoch ("epoch"): step the schedules
        whose turn it is. An epoch without a turn of their optimizer does not count. With manual optimization
        they are the user's to step."""
        if not self.module.automatic_optimization:
            return
        if optimizer_idx is not None:
            concerned: set[int] | range = {optimizer_idx}
        else:
            concerned = self.turns.of_epoch() if self.turns else range(len(self.optimizers))
        for schedule in self.schedules:
            if schedule.interval != interval or schedule.optimizer_idx not in concerned:
                continue
            if schedule.comes_due():
                schedule.step(self.metrics() if schedule.reduce_on_plateau else {})

    def step_plateaus(self) -> None:
        """At the end of a batch: step the schedules of interval "step" that react to a value, if its updates made it
        their turn."""
        for schedule in self.schedules:
            if schedule.is_due:
                schedule.step(self.metrics())

    # ---- checkpoints ---------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """The states of optimizers, schedules and the loss scaler, whose turn it is; within an epoch, what is
        accumulated, and what its steps have returned."""
        state: dict[str, Any] = {
            "optimizer_states": [optimizer.state_dict() for optimizer in self.optimizers],
            "lr_schedulers": [schedule.state_dict() for schedule in self.schedules],
            "scaler": self.scaler and self.scaler.scaler.state_dict(),
            "turns": self.turns and self.turns.state_dict(),
        }
        if self.blocks:
            empty = [block.is_empty for block in self.blocks]
            kept = not self.module.automatic_optimization or not all(empty)
            parameters = self.module.named_parameters() if kept else ()
            state["epoch"] = {
                "empty_windows": empty,
                "outputs": _plain(self.outputs),
                "gradients": {name: p.grad for name, p in parameters if p.grad is not None},
            }
        return state

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from there; what is in the midst of an epoch waits for `rejoin`. Raises CheckpointError for what an
        optimizer or a scheduler does not take."""
        for index, (optimizer, saved) in enumerate(zip(self.optimizers, state["optimizer_states"])):
            with fitting(f"optimizer_states[{index}]", f"the optimizer {type(optimizer).__name__}"):
                load_optimizer(optimizer, saved)
        for index, (schedule, saved) in enumerate(zip(self.schedules, state["lr_schedulers"])):
            with fitting(f"lr_schedulers[{index}].state", type(schedule.scheduler).__name__):
                schedule.load_state_dict(saved)
        if self.scaler and state["scaler"]:
            self.scaler.scaler.load_state_dict(state["scaler"])
        if self.turns and state["turns"]:
            self.turns.load_state_dict(state["turns"])
        self._resumed = state.get("epoch", {})

    def rejoin(self, batches_done: int) -> None:
        """The epoch in which the checkpoint was saved goes on after so many batches. A window of which none is done
        begins anew, whatever the batch at hand had left in its gradients."""
        state, self._resumed = self._resumed, None
        if not state:
            return
        self.outputs.extend(state["outputs"])
        if batches_done % self.window or not self.module.automatic_optimization:
            for block, is_empty in zip(self.blocks, state["empty_windows"]):
                block.is_empty = is_empty
            parameters = dict(self.module.named_parameters())
            for name, gradient in state["gradients"].items():
                parameters[name].grad = gradient.to(parameters[name].device)
        self.step_plateaus()  # of the last batch done, if it was saved before they had


class OptimizerBlock:
    """One optimizer in one epoch: what the lines from training_step to optimizer_step need to know of it.

    `window` batches are accumulated: all of them run through the lines up to on_after_backward, but for
    zero_grad, which only the first needs that makes gradients; the last one through the others, too.
    """

    def __init__(self, optimization: Optimization, optimizer_idx: int, window: int) -> None:
        options, scaler = optimization.options, optimization.scaler
        self.hooks, self.module, self.options, self.scaler = optimization.hooks, optimization.module, options, scaler
        self.optimizer_idx, self.window = optimizer_idx, window
        automatic = self.module.automatic_optimization and optimization.optimizers
        self.optimizer: Any = optimization.optimizers[optimizer_idx] if automatic else None
        self.arguments: tuple[Any, ...] = (optimizer_idx,) if optimization.several else ()  # of training_step
        self.sequence = self.arguments  # with truncated_bptt_steps, those but hiddens
        self.is_empty = True  # the next gradients are the window's first: with windows of one batch, always
        #: on_tpu, using_native_amp, using_lbfgs
        self.flags = (False, options.precision in (16, "bf16"), isinstance(self.optimizer, torch.optim.LBFGS))
        # What a batch without any of this need not ask for.
        self.prepares = window > 1 or scaler is not None or options.terminate_on_nan
        clips = options.gradient_clip_val or self.hooks.configure_gradient_clipping
        self.finishes = bool(clips or options.track_grad_norm or window > 1 or scaler)
        self.withheld: WithheldGradients | None = None
        self._evaluated = False

    def begin_sequence(self) -> None:
        """The next pieces are those of another batch, which begins without hidden states."""
        self.arguments = (*self.sequence, None)

    def hand_on(self, output: Any) -> None:
        """The next piece is given the hidden states of this one."""
        self.arguments = (*self.sequence, hiddens_of(output))

    def prepared(self, loss: Tensor | None) -> Tensor | None:
        """The loss that backward is given: a window's share of it, scaled in float16.

        Raises ValueError for one that is not finite, with terminate_on_nan; ConfigurationError for None in float16,
        and for an optimizer that evaluates its closure again: of a window it would see the last batch only.
        """
        if self._evaluated:
            option = f"accumulate_grad_batches={self.window}" if self.window > 1 else "precision=16"
            raise ConfigurationError(f"{type(self.optimizer).__name__} evaluates its closure more than once per step, "
                                     f"which does not go together with {option}")  # fmt: skip
        if loss is None:
            if self.scaler:
                self.scaler.refuse_none()
            return None
        if self.options.terminate_on_nan:
            check_finite(self.module, loss)
        if self.window > 1:
            loss = loss / self.window
        return self.scaler.scale(loss) if self.scaler else loss

    def open_window(self) -> None:
        """Its gradients are cleared, and begin to be accumulated."""
        self.is_empty = False

    def withhold(self) -> None:
        """The optimizer finds no gradients in this step, and changes nothing."""
        self.withheld = WithheldGradients(self.optimizer)

    def finish_gradients(self) -> bool:
        """What comes between `on_before_optimizer_step` and the update: norms, then clipping. Returns whether the
        update follows: in float16, one whose gradients have overflowed is skipped."""
        options, hooks = self.options, self.hooks
        if options.track_grad_norm:
            track_grad_norm(self.module, options.track_grad_norm)
        if options.gradient_clip_val or hooks.configure_gradient_clipping:
            clip = hooks.configure_gradient_clipping or self.module.configure_gradient_clipping
            clip(self.optimizer, self.optimizer_idx, options.gradient_clip_val or None, options.gradient_clip_algorithm)
        self._evaluated = self.window > 1 or self.scaler is not None
        if self.scaler and self.scaler.found_inf:
            self.withhold()
            return False
        return True

    def end_step(self) -> None:
        """`optimizer_step` has ended; the next batch opens another window.

        Raises ValueError for a parameter that is not finite, with terminate_on_nan."""
        self.is_empty, self._evaluated = True, False
        if self.scaler:
            self.scaler.after_step()
        if self.options.terminate_on_nan:
            check_finite(self.module)
        self.restore()

    def restore(self) -> None:
        """The gradients that were withheld are back."""
        if self.withheld:
            self.withheld.restore()
            self.withheld = None


def _listed(outputs: list[Any]) -> list[Any] | None:
    return outputs if any(output is not None for output in outputs) else None


def _plain(outputs: list[Any]) -> list[Any]:
    """The outputs that `training_epoch_end` waits for; none, with a warning, if they are more than data."""
    outputs = [_with_lists(output) for output in outputs]
    if all(map(_is_plain, outputs)):
        return outputs
    warn(
        "a checkpoint in mid-epoch cannot keep what training_step returned, since it is more than tensors, numbers, "
        "strings and containers of these: after resuming, training_epoch_end is given the later outputs only"
    )
    return []


def _with_lists(value: Any) -> Any:
    """A list of any kind, such as the parts of a batch, as a list."""
    if type(value) is dict:
        return {key: _with_lists(item) for key, item in value.items()}
    if isinstance(value, list) or type(value) is tuple:
        return (tuple if type(value) is tuple else list)(map(_with_lists, value))
    return value


def _is_plain(value: Any) -> bool:
    if type(value) is dict:
        return all(_is_plain(key) and _is_plain(item) for key, item in value.items())
    if type(value) in (list, tuple):
        return all(map(_is_plain, value))
    return value is None or type(value) in (bool, int, float, str, Tensor, nn.Parameter)
