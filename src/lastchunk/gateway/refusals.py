"""Answers of the gateway's own, in the shape of OpenAI's errors so that every client reads them."""

from __future__ import annotations

from aiohttp import web

from lastchunk.gateway.access import Denied
from lastchunk.gateway.budget import code_of, rate_headers, retry_headers, said, status_of
from lastchunk.limits import Refused


def refusal(status: int, code: str, message: str, call_id: str | None = None) -> web.Response:
    """An error that this gateway, not the provider, answers with."""
    error = {"message": message, "type": "lastchunk_gateway", "param": None, "code": code}
    headers = {"x-lastchunk-call-id": call_id} if call_id else None
    return web.json_response({"error": error}, status=status, headers=headers)


def denied(why: Denied) -> web.Response:
    """Somebody who is not let in, or not to this."""
    return refusal(why.status, why.code, why.message)


def too_slow() -> web.Response:
    message = "The request body did not arrive in time."
    return refusal(408, "request_timeout", message)


def over_limit(refused: Refused, now_ms: int, call_id: str) -> web.Response:
    """A call that does not fit in a budget; nothing was sent."""
    told = refusal(status_of(refused), code_of(refused), said(refused), call_id)
    told.headers.update(rate_headers([refused.standing], now_ms))
    told.headers.update(retry_headers(refused))
    return told


def upstream_unreachable(call_id: str | None) -> web.Response:
    return refusal(502, "upstream_unreachable", "The upstream cannot be connected to.", call_id)


def upstream_broke(call_id: str | None) -> web.Response:
    message = "The upstream closed the connection before it answered."
    return refusal(502, "upstream_broke", message, call_id)


def ledger_away(call_id: str) -> web.Response:
    message = (
        "The ledger of this gateway is away, and it is set to refuse calls until it is back."
        " Nothing was sent to the provider. Try again later."
    )
    return refusal(503, "ledger_away", message, call_id)


def upstream_timed_out(call_id: str | None) -> web.Response:
    return refusal(504, "upstream_timed_out", "The upstream did not answer in time.", call_id)


def body_too_large(limit: int) -> web.Response:
    message = f"The request body is larger than {limit} bytes, the most this gateway accounts for."
    return refusal(413, "body_too_large", message)


def bad_target() -> web.Response:
    message = "The request target must be a path below the upstream, without '..' segments."
    return refusal(400, "bad_request_target", message)


def upstream_refused_websocket(status: int) -> web.Response:
    message = f"The upstream did not open a WebSocket: it answered {status}."
    told = status if status >= 400 else 502
    return refusal(told, "upstream_refused_websocket", message)
