"""Sums of money: complete, honest about what they rest on, and the same however they are cut."""

from decimal import Decimal

from lastchunk.ledger import SpendRow
from lastchunk.ledger.spend import TokenSum
from lastchunk.pricing import Cost
from lastchunk.reports.render import as_text
from lastchunk.reports.spend import added, spend_tables
from lastchunk.reports.table import Cell, Span, Table
from lastchunk.usage import Basis


def spend(
    *key: str | None,
    calls: int = 1,
    open_calls: int = 0,
    unpriced: int = 0,
    by_basis: tuple[tuple[Basis | None, Cost], ...] = (),
    charge: int | None = None,
) -> SpendRow:
    cost = Cost(*(sum(getattr(one, end) for _, one in by_basis) for end in ("low", "best", "high")))
    return SpendRow(
        key=key,
        calls=calls,
        open_calls=open_calls,
        held=open_calls * 1_000_000,
        input=TokenSum(100 * calls, 100 * calls, 100 * calls),
        cached=TokenSum(),
        output=TokenSum(10 * calls, 10 * calls, 10 * calls),
        reasoning=TokenSum(),
        cost=cost,
        charge=cost.best if charge is None else charge,
        cost_by_basis=by_basis,
        unpriced_calls=unpriced,
        unpriced_input=TokenSum(100 * unpriced, 100 * unpriced, 100 * unpriced),
        unpriced_output=TokenSum(10 * unpriced, 10 * unpriced, 10 * unpriced),
    )


EXACT = spend("gpt-4o", calls=3, by_basis=((Basis.REPORTED, Cost(6_000, 6_000, 6_000)),))
GUESSED = spend("gpt-5", by_basis=((Basis.COUNTED, Cost(1_000, 2_000, 5_000)),))
NOTHING_KNOWN = spend("llama", calls=2, unpriced=2)
UNDER_WAY = spend("gpt-5-mini", open_calls=1)
ALL = [NOTHING_KNOWN, GUESSED, UNDER_WAY, EXACT]


def cells(table: Table, name: str) -> list[Cell]:
    place = [column.name for column in table.columns].index(name)
    return [row[place] for row in (*table.rows, *([table.totals] if table.totals else []))]


def text(tables: list[Table]) -> str:
    return as_text(tables, 80).plain


def test_the_largest_comes_first_and_the_total_is_all_of_them() -> None:
    table, _ = spend_tables(ALL, ["model"], empty="")
    assert cells(table, "model") == ["gpt-4o", "gpt-5", "gpt-5-mini", "llama", "total"]
    assert cells(table, "calls") == [3, 1, 1, 2, 7]
    assert cells(table, "cost_usd")[-1] == Span(7_000, 8_000, 11_000)


def test_days_stay_in_order() -> None:
    one = spend("2026-11-01", by_basis=((Basis.REPORTED, Cost(1, 1, 1)),))
    two = spend("2026-11-02", by_basis=((Basis.REPORTED, Cost(2, 2, 2)),))
    table, _ = spend_tables([one, two], ["day"], empty="")
    assert cells(table, "day") == ["2026-11-01", "2026-11-02", "total"]


def test_calls_without_a_price_are_never_a_cost_of_zero() -> None:
    table, _ = spend_tables(ALL, ["model"], empty="")
    assert cells(table, "cost_usd")[3] == "unpriced"
    assert cells(table, "cost_usd")[2] == "open"


def test_unpriced_and_open_calls_are_told_under_the_table_and_in_the_certainty() -> None:
    written = " ".join(text(spend_tables(ALL, ["model"], empty="")).split())
    assert "Unpriced: 2 calls without a known price (200 tokens in, 20 out)" in written
    assert "Open: 1 call under way, for which $0.001000 are held" in written
    assert "unpriced 2 calls without a price" in written


def test_where_all_is_known_nothing_is_said_of_open_or_unpriced() -> None:
    written = text(spend_tables([EXACT], ["model"], empty=""))
    assert "npriced" not in written
    assert "pen" not in written


def test_the_shares_say_what_the_sum_rests_on() -> None:
    spent, certainty = spend_tables(ALL, ["model"], empty="")
    assert cells(spent, "reported") == [1, 0, None, None, Decimal("0.75")]
    assert cells(certainty, "basis") == ["reported", "counted", "unpriced"]
    assert cells(certainty, "share") == [Decimal("0.75"), Decimal("0.25"), None]


def test_the_bases_of_each_row_add_up_to_its_cost() -> None:
    table, _ = spend_tables(ALL, ["model"], empty="")
    names = [column.name for column in table.columns]
    split = [
        place for place, name in enumerate(names) if name.startswith("cost_") and name != "cost_usd"
    ]
    for row, cost in zip((*table.rows, table.totals or ()), cells(table, "cost_usd"), strict=True):
        amount = cost.best if isinstance(cost, Span) else 0
        assert sum(value for place in split if isinstance(value := row[place], int)) == amount
    assert len(split) == len(Basis) + 1


def test_a_charge_is_shown_where_it_is_not_the_cost() -> None:
    other = spend("m", by_basis=((Basis.REPORTED, Cost(9, 9, 9)),), charge=2_000_000)
    written = text(spend_tables([other], ["model"], empty=""))
    assert "charge" in written
    assert "$0.002000" in written
    assert "charge" not in text(spend_tables([EXACT], ["model"], empty=""))


def test_without_groups_the_total_is_the_only_row() -> None:
    table, _ = spend_tables([spend(calls=2)], [], empty="")
    assert len(table.rows) == 1
    assert cells(table, "calls") == [2, 2]


def test_a_missing_tag_and_a_missing_ending_have_names() -> None:
    table, _ = spend_tables([spend(None, None, open_calls=1)], ["tag:team", "ending"], empty="")
    assert table.rows[0][:2] == ("(none)", "open")
    assert [column.name for column in table.columns[:2]] == ["tag_team", "ending"]


def test_sums_beyond_64_bits_are_exact() -> None:
    huge = Cost(2**62, 2**62, 2**62)
    whole = added([spend("a", by_basis=((Basis.REPORTED, huge),))] * 4)
    assert whole.cost.best == 2**64
    assert dict(whole.cost_by_basis) == {Basis.REPORTED: Cost(2**64, 2**64, 2**64)}
