"""A request through the gateway: to the upstream and back, and into the books."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
from collections.abc import Callable, Iterator, Sequence

import aiohttp
from aiohttp import web

from lastchunk.asking import Question, UsageAsking
from lastchunk.bookkeeper import Bookkeeper, Caller
from lastchunk.gateway import headers as through
from lastchunk.gateway.access import Denied, Door, Guest
from lastchunk.gateway.budget import headers_of
from lastchunk.gateway.carrying import Passage, carry
from lastchunk.gateway.exact import ExactMode
from lastchunk.gateway.leaving import LeftCalls, note_head
from lastchunk.gateway.leg import BROKE, NOT_CONNECTED, Answer
from lastchunk.gateway.passing import cut, may_pass, pass_on, pass_websocket, peek
from lastchunk.gateway.refusals import (
    bad_target,
    body_too_large,
    denied,
    ledger_away,
    over_limit,
    too_slow,
    upstream_broke,
    upstream_timed_out,
    upstream_unreachable,
)
from lastchunk.gateway.request import Request
from lastchunk.gateway.rulebook import RuleBook
from lastchunk.gateway.rules import Rules
from lastchunk.gateway.stopping import Guard
from lastchunk.gateway.websockets import is_websocket
from lastchunk.meter.ending import Stop
from lastchunk.metered_call import MeteredCall
from lastchunk.wire.dialect import dialect_of
from lastchunk.wire.encoding import UndecodableError, can_decode, decoder_for
from lastchunk.wire.hide import UsageFrameHider
from lastchunk.wire.request import MAX_REQUEST_BYTES, model_of, read_body

REMEMBERED_ATTEMPTS = 4096
"""First attempts that a client's retry may still refer to; a retry follows within seconds."""

ERROR_BYTES_LIMIT = 1024 * 1024
"""How much of an error answer is read to see whether it refuses to be asked for usage."""

FREED_SECONDS = 1.0
"""How long an attempt waits for the one before it to be settled: a few milliseconds, as a rule."""

BODY_SECONDS = 120.0
"""How long a metered request's body may take to arrive: who sends slower holds us up."""

log = logging.getLogger("lastchunk.gateway")


class Relay:
    """Carries requests to their upstreams. One for a process."""

    def __init__(
        self,
        rulebook: RuleBook,
        door: Door,
        bookkeeper: Bookkeeper,
        *,
        grace_seconds: float,
        read_seconds: float,
        exact_accounts: Sequence[str] = (),
        running_usage: bool = True,
        refused: Callable[[str], object] | None = None,
    ) -> None:
        """`refused` is told the name of each limit that refuses a call."""
        self._rulebook = rulebook
        self._door = door
        self._bookkeeper = bookkeeper
        self._left = LeftCalls(grace_seconds)
        self._asking = UsageAsking()
        self._running_usage = running_usage
        self._tell_refused = refused
        self._exact = ExactMode(exact_accounts, self._at_work, left_seconds=read_seconds)
        self._attempts: dict[bytes, str] = {}
        self.busy: set[object] = set()
        """The callers' connections on which a request is under way, and whatever else goes on."""
        self._idle = asyncio.Event()
        self.unmetered = 0

    async def handle(self, incoming: web.Request) -> web.StreamResponse:
        """Any request of any client."""
        with self._at_work(incoming.protocol):
            return await self._handle(incoming)

    @contextlib.contextmanager
    def _at_work(self, what: object) -> Iterator[None]:
        self.busy.add(what)
        self._idle.clear()
        try:
            yield
        finally:
            self.busy.discard(what)
            if not self.busy:
                self._idle.set()

    async def drain(self, seconds: float) -> None:
        """Let requests under way end, and answers whose callers left be read on; what goes on after
        that is cut off by us."""
        until = asyncio.get_running_loop().time() + seconds
        if self.busy:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._idle.wait(), seconds)
        await self._left.settle(until - asyncio.get_running_loop().time())
        self._left.is_stopping = True

    def drains(self) -> int:
        """How many answers are drained at this moment."""
        return self._left.count()

    def hurry(self) -> None:
        """Drain no longer."""
        self._idle.set()
        self._left.hurry()

    async def finish(self, seconds: float) -> None:
        """End drains that are left, and let grace reads under way end."""
        self._exact.stop()
        await self._left.finish(seconds)

    async def _handle(self, incoming: web.Request) -> web.StreamResponse:
        guest, rules = self._door.enter(incoming.headers), self._rulebook.rules
        if isinstance(guest, Denied):
            return _refuse(guest, incoming, None)
        dialect = dialect_of(incoming.method, incoming.path)
        if dialect is not None and (incoming.content_length or 0) > MAX_REQUEST_BYTES:
            return body_too_large(MAX_REQUEST_BYTES)
        try:
            async with asyncio.timeout(BODY_SECONDS) as reading:
                if dialect is None:
                    model, unread = await peek(incoming, rules, guest)
                else:
                    raw = await incoming.read()
        except web.HTTPRequestEntityTooLarge:
            return body_too_large(MAX_REQUEST_BYTES)
        except TimeoutError:
            if not reading.expired():
                raise
            return too_slow()
        if dialect is None:
            return await self._pass_unmetered(incoming, rules, guest, model, unread, None)
        if (body := read_body(raw)) is None:
            model, why = model_of(None, incoming.path), "the body is no JSON object"
            return await self._pass_unmetered(incoming, rules, guest, model, raw, why)
        route = rules.route(model_of(body, incoming.path), guest)
        if isinstance(route, Denied):
            return _refuse(route, incoming, guest)
        if (url := route.upstream.url(incoming.raw_path)) is None:
            return bad_target()
        return await self._meter(Request(incoming, guest, rules, route, url, dialect, raw, body))

    async def _pass_unmetered(
        self,
        incoming: web.Request,
        rules: Rules,
        guest: Guest,
        model: str | None,
        body: bytes | aiohttp.StreamReader,
        why: str | None,
    ) -> web.StreamResponse:
        """`why` is told to the caller where a metered endpoint cannot be metered."""
        route = may_pass(incoming, rules, guest) or rules.route(model, guest)
        if isinstance(route, Denied):
            return _refuse(route, incoming, guest)
        if (url := route.upstream.url(incoming.raw_path)) is None:
            return bad_target()
        if is_websocket(incoming):
            self.unmetered += 1
            log.info("a websocket to %s is passed on unmetered", incoming.path)
            return await pass_websocket(incoming, route, guest, url)
        if why is not None:
            self.unmetered += 1
            log.warning("a request to %s is passed on unmetered: %s", incoming.path, why)
        return await pass_on(incoming, route, guest, url, body, why)

    # What is metered.

    async def _meter(self, request: Request) -> web.StreamResponse:
        if (whole := self._exact.whole(request, request.guest.account)) is not None:
            return await self._meter_exactly(request, whole)
        call = self._open(request, self._retried(request))
        asked = self._ask(request, call)
        answer = await self._send(request, call, asked.body if asked else None)
        if isinstance(answer, web.Response):
            return answer
        begun = b""
        while asked is not None and answer.status in (400, 422):
            begun = await self._read_error(answer, call)
            if (told := _refusal(asked, answer, begun)) is None:
                break
            call.end(Stop.END_OF_BODY)
            answer.close()
            self._asking.refused(call.call.request, asked, told)
            await self._freed(call)
            call = self._open(request, call.call.attempt_of or call.call_id)
            begun, asked = b"", self._ask(request, call)
            answer = await self._send(request, call, asked.body if asked else None)
            if isinstance(answer, web.Response):
                return answer
        hider = asked.hider() if asked is not None and _may_hold_usage_frame(answer) else None
        return await self._pass(request, answer, call, begun, hider)

    async def _meter_exactly(self, request: Request, whole: Request) -> web.StreamResponse:
        """As `_meter`, but the upstream is asked for the whole answer."""
        call = self._open(whole, self._retried(whole))
        carried = await self._exact.carry(request, call, self._send(whole, call, whole.raw))
        if isinstance(carried, web.StreamResponse):
            return carried
        answer, begun = carried
        return await self._pass(request, answer, call, begun, None)

    def _ask(self, request: Request, call: MeteredCall) -> Question | None:
        return self._asking.ask(
            call.call.request, request.raw, request.body, running=self._running_usage
        )

    async def _pass(
        self,
        request: Request,
        answer: Answer,
        call: MeteredCall,
        begun: bytes,
        hider: UsageFrameHider | None,
    ) -> web.StreamResponse:
        """The answer, passed on while the caller is there."""
        try:
            return await self._stream(request.incoming, answer, call, begun, hider)
        except BaseException as error:
            self._left.leave(answer, call)
            if isinstance(error, ConnectionError):  # a write to the caller found it gone
                return web.Response()
            raise

    def _open(self, request: Request, attempt_of: str | None) -> MeteredCall:
        guest = request.guest
        call = self._bookkeeper.open(
            request.dialect,
            request.raw,
            request.body,
            upstream=request.route.upstream.host,
            path=request.incoming.path,
            caller=Caller(guest.account, "gateway", guest.tags),
            attempt_of=attempt_of,
            exact=request.exact,
            terms=request.rules.terms if request.rules.limits else None,
        )
        if attempt_of is None:
            self._attempts[_fingerprint(request)] = call.call_id
            while len(self._attempts) > REMEMBERED_ATTEMPTS:
                del self._attempts[next(iter(self._attempts))]
        return call

    async def _freed(self, call: MeteredCall) -> None:
        """Wait until an attempt that has ended holds nothing, where limits apply to the next."""
        if call.purse is not None:
            with contextlib.suppress(Exception):  # then the next one holds beside it
                settled = asyncio.shield(asyncio.wrap_future(call.settled))
                await asyncio.wait_for(settled, FREED_SECONDS)

    def _retried(self, request: Request) -> str | None:
        """The first attempt's id where this is the client's own retry of it."""
        if request.incoming.headers.get("x-stainless-retry-count", "0") == "0":
            return None
        return self._attempts.get(_fingerprint(request))

    async def _send(
        self, request: Request, call: MeteredCall, asked: bytes | None
    ) -> Answer | web.Response:
        """The upstream's answer, or ours where it gave none."""
        headers = through.to_upstream(request.incoming.headers)
        request.route.authorize(headers, drop_callers=request.guest.key is not None)
        if asked is not None or (call.purse is not None and call.call.request.stream):
            headers["accept-encoding"] = "identity"
        body = asked or request.raw
        reached = request.route.upstream.reach(body)  # connecting sends nothing: it need not wait
        try:
            may_go = await self._reserved(call)
        except BaseException:
            if reached is not None:
                reached.release()
            call.end(Stop.NOT_CONNECTED)
            raise
        if not may_go:
            if reached is not None:
                reached.release()
            call.end(Stop.NOT_CONNECTED)
            return ledger_away(call.call_id)
        if (refused := call.refusal) is not None:
            if reached is not None:
                reached.release()
            limit = refused.standing.limit.name
            log.info("%s of %s is refused at the limit %r", call.call_id, call.call.account, limit)
            if self._tell_refused is not None:
                self._tell_refused(limit)
            return over_limit(refused, self._bookkeeper.clock.now_ms(), call.call_id)
        try:
            sending = request.route.upstream.send(
                request.incoming.method, request.url, headers, body, reached
            )
            answer = await (self._left.outlive(sending, call) if call.may_drain else sending)
        except NOT_CONNECTED:
            call.end(Stop.NOT_CONNECTED)
            return upstream_unreachable(call.call_id)
        except TimeoutError:
            call.end(Stop.TIMED_OUT)
            return upstream_timed_out(call.call_id)
        except BROKE:
            call.end(Stop.CONNECTION_BROKE)
            return upstream_broke(call.call_id)
        except BaseException:
            if not call.is_read_on:
                if reached is not None:  # what was to use it may not even have begun
                    reached.release()
                call.end(self._left.stop_of_leaving())
            raise
        note_head(answer, call)
        return answer

    async def _reserved(self, call: MeteredCall) -> bool:
        """Waits for it; whether the call may be sent."""
        ledger = self._bookkeeper.ledger
        try:
            reserved = asyncio.shield(asyncio.wrap_future(call.reserved))
            await asyncio.wait_for(reserved, ledger.reserve_seconds)
        except Exception as error:  # the ledger's failure is not the caller's, unless so set
            told = str(error) or type(error).__name__
            log.error("%s could not be reserved: %s", call.call_id, told)
            if call.purse is not None:
                call.purse.admission.is_waived = True
            return not ledger.refuses_when_away
        return True

    async def _stream(
        self,
        incoming: web.Request,
        answer: Answer,
        call: MeteredCall,
        begun: bytes,
        hider: UsageFrameHider | None,
    ) -> web.StreamResponse:
        """The answer to the caller; `begun` is what of its body was read already."""
        guard = self._guard(answer, call)
        changed = hider is not None or guard is not None
        headers = through.to_caller(answer.headers, changed=changed)
        encoding = answer.headers.get("content-encoding")
        if not changed or not can_decode(encoding):
            encoding = None
        if (decoder := decoder_for(encoding)) is not None:
            del headers["content-encoding"]
        headers[through.CALL_ID] = call.call_id
        headers.update(headers_of(call, call.call.opened_ms))
        response = web.StreamResponse(status=answer.status, reason=answer.reason, headers=headers)
        await response.prepare(incoming)
        if begun:
            await response.write(begun)
        passage = Passage(call, hider, decoder, guard)
        stop = await carry(incoming, answer, response, passage)
        if guard is not None and guard.is_cut:
            return await _close(answer, response, call, guard)
        call.end(stop)
        if hider is not None and (rest := hider.rest()):
            await response.write(rest)
        if stop is Stop.END_OF_BODY:
            await response.write_eof()
        else:
            cut(incoming, answer)
        return response

    def _guard(self, answer: Answer, call: MeteredCall) -> Guard | None:
        """Who stops a stream at its limit."""
        purse, is_stream = call.purse, call.call.request.stream and answer.status == 200
        if purse is None or not purse.watches or not is_stream:
            return None
        readable = can_decode(answer.headers.get("content-encoding"))
        return Guard(call, purse, self._bookkeeper.look, readable=readable)

    async def _read_error(self, answer: Answer, call: MeteredCall) -> bytes:
        """An error answer, which is short; of a long one the beginning."""
        told = b""
        try:
            while len(told) < ERROR_BYTES_LIMIT and (piece := await answer.content.readany()):
                call.receive(piece)
                told += piece
        except (TimeoutError, *BROKE):
            pass  # it is met again when the answer is carried to the caller
        except BaseException:
            self._left.leave(answer, call)
            raise
        return told


async def _close(
    answer: Answer,
    response: web.StreamResponse,
    call: MeteredCall,
    guard: Guard,
) -> web.StreamResponse:
    """The end of a stream that was stopped at its limit."""
    closing = guard.closing()
    if call.purse is not None and call.purse.stopped is not None:
        limit = call.purse.stopped.standing.limit.name
        log.info("%s of %s is stopped at the limit %r", call.call_id, call.call.account, limit)
    call.end(Stop.LIMIT_REACHED)
    answer.close()
    await response.write(closing)
    await response.write_eof()
    return response


def _refuse(why: Denied, incoming: web.Request, guest: Guest | None) -> web.Response:
    """The answer to who is not let in, or not to this; it leaves a line in the log."""
    who = "nobody known" if guest is None else guest.account
    key = "" if guest is None or guest.key is None else f" with the key {guest.key.key_id}"
    log.info("%s%s is refused %s: %s", who, key, incoming.path, why.code)
    return denied(why)


def _may_hold_usage_frame(answer: Answer) -> bool:
    """Whether there is a stream to take the usage frame out of, and it can be read."""
    kind = answer.headers.get("content-type", "").partition(";")[0].strip().lower()
    encoding = answer.headers.get("content-encoding")
    return answer.status == 200 and kind != "application/json" and can_decode(encoding)


def _refusal(asked: Question, answer: Answer, begun: bytes) -> bytes | None:
    """What an error answer says, where it says that it does not know what we asked for."""
    decoder = decoder_for(answer.headers.get("content-encoding"))
    try:
        told = decoder.decode(begun) if decoder else begun
    except UndecodableError:
        return None
    return told if asked.is_refused(answer.status, told) else None


def _fingerprint(request: Request) -> bytes:
    """The same client, with the same labels, sending the same body to the same place."""
    incoming = request.incoming
    key, guest = incoming.headers.get("authorization", ""), request.guest
    told = (
        f"{key}\n{incoming.remote}\n{guest.account}\n{guest.tags}\n{incoming.raw_path}\n".encode()
    )
    return hashlib.blake2b(told + request.raw, digest_size=16).digest()
