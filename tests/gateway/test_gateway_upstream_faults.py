"""What an upstream can do wrong: the caller sees that the answer is not whole, the row is right."""

import json
import socket
import time
from collections.abc import Callable

import pytest
from gateway_stage import ASKED, CHAT, STREAMED, Behind, Stage, body_of, sse
from raw_http import (
    Heard,
    answer_bytes,
    chunked,
    connect,
    exchange,
    raw_upstream,
    reset,
    stream_head,
)

from lastchunk.ledger import CallRecord
from lastchunk.meter.ending import Ending
from lastchunk.simulator import Fault, Script
from lastchunk.usage import Basis

TEXT = sse({"choices": [{"index": 0, "delta": {"content": "one two three"}}]})
FINISH = sse({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
USAGE = sse({"choices": [], "usage": {"prompt_tokens": 9, "completion_tokens": 3}})
DONE = b"data: [DONE]\n\n"
JSON_HEAD = [("Content-Type", "application/json")]


def ask(
    stage: Stage, body: dict[str, object] | bytes = ASKED, path: str = "chat/completions"
) -> Heard:
    raw = body if isinstance(body, bytes) else body_of(body)
    return exchange(stage.gateway.port, "POST", f"/v1/{path}", stage.headers, raw)


def code_of(answer: Heard) -> str:
    error = json.loads(answer.body)["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert answer.header("content-type") == "application/json; charset=utf-8"
    return str(error["code"])


def ending_of(row: CallRecord) -> tuple[Ending, Basis | None]:
    assert row.settlement is not None
    output = row.settlement.usage.output_tokens
    return row.settlement.ending, output.basis if output is not None else None


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return int(taken.getsockname()[1])


# No answer at all.


def test_a_refused_connection_is_told_and_nothing_was_used(behind: Behind) -> None:
    stage = behind(f"http://127.0.0.1:{free_port()}")
    answer = ask(stage)
    row = stage.row()
    assert (answer.status, code_of(answer)) == (502, "upstream_unreachable")
    assert answer.header("x-lastchunk-call-id") == row.call_id
    assert row.settlement is not None
    assert row.settlement.ending is Ending.NEVER_SENT
    assert row.settlement.nothing_used


def test_an_unmetered_request_to_nobody_is_told(behind: Behind) -> None:
    stage = behind(f"http://127.0.0.1:{free_port()}")
    answer = exchange(stage.gateway.port, "GET", "/v1/models")
    assert (answer.status, code_of(answer)) == (502, "upstream_unreachable")


@pytest.mark.parametrize("leave", [socket.socket.close, reset], ids=["fin", "rst"])
def test_a_connection_closed_before_the_answer(
    behind: Behind, leave: Callable[[socket.socket], None]
) -> None:
    def answer(connection: socket.socket, _: Heard) -> bool:
        leave(connection)
        return False

    with raw_upstream(answer) as upstream:
        stage = behind(upstream.url)
        told = ask(stage)
        unmetered = exchange(stage.gateway.port, "GET", "/v1/models")
        assert len([h for h in upstream.heard if h.line.startswith("POST")]) == 1  # not repeated
    assert (told.status, code_of(told)) == (502, "upstream_broke")
    assert (unmetered.status, code_of(unmetered)) == (502, "upstream_broke")
    assert ending_of(stage.row()) == (Ending.UPSTREAM_CUT, Basis.ASSUMED)


def test_no_answer_in_time(behind: Behind) -> None:
    def answer(connection: socket.socket, _: Heard) -> None:
        connection.recv(1)

    with raw_upstream(answer) as upstream:
        stage = behind(upstream.url, read_seconds=0.2)
        told = ask(stage)
        unmetered = exchange(stage.gateway.port, "GET", "/v1/models")
    assert (told.status, code_of(told)) == (504, "upstream_timed_out")
    assert (unmetered.status, code_of(unmetered)) == (504, "upstream_timed_out")
    assert ending_of(stage.row()) == (Ending.UPSTREAM_TIMEOUT, Basis.ASSUMED)


@pytest.mark.parametrize(
    "garbage",
    [b"\x00\x01\x02\xff\r\n\r\n", b"HTTP/9.9 abc\r\n\r\n", b"220 smtp ready\r\n\r\n"],
    ids=["binary", "version", "smtp"],
)
def test_an_answer_that_is_no_http(behind: Behind, garbage: bytes) -> None:
    def answer(connection: socket.socket, _: Heard) -> bool:
        connection.sendall(garbage)
        return False

    with raw_upstream(answer) as upstream:
        stage = behind(upstream.url)
        told = ask(stage)
        unmetered = exchange(stage.gateway.port, "GET", "/v1/models")
    assert (told.status, code_of(told)) == (502, "upstream_broke")
    assert (unmetered.status, code_of(unmetered)) == (502, "upstream_broke")
    assert ending_of(stage.row()) == (Ending.UPSTREAM_CUT, Basis.ASSUMED)


# An answer that breaks off.


def breaking(*pieces: bytes, leave: Callable[[socket.socket], None]) -> Callable[..., bool]:
    def answer(connection: socket.socket, _: Heard) -> bool:
        connection.sendall(stream_head() + chunked(*pieces, end=False))
        if leave is reset:
            time.sleep(0.05)  # a reset takes back what is not read yet
        leave(connection)
        return False

    return answer


@pytest.mark.parametrize("leave", [socket.socket.close, reset], ids=["fin", "rst"])
@pytest.mark.parametrize("body", [ASKED, STREAMED], ids=["asked", "unasked"])
def test_a_stream_that_breaks_off_is_broken_for_the_caller_too(
    behind: Behind, body: dict[str, object], leave: Callable[[socket.socket], None]
) -> None:
    part = TEXT[: len(TEXT) // 2]
    with raw_upstream(breaking(TEXT, part, leave=leave)) as upstream:
        stage = behind(upstream.url)
        told = ask(stage, body)
    assert not told.whole
    assert told.body == TEXT + part  # every byte that came, also of the unfinished frame
    assert ending_of(stage.row()) == (Ending.UPSTREAM_CUT, Basis.COUNTED)


def test_bytes_that_came_with_the_cut_are_not_lost(behind: Behind) -> None:
    """Many frames and the FIN in one go: what arrived was generated, and is passed on."""
    frames = TEXT * 400
    with raw_upstream(breaking(frames, leave=socket.socket.close)) as upstream:
        stage = behind(upstream.url)
        answers = [ask(stage, ASKED) for _ in range(10)]
    assert [len(answer.body) for answer in answers] == [len(frames)] * 10
    assert not any(answer.whole for answer in answers)
    for row in stage.rows(10):
        assert row.settlement is not None
        assert row.settlement.observation.bytes == len(frames)


@pytest.mark.parametrize(
    ("frames", "ending", "basis"),
    [
        ([TEXT, FINISH], Ending.UPSTREAM_CUT, Basis.COUNTED),
        ([TEXT, FINISH, USAGE], Ending.COMPLETED, Basis.REPORTED),
        ([TEXT, FINISH, USAGE, DONE], Ending.COMPLETED, Basis.REPORTED),
    ],
    ids=["finish", "usage", "done"],
)
def test_what_was_seen_before_the_cut_decides(
    behind: Behind, frames: list[bytes], ending: Ending, basis: Basis
) -> None:
    with raw_upstream(breaking(*frames, leave=socket.socket.close)) as upstream:
        stage = behind(upstream.url)
        told = ask(stage)
    assert not told.whole
    assert ending_of(stage.row()) == (ending, basis)


def test_a_clean_end_without_a_terminator_is_a_cut_all_the_same(behind: Behind) -> None:
    with raw_upstream(stream_head() + chunked(TEXT)) as upstream:
        stage = behind(upstream.url)
        told = ask(stage)
    assert (told.whole, told.body) == (True, TEXT)
    assert ending_of(stage.row()) == (Ending.UPSTREAM_CUT, Basis.COUNTED)


def test_a_stream_that_falls_silent_is_ended(behind: Behind) -> None:
    def answer(connection: socket.socket, _: Heard) -> None:
        connection.sendall(stream_head() + chunked(TEXT, end=False))
        connection.recv(1)

    with raw_upstream(answer) as upstream:
        stage = behind(upstream.url, read_seconds=0.2)
        told = ask(stage)
        assert upstream.gone.wait(1)
    assert (told.whole, told.body) == (False, TEXT)
    assert ending_of(stage.row()) == (Ending.UPSTREAM_TIMEOUT, Basis.COUNTED)


def test_garbage_between_chunks_is_a_cut(behind: Behind) -> None:
    def answer(connection: socket.socket, _: Heard) -> None:
        connection.sendall(stream_head() + chunked(TEXT, end=False))
        time.sleep(0.05)
        connection.sendall(b"zz\r\nnope")

    with raw_upstream(answer) as upstream:
        stage = behind(upstream.url)
        told = ask(stage)
        unmetered = exchange(stage.gateway.port, "GET", "/v1/models")
    assert (told.whole, told.body) == (False, TEXT)
    assert (unmetered.whole, unmetered.body) == (False, TEXT)
    assert ending_of(stage.row()) == (Ending.UPSTREAM_CUT, Basis.COUNTED)


def test_an_unmetered_answer_that_breaks_off_is_broken_for_the_caller_too(behind: Behind) -> None:
    def answer(connection: socket.socket, _: Heard) -> bool:
        connection.sendall(answer_bytes(b"x" * 500, headers=[("Content-Length", "1000")]))
        return False

    with raw_upstream(answer) as upstream:
        told = exchange(behind(upstream.url).gateway.port, "GET", "/v1/files/f/content")
    assert (told.whole, told.body) == (False, b"x" * 500)


# Lengths that lie.


def test_a_body_shorter_than_its_length_is_a_cut(behind: Behind) -> None:
    body = b'{"id":"c","choices":[{"index":0,"message":{"content":"one two'

    def answer(connection: socket.socket, _: Heard) -> bool:
        connection.sendall(answer_bytes(body, headers=[("Content-Length", "5000"), *JSON_HEAD]))
        return False

    with raw_upstream(answer) as upstream:
        stage = behind(upstream.url)
        told = ask(stage, CHAT)
    assert (told.whole, told.body) == (False, body)
    assert told.header("content-length") == "5000"
    assert stage.row().settlement.ending is Ending.UPSTREAM_CUT  # type: ignore[union-attr]


def test_a_body_longer_than_its_length_ends_where_it_said(behind: Behind) -> None:
    body = body_of({"choices": [], "usage": {"prompt_tokens": 9, "completion_tokens": 3}})
    length = [("Content-Length", str(len(body))), *JSON_HEAD]
    with raw_upstream(answer_bytes(body + b"HTTP/1.1 200 OK\r\n", headers=length)) as upstream:
        stage = behind(upstream.url)
        for _ in range(3):  # what was too much never becomes the next caller's answer
            told = ask(stage, CHAT)
            assert (told.status, told.whole, told.body) == (200, True, body)
    for row in stage.rows(3):
        assert ending_of(row) == (Ending.COMPLETED, Basis.REPORTED)


# Answers that say no.


@pytest.mark.parametrize(
    ("status", "ending"),
    [
        ("401 Unauthorized", Ending.REFUSED),
        ("429 Too Many Requests", Ending.REFUSED),
        ("307 Temporary Redirect", Ending.REFUSED),
        ("500 Internal Server Error", Ending.UPSTREAM_FAILED),
        ("529 Overloaded", Ending.UPSTREAM_FAILED),
    ],
)
@pytest.mark.parametrize("body", [CHAT, STREAMED], ids=["whole", "streamed"])
def test_an_error_answer_passes_as_it_is(
    behind: Behind, body: dict[str, object], status: str, ending: Ending
) -> None:
    error = b'{"error":{"message":"no","type":"x","param":null,"code":"y"}}'
    headers = [("Content-Type", "application/json"), ("retry-after", "7")]
    with raw_upstream(answer_bytes(error, status, headers)) as upstream:
        stage = behind(upstream.url)
        told = ask(stage, body)
        assert len(upstream.heard) == 1
    assert (told.line.partition(" ")[2], told.body) == (status, error)
    assert told.header("retry-after") == "7"
    row = stage.row()
    assert told.header("x-lastchunk-call-id") == row.call_id
    assert row.settlement is not None
    assert row.settlement.ending is ending


def test_another_400_passes_byte_for_byte_with_its_length(behind: Behind) -> None:
    error = b'{"error":{"message":"max_tokens is too large","code":"invalid_value"}}'
    with raw_upstream(answer_bytes(error, "400 Bad Request", JSON_HEAD)) as upstream:
        stage = behind(upstream.url)
        told = ask(stage, STREAMED)
        assert len(upstream.heard) == 1
    assert (told.status, told.body) == (400, error)
    assert told.header("content-length") == str(len(error))
    assert ending_of(stage.row())[0] is Ending.REFUSED


def test_a_400_that_breaks_off_is_not_passed_as_whole(behind: Behind) -> None:
    def answer(connection: socket.socket, _: Heard) -> bool:
        headers = [("Content-Length", "500"), *JSON_HEAD]
        connection.sendall(answer_bytes(b'{"error":', "400 Bad Request", headers))
        return False

    with raw_upstream(answer) as upstream:
        stage = behind(upstream.url)
        told = ask(stage, STREAMED)
    assert (told.status, told.whole, told.body) == (400, False, b'{"error":')
    assert ending_of(stage.row())[0] is Ending.REFUSED


def test_a_very_long_400_passes_whole(behind: Behind) -> None:
    error = b"x" * 3_000_000
    with raw_upstream(answer_bytes(error, "400 Bad Request")) as upstream:
        stage = behind(upstream.url)
        told = ask(stage, STREAMED)
    assert (told.status, told.whole, len(told.body)) == (400, True, len(error))
    stage.row()


@pytest.mark.parametrize("fault", ["error_event", "garbage", "no_done", "no_usage"])
def test_a_provider_that_fails_inside_the_stream(stage: Stage, fault: str) -> None:
    script = Script(output_tokens=12, obfuscation=False, fault=Fault(fault))  # type: ignore[arg-type]
    headers = stage.scripted(script)
    told = exchange(stage.gateway.port, "POST", "/v1/chat/completions", headers, body_of(ASKED))
    assert told.whole
    billed = stage.billed()[0]
    row = stage.row()
    assert row.settlement is not None
    output = row.settlement.usage.output_tokens
    assert output.low <= billed.output_tokens <= output.high
    wanted = {"error_event": Ending.UPSTREAM_FAILED, "no_usage": Ending.COMPLETED}
    assert row.settlement.ending is wanted.get(fault, Ending.COMPLETED)


def test_two_answers_at_once_keep_apart(behind: Behind) -> None:
    """A connection that broke is used no more; one that ended well is."""
    lengths = iter([3, 400, 5])

    def answer(connection: socket.socket, _: Heard) -> bool:
        count = next(lengths)
        whole = count < 100
        connection.sendall(stream_head() + chunked(TEXT * count, DONE, end=whole))
        return whole

    with raw_upstream(answer) as upstream:
        stage = behind(upstream.url)
        sizes = [len(ask(stage).body.removesuffix(DONE)) // len(TEXT) for _ in range(3)]
    assert sizes == [3, 400, 5]
    stage.rows(3)


def test_a_gone_upstream_frees_the_callers_connection(behind: Behind) -> None:
    with raw_upstream(breaking(TEXT, leave=socket.socket.close)) as upstream:
        stage = behind(upstream.url)
        with connect(stage.gateway.port) as connection:
            raw = body_of(ASKED)
            head = (
                f"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: {len(raw)}\r\n"
            )
            head += f"x-lastchunk-account: {stage.name}\r\n\r\n"
            connection.sendall(head.encode() + raw)
            told = b""
            while piece := connection.recv(65_536):  # ends: it is closed, not left hanging
                told += piece
        assert not told.endswith(b"0\r\n\r\n")
        stage.row()
