"""The recorder: spans, out of any object that has hooks, each with the effects as they stand (effects.py).

It makes subclasses whose hooks record their begin and end around the original, and wraps the `step`
and `zero_grad` of optimizers and the `step` of schedulers. Runs in the trainer's own world: the
standard library and torch, Python 3.8 and up.
"""

from __future__ import annotations

import functools
import inspect
import os
import types
from typing import Any, Callable, Dict, Iterable, List, Mapping, Optional, Set, Tuple

import torch

from .described import (
    combined,
    describe,
    described_arguments,
    described_hiddens,
    described_indices,
    described_outputs,
    described_parts,
    described_values,
    finite,
    handled,
    identify,
    identify_part,
    identify_samples,
    row_of,
    said,
)  # fmt: skip
from .effects import Observer, autocasts, next_random, rounded, weights_in, weights_of
from .experiment import STEPS, When
from .hooks import ARGUMENTS, EPOCH_ENDS, LOADERS

__all__ = ["Recorder", "documented"]

# Arguments that are written as they are; others are described, or left out.
PLAIN = (
    *("batch_idx", "dataloader_idx", "optimizer_idx", "epoch", "stage", "split_size"),
    *("on_tpu", "using_native_amp", "using_lbfgs", "retain_graph"),
)


# Where it is recorded which random number comes next.
DRAW_AFTER = ("training_step", "on_sanity_check_start", "train_dataloader", "on_train_start")
OWNERS = ("module", "datamodule")  # that look for what was put into a checkpoint, by callbacks too, under this name
PUT = "scenario-%s"


class Recorder(Observer):
    """Writes what happens to a trace, and makes the scenario's `when` happen. `nesting` is that of the training
    batches: 0, or in how many lists or dicts those of several loaders lie. `in_parts`: batches are split over devices,
    and it is told which rows of its batch a hook gets. `in_shares`: over processes, and it is told which samples
    this one has."""

    def __init__(
        self, writer: Any, when: Iterable[When] = (), nesting: int = 0, in_parts: bool = False, in_shares: bool = False
    ) -> None:
        super().__init__()
        self.writer, self.nesting, self.in_parts, self.in_shares = writer, nesting, in_parts, in_shares
        self.tells_samples = in_shares  # which ones a hook gets
        self.tells_random = False  # which number comes next, where a step draws one
        self.keeps_arguments = False  # as hyperparameters of the module
        self.tells_bar = False  # what the progress bar shows, as an epoch ends
        self.blind = False  # reading effects where a user's call ends only, to see that elsewhere it changes nothing
        self.kinds: Dict[Any, Any] = {}  # of callbacks that record, by the class that each is derived from
        self._depth = 0
        self._counts: Dict[Tuple[str, str], int] = {}
        self._actions = {(w.receiver, w.hook, w.nth): w.do for w in when}
        self.folders: List[str] = []  # of callbacks that save, where this process is to look into them
        self.checkpoint = ""  # the file that a scenario saves to, each process to one of its own name
        self._handed: Optional[Dict[str, List[Any]]] = None  # what a logger was given in this call, if there is one
        self._told: Set[str] = set()  # of which hyperparameters it was told
        self._experiment = "open"  # the logger's

    # ---- spans -----------------------------------------------------------------------------------

    def span(self, receiver: str, hook: str, call: Callable[[], Any], args: Dict[str, Any]) -> Any:
        """Record begin and end of `call`, and what the scenario wants to happen there."""
        count = self._counts[receiver, hook] = self._counts.get((receiver, hook), -1) + 1
        is_run = receiver == "trainer" and hook != "save_checkpoint"
        if is_run and self._handed is not None:
            self._handed.clear()
            self._told.clear()
            self._experiment = "open"
        self.event("B", receiver, hook, args)
        self._depth += 1
        try:
            result = self._act(self._actions.get((receiver, hook, count)), call)
        except BaseException as error:
            self._depth -= 1
            status = self.status() if is_run else {}
            self.event("E", receiver, hook, dict(args, raised=said(error), **status))
            raise
        self._depth -= 1
        if is_run:
            args = dict(args, **self.status())
        if receiver == "trainer" and hook == "predict":
            args = dict(args, **self.identities({"results": result}))
        elif hook in ("validate", "test") and not isinstance(result, list):
            args = dict(args, returned_names=describe(result))
        elif is_run and isinstance(result, list) and all(isinstance(each, Mapping) for each in result):
            told = {"%d/%s" % (i, name): rounded(each[name]) for i, each in enumerate(result) for name in each}
            args = dict(args, returned_names=sorted(told), returned_values=[told[name] for name in sorted(told)])
        if is_run and self._handed is not None and hook != "predict":
            given = [(name, *each) for name, handed in sorted(self._handed.items()) for each in handed]
            names, values, steps = zip(*given) if given else ((), (), ())
            args = dict(args, logger_names=list(names), logger_values=list(values), logger_steps=list(steps))
        if is_run and self.keeps_arguments:
            args = dict(args, hparams=described_arguments(self.module.hparams))
            args.update({"logger_hparams": sorted(self._told)} if hook == "fit" else {})
        if receiver == "module" and hook in ("freeze", "unfreeze"):
            args = dict(args, requires_grad=sum(p.requires_grad for p in self.module.parameters()))
        if hook == "load_from_checkpoint":
            args = dict(args, weights=weights_of(result.state_dict()))
            if self.keeps_arguments:
                args.update(hparams=described_arguments(result.hparams), arguments=described_arguments(result.given))
        if receiver == "module" and (hook in STEPS.values() or hook.endswith("_step_end")):
            args = dict(args, **self._values("returned", result))
        if hook == "fit" and self.folders:
            args = dict(args, files=weights_in(self.folders))
        if self.in_shares and hook == "save_checkpoint":
            args = dict(args, writes=os.path.exists(self.checkpoint))
        self.event("E", receiver, hook, args)
        return result

    def status(self) -> Dict[str, Any]:
        """What the trainer says of the call that is over, if it says anything."""
        status = getattr(getattr(self.trainer, "state", None), "status", None)
        return {} if status is None else {"status": str(getattr(status, "value", status))}

    def _act(self, action: Optional[str], call: Callable[[], Any]) -> Any:
        if action is None:
            return call()
        if action == "raise":
            raise RuntimeError("told to by the scenario")
        if action == "interrupt":
            raise KeyboardInterrupt
        if action == "skip-closure":
            return None
        result = call()
        if action == "save":
            self.save()
            return result
        if action == "stop":
            self.trainer.should_stop = True
        return None if action == "return-none" else -1 if action == "return-minus-1" else result

    def properties(self) -> Dict[str, Any]:
        """What the module says of its run, as far as the trainer's modules have such properties."""
        names = ("precision", "use_amp") + ("global_rank", "local_rank") * self.in_shares
        told = {name: getattr(self.module, name) for name in names if hasattr(self.module, name)}
        return {**told, "datamodule": getattr(self.trainer, "datamodule", None) is not None}

    def save(self) -> None:
        """Have the trainer save a checkpoint."""
        self.span("trainer", "save_checkpoint", lambda: self.trainer.save_checkpoint(self.checkpoint), {})

    def logger(self, base: type, gathers: bool = False) -> Any:
        """A logger of the trainer's kind, that remembers what it is given; but for the number of the epoch. `gathers`:
        by its default the trainer's waits for what else belongs to the step."""
        handed = self._handed = {}

        def log_metrics(_: Any, metrics: Mapping[str, Any], step: Optional[int] = None) -> None:
            for name in metrics.keys() - {"epoch"}:
                handed.setdefault(name, []).append((rounded(metrics[name]), None if step is None else int(step)))

        def log_hyperparams(_: Any, params: Any, *__: Any) -> None:
            self._told.update(described_arguments(params))

        def finalize(_: Any, status: str) -> None:
            self._experiment = "closed"

        body: Dict[str, Any] = {"log_metrics": log_metrics, "log_hyperparams": log_hyperparams, "finalize": finalize}
        if gathers:
            body["agg_and_log_metrics"] = log_metrics
        return type("RecordingLogger", (base,), {**body, "name": "recording", "version": 0, "experiment": None})()

    def event(self, ph: str, receiver: str, hook: str, args: Dict[str, Any]) -> None:
        """Write one event with the effects as they stand."""
        sees = not self.blind or (ph == "E" and receiver == "trainer")
        fx = self.effects() if sees else {}
        if sees and hook in STEPS.values() and self.module is not None and self.tags is None:
            fx["autocast"] = autocasts(self.module)
        if sees and self._handed is not None and (ph, hook) == ("B", "on_train_end"):
            fx["experiment"] = self._experiment
        if sees and (ph, receiver, hook) == ("B", "module", "setup"):
            fx.update(self.properties())
        if sees and self.tells_random and ph == "B" and hook in DRAW_AFTER:
            fx["random"] = next_random()
        if sees and self.tells_bar and ph == "B" and hook in EPOCH_ENDS:
            fx["bar"] = sorted(self.trainer.progress_bar_metrics)
        self.writer.event(ph, receiver, hook, self._depth, args, fx)

    # ---- instrumentation -------------------------------------------------------------------------

    def recording(
        self, base: type, hooks: Iterable[str], receiver: str,
        elsewhere: Optional[Tuple[Callable[..., Any], Tuple[Any, ...]]] = None
    ) -> Any:  # fmt: skip
        """A subclass of `base` whose `hooks` are recorded; instances of a callback class say who
        they are by an attribute `receiver`. Where one is pickled, for another process, what comes of it is made by
        `elsewhere`, a function and its arguments, which is given the attributes."""
        namespace = {hook: self._recorded(base, hook, receiver) for hook in hooks}
        if elsewhere is not None:
            namespace["__reduce__"] = lambda self: (*elsewhere, dict(vars(self)))
        return type("Recorded" + base.__name__, (base,), namespace)

    def _recorded(self, base: type, hook: str, receiver: str) -> Callable[..., Any]:
        original = getattr(base, hook)
        signature, names, known, renamed, offset = _called(original, hook)
        recorder = self

        def recorded(self: Any, *args: Any, **kwargs: Any) -> Any:
            given = dict(zip(names, args), **{known.get(name, name): value for name, value in kwargs.items()})
            kwargs = {renamed.get(name, name): value for name, value in kwargs.items()}
            who = getattr(self, "receiver", receiver) if offset or receiver == "callback" else receiver
            around, recorder.running = recorder.running, self if recorder.in_parts and who == "module" else None
            about = recorder.identities(given)
            puts = recorder.tags is None  # as a user would, to find it there again
            looks = puts and who in OWNERS
            if hook == "on_load_checkpoint" and looks:
                about["kept"] = given["checkpoint"].get(PUT % who, "nothing")
                keys = [key for key in map(str, given["checkpoint"]) if key.startswith(PUT % "callback")]
                about["found"] = sorted(key[len(PUT % "") :] for key in keys)
            elif hook == "on_save_checkpoint" and looks:
                about["complete"] = all(name in given["checkpoint"] for name in ("state_dict", "epoch", "global_step"))

            def call() -> Any:
                result = original(self, *args, **kwargs)
                if hook == "on_save_checkpoint" and puts:
                    given["checkpoint"][PUT % who] = who
                return result

            try:
                result = recorder.span(who, hook, call, about)
            finally:
                recorder.running = around
            if hook == "configure_optimizers":
                return recorder.instrumented(result)
            if hook in LOADERS and recorder.tags is not None:
                return recorder.tags.loaders(result, hook.split("_")[0])
            return result

        # Trainers look at a hook's name (refimpl's self.log does) and at its signature.
        named = recorded.__code__.replace(co_name=hook)
        function = types.FunctionType(named, globals(), hook, recorded.__defaults__, recorded.__closure__)
        function.__signature__ = signature  # type: ignore[attr-defined]
        function.__doc__ = original.__doc__
        return function

    def identities(self, given: Mapping[str, Any]) -> Dict[str, Any]:
        """The arguments as a trace writes them."""
        args: Dict[str, Any] = {}
        for name, value in given.items():
            if name == "batch":
                one = identify if self.tags is None else self.tags.identify
                if self.tags is None:
                    args.update(handled(value))
                if self.in_parts:
                    args["batch"], args["rows"] = identify_part(value)
                elif self.tells_samples:
                    args["batch"], args["samples"] = identify_samples(value, self.nesting)
                else:
                    args["batch"] = combined(value, one, self.nesting)
            elif name in PLAIN:
                args[name] = value.item() if hasattr(value, "item") else value  # NumPy's numbers are none of JSON's
            elif name in ("outputs", "output"):
                args.update(described_outputs(value), outputs=describe(value), **self._values("outputs_values", value))
                if self.in_parts and name == "output":  # of a step, for its `*_step_end`
                    args.update(described_parts(value))
            elif name == "results":
                args.update(results=describe(value), **self._values("results_values", value))
            elif name in ("prediction", "predictions"):
                args[name] = describe(value)
            elif name == "batch_indices":
                args[name] = described_indices(value)
            elif name == "hiddens":
                args["hiddens"] = described_hiddens(value)
                if self.in_parts and isinstance(value, torch.Tensor):  # with the target of the part that they are of
                    index = int(str(args["batch"]).rpartition("/")[2]) if args["batch"] else 0
                    args["hiddens_row"] = row_of(float(value.detach().flatten()[-1]), index)
            elif name == "loss" and self.tags is None:  # of data that no formulas know, nobody can tell the loss
                args["loss"] = finite(float(value.detach()))
            elif name == "optimizer":
                args["optimizer"] = self._name_of(value)
        return args

    def _values(self, name: str, outputs: Any) -> Dict[str, Any]:
        """Which outputs they are; of data that no formulas know, nobody can tell the numbers."""
        return {name: described_values(outputs)} if self.tags is None else {}

    def _name_of(self, optimizer: Any) -> Optional[str]:
        """The receiver that an optimizer is in the trace; a trainer may have wrapped it. None for one of nobody's."""
        plain = getattr(optimizer, "optimizer", optimizer)
        place = _place(plain, self.optimizers)
        return _numbered("optimizer", self.optimizers, place) if place < len(self.optimizers) else None

    def instrumented(self, configured: Any) -> Any:
        """Wrap every optimizer and scheduler in what `configure_optimizers` returned."""
        optimizers, schedulers = _collect(configured)
        schedulers.sort(key=lambda scheduler: _place(getattr(scheduler, "optimizer", None), optimizers))
        self.follow(optimizers)
        for index, optimizer in enumerate(optimizers):
            self._wrap(optimizer, "step", _numbered("optimizer", optimizers, index))
        for index, scheduler in enumerate(schedulers):
            self._wrap(scheduler, "step", _numbered("scheduler", schedulers, index))
        return configured

    def _wrap(self, target: Any, method: str, receiver: str) -> None:
        original = getattr(target, method)

        @functools.wraps(original)  # keeps the marks that torch's schedulers look for
        def recorded(*args: Any, **kwargs: Any) -> Any:
            reacts = args and receiver.startswith("scheduler") and self.tags is None  # to a value, on a plateau
            values = {"value": finite(float(args[0]))} if reacts else {}
            return self.span(receiver, method, lambda: original(*args, **kwargs), values)

        if receiver.startswith("scheduler"):  # whose attributes are its state, and go into checkpoints
            kind = type(target)
            target.__class__ = type(kind.__name__, (kind,), {method: staticmethod(recorded)})
        else:
            setattr(target, method, recorded)


@functools.lru_cache(maxsize=512)  # of all that is recorded, and yet of no more than a few engines
def _called(
    original: Callable[..., Any], hook: str
) -> Tuple[inspect.Signature, List[str], Dict[str, str], Dict[str, str], int]:
    """How a trainer can call a hook: the signature that it is shown, what the parameters are called in a trace, by
    position and by their own names, which of those are shown by the documentation's, and after how many that are for
    a callback come the hook's own."""
    signature = inspect.signature(original)
    variable = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    own = [name for name, p in signature.parameters.items() if p.kind not in variable][1:]
    offset = 2 if own[:2] == ["trainer", "pl_module"] else 0
    names = own[:offset] + documented(hook, own[offset:])
    known = dict(zip(own, names))
    renamed = {new: old for old, new in known.items() if new != old}
    if not renamed or getattr(original, "__qualname__", "").partition(".")[0] not in ("ModelHooks", "Callback"):
        return signature, names, known, {}, offset
    # What a library does not use it may call something else, and trainers give what a hook's parameters name.
    shown = [p.replace(name=known.get(p.name, p.name)) for p in signature.parameters.values()]
    return signature.replace(parameters=shown), names, known, renamed, offset


def documented(hook: str, names: List[str]) -> List[str]:
    """What the documentation calls a hook's parameters: those of another name are told by their positions; and those
    that follow, which a `*args` takes."""
    due = ARGUMENTS.get(hook, ())
    told = [
        due[at] if at < len(due) and name not in due and due[at] not in names else name
        for at, name in enumerate(names)
    ]
    return told + [name for name in due[len(told) :] if name not in told]


def _numbered(kind: str, among: List[Any], index: int) -> str:
    """"optimizer", or with several "optimizer:1"."""
    return kind if len(among) == 1 else "%s:%d" % (kind, index)


def _place(optimizer: Any, known: List[Any]) -> int:
    """The index of the optimizer among those that are known; beyond them, if it is none of them."""
    return next((index for index, each in enumerate(known) if each is optimizer), len(known))


def _collect(configured: Any) -> Tuple[List[Any], List[Any]]:
    """The optimizers and schedulers anywhere in a return value of `configure_optimizers`."""
    optimizers: List[Any] = []
    schedulers: List[Any] = []
    items = list(configured.values()) if isinstance(configured, Mapping) else configured
    if isinstance(items, (list, tuple)):
        for item in items:
            more = _collect(item)
            optimizers += more[0]
            schedulers += more[1]
    elif isinstance(configured, torch.optim.Optimizer):
        optimizers.append(configured)
    elif hasattr(configured, "step"):
        schedulers.append(configured)
    return optimizers, schedulers
