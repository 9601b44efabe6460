"""The provider behind the gateway: where requests go, and which leg carries them."""

from __future__ import annotations

import re
import urllib.request
from typing import Literal, TypeGuard
from urllib.parse import urlsplit

import aiohttp
from multidict import CIMultiDict
from yarl import URL

from lastchunk.errors import SettingsError
from lastchunk.gateway.leg import BROKE, NOT_CONNECTED, Answer, Body
from lastchunk.gateway.leg_aiohttp import HEADER_BYTES_LIMIT, WHOLE_WRITE_BYTES, AiohttpLeg
from lastchunk.gateway.leg_pool import Reached, ThinLeg

__all__ = ["BROKE", "HEADER_BYTES_LIMIT", "NOT_CONNECTED", "LegName", "Upstream", "arrived"]

LegName = Literal["thin", "aiohttp"]

_ESCAPE = re.compile(r"(?i)(?:^|/)(?:\.|%2e){1,2}(?:/|$|\?|%2f|%5c)|%2f(?:\.|%2e){2}|\\")


class Upstream:
    """One provider at a base URL. Opened in the event loop that uses it."""

    def __init__(self, base_url: str, *, read_seconds: float, leg: LegName = "thin") -> None:
        parts = urlsplit(base_url)
        if parts.scheme not in ("http", "https") or not parts.netloc or parts.query:
            raise SettingsError(
                f"upstream {base_url!r} is no base URL; write one such as https://api.openai.com"
            )
        self._origin = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"
        self._prefix = parts.path.rstrip("/")
        self.host = parts.netloc.rpartition("@")[2]
        self._proxy = _proxy(parts.scheme, parts.hostname or "")
        self.read_seconds = read_seconds
        self._is_thin = leg == "thin" and self._proxy is None
        self._tidy: AiohttpLeg | None = None
        self._thin: ThinLeg | None = None

    async def open(self) -> None:
        """Make the legs; nothing is connected yet."""
        self._tidy = AiohttpLeg(read_seconds=self.read_seconds, proxy=self._proxy)
        if self._is_thin:
            self._thin = ThinLeg(URL(self._origin), read_seconds=self.read_seconds)

    async def close(self) -> None:
        for leg in (self._thin, self._tidy):
            if leg is not None:
                await leg.close()

    @property
    def in_use(self) -> int:
        """Connections on which a request is under way."""
        return sum(leg.in_use for leg in (self._thin, self._tidy) if leg is not None)

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

    def reach(self, body: bytes) -> Reached | None:
        """Begins to connect for a request with this body, where the leg can connect ahead.

        Give it to `send`, or release it.
        """
        return self._thin.reach() if self._thin is not None and _is_small(body) else None

    async def send(
        self,
        method: str,
        url: URL,
        headers: CIMultiDict[str],
        body: bytes | aiohttp.StreamReader | None,
        reached: Reached | None = None,
    ) -> Answer:
        """One request, never redirected, and none that has an effect is repeated.

        Raises one of `NOT_CONNECTED`, TimeoutError, one of `BROKE`: looked at in this order, the
        first says that nothing was sent.
        """
        try:
            if self._thin is not None and _is_small(body):
                return await self._thin.send(method, url, headers, body, reached)
        finally:
            if reached is not None:
                reached.release()
        assert self._tidy is not None
        return await self._tidy.send(method, url, headers, body)

    async def websocket(
        self, url: URL, headers: CIMultiDict[str], protocols: tuple[str, ...], *, limit: int
    ) -> aiohttp.ClientWebSocketResponse:
        """A WebSocket whose messages, pings among them, are all handed out; none above `limit`."""
        assert self._tidy is not None
        return await self._tidy.websocket(url, headers, protocols, limit=limit)


def _is_small(body: bytes | aiohttp.StreamReader | None) -> TypeGuard[bytes | None]:
    return body is None or (isinstance(body, bytes) and len(body) <= WHOLE_WRITE_BYTES)


def _proxy(scheme: str, host: str) -> str | None:
    """The proxy that the environment names for this host."""
    if urllib.request.proxy_bypass(host):
        return None
    return urllib.request.getproxies().get(scheme)


def arrived(content: Body) -> bytes:
    """What came in and was not handed out, also where the connection broke since."""
    return content.arrived()
