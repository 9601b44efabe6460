"""The finish was seen, the usage was not: it is fetched within a moment, and nobody waits."""

import asyncio
import gc
import importlib
import threading
import time
from collections.abc import Awaitable, Callable
from typing import Any

import httpx
import httpx2
import openai
import pytest
from in_process import CHAT, MODEL, STREAMED, Corner, assert_reported, until
from pydantic import BaseModel

import lastchunk
from lastchunk import Basis, Ending
from lastchunk.simulator import Fault, Script

grace = importlib.import_module("lastchunk.instrument.grace")

PACED = Script(output_tokens=6, pacing_s=0.02, packet_bytes=61)
"""The usage chunk comes a little after the finish."""
STALLED = Script(output_tokens=6, fault=Fault("stall", at="after_finish", seconds=20))
TRICKLE_SECONDS = 0.6


class Long(BaseModel):
    text: str


def read_to_finish(stream: openai.Stream[Any]) -> None:
    for chunk in stream:
        if chunk.choices and chunk.choices[0].finish_reason:
            return


async def aread_to_finish(stream: openai.AsyncStream[Any]) -> None:
    async for chunk in stream:
        if chunk.choices and chunk.choices[0].finish_reason:
            return


def closed(client: openai.OpenAI) -> None:
    stream = client.chat.completions.create(**STREAMED)
    read_to_finish(stream)
    stream.close()


def left(client: openai.OpenAI) -> None:
    with client.chat.completions.create(**STREAMED) as stream:
        read_to_finish(stream)


def dropped(client: openai.OpenAI) -> None:
    read_to_finish(client.chat.completions.create(**STREAMED))
    gc.collect()


def raised_by_the_helper(client: openai.OpenAI) -> None:
    messages: Any = CHAT["messages"]
    helper = client.chat.completions.stream(
        model=MODEL, messages=messages, max_tokens=4, response_format=Long
    )
    with pytest.raises(openai.LengthFinishReasonError), helper as stream:
        list(stream)


@pytest.mark.parametrize("package", [httpx, httpx2], ids=["httpx", "httpx2"])
@pytest.mark.parametrize(
    "way", [closed, left, dropped, raised_by_the_helper], ids=lambda way: way.__name__
)
def test_who_leaves_at_the_finish_has_a_reported_row(
    corner: Corner, way: Callable[[openai.OpenAI], None], package: Any
) -> None:
    way(corner.client(PACED, http_client=package.Client()))
    assert_reported(corner.row(), corner.billed()[0])


async def aclosed(client: openai.AsyncOpenAI) -> None:
    stream = await client.chat.completions.create(**STREAMED)
    await aread_to_finish(stream)
    await stream.close()


async def aleft(client: openai.AsyncOpenAI) -> None:
    async with await client.chat.completions.create(**STREAMED) as stream:
        await aread_to_finish(stream)


async def araised_by_the_helper(client: openai.AsyncOpenAI) -> None:
    messages: Any = CHAT["messages"]
    helper = client.chat.completions.stream(
        model=MODEL, messages=messages, max_tokens=4, response_format=Long
    )
    with pytest.raises(openai.LengthFinishReasonError):
        await _read_all(helper)


async def _read_all(helper: Any) -> None:
    async with helper as stream:
        async for _ in stream:
            pass


async def cancelled_at_the_finish(client: openai.AsyncOpenAI) -> None:
    finished = asyncio.Event()

    async def consume() -> None:
        stream = await client.chat.completions.create(**STREAMED)
        await aread_to_finish(stream)
        finished.set()
        async for _ in stream:
            pass

    task = asyncio.create_task(consume())
    await finished.wait()
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()


@pytest.mark.parametrize(
    "way",
    [aclosed, aleft, araised_by_the_helper, cancelled_at_the_finish],
    ids=lambda way: way.__name__,
)
def test_who_leaves_an_async_stream_at_the_finish_has_a_reported_row(
    corner: Corner, way: Callable[[openai.AsyncOpenAI], Awaitable[None]]
) -> None:
    async def main() -> None:
        async with corner.async_client(PACED) as client:
            async with lastchunk.watch() as calls:
                await way(client)
            assert [call.ending for call in calls] == [Ending.COMPLETED]

    asyncio.run(main())
    assert_reported(corner.row(), corner.billed()[0])


def test_a_stalled_upstream_is_given_up_after_a_second_and_cut_off(corner: Corner) -> None:
    client = corner.client(STALLED, timeout=30.0)
    begun = time.monotonic()
    stream = client.chat.completions.create(**STREAMED)
    read_to_finish(stream)
    at = time.monotonic()
    stream.close()
    assert time.monotonic() - at < 0.3, "close waited"
    assert_given_up(corner, begun)


def test_a_stalled_upstream_is_given_up_in_async_as_well(corner: Corner) -> None:
    begun = time.monotonic()

    async def main() -> None:
        async with corner.async_client(STALLED, timeout=30.0) as client:
            async with lastchunk.watch() as calls:
                await aclosed(client)
            assert [call.ending for call in calls] == [Ending.CALLER_LEFT]
            assert not grace._tasks

    asyncio.run(main())
    assert_given_up(corner, begun)


def assert_given_up(corner: Corner, begun: float) -> None:
    row = corner.row()
    assert row.settlement is not None
    assert row.settlement.ending == Ending.CALLER_LEFT
    assert row.settlement.usage.basis == Basis.COUNTED
    until(_no_reader, "no reader is left", 3)
    assert time.monotonic() - begun < 5
    billed = corner.billed()[0]
    assert billed.delivered_tokens == row.settlement.usage.output_tokens.best  # type: ignore[union-attr]


def _no_reader() -> bool:
    return all(thread.name != "lastchunk-grace-read" for thread in threading.enumerate())


def test_no_grace_where_the_settings_say_so(
    corner: Corner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LASTCHUNK_GRACE_SECONDS", "0")
    closed(corner.client(STALLED))
    row = corner.row(seconds=0.8)
    assert row.settlement is not None
    assert row.settlement.ending == Ending.CALLER_LEFT


def test_beyond_the_cap_calls_are_counted_at_once(
    corner: Corner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(grace, "MAX_GRACE_READS", 2)
    client = corner.client(STALLED)
    with lastchunk.watch() as calls:
        for _ in range(5):
            closed(client)
        until(lambda: len(calls) >= 3, "those beyond the cap are settled")
        at = time.monotonic()
    assert len(calls) == 5
    assert time.monotonic() - at > 0.2, "the two within the cap were given up too early"
    assert all(call.ending == Ending.CALLER_LEFT for call in calls)
    assert len(corner.rows(5)) == 5

    async def main() -> None:
        async with corner.async_client(STALLED) as aclient:
            for _ in range(5):
                await aclosed(aclient)
            assert len(grace._tasks) == 2
            await asyncio.wait(grace._tasks)

    asyncio.run(main())
    corner.rows(10)


def test_a_connection_that_is_used_again_is_not_shut_by_an_old_grace_read(corner: Corner) -> None:
    """The body ends in the grace read, the connection goes back, and the deadline passes later."""
    unsaid = Script(usage_style="missing", fault=Fault("no_done"), output_tokens=6, pacing_s=0.02)
    http = httpx2.Client(limits=httpx2.Limits(max_connections=1))
    client = corner.client(unsaid, http_client=http)
    connected: list[str] = []
    with lastchunk.watch() as calls:
        closed(client)
    assert [call.ending for call in calls] == [Ending.CALLER_LEFT]
    slow = corner.headers(Script(output_tokens=60, pacing_s=0.03))
    trace = {"trace": lambda name, _: connected.append(name)}
    build = http.build_request
    http.build_request = lambda *a, **k: build(*a, **k | {"extensions": trace})  # type: ignore[method-assign]
    chunks = list(client.chat.completions.create(**STREAMED, extra_headers=slow))
    assert not any(name.startswith("connection.connect") for name in connected)
    assert "http11.send_request_headers.complete" in connected
    assert chunks[-1].choices[0].finish_reason == "stop"
    assert_reported(corner.rows(2)[1], corner.billed(2)[1])


def test_a_loop_that_ends_under_a_grace_read_leaves_one_row_and_no_noise(
    corner: Corner, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        client = corner.metered(openai.AsyncOpenAI(**corner.options(STALLED)))
        await aclosed(client)

    asyncio.run(main())
    row = corner.row(seconds=4)
    assert row.settlement is not None
    assert row.settlement.ending == Ending.CALLER_LEFT
    gc.collect()
    assert "destroyed" not in caplog.text


def test_a_loop_that_is_thrown_away_under_a_grace_read_leaves_one_row(corner: Corner) -> None:
    loop = asyncio.new_event_loop()

    async def main() -> None:
        client = corner.metered(openai.AsyncOpenAI(**corner.options(STALLED)))
        await aclosed(client)

    loop.run_until_complete(main())
    loop.close()
    row = corner.row(seconds=4)
    assert row.settlement is not None
    assert row.settlement.ending == Ending.CALLER_LEFT
    grace._tasks.clear()


def test_a_stream_closed_by_a_finalizer_in_the_middle_of_its_own_metering_is_no_deadlock(
    corner: Corner,
) -> None:
    """A collection may run anywhere, also where this very call's lock is held by this thread."""
    client = corner.client(STALLED)
    with lastchunk.watch() as calls:
        stream = client.chat.completions.create(**STREAMED)
        read_to_finish(stream)

    def close_in_lock() -> None:
        with calls._calls[0]._lock:
            stream.close()

    closing = threading.Thread(target=close_in_lock, daemon=True)
    closing.start()
    closing.join(3)
    if closing.is_alive():
        calls._calls[0]._lock.release()
        pytest.fail("deadlock")
    assert calls.wait()
    corner.row()
