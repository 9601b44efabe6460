"""What another table of charges would have charged: a dry run over calls that are settled."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from lastchunk.ledger import CallRecord
from lastchunk.ledger.entries import ADJUSTMENT
from lastchunk.pricing.book import PriceBook
from lastchunk.reports.explain import latest_usage
from lastchunk.reports.explain_cost import recorded_price_id
from lastchunk.reports.table import Cell, Column, Kind, Table
from lastchunk.settlement.charge import Accounted, ChargeRule, charge_by
from lastchunk.settlement.departed import departure_cost
from lastchunk.settlement.settle import find_price


@dataclass(frozen=True, slots=True)
class _Recharged:
    """One call under the other table, in nano-dollars; `would` None: it cannot be said."""

    cost: int
    charged: int
    would: int | None
    other_price: bool


@dataclass(slots=True)
class _Sums:
    calls: int = 0
    cost: int = 0
    charged: int = 0
    would: int = 0
    unknown: int = 0
    other_prices: int = 0

    def add(self, one: _Recharged) -> None:
        self.calls += 1
        self.cost += one.cost
        if one.would is None:
            self.unknown += 1
            return
        self.charged += one.charged
        self.would += one.would
        self.other_prices += one.other_price

    def cells(self, account: str) -> tuple[Cell, ...]:
        change = self.would - self.charged
        return (account, self.calls, self.cost, self.charged, self.would, change, self.unknown)


def recharged_table(
    records: Iterable[CallRecord], rules: Sequence[ChargeRule], book: PriceBook, *, empty: str
) -> Table:
    """By account, the largest change first. Reads the records one by one and keeps none."""
    accounts: dict[str, _Sums] = {}
    whole = _Sums()
    for record in records:
        if (one := _recharged(record, rules, book)) is not None:
            accounts.setdefault(record.call.account, _Sums()).add(one)
            whole.add(one)
    ordered = sorted(
        accounts, key=lambda name: (-abs(accounts[name].would - accounts[name].charged), name)
    )
    return Table(
        name="charges",
        title="",
        columns=(
            Column("account", "account"),
            Column("calls", "calls", Kind.NUMBER),
            Column("cost_usd", "cost", Kind.USD),
            Column("charge_usd", "charged", Kind.USD),
            Column("would_charge_usd", "would charge", Kind.USD),
            Column("change_usd", "change", Kind.USD),
            Column("unknown_calls", "unknown", Kind.NUMBER, below=1, shown=whole.unknown > 0),
        ),
        rows=tuple(accounts[name].cells(name) for name in ordered),
        totals=whole.cells("total") if len(accounts) > 1 else None,
        notes=_notes(whole, rules) if accounts else (),
        empty=empty,
    )


def _notes(whole: _Sums, rules: Sequence[ChargeRule]) -> tuple[str, ...]:
    notes = ["Refunds and adjustments stay as they are. Nothing was written."]
    if not rules:
        notes.insert(0, "The file has no [[charges]]: everybody would be charged the cost.")
    if whole.unknown:
        notes.append(
            f"Unknown: {whole.unknown:,} calls that have no price now, or had none. They are in"
            " neither charge above."
        )
    if whole.other_prices:
        notes.append(
            f"{whole.other_prices:,} calls were priced by a list that is not at hand: what part of"
            " their cost is charged was worked out with the one that is."
        )
    return tuple(notes)


def _recharged(
    record: CallRecord, rules: Sequence[ChargeRule], book: PriceBook
) -> _Recharged | None:
    """None for calls that are open or used nothing."""
    settlement, usage, standing = record.settlement, latest_usage(record), record.standing
    if settlement is None or usage is None or not standing.used:
        return None
    call, seen = record.call, settlement.observation
    adjusted = sum(
        entry.charge_nano or 0
        for entry in record.entries
        if entry.correction_id is not None and entry.correction_id.startswith(ADJUSTMENT)
    )
    price = find_price(call, seen, book)
    departure = departure_cost(call, seen, usage, price)
    of = Accounted(usage, standing.cost, price, departure)
    would = charge_by(rules, call.account, settlement.ending, seen, of).amount
    is_other = price is not None and price.price_id != recorded_price_id(record)
    return _Recharged(
        cost=standing.cost.best if standing.cost is not None else 0,
        charged=standing.charge_nano or 0,
        would=None if would is None else max(0, would + adjusted),
        other_price=is_other and would not in (None, 0),
    )
