"""The PostgreSQL server that ledger tests use, where there is one."""

from __future__ import annotations

import os

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
