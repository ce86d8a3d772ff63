"""The file of a checkpoint: written whole or not at all, verified before it is used, read without running its code."""

from __future__ import annotations

import errno
import os
import re
import time
import zipfile
from collections.abc import Mapping
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import IO, Any

import torch

from ..errors import CheckpointError
from .layout import MODULE
from .shape import check

try:
    import fcntl
except ImportError:  # on Windows, where remnants stay
    fcntl = None  # type: ignore[assignment]

__all__ = ["read", "write"]

_LOADED = time.time()


# ---- writing ---------------------------------------------------------------------------------------------


def write(checkpoint: Mapping[str, Any], path: str | os.PathLike[str]) -> None:
    """Save to `path`; until the new file is whole and on the disk, the old one stays in its place.

    A link stays, and the file that it leads to is written. What killed processes have left half-written in the folder
    is removed. Raises CheckpointError for a path that is there and is no regular file.
    """
    path = _place(Path(path))
    path.parent.mkdir(parents=True, exist_ok=True)
    _remove_remnants(path.parent)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")  # created here: with the user's permissions
    try:
        with open(part, "wb") as file:
            with suppress(OSError, AttributeError):  # a file system without locks, or a system
                fcntl.flock(file, fcntl.LOCK_EX)
            torch.save(dict(checkpoint), file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def _place(path: Path) -> Path:
    """Where the file of that path lies."""
    if path.is_file() or not os.path.lexists(path):
        return Path(os.path.realpath(path))
    what = "a folder" if path.is_dir() else "no regular file" if path.exists() else "a link that leads nowhere"
    raise CheckpointError(f"cannot save to {str(path)!r}, which is {what}; the path of a file is accepted")


def _remove_remnants(folder: Path) -> None:
    """Remove what processes have left that were killed as they wrote.

    The number in the name tells whose it was. While it lives here, the file stays: it may be another process by now,
    but a remnant does no harm. One that does not live here may live on another host, or in another container, that
    writes to the same folder: so whoever writes has locked the file, and the lock ends with the process, wherever it
    runs.
    """
    for part in folder.glob(".*.part") if fcntl else ():
        owner = re.fullmatch(r"\..+\.(\d{1,9})\.part", part.name)
        with suppress(OSError):  # gone already; locked; not ours to remove
            if owner and not _lives(int(owner[1]), part):
                with part.open("r+b") as file:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    part.unlink()


def _lives(owner: int, part: Path) -> bool:
    """Whether the process of that number may be the one that wrote `part`. Ours, which is often 1 in a container that
    was started again, was not, if the file is older than this process."""
    if owner == os.getpid():
        return part.stat().st_mtime >= _LOADED
    try:
        os.kill(owner, 0)
    except ProcessLookupError:
        return False
    return True


# ---- reading ---------------------------------------------------------------------------------------------

_ARCHIVE, _LEGACY = b"PK\3\4", b"l\xfc\x9cF\xf9 j\xa8P\x19"  # what torch.save begins with: today, before 1.6


def read(source: str | os.PathLike[str] | IO[bytes], map_location: Any = "cpu", weights_only: bool = True) -> Any:
    """The checkpoint in a file or a file object, its tensors on `map_location`.

    Every checksum is verified before anything is used; a file from before torch 1.6 has none. With `weights_only`, the
    file can hold tensors, numbers, strings and containers of these, and nothing of it is executed. Raises
    FileNotFoundError, and CheckpointError for anything that is no checkpoint; another OSError is the system's.
    """
    try:
        opened: Any = nullcontext(source) if hasattr(source, "read") else open(source, "rb")  # noqa: SIM115
    except FileNotFoundError:
        raise FileNotFoundError(f"there is no checkpoint {os.fspath(source)!r}") from None  # type: ignore[arg-type]
    with opened as file:
        try:
            _verify(file)
            checkpoint = torch.load(file, map_location=map_location, weights_only=weights_only)
        except Exception as error:  # whatever unpickling a damaged or hostile file comes to
            if isinstance(error, OSError) and error.errno != errno.EINVAL:  # which a damaged archive may lead to
                raise
            raise CheckpointError(f"{source!r} {_why_unreadable(error)}") from error
    is_mapping = isinstance(checkpoint, Mapping)
    if not is_mapping or not isinstance(checkpoint.get("state_dict"), Mapping):
        hint = "; weights alone are loaded by model.load_state_dict(torch.load(path))" if is_mapping else ""
        raise CheckpointError(f"{source!r} is no checkpoint: it has no 'state_dict'{hint}")
    check(checkpoint, MODULE, f"{source!r} is damaged, or of another version")
    return checkpoint


def _verify(file: IO[bytes]) -> None:
    """Raises whatever for a file that is not as torch.save has left it."""
    start, head = file.tell(), file.read(64)
    if head.startswith(_ARCHIVE):
        try:
            if not zipfile.is_zipfile(file):
                raise zipfile.BadZipFile("its end is missing, as if it had been cut off")
            with zipfile.ZipFile(file) as archive:
                # What has the mark of a folder, torch would not read.
                marked = (one.filename for one in archive.infolist() if one.external_attr & 0x10 and not one.is_dir())
                wrong = archive.testzip() or next(marked, None)
        except Exception as error:
            if isinstance(error, OSError):
                raise
            raise CheckpointError(f"its archive is damaged: {error}") from error
        if wrong:
            raise CheckpointError(f"the checksum of its {wrong!r} is wrong")
    elif _LEGACY not in head:
        raise CheckpointError("it does not begin as a file of torch.save does" if head else "it is empty")
    file.seek(start)


def _why_unreadable(error: Exception) -> str:
    foreign = re.search(r"(?:GLOBAL|class|function) ([\w.]+\.\w+)", str(error))
    if foreign and "Weights only load failed" in str(error):
        return (
            f"holds {foreign[1]}, and only tensors, numbers, strings and their containers are loaded: a pickled "
            "object can run any code. If you trust the file, pass weights_only=False, or name the class to "
            "torch.serialization.add_safe_globals"
        )
    said = str(error).rpartition("WeightsUnpickler error:")[2].strip().partition("\n")[0]
    kind = "" if isinstance(error, CheckpointError) else type(error).__name__
    return f"is no checkpoint, or a damaged one: {': '.join(filter(None, (kind, said)))[:200]}"
