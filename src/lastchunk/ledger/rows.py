"""Entries as rows of the table and back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lastchunk.ledger.entries import TOKEN_KINDS, Entry, EntryKind, Tokens, TokenSpan
from lastchunk.pricing.cost import Cost
from lastchunk.usage import Basis

Row = Mapping[Any, Any]
"""A row of the entries table by column name."""


RESERVATION_COLUMNS = (
    "call_id",
    "attempt_of",
    "kind",
    "account",
    "way",
    "dialect",
    "model",
    "upstream",
    "held_nano",
    "opened_ms",
    "occurred_ms",
    "recorded_ms",
    "process_id",
    "detail",
    "content_hash",
)
"""The columns of a reservation: the others stay NULL."""

COLUMNS = (
    *RESERVATION_COLUMNS,
    "model_served",
    "response_id",
    "ending",
    "basis",
    "cost_low_nano",
    "cost_best_nano",
    "cost_high_nano",
    "charge_nano",
    "price_id",
    "reason",
    "correction_id",
    *(f"{kind}_{part}" for kind in TOKEN_KINDS for part in ("low", "best", "high", "basis")),
)
"""All columns but `seq`, which the database gives."""


def reservation_row(entry: Entry, recorded_ms: int) -> tuple[Any, ...]:
    """The values of `RESERVATION_COLUMNS`."""
    return (
        entry.call_id,
        entry.attempt_of,
        entry.kind.value,
        entry.account,
        entry.way,
        entry.dialect,
        entry.model,
        entry.upstream,
        entry.held_nano,
        entry.opened_ms,
        entry.occurred_ms,
        recorded_ms,
        entry.process_id,
        entry.detail,
        entry.content_hash,
    )


def row_of(entry: Entry, recorded_ms: int) -> tuple[Any, ...]:
    """The values of `COLUMNS`."""
    tokens, cost = entry.tokens, entry.cost
    return (
        *reservation_row(entry, recorded_ms),
        entry.model_served,
        entry.response_id,
        entry.ending,
        None if entry.basis is None else int(entry.basis),
        *((None, None, None) if cost is None else (cost.low, cost.best, cost.high)),
        entry.charge_nano,
        entry.price_id,
        entry.reason,
        entry.correction_id,
        *_span_values(tokens.input),
        *_span_values(tokens.cached),
        *_span_values(tokens.output),
        *_span_values(tokens.reasoning),
    )


def entry_of(row: Row) -> Entry:
    """The entry that a row holds."""
    return Entry(
        call_id=row["call_id"],
        attempt_of=row["attempt_of"],
        kind=EntryKind(row["kind"]),
        account=row["account"],
        way=row["way"],
        dialect=row["dialect"],
        model=row["model"],
        upstream=row["upstream"],
        opened_ms=row["opened_ms"],
        occurred_ms=row["occurred_ms"],
        process_id=row["process_id"],
        detail=row["detail"],
        content_hash=row["content_hash"],
        held_nano=row["held_nano"],
        model_served=row["model_served"],
        response_id=row["response_id"],
        ending=row["ending"],
        basis=None if row["basis"] is None else Basis(row["basis"]),
        tokens=Tokens(
            input=_span_of(row, "input"),
            cached=_span_of(row, "cached"),
            output=_span_of(row, "output"),
            reasoning=_span_of(row, "reasoning"),
        ),
        cost=_cost_of(row),
        charge_nano=row["charge_nano"],
        price_id=row["price_id"],
        reason=row["reason"],
        correction_id=row["correction_id"],
        seq=row["seq"],
        recorded_ms=row["recorded_ms"],
    )


def _span_values(span: TokenSpan | None) -> tuple[int | None, ...]:
    if span is None:
        return (None, None, None, None)
    return (span.low, span.best, span.high, int(span.basis))


def _span_of(row: Row, name: str) -> TokenSpan | None:
    low = row[f"{name}_low"]
    if low is None:
        return None
    return TokenSpan(low, row[f"{name}_best"], row[f"{name}_high"], Basis(row[f"{name}_basis"]))


def _cost_of(row: Row) -> Cost | None:
    low = row["cost_low_nano"]
    return None if low is None else Cost(low, row["cost_best_nano"], row["cost_high_nano"])
