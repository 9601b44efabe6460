"""The table of keys: whose they are and what they still open."""

from __future__ import annotations

from collections.abc import Iterable

from lastchunk.ledger.keys import Key
from lastchunk.reports.table import Column, Kind, Table

_COLUMNS = (
    Column("key_id", "key", Kind.ID),
    Column("account", "account"),
    Column("name", "name"),
    Column("state", "state"),
    Column("models", "models", below=1),
    Column("upstreams", "upstreams", below=1),
    Column("created", "created", Kind.MOMENT, below=2),
    Column("expires", "expires", Kind.MOMENT, below=1),
)


def keys_table(keys: Iterable[Key], now_ms: int) -> Table:
    """All keys with their state at `now_ms`: valid, rotated out soon, revoked or expired."""
    rows = tuple(
        (
            key.key_id,
            key.account,
            key.name,
            state_of(key, now_ms),
            ", ".join(key.models) or "any",
            ", ".join(key.upstreams) or "any",
            key.created_ms,
            key.expires_ms,
        )
        for key in keys
    )
    return Table(
        "keys", "", _COLUMNS, rows, empty="no keys: `lastchunk keys create` makes the first one"
    )


def state_of(key: Key, now_ms: int) -> str:
    """In one word, or two."""
    if key.revoked_ms is not None:
        return "revoked" if key.revoked_ms <= now_ms else "valid until rotated"
    if key.expires_ms is not None and key.expires_ms <= now_ms:
        return "expired"
    return "valid"
