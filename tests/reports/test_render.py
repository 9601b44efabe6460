"""Tables on screens, in pipes and in files: nothing is lost, and all say the same."""

import csv
import io
import json
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as some
from rich.cells import cell_len

from lastchunk.reports.cells import shown
from lastchunk.reports.render import as_csv, as_json, as_text
from lastchunk.reports.table import Cell, Column, Kind, Span, Table
from lastchunk.usage import Basis

ID = "call_01jd3xabcdefghjkmnpqrstvwx"

COLUMNS = (
    Column("call_id", "call", Kind.ID, below=1, plain=True),
    Column("opened_at", "time (UTC)", Kind.MOMENT),
    Column("ending", "ending"),
    Column("model", "model"),
    Column("output_tokens", "out", Kind.TOKENS, spread=True, based=True),
    Column("cost_usd", "cost", Kind.USD, spread=True),
    Column("account", "account", below=1, plain=True),
    Column("retries", "retries", Kind.NUMBER, below=1),
    Column("price_id", "price", Kind.ID, shown=False),
)
ROWS: tuple[tuple[Cell, ...], ...] = (
    (
        ID,
        1_793_872_800_123,
        "completed",
        "gpt-4o-mini-2024-07-18",
        Span(60, 60, 60, Basis.REPORTED),
        Span(1_240_000, 1_240_000, 1_240_000),
        "team/ann",
        0,
        "p#1",
    ),
    (
        ID.replace("j", "k"),
        1_793_872_860_000,
        "upstream_timeout",
        "gpt-5",
        Span(55, 60, 16_384, Basis.COUNTED),
        Span(1, 3, 131_400_000, Basis.COUNTED),
        "a/very/long/account/" + "x" * 40,
        2,
        None,
    ),
    (
        ID.replace("j", "m"),
        1_793_872_870_000,
        "open",
        "llama",
        None,
        "unpriced",
        "größe 中文",
        None,
        None,
    ),
)
TOTALS = (
    None,
    "these",
    None,
    None,
    None,
    Span(1_240_001, 1_240_003, 132_640_000),
    None,
    None,
    None,
)
TABLE = Table("calls", "Calls", COLUMNS, ROWS, TOTALS, notes=("a note " * 30,))


def text(table: Table = TABLE, width: int | None = 80) -> str:
    return as_text([table], width).plain


def squeezed(written: str) -> str:
    return "".join(written.split())


def test_it_fits_into_80_columns() -> None:
    assert max(cell_len(line) for line in text().splitlines()) <= 80


@given(some.integers(1, 250) | some.none())
def test_no_width_cuts_off_an_id_or_a_word(width: int | None) -> None:
    written = text(width=width)
    for row in ROWS:
        assert any(str(row[0]) in line for line in written.splitlines())
    assert "a/very/long/account/" + "x" * 40 in squeezed(written)
    assert "$0.131400" in written


def test_a_pipe_has_one_line_a_row_and_all_columns() -> None:
    lines = text(width=None).splitlines()
    assert [line.split()[0] for line in lines[2:5]] == [row[0] for row in ROWS]
    assert "account" in lines[1]


def test_what_is_for_machines_only_is_not_shown() -> None:
    assert "p#1" not in text()
    assert "p#1" in as_json([TABLE])


def test_numbers_that_were_not_reported_are_marked_and_the_marks_explained() -> None:
    written = text()
    assert "~60" in written
    assert "55–16,384" in written
    assert "~ counted by us" in written
    assert "? bounded" not in written


def test_zeros_below_a_row_are_not_said() -> None:
    assert "retries 2" in text()
    assert "retries 0" not in text()


def test_numbers_stand_under_each_other() -> None:
    header, *rows = text(width=None).splitlines()[1:5]
    assert {header.index("cost") + 4} == {
        line.index(cost) + len(cost)
        for line, cost in zip(rows, ("$0.001240", "<$0.000001", "unpriced"), strict=True)
    }


def test_an_empty_table_says_what_to_do() -> None:
    empty = Table("calls", "", COLUMNS, (), empty="Make a call first.")
    assert text(empty) == "Make a call first."
    assert json.loads(as_json([empty])) == {"calls": {"rows": [], "totals": None}}
    assert as_csv(empty).count("\n") == 1


def test_a_vertical_table_is_a_list_without_the_empty_cells() -> None:
    lines = text(Table("call", "", COLUMNS, ROWS[2:], vertical=True)).splitlines()
    assert lines[0] == f"call        {ROWS[2][0]}"
    assert [line.split()[0] for line in lines] == [
        "call",
        "time",
        "ending",
        "model",
        "cost",
        "account",
    ]


def test_json_and_csv_have_the_same_exact_numbers() -> None:
    # parse_float: the digits as they stand, not as a float has them
    rows = json.loads(as_json([TABLE]), parse_float=Decimal)["calls"]["rows"]
    read = list(csv.DictReader(io.StringIO(as_csv(TABLE))))
    assert [list(row) for row in rows] == [list(row) for row in read]
    for row, other in zip(rows, read, strict=True):
        for name, value in row.items():
            written = f"{value:f}" if isinstance(value, Decimal) else str(value)
            assert other[name] == ("" if value is None else written)
    assert read[1]["cost_usd"] == "0.000000003"
    assert read[1]["output_tokens_basis"] == "counted"
    assert read[0]["opened_at"] == "2026-11-05T10:00:00.123Z"


def test_a_word_for_a_missing_number_is_empty_for_machines() -> None:
    row = json.loads(as_json([TABLE]))["calls"]["rows"][2]
    assert (row["cost_usd"], row["cost_usd_low"], row["output_tokens_basis"]) == (None, None, None)


def test_csv_has_no_line_of_totals() -> None:
    assert len(as_csv(TABLE).splitlines()) == 1 + len(ROWS)


@pytest.mark.parametrize("name", ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1"])
def test_a_name_cannot_become_a_formula_in_a_spreadsheet(name: str) -> None:
    table = Table("t", "", (Column("model", "model"),), ((name,),))
    assert list(csv.reader(io.StringIO(as_csv(table))))[1] == [f"'{name}"]


def test_a_name_cannot_move_the_cursor_or_break_a_line() -> None:
    table = Table("t", "", (Column("model", "model"),), (("\x1b[31mred\nnext\u202e",),))
    assert text(table) == "model\n?[31mred?next?"


@pytest.mark.parametrize(
    ("cell", "kind", "digits", "expected"),
    [
        (None, Kind.USD, 6, "-"),
        (0, Kind.USD, 6, "$0.000000"),
        (400, Kind.USD, 6, "<$0.000001"),
        (500, Kind.USD, 6, "<$0.000001"),
        (501, Kind.USD, 6, "$0.000001"),
        (-400, Kind.USD, 6, "-<$0.000001"),
        (-1_500_000_000, Kind.USD, 4, "-$1.5000"),
        (1_234_567_890_123, Kind.USD, 2, "$1,234.57"),
        (1_234_567, Kind.TOKENS, 6, "1,234,567"),
        (Decimal("0"), Kind.SHARE, 6, "0%"),
        (Decimal("0.0001"), Kind.SHARE, 6, "<1%"),
        (Decimal("0.9999"), Kind.SHARE, 6, ">99%"),
        (Decimal("1"), Kind.SHARE, 6, "100%"),
        (Span(0, 5, 9, Basis.ASSUMED), Kind.TOKENS, 6, "?5"),
        (Span(5, 5, 9, Basis.REPORTED_SO_FAR), Kind.TOKENS, 6, ">5"),
        (Span(5, 5, 5, Basis.STATED), Kind.TOKENS, 6, "5"),
    ],
)
def test_how_a_cell_is_shown(cell: Cell, kind: Kind, digits: int, expected: str) -> None:
    assert shown(cell, kind, digits) == expected
