"""Requests that are not metered: through the gateway, byte for byte."""

from __future__ import annotations

import aiohttp
from aiohttp import web
from multidict import CIMultiDict
from yarl import URL

from lastchunk.gateway import headers as through
from lastchunk.gateway.access import Denied, Guest
from lastchunk.gateway.budget import has_budget
from lastchunk.gateway.carrying import Passage, carry
from lastchunk.gateway.leg import BROKE, NOT_CONNECTED, Answer
from lastchunk.gateway.refusals import (
    upstream_broke,
    upstream_timed_out,
    upstream_unreachable,
)
from lastchunk.gateway.rules import Route, Rules
from lastchunk.gateway.websockets import carry_websocket, is_websocket
from lastchunk.meter.ending import Stop
from lastchunk.wire.request import model_of, read_body

SHORT_BODY_BYTES = 256 * 1024
"""A body whose length is told and that is no longer goes out whole, by the thin leg."""

_SPENDS_NOTHING = ("GET", "HEAD", "OPTIONS", "DELETE")

_UNMETERED = Denied(
    403,
    "unmetered_not_allowed",
    "This account has a budget, and what this request costs cannot be accounted for: only chat"
    " completions, responses and completions with a JSON body are let through.",
)


def may_pass(incoming: web.Request, rules: Rules, guest: Guest) -> Denied | None:
    """Whether a request that is not metered may be sent: not past a budget."""
    if incoming.method in _SPENDS_NOTHING and not is_websocket(incoming):
        return None
    return _UNMETERED if has_budget(rules.limits, guest.account) else None


async def peek(
    incoming: web.Request, rules: Rules, guest: Guest
) -> tuple[str | None, bytes | aiohttp.StreamReader]:
    """The model that a request names, and its body, which is read whole where the model matters.

    A body that is no JSON names none. Raises HTTPRequestEntityTooLarge.
    """
    if is_websocket(incoming):
        return incoming.query.get("model"), b""
    matters = len(rules.routes) > 1 or (guest.key is not None and guest.key.models)
    if not matters or not incoming.can_read_body or "json" not in incoming.content_type:
        return model_of(None, incoming.path), incoming.content
    raw = await incoming.read()
    return model_of(read_body(raw), incoming.path), raw


async def pass_on(
    incoming: web.Request,
    route: Route,
    guest: Guest,
    url: URL,
    body: bytes | aiohttp.StreamReader,
    unmetered: str | None,
) -> web.StreamResponse:
    """A request of no metered endpoint, or one that cannot be metered: `unmetered` says why."""
    if isinstance(body, aiohttp.StreamReader) and _is_short(incoming):
        body = await incoming.read()
    headers = through.to_upstream(incoming.headers)
    route.authorize(headers, drop_callers=guest.key is not None)
    if incoming.content_length is not None:
        headers["content-length"] = str(incoming.content_length)
    sends_body = incoming.can_read_body or isinstance(body, bytes)
    try:
        answer = await route.upstream.send(
            incoming.method, url, headers, body if sends_body else None
        )
    except _UNANSWERED as error:
        return _unanswered(error)
    try:
        return await _copy(incoming, answer, unmetered)
    finally:
        answer.close()


def _is_short(incoming: web.Request) -> bool:
    """Whether there is a body, and so little of it that it is read before it is sent."""
    length = incoming.content_length
    return incoming.can_read_body and length is not None and length <= SHORT_BODY_BYTES


async def pass_websocket(
    incoming: web.Request, route: Route, guest: Guest, url: URL
) -> web.StreamResponse:
    """A WebSocket, message by message."""
    try:
        headers = through.to_upstream(incoming.headers)
        route.authorize(headers, drop_callers=guest.key is not None)
        return await carry_websocket(incoming, route.upstream, url, headers)
    except _UNANSWERED as error:
        return _unanswered(error)


_UNANSWERED = (*NOT_CONNECTED, TimeoutError, *BROKE)


def _unanswered(error: Exception) -> web.Response:
    if isinstance(error, NOT_CONNECTED):
        return upstream_unreachable(None)
    if isinstance(error, TimeoutError):
        return upstream_timed_out(None)
    return upstream_broke(None)


async def _copy(incoming: web.Request, answer: Answer, unmetered: str | None) -> web.StreamResponse:
    headers: CIMultiDict[str] = through.to_caller(answer.headers, changed=False)
    if unmetered is not None:
        headers[through.UNMETERED] = unmetered
    response = web.StreamResponse(status=answer.status, reason=answer.reason, headers=headers)
    await response.prepare(incoming)
    if await carry(incoming, answer, response, Passage()) is Stop.END_OF_BODY:
        await response.write_eof()
    else:
        cut(incoming, answer)
    return response


def cut(incoming: web.Request, answer: Answer) -> None:
    """Let the caller see that the body is not whole: its end never comes, the connection closes."""
    answer.close()
    if incoming.transport is not None:
        incoming.transport.close()
