"""What was done when one call's caller left, why, and what it came to."""

from __future__ import annotations

from lastchunk.ledger import CallRecord
from lastchunk.meter.observation import Observation
from lastchunk.pricing.cost import Cost
from lastchunk.reports.table import Cell, Column, Kind, Span, Table
from lastchunk.reports.words import AFTER_CANCEL, done_in_words, why_in_words
from lastchunk.usage import Quantity


def departure_table(record: CallRecord, seen: Observation | None) -> Table | None:
    """None where nobody left while output could still come."""
    departure = seen.departure if seen is not None else None
    if departure is None:
        return None
    cost = record.settlement.departure if record.settlement is not None else None
    given = departure.delivered
    cells: list[tuple[Column, Cell]] = [
        (Column("done", "done"), done_in_words(departure)),
        (Column("why", "why"), why_in_words(departure)),
        (Column("provider_after_cancel", "after a cancel"), AFTER_CANCEL[record.call.after_cancel]),
        (Column("delivered_tokens", "delivered", Kind.TOKENS), given.total if given else None),
        (_tokens("expected_rest_tokens", "could still come"), _span(departure.rest)),
    ]
    if cost is not None:
        cells += [
            (_tokens("undelivered_tokens", "never delivered"), _span(cost.undelivered)),
            (_money("undelivered_usd", "cost of that"), _amount(cost.undelivered_cost)),
            (_money("drain_usd", "cost of draining"), _amount(cost.drain_cost)),
            (_tokens("saved_tokens", "not generated"), _span(cost.saved)),
            (_money("saved_usd", "saved"), _amount(cost.saved_cost)),
        ]
    return Table(
        name="departure",
        title="When the caller left",
        columns=tuple(column for column, _ in cells),
        rows=(tuple(cell for _, cell in cells),),
        vertical=True,
    )


def _tokens(name: str, title: str) -> Column:
    return Column(name, title, Kind.TOKENS, spread=True)


def _money(name: str, title: str) -> Column:
    return Column(name, title, Kind.USD, spread=True)


def _span(quantity: Quantity | None) -> Cell:
    if quantity is None:
        return None
    return Span(quantity.low, quantity.best, quantity.high, quantity.basis)


def _amount(cost: Cost | None) -> Cell:
    return None if cost is None else Span(cost.low, cost.best, cost.high)
