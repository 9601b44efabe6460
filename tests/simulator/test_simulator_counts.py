"""The provider's own rules, as tables."""

from typing import Any

import pytest

from lastchunk.simulator import Script, render
from lastchunk.simulator.provider_counts import parallel_text, prompt_tokens
from lastchunk.simulator.text import vocabulary_of

USER = {"role": "user", "content": "What is the capital of Mexico?"}
SYSTEM = {"role": "system", "content": "Be brief."}
TURN = {"role": "assistant", "content": "It is Mexico City."}
TOOL = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Weather of a place.",
        "parameters": {
            "type": "object",
            "properties": {
                "city": {"type": "string", "description": "Its name"},
                "days": {"type": "integer"},
            },
            "required": ["city"],
        },
    },
}
NAMESPACE = (
    "namespace functions {\n\n// Weather of a place.\ntype get_weather = (_: {\n// Its name\n"
    "city: string,\ndays?: number,\n}) => any;\n\n} // namespace functions"
)


def tokens(text: str) -> int:
    return vocabulary_of("gpt-4o").count(text)


def chat(model: str, *messages: dict[str, Any], **more: Any) -> int:
    body = {"model": model, "messages": list(messages), **more}
    return prompt_tokens(vocabulary_of(model), model, "chat/completions", body)


U, S, T = tokens(USER["content"]), tokens(SYSTEM["content"]), tokens(TURN["content"])


@pytest.mark.parametrize(
    ("model", "messages", "expected"),
    [
        ("gpt-4o", [USER], 3 + 4 + U),
        ("gpt-4o", [SYSTEM, USER], 3 + 8 + S + U),
        ("gpt-4o", [USER, TURN, USER], 3 + 12 + U + T + U),
        ("gpt-5", [USER], 2 + 4 + U),
        ("gpt-5", [USER, TURN, USER], 2 + 12 + U + T + U + 2),
        ("gpt-4o", [{**USER, "name": "ann"}], 3 + 4 + U + tokens("ann")),
        ("gpt-4o", [{"role": "user", "content": [{"type": "text", "text": "a"}] * 3}], 8),
    ],
)
def test_messages(model: str, messages: list[dict[str, Any]], expected: int) -> None:
    assert chat(model, *messages) == expected


@pytest.mark.parametrize(
    ("model", "messages", "extra"),
    [
        ("gpt-4o", [USER], 9),
        ("gpt-4o", [SYSTEM, USER], 5 + tokens("Be brief.\n\n") - S),
        ("gpt-5", [USER], 90),
        ("o3", [USER], 10),
    ],
)
def test_tools(model: str, messages: list[dict[str, Any]], extra: int) -> None:
    added = chat(model, *messages, tools=[TOOL]) - chat(model, *messages)
    assert added == tokens(NAMESPACE) + extra


def test_a_forced_function_costs_its_name() -> None:
    choice = {"type": "function", "function": {"name": "get_weather"}}
    plain = chat("gpt-4o", USER, tools=[TOOL])
    assert chat("gpt-4o", USER, tools=[TOOL], tool_choice="none") == plain + 1
    forced = chat("gpt-4o", USER, tools=[TOOL], tool_choice=choice)
    assert forced == plain + tokens("functions.get_weather") + 6


def test_a_round_of_tools_in_the_history() -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "get_weather", "arguments": "{}"}}
    turn = {"role": "assistant", "content": None, "tool_calls": [call]}
    result = {"role": "tool", "tool_call_id": "c1", "content": "sunny"}
    added = chat("gpt-4o", USER, turn, result) - chat("gpt-4o", USER)
    name = tokens("functions.get_weather")
    assert added == 4 + name + tokens("{}") + 2 + 4 + tokens("sunny") + tokens("get_weather") + 2


def responses(model: str, **body: Any) -> int:
    return prompt_tokens(vocabulary_of(model), model, "responses", {"model": model, **body})


def test_a_response_counts_as_chat_does() -> None:
    assert responses("gpt-4o", input=USER["content"]) == 7 + U
    assert responses("gpt-4o", input=[USER], instructions="Be brief.") == 11 + S + U
    assert responses("gpt-4", input=USER["content"]) == 7 + U - 1


def test_other_endpoints_count_their_text() -> None:
    vocabulary = vocabulary_of("gpt-4o")
    assert prompt_tokens(vocabulary, "gpt-4o", "completions", {"prompt": ["a", "b"]}) == 2
    assert prompt_tokens(vocabulary, "gpt-4o", "embeddings", {"input": [[1, 2], [3]]}) == 3


@pytest.mark.parametrize(
    ("model", "kind", "body", "chat_extra", "responses_extra"),
    [
        ("gpt-4o", "text", {}, 0, 1),
        ("gpt-4o", "text", {"tools": [TOOL]}, 1, 2),
        ("gpt-4o", "refusal", {}, 1, 2),
        ("gpt-4o", "tool_call", {"tools": [TOOL]}, 6, 7),
        ("gpt-4", "tool_call", {"tools": [TOOL]}, 3, 7),
        ("gpt-4o", "parallel_calls", {"tools": [TOOL]}, 4, 7),
        ("gpt-5", "text", {}, 9, 6),
        ("gpt-5", "tool_call", {"tools": [TOOL]}, 15, 12),
        ("gpt-5.1", "text", {}, 9, 4),
        ("gpt-5.4", "text", {}, 3, 4),
        ("gpt-5.4", "tool_call", {"tools": [TOOL]}, 9, 10),
        ("o3", "text", {}, 11, 1),
    ],
)
def test_the_end_of_a_turn_costs(
    model: str, kind: Any, body: dict[str, Any], chat_extra: int, responses_extra: int
) -> None:
    request = {"model": model, "stream": True, "messages": [USER], "input": "hi", **body}
    for endpoint, extra in (("chat/completions", chat_extra), ("responses", responses_extra)):
        rendered = render(Script(kind=kind), request, endpoint=endpoint)  # type: ignore[arg-type]
        billed = rendered.billed_at(len(rendered.body))
        assert billed.end_of_turn == extra
        assert billed.output_tokens == len(billed.output_ids) + extra


def test_a_forced_call_spends_only_its_arguments() -> None:
    choice = {"type": "function", "function": {"name": "get_weather"}}
    request = {"model": "gpt-4o", "messages": [USER], "tools": [TOOL], "tool_choice": choice}
    rendered = render(Script(kind="tool_call"), request)
    part = rendered.plan.call.choices[0].parts[0]
    assert rendered.usage["completion_tokens"] == tokens(part.text)
    assert rendered.plan.call.choices[0].finish_reason == "stop"


def test_parallel_calls_spend_one_call_of_the_parallel_tool() -> None:
    request = {"model": "gpt-4o", "messages": [USER], "tools": [TOOL]}
    rendered = render(Script(kind="parallel_calls"), request)
    pairs = [(part.name, part.text) for part in rendered.plan.call.choices[0].parts]
    expected = tokens("multi_tool_use.parallel") + tokens(parallel_text(pairs)) + 4
    assert rendered.usage["completion_tokens"] == expected
