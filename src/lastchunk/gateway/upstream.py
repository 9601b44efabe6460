"""The provider behind the gateway: where requests go, and the one client that carries them."""

from __future__ import annotations

import asyncio
import io
import re
import urllib.request
from functools import partial
from urllib.parse import urlsplit
from weakref import WeakKeyDictionary

import aiohttp
from aiohttp.client_proto import ResponseHandler
from aiohttp.http_exceptions import HttpProcessingError
from multidict import CIMultiDict
from yarl import URL

from lastchunk.errors import SettingsError

CONNECT_SECONDS = 15.0
KEEPALIVE_SECONDS = 15.0
"""Shorter than providers keep idle connections: a POST on a connection that the other side is just
closing fails, and must not be repeated."""

HEADER_BYTES_LIMIT = 64 * 1024
"""Of one line of a head, from either side."""

WHOLE_WRITE_BYTES = 1024 * 1024
"""A larger body is written piece by piece, so that other calls get their turn."""

BROKE = (aiohttp.ClientError, HttpProcessingError, OSError)
"""What an upstream raises whose bytes end early, or are no HTTP."""

_ESCAPE = re.compile(r"(?i)(?:^|/)(?:\.|%2e){1,2}(?:/|$|\?|%2f|%5c)|%2f(?:\.|%2e){2}|\\")


class Upstream:
    """One provider at a base URL. Opened in the event loop that uses it."""

    def __init__(self, base_url: str, *, read_seconds: float) -> None:
        parts = urlsplit(base_url)
        if parts.scheme not in ("http", "https") or not parts.netloc or parts.query:
            raise SettingsError(
                f"upstream {base_url!r} is no base URL; write one such as https://api.openai.com"
            )
        self._origin = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"
        self._prefix = parts.path.rstrip("/")
        self.host = parts.netloc.rpartition("@")[2]
        self._proxy = _proxy(parts.scheme, parts.hostname or "")
        self._read_seconds = read_seconds
        self._session: aiohttp.ClientSession | None = None
        self._bodies: WeakKeyDictionary[ResponseHandler, aiohttp.StreamReader] = WeakKeyDictionary()
        """What is read from each connection now, or was read last."""

    async def open(self) -> None:
        """Make the client; nothing is connected yet."""
        self._session = aiohttp.ClientSession(
            auto_decompress=False,
            cookie_jar=aiohttp.DummyCookieJar(),
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=KEEPALIVE_SECONDS),
            timeout=aiohttp.ClientTimeout(
                total=None, sock_connect=CONNECT_SECONDS, sock_read=self._read_seconds
            ),
            skip_auto_headers=("User-Agent", "Accept", "Accept-Encoding", "Content-Type"),
            max_field_size=HEADER_BYTES_LIMIT,
            max_line_size=HEADER_BYTES_LIMIT,
            proxy=self._proxy,  # not trust_env: that would also read ~/.netrc for each request
        )

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()

    def url(self, raw_path: str) -> URL | None:
        """The upstream's URL for a request target; None for one that leaves the upstream.

        A base URL's path is put before it once: a client that says `/v1/models` finds
        `https://host/v1` whether or not the base URL ends in `/v1`.
        """
        path = raw_path.partition("?")[0]
        if not raw_path.startswith("/") or raw_path.startswith("//") or _ESCAPE.search(path):
            return None
        already = path == self._prefix or path.startswith(f"{self._prefix}/")
        prefix = "" if already else self._prefix
        return URL(self._origin + prefix + raw_path, encoded=True)

    async def send(
        self,
        method: str,
        url: URL,
        headers: CIMultiDict[str],
        body: bytes | aiohttp.StreamReader | None,
    ) -> aiohttp.ClientResponse:
        """One request, never repeated, never redirected. Raises what aiohttp's client raises."""
        assert self._session is not None
        large = isinstance(body, bytes) and len(body) > WHOLE_WRITE_BYTES
        data = io.BytesIO(body) if large else body  # type: ignore[arg-type]
        answer = await self._session.request(
            method, url, headers=headers, data=data, allow_redirects=False
        )
        self._end_with_connection(answer)
        return answer

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

    async def websocket(
        self, url: URL, headers: CIMultiDict[str], protocols: tuple[str, ...], *, limit: int
    ) -> aiohttp.ClientWebSocketResponse:
        """A WebSocket whose messages, pings among them, are all handed out; none above `limit`."""
        assert self._session is not None
        return await self._session.ws_connect(
            url, headers=headers, protocols=protocols, autoping=False, max_msg_size=limit
        )


def _proxy(scheme: str, host: str) -> str | None:
    """The proxy that the environment names for this host."""
    if urllib.request.proxy_bypass(host):
        return None
    return urllib.request.getproxies().get(scheme)


def arrived(content: aiohttp.StreamReader) -> bytes:
    """What came in before the connection broke: aiohttp raises before it hands it out."""
    pieces = [bytes(piece) for piece in content._buffer]
    content._buffer.clear()
    return b"".join(pieces)
