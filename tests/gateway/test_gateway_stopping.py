"""Starting and stopping: SIGTERM with streams open, a second signal, the deadline, bad options."""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from gateway_stage import ASKED, STREAMED, Behind, body_of, sse, until
from raw_http import (
    Heard,
    Reading,
    answer_bytes,
    chunked,
    connect,
    exchange,
    raw_upstream,
    request_bytes,
    stream_head,
)

from lastchunk.ledger import CallRecord, Reader
from lastchunk.meter.ending import Ending
from lastchunk.usage import Basis

TEXT = sse({"choices": [{"index": 0, "delta": {"content": "one two three"}}]})
FINISH = sse({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
USAGE = sse({"choices": [], "usage": {"prompt_tokens": 9, "completion_tokens": 3}})
DONE = b"data: [DONE]\n\n"
PATH = "/v1/chat/completions"


class Holding:
    """An upstream that sends one chunk, and the rest when it is told to."""

    def __init__(self) -> None:
        self.go = threading.Event()

    def __call__(self, connection: socket.socket, _: Heard) -> bool:
        connection.sendall(stream_head() + chunked(TEXT, end=False))
        if not self.go.wait(10):
            return False
        connection.sendall(chunked(FINISH, USAGE, DONE))
        return True


@contextmanager
def serving(
    ledger: Path, upstream: str, *options: str
) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """`lastchunk serve` in a process of its own, and its port."""
    command = [sys.executable, "-m", "lastchunk", "serve", "--port", "0", "--upstream", upstream]
    process = subprocess.Popen(
        [*command, "--ledger", str(ledger), *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONUNBUFFERED": "1"},
    )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert " at http://" in line, (line, process.poll())
        yield process, int(line.rstrip().rpartition(":")[2])
    finally:
        process.kill()
        process.communicate()


def rows_of(ledger: Path) -> list[CallRecord]:
    with Reader.open(str(ledger)) as reader:
        return list(reader.calls())


@contextmanager
def open_streams(
    port: int, count: int, headers: dict[str, str] | None = None
) -> Iterator[list[Reading]]:
    """So many streams whose first chunk has come."""
    with ExitStack() as stack:
        streams = []
        for _ in range(count):
            connection = stack.enter_context(connect(port))
            connection.sendall(request_bytes("POST", PATH, headers, body_of(ASKED)))
            streams.append(Reading(connection))
        for reading in streams:
            while b"three" not in reading.waiting:
                assert reading.more()
        yield streams


def is_refused(port: int) -> bool:
    try:
        connect(port).close()
    except ConnectionRefusedError:
        return True
    return False


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_open_streams_end_and_rows_are_written(tmp_path: Path, number: signal.Signals) -> None:
    ledger = tmp_path / "ledger.db"
    holding = Holding()
    with ExitStack() as stack:
        upstream = stack.enter_context(raw_upstream(holding))
        process, port = stack.enter_context(serving(ledger, upstream.url))
        idle, streams = (
            stack.enter_context(connect(port)),
            stack.enter_context(open_streams(port, 3)),
        )
        idle.sendall(request_bytes("GET", "/healthz"))
        assert Reading(idle).message(is_answer=True) is not None
        process.send_signal(number)
        until(lambda: is_refused(port), "new connections refused")
        assert idle.recv(1) == b""  # idle connections are closed
        assert process.poll() is None
        holding.go.set()
        answers = [reading.message(is_answer=True) for reading in streams]
        out, errors = process.communicate(timeout=10)
    assert [answer.body for answer in answers if answer and answer.whole] == [
        TEXT + FINISH + USAGE + DONE
    ] * 3
    assert process.returncode == 0, errors
    assert "every row is written" in out
    assert "Traceback" not in errors
    rows = rows_of(ledger)
    assert len(rows) == 3
    for row in rows:
        assert row.settlement is not None
        assert row.settlement.ending is Ending.COMPLETED


@pytest.mark.parametrize("how", ["second signal", "deadline"])
def test_what_does_not_end_is_cut_and_accounted_for(tmp_path: Path, how: str) -> None:
    ledger = tmp_path / "ledger.db"
    deadline = "0.3" if how == "deadline" else "60"
    options = ("--stop-timeout", deadline)
    with ExitStack() as stack:
        upstream = stack.enter_context(raw_upstream(Holding()))
        process, port = stack.enter_context(serving(ledger, upstream.url, *options))
        streams = stack.enter_context(open_streams(port, 3))
        process.send_signal(signal.SIGTERM)
        if how == "second signal":
            until(lambda: is_refused(port), "the first signal seen")
            process.send_signal(signal.SIGTERM)
        began = time.monotonic()
        answers = [reading.message(is_answer=True) for reading in streams]
        _, errors = process.communicate(timeout=10)
        assert time.monotonic() - began < 5
    assert [answer.whole for answer in answers if answer] == [False] * 3
    assert process.returncode == 0, errors
    assert "Traceback" not in errors
    for row in rows_of(ledger):
        assert row.settlement is not None
        assert row.settlement.ending is Ending.LIMIT_REACHED
        assert row.settlement.observation.shut_down
        assert row.settlement.usage.output_tokens.basis is Basis.COUNTED
    assert len(rows_of(ledger)) == 3


def test_a_grace_read_under_way_is_waited_for(behind: Behind) -> None:
    holding = threading.Event()

    def answer(connection: socket.socket, _: Heard) -> bool:
        connection.sendall(stream_head() + chunked(TEXT, FINISH, end=False))
        holding.wait(10)
        connection.sendall(chunked(USAGE, DONE))
        return True

    with raw_upstream(answer) as upstream:
        stage = behind(upstream.url, grace_seconds=5.0)
        with connect(stage.gateway.port) as connection:
            raw = body_of(STREAMED)
            connection.sendall(request_bytes("POST", PATH, stage.headers, raw))
            told = b""
            while b'"stop"' not in told:
                told += connection.recv(65_536)
        time.sleep(0.1)
        stage.gateway.ask_to_stop()
        time.sleep(0.1)
        assert stage.gateway.is_running
        holding.set()
        row = stage.row()
        until(lambda: not stage.gateway.is_running, "stopped")
    assert row.settlement is not None
    assert row.settlement.ending is Ending.COMPLETED
    assert stage.gateway.tasks_left == set()


def test_a_stopped_gateway_leaves_no_task_behind(behind: Behind) -> None:
    holding = Holding()
    with raw_upstream(holding) as upstream:
        stage = behind(upstream.url, stop_seconds=0.2)
        with open_streams(stage.gateway.port, 1, stage.headers) as streams:
            stage.gateway.ask_to_stop()
            until(lambda: not stage.gateway.is_running, "stopped")
            answer = streams[0].message(is_answer=True)
    assert answer is not None
    assert not answer.whole
    assert stage.gateway.tasks_left == set()
    assert stage.row().settlement.ending is Ending.LIMIT_REACHED  # type: ignore[union-attr]


def test_a_call_that_waits_for_its_headers_at_the_deadline_is_stopped_by_us(behind: Behind) -> None:
    asked, over = threading.Event(), threading.Event()

    def silent(_: socket.socket, __: Heard) -> bool:
        asked.set()
        over.wait(10)
        return False

    with raw_upstream(silent) as upstream:
        stage = behind(upstream.url, stop_seconds=0.1)
        with connect(stage.gateway.port) as connection:
            connection.sendall(request_bytes("POST", PATH, stage.headers, body_of(ASKED)))
            assert asked.wait(10)
            stage.gateway.ask_to_stop()
            until(lambda: not stage.gateway.is_running, "stopped")
        over.set()
    assert stage.row().settlement.ending is Ending.LIMIT_REACHED  # type: ignore[union-attr]


# Starting.


def serve(*options: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "lastchunk", "serve", *options]
    environment = {name: value for name, value in os.environ.items() if "LASTCHUNK" not in name}
    return subprocess.run(
        command, capture_output=True, text=True, timeout=30, cwd=cwd, env=environment
    )


def test_a_ledger_that_cannot_be_written_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no directory")
    places = ["file/ledger.db", ".", "/proc/ledger.db"]
    for place in places:
        told = serve("--upstream", "http://127.0.0.1:9", "--ledger", place, cwd=tmp_path)
        assert told.returncode == 2, told.stderr
        assert told.stderr.count("Error: ") == 1
        assert "ledger" in told.stderr
        assert "Traceback" not in told.stderr


def test_a_file_that_is_no_ledger_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("these are notes, and no database at all\n" * 50)
    told = serve("--upstream", "http://127.0.0.1:9", "--ledger", "notes.txt", cwd=tmp_path)
    assert told.returncode == 2
    assert "Error: " in told.stderr
    assert "Traceback" not in told.stderr


@pytest.mark.parametrize(
    "url", ["api.openai.com", "ftp://host", "http://", "http:///v1", "https://host/v1?x=1", ""]
)
def test_an_upstream_that_is_no_base_url_is_a_clear_error(tmp_path: Path, url: str) -> None:
    told = serve("--upstream", url, "--port", "0", cwd=tmp_path)
    assert told.returncode == 2
    assert "upstream" in told.stderr
    assert "Traceback" not in told.stderr


def test_a_port_in_use_is_a_clear_error(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        told = serve("--upstream", "http://127.0.0.1:9", "--port", port, cwd=tmp_path)
    assert told.returncode == 2
    assert f"127.0.0.1:{port}" in told.stderr
    assert "in use" in told.stderr
    assert "Traceback" not in told.stderr
    assert "Unclosed" not in told.stderr


def test_the_upstreams_password_is_shown_nowhere(tmp_path: Path) -> None:
    ok = answer_bytes(b"{}")
    with raw_upstream(ok) as upstream:
        url = upstream.url.replace("//", "//me:secret@")
        with serving(tmp_path / "ledger.db", url) as (process, port):
            assert exchange(port, "GET", "/v1/models").status == 200
            process.send_signal(signal.SIGTERM)
            out, errors = process.communicate(timeout=10)
    assert "secret" not in out + errors
