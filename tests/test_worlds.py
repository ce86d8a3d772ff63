"""The worlds of the releases: where one is looked for, and how it is installed, with pip played by a script."""

from __future__ import annotations

import json
import os
import stat
import sys
from pathlib import Path

import pytest

from conformance import worlds
from conformance.worlds import RELEASES, Release, ReleaseMissing, World, WorldError, cache_root, locate, prepare

OURS = Release("toy@1.0", "1.0", ("toy-trainer==1.0", "toy-helper==2.0"), distribution="toy-trainer")
OLD = Release(
    "toy@0.1",
    "0.1",
    ("toy-trainer==0.1",),
    distribution="toy-trainer",
    period_python="3.9",
    period_pins=("torch==1.10.2", "toy-trainer==0.1"),
    old_metadata=True,
    standins=True,
)
HERE = f"py{sys.version_info.major}.{sys.version_info.minor}"


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache, and two releases that are nowhere installed."""
    monkeypatch.setenv("REFIMPL_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("PYTHONPATH", raising=False)
    monkeypatch.setattr(worlds, "RELEASES", {release.name: release for release in (OURS, OLD)})
    worlds._python_tag.cache_clear()
    worlds._verify.cache_clear()
    return tmp_path / "cache"


PYTHON = '''#!{python}
"""An interpreter whose pip notes how it was called and installs nothing but a file."""
import json, os, sys
args = sys.argv[1:]
if args[:1] == ["-c"]:
    print("{tag}" if "version_info" in args[1] else "ImportError: no such release")
    sys.exit({exit_c})
if args[2:] == ["--version"]:
    print("pip {pip} from somewhere")
    sys.exit(0)
with open("{log}", "a") as log:
    log.write(json.dumps([args, os.environ.get("PYTHONPATH", "")]) + "\\n")
if {fails}:
    print("ERROR: no such pin")
    sys.exit(1)
target = args[args.index("--target") + 1]
os.makedirs(target)
open(os.path.join(target, "installed.txt"), "w").write(" ".join(args))
'''


class Pip:
    """A fake interpreter, and what was asked of its pip."""

    def __init__(self, folder: Path, pip: str = "26.0", tag: str = "py3.7", fails: bool = False, exit_c: int = 0):
        self.log, self.python = folder / "pip.log", folder / "python"
        values = {"python": sys.executable, "tag": tag, "pip": pip, "log": self.log, "fails": fails, "exit_c": exit_c}
        self.python.write_text(PYTHON.format(**values))
        self.python.chmod(self.python.stat().st_mode | stat.S_IXUSR)

    @property
    def runs(self) -> list[tuple[list[str], str]]:
        return [tuple(json.loads(line)) for line in self.log.read_text().splitlines()] if self.log.exists() else []


def installed(cache: Path, release: Release, tag: str = HERE, pins: object = None) -> Path:
    """The folder of a release as `prepare` leaves it."""
    folder = cache / f"{release.name}-{tag}"
    folder.mkdir(parents=True)
    (folder / "conformance-pins.json").write_text(json.dumps(list(release.pins) if pins is None else pins))
    return folder


# ---- where it is looked for --------------------------------------------------------------------------------


def test_a_missing_release_names_the_command_that_prepares_it() -> None:
    with pytest.raises(ReleaseMissing) as caught:
        locate("toy@1.0")
    message = str(caught.value)
    assert "python -m conformance prepare toy@1.0" in message
    assert "found: toy-trainer none, without toy-helper" in message


def test_an_unknown_release_names_those_there_are() -> None:
    for act in (locate, prepare):
        with pytest.raises(WorldError, match=r"unknown release 'toy@3\.0'; known: toy@1\.0, toy@0\.1"):
            act("toy@3.0")


def test_what_was_prepared_is_found(cache: Path) -> None:
    folder = installed(cache, OURS)
    world = locate("toy@1.0")
    assert (world.kind, world.python, world.paths[0]) == ("prepared", Path(sys.executable), folder)
    assert world.paths[-1] / "conformance" == Path(worlds.__file__).parent


@pytest.mark.parametrize("pins", [["toy-trainer==0.9", "toy-helper==2.0"], [], {}, 5])
def test_what_was_prepared_with_other_pins_is_not(cache: Path, pins: object) -> None:
    installed(cache, OURS, pins=pins)
    with pytest.raises(ReleaseMissing):
        locate("toy@1.0")


def test_what_was_prepared_for_another_python_is_not(cache: Path) -> None:
    installed(cache, OURS, tag="py3.7")
    with pytest.raises(ReleaseMissing):
        locate("toy@1.0")


def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, **versions: str) -> None:
    """This environment with these distributions installed."""
    for name, version in versions.items():
        info = tmp_path / "site" / f"{name}-{version}.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name.replace('_', '-')}\nVersion: {version}\n")
    monkeypatch.syspath_prepend(tmp_path / "site")


def test_this_environment_serves_if_it_has_exactly_the_release(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    environment(tmp_path, monkeypatch, toy_trainer="1.0", toy_helper="9.9")
    assert locate("toy@1.0").kind == "current"


def test_this_environment_does_not_serve_without_what_the_release_needs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    environment(tmp_path, monkeypatch, toy_trainer="1.0")
    with pytest.raises(ReleaseMissing, match=r"found: toy-trainer 1\.0, without toy-helper"):
        locate("toy@1.0")


def test_another_version_does_not_serve(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    environment(tmp_path, monkeypatch, toy_trainer="1.1", toy_helper="2.0")
    with pytest.raises(ReleaseMissing, match=r"found: toy-trainer 1\.1\)"):
        locate("toy@1.0")


def test_what_was_prepared_comes_before_this_environment(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    environment(tmp_path, monkeypatch, toy_trainer="1.0", toy_helper="2.0")
    installed(cache, OURS)
    assert locate("toy@1.0").kind == "prepared"


@pytest.mark.parametrize("lacks", [True, False])
def test_stand_ins_are_seen_where_the_module_they_stand_for_is_gone(
    cache: Path, monkeypatch: pytest.MonkeyPatch, lacks: bool
) -> None:
    installed(cache, OLD)
    monkeypatch.setattr(worlds, "_lacks_pkg_resources", lambda: lacks)
    assert (worlds.STANDINS in locate("toy@0.1").paths) is lacks
    installed(cache, OURS)
    assert worlds.STANDINS not in locate("toy@1.0").paths


def test_an_interpreter_that_is_named_comes_first(cache: Path, tmp_path: Path) -> None:
    installed(cache, OURS)
    python = Pip(tmp_path).python
    world = locate("toy@1.0", python)
    assert (world.kind, world.python) == ("interpreter", python)


def test_an_interpreter_without_the_release_says_how_to_get_it_there(tmp_path: Path) -> None:
    python = Pip(tmp_path, exit_c=1).python
    with pytest.raises(WorldError) as caught:
        locate("toy@0.1", python)
    lines = str(caught.value).splitlines()
    assert lines[0] == f"toy@0.1 cannot be imported by {python}: ImportError: no such release"
    assert lines[1].startswith("In Python 3.9, ")
    assert f"{python} -m pip install 'pip<24.1'" in lines[2]
    assert lines[3].endswith("--no-deps torch==1.10.2 toy-trainer==0.1")
    with pytest.raises(WorldError, match="In today's Python") as caught:
        locate("toy@1.0", python)
    assert "pip<24.1" not in str(caught.value)
    assert str(caught.value).endswith("--no-deps toy-trainer==1.0 toy-helper==2.0")


def test_an_interpreter_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(WorldError, match="no Python interpreter at /nowhere/python"):
        locate("toy@1.0", "/nowhere/python")
    broken = tmp_path / "broken"
    broken.write_text(f"#!{sys.executable}\nraise SystemExit('no')\n")
    broken.chmod(0o755)
    with pytest.raises(WorldError, match="broken does not run as a Python interpreter:\nno"):
        prepare("toy@1.0", broken)


# ---- what a process sees there -----------------------------------------------------------------------------


def test_a_worlds_folders_come_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", "/mine")
    monkeypatch.setenv("PYTHONHOME", "/home")
    paths = (Path("/release"), Path("/suite"))
    ours = World("toy@1.0", Path(sys.executable), "prepared", paths).env()
    assert ours["PYTHONPATH"] == os.pathsep.join(["/release", "/suite", "/mine"])
    assert ours["PYTHONHOME"] == "/home"
    theirs = World("toy@1.0", Path("/other/python"), "interpreter", paths).env()
    assert theirs["PYTHONPATH"] == os.pathsep.join(["/release", "/suite"])
    assert "PYTHONHOME" not in theirs


def test_another_interpreter_sees_the_suite_and_not_this_ones_packages(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = tmp_path / "site-packages"
    (site / "torch").mkdir(parents=True)
    (site / "conformance").mkdir()
    monkeypatch.setattr(worlds, "PACKAGE", site / "conformance")
    for _ in range(2):  # the second time the link is there
        (folder,) = locate("toy@1.0", Pip(tmp_path).python).paths
        assert [path.name for path in folder.iterdir()] == ["conformance"]
        assert (folder / "conformance").resolve() == site / "conformance"
        worlds._verify.cache_clear()


def test_the_cache_is_the_users_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REFIMPL_CACHE", "~/there")
    assert cache_root() == Path.home() / "there"
    monkeypatch.delenv("REFIMPL_CACHE")
    assert cache_root() == Path.home() / ".cache" / "refimpl-conformance"


# ---- preparing ---------------------------------------------------------------------------------------------


def test_preparing_installs_the_pins_and_nothing_else(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", "/mine")  # is not for pip to see
    pip = Pip(tmp_path)
    folder = prepare("toy@1.0", pip.python)
    assert folder == cache / "toy@1.0-py3.7"
    ((args, path),) = pip.runs
    assert args[-2:] == ["toy-trainer==1.0", "toy-helper==2.0"]
    assert {"--no-deps", "--only-binary=:all:"} <= set(args)
    assert path == ""
    assert sorted(path.name for path in folder.iterdir()) == ["conformance-pins.json", "installed.txt"]
    assert [path.name for path in cache.iterdir()] == [folder.name]


def test_preparing_again_does_nothing(tmp_path: Path) -> None:
    pip = Pip(tmp_path)
    assert prepare("toy@1.0", pip.python) == prepare("toy@1.0", pip.python)
    assert len(pip.runs) == 1


def test_a_folder_with_other_pins_is_replaced(cache: Path, tmp_path: Path) -> None:
    stale = installed(cache, OURS, tag="py3.7", pins=["toy-trainer==0.9"])
    (stale / "old.py").touch()
    folder = prepare("toy@1.0", Pip(tmp_path).python)
    assert folder == stale
    assert sorted(path.name for path in folder.iterdir()) == ["conformance-pins.json", "installed.txt"]
    assert [path.name for path in cache.iterdir()] == [folder.name]


def test_a_failure_shows_what_pip_said_and_leaves_what_was_there(cache: Path, tmp_path: Path) -> None:
    stale = installed(cache, OURS, tag="py3.7", pins=["toy-trainer==0.9"])
    with pytest.raises(WorldError) as caught:
        prepare("toy@1.0", Pip(tmp_path, fails=True).python)
    message = str(caught.value)
    assert message.startswith("preparing toy@1.0 failed: pip ended with 1\n")
    assert "--no-deps" in message and message.rstrip().endswith("ERROR: no such pin")
    assert json.loads((stale / "conformance-pins.json").read_text()) == ["toy-trainer==0.9"]
    assert [path.name for path in cache.iterdir()] == [stale.name]


@pytest.mark.parametrize("version, runs", [("24.1", 2), ("26.0", 2), ("24.0", 1), ("23.3.1", 1)])
def test_old_metadata_is_read_by_an_old_pip(tmp_path: Path, version: str, runs: int) -> None:
    pip = Pip(tmp_path, pip=version)
    prepare("toy@0.1", pip.python)
    assert len(pip.runs) == runs
    assert (pip.runs[0][0][-1] == "pip==24.0") is (runs == 2)
    args, path = pip.runs[-1]
    assert args[-1] == "toy-trainer==0.1"
    assert bool(path) is (runs == 2)


def test_an_interpreter_without_pip(tmp_path: Path) -> None:
    bare = tmp_path / "bare"
    bare.write_text(f"#!{sys.executable}\nimport sys\nsys.argv[1] == '-c' and sys.exit(print('py3.7'))\n"
                    "sys.exit('No module named pip')\n")  # fmt: skip
    bare.chmod(0o755)
    with pytest.raises(WorldError) as caught:
        prepare("toy@1.0", bare)
    assert "has no pip" in str(caught.value) and "No module named pip" in str(caught.value)
    assert str(caught.value).endswith(f"{bare} -m ensurepip")


def test_every_release_pins_its_own_version() -> None:
    for name, release in RELEASES.items():
        assert name == f"lightning@{release.version}"
        for pins in filter(None, (release.pins, release.period_pins)):
            assert f"{release.distribution}=={release.version}" in pins
            assert all(pin.count("==") == 1 for pin in pins)
