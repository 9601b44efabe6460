"""Many rows in one statement.

At each step of a statement SQLite's driver lets other threads run, and a busy event loop then keeps
the interpreter for up to 5 ms. Row by row a batch of 200 would take a second beside a busy loop.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import Any

import sqlalchemy as sa

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
            connection.exec_driver_sql(statement, tuple(chain.from_iterable(part)))


def insert(engine: sa.Engine, table: sa.Table, columns: Sequence[str], tail: str = "") -> Bulk:
    """INSERT of these columns of a table."""
    for name in columns:
        assert name in table.c, f"{table.name} has no column {name}"
    head = f"INSERT INTO {table.name} ({', '.join(columns)}) VALUES "
    return Bulk(engine, head, len(columns), tail)


def add_to(engine: sa.Engine, table: sa.Table, key: str, sums: Sequence[str]) -> Bulk:
    """INSERT of a key and its sums, which are added where the key is there already."""
    added = ", ".join(f"{name} = {table.name}.{name} + excluded.{name}" for name in sums)
    tail = f" ON CONFLICT ({key}) DO UPDATE SET {added}"
    return insert(engine, table, (key, *sums), tail)
