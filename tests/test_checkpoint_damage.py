"""Files that were damaged, and files that are whole and hold other values: CheckpointError, or a run that can be."""

from __future__ import annotations

import io
import os
import random
import zipfile
from collections.abc import Callable, Container, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchmetrics
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from refimpl import Callback, CheckpointError, EarlyStopping, LightningModule, ModelCheckpoint, seed_everything
from refimpl.saving.file import read
from tests.models import quiet

# ---- a run that keeps account of everything ----------------------------------------------------------------


class Counts(Callback):
    """Keeps a state."""

    count = 0

    def on_train_batch_end(self, *args: Any) -> None:
        self.count += 1

    def state_dict(self) -> dict[str, Any]:
        return {"count": self.count}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.count = 0 + state["count"]


class Everything(LightningModule):
    """Two optimizers, three schedulers, values that are logged in every way, metrics, and all that is random."""

    def __init__(self, tags: Any = ("a", "b"), root: Any = "here") -> None:
        super().__init__()
        self.save_hyperparameters()
        self.first = nn.Sequential(nn.Linear(3, 4), nn.Dropout(0.2), nn.BatchNorm1d(4), nn.Linear(4, 1))
        self.second = nn.Linear(3, 1)
        self.mae, self.all = torchmetrics.MeanAbsoluteError(), torchmetrics.CatMetric()
        self.collected: list[int] = []

    def on_train_epoch_start(self) -> None:
        self.log("begun", self.current_epoch + 0.5, reduce_fx=lambda values: values.sum())

    def training_step(self, batch: Any, batch_idx: int, optimizer_idx: int) -> Any:
        output = self.first(batch[0]) + self.second(batch[0])
        loss = ((output - batch[1]) ** 2).mean() * (1 + 0.1 * random.random() + 0.1 * float(np.random.rand()))
        self.mae(output.detach(), batch[1])
        self.all(loss.detach())
        self.log("loss", loss, on_step=True, on_epoch=True, prog_bar=True)
        self.log("worst", loss, on_step=False, on_epoch=True, reduce_fx="max")
        self.log("spread", loss, on_step=False, on_epoch=True, reduce_fx=lambda values: values.max() - values.min())
        self.log("mae", self.mae, on_step=False, on_epoch=True)
        return {"loss": loss, "more": [1]}

    def training_epoch_end(self, outputs: list[Any]) -> None:
        self.collected.append(len(outputs))

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.log("val_loss", ((self.first(batch[0]) - batch[1]) ** 2).mean())

    def configure_optimizers(self) -> Any:
        schedulers = torch.optim.lr_scheduler
        adam = torch.optim.Adam(self.first.parameters(), lr=0.01)
        sgd = torch.optim.SGD(self.second.parameters(), lr=0.1, momentum=0.9)
        plateau = {"scheduler": schedulers.ReduceLROnPlateau(adam, patience=0), "interval": "step", "monitor": "loss"}
        warm = schedulers.SequentialLR(sgd, [schedulers.ConstantLR(sgd), schedulers.StepLR(sgd, 2)], [3])
        return [adam, sgd], [plateau, {"scheduler": warm, "interval": "step"}, schedulers.CosineAnnealingLR(adam, 5)]


class Saves(Callback):
    """In the second epoch, after the third batch: within a window of two."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def on_train_batch_end(self, trainer: Any, *args: Any) -> None:
        if (trainer.current_epoch, args[3]) == (1, 2):
            trainer.save_checkpoint(self.path)


def fit(folder: Path, ckpt_path: Path | None = None, saver: Any = None) -> dict[str, Any]:
    """Two epochs of 6 batches, in windows of two; returns what they came to."""
    seed_everything(1 if ckpt_path is None else 5)
    draws = torch.Generator().manual_seed(7)
    x = torch.randn(22, 3, generator=draws)
    data, module = TensorDataset(x, x.sum(1, keepdim=True)), Everything()
    best = ModelCheckpoint(folder / "best", "{epoch}", monitor="val_loss", save_top_k=2)
    trainer = quiet(max_epochs=2, accumulate_grad_batches=2, enable_checkpointing=True,
                    callbacks=[Counts(), EarlyStopping("val_loss", patience=9), best, *([saver] if saver else [])],
                    )  # fmt: skip
    loaders = (DataLoader(data, 4, shuffle=True, generator=torch.Generator().manual_seed(seed)) for seed in (3, 5))
    trainer.fit(module, *loaders, ckpt_path=ckpt_path)
    return {
        "weights": {name: value.tolist() for name, value in module.state_dict().items()},
        "optimizers": [str(optimizer.state_dict()) for optimizer in trainer.optimizers],
        "schedulers": [str(schedule.scheduler.state_dict()) for schedule in trainer.run.optimization.schedules],
        "metrics": {name: float(value) for name, value in trainer.callback_metrics.items()},
        "counts": (trainer.current_epoch, trainer.global_step, module.collected[-1:]),
    }


class Whole:
    """A checkpoint of the middle of an epoch and of a window, as bytes and as what it holds, and where that leads."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.path = folder, folder / "changed.ckpt"
        self.result = fit(folder, saver=Saves(self.path))
        self.bytes = self.path.read_bytes()
        self.holds = read(io.BytesIO(self.bytes))
        self.places = list(places(self.holds))

    def changed(self, place: int, change: Any, keys: Container[str]) -> dict[str, Any]:
        """With another value somewhere below one of the keys."""
        every = [path for path in self.places if path[0] in keys]
        return replaced(self.holds, every[place % len(every)], change)  # type: ignore[no-any-return]

    def fitted(self, holds: Any) -> dict[str, Any]:
        torch.save(holds, self.path)
        return fit(self.folder, self.path)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Whole:
    return Whole(tmp_path_factory.mktemp("whole"))


# ---- other bytes -------------------------------------------------------------------------------------------


def same(one: Any, other: Any) -> bool:
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict):
        return list(one) == list(other) and all(same(one[key], other[key]) for key in one)
    if isinstance(one, (list, tuple)):
        return type(one) is type(other) and len(one) == len(other) and all(map(same, one, other))
    return type(one) is type(other) and one == other


def cut(whole: bytes, place: int, new: bytes) -> bytes:
    return whole[:place]


def flipped(whole: bytes, place: int, new: bytes) -> bytes:
    return overwritten(whole, place, bytes([whole[place] ^ 1 << new[0] % 8]))


def inserted(whole: bytes, place: int, new: bytes) -> bytes:
    return whole[:place] + new + whole[place:]


def overwritten(whole: bytes, place: int, new: bytes) -> bytes:
    return whole[:place] + new + whole[place + len(new) :]


def removed(whole: bytes, place: int, new: bytes) -> bytes:
    return whole[:place] + whole[place + len(new) :]


@settings(max_examples=300)
@given(
    damage=st.sampled_from([cut, flipped, inserted, overwritten, removed]),
    place=st.integers(0, 10**6), at_the_end=st.booleans(), new=st.binary(min_size=1, max_size=80),
)  # fmt: skip
def test_damaged_bytes_are_an_error_or_do_not_matter(
    whole: Whole, damage: Any, place: int, at_the_end: bool, new: bytes
) -> None:
    size = len(whole.bytes)
    damaged = damage(whole.bytes, max(0, size - place % 3000 - 1) if at_the_end else place % size, new)
    whole.path.write_bytes(damaged)
    for source in (io.BytesIO(damaged), whole.path):
        try:
            assert same(read(source), whole.holds)
        except CheckpointError as error:
            assert "is no checkpoint, or a damaged one: " in str(error)


def small(**options: Any) -> bytes:
    file = io.BytesIO()
    torch.save({"state_dict": {"w": torch.ones(3)}}, file, **options)
    return file.getvalue()


@pytest.mark.parametrize("content, told", [
    (small()[:-1], "its archive is damaged: its end is missing"),
    (small()[:100], "its archive is damaged: its end is missing"),
    (small().replace(torch.ones(3).numpy().tobytes(), bytes(12)), r"the checksum of its 'archive/data/0' is wrong"),
    (small().replace(b"PK\1\2", b"PK\1\3"), "its archive is damaged: Bad magic number for central directory"),
    (b"epoch: 1\n", "it does not begin as a file of torch.save does"),
    (b"", "it is empty"),
    (small(_use_new_zipfile_serialization=False)[:-20], r"\w+Error"),
], ids=["end", "cut", "bit", "table", "text", "empty", "legacy"])  # fmt: skip
def test_what_is_wrong_with_a_file_is_said(tmp_path: Path, content: bytes, told: str) -> None:
    (tmp_path / "x.ckpt").write_bytes(content)
    with pytest.raises(CheckpointError, match=rf"x\.ckpt.* is no checkpoint, or a damaged one: {told}"):
        read(tmp_path / "x.ckpt")
    with pytest.raises(CheckpointError, match=told):
        read(io.BytesIO(content))
    with pytest.raises(CheckpointError, match=told):
        read(tmp_path / "x.ckpt", weights_only=False)


def test_a_member_that_torch_would_skip(tmp_path: Path) -> None:
    """One bit in the archive's table makes a folder of a tensor, whose memory would be left as it is."""
    damaged, [tensor] = bytearray(small()), [one for one in zipfile.ZipFile(io.BytesIO(small())).infolist()
                                             if one.filename == "archive/data/0"]  # fmt: skip
    entry = damaged.rindex(tensor.filename.encode()) - 46
    assert damaged[entry : entry + 4] == b"PK\1\2"
    damaged[entry + 38] |= 0x10
    with pytest.raises(CheckpointError, match=r"the checksum of its 'archive/data/0' is wrong"):
        read(io.BytesIO(damaged))


def test_other_errors_are_the_systems(tmp_path: Path) -> None:
    class Breaks(io.BytesIO):
        def read(self, *args: Any) -> bytes:
            raise OSError(5, "Input/output error")

    with pytest.raises(OSError, match="Input/output"):
        read(Breaks(small()))
    if os.getuid():
        (tmp_path / "x.ckpt").write_bytes(small())
        (tmp_path / "x.ckpt").chmod(0)
        with pytest.raises(PermissionError):
            read(tmp_path / "x.ckpt")


def test_a_file_object_is_read_from_where_it_is() -> None:
    for options in ({}, {"_use_new_zipfile_serialization": False}):
        file = io.BytesIO(b"before" + small(**options))
        file.seek(6)
        assert read(file)["state_dict"]["w"].tolist() == [1, 1, 1]


# ---- other values ------------------------------------------------------------------------------------------


def places(holds: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The keys and indices that lead to every value; of the many words of a random state, to the first."""
    items = holds.items() if isinstance(holds, dict) else enumerate(holds if isinstance(holds, (list, tuple)) else ())
    for key, value in list(items)[:30]:
        yield (*path, key)
        yield from places(value, (*path, key))


def replaced(holds: Any, path: tuple[Any, ...], change: Callable[[Any, Any], Any]) -> Any:
    """A copy, in which `change(container, key)` has changed what `path` leads to."""
    copy = dict(holds) if isinstance(holds, dict) else list(holds)
    if len(path) == 1:
        change(copy, path[0])
    else:
        copy[path[0]] = replaced(holds[path[0]], path[1:], change)
    return copy if isinstance(holds, (dict, list)) else tuple(copy)


def negative(value: Any) -> Any:
    if isinstance(value, bool):
        return not value
    if isinstance(value, (int, float)):
        return -value or -1
    if isinstance(value, torch.Tensor):
        return -value - 1
    return tuple(value) if isinstance(value, list) else list(value) if isinstance(value, tuple) else -1


def empty(value: Any) -> Any:
    return value.reshape(-1)[:0] if isinstance(value, torch.Tensor) else type(value)()


def gone(container: Any, key: Any) -> None:
    del container[key]


def twice(container: Any, key: Any) -> None:
    if isinstance(container, dict):
        container[f"{key}x"] = container.pop(key)
    else:
        container.insert(key, container[key])


def to(make: Callable[[Any], Any]) -> Callable[[Any, Any], None]:
    return lambda container, key: container.__setitem__(key, make(container[key]))


CHANGES = [
    gone, twice, to(lambda value: None), to(lambda value: "x"), to(negative), to(lambda value: [value]),
    to(lambda value: {"x": value}), to(lambda value: empty(value) if value is not None else 0), to(lambda value: []),
    to(lambda value: 1.5), to(lambda value: 7), to(lambda value: True), to(lambda value: torch.ones(2, 3)),
]  # fmt: skip


@pytest.mark.slow
@settings(max_examples=100)
@given(place=st.integers(0, 10**6), change=st.sampled_from(CHANGES))
@pytest.mark.filterwarnings("ignore")
def test_a_fit_goes_on_or_says_what_is_wrong(whole: Whole, place: int, change: Any) -> None:
    try:
        whole.fitted(whole.changed(place, change, whole.holds))
    except CheckpointError as error:
        assert "changed.ckpt" in str(error) or "generators" in str(error)


HYPERPARAMETERS = ("hyper_parameters", "hparams_kinds", "hparams_arguments")


@pytest.mark.slow
@settings(max_examples=120)
@given(place=st.integers(0, 10**6), change=st.sampled_from(CHANGES))
@pytest.mark.filterwarnings("ignore")
def test_a_module_is_loaded_or_it_is_said_what_is_wrong(whole: Whole, place: int, change: Any) -> None:
    torch.save(whole.changed(place, change, ("state_dict", *HYPERPARAMETERS)), whole.path)
    try:
        loaded = Everything.load_from_checkpoint(whole.path)
    except CheckpointError as error:
        assert "changed.ckpt" in str(error)
    else:
        assert loaded.state_dict().keys() == whole.holds["state_dict"].keys()


def test_what_was_not_changed_goes_on_as_it_was(whole: Whole) -> None:
    assert whole.fitted(whole.holds) == whole.result


ADAM, SGD = "optimizer_states/0", "optimizer_states/1"
COSINE = "lr_schedulers/2"


def at(path: str) -> tuple[Any, ...]:
    return tuple(int(key) if key.isdigit() else key for key in path.split("/"))


def x(value: Any) -> str:
    return "x"


def none(value: Any) -> None:
    return None


@pytest.mark.parametrize("path, change, told", [
    ("epoch", to(x), "epoch is str 'x'; accepted is an int from 0"),
    ("global_step", to(lambda value: -1), "global_step is int -1; accepted is an int from 0"),
    ("refimpl_version", gone, "lacks 'refimpl_version'"),
    ("optimizer_states", to(lambda value: {"x": value}), "optimizer_states is dict .*; accepted is a list"),
    ("callbacks/Counts/state_dict", to(none), r"callbacks\.Counts\.state_dict is NoneType None; accepted is a mapping"),
    ("hparams_kinds", to(lambda value: [1]), "hparams_kinds is list .*; accepted is a mapping"),
    ("state_dict/second.bias", to(x), r"state_dict does not fit Everything: (?s:.*)second\.bias"),
    ("loops", to(none), "loops is NoneType None; accepted is a mapping"),
    ("loops/data/in_epoch", to(lambda value: False), r"loops\.data\.in_epoch is bool False; accepted is True"),
    ("loops/progress/batches_done", to(float), r"loops\.progress\.batches_done is float"),
    ("loops/data/random_state/python/2", to(x), r"loops\.data\.random_state\.python is tuple"),
    ("loops/data/random_state/numpy/2", to(lambda value: 625), r"loops\.data\.random_state\.numpy is tuple .* what numpy"),  # noqa: E501
    ("loops/data/random_state/torch", to(empty), r"loops\.data\.random_state\.torch is Tensor"),
    ("loops/data/loader_starts", to(lambda value: []), r"loops\.data\.loader_starts has no item"),
    ("loops/data/loader_starts/0/generators", to(lambda value: []), "the states of 0 generators .* that has 1 now"),
    ("loops/optimization/epoch/empty_windows/0", gone, r"loops\.optimization\.epoch\.empty_windows has 1 items; accepted is 2"),  # noqa: E501
    ("loops/optimization/epoch/gradients", gone, "epoch lacks 'gradients'"),
    ("loops/optimization/epoch/gradients/second.bias", to(empty), r"loops\.optimization\.epoch\.gradients\['second\.bias'\] is .* a tensor of shape \(1,\)"),  # noqa: E501
    ("loops/optimization/turns", to(lambda value: {"batches": 1, "used": [], "owner": 0}), r"loops\.optimization\.turns is dict"),  # noqa: E501
    ("loops/logbook/metrics/mae/values/total", to(empty), r"loops\.logbook\.metrics\.mae\.values\.total is .* shape \(\)"),  # noqa: E501
    ("loops/optimization/epoch/outputs/0", to(none), r"loops\.optimization\.epoch\.outputs\[0\] is NoneType None; accepted is a tensor or a mapping or a list"),  # noqa: E501
    ("loops/logbook/page/0/0/0", to(lambda value: "on_fit_end"), r"logbook\.page\[0\]\[0\]\[0\] is str 'on_fit_end'"),
    ("loops/logbook/page/1/1/total", to(x), r"page\[1\]\[1\]\.total is str 'x'; accepted is a number or a tensor"),
    ("loops/logbook/page/1/1/total", twice, r"page\[1\]\[1\] has 'totalx'; did you mean 'total'\?"),
    ("loops/logbook/page/1/1/name", to(lambda value: "lost"), r"page\[1\]\[1\]\.name is str 'lost'; accepted is 'loss'"),  # noqa: E501
    (f"{ADAM}/state/2/exp_avg", to(empty), r"optimizer_states\[0\].* Adam: state\[2\]\.exp_avg is .* shape \(4,\)"),
    (f"{ADAM}/state/2/exp_avg_sq", gone, r"state\[2\] lacks 'exp_avg_sq'"),
    (f"{ADAM}/state/2/step", to(negative), r"state\[2\]\.step is Tensor tensor\(-\d\.\)"),
    (f"{ADAM}/param_groups/0/lr", to(negative), "optimizer Adam: ValueError: Invalid learning rate"),
    (f"{ADAM}/param_groups/0/lr", to(x), r"param_groups\[0\]\.lr is str 'x'; accepted is a number"),
    (f"{ADAM}/param_groups/0/betas", to(lambda value: value[:1]), r"param_groups\[0\]\.betas has 1 items"),
    (f"{SGD}/param_groups/0/params", to(lambda value: value[::-1]), r"param_groups\[0\]\.params is list \[1, 0\]"),
    (f"{SGD}/state/0/momentum_buffer", to(x), "optimizer SGD: "),
    ("lr_schedulers/0/passed", to(none), r"lr_schedulers\[0\]\.passed is NoneType None"),
    ("lr_schedulers/1/state/_schedulers/1/base_lrs", to(lambda value: []), r"_schedulers\[1\]\.base_lrs has 0"),
    (f"{COSINE}/is_due", to(lambda value: True), r"lr_schedulers\[2\]\.is_due is bool True; accepted is False"),
    (f"{COSINE}/state", to(none), r"lr_schedulers\[2\]\.state is NoneType None"),
    (f"{COSINE}/state/last_epoch", gone, r"lr_schedulers\[2\]\.state lacks 'last_epoch'"),
    (f"{COSINE}/state/T_max", to(empty), r"lr_schedulers\[2\]\.state\.T_max is int 0; accepted is a number above 0"),
    (f"{COSINE}/state/T_max", to(x), r"lr_schedulers\[2\]\.state\.T_max is str 'x'"),
    ("callbacks/EarlyStopping/state_dict/wait_count", to(x),
     r"callbacks\['EarlyStopping'\]\.state_dict does not fit EarlyStopping: wait_count is str 'x'; .* int from 0"),
    ("callbacks/ModelCheckpoint/state_dict/best_k_models", to(none), "best_k_models is NoneType"),
    ("callbacks/Counts/state_dict/count", to(x), "state_dict does not fit Counts: TypeError"),
])  # fmt: skip
def test_where_it_is_wrong_is_said(whole: Whole, path: str, change: Any, told: str) -> None:
    with pytest.raises(CheckpointError, match=told):
        whole.fitted(replaced(whole.holds, at(path), change))


def test_nothing_has_begun_when_the_layout_is_wrong(whole: Whole) -> None:
    module, trainer = Everything(), quiet(max_epochs=2)
    before = {name: value.clone() for name, value in module.state_dict().items()}
    torch.save(replaced(whole.holds, ("loops", "logbook", "kept", "logged"), to(lambda value: [])), whole.path)
    state = random.getstate()
    with pytest.raises(CheckpointError, match=r"loops\.logbook\.kept\.logged is list"):
        trainer.fit(module, [], ckpt_path=whole.path)
    assert same(dict(module.state_dict()), before) and random.getstate() == state
    assert (trainer.current_epoch, trainer.global_step) == (0, 0)


@pytest.mark.parametrize("path, value", [
    (f"{ADAM}/param_groups/0/lr", 0.5), (f"{COSINE}/state/eta_min", 0.001), ("epoch", 0), (f"{ADAM}/state", {}),
    ("callbacks", {}), (f"{COSINE}/state/of_another_version", 1),
])  # fmt: skip
def test_other_values_that_are_in_range_are_taken(whole: Whole, path: str, value: Any) -> None:
    whole.fitted(replaced(whole.holds, at(path), lambda container, key: container.update({key: value})))
