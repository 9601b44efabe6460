"""The caller hangs up, at every stage and in every way: the upstream stops at once, one row."""

import asyncio
import socket
import time
from collections.abc import Callable
from typing import Any

import pytest
from aiohttp import web
from gateway_stage import ASKED, CHAT, STREAMED, Behind, Stage, body_of, sse, until
from raw_http import (
    Heard,
    Reading,
    chunked,
    connect,
    raw_upstream,
    request_bytes,
    reset,
    stream_head,
)

from lastchunk.meter.ending import Ending
from lastchunk.simulator import Fault, Script
from lastchunk.usage import Basis

LEAVING: dict[str, Callable[[socket.socket], None]] = {"fin": socket.socket.close, "rst": reset}
AT_ONCE_SECONDS = 1.0
"""Far less than what any of these streams would go on for."""

SLOW = Script(output_tokens=200, pacing_s=0.05, obfuscation=False)


def ask(stage: Stage, body: dict[str, Any], script: Script, path: str = "chat/completions") -> Any:
    connection = connect(stage.gateway.port)
    headers = stage.scripted(script) | {"Content-Type": "application/json"}
    connection.sendall(request_bytes("POST", f"/v1/{path}", headers, body_of(body)))
    return connection


def read_until(connection: socket.socket, mark: bytes) -> bytes:
    told = b""
    while mark not in told:
        piece = connection.recv(65_536)
        assert piece, f"{mark!r} never came, but {told[-300:]!r}"
        told += piece
    return told


@pytest.mark.parametrize("way", LEAVING)
def test_before_the_headers(stage: Stage, way: str) -> None:
    assert stage.sim is not None
    connection = ask(stage, STREAMED, Script(fault=Fault("stall_before_headers", seconds=30)))
    until(lambda: stage.sim.open_calls, "the call at the provider")  # type: ignore[union-attr]
    LEAVING[way](connection)
    left = time.monotonic()
    row = stage.row()
    stage.billed()
    assert time.monotonic() - left < AT_ONCE_SECONDS
    assert row.settlement is not None
    assert row.settlement.ending is Ending.CALLER_LEFT
    assert row.settlement.usage.output_tokens.basis is Basis.ASSUMED


@pytest.mark.parametrize("way", LEAVING)
@pytest.mark.parametrize("path", ["chat/completions", "completions", "responses"])
def test_before_the_first_chunk(stage: Stage, way: str, path: str) -> None:
    body = {"model": "gpt-4o", "stream": True, "prompt": "hello", "input": "hello"} | STREAMED
    connection = ask(stage, body, Script(first_token_delay_s=30), path)
    read_until(connection, b"\r\n\r\n")
    LEAVING[way](connection)
    left = time.monotonic()
    billed = stage.billed()[0]
    row = stage.row()
    assert time.monotonic() - left < AT_ONCE_SECONDS
    assert billed.ended == "client_gone"
    assert row.settlement is not None
    assert row.settlement.ending is Ending.CALLER_LEFT


@pytest.mark.parametrize("way", LEAVING)
@pytest.mark.parametrize("asks", [CHAT | {"stream": True}, ASKED], ids=["unasked", "asked"])
def test_in_the_middle(stage: Stage, way: str, asks: dict[str, Any]) -> None:
    connection = ask(stage, asks, SLOW)
    seen = b""
    while seen.count(b'"content"') < 6:
        seen += connection.recv(65_536)
    LEAVING[way](connection)
    left = time.monotonic()
    billed = stage.billed()[0]
    row = stage.row()
    assert time.monotonic() - left < AT_ONCE_SECONDS
    assert billed.ended == "client_gone"
    assert row.settlement is not None
    output = row.settlement.usage.output_tokens
    assert row.settlement.ending is Ending.CALLER_LEFT
    assert output.basis is Basis.COUNTED
    assert row.settlement.usage.input_tokens.best == billed.prompt_tokens
    assert output.low <= billed.output_tokens <= output.high
    assert 0 < output.best < 60


SLOW_WRITE_SECONDS = 0.2
TEXT = sse({"choices": [{"index": 0, "delta": {"content": "one two three"}}]})
FINISH = sse({"choices": [{"index": 0, "delta": {"content": "hi"}, "finish_reason": "stop"}]})
USAGE = sse({"choices": [], "usage": {"prompt_tokens": 9, "completion_tokens": 3}})


def finish_then_usage(pause: float) -> Callable[[socket.socket, Heard], bool]:
    def answer(connection: socket.socket, _: Heard) -> bool:
        connection.sendall(stream_head() + chunked(FINISH, end=False))
        time.sleep(pause)
        connection.sendall(chunked(USAGE, end=False))
        while connection.recv(1024):
            pass
        return False

    return answer


@pytest.mark.parametrize("way", LEAVING)
def test_between_finish_and_usage_the_gateway_reads_on(behind: Behind, way: str) -> None:
    with raw_upstream(finish_then_usage(0.2)) as upstream:
        stage = behind(upstream.url, grace_seconds=5.0)
        connection = connect(stage.gateway.port)
        raw = body_of(STREAMED)
        connection.sendall(request_bytes("POST", "/v1/chat/completions", stage.headers, raw))
        read_until(connection, b'"stop"')
        LEAVING[way](connection)
        row = stage.row()
        assert upstream.gone.wait(AT_ONCE_SECONDS)
    assert row.settlement is not None
    assert row.settlement.ending is Ending.COMPLETED
    usage = row.settlement.usage
    assert (usage.input_tokens.best, usage.output_tokens.best) == (9, 3)
    assert usage.output_tokens.basis is Basis.REPORTED


@pytest.mark.parametrize("grace_seconds", [0.0, 0.1])
def test_the_grace_read_is_short_or_not_at_all(behind: Behind, grace_seconds: float) -> None:
    with raw_upstream(finish_then_usage(1.0)) as upstream:
        stage = behind(upstream.url, grace_seconds=grace_seconds)
        connection = connect(stage.gateway.port)
        raw = body_of(STREAMED)
        connection.sendall(request_bytes("POST", "/v1/chat/completions", stage.headers, raw))
        read_until(connection, b'"stop"')
        left = time.monotonic()
        connection.close()
        row = stage.row()
        assert time.monotonic() - left < 0.9
    assert row.settlement is not None
    assert row.settlement.ending is Ending.CALLER_LEFT
    assert row.settlement.usage.output_tokens.basis is Basis.COUNTED


@pytest.mark.parametrize("way", LEAVING)
@pytest.mark.parametrize("mark", [b'"usage":{', b"data: [DONE]"], ids=["usage", "done"])
def test_after_the_usage_it_is_complete(stage: Stage, way: str, mark: bytes) -> None:
    connection = ask(stage, ASKED, Script(fault=Fault("hold_after_done", seconds=30)))
    read_until(connection, mark)
    LEAVING[way](connection)
    left = time.monotonic()
    row = stage.row()
    billed = stage.billed()[0]
    assert time.monotonic() - left < AT_ONCE_SECONDS
    assert row.settlement is not None
    assert row.settlement.ending is Ending.COMPLETED
    assert row.settlement.usage.output_tokens.best == billed.output_tokens
    assert row.settlement.usage.output_tokens.basis is Basis.REPORTED


@pytest.mark.parametrize("way", LEAVING)
def test_a_whole_answer_that_is_not_waited_for(stage: Stage, way: str) -> None:
    assert stage.sim is not None
    connection = ask(stage, CHAT, Script(first_token_delay_s=30))
    until(lambda: stage.sim.open_calls, "the call at the provider")  # type: ignore[union-attr]
    LEAVING[way](connection)
    left = time.monotonic()
    row = stage.row()
    stage.billed()
    assert time.monotonic() - left < AT_ONCE_SECONDS
    assert row.settlement is not None
    assert row.settlement.ending is Ending.CALLER_LEFT


def test_during_the_upload_nothing_is_opened(stage: Stage) -> None:
    with connect(stage.gateway.port) as connection:
        headers = stage.headers | {"Content-Length": "1000"}
        connection.sendall(request_bytes("POST", "/v1/chat/completions", headers, b'{"model"'))
        time.sleep(0.1)
    stage.rows(0)


def test_during_an_unmetered_stream_the_upstream_is_left_at_once(behind: Behind) -> None:
    def answer(connection: socket.socket, _: Heard) -> bool:
        connection.sendall(stream_head() + chunked(b"data: 1\n\n", end=False))
        while connection.recv(1024):
            pass
        return False

    with raw_upstream(answer) as upstream:
        connection = connect(behind(upstream.url).gateway.port)
        connection.sendall(request_bytes("GET", "/v1/responses/resp_1?stream=true"))
        read_until(connection, b"data: 1")
        connection.close()
        assert upstream.gone.wait(AT_ONCE_SECONDS)


def test_hang_ups_are_no_errors_in_the_log(stage: Stage, caplog: pytest.LogCaptureFixture) -> None:
    for leave in LEAVING.values():
        for _ in range(5):
            connection = ask(stage, STREAMED, Script(output_tokens=3000, obfuscation=False))
            read_until(connection, b'"content"')
            leave(connection)
    stage.rows(10)
    assert [told.message for told in caplog.records if told.levelname == "ERROR"] == []


def test_a_slow_reader_gets_every_byte_and_holds_the_upstream_back(behind: Behind) -> None:
    frame = b'data: {"choices":[{"index":0,"delta":{"content":"%s"}}]}\n\n' % (b"x" * 1_000_000)
    count, sent = 40, [0]

    def answer(connection: socket.socket, _: Heard) -> bool:
        connection.sendall(stream_head())
        for _ in range(count):
            connection.sendall(chunked(frame, end=False))
            sent[0] += 1
        connection.sendall(chunked(b"data: [DONE]\n\n"))
        return False

    with raw_upstream(answer) as upstream:
        stage = behind(upstream.url)
        with connect(stage.gateway.port) as connection:
            raw = body_of(ASKED)
            connection.sendall(request_bytes("POST", "/v1/chat/completions", stage.headers, raw))
            time.sleep(0.5)
            assert sent[0] < count * 0.9  # nobody holds what is not read
            told = Reading(connection).message(is_answer=True)
    assert told is not None
    assert told.whole
    assert told.body == frame * count + b"data: [DONE]\n\n"
    row = stage.row()
    assert row.settlement is not None
    assert row.settlement.ending is Ending.COMPLETED


@pytest.fixture
def slow_writes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each write to a caller takes long, as to a slow reader: more arrives meanwhile."""
    write = web.StreamResponse.write

    async def write_slowly(self: web.StreamResponse, data: bytes) -> None:
        await write(self, data)
        await asyncio.sleep(SLOW_WRITE_SECONDS)

    monkeypatch.setattr(web.StreamResponse, "write", write_slowly)


@pytest.mark.usefixtures("slow_writes")
def test_a_slow_readers_hang_up_counts_what_the_gateway_had_received(behind: Behind) -> None:
    """What waits in the gateway was generated and delivered to it, and is billed."""

    def answer(connection: socket.socket, _: Heard) -> bool:
        connection.sendall(stream_head() + chunked(TEXT, end=False))
        time.sleep(SLOW_WRITE_SECONDS / 4)
        connection.sendall(chunked(FINISH, USAGE, end=False))
        connection.recv(1024)
        return False

    with raw_upstream(answer) as upstream:
        stage = behind(upstream.url, grace_seconds=0.0)
        with connect(stage.gateway.port) as connection:
            raw = body_of(ASKED)
            connection.sendall(request_bytes("POST", "/v1/chat/completions", stage.headers, raw))
            read_until(connection, b"one two")
            time.sleep(SLOW_WRITE_SECONDS / 2)
        row = stage.row()
    assert row.settlement is not None
    assert row.settlement.ending is Ending.COMPLETED
    assert row.settlement.usage.output_tokens.best == 3


@pytest.mark.usefixtures("slow_writes")
@pytest.mark.parametrize("leave", LEAVING.values(), ids=LEAVING)
def test_a_slow_reader_gets_also_what_came_with_the_cut(
    behind: Behind, leave: Callable[[socket.socket], None]
) -> None:
    def answer(connection: socket.socket, _: Heard) -> bool:
        connection.sendall(stream_head() + chunked(TEXT, end=False))
        time.sleep(SLOW_WRITE_SECONDS / 4)
        connection.sendall(chunked(FINISH, end=False))
        time.sleep(SLOW_WRITE_SECONDS / 4)
        leave(connection)
        return False

    with raw_upstream(answer) as upstream:
        stage = behind(upstream.url)
        with connect(stage.gateway.port) as connection:
            raw = body_of(ASKED)
            connection.sendall(request_bytes("POST", "/v1/chat/completions", stage.headers, raw))
            metered = Reading(connection).message(is_answer=True)
        with connect(stage.gateway.port) as connection:
            connection.sendall(request_bytes("GET", "/v1/responses/resp_1"))
            unmetered = Reading(connection).message(is_answer=True)
        row = stage.row()
    for told in (metered, unmetered):
        assert told is not None
        assert (told.whole, told.body) == (False, TEXT + FINISH)
    assert row.settlement is not None
    assert row.settlement.observation.bytes == len(TEXT + FINISH)
