"""For whoever operates the gateway: `/healthz`, `/readyz` and `/metrics`."""

from __future__ import annotations

import asyncio
import contextlib
import hmac
from collections.abc import Callable

from aiohttp import web

from lastchunk.bookkeeper import Bookkeeper
from lastchunk.gateway.ledger_state import told_of_ledger
from lastchunk.gateway.relay import Relay
from lastchunk.gateway.worker import WorkerPlace
from lastchunk.telemetry.metrics import CONTENT_TYPE, Condition, Metrics

SHOW_SECONDS = 1.0
"""How often a worker tells the others' scrapes how it is."""


class Operating:
    """What one process says of itself. The metrics are shared with its siblings."""

    def __init__(
        self,
        bookkeeper: Bookkeeper,
        relay: Relay,
        place: WorkerPlace | None,
        metrics: Metrics | None,
        token: str | None,
    ) -> None:
        self._bookkeeper = bookkeeper
        self._relay = relay
        self._place = place
        self._metrics = metrics
        self._token = token
        self._showing: asyncio.Task[None] | None = None
        self.is_leaving = False
        """A stop was asked for: new calls belong elsewhere."""

    def routes(self, add: Callable[..., object]) -> None:
        """Adds the three paths; a caller's own `/metrics` upstream is hidden by ours."""
        add("/healthz", self._health)
        add("/readyz", self._ready)
        if self._metrics is not None:
            add("/metrics", self._scraped)

    def start(self) -> None:
        if self._metrics is not None:
            self._showing = asyncio.create_task(self._show(self._metrics))

    async def stop(self) -> None:
        """The last numbers are told: nobody else knows them."""
        if self._showing is None or self._metrics is None:
            return
        self._showing.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._showing
        self._metrics.show(self._condition(), self._bookkeeper.clock.now_ms())

    async def _show(self, metrics: Metrics) -> None:
        while True:
            metrics.show(self._condition(), self._bookkeeper.clock.now_ms())
            await asyncio.sleep(SHOW_SECONDS)

    def _condition(self) -> Condition:
        ledger = self._bookkeeper.ledger.health()
        return Condition(
            open_calls=self._bookkeeper.open_calls(),
            drains=self._relay.drains(),
            ledger_away=int(ledger.is_away),
            spool_entries=ledger.spooled_entries,
            spool_bytes=ledger.spool_bytes,
            held_entries=ledger.held_entries,
            lost_entries=ledger.lost_entries,
            unmetered_requests=self._relay.unmetered,
        )

    async def _health(self, _: web.Request) -> web.Response:
        healthy, ledger = self._bookkeeper.is_healthy(), self._bookkeeper.ledger.health()
        well = "degraded" if ledger.is_away or ledger.lost_entries else "ok"
        return self._told({"status": well if healthy else "failing"}, healthy)

    async def _ready(self, _: web.Request) -> web.Response:
        """Whether calls can be served as the settings promise: what they cost is written down."""
        ledger = self._bookkeeper.ledger.health()
        if self.is_leaving:
            why = "stopping"
        elif ledger.refuses_calls:
            why = "the ledger is away and calls are refused"
        elif ledger.held_entries:
            why = "the ledger is away and the spool takes no more"
        elif not self._bookkeeper.is_healthy():
            why = "calls cannot be settled"
        else:
            return self._told({"status": "ready"}, True)
        return self._told({"status": "not ready", "why": why}, False)

    def _told(self, status: dict[str, object], well: bool) -> web.Response:
        told = status | {
            "open_calls": self._bookkeeper.open_calls(),
            "drains": self._relay.drains(),
            "unmetered_requests": self._relay.unmetered,
            "ledger": told_of_ledger(self._bookkeeper.ledger.health()),
        }
        if self._place is not None:
            told |= {"worker": self._place.number, "workers": self._place.of}
        return web.json_response(told, status=200 if well else 503)

    async def _scraped(self, request: web.Request) -> web.Response:
        assert self._metrics is not None, "the route is there with the metrics alone"
        given = request.headers.get("authorization", "")
        if self._token is not None and not _same(given, f"Bearer {self._token}"):
            return web.Response(status=401, headers={"www-authenticate": "Bearer"})
        self._metrics.show(self._condition(), self._bookkeeper.clock.now_ms())
        text = await asyncio.to_thread(self._metrics.text)
        return web.Response(body=text, headers={"content-type": CONTENT_TYPE})


def _same(given: str, wanted: str) -> bool:
    return hmac.compare_digest(given.encode(errors="replace"), wanted.encode())
