"""What the engine costs beside a bare PyTorch loop.

    python -m tests.bench                 # the table, some minutes
    python -m tests.bench --quick         # fewer pairs
    python -m tests.bench --json out.json

Every figure is a ratio to a bare loop in the same process: the two run in turn, and the median of the
pairs' ratios is given, beside a bare loop against itself, which shows the noise. Calls are function
calls per step, Python's and C's, counted by `sys.setprofile`: no noise touches them, and
`tests/test_calls.py` holds them. The model is `Linear(32, 2)`, the batch 4, the optimizer SGD. Peers
are measured when they are installed (the extra `bench`).
"""

from __future__ import annotations

import argparse
import gc
import importlib.util
import json
import logging
import resource
import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn

import refimpl

QUIET: dict[str, Any] = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
WARM = 50
STEPS = 450


class Batches:
    """`count` batches of shape (4, 32), the same few tensors again and again."""

    def __init__(self, count: int = STEPS) -> None:
        torch.manual_seed(0)
        few = [torch.randn(4, 32) for _ in range(16)]
        self.batches = [few[i % 16] for i in range(count)]

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[torch.Tensor]:
        return iter(self.batches)


class Timed(Batches):
    """Measures the seconds from batch WARM to the last one: the steps alone, whoever runs them."""

    seconds = 0.0

    def __iter__(self) -> Iterator[torch.Tensor]:
        started, last = 0.0, len(self.batches) - 1
        for index, batch in enumerate(self.batches):
            if index == WARM:
                started = time.perf_counter()
            elif index == last:  # a limit may stop the iteration here
                self.seconds = time.perf_counter() - started
            yield batch


def module_class(base: type, step_name: str = "training_step") -> type:
    """The benchmark's module, for any base with Lightning's interface, with one step of that name."""

    def __init__(self: Any) -> None:
        base.__init__(self)  # type: ignore[misc]
        self.layer = nn.Linear(32, 2)

    def step(self: Any, batch: torch.Tensor, batch_idx: int) -> torch.Tensor:
        return nn.functional.mse_loss(self.layer(batch), TARGET)

    def optimizers(self: Any) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.001)

    body = {"__init__": __init__, step_name: step, "configure_optimizers": optimizers}
    return type("Bench", (base,), body)


TARGET = torch.zeros(4, 2)
Module: Any = module_class(refimpl.LightningModule)
Validated: Any = module_class(refimpl.LightningModule, "validation_step")
Predicted: Any = module_class(refimpl.LightningModule, "predict_step")


class TwelveHooks(Module):  # type: ignore[misc]
    """All twelve hooks of a batch overridden, each as short as can be."""

    def on_train_batch_start(self, batch: Any, batch_idx: int, dataloader_idx: int) -> None:
        return None

    def on_before_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        return batch

    def transfer_batch_to_device(self, batch: Any, device: Any, dataloader_idx: int) -> Any:
        return batch

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        return batch

    def on_before_zero_grad(self, optimizer: Any) -> None:
        return None

    def optimizer_zero_grad(self, epoch: int, batch_idx: int, optimizer: Any, optimizer_idx: int) -> None:
        optimizer.zero_grad()

    def on_before_backward(self, loss: Any) -> None:
        return None

    def backward(self, loss: Any, optimizer: Any, optimizer_idx: Any) -> None:
        loss.backward()

    def on_after_backward(self) -> None:
        return None

    def on_before_optimizer_step(self, optimizer: Any, optimizer_idx: int) -> None:
        return None

    def optimizer_step(self, *args: Any) -> None:
        args[2].step(closure=args[4])

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int, dataloader_idx: int) -> None:
        return None


class Logging(Module):  # type: ignore[misc]
    """One value logged per step, for the step and for the epoch."""

    def training_step(self, batch: torch.Tensor, batch_idx: int) -> torch.Tensor:
        loss = nn.functional.mse_loss(self.layer(batch), TARGET)
        self.log("loss", loss, on_step=True, on_epoch=True)
        return loss


# ---- contestants: each runs its loop over the batches it is given ------------------------------------------


def bare_train(data: Batches) -> None:
    """The loop as a careful user writes it by hand."""
    module = Module()
    optimizer = torch.optim.SGD(module.parameters(), lr=0.001)
    for batch_idx, batch in enumerate(data):
        loss = module.training_step(batch, batch_idx)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def bare_eval(data: Batches) -> None:
    """A pass without gradients, by hand."""
    module = Validated().eval()
    with torch.no_grad():
        for batch_idx, batch in enumerate(data):
            module.validation_step(batch, batch_idx)


def fit(kind: Callable[[], Any]) -> Callable[[Batches], None]:
    """refimpl's fit of one epoch."""
    return lambda data: refimpl.Trainer(max_epochs=1, **QUIET).fit(kind(), data)


def validate(data: Batches) -> None:
    """refimpl's validate."""
    refimpl.Trainer(**QUIET).validate(Validated(), data, verbose=False)


def predict(data: Batches) -> None:
    """refimpl's predict, keeping nothing."""
    refimpl.Trainer(**QUIET).predict(Predicted(), data, return_predictions=False)


# Name, what runs, the bare loop beside it, the ratio and the calls to stay under.
ROWS: list[tuple[str, Callable[[Batches], None], Callable[[Batches], None], float, int]] = [
    ("training step, nothing overridden", fit(Module), bare_train, 1.12, 180),
    ("all twelve hooks of a batch overridden", fit(TwelveHooks), bare_train, 1.15, 200),
    ("one self.log(on_step, on_epoch) per step", fit(Logging), bare_train, 1.20, 200),
    ("validation batch", validate, bare_eval, 1.3, 30),
    ("prediction batch", predict, bare_eval, 1.3, 30),
]


def peers() -> Iterator[tuple[str, Callable[[Batches], None], Callable[[Batches], None]]]:
    """The other trainers that are installed."""
    if importlib.util.find_spec("pytorch_lightning"):
        import pytorch_lightning as pl

        logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
        kind: Any = module_class(pl.LightningModule)
        validated, predicted = (module_class(pl.LightningModule, f"{name}_step") for name in ("validation", "predict"))
        logs: Any = type("Logs", (kind,), {"training_step": Logging.training_step})
        off = {**QUIET, "logger": False, "enable_checkpointing": False, "accelerator": "cpu", "devices": 1}
        name = f"pytorch-lightning {pl.__version__}"

        def trainer() -> Any:
            return pl.Trainer(max_epochs=1, **off)

        yield f"{name}: training step", lambda data: trainer().fit(kind(), data), bare_train
        yield f"{name}: one self.log per step", lambda data: trainer().fit(logs(), data), bare_train
        yield f"{name}: validation batch", lambda data: trainer().validate(validated(), data, verbose=False), bare_eval
        yield (
            f"{name}: prediction batch",
            lambda data: trainer().predict(predicted(), data, return_predictions=False),
            bare_eval,
        )
    if importlib.util.find_spec("ignite"):
        import ignite
        from ignite.engine import Engine

        def ignite_train(data: Batches) -> None:
            module = Module()
            optimizer = torch.optim.SGD(module.parameters(), lr=0.001)

            def step(engine: Any, batch: torch.Tensor) -> torch.Tensor:
                loss = module.training_step(batch, 0)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                return loss.detach()

            Engine(step).run(data, max_epochs=1)

        yield f"ignite {ignite.__version__}: training step", ignite_train, bare_train
    if importlib.util.find_spec("skorch"):
        import skorch

        class Net(skorch.NeuralNet):  # type: ignore[misc]
            def get_iterator(self, dataset: Any, training: bool = False) -> Any:
                return ((batch, TARGET) for batch in dataset)

            def get_dataset(self, X: Any, y: Any = None) -> Any:
                return X

        def skorch_train(data: Batches) -> None:
            net = Net(
                nn.Linear,
                nn.MSELoss,
                module__in_features=32,
                module__out_features=2,
                train_split=None,
                lr=0.001,
                max_epochs=1,
                verbose=0,
            )
            net.initialize()
            net.fit(data, None)

        yield f"skorch {skorch.__version__}: training step", skorch_train, bare_train
    if importlib.util.find_spec("accelerate"):
        import accelerate

        accelerator = accelerate.Accelerator(cpu=True)

        def accelerate_train(data: Batches) -> None:
            module = Module()
            layer, optimizer = accelerator.prepare(module.layer, torch.optim.SGD(module.parameters(), lr=0.001))
            for batch in data:
                loss = nn.functional.mse_loss(layer(batch), TARGET)
                optimizer.zero_grad()
                accelerator.backward(loss)
                optimizer.step()

        yield f"accelerate {accelerate.__version__}: training step", accelerate_train, bare_train


# ---- measuring ----------------------------------------------------------------------------------------------


def ratio(contestant: Callable[[Batches], None], bare: Callable[[Batches], None], pairs: int) -> float:
    """The median over pairs of the contestant's seconds to the bare loop's, the two taking turns."""
    data, ratios = Timed(), []
    for number in range(pairs):
        first, second = (contestant, bare) if number % 2 else (bare, contestant)
        seconds = {}
        for runner in (first, second):
            gc.collect()
            runner(data)
            seconds[runner] = data.seconds
        ratios.append(seconds[contestant] / seconds[bare] if contestant is not bare else 1.0)
    return statistics.median(ratios)


def control(bare: Callable[[Batches], None], pairs: int) -> float:
    """The bare loop against itself: how far from 1.00 noise alone takes the figure."""
    return ratio(lambda data: bare(data), bare, pairs)


def calls(contestant: Callable[[Batches], None], steps: int = 100) -> float:
    """Function calls per step: what `steps` more batches add to a run."""

    def count(batches: int) -> int:
        data, seen = Batches(batches), 0

        def profiler(frame: Any, event: str, arg: Any) -> None:
            nonlocal seen
            seen += event in ("call", "c_call")

        sys.setprofile(profiler)
        try:
            contestant(data)
        finally:
            sys.setprofile(None)
        return seen

    contestant(Batches(20))
    few = count(20)
    return (count(20 + steps) - few) / steps


def import_ratio(pairs: int) -> float:
    """The time of `import refimpl` to that of `import torch`: medians of fresh processes that take turns."""

    def seconds(name: str) -> float:
        code = f"import time; t = time.perf_counter(); import {name}; print(time.perf_counter() - t)"
        return float(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout)

    seconds("refimpl"), seconds("torch")  # the files are read from the disk, and compiled, once
    times: dict[str, list[float]] = {"refimpl": [], "torch": []}
    for number in range(pairs):
        for name in ("refimpl", "torch") if number % 2 else ("torch", "refimpl"):
            times[name].append(seconds(name))
    return statistics.median(times["refimpl"]) / statistics.median(times["torch"])


def memory_growth(steps: int) -> float:
    """Megabytes by which a fresh process's peak grows over `steps` steps after the first thousand."""
    code = f"from tests.bench import peak_growth; print(peak_growth({steps}))"
    return float(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout)


def peak_growth(steps: int) -> float:
    """What `memory_growth` measures, in this process."""
    fit(Module)(Batches(1000))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    fit(Module)(Batches(steps))
    return (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024


def time_growth(steps: int) -> float:
    """Time per step in a run of `steps` to that in runs of a thousand, both beside a bare loop."""

    def per_step(count: int) -> float:
        ours, bare = Timed(count), Timed(count)
        fit(Module)(ours)
        bare_train(bare)
        return ours.seconds / bare.seconds

    return per_step(steps) / statistics.median(per_step(1000) for _ in range(5))


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").split("\n")[0], epilog="example: python -m tests.bench --quick --json bench.json"
    )
    parser.add_argument("--quick", action="store_true", help="5 pairs a row, and 10k steps for what must not grow")
    parser.add_argument("--json", metavar="FILE", help="write the figures there")
    arguments = parser.parse_args()
    pairs, long = (5, 10_000) if arguments.quick else (25, 100_000)
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)

    figures: dict[str, dict[str, float]] = {}

    def row(name: str, **values: float) -> None:
        figures[name] = values
        shown = "  ".join(
            f"{key} {value:.2f}" if value < 100 else f"{key} {value:.0f}" for key, value in values.items()
        )
        print(f"{name:<50} {shown}", flush=True)

    row("bare training loop against itself", ratio=control(bare_train, pairs), calls=calls(bare_train))
    row("bare pass without gradients against itself", ratio=control(bare_eval, pairs), calls=calls(bare_eval))
    for name, ours, bare, most, most_calls in ROWS:
        row(f"refimpl: {name}", ratio=ratio(ours, bare, pairs), most=most, calls=calls(ours), most_calls=most_calls)
    for name, theirs, bare in peers():
        row(name, ratio=ratio(theirs, bare, pairs), calls=calls(theirs))
    row("import refimpl to import torch", ratio=import_ratio(max(5, pairs // 2)), most=1.1)
    row(f"time per step, {long} steps to 1000", ratio=time_growth(long))
    row(f"memory over {long} steps", megabytes=memory_growth(long))
    if arguments.json:
        Path(arguments.json).write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
