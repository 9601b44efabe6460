"""Opening: what can be opened, and what is said about what cannot."""

import os
import sqlite3
from pathlib import Path
from typing import Any

import psycopg
import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from ledger_facts import NOON, Stopwatch, execute, make_call
from ledger_server import server_or_skip

from lastchunk.errors import LedgerUnavailable
from lastchunk.ledger import Ledger, Reader, verify
from lastchunk.ledger import database as database_module
from lastchunk.ledger import writer as writer_module
from lastchunk.ledger.database import hidden, parse_url, writing_engine
from lastchunk.ledger.tables import SCHEMA_VERSION, VERSION_TABLE, metadata
from lastchunk.ledger.upgrade import alembic_config


def test_a_path_a_url_and_a_home_directory_name_the_same_file(
    tmp_path: Path, clock: Stopwatch, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "books").mkdir()
    path = tmp_path / "books" / "ledger 1.db"
    spellings = [
        str(path),
        f"sqlite:///{path}",
        "sqlite:///books/ledger 1.db",
        "books/ledger 1.db",
        "~/books/ledger 1.db",
    ]
    for spelling in spellings:
        with Ledger.open(spelling, clock=clock) as ledger:
            ledger.reserve(make_call())
        with Reader.open(spelling) as reader:
            assert reader.url == f"sqlite:///{path}"
    assert verify(str(path)).calls == len(spellings)


def test_a_directory_that_is_missing_is_made(tmp_path: Path, clock: Stopwatch) -> None:
    Ledger.open(str(tmp_path / "a" / "b" / "ledger.db"), clock=clock).close()
    assert (tmp_path / "a" / "b" / "ledger.db").exists()


def test_a_file_that_is_no_database_is_left_alone(tmp_path: Path, clock: Stopwatch) -> None:
    path = tmp_path / "letter.txt"
    path.write_text("Dear ledger, " * 100)
    for open_it in (lambda: Ledger.open(str(path), clock=clock), lambda: Reader.open(str(path))):
        with pytest.raises(LedgerUnavailable, match=r"not a database; .*give another path"):
            open_it()
    assert path.read_text().startswith("Dear ledger")


def test_a_path_that_cannot_be_written_says_which(tmp_path: Path, clock: Stopwatch) -> None:
    (tmp_path / "file").touch()
    for path in (tmp_path, tmp_path / "file" / "ledger.db", Path("/proc/ledger.db")):
        with pytest.raises(LedgerUnavailable, match=str(path)):
            Ledger.open(str(path), clock=clock)


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("sqlite://", "in memory"),
        ("sqlite:///:memory:", "in memory"),
        ("mysql://root@localhost/x", "cannot live in 'mysql'"),
        ("://", "no ledger"),
    ],
)
def test_a_url_that_names_no_ledger_says_why(url: str, message: str, clock: Stopwatch) -> None:
    with pytest.raises(LedgerUnavailable, match=message):
        Ledger.open(url, clock=clock)


def test_a_server_that_is_not_there_is_named_without_its_password(clock: Stopwatch) -> None:
    url = "postgresql://ann:secret@127.0.0.1:1/books"
    with pytest.raises(LedgerUnavailable) as caught:
        Ledger.open(url, clock=clock)
    assert "postgresql+psycopg://ann:***@127.0.0.1:1/books" in str(caught.value)
    assert "secret" not in str(caught.value)


def test_an_open_ledgers_url_hides_its_password(clock: Stopwatch) -> None:
    server = server_or_skip().replace("postgres@", "postgres:secret@")
    with psycopg.connect(server, autocommit=True) as connection:
        schema = f"lastchunk_test_{os.getpid()}_password"
        connection.execute(f"CREATE SCHEMA {schema}")
        try:
            with Ledger.open(f"{server}?options=-csearch_path%3D{schema}", clock=clock) as ledger:
                assert "postgres:***@" in ledger.url
                assert "secret" not in ledger.url
        finally:
            connection.execute(f"DROP SCHEMA {schema} CASCADE")


def test_a_ledger_of_a_newer_lastchunk_is_not_touched(url: str, clock: Stopwatch) -> None:
    Ledger.open(url, clock=clock).close()
    execute(url, f"UPDATE {VERSION_TABLE} SET version_num = '0999'")
    for open_it in (lambda: Ledger.open(url, clock=clock), lambda: Reader.open(url)):
        with pytest.raises(LedgerUnavailable, match=r"newer lastchunk \(schema 0999.*upgrade"):
            open_it()


def test_the_migrations_make_the_tables_that_the_code_knows(url: str, clock: Stopwatch) -> None:
    Ledger.open(url, clock=clock).close()
    engine = writing_engine(parse_url(url))
    with engine.connect() as connection:
        options: dict[str, Any] = {"version_table": VERSION_TABLE, "compare_type": True}
        context = MigrationContext.configure(connection, opts=options)
        differences = compare_metadata(context, metadata)
        indexes = {index["name"] for index in sa.inspect(connection).get_indexes("entries")}
    assert differences == []
    assert {index.name for index in metadata.tables["entries"].indexes} <= indexes


def test_the_schema_version_is_the_newest_migration() -> None:
    assert ScriptDirectory.from_config(alembic_config()).get_current_head() == SCHEMA_VERSION


def test_an_old_sqlite_is_refused_by_name(
    tmp_path: Path, clock: Stopwatch, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite3, "sqlite_version_info", (3, 34, 1))
    with pytest.raises(LedgerUnavailable, match=r"3\.35 or later"):
        Ledger.open(str(tmp_path / "ledger.db"), clock=clock)


def test_a_ledger_that_another_process_holds_locked_is_unavailable_then_works_again(
    tmp_path: Path, clock: Stopwatch, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database_module, "BUSY_SECONDS", 0.05)
    monkeypatch.setattr(writer_module, "RETRY_SECONDS", 0.001)
    path = str(tmp_path / "ledger.db")
    with Ledger.open(path, clock=clock) as ledger:
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        call = make_call()
        with pytest.raises(LedgerUnavailable, match="locked; nothing of this batch was written"):
            ledger.reserve(call).result(30)
        with Reader.open(path) as reader:  # readers do not mind
            assert list(reader.calls()) == []
        other.rollback()
        other.close()
        assert ledger.reserve(call).result(30) is None
    assert verify(path).calls == 1


def test_a_lost_connection_is_opened_again(url: str, ledger: Ledger) -> None:
    if not url.startswith("postgresql"):
        pytest.skip("PostgreSQL only")
    ledger.reserve(make_call()).result()
    connection = ledger._writer._store._connection  # type: ignore[attr-defined]
    backend = connection.connection.dbapi_connection.info.backend_pid
    execute(url, f"SELECT pg_terminate_backend({backend})")
    call = make_call()
    assert ledger.reserve(call).result(30) is None
    assert ledger.orphans(NOON) == []


def test_a_password_in_the_query_of_a_url_is_not_shown() -> None:
    url = "postgresql+psycopg://ann:one@db.local/books?password=two&sslmode=require"
    shown = hidden(parse_url(url))
    assert "one" not in shown
    assert "two" not in shown
    assert "sslmode=require" in shown
