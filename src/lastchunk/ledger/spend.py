"""What was used and spent, by whatever it is asked: exact sums, each with how it is known."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sa

from lastchunk.clock import day_of
from lastchunk.errors import LedgerError
from lastchunk.ledger.calls import (
    SUMMED,
    CallFilter,
    adjusted,
    basis,
    conditions,
    is_open,
    is_unpriced,
    joined,
    reserved,
    resolved,
    total,
)
from lastchunk.ledger.entries import storable
from lastchunk.ledger.tables import tags
from lastchunk.pricing.cost import Cost
from lastchunk.usage import Basis

DAY_MS = 86_400_000

GROUPS = ("account", "model", "day", "ending", "dialect", "way", "tag:KEY")
"""What can be grouped by."""

_SPLIT = 1_000_000_000
"""Sums are made of quotients and remainders by this: SQLite's SUM refuses to pass 64 bits."""


@dataclass(frozen=True, slots=True)
class TokenSum:
    """Tokens of one kind over many calls."""

    low: int = 0
    best: int = 0
    high: int = 0


@dataclass(frozen=True, slots=True)
class SpendRow:
    """One group of calls. Money is in nano-dollars; corrections are included.

    `key` has one value for each thing grouped by: a day is `YYYY-MM-DD` (UTC, of the opening), None
    is an open call's ending, or a call without that tag. Open calls count only in `calls`,
    `open_calls` and `held`; unpriced ones add nothing to `cost`, and their tokens, which are in the
    sums too, stand apart once more. `cost_by_basis` says how much of `cost` rests on which basis,
    weakest first (None: known to no basis).
    """

    key: tuple[str | None, ...]
    calls: int
    open_calls: int
    held: int
    input: TokenSum
    cached: TokenSum
    output: TokenSum
    reasoning: TokenSum
    cost: Cost
    charge: int
    cost_by_basis: tuple[tuple[Basis | None, Cost], ...]
    unpriced_calls: int
    unpriced_input: TokenSum
    unpriced_output: TokenSum
    adjusted: int = 0
    """How much of `charge` is the operator's refunds (negative) and adjustments."""


def read_spend(
    connection: sa.Connection, group_by: Sequence[str], wanted: CallFilter
) -> list[SpendRow]:
    """The groups, sorted by key. One pass over the calls that are wanted."""
    keys = [_key(group).label(f"key_{number}") for number, group in enumerate(group_by)]
    open_, unpriced = sa.case((is_open, 1), else_=0), sa.case((is_unpriced, 1), else_=0)
    parts: list[sa.ColumnElement[Any]] = []
    for name in SUMMED:
        parts += split_sum(name, total(name))
    parts += split_sum("adjusted", adjusted)
    parts += split_sum("held", sa.case((is_open, reserved.c.held_nano), else_=0))
    query = (
        sa.select(
            *keys,
            basis.label("basis"),
            unpriced.label("unpriced"),
            sa.func.count().label("calls"),
            sa.func.sum(open_).label("open_calls"),
            *parts,
        )
        .select_from(joined)
        .where(*conditions(wanted))
        .group_by(*keys, basis, unpriced)
    )
    groups: dict[tuple[str | None, ...], _Group] = {}
    for row in connection.execute(query).mappings():
        key = tuple(_shown(group, row[f"key_{number}"]) for number, group in enumerate(group_by))
        groups.setdefault(key, _Group()).add(row)
    ordered = sorted(groups, key=lambda key: tuple((part is not None, part or "") for part in key))
    return [groups[key].row(key) for key in ordered]


def _key(group: str) -> sa.ColumnElement[Any]:
    if group == "day":
        return reserved.c.opened_ms // DAY_MS
    if group == "ending":
        return resolved.c.ending
    if group in ("account", "model", "dialect", "way"):
        return reserved.c[group]
    if group.startswith("tag:") and group != "tag:":
        # The first value, should a call have several: it counts once.
        return (
            sa.select(sa.func.min(tags.c.value))
            .where(tags.c.call_id == reserved.c.call_id, tags.c.key == storable(group[4:]))
            .scalar_subquery()
        )
    raise LedgerError(f"cannot group by {group!r}: choose from {', '.join(GROUPS)}")


def _shown(group: str, value: Any) -> str | None:
    if group == "day":
        return day_of(value * DAY_MS)
    return None if value is None else str(value)


def split_sum(name: str, value: sa.ColumnElement[Any]) -> list[sa.ColumnElement[Any]]:
    """The sum of a column as two, which `whole_sum` puts together again."""
    return [
        sa.func.sum(value // _SPLIT).label(f"{name}_thick"),
        sa.func.sum(value % _SPLIT).label(f"{name}_thin"),
    ]


def whole_sum(row: Any, name: str) -> int:
    """A sum that was asked for with `split_sum`."""
    return int(row[f"{name}_thick"] or 0) * _SPLIT + int(row[f"{name}_thin"] or 0)


@dataclass(slots=True)
class _Group:
    """Adds up the rows of one key: they differ in basis and in whether a price is known."""

    calls: int = 0
    open_calls: int = 0
    unpriced_calls: int = 0
    sums: dict[str, int] = field(default_factory=dict)
    unpriced: dict[str, int] = field(default_factory=dict)
    by_basis: dict[Basis | None, Cost] = field(default_factory=dict)

    def add(self, row: Any) -> None:
        self.calls += row["calls"]
        self.open_calls += int(row["open_calls"])
        whole = {name: whole_sum(row, name) for name in (*SUMMED, "adjusted", "held")}
        _add_all(self.sums, whole)
        if row["unpriced"]:
            self.unpriced_calls += row["calls"]
            _add_all(self.unpriced, whole)
        elif row["calls"] > int(row["open_calls"]):
            known = None if row["basis"] is None else Basis(row["basis"])
            before = self.by_basis.get(known, Cost(0, 0, 0))
            self.by_basis[known] = Cost(
                before.low + whole["cost_low_nano"],
                before.best + whole["cost_best_nano"],
                before.high + whole["cost_high_nano"],
            )

    def row(self, key: tuple[str | None, ...]) -> SpendRow:
        sums = self.sums
        return SpendRow(
            key=key,
            calls=self.calls,
            open_calls=self.open_calls,
            held=sums["held"],
            input=_tokens(sums, "input"),
            cached=_tokens(sums, "cached"),
            output=_tokens(sums, "output"),
            reasoning=_tokens(sums, "reasoning"),
            cost=Cost(sums["cost_low_nano"], sums["cost_best_nano"], sums["cost_high_nano"]),
            charge=sums["charge_nano"],
            cost_by_basis=tuple(sorted(self.by_basis.items(), key=lambda item: item[0] or 0)),
            unpriced_calls=self.unpriced_calls,
            unpriced_input=_tokens(self.unpriced, "input"),
            unpriced_output=_tokens(self.unpriced, "output"),
            adjusted=sums["adjusted"],
        )


def _add_all(sums: dict[str, int], more: dict[str, int]) -> None:
    for name, value in more.items():
        sums[name] = sums.get(name, 0) + value


def _tokens(sums: dict[str, int], kind: str) -> TokenSum:
    return TokenSum(*(sums.get(f"{kind}_{part}", 0) for part in ("low", "best", "high")))
