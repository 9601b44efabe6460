"""What a customer is charged for a call: a table of who bears what, beside the provider's cost.

The provider bills what was generated. Whether a customer pays for an answer that broke off is the
operator's decision, by how the call ended and who caused that.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from decimal import ROUND_HALF_EVEN, Decimal
from enum import StrEnum
from typing import assert_never

from lastchunk.accounts import EVERYONE, path_within
from lastchunk.meter.ending import Ending
from lastchunk.meter.observation import Observation
from lastchunk.pricing.cost import Cost, cost_of
from lastchunk.pricing.price import Price
from lastchunk.settlement.departed import delivered_tokens
from lastchunk.settlement.facts import Charge, DepartureCost
from lastchunk.usage import Quantity, Usage


class Cause(StrEnum):
    """Who made a call end as it did."""

    CALLER = "caller"
    PROVIDER = "provider"
    GATEWAY = "gateway"


CAUSES: dict[Ending, Cause] = {
    Ending.COMPLETED: Cause.CALLER,
    Ending.CALLER_LEFT: Cause.CALLER,
    Ending.LIMIT_REACHED: Cause.CALLER,
    Ending.UPSTREAM_CUT: Cause.PROVIDER,
    Ending.UPSTREAM_TIMEOUT: Cause.PROVIDER,
    Ending.UPSTREAM_FAILED: Cause.PROVIDER,
    Ending.REFUSED: Cause.PROVIDER,
    Ending.NEVER_SENT: Cause.PROVIDER,
    Ending.LOST: Cause.GATEWAY,
}


class Charged(StrEnum):
    """What part of a call's usage is charged."""

    ACTUAL = "actual"
    """All that the provider bills."""
    DELIVERED = "delivered"
    """The prompt, and the output that the caller was sent."""
    PROMPT = "prompt"
    NOTHING = "nothing"


@dataclass(frozen=True, slots=True)
class ChargeRule:
    """One row of the table. `endings` and `cause` None: any; `accounts` is a pattern of paths.

    `markup` is a factor on the cost; `name` is what explains a charge in the ledger.
    """

    charged: Charged
    accounts: str = EVERYONE
    endings: frozenset[Ending] | None = None
    cause: Cause | None = None
    markup: Decimal = Decimal(1)
    name: str = ""

    def fits(self, account: str, ending: Ending, seen: Observation) -> bool:
        if path_within(self.accounts, account) is None:
            return False
        if self.endings is not None and not self.endings & endings_of(ending, seen):
            return False
        return self.cause is None or cause_of(ending, seen) is self.cause

    @property
    def reason(self) -> str:
        """What is charged, the factor, and the row: `delivered x 1.2, by "cut answers"`."""
        what = "cost" if self.charged is Charged.ACTUAL else self.charged.value
        factor = "" if self.markup == 1 else f" x {self.markup}"
        return f"{what}{factor}" + (f', by "{self.name}"' if self.name else "")


ACTUAL_COST = ChargeRule(Charged.ACTUAL)
"""What holds where no row fits: everybody is charged what it cost."""


@dataclass(frozen=True, slots=True)
class Accounted:
    """What a call came to: what a charge is made of. `price` None: none is at hand."""

    usage: Usage
    cost: Cost | None
    price: Price | None
    departure: DepartureCost | None


def endings_of(ending: Ending, seen: Observation) -> frozenset[Ending]:
    """The endings that a row may name to mean this call.

    Where the answer was read on to its end for a caller who had left, that is `caller_left` too.
    """
    return frozenset({ending, Ending.CALLER_LEFT} if seen.departure is not None else {ending})


def cause_of(ending: Ending, seen: Observation) -> Cause:
    """Who made the call end so: a gateway that shuts down is no limit of the caller's."""
    return Cause.GATEWAY if seen.shut_down else CAUSES[ending]


def rule_for(
    rules: Iterable[ChargeRule], account: str, ending: Ending, seen: Observation
) -> ChargeRule:
    """The first row that fits."""
    return next((rule for rule in rules if rule.fits(account, ending, seen)), ACTUAL_COST)


def charge_by(
    rules: Iterable[ChargeRule], account: str, ending: Ending, seen: Observation, of: Accounted
) -> Charge:
    """What a call is charged by a table of rules. Not for calls that used nothing: those are 0."""
    rule = rule_for(rules, account, ending, seen)
    delivered = delivered_tokens(seen, of.usage, of.departure)
    return charge(rule, of.usage, of.cost, of.price, delivered)


def charge(
    rule: ChargeRule, usage: Usage, cost: Cost | None, price: Price | None, delivered: int | None
) -> Charge:
    """The charge in nano-dollars, rounded half to even, with its reason.

    `delivered` is how many output tokens the caller was sent, None where that is not known to
    differ from what was generated. Charged are best guesses, and never more than the best guess of
    the cost, marked up. Without a cost, or a price where a part of the usage is charged, the charge
    is not known.
    """
    if rule.charged is Charged.NOTHING:
        return Charge(0, rule.reason)
    amount = _charged_cost(rule.charged, usage, cost, price, delivered)
    if amount is None:
        return Charge(None, "unpriced")
    marked_up = (amount * rule.markup).to_integral_value(ROUND_HALF_EVEN)
    return Charge(int(marked_up), rule.reason)


def _charged_cost(
    charged: Charged, usage: Usage, cost: Cost | None, price: Price | None, delivered: int | None
) -> int | None:
    if cost is None:
        return None
    match charged:
        case Charged.ACTUAL:
            return cost.best
        case Charged.DELIVERED:
            return cost.best if delivered is None else _cost_with(delivered, usage, cost, price)
        case Charged.PROMPT:
            return _cost_with(0, usage, cost, price)
        case Charged.NOTHING:
            return 0
        case _:
            assert_never(charged)


def _cost_with(output: int, usage: Usage, cost: Cost, price: Price | None) -> int | None:
    """What it would have cost had the answer been so long; no more than it did cost."""
    return None if price is None else min(cost.best, cost_of(_cut_off(usage, output), price).best)


def _cut_off(usage: Usage, output: int) -> Usage:
    """The usage as if no more than so many tokens of output had come, reasoning first."""
    return replace(usage, **{name: _at_most(getattr(usage, name), output) for name in _OUTPUT})


_OUTPUT = (
    "output_tokens",
    "output_reasoning_tokens",
    "output_audio_tokens",
    "output_image_tokens",
)


def _at_most(tokens: Quantity | None, most: int) -> Quantity | None:
    if tokens is None:
        return None
    best = min(tokens.best, most)
    return Quantity(best, best, best, tokens.basis)
