"""A provider that costs next to nothing: rendered bytes over a bare socket, in its own process."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

from lastchunk.simulator import Script, render

MODEL = "gpt-4o"
HEAD = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\n"
    b"transfer-encoding: chunked\r\nx-request-id: req_1\r\nopenai-processing-ms: 7\r\n\r\n"
)
FRAMES_A_TURN = 4
"""Written at once in a burst, each an HTTP chunk of its own."""


@cache
def frames_of(tokens: int, *, usage: bool) -> list[bytes]:
    """A stream of about so many chunks as OpenAI sends them, obfuscation among it."""
    options = {"stream_options": {"include_usage": True}} if usage else {}
    request = {"model": MODEL, "stream": True, "messages": [], **options}
    rendered = render(Script(output_tokens=tokens), request)
    return [b"%x\r\n%s\r\n" % (len(frame), frame) for frame in rendered.frames]


class Provider(asyncio.Protocol):
    """Answers each request as its `x-bench: tokens,chunks-a-second` says; 0 is a burst."""

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self.waiting = b""
        self.writable = asyncio.Event()
        self.writable.set()

    def pause_writing(self) -> None:
        self.writable.clear()

    def resume_writing(self) -> None:
        self.writable.set()

    def data_received(self, data: bytes) -> None:
        self.waiting += data
        while b"\r\n\r\n" in self.waiting:
            head, _, rest = self.waiting.partition(b"\r\n\r\n")
            told = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:])
            size = int(told.get(b"content-length", 0))
            if len(rest) < size:
                return
            body, self.waiting = rest[:size], rest[size:]
            tokens, rate = (int(part) for part in told.get(b"x-bench", b"1,0").split(b","))
            self.answering = asyncio.create_task(
                self.answer(tokens, rate, usage=b"include_usage" in body)
            )

    def connection_lost(self, error: Exception | None) -> None:
        self.writable.set()

    async def answer(self, tokens: int, rate: int, *, usage: bool) -> None:
        frames = frames_of(tokens, usage=usage)
        self.transport.write(HEAD)
        if rate:
            loop = asyncio.get_running_loop()
            began = loop.time()
            for number, frame in enumerate(frames):
                await asyncio.sleep(began + number / rate - loop.time())
                self.transport.write(frame)
        else:
            for start in range(0, len(frames), FRAMES_A_TURN):
                for frame in frames[start : start + FRAMES_A_TURN]:
                    self.transport.write(frame)
                await asyncio.sleep(0)
                await self.writable.wait()
        self.transport.write(b"0\r\n\r\n")


async def serve() -> None:
    server = await asyncio.get_running_loop().create_server(Provider, "127.0.0.1", 0, backlog=1024)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


@contextmanager
def process(module: str, core: int, *arguments: str) -> Iterator[tuple[int, int]]:
    """`python -m module` on one core; its pid and the port that it prints."""
    command = [sys.executable, "-m", module, *arguments]
    running = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        pin(core, running.pid)
        assert running.stdout is not None
        yield running.pid, int(running.stdout.readline())
    finally:
        running.kill()
        running.communicate()


def pin(core: int, pid: int = 0) -> None:
    """Onto one core, where the system has cores to choose and lets us."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(pid, {sorted(os.sched_getaffinity(0) | {0})[0] + core})


if __name__ == "__main__":
    import uvloop

    uvloop.run(serve())
