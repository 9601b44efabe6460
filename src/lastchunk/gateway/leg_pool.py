"""The thin leg: connections to one origin, kept alive and used again."""

from __future__ import annotations

import asyncio
import socket
import ssl

import aiohappyeyeballs
from multidict import CIMultiDict
from yarl import URL

from lastchunk.gateway.leg import BrokenAnswerError, NotConnectedError
from lastchunk.gateway.leg_connection import LegConnection, ThinAnswer, request_bytes

CONNECT_SECONDS = 15.0
KEEPALIVE_SECONDS = 15.0
"""Shorter than providers keep idle connections: a POST on a connection that the other side is just
closing fails, and must not be repeated."""

RESOLVED_SECONDS = 10.0
"""How long the origin's addresses are believed."""

NEXT_ADDRESS_SECONDS = 0.25
"""After so long the next address is tried beside the one that does not answer (RFC 8305)."""

_REPEATABLE = ("GET", "HEAD", "OPTIONS")


class Reached:
    """A connection that was idle, or one on its way. Nothing is sent on it yet."""

    def __init__(self, leg: ThinLeg) -> None:
        self._leg = leg
        self._idle = leg.idle_connection()
        self.is_reused = self._idle is not None
        self._connecting = None if self.is_reused else leg.connecting()

    async def connection(self) -> LegConnection:
        """The connection, which is the caller's from now on. Raises NotConnectedError."""
        if self._idle is not None:
            idle, self._idle = self._idle, None
            return idle
        assert self._connecting is not None
        connecting, self._connecting = self._connecting, None
        try:
            return await asyncio.shield(connecting)
        except asyncio.CancelledError:
            self._leg.keep_when_made(connecting)
            raise

    def release(self) -> None:
        """It is not needed: somebody else may have it. May be called twice."""
        if self._idle is not None:
            self._leg.rests(self._idle, True)
            self._idle = None
        if self._connecting is not None:
            self._leg.keep_when_made(self._connecting)
            self._connecting = None


class ThinLeg:
    """Requests to one origin. Opened in the event loop that uses it."""

    def __init__(self, origin: URL, *, read_seconds: float) -> None:
        self._origin = origin
        self._read_seconds = read_seconds
        self._ssl = _tls() if origin.scheme == "https" else None
        self._idle: list[LegConnection] = []
        self._busy: set[LegConnection] = set()
        self._connects: set[asyncio.Task[LegConnection]] = set()
        self._addresses: list[aiohappyeyeballs.AddrInfoType] = []
        self._addresses_until = 0.0
        self._sweep: asyncio.TimerHandle | None = None
        self._closed = False

    @property
    def in_use(self) -> int:
        """Connections on which an exchange is under way, and those on their way."""
        return len(self._busy) + len(self._connects)

    def reach(self) -> Reached:
        """An idle connection, or begins to make one, for one request that will follow."""
        return Reached(self)

    async def send(
        self,
        method: str,
        url: URL,
        headers: CIMultiDict[str],
        body: bytes | None,
        reached: Reached | None = None,
    ) -> ThinAnswer:
        """One request and the head of its answer; never redirected, and never repeated but for a
        request without effect whose kept connection had just been closed.

        Raises NotConnectedError, BrokenAnswerError and TimeoutError.
        """
        host = self._origin.host_port_subcomponent or ""
        request = request_bytes(method, url.raw_path_qs, host, headers, body)
        reached = reached or self.reach()
        try:
            connection = await self._usable(reached)
            return await connection.exchange(method, request)
        except BrokenAnswerError:
            if not reached.is_reused or method not in _REPEATABLE:
                raise
        connection = await self.connecting()
        return await connection.exchange(method, request)

    async def close(self) -> None:
        """Ends every connection."""
        self._closed = True
        if self._sweep is not None:
            self._sweep.cancel()
        for task in self._connects:
            task.cancel()
        for connection in [*self._busy, *self._idle]:
            connection.abort()
        self._idle.clear()
        await asyncio.gather(*self._connects, return_exceptions=True)

    # Connections, for `Reached`.

    def idle_connection(self) -> LegConnection | None:
        """The one that was used last: it is the least likely to be closed."""
        oldest = asyncio.get_running_loop().time() - KEEPALIVE_SECONDS
        while self._idle:
            connection = self._idle.pop()
            if connection.is_open and connection.rested_at > oldest:
                self._busy.add(connection)
                return connection
            connection.abort()
        return None

    def connecting(self) -> asyncio.Task[LegConnection]:
        """A connection on its way."""
        task = asyncio.create_task(self._connect())
        self._connects.add(task)
        task.add_done_callback(self._connects.discard)
        return task

    def keep_when_made(self, connecting: asyncio.Task[LegConnection]) -> None:
        """Nobody waits for it any more: the next request may have it."""

        def made(task: asyncio.Task[LegConnection]) -> None:
            if not task.cancelled() and task.exception() is None:
                self.rests(task.result(), task.result().is_open)

        connecting.add_done_callback(made)

    def rests(self, connection: LegConnection, alive: bool) -> None:
        """An exchange is over, or an idle connection was lost."""
        self._busy.discard(connection)
        if alive and not self._closed:
            loop = asyncio.get_running_loop()
            connection.rested_at = loop.time()
            self._idle.append(connection)
            if self._sweep is None:
                self._sweep = loop.call_later(KEEPALIVE_SECONDS, self._sweep_idle)
        elif alive:
            connection.abort()
        elif connection in self._idle:
            self._idle.remove(connection)

    async def _usable(self, reached: Reached) -> LegConnection:
        """The connection that was reached, or another where that was closed meanwhile."""
        connection = await reached.connection()
        if connection.is_open:
            return connection
        self.rests(connection, False)
        return await self.connecting()

    async def _connect(self) -> LegConnection:
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                connection = await self._connected()
        except (OSError, ValueError) as error:  # ValueError: a name that is no host name
            host = self._origin.host_port_subcomponent
            raise NotConnectedError(f"{host} is not reached: {error}") from error
        self._busy.add(connection)
        return connection

    async def _connected(self) -> LegConnection:
        loop = asyncio.get_running_loop()
        open_socket = await aiohappyeyeballs.start_connection(
            await self._resolved(), happy_eyeballs_delay=NEXT_ADDRESS_SECONDS, interleave=1
        )
        try:
            open_socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            _, connection = await loop.create_connection(
                lambda: LegConnection(self._read_seconds, self.rests),
                sock=open_socket,
                ssl=self._ssl,
                server_hostname=self._origin.host if self._ssl is not None else None,
            )
        except BaseException:
            open_socket.close()
            raise
        return connection

    async def _resolved(self) -> list[aiohappyeyeballs.AddrInfoType]:
        loop = asyncio.get_running_loop()
        if not self._addresses or loop.time() > self._addresses_until:
            self._addresses = list(
                await loop.getaddrinfo(
                    self._origin.host, self._origin.port, type=socket.SOCK_STREAM
                )
            )
            self._addresses_until = loop.time() + RESOLVED_SECONDS
        return self._addresses

    def _sweep_idle(self) -> None:
        """Close what was idle for too long; the list is in the order of resting."""
        loop = asyncio.get_running_loop()
        self._sweep = None
        while self._idle and self._idle[0].rested_at <= loop.time() - KEEPALIVE_SECONDS:
            self._idle.pop(0).abort()
        if self._idle:
            due = self._idle[0].rested_at + KEEPALIVE_SECONDS
            self._sweep = loop.call_at(due, self._sweep_idle)


def _tls() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.set_alpn_protocols(["http/1.1"])
    return context
