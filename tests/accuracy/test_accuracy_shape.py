"""A shape tells what a provider adds constants for, and nothing of what was said."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from recordings import TOOL

from lastchunk.meter.observation import Observation
from lastchunk.settlement.shape import answer_shape_of, family_of, pool_of, shape_of, stem_of
from lastchunk.usage import OutputCounts
from lastchunk.wire.dialect import Dialect
from lastchunk.wire.prompt import read_prompt
from lastchunk.wire.request import read_request

KEY = b"a key"
PLAIN = {"model": "gpt-4o", "messages": [{"role": "user", "content": "one"}]}
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4)
    ),
    max_leaves=12,
)


def shape(body: dict[str, Any], *, host: str = "api.openai.com", key: bytes = KEY) -> str:
    request = read_request(Dialect.CHAT, body, upstream=host, body_bytes=100)
    return shape_of(read_prompt(Dialect.CHAT, body), request, None, key)


def said(*texts: str, **more: Any) -> dict[str, Any]:
    return {**PLAIN, "messages": [{"role": "user", "content": text} for text in texts], **more}


def test_free_text_is_in_no_shape() -> None:
    one = said("one", tools=[TOOL])
    other = said("something else that is much longer", tools=[TOOL])
    assert shape(one) == shape(other)


def test_models_of_one_family_have_one_shape() -> None:
    assert shape(said("a", model="gpt-4o-2024-08-06")) == shape(said("a", model="gpt-4.1-mini"))
    assert shape(said("a", model="gpt-4o")) != shape(said("a", model="gpt-5"))


@pytest.mark.parametrize(
    "declared",
    [
        {"tools": [TOOL]},
        {"tools": [TOOL], "tool_choice": "required"},
        {"tools": [TOOL, {**TOOL, "function": {"name": "other"}}]},
        {"tools": [{**TOOL, "function": {**TOOL["function"], "description": "Another."}}]},
        {"response_format": {"type": "json_schema", "json_schema": {"name": "a", "schema": {}}}},
        {"prediction": {"content": "p"}},
        {"web_search_options": {}},
    ],
    ids=["tools", "tool_choice", "two tools", "description", "schema", "prediction", "search"],
)
def test_what_is_declared_is_in_the_stem(declared: dict[str, Any]) -> None:
    stems = [stem_of(shape(said("a"))), stem_of(shape(said("a", tools=[TOOL], stream=True)))]
    stem = stem_of(shape(said("a", **declared)))
    assert stem != stems[0]
    assert (stem == stems[1]) == (declared == {"tools": [TOOL]})


def test_a_longer_conversation_has_the_same_stem_and_another_shape() -> None:
    short, long = shape(said("a")), shape(said("a", "b"))
    assert short != long
    assert stem_of(short) == stem_of(long)


def test_pictures_depend_on_the_model_itself() -> None:
    picture = {"type": "image_url", "image_url": {"url": "https://example.com/a.png"}}
    content = [{"role": "user", "content": [picture]}]
    large = {"model": "gpt-4o", "messages": content}
    assert shape(large) != shape({**large, "model": "gpt-4o-mini"})


def test_another_key_or_upstream_gives_another_shape() -> None:
    assert shape(PLAIN) != shape(PLAIN, key=b"another key")
    assert shape(PLAIN) != shape(PLAIN, host="relay.example")


def test_any_azure_host_is_the_same_upstream() -> None:
    hosts = ("one.openai.azure.com", "two.openai.azure.com")
    assert shape(PLAIN, host=hosts[0]) == shape(PLAIN, host=hosts[1])


@given(JSON, JSON, JSON)
def test_no_json_raises(messages: object, tools: object, wanted: object) -> None:
    body = {"model": "m", "messages": messages, "tools": tools, "response_format": wanted}
    assert shape(body) == shape(body)
    assert shape({"model": "m", "messages": [messages], "tools": [tools]})


def test_a_schema_too_deep_to_write_is_a_shape_too() -> None:
    schema: dict[str, Any] = {}
    for _ in range(20_000):
        schema = {"properties": schema}
    function = {"name": "deep", "parameters": schema}
    assert shape(said("a", tools=[{"type": "function", "function": function}]))


def test_families_by_name() -> None:
    assert family_of("gpt-4.1-mini", Dialect.CHAT) == "chat gpt-4o"
    assert family_of("openai/gpt-5-nano", Dialect.RESPONSES) == "responses gpt-5"
    assert family_of("meta-llama/llama-9-giant", Dialect.CHAT) == "chat other llama"
    assert family_of("", Dialect.CHAT) == "chat other unnamed"


def test_families_are_compared_with_their_like() -> None:
    assert pool_of("chat gpt-4o") == pool_of("chat gpt-4") == "chat all known"
    assert pool_of("chat gpt-5") == pool_of("chat o-series") == "chat all rounding"
    assert pool_of("responses other llama") == "responses all other"


def test_answers_differ_by_what_they_hold_not_by_how_much() -> None:
    request = read_request(Dialect.CHAT, PLAIN, upstream="a", body_bytes=1)
    seen = Observation(finish_reason="stop")

    def of(**counts: int) -> str:
        return answer_shape_of(request, seen, OutputCounts(**counts), KEY)

    assert of(text_tokens=1) == of(text_tokens=900)
    assert len({of(text_tokens=1), of(calls=1), of(calls=2), of(calls=3), of()}) == 5
    assert stem_of(of(calls=2)) == stem_of(of(calls=3))
