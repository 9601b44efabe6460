"""Which accounts leave too many answers unread, or unpaid: thresholds on their conduct."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from lastchunk.ledger import Conduct

FEWEST_CALLS = 20
"""An account with fewer calls in the period alarms nobody: one cancelled call of one is 100 %."""


class Sign(StrEnum):
    """What an account does too much of."""

    CANCELS = "cancels"
    """Its callers leave: see `cancel_ratio`."""
    UNBILLED = "unbilled"
    """Its cost is not charged: see `unbilled_share`."""


@dataclass(frozen=True, slots=True)
class Thresholds:
    """Shares from 0 to 1 above which an account is told of; None: never."""

    cancel_ratio: float | None = None
    unbilled_share: float | None = None
    fewest_calls: int = FEWEST_CALLS


NO_THRESHOLDS = Thresholds()
"""Nobody is told of."""


@dataclass(frozen=True, slots=True)
class Alert:
    """An account above a threshold; `share` is what it stands at."""

    account: str
    sign: Sign
    share: float
    threshold: float
    conduct: Conduct


def alerts(rows: Iterable[Conduct], thresholds: Thresholds) -> list[Alert]:
    """The accounts above a threshold, in the order of the rows; one may be above both."""
    found: list[Alert] = []
    for row in rows:
        if row.calls < thresholds.fewest_calls:
            continue
        for sign, share, threshold in (
            (Sign.CANCELS, row.cancel_ratio, thresholds.cancel_ratio),
            (Sign.UNBILLED, row.unbilled_share, thresholds.unbilled_share),
        ):
            if threshold is not None and share > threshold:
                found.append(Alert(row.account, sign, share, threshold, row))
    return found
