"""CPU per event of the gateway beside the same aiohttp relay with its meter switched off."""

from __future__ import annotations

import asyncio
import json
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import uvloop

from benchmarks.provider import MODEL, pin, process
from benchmarks.results import Compared, compare

ROUNDS = 5
BODY = json.dumps(
    {
        "model": MODEL,
        "stream": True,
        "messages": [{"role": "user", "content": "Tell me about the harbour at dawn. " * 20}],
    }
).encode()


@dataclass(frozen=True)
class Load:
    """So many streams at once, one after the other on each connection."""

    what: str
    unit: str
    streams: int
    tokens: int
    rate: int
    repeats: int = 1

    @property
    def request(self) -> bytes:
        return (
            f"POST /v1/chat/completions HTTP/1.1\r\nhost: bench\r\nauthorization: Bearer sk\r\n"
            f"content-type: application/json\r\nx-bench: {self.tokens},{self.rate}\r\n"
            f"content-length: {len(BODY)}\r\n\r\n"
        ).encode() + BODY


LOADS = (
    Load("gateway, 50 streams at 50 chunks/s", "event", 50, 150, 50),
    Load("gateway, 200 streams at 50 chunks/s", "event", 200, 150, 50),
    Load("gateway, 50 streams in burst", "event", 50, 400, 0),
    Load("gateway, one-chunk streams", "call", 20, 1, 0, repeats=20),
)


class Caller(asyncio.Protocol):
    """Sends its requests one after the other and counts the events of the answers."""

    def __init__(self, load: Load, done: asyncio.Future[int]) -> None:
        self.load, self.done = load, done
        self.left, self.events, self.tail = load.repeats, 0, b""

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        transport.write(self.load.request)

    def data_received(self, data: bytes) -> None:
        self.events += data.count(b"data: {")
        self.tail = (self.tail + data)[-7:]
        if not self.tail.endswith(b"\r\n0\r\n\r\n"):
            return
        self.left -= 1
        if self.left:
            self.transport.write(self.load.request)
        else:
            self.transport.close()
            self.done.set_result(self.events)

    def connection_lost(self, error: Exception | None) -> None:
        if not self.done.done():
            self.done.set_exception(error or ConnectionError("the gateway hung up"))


async def play(port: int, load: Load) -> int:
    """All streams at once; how many units came."""
    loop = asyncio.get_running_loop()
    waits = []
    for _ in range(load.streams):
        done: asyncio.Future[int] = loop.create_future()
        await loop.create_connection(lambda done=done: Caller(load, done), "127.0.0.1", port)
        waits.append(done)
        if load.rate:  # not all in step: streams begin when they begin
            await asyncio.sleep(1 / load.streams)
    events = sum(await asyncio.gather(*waits))
    await asyncio.sleep(0.2)  # the accountant's part belongs to it
    return events if load.unit == "event" else load.streams * load.repeats


def cpu_seconds(pid: int) -> float:
    """Of all its threads, by the kernel's own nanoseconds."""
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks) / 1e9


def measure(loads: Sequence[Load] = LOADS) -> list[Compared]:
    with (
        tempfile.TemporaryDirectory() as folder,
        process("benchmarks.provider", 1) as (_, provider),
        process("benchmarks.gateway", 0, str(provider), folder, "off") as off,
        process("benchmarks.gateway", 0, str(provider), folder, "on") as on,
    ):
        pin(1)
        return [_measure(load, off, on) for load in loads]


def _measure(load: Load, off: tuple[int, int], on: tuple[int, int]) -> Compared:
    def run(side: tuple[int, int]) -> float:
        pid, port = side
        began = cpu_seconds(pid)
        units = uvloop.run(play(port, load))
        return (cpu_seconds(pid) - began) / units * 1e6

    pairs = [(run(off), run(on)) for _ in range(ROUNDS + 1)][1:]
    plain, metered = map(list, zip(*pairs, strict=True))
    return compare(load.what, load.unit, plain, metered)
