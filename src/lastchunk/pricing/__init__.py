"""Dated prices: the genai-prices snapshot and the operator's own table.

    PriceBook.load(own) → book.price(model, upstream=…, at_ms=…, tier=…) → Price | None = unpriced
    cost_of(usage, price) → Cost in nano-dollars        costing(…) → the same, line by line

`price` is what a price is, `book` finds it, `own` reads the operator's TOML, `cost` multiplies.
"""

from lastchunk.pricing.book import PriceBook
from lastchunk.pricing.cost import Cost, Costing, CostLine, ceiling, cost_of, costing
from lastchunk.pricing.price import Price, Rates, Step

__all__ = [
    "Cost",
    "CostLine",
    "Costing",
    "Price",
    "PriceBook",
    "Rates",
    "Step",
    "ceiling",
    "cost_of",
    "costing",
]
