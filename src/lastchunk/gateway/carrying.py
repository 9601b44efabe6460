"""The body of an answer on its way from the upstream to the caller."""

from __future__ import annotations

from aiohttp import web

from lastchunk.gateway.bypass import Bypass
from lastchunk.gateway.leg import BROKE, Answer, Body
from lastchunk.gateway.stopping import Guard
from lastchunk.meter.ending import Stop
from lastchunk.metered_call import MeteredCall
from lastchunk.wire.encoding import Decoder, UndecodableError
from lastchunk.wire.hide import UsageFrameHider


class Passage:
    """What becomes of a piece: metered, undone, the hidden frame taken out, stopped at a limit."""

    __slots__ = ("_call", "_decoder", "_guard", "_hider", "is_broken", "is_stopped", "lane")

    def __init__(
        self,
        call: MeteredCall | None = None,
        hider: UsageFrameHider | None = None,
        decoder: Decoder | None = None,
        guard: Guard | None = None,
    ) -> None:
        self._call = call
        self._hider = hider
        self._decoder = decoder
        self._guard = guard
        self.is_stopped = False
        """The guard has let the last piece through."""
        self.is_broken = False
        """The bytes did not follow their encoding: nothing more can be passed on."""
        self.lane = call.lane if call is not None and decoder is None else None
        """The way for quiet pieces: they are metered, and go out just as they are.

        A quiet one begins and ends where frames do, so nothing in it is to be hidden, and a stream
        may be cut behind it as well as before it.
        """

    def through(self, piece: bytes) -> bytes:
        """What the caller gets of it."""
        if self.lane is not None:
            self.lane.is_held_up = True  # it was asked already
        passed = self._through(piece)
        if self.lane is not None:
            calm = self._hider is None or self._hider.is_between_frames
            self.lane.is_held_up = self.is_stopped or not calm
        return passed

    def _through(self, piece: bytes) -> bytes:
        if self._call is not None:
            self._call.receive(piece)
        if self._decoder is not None:
            try:
                piece = self._decoder.decode(piece)
            except UndecodableError:
                self.is_broken = True
                return b""
        if self._hider is not None:
            piece = self._hider.feed(piece)
        return piece if self._guard is None else self._guarded(self._guard, piece)

    def _guarded(self, guard: Guard, piece: bytes) -> bytes:
        stops = guard.came()
        if self.is_stopped or not piece:
            return b""
        if stops:
            piece, self.is_stopped = guard.last_of(piece)
        else:
            guard.passed(piece)
        return piece

    @property
    def has_ended(self) -> Stop | None:
        """Why nothing more may be passed on, whatever still comes."""
        if self.is_stopped:
            return Stop.LIMIT_REACHED
        return Stop.CONNECTION_BROKE if self.is_broken else None


class CallerStream:
    """Writes the chunks of a prepared response straight to the caller's transport.

    aiohttp has written the head and will write the end; in between each piece is one HTTP chunk.
    """

    __slots__ = ("_connection", "_passage", "_writer", "bypass", "lane")

    def __init__(self, incoming: web.Request, passage: Passage) -> None:
        self._passage = passage
        self._connection = incoming.protocol
        self._writer = incoming.writer
        self._writer.send_headers()
        self.lane = passage.lane
        transport = self._connection.transport
        self.bypass = Bypass(self.lane, transport) if self.lane and transport else None

    def take(self, piece: bytes) -> bool:
        """Sends a piece at once. True: no more for now, `drained` tells when."""
        passage = self._passage
        if self.lane is None or not self.lane.keep(piece):
            piece = passage.through(piece)
        transport = self._connection.transport
        if transport is None or transport.is_closing() or passage.is_broken:
            return True
        if piece:
            transport.write(b"%x\r\n%b\r\n" % (len(piece), piece))
        return self._connection.writing_paused or passage.is_stopped

    async def drained(self) -> None:
        """There is room again. Raises ConnectionResetError where the caller is gone."""
        transport = self._connection.transport
        if transport is None or transport.is_closing():
            raise ConnectionResetError("the caller is gone")
        await self._writer.drain()


async def carry(
    incoming: web.Request, answer: Answer, response: web.StreamResponse, passage: Passage
) -> Stop:
    """Every piece of the body, to the caller; why it stopped.

    `response` is prepared and answers `incoming`. Raises ConnectionError where the caller is gone.
    """
    if response.headers.get("transfer-encoding") == "chunked":
        return await _pour(CallerStream(incoming, passage), answer.content, passage)
    return await _write(response, answer.content, passage)


async def _pour(caller: CallerStream, content: Body, passage: Passage) -> Stop:
    while True:
        try:
            ended = await content.pour(caller.take, caller.bypass)
        except TimeoutError:
            return Stop.TIMED_OUT
        except BROKE:
            return Stop.CONNECTION_BROKE
        if (stop := passage.has_ended) is not None:
            return stop
        if ended:
            return Stop.END_OF_BODY
        await caller.drained()


async def _write(response: web.StreamResponse, content: Body, passage: Passage) -> Stop:
    """For a body whose length was told, or that ends with its connection."""
    stop: Stop | None = None
    while stop is None:
        try:
            piece = await content.readany()
        except TimeoutError:
            stop, piece = Stop.TIMED_OUT, content.arrived()
        except BROKE:
            stop, piece = Stop.CONNECTION_BROKE, content.arrived()
        else:
            stop = None if piece else Stop.END_OF_BODY
        if piece and (passed := passage.through(piece)):
            await response.write(passed)
        stop = passage.has_ended or stop
    return stop
