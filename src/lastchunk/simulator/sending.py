"""Frames onto a socket: paced, compressed, cut into packets, and ended as the fault wants."""

from __future__ import annotations

import asyncio
import socket
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass

from aiohttp import web

from lastchunk.simulator.faults import Outgoing
from lastchunk.simulator.frames import Frame
from lastchunk.simulator.script import Script

# So many frames go out before other calls get their turn.
FRAMES_PER_TURN = 8
# A reset destroys what was not read yet; the client gets this long, also on a busy machine.
BEFORE_RESET_S = 0.2
# gzip in a zlib compressor's terms.
GZIP_WINDOW = 31


class ClientGone(Exception):
    """The client closed the connection before the answer was out."""


@dataclass(slots=True)
class Progress:
    """How far the sending has come; read when it ends, however it ends."""

    sent: int = 0
    partly: bool = False


class Sender:
    """Sends one answer's frames through one response."""

    def __init__(
        self,
        request: web.Request,
        response: web.StreamResponse,
        script: Script,
        *,
        gzip: bool,
        hold: Callable[[], None],
    ) -> None:
        self._request = request
        self._response = response
        self._script = script
        self._hold = hold  # told when the answer is held still
        self._gzip = zlib.compressobj(wbits=GZIP_WINDOW) if gzip else None
        self.progress = Progress()

    async def think(self, tokens: int) -> None:
        """An answer in one piece: all its time passes before the headers."""
        chunks = -(-tokens // self._script.tokens_per_chunk)
        await asyncio.sleep(self._script.first_token_delay_s + self._script.pacing_s * chunks)

    async def send(self, outgoing: Outgoing, *, streamed: bool) -> None:
        """All frames, then the end. Raises ClientGone, or CancelledError when the client left."""
        pacing = self._script.pacing_s
        if streamed and self._script.first_token_delay_s > 0:
            await asyncio.sleep(self._script.first_token_delay_s)
        for number, frame in enumerate(outgoing.frames, start=1):
            if pacing > 0 and frame.kind in ("output", "silent"):
                await asyncio.sleep(pacing)
            elif number % FRAMES_PER_TURN == 0:
                await asyncio.sleep(0)
            if frame.data:
                await self._frame(frame)
            self.progress.sent = number
        await self._end(outgoing)

    async def _frame(self, frame: Frame) -> None:
        data = frame.data
        if self._gzip is not None:
            data = self._gzip.compress(data) + self._gzip.flush(zlib.Z_SYNC_FLUSH)
        size = self._script.packet_bytes
        if not size:
            await self._write(data)
            return
        for start in range(0, len(data), size):
            await self._write(data[start : start + size])
            self.progress.partly = True
            await asyncio.sleep(0)
        self.progress.partly = False

    async def _write(self, data: bytes) -> None:
        try:
            await self._response.write(data)
        except ConnectionError:  # also when the transport is merely closing
            raise ClientGone from None

    async def _end(self, outgoing: Outgoing) -> None:
        match outgoing.end:
            case "clean":
                await self._finish()
            case "fin":
                self._response.force_close()
                await self._finish()
            case "eof":
                close(self._request)
            case "rst":
                await reset(self._request)
            case "stall":
                self._hold()
                await asyncio.sleep(outgoing.seconds)
                close(self._request)
            case "hold":
                self._hold()
                await asyncio.sleep(outgoing.seconds)
                await self._finish()

    async def _finish(self) -> None:
        try:
            if self._gzip is not None:
                await self._response.write(self._gzip.flush(zlib.Z_FINISH))
            await self._response.write_eof()
        except ConnectionError:
            pass  # every frame was out: it is the client's affair that it left before the end


def close(request: web.Request) -> None:
    """FIN in the middle of whatever was going on."""
    if request.transport is not None:
        request.transport.close()


async def reset(request: web.Request) -> None:
    """RST: closing a socket whose linger time is zero sends one."""
    await asyncio.sleep(BEFORE_RESET_S)
    transport = request.transport
    if transport is None:
        return
    raw = transport.get_extra_info("socket")
    if raw is not None:
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    transport.abort()
