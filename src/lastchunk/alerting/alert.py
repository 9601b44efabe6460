"""What is told: one threshold that one account crossed in one window of time."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Alert:
    """One warning. Two with the same kind, name, account, window and level are the same one.

    `level` is in percent, `start_ms` the window's beginning in Unix ms. `facts` are what else is
    told, as JSON values by name; no content, ever.
    """

    kind: str
    """What was crossed: `budget`, or a kind of another source."""
    name: str
    account: str
    start_ms: int
    level: int
    message: str
    """For people, and the log."""
    facts: tuple[tuple[str, str | int | float | None], ...] = ()

    @property
    def subject(self) -> str:
        """The kind and name, as the ledger's notices have it."""
        return f"{self.kind}:{self.name}"

    @property
    def alert_id(self) -> str:
        """The same however often it is delivered, and by whichever process."""
        named = [self.kind, self.name, self.account, self.start_ms, self.level]
        return hashlib.sha256(json.dumps(named).encode()).hexdigest()[:32]

    def body(self) -> bytes:
        """The JSON that a webhook is sent."""
        told = {
            "id": self.alert_id,
            "kind": self.kind,
            "name": self.name,
            "account": self.account,
            "window_start_ms": self.start_ms,
            "level_percent": self.level,
            "message": self.message,
        }
        return json.dumps(told | dict(self.facts)).encode()
