"""What a call may use, from its request alone."""

from __future__ import annotations

from lastchunk.pricing.book import PriceBook
from lastchunk.pricing.cost import ceiling
from lastchunk.settlement.facts import Forecast
from lastchunk.usage import Basis, Quantity
from lastchunk.wire.request import CallRequest

BYTES_PER_TOKEN = 4
"""Of a JSON body: 4.0 in 3,149 recorded requests without images or files, all added up. The
interval does not rest on it: a token is at least a byte."""

USUAL_OUTPUT_TOKENS = 500
"""What an answer comes to where nobody set a limit: a guess that only a lost call ever needs."""

UNLIMITED_OUTPUT_TOKENS = 16_384
"""The most that a choice is assumed to have where the caller set no limit."""


def forecast(request: CallRequest, book: PriceBook, at_ms: int) -> Forecast:
    """The interval of what this request may use, and the cost at its high end. Pure and cheap."""
    upper = max(1, request.body_bytes)
    input_tokens = Quantity(1, max(1, upper // BYTES_PER_TOKEN), upper, Basis.ASSUMED)
    most = request.output_ceiling or UNLIMITED_OUTPUT_TOKENS
    output_tokens = Quantity(
        0,
        min(most, USUAL_OUTPUT_TOKENS) * request.choices,
        most * request.choices,
        Basis.ASSUMED,
    )
    price = book.price(
        request.model, upstream=request.upstream, at_ms=at_ms, tier=request.service_tier
    )
    hold = None if price is None else ceiling(price, input_tokens.high, output_tokens.high)
    return Forecast(input_tokens, output_tokens, hold)
