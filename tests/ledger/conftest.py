from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path

import pytest
from ledger_facts import Stopwatch
from ledger_server import empty_place

from lastchunk.ledger import Ledger, Reader, verify

_files = count()


@contextmanager
def a_place(kind: str, folder: Path) -> Iterator[str]:
    """An empty place for a ledger: a file, or a schema of its own on the server."""
    if kind == "sqlite":
        yield str(folder / f"ledger-{next(_files)}.db")
        return
    with empty_place() as place:
        yield place


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """An empty place for a ledger."""
    with a_place(request.param, tmp_path) as place:
        yield place


@pytest.fixture(
    params=[(one, other) for one in ("sqlite", "postgresql") for other in ("sqlite", "postgresql")],
    ids="-to-".join,
)
def two_urls(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[str, str]]:
    """Two empty places for ledgers, in every direction."""
    one, other = request.param
    with a_place(one, tmp_path) as source, a_place(other, tmp_path) as target:
        yield source, target


@pytest.fixture
def clock() -> Stopwatch:
    return Stopwatch()


@pytest.fixture
def ledger(url: str, clock: Stopwatch) -> Iterator[Ledger]:
    """An open ledger, which must hold together when the test is over."""
    with Ledger.open(url, clock=clock) as opened:
        yield opened
    assert verify(url).discrepancies == ()


@pytest.fixture
def reader(url: str, ledger: Ledger) -> Iterator[Reader]:
    with Reader.open(url) as opened:
        yield opened
