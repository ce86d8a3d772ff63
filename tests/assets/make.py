"""Makes the checkpoints of Lightning releases that `tests/test_checkpoint.py` loads; README.md here says how."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

VERSIONS = ("1.5.10", "2.6.6")


def save(version: str, path: str) -> None:
    """Train two batches with that release, in its own world, and save."""
    import torch

    from conformance.adapters.lightning_compat import import_lightning

    pl = import_lightning(version)

    class Model(pl.LightningModule):  # type: ignore[misc, name-defined]
        def __init__(self, lr: float = 0.1, tags: tuple[str, ...] = ("a", "b")) -> None:
            super().__init__()
            self.save_hyperparameters()
            self.layer = torch.nn.Linear(2, 1)
            with torch.no_grad():
                self.layer.weight.copy_(torch.tensor([[0.5, -0.25]]))
                self.layer.bias.fill_(0.125)

        def training_step(self, batch: Any, batch_idx: int) -> Any:
            loss = self.layer(batch).square().mean()
            self.log("loss", loss)
            return loss

        def configure_optimizers(self) -> Any:
            return torch.optim.SGD(self.parameters(), lr=self.hparams.lr, momentum=0.5)

    saver = pl.callbacks.ModelCheckpoint(dirpath="checkpoints", filename="best", monitor="loss")
    options = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}
    trainer = pl.Trainer(max_epochs=1, callbacks=[saver], **options)
    trainer.fit(Model(), torch.utils.data.DataLoader(torch.ones(4, 2), batch_size=2))
    trainer.save_checkpoint(path)


def main() -> None:
    from conformance.worlds import locate

    for version in VERSIONS:
        world = locate(f"lightning@{version}")
        path = Path(__file__).resolve().with_name(f"lightning-{version}.ckpt")
        with tempfile.TemporaryDirectory() as scratch:
            command = [str(world.python), str(Path(__file__).resolve()), version, str(path)]
            subprocess.run(command, cwd=scratch, env=world.env(), check=True)


if __name__ == "__main__":
    save(*sys.argv[1:]) if len(sys.argv) > 1 else main()
