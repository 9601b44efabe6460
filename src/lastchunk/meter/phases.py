"""How far a call has come, as a literal table of what each event does to it."""

from __future__ import annotations

from enum import IntEnum

from lastchunk.wire.events import (
    ChoiceFinished,
    Event,
    ProviderFailed,
    ReasoningArrived,
    ResponseNamed,
    Terminated,
    TextArrived,
    ToolTextArrived,
    Unreadable,
    UsageReported,
)


class Phase(IntEnum):
    """In order of progress."""

    SENT = 0
    """The request is on its way; nothing came back."""
    NAMED = 1
    """The response has begun; no output yet."""
    STREAMING = 2
    """Output is arriving."""
    FINISHED = 3
    """Every choice has its finish reason; the usage is still to come."""
    REPORTED = 4
    """The provider's final usage was seen."""
    TERMINATED = 5
    """The dialect's own end was seen."""
    FAILED = 6
    """The provider said that it failed."""


_S, _N, _T, _F, _R, _E, _X = Phase

TRANSITIONS: dict[type[Event], dict[Phase, Phase]] = {
    ResponseNamed: {_S: _N},
    TextArrived: {_S: _T, _N: _T},
    ReasoningArrived: {_S: _T, _N: _T},
    ToolTextArrived: {_S: _T, _N: _T},
    ChoiceFinished: {_S: _F, _N: _F, _T: _F},  # taken when the last open choice has finished
    UsageReported: {_S: _R, _N: _R, _T: _R, _F: _R},  # taken when the report is final
    Terminated: {_S: _E, _N: _E, _T: _E, _F: _E, _R: _E},
    ProviderFailed: {_S: _X, _N: _X, _T: _X, _F: _X, _R: _X},
    Unreadable: {},
}
"""Where an event leads from each phase; a phase that is not named stays as it is."""


def after(phase: Phase, event: Event) -> Phase:
    """The phase after an event that counts (see the remarks in the table)."""
    return TRANSITIONS[type(event)].get(phase, phase)
