"""What annotations call the two classes above everything: `types.pyi` tells type checkers where they are.

A callback's hooks name the trainer, which runs callbacks; a module names its trainer, which holds the module. At run
time nothing below has to know more of them than what it is given, so that imports run one way.
"""

from typing import Any

Trainer = LightningModule = Any
