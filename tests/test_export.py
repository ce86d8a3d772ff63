"""Export: TorchScript and ONNX compute what the module does, which is left as it was."""

from __future__ import annotations

import io
import os
import sys
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnxruntime
import pytest
import torch
import torchmetrics
from models import Batches, quiet
from torch import Tensor, nn

from refimpl import ConfigurationError, LightningModule
from refimpl.saving.export import evaluating, forward_arguments

# What torch says of its own loading, which the tests have to use.
pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit.(load|save)`:DeprecationWarning")

deprecated = pytest.warns(DeprecationWarning, match=r"deprecates TorchScript; to_onnx, or torch.export.export")


class SimpleModel(LightningModule):
    """The documentation's example."""

    def __init__(self) -> None:
        super().__init__()
        self.l1 = nn.Linear(in_features=64, out_features=4)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.l1(x.view(x.size(0), -1)))


class Noisy(LightningModule):
    """Layers whose mode matters, one of them frozen in eval mode, and what TorchScript has no types for."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.norm = nn.Linear(3, 4), nn.BatchNorm1d(4)
        self.dropout, self.frozen = nn.Dropout(0.5), nn.Dropout(0.5).eval()
        self.mean = torchmetrics.MeanMetric()
        self.function, self.settings, self.threshold = (lambda x: x), {"one": 1, "two": "2"}, 0.5
        with torch.no_grad():
            assert self.norm.running_mean is not None
            self.norm.running_mean.copy_(torch.arange(4.0))

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.dropout(self.norm(self.layer(x)))
        return self.frozen(y) + y

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        return self(batch).mean()

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.1)


class Pair(LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.layer, self.example = nn.Linear(2, 3), (torch.randn(4, 2), torch.randn(4, 3))

    def forward(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        z = self.layer(x)
        return z + y, z * y


X = torch.randn(5, 3, generator=torch.Generator().manual_seed(0))


def noisy() -> Noisy:
    """In train mode, trained, with its trainer."""
    module = Noisy()
    quiet(limit_val_batches=0).fit(module, Batches([torch.randn(5, 3) for _ in range(2)]))
    assert module.training
    return module


def modes(module: nn.Module) -> list[bool]:
    return [layer.training for layer in module.modules()]


def expected(module: nn.Module, *args: Any, **kwargs: Any) -> Any:
    with evaluating(module):
        return module(*args, **kwargs)


# ---- TorchScript ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [Noisy, noisy], ids=["new", "trained"])
@pytest.mark.parametrize("options", [{}, {"method": "trace", "example_inputs": X}], ids=["script", "trace"])
def test_the_script_computes_what_the_module_does(make: Callable[[], Noisy], options: Any) -> None:
    module = make()
    before, weights = modes(module), {name: value.clone() for name, value in module.state_dict().items()}
    with deprecated as caught:
        script = module.to_torchscript(**options)
    assert isinstance(script, torch.jit.ScriptModule) and not script.training
    assert len(caught) == 1 and caught[0].filename == __file__  # at the caller's line
    assert modes(module) == before
    assert all(torch.equal(value, weights[name]) for name, value in module.state_dict().items())
    assert torch.equal(script(X), expected(module, X))


def test_only_forward_is_compiled_and_what_the_user_exports() -> None:
    class Two(SimpleModel):
        @torch.jit.export
        def double(self, x: Tensor) -> Tensor:
            return self(x) * 2

        def training_step(self, batch: Any, batch_idx: int) -> Any:
            yield self.log(batch)  # which no TorchScript could be made of

    module, x = Two(), torch.randn(2, 64)
    with deprecated:
        script: Any = module.to_torchscript()
    assert torch.equal(script.double(x), expected(module, x) * 2)
    assert {"forward", "double"} == set(script._c._method_names())


def test_nothing_of_the_engine_is_in_the_file(tmp_path: Path) -> None:
    module = noisy()
    module.example_input_array = X
    with deprecated:
        module.to_torchscript(tmp_path / "model.pt")
    loaded = torch.jit.load(tmp_path / "model.pt")
    assert loaded.threshold == 0.5  # what TorchScript has a type for and is the user's
    engines = ("trainer", "example_input_array", "_example_input_array", "_toggled", "_datamodule", "precision")
    assert not [name for name in engines if hasattr(loaded, name)]
    assert set(loaded.state_dict()) == set(module.state_dict())


@pytest.mark.parametrize("kind", ["path", "name", "file"])
def test_it_is_saved_where_the_user_says(kind: str, tmp_path: Path) -> None:
    module, x = SimpleModel(), torch.randn(2, 64)
    path = tmp_path / "model.pt"
    file: Any = {"path": path, "name": str(path), "file": io.BytesIO()}[kind]
    with deprecated:
        script: Any = module.to_torchscript(file)
    if kind == "file":
        path.write_bytes(file.getvalue())
    assert torch.equal(torch.jit.load(path)(x), script(x))
    assert torch.equal(torch.jit.load(path)(x), expected(module, x))


@pytest.mark.parametrize("example", [
    (torch.ones(4, 2), torch.ones(4, 3)), [torch.ones(4, 2), torch.ones(4, 3)],
    {"y": torch.ones(4, 3), "x": torch.ones(4, 2)},
], ids=["tuple", "list", "dict"])  # fmt: skip
def test_a_trace_takes_arguments_as_the_example_has_them(example: Any) -> None:
    module = Pair()
    module.example_input_array = example
    with deprecated:
        script: Any = module.to_torchscript(method="trace")
    x, y = torch.randn(4, 2), torch.randn(4, 3)
    for one, other in zip(script(x=x, y=y), expected(module, x, y), strict=True):
        assert torch.equal(one, other)


def test_arguments_are_passed_on() -> None:
    module = SimpleModel()
    checked = [torch.zeros(3, 64)]
    with deprecated:
        module.to_torchscript(method="trace", example_inputs=torch.zeros(1, 64), check_inputs=[checked])
    with pytest.raises(TypeError, match="colour"):
        module.to_torchscript(colour="red")


def test_several_modules_are_returned_as_a_dict() -> None:
    class Autoencoder(LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.encoder, self.decoder = nn.Linear(4, 2), nn.Linear(2, 4)

        def forward(self, x: Tensor) -> Tensor:
            return self.encoder(x)  # type: ignore[no-any-return]

        def training_step(self, batch: Any, batch_idx: int) -> Any:
            return self.decoder(self(batch)).mean()

        def configure_optimizers(self) -> Any:
            return torch.optim.SGD(self.parameters(), lr=0.1)

        def to_torchscript(self, *args: Any, **kwargs: Any) -> dict[str, torch.jit.ScriptModule]:
            whole = super().to_torchscript(*args, **kwargs)
            assert isinstance(whole, torch.jit.ScriptModule)
            return {"encoder": whole, "decoder": torch.jit.trace(self.decoder, torch.zeros(1, 2))}

    module, x = Autoencoder(), torch.randn(3, 4)
    quiet(limit_val_batches=0).fit(module, Batches([x]))
    with pytest.warns(DeprecationWarning):
        scripts = module.to_torchscript()
    assert torch.equal(scripts["decoder"](scripts["encoder"](x)), module.decoder(module.encoder(x)))


@pytest.mark.parametrize("options, error, message", [
    ({"method": "temp"}, ConfigurationError, r"method='temp'; 'script' or 'trace' is accepted"),
    ({"method": None}, ConfigurationError, r"method=None; 'script' or 'trace' is accepted"),
    ({"method": "trace"}, ConfigurationError,
     r"to_torchscript\(method='trace'\) needs an input: pass example_inputs, or set SimpleModel.example_input_array"),
])  # fmt: skip
def test_what_cannot_be_scripted_says_why(options: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        SimpleModel().to_torchscript(**options)


@pytest.mark.parametrize("export", ["to_torchscript", "to_onnx"])
def test_without_a_forward_there_is_nothing_to_export(export: str, tmp_path: Path) -> None:
    arguments = [tmp_path / "model"] if export == "to_onnx" else []
    with pytest.raises(ConfigurationError, match=f"{export} needs LightningModule.forward, which is not defined"):
        getattr(LightningModule(), export)(*arguments)
    module, x = LightningModule(), torch.zeros(1)
    module.forward = lambda x: x  # type: ignore[method-assign]
    assert forward_arguments(module, x) == ((x,), {})


def test_a_torch_without_torchscript_is_told_of(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(torch.jit, "script")
    with pytest.raises(RuntimeError, match=r"has no torch.jit.script any more; to_onnx, or torch.export.export"):
        SimpleModel().to_torchscript()


def test_a_torch_that_does_not_deprecate_it_is_not_warned_of(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.jit, "script", lambda module: module)
    module = SimpleModel()
    assert module.to_torchscript() is module  # type: ignore[comparison-overlap]


def test_other_warnings_reach_the_caller() -> None:
    class Branching(SimpleModel):
        def forward(self, x: Tensor) -> Tensor:
            return x if bool(x.sum() > 0) else -x

    with pytest.warns(torch.jit.TracerWarning, match="Converting a tensor to a Python boolean"), deprecated:
        Branching().to_torchscript(method="trace", example_inputs=torch.ones(2))


# ---- ONNX -----------------------------------------------------------------------------------------------


def run(path: Path, *inputs: Tensor) -> list[Tensor]:
    """What onnxruntime makes of the inputs, which are given in order."""
    session = onnxruntime.InferenceSession(path)
    names = [each.name for each in session.get_inputs()]
    given = {name: value.numpy() for name, value in zip(names, inputs, strict=True)}
    return [torch.from_numpy(output) for output in session.run(None, given)]


def test_the_documentations_example() -> None:
    with tempfile.NamedTemporaryFile(suffix=".onnx", delete=False) as tmpfile:
        model = SimpleModel()
        input_sample = torch.randn((1, 64))
        model.to_onnx(tmpfile.name, input_sample, export_params=True)
    try:
        assert os.path.isfile(tmpfile.name)
        [output] = run(Path(tmpfile.name), input_sample)
        assert torch.allclose(output, expected(model, input_sample), atol=1e-6)
    finally:
        os.unlink(tmpfile.name)


def test_onnx_computes_what_the_module_does_in_eval_mode(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    module = noisy()
    before = modes(module)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # none, whatever torch says to itself
        module.to_onnx(tmp_path / "model.onnx", X)
    assert modes(module) == before
    assert capsys.readouterr().out == ""
    assert [path.name for path in tmp_path.iterdir()] == ["model.onnx"]  # one file holds everything
    [output] = run(tmp_path / "model.onnx", X)
    assert torch.allclose(output, expected(module, X), atol=1e-6)


@pytest.mark.parametrize("form", ["tuple", "dict"])
def test_the_modules_own_example_is_the_default(form: str, tmp_path: Path) -> None:
    module = Pair()
    x, y = module.example
    module.example_input_array = {"x": x, "y": y} if form == "dict" else (x, y)
    module.to_onnx(tmp_path / "model.onnx")
    outputs = run(tmp_path / "model.onnx", x + 1, y)
    for one, other in zip(outputs, expected(module, x + 1, y), strict=True):
        assert torch.allclose(one, other, atol=1e-6)


def test_other_shapes_by_dynamic_shapes(tmp_path: Path) -> None:
    module = SimpleModel()
    module.to_onnx(tmp_path / "model.onnx", torch.randn(3, 64), dynamic_shapes=({0: torch.export.Dim("batch")},))
    x = torch.randn(7, 64)
    [output] = run(tmp_path / "model.onnx", x)
    assert torch.allclose(output, expected(module, x), atol=1e-6)


def test_the_older_exporter_is_there_for_who_asks_for_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module, x = SimpleModel(), torch.randn(1, 64)
    monkeypatch.setitem(sys.modules, "onnxscript", None)  # it does without
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        module.to_onnx(tmp_path / "model.onnx", x, dynamo=False, opset_version=13)
    [output] = run(tmp_path / "model.onnx", x)
    assert torch.allclose(output, expected(module, x), atol=1e-6)


@pytest.mark.parametrize("arguments, error, message", [
    ({}, ConfigurationError, "to_onnx needs an input: pass input_sample, or set SimpleModel.example_input_array"),
    ({"export_param": True}, TypeError, r"torch.onnx.export of torch .* has no argument 'export_param'; "
     "did you mean 'export_params'?"),
    ({"fallback": True}, TypeError, "has no argument 'fallback'; accepted are model, args, f, "),
])  # fmt: skip
def test_what_cannot_be_exported_says_why(
    arguments: Any, error: type[Exception], message: str, tmp_path: Path
) -> None:
    sample = torch.randn(1, 64) if arguments else None
    with pytest.raises(error, match=message):
        SimpleModel().to_onnx(tmp_path / "model.onnx", sample, **arguments)
    assert not list(tmp_path.iterdir())


def test_what_is_not_installed_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'refimpl-conformance\[export\]'"):
        SimpleModel().to_onnx(tmp_path / "model.onnx", torch.randn(1, 64))


# ---- both -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("export", [
    lambda module, path: module.to_torchscript(path), lambda module, path: module.to_onnx(path, X)
], ids=["torchscript", "onnx"])  # fmt: skip
def test_modes_are_restored_after_an_exception(export: Any, tmp_path: Path) -> None:
    module = Noisy()
    module.forward = lambda x: x.no_such_thing()  # type: ignore[method-assign, assignment]
    before = modes(module)
    with pytest.raises(Exception), warnings.catch_warnings():  # noqa: B017  # whatever torch makes of it
        warnings.simplefilter("ignore")
        export(module, tmp_path / "model")
    assert modes(module) == before and torch.is_grad_enabled()


def test_in_double_precision_the_example_is_double() -> None:
    module = noisy()
    module.example_input_array = X
    quiet(precision=64, limit_val_batches=0).fit(module, Batches([X]))
    with deprecated:
        script: Any = module.to_torchscript(method="trace")
    assert script(X.double()).dtype == torch.float64


@pytest.mark.parametrize("sample, args, kwargs", [
    (1, (1,), {}), ((1, 2), (1, 2), {}), ([1, 2], (1, 2), {}), ({"a": 1}, (), {"a": 1}), (((1, 2),), ((1, 2),), {}),
])  # fmt: skip
def test_a_sample_is_what_forward_is_given(sample: Any, args: Any, kwargs: Any) -> None:
    assert forward_arguments(LightningModule(), sample) == (args, kwargs)


def test_a_sample_goes_where_the_module_is() -> None:
    (x,), _ = forward_arguments(SimpleModel().to("meta"), torch.zeros(1, 64))
    assert x.device == torch.device("meta")
