"""What the examples share: their command line, and images drawn with characters."""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable

import torch


def run(main: Callable[..., object]) -> None:
    """Call `main` with the options that the command line gives to its Trainer."""
    described = (sys.modules[main.__module__].__doc__ or "").splitlines()[0]
    parser = argparse.ArgumentParser(description=described)
    parser.add_argument("--root", metavar="FOLDER", help="where the logs go; by default a folder that is removed")
    parser.add_argument("--no-bar", action="store_true", help="no progress bar and no summary")
    arguments = parser.parse_args()
    shown = not arguments.no_bar
    torch.set_num_threads(1)  # layers as small as these gain nothing from more
    with tempfile.TemporaryDirectory() as temporary:
        main(
            default_root_dir=arguments.root or temporary,
            enable_progress_bar=shown,
            enable_model_summary=shown,
        )


def drawn(images: torch.Tensor) -> str:
    """Images of shape (count, 64) with values from 0 to 1, side by side, two characters a pixel."""
    ink = " .:-=+*#%@"
    levels = (images.clamp(0, 1) * (len(ink) - 1)).round().int().view(-1, 8, 8)
    lines = ("  ".join("".join(2 * ink[level] for level in row) for row in rows) for rows in levels.unbind(dim=1))
    return "\n".join(lines)
