"""What one model costs at one moment, and the identity of those numbers."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, fields
from decimal import Decimal

STANDARD_TIERS = frozenset({"auto", "default", "standard", "on_demand"})
"""Names under which providers sell (or echo) what they do not charge extra for."""

_SAME_TIER = {"fast": "priority"}
"""Tiers with two names: OpenAI takes `fast` in a request and echoes it as `priority` (F9e)."""

_HASH_LENGTH = 8


@dataclass(frozen=True, slots=True)
class Rates:
    """USD per million tokens, by the names of `Usage`; `request_usd` is per request.

    `None`: the part has no price of its own and costs what its whole (input, output) costs.
    """

    input_tokens: Decimal
    output_tokens: Decimal
    input_cached_tokens: Decimal | None = None
    input_cache_write_tokens: Decimal | None = None
    input_audio_tokens: Decimal | None = None
    input_image_tokens: Decimal | None = None
    output_reasoning_tokens: Decimal | None = None
    output_audio_tokens: Decimal | None = None
    output_image_tokens: Decimal | None = None
    request_usd: Decimal = Decimal(0)


RATE_NAMES: tuple[str, ...] = tuple(field.name for field in fields(Rates))
"""The names of all rates, in order."""


@dataclass(frozen=True, slots=True)
class Step:
    """The rates of a request whose input is longer than this: they apply to all of its tokens."""

    above_input_tokens: int
    rates: Rates


@dataclass(frozen=True, slots=True)
class Price:
    """The price of one model at one moment in one service tier. Never changes.

    `steps` rises by `above_input_tokens` and starts at -1, so that every request finds its step.
    `tier` is None for the standard tier. `matched_by` tells how the provider was found: `own` (the
    operator's file), `upstream` (the host) or `model` (only the model's name: the host says
    nothing). `reasons` names what is doubtful about it.
    """

    price_id: str
    provider: str
    model: str
    tier: str | None
    steps: tuple[Step, ...]
    matched_by: str
    reasons: tuple[str, ...] = ()

    def rates_for(self, input_tokens: int) -> Rates:
        """The rates of a request with this much input: long contexts may cost more."""
        for step in reversed(self.steps):
            if input_tokens > step.above_input_tokens:
                return step.rates
        return self.steps[0].rates


def tier_named(tier: str | None) -> str | None:
    """A service tier by the name it is priced under; None for the standard one."""
    if tier is None or tier.lower() in STANDARD_TIERS:
        return None
    return _SAME_TIER.get(tier.lower(), tier.lower())


def identity(name: str, tier: str | None, steps: tuple[Step, ...]) -> str:
    """`NAME[@TIER]#HASH`: the hash covers every number, so other numbers never share an id."""
    numbers = ";".join(f"{step.above_input_tokens}:{_numbers(step.rates)}" for step in steps)
    digest = hashlib.sha256(numbers.encode()).hexdigest()[:_HASH_LENGTH]
    suffix = f"@{tier}" if tier else ""
    return f"{name}{suffix}#{digest}"


def _numbers(rates: Rates) -> str:
    """One spelling for equal numbers: 2.50 and 2.5 are the same price."""
    values = ((name, getattr(rates, name)) for name in RATE_NAMES)
    return ",".join(f"{name}={value.normalize():f}" for name, value in values if value is not None)
