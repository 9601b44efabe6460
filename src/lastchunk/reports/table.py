"""A table of facts, before anybody decides how it looks: what every report is made of."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum

from lastchunk.usage import Basis


class Kind(StrEnum):
    """What a column holds, and in which unit."""

    TEXT = "text"
    """A `str`."""
    ID = "id"
    """A `str` to copy: never broken or shortened."""
    NUMBER = "number"
    """An `int`: how many."""
    TOKENS = "tokens"
    """An `int` or a `Span` of tokens."""
    USD = "usd"
    """An `int` or a `Span` of nano-dollars; shown and written out in USD."""
    MOMENT = "moment"
    """An `int`: Unix milliseconds; shown and written out in UTC."""
    SHARE = "share"
    """A `Decimal` from 0 to 1."""


@dataclass(frozen=True, slots=True)
class Span:
    """A number with its interval, and how it is known (`basis` None: it is a sum of several)."""

    low: int
    best: int
    high: int
    basis: Basis | None = None


Cell = str | int | Decimal | Span | None
"""None: there is none, or nobody knows. A `str` in a column of numbers is a word that stands for a
missing number (`unpriced`, `open`): people see it, machines get an empty cell."""


@dataclass(frozen=True, slots=True)
class Column:
    """`name` is for machines and never changes, `title` for people.

    `spread` columns hold `Span`s: machines get the low and the high end beside the best guess, and
    the basis where it is `based` on one. Columns with a `below` move under their row where the
    screen is too narrow, the 1s first and then the 2s, with their title unless `plain`. Columns
    that are not `shown` are for machines only.
    """

    name: str
    title: str
    kind: Kind = Kind.TEXT
    spread: bool = False
    based: bool = False
    below: int = 0
    plain: bool = False
    shown: bool = True


@dataclass(frozen=True, slots=True)
class Table:
    """Rows of cells under columns. `totals` has a cell for each column, None where none adds up.

    `name` is the table's key in JSON; `empty` is what people read where there are no rows; `notes`
    stand under the table, for people only. A `vertical` table lists the cells of each row.
    """

    name: str
    title: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, ...], ...]
    totals: tuple[Cell, ...] | None = None
    notes: tuple[str, ...] = ()
    empty: str = "nothing"
    vertical: bool = False

    def __post_init__(self) -> None:
        for row in (*self.rows, *([self.totals] if self.totals is not None else [])):
            assert len(row) == len(self.columns), f"{self.name}: {row}"
