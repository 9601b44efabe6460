"""Keys of the gateway's callers: made once, shown once, kept as hashes.

A key reads `lc-<id>-<secret>`. The id finds the row; the secret is 256 random bits, so one round of
SHA-256 hides it as well as a slow hash would, and checking a key costs microseconds.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import Any

import msgspec
import sqlalchemy as sa

from lastchunk.clock import SystemClock
from lastchunk.errors import KeyNotFound
from lastchunk.ids import new_key_id, new_secret
from lastchunk.ledger.database import open_schema, parse_url, unavailable, writing_engine
from lastchunk.ledger.entries import storable
from lastchunk.ledger.tables import keys

PREFIX = "lc"
MAX_PRESENTED_CHARS = 256
"""Of what a caller presents as a key: ours have 66."""

_NOBODY = hashlib.sha256(b"").hexdigest()
"""Compared with where no key has the id, so that knowing ids takes as long as not."""


@dataclass(frozen=True, slots=True)
class Key:
    """One key, without its secret. Times are Unix milliseconds; `None`: never.

    `models` and `upstreams` are patterns such as `gpt-*`; none: any.
    """

    key_id: str
    account: str
    name: str
    models: tuple[str, ...]
    upstreams: tuple[str, ...]
    created_ms: int
    expires_ms: int | None = None
    revoked_ms: int | None = None
    secret_hash: str = ""

    def is_valid(self, now_ms: int) -> bool:
        """Neither revoked nor expired."""
        revoked = self.revoked_ms is not None and self.revoked_ms <= now_ms
        return not revoked and (self.expires_ms is None or now_ms < self.expires_ms)

    def allows_model(self, model: str) -> bool:
        return _fits(model, self.models)

    def allows_upstream(self, upstream: str) -> bool:
        return _fits(upstream, self.upstreams)


class Keyring:
    """Keys to look up by what a caller presents. Immutable: a fresh one replaces it."""

    def __init__(self, known: Iterable[Key]) -> None:
        self._keys = {key.key_id: key for key in known}

    def __len__(self) -> int:
        return len(self._keys)

    def find(self, presented: str) -> Key | None:
        """The key that was presented, whether or not it is still valid. In constant time."""
        parts = presented[:MAX_PRESENTED_CHARS].split("-")
        key_id, secret = (parts[1], parts[2]) if len(parts) == 3 else ("", "")
        key = self._keys.get(key_id) if parts[0] == PREFIX else None
        expected = _NOBODY if key is None else key.secret_hash
        same = hmac.compare_digest(_hash(secret), expected)
        return key if same and key is not None else None


class KeyTable:
    """The keys in a ledger. Each method is one short transaction: not for an event loop."""

    def __init__(self, url: str) -> None:
        """Raises LedgerUnavailable if the ledger cannot be opened."""
        self._url = parse_url(url)
        self._engine = writing_engine(self._url)
        open_schema(self._engine, self._url, SystemClock().now_ms())

    def create(
        self,
        account: str,
        name: str,
        now_ms: int,
        *,
        models: Sequence[str] = (),
        upstreams: Sequence[str] = (),
        expires_ms: int | None = None,
    ) -> tuple[Key, str]:
        """A new key and its text, which is shown now and never again."""
        secret = new_secret()
        key = Key(
            new_key_id(),
            storable(account),
            storable(name),
            tuple(models),
            tuple(upstreams),
            now_ms,
            expires_ms,
            secret_hash=_hash(secret),
        )
        with unavailable(self._url, "written"), self._engine.begin() as connection:
            connection.execute(sa.insert(keys), _row_of(key))
        return key, f"{PREFIX}-{key.key_id}-{secret}"

    def all(self) -> list[Key]:
        """Every key ever made, the oldest first."""
        with unavailable(self._url, "read"), self._reading() as connection:
            rows = connection.execute(sa.select(keys).order_by(keys.c.created_ms, keys.c.key_id))
            return [_key_of(row) for row in rows.mappings()]

    def revoke(self, key_id: str, at_ms: int) -> Key:
        """From `at_ms` on the key opens nothing; revoking it earlier than before is possible.

        Raises KeyNotFound.
        """
        with unavailable(self._url, "written"), self._engine.begin() as connection:
            key = _one(connection, key_id)
            earlier = at_ms if key.revoked_ms is None else min(at_ms, key.revoked_ms)
            connection.execute(
                sa.update(keys).where(keys.c.key_id == key_id).values(revoked_ms=earlier)
            )
        return replace(key, revoked_ms=earlier)

    def rotate(self, key_id: str, now_ms: int, *, overlap_ms: int = 0) -> tuple[Key, str]:
        """A new key in the place of this one, which still opens for `overlap_ms`.

        Raises KeyNotFound, also for a key that is not valid any more.
        """
        with unavailable(self._url, "read"), self._reading() as connection:
            old = _one(connection, key_id)
        if not old.is_valid(now_ms):
            raise KeyNotFound(f"key {key_id} is revoked or expired: create a new one")
        new = self.create(
            old.account,
            old.name,
            now_ms,
            models=old.models,
            upstreams=old.upstreams,
            expires_ms=old.expires_ms,
        )
        self.revoke(key_id, now_ms + overlap_ms)
        return new

    def close(self) -> None:
        self._engine.dispose()

    def _reading(self) -> sa.Connection:
        return self._engine.connect().execution_options(reads=True)


def _one(connection: sa.Connection, key_id: str) -> Key:
    row = connection.execute(sa.select(keys).where(keys.c.key_id == key_id)).mappings().first()
    if row is None:
        if key_id.startswith(f"{PREFIX}-"):
            raise KeyNotFound(
                "that is a key itself, and it is secret: its id is what stands between its first"
                " two dashes"
            )
        raise KeyNotFound(f"there is no key {key_id}: `lastchunk keys list` shows them")
    return _key_of(row)


def _fits(name: str, patterns: Sequence[str]) -> bool:
    return not patterns or any(fnmatchcase(name, pattern) for pattern in patterns)


def _hash(secret: str) -> str:
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()


def _row_of(key: Key) -> dict[str, Any]:
    return {
        "key_id": key.key_id,
        "secret_hash": key.secret_hash,
        "account": key.account,
        "name": key.name,
        "models": msgspec.json.encode(key.models).decode(),
        "upstreams": msgspec.json.encode(key.upstreams).decode(),
        "created_ms": key.created_ms,
        "expires_ms": key.expires_ms,
        "revoked_ms": key.revoked_ms,
    }


def _key_of(row: Any) -> Key:
    patterns = {name: tuple(msgspec.json.decode(row[name])) for name in ("models", "upstreams")}
    return Key(**(dict(row) | patterns))
