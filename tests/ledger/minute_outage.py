"""A minute's outage under load, measured: `make outage`.

    python tests/ledger/minute_outage.py [--seconds 60] [--streams 20] [sqlite] [postgresql]

A gateway of its own process carries streams from a simulated provider while its ledger is held by
another process (SQLite), or its server is stopped and started (PostgreSQL). Then each call that a
client saw to its end must have one row, settled, with the provider's true count. Exits 1 if not.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import aiohttp
from outages import Server, held

import lastchunk
from lastchunk.ledger import CallFilter, Reader, verify
from lastchunk.simulator import Simulator

TOKENS, PACING_SECONDS = 40, 0.01
PHASES = ("before", "away", "after")


@dataclass(frozen=True, slots=True)
class Stream:
    """One stream as its client saw it; times are seconds."""

    call_id: str
    phase: str
    first: float
    whole: float


class Load:
    """So many streams at once, each followed by the next."""

    def __init__(self, url: str, streams: int) -> None:
        self._url, self._streams = url, streams
        self.phase = PHASES[0]
        self.seen: list[Stream] = []
        self.failed = 0
        self._over = False

    async def run(self, seconds: float, away: Outage) -> None:
        connector = aiohttp.TCPConnector(limit=0)
        async with aiohttp.ClientSession(connector=connector) as session:
            clients = [asyncio.create_task(self._client(session)) for _ in range(self._streams)]
            await asyncio.sleep(15)
            self.phase = PHASES[1]
            with away.away():
                await asyncio.sleep(seconds)
            self.phase = PHASES[2]
            await asyncio.sleep(15)
            self._over = True
            await asyncio.gather(*clients)

    async def _client(self, session: aiohttp.ClientSession) -> None:
        headers = {"x-sim": f'{{"output_tokens": {TOKENS}, "pacing_s": {PACING_SECONDS}}}'}
        asked = {
            "model": "gpt-4o-mini",
            "messages": [{"role": "user", "content": "hello"}],
            "stream": True,
        }
        while not self._over:
            phase, started, first = self.phase, time.monotonic(), None
            told = b""
            async with session.post(self._url, json=asked, headers=headers) as answer:
                async for piece in answer.content.iter_any():
                    first = first or time.monotonic()
                    told = (told + piece)[-20:]
                if answer.status != 200 or b"[DONE]" not in told or first is None:
                    self.failed += 1
                    continue
                ended = time.monotonic()
                call_id = answer.headers["x-lastchunk-call-id"]
                self.seen.append(Stream(call_id, phase, first - started, ended - started))


class Outage:
    """A ledger and the way to take it away."""

    def __init__(self, kind: str, folder: Path, stack: ExitStack) -> None:
        self.server: Server | None = None
        self.url = str(folder / "ledger.db")
        if kind == "postgresql":
            self.server = Server()
            self.server.start()
            stack.callback(self.server.remove)
            self.url = self.server.url

    @contextmanager
    def away(self) -> Iterator[None]:
        if self.server is None:
            with held(self.url):
                yield
            return
        self.server.stop()
        try:
            yield
        finally:
            self.server.start()


def measure(kind: str, seconds: float, streams: int) -> bool:
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        away = Outage(kind, folder, stack)
        sim = stack.enter_context(Simulator())
        gateway, url = start_gateway(sim.url, away.url, folder)
        stack.callback(gateway.wait)
        stack.callback(gateway.terminate)
        load = Load(f"{url}/v1/chat/completions", streams)
        asyncio.run(load.run(seconds, away))
        gateway.terminate()
        gateway.wait()
        return report(kind, load, away.url, sim)


def start_gateway(upstream: str, ledger: str, folder: Path) -> tuple[subprocess.Popen[str], str]:
    environment = os.environ | {
        "PYTHONPATH": str(Path(lastchunk.__file__).parents[1]),
        "LASTCHUNK_SPOOL": str(folder / "spool"),
    }
    command = [sys.executable, "-m", "lastchunk", "serve", "--upstream", upstream, "--port", "0"]
    started = subprocess.Popen(
        [*command, "--ledger", ledger],
        stdout=subprocess.PIPE,
        stderr=(folder / "log").open("w"),
        text=True,
        env=environment,
        cwd=folder,
    )
    assert started.stdout is not None
    return started, started.stdout.readline().split()[-1]


def report(kind: str, load: Load, url: str, sim: Simulator) -> bool:
    """Prints the table; whether nothing was lost."""
    print(f"{kind}: first byte and whole stream, milliseconds")
    print("phase   streams  p50 first  p99 first  max first  p50 whole  max whole")
    for phase in PHASES:
        mine = [s for s in load.seen if s.phase == phase]
        first, whole = sorted(s.first for s in mine), sorted(s.whole for s in mine)
        cells = [first[len(first) // 2], first[len(first) * 99 // 100], first[-1]]
        cells += [whole[len(whole) // 2], whole[-1]]
        print(f"{phase:7} {len(mine):8}" + "".join(f"{1000 * cell:11.0f}" for cell in cells))
    with Reader.open(url) as reader:
        rows = {row.call_id: row for row in reader.calls(CallFilter())}
    missing = [s.call_id for s in load.seen if s.call_id not in rows or rows[s.call_id].is_open]
    truth = {call.response_id: call.output_tokens for call in sim.bill(wait_s=5)}
    wrong = 0
    for row in rows.values():
        if row.settlement is not None and (id_ := row.settlement.observation.response_id) in truth:
            output = row.settlement.usage.output_tokens
            wrong += output is None or not output.low <= truth[id_] <= output.high
    found = verify(url)
    print(
        f"{len(load.seen)} streams, {load.failed} failed, {len(rows)} rows, {len(missing)} missing,"
        f" {wrong} beside the true bill, {len(found.discrepancies)} discrepancies\n"
    )
    return not (load.failed or missing or wrong or found.discrepancies)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("kinds", nargs="*", metavar="LEDGER", help="sqlite, postgresql; both")
    parser.add_argument("--seconds", type=float, default=60.0, help="of the outage")
    parser.add_argument("--streams", type=int, default=20, help="at once")
    asked = parser.parse_args()
    kinds = asked.kinds or ["sqlite", "postgresql"]
    results = [measure(kind, asked.seconds, asked.streams) for kind in kinds]
    if not all(results):
        sys.exit("something was lost")


if __name__ == "__main__":
    main()
