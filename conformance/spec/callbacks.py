"""The callbacks of a run: whose they are, and what those that come with a trainer do in their hooks. [R<n>] are rows of
`docs/interpretations.md`."""

from __future__ import annotations

from collections.abc import Iterable
from copy import deepcopy
from math import inf
from typing import Any, NamedTuple

from ..experiment import Saving, Scenario, Stopping
from ..numerics import parts, squares
from .checkpoints import Checkpoints
from .oracle import UserError
from .outputs import form_of
from .plan import Plan
from .state import OWN_WORDS, Events

__all__ = ["Callbacks", "Files"]


class File(NamedTuple):
    """What a checkpoint holds: the weights and the buffer, where the training was, callbacks, and what was put into
    it."""

    layers: list[list[float]]
    begun: int
    epoch: int
    step: int
    has_callbacks: bool
    checked: dict[str, tuple[float, int]]  # what those that stop have seen
    put: list[str]


def told(files: Iterable[File]) -> list[float]:
    """What a trace tells of files: of each the sum of the squares of its weights, sorted."""
    return sorted(squares(file.layers) for file in files)


class Files:
    """What a ModelCheckpoint has saved: those that are kept, with their scores, in the order in which they were saved;
    the best of all, and the last."""

    def __init__(self, left: Iterable[File] = ()) -> None:
        self.left = list(left)  # in the folder, and nobody's any more
        self.kept: list[tuple[float, File]] = []
        self.best: File | None = None
        self.last: File | None = None
        self.saved_at = -1  # step, where a release remembers it

    @property
    def all(self) -> list[File]:
        """Those that are in the folder."""
        return [*self.left, *(file for _, file in self.kept), *([self.last] if self.last else ())]

    def takes(self, saving: Saving, score: float) -> bool:
        """Whether a score, the less the better, is among the best."""
        if not saving.monitor or saving.save_top_k == 0:
            return saving.save_top_k != 0
        return saving.save_top_k == -1 or len(self.kept) < saving.save_top_k or score < self.worst[0]

    @property
    def worst(self) -> tuple[float, File]:
        """The first of those with the greatest score."""
        return max(self.kept, key=lambda kept: kept[0])

    def take(self, saving: Saving, score: float, file: File) -> None:
        """Keep it, in place of the worst if there is no room."""
        if not saving.monitor:
            self.left += [file for _, file in self.kept] if saving.save_top_k == -1 else ()
            self.kept.clear()
        elif len(self.kept) == saving.save_top_k:
            self.kept.remove(self.worst)
        self.kept.append((score, file))
        self.best = min(self.kept, key=lambda kept: kept[0])[1]


class Callbacks(Checkpoints, Plan):
    """The trainer's and the module's: first the recording ones of either, then those that stop."""

    def __init__(self, scenario: Scenario, rank: int = 0) -> None:
        super().__init__(scenario, rank)
        own, stopping, saving = scenario.model.callbacks, scenario.early_stopping, scenario.model_checkpoint
        owners = ["trainer"] * scenario.callbacks + ["module"] * len(own)
        owners += [each.given for each in stopping] + [each.given for each in saving]
        kinds = ["same"] * scenario.callbacks + [*own]
        kinds += ["EarlyStopping"] * len(stopping) + ["ModelCheckpoint"] * len(saving)
        owners += ["trainer"] * scenario.prediction_writer
        kinds += ["BasePredictionWriter"] * scenario.prediction_writer
        names = [f"callback:{index}" for index in range(len(kinds))]
        self.owners_of, self.kinds = dict(zip(names, owners)), dict(zip(names, kinds))
        self.stopping = dict(zip((name for name in names if self.kinds[name] == "EarlyStopping"), stopping))
        self.saving = dict(zip((name for name in names if self.kinds[name] == "ModelCheckpoint"), saving))
        self.files = {name: Files() for name in self.saving}
        # Callbacks that wait for the batch or the epoch to be over; what one has seen already.
        self.due_looks: list[tuple[str, float | None]] = []
        self.missed: set[str] = set()  # those whose value was not there
        self.is_another = False  # the module, since the last fit
        self.tested: File | None = None  # in the call that runs
        self.saver = ""  # the one of the last fit
        self.saved_last: dict[str, Any] = {}  # what it saved last
        self.knows_files = True  # those in the folders
        self.forget_checks()

    def callbacks_of(self, owner: str) -> list[str]:
        """Those that the "trainer" is given, or the "module" configures; those that save come last."""
        found = (name for name in self.owners_of if self.owners_of[name] == owner)
        return sorted(found, key=lambda name: name in self.saving)

    def append_callback(self) -> None:
        """One more of the trainer's, of a type of its own, for the calls that follow [R14]."""
        name = f"callback:{len(self.kinds)}"
        self.owners_of[name], self.kinds[name] = "trainer", name

    def take_in_own(self) -> None:
        """Those of the module extend the trainer's list, and replace those of the same type [R14]."""
        own = self.callbacks_of("module")
        kinds = {self.kinds[name] for name in own}
        merged = [name for name in self.callbacks if self.kinds[name] not in kinds] + own
        self.callbacks = sorted(merged, key=lambda name: name in self.saving)
        if self.called == "fit":
            if self.is_another:
                self.forget_others()
            self.is_another = False
            self.saver = next((name for name in self.callbacks if name in self.saving), "")

    def follows_rates(self, receiver: str) -> bool:
        """Those that save come last of all."""
        return self.owners_of.get(receiver) == "module" or receiver in self.saving or super().follows_rates(receiver)

    def forget_checks(self) -> None:
        """None of those that stop has seen a value: the best, and how many checks ago it was."""
        self.checked = {name: (inf, 0) for name in self.stopping}

    def react(self, receiver: str, hook: str, args: dict[str, Any]) -> Events:
        if receiver in self.stopping and self.is_time_to_look(receiver, hook):
            self.look_to_stop(receiver)
        if receiver in self.saving:
            yield from self.look_to_save(receiver, hook)
        if self.kinds.get(receiver) == "BasePredictionWriter":
            yield from self.write(receiver, hook, args)

    def is_time_to_look(self, receiver: str, hook: str) -> bool:
        """Whether a callback looks at its value: in a fit, as the epoch or the validation ends."""
        if self.called != "fit" or self.in_sanity_check or self.options["fast_dev_run"]:
            return False
        waits = self.stopping[receiver].check_on_train_epoch_end if receiver in self.stopping else None
        waits = self.waits_for_the_epoch(receiver) if waits is None else waits
        return hook == ("on_train_epoch_end" if waits else "on_validation_end")

    def waits_for_the_epoch(self, receiver: str) -> bool:
        """Where there is one validation in each epoch, at its end, or none [R44]."""
        interval = self.options["val_check_interval"]
        once = interval == 1.0 and isinstance(interval, float)
        return not self.validates() or (once and self.options["check_val_every_n_epoch"] == 1)

    def look_to_stop(self, receiver: str) -> None:
        """When the epoch, or the batch with its validation, is over, and the module has logged all [R45]."""
        self.due_looks.append((receiver, None))

    def check(self, receiver: str, stopping: Stopping) -> None:
        """Training is to end where the value has not improved by more than min_delta so many checks in a row."""
        known, (best, waited) = self.decisive(), self.checked[receiver]
        if stopping.monitor not in known:
            if stopping.strict:
                raise UserError(OWN_WORDS)
            return
        value = known[stopping.monitor] * (1 if stopping.mode == "min" else -1)
        improves = value + stopping.min_delta < best
        self.checked[receiver] = (value, 0) if improves else (best, waited + 1)
        self.should_stop = self.should_stop or (not improves and waited + 1 >= stopping.patience)

    # ---- those that save ---------------------------------------------------------------------------

    def look_to_save(self, receiver: str, hook: str) -> Events:
        """At a step that is one of every so many, or when an epoch or its validation ends, the value is looked at; what
        is due is saved when the batch or the epoch is over [R44]. One that was never there is an error in the end
        [R80]."""
        saving, every = self.saving[receiver], self.saving[receiver].every_n_train_steps
        if self.options["fast_dev_run"]:
            return
        if hook == "on_train_batch_end" and every and self.uncounted and (self.step + 1) % every == 0:
            if (score := self.score(receiver)) is not None:
                self.due_looks.append((receiver, score))
            else:
                self.missed.add(receiver)
        elif not every and self.is_time_to_look(receiver, hook):
            self.due_looks.append((receiver, None))
        if hook == "on_train_end" and receiver in self.missed and saving.monitor not in self.decisive():
            raise UserError(OWN_WORDS)
        yield from ()

    def score(self, receiver: str) -> float | None:
        """The value that decides, the less the better, if it is there."""
        saving, known = self.saving[receiver], self.decisive()
        if saving.monitor not in ("", *known):
            return None
        return known[saving.monitor] * (1 if saving.mode == "min" else -1) if saving.monitor else 0.0

    def look_and_save(self) -> Events:
        """What waits for this moment; a save with one call of on_save_checkpoint, also where it makes two files."""
        due, self.due_looks = self.due_looks, []
        for receiver, known in due:
            if receiver in self.stopping:
                self.check(receiver, self.stopping[receiver])
                continue
            score = self.score(receiver) if known is None else known
            if score is None:
                self.missed.add(receiver)
                continue
            saving, files = self.saving[receiver], self.files[receiver]
            takes = files.takes(saving, score)
            if takes or saving.save_last:
                yield from self.tell_of_saving(saving)
            if takes:
                files.take(saving, score, self.written(saving))
            if saving.save_last:
                files.last = self.written(saving)
            if takes or saving.save_last:
                self.saved_last = self.everything()

    def tell_of_saving(self, saving: Saving) -> Events:
        """With save_weights_only, the module and the data module alone."""
        self.saves_weights_only = saving.save_weights_only
        try:
            yield from self.hook("on_save_checkpoint")
        finally:
            self.saves_weights_only = False

    def written(self, saving: Saving) -> File:
        """A checkpoint of this moment."""
        weights = deepcopy(self.numbers.layers)
        has_callbacks = not saving.save_weights_only
        checked = dict(self.checked)
        return File(weights, self.numbers.begun, self.epoch, self.step, has_callbacks, checked, self.put)

    def file_to_test(self, call: str) -> File | None:
        """The one whose weights a test begins with, if not as they are: of the module that was just fitted the best
        [R15]."""
        if not call.startswith("test") or call == "test-none" or not self.saver:
            return None
        files = self.files[self.saver]
        return files.last if call == "test-last" else files.best

    def load_tested(self) -> Events:
        """They are loaded as any checkpoint is."""
        if self.tested is not None:
            self.found = self.tested.put
            yield from self.hook("on_load_checkpoint")
            was, self.numbers.begun, self.numbers.apart = self.numbers.layers, self.tested.begun, False
            self.numbers.bring(self.tested.layers)
            self.updates += self.numbers.layers != was

    def files_left(self) -> list[float]:
        """Of each file in the folders of those that save, the sum of the squares of its weights: as process 0 sees them
        when a fit is over."""
        return told([file for files in self.files.values() for file in files.all])

    # ---- one that writes predictions ----------------------------------------------------------------

    def write(self, receiver: str, hook: str, args: dict[str, Any]) -> Events:
        """Each batch's prediction, and all of them in the end, with the places of their samples in the data set."""
        if hook == "on_predict_batch_end":
            where = {name: args[name] for name in ("batch", "batch_idx", "dataloader_idx")}
            where |= {"prediction": form_of(args["outputs"]), "batch_indices": self.places(args["batch"])}
            yield from self.span(receiver, "write_on_batch_end", None, where)
        elif hook == "on_predict_epoch_end":
            results = args["results"]
            given = {"predictions": form_of(self.handed_over(results)), "batch_indices": self.all_places(results)}
            yield from self.span(receiver, "write_on_epoch_end", None, given)

    def handed_over(self, results: list[Any]) -> list[Any]:
        """The predictions that are written in the end: a list for each loader."""
        return results

    def places(self, batch: str) -> list[int] | None:
        """Those of a batch's samples; of a stream nobody knows them."""
        start = parts(batch)[0][2] * self.s.data.batch_size
        return list(range(start, start + self.numbers.size(batch))) if self.s.data.sized else None

    def all_places(self, results: list[list[Any]]) -> list[str] | None:
        """Those of each batch that is predicted, behind its loader's number."""
        batches = [(loader, batch) for loader, each in enumerate(results) for batch in range(len(each))]
        known = [(loader, self.places(self.batch_of("predict", loader, batch))) for loader, batch in batches]
        return [f"{loader}/{places and ','.join(map(str, places))}" for loader, places in known]

    # ---- another module ----------------------------------------------------------------------------

    def new_module(self) -> None:
        """Its own callbacks have seen and saved nothing, and it was not fitted."""
        super().new_module()
        self.saver, self.is_another = "", True
        for name in self.callbacks_of("module"):
            if name in self.stopping:
                self.checked[name] = (inf, 0)
            if name in self.files:
                self.files[name] = Files(self.files[name].all)

    def forget_others(self) -> None:
        """What callbacks have seen and saved of another module counts no more [R45]."""
        self.forget_checks()
        self.files = {name: Files(files.all) for name, files in self.files.items()}

    # ---- in a checkpoint ---------------------------------------------------------------------------

    def everything(self) -> dict[str, Any]:
        return {**super().everything(), "checked": dict(self.checked), "files": deepcopy(self.files)}

    def new_trainer(self) -> None:
        super().new_trainer()
        self.forget_others()
        self.is_another = False

    def load(self) -> Events:
        """What a callback has seen comes back to it."""
        yield from super().load()
        if self.resuming:
            self.checked = dict(self.resuming["checked"])
            were, saved = self.files, self.resuming["files"]
            self.files = {name: self.known_again(files) for name, files in saved.items()}
            # What a run has saved later than the checkpoint is left to the engine's own tests [R81].
            self.knows_files = all(told(were[name].left) == told(files.all) for name, files in self.files.items())

    def known_again(self, files: Files) -> Files:
        """What a ModelCheckpoint that is in a checkpoint knows of its files."""
        return deepcopy(files)
