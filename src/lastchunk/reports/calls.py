"""Calls as a table: the newest first, each number with how it is known."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from lastchunk.ledger import CallRecord
from lastchunk.ledger.entries import Standing, TokenSpan
from lastchunk.reports.table import Cell, Column, Kind, Span, Table

OPEN = "open"
UNPRICED = "unpriced"

Row = tuple[Cell, ...]


def calls_table(records: Iterable[CallRecord], *, limit: int | None, empty: str) -> Table:
    """The calls in the given order, at most `limit` of them; a note says so if there are more."""
    rows: list[Row] = []
    costs: list[Span] = []
    more = False
    for record in records:
        if limit is not None and len(rows) == limit:
            more = True
            break
        standing = record.standing
        rows.append(_row(record, standing))
        if standing.cost is not None:
            costs.append(_cost_span(standing))
    columns = _columns(rows)
    totals = _totals(columns, rows, costs)
    notes = [_left_out(len(rows) - len(costs))] if totals is not None and rows[len(costs) :] else []
    notes += [f"There are more: the newest {limit} are shown; see --limit."] if more else []
    return Table(
        name="calls",
        title="",
        columns=columns,
        rows=tuple(rows),
        totals=totals,
        notes=tuple(notes),
        empty=empty,
    )


def token_cell(span: TokenSpan | None) -> Cell:
    """Tokens of one kind as they stand."""
    return None if span is None else Span(span.low, span.best, span.high, span.basis)


def cost_cell(record: CallRecord, standing: Standing) -> Cell:
    """What a call cost as it stands; a word where there is no amount."""
    if standing.cost is not None:
        return _cost_span(standing)
    return OPEN if record.is_open else UNPRICED


def _cost_span(standing: Standing) -> Span:
    cost = standing.cost
    assert cost is not None
    # The mark on an amount says that it is not final; an exact one needs none.
    return Span(cost.low, cost.best, cost.high, standing.basis if cost.low < cost.high else None)


def _columns(rows: list[Row]) -> tuple[Column, ...]:
    """All columns; those that say nothing about these calls are for machines only."""
    columns = (
        Column("call_id", "call", Kind.ID, below=1, plain=True),
        Column("opened_at", "time (UTC)", Kind.MOMENT),
        Column("ending", "ending"),
        Column("model", "model"),
        Column("model_served", "served", shown=False),
        Column("input_tokens", "in", Kind.TOKENS, spread=True, based=True),
        Column("cached_tokens", "cached", Kind.TOKENS, spread=True, based=True, shown=False),
        Column("output_tokens", "out", Kind.TOKENS, spread=True, based=True),
        Column("reasoning_tokens", "reasoning", Kind.TOKENS, spread=True, based=True, shown=False),
        Column("cost_usd", "cost", Kind.USD, spread=True),
        Column("charge_usd", "charge", Kind.USD, below=1, shown=_any_differs(rows)),
        Column("held_usd", "holds", Kind.USD, below=1),
        Column("account", "account", below=1, plain=True),
        Column("tags", "tags", below=1, plain=True),
        Column("attempt_of", "retry of", Kind.ID, below=1),
        Column("basis", "basis", shown=False),
        Column("price_id", "price", Kind.ID, shown=False),
        Column("response_id", "provider's id", Kind.ID, shown=False),
        Column("upstream", "upstream", shown=False),
        Column("way", "way", shown=False),
        Column("reasons", "reasons", shown=False),
    )
    return tuple(
        column if column.name not in _ONLY_WHERE_THEY_ARE or _any(rows, place) else _hidden(column)
        for place, column in enumerate(columns)
    )


_ONLY_WHERE_THEY_ARE = frozenset({"held_usd", "tags", "attempt_of"})


_COST, _CHARGE = 9, 10
"""Where these two stand in a row."""


def _any_differs(rows: list[Row]) -> bool:
    """Whether any call is charged other than at its cost."""
    costs = ((row[_COST], row[_CHARGE]) for row in rows)
    return any(isinstance(cost, Span) and cost.best != charge for cost, charge in costs)


def _any(rows: list[Row], place: int) -> bool:
    return any(row[place] is not None for row in rows)


def _hidden(column: Column) -> Column:
    return replace(column, shown=False)


def _row(record: CallRecord, standing: Standing) -> Row:
    call, settlement = record.call, record.settlement
    seen = settlement.observation if settlement is not None else record.seen
    prices = [entry.price_id for entry in record.entries if entry.price_id is not None]
    return (
        call.call_id,
        call.opened_ms,
        settlement.ending.value if settlement is not None else OPEN,
        call.request.model,
        seen.model_served if seen is not None else None,
        token_cell(standing.tokens.input),
        token_cell(standing.tokens.cached),
        token_cell(standing.tokens.output),
        token_cell(standing.tokens.reasoning),
        cost_cell(record, standing),
        standing.charge_nano,
        call.forecast.hold if record.is_open else None,
        call.account,
        " ".join(f"{key}={value}" for key, value in call.tags) or None,
        call.attempt_of,
        standing.basis.name.lower() if standing.basis is not None else None,
        prices[-1] if prices else None,
        seen.response_id if seen is not None else None,
        call.request.upstream,
        call.way,
        " ".join(settlement.reasons) or None if settlement is not None else None,
    )


def _totals(columns: tuple[Column, ...], rows: list[Row], costs: list[Span]) -> Row | None:
    """The sum of the amounts; tokens of several models are no sum of anything."""
    if len(rows) < 2 or not costs:
        return None
    whole = Span(
        sum(cost.low for cost in costs),
        sum(cost.best for cost in costs),
        sum(cost.high for cost in costs),
    )
    named: dict[str, Cell] = {"opened_at": f"these {len(rows)} calls", "cost_usd": whole}
    return tuple(named.get(column.name) for column in columns)


def _left_out(calls: int) -> str:
    """A sum must say what it leaves out."""
    counted = "1 call is" if calls == 1 else f"{calls} calls are"
    return f"{counted} not in the sum: open, or without a price."
