"""Hidden reasoning that was shown as a summary: how much more is billed than was shown."""

from __future__ import annotations

from lastchunk.settlement.learned_reasoning import rounding_of
from lastchunk.tokens.families import family_of
from lastchunk.usage import Basis, OutputCounts, Quantity

GROWTH = 3
LEAST_SUMMARY = 256
"""OpenAI's models write some 90 tokens of summary about the shortest reasoning, and about one token
for every three beyond that: best = 3 × summary - 256."""

SHORTEST_SHARE = 0.5
"""Of the summary, what the reasoning comes to at least where that line would give less."""

OPENAI_BELOW = 0.25
OPENAI_ABOVE = 3.0
"""Reasoning is at least this share of its summary, and at most so many times the best guess."""

ABOVE_TOKENS = 512
"""And at most this where that is more: a concise summary of ten tokens stood for 384."""

OTHER_USUAL = 7.0
OTHER_BELOW = 0.9
OTHER_ABOVE = 32.0
"""Other models that summarise (recorded: Grok): the reasoning in units of its summary."""


def summary_tokens(counts: OutputCounts | None, model: str) -> int:
    """Tokens of the summary that arrived. What relays show of OpenAI's reasoning is one, too."""
    if counts is None:
        return 0
    relayed = counts.reasoning_tokens if family_of(model).reasons else 0
    return counts.summary_tokens + relayed


def reasoning_summarised(model: str, summary: int) -> Quantity:
    """Reasoning tokens behind a whole summary of so many tokens, above 0.

    BOUNDED, never zero, and rounded as the family rounds what it reports.

    Measured on recorded answers with a summary and reported reasoning: see docs/accuracy.md.
    """
    if family_of(model).reasons:
        best = max(round(summary * SHORTEST_SHARE), GROWTH * summary - LEAST_SUMMARY)
        low, high = summary * OPENAI_BELOW, best * OPENAI_ABOVE
    else:
        best = round(summary * OTHER_USUAL)
        low, high = summary * OTHER_BELOW, summary * OTHER_ABOVE
    step = rounding_of(model)
    best = max(step, round(best / step) * step)
    least = min(best, int(low) // step * step)
    return Quantity(least, best, max(best, ABOVE_TOKENS, int(high)), Basis.BOUNDED)
