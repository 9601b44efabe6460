import os
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import psycopg
import pytest
from ledger_facts import Stopwatch
from ledger_server import server_or_skip

from lastchunk.ledger import Ledger, Reader, verify

_schemas = count()


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """An empty place for a ledger: a file, or a schema of its own on the server."""
    if request.param == "sqlite":
        yield str(tmp_path / "ledger.db")
        return
    server = server_or_skip()
    schema = f"lastchunk_test_{os.getpid()}_{next(_schemas)}"
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute(f"CREATE SCHEMA {schema}")
        try:
            scheme, rest = server.split("://", 1)
            yield f"{scheme}+psycopg://{rest}?options=-csearch_path%3D{schema}"
        finally:
            connection.execute(f"DROP SCHEMA {schema} CASCADE")


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
