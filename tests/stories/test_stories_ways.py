"""Other clients and other surfaces of the SDK: the same account, the same bytes."""

from __future__ import annotations

import asyncio

import httpx
import openai
import pydantic
import pytest
from story import (
    CHAT,
    COMPLETIONS,
    CUT,
    LEFT,
    REPORTED,
    RESPONSES,
    SOCKETS,
    Leave,
    Row,
    Story,
    asking,
    broken,
    plain,
    stalled,
)
from story_judge import judge, told_by
from story_stages import AsyncStage, Clients, Stage, headers_for
from test_stories_told import late

import lastchunk
from lastchunk.simulator import Script

WAYS = (
    Story("whole"),
    Story("one_piece", request=plain(CHAT)),
    Story("closed", "W25", script=stalled("mid"), leave=Leave.CLOSE, rows=(LEFT,)),
    Story("dropped", "W25", script=stalled("mid"), leave=Leave.DROP, rows=(LEFT,)),
    Story("cut", "W11", script=broken("eof"), rows=(CUT,), error="APIConnectionError"),
    Story("gzip", "W28", asking(CHAT), Script(gzip="forced")),
    Story("response", "W7", RESPONSES),
    Story("late_usage", "W23", leave=Leave.CLOSE, retold=late),
)
each_way = pytest.mark.parametrize("story", WAYS, ids=lambda story: story.claim)


@each_way
def test_a_legacy_httpx_client_is_metered(story, scenery, in_process):
    url = scenery.sim.base_url
    with openai.OpenAI(api_key="none", base_url=url, http_client=httpx.Client()) as client:
        lastchunk.instrument(client, ledger=str(in_process))
        tape = client.with_options(base_url=f"{scenery.tape.url}/v1")
        stage = Stage("sync", scenery, in_process, Clients(client, tape))
        judge(story, "sync", stage.play(story))
        stage.close()


def play_async(story, make_client, scenery, in_process):
    with asyncio.Runner() as runner:

        async def open_client() -> openai.AsyncOpenAI:
            return lastchunk.instrument(make_client(), ledger=str(in_process))

        client = runner.run(open_client())
        tape = client.with_options(base_url=f"{scenery.tape.url}/v1")
        stage = AsyncStage(scenery, in_process, Clients(client, tape), runner)
        outcome = stage.play(story)
        runner.run(client.close())
        stage.close()
        return outcome


@each_way
def test_a_legacy_async_httpx_client_is_metered(story, scenery, in_process):
    def make() -> openai.AsyncOpenAI:
        url = scenery.sim.base_url
        return openai.AsyncOpenAI(api_key="n", base_url=url, http_client=httpx.AsyncClient())

    judge(story, "async", play_async(story, make, scenery, in_process))


@each_way
def test_the_aiohttp_client_is_metered(story, scenery, in_process):
    def make() -> openai.AsyncOpenAI:
        url = scenery.sim.base_url
        http = openai.DefaultAioHttpClient()
        return openai.AsyncOpenAI(api_key="n", base_url=url, http_client=http)

    judge(story, "async", play_async(story, make, scenery, in_process))


AZURE = (
    Story("whole", "W2", script=Script(azure=True)),
    Story("one_piece", "W2", plain(CHAT), Script(azure=True)),
    Story("closed", "W2", CHAT, stalled("mid", azure=True), Leave.CLOSE, rows=(LEFT,)),
)


@pytest.mark.parametrize("story", AZURE, ids=lambda story: story.claim)
@pytest.mark.parametrize("way", ["sync", "gateway"])
def test_an_azure_client_is_metered(story, way, scenery, in_process, request):
    outer = request.getfixturevalue(f"{way}_stage")
    root = scenery.sim.url if way == "sync" else str(outer.clients.of_sim.base_url).split("/v1")[0]
    azure = openai.AzureOpenAI(api_key="none", azure_endpoint=root, api_version="2024-10-21")
    if way == "sync":
        lastchunk.instrument(azure, ledger=str(in_process))
    stage = type(outer)(way, scenery, in_process, Clients(azure, azure))
    stage._reader, own = outer._reader, stage._reader
    own.close()
    judge(story, way, stage.play(story))
    azure.close()


# The bytes themselves.

WIRES = (
    Story("lf"),
    Story("asked", request=asking(CHAT)),
    Story("crlf", script=Script(framing="crlf")),
    Story("tight", script=Script(framing="tight", keep_alive_every=3)),
    Story("tiny_packets", script=Script(language="emoji", packet_bytes=5)),
    Story("gzip", script=Script(gzip="forced")),
    Story("usage_elsewhere", script=Script(usage_style="on_finish_chunk")),
    Story("azure", script=Script(azure=True, azure_async_filter=True)),
    Story("garbage", script=broken("garbage")),
    Story("completions", request=COMPLETIONS),
    Story("responses", request=RESPONSES),
    Story("one_piece", request=plain(CHAT)),
)


def bytes_for_caller(story: Story, bill) -> bytes:
    frames = told_by(story, number=bill.call, created=int(bill.at)).outgoing.frames
    hidden = () if story.asked_for_usage else ("usage",)
    return b"".join(frame.data for frame in frames if frame.kind not in hidden)


def _creating(client, story):
    return {
        "chat/completions": client.chat.completions,
        "responses": client.responses,
        "completions": client.completions,
    }[story.endpoint].with_streaming_response.create


@pytest.mark.parametrize("story", WIRES, ids=lambda story: story.claim)
@pytest.mark.parametrize("stage", ["sync", "gateway"])
def test_the_callers_bytes_are_the_providers(story, stage, request):
    stage = request.getfixturevalue(f"{stage}_stage")
    tag = f"bytes-{stage.name}-{story.claim}"
    headers = headers_for(story, tag)
    with _creating(stage.clients.of_sim, story)(**story.request, extra_headers=headers) as answer:
        got = b"".join(answer.iter_bytes())
        assert answer.headers["x-lastchunk-call-id"].startswith("call_")
    (bill,) = stage.sim.billed(tag)
    assert got == bytes_for_caller(story, bill)


@pytest.mark.parametrize("story", WIRES, ids=lambda story: story.claim)
def test_the_async_callers_bytes_are_the_providers(story, async_stage):
    tag = f"bytes-async-{story.claim}"

    async def reading() -> bytes:
        creating = _creating(async_stage.clients.of_sim, story)
        async with creating(**story.request, extra_headers=headers_for(story, tag)) as answer:
            return b"".join([piece async for piece in answer.iter_bytes()])

    got = async_stage._runner.run(reading())
    (bill,) = async_stage.sim.billed(tag)
    assert got == bytes_for_caller(story, bill)


# The SDK's helpers.


class Weather(pydantic.BaseModel):
    place: str
    days: int


def settled_in(stage: Stage, tag: str) -> Row:
    (account,) = stage.accounts(tag, 1)
    usage = account.settlement.usage
    return Row(account.settlement.ending, usage.output_tokens.basis)


@pytest.mark.parametrize("limit", [None, 6])
def test_the_stream_helper_gets_its_usage_although_it_raises_at_the_finish(limit, sync_stage):
    """`.stream()` raises at a `length` finish, before the usage chunk: the grace read gets it."""
    tag = f"helper-{limit}"
    story = Story("helper", "W23")
    limits = {} if limit is None else {"max_tokens": limit}
    asked = {key: CHAT[key] for key in ("model", "messages")}
    client = sync_stage.clients.of_sim
    with lastchunk.watch(), lastchunk.label(story=tag):
        streaming = client.chat.completions.stream(
            **asked, **limits, response_format=Weather, extra_headers=headers_for(story, tag)
        )
        try:
            with streaming as events:
                kinds = [event.type for event in events]
            assert limit is None
            assert "chunk" in kinds
        except openai.LengthFinishReasonError:
            assert limit is not None
    assert settled_in(sync_stage, tag) == REPORTED


@pytest.mark.parametrize("limit", [None, 6])
def test_parse_is_reported_although_it_raises(limit, sync_stage):
    tag = f"parse-{limit}"
    limits = {} if limit is None else {"max_tokens": limit}
    asked = {key: CHAT[key] for key in ("model", "messages")}
    headers = headers_for(Story("parse"), tag)
    with lastchunk.watch(), lastchunk.label(story=tag):
        parse = sync_stage.clients.of_sim.chat.completions.parse
        try:
            parse(**asked, **limits, response_format=Weather, extra_headers=headers)
            assert limit is None
        except openai.LengthFinishReasonError:
            assert limit is not None
    assert settled_in(sync_stage, tag) == REPORTED


def test_the_helper_of_responses_is_reported(sync_stage):
    tag = "responses-helper"
    headers = headers_for(Story("helper", request=RESPONSES), tag)
    asked = {key: RESPONSES[key] for key in ("model", "input")}
    with lastchunk.watch(), lastchunk.label(story=tag):
        with sync_stage.clients.of_sim.responses.stream(**asked, extra_headers=headers) as events:
            response = events.get_final_response()
    (bill,) = sync_stage.sim.billed(tag)
    assert response.usage.output_tokens == bill.output_tokens
    assert settled_in(sync_stage, tag) == REPORTED


def test_the_raw_response_tells_its_call(sync_stage):
    tag = "raw"
    create = sync_stage.clients.of_sim.chat.completions.with_raw_response.create
    with lastchunk.watch(), lastchunk.label(story=tag):
        raw = create(**CHAT, extra_headers=headers_for(Story("raw"), tag))
        assert sum(1 for _ in raw.parse()) > 2
    (account,) = sync_stage.accounts(tag, 1)
    assert account.settlement.call_id == raw.headers["x-lastchunk-call-id"]
    assert settled_in(sync_stage, tag) == REPORTED


@pytest.mark.parametrize("stage", SOCKETS)
def test_what_only_looks_at_a_response_is_no_call(stage, request):
    """W31: retrieving a stored response tells its usage again, and costs nothing."""
    stage = request.getfixturevalue(f"{stage}_stage")
    tag = f"{stage.name}-looks"
    responses = stage.clients.of_sim.with_options(
        default_headers={"x-lastchunk-tags": f"story={tag}"}
    ).responses
    looking = (
        lambda: responses.retrieve("resp_1"),
        lambda: responses.input_tokens.count(model="gpt-4o", input="x"),
    )

    async def answered(ask) -> None:
        answer = ask()
        if stage.name == "async":
            await answer

    async def look() -> None:
        for ask in looking:
            with lastchunk.label(story=tag), pytest.raises(openai.NotFoundError):
                await answered(ask)

    asyncio.run(look()) if stage.name != "async" else stage._runner.run(look())
    assert stage.accounts(tag, 0) == []
