"""Exact mode through the gateway: the real SDK sees the stream it asked for, the row the usage."""

import asyncio
import json
import socket
import time
from typing import Any

import openai
import pytest
from gateway_stage import ASKED, CHAT, STREAMED, Behind, Stage, body_of
from raw_http import answer_bytes, chunked, exchange, raw_upstream

from lastchunk import Basis, Ending
from lastchunk.gateway import exact as exact_mode
from lastchunk.ledger import CallFilter, CallRecord
from lastchunk.pricing.book import PriceBook
from lastchunk.reports.explain import explain_tables
from lastchunk.simulator import Fault, Script

EXACT = {"x-lastchunk-usage": "exact"}
TOOLS: list[dict[str, Any]] = [
    {
        "type": "function",
        "function": {
            "name": "get_weather",
            "strict": True,
            "parameters": {
                "type": "object",
                "properties": {"place": {"type": "string"}, "days": {"type": "integer"}},
                "required": ["place", "days"],
                "additionalProperties": False,
            },
        },
    }
]
SCHEMA = {
    "type": "json_schema",
    "json_schema": {
        "name": "trip",
        "schema": {"type": "object", "properties": {"city": {"type": "string"}}},
    },
}


def assert_exact(row: CallRecord, output_tokens: int) -> None:
    assert row.settlement is not None
    assert row.call.request.exact
    assert not row.call.request.stream
    assert row.settlement.ending == Ending.COMPLETED
    assert row.settlement.usage.basis == Basis.REPORTED
    assert row.settlement.usage.output_tokens is not None
    assert row.settlement.usage.output_tokens.best == output_tokens


def without_order(value: Any) -> Any:
    """What must not differ: ids and times are each call's own, null is as good as absent."""
    if isinstance(value, dict):
        own = ("id", "created", "created_at", "item_id", "call_id", "completed_at")
        kept = {k: without_order(v) for k, v in value.items() if k not in own}
        return {k: v for k, v in kept.items() if v is not None and v != []}
    return [without_order(item) for item in value] if isinstance(value, list) else value


CHATS: list[tuple[Script, dict[str, Any]]] = [
    (Script(output_tokens=90), {}),
    (Script(output_tokens=40), {"n": 2, "stream_options": {"include_usage": True}}),
    (Script(kind="tool_call"), {"tools": TOOLS}),
    (Script(kind="parallel_calls"), {"tools": TOOLS}),
    (Script(kind="mixed", output_tokens=60), {"tools": TOOLS}),
    (Script(kind="refusal", output_tokens=30), {}),
    (Script(reasoning_tokens=60, reasoning_shown="reasoning_content"), {}),
    (Script(output_tokens=30), {"response_format": SCHEMA}),
    (Script(azure=True, output_tokens=50), {}),
    (Script(logprobs=True, output_tokens=50), {"logprobs": True}),
    (Script(kind="function_call"), {}),
]


@pytest.mark.parametrize(("script", "options"), CHATS)
def test_the_sdk_accumulates_the_same_chat(
    stage: Stage, script: Script, options: dict[str, Any]
) -> None:
    made: list[Any] = []
    for headers in ({}, EXACT):
        with (
            stage.client(script=script) as client,
            client.chat.completions.stream(**CHAT, **options, extra_headers=headers) as stream,
        ):
            kinds = {event.type for event in stream}
            final = stream.get_final_completion().model_dump(exclude={"choices": {"__all__": {}}})
            choices = [c.model_dump() for c in stream.current_completion_snapshot.choices]
        for choice in choices:
            choice.pop("content_filter_results", None)  # of the first chunk, in the SDK's snapshot
        made.append((kinds, without_order(final), without_order(choices)))
    assert made[1] == made[0]
    streamed, exact = stage.rows(2)
    assert not streamed.call.request.exact
    assert_exact(exact, stage.billed(2)[1].output_tokens)


def test_custom_tools_come_in_the_same_chunks(stage: Stage) -> None:
    made: list[dict[str, str]] = []
    tools: Any = [{"type": "custom", "custom": {"name": "run"}}]
    for headers in ({}, EXACT):
        told = {"name": "", "input": ""}
        with stage.client(script=Script(kind="custom_tool", output_tokens=80)) as client:
            for chunk in client.chat.completions.create(
                **CHAT, stream=True, tools=tools, extra_headers=headers
            ):
                for call in chunk.choices[0].delta.tool_calls or []:
                    custom = call.model_dump().get("custom") or {}
                    told["name"] += custom.get("name") or ""
                    told["input"] += custom.get("input") or ""
        made.append(told)
    assert made[0] == made[1]
    assert made[1]["input"]
    stage.rows(2)


RESPONSES: list[tuple[Script, dict[str, Any]]] = [
    (Script(output_tokens=90), {}),
    (Script(kind="tool_call"), {"tools": [{"type": "function", **TOOLS[0]["function"]}]}),
    (Script(kind="parallel_calls"), {"tools": [{"type": "function", **TOOLS[0]["function"]}]}),
    (Script(kind="refusal", output_tokens=20), {}),
    (Script(kind="custom_tool", output_tokens=20), {}),
    (Script(reasoning_tokens=40, reasoning_shown="summary"), {}),
    (Script(reasoning_tokens=40, reasoning_shown="reasoning_text"), {}),
]


@pytest.mark.parametrize(("script", "options"), RESPONSES)
def test_the_sdk_accumulates_the_same_response(
    stage: Stage, script: Script, options: dict[str, Any]
) -> None:
    made: list[Any] = []
    for headers in ({}, EXACT):
        with (
            stage.client(script=script) as client,
            client.responses.stream(
                model="gpt-4o", input="hello", extra_headers=headers, **options
            ) as stream,
        ):
            kinds = list(dict.fromkeys(event.type for event in stream))
            made.append((kinds, without_order(stream.get_final_response().model_dump())))
    assert made[1] == made[0]
    assert_exact(stage.rows(2)[1], stage.billed(2)[1].output_tokens)


def test_the_head_is_a_streams(stage: Stage) -> None:
    headers = stage.scripted(Script(output_tokens=5)) | EXACT
    told = exchange(stage.gateway.port, "POST", "/v1/chat/completions", headers, body_of(ASKED))
    assert told.header("content-type") == "text/event-stream; charset=utf-8"
    assert told.header("content-length") is None
    assert told.header("transfer-encoding") == "chunked"
    assert (told.header("x-request-id") or "").startswith("req_")
    assert told.header("x-lastchunk-usage") == "exact"
    assert told.body.endswith(b"data: [DONE]\n\n")
    row = stage.row()
    assert told.header("x-lastchunk-call-id") == row.call_id
    assert not stage.billed()[0].streamed


def test_the_header_stays_here_and_the_body_asks_for_no_stream(behind: Behind) -> None:
    whole = b'{"id":"c","object":"chat.completion","choices":[],"usage":{"prompt_tokens":1}}'
    with raw_upstream(answer_bytes(whole)) as upstream:
        stage = behind(upstream.url)
        headers = stage.headers | EXACT
        exchange(stage.gateway.port, "POST", "/v1/chat/completions", headers, body_of(ASKED))
        (heard,) = upstream.heard
    assert json.loads(heard.body) == CHAT
    assert heard.header("x-lastchunk-usage") is None
    stage.row()


def test_an_accounts_pattern_is_enough(behind: Behind, stage: Stage) -> None:
    assert stage.sim is not None
    own = behind(stage.sim.url, exact_accounts=("*",))
    with own.client(script=Script(output_tokens=5)) as client:
        list(client.chat.completions.create(**STREAMED))
        client.chat.completions.create(**CHAT)  # was never a stream
    streamed, whole = own.rows(2)
    assert (streamed.call.request.exact, whole.call.request.exact) == (True, False)


@pytest.mark.parametrize("fault", ["http_500", "http_429"])
def test_an_error_passes_unchanged(stage: Stage, fault: Any) -> None:
    headers = stage.scripted(Script(fault=Fault(fault))) | EXACT
    told = exchange(stage.gateway.port, "POST", "/v1/chat/completions", headers, body_of(STREAMED))
    assert told.status == int(fault.removeprefix("http_"))
    assert told.header("content-type") == "application/json"
    assert json.loads(told.body)["error"]["message"]
    assert told.header("retry-after-ms") == "1"
    assert stage.row().call.request.exact


@pytest.mark.parametrize(
    ("body", "kind"), [(b"<html>", "application/json"), (b"data: {}\n\n", "text/event-stream")]
)
def test_what_cannot_be_replayed_passes_as_it_is(behind: Behind, body: bytes, kind: str) -> None:
    with raw_upstream(answer_bytes(body, headers=[("Content-Type", kind)])) as upstream:
        stage = behind(upstream.url)
        headers = stage.headers | EXACT
        port = stage.gateway.port
        told = exchange(port, "POST", "/v1/chat/completions", headers, body_of(STREAMED))
    assert (told.status, told.body, told.header("content-type")) == (200, body, kind)
    assert told.header("x-lastchunk-usage") is None
    stage.row()


def test_an_answer_that_breaks_off_is_a_broken_stream(stage: Stage) -> None:
    script = Script(output_tokens=200, fault=Fault("rst", at="mid"))
    with stage.client(script=script) as client, pytest.raises(openai.APIConnectionError):
        list(client.chat.completions.create(**STREAMED, extra_headers=EXACT))
    settlement = stage.row().settlement
    assert settlement is not None
    assert settlement.ending == Ending.UPSTREAM_CUT


def test_comments_while_the_rest_is_waited_for_disturb_no_client(
    behind: Behind, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exact_mode, "KEEP_ALIVE_SECONDS", 0.05)
    message = {"role": "assistant", "content": "at last"}
    choice = {"index": 0, "message": message, "finish_reason": "stop"}
    whole = json.dumps({"id": "c", "model": "m", "created": 1, "choices": [choice]}).encode()
    head = (
        b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
    )

    def slowly(connection: socket.socket, _: Any) -> None:
        connection.sendall(head + chunked(whole[:10], end=False))
        time.sleep(0.4)
        connection.sendall(chunked(whole[10:]))

    with raw_upstream(slowly) as upstream:
        stage = behind(upstream.url)
        headers, port = stage.headers | EXACT, stage.gateway.port
        told = exchange(port, "POST", "/v1/chat/completions", headers, body_of(STREAMED))
        assert told.body.startswith(b": lastchunk waits for the whole answer\n\n")
        with stage.client() as client:
            chunks = list(client.chat.completions.create(**STREAMED, extra_headers=EXACT))
    assert "".join(c.choices[0].delta.content or "" for c in chunks) == "at last"
    stage.rows(2)


SLOW = Script(output_tokens=100, pacing_s=0.01)


def test_a_caller_that_leaves_is_billed_and_reported(stage: Stage) -> None:
    under_way = CallFilter(account=stage.name, open_only=True)

    async def leave() -> None:
        async with stage.async_client(script=SLOW) as client:
            call = client.chat.completions.create(**STREAMED, extra_headers=EXACT)
            task = asyncio.ensure_future(call)
            while not list(stage.reader.calls(under_way)):  # noqa: ASYNC110 - of another process
                await asyncio.sleep(0.01)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            assert task.cancelled()

    asyncio.run(leave())
    assert_exact(stage.row(), stage.billed()[0].output_tokens)
    assert stage.billed()[0].ended == "completed"


def test_reading_for_the_account_alone_has_an_end(
    behind: Behind, stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exact_mode, "MAX_LEFT", 0)
    with stage.client(script=SLOW, timeout=0.2) as client, pytest.raises(openai.APITimeoutError):
        client.chat.completions.create(**STREAMED, extra_headers=EXACT)
    settlement = stage.row().settlement
    assert settlement is not None
    assert settlement.ending == Ending.CALLER_LEFT
    told = settlement.usage.output_tokens
    assert told is not None
    assert told.low <= stage.billed()[0].output_tokens <= told.high


def test_a_graceful_stop_waits_for_what_its_caller_left(behind: Behind, stage: Stage) -> None:
    assert stage.sim is not None
    own = behind(stage.sim.url)
    script = Script(output_tokens=60, pacing_s=0.01)
    with own.client(script=script, timeout=0.2) as client, pytest.raises(openai.APITimeoutError):
        client.chat.completions.create(**STREAMED, extra_headers=EXACT)
    own.gateway.stop()
    assert_exact(own.row(), 60)


def test_a_stop_that_is_in_a_hurry_ends_it_at_the_limit(behind: Behind, stage: Stage) -> None:
    assert stage.sim is not None
    own = behind(stage.sim.url, stop_seconds=0.1, grace_seconds=0.1)
    script = Script(output_tokens=600, pacing_s=0.01)
    with own.client(script=script, timeout=0.2) as client, pytest.raises(openai.APITimeoutError):
        client.chat.completions.create(**STREAMED, extra_headers=EXACT)
    own.gateway.stop()
    settlement = own.row().settlement
    assert settlement is not None
    assert settlement.ending == Ending.LIMIT_REACHED


def test_explain_says_that_it_was_exact(stage: Stage) -> None:
    with stage.client(script=Script(output_tokens=5)) as client:
        list(client.chat.completions.create(**STREAMED, extra_headers=EXACT))
    row = stage.row()
    call = explain_tables(row, [row], PriceBook.load(None))[0]
    (cells,) = call.rows
    sent_to = [column.name for column in call.columns].index("upstream")
    assert str(cells[sent_to]).endswith(", chat, exact mode (replayed as a stream)")


def test_a_retry_of_an_exact_call_is_an_attempt_of_it(stage: Stage) -> None:
    script = Script(output_tokens=9, fault=Fault("http_500", count=1))
    with stage.client(script=script, max_retries=1) as client:
        list(client.chat.completions.create(**STREAMED, extra_headers=EXACT))
    first, second = stage.rows(2)
    assert second.call.attempt_of == first.call_id
    assert_exact(second, 9)
