"""Bad input from either side: a clear error or a weaker basis, memory bounded, nothing lost."""

import json
import os
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from gateway_stage import ASKED, CHAT, STREAMED, Behind, RunningGateway, body_of, sse, until
from raw_http import (
    Heard,
    Reading,
    answer_bytes,
    chunked,
    connect,
    exchange,
    exchange_raw,
    raw_upstream,
    request_bytes,
    reset,
    stream_head,
)

from lastchunk.meter.ending import Ending
from lastchunk.meter.meter import KEPT_CHARS_LIMIT, Meter
from lastchunk.usage import Basis
from lastchunk.wire.dialect import Dialect
from lastchunk.wire.request import read_request

TEXT = sse({"choices": [{"index": 0, "delta": {"content": "one two three"}}]})
USAGE = sse({"choices": [], "usage": {"prompt_tokens": 9, "completion_tokens": 3}})
DONE = b"data: [DONE]\n\n"
OK = answer_bytes(b"{}", headers=[("Content-Type", "application/json")])
PATH = "/v1/chat/completions"


# From the caller.


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"no json",
        b'{"model":"gpt-4o","messages":[',
        b"[1,2]",
        b'"text"',
        b"null",
        b'{"model":"\xff\xfe"}',
        b"\x1f\x8b\x08\x00garbage",
        b"{" * 5000,
        '{"model":"gpt-4o"}'.encode("utf-16"),
        b'{"model":"gpt-4o"}{"model":"gpt-4o"}',
    ],
    ids=range(11),
)
def test_a_body_that_is_no_json_object_passes_unmetered_and_says_so(
    behind: Behind, raw: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    refusal = b'{"error":{"message":"We could not parse the JSON body of your request."}}'
    with raw_upstream(answer_bytes(refusal, "400 Bad Request")) as upstream:
        stage = behind(upstream.url)
        told = exchange(stage.gateway.port, "POST", PATH, stage.headers, raw)
        assert [heard.body for heard in upstream.heard] == [raw]
        health = json.loads(exchange(stage.gateway.port, "GET", "/healthz").body)
    assert (told.status, told.body) == (400, refusal)
    assert told.header("x-lastchunk-unmetered") == "the body is no JSON object"
    assert told.header("x-lastchunk-call-id") is None
    assert health["unmetered_requests"] == 1
    assert "passed on unmetered" in caplog.text
    stage.rows(0)


@pytest.mark.parametrize(
    "body",
    [
        {"model": 7, "messages": "hello", "stream": "yes", "n": -1, "max_tokens": "many"},
        {"model": "m" * 5000, "messages": [None, 1, [], {"role": 2, "content": {"a": 1}}]},
        {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": 5}]}]},
        {"model": "gpt-4o", "messages": {}, "stream": True, "stream_options": [1]},
        {"model": "gpt-4o", "stream": True, "stream_options": {"include_usage": "maybe"}},
        {"model": "\ud800\u0000", "messages": [], "tools": 5, "n": 10**30},
        {},
    ],
    ids=range(7),
)
def test_json_of_any_shape_is_metered_and_passed_on(
    behind: Behind, body: dict[str, object]
) -> None:
    raw = body_of(body)
    with raw_upstream(OK) as upstream:
        stage = behind(upstream.url)
        told = exchange(stage.gateway.port, "POST", PATH, stage.headers, raw)
        heard = upstream.heard[0]
    assert told.status == 200
    if "\\ud800" not in raw.decode():  # msgspec takes a lone surrogate for no JSON
        stage.row()
    assert heard.body == raw or b'"include_usage":true' in heard.body


def small_limit(monkeypatch: pytest.MonkeyPatch) -> int:
    limit = 1_000_000
    for module in ("app", "relay"):
        monkeypatch.setattr(f"lastchunk.gateway.{module}.MAX_REQUEST_BYTES", limit)
    return limit


@pytest.mark.parametrize("framing", ["length", "chunks"])
def test_a_request_over_the_limit_is_refused_in_openais_shape(
    behind: Behind, monkeypatch: pytest.MonkeyPatch, framing: str
) -> None:
    limit = small_limit(monkeypatch)
    with raw_upstream(OK) as upstream:
        stage = behind(upstream.url)
        raw = body_of({"model": "gpt-4o", "messages": "x" * limit})
        headers = stage.headers
        if framing == "chunks":
            headers, raw = headers | {"Transfer-Encoding": "chunked"}, chunked(raw)
        with connect(stage.gateway.port) as connection:
            connection.sendall(request_bytes("POST", PATH, headers, raw))
            reading = Reading(connection)
            told = reading.message(is_answer=True)
            assert told is not None
            assert told.status == 413
            error = json.loads(told.body)["error"]
            assert error["code"] == "body_too_large"
            assert str(limit) in error["message"]
            assert set(error) == {"message", "type", "param", "code"}
        assert upstream.heard == []
        assert exchange(stage.gateway.port, "GET", "/v1/models").status == 200
    stage.rows(0)


def test_the_limit_is_for_metered_requests_only(
    behind: Behind, monkeypatch: pytest.MonkeyPatch
) -> None:
    limit = small_limit(monkeypatch)
    with raw_upstream(OK) as upstream:
        stage = behind(upstream.url)
        told = exchange(stage.gateway.port, "POST", "/v1/files", {}, b"x" * (limit + 1))
        assert len(upstream.heard[0].body) == limit + 1
    assert told.status == 200


def test_a_large_prompt_passes_and_is_metered(behind: Behind) -> None:
    raw = body_of(CHAT | {"messages": [{"role": "user", "content": "word " * 800_000}]})
    with raw_upstream(OK) as upstream:
        stage = behind(upstream.url)
        told = exchange(stage.gateway.port, "POST", PATH, stage.headers, raw)
        assert upstream.heard[0].body == raw
    assert told.status == 200
    stage.row()


@pytest.mark.parametrize("leave", [socket.socket.close, reset], ids=["fin", "rst"])
@pytest.mark.parametrize("path", [PATH, "/v1/files"])
def test_a_request_shorter_than_its_length_is_never_whole_for_the_upstream(
    behind: Behind, path: str, leave: Callable[[socket.socket], None]
) -> None:
    whole: list[bool] = []
    with raw_upstream(lambda connection, heard: whole.append(heard.whole)) as upstream:
        stage = behind(upstream.url)
        connection = connect(stage.gateway.port)
        headers = stage.headers | {"Content-Length": "5000"}
        connection.sendall(request_bytes("POST", path, headers, body_of(CHAT)))
        time.sleep(0.1)
        leave(connection)
        stage.rows(0)
        assert upstream.gone.wait(1) or not upstream.heard
    assert True not in whole


def test_a_request_longer_than_its_length_is_not_read_as_more_than_it_is(behind: Behind) -> None:
    raw = body_of(CHAT)
    with raw_upstream(OK) as upstream:
        stage = behind(upstream.url)
        with connect(stage.gateway.port) as connection:
            reading = Reading(connection)
            connection.sendall(request_bytes("POST", PATH, stage.headers, raw))
            first = reading.message(is_answer=True)
            connection.sendall(b"and more\r\n\r\n")
            second = reading.message(is_answer=True)
        assert [heard.body for heard in upstream.heard] == [raw]
    assert first is not None
    assert second is not None
    assert (first.status, second.status) == (200, 400)
    stage.row()


@pytest.mark.parametrize(
    "raw",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"GET\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost\r\n\r\n",
        b"POST /v1/files HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ],
    ids=["tls", "short", "header", "chunk", "http2"],
)
def test_what_is_no_http_gets_a_400_and_nothing_else_happens(behind: Behind, raw: bytes) -> None:
    with raw_upstream(OK) as upstream:
        stage = behind(upstream.url)
        told = exchange_raw(stage.gateway.port, raw)
        assert exchange(stage.gateway.port, "GET", "/v1/models").status == 200
        assert [heard.line for heard in upstream.heard if heard.whole] == [
            "GET /v1/models HTTP/1.1"
        ]
    assert told.status == 400


# From the upstream.


def test_invalid_utf_8_passes_unchanged_and_is_counted(behind: Behind) -> None:
    frame = b'data: {"choices":[{"index":0,"delta":{"content":"gr\xfc\xdfe \xff"}}]}\n\n'
    with raw_upstream(stream_head() + chunked(frame * 20, DONE)) as upstream:
        stage = behind(upstream.url)
        told = exchange(stage.gateway.port, "POST", PATH, stage.headers, body_of(STREAMED))
    assert told.body == frame * 20 + DONE
    row = stage.row()
    assert row.settlement is not None
    output = row.settlement.usage.output_tokens
    assert output.basis in (Basis.COUNTED, Basis.BOUNDED)
    assert output.best is not None
    assert output.best > 20


def test_a_frame_over_the_limit_costs_the_basis_and_not_the_stream(behind: Behind) -> None:
    huge = b'data: {"choices":[{"index":0,"delta":{"content":"%s"}}]}\n\n' % (b"x" * 9_000_000)
    with raw_upstream(stream_head() + chunked(TEXT, huge, TEXT, DONE)) as upstream:
        stage = behind(upstream.url)
        told = exchange(stage.gateway.port, "POST", PATH, stage.headers, body_of(STREAMED))
    assert told.whole
    assert told.body == TEXT + huge + TEXT + DONE
    row = stage.row()
    assert row.settlement is not None
    assert row.settlement.observation.unreadable == 1
    output = row.settlement.usage.output_tokens
    assert row.settlement.ending is Ending.COMPLETED
    assert output.high > output.low


@pytest.mark.parametrize(
    ("frame", "megabytes"),
    [(b"x" * 99, 60), (b"data: x\n", 60), (b": ping\n\n", 25), (TEXT, 25)],
    ids=["no line ends", "no frame ends", "comments", "text"],
)
def test_a_stream_without_end_takes_no_more_memory(
    behind: Behind, frame: bytes, megabytes: int
) -> None:
    piece = frame * (1_000_000 // len(frame))

    def answer(connection: socket.socket, _: Heard) -> bool:
        connection.sendall(stream_head())
        for _ in range(megabytes):
            connection.sendall(chunked(piece, end=False))
        return False

    with raw_upstream(answer) as upstream:
        stage = behind(upstream.url)
        with connect(stage.gateway.port) as connection:
            connection.sendall(request_bytes("POST", PATH, stage.headers, body_of(STREAMED)))
            told, before, most, place = 0, resident_mb(), 0.0, bytearray(1 << 20)
            while got := connection.recv_into(place):
                told += got
                most = max(most, resident_mb() - before)
    assert told >= megabytes * len(piece)
    row = stage.row()
    assert row.settlement is not None
    assert row.settlement.ending is Ending.UPSTREAM_CUT
    assert row.settlement.observation.bytes == megabytes * len(piece)
    assert most < (40 if frame != TEXT else 150)


def resident_mb() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def test_what_a_meter_keeps_is_bounded_also_when_nobody_counts() -> None:
    meter = Meter(read_request(Dialect.CHAT, STREAMED, upstream="u", body_bytes=1))
    meter.headed(200, "text/event-stream", None)
    frame = sse({"choices": [{"index": 0, "delta": {"content": "x" * 10_000}}]})
    for _ in range(1000):
        meter.receive(frame, 0)
    meter.read()
    kept = sum(len(text.text) for text in meter.take_texts())  # type: ignore[union-attr]
    assert kept <= KEPT_CHARS_LIMIT
    assert kept + meter.observe(0).uncounted_chars == 10_000_000


def test_small_pieces_of_a_frame_that_never_ends_are_not_read_again_and_again() -> None:
    """7 MB in 100-byte pieces: what was quadratic took a quarter of an hour here."""
    meter = Meter(read_request(Dialect.CHAT, STREAMED, upstream="u", body_bytes=1))
    meter.headed(200, "text/event-stream", None)
    line = b"data: " + b"x" * 93 + b"\n"
    for _ in range(70_000):
        meter.receive(line, 0)
    meter.receive(b"\n", 0)
    meter.finish()
    seen = meter.observe(0)
    assert (seen.bytes, seen.frames, seen.unreadable) == (7_000_001, 1, 1)


def test_odd_headers_of_an_upstream_are_no_trouble(behind: Behind) -> None:
    headers = [("X-Odd", "caf\xe9"), ("Content-Type", "\xff/\xfe;;=")]
    with raw_upstream(answer_bytes(b"{}", headers=headers)) as upstream:
        stage = behind(upstream.url)
        told = exchange(stage.gateway.port, "POST", PATH, stage.headers, body_of(CHAT))
    assert (told.status, told.body) == (200, b"{}")
    stage.row()


def connections_in_use(running: RunningGateway) -> tuple[int, int]:
    """Of callers, and to the upstream (idle ones left out)."""

    def count() -> tuple[int, int]:
        server = running.gateway._runner.server
        assert server is not None
        return len(server.connections), running.gateway._rulebook.rules.routes[0].upstream.in_use

    found: tuple[int, int] = running.call(count)
    return found


def test_a_caller_in_a_hurry_does_not_wear_the_gateway_out(behind: Behind) -> None:
    """200 callers, each gone as soon as it has asked: no descriptor and no call is left."""
    with raw_upstream(stream_head() + chunked(TEXT * 20, DONE)) as upstream:
        stage = behind(upstream.url)
        assert exchange(stage.gateway.port, "POST", PATH, stage.headers, body_of(ASKED)).whole

        def ask_and_leave() -> None:
            for number in range(25):
                connection = connect(stage.gateway.port)
                raw = request_bytes("POST", PATH, stage.headers, body_of(ASKED))
                connection.sendall(raw)
                if number % 2:
                    connection.recv(1)
                connection.close()

        threads = [threading.Thread(target=ask_and_leave) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        bookkeeper = stage.gateway.bookkeeper
        until(lambda: bookkeeper.open_calls() == 0, "all calls settled")
        until(lambda: connections_in_use(stage.gateway) == (0, 0), "connections closed")
