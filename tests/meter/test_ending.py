"""How a call ended: the whole table, and the phases that lead there."""

from __future__ import annotations

import itertools

import pytest

from lastchunk.meter.ending import Ending, Stop, ending_of
from lastchunk.meter.phases import TRANSITIONS, Phase, after
from lastchunk.usage import TokenCounts
from lastchunk.wire.events import (
    ChoiceFinished,
    Event,
    ProviderFailed,
    ReasoningArrived,
    ResponseNamed,
    Terminated,
    TextArrived,
    TextKind,
    ToolTextArrived,
    Unreadable,
    UsageReported,
)

BY_STOP = {
    Stop.END_OF_BODY: "upstream_cut",
    Stop.CALLER_LEFT: "caller_left",
    Stop.CONNECTION_BROKE: "upstream_cut",
    Stop.TIMED_OUT: "upstream_timeout",
    Stop.LIMIT_REACHED: "limit_reached",
    Stop.SHUT_DOWN: "limit_reached",
    Stop.NOT_CONNECTED: "never_sent",
    Stop.PROCESS_DIED: "lost",
}
UNFINISHED = (Phase.SENT, Phase.NAMED, Phase.STREAMING, Phase.FINISHED)
ENDED = (Phase.REPORTED, Phase.TERMINATED)


def wanted(phase: Phase, status: int | None, stop: Stop) -> str:
    """The table in words: status first, then the bytes, then why reading stopped."""
    if status in (300, 404, 429, 499):
        return "refused"
    if status in (500, 529) or phase is Phase.FAILED:
        return "upstream_failed"
    return "completed" if phase in ENDED else BY_STOP[stop]


@pytest.mark.parametrize("stop", Stop)
@pytest.mark.parametrize("phase", Phase)
@pytest.mark.parametrize("status", [None, 200, 206, 300, 404, 429, 499, 500, 529])
def test_bytes_outrank_control_flow(phase, status, stop):
    assert ending_of(phase, status, stop) == wanted(phase, status, stop)


def test_every_ending_can_happen():
    statuses = (None, 200, 404, 500)
    reached = {ending_of(*case) for case in itertools.product(Phase, statuses, Stop)}
    assert reached == set(Ending)


EVENTS: list[tuple[Event, Phase]] = [
    (ResponseNamed("r", "m", None), Phase.NAMED),
    (TextArrived(0, TextKind.CONTENT, "x"), Phase.STREAMING),
    (ReasoningArrived(0, "x"), Phase.STREAMING),
    (ToolTextArrived(0, 0, "f", ""), Phase.STREAMING),
    (ChoiceFinished(0, "stop"), Phase.FINISHED),
    (UsageReported(TokenCounts(1), final=True), Phase.REPORTED),
    (Terminated(), Phase.TERMINATED),
    (ProviderFailed(None), Phase.FAILED),
]


def test_the_table_names_every_event():
    assert set(TRANSITIONS) == {type(event) for event, _ in EVENTS} | {Unreadable}


@pytest.mark.parametrize(("event", "leads_to"), EVENTS, ids=lambda v: type(v).__name__)
@pytest.mark.parametrize("phase", Phase)
def test_an_event_leads_forward_or_nowhere(event, leads_to, phase):
    is_over = phase in (Phase.TERMINATED, Phase.FAILED)
    assert after(phase, event) is (phase if is_over else max(phase, leads_to))


@pytest.mark.parametrize("phase", Phase)
def test_what_cannot_be_read_changes_no_phase(phase):
    assert after(phase, Unreadable(3)) is phase
