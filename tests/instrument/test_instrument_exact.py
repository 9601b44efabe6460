"""Exact mode in process: `lastchunk.exact()`, sync and async, and callers that leave."""

import asyncio
import time
from typing import Any

import httpx
import openai
import pytest
from in_process import ASKED, CHAT, MODEL, STREAMED, Corner, assert_reported, in_a_loop

import lastchunk
from lastchunk import Ending
from lastchunk.instrument import exact_mode
from lastchunk.simulator import Fault, Script

SLOW = Script(output_tokens=80, pacing_s=0.01)


def text_of(chunks: list[Any]) -> str:
    return "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)


def test_a_stream_is_the_same_and_reported(corner: Corner) -> None:
    client = corner.client(Script(output_tokens=70))
    streamed = list(client.chat.completions.create(**ASKED))
    with lastchunk.exact():
        replayed = list(client.chat.completions.create(**ASKED))
    assert text_of(replayed) == text_of(streamed)
    assert replayed[-1].usage == streamed[-1].usage
    assert [c.usage for c in replayed[:-1]] == [None] * (len(replayed) - 1)
    rows, billed = corner.rows(2), corner.billed(2)
    assert [row.call.request.exact for row in rows] == [False, True]
    assert [bill.streamed for bill in billed] == [True, False]
    assert_reported(rows[1], billed[1])


def test_a_caller_who_breaks_off_is_billed_and_reported_all_the_same(corner: Corner) -> None:
    client = corner.client(Script(output_tokens=200))
    with lastchunk.exact(), client.chat.completions.create(**STREAMED) as stream:
        next(iter(stream))
    assert_reported(corner.row(), corner.billed()[0])


@in_a_loop
async def test_the_same_in_a_coroutine(corner: Corner) -> None:
    async with corner.async_client(Script(output_tokens=30)) as client:
        with lastchunk.exact():
            stream = await client.chat.completions.create(**STREAMED)
            chunks = [chunk async for chunk in stream]
    assert all(chunk.choices for chunk in chunks)
    assert_reported(corner.row(), (await corner.billed_soon())[0])


@pytest.mark.parametrize("surface", ["responses", "completions"])
def test_other_surfaces(corner: Corner, surface: str) -> None:
    client = corner.client(Script(output_tokens=30))
    with lastchunk.exact():
        if surface == "responses":
            with client.responses.stream(model=MODEL, input="hello") as stream:
                text = stream.get_final_response().output_text
        else:
            told = client.completions.create(
                model="gpt-3.5-turbo-instruct", prompt="hi", stream=True
            )
            text = "".join(chunk.choices[0].text for chunk in told)
    assert text
    row = corner.row()
    assert row.call.request.exact
    assert row.settlement is not None
    assert row.settlement.usage.basis == lastchunk.Basis.REPORTED
    assert not corner.billed()[0].streamed


def test_the_answer_says_what_a_streams_answer_says(corner: Corner) -> None:
    client = corner.client(Script(output_tokens=5, gzip="forced"))
    with lastchunk.exact():
        raw = client.chat.completions.with_raw_response.create(**STREAMED)
        chunks = list(raw.parse())
    assert text_of(chunks)
    assert raw.headers["content-type"].startswith("text/event-stream")
    assert "content-length" not in raw.headers
    assert "content-encoding" not in raw.headers
    assert raw.headers["x-request-id"].startswith("req_")
    assert raw.headers["x-lastchunk-usage"] == "exact"
    assert raw.headers["x-lastchunk-call-id"] == corner.row().call_id
    assert b'"stream":true' in raw.http_request.content  # the caller's own request
    assert raw.elapsed.total_seconds() > 0


def test_an_accounts_pattern_is_enough(corner: Corner, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LASTCHUNK_EXACT_ACCOUNTS", '["billing/*"]')
    client = corner.client(Script(output_tokens=5))
    with lastchunk.watch() as calls:
        list(client.chat.completions.create(**STREAMED))
        with lastchunk.label(account=f"billing/{corner.name}"):
            list(client.chat.completions.create(**STREAMED))
    assert len(calls) == 2
    assert sorted(bill.streamed for bill in corner.billed(2)) == [False, True]


def test_an_error_is_raised_as_it_is_and_retried_as_an_attempt(corner: Corner) -> None:
    client = corner.client(Script(output_tokens=9, fault=Fault("http_500", count=1)), max_retries=1)
    with lastchunk.exact():
        assert text_of(list(client.chat.completions.create(**STREAMED)))
        with pytest.raises(openai.NotFoundError):
            client.chat.completions.create(**STREAMED | {"model": "missing-model"})
    first, second, refused = corner.rows(3)
    assert second.call.attempt_of == first.call_id
    assert refused.settlement is not None
    assert refused.settlement.ending == Ending.REFUSED


def test_a_call_that_is_not_streamed_is_as_ever(corner: Corner) -> None:
    client = corner.client(Script(output_tokens=5))
    with lastchunk.exact():
        assert client.chat.completions.create(**CHAT).choices[0].message.content
    row = corner.row()
    assert not row.call.request.exact


# Callers that leave.


def test_a_callers_timeout_is_kept_and_the_answer_read_to_its_end(corner: Corner) -> None:
    client = corner.client(SLOW, timeout=0.2)
    began = time.monotonic()
    with lastchunk.exact(), pytest.raises(openai.APITimeoutError):
        client.chat.completions.create(**STREAMED)
    assert time.monotonic() - began < 0.7
    assert_reported(corner.row(), corner.billed()[0])


@in_a_loop
async def test_a_cancelled_coroutine_leaves_the_answer_to_a_task(corner: Corner) -> None:
    async with corner.async_client(SLOW) as client:
        with lastchunk.exact(), pytest.raises(TimeoutError):
            await asyncio.wait_for(client.chat.completions.create(**STREAMED), 0.2)
        row = await asyncio.to_thread(corner.row)
    assert_reported(row, (await corner.billed_soon())[0])


@in_a_loop
async def test_an_async_clients_timeout_is_kept(corner: Corner) -> None:
    async with corner.async_client(SLOW, timeout=0.2) as client:
        with lastchunk.exact(), pytest.raises(openai.APITimeoutError):
            await client.chat.completions.create(**STREAMED)
        row = await asyncio.to_thread(corner.row)
    assert_reported(row, (await corner.billed_soon())[0])


@in_a_loop
async def test_a_client_that_is_closed_ends_what_its_caller_left(corner: Corner) -> None:
    async with corner.async_client(SLOW) as client:
        with lastchunk.exact(), pytest.raises(TimeoutError):
            await asyncio.wait_for(client.chat.completions.create(**STREAMED), 0.2)
    row = await asyncio.to_thread(corner.row)
    assert row.settlement is not None
    assert row.settlement.ending == Ending.CALLER_LEFT
    told, billed = row.settlement.usage.output_tokens, (await corner.billed_soon())[0]
    assert told is not None
    assert told.low <= billed.output_tokens <= told.high


def test_a_loop_that_ends_under_it_leaves_no_open_call(corner: Corner) -> None:
    async def leave() -> None:
        client = openai.AsyncOpenAI(**corner.options(SLOW))
        corner.metered(client)
        with lastchunk.exact():
            await asyncio.wait_for(client.chat.completions.create(**STREAMED), 0.2)

    with pytest.raises(TimeoutError):
        asyncio.run(leave())
    row = corner.row()
    assert row.settlement is not None
    assert row.settlement.ending == Ending.CALLER_LEFT


def test_beyond_the_limit_calls_end_with_their_callers(
    corner: Corner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exact_mode, "MAX_LEFT", 0)
    client = corner.client(SLOW, timeout=0.2)
    with lastchunk.exact(), pytest.raises(openai.APITimeoutError):
        client.chat.completions.create(**STREAMED)
    row = corner.row()
    assert row.settlement is not None
    assert row.settlement.ending == Ending.UPSTREAM_TIMEOUT


def test_an_answer_that_breaks_off_is_raised(corner: Corner) -> None:
    client = corner.client(Script(output_tokens=200, fault=Fault("rst", at="mid")))
    with lastchunk.exact(), pytest.raises(openai.APIConnectionError):
        list(client.chat.completions.create(**STREAMED))
    row = corner.row()
    assert row.settlement is not None
    assert row.settlement.ending == Ending.UPSTREAM_CUT


def test_an_httpx_client_of_ones_own(corner: Corner) -> None:
    with httpx.Client(headers=corner.headers(Script(output_tokens=5))) as inner:
        corner.metered(inner)
        with (
            lastchunk.exact(),
            inner.stream("POST", f"{corner.sim.base_url}/chat/completions", json=STREAMED) as told,
        ):
            lines = list(told.iter_lines())
    assert lines[-2:] == ["data: [DONE]", ""]
    assert_reported(corner.row(), corner.billed()[0])
