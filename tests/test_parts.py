"""The parts of a run: each is written in its own file, none sees the trainer, and nothing of a batch outlives it."""

from __future__ import annotations

import ast
import copy
import gc
import pickle
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from models import Line, pairs, quiet

from refimpl import LightningModule
from refimpl.trainer.options import Options

ENGINE = Path(__file__).parent.parent / "refimpl"
# What a part is called where it is held, and the classes whose state is meant.
PARTS = {
    "progress": ("progress.py", "Progress"),
    "optimization": ("optimization.py", "Optimization"),
    "block": ("optimization.py", "OptimizerBlock"),
    "data": ("data.py", "Data"),
    "loader": ("data.py", "TrainLoader"),
    "logbook": ("loggers/logbook.py", "Logbook"),
    "receivers": ("receivers.py", "Receivers"),
    "devices": ("devices.py", "Devices"),
}
MUTATORS = {"append", "extend", "insert", "pop", "clear", "update", "remove", "setdefault"}


def state_of(file: str, owner: str) -> set[str]:
    """The attributes that a class gives to itself."""
    [node] = [n for n in ast.parse((ENGINE / file).read_text()).body if isinstance(n, ast.ClassDef) and n.name == owner]
    return {
        part.attr
        for part in ast.walk(node)
        if isinstance(part, ast.Attribute) and isinstance(part.ctx, ast.Store) and ast.unparse(part.value) == "self"
    }


def written(source: str) -> Iterator[tuple[str, str]]:
    """What a source writes of something that it holds: the holder's last name, and the attribute."""
    for node in ast.walk(ast.parse(source)):
        stores = isinstance(node, ast.Attribute) and not isinstance(node.ctx, ast.Load)
        target: ast.expr | None = node if stores else None  # type: ignore[assignment]
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in MUTATORS:
            target = node.func.value  # of a list or a dict
        if isinstance(target, ast.Attribute):
            yield ast.unparse(target.value).rpartition(".")[2], target.attr


@pytest.mark.parametrize("part", PARTS)
def test_a_parts_state_is_written_in_its_own_file_only(part: str) -> None:
    home, owner = PARTS[part]
    state = state_of(home, owner)
    assert len(state) >= 2
    for path in ENGINE.rglob("*.py"):
        if path == ENGINE / home:
            continue
        writes = set(written(path.read_text(encoding="utf-8")))
        assert {attr for holder, attr in writes if holder == part} & state == set(), path


@pytest.mark.parametrize("source", [
    "run.progress.global_step += 1", "for run.progress.batch in batches: pass", "progress.batch, x = 1, 2",
    "optimization.outputs.append(output)", "del self.data.train",
])  # fmt: skip
def test_a_write_is_seen(source: str) -> None:
    assert len(list(written(source))) == 1


def test_no_part_sees_the_trainer() -> None:
    for home, _ in PARTS.values():
        names = {node.id for node in ast.walk(ast.parse((ENGINE / home).read_text())) if isinstance(node, ast.Name)}
        assert "trainer" not in names - ({"trainer"} if home == "receivers.py" else set()), home  # which hands it on


def test_an_option_that_is_set_is_checked() -> None:
    trainer = quiet(max_epochs=1)
    trainer.max_epochs += 1
    assert trainer.options.max_epochs == 2
    with pytest.raises(ValueError, match="max_epochs='3'; an int from -1 is accepted"):
        trainer.max_epochs = "3"  # type: ignore[assignment]
    assert all(hasattr(trainer, name) for name in Options.__annotations__)


SEEN: list[weakref.ref[Any]] = []
COPIED: list[Any] = []


class Holding(LightningModule):
    """Outputs that can be watched; it copies and pickles its trainer where it is told to."""

    def __init__(self, at: str = "") -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(2))
        SEEN.clear(), COPIED.clear()
        if at:
            vars(self)[at] = self.copy_trainer

    def copy_trainer(self, *args: Any) -> None:
        pickle.loads(pickle.dumps(self.trainer))
        COPIED.append(copy.deepcopy(self.trainer))

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        hidden = batch[0] * self.weight
        SEEN.append(weakref.ref(hidden))
        return {"loss": hidden.sum(), "hidden": hidden}

    def validation_step(self, batch: Any, batch_idx: int) -> None: ...

    def on_validation_end(self) -> None:
        gc.collect()
        assert self.trainer is not None and self.trainer.run.progress.batch is None

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD([self.weight], lr=0.1, momentum=0.9)


@pytest.mark.parametrize("options", [{}, {"accumulate_grad_batches": 2}, {"max_epochs": 2}])
def test_nothing_of_a_batch_outlives_a_fit(options: dict[str, Any]) -> None:
    module = Holding()
    trainer = quiet(**options)
    trainer.fit(module, pairs(3), pairs(1))
    gc.collect()
    assert [reference() for reference in SEEN] == [None] * len(SEEN)


@pytest.mark.parametrize("at", ["on_train_start", "on_train_batch_end", "on_validation_end", "on_fit_end", "teardown"])
def test_a_trainer_can_be_copied_and_pickled_in_every_hook_and_afterwards(at: str) -> None:
    module = Holding(at)
    trainer = quiet(max_epochs=2)
    trainer.fit(module, pairs(3), pairs(1))
    again = pickle.loads(pickle.dumps(trainer))
    assert again.global_step == copy.deepcopy(trainer).global_step == 6
    assert COPIED and COPIED[-1].options.max_epochs == 2
    again.max_epochs = 3
    again.fit(Line(), pairs(3), pairs(1))
    assert (again.current_epoch, trainer.current_epoch) == (3, 2)
