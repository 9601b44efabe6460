"""Cancel or drain: the decision, from a rule, a call, what has arrived, and a price. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from lastchunk.leaving.rules import Rule
from lastchunk.meter.departure import AfterCancel, LeavePolicy, Why
from lastchunk.pricing.cost import output_cost
from lastchunk.pricing.price import Price
from lastchunk.settlement.estimate import rest_of_answer
from lastchunk.settlement.facts import OpenCall
from lastchunk.usage import Quantity


@dataclass(frozen=True, slots=True)
class Decision:
    """`rest` is the output that can still come. `most_tokens`: read on for no more than these."""

    drains: bool
    why: Why
    rest: Quantity
    most_tokens: int | None = None


def decide(rule: Rule, call: OpenCall, arrived_tokens: int, price: Price | None) -> Decision:
    """What to do now that the caller has left and so many tokens of output have arrived.

    `cheaper` compares the expected cost of the rest with the threshold, and reads on for no more
    than the threshold buys: an answer longer than expected is cut there. What is billed anyway
    costs nothing to read, whatever the threshold. `price` is only asked for by `cheaper`.
    """
    rest = rest_of_answer(call, arrived_tokens)
    if rule.policy is LeavePolicy.CANCEL:
        return Decision(False, rule.why, rest)
    if rule.after_cancel is AfterCancel.BILLS_WHOLE:
        return Decision(True, Why.BILLED_ANYWAY, rest)
    if rule.policy is LeavePolicy.DRAIN:
        return Decision(True, rule.why, rest)
    if price is None:
        return Decision(False, Why.UNPRICED, rest)
    cost = output_cost(price, call.forecast.input_tokens.best, rest)
    if cost.best >= rule.threshold_nano:
        return Decision(False, Why.COSTS_MORE, rest)
    return Decision(True, Why.COSTS_LESS, rest, _bought(rule.threshold_nano, cost.high, rest.high))


def needs_price(rule: Rule) -> bool:
    """Whether the decision depends on what the rest costs."""
    return rule.policy is LeavePolicy.CHEAPER and rule.after_cancel is not AfterCancel.BILLS_WHOLE


def _bought(threshold_nano: int, cost_nano: int, tokens: int) -> int | None:
    """How many of the tokens the threshold buys; None where it buys all that can come."""
    return None if cost_nano <= threshold_nano else tokens * threshold_nano // cost_nano
