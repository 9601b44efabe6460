"""One call against all the limits above it. Runs inside the ledger's writing transaction."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import tzinfo
from typing import assert_never

from lastchunk.ledger.plan import BalanceView
from lastchunk.ledger.windows import FOREVER_MS, Holds, WindowSums
from lastchunk.limits.limit import Limit, Mode, Unit

HOLDS_SECONDS = 1.0
"""When to come again where only open calls are in the way: they are settled any moment."""


@dataclass(frozen=True, slots=True)
class Standing:
    """Where a limit stands for one path, in its unit (money in nano-dollars).

    `held` is what open calls count as under the limit's mode; `overshoot` is how far they may come
    beyond it, which is 0 for strict limits. `resets_ms` is None where the limit never starts anew.
    """

    limit: Limit
    path: str
    used: int
    held: int
    overshoot: int
    resets_ms: int | None

    @property
    def remaining(self) -> int:
        """What a new call may still hold."""
        return max(0, self.limit.amount - self.used - self.held)

    @property
    def share(self) -> float:
        """How much of the cap is used and held; 1.0 is all of it."""
        return (self.used + self.held) / self.limit.amount if self.limit.amount else 1.0


@dataclass(frozen=True, slots=True)
class Refused:
    """A call that does not fit. `wanted` is what it would hold, None where that is not known.

    `retry_seconds` is None where waiting does not help.
    """

    standing: Standing
    wanted: int | None
    retry_seconds: float | None


class Admission:
    """Says None to let a call pass, else why not; `standings` tells where its limits stand then.

    `priced` says whether a price is known for it: what is spent on a call without one cannot be
    known, so a limit of money lets none pass.
    """

    def __init__(
        self,
        limits: Iterable[Limit],
        account: str,
        holds: Holds,
        at_ms: int,
        zone: tzinfo,
        *,
        priced: bool,
    ) -> None:
        self._limits = tuple(limit for limit in limits if limit.path_of(account) is not None)
        self._account = account
        self.holds = holds
        self._at_ms = at_ms
        self._zone = zone
        self._priced = priced
        self.standings: tuple[Standing, ...] = ()
        self.is_waived = False
        """The call is sent whatever the answer is: it must be written down."""

    @property
    def is_needed(self) -> bool:
        """Some limit applies."""
        return bool(self._limits)

    def __call__(self, view: BalanceView) -> Refused | None:
        if self.is_waived:
            return None
        found: list[Standing] = []
        for limit in self._limits:
            window = limit.window(self._account, self._at_ms, self._zone)
            assert window is not None
            standing = standing_of(limit, view.window(window), window.prefix, window.end_ms)
            refused = self._refusal(standing)
            if refused is not None:
                return refused
            found.append(standing)
        self.standings = tuple(found)
        return None

    def _refusal(self, standing: Standing) -> Refused | None:
        limit = standing.limit
        if limit.unit is Unit.MONEY and not self._priced:
            return Refused(standing, None, None)
        wanted = wants(limit, self.holds)
        if wanted <= standing.remaining:
            return None
        if wanted > limit.amount:
            return Refused(standing, wanted, None)
        if limit.unit is Unit.STREAMS or standing.used + wanted <= limit.amount:
            return Refused(standing, wanted, HOLDS_SECONDS)
        if standing.resets_ms is None:
            return Refused(standing, wanted, None)
        return Refused(standing, wanted, max(0.001, (standing.resets_ms - self._at_ms) / 1000))


def standing_of(limit: Limit, sums: WindowSums, path: str, end_ms: int) -> Standing:
    """A limit and what its window says."""
    used, held, overshoot = 0, 0, 0
    strict = limit.mode is Mode.STRICT
    match limit.unit:
        case Unit.MONEY:
            used, held = sums.spent, sums.most if strict else sums.usual
            overshoot = sums.most - held
        case Unit.TOKENS:
            used, held = sums.tokens, sums.tokens_most if strict else sums.tokens_usual
            overshoot = sums.tokens_most - held
        case Unit.REQUESTS:
            used = sums.calls
        case Unit.STREAMS:
            held = sums.calls_open
        case _:
            assert_never(limit.unit)
    from_ever = limit.unit is Unit.STREAMS or end_ms >= FOREVER_MS
    return Standing(limit, path, used, held, max(0, overshoot), None if from_ever else end_ms)


def wants(limit: Limit, holds: Holds) -> int:
    """What a call with these holds takes of a limit."""
    strict = limit.mode is Mode.STRICT
    match limit.unit:
        case Unit.MONEY:
            return holds.most if strict else holds.usual
        case Unit.TOKENS:
            return holds.tokens_most if strict else holds.tokens_usual
        case Unit.REQUESTS | Unit.STREAMS:
            return 1
        case _:
            assert_never(limit.unit)
