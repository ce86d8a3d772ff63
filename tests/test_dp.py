"""DP: a batch split over several devices of one process, here parts of the CPU that stand for devices."""

from __future__ import annotations

from collections import OrderedDict, namedtuple
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from models import Batches, Line, pairs, quiet
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn.functional import mse_loss

from refimpl import ConfigurationError, LightningModule, Trainer
from refimpl.devices import STEPS
from refimpl.strategies.dp import TRANSFER, DataParallel, Parts, merged, split


def dp(devices: int, **options: Any) -> Trainer:
    return quiet(accelerator="cpu", devices=devices, strategy="dp", **options)


def weights(module: nn.Module) -> Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in module.parameters()])


# ---- the result is that of one device -------------------------------------------------------------------------


class Classes(LightningModule):
    """Everything that is computed is in float64; the loss is a mean over samples."""

    def __init__(self, optimizers: int = 1) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.first, self.second = nn.Linear(3, 4).double(), nn.Linear(4, 2).double()
        self.several = optimizers > 1

    def forward(self, x: Tensor) -> Tensor:
        return self.second(torch.tanh(self.first(x)))  # type: ignore[no-any-return]

    def training_step(self, batch: Any, batch_idx: int, optimizer_idx: int = 0) -> Any:
        x, y = batch
        loss = mse_loss(self(x), y)
        self.log("loss", loss, on_step=True, on_epoch=True)
        self.log("worst", (self(x) - y).abs().max(), reduce_fx="max", on_epoch=True)
        return loss

    def validation_step(self, batch: Any, batch_idx: int) -> Any:
        self.log("val", mse_loss(self(batch[0]), batch[1]))

    def predict_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> Any:
        return self(batch[0])

    def configure_optimizers(self) -> Any:
        made = [torch.optim.SGD(layer.parameters(), lr=0.1, momentum=0.9) for layer in (self.first, self.second)]
        schedulers = [torch.optim.lr_scheduler.StepLR(each, 1, 0.5) for each in made]
        if self.several:
            return made, schedulers
        optimizer = torch.optim.AdamW(self.parameters(), lr=0.01)
        return [optimizer], [torch.optim.lr_scheduler.StepLR(optimizer, 1, 0.5)]


@pytest.mark.slow
@given(
    devices=st.sampled_from([1, 2, 3, 5]),
    sizes=st.lists(st.integers(1, 7), min_size=1, max_size=4),
    optimizers=st.integers(1, 2),
    options=st.fixed_dictionaries(
        {},
        optional={
            "accumulate_grad_batches": st.integers(1, 3),
            "gradient_clip_val": st.just(0.05),
            "gradient_clip_algorithm": st.sampled_from(["norm", "value"]),
            "track_grad_norm": st.just(2),
            "limit_train_batches": st.integers(1, 3),
            "val_check_interval": st.just(1),
            "max_epochs": st.integers(1, 2),
        },
    ),
)
def test_any_number_of_devices_gives_the_result_of_one(
    devices: int, sizes: list[int], optimizers: int, options: dict[str, Any]
) -> None:
    generator = torch.Generator().manual_seed(sum(sizes))
    whole = torch.randn(sum(sizes), 5, generator=generator, dtype=torch.float64)
    data = Batches((rows[:, :3], rows[:, 3:]) for rows in whole.split(sizes))
    results = []
    for trainer in (quiet(**options), dp(devices, **options)):
        module = Classes(optimizers)
        trainer.fit(module, data, data)
        metrics = {name: float(value) for name, value in trainer.callback_metrics.items()}
        predictions = trainer.predict(module, data)
        assert predictions is not None
        results.append((weights(module), metrics, torch.cat(predictions)))
    (one, logged, predicted), (other, also_logged, also_predicted) = results
    torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-12)
    assert also_logged == pytest.approx(logged, rel=1e-10)
    torch.testing.assert_close(predicted, also_predicted, rtol=1e-10, atol=1e-12)


class Contrastive(Line):
    """A loss that no mean over parts could be: softmax over the whole batch."""

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        return {"pred": self(batch[0])}

    def training_step_end(self, outputs: Any) -> Tensor:
        pred = outputs["pred"] if isinstance(outputs, dict) else torch.cat([part["pred"] for part in outputs])
        return -torch.log_softmax(pred.flatten(), 0)[0]


@pytest.mark.parametrize("devices", [1, 2, 3, 5])
def test_softmax_over_the_whole_batch_as_the_documentation_does(devices: int) -> None:
    one, several = Contrastive(), Contrastive()
    quiet(limit_val_batches=0).fit(one, pairs(3, size=7))
    dp(devices, limit_val_batches=0).fit(several, pairs(3, size=7))
    torch.testing.assert_close(weights(one), weights(several), rtol=1e-12, atol=1e-14)


# ---- what *_step_end is given ---------------------------------------------------------------------------------


def ask(form: str, parts: Any) -> Tensor:
    """The documentation's ways to ask for the losses, each of two parts, and what scripts of the period wrote."""
    match form:
        case "by name, then part":
            return (parts["loss"][0] + parts["loss"][1]) / 2
        case "by part, then name":
            return (parts[0]["loss"] + parts[1]["loss"]) / 2
        case "iterated":
            return sum(part["loss"] for part in parts) / len(parts)  # type: ignore[no-any-return]
        case "attribute":
            return parts.loss.mean()  # type: ignore[no-any-return]
        case "method of the whole":
            return parts["loss"].mean()  # type: ignore[no-any-return]
        case "in a function of torch":
            return torch.mean(parts["loss"])
        case "in a function that takes a tensor by name":
            return mse_loss(input=parts["pred"], target=parts.y)
        case "stacked":
            return torch.stack(parts["loss"]).mean()
        case "the losses as they are":
            return parts["loss"]  # type: ignore[no-any-return]
        case "the output as it is":
            return parts  # type: ignore[no-any-return]
    raise AssertionError(form)


FORMS = [
    "by name, then part", "by part, then name", "iterated", "attribute", "method of the whole",
    "in a function of torch", "in a function that takes a tensor by name", "stacked", "the losses as they are",
    "the output as it is",
]  # fmt: skip


def test_tensors_of_the_parts_are_computed_with_as_that_of_the_batch() -> None:
    rows, others = torch.arange(6.0).view(3, 2), torch.ones(3, 2)
    one = {"x": rows[:2], "y": others[:2], "m": torch.tensor(1.0)}
    parts = Parts([one, {"x": rows[2:], "y": others[2:], "m": torch.tensor(3.0)}])
    x, y = parts["x"], parts["y"]
    for found, expected in (
        (x + y, rows + others), (2 * x, 2 * rows), (-x, -rows), (1 - x, 1 - rows), (x / y, rows / others),
        (x @ y.T, rows @ others.T), (x > 1, rows > 1), (x == y, rows == others), (x[:, 0], rows[:, 0]),
        (x.sum(1), rows.sum(1)), (torch.cat([x, y], 1), torch.cat([rows, others], 1)),
        (torch.stack([parts["m"], parts["m"]]), torch.tensor([[1.0, 3.0], [1.0, 3.0]])),
    ):  # fmt: skip
        assert torch.equal(found, expected)
    assert "x" in parts and "z" not in parts and list(parts.keys()) == ["x", "y", "m"]
    assert torch.equal(dict(parts)["m"] * 2, torch.tensor([2.0, 6.0])) and Parts([1]) == [1]
    with pytest.raises(IndexError, match="part 2 of a batch that has 2: a small one makes fewer parts"):
        parts[2]
    with pytest.raises(TypeError):
        Parts(["a"]) - 1


@pytest.mark.parametrize("form", FORMS)
def test_every_way_to_ask_for_the_parts(form: str) -> None:
    class Asking(Line):
        def training_step(self, batch: Any, batch_idx: int) -> Any:
            return {"loss": self.loss(batch), "pred": self(batch[0]), "y": batch[1]}

        def training_step_end(self, parts: Any) -> Any:
            assert len(parts) == 2 and [len(part["pred"]) for part in parts] == [3, 3]
            return ask(form, parts)

    one, several = Line(), Asking()
    quiet(limit_val_batches=0).fit(one, pairs(2, size=6))
    dp(2, limit_val_batches=0).fit(several, pairs(2, size=6))
    torch.testing.assert_close(weights(one), weights(several), rtol=1e-12, atol=1e-14)


def test_bare_tensors_are_asked_for_the_whole_batch_as_out() -> None:
    """The documentation's `test_step_end(self, output_results): output_results.out`."""
    seen: list[Any] = []

    class Testing(Line):
        def test_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> Any:
            return self(batch[0])

        def test_step_end(self, output_results: Any) -> Any:
            seen.append((len(output_results), output_results.out.shape))
            self.log("shape", float(output_results.out.shape[0]))
            return output_results.out

        def test_epoch_end(self, outputs: list[Any]) -> None:
            seen.append([type(output) for output in outputs])

    assert dp(3).test(Testing(), pairs(2, size=7), verbose=False) == [{"shape": 7.0}]
    assert seen == [(3, (7, 1)), (3, (7, 1)), [Tensor, Tensor]]


Pair = namedtuple("Pair", "a b")


def test_parts_that_have_no_such_value_say_what_they_have() -> None:
    parts = Parts([{"loss": torch.ones(())}, {"loss": torch.ones(()), "pred": 1}], [2, 1])
    with pytest.raises(KeyError, match="'pred' is not in each part of the batch; they are a list of"):
        parts["pred"]
    with pytest.raises(AttributeError, match="'pred' is not in each part"):
        parts.pred  # noqa: B018
    with pytest.raises(KeyError, match="'loss' is not in each part"):
        Parts([torch.ones(2)])["loss"]
    assert Parts([Pair(1, 2), Pair(3, 4)]).a == [1, 3]
    assert parts[-1]["pred"] == 1 and parts[:1] == [{"loss": torch.ones(())}]


def test_what_nobody_merges_is_merged() -> None:
    """Rows one after the other, means weighted by samples, counts side by side, and the rest as a list of the parts."""
    rows = [{"x": torch.full((n, 2), float(n)), "m": torch.tensor(float(n)), "n": torch.tensor(n), "s": "ab"[n - 2],
             "p": Pair(torch.tensor(float(n)), None), "t": (torch.ones(n),)} for n in (3, 2)]  # fmt: skip
    found = merged(Parts(rows, [3, 2]))
    assert found["x"].tolist() == [[3.0, 3.0]] * 3 + [[2.0, 2.0]] * 2
    assert float(found["m"]) == pytest.approx(13 / 5) and found["n"].tolist() == [3, 2] and found["s"] == ["b", "a"]
    assert type(found["p"]) is Pair and float(found["p"].a) == pytest.approx(2.6) and found["p"].b is None
    assert type(found["t"]) is tuple and found["t"][0].tolist() == [1.0] * 5
    assert merged(Parts([None, None])) is None and merged(Parts([1, None])) == [1, None]
    assert merged(Parts([{"a": 1}, {"b": 1}])) == [{"a": 1}, {"b": 1}] and merged("kept") == "kept"
    assert merged(Parts([["a", "b"], ["c"]])) == ["a", "b", "c"] and merged(Parts([1.0, 4.0], [2, 1])) == 2.0
    assert [float(one) for one in merged(Parts([[torch.zeros(())], [torch.ones(())]], [1, 3]))] == [0.75]
    assert merged(Parts([np.ones(2), np.zeros(1)])).tolist() == [1, 1, 0]
    assert len(merged(Parts([torch.ones(1, 2), torch.ones(1, 3)]))) == 2
    kept = merged([OrderedDict(x=Parts([torch.ones(1), torch.ones(1)]), hiddens=Parts([1, 2]))])
    assert type(kept[0]) is OrderedDict and len(kept[0]["x"]) == 2 and type(kept[0]["hiddens"]) is Parts


# ---- how a batch is split ---------------------------------------------------------------------------------------


class Named(NamedTuple):
    x: Any
    y: Any


@dataclass(frozen=True, slots=True)
class Sample:
    x: Any
    names: Any


class Sliced:
    """A batch of the user's, which can be moved and sliced."""

    def __init__(self, rows: Tensor) -> None:
        self.rows = rows

    def to(self, device: Any) -> Sliced:
        return Sliced(self.rows.to(device))

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, rows: slice) -> Sliced:
        return Sliced(self.rows[rows])


class Whole:
    """One that cannot."""

    def to(self, device: Any) -> Whole:
        return self


@given(samples=st.integers(0, 9), parts=st.integers(1, 5))
def test_every_sample_is_in_one_part_and_in_order(samples: int, parts: int) -> None:
    x = torch.arange(samples)
    names = [str(n) for n in range(samples)]
    batch = {"x": x, "deep": [(x, names), Named(x * 2, torch.tensor(7))], "s": Sample(x, tuple(names)), "of": Sliced(x),
             "epoch": 3, "note": "all"}  # fmt: skip
    cut = split(batch, parts)
    assert [size for _, size in cut] == [len(chunk) for chunk in x.chunk(parts)] or (samples, len(cut)) == (0, 1)
    assert torch.cat([part["x"] for part, _ in cut]).tolist() == x.tolist()
    assert [name for part, _ in cut for name in part["deep"][0][1]] == names
    assert [name for part, _ in cut for name in part["s"].names] == names
    for part, size in cut:
        assert len(part["deep"][1].x) == len(part["of"]) == len(part["s"].x) == size
        assert type(part["deep"][1]) is Named and int(part["deep"][1].y) == 7 and type(part["deep"][0]) is tuple
        assert (part["epoch"], part["note"]) == (3, "all")


def test_batches_without_a_tensor() -> None:
    assert split(["a", "b", "c"], 2) == [(["a", "b"], 2), (["c"], 1)]
    assert split({"n": 3}, 2) == [({"n": 3}, 1)]
    assert split(["ab", "cd", "ef"], 1) == [(["ab", "cd", "ef"], 3)]
    labels = ["of", "the", "batch"]
    assert [part[1] for part, _ in split([torch.ones(2), labels], 2)] == [labels] * 2
    fields = {"a": ["a", "b"], "n": [1, 2], "size": (480, 640), "named": Named(1, 2), "deep": [[1], [2, 3]]}
    one = {"a": ["a"], "n": [1], "size": (480, 640), "named": Named(1, 2), "deep": [[1]]}
    assert split(fields, 2) == [(one, 1), ({**one, "a": ["b"], "n": [2], "deep": [[2, 3]]}, 1)]
    with pytest.raises(ConfigurationError, match="cannot tell whether the items of this batch are its samples"):
        split([("a", 0), ("b", 1)], 2)


def test_what_is_one_thing_is_not_cut() -> None:
    for size in (torch.Size([2, 8]), (480, 640)):
        assert [part[1] for part, _ in split((torch.ones(2, 1), size), 2)] == [size] * 2
    packed = nn.utils.rnn.pack_sequence([torch.ones(2), torch.ones(1)])
    for batch in (packed, torch.eye(2).to_sparse()):
        with pytest.raises(ConfigurationError, match="that is packed or sparse; make it in the step"):
            split(batch, 2)


@pytest.mark.parametrize("batch, told", [
    ((torch.ones(4, 2), torch.ones(3)), r"4 samples along dimension 0, but it holds a tensor of shape \(3,\), too"),
    ([torch.ones(4), Whole()], "cannot split Whole: TypeError.*; give it __len__, for the samples in it"),
])  # fmt: skip
def test_a_batch_that_cannot_be_split_is_told(batch: Any, told: str) -> None:
    with pytest.raises(ConfigurationError, match=told):
        dp(2, limit_val_batches=0).fit(Line(), Batches([batch]))


# ---- what a part sees, and what stays --------------------------------------------------------------------------


def test_a_part_runs_on_a_copy_that_shares_parameters_and_the_first_buffers() -> None:
    seen: list[tuple[bool, int, int]] = []

    class Stateful(Line):
        def __init__(self) -> None:
            super().__init__()
            self.norm = nn.BatchNorm1d(1, dtype=torch.float64)

        def training_step(self, batch: Any, batch_idx: int) -> Any:
            seen.append((hasattr(self, "mark"), len(list(self.parameters())), len(batch[0])))
            self.mark = True
            return self.norm(self(batch[0])).sum()

    module = Stateful()
    dp(2, limit_val_batches=0).fit(module, pairs(2, size=5))
    assert seen == [(False, 4, 3), (False, 4, 2)] * 2 and not hasattr(module, "mark")
    assert int(module.norm.num_batches_tracked) == 2  # of the first part of each batch


@pytest.mark.slow
@pytest.mark.parametrize("compiled", [torch.jit.script, lambda layer: torch.compile(layer, backend="eager")])
@pytest.mark.filterwarnings("ignore:.*torch.jit.script:DeprecationWarning")
def test_layers_that_are_compiled_are_shared(compiled: Any) -> None:
    one, several = Line(), Line()
    several.layer = compiled(several.layer)
    quiet(limit_val_batches=0).fit(one, pairs(2, size=5))
    dp(2, limit_val_batches=0).fit(several, pairs(2, size=5))
    torch.testing.assert_close(weights(one), weights(several), rtol=1e-12, atol=1e-14)


def test_logged_values_are_the_whole_batchs() -> None:
    """Weighted by the samples of each part; a name that a part leaves out is that of the others."""

    class Logs(Line):
        def training_step(self, batch: Any, batch_idx: int) -> Any:
            self.log_dict({"mean": batch[0].mean(), "number": float(len(batch[0]))}, on_step=True, on_epoch=True)
            self.log("least", batch[0].min(), reduce_fx="min", on_step=True, on_epoch=True)
            if len(batch[0]) == 3:
                self.log("first", batch[0][0, 0])
            return self.loss(batch)

        def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int, dataloader_idx: int) -> None:
            step.append({name: float(value) for name, value in self.trainer.callback_metrics.items()})  # type: ignore[union-attr]

    step: list[dict[str, float]] = []
    data = pairs(2, size=5)
    trainer = dp(2, limit_val_batches=0)
    trainer.fit(Logs(), data)
    for seen, (x, _) in zip(step, data):
        assert seen["mean_step"] == pytest.approx(float(x.mean())) and seen["least_step"] == float(x.min())
        assert seen["number_step"] == pytest.approx((3 * 3 + 2 * 2) / 5) and seen["first"] == float(x[0, 0])
    whole = torch.cat([x for x, _ in data])
    assert float(trainer.callback_metrics["mean_epoch"]) == pytest.approx(float(whole.mean()))
    assert float(trainer.callback_metrics["least"]) == float(whole.min())


def test_a_dataclass_counts_its_rows() -> None:
    class Logs(Line):
        def validation_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
            self.log("mean", batch.x.mean())

    rows = torch.tensor([1.0, 2.0, 6.0])
    for trainer in (quiet(), dp(2)):
        batches = Batches([Sample(rows, ["a", "b", "c"]), Sample(rows[:1], ["d"])])
        assert trainer.validate(Logs(), batches, verbose=False) == [{"mean": 2.5}]


def test_metrics_count_every_part() -> None:
    torchmetrics = pytest.importorskip("torchmetrics")

    class Counts(Line):
        def __init__(self) -> None:
            super().__init__()
            self.mae = torchmetrics.MeanAbsoluteError()
            self.several = torchmetrics.MetricCollection({"mse": torchmetrics.MeanSquaredError()})

        def validation_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
            self.mae(self(batch[0]), batch[1])
            self.several.update(self(batch[0]), batch[1])
            self.log("mae", self.mae)
            self.log_dict(self.several)

    [one], [other] = (trainer.validate(Counts(), pairs(3, size=5), verbose=False) for trainer in (quiet(), dp(3)))
    assert other == pytest.approx(one) and set(one) == {"mae", "mse"}


def test_pieces_of_a_sequence_keep_the_hidden_states_of_each_part() -> None:
    class Recurrent(LightningModule):
        truncated_bptt_steps = 2

        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.lstm, self.head = nn.LSTM(3, 4, batch_first=True).double(), nn.Linear(4, 1).double()

        def training_step(self, batch: Tensor, batch_idx: int, hiddens: Any) -> Any:
            out, hiddens = self.lstm(batch, hiddens)
            return {"loss": self.head(out).pow(2).mean(), "hiddens": hiddens}

        def configure_optimizers(self) -> Any:
            return torch.optim.SGD(self.parameters(), lr=0.1)

    data = Batches([torch.randn(5, 6, 3, generator=torch.Generator().manual_seed(0)).double()] * 2)
    one, several = Recurrent(), Recurrent()
    quiet().fit(one, data)
    dp(2).fit(several, data)
    torch.testing.assert_close(weights(one), weights(several), rtol=1e-10, atol=1e-12)


def test_outputs_with_hidden_states_of_parts_are_kept_in_a_checkpoint(tmp_path: Any) -> None:
    class Recurrent(Line):
        truncated_bptt_steps = 1

        def training_step(self, batch: Any, batch_idx: int, hiddens: Any) -> Any:
            return {"loss": self.layer(batch[:, 0]).mean(), "hiddens": batch[:, 0]}

        def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int, dataloader_idx: int) -> None:
            if batch_idx == 0:
                self.trainer.save_checkpoint(tmp_path / "mid.ckpt")  # type: ignore[union-attr]

        def training_epoch_end(self, outputs: list[Any]) -> None:
            seen.append([[float(piece["loss"]) for piece in batch] for batch in outputs])

    seen: list[Any] = []
    data = Batches(torch.arange(24.0).double().view(2, 3, 2, 2))
    dp(2, limit_val_batches=0).fit(Recurrent(), data)
    dp(2, limit_val_batches=0).fit(Recurrent(), data, ckpt_path=tmp_path / "mid.ckpt")
    assert seen[0] == seen[1] and [len(batch) for batch in seen[1]] == [2, 2]


@pytest.mark.parametrize("precision", [16, "bf16", 64])
def test_every_precision(precision: Any) -> None:
    seen = []

    class Seeing(LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(2, 1)

        def training_step(self, batch: Any, batch_idx: int) -> Any:
            out = self.layer(batch)
            seen.append(out.dtype)
            return out.float().mean()

        def configure_optimizers(self) -> Any:
            return torch.optim.SGD(self.parameters(), lr=0.1)

    dp(2, precision=precision).fit(Seeing(), Batches([torch.ones(3, 2)]))
    assert seen == [{16: torch.float16, "bf16": torch.bfloat16, 64: torch.float64}[precision]] * 2


def test_it_goes_on_from_a_checkpoint_in_mid_epoch(tmp_path: Any) -> None:
    class Saves(Classes):
        def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int, dataloader_idx: int) -> None:
            if batch_idx == 2:
                self.trainer.save_checkpoint(tmp_path / "mid.ckpt")  # type: ignore[union-attr]

    def data() -> Any:
        return torch.utils.data.DataLoader(
            torch.utils.data.TensorDataset(torch.randn(26, 3).double(), torch.randn(26, 2).double()), 5, shuffle=True
        )

    torch.manual_seed(3)
    whole, loader = Saves(), data()
    first = dp(3, max_epochs=2, limit_val_batches=0)
    torch.manual_seed(4)
    first.fit(whole, loader)
    resumed, again = Classes(), dp(3, max_epochs=2, limit_val_batches=0)
    again.fit(resumed, loader, ckpt_path=tmp_path / "mid.ckpt")
    assert torch.equal(weights(whole), weights(resumed))
    assert {name: float(v) for name, v in first.callback_metrics.items()} == {
        name: float(v) for name, v in again.callback_metrics.items()
    }


# ---- what does not go together -----------------------------------------------------------------------------------


def test_what_dp_cannot_do_is_said_before_anything_starts() -> None:
    class Moves(Line):
        def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
            return batch

    class Manual(Line):
        automatic_optimization = False

    for module, told in ((Moves(), "on_after_batch_transfer runs on a single device and with DDP only"),
                         (Manual(), "Manual has automatic_optimization = False, which strategy='dp'")):  # fmt: skip
        with pytest.raises(ConfigurationError, match=told):
            dp(2, limit_val_batches=0).fit(module, pairs(1))


def test_a_part_without_a_loss_is_an_error() -> None:
    class Skips(Line):
        def training_step(self, batch: Any, batch_idx: int) -> Any:
            return None if len(batch[0]) == 2 else self.loss(batch)

    dp(2, limit_val_batches=0).fit(Skips(), pairs(1, size=6))
    with pytest.raises(ConfigurationError, match="training_step returned None, which several devices do not support"):
        dp(2, limit_val_batches=0).fit(Skips(), pairs(1, size=5))


def test_one_device_does_what_it_does_without_dp() -> None:
    """Nothing is split: the module itself runs, the transfer hooks too, and manual optimization."""

    class Everything(Line):
        automatic_optimization = False
        steps = moved = 0

        def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
            self.moved += 1
            return batch

        def training_step(self, batch: Any, batch_idx: int) -> Any:
            self.steps += 1
            return OrderedDict(n=self.steps)

        def training_step_end(self, parts: Any) -> None:
            assert [part["n"] for part in parts] == parts["n"] == [self.steps]

    module = Everything()
    dp(1, limit_val_batches=0).fit(module, Batches([nn.utils.rnn.pack_sequence([torch.ones(2)])] * 2))
    assert (module.steps, module.moved) == (2, 2)


def test_outputs_of_two_gpus_meet_on_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tensors that only say where they are stand for those of two GPUs."""
    devices: list[torch.device] = [torch.device("cuda", 0), torch.device("cuda", 1)]
    current: list[torch.device] = []
    monkeypatch.setattr(torch.cuda, "device", lambda device: nullcontext(current.append(device)))
    seen: list[tuple[Any, ...]] = []

    class Placed(Line):
        def training_step(self, batch: Any, batch_idx: int) -> Any:
            hiddens = self(batch[0])
            seen.append((batch[0].device, self.device, hiddens.device))
            return {"loss": self.loss(batch), "hiddens": hiddens}

    trainer = quiet()
    module = Placed()
    with FakeTensorMode(), torch.no_grad():
        for name, parameter in module.layer.named_parameters():
            there = torch.empty(parameter.shape, dtype=torch.float64, device=devices[0])
            setattr(module.layer, name, nn.Parameter(there))
        hooks: dict[str, Any] = dict.fromkeys((*STEPS, "training_step_end", *TRANSFER))
        hooks["training_step"] = module.training_step
        DataParallel(devices, trainer.options).adapt(hooks, module, trainer.run.progress)
        batch = (torch.ones(3, 2, dtype=torch.float64), torch.ones(3, 1, dtype=torch.float64))
        parts = hooks["training_step"](batch, 0)
        loss = hooks["training_step_end"](parts)["loss"]
        assert (parts["loss"][0] + parts["loss"][1]).device == loss.device == devices[0]
        assert [hiddens.device for hiddens in parts["hiddens"]] == devices
    assert seen == [(device,) * 3 for device in devices]
    assert current == devices


def test_parts_on_other_devices_come_back() -> None:
    """A device that is another by name: parameters, tied ones too, and buffers are moved, and gradients come back."""

    class Tied(Line):
        def __init__(self) -> None:
            super().__init__()
            self.same = self.layer
            self.lstm = nn.LSTM(2, 2, batch_first=True).double()
            self.register_buffer("nothing", None)

        def training_step(self, batch: Any, batch_idx: int) -> Any:
            assert len(list(self.parameters())) == 6 and self.same is self.layer
            return self.loss((self.lstm(batch[0][:, None])[0][:, 0], batch[1]))

    torch.manual_seed(0)
    one, several = Tied(), Tied()
    several.load_state_dict(one.state_dict())
    quiet(limit_val_batches=0).fit(one, pairs(2, size=5))
    trainer = dp(2, limit_val_batches=0)
    trainer.run.devices.devices[1] = torch.device("cpu:0")  # type: ignore[attr-defined]
    trainer.fit(several, pairs(2, size=5))
    torch.testing.assert_close(weights(one), weights(several), rtol=1e-12, atol=1e-14)


def test_the_trainer_says_how_many_devices_it_has() -> None:
    assert (dp(3).num_devices, dp(3).world_size, quiet().num_devices) == (3, 1, 1)
    assert dp(1).num_devices == 1


@pytest.mark.parametrize("devices", [2, 3])
def test_what_parts_without_a_tensor_log_is_what_one_device_logs(devices: int) -> None:
    """Each part counts by its samples, and the batch as one, as a batch in which there is no tensor does."""

    class Words(Line):
        def training_step(self, batch: Any, batch_idx: int) -> Any:
            x = torch.tensor([[float(word)] * 2 for word in batch["x"]], dtype=torch.float64)
            self.log("mean", x.mean(), on_step=True, on_epoch=True)
            return self.loss((x, x[:, :1]))

    def logged(trainer: Trainer) -> dict[str, float]:
        trainer.fit(Words(), Batches([{"x": [str(n * n) for n in range(5)]}, {"x": ["25", "36", "49"]}]))
        return {name: float(value) for name, value in trainer.callback_metrics.items()}

    assert logged(dp(devices, limit_val_batches=0)) == pytest.approx(logged(quiet(limit_val_batches=0)))
