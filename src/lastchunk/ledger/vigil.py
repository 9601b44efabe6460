"""Watching the other processes on this ledger: who is dead, and which calls it left open."""

from __future__ import annotations

import logging
from collections.abc import Iterable

import sqlalchemy as sa

from lastchunk.errors import LedgerUnavailable
from lastchunk.ledger.detail import decode
from lastchunk.ledger.in_flight import Orphan, Process, known_death, runs_here
from lastchunk.ledger.tables import entries, in_flight, is_reservation, processes
from lastchunk.meter.observation import Observation
from lastchunk.settlement.facts import OpenCall

SILENT_LOOKS = 8
"""A process whose beat stands still for so many looks in a row is dead. It beats about as often as
others look, every two seconds: shorter would take a pause for a death."""

MAX_ORPHANS = 256
"""Read in one look, which holds the writer up; the next look is two seconds away."""

KEPT_MS = 86_400_000
"""Of a process without open calls nothing is kept a day after its last beat."""

logger = logging.getLogger(__name__)


class Vigil:
    """One process's watch over all others that have calls open.

    Where only silence can tell, neither this host's clock nor the others' is asked: a beat that
    does not change while this process looks, again and again, is silence. A host whose clock is off
    or jumps is not taken for dead, and whoever was paused looks anew when it wakes.
    """

    def __init__(self, here: Process) -> None:
        self._here = here
        self._looks = 0
        self._beats: dict[str, tuple[int, int]] = {}
        """Of each process on another host its last beat, and the look that first saw that."""
        self._unreadable: set[str] = set()

    def look(self, connection: sa.Connection) -> list[Orphan]:
        """Open calls of dead processes, in the given transaction. Count the look when it is over.

        Until then it can be repeated, as part of a transaction that failed.
        """
        found = [_process(row) for row in connection.execute(_whose_calls_are_open).mappings()]
        dead = [process.process_id for process in found if self._is_dead(process)]
        present = {process.process_id for process in found}
        self._beats = {id_: beat for id_, beat in self._beats.items() if id_ in present}
        return orphans_of(connection, dead, limit=MAX_ORPHANS, reported=self._unreadable)

    def count_look(self) -> None:
        """The look's transaction was committed."""
        self._looks += 1

    def _is_dead(self, process: Process) -> bool:
        if process.process_id == self._here.process_id:
            return False
        known = known_death(process, self._here, runs_here)
        if known is not None:
            return known
        beat, since = self._beats.get(process.process_id, (None, 0))
        if beat != process.beat_ms:
            self._beats[process.process_id] = (process.beat_ms, self._looks)
            return False
        return self._looks - since >= SILENT_LOOKS


def orphans_of(
    connection: sa.Connection,
    dead: Iterable[str],
    *,
    limit: int | None = None,
    reported: set[str] | None = None,
) -> list[Orphan]:
    """The open calls of these processes; all of them, unless there is a limit.

    `reported` takes the ids of calls that cannot be read, and keeps them from being logged again.
    """
    if not (ids := list(dead)):
        return []
    rows = connection.execute(_orphans.limit(limit), {"ids": ids}).all()
    told = set() if reported is None else reported
    orphans: list[Orphan] = []
    for row in rows:
        if row.call_id in told:
            continue
        if (orphan := _orphan(row.call_id, row.detail, row.seen)) is not None:
            orphans.append(orphan)
        else:
            told.add(row.call_id)
    return orphans


def prune(connection: sa.Connection, now_ms: int) -> None:
    """Forget processes that ended long ago. One that lives signs in again with its next beat."""
    connection.execute(_prune, {"before_ms": now_ms - KEPT_MS})


def _process(row: sa.RowMapping) -> Process:
    """One that was forgotten, and had a call open after all, is known by its id alone."""
    if row["host"] is None:
        return Process(row["its_id"], "", "", "", "", 0, None, 0, 0)
    return Process(**{name: value for name, value in row.items() if name != "its_id"})


def _orphan(call_id: str, detail: str, seen: str | None) -> Orphan | None:
    """One that cannot be read must not keep the others from being recovered."""
    try:
        call = decode(detail, OpenCall, call_id)
    except LedgerUnavailable as error:
        logger.error("not recovered: %s", error)
        return None
    try:
        return Orphan(call, None if seen is None else decode(seen, Observation, call_id))
    except LedgerUnavailable as error:
        logger.error("recovered without what was seen of it: %s", error)
        return Orphan(call, None)


_with_calls = sa.select(in_flight.c.process_id.label("its_id")).distinct().subquery()
_whose_calls_are_open = sa.select(_with_calls.c.its_id, processes).select_from(
    _with_calls.outerjoin(processes, processes.c.process_id == _with_calls.c.its_id)
)
_orphans = (
    sa.select(in_flight.c.call_id, in_flight.c.seen, entries.c.detail)
    .join(entries, entries.c.call_id == in_flight.c.call_id)
    .where(is_reservation(entries), in_flight.c.process_id.in_(sa.bindparam("ids", expanding=True)))
    .order_by(in_flight.c.call_id)
)
_prune = sa.delete(processes).where(
    sa.func.coalesce(processes.c.ended_ms, processes.c.beat_ms) < sa.bindparam("before_ms"),
    ~sa.exists().where(in_flight.c.process_id == processes.c.process_id),
)
