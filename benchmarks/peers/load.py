"""The callers, in a process of their own: `python -m benchmarks.peers.load` with a JSON argument.

Prints what came as JSON: events, seconds, and microseconds from sending to receiving.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
import time
from dataclasses import dataclass, field
from typing import Any

import uvloop

STAMP = b'"fp_'
DIGITS = 16


@dataclass
class Came:
    """What all callers received."""

    events: int = 0
    whole: int = 0
    lags_us: list[int] = field(default_factory=list)
    first_us: list[int] = field(default_factory=list)


class Caller(asyncio.Protocol):
    """One request; its events are counted, and the time in them is read."""

    def __init__(self, request: bytes, came: Came) -> None:
        self.request, self.came, self.tail = request, came, b""
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: Any) -> None:
        self.transport, self.is_first = transport, True
        self.sent_us = time.monotonic_ns() // 1000
        transport.write(self.request)

    def data_received(self, data: bytes) -> None:
        events = data.count(b"data: {")
        if events:
            now_us = time.monotonic_ns() // 1000
            self.came.events += events
            if self.is_first:
                self.is_first = False
                self.came.first_us.append(now_us - self.sent_us)
            at = data.rfind(STAMP) + len(STAMP)
            stamp = data[at : at + DIGITS]
            if at >= len(STAMP) and stamp.isdigit() and len(stamp) == DIGITS:
                self.came.lags_us.append(now_us - int(stamp))
        self.tail = (self.tail + data)[-5:] if len(data) < 5 else data[-5:]
        if self.tail == b"0\r\n\r\n":
            self.came.whole += 1
            self.transport.close()

    def connection_lost(self, error: Exception | None) -> None:
        if not self.done.done():
            self.done.set_result(None)


async def play(port: int, request: bytes, streams: int, ramp: float, most_seconds: float) -> Came:
    """All streams; what has come after the most seconds, if they did not end before."""
    loop, came, callers = asyncio.get_running_loop(), Came(), []
    began = loop.time()
    for number in range(streams):
        with contextlib.suppress(OSError):
            _, caller = await loop.create_connection(
                lambda: Caller(request, came), "127.0.0.1", port
            )
            callers.append(caller)
        await asyncio.sleep(began + ramp * (number + 1) / streams - loop.time())
    ends = [caller.done for caller in callers]
    if ends:
        await asyncio.wait(ends, timeout=began + most_seconds - loop.time())
    for caller in callers:
        caller.transport.abort()
    return came


def main() -> None:
    told = json.loads(sys.argv[1])
    request = told["request"].encode()
    began = time.monotonic()
    came = uvloop.run(
        play(told["port"], request, told["streams"], told["ramp"], told["most_seconds"])
    )
    seconds = time.monotonic() - began
    print(
        json.dumps(
            {
                "events": came.events,
                "whole": came.whole,
                "seconds": seconds,
                "lag_us": spread(came.lags_us),
                "first_us": spread(came.first_us),
            }
        )
    )


def spread(values: list[int]) -> list[int] | None:
    """The median and the 99th percentile; None of nothing."""
    if not values:
        return None
    values.sort()
    return [values[len(values) // 2], values[min(len(values) - 1, len(values) * 99 // 100)]]


if __name__ == "__main__":
    main()
