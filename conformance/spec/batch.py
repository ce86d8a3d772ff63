"""The lines of a training batch that the pseudocode names or leaves out: from optimizer to optimizer, from piece to
piece, and what becomes of the outputs. [R<n>] are rows of `docs/interpretations.md`."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from .optimization import Optimization
from .oracle import UserError
from .state import Events

__all__ = ["Batch"]


class Batch(Optimization):
    """What `train_loop` does with a batch between the transfer hooks and `on_train_batch_end`."""

    def optimizer_blocks(self, where: dict[str, Any]) -> Events:
        """The block of each optimizer [R7]; with frequencies that of the one whose window it is, so many
        each, from one epoch into the next [R19]; with truncated_bptt_steps on each piece of the batch [R40]."""
        if self.s.model.manual:
            return (yield from self.manual_step(where))
        self.owners = self.owners or self.whose_window()
        if self.s.model.truncated_bptt_steps:
            output = yield from self.piece_by_piece(where)
        else:
            output = yield from self.each_in_turn(where)
        if self.updating:
            self.owners = []
        return output

    def each_in_turn(self, where: dict[str, Any]) -> Events:
        """The block of each owner, while only its parameters require gradients [R7]."""
        if self.s.model.optimizers == 1:
            return (yield from self.optimizer_block(where, 0))
        outputs = []
        for optimizer_idx in self.owners:
            self.optimizer_idx = optimizer_idx
            block = self.optimizer_block({**where, "optimizer_idx": optimizer_idx}, optimizer_idx)
            outputs.append((yield from block))
        self.optimizer_idx = None
        return outputs[0] if self.frequencies else self.listed(outputs)

    def piece_by_piece(self, where: dict[str, Any]) -> Events:
        """The blocks on each piece of the batch. A window of several batches is updated with its last
        piece; without accumulation each piece is [R40]."""
        size, pieces = self.s.model.truncated_bptt_steps, self.pieces()
        yield from self.hook("tbptt_split_batch", batch=where["batch"], split_size=size)
        closes, outputs = self.updating, []
        self.hiddens = dict.fromkeys(range(self.s.model.optimizers), "none")
        for self.piece in pieces:
            self.updating = closes and (self.window == 1 or self.piece == pieces[-1])
            outputs.append((yield from self.each_in_turn(where)))
        self.piece = None
        return self.listed(outputs)

    @staticmethod
    def listed(outputs: list[Any]) -> list[Any] | None:
        """If none of them is there, none."""
        return outputs if any(outputs) else None

    def whose_window(self) -> list[int]:
        """The optimizers that train on the batches of this window."""
        cycle = [index for index, times in enumerate(self.frequencies) for _ in range(times)]
        if not cycle:
            return list(range(self.s.model.optimizers))
        owner = cycle[self.turn % len(cycle)]
        self.turn += 1
        self.used.add(owner)
        return [owner]

    def closes_window(self, batch_idx: int, batches: int) -> bool:
        """Whether an update follows: after so many batches, and at the epoch's end [R8]."""
        return (batch_idx + 1) % self.window == 0 or self.comes_last(batch_idx, batches)

    def optimizer_block(self, where: dict[str, Any], optimizer_idx: int) -> Events:
        """training_step to optimizer_step: the step's span encloses its closure's [R1]. Without an update
        the gradients are accumulated [R8]."""
        self.output, self.stepped = None, False
        if self.s.model.truncated_bptt_steps:
            where = {**where, "hiddens": self.hiddens[optimizer_idx]}
        if self.s.model.optimizer == "none":  # fit runs without any optimizer [R25]
            yield from self.training_step(where)
        elif not self.updating:
            yield from self.accumulate(where, optimizer_idx)
        else:
            closure = partial(self.closure, where, optimizer_idx)
            yield from self.step_hook(closure, partial(self.optimizer_update, optimizer_idx), where, optimizer_idx)
            self.is_empty.add(optimizer_idx)
        self.withheld = False
        if self.stepped and not self.numbers.overflowed:
            yield from self.pass_schedulers(optimizer_idx, "step")  # [R16]
        if self.s.model.truncated_bptt_steps and self.output is not None:
            before = where["hiddens"]
            self.hiddens[optimizer_idx] = f"detached:{1 if before == 'none' else int(before.split(':')[1]) + 1}"
        return self.output

    def step_hook(
        self, closure: Callable[[], Events], step: Callable[..., Events], where: dict[str, Any], optimizer_idx: int
    ) -> Events:
        """`optimizer_step`, which makes the step, given its closure; where a trainer has none, its lines come before
        that, and where they come to no gradients, nothing does."""
        if not self.has_closures:
            yield from closure()
            if not self.stepped:
                return
        inside = partial(step, closure if self.has_closures else self.nothing)
        rests = self.rests(optimizer_idx, where["batch_idx"])
        now = {"batch_idx": where["batch_idx"], "epoch": self.epoch, **self.of(optimizer_idx)}
        yield from self.hook("optimizer_step", None if rests else inside, **now, **self.flags())

    def optimizer_update(self, optimizer_idx: int, closure: Callable[[], Events]) -> Events:
        """`optimizer.step(closure)`."""
        self.warm_up(optimizer_idx)
        update = partial(self.update, closure, optimizer_idx)
        yield from self.span(self.numbered("optimizer", optimizer_idx), "step", update, {})

    def update(self, closure: Callable[[], Events], optimizer_idx: int) -> Events:
        """The parameters change after the closure, if there were gradients. L-BFGS evaluates it again when it has
        changed them [R70]."""
        yield from closure()
        self.clip(optimizer_idx)
        self.withheld = self.withheld or self.numbers.overflowed  # how it is kept from a change is the trainer's affair
        moves = self.stepped and self.numbers.update(optimizer_idx)
        self.updates += moves
        if moves and self.s.model.optimizer == "lbfgs":
            yield from closure()
            self.clip(optimizer_idx)

    def clip(self, optimizer_idx: int) -> None:
        """The gradients, if they are to be; the hook before has seen them as they were [R75]."""
        if self.clips:
            most, algorithm = self.options["gradient_clip_val"], self.options["gradient_clip_algorithm"]
            self.numbers.clip(optimizer_idx, most, algorithm)

    @property
    def clips(self) -> bool:
        """Whether gradients are clipped for this update."""
        return bool(self.stepped and self.options["gradient_clip_val"] and not self.numbers.overflowed)

    def closure(self, where: dict[str, Any], optimizer_idx: int) -> Events:
        yield from self.accumulate(where, optimizer_idx)
        if optimizer_idx in self.is_empty:  # no parameter change [R9]
            self.withheld = True  # how a trainer keeps the optimizer from a change is its own affair
            return

        yield from self.hook("on_before_optimizer_step", **self.of(optimizer_idx))
        self.stepped = True

    def accumulate(self, where: dict[str, Any], optimizer_idx: int) -> Events:
        """The lines up to on_after_backward; gradients are cleared once in a window [R8]."""
        told = yield from self.training_step(where)
        if told == "return-none":  # no zero_grad, no backward for this batch [R9]
            if self.window == 1:  # of L-BFGS's evaluations each is for itself [R70]
                self.is_empty.add(optimizer_idx)
            return

        if optimizer_idx in self.is_empty or self.window == 1:
            yield from self.hook("on_before_zero_grad", optimizer=self.numbered("optimizer", optimizer_idx))
            now = {"batch_idx": where["batch_idx"], "epoch": self.epoch, **self.of(optimizer_idx)}
            yield from self.hook("optimizer_zero_grad", **now)
            self.is_empty.discard(optimizer_idx)

        yield from self.hook("on_before_backward", **self.loss())
        yield from self.hook("backward", **self.loss(), **self.of(optimizer_idx))
        yield from self.hook("on_after_backward")

    def training_step(self, where: dict[str, Any]) -> Events:
        told = yield from self.run_step("training_step", where, self.s.model.returns)
        self.output = yield from self.step_end("training")
        return told

    def manual_step(self, where: dict[str, Any]) -> Events:
        """Manual optimization: nothing but training_step; the scenario's does the lines itself [R41]."""
        yield from self.run_step("training_step", where, self.s.model.returns, self.manual_lines)
        return (yield from self.step_end("training"))

    def manual_lines(self) -> Events:
        """What the scenario's training_step calls: for each optimizer zero_grad, manual_backward, step."""
        for optimizer_idx in range(self.s.model.optimizers):
            self.optimizer_idx = optimizer_idx if self.s.model.optimizers > 1 else None
            lines, self.stepped = partial(self.manual_closure, optimizer_idx), True
            try:
                if not self.s.model.closure:
                    yield from lines()
                yield from self.manual_update(lines if self.s.model.closure else self.nothing, optimizer_idx)
            except UserError:
                self.leave_toggled()
                raise
            self.optimizer_idx = None  # toggle_model() has ended
        for scheduler_idx in range(self.s.model.schedulers):
            yield from self.span(self.scheduler(scheduler_idx), "step", None, {})

    def manual_closure(self, optimizer_idx: int) -> Events:
        """zero_grad, the loss, manual_backward."""
        self.value = self.mean("training_step")
        self.grads[optimizer_idx] = "clear"
        self.numbers.zero_grad(optimizer_idx)
        yield from self.hook("on_before_backward", **self.loss())
        yield from self.hook("backward", **self.loss(), retain_graph=True)
        yield from self.hook("on_after_backward")

    def manual_update(self, closure: Callable[[], Events], optimizer_idx: int) -> Events:
        """`optimizer.step(closure)`, in which the hook comes when the closure has ended."""

        def inside() -> Events:
            yield from closure()
            if not self.s.model.plain:  # that is the user's own, which knows nothing of hooks
                yield from self.hook("on_before_optimizer_step", **self.of(optimizer_idx))

        yield from self.optimizer_update(optimizer_idx, inside)
        self.withheld = False

    def nothing(self) -> Events:
        """No closure."""
        yield from ()

    def leave_toggled(self) -> None:
        """An exception ends toggle_model(), too."""
        self.optimizer_idx = None
