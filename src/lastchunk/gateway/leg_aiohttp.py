"""The tidy leg: aiohttp's client, for all that the thin one does not do.

Proxies, bodies that are large or come in pieces, WebSockets; and all requests, where it is chosen.
"""

from __future__ import annotations

import io
from functools import partial
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

import aiohttp
from aiohttp.client_proto import ResponseHandler
from multidict import CIMultiDict, CIMultiDictProxy
from yarl import URL

from lastchunk.gateway.bypass import Bypass
from lastchunk.gateway.leg import BROKE, Take
from lastchunk.gateway.leg_pool import CONNECT_SECONDS, KEEPALIVE_SECONDS

if TYPE_CHECKING:
    import asyncio

HEADER_BYTES_LIMIT = 64 * 1024
"""Of one line of a head, from either side."""

WHOLE_WRITE_BYTES = 1024 * 1024
"""A larger body is written piece by piece, so that other calls get their turn."""


class AiohttpBody:
    """See `leg.Body`."""

    def __init__(self, content: aiohttp.StreamReader) -> None:
        self._content = content

    async def readany(self) -> bytes:
        return await self._content.readany()

    async def pour(self, take: Take, bypass: Bypass | None = None) -> bool:
        try:
            while piece := await self._content.readany():
                if take(piece):
                    return False
        except (TimeoutError, *BROKE):
            if rest := self.arrived():
                take(rest)
            raise
        return True

    def arrived(self) -> bytes:
        """Also what came before the connection broke: aiohttp raises before it hands it out."""
        pieces = [bytes(piece) for piece in self._content._buffer]
        self._content._buffer.clear()
        return b"".join(pieces)


class AiohttpAnswer:
    """See `leg.Answer`."""

    def __init__(self, answer: aiohttp.ClientResponse) -> None:
        self._answer = answer
        self.content = AiohttpBody(answer.content)

    @property
    def status(self) -> int:
        return self._answer.status

    @property
    def reason(self) -> str:
        return self._answer.reason or ""

    @property
    def headers(self) -> CIMultiDictProxy[str]:
        return self._answer.headers

    def close(self) -> None:
        self._answer.close()


class AiohttpLeg:
    """Requests by aiohttp's client. Opened in the event loop that uses it."""

    def __init__(self, *, read_seconds: float, proxy: str | None) -> None:
        self._session = aiohttp.ClientSession(
            auto_decompress=False,
            cookie_jar=aiohttp.DummyCookieJar(),
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=KEEPALIVE_SECONDS),
            timeout=aiohttp.ClientTimeout(
                total=None, sock_connect=CONNECT_SECONDS, sock_read=read_seconds
            ),
            skip_auto_headers=("User-Agent", "Accept", "Accept-Encoding", "Content-Type"),
            max_field_size=HEADER_BYTES_LIMIT,
            max_line_size=HEADER_BYTES_LIMIT,
            proxy=proxy,  # not trust_env: that would also read ~/.netrc for each request
        )
        self._bodies: WeakKeyDictionary[ResponseHandler, aiohttp.StreamReader] = WeakKeyDictionary()
        """What is read from each connection now, or was read last."""

    @property
    def in_use(self) -> int:
        """Connections on which an exchange is under way."""
        assert self._session.connector is not None
        return len(self._session.connector._acquired)

    async def send(
        self,
        method: str,
        url: URL,
        headers: CIMultiDict[str],
        body: bytes | aiohttp.StreamReader | None,
    ) -> AiohttpAnswer:
        """One request, never repeated, never redirected. Raises what aiohttp's client raises."""
        large = isinstance(body, bytes) and len(body) > WHOLE_WRITE_BYTES
        data = io.BytesIO(body) if large else body  # type: ignore[arg-type]
        answer = await self._session.request(
            method, url, headers=headers, data=data, allow_redirects=False
        )
        self._end_with_connection(answer)
        return AiohttpAnswer(answer)

    async def websocket(
        self, url: URL, headers: CIMultiDict[str], protocols: tuple[str, ...], *, limit: int
    ) -> aiohttp.ClientWebSocketResponse:
        """A WebSocket whose messages, pings among them, are all handed out; none above `limit`."""
        return await self._session.ws_connect(
            url, headers=headers, protocols=protocols, autoping=False, max_msg_size=limit
        )

    async def close(self) -> None:
        """Ends every connection."""
        await self._session.close()

    def _end_with_connection(self, answer: aiohttp.ClientResponse) -> None:
        """Let the body fail when its connection ends, also where aiohttp forgets to.

        After bytes that are no HTTP chunk, aiohttp closes the connection but leaves the reader of
        the body waiting, without a timeout.
        """
        protocol = answer.connection.protocol if answer.connection is not None else None
        if protocol is None:  # the body is whole already
            return
        watched = protocol in self._bodies
        self._bodies[protocol] = answer.content
        if watched:
            return
        if protocol.closed is None:
            self._connection_ended(protocol)
        else:
            protocol.closed.add_done_callback(partial(self._connection_ended, protocol))

    def _connection_ended(
        self, protocol: ResponseHandler, closed: asyncio.Future[None] | None = None
    ) -> None:
        if closed is not None and not closed.cancelled():
            closed.exception()  # somebody has looked at it
        body = self._bodies.pop(protocol, None)
        if body is not None and not body.is_eof() and body.exception() is None:
            body.set_exception(aiohttp.ClientPayloadError("the connection ended in the body"))
