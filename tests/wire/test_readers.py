"""Frames to events: where each dialect keeps its output, its finish, its usage and its errors."""

from __future__ import annotations

import json

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from lastchunk.usage import TokenCounts
from lastchunk.wire.chat import ChatReader
from lastchunk.wire.decode import decode_leniently
from lastchunk.wire.events import (
    ChoiceFinished,
    ProviderFailed,
    ReasoningArrived,
    ResponseNamed,
    Terminated,
    TextArrived,
    TextKind,
    ToolTextArrived,
    Unreadable,
    UsageReported,
)
from lastchunk.wire.responses import ResponsesReader

KEYS = st.sampled_from(
    [
        "id", "model", "choices", "usage", "error", "x_groq", "service_tier", "index", "delta",
        "message", "text", "finish_reason", "logprobs", "content", "refusal", "tool_calls",
        "function", "custom", "name", "arguments", "input", "function_call", "audio", "tokens",
        "transcript", "reasoning", "reasoning_content", "type", "response", "item", "output",
        "output_index", "status", "incomplete_details", "prompt_tokens", "thinking", "code",
    ]
)  # fmt: skip
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=5),
    max_leaves=16,
)
FRAMES = st.one_of(
    JSON.map(lambda value: json.dumps(value).encode()),
    JSON.map(lambda value: json.dumps({"choices": [value], "error": value}).encode()),
    st.builds(
        lambda kind, value: json.dumps({"type": kind, "response": value, "item": value}).encode(),
        st.sampled_from(["response.completed", "response.failed", "response.output_item.done"]),
        JSON,
    ),
    st.binary(max_size=60),
)
NAMES = st.sampled_from([b"", b"error", b"message", b"response.completed", b"\xff"])


@given(FRAMES, NAMES, st.integers(0, 200))
@example(b"[DONE]", b"", 1)
@example(b"[DONE]", b"", 4)
@example(b'"choices', b"", 200)
@example(b'{"choices":[{"delta":{"content":"\xff"}}]}', b"", 200)
@example(b'{"choices":' + b"[" * 5000, b"", 9000)
def test_no_frame_and_no_beginning_of_one_raises(data, name, end):
    for reader in (ChatReader(), ResponsesReader()):
        assert isinstance(reader.read(name, data[:end]), list)
        assert isinstance(reader.read_body(data[:end]), list)


def events_of(payload: object, *, body: bool = False) -> list:
    data = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
    found = ChatReader().read_body(data) if body else ChatReader().read(b"", data)
    return [event for event in found if not isinstance(event, ResponseNamed)]


def delta(**fields: object) -> dict:
    return {"choices": [{"index": 1, "delta": fields}]}


@pytest.mark.parametrize(
    ("payload", "events"),
    [
        (delta(content="hi"), [TextArrived(1, TextKind.CONTENT, "hi")]),
        (delta(content="", role="assistant"), []),
        (delta(refusal="no"), [TextArrived(1, TextKind.REFUSAL, "no")]),
        (
            delta(audio={"transcript": "ah", "data": "UklG"}),
            [TextArrived(1, TextKind.TRANSCRIPT, "ah")],
        ),
        (delta(reasoning_content="hm"), [ReasoningArrived(1, "hm")]),
        (delta(reasoning="hm"), [ReasoningArrived(1, "hm")]),
        (delta(reasoning_text="hm"), [ReasoningArrived(1, "hm")]),
        (delta(reasoning="hm", reasoning_content="hm"), [ReasoningArrived(1, "hm")]),
        (delta(function_call={"name": "f", "arguments": "{"}), [ToolTextArrived(1, 0, "f", "{")]),
        (
            delta(tool_calls=[{"index": 2, "function": {"name": "f", "arguments": ""}}]),
            [ToolTextArrived(1, 2, "f", "")],
        ),
        (
            delta(tool_calls=[{"custom": {"name": "c", "input": "x"}}]),
            [ToolTextArrived(1, 0, "c", "x")],
        ),
        (
            delta(tool_calls=[{"function": {"name": "f", "arguments": {"a": 1}}}]),
            [ToolTextArrived(1, 0, "f", '{"a":1}')],
        ),
        (
            delta(content=[{"type": "thinking", "thinking": [{"text": "hm"}]}, {"text": "so"}]),
            [ReasoningArrived(1, "hm"), TextArrived(1, TextKind.CONTENT, "so")],
        ),
        (
            {"choices": [{"index": 0, "text": "t", "logprobs": {"tokens": ["t"]}}]},
            [TextArrived(0, TextKind.CONTENT, "t", 1)],
        ),
        ({"choices": [{"index": 3, "finish_reason": "stop"}]}, [ChoiceFinished(3, "stop")]),
        ({"choices": [], "obfuscation": "aB3"}, []),
        ({"choices": [], "usage": None}, []),
        (
            {"choices": [], "usage": {"prompt_tokens": 1, "completion_tokens": 0}},
            [UsageReported(TokenCounts(1, output_tokens=0), final=True)],
        ),
        (
            {"choices": [{"index": 0, "delta": {}}], "usage": {"completion_tokens": 5}},
            [UsageReported(TokenCounts(output_tokens=5), final=False)],
        ),
        (
            {"choices": [{"index": 0, "usage": {"completion_tokens": 5}}]},
            [UsageReported(TokenCounts(output_tokens=5), final=False)],
        ),
        (
            {"choices": [], "x_groq": {"usage": {"completion_tokens": 5}}},
            [UsageReported(TokenCounts(output_tokens=5), final=True)],
        ),
        ({"error": {"message": "the secret", "code": "busy"}}, [ProviderFailed("busy")]),
        ({"error": {"message": "the secret", "code": None, "type": "t"}}, [ProviderFailed("t")]),
        ({"error": "the secret"}, [ProviderFailed(None)]),
        ({"error": None, "choices": []}, []),
        ({"x_groq": {"error": "over"}}, [ProviderFailed(None)]),
        (b"[DONE]", [Terminated()]),
        (b'{"choices":[{"del', [Unreadable(17)]),
    ],
)
def test_what_a_chat_frame_says(payload, events):
    assert events_of(payload) == events


def test_one_odd_leaf_does_not_cost_the_chunk():
    odd = {"choices": [7, {"index": "x", "delta": {"content": "hi"}}], "usage": "none"}
    assert events_of(odd) == [TextArrived(0, TextKind.CONTENT, "hi")]


def test_an_answer_in_one_piece_ends_itself():
    message = {"content": "hi", "tool_calls": [{"function": {"name": "f", "arguments": "{}"}}]}
    body = {
        "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 1, "completion_tokens": 2},
    }
    assert events_of(body, body=True) == [
        TextArrived(0, TextKind.CONTENT, "hi"),
        ToolTextArrived(0, 0, "f", "{}"),
        ChoiceFinished(0, "stop"),
        UsageReported(TokenCounts(1, output_tokens=2), final=False),
        Terminated(),
    ]
    assert Terminated() not in events_of({"error": {"code": "x"}}, body=True)


def response_events(*payloads: dict) -> list:
    reader = ResponsesReader()
    found = [event for p in payloads for event in reader.read(b"", json.dumps(p).encode())]
    return [event for event in found if not isinstance(event, ResponseNamed)]


@pytest.mark.parametrize(
    ("kind", "event"),
    [
        ("output_text", TextArrived(0, TextKind.CONTENT, "x")),
        ("refusal", TextArrived(0, TextKind.REFUSAL, "x")),
        ("audio.transcript", TextArrived(0, TextKind.TRANSCRIPT, "x")),
        ("reasoning_text", ReasoningArrived(0, "x")),
        ("reasoning_summary_text", ReasoningArrived(0, "x", summary=True)),
        ("function_call_arguments", ToolTextArrived(0, 2, "", "x")),
        ("mcp_call_arguments", ToolTextArrived(0, 2, "", "x")),
        ("custom_tool_call_input", ToolTextArrived(0, 2, "", "x")),
        ("code_interpreter_call_code", ToolTextArrived(0, 2, "", "x")),
        ("shell_call_command", ToolTextArrived(0, 2, "", "x")),
        ("audio", None),
        ("shell_call_output_content", None),
    ],
)
def test_every_delta_of_responses_is_output_or_is_known_not_to_be(kind, event):
    payload = {"type": f"response.{kind}.delta", "delta": "x", "output_index": 2}
    wanted = [] if event is None else [event]
    assert response_events({**payload, "obfuscation": "aB"}) == wanted


def test_an_items_text_is_taken_only_where_no_delta_brought_it():
    item = {"type": "function_call", "name": "f", "arguments": "{}"}
    added = {
        "type": "response.output_item.added",
        "output_index": 0,
        "item": {**item, "arguments": ""},
    }
    told = {"type": "response.function_call_arguments.delta", "output_index": 0, "delta": "{}"}
    done = {"type": "response.output_item.done", "output_index": 0, "item": item}
    name, text = ToolTextArrived(0, 0, "f", ""), ToolTextArrived(0, 0, "", "{}")
    assert response_events(added, told, done) == [name, text]
    assert response_events(added, done, done) == [name, text]


@pytest.mark.parametrize(
    ("status", "fields", "events"),
    [
        ("completed", {}, [ChoiceFinished(0, "completed"), Terminated()]),
        (
            "incomplete",
            {"incomplete_details": {"reason": "max_output_tokens"}},
            [ChoiceFinished(0, "max_output_tokens"), Terminated()],
        ),
        ("cancelled", {}, [ChoiceFinished(0, "cancelled"), Terminated()]),
        ("failed", {"error": {"code": "busy", "message": "x"}}, [ProviderFailed("busy")]),
    ],
)
def test_a_terminal_event_says_how_a_response_ended(status, fields, events):
    response = {"id": "r", "status": status, **fields}
    assert response_events({"type": f"response.{status}", "response": response}) == events


def test_a_background_response_in_one_piece_is_not_over():
    body = json.dumps({"id": "r", "status": "queued", "output": []}).encode()
    assert ResponsesReader().read_body(body) == [ResponseNamed("r", None, None)]


@given(st.binary(max_size=80))
def test_lenient_decoding_never_raises(data):
    import msgspec

    class Shape(msgspec.Struct):
        a: int | None = None
        b: list[int] | None = None

    found = decode_leniently(data, msgspec.json.Decoder(Shape).decode, Shape)
    assert found is None or isinstance(found, Shape)


@pytest.mark.parametrize("odd", [{"x_groq": "odd"}, {"x_groq": []}, {"choices": [7]}])
def test_an_odd_neighbour_costs_no_text_and_no_logprobs(odd):
    choice = {"index": 0, "delta": {"content": "hi"}, "logprobs": {"content": [{"token": "hi"}]}}
    payload = {**odd, "choices": [*odd.get("choices", []), choice]}
    assert events_of(payload) == [TextArrived(0, TextKind.CONTENT, "hi", 1)]


@pytest.mark.parametrize("odd", [[], "odd", {"content": "odd"}, {"content": [1], "x": 2}])
def test_odd_logprobs_cost_no_text(odd):
    choice = {"index": 0, "delta": {"content": "hi"}, "logprobs": odd, "finish_reason": "stop"}
    found = events_of({"choices": [choice]})
    assert [type(event) for event in found] == [TextArrived, ChoiceFinished]
    assert found[0].text == "hi"


@pytest.mark.parametrize("key", ["item", "response"])
@pytest.mark.parametrize("kind", ["response.output_item.done", "response.completed", "error"])
def test_a_list_where_responses_have_an_object_is_passed_over(key, kind):
    found = response_events({"type": kind, key: []})
    assert not any(isinstance(event, TextArrived) for event in found)
