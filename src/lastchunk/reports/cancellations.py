"""Accounts whose callers leave early, and what of the cost nobody is charged for."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal

from lastchunk.ledger import CallRecord, Conduct
from lastchunk.limits import Sign, Thresholds, alerts
from lastchunk.reports.table import Cell, Column, Kind, Table

_SIGNS = {Sign.CANCELS: "cancels", Sign.UNBILLED: "unbilled"}


def undelivered_by_account(departed: Iterable[CallRecord]) -> dict[str, int]:
    """What the output that callers left unread cost, in nano-dollars, by account."""
    sums: dict[str, int] = {}
    for record in departed:
        departure = record.settlement.departure if record.settlement is not None else None
        if departure is not None and departure.undelivered_cost is not None:
            account = record.call.account
            sums[account] = sums.get(account, 0) + departure.undelivered_cost.best
    return sums


def cancellations_table(
    rows: Sequence[Conduct], undelivered: Mapping[str, int], thresholds: Thresholds, *, empty: str
) -> Table:
    """One row an account, who leaves most unpaid first; above a threshold it is marked."""
    signs: dict[str, list[str]] = {}
    for alert in alerts(rows, thresholds):
        signs.setdefault(alert.account, []).append(_SIGNS[alert.sign])
    ordered = sorted(rows, key=lambda row: (-row.unbilled, -row.cancelled, row.account))
    whole = _whole(rows)
    return Table(
        name="cancellations",
        title="",
        columns=(
            Column("account", "account"),
            Column("calls", "calls", Kind.NUMBER),
            Column("cancelled_calls", "left", Kind.NUMBER),
            Column("cancel_ratio", "ratio", Kind.SHARE),
            Column("cost_usd", "cost", Kind.USD),
            Column("charge_usd", "charged", Kind.USD),
            Column("unbilled_usd", "unbilled", Kind.USD),
            Column("unbilled_share", "share", Kind.SHARE),
            Column("undelivered_usd", "undelivered", Kind.USD, below=1),
            Column("undelivered_share", "share of the cost", Kind.SHARE, below=1),
            Column("alert", "above", below=1, shown=bool(signs)),
        ),
        rows=tuple(
            _cells(row, undelivered, " ".join(signs.get(row.account, []))) for row in ordered
        ),
        totals=_cells(whole, {"total": sum(undelivered.values())}, "") if len(rows) > 1 else None,
        notes=_notes(thresholds) if rows else (),
        empty=empty,
    )


def _cells(row: Conduct, undelivered: Mapping[str, int], signs: str) -> tuple[Cell, ...]:
    unread = undelivered.get(row.account, 0)
    return (
        row.account,
        row.calls,
        row.cancelled,
        _share(row.cancelled, row.calls),
        row.cost,
        row.charge,
        row.unbilled,
        _share(row.unbilled, row.cost),
        unread,
        _share(unread, row.cost),
        signs or None,
    )


def _whole(rows: Sequence[Conduct]) -> Conduct:
    return Conduct(
        "total",
        sum(row.calls for row in rows),
        sum(row.cancelled for row in rows),
        sum(row.cost for row in rows),
        sum(row.charge for row in rows),
        sum(row.unbilled for row in rows),
    )


def _notes(thresholds: Thresholds) -> tuple[str, ...]:
    told = [
        f"{name} over {share:.0%}"
        for name, share in (
            ("cancels", thresholds.cancel_ratio),
            ("unbilled", thresholds.unbilled_share),
        )
        if share is not None
    ]
    wanted = (
        f"Marked from {thresholds.fewest_calls} calls on: {', '.join(told)} (lastchunk.toml)."
        if told
        else "Nothing is marked: set cancel_ratio and unbilled_share under [warnings] in"
        " lastchunk.toml."
    )
    return (
        "calls: without those that used nothing, refused or never sent. unbilled: what of each"
        " call's cost is not charged, refunds included. undelivered: billed output that nobody was"
        " given.",
        wanted,
    )


def _share(part: int, whole: int) -> Decimal | None:
    return (Decimal(part) / whole).quantize(Decimal("0.000001")) if whole else None
