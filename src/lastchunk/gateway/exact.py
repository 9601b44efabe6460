"""Exact mode: the upstream is called without streaming, and its answer replayed as the stream.

The head goes out when the upstream's head has come, so that a refusal is a refusal with its own
status. A caller that leaves changes nothing for the provider, who generates and bills the whole
answer: it is read to its end all the same, for the account.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from functools import partial
from typing import Any

from aiohttp import web

from lastchunk.exactness import is_exact_account
from lastchunk.gateway import headers as through
from lastchunk.gateway.budget import headers_of
from lastchunk.gateway.leg import BROKE, Answer, Body
from lastchunk.gateway.passing import cut
from lastchunk.gateway.request import Request
from lastchunk.gateway.upstream import arrived
from lastchunk.meter.ending import Stop
from lastchunk.metered_call import MeteredCall
from lastchunk.wire.encoding import UndecodableError, decoder_for
from lastchunk.wire.replay import EVENT_STREAM, replay
from lastchunk.wire.request import read_body
from lastchunk.wire.whole import ask_for_whole, wants_usage_chunk

KEEP_ALIVE_SECONDS = 10.0
"""How often a caller hears that the rest of the answer is waited for, once its head has come."""

KEEP_ALIVE = b": lastchunk waits for the whole answer\n\n"
"""A comment of server-sent events, which clients skip."""

MAX_LEFT = 256
"""Answers that are read for the account alone. Beyond it a call is estimated instead."""

MAX_ANSWER_BYTES = 64 * 1024 * 1024
"""Of one whole answer, which is held in memory."""

WRITE_BYTES = 16 * 1024
"""Frames go out in writes of about this size."""

Sending = Coroutine[Any, Any, Answer | web.Response]

log = logging.getLogger("lastchunk.gateway")


class ExactMode:
    """Answers streaming requests from whole answers. One for a gateway.

    `at_work` marks something under way that a graceful stop waits for; `left_seconds` is how long
    an answer may take whose caller has left.
    """

    def __init__(
        self,
        accounts: Sequence[str],
        at_work: Callable[[object], AbstractContextManager[None]],
        *,
        left_seconds: float,
    ) -> None:
        self._accounts = accounts
        self._at_work = at_work
        self._left_seconds = left_seconds
        self._left: dict[asyncio.Task[Any], MeteredCall] = {}

    def whole(self, request: Request, account: str) -> Request | None:
        """The request for the whole answer; None where this one is not to be exact."""
        asked = request.incoming.headers.get(through.USAGE, "").strip().lower() == through.EXACT
        if not asked and not is_exact_account(account, self._accounts):
            return None
        raw = ask_for_whole(request.raw, request.body)
        body = None if raw is None else read_body(raw)
        if raw is None or body is None:
            return None
        return replace(request, raw=raw, body=body, exact=True)

    async def carry(
        self, asked: Request, call: MeteredCall, sending: Sending
    ) -> web.StreamResponse | tuple[Answer, bytes]:
        """The replay, sent to the caller of `asked`; `sending` sends the request for the whole.

        What is not replayed (an error, a stream all the same, a body of no known shape) comes back
        as the upstream's answer and the bytes of it that were read, to be passed on.
        """
        exchange = _Exchange(call, sending)
        task = asyncio.create_task(self._run(exchange))
        reply = _Reply(asked, exchange)
        try:
            while not task.done():
                await asyncio.wait({task}, timeout=KEEP_ALIVE_SECONDS)
                if not task.done() and exchange.is_coming:
                    await reply.keep_alive()
            task.result()
            return await reply.finish()
        except BaseException as error:
            self._leave(task, call)
            if isinstance(error, ConnectionError):  # a write to the caller found it gone
                return web.Response()
            raise

    def stop(self) -> None:
        """This gateway ends: what is still read for the account alone is read no longer."""
        for task, call in list(self._left.items()):
            call.end(Stop.SHUT_DOWN)
            task.cancel()

    async def _run(self, exchange: _Exchange) -> None:
        with self._at_work(exchange):
            await exchange.run()

    def _leave(self, task: asyncio.Task[None], call: MeteredCall) -> None:
        """The caller is gone: the answer is read to its end without it."""
        if task.done():
            return
        call.caller_left = True
        self._left[task] = call
        if len(self._left) > MAX_LEFT:
            _give_up(task, call)
        loop = asyncio.get_running_loop()
        timer = loop.call_later(self._left_seconds, _give_up, task, call)
        task.add_done_callback(partial(self._done, timer))

    def _done(self, timer: asyncio.TimerHandle, task: asyncio.Task[None]) -> None:
        timer.cancel()
        self._left.pop(task, None)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("an answer could not be read to its end: %s", type(error).__name__)


def _give_up(task: asyncio.Task[None], call: MeteredCall) -> None:
    call.end(Stop.CALLER_LEFT)
    task.cancel()


class _Exchange:
    """The call upstream, whoever waits for it."""

    def __init__(self, call: MeteredCall, sending: Sending) -> None:
        self.call = call
        self._sending = sending
        self.answer: Answer | web.Response | None = None
        self.body = b""
        self.stop: Stop | None = None

    @property
    def upstreams(self) -> Answer | None:
        """The upstream's answer; None where it gave none, so far or at all."""
        return None if isinstance(self.answer, web.Response) else self.answer

    @property
    def is_coming(self) -> bool:
        """The head of an answer has come that will be replayed."""
        answer = self.upstreams
        if answer is None or answer.status != 200:
            return False
        kind = answer.headers.get("content-type", "application/json").partition(";")[0]
        return kind.strip().lower() == "application/json"

    async def run(self) -> None:
        """Send, and read the whole answer if it is one."""
        self.answer = await self._sending
        if not self.is_coming:
            if self.call.caller_left and (left := self.upstreams) is not None:
                self.call.end(Stop.CALLER_LEFT)
                left.close()
            return
        answer = self.upstreams
        assert answer is not None
        try:
            self.stop = await self._read(answer.content)
        except BaseException:
            self.call.end(Stop.CALLER_LEFT)
            raise
        finally:
            answer.close()
        self.call.end(self.stop)

    async def _read(self, content: Body) -> Stop:
        pieces: list[bytes] = []
        size = 0
        stop: Stop | None = None
        while stop is None:
            try:
                piece = await content.readany()
            except TimeoutError:
                stop, piece = Stop.TIMED_OUT, arrived(content)
            except BROKE:
                stop, piece = Stop.CONNECTION_BROKE, arrived(content)
            else:
                stop = None if piece else Stop.END_OF_BODY
            self.call.receive(piece)
            pieces.append(piece)
            size += len(piece)
            if size > MAX_ANSWER_BYTES:
                stop = Stop.LIMIT_REACHED
        self.body = b"".join(pieces)
        return stop

    def frames(self, asked: Request) -> list[bytes] | None:
        """The replay; None where the body has no known shape."""
        answer = self.upstreams
        assert answer is not None
        decoder = decoder_for(answer.headers.get("content-encoding"))
        try:
            plain = decoder.decode(self.body) if decoder is not None else self.body
        except UndecodableError:
            return None
        usage_chunk = wants_usage_chunk(asked.dialect, asked.body)
        return replay(asked.dialect, plain, usage_chunk=usage_chunk)


class _Reply:
    """What the caller hears: comments while it waits, then the replay."""

    def __init__(self, asked: Request, exchange: _Exchange) -> None:
        self._asked = asked
        self._exchange = exchange
        self._response: web.StreamResponse | None = None

    async def keep_alive(self) -> None:
        await (await self._begun()).write(KEEP_ALIVE)

    async def finish(self) -> web.StreamResponse | tuple[Answer, bytes]:
        """The replay written; or the upstream's answer, where there is nothing to replay."""
        exchange, answer = self._exchange, self._exchange.answer
        assert answer is not None
        if isinstance(answer, web.Response):
            return answer
        if not exchange.is_coming:
            return answer, b""
        frames = exchange.frames(self._asked) if exchange.stop is Stop.END_OF_BODY else []
        if frames is None and self._response is None:
            return answer, exchange.body
        response = await self._begun()
        for start, end in _writes(frames or []):
            await response.write(b"".join((frames or [])[start:end]))
        if frames:
            await response.write_eof()
        else:
            cut(self._asked.incoming, answer)
        return response

    async def _begun(self) -> web.StreamResponse:
        if self._response is None:
            answer = self._exchange.upstreams
            assert answer is not None
            headers = through.to_caller(answer.headers, changed=True)
            headers.popall("content-encoding", None)
            headers["content-type"] = EVENT_STREAM
            headers[through.CALL_ID] = self._exchange.call.call_id
            headers[through.USAGE] = through.EXACT
            call = self._exchange.call
            headers.update(headers_of(call, call.call.opened_ms))
            self._response = web.StreamResponse(
                status=answer.status, reason=answer.reason, headers=headers
            )
            await self._response.prepare(self._asked.incoming)
        return self._response


def _writes(frames: Sequence[bytes]) -> list[tuple[int, int]]:
    """Spans of frames of about `WRITE_BYTES` each."""
    spans: list[tuple[int, int]] = []
    start, size = 0, 0
    for number, frame in enumerate(frames, start=1):
        size += len(frame)
        if size >= WRITE_BYTES or number == len(frames):
            spans.append((start, number))
            start, size = number, 0
    return spans
