import gc
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from in_process import Corner

import lastchunk
from lastchunk.clock import SystemClock
from lastchunk.ledger import Ledger, Reader
from lastchunk.simulator import Simulator


@pytest.fixture(scope="session")
def shared_sim() -> Iterator[Simulator]:
    with Simulator() as sim:
        yield sim


@pytest.fixture(scope="session")
def shared_ledger(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """One ledger for all tests here: each looks at its own account only."""
    path = str(tmp_path_factory.mktemp("instrument") / "ledger.db")
    Ledger.open(path, clock=SystemClock()).close()
    yield path
    lastchunk.close()


@pytest.fixture(scope="session")
def shared_reader(shared_ledger: str) -> Iterator[Reader]:
    with Reader.open(shared_ledger) as reader:
        yield reader


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory of its own, with none of the developer's settings."""
    for name in ("LEDGER", "PRICES", "ACCOUNT", "GRACE_SECONDS"):
        monkeypatch.delenv(f"LASTCHUNK_{name}", raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def corner(shared_sim: Simulator, shared_ledger: str, shared_reader: Reader) -> Iterator[Corner]:
    with ExitStack() as stack:
        yield Corner(shared_sim, shared_ledger, shared_reader, stack)
    gc.collect()  # what a test has dropped is found in that test
