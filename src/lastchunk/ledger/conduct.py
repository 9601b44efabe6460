"""How the callers of an account behave: how many leave early, and what of it nobody pays."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from lastchunk.ledger.calls import (
    CallFilter,
    conditions,
    is_departed,
    joined,
    reserved,
    resolved,
    total,
)
from lastchunk.ledger.spend import split_sum, whole_sum
from lastchunk.meter.ending import Ending


@dataclass(frozen=True, slots=True)
class Conduct:
    """One account's resolved calls. Money is in nano-dollars, best guesses, corrections included.

    `cancelled` are those whose caller left before the end, also where they were read on; what used
    nothing is left out. `unbilled` is what of each call's cost it is not charged, added up: a
    mark-up on one call makes up for no other. Unpriced calls add nothing to the amounts.
    """

    account: str
    calls: int
    cancelled: int
    cost: int
    charge: int
    unbilled: int

    @property
    def cancel_ratio(self) -> float:
        """The share of calls that their caller left, 0 to 1."""
        return self.cancelled / self.calls if self.calls else 0.0

    @property
    def unbilled_share(self) -> float:
        """The share of the cost that is not charged, 0 to 1."""
        return self.unbilled / self.cost if self.cost > 0 else 0.0


def read_conduct(connection: sa.Connection, wanted: CallFilter) -> list[Conduct]:
    """The accounts in order. One pass over the calls that are wanted."""
    cost, charge = total("cost_best_nano"), total("charge_nano")
    is_cancelled = sa.or_(resolved.c.ending == Ending.CALLER_LEFT.value, is_departed)
    unbilled = sa.case((cost > charge, cost - charge), else_=0)
    priced_charge = sa.case((cost.is_not(None), charge), else_=0)
    parts: list[sa.ColumnElement[Any]] = [
        *split_sum("cost", cost),
        *split_sum("charge", priced_charge),
        *split_sum("unbilled", unbilled),
    ]
    query = (
        sa.select(
            reserved.c.account,
            sa.func.count().label("calls"),
            sa.func.sum(sa.case((is_cancelled, 1), else_=0)).label("cancelled"),
            *parts,
        )
        .select_from(joined)
        .where(*conditions(wanted), resolved.c.kind == sa.literal_column("'settled'"))
        .group_by(reserved.c.account)
        .order_by(reserved.c.account)
    )
    return [
        Conduct(
            account=row["account"],
            calls=row["calls"],
            cancelled=int(row["cancelled"]),
            cost=whole_sum(row, "cost"),
            charge=whole_sum(row, "charge"),
            unbilled=whole_sum(row, "unbilled"),
        )
        for row in connection.execute(query).mappings()
    ]
