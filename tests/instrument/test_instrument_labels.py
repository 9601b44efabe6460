"""Who spends, and what is given back: labels, watches and callbacks follow the context."""

import asyncio
import contextvars
import logging
import threading
from collections.abc import Iterator

import openai
import pytest
from in_process import CHAT, SLOW, STREAMED, Corner, until

import lastchunk
from lastchunk import Ending, Settlement
from lastchunk.ledger import CallFilter, CallRecord


def rows_of(corner: Corner, account: str, count: int = 1) -> list[CallRecord]:
    def resolved() -> list[CallRecord]:
        wanted = CallFilter(account=account)
        found = [r for r in corner.reader.calls(wanted) if r.call.account == account]
        return found if len(found) >= count and not any(r.is_open for r in found) else []

    found: list[CallRecord] = until(resolved, f"{count} rows of {account}")
    assert len(found) == count
    return found


def call(client: openai.OpenAI) -> None:
    client.chat.completions.create(**CHAT)


def test_labels_nest_and_end(corner: Corner) -> None:
    client = corner.client()
    outer, inner = f"{corner.name}-web", f"{corner.name}-batch"
    with lastchunk.label(outer, team="search"):
        call(client)
        with lastchunk.label(feature="titles", team="ads"):
            call(client)
        with lastchunk.label(inner):
            call(client)
    call(client)
    tags = sorted(row.call.tags for row in rows_of(corner, outer, 2))
    assert tags == [(("feature", "titles"), ("team", "ads")), (("team", "search"),)]
    assert rows_of(corner, inner)[0].call.tags == (("team", "search"),)
    assert corner.row().call.tags == ()


def test_labels_follow_tasks_and_not_threads(corner: Corner) -> None:
    async def main() -> None:
        async with corner.async_client() as client:

            async def one(name: str) -> None:
                with lastchunk.label(f"{corner.name}-{name}"):
                    await asyncio.sleep(0.01)
                    await client.chat.completions.create(**CHAT)

            await asyncio.gather(one("a"), one("b"))
            with lastchunk.label(f"{corner.name}-c"):
                task = asyncio.create_task(client.chat.completions.create(**CHAT))
            await task

    asyncio.run(main())
    for name in "abc":
        rows_of(corner, f"{corner.name}-{name}")
    client = corner.client()
    with lastchunk.label(f"{corner.name}-d"):
        thread = threading.Thread(target=call, args=(client,))
        thread.start()
        thread.join()
    corner.row()


def test_a_label_in_a_generator_that_another_context_closes_is_no_error(corner: Corner) -> None:
    def labelled() -> Iterator[None]:
        with lastchunk.label("elsewhere"), lastchunk.watch():
            yield

    generator = labelled()
    contextvars.copy_context().run(next, generator)
    generator.close()
    call(corner.client())
    corner.row()


def test_a_watch_gives_back_what_was_settled_inside_it(corner: Corner) -> None:
    client = corner.client()
    call(client)
    with lastchunk.watch() as outer:
        call(client)
        with lastchunk.watch() as inner:
            list(client.chat.completions.create(**STREAMED))
        assert len(inner) == 1
        with pytest.raises(openai.NotFoundError):
            client.chat.completions.create(**(CHAT | {"model": "missing-model"}))
    assert [call.ending for call in outer] == [Ending.COMPLETED, Ending.COMPLETED, Ending.REFUSED]
    assert outer[1] == inner[0]
    assert list(outer[:2]) == [outer[0], outer[1]]
    assert {row.call_id for row in corner.rows(4)[1:]} == {call.call_id for call in outer}
    for row in corner.rows(4)[1:]:
        assert row.settlement in list(outer), "what is given back is what is written down"


def test_a_watch_does_not_wait_for_a_stream_that_goes_on(corner: Corner) -> None:
    client = corner.client(SLOW)
    with lastchunk.watch() as calls:
        stream = client.chat.completions.create(**STREAMED)
        next(stream)
    assert len(calls) == 0
    assert repr(calls) == "<watch: 0 settled, 0 not yet>"
    stream.close()
    assert calls.wait()
    assert [call.ending for call in calls] == [Ending.CALLER_LEFT]


def test_an_async_watch_lets_the_loop_go_on(corner: Corner) -> None:
    async def main() -> None:
        async with corner.async_client() as client:
            async with lastchunk.watch() as calls:
                async for _ in await client.chat.completions.create(**STREAMED):
                    pass
            assert [call.ending for call in calls] == [Ending.COMPLETED]
            with lastchunk.watch() as calls:
                await client.chat.completions.create(**CHAT)
            assert [call.ending for call in calls] == [Ending.COMPLETED]

    asyncio.run(main())
    corner.rows(2)


def test_on_settled_is_told_each_settlement_once_it_is_written(corner: Corner) -> None:
    told: list[tuple[Settlement, bool]] = []

    def on_settled(settlement: Settlement) -> None:
        told.append((settlement, not corner.reader.call(settlement.call_id).is_open))

    client = corner.stack.enter_context(openai.OpenAI(**corner.options()))
    corner.metered(client, on_settled=on_settled)
    call(client)
    stream = client.chat.completions.create(**STREAMED)
    next(stream)
    stream.close()
    rows = corner.rows(2)
    until(lambda: len(told) == 2, "two are told")
    assert [settlement for settlement, _ in told] == [row.settlement for row in rows]
    assert all(written for _, written in told)


def test_a_callback_that_raises_stops_nothing(
    corner: Corner, caplog: pytest.LogCaptureFixture
) -> None:
    def on_settled(settlement: Settlement) -> None:
        raise ValueError("secret words")

    client = corner.stack.enter_context(openai.OpenAI(**corner.options()))
    corner.metered(client, on_settled=on_settled)
    with caplog.at_level(logging.ERROR, "lastchunk"):
        call(client)
        call(client)
        corner.rows(2)
        until(lambda: caplog.text.count("on_settled raised ValueError") == 2, "both are logged")
    assert "secret" not in caplog.text
