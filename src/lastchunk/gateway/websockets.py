"""WebSockets through the gateway: message by message, unmetered."""

from __future__ import annotations

import asyncio

import aiohttp
from aiohttp import WSMessage, WSMsgType, web
from multidict import CIMultiDict
from yarl import URL

from lastchunk.gateway import headers as through
from lastchunk.gateway.refusals import upstream_refused_websocket
from lastchunk.gateway.upstream import Upstream

MESSAGE_BYTES_LIMIT = 64 * 1024 * 1024
"""Of one message, from either side: it is held whole."""

UNMETERED_REASON = "a websocket"

_Socket = aiohttp.ClientWebSocketResponse | web.WebSocketResponse


def is_websocket(incoming: web.Request) -> bool:
    return incoming.method == "GET" and incoming.headers.get("upgrade", "").lower() == "websocket"


async def carry_websocket(
    incoming: web.Request, upstream: Upstream, url: URL, headers: CIMultiDict[str]
) -> web.StreamResponse:
    """Connect both sides and carry messages until one of them closes.

    `headers` are the caller's, for the upstream. Raises what its client raises while it connects.
    """
    offered = headers.get("sec-websocket-protocol", "")
    for name in [name for name in headers if name.lower().startswith("sec-websocket-")]:
        headers.popall(name, None)
    protocols = tuple(name.strip() for name in offered.split(",") if name.strip())
    try:
        far = await upstream.websocket(url, headers, protocols, limit=MESSAGE_BYTES_LIMIT)
    except aiohttp.WSServerHandshakeError as error:
        return upstream_refused_websocket(error.status)
    near = web.WebSocketResponse(
        protocols=(far.protocol,) if far.protocol else (),
        autoping=False,
        max_msg_size=MESSAGE_BYTES_LIMIT,
    )
    try:
        near.headers[through.UNMETERED] = UNMETERED_REASON
        await near.prepare(incoming)
        await _carry_both_ways(near, far)
        return near
    finally:
        await far.close(code=_sendable(near.close_code))


async def _carry_both_ways(near: web.WebSocketResponse, far: _Socket) -> None:
    ways = [asyncio.create_task(_carry(near, far)), asyncio.create_task(_carry(far, near))]
    try:
        await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for way in ways:
            way.cancel()
        await asyncio.gather(*ways, return_exceptions=True)


async def _carry(source: _Socket, sink: _Socket) -> None:
    """Messages one way, then the close that ended them."""
    while True:
        message: WSMessage = await source.receive()
        match message.type:
            case WSMsgType.TEXT:
                await sink.send_str(message.data)
            case WSMsgType.BINARY:
                await sink.send_bytes(message.data)
            case WSMsgType.PING:
                await sink.ping(message.data)
            case WSMsgType.PONG:
                await sink.pong(message.data)
            case _:
                break
    reason = message.extra if isinstance(message.extra, str) else ""
    await sink.close(code=_sendable(source.close_code), message=reason.encode())


def _sendable(code: int | None) -> int:
    """A close code as it may be sent on: some only tell that none came."""
    match code:
        case 1005:
            return int(aiohttp.WSCloseCode.OK)
        case None | 1006 | 1015:
            return int(aiohttp.WSCloseCode.GOING_AWAY)
        case told:
            return told
