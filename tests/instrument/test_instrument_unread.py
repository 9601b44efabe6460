"""What had arrived and was not read, when a task is cancelled in an event loop that lagged."""

import asyncio
import importlib
import ssl
import time
from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from typing import Any

import anyio
import httpx
import httpx2
import openai
import pytest
import uvloop
from in_process import PATIENCE_SECONDS, STREAMED, Corner, assert_cut, assert_within

from lastchunk import Ending
from lastchunk.simulator import Fault, Script
from tls_relay import CERTIFICATE, TlsRelay

grace = importlib.import_module("lastchunk.instrument.grace")

FAST = Script(output_tokens=4000, pacing_s=0.001, reaction_tokens=0)
SILENT = Script(output_tokens=40, fault=Fault("stall", at="mid", seconds=20))

READ = 5
LAG_SECONDS = 0.4
ARRIVES_MEANWHILE = 100
"""Fewer tokens than come in that time, on a busy machine as well."""

ON_THE_WAY = 16
"""Tokens that may be sent after the caller left, until its provider notices that."""


class Reader:
    """A caller that reads some of its answer and then waits for more."""

    def __init__(self, client: openai.AsyncOpenAI) -> None:
        self.reads = asyncio.Event()
        self.chunks = 0
        self._client = client

    def open(self) -> Awaitable[Any]:
        return self._client.chat.completions.create(**STREAMED)

    async def read(self) -> None:
        async with await self.open() as stream:
            async for _ in stream:
                self.chunks += 1
                if self.chunks == READ:
                    self.reads.set()


def lag() -> None:
    """Chunks arrive meanwhile, and no coroutine runs."""
    time.sleep(LAG_SECONDS)


async def cancelled(reader: Reader) -> None:
    task = asyncio.create_task(reader.read())
    await reader.reads.wait()
    lag()
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()


async def timed_out(reader: Reader) -> None:
    """The loop finds the deadline passed when it comes to it."""

    async def lag_when_it_reads() -> None:
        await reader.reads.wait()
        limit.reschedule(asyncio.get_running_loop().time() + LAG_SECONDS / 2)
        lag()

    lags = asyncio.create_task(lag_when_it_reads())
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(None) as limit:
            await reader.read()
    await lags


async def cancelled_by_its_scope(reader: Reader) -> None:
    """As Starlette does it: the scope cancels whatever is awaited in it, again and again."""
    async with anyio.create_task_group() as group:
        group.start_soon(reader.read)
        await reader.reads.wait()
        lag()
        group.cancel_scope.cancel()


async def cancelled_elsewhere(reader: Reader) -> None:
    """As above, while the caller waits for something else: the stream is closed under its scope."""

    async def read_and_wait() -> None:
        async with await reader.open() as stream:
            async for _ in stream:
                reader.chunks += 1
                if reader.chunks == READ:
                    break
            reader.reads.set()
            await asyncio.Event().wait()

    async with anyio.create_task_group() as group:
        group.start_soon(read_and_wait)
        await reader.reads.wait()
        lag()
        group.cancel_scope.cancel()


WAYS = [cancelled, timed_out, cancelled_by_its_scope, cancelled_elsewhere]


def leave_in_a_lagging_loop(
    corner: Corner,
    way: Callable[[Reader], Awaitable[None]],
    new_loop: Callable[[], asyncio.AbstractEventLoop] | None = None,
    **more: Any,
) -> int:
    """How many chunks the caller had read when it left."""

    async def main() -> int:
        async with corner.async_client(FAST, **more) as client:
            reader = Reader(client)
            await way(reader)
            await corner.billed_soon()
            return reader.chunks

    with asyncio.Runner(loop_factory=new_loop) as runner:
        return runner.run(main())


def assert_counted(corner: Corner, chunks_read: int) -> int:
    """The count is of what had arrived, not of what was read, and the truth is inside.

    Gives how many tokens were sent and not counted.
    """
    row, billed = corner.row(), corner.billed()[0]
    assert billed.delivered_tokens > chunks_read + ARRIVES_MEANWHILE, "nothing waited unread"
    assert_cut(row, billed, Ending.CALLER_LEFT)
    assert row.settlement is not None
    told = row.settlement.usage.output_tokens
    assert told is not None
    assert told.best > chunks_read + ARRIVES_MEANWHILE
    assert row.settlement.observation.faults == ()
    return billed.delivered_tokens - told.best


@pytest.mark.parametrize("package", [httpx, httpx2], ids=["httpx", "httpx2"])
@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
def test_what_had_arrived_is_counted(
    corner: Corner, way: Callable[[Reader], Awaitable[None]], package: Any
) -> None:
    chunks = leave_in_a_lagging_loop(corner, way, http_client=package.AsyncClient())
    assert assert_counted(corner, chunks) <= ON_THE_WAY


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
def test_what_had_arrived_over_tls_is_counted(
    corner: Corner, way: Callable[[Reader], Awaitable[None]]
) -> None:
    trust = ssl.create_default_context(cafile=str(CERTIFICATE))
    with ExitStack() as stack:
        relay = stack.enter_context(TlsRelay(corner.sim.port))
        http = httpx2.AsyncClient(verify=trust)
        address = f"https://127.0.0.1:{relay.port}/v1"
        chunks = leave_in_a_lagging_loop(corner, way, http_client=http, base_url=address)
    assert_counted(corner, chunks)


def test_what_had_arrived_under_uvloop_is_counted(corner: Corner) -> None:
    chunks = leave_in_a_lagging_loop(corner, cancelled, uvloop.new_event_loop)
    assert assert_counted(corner, chunks) <= ON_THE_WAY


def assert_ended(corner: Corner, ending: Ending) -> None:
    row = corner.row()
    assert row.settlement is not None
    assert row.settlement.ending is ending
    assert_within(row, corner.billed()[0])


def test_an_upstream_that_falls_silent_is_no_caller_that_leaves(corner: Corner) -> None:
    async def main() -> None:
        timeout = httpx2.Timeout(PATIENCE_SECONDS, read=0.3)
        async with corner.async_client(SILENT, timeout=timeout) as client:
            with pytest.raises(openai.APITimeoutError):
                await Reader(client).read()

    asyncio.run(main())
    assert_ended(corner, Ending.UPSTREAM_TIMEOUT)


def test_who_is_cancelled_where_nothing_comes_waits_for_nothing(corner: Corner) -> None:
    async def main() -> float:
        async with corner.async_client(SILENT) as client:
            reader = Reader(client)
            task = asyncio.create_task(reader.read())
            await reader.reads.wait()
            await asyncio.sleep(0.1)
            at = time.monotonic()
            task.cancel()
            await asyncio.wait([task])
            return time.monotonic() - at

    assert asyncio.run(main()) < grace.ARRIVED_SECONDS / 2
    assert_ended(corner, Ending.CALLER_LEFT)
