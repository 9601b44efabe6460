"""How the ledger is, as `/healthz` tells it."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from lastchunk.ledger import LedgerHealth


def told_of_ledger(health: LedgerHealth) -> dict[str, Any]:
    """The ledger's state as JSON. The reason stays in the log: this may be read by anybody."""
    since = health.away_since_ms
    return {
        "state": "away" if health.is_away else "ok",
        "away_since": None
        if since is None
        else datetime.fromtimestamp(since / 1000, UTC).isoformat(timespec="seconds"),
        "spooled_entries": health.spooled_entries,
        "spool_bytes": health.spool_bytes,
        "held_entries": health.held_entries,
        "lost_entries": health.lost_entries,
    }
