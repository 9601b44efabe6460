"""How a call's cost adds up, from the price that its entry names."""

from __future__ import annotations

from lastchunk.ledger import CallRecord
from lastchunk.money import nano_usd
from lastchunk.pricing.book import PriceBook
from lastchunk.pricing.cost import Costing, costing
from lastchunk.pricing.price import Price
from lastchunk.reports.table import Cell, Column, Kind, Table
from lastchunk.reports.words import PARTS
from lastchunk.settlement.settle import find_price
from lastchunk.usage import Usage

_FOUND_BY = {
    "own": "from your own price file",
    "upstream": "chosen by the host that was called",
    "model": "chosen by the model's name: the host that was called is none we know a price list of",
}


def cost_table(record: CallRecord, book: PriceBook) -> Table:
    """The lines of the best guess. Where the price is no longer at hand, the recorded sum alone."""
    columns = (
        Column("part", "part"),
        Column("count", "count", Kind.NUMBER),
        Column("usd_per_mtok", "USD per million"),
        Column("amount_usd", "amount", Kind.USD),
    )
    cost = record.standing.cost
    price, result = _recomputed(record, book)
    rows: tuple[tuple[Cell, ...], ...] = ()
    if result is not None:
        rows = tuple(
            (PARTS[line.part], line.count, f"{line.rate.normalize():f}", nano_usd(line.amount_usd))
            for line in result.lines
        )
    elif cost is not None and not _nothing_used(record):
        rows = (("as recorded", None, None, cost.best),)
    return Table(
        name="cost",
        title="How the cost adds up",
        columns=columns,
        rows=rows,
        totals=("sum", None, None, cost.best) if rows and cost is not None else None,
        notes=_notes(record, price, result),
        empty=_no_cost(record),
    )


def recorded_price_id(record: CallRecord) -> str | None:
    """The identity of the price behind the cost as it stands."""
    named = [entry.price_id for entry in record.entries if entry.price_id is not None]
    return named[-1] if named else None


def _recomputed(record: CallRecord, book: PriceBook) -> tuple[Price | None, Costing | None]:
    """The price as it is today, and the cost by it if that is what the ledger says."""
    settlement = record.settlement
    if settlement is None:
        return None, None
    price = find_price(record.call, settlement.observation, book)
    if price is None or price.price_id != recorded_price_id(record):
        return price, None
    usage = settlement.usage
    for correction in record.corrections:
        usage = correction.usage or usage
    result = costing(usage, price)
    return price, result if result.cost == record.standing.cost else None


def _nothing_used(record: CallRecord) -> bool:
    return record.settlement is not None and record.settlement.nothing_used


def _no_cost(record: CallRecord) -> str:
    if record.is_open:
        return "Nothing yet: the call is under way."
    if _nothing_used(record):
        return "Nothing was used: $0."
    return (
        f"Unpriced: no price is known for {record.call.request.model} at"
        f" {record.call.request.upstream}. It counts in no sum. Write a price for it into the file"
        " that LASTCHUNK_PRICES names; new calls will have it."
    )


def _notes(record: CallRecord, price: Price | None, result: Costing | None) -> tuple[str, ...]:
    recorded = recorded_price_id(record)
    if recorded is None:
        return ()
    notes = [f"Price: {recorded}"]
    if price is not None and price.price_id == recorded:
        notes[0] += f", {_FOUND_BY[price.matched_by]}."
    if result is not None:
        cost = result.cost
        if cost.low < cost.high:
            notes.append(_interval_note(record.settlement.usage if record.settlement else None))
        return tuple(notes)
    if price is not None and price.price_id == recorded:
        notes.append("The recorded cost is not tokens times this price: it was corrected since.")
    else:
        today = price.price_id if price is not None else "no price at all"
        notes.append(
            f"The price list here has {today} now, so the lines cannot be shown; the recorded"
            " cost stands."
        )
    return tuple(notes)


def _interval_note(usage: Usage | None) -> str:
    unknown = usage is not None and usage.input_cached_tokens is None
    share = " How much of the input was cached is not known either." if unknown else ""
    return f"The amounts are of the best guess; the interval is of the tokens above.{share}"
