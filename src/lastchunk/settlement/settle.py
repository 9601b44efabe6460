"""The waist: live calls, recovered calls and every story go through `settle`."""

from __future__ import annotations

from collections.abc import Sequence

from lastchunk.meter.ending import Ending
from lastchunk.meter.observation import Observation
from lastchunk.pricing.book import PriceBook
from lastchunk.pricing.cost import Cost, costing
from lastchunk.pricing.price import Price
from lastchunk.settlement.charge import Accounted, ChargeRule, charge_by
from lastchunk.settlement.departed import closed, departure_cost
from lastchunk.settlement.estimate import estimate_input, estimate_output, estimate_running
from lastchunk.settlement.experience import NOTHING_LEARNED, Experience
from lastchunk.settlement.facts import Charge, OpenCall, Settlement
from lastchunk.usage import USAGE_PARTS, Basis, Quantity, Usage


def settle(
    call: OpenCall,
    seen: Observation,
    ending: Ending,
    book: PriceBook,
    experience: Experience = NOTHING_LEARNED,
    charges: Sequence[ChargeRule] = (),
) -> Settlement:
    """The one account of a call. Pure: the same evidence gives the same settlement.

    A call that was refused or never sent used nothing, for which there is proof: it costs 0 and is
    released. Everything else is settled, from the provider's numbers where they came and from
    estimates with intervals where they did not. The first of the rules in `charges` that fits
    decides what is charged, beside the cost; without one, that is the cost.
    """
    if ending in (Ending.REFUSED, Ending.NEVER_SENT):
        nothing = Charge(0, "nothing_used")
        return Settlement(
            call.call_id, ending, Usage(), Cost(0, 0, 0), nothing, None, (), seen, nothing_used=True
        )
    seen = closed(seen, ending)
    usage, reasons = _usage(call, seen, ending, experience)
    price = find_price(call, seen, book)
    cost = None
    if price is not None:
        costs = costing(usage, price)
        cost, reasons = costs.cost, (*reasons, *costs.reasons)
    departure = departure_cost(call, seen, usage, price)
    accounted = Accounted(usage, cost, price, departure)
    return Settlement(
        call_id=call.call_id,
        ending=ending,
        usage=usage,
        cost=cost,
        charge=charge_by(charges, call.account, ending, seen, accounted),
        price_id=price.price_id if price else None,
        reasons=tuple(dict.fromkeys(reasons)),
        observation=seen,
        departure=departure,
    )


def find_price(call: OpenCall, seen: Observation, book: PriceBook) -> Price | None:
    """The price of what really served, else of what was asked for, when the call was opened."""
    tier = seen.tier_served or call.request.service_tier
    for model in (seen.model_served, call.request.model):
        if model is not None:
            price = book.price(
                model, upstream=call.request.upstream, at_ms=call.opened_ms, tier=tier
            )
            if price is not None:
                return price
    return None


def _usage(
    call: OpenCall, seen: Observation, ending: Ending, experience: Experience
) -> tuple[Usage, tuple[str, ...]]:
    parts: dict[str, Quantity | None] = {}
    reasons: tuple[str, ...] = ()
    basis = Basis.REPORTED if seen.reported_is_final else Basis.REPORTED_SO_FAR
    if seen.reported is not None:
        for name in USAGE_PARTS:
            tokens = getattr(seen.reported, name)
            if tokens is not None:
                parts[name] = Quantity(tokens, tokens, tokens, basis)
    if parts.get("input_tokens") is None:
        guess = estimate_input(call, seen)
        parts["input_tokens"], reasons = guess.tokens, reasons + guess.reasons
    output = parts.get("output_tokens")
    if output is None:
        guess = estimate_output(call, seen, ending, experience)
        parts["output_tokens"], reasons = guess.tokens, reasons + guess.reasons
    elif basis is Basis.REPORTED_SO_FAR:
        guess = estimate_running(call, seen, output.best, ending, experience)
        parts["output_tokens"], reasons = guess.tokens, reasons + guess.reasons
        for name in ("output_reasoning_tokens", "output_audio_tokens", "output_image_tokens"):
            parts.pop(name, None)  # parts of a total that went on growing
    return Usage(**parts), reasons
