from .module import LightningModule as LightningModule
from .trainer.trainer import Trainer as Trainer
