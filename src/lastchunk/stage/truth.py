"""A billed call as counts and cost, and whether what the ledger says has room for it."""

from __future__ import annotations

from lastchunk.ledger.entries import Standing
from lastchunk.pricing.book import PriceBook
from lastchunk.pricing.cost import cost_of
from lastchunk.simulator import BilledCall
from lastchunk.usage import USAGE_PARTS, Quantity, TokenCounts, Usage

NOTHING = TokenCounts(input_tokens=0, output_tokens=0)


def true_counts(billed: BilledCall | None) -> TokenCounts:
    """What the provider bills; nothing where it never heard of the call or refused it."""
    if billed is None or not billed.billed:
        return NOTHING
    return TokenCounts(
        input_tokens=billed.prompt_tokens,
        input_cached_tokens=billed.cached_tokens,
        output_tokens=billed.output_tokens,
        output_reasoning_tokens=billed.reasoning_tokens,
    )


def cost_in(
    book: PriceBook, counts: TokenCounts, billed: BilledCall | None, *, upstream: str, at_ms: int
) -> int:
    """What these counts cost in nano-dollars, at the price of the model that served."""
    if not (counts.input_tokens or 0) + (counts.output_tokens or 0):
        return 0
    model = billed.model_served if billed is not None and billed.billed else ""
    tier = billed.service_tier if billed is not None else None
    price = book.price(model, upstream=upstream, at_ms=at_ms, tier=tier)
    assert price is not None, f"the simulated provider's model {model} has no price"
    return cost_of(_usage(counts), price).best


def holds(standing: Standing, truth: TokenCounts) -> bool:
    """Whether true input and output each lie in the recorded low–high."""
    tokens = standing.tokens
    pairs = ((tokens.input, truth.input_tokens), (tokens.output, truth.output_tokens))
    return all(
        (span.low <= (true or 0) <= span.high) if span is not None else not true
        for span, true in pairs
    )


def _usage(counts: TokenCounts) -> Usage:
    told = {name: getattr(counts, name) for name in USAGE_PARTS}
    return Usage(**{name: Quantity.reported(n) for name, n in told.items() if n is not None})
