"""The worlds in which the releases under test run, and how the launcher gets one.

A release is pinned to the last distribution and installed, without dependency resolution, into a
folder of its own: neither this environment nor a resolver's mood decides what is measured. Torch
and numpy are those of the running interpreter. The other way is an interpreter that has the
release and a torch of its period installed; it is then used exactly as it is.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

__all__ = [
    "RELEASES",
    "Release",
    "ReleaseMissing",
    "World",
    "WorldError",
    "cache_root",
    "interpreter",
    "locate",
    "prepare",
]

PACKAGE = Path(__file__).resolve().parent
STANDINS = PACKAGE / "adapters" / "standins"
MARKER = "conformance-pins.json"


class WorldError(RuntimeError):
    """A world could not be made or does not hold what it should; the message says what to do."""


class ReleaseMissing(WorldError):
    """The release is installed nowhere; the message names the command that prepares it."""


@dataclass(frozen=True)
class Release:
    """A published trainer, and the distributions that make it work.

    `pins` stand beside today's Python, torch and numpy. `period_pins` are for an interpreter of
    the release's own time, `period_python`, and include torch and numpy; () when today's will do.
    `old_metadata` marks a distribution whose requirements newer versions of pip refuse to read;
    `standins`, one that imports modules that have since ceased to exist.
    """

    name: str
    version: str
    pins: tuple[str, ...]
    distribution: str = "pytorch-lightning"
    period_python: str = ""
    period_pins: tuple[str, ...] = ()
    old_metadata: bool = False
    standins: bool = False


LAST_LENIENT_PIP = (24, 0)

OF_2021 = (
    "torchmetrics==0.6.2",
    "pyDeprecate==0.3.1",
    "fsspec==2022.5.0",
    "PyYAML==6.0.3",
    "tqdm==4.66.5",
    "packaging==24.2",
    "typing-extensions==4.16.0",
)

RELEASES: Mapping[str, Release] = {
    release.name: release
    for release in (
        Release(
            name="lightning@1.5.10",
            version="1.5.10",
            pins=("pytorch-lightning==1.5.10", *OF_2021),
            period_python="3.9",
            period_pins=(
                "torch==1.10.2",
                "numpy==1.23.5",
                "pytorch-lightning==1.5.10",
                "torchmetrics==0.6.2",
                "pyDeprecate==0.3.1",
                "setuptools==59.5.0",
                "tensorboard==2.9.1",
                "protobuf==3.20.3",
                "absl-py==1.0.0",
                "six==1.16.0",
                "fsspec==2022.5.0",
                "PyYAML==6.0.1",
                "tqdm==4.64.0",
                "packaging==21.3",
                "pyparsing==3.0.9",
                "typing-extensions==4.2.0",
            ),
            old_metadata=True,
            standins=True,
        ),
        Release(
            name="lightning@1.4.9",
            version="1.4.9",
            pins=("pytorch-lightning==1.4.9", *OF_2021),
            old_metadata=True,
            standins=True,
        ),
        Release(
            name="lightning@1.9.5",
            version="1.9.5",
            pins=(
                "pytorch-lightning==1.9.5",
                "lightning-utilities==0.15.3",
                "torchmetrics==0.11.4",
                "fsspec==2023.4.0",
                "PyYAML==6.0.3",
                "tqdm==4.66.5",
                "packaging==24.2",
                "typing-extensions==4.16.0",
            ),
            standins=True,
        ),
        Release(
            name="lightning@2.6.6",
            version="2.6.6",
            pins=(
                "pytorch-lightning==2.6.6",
                "lightning-utilities==0.15.3",
                "torchmetrics==1.9.0",
                "fsspec==2026.9.0",
                "PyYAML==6.0.3",
                "tqdm==4.70.1",
                "packaging==26.3",
                "typing-extensions==4.16.0",
            ),
        ),
    )
}


@dataclass(frozen=True)
class World:
    """An interpreter, and the folders it must see to import a release and the producer half.

    `kind` says where it came from: `interpreter` (named by the user), `prepared` (installed by
    `prepare`), or `current` (installed in this environment).
    """

    name: str
    python: Path
    kind: str
    paths: tuple[Path, ...]

    def env(self) -> dict[str, str]:
        """The environment of a process in this world: this process's, with the folders in front. What is left of a
        `seed_everything` is not in it: by it a trainer would shuffle in another order than the scenario says."""
        env = {name: value for name, value in os.environ.items() if name != "PL_GLOBAL_SEED"}
        paths = [str(path) for path in self.paths]
        if self.kind == "interpreter":
            env.pop("PYTHONHOME", None)
        elif inherited := env.get("PYTHONPATH"):
            paths.append(inherited)
        env["PYTHONPATH"] = os.pathsep.join(paths)
        return env


def cache_root() -> Path:
    """Where prepared releases are kept: `$REFIMPL_CACHE`, or a folder of the user's cache."""
    chosen = os.environ.get("REFIMPL_CACHE")
    return Path(chosen).expanduser() if chosen else Path.home() / ".cache" / "refimpl-conformance"


def locate(name: str, python: str | os.PathLike[str] | None = None) -> World:
    """The world to run a release in, best first.

    An interpreter given by the user, checked by importing the release there; else what `prepare`
    installed; else this environment, if it has exactly that version; else ReleaseMissing.
    """
    release = _release(name)
    if python is not None:
        world = World(name, interpreter(python), "interpreter", (_producer_parent(),))
        _verify(world, release)
        return world
    here = Path(sys.executable)
    extra = (STANDINS,) if release.standins and _lacks_pkg_resources() else ()
    prepared = _folder(release, _python_tag(sys.executable))
    if _is_current(prepared, release):
        return World(name, here, "prepared", (prepared, *extra, PACKAGE.parent))
    installed, absent = _installed(release)
    if installed == release.version and not absent:
        return World(name, here, "current", (*extra, PACKAGE.parent))
    found = f"{release.distribution} {installed}" + (f", without {', '.join(absent)}" if absent else "")
    raise ReleaseMissing(
        f"{name} is not prepared for this Python (found: {found}). Run: python -m conformance prepare {name}"
    )


def prepare(name: str, python: str | os.PathLike[str] = sys.executable) -> Path:
    """Install a release's pins into the cache, for `python`, and return the folder.

    A folder that already holds these pins is left alone. A new one is filled beside its place and
    moved there when it is whole, so that an interrupted or failing run leaves nothing half done.
    """
    release = _release(name)
    executable = interpreter(python)
    folder = _folder(release, _python_tag(str(executable)))
    if _is_current(folder, release):
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".prepare-", dir=folder.parent) as scratch:
        fresh = Path(scratch) / "site"
        env = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "PYTHONHOME")}
        version = _pip_version(executable, env)
        if release.old_metadata and version > LAST_LENIENT_PIP:
            lenient = Path(scratch) / "pip"
            pin = "pip=={}.{}".format(*LAST_LENIENT_PIP)
            _pip_install(executable, env, lenient, (pin,), name)
            env = env | {"PYTHONPATH": str(lenient)}
        _pip_install(executable, env, fresh, release.pins, name)
        (fresh / MARKER).write_text(json.dumps(list(release.pins), indent=2) + "\n", encoding="utf-8")
        if folder.exists():
            folder.rename(Path(scratch) / "replaced")
        try:
            fresh.rename(folder)
        except OSError:
            if not _is_current(folder, release):  # else another process was quicker: same pins, same content
                raise
    return folder


def _release(name: str) -> Release:
    """The release of that name, or an error that lists those there are."""
    if name not in RELEASES:
        raise WorldError(f"unknown release {name!r}; known: {', '.join(RELEASES)}")
    return RELEASES[name]


def interpreter(python: str | os.PathLike[str]) -> Path:
    """The interpreter as an absolute path; links stay, for they are how a venv knows itself."""
    found = shutil.which(os.fspath(Path(python).expanduser()))
    if found is None:
        raise WorldError(f"no Python interpreter at {os.fspath(python)}")
    return Path(os.path.abspath(found))


@lru_cache
def _python_tag(python: str) -> str:
    """`py3.11`, for the interpreter's version."""
    if python == sys.executable:
        return f"py{sys.version_info.major}.{sys.version_info.minor}"
    done = _run([python, "-c", "import sys; print('py%d.%d' % sys.version_info[:2])"], dict(os.environ))
    if done.returncode:
        raise WorldError(f"{python} does not run as a Python interpreter:\n{done.stdout}")
    return done.stdout.strip().splitlines()[-1]


def _folder(release: Release, tag: str) -> Path:
    """Where a release is kept for a version of Python."""
    return cache_root() / f"{release.name}-{tag}"


def _is_current(folder: Path, release: Release) -> bool:
    """Does the folder hold exactly these pins?"""
    try:
        pins: object = json.loads((folder / MARKER).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return pins == list(release.pins)


def _installed(release: Release) -> tuple[str, list[str]]:
    """The version in this environment, and which of the distributions beside it are absent."""
    versions = dict.fromkeys((pin.partition("==")[0] for pin in release.pins), "")
    for name in versions:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[name] = importlib.metadata.version(name)
    return versions.pop(release.distribution) or "none", [n for n, v in versions.items() if not v]


def _lacks_pkg_resources() -> bool:
    """Is the module gone from this environment, as it is with a setuptools of today?"""
    return importlib.util.find_spec("pkg_resources") is None


def _producer_parent() -> Path:
    """A folder from which another interpreter can import this package, and nothing it must not see.

    A checkout will do. Among installed packages there is this interpreter's torch as well, so the
    package is linked into a folder of its own.
    """
    installed = {Path(sysconfig.get_path(key)).resolve() for key in ("purelib", "platlib")}
    if PACKAGE.parent not in installed and not (PACKAGE.parent / "torch").exists():
        return PACKAGE.parent
    tag = re.sub(r"\W+", "-", str(PACKAGE.parent)).strip("-")
    parent = cache_root() / "producer" / tag
    parent.mkdir(parents=True, exist_ok=True)
    link = parent / PACKAGE.name
    if not link.exists():
        link.unlink(missing_ok=True)
        with contextlib.suppress(FileExistsError):  # another process made it meanwhile
            link.symlink_to(PACKAGE, target_is_directory=True)
    return parent


@lru_cache
def _verify(world: World, release: Release) -> None:
    """Import the release in an interpreter that the user named, or say how to get it there."""
    code = (
        "import sys; from conformance.adapters.lightning_compat import import_lightning; "
        "import_lightning(sys.argv[1])"
    )
    done = _run([str(world.python), "-c", code, release.version], world.env())
    if done.returncode == 0:
        return
    last = done.stdout.strip().splitlines()[-1:] or [f"exit status {done.returncode}"]
    wanted = f"Python {release.period_python}" if release.period_python else "today's Python"
    pip = f"{world.python} -m pip install"
    lenient = f"{pip} 'pip<24.1' && \\\n  " if release.old_metadata else ""
    raise WorldError(
        f"{release.name} cannot be imported by {world.python}: {last[0]}\n"
        f"In {wanted}, this prepares it (without dependency resolution, which would never end):\n"
        f"  {lenient}{pip} --no-deps {' '.join(release.period_pins or release.pins)}"
    )


def _pip_version(python: Path, env: Mapping[str, str]) -> tuple[int, int]:
    """The version of an interpreter's pip."""
    done = _run([str(python), "-m", "pip", "--version"], env)
    match = re.match(r"pip (\d+)\.(\d+)", done.stdout)
    if done.returncode or match is None:
        raise WorldError(
            f"{python} has no pip, which installs the releases:\n{done.stdout}"
            f"Add it with: {python} -m ensurepip"
        )
    return int(match[1]), int(match[2])


def _pip_install(
    python: Path, env: Mapping[str, str], target: Path, pins: tuple[str, ...], name: str
) -> None:
    """Install wheels, exactly these, into a folder."""
    flags = ["--no-deps", "--only-binary=:all:", "--no-input", "--disable-pip-version-check"]
    command = [str(python), "-m", "pip", "install", *flags, "--target", str(target), *pins]
    done = _run(command, {**env, "PIP_USER": "0"})
    if done.returncode:
        raise WorldError(
            f"preparing {name} failed: pip ended with {done.returncode}\n  {' '.join(command)}\n{done.stdout}"
        )


def _run(command: list[str], env: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    """Run to the end; stdout holds what was said on either stream, in order."""
    return subprocess.run(
        command, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
