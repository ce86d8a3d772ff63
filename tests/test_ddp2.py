"""DDP2: two processes, each a machine whose devices share its batches; started by hand, and under torchrun.

What they do is in `main`: this file is their script, too.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import pytest
from ranks import FOUND, QUIET, Net, data, loader, trained, weights

from refimpl import ConfigurationError, Trainer
from refimpl.strategies.dp import DataParallel

DDP2: dict[str, Any] = {"accelerator": "cpu", "devices": 2, "num_nodes": 2, "strategy": "ddp2"}
ONE: dict[str, Any] = {"strategy": "dp", "devices": 1}  # under torchrun, a trainer without a strategy joins the others


class Ends(Net):
    """Its loss is of all the parts that training_step_end is given, which it keeps."""

    def __init__(self) -> None:
        super().__init__()
        self.given: list[list[list[float]]] = []

    def training_step(self, batch: Any, batch_idx: int, *args: Any) -> Any:
        return {"pred": self(batch[0]), "y": batch[1]}

    def training_step_end(self, parts: Any) -> Any:
        if isinstance(parts, list):
            self.given.append([part["y"][:, 0, 0].tolist() for part in parts])
        return (parts["pred"] - parts["y"]).square().mean()


class Nothing(Net):
    def training_step(self, batch: Any, batch_idx: int, *args: Any) -> Any:
        return None


def main(folder: str, devices: str) -> None:
    """Trains over the machines, and alone with the batches of both; in the end, without a loss."""
    once = {"accumulate_grad_batches": 1}
    for name, kind, options in (("ends", Ends, once), ("merged", Net, {"accumulate_grad_batches": 2})):
        module, alone = kind(), kind()
        trainer = trained(module, loader(3), None, **DDP2, **options)
        trained(alone, loader(6), None, **ONE, **options)
        FOUND[name] = {
            "off": max(abs(one - other) for one, other in zip(weights(module), weights(alone))),
            "all": weights(module), "moved": weights(module) != weights(kind()), "seen": module.seen,
            "given": getattr(module, "given", None), "steps": trainer.global_step,
        }  # fmt: skip
    said = trainer.world_size, trainer.num_nodes, trainer.num_processes, trainer.num_devices
    FOUND["said"] = [*said, trainer.node_rank, trainer.local_rank]
    FOUND["val"] = [
        Trainer(**QUIET, **where).validate(Net(), loader(3, 9), verbose=False)[0]["val_mean_epoch"]
        for where in (DDP2, ONE)
    ]
    FOUND["predicted"] = [len(batch) for batch in Trainer(**QUIET, **DDP2).predict(Net(), loader(3, 9)) or []]
    try:
        trained(Nothing(), loader(3), None, **{**DDP2, "devices": int(devices)})
    except ConfigurationError as error:
        FOUND["nothing"] = str(error)
    Path(folder, f"{trainer.node_rank}.json").write_text(json.dumps(FOUND))


def ran(by: str) -> list[Any]:
    """What each of the two found."""
    folder, running = Path(mkdtemp()), []
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = str(server.getsockname()[1])
    for node in ("0", "1"):
        told = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "NODE_RANK": node}
        torchrun = ["-m", "torch.distributed.run", "--nnodes", "2", "--nproc_per_node", "1", "--node_rank", node,
                    "--master_addr", "127.0.0.1", "--master_port", port] if by == "torchrun" else []  # fmt: skip
        own = {"PYTHONPATH": str(Path(__file__).parent.parent), "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
        command = [sys.executable, *torchrun, __file__, str(folder), "2" if torchrun else "1"]
        env = {**os.environ, **own, **({} if torchrun else told)}
        running.append(subprocess.Popen(command, env=env, stderr=subprocess.PIPE, text=True))
    errors = [process.communicate(timeout=100)[1] for process in running]
    assert [process.returncode for process in running] == [0, 0], errors
    return [json.loads((folder / f"{node}.json").read_text()) for node in (0, 1)]


@pytest.mark.slow
@pytest.mark.parametrize("by", ["hand", "torchrun"])
def test_two_machines_train_as_one_process_with_their_batches(by: str) -> None:
    """In float64; each splits its own samples, and a step without a loss is refused, on one device and on two."""
    one, other = both = ran(by)
    for name, steps, alike in (("ends", 8, [True] * 8), ("merged", 4, [False, True] * 4)):
        assert one[name]["off"] < 1e-12 and one[name]["moved"], name
        assert one[name]["all"] == other[name]["all"] and one[name]["steps"] == other[name]["steps"] == steps, name
        assert [mine == its for mine, its in zip(one[name]["seen"], other[name]["seen"])] == alike, name
    for node, found in enumerate(both):
        mine = data().tensors[1][node::2, 0, 0].tolist()
        assert found["ends"]["given"] == [[mine[at : at + 2], mine[at + 2 : at + 3]] for at in range(0, 12, 3)] * 2
        assert found["said"] == [2, 2, 1, 2, node, 0]
        assert found["val"][0] == pytest.approx(found["val"][1]) and found["predicted"] == [3, 2 - node]
        assert found["nothing"] == "training_step returned None, which several devices do not support"


@pytest.mark.parametrize("devices", [1, 2])
def test_on_one_machine_it_is_dp(devices: int) -> None:
    where = Trainer(strategy="ddp2", devices=devices).run.devices
    assert isinstance(where, DataParallel) and (where.num_devices, where.world_size) == (devices, 1)


@pytest.mark.parametrize("nodes, env, told", [
    (1, {"RANK": 1, "LOCAL_RANK": 1, "WORLD_SIZE": 2, "LOCAL_WORLD_SIZE": 2},
     "strategy='ddp2', num_nodes=1, but 2 processes were started, 2 on each machine; start one on each"),
    (3, {"RANK": 1, "LOCAL_RANK": 0, "WORLD_SIZE": 2, "LOCAL_WORLD_SIZE": 1},
     "strategy='ddp2', num_nodes=3, but 2 processes were started, 1 on each machine; start one on each"),
    (2, {"NODE_RANK": 2}, "NODE_RANK=2, but num_nodes=2; .* 0 to 1"),
])  # fmt: skip
def test_another_number_of_processes_is_an_error(
    nodes: int, env: Any, told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in env.items():
        monkeypatch.setenv(name, str(value))
    with pytest.raises(ConfigurationError, match=told):
        Trainer(strategy="ddp2", devices=2, num_nodes=nodes)


def test_batch_norms_over_all_machines_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    with pytest.raises(ConfigurationError, match=r"sync_batchnorm=True: with strategy='ddp2' .* or use 'ddp'"):
        Trainer(**{**DDP2, "accelerator": "gpu", "sync_batchnorm": True})


if __name__ == "__main__":
    main(*sys.argv[1:])
