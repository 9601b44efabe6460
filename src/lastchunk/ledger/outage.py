"""What is known of a ledger that is away: since when, why, and what waits for it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class LedgerHealth:
    """The ledger's state. `away_since_ms` (Unix ms) and `reason` are None while it is well.

    `spooled_entries` and `spool_bytes` wait on this machine's disk, `held_entries` in memory, where
    the spool cannot take them. `lost_entries` found no room anywhere since this process started.
    """

    away_since_ms: int | None = None
    reason: str | None = None
    spooled_entries: int = 0
    spool_bytes: int = 0
    held_entries: int = 0
    lost_entries: int = 0
    refuses_calls: bool = False

    @property
    def is_away(self) -> bool:
        return self.away_since_ms is not None


WELL = LedgerHealth()
