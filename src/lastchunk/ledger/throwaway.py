"""Ledgers that are made to be broken and thrown away; never anybody's own."""

from __future__ import annotations

import secrets
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import sqlalchemy as sa

from lastchunk.errors import LedgerUnavailable
from lastchunk.ledger.database import parse_url, unavailable, writing_engine

PREFIX = "lastchunk_throwaway_"

_HOLD_SECONDS = 30.0
"""How long a lock waits for those who write at the moment."""


@contextmanager
def throwaway_schema(server: str) -> Iterator[str]:
    """A new schema on a PostgreSQL server, as a ledger's URL; dropped in the end with all in it.

    Raises LedgerUnavailable where `server` is no PostgreSQL, or one that cannot be used.
    """
    url = parse_url(server)
    if url.get_backend_name() != "postgresql":
        raise LedgerUnavailable(f"{server!r} is no PostgreSQL server: give postgresql://…")
    name = PREFIX + secrets.token_hex(6)
    engine = writing_engine(url)
    with unavailable(url, "used for a schema of its own"), engine.begin() as connection:
        connection.execute(sa.schema.CreateSchema(name))
    told = url.query.get("options", "")
    options = f"{told if isinstance(told, str) else ' '.join(told)} -csearch_path={name}".strip()
    try:
        yield url.update_query_dict({"options": options}).render_as_string(hide_password=False)
    finally:
        with unavailable(url, "cleaned up"), engine.begin() as connection:
            connection.execute(sa.schema.DropSchema(name, cascade=True))


@contextmanager
def throwaway_ledger(folder: Path, server: str | None) -> Iterator[str]:
    """A ledger's URL: a file in a folder, or a schema of its own on a PostgreSQL server."""
    if server is None:
        yield str(folder / "ledger.db")
        return
    with throwaway_schema(server) as url:
        yield url


def address_of(url: str) -> tuple[str, int]:
    """Host and port of a ledger on a server."""
    parsed = parse_url(url)
    return parsed.host or "127.0.0.1", parsed.port or 5432


def reached_at(url: str, host: str, port: int) -> str:
    """The same ledger by another address, such as a proxy's."""
    return parse_url(url).set(host=host, port=port).render_as_string(hide_password=False)


@contextmanager
def held_exclusively(path: str) -> Iterator[None]:
    """While the block lasts nobody else can write to this SQLite ledger."""
    with closing(sqlite3.connect(path, isolation_level=None, timeout=_HOLD_SECONDS)) as connection:
        connection.execute("BEGIN EXCLUSIVE")
        try:
            yield
        finally:
            connection.execute("ROLLBACK")
