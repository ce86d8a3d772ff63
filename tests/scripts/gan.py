"""A GAN on vectors as it was written in 2021: two optimizers, TensorBoard, callbacks with hooks of the time."""

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.loggers import TensorBoardLogger
from pytorch_lightning.utilities import rank_zero_info, rank_zero_only
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader


class Samples(Callback):
    """Writes a picture of what the generator draws at the end of each epoch."""

    def on_train_epoch_end(self, trainer, pl_module):
        with torch.no_grad():
            drawn = pl_module.generator(pl_module.noise(8))
        trainer.logger.experiment.add_image("samples", drawn.sigmoid().view(1, 8, -1), trainer.global_step)


class Counter(Callback):
    def __init__(self):
        self.started = self.ended = 0

    def on_batch_start(self, trainer, pl_module):
        self.started += 1

    def on_batch_end(self, trainer, pl_module):
        self.ended += 1

    def on_keyboard_interrupt(self, trainer, pl_module):
        rank_zero_info("interrupted after %d batches", self.ended)


class GAN(pl.LightningModule):
    def __init__(self, latent=4, width=6, lr=0.01):
        super().__init__()
        self.latent, self.lr = latent, lr
        self.generator = nn.Sequential(nn.Linear(latent, 16), nn.ReLU(), nn.Linear(16, width))
        self.discriminator = nn.Sequential(nn.Linear(width, 16), nn.LeakyReLU(), nn.Linear(16, 1))

    def noise(self, count):
        return torch.randn(count, self.latent, device=self.device)

    def training_step(self, batch, batch_idx, optimizer_idx):
        fake = self.generator(self.noise(len(batch)))
        if optimizer_idx == 0:
            loss = F.softplus(-self.discriminator(fake)).mean()
            self.log("g_loss", loss, prog_bar=True)
        else:
            real = F.softplus(-self.discriminator(batch)).mean()
            loss = (real + F.softplus(self.discriminator(fake.detach())).mean()) / 2
            self.log("d_loss", loss, prog_bar=True)
        return {"loss": loss}

    def configure_optimizers(self):
        generator = torch.optim.Adam(self.generator.parameters(), lr=self.lr, betas=(0.5, 0.999))
        discriminator = torch.optim.Adam(self.discriminator.parameters(), lr=self.lr, betas=(0.5, 0.999))
        return [generator, discriminator], []


class Limited(GAN):
    def training_step(self, batch, batch_idx, optimizer_idx):
        if self.trainer.global_step and batch_idx == 3:
            raise KeyboardInterrupt
        return super().training_step(batch, batch_idx, optimizer_idx)


@rank_zero_only
def report(trainer, counter):
    finished = trainer.state.status == "finished"
    print("batches:", counter.started, counter.ended, "finished:", finished, "interrupted:", trainer.interrupted)


def main():
    pl.seed_everything(7)
    loader = DataLoader(torch.randn(64, 6) + 3, batch_size=8)
    logger = TensorBoardLogger("tb_logs", name="gan")
    counter = Counter()
    trainer = pl.Trainer(
        gpus=0,
        max_epochs=2,
        logger=logger,
        callbacks=[Samples(), counter],
        progress_bar_refresh_rate=0,
        weights_summary=None,
        log_every_n_steps=1,
        flush_logs_every_n_steps=10,
        accelerator="ddp",
    )
    trainer.fit(GAN(), train_dataloader=loader)
    report(trainer, counter)
    print("logged:", *sorted(trainer.logged_metrics), "in", logger.log_dir)

    counter = Counter()
    trainer = pl.Trainer(max_epochs=1, logger=False, callbacks=counter, enable_progress_bar=False)
    trainer.fit(Limited(), loader)
    report(trainer, counter)


if __name__ == "__main__":
    main()
