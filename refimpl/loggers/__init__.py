"""Logging: the book that `self.log` writes to, and the loggers that it is shown to."""

from .loggers import CSVLogger, Logger, TensorBoardLogger

__all__ = ["CSVLogger", "Logger", "TensorBoardLogger"]
