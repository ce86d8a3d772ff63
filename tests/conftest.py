"""What every test needs."""

from __future__ import annotations

import fcntl
import gc
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from extent import share
from hypothesis import settings

from conformance.mutants.engine import Healthy
from conformance.runner import produce_traces
from conformance.scenario import load_scenarios
from conformance.worlds import RELEASES, ReleaseMissing, locate

# How long an example takes is not what is tested. The examples are the same each time, so that a failure
# is the change's; HYPOTHESIS=explore draws others.
settings.register_profile("seeded", deadline=None, derandomize=True)
settings.register_profile("explore", deadline=None)
settings.load_profile(os.environ.get("HYPOTHESIS", "seeded"))

# The suite makes and drops millions of small objects, none of them in cycles that matter before it ends.
gc.freeze()
gc.set_threshold(100_000, 50, 50)

# A core for each worker, and for each program that a test starts: more threads would wait for each other.
os.environ["OMP_NUM_THREADS"] = "1"
torch.set_num_threads(1)


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int | None:
    """The whole suite has a worker for each core; what is named starts sooner without any. `-n 2` asks for two."""
    named = config.args_source is pytest.Config.ArgsSource.ARGS or config.option.keyword
    return 0 if named else None


@pytest.fixture(autouse=True)
def same_numbers_and_modes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Each test starts from the same random numbers, in an empty folder, and leaves gradients on."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PL_GLOBAL_SEED", "")  # so that it is gone when the test is over, whatever that sets
    monkeypatch.delenv("PL_GLOBAL_SEED")
    torch.manual_seed(0)
    yield
    assert torch.is_grad_enabled()


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A path for one trace after another; of module scope, for hypothesis runs a test many times."""
    return tmp_path_factory.mktemp("trace") / "t.jsonl"


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that all workers have."""
    folder = tmp_path_factory.getbasetemp()
    return folder.parent if "PYTEST_XDIST_WORKER" in os.environ else folder


@pytest.fixture(scope="session")
def healthy(shared: Path) -> Healthy:
    """What `refimpl` writes of each scenario, recorded once for all tests, whichever worker runs them."""
    return Healthy(shared / "refimpl")


@pytest.fixture(scope="session")
def recorded(shared: Path) -> Callable[[str], Path]:
    """The folder of what a release writes of its share of the scenarios, likewise; skips where the release is not
    prepared. Each scenario is some releases'."""

    def record(release: str) -> Path:
        try:
            locate(release)
        except ReleaseMissing as missing:
            pytest.skip(str(missing))
        folder = shared / release
        with open(shared / f"{release}.lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # let go of when it is closed
            if not folder.exists():
                begun = shared / f"{release}-begun"
                scenarios = share(load_scenarios(), 3, list(RELEASES).index(release) % 3)
                broken = {s.name: error for s, error in produce_traces(release, scenarios, begun) if error}
                assert broken == {}
                begun.replace(folder)
        return folder

    return record
