"""What all kinds of telemetry say of one settled call: its times."""

from __future__ import annotations

from lastchunk.meter.ending import Ending
from lastchunk.settlement.facts import OpenCall, Settlement


def ended_ms(call: OpenCall, settlement: Settlement) -> int | None:
    """When reading stopped, in Unix ms; None for a lost call: only a last look is known."""
    seen = settlement.observation
    at_ms = seen.last_byte_ms if seen.observed_ms is None else seen.observed_ms
    if settlement.ending is Ending.LOST or at_ms is None:
        return None
    return max(at_ms, call.opened_ms)


def duration_seconds(call: OpenCall, settlement: Settlement) -> float | None:
    """From the opening to the end of reading."""
    at_ms = ended_ms(call, settlement)
    return None if at_ms is None else (at_ms - call.opened_ms) / 1000


def first_token_seconds(call: OpenCall, settlement: Settlement) -> float | None:
    """From the opening to the first token of a stream; None where none came."""
    at_ms = settlement.observation.first_token_ms
    return (
        None if at_ms is None or not call.request.stream else max(0, at_ms - call.opened_ms) / 1000
    )
