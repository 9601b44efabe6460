"""Which reports may teach: an upstream may say anything, and is believed within bounds."""

from __future__ import annotations

from lastchunk.usage import Quantity

PLAUSIBLE_FACTOR = 4
PLAUSIBLE_TOKENS = 256
"""A report may correct other counts if it is within this factor of the built-in interval, widened
by so many tokens first: hidden instructions add hundreds of tokens to a prompt of ten. Of 11,812
recorded numbers 16 are outside, none of them of a call whose tokens can all be derived."""


def plausible_ends(counted: Quantity) -> tuple[int, int]:
    """The least and the most that a report of this count may be to teach, in tokens."""
    least = max(0, counted.low - PLAUSIBLE_TOKENS) // PLAUSIBLE_FACTOR
    return least, (counted.high + PLAUSIBLE_TOKENS) * PLAUSIBLE_FACTOR


def is_plausible(counted: Quantity, reported: int) -> bool:
    """Whether a report is near enough to our count to correct others by it."""
    least, most = plausible_ends(counted)
    return least <= reported <= most


def within_plausible(counted: Quantity, corrected: int) -> int:
    """A corrected count, held to what its own report might be: shares learned on a small call must
    not run away on a large one."""
    least, most = plausible_ends(counted)
    return max(least, min(corrected, most))
