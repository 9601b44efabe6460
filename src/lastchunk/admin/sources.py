"""What the endpoints read and change: the ledger, the keys, the rules, the gateway's state."""

from __future__ import annotations

import threading
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from lastchunk.bookkeeper import Bookkeeper
from lastchunk.config import Config
from lastchunk.ledger import Reader
from lastchunk.ledger.keys import KeyTable

Reload = Callable[[], Awaitable[None]]
"""Reads the rules again, on the event loop. Raises SettingsError where they cannot be used; the
old ones go on to hold then."""


@dataclass(slots=True)
class Sources:
    """Opened when they are first needed: a ledger that is away at the start hinders nobody.

    `ledger_url` is the ledger's path or URL with its password. `rules` gives the rules in force
    now. Without `reload` they cannot be read again.
    """

    ledger_url: str
    bookkeeper: Bookkeeper
    rules: Callable[[], Config]
    reload: Reload | None = None
    stopping: threading.Event = field(default_factory=threading.Event)
    """Set when the listener closes: what takes long gives up."""
    verifying: threading.Lock = field(default_factory=threading.Lock)
    run_reload: Callable[[Reload], None] | None = None
    """Set by the listener: runs it on the event loop and waits, from a thread."""
    _opening: threading.Lock = field(default_factory=threading.Lock)
    _reader: Reader | None = None
    _keys: KeyTable | None = None

    @property
    def reader(self) -> Reader:
        """Raises LedgerUnavailable."""
        with self._opening:
            if self._reader is None:
                self._reader = Reader.open(self.ledger_url)
            return self._reader

    @property
    def keys(self) -> KeyTable:
        """Raises LedgerUnavailable."""
        with self._opening:
            if self._keys is None:
                self._keys = KeyTable(self.ledger_url)
            return self._keys

    def now_ms(self) -> int:
        return self.bookkeeper.clock.now_ms()

    def close(self) -> None:
        self.stopping.set()
        with self._opening:
            if self._reader is not None:
                self._reader.close()
            if self._keys is not None:
                self._keys.close()
