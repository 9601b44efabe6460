"""CPU per chunk that `instrument` adds to the openai client, sync and async."""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import openai

import lastchunk
from benchmarks.provider import MODEL, pin, process
from benchmarks.results import Compared, compare
from lastchunk.instrument.process import bookkeeper_for
from lastchunk.settings import load_settings

STREAMS, TOKENS, ROUNDS = 8, 400, 9
ASK: dict[str, Any] = {
    "model": MODEL,
    "stream": True,
    "messages": [{"role": "user", "content": "Tell me about the harbour at dawn. " * 20}],
    "extra_headers": {"x-bench": f"{TOKENS},0"},
}


def measure() -> list[Compared]:
    with tempfile.TemporaryDirectory() as folder, process("benchmarks.provider", 1) as (_, port):
        pin(0)
        ledger = str(Path(folder) / "ledger.db")
        url = f"http://127.0.0.1:{port}/v1"
        settle = _settler(ledger)
        rows = [_sync(url, ledger, settle), *asyncio.run(_async(url, ledger, settle))]
        lastchunk.close()
    return rows


def _settler(ledger: str) -> Callable[[], None]:
    """Waits until the accountant is done: what it spends is part of the cost."""

    def settle() -> None:
        bookkeeper = bookkeeper_for(load_settings(ledger=ledger))
        while bookkeeper.open_calls():
            time.sleep(0.002)

    return settle


def _sync(url: str, ledger: str, settle: Callable[[], None]) -> Compared:
    plain = openai.OpenAI(base_url=url, api_key="sk")
    metered = lastchunk.instrument(openai.OpenAI(base_url=url, api_key="sk"), ledger=ledger)

    def run(client: openai.OpenAI) -> float:
        began, chunks = time.process_time(), 0
        for _ in range(STREAMS):
            for _ in client.chat.completions.create(**ASK):
                chunks += 1
        settle()
        return (time.process_time() - began) / chunks * 1e6

    run(plain), run(metered)
    pairs = [(run(plain), run(metered)) for _ in range(ROUNDS)]
    return compare("openai, sync, read to the end", "chunk", *map(list, zip(*pairs, strict=True)))


async def _async(url: str, ledger: str, settle: Callable[[], None]) -> list[Compared]:
    plain = openai.AsyncOpenAI(base_url=url, api_key="sk")
    metered = lastchunk.instrument(openai.AsyncOpenAI(base_url=url, api_key="sk"), ledger=ledger)

    async def read(client: openai.AsyncOpenAI, limit: int | None) -> int:
        chunks = 0
        async with await client.chat.completions.create(**ASK) as stream:
            async for _ in stream:
                chunks += 1
                if chunks == limit:
                    break
        return chunks

    async def run(client: openai.AsyncOpenAI, limit: int | None = None) -> float:
        began = time.process_time()
        chunks = sum(await asyncio.gather(*(read(client, limit) for _ in range(STREAMS))))
        settle()
        return (time.process_time() - began) / chunks * 1e6

    rows = []
    for what, limit in (("read to the end", None), ("cut after 200 chunks", TOKENS // 2)):
        await run(plain, limit), await run(metered, limit)
        pairs = [(await run(plain, limit), await run(metered, limit)) for _ in range(ROUNDS)]
        columns = map(list, zip(*pairs, strict=True))
        rows.append(compare(f"openai, async, {what}", "chunk", *columns))
    for client in (plain, metered):
        with contextlib.suppress(Exception):
            await client.close()
    return rows
