"""What each upstream is asked for, and what is remembered of its answers."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lastchunk.asking import REMEMBERED_UPSTREAMS, Question, UsageAsking
from lastchunk.wire.dialect import Dialect
from lastchunk.wire.request import ask_for_running_usage, read_body, read_request

STREAMED = {"model": "m", "messages": [], "stream": True}
BOTH = {"include_usage": True, "continuous_usage_stats": True}


def ask(asking: UsageAsking, body: dict[str, Any], upstream: str = "llm.local:8000") -> Any:
    """The question, and the request that it was asked for."""
    raw = json.dumps(body).encode()
    request = read_request(Dialect.CHAT, body, upstream=upstream, body_bytes=len(raw))
    return asking.ask(request, raw, body), request


def options_of(question: Question | None) -> Any:
    return None if question is None else json.loads(question.body).get("stream_options")


@pytest.mark.parametrize(
    ("upstream", "more", "wanted"),
    [
        ("llm.local:8000", {}, BOTH),
        ("127.0.0.1:1", {"stream_options": {"include_usage": True}}, BOTH),
        ("127.0.0.1:1", {"stream_options": {"include_usage": False}}, BOTH),
        ("127.0.0.1:1", {"stream_options": None}, BOTH),
        ("127.0.0.1:1", {"n": 2}, {"include_usage": True}),
        ("api.openai.com", {}, {"include_usage": True}),
        ("eu.api.openai.com:443", {}, {"include_usage": True}),
        ("api.openai.com", {"stream_options": {"include_usage": True}}, None),
        ("it.openai.azure.com", {}, {"include_usage": True}),
        ("openrouter.ai", {}, {"include_usage": True}),
        ("llm.local", {"stream_options": {"continuous_usage_stats": False}},
         {"include_usage": True, "continuous_usage_stats": False}),
        ("llm.local", {"stream_options": BOTH}, None),
        ("llm.local", {"stream": False}, None),
    ],
)  # fmt: skip
def test_who_is_asked_for_what(upstream, more, wanted):
    question, _ = ask(UsageAsking(), STREAMED | more, upstream)
    assert options_of(question) == wanted


REFUSED_RUNNING = b'{"error":"extra field: stream_options.continuous_usage_stats"}'
REFUSED_OPTIONS = b'{"error":"unknown argument: stream_options"}'


def test_a_refusal_is_met_by_asking_for_less_and_remembered():
    asking = UsageAsking()
    question, request = ask(asking, STREAMED)
    assert question.is_refused(422, REFUSED_RUNNING)
    asking.refused(request, question, REFUSED_RUNNING)
    question, request = ask(asking, STREAMED)
    assert options_of(question) == {"include_usage": True}
    asking.refused(request, question, REFUSED_OPTIONS)
    assert ask(asking, STREAMED)[0] is None
    assert options_of(ask(asking, STREAMED | {"model": "another"})[0]) == BOTH


def test_who_does_not_know_the_options_at_all_is_asked_for_nothing_at_once():
    asking = UsageAsking()
    question, request = ask(asking, STREAMED)
    asking.refused(request, question, REFUSED_OPTIONS)
    assert ask(asking, STREAMED)[0] is None


def test_a_refusal_of_what_the_caller_asked_is_the_callers():
    asking = UsageAsking()
    question, _ = ask(asking, STREAMED | {"stream_options": {"include_usage": True}})
    assert not question.is_refused(400, REFUSED_OPTIONS)
    assert question.is_refused(400, REFUSED_RUNNING)


@pytest.mark.parametrize(("status", "answer"), [(400, b"too long"), (500, REFUSED_RUNNING)])
def test_other_errors_are_no_refusal_to_tell(status, answer):
    question, _ = ask(UsageAsking(), STREAMED)
    assert not question.is_refused(status, answer)


def test_who_ignores_it_is_asked_for_the_usage_chunk_alone():
    asking = UsageAsking()
    question, _ = ask(asking, STREAMED)
    hider = question.hider()
    hider.feed(b'data: {"choices":[{"index":0}]}\n\ndata: {"choices":[],"usage":{"a":1}}\n\n')
    assert options_of(ask(asking, STREAMED)[0]) == {"include_usage": True}


def test_who_tells_it_is_asked_again():
    asking = UsageAsking()
    question, _ = ask(asking, STREAMED)
    question.hider().feed(b'data: {"choices":[{"index":0}],"usage":{"a":1}}\n\n')
    assert options_of(ask(asking, STREAMED)[0]) == BOTH


def test_what_is_remembered_is_bounded():
    asking = UsageAsking()
    for number in range(REMEMBERED_UPSTREAMS + 10):
        question, request = ask(asking, STREAMED | {"model": str(number)})
        asking.refused(request, question, REFUSED_OPTIONS)
    assert options_of(ask(asking, STREAMED | {"model": "0"})[0]) == BOTH
    assert ask(asking, STREAMED | {"model": "1033"})[0] is None


@given(
    st.dictionaries(st.text(max_size=5), st.text(max_size=30) | st.integers(), max_size=4),
    st.sampled_from(
        [None, {}, {"include_usage": True}, {"include_usage": False, "y": 1}, {"z": [1]}, "no"]
    ),
    st.booleans(),
)
def test_only_the_options_change(more, options, quoted):
    body = {**more, "messages": '"stream_options":{' if quoted else [], "stream": True}
    if options != "no":
        body["stream_options"] = options
    raw = json.dumps(body).encode()
    changed = ask_for_running_usage(raw, read_body(raw) or {})
    assert changed is not None
    now = json.loads(changed)
    before = options if isinstance(options, dict) else {}
    assert now.pop("stream_options") == {**before, **BOTH}
    body.pop("stream_options", None)
    assert now == body
