"""`send`, metered: put in place of a client's own, sync or async, httpx or httpx2."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from lastchunk.errors import LedgerUnavailable
from lastchunk.instrument.attempt import (
    CALL_ID_HEADER,
    Attempt,
    Metering,
    stop_of,
)
from lastchunk.instrument.exact_mode import exchange, exchange_async, replayed
from lastchunk.instrument.reserving import refuse, reserved, reserved_async
from lastchunk.instrument.streams import Passage, metered_stream
from lastchunk.meter.ending import Stop
from lastchunk.metered_call import MeteredCall
from lastchunk.wire.encoding import Decoder, UndecodableError, decoder_for


def metered_send(send: Callable[..., Any], metering: Metering) -> Callable[..., Any]:
    """`send` of a sync client, metered."""

    def send_metered(request: Any, *, stream: bool = False, **options: Any) -> Any:
        try:
            attempt = metering.attempt(request)
        except LedgerUnavailable as error:
            return refuse(request, error)
        if attempt is None:
            return send(request, stream=stream, **options)
        if attempt.is_exact:
            response = _send_exactly(attempt, options)
            return response if stream else _read_whole(response)
        response = _send_one(attempt, options)
        while attempt.question is not None and response.status_code in (400, 422):
            _read_whole(response)
            if not attempt.question.is_refused(response.status_code, response.content):
                break
            again = attempt.asking_less(metering, response.content)
            if again is None:
                return send(request, stream=stream, **options)
            attempt = again
            response = _send_one(attempt, options)
        return response if stream else _read_whole(response)

    def _send_exactly(attempt: Attempt, options: dict[str, Any]) -> Any:
        def whole() -> Any:
            return _read_whole(_send_one(attempt, options))

        return replayed(attempt, exchange(attempt, whole))

    def _send_one(attempt: Attempt, options: dict[str, Any]) -> Any:
        call = attempt.call
        try:
            refusal = reserved(call, metering.spool)
        except BaseException:
            call.end(Stop.NOT_CONNECTED)
            raise
        if refusal is not None:
            call.end(Stop.NOT_CONNECTED)
            return refuse(attempt.plain, refusal)
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
        try:
            attempt = metering.attempt(request)
        except LedgerUnavailable as error:
            return refuse(request, error)
        if attempt is None:
            return await send(request, stream=stream, **options)
        if attempt.is_exact:
            response = await _send_exactly(attempt, options)
            return response if stream else await _aread_whole(response)
        response = await _send_one(attempt, options)
        while attempt.question is not None and response.status_code in (400, 422):
            await _aread_whole(response)
            if not attempt.question.is_refused(response.status_code, response.content):
                break
            again = attempt.asking_less(metering, response.content)
            if again is None:
                return await send(request, stream=stream, **options)
            attempt = again
            response = await _send_one(attempt, options)
        return response if stream else await _aread_whole(response)

    async def _send_exactly(attempt: Attempt, options: dict[str, Any]) -> Any:
        async def whole() -> Any:
            return await _aread_whole(await _send_one(attempt, options))

        return replayed(attempt, await exchange_async(attempt, whole))

    async def _send_one(attempt: Attempt, options: dict[str, Any]) -> Any:
        call = attempt.call
        try:
            refusal = await reserved_async(call, metering.spool)
        except BaseException:
            call.end(Stop.NOT_CONNECTED)
            raise
        if refusal is not None:
            call.end(Stop.NOT_CONNECTED)
            return refuse(attempt.plain, refusal)
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
    if attempt.question is not None and response.status_code == 200:
        decoder = decoder_for(encoding)
        if decoder is None or _is_known(decoder):
            hider = attempt.question.hider()
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
