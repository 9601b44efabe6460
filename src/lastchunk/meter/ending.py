"""How a call ended: what the bytes prove first, then what the control flow says."""

from __future__ import annotations

from enum import StrEnum

from lastchunk.meter.phases import Phase


class Ending(StrEnum):
    """How a call ended. Each call has exactly one."""

    COMPLETED = "completed"
    """The end was seen in the bytes."""
    UPSTREAM_CUT = "upstream_cut"
    """The stream stopped without its terminator, whether the socket closed cleanly or not."""
    UPSTREAM_TIMEOUT = "upstream_timeout"
    """Nothing more came in time."""
    UPSTREAM_FAILED = "upstream_failed"
    """The provider said so: an error event, or a status of 500 and above."""
    CALLER_LEFT = "caller_left"
    """The caller hung up, closed, cancelled, or dropped the stream."""
    LIMIT_REACHED = "limit_reached"
    """We stopped it at a limit."""
    REFUSED = "refused"
    """The provider answered with a status of 300 to 499: nothing was generated."""
    NEVER_SENT = "never_sent"
    """The request did not leave: no connection."""
    LOST = "lost"
    """Its process died; settled afterwards from what was last written down."""


class Stop(StrEnum):
    """Why no more bytes will be read, as the way in saw it. Bytes may prove it wrong."""

    END_OF_BODY = "end_of_body"
    CALLER_LEFT = "caller_left"
    CONNECTION_BROKE = "connection_broke"
    TIMED_OUT = "timed_out"
    LIMIT_REACHED = "limit_reached"
    SHUT_DOWN = "shut_down"
    """This gateway ended, and could wait no longer."""
    NOT_CONNECTED = "not_connected"
    PROCESS_DIED = "process_died"


_BY_STOP: dict[Stop, Ending] = {
    Stop.END_OF_BODY: Ending.UPSTREAM_CUT,
    Stop.CALLER_LEFT: Ending.CALLER_LEFT,
    Stop.CONNECTION_BROKE: Ending.UPSTREAM_CUT,
    Stop.TIMED_OUT: Ending.UPSTREAM_TIMEOUT,
    Stop.LIMIT_REACHED: Ending.LIMIT_REACHED,
    Stop.SHUT_DOWN: Ending.LIMIT_REACHED,
    Stop.NOT_CONNECTED: Ending.NEVER_SENT,
    Stop.PROCESS_DIED: Ending.LOST,
}


def ending_of(phase: Phase, status: int | None, stop: Stop) -> Ending:
    """The one ending, from what was seen and why reading stopped. Bytes outrank control flow."""
    if status is not None and 300 <= status < 500:
        return Ending.REFUSED
    if phase is Phase.FAILED or (status is not None and status >= 500):
        return Ending.UPSTREAM_FAILED
    if phase >= Phase.REPORTED:
        return Ending.COMPLETED
    return _BY_STOP[stop]
