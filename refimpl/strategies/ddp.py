"""DDP: one process for each device, all of which run the loops on their share of the data; gradients are averaged.

Each process runs the script, and in it the same functions of its trainer. What decides for all (a stop, a checkpoint,
a schedule) is what one of them asked for, or what process 0 has logged. ("Training with DistributedDataParallel")

DDP2: one process for each machine, which splits its batches over the devices there as DP does. [R105]
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, distributed, nn
from torch._C._distributed_c10d import _broadcast_coalesced

from ..callbacks.progress_bar import ProgressBarBase
from ..devices import Devices
from ..dispatch import named, overridden
from ..errors import ConfigurationError
from ..hooks import DataHooks
from ..loaders.batches import transformed
from ..loggers.loggers import SilentLogger
from ..optimization import Optimization
from ..progress import Progress
from ..saving.resume import states_of
from ..trainer.options import Options
from ..types import LightningModule
from .dp import DataParallel, Parts
from .launch import refuse_import, spawned
from .processes import Processes, joined
from .shares import shares
from .together import gathered

__all__ = ["SPAWNING", "Distributed"]

SPAWNING = ("ddp_spawn", "ddp_cpu", "ddp_spawn_find_unused_parameters_false")  # the strategies that spawn a function
# After these hooks, the processes agree on whether training ends: after each there is a line that asks whether it does.
_AGREED = ("on_train_start", "on_train_batch_end", "on_validation_end", "on_epoch_end")


def _wrapped(module: nn.Module, device: torch.device, finds_unused: bool) -> Any:
    """DistributedDataParallel, which is given a loss, and looks for the module's parameters behind it."""
    whole, ids = nn.Identity(), None if device.type == "cpu" else [device.index]
    whole.module = module
    own = [f"module.{name}" for name, _ in module.named_buffers()]  # which each process has when a step begins
    whole._ddp_params_and_buffers_to_ignore = own  # type: ignore[assignment]
    return nn.parallel.DistributedDataParallel(whole, ids, find_unused_parameters=finds_unused)


def _hear_the_warning(device: torch.device) -> None:
    """Torch warns, once in a process, where it has looked for unused parameters and finds none: here, and by what
    `apply_` calls, so that it goes through Python's filters, which it would pass by later."""
    used = nn.Linear(1, 1, bias=False, device=device)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.zeros(1).apply_(lambda _: _wrapped(used, device, True)(used.weight.sum()).item())


class Distributed(Devices):
    """One of several processes, each with a device. It is the one that whoever started it says, in RANK, LOCAL_RANK and
    WORLD_SIZE, or else the first of its machine, NODE_RANK, which starts the others: if it `spawns` them, none of the
    run's, but the one that waits for them. With "ddp2" it is alone on its machine: to the others it has the first
    device."""

    has_buffers = False  # whether the module of a fit has any

    def __init__(self, devices: Sequence[torch.device], num_nodes: int, options: Options, strategy: str) -> None:
        super().__init__(devices[0], options)
        splits, self.spawns = strategy == "ddp2", strategy in SPAWNING
        self.within = DataParallel(devices, options) if splits else None
        self.num_devices = len(devices) if splits else 1
        self.devices, self.num_nodes = list(devices[:1] if splits else devices), num_nodes
        self.finds_unused = not strategy.endswith("find_unused_parameters_false")
        if options.sync_batchnorm and self.device.type == "cpu":
            raise ConfigurationError("sync_batchnorm=True: torch has it on GPUs only; leave it out on the CPU")
        if options.sync_batchnorm and splits:
            raise ConfigurationError("sync_batchnorm=True: with strategy='ddp2' machines may have different numbers of "
                                     "parts, which cannot wait for each other; leave it out, or use 'ddp'")  # fmt: skip
        self.time_is_up = self.agreed = False  # as the processes have agreed
        self.asks = self.has_met = False  # this one to stop, without the others; in a backward of this batch
        self.processes: Processes | None = None  # while a run goes on
        self.ends: list[Any] = []  # what the parts of each process had come to at the end of the last fit
        self.ddp: Any = None  # these two of the fit that runs
        self.optimization: Any = None
        self.take_place()

    def __getstate__(self) -> dict[str, Any]:
        """A copy or a pickle leaves the processes behind."""
        return {**vars(self), "processes": None, "ddp": None, "optimization": None}

    def take_place(self) -> None:
        """Know which process this is."""
        env, here = os.environ, len(self.devices)
        self.starts, node = "RANK" not in env or "WORLD_SIZE" not in env, int(env.get("NODE_RANK", 0))
        if self.starts and node >= self.num_nodes:
            raise ConfigurationError(f"NODE_RANK={node}, but num_nodes={self.num_nodes}; a number from 0 to "
                                     f"{self.num_nodes - 1} is accepted, another on each machine")  # fmt: skip
        self.world_size = here * self.num_nodes if self.starts else int(env["WORLD_SIZE"])
        self.global_rank = node * here if self.starts else int(env["RANK"])
        self.local_rank = 0 if self.starts else int(env.get("LOCAL_RANK", self.global_rank % here))
        self.num_processes = here if self.starts else int(env.get("LOCAL_WORLD_SIZE", here))
        nodes = self.world_size // self.num_processes
        if self.num_processes != here or self.num_nodes not in (1, nodes):
            asked, fix = f"devices={here}", "leave the two out, or give the same numbers"
            if self.within:
                asked, fix = "strategy='ddp2'", "start one on each (--nproc_per_node 1), num_nodes in all, or use 'ddp'"
            raise ConfigurationError(f"{asked}, num_nodes={self.num_nodes}, but {self.world_size} processes were "
                                     f"started, {self.num_processes} on each machine; {fix}")  # fmt: skip
        self.num_nodes, self.node_rank = nodes, self.global_rank // self.num_processes
        self.device, self.spawns = self.devices[self.local_rank], self.spawns and self.starts

    # ---- a run ---------------------------------------------------------------------------------------------------

    def execute(self, run: Callable[..., Any], trainer: Any, function: str, *given: Any) -> Any:
        """The function runs in each process; one that fails ends it in all of them. Raises ProcessError where another
        one was the first to."""
        refuse_import()
        if self.spawns:
            return spawned(self, trainer, function, *given)
        if self.device.type == "cuda":
            torch.cuda.set_device(self.device)
        with joined(self, lambda: trainer.state.fn == "fit" and bool(trainer.state.passes)) as processes:
            self.processes, self.agreed, self.ends = processes, False, [] if function == "fit" else self.ends
            try:
                self.same("functions of the trainer", function)
                self._silence(trainer)
                results = run(trainer, function, *given)
                if trainer.interrupted and not self.agreed:
                    processes.part()  # the others may be anywhere
                if function == "fit" and not processes.is_parted:
                    self.ends = self._of_all(states_of(trainer.run.parts())[0])
                processes.wait()
                return results
            finally:
                self.processes = self.ddp = self.optimization = None

    def _silence(self, trainer: Any) -> None:
        """Bars and loggers are of process 0; in the others, loggers say where that writes, and write nothing."""
        told = ("name", "version", "save_dir", "log_dir")
        facts = self.of_zero([{name: getattr(each, name) for name in told} for each in trainer.loggers])
        if self.global_rank == 0:
            return
        trainer.loggers = [SilentLogger() for _ in facts]
        for logger, known in zip(trainer.loggers, facts):
            vars(logger).update(known)
        for callback in trainer.callbacks:
            if isinstance(callback, ProgressBarBase):
                callback.disable()

    def place(self, module: nn.Module) -> None:
        """Each process has the module of process 0 on its device.

        Raises ConfigurationError where they have built different ones.
        """
        if self.options.sync_batchnorm:
            nn.SyncBatchNorm.convert_sync_batchnorm(module)  # type: ignore[no-untyped-call]
        super().place(module)
        weights = [*module.named_parameters(), *module.named_buffers()]
        made = {name: weight for name, weight in weights if not nn.parameter.is_lazy(weight)}
        self.same("modules", {name: tuple(weight.shape) for name, weight in made.items()})
        self._spread([weight.detach() for weight in made.values()])

    def _spread(self, tensors: list[Tensor]) -> None:
        """Those of process 0 go to all."""
        if tensors:
            _broadcast_coalesced(distributed.distributed_c10d._get_default_group(), tensors, 250 << 20, 0)

    def wrap(self, module: LightningModule, optimization: Optimization) -> None:
        """Gradients are averaged from here on: of every parameter, whether or not it requires one now, unless every
        one is said to take part in every loss."""
        self.optimization = optimization
        floating = [weight for weight in module.parameters() if weight.is_floating_point() or weight.is_complex()]
        required = [weight.requires_grad for weight in floating]
        for weight in floating if self.finds_unused else ():
            weight.requires_grad = True
        if any(weight.requires_grad for weight in floating):
            if self.finds_unused:
                _hear_the_warning(self.device)
            self.ddp = _wrapped(module, self.device, self.finds_unused)
        for weight, before in zip(floating, required):
            weight.requires_grad = before
        self.has_buffers = any(True for _ in module.buffers())

    # ---- what the loops call -------------------------------------------------------------------------------------

    def adapt(self, hooks: dict[str, Any], module: LightningModule, progress: Progress) -> None:
        """Who prepares data, how a training step and its backward run, and when processes agree."""
        (self.within.adapt if self.within else super().adapt)(hooks, module, progress)
        prepare, configure = hooks["prepare_data"], hooks["configure_callbacks"]
        hooks["configure_callbacks"] = partial(self._after_preparing, prepare, configure, module)
        if step := hooks["training_step"]:
            hooks["training_step"] = named(partial(self._step, step, module), "training_step")
        to_eval = "on_validation_model_eval"
        hooks[to_eval] = partial(self._with_buffers_of_zero, hooks[to_eval], module)
        hooks["backward"] = partial(self._backward, hooks["backward"], module, progress)
        hooks["optimizer_step"] = partial(self._optimizer_step, hooks["optimizer_step"])
        for hook in _AGREED:
            hooks[hook] = partial(self._then_agree, hooks[hook], hook, progress)
        self.time_is_up = self.asks = self.has_met = False
        progress.ask_for_the_time(self._is_time_up)

    def _is_time_up(self) -> bool:
        return self.time_is_up

    def _after_preparing(self, prepare: Any, configure: Any, module: LightningModule) -> Any:
        """Process 0 has prepared data, if it comes here. So does the first of every other machine, unless an owner says
        that once in all is enough. Meanwhile the others wait."""
        owners = [each for each in (module, module.datamodule) if each and overridden(each, "prepare_data", DataHooks)]
        per_node = all(owner.prepare_data_per_node for owner in owners)
        if prepare and per_node and self.local_rank == 0 != self.global_rank:
            prepare()
        self.wait()
        return configure() if configure else []

    def _with_buffers_of_zero(self, call: Callable[..., Any], module: LightningModule, *args: Any) -> Any:
        if self.has_buffers:
            self._spread([buffer.detach() for buffer in module.buffers()])
        return call(*args)

    def _step(self, step: Callable[..., Any], module: LightningModule, *args: Any) -> Any:
        output = self._with_buffers_of_zero(step, module, *args)
        nothing = output[0] is None if isinstance(output, Parts) else output is None
        if nothing and module.automatic_optimization:
            raise ConfigurationError("training_step returned None, which several devices do not support")
        return output

    def _backward(
        self, backward: Callable[..., Any], module: LightningModule, progress: Progress, loss: Tensor, *args: Any,
        **kwargs: Any
    ) -> None:  # fmt: skip
        """Gradients are averaged over the processes in the backward that closes a window."""
        if self.ddp is not None:
            closes = progress.updates and self.optimization.is_last_split
            self.ddp.require_backward_grad_sync = closes or not module.automatic_optimization
            self.has_met = self.has_met or self.ddp.require_backward_grad_sync
            loss = self.ddp(loss)
        backward(loss, *args, **kwargs)

    def _optimizer_step(self, step: Callable[..., Any], *args: Any) -> Any:
        """LBFGS decides by the loss how often it evaluates its closure: by the mean of all."""
        closure, using_lbfgs = args[4], args[-1]

        def closure_of_all() -> Tensor:
            loss = closure().detach().clone()  # the step's own stays what it is
            distributed.all_reduce(loss)
            return loss / self.world_size  # type: ignore[no-any-return]

        return step(*args[:4], closure_of_all if using_lbfgs else closure, *args[5:])

    def _then_agree(self, call: Callable[..., Any] | None, hook: str, progress: Progress, *args: Any) -> Any:
        """If one asks to stop, or has come to its deadline, all do; Ctrl-C in one interrupts all. [R102]

        Raises ConfigurationError where some have come to the end of an epoch, and others have not.
        """
        result, processes = call(*args) if call else None, self.processes
        if processes is None or progress.state.fn != "fit":
            return result
        self.asks = self.asks or progress.should_stop
        up = self.global_rank == 0 and progress.has_come_to_its_deadline()
        flags, is_batch = (self.asks, up, processes.interrupted_at is not None), hook == "on_train_batch_end"
        is_last = is_batch and progress.is_last
        if is_batch and processes.cells is not None:
            (stops, is_up, interrupts), ends = processes.after_batch(flags, is_last, self.has_met)
        else:
            each = processes.exchange(hook, (*flags, is_last), progress.batches_done)
            stops, is_up, interrupts, _ = (any(column) for column in zip(*each))
            ends = [asked[3] for asked in each] if any(asked[3] for asked in each) else []
        self.has_met = False
        if not all(ends):
            says = [f"process {rank} {'ends' if end else 'goes on'}" for rank, end in enumerate(ends)]
            raise ConfigurationError(f"after {progress.batches_done} batches of epoch {progress.current_epoch}, "
                                     f"{', '.join(says)}: give every process as many batches, for example by "
                                     "limit_train_batches")  # fmt: skip
        self.time_is_up = self.time_is_up or is_up
        progress.ask_to_stop(stops)  # for one alone that asks, after the next batch in which the processes meet
        self.asks = self.asks and not stops
        if interrupts:
            self.agreed = True
            raise KeyboardInterrupt
        return result

    # ---- data, decisions, checkpoints ------------------------------------------------------------------------------

    def share(self, loaders: Any, stage: str) -> Any:
        """This process's share of what loaders of a stage give."""
        if not self.options.replace_sampler_ddp:
            return loaders
        return shares(loaders, stage, self.global_rank, self.world_size, self.of_zero)

    @property
    def group(self) -> Any:
        """The processes of the run that goes on."""
        return self.processes and self.processes.group

    def same(self, what: str, value: Any, group: Any = None) -> None:
        """Raises ConfigurationError where the processes have different values."""
        values = gathered(what, value, group or self.group)
        if any(other != values[0] for other in values):
            other = next(rank for rank, one in enumerate(values) if one != values[0])
            one, another = differing(values[0], values[other])
            raise ConfigurationError(
                f"the processes have different {what}: process 0 has {one}, process {other} has {another}"
            )

    def of_zero(self, value: Any) -> Any:
        """The value of process 0 in its place; every process has to ask."""
        if self.processes is None:
            return value
        own = transformed(value, _on_cpu) if self.global_rank == 0 else None
        return gathered("what process 0 decides", own, self.group)[0]

    def wait(self) -> None:
        """Until every process has come here."""
        if self.processes:
            self.processes.wait()

    def gathered(self, checkpoint: dict[str, Any]) -> dict[str, Any]:
        """The checkpoint, with the states of the parts of every process; after a fit, of its end."""
        states = self._of_all(checkpoint["loops"]) if self.processes else self.ends
        return {**checkpoint, "processes": states} if states else checkpoint

    def _of_all(self, loops: dict[str, Any]) -> list[Any]:
        return gathered("a checkpoint", transformed(loops, _on_cpu), self.group)


def differing(one: Any, other: Any) -> tuple[Any, Any]:
    """Two values, or of two dicts or lists what is not in the other."""
    if isinstance(one, dict) and isinstance(other, dict):
        one, other = list(one.items()), list(other.items())
    if isinstance(one, list) and isinstance(other, list):
        alone = [item for item in one if item not in other], [item for item in other if item not in one]
        return alone if any(alone) else (one, other)
    return one, other


def _on_cpu(tensor: Tensor) -> Tensor:
    return tensor.detach().cpu()
