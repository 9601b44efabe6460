"""Budgets through the gateway: what is refused, what is told, and a stream that is stopped."""

import asyncio
import itertools
import json
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import openai
import pytest
from gateway_stage import CHAT, STREAMED, RunningGateway, Stage, body_of, sse, until
from raw_http import Heard, chunked, exchange, raw_upstream, stream_head

from lastchunk.bookkeeper import Bookkeeper
from lastchunk.clock import SystemClock
from lastchunk.config import read_config
from lastchunk.ledger import Ledger, Reader
from lastchunk.ledger.windows import FOREVER_MS, Window, WindowSums
from lastchunk.meter.ending import Ending
from lastchunk.money import format_usd
from lastchunk.pricing.book import PriceBook
from lastchunk.simulator import Fault, Script, Simulator
from lastchunk.simulator.script import Gzip
from lastchunk.stage.truth import cost_in, true_counts
from lastchunk.usage import Basis

MESSAGES: Any = CHAT["messages"]


@dataclass
class Limited(Stage):
    """A stage whose gateway has limits and a ledger of its own."""

    books: Bookkeeper = None  # type: ignore[assignment]

    def holds_nothing(self) -> bool:
        return self.books.open_calls() == 0

    def chat(self, script: Script | None = None, **more: Any) -> Any:
        with self.client(script=script or Script()) as client:
            return client.chat.completions.create(**(CHAT | more))


class LimitedBy(Protocol):
    """Starts a gateway with one limit, before the simulator or another upstream."""

    def __call__(self, rows: str, upstream: str | None = None) -> Limited: ...


@pytest.fixture
def limited(tmp_path: Path, shared_sim: Simulator) -> Iterator[LimitedBy]:
    """`limited('tokens = 500\\nper = "day"')` starts a gateway with that limit."""
    with ExitStack() as stack:

        def start(rows: str, upstream: str | None = None) -> Limited:
            url = str(tmp_path / "ledger.db")
            clock = SystemClock()
            books = Bookkeeper(Ledger.open(url, clock=clock), PriceBook.load(None), clock)
            stack.callback(books.close)
            place = f'[upstreams.sim]\nurl = "{upstream or shared_sim.url}"\n'
            told = f'{place}[[limits]]\nname = "a cap"\n{rows}\n'
            gateway = RunningGateway(None, books, config=read_config(told, "lastchunk.toml"))
            stack.callback(gateway.start().stop)
            reader = stack.enter_context(Reader.open(url))
            return Limited(gateway, reader, shared_sim, books=books)

        yield start


def test_a_call_that_may_cost_more_than_is_left_is_refused_and_not_sent(limited: LimitedBy) -> None:
    stage = limited('usd = "0.001"\nper = "month"')
    with pytest.raises(openai.APIStatusError) as refused:
        stage.chat(max_tokens=4_000)
    answer = refused.value.response
    assert (answer.status_code, refused.value.code) == (402, "insufficient_quota")
    assert "'a cap'" in refused.value.message
    assert answer.headers["x-should-retry"] == "false"
    assert answer.headers["x-ratelimit-limit-usd"] == "0.001000"
    until(stage.holds_nothing, "the refused call is forgotten")
    assert list(stage.reader.calls()) == []
    assert [call for call in stage.sim.bill(wait_s=0) if call.tag == stage.name] == []  # type: ignore[union-attr]
    assert stage.chat(max_tokens=20).choices  # a smaller one fits


def test_what_remains_is_told_with_this_call_in_it(limited: LimitedBy) -> None:
    stage = limited('requests = 3\nper = "day"')
    with stage.client() as client:
        raw = client.chat.completions.with_raw_response.create(model="gpt-4o", messages=MESSAGES)
    assert raw.headers["x-ratelimit-limit-requests"] == "3"
    assert raw.headers["x-ratelimit-remaining-requests"] == "2"
    assert raw.headers["x-ratelimit-reset-requests"]


def test_requests_a_span_are_limited_with_429(limited: LimitedBy) -> None:
    stage = limited('requests = 2\nper = "day"')
    stage.chat()
    stage.chat()
    with pytest.raises(openai.RateLimitError) as refused:
        stage.chat()
    headers = refused.value.response.headers
    assert 0 < int(headers["retry-after"]) <= 86_400
    assert headers["x-ratelimit-remaining-requests"] == "0"
    assert len(stage.rows(2)) == 2


def test_nobody_is_left_to_sleep_until_the_next_month(limited: LimitedBy) -> None:
    stage = limited('requests = 1\nper = "month"')
    stage.chat()
    with pytest.raises(openai.RateLimitError) as refused:
        stage.chat()
    headers = refused.value.response.headers
    is_soon = int(headers["retry-after"]) <= 60  # only in the last minute of a month
    assert headers.get("x-should-retry") == (None if is_soon else "false")


def test_open_streams_are_limited_and_freed_by_their_end(limited: LimitedBy) -> None:
    stage = limited("streams = 1")
    stall = Script(fault=Fault("stall", "first_chunk", seconds=20))
    with stage.client(script=stall) as client:
        stream = client.chat.completions.create(model="gpt-4o", messages=MESSAGES, stream=True)
        with pytest.raises(openai.RateLimitError):
            stage.chat()
        stream.close()
    until(stage.holds_nothing, "the stream is settled")
    assert stage.chat().choices


def test_what_cannot_be_accounted_for_does_not_pass_a_budget(limited: LimitedBy) -> None:
    stage = limited('usd = "1"\nper = "day"')
    for path, body in (("/v1/embeddings", b"{}"), ("/v1/chat/completions", b"no json")):
        told = exchange(stage.gateway.port, "POST", path, stage.headers, body)
        assert told.status == 403
        assert json.loads(told.body)["error"]["code"] == "unmetered_not_allowed"


def test_a_retry_without_what_was_asked_for_needs_no_second_hold(limited: LimitedBy) -> None:
    stage = limited("streams = 1")
    script = Script(fault=Fault("reject_stream_options"))
    with stage.client(script=script) as client:
        stream = client.chat.completions.create(model="gpt-4o", messages=MESSAGES, stream=True)
        assert list(stream)


def test_a_stream_that_passes_its_budget_is_stopped_with_a_proper_end(limited: LimitedBy) -> None:
    stage = limited('tokens = 400\nper = "day"\nmode = "balanced"')
    for _ in range(20):
        stage.books.accustom(stage.name, "gpt-4o", 50)
    script = Script(output_tokens=3_000, pacing_s=0.002)
    headers = stage.scripted(script)
    asked = body_of(STREAMED | {"stream_options": {"include_usage": True}})
    told = exchange(stage.gateway.port, "POST", "/v1/chat/completions", headers, asked)
    assert told.whole
    frames = [line[6:] for line in told.body.decode().split("\n\n") if line]
    assert frames[-1] == "[DONE]"
    error = json.loads(frames[-2])["error"]
    assert error["code"] == "rate_limit_exceeded"
    assert "'a cap'" in error["message"]
    assert json.loads(frames[-3])["usage"]["completion_tokens"] > 100
    assert json.loads(frames[-4])["choices"][0]["finish_reason"] == "length"
    assert all(json.loads(frame) for frame in frames[:-1])
    row, billed = stage.row(), stage.billed()[0]
    assert row.settlement is not None
    assert row.settlement.ending is Ending.LIMIT_REACHED
    assert row.settlement.usage.output_tokens.basis is Basis.COUNTED  # type: ignore[union-attr]
    total = billed.prompt_tokens + billed.output_tokens
    print(f"the cap is 400 tokens, the provider's bill {total}")
    assert 300 < total < 430


def test_a_stopped_stream_says_so_to_the_openai_client(limited: LimitedBy) -> None:
    stage = limited('tokens = 300\nper = "day"\nmode = "balanced"')
    for _ in range(20):
        stage.books.accustom(stage.name, "gpt-4o", 50)
    with stage.client(script=Script(output_tokens=2_000, pacing_s=0.002)) as client:
        stream = client.chat.completions.create(model="gpt-4o", messages=MESSAGES, stream=True)
        heard: list[Any] = []
        with pytest.raises(openai.APIError) as stopped:
            heard.extend(chunk for chunk in stream)
    assert "'a cap'" in str(stopped.value)


def test_a_stream_within_its_budget_is_given_more(limited: LimitedBy) -> None:
    stage = limited('tokens = 5000\nper = "day"\nmode = "balanced"')
    for _ in range(20):
        stage.books.accustom(stage.name, "gpt-4o", 50)
    with stage.client(script=Script(output_tokens=1_500, pacing_s=0.001)) as client:
        stream = client.chat.completions.create(model="gpt-4o", messages=MESSAGES, stream=True)
        assert [c for chunk in stream for c in chunk.choices][-1].finish_reason == "stop"
    assert stage.row().settlement.ending is Ending.COMPLETED  # type: ignore[union-attr]


def test_a_responses_stream_is_stopped_in_its_own_words(limited: LimitedBy) -> None:
    stage = limited('tokens = 300\nper = "day"\nmode = "balanced"')
    for _ in range(20):
        stage.books.accustom(stage.name, "gpt-4o", 50)
    headers = stage.scripted(Script(output_tokens=2_000, pacing_s=0.002))
    asked = body_of({"model": "gpt-4o", "input": "hello", "stream": True})
    told = exchange(stage.gateway.port, "POST", "/v1/responses", headers, asked)
    lines = [line for line in told.body.decode().splitlines() if line.startswith("data: ")]
    events = [json.loads(line.removeprefix("data: ")) for line in lines]
    assert [event["type"] for event in events[-2:]] == ["error", "response.incomplete"]
    numbers = [event["sequence_number"] for event in events]
    assert numbers == sorted(set(numbers))
    assert stage.row().settlement.ending is Ending.LIMIT_REACHED  # type: ignore[union-attr]


def looks_of(stage: Limited, stream: Any) -> list[WindowSums]:
    """What the account holds, after each chunk of a stream that is read to its end."""
    looks: list[WindowSums] = []
    for _ in stream:
        looks.append(stage.reader.window(Window("", 0, FOREVER_MS)))
    return looks


def test_a_hold_grows_by_steps_as_its_stream_comes_to_need_them(limited: LimitedBy) -> None:
    stage = limited('tokens = 5000\nper = "ever"\nmode = "balanced"')
    for _ in range(20):
        stage.books.accustom(stage.name, "gpt-4o", 50)
    with stage.client(script=Script(output_tokens=1_500, pacing_s=0.002)) as client:
        stream = client.chat.completions.create(model="gpt-4o", messages=MESSAGES, stream=True)
        looks = looks_of(stage, stream)
    until(stage.holds_nothing, "it is settled")
    held = [look.tokens_usual for look in looks if look.calls_open]
    steps = sorted(set(held))
    assert 50 <= held[0] < 150
    assert len(steps) >= 3, "what it usually needs, 1,024 more, and once more"
    assert all(1_000 < after - before <= 1_050 for before, after in itertools.pairwise(steps[-3:]))
    assert max(held) < 2_500, "it asks for no more than it is about to need"
    after = stage.reader.window(Window("", 0, FOREVER_MS))
    assert (after.tokens_usual, after.tokens_most, after.calls_open) == (0, 0, 0)


def test_a_strict_hold_shrinks_once_the_prompt_is_counted(limited: LimitedBy) -> None:
    stage = limited('tokens = 20000\nper = "ever"')
    long = [{"role": "user", "content": "Tell me more of the sea. " * 200}]
    with stage.client(script=Script(output_tokens=40, pacing_s=0.05)) as client:
        stream = client.chat.completions.create(
            model="gpt-4o", messages=long, stream=True, max_tokens=100
        )
        looks = looks_of(stage, stream)
    held = [look.tokens_most for look in looks if look.calls_open]
    assert held[0] > 5_000, "a token a byte"
    prompt = stage.billed()[0].prompt_tokens
    assert prompt + 100 <= held[-1] < prompt * 1.05 + 100


@pytest.mark.parametrize("packed", ["no", "forced"])
def test_a_cap_on_money_stops_a_stream_also_one_that_comes_compressed(
    limited: LimitedBy, packed: Gzip
) -> None:
    stage = limited('usd = "0.004"\nper = "ever"\nmode = "balanced"')
    for _ in range(20):
        stage.books.accustom(stage.name, "gpt-4o", 50)
    headers = stage.scripted(Script(output_tokens=3_000, pacing_s=0.002, gzip=packed))
    headers["accept-encoding"] = "gzip"
    asked = body_of(STREAMED | {"stream_options": {"include_usage": True}})
    told = exchange(stage.gateway.port, "POST", "/v1/chat/completions", headers, asked)
    assert told.whole
    assert told.header("content-encoding") is None
    frames = [line[6:] for line in told.body.decode().split("\n\n") if line]
    assert frames[-1] == "[DONE]"
    error = json.loads(frames[-2])["error"]
    assert error["code"] == "insufficient_quota"
    assert "'a cap'" in error["message"]
    row, billed = stage.row(), stage.billed()[0]
    assert row.settlement is not None
    assert row.settlement.ending is Ending.LIMIT_REACHED
    assert row.settlement.cost is not None
    now = row.call.opened_ms
    truth = cost_in(stage.books.book, true_counts(billed), billed, upstream="", at_ms=now)
    print(f"the cap is $0.004, the bill {format_usd(truth)}")
    assert row.settlement.cost.low <= truth <= row.settlement.cost.high
    assert 3_000_000 < truth < 4_400_000


def test_a_provider_that_ignores_the_callers_own_ceiling_is_stopped_at_a_strict_cap(
    limited: LimitedBy,
) -> None:
    head = sse({"id": "c1", "model": "gpt-4o", "choices": [{"index": 0, "delta": {"content": ""}}]})
    sent: list[int] = []

    def babbling(connection: socket.socket, _: Heard) -> bool:
        connection.sendall(stream_head() + chunked(head, end=False))
        for number in range(3_000):
            word = sse({"choices": [{"index": 0, "delta": {"content": " sea"}}]})
            try:
                connection.sendall(chunked(word, end=False))
            except OSError:
                return False
            sent.append(number)
            time.sleep(0.002)
        return False

    with raw_upstream(babbling) as upstream:
        stage = limited('tokens = 400\nper = "ever"', upstream.url)
        body = body_of(STREAMED | {"max_tokens": 100})
        told = exchange(stage.gateway.port, "POST", "/v1/chat/completions", stage.headers, body)
    assert b"'a cap'" in told.body
    row = stage.row()
    assert row.settlement is not None
    assert row.settlement.ending is Ending.LIMIT_REACHED
    print(f"a call of at most 100 tokens of output, a cap of 400: {len(sent)} tokens were sent")
    assert 100 < len(sent) < 450


PACES = [(0.002, 1), (0.01, 1), (0.02, 5), (0.1, 50)]
"""Seconds between two chunks, and tokens in each."""


@pytest.mark.parametrize(("pacing", "a_chunk"), PACES)
def test_a_stopped_stream_overshoots_by_a_chunk_and_the_time_to_react(
    limited: LimitedBy, pacing: float, a_chunk: int
) -> None:
    cap, reaction_seconds, reaction_tokens = 400, 0.1, 3
    stage = limited(f'tokens = {cap}\nper = "ever"\nmode = "balanced"')
    for _ in range(20):
        stage.books.accustom(stage.name, "gpt-4o", 50)
    script = Script(output_tokens=3_000, pacing_s=pacing, tokens_per_chunk=a_chunk)
    headers = stage.scripted(script)
    exchange(stage.gateway.port, "POST", "/v1/chat/completions", headers, body_of(STREAMED))
    row, billed = stage.row(), stage.billed()[0]
    assert row.settlement is not None
    assert row.settlement.ending is Ending.LIMIT_REACHED
    total = billed.prompt_tokens + billed.output_tokens
    print(f"{a_chunk} tokens each {1000 * pacing:g} ms, a cap of {cap}: billed {total}")
    in_time = a_chunk * (1 + reaction_seconds / pacing)
    assert cap * 0.7 < total <= cap + in_time + reaction_tokens


def test_many_calls_at_once_never_exceed_a_strict_cap(limited: LimitedBy) -> None:
    cap = 10_000
    stage = limited(f'tokens = {cap}\nper = "ever"')
    scripts = [Script(output_tokens=n) for n in (5, 40, 90)]

    async def one(client: openai.AsyncOpenAI, number: int) -> int:
        try:
            stream = await client.chat.completions.create(
                model="gpt-4o",
                messages=MESSAGES,
                stream=True,
                max_tokens=100,
                extra_headers=stage.scripted(scripts[number % 3]),
            )
            taken = 0
            async for _ in stream:
                taken += 1
                if number % 5 == 0 and taken == 4:
                    await stream.close()
                    break
            return 1
        except openai.RateLimitError:
            return 0

    async def all_of_them() -> int:
        async with stage.async_client() as client:
            return sum(await asyncio.gather(*(one(client, number) for number in range(200))))

    passed = asyncio.run(all_of_them())
    until(stage.holds_nothing, "all are settled")
    billed = [c for c in stage.sim.bill(wait_s=2) if c.tag == stage.name]  # type: ignore[union-attr]
    total = sum(call.prompt_tokens + call.output_tokens for call in billed)
    print(f"{passed} of 200 passed, {total} of {cap} tokens billed")
    assert passed == len(billed)
    assert 0 < total <= cap
    rows = list(stage.reader.calls())
    assert len(rows) == passed
    assert not any(row.is_open for row in rows)
