"""The gateway as a server: routes, health, start and graceful stop."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
from collections.abc import Callable
from dataclasses import dataclass

from aiohttp import web

from lastchunk.bookkeeper import Bookkeeper
from lastchunk.errors import SettingsError
from lastchunk.gateway.relay import Relay
from lastchunk.gateway.upstream import HEADER_BYTES_LIMIT, Upstream
from lastchunk.wire.request import MAX_REQUEST_BYTES

CUT_SECONDS = 0.05
"""How long a request that is cut off at the stop deadline has to notice."""

log = logging.getLogger("lastchunk.gateway")


@dataclass(frozen=True, slots=True)
class GatewayOptions:
    """How one gateway runs. Times are in seconds; `port` 0 takes a free one."""

    upstream: str
    host: str = "127.0.0.1"
    port: int = 8790
    account: str = "default"
    grace_seconds: float = 1.0
    read_seconds: float = 600.0
    """Silence of the upstream beyond which a stream counts as timed out."""
    stop_seconds: float = 60.0
    """How long open streams may go on after a stop was asked for."""


class Gateway:
    """A running gateway: `async with Gateway(options, bookkeeper) as gateway: gateway.url`."""

    def __init__(self, options: GatewayOptions, bookkeeper: Bookkeeper) -> None:
        self._options = options
        self._bookkeeper = bookkeeper
        self._upstream = Upstream(options.upstream, read_seconds=options.read_seconds)
        self._relay = Relay(
            self._upstream,
            bookkeeper,
            account=options.account,
            grace_seconds=options.grace_seconds,
        )
        app = web.Application(client_max_size=MAX_REQUEST_BYTES)
        app.router.add_get("/healthz", self._health)
        app.router.add_route("*", "/{path:.*}", self._relay.handle)
        self._runner = web.AppRunner(
            app,
            handler_cancellation=True,  # who leaves is noticed at once, not at a write
            shutdown_timeout=CUT_SECONDS,  # when this begins, all that may go on has ended
            access_log=None,
            auto_decompress=False,
            max_line_size=HEADER_BYTES_LIMIT,
            max_field_size=HEADER_BYTES_LIMIT,
        )
        self.url = ""

    async def __aenter__(self) -> Gateway:
        await self._upstream.open()
        host, port = self._options.host, self._options.port
        try:
            await self._runner.setup()
            await web.TCPSite(self._runner, host, port).start()
        except OSError as error:
            await self._close()
            number = error.errno or 0
            reason = os.strerror(number) if number > 0 else error.strerror  # uvloop words it worse
            raise SettingsError(f"cannot listen on {host}:{port}: {reason}") from error
        host, port = self._runner.addresses[0][:2]
        self.url = f"http://{host}:{port}"
        return self

    async def __aexit__(self, *_: object) -> None:
        """Take no more requests, let open streams end, then write what is known."""
        for site in self._runner.sites:
            await site.stop()
        self._close_idle_connections()
        await self._relay.drain(self._options.stop_seconds)
        await self._close()

    def hurry(self) -> None:
        """Let open streams end no longer."""
        self._relay.hurry()

    def _close_idle_connections(self) -> None:
        """At once; one that is busy closes after its answer."""
        assert self._runner.server is not None
        for connection in self._runner.server.connections:
            if connection in self._relay.busy:
                connection.close()
            else:
                connection.force_close()

    async def _close(self) -> None:
        await self._runner.cleanup()
        await self._relay.finish(self._options.grace_seconds)
        await self._upstream.close()

    async def _health(self, _: web.Request) -> web.Response:
        healthy = self._bookkeeper.is_healthy()
        told = {
            "status": "ok" if healthy else "failing",
            "open_calls": self._bookkeeper.open_calls(),
            "unmetered_requests": self._relay.unmetered,
        }
        return web.json_response(told, status=200 if healthy else 503)


async def run_gateway(
    options: GatewayOptions, bookkeeper: Bookkeeper, started: Callable[[str], None]
) -> None:
    """Serve until SIGINT or SIGTERM, a second one ends open streams; `started` is told the URL.

    The bookkeeper stays open. Raises SettingsError where the address cannot be listened on.
    """
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    gateway = Gateway(options, bookkeeper)

    def asked_to_stop() -> None:
        if stop.is_set():
            gateway.hurry()
        stop.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        with contextlib.suppress(NotImplementedError):
            loop.add_signal_handler(number, asked_to_stop)
    async with gateway:
        started(gateway.url)
        await stop.wait()
        log.info("stopping: %d calls are open", bookkeeper.open_calls())
