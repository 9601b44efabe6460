"""Tokens, and how each number is known."""

from __future__ import annotations

from dataclasses import dataclass, fields
from enum import IntEnum


class Basis(IntEnum):
    """Where a number comes from; the larger, the stronger."""

    ASSUMED = 10
    """Nothing was seen: the forecast speaks."""
    BOUNDED = 20
    """Seen but not countable: an interval."""
    COUNTED = 30
    """Our tokenizer counted what was sent or what arrived."""
    REPORTED_SO_FAR = 40
    """The provider's running usage, then silence."""
    REPORTED = 50
    """The provider's final usage for this call."""
    STATED = 60
    """The provider's bill."""


@dataclass(frozen=True, slots=True)
class Quantity:
    """A number of tokens: `low ≤ best ≤ high`. From `REPORTED` on all three are equal."""

    low: int
    best: int
    high: int
    basis: Basis

    def __post_init__(self) -> None:
        if not 0 <= self.low <= self.best <= self.high:
            raise ValueError(f"not 0 <= low <= best <= high: {self}")
        if self.basis >= Basis.REPORTED and not self.low == self.high:
            raise ValueError(f"a reported number has no interval: {self}")

    def __str__(self) -> str:
        """For people: `40, reported` or `20 (20 to 37), counted`."""
        between = "" if self.low == self.high else f" ({self.low:,} to {self.high:,})"
        return f"{self.best:,}{between}, {self.basis.name.lower().replace('_', ' ')}"

    @staticmethod
    def reported(tokens: int) -> Quantity:
        return Quantity(tokens, tokens, tokens, Basis.REPORTED)


@dataclass(frozen=True, slots=True)
class TokenCounts:
    """A provider's own numbers, brought to one meaning. `None`: it did not say; 0: it said 0.

    Input includes cached and cache-write tokens; output includes reasoning tokens.
    """

    input_tokens: int | None = None
    input_cached_tokens: int | None = None
    input_cache_write_tokens: int | None = None
    input_audio_tokens: int | None = None
    input_image_tokens: int | None = None
    output_tokens: int | None = None
    output_reasoning_tokens: int | None = None
    output_audio_tokens: int | None = None
    output_image_tokens: int | None = None


@dataclass(frozen=True, slots=True)
class Usage:
    """What one call used, in tokens, each number with its basis. `None`: not known, or none.

    `input_cached_tokens` and `input_cache_write_tokens` are parts of `input_tokens`;
    `output_reasoning_tokens` is a part of `output_tokens`.
    """

    input_tokens: Quantity | None = None
    input_cached_tokens: Quantity | None = None
    input_cache_write_tokens: Quantity | None = None
    input_audio_tokens: Quantity | None = None
    input_image_tokens: Quantity | None = None
    output_tokens: Quantity | None = None
    output_reasoning_tokens: Quantity | None = None
    output_audio_tokens: Quantity | None = None
    output_image_tokens: Quantity | None = None

    @property
    def basis(self) -> Basis | None:
        """The weakest basis of input and output: what the whole rests on."""
        known = [q.basis for q in (self.input_tokens, self.output_tokens) if q is not None]
        return min(known, default=None)


USAGE_PARTS: tuple[str, ...] = tuple(field.name for field in fields(Usage))
"""The names shared by `TokenCounts` and `Usage`, in order."""


@dataclass(frozen=True, slots=True)
class OutputCounts:
    """Tokens of the text that arrived, by kind, without any content and without constants.

    Units are tokens of the model's vocabulary, summed over all choices. `call_tokens` is the text
    of tool calls as the provider renders them (names and arguments); `calls` is how many there
    were, and `call_name_tokens` the part of `call_tokens` that names the function of a single call.
    `spread` widens the interval to both sides where the text could not be counted exactly.
    `summary_tokens` is text that sums up hidden reasoning: not billed, and no part of `total`.
    """

    text_tokens: int = 0
    refusal_tokens: int = 0
    reasoning_tokens: int = 0
    call_tokens: int = 0
    call_name_tokens: int = 0
    calls: int = 0
    other_tokens: int = 0
    spread: int = 0
    summary_tokens: int = 0

    @property
    def total(self) -> int:
        return (
            self.text_tokens
            + self.refusal_tokens
            + self.reasoning_tokens
            + self.call_tokens
            + self.other_tokens
        )
