"""One cell as people read it and as machines read it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from decimal import Decimal

from lastchunk.money import NANO_PER_USD, usd
from lastchunk.reports.table import Cell, Column, Kind, Span
from lastchunk.usage import Basis

_MARKS: dict[Basis, str] = {
    Basis.ASSUMED: "?",
    Basis.BOUNDED: "?",
    Basis.COUNTED: "~",
    Basis.REPORTED_SO_FAR: ">",
    Basis.REPORTED: "",
    Basis.STATED: "",
}

LEGEND: dict[str, str] = {
    "~": "~ counted by us",
    ">": "> reported so far, then silence",
    "?": "? bounded or assumed",
}
"""What the marks before a number mean."""

NOTHING = "-"
"""What people read where a cell is empty."""

Plain = str | int | Decimal | None
"""What machines get."""


def mark_of(cell: Cell) -> str:
    """The mark of a number that the provider did not report, else nothing."""
    return _MARKS[cell.basis] if isinstance(cell, Span) and cell.basis is not None else ""


def shown(cell: Cell, kind: Kind, digits: int = 6) -> str:
    """A cell for people; `digits` after the point of an amount."""
    if cell is None:
        return NOTHING
    if isinstance(cell, str):
        return _printable(cell)
    if isinstance(cell, Span):
        return mark_of(cell) + shown(cell.best, kind, digits)
    if kind is Kind.USD:
        return _money(int(cell), digits)
    if kind is Kind.MOMENT:
        return f"{_moment(int(cell)):%Y-%m-%d %H:%M:%S}"
    if kind is Kind.SHARE:
        return _percent(Decimal(cell))
    return f"{cell:,}"


def interval_shown(cell: Cell, kind: Kind, digits: int = 6) -> str:
    """`low–high` where a cell has two ends, else nothing."""
    if not isinstance(cell, Span) or cell.low == cell.high:
        return ""
    return f"{shown(cell.low, kind, digits)}–{shown(cell.high, kind, digits)}"


def digits_for(cells: Iterable[Cell]) -> int:
    """Digits after the point for a column of amounts: one number for all, so that points align."""
    amounts = [abs(cell.best if isinstance(cell, Span) else cell) for cell in _numbers(cells)]
    largest = max(amounts, default=0)
    return 2 if largest >= 100 * NANO_PER_USD else 4 if largest >= NANO_PER_USD else 6


def plain_names(column: Column) -> tuple[str, ...]:
    """The machine-readable fields that a column becomes."""
    names = [column.name]
    if column.spread:
        names += [f"{column.name}_low", f"{column.name}_high"]
        if column.based:
            names.append(f"{column.name}_basis")
    return tuple(names)


def plain_values(cell: Cell, column: Column) -> tuple[Plain, ...]:
    """The values of these fields: exact numbers, USD as decimals, moments in ISO 8601, UTC."""
    if not column.spread:
        return (_plain(cell, column.kind),)
    if not isinstance(cell, Span):
        return (_plain(cell, column.kind), *[None] * (len(plain_names(column)) - 1))
    ends = [_plain(one, column.kind) for one in (cell.best, cell.low, cell.high)]
    if column.based:
        ends.append(cell.basis.name.lower() if cell.basis is not None else None)
    return tuple(ends)


def _plain(cell: Cell, kind: Kind) -> Plain:
    if isinstance(cell, Span):
        cell = cell.best
    if isinstance(cell, str):
        return cell if kind in (Kind.TEXT, Kind.ID) else None
    if cell is None or kind not in (Kind.USD, Kind.MOMENT):
        return cell
    if kind is Kind.USD:
        return usd(int(cell))
    return _moment(int(cell)).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _printable(text: str) -> str:
    """Names come from callers: none of them may move the cursor or colour the terminal."""
    return text if text.isprintable() else "".join(c if c.isprintable() else "?" for c in text)


def _numbers(cells: Iterable[Cell]) -> Iterator[int | Span]:
    return (cell for cell in cells if isinstance(cell, int | Span))


def _money(nano: int, digits: int) -> str:
    amount = usd(nano)
    sign, size = ("-", -amount) if amount < 0 else ("", amount)
    smallest = Decimal(1).scaleb(-digits)
    if 0 < size <= smallest / 2:  # it is something, and must not look like nothing
        return f"{sign}<${smallest:f}"
    return f"{sign}${size:,.{digits}f}"


def _percent(share: Decimal) -> str:
    """Never a rounded 0 % or 100 % for what is not none or all."""
    percent = share * 100
    if 0 < percent < 1:
        return "<1%"
    if 99 < percent < 100:
        return ">99%"
    return f"{percent:.0f}%"


def _moment(unix_ms: int) -> datetime:
    return datetime.fromtimestamp(unix_ms / 1000, UTC)
