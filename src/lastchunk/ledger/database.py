"""Opening the database: SQLite or PostgreSQL, its settings, its schema, its failures."""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.exc import (
    ArgumentError,
    DataError,
    DBAPIError,
    IntegrityError,
    ProgrammingError,
    SQLAlchemyError,
)
from sqlalchemy.pool import NullPool

from lastchunk.errors import LedgerUnavailable
from lastchunk.ledger.living import living_processes, named
from lastchunk.ledger.tables import SCHEMA_VERSION, VERSION_TABLE

BUSY_SECONDS = 5.0
"""How long a connection waits for another process's write: a batch takes milliseconds, so who
waits this long is behind something broken."""

OLDEST_SQLITE = (3, 35, 0)
"""Of March 2021: from it on there is UPDATE … FROM and RETURNING. Python brings its own or the
system's."""

CACHED_STATEMENTS = 16
"""Prepared statements that a writing connection keeps: one for hundreds of rows is large."""

WAL_ATTEMPTS = 100
"""Switching a new file to WAL does not wait for its neighbours as other statements do: ask again,
every 50 ms."""

SERVER_PATIENCE = {
    "connect_timeout": 5,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 20_000,
}
"""A server whose machine is gone is given up after some seconds (the last one: milliseconds), not
after the system's two hours; a URL may say otherwise."""

COPYING = "copying "
"""Before the schema's version while a ledger is being copied there: nobody may open a part."""

READER_CONNECTIONS = 4
"""Queries of one Reader at the same time before one waits for another."""


def parse_url(url: str) -> sa.URL:
    """A path or a URL as SQLAlchemy's URL. Raises LedgerUnavailable for what is neither."""
    if "://" not in url:
        return sa.URL.create("sqlite", database=os.path.abspath(os.path.expanduser(url)))
    try:
        parsed = sa.make_url(url)
    except ArgumentError as error:
        raise LedgerUnavailable(f"{url!r} is no ledger: give a path or a database URL") from error
    backend = parsed.get_backend_name()
    if backend == "postgresql":
        return parsed.set(drivername="postgresql+psycopg")
    if backend != "sqlite":
        raise LedgerUnavailable(
            f"the ledger cannot live in {backend!r}: give a path, sqlite:/// or postgresql+psycopg://"
        )
    if not parsed.database or parsed.database == ":memory:":
        raise LedgerUnavailable("a ledger in memory would be lost with its process: give a path")
    return sa.URL.create("sqlite", database=os.path.abspath(parsed.database))


def _refuse_old_sqlite() -> None:
    if sqlite3.sqlite_version_info < OLDEST_SQLITE:
        raise LedgerUnavailable(
            f"this Python brings SQLite {sqlite3.sqlite_version}, a ledger needs 3.35 or later: use"
            " a newer Python, or PostgreSQL"
        )


def hidden(url: sa.URL) -> str:
    """The URL as it may be shown. A password may stand in its query as well."""
    shown = {name: "hidden" if "password" in name else told for name, told in url.query.items()}
    return url.set(query=shown).render_as_string(hide_password=True)


def refuse_missing(url: str) -> None:
    """For who changes what is there and makes nothing. Raises LedgerUnavailable: no such file."""
    _refuse_missing_file(parse_url(url))


def _refuse_missing_file(url: sa.URL) -> None:
    if url.get_backend_name() == "sqlite" and not os.path.exists(url.database or ""):
        raise LedgerUnavailable(f"there is no ledger at {url.database}: look at the path")


def writing_engine(url: sa.URL) -> sa.Engine:
    """An engine without a pool: no idle connection is left for a forked child to inherit."""
    if url.get_backend_name() == "sqlite":
        _refuse_old_sqlite()
        engine = sa.create_engine(
            url,
            poolclass=NullPool,
            hide_parameters=True,  # an error's text may be logged; what was to be written may not
            connect_args={"timeout": BUSY_SECONDS, "cached_statements": CACHED_STATEMENTS},
        )
        _set_up_sqlite(engine, read_only=False)
        return engine
    given = {name: value for name, value in SERVER_PATIENCE.items() if name not in url.query}
    return _import_driver(url, poolclass=NullPool, connect_args=given)


def reading_engine(url: sa.URL) -> sa.Engine:
    """An engine whose connections cannot write."""
    if url.get_backend_name() == "sqlite":
        uri = Path(url.database or "").as_uri() + "?mode=rw"  # rw: never creates the file

        def connect() -> sqlite3.Connection:
            return sqlite3.connect(uri, uri=True, timeout=BUSY_SECONDS, check_same_thread=False)

        engine = sa.create_engine(url, creator=connect, pool_size=READER_CONNECTIONS)
        _set_up_sqlite(engine, read_only=True)
        return engine
    return _import_driver(
        url,
        pool_size=READER_CONNECTIONS,
        pool_pre_ping=True,
        execution_options={"postgresql_readonly": True, "isolation_level": "REPEATABLE READ"},
    )


def open_schema(engine: sa.Engine, url: sa.URL, now_ms: int) -> None:
    """Makes or upgrades the tables, one process at a time. Raises LedgerUnavailable.

    Not under living processes of an older lastchunk, unless every step says that they may go on.
    """
    with unavailable(url, "opened"):
        if url.get_backend_name() == "sqlite":
            _make_directory(url)
            _switch_to_wal(engine)
        with engine.connect() as connection:
            version = schema_version(connection)
        if version == SCHEMA_VERSION:
            return
        # Alembic takes 0.1 s to import and is needed once in a ledger's life.
        from lastchunk.ledger.upgrade import older_may_go_on, upgrade  # noqa: PLC0415

        with engine.begin() as connection:
            lock_schema(connection)
            version = schema_version(connection)
            _refuse_unknown(version, url)
            if version == SCHEMA_VERSION:
                return
            if version is not None and not older_may_go_on(version):
                _refuse_under_living(connection, url, version, now_ms)
            upgrade(connection)


def check_schema(engine: sa.Engine, url: sa.URL) -> None:
    """For readers, who change nothing. Raises LedgerUnavailable where the schema is not ours."""
    _refuse_missing_file(url)
    with unavailable(url, "read"), engine.connect() as connection:
        version = schema_version(connection)
    _refuse_unknown(version, url)
    if version is None:
        raise LedgerUnavailable(f"{hidden(url)} holds no ledger: look at the path or the URL")
    if version != SCHEMA_VERSION:
        raise LedgerUnavailable(
            f"the ledger at {hidden(url)} has the older schema {version}: open it once for writing"
        )


_ITEMS_FAULTS = ("22", "23", "54", "P0")
"""Classes of SQLSTATE that say what is wrong with the data: the same data fails again."""

_WRONG_PLACE = (
    "not a database",
    "malformed",
    "unable to open",
    "denied",
    "authentication failed",
    "does not exist",
)
"""What databases say of an address that no waiting makes right."""


def is_outage(error: BaseException) -> bool:
    """Whether the database, not what is written to it, is at fault: another time it may work."""
    if not isinstance(error, DBAPIError) or isinstance(error, (IntegrityError, DataError)):
        return isinstance(error, OSError)
    state: str | None = getattr(error.orig, "sqlstate", None)
    if isinstance(error, ProgrammingError) and state is None:
        return False  # the driver's own refusal of a value
    return state is None or state[:2] not in _ITEMS_FAULTS


def may_come_back(error: LedgerUnavailable) -> bool:
    """Whether a ledger that could not be opened is away, rather than elsewhere or not ours."""
    cause = error.__cause__
    if cause is None or isinstance(cause, (PermissionError, NotADirectoryError, FileExistsError)):
        return False
    return is_outage(cause) and not any(said in _said(cause).lower() for said in _WRONG_PLACE)


@contextmanager
def unavailable(url: sa.URL, verb: str) -> Iterator[None]:
    """Translates the database's failures into LedgerUnavailable."""
    try:
        yield
    except (SQLAlchemyError, sqlite3.Error, OSError) as error:
        raise LedgerUnavailable(
            f"the ledger at {hidden(url)} cannot be {verb}: {_said(error)}; {_advice(error)}"
        ) from error


def _said(error: BaseException) -> str:
    original = error.orig if isinstance(error, DBAPIError) else error
    return str(original).strip().splitlines()[0] if str(original).strip() else repr(original)


def _advice(error: BaseException) -> str:
    said = _said(error).lower()
    if "not a database" in said or "malformed" in said:
        return "the file is something else or damaged: give another path or restore a backup"
    if "locked" in said or "busy" in said:
        return "another process holds it: close that one, or try again"
    if "readonly" in said or "unable to open" in said or "denied" in said or "full" in said:
        return "look at the path, its permissions and the space left"
    return "look at the address, the server and the permissions"


def lock_schema(connection: sa.Connection) -> None:
    """One upgrader at a time, until the transaction ends. On SQLite BEGIN IMMEDIATE does it."""
    if connection.dialect.name == "postgresql":
        connection.execute(_SCHEMA_LOCK)


def lock_decisions(connection: sa.Connection) -> None:
    """One decider at a time, until the transaction ends: what is read stays true until written.

    On SQLite BEGIN IMMEDIATE does it.
    """
    if connection.dialect.name == "postgresql":
        connection.execute(_DECISION_LOCK)


def lock_all_writers(connection: sa.Connection) -> None:
    """No other writer until the transaction ends. On SQLite BEGIN IMMEDIATE does it."""
    if connection.dialect.name == "postgresql":
        connection.execute(sa.text("LOCK TABLE entries IN SHARE ROW EXCLUSIVE MODE"))


# Advisory locks are the whole database's: the schema's name keeps two ledgers in one apart.
_SCHEMA_LOCK = sa.text(
    "SELECT pg_advisory_xact_lock(hashtext('lastchunk'), hashtext(current_schema()))"
)
_DECISION_LOCK = sa.text(
    "SELECT pg_advisory_xact_lock(hashtext('lastchunk decisions'), hashtext(current_schema()))"
)


def _import_driver(url: sa.URL, **options: Any) -> sa.Engine:
    try:
        return sa.create_engine(url, hide_parameters=True, **options)
    except ModuleNotFoundError as error:
        raise LedgerUnavailable(
            "PostgreSQL needs its driver: pip install 'lastchunk[postgresql]'"
        ) from error


def _set_up_sqlite(engine: sa.Engine, *, read_only: bool) -> None:
    """The driver's own transactions are turned off, so that ours begin as writers at once.

    A transaction that begins as a reader and then writes fails, without waiting, when another
    writer was quicker (SQLITE_BUSY_SNAPSHOT).
    """

    @sa.event.listens_for(engine, "connect")
    def _connected(connection: sqlite3.Connection, record: object) -> None:
        connection.isolation_level = None
        connection.execute("PRAGMA query_only = ON" if read_only else "PRAGMA synchronous = FULL")

    @sa.event.listens_for(engine, "begin")
    def _begun(connection: sa.Connection) -> None:
        writes = not read_only and not connection.get_execution_options().get("reads")
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


def _make_directory(url: sa.URL) -> None:
    Path(url.database or "").parent.mkdir(parents=True, exist_ok=True)


def _switch_to_wal(engine: sa.Engine) -> None:
    connection = engine.raw_connection()
    try:
        for attempt in range(WAL_ATTEMPTS):
            try:
                cursor = connection.cursor()
                cursor.execute("PRAGMA journal_mode = WAL")
                mode = cursor.fetchone()
            except sqlite3.OperationalError as error:
                if "locked" not in str(error) or attempt == WAL_ATTEMPTS - 1:
                    raise
                time.sleep(0.05)
                continue
            if mode is None or mode[0] != "wal":
                raise OSError(f"SQLite refuses its write-ahead log here (mode {mode})")
            return
    finally:
        connection.close()


def schema_version(connection: sa.Connection) -> str | None:
    """The version that the tables stand at, None where there are none."""
    if not sa.inspect(connection).has_table(VERSION_TABLE):
        return None
    version: str | None = connection.scalar(sa.text(f"SELECT version_num FROM {VERSION_TABLE}"))
    return version


def _refuse_unknown(version: str | None, url: sa.URL) -> None:
    if version is not None and version.startswith(COPYING):
        raise LedgerUnavailable(
            f"the ledger at {hidden(url)} is not whole: `lastchunk migrate-ledger` is copying into"
            " it, or was interrupted; let it end, or run it again with the same FROM and TO"
        )
    # Versions are numbered with leading zeros: they compare as text.
    if version is not None and version > SCHEMA_VERSION:
        raise LedgerUnavailable(
            f"the ledger at {hidden(url)} was written by a newer lastchunk (schema {version}, known"
            f" here up to {SCHEMA_VERSION}): upgrade lastchunk"
        )


def _refuse_under_living(connection: sa.Connection, url: sa.URL, version: str, now_ms: int) -> None:
    living = living_processes(connection, now_ms)
    if living:
        raise LedgerUnavailable(
            f"the ledger at {hidden(url)} has the older schema {version} (here {SCHEMA_VERSION})"
            f" and is open in {named(living, now_ms)}: stop what runs with the older lastchunk,"
            " then start this again; nothing was changed"
        )
