"""Where two databases differ in a table, page by page in the order of its key."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import sqlalchemy as sa

PAGE = 1_000
"""Rows of each side held at a time: some hundred kilobytes, and few enough round trips."""

Row: TypeAlias = sa.Row[Any]


@dataclass(frozen=True, slots=True)
class Differences:
    """A stretch of a table. `compared` rows of the source were looked for in the target.

    `missing` and `changed` are the source's rows, `foreign` the target's.
    """

    compared: int
    missing: Sequence[Row] = ()
    changed: Sequence[Row] = ()
    foreign: Sequence[Row] = ()

    @property
    def any(self) -> bool:
        return bool(self.missing or self.changed or self.foreign)


def differences(
    source: sa.Connection, target: sa.Connection, table: sa.Table
) -> Iterator[Differences]:
    """Compares every row of a table, all columns. Memory is bounded by a page of each side.

    The target may be made alike while this goes on: a stretch is not looked at again.
    """
    after: tuple[Any, ...] | None = None
    while True:
        rows = _rows(source, table, after, None, PAGE)
        last = _key(table, rows[-1]) if len(rows) == PAGE else None
        # One more than can be alike: beyond that the rest is foreign too, and told in turn.
        there = _rows(target, table, after, last, PAGE + 1)
        if len(there) > PAGE:
            last = _key(table, there[-1])
            rows = [row for row in rows if _key(table, row) <= last]
        yield _compared(table, rows, there)
        if last is None:
            return
        after = last


def row_count(connection: sa.Connection, table: sa.Table) -> int:
    """How many rows a table has."""
    return connection.scalar(sa.select(sa.func.count()).select_from(table)) or 0


def _compared(table: sa.Table, rows: Sequence[Row], there: Sequence[Row]) -> Differences:
    found = {_key(table, row): row for row in there}
    missing: list[Row] = []
    changed: list[Row] = []
    for row in rows:
        other = found.pop(_key(table, row), None)
        if other is None:
            missing.append(row)
        elif tuple(other) != tuple(row):
            changed.append(row)
    return Differences(len(rows), missing, changed, list(found.values()))


def _rows(
    connection: sa.Connection,
    table: sa.Table,
    after: tuple[Any, ...] | None,
    last: tuple[Any, ...] | None,
    limit: int,
) -> Sequence[Row]:
    """The next rows in the order of the key, which both databases compare by its bytes."""
    columns = list(table.primary_key)
    query = sa.select(table).order_by(*columns).limit(limit)
    if after is not None:
        query = query.where(sa.tuple_(*columns) > sa.tuple_(*after))
    if last is not None:
        query = query.where(sa.tuple_(*columns) <= sa.tuple_(*last))
    return connection.execute(query).all()


def _key(table: sa.Table, row: Row) -> tuple[Any, ...]:
    return tuple(getattr(row, column.name) for column in table.primary_key)
