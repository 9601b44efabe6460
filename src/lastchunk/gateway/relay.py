"""A request through the gateway: to the upstream and back, and into the books."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
from dataclasses import dataclass

import aiohttp
from aiohttp import web
from yarl import URL

from lastchunk.asking import UsageAsking, is_refusal_to_tell
from lastchunk.bookkeeper import Bookkeeper, Caller
from lastchunk.gateway import headers as through
from lastchunk.gateway.passing import cut, pass_on, pass_websocket
from lastchunk.gateway.refusals import (
    bad_target,
    body_too_large,
    upstream_broke,
    upstream_timed_out,
    upstream_unreachable,
)
from lastchunk.gateway.upstream import BROKE, Upstream, arrived
from lastchunk.gateway.websockets import is_websocket
from lastchunk.meter.ending import Stop
from lastchunk.metered_call import MeteredCall
from lastchunk.wire.dialect import Dialect, dialect_of
from lastchunk.wire.encoding import Decoder, UndecodableError, can_decode, decoder_for
from lastchunk.wire.hide import UsageFrameHider
from lastchunk.wire.request import MAX_REQUEST_BYTES, Body, read_body

MAX_GRACE_READS = 256
"""Grace reads at once. Beyond it a call is counted instead of read to its end."""

REMEMBERED_ATTEMPTS = 4096
"""First attempts that a client's retry may still refer to; a retry follows within seconds."""

ERROR_BYTES_LIMIT = 1024 * 1024
"""How much of an error answer is read to see whether it refuses to be asked for usage."""

RESERVE_SECONDS = 10.0
"""How long a call waits for its reservation to be durable before it goes on without."""

log = logging.getLogger("lastchunk.gateway")


@dataclass(frozen=True, slots=True)
class Request:
    """A metered request, read whole."""

    incoming: web.Request
    url: URL
    dialect: Dialect
    raw: bytes
    body: Body


class Relay:
    """Carries requests to one upstream. One for a process."""

    def __init__(
        self, upstream: Upstream, bookkeeper: Bookkeeper, *, account: str, grace_seconds: float
    ) -> None:
        self._upstream = upstream
        self._bookkeeper = bookkeeper
        self._account = account
        self._grace_seconds = grace_seconds
        self._asking = UsageAsking()
        self._attempts: dict[bytes, str] = {}
        self._grace_reads: set[asyncio.Task[None]] = set()
        self.busy: set[object] = set()
        """The callers' connections on which a request is under way."""
        self._idle = asyncio.Event()
        self._is_stopping = False
        self.unmetered = 0

    async def handle(self, incoming: web.Request) -> web.StreamResponse:
        """Any request of any client."""
        connection = incoming.protocol
        self.busy.add(connection)
        self._idle.clear()
        try:
            return await self._handle(incoming)
        finally:
            self.busy.discard(connection)
            if not self.busy:
                self._idle.set()

    async def drain(self, seconds: float) -> None:
        """Let requests under way end; what goes on after that is cut off by us."""
        if self.busy:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._idle.wait(), seconds)
        self._is_stopping = True

    def hurry(self) -> None:
        """Drain no longer."""
        self._idle.set()

    async def finish(self, seconds: float) -> None:
        """Let grace reads under way end."""
        if self._grace_reads:
            await asyncio.wait(self._grace_reads, timeout=seconds)

    async def _handle(self, incoming: web.Request) -> web.StreamResponse:
        url = self._upstream.url(incoming.raw_path)
        if url is None:
            return bad_target()
        dialect = dialect_of(incoming.method, incoming.path)
        if dialect is None:
            if is_websocket(incoming):
                self.unmetered += 1
                log.info("a websocket to %s is passed on unmetered", incoming.path)
                return await pass_websocket(incoming, self._upstream, url)
            return await pass_on(incoming, self._upstream, url, incoming.content, None)
        try:
            raw = await incoming.read()
        except web.HTTPRequestEntityTooLarge:
            return body_too_large(MAX_REQUEST_BYTES)
        body = read_body(raw)
        if body is None:
            self.unmetered += 1
            log.warning("a request to %s is passed on unmetered: no JSON object", incoming.path)
            return await pass_on(incoming, self._upstream, url, raw, "the body is no JSON object")
        return await self._meter(Request(incoming, url, dialect, raw, body))

    # What is metered.

    async def _meter(self, request: Request) -> web.StreamResponse:
        call = self._open(request, self._retried(request))
        asked = self._asking.ask(call.call.request, request.raw, request.body)
        answer = await self._send(request, call, asked)
        if isinstance(answer, web.Response):
            return answer
        begun = b""
        if asked is not None and answer.status in (400, 422):
            begun = await self._read_error(answer, call)
            if _refuses_to_tell(answer, begun):
                call.end(Stop.END_OF_BODY)
                answer.close()
                self._asking.refused(call.call.request)
                call = self._open(request, call.call.attempt_of or call.call_id)
                begun, asked, answer = b"", None, await self._send(request, call, None)
                if isinstance(answer, web.Response):
                    return answer
        try:
            hides = asked is not None and _may_hold_usage_frame(answer)
            return await self._stream(request.incoming, answer, call, begun, hides=hides)
        except BaseException as error:
            self._leave(answer, call)
            if isinstance(error, ConnectionError):  # a write to the caller found it gone
                return web.Response()
            raise

    def _open(self, request: Request, attempt_of: str | None) -> MeteredCall:
        account, tags = through.labels(request.incoming.headers, self._account)
        call = self._bookkeeper.open(
            request.dialect,
            request.raw,
            request.body,
            upstream=self._upstream.host,
            path=request.incoming.path,
            caller=Caller(account, "gateway", tags),
            attempt_of=attempt_of,
        )
        if attempt_of is None:
            self._attempts[_fingerprint(request)] = call.call_id
            while len(self._attempts) > REMEMBERED_ATTEMPTS:
                del self._attempts[next(iter(self._attempts))]
        return call

    def _retried(self, request: Request) -> str | None:
        """The first attempt's id where this is the client's own retry of it."""
        if request.incoming.headers.get("x-stainless-retry-count", "0") == "0":
            return None
        return self._attempts.get(_fingerprint(request))

    async def _send(
        self, request: Request, call: MeteredCall, asked: bytes | None
    ) -> aiohttp.ClientResponse | web.Response:
        """The upstream's answer, or ours where it gave none."""
        headers = through.to_upstream(request.incoming.headers)
        if asked is not None:
            headers["accept-encoding"] = "identity"
        try:
            await self._reserved(call)
        except BaseException:
            call.end(Stop.NOT_CONNECTED)
            raise
        try:
            answer = await self._upstream.send(
                request.incoming.method, request.url, headers, asked or request.raw
            )
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError):
            call.end(Stop.NOT_CONNECTED)
            return upstream_unreachable(call.call_id)
        except TimeoutError:
            call.end(Stop.TIMED_OUT)
            return upstream_timed_out(call.call_id)
        except BROKE:
            call.end(Stop.CONNECTION_BROKE)
            return upstream_broke(call.call_id)
        except BaseException:
            call.end(Stop.CALLER_LEFT)
            raise
        call.headed(
            answer.status,
            answer.headers.get("content-type"),
            answer.headers.get("content-encoding"),
        )
        return answer

    async def _reserved(self, call: MeteredCall) -> None:
        try:
            reserved = asyncio.shield(asyncio.wrap_future(call.reserved))
            await asyncio.wait_for(reserved, RESERVE_SECONDS)
        except Exception as error:  # the ledger's failure is not the caller's
            log.error("%s could not be reserved: %s", call.call_id, error or type(error).__name__)

    async def _stream(
        self,
        incoming: web.Request,
        answer: aiohttp.ClientResponse,
        call: MeteredCall,
        begun: bytes,
        *,
        hides: bool,
    ) -> web.StreamResponse:
        """The answer to the caller; `begun` is what of its body was read already."""
        hider, decoder = None, None
        headers = through.to_caller(answer.headers, changed=hides)
        if hides:
            hider = UsageFrameHider()
            if (decoder := decoder_for(answer.headers.get("content-encoding"))) is not None:
                del headers["content-encoding"]
        headers[through.CALL_ID] = call.call_id
        response = web.StreamResponse(status=answer.status, reason=answer.reason, headers=headers)
        await response.prepare(incoming)
        if begun:
            await response.write(begun)
        stop = await self._carry(answer, response, call, hider, decoder)
        call.end(stop)
        if hider is not None and (rest := hider.rest()):
            await response.write(rest)
        if stop is Stop.END_OF_BODY:
            await response.write_eof()
        else:
            cut(incoming, answer)
        return response

    async def _carry(
        self,
        answer: aiohttp.ClientResponse,
        response: web.StreamResponse,
        call: MeteredCall,
        hider: UsageFrameHider | None,
        decoder: Decoder | None,
    ) -> Stop:
        """Every piece of the body, from the upstream to the caller; why it stopped."""
        content = answer.content
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
            if piece:
                call.receive(piece)
                if decoder is not None:
                    try:
                        piece = decoder.decode(piece)
                    except UndecodableError:
                        return Stop.CONNECTION_BROKE
                if hider is not None:
                    piece = hider.feed(piece)
                if piece:
                    await response.write(piece)
        return stop

    def _leave(self, answer: aiohttp.ClientResponse, call: MeteredCall) -> None:
        """The caller is gone: read on where only the usage is missing, else stop at once."""
        if rest := arrived(answer.content):
            call.receive(rest)
        wanted = self._grace_seconds and len(self._grace_reads) < MAX_GRACE_READS
        if wanted and call.awaits_usage():
            task = asyncio.create_task(self._grace_read(answer, call))
            self._grace_reads.add(task)
            task.add_done_callback(self._grace_reads.discard)
            return
        call.end(self._stop_of_leaving())
        answer.close()

    def _stop_of_leaving(self) -> Stop:
        return Stop.LIMIT_REACHED if self._is_stopping else Stop.CALLER_LEFT

    async def _grace_read(self, answer: aiohttp.ClientResponse, call: MeteredCall) -> None:
        try:
            async with asyncio.timeout(self._grace_seconds):
                while call.finish_seen and (piece := await answer.content.readany()):
                    call.receive(piece)
        except (TimeoutError, *BROKE):
            pass  # it is counted instead
        finally:
            call.end(self._stop_of_leaving())
            answer.close()

    async def _read_error(self, answer: aiohttp.ClientResponse, call: MeteredCall) -> bytes:
        """An error answer, which is short; of a long one the beginning."""
        told = b""
        try:
            while len(told) < ERROR_BYTES_LIMIT and (piece := await answer.content.readany()):
                call.receive(piece)
                told += piece
        except (TimeoutError, *BROKE):
            pass  # it is met again when the answer is carried to the caller
        except BaseException:
            self._leave(answer, call)
            raise
        return told


def _may_hold_usage_frame(answer: aiohttp.ClientResponse) -> bool:
    """Whether there is a stream to take the usage frame out of, and it can be read."""
    kind = answer.headers.get("content-type", "").partition(";")[0].strip().lower()
    encoding = answer.headers.get("content-encoding")
    return answer.status == 200 and kind != "application/json" and can_decode(encoding)


def _refuses_to_tell(answer: aiohttp.ClientResponse, told: bytes) -> bool:
    decoder = decoder_for(answer.headers.get("content-encoding"))
    try:
        return is_refusal_to_tell(answer.status, decoder.decode(told) if decoder else told)
    except UndecodableError:
        return False


def _fingerprint(request: Request) -> bytes:
    """The same client sending the same body to the same place."""
    key = request.incoming.headers.get("authorization", "")
    told = f"{key}\n{request.incoming.raw_path}\n".encode()
    return hashlib.blake2b(told + request.raw, digest_size=16).digest()
