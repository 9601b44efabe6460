"""What was spent, by whatever it is asked, and what the sum rests on."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal

from lastchunk.ledger import SpendRow
from lastchunk.ledger.spend import TokenSum
from lastchunk.money import format_usd
from lastchunk.pricing.cost import Cost
from lastchunk.reports.calls import OPEN, UNPRICED
from lastchunk.reports.table import Cell, Column, Kind, Span, Table
from lastchunk.reports.words import BASES_IN_SHORT
from lastchunk.usage import Basis

_BY_BASIS: tuple[Basis | None, ...] = (*sorted(Basis, reverse=True), None)
"""Strongest first. None: calls of which nothing was used or nothing is known."""

_UNTAGGED = "(none)"


def spend_tables(rows: Sequence[SpendRow], group_by: Sequence[str], *, empty: str) -> list[Table]:
    """The spend by group, with the largest first (days in order), then what the sum rests on."""
    if not rows:
        return [Table("spend", "", _columns(group_by, rows), (), empty=empty)]
    ordered = rows if group_by[:1] == ["day"] else sorted(rows, key=_cost_first)
    whole = added(rows)
    table = Table(
        name="spend",
        title="",
        columns=_columns(group_by, rows),
        rows=tuple(_row(row, _key_cells(row.key, group_by)) for row in ordered),
        totals=_row(whole, tuple(["total", *[None] * (len(group_by) - 1)][: len(group_by)])),
        notes=_notes(whole),
        empty=empty,
    )
    return [table, certainty_table(whole)]


def certainty_table(whole: SpendRow) -> Table:
    """How much of the sum rests on which basis, the strongest first."""
    by_basis = dict(whole.cost_by_basis)
    rows: list[tuple[Cell, ...]] = [
        (_name(basis), BASES_IN_SHORT[basis], _money(cost), _share(cost.best, whole.cost.best))
        for basis in sorted(Basis, reverse=True)
        if (cost := by_basis.get(basis)) is not None
    ]
    if whole.unpriced_calls:
        rows.append((UNPRICED, f"{whole.unpriced_calls:,} calls without a price", UNPRICED, None))
    columns = (
        Column("basis", "basis"),
        Column("meaning", "meaning"),
        Column("cost_usd", "cost", Kind.USD, spread=True),
        Column("share", "share", Kind.SHARE),
    )
    return Table(
        name="certainty",
        title="What the sum rests on",
        columns=columns,
        rows=tuple(rows),
        empty="No call has been settled yet.",
    )


def added(rows: Sequence[SpendRow]) -> SpendRow:
    """The sum of all groups. Added here, not asked for again: calls go on while we read."""
    by_basis: dict[Basis | None, Cost] = {}
    for row in rows:
        for basis, cost in row.cost_by_basis:
            by_basis[basis] = _plus(by_basis.get(basis, Cost(0, 0, 0)), cost)
    cost = Cost(0, 0, 0)
    for row in rows:
        cost = _plus(cost, row.cost)
    return SpendRow(
        key=(),
        calls=sum(row.calls for row in rows),
        open_calls=sum(row.open_calls for row in rows),
        held=sum(row.held for row in rows),
        input=_token_sum([row.input for row in rows]),
        cached=_token_sum([row.cached for row in rows]),
        output=_token_sum([row.output for row in rows]),
        reasoning=_token_sum([row.reasoning for row in rows]),
        cost=cost,
        charge=sum(row.charge for row in rows),
        cost_by_basis=tuple(by_basis.items()),
        unpriced_calls=sum(row.unpriced_calls for row in rows),
        unpriced_input=_token_sum([row.unpriced_input for row in rows]),
        unpriced_output=_token_sum([row.unpriced_output for row in rows]),
        adjusted=sum(row.adjusted for row in rows),
    )


def _columns(group_by: Sequence[str], rows: Sequence[SpendRow]) -> tuple[Column, ...]:
    """All columns; those that are zero everywhere are for machines only."""
    opened = any(row.open_calls for row in rows)
    unpriced = any(row.unpriced_calls for row in rows)
    charged = any(row.charge != row.cost.best for row in rows)
    adjusted = any(row.adjusted for row in rows)
    return (
        *(Column(_field(group), group.removeprefix("tag:")) for group in group_by),
        Column("calls", "calls", Kind.NUMBER),
        Column("open_calls", "open", Kind.NUMBER, below=1, shown=opened),
        Column("unpriced_calls", "unpriced", Kind.NUMBER, below=1, shown=unpriced),
        Column("input_tokens", "tokens in", Kind.TOKENS, spread=True, below=2),
        Column("cached_tokens", "cached", Kind.TOKENS, spread=True, shown=False),
        Column("output_tokens", "tokens out", Kind.TOKENS, spread=True, below=2),
        Column("reasoning_tokens", "reasoning", Kind.TOKENS, spread=True, shown=False),
        Column("cost_usd", "cost", Kind.USD, spread=True),
        Column("reported", "reported", Kind.SHARE),
        Column("charge_usd", "charge", Kind.USD, below=1, shown=charged),
        Column("adjusted_usd", "adjusted", Kind.USD, below=1, shown=adjusted),
        Column("held_usd", "held", Kind.USD, below=1, shown=opened),
        Column("unpriced_input_tokens", "", Kind.TOKENS, shown=False),
        Column("unpriced_output_tokens", "", Kind.TOKENS, shown=False),
        *(Column(f"cost_{_name(basis)}_usd", "", Kind.USD, shown=False) for basis in _BY_BASIS),
    )


def _row(row: SpendRow, key: tuple[Cell, ...]) -> tuple[Cell, ...]:
    by_basis = dict(row.cost_by_basis)
    known = sum(cost.best for basis, cost in row.cost_by_basis if (basis or 0) >= Basis.REPORTED)
    return (
        *key,
        row.calls,
        row.open_calls,
        row.unpriced_calls,
        _tokens(row.input),
        _tokens(row.cached),
        _tokens(row.output),
        _tokens(row.reasoning),
        _cost_cell(row),
        _share(known, row.cost.best),
        row.charge,
        row.adjusted,
        row.held,
        row.unpriced_input.best,
        row.unpriced_output.best,
        *(by_basis.get(basis, Cost(0, 0, 0)).best for basis in _BY_BASIS),
    )


def _cost_cell(row: SpendRow) -> Cell:
    """A sum of nothing known is no zero."""
    if row.calls == row.open_calls:
        return OPEN
    return UNPRICED if row.calls == row.open_calls + row.unpriced_calls else _money(row.cost)


def _notes(whole: SpendRow) -> tuple[str, ...]:
    notes = []
    if whole.unpriced_calls:
        notes.append(
            f"Unpriced: {_calls(whole.unpriced_calls)} without a known price"
            f" ({whole.unpriced_input.best:,} tokens in, {whole.unpriced_output.best:,} out)."
            " They are in no amount above; give their models a price in LASTCHUNK_PRICES."
        )
    if whole.open_calls:
        notes.append(
            f"Open: {_calls(whole.open_calls)} under way, for which {format_usd(whole.held)} are"
            " held. They are in no amount above."
        )
    return tuple(notes)


def _calls(count: int) -> str:
    return f"{count:,} call" if count == 1 else f"{count:,} calls"


def _key_cells(key: tuple[str | None, ...], group_by: Sequence[str]) -> tuple[Cell, ...]:
    return tuple(
        part if part is not None else OPEN if group == "ending" else _UNTAGGED
        for part, group in zip(key, group_by, strict=True)
    )


def _field(group: str) -> str:
    return group.replace(":", "_")


def _name(basis: Basis | None) -> str:
    return "no_basis" if basis is None else basis.name.lower()


def _cost_first(row: SpendRow) -> tuple[int, tuple[str, ...]]:
    return -row.cost.best, tuple(part or "" for part in row.key)


def _share(part: int, whole: int) -> Decimal | None:
    return (Decimal(part) / whole).quantize(Decimal("0.000001")) if whole else None


def _money(cost: Cost) -> Span:
    return Span(cost.low, cost.best, cost.high)


def _tokens(tokens: TokenSum) -> Span:
    return Span(tokens.low, tokens.best, tokens.high)


def _token_sum(sums: Sequence[TokenSum]) -> TokenSum:
    return TokenSum(*(sum(getattr(one, end) for one in sums) for end in ("low", "best", "high")))


def _plus(one: Cost, other: Cost) -> Cost:
    return Cost(one.low + other.low, one.best + other.best, one.high + other.high)
