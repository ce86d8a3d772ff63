"""A classifier of 28 x 28 images as it was written in 2021: a data module, the command line, callbacks."""

from argparse import ArgumentParser

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import EarlyStopping, LearningRateMonitor, ModelCheckpoint
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset, random_split


class ImageDataModule(pl.LightningDataModule):
    def __init__(self, batch_size: int = 32, num_classes: int = 4):
        super().__init__()
        self.batch_size = batch_size
        self.num_classes = num_classes
        self.dims = (1, 28, 28)

    def prepare_data(self):
        generator = torch.Generator().manual_seed(1)
        labels = torch.randint(self.num_classes, (512,), generator=generator)
        prototypes = torch.randn(self.num_classes, *self.dims, generator=generator)
        images = prototypes[labels] + torch.randn(512, *self.dims, generator=generator)
        torch.save((images, labels), "images.pt")

    def setup(self, stage=None):
        full = TensorDataset(*torch.load("images.pt"))
        self.train_set, self.val_set, self.test_set = random_split(full, [320, 96, 96])

    def train_dataloader(self):
        return DataLoader(self.train_set, batch_size=self.batch_size, shuffle=True)

    def val_dataloader(self):
        return DataLoader(self.val_set, batch_size=self.batch_size)

    def test_dataloader(self):
        return DataLoader(self.test_set, batch_size=self.batch_size)


class LitClassifier(pl.LightningModule):
    def __init__(self, num_classes, learning_rate):
        super().__init__()
        self.save_hyperparameters()
        self.backbone = nn.Sequential(nn.Flatten(), nn.Linear(28 * 28, 64), nn.ReLU())
        self.head = nn.Linear(64, num_classes)

    @staticmethod
    def add_model_specific_args(parent_parser):
        parser = parent_parser.add_argument_group("LitClassifier")
        parser.add_argument("--learning_rate", type=float, default=1e-3)
        return parent_parser

    def forward(self, x):
        return self.head(self.backbone(x))

    def training_step(self, batch, batch_idx):
        x, y = batch
        loss = F.cross_entropy(self(x), y)
        self.log("train_loss", loss, on_step=True, on_epoch=True, prog_bar=True)
        return loss

    def evaluate(self, batch, prefix):
        x, y = batch
        logits = self(x)
        accuracy = (logits.argmax(1) == y).float().mean()
        metrics = {f"{prefix}_loss": F.cross_entropy(logits, y), f"{prefix}_acc": accuracy}
        self.log_dict(metrics, prog_bar=True)
        return metrics

    def validation_step(self, batch, batch_idx):
        if self.trainer.sanity_checking:
            assert self.trainer.num_sanity_val_batches == [2]
        return self.evaluate(batch, "val")

    def validation_epoch_end(self, outputs):
        self.log("val_worst", torch.stack([output["val_loss"] for output in outputs]).max())

    def test_step(self, batch, batch_idx):
        return self.evaluate(batch, "test")

    def configure_optimizers(self):
        optimizer = torch.optim.AdamW(self.parameters(), lr=self.hparams.learning_rate)
        batches = len(self.trainer.datamodule.train_dataloader())
        steps = batches // self.trainer.accumulate_grad_batches * self.trainer.max_epochs
        scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, self.hparams.learning_rate, total_steps=steps + 1)
        return [optimizer], [{"scheduler": scheduler, "interval": "step", "name": "one-cycle"}]


def cli_main():
    pl.seed_everything(1234, workers=True)
    parser = ArgumentParser()
    parser = LitClassifier.add_model_specific_args(parser)
    parser = ImageDataModule.add_argparse_args(parser)
    parser = pl.Trainer.add_argparse_args(parser)
    args = parser.parse_args()

    dm = ImageDataModule.from_argparse_args(args)
    model = LitClassifier(dm.num_classes, args.learning_rate)
    trainer = pl.Trainer.from_argparse_args(
        args,
        callbacks=[
            ModelCheckpoint(monitor="val_loss", filename="{epoch}-{val_loss:.2f}"),
            EarlyStopping(monitor="val_loss", patience=4, mode="min"),
            LearningRateMonitor("step"),
        ],
        weights_summary="full",
        deterministic=True,
        terminate_on_nan=True,
    )
    trainer.fit(model, datamodule=dm)
    assert trainer.state.finished, f"training ended as {trainer.state}"
    assert trainer.lr_schedulers[0]["name"] == "one-cycle"

    [result] = trainer.test(datamodule=dm)
    best = LitClassifier.load_from_checkpoint(trainer.checkpoint_callback.best_model_path)
    print("hyperparameters:", dict(best.hparams))
    print("accuracy above 0.9:", result["test_acc"] > 0.9, "epochs:", trainer.current_epoch > 0, trainer.log_dir)


if __name__ == "__main__":
    cli_main()
