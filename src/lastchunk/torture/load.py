"""Processes under load that are there to be killed: `python -m lastchunk.torture.load`.

Its arguments are the provider's base URL, the ledger and the file of ids of calls of which a byte
was delivered. It makes workers by forking, so that each kill costs no start of Python. It reads
commands from stdin, one a line, and answers each with a pid:
    load SEED SECONDS    a worker under load; SECONDS bounds its life
    recover              a process that recovers the ledger and exits
    wait PID             waits for a worker; answers its exit status
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import sys
import threading
import time
from typing import Any

import openai

import lastchunk
from lastchunk.clock import SystemClock
from lastchunk.ledger import Ledger
from lastchunk.pricing.book import PriceBook
from lastchunk.recovery import recover

THREADS = 3
TASKS = 4
STREAMED: dict[str, Any] = {
    "model": "gpt-4o-mini",
    "messages": [{"role": "user", "content": "hello"}],
    "stream": True,
}


class Worker:
    """Streams without end; writes down each call's id when its first byte is there."""

    def __init__(self, base_url: str, ledger: str, delivered: str, seed: int) -> None:
        self.ledger = ledger
        self.options: dict[str, Any] = {
            "base_url": base_url,
            "api_key": "sk-test",
            "max_retries": 0,
        }
        self.delivered = os.open(delivered, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        self.seed = seed

    def run(self, seconds: float) -> None:
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
        client = lastchunk.instrument(openai.OpenAI(**self.options), ledger=self.ledger)
        for number in range(THREADS):
            stream = threading.Thread(target=self.stream, args=(client, number), daemon=True)
            stream.start()
        threading.Thread(target=lambda: asyncio.run(self.tasks()), daemon=True).start()
        time.sleep(seconds)

    def stream(self, client: openai.OpenAI, number: int) -> None:
        rng = random.Random(f"{self.seed}:{number}")
        while True:
            raw = client.chat.completions.with_raw_response.create(**STREAMED, **self.extra(rng))
            stream, limit = raw.parse(), rng.choice((10, 1_000_000))
            for seen, _ in enumerate(stream):
                self.note(seen, raw)
                if seen == limit:
                    break
            stream.close()

    async def tasks(self) -> None:
        client = lastchunk.instrument(openai.AsyncOpenAI(**self.options), ledger=self.ledger)
        await asyncio.gather(*(self.astream(client, 100 + number) for number in range(TASKS)))

    async def astream(self, client: openai.AsyncOpenAI, number: int) -> None:
        rng = random.Random(f"{self.seed}:{number}")
        while True:
            create = client.chat.completions.with_raw_response.create
            raw = await create(**STREAMED, **self.extra(rng))
            stream, limit, seen = raw.parse(), rng.choice((10, 1_000_000)), 0
            async for _ in stream:
                self.note(seen, raw)
                seen += 1
                if seen == limit:
                    break
            await stream.close()

    def note(self, seen: int, raw: Any) -> None:
        if seen == 0:
            os.write(self.delivered, f"{raw.headers['x-lastchunk-call-id']}\n".encode())

    def extra(self, rng: random.Random) -> dict[str, Any]:
        tokens = rng.choice((5, 40, 400))
        return {"extra_headers": {"x-sim": f'{{"output_tokens": {tokens}, "pacing_s": 0.01}}'}}


def recover_all(ledger: str) -> None:
    clock = SystemClock()
    with Ledger.open(ledger, clock=clock) as opened:
        list(recover(opened, PriceBook.load(None), clock))


def main() -> None:
    base_url, ledger, delivered = sys.argv[1:4]
    for line in sys.stdin:
        command, *arguments = line.split()
        if command == "wait":
            print(os.waitpid(int(arguments[0]), 0)[1], flush=True)
            continue
        pid = os.fork()
        if pid == 0:
            if command == "load":
                seed, seconds = int(arguments[0]), float(arguments[1])
                Worker(base_url, ledger, delivered, seed).run(seconds)
            else:
                recover_all(ledger)
            sys.exit(0)
        print(pid, flush=True)


if __name__ == "__main__":
    main()
