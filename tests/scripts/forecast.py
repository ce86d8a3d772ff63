"""A forecast as it was written in 2021: manual optimization with accumulation, a plateau, CSV files, predictions."""

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import TQDMProgressBar
from pytorch_lightning.loggers import CSVLogger
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


class Bar(TQDMProgressBar):
    def get_metrics(self, trainer, model):
        items = super().get_metrics(trainer, model)
        items.pop("v_num", None)
        return items


class Forecast(pl.LightningModule):
    def __init__(self, accumulate=3):
        super().__init__()
        self.automatic_optimization = False
        self.accumulate = accumulate
        self.rnn = nn.GRU(1, 8, batch_first=True)
        self.out = nn.Linear(8, 1)
        self.updates = 0

    def forward(self, x):
        states, _ = self.rnn(x)
        return self.out(states[:, -1])

    def loss(self, batch):
        x, y = batch
        return (self(x) - y).square().mean()

    def training_step(self, batch, batch_idx):
        optimizer = self.optimizers()
        loss = self.loss(batch)
        self.manual_backward(loss / self.accumulate)
        if (batch_idx + 1) % self.accumulate == 0 or self.trainer.is_last_batch:
            optimizer.step()
            optimizer.zero_grad()
            self.updates += 1
        self.log("loss", loss, prog_bar=True)

    def training_epoch_end(self, outputs):
        scheduler = self.lr_schedulers()
        scheduler.step(self.trainer.callback_metrics["loss"])

    def validation_step(self, batch, batch_idx, dataloader_idx):
        self.log("mse", self.loss(batch))

    test_step = validation_step

    def predict_step(self, batch, batch_idx, dataloader_idx=None):
        return self(batch[0])

    def configure_optimizers(self):
        optimizer = torch.optim.SGD(self.parameters(), lr=0.1)
        return {
            "optimizer": optimizer,
            "lr_scheduler": {
                "scheduler": torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, patience=1),
                "monitor": "loss",
            },
        }


def waves(count, seed):
    phases = torch.rand(count, 1, generator=torch.Generator().manual_seed(seed)) * 6.28
    values = torch.sin(phases + torch.arange(13) * 0.5)
    return DataLoader(TensorDataset(values[:, :12, None], values[:, 12:]), batch_size=16)


def main():
    pl.seed_everything(3)
    model = Forecast()
    trainer = pl.Trainer(
        max_epochs=4,
        min_epochs=1,
        check_val_every_n_epoch=2,
        logger=CSVLogger("logs", name="forecast"),
        log_every_n_steps=1,
        callbacks=Bar(refresh_rate=2),
        num_sanity_val_steps=0,
        checkpoint_callback=False,
    )
    train, short, long = waves(112, 0), waves(32, 1), waves(64, 2)
    trainer.fit(model, train, [short, long])
    print("updates:", model.updates, "batches:", trainer.num_training_batches, trainer.num_val_batches)

    results = trainer.validate(model, val_dataloaders=[short, long], verbose=False)
    print("names:", [sorted(result) for result in results])
    results = trainer.test(model, test_dataloaders=[short, long])
    predictions = trainer.predict(model, dataloaders=[short, long])
    print("predictions:", [[tuple(batch.shape) for batch in loader] for loader in predictions])
    print("stage:", trainer.state.fn == "predict", trainer.predicting, trainer.testing)


if __name__ == "__main__":
    main()
