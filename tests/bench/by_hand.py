"""The loops as a careful user writes them by hand, each for what one row has a trainer do."""

from __future__ import annotations

import io
from typing import Any

import torch
from tqdm import tqdm

from .measure import Batches, Run
from .modules import NAMES, Evaluated, LogsTen, Pieces, Plain, TwoOptimizers, Watching, made


def train(data: Batches) -> None:
    """Training with nothing beside it."""
    module = made(Plain)
    optimizer = module.configure_optimizers()
    for batch_idx, batch in enumerate(data):
        loss = module.training_step(batch, batch_idx)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def accumulate(data: Batches) -> None:
    """The gradients of four batches added up for one update."""
    module = made(Plain)
    optimizer = module.configure_optimizers()
    for batch_idx, batch in enumerate(data):
        loss = module.training_step(batch, batch_idx) / 4
        if batch_idx % 4 == 0:
            optimizer.zero_grad()
        loss.backward()
        if batch_idx % 4 == 3 or batch_idx == len(data) - 1:
            optimizer.step()


def two_optimizers(data: Batches) -> None:
    """Two optimizers on each batch; while one trains, the other's parameters require no gradients."""
    module = made(TwoOptimizers)
    optimizers = module.configure_optimizers()
    for batch_idx, batch in enumerate(data):
        for optimizer_idx, resting in enumerate((module.second, module.layer)):
            resting.requires_grad_(False)
            loss = module.training_step(batch, batch_idx, optimizer_idx)
            optimizers[optimizer_idx].zero_grad()
            loss.backward()
            optimizers[optimizer_idx].step()
            resting.requires_grad_(True)


def pieces(data: Batches) -> None:
    """An update for each of a batch's four pieces, with the hidden states of the one before, detached."""
    module = made(Pieces)
    optimizer = module.configure_optimizers()
    for batch_idx, batch in enumerate(data):
        hiddens = None
        for piece in batch.split(8, dim=1):
            output = module.training_step(piece, batch_idx, hiddens)
            optimizer.zero_grad()
            output["loss"].backward()
            optimizer.step()
            hiddens = output["hiddens"].detach()


def log_ten(data: Batches) -> dict[str, Any]:
    """Ten values of each step kept, and their mean over the epoch, weighted by batch size."""
    module, seen = made(LogsTen), 0
    latest: dict[str, Any] = {}
    totals: dict[str, Any] = dict.fromkeys(NAMES, 0.0)

    def log(name: str, value: Any, on_step: bool, on_epoch: bool) -> None:
        latest[name] = value.detach()
        totals[name] = totals[name] + latest[name] * 4

    module.log = log
    optimizer = module.configure_optimizers()
    for batch_idx, batch in enumerate(data):
        loss = module.training_step(batch, batch_idx)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        seen += len(batch)
    return {name: total / seen for name, total in totals.items()}


def call(callbacks: int) -> Run:
    """Training with so many callbacks, each told of a batch before and after it."""

    def train(data: Batches) -> None:
        module, watching = made(Plain), [Watching() for _ in range(callbacks)]
        optimizer = module.configure_optimizers()
        for batch_idx, batch in enumerate(data):
            for callback in watching:
                callback.on_train_batch_start(module, batch, batch_idx)
            loss = module.training_step(batch, batch_idx)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            for callback in watching:
                callback.on_train_batch_end(module, loss.detach(), batch, batch_idx)

    return train


def progress_bar(data: Batches) -> None:
    """Training behind a bar."""
    train(tqdm(data, file=io.StringIO()))


def evaluate(data: Batches) -> None:
    """A pass without gradients."""
    module = made(Evaluated).eval()
    with torch.no_grad():
        for batch_idx, batch in enumerate(data):
            module.validation_step(batch, batch_idx)
