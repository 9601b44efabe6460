"""The cells of the matrix, as literal tables: what must come of each, or why there is none."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

from lastchunk.meter.ending import Ending
from lastchunk.usage import Basis
from lastchunk.wire.dialect import Dialect


class Fault(StrEnum):
    """What breaks."""

    CLIENT_FIN = "client-fin"
    """The client hangs up: it closes the stream."""
    CLIENT_RST = "client-rst"
    """The client is torn away: a reset at the gateway, a cancelled or dropped stream in process."""
    SLOW_READER = "slow-reader"
    """The client pauses at every chunk from the moment on."""
    NEVER_READS = "never-reads"
    """The client holds the stream open from the moment on and reads no more, then drops it."""
    UPSTREAM_FIN = "upstream-fin"
    """The provider closes the connection in the middle of the body."""
    UPSTREAM_RST = "upstream-rst"
    """The provider resets the connection."""
    UPSTREAM_STALL = "upstream-stall"
    """The provider falls silent and keeps the connection open."""
    ERROR_EVENT = "error-event"
    """The provider says inside a 200 that it failed."""
    MISSING_END = "missing-end"
    """The body ends as HTTP wants it, but without its dialect's end."""
    GARBAGE = "garbage"
    """A frame that is no JSON, and then on as if nothing had been."""
    SERVER_ERROR = "http-5xx"
    """The provider answers with a status of 500."""
    SIGTERM = "sigterm"
    """The door's process is asked to stop."""
    SIGKILL = "sigkill"
    """The door's process is killed; the next one recovers."""
    LEDGER_AWAY = "ledger-away"
    """The ledger cannot be written for a while: locked, or its server is gone."""


class Moment(StrEnum):
    """When it breaks, in the life of one stream."""

    HEADERS = "before-headers"
    FIRST_CHUNK = "before-first-chunk"
    MID = "mid-stream"
    FINISH = "after-finish"
    USAGE = "after-usage"
    END = "after-end"


class Door(StrEnum):
    """How the call came in."""

    SYNC = "sync"
    ASYNC = "async"
    GATEWAY = "gateway"


class Store(StrEnum):
    """Where the ledger is."""

    SQLITE = "sqlite"
    POSTGRESQL = "postgresql"


@dataclass(frozen=True, slots=True)
class Cell:
    """One combination."""

    fault: Fault
    dialect: Dialect
    moment: Moment
    door: Door
    ledger: Store

    @property
    def name(self) -> str:
        return f"{self.fault}/{self.dialect}/{self.moment}/{self.door}/{self.ledger}"

    @property
    def selector(self) -> str:
        """What `--only` takes to play this cell alone."""
        return (
            f"fault={self.fault},dialect={self.dialect},moment={self.moment},"
            f"door={self.door},ledger={self.ledger}"
        )


def cell_named(name: str) -> Cell:
    """The inverse of `Cell.name`."""
    fault, dialect, moment, door, store = name.split("/")
    return Cell(Fault(fault), Dialect(dialect), Moment(moment), Door(door), Store(store))


def all_cells() -> Iterator[Cell]:
    """Every combination, also those that make no sense."""
    for parts in itertools.product(Fault, Dialect, Moment, Door, Store):
        yield Cell(*parts)


Outcomes = tuple[tuple[Ending, Basis], ...]
"""The endings that are right here, each with the weakest basis that will do: the strongest that can
be had. Where there are several, it is a race whose every end is right."""

_DONE = (Ending.COMPLETED, Basis.REPORTED)

DONE: Outcomes = (_DONE,)
LEFT: Outcomes = ((Ending.CALLER_LEFT, Basis.COUNTED),)
LEFT_UNSEEN: Outcomes = ((Ending.CALLER_LEFT, Basis.ASSUMED),)
CUT: Outcomes = ((Ending.UPSTREAM_CUT, Basis.COUNTED),)
CUT_UNSEEN: Outcomes = ((Ending.UPSTREAM_CUT, Basis.ASSUMED),)
STALLED: Outcomes = ((Ending.UPSTREAM_TIMEOUT, Basis.COUNTED),)
STALLED_UNSEEN: Outcomes = ((Ending.UPSTREAM_TIMEOUT, Basis.ASSUMED),)
FAILED: Outcomes = ((Ending.UPSTREAM_FAILED, Basis.COUNTED),)
FAILED_UNSEEN: Outcomes = ((Ending.UPSTREAM_FAILED, Basis.ASSUMED),)
FAILED_OR_DONE: Outcomes = ((Ending.UPSTREAM_FAILED, Basis.REPORTED), _DONE)
STOPPED: Outcomes = ((Ending.LIMIT_REACHED, Basis.COUNTED),)
STOPPED_UNSEEN: Outcomes = ((Ending.LIMIT_REACHED, Basis.ASSUMED),)
LOST: Outcomes = ((Ending.LOST, Basis.BOUNDED),)
LOST_COUNTED: Outcomes = ((Ending.LOST, Basis.COUNTED),)
LOST_UNSEEN: Outcomes = ((Ending.LOST, Basis.ASSUMED),)

_NO_STREAM = "before the headers there is no stream"
_READ = "nothing is left to read"
_LATER = "a status is said once, before the headers; later it is an error-event"

EXPECTED: dict[Fault, tuple[Outcomes | str, ...]] = {
    # before-headers, before-first-chunk, mid-stream, after-finish, after-usage, after-end
    Fault.CLIENT_FIN: (LEFT_UNSEEN, LEFT_UNSEEN, LEFT, DONE, DONE, DONE),
    Fault.CLIENT_RST: (LEFT_UNSEEN, LEFT_UNSEEN, LEFT, DONE, DONE, DONE),
    Fault.SLOW_READER: (_NO_STREAM, DONE, DONE, DONE, DONE, _READ),
    Fault.NEVER_READS: (_NO_STREAM, LEFT_UNSEEN, LEFT, DONE, DONE, _READ),
    Fault.UPSTREAM_FIN: (CUT_UNSEEN, CUT_UNSEEN, CUT, CUT, DONE, DONE),
    Fault.UPSTREAM_RST: (CUT_UNSEEN, CUT_UNSEEN, CUT, CUT, DONE, DONE),
    Fault.UPSTREAM_STALL: (STALLED_UNSEEN, STALLED_UNSEEN, STALLED, STALLED, DONE, DONE),
    Fault.ERROR_EVENT: (_NO_STREAM, FAILED_UNSEEN, FAILED, FAILED, FAILED_OR_DONE, DONE),
    Fault.MISSING_END: (_NO_STREAM, CUT_UNSEEN, CUT, CUT, DONE, "the end was sent"),
    Fault.GARBAGE: (_NO_STREAM, LEFT_UNSEEN, LEFT, DONE, DONE, DONE),
    Fault.SERVER_ERROR: (
        ((Ending.UPSTREAM_FAILED, Basis.BOUNDED),),
        *(_LATER,) * 5,
    ),
    Fault.SIGTERM: (STOPPED_UNSEEN, STOPPED_UNSEEN, STOPPED, STOPPED, DONE, DONE),
    Fault.SIGKILL: (LOST_UNSEEN, LOST_UNSEEN, LOST, LOST_COUNTED, DONE, DONE),
    Fault.LEDGER_AWAY: (DONE, DONE, DONE, DONE, DONE, DONE),
}

LEAVES = frozenset(
    {Fault.CLIENT_FIN, Fault.CLIENT_RST, Fault.NEVER_READS, Fault.GARBAGE}  # SDKs choke on garbage
)
"""Faults that make the caller leave. Where the provider had sent all before that was noticed, the
call is a completed one, and must be reported: bytes outrank control flow."""

IN_PROCESS: dict[Fault, tuple[Outcomes | str, ...]] = {
    # An application that stops leaves its calls; a gateway that stops cuts those of others off.
    Fault.SIGTERM: (LEFT_UNSEEN, LEFT_UNSEEN, LEFT, LEFT, DONE, DONE),
}
"""Where the doors differ: these go before `EXPECTED`."""

IN_RESPONSES: dict[tuple[Fault, Moment], Outcomes] = {
    # No finish is told before the terminal event: a lost call may have gone on.
    (Fault.SIGKILL, Moment.FINISH): LOST,
    # … and a caller who leaves then leaves a stream that may go on.
    (Fault.CLIENT_FIN, Moment.FINISH): LEFT,
    (Fault.CLIENT_RST, Moment.FINISH): LEFT,
    (Fault.NEVER_READS, Moment.FINISH): LEFT,
    (Fault.GARBAGE, Moment.FINISH): LEFT,
}
"""Where the dialects differ."""

ONE_EVENT = "in Responses usage and end are one event: see after-end"
WAITS = "a sync caller waits inside the client until the headers are there"


def expected(cell: Cell) -> Outcomes | str:
    """What must come of a cell, or the reason why there is no such cell."""
    outcomes = EXPECTED[cell.fault]
    if cell.door is not Door.GATEWAY:
        outcomes = IN_PROCESS.get(cell.fault, outcomes)
    found = outcomes[list(Moment).index(cell.moment)]
    if isinstance(found, str):
        return found
    if cell.dialect is Dialect.RESPONSES and cell.moment is Moment.USAGE:
        return ONE_EVENT
    if cell.dialect is Dialect.RESPONSES:
        found = IN_RESPONSES.get((cell.fault, cell.moment), found)
    leaves = cell.fault in (Fault.CLIENT_FIN, Fault.CLIENT_RST)
    if leaves and cell.moment is Moment.HEADERS and cell.door is Door.SYNC:
        return WAITS
    return found


def is_applicable(cell: Cell) -> bool:
    return not isinstance(expected(cell), str)
