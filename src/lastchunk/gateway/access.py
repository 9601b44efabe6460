"""Who is at the door: keys of callers, and the account that each may spend from."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from lastchunk.accounts import is_account_path, is_under
from lastchunk.clock import Clock
from lastchunk.errors import LedgerUnavailable
from lastchunk.gateway import headers as through
from lastchunk.ledger.keys import PREFIX, Key, Keyring, KeyTable

REFRESH_SECONDS = 2.0
"""How long a key that was made or revoked elsewhere may go unnoticed."""

log = logging.getLogger("lastchunk.gateway")


@dataclass(frozen=True, slots=True)
class Guest:
    """Whoever was let in. `key` is None as long as the gateway has none."""

    account: str
    tags: tuple[tuple[str, str], ...]
    key: Key | None
    is_known: bool = True
    """False: there may be keys, and nobody could read them yet."""

    def may_use(self, model: str | None, upstream: str) -> bool:
        """Whether the key allows this; a key for some models allows nothing that names none."""
        if self.key is None:
            return True
        allowed = not self.key.models if model is None else self.key.allows_model(model)
        return allowed and self.key.allows_upstream(upstream)


@dataclass(frozen=True, slots=True)
class Denied:
    """Why somebody is not let in: a name for machines, a sentence for people."""

    status: int
    code: str
    message: str


_NO_KEY = Denied(
    401,
    "missing_api_key",
    "This gateway wants a key of its own: send it as `Authorization: Bearer lc-…`.",
)
_WRONG_KEY = Denied(401, "invalid_api_key", "This key is not known here, or it is over.")
KEYS_UNREAD = Denied(
    503,
    "keys_not_read",
    "The ledger is away and this gateway has not read its keys yet, so nobody is let in with one."
    " Try again later.",
)
_ALIEN_ACCOUNT = Denied(
    403, "account_not_allowed", "This key may only spend from its own account and those below it."
)


class Door:
    """Lets callers in. Keys are read anew every few seconds, apart from the event loop."""

    def __init__(
        self, open_table: Callable[[], KeyTable] | None, clock: Clock, default_account: str
    ) -> None:
        """`open_table` None: there are no keys, and everybody is let in."""
        self._open_table = open_table
        self._table: KeyTable | None = None
        self._clock = clock
        self._default_account = default_account
        self._keyring = Keyring(())
        self._warned = False
        self._refreshing: asyncio.Task[None] | None = None
        self.has_read = open_table is None
        """Whether it is known if there are keys: not before a ledger that is away comes back."""

    @property
    def wants_keys(self) -> bool:
        """From the first key on, also when all of them are revoked again."""
        return len(self._keyring) > 0

    def read_keys(self) -> None:
        """Read the keys, now. Raises LedgerUnavailable."""
        if self._open_table is not None:
            self._table = self._table or self._open_table()
            self._keyring = Keyring(self._table.all())
            self.has_read = True

    async def open(self) -> None:
        """Read them, and go on reading them."""
        if self._open_table is not None:
            await self._try()
            self._refreshing = asyncio.create_task(self._refresh())

    async def close(self) -> None:
        if self._refreshing is not None:
            self._refreshing.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._refreshing
        if self._table is not None:
            self._table.close()

    def enter(self, headers: Mapping[str, str]) -> Guest | Denied:
        """Who this is, by its key, and which account it names."""
        presented = _presented(headers)
        if not self.has_read and presented.startswith(f"{PREFIX}-"):
            return KEYS_UNREAD
        if not self.wants_keys:
            account, tags = through.labels(headers, self._default_account)
            return Guest(account, tags, None, self.has_read)
        if not presented:
            return _NO_KEY
        key = self._keyring.find(presented)
        if key is None or not key.is_valid(self._clock.now_ms()):
            return _WRONG_KEY
        account, tags = through.labels(headers, key.account)
        if account != key.account and not (
            is_under(account, key.account) and is_account_path(account)
        ):
            return _ALIEN_ACCOUNT
        return Guest(account, tags, key)

    async def _refresh(self) -> None:
        while True:
            await asyncio.sleep(REFRESH_SECONDS)
            await self._try()

    async def _try(self) -> None:
        try:
            await asyncio.to_thread(self.read_keys)
        except LedgerUnavailable as error:  # the keys that are known go on to hold
            if not self._warned:
                log.warning("the keys cannot be read: %s", error)
            self._warned = True
            return
        self._warned = False


def _presented(headers: Mapping[str, str]) -> str:
    """As OpenAI's and Azure's clients send a key."""
    scheme, _, value = headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer" and value.strip():
        return value.strip()
    return headers.get("api-key", "").strip()
