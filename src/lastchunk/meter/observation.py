"""What was seen of one call: storable, without content."""

from __future__ import annotations

from dataclasses import dataclass

from lastchunk.meter.departure import Departure
from lastchunk.meter.phases import Phase
from lastchunk.usage import OutputCounts, Quantity, TokenCounts


@dataclass(frozen=True, slots=True)
class Observation:
    """All evidence about one call at one moment. Times are Unix milliseconds.

    `output` is None while nothing has been counted (it is only counted when the provider's usage
    did not come); `prompt` likewise. `reported` is the provider's latest usage,
    `reported_is_final` whether no later one can differ. `finished_choices` of the choices asked for
    have ended. `reasoning_seen` tells that reasoning or a summary of it arrived as text;
    `uncounted_chars` is how much output beyond the limit on kept text was only measured.
    `uncounted_frames` of the `frames` had arrived when this was written down and were not counted:
    `output` is without them. `observed_ms` is when this was written down, or when reading stopped.
    """

    phase: Phase = Phase.SENT
    status: int | None = None
    response_id: str | None = None
    model_served: str | None = None
    tier_served: str | None = None
    frames: int = 0
    bytes: int = 0
    unreadable: int = 0
    output: OutputCounts | None = None
    finished_choices: int = 0
    refused_choices: int = 0
    finish_reason: str | None = None
    reasoning_seen: bool = False
    prompt: Quantity | None = None
    prompt_reasons: tuple[str, ...] = ()
    reported: TokenCounts | None = None
    reported_is_final: bool = False
    failure_code: str | None = None
    uncounted_chars: int = 0
    uncounted_frames: int = 0
    first_byte_ms: int | None = None
    first_token_ms: int | None = None
    last_byte_ms: int | None = None
    observed_ms: int | None = None
    faults: tuple[str, ...] = ()
    """Our own troubles with this call, by name: each has cost it a basis."""
    departure: Departure | None = None
    """The caller had left when output could still come."""
    shut_down: bool = False
    """It was stopped because this gateway was ending, not by a limit of its caller's."""

    @property
    def is_fully_reported(self) -> bool:
        """The provider's final usage says input and output: nothing needs counting."""
        told = self.reported
        if told is None or not self.reported_is_final:
            return False
        return told.input_tokens is not None and told.output_tokens is not None
