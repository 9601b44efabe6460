"""Many rows, or many ids, in one statement.

At each step of a statement SQLite's driver lets other threads run, and a busy event loop then keeps
the interpreter for up to 5 ms. Row by row a batch of 200 would take a second beside a busy loop.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from itertools import chain
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine.interfaces import DBAPICursor

MAX_PARAMETERS = 32_766
"""SQLite's limit to the parameters of one statement; PostgreSQL's is twice that."""

Rows = Sequence[Sequence[Any]]


class Bulk:
    """A statement around a list of VALUES."""

    def __init__(self, engine: sa.Engine, head: str, columns: int, tail: str = "") -> None:
        placeholder = "?" if engine.dialect.name == "sqlite" else "%s"
        self._row = "(" + ", ".join([placeholder] * columns) + ")"
        self._head, self._tail = head, tail
        self._most_rows = MAX_PARAMETERS // columns

    def run(self, connection: sa.Connection, rows: Rows) -> None:
        """Executes it for all rows, in their order; not at all for none."""
        for start in range(0, len(rows), self._most_rows):
            part = rows[start : start + self._most_rows]
            statement = self._head + ", ".join([self._row] * len(part)) + self._tail
            execute(connection, statement, tuple(chain.from_iterable(part))).close()


class Listed:
    """A statement with one list of values, at `{list}` in its text; others stand behind it as `?`.

    As text, since it runs for every call, and SQLAlchemy would expand the list each time.
    """

    def __init__(self, engine: sa.Engine, text: str) -> None:
        self._placeholder = "?" if engine.dialect.name == "sqlite" else "%s"
        self._text = text.replace("?", self._placeholder)

    def run(self, connection: sa.Connection, values: Sequence[Any], *others: Any) -> Rows:
        """All rows for all values, which must be some, and no more than the limit."""
        listed = ", ".join([self._placeholder] * len(values))
        text = self._text.replace("{list}", listed)
        with closing(execute(connection, text, (*values, *others))) as cursor:
            rows: Rows = cursor.fetchall() if cursor.description else ()
        return rows


def execute(connection: sa.Connection, statement: str, values: tuple[Any, ...]) -> DBAPICursor:
    """Executes a driver's statement in the transaction that was begun; the caller closes it.

    Past SQLAlchemy's execution, whose bookkeeping about a statement's text was a fifth of the CPU
    of writing an entry. Raises its errors all the same.
    """
    cursor = connection.connection.cursor()
    dialect = connection.dialect
    try:
        cursor.execute(statement, values)
    except dialect.loaded_dbapi.Error as error:
        raise sa.exc.DBAPIError.instance(
            None, None, error, dialect.loaded_dbapi.Error, dialect=dialect
        ) from error
    return cursor


def insert(engine: sa.Engine, table: sa.Table, columns: Sequence[str], tail: str = "") -> Bulk:
    """INSERT of these columns of a table."""
    for name in columns:
        assert name in table.c, f"{table.name} has no column {name}"
    head = f"INSERT INTO {table.name} ({', '.join(columns)}) VALUES "
    return Bulk(engine, head, len(columns), tail)


def add_to(engine: sa.Engine, table: sa.Table, key: Sequence[str], sums: Sequence[str]) -> Bulk:
    """INSERT of a key and its sums, which are added where the key is there already."""
    added = ", ".join(f"{name} = {table.name}.{name} + excluded.{name}" for name in sums)
    tail = f" ON CONFLICT ({', '.join(key)}) DO UPDATE SET {added}"
    return insert(engine, table, (*key, *sums), tail)
