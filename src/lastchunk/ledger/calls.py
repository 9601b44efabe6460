"""The ledger as one row a call: what reports filter, sort and sum."""

from __future__ import annotations

from dataclasses import dataclass

import sqlalchemy as sa

from lastchunk.ledger.entries import ADJUSTMENT, TOKEN_KINDS, storable
from lastchunk.ledger.tables import (
    entries,
    is_correction,
    is_reservation,
    is_resolution,
    tags,
)
from lastchunk.ledger.windows import account_under
from lastchunk.meter.ending import Ending
from lastchunk.usage import Basis


@dataclass(frozen=True, slots=True)
class CallFilter:
    """Which calls are meant; what is None does not matter. All that is given must hold.

    `account` means itself and all under it (`team` includes `team/ann`). `model` is the one asked
    for or the one that served. `basis_at_most` keeps resolved calls known no better than that.
    `attempts_of` is a first attempt's id: that call and its retries. Times are Unix milliseconds of
    the calls' opening: from `since_ms` on, before `until_ms`.
    """

    account: str | None = None
    model: str | None = None
    ending: Ending | None = None
    basis_at_most: Basis | None = None
    since_ms: int | None = None
    until_ms: int | None = None
    tag: tuple[str, str] | None = None
    way: str | None = None
    attempts_of: str | None = None
    open_only: bool = False
    unpriced_only: bool = False
    departed_only: bool = False
    """Only resolved calls whose caller left when output could still come."""


EVERY_CALL = CallFilter()

reserved = entries.alias("reserved")
resolved = entries.alias("resolved")
_latest = entries.alias("latest")

SUMMED = (
    *(f"{kind}_{part}" for kind in TOKEN_KINDS for part in ("low", "best", "high")),
    *(f"cost_{part}_nano" for part in ("low", "best", "high")),
    "charge_nano",
)
"""The columns in which a correction holds a difference."""

# The bases come from the latest correction that says one; the amounts add up. Cast: PostgreSQL
# sums into a wider type, whose division is not a whole number's.
_corrected = (
    sa.select(
        entries.c.call_id,
        sa.func.max(entries.c.seq).filter(entries.c.basis.is_not(None)).label("latest_seq"),
        *(sa.cast(sa.func.sum(entries.c[name]), sa.BigInteger).label(name) for name in SUMMED),
        sa.cast(
            sa.func.sum(entries.c.charge_nano).filter(
                entries.c.correction_id.startswith(ADJUSTMENT, autoescape=True)
            ),
            sa.BigInteger,
        ).label("adjusted_nano"),
    )
    .where(is_correction(entries))
    .group_by(entries.c.call_id)
    .subquery("corrected")
)

joined = (
    reserved.outerjoin(
        resolved, sa.and_(resolved.c.call_id == reserved.c.call_id, is_resolution(resolved))
    )
    .outerjoin(_corrected, _corrected.c.call_id == reserved.c.call_id)
    .outerjoin(_latest, _latest.c.seq == _corrected.c.latest_seq)
)
"""Every reservation with its resolution and its corrections, if any."""

is_open: sa.ColumnElement[bool] = resolved.c.seq.is_(None)

basis: sa.ColumnElement[int | None] = sa.func.coalesce(_latest.c.basis, resolved.c.basis)
"""How the call is known now; NULL while it is open, or where nothing is."""


def total(name: str) -> sa.ColumnElement[int | None]:
    """A call's amount, corrections included; NULL where neither it nor they say one."""
    return sa.case(
        (_corrected.c[name].is_(None), resolved.c[name]),
        else_=sa.func.coalesce(resolved.c[name], 0) + _corrected.c[name],
    )


adjusted: sa.ColumnElement[int | None] = _corrected.c.adjusted_nano
"""By how much the operator has changed the call's charge; NULL where nobody did."""

is_departed: sa.ColumnElement[bool] = resolved.c.detail.contains('"departure":{"done":')
"""Its caller left when output could still come, whatever the ending. Of the JSON itself: inside any
of its texts a quote stands behind a backslash."""

is_unpriced: sa.ColumnElement[bool] = sa.and_(
    resolved.c.seq.is_not(None),
    resolved.c.cost_best_nano.is_(None),
    _corrected.c.cost_best_nano.is_(None),
    sa.or_(resolved.c.kind == sa.literal_column("'settled'"), _corrected.c.call_id.is_not(None)),
)
"""Something was used and nobody knows what it costs (`Standing.unpriced`, in SQL)."""


def conditions(wanted: CallFilter) -> list[sa.ColumnElement[bool]]:
    """The filter in SQL, over `joined`."""
    found: list[sa.ColumnElement[bool]] = [is_reservation(reserved)]
    if wanted.account is not None:
        found.append(account_under(reserved.c.account, wanted.account))
    if wanted.model is not None:
        model = storable(wanted.model)
        found.append(sa.or_(reserved.c.model == model, resolved.c.model_served == model))
    if wanted.ending is not None:
        found.append(resolved.c.ending == wanted.ending.value)
    if wanted.basis_at_most is not None:
        found.append(basis <= int(wanted.basis_at_most))
    if wanted.since_ms is not None:
        found.append(reserved.c.opened_ms >= wanted.since_ms)
    if wanted.until_ms is not None:
        found.append(reserved.c.opened_ms < wanted.until_ms)
    if wanted.tag is not None:
        key, value = map(storable, wanted.tag)
        tagged = sa.select(tags.c.call_id).where(tags.c.key == key, tags.c.value == value)
        found.append(reserved.c.call_id.in_(tagged))
    if wanted.way is not None:
        found.append(reserved.c.way == wanted.way)
    if wanted.attempts_of is not None:
        first = wanted.attempts_of
        found.append(sa.or_(reserved.c.call_id == first, reserved.c.attempt_of == first))
    if wanted.open_only:
        found.append(is_open)
    if wanted.unpriced_only:
        found.append(is_unpriced)
    if wanted.departed_only:
        found.append(is_departed)
    return found
