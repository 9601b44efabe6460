"""Which living processes have a ledger open."""

from __future__ import annotations

from collections.abc import Sequence

import sqlalchemy as sa

from lastchunk.ledger.in_flight import Process, is_dead, runs_here, this_process
from lastchunk.ledger.tables import processes

_NAMED = 3
"""How many processes an error names."""

_COLUMNS = (
    "process_id",
    "host",
    "machine_id",
    "boot_id",
    "pid_space",
    "pid",
    "start_ticks",
    "started_ms",
    "beat_ms",
    "ended_ms",
)
"""Those of the first schema: the table may stand at an older one than the code."""


def living_processes(connection: sa.Connection, now_ms: int) -> list[Process]:
    """Who has the ledger open and is not known to be dead, the longest first."""
    here = this_process("", now_ms)
    query = sa.select(*(processes.c[name] for name in _COLUMNS)).where(
        processes.c.ended_ms.is_(None)
    )
    signed_in = [
        Process(**row)
        for row in connection.execute(query.order_by(processes.c.process_id)).mappings()
    ]
    return [one for one in signed_in if not is_dead(one, here, now_ms, runs_here)]


def named(living: Sequence[Process], now_ms: int) -> str:
    """For an error: `process 77 on web-1 (heard of 4 s ago) and 2 more`."""
    told = [
        f"process {one.pid} on {one.host} (heard of {max(0, now_ms - one.beat_ms) // 1000} s ago)"
        for one in living[:_NAMED]
    ]
    more = len(living) - len(told)
    return ", ".join(told) + (f" and {more} more" if more else "")
