"""What pytorch-lightning 1.4 does instead of what the documentation says, and 1.5 does not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from ..experiment import Scenario
from .callbacks import Callbacks, Files
from .calls import Calls
from .lightning import Lightning
from .lightning_1_5 import Lightning15
from .lightning_logged import Logged14
from .logged import Handed
from .oracle import UserError
from .outputs import Output, as_dict
from .state import Events

__all__ = ["Lightning14"]


class Lightning14(Lightning15):
    """The pseudocode of 1.4."""

    absent = frozenset({*Lightning15.absent, "on_exception"})
    log_type = Logged14
    logged: Logged14
    needs_closure = divides_outputs = misses_loaders = gives_by_name = begins_apart = False
    asks_anyway = ends_without_outputs = divides_loaders = leaves_unbegun = True
    before_all = -1

    @classmethod
    def leaves_open(cls, scenario: Scenario) -> str:
        overfits = scenario.option("overfit_batches") and scenario.data.train_loaders
        if overfits and (scenario.data.val or {"validate", "test", "predict"} & {*scenario.calls}):
            return "what an evaluation is given of several training loaders"
        if overfits and scenario.data.shuffle:
            return "in which order several training loaders shuffle"
        if scenario.model.dtype == "float32" and any(log.enable_graph for log in scenario.model.logs):
            return "what a step makes of a value of 32 bits that is logged with its graph"
        return super().leaves_open(scenario)

    def __init__(self, scenario: Scenario, rank: int = 0) -> None:
        super().__init__(scenario, rank)
        self.has_loaders: dict[str, int] = {}  # of training and validation, which stay from call to call
        self.only_missing = False  # loaders are asked for

    def before_setup(self) -> Events:
        """What is tested is loaded first."""
        yield from Callbacks.load_tested(self)
        yield from self.hook("prepare_data")
        yield from self.configure_callbacks()

    def load_tested(self) -> Events:
        """It is loaded already, and the trainer is where it was."""
        yield from ()

    @property
    def prepares(self) -> bool:
        """On each node: the module is not asked."""
        return self.is_local_zero

    # ---- an optimizer's block ---------------------------------------------------------------------

    def optimizer_update(self, optimizer_idx: int, closure: Callable[[], Events]) -> Events:
        """on_before_optimizer_step comes before `optimizer.step(closure)`, and so before the closure."""
        self.warm_up(optimizer_idx)
        if not self.s.model.plain:
            yield from self.hook("on_before_optimizer_step", **self.of(optimizer_idx))
        yield from super().optimizer_update(optimizer_idx, closure)

    def manual_update(self, closure: Callable[[], Events], optimizer_idx: int) -> Events:
        yield from self.optimizer_update(optimizer_idx, closure)

    def closure(self, where: dict[str, Any], optimizer_idx: int) -> Events:
        if self.s.model.optimizer == "none":
            yield from self.hook("on_before_optimizer_step", **self.of(optimizer_idx))
        yield from self.accumulate(where, optimizer_idx)
        self.stepped = True

    @property
    def clips(self) -> bool:
        """After a backward: those of the batches before stay as they are where the last of a window has none."""
        return super().clips and self.output is not None

    def closes_window(self, batch_idx: int, batches: int) -> bool:
        """The last batch of a loader without a length, or of one that promises more, is not known to be one."""
        is_known = self.s.data.sized or type(self.options["limit_train_batches"]) is int
        is_known = is_known and self.s.data.promised <= self.s.data.train
        return super().closes_window(batch_idx, batches if is_known else -1)

    def without_hiddens(self) -> Events:
        """Those of before stay."""
        yield from ()

    def optimizer_blocks(self, where: dict[str, Any]) -> Events:
        """What is logged in hooks before is as of the batch before."""
        self.logged.comes()
        return (yield from super().optimizer_blocks(where))

    # ---- outputs -----------------------------------------------------------------------------------

    def of_each(self, batch: list[dict[int, Output]]) -> list[Any]:
        """For each optimizer that has made something in the batch that, of several pieces a list."""
        by_side = ([as_dict(made[idx]) for made in batch if idx in made] for idx in range(self.sides))
        return [each if len(each) > 1 else each[0] for each in by_side if each]

    def outputs_of_batch(self) -> Any:
        """A list for each optimizer, where there are several that have made something."""
        outputs = self.of_each(self.pieces_made)
        return outputs[0] if len(outputs) == 1 else outputs

    def outputs_of_epoch(self) -> list[Any]:
        """What was the first of its batch, what was the second, where there ever was one."""
        by_place: list[list[Any]] = [[] for _ in range(self.sides)]
        for batch in self.made_before:
            for place, output in enumerate(self.of_each(batch)):
                by_place[place].append(output)
        outputs = [each for each in by_place if each]
        return outputs[0] if len(outputs) == 1 else outputs

    # ---- hyperparameters ----------------------------------------------------------------------------

    def hparams(self) -> list[str]:
        """Its own alone; of two classes' arguments of one name the parent's, unless that is changed later."""
        model, kept = self.s.model, [*self.s.model.hparams]
        is_parents = model.hyperparameters == "inherited" and not model.hyperparameters_changed
        return ["arg1=0", *kept[1:]] if is_parents else kept

    def hparams_told(self) -> list[str]:
        told = super().hparams_told()
        return ["arg1=0", *told[1:]] if self.s.model.hyperparameters == "inherited" else told

    # ---- data --------------------------------------------------------------------------------------

    def handed(self) -> dict[str, list[Handed]]:
        """In all processes what a callback gives them, and in process 0 the rest."""
        handed = super().handed().items()
        return {name: values for name, values in handed if not self.rank or name.startswith(("rate", "lr-"))}

    def begin_call(self) -> None:
        super().begin_call()
        self.loaded = {} if self.s.data.source == "argument" else dict(self.has_loaders)

    def new_trainer(self) -> None:
        super().new_trainer()
        self.has_loaders = {}

    def dataloaders_of_fit(self) -> Events:
        self.only_missing = True
        yield from super().dataloaders_of_fit()
        self.only_missing = False

    def dataloader(self, stage: str) -> Events:
        yield from super().dataloader(stage)
        if stage in ("train", "val"):
            self.has_loaders[stage] = self.loaded[stage]

    def receivers(self, hook: str) -> list[str]:
        """Where a data module has prepared data once, nobody does it again."""
        found = super().receivers(hook)
        return [] if hook == "prepare_data" and self.datamodule() and self.datamodule()[0] not in found else found

    def bring_back(self, first: Calls, function: str) -> Events:
        yield from super().bring_back(first, function)
        if function == "predict":
            yield from self.hook("teardown", stage=function)

    def is_due(self, stage: str, asked: int | None = None) -> bool:
        """In each epoch whose number is a multiple; of the training not in the first."""
        every = self.options["reload_dataloaders_every_n_epochs"]
        if stage not in self.loaded or stage not in ("train", "val"):
            return stage not in self.loaded
        is_time = every > 0 and self.epoch % every == 0 and (stage == "val" or self.epoch > 0)
        return is_time and not self.only_missing

    # ---- callbacks that stop, and that save -----------------------------------------------------------------------

    def waits_for_the_epoch(self, receiver: str) -> bool:
        return Lightning.waits_for_the_epoch(self, receiver)

    def load(self) -> Events:
        """A data module is told first; the state of the last one that stops is that of all of them."""
        self.found = self.resuming.get("put", [])
        yield from super().load_datamodule()
        yield from super().load()
        names = [name for name in self.callbacks if name in self.stopping]
        for name in names if self.resuming else ():
            self.checked[name] = self.checked[names[-1]]
            self.stopping[name] = replace(self.stopping[name], patience=self.stopping[names[-1]].patience)

    def known_again(self, files: Files) -> Files:
        """The best are not, and stay; the last is written over."""
        known = Files([*files.left, *(file for _, file in files.kept)])
        known.last = files.last
        return known

    def load_datamodule(self) -> Events:
        """It knows already."""
        yield from ()

    def log(self, hook: str) -> None:
        """Outside of batches with the size of the last one."""
        self.logged.size = self.numbers.size(self.batch) if self.batch else self.logged.size
        super().log(hook)

    def places(self, batch: str) -> list[int] | None:
        """One that writes predictions is told none."""

    def all_places(self, results: list[list[Any]]) -> list[str] | None:
        """Nor in the end."""

    # ---- an exception ------------------------------------------------------------------------------

    def train(self) -> Events:
        """The stage of what has raised is forgotten; after Ctrl-C the fit goes on to its end."""
        try:
            yield from super().train()
        except UserError as raised:
            self.scope, self.status = "train_on_device", "interrupted"
            if not raised.text.startswith("KeyboardInterrupt"):
                self.runs = None
                raise
            self.in_sanity_check, self.piece, self.part = False, None, None

    def stage_after(self, raised: UserError) -> str | None:
        """That in which it was raised."""
        return self.stage

    def status_after(self, raised: UserError) -> str:
        """Only a training is over for it."""
        return "interrupted" if self.status == "interrupted" else "running"

    def is_swallowed(self, raised: UserError) -> bool:
        self.stays = True
        return False
