"""The PostgreSQL server that ledger tests use, where there is one."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count

import psycopg
import pytest

SERVER = os.environ.get("LASTCHUNK_POSTGRESQL", "postgresql://postgres@127.0.0.1:5432/test")


def server_or_skip() -> str:
    try:
        psycopg.connect(SERVER, connect_timeout=3).close()
    except psycopg.OperationalError as error:
        message = f"no PostgreSQL at {SERVER}: {error}"
        if os.environ.get("LASTCHUNK_REQUIRE_SERVICES") == "1":
            pytest.fail(message)
        pytest.skip(message)
    return SERVER


_schemas = count()


@contextmanager
def empty_place() -> Iterator[str]:
    """The URL of a schema of its own on the server, dropped afterwards."""
    server = server_or_skip()
    schema = f"lastchunk_test_{os.getpid()}_{next(_schemas)}"
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute(f"CREATE SCHEMA {schema}")
        try:
            scheme, rest = server.split("://", 1)
            yield f"{scheme}+psycopg://{rest}?options=-csearch_path%3D{schema}"
        finally:
            connection.execute(f"DROP SCHEMA {schema} CASCADE")
