"""Every path is forwarded, byte for byte."""

import gzip
import hashlib
import json

import pytest
from gateway_stage import CHAT, Behind, body_of
from raw_http import (
    Heard,
    RawUpstream,
    Reading,
    answer_bytes,
    chunked,
    connect,
    exchange,
    exchange_raw,
    raw_upstream,
    request_bytes,
    stream_head,
)

OK = answer_bytes(b'{"ok":true}', headers=[("Content-Type", "application/json")])


def heard_by(upstream: RawUpstream) -> Heard:
    assert len(upstream.heard) == 1
    return upstream.heard[0]


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"])
def test_any_method_with_any_body_arrives_as_it_was_sent(behind: Behind, method: str) -> None:
    body = bytes(range(256)) * 3
    with raw_upstream(OK) as upstream:
        answer = exchange(behind(upstream.url).gateway.port, method, "/v1/files/f-1", body=body)
        told = heard_by(upstream)
    assert (told.line, told.body) == (f"{method} /v1/files/f-1 HTTP/1.1", body)
    assert (answer.status, answer.body) == (200, b'{"ok":true}')


@pytest.mark.parametrize(
    "target",
    [
        "/",
        "/v1/models?limit=2&after=a%26b&empty=&again=1&again=2",
        "/v1/files/a%20b%2Fc%C3%A9?x=%zz&y=+",
        "/v1/files/%E2%82%AC;v=1,2/@x:y",
        "/v1/models/ft:gpt-4o:acme::abc",
        "/openai/deployments/my-gpt/embeddings?api-version=2024-10-21",
        "/v1/x?path=/../../etc/passwd",
        "/v1/..hidden/...",
    ],
)
def test_a_target_arrives_with_every_escape_as_it_was_written(behind: Behind, target: str) -> None:
    with raw_upstream(OK) as upstream:
        exchange(behind(upstream.url).gateway.port, "GET", target)
        assert heard_by(upstream).line == f"GET {target} HTTP/1.1"


@pytest.mark.parametrize(
    ("base", "target", "sent"),
    [
        ("/v1", "/v1/models", "/v1/models"),
        ("/v1/", "/models", "/v1/models"),
        ("/api/openai", "/v1/models", "/api/openai/v1/models"),
        ("/v1", "/v1beta/models", "/v1/v1beta/models"),
    ],
)
def test_the_upstreams_own_path_is_put_before_once(
    behind: Behind, base: str, target: str, sent: str
) -> None:
    with raw_upstream(OK) as upstream:
        exchange(behind(upstream.url + base).gateway.port, "GET", target)
        assert heard_by(upstream).line == f"GET {sent} HTTP/1.1"


@pytest.mark.parametrize(
    "target",
    [
        "/../admin",
        "/v1/../../admin",
        "/v1/%2e%2e/admin",
        "/v1/%2E./admin",
        "/v1/..%2fadmin",
        "/v1/..%5cadmin",
        "/v1\\..\\admin",
        "/v1/./models",
        "/v1/..",
        "//evil.test/v1/models",
        "http://evil.test/v1/models",
        "https://gateway.test/v1/models",
    ],
)
def test_a_target_that_may_leave_the_upstream_is_refused(behind: Behind, target: str) -> None:
    with raw_upstream(OK) as upstream:
        answer = exchange(behind(f"{upstream.url}/v1").gateway.port, "OPTIONS", target)
        assert upstream.heard == []
    assert answer.status == 400
    assert json.loads(answer.body)["error"]["code"] == "bad_request_target"


@pytest.mark.parametrize("line", ["CONNECT evil.test:443", "GET evil.test:443", "OPTIONS *"])
def test_a_target_that_is_no_path_reaches_nobody(behind: Behind, line: str) -> None:
    with raw_upstream(OK) as upstream:
        answer = exchange(behind(upstream.url).gateway.port, *line.split(" "))
        assert upstream.heard == []
    assert 400 <= answer.status < 500


def test_a_request_keeps_its_headers_but_those_of_the_connection_and_our_own(
    behind: Behind,
) -> None:
    sent = {
        "Authorization": "Bearer sk-1",
        "OpenAI-Beta": "assistants=v2",
        "Cookie": "a=1; b=2",
        "X-Odd": 'q="1,2"; ä',
        "Accept": "*/*",
        "Connection": "keep-alive, X-Secret-Hop",
        "X-Secret-Hop": "1",
        "Keep-Alive": "timeout=5",
        "TE": "trailers",
        "Proxy-Authorization": "Basic eA==",
        "Upgrade": "h2c",
        "X-Lastchunk-Account": "web",
        "X-Lastchunk-Tags": "a=b",
        "X-Lastchunk-Anything": "1",
    }
    with raw_upstream(OK) as upstream:
        raw = request_bytes("GET", "/v1/models", sent).decode("latin-1").encode()
        exchange_raw(behind(upstream.url).gateway.port, raw)
        told = heard_by(upstream)
        host = f"127.0.0.1:{upstream.port}"
    arrived = {name.lower(): value for name, value in told.headers}
    assert arrived.pop("host") == host
    assert arrived == {
        "authorization": "Bearer sk-1",
        "openai-beta": "assistants=v2",
        "cookie": "a=1; b=2",
        "x-odd": 'q="1,2"; ä'.encode().decode("latin-1"),
        "accept": "*/*",
    }


def test_an_answer_keeps_its_headers_but_those_of_the_connection(behind: Behind) -> None:
    headers = [
        ("Set-Cookie", "a=1; Path=/"),
        ("Set-Cookie", "b=2"),
        ("x-request-id", "req_1"),
        ("Server", "cloudflare"),
        ("Date", "Sat, 21 Nov 2026 00:00:00 GMT"),
        ("Content-Type", "application/octet-stream"),
        ("Connection", "keep-alive, x-hop"),
        ("x-hop", "1"),
        ("Keep-Alive", "timeout=5"),
        ("Upgrade", "h2c"),
        ("Proxy-Authenticate", "Basic"),
    ]
    with raw_upstream(answer_bytes(b"\x00\xff", headers=headers)) as upstream:
        answer = exchange(behind(upstream.url).gateway.port, "GET", "/v1/files/f/content")
    kept = [(name.lower(), value) for name, value in answer.headers]
    assert sorted(kept) == sorted(
        [
            ("set-cookie", "a=1; Path=/"),
            ("set-cookie", "b=2"),
            ("x-request-id", "req_1"),
            ("server", "cloudflare"),
            ("date", "Sat, 21 Nov 2026 00:00:00 GMT"),
            ("content-type", "application/octet-stream"),
            ("content-length", "2"),
        ]
    )
    assert answer.body == b"\x00\xff"


def test_a_compressed_answer_stays_compressed(behind: Behind) -> None:
    packed = gzip.compress(b'{"data":[]}')
    headers = [("Content-Encoding", "gzip"), ("Content-Type", "application/json")]
    with raw_upstream(answer_bytes(packed, headers=headers)) as upstream:
        port = behind(upstream.url).gateway.port
        answer = exchange(port, "GET", "/v1/models", {"Accept-Encoding": "gzip, br"})
        assert heard_by(upstream).header("accept-encoding") == "gzip, br"
    assert (answer.body, answer.header("content-encoding")) == (packed, "gzip")


@pytest.mark.parametrize("status", ["204 No Content", "304 Not Modified"])
def test_an_answer_without_a_body_has_none(behind: Behind, status: str) -> None:
    with raw_upstream(f'HTTP/1.1 {status}\r\nETag: "1"\r\n\r\n'.encode()) as upstream:
        with connect(behind(upstream.url).gateway.port) as connection:
            reading = Reading(connection)
            for _ in range(2):  # the connection is in order afterwards
                connection.sendall(request_bytes("GET", "/v1/models/a"))
                answer = reading.message(is_answer=True)
                assert answer is not None
                assert f"{answer.status}" == status[:3]
                assert answer.header("etag") == '"1"'
                assert answer.header("content-type") is None


def test_head_tells_the_length_and_sends_no_body(behind: Behind) -> None:
    with raw_upstream(b"HTTP/1.1 200 OK\r\nContent-Length: 1234\r\n\r\n") as upstream:
        with connect(behind(upstream.url).gateway.port) as connection:
            reading = Reading(connection)
            for _ in range(2):
                connection.sendall(request_bytes("HEAD", "/v1/files/f/content"))
                answer = reading.message(is_answer=True, bodiless=True)
                assert answer is not None
                assert (answer.status, answer.header("content-length")) == (200, "1234")
        assert [told.line for told in upstream.heard] == ["HEAD /v1/files/f/content HTTP/1.1"] * 2


def test_a_redirect_is_the_callers_to_follow(behind: Behind) -> None:
    headers = [("Location", "https://elsewhere.test/x?a=%20")]
    with raw_upstream(answer_bytes(b"moved", "307 Temporary Redirect", headers)) as upstream:
        answer = exchange(behind(upstream.url).gateway.port, "GET", "/v1/files")
        assert len(upstream.heard) == 1
    assert (answer.status, answer.body) == (307, b"moved")
    assert answer.header("location") == "https://elsewhere.test/x?a=%20"


def test_the_reason_phrase_passes(behind: Behind) -> None:
    with raw_upstream(answer_bytes(b"", "418 I'm a teapot")) as upstream:
        answer = exchange(behind(upstream.url).gateway.port, "GET", "/v1/tea")
    assert answer.line == "HTTP/1.1 418 I'm a teapot"


def test_a_big_upload_streams_through(behind: Behind) -> None:
    """The upstream has the first half before the caller has sent the second."""
    half = bytes(range(256)) * 8192  # 2 MiB
    digest = hashlib.sha256()
    sizes: list[int] = []

    def answer(connection: object, heard: Heard) -> None:
        digest.update(heard.body)
        sizes.append(len(heard.body))
        connection.sendall(OK)  # type: ignore[attr-defined]

    head = request_bytes("POST", "/v1/files", {"Content-Length": str(2 * len(half))})
    with raw_upstream(answer) as upstream:
        with connect(behind(upstream.url).gateway.port) as connection:
            connection.sendall(head + half)
            connection.sendall(half)
            told = Reading(connection).message(is_answer=True)
        assert told is not None
        assert heard_by(upstream).header("content-length") == str(2 * len(half))
    assert told.status == 200
    assert sizes == [2 * len(half)]
    assert digest.digest() == hashlib.sha256(half + half).digest()


def test_an_upload_in_chunks_arrives_whole(behind: Behind) -> None:
    parts = [b"--b\r\nContent-Disposition: form-data; name=file\r\n\r\n", b"\0" * 70_000, b"--b--"]
    headers = {"Transfer-Encoding": "chunked", "Content-Type": "multipart/form-data; boundary=b"}
    with raw_upstream(OK) as upstream:
        port = behind(upstream.url).gateway.port
        answer = exchange(port, "POST", "/v1/files", headers, chunked(*parts))
        told = heard_by(upstream)
    assert (answer.status, told.body) == (200, b"".join(parts))
    assert told.header("content-type") == "multipart/form-data; boundary=b"


def test_a_metered_request_in_chunks_is_metered(behind: Behind) -> None:
    raw = body_of(CHAT)
    headers = {"Transfer-Encoding": "chunked"}
    with raw_upstream(OK) as upstream:
        stage = behind(upstream.url)
        answer = exchange(
            stage.gateway.port,
            "POST",
            "/v1/chat/completions",
            headers | stage.headers,
            chunked(raw[:10], raw[10:]),
        )
        assert heard_by(upstream).body == raw
    assert answer.header("x-lastchunk-call-id") == stage.row().call_id


def test_100_continue_is_answered_here_and_not_waited_for_there(behind: Behind) -> None:
    raw = body_of(CHAT)
    with raw_upstream(OK) as upstream:
        stage = behind(upstream.url)
        headers = {"Expect": "100-continue", "Content-Length": str(len(raw))} | stage.headers
        for path in ("/v1/chat/completions", "/v1/embeddings"):
            with connect(stage.gateway.port) as connection:
                reading = Reading(connection)
                connection.sendall(request_bytes("POST", path, headers))
                told = reading.message(is_answer=True)
                assert told is not None
                assert told.status == 100
                connection.sendall(raw)
                answer = reading.message(is_answer=True)
                assert answer is not None
                assert answer.status == 200
        assert [told.header("expect") for told in upstream.heard] == [None, None]
    stage.row()


def test_pipelined_requests_are_answered_in_order(behind: Behind) -> None:
    def answer(connection: object, heard: Heard) -> None:
        connection.sendall(answer_bytes(heard.line.encode()))  # type: ignore[attr-defined]

    targets = [f"/v1/models/m{number}" for number in range(5)]
    with raw_upstream(answer) as upstream:
        with connect(behind(upstream.url).gateway.port) as connection:
            connection.sendall(b"".join(request_bytes("GET", target) for target in targets))
            reading = Reading(connection)
            told = [reading.message(is_answer=True) for _ in targets]
    lines = [one.body.decode() if one else "" for one in told]
    assert lines == [f"GET {target} HTTP/1.1" for target in targets]


def test_an_http_1_0_client_gets_a_plain_body(behind: Behind) -> None:
    stream = b'data: {"choices":[]}\n\ndata: [DONE]\n\n'
    with raw_upstream(stream_head() + chunked(stream)) as upstream:
        stage = behind(upstream.url)
        raw = request_bytes("POST", "/v1/chat/completions", stage.headers, body_of(CHAT))
        answer = exchange_raw(stage.gateway.port, raw.replace(b"HTTP/1.1", b"HTTP/1.0", 1))
    assert answer.header("transfer-encoding") is None
    assert answer.body == stream
    stage.row()


def test_an_upgrade_that_nobody_takes_does_not_cost_the_body(behind: Behind) -> None:
    """Java's HttpClient offers h2c with every request."""
    raw = body_of(CHAT)
    offered = {
        "Connection": "Upgrade, HTTP2-Settings",
        "Upgrade": "h2c",
        "HTTP2-Settings": "AAEAAEAAAAIAAAABAAMAAABkAAQBAAAAAAUAAEAA",
    }
    with raw_upstream(OK) as upstream:
        stage = behind(upstream.url)
        headers = offered | stage.headers
        answer = exchange(stage.gateway.port, "POST", "/v1/chat/completions", headers, raw)
        told = heard_by(upstream)
    assert (answer.status, told.body) == (200, raw)
    assert told.header("upgrade") is None
    assert told.header("http2-settings") is None
    stage.row()


def test_long_lines_and_headers_pass_both_ways(behind: Behind) -> None:
    long = "x" * 30_000
    with raw_upstream(answer_bytes(b"1", headers=[("x-long", long)])) as upstream:
        port = behind(upstream.url).gateway.port
        answer = exchange(port, "GET", f"/v1/models?q={long}", {"X-Long": long})
        told = heard_by(upstream)
    assert told.line == f"GET /v1/models?q={long} HTTP/1.1"
    assert (told.header("x-long"), answer.header("x-long")) == (long, long)


def test_header_injection_gets_nowhere(behind: Behind) -> None:
    with raw_upstream(OK) as upstream:
        port = behind(upstream.url).gateway.port
        for bad in ("a\nX-Evil: 1", "a\rX-Evil: 1", "a\0b"):
            answer = exchange(port, "GET", "/v1/models", {"X-A": bad})
            assert answer.status == 400
        answer = exchange(port, "GET", "/v1/models?x=%0d%0aX-Evil:%201")
        assert answer.status == 200
        told = heard_by(upstream)
    assert told.line == "GET /v1/models?x=%0d%0aX-Evil:%201 HTTP/1.1"
    assert told.header("x-evil") is None


@pytest.mark.parametrize(
    "framing",
    [
        {"Content-Length": "5", "Transfer-Encoding": "chunked"},
        {"Content-Length": "5, 6"},
        {"Content-Length": "-1"},
        {"Transfer-Encoding": "chunked, identity"},
    ],
)
def test_a_request_with_two_lengths_is_no_request(behind: Behind, framing: dict[str, str]) -> None:
    """Request smuggling: what two servers read in two ways is passed to neither."""
    with raw_upstream(OK) as upstream:
        port = behind(upstream.url).gateway.port
        answer = exchange(port, "POST", "/v1/files", framing, b"0\r\n\r\n")
        assert upstream.heard == []
    assert answer.status == 400


def test_many_requests_share_one_upstream_connection(behind: Behind) -> None:
    peers: set[object] = set()

    def answer(connection: object, heard: Heard) -> None:
        peers.add(connection.getpeername())  # type: ignore[attr-defined]
        connection.sendall(OK)  # type: ignore[attr-defined]

    with raw_upstream(answer) as upstream:
        stage = behind(upstream.url)
        for number in range(6):
            path = "/v1/models" if number % 2 else "/v1/chat/completions"
            raw = body_of(CHAT)
            assert exchange(stage.gateway.port, "POST", path, stage.headers, raw).status == 200
        stage.rows(3)
    assert len(peers) == 1
