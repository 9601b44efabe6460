"""Every way to make a call through the SDK is metered, and looks to its caller as it did before."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import openai
import pytest
from in_process import ASKED, CHAT, MODEL, STREAMED, Corner, assert_reported
from openai.types.chat import ChatCompletionChunk
from pydantic import BaseModel

from lastchunk.simulator import Script


class Answer(BaseModel):
    city: str
    inhabitants: int


MESSAGES: Any = CHAT["messages"]
ASK: dict[str, Any] = {"model": MODEL, "input": "hello"}
PROMPT: dict[str, Any] = {"model": "gpt-3.5-turbo-instruct", "prompt": "hello"}


def chat_streamed(client: openai.OpenAI) -> None:
    stream = client.chat.completions.create(**STREAMED)
    assert isinstance(stream, openai.Stream)
    assert all(chunk.choices for chunk in stream)


def chat_whole(client: openai.OpenAI) -> None:
    assert client.chat.completions.create(**CHAT).usage is not None


def chat_helper(client: openai.OpenAI) -> None:
    with client.chat.completions.stream(model=MODEL, messages=MESSAGES) as stream:
        assert {event.type for event in stream} >= {"chunk", "content.done"}
        assert stream.get_final_completion().choices[0].message.content


def chat_parsed(client: openai.OpenAI) -> None:
    answer = client.chat.completions.parse(model=MODEL, messages=MESSAGES, response_format=Answer)
    assert isinstance(answer.choices[0].message.parsed, Answer)


def responses_streamed(client: openai.OpenAI) -> None:
    stream = client.responses.create(**ASK, stream=True)
    assert isinstance(stream, openai.Stream)
    assert [event.type for event in stream][-1] == "response.completed"


def responses_whole(client: openai.OpenAI) -> None:
    assert client.responses.create(**ASK).output_text


def responses_helper(client: openai.OpenAI) -> None:
    with client.responses.stream(**ASK) as stream:
        assert stream.get_final_response().output_text


def responses_parsed(client: openai.OpenAI) -> None:
    assert isinstance(client.responses.parse(**ASK, text_format=Answer).output_parsed, Answer)


def completions_streamed(client: openai.OpenAI) -> None:
    assert all(chunk.choices for chunk in client.completions.create(**PROMPT, stream=True))


def completions_whole(client: openai.OpenAI) -> None:
    assert client.completions.create(**PROMPT).choices[0].text


def raw_streamed(client: openai.OpenAI) -> None:
    raw = client.chat.completions.with_raw_response.create(**STREAMED)
    assert raw.headers["x-lastchunk-call-id"].startswith("call_")
    assert all(chunk.choices for chunk in raw.parse())


def raw_whole(client: openai.OpenAI) -> None:
    assert client.chat.completions.with_raw_response.create(**CHAT).parse().usage is not None


def lines_streamed(client: openai.OpenAI) -> None:
    with client.chat.completions.with_streaming_response.create(**STREAMED) as response:
        lines = [line for line in response.iter_lines() if line]
    assert lines[-1] == "data: [DONE]"
    assert not any('"choices":[]' in line for line in lines)


SYNC = [
    chat_streamed,
    chat_whole,
    chat_helper,
    chat_parsed,
    responses_streamed,
    responses_whole,
    responses_helper,
    responses_parsed,
    completions_streamed,
    completions_whole,
    raw_streamed,
    raw_whole,
    lines_streamed,
]


@pytest.mark.parametrize("surface", SYNC, ids=lambda surface: surface.__name__)
def test_each_surface_of_a_sync_client_is_metered(
    corner: Corner, surface: Callable[[openai.OpenAI], None]
) -> None:
    surface(corner.client())
    assert_reported(corner.row(), corner.billed()[0])


async def achat_streamed(client: openai.AsyncOpenAI) -> None:
    stream = await client.chat.completions.create(**STREAMED)
    assert isinstance(stream, openai.AsyncStream)
    assert all([chunk.choices async for chunk in stream])


async def achat_whole(client: openai.AsyncOpenAI) -> None:
    assert (await client.chat.completions.create(**CHAT)).usage is not None


async def achat_helper(client: openai.AsyncOpenAI) -> None:
    async with client.chat.completions.stream(model=MODEL, messages=MESSAGES) as stream:
        assert {event.type async for event in stream} >= {"chunk", "content.done"}


async def achat_parsed(client: openai.AsyncOpenAI) -> None:
    answer = await client.chat.completions.parse(
        model=MODEL, messages=MESSAGES, response_format=Answer
    )
    assert isinstance(answer.choices[0].message.parsed, Answer)


async def aresponses_streamed(client: openai.AsyncOpenAI) -> None:
    stream = await client.responses.create(**ASK, stream=True)
    assert [event.type async for event in stream][-1] == "response.completed"


async def aresponses_whole(client: openai.AsyncOpenAI) -> None:
    assert (await client.responses.create(**ASK)).output_text


async def aresponses_helper(client: openai.AsyncOpenAI) -> None:
    async with client.responses.stream(**ASK) as stream:
        assert (await stream.get_final_response()).output_text


async def aresponses_parsed(client: openai.AsyncOpenAI) -> None:
    answer = await client.responses.parse(**ASK, text_format=Answer)
    assert isinstance(answer.output_parsed, Answer)


async def acompletions_streamed(client: openai.AsyncOpenAI) -> None:
    stream = await client.completions.create(**PROMPT, stream=True)
    assert all([chunk.choices async for chunk in stream])


async def acompletions_whole(client: openai.AsyncOpenAI) -> None:
    assert (await client.completions.create(**PROMPT)).choices[0].text


async def araw_streamed(client: openai.AsyncOpenAI) -> None:
    raw = await client.chat.completions.with_raw_response.create(**STREAMED)
    assert raw.headers["x-lastchunk-call-id"].startswith("call_")
    assert all([chunk.choices async for chunk in raw.parse()])


async def araw_whole(client: openai.AsyncOpenAI) -> None:
    raw = await client.chat.completions.with_raw_response.create(**CHAT)
    assert raw.parse().usage is not None


async def alines_streamed(client: openai.AsyncOpenAI) -> None:
    async with client.chat.completions.with_streaming_response.create(**STREAMED) as response:
        lines = [line async for line in response.iter_lines() if line]
    assert lines[-1] == "data: [DONE]"
    assert not any('"choices":[]' in line for line in lines)


ASYNC = [
    achat_streamed,
    achat_whole,
    achat_helper,
    achat_parsed,
    aresponses_streamed,
    aresponses_whole,
    aresponses_helper,
    aresponses_parsed,
    acompletions_streamed,
    acompletions_whole,
    araw_streamed,
    araw_whole,
    alines_streamed,
]


@pytest.mark.parametrize("surface", ASYNC, ids=lambda surface: surface.__name__)
def test_each_surface_of_an_async_client_is_metered(
    corner: Corner, surface: Callable[[openai.AsyncOpenAI], Awaitable[None]]
) -> None:
    async def main() -> None:
        async with corner.async_client() as client:
            await surface(client)

    asyncio.run(main())
    assert_reported(corner.row(), corner.billed()[0])


def test_who_asked_for_the_usage_chunk_sees_it_and_who_did_not_sees_the_rest_alike(
    corner: Corner,
) -> None:
    client = corner.client()
    asked = list(client.chat.completions.create(**ASKED))
    unasked = list(client.chat.completions.create(**STREAMED))
    with openai.OpenAI(**corner.options()) as plain:
        before = list(plain.chat.completions.create(**STREAMED))
    assert asked[-1].usage is not None
    assert asked[-1].choices == []
    assert _told(unasked) == _told(before) == _told(asked)[:-1]
    first, second, _ = corner.billed(3)
    for row, billed in zip(corner.rows(2), (first, second), strict=True):
        assert billed.include_usage
        assert_reported(row, billed)


def _told(chunks: list[ChatCompletionChunk]) -> list[Any]:
    return [[(choice.delta.content, choice.finish_reason) for choice in c.choices] for c in chunks]


@pytest.mark.parametrize("gzip", ["accepted", "forced"])
@pytest.mark.parametrize("request_", [STREAMED, ASKED, CHAT], ids=["streamed", "asked", "whole"])
def test_a_compressed_answer_is_metered_and_comes_through(
    corner: Corner, gzip: Any, request_: dict[str, Any]
) -> None:
    answer = corner.client(Script(gzip=gzip)).chat.completions.create(**request_)
    if request_ is CHAT:
        assert answer.choices[0].message.content
    else:
        assert sum(len(c.choices) == 0 for c in answer) == (request_ is ASKED)
    assert_reported(corner.row(), corner.billed()[0])


def test_several_calls_of_a_reused_connection_are_rows_of_their_own(corner: Corner) -> None:
    client = corner.client()
    for _ in range(3):
        client.chat.completions.create(**CHAT)
    for row, billed in zip(corner.rows(3), corner.billed(3), strict=True):
        assert_reported(row, billed)
