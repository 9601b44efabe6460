"""Every way out of a stream ends in exactly one row, and leaves the provider in the middle."""

import asyncio
import gc
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import suppress
from typing import Any

import httpx
import httpx2
import openai
import pytest
from in_process import CHAT, SLOW, STREAMED, Corner, assert_cut, assert_reported, until

from lastchunk import Basis, Ending
from lastchunk.simulator import Fault, Script

Stream = openai.Stream[Any]
AsyncStream = openai.AsyncStream[Any]
SEEN = 5


class Oops(Exception):
    """What the caller's own code raises."""


def read_some(stream: Iterator[Any]) -> None:
    for _ in range(SEEN):
        next(stream)


async def aread_some(stream: AsyncIterator[Any]) -> None:
    for _ in range(SEEN):
        await anext(stream)


# Each way gets the only reference to the stream: `streams.pop()`.


def break_and_del(streams: list[Stream]) -> None:
    for number, _ in enumerate(streams.pop()):
        if number == SEEN:
            break
    gc.collect()


def close(streams: list[Stream]) -> None:
    stream = streams.pop()
    read_some(stream)
    stream.close()
    stream.close()


def leave_with(streams: list[Stream]) -> None:
    with streams.pop() as stream:
        read_some(stream)


def raise_in_loop(streams: list[Stream]) -> None:
    with suppress(Oops):
        for number, _ in enumerate(streams.pop()):
            if number == SEEN:
                raise Oops
    gc.collect()


def interrupt_in_loop(streams: list[Stream]) -> None:
    with suppress(KeyboardInterrupt), streams.pop() as stream:
        for number, _ in enumerate(stream):
            if number == SEEN:
                raise KeyboardInterrupt


def never_iterate(streams: list[Stream]) -> None:
    streams.clear()
    gc.collect()


def close_unread(streams: list[Stream]) -> None:
    streams.pop().close()


def drop_generator(streams: list[Stream]) -> None:
    def words() -> Iterator[str]:
        for chunk in streams.pop():
            yield chunk.choices[0].delta.content or ""

    consumer = words()
    read_some(consumer)
    del consumer
    gc.collect()


def close_from_another_thread(streams: list[Stream]) -> None:
    stream = streams.pop()
    read_some(stream)
    closing = threading.Thread(target=stream.close)
    closing.start()
    closing.join()


def close_under_a_reader(streams: list[Stream]) -> None:
    stream = streams.pop()
    read_some(stream)
    threading.Timer(0.05, stream.close).start()
    with suppress(openai.APIConnectionError):
        for _ in stream:
            pass


SYNC = [
    break_and_del,
    close,
    leave_with,
    raise_in_loop,
    interrupt_in_loop,
    never_iterate,
    close_unread,
    drop_generator,
    close_from_another_thread,
    close_under_a_reader,
]
UNREAD = [never_iterate, close_unread]


@pytest.mark.parametrize("way", SYNC, ids=lambda way: way.__name__)
def test_each_way_out_of_a_sync_stream(corner: Corner, way: Callable[[list[Stream]], None]) -> None:
    client = corner.client(SLOW)
    way([client.chat.completions.create(**STREAMED)])
    assert_cut(corner.row(), corner.billed()[0], Ending.CALLER_LEFT, read=way not in UNREAD)


async def collect() -> None:
    """The SDK's generators let go of one another one by one, each in a turn of the loop."""
    for _ in range(4):
        await asyncio.sleep(0.01)
        gc.collect()


async def abreak_and_del(streams: list[AsyncStream]) -> None:
    seen = 0
    async for _ in streams.pop():
        seen += 1
        if seen == SEEN:
            break
    await collect()


async def aclose(streams: list[AsyncStream]) -> None:
    stream = streams.pop()
    await aread_some(stream)
    await stream.close()
    await stream.close()


async def aleave_with(streams: list[AsyncStream]) -> None:
    async with streams.pop() as stream:
        await aread_some(stream)


async def araise_in_loop(streams: list[AsyncStream]) -> None:
    with suppress(Oops):
        async with streams.pop() as stream:
            await aread_some(stream)
            raise Oops


async def cancel_task(streams: list[AsyncStream]) -> None:
    begun = asyncio.Event()

    async def consume() -> None:
        stream = streams.pop()
        await aread_some(stream)
        begun.set()
        async for _ in stream:
            pass

    task = asyncio.create_task(consume())
    await begun.wait()
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


async def time_out(streams: list[AsyncStream]) -> None:
    with suppress(TimeoutError):
        async with asyncio.timeout(0.2):
            async for _ in streams.pop():
                pass


async def wait_for(streams: list[AsyncStream]) -> None:
    async def consume() -> None:
        async for _ in streams.pop():
            pass

    with suppress(TimeoutError):
        await asyncio.wait_for(consume(), 0.2)


async def anever_iterate(streams: list[AsyncStream]) -> None:
    streams.clear()
    await collect()


async def drop_async_generator(streams: list[AsyncStream]) -> None:
    async def words() -> AsyncIterator[str]:
        async for chunk in streams.pop():
            yield chunk.choices[0].delta.content or ""

    consumer = words()
    await aread_some(consumer)
    del consumer
    await collect()


async def cancel_group(streams: list[AsyncStream]) -> None:
    async def consume() -> None:
        async for _ in streams.pop():
            pass

    async def fail() -> None:
        await asyncio.sleep(0.1)
        raise Oops

    with suppress(BaseExceptionGroup):
        async with asyncio.TaskGroup() as group:
            group.create_task(consume())
            group.create_task(fail())


ASYNC = [
    abreak_and_del,
    aclose,
    aleave_with,
    araise_in_loop,
    cancel_task,
    time_out,
    wait_for,
    anever_iterate,
    drop_async_generator,
    cancel_group,
]


@pytest.mark.parametrize("way", ASYNC, ids=lambda way: way.__name__)
def test_each_way_out_of_an_async_stream(
    corner: Corner, way: Callable[[list[AsyncStream]], Awaitable[None]]
) -> None:
    async def main() -> None:
        async with corner.async_client(SLOW) as client:
            await way([await client.chat.completions.create(**STREAMED)])
            await corner.billed_soon()

    asyncio.run(main())
    assert_cut(corner.row(), corner.billed()[0], Ending.CALLER_LEFT, read=way is not anever_iterate)


@pytest.mark.parametrize("package", [httpx, httpx2], ids=["httpx", "httpx2"])
def test_a_dropped_raw_answer_of_either_package_is_settled_and_its_connection_closed(
    corner: Corner, package: Any
) -> None:
    http = corner.metered(corner.stack.enter_context(package.Client()))
    url = f"{corner.sim.base_url}/chat/completions"
    request = http.build_request("POST", url, json=STREAMED, headers=corner.headers(SLOW))
    answer = http.send(request, stream=True)
    del answer
    gc.collect()
    assert_cut(corner.row(), corner.billed()[0], Ending.CALLER_LEFT, read=False)


@pytest.mark.parametrize("closes", [True, False], ids=["closed", "not closed"])
def test_an_event_loop_that_ends_with_open_streams(corner: Corner, closes: bool) -> None:
    kept: list[Any] = []

    async def main() -> None:
        client = corner.metered(openai.AsyncOpenAI(**corner.options(SLOW)))
        stream = await client.chat.completions.create(**STREAMED)
        await aread_some(stream)
        kept.append(stream)
        if closes:
            await client.close()

    asyncio.run(main())
    kept.clear()
    gc.collect()
    assert_cut(corner.row(), corner.billed()[0], Ending.CALLER_LEFT)


def test_a_whole_answer_that_is_cancelled_is_one_row(corner: Corner) -> None:
    async def main() -> None:
        async with corner.async_client(SLOW) as client:
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(client.chat.completions.create(**CHAT), 0.3)

    asyncio.run(main())
    row = corner.row()
    assert row.settlement is not None
    assert row.settlement.ending == Ending.CALLER_LEFT
    assert row.settlement.usage.basis == Basis.ASSUMED
    assert row.settlement.usage.output_tokens is not None
    assert row.settlement.usage.output_tokens.high >= corner.billed()[0].output_tokens


def test_a_client_without_a_server_is_released(corner: Corner) -> None:
    client = corner.client(base_url="http://127.0.0.1:1/v1", max_retries=1)
    with pytest.raises(openai.APIConnectionError):
        client.chat.completions.create(**STREAMED)
    first, second = corner.rows(2)
    for row in (first, second):
        assert row.settlement is not None
        assert row.settlement.ending == Ending.NEVER_SENT
        assert row.settlement.nothing_used
    assert second.call.attempt_of == first.call_id


UPSTREAM_ENDINGS = {
    "fin": Ending.UPSTREAM_CUT,
    "eof": Ending.UPSTREAM_CUT,
    "rst": Ending.UPSTREAM_CUT,
    "stall": Ending.UPSTREAM_TIMEOUT,
    "error_event": Ending.UPSTREAM_FAILED,
}


@pytest.mark.parametrize("at", ["mid", "after_finish"])
@pytest.mark.parametrize("kind", list(UPSTREAM_ENDINGS))
def test_what_the_upstream_does_is_named_in_sync_and_async_alike(
    corner: Corner, kind: Any, at: str
) -> None:
    script = Script(fault=Fault(kind, at=at, seconds=5))
    timeout = httpx2.Timeout(10.0, read=0.3)
    with suppress(openai.APIError):
        for _ in corner.client(script, timeout=timeout).chat.completions.create(**STREAMED):
            pass

    async def main() -> None:
        async with corner.async_client(script, timeout=timeout) as client:
            with suppress(openai.APIError):
                async for _ in await client.chat.completions.create(**STREAMED):
                    pass

    asyncio.run(main())
    for row in corner.rows(2):
        assert row.settlement is not None
        assert row.settlement.ending == UPSTREAM_ENDINGS[kind]


@pytest.mark.parametrize("threads", [24])
def test_threads_that_share_a_client_have_a_row_each(corner: Corner, threads: int) -> None:
    client = corner.client(Script(output_tokens=60, pacing_s=0.002))
    cut: dict[str, bool] = {}
    begin = threading.Barrier(threads)

    def call(number: int) -> None:
        begin.wait()
        raw = client.chat.completions.with_raw_response.create(**STREAMED)
        stream = raw.parse()
        cut[raw.headers["x-lastchunk-call-id"]] = bool(number % 3)
        if number % 3:
            read_some(stream)
            stream.close()
        else:
            assert all(chunk.choices for chunk in stream)

    working = [threading.Thread(target=call, args=(number,)) for number in range(threads)]
    for thread in working:
        thread.start()
    for thread in working:
        thread.join()
    billed = {call.response_id: call for call in corner.billed(threads)}
    rows = corner.rows(threads)
    assert {row.call_id for row in rows} == cut.keys()
    for row in rows:
        assert row.settlement is not None
        provider = billed[row.settlement.observation.response_id]
        if cut[row.call_id]:
            assert_cut(row, provider, Ending.CALLER_LEFT)
        else:
            assert_reported(row, provider)


def test_an_open_stream_is_no_row_yet_and_its_provider_is_not_disturbed(corner: Corner) -> None:
    client = corner.client(SLOW)
    stream = client.chat.completions.create(**STREAMED)
    read_some(stream)
    assert len(corner.open_rows()) == 1
    until(lambda: corner.open_rows()[0].seen, "a checkpoint")
    read_some(stream)
    stream.close()
    assert_cut(corner.row(), corner.billed()[0], Ending.CALLER_LEFT)
