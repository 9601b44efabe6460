"""One limit: how much of what, for whom, and how often it starts anew."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import tzinfo
from enum import StrEnum

from lastchunk.accounts import path_within
from lastchunk.ledger.windows import Window
from lastchunk.limits.calendar import Per, span_of


class Unit(StrEnum):
    """What is limited."""

    MONEY = "usd"
    """The provider's cost, in nano-dollars."""
    TOKENS = "tokens"
    """Input and output together."""
    REQUESTS = "requests"
    STREAMS = "streams"
    """Open at once; such a limit has no span."""


class Mode(StrEnum):
    """What an open call counts as."""

    STRICT = "strict"
    """The most it may come to: what is settled and held never exceeds the cap."""
    BALANCED = "balanced"
    """What such calls come to at the 95th percentile: more calls fit, and some may overshoot."""


@dataclass(frozen=True, slots=True)
class Limit:
    """`amount` of `unit` for each account path that `accounts` names, a span.

    `accounts` is a pattern as `path_within` reads it: `acme` is all of acme together, `acme/*` each
    team of it. `amount` is in nano-dollars where the unit is money.
    """

    name: str
    accounts: str
    unit: Unit
    amount: int
    per: Per = Per.EVER
    mode: Mode = Mode.STRICT

    def path_of(self, account: str) -> str | None:
        """The path that this limit counts an account under; None where it does not apply."""
        return path_within(self.accounts, account)

    def window(self, account: str, at_ms: int, zone: tzinfo) -> Window | None:
        """What is summed for a call of this account at this moment; None: it does not apply."""
        path = self.path_of(account)
        if path is None:
            return None
        return Window(path, *span_of(self.per, at_ms, zone))
