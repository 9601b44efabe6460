"""`python -m lastchunk.torture.memory`: the gateway's memory under thousands of open streams."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import itertools
import json
import sys
import tempfile
import time
import urllib.request
from collections.abc import Coroutine, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lastchunk.simulator import Script
from lastchunk.stage.servers import Place, Server, gateway_before, simulated_provider
from lastchunk.torture.bare import Reply, ask, raise_file_limit, request_of

STREAM_TOKENS = 30
PACING_SECONDS = 2.0
"""A stream takes a minute, and another takes its place: who keeps something of each shows it."""

DRAIN_TOKENS = 30
DRAIN_PACING_SECONDS = 1.0
DRAIN_SECONDS = DRAIN_TOKENS * DRAIN_PACING_SECONDS
"""An answer whose client leaves at its beginning is drained for half a minute."""

OPENING_SECONDS = 30.0
"""Over which the first streams are opened, so that they do not all end at once."""

SAMPLE_SECONDS = 5.0
FLAT_SHARE = 0.10
"""More growth than this, from the first settled quarter to the last, is not flat."""

_BODY = {
    "model": "gpt-4o",
    "stream": True,
    "messages": [{"role": "user", "content": "Tell me of the sea, at length."}],
}


@dataclass(frozen=True, slots=True)
class Sample:
    """One look at the gateway."""

    seconds: float
    resident_mb: float
    streams: int
    drains: int


class Clients:
    """Bare sockets: `streams` that are read to their end, `left` that go at the first chunk."""

    def __init__(self, port: int) -> None:
        self._port = port
        self.open_streams = 0
        self.over = 0
        self._tasks: set[asyncio.Task[None]] = set()

    def start(self, streams: int, left: int) -> None:
        """Keep so many of each kind under way until `stop`."""
        script = Script(output_tokens=STREAM_TOKENS, pacing_s=PACING_SECONDS)
        long = Script(output_tokens=DRAIN_TOKENS, pacing_s=DRAIN_PACING_SECONDS)
        for number in range(streams):
            self._run(self._streams(script, OPENING_SECONDS * number / max(1, streams)))
        for number in range(left):
            self._run(self._leavers(long, DRAIN_SECONDS * number / max(1, left)))

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _run(self, work: Coroutine[Any, Any, None]) -> None:
        self._tasks.add(asyncio.create_task(work))

    async def _streams(self, script: Script, delay: float) -> None:
        await asyncio.sleep(delay)
        while True:
            self.open_streams += 1
            try:
                await self._call(script, until=b"[DONE]")
            finally:
                self.open_streams -= 1
            self.over += 1

    async def _leavers(self, script: Script, delay: float) -> None:
        await asyncio.sleep(delay)
        while True:
            await self._call(script, until=b'"content":')
            await asyncio.sleep(DRAIN_SECONDS)
            self.over += 1

    async def _call(self, script: Script, *, until: bytes) -> None:
        """One call on a connection of its own, which is closed when `until` was read."""
        await ask(self._port, request_of(_BODY, script, {}), Reply(), until=until)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m lastchunk.torture.memory")
    parser.add_argument("--streams", type=int, default=2000, help="open streams")
    parser.add_argument("--left", type=int, default=200, help="answers drained for who left")
    parser.add_argument("--minutes", type=float, default=10.0)
    asked = parser.parse_args()
    raise_file_limit(4 * (asked.streams + asked.left) + 256)
    with tempfile.TemporaryDirectory(prefix="lastchunk-memory-") as folder:
        place = Place(Path(folder), {"when_client_leaves": '[{"do": "drain"}]'})
        with simulated_provider(0) as provider, _gateway(provider, place) as gateway:
            samples = asyncio.run(_watch(gateway, asked.streams, asked.left, asked.minutes * 60))
    print(_table(samples))
    if not _is_flat(samples):
        sys.exit(1)


@contextlib.contextmanager
def _gateway(provider: str, place: Place) -> Iterator[Server]:
    ledger = str(place.folder / "ledger.db")
    server = gateway_before(
        provider, ledger, "--stop-timeout", "1", silence_seconds=600, place=place
    )
    try:
        yield server
    finally:
        server.stop()


async def _watch(gateway: Server, streams: int, left: int, seconds: float) -> list[Sample]:
    clients = Clients(int(gateway.url.rpartition(":")[2]))
    clients.start(streams, left)
    samples: list[Sample] = []
    began = time.monotonic()
    for number in itertools.count():
        now = time.monotonic() - began
        drains = await asyncio.to_thread(_drains, gateway.url)
        samples.append(Sample(now, _resident_mb(gateway.pid), clients.open_streams, drains))
        if number % 12 == 0:
            print(_line(samples[-1]), file=sys.stderr, flush=True)
        if now >= seconds:
            break
        await asyncio.sleep(SAMPLE_SECONDS)
    print(f"{clients.over} calls were over meanwhile", file=sys.stderr)
    await clients.stop()
    return samples


def _drains(gateway: str) -> int:
    """How many answers it says that it reads on."""
    with urllib.request.urlopen(f"{gateway}/healthz", timeout=DRAIN_SECONDS) as answer:
        told: int = json.load(answer)["drains"]
    return told


def _is_flat(samples: list[Sample]) -> bool:
    first, last = _settled(samples)
    return last <= first * (1 + FLAT_SHARE)


def _settled(samples: list[Sample]) -> tuple[float, float]:
    """Mean resident memory of the second and of the last quarter."""
    quarter = max(1, len(samples) // 4)
    second, fourth = samples[quarter : 2 * quarter] or samples, samples[-quarter:]
    return (
        sum(sample.resident_mb for sample in second) / len(second),
        sum(sample.resident_mb for sample in fourth) / len(fourth),
    )


def _table(samples: list[Sample]) -> str:
    most = max(sample.resident_mb for sample in samples)
    lines = ["  minute  streams   drains  resident MB"]
    minute = 0.0
    for sample in samples:
        if sample.seconds + SAMPLE_SECONDS / 2 >= 60 * minute or sample is samples[-1]:
            lines.append(f"{_line(sample)}  {'#' * round(32 * sample.resident_mb / most)}")
            minute += 1
    first, last = _settled(samples)
    told = "flat" if _is_flat(samples) else "NOT FLAT"
    lines.append(f"{told}: {first:.0f} MB in the second quarter, {last:.0f} MB in the last")
    return "\n".join(lines)


def _line(sample: Sample) -> str:
    minute = sample.seconds / 60
    return f"{minute:8.1f}{sample.streams:9}{sample.drains:9}{sample.resident_mb:13.0f}"


def _resident_mb(pid: int) -> float:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    raise OSError(f"process {pid} has ended")


if __name__ == "__main__":
    main()
