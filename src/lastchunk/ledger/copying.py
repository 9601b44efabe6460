"""Copies a whole ledger into another database, in steps that can be interrupted and go on.

While it goes on nobody writes to the source, and nobody can open the target: its schema's version
is marked until every row was compared and the audit of both says the same.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeAlias

import sqlalchemy as sa

from lastchunk.errors import CopyRefused, LedgerUnavailable
from lastchunk.ledger.audit import Verification, audit
from lastchunk.ledger.database import (
    COPYING,
    check_schema,
    hidden,
    lock_all_writers,
    open_schema,
    parse_url,
    schema_version,
    unavailable,
    writing_engine,
)
from lastchunk.ledger.differences import Differences, differences, row_count
from lastchunk.ledger.living import living_processes, named
from lastchunk.ledger.tables import SCHEMA_VERSION, VERSION_TABLE, entries, metadata, tags

APPENDED = (entries, tags)
"""Never changed and never deleted: they are copied page by page, each page in a transaction of its
own. All other tables follow in one last transaction."""

LOCK_SECONDS = 5
"""How long the copy waits for the source's writers before it gives up."""

Progress: TypeAlias = Callable[[str, int, int], None]
"""Told a step's name, the rows done and the rows there are."""


@dataclass(frozen=True, slots=True)
class CopiedTable:
    """One table: its rows in both ledgers, and how many of them were written now."""

    name: str
    rows: int
    written: int


@dataclass(frozen=True, slots=True)
class Copied:
    """A ledger that stands in two places. URLs are without passwords."""

    source: str
    target: str
    tables: tuple[CopiedTable, ...]
    verification: Verification


def copy_ledger(
    source: str, target: str, *, now_ms: int, progress: Progress = lambda step, done, of: None
) -> Copied:
    """Copies every row and verifies it; run again, it goes on where it was.

    Raises CopyRefused where a living process has either ledger open, the source does not verify,
    or the target has entries that the source has not; LedgerUnavailable where a database fails.
    What was written until then stays and cannot be opened; the source is never changed.
    """
    from_url, to_url = parse_url(source), parse_url(target)
    if _same_place(from_url, to_url):
        raise CopyRefused(f"FROM and TO are the same ledger, {hidden(from_url)}: name two")
    with _held_still(from_url, now_ms) as reading:
        found = _sound(reading, from_url, progress)
        engine = writing_engine(to_url)
        _prepare(engine, to_url, now_ms)
        copy = _Copy(reading, engine, to_url, progress)
        copy.refuse_foreign()
        copy.mark(COPYING + SCHEMA_VERSION, now_ms)
        written = copy.append() | copy.replace()
        rows = copy.compare()
        copy.audit(found)
        copy.mark(SCHEMA_VERSION, now_ms)
    copied = (CopiedTable(str(name), count, written[name]) for name, count in rows.items())
    return Copied(hidden(from_url), hidden(to_url), tuple(copied), found)


class _Copy:
    """From a source that stands still into a target that nobody else can open."""

    def __init__(
        self, source: sa.Connection, engine: sa.Engine, url: sa.URL, progress: Progress
    ) -> None:
        self._source = source
        self._engine = engine
        self._url = url
        self._progress = progress

    def refuse_foreign(self) -> None:
        """Changes nothing yet: a target that has its own entries stays as it is, and usable."""
        with self._reading() as target:
            for table in APPENDED:
                if target.execute(sa.select(table).limit(1)).first() is not None:
                    for found in self._differences("comparing", target, table):
                        self._refuse_if_foreign(table, found)

    def mark(self, version: str, now_ms: int) -> None:
        """Says in the target whether it is whole."""
        with self._writing() as target:
            living = living_processes(target, now_ms)
            if version != SCHEMA_VERSION and living:
                raise CopyRefused(_in_use("TO", self._url, named(living, now_ms)))
            target.execute(
                sa.text(f"UPDATE {VERSION_TABLE} SET version_num = :version"), {"version": version}
            )

    def append(self) -> dict[str, int]:
        """Writes the entries and tags that are missing, page by page; how many by table."""
        written: dict[str, int] = {}
        for table in APPENDED:
            written[table.name] = 0
            with self._reading() as reading:
                walk = self._differences(f"copying {table.name}", reading, table)
                for found in walk:
                    self._refuse_if_foreign(table, found)
                    if found.missing:
                        reading.rollback()  # a long snapshot keeps SQLite's log from shrinking
                        with self._writing() as target:
                            _insert(target, table, found)
                        written[table.name] += len(found.missing)
        return written

    def replace(self) -> dict[str, int]:
        """Makes all other tables the source's, and lets the target's numbers go on after it."""
        written: dict[str, int] = {}
        with self._writing() as target:
            for table in _others():
                written[table.name] = 0
                for found in self._differences(f"copying {table.name}", target, table):
                    _delete(target, table, found)
                    _insert(target, table, found)
                    written[table.name] += len(found.missing) + len(found.changed)
            for table in metadata.sorted_tables:
                _continue_numbers(target, table)
        return written

    def compare(self) -> dict[str, int]:
        """Reads every row of both again; how many there are by table."""
        rows: dict[str, int] = {}
        with self._reading() as target:
            for table in metadata.sorted_tables:
                rows[table.name] = 0
                for found in self._differences(f"comparing {table.name}", target, table):
                    if found.any:
                        raise CopyRefused(_differs(table, self._url, found))
                    rows[table.name] += found.compared
        return rows

    def audit(self, source: Verification) -> None:
        """Recomputes every balance from the target's own entries."""
        with self._reading() as target:
            of = row_count(target, entries)
            found = audit(target, lambda done: self._progress("checking TO", done, of))
        if found != source:
            raise CopyRefused(
                f"the copy at {hidden(self._url)} does not verify as its source does"
                f" ({found.found} discrepancies, {found.entries} entries): run it again"
            )

    def _differences(
        self, step: str, target: sa.Connection, table: sa.Table
    ) -> Iterator[Differences]:
        of = row_count(self._source, table)
        done = 0
        self._progress(step, 0, of)
        for found in differences(self._source, target, table):
            yield found
            done += found.compared
            self._progress(step, done, of)

    def _refuse_if_foreign(self, table: sa.Table, found: Differences) -> None:
        if found.foreign or found.changed:
            raise CopyRefused(
                f"{_differs(table, self._url, found)}: TO must be empty or hold a copy of FROM;"
                " give another TO"
            )

    @contextmanager
    def _reading(self) -> Iterator[sa.Connection]:
        with unavailable(self._url, "read"), self._engine.connect() as connection:
            yield connection.execution_options(reads=True)

    @contextmanager
    def _writing(self) -> Iterator[sa.Connection]:
        with unavailable(self._url, "written"), self._engine.begin() as connection:
            lock_all_writers(connection)
            yield connection


@contextmanager
def _held_still(url: sa.URL, now_ms: int) -> Iterator[sa.Connection]:
    """The source in one transaction that lets nobody write."""
    engine = writing_engine(url)
    check_schema(engine, url)
    on_postgresql = url.get_backend_name() == "postgresql"
    with unavailable(url, "read"), engine.connect() as connection:
        if on_postgresql:
            connection.execution_options(isolation_level="REPEATABLE READ")
        with connection.begin() as transaction:  # on SQLite this holds the write lock
            if on_postgresql:
                connection.execute(sa.text(f"SET LOCAL lock_timeout = '{LOCK_SECONDS}s'"))
                names = ", ".join(table.name for table in metadata.sorted_tables)
                connection.execute(sa.text(f"LOCK TABLE {names} IN SHARE ROW EXCLUSIVE MODE"))
            living = living_processes(connection, now_ms)
            if living:
                raise CopyRefused(_in_use("FROM", url, named(living, now_ms)))
            yield connection
            transaction.rollback()


def _sound(source: sa.Connection, url: sa.URL, progress: Progress) -> Verification:
    of = row_count(source, entries)
    found = audit(source, lambda done: progress("checking FROM", done, of))
    if not found.is_clean:
        first = found.discrepancies[0]
        raise CopyRefused(
            f"the ledger at {hidden(url)} does not verify and is not copied: {found.found}"
            f" discrepancies, the first {first.name} of {first.subject} ({first.message}); see"
            " `lastchunk verify`, and restore a backup"
        )
    return found


def _prepare(engine: sa.Engine, url: sa.URL, now_ms: int) -> None:
    """Makes the target's tables, unless an earlier run did."""
    on_a_server = url.get_backend_name() != "sqlite"
    if on_a_server or os.path.exists(url.database or ""):
        with unavailable(url, "opened"), engine.connect() as connection:
            version = schema_version(connection)
        if version is not None and version.startswith(COPYING):
            begun_at = version.removeprefix(COPYING)
            if begun_at != SCHEMA_VERSION:
                raise LedgerUnavailable(
                    f"the copy at {hidden(url)} was begun by a lastchunk with schema {begun_at}"
                    f" (here {SCHEMA_VERSION}): end it with that one, or give an empty TO"
                )
            return
    open_schema(engine, url, now_ms)
    with unavailable(url, "read"), engine.connect() as connection:
        living = living_processes(connection, now_ms)
    if living:
        raise CopyRefused(_in_use("TO", url, named(living, now_ms)))


def _others() -> list[sa.Table]:
    return [table for table in metadata.sorted_tables if table not in APPENDED]


def _insert(connection: sa.Connection, table: sa.Table, found: Differences) -> None:
    rows = [row._asdict() for row in (*found.missing, *found.changed)]
    if rows:
        connection.execute(sa.insert(table), rows)


def _delete(connection: sa.Connection, table: sa.Table, found: Differences) -> None:
    columns = list(table.primary_key)
    gone = [
        {f"key_{column.name}": getattr(row, column.name) for column in columns}
        for row in (*found.foreign, *found.changed)
    ]
    if gone:
        where = (column == sa.bindparam(f"key_{column.name}") for column in columns)
        connection.execute(sa.delete(table).where(*where), gone)


def _continue_numbers(connection: sa.Connection, table: sa.Table) -> None:
    """PostgreSQL counts by itself: rows that bring their own number do not move it."""
    column = table.autoincrement_column
    if connection.dialect.name != "postgresql" or column is None:
        return
    highest = connection.scalar(sa.select(sa.func.max(column)))
    if highest is not None:
        connection.execute(
            sa.select(
                sa.func.setval(sa.func.pg_get_serial_sequence(table.name, column.name), highest)
            )
        )


def _same_place(one: sa.URL, other: sa.URL) -> bool:
    if one.get_backend_name() == other.get_backend_name() == "sqlite":
        return os.path.realpath(one.database or "") == os.path.realpath(other.database or "")
    return one == other


def _in_use(which: str, url: sa.URL, by: str) -> str:
    return (
        f"{which}, {hidden(url)}, is open in {by}: stop what writes to it and run this again; a"
        " process that is gone without a word counts as living for a minute on another host"
    )


def _differs(table: sa.Table, url: sa.URL, found: Differences) -> str:
    row = (*found.foreign, *found.changed, *found.missing)[0]
    key = ", ".join(f"{column.name} {getattr(row, column.name)}" for column in table.primary_key)
    return f"{hidden(url)} has {table.name} that are not the source's ({key})"
