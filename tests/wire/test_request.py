"""Requests: what is read of any body, and the one option that is added to it."""

from __future__ import annotations

import json

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from lastchunk.wire.dialect import Dialect, dialect_of
from lastchunk.wire.request import ask_for_usage, read_body, read_request, usage_requested

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4)
    ),
    max_leaves=12,
)
OUR_KEYS = st.sampled_from(
    [
        "model", "stream", "stream_options", "n", "max_tokens", "max_completion_tokens", "tools",
        "max_output_tokens", "tool_choice", "function_call", "functions", "response_format",
        "text", "service_tier", "background", "include_usage", "messages", "input",
    ]
)  # fmt: skip
BODIES = st.dictionaries(OUR_KEYS | st.text(max_size=6), JSON, max_size=8)


@given(BODIES, st.sampled_from(Dialect), st.text(max_size=40))
def test_any_body_gives_a_request(body, dialect, path):
    request = read_request(dialect, body, upstream="h", body_bytes=7, path=path)
    assert request.choices >= 1
    assert request.output_ceiling is None or request.output_ceiling > 0
    assert len(request.model) <= 200
    assert request.stream is (body.get("stream") is True)


@given(st.binary(max_size=200))
@example(b"\xff\xfe{}")
@example(b"[" * 100_000)
@example(b'{"a":' * 100_000)
@example(b'{"a":1e999}')
@example(b'{"a":"\\ud800"}')
def test_any_bytes_are_a_body_or_none(raw):
    body = read_body(raw)
    assert body is None or isinstance(body, dict)


OPTIONS = st.one_of(
    st.none(),
    st.dictionaries(st.sampled_from(["include_obfuscation", "x"]), JSON, max_size=2),
    st.sampled_from([{"include_usage": False}, {"include_usage": None, "y": 1}]),
)
SPACES = st.sampled_from([(",", ":"), (", ", ": "), (" ,\n ", " :\t")])


@given(BODIES, OPTIONS, st.booleans(), SPACES, st.sampled_from(["", " ", "\r\n"]))
def test_asking_adds_the_option_and_touches_no_other_byte(body, options, has_options, space, end):
    body = {**body, "stream": True}
    body.pop("stream_options", None)
    if has_options:
        body["stream_options"] = options
    raw = (json.dumps(body, separators=space) + end).encode()
    parsed = read_body(raw)
    assume(parsed is not None)
    asked = ask_for_usage(raw, parsed)
    assert asked is not None
    now = json.loads(asked)
    before = options if has_options and options else {}
    assert now["stream_options"] == {**before, "include_usage": True}
    assert {k: v for k, v in now.items() if k != "stream_options"} == {
        k: v for k, v in json.loads(raw).items() if k != "stream_options"
    }
    assert_one_change(raw, asked)
    assert usage_requested(Dialect.CHAT, read_body(asked))


def assert_one_change(raw: bytes, asked: bytes) -> None:
    """Both agree up to a place and from a place on, and between the two stands only our option."""
    start = next((i for i, (a, b) in enumerate(zip(raw, asked)) if a != b), len(raw))  # noqa: B905
    kept = 0
    while kept < len(raw) - start and raw[-1 - kept] == asked[-1 - kept]:
        kept += 1
    changed = asked[start : len(asked) - kept]
    assert len(changed) <= len(b',"stream_options":{"include_usage":true}')
    assert len(raw) - start - kept <= len(b'"stream_options" :\tnull')


@pytest.mark.parametrize(
    "raw",
    [
        b'{"stream":true,"stream_options":"yes"}',
        b'{"stream":true,"stream_options":[1]}',
        b'{"stream":true,"stream_options":{"include_usage":"maybe"}}',
    ],
)
def test_what_cannot_be_asked_safely_is_not_asked(raw):
    assert ask_for_usage(raw, read_body(raw)) is None


@pytest.mark.parametrize(
    ("raw", "asked"),
    [
        (
            rb'{"stream":true,"messages":[{"content":"\"stream_options\": null"}],'
            rb'"stream_options": null}',
            rb'{"stream":true,"messages":[{"content":"\"stream_options\": null"}],'
            rb'"stream_options":{"include_usage":true}}',
        ),
        (
            b'{"stream":true,"metadata":{"stream_options":{}},"stream_options":{}}',
            b'{"stream":true,"metadata":{"stream_options":{}},"stream_options":{"include_usage":true}}',
        ),
        (
            b'{"stream":true,"a":{"include_usage":false},"stream_options":{"include_usage":false}}',
            b'{"stream":true,"a":{"include_usage":false},"stream_options":{"include_usage":true}}',
        ),
        (
            b'{"stream":true,"a":"}"} \n',
            b'{"stream":true,"a":"}","stream_options":{"include_usage":true}} \n',
        ),
    ],
)
def test_the_option_is_added_at_the_top_and_nowhere_else(raw, asked):
    assert ask_for_usage(raw, read_body(raw)) == asked


@pytest.mark.parametrize(
    ("method", "path", "dialect"),
    [
        ("POST", "/v1/chat/completions", Dialect.CHAT),
        ("post", "/v1/chat/completions/", Dialect.CHAT),
        ("POST", "/openai/deployments/x/chat/completions", Dialect.CHAT),
        ("POST", "/v1/completions", Dialect.COMPLETIONS),
        ("POST", "/v1/responses", Dialect.RESPONSES),
        ("GET", "/v1/responses", None),
        ("POST", "/v1/responses/resp_1/cancel", None),
        ("POST", "/v1/responses/input_tokens", None),
        ("GET", "/v1/responses/resp_1", None),
        ("POST", "/v1/embeddings", None),
        ("POST", "/v1/chat/completions/extra", None),
    ],
)
def test_only_calls_that_generate_are_metered(method, path, dialect):
    assert dialect_of(method, path) is dialect


@pytest.mark.parametrize(
    ("dialect", "body"),
    [
        (Dialect.CHAT, {"reasoning_effort": "low"}),
        (Dialect.RESPONSES, {"reasoning": {"effort": "low"}}),
    ],
)
def test_the_effort_asked_for_is_a_fact_of_the_request(dialect, body):
    assert read_request(dialect, body, upstream="", body_bytes=0).reasoning_effort == "low"


@pytest.mark.parametrize(
    ("upstream", "model", "billed"),
    [
        ("openrouter.ai", "openai/gpt-5.2", Dialect.RESPONSES),
        ("openrouter.ai:443", "openai/gpt-4.1-mini", Dialect.RESPONSES),
        ("openrouter.ai", "openai/gpt-4o", Dialect.CHAT),
        ("openrouter.ai", "mistralai/mistral-large", Dialect.CHAT),
        ("api.openai.com", "gpt-5.2", Dialect.CHAT),
    ],
)
def test_a_relay_that_speaks_responses_upstream_is_billed_so(
    upstream: str, model: str, billed: Dialect
) -> None:
    body = {"model": model, "tools": [{}], "tool_choice": "required"}
    read = read_request(Dialect.CHAT, body, upstream=upstream, body_bytes=9)
    assert read.billed_dialect is billed
    assert read.tool_choice == ("forced" if billed is Dialect.RESPONSES else "required")


def test_copilot_is_answered_by_azure() -> None:
    def read(upstream: str) -> bool:
        return read_request(Dialect.CHAT, {}, upstream=upstream, body_bytes=9).azure

    assert read("api.githubcopilot.com")
    assert read("mine.openai.azure.com:443")
    assert not read("api.openai.com")
