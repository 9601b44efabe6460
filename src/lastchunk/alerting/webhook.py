"""Delivers alerts to the operator's URL: signed, retried, from a bounded queue.

Each is a POST of JSON with three headers:

    x-lastchunk-id           the alert's id: the same again when it is delivered again
    x-lastchunk-timestamp    when this attempt was made, Unix seconds
    x-lastchunk-signature    sha256=HEX: HMAC-SHA256 with the secret over TIMESTAMP.BODY

An answer of 200 to 299 is taken as delivered. Redirects are not followed.
"""

from __future__ import annotations

import hashlib
import hmac
import http.client
import logging
import os
import queue
import threading
from collections.abc import Callable
from urllib.parse import urlsplit

from lastchunk.alerting.alert import Alert
from lastchunk.clock import Clock
from lastchunk.config import WarningRow
from lastchunk.errors import SettingsError

QUEUED_ALERTS = 100
"""Waiting for delivery; what finds no room is told again by a later look at its limit."""

ATTEMPTS = 6
FIRST_PAUSE_SECONDS = 1.0
"""Before the second attempt; it doubles with each: half a minute in all."""

TIMEOUT_SECONDS = 10.0
"""Of one attempt, for connecting and for each answer."""

SECRET_BYTES = 16
"""A shorter secret could be guessed from one signature."""

log = logging.getLogger("lastchunk.warnings")


def webhook_of(row: WarningRow, clock: Clock) -> Webhook | None:
    """The webhook of the operator's file; None where there is none.

    Raises SettingsError where its URL or secret cannot be used.
    """
    if row.webhook_url is None:
        return None
    parts = urlsplit(row.webhook_url)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.username:
        raise SettingsError("[warnings] webhook_url: write https://host/path, without credentials")
    if row.webhook_secret_env is None:
        raise SettingsError(
            "[warnings] webhook_secret_env is missing: name the environment variable that holds"
            " the secret to sign with"
        )
    secret = os.environ.get(row.webhook_secret_env, "").encode()
    if len(secret) < SECRET_BYTES:
        raise SettingsError(
            f"{row.webhook_secret_env} is empty or short: set it to {SECRET_BYTES} random"
            " characters or more"
        )
    return Webhook(row.webhook_url, secret, clock)


def signature(secret: bytes, timestamp: str, body: bytes) -> str:
    """What `x-lastchunk-signature` says."""
    digest = hmac.new(secret, timestamp.encode() + b"." + body, hashlib.sha256).hexdigest()
    return f"sha256={digest}"


class Webhook:
    """One URL, one thread. `offer` never waits."""

    def __init__(
        self, url: str, secret: bytes, clock: Clock, first_pause: float = FIRST_PAUSE_SECONDS
    ) -> None:
        self._url = urlsplit(url)
        self._secret = secret
        self._clock = clock
        self._first_pause = first_pause
        self._waiting: queue.Queue[tuple[Alert, Callable[[bool], None]] | None]
        self._waiting = queue.Queue(QUEUED_ALERTS)
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="lastchunk-webhook", daemon=True)
        self._thread.start()

    def offer(self, alert: Alert, done: Callable[[bool], None]) -> bool:
        """Take an alert to be delivered; `done` hears, on the webhook's thread, whether it was.

        False where too many wait: `done` will hear nothing.
        """
        try:
            self._waiting.put_nowait((alert, done))
        except queue.Full:
            return False
        return True

    def close(self, timeout: float) -> None:
        """Try what waits once more, without pauses, for so long."""
        self._closing.set()
        try:
            self._waiting.put_nowait(None)
        except queue.Full:
            return  # the thread is a daemon: what waits is delivered by the next process
        self._thread.join(timeout)

    def _run(self) -> None:
        while (taken := self._waiting.get()) is not None:
            alert, done = taken
            done(self._deliver(alert))

    def _deliver(self, alert: Alert) -> bool:
        pause = self._first_pause
        for attempt in range(1, ATTEMPTS + 1):
            why = self._post(alert)
            if why is None:
                return True
            log.warning("webhook: alert %s, attempt %d: %s", alert.alert_id, attempt, why)
            if attempt == ATTEMPTS or self._closing.wait(pause):
                break
            pause *= 2
        log.error("webhook: alert %s was not delivered; it will be tried again", alert.alert_id)
        return False

    def _post(self, alert: Alert) -> str | None:
        """None where it was taken; else why not. `http.client` follows no redirect, no proxy."""
        body, timestamp = alert.body(), str(self._clock.now_ms() // 1000)
        headers = {
            "content-type": "application/json",
            "user-agent": "lastchunk",
            "x-lastchunk-id": alert.alert_id,
            "x-lastchunk-timestamp": timestamp,
            "x-lastchunk-signature": signature(self._secret, timestamp, body),
        }
        target = (self._url.path or "/") + (f"?{self._url.query}" if self._url.query else "")
        connection = self._connection()
        try:
            connection.request("POST", target, body, headers)
            status = connection.getresponse().status
        except (OSError, http.client.HTTPException) as error:
            return type(error).__name__
        finally:
            connection.close()
        if 300 <= status < 400:
            return f"status {status}: redirects are not followed"
        return None if 200 <= status < 300 else f"status {status}"

    def _connection(self) -> http.client.HTTPConnection:
        kind = (
            http.client.HTTPSConnection
            if self._url.scheme == "https"
            else http.client.HTTPConnection
        )
        assert self._url.hostname is not None, "the URL was checked"
        return kind(self._url.hostname, self._url.port, timeout=TIMEOUT_SECONDS)
