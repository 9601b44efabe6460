"""The judge: what it reads, counts, classes and adds up."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from recordings import TOOL, chat_line

from lastchunk.reports.accuracy_cookbook import cookbook_count
from lastchunk.reports.accuracy_exchange import (
    Endpoint,
    Exchange,
    Requests,
    Skipped,
    read_exchange,
)
from lastchunk.reports.accuracy_judge import Judge, Judged
from lastchunk.reports.accuracy_prefixes import prefix_cuts
from lastchunk.reports.accuracy_scores import Percents
from lastchunk.settlement.residuals import Side

SEARCH = {"web_search_options": {}}
SCHEMA = {"type": "json_schema", "json_schema": {"name": "place", "schema": {"type": "object"}}}
IMAGE = {
    "type": "image_url",
    "image_url": {"url": "data:image/gif;base64,R0lGODlhAQABAIAAAAAAAP///yH5BAEAAAAALAAAAAAB"},
}
CALL = {"id": "c", "type": "function", "function": {"name": "find_bus", "arguments": "{}"}}
HISTORY = [
    {"role": "user", "content": "a"},
    {"role": "assistant", "tool_calls": [CALL]},
    {"role": "tool", "tool_call_id": "c", "content": "at nine"},
]
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(["messages", "content", "type", "usage", "choices", "delta", "x"]),
            inner,
            max_size=4,
        )
    ),
    max_leaves=16,
)


def exchange(line: dict[str, Any]) -> Exchange:
    found = read_exchange(json.dumps(line).encode())
    assert isinstance(found, Exchange)
    return found


def judged(line: dict[str, Any], judge: Judge | None = None) -> dict[Side, Judged]:
    found = (judge or Judge()).judge(exchange(line))
    assert not isinstance(found, Skipped)
    return {one.side: one for one in found}


def test_prompt_and_output_are_compared_with_the_providers_usage() -> None:
    found = judged(chat_line())
    prompt, output = found[Side.PROMPT], found[Side.OUTPUT]
    assert (prompt.truth, prompt.cold.best, prompt.kind) == (13, 13, "plain")
    assert (output.truth, output.cold.best, output.kind) == (3, 3, "text")
    assert prompt.family == output.family == "gpt-4o"
    assert prompt.derivable
    assert output.derivable


def test_a_stream_is_judged_like_a_whole_answer() -> None:
    assert judged(chat_line(stream=True)) == judged(chat_line())


def test_warm_counts_have_learned_from_the_exchanges_before_only() -> None:
    judge = Judge()
    first = judged(chat_line(prompt_tokens=20, tools=[TOOL]), judge)[Side.PROMPT]
    off = 20 - first.cold.best
    again = judged(chat_line("Another?", prompt_tokens=16, tools=[TOOL]), judge)[Side.PROMPT]
    assert off != 0
    assert first.warm.best == first.cold.best
    assert again.warm.best == again.cold.best + off


def test_what_cannot_be_seen_is_no_part_of_the_truth() -> None:
    line = chat_line(model="o4-mini", completion_tokens=100)
    details = {"reasoning_tokens": 64, "rejected_prediction_tokens": 10, "audio_tokens": 6}
    line["usage"]["completion_tokens_details"] = details
    assert judged(line)[Side.OUTPUT].truth == 20


@pytest.mark.parametrize(
    ("request_parts", "kind"),
    [
        ({}, "plain"),
        ({"messages": [*HISTORY[:1], {"role": "user", "content": "b"}]}, "multi-turn"),
        ({"tools": [TOOL]}, "tools"),
        ({"messages": HISTORY, "tools": [TOOL]}, "tool history"),
        ({"response_format": SCHEMA}, "json_schema"),
        ({"messages": [{"role": "user", "content": [IMAGE]}]}, "images"),
        (SEARCH, "not derivable"),
        ({"model": "mistral-large"}, "other models"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_prompts_are_classed_by_what_they_hold(request_parts: dict[str, Any], kind: str) -> None:
    line = chat_line(model=request_parts.get("model", "gpt-4o"))
    line["request"] |= request_parts
    line["body"] = line["body"].replace("gpt-4o", line["model"])
    assert judged(line)[Side.PROMPT].kind == kind


@pytest.mark.parametrize(
    ("message", "finish", "kind"),
    [
        ({"content": "At nine."}, "stop", "text"),
        ({"content": "At nine."}, "length", "length limit"),
        ({"refusal": "No."}, "stop", "refusal"),
        ({"tool_calls": [CALL]}, "tool_calls", "one call"),
        ({"tool_calls": [CALL, CALL]}, "tool_calls", "parallel calls"),
        ({"content": "Let me see.", "tool_calls": [CALL]}, "tool_calls", "other"),
        ({}, "stop", "not derivable"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_answers_are_classed_by_what_they_hold(
    message: dict[str, Any], finish: str, kind: str
) -> None:
    line = chat_line()
    body = json.loads(line["body"])
    body["choices"][0] |= {"message": message, "finish_reason": finish}
    line["body"] = json.dumps(body)
    assert judged(line)[Side.OUTPUT].kind == kind


def test_an_azure_recording_is_counted_as_azure_counts() -> None:
    line = chat_line(completion_tokens=4)
    line |= {"provider": "azure", "host": "azure"}
    assert judged(line)[Side.OUTPUT].cold.best == 4


def test_embeddings_have_a_prompt_only() -> None:
    line = chat_line() | {"path": "/v1/embeddings", "usage": {"prompt_tokens": 2}, "body": ""}
    line["request"] = {"model": "text-embedding-3-small", "input": ["hello", "hello"]}
    found = judged(line)
    assert list(found) == [Side.PROMPT]
    assert (found[Side.PROMPT].cold.best, found[Side.PROMPT].kind) == (2, "embeddings")


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"path": "/v1/messages", "endpoint": "messages"}, Skipped.ENDPOINT),
        ({"status": 429}, Skipped.FAILED),
        ({"request": None}, Skipped.REQUEST),
        ({"usage": None, "body": "{}"}, Skipped.USAGE),
    ],
)
def test_what_cannot_be_judged_is_skipped_by_name(change: dict[str, Any], why: Skipped) -> None:
    line = {**chat_line(), **change}
    found = read_exchange(json.dumps(line).encode())
    assert (Judge().judge(found) if isinstance(found, Exchange) else found) is why


def test_usage_in_the_body_will_do() -> None:
    assert judged({**chat_line(), "usage": None})[Side.PROMPT].truth == 13


def test_our_reader_is_compared_with_what_the_line_notes() -> None:
    judge = Judge()
    line = chat_line()
    judged(line, judge)
    assert judge.disagreeing == 0
    judged({**line, "usage": {"prompt_tokens": 14, "completion_tokens": 3}}, judge)
    assert judge.disagreeing == 1


def test_a_repeated_request_is_known_whatever_its_answer() -> None:
    requests = Requests(most=2)
    one, other = chat_line("a"), chat_line("b")
    assert requests.is_new(exchange(one))
    assert not requests.is_new(exchange({**one, "body": "{}"}))
    assert requests.is_new(exchange(other))
    assert requests.is_new(exchange({**one, "host": "elsewhere"}))
    assert requests.is_new(exchange(one))  # forgotten: it was the oldest of three


def test_the_cookbook_rule() -> None:
    def plain(**request: Any) -> int:
        return cookbook_count(Endpoint.CHAT, request, "gpt-4o")

    hello = {"role": "user", "content": "hello"}
    assert plain(messages=[hello]) == 3 + 3 + 1 + 1
    assert plain(messages=[{**hello, "name": "Ann"}]) == 3 + 3 + 1 + 1 + 1 + 1
    assert plain(messages=[hello], tools=[TOOL]) == plain(messages=[hello])
    assert plain(messages=[{**hello, "content": [{"type": "text", "text": "hello"}]}]) == 8
    given = {"instructions": "hello", "input": "hello"}
    assert cookbook_count(Endpoint.RESPONSES, given, "gpt-4o") == 3 + 2 * (3 + 1 + 1)


def test_every_prefix_of_a_stream_with_logprobs_is_counted() -> None:
    line = chat_line(answer="one two three four five", stream=True, logprobs=True)
    cuts = list(prefix_cuts(exchange(line)))
    assert [(cut.truth, cut.counted.best) for cut in cuts] == [(n, n) for n in range(1, 6)]
    assert {cut.known_by for cut in cuts} == {"logprobs"}


def test_a_stream_without_its_own_counts_has_no_prefixes() -> None:
    assert not list(prefix_cuts(exchange(chat_line(answer="one two three", stream=True))))
    assert not list(prefix_cuts(exchange(chat_line())))


@given(JSON, JSON, JSON, st.sampled_from([*Endpoint]), st.booleans())
def test_no_json_raises(
    request: object, body: object, usage: object, endpoint: Endpoint, stream: bool
) -> None:
    paths = {Endpoint.CHAT: "chat/completions", Endpoint.INPUT_TOKENS: "responses/input_tokens"}
    text = json.dumps(body)
    line = {
        "path": "/v1/" + paths.get(endpoint, endpoint.value),
        "request": {"model": "gpt-4o", "messages": request, "input": request, "tools": request},
        "body": f"data: {text}\n\ndata: {text}\n\n" if stream else text,
        "usage": {"prompt_tokens": 7, "completion_tokens": 5, "completion_tokens_details": usage},
    }
    found = read_exchange(json.dumps(line).encode())
    if isinstance(found, Exchange):
        assert Judge().judge(found)
        list(prefix_cuts(found))
        Requests().is_new(found)


@given(st.binary(max_size=60) | JSON.map(lambda value: json.dumps(value).encode()))
def test_no_line_raises(line: bytes) -> None:
    read_exchange(line)


@given(st.lists(st.floats(0, 9_999), min_size=1, max_size=300), st.sampled_from([0.5, 0.95, 1.0]))
def test_percentiles_are_right_to_three_digits(numbers: list[float], share: float) -> None:
    percents = Percents()
    for number in numbers:
        percents.add(number)
    exact = sorted(numbers)[max(0, -int(-share * len(numbers) // 1) - 1)]
    assert percents.quantile(share) == pytest.approx(exact, rel=0.006, abs=1e-300)
