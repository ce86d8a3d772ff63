"""The files of a ModelCheckpoint: what they are called, and the mark by which a run knows its own again. [R81]"""

from __future__ import annotations

import glob
import os
import re
import zipfile
from collections.abc import Iterator, Mapping
from string import Formatter
from typing import Any

from torch import Tensor

from ..errors import ConfigurationError, warn

__all__ = ["fields", "filled", "mark", "marked"]


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


def marked(run: str, folder: str, template: str) -> Iterator[tuple[str, int, int]]:
    """The files in the folder whose names are of the template and that have the run's mark, each with the number of
    the save and the step. Nothing of a file is unpickled: the mark is looked for in its bytes."""
    pattern = "".join(glob.escape(text) + "*" * (name is not None) for text, name, _ in fields(template))
    for found in glob.glob(os.path.join(glob.escape(folder), pattern + "*")):
        path = os.path.abspath(found)
        wanted = re.escape(f"{run}:") + r"(\d+):(\d+)" + re.escape(f":{os.path.relpath(path, folder)};")
        if match := re.search(wanted.encode(errors="surrogatepass"), _pickled(path)):
            yield path, int(match[1]), int(match[2])


def _pickled(path: str) -> bytes:
    """What `torch.save` wrote to the file without the numbers of its tensors; nothing for another kind of file."""
    try:
        with zipfile.ZipFile(path) as file:
            return b"".join(file.read(name) for name in file.namelist() if name.endswith("/data.pkl"))
    except Exception:  # whatever there is to say against a file of somebody else
        return b""
