"""Prompts counted as the provider renders them: what each part adds, and what never fails."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lastchunk.tokens.encodings import Encoding, count
from lastchunk.tokens.prompt import PromptCount, count_prompt
from lastchunk.tokens.tools import namespace_text
from lastchunk.usage import Basis
from lastchunk.wire.dialect import Dialect
from lastchunk.wire.prompt import read_prompt

SYSTEM = {"role": "system", "content": "You sort ships by size."}
USER = {"role": "user", "content": "Which of these two is the larger one?"}
FUNCTION: dict[str, Any] = {
    "name": "measure",
    "description": "Measure a ship.",
    "parameters": {"properties": {"ship": {"type": "string"}}, "required": ["ship"]},
}
TOOL: dict[str, Any] = {"type": "function", "function": FUNCTION}
FLAT_TOOL = {"type": "function", **FUNCTION}
SCHEMA = {
    "name": "size",
    "schema": {
        "type": "object",
        "properties": {"metres": {"type": "number", "minimum": 0}},
        "required": ["metres"],
        "additionalProperties": False,
    },
}


def tokens(text: str, name: str = "o200k_base") -> int:
    return count(text, Encoding(name)).tokens


def chat(model: str = "gpt-4o", **body: Any) -> PromptCount:
    body.setdefault("messages", [USER])
    return count_prompt(read_prompt(Dialect.CHAT, body), model, Dialect.CHAT)


def responses(model: str = "gpt-4o", **body: Any) -> PromptCount:
    body.setdefault("input", USER["content"])
    return count_prompt(read_prompt(Dialect.RESPONSES, body), model, Dialect.RESPONSES)


def best(counted: PromptCount) -> int:
    return counted.quantity.best


PLAIN = 3 + 4 + tokens(USER["content"])


def test_a_plain_message_is_its_text_four_tokens_and_the_opening() -> None:
    counted = chat()
    assert best(counted) == PLAIN
    assert counted.quantity.basis is Basis.COUNTED
    assert counted.quantity.low == counted.quantity.high
    assert counted.reasons == ()


def test_text_parts_are_joined_before_they_are_counted() -> None:
    parts = [{"type": "text", "text": "unbeliev"}, {"type": "text", "text": "able"}]
    counted = chat(messages=[{"role": "user", "content": parts}])
    assert best(counted) == 3 + 4 + tokens("unbelievable")


def test_a_name_stands_behind_its_role_and_a_colon() -> None:
    counted = chat(messages=[{**USER, "name": "captain"}])
    assert best(counted) == PLAIN + tokens(":captain")


def test_a_reasoning_model_opens_shorter_and_pays_for_past_answers() -> None:
    past = {"role": "assistant", "content": "The left one."}
    assert best(chat("gpt-5")) == PLAIN - 1
    assert best(chat("gpt-5", messages=[USER, past])) == PLAIN - 1 + 4 + tokens("The left one.") + 2


def test_responses_count_instructions_as_a_system_message() -> None:
    counted = responses(instructions="You sort ships by size.")
    assert best(counted) == PLAIN + 4 + tokens("You sort ships by size.")


NAMESPACE = tokens(
    namespace_text(read_prompt(Dialect.CHAT, {"tools": [TOOL]}).tools).text,
)


@pytest.mark.parametrize(
    ("choice", "extra"),
    [
        (None, 0),
        ("auto", 0),
        ("required", 0),
        ("none", 1),
        ({"type": "function", "function": {"name": "measure"}}, 6 + tokens("functions.measure")),
    ],
)
def test_tools_are_a_section_and_the_choice_adds_its_own(choice: object, extra: int) -> None:
    assert best(chat(tools=[TOOL], tool_choice=choice)) == PLAIN + NAMESPACE + 9 + extra


def test_tools_join_the_system_message_behind_a_blank_line() -> None:
    text = SYSTEM["content"]
    join = tokens(text + "\n\n") - tokens(text)
    with_tools = best(chat(messages=[SYSTEM, USER], tools=[TOOL]))
    assert with_tools - best(chat(messages=[SYSTEM, USER])) == NAMESPACE + 5 + join


@pytest.mark.parametrize(
    ("model", "extra"), [("gpt-4o", 3), ("gpt-5", 9), ("gpt-5.6", 9), ("o3", 9)]
)
def test_tools_of_responses_cost_their_text_and_a_constant(model: str, extra: int) -> None:
    assert best(responses(model, tools=[FLAT_TOOL])) - best(responses(model)) == NAMESPACE + extra


def test_legacy_functions_count_like_tools() -> None:
    assert chat(functions=[FUNCTION]) == chat(tools=[TOOL])


def history(*calls: tuple[str, str]) -> list[dict[str, Any]]:
    made = [
        {"id": f"c{n}", "type": "function", "function": {"name": name, "arguments": arguments}}
        for n, (name, arguments) in enumerate(calls)
    ]
    results = [
        {"role": "tool", "tool_call_id": f"c{n}", "content": "90 m"} for n in range(len(calls))
    ]
    return [USER, {"role": "assistant", "content": None, "tool_calls": made}, *results]


def test_a_round_is_a_call_and_its_result_with_compact_arguments() -> None:
    counted = chat(messages=history(("measure", '{"ship": "Vasa"}')))
    call = 6 + tokens("functions.measure") + tokens('{"ship":"Vasa"}')
    assert best(counted) == PLAIN + call + 6 + tokens("90 m") + tokens("measure")


def test_several_calls_of_a_turn_are_one_parallel_call() -> None:
    counted = chat(messages=history(("measure", '{"ship":"A"}'), ("weigh", "{}")))
    text = (
        '{"tool_uses":[{"recipient_name":"functions.measure","parameters":{"ship":"A"}},'
        '{"recipient_name":"functions.weigh","parameters":{}}]}'
    )
    call = 6 + tokens("multi_tool_use.parallel") + tokens(text)
    assert best(counted) == PLAIN + call + 10 + tokens('["90 m", "90 m"]')


def test_results_of_parallel_calls_stand_in_one_array_as_what_they_are() -> None:
    messages = history(("measure", "{}"), ("weigh", "{}"))
    messages[-2]["content"] = '{"metres":69}'
    messages[-1]["content"] = "light"
    whole = best(chat(messages=messages))
    messages[-1] |= {"content": "", "name": "a_name_that_is_not_shown"}
    shown = tokens('[{"metres": 69}, "light"]') - tokens('[{"metres": 69}, ""]')
    assert whole - best(chat(messages=messages)) == shown


def test_either_way_of_escaping_a_result_lies_in_the_interval() -> None:
    messages = history(("measure", "{}"), ("weigh", "{}"))
    messages[-1]["content"] = "Längä ☀ " * 20
    counted = chat(messages=messages).quantity
    escaped = tokens(json.dumps([messages[-2]["content"], messages[-1]["content"]]))
    plain = tokens(
        json.dumps([messages[-2]["content"], messages[-1]["content"]], ensure_ascii=False)
    )
    assert counted.best + escaped - plain <= counted.high


def test_responses_force_the_only_tool_where_a_call_is_required() -> None:
    auto = best(responses(tools=[FLAT_TOOL]))
    forced = {"type": "function", "name": FLAT_TOOL["name"]}
    name = tokens("functions." + str(FLAT_TOOL["name"]))
    assert best(responses(tools=[FLAT_TOOL], tool_choice="required")) == auto + 6 + name
    assert best(responses(tools=[FLAT_TOOL], tool_choice=forced)) == auto + 6 + name
    two = [FLAT_TOOL, {**FLAT_TOOL, "name": "weigh"}]
    assert best(responses(tools=two, tool_choice="required")) == best(responses(tools=two))


def test_embeddings_have_no_template_to_doubt() -> None:
    counted = count_prompt(
        read_prompt(Dialect.COMPLETIONS, {"prompt": ["Once", "upon"]}),
        "text-embedding-3-small",
        Dialect.COMPLETIONS,
    )
    assert counted.reasons == ()
    assert counted.quantity.low == counted.quantity.best == counted.quantity.high == 2


def test_a_lone_call_item_with_a_status_costs_three_more_and_may_not() -> None:
    call = {"type": "function_call", "call_id": "c", "name": "measure", "arguments": "{}"}
    result = {"type": "function_call_output", "call_id": "c", "output": "90 m"}
    plain = responses(input=[USER, call, result]).quantity
    marked = responses(input=[USER, {**call, "status": "completed"}, result]).quantity
    assert marked.best == plain.best + 3
    assert marked.low == plain.low


FORMAT = tokens(
    '# Response Formats\n\n## size\n\n{"type":"object","properties":{"metres":{"type":"number"}}}'
)


def test_an_answer_schema_is_shown_compact_and_without_its_limits() -> None:
    counted = chat(response_format={"type": "json_schema", "json_schema": SCHEMA})
    assert best(counted) == PLAIN + FORMAT + 4 + 2 + tokens("size")
    flat = {"format": {"type": "json_schema", **SCHEMA}}
    assert best(responses(text=flat)) == PLAIN + FORMAT + 1


def test_an_image_by_url_is_bounded_by_the_rule_and_named() -> None:
    picture = {"type": "image_url", "image_url": {"url": "https://example.com/a.png"}}
    counted = chat(messages=[{"role": "user", "content": [picture]}])
    assert counted.reasons == ("image_by_url",)
    assert counted.quantity.basis is Basis.BOUNDED
    assert counted.quantity.low == 3 + 4 + 85
    assert counted.quantity.high == 3 + 4 + 85 + 8 * 170


def test_what_lies_at_the_provider_is_bounded_and_named() -> None:
    counted = responses(previous_response_id="resp_1", tools=[{"type": "web_search"}])
    assert counted.reasons == ("builtin_tool:web_search", "previous_response_id")
    assert counted.quantity.high > 10_000


def test_an_unknown_model_is_bounded_and_says_why() -> None:
    counted = chat("our-own-model")
    assert counted.reasons == ("vocabulary_unknown", "template_unknown")
    assert counted.quantity.low < counted.quantity.best < counted.quantity.high


def test_a_legacy_prompt_is_its_text_or_its_ids() -> None:
    def legacy(prompt: object) -> int:
        body = {"prompt": prompt}
        dialect = Dialect.COMPLETIONS
        return count_prompt(read_prompt(dialect, body), "davinci-002", dialect).quantity.best

    assert legacy("Once upon a time") == tokens("Once upon a time", "cl100k_base")
    assert legacy(["Once", "upon"]) == 2
    assert legacy([1, 2, 3]) == 3
    assert legacy([[1, 2], [3]]) == 3


def test_a_prompt_beyond_the_cap_is_extrapolated_and_says_so() -> None:
    message = {"role": "user", "content": "plain words in a row " * 50_000}
    one = best(chat(messages=[message]))
    counted = chat(messages=[message] * 20)
    assert "extrapolated" in counted.reasons
    assert counted.quantity.low < 20 * one < counted.quantity.high
    assert counted.quantity.best == pytest.approx(20 * one, 0.01)


LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
JSON = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner),
    max_leaves=12,
)
KEYS = st.sampled_from(
    [
        "messages",
        "role",
        "content",
        "tool_calls",
        "function",
        "name",
        "arguments",
        "tools",
        "type",
        "parameters",
        "properties",
        "items",
        "anyOf",
        "allOf",
        "$ref",
        "enum",
        "required",
        "title",
        "description",
        "default",
        "response_format",
        "json_schema",
        "schema",
        "input",
        "instructions",
        "output",
        "call_id",
        "tool_choice",
        "image_url",
        "url",
        "detail",
        "prompt",
        "text",
        "format",
        "reasoning",
        "status",
        "functions",
        "function_call",
        "prediction",
        "suffix",
        "file",
        "minimum",
    ]
)
WORDS = st.sampled_from(
    [
        "user",
        "system",
        "tool",
        "assistant",
        "function",
        "message",
        "function_call",
        "function_call_output",
        "reasoning",
        "json_schema",
        "object",
        "array",
        "string",
        "null",
        "#/",
        "#",
        "#/properties",
        "text",
        "image_url",
        "input_image",
        "data:image/png;base64,AAAA",
        "required",
        "none",
        "auto",
        "{}",
    ]
)
SHAPED = st.recursive(
    LEAVES | WORDS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=6),
    max_leaves=25,
)


@given(
    body=st.dictionaries(KEYS, SHAPED, max_size=6) | st.dictionaries(st.text(), JSON, max_size=4),
    model=st.sampled_from(["gpt-4o", "gpt-4", "gpt-5", "o3-mini", "qwen3", "", "x\ud800"]),
    dialect=st.sampled_from(Dialect),
)
@settings(max_examples=600, deadline=None)
def test_any_json_is_read_and_counted_without_raising(
    body: dict[str, object], model: str, dialect: Dialect
) -> None:
    counted = count_prompt(read_prompt(dialect, body), model, dialect)
    quantity = counted.quantity
    assert 0 <= quantity.low <= quantity.best <= quantity.high
    assert (quantity.basis is Basis.BOUNDED) == bool(counted.reasons)


@pytest.mark.parametrize("key", ["allOf", "anyOf", "items", "properties", "default", "enum"])
def test_schemas_nested_without_end_are_counted(key: str) -> None:
    schema: object = {"type": "string"}
    for _ in range(900):
        schema = {key: {"a": schema} if key in ("properties", "default") else [schema]}
    tool = {"type": "function", "function": {"name": "f", "parameters": schema}}
    json_schema = {"type": "json_schema", "json_schema": {"name": "n", "schema": schema}}
    assert best(chat(tools=[tool], response_format=json_schema)) > PLAIN
