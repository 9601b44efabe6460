"""Tables as text for people, and as JSON and CSV for machines: the same numbers in each."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from decimal import Decimal

import msgspec
from rich.cells import cell_len
from rich.text import Text

from lastchunk.reports.cells import (
    LEGEND,
    Plain,
    digits_for,
    interval_shown,
    mark_of,
    plain_names,
    plain_values,
    shown,
)
from lastchunk.reports.table import Cell, Column, Kind, Table

_GAP = "  "
_NARROWEST_TEXT = 10
"""A column of text is folded to no less than this; a narrower screen has to break the lines."""

_LEFT = frozenset({Kind.TEXT, Kind.ID, Kind.MOMENT})


def as_text(tables: Sequence[Table], width: int | None) -> Text:
    """All tables, one below the other. `width` is the screen's, None where there is none (a pipe).

    Nothing is ever cut off: what does not fit moves under its row, and long text is folded.
    """
    return Text("\n\n").join(Text("\n").join(_Layout(table, width).lines()) for table in tables)


def as_json(tables: Sequence[Table]) -> str:
    """One object: the tables by name, each with its rows and its totals. Amounts are exact."""
    document = {
        table.name: {
            "rows": [_record(table, row) for row in table.rows],
            "totals": None if table.totals is None else _record(table, table.totals),
        }
        for table in tables
    }
    encoded = msgspec.json.Encoder(decimal_format="number").encode(document)
    return msgspec.json.format(encoded, indent=2).decode()


def as_csv(table: Table) -> str:
    """The rows of one table under a line of names, without totals: they would be summed again."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow([name for column in table.columns for name in plain_names(column)])
    for row in table.rows:
        writer.writerow(["" if one is None else _unquoted(one) for one in _values(table, row)])
    return out.getvalue()


def _record(table: Table, row: tuple[Cell, ...]) -> dict[str, Plain]:
    names = [name for column in table.columns for name in plain_names(column)]
    return dict(zip(names, _values(table, row), strict=True))


def _values(table: Table, row: tuple[Cell, ...]) -> list[Plain]:
    pairs = zip(row, table.columns, strict=True)
    return [value for cell, column in pairs for value in plain_values(cell, column)]


def _unquoted(value: str | int | Decimal) -> str:
    """Decimals without an exponent. Text that a spreadsheet would run as a formula gets a `'`."""
    if isinstance(value, Decimal):
        return f"{value:f}"
    text = str(value)
    return f"'{text}" if isinstance(value, str) and text[:1] in "=+-@\t\r" and text else text


class _Layout:
    """One table on a screen of a certain width."""

    def __init__(self, table: Table, width: int | None) -> None:
        self._table = table
        self._width = width
        self._digits = {
            column.name: digits_for(row[place] for row in self._all_rows())
            for place, column in enumerate(table.columns)
            if column.kind is Kind.USD
        }
        every = range(len(table.columns))
        self._shown = [[self._cell(row, place) for place in every] for row in self._all_rows()]
        places = [place for place in every if table.columns[place].shown]
        self._places = places
        self._several_spread = sum(table.columns[place].spread for place in places) > 1
        self._main, self._below = places, list[int]()
        self._stacked = width is not None and self._natural_width() > width
        for level in (1, 2):
            if width is None or not self._stacked or (self._below and self._fits()):
                break
            self._below = [place for place in places if 0 < table.columns[place].below <= level]
            self._main = [place for place in places if place not in self._below]
        self._widths = self._fitted_widths()

    def lines(self) -> list[Text]:
        table = self._table
        lines = [Text(table.title, style="bold")] if table.title else []
        if not table.rows:
            return [*lines, *self._notes((table.empty, *table.notes))]
        lines += self._vertical() if table.vertical else self._horizontal()
        return [*lines, *self._notes((*self._legend(), *table.notes))]

    def _horizontal(self) -> list[Text]:
        table = self._table
        lines = self._joined([table.columns[place].title for place in self._main], "dim")
        for number in range(len(table.rows)):
            lines += self._row(number)
        if table.totals is not None:
            lines.append(Text("-" * self._line_width(), style="dim"))
            lines += self._row(len(table.rows), style="bold")
        return lines

    def _vertical(self) -> list[Text]:
        """Each cell on a line of its own, after its title; empty ones are left out."""
        table, lines = self._table, []
        edge = max(cell_len(table.columns[place].title) for place in self._places) + len(_GAP)
        for number, row in enumerate(table.rows):
            for place in self._places:
                column, cell = table.columns[place], self._shown[number][place]
                if row[place] is None:
                    continue
                digits = self._digits.get(column.name, 6)
                if interval := interval_shown(row[place], column.kind, digits):
                    cell += f"  ({interval})"
                room = None if self._width is None else self._width - edge
                for part, text in enumerate(_wrapped_words(cell, room)):
                    title = column.title if part == 0 else ""
                    lines.append(Text(title.ljust(edge), style="dim").append(text, style="none"))
        return lines

    def _all_rows(self) -> list[tuple[Cell, ...]]:
        totals = self._table.totals
        return [*self._table.rows, *([totals] if totals is not None else [])]

    def _cell(self, row: tuple[Cell, ...], place: int) -> str:
        column, is_total = self._table.columns[place], row is self._table.totals
        if row[place] is None and (is_total or column.below):
            return ""
        if row[place] == 0 and column.below:  # what is not there need not be said
            return ""
        return shown(row[place], column.kind, self._digits.get(column.name, 6))

    def _fits(self) -> bool:
        widths = {place: self._column_width(place) for place in self._main}
        return self._width is None or self._line_width(widths) <= self._width

    def _intervals(self, number: int) -> list[str]:
        """The two ends of the numbers that stay in the row; those below carry their own."""
        row = self._all_rows()[number]
        found = []
        for place in self._main:
            column, cell = self._table.columns[place], row[place]
            interval = interval_shown(cell, column.kind, self._digits.get(column.name, 6))
            if interval:
                found.append(f"{column.title} {interval}" if self._several_spread else interval)
        return found

    def _natural_width(self) -> int:
        """The width of the table with everything on one line a row."""
        places = self._places
        intervals = (_GAP.join(["", *self._intervals(row)]) for row in range(len(self._shown)))
        columns = sum(self._column_width(place) for place in places) + len(_GAP) * (len(places) - 1)
        return columns + max(map(cell_len, intervals), default=0)

    def _column_width(self, place: int) -> int:
        title = cell_len(self._table.columns[place].title)
        return max([title, *(cell_len(row[place]) for row in self._shown)])

    def _fitted_widths(self) -> dict[int, int]:
        """Natural widths, with the widest texts folded until the line fits."""
        widths = {place: self._column_width(place) for place in self._main}
        texts = [place for place in self._main if self._table.columns[place].kind is Kind.TEXT]
        while self._width is not None and self._line_width(widths) > self._width:
            widest = max(texts, key=lambda place: widths[place], default=None)
            if widest is None or widths[widest] <= _NARROWEST_TEXT:
                break
            widths[widest] -= 1
        return widths

    def _line_width(self, widths: dict[int, int] | None = None) -> int:
        each = self._widths if widths is None else widths
        return sum(each.values()) + len(_GAP) * (len(each) - 1)

    def _row(self, number: int, style: str = "") -> list[Text]:
        cells = self._shown[number]
        pieces = [self._piece(number, place) for place in self._below if cells[place]]
        pieces += self._intervals(number)
        lines = self._joined([cells[place] for place in self._main], style)
        if self._stacked:
            return [*lines, *self._wrapped(pieces)]
        lines[-1].append("".join(_GAP + piece for piece in pieces), style="dim")
        return lines

    def _piece(self, number: int, place: int) -> str:
        """A cell under its row, with its title and its interval."""
        column, text = self._table.columns[place], self._shown[number][place]
        digits = self._digits.get(column.name, 6)
        if interval := interval_shown(self._all_rows()[number][place], column.kind, digits):
            text += f" ({interval})"
        return text if column.plain else f"{column.title} {text}"

    def _wrapped(self, pieces: list[str]) -> list[Text]:
        """Pieces under a row, as many a line as fit."""
        lines: list[str] = []
        for piece in pieces:
            longer = lines[-1] + _GAP + piece if lines else ""
            if lines and self._width is not None and cell_len(longer) <= self._width:
                lines[-1] = longer
            else:
                lines.append(_GAP + piece)
        return [Text(line, style="dim") for line in lines]

    def _joined(self, cells: list[str], style: str) -> list[Text]:
        """One row: as many lines as its most folded cell has."""
        folded = [
            _folded(cell, self._widths[place])
            for cell, place in zip(cells, self._main, strict=True)
        ]
        lines = []
        for number in range(max(map(len, folded), default=0)):
            parts = [
                _aligned(cell[number] if number < len(cell) else "", self._widths[place], column)
                for cell, place in zip(folded, self._main, strict=True)
                for column in (self._table.columns[place],)
            ]
            lines.append(Text(_GAP.join(parts).rstrip(), style=style))
        return lines

    def _legend(self) -> tuple[str, ...]:
        marks = {mark_of(row[place]) for row in self._all_rows() for place in self._places}
        told = [meaning for mark, meaning in LEGEND.items() if mark in marks]
        return (_GAP.join(told),) if told else ()

    def _notes(self, notes: tuple[str, ...]) -> list[Text]:
        return [Text(line) for note in notes for line in _wrapped_words(note, self._width)]


def _aligned(cell: str, width: int, column: Column) -> str:
    padding = " " * (width - cell_len(cell))
    return cell + padding if column.kind in _LEFT else padding + cell


def _folded(cell: str, width: int) -> list[str]:
    """The cell in pieces of this width, broken after a `/`, `-` or space where there is one."""
    lines = []
    while cell_len(cell) > width:
        cut = next((at for at in range(width, width // 2, -1) if cell[at - 1] in "/-_ "), width)
        lines.append(cell[:cut])
        cell = cell[cut:]
    return [*lines, cell]


def _wrapped_words(note: str, width: int | None) -> list[str]:
    lines = [""]
    for word in note.split(" "):
        if width and lines[-1] and cell_len(lines[-1]) + 1 + cell_len(word) > width:
            lines.append(word)
        else:
            lines[-1] = f"{lines[-1]} {word}" if lines[-1] else word
    return lines
