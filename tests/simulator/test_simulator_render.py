"""Bodies as pure data: their shapes, and the truth about every cut."""

import json
from typing import Any, get_args

import pytest
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from openai.types.responses import Response, ResponseStreamEvent
from pydantic import TypeAdapter
from sim_http import CHAT, RESPONSES, events

from lastchunk.simulator import Script, render
from lastchunk.simulator.script import Kind, ReasoningShown, UsageStyle
from lastchunk.simulator.text import vocabulary_of

KINDS: tuple[Kind, ...] = get_args(Kind)
EVENT: TypeAdapter[Any] = TypeAdapter(ResponseStreamEvent)
VOCABULARY = vocabulary_of("gpt-4o")
UNASKED = {key: value for key, value in CHAT.items() if key != "stream_options"}


def said(body: bytes) -> str:
    choices = [choice for event in events(body) for choice in event["choices"]]
    return "".join(choice["delta"].get("content") or "" for choice in choices)


def test_the_same_request_renders_to_the_same_bytes() -> None:
    script = Script(kind="mixed", reasoning_tokens=20)
    assert render(script, CHAT).body == render(script, CHAT).body
    assert render(script, CHAT).body != render(script, CHAT, seed=1).body


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "custom_tool"])
@pytest.mark.parametrize("shown", get_args(ReasoningShown))
def test_chat_chunks_satisfy_the_sdk_types(kind: Kind, shown: ReasoningShown) -> None:
    # The SDK has no type for a streamed custom tool call; the test below looks at that one.
    for style in get_args(UsageStyle):
        script = Script(
            kind=kind, output_tokens=9, reasoning_tokens=5, reasoning_shown=shown, usage_style=style
        )
        for event in events(render(script, CHAT).body):
            ChatCompletionChunk.model_validate(event)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shown", get_args(ReasoningShown))
def test_response_events_satisfy_the_sdk_types(kind: Kind, shown: ReasoningShown) -> None:
    script = Script(kind=kind, output_tokens=9, reasoning_tokens=5, reasoning_shown=shown)
    told = events(render(script, RESPONSES, endpoint="responses").body)
    for event in told:
        EVENT.validate_python(event)
    assert [event["sequence_number"] for event in told] == list(range(len(told)))


@pytest.mark.parametrize("kind", KINDS)
def test_answers_in_one_piece_satisfy_the_sdk_types(kind: Kind) -> None:
    script = Script(kind=kind, output_tokens=9, logprobs=True, reasoning_tokens=5)
    chat = render(script, {**CHAT, "stream": False})
    whole = ChatCompletion.model_validate_json(chat.body)
    assert whole.usage is not None
    assert whole.usage.completion_tokens == chat.usage["completion_tokens"]
    responses = render(script, {**RESPONSES, "stream": False}, endpoint="responses")
    assert Response.model_validate_json(responses.body).status == "completed"


def test_a_custom_tool_call_is_streamed_with_its_input() -> None:
    body = render(Script(kind="custom_tool", output_tokens=9), CHAT)
    choices = [choice for event in events(body.body) for choice in event["choices"]]
    calls = [call for choice in choices for call in choice["delta"].get("tool_calls", [])]
    assert calls[0]["type"] == "custom"
    text = "".join(call["custom"]["input"] for call in calls)
    assert VOCABULARY.count(text) == 9
    assert body.usage["completion_tokens"] == 9 + VOCABULARY.count("functions.get_weather") + 6


@pytest.mark.parametrize("language", ["english", "chinese", "emoji", "code"])
def test_the_text_of_every_cut_encodes_to_what_was_delivered(language: Any) -> None:
    script = Script(language=language, output_tokens=60, reaction_tokens=0)
    body = render(script, CHAT)
    # A prefix of a text need not encode to a prefix of its ids, but nearly always does.
    same = total = 0
    for size in range(0, len(body.body), 97):
        billed = body.billed_at(size)
        whole = body.body[:size].rpartition(b"\n\n")[0]
        delivered = VOCABULARY.count(said(whole)) if whole else 0
        same += delivered == billed.delivered_tokens
        total += 1
        assert abs(delivered - billed.delivered_tokens) <= 3
    assert same / total > 0.8


@pytest.mark.parametrize("kind", KINDS)
def test_a_later_cut_never_costs_less(kind: Kind) -> None:
    body = render(Script(kind=kind, output_tokens=15, reasoning_tokens=8), CHAT)
    bills = [body.billed_at(size) for size in range(len(body.body) + 1)]
    spent = [bill.output_tokens for bill in bills]
    assert spent == sorted(spent)
    assert spent[-1] == body.usage["completion_tokens"]
    assert bills[-1].ended == "completed"
    assert {bill.ended for bill in bills[:-1]} == {"client_gone"}


def test_usage_counts_as_sent_once_its_frame_went_out_whole() -> None:
    body = render(Script(), CHAT)
    before_done = len(body.body) - len(b"data: [DONE]\n\n")
    assert body.billed_at(before_done).usage_sent
    assert not body.billed_at(before_done - 1).usage_sent


def test_a_frame_that_went_out_in_part_was_generated_but_not_delivered() -> None:
    body = render(Script(reaction_tokens=0), CHAT)
    first = len(body.frames[0])
    bills = [body.billed_at(first), body.billed_at(first + 1)]
    assert [len(bill.output_ids) for bill in bills] == [0, 1]
    assert [bill.delivered_tokens for bill in bills] == [0, 0]


def test_a_turn_that_was_cut_has_no_end_of_turn_tokens() -> None:
    script = Script(kind="tool_call", output_tokens=20, reaction_tokens=0)
    body = render(script, CHAT)
    cut = body.billed_at(len(body.body) // 2)
    assert (cut.end_of_turn, cut.finish_reason) == (0, None)
    whole = body.billed_at(len(body.body))
    assert (whole.end_of_turn, whole.finish_reason) == (6, "tool_calls")


def test_a_provider_that_never_notices_bills_the_whole_answer() -> None:
    body = render(Script(kind="tool_call", reaction_tokens=10**6), CHAT)
    assert body.billed_at(0).output_tokens == body.usage["completion_tokens"]


def test_hidden_reasoning_is_billed_and_never_shown() -> None:
    body = render(Script(reasoning_tokens=100, output_tokens=10), CHAT)
    billed = body.billed_at(len(body.body))
    assert billed.usage["completion_tokens_details"]["reasoning_tokens"] == 100
    assert (billed.output_tokens, billed.delivered_tokens) == (110, 10)
    assert VOCABULARY.count(said(body.body)) == 10


def test_gpt_5_reports_its_reasoning_in_steps_of_64() -> None:
    body = render(Script(reasoning_tokens=100, output_tokens=10), {**CHAT, "model": "gpt-5"})
    details = body.usage["completion_tokens_details"]
    assert details["reasoning_tokens"] == 64
    assert body.usage["completion_tokens"] == 100 + 10 + 9


@pytest.mark.parametrize("shown", ["reasoning_content", "reasoning", "reasoning_text"])
def test_reasoning_is_shown_under_each_of_its_names(shown: Any) -> None:
    body = render(Script(reasoning_tokens=30, reasoning_shown=shown), CHAT)
    deltas = [choice["delta"] for event in events(body.body) for choice in event["choices"]]
    assert VOCABULARY.count("".join(delta.get(shown, "") for delta in deltas)) == 30


def test_a_summary_is_shown_but_its_words_are_not_what_is_billed() -> None:
    script = Script(reasoning_tokens=200, reasoning_shown="summary", output_tokens=10)
    body = render(script, RESPONSES, endpoint="responses")
    names = [event["type"] for event in events(body.body)]
    assert "response.reasoning_summary_text.delta" in names
    assert body.usage["output_tokens"] == 200 + 10 + 1


@pytest.mark.parametrize("limit", range(0, 30, 3))
@pytest.mark.parametrize("kind", KINDS)
def test_a_limit_bounds_the_output_and_is_told(kind: Kind, limit: int) -> None:
    script = Script(kind=kind, output_tokens=40, reasoning_tokens=6)
    chat = render(script, {**CHAT, "max_completion_tokens": limit})
    assert chat.usage["completion_tokens"] <= limit
    finishes = [c["finish_reason"] for e in events(chat.body) for c in e["choices"]]
    assert finishes[-1] == "length"
    responses = render(script, {**RESPONSES, "max_output_tokens": limit}, endpoint="responses")
    last = events(responses.body)[-1]
    assert last["type"] == "response.incomplete"
    assert last["response"]["usage"]["output_tokens"] <= limit


def test_choices_are_interleaved_and_billed_together() -> None:
    body = render(Script(output_tokens=10), {**CHAT, "n": 3})
    indexes = [choice["index"] for event in events(body.body) for choice in event["choices"]]
    assert indexes[:6] == [0, 1, 2, 0, 1, 2]
    assert body.usage["completion_tokens"] == 30


def test_logprobs_name_every_token() -> None:
    body = render(Script(output_tokens=30, language="emoji"), {**CHAT, "logprobs": True})
    choices = [choice for event in events(body.body) for choice in event["choices"]]
    entries = [e for c in choices if c["logprobs"] for e in c["logprobs"]["content"]]
    assert len(entries) == 30
    raw = b"".join(bytes(entry["bytes"]) for entry in entries)
    assert raw.decode() == said(body.body)


@pytest.mark.parametrize("kind", ["tool_call", "parallel_calls", "function_call", "mixed"])
def test_streamed_arguments_are_whole_json(kind: Kind) -> None:
    body = render(Script(kind=kind, output_tokens=25, language="chinese"), CHAT)
    texts: dict[int, str] = {}
    for event in events(body.body):
        for choice in event["choices"]:
            delta = choice["delta"]
            for call in delta.get("tool_calls", []):
                index = call["index"]
                texts[index] = texts.get(index, "") + call["function"]["arguments"]
            if "function_call" in delta:
                texts[0] = texts.get(0, "") + delta["function_call"]["arguments"]
    assert len(texts) == (1 if kind != "parallel_calls" else len(texts)) >= 1
    assert all(set(json.loads(text)) == {"place", "days"} for text in texts.values())


def usage_places(style: UsageStyle, request: dict[str, Any]) -> list[str]:
    """Where usage is told, chunk by chunk."""
    places: list[str] = []
    for event in events(render(Script(output_tokens=3, usage_style=style), request).body):
        finish = any(choice.get("finish_reason") for choice in event["choices"])
        where = "finish" if finish else "empty" if not event["choices"] else "text"
        if event.get("usage") is not None:
            places.append(where)
        if event.get("x_groq", {}).get("usage"):
            places.append(f"x_groq:{where}")
        if any(choice.get("usage") for choice in event["choices"]):
            places.append(f"choice:{where}")
    return places


@pytest.mark.parametrize(
    ("style", "asked", "unasked"),
    [
        ("standard", ["empty"], []),
        ("zero", ["empty"], []),
        ("missing", [], []),
        ("on_finish_chunk", ["finish"], ["finish"]),
        ("twice", ["finish", "empty"], ["finish", "empty"]),
        ("running", ["text"] * 4 + ["finish", "empty"], ["text"] * 4 + ["finish", "empty"]),
        ("x_groq", ["x_groq:finish", "empty"], ["x_groq:finish"]),
        ("choice_usage", ["choice:finish"], ["choice:finish"]),
    ],
)
def test_usage_is_told_where_the_style_says(
    style: UsageStyle, asked: list[str], unasked: list[str]
) -> None:
    assert usage_places(style, CHAT) == asked
    assert usage_places(style, UNASKED) == unasked


def test_usage_is_null_on_other_chunks_only_if_it_was_asked_for() -> None:
    asked = events(render(Script(), CHAT).body)
    unasked = events(render(Script(), UNASKED).body)
    assert all(event["usage"] is None for event in asked[:-1])
    assert not any("usage" in event for event in unasked)


def test_running_usage_grows_with_the_text() -> None:
    told = events(render(Script(output_tokens=5, usage_style="running"), CHAT).body)
    counts = [event["usage"]["completion_tokens"] for event in told]
    assert counts == [0, 1, 2, 3, 4, 5, 5, 5]


def test_azure_opens_with_a_frame_that_has_no_choices_and_is_not_the_usage() -> None:
    script = Script(azure=True, azure_async_filter=True, output_tokens=25)
    told = events(render(script, CHAT).body)
    assert told[0]["choices"] == []
    assert "prompt_filter_results" in told[0]
    bare = [c for e in told for c in e["choices"] if "delta" not in c]
    assert len(bare) >= 2


@pytest.mark.parametrize(
    ("framing", "start", "end"),
    [
        ("lf", b"data: {", b"data: [DONE]\n\n"),
        ("crlf", b"data: {", b"data: [DONE]\r\n\r\n"),
        ("tight", b"data:{", b"data:[DONE]\n\n"),
    ],
)
def test_frames_are_framed_as_scripted(framing: Any, start: bytes, end: bytes) -> None:
    body = render(Script(framing=framing), CHAT).body
    assert body.startswith(start)
    assert body.endswith(end)


def test_comments_stand_between_the_frames() -> None:
    body = render(Script(output_tokens=20, keep_alive_every=5), CHAT)
    assert body.body.count(b": keep-alive\n\n") == 4
    assert body.billed_at(len(body.body)).delivered_tokens == 20


def test_padding_is_left_out_when_the_request_says_so() -> None:
    options = {"stream_options": {"include_obfuscation": False}}
    assert b"obfuscation" in render(Script(), CHAT).body
    assert b"obfuscation" not in render(Script(), {**CHAT, **options}).body


def test_ids_differ_between_calls_unless_they_are_scripted_to_be_reused() -> None:
    def ids(script: Script) -> set[str]:
        return {render(script, CHAT, number=n).plan.call.response_id for n in range(5)}

    assert len(ids(Script())) == 5
    assert len(ids(Script(reuse_id=True))) == 1
