"""What pytorch-lightning 1.4, 1.5 and 1.9 do instead of what the documentation says, and 2 does not: several optimizers
and pieces of batches, and what becomes of their outputs."""

from __future__ import annotations

from typing import Any

from ..experiment import Scenario
from .lightning import Lightning
from .oracle import UserError
from .outputs import Output, as_dict, nested
from .state import KEYS, OWN_WORDS, Events

__all__ = ["Lightning1"]


class Lightning1(Lightning):
    """The pseudocode of 1.x, as far as both have it."""

    keeps_graph = False  # what lies deeper in outputs than the loss
    axes: tuple[int, int, int]  # in which order outputs lie in lists by 0, batch, 1, its piece, and 2, optimizer

    @classmethod
    def leaves_open(cls, scenario: Scenario) -> str:
        if scenario.spawns and "fit" in scenario.calls:
            return "what is trained by processes that all change the same memory"
        return super().leaves_open(scenario)

    def __init__(self, scenario: Scenario, rank: int = 0) -> None:
        super().__init__(scenario, rank)
        self.batches_of_all = -1  # the number of the batch that runs, over all epochs and fits
        self.validations = 0  # that are over
        self.pieces_made: list[dict[int, Output]] = []  # of each piece of a batch, what optimizers' steps have made
        self.made_before: list[list[dict[int, Output]]] = []  # in the epoch's batches

    # ---- a batch -----------------------------------------------------------------------------------

    def optimizer_blocks(self, where: dict[str, Any]) -> Events:
        """Frequencies count batches, and their cycle begins anew in each epoch."""
        self.pieces_made = []
        self.owners = self.whose_turn(where["batch_idx"])
        if self.s.model.manual:
            output = yield from self.manual_step(where)
            self.pieces_made = [{0: output}] if output is not None else []
        elif self.s.model.truncated_bptt_steps:
            yield from self.piece_by_piece(where)
        else:
            yield from self.each_in_turn(where)
        return self.outputs_of_batch()

    def piece_by_piece(self, where: dict[str, Any]) -> Events:
        """In the batch that closes a window, each piece is an update. All optimizers share the hidden states."""
        size, pieces = self.s.model.truncated_bptt_steps, self.pieces()
        yield from self.hook("tbptt_split_batch", batch=where["batch"], split_size=size)
        self.hiddens = {0: "none"}
        for self.piece in pieces:
            self.piece_begins()
            yield from self.each_in_turn(where)
        self.piece = None

    def piece_begins(self) -> None:
        """Another piece of the batch is next."""

    def each_in_turn(self, where: dict[str, Any]) -> Events:
        """The block of each owner, while only its parameters require gradients."""
        made: dict[int, Output] = {}
        several = self.s.model.optimizers > 1
        for optimizer_idx in self.owners:
            self.optimizer_idx = optimizer_idx if several else None
            of = {"optimizer_idx": optimizer_idx} if several else {}
            output = yield from self.optimizer_block({**where, **of}, optimizer_idx)
            made |= {optimizer_idx: output} if output is not None else {}
        self.optimizer_idx = None
        self.pieces_made += [made] if made else []

    def training_step(self, where: dict[str, Any]) -> Events:
        """With truncated_bptt_steps, None is an error: hidden states are missed."""
        if not self.s.model.truncated_bptt_steps:
            return (yield from super().training_step(where))
        before = self.hiddens[0]
        told = yield from super().training_step({**where, "hiddens": before})
        if self.output is None:
            yield from self.without_hiddens()
            return told
        self.hiddens[0] = f"detached:{1 if before == 'none' else int(before.split(':')[1]) + 1}"
        return told

    def without_hiddens(self) -> Events:
        """What a step that has to make some does not."""
        yield from ()
        raise UserError(OWN_WORDS)

    @property
    def splits_keys(self) -> bool:
        """Whether the module's own tbptt_split_batch is missed: the default one makes no pieces of a dict's values."""
        is_split = self.s.model.truncated_bptt_steps > 0 and "own-split" not in self.s.model.overrides
        return is_split and self.s.data.batch == "dict"

    def leave_toggled(self) -> None:
        """What is toggled stays so."""

    @property
    def refuses_none(self) -> bool:
        """With several processes all may return it."""
        return False

    def whose_turn(self, batch: int) -> list[int]:
        """The optimizers that frequencies give the batch to."""
        cycle = [index for index, times in enumerate(self.frequencies) for _ in range(times)]
        return [cycle[batch % len(cycle)]] if cycle else self.everybody

    # ---- outputs -----------------------------------------------------------------------------------

    @property
    def sides(self) -> int:
        """Of how many optimizers there are lists: of all, whoever's turn it is."""
        return 1 if self.s.model.manual else self.s.model.optimizers

    def arranged(self, batches: list[list[dict[int, Output]]]) -> Any:
        """What the pieces of batches have made, in dicts, as lists in lists in the order of `axes`."""
        lengths = len(batches), max(map(len, batches)), self.sides
        places = {
            tuple((batch_idx, piece, optimizer_idx)[axis] for axis in self.axes): as_dict(output)
            for batch_idx, batch in enumerate(batches)
            for piece, made in enumerate(batch)
            for optimizer_idx, output in made.items()
        }
        return nested(places, [lengths[axis] for axis in self.axes])

    def outputs_of_batch(self) -> Any:
        """Nothing is an empty list."""
        return self.arranged([self.pieces_made]) if self.pieces_made else []

    def outputs_of_epoch(self) -> list[Any]:
        """Without the lists that are empty."""
        outputs = self.arranged(self.made_before)
        return [each for each in (outputs if isinstance(outputs, list) else [outputs]) if each]

    def held(self, hook: str, outputs: Any) -> dict[str, Any]:
        """In training dicts, with the loss for a tensor."""
        if hook not in ("on_train_batch_end", "training_epoch_end"):
            return super().held(hook, outputs)
        is_dict = (self.s.model.returns == "dict") != self.s.defines("training_step_end")
        there = any(self.pieces_made if hook == "on_train_batch_end" else self.made_before)
        keys = KEYS[1] if is_dict else ["loss"]
        deeper = self.keeps_graph and self.s.model.returns == "dict" and is_dict
        return {"outputs_keys": keys if there else [], "outputs_graph": deeper and there}

    def pass_schedulers(self, optimizer_idx: int, interval: str) -> Events:
        """Not after an optimizer's update, but when all are done."""
        yield from ()

    def step_schedulers(self, interval: str, of_plateaus: bool) -> Events:
        """Those with the interval, on a plateau or not, of the optimizers whose turn it is by the number of the batch
        over all epochs, in the order in which they are given; their frequency counts epochs, or the batches of each
        epoch anew."""
        model = self.s.model
        if model.manual or (interval == "step" and not self.updating):
            return
        done = self.epoch + 1 if interval == "epoch" else self.batches_done
        owners = self.whose_turn(self.batches_of_all)
        for optimizer_idx in owners[::-1] if model.form == "two-lists-crossed" else owners:
            for scheduler_idx in model.schedulers_of(optimizer_idx, interval):
                is_due = done % model.frequency_of(scheduler_idx) == 0
                if is_due and bool(model.monitor_of(scheduler_idx)) == of_plateaus:
                    yield from self.step_scheduler(scheduler_idx)

    def refuse_what_ends_return(self) -> None:
        """A training_epoch_end that returns something is an error."""
        if self.s.model.ends_return:
            raise UserError(OWN_WORDS)

    # ---- evaluations -------------------------------------------------------------------------------

    @property
    def has_validated(self) -> bool:
        """That of the sanity check does not count."""
        return self.validations > 0

    def val_loop(self, at_most: int | None = None) -> Events:
        yield from super().val_loop(at_most)
        self.validations += not self.in_sanity_check

    def new_trainer(self) -> None:
        super().new_trainer()
        self.validations = 0

    def begin_evaluation(self, stage: str) -> Events:
        yield from self.dataloader(stage)
        self.grad_enabled = False

    def into_eval(self, name: str) -> Events:
        """Then gradients are cleared, in the midst of a window, too."""
        yield from super().into_eval(name)
        self.clear_gradients()

    def effects_of(self, hook: str) -> None:
        """There is no hook on_predict_model_train."""
        if hook != "on_predict_model_train":
            super().effects_of(hook)

    # ---- an exception ------------------------------------------------------------------------------

    def made(self, function: str) -> dict[str, Any]:
        """A call that Ctrl-C has ended returns None."""
        made = super().made(function)
        return {name: value for name, value in made.items() if not (self.stays and name.startswith("returned"))}
