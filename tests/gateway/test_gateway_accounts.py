"""The usage chunk, the labels, the call id, retries: the real openai client through the gateway."""

import asyncio
import gzip
import json
import zlib
from typing import Any

import openai
import pytest
from gateway_stage import ASKED, CHAT, STREAMED, Behind, Stage, body_of, sse
from raw_http import Heard, answer_bytes, chunked, exchange, raw_upstream, stream_head

from lastchunk.meter.ending import Ending
from lastchunk.simulator import Fault, Script
from lastchunk.usage import Basis

TEXT = sse({"choices": [{"index": 0, "delta": {"content": "hi"}}]})
FINISH = sse({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
USAGE = sse({"choices": [], "usage": {"prompt_tokens": 9, "completion_tokens": 3}})
DONE = b"data: [DONE]\n\n"
MESSAGES: Any = CHAT["messages"]


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("endpoint", ["chat", "completions", "responses"])
def test_the_openai_client_is_metered_exactly(stage: Stage, endpoint: str, streamed: bool) -> None:
    with stage.client(script=Script(output_tokens=25, reasoning_tokens=10)) as client:
        calls: Any = {
            "chat": lambda **o: client.chat.completions.create(messages=MESSAGES, **o),
            "completions": lambda **o: client.completions.create(prompt="hello", **o),
            "responses": lambda **o: client.responses.create(input="hello", **o),
        }
        answer = calls[endpoint](model="gpt-4o", stream=streamed)
        if streamed:
            assert len(list(answer)) > 20
    billed = stage.billed()[0]
    row = stage.row()
    assert row.settlement is not None
    usage = row.settlement.usage
    assert row.settlement.ending is Ending.COMPLETED
    assert usage.input_tokens.best == billed.prompt_tokens
    assert usage.output_tokens.best == billed.output_tokens
    assert usage.output_tokens.basis is Basis.REPORTED
    assert row.call.way == "gateway"
    assert row.settlement.observation.response_id == billed.response_id


def test_the_async_client_is_metered_too(stage: Stage) -> None:
    async def ask() -> list[Any]:
        async with stage.async_client() as client:
            stream = await client.chat.completions.create(
                model="gpt-4o", messages=MESSAGES, stream=True
            )
            return [chunk async for chunk in stream]

    assert [chunk.usage for chunk in asyncio.run(ask())][-1] is None
    assert stage.row().settlement.ending is Ending.COMPLETED  # type: ignore[union-attr]


def test_the_usage_chunk_is_hidden_from_who_did_not_ask(behind: Behind) -> None:
    with raw_upstream(stream_head() + chunked(TEXT, FINISH, USAGE, DONE)) as upstream:
        stage = behind(upstream.url)
        raw = body_of(STREAMED)
        headers = stage.headers | {
            "Accept-Encoding": "gzip, br",
            "Content-Type": "application/json",
        }
        told = exchange(stage.gateway.port, "POST", "/v1/chat/completions", headers, raw)
        heard = upstream.heard[0]
    assert told.body == TEXT + FINISH + DONE
    asked = b',"stream_options":{"continuous_usage_stats":true,"include_usage":true}}'
    assert heard.body == raw[:-1] + asked
    assert heard.header("content-length") == str(len(heard.body))
    assert heard.all("accept-encoding") == ["identity"]
    assert stage.row().settlement.usage.output_tokens.best == 3  # type: ignore[union-attr]


def test_the_usage_chunk_is_kept_for_who_asked(behind: Behind) -> None:
    with raw_upstream(stream_head() + chunked(TEXT, FINISH, USAGE, DONE)) as upstream:
        stage = behind(upstream.url)
        raw = body_of(ASKED)
        told = exchange(stage.gateway.port, "POST", "/v1/chat/completions", stage.headers, raw)
        asked = json.loads(upstream.heard[0].body)
    assert asked.pop("stream_options") == {"include_usage": True, "continuous_usage_stats": True}
    assert asked == {name: value for name, value in ASKED.items() if name != "stream_options"}
    assert told.body == TEXT + FINISH + USAGE + DONE
    stage.row()


def test_a_stream_compressed_all_the_same_is_undone_to_take_the_chunk_out(behind: Behind) -> None:
    packed = gzip.compress(TEXT + FINISH + USAGE + DONE)
    head = stream_head(("Content-Encoding", "gzip"))
    with raw_upstream(head + chunked(packed[:30], packed[30:])) as upstream:
        stage = behind(upstream.url)
        raw = body_of(STREAMED)
        told = exchange(stage.gateway.port, "POST", "/v1/chat/completions", stage.headers, raw)
    assert told.header("content-encoding") is None
    assert told.body == TEXT + FINISH + DONE
    assert stage.row().settlement.usage.output_tokens.best == 3  # type: ignore[union-attr]


def test_an_encoding_nobody_here_knows_passes_as_it_is(behind: Behind) -> None:
    odd = b"\x07odd bytes" * 100
    head = stream_head(("Content-Encoding", "x-odd"))
    with raw_upstream(head + chunked(odd)) as upstream:
        stage = behind(upstream.url)
        raw = body_of(STREAMED)
        told = exchange(stage.gateway.port, "POST", "/v1/chat/completions", stage.headers, raw)
    assert (told.whole, told.body, told.header("content-encoding")) == (True, odd, "x-odd")
    row = stage.row()
    assert row.settlement is not None
    assert "undecodable_encoding" in row.settlement.observation.faults


def test_compressed_bytes_that_turn_into_garbage_are_a_cut(behind: Behind) -> None:
    packer = zlib.compressobj(wbits=31)
    packed = packer.compress(TEXT) + packer.flush(zlib.Z_SYNC_FLUSH)
    head = stream_head(("Content-Encoding", "gzip"))
    with raw_upstream(head + chunked(packed, b"\xff" * 50)) as upstream:
        stage = behind(upstream.url)
        raw = body_of(STREAMED)
        told = exchange(stage.gateway.port, "POST", "/v1/chat/completions", stage.headers, raw)
    assert not told.whole
    assert TEXT.startswith(told.body)
    assert stage.row().settlement.ending is Ending.UPSTREAM_CUT  # type: ignore[union-attr]


def test_a_json_answer_to_a_stream_request_passes_unchanged(behind: Behind) -> None:
    body = b'{"id":"c","choices":[],"usage":{"prompt_tokens":9,"completion_tokens":0}}'
    headers = [("Content-Type", "application/json")]
    with raw_upstream(answer_bytes(body, headers=headers)) as upstream:
        stage = behind(upstream.url)
        raw = body_of(STREAMED)
        told = exchange(stage.gateway.port, "POST", "/v1/chat/completions", stage.headers, raw)
    assert (told.body, told.header("content-length")) == (body, str(len(body)))
    stage.row()


# An upstream that does not know `stream_options`.


@pytest.mark.parametrize("packed", [False, True], ids=["plain", "gzip"])
def test_a_refusal_to_be_asked_is_retried_once_and_remembered(behind: Behind, packed: bool) -> None:
    error = b'{"error":{"message":"Unrecognized request argument supplied: stream_options"}}'
    encoding = [("Content-Encoding", "gzip")] if packed else []

    def answer(connection: Any, heard: Heard) -> None:
        if b"stream_options" in heard.body:
            told = gzip.compress(error) if packed else error
            connection.sendall(answer_bytes(told, "400 Bad Request", encoding))
        else:
            connection.sendall(stream_head() + chunked(TEXT, FINISH, DONE))

    with raw_upstream(answer) as upstream:
        stage = behind(upstream.url)
        raw = body_of(STREAMED)
        for _ in range(2):
            told = exchange(stage.gateway.port, "POST", "/v1/chat/completions", stage.headers, raw)
            assert (told.status, told.body) == (200, TEXT + FINISH + DONE)
        asked = [b"stream_options" in heard.body for heard in upstream.heard]
    assert asked == [True, False, False]
    first, second, third = stage.rows(3)
    assert first.settlement is not None
    assert first.settlement.ending is Ending.REFUSED
    assert second.call.attempt_of == first.call_id
    assert third.call.attempt_of is None


def test_a_caller_who_asked_itself_gets_the_refusal(behind: Behind) -> None:
    error = b'{"error":{"message":"Unrecognized request argument supplied: stream_options"}}'
    with raw_upstream(answer_bytes(error, "400 Bad Request")) as upstream:
        stage = behind(upstream.url)
        raw = body_of(ASKED)
        told = exchange(stage.gateway.port, "POST", "/v1/chat/completions", stage.headers, raw)
        assert len(upstream.heard) == 1
    assert (told.status, told.body) == (400, error)
    stage.row()


# Who spends.


def test_labels_come_by_headers_and_go_no_further(behind: Behind) -> None:
    ok = answer_bytes(b"{}", headers=[("Content-Type", "application/json")])
    with raw_upstream(ok) as upstream:
        stage = behind(upstream.url)
        headers = stage.headers | {"x-lastchunk-tags": "team=search, env = prod,broken,=x,a=b=c"}
        raw = body_of(CHAT)
        told = exchange(stage.gateway.port, "POST", "/v1/chat/completions", headers, raw)
        arrived = [name.lower() for name, _ in upstream.heard[0].headers]
    row = stage.row()
    assert row.call.account == stage.name
    assert row.call.tags == (("a", "b=c"), ("env", "prod"), ("team", "search"))
    assert told.header("x-lastchunk-call-id") == row.call_id
    assert [name for name in arrived if name.startswith("x-lastchunk")] == []


def test_the_gateways_own_account_is_the_default(behind: Behind, stage: Stage) -> None:
    with raw_upstream(answer_bytes(b"{}")) as upstream:
        mine = behind(upstream.url, account=stage.name)
        exchange(mine.gateway.port, "POST", "/v1/chat/completions", {}, body_of(CHAT))
    assert stage.row().call.account == stage.name


def test_odd_labels_are_bounded_and_storable(behind: Behind) -> None:
    with raw_upstream(answer_bytes(b"{}")) as upstream:
        stage = behind(upstream.url)
        long, tags = "k" * 300, ",".join(f"t{number}=v" for number in range(40))
        headers = stage.headers | {"x-lastchunk-tags": f"{long}={long},bad\xff=\xfe,{tags}"}
        raw = body_of(CHAT)
        told = exchange(stage.gateway.port, "POST", "/v1/chat/completions", headers, raw)
    assert told.status == 200
    row = stage.row()
    assert len(row.call.tags) == 16
    assert ("k" * 200, "k" * 200) in row.call.tags


def test_the_sdks_own_retries_are_attempts_of_one_call(stage: Stage) -> None:
    script = Script(fault=Fault("http_500", count=2))
    with stage.client(script=script, max_retries=2) as client:
        told = client.chat.completions.with_raw_response.create(model="gpt-4o", messages=MESSAGES)
    rows = stage.rows(3)
    assert [row.call.attempt_of for row in rows] == [None, rows[0].call_id, rows[0].call_id]
    endings = [row.settlement.ending for row in rows]  # type: ignore[union-attr]
    assert endings == [Ending.UPSTREAM_FAILED, Ending.UPSTREAM_FAILED, Ending.COMPLETED]
    assert told.headers["x-lastchunk-call-id"] == rows[2].call_id


def test_equal_calls_of_two_clients_are_not_each_others_retries(stage: Stage) -> None:
    script = Script(fault=Fault("http_500", count=1))
    for key in ("sk-one", "sk-two"):
        with stage.client(script=script, api_key=key, max_retries=1) as client:
            client.chat.completions.create(model="gpt-4o", messages=MESSAGES)
    one, one_again, two, two_again = stage.rows(4)
    assert (one_again.call.attempt_of, two_again.call.attempt_of) == (one.call_id, two.call_id)


def test_an_error_of_the_gateway_is_one_the_sdk_reads(behind: Behind) -> None:
    stage = behind("http://127.0.0.1:9")
    with stage.client() as client, pytest.raises(openai.APIStatusError) as caught:
        client.chat.completions.create(model="gpt-4o", messages=MESSAGES)
    assert caught.value.status_code == 502
    assert caught.value.code == "upstream_unreachable"
    stage.row()


# Health.


def test_healthz_tells_what_is_open_and_what_was_not_metered(behind: Behind) -> None:
    with raw_upstream(answer_bytes(b"{}")) as upstream:
        port = behind(upstream.url).gateway.port
        for path, body in (("/v1/chat/completions", b"no json"), ("/v1/embeddings", b"{}")):
            exchange(port, "POST", path, {}, body)
        told = exchange(port, "GET", "/healthz")
        assert len(upstream.heard) == 2
    assert told.status == 200
    status = json.loads(told.body)
    assert (status["status"], status["unmetered_requests"]) == ("ok", 1)
    assert status["open_calls"] >= 0


def test_netrc_is_not_read_for_the_upstream(
    behind: Behind, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The operator's own login is not lent to callers, nor does it clash with theirs."""
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login operator password secret\n")
    monkeypatch.setenv("NETRC", str(netrc))
    with raw_upstream(answer_bytes(b"{}")) as upstream:
        port = behind(upstream.url).gateway.port
        answers = [
            exchange(port, "GET", "/v1/models", headers)
            for headers in ({}, {"Authorization": "Bearer sk-1"})
        ]
        told = [heard.header("authorization") for heard in upstream.heard]
    assert [answer.status for answer in answers] == [200, 200]
    assert told == [None, "Bearer sk-1"]


def test_the_proxy_of_the_environment_is_used(
    behind: Behind, monkeypatch: pytest.MonkeyPatch
) -> None:
    with raw_upstream(answer_bytes(b"{}")) as proxy:
        monkeypatch.setenv("http_proxy", proxy.url)
        monkeypatch.setenv("no_proxy", "")
        port = behind("http://provider.test/v1").gateway.port
        assert exchange(port, "GET", "/v1/models").status == 200
        heard = proxy.heard[0]
    assert heard.line == "GET http://provider.test/v1/models HTTP/1.1"
    assert heard.header("host") == "provider.test"
