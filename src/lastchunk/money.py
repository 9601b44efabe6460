"""Money: whole nano-dollars, never floats.

One nano-dollar is 1e-9 USD. A 64-bit sum holds 9.2 thousand million dollars; the cheapest cached
token on the market costs tens of nano-dollars, so rounding a call's cost to one loses nothing.
"""

from decimal import ROUND_HALF_EVEN, Decimal

NANO_PER_USD = 1_000_000_000


def nano_usd(amount: Decimal) -> int:
    """An amount in USD as whole nano-dollars, ties to even."""
    return int((amount * NANO_PER_USD).to_integral_value(ROUND_HALF_EVEN))


def usd(nano: int) -> Decimal:
    """Nano-dollars as an exact amount in USD."""
    return Decimal(nano).scaleb(-9)


def format_usd(nano: int | None) -> str:
    """For people: `$12.34`, with more digits the smaller it is; `unpriced` for None."""
    if nano is None:
        return "unpriced"
    amount = usd(nano)
    digits = 2 if abs(amount) >= 100 else 4 if abs(amount) >= 1 else 6
    return f"${amount:,.{digits}f}"
