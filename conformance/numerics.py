"""What the numbers of a run have to be: losses, weights and learning rates, computed from the scenario.

The model, its data and its optimizers are those of `docs/adapters.md`, written down a second time, in
Python's own 64-bit floats: nothing is recorded from a trainer, and the checker needs no torch. The oracle
tells `Numbers` what happens, in the order in which it happens:

    numbers = Numbers(scenario)
    numbers.loss("train/0/2")      # of the batch that a trace calls so, with the weights of this moment
    numbers.zero_grad()
    numbers.backward("train/0/2")  # adds to the gradients
    numbers.update()               # what the optimizer does with them
    numbers.weights, numbers.rates

A batch with a dimension of time can be asked for in part: `loss("train/0/2", (0, 2))` is that of its first two steps.
With DP each device has a part of it, `parts_of("train/0/2")`: `loss("train/0/2", part=range(2))` is that of two rows.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from copy import deepcopy
from functools import lru_cache
from math import inf, isclose, sqrt
from typing import Any

from .experiment import STEPS, Scenario

__all__ = ["OWN_WORDS", "RATE", "About", "Numbers", "about", "agrees", "close", "parts", "sample", "squares"]

Row = tuple[tuple[float, ...], float]
Window = tuple[int, int] | None

STAGES = tuple(STEPS)
PART = re.compile(r"(\w+)/([0-9]{1,16})/([0-9]{1,16})(?![0-9])")
# Of each layer the weights, and last the bias.
LAYERS = ((0.25, -0.5, 0.75, 0.125, 0.0625), (-0.25, 0.5, 0.125, 0.25, 0.5))
RATE = 0.0625
MOMENTUM, DECAY = 0.5, 0.125
BETAS, EPSILON = (0.9, 0.999), 1e-8
GAMMA = 0.5
# A plateau: a value that is not this much less, in proportion, than the least so far; a rate changes by no less.
THRESHOLD, LEAST_CHANGE = 1e-4, 1e-8
SCALE, GREATEST = 2.0**16, 65504.0  # the first scale of a loss in float16, and the greatest number there
CLIPPED = 1e-6  # what torch adds to a norm
FLAT, LEVEL = 1e-10, 1e-9  # a curvature that L-BFGS does not learn from, a slope that it does not go down
# Trainers log in 32-bit floats, whatever the model computes in.
RELATIVE, ABSOLUTE = 1e-5, 1e-6
OWN_WORDS = "*"  # what a trainer chooses itself, such as the words of an exception where it refuses to go on
ROUGHLY = 0.0625  # of a number that was computed in 16 bits, of which bfloat16 has eight to tell it by


def close(one: float, other: float) -> bool:
    """Whether two numbers are the same but for what is lost in 32-bit floats."""
    return isclose(one, other, rel_tol=RELATIVE, abs_tol=ABSOLUTE)


class About(float):
    """A number that a trainer computes in 16 bits."""


def about(due: Any) -> Any:
    """What is due, its floats as such numbers, also in lists."""
    if isinstance(due, list):
        return [about(item) for item in due]
    return About(due) if isinstance(due, float) else due


def agrees(got: Any, due: Any) -> bool:
    """Whether an argument or an effect of a trace is what is due: floats need only be close, lists agree item by
    item, but for those that the trainer chooses itself."""
    if isinstance(due, About):
        return isinstance(got, (int, float)) and isclose(got, due, rel_tol=ROUGHLY, abs_tol=ROUGHLY)
    if isinstance(due, list):
        same_length = isinstance(got, list) and len(got) == len(due)
        return same_length and all(item == OWN_WORDS or agrees(one, item) for one, item in zip(got, due))
    if isinstance(due, float):
        return isinstance(got, (int, float)) and close(got, due)
    return bool(got == due)


@lru_cache(maxsize=4096)
def sample(stage: int, loader: int, batch: int, row: int) -> tuple[tuple[float, ...], float]:
    """A row of a batch: four numbers and, for the bias, 1; and the target."""
    mark = (stage * 2**19 + loader * 2**16 + batch) / 2**24
    x = [((5 * batch + 7 * row + 3 * j) % 11 - 5) / 8 for j in range(3)]
    return (*x, mark, 1.0), ((3 * batch + 5 * row) % 7 - 3) / 4 + 1


def parts(batch: str) -> list[tuple[str, int, int]]:
    """Stage, loader and number of a batch as a trace has it, "train/0/2", or of those that it is made of."""
    return [(stage, int(loader), int(index)) for stage, loader, index in PART.findall(batch)]


def squares(layers: list[list[float]]) -> float:
    """The sum of the squares of all weights and biases."""
    return sum(weight**2 for layer in layers for weight in layer)


class Numbers:
    """The scenario's model while it is trained. `weights` are those of the layers, each with its bias last;
    `gradients` are None until there are some, those of all processes and this one's `own`; `rates` are the learning
    rates, one for each optimizer, `gradient_sums` what the own gradients add up to: other lists whenever
    one changes."""

    gradients: list[list[float] | None]
    own: list[list[float] | None]
    gradient_sums: list[float]
    overflowed: bool
    _scaled: list[bool]  # whether there is the loss's scale on the gradients of each optimizer
    evenly_dealt: tuple[str, ...] = ("train",)  # the stages of which each process has as many samples

    def __init__(self, scenario: Scenario, rank: int = 0) -> None:
        self.scenario, self.rank = scenario, rank
        self.layers = [list(layer) for layer in LAYERS[: scenario.model.optimizers]]
        self._share(self.layers)
        self.begun = 0  # training steps, which the module counts
        self.apart = False  # whether each process has counted by itself since it was given what process 0 has
        self.scale, self.frozen = 1.0, scenario.model.frozen
        self.times_ended = 1 + ("twice-end" in scenario.model.overrides)  # what training_step_end makes of a loss
        self.set_gradients(None)
        self.configure()

    def configure(self) -> None:
        """New optimizers and schedulers, which know nothing of what was before."""
        self.scale = SCALE if self.scenario.option("precision") == 16 else 1.0  # of the loss
        self.rates = [RATE for _ in self.layers]
        self._moments: list[tuple[list[float], ...] | None] = [None for _ in self.layers]
        self._updates = [0 for _ in self.layers]
        self._best = [inf] * self.scenario.model.schedulers  # of the values that a plateau scheduler was given

    def bring(self, layers: list[list[float]]) -> None:
        """The weights that a checkpoint holds are loaded, or what the module puts in their place."""
        by = 2 if self.scenario.model.halves else 1
        self.layers = [[weight / by for weight in layer] for layer in layers]

    def _share(self, values: Sequence[list[float] | None], optimizer_idx: int = 0) -> None:
        """What the layer of one optimizer has of a shared bias, that of the other has."""
        own = values[optimizer_idx]
        for other in values if self.scenario.model.shared else ():
            if other is not None:
                other[-1] = own[-1] if own else 0.0

    @property
    def weights(self) -> list[float]:
        """All of them, in the order of the module's parameters."""
        return [weight for layer in self.layers for weight in layer]

    def size(self, batch: str) -> int:
        """How many rows this process has of the batch of which a trace says "train/0/2"; of several loaders', of the
        first one's."""
        return len(self.share_of(batch, self.rank))

    def share_of(self, batch: str, rank: int) -> range:
        """The rows of a batch that a process has: every so manieth, as DistributedSampler deals them out. For training
        each has as many: what is missing at the end are the first of all samples, once more."""
        stage, rows = parts(batch)[0][0], self._rows_in_all(batch)
        missing = -rows % self.scenario.processes if stage in self.evenly_dealt else 0
        return range(rank, rows + missing, self.scenario.processes)

    def samples_of(self, batch: str) -> list[str]:
        """Those rows, each with the number of the batch of the data that it is of: "2/0"."""
        (_, _, index), size = parts(batch)[0], self._rows_in_all(batch)
        return [f"{index}/{row}" if row < size else f"0/{row - size}" for row in self.share_of(batch, self.rank)]

    def _rows_in_all(self, batch: str) -> int:
        stage, loader, index = parts(batch)[0]
        data = self.scenario.data
        is_last = index == self.scenario.loaders(stage)[loader] - 1
        return data.last if is_last else data.batch_size

    def parts_of(self, batch: str) -> list[range]:
        """The rows of each part of a batch that is split over the devices, as torch.chunk cuts [R12]."""
        rows, devices = range(self.size(batch)), self.scenario.option("devices")
        most = -(-len(rows) // devices)
        return [rows[start : start + most] for start in range(0, len(rows), most)]

    def rows(self, batch: str, window: Window = None, part: range | None = None) -> list[Row]:
        """The batch's samples: those of its rows or of a part's, or, where it has a dimension of time, of each row in
        each step of the window. The x of a row at a time is that of the row so much further on. Of several loaders
        those of each, one after the other."""
        found: list[Row] = []
        times = range(*(window or (0, self.scenario.data.time)))
        for stage, loader, index in parts(batch):
            where = STAGES.index(stage), loader, index
            name = f"{stage}/{loader}/{index}"
            rows, size = self.share_of(name, self.rank) if part is None else part, self._rows_in_all(name)
            if self.scenario.data.time:
                found += [(sample(*where, row + time)[0], sample(*where, row)[1]) for row in rows for time in times]
            else:
                found += [sample(*where, row) if row < size else sample(*where[:2], 0, row - size) for row in rows]
        return found

    def errors(self, batch: str, window: Window = None, part: range | None = None) -> list[float]:
        """Of each sample the output less the target; the output is the sum of the layers'."""
        together = [sum(weights) for weights in zip(*self.layers)]
        return [sum(w * v for w, v in zip(together, x)) - y for x, y in self.rows(batch, window, part)]

    def loss(self, batch: str, window: Window = None, part: range | None = None) -> float:
        """The mean of the squared errors."""
        errors = self.errors(batch, window, part)
        return sum(error * error for error in errors) / len(errors)

    def prediction(self, batch: str, window: Window = None, part: range | None = None) -> float:
        """The mean of the outputs."""
        rows, errors = self.rows(batch, window, part), self.errors(batch, window, part)
        return sum(error + y for error, (_, y) in zip(errors, rows)) / len(rows)

    def trained_loss(self, batch: str, window: Window = None) -> float:
        """What is trained on: the loss of the batch, or the mean that training_step_end makes of its parts'."""
        parts = self._trained_apart(batch) if self.scenario.data_parallel else [None]
        return self.times_ended * sum(self.loss(batch, window, part) for part in parts) / len(parts)

    def _trained_apart(self, batch: str) -> Sequence[range | None]:
        """The parts of a batch whose losses count alike, as large as they may be: those of the processes, too, over
        which gradients are averaged."""
        if self.scenario.processes > 1:
            return [self.share_of(batch, rank) for rank in range(self.scenario.processes)]
        ends = self.scenario.data_parallel and self.scenario.defines("training_step_end")
        return self.parts_of(batch) if ends else [None]

    def backward(
        self, batch: str, optimizer_idx: int = 0, divided_by: float = 1, window: Window = None, averages: bool = True
    ) -> None:
        """Add the gradient of the loss, divided as for accumulation, to that of one optimizer's layer. Processes have
        their own until one that `averages`."""
        parts, own = self._trained_apart(batch), self.own[optimizer_idx]
        before = self.gradients[optimizer_idx] or [0.0] * len(self.layers[0])
        divided_by /= self.times_ended
        together = [self._gradient(batch, window, part, divided_by * len(parts)) for part in parts]
        self.gradients[optimizer_idx] = self.own[optimizer_idx] = [sum(column) for column in zip(before, *together)]
        if not averages and self.scenario.processes > 1:
            alone = self._gradient(batch, window, parts[self.rank], divided_by)
            self.own[optimizer_idx] = [sum(column) for column in zip(own or [0.0] * len(alone), alone)]
        self._scaled[optimizer_idx] = self.scale > 1
        if self.scenario.model.shared:
            for gradients in (self.gradients, self.own):
                gradients[:] = [each or [0.0] * len(before) for each in gradients]
                self._share(gradients, optimizer_idx)
        self._add_up()

    def _gradient(self, batch: str, window: Window, part: range | None, divided_by: float) -> list[float]:
        """Of the mean of the squared errors, by each weight of a layer and its bias; float16 has none so large that the
        scale takes it beyond the greatest number."""
        errors, rows = self.errors(batch, window, part), self.rows(batch, window, part)
        pairs = [list(zip(errors, column)) for column in zip(*(x for x, _ in rows))]
        steps = [2 * sum(error * x for error, x in pair) / len(rows) / divided_by for pair in pairs]
        largest = max(map(abs, [*steps, *(2 * error / len(rows) / divided_by for error in errors)]))
        self.overflowed = self.overflowed or (self.scale > 1 and largest * self.scale > GREATEST)
        return self._kept([*steps[:-1], steps[-1] * (1 + self.scenario.model.shared)])

    def _kept(self, steps: list[float]) -> list[float]:
        """Without what would change a frozen bias."""
        return [*steps[:-1], 0.0] if self.frozen else steps

    def set_gradients(self, other: Numbers | None) -> None:
        """Those of another one, or none."""
        nothing = [None for _ in self.layers]
        self.gradients = deepcopy(other.gradients) if other else [*nothing]
        self.own = deepcopy(other.own) if other else [*nothing]
        self._scaled = list(other._scaled) if other else [False for _ in self.layers]
        self.overflowed = bool(other and other.overflowed)  # what was computed since they were cleared
        self._add_up()

    def _add_up(self) -> None:
        scales = [self.scale if is_scaled else 1.0 for is_scaled in self._scaled]
        self.gradient_sums = [float(sum(own or ())) * scale for own, scale in zip(self.own, scales)]

    def unscale(self, optimizer_idx: int) -> None:
        """An update follows: from here on the gradients are what they are without the loss's scale."""
        if self._scaled[optimizer_idx]:
            self._scaled[optimizer_idx] = False
            self._add_up()

    def zero_grad(self, optimizer_idx: int = 0) -> None:
        """Clear the gradients of one optimizer's layer."""
        self._scaled[optimizer_idx] = self.overflowed = False
        self.gradients[optimizer_idx] = self.own[optimizer_idx] = None
        self._share(self.gradients, optimizer_idx)
        self._share(self.own, optimizer_idx)
        self._add_up()

    def update(self, optimizer_idx: int = 0) -> bool:
        """What `optimizer.step()` makes of the gradients; without any, nothing. Returns whether the weights move."""
        gradient = self.gradients[optimizer_idx]
        if gradient is None:
            return False
        if self.overflowed:
            self.scale /= 2
            return False
        self._updates[optimizer_idx] += 1
        kinds = {"sgd": self._sgd, "momentum": self._momentum, "adam": self._adam, "lbfgs": self._lbfgs}
        change = kinds[self.scenario.model.optimizer]
        layer, rate = self.layers[optimizer_idx], self.rates[optimizer_idx]
        steps = change(optimizer_idx, gradient)
        self.layers[optimizer_idx] = [weight - rate * step for weight, step in zip(layer, steps)]
        self._share(self.layers, optimizer_idx)
        return any(steps)

    def clip(self, optimizer_idx: int, most: float, algorithm: str) -> None:
        """The gradient of one optimizer's layer becomes at most so long, or each of its entries so large."""
        for gradients in (self.gradients, self.own):
            gradient = gradients[optimizer_idx]
            if gradient is not None and algorithm == "norm":
                scale = min(1.0, most / (sqrt(_dot(gradient, gradient)) + CLIPPED))
                gradients[optimizer_idx] = [entry * scale for entry in gradient]
            elif gradient is not None:
                gradients[optimizer_idx] = [min(max(entry, -most), most) for entry in gradient]
            self._share(gradients, optimizer_idx)
        self._add_up()

    def schedule(self, scheduler_idx: int = 0, value: float | None = None) -> None:
        """What a scheduler does in a step: it halves the rate. Given a value, it does so only on a plateau."""
        optimizer_idx = min(scheduler_idx, len(self.layers) - 1)
        rate, best = self.rates[optimizer_idx], self._best[scheduler_idx]
        if value is not None and value < best * (1 - THRESHOLD):
            self._best[scheduler_idx] = value
        elif value is None or rate - rate * GAMMA > LEAST_CHANGE:
            self.set_rate(rate * GAMMA, optimizer_idx)

    def set_rate(self, rate: float, optimizer_idx: int = 0) -> None:
        """Another learning rate for one optimizer."""
        self.rates = [rate if index == optimizer_idx else other for index, other in enumerate(self.rates)]

    def _sgd(self, optimizer_idx: int, gradient: list[float]) -> list[float]:
        return gradient

    def _momentum(self, optimizer_idx: int, gradient: list[float]) -> list[float]:
        decayed = self._kept([g + DECAY * w for g, w in zip(gradient, self.layers[optimizer_idx])])
        before = self._moments[optimizer_idx]
        moment = decayed if before is None else [MOMENTUM * m + g for m, g in zip(before[0], decayed)]
        self._moments[optimizer_idx] = (moment, [])
        return moment

    def _adam(self, optimizer_idx: int, gradient: list[float]) -> list[float]:
        nothing = [0.0] * len(gradient)
        first, second = self._moments[optimizer_idx] or (nothing, nothing)
        first = [BETAS[0] * m + (1 - BETAS[0]) * g for m, g in zip(first, gradient)]
        second = [BETAS[1] * v + (1 - BETAS[1]) * g * g for v, g in zip(second, gradient)]
        self._moments[optimizer_idx] = (first, second)
        done = self._updates[optimizer_idx]
        return [
            m / (1 - BETAS[0] ** done) / (sqrt(v / (1 - BETAS[1] ** done)) + EPSILON) for m, v in zip(first, second)
        ]

    def _lbfgs(self, optimizer_idx: int, gradient: list[float]) -> list[float]:
        """A quasi-Newton step, by the curvature that the last step has met; the first is at most 1 long. It is
        remembered even if it leads down too little to be made."""
        memory = self._moments[optimizer_idx]
        pair: tuple[list[float], ...] = ()  # by how much the gradient changed, and over which move
        if memory is None:
            steps = [min(1.0, 1 / sum(map(abs, gradient))) * g for g in gradient]
        else:
            before, moved, *known = memory
            change = [g - b for g, b in zip(gradient, before)]
            pair = (change, moved) if _dot(change, moved) > FLAT else tuple(known)
            steps = _newton(gradient, *pair) if pair else gradient
        self._moments[optimizer_idx] = (gradient, [-self.rates[optimizer_idx] * step for step in steps], *pair)
        return steps if _dot(gradient, steps) > LEVEL else [0.0] * len(steps)


def _dot(one: list[float], other: list[float]) -> float:
    return sum(a * b for a, b in zip(one, other))


def _newton(gradient: list[float], change: list[float], moved: list[float]) -> list[float]:
    """The gradient times what L-BFGS takes for the inverse of the curvature, after one pair of differences."""
    curvature = _dot(change, moved)
    along = _dot(moved, gradient) / curvature
    across = [(g - along * c) * curvature / _dot(change, change) for g, c in zip(gradient, change)]
    back = _dot(change, across) / curvature
    return [a + (along - back) * m for a, m in zip(across, moved)]
