"""load_from_checkpoint: a module with the hyperparameters and the weights that a file holds."""

from __future__ import annotations

import io
import math
import re
import sys
from argparse import Namespace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from refimpl import CheckpointError, ConfigurationError, CSVLogger, LightningModule, ModelCheckpoint
from tests.models import Line, pairs, quiet

ASSETS = Path(__file__).parent / "assets"


class Sized(Line):
    """Has a layer beside the line's, as wide as it is told."""

    def __init__(self, width: int, rate: float = 0.1, kind: Any = "plain") -> None:
        super().__init__()
        self.save_hyperparameters()
        self.more = nn.Linear(width, 2)
        self.found: Any = None

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["found"] = [1, 2]

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.found = checkpoint["found"]


@pytest.fixture
def saved(tmp_path: Path) -> tuple[Sized, Path]:
    """A module that was trained, and the file that its weights are in."""
    module, path = Sized(3, rate=0.25), tmp_path / "saved.ckpt"
    trainer = quiet(limit_val_batches=0)
    trainer.fit(module, pairs(2))
    trainer.save_checkpoint(path)
    return module, path


def same_weights(one: nn.Module, other: nn.Module) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), other.state_dict().values()))


def test_it_is_made_with_its_hyperparameters_and_given_its_weights(saved: tuple[Sized, Path]) -> None:
    module, path = saved
    loaded = Sized.load_from_checkpoint(path)
    assert type(loaded) is Sized and loaded is not module
    assert loaded.hparams == module.hparams == {"width": 3, "rate": 0.25, "kind": "plain"}
    assert same_weights(loaded, module)
    assert loaded.found == [1, 2]  # on_load_checkpoint had its chance
    assert loaded.trainer is None


def test_a_text_a_file_and_what_a_file_holds(saved: tuple[Sized, Path]) -> None:
    module, path = saved
    with path.open("rb") as file:
        for source in (str(path), file, io.BytesIO(path.read_bytes())):
            assert same_weights(Sized.load_from_checkpoint(source), module)


def test_overrides_take_the_place_of_what_was_saved(saved: tuple[Sized, Path]) -> None:
    _, path = saved
    assert Sized.load_from_checkpoint(path, rate=0.5).hparams == {"width": 3, "rate": 0.5, "kind": "plain"}
    with pytest.warns(UserWarning, match=r"Sized takes no 'rat', which is left out; did you mean 'rate'\?") as told:
        assert Sized.load_from_checkpoint(path, rat=0.5).hparams.rate == 0.25
    assert [Path(warning.filename) for warning in told] == [Path(__file__)]


def test_weights_that_do_not_fit(saved: tuple[Sized, Path]) -> None:
    _, path = saved
    with pytest.raises(CheckpointError, match=r"(?s)saved\.ckpt.*does not fit Sized.*more\.weight"):
        Sized.load_from_checkpoint(path, width=5)

    class Wider(Sized):
        def __init__(self, width: int, rate: float = 0.1, kind: Any = "plain") -> None:
            super().__init__(width, rate, kind)
            self.another = nn.Linear(1, 1)

    with pytest.raises(CheckpointError, match=r"(?s)does not fit Wider.*another\.weight"):
        Wider.load_from_checkpoint(path)


def test_weights_that_fit_in_part(saved: tuple[Sized, Path]) -> None:
    module, path = saved

    class Other(Sized):
        def __init__(self, width: int, rate: float = 0.1, kind: Any = "plain") -> None:
            super().__init__(width, rate, kind)
            self.another, self.layer = nn.Linear(1, 1), nn.Identity()

    with pytest.warns(UserWarning) as told:
        assert torch.equal(Other.load_from_checkpoint(path, strict=False).more.weight, module.more.weight)
    assert re.search(
        r"saved\.ckpt.* does not fit Other in all: it lacks \['another\.weight', 'another\.bias'\], .* and has "
        r"\['layer\.weight', 'layer\.bias'\] besides", str(told[0].message)
    )  # fmt: skip
    assert [Path(warning.filename) for warning in told] == [Path(__file__)]
    assert same_weights(Sized.load_from_checkpoint(path, strict=False), module)  # of which nothing is said


def test_a_module_that_loads_its_weights_itself(saved: tuple[Sized, Path]) -> None:
    module, path = saved

    class Own(Sized):
        def load_state_dict(self, *args: Any) -> Any:
            super().load_state_dict(*args)

    assert same_weights(Own.load_from_checkpoint(path), module)


def test_where_the_weights_go(saved: tuple[Sized, Path]) -> None:
    _, path = saved
    moved: list[Any] = []

    def location(storage: Any, where: str) -> Any:
        moved.append(where)
        return storage

    Sized.load_from_checkpoint(path, map_location=location)
    assert set(moved) == {"cpu"}
    assert Sized.load_from_checkpoint(path, map_location="cpu").device == torch.device("cpu")


def test_hyperparameters_that_are_more_than_data_are_given_again(tmp_path: Path) -> None:
    trainer = quiet(limit_val_batches=0)
    trainer.fit(Sized(2, kind=nn.ReLU()), pairs(1))
    with pytest.warns(UserWarning, match=r"the hyperparameters kind of Sized are no plain data"):
        trainer.save_checkpoint(tmp_path / "saved.ckpt")
    assert Sized.load_from_checkpoint(tmp_path / "saved.ckpt", kind="given").hparams.kind == "given"
    assert Sized.load_from_checkpoint(tmp_path / "saved.ckpt").hparams.kind == "plain"  # the default


def test_an_argument_that_nobody_gives(tmp_path: Path) -> None:
    class Forgetful(Line):
        def __init__(self, width: int) -> None:
            super().__init__()

    trainer = quiet(limit_val_batches=0)
    trainer.fit(Forgetful(3), pairs(1))
    trainer.save_checkpoint(tmp_path / "saved.ckpt")
    with pytest.raises(ConfigurationError, match=r"Forgetful requires width"):
        Forgetful.load_from_checkpoint(tmp_path / "saved.ckpt")
    assert isinstance(Forgetful.load_from_checkpoint(tmp_path / "saved.ckpt", width=1), Forgetful)


class Unsaved(Line):
    """Keeps no hyperparameters, so that its checkpoint has none."""

    def __init__(self, width: int, rate: float = 0.1) -> None:
        super().__init__()
        self.more, self.rate = nn.Linear(width, 2), rate


@pytest.fixture
def unsaved(tmp_path: Path) -> Path:
    trainer = quiet(limit_val_batches=0)
    trainer.fit(Unsaved(3), pairs(1))
    trainer.save_checkpoint(tmp_path / "saved.ckpt")
    return tmp_path / "saved.ckpt"


def test_hyperparameters_out_of_a_loggers_file(unsaved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is read without PyYAML; other files are not."""
    monkeypatch.setitem(sys.modules, "yaml", None)
    CSVLogger("logs", version="a").log_hyperparams({"width": 3, "rate": math.inf})
    loaded = Unsaved.load_from_checkpoint(unsaved, None, "logs/lightning_logs/a/hparams.yaml")
    assert (loaded.more.in_features, loaded.rate) == (3, math.inf)
    Path("hparams.yaml").write_text("width: 3\n")
    with pytest.raises(ModuleNotFoundError, match=r"hparams_file='hparams\.yaml' needs PyYAML: pip install pyyaml"):
        Unsaved.load_from_checkpoint(unsaved, hparams_file="hparams.yaml")


def test_hyperparameters_out_of_a_file(saved: tuple[Sized, Path]) -> None:
    """They take the place of those that were saved, in an object, too; arguments take theirs."""
    pytest.importorskip("yaml")
    _, path = saved
    Path("hparams.yaml").write_text("width: 3  # a comment\nrate: 0.5\nkind:\n  - a\n  - {b: 1}\n")
    loaded = Sized.load_from_checkpoint(path, hparams_file=Path("hparams.yaml"), rate=0.75)
    assert loaded.hparams == {"width": 3, "rate": 0.75, "kind": ["a", {"b": 1}]}


def test_what_a_file_holds_and_nothing_takes(unsaved: Path) -> None:
    Path("hparams.yaml").write_text('"width": 3\n"old": 1\n')
    with pytest.warns(UserWarning, match="Unsaved takes no 'old', which is left out"):
        Unsaved.load_from_checkpoint(unsaved, hparams_file="hparams.yaml")


@pytest.mark.parametrize("content", [
    b"key,value", b"- 1", b"1: 2", b"a: !!python/object:os.system {}", b"a: [", b"\xff\x00"
])  # fmt: skip
def test_a_file_without_names_and_values(unsaved: Path, content: bytes) -> None:
    pytest.importorskip("yaml")
    Path("x.yaml").write_bytes(content)
    with pytest.raises(ConfigurationError, match=r"hparams_file='x\.yaml' holds .*; names with values are accepted"):
        Unsaved.load_from_checkpoint(unsaved, hparams_file="x.yaml")


def test_one_object_of_hyperparameters_comes_back_as_one(tmp_path: Path) -> None:
    class OfParams(Line):
        def __init__(self, params: Namespace) -> None:
            super().__init__()
            self.save_hyperparameters(params)
            self.more = nn.Linear(params.width, 1)

    trainer = quiet(limit_val_batches=0)
    trainer.fit(OfParams(Namespace(width=4, name="a")), pairs(1))
    trainer.save_checkpoint(tmp_path / "saved.ckpt")
    loaded = OfParams.load_from_checkpoint(tmp_path / "saved.ckpt")
    assert loaded.hparams == {"width": 4, "name": "a"} and loaded.more.in_features == 4


def test_the_example_of_the_test_loop(tmp_path: Path) -> None:
    """Train, load what was saved, and test it with another trainer."""
    module = Sized(2)
    trainer = quiet(enable_checkpointing=True, callbacks=ModelCheckpoint(tmp_path), limit_val_batches=0)
    trainer.fit(module, pairs(2))
    assert trainer.checkpoint_callback is not None
    loaded = Sized.load_from_checkpoint(trainer.checkpoint_callback.best_model_path)
    before = {name: value.clone() for name, value in loaded.state_dict().items()}
    assert len(quiet().test(loaded, dataloaders=pairs(1))) == 1
    assert all(torch.equal(value, before[name]) for name, value in loaded.state_dict().items())


class Released(LightningModule):
    """What the releases' checkpoints in `assets` are of."""

    def __init__(self, width: int = 0, rate: float = 0.0, **others: Any) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.layer = nn.Linear(2, 1)


@pytest.mark.parametrize("version", ["1.5.10", "2.6.6"])
def test_checkpoints_of_lightning(version: str) -> None:
    path = ASSETS / f"lightning-{version}.ckpt"
    loaded = Released.load_from_checkpoint(path)
    held = torch.load(path, weights_only=False)
    assert all(torch.equal(value, held["state_dict"][name]) for name, value in loaded.state_dict().items())
    assert held["hyper_parameters"].items() <= loaded.hparams.items()
