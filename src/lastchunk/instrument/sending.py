"""`send`, metered: put in place of a client's own, sync or async, httpx or httpx2."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from lastchunk.asking import is_refusal_to_tell
from lastchunk.instrument.attempt import (
    CALL_ID_HEADER,
    Attempt,
    Metering,
    reservation_failed,
    stop_of,
)
from lastchunk.instrument.streams import Passage, metered_stream
from lastchunk.meter.ending import Stop
from lastchunk.metered_call import MeteredCall
from lastchunk.wire.encoding import Decoder, UndecodableError, decoder_for
from lastchunk.wire.hide import UsageFrameHider

RESERVE_SECONDS = 10.0
"""How long a call waits for its reservation to be durable before it goes on without."""


def metered_send(send: Callable[..., Any], metering: Metering) -> Callable[..., Any]:
    """`send` of a sync client, metered."""

    def send_metered(request: Any, *, stream: bool = False, **options: Any) -> Any:
        attempt = metering.attempt(request)
        if attempt is None:
            return send(request, stream=stream, **options)
        response = _send_one(attempt, options)
        if attempt.hides_usage and response.status_code in (400, 422):
            _read_whole(response)
            if is_refusal_to_tell(response.status_code, response.content):
                again = attempt.without_asking(metering)
                if again is None:
                    return send(request, stream=stream, **options)
                response = _send_one(again, options)
        return response if stream else _read_whole(response)

    def _send_one(attempt: Attempt, options: dict[str, Any]) -> Any:
        call = attempt.call
        try:
            _wait_for_reservation(call)
        except BaseException:
            call.end(Stop.NOT_CONNECTED)
            raise
        try:
            response = send(attempt.request, stream=True, **options)
        except BaseException as error:
            _end_unanswered(call, error)
            raise
        return _attach(attempt, response, metering)

    return send_metered


def metered_async_send(
    send: Callable[..., Awaitable[Any]], metering: Metering
) -> Callable[..., Awaitable[Any]]:
    """`send` of an async client, metered."""

    async def send_metered(request: Any, *, stream: bool = False, **options: Any) -> Any:
        attempt = metering.attempt(request)
        if attempt is None:
            return await send(request, stream=stream, **options)
        response = await _send_one(attempt, options)
        if attempt.hides_usage and response.status_code in (400, 422):
            await _aread_whole(response)
            if is_refusal_to_tell(response.status_code, response.content):
                again = attempt.without_asking(metering)
                if again is None:
                    return await send(request, stream=stream, **options)
                response = await _send_one(again, options)
        return response if stream else await _aread_whole(response)

    async def _send_one(attempt: Attempt, options: dict[str, Any]) -> Any:
        call = attempt.call
        try:
            await _wait_for_reservation_async(call)
        except BaseException:
            call.end(Stop.NOT_CONNECTED)
            raise
        try:
            response = await send(attempt.request, stream=True, **options)
        except BaseException as error:
            _end_unanswered(call, error)
            raise
        return _attach(attempt, response, metering)

    return send_metered


def _end_unanswered(call: MeteredCall, error: BaseException) -> None:
    """`send` raised. A response hook may have raised after the answer's head, and brings it."""
    answer = getattr(error, "response", None)
    if isinstance(status := getattr(answer, "status_code", None), int):
        call.headed(status, None, None)
    call.end(stop_of(error))


def _attach(attempt: Attempt, response: Any, metering: Metering) -> Any:
    """Put the metered stream in the place of the response's own."""
    call, headers = attempt.call, response.headers
    attempt.give_back_request(response)
    encoding = headers.get("content-encoding")
    hider = decoder = None
    if attempt.hides_usage and response.status_code == 200:
        decoder = decoder_for(encoding)
        if decoder is None or _is_known(decoder):
            hider = UsageFrameHider()
    headers[CALL_ID_HEADER] = call.call_id
    if response.is_closed:
        call.headed(response.status_code, headers.get("content-type"), None)
        _take_read(response, Passage(call, hider, None))
        return response
    call.headed(response.status_code, headers.get("content-type"), encoding)
    if hider is not None and decoder is not None:
        del headers["content-encoding"]  # undone here, to take the frame out
    passage = Passage(call, hider, decoder)
    response.stream = metered_stream(response, passage, metering.settings.grace_seconds)
    return response


def _take_read(response: Any, passage: Passage) -> None:
    """An answer that is read already: by a response hook, or by a transport made for tests."""
    read = getattr(response, "_content", None)  # `.content` raises where a hook has streamed it
    if read is not None:
        response._content = passage.take(read) + passage.rest()
    passage.call.end(Stop.END_OF_BODY)


def _is_known(decoder: Decoder) -> bool:
    try:
        decoder.decode(b"")
    except UndecodableError:
        return False
    return True


def _read_whole(response: Any) -> Any:
    """As the client's own `send` does when the caller wants no stream."""
    try:
        response.read()
    except BaseException:
        response.close()
        raise
    return response


async def _aread_whole(response: Any) -> Any:
    try:
        await response.aread()
    except BaseException:
        await response.aclose()
        raise
    return response


def _wait_for_reservation(call: MeteredCall) -> None:
    try:
        call.reserved.result(RESERVE_SECONDS)
    except Exception as error:  # the ledger's failure is not the caller's
        reservation_failed(call, error)


async def _wait_for_reservation_async(call: MeteredCall) -> None:
    try:
        asyncio.get_running_loop()
    except RuntimeError:  # another event loop than asyncio's: a commit takes a millisecond or so
        _wait_for_reservation(call)
        return
    try:
        reserved = asyncio.shield(asyncio.wrap_future(call.reserved))
        await asyncio.wait_for(reserved, RESERVE_SECONDS)
    except Exception as error:  # the ledger's failure is not the caller's
        reservation_failed(call, error)
