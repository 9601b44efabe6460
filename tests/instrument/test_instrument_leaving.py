"""In process the same rules hold: the caller leaves at once, its answer may be read to the end."""

import asyncio
import gc
import importlib
import json
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import httpx2
import openai
import pytest
from in_process import STREAMED, Corner, until

import lastchunk
from lastchunk import Basis, Ending
from lastchunk.errors import SettingsError
from lastchunk.ledger import CallRecord, Reader
from lastchunk.meter.departure import Cut, Departure, Done, Why
from lastchunk.simulator import Script, Simulator

grace = importlib.import_module("lastchunk.instrument.grace")

PACED = Script(output_tokens=60, pacing_s=0.01, obfuscation=False)
LONG = Script(output_tokens=400, pacing_s=0.02, obfuscation=False)
BILLS_ON = Script(output_tokens=60, pacing_s=0.01, reaction_tokens=10**6, obfuscation=False)
READ = 8
"""Chunks that the caller reads before it leaves."""


@dataclass
class Ruled:
    """Makes a corner whose calls follow these rows and caps, in a ledger of its own."""

    make: Callable[..., Corner]

    def __call__(self, *rows: dict[str, Any], **caps: Any) -> Corner:
        return self.make(rows, caps)


@pytest.fixture
def ruled(
    shared_sim: Simulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Ruled]:
    with ExitStack() as stack:

        def make(rows: tuple[dict[str, Any], ...], caps: dict[str, Any]) -> Corner:
            monkeypatch.setenv("LASTCHUNK_WHEN_CLIENT_LEAVES", json.dumps(rows))
            for name, value in caps.items():
                monkeypatch.setenv(f"LASTCHUNK_{name.upper()}", str(value))
            ledger = str(tmp_path / "ledger.db")
            corner = Corner(shared_sim, ledger, None, stack)  # type: ignore[arg-type]
            corner.client()  # opens the books
            corner.reader = stack.enter_context(Reader.open(ledger))
            return corner

        yield Ruled(make)
    gc.collect()
    lastchunk.close()


def departure_of(row: CallRecord) -> Departure:
    assert row.settlement is not None
    found = row.settlement.observation.departure
    assert found is not None
    return found


def assert_drained(corner: Corner) -> None:
    row, billed = corner.row(), corner.billed()[0]
    departure, settlement = departure_of(row), row.settlement
    assert settlement is not None
    assert billed.ended == "completed"
    assert departure.done is Done.DRAINED
    assert settlement.ending is Ending.COMPLETED
    assert settlement.usage.basis is Basis.REPORTED
    assert settlement.usage.output_tokens.best == billed.output_tokens  # type: ignore[union-attr]
    assert departure.delivered is not None
    assert READ - 2 <= departure.delivered.total < 40


def read_some(stream: openai.Stream[Any]) -> None:
    for _ in range(READ):
        next(stream)


def closed(client: openai.OpenAI) -> None:
    stream = client.chat.completions.create(**STREAMED)
    read_some(stream)
    at = time.monotonic()
    stream.close()
    assert time.monotonic() - at < 0.1, "close waited for the drain"


def left(client: openai.OpenAI) -> None:
    with client.chat.completions.create(**STREAMED) as stream:
        read_some(stream)


def dropped(client: openai.OpenAI) -> None:
    read_some(client.chat.completions.create(**STREAMED))
    gc.collect()


@pytest.mark.parametrize("package", [httpx, httpx2], ids=["httpx", "httpx2"])
@pytest.mark.parametrize("way", [closed, left, dropped], ids=lambda way: way.__name__)
def test_a_sync_stream_is_drained(
    ruled: Ruled, way: Callable[[openai.OpenAI], None], package: Any
) -> None:
    corner = ruled({"do": "drain"})
    way(corner.client(PACED, http_client=package.Client()))
    assert_drained(corner)


async def aread_some(stream: openai.AsyncStream[Any]) -> None:
    for _ in range(READ):
        await anext(stream)


async def aclosed(client: openai.AsyncOpenAI) -> None:
    stream = await client.chat.completions.create(**STREAMED)
    await aread_some(stream)
    at = time.monotonic()
    await stream.close()
    assert time.monotonic() - at < 0.1, "close waited for the drain"


async def adropped(client: openai.AsyncOpenAI) -> None:
    stream = await client.chat.completions.create(**STREAMED)
    await aread_some(stream)
    del stream
    gc.collect()
    await asyncio.sleep(0.02)


async def acancelled(client: openai.AsyncOpenAI) -> None:
    """As a web framework cancels a handler whose client has disconnected."""
    begun = asyncio.Event()

    async def consume() -> None:
        stream = await client.chat.completions.create(**STREAMED)
        await aread_some(stream)
        begun.set()
        async for _ in stream:
            pass

    task = asyncio.create_task(consume())
    await begun.wait()
    at = time.monotonic()
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()
    assert time.monotonic() - at < 0.1, "the cancelled caller waited for the drain"


@pytest.mark.parametrize("way", [aclosed, adropped, acancelled], ids=lambda way: way.__name__)
def test_an_async_stream_is_drained(
    ruled: Ruled, way: Callable[[openai.AsyncOpenAI], Awaitable[None]]
) -> None:
    corner = ruled({"do": "drain"})

    async def main() -> None:
        async with corner.async_client(PACED) as client:
            async with lastchunk.watch():
                await way(client)

    asyncio.run(main())
    assert_drained(corner)
    assert not grace._drains


@pytest.mark.parametrize("way", [aclosed, acancelled], ids=lambda way: way.__name__)
def test_an_async_stream_that_is_not_worth_it_is_cancelled_and_what_arrived_counted(
    ruled: Ruled, way: Callable[[openai.AsyncOpenAI], Awaitable[None]]
) -> None:
    corner = ruled({"do": "cheaper", "threshold_usd": 0})

    async def main() -> None:
        async with corner.async_client(LONG) as client:
            async with lastchunk.watch():
                await way(client)

    asyncio.run(main())
    row, billed = corner.row(), corner.billed()[0]
    assert billed.ended == "client_gone"
    assert departure_of(row).why is Why.COSTS_MORE
    assert row.settlement is not None
    told = row.settlement.usage.output_tokens
    assert told is not None
    assert told.low <= billed.output_tokens <= told.high


def test_cancelled_where_the_whole_answer_is_billed_the_truth_is_inside(ruled: Ruled) -> None:
    corner = ruled({"upstream": "127.0.0.1", "bills": "whole", "do": "cancel"})
    closed(corner.client(BILLS_ON))
    row, billed = corner.row(), corner.billed()[0]
    assert row.settlement is not None
    told = row.settlement.usage.output_tokens
    assert told is not None
    assert told.low < billed.output_tokens <= told.high
    assert "billed_after_cancel" in row.settlement.reasons
    assert billed.output_tokens >= 60


CAPPED = [
    ({"drain_seconds": 0.3}, Cut.SECONDS),
    ({"drain_bytes": 2000}, Cut.BYTES),
    ({"drain_tokens": 12}, Cut.TOKENS),
]


@pytest.mark.parametrize(("caps", "cut_by"), CAPPED, ids=lambda value: str(value))
@pytest.mark.parametrize("kind", ["sync", "async"])
def test_beyond_a_cap_a_drain_is_cancelled_and_counted(
    ruled: Ruled, caps: dict[str, Any], cut_by: Cut, kind: str
) -> None:
    corner = ruled({"do": "drain"}, **caps)

    async def main() -> None:
        async with corner.async_client(LONG) as client:
            async with lastchunk.watch():
                await aclosed(client)

    if kind == "sync":
        closed(corner.client(LONG))
    else:
        asyncio.run(main())
    row, billed = corner.row(), corner.billed()[0]
    departure = departure_of(row)
    assert billed.ended == "client_gone"
    assert (departure.done, departure.cut_by) == (Done.CUT, cut_by)
    assert row.settlement is not None
    told = row.settlement.usage.output_tokens
    assert told is not None
    assert told.low <= billed.output_tokens <= told.high
    until(_no_reader, "no reader is left", 3)


def _no_reader() -> bool:
    return all(thread.name != "lastchunk-grace-read" for thread in threading.enumerate())


def test_beyond_so_many_at_once_calls_are_cancelled(ruled: Ruled) -> None:
    corner = ruled({"do": "drain"}, drains_at_once=2)
    client = corner.client(Script(output_tokens=60, pacing_s=0.02))
    streams = [client.chat.completions.create(**STREAMED) for _ in range(5)]
    for stream in streams:
        next(stream)
    for stream in streams:
        stream.close()
    departures = [departure_of(row) for row in corner.rows(5)]
    assert sorted(one.done for one in departures) == [Done.CANCELLED] * 3 + [Done.DRAINED] * 2
    assert [one.why for one in departures].count(Why.TOO_MANY_DRAINS) == 3


def test_two_hundred_sync_drains_at_once_are_all_exact(ruled: Ruled) -> None:
    corner = ruled({"do": "drain"})
    http = httpx2.Client(limits=httpx2.Limits(max_connections=None))
    client = corner.client(Script(output_tokens=60, pacing_s=0.1), http_client=http)
    streams = [client.chat.completions.create(**STREAMED) for _ in range(200)]
    at = time.monotonic()
    for stream in streams:
        stream.close()
    assert time.monotonic() - at < 2, "callers waited for drains"
    rows, billed = corner.rows(200, seconds=30), corner.billed(200)
    assert {departure_of(row).done for row in rows} == {Done.DRAINED}
    told = [row.settlement.usage.output_tokens.best for row in rows]  # type: ignore[union-attr]
    assert sum(told) == sum(one.output_tokens for one in billed)


def test_a_process_that_ends_does_not_wait_for_a_drain(ruled: Ruled) -> None:
    corner = ruled({"do": "drain"})
    client = corner.client(LONG)
    closed(client)
    still_open = client.chat.completions.create(**STREAMED)
    read_some(still_open)
    time.sleep(0.1)
    at = time.monotonic()
    lastchunk.close()
    assert time.monotonic() - at < 2
    drained, cut = (departure_of(row) for row in corner.rows(2))
    assert (drained.done, drained.cut_by) == (Done.CUT, Cut.SHUTDOWN)
    assert (cut.done, cut.why) == (Done.CANCELLED, Why.PROCESS_ENDED)
    still_open.close()


def test_a_loop_that_ends_under_a_drain_leaves_one_row(ruled: Ruled) -> None:
    corner = ruled({"do": "drain"})

    async def main() -> None:
        client = corner.metered(openai.AsyncOpenAI(**corner.options(LONG)))
        await aclosed(client)

    asyncio.run(main())
    assert departure_of(corner.row()).cut_by is Cut.SHUTDOWN


def test_a_row_that_cannot_be_used_is_told_when_the_client_is_instrumented(ruled: Ruled) -> None:
    with pytest.raises(SettingsError, match=r"row 1: do = 'drian' is not known: write one of"):
        ruled({"do": "drian"})
