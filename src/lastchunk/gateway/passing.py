"""Requests that are not metered: through the gateway, byte for byte."""

from __future__ import annotations

import aiohttp
from aiohttp import web
from multidict import CIMultiDict
from yarl import URL

from lastchunk.gateway import headers as through
from lastchunk.gateway.refusals import (
    upstream_broke,
    upstream_timed_out,
    upstream_unreachable,
)
from lastchunk.gateway.upstream import BROKE, Upstream, arrived
from lastchunk.gateway.websockets import carry_websocket


async def pass_on(
    incoming: web.Request,
    upstream: Upstream,
    url: URL,
    body: bytes | aiohttp.StreamReader,
    unmetered: str | None,
) -> web.StreamResponse:
    """A request of no metered endpoint, or one that cannot be metered: `unmetered` says why."""
    headers = through.to_upstream(incoming.headers)
    if incoming.content_length is not None:
        headers["content-length"] = str(incoming.content_length)
    sends_body = incoming.can_read_body or isinstance(body, bytes)
    try:
        answer = await upstream.send(incoming.method, url, headers, body if sends_body else None)
    except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError):
        return upstream_unreachable(None)
    except TimeoutError:
        return upstream_timed_out(None)
    except BROKE:
        return upstream_broke(None)
    try:
        return await _copy(incoming, answer, unmetered)
    finally:
        answer.close()


async def pass_websocket(incoming: web.Request, upstream: Upstream, url: URL) -> web.StreamResponse:
    """A WebSocket, message by message."""
    try:
        return await carry_websocket(incoming, upstream, url)
    except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError):
        return upstream_unreachable(None)
    except TimeoutError:
        return upstream_timed_out(None)
    except BROKE:
        return upstream_broke(None)


async def _copy(
    incoming: web.Request, answer: aiohttp.ClientResponse, unmetered: str | None
) -> web.StreamResponse:
    headers: CIMultiDict[str] = through.to_caller(answer.headers, changed=False)
    if unmetered is not None:
        headers[through.UNMETERED] = unmetered
    response = web.StreamResponse(status=answer.status, reason=answer.reason, headers=headers)
    await response.prepare(incoming)
    try:
        while piece := await answer.content.readany():
            await response.write(piece)
    except (TimeoutError, *BROKE):
        if rest := arrived(answer.content):
            await response.write(rest)
        cut(incoming, answer)
        return response
    await response.write_eof()
    return response


def cut(incoming: web.Request, answer: aiohttp.ClientResponse) -> None:
    """Let the caller see that the body is not whole: its end never comes, the connection closes."""
    answer.close()
    if incoming.transport is not None:
        incoming.transport.close()
