"""On a GPU: where things are, float16 with overflow, going on, DP and DDP; skipped without one. `python -m tests.gpu`
runs them there, without pytest too, and writes what it measured into `docs/gpu.md`.

With `GPU_TESTS_ON=cpu` in the environment they run on the CPU, to see that they can; what only a GPU has is left out.
The processes of DDP are this file, too: `python tests/test_gpu.py PART WORLD FOLDER`, with RANK and so on set.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import SkipTest  # which pytest takes as its own

import torch
from torch import distributed, nn
from torch.utils.data import DataLoader

from refimpl import LightningModule, Trainer, seed_everything
from refimpl.loaders.batches import move

ON = "cpu" if os.environ.get("GPU_TESTS_ON") == "cpu" else "gpu"
KIND = "cuda" if ON == "gpu" else "cpu"
IS_THERE = ON == "cpu" or torch.cuda.is_available()

try:
    import pytest

    pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not IS_THERE, reason="torch finds no GPU here")]
except ModuleNotFoundError:  # `python -m tests.gpu` needs none
    pass

ROOT = Path(__file__).resolve().parent.parent
SHAPE = (8, 16)
TWICE: Any = [0, 0] if ON == "gpu" else 2  # two parts of a batch, or two processes, on the same device
OFF = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False)


class Net(LightningModule):
    """Two layers with dropout between, or `middle`; `huge` batches overflow in float16."""

    def __init__(self, huge: frozenset[int] = frozenset(), middle: nn.Module | None = None) -> None:
        super().__init__()
        seed_everything(0)  # the same weights in each
        self.net = nn.Sequential(nn.Linear(16, 32), middle or nn.Dropout(0.5), nn.Linear(32, 1))
        self.huge, self.seen = huge, list[Any]()

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        assert batch.device == self.device == next(self.parameters()).device
        out = self.net(batch)
        self.seen.append((out.dtype, batch.device.type))
        self.log("loss", out.float().mean(), on_step=True, on_epoch=True)
        return out.float().pow(2).mean() * (1e38 if batch_idx in self.huge else 1.0)

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.log("val", self.net(batch).float().mean())

    def on_train_batch_start(self, batch: Any, batch_idx: int, dataloader_idx: int) -> None:
        assert batch.device.type == "cpu"  # [R2]

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.SGD(self.parameters(), lr=0.05, momentum=0.9)
        schedule = {"scheduler": torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.9), "interval": "step"}
        return {"optimizer": optimizer, "lr_scheduler": schedule}


class Loader:
    """Five batches, the same each time."""

    def __len__(self) -> int:
        return 5

    def __iter__(self) -> Any:
        generator = torch.Generator().manual_seed(1)
        return iter([torch.randn(SHAPE, generator=generator) for _ in range(5)])


def fitted(
    module: LightningModule, loader: Any = None, seed: int = 0, ckpt_path: Any = None, **options: Any
) -> Trainer:
    """On the GPU, after a seed."""
    trainer = Trainer(**{**OFF, "accelerator": ON, "devices": 1, "max_epochs": 2, **options})
    seed_everything(seed)
    trainer.fit(module, loader or Loader(), loader or Loader(), ckpt_path=ckpt_path)
    return trainer


def same(one: nn.Module, other: nn.Module) -> bool:
    """To the bit."""
    return all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters()))


def close(one: nn.Module, other: nn.Module, off: float) -> None:
    """They came the same way from where they began, but for this part of it."""
    begun = flat(Net(middle=type(one.net[1])(32))).cpu()  # type: ignore[index, operator, union-attr]
    way, its = flat(one).cpu() - begun, flat(other).cpu() - begun
    apart = float((way - its).norm() / way.norm())
    assert apart < off, apart


def flat(module: nn.Module) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in module.parameters()])


def test_the_module_and_its_batches_are_there() -> None:
    module = Net()
    trainer = fitted(module)
    assert module.seen == [(torch.float32, KIND)] * 10 and trainer.num_gpus == (ON == "gpu")
    assert trainer.callback_metrics["loss_epoch"].device.type == KIND
    assert [batch.device.type for batch in trainer.predict(Whole(), Loader())] == [KIND] * 5  # type: ignore[union-attr]


class Whole(LightningModule):
    def forward(self, batch: Any) -> Any:
        return batch


def test_the_precisions_compute_in_their_types() -> None:
    for precision, dtype in ((16, torch.float16), ("bf16", torch.bfloat16), (64, torch.float64)):
        module = Net()
        fitted(module, precision=precision)
        assert {seen for seen, _ in module.seen} == {dtype}
        assert all(p.isfinite().all() for p in module.parameters())


def test_an_overflow_skips_the_update_and_halves_the_scale() -> None:
    """The skipped updates change nothing, step no schedule; the others are those of a run without them."""
    skips(Net(huge=frozenset({1, 3})))


def skips(module: Net, *given: Any, **options: Any) -> None:
    """Two of five updates."""
    trainer = fitted(module, *given, precision=16, max_epochs=1, **options)
    scaler = trainer.run.optimization.scaler
    assert scaler is not None
    came = scaler.scaler.get_scale(), trainer.lr_schedulers[0]["scheduler"].last_epoch
    assert came == (2.0**16 / 4, 3), came
    assert all(p.isfinite().all() for p in module.parameters())


def test_accumulation_with_a_scaled_loss_is_that_of_float32() -> None:
    weights = []
    for precision in (16, 32):
        module = Net()
        module.net[1] = nn.Identity()
        fitted(module, precision=precision, accumulate_grad_batches=2, gradient_clip_val=0.5)
        weights.append(torch.cat([p.flatten() for p in module.parameters()]))
    torch.testing.assert_close(*weights, rtol=5e-3, atol=5e-3)


def test_a_resumed_run_is_that_which_never_stopped() -> None:
    """The GPU's random numbers, too: dropout goes on as it was."""
    for precision in (32, 16):
        with tempfile.TemporaryDirectory() as folder:
            goes_on(Path(folder), precision=precision)


def goes_on(folder: Path, loader: Any = None, seed: int = 0, **options: Any) -> Net:
    """From the midst of its second epoch, after other random numbers."""
    path = folder / "half.ckpt"

    class Saving(Net):
        def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int, dataloader_idx: int) -> None:
            if (self.current_epoch, batch_idx) == (1, 2):
                self.trainer.save_checkpoint(path)  # type: ignore[union-attr]

    whole, rest, options = Saving(), Net(), {**options, "deterministic": True}
    fitted(whole, loader, seed, **options)
    fitted(rest, loader, 99, path, **options)
    assert len(rest.seen) == len(whole.seen) // 5 and same(whole, rest)
    return rest


def test_the_sanity_check_leaves_the_gpus_random_numbers_alone() -> None:
    one, other = Net(), Net()
    fitted(one, num_sanity_val_steps=2)
    fitted(other, num_sanity_val_steps=0)
    assert same(one, other)


def test_pinned_batches_come_while_the_gpu_works() -> None:
    """And whole; what goes back is waited for."""
    here = torch.randn(SHAPE)
    if ON == "gpu":
        here, worked = here.pin_memory(), torch.cuda.Event()
        move(here, torch.device("cuda", 0))  # leaves memory for the next one
        torch.cuda.synchronize()
        torch.cuda._sleep(2**30)  # cycles
        there = move({"x": [here]}, torch.device("cuda", 0))["x"][0]
        worked.record()
        assert not worked.query()
        assert torch.equal(move(there * 2, torch.device("cpu")), here * 2)
    one, other = Net(), Net()
    fitted(one, loader(8))
    fitted(other, DataLoader(rows(), 8))
    assert same(one, other)


# ---- DP --------------------------------------------------------------------------------------------------------


def rows() -> Any:
    return torch.randn(40, 16, generator=torch.Generator().manual_seed(2)) / 4  # of four rows, no scaled loss overflows


def loader(size: int) -> Any:
    """Five batches of eight, or ten of four; pinned."""
    return DataLoader(rows(), size, pin_memory=ON == "gpu")


PRECISIONS: tuple[tuple[Any, float], ...] = ((32, 1e-4), ("bf16", 0.05), (16, 0.02))


def parted(devices: Any) -> None:
    """Parts of batches train as whole ones do, but for rounding."""
    for precision, off in PRECISIONS:
        one, parts = Net(middle=nn.Identity()), Net(middle=nn.Identity())
        alone = fitted(one, precision=precision)
        trainer = fitted(parts, strategy="dp", devices=devices, precision=precision)
        assert len(parts.seen) == 20 and {dtype for dtype, _ in parts.seen} == {dtype for dtype, _ in one.seen}
        close(one, parts, off)
        for name in ("loss_epoch", "val"):
            value = trainer.callback_metrics[name]
            torch.testing.assert_close(value, alone.callback_metrics[name], rtol=off, atol=off)
            assert value.device == parts.device


def test_dp_on_one_gpu_is_the_gpu() -> None:
    for precision in (32, "bf16", 16):
        one, parts = Net(), Net()
        fitted(one, precision=precision)
        assert fitted(parts, strategy="dp", precision=precision).num_devices == 1
        assert same(one, parts)


def test_dp_with_two_parts_on_one_gpu_trains_as_that_does() -> None:
    parted(TWICE)


def test_dp_skips_the_update_after_an_overflow() -> None:
    for devices in (1, TWICE):
        skips(Net(huge=frozenset({1, 3})), strategy="dp", devices=devices)


def test_dp_goes_on_as_if_it_had_never_stopped() -> None:
    for precision in (32, 16):
        with tempfile.TemporaryDirectory() as folder:
            goes_on(Path(folder), strategy="dp", devices=TWICE, precision=precision)


def test_dp_on_two_gpus_trains_as_one_does() -> None:
    needs_two()
    parted(2)
    skips(Net(huge=frozenset({1, 3})), strategy="dp", devices=2)
    with tempfile.TemporaryDirectory() as folder:
        goes_on(Path(folder), strategy="dp", devices=2)


def needs_two() -> None:
    if ON == "gpu" and torch.cuda.device_count() < 2:
        raise SkipTest("needs two GPUs")


# ---- DDP: what each process runs -------------------------------------------------------------------------------

# How many processes, and how they speak on GPUs. The engine takes NCCL there, which refuses two processes on one GPU;
# it leaves a group that the script has made as it is.
WORLDS = {"one_rank": (1, "nccl"), "two_ranks_on_one_gpu": (2, "gloo"), "two_gpus": (2, "nccl")}


class Logs(Net):
    """Values of all processes, tensors and numbers."""

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        self.log("number", 1.0 + batch_idx, sync_dist=True, on_step=True, on_epoch=True)
        self.log("mean", batch.mean(), sync_dist=True, on_step=False, on_epoch=True)
        self.log("on the CPU", torch.tensor(2.0), sync_dist=True, reduce_fx="max")
        self.log("spread", batch.mean(), sync_dist=True, on_step=False, on_epoch=True, reduce_fx=torch.std)
        return super().training_step(batch, batch_idx)


def trains_as_one(size: int, rank: int, folder: Path, **ddp: Any) -> nn.Module:
    for precision, off in PRECISIONS:
        one, all_of_them = Net(middle=nn.Identity()), Net(middle=nn.Identity())
        fitted(one, loader(8), strategy="dp", precision=precision)  # which joins no processes
        fitted(all_of_them, loader(8 // size), precision=precision, **ddp)
        assert {dtype for dtype, _ in all_of_them.seen} == {dtype for dtype, _ in one.seen}
        close(one, all_of_them, off)
    return all_of_them


def skips_an_overflow(size: int, rank: int, folder: Path, **ddp: Any) -> nn.Module:
    """Which one process alone has: all skip."""
    module = Net(huge=frozenset({1, 3} if rank == size - 1 else ()))
    skips(module, loader(8 // size), rank, **ddp)
    return module


def goes_on_as_it_was(size: int, rank: int, folder: Path, **ddp: Any) -> nn.Module:
    """With what each process draws for itself."""
    for precision in (32, 16):
        module = goes_on(folder, loader(8 // size), rank, precision=precision, **ddp)
    return module


def synchronizes_batch_norms(size: int, rank: int, folder: Path, **ddp: Any) -> nn.Module:
    one, all_of_them = Net(middle=nn.BatchNorm1d(32)), Net(middle=nn.BatchNorm1d(32))
    fitted(one, loader(8), strategy="dp")
    fitted(all_of_them, loader(8 // size), sync_batchnorm=ON == "gpu", **ddp)  # which is refused on the CPU
    if ON == "gpu":
        assert type(all_of_them.net[1]) is nn.SyncBatchNorm
        close(one, all_of_them, 1e-4)
        for mine, its in zip(one.buffers(), all_of_them.buffers()):
            torch.testing.assert_close(mine, its, rtol=1e-4, atol=1e-4)
    return all_of_them


def logs_values_of_all(size: int, rank: int, folder: Path, **ddp: Any) -> nn.Module:
    module = Logs()
    metrics = fitted(module, loader(8 // size), **ddp).callback_metrics
    assert float(metrics["number_epoch"]) == 3 and float(metrics["on the CPU"]) == 2
    torch.testing.assert_close(metrics["mean"].cpu(), rows().mean(), rtol=1e-5, atol=1e-6)
    assert metrics["spread"].isfinite()
    return module


PARTS: dict[str, Callable[..., nn.Module]] = {
    each.__name__: each
    for each in (trains_as_one, skips_an_overflow, goes_on_as_it_was, synchronizes_batch_norms, logs_values_of_all)
}


def main(part: str, world: str, folder: str) -> None:
    torch.set_num_threads(1)
    rank, (size, backend) = int(os.environ["RANK"]), WORLDS[world]
    devices: Any = TWICE if world == "two_ranks_on_one_gpu" else size
    if backend == "gloo":
        distributed.init_process_group("gloo")
    ddp = {"strategy": "ddp", "devices": devices, "process_timeout": 20}
    module = PARTS[part](size, rank, Path(folder), **ddp)
    assert distributed.get_backend() == (backend if ON == "gpu" else "gloo")
    where = next(module.parameters()).device
    assert where.type == KIND and (ON == "cpu" or where.index == (rank if devices == size else 0))
    Path(folder, f"{rank}.json").write_text(json.dumps(flat(module).tolist()))


# ---- and who starts them ---------------------------------------------------------------------------------------


def launched(part: str, world: str) -> None:
    """All end well, with the same weights, to the bit."""
    size, _ = WORLDS[world]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    common = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "ignore", "MASTER_ADDR": "127.0.0.1"}
    numbers = {"MASTER_PORT": port, "WORLD_SIZE": size, "LOCAL_WORLD_SIZE": size, "OMP_NUM_THREADS": 1}
    with tempfile.TemporaryDirectory() as folder:
        processes = []
        for rank in range(size):
            told = {name: str(number) for name, number in {**numbers, "RANK": rank, "LOCAL_RANK": rank}.items()}
            with open(Path(folder, f"{rank}.txt"), "w", encoding="utf-8") as said:
                command = [sys.executable, __file__, part, world, folder]
                processes.append(subprocess.Popen(command, env={**common, **told}, stdout=said, stderr=said))
        deadline = time.monotonic() + 60
        while any(each.poll() is None for each in processes) and time.monotonic() < deadline:
            time.sleep(0.1)
        ended = [each.poll() for each in processes]
        for each in processes:
            each.kill()
            each.wait()
        told_by = [Path(folder, f"{rank}.txt").read_text(encoding="utf-8")[-3000:] for rank in range(size)]
        assert ended == [0] * size, "\n".join((f"exit codes {ended}; None is one that had not ended", *told_by))
        first, *others = (Path(folder, f"{rank}.json").read_text() for rank in range(size))
        assert others == [first] * (size - 1)


def _test(part: str, world: str) -> Callable[[], None]:
    def test() -> None:
        if world == "two_gpus":
            needs_two()
        launched(part, world)

    return test


for _world in WORLDS:
    for _part in PARTS:
        globals()[f"test_ddp_with_{_world}_{_part}"] = _test(_part, _world)


if __name__ == "__main__":
    main(*sys.argv[1:])
