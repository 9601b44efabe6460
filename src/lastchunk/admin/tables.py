"""The reports' tables as JSON: rows of named values, money and shares as decimal strings."""

from __future__ import annotations

from decimal import Decimal
from typing import Literal

from lastchunk.admin.schema import Answer
from lastchunk.reports.cells import plain_names, plain_values
from lastchunk.reports.table import Cell, Column, Kind, Table


class ReportColumn(Answer):
    """`usd` are dollars with nine decimals, `share` a decimal from 0 to 1, both as strings;
    `moment` is ISO 8601; `number` and `tokens` are whole numbers."""

    name: str
    kind: Literal["text", "id", "number", "tokens", "usd", "moment", "share"]


class ReportTable(Answer):
    """Rows by column name. `totals` is null where nothing adds up."""

    columns: list[ReportColumn]
    rows: list[dict[str, str | int | None]]
    totals: dict[str, str | int | None] | None
    left_out: int = 0
    """Rows beyond the `limit`; they are in the totals."""


def report_table(table: Table, limit: int | None = None) -> ReportTable:
    """A table as it is answered, with at most `limit` rows."""
    rows = table.rows if limit is None else table.rows[:limit]
    return ReportTable(
        columns=[described for column in table.columns for described in _described(column)],
        rows=[_record(table, row) for row in rows],
        totals=None if table.totals is None else _record(table, table.totals),
        left_out=len(table.rows) - len(rows),
    )


def _described(column: Column) -> list[ReportColumn]:
    return [
        ReportColumn(name=name, kind="text" if name.endswith("_basis") else column.kind.value)
        for name in plain_names(column)
    ]


def _record(table: Table, row: tuple[Cell, ...]) -> dict[str, str | int | None]:
    record: dict[str, str | int | None] = {}
    for cell, column in zip(row, table.columns, strict=True):
        for name, value in zip(plain_names(column), plain_values(cell, column), strict=True):
            record[name] = _exact(value, column.kind) if isinstance(value, Decimal) else value
    return record


def _exact(value: Decimal, kind: Kind) -> str:
    return f"{value:.9f}" if kind is Kind.USD else f"{value:f}"
