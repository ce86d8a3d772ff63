"""The loops: line for line the documentation's pseudocode, and they train for real.

The first half compares the source of `loops.py` with the pseudocode; the second half runs it against
loops written by hand.
"""

from __future__ import annotations

import ast
import inspect
from collections.abc import Callable
from typing import Any

import pytest
import torch
from models import Batches, Line, pairs, quiet, tapped
from torch import Tensor, nn

from refimpl import Callback, LightningModule, loops

# ---- the source against the pseudocode -----------------------------------------------------------------

# The documentation's section "Hooks", with its comment on the sanity check written as a call.
PSEUDOCODE = '''
def fit(self):
    if global_rank == 0:
        # prepare data is called on GLOBAL_ZERO only
        prepare_data()

    configure_callbacks()

    with parallel(devices):
        # devices can be GPUs, TPUs, ...
        train_on_device(model)


def train_on_device(model):
    # called PER DEVICE
    on_fit_start()
    setup("fit")
    configure_optimizers()

    on_pretrain_routine_start()
    on_pretrain_routine_end()

    sanity_check()

    on_train_start()
    for epoch in epochs:
        train_loop()
    on_train_end()

    on_fit_end()
    teardown("fit")


def train_loop():
    on_epoch_start()
    on_train_epoch_start()

    for batch in train_dataloader():
        on_train_batch_start()

        on_before_batch_transfer()
        transfer_batch_to_device()
        on_after_batch_transfer()

        training_step()

        on_before_zero_grad()
        optimizer_zero_grad()

        on_before_backward()
        backward()
        on_after_backward()

        on_before_optimizer_step()
        optimizer_step()

        on_train_batch_end()

        if should_check_val:
            val_loop()
    # end training epoch
    training_epoch_end()

    on_train_epoch_end()
    on_epoch_end()


def val_loop():
    on_validation_model_eval()  # calls `model.eval()`
    torch.set_grad_enabled(False)

    on_validation_start()
    on_epoch_start()
    on_validation_epoch_start()

    for batch in val_dataloader():
        on_validation_batch_start()

        on_before_batch_transfer()
        transfer_batch_to_device()
        on_after_batch_transfer()

        validation_step()

        on_validation_batch_end()
    validation_epoch_end()

    on_validation_epoch_end()
    on_epoch_end()
    on_validation_end()

    # set up for train
    on_validation_model_train()  # calls `model.train()`
    torch.set_grad_enabled(True)
'''

# What loops.py calls beyond the pseudocode, and why.
EXTRAS = {
    "on_post_move_to_device": "documented in its own section: after the module's move, which the pseudocode omits",
    "training_step_end": "documented in its own section: its output takes the place of training_step's",
    "validation_step_end": "documented in its own section: its output takes the place of validation_step's",
    "test_step_end": "as validation_step_end",
}
# What is no hook, but shapes the pseudocode.
LANDMARKS = {
    *("parallel", "train_on_device", "sanity_check", "epochs", "train_loop", "val_loop", "global_rank"),
    *("train_dataloader", "val_dataloader", "test_dataloader", "should_check_val"),
}
# Functions that stand for their lines where they are called.
INLINED = {"train_batch"}


class Outline(ast.NodeVisitor):
    """The calls of hooks and landmarks in a function, in the order of the source, with the blocks
    that loops, conditions and `with` make around them."""

    def __init__(self, functions: dict[str, ast.FunctionDef]) -> None:
        self.functions, self.is_pseudocode = functions, "train_batch" not in functions
        self.lines: list[str] = []

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        """One in another: its lines are those of the call that it is handed to."""
        self.functions[node.name] = node

    def visit_Call(self, node: ast.Call) -> None:
        called = ast.unparse(node.func)
        for argument in [*node.args, *node.keywords]:
            if ast.unparse(argument) == "closure":  # runs inside, before the call ends
                self.visit_statements(self.functions["closure"].body)
            else:
                self.visit(argument)
        name = called.split(".")[-1]
        if called in INLINED:
            self.visit_statements(self.functions[called].body)
        elif called.startswith("hooks."):
            self.lines.append(name)
        elif called == "torch.set_grad_enabled":
            self.lines.append(ast.unparse(node))
        elif name in LANDMARKS or (self.is_pseudocode and "." not in called):
            self.lines.append(name)

    def visit_statements(self, statements: list[ast.stmt]) -> None:
        for statement in statements:
            self.visit(statement)

    def block(self, keyword: str, head: ast.expr, body: list[ast.stmt]) -> None:
        before = len(self.lines)
        self.visit(head)
        names = {part.id for part in ast.walk(head) if isinstance(part, ast.Name)}
        names |= {part.attr for part in ast.walk(head) if isinstance(part, ast.Attribute)}
        landmark = sorted(names & LANDMARKS)
        if not landmark:  # no block of the pseudocode: only what is called in it counts
            return self.visit_statements(body)
        del self.lines[before:]
        self.lines.append(f"{keyword} {landmark[0]}:")
        self.visit_statements(body)
        self.lines.append("end")

    def visit_For(self, node: ast.For) -> None:
        self.block("for", node.iter, node.body)

    def visit_With(self, node: ast.With) -> None:
        self.block("with", node.items[0].context_expr, node.body)

    def visit_If(self, node: ast.If) -> None:
        self.block("if", node.test, node.body)
        if ast.unparse(node.orelse) != "closure()":  # without an update, some of the same lines
            self.visit_statements(node.orelse)


def outline(source: str, function: str) -> list[str]:
    """The lines of one function of a source text that count."""
    functions = {node.name: node for node in ast.parse(source).body if isinstance(node, ast.FunctionDef)}
    found = Outline(functions)
    found.visit_statements(functions[function].body)
    return found.lines


def without_extras(lines: list[str]) -> list[str]:
    return [line for line in lines if line not in EXTRAS]


SOURCE = inspect.getsource(loops)


@pytest.mark.parametrize("function", ["fit", "train_on_device", "train_loop", "val_loop"])
def test_the_source_is_the_pseudocode(function: str) -> None:
    assert without_extras(outline(SOURCE, function)) == outline(PSEUDOCODE, function)


def test_the_outline_sees_every_line_of_the_pseudocode() -> None:
    """Otherwise the comparison would compare little: each statement of the text is a line of an outline."""
    functions = ["fit", "train_on_device", "train_loop", "val_loop"]
    lines = [line for function in functions for line in outline(PSEUDOCODE, function) if line != "end"]
    texts = [line.partition("#")[0].strip() for line in PSEUDOCODE.splitlines()]
    assert len(lines) == len([text for text in texts if text and not text.startswith("def ")])
    assert outline(PSEUDOCODE, "train_loop")[:5] == [
        "on_epoch_start", "on_train_epoch_start", "for train_dataloader:", "on_train_batch_start",
        "on_before_batch_transfer",
    ]  # fmt: skip


@pytest.mark.parametrize("line", [
    "if hooks.on_after_backward: hooks.on_after_backward()",
    "hooks.optimizer_zero_grad(epoch, batch_idx, optimizer, optimizer_idx)",
    "if hooks.on_train_batch_end: hooks.on_train_batch_end(output, batch, batch_idx, 0)",
])  # fmt: skip
def test_a_line_removed_or_doubled_is_seen(line: str) -> None:
    wanted = outline(PSEUDOCODE, "train_loop")
    assert line in SOURCE
    assert without_extras(outline(SOURCE.replace(line, "pass"), "train_loop")) != wanted
    indent = next(text for text in SOURCE.splitlines() if line in text).index(line[0])
    doubled = SOURCE.replace(line, f"{line}\n{' ' * indent}{line}")
    assert without_extras(outline(doubled, "train_loop")) != wanted


def test_extras_are_really_called() -> None:
    functions = ["train_on_device", "train_loop", "val_loop", "test_loop"]
    assert set(EXTRAS) <= {line for function in functions for line in outline(SOURCE, function)}


def test_test_loop_is_val_loop_with_other_names() -> None:
    renamed = [
        line.replace("validation", "test").replace("val_dataloader", "test_dataloader")
        for line in outline(SOURCE, "val_loop")
    ]
    assert outline(SOURCE, "test_loop") == renamed


def test_predict_loop_is_val_loop_without_what_prediction_lacks() -> None:
    """No on_epoch_*, no predict_epoch_end(outputs), no predict_step_end."""
    lacks = {"on_epoch_start", "on_epoch_end", "predict_epoch_end", "predict_step_end"}
    renamed = [line.replace("validation", "predict") for line in outline(SOURCE, "val_loop")]
    expected = [line for line in renamed if line not in lacks and line not in ("for val_dataloader:", "end")]
    assert [line for line in outline(SOURCE, "predict_loop") if line != "end"] == expected


# ---- training against a loop written by hand --------------------------------------------------------------

OPTIMIZERS: dict[str, Callable[[Any], Any]] = {
    "sgd": lambda parameters: torch.optim.SGD(parameters, lr=0.1),
    "momentum": lambda parameters: torch.optim.SGD(parameters, lr=0.1, momentum=0.9, weight_decay=0.01),
    "adam": lambda parameters: torch.optim.Adam(parameters, lr=0.05),
    "lbfgs": lambda parameters: torch.optim.LBFGS(parameters, lr=0.1, max_iter=3),
}


def by_hand(
    module: Line, data: Batches, epochs: int, skipped: Callable[[int], bool] = lambda batch_idx: False
) -> None:
    """The documentation's first pseudocode: forward, zero_grad, backward, step."""
    optimizer = module.configure_optimizers()
    module.train()
    for _ in range(epochs):
        for batch_idx, batch in enumerate(data):
            if skipped(batch_idx):
                continue

            def closure(batch: Any = batch) -> Tensor:
                loss = module.loss(batch)
                optimizer.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
                return loss

            optimizer.step(closure)


def same_weights(one: nn.Module, other: nn.Module) -> bool:
    pairs_of = zip(one.state_dict().values(), other.state_dict().values())
    return all(torch.equal(a, b) for a, b in pairs_of)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_weights_are_those_of_the_loop_written_by_hand(optimizer: str) -> None:
    module, reference = Line(OPTIMIZERS[optimizer]), Line(OPTIMIZERS[optimizer])
    quiet(max_epochs=3).fit(module, pairs(5), pairs(2, seed=1))
    by_hand(reference, pairs(5), 3)
    assert same_weights(module, reference)
    assert not same_weights(module, Line())


@pytest.mark.parametrize("optimizer", ["momentum", "adam"])
def test_none_leaves_weights_and_optimizer_state_alone(optimizer: str) -> None:
    class Picky(Line):
        def training_step(self, batch: Any, batch_idx: int) -> Any:
            return None if batch_idx % 3 == 1 else self.loss(batch)

    module, reference = Picky(OPTIMIZERS[optimizer]), Line(OPTIMIZERS[optimizer])
    quiet(max_epochs=2).fit(module, pairs(5), pairs(1))
    by_hand(reference, pairs(5), 2, skipped=lambda batch_idx: batch_idx % 3 == 1)
    assert same_weights(module, reference)


def test_a_loss_in_a_dict_trains_like_a_bare_one() -> None:
    class Dict(Line):
        def training_step(self, batch: Any, batch_idx: int) -> Any:
            return {"loss": self.loss(batch), "more": "anything"}

    module, reference = Dict(), Line()
    quiet().fit(module, pairs(4), pairs(1))
    by_hand(reference, pairs(4), 1)
    assert same_weights(module, reference)


class Noisy(Line):
    """Normalisation and dropout: both behave differently in train and eval mode."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(2, dtype=torch.float64)
        self.dropout = nn.Dropout(0.5)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(self.norm(self.dropout(x)))


def test_validation_leaves_no_trace_in_training() -> None:
    validated, plain = Noisy(), Noisy()
    torch.manual_seed(1)
    trainer = quiet(max_epochs=2, val_check_interval=1, num_sanity_val_steps=2)
    trainer.fit(validated, pairs(4), pairs(3, seed=1))
    torch.manual_seed(1)
    quiet(max_epochs=2, limit_val_batches=0).fit(plain, pairs(4))
    assert same_weights(validated, plain)


def test_step_schedulers_follow_updates_and_epoch_schedulers_epochs() -> None:
    class Scheduled(Line):
        def __init__(self, interval: str, frequency: int) -> None:
            super().__init__()
            self.interval, self.frequency = interval, frequency
            self.rates: list[float] = []

        def training_step(self, batch: Any, batch_idx: int) -> Any:
            assert self.trainer is not None
            self.rates.append(self.trainer.optimizers[0].param_groups[0]["lr"])
            return None if batch_idx == 1 else self.loss(batch)

        def configure_optimizers(self) -> Any:
            optimizer = torch.optim.SGD(self.parameters(), lr=1.0)
            scheduler = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.5)
            return [optimizer], [
                {"scheduler": scheduler, "interval": self.interval, "frequency": self.frequency}
            ]

    def rates(interval: str, frequency: int) -> list[float]:
        module = Scheduled(interval, frequency)
        quiet(max_epochs=2, limit_val_batches=0).fit(module, pairs(3))
        return module.rates

    assert rates("epoch", 1) == [1, 1, 1, 0.5, 0.5, 0.5]
    assert rates("epoch", 2) == [1, 1, 1, 1, 1, 1]
    assert rates("step", 1) == [1, 0.5, 0.5, 0.25, 0.125, 0.125]  # batch 1 made no update
    assert rates("step", 2) == [1, 1, 1, 0.5, 0.5, 0.5]


# ---- the order of a real run ----------------------------------------------------------------------------

Call = tuple[str, str]


def calls_of(run: Callable[[LightningModule, Callback], Any]) -> list[Call]:
    """Who received which hook in `run(module, callback)`."""
    calls: list[Call] = []
    module = tapped(Line, lambda _, hook, __: calls.append(("module", hook)))()
    callback = tapped(Callback, lambda _, hook, __: calls.append(("callback", hook)))()
    run(module, callback)
    return calls


def hooks_of(calls: list[Call], receiver: str) -> list[str]:
    return [hook for who, hook in calls if who == receiver]


BATCH = ["on_before_batch_transfer", "transfer_batch_to_device", "on_after_batch_transfer"]
VALIDATION = [
    "on_validation_model_eval", "on_validation_start", "on_epoch_start", "on_validation_epoch_start",
    "on_validation_batch_start", *BATCH, "validation_step", "on_validation_batch_end",
    "validation_epoch_end", "on_validation_epoch_end", "on_epoch_end", "on_validation_end",
    "on_validation_model_train",
]  # fmt: skip
TRAIN_BATCH = [
    "on_train_batch_start", *BATCH, "optimizer_step", "training_step", "on_before_zero_grad",
    "optimizer_zero_grad", "on_before_backward", "backward", "on_after_backward", "on_before_optimizer_step",
    "configure_gradient_clipping", "on_train_batch_end",
]  # fmt: skip
FIT = [
    "prepare_data", "on_fit_start", "setup", "on_post_move_to_device", "configure_optimizers",
    "on_pretrain_routine_start", "on_pretrain_routine_end", *VALIDATION,
    "on_train_start", "on_epoch_start", "on_train_epoch_start", *TRAIN_BATCH, *TRAIN_BATCH, *VALIDATION,
    "training_epoch_end", "on_train_epoch_end", "on_epoch_end", "on_train_end", "on_fit_end", "teardown",
]  # fmt: skip


def test_fit_calls_the_modules_hooks_in_the_documented_order() -> None:
    """`optimizer_step` begins before `training_step`, which runs inside of it, and ends after it."""
    calls = calls_of(lambda module, callback: quiet(num_sanity_val_steps=1).fit(module, pairs(2), pairs(1)))
    assert hooks_of(calls, "module") == FIT


def test_callbacks_receive_a_hook_before_the_module() -> None:
    def run(module: LightningModule, callback: Callback) -> None:
        quiet(num_sanity_val_steps=1, callbacks=callback).fit(module, pairs(2), pairs(1))

    calls = calls_of(run)
    mine = set(hooks_of(calls, "callback")) - {"on_sanity_check_start", "on_sanity_check_end"}
    for index, (receiver, hook) in enumerate(calls):
        if hook in mine and receiver == "module":
            assert calls[index - 1] == ("callback", hook)
    begin, end = (calls.index(("callback", f"on_sanity_check_{edge}")) for edge in ("start", "end"))
    assert calls[begin - 1] == ("module", "on_pretrain_routine_end")
    assert calls[end - 1] == ("module", "on_validation_model_train")
    assert calls[end + 1] == ("callback", "on_train_start")


@pytest.mark.parametrize(
    "stage, name", [("validate", "validation"), ("test", "test"), ("predict", "predict")]
)
def test_evaluation_alone(stage: str, name: str) -> None:
    calls = calls_of(lambda module, callback: getattr(quiet(), stage)(module, pairs(1)))
    middle = [hook.replace("validation", name) for hook in VALIDATION]
    if stage == "predict":
        lacks = {"on_epoch_start", "on_epoch_end", "predict_epoch_end"}
        middle = [hook for hook in middle if hook not in lacks]
        middle.insert(middle.index("on_predict_batch_end") + 1, "on_predict_epoch_end")
        middle = list(dict.fromkeys(middle))
    assert hooks_of(calls, "module") == [
        "prepare_data", "setup", "on_post_move_to_device", *middle, "teardown"
    ]  # fmt: skip


def test_hooks_receive_the_documented_arguments() -> None:
    seen: dict[str, tuple[Any, ...]] = {}
    module = tapped(Line, lambda _, hook, args: seen.update({hook: args}))()
    data, val = pairs(3), pairs(2, seed=1)
    trainer = quiet()
    trainer.fit(module, data, [val, val])
    last = data.batches[-1]
    assert seen["setup"] == seen["teardown"] == ("fit",)
    assert seen["on_train_batch_start"] == (last, 2, 0)
    assert seen["on_before_zero_grad"] == (trainer.optimizers[0],)
    assert seen["on_before_optimizer_step"] == (trainer.optimizers[0], 0)
    assert seen["optimizer_zero_grad"] == (0, 2, trainer.optimizers[0], 0)
    assert seen["optimizer_step"][:4] == (0, 2, trainer.optimizers[0], 0)
    assert seen["optimizer_step"][5:] == (False, False, False)
    assert seen["backward"][1:] == (trainer.optimizers[0], 0)
    assert seen["backward"][0] is seen["on_before_backward"][0]
    outputs, batch, *rest = seen["on_train_batch_end"]
    assert rest == [2, 0] and batch[0] is last[0] and not outputs.requires_grad
    assert seen["validation_step"][1:] == (1, 1)  # batch_idx, dataloader_idx
    assert seen["on_validation_batch_end"][2:] == (1, 1)
    assert seen["transfer_batch_to_device"][1:] == (torch.device("cpu"), 1)


# ---- modes ----------------------------------------------------------------------------------------------

INSIDE_VALIDATION = set(VALIDATION[1:])  # on_validation_model_eval begins as training left things


@pytest.mark.parametrize("starts_in_eval", [False, True])
def test_modes_at_every_hook(starts_in_eval: bool) -> None:
    modes: list[tuple[str, bool, bool]] = []

    def note(module: LightningModule, hook: str, args: Any) -> None:
        modes.append((hook, module.training, torch.is_grad_enabled()))

    module = tapped(Line, note)()
    module.train(not starts_in_eval)
    with torch.no_grad():  # fit does not depend on the caller's mode, and gives it back
        quiet(num_sanity_val_steps=1).fit(module, pairs(2), pairs(1))
        assert not torch.is_grad_enabled()
    assert [hook for hook, *_ in modes] == FIT
    start = FIT.index("on_validation_model_eval") + 1
    inside = False
    for index, (hook, training, grad) in enumerate(modes):
        if hook == "prepare_data":
            continue
        if index < start:
            assert (training, grad) == (not starts_in_eval, True), hook
        else:
            inside = inside or modes[index - 1][0] == "on_validation_model_eval"
            assert (training, grad) == (not inside, not inside), (index, hook)
            inside = inside and hook != "on_validation_model_train"
    assert module.training


def test_evaluation_computes_no_gradients_and_returns_to_train_mode() -> None:
    module = Line()
    predictions = quiet().predict(module, pairs(2))
    assert predictions is not None and not any(p.requires_grad for p in predictions)
    assert module.training and torch.is_grad_enabled()


# ---- outputs --------------------------------------------------------------------------------------------


def test_epoch_end_receives_the_outputs_without_the_nones() -> None:
    class Collecting(Line):
        def training_step(self, batch: Any, batch_idx: int) -> Any:
            return None if batch_idx == 1 else {"loss": self.loss(batch), "idx": batch_idx}

        def training_epoch_end(self, outputs: list[Any]) -> None:
            self.collected = outputs

        def validation_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> Any:
            return None if batch_idx == 0 else (dataloader_idx, batch_idx)

        def validation_epoch_end(self, outputs: list[Any]) -> None:
            self.validated = outputs

    module = Collecting()
    quiet().fit(module, pairs(3), pairs(3))
    assert [output["idx"] for output in module.collected] == [0, 2]
    assert not any(output["loss"].requires_grad for output in module.collected)
    assert module.validated == [(0, 1), (0, 2)]  # one loader: a flat list
    quiet().validate(module, [pairs(2), pairs(3)])
    assert module.validated == [[(0, 1)], [(1, 1), (1, 2)]]


def test_step_end_replaces_the_output() -> None:
    class Ending(Line):
        def training_step(self, batch: Any, batch_idx: int) -> Any:
            return {"pred": self(batch[0]), "y": batch[1]}

        def training_step_end(self, output: Any) -> Any:
            return torch.mean((output["pred"] - output["y"]) ** 2)

        def test_step_end(self, output: Any) -> Any:
            return "ended"

        def test_epoch_end(self, outputs: list[Any]) -> None:
            self.tested = outputs

    module, reference = Ending(), Line()
    quiet(limit_val_batches=0).fit(module, pairs(4))
    by_hand(reference, pairs(4), 1)
    assert same_weights(module, reference)
    quiet().test(module, pairs(2))
    assert module.tested == ["ended", "ended"]


def test_predictions_are_flat_for_one_loader_and_nested_for_several() -> None:
    class Index(Line):
        def predict_step(self, batch: Any, batch_idx: int, dataloader_idx: int | None = None) -> Any:
            return (dataloader_idx, batch_idx)

        def on_predict_epoch_end(self, results: list[Any]) -> None:
            self.results = results

    module = Index()
    assert quiet().predict(module, pairs(2)) == [(None, 0), (None, 1)]
    assert module.results == [[(None, 0), (None, 1)]]
    assert quiet().predict(module, [pairs(1), pairs(2)]) == [[(0, 0)], [(1, 0), (1, 1)]]
    assert quiet().predict(module, pairs(1), return_predictions=False) is None


def test_by_default_predict_step_calls_forward() -> None:
    class Plain(LightningModule):
        def forward(self, batch: Any) -> Any:
            return batch[0] * 2

    batch = pairs(1).batches[0]
    predictions = quiet().predict(Plain(), Batches([batch]))
    assert predictions is not None and torch.equal(predictions[0], batch[0] * 2)


def test_minus_one_skips_the_rest_of_the_epoch_only() -> None:
    class Skipping(Line):
        def on_train_batch_start(self, batch: Any, batch_idx: int, dataloader_idx: int) -> int | None:
            return -1 if batch_idx == 2 else None

        def training_epoch_end(self, outputs: list[Any]) -> None:
            self.outputs = [*getattr(self, "outputs", []), len(outputs)]

    module, reference = Skipping(), Line()
    trainer = quiet(max_epochs=2, limit_val_batches=0)
    trainer.fit(module, pairs(5))
    by_hand(reference, pairs(2), 0)
    assert module.outputs == [2, 2]
    assert trainer.global_step == 4
    by_hand(reference, pairs(5), 2, skipped=lambda batch_idx: batch_idx >= 2)
    assert same_weights(module, reference)


def test_a_closure_that_is_not_called_trains_nothing() -> None:
    class Lazy(Line):
        def optimizer_step(self, *args: Any) -> None:
            if args[1] % 2 == 0:
                super().optimizer_step(*args)

    module, reference = Lazy(OPTIMIZERS["momentum"]), Line(OPTIMIZERS["momentum"])
    quiet(limit_val_batches=0).fit(module, pairs(5))
    by_hand(reference, pairs(5), 1, skipped=lambda batch_idx: batch_idx % 2 == 1)
    assert same_weights(module, reference)


def test_without_an_optimizer_the_steps_still_run() -> None:
    class Free(Line):
        steps = 0

        def training_step(self, batch: Any, batch_idx: int) -> Any:
            self.steps += 1
            return self.loss(batch)

        def configure_optimizers(self) -> None:
            return None

    module = Free()
    with pytest.warns(UserWarning, match="configure_optimizers returned None: nothing is trained"):
        quiet(limit_val_batches=0).fit(module, pairs(3))
    assert module.steps == 3
    assert same_weights(module, Line())


def test_transfer_hooks_change_what_the_step_receives() -> None:
    class Augmenting(Line):
        def on_before_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
            return [*batch, "before"]

        def transfer_batch_to_device(self, batch: Any, device: torch.device, dataloader_idx: int) -> Any:
            return [*batch, device.type]

        def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
            return [*batch, "after"]

        def training_step(self, batch: Any, batch_idx: int) -> Any:
            x, y, *self.trail = batch
            return self.loss((x, y))

    module = Augmenting()
    quiet(limit_val_batches=0).fit(module, pairs(1))
    assert module.trail == ["before", "cpu", "after"]
