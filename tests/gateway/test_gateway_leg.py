"""Connections to the upstream: what is no answer, what is used again, what is never repeated."""

import asyncio
import socket
import threading
import time
from pathlib import Path

import pytest
from gateway_stage import CHAT, STREAMED, Behind, Stage, body_of, sse, until
from raw_http import (
    Heard,
    RawUpstream,
    answer_bytes,
    chunked,
    connect,
    exchange,
    raw_upstream,
    request_bytes,
    reset,
    stream_head,
)

from lastchunk.gateway import leg_pool
from lastchunk.gateway.leg_body import KEPT_BYTES_LIMIT, FedBody
from lastchunk.gateway.leg_connection import HEAD_BYTES_LIMIT
from lastchunk.gateway.leg_pool import ThinLeg
from lastchunk.meter.ending import Ending
from tls_relay import CERTIFICATE, TlsRelay

PATH = "/v1/chat/completions"
TEXT = sse({"choices": [{"index": 0, "delta": {"content": "one two three "}}]})
FINISH = sse({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
USAGE = sse({"choices": [], "usage": {"prompt_tokens": 9, "completion_tokens": 12}})
DONE = b"data: [DONE]\n\n"
OK = answer_bytes(b'{"choices":[]}', headers=[("Content-Type", "application/json")])


def ask(stage: Stage) -> Heard:
    return exchange(stage.gateway.port, "POST", PATH, stage.headers, body_of(STREAMED))


def thin_leg(stage: Stage) -> ThinLeg:
    leg = stage.gateway.gateway._rulebook.rules.routes[0].upstream._thin
    assert leg is not None
    return leg


@pytest.mark.parametrize(
    "framing",
    [
        b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
        b"Transfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
        b"Content-Length: 3\r\nContent-Length: 4\r\n\r\nabcd",
        b"Content-Length: 3, 4\r\n\r\nabcd",
        b"Content-Length: -1\r\n\r\nabc",
        b"Content-Length : 3\r\n\r\nabc",
        b"Transfer-Encoding: chunked\r\n\r\n-3\r\nabc\r\n0\r\n\r\n",
        b"X: a\r\n b\r\nContent-Length: 3\r\n\r\nabc",
        b"X: a\0b\r\nContent-Length: 3\r\n\r\nabc",
    ],
)
def test_an_answer_whose_framing_two_readers_may_read_in_two_ways_is_none(
    behind: Behind, framing: bytes
) -> None:
    with raw_upstream(b"HTTP/1.1 200 OK\r\n" + framing) as upstream:
        stage = behind(upstream.url)
        told = ask(stage)
        assert upstream.gone.wait(5), "the connection is not used again"
    assert told.status == 502 or not told.whole
    assert stage.row().settlement is not None


def test_interim_answers_are_passed_over(behind: Behind) -> None:
    hints = b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"
    with raw_upstream(b"HTTP/1.1 100 Continue\r\n\r\n" + hints + OK) as upstream:
        stage = behind(upstream.url)
        told = ask(stage)
        assert ask(stage).status == 200
    assert (told.status, told.body) == (200, b'{"choices":[]}')
    assert told.header("link") is None
    stage.rows(2)


def test_a_protocol_that_nobody_asked_for_is_no_answer(behind: Behind) -> None:
    switch = b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n"
    with raw_upstream(switch) as upstream:
        stage = behind(upstream.url)
        assert ask(stage).status == 502


@pytest.mark.parametrize(
    "endless",
    [b"X-More: " + b"x" * 900 + b"\r\n", b"x", b"HTTP/1.1 100 Continue\r\n\r\n"],
    ids=["headers", "one line", "interim answers"],
)
def test_a_head_without_end_is_given_up(behind: Behind, endless: bytes) -> None:
    sent = 0

    def answer(connection: socket.socket, _: Heard) -> bool:
        nonlocal sent
        start = b"" if endless.startswith(b"HTTP") else b"HTTP/1.1 200 OK\r\nX: y"
        connection.sendall(start + (b"\r\n" if endless.startswith(b"X-") else b""))
        while sent < 40 * HEAD_BYTES_LIMIT:
            piece = endless * (8192 // len(endless))
            connection.sendall(piece)
            sent += len(piece)
        return False

    with raw_upstream(answer) as upstream:
        stage = behind(upstream.url)
        assert ask(stage).status == 502
        assert upstream.gone.wait(5)
    assert sent < 40 * HEAD_BYTES_LIMIT


def test_trailers_end_an_answer_and_go_no_further(behind: Behind) -> None:
    frames = chunked(TEXT, FINISH, USAGE, DONE, end=False) + b"0\r\nX-Sum: 7\r\n\r\n"
    with raw_upstream(stream_head() + frames) as upstream:
        stage = behind(upstream.url)
        first, second = ask(stage), ask(stage)
    for told in (first, second):
        assert told.whole
        assert told.header("x-sum") is None
        assert told.body.endswith(DONE)
    for row in stage.rows(2):
        assert row.settlement is not None
        assert row.settlement.ending is Ending.COMPLETED


@pytest.mark.parametrize("left_open", [True, False], ids=["more follows", "closed"])
def test_a_connection_with_more_than_its_answer_is_not_used_again(
    behind: Behind, left_open: bool
) -> None:
    peers: list[object] = []

    def answer(connection: socket.socket, _: Heard) -> bool:
        peers.append(connection.getpeername())
        connection.sendall(OK + (b"HTTP/1.1 200 OK\r\n" if left_open else b""))
        return left_open

    with raw_upstream(answer) as upstream:
        stage = behind(upstream.url)
        for _ in range(3):
            assert ask(stage).body == b'{"choices":[]}'
            time.sleep(0.05)
    assert len(set(peers)) == 3
    stage.rows(3)


def test_bytes_on_an_idle_connection_end_it(behind: Behind) -> None:
    peers: list[object] = []

    def answer(connection: socket.socket, _: Heard) -> None:
        peers.append(connection.getpeername())
        connection.sendall(OK)
        time.sleep(0.05)
        connection.sendall(OK)  # an answer to the next request, before it is made

    with raw_upstream(answer) as upstream:
        stage = behind(upstream.url)
        for _ in range(2):
            assert ask(stage).status == 200
            time.sleep(0.15)
    assert len(set(peers)) == 2


def dying_at_the_second(requests: list[Heard]) -> RawUpstream:
    """Answers the first request of each connection, and resets it at the second."""

    def answer(connection: socket.socket, heard: Heard) -> bool:
        requests.append(heard)
        if len(requests) == 2:
            reset(connection)
            return False
        connection.sendall(OK)
        return True

    return RawUpstream(answer)


@pytest.mark.parametrize(("method", "status", "sent"), [("POST", 502, 2), ("GET", 200, 3)])
def test_only_what_has_no_effect_is_repeated_after_a_kept_connection_died(
    behind: Behind, method: str, status: int, sent: int
) -> None:
    requests: list[Heard] = []
    with raw_upstream(dying_at_the_second(requests).answer) as upstream:
        stage = behind(upstream.url)
        path, body = (PATH, body_of(CHAT)) if method == "POST" else ("/v1/models", None)
        port = stage.gateway.port
        assert exchange(port, method, path, stage.headers, body).status == 200
        assert exchange(port, method, path, stage.headers, body).status == status
    assert len(requests) == sent


def test_idle_connections_are_closed_after_a_while(
    behind: Behind, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leg_pool, "KEEPALIVE_SECONDS", 0.1)
    with raw_upstream(OK) as upstream:
        stage = behind(upstream.url)
        assert ask(stage).status == 200
        assert upstream.gone.wait(2)
        assert stage.gateway.call(lambda: thin_leg(stage)._idle) == []


def test_a_caller_who_leaves_while_it_is_reserved_leaves_a_connection_for_the_next(
    behind: Behind,
) -> None:
    peers: set[object] = set()

    def answer(connection: socket.socket, _: Heard) -> None:
        peers.add(connection.getpeername())
        connection.sendall(OK)

    with raw_upstream(answer) as upstream:
        stage = behind(upstream.url)
        leg = thin_leg(stage)
        stage.gateway.call(lambda: leg.reach().release())
        until(lambda: stage.gateway.call(lambda: len(leg._idle)) == 1, "an idle connection")
        assert upstream.heard == []
        assert ask(stage).status == 200
        assert stage.gateway.call(lambda: (leg.in_use, len(leg._idle))) == (0, 1)
    assert len(peers) == 1


@pytest.fixture
def trusted(monkeypatch: pytest.MonkeyPatch) -> None:
    """For the thin leg: aiohttp has read its certificates when it was imported."""
    monkeypatch.setenv("SSL_CERT_FILE", str(CERTIFICATE))


@pytest.mark.usefixtures("trusted")
def test_an_upstream_behind_tls_is_metered(behind: Behind) -> None:
    frames = chunked(TEXT, FINISH, USAGE, DONE)
    with raw_upstream(stream_head() + frames) as upstream, TlsRelay(upstream.port) as tls:
        stage = behind(f"https://127.0.0.1:{tls.port}")
        assert [ask(stage).body.endswith(DONE) for _ in range(2)] == [True, True]
    for row in stage.rows(2):
        assert row.settlement is not None
        assert row.settlement.ending is Ending.COMPLETED


@pytest.mark.usefixtures("trusted")
def test_a_cut_behind_tls_is_seen(behind: Behind) -> None:
    def answer(connection: socket.socket, _: Heard) -> bool:
        connection.sendall(stream_head() + chunked(TEXT, end=False))
        return False

    with raw_upstream(answer) as upstream, TlsRelay(upstream.port) as tls:
        stage = behind(f"https://127.0.0.1:{tls.port}")
        told = ask(stage)
    assert (told.whole, told.body) == (False, TEXT)
    settlement = stage.row().settlement
    assert settlement is not None
    assert settlement.ending is Ending.UPSTREAM_CUT


@pytest.mark.parametrize("leg", ["thin", "aiohttp"])
def test_a_certificate_that_nobody_vouches_for_is_no_connection(
    behind: Behind, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    empty = tmp_path / "nobody.pem"
    empty.write_text("")
    monkeypatch.setenv("SSL_CERT_FILE", str(empty))
    with raw_upstream(OK) as upstream, TlsRelay(upstream.port) as tls:
        stage = behind(f"https://127.0.0.1:{tls.port}")
        assert ask(stage).status == 502
        assert upstream.heard == []
    settlement = stage.row().settlement
    assert settlement is not None
    assert settlement.ending is Ending.NEVER_SENT


def test_what_came_while_the_loop_was_kept_is_read_before_the_upstream_is_called_silent(
    behind: Behind,
) -> None:
    """After a pause of the process (a stopped machine, say) the timers run before the sockets."""
    begun, kept, is_sent = threading.Event(), threading.Event(), threading.Event()

    def answer(connection: socket.socket, _: Heard) -> None:
        connection.sendall(stream_head() + chunked(TEXT, end=False))
        begun.set()
        assert kept.wait(5)
        connection.sendall(chunked(FINISH + USAGE + DONE))
        is_sent.set()

    reading, writing = socket.socketpair()

    def keep_the_loop() -> None:
        """Where it reads sockets: what comes meanwhile is read in its next round."""
        reading.recv(1)
        kept.set()
        assert is_sent.wait(5)
        time.sleep(1.2)

    def watch() -> None:
        asyncio.get_running_loop().add_reader(reading, keep_the_loop)

    with reading, writing, raw_upstream(answer) as upstream:
        stage = behind(upstream.url, read_seconds=1.0)
        with connect(stage.gateway.port) as connection:
            connection.sendall(request_bytes("POST", PATH, stage.headers, body_of(STREAMED)))
            assert begun.wait(5)
            stage.gateway.call(watch)
            writing.send(b"!")
            got = bytearray()
            while not got.endswith(b"\r\n0\r\n\r\n") and (more := connection.recv(1 << 20)):
                got += more
        stage.gateway.call(lambda: asyncio.get_running_loop().remove_reader(reading))
    assert DONE in got
    settlement = stage.row().settlement
    assert settlement is not None
    assert settlement.ending is Ending.COMPLETED


def test_a_slow_caller_is_not_a_silent_upstream(behind: Behind) -> None:
    """While nobody reads, the upstream is held back: that is not its silence."""
    piece, pieces = TEXT * 1000, 200
    begun = threading.Event()

    def answer(connection: socket.socket, _: Heard) -> None:
        connection.sendall(stream_head())
        begun.set()
        for _ in range(pieces):
            connection.sendall(chunked(piece, end=False))
        connection.sendall(chunked())

    with raw_upstream(answer) as upstream:
        stage = behind(upstream.url, read_seconds=1.0)
        with connect(stage.gateway.port) as connection:
            connection.sendall(request_bytes("POST", PATH, stage.headers, body_of(STREAMED)))
            assert begun.wait(5)
            time.sleep(2.5)
            got = bytearray()
            while not got.endswith(b"\r\n0\r\n\r\n") and (more := connection.recv(1 << 20)):
                got += more
    assert got.endswith(b"\r\n0\r\n\r\n")
    assert got.count(b"one two three") == 1000 * pieces
    settlement = stage.row().settlement
    assert settlement is not None
    assert settlement.observation.bytes == len(piece) * pieces


def test_a_body_that_nobody_reads_is_held_back() -> None:
    held: list[bool] = []
    body = FedBody(held.append)
    for _ in range(3):
        body.feed(b"x" * (KEPT_BYTES_LIMIT // 2))
    assert held == [True]
    assert len(body.arrived()) == 3 * (KEPT_BYTES_LIMIT // 2)
    assert held == [True, False]
    assert body.arrived() == b""
