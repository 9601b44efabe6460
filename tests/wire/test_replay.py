"""A whole answer replayed is, to its client, the stream that was asked for."""

import itertools
import json
from typing import Any, get_args

import pytest
from accumulated import chat_of, completion_of, events_of, response_of
from hypothesis import given
from hypothesis import strategies as st

from lastchunk.simulator import Script
from lastchunk.simulator.answer import render
from lastchunk.simulator.script import Kind, Language, ReasoningShown
from lastchunk.wire.dialect import Dialect
from lastchunk.wire.replay import replay
from lastchunk.wire.request import read_body
from lastchunk.wire.whole import ask_for_whole, wants_usage_chunk

ENDPOINTS = {
    Dialect.CHAT: "chat/completions",
    Dialect.RESPONSES: "responses",
    Dialect.COMPLETIONS: "completions",
}
SCHEMA = {
    "type": "object",
    "properties": {"city": {"type": "string"}, "days": {"type": "integer"}},
    "required": ["city", "days"],
    "additionalProperties": False,
}

scripts = st.builds(
    Script,
    kind=st.sampled_from(get_args(Kind)),
    language=st.sampled_from(get_args(Language)),
    output_tokens=st.integers(0, 120),
    reasoning_tokens=st.sampled_from([0, 0, 70]),
    reasoning_shown=st.sampled_from(get_args(ReasoningShown)),
    logprobs=st.booleans(),
    azure=st.booleans(),
    service_tier=st.sampled_from(["default", "flex"]),
    seed=st.integers(0, 1000),
)


def request_of(dialect: Dialect, options: dict[str, Any]) -> dict[str, Any]:
    asked = {Dialect.CHAT: {"messages": [{"role": "user", "content": "hello"}]}}
    asked |= {Dialect.RESPONSES: {"input": "hello"}, Dialect.COMPLETIONS: {"prompt": "hello"}}
    return {"model": "gpt-4o", **asked[dialect], **options, "stream": True}


def both(script: Script, dialect: Dialect, request: dict[str, Any]) -> tuple[bytes, bytes]:
    """The stream that the provider sends, and its whole answer replayed."""
    raw = json.dumps(request).encode()
    asked = ask_for_whole(raw, read_body(raw) or {})
    assert asked is not None
    endpoint: Any = ENDPOINTS[dialect]
    streamed = render(script, request, endpoint=endpoint).body
    answer = render(script, json.loads(asked), endpoint=endpoint).body
    frames = replay(dialect, answer, usage_chunk=wants_usage_chunk(dialect, request))
    assert frames is not None
    return streamed, b"".join(frames)


@given(
    scripts,
    st.integers(1, 3),
    st.sampled_from([None, True, False]),
    st.sampled_from([None, 5]),
    st.booleans(),
)
def test_chat_accumulates_to_the_same_messages(script, n, asks, limit, schema):
    options: dict[str, Any] = {"n": n}
    if asks is not None:
        options["stream_options"] = {"include_usage": asks}
    if limit is not None:
        options["max_tokens"] = limit
    if schema:
        wanted = {"name": "trip", "schema": SCHEMA, "strict": True}
        options["response_format"] = {"type": "json_schema", "json_schema": wanted}
    streamed, replayed = both(script, Dialect.CHAT, request_of(Dialect.CHAT, options))
    assert chat_of(replayed) == chat_of(streamed)
    assert replayed.endswith(b"data: [DONE]\n\n")


@given(scripts, st.integers(1, 3), st.booleans())
def test_legacy_completions_accumulate_to_the_same_texts(script, n, asks):
    options = {"n": n, "stream_options": {"include_usage": asks}}
    request = request_of(Dialect.COMPLETIONS, options)
    streamed, replayed = both(script, Dialect.COMPLETIONS, request)
    assert completion_of(replayed) == completion_of(streamed)


@given(scripts, st.sampled_from([None, 5]))
def test_responses_have_the_same_events_in_the_same_order(script, limit):
    options = {} if limit is None else {"max_output_tokens": limit}
    request = request_of(Dialect.RESPONSES, options)
    streamed, replayed = both(script, Dialect.RESPONSES, request)
    wanted, got = response_of(streamed), response_of(replayed)
    for event in (*wanted, *got):
        event.pop("logprobs", None)  # the simulator's whole answers have none
        if event["type"] in ("response.created", "response.in_progress"):
            event["response"].pop("service_tier")  # a stream knows it at its end only
    assert got == wanted


def chat_answer(message: dict[str, Any], **more: Any) -> bytes:
    choice = {"index": 0, "message": {"role": "assistant", **message}, "finish_reason": "stop"}
    whole = {"id": "c", "object": "chat.completion", "created": 1, "model": "m"}
    return json.dumps({**whole, "choices": [choice | more.pop("choice", {})], **more}).encode()


def replayed_message(message: dict[str, Any], **more: Any) -> dict[str, Any]:
    frames = replay(Dialect.CHAT, chat_answer(message, **more), usage_chunk=False)
    assert frames is not None
    return chat_of(b"".join(frames))["choices"][0]["message"]


@pytest.mark.parametrize(
    "message",
    [
        {"content": "see", "annotations": [{"type": "url_citation", "url_citation": {"url": "u"}}]},
        {"content": None, "audio": {"id": "a", "data": "QUJD" * 9000, "transcript": "so it is",
                                    "expires_at": 17}},
        {"content": "x", "provider_specific": {"deep": [1, 2]}, "signature": "s"},
        {"content": [{"type": "thinking", "thinking": []}, {"type": "text", "text": "hi"}]},
        {"content": "x" * 200_000},
        {"content": "so", "reasoning": "because", "reasoning_details": [{"type": "t"}]},
        {"content": None, "function_call": {"name": "f", "arguments": '{"a": 1}'}},
    ],
)  # fmt: skip
def test_what_a_message_holds_is_not_lost(message):
    wanted = {key: value for key, value in message.items() if value is not None}
    assert replayed_message(message) == {"role": "assistant", **wanted}


@pytest.mark.parametrize(
    "call",
    [
        {"id": "c1", "type": "function", "function": {"name": "f", "arguments": '{"a":1}'}},
        {"id": "c1", "type": "function", "function": {"name": "f", "arguments": {"a": 1}}},
        {"id": "c1", "type": "custom", "custom": {"name": "g", "input": "SELECT 1 " * 40}},
        {"id": "c1", "type": "function", "function": {"name": "f", "arguments": ""},
         "extra_content": {"google": {"thought_signature": "s"}}},
        {"id": "c1", "type": "of_tomorrow", "of_tomorrow": {"a": 1}},
    ],
)  # fmt: skip
def test_what_a_tool_call_holds_is_not_lost(call):
    message = replayed_message({"content": None, "tool_calls": [call, {**call, "id": "c2"}]})
    assert [dict(c, index=0) for c in message["tool_calls"]] == [
        {**call, "index": 0},
        {**call, "id": "c2", "index": 0},
    ]


def test_unknown_fields_of_answer_and_choice_are_said_once():
    answer = chat_answer({"content": "a"}, choice={"stop_reason": 7}, citations=["u"], provider="P")
    frames = replay(Dialect.CHAT, answer, usage_chunk=True)
    chunks = [chunk for _, chunk in events_of(b"".join(frames or []))]
    assert [c.get("citations") for c in chunks] == [["u"], None, None]
    assert chunks[0]["provider"] == "P"
    assert chunks[-1]["choices"][0]["stop_reason"] == 7
    assert all(chunk["usage"] is None for chunk in chunks)  # asked for, and not in the answer


LOGPROBS = [
    {"token": t, "logprob": -1.0, "bytes": list(t.encode())} for t in ("the", "sea", "is", "wide")
]


def test_logprobs_that_do_not_make_up_the_text_come_with_its_first_piece():
    answer = chat_answer(
        {"content": "elsewhere " * 20}, choice={"logprobs": {"content": LOGPROBS, "refusal": None}}
    )
    chunks = [
        c for _, c in events_of(b"".join(replay(Dialect.CHAT, answer, usage_chunk=False) or []))
    ]
    told = [chunk["choices"][0]["logprobs"] for chunk in chunks]
    assert [t for t in told if t] == [{"content": LOGPROBS, "refusal": None}]
    assert (
        chat_of(b"".join(replay(Dialect.CHAT, answer, usage_chunk=False) or []))["choices"][0][
            "message"
        ]["content"]
        == "elsewhere " * 20
    )


def test_a_character_of_several_tokens_is_not_cut():
    halves = [{"token": "\\xf0", "logprob": -1.0, "bytes": list("🦊".encode()[:2])},
              {"token": "\\x9f", "logprob": -1.0, "bytes": list("🦊".encode()[2:])}]  # fmt: skip
    answer = chat_answer({"content": "🦊" * 60}, choice={"logprobs": {"content": halves * 60}})
    made = chat_of(b"".join(replay(Dialect.CHAT, answer, usage_chunk=False) or []))["choices"][0]
    assert made["message"]["content"] == "🦊" * 60
    assert made["logprobs"]["content"] == halves * 60


ITEMS: list[tuple[dict[str, Any], list[str]]] = [
    ({"type": "web_search_call", "id": "i", "status": "completed"},
     ["web_search_call.in_progress", "web_search_call.searching", "web_search_call.completed"]),
    ({"type": "mcp_call", "id": "i", "status": "failed", "arguments": "{}", "error": "no"},
     ["mcp_call.in_progress", "mcp_call_arguments.delta", "mcp_call_arguments.done",
      "mcp_call.failed"]),
    ({"type": "code_interpreter_call", "id": "i", "status": "completed", "code": "1"},
     ["code_interpreter_call.in_progress", "code_interpreter_call_code.delta",
      "code_interpreter_call_code.done", "code_interpreter_call.interpreting",
      "code_interpreter_call.completed"]),
    ({"type": "of_tomorrow", "id": "i"}, []),
]  # fmt: skip


@pytest.mark.parametrize(("item", "between"), ITEMS)
def test_each_item_tells_its_progress(item, between):
    whole = {
        "id": "r",
        "object": "response",
        "status": "completed",
        "output": [item],
        "usage": None,
    }
    frames = replay(Dialect.RESPONSES, json.dumps(whole).encode(), usage_chunk=False)
    names = [name.removeprefix("response.") for name, _ in events_of(b"".join(frames or []))]
    assert names == [
        "created",
        "in_progress",
        "output_item.added",
        *between,
        "output_item.done",
        "completed",
    ]


@pytest.mark.parametrize(
    ("status", "last"),
    [
        ("failed", "failed"),
        ("incomplete", "incomplete"),
        ("cancelled", "incomplete"),
        ("queued", "queued"),
    ],
)
def test_a_response_ends_as_its_status_says(status, last):
    whole = {"id": "r", "status": status, "output": [], "error": {"code": "server_error"}}
    frames = replay(Dialect.RESPONSES, json.dumps(whole).encode(), usage_chunk=False)
    name, payload = events_of(b"".join(frames or []))[-1]
    assert name == f"response.{last}"
    assert payload["response"] == whole


def test_an_annotation_is_told_between_text_and_done():
    part = {
        "type": "output_text",
        "text": "see",
        "annotations": [{"type": "url_citation", "url": "u"}],
    }
    item = {
        "type": "message",
        "id": "m",
        "status": "completed",
        "role": "assistant",
        "content": [part],
    }
    whole = {"id": "r", "status": "completed", "output": [item]}
    frames = replay(Dialect.RESPONSES, json.dumps(whole).encode(), usage_chunk=False)
    names = [name for name, _ in events_of(b"".join(frames or []))]
    assert names[4:7] == [
        "response.output_text.delta",
        "response.output_text.annotation.added",
        "response.output_text.done",
    ]


@pytest.mark.parametrize("dialect", list(Dialect))
def test_an_error_in_the_place_of_an_answer_is_told_as_a_stream_tells_it(dialect):
    body = b'{"error":{"message":"m","type":"server_error","code":"c"}}'
    frames = replay(dialect, body, usage_chunk=False)
    ((name, payload),) = events_of(b"".join(frames or []))
    if dialect is Dialect.RESPONSES:
        assert (name, payload["type"], payload["code"], payload["message"]) == (
            "error",
            "error",
            "c",
            "m",
        )
    else:
        assert payload == json.loads(body)


@given(
    st.sampled_from(list(Dialect)),
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
        lambda inner: st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["choices", "message", "content", "tool_calls", "function", "output",
                             "type", "text", "logprobs", "audio", "arguments", "index", "status",
                             "error", "summary", "annotations", "tokens", "bytes"]),
            inner, max_size=6),
        max_leaves=25,
    ),
)  # fmt: skip
def test_no_answer_breaks_it(dialect, answer):
    replay(dialect, json.dumps(answer).encode(), usage_chunk=True)


@pytest.mark.parametrize("body", [b"", b"[]", b"null", b"<html>", b'{"a":', b"\xff", b"{}"])
@pytest.mark.parametrize("dialect", list(Dialect))
def test_what_is_no_answer_is_not_replayed(dialect, body):
    assert replay(dialect, body, usage_chunk=False) is None


def test_lone_surrogates_are_kept():
    body = chat_answer({"content": "a\ud83d"})
    frames = replay(Dialect.CHAT, body, usage_chunk=False)
    assert chat_of(b"".join(frames or []))["choices"][0]["message"]["content"] == "a\ud83d"


@given(st.text(max_size=3000))
def test_pieces_make_up_the_text(text):
    message = replayed_message({"content": text})
    assert message.get("content", "") == text


# The request.


@pytest.mark.parametrize(
    ("body", "sent"),
    [
        (b'{"model":"m","stream":true}', b'{"model":"m"}'),
        (b'{"stream" : true, "a" : 1.0e2,"stream_options":{"include_usage":true}, "n": [1, 2 ]}',
         b'{"a":1.0e2,"n":[1, 2 ]}'),
        (b'{"model":"m"}', None),
        (b'{"model":"m","stream":false}', None),
        (b'{"model":"m","stream":true,"background":true}', None),
    ],
)  # fmt: skip
def test_only_streaming_is_taken_out_of_the_request(body, sent):
    assert ask_for_whole(body, read_body(body) or {}) == sent


def test_pairs_of_dialects_do_not_mix():
    """A chat answer is no response, and the other way round."""
    for ours, other in itertools.permutations([Dialect.CHAT, Dialect.RESPONSES]):
        script, request = Script(output_tokens=3), request_of(other, {})
        request.pop("stream")
        endpoint: Any = ENDPOINTS[other]
        assert (
            replay(ours, render(script, request, endpoint=endpoint).body, usage_chunk=False) is None
        )
