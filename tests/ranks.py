"""What the processes of `test_ddp.py` run: `python tests/ranks.py PART FOLDER [OPTIONS]`, by itself, spawned or under
torchrun. Each writes what it has found to `FOLDER/RANK.json`."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import torch
from models import Stream
from torch import Tensor, distributed, nn
from torch.utils.data import DataLoader, DistributedSampler, TensorDataset

from refimpl import (
    Callback,
    CheckpointError,
    EarlyStopping,
    LightningModule,
    ModelCheckpoint,
    ProcessError,
    Trainer,
    seed_everything,
)  # fmt: skip

QUIET: dict[str, Any] = {
    "logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "enable_model_summary": False,
    "num_sanity_val_steps": 0, "max_epochs": 2,
}  # fmt: skip
FOUND: dict[str, Any] = {}
RANK = int(os.environ.get("RANK", 0))


def data(samples: int = 24, seed: int = 0) -> TensorDataset:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(samples, 4, 2, generator=generator, dtype=torch.float64)
    return TensorDataset(x, x.sum(-1, keepdim=True).sin())


def loader(size: int, samples: int = 24, **options: Any) -> Any:
    return DataLoader(data(samples), batch_size=size, **options)


class Net(LightningModule):
    """Two layers, of which each kind of training takes what it wants."""

    def __init__(self, kind: str = "") -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(1)
        self.first, self.second = nn.Linear(2, 3, dtype=torch.float64), nn.Linear(3, 1, dtype=torch.float64)
        self.unused = nn.Linear(1, 1, dtype=torch.float64)
        for weight in self.parameters():
            weight.data = torch.randn(weight.shape, generator=generator, dtype=torch.float64)
        self.kind, self.automatic_optimization = kind, kind != "manual"
        self.truncated_bptt_steps = 2 if kind == "tbptt" else 0
        self.seen: list[list[float]] = []
        self.batches = 0

    def forward(self, x: Tensor) -> Tensor:
        if self.kind == "now" and not self.batches % 2:
            x = x + self.unused(x[..., :1])
        self.batches += self.training
        return self.second(self.first(x).tanh())  # type: ignore[no-any-return]

    def loss(self, batch: Any) -> Tensor:
        return (self(batch[0]) - batch[1]).square().mean()

    def training_step(self, batch: Any, batch_idx: int, *args: Any) -> Any:
        if self.kind == "manual":
            for optimizer in self.optimizers():
                optimizer.zero_grad()
                self.manual_backward(self.loss(batch))
                optimizer.step()
            return None
        loss = self.loss(batch)
        self.log("loss", loss, on_epoch=True, sync_dist=True)
        return {"loss": loss, "hiddens": None} if self.kind == "tbptt" else loss

    def on_after_backward(self) -> None:
        self.seen.append([float(weight.grad.sum()) for weight in self.parameters() if weight.grad is not None])

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        for fx in ("mean", "sum", "max"):
            self.log(f"val_{fx}", self.loss(batch), sync_dist=True, reduce_fx=fx, on_step=fx == "mean")

    def predict_step(self, batch: Any, batch_idx: int, dataloader_idx: int | None = None) -> Any:
        return self(batch[0])

    def configure_optimizers(self) -> Any:
        if self.kind == "lbfgs":
            return torch.optim.LBFGS(self.parameters(), lr=0.1, max_iter=3, line_search_fn="strong_wolfe")
        one, two = (torch.optim.SGD(p.parameters(), lr=0.1, momentum=0.5) for p in (self.first, self.second))
        if self.kind in ("two", "manual"):
            return [one, two]
        if self.kind == "turns":
            return [{"optimizer": one, "frequency": 2}, {"optimizer": two, "frequency": 1}]
        return torch.optim.Adam(self.parameters(), lr=0.05)


KINDS: dict[str, dict[str, Any]] = {
    "clipped": {"gradient_clip_val": 0.1},
    **{kind: {} for kind in ("plain", "two", "turns", "manual", "tbptt", "lbfgs")},
    **{kind: {"accumulate_grad_batches": 2} for kind in ("accumulated", "now-and-then", "two-accumulated")},
}  # fmt: skip


def weights(module: nn.Module) -> list[float]:
    return [float(value) for weight in module.parameters() for value in weight.detach().flatten()]


def trained(module: Any, batches: Any, val: Any = None, *callbacks: Callback, **options: Any) -> Trainer:
    trainer = Trainer(**{**QUIET, "callbacks": list(callbacks), **options})
    trainer.fit(module, batches, val)
    return trainer


def same_as_one(strategy: str, devices: int) -> None:
    """Every kind of training, in all processes with batches of 2, and in this one with those of all."""
    for name, options in KINDS.items():
        module, alone = Net(name.partition("-")[0]), Net(name.partition("-")[0])
        trainer = trained(module, loader(2), None, strategy=strategy, devices=devices, **options)
        once = trained(alone, loader(2 * devices), None, **options)
        FOUND[name] = {
            "off": max(abs(one - other) for one, other in zip(weights(module), weights(alone))), "all": weights(module),
            "moved": weights(module) != weights(Net()), "steps": [trainer.global_step, once.global_step],
            "seen": module.seen, "loss": [float(t.callback_metrics.get("loss_epoch", 0)) for t in (trainer, once)],
        }  # fmt: skip


class Drawn(Net):
    """Optimizers and schedulers as a case says."""

    def __init__(self, case: dict[str, Any]) -> None:
        super().__init__(case["kind"])
        self.case = case

    def configure_optimizers(self) -> Any:
        made = {"sgd": partial(torch.optim.SGD, lr=0.1, momentum=0.5), "adam": partial(torch.optim.Adam, lr=0.05)}
        several = self.kind in ("two", "turns", "manual")
        groups = [self.first.parameters(), self.second.parameters()] if several else [self.parameters()]
        optimizers = [made[self.case["optimizer"]](group) for group in groups]
        each: list[dict[str, Any]] = [{"optimizer": optimizer} for optimizer in optimizers]
        for turn, optimizer in zip(each, optimizers):
            if self.case["interval"]:
                plan = torch.optim.lr_scheduler.StepLR(optimizer, 1, 0.7)
                turn["lr_scheduler"] = {"scheduler": plan, "interval": self.case["interval"], "frequency": 2}
            if self.kind == "turns":
                turn["frequency"] = 1 + optimizers.index(optimizer)
        return each if several else each[0]


def as_drawn(cases: str) -> None:
    """Each case in all processes, and in this one with the batches of all: how far weights, rates, and what was logged
    are apart in the end."""
    FOUND["off"] = []
    for case in json.loads(Path(cases).read_text()):
        ends = []
        for size, strategy in ((case["size"], {"strategy": "ddp", "devices": 2}), (2 * case["size"], {})):
            module = Drawn(case)
            trainer = trained(module, loader(size, case["samples"]), loader(size, 8), **strategy, **case["options"])
            rates = [group["lr"] for optimizer in trainer.optimizers for group in optimizer.param_groups]
            logged = [float(value) for name, value in sorted(trainer.callback_metrics.items()) if "epoch" in name]
            ends.append([*weights(module), *rates, *logged, trainer.global_step])
        FOUND["off"].append(max(abs(one - other) for one, other in zip(*ends, strict=True)))


ASKED = ("on_train_start", "on_train_batch_end", "on_validation_end")


class Asks(Callback):
    """Asks to stop, in one process only, or in all."""

    def __init__(self, rank: int | None, hook: str) -> None:
        self.rank, self.hook, self.batches = rank, hook, 0

    def ask(self, trainer: Any, hook: str) -> None:
        if hook == self.hook and self.rank in (trainer.global_rank, None):
            trainer.should_stop = True

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        self.ask(trainer, "on_train_start")

    def on_train_batch_end(self, trainer: Any, _: Any, outputs: Any, batch: Any, batch_idx: int, *rest: Any) -> None:
        self.batches += 1
        if batch_idx == 2:
            self.ask(trainer, "on_train_batch_end")

    def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
        self.ask(trainer, "on_validation_end")


class Apart(Net):
    """Logs another value in each process, and prepares data that takes a while."""

    prepare_data_per_node = False

    def prepare_data(self) -> None:
        FOUND["prepares"] = FOUND.get("prepares", 0) + 1
        time.sleep(0.3)
        FOUND["prepared"] = time.time()

    def setup(self, stage: str | None = None) -> None:
        FOUND["set up"] = time.time()

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.log("val", float(self.current_epoch * (1 - 2 * self.global_rank)))

    def configure_optimizers(self) -> Any:
        sgd = torch.optim.SGD(self.parameters(), lr=0.1)
        plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(sgd, patience=0)
        return [sgd], [{"scheduler": plateau, "monitor": "val"}]


def alike(devices: int, folder: Path) -> None:
    """What all processes decide alike, although they see different things."""
    ddp: dict[str, Any] = {"strategy": "ddp", "devices": devices}
    for rank, hook in (*((devices - 1, hook) for hook in ASKED), (None, "on_train_batch_end")):
        asks = Asks(rank, hook)
        trainer = trained(Net(), loader(2, 36), loader(2), asks, val_check_interval=5, **ddp)
        FOUND[f"stopped by {rank} {hook}"] = [trainer.global_step, asks.batches]
    stopping = EarlyStopping("val", patience=1)
    saving = ModelCheckpoint(monitor="val", save_last=True, filename="{epoch}-{val:.0f}", save_top_k=2)
    module = Apart()
    trainer = trained(
        module, loader(2), loader(2), stopping, saving, **{**ddp, "max_epochs": 9, "enable_checkpointing": True},
        logger=True, default_root_dir=folder / "root",
    )  # fmt: skip
    FOUND["stopped early"] = [trainer.current_epoch, stopping.wait_count]
    FOUND["rates"] = trainer.optimizers[0].param_groups[0]["lr"]
    FOUND["best"] = [os.path.basename(path) for path in (saving.best_model_path, saving.last_model_path)]
    FOUND["log_dir"] = trainer.log_dir
    trainer.validate(verbose=False, dataloaders=loader(2))
    FOUND["validated"], FOUND["weights"] = str(trainer.ckpt_path), weights(module)
    before = time.monotonic()
    trainer = trained(Slow(), loader(2), None, max_time={"seconds": 0.5}, **{**ddp, "max_epochs": -1})
    FOUND["timed"], FOUND["took"] = trainer.global_step, time.monotonic() - before
    seed_everything(trainer.global_rank, workers=True)
    module = Net()  # with what each draws for itself
    module.unused.reset_parameters()
    FOUND["results"] = Trainer(**QUIET, **ddp).validate(module, loader(2, 7), verbose=False)
    FOUND["alone"] = Trainer(**QUIET).validate(module, loader(2, 7), verbose=False)
    FOUND["drawn"] = weights(module.unused)
    metrics(ddp)
    for name, count, samples in (("worlds", devices + 1, 9), ("few", devices, 1), ("over", devices, 9)):
        try:
            Trainer(**QUIET, **{**ddp, "devices": count}).validate(Net(), loader(2, samples), verbose=False)
        except Exception as error:  # of which the second has ended the processes
            FOUND[name] = repr(error)


def metrics(ddp: dict[str, Any]) -> None:
    """A metric of torchmetrics comes together once, also where one process alone reads it, or not at all where it alone
    logs it; values of any type do, in groups of processes, and in a trainer that is alone none."""
    import torchmetrics

    class Measured(Net):
        def __init__(self) -> None:
            super().__init__()
            self.mean, self.own = torchmetrics.MeanMetric(), torchmetrics.MeanMetric()
            self.pair: Any = None

        def on_validation_start(self) -> None:
            if self.trainer and self.trainer.world_size > 1:
                self.pair = distributed.new_group([0, 2])

        def validation_step(self, batch: Any, batch_idx: int) -> None:
            self.mean(batch[0])
            self.log("mean", self.mean)
            self.own(float(RANK))
            if RANK == 0:
                self.log("own", self.own, rank_zero_only=True)
            self.log("pair", float(RANK), sync_dist=True, sync_dist_group=self.pair, on_step=True)
            self.log("either", float(RANK) if RANK else torch.tensor(RANK), sync_dist=True)

        def training_step(self, batch: Any, batch_idx: int, *args: Any) -> Any:
            for reduce_fx in ("mean", "max", "sum"):
                value = torch.tensor(RANK) if RANK == 1 else float(RANK)
                self.log(reduce_fx, value, reduce_fx=reduce_fx, sync_dist=True)
            return self.loss(batch)

        def on_validation_end(self) -> None:
            if self.global_rank == 0 and self.trainer:
                FOUND.setdefault("read alone", float(self.trainer.callback_metrics["mean"]))

    Trainer(**QUIET, **ddp).validate(Measured(), loader(2, 7), verbose=False)
    FOUND["mean"] = float(data(7).tensors[0].mean())
    trainer = Trainer(**QUIET, **ddp)
    trainer.fit(Measured(), loader(2), loader(2, 6))
    FOUND["together"] = {name: float(value) for name, value in trainer.callback_metrics.items()}
    [FOUND["without others"]] = Trainer(**QUIET).validate(Measured(), loader(2), verbose=False)
    sparse = Sparse()
    trained(sparse, loader(2), **ddp)
    FOUND["sparse"] = weights(sparse)


class Sparse(Net):
    """An embedding with sparse gradients."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(4, 3, sparse=True, dtype=torch.float64)
        nn.init.ones_(self.table.weight)

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.first(x).tanh() + self.table((x[..., 0] > 0).long()))  # type: ignore[no-any-return]

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.05)


class Slow(Net):
    def training_step(self, batch: Any, batch_idx: int, *args: Any) -> Any:
        time.sleep(0.01 * (1 + self.global_rank))
        return super().training_step(batch, batch_idx)


class Random(Net):
    """What it is trained on depends on what each process draws."""

    def training_step(self, batch: Any, batch_idx: int, *args: Any) -> Any:
        return super().training_step(batch, batch_idx) * (1 + torch.rand(()))

    def training_epoch_end(self, outputs: Any) -> None:
        FOUND.setdefault("outputs", []).append(float(sum(outputs)))


class Saves(Callback):
    """Saves in mid-window, too."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def on_train_batch_end(self, trainer: Any, _: Any, outputs: Any, batch: Any, batch_idx: int, *rest: Any) -> None:
        if trainer.current_epoch == 1 and batch_idx == 2:
            trainer.run.progress.do_soon(lambda: trainer.save_checkpoint(self.path))


def resumed(devices: int, folder: Path) -> None:
    """A run that goes on, in mid-epoch and in the midst of a window, ends as one that never stopped."""
    options = {"strategy": "ddp", "devices": devices, "accumulate_grad_batches": 2, "max_epochs": 3}
    torch.manual_seed(1 + int(os.environ.get("RANK", 0)))
    shuffled = loader(1, 12, shuffle=True, generator=torch.Generator().manual_seed(3))
    module = Random()
    trainer = trained(module, shuffled, None, Saves(folder / "one.ckpt"), **options)
    FOUND["once"] = weights(module)
    first, FOUND["outputs"] = FOUND["outputs"], []
    torch.manual_seed(99)
    other, again = Random(), Trainer(**{**QUIET, **options})
    again.fit(other, loader(1, 12, shuffle=True, generator=torch.Generator().manual_seed(3)),
              ckpt_path=folder / "one.ckpt")  # fmt: skip
    FOUND["again"], FOUND["steps"] = weights(other), [trainer.global_step, again.global_step]
    FOUND["outputs"] = [first[1:], FOUND["outputs"]]
    torch.manual_seed(1 + int(os.environ.get("RANK", 0)))
    ended, cut = folder / "ended.ckpt", Random()
    stopped = trained(cut, loader(1, 12, shuffle=True, generator=torch.Generator().manual_seed(3)), None, Interrupts(),
                      **options)  # fmt: skip
    if stopped.global_rank == 0:  # after a run nobody waits for the others
        stopped.save_checkpoint(ended)
    distributed.barrier()
    more = Random()
    Trainer(**{**QUIET, **options}).fit(more, shuffled, ckpt_path=ended)
    FOUND["interrupted"], FOUND["more"] = stopped.interrupted, weights(more)


class Interrupts(Callback):
    """As Ctrl-C does, in one process, in the middle of an epoch."""

    def on_train_batch_start(self, trainer: Any, module: Any, batch: Any, batch_idx: int, dataloader_idx: int) -> None:
        if trainer.global_rank == 1 and (trainer.current_epoch, batch_idx) == (1, 2):
            os.kill(os.getpid(), signal.SIGINT)


def spawns(folder: Path) -> None:
    """What comes back from processes of its own."""
    module, saving = Spawned(), ModelCheckpoint(folder, monitor="val_mean", save_last=True)
    trainer = trained(
        module, loader(2), loader(2), saving, strategy="ddp_spawn", devices=2, enable_checkpointing=True
    )
    FOUND.update(weights=weights(module), metrics=sorted(trainer.callback_metrics), steps=trainer.global_step)
    FOUND.update(best=saving.best_model_path, last=saving.last_model_path, got=module.got)
    FOUND.update(predictions=trainer.predict(dataloaders=loader(2)), status=str(trainer.state.status))
    alone = Net()
    trained(alone, loader(4), None)
    FOUND["alone"] = weights(alone)
    try:
        trained(Built(), loader(2), strategy="ddp_spawn", devices=2)
    except CheckpointError as error:
        FOUND["built"] = str(error)


class Built(Net):
    """Has a layer more once setup has made it."""

    def setup(self, stage: str | None = None) -> None:
        self.third = nn.Linear(1, 1)


class Spawned(Net):
    got = 0

    def add_to_queue(self, queue: Any) -> None:
        super().add_to_queue(queue)
        queue.put(self.global_step)

    def get_from_queue(self, queue: Any) -> None:
        super().get_from_queue(queue)
        self.got = queue.get()


class Fails(Net):
    """Something happens in the third batch, in one process."""

    def __init__(self, how: str, rank: int) -> None:
        super().__init__()
        self.how, self.at = how, rank

    def training_step(self, batch: Any, batch_idx: int, *args: Any) -> Any:
        if batch_idx == 2 and self.global_rank == self.at:
            {
                "raise": self.fail, "hang": lambda: time.sleep(1000), "uneven": lambda: None, "after": lambda: None,
                "names": lambda: self.log("other", 1.0, sync_dist=True), "exit": lambda: os._exit(0),
                "interrupt": lambda: os.kill(os.getpid(), signal.SIGINT),
                "SIGKILL": lambda: os.kill(os.getpid(), signal.SIGKILL),
                "SIGTERM": lambda: os.kill(os.getpid(), signal.SIGTERM),
            }[self.how]()  # fmt: skip
        return super().training_step(batch, batch_idx)

    def fail(self) -> None:
        raise ValueError("boom")


def fails(strategy: str, how: str, rank: int, nodes: int = 1) -> None:
    options = {**QUIET, "strategy": strategy, "devices": 2 // nodes, "num_nodes": nodes, "process_timeout": 2}
    batches = Stream([(x[None], y[None]) for x, y in data(8 - 2 * int(os.environ.get("RANK", 0)))])
    trainer = Trainer(**options)
    print(f"at {trainer.run.devices.global_rank}: {os.getpid()}", flush=True)
    try:
        trainer.fit(Fails(how, rank), batches if how == "uneven" else loader(2))
    except Exception as error:
        FOUND["caught"] = [type(error).__name__, str(error)]
        if isinstance(error, ProcessError) or trainer.global_rank == 0:
            print(f"caught {type(error).__name__}: {error}")
    if how == "after" and trainer.global_rank == rank:
        raise ValueError("after the last call")
    FOUND.update(status=str(trainer.state.status), steps=trainer.global_step, port=os.environ.get("MASTER_PORT"))


def samplers_of(devices: int) -> None:
    """The samples that come in each epoch, with the sampler of the engine and one of the user's."""

    class Sees(Net):
        def training_step(self, batch: Any, batch_idx: int, *args: Any) -> Any:
            FOUND[key].setdefault(str(self.current_epoch), []).extend(batch[0][:, 0, 0].tolist())
            return super().training_step(batch, batch_idx)

    ddp: dict[str, Any] = {"strategy": "ddp", "devices": devices}
    own = DistributedSampler(data(9), devices, int(os.environ.get("RANK", 0)))
    for key, batches in (("ours", loader(2, 9, shuffle=True)), ("own", loader(2, 9, sampler=own))):
        FOUND[key] = {}
        trained(Sees(), batches, None, **ddp)
    FOUND["samples"] = data(9).tensors[0][:, 0, 0].tolist()


def main(part: str, folder: Path, *options: str) -> None:
    torch.set_num_threads(1)
    if part == "same":
        same_as_one("ddp", int(options[0]))
    elif part == "alike":
        samplers_of(int(options[0]))
        alike(int(options[0]), folder)
    elif part == "resumed":
        resumed(int(options[0]), folder)
    elif part == "spawned":
        spawns(folder)
    elif part == "drawn":
        as_drawn(options[0])
    else:
        fails(options[0], options[1], *map(int, options[2:]))
    (folder / f"{os.environ.get('RANK', 0)}.json").write_text(json.dumps(FOUND))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), *sys.argv[3:])
