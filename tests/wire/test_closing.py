"""The end of a stream that we stop is one that every reader of its dialect understands."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lastchunk.meter.meter import Meter
from lastchunk.meter.phases import Phase
from lastchunk.simulator import Script, render
from lastchunk.wire.closing import Stopped, after_last_edge, closing
from lastchunk.wire.dialect import Dialect
from lastchunk.wire.request import CallRequest


def stopped(dialect: Dialect, *, asked: bool = True) -> Stopped:
    return Stopped(dialect, "id-1", "gpt-4o", 1_780_056_000, (0, 1), 7, 12, 30, asked)


def payloads(body: bytes) -> list[dict[str, object]]:
    lines = [line for line in body.decode().splitlines() if line.startswith("data: {")]
    return [json.loads(line.removeprefix("data: ")) for line in lines]


@pytest.mark.parametrize("dialect", [Dialect.CHAT, Dialect.COMPLETIONS])
def test_chunks_end_with_finishes_usage_an_error_and_done(dialect: Dialect) -> None:
    body = closing(stopped(dialect), code="budget_exhausted", message="The budget is used up.")
    *finishes, usage, error = payloads(body)
    assert [chunk["choices"][0]["finish_reason"] for chunk in finishes] == ["length"] * 2  # type: ignore[index]
    assert usage["usage"]["total_tokens"] == 42  # type: ignore[index]
    assert error["error"]["code"] == "budget_exhausted"  # type: ignore[index]
    assert body.endswith(b"data: [DONE]\n\n")


def test_the_usage_chunk_is_for_those_who_asked() -> None:
    body = closing(stopped(Dialect.CHAT, asked=False), code="c", message="m")
    assert not any(payload.get("choices") == [] for payload in payloads(body))


def test_responses_end_with_an_error_event_and_an_incomplete_response() -> None:
    error, ended = payloads(closing(stopped(Dialect.RESPONSES), code="c", message="m"))
    assert (error["type"], error["sequence_number"]) == ("error", 7)
    assert (error["code"], error["message"]) == ("c", "m")
    assert error["error"]["code"] == "c"  # type: ignore[index]
    assert error["error"]["usage"]["total_tokens"] == 42  # type: ignore[index]
    assert (ended["type"], ended["sequence_number"]) == ("response.incomplete", 8)
    assert ended["response"]["usage"]["total_tokens"] == 42  # type: ignore[index]


@pytest.mark.parametrize("dialect", list(Dialect))
def test_a_reader_that_comes_to_it_sees_a_failure_not_an_answer(dialect: Dialect) -> None:
    request = CallRequest(dialect, "gpt-4o", True, False, "api.openai.com", 100)
    meter = Meter(request)
    meter.headed(200, "text/event-stream", None)
    meter.receive(closing(stopped(dialect), code="c", message="m"), 1)
    meter.finish()
    assert meter.observe(1).phase is Phase.FAILED


@given(cut=st.integers(0, 4_000), output_tokens=st.integers(1, 30))
def test_behind_an_edge_nothing_of_a_frame_is_left(cut: int, output_tokens: int) -> None:
    body = render(
        Script(output_tokens=output_tokens),
        {"model": "gpt-4o", "messages": [{"role": "user", "content": "hi"}], "stream": True},
    ).body
    piece = body[:cut]
    edge = after_last_edge(piece)
    assert piece[:edge].count(b"\n\n") == body[:edge].count(b"data:")
    assert b"\n\n" not in piece[edge:]
