"""Attacks on the gateway's door, from raw sockets: nothing reaches the provider that should not."""

import hmac
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest
from gateway_stage import CHAT, RunningGateway, body_of
from raw_http import RawUpstream, Reading, answer_bytes, connect, raw_upstream, request_bytes

from lastchunk.bookkeeper import Bookkeeper
from lastchunk.clock import SystemClock
from lastchunk.config import read_config
from lastchunk.errors import SettingsError
from lastchunk.gateway import relay
from lastchunk.ledger import Ledger, Reader, keys
from lastchunk.ledger.keys import KeyTable
from lastchunk.pricing.book import PriceBook

PATH = "/v1/chat/completions"
SECRET = "sk-of-the-provider"
ANSWER = (
    b'{"id":"r1","model":"gpt-4o","choices":[],"usage":{"prompt_tokens":1,"completion_tokens":1}}'
)


@dataclass
class Fort:
    """A gateway with one key, before an upstream that keeps what it hears."""

    gateway: RunningGateway
    upstream: RawUpstream
    reader: Reader
    key: str

    def heads(self, **more: str) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.key}", "Content-Type": "application/json"} | more

    def answers(self, raw: bytes) -> list[int]:
        """The status of every answer to these bytes, until the gateway closes or is silent."""
        found = []
        with connect(self.gateway.port) as connection:
            connection.settimeout(2)
            connection.sendall(raw)
            reading = Reading(connection)
            try:
                while (heard := reading.message(is_answer=True)) is not None:
                    found.append(heard.status)
            except TimeoutError:
                pass
        return found


@pytest.fixture
def fort(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Fort]:
    monkeypatch.setenv("TEST_PROVIDER_KEY", SECRET)
    with ExitStack() as stack:
        told = answer_bytes(ANSWER, headers=[("Content-Type", "application/json")])
        upstream = stack.enter_context(raw_upstream(told))
        rules = f'[upstreams.a]\nurl = "{upstream.url}/base"\napi_key_env = "TEST_PROVIDER_KEY"\n'
        url, clock = str(tmp_path / "ledger.db"), SystemClock()
        books = Bookkeeper(Ledger.open(url, clock=clock), PriceBook.load(None), clock)
        stack.callback(books.close)
        table = KeyTable(url)
        stack.callback(table.close)
        _, key = table.create("acme", "", clock.now_ms())
        gateway = RunningGateway(
            None,
            books,
            open_keys=lambda: KeyTable(url),
            config=read_config(rules, "lastchunk.toml"),
            idle_seconds=0.5,
        )
        stack.callback(gateway.start().stop)
        yield Fort(gateway, upstream, stack.enter_context(Reader.open(url)), key)


SMUGGLED = b"POST /v1/smuggled HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n"


@pytest.mark.parametrize(
    "framing",
    [
        "Content-Length: 4\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n",
        "Transfer-Encoding: xchunked\r\n",
        "Transfer-Encoding : chunked\r\n",
        "Content-Length: 5\r\nContent-Length: 6\r\n",
        "Content-Length: +5\r\n",
        "Content-Length: 5, 5\r\n",
    ],
)
def test_a_body_of_doubtful_length_smuggles_no_second_request(fort: Fort, framing: str) -> None:
    head = f"POST {PATH} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {fort.key}\r\n{framing}\r\n"
    answers = fort.answers(head.encode() + b"0\r\n\r\n" + SMUGGLED)
    assert answers
    assert answers[0] >= 400
    assert all("smuggled" not in heard.line for heard in fort.upstream.heard)


@pytest.mark.parametrize(
    "line",
    [
        "x-lastchunk-account: acme\r\n bad: folded",
        "x-lastchunk-account: acme\x00other",
        "x-lastchunk-account: acme\rx: y",
        "x lastchunk: y",
    ],
)
def test_a_header_with_control_characters_is_refused(fort: Fort, line: str) -> None:
    body = body_of(CHAT)
    head = (
        f"POST {PATH} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {fort.key}\r\n{line}\r\n"
        f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    )
    assert fort.answers(head.encode("latin-1") + body)[0] >= 400
    assert fort.upstream.heard == []


def test_a_tag_cannot_bring_a_terminals_commands_into_the_ledger(fort: Fort) -> None:
    heads = fort.heads(**{"x-lastchunk-tags": "team=\x9b31mred", "Connection": "close"})
    assert fort.answers(request_bytes("POST", PATH, heads, body_of(CHAT))) == [200]
    row = next(iter(fort.reader.calls()))
    assert all(text.isprintable() for pair in row.call.tags for text in pair)


def test_oversized_heads_are_refused(fort: Fort) -> None:
    for heads in ({"x-long": "a" * 70_000}, {"Authorization": "Bearer lc-" + "a" * 70_000}):
        raw = request_bytes("POST", PATH, fort.heads(Connection="close") | heads, body_of(CHAT))
        assert fort.answers(raw)[0] >= 400
    assert fort.upstream.heard == []


def test_an_oversized_body_is_refused_before_it_is_read(fort: Fort) -> None:
    heads = fort.heads(**{"Content-Length": str(1 << 40)})
    assert fort.answers(request_bytes("POST", PATH, heads) + b"{")[:1] == [413]
    assert fort.upstream.heard == []


def test_a_head_that_does_not_end_is_given_up(fort: Fort) -> None:
    began = time.monotonic()
    with connect(fort.gateway.port) as connection:
        connection.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\n")
        assert connection.recv(100) == b""
    assert time.monotonic() - began < 5


def test_a_body_that_does_not_end_is_given_up(fort: Fort, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relay, "BODY_SECONDS", 0.3)
    heads = fort.heads(**{"Content-Length": "100"})
    assert fort.answers(request_bytes("POST", PATH, heads) + b"{")[:1] == [408]
    assert list(fort.reader.calls()) == []


@pytest.mark.parametrize(
    "target",
    [
        "/../admin",
        "/v1/../../admin",
        "/v1/%2e%2e/%2e%2e/admin",
        "/v1/..%2f..%2fadmin",
        "/v1/..\\admin",
        "//evil.test/v1/chat/completions",
        "http://evil.test/v1/chat/completions",
    ],
)
def test_no_path_leaves_the_upstream_and_no_key_goes_there(fort: Fort, target: str) -> None:
    raw = request_bytes("POST", target, fort.heads(Connection="close"), body_of(CHAT))
    answers = fort.answers(raw)
    assert answers
    for heard in fort.upstream.heard:
        assert heard.line.split(" ")[1].startswith("/base/")
        assert ".." not in heard.line
    assert fort.upstream.heard or answers[0] == 400


@pytest.mark.parametrize(
    "url",
    [
        "file:///etc/passwd",
        "gopher://127.0.0.1",
        "http://169.254.169.254/latest",
        "http://[fd00:ec2::254]/",
        "https://user:password@api.openai.com",
        "api.openai.com",
    ],
)
def test_an_upstream_that_is_no_provider_is_refused_at_the_start(url: str) -> None:
    with pytest.raises(SettingsError, match=r"line 2"):
        read_config(f'[upstreams.a]\nurl = "{url}"\n', "lastchunk.toml")


def test_the_callers_host_header_does_not_choose_the_upstream(fort: Fort) -> None:
    heads = fort.heads(Host="169.254.169.254", Connection="close")
    heads |= {"X-Forwarded-Host": "evil.test"}
    assert fort.answers(request_bytes("POST", PATH, heads, body_of(CHAT))) == [200]
    assert fort.upstream.heard[0].header("host") == fort.upstream.url.rpartition("/")[2]


def test_keys_and_content_are_in_no_log_and_no_answer(
    fort: Fort, caplog: pytest.LogCaptureFixture
) -> None:
    marked = body_of(CHAT | {"messages": [{"role": "user", "content": "the-secret-content"}]})
    with caplog.at_level("DEBUG"):
        for key in (fort.key, fort.key[:-1], "lc-x-the-secret-content"):
            heads = fort.heads(Connection="close") | {"Authorization": f"Bearer {key}"}
            for body in (marked, b"[the-secret-content"):
                fort.answers(request_bytes("POST", PATH, heads, body))
    for secret in (fort.key.split("-")[2], SECRET, "the-secret-content"):
        assert secret not in caplog.text


def test_a_key_is_compared_in_constant_time_also_where_there_is_none(
    fort: Fort, monkeypatch: pytest.MonkeyPatch
) -> None:
    compared: list[tuple[int, int]] = []
    compare = hmac.compare_digest

    def spy(presented: str, expected: str) -> bool:
        compared.append((len(presented), len(expected)))
        return compare(presented, expected)

    monkeypatch.setattr(keys.hmac, "compare_digest", spy)
    wrong = fort.key[:-1] + ("0" if fort.key[-1] != "0" else "1")
    for key in (fort.key, wrong, "lc-nobody-" + "0" * 50, "sk-of-somebody-else"):
        heads = fort.heads(Connection="close") | {"Authorization": f"Bearer {key}"}
        fort.answers(request_bytes("POST", PATH, heads, body_of(CHAT)))
    assert compared == [(64, 64)] * 4
