"""One HTTP/1.1 connection to the upstream: a request out, and the bytes of its answer in.

httptools (llhttp, in its strict mode) does the parsing; this decides what its events mean.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import cast

import httptools
from multidict import CIMultiDict, CIMultiDictProxy

from lastchunk.gateway.bypass import Bypass
from lastchunk.gateway.leg import BrokenAnswerError
from lastchunk.gateway.leg_body import FedBody

HEAD_BYTES_LIMIT = 256 * 1024
"""Bytes that may come without a byte of a body: a head, interim answers, trailers."""

LAST_LOOK_SECONDS = 0.01
"""Between the end of the time and the verdict: what lies in the socket is read meanwhile."""

_BREAKS = ("\r", "\n", "\0")


class ThinAnswer:
    """See `leg.Answer`."""

    __slots__ = ("_connection", "content", "headers", "reason", "status")

    def __init__(
        self,
        connection: LegConnection,
        status: int,
        reason: str,
        headers: CIMultiDict[str],
        content: FedBody,
    ) -> None:
        self._connection = connection
        self.status = status
        self.reason = reason
        self.headers = CIMultiDictProxy(headers)
        self.content = content

    def close(self) -> None:
        self._connection.leave(self.content)


class LegConnection(asyncio.Protocol):
    """One exchange at a time. `rests(connection, alive)` is told when an exchange is over, or when
    the connection is lost while it is idle.

    `read_seconds` is the silence after which an answer counts as timed out.
    """

    def __init__(self, read_seconds: float, rests: Callable[[LegConnection, bool], None]) -> None:
        self._loop = asyncio.get_running_loop()
        self._read_seconds = read_seconds
        self._rests = rests
        self._transport: asyncio.Transport | None = None
        self._parser: httptools.HttpResponseParser | None = None
        self._body: FedBody | None = None
        self._head: asyncio.Future[ThinAnswer] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._method = ""
        self._heard = 0.0
        self._pieces: list[bytes] = []
        self._headers: CIMultiDict[str] = CIMultiDict()
        self._reason = b""
        self._head_came = self._complete = self._surplus = False
        self._keeps_alive = self._until_eof = False
        self._bodiless_bytes = 0
        self._between_chunks = False
        """The parser expects the size of the next chunk, and no digit of it has come."""
        self._passed_by: Bypass | None = None
        """It knows when it was last heard of what went by here."""
        self.rested_at = 0.0
        """When it became idle, on the loop's clock."""

    # The leg's side.

    @property
    def is_open(self) -> bool:
        return self._transport is not None and not self._transport.is_closing()

    async def exchange(self, method: str, request: bytes) -> ThinAnswer:
        """Sends the whole request and waits for the head of its answer.

        Raises TimeoutError and BrokenAnswerError.
        """
        assert self._parser is None, "one exchange at a time"
        if not self.is_open:
            self._rests(self, False)
            raise BrokenAnswerError("the connection was lost before the request")
        body, head = self._begin(method)
        assert self._transport is not None
        self._transport.write(request)
        try:
            return await head
        except asyncio.CancelledError:
            self.leave(body)
            raise

    def leave(self, body: FedBody) -> None:
        """Gives the connection up if it still belongs to this body."""
        if self._body is body:
            self.abort()

    def abort(self) -> None:
        """Ends the connection at once; an answer under way is broken."""
        if self._transport is not None:
            self._transport.abort()
        self._over(BrokenAnswerError("the connection was given up"), alive=False)

    # The loop's side.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        parser = self._parser
        if parser is None:  # nobody has asked for anything
            self.abort()
            return
        if self._between_chunks:
            assert self._body is not None
            bypass = self._body.bypass
            if bypass is not None and bypass.pass_on(data):  # the parser is where it was
                self._passed_by = bypass
                self._bodiless_bytes = 0
                return
        self._heard = self._loop.time()
        self._pieces.clear()
        try:
            parser.feed_data(data)
            self._between_chunks = self._between_chunks and data.endswith(b"\r\n")
        except httptools.HttpParserError as error:
            self._deliver()
            if not self._complete:
                self.abort_with(BrokenAnswerError(f"the answer is no HTTP: {error}"))
                return
            self._surplus = True  # what follows a whole answer is not our answer
        else:
            self._deliver()
        if self._complete:
            self._end_of_answer()
        elif self._pieces:
            self._bodiless_bytes = 0
        else:
            self._bodiless_bytes += len(data)
            if self._bodiless_bytes > HEAD_BYTES_LIMIT:
                self.abort_with(BrokenAnswerError("the answer's head is too long"))

    def eof_received(self) -> None:
        """The transport closes itself, and connection_lost follows."""

    def connection_lost(self, error: Exception | None) -> None:
        self._transport = None
        if self._parser is None:
            self._rests(self, False)
        elif error is None and self._until_eof and self._head_came:
            self._over(None, alive=False)
        else:
            self._over(BrokenAnswerError("the connection ended in the answer"), alive=False)

    # The parser's side.

    def on_message_begin(self) -> None:
        if self._complete:
            self._surplus = True
        self._headers = CIMultiDict()
        self._reason = b""

    def on_status(self, reason: bytes) -> None:
        self._reason = reason

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self._head_came:  # later ones are trailers
            self._headers.add(_text(name), _text(value).strip(" \t"))

    def on_headers_complete(self) -> None:
        assert self._parser is not None
        status = self._parser.get_status_code()
        if status < 200 or self._complete:
            return
        assert self._body is not None
        assert self._head is not None
        self._head_came = True
        self._keeps_alive = self._parser.should_keep_alive()
        coding = self._headers.get("transfer-encoding", "").lower().rpartition(",")[2].strip()
        self._until_eof = "content-length" not in self._headers and coding != "chunked"
        if self._method == "HEAD":  # its length is told, its body is not sent
            self._complete = self._surplus = True
        if not self._head.done():
            answer = ThinAnswer(self, status, _text(self._reason), self._headers, self._body)
            self._head.set_result(answer)

    def on_body(self, piece: bytes) -> None:
        if not self._complete:
            self._pieces.append(piece)

    def on_chunk_header(self) -> None:
        self._between_chunks = False

    def on_chunk_complete(self) -> None:
        self._between_chunks = True

    def on_message_complete(self) -> None:
        if self._head_came:
            self._complete = True

    # An exchange.

    def _begin(self, method: str) -> tuple[FedBody, asyncio.Future[ThinAnswer]]:
        self._method = method
        self._parser = httptools.HttpResponseParser(self)
        self._body = body = FedBody(self._hold)
        self._head = head = self._loop.create_future()
        self._pieces.clear()
        self._head_came = self._complete = self._surplus = False
        self._keeps_alive = self._until_eof = self._between_chunks = False
        self._bodiless_bytes = 0
        self._passed_by = None
        self._heard = self._loop.time()
        self._timer = self._loop.call_later(self._read_seconds, self._check_silence)
        return body, head

    def _deliver(self) -> None:
        """What one reading of the socket brought, in one piece."""
        if self._pieces:
            assert self._body is not None
            self._body.feed(self._pieces[0] if len(self._pieces) == 1 else b"".join(self._pieces))

    def _end_of_answer(self) -> None:
        assert self._transport is not None
        sent = self._transport.get_write_buffer_size() == 0
        alive = (
            self._keeps_alive and sent and not self._surplus and not self._transport.is_closing()
        )
        if not alive:
            self._transport.abort()
        self._over(None, alive=alive)

    def abort_with(self, error: Exception) -> None:
        """Ends the connection at once; this is what the answer's reader is told."""
        if self._transport is not None:
            self._transport.abort()
        self._over(error, alive=False)

    def _over(self, error: Exception | None, *, alive: bool) -> None:
        body, head = self._body, self._head
        if body is None or head is None:
            return
        self._parser = self._body = self._head = self._passed_by = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if body.held:  # the whole answer is here: nothing is held back any more
            body.held = False
            self._hold(False)
        if not head.done() and error is not None:
            head.set_exception(error)
        body.end(error)
        self._rests(self, alive)

    def _hold(self, held: bool) -> None:
        if self._transport is None or self._transport.is_closing():
            return
        if held:
            self._transport.pause_reading()
        else:
            self._heard = self._loop.time()  # while nobody read, the silence was ours
            self._transport.resume_reading()

    def _silence(self) -> float:
        """Seconds for which nothing was heard, though somebody listened."""
        assert self._body is not None
        if self._body.held:
            return 0.0
        silence = self._loop.time() - self._heard
        return silence if self._passed_by is None else min(silence, self._passed_by.silence())

    def _check_silence(self) -> None:
        left = self._read_seconds - self._silence()
        if left > 0:
            self._timer = self._loop.call_later(left, self._check_silence)
        else:
            self._timer = self._loop.call_later(LAST_LOOK_SECONDS, self._give_up)

    def _give_up(self) -> None:
        """Silent, unless the loop was kept busy and had not yet read what is there."""
        if self._silence() < self._read_seconds:
            self._check_silence()
            return
        self._timer = None
        self.abort_with(TimeoutError(f"the upstream was silent for {self._read_seconds} s"))


def request_bytes(
    method: str, target: str, host: str, headers: CIMultiDict[str], body: bytes | None
) -> bytes:
    """A request as it is sent. Raises ValueError where a line would break into two."""
    lines = [f"{method} {target} HTTP/1.1", f"Host: {host}"]
    lines += [f"{name}: {value}" for name, value in headers.items() if name.lower() != "host"]
    if "content-length" not in headers and (
        body is not None or method not in ("GET", "HEAD", "OPTIONS", "TRACE")
    ):
        lines.append(f"Content-Length: {len(body or b'')}")
    if any(mark in line for line in lines for mark in _BREAKS):
        raise ValueError("a line of a request's head holds a line break")
    return "\r\n".join([*lines, "", ""]).encode("utf-8", "surrogateescape") + (body or b"")


def _text(raw: bytes) -> str:
    return raw.decode("utf-8", "surrogateescape")
