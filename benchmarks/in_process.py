"""CPU per chunk that `instrument` adds to the openai client, sync and async."""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import openai

import lastchunk
from benchmarks.provider import MODEL, pin, process
from benchmarks.results import Compared, compare
from lastchunk.instrument.process import bookkeeper_for
from lastchunk.settings import load_settings

STREAMS, TOKENS, ROUNDS = 6, 400, 11
ASK: dict[str, Any] = {
    "model": MODEL,
    "stream": True,
    "messages": [{"role": "user", "content": "Tell me about the harbour at dawn. " * 20}],
    "extra_headers": {"x-bench": f"{TOKENS},0"},
}
USAGE: dict[str, Any] = {"stream_options": {"include_usage": True}}


@dataclass(frozen=True)
class Case:
    """How a stream is asked for, and after how many chunks it is left."""

    what: str
    asked: dict[str, Any]
    limit: int | None = None


CASES = (
    Case("usage asked for by the caller", ASK | USAGE),
    Case("usage hidden", ASK),
    Case("cut after 200 chunks", ASK | USAGE, TOKENS // 2),
)


def measure() -> list[Compared]:
    with tempfile.TemporaryDirectory() as folder, process("benchmarks.provider", 1) as (_, port):
        pin(0)
        ledger = str(Path(folder) / "ledger.db")
        url = f"http://127.0.0.1:{port}/v1"
        settle = _settler(ledger)
        rows = _sync(url, ledger, settle) + asyncio.run(_async(url, ledger, settle))
        lastchunk.close()
    return rows


def _settler(ledger: str) -> Callable[[], None]:
    """Waits until the accountant is done: what it spends is part of the cost."""

    def settle() -> None:
        bookkeeper = bookkeeper_for(load_settings(ledger=ledger))
        while bookkeeper.open_calls():
            time.sleep(0.002)

    return settle


def _sync(url: str, ledger: str, settle: Callable[[], None]) -> list[Compared]:
    plain = openai.OpenAI(base_url=url, api_key="sk")
    metered = lastchunk.instrument(openai.OpenAI(base_url=url, api_key="sk"), ledger=ledger)

    def run(client: openai.OpenAI, asked: dict[str, Any]) -> float:
        began, chunks = time.process_time(), 0
        for _ in range(STREAMS):
            for _ in client.chat.completions.create(**asked):
                chunks += 1
        settle()
        return (time.process_time() - began) / chunks * 1e6

    rows = []
    for what, asked in (("usage asked for by the caller", ASK | USAGE), ("usage hidden", ASK)):
        run(plain, asked), run(metered, asked)
        pairs = [(run(plain, asked), run(metered, asked)) for _ in range(ROUNDS)]
        columns = map(list, zip(*pairs, strict=True))
        rows.append(compare(f"openai, sync, {what}", "chunk", *columns))
    return rows


async def _async(url: str, ledger: str, settle: Callable[[], None]) -> list[Compared]:
    plain = openai.AsyncOpenAI(base_url=url, api_key="sk")
    metered = lastchunk.instrument(openai.AsyncOpenAI(base_url=url, api_key="sk"), ledger=ledger)

    async def read(client: openai.AsyncOpenAI, case: Case) -> int:
        chunks = 0
        async with await client.chat.completions.create(**case.asked) as stream:
            async for _ in stream:
                chunks += 1
                if chunks == case.limit:
                    break
        return chunks

    async def run(client: openai.AsyncOpenAI, case: Case) -> float:
        began = time.process_time()
        chunks = sum(await asyncio.gather(*(read(client, case) for _ in range(STREAMS))))
        settle()
        return (time.process_time() - began) / chunks * 1e6

    rows = []
    for case in CASES:
        await run(plain, case), await run(metered, case)
        pairs = [(await run(plain, case), await run(metered, case)) for _ in range(ROUNDS)]
        columns = map(list, zip(*pairs, strict=True))
        rows.append(compare(f"openai, async, {case.what}", "chunk", *columns))
    for client in (plain, metered):
        await client.close()
    return rows
