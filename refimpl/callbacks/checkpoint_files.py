"""The files of a ModelCheckpoint: what they are called, and the mark by which a run knows its own again. [R81]"""

from __future__ import annotations

import glob
import os
import re
import zipfile
from collections.abc import Iterable, Mapping
from string import Formatter
from typing import Any

from torch import Tensor

from ..errors import ConfigurationError, warn

__all__ = ["fields", "filled", "mark", "mark_in", "named"]


def fields(template: str) -> list[tuple[str, str | None, str]]:
    """The pieces of a template such as "{epoch}-{val_loss:.2f}": a text, the name of a value behind it, its format.

    Raises ConfigurationError if the braces cannot be read.
    """
    try:
        return [(text, name, spec or "") for text, name, spec, _ in Formatter().parse(template)]
    except ValueError as error:
        raise ConfigurationError(f"ModelCheckpoint: filename={template!r}: {error}") from None


def filled(template: str, values: Mapping[str, Any], insert_names: bool) -> str:
    """The template with the values filled in, "epoch=0" for "{epoch}" where names are to be inserted; 0, with a
    warning, for one that is not there. [R80]

    Raises ConfigurationError for a format that does not fit its value.
    """
    made = ""
    for text, name, spec in fields(template):
        made += text
        if name is None:
            continue
        if name not in values:
            warn(f"ModelCheckpoint: the filename has {name!r}, which was not logged, and gets 0 for it; "
                 f"there are {sorted(values)}")  # fmt: skip
        value = values.get(name, 0)
        try:
            shown = format(value.item() if isinstance(value, Tensor) else value, spec)
        except ValueError as error:
            raise ConfigurationError(f"ModelCheckpoint: filename: {{{name}:{spec}}}: {error}") from None
        made += f"{name.replace('/', '_')}={shown}" if insert_names else shown
    return made


def mark(run: str, number: int, step: int, path: str, folder: str) -> str:
    """What a file says of itself: the run that saved it, as the how manieth of its saves, at which step; and its name,
    so that a copy of it is somebody else's."""
    return f"{run}:{number}:{step}:{os.path.relpath(path, folder)};"


def mark_in(path: str, runs: Iterable[str], folder: str) -> tuple[int, int] | None:
    """The number and the step in the file's mark; None where it has none, or another run's. Nothing of the file is
    unpickled: the mark is looked for in its bytes."""
    run, name = "|".join(map(re.escape, runs)), re.escape(os.path.relpath(path, folder))
    match = re.search(rf"(?:{run}):(\d+):(\d+):{name};".encode(errors="surrogatepass"), _pickled(path))
    return match and (int(match[1]), int(match[2]))


def named(folder: str, template: str) -> set[str]:
    """The files in the folder whose names are of the template."""
    pattern = "".join(glob.escape(text) + "*" * (name is not None) for text, name, _ in fields(template))
    return set(map(os.path.abspath, glob.glob(os.path.join(glob.escape(folder), pattern + "*"))))


def _pickled(path: str) -> bytes:
    """What `torch.save` wrote to the file without the numbers of its tensors; nothing for another kind of file."""
    try:
        with zipfile.ZipFile(path) as file:
            return b"".join(file.read(name) for name in file.namelist() if name.endswith("/data.pkl"))
    except Exception:  # whatever there is to say against a file of somebody else
        return b""
