from .module import LightningModule as LightningModule
from .period.trainer import Trainer as Trainer
