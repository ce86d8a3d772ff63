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
"""

from __future__ import annotations

import re
from functools import lru_cache
from math import isclose, sqrt

from .scenario import STEPS, Scenario

__all__ = ["Numbers", "close", "parts", "sample"]

STAGES = tuple(STEPS)
PART = re.compile(r"(\w+)/(\d+)/(\d+)")
# Of each layer the weights, and last the bias.
LAYERS = ((0.25, -0.5, 0.75, 0.125, 0.0625), (-0.25, 0.5, 0.125, 0.25, 0.5))
RATE = 0.0625
MOMENTUM, DECAY = 0.5, 0.125
BETAS, EPSILON = (0.9, 0.999), 1e-8
GAMMA = 0.5
# Trainers log in 32-bit floats, whatever the model computes in.
RELATIVE, ABSOLUTE = 1e-5, 1e-6


def close(one: float, other: float) -> bool:
    """Whether two numbers are the same but for what is lost in 32-bit floats."""
    return isclose(one, other, rel_tol=RELATIVE, abs_tol=ABSOLUTE)


@lru_cache(maxsize=4096)
def sample(stage: int, loader: int, batch: int, row: int) -> tuple[tuple[float, ...], float]:
    """A row of a batch: four numbers and, for the bias, 1; and the target."""
    mark = (stage * 2**19 + loader * 2**16 + batch) / 2**24
    x = [((5 * batch + 7 * row + 3 * j) % 11 - 5) / 8 for j in range(3)]
    return (*x, mark, 1.0), ((3 * batch + 5 * row) % 7 - 3) / 4 + 1


def parts(batch: str) -> list[tuple[str, int, int]]:
    """Stage, loader and number of a batch as a trace has it, "train/0/2", or of those that it is made of."""
    return [(stage, int(loader), int(index)) for stage, loader, index in PART.findall(batch)]


class Numbers:
    """The scenario's model while it is trained. `weights` are those of the layers, each with its bias last;
    `gradients` are None until there are some; `rates` are the learning rates, one for each optimizer."""

    def __init__(self, scenario: Scenario) -> None:
        self.scenario = scenario
        self.layers = [list(layer) for layer in LAYERS[: scenario.model.optimizers]]
        self.gradients: list[list[float] | None] = [None for _ in self.layers]
        self.rates = [RATE for _ in self.layers]
        self._moments: list[tuple[list[float], list[float]] | None] = [None for _ in self.layers]
        self._updates = [0 for _ in self.layers]

    @property
    def weights(self) -> list[float]:
        """All of them, in the order of the module's parameters."""
        return [weight for layer in self.layers for weight in layer]

    def size(self, batch: str) -> int:
        """How many rows the batch has, of which a trace says "train/0/2"; of several loaders', the first one's."""
        stage, loader, index = parts(batch)[0]
        data = self.scenario.data
        is_last = index == self.scenario.loaders(stage)[loader] - 1
        return data.last if is_last else data.batch_size

    def rows(self, batch: str) -> list[tuple[tuple[float, ...], float]]:
        """The batch's samples; of several loaders, those of each, one after the other."""
        return [
            sample(STAGES.index(stage), loader, index, row)
            for stage, loader, index in parts(batch)
            for row in range(self.size(f"{stage}/{loader}/{index}"))
        ]

    def errors(self, batch: str) -> list[float]:
        """Of each row the output less the target; the output is the sum of the layers'."""
        together = [sum(weights) for weights in zip(*self.layers)]
        return [sum(w * v for w, v in zip(together, x)) - y for x, y in self.rows(batch)]

    def loss(self, batch: str) -> float:
        """The mean of the squared errors."""
        errors = self.errors(batch)
        return sum(error * error for error in errors) / len(errors)

    def backward(self, batch: str, optimizer_idx: int = 0, divided_by: float = 1) -> None:
        """Add the gradient of the loss, divided as for accumulation, to that of one optimizer's layer."""
        errors, rows = self.errors(batch), self.rows(batch)
        before = self.gradients[optimizer_idx] or [0.0] * len(rows[0][0])
        self.gradients[optimizer_idx] = [
            sum_ + 2 * sum(error * x[j] for error, (x, _) in zip(errors, rows)) / len(rows) / divided_by
            for j, sum_ in enumerate(before)
        ]

    def zero_grad(self, optimizer_idx: int = 0) -> None:
        """Clear the gradients of one optimizer's layer."""
        self.gradients[optimizer_idx] = None

    def update(self, optimizer_idx: int = 0) -> None:
        """What `optimizer.step()` makes of the gradients; without any, nothing."""
        gradient = self.gradients[optimizer_idx]
        if gradient is None:
            return
        self._updates[optimizer_idx] += 1
        change = {"sgd": self._sgd, "momentum": self._momentum, "adam": self._adam}[self.scenario.model.optimizer]
        layer, rate = self.layers[optimizer_idx], self.rates[optimizer_idx]
        steps = change(optimizer_idx, gradient)
        self.layers[optimizer_idx] = [weight - rate * step for weight, step in zip(layer, steps)]

    def schedule(self, optimizer_idx: int = 0) -> None:
        """What the optimizer's scheduler does in a step: it halves the rate."""
        self.rates[optimizer_idx] *= GAMMA

    def _sgd(self, optimizer_idx: int, gradient: list[float]) -> list[float]:
        return gradient

    def _momentum(self, optimizer_idx: int, gradient: list[float]) -> list[float]:
        decayed = [g + DECAY * w for g, w in zip(gradient, self.layers[optimizer_idx])]
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
