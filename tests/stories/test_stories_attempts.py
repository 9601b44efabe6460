"""Calls of several attempts, and calls that never leave: each attempt is a row of its own."""

from __future__ import annotations

import asyncio
import socket
from dataclasses import replace

import openai
import pytest
from story import (
    CHAT,
    COMPLETED_COUNTED,
    REFUSED,
    REPORTED,
    RESPONSES,
    SOCKETS,
    Row,
    Story,
    asking,
    broken,
    plain,
    played,
)
from story_judge import judge
from story_stages import headers_for, read_async, read_sync, running_gateway

import lastchunk
from lastchunk.ledger import Reader
from lastchunk.ledger.entries import EntryKind
from lastchunk.meter.ending import Ending
from lastchunk.simulator import Fault, Script
from lastchunk.usage import Basis

NO_ANSWER = Row(Ending.UPSTREAM_CUT, Basis.ASSUMED)
SERVER_ERROR = Row(Ending.UPSTREAM_FAILED, Basis.BOUNDED)


def again(claim: str, fault: str, *rows: Row, request=CHAT, **fields) -> Story:
    """The first attempts fail, the SDK tries again."""
    script = Script(fault=Fault(fault, count=len(rows) - 1))
    fields = {"stages": SOCKETS, **fields}
    return Story(claim, "W24", request, script, rows=rows, retries=len(rows) - 1, **fields)


RETRIES = (
    again("a_reset_before_the_headers", "rst_before_headers", NO_ANSWER, REPORTED),
    again("two_resets", "rst_before_headers", NO_ANSWER, NO_ANSWER, REPORTED, stages=("sync",)),
    again("a_reset_of_a_response", "rst_before_headers", NO_ANSWER, REPORTED, request=RESPONSES),
    again("too_many_requests", "http_429", REFUSED, REFUSED, REPORTED),
    again("too_many_in_one_piece", "http_429", REFUSED, REPORTED, request=plain(CHAT)),
    again("a_server_error", "http_500", SERVER_ERROR, REPORTED),
)


@pytest.mark.parametrize(("story", "stage"), played(*RETRIES))
def test_each_attempt_of_the_sdk_is_a_row_linked_to_the_first(story, stage, play):
    judge(story, stage, play(story, stage))


# A model of its own for each stage: what is learned of a model is remembered.
KNOWS_NO_OPTIONS = {"sync": "gpt-4.1", "async": "gpt-4.1-mini", "gateway": "gpt-4o-mini"}


@pytest.mark.parametrize("stage", SOCKETS)
def test_an_upstream_that_refuses_to_be_asked_is_asked_without_and_remembered(stage, play):
    request = {**CHAT, "model": KNOWS_NO_OPTIONS[stage]}
    script = broken("reject_stream_options")
    first = Story("refused", "W27", request, script, rows=(REFUSED, COMPLETED_COUNTED))
    judge(first, stage, play(first, stage))
    second = replace(first, rows=(COMPLETED_COUNTED,))
    judge(second, stage, play(second, stage))


@pytest.mark.parametrize("stage", SOCKETS)
def test_a_caller_who_asks_itself_gets_the_refusal(stage, play):
    story = Story(
        "refused",
        "W27",
        asking({**CHAT, "model": "gpt-5-mini"}),
        broken("reject_stream_options"),
        rows=(REFUSED,),
        error="BadRequestError",
    )
    judge(story, stage, play(story, stage))


def closed_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


UNSENT = Story("connection_refused")


def assert_never_sent(ledger: str) -> None:
    with Reader.open(ledger) as reader:
        (call,) = reader.calls()
    assert call.settlement.ending is Ending.NEVER_SENT
    assert [entry.kind for entry in call.entries] == [EntryKind.RESERVED, EntryKind.RELEASED]


def test_a_refused_connection_is_released_as_never_sent(tmp_path):
    ledger = str(tmp_path / "unsent.db")
    url = f"http://127.0.0.1:{closed_port()}/v1"
    with openai.OpenAI(api_key="none", base_url=url) as client, lastchunk.watch():
        lastchunk.instrument(client, ledger=ledger)
        error = read_sync(client, UNSENT, headers_for(UNSENT, "t"), [])
    assert error == "APIConnectionError"
    assert_never_sent(ledger)


def test_a_refused_connection_of_an_async_client_is_released_as_never_sent(tmp_path):
    ledger = str(tmp_path / "unsent.db")
    url = f"http://127.0.0.1:{closed_port()}/v1"

    async def calling() -> str | None:
        async with openai.AsyncOpenAI(api_key="none", base_url=url) as client, lastchunk.watch():
            lastchunk.instrument(client, ledger=ledger)
            return await read_async(client, UNSENT, headers_for(UNSENT, "t"), [])

    assert asyncio.run(calling()) == "APIConnectionError"
    assert_never_sent(ledger)


def test_a_refused_connection_behind_the_gateway_is_released_as_never_sent(tmp_path):
    ledger = tmp_path / "unsent.db"
    with running_gateway(f"http://127.0.0.1:{closed_port()}", ledger) as url:
        with openai.OpenAI(api_key="none", base_url=url) as client:
            error = read_sync(client, UNSENT, headers_for(UNSENT, "t"), [])
    assert error == "InternalServerError"  # the gateway's own 502
    assert_never_sent(str(ledger))


def test_a_silent_upstream_is_timed_out_by_the_gateway(tmp_path, scenery):
    """The gateway's own patience: what its upstream owes is counted, its caller sees a cut."""
    ledger = tmp_path / "silent.db"
    story = Story("stalled", "W11", script=broken("stall"))
    with running_gateway(scenery.sim.url, ledger, read_seconds=0.5) as url:
        with openai.OpenAI(api_key="none", base_url=url) as client:
            error = read_sync(client, story, headers_for(story, "silent"), [])
    assert error == "APIConnectionError"
    with Reader.open(str(ledger)) as reader:
        (call,) = reader.calls()
    (bill,) = scenery.sim.billed("silent")
    output = call.settlement.usage.output_tokens
    assert call.settlement.ending is Ending.UPSTREAM_TIMEOUT
    assert output.low <= bill.output_tokens <= output.high


def test_an_upstream_without_headers_is_timed_out_by_the_gateway(tmp_path, scenery):
    ledger = tmp_path / "silent.db"
    story = Story("stalled", "W11", script=broken("stall_before_headers"))
    with running_gateway(scenery.sim.url, ledger, read_seconds=0.5) as url:
        with openai.OpenAI(api_key="none", base_url=url) as client:
            error = read_sync(client, story, headers_for(story, "mute"), [])
    assert error == "InternalServerError"  # the gateway's own 504
    with Reader.open(str(ledger)) as reader:
        (call,) = reader.calls()
    (bill,) = scenery.sim.billed("mute")
    usage = call.settlement.usage
    assert call.settlement.ending is Ending.UPSTREAM_TIMEOUT
    assert usage.input_tokens.low <= bill.prompt_tokens <= usage.input_tokens.high
    assert usage.output_tokens.low <= bill.output_tokens <= usage.output_tokens.high
