"""The gateway as a server: routes, health, start and graceful stop."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from aiohttp import web

from lastchunk.bookkeeper import Bookkeeper
from lastchunk.config import NO_RULES, Config
from lastchunk.errors import SettingsError
from lastchunk.gateway.access import Door
from lastchunk.gateway.operating import Operating
from lastchunk.gateway.relay import Relay
from lastchunk.gateway.rulebook import RuleBook
from lastchunk.gateway.supervisor import LISTEN_BACKLOG
from lastchunk.gateway.upstream import HEADER_BYTES_LIMIT, LegName
from lastchunk.gateway.worker import WorkerPlace
from lastchunk.ledger.keys import KeyTable
from lastchunk.telemetry.metrics import Metrics
from lastchunk.telemetry.tracing import attached
from lastchunk.wire.request import MAX_REQUEST_BYTES

LINGER_SECONDS = 2.0
"""How long a worker that is replaced waits for a last request on each idle connection."""

CUT_SECONDS = 0.05
"""How long a request that is cut off at the stop deadline has to notice."""

IDLE_SECONDS = 75.0
"""How long a caller's connection may be silent between requests, or take for a request's head."""

log = logging.getLogger("lastchunk.gateway")

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass(frozen=True, slots=True)
class GatewayOptions:
    """How one gateway runs. Times are in seconds; `port` 0 takes a free one."""

    upstream: str | None = None
    """The base URL of one for every model, after those of the file."""
    host: str = "127.0.0.1"
    port: int = 8790
    account: str = "default"
    grace_seconds: float = 1.0
    read_seconds: float = 600.0
    """Silence of the upstream beyond which a stream counts as timed out."""
    stop_seconds: float = 60.0
    """How long open streams may go on after a stop was asked for."""
    exact_accounts: Sequence[str] = ()
    """Patterns of accounts that always use exact mode. A list may be changed while it runs."""
    running_usage: bool = True
    leg: LegName = "thin"
    """What carries requests to the upstream: our own connections, or aiohttp's client."""
    notice_seconds: float = 0.0
    """How long `/readyz` says 503 before no more connections are taken."""
    metrics_token: str | None = None
    """What a scrape of `/metrics` must present as its bearer token; None: nothing."""
    config: Config = NO_RULES
    config_file: Path | None = None
    """Where the rules come from, to be read again by `Gateway.reload`."""
    idle_seconds: float = IDLE_SECONDS


@dataclass
class Reloading:
    """How the rules are read again: what else must be in order, and who hears of new ones."""

    check: Callable[[Config], object] = lambda _: None
    """Raises SettingsError."""
    reloaded: Callable[[Config], object] = lambda _: None
    now: Callable[[], Awaitable[None]] | None = None
    """Reads them now, in this process; set while its gateway runs. Raises SettingsError."""


class Gateway:
    """A running gateway: `async with Gateway(options, bookkeeper) as gateway: gateway.url`."""

    def __init__(
        self,
        options: GatewayOptions,
        bookkeeper: Bookkeeper,
        place: WorkerPlace | None = None,
        metrics: Metrics | None = None,
        open_keys: Callable[[], KeyTable] | None = None,
        reloading: Reloading | None = None,
    ) -> None:
        """`open_keys` opens the table of the callers' keys; None: there are none."""
        self._options = options
        self._reloading = reloading or Reloading()
        self._place = place
        self._is_leaving = False
        self._bookkeeper = bookkeeper
        self._rulebook = RuleBook(
            options.config,
            file=options.config_file,
            only=options.upstream,
            read_seconds=options.read_seconds,
            leg=options.leg,
            check=self._reloading.check,
        )
        self._door = Door(open_keys, bookkeeper.clock, options.account)
        self._relay = Relay(
            self._rulebook,
            self._door,
            bookkeeper,
            read_seconds=options.read_seconds,
            grace_seconds=options.grace_seconds,
            exact_accounts=options.exact_accounts,
            running_usage=options.running_usage,
            refused=None if metrics is None else metrics.refused,
        )
        self._operating = Operating(bookkeeper, self._relay, place, metrics, options.metrics_token)
        app = web.Application(client_max_size=MAX_REQUEST_BYTES, middlewares=[in_its_trace])
        app.on_response_prepare.append(self._prepared)
        self._operating.routes(app.router.add_get)
        app.router.add_route("*", "/{path:.*}", self._relay.handle)
        self._runner = web.AppRunner(
            app,
            handler_cancellation=True,  # who leaves is noticed at once, not at a write
            shutdown_timeout=CUT_SECONDS,  # when this begins, all that may go on has ended
            access_log=None,
            auto_decompress=False,
            keepalive_timeout=options.idle_seconds,
            max_line_size=HEADER_BYTES_LIMIT,
            max_field_size=HEADER_BYTES_LIMIT,
        )
        self.url = ""
        self._linger_seconds = 0.0
        self._notice_seconds = options.notice_seconds
        self._hurries = asyncio.Event()

    async def __aenter__(self) -> Gateway:
        await self._rulebook.open()
        await self._door.open()
        host, port = self._options.host, self._options.port
        try:
            await self._runner.setup()
            await self._listen()
        except OSError as error:
            await self._close()
            number = error.errno or 0
            reason = os.strerror(number) if number > 0 else error.strerror  # uvloop words it worse
            raise SettingsError(f"cannot listen on {host}:{port}: {reason}") from error
        self._operating.start()
        host, port = self._runner.addresses[0][:2]
        self.url = f"http://{host}:{port}"
        return self

    async def _listen(self) -> None:
        if self._place is None:
            await web.TCPSite(self._runner, self._options.host, self._options.port).start()
            return
        for listening in self._place.sockets():
            await web.SockSite(self._runner, listening, backlog=LISTEN_BACKLOG).start()

    async def __aexit__(self, *_: object) -> None:
        """Take no more connections, let open streams end, then write what is known."""
        self._is_leaving = self._operating.is_leaving = True
        for site in list(self._runner.sites):
            await site.stop()
        began = asyncio.get_running_loop().time()
        await self._part_from_callers(began + self._options.stop_seconds)
        spent = asyncio.get_running_loop().time() - began
        await self._relay.drain(max(0.0, self._options.stop_seconds - spent))
        await self._close()

    async def give_notice(self) -> None:
        """Say for a while that new calls belong elsewhere, and take them nevertheless."""
        self._operating.is_leaving = True
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._hurries.wait(), self._notice_seconds)

    async def reload(self) -> None:
        """Read the rules again. Raises SettingsError, and the rules before it go on."""
        try:
            await self._rulebook.reload()
        except SettingsError as error:
            log.error("the rules are not reloaded, those before go on: %s", error)
            raise
        self._reloading.reloaded(self._rulebook.rules.config)
        log.info("the rules are reloaded")

    def hurry(self) -> None:
        """Let open streams end no longer."""
        self._hurries.set()
        self._linger_seconds = 0.0
        self._relay.hurry()

    def hand_over(self) -> None:
        """Another takes its place: be careful with callers that have a connection to this one."""
        self._notice_seconds = 0.0  # whoever balances load need not notice
        self._linger_seconds = LINGER_SECONDS

    async def _part_from_callers(self, until: float) -> None:
        """Close each connection when its caller does not count on it; `until` on the loop's clock.

        An answer that begins now tells that it is the last on its connection. One that had begun
        before told nothing, so its caller may send one more request there: closed at once, a
        request that is just arriving would be lost. To be careful is to wait for that one.
        """
        assert self._runner.server is not None
        loop = asyncio.get_running_loop()
        idle_since: dict[object, float] = {}
        while self._linger_seconds and (open_ := self._runner.server.connections):
            now = loop.time()
            for connection in open_:
                if connection in self._relay.busy:
                    idle_since.pop(connection, None)
                elif now - idle_since.setdefault(connection, now) >= self._linger_seconds:
                    connection.force_close()
            if now >= until:
                break
            await asyncio.sleep(CUT_SECONDS)
        self._close_idle_connections()

    async def _prepared(self, _: web.Request, response: web.StreamResponse) -> None:
        if self._is_leaving and not isinstance(response, web.WebSocketResponse):
            response.force_close()
            response.headers["Connection"] = "close"

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
        await self._operating.stop()
        await self._rulebook.close()
        await self._door.close()


@web.middleware
async def in_its_trace(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Spans of a call belong to the trace that its caller named in `traceparent`."""
    with attached(request.headers):
        return await handler(request)


async def run_gateway(
    options: GatewayOptions,
    bookkeeper: Bookkeeper,
    started: Callable[[str], None],
    place: WorkerPlace | None = None,
    metrics: Metrics | None = None,
    beside: contextlib.AbstractAsyncContextManager[object] | None = None,
    open_keys: Callable[[], KeyTable] | None = None,
    reloading: Reloading | None = None,
) -> None:
    """Serve until a signal says stop; `started` is told the URL.

    SIGTERM and SIGINT: open streams may go on until the deadline; a second one ends them. SIGHUP:
    read the rules again; a worker stops as by these, since another has taken its place. A worker is
    hurried by SIGINT alone: it may hear a SIGTERM from its supervisor and one from whoever stops
    all processes of a service.

    `beside` is entered once the gateway listens, and left before open streams are waited for. The
    bookkeeper stays open. Raises SettingsError where the address cannot be listened on.
    """
    stop = asyncio.Event()
    reloads: set[asyncio.Task[None]] = set()
    loop = asyncio.get_running_loop()
    reloading = reloading or Reloading()
    gateway = Gateway(options, bookkeeper, place, metrics, open_keys, reloading)
    reloading.now = gateway.reload

    async def reload() -> None:
        with contextlib.suppress(SettingsError):  # it was logged
            await gateway.reload()

    def asked_to_stop(number: int) -> None:
        if number == signal.SIGHUP and place is None:
            reloads.add(task := loop.create_task(reload()))
            task.add_done_callback(reloads.discard)
            return
        if number == signal.SIGHUP:
            gateway.hand_over()
        elif number == signal.SIGINT if place is not None else stop.is_set():
            gateway.hurry()
        stop.set()

    for number in (signal.SIGINT, signal.SIGTERM, getattr(signal, "SIGHUP", signal.SIGTERM)):
        with contextlib.suppress(NotImplementedError):
            loop.add_signal_handler(number, asked_to_stop, number)

    def left_alone() -> None:
        log.error("the supervisor is gone: stopping")
        stop.set()

    if place is not None:
        place.when_alone(left_alone)
    async with gateway:
        async with beside or contextlib.nullcontext():
            started(gateway.url)
            await stop.wait()
            await gateway.give_notice()
        log.info("stopping: %d calls are open", bookkeeper.open_calls())
