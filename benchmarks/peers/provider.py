"""A provider for many paced streams: one clock for all of them, and the time in each frame.

A request's body says what it wants, since not every gateway passes headers on: `bench:300,50` is
300 tokens at 50 chunks a second, `bench:300,0` a burst.
"""

from __future__ import annotations

import asyncio
import re
import time
from functools import cache
from typing import Any, ClassVar

import uvloop

from lastchunk.simulator import Script, render

HEAD = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\n"
    b"transfer-encoding: chunked\r\n\r\n"
)
STAMP = re.compile(rb'"system_fingerprint":"[^"]*"')
STAMPED = b'"system_fingerprint":"fp_%016d"'
TICK_SECONDS = 0.001
FRAMES_A_TURN = 4
"""Of a burst, before the other streams have their turn."""


@cache
def frames_of(tokens: int, usage: bool) -> list[tuple[bytes, bytes]]:
    """Each frame as an HTTP chunk, cut in two around the place of the time."""
    options = {"stream_options": {"include_usage": True}} if usage else {}
    request = {"model": "gpt-4o", "stream": True, "messages": [], **options}
    parts = []
    for frame in render(Script(output_tokens=tokens), request).frames:
        place = STAMP.search(frame)
        before, after = (frame[: place.start()], frame[place.end() :]) if place else (frame, b"")
        size = len(before) + (len(STAMPED % 0) if place else 0) + len(after)
        parts.append((b"%x\r\n%s" % (size, before), after + b"\r\n"))
    return parts


class Stream(asyncio.Protocol):
    """One connection; a request on it is answered as its body asks."""

    paced: ClassVar[set[Stream]] = set()

    def connection_made(self, transport: Any) -> None:
        self.transport, self.waiting = transport, b""
        self.writable = asyncio.Event()
        self.writable.set()

    def connection_lost(self, error: Exception | None) -> None:
        self.paced.discard(self)
        self.writable.set()

    def pause_writing(self) -> None:
        self.writable.clear()

    def resume_writing(self) -> None:
        self.writable.set()

    def data_received(self, data: bytes) -> None:
        self.waiting += data
        head, found, body = self.waiting.partition(b"\r\n\r\n")
        length = re.search(rb"(?i)content-length: *(\d+)", head)
        if not found or len(body) < int(length.group(1) if length else 0):
            return
        self.waiting = b""
        told = re.search(rb"bench:(\d+),(\d+)", body)
        tokens, rate = (int(told.group(1)), int(told.group(2))) if told else (1, 0)
        self.frames, self.sent = frames_of(tokens, b"include_usage" in body), 0
        self.transport.write(HEAD)
        if rate:
            self.began, self.rate = time.monotonic(), rate
            self.send_until(self.began)
            self.paced.add(self)
        else:
            self.bursting = asyncio.create_task(self.burst())

    def send_until(self, now: float) -> None:
        """Each frame that is due, each with the time."""
        due = min(len(self.frames), int((now - self.began) * self.rate) + 1)
        while self.sent < due:
            self.send_next()
        if self.sent == len(self.frames):
            self.transport.write(b"0\r\n\r\n")
            self.paced.discard(self)

    def send_next(self) -> None:
        before, after = self.frames[self.sent]
        stamp = STAMPED % (time.monotonic_ns() // 1000) if len(after) > 2 else b""
        self.transport.write(before + stamp + after)
        self.sent += 1

    async def burst(self) -> None:
        while self.sent < len(self.frames) and not self.transport.is_closing():
            for _ in range(min(FRAMES_A_TURN, len(self.frames) - self.sent)):
                self.send_next()
            await asyncio.sleep(0)
            await self.writable.wait()
        self.transport.write(b"0\r\n\r\n")


async def serve() -> None:
    server = await asyncio.get_running_loop().create_server(Stream, "127.0.0.1", 0, backlog=4096)
    print(server.sockets[0].getsockname()[1], flush=True)
    while True:
        await asyncio.sleep(TICK_SECONDS)
        now = time.monotonic()
        for stream in list(Stream.paced):
            if (now - stream.began) * stream.rate >= stream.sent:
                stream.send_until(now)


if __name__ == "__main__":
    uvloop.run(serve())
