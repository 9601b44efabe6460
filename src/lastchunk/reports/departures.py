"""Callers who left early: what was done, by upstream and policy, and what it cost and saved."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from lastchunk.ledger import CallRecord
from lastchunk.meter.departure import Done
from lastchunk.pricing.cost import Cost
from lastchunk.reports.table import Cell, Column, Kind, Span, Table
from lastchunk.reports.words import AFTER_CANCEL

_ZERO = Cost(0, 0, 0)

_Key = tuple[str, str, str]
"""Upstream, what it bills after a cancel, policy."""


@dataclass(slots=True)
class _Group:
    calls: int = 0
    unpriced: int = 0
    done: dict[Done, int] = field(default_factory=dict)
    undelivered: Cost = _ZERO
    drained: Cost = _ZERO
    saved: Cost = _ZERO

    def add(self, record: CallRecord) -> None:
        settlement = record.settlement
        assert settlement is not None
        departure, cost = settlement.observation.departure, settlement.departure
        assert departure is not None
        self.calls += 1
        self.done[departure.done] = self.done.get(departure.done, 0) + 1
        if cost is None or settlement.cost is None:
            self.unpriced += 1
            return
        self.undelivered = _plus(self.undelivered, cost.undelivered_cost)
        self.drained = _plus(self.drained, cost.drain_cost)
        self.saved = _plus(self.saved, cost.saved_cost)

    def merge(self, other: _Group) -> None:
        self.calls += other.calls
        self.unpriced += other.unpriced
        for done, count in other.done.items():
            self.done[done] = self.done.get(done, 0) + count
        self.undelivered = _plus(self.undelivered, other.undelivered)
        self.drained = _plus(self.drained, other.drained)
        self.saved = _plus(self.saved, other.saved)

    def cells(self, *key: Cell) -> tuple[Cell, ...]:
        return (
            *key,
            self.calls,
            self.done.get(Done.DRAINED, 0),
            self.done.get(Done.CANCELLED, 0),
            self.done.get(Done.CUT, 0),
            _span(self.undelivered),
            _span(self.drained),
            _span(self.saved),
        )


def departures_table(records: Iterable[CallRecord], *, empty: str) -> Table:
    """One row for each upstream and policy, that with the most calls first."""
    groups: dict[_Key, _Group] = {}
    whole = _Group()
    for record in records:
        assert record.settlement is not None
        departure = record.settlement.observation.departure
        assert departure is not None
        after = AFTER_CANCEL[record.call.after_cancel]
        key = (record.call.request.upstream, after, departure.policy.value)
        groups.setdefault(key, _Group()).add(record)
    for group in groups.values():
        whole.merge(group)
    ordered = sorted(groups, key=lambda key: (-groups[key].calls, key))
    notes = (
        "undelivered: output that is billed and that no caller was given. drained: what of it was"
        " paid for reading on. saved: output that was expected and not generated.",
        *(
            [f"Not in the amounts: {whole.unpriced:,} calls without a price."]
            * bool(whole.unpriced)
        ),
    )
    return Table(
        name="departures",
        title="",
        columns=(
            Column("upstream", "upstream"),
            Column("after_cancel", "after a cancel"),
            Column("policy", "policy"),
            Column("calls", "left", Kind.NUMBER),
            Column("drained_calls", "drained", Kind.NUMBER),
            Column("cancelled_calls", "cancelled", Kind.NUMBER),
            Column("cut_calls", "cut", Kind.NUMBER),
            Column("undelivered_usd", "undelivered", Kind.USD, spread=True, below=1),
            Column("drain_usd", "drained for", Kind.USD, spread=True, below=1),
            Column("saved_usd", "saved", Kind.USD, spread=True, below=1),
        ),
        rows=tuple(groups[key].cells(*key) for key in ordered),
        totals=whole.cells("total", None, None) if len(groups) > 1 else None,
        notes=notes if groups else (),
        empty=empty,
    )


def _plus(one: Cost, other: Cost | None) -> Cost:
    if other is None:
        return one
    return Cost(one.low + other.low, one.best + other.best, one.high + other.high)


def _span(cost: Cost) -> Span:
    return Span(cost.low, cost.best, cost.high)
