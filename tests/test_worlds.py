"""The worlds of the releases: where one is looked for, and how it is installed, with pip played by a script."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
import sysconfig
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, NamedTuple

import pytest

from conformance import worlds
from conformance.worlds import (
    RELEASES,
    Release,
    ReleaseMissing,
    World,
    WorldError,
    cache_root,
    interpreter,
    locate,
    prepare,
)

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


PYTHON = '''#!{python} -ES
"""An interpreter that notes how it was called, and whose pip installs nothing but a file."""
import json, os, sys
args = sys.argv[1:]
with open("{log}", "a") as log:
    seen = ("PYTHONPATH", "PYTHONHOME", "PIP_USER")
    log.write(json.dumps([args, {{key: os.environ[key] for key in seen if key in os.environ}}]) + "\\n")
if args[:1] == ["-c"]:
    print("{tag}" if "version_info" in args[1] else "{says}")
    sys.exit({exit_c})
if args[2:] == ["--version"]:
    print("pip {pip} from somewhere")
    sys.exit(0)
target = args[args.index("--target") + 1]
os.makedirs(target)
open(os.path.join(target, "installed.txt"), "w").write(" ".join(args))
if {fails}:
    print("ERROR: no such pin")
    sys.exit(1)
'''


class Run(NamedTuple):
    """How the fake interpreter was called."""

    args: list[str]
    env: dict[str, str]

    @property
    def target(self) -> Path:
        return Path(self.args[self.args.index("--target") + 1])

    @property
    def pins(self) -> list[str]:
        return self.args[self.args.index("--target") + 2 :]


class Pip:
    """A fake interpreter, and what was asked of it and of its pip."""

    def __init__(
        self,
        folder: Path,
        pip: str = "26.0",
        tag: str = "py3.7",
        fails: bool = False,
        exit_c: int = 0,
        says: str = r"Traceback:\nImportError: no such release",
    ) -> None:
        self.log, self.python = folder / "pip.log", folder / "python"
        values = {"python": sys.executable, "tag": tag, "pip": pip, "log": self.log, "fails": fails}
        self.python.write_text(PYTHON.format(**values, exit_c=exit_c, says=says))
        self.python.chmod(self.python.stat().st_mode | stat.S_IXUSR)

    @property
    def calls(self) -> list[Run]:
        return [Run(*json.loads(line)) for line in self.log.read_text().splitlines()] if self.log.exists() else []

    @property
    def runs(self) -> list[Run]:
        """The installations."""
        return [run for run in self.calls if "install" in run.args]


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


@pytest.mark.parametrize("marker", [None, b"", b'["toy-trainer==1.0", "toy-hel', b"\xff"])
def test_a_folder_whose_marker_is_missing_or_torn_is_not_prepared(
    cache: Path, tmp_path: Path, marker: bytes | None
) -> None:
    for tag in (HERE, "py3.7"):
        path = installed(cache, OURS, tag) / "conformance-pins.json"
        path.unlink() if marker is None else path.write_bytes(marker)
    with pytest.raises(ReleaseMissing):
        locate("toy@1.0")
    folder = prepare("toy@1.0", Pip(tmp_path).python)
    assert (folder / "installed.txt").exists()


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


@pytest.mark.parametrize("lacks", [True, False])
def test_a_world_is_the_release_then_the_stand_ins_then_the_suite(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lacks: bool
) -> None:
    environment(tmp_path, monkeypatch, toy_trainer="0.1")
    there = ModuleType("pkg_resources")
    there.__spec__ = ModuleSpec("pkg_resources", None)
    monkeypatch.setitem(sys.modules, "pkg_resources", None if lacks else there)
    standins, suite = [worlds.STANDINS] * lacks, [Path(worlds.__file__).parent.parent]
    assert locate("toy@0.1") == World("toy@0.1", Path(sys.executable), "current", (*standins, *suite))
    folder = installed(cache, OLD)
    assert locate("toy@0.1") == World("toy@0.1", Path(sys.executable), "prepared", (folder, *standins, *suite))


def test_an_interpreter_that_is_named_comes_first(cache: Path, tmp_path: Path) -> None:
    installed(cache, OURS)
    python = Pip(tmp_path).python
    world = locate("toy@1.0", python)
    assert (world.kind, world.python) == ("interpreter", python)


def test_an_interpreter_that_is_named_is_tried_with_what_it_will_see(tmp_path: Path) -> None:
    other = Pip(tmp_path)
    world = locate("toy@1.0", other.python)
    (tried,) = other.calls
    assert (tried.args[0], tried.args[2:]) == ("-c", ["1.0"])
    assert tried.env["PYTHONPATH"] == world.env()["PYTHONPATH"]
    assert locate("toy@1.0", other.python) == world
    assert len(other.calls) == 1  # once is enough


def test_no_other_world_takes_the_place_of_an_interpreter_that_fails(cache: Path, tmp_path: Path) -> None:
    installed(cache, OURS)
    other = Pip(tmp_path, exit_c=3, says=" ")
    with pytest.raises(WorldError, match=r"toy@1\.0 cannot be imported by .*/python: exit status 3\n"):
        locate("toy@1.0", other.python)
    with pytest.raises(WorldError, match="no Python interpreter at /nowhere/python"):
        locate("toy@1.0", "/nowhere/python")


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


def test_an_interpreter_is_found_as_a_shell_would(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    link = tmp_path / "venv" / "python-of-a-venv"
    link.parent.mkdir()
    link.symlink_to(Pip(tmp_path).python)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", str(link.parent))
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("python-of-a-venv", "venv/python-of-a-venv", "~/venv/python-of-a-venv", link):
        assert interpreter(name) == link  # absolute, and still the link
    (tmp_path / "text").write_text("no program")
    for none in ("text", tmp_path / "text", tmp_path, "python-of-none"):
        with pytest.raises(WorldError, match=f"no Python interpreter at {none}$"):
            interpreter(none)


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


def test_a_world_adds_nothing_but_its_folders(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PYTHONHOME", raising=False)
    before = dict(os.environ)
    for kind in ("prepared", "current", "interpreter"):
        env = World("toy@1.0", Path(sys.executable), kind, (Path("/release"), Path("/suite"))).env()
        assert env == {**before, "PYTHONPATH": os.pathsep.join(["/release", "/suite"])}
    assert dict(os.environ) == before


def test_a_seed_that_was_set_for_other_processes_is_not_handed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PL_GLOBAL_SEED", "7")
    assert "PL_GLOBAL_SEED" not in World("toy@1.0", Path(sys.executable), "current", ()).env()


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


def test_a_checkout_is_seen_as_it_is(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "checkout" / "conformance").mkdir(parents=True)
    monkeypatch.setattr(worlds, "PACKAGE", tmp_path / "checkout" / "conformance")
    assert locate("toy@1.0", Pip(tmp_path).python).paths == (tmp_path / "checkout",)
    assert not cache.exists()


def producers(folder: Path, monkeypatch: pytest.MonkeyPatch, times: int = 1) -> list[Path]:
    """Where another interpreter finds the suite, that being installed in `folder`, time after time."""
    (folder / "conformance").mkdir(parents=True, exist_ok=True)
    monkeypatch.setattr(worlds, "PACKAGE", folder / "conformance")
    monkeypatch.setattr(sysconfig, "get_path", lambda key, *_: str(folder if key == "platlib" else folder.parent))
    python, found = Pip(folder.parent).python, []
    for _ in range(times):
        worlds._verify.cache_clear()
        found += [path / "conformance" for path in locate("toy@1.0", python).paths]
    return found


def test_an_installed_suite_is_linked_where_nothing_else_is(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = tmp_path / "one" / "site", tmp_path / "other" / "site"
    links = producers(one, monkeypatch) + producers(other, monkeypatch)
    assert [link.resolve() for link in links] == [one / "conformance", other / "conformance"]
    assert links[0] != links[1]
    for link in links:
        assert link.is_relative_to(cache) and link.is_symlink()
        assert list(link.parent.iterdir()) == [link]


def test_a_link_is_made_once_and_again_when_it_leads_nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make, made = Path.symlink_to, []

    def counting(self: Path, target: Path, target_is_directory: bool = False) -> None:
        made.append(self)
        make(self, target, target_is_directory)

    monkeypatch.setattr(Path, "symlink_to", counting)
    first, second = producers(tmp_path / "site", monkeypatch, times=2)
    assert made == [first] == [second]
    first.unlink()
    make(first, tmp_path / "gone")
    (again,) = producers(tmp_path / "site", monkeypatch)
    assert again == first and again.resolve() == tmp_path / "site" / "conformance"


def test_a_link_that_another_process_made_meanwhile_will_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make = Path.symlink_to

    def slower(self: Path, target: Path, target_is_directory: bool = False) -> None:
        make(self, target, target_is_directory)
        make(self, target, target_is_directory)  # refused: it exists

    monkeypatch.setattr(Path, "symlink_to", slower)
    (link,) = producers(tmp_path / "site", monkeypatch)
    assert link.resolve() == tmp_path / "site" / "conformance"


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
    (run,) = pip.runs
    assert run.pins == ["toy-trainer==1.0", "toy-helper==2.0"]
    assert {"--no-deps", "--only-binary=:all:", "--no-input", "--disable-pip-version-check"} <= set(run.args)
    assert "PYTHONPATH" not in run.env
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


def test_pip_works_beside_the_folder_and_for_nobody_else(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONHOME", "/home")
    monkeypatch.setenv("PIP_USER", "1")  # would refuse --target
    pip = Pip(tmp_path, tag=r"Welcome!\npy3.7")
    folder = prepare("toy@0.1", pip.python)
    assert folder.name == "toy@0.1-py3.7"
    assert len(pip.runs) == 2
    for run in pip.runs:
        assert (run.env["PIP_USER"], run.env.get("PYTHONHOME")) == ("0", None)
        assert run.target.parent.parent == cache  # the same file system, so that moving it there is one step
    assert [path.name for path in cache.iterdir()] == [folder.name]


def test_a_lenient_pip_that_cannot_be_had_leaves_nothing(cache: Path, tmp_path: Path) -> None:
    pip = Pip(tmp_path, fails=True)
    with pytest.raises(WorldError, match=r"preparing toy@0\.1 failed: pip ended with 1\n .*pip==24\.0\nERROR: no such"):
        prepare("toy@0.1", pip.python)
    assert len(pip.runs) == 1
    assert list(cache.iterdir()) == []


def play_pip(monkeypatch: pytest.MonkeyPatch, error: BaseException | None = None) -> list[list[str]]:
    """Play every process: pip says its version and installs a file, or is cut off. Returns the commands."""
    commands: list[list[str]] = []

    def run(command: list[str], **_: Any) -> Any:
        commands.append(command)
        if "--target" in command:
            target = Path(command[command.index("--target") + 1])
            target.mkdir()
            (target / "installed.txt").touch()
            if error is not None:
                raise error
        return SimpleNamespace(returncode=0, stdout="pip 26.0 from somewhere\n")

    monkeypatch.setattr(subprocess, "run", run)
    return commands


def test_what_is_prepared_is_located(monkeypatch: pytest.MonkeyPatch) -> None:
    commands = play_pip(monkeypatch)
    folder = prepare("toy@1.0")
    assert folder.name == f"toy@1.0-{HERE}"
    assert [command[:3] for command in commands] == [[sys.executable, "-m", "pip"]] * 2
    assert (locate("toy@1.0").kind, locate("toy@1.0").paths[0]) == ("prepared", folder)


def test_an_interruption_leaves_nothing_half_done(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    play_pip(monkeypatch, KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        prepare("toy@1.0")
    assert list(cache.iterdir()) == []


@pytest.mark.parametrize("same", [True, False])
def test_another_process_that_was_quicker_is_right_if_it_has_the_same_pins(
    cache: Path, monkeypatch: pytest.MonkeyPatch, same: bool
) -> None:
    move = Path.rename

    def rename(self: Path, target: Path) -> Path:
        (installed(cache, OURS, pins=None if same else ["toy-trainer==0.9"]) / "theirs.py").touch()
        return move(self, target)

    play_pip(monkeypatch)
    monkeypatch.setattr(Path, "rename", rename)
    if same:
        assert (prepare("toy@1.0") / "theirs.py").exists()
    else:
        with pytest.raises(OSError):
            prepare("toy@1.0")
    assert [path.name for path in cache.iterdir()] == [f"toy@1.0-{HERE}"]


@pytest.mark.parametrize("version, runs", [("24.1", 2), ("26.0", 2), ("24.0", 1), ("23.3.1", 1)])
def test_old_metadata_is_read_by_an_old_pip(tmp_path: Path, version: str, runs: int) -> None:
    pip = Pip(tmp_path, pip=version)
    prepare("toy@0.1", pip.python)
    assert len(pip.runs) == runs
    *lenient, release = pip.runs
    assert [run.pins for run in lenient] == [["pip==24.0"]] * (runs - 1)
    assert release.pins == ["toy-trainer==0.1"]
    assert release.env.get("PYTHONPATH") == (str(lenient[0].target) if lenient else None)


@pytest.mark.parametrize("ends", ["print('pip 26.0'), sys.exit(1)", "print('pipless')"])
def test_a_pip_that_fails_or_is_another_program_is_none(tmp_path: Path, ends: str) -> None:
    odd = tmp_path / "odd"
    odd.write_text(f"#!{sys.executable}\nimport sys\nprint('py3.7') if sys.argv[1] == '-c' else ({ends})\n")
    odd.chmod(0o755)
    with pytest.raises(WorldError, match=r"odd has no pip, which installs the releases:\npip"):
        prepare("toy@1.0", odd)


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
